//! Where a database file is: a copy that was put back is another file, by device and inode.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

/// What tells this file from every other.
pub(super) fn of(database: &Path) -> io::Result<Vec<u8>> {
    let metadata = fs::metadata(database)?;
    Ok([metadata.dev().to_be_bytes(), metadata.ino().to_be_bytes()].concat())
}
