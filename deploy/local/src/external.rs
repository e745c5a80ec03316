//! Nodes that are somebody else's: a member whose node this federation does not start, but prepares and asks.

use std::{
    collections::BTreeMap,
    fmt,
    net::{Ipv4Addr, SocketAddr},
    str::FromStr,
};

use proto::member::Member;

/// A foreign node: whose it is and where; written `44=HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct External {
    /// Its member.
    pub member: Member,
    /// Where it listens.
    pub address: Address,
}

/// `HOST:PORT`: a name or an address, and a port from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
}

/// What `--external` says: foreign nodes, or `none` where there were some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExternalOption {
    /// None any more.
    None,
    /// This one.
    Node(External),
}

/// Where foreign nodes are, by member's code.
pub type Externals = BTreeMap<String, String>;

impl Address {
    /// The name or address alone, as a certificate has it.
    pub fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// Where a node with this address listens: there, if that is an address of a machine; on all of this one's if it is a
    /// name.
    pub fn listen(&self) -> SocketAddr {
        let anywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, self.port));
        self.to_string().parse().unwrap_or(anywhere)
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text} is not HOST:PORT");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
        let address = Self { host: host.to_owned(), port };
        let name = |host: &str| {
            (1..=253).contains(&host.len()) && host.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
        };
        let valid = name(host) || address.to_string().parse::<SocketAddr>().is_ok();
        if valid { Ok(address) } else { Err(wrong()) }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl FromStr for ExternalOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::None);
        }
        let (member, address) = text.split_once('=').ok_or("MEMBER=HOST:PORT, or none")?;
        let member = member.parse().map_err(|error| format!("{error}"))?;
        Ok(Self::Node(External { member, address: address.parse()? }))
    }
}

/// What is asked for; what is not said stays as it was.
pub(crate) fn of(asked: Option<&[ExternalOption]>, before: Option<&Externals>) -> Externals {
    match asked {
        None => before.cloned().unwrap_or_default(),
        Some(asked) => asked
            .iter()
            .filter_map(|option| match option {
                ExternalOption::None => None,
                ExternalOption::Node(node) => Some((node.member.to_string(), node.address.to_string())),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_named_by_member_and_address() {
        for (text, host, listen) in [
            ("44=127.0.0.1:21400", "127.0.0.1", "127.0.0.1:21400"),
            ("44=[::1]:7500", "::1", "[::1]:7500"),
            ("44=node.gd.example:443", "node.gd.example", "0.0.0.0:443"),
        ] {
            let Ok(ExternalOption::Node(node)) = text.parse() else { panic!("{text}") };
            assert_eq!((node.member.to_string().as_str(), node.address.host()), ("44", host));
            assert_eq!(node.address.listen(), listen.parse().unwrap());
            assert_eq!(text, format!("{}={}", node.member, node.address));
        }
        for wrong in
            ["44", "44=", "44=host", "44=host:0", "44=host:65536", "44=:1", "99=host:1", "44=a b:1", "44=::1:1"]
        {
            assert!(wrong.parse::<ExternalOption>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_not_said_stays_and_none_is_nobody() {
        let before = of(Some(&["44=a:1".parse().unwrap(), "51=b:2".parse().unwrap()]), None);
        assert_eq!(before.len(), 2);
        assert_eq!(of(None, Some(&before)), before);
        assert_eq!(of(Some(&["11=c:3".parse().unwrap()]), Some(&before)).len(), 1);
        assert!(of(Some(&[ExternalOption::None]), Some(&before)).is_empty());
        assert!(of(None, None).is_empty());
    }
}
