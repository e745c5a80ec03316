//! Whoever can be played around the node under test, from a directory that `tongxing init` made: its CAs, certificates,
//! trust list and policy. What the directory has not, a case is skipped for.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use gateway::pki::{Authority, LEAF_LIFE};
use peer::{
    dial::{self, DialLimits},
    trust::Trust,
    verifier::Expected,
};
use proto::{
    identity::{PeerId, Realm},
    member::Member,
    policy::Meaning,
    statement::LogHead,
    suite::{SigningKey, Suite},
    terms::Level,
    time::{Clock as _, SystemClock, UnixTime},
};
use province_stub::keys::KeyFiles;
use serde::Deserialize;
use tempfile::TempDir;
use tongxing::{desk::Desk, layout::Layout, venues};
use tonic::transport::Channel;

use super::{log::KitLog, person::Person, stage::Miss, steps::Property};
use crate::{
    certificates::{certify, certify_names},
    wire::{self, Shown},
};

/// Bytes of a stream that are sent and not read, where little is to be sent: an opening and a few echoes.
const NARROW_WINDOW: u32 = 256;

/// Who calls a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Party {
    /// The national gateway.
    #[default]
    Gateway,
    /// The member's backend.
    Backend,
    /// The member's operator.
    Operator,
    /// A venue of the member.
    Venue,
    /// A node of the member.
    Node,
    /// A feed of the member.
    Feed,
    /// Another member's backend.
    OtherBackend,
    /// Another member's operator.
    OtherOperator,
    /// Another member's node.
    OtherNode,
}

/// Who is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stranger {
    /// Speaks HTTP/2 without TLS.
    NoTls,
    /// Shows no certificate.
    NoCertificate,
    /// Two URI names.
    TwoNames,
    /// No URI name.
    NoName,
    /// A name of another federation.
    OtherFederation,
    /// A URI that is no SPIFFE id.
    NotSpiffe,
    /// A role that is none.
    UnknownRole,
    /// A member that is none.
    UnknownMember,
    /// The gateway, as the member's own CA would have it.
    GatewayByMember,
    /// The member's backend, as another member's CA would have it.
    BackendByOther,
    /// The member's backend, by a CA with the name of the member's and another key.
    BackendByNamesake,
    /// The gateway, with a certificate that has ended.
    Expired,
    /// The gateway, with a certificate that has not begun.
    NotYetValid,
}

/// What to test, and from where.
#[derive(Clone, Debug)]
pub struct Options {
    /// The node, `host:port`.
    pub node: String,
    /// Its member.
    pub member: Member,
    /// The federation's directory.
    pub dir: PathBuf,
    /// Somebody whom the node knows, with evidence of every kind.
    pub known: Option<Known>,
}

/// Who is known to the node already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// The people that `province-stub` seeds, and as many.
    Seeded,
    /// Somebody by their resident ID's number and their name.
    Named {
        /// The number.
        number: String,
        /// The name.
        name: String,
    },
}

/// Everybody around one node.
#[derive(Debug)]
pub struct World {
    desk: Desk,
    node: String,
    member: Member,
    other: Member,
    consent_key: Option<SigningKey>,
    known: Vec<Person>,
    /// The kit's own access log, or why there is none.
    log: Result<Mutex<KitLog>, String>,
    made: TempDir,
    channels: Mutex<HashMap<Party, Channel>>,
    head: Mutex<Option<LogHead>>,
    faults: Mutex<BTreeMap<Property, Vec<String>>>,
}

impl World {
    /// Opens a directory.
    ///
    /// # Errors
    /// If it is not prepared, or not for this member.
    pub fn open(options: &Options) -> Result<Self> {
        let layout = Layout::new(&options.dir);
        let desk = Desk::open(&layout, Arc::new(SystemClock))?;
        let member = options.member;
        if !desk.trust().list.members.contains_key(&member) {
            bail!("the trust list of {} has no member {member}", options.dir.display());
        }
        let (host, port) = options.node.rsplit_once(':').context("--node is HOST:PORT")?;
        if host.is_empty() || port.parse::<u16>().is_err() {
            bail!("--node is HOST:PORT, not {}", options.node);
        }
        let members = desk.prepared().plan.members()?;
        let neighbour = |other: &Member| *other != member && *other != Member::PLATFORM;
        let other = members.iter().copied().find(neighbour).or_else(|| Member::all().find(neighbour));
        let known = match &options.known {
            None => Vec::new(),
            Some(Known::Named { number, name }) => vec![Person::named(number, name)],
            Some(Known::Seeded) => Person::seeded(member, desk.prepared().plan.people, &desk.trust().policy),
        };
        Ok(Self {
            consent_key: consent_key(&KeyFiles::under(&layout.node(member)).consent),
            log: KitLog::open(&layout.kit_log_key(), layout.kit_log(member))
                .map(Mutex::new)
                .map_err(|error| format!("{error:#}")),
            desk,
            node: options.node.clone(),
            member,
            other: other.context("there are 33 members")?,
            known,
            made: tempfile::tempdir()?,
            channels: Mutex::default(),
            head: Mutex::default(),
            faults: Mutex::default(),
        })
    }

    /// The node's address.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The node's member.
    pub fn member(&self) -> Member {
        self.member
    }

    /// Trust list and policy.
    pub(super) fn trust(&self) -> Arc<Trust> {
        self.desk.trust()
    }

    /// The kit's own access log; without its key in the directory a case is skipped.
    pub(super) fn log(&self) -> Result<MutexGuard<'_, KitLog>, Miss> {
        let log =
            self.log.as_ref().map_err(|why| Miss::skipped(format!("the directory has no log of the kit's: {why}")))?;
        Ok(log.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn now(&self) -> UnixTime {
        SystemClock.now()
    }

    /// The member's consent key, if the directory has it.
    pub(super) fn consent_key(&self) -> Option<&SigningKey> {
        self.consent_key.as_ref()
    }

    /// People with evidence, one of whom will do.
    pub(super) fn known(&self) -> &[Person] {
        &self.known
    }

    /// Another member's code; not the platform's, whose authorities may decide everywhere.
    pub(super) fn other_code(&self) -> Member {
        self.other
    }

    /// What HOME and OTHER stand for.
    pub(super) fn fill(&self, text: &str) -> String {
        text.replace("HOME", &self.member.to_string()).replace("OTHER", &self.other.to_string())
    }

    /// The member's own word where a case says `green` or `red`.
    pub(super) fn label(&self, word: &str) -> String {
        let level = match word {
            "green" => Level::Green,
            "red" => Level::Red,
            literal => return literal.to_owned(),
        };
        let trust = self.trust();
        let label = trust.policy.labels_meaning(self.member, Meaning::Level(level)).next();
        label.unwrap_or(word).to_owned()
    }

    /// Keeps where the change log stood; it never goes back.
    pub(super) fn observe(&self, head: LogHead) -> Result<(), String> {
        let mut last = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        match last.replace(head) {
            Some(before) if before.epoch != head.epoch => {
                Err("another epoch than before: it is new only after a restore".into())
            }
            Some(before) if before.seq > head.seq => {
                Err(format!("the change log at {}, after it was at {}", head.seq, before.seq))
            }
            _ => Ok(()),
        }
    }

    /// Keeps what was wrong with a statement of a case.
    pub(super) fn keep(&self, case: &str, faults: Vec<(Property, String)>) {
        let mut kept = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        for (property, fault) in faults {
            kept.entry(property).or_default().push(format!("{case}: {fault}"));
        }
    }

    /// What was wrong with statements so far: how many of them, and the first.
    pub(super) fn faulty(&self, property: Property) -> Option<(usize, String)> {
        let kept = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let faults = kept.get(&property)?;
        Some((faults.len(), faults.first()?.clone()))
    }

    /// A channel by which somebody calls the node, which has to be the member's.
    pub(super) fn channel(&self, party: Party) -> Result<Channel, Miss> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(&party) {
            return Ok(channel.clone());
        }
        let credentials = self.credentials(party).map_err(|error| Miss::skipped(format!("{error:#}")))?;
        let dialled = || {
            let standing = self.desk.standing(&credentials)?;
            let limits = DialLimits { connect_timeout: Duration::from_secs(3), ..DialLimits::default() };
            Ok::<_, anyhow::Error>(dial::channel(&standing, &self.node, Expected::NodeOf(self.member), limits)?)
        };
        let channel = dialled().map_err(|error| Miss::skipped(format!("{error:#}")))?;
        channels.insert(party, channel.clone());
        Ok(channel)
    }

    /// A channel of the gateway's by which the node can send a few hundred bytes of a stream before they are read.
    pub(super) fn narrow(&self) -> Result<Channel, Miss> {
        let shown = self.credentials(Party::Gateway).and_then(|dir| Ok(Shown::open(&dir)?));
        let shown = shown.map_err(|error| Miss::skipped(format!("{error:#}")))?;
        Ok(wire::narrow(&self.node, Some(&shown), NARROW_WINDOW))
    }

    /// The directory with a party's certificate and key.
    fn credentials(&self, party: Party) -> Result<PathBuf> {
        let (layout, member, other) = (self.desk.layout(), self.member, self.other);
        let dir = match party {
            Party::Gateway => layout.gateway(1),
            Party::Backend => layout.backend(member),
            Party::Operator => layout.operator(member),
            Party::Node => layout.node(member),
            Party::OtherBackend => layout.backend(other),
            Party::OtherOperator => layout.operator(other),
            Party::OtherNode => layout.node(other),
            Party::Venue => {
                layout.venue(venues::of(&[member]).first().context("the directory has no venue of this member")?)
            }
            Party::Feed => {
                let feed = layout.domain().parse_spiffe_id(&self.name(member, "feed/lab-1"))?;
                self.certify(&feed, Realm::Member(member), self.now(), LEAF_LIFE)?
            }
        };
        if !dir.join("cert.pem").exists() {
            bail!("the directory has no {}", dir.display());
        }
        Ok(dir)
    }

    /// What a stranger shows; `None` is nothing.
    pub(super) fn stranger(&self, stranger: Stranger) -> Result<Option<Shown>, Miss> {
        self.show(stranger).map_err(|error| Miss::skipped(format!("{error:#}")))
    }

    fn show(&self, stranger: Stranger) -> Result<Option<Shown>> {
        let (layout, member, now) = (self.desk.layout(), self.member, self.now());
        let (own, hour) = (Realm::Member(member), Duration::from_secs(3600));
        let named = |names: &[&str]| certify_names(layout, names, own, now).map(Some);
        let by = |peer: Option<PeerId>, realm, from, life| {
            let dir = self.certify(&peer.context("a name is one")?, realm, from, life)?;
            Ok(Some(Shown::open(&dir)?))
        };
        let gateway = || PeerId::gateway("1");
        let backend = || PeerId::backend(member, "app");
        match stranger {
            Stranger::NoTls | Stranger::NoCertificate => Ok(None),
            Stranger::TwoNames => named(&[&self.name(member, "backend/app"), &self.name(member, "backend/other")]),
            Stranger::NoName => named(&[]),
            Stranger::OtherFederation => named(&[&format!("spiffe://{member}.elsewhere.test/backend/app")]),
            Stranger::NotSpiffe => named(&[&format!("https://{member}.{}/backend/app", layout.domain())]),
            Stranger::UnknownRole => named(&[&self.name(member, "king/1")]),
            Stranger::UnknownMember => named(&[&format!("spiffe://99.{}/backend/app", layout.domain())]),
            Stranger::GatewayByMember => by(gateway(), own, now, LEAF_LIFE),
            Stranger::BackendByOther => by(backend(), Realm::Member(self.other), now, LEAF_LIFE),
            Stranger::BackendByNamesake => {
                let namesake = Authority::create(own, &layout.domain(), now)?;
                let dir = self.made.path().join("namesake");
                namesake.issue(&backend().context("a name is one")?, &[], now, LEAF_LIFE)?.write(&dir)?;
                Ok(Some(Shown::open(&dir)?))
            }
            Stranger::Expired => by(gateway(), Realm::Gateway, now.minus(2 * hour), hour),
            Stranger::NotYetValid => by(gateway(), Realm::Gateway, now.plus(2 * hour), hour),
        }
    }

    fn certify(&self, peer: &PeerId, by: Realm, from: UnixTime, life: Duration) -> Result<PathBuf> {
        let dir = self.made.path().join(from.as_secs().to_string());
        certify(self.desk.layout(), peer, by, &dir, from, life)
    }

    fn name(&self, member: Member, rest: &str) -> String {
        format!("spiffe://{member}.{}/{rest}", self.desk.layout().domain())
    }
}

/// A key that is not there, or that is nobody's to read, is none.
fn consent_key(path: &Path) -> Option<SigningKey> {
    SigningKey::from_pkcs8(Suite::Ed25519, &std::fs::read(path).ok()?).ok()
}
