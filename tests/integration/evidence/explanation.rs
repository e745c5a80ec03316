//! Why somebody has the code they have, for themselves and for an operator, whose look they can read of; and all that is on file about
//! them, until they are forgotten (I2 at home).

use std::time::Duration;

use proto::{
    contract::{
        assignment::{
            AssignmentSource, CodeExplanation, ExplainCodeRequest, PushedCode, SetCodeRequest,
            assignment_service_client::AssignmentServiceClient,
        },
        recognition::Outcome,
        traveler::{
            Access, DeleteTravelerRequest, ExportTravelerRequest, GetCodeRequest, ListAccessesRequest,
            export_traveler_response::Part, traveler_service_client::TravelerServiceClient,
        },
        types::{Document, Level},
    },
    refusal::Reason,
    terms::Purpose,
    time::UnixTime,
};
use province_stub::seed::Condition;
use tongxing::phone::{Wish, document, request_id};
use tonic::{
    Code::{InvalidArgument, NotFound},
    Status,
    transport::Channel,
};

use super::{DAY, HOUR, Journey, PATIENCE, SECOND};
use crate::sandbox::{
    device,
    evidence::{dose, push, test},
    member, shared, until,
    want::want,
};

const REASON: &str = "12345 来电复核";

impl Journey {
    fn operator(&self) -> AssignmentServiceClient<Channel> {
        self.sandbox.desk.operator(self.home).expect("the operator has credentials")
    }

    fn backend(&self) -> TravelerServiceClient<Channel> {
        self.sandbox.travelers(self.home)
    }

    async fn explain(&self, reason: &str) -> Option<CodeExplanation> {
        let request = ExplainCodeRequest { document: Some(document(&self.person)), reason: reason.into() };
        self.operator().explain_code(request).await.expect("it is explained").into_inner().code
    }

    /// One page of who asked and who looked, and where the next one begins.
    async fn page(&self, page_size: i32, page_token: String) -> (Vec<Access>, String) {
        let request = ListAccessesRequest { device_id: self.phone.id().to_vec(), page_size, page_token };
        let page = self.backend().list_accesses(request).await.expect("it is listed").into_inner();
        (page.accesses, page.next_page_token)
    }

    /// All parts of an export, in order.
    async fn export(&self) -> Result<Vec<Part>, Status> {
        let request = ExportTravelerRequest { device_id: self.phone.id().to_vec() };
        let mut stream = self.backend().export_traveler(request).await?.into_inner();
        let mut parts = Vec::new();
        while let Some(response) = stream.message().await? {
            parts.push(response.part.expect("a part says what it is"));
        }
        Ok(parts)
    }
}

#[tokio::test]
async fn an_operator_is_told_why_and_the_traveler_who_looked() {
    let journey = Journey::begin("51").await;
    let (sampled_at, now) = (journey.ago(HOUR), journey.now());
    journey.found([test(sampled_at, true), dose(1, journey.ago(DAY))]).await;
    assert!(journey.phone.accesses().await.unwrap().is_empty(), "the traveler's own look is nobody's");
    let code = journey.explain(REASON).await.expect("there is a code");
    assert_eq!((code.label.as_str(), code.level(), code.source()), ("黄码", Level::Yellow, AssignmentSource::Rules));
    assert_eq!((code.rule.as_str(), code.authority.as_str()), ("R-TEST", "51/health-commission"));
    assert_eq!((code.rule_zh.as_str(), code.rule_en.as_str()), ("核酸检测结果待复核", "a test result under review"));
    assert_eq!(code.assign_time, Some(now.to_protobuf()));
    assert_eq!(code.end_time, Some(sampled_at.plus(DAY * 3).to_protobuf()));
    assert!(code.substantiated);
    let [evidence] = &code.evidence[..] else { panic!("{} pieces of evidence", code.evidence.len()) };
    assert_eq!((evidence.source.as_str(), evidence.class.as_str()), ("51/feed/lab-1", "test"));
    assert_eq!((evidence.positive, evidence.dose, evidence.area), (true, 0, 0));
    assert_eq!((evidence.start_time, evidence.end_time), (Some(sampled_at.to_protobuf()), None));
    assert_eq!(evidence.receive_time, Some(now.to_protobuf()));
    assert_eq!(journey.phone.code().await.unwrap(), Some(code), "the traveler reads something else");
    let look = Access {
        time: Some(now.to_protobuf()),
        caller: "51/operator/li".into(),
        operator_reason: REASON.into(),
        ..Access::default()
    };
    assert_eq!(journey.phone.accesses().await.unwrap(), [look]);
    journey.stop().await;
}

#[tokio::test]
async fn a_code_is_explained_wherever_it_comes_from() {
    let journey = Journey::begin("51").await;
    assert_eq!(journey.explain(REASON).await, None, "of whom nothing is on file");
    let code = PushedCode {
        person_reference: journey.reference.clone(),
        label: "红码".into(),
        rule: "R-DEPOSITOR".into(),
        authority: "51/finance-office".into(),
        assign_time: Some(journey.ago(HOUR).to_protobuf()),
        evidence: "file 7".into(),
    };
    push(&journey.sandbox.platform(journey.home), vec![code]).await;
    let pushed = journey.explain(REASON).await.expect("there is a code");
    assert_eq!((pushed.source(), pushed.substantiated), (AssignmentSource::Platform, false));
    assert_eq!((pushed.rule.as_str(), pushed.rule_zh.as_str()), ("R-DEPOSITOR", ""), "no such rule is in the policy");
    assert_eq!((pushed.assign_time, pushed.end_time), (Some(journey.ago(HOUR).to_protobuf()), None));
    let set = SetCodeRequest {
        request_id: request_id(),
        document: Some(document(&journey.person)),
        label: "绿码".into(),
        rule: "R-CLEAR".into(),
        authority: "51/health-commission".into(),
        justification: "a test".into(),
    };
    journey.operator().set_code(set).await.expect("the code is set");
    let set = journey.explain(REASON).await.expect("there is a code");
    assert_eq!((set.source(), set.level(), set.substantiated), (AssignmentSource::Hand, Level::Green, true));
    assert!(set.evidence.is_empty());
    let seeded = journey.sandbox.person(journey.home, Condition::Yellow);
    let phone = journey.sandbox.desk.backend(journey.home).unwrap().enroll(&seeded).await.expect("the phone enrols");
    let code = phone.code().await.unwrap().expect("there is a code");
    assert_eq!((code.source(), code.label.as_str()), (AssignmentSource::Seed, "黄码"));
    journey.stop().await;
}

#[tokio::test]
async fn a_look_without_a_reason_or_at_nobody_is_refused() {
    let (sandbox, home) = (shared(), member("66"));
    let person = sandbox.person(home, Condition::Green);
    let base = || ExplainCodeRequest { document: device::document(&person), reason: REASON.into() };
    let missing = |field| want(Reason::FieldMissing, InvalidArgument).field(field);
    let invalid = |field| want(Reason::FieldInvalid, InvalidArgument).field(field);
    let passport = |number: &str| Some(Document { r#type: 20, number: number.into() });
    let mut operator = sandbox.desk.operator(home).unwrap();
    for (name, request, want) in [
        ("no document", ExplainCodeRequest { document: None, ..base() }, missing("document")),
        ("no number", ExplainCodeRequest { document: passport(""), ..base() }, missing("document.number")),
        ("no reason", ExplainCodeRequest { reason: String::new(), ..base() }, missing("reason")),
        ("a reason of 257", ExplainCodeRequest { reason: "据".repeat(257), ..base() }, invalid("reason")),
        ("two lines", ExplainCodeRequest { reason: "a\nb".into(), ..base() }, invalid("reason")),
        (
            "nobody",
            ExplainCodeRequest { document: passport("E00000404"), ..base() },
            want(Reason::PersonUnknown, NotFound),
        ),
    ] {
        want.check(name, operator.explain_code(request).await);
    }
    let longest = ExplainCodeRequest { reason: "据".repeat(256), ..base() };
    operator.explain_code(longest).await.expect("a reason as long as may be");
    let nobody = want(Reason::DeviceUnknown, NotFound);
    let mut travelers = sandbox.travelers(home);
    let device_id = vec![7; 16];
    nobody.check("a code", travelers.get_code(GetCodeRequest { device_id: device_id.clone() }).await);
    nobody.check("an export", travelers.export_traveler(ExportTravelerRequest { device_id }).await.map(drop));
    for (name, device_id, want) in
        [("no device", vec![], missing("device_id")), ("15 bytes", vec![7; 15], invalid("device_id"))]
    {
        want.check(name, travelers.get_code(GetCodeRequest { device_id: device_id.clone() }).await);
        want.check(name, travelers.export_traveler(ExportTravelerRequest { device_id }).await.map(drop));
    }
}

#[tokio::test]
async fn pages_go_on_from_venues_to_operators_and_back() {
    let journey = Journey::begin("51").await;
    journey.found([test(journey.ago(HOUR), false)]).await;
    let mut asked = 0;
    for round in 0..3 {
        journey.explain(&format!("before {round}")).await;
        for _ in 0..2 {
            assert_eq!(journey.show(&journey.station, Purpose::Entry).await.answer.outcome(), Outcome::Status);
            asked += 1;
        }
        journey.explain(&format!("after {round}")).await;
        // Within one second or in others: the order is theirs either way.
        journey.sandbox.clock.advance(Duration::from_secs(round % 2));
    }
    let count = asked + 6;
    until("all of it is at home", PATIENCE, async || journey.page(100, String::new()).await.0.len() == count).await;
    let (whole, end) = journey.page(100, String::new()).await;
    assert_eq!(end, "");
    let time = |access: &Access| access.time.as_ref().and_then(UnixTime::from_protobuf).expect("it has a time");
    assert!(whole.is_sorted_by(|a, b| time(a) >= time(b)), "newest first");
    assert_eq!(whole.iter().filter(|access| access.operator_reason.is_empty()).count(), asked);
    for page_size in 1..=count as i32 {
        let (mut paged, mut token) = (Vec::new(), String::new());
        loop {
            let (page, next) = journey.page(page_size, token).await;
            assert!(page.len() <= page_size as usize);
            paged.extend(page);
            if next.is_empty() {
                break;
            }
            token = next;
        }
        assert_eq!(paged, whole, "in pages of {page_size}");
    }
    journey.stop().await;
}

#[tokio::test]
async fn an_export_has_every_part_and_nothing_is_left_of_whom_it_was_about() {
    let journey = Journey::begin("51").await;
    // More of each than is read at once.
    let (tests, looks) = (450, 105);
    let found = (0..tests).map(|n| test(journey.ago(HOUR + SECOND * n), false));
    journey.found(found.chain([dose(2, journey.ago(DAY))])).await;
    let set = SetCodeRequest {
        request_id: request_id(),
        document: Some(document(&journey.person)),
        label: "黄码".into(),
        rule: "R-TEST".into(),
        authority: "51/cdc".into(),
        justification: "复核中".into(),
    };
    journey.operator().set_code(set).await.expect("the code is set");
    let pass = journey.phone.consent(&Wish::default(), journey.now()).await.expect("home issues a token");
    journey.sandbox.show(&journey.station, &pass, Purpose::Entry).await;
    for n in 0..looks {
        journey.explain(&format!("{REASON} {n}")).await;
    }
    let listed = async || journey.phone.accesses().await.expect("it is listed").len();
    until("the venue's question is at home", PATIENCE, async || listed().await == looks + 1).await;

    let parts = journey.export().await.expect("an export");
    let places: Vec<_> = parts.iter().map(place).collect();
    assert!(places.is_sorted(), "in another order");
    let count = |wanted: u8| places.iter().filter(|place| **place == wanted).count();
    assert_eq!([0, 1, 2, 3, 4, 5].map(count), [1, 1, 2, tests as usize + 1, 1, looks + 1]);
    let Part::Person(person) = &parts[0] else { panic!("who they are comes first") };
    assert_eq!(person.document, Some(document(&journey.person)));
    assert_eq!((person.name.as_str(), person.has_reference), (journey.person.name.as_str(), true));
    let Part::Device(device) = &parts[1] else { panic!("then their device") };
    assert_eq!(
        (device.device_id.as_slice(), device.enroll_time),
        (&journey.phone.id()[..], Some(journey.now().to_protobuf()))
    );
    let (Part::Code(latest), Part::Code(first)) = (&parts[2], &parts[3]) else { panic!("then their codes") };
    assert_eq!((latest.label.as_str(), latest.justification.as_str()), ("黄码", "复核中"));
    assert_eq!((latest.source(), latest.set_by.as_str()), (AssignmentSource::Hand, "51/operator/li"));
    assert_eq!(
        (first.label.as_str(), first.source(), first.set_by.as_str()),
        ("绿码", AssignmentSource::Rules, "rules")
    );
    let evidence = parts.iter().find_map(|part| if let Part::Evidence(found) = part { Some(found) } else { None });
    assert_eq!(evidence.unwrap().start_time, Some(journey.ago(HOUR).to_protobuf()), "the latest comes first");
    let consent = parts.iter().find_map(|part| if let Part::Consent(consent) = part { Some(consent) } else { None });
    assert_eq!(consent.unwrap().cti, pass.cti().0);

    let device_id = journey.phone.id().to_vec();
    let deleted = journey.backend().delete_traveler(DeleteTravelerRequest { device_id: device_id.clone() }).await;
    assert_eq!(deleted.expect("they are forgotten").into_inner().revoked_consents, 1);
    let nobody = want(Reason::DeviceUnknown, NotFound);
    nobody.check("an export", journey.export().await);
    nobody.check("a code", journey.backend().get_code(GetCodeRequest { device_id }).await);
    let explain = ExplainCodeRequest { document: Some(document(&journey.person)), reason: REASON.into() };
    want(Reason::PersonUnknown, NotFound).check("an operator's look", journey.operator().explain_code(explain).await);
    journey.stop().await;
}

/// The order in which parts come.
const fn place(part: &Part) -> u8 {
    match part {
        Part::Person(_) => 0,
        Part::Device(_) => 1,
        Part::Code(_) => 2,
        Part::Evidence(_) => 3,
        Part::Consent(_) => 4,
        Part::Access(_) => 5,
    }
}
