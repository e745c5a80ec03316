//! From evidence to a gate: what a laboratory and a centre for disease control bring, the label that each member really uses for what
//! follows, and what another province makes of it.
//!
//! ```text
//! evidence     the real members: Beijing's pop-up, Yunnan's three colours, Sichuan's contacts, the national platform, Guangdong's two
//! freshness    what was acknowledged is seen (I4), and nothing is told beyond the instant at which time changes it
//! refusals     every verdict and its reason, in the order of the contract
//! streams      what ends a stream, and what does not
//! explanation  who looked at a code and why it is so; all that is on file, for its traveler
//! ```

mod explanation;
mod freshness;
mod refusals;
mod streams;

use std::time::Duration;

use proto::{
    contract::{
        assignment::{AssignmentSource, PushedCode},
        evidence::{PutEvidenceResponse, Risk, Verdict, evidence_record::Content, person::Person as Whom},
        recognition::{Decision, Outcome},
        types::Level,
    },
    member::Member,
    statement::Status,
    terms::Purpose,
    time::UnixTime,
    venue::VenueId,
};
use province_stub::seed::SeededPerson;
use tongxing::{
    checkpoint::Seen,
    phone::{Phone, Wish, request_id},
};

use crate::sandbox::{
    Sandbox,
    evidence::{Feed, case, contact, dose, push, stay, test},
    member, until, venue, wire,
};

pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);
const SECOND: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(20);

/// What a gate sees: the member's label, the outcome, the national level, the decision.
type Gate<'a> = (&'a str, Outcome, Level, Decision);

const fn green(label: &str) -> Gate<'_> {
    (label, Outcome::Status, Level::Green, Decision::Pass)
}

const fn yellow(label: &str) -> Gate<'_> {
    (label, Outcome::Status, Level::Yellow, Decision::Assist)
}

const fn red(label: &str) -> Gate<'_> {
    (label, Outcome::Status, Level::Red, Decision::Stop)
}

/// A label without a level: never silently green (I5).
const fn unclear(label: &str) -> Gate<'_> {
    (label, Outcome::Undetermined, Level::Unspecified, Decision::Assist)
}

const NO_CODE: Gate<'_> = ("", Outcome::UnknownTraveler, Level::Unspecified, Decision::Assist);

/// Somebody of a member whom nobody has a code for, on the way in another province; and whoever brings evidence about them.
pub(crate) struct Journey {
    pub(crate) sandbox: Sandbox,
    pub(crate) home: Member,
    pub(crate) person: SeededPerson,
    pub(crate) phone: Phone,
    pub(crate) reference: String,
    pub(crate) lab: Feed,
    pub(crate) cdc: Feed,
    pub(crate) station: VenueId,
    /// Where everything may be seen, and what for.
    full: (VenueId, Purpose),
}

impl Journey {
    /// A federation of their home and of Guangdong; of Beijing, if Guangdong is their home.
    pub(crate) async fn begin(home: &str) -> Self {
        let away = if home == "44" { "11" } else { "44" };
        let sandbox = Sandbox::start(&[home, away]).await;
        let (home, reference) = (member(home), request_id());
        let person = sandbox.newcomer(home, 0);
        let backend = sandbox.desk.backend(home).expect("the backend has credentials");
        let phone = backend.enroll_as(&person, &reference).await.expect("the phone enrols");
        let (station, full) = match away {
            "11" => ("11/station/beijing-west", ("11/airport/capital", Purpose::Travel)),
            _ => ("44/station/guangzhou-south", ("44/hospital/zhongshan-first", Purpose::Medical)),
        };
        let (station, full) = (venue(station), (venue(full.0), full.1));
        let (lab, cdc) = (sandbox.feed(home, "lab-1"), sandbox.feed(home, "cdc-1"));
        Self { sandbox, home, person, phone, reference, lab, cdc, station, full }
    }

    pub(crate) fn now(&self) -> UnixTime {
        self.sandbox.now()
    }

    pub(crate) fn ago(&self, time: Duration) -> UnixTime {
        self.now().minus(time)
    }

    /// What a laboratory has found.
    pub(crate) async fn found(&self, contents: impl IntoIterator<Item = Content>) -> PutEvidenceResponse {
        let records = contents.into_iter().map(|content| self.lab.about(&self.person, "health-commission", content));
        self.lab.bring(records.collect()).await
    }

    /// A stay in an area of this risk, and the listing that makes it one.
    pub(crate) async fn stayed(&self, risk: Risk, from: UnixTime, until: UnixTime) -> PutEvidenceResponse {
        const AREA: u32 = 110_105;
        let stay = self.cdc.about(&self.person, "joint-mechanism", stay(AREA, from, until));
        self.cdc.bring(vec![self.cdc.listing(AREA, risk, from.minus(DAY)), stay]).await
    }

    /// Shows a new pass.
    async fn show(&self, venue: &VenueId, purpose: Purpose) -> Seen {
        let pass = self.phone.consent(&Wish::default(), self.now()).await.expect("home issues a token");
        self.sandbox.show(venue, &pass, purpose).await
    }

    /// Asserts what a station of another province sees, and returns it.
    async fn assert_at_the_gate(&self, what: &str, gate: Gate<'_>) -> Seen {
        let seen = self.show(&self.station, Purpose::Entry).await;
        let answer = &seen.answer;
        let label = seen.statement.as_ref().map_or("", |statement| statement.status().label.as_str());
        let got = (label, answer.outcome(), answer.level(), answer.decision());
        assert_eq!(got, gate, "{} of {}: {what}", self.home.profile().health_code_zh, self.home.profile().name_zh);
        if let Some(conversion) = &answer.conversion {
            assert_eq!(conversion.label, label, "another label is converted than home has signed");
        }
        seen
    }

    /// The status that home has signed for whom policy lets see tests and doses.
    async fn status_in_full(&self) -> Status {
        let seen = self.show(&self.full.0, self.full.1).await;
        seen.statement.expect("home has signed").status().clone()
    }

    /// The rule that the traveler reads about their code.
    async fn rule(&self) -> (String, Option<UnixTime>) {
        let code = self.phone.code().await.expect("home explains the code").expect("there is a code");
        assert_eq!(code.source(), AssignmentSource::Rules);
        assert!(code.substantiated, "the policy does not admit what it says itself");
        (code.rule, code.end_time.as_ref().and_then(UnixTime::from_protobuf))
    }

    /// Moves everybody's clock on.
    pub(crate) fn pass_until(&self, then: UnixTime) {
        self.sandbox.clock.advance(Duration::from_secs(then.since(self.now())));
        assert_eq!(self.now(), then, "that has been");
    }

    /// A case, which goes on.
    async fn is_a_case(&self) {
        let case = case(self.ago(HOUR), None);
        self.cdc.bring(vec![self.cdc.about(&self.person, "cdc", case)]).await;
    }

    /// New editions, before the old ones expire, wherever they are held.
    async fn renew(&self) {
        self.sandbox.federation.renew().await.expect("new editions");
        let version = self.sandbox.desk.trust().list_edition.version;
        let addresses = &self.sandbox.desk.prepared().addresses;
        let node = addresses.nodes[&self.home.to_string()].private.to_string();
        let gateway = addresses.gateways[0].private.to_string();
        for address in [node, gateway] {
            let has = format!("trust list version {version}\n");
            until("the new editions are held", PATIENCE, async || wire::get(&address, "/readyz").await.contains(&has))
                .await;
        }
    }

    /// Nobody has a code for them; then a negative test and a dose come, and the code with them.
    async fn arrive_with_test_and_dose(&self, label: &str) {
        self.assert_at_the_gate("of whom nothing is on file", NO_CODE).await;
        let (sampled_at, given_at) = (self.ago(HOUR), self.ago(DAY * 90));
        self.found([test(sampled_at, false), dose(2, given_at)]).await;
        let seen = self.assert_at_the_gate("with a negative test", green(label)).await;
        let status = seen.statement.expect("home has signed").status().clone();
        assert!(status.tests.is_empty() && status.doses.is_empty(), "a station on entry may see neither");
        let status = self.status_in_full().await;
        let tests: Vec<_> = status.tests.iter().map(|test| (test.sampled_at, test.positive)).collect();
        assert_eq!(tests, [(sampled_at, false)]);
        let doses: Vec<_> = status.doses.iter().map(|dose| (dose.number, dose.given_at)).collect();
        assert_eq!(doses, [(2, given_at)]);
    }

    async fn stop(self) {
        self.sandbox.stop().await;
    }
}

/// 北京健康宝: words instead of colours, and a pop-up that asks for a test.
#[tokio::test]
async fn beijing_says_words_and_pops_up_until_there_is_a_fresh_test() {
    let journey = Journey::begin("11").await;
    assert_eq!(journey.home.profile().health_code_zh, "北京健康宝");
    journey.arrive_with_test_and_dose("未见异常").await;
    // After that test, which says nothing of it.
    let left = journey.ago(HOUR / 4);
    journey.stayed(Risk::Low, journey.ago(HOUR / 2), left).await;
    let seen = journey.assert_at_the_gate("after a stay in a low-risk area", unclear("弹窗")).await;
    assert!(!seen.answer.next_step.expect("the person is told what to do").zh.is_empty());
    assert_eq!(journey.rule().await, ("R-LOW-AREA".into(), Some(left.plus(DAY * 7))));
    let tested = journey.now();
    journey.found([test(tested, false)]).await;
    journey.assert_at_the_gate("with a fresh negative test", green("未见异常")).await;
    journey.pass_until(tested.plus(DAY * 3 - SECOND));
    let seen = journey.assert_at_the_gate("with a test of 72 hours less a second", green("未见异常")).await;
    let statement = seen.statement.expect("home has signed");
    assert_eq!(statement.status().expires_at, tested.plus(DAY * 3), "a statement outlives the test");
    journey.pass_until(tested.plus(DAY * 3));
    journey.assert_at_the_gate("with a test of 72 hours", unclear("弹窗")).await;
    journey.found([test(journey.now(), false)]).await;
    journey.assert_at_the_gate("tested again", green("未见异常")).await;
    journey.pass_until(tested.plus(DAY * 6));
    journey.assert_at_the_gate("with that test of 72 hours", unclear("弹窗")).await;
    journey.pass_until(left.plus(DAY * 7));
    journey.assert_at_the_gate("seven days after the stay", green("未见异常")).await;
    journey.renew().await;
    journey.is_a_case().await;
    journey.assert_at_the_gate("a case", red("集中观察")).await;
    journey.stop().await;
}

/// 云南健康码: three colours.
#[tokio::test]
async fn yunnan_is_yellow_for_fourteen_days_after_a_medium_risk_area() {
    let journey = Journey::begin("53").await;
    assert_eq!(journey.home.profile().health_code_zh, "云南健康码");
    journey.arrive_with_test_and_dose("绿码").await;
    // Reported late: most of the time has passed.
    let left = journey.ago(DAY * 10);
    journey.stayed(Risk::Medium, left.minus(DAY), left).await;
    let seen = journey.assert_at_the_gate("after a stay in a medium-risk area", yellow("黄码")).await;
    let assigned = seen.answer.assignment.expect("a yellow names who assigned it, whatever the scope");
    assert_eq!((assigned.rule.as_str(), assigned.authority.as_str()), ("R-MEDIUM-AREA", "53/joint-mechanism"));
    let status = journey.status_in_full().await;
    assert_eq!(status.visits.iter().map(|visit| (visit.area, visit.high)).collect::<Vec<_>>(), [(110_105, false)]);
    // A negative test does not lift it.
    journey.found([test(journey.now(), false)]).await;
    journey.assert_at_the_gate("tested meanwhile", yellow("黄码")).await;
    journey.pass_until(left.plus(DAY * 14 - SECOND));
    journey.assert_at_the_gate("a second before fourteen days", yellow("黄码")).await;
    journey.pass_until(left.plus(DAY * 14));
    journey.assert_at_the_gate("fourteen days after it", green("绿码")).await;
    journey.is_a_case().await;
    journey.assert_at_the_gate("a case", red("红码")).await;
    journey.stop().await;
}

/// 四川天府健康通: a contact is red for fourteen days and yellow for seven.
#[tokio::test]
async fn sichuan_turns_a_contact_red_then_yellow_then_green_over_twenty_one_days() {
    let journey = Journey::begin("51").await;
    assert_eq!(journey.home.profile().health_code_zh, "四川天府健康通");
    journey.arrive_with_test_and_dose("绿码").await;
    let met = journey.ago(DAY * 9);
    journey.cdc.bring(vec![journey.cdc.about(&journey.person, "cdc", contact(met))]).await;
    journey.assert_at_the_gate("a close contact", red("红码")).await;
    assert_eq!(journey.rule().await, ("R-CONTACT".into(), Some(met.plus(DAY * 14))));
    for (renewed, day, before, after) in
        [(13, 14, red("红码"), yellow("黄码")), (19, 21, yellow("黄码"), green("绿码"))]
    {
        // A trust list lives for seven days.
        journey.pass_until(met.plus(DAY * renewed));
        journey.renew().await;
        journey.pass_until(met.plus(DAY * day - SECOND));
        journey.assert_at_the_gate(&format!("a second before day {day}"), before).await;
        journey.pass_until(met.plus(DAY * day));
        journey.assert_at_the_gate(&format!("day {day}"), after).await;
    }
    let code = journey.phone.code().await.unwrap().expect("there is a code");
    assert_eq!((code.rule.as_str(), code.end_time), ("", None), "a green that follows from nothing");
    journey.stop().await;
}

/// 国家政务服务平台: 未见异常 and, in the announcement's words, 无异常.
#[tokio::test]
async fn the_national_platform_knows_yellow_and_what_is_to_be_verified() {
    let journey = Journey::begin("00").await;
    journey.arrive_with_test_and_dose("未见异常").await;
    journey.found([test(journey.ago(HOUR / 2), true)]).await;
    journey.assert_at_the_gate("with a positive test", yellow("黄码")).await;
    journey.found([test(journey.ago(HOUR / 3), false)]).await;
    journey.assert_at_the_gate("with a negative one after it", green("未见异常")).await;
    // After all those tests.
    journey.stayed(Risk::Low, journey.ago(HOUR / 4), journey.ago(HOUR / 5)).await;
    journey.assert_at_the_gate("after a stay in a low-risk area", unclear("待核验")).await;
    journey.found([test(journey.now(), false)]).await;
    journey.assert_at_the_gate("with a fresh test", green("未见异常")).await;
    let code = PushedCode {
        person_reference: journey.reference.clone(),
        label: "无异常".into(),
        assign_time: Some(journey.now().to_protobuf()),
        ..PushedCode::default()
    };
    push(&journey.sandbox.platform(journey.home), vec![code]).await;
    journey.assert_at_the_gate("pushed by the platform in its own words", green("无异常")).await;
    journey.is_a_case().await;
    journey.assert_at_the_gate("a case, whatever the platform said before", red("红码")).await;
    journey.stop().await;
}

/// A laboratory knows people by their documents and a platform by its own references: which are one, a phone says that enrols.
#[tokio::test]
async fn a_phone_brings_together_whom_laboratory_and_platform_knew_apart() {
    let journey = Journey::begin("51").await;
    let (sandbox, home, reference) = (&journey.sandbox, journey.home, request_id());
    let person = sandbox.newcomer(home, 1);
    let (sampled_at, given_at) = (journey.ago(HOUR), journey.ago(DAY));
    let by_document = journey.lab.about(&person, "health-commission", test(sampled_at, false));
    journey.lab.bring(vec![by_document]).await;
    let code = PushedCode {
        person_reference: reference.clone(),
        label: "红码".into(),
        rule: "R-CASE".into(),
        authority: "51/cdc".into(),
        assign_time: Some(journey.now().to_protobuf()),
        evidence: "file 7".into(),
    };
    push(&sandbox.platform(home), vec![code]).await;
    let by_reference = Whom::Reference(reference.clone());
    let by_reference = journey.lab.about_whom(by_reference, "health-commission", dose(3, given_at));
    journey.lab.bring(vec![by_reference.clone()]).await;
    let phone = sandbox.desk.backend(home).unwrap().enroll_as(&person, &reference).await.expect("the phone enrols");
    let code = phone.code().await.expect("home explains the code").expect("there is a code at once");
    assert_eq!((code.label.as_str(), code.source()), ("红码", AssignmentSource::Platform));
    let journey = Journey { person, phone, reference, ..journey };
    journey.assert_at_the_gate("whom the platform has turned red", red("红码")).await;
    let status = journey.status_in_full().await;
    assert_eq!((status.tests.len(), status.doses.len()), (1, 1), "either source's evidence is theirs");
    // What was brought by then is there, whoever asks again.
    let again = journey.lab.put(vec![by_reference]).await;
    assert_eq!(again.verdicts[0].verdict(), Verdict::Unchanged);
    journey.stop().await;
}

/// 粤康码 (2020) has no yellow: whom a yellow rule concerns has no code, and is never green.
#[tokio::test]
async fn guangdong_has_no_yellow_and_does_not_say_green_instead() {
    let journey = Journey::begin("44").await;
    assert_eq!(journey.home.profile().health_code_zh, "粤康码");
    journey.arrive_with_test_and_dose("绿码").await;
    let met = journey.ago(DAY * 14 - HOUR);
    journey.cdc.bring(vec![journey.cdc.about(&journey.person, "cdc", contact(met))]).await;
    journey.assert_at_the_gate("a close contact", red("红码")).await;
    journey.pass_until(met.plus(DAY * 14));
    journey.assert_at_the_gate("who would be yellow elsewhere", NO_CODE).await;
    assert!(journey.phone.code().await.unwrap().is_none(), "the phone shows what no gate does");
    journey.found([test(journey.now(), false)]).await;
    journey.assert_at_the_gate("whom no test helps", NO_CODE).await;
    journey.pass_until(met.plus(DAY * 20));
    journey.renew().await;
    journey.pass_until(met.plus(DAY * 21));
    journey.assert_at_the_gate("after twenty-one days", green("绿码")).await;
    journey.found([test(journey.now(), true)]).await;
    journey.assert_at_the_gate("with a positive test", NO_CODE).await;
    journey.stop().await;
}
