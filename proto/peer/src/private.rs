//! The private listener: plain HTTP for operators, on loopback unless the configuration says otherwise in so many words.
//! `/metrics`, `/healthz`, `/readyz`, and `/status` where a program has one; nothing of a person is in any of them (I6).

use std::{fmt, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use proto::refusal::reason_name;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    health::Impaired,
    metrics::Metrics,
    network::{Listener, Plain},
    trust::TrustStore,
};

/// What a program says of itself when it is asked, as JSON.
#[derive(Clone)]
pub struct StatusPage(Arc<dyn Fn() -> String + Send + Sync>);

impl StatusPage {
    /// Made anew for everybody who asks.
    pub fn new(page: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self(Arc::new(page))
    }
}

impl fmt::Debug for StatusPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a status page")
    }
}

#[derive(Clone)]
struct Private {
    metrics: Metrics,
    trust: Arc<TrustStore>,
    impaired: Impaired,
    status: Option<StatusPage>,
    draining: CancellationToken,
}

/// Serves until `shutdown`. `draining` makes the program not ready before it stops.
pub async fn serve(
    listener: Box<dyn Listener>,
    metrics: Metrics,
    trust: Arc<TrustStore>,
    impaired: Impaired,
    status: Option<StatusPage>,
    draining: CancellationToken,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/metrics", get(scrape))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/status", get(status_page))
        .with_state(Private { metrics, trust, impaired, status, draining });
    axum::serve(Plain(listener), routes).with_graceful_shutdown(shutdown.cancelled_owned()).await
}

async fn scrape(State(private): State<Private>) -> Result<String, StatusCode> {
    private.metrics.scrape().map_err(|error| {
        warn!(%error, "metrics cannot be shown");
        StatusCode::INTERNAL_SERVER_ERROR
    })
}

async fn status_page(State(private): State<Private>) -> impl IntoResponse {
    let page = private.status.ok_or(StatusCode::NOT_FOUND)?;
    Ok::<_, StatusCode>(([(CONTENT_TYPE, "application/json")], (page.0)()))
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
