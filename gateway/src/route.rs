//! Routing: a token's issuer is its home member, and the trust list says where that member's nodes are. Never a broadcast.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use peer::{serve::Standing, trust::Trust};
use proto::{member::Member, trust::MemberTrust};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::member::{MemberClient, MemberLimits};

/// The clients of all members, replaced with the trust list.
#[derive(Debug)]
pub(crate) struct Routes {
    standing: Standing,
    limits: MemberLimits,
    clients: ArcSwap<HashMap<Member, Route>>,
}

#[derive(Clone, Debug)]
struct Route {
    trust: MemberTrust,
    client: Arc<MemberClient>,
}

impl Routes {
    /// Clients for the members of the trust list held now.
    pub(crate) fn new(standing: Standing, limits: MemberLimits) -> Self {
        let routes = Self { standing, limits, clients: ArcSwap::default() };
        routes.refresh(&routes.standing.trust.current());
        routes
    }

    /// The client of a member, if the trust list has it.
    pub(crate) fn to(&self, member: Member) -> Option<Arc<MemberClient>> {
        self.clients.load().get(&member).map(|route| route.client.clone())
    }

    /// The clients of all members.
    pub(crate) fn all(&self) -> Vec<(Member, Arc<MemberClient>)> {
        self.clients.load().iter().map(|(member, route)| (*member, route.client.clone())).collect()
    }

    /// Follows the trust list until `shutdown`.
    pub(crate) async fn follow(self: Arc<Self>, shutdown: CancellationToken) {
        let mut changed = self.standing.trust.subscribe();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                change = changed.changed() => if change.is_err() { return },
            }
            self.refresh(&self.standing.trust.current());
        }
    }

    /// Members of whom nothing has changed keep their connections; the others' are given up with all that hung on them.
    fn refresh(&self, trust: &Trust) {
        let old = self.clients.load();
        let mut clients = HashMap::new();
        for (member, entry) in &trust.list.members {
            let kept = old.get(member).filter(|route| route.trust == *entry);
            let client = match kept {
                Some(route) => Ok(route.client.clone()),
                None => MemberClient::new(*member, &entry.endpoints, &self.standing, self.limits).map(Arc::new),
            };
            match client {
                Ok(client) => {
                    clients.insert(*member, Route { trust: entry.clone(), client });
                }
                Err(error) => warn!(%member, %error, "the member's endpoints cannot be dialled"),
            }
        }
        self.clients.store(Arc::new(clients));
    }
}
