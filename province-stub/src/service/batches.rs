//! Streams of batches, for evidence and for pushed codes alike: one after another, each answered when it is durable.
//!
//! Nothing is read ahead: a sender that does not read its answers holds up itself alone (I7).

use std::time::Duration;

use peer::trace::Trace;
use proto::refusal::{Reason, Refusal};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status, Streaming};
use tracing::Instrument as _;

use crate::{accesses::UnderWay, server::MAX_BATCH_BYTES};

/// Answers that wait for their reader.
const WAITING: usize = 8;
/// How long a batch may take. By its defaults a store stops waiting before: for a file's lock after a second or two, for a database
/// server after a minute. One that was told to be more patient is cut short: what it was doing is taken back, or is done, and found
/// so when the batch comes again.
const BATCH_WITHIN: Duration = Duration::from_secs(90);

/// The answers of a stream.
pub(super) type Answers<T> = ReceiverStream<Result<T, Status>>;

/// Answers each batch by `answer` until the sender is done or goes away, or this node stops: what it has begun it finishes, and what comes
/// next is for whoever serves then. The stream has its place until then.
pub(super) fn open<B, A, F>(
    request: Request<Streaming<B>>,
    place: UnderWay,
    stopping: CancellationToken,
    answer: impl Fn(B) -> F + Send + Sync + 'static,
) -> Answers<A>
where
    B: Send + 'static,
    A: Send + 'static,
    F: Future<Output = Result<A, Refusal>> + Send,
{
    let (answers, stream) = mpsc::channel(WAITING);
    let trace = Trace::of_request(&request);
    let mut batches = request.into_inner();
    let answering = async move {
        let _place = place;
        loop {
            let batch = tokio::select! {
                () = answers.closed() => return,
                () = stopping.cancelled() => return,
                batch = batches.message() => batch,
            };
            let said = match batch {
                Ok(None) => return,
                Ok(Some(batch)) => match timeout(BATCH_WITHIN, answer(batch)).await {
                    Ok(said) => said,
                    Err(_) => Err(Refusal::new(Reason::StoreUnavailable)),
                },
                Err(status) => Err(broken(&status)),
            };
            // What ends a stream says which trace it belongs to: its headers went out long ago.
            let said = said.map_err(|refusal| Status::from(refusal.with("trace_id", trace.id())));
            let ends = said.is_err();
            if answers.send(said).await.is_err() || ends {
                return;
            }
        }
    };
    tokio::spawn(answering.in_current_span());
    ReceiverStream::new(stream)
}

/// Why a stream cannot be read on.
fn broken(status: &Status) -> Refusal {
    match status.code() {
        Code::OutOfRange => Refusal::new(Reason::RequestTooLarge).with("max_bytes", MAX_BATCH_BYTES),
        _ => Refusal::new(Reason::RequestMalformed),
    }
}
