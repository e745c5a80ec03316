//! The private listener: plain HTTP for operators, on loopback unless the configuration says otherwise in so many words.
//! `/metrics`, `/healthz`, `/readyz`; nothing of a person is in any of them (I6).

use std::sync::Arc;

use axum::{Router, extract::State, http::StatusCode, routing::get};
use proto::refusal::reason_name;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{health::Impaired, metrics::Metrics, trust::TrustStore};

#[derive(Clone)]
struct Private {
    metrics: Metrics,
    trust: Arc<TrustStore>,
    impaired: Impaired,
    draining: CancellationToken,
}

/// Serves until `shutdown`. `draining` makes the program not ready before it stops.
pub async fn serve(
    listener: TcpListener,
    metrics: Metrics,
    trust: Arc<TrustStore>,
    impaired: Impaired,
    draining: CancellationToken,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/metrics", get(scrape))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(Private { metrics, trust, impaired, draining });
    axum::serve(listener, routes).with_graceful_shutdown(shutdown.cancelled_owned()).await
}

async fn scrape(State(private): State<Private>) -> Result<String, StatusCode> {
    private.metrics.scrape().map_err(|error| {
        warn!(%error, "metrics cannot be shown");
        StatusCode::INTERNAL_SERVER_ERROR
    })
}

/// Ready while calls can be answered and nobody has asked to stop.
async fn ready(State(private): State<Private>) -> (StatusCode, String) {
    if private.draining.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n".into());
    }
    if private.impaired.is_set() {
        return (StatusCode::SERVICE_UNAVAILABLE, "impaired: the log says why\n".into());
    }
    match private.trust.usable() {
        Ok(trust) => (StatusCode::OK, format!("ready, trust list version {}\n", trust.list_edition.version)),
        Err(refusal) => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", reason_name(refusal.reason()))),
    }
}
