//! Every field of a record of evidence and of a pushed code: what is missing, malformed, at the edge and just beyond it; and which
//! refusal wins.

use proto::{
    contract::{
        evidence::{Case, Contact, RiskArea, Stay, Test, Vaccination, Withdrawal},
        types,
    },
    refusal::Reason,
};

use super::*;

/// The standard's own example (GB 11643-1999).
const RESIDENT_ID: &str = "11010519491231002X";

fn at(seconds: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds, nanos: 0 })
}

/// An instant that is none.
fn never() -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds: 0, nanos: 1_000_000_000 })
}

fn named(kind: i32, number: &str) -> Option<Person> {
    let document = types::Document { r#type: kind, number: number.into() };
    Some(Person { person: Some(WirePerson::Document(document)) })
}

fn referred(reference: &str) -> Option<Person> {
    Some(Person { person: Some(WirePerson::Reference(reference.into())) })
}

fn about(content: WireContent) -> EvidenceRecord {
    EvidenceRecord {
        record_id: "record-1".into(),
        revision: 0,
        person: named(20, "E12345678"),
        authority: "44/cdc".into(),
        content: Some(content),
    }
}

fn base() -> EvidenceRecord {
    about(WireContent::Test(Test { sample_time: at(1_800_000_000), positive: false }))
}

fn listing(change: impl FnOnce(&mut RiskArea)) -> EvidenceRecord {
    let (start_time, end_time) = (at(1_800_000_000), None);
    let mut area = RiskArea { area: 310_115, risk: 2, start_time, end_time };
    change(&mut area);
    EvidenceRecord { person: None, ..about(WireContent::RiskArea(area)) }
}

fn withdrawal() -> EvidenceRecord {
    let content = Some(WireContent::Withdrawal(Withdrawal {}));
    EvidenceRecord { person: None, authority: String::new(), content, ..base() }
}

fn code() -> WireCode {
    WireCode {
        person_reference: "p-1".into(),
        label: "红码".into(),
        rule: "R-CASE".into(),
        authority: "44/cdc".into(),
        assign_time: at(1_800_000_000),
        evidence: "file 7".into(),
    }
}

/// Reason and field, and that what was sent is not repeated.
fn refused<T>(result: Result<T, Refusal>, name: &str) -> (Reason, String) {
    let refusal = result.err().unwrap_or_else(|| panic!("{name}: it is taken"));
    let (field, what) = refusal.violation().unwrap_or_else(|| panic!("{name}: no field is named"));
    for sent in [RESIDENT_ID, "E12345678", "红码", "R-CASE"] {
        assert!(!what.contains(sent), "{name}: {what} repeats what was sent");
    }
    (refusal.reason(), field.to_owned())
}

fn assert_refused(name: &str, record: EvidenceRecord, reason: Reason, field: &str) {
    assert_eq!(refused(super::record(record), name), (reason, field.to_owned()), "{name}");
}

const MISSING: Reason = Reason::FieldMissing;
const INVALID: Reason = Reason::FieldInvalid;

#[test]
fn a_records_id_revision_person_and_authority() {
    for good in ["a", "lab-1:2022.04_30", &"a".repeat(64), "110105194912310021"] {
        assert!(record(EvidenceRecord { record_id: good.into(), ..base() }).is_ok(), "{good}");
    }
    for wrong in ["a b", "检测", "a/b", "a#1", &"a".repeat(65), RESIDENT_ID, "11010519491231002x"] {
        assert_refused(wrong, EvidenceRecord { record_id: wrong.into(), ..base() }, INVALID, "record_id");
    }
    assert_refused("no id", EvidenceRecord { record_id: String::new(), ..base() }, MISSING, "record_id");
    assert!(record(EvidenceRecord { revision: 1_000_000, ..base() }).is_ok());
    assert_refused("a revision", EvidenceRecord { revision: 1_000_001, ..base() }, INVALID, "revision");
    for (name, person, reason, field) in [
        ("nobody", None, MISSING, "person"),
        ("a person who is none", Some(Person { person: None }), MISSING, "person"),
        ("no type", named(0, "E12345678"), MISSING, "document.type"),
        ("a type that is none", named(11, "E12345678"), INVALID, "document.type"),
        ("no number", named(20, ""), MISSING, "document.number"),
        ("a wrong check digit", named(10, "110105194912310021"), INVALID, "document.number"),
        ("no reference", referred(""), MISSING, "person.reference"),
        ("a reference of 65", referred(&"a".repeat(65)), INVALID, "person.reference"),
        ("a reference that is a number", referred(RESIDENT_ID), INVALID, "person.reference"),
    ] {
        assert_refused(name, EvidenceRecord { person, ..base() }, reason, field);
    }
    assert!(record(EvidenceRecord { person: referred(&"a".repeat(64)), ..base() }).is_ok());
    assert!(record(EvidenceRecord { person: named(10, "11010519491231002x"), ..base() }).is_ok());
    assert_refused("no authority", EvidenceRecord { authority: String::new(), ..base() }, MISSING, "authority");
    for wrong in ["cdc", "44/", "99/cdc", "44/疾控", "44/cdc/x", " 44/cdc"] {
        assert_refused(wrong, EvidenceRecord { authority: wrong.into(), ..base() }, INVALID, "authority");
    }
}

#[test]
fn what_a_record_may_say() {
    let (early, late) = (1_700_000_000, 1_800_000_000);
    let test = |sample_time| about(WireContent::Test(Test { sample_time, positive: true }));
    let dose = |dose, give_time| about(WireContent::Vaccination(Vaccination { dose, give_time }));
    let stay = |area, enter_time, leave_time| about(WireContent::Stay(Stay { area, enter_time, leave_time }));
    let case = |start_time, end_time| about(WireContent::Case(Case { start_time, end_time }));
    let contact = |contact_time| about(WireContent::Contact(Contact { contact_time }));
    for good in [
        test(at(0)),
        dose(1, at(late)),
        dose(9, at(late)),
        stay(110_000, at(early), at(early)),
        stay(999_999, at(early), at(late)),
        case(at(early), None),
        case(at(early), at(early)),
        contact(at(late)),
        withdrawal(),
        listing(|_| {}),
        listing(|area| (area.risk, area.end_time) = (1, area.start_time)),
        listing(|area| (area.risk, area.area) = (3, 110_000)),
        // A listing may be announced.
        listing(|area| area.start_time = at(253_402_300_799)),
    ] {
        assert!(record(good.clone()).is_ok(), "{:?}", good.content);
    }
    for (record, reason, field) in [
        (EvidenceRecord { content: None, ..base() }, MISSING, "content"),
        (test(None), MISSING, "test.sample_time"),
        (test(at(-1)), INVALID, "test.sample_time"),
        (test(at(253_402_300_800)), INVALID, "test.sample_time"),
        (test(never()), INVALID, "test.sample_time"),
        (dose(0, at(late)), INVALID, "vaccination.dose"),
        (dose(10, at(late)), INVALID, "vaccination.dose"),
        (dose(257, at(late)), INVALID, "vaccination.dose"),
        (dose(1, None), MISSING, "vaccination.give_time"),
        (stay(0, at(early), at(late)), INVALID, "stay.area"),
        (stay(109_999, at(early), at(late)), INVALID, "stay.area"),
        (stay(1_000_000, at(early), at(late)), INVALID, "stay.area"),
        (stay(310_115, None, at(late)), MISSING, "stay.enter_time"),
        (stay(310_115, at(early), None), MISSING, "stay.leave_time"),
        (stay(310_115, at(late), at(late - 1)), INVALID, "stay.leave_time"),
        (case(None, at(late)), MISSING, "case.start_time"),
        (case(at(late), at(early)), INVALID, "case.end_time"),
        (case(at(early), never()), INVALID, "case.end_time"),
        (contact(None), MISSING, "contact.contact_time"),
        (listing(|area| area.area = 109_999), INVALID, "risk_area.area"),
        (listing(|area| area.area = 1_000_000), INVALID, "risk_area.area"),
        (listing(|area| area.risk = 0), INVALID, "risk_area.risk"),
        (listing(|area| area.risk = 4), INVALID, "risk_area.risk"),
        (listing(|area| area.risk = -1), INVALID, "risk_area.risk"),
        (listing(|area| area.start_time = None), MISSING, "risk_area.start_time"),
        (listing(|area| area.end_time = at(1_799_999_999)), INVALID, "risk_area.end_time"),
        (EvidenceRecord { person: named(20, "E12345678"), ..listing(|_| {}) }, INVALID, "person"),
        (EvidenceRecord { authority: String::new(), ..listing(|_| {}) }, MISSING, "authority"),
        (EvidenceRecord { person: named(20, "E12345678"), ..withdrawal() }, INVALID, "person"),
        (EvidenceRecord { authority: "44/cdc".into(), ..withdrawal() }, INVALID, "authority"),
    ] {
        assert_refused(&format!("{:?}", record.content), record, reason, field);
    }
}

/// All is wrong; one after another is mended, and the next one wins.
#[test]
fn refusals_of_a_record_come_in_the_documented_order() {
    let content = |sample_time| Some(WireContent::Test(Test { sample_time, positive: false }));
    let mut record = EvidenceRecord { revision: 2_000_000, ..EvidenceRecord::default() };
    type Mend<'a> = &'a dyn Fn(&mut EvidenceRecord);
    let steps: [(&str, Mend<'_>); 6] = [
        ("record_id", &|record| record.record_id = "record-1".into()),
        ("revision", &|record| record.revision = 0),
        ("content", &|record| record.content = content(None)),
        ("test.sample_time", &|record| record.content = content(at(0))),
        ("person", &|record| record.person = referred("p-1")),
        ("authority", &|record| record.authority = "44/cdc".into()),
    ];
    for (field, mend) in steps {
        assert_eq!(refused(super::record(record.clone()), field).1, field);
        mend(&mut record);
    }
    assert!(super::record(record).is_ok());
}

#[test]
fn a_pushed_codes_fields() {
    let gone = WireCode { person_reference: "p-1".into(), assign_time: at(0), ..WireCode::default() };
    let green = || WireCode { rule: String::new(), authority: String::new(), ..code() };
    let longest = "长".repeat(16);
    for good in [
        code(),
        green(),
        gone.clone(),
        WireCode { person_reference: "a".repeat(64), ..code() },
        WireCode { label: longest.clone(), ..code() },
        WireCode { rule: "R".repeat(32), ..code() },
        WireCode { evidence: String::new(), ..code() },
        WireCode { evidence: "据".repeat(256), ..code() },
    ] {
        assert!(pushed(good.clone()).is_ok(), "{good:?}");
    }
    for (code, reason, field) in [
        (WireCode { person_reference: String::new(), ..code() }, MISSING, "person_reference"),
        (WireCode { person_reference: "a".repeat(65), ..code() }, INVALID, "person_reference"),
        (WireCode { person_reference: "p 1".into(), ..code() }, INVALID, "person_reference"),
        (WireCode { person_reference: RESIDENT_ID.into(), ..code() }, INVALID, "person_reference"),
        (WireCode { label: format!("{longest}x"), ..code() }, INVALID, "label"),
        (WireCode { label: " 红码".into(), ..code() }, INVALID, "label"),
        (WireCode { label: "红\n码".into(), ..code() }, INVALID, "label"),
        (WireCode { rule: "R".repeat(33), ..code() }, INVALID, "rule"),
        (WireCode { rule: String::new(), ..code() }, MISSING, "rule"),
        (WireCode { authority: String::new(), ..code() }, MISSING, "authority"),
        (WireCode { authority: "cdc".into(), ..code() }, INVALID, "authority"),
        (WireCode { assign_time: None, ..code() }, MISSING, "assign_time"),
        (WireCode { assign_time: never(), ..code() }, INVALID, "assign_time"),
        (WireCode { evidence: "据".repeat(257), ..code() }, INVALID, "evidence"),
        (WireCode { evidence: "file\n7".into(), ..code() }, INVALID, "evidence"),
        (WireCode { rule: "R-CASE".into(), ..gone.clone() }, INVALID, "rule"),
        (WireCode { authority: "44/cdc".into(), ..gone.clone() }, INVALID, "authority"),
        (WireCode { evidence: "file 7".into(), ..gone.clone() }, INVALID, "evidence"),
        (WireCode { assign_time: None, ..gone }, MISSING, "assign_time"),
    ] {
        let name = format!("{field} of {code:?}");
        assert_eq!(refused(pushed(code), &name), (reason, field.to_owned()), "{name}");
    }
}

#[test]
fn refusals_of_a_pushed_code_come_in_the_order_of_its_fields() {
    let mut code =
        WireCode { label: "x".repeat(49), evidence: "\n".into(), rule: "R".repeat(33), ..WireCode::default() };
    type Mend<'a> = &'a dyn Fn(&mut WireCode);
    let steps: [(&str, Mend<'_>); 6] = [
        ("person_reference", &|code| code.person_reference = "p-1".into()),
        ("label", &|code| code.label = "红码".into()),
        ("rule", &|code| code.rule = "R-CASE".into()),
        ("authority", &|code| code.authority = "44/cdc".into()),
        ("assign_time", &|code| code.assign_time = at(0)),
        ("evidence", &|code| code.evidence = String::new()),
    ];
    for (field, mend) in steps {
        assert_eq!(refused(pushed(code.clone()), field).1, field);
        mend(&mut code);
    }
    assert!(pushed(code).is_ok());
}
