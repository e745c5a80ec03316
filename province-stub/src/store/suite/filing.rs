//! Evidence, pushed codes, and what follows from them: by the national rules, at a member with three colours.

use proto::{policy::Policy, statement::Authority};

use super::*;
use crate::{
    evidence::{Content, Fact, Foreign, Listing, MAX_EVIDENCE, MAX_LISTINGS, PersonKey, Record, Risk},
    rules::Rules,
    store::filing::{
        Assignment, Cleared, Filed, Intake, NotFiled, OperatorAccess, Origin, PushedCode, PushedLabel, TakenIn,
    },
};

const DAY: Duration = Duration::from_secs(24 * 3600);
const AREA: u32 = 310_115;
const LAB: &str = "41/feed/lab-1";

fn by(authority: &str) -> Authority {
    authority.parse().unwrap()
}

fn foreign(name: &str) -> Foreign {
    Foreign::new(name).unwrap()
}

fn of(index: u32) -> PersonKey {
    PersonKey::Document(document(index))
}

fn about(id: &str, revision: u32, person: PersonKey, fact: Fact) -> Record {
    Record { id: foreign(id), revision, content: Content::About { person, fact, authority: by("41/cdc") } }
}

fn test(id: &str, person: u32, ago: Duration, positive: bool) -> Record {
    about(id, 0, of(person), Fact::Test { sampled_at: NOW.minus(ago), positive })
}

fn listing(id: &str, revision: u32, risk: Risk, until: Option<UnixTime>) -> Record {
    let listing = Listing { area: AREA, risk, since: NOW.minus(DAY * 10), until };
    Record { id: foreign(id), revision, content: Content::Listing { listing, authority: by("41/cdc") } }
}

fn stay(id: &str, person: u32, left: Duration) -> Record {
    let (entered_at, left_at) = (NOW.minus(left + HOUR), NOW.minus(left));
    about(id, 0, of(person), Fact::Stay { area: AREA, entered_at, left_at })
}

fn withdrawal(id: &str, revision: u32) -> Record {
    Record { id: foreign(id), revision, content: Content::Withdrawn }
}

/// A store at work by the national policy.
struct Desk<S> {
    store: S,
    policy: Policy,
}

impl<S: Store> Desk<S> {
    fn new(store: S) -> Self {
        Self { store, policy: policy() }
    }

    fn rules(&self) -> Rules<'_> {
        Rules::new(member(), &self.policy)
    }

    async fn put_from(&self, source: &str, records: &[Record], now: UnixTime, dry_run: bool) -> TakenIn {
        let intake = Intake { source, records, now, dry_run };
        self.store.put_evidence(&intake, &self.rules(), &SystemRandom).await.unwrap()
    }

    async fn put(&self, records: &[Record]) -> Vec<Filed> {
        self.put_from(LAB, records, NOW, false).await.verdicts
    }

    /// Has whoever is due at `now` looked at, to the last.
    async fn settle(&self, now: UnixTime) -> LogHead {
        while self.store.next_due().await.unwrap().is_some_and(|due_at| due_at <= now) {
            self.store.reassess_due(10, &self.rules(), now, &SystemRandom).await.unwrap();
        }
        self.store.head().await.unwrap()
    }

    async fn label(&self, index: u32) -> Option<String> {
        let person = self.store.person_by_document(&document(index)).await.unwrap()?;
        Some(self.store.code_on_file(person).await.unwrap()?.code.label)
    }

    async fn consent(&self, index: u32, scope: Scope) -> Cti {
        let person = self.store.person_by_document(&document(index)).await.unwrap().unwrap();
        let consent = NewConsent { scope, ..consent(person, NOW, Kind::Own) };
        issue(&self.store, &consent).await.unwrap().0.cti
    }

    async fn push(&self, id: &str, codes: &[PushedCode], now: UnixTime) -> Result<Vec<Assignment>, StoreError> {
        let digest =
            crate::request::digest(&codes.iter().map(|code| code.reference.as_str().as_bytes()).collect::<Vec<_>>());
        let request = RequestKey { method: Method::PutCodes, digest, at: now, ..request(id, "") };
        let codes: Vec<_> = codes.iter().cloned().map(Some).collect();
        let pushed = self.store.put_codes(&request, &codes, &self.rules(), &SystemRandom).await?;
        Ok(pushed.verdicts.into_iter().map(|verdict| verdict.expect("none was refused before")).collect())
    }

    /// The code of whom the platform alone has named: a device says whose it is.
    async fn bind(&self, reference: &str, index: u32) -> Result<(DeviceId, LogHead), StoreError> {
        let device =
            NewDevice { reference: Some(foreign(reference)), ..new_device(&document(index), &name(), &device_key()) };
        let id = format!("bind-{reference}-{index}-{:x}", u128::from_be_bytes(random16()));
        self.store.enroll_device(&request(&id, ""), &device, LIMIT).await
    }
}

fn pushed(reference: &str, label: &str, by_rule: Option<(&str, &str)>, assigned_at: UnixTime) -> PushedCode {
    let code = PushedLabel {
        label: label.into(),
        rule: by_rule.map(|(rule, _)| rule.into()),
        authority: by_rule.map(|(_, authority)| by(authority)),
        basis: "file 7".into(),
    };
    PushedCode { reference: foreign(reference), code: Some(code), assigned_at }
}

pub(super) async fn evidence_adds_people_and_their_codes_follow<S: Store>(store: S) {
    let desk = Desk::new(store);
    assert_eq!(desk.label(1).await, None);
    let verdicts = desk.put(&[test("a", 1, HOUR, false), test("b", 2, HOUR, true), test("c", 1, DAY, false)]).await;
    assert_eq!(verdicts, [Filed::Accepted; 3]);
    assert_eq!((desk.label(1).await.as_deref(), desk.label(2).await.as_deref()), (Some("绿码"), Some("黄码")));
    let person = desk.store.person_by_document(&document(2)).await.unwrap().unwrap();
    let code = desk.store.code_on_file(person).await.unwrap().unwrap();
    let evidence = code.evidence.unwrap();
    assert_eq!((code.origin, code.code.rule.as_deref()), (Origin::Rules, Some("R-TEST")));
    assert_eq!((evidence.source.as_str(), evidence.record.as_str()), (LAB, "b"));
    assert_eq!(code.ends_at, Some(NOW.minus(HOUR).plus(DAY * 3)));
    assert_eq!(desk.store.next_due().await.unwrap(), code.ends_at);
}

pub(super) async fn a_record_counts_once_and_in_its_latest_revision<S: Store>(store: S) {
    let desk = Desk::new(store);
    let positive = test("a", 1, HOUR, true);
    assert_eq!(desk.put(std::slice::from_ref(&positive)).await, [Filed::Accepted]);
    assert_eq!(desk.put(&[positive.clone(), positive.clone()]).await, [Filed::Unchanged; 2]);
    // The same id of another source is another record.
    let other = desk.put_from("41/feed/lab-2", &[test("a", 1, DAY, false)], NOW, false).await;
    assert_eq!(other.verdicts, [Filed::Accepted]);
    let conflict = Filed::Refused(NotFiled::Conflict);
    assert_eq!(desk.put(&[test("a", 1, HOUR, false), test("a", 2, HOUR, true)]).await, [conflict; 2]);
    let corrected = Record { revision: 3, ..test("a", 1, HOUR, false) };
    assert_eq!(desk.put(std::slice::from_ref(&corrected)).await, [Filed::Corrected]);
    assert_eq!(desk.label(1).await.as_deref(), Some("绿码"));
    assert_eq!(desk.put(&[positive]).await, [Filed::Refused(NotFiled::Superseded)]);
    assert_eq!(desk.put(&[withdrawal("a", 3)]).await, [conflict]);
    assert_eq!(desk.put(&[withdrawal("a", 4), withdrawal("a", 4)]).await, [Filed::Withdrawn, Filed::Unchanged]);
    assert_eq!(desk.put(&[corrected]).await, [Filed::Refused(NotFiled::Superseded)]);
    // It may come back, as another revision; and one that never was can be taken back before it comes.
    assert_eq!(desk.put(&[Record { revision: 5, ..test("a", 1, HOUR, true) }]).await, [Filed::Accepted]);
    assert_eq!(desk.label(1).await.as_deref(), Some("黄码"));
    let late = desk.put(&[withdrawal("late", 1), test("late", 1, HOUR, true)]).await;
    assert_eq!(late, [Filed::Withdrawn, Filed::Refused(NotFiled::Superseded)]);
}

pub(super) async fn within_a_batch_records_are_seen_in_order<S: Store>(store: S) {
    let desk = Desk::new(store);
    let batch = [
        test("a", 1, HOUR, true),
        Record { revision: 1, ..test("a", 2, HOUR, true) },
        stay("early", 3, DAY),
        listing("area", 0, Risk::High, None),
        stay("s", 3, DAY),
        withdrawal("s", 1),
        test("gone", 4, HOUR, true),
        withdrawal("gone", 1),
    ];
    let not_listed = Filed::Refused(NotFiled::AreaNotListed);
    let (accepted, withdrawn) = (Filed::Accepted, Filed::Withdrawn);
    let expected = [accepted, Filed::Corrected, not_listed, accepted, accepted, withdrawn, accepted, withdrawn];
    assert_eq!(desk.put(&batch).await, expected);
    // The correction says that it was somebody else.
    assert_eq!((desk.label(1).await, desk.label(2).await.as_deref()), (None, Some("黄码")));
    assert_eq!((desk.label(3).await, desk.label(4).await), (None, None));
}

pub(super) async fn a_dry_run_says_all_and_keeps_nothing<S: Store>(store: S) {
    let desk = Desk::new(store);
    add_person(&desk.store, 1).await;
    let cti = desk.consent(1, Scope::LEVEL).await;
    let before = desk.store.head().await.unwrap();
    let dry = desk.put_from(LAB, &[test("a", 1, HOUR, true), stay("s", 9, DAY)], NOW, true).await;
    assert_eq!(dry.verdicts, [Filed::Accepted, Filed::Refused(NotFiled::AreaNotListed)]);
    assert_eq!(dry.effect.changed, 1);
    assert_eq!(desk.store.head().await.unwrap(), before);
    assert_eq!((desk.label(1).await, desk.label(9).await), (None, None));
    assert!(desk.store.find(cti, Scope::ALL).await.unwrap().found.unwrap().tests.is_empty());
}

pub(super) async fn a_stay_counts_as_its_area_was_listed<S: Store>(store: S) {
    let desk = Desk::new(store);
    assert_eq!(desk.put(&[stay("s", 1, DAY)]).await, [Filed::Refused(NotFiled::AreaNotListed)]);
    // A listing that ended before, and one that has the stay's last second.
    let ended = desk.put(&[listing("l", 0, Risk::Low, Some(NOW.minus(DAY + HOUR * 2))), stay("s", 1, DAY)]).await;
    assert_eq!(ended[1], Filed::Refused(NotFiled::AreaNotListed));
    desk.put(&[listing("l", 1, Risk::Medium, None), stay("s", 1, DAY)]).await;
    assert_eq!(desk.label(1).await.as_deref(), Some("黄码"));
    let cti = desk.consent(1, Scope::ALL).await;
    let visits = async || desk.store.find(cti, Scope::ALL).await.unwrap().found.unwrap().visits;
    assert!(!visits().await[0].high);
    // The area becomes riskier, and is no longer listed at all: whoever stayed there is looked at again.
    for (revision, risk, label, events) in [(2, Some(Risk::High), Some("红码"), 1), (3, None, Some("绿码"), 2)] {
        let record = risk.map_or_else(|| withdrawal("l", revision), |risk| listing("l", revision, risk, None));
        desk.put(&[record]).await;
        let reassess = async || desk.store.reassess_due(10, &desk.rules(), NOW, &SystemRandom).await.unwrap();
        assert!(desk.store.next_due().await.unwrap().unwrap() < NOW);
        let again = reassess().await;
        assert_eq!((again.people, again.effect.head.seq), (1, events));
        assert_eq!(desk.settle(NOW).await.seq, events, "once is enough");
        assert_eq!(desk.label(1).await.as_deref(), label);
        assert_eq!(visits().await.len(), usize::from(risk.is_some()));
    }
}

pub(super) async fn events_are_for_those_whose_view_changed<S: Store>(store: S) {
    let desk = Desk::new(store);
    desk.put(&[test("a", 1, DAY, false)]).await;
    let level = desk.consent(1, Scope::LEVEL).await;
    let tests = desk.consent(1, Scope::LEVEL.union(Scope::TESTS)).await;
    let head = desk.store.head().await.unwrap();
    // Another negative test shows to whoever sees tests; the code stays.
    let taken = desk.put_from(LAB, &[test("b", 1, HOUR, false)], NOW, false).await;
    assert_eq!((taken.effect.changed, taken.effect.head.seq), (1, head.seq + 1));
    assert_eq!(desk.store.changes(head.seq, 10).await.unwrap()[0].cti, tests);
    // A positive one changes the code: everybody sees that.
    let taken = desk.put_from(LAB, &[test("c", 1, HOUR / 2, true)], NOW, false).await;
    assert_eq!(taken.effect.changed, 2);
    let events: BTreeSet<_> =
        desk.store.changes(head.seq + 1, 10).await.unwrap().iter().map(|change| change.cti.0).collect();
    assert_eq!(events, [level.0, tests.0].into());
    // A dose shows to nobody here.
    let dose = about("d", 0, of(1), Fact::Dose { number: 1, given_at: NOW.minus(DAY) });
    assert_eq!(desk.put_from(LAB, &[dose], NOW, false).await.effect.changed, 0);
}

pub(super) async fn time_alone_changes_a_code_with_its_events<S: Store>(store: S) {
    let desk = Desk::new(store);
    desk.put(&[listing("l", 0, Risk::Medium, None), stay("s", 1, DAY)]).await;
    desk.consent(1, Scope::LEVEL).await;
    let end = NOW.minus(DAY).plus(DAY * 14);
    let person = desk.store.person_by_document(&document(1)).await.unwrap().unwrap();
    assert_eq!(desk.store.code_on_file(person).await.unwrap().unwrap().ends_at, Some(end));
    let before = desk.settle(NOW).await.seq;
    let early =
        desk.store.reassess_due(10, &desk.rules(), end.minus(Duration::from_secs(1)), &SystemRandom).await.unwrap();
    assert_eq!((early.people, early.effect.head.seq), (0, before));
    let found = desk.store.reassess_person(person, &desk.rules(), end, &SystemRandom).await.unwrap();
    assert_eq!((found.people, desk.label(1).await.as_deref()), (1, Some("绿码")));
    assert_eq!(desk.store.next_due().await.unwrap(), None);
    // Assessed again, nothing changes, whatever a consent discloses.
    desk.consent(1, Scope::ALL).await;
    let again = desk.store.reassess_person(person, &desk.rules(), end, &SystemRandom).await.unwrap();
    assert_eq!((again.effect.head, again.effect.changed), (found.effect.head, 0));
}

pub(super) async fn everybody_with_evidence_is_assessed_in_turn<S: Store>(store: S) {
    let desk = Desk::new(store);
    add_person(&desk.store, 0).await;
    desk.put(&(1..=5).map(|n| test(&format!("t{n}"), n, HOUR, true)).collect::<Vec<_>>()).await;
    let (mut after, mut people) = (PersonId(0), 0);
    loop {
        let (reassessed, last) =
            desk.store.reassess_following(after, 2, &desk.rules(), NOW.plus(DAY * 30), &SystemRandom).await.unwrap();
        people += reassessed.people;
        let Some(last) = last else { break };
        after = last;
    }
    assert_eq!((people, desk.label(5).await.as_deref()), (5, Some("绿码")));
    assert_eq!(desk.store.assessed_rules().await.unwrap(), 0);
    desk.store.set_assessed_rules(7).await.unwrap();
    assert_eq!(desk.store.assessed_rules().await.unwrap(), 7);
}

pub(super) async fn evidence_of_one_person_is_bounded<S: Store>(store: S) {
    let desk = Desk::new(store);
    let tests: Vec<_> = (0..MAX_EVIDENCE).map(|n| test(&format!("t{n}"), 1, HOUR, false)).collect();
    for batch in tests.chunks(500) {
        assert!(desk.put(batch).await.iter().all(|filed| *filed == Filed::Accepted));
    }
    let too_much = Filed::Refused(NotFiled::TooMuch);
    assert_eq!(desk.put(&[test("more", 1, HOUR, false)]).await, [too_much]);
    // A correction of what is there takes no more room, and a withdrawal makes some.
    assert_eq!(desk.put(&[Record { revision: 1, ..test("t0", 1, DAY, false) }]).await, [Filed::Corrected]);
    assert_eq!(
        desk.put(&[withdrawal("t1", 1), test("more", 1, HOUR, false)]).await,
        [Filed::Withdrawn, Filed::Accepted]
    );
    assert_eq!(desk.put(&[test("other", 2, HOUR, false)]).await, [Filed::Accepted]);
}

pub(super) async fn what_was_set_by_hand_stands_until_it_is_cleared_or_something_stricter_comes<S: Store>(store: S) {
    let desk = Desk::new(store);
    desk.put(&[test("a", 1, DAY, true)]).await;
    let person = desk.store.person_by_document(&document(1)).await.unwrap().unwrap();
    let by_hand = |label: &str| NewAssignment {
        document: document(1),
        label: label.into(),
        rule: "R-TEST".into(),
        authority: by("41/cdc"),
        justification: "looked into".into(),
        set_by: "41/operator/li".into(),
        now: NOW,
    };
    let set = async |id: &str, label: &str| {
        let request = RequestKey { method: Method::SetCode, ..request(id, label) };
        desk.store.set_code(&request, &by_hand(label), &SystemRandom).await.unwrap();
    };
    let origin = async || desk.store.code_on_file(person).await.unwrap().unwrap().origin;
    set("set-code-1", "绿码").await;
    assert_eq!((desk.label(1).await.as_deref(), origin().await), (Some("绿码"), Origin::Hand));
    // Time passes over what it covers; what comes later and is stricter counts, for as long as it lasts.
    desk.store.reassess_person(person, &desk.rules(), NOW, &SystemRandom).await.unwrap();
    assert_eq!(desk.label(1).await.as_deref(), Some("绿码"));
    desk.put(&[test("b", 1, HOUR, true)]).await;
    assert_eq!((desk.label(1).await.as_deref(), origin().await), (Some("黄码"), Origin::Rules));
    desk.put(&[test("c", 1, HOUR / 2, false)]).await;
    assert_eq!((desk.label(1).await.as_deref(), origin().await), (Some("绿码"), Origin::Hand));
    set("set-code-2", "红码").await;
    desk.put(&[test("d", 1, HOUR / 3, false)]).await;
    assert_eq!((desk.label(1).await.as_deref(), origin().await), (Some("红码"), Origin::Hand));

    let cti = desk.consent(1, Scope::LEVEL).await;
    let clear = async |id: &str| {
        let cleared = Cleared {
            document: document(1),
            justification: "a mistake".into(),
            cleared_by: "41/operator/wang".into(),
            now: NOW,
        };
        let request = RequestKey { method: Method::ClearCode, ..request(id, "") };
        desk.store.clear_code(&request, &cleared, &desk.rules(), &SystemRandom).await.unwrap()
    };
    let before = desk.store.head().await.unwrap().seq;
    let effect = clear("clear-code-1").await;
    assert_eq!((effect.changed, effect.head.seq), (1, before + 1));
    assert_eq!(desk.store.changes(before, 9).await.unwrap()[0].cti, cti);
    assert_eq!((desk.label(1).await.as_deref(), origin().await), (Some("绿码"), Origin::Rules));
    // Again the same answer; and with nothing by hand there is nothing to clear.
    assert_eq!(clear("clear-code-1").await, effect);
    assert_eq!(clear("clear-code-2").await.changed, 0);
}

pub(super) async fn pushed_codes_are_the_platforms_until_it_takes_them_back<S: Store>(store: S) {
    let desk = Desk::new(store);
    let red = pushed("p-1", "红码", Some(("R-CASE", "41/cdc")), NOW.minus(HOUR));
    let batch = [red.clone(), pushed("p-2", "绿码", None, NOW.minus(HOUR))];
    assert_eq!(desk.push("push-0001", &batch, NOW).await.unwrap(), [Assignment::Assigned; 2]);
    assert_eq!(desk.push("push-0001", &batch, NOW).await.unwrap(), [Assignment::Assigned; 2], "the kept answer");
    assert_eq!(desk.push("push-0002", &batch, NOW).await.unwrap(), [Assignment::Unchanged; 2]);
    assert!(matches!(desk.push("push-0001", &batch[..1], NOW).await, Err(StoreError::RequestIdReused)));
    let older = pushed("p-1", "绿码", None, NOW.minus(HOUR * 2));
    assert_eq!(desk.push("push-0003", &[older], NOW).await.unwrap(), [Assignment::Outdated]);

    desk.bind("p-1", 1).await.unwrap();
    assert_eq!(desk.label(1).await.as_deref(), Some("红码"));
    let cti = desk.consent(1, Scope::ALL).await;
    // A test by reference shows, and clears nothing of the platform's.
    let key = PersonKey::Reference(foreign("p-1"));
    let negative = about("t", 0, key, Fact::Test { sampled_at: NOW.minus(HOUR), positive: false });
    let nobody = about("n", 0, PersonKey::Reference(foreign("p-9")), Fact::Contact { last_at: NOW.minus(HOUR) });
    assert_eq!(desk.put(&[negative, nobody]).await, [Filed::Accepted, Filed::Refused(NotFiled::PersonUnknown)]);
    assert_eq!(desk.store.find(cti, Scope::ALL).await.unwrap().found.unwrap().tests.len(), 1);
    assert_eq!(desk.label(1).await.as_deref(), Some("红码"));
    let before = desk.store.head().await.unwrap().seq;
    let gone = PushedCode { code: None, assigned_at: NOW, ..red };
    let verdicts = desk.push("push-0004", &[gone.clone(), gone], NOW).await.unwrap();
    assert_eq!(verdicts, [Assignment::Withdrawn, Assignment::Unchanged]);
    assert_eq!((desk.label(1).await.as_deref(), desk.store.head().await.unwrap().seq), (Some("绿码"), before + 1));
}

pub(super) async fn what_the_platform_took_back_beneath_a_hand_does_not_stand_again<S: Store>(store: S) {
    let desk = Desk::new(store);
    let red = pushed("p-1", "红码", Some(("R-CASE", "41/cdc")), NOW.minus(HOUR));
    desk.push("push-0001", std::slice::from_ref(&red), NOW).await.unwrap();
    desk.bind("p-1", 1).await.unwrap();
    let by_hand = NewAssignment {
        document: document(1),
        label: "绿码".into(),
        rule: "R-CLEAR".into(),
        authority: by("41/cdc"),
        justification: "looked into".into(),
        set_by: "41/operator/li".into(),
        now: NOW,
    };
    let request_of = |method, id: &str| RequestKey { method, ..request(id, "") };
    desk.store.set_code(&request_of(Method::SetCode, "set-code-1"), &by_hand, &SystemRandom).await.unwrap();
    let gone = PushedCode { code: None, assigned_at: NOW, ..red };
    let verdicts = desk.push("push-0002", &[gone.clone(), gone], NOW).await.unwrap();
    assert_eq!(verdicts, [Assignment::Withdrawn, Assignment::Unchanged]);
    assert_eq!(desk.label(1).await.as_deref(), Some("绿码"), "what was set by hand stands");
    let cleared =
        Cleared { document: document(1), justification: "done".into(), cleared_by: "41/operator/li".into(), now: NOW };
    let request = request_of(Method::ClearCode, "clear-code-1");
    desk.store.clear_code(&request, &cleared, &desk.rules(), &SystemRandom).await.unwrap();
    assert_eq!(desk.label(1).await, None, "a red that nobody stands for any more");
}

pub(super) async fn a_listing_that_brings_an_end_nearer_is_an_event<S: Store>(store: S) {
    let desk = Desk::new(store);
    // Listed, not listed any more: nothing follows from the stay, and time changes nothing.
    desk.put(&[listing("l", 0, Risk::Low, None), stay("s", 1, DAY), test("t", 1, HOUR, false)]).await;
    desk.put(&[withdrawal("l", 1)]).await;
    desk.settle(NOW).await;
    assert_eq!((desk.label(1).await.as_deref(), desk.store.next_due().await.unwrap()), (Some("绿码"), None));
    desk.consent(1, Scope::LEVEL).await;
    let before = desk.store.head().await.unwrap().seq;
    // Green as before, but only until the test is too old: a statement that says it for longer is old.
    desk.put(&[listing("l", 2, Risk::Low, None)]).await;
    let after = desk.settle(NOW).await.seq;
    assert_eq!((desk.label(1).await.as_deref(), after), (Some("绿码"), before + 1));
    assert_eq!(desk.store.next_due().await.unwrap(), Some(NOW.minus(HOUR).plus(DAY * 3)));
}

pub(super) async fn whom_a_document_and_a_reference_named_apart_is_one_person<S: Store>(store: S) {
    let desk = Desk::new(store);
    let later = NOW.plus(HOUR);
    let by_reference = |id: &str, fact| about(id, 0, PersonKey::Reference(foreign("p-1")), fact);
    desk.put(&[test("before", 1, DAY, true)]).await;
    let green = pushed("p-1", "绿码", None, NOW);
    desk.push("push-0001", std::slice::from_ref(&green), NOW.plus(HOUR / 2)).await.unwrap();
    desk.put(&[by_reference("dose", Fact::Dose { number: 1, given_at: NOW })]).await;
    assert_eq!(desk.label(1).await.as_deref(), Some("黄码"));
    let level = desk.consent(1, Scope::LEVEL).await;
    let before = desk.store.head().await.unwrap().seq;
    desk.bind("p-1", 1).await.unwrap();
    assert!(desk.store.next_due().await.unwrap().is_some_and(|due_at| due_at <= NOW), "at once");
    let due = desk.store.reassess_due(10, &desk.rules(), later, &SystemRandom).await.unwrap();
    assert_eq!((due.people, due.effect.changed, due.effect.head.seq), (1, 1, before + 1));
    assert_eq!(desk.store.changes(before, 9).await.unwrap()[0].cti, level);
    // The platform knew of that test when it said so: it stands.
    assert_eq!(desk.label(1).await.as_deref(), Some("绿码"));
    let person = desk.store.person_by_document(&document(1)).await.unwrap().unwrap();
    let file = desk.store.person_file(person).await.unwrap();
    assert!(file.has_reference && file.devices.len() == 1);
    assert_eq!(file.evidence.iter().map(|on_file| on_file.record.as_str()).collect::<Vec<_>>(), ["dose", "before"]);
    let codes: Vec<_> = file.codes.iter().map(|code| (code.origin, code.justification.as_deref())).collect();
    assert_eq!(codes, [(Origin::Platform, Some("file 7")), (Origin::Rules, None)]);
    // Both names are theirs, and what comes later counts, by either.
    let verdicts = desk.push("push-0002", &[green], later).await.unwrap();
    assert_eq!(verdicts, [Assignment::Unchanged]);
    let after = by_reference("after", Fact::Test { sampled_at: NOW.minus(HOUR), positive: true });
    desk.put_from(LAB, &[after], later, false).await;
    assert_eq!(desk.label(1).await.as_deref(), Some("黄码"));
    desk.bind("p-1", 1).await.unwrap();
    // Nobody's reference becomes another's by that.
    desk.push("push-0003", &[pushed("p-2", "绿码", None, NOW)], later).await.unwrap();
    assert!(matches!(desk.bind("p-2", 1).await, Err(StoreError::ReferenceDiffers)));
}

pub(super) async fn a_hand_stands_over_what_the_platform_said_before_it_under_another_name<S: Store>(store: S) {
    let desk = Desk::new(store);
    for (index, ago, label) in [(1, HOUR, "绿码"), (2, Duration::ZERO, "红码")] {
        add_person(&desk.store, index).await;
        let by_hand = NewAssignment {
            document: document(index),
            label: "绿码".into(),
            rule: "R-CLEAR".into(),
            authority: by("41/cdc"),
            justification: "looked into".into(),
            set_by: "41/operator/li".into(),
            now: NOW.minus(HOUR / 2),
        };
        let request = RequestKey { method: Method::SetCode, ..request(&format!("set-code-{index}"), "") };
        desk.store.set_code(&request, &by_hand, &SystemRandom).await.unwrap();
        let reference = format!("p-{index}");
        let red = pushed(&reference, "红码", Some(("R-CASE", "41/cdc")), NOW.minus(ago));
        desk.push(&format!("push-{index:04}"), &[red], NOW).await.unwrap();
        desk.bind(&reference, index).await.unwrap();
        desk.store.reassess_due(10, &desk.rules(), NOW, &SystemRandom).await.unwrap();
        assert_eq!(desk.label(index).await.as_deref(), Some(label), "pushed {ago:?} ago");
    }
}

pub(super) async fn a_reference_is_one_persons<S: Store>(store: S) {
    let desk = Desk::new(store);
    desk.push("push-0001", &[pushed("p-1", "绿码", None, NOW), pushed("p-2", "绿码", None, NOW)], NOW).await.unwrap();
    add_person(&desk.store, 5).await;
    desk.bind("p-1", 1).await.unwrap();
    desk.bind("p-1", 1).await.unwrap();
    desk.bind("p-5", 5).await.unwrap();
    for (reference, index) in [("p-1", 2), ("p-9", 1), ("p-2", 1), ("p-1", 5), ("p-5", 1)] {
        let refused = desk.bind(reference, index).await;
        assert!(matches!(refused, Err(StoreError::ReferenceDiffers)), "{reference} {index}: {refused:?}");
    }
    desk.push("push-0002", &[pushed("p-5", "红码", Some(("R-CASE", "41/cdc")), NOW)], NOW).await.unwrap();
    assert_eq!(desk.label(5).await.as_deref(), Some("红码"));
    // Whom evidence alone has named gets a name with the first device.
    desk.put(&[test("a", 7, HOUR, false)]).await;
    desk.bind("p-7", 7).await.unwrap();
    let person = desk.store.person_by_document(&document(7)).await.unwrap().unwrap();
    let file = desk.store.person_file(person).await.unwrap();
    assert_eq!(file.particulars.unwrap().1.name, name().as_str());
    assert!(file.has_reference);
}

pub(super) async fn an_operators_look_is_on_file_before_anything_is_seen<S: Store>(store: S) {
    let desk = Desk::new(store);
    let person = add_person(&desk.store, 1).await;
    let look = |reason: &str, ago: u64| OperatorAccess {
        document: document(1),
        operator: "41/operator/li".into(),
        reason: reason.into(),
        now: NOW.minus(Duration::from_secs(ago)),
    };
    let unknown = OperatorAccess { document: document(2), ..look("nobody", 0) };
    assert!(matches!(desk.store.record_operator_access(&unknown).await, Err(StoreError::PersonUnknown)));
    for (reason, ago) in [("first", 20), ("second", 10), ("third", 10)] {
        assert_eq!(desk.store.record_operator_access(&look(reason, ago)).await.unwrap(), person);
    }
    let first = desk.store.operator_looks(person, None, 2).await.unwrap();
    assert_eq!(first.iter().map(|look| look.reason.as_str()).collect::<Vec<_>>(), ["third", "second"]);
    let rest = desk.store.operator_looks(person, Some((first[1].at, first[1].id)), 2).await.unwrap();
    assert_eq!((rest.len(), rest[0].reason.as_str(), rest[0].operator.as_str()), (1, "first", "41/operator/li"));
    let all = desk.store.operator_looks(person, Some((NOW.minus(Duration::from_secs(10)), u64::MAX)), 9).await.unwrap();
    assert_eq!(all.len(), 3);
}

pub(super) async fn a_file_has_all_there_is_and_goes_with_its_person<S: Store>(store: S) {
    let desk = Desk::new(store);
    desk.push("push-0001", &[pushed("p-1", "红码", Some(("R-CASE", "41/cdc")), NOW)], NOW).await.unwrap();
    let (device, _) = desk.bind("p-1", 1).await.unwrap();
    desk.put(&[test("a", 1, HOUR, true), test("b", 1, DAY, false)]).await;
    let person = desk.store.person_by_document(&document(1)).await.unwrap().unwrap();
    let file = desk.store.person_file(person).await.unwrap();
    let (whose, particulars) = file.particulars.unwrap();
    assert_eq!((&whose, particulars.name.as_str()), (&document(1), name().as_str()));
    assert_eq!((file.devices.len(), file.devices[0].0), (1, device));
    assert_eq!(file.codes[0].justification.as_deref(), Some("file 7"));
    assert_eq!((file.codes[0].origin, file.codes[0].set_by.as_str()), (Origin::Platform, "41/backend/app"));
    assert_eq!(file.evidence.iter().map(|on_file| on_file.record.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    desk.store.delete_traveler(device, NOW, &SystemRandom).await.unwrap();
    assert_eq!(desk.label(1).await, None);
    // Whoever comes again is new, and so is what is said of them.
    assert_eq!(desk.put(&[test("a", 1, HOUR, false)]).await, [Filed::Accepted]);
    assert_eq!(desk.label(1).await.as_deref(), Some("绿码"));
}

pub(super) async fn evidence_is_forgotten_when_it_has_been_over_for_long<S: Store>(store: S) {
    let desk = Desk::new(store);
    let open_case = about("case", 0, of(1), Fact::Case { since: NOW.minus(DAY * 300), ended_at: None });
    let dose = about("dose", 0, of(1), Fact::Dose { number: 1, given_at: NOW.minus(DAY * 600) });
    desk.put(&[test("old", 1, DAY * 200, false), test("new", 1, DAY, false), open_case, dose]).await;
    desk.put(&[listing("l", 0, Risk::Low, None), listing("m", 0, Risk::Low, Some(NOW.minus(DAY * 190)))]).await;
    while desk.store.sweep(NOW, RETENTION).await.unwrap() > 0 {}
    let person = desk.store.person_by_document(&document(1)).await.unwrap().unwrap();
    let left: BTreeSet<_> =
        desk.store.person_file(person).await.unwrap().evidence.into_iter().map(|on_file| on_file.record).collect();
    assert_eq!(left, ["case", "dose", "new"].map(str::to_owned).into(), "what goes on stays, and what is never over");
    // The open listing is still there.
    assert_eq!(desk.put(&[stay("s", 2, DAY)]).await, [Filed::Accepted]);
}

pub(super) async fn batches_that_meet_leave_no_gap_and_no_old_code<S: Store>(store: S) {
    let desk = Arc::new(Desk::new(store));
    let mut tasks = JoinSet::new();
    for feed in 0..4_u32 {
        let desk = desk.clone();
        tasks.spawn(async move {
            for batch in 0..5_u32 {
                // The same six people, in another order each time.
                let records: Vec<_> = (0..6)
                    .map(|n| test(&format!("{batch}-{n}"), (n * 5 + feed) % 6 + 1, HOUR * (batch + 1), batch % 2 == 0))
                    .collect();
                let intake = Intake { source: &format!("41/feed/{feed}"), records: &records, now: NOW, dry_run: false };
                let taken = desk.store.put_evidence(&intake, &desk.rules(), &SystemRandom).await.unwrap();
                assert_eq!(taken.verdicts, [Filed::Accepted; 6]);
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    for index in 1..=6 {
        let person = desk.store.person_by_document(&document(index)).await.unwrap().unwrap();
        assert_eq!(desk.store.person_file(person).await.unwrap().evidence.len(), 20);
        let held = desk.store.code_on_file(person).await.unwrap();
        let again = desk.store.reassess_person(person, &desk.rules(), NOW, &SystemRandom).await.unwrap();
        assert_eq!(desk.store.code_on_file(person).await.unwrap(), held, "{again:?}");
    }
}

pub(super) async fn past_codes_are_forgotten_and_what_may_stand_again_is_not<S: Store>(store: S) {
    let desk = Desk::new(store);
    desk.push("push-0001", &[pushed("p-1", "绿码", None, NOW.minus(HOUR))], NOW).await.unwrap();
    desk.bind("p-1", 1).await.unwrap();
    let person = desk.store.person_by_document(&document(1)).await.unwrap().unwrap();
    // A positive test comes and is lifted: yellow has been, the platform's green holds again.
    desk.put(&[test("a", 1, HOUR, true)]).await;
    desk.put(&[test("b", 1, HOUR / 2, false)]).await;
    let codes = async || desk.store.person_file(person).await.unwrap().codes;
    assert_eq!(
        codes().await.iter().map(|code| code.label.as_deref()).collect::<Vec<_>>(),
        [Some("黄码"), Some("绿码")]
    );
    let later = NOW.plus(RETENTION.evidence + Duration::from_secs(1));
    while desk.store.sweep(later, RETENTION).await.unwrap() > 0 {}
    assert_eq!(codes().await.iter().map(|code| code.label.as_deref()).collect::<Vec<_>>(), [Some("绿码")]);
    // Beneath what is set by hand the platform's word stays, however long.
    let by_hand = NewAssignment {
        document: document(1),
        label: "红码".into(),
        rule: "R-CASE".into(),
        authority: by("41/cdc"),
        justification: "looked into".into(),
        set_by: "41/operator/li".into(),
        now: later,
    };
    let request_1 = RequestKey { method: Method::SetCode, ..request("set-code-1", "") };
    desk.store.set_code(&request_1, &by_hand, &SystemRandom).await.unwrap();
    while desk.store.sweep(later.plus(RETENTION.evidence * 2), RETENTION).await.unwrap() > 0 {}
    let cleared = Cleared {
        document: document(1),
        justification: "a mistake".into(),
        cleared_by: "41/operator/li".into(),
        now: later,
    };
    let request_2 = RequestKey { method: Method::ClearCode, ..request("clear-code-1", "") };
    desk.store.clear_code(&request_2, &cleared, &desk.rules(), &SystemRandom).await.unwrap();
    assert_eq!(desk.label(1).await.as_deref(), Some("绿码"));
}

pub(super) async fn an_empty_batch_has_an_answer<S: Store>(store: S) {
    let desk = Desk::new(store);
    let before = desk.store.head().await.unwrap();
    let taken = desk.put_from(LAB, &[], NOW, false).await;
    assert_eq!((taken.verdicts.len(), taken.effect.head, taken.effect.changed), (0, before, 0));
    assert!(desk.push("push-0001", &[], NOW).await.unwrap().is_empty());
}

pub(super) async fn a_push_covers_what_was_there_when_it_was_decided<S: Store>(store: S) {
    let desk = Desk::new(store);
    desk.push("push-0001", &[pushed("p-1", "绿码", None, NOW.minus(HOUR))], NOW).await.unwrap();
    desk.bind("p-1", 1).await.unwrap();
    desk.put(&[test("a", 1, HOUR, true)]).await;
    assert_eq!(desk.label(1).await.as_deref(), Some("黄码"));
    // Decided before the test came, and late on its way: the test counts. Looked at anew after it: it does not, and the same word is news.
    let late = pushed("p-1", "绿码", None, NOW.minus(HOUR / 2));
    assert_eq!(desk.push("push-0002", &[late], NOW).await.unwrap(), [Assignment::Assigned]);
    assert_eq!(desk.label(1).await.as_deref(), Some("黄码"));
    let anew = pushed("p-1", "绿码", None, NOW);
    assert_eq!(desk.push("push-0003", std::slice::from_ref(&anew), NOW).await.unwrap(), [Assignment::Assigned]);
    assert_eq!(desk.label(1).await.as_deref(), Some("绿码"));
    assert_eq!(desk.push("push-0004", &[anew], NOW).await.unwrap(), [Assignment::Unchanged]);
    // Taken back, nothing of before comes back.
    let gone = PushedCode { code: None, ..pushed("p-1", "", None, NOW.plus(HOUR)) };
    assert_eq!(desk.push("push-0005", &[gone], NOW).await.unwrap(), [Assignment::Withdrawn]);
    let old = pushed("p-1", "红码", Some(("R-CASE", "41/cdc")), NOW);
    assert_eq!(desk.push("push-0006", &[old], NOW).await.unwrap(), [Assignment::Outdated]);
}

pub(super) async fn whom_feed_and_platform_know_is_one_when_a_device_says_so<S: Store>(store: S) {
    let desk = Desk::new(store);
    desk.put(&[test("a", 1, HOUR, false)]).await;
    let red = pushed("p-1", "红码", Some(("R-CASE", "41/cdc")), NOW);
    desk.push("push-0001", &[red, pushed("p-2", "绿码", None, NOW)], NOW).await.unwrap();
    let key = PersonKey::Reference(foreign("p-1"));
    desk.put(&[about("d", 0, key, Fact::Dose { number: 1, given_at: NOW.minus(DAY) })]).await;
    assert_eq!(desk.label(1).await.as_deref(), Some("绿码"));
    desk.bind("p-1", 1).await.unwrap();
    desk.settle(NOW).await;
    assert_eq!(desk.label(1).await.as_deref(), Some("红码"));
    let person = desk.store.person_by_document(&document(1)).await.unwrap().unwrap();
    let file = desk.store.person_file(person).await.unwrap();
    assert_eq!((file.evidence.len(), file.has_reference), (2, true));
    assert!(file.codes.iter().any(|code| code.justification.as_deref() == Some("file 7")), "it is sealed for them now");
    assert!(matches!(desk.bind("p-2", 1).await, Err(StoreError::ReferenceDiffers)));
}

pub(super) async fn a_correction_to_what_is_not_kept_makes_the_former_count_no_more<S: Store>(store: S) {
    let desk = Desk::new(store);
    desk.put(&[listing("l", 0, Risk::Medium, None), stay("s", 1, DAY)]).await;
    let elsewhere = Fact::Stay { area: 110_101, entered_at: NOW.minus(DAY * 2), left_at: NOW.minus(DAY) };
    let corrected = about("s", 1, of(1), elsewhere);
    assert_eq!(desk.put(std::slice::from_ref(&corrected)).await, [Filed::Corrected]);
    assert_eq!(desk.put(&[corrected]).await, [Filed::Unchanged]);
    assert_eq!(desk.label(1).await, None);
    let too_old = |id: &str, revision| Record { id: foreign(id), revision, content: Content::TooOld };
    desk.put(&[about("c", 0, of(2), Fact::Case { since: NOW.minus(DAY), ended_at: None })]).await;
    let verdicts = desk.put(&[too_old("c", 1), too_old("c", 1), too_old("new", 0)]).await;
    assert_eq!(verdicts, [Filed::Corrected, Filed::Unchanged, Filed::Refused(NotFiled::TooOld)]);
    assert_eq!(desk.label(2).await, None);
}

pub(super) async fn a_stay_whose_risk_rises_counts_beside_what_was_set<S: Store>(store: S) {
    let desk = Desk::new(store);
    desk.put(&[listing("l", 0, Risk::Low, None), stay("s", 1, DAY)]).await;
    let by_hand = NewAssignment {
        document: document(1),
        label: "绿码".into(),
        rule: "R-CLEAR".into(),
        authority: by("41/cdc"),
        justification: "looked into".into(),
        set_by: "41/operator/li".into(),
        now: NOW,
    };
    let request = RequestKey { method: Method::SetCode, ..request("set-code-1", "") };
    desk.store.set_code(&request, &by_hand, &SystemRandom).await.unwrap();
    assert_eq!(desk.label(1).await.as_deref(), Some("绿码"));
    desk.put(&[listing("m", 0, Risk::High, None)]).await;
    desk.settle(NOW).await;
    assert_eq!(desk.label(1).await.as_deref(), Some("红码"));
}

pub(super) async fn whoever_was_known_by_evidence_alone_is_forgotten_with_it<S: Store>(store: S) {
    let desk = Desk::new(store);
    desk.put(&[test("a", 1, HOUR, false), test("b", 2, HOUR, false)]).await;
    desk.push("push-0001", &[pushed("p-2", "绿码", None, NOW)], NOW).await.unwrap();
    desk.bind("p-2", 2).await.unwrap();
    let later = NOW.plus(RETENTION.evidence);
    while desk.store.sweep(later, RETENTION).await.unwrap() > 0 {}
    desk.settle(later).await;
    assert_eq!(desk.store.person_by_document(&document(1)).await.unwrap(), None);
    assert_eq!(desk.label(2).await.as_deref(), Some("绿码"));
}

pub(super) async fn one_source_crowds_out_no_other_and_an_area_has_so_many_listings<S: Store>(store: S) {
    let desk = Desk::new(store);
    let doses: Vec<_> = (0..MAX_EVIDENCE)
        .map(|n| about(&format!("d{n}"), 0, of(1), Fact::Dose { number: 1, given_at: NOW.minus(DAY) }))
        .collect();
    for batch in doses.chunks(500) {
        desk.put(batch).await;
    }
    let case = about("case", 0, of(1), Fact::Case { since: NOW.minus(DAY), ended_at: None });
    let taken = desk.put_from("41/feed/cdc-1", &[case], NOW, false).await;
    assert_eq!((taken.verdicts, desk.label(1).await.as_deref()), (vec![Filed::Accepted], Some("红码")));
    let listings: Vec<_> = (0..=MAX_LISTINGS).map(|n| listing(&format!("l{n}"), 0, Risk::Low, None)).collect();
    let verdicts = desk.put(&listings).await;
    assert_eq!(verdicts[MAX_LISTINGS - 1..], [Filed::Accepted, Filed::Refused(NotFiled::TooMuch)]);
    let corrected = listing("l0", 1, Risk::High, None);
    assert_eq!(desk.put(&[corrected]).await, [Filed::Corrected]);
}
