//! The witness: the last signed commit once more, in a file beside the store. A store that was put back is older than it.
//!
//! It is written after its commit is durable, so that it is never ahead of an honest store; it is not synced, since only a
//! machine that stops, not a program that dies, can leave it behind, and a witness that is behind accuses nobody.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use proto::{log::commit::Commit, suite::VerifyingKey};

/// The file's size: a commit has some 200 bytes.
const BYTES: usize = 1024;

/// The open witness.
#[derive(Debug)]
pub(super) struct Witness(File);

impl Witness {
    pub(super) fn open(store: &Path) -> io::Result<Self> {
        let path = path_beside(store);
        Ok(Self(OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?))
    }

    /// Takes note of a commit: one write in place, which a program that dies does not tear.
    pub(super) fn note(&self, signed: &[u8]) -> io::Result<()> {
        let mut bytes = [0; BYTES];
        bytes[..2].copy_from_slice(&(signed.len() as u16).to_be_bytes());
        bytes[2..2 + signed.len()].copy_from_slice(signed);
        self.0.write_all_at(&bytes, 0)
    }
}

/// What the witness of a store says now, to be read before the store is.
pub(super) fn read(store: &Path) -> Option<Vec<u8>> {
    std::fs::read(path_beside(store)).ok()
}

/// The last commit that was witnessed under this key, if there is a witness of it.
pub(super) fn last(witness: Option<&[u8]>, key: &VerifyingKey) -> Option<Commit> {
    let (length, rest) = witness?.split_first_chunk::<2>()?;
    let signed = rest.get(..usize::from(u16::from_be_bytes(*length)))?;
    Commit::open_by(signed, key).ok()
}

fn path_beside(store: &Path) -> PathBuf {
    store.with_extension("witness")
}
