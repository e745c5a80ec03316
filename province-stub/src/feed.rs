//! A feed's own side: what brings a file of evidence to a member's node. `feed.toml` says who the feed is and where the node is;
//! [`csv`] reads the file, [`import`] brings it.

pub mod csv;
pub mod import;

use std::path::Path;

use peer::{
    config::{ConfigError, IdentitySection, TrustSection, read, wrong},
    credentials::CredentialFiles,
    dial,
    trust::TrustFiles,
};
use proto::{identity::FederationDomain, member::Member};
use serde::Deserialize;

/// A valid `feed.toml`.
#[derive(Clone, Debug)]
pub struct FeedConfig {
    /// The member whose node it brings evidence to.
    pub member: Member,
    /// The federation's domain.
    pub domain: FederationDomain,
    /// Where the node is, `host:port`.
    pub node: String,
    /// Certificate and key.
    pub credentials: CredentialFiles,
    /// Trust list and policy.
    pub trust: TrustFiles,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    member: String,
    domain: String,
    node: String,
    identity: IdentitySection,
    trust: TrustSection,
}

impl FeedConfig {
    /// Reads and checks a file. Relative paths start at its own directory.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let document: Document = read(path)?;
        let member = document.member.parse().map_err(|error| wrong(path, "member", &document.member, error))?;
        let domain: FederationDomain =
            document.domain.parse().map_err(|error| wrong(path, "domain", &document.domain, error))?;
        if !dial::is_address(&document.node) {
            return Err(wrong(path, "node", &document.node, "host:port"));
        }
        // It keeps nothing: what it trusts is what its files say.
        let trust = TrustFiles { held: None, ..document.trust.files(path, &domain, Path::new("").to_owned())? };
        Ok(Self { member, node: document.node, credentials: document.identity.files(path), trust, domain })
    }
}

#[cfg(test)]
mod tests {
    use peer::config::to_hex;
    use proto::suite::{SigningKey, Suite};

    use super::*;

    fn config(from: &str, to: &str) -> Result<FeedConfig, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("feed.toml");
        let root = to_hex(SigningKey::generate(Suite::Ed25519).verifying_key().encoded());
        let text = format!(
            "member = \"44\"\ndomain = \"tongxing.test\"\nnode = \"localhost:7544\"\n\
             [identity]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n\
             [trust]\nlist = \"t\"\npolicy = \"p\"\nroots = [\"{root}\"]\nthreshold = 1\n"
        );
        assert!(text.contains(from), "{from}");
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
        FeedConfig::read(&path)
    }

    #[test]
    fn what_is_wrong_is_named_with_its_mend() {
        let right = config("", "").unwrap();
        assert!(right.node == "localhost:7544" && right.trust.held.is_none());
        for (from, to, named) in [
            ("\"44\"", "\"99\"", "member = 99"),
            ("\"tongxing.test\"", "\"Tongxing\"", "domain = Tongxing"),
            ("localhost:7544", "localhost", "node = localhost: host:port"),
            ("threshold = 1", "threshold = 2", "trust.threshold = 2"),
            ("node = ", "nodes = ", "nodes"),
        ] {
            let error = config(from, to).unwrap_err().to_string();
            assert!(error.contains(named) && error.contains("feed.toml"), "{named} in {error}");
        }
    }
}
