//! The change stream's adapter: the first message says where, the others are probes; what is said goes out as protobuf.

use std::{pin::Pin, sync::Arc, time::Duration};

use proto::{
    contract::province::{
        Change as WireChange, ChangeBatch, ChangeKind as WireKind, LogPosition, Opening, ProbeEcho,
        Resumption as WireResumption, WatchChangesRequest, WatchChangesResponse, watch_changes_request,
        watch_changes_response,
    },
    refusal::{Reason, Refusal},
    statement::LogHead,
};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::{Status, Streaming};

use crate::{
    home::Home,
    store::{Change, ChangeKind, Store},
    watch::{MAX_PROBES, MAX_WAITING, Outlet, Probe, Resumption, Said, Watchers},
};

/// How long the first message may take.
const START_WITHIN: Duration = Duration::from_secs(5);

/// What the gateway reads.
pub(crate) type Changes = Pin<Box<dyn Stream<Item = Result<WatchChangesResponse, Status>> + Send>>;

/// Opens a stream. It has a place among the watchers until it ends.
pub(super) fn open<S: Store>(
    home: Arc<Home<S>>,
    watchers: Arc<Watchers>,
    requests: Streaming<WatchChangesRequest>,
) -> Result<Changes, Refusal> {
    let place = watchers.admit()?;
    let (outlet, said) = mpsc::channel(MAX_WAITING);
    tokio::spawn(async move {
        let _place = place;
        serve(&home, &watchers, requests, outlet).await;
    });
    Ok(Box::pin(ReceiverStream::new(said).map(|said| said.map(message).map_err(Status::from))))
}

async fn serve<S: Store>(
    home: &Home<S>,
    watchers: &Watchers,
    mut requests: Streaming<WatchChangesRequest>,
    outlet: Outlet,
) {
    let after = match timeout(START_WITHIN, requests.message()).await {
        Ok(Ok(Some(first))) => parse_start(first),
        // Whoever goes away is told nothing.
        Ok(Ok(None)) => return,
        Ok(Err(_)) => Err(Refusal::new(Reason::RequestMalformed)),
        Err(_) => Err(Refusal::new(Reason::DeadlineExceeded)),
    };
    let after = match after {
        Ok(after) => after,
        Err(refusal) => {
            // The channel is empty: it takes one.
            let _ = outlet.try_send(Err(refusal));
            return;
        }
    };
    let (probes, waiting) = mpsc::channel(MAX_PROBES);
    let (refuse, refused) = oneshot::channel();
    let reading = tokio::spawn(read_probes(requests, probes, refuse));
    tokio::select! {
        biased;
        Ok(refusal) = refused => watchers.refuse(&outlet, refusal).await,
        () = watchers.follow(home, after, waiting, outlet.clone()) => {}
    }
    reading.abort();
}

/// Hands probes on until there are no more. Whoever sends other things, or too many, is refused.
async fn read_probes(
    mut requests: Streaming<WatchChangesRequest>,
    probes: mpsc::Sender<Probe>,
    refuse: oneshot::Sender<Refusal>,
) {
    let places = Arc::new(Semaphore::new(MAX_PROBES));
    loop {
        let request = match requests.message().await {
            Ok(Some(request)) => request.request,
            Ok(None) => return,
            Err(_) => break,
        };
        let Some(watch_changes_request::Request::Probe(probe)) = request else { break };
        let Ok(place) = places.clone().try_acquire_owned() else { break };
        // There is room for as many as there are places: whoever takes none has ended.
        if probes.try_send(Probe { number: probe.number, _place: place }).is_err() {
            return;
        }
    }
    let _ = refuse.send(Refusal::new(Reason::RequestMalformed));
}

fn parse_start(first: WatchChangesRequest) -> Result<Option<LogHead>, Refusal> {
    let Some(watch_changes_request::Request::Start(start)) = first.request else {
        return Err(Refusal::missing("start"));
    };
    let parse = |position: LogPosition| {
        let epoch = position.epoch.try_into().map_err(|_| Refusal::field("start.after.epoch", "16 bytes"))?;
        Ok(LogHead { epoch, seq: position.seq })
    };
    start.after.map(parse).transpose()
}

fn message(said: Said) -> WatchChangesResponse {
    use watch_changes_response::Response;
    let response = match said {
        Said::Opening(after, resumption) => {
            let resumption = match resumption {
                Resumption::AtHead => WireResumption::AtHead,
                Resumption::Resumed => WireResumption::Resumed,
                Resumption::TooOld => WireResumption::TooOld,
                Resumption::OtherLog => WireResumption::OtherLog,
            };
            Response::Opening(Opening { after: Some(position(after)), resumption: resumption.into() })
        }
        Said::Batch(changes) => Response::Batch(ChangeBatch {
            first_seq: changes.first().map_or(0, |change| change.seq),
            changes: changes.iter().map(change).collect(),
        }),
        Said::Echo(number, head) => Response::Echo(ProbeEcho { number, head: Some(position(head)) }),
    };
    WatchChangesResponse { response: Some(response) }
}

fn position(head: LogHead) -> LogPosition {
    LogPosition { epoch: head.epoch.to_vec(), seq: head.seq }
}

fn change(change: &Change) -> WireChange {
    let kind = match change.what {
        ChangeKind::Status => WireKind::Status,
        ChangeKind::Revoked => WireKind::Revoked,
    };
    WireChange { cti: change.cti.0.to_vec(), kind: kind.into() }
}
