//! What a program accepted before, also before it stopped: the next list must be signed by its roots, and neither document
//! may go backwards.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
};

use proto::{
    envelope::{Edition, Roots},
    policy::Policy,
    trust::TrustList,
};

use super::{Trust, TrustError, TrustFiles};
use crate::{files, revocation::Revocations};

const LIST: &str = "trust-list.cose";
const POLICY: &str = "policy.cose";
const REVOCATIONS: &str = "revocations.pem";

/// What was accepted.
pub(super) struct Held {
    pub(super) roots: Roots,
    pub(super) list: Kept,
    pub(super) policy: Option<Kept>,
    pub(super) revocations: Revocations,
}

/// One document of it.
pub(super) struct Kept {
    pub(super) edition: Edition,
    pub(super) bytes: Vec<u8>,
}

impl From<&Trust> for Held {
    fn from(trust: &Trust) -> Self {
        Self {
            roots: trust.list.roots.clone(),
            list: Kept { edition: trust.list_edition, bytes: trust.bytes.0.clone() },
            policy: Some(Kept { edition: trust.policy_edition, bytes: trust.bytes.1.clone() }),
            revocations: trust.revocations.clone(),
        }
    }
}

impl Held {
    /// What this program accepted before it stopped. The list is opened by its own roots: nobody else writes to its
    /// directory, and it may have been signed by roots that configuration never knew. Its age does not matter here, only
    /// its version and roots.
    pub(super) fn read(files: &TrustFiles) -> Result<Option<Self>, TrustError> {
        let Some(dir) = &files.held else { return Ok(None) };
        let (list_path, policy_path) = (dir.join(LIST), dir.join(POLICY));
        if !list_path.exists() {
            return Ok(None);
        }
        let read = |path: &Path| fs::read(path).map_err(|error| TrustError::File { path: path.into(), error });
        let bytes = read(&list_path)?;
        let opened = TrustList::open_held(&bytes);
        let (edition, list) = opened.map_err(|refusal| TrustError::Refused { path: list_path, refusal })?;
        if list.domain != files.domain {
            return Ok(None);
        }
        // A policy that the list's roots did not sign belongs to another list: a stop came between the two.
        let policy = if policy_path.exists() { Some(read(&policy_path)?) } else { None };
        let policy = policy.and_then(|bytes| Some(Kept { edition: Policy::open(&bytes, &list.roots).ok()?.0, bytes }));
        let revocations = fs::read_to_string(dir.join(REVOCATIONS)).unwrap_or_default();
        let revocations = Revocations::from_kept(&revocations, &list);
        Ok(Some(Self { roots: list.roots, list: Kept { edition, bytes }, policy, revocations }))
    }
}

/// Keeps what was verified, byte for byte, by atomic rename. The list is last but for what hangs on it: a stop in between
/// leaves the list before it, which the files and the policy before it go with.
pub(super) fn keep(trust_files: &TrustFiles, trust: &Trust) -> Result<(), TrustError> {
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
    write(POLICY, &trust.bytes.1)?;
    write(LIST, &trust.bytes.0)?;
    write(REVOCATIONS, trust.revocations.to_kept(&trust.list.domain).as_bytes())
}
