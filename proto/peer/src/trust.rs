//! The trust list and the policy a program holds: read from files, verified, replaced while running.
//!
//! An older edition than the one held is refused, also after a restart: what was accepted is kept in the data directory.
//! What has expired is worth nothing: [`TrustStore::usable`] fails closed.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use proto::{
    envelope::{EXPIRY_ALARM, Edition, Roots},
    identity::FederationDomain,
    policy::Policy,
    refusal::{Object, Reason, Refusal},
    time::{Clock, UnixTime},
    trust::TrustList,
};
use thiserror::Error;
use tokio::sync::watch;

use crate::{files, revocation::Revocations};

/// Where the documents are and by whom they must be signed.
#[derive(Clone, Debug)]
pub struct TrustFiles {
    /// The trust list.
    pub list: PathBuf,
    /// The policy.
    pub policy: PathBuf,
    /// The root keys pinned in configuration.
    pub roots: Roots,
    /// The federation's domain; a list of another federation is refused.
    pub domain: FederationDomain,
    /// Where accepted editions are kept; this program's own directory. `None` keeps nothing.
    pub held: Option<PathBuf>,
    /// The directory with the CAs' revocation lists. `None` revokes nothing.
    pub crls: Option<PathBuf>,
}

/// One consistent pair of trust list and policy.
#[derive(Clone, Debug)]
pub struct Trust {
    /// The trust list.
    pub list: TrustList,
    /// Its edition.
    pub list_edition: Edition,
    /// The policy.
    pub policy: Policy,
    /// Its edition.
    pub policy_edition: Edition,
    /// The certificates that CAs have taken back.
    pub revocations: Revocations,
    /// Both as they were read and verified.
    bytes: (Vec<u8>, Vec<u8>),
    /// Rises whenever either is replaced. What was verified under another generation is verified anew.
    pub generation: u64,
}

/// Why there is no trust to work with.
#[derive(Debug, Error)]
pub enum TrustError {
    /// A file does not read or write.
    #[error("{path}: {error}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A document is refused.
    #[error("{path}: {refusal}; make a new one with `gateway trust-list sign` or `gateway policy sign`", path = path.display())]
    Refused {
        /// Which.
        path: PathBuf,
        /// Why.
        refusal: Refusal,
    },
}

/// The trust a program holds. Cheap to read, replaced as a whole.
#[derive(Debug)]
pub struct TrustStore {
    files: TrustFiles,
    clock: Arc<dyn Clock>,
    current: ArcSwap<Trust>,
    changed: watch::Sender<u64>,
}

impl TrustStore {
    /// Reads and verifies both documents.
    pub fn open(files: TrustFiles, clock: Arc<dyn Clock>) -> Result<Arc<Self>, TrustError> {
        let held = match &files.held {
            Some(dir) => read_held(dir, &files)?,
            None => None,
        };
        let trust = read(&files, held.as_ref(), 0, clock.now())?;
        keep(&files, &trust)?;
        let (changed, _) = watch::channel(trust.generation);
        Ok(Arc::new(Self { files, clock, current: ArcSwap::from_pointee(trust), changed }))
    }

    /// What is held, expired or not.
    pub fn current(&self) -> Arc<Trust> {
        self.current.load_full()
    }

    /// What is held, if it still holds.
    pub fn usable(&self) -> Result<Arc<Trust>, Refusal> {
        let trust = self.current();
        let now = self.clock.now();
        if now >= trust.expires_at() { Err(Refusal::new(Reason::TrustExpired)) } else { Ok(trust) }
    }

    /// Reads the files again; whatever is refused leaves what is held in place. Returns whether anything was replaced.
    pub fn reload(&self) -> Result<bool, TrustError> {
        let held = self.current();
        let (generation, now) = (held.generation + 1, self.clock.now());
        let trust = match read(&self.files, Some(&Held::from(&*held)), generation, now) {
            Ok(trust) => trust,
            Err(error) => {
                // What a CA has taken back does not wait for a document that is refused.
                let dir = self.files.crls.as_deref();
                let revocations = Revocations::read(dir, &held.revocations, &held.list, now);
                if revocations != held.revocations {
                    self.replace(Trust { revocations, generation, ..Trust::clone(&held) });
                }
                return Err(error);
            }
        };
        if trust.bytes == held.bytes && trust.revocations == held.revocations {
            return Ok(false);
        }
        if trust.bytes == held.bytes {
            // Nor for a disk that takes nothing: an older list could then come back after a restart, and is said.
            self.replace(trust.clone());
            return keep(&self.files, &trust).map(|()| true);
        }
        keep(&self.files, &trust)?;
        self.replace(trust);
        Ok(true)
    }

    fn replace(&self, trust: Trust) {
        let generation = trust.generation;
        self.current.store(Arc::new(trust));
        self.changed.send_replace(generation);
    }

    /// Tells of every replacement.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The federation's domain.
    pub fn domain(&self) -> &FederationDomain {
        &self.files.domain
    }

    /// The clock that documents and certificates are judged by.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }
}

impl Trust {
    /// The signed trust list, as it was read.
    pub fn list_bytes(&self) -> &[u8] {
        &self.bytes.0
    }

    /// The signed policy, as it was read.
    pub fn policy_bytes(&self) -> &[u8] {
        &self.bytes.1
    }

    /// When the first of the two documents ends.
    pub fn expires_at(&self) -> UnixTime {
        self.list_edition.expires_at.min(self.policy_edition.expires_at)
    }

    /// Whether it is time to renew loudly.
    pub fn expires_soon(&self, now: UnixTime) -> bool {
        now.plus(EXPIRY_ALARM) >= self.expires_at()
    }
}

fn read(files: &TrustFiles, held: Option<&Held>, generation: u64, now: UnixTime) -> Result<Trust, TrustError> {
    let (list_bytes, list_edition, list) = read_document(&files.list, Object::TrustList, now, |bytes| {
        // The list held says who may sign the next: roots that it retired have no word any more, pinned or not.
        let (edition, list) = TrustList::open(bytes, held.map_or(&files.roots, |held| &held.roots))?;
        if list.domain != files.domain {
            return Err(Refusal::malformed(Object::TrustList, "it is of another federation"));
        }
        check_version(Object::TrustList, edition, bytes, held.map(|held| &held.list))?;
        Ok((edition, list))
    })?;
    let (policy_bytes, policy_edition, policy) = read_document(&files.policy, Object::Policy, now, |bytes| {
        let (edition, policy) = Policy::open(bytes, &list.roots)?;
        check_version(Object::Policy, edition, bytes, held.and_then(|held| held.policy.as_ref()))?;
        Ok((edition, policy))
    })?;
    let nothing = Revocations::default();
    let held_revocations = held.map_or(&nothing, |held| &held.revocations);
    let revocations = Revocations::read(files.crls.as_deref(), held_revocations, &list, now);
    let bytes = (list_bytes, policy_bytes);
    Ok(Trust { list, list_edition, policy, policy_edition, revocations, bytes, generation })
}

fn check_version(object: Object, edition: Edition, bytes: &[u8], held: Option<&(u64, Vec<u8>)>) -> Result<(), Refusal> {
    held.map_or(Ok(()), |(version, held)| edition.check_successor(object, bytes, *version, held))
}

fn read_document<T>(
    path: &Path,
    object: Object,
    now: UnixTime,
    open: impl Fn(&[u8]) -> Result<(Edition, T), Refusal>,
) -> Result<(Vec<u8>, Edition, T), TrustError> {
    let bytes = fs::read(path).map_err(|error| TrustError::File { path: path.into(), error })?;
    let checked = open(&bytes).and_then(|(edition, content)| {
        edition.check_time(object, now)?;
        Ok((edition, content))
    });
    match checked {
        Ok((edition, content)) => Ok((bytes, edition, content)),
        Err(refusal) => Err(TrustError::Refused { path: path.into(), refusal }),
    }
}

const HELD_LIST: &str = "trust-list.cose";
const HELD_POLICY: &str = "policy.cose";
const HELD_REVOCATIONS: &str = "revocations.pem";

/// What was accepted before: the next list must be signed by its roots, and neither document may go backwards.
struct Held {
    roots: Roots,
    list: (u64, Vec<u8>),
    policy: Option<(u64, Vec<u8>)>,
    revocations: Revocations,
}

impl From<&Trust> for Held {
    fn from(trust: &Trust) -> Self {
        Self {
            roots: trust.list.roots.clone(),
            list: (trust.list_edition.version, trust.bytes.0.clone()),
            policy: Some((trust.policy_edition.version, trust.bytes.1.clone())),
            revocations: trust.revocations.clone(),
        }
    }
}

/// What this program accepted before it stopped. The list is opened by its own roots: nobody else writes to its directory,
/// and it may have been signed by roots that configuration never knew. Its age does not matter, only its version and roots.
fn read_held(dir: &Path, files: &TrustFiles) -> Result<Option<Held>, TrustError> {
    let (list_path, policy_path) = (dir.join(HELD_LIST), dir.join(HELD_POLICY));
    if !list_path.exists() {
        return Ok(None);
    }
    let read = |path: &Path| fs::read(path).map_err(|error| TrustError::File { path: path.into(), error });
    let list = read(&list_path)?;
    let opened = TrustList::open_held(&list).map_err(|refusal| TrustError::Refused { path: list_path, refusal })?;
    if opened.1.domain != files.domain {
        return Ok(None);
    }
    // A policy that the list's roots did not sign is from before this list: a stop came between the two.
    let policy = if policy_path.exists() { Some(read(&policy_path)?) } else { None };
    let policy = policy.and_then(|bytes| Some((Policy::open(&bytes, &opened.1.roots).ok()?.0.version, bytes)));
    let revocations = fs::read_to_string(dir.join(HELD_REVOCATIONS)).unwrap_or_default();
    let revocations = Revocations::from_kept(&revocations, &opened.1);
    Ok(Some(Held { roots: opened.1.roots, list: (opened.0.version, list), policy, revocations }))
}

/// Keeps what was verified, byte for byte, by atomic rename.
fn keep(trust_files: &TrustFiles, trust: &Trust) -> Result<(), TrustError> {
    let Some(dir) = &trust_files.held else { return Ok(()) };
    let write = |name: &str, bytes: &[u8]| {
        let (partial, path) = (dir.join(format!("{name}.partial")), dir.join(name));
        let written = || -> io::Result<()> {
            files::create_private_dir(dir)?;
            let mut file = fs::File::create(&partial)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&partial, &path)
        };
        written().map_err(|error| TrustError::File { path: path.clone(), error })
    };
    write(HELD_LIST, &trust.bytes.0)?;
    write(HELD_POLICY, &trust.bytes.1)?;
    write(HELD_REVOCATIONS, trust.revocations.to_kept(&trust.list.domain).as_bytes())
}
