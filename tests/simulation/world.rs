//! The federation that every seed begins with: keys, certificates, trust and people, prepared once a process; a seed has its
//! own copy of what its programs write.
//!
//! Members are 44, whose two endpoints run, and 11, which only lends venues. Both endpoints are the same node to the trust
//! list: one certificate, one set of keys.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::{Context as _, Result};
use gateway::{
    config::Config as GatewayConfig,
    documents::{self, TrustSource},
};
use peer::{files::create_private_dir, surroundings::Surroundings};
use proto::{
    envelope::MAX_LIFE,
    member::Member,
    presentation::Presentation,
    suite::{SigningKey, Suite},
    terms::{Purposes, Scope},
    time::{ManualClock, UnixTime},
    token::{Audience, Cti},
    venue::VenueId,
};
use province_stub::{
    config::Config as NodeConfig,
    seed::SeededPerson,
    server::{Handle, Node},
    standing::StandingConsent,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tongxing::{
    addresses::{Addresses, Pair},
    layout::Layout,
    options::PolicyName,
    phone::Pass,
    prepare::{Plan, prepare},
};

use crate::history::Value;

/// When every simulation begins: 2027-01-15T08:00:00Z.
pub(crate) const START: UnixTime = UnixTime::from_secs(1_800_000_000);
/// Certificates, trust list and policy are a little older, so that a clock that is behind has no trouble with them.
const PREPARED: UnixTime = UnixTime::from_secs(1_800_000_000 - 3_600);

/// The member that answers.
pub(crate) const HOME: &str = "44";
/// Where everybody listens; [`crate::network`] says on which host that is.
pub(crate) const GATEWAYS: [u16; 2] = [7443, 7444];
pub(crate) const NODES: [u16; 2] = [7500, 7600];
/// Added to a port for the same program's private listener.
const PRIVATE: u16 = 1000;

/// Venues that ask: two whose grants are the same, and one that may see more.
pub(crate) const VENUES: [&str; 3] = ["11/station/beijing-west", "11/airport/capital", "44/hospital/zhongshan-first"];

/// People seeded at home: the last of them for bursts of events.
const PEOPLE: u32 = 9;
/// Who has more than one token.
const TWO_TOKENS: [usize; 3] = [0, 2, 6];
/// How many tokens the person for bursts has: what a traveler may have at most.
const BURST_TOKENS: usize = 16;

/// The prepared federation.
pub(crate) struct Template {
    _dir: TempDir,
    /// Where its files are.
    pub(crate) layout: Layout,
    /// Who shows what.
    pub(crate) roster: Arc<Roster>,
}

/// People and their tokens at the beginning.
pub(crate) struct Roster {
    /// In the order of the seeded people.
    pub(crate) people: Vec<Traveler>,
    /// Tokens that are shown.
    pub(crate) shown: Vec<Arc<Shown>>,
    /// Their handles.
    pub(crate) handles: Vec<Cti>,
}

/// A person.
pub(crate) struct Traveler {
    /// As home seeded them.
    pub(crate) person: SeededPerson,
    /// What their code comes to at first.
    pub(crate) value: Value,
}

/// A token that is shown at venues.
pub(crate) struct Shown {
    /// Whose, by their place among the people.
    pub(crate) person: usize,
    /// With a proof for each venue, in the order of [`VENUES`].
    pub(crate) presentations: Vec<Presentation>,
    /// The token.
    pub(crate) pass: Pass,
}

impl Roster {
    /// The person whose changes are many events.
    pub(crate) fn burst(&self) -> usize {
        self.people.len() - 1
    }
}

/// The prepared federation, and the runtime on which stores do their work.
pub(crate) fn template() -> &'static Template {
    static TEMPLATE: OnceLock<Template> = OnceLock::new();
    TEMPLATE.get_or_init(|| Template::make().expect("a federation is prepared"))
}

/// Threads of the real world, for what waits for a disk.
pub(crate) fn real() -> &'static Runtime {
    static REAL: OnceLock<Runtime> = OnceLock::new();
    REAL.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
    })
}

/// The member that answers.
pub(crate) fn home() -> Member {
    HOME.parse().expect("a member")
}

/// The venues that ask.
pub(crate) fn venues() -> [VenueId; 3] {
    VENUES.map(|venue| venue.parse().expect("a venue"))
}

/// A directory in memory where there is one: nothing here has to survive a power cut.
pub(crate) fn scratch() -> Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    dir.context("a temporary directory")
}

/// A program's public address.
pub(crate) fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

impl Template {
    fn make() -> Result<Self> {
        let dir = scratch()?;
        let layout = Layout::new(dir.path().join("federation"));
        fs::create_dir(layout.dir())?;
        let pair = |port: u16| Pair { public: address(port), private: ([127, 0, 0, 1], port + PRIVATE).into() };
        let addresses = Addresses {
            gateways: GATEWAYS.map(pair).into(),
            nodes: [("11".to_owned(), pair(7501)), (HOME.to_owned(), pair(NODES[0]))].into(),
        };
        let plan = Plan {
            members: vec!["11".into(), HOME.into()],
            people: PEOPLE,
            gateways: 2,
            policy: PolicyName::National,
            external: BTreeMap::new(),
        };
        prepare(&layout, &plan, &addresses, PREPARED)?;
        add_endpoint(&layout)?;
        let roster = Arc::new(real().block_on(enroll(&layout))?);
        Ok(Self { _dir: dir, layout, roster })
    }

    /// A gateway as it is configured, writing below `dir`.
    pub(crate) fn gateway(&self, replica: usize, dir: &Path) -> Result<GatewayConfig> {
        let mut config = GatewayConfig::read(&self.layout.gateway(replica).join("gateway.toml"))?;
        config.data_dir = dir.join(format!("gateway-{replica}"));
        // The trust list has the key of the logs that were prepared.
        if !config.data_dir.exists() {
            create_private_dir(&config.data_dir)?;
            fs::copy(self.layout.gateway(replica).join("data/record.redb"), config.data_dir.join("record.redb"))?;
        }
        config.trust.held = None;
        // Answers that come late are seen; files do not change, and looking at them would take a thread.
        config.limits.server.max_duration = Duration::from_secs(5);
        config.limits.server.reload_every = Duration::from_secs(3600);
        Ok(config)
    }

    /// One of home's endpoints as it is configured, writing below `dir`.
    pub(crate) fn node(&self, endpoint: usize, dir: &Path) -> Result<NodeConfig> {
        let mut config = NodeConfig::read(&self.layout.node(home()).join("node.toml"))?;
        config.data_dir = dir.join("node");
        config.trust.held = None;
        // The trust list stays as it is: nobody has to hear of another.
        config.trust.gateways.clear();
        config.listen = address(NODES[endpoint]).parse()?;
        config.limits.reload_every = Duration::from_secs(3600);
        Ok(config)
    }

    /// Copies home's store as it was seeded below `dir`.
    pub(crate) fn copy_store(&self, dir: &Path) -> Result<PathBuf> {
        let copy = dir.join("node");
        fs::create_dir(&copy)?;
        fs::copy(self.layout.node(home()).join("data/node.db"), copy.join("node.db"))?;
        Ok(copy)
    }
}

/// Has the trust list say that home has a second endpoint.
fn add_endpoint(layout: &Layout) -> Result<()> {
    let mut source: TrustSource = toml::from_str(&fs::read_to_string(layout.trust_source())?)?;
    let member = source.members.get_mut(HOME).context("home is a member")?;
    member.endpoints.push(address(NODES[1]));
    fs::write(layout.trust_source(), toml::to_string(&source)?)?;
    let roots: Vec<_> = (1..=3).map(|root| documents::read_root_key(&layout.root(root))).collect::<Result<_>>()?;
    documents::sign_trust_list(&layout.trust_source(), &roots, &layout.trust_list(), PREPARED, MAX_LIFE)?;
    Ok(())
}

/// Seeds people at home and issues their tokens.
async fn enroll(layout: &Layout) -> Result<Roster> {
    let config = NodeConfig::read(&layout.node(home()).join("node.toml"))?;
    let node = Node::open(config, Surroundings::by(Arc::new(ManualClock::at(START)))).await?;
    let handle = node.handle();
    let people = handle.seed(PEOPLE).await?;
    let (mut shown, mut handles) = (Vec::new(), Vec::new());
    for (index, person) in people.iter().enumerate() {
        let tokens = match index {
            _ if index + 1 == people.len() => BURST_TOKENS,
            _ if TWO_TOKENS.contains(&index) => 2,
            _ => 1,
        };
        let passes = issue(&handle, person, tokens).await?;
        // Of the many tokens that make a burst one is enough to look at.
        let seen = if tokens == BURST_TOKENS { 1 } else { tokens };
        for (cti, pass) in passes.into_iter().take(seen) {
            shown.push(Arc::new(Shown::new(index, pass, START)));
            handles.push(cti);
        }
    }
    node.close().await;
    let people = people.into_iter().map(|person| Traveler { value: Value::seeded(&person), person }).collect();
    Ok(Roster { people, shown, handles })
}

async fn issue(handle: &Handle, person: &SeededPerson, count: usize) -> Result<Vec<(Cti, Pass)>> {
    let keys: Vec<_> = (0..count).map(|_| SigningKey::generate(Suite::Esp256)).collect();
    let consent = |key: &SigningKey| StandingConsent {
        document: person.document.clone(),
        audience: Audience::Anywhere,
        purposes: Purposes::ALL,
        scope: Scope::ALL,
        life: Duration::from_secs(3600),
        token_key: Some(key.verifying_key().clone()),
    };
    let issued = handle.issue_standing(keys.iter().map(consent).collect()).await?;
    let pass = |(issued, key): (province_stub::issuance::Issued, SigningKey)| {
        Ok((issued.cti, Pass::new(issued.token, Some(key), issued.hint_key, issued.expires_at)?))
    };
    issued.into_iter().zip(keys).map(pass).collect()
}

impl Shown {
    /// A pass with its proofs, which live longer than a simulation.
    pub(crate) fn new(person: usize, pass: Pass, now: UnixTime) -> Self {
        let presentations = venues().iter().map(|venue| pass.present(Some(venue), now)).collect();
        Self { person, presentations, pass }
    }
}
