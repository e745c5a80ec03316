//! One server: its routes with health and reflection behind the edge, its private listener, its files and the gateways
//! followed while it runs, and an end that is in time.

use std::{io, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{service::Routes, transport::Server};
use tonic_health::{ServingStatus, server::HealthReporter};
use tracing::{info, warn};

use crate::{
    accept::{GRACE, accept},
    credentials::Credentials,
    edge::Edge,
    follow::follow_gateways,
    health::Impaired,
    limits::ServerLimits,
    metrics::Metrics,
    network::{Listener, Network},
    private,
    trust::TrustStore,
};

/// Where a program listens: bound beforehand, so that tests have no port races.
#[derive(Debug)]
pub struct Listeners {
    /// For peers, with mutual TLS.
    pub public: Box<dyn Listener>,
    /// For operators, plain.
    pub private: Box<dyn Listener>,
}

impl Listeners {
    /// Where a program listens.
    pub fn new(public: impl Listener, private: impl Listener) -> Self {
        Self { public: Box::new(public), private: Box::new(private) }
    }
}

/// A program's connections to the federation: what it trusts, who it is, and the way to others.
#[derive(Clone, Debug)]
pub struct Standing {
    /// What it trusts.
    pub trust: Arc<TrustStore>,
    /// Who it is.
    pub credentials: Arc<Credentials>,
    /// The way to others.
    pub network: Arc<dyn Network>,
}

/// What a server serves, and under which bounds.
#[derive(Debug)]
pub struct Service {
    /// The program's own services.
    pub routes: Routes,
    /// Their full names, for the health service.
    pub names: &'static [&'static str],
    /// The stack around them.
    pub edge: Edge,
    /// Whether it cannot answer for now.
    pub impaired: Impaired,
    /// What it says of itself on the private listener, beside its metrics.
    pub status: Option<private::StatusPage>,
    /// Its bounds.
    pub limits: ServerLimits,
}

/// Why a server ended.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The reflection descriptors are broken: a defect of the build.
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The TLS configuration cannot be made.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The transport failed.
    #[error("transport: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// The private listener failed.
    #[error("private listener: {0}")]
    Private(#[from] io::Error),
}

/// How often a program looks whether it can answer.
const HEALTH_EVERY: Duration = Duration::from_millis(500);

const HEADER_LIST_BYTES: u32 = 16 * 1024;

/// Serves until `shutdown`, then lets calls under way end.
pub async fn serve(
    listeners: Listeners,
    standing: Standing,
    service: Service,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let (health, health_service) = tonic_health::server::health_reporter();
    let (trust, impaired) = (standing.trust.clone(), service.impaired.clone());
    let health = tokio::spawn(follow_health(health, service.names, trust, impaired.clone(), shutdown.clone()));
    let routes = service
        .routes
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    let router = service.edge.around(routes.prepare().into_axum_router());
    let stopped = CancellationToken::new();
    let incoming = accept(
        listeners.public,
        standing.trust.clone(),
        standing.credentials.clone(),
        service.limits.accept,
        shutdown.clone(),
    )?;
    let private = private::serve(
        listeners.private,
        metrics.clone(),
        standing.trust.clone(),
        impaired,
        service.status,
        shutdown.clone(),
        stopped.clone(),
    );
    let private = tokio::spawn(private);
    let gateways = tokio::spawn(follow_gateways(standing.clone(), shutdown.clone()));
    let files = tokio::spawn(follow_files(standing, service.limits.reload_every, shutdown.clone()));
    let server = Server::builder()
        .max_concurrent_streams(service.limits.max_streams_per_connection)
        .http2_max_header_list_size(HEADER_LIST_BYTES)
        .http2_max_pending_accept_reset_streams(Some(20))
        .http2_max_local_error_reset_streams(Some(1024))
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .serve_with_incoming_shutdown(Routes::from(router), incoming, shutdown.clone().cancelled_owned());
    let ended = tokio::select! {
        ended = server => ended,
        () = async { shutdown.cancelled().await; sleep(GRACE).await } => {
            warn!("calls were still under way when the grace ended");
            Ok(())
        }
    };
    shutdown.cancel();
    stopped.cancel();
    let (private, ()) = tokio::join!(timeout(Duration::from_secs(1), private), metrics.close());
    gateways.abort();
    files.abort();
    health.abort();
    ended?;
    match private {
        Ok(Ok(result)) => Ok(result?),
        // It was cut off, or it panicked; either way the server has ended.
        Ok(Err(_)) | Err(_) => Ok(()),
    }
}

/// Cancels `shutdown` on SIGINT or SIGTERM; a second one ends the program at once.
pub fn stop_on_signal(shutdown: CancellationToken) -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::spawn(async move {
        let signalled = async || {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        let mut signalled = signalled;
        signalled().await;
        shutdown.cancel();
        // Whoever asks twice does not want to wait.
        signalled().await;
        std::process::exit(1);
    });
    Ok(())
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::contract::DESCRIPTOR)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        // So that tools can show the details of an error.
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}

/// Tells watchers of the health service whether calls can be answered: not when trust has expired, not when the program
/// says so, not when it is to stop.
async fn follow_health(
    health: HealthReporter,
    names: &'static [&'static str],
    trust: Arc<TrustStore>,
    impaired: Impaired,
    shutdown: CancellationToken,
) {
    let mut said = None;
    loop {
        let stopping = shutdown.is_cancelled();
        let serving = !stopping && !impaired.is_set() && trust.usable().is_ok();
        if said != Some(serving) {
            let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
            for name in names.iter().copied().chain([""]) {
                health.set_service_status(name, status).await;
            }
            said = Some(serving);
        }
        if stopping {
            return;
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = sleep(HEALTH_EVERY) => {}
        }
    }
}

/// Takes up new editions and new certificates; what is refused leaves the old in place and is said.
async fn follow_files(standing: Standing, every: Duration, shutdown: CancellationToken) {
    let mut tick = interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick.tick().await;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = tick.tick() => {}
        }
        let (trust, credentials) = (standing.trust.clone(), standing.credentials.clone());
        let reloaded = tokio::task::spawn_blocking(move || (trust.reload(), credentials.reload())).await;
        let Ok((trust, credentials)) = reloaded else { continue };
        match trust {
            Ok(true) => info!(version = standing.trust.current().list_edition.version, "new trust list or policy"),
            Ok(false) => {}
            Err(error) => warn!(%error, "trust list or policy refused, the one held stays"),
        }
        match credentials {
            Ok(true) => info!(id = %standing.credentials.id(), "new certificate"),
            Ok(false) => {}
            Err(error) => warn!(%error, "certificate refused, the one held stays"),
        }
        if standing.trust.current().expires_soon(standing.trust.clock().now()) {
            warn!(expires_at = %standing.trust.current().expires_at(), "trust list or policy expires soon");
        }
    }
}
