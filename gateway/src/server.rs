//! The gateway as one thing that starts and stops: the same entry for `main`, the tests and the one-machine federation.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use peer::{
    access::{Access, Rule},
    admission::Admission,
    credentials::{CredentialError, Credentials},
    edge::Edge,
    files,
    health::Impaired,
    metrics::{CallMetrics, Metrics, MetricsError},
    private::StatusPage,
    serve::{Listeners, ServeError, Service, Standing, serve},
    surroundings::{Blocking, Surroundings},
    trust::{TrustError, TrustStore},
};
use proto::{
    contract::{
        federation::federation_service_server::FederationServiceServer,
        recognition::recognition_service_server::RecognitionServiceServer,
    },
    member::Member,
    refusal::Blame,
};
use thiserror::Error;
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes as GrpcRoutes;
use tracing::info;

use crate::{
    board::Board,
    config::Config,
    deliver::Deliveries,
    exchange::Exchange,
    federation::{Federation, Proofs},
    metrics::{DeliveryMetrics, ExchangeMetrics, RecordMetrics, show_unsubstantiated},
    record::{Around, Record, Writer},
    redemption::Redemptions,
    route::{HomeBounds, Routes},
    runtime::OwnRuntime,
    service::Recognition,
    status::Reporter,
    stream::StreamLimits,
    unsubstantiated::Unsubstantiated,
};

const RECOGNITION: &str = "tongxing.recognition.v1.RecognitionService";
const FEDERATION: &str = "tongxing.federation.v1.FederationService";

const RULES: [Rule; 2] = [
    Rule { service: RECOGNITION, roles: &["venue", "backend"], member: None },
    Rule { service: FEDERATION, roles: &["backend", "feed", "gateway", "node", "operator", "venue"], member: None },
];

const METHODS: [&str; 9] = [
    "tongxing.recognition.v1.RecognitionService/Recognize",
    "tongxing.recognition.v1.RecognitionService/RecognizeStream",
    "tongxing.federation.v1.FederationService/GetTrustList",
    "tongxing.federation.v1.FederationService/WatchTrustList",
    "tongxing.federation.v1.FederationService/GetPolicy",
    "tongxing.federation.v1.FederationService/WatchPolicy",
    "tongxing.federation.v1.FederationService/ListMembers",
    "tongxing.federation.v1.FederationService/WatchMembers",
    "tongxing.federation.v1.FederationService/GetInclusionProof",
];

/// How long the record's writer has to end once the server has; with the server's own grace the stop stays under 5 s.
const FLUSH: Duration = Duration::from_secs(1);

/// Why the gateway does not start or did not end well.
#[derive(Debug, Error)]
pub enum GatewayError {
    /// The data directory cannot be made.
    #[error("{}: {error}", path.display())]
    DataDir {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// No trust to work with.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// No certificate to work with.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// The threads on which homes are asked, or records delivered, do not start.
    #[error("threads: {0}")]
    Runtime(io::Error),
    /// The access record cannot be kept (I2).
    #[error("access record: {0}")]
    Record(String),
    /// Metrics cannot be set up.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The server failed.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// A gateway that is ready to serve.
#[derive(Debug)]
pub struct Gateway {
    config: Config,
    standing: Standing,
    metrics: Metrics,
    exchange: Arc<Exchange>,
    routes: Arc<Routes>,
    writer: Writer,
    impaired: Impaired,
    blocking: Blocking,
    homes: OwnRuntime,
    delivery: OwnRuntime,
}

impl Gateway {
    /// Reads what it trusts and who it is, and opens its record. Nothing listens yet.
    pub fn open(config: Config, surroundings: Surroundings) -> Result<Self, GatewayError> {
        let Surroundings { clock, random, network, blocking, pauses } = surroundings;
        files::create_private_dir(&config.data_dir)
            .map_err(|error| GatewayError::DataDir { path: config.data_dir.clone(), error })?;
        let trust = TrustStore::open(config.trust.clone(), clock.clone())?;
        let credentials = Credentials::open(config.credentials.clone(), &config.domain)?;
        let standing = Standing { trust, credentials, network };
        let metrics = Metrics::new("gateway", standing.credentials.id())?;
        let meter = metrics.meter();
        let impaired = Impaired::default();
        let around = Around {
            domain: config.domain.clone(),
            clock: clock.clone(),
            metrics: RecordMetrics::new(&meter),
            impaired: impaired.clone(),
            blocking,
        };
        let (record, writer, claims) = Record::open(&config.data_dir, config.limits.record, around)
            .map_err(|error| GatewayError::Record(error.to_string()))?;
        let redemptions = Redemptions::new(config.limits.max_redemptions, config.replicas > 1, claims);
        let exchange_metrics = ExchangeMetrics::new(&meter);
        let unsubstantiated = Arc::new(Unsubstantiated::new(config.limits.unsubstantiated));
        show_unsubstantiated(&meter, &unsubstantiated, &clock);
        let share = config.limits.max_cache_bytes / Member::all().count() as u64;
        let bounds = HomeBounds { member: config.limits.member, max_cache_bytes: share };
        let homes = OwnRuntime::start("home", blocking).map_err(GatewayError::Runtime)?;
        let delivery = OwnRuntime::start("deliver", blocking).map_err(GatewayError::Runtime)?;
        let handle = homes.handle().clone();
        let routes = Routes::new(standing.clone(), bounds, pauses.clone(), handle, exchange_metrics.clone());
        let routes = Arc::new(routes);
        let exchange = Exchange {
            standing: standing.clone(),
            routes: routes.clone(),
            redemptions,
            record,
            metrics: exchange_metrics,
            unsubstantiated,
            random,
            pauses,
        };
        let exchange = Arc::new(exchange);
        Ok(Self { config, standing, metrics, exchange, routes, writer, impaired, blocking, homes, delivery })
    }

    /// Serves until `shutdown`; returns when everything on record is durable.
    pub async fn serve(self, listeners: Listeners, shutdown: CancellationToken) -> Result<(), GatewayError> {
        let Self { config, standing, metrics, exchange, routes, writer, impaired, blocking, homes, delivery } = self;
        let (limits, server) = (config.limits, config.limits.server);
        info!(id = %standing.credentials.id(), members = standing.trust.current().list.members.len(), "gateway serves");
        let following = tokio::spawn(routes.clone().follow(shutdown.clone()));
        let deliveries = Deliveries {
            standing: standing.clone(),
            record: exchange.record.clone(),
            limits: limits.delivery,
            metrics: DeliveryMetrics::new(&metrics.meter()),
            runtime: delivery.handle().clone(),
        };
        let delivering = tokio::spawn(deliveries.run(shutdown.clone()));
        let board = Arc::new(Board::new());
        let clock = standing.trust.clock().clone();
        let reporter = Reporter {
            standing: standing.clone(),
            routes: routes.clone(),
            board: board.clone(),
            metrics: metrics.clone(),
            impaired: impaired.clone(),
            logs: exchange.record.reader().clone(),
            space: exchange.record.space().clone(),
            unsubstantiated: exchange.unsubstantiated.clone(),
            started: clock.now(),
        };
        let counting = tokio::spawn(exchange.unsubstantiated.clone().keep(clock.clone(), shutdown.clone()));
        let boarding = tokio::spawn(board.clone().keep(routes, clock, limits.board_every, shutdown.clone()));
        let admission = Admission::new(server.admission);
        let recognition = Recognition {
            exchange: exchange.clone(),
            admission: admission.clone(),
            stream_limits: StreamLimits {
                max_in_flight: limits.max_in_flight_per_stream,
                max_duration: server.max_duration,
            },
        };
        let recognition =
            RecognitionServiceServer::new(recognition).max_decoding_message_size(server.max_request_bytes);
        let logs = exchange.record.reader().clone();
        let proofs = Proofs::new(logs, blocking);
        let federation = Federation::new(standing.trust.clone(), board, proofs, limits.max_watchers, shutdown.clone());
        let federation = FederationServiceServer::new(federation).max_decoding_message_size(server.max_request_bytes);
        let service = Service {
            routes: GrpcRoutes::new(recognition).add_service(federation),
            names: &[RECOGNITION, FEDERATION],
            edge: Edge {
                access: Access::new(RULES),
                admission,
                max_duration: server.max_duration,
                max_request_bytes: server.max_request_bytes,
                blame: Blame::Gateway,
                metrics: CallMetrics::new(&metrics, METHODS),
                id: standing.credentials.id().to_string().into(),
            },
            impaired,
            status: Some(StatusPage::new(move || reporter.to_json())),
            limits: server,
        };
        let served = serve(listeners, standing, service, metrics, shutdown).await;
        [following, boarding, counting, delivering].iter().for_each(JoinHandle::abort);
        drop(exchange);
        // The last sender goes with the last exchange; what they queued is committed before this returns.
        let written = timeout(FLUSH, writer.ended()).await;
        drop((homes, delivery));
        served?;
        written.map_err(|_| GatewayError::Record("exchanges were still under way when the gateway stopped".into()))
    }
}
