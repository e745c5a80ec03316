//! The logs for an operator: verified, shown, exported, beside the gateway that writes them too.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use proto::{
    identity::{FederationDomain, Realm},
    log::{
        checkpoint::Checkpoint,
        owner_number,
        record::{Entry, RefusalEntry},
    },
    suite::VerifyingKey,
    time::UnixTime,
    trust::TrustList,
};

use super::{
    FILE, disowned,
    store::{Damage, Store, StoreError, open_to_read},
    verify::{By, Verified, verify},
    view::View,
    witness,
};

/// A replica's logs, to look at.
pub struct LogTool {
    path: PathBuf,
    view: View,
    /// What the witness said before the store was looked at: its gateway may have gone on since.
    witnessed: Option<Vec<u8>>,
}

/// A record, to show.
#[derive(Clone, Debug)]
pub enum Shown {
    /// An exchange.
    Exchange(Entry),
    /// A refusal before any token verified.
    Refusal(RefusalEntry),
    /// Bytes that are no record.
    Unreadable,
}

/// Why logs cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The store does not open or cannot be read.
    #[error("{0}")]
    Store(String),
    /// What was written is not taken.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<StoreError> for LogError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.to_string())
    }
}

impl LogTool {
    /// The public key of the logs under a data directory, which are begun if there are none; a gateway may run there.
    pub fn ensure_key(data_dir: &Path) -> Result<VerifyingKey, LogError> {
        peer::files::create_private_dir(data_dir)?;
        let path = data_dir.join(FILE);
        if !path.exists() {
            let (_, key) = Store::open(&path, u64::MAX)?;
            return Ok(key.key().verifying_key().clone());
        }
        Ok(Self::open(data_dir)?.key().clone())
    }

    /// Opens the logs under a data directory as they are now.
    pub fn open(data_dir: &Path) -> Result<Self, LogError> {
        let path = data_dir.join(FILE);
        let witnessed = witness::read(&path);
        let view = View::of(&open_to_read(&path)?)?;
        Ok(Self { path, view, witnessed })
    }

    /// Their public key.
    pub fn key(&self) -> &VerifyingKey {
        self.view.key().key().verifying_key()
    }

    /// Verifies all logs; of each that is not as it was, the first index that is not, and why.
    pub fn verify(&self, list: Option<&TrustList>, now: UnixTime) -> Result<Vec<Result<Verified, Damage>>, LogError> {
        let witnessed = witness::last(self.witnessed.as_deref(), self.key());
        let mut found = verify(&self.view, witnessed, By { list, now })?;
        found.extend(disowned::found(&self.path).map(Err));
        Ok(found)
    }

    /// Whether a log extends what this checkpoint of it, kept from earlier, says.
    ///
    /// # Errors
    /// [`Damage`] if it does not: the store is an older copy, or another history.
    pub fn check_extends(&self, note: &str, domain: &FederationDomain) -> Result<Result<Checkpoint, Damage>, LogError> {
        let checkpoint = match Checkpoint::open_by(note, domain, self.key()) {
            Ok(checkpoint) => checkpoint,
            Err(refusal) => return Ok(Err(Damage::of_store(format!("the checkpoint does not verify: {refusal}")))),
        };
        let number = owner_number(checkpoint.owner);
        let at = |what| Ok(Err(Damage::at(number, checkpoint.size, what)));
        if checkpoint.size < self.view.base(number)? {
            return at("the checkpoint is of before what is kept: only the home member can tell".to_owned());
        }
        match self.view.log(number).root_at(checkpoint.size)? {
            Some(root) if root == checkpoint.root => Ok(Ok(checkpoint)),
            Some(_) => at("the log is not the one that the checkpoint is of".to_owned()),
            None => at("the log ends before the checkpoint does: it is an older copy".to_owned()),
        }
    }

    /// The logs that have a record, with where their records begin and end.
    pub fn logs(&self) -> Result<Vec<(Realm, u64, u64)>, LogError> {
        let heads = self.view.heads()?;
        let logs = heads.iter().map(|(log, head)| Ok((head.owner, self.view.base(*log)?, head.size)));
        logs.collect()
    }

    /// The signed head of a log.
    pub fn checkpoint(&self, owner: Realm, domain: &FederationDomain) -> Result<Option<String>, LogError> {
        let heads = self.view.heads()?;
        let head = heads.get(&owner_number(owner));
        Ok(head.map(|head| {
            let (log, key) = (self.view.id(), self.view.key().key());
            Checkpoint { log, owner, size: head.size, root: head.root }.sign(domain, key)
        }))
    }

    /// Records of a log from `first` on, `limit` at most: index, bytes, what they say.
    pub fn records(
        &self,
        owner: Realm,
        first: u64,
        limit: u64,
        mut each: impl FnMut(u64, &[u8], Shown) -> io::Result<()>,
    ) -> Result<(), LogError> {
        let mut outcome = Ok(());
        self.view.log(owner_number(owner)).records(first, |index, record| {
            if index - first >= limit {
                return false;
            }
            outcome = each(index, record, Shown::of(owner, record));
            outcome.is_ok()
        })?;
        Ok(outcome?)
    }

    /// Writes everything as lines of JSON: the key, then of each log its checkpoint and its records.
    pub fn export(&self, domain: &FederationDomain, out: &mut impl Write) -> Result<u64, LogError> {
        let hex = |bytes: &[u8]| peer::config::to_hex(bytes);
        let line = |out: &mut dyn Write, value: serde_json::Value| writeln!(out, "{value}");
        line(out, serde_json::json!({ "log": self.view.id().to_string(), "key": hex(self.key().encoded()) }))?;
        let mut exported = 0;
        for (owner, base, size) in self.logs()? {
            let checkpoint = self.checkpoint(owner, domain)?;
            let peaks = self.view.log(owner_number(owner)).frontier_at_block(base)?;
            let peaks: Vec<_> = peaks.peaks().iter().map(|peak| hex(peak)).collect();
            let owner_text = owner.to_string();
            let head = serde_json::json!({
                "owner": owner_text, "kept_from": base, "peaks": peaks, "size": size, "checkpoint": checkpoint,
            });
            line(out, head)?;
            self.records(owner, base, u64::MAX, |index, record, _| {
                exported += 1;
                line(out, serde_json::json!({ "owner": owner_text, "index": index, "record": hex(record) }))
            })?;
        }
        Ok(exported)
    }
}

impl Shown {
    fn of(owner: Realm, record: &[u8]) -> Self {
        match owner {
            Realm::Member(_) => Entry::decode(record).map_or(Self::Unreadable, Self::Exchange),
            Realm::Gateway => RefusalEntry::decode(record).map_or(Self::Unreadable, Self::Refusal),
        }
    }
}
