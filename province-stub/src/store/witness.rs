//! What stands beside a database and is not restored with it: the latest head of the change log, in a file of its own.
//!
//! Upholds I4: every head is noted before it is committed, so that no event that anybody has heard of is ever forgotten
//! without a new epoch. A commit that fails after that costs an epoch.

use std::{
    fs, io,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use proto::statement::LogHead;

/// The file that notes heads, as this process has noted them.
#[derive(Debug)]
pub(super) struct Witness {
    path: PathBuf,
    latest: Mutex<Option<LogHead>>,
}

impl Witness {
    /// In this file.
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path, latest: Mutex::default() }
    }

    /// What was noted last, by this process or one before it.
    pub(super) fn told(&self) -> Option<LogHead> {
        let content = fs::read(&self.path).ok()?;
        let (epoch, seq) = content.split_first_chunk::<16>()?;
        Some(LogHead { epoch: *epoch, seq: u64::from_be_bytes(seq.try_into().ok()?) })
    }

    /// Whether this process noted a later head of the same epoch.
    pub(super) fn is_ahead_of(&self, head: LogHead) -> bool {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.is_some_and(|latest| latest.epoch == head.epoch && latest.seq > head.seq)
    }

    /// Notes a head, for as long as the machine runs. One that is lost in a power cut leaves an older one, which accuses
    /// nobody. Of two commits at once the later head stays.
    pub(super) fn note(&self, head: LogHead) -> io::Result<()> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.is_some_and(|latest| latest.epoch == head.epoch && latest.seq >= head.seq) {
            return Ok(());
        }
        let mut content = head.epoch.to_vec();
        content.extend(head.seq.to_be_bytes());
        let partial = self.path.with_extension("head-partial");
        fs::write(&partial, content)?;
        fs::rename(partial, &self.path)?;
        *latest = Some(head);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_head_of_an_epoch_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.db.head");
        let witness = Witness::at(path.clone());
        assert_eq!(witness.told(), None);
        for (epoch, seq, told) in [(1, 3, (1, 3)), (1, 2, (1, 3)), (1, 4, (1, 4)), (2, 1, (2, 1))] {
            witness.note(LogHead { epoch: [epoch; 16], seq }).unwrap();
            let told = LogHead { epoch: [told.0; 16], seq: told.1 };
            assert_eq!(Witness::at(path.clone()).told(), Some(told));
            let behind = LogHead { seq: told.seq - 1, ..told };
            assert_eq!([told, behind].map(|head| witness.is_ahead_of(head)), [false, true]);
        }
        fs::write(&path, [1; 23]).unwrap();
        assert_eq!(witness.told(), None, "half a note is none");
    }
}
