//! Who a peer is: exactly one SPIFFE id in its certificate, under its member's own trust domain.
//!
//! Development: `spiffe://44.tongxing.test/node/1`, `…/backend/yuekangma`, `…/venue/station/guangzhou-south`,
//! `…/feed/lab-1`, `…/operator/li`, `spiffe://gateway.tongxing.test/replica/1`.

use std::{fmt, str::FromStr};

use thiserror::Error;

use crate::{
    member::Member,
    terms::Category,
    venue::{VenueId, is_name},
};

/// The federation's own domain, under which each member has its trust domain. Lower-case DNS, at most 200 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FederationDomain(Box<str>);

/// A trust domain: whose CA may vouch for a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Realm {
    /// The national gateway's.
    Gateway,
    /// A member's.
    Member(Member),
}

/// What a peer may be within its realm.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// A member's app server, speaking for travelers and for the member's own venues.
    Backend(Box<str>),
    /// A source of evidence.
    Feed(Box<str>),
    /// A replica of the gateway; the only role of the gateway's realm.
    Gateway(Box<str>),
    /// A member's node.
    Node(Box<str>),
    /// A person who operates a member's node.
    Operator(Box<str>),
    /// A checkpoint.
    Venue(VenueId),
}

/// An authenticated peer's identity (SPIFFE-ID §2): realm and role, always consistent with each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId {
    realm: Realm,
    role: Role,
}

/// Why a text is not a federation domain or a peer's id.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// Not a DNS domain.
    #[error("not a lower-case DNS domain")]
    Domain,
    /// Not a SPIFFE id of this federation's form.
    #[error("not a SPIFFE id of the form this federation uses")]
    Form,
    /// A SPIFFE id under another domain, or of a member that does not exist.
    #[error("the trust domain is not one of this federation")]
    TrustDomain,
}

impl FederationDomain {
    /// The trust domain of a realm: `44.tongxing.test`, `gateway.tongxing.test`.
    pub fn trust_domain(&self, realm: Realm) -> String {
        format!("{realm}.{}", self.0)
    }

    /// The SPIFFE id of a peer.
    pub fn spiffe_id(&self, peer: &PeerId) -> String {
        let domain = self.trust_domain(peer.realm);
        match &peer.role {
            Role::Venue(venue) => format!("spiffe://{domain}/venue/{}/{}", venue.category(), venue.name()),
            Role::Gateway(name) => format!("spiffe://{domain}/replica/{name}"),
            role @ (Role::Backend(name) | Role::Feed(name) | Role::Node(name) | Role::Operator(name)) => {
                format!("spiffe://{domain}/{}/{name}", role.word())
            }
        }
    }

    /// Reads a SPIFFE id of this federation.
    pub fn parse_spiffe_id(&self, uri: &str) -> Result<PeerId, IdentityError> {
        let rest = uri.strip_prefix("spiffe://").ok_or(IdentityError::Form)?;
        let (domain, path) = rest.split_once('/').ok_or(IdentityError::Form)?;
        let realm = self.parse_trust_domain(domain)?;
        let parts: Vec<_> = path.split('/').collect();
        if !parts.iter().all(|part| is_name(part) && part.len() <= VenueId::MAX_BYTES) {
            return Err(IdentityError::Form);
        }
        let role = match (realm, parts.as_slice()) {
            (Realm::Gateway, ["replica", name]) => Role::Gateway((*name).into()),
            (Realm::Member(_), ["backend", name]) => Role::Backend((*name).into()),
            (Realm::Member(_), ["feed", name]) => Role::Feed((*name).into()),
            (Realm::Member(_), ["node", name]) => Role::Node((*name).into()),
            (Realm::Member(_), ["operator", name]) => Role::Operator((*name).into()),
            (Realm::Member(member), ["venue", category, name]) => {
                let category: Category = category.parse().map_err(|_| IdentityError::Form)?;
                Role::Venue(format!("{member}/{category}/{name}").parse().map_err(|_| IdentityError::Form)?)
            }
            _ => return Err(IdentityError::Form),
        };
        Ok(PeerId { realm, role })
    }

    fn parse_trust_domain(&self, domain: &str) -> Result<Realm, IdentityError> {
        let label =
            domain.strip_suffix(&*self.0).and_then(|head| head.strip_suffix('.')).ok_or(IdentityError::TrustDomain)?;
        match label {
            "gateway" => Ok(Realm::Gateway),
            code => Ok(Realm::Member(code.parse().map_err(|_| IdentityError::TrustDomain)?)),
        }
    }
}

impl FromStr for FederationDomain {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let valid = text.len() <= 200 && text.split('.').all(|label| is_name(label) && label.len() <= 63);
        if valid { Ok(Self(text.into())) } else { Err(IdentityError::Domain) }
    }
}

impl fmt::Display for FederationDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Realm {
    /// The first label of the trust domain.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway => f.write_str("gateway"),
            Self::Member(member) => member.fmt(f),
        }
    }
}

impl Role {
    /// The word for it, in ids, metrics and error metadata.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Backend(_) => "backend",
            Self::Feed(_) => "feed",
            Self::Gateway(_) => "gateway",
            Self::Node(_) => "node",
            Self::Operator(_) => "operator",
            Self::Venue(_) => "venue",
        }
    }
}

impl PeerId {
    /// A replica of the gateway. `None` if the name is not one (see [`VenueId`] for its form).
    pub fn gateway(name: &str) -> Option<Self> {
        is_name(name).then(|| Self { realm: Realm::Gateway, role: Role::Gateway(name.into()) })
    }

    /// A member's node.
    pub fn node(member: Member, name: &str) -> Option<Self> {
        is_name(name).then(|| Self { realm: Realm::Member(member), role: Role::Node(name.into()) })
    }

    /// A member's backend.
    pub fn backend(member: Member, name: &str) -> Option<Self> {
        is_name(name).then(|| Self { realm: Realm::Member(member), role: Role::Backend(name.into()) })
    }

    /// A member's feed.
    pub fn feed(member: Member, name: &str) -> Option<Self> {
        is_name(name).then(|| Self { realm: Realm::Member(member), role: Role::Feed(name.into()) })
    }

    /// A member's operator.
    pub fn operator(member: Member, name: &str) -> Option<Self> {
        is_name(name).then(|| Self { realm: Realm::Member(member), role: Role::Operator(name.into()) })
    }

    /// A venue.
    pub fn venue(venue: VenueId) -> Self {
        Self { realm: Realm::Member(venue.member()), role: Role::Venue(venue) }
    }

    /// Whose CA vouches for it.
    pub const fn realm(&self) -> Realm {
        self.realm
    }

    /// What it may be.
    pub const fn role(&self) -> &Role {
        &self.role
    }

    /// Its member; `None` for the gateway.
    pub const fn member(&self) -> Option<Member> {
        match self.realm {
            Realm::Gateway => None,
            Realm::Member(member) => Some(member),
        }
    }
}

impl fmt::Display for PeerId {
    /// Short form for logs, without the federation's domain: `44/backend/yuekangma`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.role {
            Role::Venue(venue) => write!(f, "{}/venue/{}/{}", self.realm, venue.category(), venue.name()),
            Role::Gateway(name) => write!(f, "{}/replica/{name}", self.realm),
            Role::Backend(name) | Role::Feed(name) | Role::Node(name) | Role::Operator(name) => {
                write!(f, "{}/{}/{name}", self.realm, self.role.word())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain() -> FederationDomain {
        "tongxing.test".parse().unwrap()
    }

    #[test]
    fn ids_survive_a_round_trip() {
        for uri in [
            "spiffe://44.tongxing.test/node/1",
            "spiffe://44.tongxing.test/backend/yuekangma",
            "spiffe://44.tongxing.test/venue/station/guangzhou-south",
            "spiffe://44.tongxing.test/feed/lab-1",
            "spiffe://44.tongxing.test/operator/li",
            "spiffe://gateway.tongxing.test/replica/1",
        ] {
            let peer = domain().parse_spiffe_id(uri).unwrap();
            assert_eq!(domain().spiffe_id(&peer), uri);
        }
    }

    #[test]
    fn foreign_domains_and_crossed_roles_are_refused() {
        for (uri, error) in [
            ("spiffe://44.other.test/node/1", IdentityError::TrustDomain),
            ("spiffe://99.tongxing.test/node/1", IdentityError::TrustDomain),
            ("spiffe://tongxing.test/node/1", IdentityError::TrustDomain),
            ("spiffe://x44.tongxing.test/node/1", IdentityError::TrustDomain),
            ("spiffe://44.tongxing.test/replica/1", IdentityError::Form),
            ("spiffe://gateway.tongxing.test/node/1", IdentityError::Form),
            ("spiffe://44.tongxing.test/venue/castle/x", IdentityError::Form),
            ("spiffe://44.tongxing.test/venue/station", IdentityError::Form),
            ("spiffe://44.tongxing.test/node/1/2", IdentityError::Form),
            ("spiffe://44.tongxing.test/node/", IdentityError::Form),
            ("spiffe://44.tongxing.test/node/A", IdentityError::Form),
            ("https://44.tongxing.test/node/1", IdentityError::Form),
        ] {
            assert_eq!(domain().parse_spiffe_id(uri), Err(error), "{uri}");
        }
    }
}
