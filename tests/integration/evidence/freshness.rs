//! What home acknowledged is seen at every gate (I4): at once by whoever asks for it, within a second by everybody, though another
//! answer is held; and nothing is told beyond the instant at which time alone changes it.

use std::time::Duration;

use proto::{
    contract::{
        assignment::{ClearCodeRequest, PushedCode, SetCodeRequest},
        evidence::{EvidenceRecord, Risk, evidence_record::Content},
        recognition::{RecognizeResponse, Source},
        types::Level,
    },
    statement::LogHead,
    terms::Purpose,
    time::UnixTime,
};
use tongxing::phone::{Pass, Wish, document, request_id};

use super::{DAY, HOUR, Journey, SECOND};
use crate::sandbox::{
    evidence::{push, stay, test, withdrawal},
    metric, until,
};

impl Journey {
    async fn answer(&self, pass: &Pass) -> RecognizeResponse {
        self.sandbox.show(&self.station, pass, Purpose::Entry).await.answer
    }

    /// Waits until the gateway gives what it holds.
    async fn held(&self, pass: &Pass) -> RecognizeResponse {
        let mut answer = RecognizeResponse::default();
        until("an answer is held", Duration::from_secs(10), async || {
            answer = self.answer(pass).await;
            answer.source() == Source::Cache
        })
        .await;
        answer
    }

    /// A code that the platform pushes; none if it has no label.
    async fn pushes(&self, label: &str, rule: &str) -> Vec<u8> {
        let authority = if rule.is_empty() { String::new() } else { format!("{}/cdc", self.home) };
        let code = PushedCode {
            person_reference: self.reference.clone(),
            label: label.into(),
            rule: rule.into(),
            authority,
            assign_time: Some(self.now().to_protobuf()),
            evidence: String::new(),
        };
        push(&self.sandbox.platform(self.home), vec![code]).await.change_token
    }

    async fn sets(&self, label: &str) -> Vec<u8> {
        let request = SetCodeRequest {
            request_id: request_id(),
            document: Some(document(&self.person)),
            label: label.into(),
            rule: "R-CASE".into(),
            authority: format!("{}/cdc", self.home),
            justification: "a test".into(),
        };
        let mut operator = self.sandbox.desk.operator(self.home).expect("the operator has credentials");
        operator.set_code(request).await.expect("the code is set").into_inner().change_token
    }

    async fn clears(&self) -> Vec<u8> {
        let document = Some(document(&self.person));
        let request = ClearCodeRequest { request_id: request_id(), document, justification: "a test".into() };
        let mut operator = self.sandbox.desk.operator(self.home).expect("the operator has credentials");
        operator.clear_code(request).await.expect("it is cleared").into_inner().change_token
    }
}

/// Everything that changes a code, one after another.
#[derive(Clone, Copy, Debug)]
enum Change {
    PositiveTest,
    NegativeTest,
    PushedRed,
    PushedNone,
    SetRed,
    Cleared,
    MediumStay,
    /// A correction of the listing: the stay is on file already.
    HighNow,
    Delisted,
}

#[tokio::test]
async fn what_is_acknowledged_is_seen_though_another_answer_is_held() {
    let journey = Journey::begin("51").await;
    journey.found([test(journey.ago(DAY), false)]).await;
    let wish = Wish::default();
    let plain = journey.phone.consent(&wish, journey.now()).await.unwrap();
    let asking = journey.phone.consent(&wish, journey.now()).await.unwrap();
    let listing = journey.cdc.listing(110_105, Risk::Medium, journey.ago(DAY * 5));
    let relisted = |revision: u32, risk: Risk, until: Option<UnixTime>| {
        let mut record = EvidenceRecord { revision, ..listing.clone() };
        if let Some(Content::RiskArea(area)) = &mut record.content {
            (area.risk, area.end_time) = (risk.into(), until.map(UnixTime::to_protobuf));
        }
        record
    };
    let steps = [
        (Change::PositiveTest, Level::Yellow),
        (Change::NegativeTest, Level::Green),
        (Change::PushedRed, Level::Red),
        (Change::PushedNone, Level::Green),
        (Change::SetRed, Level::Red),
        (Change::Cleared, Level::Green),
        (Change::MediumStay, Level::Yellow),
        (Change::HighNow, Level::Red),
        (Change::Delisted, Level::Green),
    ];
    let mut last = None;
    for (change, level) in steps {
        let (before, _) = (journey.held(&plain).await.level(), journey.held(&asking).await);
        assert_ne!(before, level, "{change:?} changes nothing");
        let token = match change {
            Change::PositiveTest => journey.found([test(journey.ago(HOUR), true)]).await.change_token,
            Change::NegativeTest => journey.found([test(journey.ago(HOUR / 2), false)]).await.change_token,
            Change::PushedRed => journey.pushes("红码", "R-CASE").await,
            Change::PushedNone => journey.pushes("", "").await,
            Change::SetRed => journey.sets("红码").await,
            Change::Cleared => journey.clears().await,
            Change::MediumStay => {
                let stay = stay(110_105, journey.ago(DAY * 2), journey.ago(DAY));
                let stay = journey.cdc.about(&journey.person, "joint-mechanism", stay);
                journey.cdc.bring(vec![listing.clone(), stay]).await.change_token
            }
            Change::HighNow => journey.cdc.put(vec![relisted(1, Risk::High, None)]).await.change_token,
            Change::Delisted => {
                journey.cdc.put(vec![relisted(2, Risk::High, Some(journey.ago(DAY * 4)))]).await.change_token
            }
        };
        let acknowledged = tokio::time::Instant::now();
        // Stays that are on file already are looked at soon after a listing is answered, and not with it.
        if !matches!(change, Change::HighNow | Change::Delisted) {
            let fresh = journey.sandbox.show_after(&journey.station, &asking, Purpose::Entry, &token).await.answer;
            assert_eq!((fresh.level(), fresh.source()), (level, Source::Home), "{change:?} is not there at once");
        }
        until(&format!("{change:?} is seen"), SECOND, async || journey.answer(&plain).await.level() == level).await;
        assert!(acknowledged.elapsed() < SECOND, "{change:?}");
        let (of, head) = LogHead::from_change_token(&token).expect("a change token");
        assert_eq!(of, journey.home, "{change:?}: another log");
        assert!(last.is_none_or(|last| head.seq >= last), "{change:?}: the log went back");
        last = Some(head.seq);
    }
    journey.stop().await;
}

#[tokio::test]
async fn nothing_that_is_told_or_held_outlives_the_instant_at_which_time_changes_it() {
    let journey = Journey::begin("53").await;
    let sampled_at = journey.ago(DAY * 3 - Duration::from_secs(300));
    journey.found([test(sampled_at, true)]).await;
    let ends_at = sampled_at.plus(DAY * 3);
    let pass = journey.phone.consent(&Wish::default(), journey.now()).await.unwrap();
    assert!(pass.expires_at > ends_at, "the consent ends first");
    for moved in [0, 250, 49] {
        journey.pass_until(journey.now().plus(Duration::from_secs(moved)));
        journey.held(&pass).await;
        let seen = journey.sandbox.show(&journey.station, &pass, Purpose::Entry).await;
        assert_eq!((seen.answer.source(), seen.answer.level()), (Source::Cache, Level::Yellow));
        let statement = seen.statement.expect("home has signed");
        assert_eq!(statement.status().expires_at, ends_at, "{moved}: it outlives the yellow");
        assert!(statement.status().offline_until <= ends_at, "{moved}: it is believed offline for longer");
    }
    // The very next one, whoever noticed first.
    journey.pass_until(ends_at);
    assert_eq!(journey.answer(&pass).await.level(), Level::Green, "the yellow outlived its rule");
    journey.stop().await;
}

/// Nobody asks, nobody brings anything: the node itself sees that time has changed a code, and says so to the gateway.
#[tokio::test]
async fn time_alone_is_an_event_in_the_change_log() {
    let journey = Journey::begin("53").await;
    let sampled_at = journey.ago(DAY * 3 - Duration::from_secs(300));
    let before = journey.found([test(sampled_at, true)]).await.change_token;
    journey.phone.consent(&Wish::default(), journey.now()).await.unwrap();
    let private = journey.sandbox.desk.prepared().addresses.nodes["53"].private.to_string();
    let changes = async || metric(&private, "node_changes_total").await.values().sum::<f64>();
    let counted = changes().await;
    journey.pass_until(sampled_at.plus(DAY * 3));
    until("the node has changed the code by itself", super::PATIENCE, async || changes().await > counted).await;
    // Where the log stands is told with every batch, whatever it brings: here, that nothing is to be brought.
    let after = journey.lab.put(vec![withdrawal("never-brought", 0)]).await.change_token;
    let seq = |token: &[u8]| LogHead::from_change_token(token).expect("a change token").1.seq;
    assert_eq!(seq(&after), seq(&before) + 1, "one live consent is one event");
    journey.stop().await;
}
