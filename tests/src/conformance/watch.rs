//! The change stream as a gateway follows it: where it begins, events in their order, echoes behind them.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use proto::{
    contract::province::{
        ChangeBatch, ChangeKind, LogPosition, Opening, Probe as WireProbe, ProbeEcho, Resumption, WatchChangesRequest,
        WatchChangesResponse, WatchStart, province_service_client::ProvinceServiceClient,
        watch_changes_request::Request, watch_changes_response::Response,
    },
    random::{self, SystemRandom},
    statement::LogHead,
};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};

use super::{
    stage::{ANSWER, Miss, Stage, answer, ensure, settle},
    steps::{After, First, Kind, Probe, Watch},
};

/// Messages that may wait to be sent: all of one step. Libraries buffer a thousand echoes before they say that they wait.
const MAX_UNSENT: usize = 5_000;
/// Messages that may come before the last echo of a step.
const MAX_MESSAGES: usize = 10_000;
/// Events of one batch at most, as the contract says.
const MAX_BATCH: usize = 1_000;
/// How long a reader pauses: long enough for a node to have all that was sent, and no reason to cut it off.
const PAUSE: Duration = Duration::from_millis(500);

/// A stream, and how far it was read.
pub(super) struct Watched {
    requests: mpsc::Sender<WatchChangesRequest>,
    responses: Streaming<WatchChangesResponse>,
    position: LogHead,
    probed: u64,
    events: HashMap<Vec<u8>, Vec<ChangeKind>>,
}

impl Stage<'_> {
    pub(super) async fn watch(&mut self, step: &Watch) -> Result<(), Miss> {
        self.streams.remove(&step.stream);
        let after = self.after(step.after)?;
        let first = match step.first {
            First::Start => Some(Request::Start(WatchStart { after: after.clone() })),
            First::Probe => Some(Request::Probe(WireProbe { number: 1 })),
            First::Nothing => None,
        };
        let channel = if step.narrow { self.world.narrow()? } else { self.world.channel(step.r#as)? };
        let (requests, unsent) = mpsc::channel(MAX_UNSENT);
        // The channel is empty: it takes one.
        let _ = requests.try_send(WatchChangesRequest { request: first });
        let opened = open(channel, unsent).await;
        let Some((responses, first)) = settle(opened, step.refused.as_ref(), "an opening")? else { return Ok(()) };
        let Some(Response::Opening(opening)) = first.response else {
            return Err(Miss::failed("an opening first", "another message"));
        };
        let position = self.judge_opening(step.after, after, &opening)?;
        self.last.position = Some(position);
        let watched = Watched { requests, responses, position, probed: 0, events: HashMap::new() };
        self.streams.insert(step.stream.clone(), watched);
        Ok(())
    }

    /// The position that a start names.
    fn after(&self, after: After) -> Result<Option<LogPosition>, Miss> {
        let seen = self.last.position.or(self.last.written);
        let seen = || seen.ok_or_else(|| Miss::skipped("the case knows no position of the change log"));
        Ok(match after {
            After::Head => None,
            After::Seen => Some(wire(seen()?)),
            After::OtherEpoch => Some(wire(LogHead { epoch: random::bytes(&SystemRandom), ..seen()? })),
            // Nobody else makes so many changes between two steps.
            After::Beyond => Some(wire(LogHead { seq: seen()?.seq + 1_000_000, ..seen()? })),
            After::ShortEpoch => Some(LogPosition { epoch: seen()?.epoch[1..].to_vec(), seq: seen()?.seq }),
        })
    }

    fn judge_opening(&self, asked: After, after: Option<LogPosition>, opening: &Opening) -> Result<LogHead, Miss> {
        let expected = match asked {
            After::Head => Resumption::AtHead,
            After::Seen => Resumption::Resumed,
            After::OtherEpoch | After::Beyond => Resumption::OtherLog,
            After::ShortEpoch => return Err(Miss::failed("a refusal", "an opening")),
        };
        let got = opening.resumption();
        ensure(got == expected, expected.as_str_name(), got.as_str_name())?;
        let position = head(opening.after.as_ref())?;
        if expected == Resumption::Resumed {
            let there = opening.after == after;
            ensure(there, "an opening at the position asked for", format!("one at {}", position.seq))?;
        } else {
            self.of_now(position)?;
        }
        Ok(position)
    }

    /// A head that the node read just now: of the one log, and not before what it has acknowledged in this case.
    fn of_now(&self, head: LogHead) -> Result<(), Miss> {
        self.world.observe(head).map_err(|got| Miss::failed("a change log that goes on", got))?;
        let written = self.last.written.map_or(0, |written| written.seq);
        let expected = format!("a head of {written} at least, which was acknowledged");
        ensure(head.seq >= written, expected, format!("{}", head.seq))
    }

    pub(super) async fn probe(&mut self, step: &Probe) -> Result<(), Miss> {
        let mut watched =
            self.streams.remove(&step.stream).ok_or_else(|| Miss::skipped("the case has no such stream"))?;
        let unanswered = watched.send(step)?;
        if step.unread {
            sleep(PAUSE).await;
        }
        let read = self.read(&mut watched, unanswered).await?;
        let echoed = if step.start { "a stream that goes on after a second start" } else { "an echo of each probe" };
        if settle(read, step.refused.as_ref(), echoed)?.is_some() {
            self.judge_events(step, &watched.events)?;
            watched.events.clear();
            self.last.position = Some(watched.position);
            self.streams.insert(step.stream.clone(), watched);
        }
        Ok(())
    }

    /// Reads until every probe has its echo. What ends the stream before is the status.
    async fn read(&self, watched: &mut Watched, mut unanswered: BTreeSet<u64>) -> Result<Result<(), Status>, Miss> {
        for _ in 0..MAX_MESSAGES {
            if unanswered.is_empty() {
                return Ok(Ok(()));
            }
            match next(&mut watched.responses).await {
                Err(status) => return Ok(Err(status)),
                Ok(WatchChangesResponse { response: Some(Response::Batch(batch)) }) => watched.take(batch)?,
                Ok(WatchChangesResponse { response: Some(Response::Echo(echo)) }) => {
                    let sent = unanswered.remove(&echo.number);
                    ensure(sent, "the echo of a probe without one", format!("one of number {}", echo.number))?;
                    self.judge_echo(watched.position, &echo)?;
                }
                Ok(_) => return Err(Miss::failed("events and echoes after the opening", "another message")),
            }
        }
        Err(Miss::failed("the echoes", format!("{MAX_MESSAGES} messages without them")))
    }

    fn judge_echo(&self, position: LogHead, echo: &ProbeEcho) -> Result<(), Miss> {
        let head = head(echo.head.as_ref())?;
        let expected = format!("an echo behind all events up to its head {}", head.seq);
        ensure(head.seq <= position.seq, expected, format!("one behind event {}", position.seq))?;
        self.of_now(head)
    }

    /// Of the case's own tokens exactly these are events; what is of others is not looked at.
    fn judge_events(&self, step: &Probe, events: &HashMap<Vec<u8>, Vec<ChangeKind>>) -> Result<(), Miss> {
        let kind = match step.kind {
            Kind::Status => ChangeKind::Status,
            Kind::Revoked => ChangeKind::Revoked,
        };
        for slot in &step.events {
            self.pass(slot)?;
        }
        for (slot, pass) in &self.passes {
            let got = events.get(pass.consent.cti.0.as_slice()).map_or(&[][..], Vec::as_slice);
            let expected = if step.events.contains(slot) { &[kind][..] } else { &[] };
            ensure(got == expected, format!("events of {slot}: {expected:?}"), format!("{got:?}"))?;
        }
        Ok(())
    }
}

impl Watched {
    /// Sends a step's probes, or a second start; returns the numbers of those that want an echo.
    fn send(&mut self, step: &Probe) -> Result<BTreeSet<u64>, Miss> {
        let first = self.probed + 1;
        self.probed += step.times;
        let full = |_| Miss::failed("a node that reads", "messages that it does not take");
        for number in first..=self.probed {
            let request = if step.start {
                Request::Start(WatchStart { after: None })
            } else {
                Request::Probe(WireProbe { number })
            };
            self.requests.try_send(WatchChangesRequest { request: Some(request) }).map_err(full)?;
        }
        Ok((first..=self.probed).collect())
    }

    /// Keeps a batch's events.
    fn take(&mut self, batch: ChangeBatch) -> Result<(), Miss> {
        let (count, wanted) = (batch.changes.len(), self.position.seq + 1);
        ensure((1..=MAX_BATCH).contains(&count), format!("1 to {MAX_BATCH} events in a batch"), format!("{count}"))?;
        ensure(batch.first_seq == wanted, format!("events from {wanted} on"), format!("from {}", batch.first_seq))?;
        for change in batch.changes {
            let kind = change.kind();
            let known = change.cti.len() == 16 && kind != ChangeKind::Unspecified;
            ensure(
                known,
                "an event of 16 bytes that says what happened",
                format!("{} bytes, {kind:?}", change.cti.len()),
            )?;
            self.events.entry(change.cti).or_default().push(kind);
        }
        self.position.seq += count as u64;
        Ok(())
    }
}

/// Calls, and waits for the first message.
async fn open(
    channel: Channel,
    unsent: mpsc::Receiver<WatchChangesRequest>,
) -> Result<(Streaming<WatchChangesResponse>, WatchChangesResponse), Status> {
    let mut client = ProvinceServiceClient::new(channel);
    let mut responses = answer(client.watch_changes(ReceiverStream::new(unsent))).await?;
    let first = next(&mut responses).await?;
    Ok((responses, first))
}

/// The next message; a stream that ends has none.
async fn next(responses: &mut Streaming<WatchChangesResponse>) -> Result<WatchChangesResponse, Status> {
    match timeout(ANSWER, responses.message()).await {
        Ok(message) => message?.ok_or_else(|| Status::ok("the stream ended")),
        Err(_) => Err(Status::deadline_exceeded(format!("no message within {} s", ANSWER.as_secs()))),
    }
}

fn wire(head: LogHead) -> LogPosition {
    LogPosition { epoch: head.epoch.to_vec(), seq: head.seq }
}

fn head(position: Option<&LogPosition>) -> Result<LogHead, Miss> {
    let head = position.and_then(|at| Some(LogHead { epoch: at.epoch.as_slice().try_into().ok()?, seq: at.seq }));
    head.ok_or_else(|| Miss::failed("a position with an epoch of 16 bytes", "another one"))
}
