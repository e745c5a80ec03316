//! The stage of all tests: a whole federation in this process, over real mutual TLS, by a clock that stands still until it
//! is told to move.
//!
//! ```text
//! sandbox       federations: one that tests share, and ones of their own for those that stop nodes or move clocks
//! gateway       one more gateway at such a federation, with bounds, files or a clock of its own
//! node          a node that answers as a test says: hung, lying, somebody else's
//! documents     a node with trust files of its own, and a gateway that hands on whatever a test gives it
//! device        a phone whose every key and message the test can see
//! evidence      feeds and platforms: whoever says at home what codes follow from
//! forge         signed objects that nobody should believe
//! certificates  certificates that nobody should believe
//! wire          connections and messages that no client of ours would make
//! cases         bad requests at one station, and something good after each
//! want          what a refusal looks like to whoever called
//! log           every log line of this process
//! needles       the search for what must be nowhere
//! program       the gateway and a node as processes of their own
//! collector     whoever they export their traces and metrics to
//! ```

pub(crate) mod cases;
pub(crate) mod certificates;
pub(crate) mod collector;
pub(crate) mod device;
pub(crate) mod documents;
pub(crate) mod evidence;
pub(crate) mod forge;
pub(crate) mod gateway;
pub(crate) mod log;
pub(crate) mod needles;
pub(crate) mod node;
pub(crate) mod program;
pub(crate) mod want;
pub(crate) mod wire;

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use ::gateway::{
    documents::{GatewaySource, TrustSource, key_to_hex, read_root_key, sign_policy, sign_trust_list},
    record::LogTool,
};
use proto::{
    contract::recognition::{Outcome, RecognizeRequest, RecognizeResponse, freshness::Requirement},
    envelope::MAX_LIFE,
    member::Member,
    suite::SigningKey,
    terms::Purpose,
    time::{Clock as _, ManualClock, UnixTime},
    venue::VenueId,
};
use province_stub::seed::{self, Condition, SeededPerson};
use tempfile::TempDir;
use tongxing::{
    addresses::Ports,
    checkpoint::{Checkpoint, Seen},
    desk::Desk,
    federation::Federation,
    layout::Layout,
    options::PolicyName,
    phone::{Pass, Wish},
    prepare::Plan,
};

/// When every test begins: 2027-01-15T08:00:00Z.
pub(crate) const START: UnixTime = UnixTime::from_secs(1_800_000_000);

/// People seeded per member.
pub(crate) const PEOPLE: u32 = 200;

/// The members of the shared federation: every kind of label there is.
const MEMBERS: [&str; 9] = ["00", "11", "13", "41", "44", "51", "52", "64", "66"];

/// A running federation and who plays in it.
pub(crate) struct Sandbox {
    pub(crate) federation: Federation,
    pub(crate) desk: Desk,
    pub(crate) clock: Arc<ManualClock>,
    turns: Mutex<HashMap<(Member, Condition), usize>>,
    dir: Option<TempDir>,
}

/// A member by its code.
pub(crate) fn member(code: &str) -> Member {
    code.parse().expect("the test names a member")
}

/// A venue by its id.
pub(crate) fn venue(id: &str) -> VenueId {
    id.parse().expect("the test names a venue")
}

/// The federation that tests share: nobody stops a part of it, and its clock never moves.
pub(crate) fn shared() -> &'static Sandbox {
    static SHARED: OnceLock<Sandbox> = OnceLock::new();
    SHARED.get_or_init(|| {
        // It outlives the runtime of whichever test comes first.
        std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            let sandbox = runtime.block_on(Sandbox::open(&shared_dir(), &MEMBERS, PolicyName::National, None));
            std::mem::forget(runtime);
            sandbox
        })
        .join()
        .expect("the shared federation starts")
    })
}

/// A directory of this process' own. Nothing runs when a test binary ends, so the next run clears away what earlier ones
/// left: those whose lock nobody holds.
fn shared_dir() -> PathBuf {
    let base = Path::new(env!("CARGO_TARGET_TMPDIR")).join("federations");
    for left in fs::read_dir(&base).into_iter().flatten().flatten() {
        let lock = fs::File::open(left.path().join("lock"));
        if lock.is_ok_and(|lock| lock.try_lock().is_ok()) {
            fs::remove_dir_all(left.path()).expect("what an earlier run left can be removed");
        }
    }
    base.join(std::process::id().to_string())
}

/// Begins logs for [`gateway::OwnGateway`]s, and has their key in the trust list, which is made out of what its source said
/// before. Their logs are one another's doubles, so they never deliver.
fn spare_logs(layout: &Layout) {
    let key = LogTool::ensure_key(&spare_data(layout)).expect("logs begin");
    let source = TrustSource {
        domain: tongxing::layout::DOMAIN.to_owned(),
        threshold: 1,
        roots: Vec::new(),
        gateway: GatewaySource { bundle: PathBuf::new(), log_keys: vec![key_to_hex(&key)] },
        members: BTreeMap::new(),
    };
    fs::write(layout.trust_source(), toml::to_string(&source).unwrap()).unwrap();
}

/// Where the logs are that own gateways begin with.
pub(crate) fn spare_data(layout: &Layout) -> PathBuf {
    layout.dir().join("spare")
}

impl Sandbox {
    /// A federation of a test's own.
    pub(crate) async fn start(members: &[&str]) -> Self {
        Self::start_by(members, PolicyName::National).await
    }

    /// A federation of a test's own, under this policy.
    pub(crate) async fn start_by(members: &[&str], policy: PolicyName) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().to_owned();
        Self::open(&path, members, policy, Some(dir)).await
    }

    async fn open(path: &Path, members: &[&str], policy: PolicyName, dir: Option<TempDir>) -> Self {
        log::start();
        let members = members.iter().map(|code| (*code).to_owned()).collect();
        let plan = Plan { members, people: PEOPLE, gateways: 1, policy, ..Plan::default() };
        let clock = Arc::new(ManualClock::at(START));
        spare_logs(&Layout::new(path));
        let federation = Federation::start(&Layout::new(path), &plan, Ports::Any, clock.clone()).await;
        let federation = federation.expect("the federation starts");
        Self { desk: federation.desk().clone(), federation, clock, turns: Mutex::default(), dir }
    }

    /// Stops everything; the directory goes too.
    pub(crate) async fn stop(self) {
        self.federation.stop().await.expect("every part stops in time");
    }

    /// Stops everything and hands the directory over, to look into or to start in again.
    pub(crate) async fn stop_and_keep(self) -> Stopped {
        let plan = self.desk.prepared().plan.clone();
        let layout = self.desk.layout().clone();
        self.federation.stop().await.expect("every part stops in time");
        Stopped { plan, layout, clock: self.clock, dir: self.dir }
    }

    pub(crate) fn now(&self) -> UnixTime {
        self.clock.now()
    }

    pub(crate) fn layout(&self) -> &Layout {
        self.desk.layout()
    }

    /// The next seeded person in this condition: quotas are per traveler, so that tests take turns.
    pub(crate) fn person(&self, home: Member, condition: Condition) -> SeededPerson {
        let people = seed::people(home, PEOPLE, &self.desk.trust().policy);
        let mut people: Vec<_> = people.into_iter().filter(|person| person.condition == condition).collect();
        assert!(!people.is_empty(), "nobody seeded in {home} is {condition:?}");
        let mut turns = self.turns.lock().unwrap();
        let turn = turns.entry((home, condition)).or_default();
        *turn += 1;
        people.swap_remove((*turn - 1) % people.len())
    }

    /// A pass of somebody in this condition, as they wish.
    pub(crate) async fn pass(&self, home: Member, condition: Condition, wish: &Wish) -> Pass {
        self.pass_of(home, &self.person(home, condition), wish).await
    }

    /// A pass of a green traveler who consents to everything.
    pub(crate) async fn green(&self, home: Member) -> Pass {
        self.pass(home, Condition::Green, &Wish::default()).await
    }

    /// A pass of this person, on a phone of its own.
    pub(crate) async fn pass_of(&self, home: Member, person: &SeededPerson, wish: &Wish) -> Pass {
        let backend = self.desk.backend(home).expect("the backend has credentials");
        let phone = backend.enroll(person).await.expect("the phone enrols");
        phone.consent(wish, self.now()).await.expect("home issues a token")
    }

    /// A venue at the federation's own gateway.
    pub(crate) fn at(&self, venue: &VenueId) -> Checkpoint {
        self.desk.checkpoint(venue).expect("the venue has credentials")
    }

    /// Shows a pass at a venue whose code was scanned; there must be an answer.
    pub(crate) async fn show(&self, venue: &VenueId, pass: &Pass, purpose: Purpose) -> Seen {
        let shown = self.at(venue).show(&pass.present(Some(venue), self.now()), purpose).await;
        shown.expect("what the answer carries verifies").expect("there is an answer")
    }

    /// The same, at least as fresh as a change token.
    pub(crate) async fn show_after(&self, venue: &VenueId, pass: &Pass, purpose: Purpose, change: &[u8]) -> Seen {
        let fresh = Some(Requirement::AtLeastAsFresh(change.to_vec()));
        let shown = self.at(venue).show_as_fresh(&pass.present(Some(venue), self.now()), purpose, fresh).await;
        shown.expect("what the answer carries verifies").expect("there is an answer")
    }

    /// The request for a pass at a venue whose code was scanned.
    pub(crate) fn request(&self, venue: &VenueId, pass: &Pass) -> RecognizeRequest {
        Checkpoint::request(venue, &pass.present(Some(venue), self.now()), Purpose::Entry)
    }

    /// The trust list with a change to its source, signed by the roots; its path. Everybody else keeps the one there is.
    pub(crate) fn trust_list_with(&self, dir: &Path, change: impl FnOnce(&mut TrustSource)) -> PathBuf {
        let (source, out) = (dir.join("trust-list.toml"), dir.join("trust-list.cose"));
        let text = fs::read_to_string(self.layout().trust_source()).unwrap();
        let mut parsed: TrustSource = toml::from_str(&text).unwrap();
        let base = self.layout().dir();
        parsed.gateway.bundle = base.join(&parsed.gateway.bundle);
        for member in parsed.members.values_mut() {
            member.bundle = base.join(&member.bundle);
        }
        change(&mut parsed);
        fs::write(&source, toml::to_string(&parsed).unwrap()).unwrap();
        if !out.exists() {
            fs::copy(self.layout().trust_list(), &out).unwrap();
        }
        sign_trust_list(&source, &self.roots(), &out, self.now(), MAX_LIFE).expect("the roots sign");
        out
    }

    /// The policy with another text in one place, signed by the roots; its path. Everybody else keeps the one there is.
    pub(crate) fn policy_with(&self, dir: &Path, from: &str, to: &str) -> PathBuf {
        let (out, roots) = (dir.join("policy.cose"), self.roots());
        let toml = self.desk.prepared().plan.policy.toml();
        assert!(toml.contains(from), "the policy does not say {from}");
        if !out.exists() {
            fs::copy(self.layout().policy(), &out).unwrap();
        }
        let trusted = &self.desk.trust().list.roots;
        let toml = toml.replacen(from, to, 1);
        sign_policy(&toml, &roots, trusted, &out, self.now(), MAX_LIFE).expect("the roots sign");
        out
    }

    /// The private keys of the roots.
    pub(crate) fn roots(&self) -> Vec<SigningKey> {
        (1..=3).map(|number| read_root_key(&self.layout().root(number)).unwrap()).collect()
    }
}

/// A directory in which a federation ran.
pub(crate) struct Stopped {
    pub(crate) layout: Layout,
    pub(crate) clock: Arc<ManualClock>,
    plan: Plan,
    dir: Option<TempDir>,
}

impl Stopped {
    /// Starts it again.
    pub(crate) async fn start(self) -> Sandbox {
        let federation = Federation::start(&self.layout, &self.plan, Ports::Any, self.clock.clone()).await;
        let federation = federation.expect("the federation starts again");
        let desk = federation.desk().clone();
        Sandbox { federation, desk, clock: self.clock, turns: Mutex::default(), dir: self.dir }
    }
}

/// Asserts that a good request still gets a status here: a refusal harms nobody but its own call.
pub(crate) async fn still_serves(checkpoint: &Checkpoint, good: &RecognizeRequest, after: &str) {
    // A first handshake on a busy machine may take home longer than it has.
    for _ in 0..5 {
        match answer_after(checkpoint, good, after).await.outcome() {
            Outcome::HomeUnreachable => {}
            outcome => {
                return assert_eq!(outcome, Outcome::Status, "after {after} a good request gets another outcome");
            }
        }
    }
    panic!("after {after} home is unreachable");
}

/// The answer to a good request; a refusal is none.
pub(crate) async fn answer_after(checkpoint: &Checkpoint, good: &RecognizeRequest, after: &str) -> RecognizeResponse {
    let answer = checkpoint.send(good.clone()).await;
    answer.unwrap_or_else(|status| panic!("after {after} a good request is refused: {status:?}"))
}

/// Waits until something holds, looking again every few milliseconds: for files and counters, which tell nobody.
pub(crate) async fn until(what: &str, within: Duration, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + within;
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Labels and values of one metric on a private listener.
pub(crate) async fn metric(private: &str, name: &str) -> BTreeMap<String, f64> {
    let text = wire::get(private, "/metrics").await;
    let lines = text.lines().filter(|line| line.starts_with(name) && !line.starts_with('#'));
    let read = |line: &str| {
        let (labels, value) = line[name.len()..].rsplit_once(' ')?;
        Some((labels.to_owned(), value.parse().ok()?))
    };
    lines.filter_map(read).collect()
}
