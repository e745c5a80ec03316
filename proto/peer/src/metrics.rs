//! Metrics: one OpenTelemetry meter per program, read by Prometheus from the private listener. Labels never name a person,
//! a handle or a token (I6).

use std::{sync::Arc, time::Duration};

use opentelemetry::{
    KeyValue,
    metrics::{Histogram, Meter, MeterProvider as _},
};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Encoder, Registry, TextEncoder};
use tonic::Code;

/// A program's metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    // Dropping the provider would end its meters.
    provider: Arc<SdkMeterProvider>,
}

/// The metrics cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("metrics: {0}")]
pub struct MetricsError(String);

impl Metrics {
    /// A registry of its own, so that many programs can live in one process.
    pub fn new() -> Result<Self, MetricsError> {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .without_target_info()
            .scope_info_enabled(false)
            .build()
            .map_err(|error| MetricsError(error.to_string()))?;
        let provider = SdkMeterProvider::builder().with_reader(exporter).build();
        Ok(Self { registry, provider: Arc::new(provider) })
    }

    /// The meter to make instruments of.
    pub fn meter(&self) -> Meter {
        self.provider.meter("tongxing")
    }

    /// Everything, in Prometheus' text format.
    pub fn scrape(&self) -> Result<String, MetricsError> {
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .map_err(|error| MetricsError(error.to_string()))?;
        String::from_utf8(text).map_err(|error| MetricsError(error.to_string()))
    }
}

/// What is measured of every call: `rpc.server.call.duration` by method and status (OpenTelemetry RPC conventions).
#[derive(Clone, Debug)]
pub struct CallMetrics {
    duration: Histogram<f64>,
    methods: Arc<[&'static str]>,
}

impl CallMetrics {
    /// Calls of the methods named, `<service>/<method>`; all others count as one, so that a caller cannot make labels.
    pub fn new(metrics: &Metrics, methods: impl IntoIterator<Item = &'static str>) -> Self {
        let buckets = vec![0.000_5, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];
        let duration = metrics
            .meter()
            .f64_histogram("rpc.server.call.duration")
            .with_unit("s")
            .with_description("Duration of inbound calls.")
            .with_boundaries(buckets)
            .build();
        Self { duration, methods: methods.into_iter().collect() }
    }

    /// The label of a call's path.
    pub fn method(&self, path: &str) -> &'static str {
        let name = path.strip_prefix('/').unwrap_or(path);
        self.methods.iter().find(|method| **method == name).copied().unwrap_or("other")
    }

    /// Counts one call.
    pub fn record(&self, method: &'static str, code: Code, took: Duration) {
        let labels =
            [KeyValue::new("rpc.method", method), KeyValue::new("rpc.response.status_code", format!("{code:?}"))];
        self.duration.record(took.as_secs_f64(), &labels);
    }
}
