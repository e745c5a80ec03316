//! The register of a trust domain's CA: every certificate it issued and every one it took back, a line each, public and
//! appended only. What is to be shown, renewed or revoked by name is found here.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use peer::{config::to_hex, files};
use proto::{
    identity::{FederationDomain, Realm},
    time::UnixTime,
};
use rcgen::RevocationReason;
use serde::{Deserialize, Serialize};

/// Why a certificate is taken back (RFC 5280 §5.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Its key is known to somebody else, or may be.
    KeyCompromise,
    /// Its holder is somebody else's now.
    AffiliationChanged,
    /// Another one has taken its place.
    Superseded,
    /// What it was for is no more.
    CessationOfOperation,
    /// Its holder may no longer do what it was for.
    PrivilegeWithdrawn,
}

/// A certificate in the register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its serial number, hexadecimal.
    pub serial: String,
    /// Whom it names.
    pub id: String,
    /// When it ends.
    pub not_after: UnixTime,
    /// When and why it was taken back.
    pub revoked: Option<(UnixTime, Reason)>,
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum Line {
    Issued { serial: String, id: String, at: u64, not_after: u64 },
    Revoked { serial: String, at: u64, reason: Reason },
}

/// A trust domain's register.
#[derive(Clone, Debug)]
pub struct Register {
    path: PathBuf,
}

impl Reason {
    pub(super) fn code(self) -> RevocationReason {
        match self {
            Self::KeyCompromise => RevocationReason::KeyCompromise,
            Self::AffiliationChanged => RevocationReason::AffiliationChanged,
            Self::Superseded => RevocationReason::Superseded,
            Self::CessationOfOperation => RevocationReason::CessationOfOperation,
            Self::PrivilegeWithdrawn => RevocationReason::PrivilegeWithdrawn,
        }
    }
}

impl Entry {
    /// Whether it may still be shown to somebody who takes it.
    pub fn lives(&self, now: UnixTime) -> bool {
        self.revoked.is_none() && now < self.not_after
    }
}

impl Register {
    /// The register of a trust domain whose CA is under a directory.
    pub fn of(dir: &Path, domain: &FederationDomain, realm: Realm) -> Self {
        Self { path: dir.join(format!("ca/issued/{}.jsonl", domain.trust_domain(realm))) }
    }

    /// Notes a certificate that is about to be handed out.
    pub(super) fn issued(&self, serial: &[u8], id: &str, now: UnixTime, not_after: UnixTime) -> Result<()> {
        let (at, not_after) = (now.as_secs(), not_after.as_secs());
        self.append(&Line::Issued { serial: to_hex(serial), id: id.to_owned(), at, not_after })
    }

    /// Notes that a certificate is taken back.
    ///
    /// # Errors
    /// If it is not in the register, or was taken back before.
    pub fn revoke(&self, serial: &str, reason: Reason, now: UnixTime) -> Result<()> {
        match self.entries()?.into_iter().find(|entry| entry.serial == serial) {
            None => bail!("{}: no certificate with the serial number {serial}", self.path.display()),
            Some(Entry { revoked: Some((at, _)), .. }) => bail!("{serial} was revoked at {at}"),
            Some(_) => self.append(&Line::Revoked { serial: serial.to_owned(), at: now.as_secs(), reason }),
        }
    }

    /// Every certificate, in the order of issue.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| self.path.display().to_string()),
        };
        let (mut entries, mut places) = (Vec::new(), BTreeMap::new());
        for (number, line) in (1..).zip(text.lines()) {
            let context = || format!("{}: line {number}", self.path.display());
            match serde_json::from_str(line).with_context(context)? {
                Line::Issued { serial, id, not_after, at: _ } => {
                    places.insert(serial.clone(), entries.len());
                    entries.push(Entry { serial, id, not_after: UnixTime::from_secs(not_after), revoked: None });
                }
                Line::Revoked { serial, at, reason } => {
                    let place = places.get(&serial).context("it was never issued").with_context(context)?;
                    entries[*place].revoked = Some((UnixTime::from_secs(at), reason));
                }
            }
        }
        Ok(entries)
    }

    fn append(&self, line: &Line) -> Result<()> {
        let context = || self.path.display().to_string();
        if let Some(parent) = self.path.parent() {
            files::create_private_dir(parent).with_context(context)?;
        }
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&self.path).with_context(context)?;
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        file.write_all(text.as_bytes()).and_then(|()| file.sync_data()).with_context(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    #[test]
    fn what_was_issued_is_found_and_taken_back_once() {
        let dir = tempfile::tempdir().unwrap();
        let register = Register::of(dir.path(), &"tongxing.test".parse().unwrap(), Realm::Gateway);
        assert!(register.entries().unwrap().is_empty());
        let end = UnixTime::from_secs(NOW.as_secs() + 10);
        register.issued(&[1, 2], "spiffe://gateway.tongxing.test/replica/1", NOW, end).unwrap();
        register.issued(&[3], "spiffe://gateway.tongxing.test/replica/2", NOW, end).unwrap();
        register.revoke("0102", Reason::KeyCompromise, NOW).unwrap();
        assert!(register.revoke("0102", Reason::Superseded, NOW).unwrap_err().to_string().contains("was revoked"));
        assert!(register.revoke("ff", Reason::Superseded, NOW).unwrap_err().to_string().contains("no certificate"));
        let entries = register.entries().unwrap();
        assert_eq!(entries[0].revoked, Some((NOW, Reason::KeyCompromise)));
        assert!(!entries[0].lives(NOW) && entries[1].lives(NOW) && !entries[1].lives(end));
        fs::write(dir.path().join("ca/issued/gateway.tongxing.test.jsonl"), "{}\n").unwrap();
        assert!(format!("{:#}", register.entries().unwrap_err()).contains("line 1"));
    }
}
