//! Recognition by the stream: a lane, a manifest. Answers leave as they are ready, each item with its own fate; a bounded
//! number is under way at once, and nothing more is read meanwhile (I7).

use std::{sync::Arc, time::Duration};

use peer::{
    Caller,
    admission::{Admission, Place},
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
    pub(crate) limits: StreamLimits,
}

impl Lane {
    /// Answers items until the caller ends the stream or goes away.
    pub(crate) fn open(self, items: Streaming<RecognizeStreamRequest>) -> Answers {
        let (answers, stream) = mpsc::channel(self.limits.max_in_flight);
        tokio::spawn(self.pump(items, answers));
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
                    Ok(Some(item)) => drop(running.spawn(self.clone().answer(item))),
                    Ok(None) => more = false,
                    Err(status) => {
                        let _ = answers.send(Err(broken(&status).to_status())).await;
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

    async fn answer(self, item: RecognizeStreamRequest) -> RecognizeStreamResponse {
        let RecognizeStreamRequest { request_id, request } = item;
        if !is_request_id(&request_id) {
            let refusal = Refusal::field("request_id", "1 to 64 characters of A-Z, a-z, 0-9, '.', '_', ':' and '-'");
            return response(String::new(), Err(refusal));
        }
        let answer = match request {
            Some(request) => self.recognize(request).await,
            None => Err(Refusal::missing("request")),
        };
        response(request_id, answer)
    }

    /// One item under the same bounds as a call of its own.
    async fn recognize(&self, request: RecognizeRequest) -> Result<RecognizeResponse, Refusal> {
        let place = Place::from(self.admission.admit(&self.caller.peer)?);
        let deadline = Instant::now() + self.limits.max_duration;
        let answer = call::answer(&self.exchange, request, &self.caller, deadline, Some(place));
        timeout_at(deadline, answer).await.unwrap_or_else(|_| Err(Refusal::new(Reason::DeadlineExceeded)))
    }
}

fn response(request_id: String, answer: Result<RecognizeResponse, Refusal>) -> RecognizeStreamResponse {
    let result = match answer {
        Ok(answer) => ItemResult::Answer(answer),
        Err(refusal) => ItemResult::Error(refusal.to_rpc_status()),
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
