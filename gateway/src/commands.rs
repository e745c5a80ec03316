//! What the binary can be asked to do, a file a command.

pub(crate) mod ceremony;
pub(crate) mod log;
pub(crate) mod member;
pub(crate) mod pki;
pub(crate) mod policy;
pub(crate) mod serve;
pub(crate) mod status;
pub(crate) mod trust_list;

use std::path::PathBuf;

use anyhow::Result;
use gateway::documents;
use proto::suite::SigningKey;

/// The exit code for a configuration that cannot be used.
pub(crate) const BAD_CONFIGURATION: u8 = 64;

/// The root keys that a document is signed with.
pub(crate) fn read_roots(paths: &[PathBuf]) -> Result<Vec<SigningKey>> {
    paths.iter().map(|path| documents::read_root_key(path)).collect()
}
