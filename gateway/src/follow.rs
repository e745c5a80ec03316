//! Following a member's change log: a stream of its own connection that applies events and keeps the lease (DESIGN §7).
//!
//! Upholds I4: nothing but the echo of a probe, behind all events before it, lets held statements be answers. Upholds I7: a
//! member that hangs, lies or floods loses its own lease, no more.

use std::{sync::Arc, time::Duration};

use peer::{
    dial::{self, DialLimits},
    serve::Standing,
    surroundings::{Pauses, Point},
    verifier::Expected,
};
use proto::{
    contract::province::{
        ChangeBatch, LogPosition, Opening, Probe, ProbeEcho, Resumption, WatchChangesRequest, WatchChangesResponse,
        WatchStart, province_service_client::ProvinceServiceClient, watch_changes_request, watch_changes_response,
    },
    member::Member,
    statement::LogHead,
    token::Cti,
};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};
use tracing::{debug, error, info, warn};

use crate::{cache::Distrust, home::Home};

/// How often a probe is sent.
const PROBE_EVERY: Duration = Duration::from_millis(200);
/// How long a node has to take the call, and to say where the stream begins.
const OPEN_WITHIN: Duration = Duration::from_secs(2);
/// Between two attempts, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Events of one batch, and of all batches between two probes: a member that sends more is read more slowly, and what it
/// loses by that is its own lease.
const MAX_BATCH: usize = 1_000;
const MAX_EVENTS_PER_PROBE: usize = 50_000;
const MAX_MESSAGES_PER_PROBE: usize = 5_000;
/// A batch is at most some 24 KB.
const MAX_RESPONSE_BYTES: usize = 64 * 1024;

/// One member's follower.
#[derive(Debug)]
pub(crate) struct Follower {
    member: Member,
    home: Arc<Home>,
    channels: Vec<Channel>,
    pauses: Pauses,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the call failed: {0}")]
    Status(#[source] Box<Status>),
    #[error("it did not begin in time")]
    Late,
    #[error("it was closed")]
    Closed,
    #[error("its probes have no echo")]
    Hangs,
    #[error("it contradicts itself: {0}")]
    Contradiction(&'static str),
    #[error("it is behind: {0}")]
    Behind(&'static str),
}

impl Follower {
    /// Follows over connections of its own, which are made when first used.
    pub(crate) fn new(
        member: Member,
        addresses: &[String],
        standing: &Standing,
        home: Arc<Home>,
        pauses: Pauses,
    ) -> Result<Self, tonic::transport::Error> {
        let dial = |address: &String| dial::channel(standing, address, Expected::NodeOf(member), DialLimits::default());
        Ok(Self { member, home, channels: addresses.iter().map(dial).collect::<Result<_, _>>()?, pauses })
    }

    /// Follows for as long as it is polled, beginning anew whenever a stream ends, at the next endpoint.
    pub(crate) async fn run(self) {
        let (mut pause, mut failing, mut behind) = (FIRST_PAUSE, false, 0);
        for (node, channel) in self.channels.iter().enumerate().cycle() {
            let began = Instant::now();
            let ended = self.stream(node, channel).await;
            behind = if matches!(ended, Ended::Behind(_)) { behind + 1 } else { 0 };
            if behind >= self.channels.len() {
                error!(member = %self.member, %ended, "no node knows what one of them had said: what is known of it is dropped");
                self.home.forget();
                behind = 0;
            } else if let Ended::Contradiction(what) = ended {
                warn!(member = %self.member, what, "the change stream contradicts itself: what was held is dropped");
                self.home.forget();
            }
            let lived = began.elapsed() > LONGEST_PAUSE;
            // A member that is down for a day is one line, not forty thousand.
            if lived || !failing {
                info!(member = %self.member, %ended, "the change stream ended");
            } else {
                debug!(member = %self.member, %ended, "no change stream");
            }
            failing = !lived;
            pause = if lived { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
            sleep(pause).await;
        }
    }

    /// One stream, until it ends.
    async fn stream(&self, node: usize, channel: &Channel) -> Ended {
        match self.open(channel).await {
            Ok((probes, responses)) => {
                let ended = self.read(node, probes, responses).await;
                self.home.detach_all();
                ended
            }
            Err(ended) => ended,
        }
    }

    async fn open(
        &self,
        channel: &Channel,
    ) -> Result<(mpsc::Sender<WatchChangesRequest>, Streaming<WatchChangesResponse>), Ended> {
        let (probes, requests) = mpsc::channel(2);
        let after = self.home.cache.position();
        let start = watch_changes_request::Request::Start(WatchStart { after: after.map(position) });
        // The channel is empty: it takes one.
        let _ = probes.try_send(WatchChangesRequest { request: Some(start) });
        let mut client = ProvinceServiceClient::new(channel.clone()).max_decoding_message_size(MAX_RESPONSE_BYTES);
        let opening = async {
            let mut responses = client.watch_changes(ReceiverStream::new(requests)).await?.into_inner();
            let first = responses.message().await?;
            Ok::<_, Status>((responses, first))
        };
        let opened = timeout(OPEN_WITHIN, opening).await.map_err(|_| Ended::Late)?;
        let (responses, first) = opened.map_err(|status| Ended::Status(Box::new(status)))?;
        let Some(watch_changes_response::Response::Opening(opening)) = first.ok_or(Ended::Closed)?.response else {
            return Err(Ended::Contradiction("it does not begin with an opening"));
        };
        self.begin(after, opening)?;
        Ok((probes, responses))
    }

    fn begin(&self, asked: Option<LogHead>, opening: Opening) -> Result<(), Ended> {
        let resumption = opening.resumption();
        let resumed = match (resumption, asked) {
            (Resumption::Resumed, Some(_)) => true,
            (Resumption::AtHead, None) | (Resumption::TooOld | Resumption::OtherLog, Some(_)) => false,
            _ => return Err(Ended::Contradiction("it begins otherwise than asked")),
        };
        if asked.is_some() && !resumed {
            warn!(member = %self.member, ?resumption, "the change stream cannot go on: what was held is dropped");
        }
        Ok(self.home.cache.open(head(opening.after)?, resumed)?)
    }

    async fn read(
        &self,
        node: usize,
        probes: mpsc::Sender<WatchChangesRequest>,
        mut responses: Streaming<WatchChangesResponse>,
    ) -> Ended {
        let mut tick = interval(PROBE_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut events, mut messages) = (0, 0);
        loop {
            tokio::select! {
                biased;
                _ = tick.tick() => {
                    (events, messages) = (0, 0);
                    let Some(number) = self.home.probe() else { return Ended::Hangs };
                    let probe = watch_changes_request::Request::Probe(Probe { number });
                    // A full channel is a connection that takes nothing: the probe stays without an echo, like any other.
                    let _ = probes.try_send(WatchChangesRequest { request: Some(probe) });
                }
                response = responses.message(), if events < MAX_EVENTS_PER_PROBE && messages < MAX_MESSAGES_PER_PROBE => {
                    messages += 1;
                    self.pauses.at(Point::BeforeApplying).await;
                    let applied = match response {
                        Ok(Some(response)) => self.apply(node, response),
                        Ok(None) => return Ended::Closed,
                        Err(status) => return Ended::Status(Box::new(status)),
                    };
                    match applied {
                        Ok(count) => events += count,
                        Err(ended) => return ended,
                    }
                }
            }
        }
    }

    /// Applies one message; returns how many events it had.
    fn apply(&self, node: usize, response: WatchChangesResponse) -> Result<usize, Ended> {
        match response.response {
            Some(watch_changes_response::Response::Batch(batch)) => self.apply_batch(batch),
            Some(watch_changes_response::Response::Echo(ProbeEcho { number, head: at })) => {
                self.home.echo(node, number, head(at)?)?;
                Ok(0)
            }
            Some(watch_changes_response::Response::Opening(_)) => Err(Ended::Contradiction("it begins in its middle")),
            // What a later version may say is not this version's to judge.
            None => Ok(0),
        }
    }

    fn apply_batch(&self, batch: ChangeBatch) -> Result<usize, Ended> {
        if batch.changes.len() > MAX_BATCH {
            return Err(Ended::Contradiction("a batch is too large"));
        }
        let handles = batch.changes.iter().map(|change| Some(Cti(<[u8; 16]>::try_from(change.cti.as_slice()).ok()?)));
        let handles: Vec<Cti> = handles.collect::<Option<_>>().ok_or(Ended::Contradiction("a handle is not one"))?;
        self.home.cache.apply(batch.first_seq, &handles, Instant::now())?;
        self.home.detach(&handles);
        Ok(handles.len())
    }
}

impl From<Distrust> for Ended {
    fn from(distrust: Distrust) -> Self {
        match distrust {
            Distrust::Contradiction(what) => Self::Contradiction(what),
            Distrust::Behind(what) => Self::Behind(what),
        }
    }
}

fn position(head: LogHead) -> LogPosition {
    LogPosition { epoch: head.epoch.to_vec(), seq: head.seq }
}

fn head(position: Option<LogPosition>) -> Result<LogHead, Ended> {
    let head = position.and_then(|at| Some(LogHead { epoch: at.epoch.try_into().ok()?, seq: at.seq }));
    head.ok_or(Ended::Contradiction("a position is not one"))
}
