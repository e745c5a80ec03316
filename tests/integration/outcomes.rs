//! What an exchange can come to: every outcome with its decision, next step, conversion and scope, seen as a venue sees it.

use proto::{
    contract::{
        recognition::{Decision, NextStep, Outcome, RecognizeResponse, Source},
        types,
    },
    log::commit::AccessReceipt,
    statement::LogHead,
    terms::{Kind, Purpose, Scope},
};
use province_stub::seed::Condition;
use tongxing::{
    checkpoint::{Checkpoint, Seen},
    phone::Wish,
};

use crate::sandbox::{Sandbox, member, shared, venue};

const STATION: &str = "44/station/guangzhou-south";
const ELSEWHERE: &str = "11/station/beijing-west";

/// What stations may see for entry: the level and the identity hint.
const AT_STATIONS: u32 = 1 + 32;

fn step(zh: &str, en: &str) -> Option<NextStep> {
    Some(NextStep { zh: zh.into(), en: en.into() })
}

/// A station of another member than the traveler's.
fn away(home: &str) -> &'static str {
    if home == "44" { ELSEWHERE } else { STATION }
}

async fn seen(home: &str, condition: Condition) -> Seen {
    let sandbox = shared();
    let pass = sandbox.pass(member(home), condition, &Wish::default()).await;
    sandbox.show(&venue(away(home)), &pass, Purpose::Entry).await
}

/// What every answer has that came from home.
fn assert_from_home(sandbox: &Sandbox, home: &str, answer: &RecognizeResponse) {
    assert_eq!(answer.source(), Source::Home, "{home}: another source");
    assert_eq!(answer.as_of, Some(sandbox.now().to_protobuf()), "{home}: as of another time");
    assert_eq!(answer.exchange_id.len(), 16, "{home}: no exchange id");
    let (of, _) = LogHead::from_change_token(&answer.change_token).expect("a change token");
    assert_eq!(of, member(home), "{home}: a change token of another member");
    let receipt = AccessReceipt::parse(&answer.access_receipt).expect("a receipt");
    let on_record = receipt.verify(&shared().desk.trust().list).expect("a receipt that verifies");
    assert_eq!(on_record.owner.to_string(), home.to_string(), "{home}: on another log");
    assert_eq!(on_record.entry.exchange_id.to_vec(), answer.exchange_id, "{home}: the receipt of another exchange");
}

fn assert_status(home: &str, seen: &Seen, level: types::Level, decision: Decision, labels: &[&str]) {
    let answer = &seen.answer;
    assert_from_home(shared(), home, answer);
    assert_eq!(answer.outcome(), Outcome::Status, "{home}: another outcome");
    assert_eq!((answer.level(), answer.decision()), (level, decision), "{home}: another level or decision");
    let conversion = answer.conversion.as_ref().expect("a status has a conversion");
    assert_eq!((conversion.member.as_str(), conversion.level()), (home, level), "{home}: another conversion");
    assert!(labels.contains(&conversion.label.as_str()), "{home}: the label {}", conversion.label);
    let policy = shared().desk.trust().policy_edition.version;
    assert_eq!(conversion.policy_version, policy, "{home}: another policy");
    assert_eq!(answer.granted_scope, AT_STATIONS, "{home}: another scope");
    assert_eq!(answer.correction, None, "{home}: there is nothing to correct");
    let status = seen.statement.as_ref().expect("the venue verified a statement").status();
    assert_eq!((status.issuer, &status.label), (member(home), &conversion.label), "{home}: the statement differs");
    assert!(seen.hint.is_some(), "{home}: the hint was granted and does not open");
}

#[tokio::test]
async fn green_passes_whatever_its_member_calls_it() {
    for (home, labels) in [
        ("00", &["未见异常", "无异常"][..]),
        ("11", &["未见异常"]),
        ("13", &["绿码"]),
        ("44", &["绿码"]),
        ("52", &["绿码"]),
        ("66", &["绿码"]),
    ] {
        let seen = seen(home, Condition::Green).await;
        assert_status(home, &seen, types::Level::Green, Decision::Pass, labels);
        assert_eq!(seen.answer.next_step, step("请通行。", "Please go ahead."), "{home}: another next step");
        assert_eq!(seen.answer.assignment, None, "{home}: a green has nobody to answer for it");
    }
}

#[tokio::test]
async fn yellow_and_red_name_rule_and_authority() {
    for (home, condition, level, decision, labels, zh) in [
        ("11", Condition::Yellow, types::Level::Yellow, Decision::Assist, &["居家观察"][..], "请到旁边由工作人员协助"),
        ("52", Condition::Yellow, types::Level::Yellow, Decision::Assist, &["黄码", "橙码"], "请到旁边由工作人员协助"),
        ("11", Condition::Red, types::Level::Red, Decision::Stop, &["集中观察"], "请勿进入"),
        ("44", Condition::Red, types::Level::Red, Decision::Stop, &["红码"], "请勿进入"),
        ("51", Condition::Red, types::Level::Red, Decision::Stop, &["红码"], "请勿进入"),
    ] {
        let seen = seen(home, condition).await;
        assert_status(home, &seen, level, decision, labels);
        let next = seen.answer.next_step.as_ref().expect("every answer says what comes next");
        assert!(next.zh.starts_with(zh) && !next.en.is_empty(), "{home}: {}", next.zh);
        let assignment = seen.answer.assignment.as_ref().expect("who assigned it is said");
        assert!(assignment.rule.starts_with("R-"), "{home}: the rule {}", assignment.rule);
        assert!(assignment.authority.starts_with(&format!("{home}/")), "{home}: by {}", assignment.authority);
        assert_eq!(assignment.assign_time, None, "{home}: when it was assigned is beyond the scope");
    }
}

#[tokio::test]
async fn a_label_without_a_level_is_undetermined() {
    for (home, label) in [("11", "弹窗"), ("13", "弹窗"), ("64", "灰码"), ("00", "待核验")] {
        let Seen { answer, statement, .. } = seen(home, Condition::Undetermined).await;
        assert_from_home(shared(), home, &answer);
        assert_eq!(answer.outcome(), Outcome::Undetermined, "{home}: another outcome");
        assert_eq!(answer.level(), types::Level::Unspecified, "{home}: a level out of nothing");
        assert_eq!(answer.decision(), Decision::Assist, "{home}: another decision");
        let conversion = answer.conversion.as_ref().expect("the label is said");
        assert_eq!((conversion.label.as_str(), conversion.level()), (label, types::Level::Unspecified), "{home}");
        assert!(statement.is_some(), "{home}: home's statement is there");
        assert!(answer.next_step.unwrap().zh.contains("待核实"), "{home}: another next step");
    }
}

#[tokio::test]
async fn an_unsubstantiated_red_says_who_and_where_to_turn_and_nothing_else() {
    let Seen { answer, statement, hint, .. } = seen("41", Condition::Unsubstantiated).await;
    assert_eq!(answer.outcome(), Outcome::Unsubstantiated, "another outcome");
    assert_eq!(answer.decision(), Decision::Assist, "another decision");
    assert_eq!(answer.level(), types::Level::Unspecified, "no level");
    assert_eq!(answer.conversion, None, "no label");
    assert!(statement.is_none() && answer.statement.is_empty() && hint.is_none(), "no statement");
    let assignment = answer.assignment.expect("the authority is named");
    assert_eq!(assignment.authority, "41/finance-office", "another authority");
    assert_eq!((assignment.rule.as_str(), assignment.assign_time), ("", None), "the authority alone");
    let correction = answer.correction.expect("where to have it corrected");
    assert!(correction.zh.contains("41/finance-office") && correction.zh.contains("河南"), "{}", correction.zh);
    assert!(correction.en.contains("Henan"), "{}", correction.en);
    assert!(answer.next_step.unwrap().zh.contains("不作为限制通行的理由"), "another next step");
}

#[tokio::test]
async fn who_has_no_code_is_unknown() {
    for home in ["44", "51"] {
        let Seen { answer, .. } = seen(home, Condition::NoCode).await;
        assert_eq!(answer.outcome(), Outcome::UnknownTraveler, "{home}: another outcome");
        let head = proto::statement::LogHead::from_change_token(&answer.change_token);
        assert_eq!(head.map(|(of, _)| of), Some(member(home)), "{home}: no word of where its change log stood");
        assert_bare(home, &answer);
        assert!(answer.next_step.unwrap().zh.contains("未查到"), "{home}: another next step");
    }
}

/// An answer without any status: a person helps.
fn assert_bare(name: &str, answer: &RecognizeResponse) {
    assert_eq!(answer.decision(), Decision::Assist, "{name}: another decision");
    assert_eq!(answer.level(), types::Level::Unspecified, "{name}: a level out of nothing");
    assert_eq!(answer.source(), Source::Unspecified, "{name}: a source of nothing");
    let nothing = (None, None, None, None);
    let there = (&answer.conversion, &answer.assignment, &answer.as_of, &answer.correction);
    assert_eq!(there, (&nothing.0, &nothing.1, &nothing.2, &nothing.3), "{name}: something of a status");
    assert!(answer.statement.is_empty(), "{name}: a statement");
    assert_eq!(answer.exchange_id.len(), 16, "{name}: no exchange id");
}

#[tokio::test]
async fn the_hint_opens_with_k_and_k_is_nowhere_in_the_request() {
    let (sandbox, home, station) = (shared(), member("51"), venue(STATION));
    let person = sandbox.person(home, Condition::Green);
    let pass = sandbox.pass_of(home, &person, &Wish::default()).await;
    let presentation = pass.present(Some(&station), sandbox.now());
    let k = presentation.hint_key.0;
    let request = Checkpoint::request(&station, &presentation, Purpose::Entry);
    let sent = prost::Message::encode_to_vec(&request);
    assert!(!sent.windows(8).any(|window| k.windows(8).any(|part| part == window)), "half of k is in the request");
    let seen = sandbox.at(&station).show(&presentation, Purpose::Entry).await.unwrap().unwrap();
    let hint = seen.hint.expect("the hint opens");
    let number = person.document.number();
    assert_eq!(hint.document_tail(), &number[number.len() - 4..], "the tail of another document");
    let first: String = person.name.as_str().chars().take(1).collect();
    assert!(hint.masked_name().starts_with(&first) && hint.masked_name().ends_with('*'), "{}", hint.masked_name());
    assert!(!hint.masked_name().contains(person.name.as_str()), "the whole name is there");
}

#[tokio::test]
async fn a_venue_may_ask_for_less_than_is_granted() {
    let (sandbox, station) = (shared(), venue(STATION));
    let pass = sandbox.green(member("51")).await;
    let mut request = sandbox.request(&station, &pass);
    request.scope = 1;
    let answer = sandbox.at(&station).send(request).await.expect("an answer");
    assert_eq!((answer.outcome(), answer.granted_scope), (Outcome::Status, 1), "the level and no more");
    let statement = proto::statement::UnverifiedStatement::parse(&answer.statement).unwrap();
    let key = sandbox.desk.trust().list.statement_key(member("51"), statement.kid()).unwrap().clone();
    assert_eq!(statement.verify(&key).unwrap().status().hint, None, "home seals no hint that was not asked for");
}

#[tokio::test]
async fn a_consent_to_the_level_alone_discloses_the_level_alone() {
    let (sandbox, station) = (shared(), venue(STATION));
    let wish = Wish { scope: Scope::LEVEL, ..Wish::default() };
    let pass = sandbox.pass(member("51"), Condition::Green, &wish).await;
    let seen = sandbox.show(&station, &pass, Purpose::Entry).await;
    assert_eq!(seen.answer.granted_scope, 1, "more was granted than consented to");
    assert!(seen.hint.is_none(), "a hint nobody consented to");
}

#[tokio::test]
async fn evidence_is_for_hospitals_and_not_for_parks() {
    let (sandbox, home) = (shared(), member("44"));
    let (hospital, park) = (venue("44/hospital/zhongshan-first"), venue("51/park/renmin"));
    // A case has three tests, the latest positive; doses are by lot.
    let people = province_stub::seed::people(home, crate::sandbox::PEOPLE, &sandbox.desk.trust().policy);
    let records = province_stub::seed::records(&people, sandbox.now());
    let known = people.iter().zip(&records).filter(|(person, _)| person.condition == Condition::Green);
    let mut known = known.filter(|(_, record)| !record.tests.is_empty() && !record.doses.is_empty());
    let (person, record) = known.next().expect("somebody was tested and vaccinated");
    let pass = sandbox.pass_of(home, person, &Wish::default()).await;

    let seen = sandbox.show(&hospital, &pass, Purpose::Medical).await;
    assert_eq!(seen.answer.granted_scope, u32::from(Scope::ALL.bits()), "hospitals see all for medical");
    let status = seen.statement.as_ref().expect("a statement").status();
    assert!(!status.tests.is_empty() && status.tests.len() <= 4, "tests are there, four at most");
    assert_eq!(status.doses.len(), record.doses.len(), "all doses are there");
    assert!(status.assigned_at.is_some(), "when it was assigned is there");

    let seen = sandbox.show(&hospital, &pass, Purpose::Entry).await;
    let status = seen.statement.as_ref().expect("a statement").status();
    assert_eq!(seen.answer.granted_scope, 1 + 4 + 32, "for entry hospitals see tests and the hint");
    assert!(!status.tests.is_empty() && status.doses.is_empty(), "tests, and no doses");

    let seen = sandbox.show(&park, &pass, Purpose::Entry).await;
    let status = seen.statement.as_ref().expect("a statement").status();
    assert_eq!(seen.answer.granted_scope, 1 + 32, "parks see the level and the hint");
    assert!(status.tests.is_empty() && status.doses.is_empty() && status.visits.is_empty(), "no evidence at parks");
    assert_eq!(status.assigned_at, None, "no assignment detail at parks");
}

#[tokio::test]
async fn paper_is_recognised_with_the_level_alone() {
    let (sandbox, station) = (shared(), venue(STATION));
    let wish = Wish { kind: Kind::Paper, scope: Scope::LEVEL, ..Wish::default() };
    let paper = sandbox.pass(member("51"), Condition::Green, &wish).await;
    let seen = sandbox.show(&station, &paper, Purpose::Entry).await;
    assert_eq!((seen.answer.outcome(), seen.answer.level()), (Outcome::Status, types::Level::Green), "no green paper");
    assert_eq!(seen.answer.granted_scope, 1, "paper discloses more than the level");
    let again = sandbox.show(&venue(ELSEWHERE), &paper, Purpose::Entry).await;
    assert_eq!(again.answer.outcome(), Outcome::Status, "paper is good elsewhere too");
}

#[tokio::test]
async fn a_proof_without_a_venue_is_the_first_venues() {
    let (sandbox, station) = (shared(), venue(STATION));
    let pass = sandbox.green(member("51")).await;
    let free = pass.present(None, sandbox.now());
    let checkpoint = sandbox.at(&station);
    for time in ["first", "again"] {
        let seen = checkpoint.show(&free, Purpose::Entry).await.unwrap();
        assert_eq!(seen.expect(time).answer.outcome(), Outcome::Status, "{time}");
    }
}

#[tokio::test]
async fn a_venue_need_not_say_which_it_is_and_a_backend_must() {
    let (sandbox, station) = (shared(), venue(STATION));
    let pass = sandbox.green(member("51")).await;
    let mut request = sandbox.request(&station, &pass);
    request.venue.clear();
    let answer = sandbox.at(&station).send(request.clone()).await.expect("its certificate says it");
    assert_eq!(answer.outcome(), Outcome::Status, "another outcome");
    // A backend speaks for venues of its member that have no certificate of their own.
    let park = venue("44/park/yuexiu");
    let standing = sandbox.desk.standing(&sandbox.layout().backend(member("44"))).unwrap();
    let backend = Checkpoint::new(park.clone(), standing, &sandbox.desk.gateway_address().unwrap()).unwrap();
    let seen = backend.show(&pass.present(Some(&park), sandbox.now()), Purpose::Entry).await.unwrap();
    assert_eq!(seen.expect("a backend may ask for its park").answer.outcome(), Outcome::Status, "another outcome");
}
