//! Every verdict and every reason, one record or code among good ones: what is refused holds up no other, and nothing that was sent is
//! repeated. The fields' forms are in tables beside the code (`province-stub/src/service/parse/evidence/tests.rs`); here is a sample.

use proto::{
    contract::{
        assignment::{CodeVerdict, PushedCode, PutCodesRequest, assignment_service_client::AssignmentServiceClient},
        evidence::{
            EvidenceRecord, PutEvidenceRequest, Risk, Verdict, evidence_record::Content,
            evidence_service_client::EvidenceServiceClient, person::Person as Whom,
        },
    },
    identity::{PeerId, Realm},
    refusal::Reason,
};
use province_stub::seed::SeededPerson;
use tongxing::phone::request_id;
use tonic::Code::PermissionDenied;

use super::{DAY, HOUR, SECOND};
use crate::sandbox::{
    Sandbox,
    evidence::{Feed, case, contact, dose, push, push_as, stay, test, withdrawal},
    member, shared,
    want::want,
    wire::{self, Shown},
};

/// The standard's own example (GB 11643-1999).
const RESIDENT_ID: &str = "11010519491231002X";
const AREA: u32 = 130_102;

/// What became of one record, as a feed is told: verdict, reason, field.
type Told = (Verdict, Reason, &'static str);

const ACCEPTED: Told = (Verdict::Accepted, Reason::Unspecified, "");
const UNCHANGED: Told = (Verdict::Unchanged, Reason::Unspecified, "");
const CORRECTED: Told = (Verdict::Corrected, Reason::Unspecified, "");
const WITHDRAWN: Told = (Verdict::Withdrawn, Reason::Unspecified, "");

const fn refused(reason: Reason) -> Told {
    (Verdict::Refused, reason, "")
}

const fn invalid(field: &'static str) -> Told {
    (Verdict::Refused, Reason::FieldInvalid, field)
}

const fn missing(field: &'static str) -> Told {
    (Verdict::Refused, Reason::FieldMissing, field)
}

/// Feeds of a member whose feeds no other test uses.
struct Desk {
    sandbox: &'static Sandbox,
    lab: Feed,
    cdc: Feed,
}

impl Desk {
    fn open(home: &str) -> Self {
        let (sandbox, home) = (shared(), member(home));
        Self { sandbox, lab: sandbox.feed(home, "lab-1"), cdc: sandbox.feed(home, "cdc-1") }
    }

    fn person(&self, number: u32) -> SeededPerson {
        self.sandbox.newcomer(self.lab.home, number)
    }

    fn test(&self, number: u32, id: &str, revision: u32, positive: bool) -> EvidenceRecord {
        let test = test(self.sandbox.now().minus(HOUR), positive);
        let record = self.lab.about(&self.person(number), "health-commission", test);
        EvidenceRecord { record_id: id.into(), revision, ..record }
    }

    fn by_cdc(&self, number: u32, authority: &str, content: Content) -> EvidenceRecord {
        self.cdc.about(&self.person(number), authority, content)
    }
}

/// Brings these records as one batch, and holds each to what is expected.
async fn check(feed: &Feed, cases: Vec<(&str, EvidenceRecord, Told)>) {
    let records: Vec<_> = cases.iter().map(|(_, record, _)| record.clone()).collect();
    let answer = feed.put(records).await;
    assert_eq!(answer.verdicts.len(), cases.len(), "a record has no verdict");
    for ((name, record, told), verdict) in cases.into_iter().zip(&answer.verdicts) {
        assert_eq!((verdict.verdict(), verdict.reason(), verdict.field.as_str()), told, "{name}: {}", verdict.detail);
        assert_eq!(verdict.detail.is_empty(), told.0 != Verdict::Refused, "{name}: words, or none");
        let number = match record.person.and_then(|person| person.person) {
            Some(Whom::Document(document)) => document.number,
            Some(Whom::Reference(reference)) => reference,
            None => String::new(),
        };
        for sent in [record.record_id, record.authority, number].iter().filter(|sent| !sent.is_empty()) {
            assert!(!verdict.detail.contains(sent.as_str()), "{name}: {} repeats what was sent", verdict.detail);
        }
    }
}

#[tokio::test]
async fn a_record_counts_in_its_latest_revision() {
    let desk = Desk::open("13");
    let id = request_id();
    let superseded = || refused(Reason::RevisionSuperseded);
    let conflict = || refused(Reason::RevisionConflict);
    let somebody_else = desk.test(1, &id, 5, false);
    check(
        &desk.lab,
        vec![
            ("a first one", desk.test(0, &id, 1, true), ACCEPTED),
            ("the same", desk.test(0, &id, 1, true), UNCHANGED),
            ("another result", desk.test(0, &id, 1, false), conflict()),
            ("another person", desk.test(1, &id, 1, true), conflict()),
            ("an earlier one", desk.test(0, &id, 0, true), superseded()),
            ("a correction", desk.test(0, &id, 3, false), CORRECTED),
            ("what it corrects", desk.test(0, &id, 1, true), superseded()),
            ("taken back as it stands", withdrawal(&id, 3), conflict()),
            ("taken back", withdrawal(&id, 4), WITHDRAWN),
            ("taken back again", withdrawal(&id, 4), UNCHANGED),
            ("what was taken back", desk.test(0, &id, 3, false), superseded()),
            ("it was somebody else", somebody_else.clone(), ACCEPTED),
        ],
    )
    .await;
    // The same on another stream, another day.
    check(&desk.lab, vec![("later", somebody_else, UNCHANGED), ("much later", withdrawal(&id, 2), superseded())]).await;
}

#[tokio::test]
async fn what_a_feed_may_not_bring_and_an_authority_not_invoke() {
    let desk = Desk::open("41");
    let now = desk.sandbox.now();
    let not_admitted = || refused(Reason::EvidenceNotAdmitted);
    let no_authority = || refused(Reason::AuthorityNotAdmitted);
    let in_the_name_of = |authority: &str, record: EvidenceRecord| EvidenceRecord {
        authority: authority.into(),
        record_id: request_id(),
        ..record
    };
    let good = || desk.test(0, &request_id(), 0, false);
    let by_lab = |content| desk.lab.about(&desk.person(0), "health-commission", content);
    check(
        &desk.lab,
        vec![
            ("a test", good(), ACCEPTED),
            ("a dose", by_lab(dose(1, now)), ACCEPTED),
            ("a test in the name of 00", in_the_name_of("00/health-commission", good()), ACCEPTED),
            ("a case by a laboratory", by_lab(case(now, None)), not_admitted()),
            ("a stay by a laboratory", by_lab(stay(AREA, now, now)), not_admitted()),
            ("a contact by a laboratory", by_lab(contact(now)), not_admitted()),
            ("a test in the cdc's name", in_the_name_of("41/cdc", good()), not_admitted()),
            ("a test in nobody's name", in_the_name_of("41/finance-office", good()), not_admitted()),
            ("a test in another member's name", in_the_name_of("44/health-commission", good()), no_authority()),
            ("an authority that is none", in_the_name_of("health-commission", good()), invalid("authority")),
            ("a good one behind them", good(), ACCEPTED),
        ],
    )
    .await;
    let listing = || desk.cdc.listing(AREA, Risk::High, now.minus(DAY));
    check(
        &desk.cdc,
        vec![
            ("a case", desk.by_cdc(1, "cdc", case(now.minus(DAY), Some(now))), ACCEPTED),
            ("a case by the joint mechanism", desk.by_cdc(1, "joint-mechanism", case(now, None)), no_authority()),
            ("a contact by it", desk.by_cdc(1, "joint-mechanism", contact(now)), no_authority()),
            ("a listing by it", listing(), ACCEPTED),
            ("a listing by another's", in_the_name_of("44/joint-mechanism", listing()), no_authority()),
            ("a test by the cdc's feed", desk.by_cdc(1, "cdc", test(now, false)), not_admitted()),
        ],
    )
    .await;
    // A certificate alone brings nothing: the node's configuration does not know this feed.
    let dir = tempfile::tempdir().unwrap();
    let stranger = PeerId::feed(desk.lab.home, "lab-9").expect("a feed's name");
    let stranger = desk.sandbox.certify(&stranger, Realm::Member(desk.lab.home), dir.path());
    let channel = wire::channel(&desk.sandbox.desk.node_address(desk.lab.home).unwrap(), Some(&Shown::read(&stranger)));
    let stranger = Feed { client: EvidenceServiceClient::new(channel), home: desk.lab.home };
    check(
        &stranger,
        vec![
            ("a test by a feed that is not configured", good(), not_admitted()),
            ("what it may have brought when it was", withdrawal(&request_id(), 1), not_admitted()),
        ],
    )
    .await;
}

#[tokio::test]
async fn times_areas_people_and_how_much_there_may_be() {
    let desk = Desk::open("64");
    let now = desk.sandbox.now();
    let by_lab = |content| desk.lab.about(&desk.person(0), "health-commission", content);
    let leeway = SECOND * 30;
    let of = |id: &str| EvidenceRecord { record_id: id.into(), ..desk.test(0, "record-1", 0, false) };
    check(
        &desk.lab,
        vec![
            ("a test of now, by a clock ahead", by_lab(test(now.plus(leeway), false)), ACCEPTED),
            ("a test of the future", by_lab(test(now.plus(leeway + SECOND), false)), invalid("test.sample_time")),
            ("a dose of the future", by_lab(dose(1, now.plus(DAY))), invalid("vaccination.give_time")),
            ("a test of 180 days ago", by_lab(test(now.minus(DAY * 180), false)), ACCEPTED),
            ("and a second", by_lab(test(now.minus(DAY * 180 + SECOND), false)), refused(Reason::EvidenceTooOld)),
            ("a dose of two years ago, which is never over", by_lab(dose(1, now.minus(DAY * 730))), ACCEPTED),
            ("a tenth dose", by_lab(dose(10, now)), invalid("vaccination.dose")),
            ("a resident ID for a record's id", of(RESIDENT_ID), invalid("record_id")),
            ("an id of 65", of(&"a".repeat(65)), invalid("record_id")),
            ("an id of 64", of(&format!("{}{}", request_id(), request_id())), ACCEPTED),
            ("no id", of(""), missing("record_id")),
            ("revision 1,000,001", desk.test(0, &request_id(), 1_000_001, false), invalid("revision")),
            ("nobody", EvidenceRecord { person: None, ..of("record-2") }, missing("person")),
            ("nothing", EvidenceRecord { content: None, ..of("record-2") }, missing("content")),
            (
                "a reference that nobody has",
                desk.lab.about_whom(Whom::Reference("p-404".into()), "health-commission", test(now, false)),
                refused(Reason::PersonUnknown),
            ),
            (
                "a resident ID for a reference",
                desk.lab.about_whom(Whom::Reference(RESIDENT_ID.into()), "health-commission", test(now, false)),
                invalid("person.reference"),
            ),
        ],
    )
    .await;
    let (not_listed, left) = (refused(Reason::AreaNotListed), now.minus(HOUR));
    let stay_in = |area, from, until| desk.by_cdc(0, "cdc", stay(area, from, until));
    let mut listing = desk.cdc.listing(AREA, Risk::Low, now.minus(DAY * 2));
    if let Some(Content::RiskArea(area)) = &mut listing.content {
        area.end_time = Some(now.minus(DAY).to_protobuf());
    }
    check(
        &desk.cdc,
        vec![
            ("a stay before any listing", stay_in(AREA, left, now), not_listed),
            ("a listing that is over", listing, ACCEPTED),
            ("a stay after it", stay_in(AREA, now.minus(DAY - SECOND), now), not_listed),
            ("a stay in its last second", stay_in(AREA, now.minus(DAY), now), ACCEPTED),
            ("a stay elsewhere", stay_in(AREA + 1, now.minus(DAY), now), not_listed),
            ("an area that is none", stay_in(99_999, left, now), invalid("stay.area")),
            ("a stay that ends before it begins", stay_in(AREA, now, left), invalid("stay.leave_time")),
            ("a stay that is not over", stay_in(AREA, left, now.plus(HOUR)), invalid("stay.leave_time")),
            ("a case of the future", desk.by_cdc(0, "cdc", case(now.plus(HOUR), None)), invalid("case.start_time")),
        ],
    )
    .await;
    // As much as may be on file about one person.
    let tests = |from: u64, count: u64| {
        (from..from + count)
            .map(|n| desk.lab.about(&desk.person(7), "health-commission", test(now.minus(SECOND * n as u32), false)))
    };
    for batch in 0..2 {
        desk.lab.bring(tests(batch * 500, 500).collect()).await;
    }
    let one_more = tests(1_000, 1).next().unwrap();
    check(
        &desk.lab,
        vec![("the 1,001st", one_more, refused(Reason::TooMuchEvidence)), ("somebody else's", of("r-3"), ACCEPTED)],
    )
    .await;
}

/// Everything is wrong; one after another is mended, and the next one wins.
#[tokio::test]
async fn refusals_come_in_the_documented_order() {
    let desk = Desk::open("66");
    let now = desk.sandbox.now();
    let mut record = EvidenceRecord { revision: 2_000_000, ..EvidenceRecord::default() };
    type Mend<'a> = Box<dyn Fn(&mut EvidenceRecord) + 'a>;
    let old = now.minus(DAY * 200);
    let steps: Vec<(Told, Mend<'_>)> = vec![
        (missing("record_id"), Box::new(|record| record.record_id = request_id())),
        (invalid("revision"), Box::new(|record| record.revision = 0)),
        (missing("content"), Box::new(|record| record.content = Some(test(now.plus(DAY), false)))),
        (missing("person"), Box::new(|record| record.person = desk.test(0, "a", 0, false).person)),
        (missing("authority"), Box::new(|record| record.authority = "44/cdc".into())),
        (invalid("test.sample_time"), Box::new(|record| record.content = Some(case(old, Some(old))))),
        (refused(Reason::EvidenceNotAdmitted), Box::new(|record| record.content = Some(test(old, false)))),
        (refused(Reason::EvidenceNotAdmitted), Box::new(|record| record.authority = "44/health-commission".into())),
        (refused(Reason::AuthorityNotAdmitted), Box::new(|record| record.authority = "66/health-commission".into())),
        (refused(Reason::EvidenceTooOld), Box::new(|record| record.content = Some(test(now, false)))),
    ];
    for (number, (told, mend)) in steps.into_iter().enumerate() {
        check(&desk.lab, vec![(&format!("step {number}"), record.clone(), told)]).await;
        mend(&mut record);
    }
    check(&desk.lab, vec![("all is well", record, ACCEPTED)]).await;
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_and_keeps_nothing() {
    let desk = Desk::open("52");
    let record = desk.test(0, &request_id(), 0, true);
    let dry = PutEvidenceRequest { batch: 1, records: vec![record.clone(), record.clone()], dry_run: true };
    for _ in 0..2 {
        let answer = desk.lab.send(dry.clone()).await.expect("it is answered");
        let verdicts: Vec<_> = answer.verdicts.iter().map(|verdict| verdict.verdict()).collect();
        assert_eq!(verdicts, [Verdict::Accepted, Verdict::Unchanged]);
    }
    check(&desk.lab, vec![("for good", record, ACCEPTED)]).await;
}

fn code(reference: &str) -> PushedCode {
    PushedCode {
        person_reference: reference.into(),
        label: "红码".into(),
        rule: "R-CASE".into(),
        authority: "52/cdc".into(),
        assign_time: Some(shared().now().minus(HOUR).to_protobuf()),
        evidence: "file 7".into(),
    }
}

#[tokio::test]
async fn pushed_codes_have_a_verdict_each() {
    let sandbox = shared();
    let platform = sandbox.platform(member("52"));
    let (reference, other, now) = (request_id(), request_id(), sandbox.now());
    let at = |seconds_ahead: u32| Some(now.plus(SECOND * seconds_ahead).to_protobuf());
    let base = || code(&reference);
    let green =
        |label: &str| PushedCode { label: label.into(), rule: String::new(), authority: String::new(), ..code(&other) };
    let gone = |time| PushedCode { person_reference: reference.clone(), assign_time: time, ..PushedCode::default() };
    let refused = |reason, field| (CodeVerdict::Refused, reason, field);
    let plain = |verdict| (verdict, Reason::Unspecified, "");
    let invalid = |field| refused(Reason::FieldInvalid, field);
    let cases = vec![
        ("a red", base(), plain(CodeVerdict::Assigned)),
        ("the same", base(), plain(CodeVerdict::Unchanged)),
        (
            "an older one",
            PushedCode { assign_time: Some(now.minus(DAY).to_protobuf()), ..base() },
            refused(Reason::AssignmentOutdated, ""),
        ),
        ("a green without rule", green("绿码"), plain(CodeVerdict::Assigned)),
        ("Guizhou's orange", PushedCode { label: "橙码".into(), ..code(&other) }, plain(CodeVerdict::Assigned)),
        ("a yellow without rule", green("黄码"), refused(Reason::FieldMissing, "rule")),
        ("a label of another member", green("未见异常"), refused(Reason::LabelUnknown, "")),
        ("another member's authority", PushedCode { authority: "44/cdc".into(), ..base() }, invalid("authority")),
        (
            "that and a label of nobody",
            PushedCode { authority: "44/cdc".into(), label: "紫码".into(), ..base() },
            invalid("authority"),
        ),
        ("the nation's authority", PushedCode { authority: "00/cdc".into(), ..base() }, plain(CodeVerdict::Assigned)),
        (
            "a rule without authority",
            PushedCode { authority: String::new(), ..base() },
            refused(Reason::FieldMissing, "authority"),
        ),
        (
            "no reference",
            PushedCode { person_reference: String::new(), ..base() },
            refused(Reason::FieldMissing, "person_reference"),
        ),
        ("a resident ID for a reference", code(RESIDENT_ID), invalid("person_reference")),
        ("of the future", PushedCode { assign_time: at(31), ..base() }, invalid("assign_time")),
        (
            "the same since later, by a clock ahead",
            PushedCode { assign_time: at(30), authority: "00/cdc".into(), ..base() },
            plain(CodeVerdict::Assigned),
        ),
        ("no code and a rule", PushedCode { label: String::new(), ..base() }, invalid("rule")),
        ("none, but before that", gone(at(0)), refused(Reason::AssignmentOutdated, "")),
        ("none any more", gone(at(30)), plain(CodeVerdict::Withdrawn)),
        ("none, again", gone(at(30)), plain(CodeVerdict::Unchanged)),
    ];
    let answer = push(&platform, cases.iter().map(|(_, code, _)| code.clone()).collect()).await;
    assert_eq!(answer.verdicts.len(), cases.len());
    for ((name, _, told), verdict) in cases.iter().zip(&answer.verdicts) {
        assert_eq!((verdict.verdict(), verdict.reason(), verdict.field.as_str()), *told, "{name}: {}", verdict.detail);
        for sent in [&*reference, &*other, RESIDENT_ID, "紫码", "未见异常"] {
            assert!(!verdict.detail.contains(sent), "{name}: {} repeats what was sent", verdict.detail);
        }
    }
}

#[tokio::test]
async fn a_backend_that_is_no_platform_pushes_nothing() {
    let (sandbox, home, dir) = (shared(), member("52"), tempfile::tempdir().unwrap());
    let stranger = PeerId::backend(home, "kiosk").expect("a backend's name");
    let stranger = sandbox.certify(&stranger, Realm::Member(home), dir.path());
    let channel = wire::channel(&sandbox.desk.node_address(home).unwrap(), Some(&Shown::read(&stranger)));
    let client = AssignmentServiceClient::new(channel);
    let request = PutCodesRequest { request_id: request_id(), codes: vec![code(&request_id())] };
    let refused = want(Reason::PlatformNotAdmitted, PermissionDenied);
    refused.check("a kiosk", push_as(&client, request).await);
}
