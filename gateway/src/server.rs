//! The gateway as one thing that starts and stops: the same entry for `main`, the tests and the one-machine federation.

use std::{fs, io, path::PathBuf, sync::Arc};

use peer::{
    access::{Access, Rule},
    admission::Admission,
    credentials::{CredentialError, Credentials},
    edge::Edge,
    metrics::{CallMetrics, Metrics, MetricsError},
    serve::{Listeners, ServeError, Service, Standing, serve},
    trust::{TrustError, TrustStore},
};
use proto::{
    contract::recognition::recognition_service_server::RecognitionServiceServer, random::Random, refusal::Blame,
    time::Clock,
};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes as GrpcRoutes;
use tracing::info;

use crate::{
    config::Config,
    exchange::Exchange,
    metrics::{ExchangeMetrics, RecordMetrics},
    record::{Record, Writer},
    redemption::Redemptions,
    route::Routes,
    service::Recognition,
};

const RECOGNITION: &str = "tongxing.recognition.v1.RecognitionService";

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
}

impl Gateway {
    /// Reads what it trusts and who it is, and opens its record. Nothing listens yet.
    pub fn open(config: Config, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Result<Self, GatewayError> {
        create_private_dir(&config.data_dir)
            .map_err(|error| GatewayError::DataDir { path: config.data_dir.clone(), error })?;
        let trust = TrustStore::open(config.trust.clone(), clock.clone())?;
        let credentials = Credentials::open(config.credentials.clone(), &config.domain)?;
        let standing = Standing { trust, credentials };
        let metrics = Metrics::new()?;
        let meter = metrics.meter();
        let (record, writer, claims) =
            Record::open(&config.data_dir, config.limits.record, clock, RecordMetrics::new(&meter))
                .map_err(|error| GatewayError::Record(error.to_string()))?;
        let redemptions = Redemptions::new(config.limits.max_redemptions, config.replicas > 1, claims);
        let routes = Arc::new(Routes::new(standing.clone(), config.limits.member));
        let exchange = Exchange {
            standing: standing.clone(),
            routes: routes.clone(),
            redemptions,
            record,
            metrics: ExchangeMetrics::new(&meter),
            random,
        };
        Ok(Self { config, standing, metrics, exchange: Arc::new(exchange), routes, writer })
    }

    /// Serves until `shutdown`; returns when everything on record is durable.
    pub async fn serve(self, listeners: Listeners, shutdown: CancellationToken) -> Result<(), GatewayError> {
        let Self { config, standing, metrics, exchange, routes, writer } = self;
        let limits = config.limits;
        info!(id = %standing.credentials.id(), members = standing.trust.current().list.members.len(), "gateway serves");
        let following = tokio::spawn(routes.follow(shutdown.clone()));
        let recognition = RecognitionServiceServer::new(Recognition(exchange.clone()))
            .max_decoding_message_size(limits.max_request_bytes);
        let service = Service {
            routes: GrpcRoutes::new(recognition),
            names: &[RECOGNITION],
            edge: Edge {
                access: Access::new([Rule { service: RECOGNITION, roles: &["venue", "backend"], member: None }]),
                admission: Admission::new(limits.admission),
                max_duration: limits.max_duration,
                max_request_bytes: limits.max_request_bytes,
                blame: Blame::Gateway,
                metrics: CallMetrics::new(&metrics, ["tongxing.recognition.v1.RecognitionService/Recognize"]),
            },
            accept: limits.accept,
            max_streams_per_connection: limits.max_streams_per_connection,
            reload_every: limits.reload_every,
        };
        let served = serve(listeners, standing, service, metrics, shutdown).await;
        following.abort();
        drop(exchange);
        // The last sender goes with the server; what it queued is committed before this returns.
        let written = tokio::task::spawn_blocking(move || writer.join()).await;
        served?;
        written.map_err(|error| GatewayError::Record(error.to_string()))
    }
}

/// Makes a directory that its owner alone can look into.
fn create_private_dir(path: &PathBuf) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}
