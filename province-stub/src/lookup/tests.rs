//! Which refusal wins, and what exactly a scope discloses.

use proto::{
    cose::MAX_OBJECT_BYTES,
    hint::SEALED_LEN,
    statement::{
        Authority, Dose, MAX_DOSES, MAX_LABEL_BYTES, MAX_RULE_BYTES, MAX_TESTS, MAX_VISITS, RiskVisit, Statement,
        TestResult, UnverifiedStatement,
    },
    suite::{SigningKey, Suite},
    terms::{Category, Kind, Purposes},
    time::CLOCK_LEEWAY,
    token::{Audience, Consent, Cti},
    trust::keys,
};

use super::*;
use crate::{
    seed::{self, Condition, SeededPerson},
    store::NewPerson,
    test_support::{Fixture, HOUR, MINUTE, NOW, Phone, member, policy, random16, seeded},
};

fn hospital() -> VenueId {
    "44/hospital/first".parse().unwrap()
}

/// A hospital that treats the traveler: the one place that may see everything.
fn query(phone: &Phone, scope: Scope) -> Query {
    Query {
        token: phone.issued.token.clone(),
        proof: Some(phone.proof(None, NOW)),
        venue: hospital(),
        purpose: Purpose::Medical,
        scope,
    }
}

async fn ask_at(fixture: &Fixture, now: UnixTime, query: &Query) -> Result<Answer, Refusal> {
    lookup(&fixture.home, &fixture.list, &fixture.policy, now, query).await
}

async fn ask(fixture: &Fixture, query: &Query) -> Result<Answer, Refusal> {
    ask_at(fixture, NOW, query).await
}

async fn reason(fixture: &Fixture, query: &Query) -> Reason {
    ask(fixture, query).await.unwrap_err().reason()
}

fn open(fixture: &Fixture, answer: Answer) -> Statement {
    let Answer::Statement(bytes) = answer else { panic!("no statement") };
    let statement = UnverifiedStatement::parse(&bytes).unwrap();
    let key = fixture.list.statement_key(member(), statement.kid()).unwrap();
    statement.verify(key).unwrap()
}

async fn status(fixture: &Fixture, phone: &Phone, scope: Scope) -> Status {
    open(fixture, ask(fixture, &query(phone, scope)).await.unwrap()).status().clone()
}

fn record(person: &SeededPerson) -> NewPerson {
    seed::records(std::slice::from_ref(person), NOW).remove(0)
}

/// Somebody with evidence of all three kinds.
async fn well_known(fixture: &Fixture) -> SeededPerson {
    let people = seed::people(member(), 200, &fixture.policy);
    let known = |person: &&SeededPerson| {
        let NewPerson { tests, doses, visits, .. } = record(person);
        person.condition == Condition::Green && !(tests.is_empty() || doses.is_empty() || visits.is_empty())
    };
    let person = people.iter().find(known).unwrap().clone();
    fixture.home.store.seed(&[record(&person)], NOW).await.unwrap();
    person
}

#[tokio::test]
async fn a_scope_discloses_its_own_part_and_nothing_else() {
    let fixture = Fixture::new().await;
    let person = well_known(&fixture).await;
    let record = record(&person);
    let code = record.code.unwrap();
    let phone = fixture.phone(&person, |_| {}).await;
    let level = status(&fixture, &phone, Scope::LEVEL).await;
    let lean = Status {
        issuer: member(),
        issued_at: NOW,
        expires_at: NOW.plus(fixture.policy.lives.statement),
        token: proto::token::TokenHash::of(&phone.issued.token).short(),
        head: fixture.home.store.head().await.unwrap(),
        label: code.label,
        rule: None,
        authority: None,
        assigned_at: None,
        tests: vec![],
        doses: vec![],
        visits: vec![],
        hint: None,
        offline_until: NOW.plus(fixture.policy.lives.offline),
    };
    assert_eq!(level, lean);
    let with = |bit| status(&fixture, &phone, Scope::LEVEL.union(bit));
    let assigned_at = Some(code.assigned_at);
    assert_eq!(with(Scope::ASSIGNMENT).await, Status { assigned_at, ..lean.clone() });
    let tests: Vec<_> = record.tests.iter().take(4).copied().collect();
    assert_eq!(with(Scope::TESTS).await, Status { tests, ..lean.clone() });
    let doses: Vec<_> = record.doses.iter().rev().copied().collect();
    assert_eq!(with(Scope::VACCINATION).await, Status { doses, ..lean.clone() });
    assert_eq!(with(Scope::RISK_AREAS).await, Status { visits: record.visits, ..lean.clone() });
    let hinted = with(Scope::IDENTITY_HINT).await;
    let hint = IdentityHint::open(hinted.hint.as_ref().unwrap(), &phone.issued.hint_key).unwrap();
    assert_eq!(hint, IdentityHint::mask(person.name.as_str(), person.document.number()));
    assert_eq!(Status { hint: None, ..hinted }, lean);
}

#[tokio::test]
async fn what_is_not_green_names_rule_and_authority_whatever_the_scope() {
    let fixture = Fixture::new().await;
    for condition in [Condition::Yellow, Condition::Red, Condition::Unsubstantiated] {
        let person = seeded(condition);
        let code = record(&person).code.unwrap();
        let phone = fixture.phone(&person, |_| {}).await;
        let status = status(&fixture, &phone, Scope::LEVEL).await;
        assert!(status.rule.is_some() && status.authority.is_some());
        assert_eq!((status.label, status.rule, status.authority), (code.label, code.rule, code.authority));
        assert_eq!(status.assigned_at, None);
    }
}

#[tokio::test]
async fn no_code_and_no_such_token_are_unknown_travelers_with_a_head() {
    let fixture = Fixture::new().await;
    let head = fixture.home.store.head().await.unwrap();
    let phone = fixture.phone(&seeded(Condition::NoCode), |_| {}).await;
    assert_eq!(ask(&fixture, &query(&phone, Scope::LEVEL)).await, Ok(Answer::UnknownTraveler(head)));
    // Signed with home's own key, but never kept: what a restored store may meet. One has a handle of its own, the other
    // that of another token.
    let known = fixture.phone(&seeded(Condition::Green), |_| {}).await;
    for cti in [Cti(random16()), known.issued.cti] {
        let forged = paper(&fixture.home.keys.consent, cti);
        let query = Query { token: forged, proof: None, ..query(&known, Scope::LEVEL) };
        assert_eq!(ask(&fixture, &query).await, Ok(Answer::UnknownTraveler(head)));
    }
}

/// A paper token for everywhere, signed by `key`.
fn paper(key: &SigningKey, cti: Cti) -> Vec<u8> {
    let consent = Consent {
        issuer: member(),
        audience: Audience::Anywhere,
        issued_at: NOW,
        expires_at: NOW.plus(HOUR),
        cti,
        device_key: None,
        purposes: Purposes::ALL,
        scope: Scope::LEVEL,
        kind: Kind::Paper,
    };
    consent.sign(key)
}

#[tokio::test]
async fn a_revoked_consent_is_refused_and_its_statement_would_have_had_a_newer_head() {
    let fixture = Fixture::new().await;
    let (phone, other) =
        (fixture.phone(&seeded(Condition::Green), |_| {}).await, fixture.phone(&seeded(Condition::Red), |_| {}).await);
    assert!(ask(&fixture, &query(&phone, Scope::LEVEL)).await.is_ok());
    let head = fixture.home.store.revoke_consent(phone.issued.cti, None, NOW).await.unwrap();
    assert_eq!(reason(&fixture, &query(&phone, Scope::LEVEL)).await, Reason::ConsentRevoked);
    assert_eq!(status(&fixture, &other, Scope::LEVEL).await.head, head);
}

#[tokio::test]
async fn only_tokens_of_this_member_by_listed_keys_are_read() {
    let mut fixture = Fixture::new().await;
    let phone = fixture.phone(&seeded(Condition::Green), |_| {}).await;
    let stranger = SigningKey::generate(Suite::Ed25519);
    let asked = |token| Query { token, proof: None, ..query(&phone, Scope::LEVEL) };
    let unlisted = paper(&stranger, Cti(random16()));
    assert_eq!(reason(&fixture, &asked(unlisted)).await, Reason::KeyUnknown);
    // The statement key is listed too, but for another use.
    let other_use = paper(&fixture.home.keys.statement, Cti(random16()));
    assert_eq!(reason(&fixture, &asked(other_use)).await, Reason::KeyUnknown);
    let mut flipped = phone.issued.token.clone();
    *flipped.last_mut().unwrap() ^= 1;
    assert_eq!(reason(&fixture, &asked(flipped)).await, Reason::SignatureInvalid);
    assert_eq!(reason(&fixture, &asked(b"no token".to_vec())).await, Reason::NotCbor);
    // A key that leaves the list takes its tokens with it.
    let entry = fixture.list.members.get_mut(&member()).unwrap();
    entry.consent_keys = keys([stranger.verifying_key().clone()]);
    assert_eq!(reason(&fixture, &query(&phone, Scope::LEVEL)).await, Reason::KeyUnknown);
    // Another member's token, though its key is listed.
    fixture.home.member = "44".parse().unwrap();
    let refusal = ask(&fixture, &query(&phone, Scope::LEVEL)).await.unwrap_err();
    assert_eq!((refusal.reason(), refusal.metadata("member")), (Reason::KeyUnknown, Some("41")));
}

#[tokio::test]
async fn time_audience_and_purpose_are_checked() {
    let fixture = Fixture::new().await;
    let entry = Purposes::new([Purpose::Medical]).unwrap();
    let phone = fixture
        .phone(&seeded(Condition::Green), |request| {
            request.audience = Audience::Category(Category::Hospital);
            request.purposes = entry;
        })
        .await;
    let good = query(&phone, Scope::LEVEL);
    assert!(ask(&fixture, &good).await.is_ok());
    let station = Query { venue: "44/station/a".parse().unwrap(), ..good.clone() };
    assert_eq!(reason(&fixture, &station).await, Reason::AudienceMismatch);
    let work = Query { purpose: Purpose::Work, ..good.clone() };
    assert_eq!(reason(&fixture, &work).await, Reason::PurposeNotConsented);
    let early = ask_at(&fixture, NOW.minus(HOUR), &good).await.unwrap_err();
    assert_eq!((early.reason(), early.metadata("object")), (Reason::NotYetValid, Some("token")));
    let late = ask_at(&fixture, NOW.plus(HOUR + CLOCK_LEEWAY), &good).await.unwrap_err();
    assert_eq!((late.reason(), late.metadata("object")), (Reason::Expired, Some("token")));
    let mut strict = policy();
    strict.lives.token = HOUR / 2;
    let refused = lookup(&fixture.home, &fixture.list, &strict, NOW, &good).await;
    assert_eq!(refused.unwrap_err().reason(), Reason::LifeTooLong);
}

#[tokio::test]
async fn proofs_are_checked() {
    let fixture = Fixture::new().await;
    let phone = fixture.phone(&seeded(Condition::Green), |_| {}).await;
    let other = fixture.phone(&seeded(Condition::Green), |_| {}).await;
    let with = |proof| Query { proof, ..query(&phone, Scope::LEVEL) };
    let bound = phone.proof(Some(&hospital()), NOW);
    assert!(ask(&fixture, &with(Some(bound))).await.is_ok());
    let elsewhere = phone.proof(Some(&"44/hospital/second".parse().unwrap()), NOW);
    assert_eq!(reason(&fixture, &with(Some(elsewhere))).await, Reason::ProofOfOtherVenue);
    assert_eq!(reason(&fixture, &with(None)).await, Reason::ProofMissing);
    assert_eq!(reason(&fixture, &with(Some(other.proof(None, NOW)))).await, Reason::SignatureInvalid);
    assert_eq!(reason(&fixture, &with(Some(b"no proof".to_vec()))).await, Reason::NotCbor);
    assert_eq!(reason(&fixture, &with(Some(phone.proof(None, NOW.minus(HOUR))))).await, Reason::Expired);
    assert_eq!(reason(&fixture, &with(Some(phone.proof(None, NOW.plus(HOUR))))).await, Reason::DeviceClockOff);
    let mut strict = policy();
    strict.lives.proof = MINUTE / 2;
    let refused = lookup(&fixture.home, &fixture.list, &strict, NOW, &query(&phone, Scope::LEVEL)).await;
    assert_eq!(refused.unwrap_err().reason(), Reason::LifeTooLong);
    // The gateway's retries and hedges repeat a proof.
    let repeated = query(&phone, Scope::LEVEL);
    assert!(ask(&fixture, &repeated).await.is_ok() && ask(&fixture, &repeated).await.is_ok());
}

#[tokio::test]
async fn paper_needs_no_proof_and_takes_none() {
    let fixture = Fixture::new().await;
    let paper = fixture
        .phone(&seeded(Condition::Green), |request| {
            (request.kind, request.scope, request.token_key) = (Kind::Paper, Scope::LEVEL, None);
        })
        .await;
    let with = |proof| Query { proof, ..query(&paper, Scope::LEVEL) };
    assert!(ask(&fixture, &with(None)).await.is_ok());
    assert_eq!(reason(&fixture, &with(Some(paper.proof(None, NOW)))).await, Reason::ProofUnexpected);
}

#[tokio::test]
async fn nothing_beyond_token_and_policy_is_disclosed() {
    let fixture = Fixture::new().await;
    let scope = Scope::LEVEL.union(Scope::TESTS);
    let phone = fixture.phone(&seeded(Condition::Green), |request| request.scope = scope).await;
    let beyond_token = ask(&fixture, &query(&phone, scope.union(Scope::VACCINATION))).await.unwrap_err();
    assert_eq!((beyond_token.reason(), beyond_token.metadata("granted")), (Reason::ScopeNotGranted, Some("5")));
    let park = Query { venue: "44/park/a".parse().unwrap(), purpose: Purpose::Entry, ..query(&phone, scope) };
    let beyond_policy = ask(&fixture, &park).await.unwrap_err();
    assert_eq!((beyond_policy.reason(), beyond_policy.metadata("granted")), (Reason::ScopeNotGranted, Some("1")));
    let not_admitted = Query { purpose: Purpose::Medical, ..park };
    assert_eq!(reason(&fixture, &not_admitted).await, Reason::PurposeNotAdmitted);
}

#[tokio::test]
async fn a_statement_ends_with_its_token_and_is_valid_even_in_the_leeway() {
    let fixture = Fixture::new().await;
    let phone = fixture.phone(&seeded(Condition::Green), |request| request.life = MINUTE).await;
    let at = async |now| {
        let query = Query { proof: Some(phone.proof(None, now)), ..query(&phone, Scope::LEVEL) };
        open(&fixture, ask_at(&fixture, now, &query).await.unwrap())
    };
    let end = NOW.plus(MINUTE);
    let (early, late) = (at(NOW).await, at(end.plus(CLOCK_LEEWAY / 2)).await);
    assert_eq!((early.status().expires_at, early.status().offline_until), (end, end));
    assert_eq!(late.status().expires_at, late.status().issued_at);
    assert!(late.check_time(late.status().issued_at, &fixture.policy.lives).is_ok());
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_home_s_to_mend() {
    let fixture = Fixture::new().await;
    let phone = fixture.phone(&seeded(Condition::Green), |_| {}).await;
    fixture.home.store.close().await;
    let refusal = ask(&fixture, &query(&phone, Scope::ALL)).await.unwrap_err();
    assert_eq!((refusal.reason(), refusal.blame()), (Reason::StoreUnavailable, proto::refusal::Blame::Home));
}

#[test]
fn the_fullest_status_of_the_longest_words_fits_a_statement() {
    let status = Status {
        issuer: member(),
        issued_at: NOW,
        expires_at: NOW.plus(HOUR),
        token: [1; 16],
        head: LogHead { epoch: [2; 16], seq: u64::MAX },
        label: "长".repeat(MAX_LABEL_BYTES / 3),
        rule: Some("R".repeat(MAX_RULE_BYTES)),
        authority: Some(format!("41/{}", "a".repeat(Authority::MAX_BYTES - 3)).parse().unwrap()),
        assigned_at: Some(NOW),
        tests: vec![TestResult { sampled_at: NOW, positive: true }; MAX_TESTS],
        doses: vec![Dose { number: 9, given_at: NOW }; MAX_DOSES],
        visits: vec![RiskVisit { area: 999_999, high: true, left_at: NOW }; MAX_VISITS],
        hint: Some(vec![0; SEALED_LEN]),
        offline_until: NOW,
    };
    let bytes = status.sign(&SigningKey::generate(Suite::Ed25519));
    assert!(bytes.len() <= MAX_OBJECT_BYTES, "{}", bytes.len());
}
