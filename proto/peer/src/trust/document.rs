//! A trust list and a policy on their way in, from whichever side they come, and what they must be to be taken.

use std::{fs, path::Path};

use proto::{
    envelope::{self, Edition},
    policy::Policy,
    refusal::{Object, Refusal},
    time::UnixTime,
    trust::TrustList,
};
use tracing::debug;

use super::{
    Trust, TrustError, TrustFiles,
    held::{Held, Kept},
};
use crate::revocation::Revocations;

/// A trust list and a policy that are to count together.
pub(super) struct Documents<'a> {
    list: Document<'a>,
    policy: Document<'a>,
}

struct Document<'a> {
    bytes: Vec<u8>,
    /// The file it was read from or stands in for; a gateway's has none.
    path: Option<&'a Path>,
    /// It was accepted before: how long it lives is looked at where it is used.
    is_held: bool,
}

impl<'a> Documents<'a> {
    /// Reads the files. Where a gateway is followed, an edition that is held and still holds stands in for an older file.
    pub(super) fn read(files: &'a TrustFiles, held: Option<&Held>, now: UnixTime) -> Result<Self, TrustError> {
        let held = held.filter(|_| !files.gateways.is_empty());
        let (list, policy) = (held.map(|held| &held.list), held.and_then(|held| held.policy.as_ref()));
        Ok(Self {
            list: Document::read(&files.list, Object::TrustList, list, now)?,
            policy: Document::read(&files.policy, Object::Policy, policy, now)?,
        })
    }

    /// What a gateway hands on; in the place of what it does not, what is held.
    pub(super) fn offered(list: Option<Vec<u8>>, policy: Option<Vec<u8>>, held: &Trust) -> Self {
        Self {
            list: Document::offered(list, held.list_bytes()),
            policy: Document::offered(policy, held.policy_bytes()),
        }
    }
}

impl<'a> Document<'a> {
    fn read(path: &'a Path, object: Object, held: Option<&Kept>, now: UnixTime) -> Result<Self, TrustError> {
        let bytes = fs::read(path).map_err(|error| TrustError::File { path: path.into(), error })?;
        // What it claims is enough to pass it over; to be taken it would have to prove it.
        let claimed = envelope::read_edition(object, &bytes).map(|edition| edition.version);
        match held {
            Some(held)
                if claimed.is_ok_and(|v| v < held.edition.version) && held.edition.check_time(object, now).is_ok() =>
            {
                debug!(path = %path.display(), "an older edition than the one held is passed over");
                Ok(Self { bytes: held.bytes.clone(), path: Some(path), is_held: true })
            }
            _ => Ok(Self { bytes, path: Some(path), is_held: false }),
        }
    }

    fn offered(bytes: Option<Vec<u8>>, held: &[u8]) -> Self {
        match bytes {
            Some(bytes) if bytes != held => Self { bytes, path: None, is_held: false },
            _ => Self { bytes: held.to_vec(), path: None, is_held: true },
        }
    }

    fn check<T>(
        &self,
        object: Object,
        now: UnixTime,
        open: impl FnOnce(&[u8]) -> Result<(Edition, T), Refusal>,
    ) -> Result<(Edition, T), TrustError> {
        let checked = open(&self.bytes).and_then(|(edition, content)| {
            if !self.is_held {
                edition.check_time(object, now)?;
            }
            Ok((edition, content))
        });
        checked.map_err(|refusal| match self.path {
            Some(path) => TrustError::Refused { path: path.into(), refusal },
            None => TrustError::Offered(refusal),
        })
    }
}

/// Verifies a pair: signed by the roots of now, of this federation, no older than what is held, holding now.
pub(super) fn verify(
    files: &TrustFiles,
    held: Option<&Held>,
    documents: Documents<'_>,
    generation: u64,
    now: UnixTime,
) -> Result<Trust, TrustError> {
    let Documents { list: list_document, policy: policy_document } = documents;
    let (list_edition, list) = list_document.check(Object::TrustList, now, |bytes| {
        // The list held says who may sign the next: roots that it retired have no word any more, pinned or not.
        let roots = held.map_or(&files.roots, |held| &held.roots);
        let (edition, list) = TrustList::open(bytes, roots)?;
        if list.roots != *roots {
            // Who takes it up opens it by these from then on.
            TrustList::open(bytes, &list.roots)?;
        }
        if list.domain != files.domain {
            return Err(Refusal::malformed(Object::TrustList, "it is of another federation"));
        }
        check_version(Object::TrustList, edition, bytes, held.map(|held| &held.list))?;
        Ok((edition, list))
    })?;
    let (policy_edition, policy) = policy_document.check(Object::Policy, now, |bytes| {
        let (edition, policy) = Policy::open(bytes, &list.roots)?;
        check_version(Object::Policy, edition, bytes, held.and_then(|held| held.policy.as_ref()))?;
        Ok((edition, policy))
    })?;
    let nothing = Revocations::default();
    let held_revocations = held.map_or(&nothing, |held| &held.revocations);
    let revocations = Revocations::read(files.crls.as_deref(), held_revocations, &list, now);
    let bytes = (list_document.bytes, policy_document.bytes);
    Ok(Trust { list, list_edition, policy, policy_edition, revocations, bytes, generation })
}

fn check_version(object: Object, edition: Edition, bytes: &[u8], held: Option<&Kept>) -> Result<(), Refusal> {
    held.map_or(Ok(()), |held| edition.check_successor(object, bytes, held.edition.version, &held.bytes))
}
