//! The cases of the demonstration, in the order a visitor would understand them.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use gateway::pki::{Authority, LEAF_LIFE};
use proto::{
    contract::{
        assignment::SetCodeRequest,
        recognition::{Decision, Outcome, RecognizeResponse},
        types,
    },
    identity::{PeerId, Realm},
    member::Member,
    presentation::Presentation,
    refusal::Reason,
    suite::{SigningKey, Suite},
    terms::{Kind, Purpose, Purposes, Scope},
    time::{Clock, SystemClock},
    token::UnverifiedToken,
    venue::VenueId,
};
use province_stub::seed::{Condition, SeededPerson};
use tokio::time::Instant;
use tonic::Status;

use super::{Asked, Ending, Report, accesses, evidence};
use crate::{
    checkpoint::{Checkpoint, Seen},
    clock::MovableClock,
    commands::traveler,
    desk::Desk,
    federation::Federation,
    phone::{PROOF_LIFE, Pass, Phone, Wish, request_id},
    venues,
};

pub(super) const PASS: Ending = Ending::Answer(Outcome::Status, Decision::Pass);
const ASSIST: Ending = Ending::Answer(Outcome::Status, Decision::Assist);
const STOP: Ending = Ending::Answer(Outcome::Status, Decision::Stop);

/// Performs everything this federation's members can show.
pub(super) async fn perform(federation: &mut Federation, clock: &MovableClock, report: &mut Report) -> Result<()> {
    let stage = Stage::new(federation)?;
    stage.colours(report).await?;
    stage.no_status(report).await?;
    stage.consent(report).await?;
    stage.replay(report).await?;
    stage.paper(report).await?;
    stage.callers(report).await?;
    let turned = stage.change(report).await?;
    unreachable(federation, &stage, report).await?;
    accesses::perform(&stage, &turned, report).await?;
    // The clock moves on in there: what comes after it would look old, so that nothing does.
    evidence::perform(&stage, clock, report).await
}

/// Who plays.
pub(super) struct Stage {
    pub(super) desk: Desk,
    pub(super) members: Vec<Member>,
    pub(super) main: Member,
}

impl Stage {
    fn new(federation: &Federation) -> Result<Self> {
        let members = federation.members().to_vec();
        let preferred = "44".parse().ok().filter(|member| members.contains(member));
        let main = preferred.or(members.first().copied()).context("a federation has members")?;
        Ok(Self { desk: federation.desk().clone(), members, main })
    }

    /// Of these members those that are here; the main one if none is.
    fn any_of(&self, codes: &[&str]) -> Vec<Member> {
        let here = codes.iter().filter_map(|code| code.parse().ok()).filter(|member| self.members.contains(member));
        let here: Vec<_> = here.collect();
        if here.is_empty() { vec![self.main] } else { here }
    }

    async fn pass(&self, member: Member, condition: Condition, wish: &Wish) -> Result<Pass> {
        traveler::pass(&self.desk, member, condition, wish, SystemClock.now()).await
    }

    /// A member that has a label for yellow: not every one has.
    pub(super) fn member_with_yellow(&self) -> Option<Member> {
        let policy = &self.desk.trust().policy;
        let has = |member: &Member| {
            let yellow = proto::policy::Meaning::Level(proto::terms::Level::Yellow);
            policy.label_for(*member, yellow).is_some() && !self.desk.prepared().plan.is_external(*member)
        };
        self.any_of(&["51", "31", "41"]).into_iter().chain(self.members.iter().copied()).find(has)
    }

    pub(super) fn away(&self, member: Member) -> Result<VenueId> {
        venues::away_from(member, &self.members).context("a federation has venues")
    }

    /// A traveler of `member` in this condition at a checkpoint elsewhere.
    async fn show(
        &self,
        report: &mut Report,
        name: &str,
        member: Member,
        condition: Condition,
        want: Ending,
    ) -> Result<()> {
        let pass = self.pass(member, condition, &Wish::default()).await?;
        let venue = self.away(member)?;
        let presentation = pass.present(Some(&venue), SystemClock.now());
        self.ask(report, name, &venue, &presentation, Purpose::Entry, want).await
    }

    pub(super) async fn ask(
        &self,
        report: &mut Report,
        name: &str,
        venue: &VenueId,
        presentation: &Presentation,
        purpose: Purpose,
        want: Ending,
    ) -> Result<()> {
        let (result, ms) = look(report, &self.desk.checkpoint(venue)?, presentation, purpose).await?;
        report.case(name, want, Ending::of(&result), ms);
        Ok(())
    }

    /// Whether anybody seeded in a member has this condition.
    fn has(&self, member: Member, condition: Condition) -> bool {
        traveler::people(&self.desk, member, condition).is_ok()
    }

    async fn colours(&self, report: &mut Report) -> Result<()> {
        for member in self.any_of(&["11", "31", "44", "51", "66", "00"]) {
            self.show(report, &format!("green-{member}"), member, Condition::Green, PASS).await?;
        }
        for member in self.any_of(&["12", "52"]) {
            if self.has(member, Condition::Yellow) {
                self.show(report, &format!("yellow-{member}"), member, Condition::Yellow, ASSIST).await?;
            }
        }
        for member in self.any_of(&["44", "51"]) {
            self.show(report, &format!("red-{member}"), member, Condition::Red, STOP).await?;
        }
        Ok(())
    }

    async fn no_status(&self, report: &mut Report) -> Result<()> {
        let assisted = |outcome| Ending::Answer(outcome, Decision::Assist);
        for member in self.any_of(&["11", "43", "64"]) {
            if self.has(member, Condition::Undetermined) {
                let name = format!("undetermined-{member}");
                self.show(report, &name, member, Condition::Undetermined, assisted(Outcome::Undetermined)).await?;
            }
        }
        for member in self.any_of(&["41"]) {
            let want = assisted(Outcome::Unsubstantiated);
            self.show(report, &format!("unsubstantiated-{member}"), member, Condition::Unsubstantiated, want).await?;
        }
        let want = assisted(Outcome::UnknownTraveler);
        self.show(report, "unknown", self.main, Condition::NoCode, want).await
    }

    async fn consent(&self, report: &mut Report) -> Result<()> {
        let (member, venue) = (self.main, self.away(self.main)?);
        let entry_only = Wish { purposes: Purposes::new([Purpose::Entry]).context("one purpose")?, ..Wish::default() };
        let pass = self.pass(member, Condition::Green, &entry_only).await?;
        let now = SystemClock.now();
        let fresh = pass.present(Some(&venue), now);
        let want = Ending::Refusal(Reason::PurposeNotConsented);
        self.ask(report, "wrong-purpose", &venue, &fresh, Purpose::Travel, want).await?;
        let old = pass.present(Some(&venue), now.minus(Duration::from_secs(120)));
        self.ask(report, "expired", &venue, &old, Purpose::Entry, Ending::Refusal(Reason::Expired)).await?;
        let ahead = pass.present(Some(&venue), now.plus(Duration::from_secs(120)));
        let want = Ending::Refusal(Reason::DeviceClockOff);
        self.ask(report, "device-clock-ahead", &venue, &ahead, Purpose::Entry, want).await?;
        let thief = SigningKey::generate(Suite::Esp256);
        let stolen = pass.present_by(Some(&thief), Some(&venue), now, PROOF_LIFE);
        let want = Ending::Refusal(Reason::SignatureInvalid);
        self.ask(report, "another-devices-proof", &venue, &stolen, Purpose::Entry, want).await?;
        let screenshot = pass.present_by(None, None, now, PROOF_LIFE);
        let want = Ending::Refusal(Reason::ProofMissing);
        self.ask(report, "token-without-proof", &venue, &screenshot, Purpose::Entry, want).await
    }

    async fn replay(&self, report: &mut Report) -> Result<()> {
        let (here, there) = self.two_venues()?;
        let pass = self.pass(self.main, Condition::Green, &Wish::default()).await?;
        let bound = pass.present(Some(&here), SystemClock.now());
        self.ask(report, "bound-to-this-venue", &here, &bound, Purpose::Entry, PASS).await?;
        let want = Ending::Refusal(Reason::ProofOfOtherVenue);
        self.ask(report, "replayed-at-another-venue", &there, &bound, Purpose::Entry, want).await?;
        let free = pass.present(None, SystemClock.now());
        if self.desk.prepared().plan.gateways > 1 {
            // Replicas that share no store cannot say which venue was first.
            let want = Ending::Refusal(Reason::VenueBindingRequired);
            return self.ask(report, "bound-to-no-venue", &here, &free, Purpose::Entry, want).await;
        }
        self.ask(report, "first-venue-redeems", &here, &free, Purpose::Entry, PASS).await?;
        self.ask(report, "same-venue-again", &here, &free, Purpose::Entry, PASS).await?;
        let want = Ending::Refusal(Reason::AlreadyRedeemed);
        self.ask(report, "second-venue-is-late", &there, &free, Purpose::Entry, want).await
    }

    async fn paper(&self, report: &mut Report) -> Result<()> {
        let wish = Wish { kind: Kind::Paper, scope: Scope::LEVEL, ..Wish::default() };
        let pass = self.pass(self.main, Condition::Green, &wish).await?;
        let paper = pass.present(None, SystemClock.now());
        self.ask(report, "paper", &self.away(self.main)?, &paper, Purpose::Entry, PASS).await
    }

    /// Certificates that say more than their CA may vouch for, and venues that ask for others.
    async fn callers(&self, report: &mut Report) -> Result<()> {
        let (here, there) = self.two_venues()?;
        let pass = self.pass(self.main, Condition::Green, &Wish::default()).await?;
        let presentation = pass.present(Some(&here), SystemClock.now());
        let started = Instant::now();
        let request = Checkpoint::request(&here, &presentation, Purpose::Entry);
        let result = self.desk.checkpoint(&there)?.send(request).await;
        let ms = started.elapsed().as_secs_f64() * 1000.0;
        report.case("venue-names-another", Ending::Refusal(Reason::VenueNotYours), Ending::of(&result), ms);
        let Some(other) = self.members.iter().find(|member| **member != here.member()) else { return Ok(()) };
        let impostor = self.impostor(&here, *other)?;
        let started = Instant::now();
        let result = impostor.send(Checkpoint::request(&here, &presentation, Purpose::Entry)).await;
        let ms = started.elapsed().as_secs_f64() * 1000.0;
        report.case("certificate-of-another-ca", Ending::NoConnection, Ending::of(&result), ms);
        Ok(())
    }

    /// A venue of one member whose certificate another member's CA signed.
    fn impostor(&self, venue: &VenueId, signer: Member) -> Result<Checkpoint> {
        let layout = self.desk.layout();
        let (certificate, key) = layout.ca(Realm::Member(signer));
        let forged = Authority::read(Realm::Member(venue.member()), &layout.domain(), &certificate, &key)?;
        let dir = layout.dir().join("impostor");
        forged.issue(&PeerId::venue(venue.clone()), &[], SystemClock.now(), LEAF_LIFE)?.write(&dir)?;
        Checkpoint::new(venue.clone(), self.desk.standing(&dir)?, &self.desk.gateway_address()?)
    }

    /// An operator turns a traveler red and green again; the next answer says so. Returns their phone.
    async fn change(&self, report: &mut Report) -> Result<Phone> {
        let (member, venue) = (self.main, self.away(self.main)?);
        let (person, phone) = self.enroll(member).await?;
        let pass = phone.consent(&Wish::default(), SystemClock.now()).await?;
        let policy = &self.desk.trust().policy;
        let label = |level| {
            let mut labels = policy.labels_meaning(member, proto::policy::Meaning::Level(level));
            labels.next().map(str::to_owned).context("every member has a green and a red")
        };
        let replicas = self.desk.checkpoints(&venue)?;
        let present = || pass.present(Some(&venue), SystemClock.now());
        for (checkpoint, replica) in replicas.iter().zip(1..) {
            for name in ["first-look", "second-look"] {
                let (result, ms) = look(report, checkpoint, &present(), Purpose::Entry).await?;
                report.noted(&at(name, replica), PASS, Ending::of(&result), ms, &source_words(&result));
            }
        }
        let steps =
            [("turned-red", proto::terms::Level::Red, STOP), ("turned-green-again", proto::terms::Level::Green, PASS)];
        for (name, level, want) in steps {
            self.set_code(member, &person, label(level)?).await?;
            let acknowledged = Instant::now();
            for (checkpoint, replica) in replicas.iter().zip(1..) {
                // Nobody asks for anything special; within a second it must be seen (I4).
                let (mut result, mut ms) = look(report, checkpoint, &present(), Purpose::Entry).await?;
                while Ending::of(&result) != want && acknowledged.elapsed() < Duration::from_secs(1) {
                    (result, ms) = look(report, checkpoint, &present(), Purpose::Entry).await?;
                }
                let seen = format!("seen {:.1} ms after home's word", acknowledged.elapsed().as_secs_f64() * 1000.0);
                report.noted(&at(name, replica), want, Ending::of(&result), ms, &seen);
            }
        }
        Ok(phone)
    }

    /// A phone of its own for somebody green, and for one who has none yet if there is such a one.
    pub(super) async fn enroll(&self, member: Member) -> Result<(SeededPerson, Phone)> {
        let kept = |person: &SeededPerson| self.desk.layout().phone(member, person.index);
        let mut people = traveler::people(&self.desk, member, Condition::Green)?;
        people.sort_by_key(|person| kept(person).exists());
        let person = people.into_iter().next().context("a green")?;
        let phone = self.desk.backend(member)?.enroll(&person).await?;
        phone.keep(&kept(&person))?;
        Ok((person, phone))
    }

    async fn set_code(&self, member: Member, person: &SeededPerson, label: String) -> Result<()> {
        let request = SetCodeRequest {
            request_id: request_id(),
            document: Some(types::Document {
                r#type: i32::from(person.document.kind().number()),
                number: person.document.number().to_owned(),
            }),
            label,
            rule: "R-CASE".into(),
            authority: format!("{member}/cdc"),
            justification: "demonstration".into(),
        };
        self.desk.operator(member)?.set_code(request).await?;
        Ok(())
    }

    /// Two venues, of different members if there are two.
    fn two_venues(&self) -> Result<(VenueId, VenueId)> {
        let here = self.away(self.main)?;
        let venues = venues::of(&self.members);
        let there = venues.iter().find(|venue| venue.member() != here.member());
        let there = there.or_else(|| venues.iter().find(|venue| **venue != here));
        Ok((here.clone(), there.cloned().context("a second venue")?))
    }
}

/// A member's node stops; its travelers get an explicit outcome, the others do not notice; it comes back.
async fn unreachable(federation: &mut Federation, stage: &Stage, report: &mut Report) -> Result<()> {
    let member = *stage.members.last().context("a federation has members")?;
    let pass = stage.pass(member, Condition::Green, &Wish::default()).await?;
    let venue = stage.away(member)?;
    let present = || pass.present(Some(&venue), SystemClock.now());
    federation.stop_node(member).await?;
    let want = Ending::Answer(Outcome::HomeUnreachable, Decision::Assist);
    stage.ask(report, &format!("unreachable-{member}"), &venue, &present(), Purpose::Entry, want).await?;
    if stage.main != member {
        stage.show(report, &format!("meanwhile-{}", stage.main), stage.main, Condition::Green, PASS).await?;
    }
    federation.restart_node(member).await?;
    stage.ask(report, &format!("back-{member}"), &venue, &present(), Purpose::Entry, PASS).await
}

/// Shows a presentation to a venue, and keeps what came of it. With how long it took, in milliseconds.
pub(super) async fn look(
    report: &mut Report,
    checkpoint: &Checkpoint,
    presentation: &Presentation,
    purpose: Purpose,
) -> Result<(Result<RecognizeResponse, Status>, f64)> {
    let (shown, ms) = look_closely(report, checkpoint, presentation, purpose).await?;
    Ok((shown.map(|seen| seen.answer), ms))
}

/// The same with all that the venue learned.
pub(super) async fn look_closely(
    report: &mut Report,
    checkpoint: &Checkpoint,
    presentation: &Presentation,
    purpose: Purpose,
) -> Result<(Result<Seen, Status>, f64)> {
    let cti = UnverifiedToken::parse(&presentation.token).map_err(|refusal| anyhow!("the token: {refusal}"))?.cti();
    let started = Instant::now();
    let shown = checkpoint.show(presentation, purpose).await?;
    let ms = started.elapsed().as_secs_f64() * 1000.0;
    let receipt = shown.as_ref().ok().map(|seen| seen.receipt.clone());
    let ending = Ending::of(&shown.as_ref().map(|seen| seen.answer.clone()).map_err(Status::clone));
    report.asked.push(Asked { cti, venue: checkpoint.venue().clone(), purpose, ending, receipt });
    Ok((shown, ms))
}

/// The case's name at a replica; the first one is the gateway to whoever knows of no other.
pub(super) fn at(name: &str, replica: usize) -> String {
    if replica == 1 { name.to_owned() } else { format!("{name}-replica-{replica}") }
}

pub(super) fn source_words(result: &Result<RecognizeResponse, Status>) -> String {
    match result {
        Ok(answer) => format!("from {}", answer.source().as_str_name().trim_start_matches("SOURCE_")),
        Err(_) => String::new(),
    }
}
