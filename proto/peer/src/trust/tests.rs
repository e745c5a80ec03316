//! What is taken from files and from a gateway, what is not, and what is left in place.

use std::{collections::BTreeMap, fs, time::Duration};

use proto::{
    envelope::MAX_LIFE,
    policy::NATIONAL,
    suite::{SigningKey, Suite},
    time::ManualClock,
    trust::{GatewayTrust, keys},
};
use tempfile::TempDir;

use super::*;

const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A program's files, the roots that sign them, and a clock.
struct Fixture {
    dir: TempDir,
    roots: Vec<SigningKey>,
    clock: Arc<ManualClock>,
    gateways: Vec<String>,
}

fn signers(keys: &[SigningKey]) -> Vec<&SigningKey> {
    keys.iter().collect()
}

fn two_of(keys: &[SigningKey]) -> Roots {
    Roots::new(2, keys.iter().map(|key| key.verifying_key().clone()).collect()).unwrap()
}

fn new_roots() -> Vec<SigningKey> {
    (0..2).map(|_| SigningKey::generate(Suite::Ed25519)).collect()
}

impl Fixture {
    /// With the first editions in its files, and a gateway to follow.
    fn new() -> Self {
        let clock = Arc::new(ManualClock::at(NOW));
        let gateways = vec!["127.0.0.1:7443".to_owned()];
        let fixture = Self { dir: tempfile::tempdir().unwrap(), roots: new_roots(), clock, gateways };
        fixture.write(&fixture.list(1), &fixture.policy(1));
        fixture
    }

    fn files(&self) -> TrustFiles {
        TrustFiles {
            list: self.dir.path().join("list"),
            policy: self.dir.path().join("policy"),
            roots: two_of(&self.roots),
            domain: "tongxing.test".parse().unwrap(),
            held: Some(self.dir.path().join("held")),
            crls: None,
            gateways: self.gateways.clone(),
        }
    }

    fn open(&self) -> Result<Arc<TrustStore>, TrustError> {
        TrustStore::open(self.files(), self.clock.clone())
    }

    fn write(&self, list: &[u8], policy: &[u8]) {
        fs::write(self.files().list, list).unwrap();
        fs::write(self.files().policy, policy).unwrap();
    }

    fn edition(&self, version: u64) -> Edition {
        let now = self.clock.now();
        Edition { version, issued_at: now, expires_at: now.plus(MAX_LIFE) }
    }

    fn list(&self, version: u64) -> Vec<u8> {
        self.list_of("tongxing.test", &self.roots, self.edition(version), &signers(&self.roots))
    }

    fn list_of(&self, domain: &str, roots: &[SigningKey], edition: Edition, by: &[&SigningKey]) -> Vec<u8> {
        let list = TrustList {
            domain: domain.parse().unwrap(),
            roots: two_of(roots),
            gateway: GatewayTrust { bundle: vec![vec![9]], log_keys: keys([]) },
            members: BTreeMap::new(),
        };
        list.seal(edition, by)
    }

    fn policy(&self, version: u64) -> Vec<u8> {
        Policy::seal(NATIONAL, self.edition(version), &signers(&self.roots))
    }
}

fn held(store: &TrustStore) -> (u64, u64) {
    (store.current().list_edition.version, store.current().policy_edition.version)
}

fn reason(taken: Result<bool, TrustError>) -> Reason {
    taken.expect_err("it is refused").refusal().expect("it is a refusal").reason()
}

#[test]
fn a_newer_edition_is_taken_from_a_gateway_and_told() {
    let fixture = Fixture::new();
    let store = fixture.open().unwrap();
    let mut changed = store.subscribe();
    assert!(store.offer(Some(fixture.list(2)), None).unwrap());
    assert_eq!((held(&store), store.current().generation), ((2, 1), 1));
    assert!(changed.has_changed().unwrap());
    changed.mark_unchanged();
    assert!(store.offer(None, Some(fixture.policy(3))).unwrap());
    assert!(store.offer(Some(fixture.list(4)), Some(fixture.policy(4))).unwrap());
    assert_eq!((held(&store), store.current().generation), ((4, 4), 3));
    // What is held already is neither new nor wrong.
    changed.mark_unchanged();
    assert!(!store.offer(Some(fixture.list(4)), Some(fixture.policy(4))).unwrap());
    assert!(!changed.has_changed().unwrap());
}

#[test]
fn what_is_refused_leaves_what_is_held() {
    let fixture = Fixture::new();
    let store = fixture.open().unwrap();
    store.offer(Some(fixture.list(5)), Some(fixture.policy(5))).unwrap();
    let strangers = new_roots();
    let of = |domain, edition, by: &[SigningKey]| fixture.list_of(domain, &fixture.roots, edition, &signers(by));
    let over = Edition { issued_at: NOW.minus(DAY), expires_at: NOW, ..fixture.edition(6) };
    let early = Edition { issued_at: NOW.plus(DAY), ..fixture.edition(6) };
    let other = Edition { expires_at: NOW.plus(DAY), ..fixture.edition(5) };
    let own = "tongxing.test";
    let renamed = fixture.list_of(own, &strangers, fixture.edition(6), &signers(&fixture.roots));
    let mut flipped = fixture.list(6);
    *flipped.last_mut().unwrap() ^= 1;
    for (name, list, refused) in [
        ("an older one", fixture.list(4), Reason::VersionRolledBack),
        ("another of the same version", of(own, other, &fixture.roots), Reason::VersionRolledBack),
        ("strangers'", of(own, fixture.edition(6), &strangers), Reason::ThresholdNotMet),
        ("one root's", of(own, fixture.edition(6), &fixture.roots[..1]), Reason::ThresholdNotMet),
        ("one whose new roots have not signed", renamed, Reason::ThresholdNotMet),
        ("an altered one", flipped, Reason::SignatureInvalid),
        ("another federation's", of("other.test", fixture.edition(6), &fixture.roots), Reason::ObjectMalformed),
        ("one that is over", of(own, over, &fixture.roots), Reason::Expired),
        ("one of tomorrow", of(own, early, &fixture.roots), Reason::NotYetValid),
        ("a policy", fixture.policy(6), Reason::TypeMismatch),
        ("noise", b"noise".to_vec(), Reason::NotCbor),
    ] {
        assert_eq!(reason(store.offer(Some(list), None)), refused, "{name}");
        assert_eq!(held(&store), (5, 5), "{name}");
    }
    let policy = |edition, by: &[SigningKey]| Policy::seal(NATIONAL, edition, &signers(by));
    for (name, policy, refused) in [
        ("an older one", fixture.policy(4), Reason::VersionRolledBack),
        ("another of the same version", policy(other, &fixture.roots), Reason::VersionRolledBack),
        ("strangers'", policy(fixture.edition(6), &strangers), Reason::ThresholdNotMet),
        ("one that is over", policy(over, &fixture.roots), Reason::Expired),
        ("no policy", Policy::seal("name = 1", fixture.edition(6), &signers(&fixture.roots)), Reason::ObjectMalformed),
    ] {
        assert_eq!(reason(store.offer(None, Some(policy))), refused, "{name}");
        assert_eq!(held(&store), (5, 5), "{name}");
    }
    assert_eq!(store.current().generation, 1, "a refusal counts as a change");
}

#[test]
fn one_of_two_is_taken_where_the_other_is_refused() {
    let fixture = Fixture::new();
    let store = fixture.open().unwrap();
    store.offer(Some(fixture.list(2)), Some(fixture.policy(2))).unwrap();
    let refused = store.offer(Some(fixture.list(1)), Some(fixture.policy(3)));
    assert_eq!((reason(refused), held(&store)), (Reason::VersionRolledBack, (2, 3)));
    let refused = store.offer(Some(fixture.list(4)), Some(fixture.policy(1)));
    assert_eq!((reason(refused), held(&store)), (Reason::VersionRolledBack, (4, 3)));
}

#[test]
fn new_roots_come_with_the_list_that_names_them_and_the_policy_that_they_sign() {
    let fixture = Fixture::new();
    let store = fixture.open().unwrap();
    let (old, new) = (&fixture.roots, new_roots());
    let both: Vec<_> = old.iter().chain(&new).collect();
    let list = fixture.list_of("tongxing.test", &new, fixture.edition(2), &both);
    let policy = Policy::seal(NATIONAL, fixture.edition(2), &signers(&new));
    // Either alone would leave a policy that nobody of the list has signed.
    assert_eq!(reason(store.offer(None, Some(policy.clone()))), Reason::ThresholdNotMet);
    let alone = store.offer(Some(list.clone()), None).unwrap_err();
    assert_eq!(alone.refusal().unwrap().metadata("object"), Some("policy"));
    assert_eq!(held(&store), (1, 1));
    assert!(store.offer(Some(list), Some(policy)).unwrap());
    assert_eq!(held(&store), (2, 2));
    // The old ones have no word any more, neither now nor after a restart.
    let theirs = fixture.list(3);
    assert_eq!(reason(store.offer(Some(theirs.clone()), None)), Reason::ThresholdNotMet);
    let store = fixture.open().unwrap();
    assert_eq!(held(&store), (2, 2));
    assert_eq!(reason(store.offer(Some(theirs), None)), Reason::ThresholdNotMet);
}

#[test]
fn what_has_expired_does_not_stand_in_the_way_of_what_is_new() {
    let fixture = Fixture::new();
    let store = fixture.open().unwrap();
    fixture.clock.advance(DAY * 10);
    assert!(store.usable().is_err());
    assert!(store.offer(None, Some(fixture.policy(2))).unwrap(), "it waits for a list that holds");
    assert!(store.usable().is_err(), "the list is over");
    assert!(store.offer(Some(fixture.list(2)), None).unwrap());
    assert!(store.usable().is_ok());
}

#[test]
fn the_newest_edition_counts_whichever_way_it_came() {
    let fixture = Fixture::new();
    let store = fixture.open().unwrap();
    store.offer(Some(fixture.list(3)), Some(fixture.policy(3))).unwrap();
    assert!(!store.reload().unwrap(), "older files are no news, and no alarm");
    fixture.write(&fixture.list(2), &fixture.policy(4));
    assert!(store.reload().unwrap());
    assert_eq!(held(&store), (3, 4));
    fixture.write(&fixture.list(5), &fixture.policy(2));
    assert!(store.reload().unwrap());
    assert_eq!(held(&store), (5, 4));
    // What is wrong with a file otherwise is said.
    let other = Edition { expires_at: NOW.plus(DAY), ..fixture.edition(5) };
    let same = fixture.list_of("tongxing.test", &fixture.roots, other, &signers(&fixture.roots));
    fixture.write(&same, &fixture.policy(4));
    assert_eq!(reason(store.reload()), Reason::VersionRolledBack);
    fixture.write(b"noise", &fixture.policy(4));
    assert_eq!(reason(store.reload()), Reason::NotCbor);
    assert_eq!(held(&store), (5, 4));
}

#[test]
fn what_a_gateway_told_stands_in_for_older_files_at_a_start() {
    let mut fixture = Fixture::new();
    fixture.open().unwrap().offer(Some(fixture.list(2)), Some(fixture.policy(3))).unwrap();
    assert_eq!(held(&fixture.open().unwrap()), (2, 3));
    fixture.write(&fixture.list(1), &fixture.policy(4));
    assert_eq!(held(&fixture.open().unwrap()), (2, 4), "a newer file wins");

    // Whoever follows no gateway has nobody to have heard of them from.
    let gateways = std::mem::take(&mut fixture.gateways);
    let alone = fixture.open().map(|_| true);
    assert_eq!(reason(alone), Reason::VersionRolledBack);
    fixture.gateways = gateways;

    // What is over stands in for nothing, not even for what is older and lives.
    fixture.clock.advance(DAY * 6);
    let list = fixture.list(1);
    fixture.clock.advance(DAY * 2);
    fixture.write(&list, &fixture.policy(5));
    assert_eq!(reason(fixture.open().map(|_| true)), Reason::VersionRolledBack);
}

#[test]
fn without_a_gateway_an_older_file_is_refused_while_running() {
    let mut fixture = Fixture::new();
    fixture.gateways.clear();
    fixture.write(&fixture.list(2), &fixture.policy(2));
    let store = fixture.open().unwrap();
    fixture.write(&fixture.list(1), &fixture.policy(3));
    assert_eq!(reason(store.reload()), Reason::VersionRolledBack);
    assert_eq!(held(&store), (2, 3), "the policy is not refused for the list's sake");
    fixture.write(&fixture.list(4), b"no policy");
    assert!(store.reload().is_err());
    assert_eq!(held(&store), (4, 3), "nor the list for the policy's");
}

#[test]
fn what_cannot_be_kept_counts_is_said_and_is_kept_later() {
    let fixture = Fixture::new();
    let store = fixture.open().unwrap();
    let kept = fixture.files().held.unwrap();
    fs::remove_dir_all(&kept).unwrap();
    fs::write(&kept, "no directory").unwrap();
    assert!(matches!(store.offer(Some(fixture.list(2)), None), Err(TrustError::File { .. })));
    assert_eq!(held(&store), (2, 1));
    assert!(matches!(store.reload(), Err(TrustError::File { .. })), "said again while it is so");
    fs::remove_file(&kept).unwrap();
    assert!(!store.reload().unwrap());
    drop(store);
    assert_eq!(held(&fixture.open().unwrap()), (2, 1));
}
