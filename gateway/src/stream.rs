//! Recognition by the stream: a lane, a manifest. Answers leave as they are ready, each item with its own fate; a bounded
//! number is under way at once, and nothing more is read meanwhile (I7).

use std::{sync::Arc, time::Duration};

use peer::{
    Caller,
    admission::{Admission, Place},
    trace::Trace,
};
use proto::{
    contract::recognition::{
        RecognizeRequest, RecognizeResponse, RecognizeStreamRequest, RecognizeStreamResponse,
        recognize_stream_response::Result as ItemResult,
    },
    refusal::{Reason, Refusal},
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use tracing::{Instrument as _, Span, error_span, field::Empty};

use crate::{call, exchange::Exchange};

/// The longest an item's id may be, in bytes.
const MAX_REQUEST_ID_BYTES: usize = 64;

/// Bounds of one stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamLimits {
    /// Items under way at once; as many answers may wait for a slow reader.
    pub max_in_flight: usize,
    /// The longest an item may take.
    pub max_duration: Duration,
}

/// The answers of a stream.
pub(crate) type Answers = ReceiverStream<Result<RecognizeStreamResponse, Status>>;

/// What all items of a stream share.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    pub(crate) exchange: Arc<Exchange>,
    pub(crate) admission: Admission,
    pub(crate) caller: Arc<Caller>,
    pub(crate) trace: Trace,
    pub(crate) limits: StreamLimits,
}

impl Lane {
    /// Answers items until the caller ends the stream or goes away.
    pub(crate) fn open(self, items: Streaming<RecognizeStreamRequest>) -> Answers {
        let (answers, stream) = mpsc::channel(self.limits.max_in_flight);
        tokio::spawn(self.pump(items, answers).in_current_span());
        ReceiverStream::new(stream)
    }

    async fn pump(
        self,
        mut items: Streaming<RecognizeStreamRequest>,
        answers: mpsc::Sender<Result<RecognizeStreamResponse, Status>>,
    ) {
        // Dropped with what is still running when the caller goes away.
        let mut running = JoinSet::new();
        let mut more = true;
        while more || !running.is_empty() {
            tokio::select! {
                () = answers.closed() => return,
                item = items.message(), if more && running.len() < self.limits.max_in_flight => match item {
                    Ok(Some(item)) => drop(running.spawn(self.clone().answer(item).in_current_span())),
                    Ok(None) => more = false,
                    Err(status) => {
                        let refusal = broken(&status).with("trace_id", self.trace.id());
                        let _ = answers.send(Err(refusal.to_status())).await;
                        return;
                    }
                },
                Some(done) = running.join_next() => {
                    // A panic in one item is that item's; the stream goes on without its answer.
                    let Ok(answer) = done else { continue };
                    if answers.send(Ok(answer)).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Each item has a trace of its own, linked to the stream's: a lane is open all day.
    async fn answer(self, item: RecognizeStreamRequest) -> RecognizeStreamResponse {
        let span = error_span!(parent: None, "item", trace_id = Empty);
        span.follows_from(Span::current());
        let trace = Trace::of_span(&span, None);
        let RecognizeStreamRequest { request_id, request } = item;
        if !is_request_id(&request_id) {
            let refusal = Refusal::field("request_id", "1 to 64 characters of A-Z, a-z, 0-9, '.', '_', ':' and '-'");
            return response(String::new(), trace, Err(refusal));
        }
        let answer = match request {
            Some(request) => self.recognize(request, trace).instrument(span).await,
            None => Err(Refusal::missing("request")),
        };
        response(request_id, trace, answer)
    }

    /// One item under the same bounds as a call of its own.
    async fn recognize(&self, request: RecognizeRequest, trace: Trace) -> Result<RecognizeResponse, Refusal> {
        let place = Place::from(self.admission.admit(&self.caller.peer)?);
        let deadline = Instant::now() + self.limits.max_duration;
        let answer = call::answer(&self.exchange, request, &self.caller, trace, deadline, Some(place));
        timeout_at(deadline, answer).await.unwrap_or_else(|_| Err(Refusal::new(Reason::DeadlineExceeded)))
    }
}

fn response(request_id: String, trace: Trace, answer: Result<RecognizeResponse, Refusal>) -> RecognizeStreamResponse {
    let result = match answer {
        Ok(answer) => ItemResult::Answer(answer),
        Err(refusal) => ItemResult::Error(refusal.with("trace_id", trace.id()).to_rpc_status()),
    };
    RecognizeStreamResponse { request_id, result: Some(result) }
}

/// Why a stream cannot be read on.
fn broken(status: &Status) -> Refusal {
    match status.code() {
        Code::OutOfRange => Refusal::new(Reason::RequestTooLarge),
        _ => Refusal::new(Reason::RequestMalformed),
    }
}

fn is_request_id(text: &str) -> bool {
    (1..=MAX_REQUEST_ID_BYTES).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-'))
}
