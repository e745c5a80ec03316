//! What a program says of itself: log lines on standard error always, traces and metrics to a collector where one is named.
//!
//! The environment says what goes where, as OpenTelemetry has it: `RUST_LOG`; `OTEL_EXPORTER_OTLP_ENDPOINT` or
//! `OTEL_EXPORTER_OTLP_{TRACES,METRICS}_ENDPOINT` (gRPC); `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`;
//! `OTEL_TRACES_SAMPLER` and its `_ARG`; `OTEL_BSP_*`, `OTEL_METRIC_EXPORT_INTERVAL`. No endpoint, no export, and no span
//! that only an export would read: a call then costs 2 µs of tracing, not 9 (measured with eight spans in a release build).
//!
//! Log and tracer are the process'. Where many programs live in one process, its traces are one service's, and the
//! attribute `server` of each call's span says whose it is; each program's metrics are its own.
//!
//! Sampling is as W3C and OpenTelemetry have it: by default a caller that records a trace has us record our part. A program
//! that exports nothing says so to whoever it calls; a node that is to export calls of such a gateway needs
//! `OTEL_TRACES_SAMPLER=always_on`.
//!
//! Only what this project's own code says is exported: libraries' spans could have a message in them (I6).

use std::{env, fmt, io::IsTerminal as _, time::Duration};

use opentelemetry::{
    KeyValue,
    trace::{SpanId, TraceId as OtelTraceId, TracerProvider as _},
};
use opentelemetry_sdk::{
    Resource,
    resource::{EnvResourceDetector, ResourceDetector as _},
    trace::{IdGenerator, SdkTracerProvider},
};
use proto::random::{self, SystemRandom};
use tracing::{
    Level, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter, Layer,
    field::RecordFields,
    filter::filter_fn,
    fmt::format::{FormatFields, Writer},
    layer::SubscriberExt as _,
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

use crate::{
    config::to_hex,
    otlp::{self, Signal},
    trace::{TraceId, span_id},
};

/// How long the last spans have to reach the collector when a program ends.
const FLUSH: Duration = Duration::from_millis(500);

/// The crates whose spans and events are exported.
const OURS: [&str; 5] = ["gateway", "peer", "proto", "province_stub", "tongxing"];

/// The process' telemetry. Hands over what is left when it is dropped, and waits half a second for that.
#[derive(Debug)]
#[must_use = "telemetry ends when this is dropped"]
pub struct Telemetry(Option<SdkTracerProvider>);

/// Starts the process' log and, where a collector is named, its traces. `default` is the filter where `RUST_LOG` is not
/// set, e.g. `info` or `warn`; `service` the name where the environment says no other. Spans are exported by the runtime
/// this is called in.
pub fn start(default: &str, service: &'static str) -> Telemetry {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let log = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .fmt_fields(LogFields)
        .with_filter(filter);
    let (provider, failure) = match otlp::spans() {
        Some(Ok(exporter)) => {
            let instance = to_hex(&random::bytes::<16>(&SystemRandom));
            let provider = SdkTracerProvider::builder()
                .with_resource(resource(service, &instance))
                .with_id_generator(Ids)
                .with_batch_exporter(exporter)
                .build();
            (Some(provider), None)
        }
        Some(Err(error)) => (None, Some(error)),
        None => (None, None),
    };
    let subscriber = tracing_subscriber::registry().with(log).with(provider.as_ref().map(export));
    // A second start changes nothing.
    let _ = subscriber.try_init();
    if let Some(error) = failure {
        otlp::say_unusable(Signal::Traces, &error);
    }
    Telemetry(provider)
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(provider) = &self.0 {
            // A collector that is not there has been told of once.
            let _ = provider.shutdown_with_timeout(FLUSH);
        }
    }
}

/// Who exports: the program by its service name and the one of its instances, unless the environment says otherwise.
pub(crate) fn resource(service: &'static str, instance: &str) -> Resource {
    let said = EnvResourceDetector::new().detect();
    let ours = [
        KeyValue::new("service.name", service),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", instance.to_owned()),
    ];
    let name = env::var("OTEL_SERVICE_NAME").ok().filter(|name| !name.is_empty());
    Resource::builder()
        .with_attributes(ours)
        .with_attributes(said.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())))
        .with_attributes(name.map(|name| KeyValue::new("service.name", name)))
        .build()
}

/// The layer that exports spans; what it would add of threads, places and timings nobody needs at every call.
fn export<S: Subscriber + for<'a> LookupSpan<'a>>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S> {
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("tongxing"))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_context_activation(false)
        .with_filter(filter_fn(is_exported))
}

/// Our own stages are spans of level DEBUG, so that they cost nothing where nobody exports them; of events, what a log
/// shows as well.
fn is_exported(metadata: &Metadata<'_>) -> bool {
    let most = if metadata.is_span() { Level::DEBUG } else { Level::INFO };
    *metadata.level() <= most && is_ours(metadata.target())
}

fn is_ours(target: &str) -> bool {
    OURS.contains(&target.split("::").next().unwrap_or(target))
}

/// Fields as log lines show them: without those that only a trace needs.
struct LogFields;

struct LogVisitor<'writer> {
    writer: Writer<'writer>,
    written: fmt::Result,
    is_first: bool,
}

impl<'writer> FormatFields<'writer> for LogFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut visitor = LogVisitor { writer, written: Ok(()), is_first: true };
        fields.record(&mut visitor);
        visitor.written
    }
}

impl Visit for LogVisitor<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let name = field.name();
        if self.written.is_err() || name.starts_with("otel.") || name.starts_with("rpc.") {
            return;
        }
        let space = if std::mem::replace(&mut self.is_first, false) { "" } else { " " };
        self.written = match name {
            "message" => write!(self.writer, "{space}{value:?}"),
            _ => write!(self.writer, "{space}{name}={value:?}"),
        };
    }
}

/// Ids of spans: random, and nobody's number.
#[derive(Debug)]
struct Ids;

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> OtelTraceId {
        OtelTraceId::from_bytes(TraceId::random(&SystemRandom).bytes())
    }

    fn new_span_id(&self) -> SpanId {
        SpanId::from_bytes(span_id(&SystemRandom))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use tracing::{debug_span, error_span, info};

    use super::*;
    use crate::trace::Trace;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_line_within_a_call_shows_its_trace_and_nothing_that_only_a_trace_needs() {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = tracing_subscriber::fmt::layer().with_writer(move || writer.clone()).with_ansi(false);
        let log = log.fmt_fields(LogFields).with_filter(EnvFilter::new("warn,peer=info"));
        let id = tracing::subscriber::with_default(tracing_subscriber::registry().with(log), || {
            let span =
                error_span!("call", trace_id = tracing::field::Empty, otel.kind = "server", method = "Recognize");
            let trace = Trace::of_span(&span, None);
            span.in_scope(|| debug_span!("lookup").in_scope(|| info!(home = 44, "asked")));
            trace.id()
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let end = format!("call{{method=\"Recognize\" trace_id={id}}}: peer::telemetry::tests: asked home=44\n");
        assert!(text.ends_with(&end), "{text}");
    }

    #[test]
    fn the_ids_of_exported_spans_are_those_of_the_call() {
        let provider = SdkTracerProvider::builder().with_id_generator(Ids).build();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(export(&provider)), || {
            let mut metadata = tonic::metadata::MetadataMap::new();
            let span = error_span!("call", trace_id = tracing::field::Empty);
            let trace = Trace::of_span(&span, None);
            let lookup = span.in_scope(|| debug_span!("lookup"));
            trace.send(&lookup, &mut metadata);
            let sent = Trace::of_headers(&metadata.into_headers()).unwrap();
            assert_eq!(sent.id(), trace.id());
            assert_ne!(sent, trace, "the lookup is named as the parent, not the call");
            let continued = Trace::of_span(&error_span!("call", trace_id = tracing::field::Empty), Some(sent));
            assert_eq!(continued.id(), trace.id());
        });
    }

    #[test]
    fn spans_of_libraries_are_not_exported() {
        for (target, ours) in [("gateway::exchange", true), ("peer", true), ("h2::codec", false), ("gateways", false)] {
            assert_eq!(is_ours(target), ours, "{target}");
        }
    }
}
