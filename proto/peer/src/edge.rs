//! The stack of every server, in one place, because its order is policy. Outermost first:
//!
//! ```text
//! telemetry   sees every call, refused ones too; says in an error which trace it belongs to
//! rescue      whatever status leaves, leaves with a documented reason
//! identity    who calls, and may that role call this
//! admission   is there room, in all and for this caller
//! deadline    the caller's, or the server's own if that is shorter
//! ```

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::Response,
};
use proto::refusal::{Blame, Reason, Refusal, traced};
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status};
use tower::ServiceBuilder;
use tracing::{
    Instrument, error, error_span,
    field::{Empty, debug},
};

use crate::{
    access::{Access, Caller},
    admission::{Admission, Place},
    metrics::CallMetrics,
    trace::Trace,
};

/// What the stack needs.
#[derive(Clone, Debug)]
pub struct Edge {
    /// Who may call what.
    pub access: Access,
    /// How much at once.
    pub admission: Admission,
    /// The longest a call may take.
    pub max_duration: Duration,
    /// The largest message a call may bring, in bytes; for the refusal's metadata.
    pub max_request_bytes: usize,
    /// Whom its own refusals name as the one who can mend it: the gateway, or home.
    pub blame: Blame,
    /// What is measured.
    pub metrics: CallMetrics,
    /// Whose calls these are, for logs and traces: many programs may live in one process.
    pub id: Arc<str>,
}

/// The instant by which a call must have its answer; in the extensions of every request.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(pub Instant);

/// How much shorter our deadline is than the caller's, so that the caller hears our reason and not its own timeout.
const DEADLINE_MARGIN: Duration = Duration::from_millis(5);

impl Edge {
    /// Puts the stack around a server's routes.
    pub fn around(self, routes: Router) -> Router {
        routes.layer(
            ServiceBuilder::new()
                .layer(from_fn_with_state((self.metrics, self.id), telemetry))
                .layer(from_fn_with_state((self.max_request_bytes, self.blame), rescue))
                .layer(from_fn_with_state(self.access, identity))
                .layer(from_fn_with_state((self.admission, self.blame), admission))
                .layer(from_fn_with_state((self.max_duration, self.blame), deadline)),
        )
    }
}

/// The call's span is of level ERROR so that every log line within shows its trace, whatever the log's level.
async fn telemetry(State((metrics, id)): State<(CallMetrics, Arc<str>)>, mut request: Request, next: Next) -> Response {
    let method = metrics.method(request.uri().path());
    let started = Instant::now();
    let span = error_span!(
        "call",
        server = %id,
        method,
        trace_id = Empty,
        otel.kind = "server",
        otel.status_code = Empty,
        rpc.system.name = "grpc",
        rpc.method = method,
        rpc.response.status_code = Empty,
    );
    let trace = Trace::of_span(&span, Trace::of_headers(request.headers()));
    request.extensions_mut().insert(trace);
    let response = next.run(request).instrument(span.clone()).await;
    let code = code_of(&response);
    span.record("rpc.response.status_code", debug(code));
    if is_ours_to_mend(code) {
        span.record("otel.status_code", "ERROR");
    }
    metrics.record(method, code, started.elapsed());
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() != Code::Ok => traced(&status, trace.id()).into_http::<Body>(),
        _ => response,
    }
}

/// The codes by which a server's span is an error (OpenTelemetry's conventions for gRPC).
const fn is_ours_to_mend(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

/// Statuses made by the gRPC library itself have no details; here they get a documented reason.
async fn rescue(State((max_request_bytes, blame)): State<(usize, Blame)>, request: Request, next: Next) -> Response {
    let compressed = request.headers().get("grpc-encoding").is_some_and(|encoding| encoding != "identity");
    let response = next.run(request).await;
    if code_of(&response) == Code::Ok || response.headers().contains_key("grpc-status-details-bin") {
        return response;
    }
    let refusal = match code_of(&response) {
        Code::OutOfRange => Refusal::new(Reason::RequestTooLarge).with("max_bytes", max_request_bytes),
        // Our own failures always have details; a bare one is the decoder's word on the request.
        Code::Internal | Code::InvalidArgument => Refusal::new(Reason::RequestMalformed),
        // No message here is compressed: it would have to be bounded before and after.
        Code::Unimplemented if compressed => Refusal::new(Reason::RequestMalformed),
        Code::Unimplemented => Refusal::new(Reason::MethodUnknown),
        // The caller went away in the middle of its message; nobody reads this.
        Code::Cancelled | Code::Unknown => Refusal::new(Reason::RequestMalformed),
        code => {
            error!(?code, "a status left without a reason");
            Refusal::new(Reason::Internal).blaming(blame)
        }
    };
    refuse(&refusal)
}

async fn identity(State(access): State<Access>, request: Request, next: Next) -> Response {
    let Some(caller) = request.extensions().get::<Caller>() else {
        return refuse(&Refusal::new(Reason::Internal));
    };
    match access.check(request.uri().path(), &caller.peer) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refuse(&refusal),
    }
}

async fn admission(State((admission, blame)): State<(Admission, Blame)>, mut request: Request, next: Next) -> Response {
    let Some(caller) = request.extensions().get::<Caller>() else {
        return refuse(&Refusal::new(Reason::Internal));
    };
    match admission.admit(&caller.peer) {
        Ok(admitted) => {
            let place = Place::from(admitted);
            request.extensions_mut().insert(place.clone());
            next.run(request).await
        }
        Err(refusal) => refuse(&refusal.blaming(blame)),
    }
}

async fn deadline(
    State((max_duration, blame)): State<(Duration, Blame)>,
    mut request: Request,
    next: Next,
) -> Response {
    let asked = request.headers().get("grpc-timeout").and_then(|value| parse_grpc_timeout(value.to_str().ok()?));
    let allowed = asked.map_or(max_duration, |asked| asked.saturating_sub(DEADLINE_MARGIN).min(max_duration));
    let deadline = Instant::now() + allowed;
    request.extensions_mut().insert(Deadline(deadline));
    match timeout_at(deadline, next.run(request)).await {
        Ok(response) => response,
        Err(_) => refuse(&Refusal::new(Reason::DeadlineExceeded).blaming(blame)),
    }
}

fn refuse(refusal: &Refusal) -> Response {
    refusal.to_status().into_http::<Body>()
}

/// The status of a response whose status is known already: errors come in the headers. Until its trailers say otherwise
/// any other response is OK.
fn code_of(response: &Response) -> Code {
    Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code())
}

/// The `grpc-timeout` header: at most eight digits and a unit (gRPC over HTTP/2, "Requests").
fn parse_grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts_parse_as_the_protocol_says() {
        assert_eq!(parse_grpc_timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse_grpc_timeout("1S"), Some(Duration::from_secs(1)));
        assert_eq!(parse_grpc_timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for wrong in ["", "S", "1", "-1S", "123456789S", "1x", "1é"] {
            assert_eq!(parse_grpc_timeout(wrong), None, "{wrong}");
        }
    }
}
