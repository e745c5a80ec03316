//! The parts of configuration that all programs share: where the trust is, who we are, and errors that name the key.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use proto::{
    envelope::Roots,
    identity::FederationDomain,
    suite::{Suite, VerifyingKey},
};
use serde::Deserialize;
use thiserror::Error;

use crate::{credentials::CredentialFiles, dial, trust::TrustFiles};

/// A configuration that cannot be used. Programs exit with 64 on it.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file does not read.
    #[error("{path}: {error}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file is not TOML of the documented form; the text names line and key.
    #[error("{path}: {error}", path = path.display())]
    Toml {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        error: String,
    },
    /// A value is not allowed.
    #[error("{path}: {key} = {value}: {mend}", path = path.display())]
    Value {
        /// Which file.
        path: PathBuf,
        /// The key, dotted.
        key: String,
        /// The value as written.
        value: String,
        /// What it should be.
        mend: String,
    },
}

/// `[trust]`: where the signed documents are and who must have signed them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustSection {
    /// The trust list's file.
    pub list: PathBuf,
    /// The policy's file.
    pub policy: PathBuf,
    /// The root keys: Ed25519, 64 hexadecimal digits each.
    pub roots: Vec<String>,
    /// How many of them must have signed.
    pub threshold: usize,
    /// The directory with the CAs' revocation lists, `<trust domain>.crl`, PEM. Without it nothing is revoked.
    #[serde(default)]
    pub crls: Option<PathBuf>,
    /// The gateways that tell of newer editions, `host:port`. Without one the files alone count.
    #[serde(default)]
    pub gateways: Vec<String>,
}

/// How many gateways may be named to follow.
pub const MAX_GATEWAYS: usize = 8;

/// `[identity]`: this program's own certificate and key, PEM.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentitySection {
    /// The certificate chain, leaf first.
    pub certificate: PathBuf,
    /// The private key, mode 0600.
    pub key: PathBuf,
}

/// Reads a TOML file into its raw form.
pub fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError::File { path: path.into(), error })?;
    toml_from_str(path, &text)
}

fn toml_from_str<T: for<'de> Deserialize<'de>>(path: &Path, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| ConfigError::Toml { path: path.into(), error: error.to_string() })
}

/// The error for one value.
pub fn wrong(path: &Path, key: &str, value: impl ToString, mend: impl ToString) -> ConfigError {
    ConfigError::Value { path: path.into(), key: key.into(), value: value.to_string(), mend: mend.to_string() }
}

/// A path as written in a configuration file: relative ones start at the file's own directory.
pub fn relative_to(config: &Path, path: &Path) -> PathBuf {
    config.parent().map_or_else(|| path.to_owned(), |dir| dir.join(path))
}

/// The private listener's address. It is plain HTTP for whoever reaches it, so that an address beyond the loopback
/// interface takes a second word.
pub fn private_listener(config: &Path, listen: SocketAddr, beyond_loopback: bool) -> Result<SocketAddr, ConfigError> {
    if listen.ip().is_loopback() || beyond_loopback {
        return Ok(listen);
    }
    let mend =
        "an address of the loopback interface; or private_beyond_loopback = true, in a network of operators alone";
    Err(wrong(config, "private_listen", listen, mend))
}

impl TrustSection {
    /// Checks it. `held` is where accepted editions are kept.
    pub fn files(&self, config: &Path, domain: &FederationDomain, held: PathBuf) -> Result<TrustFiles, ConfigError> {
        let keys = self.roots.iter().map(|text| {
            let key = parse_hex(text).and_then(|bytes| VerifyingKey::new(Suite::Ed25519, &bytes).ok());
            key.ok_or_else(|| wrong(config, "trust.roots", text, "64 hexadecimal digits of an Ed25519 public key"))
        });
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        let roots = Roots::new(self.threshold, keys)
            .ok_or_else(|| wrong(config, "trust.threshold", self.threshold, "1 to the number of distinct roots"))?;
        if let Some(address) = self.gateways.iter().find(|address| !dial::is_address(address)) {
            return Err(wrong(config, "trust.gateways", address, "host:port"));
        }
        if self.gateways.len() > MAX_GATEWAYS {
            let mend = format!("at most {MAX_GATEWAYS} addresses");
            return Err(wrong(config, "trust.gateways", format!("{} addresses", self.gateways.len()), mend));
        }
        Ok(TrustFiles {
            list: relative_to(config, &self.list),
            policy: relative_to(config, &self.policy),
            roots,
            domain: domain.clone(),
            held: Some(held),
            crls: self.crls.as_ref().map(|dir| relative_to(config, dir)),
            gateways: self.gateways.clone(),
        })
    }
}

impl IdentitySection {
    /// Its files.
    pub fn files(&self, config: &Path) -> CredentialFiles {
        CredentialFiles { certificate: relative_to(config, &self.certificate), key: relative_to(config, &self.key) }
    }
}

/// Bytes as lower-case hexadecimal digits.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes from hexadecimal digits.
pub fn parse_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).ok()).collect()
}
