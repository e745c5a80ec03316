//! Which roles may call what: anything else is refused. Health and reflection are open to any authenticated peer; a service
//! that nobody made a rule for is open to nobody.

use std::{net::SocketAddr, sync::Arc};

use proto::{
    identity::PeerId,
    member::Member,
    refusal::{Reason, Refusal},
};

/// The authenticated peer of a call; in the extensions of every request.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who it is.
    pub peer: PeerId,
    /// Where it calls from.
    pub address: SocketAddr,
}

/// The caller of a request.
///
/// # Errors
/// INTERNAL if the request did not come through [`crate::accept`]: a defect of assembly.
pub fn caller<T>(request: &tonic::Request<T>) -> Result<&Caller, Refusal> {
    request.extensions().get::<Caller>().ok_or_else(|| Refusal::new(Reason::Internal))
}

/// One service, or one method that differs from the rest of its service, and who may call it.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The service's full name, e.g. `tongxing.province.v1.ProvinceService`, or one of its methods': the same with `/Lookup`.
    pub service: &'static str,
    /// The words of the roles that may call it ([`proto::identity::Role::word`]).
    pub roles: &'static [&'static str],
    /// The member whose peers alone may call it, if it is for one member only.
    pub member: Option<Member>,
}

/// Open to any authenticated peer.
const OPEN: [&str; 3] =
    ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];

/// Who may call what on one server.
#[derive(Clone, Debug)]
pub struct Access(Arc<[Rule]>);

impl Access {
    /// From rules.
    pub fn new(rules: impl IntoIterator<Item = Rule>) -> Self {
        Self(rules.into_iter().collect())
    }

    /// Checks a call by its HTTP/2 path, `/<service>/<method>`.
    pub fn check(&self, path: &str, peer: &PeerId) -> Result<(), Refusal> {
        let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.rsplit_once('/')) else {
            return Err(Refusal::new(Reason::MethodUnknown));
        };
        if OPEN.contains(&service) {
            return Ok(());
        }
        // A method's own rule goes before its service's.
        let find = |name: &str| self.0.iter().find(|rule| rule.service == name);
        let rule = find(&path[1..]).or_else(|| find(service)).ok_or_else(|| Refusal::new(Reason::MethodUnknown))?;
        if !rule.roles.contains(&peer.role().word()) {
            return Err(Refusal::new(Reason::RoleNotAllowed).with("role", peer.role().word()).with("method", method));
        }
        match rule.member {
            Some(member) if peer.member() != Some(member) => {
                Err(Refusal::new(Reason::MemberNotAllowed).with("member", member))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: [Rule; 3] = [
        Rule { service: "a.B/Push", roles: &["feed"], member: Some(Member::PLATFORM) },
        Rule { service: "a.A", roles: &["gateway"], member: None },
        Rule { service: "a.B", roles: &["backend", "operator"], member: Some(Member::PLATFORM) },
    ];

    fn reason(path: &str, peer: &PeerId) -> Option<Reason> {
        Access::new(RULES).check(path, peer).err().map(|refusal| refusal.reason())
    }

    #[test]
    fn roles_and_members_are_checked() {
        let gateway = PeerId::gateway("1").unwrap();
        let own = PeerId::backend(Member::PLATFORM, "app").unwrap();
        let other = PeerId::backend("44".parse().unwrap(), "app").unwrap();
        assert_eq!(reason("/a.A/Do", &gateway), None);
        assert_eq!(reason("/a.A/Do", &own), Some(Reason::RoleNotAllowed));
        assert_eq!(reason("/a.B/Do", &own), None);
        assert_eq!(reason("/a.B/Do", &other), Some(Reason::MemberNotAllowed));
        assert_eq!(reason("/a.B/Do", &gateway), Some(Reason::RoleNotAllowed));
        assert_eq!(reason("/a.B/Push", &own), Some(Reason::RoleNotAllowed));
        assert_eq!(reason("/grpc.health.v1.Health/Check", &other), None);
        for unknown in ["/a.C/Do", "/grpc.health.v1.Healthy/Check", "/", "", "a.A/Do"] {
            assert_eq!(reason(unknown, &gateway), Some(Reason::MethodUnknown), "{unknown}");
        }
    }
}
