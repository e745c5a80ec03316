//! The trust list and the policy a program holds: read from files, heard of from a gateway, verified, replaced while running.
//!
//! An older edition than the one held is refused, also after a restart: what was accepted is kept in the data directory.
//! What has expired is worth nothing: [`TrustStore::usable`] fails closed.
//!
//! Where a program follows a gateway beside its files (`follow`) the newest valid edition counts, whichever way it
//! came: a file that is older is then not somebody's attempt to go back, but one that nobody has renewed yet.

mod document;
mod held;
#[cfg(test)]
mod tests;

use std::{
    fs, io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwap;
use proto::{
    envelope::{EXPIRY_ALARM, Edition, Roots},
    identity::FederationDomain,
    policy::Policy,
    refusal::{Reason, Refusal},
    time::{Clock, UnixTime},
    trust::TrustList,
};
use thiserror::Error;
use tokio::sync::watch;

use self::{
    document::{Documents, verify},
    held::Held,
};
use crate::revocation::Revocations;

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
    /// The gateways that tell of newer editions, `host:port`. Without one the files alone count.
    pub gateways: Vec<String>,
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
    /// Both as they came and were verified.
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
    /// A document that a gateway handed on is refused.
    #[error("{0}")]
    Offered(Refusal),
}

impl TrustError {
    /// Why a document is refused, if it is.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::File { .. } => None,
            Self::Refused { refusal, .. } | Self::Offered(refusal) => Some(refusal),
        }
    }
}

/// The trust a program holds. Cheap to read, replaced as a whole.
#[derive(Debug)]
pub struct TrustStore {
    files: TrustFiles,
    clock: Arc<dyn Clock>,
    current: ArcSwap<Trust>,
    changed: watch::Sender<u64>,
    /// Held by whoever replaces what is held: files and gateways are followed at once.
    replacing: Mutex<OnDisk>,
}

/// Whether what is held is kept for the next start too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnDisk {
    Current,
    Behind,
}

impl TrustStore {
    /// Reads and verifies both documents.
    pub fn open(files: TrustFiles, clock: Arc<dyn Clock>) -> Result<Arc<Self>, TrustError> {
        let held = Held::read(&files)?;
        let now = clock.now();
        let documents = Documents::read(&files, held.as_ref(), now)?;
        let trust = verify(&files, held.as_ref(), documents, 0, now)?;
        held::keep(&files, &trust)?;
        let (changed, _) = watch::channel(trust.generation);
        let (current, replacing) = (ArcSwap::from_pointee(trust), Mutex::new(OnDisk::Current));
        Ok(Arc::new(Self { files, clock, current, changed, replacing }))
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

    /// Reads the files again; whatever is refused leaves what is held in place, and a document is not refused for the other's
    /// sake. Returns whether anything was replaced.
    ///
    /// # Errors
    /// The first refusal. And if what is held cannot be kept: it counts all the same, since a key that was removed must not
    /// be believed for the want of a disk, but an older list could come back after a restart.
    pub fn reload(&self) -> Result<bool, TrustError> {
        let mut disk = self.lock();
        let held = self.current();
        let (generation, now) = (held.generation + 1, self.clock.now());
        let kept = Held::from(&*held);
        let read = Documents::read(&self.files, Some(&kept), now)
            .and_then(|documents| verify(&self.files, Some(&kept), documents, generation, now));
        match read {
            Ok(trust) => self.take(&held, trust, &mut disk),
            Err(error) => {
                if let Ok(list) = fs::read(&self.files.list) {
                    let _ = self.take_offered(Some(list), None, &mut disk);
                }
                if let Ok(policy) = fs::read(&self.files.policy) {
                    let _ = self.take_offered(None, Some(policy), &mut disk);
                }
                let held = self.current();
                let generation = held.generation + 1;
                // What a CA has taken back does not wait for a document that is refused.
                let dir = self.files.crls.as_deref();
                let revocations = Revocations::read(dir, &held.revocations, &held.list, now);
                if revocations != held.revocations {
                    self.replace(Trust { revocations, generation, ..Trust::clone(&held) });
                }
                Err(error)
            }
        }
    }

    /// Takes up what a gateway hands on: a trust list, a policy, or both, which count together or one alone. They are
    /// verified as files are, and whatever is refused leaves what is held in place. Returns whether anything was replaced.
    ///
    /// # Errors
    /// The refusal of one of the two; the other has been taken if it is good without it.
    pub fn offer(&self, list: Option<Vec<u8>>, policy: Option<Vec<u8>>) -> Result<bool, TrustError> {
        let mut disk = self.lock();
        let both = list.is_some() && policy.is_some();
        let taken = self.take_offered(list.clone(), policy.clone(), &mut disk);
        if both && taken.is_err() && self.take_offered(list, None, &mut disk).is_err() {
            // What is said is what was wrong with the two of them.
            let _ = self.take_offered(None, policy, &mut disk);
        }
        taken
    }

    fn take_offered(
        &self,
        list: Option<Vec<u8>>,
        policy: Option<Vec<u8>>,
        disk: &mut OnDisk,
    ) -> Result<bool, TrustError> {
        let held = self.current();
        let before = Held::from(&*held);
        let documents = Documents::offered(list, policy, &held);
        let trust = verify(&self.files, Some(&before), documents, held.generation + 1, self.clock.now())?;
        self.take(&held, trust, disk)
    }

    fn take(&self, held: &Trust, trust: Trust, disk: &mut OnDisk) -> Result<bool, TrustError> {
        let is_new = trust.bytes != held.bytes || trust.revocations != held.revocations;
        if is_new {
            *disk = OnDisk::Behind;
            self.replace(trust.clone());
        }
        if *disk == OnDisk::Behind {
            held::keep(&self.files, &trust)?;
            *disk = OnDisk::Current;
        }
        Ok(is_new)
    }

    fn lock(&self) -> MutexGuard<'_, OnDisk> {
        self.replacing.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// The gateways that tell of newer editions, `host:port`.
    pub fn gateways(&self) -> &[String] {
        &self.files.gateways
    }

    /// The clock that documents and certificates are judged by.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }
}

impl Trust {
    /// The signed trust list, as it came.
    pub fn list_bytes(&self) -> &[u8] {
        &self.bytes.0
    }

    /// The signed policy, as it came.
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
