//! Metrics: one OpenTelemetry meter per program, read by Prometheus from the private listener and, where a collector is
//! named, sent to it. Labels never name a person, a handle or a token (I6).

use std::{collections::BTreeMap, sync::Arc, thread, time::Duration};

use opentelemetry::{
    KeyValue,
    metrics::{Histogram, Meter, MeterProvider as _},
};
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use prometheus::{Encoder, Registry, TextEncoder};
use proto::identity::PeerId;
use tokio::{sync::oneshot, time::timeout};
use tonic::Code;

use crate::{
    otlp::{self, Signal},
    telemetry::resource,
};

/// How long the last values have to reach the collector when a program ends.
const FLUSH: Duration = Duration::from_millis(500);

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
    /// Those of the program `service` that is the peer `id`; a registry of its own, so that many programs can live in one
    /// process. They are exported by the runtime this is called in.
    pub fn new(service: &'static str, id: &PeerId) -> Result<Self, MetricsError> {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .without_target_info()
            .scope_info_enabled(false)
            .build()
            .map_err(|error| MetricsError(error.to_string()))?;
        let provider =
            SdkMeterProvider::builder().with_resource(resource(service, &id.to_string())).with_reader(exporter);
        let provider = match otlp::metrics() {
            Some(Ok(exporter)) => provider.with_reader(PeriodicReader::builder(exporter).build()),
            Some(Err(error)) => {
                otlp::say_unusable(Signal::Metrics, &error);
                provider
            }
            None => provider,
        };
        Ok(Self { registry, provider: Arc::new(provider.build()) })
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

    /// A counter's sums by one of its labels; `name` as Prometheus has it.
    pub fn counts(&self, name: &str, label: &str) -> BTreeMap<String, u64> {
        let families = self.registry.gather();
        let mut counts = BTreeMap::new();
        for metric in families.iter().filter(|family| family.name() == name).flat_map(|family| family.get_metric()) {
            if let Some(pair) = metric.get_label().iter().find(|pair| pair.name() == label) {
                // A counter of whole things: exact up to 2⁵³.
                *counts.entry(pair.value().to_owned()).or_default() += metric.get_counter().get_value() as u64;
            }
        }
        counts
    }

    /// Hands the last values over and ends, in half a second whatever the collector does.
    pub async fn close(self) {
        let (done, ended) = oneshot::channel();
        // Not one of the runtime's threads: those it would wait for.
        let ending = thread::Builder::new().name("metrics".into()).spawn(move || {
            // A collector that is not there has been told of once, and whoever waited may have given up.
            let _ = self.provider.shutdown();
            let _ = done.send(());
        });
        if ending.is_ok() {
            let _ = timeout(FLUSH, ended).await;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_summed_by_a_label() {
        let metrics = Metrics::new("test", &PeerId::gateway("1").unwrap()).unwrap();
        let counter = metrics.meter().u64_counter("things").build();
        for (kind, colour, count) in [("a", "green", 1), ("a", "red", 2), ("b", "red", 4)] {
            counter.add(count, &[KeyValue::new("kind", kind), KeyValue::new("colour", colour)]);
        }
        assert_eq!(metrics.counts("things_total", "kind"), [("a".to_owned(), 3), ("b".to_owned(), 4)].into());
        assert_eq!(metrics.counts("things_total", "size"), BTreeMap::new());
        assert_eq!(metrics.counts("others_total", "kind"), BTreeMap::new());
    }
}
