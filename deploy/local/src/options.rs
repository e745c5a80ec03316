//! What is asked for on the command line.

use std::{path::PathBuf, str::FromStr};

use clap::Args;
use proto::{member::Member, policy::NATIONAL};
use serde::{Deserialize, Serialize};

use crate::external::ExternalOption;

/// Options of every command.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The state directory.
    #[arg(long, global = true, default_value = ".tongxing")]
    pub dir: PathBuf,
    /// The members, e.g. 11,44; all 33 unless said (or what the directory was prepared for).
    #[arg(long, global = true, value_delimiter = ',')]
    pub members: Option<Vec<Member>>,
    /// People seeded per member; 200 unless said.
    #[arg(long, global = true, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub people: Option<u32>,
    /// Gateway replicas; 1 unless said. More than one take only proofs that are bound to a venue.
    #[arg(long, global = true, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub gateways: Option<u8>,
    /// The policy: national, or development (proofs live an hour, for load tests).
    #[arg(long, global = true)]
    pub policy: Option<PolicyName>,
    /// A member's node that is not started here: somebody else's, at this address, with the certificate and keys that are
    /// prepared for it. Several may be given; `none` takes back what the directory remembers.
    #[arg(long, global = true, value_name = "MEMBER=HOST:PORT")]
    pub external: Option<Vec<ExternalOption>>,
    /// Print JSON, a line per thing.
    #[arg(long, global = true)]
    pub json: bool,
}

impl Options {
    /// What a copied line has to repeat: the directory, where it is not the usual one.
    pub fn arguments(&self) -> String {
        if self.dir.as_os_str() == ".tongxing" { String::new() } else { format!(" --dir {}", self.dir.display()) }
    }
}

/// A policy that ships.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyName {
    /// The national one.
    #[default]
    National,
    /// The national one with proofs that live an hour.
    Development,
}

impl PolicyName {
    /// The policy's TOML.
    pub fn toml(self) -> String {
        match self {
            Self::National => NATIONAL.to_owned(),
            Self::Development => NATIONAL
                .replacen("name = \"national\"", "name = \"development\"\ndevelopment = true", 1)
                .replacen("proof = \"60s\"", "proof = \"1h\"", 1),
        }
    }
}

impl FromStr for PolicyName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "national" => Ok(Self::National),
            "development" => Ok(Self::Development),
            _ => Err("national or development".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::policy::Policy;
    use std::time::Duration;

    #[test]
    fn the_development_policy_differs_in_the_life_of_proofs() {
        let policy = |name: PolicyName| Policy::from_toml(&name.toml()).unwrap();
        assert_eq!(policy(PolicyName::National).lives.proof, Duration::from_secs(60));
        assert_eq!(policy(PolicyName::Development).lives.proof, Duration::from_secs(3600));
        assert_eq!(policy(PolicyName::Development).name, "development");
    }
}
