//! Where everything is under the state directory (`.tongxing` unless asked otherwise).

use std::path::{Path, PathBuf};

use proto::{
    identity::{FederationDomain, Realm},
    member::Member,
    venue::VenueId,
};

/// The domain of development federations.
pub const DOMAIN: &str = "tongxing.test";

/// A state directory.
#[derive(Clone, Debug)]
pub struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// Of this directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The directory itself.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The federation's domain.
    ///
    /// # Panics
    /// Never: [`DOMAIN`] is one.
    pub fn domain(&self) -> FederationDomain {
        DOMAIN.parse().expect("the development domain is a domain")
    }

    /// Held locked by whoever prepares or runs this directory.
    pub fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    /// What was prepared: members, people, addresses.
    pub fn federation(&self) -> PathBuf {
        self.dir.join("federation.toml")
    }

    /// A root's private key.
    pub fn root(&self, number: usize) -> PathBuf {
        self.dir.join(format!("roots/root-{number}.key"))
    }

    /// A trust domain's CA: certificate and key.
    pub fn ca(&self, realm: Realm) -> (PathBuf, PathBuf) {
        gateway::pki::ca_files(&self.dir, &self.domain(), realm)
    }

    /// The source of the trust list.
    pub fn trust_source(&self) -> PathBuf {
        self.dir.join("trust-list.toml")
    }

    /// The signed trust list.
    pub fn trust_list(&self) -> PathBuf {
        self.dir.join("trust-list.cose")
    }

    /// The CAs' revocation lists.
    pub fn crls(&self) -> PathBuf {
        gateway::pki::crl_dir(&self.dir)
    }

    /// The signed policy.
    pub fn policy(&self) -> PathBuf {
        self.dir.join("policy.cose")
    }

    /// A gateway replica's directory; the first has the plain name.
    pub fn gateway(&self, replica: usize) -> PathBuf {
        match replica {
            1 => self.dir.join("gateway"),
            number => self.dir.join(format!("gateway-{number}")),
        }
    }

    /// A member's node's directory.
    pub fn node(&self, member: Member) -> PathBuf {
        self.dir.join(format!("node/{member}"))
    }

    /// A member's backend's credentials.
    pub fn backend(&self, member: Member) -> PathBuf {
        self.dir.join(format!("backend/{member}"))
    }

    /// The directory of one of a member's feeds: its credentials, and the configuration that `province-stub import` reads.
    pub fn feed(&self, member: Member, name: &str) -> PathBuf {
        self.dir.join(format!("feed/{member}-{name}"))
    }

    /// A member's operator's credentials.
    pub fn operator(&self, member: Member) -> PathBuf {
        self.dir.join(format!("operator/{member}"))
    }

    /// A venue's credentials.
    pub fn venue(&self, venue: &VenueId) -> PathBuf {
        self.dir.join(format!("venue/{}-{}-{}", venue.member(), venue.category(), venue.name()))
    }

    /// The phone that the commands use for a seeded person.
    pub fn phone(&self, member: Member, person: u32) -> PathBuf {
        self.dir.join(format!("phones/{member}-{person}.json"))
    }

    /// The key of the log that the conformance kit delivers, which the trust list has beside the gateways'.
    pub fn kit_log_key(&self) -> PathBuf {
        self.dir.join("conformance/log.key")
    }

    /// What is on that log for a member.
    pub fn kit_log(&self, member: Member) -> PathBuf {
        self.dir.join(format!("conformance/log-{member}"))
    }

    /// The presentations that load tests send.
    pub fn load_file(&self) -> PathBuf {
        self.dir.join("load/recognize.json")
    }
}
