//! Evidence flows in by itself: a laboratory's result, a stay in a listed area, a rule whose time runs out; and a red that no rule
//! supports.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use proto::{
    contract::{
        assignment::{AssignmentSource, CodeExplanation, PushedCode, PutCodesRequest},
        evidence::{
            EvidenceRecord, Person, PutEvidenceRequest, Risk, RiskArea, Stay, Test, Vaccination, Verdict,
            evidence_record::Content, person::Person as Whom,
        },
        recognition::{Decision, Outcome},
    },
    member::Member,
    policy::Meaning,
    presentation::Presentation,
    terms::{Level, Purpose},
    time::{Clock, UnixTime},
    venue::VenueId,
};
use province_stub::seed::{Condition, SeededPerson};
use tokio::time::Instant;

use super::{
    Ending, Report,
    cases::{PASS, Stage, look_closely},
};
use crate::{
    clock::MovableClock,
    commands::traveler,
    phone::{Phone, Wish, document, request_id},
    say,
};

const ASSIST: Ending = Ending::Answer(Outcome::Status, Decision::Assist);
const UNKNOWN: Ending = Ending::Answer(Outcome::UnknownTraveler, Decision::Assist);
const UNSUBSTANTIATED: Ending = Ending::Answer(Outcome::Unsubstantiated, Decision::Assist);
/// Within what a change is seen everywhere (I4).
const SEEN_WITHIN: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long a stay in an area of medium risk counts, by the national policy.
const STAY_COUNTS: Duration = Duration::from_secs(14 * 24 * 3600);
/// How much of that is left when the stay is reported, and how far the clock is moved on.
const LEFT: Duration = Duration::from_secs(25);
const PASSED: Duration = Duration::from_secs(30);

/// Somebody on the way, and whoever brings evidence about them.
struct Play<'a> {
    stage: &'a Stage,
    clock: &'a MovableClock,
    member: Member,
    venue: VenueId,
    person: SeededPerson,
    phone: Phone,
}

/// Performs it at a member whose labels can say all of it.
pub(super) async fn perform(stage: &Stage, clock: &MovableClock, report: &mut Report) -> Result<()> {
    let Some(member) = stage.member_with_yellow() else { return Ok(()) };
    let person = traveler::people(&stage.desk, member, Condition::NoCode)?.remove(0);
    let phone = stage.desk.backend(member)?.enroll(&person).await?;
    let play = Play { stage, clock, member, venue: stage.away(member)?, person, phone };
    play.tests(report).await?;
    play.stay(report).await?;
    play.red_without_basis(report).await
}

impl Play<'_> {
    /// Nothing is on file; then a laboratory's results come, and a dose, and the code with them.
    async fn tests(&self, report: &mut Report) -> Result<()> {
        let pass = self.phone.consent(&Wish::default(), self.clock.now()).await?;
        let present = || pass.present(Some(&self.venue), self.clock.now());
        self.seen(report, "no-evidence", &present, UNKNOWN, None, |_| true).await?;
        let now = self.clock.now();
        let (yesterday, earlier, just_now) =
            (now.minus(DAY), now.minus(Duration::from_secs(7200)), now.minus(Duration::from_secs(3600)));
        let dose = Content::Vaccination(Vaccination { dose: 2, give_time: Some(now.minus(DAY * 90).to_protobuf()) });
        let told = self.bring("lab-1", "health-commission", vec![test(yesterday, false), dose]).await?;
        let shows = |at: UnixTime| move |tests: &[UnixTime]| tests.contains(&at);
        self.seen(report, "test-arrives", &present, PASS, Some(told), shows(yesterday)).await?;
        let told = self.bring("lab-1", "health-commission", vec![test(earlier, true)]).await?;
        self.seen(report, "test-positive", &present, ASSIST, Some(told), shows(earlier)).await?;
        self.explained(report, "test-explained", "R-TEST", true).await?;
        let told = self.bring("lab-1", "health-commission", vec![test(just_now, false)]).await?;
        self.seen(report, "test-negative-again", &present, PASS, Some(told), shows(just_now)).await
    }

    /// A stay in an area that is listed; its rule's time runs out.
    async fn stay(&self, report: &mut Report) -> Result<()> {
        let pass = self.phone.consent(&Wish::default(), self.clock.now()).await?;
        let present = || pass.present(Some(&self.venue), self.clock.now());
        let now = self.clock.now();
        let left = now.minus(STAY_COUNTS).plus(LEFT);
        let area: u32 = self.person.document.number()[..6].parse()?;
        let listed = Content::RiskArea(RiskArea {
            area,
            risk: Risk::Medium.into(),
            start_time: Some(left.minus(DAY * 3).to_protobuf()),
            end_time: None,
        });
        let stay = Content::Stay(Stay {
            area,
            enter_time: Some(left.minus(DAY).to_protobuf()),
            leave_time: Some(left.to_protobuf()),
        });
        let told = self.bring("cdc-1", "joint-mechanism", vec![listed, stay]).await?;
        self.seen(report, "stay-in-a-listed-area", &present, ASSIST, Some(told), |_| true).await?;
        self.explained(report, "stay-explained", "R-MEDIUM-AREA", true).await?;
        self.clock.pass(PASSED);
        let passed = Instant::now();
        self.seen(report, "the-rules-time-runs-out", &present, PASS, Some(passed), |_| true).await
    }

    /// The member's own platform turns them red, by a rule and an authority that no policy has.
    async fn red_without_basis(&self, report: &mut Report) -> Result<()> {
        let reference = request_id();
        let (person, now) = (&self.person, self.clock.now());
        let phone = self.stage.desk.backend(self.member)?.enroll_as(person, &reference).await?;
        let pass = phone.consent(&Wish::default(), now).await?;
        let present = || pass.present(Some(&self.venue), self.clock.now());
        let policy = &self.stage.desk.trust().policy;
        let red = policy.labels_meaning(self.member, Meaning::Level(Level::Red)).next().context("a red")?.to_owned();
        let code = PushedCode {
            person_reference: reference,
            label: red,
            rule: "R-DEPOSITOR".into(),
            authority: format!("{}/finance-office", self.member),
            assign_time: Some(now.to_protobuf()),
            evidence: "demonstration".into(),
        };
        let request = PutCodesRequest { request_id: request_id(), codes: vec![code] };
        let mut answers =
            self.stage.desk.platform(self.member)?.put_codes(tokio_stream::once(request)).await?.into_inner();
        let answer = answers.message().await?.context("a batch has an answer")?;
        let told = Instant::now();
        ensure!(answer.changed_consents > 0, "the push changed nothing");
        self.seen(report, "red-without-basis", &present, UNSUBSTANTIATED, Some(told), |_| true).await?;
        self.explained(report, "red-explained", "R-DEPOSITOR", false).await
    }

    /// Brings evidence about this person, and says when home had it.
    async fn bring(&self, feed: &str, authority: &str, contents: Vec<Content>) -> Result<Instant> {
        let about = || Some(Person { person: Some(Whom::Document(document(&self.person))) });
        let record = |content: Content| EvidenceRecord {
            record_id: request_id(),
            revision: 0,
            person: if matches!(content, Content::RiskArea(_)) { None } else { about() },
            authority: format!("{}/{authority}", self.member),
            content: Some(content),
        };
        let records = contents.into_iter().map(record).collect();
        let request = PutEvidenceRequest { batch: 1, records, dry_run: false };
        let mut answers =
            self.stage.desk.feed(self.member, feed)?.put_evidence(tokio_stream::once(request)).await?.into_inner();
        let answer = answers.message().await?.context("a batch has an answer")?;
        let told = Instant::now();
        // A feed has one stream at a time: this one is over before the next one begins.
        ensure!(answers.message().await?.is_none(), "more than was asked is answered");
        let refused = answer.verdicts.iter().find(|verdict| verdict.verdict() != Verdict::Accepted);
        ensure!(refused.is_none(), "not taken in: {refused:?}");
        Ok(told)
    }

    /// Asks until the answer is as wanted, for a second after `told` at most: then it must be.
    async fn seen(
        &self,
        report: &mut Report,
        name: &str,
        present: &impl Fn() -> Presentation,
        want: Ending,
        told: Option<Instant>,
        shows: impl Fn(&[UnixTime]) -> bool,
    ) -> Result<()> {
        let checkpoint = self.stage.desk.checkpoint(&self.venue)?;
        loop {
            let (shown, ms) = look_closely(report, &checkpoint, &present(), Purpose::Travel).await?;
            let tests: Vec<_> = match &shown {
                Ok(seen) => seen.statement.iter().flat_map(|s| &s.status().tests).map(|test| test.sampled_at).collect(),
                Err(_) => Vec::new(),
            };
            let got = Ending::of(&shown.map(|seen| seen.answer));
            let as_wanted = got == want && shows(&tests);
            if as_wanted || told.is_none_or(|told| told.elapsed() >= SEEN_WITHIN) {
                let note =
                    told.map(|told| format!("seen {:.1} ms after home's word", told.elapsed().as_secs_f64() * 1000.0));
                // What is not shown in time is no success, whatever the outcome.
                let want = if got == want && !as_wanted { Ending::Undocumented(tonic::Code::DataLoss) } else { want };
                report.noted(name, want, got, ms, &note.unwrap_or_default());
                return Ok(());
            }
        }
    }

    /// What the traveler reads about their code, in Chinese and in English.
    async fn explained(&self, report: &mut Report, name: &str, rule: &str, substantiated: bool) -> Result<()> {
        let started = Instant::now();
        let code = self.phone.code().await?.context("there is a code")?;
        let found = (|| {
            ensure!(code.rule == rule, "it is by {}", code.rule);
            ensure!(code.substantiated == substantiated, "the policy says otherwise");
            let by_rules = code.source() == AssignmentSource::Rules;
            ensure!(by_rules == (code.evidence.len() == 1), "the evidence is not there");
            Ok(code.authority.clone())
        })();
        if !report.json {
            say!("     {}", words(&code).join("\n     "));
        }
        report.found(name, "EXPLAINED", found, started.elapsed().as_secs_f64() * 1000.0);
        Ok(())
    }
}

fn test(sampled_at: UnixTime, positive: bool) -> Content {
    Content::Test(Test { sample_time: Some(sampled_at.to_protobuf()), positive })
}

/// An explanation as its traveler reads it.
fn words(code: &CodeExplanation) -> [String; 2] {
    let until = code.end_time.as_ref().and_then(UnixTime::from_protobuf);
    let (until_zh, until_en) = match until {
        Some(until) => (format!("，至 {until}"), format!(", until {until}")),
        None => (String::new(), String::new()),
    };
    let from =
        code.evidence.first().map_or_else(String::new, |evidence| format!(" [{} {}]", evidence.source, evidence.class));
    let (basis_zh, basis_en) = match code.rule_zh.is_empty() {
        true => (format!("{}（国家规定中没有这一条）", code.rule), format!("{} (no national rule)", code.rule)),
        false => (format!("{}（{}）", code.rule_zh, code.rule), format!("{} ({})", code.rule_en, code.rule)),
    };
    [
        format!("{}：{basis_zh}，{} 赋码{until_zh}{from}", code.label, code.authority),
        format!("{}: {basis_en}, assigned by {}{until_en}{from}", code.label, code.authority),
    ]
}
