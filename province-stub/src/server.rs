//! A node as one thing that starts and stops: the same entry for `main`, the tests and the one-machine federation.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use peer::{
    access::{Access, Rule},
    admission::Admission,
    credentials::{CredentialError, Credentials},
    edge::Edge,
    files,
    health::Impaired,
    metrics::{CallMetrics, Metrics, MetricsError},
    serve::{Listeners, ServeError, Service, Standing, serve},
    surroundings::Surroundings,
    trust::{TrustError, TrustStore},
};
use proto::{
    contract::{
        access::access_log_service_server::AccessLogServiceServer,
        assignment::assignment_service_server::AssignmentServiceServer,
        evidence::evidence_service_server::EvidenceServiceServer,
        province::province_service_server::ProvinceServiceServer,
        traveler::traveler_service_server::TravelerServiceServer,
    },
    identity::PeerId,
    member::Member,
    refusal::{Blame, Refusal},
    statement::LogHead,
    token::Cti,
    trust::{MemberTrust, TrustList},
};
use thiserror::Error;
use tokio::{
    task::yield_now,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tracing::{info, warn};

use crate::{
    accesses::Deliveries,
    config::{Config, PostgresConfig},
    home::Home,
    issuance::Issued,
    keys::{KeyError, Keys},
    metrics::NodeMetrics,
    reassessment::{self, AFTER_COMMIT, Progress, Step},
    seed::{self, SeededPerson},
    service::Endpoint,
    standing::{StandingConsent, issue_standing},
    store::{Retention, Store, StoreError, postgres::PostgresStore, sqlite::SqliteStore},
    vault::Vault,
    watch::Watchers,
};

const PROVINCE: &str = "tongxing.province.v1.ProvinceService";
const TRAVELER: &str = "tongxing.traveler.v1.TravelerService";
const ASSIGNMENT: &str = "tongxing.assignment.v1.AssignmentService";
const ACCESS_LOG: &str = "tongxing.access.v1.AccessLogService";

const EVIDENCE: &str = "tongxing.evidence.v1.EvidenceService";
/// Called by another role than the rest of its service.
const PUT_CODES: &str = "tongxing.assignment.v1.AssignmentService/PutCodes";

/// The largest message of services that take in batches: deliveries of access records, evidence, pushed codes. All other calls are
/// about one thing.
pub(crate) const MAX_BATCH_BYTES: usize = 256 * 1024;

/// How often what is past its retention is forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);
/// Between two parts of a long sweep.
const SWEEP_PAUSE: Duration = Duration::from_millis(100);
/// Rows that are sealed anew at once: some ten milliseconds.
const RESEALED_AT_ONCE: u32 = 500;
/// How long the store has to close; with the server's own grace the whole stop stays under 5 s.
const CLOSE_WITHIN: Duration = Duration::from_millis(500);

/// Why a node does not start or did not end well.
#[derive(Debug, Error)]
pub enum NodeError {
    /// The data directory cannot be made.
    #[error("{}: {error}", path.display())]
    DataDir {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// No secrets to work with.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// No trust to work with.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// No certificate to work with.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// The certificate is another peer's.
    #[error("{}: it is the certificate of {found}, and this node is {expected}", path.display())]
    Identity {
        /// The certificate.
        path: PathBuf,
        /// Whose it is.
        found: PeerId,
        /// Whose it should be.
        expected: PeerId,
    },
    /// What this node signs would be believed by nobody.
    #[error("{}: the trust list has no such {what} key for member {member}; publish it before it is used", path.display())]
    NotTrusted {
        /// The key's file.
        path: PathBuf,
        /// What it is for.
        what: &'static str,
        /// The member.
        member: Member,
    },
    /// The store does not open.
    #[error("{place}: the store does not open")]
    Store {
        /// The file, or whose URL it is.
        place: String,
        /// Why.
        #[source]
        error: StoreError,
    },
    /// Metrics cannot be set up.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The server failed.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// A node that is ready to serve.
#[derive(Debug)]
pub struct Node<S = SqliteStore> {
    config: Config,
    standing: Standing,
    metrics: Metrics,
    home: Arc<Home<S>>,
}

/// What the member's own tools may do with a running node, in the same process and past its RPCs.
#[derive(Debug)]
pub struct Handle<S = SqliteStore> {
    home: Arc<Home<S>>,
    trust: Arc<TrustStore>,
}

impl Node {
    /// Reads what it trusts, who it is and what it signs with, and opens its store, in a file. Nothing listens yet.
    pub async fn open(config: Config, surroundings: Surroundings) -> Result<Self, NodeError> {
        make_data_dir(&config)?;
        let (path, random) = (config.database(), surroundings.random.clone());
        Self::over(config, surroundings, async |vault| SqliteStore::open(&path, vault, &*random).await).await
    }
}

impl Node<PostgresStore> {
    /// The same with the store on the server that the configuration names.
    pub async fn connect(
        config: Config,
        server: &PostgresConfig,
        surroundings: Surroundings,
    ) -> Result<Self, NodeError> {
        make_data_dir(&config)?;
        let url = server.url.text()?;
        let (limits, data_dir, random) = (server.limits, config.data_dir.clone(), surroundings.random.clone());
        let open = async |vault| PostgresStore::open(&url, limits, &data_dir, vault, random).await;
        Self::over(config, surroundings, open).await
    }
}

impl<S: Store> Node<S> {
    /// The same over any store, which is opened when all else is right, with what seals its people.
    pub async fn over(
        config: Config,
        surroundings: Surroundings,
        open: impl AsyncFnOnce(Vault) -> Result<S, StoreError>,
    ) -> Result<Self, NodeError> {
        let Surroundings { clock, random, network, .. } = surroundings;
        let keys = Keys::load(&config.keys)?;
        let vault = Vault::load(&config.keys.at_rest, random.clone())?;
        let trust = TrustStore::open(config.trust.clone(), clock)?;
        let credentials = Credentials::open(config.credentials.clone(), &config.domain)?;
        if *credentials.id() != config.id {
            let (found, expected) = (credentials.id().clone(), config.id.clone());
            return Err(NodeError::Identity { path: config.credentials.certificate, found, expected });
        }
        check_trusted(&config, &keys, &trust.current().list)?;
        let store = open(vault).await.map_err(|error| NodeError::Store { place: place(&config), error })?;
        let home = Arc::new(Home { member: config.member, store, keys, random });
        let metrics = Metrics::new("province-stub", credentials.id())?;
        Ok(Self { config, standing: Standing { trust, credentials, network }, metrics, home })
    }

    /// A handle for the member's own tools.
    pub fn handle(&self) -> Handle<S> {
        Handle { home: self.home.clone(), trust: self.standing.trust.clone() }
    }

    /// Closes a node that is not to serve.
    pub async fn close(self) {
        self.home.store.close().await;
    }

    /// Serves until `shutdown`; returns when the store is closed.
    pub async fn serve(self, listeners: Listeners, shutdown: CancellationToken) -> Result<(), NodeError> {
        let Self { config, standing, metrics, home } = self;
        info!(id = %standing.credentials.id(), "node serves");
        let endpoint = Arc::new(Endpoint {
            home: home.clone(),
            trust: standing.trust.clone(),
            metrics: NodeMetrics::new(&metrics.meter()),
            watchers: Arc::new(Watchers::new(config.watch, shutdown.clone())),
            deliveries: Deliveries::of("deliveries"),
            intakes: Deliveries::of("evidence"),
            pushes: Deliveries::of("codes"),
            exports: Deliveries::of("exports"),
            feeds: Arc::new(config.feeds.clone()),
            platforms: Arc::new(config.platforms.clone()),
            stopping: shutdown.clone(),
        });
        let reassessing = tokio::spawn(reassess(home.clone(), standing.trust.clone(), endpoint.metrics.clone()));
        let sweeping = tokio::spawn(sweep(home.clone(), standing.trust.clone()));
        let service = service(endpoint, &config, &metrics);
        let served = serve(listeners, standing, service, metrics, shutdown).await;
        sweeping.abort();
        reassessing.abort();
        if timeout(CLOSE_WITHIN, home.store.close()).await.is_err() {
            // Whatever was committed is durable; the write-ahead log is taken up at the next start.
            warn!("the store was still busy when the node stopped");
        }
        Ok(served?)
    }
}

impl<S> Clone for Handle<S> {
    fn clone(&self) -> Self {
        Self { home: self.home.clone(), trust: self.trust.clone() }
    }
}

impl<S: Store> Handle<S> {
    /// The member whose node it is.
    pub fn member(&self) -> Member {
        self.home.member
    }

    /// Adds the first `count` seeded people, whom it has not yet, and says who they are.
    pub async fn seed(&self, count: u32) -> Result<Vec<SeededPerson>, Refusal> {
        let people = seed::people(self.home.member, count, &self.trust.current().policy);
        let now = self.trust.clock().now();
        self.home.store.seed(&seed::records(&people, now), now).await?;
        Ok(people)
    }

    /// Issues standing consents, all or none, in the order given.
    pub async fn issue_standing(&self, consents: Vec<StandingConsent>) -> Result<Vec<Issued>, Refusal> {
        let trust = self.trust.usable()?;
        issue_standing(&self.home, &trust.policy, self.trust.clock().now(), consents).await
    }

    /// Revokes all standing consents that still live, each an event in the change log, and says how many they were.
    pub async fn revoke_standing(&self) -> Result<u32, Refusal> {
        Ok(self.home.store.revoke_standing(self.trust.clock().now(), &*self.home.random).await?)
    }

    /// Revokes one consent and says where the change log stands.
    pub async fn revoke_consent(&self, cti: Cti) -> Result<LogHead, Refusal> {
        Ok(self.home.store.revoke_consent(cti, None, self.trust.clock().now()).await?)
    }
}

/// The five services behind the edge, and who may call which.
fn service<S: Store>(endpoint: Arc<Endpoint<S>>, config: &Config, metrics: &Metrics) -> Service {
    let (member, limits) = (config.member, config.limits);
    let max = limits.max_request_bytes;
    let rules = [
        Rule { service: PROVINCE, roles: &["gateway"], member: None },
        Rule { service: TRAVELER, roles: &["backend"], member: Some(member) },
        Rule { service: PUT_CODES, roles: &["backend"], member: Some(member) },
        Rule { service: ASSIGNMENT, roles: &["operator"], member: Some(member) },
        Rule { service: EVIDENCE, roles: &["feed"], member: Some(member) },
        Rule { service: ACCESS_LOG, roles: &["gateway"], member: None },
    ];
    let methods = [
        "tongxing.province.v1.ProvinceService/Lookup",
        "tongxing.province.v1.ProvinceService/GetNode",
        "tongxing.province.v1.ProvinceService/WatchChanges",
        "tongxing.traveler.v1.TravelerService/EnrollDevice",
        "tongxing.traveler.v1.TravelerService/IssueConsent",
        "tongxing.traveler.v1.TravelerService/ListConsents",
        "tongxing.traveler.v1.TravelerService/RevokeConsent",
        "tongxing.traveler.v1.TravelerService/ListAccesses",
        "tongxing.traveler.v1.TravelerService/DeleteTraveler",
        "tongxing.traveler.v1.TravelerService/GetCode",
        "tongxing.traveler.v1.TravelerService/ExportTraveler",
        "tongxing.assignment.v1.AssignmentService/SetCode",
        "tongxing.assignment.v1.AssignmentService/ClearCode",
        "tongxing.assignment.v1.AssignmentService/ExplainCode",
        PUT_CODES,
        "tongxing.evidence.v1.EvidenceService/PutEvidence",
        "tongxing.access.v1.AccessLogService/RecordAccesses",
    ];
    let province = ProvinceServiceServer::from_arc(endpoint.clone()).max_decoding_message_size(max);
    let traveler = TravelerServiceServer::from_arc(endpoint.clone()).max_decoding_message_size(max);
    let assignment = AssignmentServiceServer::from_arc(endpoint.clone()).max_decoding_message_size(MAX_BATCH_BYTES);
    let evidence = EvidenceServiceServer::from_arc(endpoint.clone()).max_decoding_message_size(MAX_BATCH_BYTES);
    let access_log = AccessLogServiceServer::from_arc(endpoint).max_decoding_message_size(MAX_BATCH_BYTES);
    let routes = Routes::new(province).add_service(traveler).add_service(assignment).add_service(evidence);
    Service {
        routes: routes.add_service(access_log),
        names: &[PROVINCE, TRAVELER, ASSIGNMENT, EVIDENCE, ACCESS_LOG],
        edge: Edge {
            access: Access::new(rules),
            admission: Admission::new(limits.admission),
            max_duration: limits.max_duration,
            max_request_bytes: max,
            blame: Blame::Home,
            metrics: CallMetrics::new(metrics, methods),
            id: config.id.to_string().into(),
        },
        impaired: Impaired::default(),
        status: None,
        limits,
    }
}

fn make_data_dir(config: &Config) -> Result<(), NodeError> {
    files::create_private_dir(&config.data_dir)
        .map_err(|error| NodeError::DataDir { path: config.data_dir.clone(), error })
}

/// Where the store is, in words: a URL may hold a password.
fn place(config: &Config) -> String {
    match &config.postgres {
        Some(server) => format!("the server of {}", server.url),
        None => config.database().display().to_string(),
    }
}

/// A node whose keys the federation does not know would issue tokens and sign statements that nobody believes.
fn check_trusted(config: &Config, keys: &Keys, list: &TrustList) -> Result<(), NodeError> {
    let trust = list.members.get(&config.member);
    let has = |check: &dyn Fn(&MemberTrust) -> bool| trust.is_some_and(check);
    let not_trusted =
        |path: &PathBuf, what| Err(NodeError::NotTrusted { path: path.clone(), what, member: config.member });
    if !has(&|trust| trust.consent_keys.contains_key(&keys.consent.verifying_key().kid())) {
        return not_trusted(&config.keys.consent, "consent");
    }
    if !has(&|trust| trust.statement_keys.contains_key(&keys.statement.verifying_key().kid())) {
        return not_trusted(&config.keys.statement, "statement");
    }
    if !has(&|trust| keys.sealing.public_key() == Some(trust.sealing_key)) {
        return not_trusted(&config.keys.sealing, "sealing");
    }
    Ok(())
}

/// Works out the codes that time has changed, and by other rules all of them.
async fn reassess<S: Store>(home: Arc<Home<S>>, trust: Arc<TrustStore>, metrics: NodeMetrics) {
    let (mut commits, mut progress) = (home.store.commits(), Progress::default());
    loop {
        let (standing, now) = (trust.current(), trust.clock().now());
        commits.mark_unchanged();
        let edition = standing.policy_edition.version;
        match reassessment::some(&home, &standing.policy, edition, &mut progress, now).await {
            Ok(Step::Nothing(rest)) => {
                tokio::select! {
                    () = sleep(rest) => {}
                    Ok(()) = commits.changed() => sleep(AFTER_COMMIT).await,
                }
            }
            // There may be more; whoever waits to write goes first.
            Ok(Step::Done(effect)) => {
                metrics.changed(effect.changed);
                yield_now().await;
            }
            Err(error) => {
                warn!(%error, "codes that time has changed could not be worked out");
                sleep(reassessment::EVERY).await;
            }
        }
    }
}

/// Forgets what is past its retention, now and then, and seals anew what older keys have sealed.
async fn sweep<S: Store>(home: Arc<Home<S>>, trust: Arc<TrustStore>) {
    let mut tick = interval(SWEEP_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let policy = &trust.current().policy;
        let retention = Retention { accesses: policy.access_log.home_retention, evidence: policy.evidence.retention };
        let swept = in_parts(|| home.store.sweep(trust.clock().now(), retention)).await;
        if let Err(error) = swept {
            warn!(%error, "what is past its retention could not be forgotten");
        }
        if let Err(error) = in_parts(|| home.store.reseal(RESEALED_AT_ONCE)).await {
            warn!(%error, "what older keys sealed could not be sealed anew");
        }
    }
}

/// Does part after part, until nothing is left to do.
async fn in_parts<F>(part: impl Fn() -> F) -> Result<(), StoreError>
where
    F: Future<Output = Result<u64, StoreError>>,
{
    while part().await? > 0 {
        // There may be more; whoever waits to write goes first.
        sleep(SWEEP_PAUSE).await;
    }
    Ok(())
}
