//! The way to a collector: OTLP over gRPC, only where the environment names an endpoint. A collector that is absent, dies
//! or refuses is said once, and once more when it is back; nothing else changes, least of all an answer.

use std::{
    env, fmt,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use opentelemetry_otlp::{
    ExporterBuildError, MetricExporter, OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_METRICS_ENDPOINT,
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, RetryPolicy, SpanExporter, WithTonicConfig as _,
};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    metrics::{Temporality, data::ResourceMetrics, exporter::PushMetricExporter},
    trace::{SpanData, SpanExporter as ExportSpans},
};
use tracing::{info, warn};

/// What is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    Metrics,
    Traces,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Metrics => "metrics",
            Self::Traces => "traces",
        })
    }
}

impl Signal {
    /// Whether the environment names a collector for it.
    fn is_wanted(self) -> bool {
        let own = match self {
            Self::Metrics => OTEL_EXPORTER_OTLP_METRICS_ENDPOINT,
            Self::Traces => OTEL_EXPORTER_OTLP_TRACES_ENDPOINT,
        };
        [own, OTEL_EXPORTER_OTLP_ENDPOINT].iter().any(|name| env::var(name).is_ok_and(|endpoint| !endpoint.is_empty()))
    }
}

/// The exporter of spans, if one is wanted.
pub(crate) fn spans() -> Option<Result<Watched<SpanExporter>, ExporterBuildError>> {
    let build = || SpanExporter::builder().with_tonic().with_retry_policy(RetryPolicy::disabled()).build();
    Signal::Traces.is_wanted().then(|| Ok(Watched::new(Signal::Traces, build()?)))
}

/// The exporter of metrics, if one is wanted.
pub(crate) fn metrics() -> Option<Result<Watched<MetricExporter>, ExporterBuildError>> {
    let build = || MetricExporter::builder().with_tonic().with_retry_policy(RetryPolicy::disabled()).build();
    Signal::Metrics.is_wanted().then(|| Ok(Watched::new(Signal::Metrics, build()?)))
}

/// Says that an endpoint cannot be used. Telemetry is no reason not to serve.
pub(crate) fn say_unusable(signal: Signal, error: &ExporterBuildError) {
    warn!(%error, "{signal} are not exported: the endpoint cannot be used");
}

/// An exporter whose failures are said when they begin and when they end.
#[derive(Debug)]
pub(crate) struct Watched<E> {
    signal: Signal,
    exporter: E,
    failing: AtomicBool,
}

impl<E> Watched<E> {
    fn new(signal: Signal, exporter: E) -> Self {
        Self { signal, exporter, failing: AtomicBool::new(false) }
    }

    fn note(&self, exported: OTelSdkResult) -> OTelSdkResult {
        let was_failing = self.failing.swap(exported.is_err(), Ordering::Relaxed);
        match &exported {
            Err(error) if !was_failing => warn!(%error, "{} do not reach the collector; said once", self.signal),
            Ok(()) if was_failing => info!("{} reach the collector again", self.signal),
            _ => {}
        }
        exported
    }
}

impl ExportSpans for Watched<SpanExporter> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.note(self.exporter.export(batch).await)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &opentelemetry_sdk::Resource) {
        self.exporter.set_resource(resource);
    }
}

impl PushMetricExporter for Watched<MetricExporter> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        self.note(self.exporter.export(metrics).await)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.exporter.temporality()
    }
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Mutex};

    use opentelemetry_sdk::error::OTelSdkError;

    use super::*;

    #[derive(Default)]
    struct Lines(Mutex<Vec<u8>>);

    impl io::Write for &Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_collector_that_dies_is_said_once_and_so_is_its_return() {
        let lines: &'static Lines = Box::leak(Box::default());
        let subscriber = tracing_subscriber::fmt().with_writer(move || lines).with_ansi(false).finish();
        let watched = Watched::new(Signal::Traces, ());
        let failed = || Err(OTelSdkError::InternalFailure("nobody listens".into()));
        tracing::subscriber::with_default(subscriber, || {
            for exported in [Ok(()), failed(), failed(), failed(), Ok(()), Ok(()), failed()] {
                let went_well = exported.is_ok();
                assert_eq!(watched.note(exported).is_ok(), went_well);
            }
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let said: Vec<_> = text.lines().map(|line| line.contains("again")).collect();
        assert_eq!(said, [false, true, false], "{text}");
    }
}
