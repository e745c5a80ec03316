//! Routing: a token's issuer is its home member, and the trust list says where that member's nodes are. Never a broadcast.
//!
//! A member of whom the list says anything new begins anew: what was held by its old keys is gone at once (DESIGN §3).

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwap;
use peer::{serve::Standing, surroundings::Pauses, trust::Trust};
use proto::{member::Member, trust::MemberTrust};
use tokio::{runtime::Handle, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    cache::MemberCache,
    follow::Follower,
    home::Home,
    member::{MemberClient, MemberLimits},
    metrics::ExchangeMetrics,
};

/// The homes of all members, replaced with the trust list.
#[derive(Debug)]
pub(crate) struct Routes {
    standing: Standing,
    bounds: HomeBounds,
    pauses: Pauses,
    runtime: Handle,
    metrics: ExchangeMetrics,
    routes: ArcSwap<BTreeMap<Member, Route>>,
}

/// What each member may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HomeBounds {
    /// Bounds on calls to it.
    pub(crate) member: MemberLimits,
    /// How many bytes of its answers are held.
    pub(crate) max_cache_bytes: u64,
}

#[derive(Clone, Debug)]
struct Route {
    trust: MemberTrust,
    home: Arc<Home>,
    /// None before anything is served: a check of the configuration dials nobody.
    following: Option<Arc<Following>>,
}

/// Follows a member's change log until it is dropped.
#[derive(Debug)]
struct Following(JoinHandle<()>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Routes {
    /// The homes of the members of the trust list held now.
    pub(crate) fn new(
        standing: Standing,
        bounds: HomeBounds,
        pauses: Pauses,
        runtime: Handle,
        metrics: ExchangeMetrics,
    ) -> Self {
        let routes = Self { standing, bounds, pauses, runtime, metrics, routes: ArcSwap::default() };
        routes.refresh(&routes.standing.trust.current(), false);
        routes
    }

    /// A member's home, if the trust list has it.
    pub(crate) fn to(&self, member: Member) -> Option<Arc<Home>> {
        self.routes.load().get(&member).map(|route| route.home.clone())
    }

    /// The homes of all members.
    pub(crate) fn all(&self) -> Vec<(Member, Arc<Home>)> {
        self.routes.load().iter().map(|(member, route)| (*member, route.home.clone())).collect()
    }

    /// Follows the trust list and every member's change log until `shutdown`.
    pub(crate) async fn follow(self: Arc<Self>, shutdown: CancellationToken) {
        let mut changed = self.standing.trust.subscribe();
        loop {
            self.refresh(&self.standing.trust.current(), true);
            tokio::select! {
                () = shutdown.cancelled() => return self.routes.store(Arc::default()),
                change = changed.changed() => if change.is_err() { return },
            }
        }
    }

    /// Members of whom nothing has changed keep what they have; the others' is given up with all that hung on it.
    fn refresh(&self, trust: &Trust, follow: bool) {
        let old = self.routes.load();
        let mut routes = BTreeMap::new();
        for (member, entry) in &trust.list.members {
            let route = match old.get(member).filter(|route| route.trust == *entry) {
                Some(route) if !follow || route.following.is_some() => Ok(route.clone()),
                _ => self.open(*member, entry, follow),
            };
            match route {
                Ok(route) => {
                    routes.insert(*member, route);
                }
                Err(error) => warn!(%member, %error, "the member's endpoints cannot be dialled"),
            }
        }
        self.routes.store(Arc::new(routes));
    }

    fn open(&self, member: Member, trust: &MemberTrust, follow: bool) -> Result<Route, tonic::transport::Error> {
        // Connections live where their channels are made.
        let _home = self.runtime.enter();
        let client = MemberClient::new(member, &trust.endpoints, &self.standing, self.bounds.member)?;
        let cache = MemberCache::new(self.bounds.max_cache_bytes);
        let clock = self.standing.trust.clock().clone();
        let home = Arc::new(Home::new(member, client, cache, clock, self.runtime.clone(), self.metrics.clone()));
        let follower = Follower::new(member, &trust.endpoints, &self.standing, home.clone(), self.pauses.clone())?;
        let following = follow.then(|| Arc::new(Following(self.runtime.spawn(follower.run()))));
        Ok(Route { trust: trust.clone(), home, following })
    }
}
