//! Streams of batches, for evidence and for pushed codes alike: one after another, each answered when it is durable.
//!
//! Nothing is read ahead: a sender that does not read its answers holds up itself alone (I7).

use std::{sync::Arc, time::Duration};

use proto::refusal::{Reason, Refusal};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::accesses::UnderWay;

/// Answers that wait for their reader.
const WAITING: usize = 8;
/// How long a batch may take. The store gives up before it.
const BATCH_WITHIN: Duration = Duration::from_secs(30);

/// The answers of a stream.
pub(super) type Answers<T> = ReceiverStream<Result<T, Status>>;

/// Answers each batch by `answer` until the sender is done or goes away. The stream has its place until then.
pub(super) fn open<B, A, F>(
    mut batches: Streaming<B>,
    place: UnderWay,
    answer: impl Fn(B) -> F + Send + Sync + 'static,
) -> Answers<A>
where
    B: Send + 'static,
    A: Send + 'static,
    F: Future<Output = Result<A, Refusal>> + Send,
{
    let (answers, stream) = mpsc::channel(WAITING);
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        let _place = place;
        loop {
            let batch = tokio::select! {
                () = answers.closed() => return,
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
            let ends = said.is_err();
            if answers.send(said.map_err(Status::from)).await.is_err() || ends {
                return;
            }
        }
    });
    ReceiverStream::new(stream)
}

/// Why a stream cannot be read on.
fn broken(status: &Status) -> Refusal {
    match status.code() {
        Code::OutOfRange => Refusal::new(Reason::RequestTooLarge),
        _ => Refusal::new(Reason::RequestMalformed),
    }
}
