//! The mark of logs that are not the ones that were: a home has shown a head that their own key signed and that they never
//! had. Beside the store, so that a restart does not forget it: whoever has looked moves both aside.

use std::{
    io,
    path::{Path, PathBuf},
};

use peer::files::write_private;

use super::store::Damage;

/// Leaves the mark, with the head that was shown.
pub(super) fn mark(store: &Path, checkpoint: &str) -> io::Result<()> {
    write_private(&path_beside(store), checkpoint.as_bytes())
}

/// What is to be said of a store that has the mark.
pub(super) fn found(store: &Path) -> Option<Damage> {
    let path = path_beside(store);
    let what = || format!("it is an older copy, or another one: {} is a head of it that it never had", path.display());
    path.exists().then(|| Damage::of_store(what()))
}

fn path_beside(store: &Path) -> PathBuf {
    store.with_extension("disowned")
}
