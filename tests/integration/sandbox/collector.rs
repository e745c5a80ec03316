//! An OpenTelemetry collector that keeps all it is sent, to be looked through.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use opentelemetry_proto::tonic::{
    collector::{
        metrics::v1::{
            ExportMetricsServiceRequest, ExportMetricsServiceResponse,
            metrics_service_server::{MetricsService, MetricsServiceServer},
        },
        trace::v1::{
            ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
    },
    common::v1::{KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::Span,
};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status, transport::Server};

/// All that was exported.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exported {
    /// As it came.
    pub(crate) bytes: Vec<u8>,
    /// Spans, with the service that exported each.
    pub(crate) spans: Vec<(String, Span)>,
    /// Metrics' names, with the service that exported each.
    pub(crate) metrics: BTreeSet<(String, String)>,
}

/// Collects until it is dropped.
pub(crate) struct Collector {
    pub(crate) endpoint: String,
    kept: Kept,
    _serving: DropGuard,
}

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Exported>>);

impl Collector {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (kept, shutdown) = (Kept::default(), CancellationToken::new());
        let server = Server::builder()
            .add_service(TraceServiceServer::new(kept.clone()))
            .add_service(MetricsServiceServer::new(kept.clone()));
        let ended = shutdown.clone().cancelled_owned();
        tokio::spawn(server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), ended));
        Self { endpoint, kept, _serving: shutdown.drop_guard() }
    }

    /// All that came so far.
    pub(crate) fn exported(&self) -> Exported {
        self.kept.0.lock().unwrap().clone()
    }
}

impl Exported {
    /// The spans of this name in a trace, with their services.
    pub(crate) fn named(&self, trace_id: &[u8], name: &str) -> Vec<&(String, Span)> {
        self.spans.iter().filter(|(_, span)| span.trace_id == trace_id && span.name == name).collect()
    }
}

/// An attribute's text.
pub(crate) fn attribute<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

fn service(resource: Option<&Resource>) -> String {
    let attributes = resource.map(|resource| resource.attributes.as_slice()).unwrap_or_default();
    let text = |key| attribute(attributes, key).unwrap_or_else(|| panic!("a resource without {key}"));
    assert!(!text("service.version").is_empty() && !text("service.instance.id").is_empty());
    text("service.name").to_owned()
}

#[tonic::async_trait]
impl TraceService for Kept {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let request = request.into_inner();
        let mut kept = self.0.lock().unwrap();
        kept.bytes.extend(request.encode_to_vec());
        for group in request.resource_spans {
            let service = service(group.resource.as_ref());
            let spans = group.scope_spans.into_iter().flat_map(|scope| scope.spans);
            kept.spans.extend(spans.map(|span| (service.clone(), span)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Kept {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let request = request.into_inner();
        let mut kept = self.0.lock().unwrap();
        kept.bytes.extend(request.encode_to_vec());
        for group in request.resource_metrics {
            let service = service(group.resource.as_ref());
            let metrics = group.scope_metrics.into_iter().flat_map(|scope| scope.metrics);
            kept.metrics.extend(metrics.map(|metric| (service.clone(), metric.name)));
        }
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}
