//! Delivery: each home member gets its log, in order, at least once, and the log is trimmed only behind its receipts (I2).
//!
//! On a runtime and connections of their own, at a bounded rate: a member that returns after an hour takes nothing from
//! those who are asked meanwhile (I7). What a member claims of a log counts only where the log itself, or a checkpoint under
//! its own key, bears it out: a lying one stops nobody but itself.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use opentelemetry::KeyValue;
use peer::{
    dial::{self, DialLimits},
    serve::Standing,
    verifier::Expected,
};
use proto::{
    contract::access::{
        Conflict, RecordAccessesRequest, RecordAccessesResponse, access_log_service_client::AccessLogServiceClient,
        record_accesses_response,
    },
    identity::Realm,
    log::{checkpoint::Checkpoint, delivery::DeliveryReceipt, record::time_and_caller},
    member::Member,
    refusal::Refusal,
};
use tokio::{
    runtime::Handle,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Status, transport::Channel};
use tracing::{debug, error, info, warn};

use crate::{
    metrics::DeliveryMetrics,
    record::{KeptReceipt, Record, StoreError},
};

/// Bounds of delivery.
#[derive(Clone, Copy, Debug)]
pub struct DeliveryLimits {
    /// How long records are gathered before they are sent.
    pub every: Duration,
    /// How long one call may take.
    pub timeout: Duration,
    /// Records a second to one member at most.
    pub max_per_second: u32,
}

impl Default for DeliveryLimits {
    fn default() -> Self {
        Self { every: Duration::from_millis(500), timeout: Duration::from_secs(10), max_per_second: 20_000 }
    }
}

/// Records of one call, and their bytes: with proof and checkpoint well within the 256 KiB of the contract.
const MAX_RECORDS: usize = 1_000;
const MAX_RECORD_BYTES: usize = 240 * 1024;
/// A response is a receipt or a checkpoint.
const MAX_RESPONSE_BYTES: usize = 8 * 1024;
/// Between two attempts, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often a member that has everything is asked what it has, so that old records are trimmed, and what is wrong shows.
const ASK_EVERY: Duration = Duration::from_secs(60);

/// Delivers to all members of the trust list.
#[derive(Debug)]
pub(crate) struct Deliveries {
    pub(crate) standing: Standing,
    pub(crate) record: Record,
    pub(crate) limits: DeliveryLimits,
    pub(crate) metrics: DeliveryMetrics,
    pub(crate) runtime: Handle,
}

/// Delivers to one member until it is dropped.
#[derive(Debug)]
struct Delivering {
    endpoints: Vec<String>,
    task: JoinHandle<()>,
}

impl Drop for Delivering {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Deliveries {
    /// Follows the trust list until `shutdown`: where a member's nodes are now is where its records go.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut changed = self.standing.trust.subscribe();
        let mut delivering: BTreeMap<Member, Delivering> = BTreeMap::new();
        loop {
            let trust = self.standing.trust.current();
            delivering.retain(|member, _| trust.list.members.contains_key(member));
            for (member, entry) in &trust.list.members {
                if delivering.get(member).is_none_or(|old| old.endpoints != entry.endpoints) {
                    match self.begin(*member, &entry.endpoints) {
                        Ok(begun) => _ = delivering.insert(*member, begun),
                        Err(error) => warn!(%member, %error, "the member's endpoints cannot be dialled"),
                    }
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                change = changed.changed() => if change.is_err() { return },
            }
        }
    }

    fn begin(&self, member: Member, endpoints: &[String]) -> Result<Delivering, tonic::transport::Error> {
        // Connections live where their channels are made.
        let _own = self.runtime.enter();
        let dial =
            |address: &String| dial::channel(&self.standing, address, Expected::NodeOf(member), DialLimits::default());
        let deliverer = Deliverer {
            member,
            channels: endpoints.iter().map(dial).collect::<Result<_, _>>()?,
            standing: self.standing.clone(),
            record: self.record.clone(),
            limits: self.limits,
            metrics: self.metrics.clone(),
        };
        Ok(Delivering { endpoints: endpoints.to_vec(), task: self.runtime.spawn(deliverer.run()) })
    }
}

/// Delivers to one member.
struct Deliverer {
    member: Member,
    channels: Vec<Channel>,
    standing: Standing,
    record: Record,
    limits: DeliveryLimits,
    metrics: DeliveryMetrics,
}

/// Why a call delivered nothing.
#[derive(Debug, thiserror::Error)]
enum Missed {
    #[error("the call failed: {0}")]
    Status(#[source] Box<Status>),
    #[error("it took too long")]
    Late,
    #[error("the log cannot be read: {0}")]
    Store(#[from] StoreError),
    #[error("its receipt does not verify: {0}")]
    Receipt(#[source] Refusal),
    #[error("it claims what the log does not bear out: {0}")]
    Dispute(&'static str),
    #[error("the response has nothing in it")]
    Empty,
}

impl Missed {
    /// The word in metrics.
    const fn word(&self) -> &'static str {
        match self {
            Self::Status(_) | Self::Empty => "failed",
            Self::Late => "timeout",
            Self::Store(_) => "store",
            Self::Receipt(_) => "invalid_receipt",
            Self::Dispute(_) => "dispute",
        }
    }
}

/// Where a member stands.
#[derive(Clone, Copy, Debug, Default)]
struct Stand {
    /// How many records it has a receipt for.
    delivered: u64,
    /// From where to go on: below `delivered` if it has lost some.
    next: u64,
    /// Whether it stands before the first record there still is.
    behind: bool,
    /// Whether it has gone back since it last went on.
    stepped_back: bool,
}

impl Deliverer {
    async fn run(self) {
        let mut stand = loop {
            match self.record.reader().delivered(self.member) {
                Ok(delivered) => break Stand { delivered, next: delivered, ..Stand::default() },
                Err(error) => warn!(member = %self.member, %error, "what was delivered cannot be read"),
            }
            sleep(LONGEST_PAUSE).await;
        };
        sleep(self.limits.every).await;
        let (mut pause, mut failing, mut asked) = (FIRST_PAUSE, false, None::<Instant>);
        for channel in self.channels.iter().cycle() {
            // One node for as long as it answers.
            loop {
                let waiting = self.record.reader().size(self.member).saturating_sub(stand.next);
                self.metrics.undelivered(self.member, waiting, self.record.space().waiting(self.member));
                let due = asked.is_none_or(|asked| asked.elapsed() >= ASK_EVERY);
                if self.is_suspended() || (waiting == 0 && !due) {
                    sleep(self.limits.every).await;
                    continue;
                }
                let began = Instant::now();
                match self.deliver(channel, &mut stand).await {
                    Ok(sent) => {
                        if failing {
                            info!(member = %self.member, "access records are delivered again");
                        }
                        (pause, failing, asked) = (FIRST_PAUSE, false, Some(began));
                        self.pace(began, sent).await;
                    }
                    Err(missed) => {
                        self.metrics.delivered(self.member, missed.word(), 0);
                        // A member that is away for a day is one line.
                        if failing {
                            debug!(member = %self.member, %missed, "access records are not delivered");
                        } else {
                            warn!(member = %self.member, %missed, waiting, "access records are not delivered");
                        }
                        failing = true;
                        sleep(pause).await;
                        pause = if matches!(missed, Missed::Dispute(_)) {
                            ASK_EVERY
                        } else {
                            (pause * 2).min(LONGEST_PAUSE)
                        };
                        break;
                    }
                }
            }
        }
    }

    /// Waits until so many records may be followed by more: by the rate, and if these were not many, until more are gathered.
    async fn pace(&self, began: Instant, sent: usize) {
        let by_rate = Duration::from_secs_f64(sent as f64 / f64::from(self.limits.max_per_second));
        let full = sent >= MAX_RECORDS / 2;
        sleep_until(began + if full { by_rate } else { by_rate.max(self.limits.every) }).await;
    }

    fn is_suspended(&self) -> bool {
        let now = self.standing.trust.clock().now();
        self.standing.trust.current().list.suspension(Realm::Member(self.member), now).is_some()
    }

    /// One call: what is next, or a question if nothing is. Returns how many records were sent.
    async fn deliver(&self, channel: &Channel, stand: &mut Stand) -> Result<usize, Missed> {
        let reader = self.record.reader();
        let first = if stand.behind { reader.kept_from(self.member)?.max(stand.next) } else { stand.next };
        let batch = reader.batch(self.member, first, MAX_RECORDS, MAX_RECORD_BYTES)?;
        let frontier = if stand.behind { reader.frontier(self.member, first)? } else { Vec::new() };
        let sent = batch.records.len();
        let hashes = |hashes: Vec<[u8; 32]>| hashes.iter().map(|hash| hash.to_vec()).collect();
        let request = RecordAccessesRequest {
            log: reader.id().0.to_vec(),
            first_index: first,
            records: batch.records,
            checkpoint: batch.checkpoint,
            consistency_proof: hashes(batch.proof),
            frontier: hashes(frontier),
        };
        let mut client = AccessLogServiceClient::new(channel.clone()).max_decoding_message_size(MAX_RESPONSE_BYTES);
        let called = timeout(self.limits.timeout, client.record_accesses(request)).await.map_err(|_| Missed::Late)?;
        let response = called.map_err(|status| Missed::Status(Box::new(status)))?.into_inner();
        self.take(response, first..first + sent as u64, stand).await?;
        self.metrics.delivered(self.member, "receipt", sent as u64);
        Ok(sent)
    }

    async fn take(&self, response: RecordAccessesResponse, sent: Range<u64>, stand: &mut Stand) -> Result<(), Missed> {
        match response.result.ok_or(Missed::Empty)? {
            record_accesses_response::Result::Receipt(bytes) => self.take_receipt(bytes, sent, stand).await,
            record_accesses_response::Result::Conflict(conflict) => Err(self.answer_for(&conflict)?),
        }
    }

    /// Checks a receipt against the log itself, and moves on to where the member stands.
    async fn take_receipt(&self, bytes: Vec<u8>, sent: Range<u64>, stand: &mut Stand) -> Result<(), Missed> {
        let (trust, reader) = (self.standing.trust.current(), self.record.reader());
        let now = self.standing.trust.clock().now();
        let opened = DeliveryReceipt::open_with_key(&bytes, self.member, &trust.list, now);
        let (receipt, key) = opened.map_err(Missed::Receipt)?;
        let (held, kept_from) = (receipt.size, reader.kept_from(self.member)?);
        let size = reader.committed_size(self.member)?;
        if receipt.log != reader.id() {
            return Err(Missed::Dispute("a receipt for another log"));
        }
        if held > size {
            return Err(Missed::Dispute("more records than there are: either this log was put back, or it is not so"));
        }
        if held >= kept_from && reader.root_at(self.member, held)? != Some(receipt.root) {
            return Err(Missed::Dispute("a receipt for other records"));
        }
        if held < sent.start {
            return self.step_back(held, kept_from, stand);
        }
        if held == sent.start && !sent.is_empty() {
            return Err(Missed::Dispute("it takes nothing in"));
        }
        let settled = self.record.space().settled_to(self.member);
        if held > settled {
            let mut delivered = Vec::new();
            reader.each(self.member, settled, held, |record| {
                delivered.extend(time_and_caller(record).map(|(_, caller)| (caller, record.len())));
            })?;
            self.record.space().settle(self.member, held, &delivered);
        }
        // Who has all again that it had is believed again.
        let stepped_back = stand.stepped_back && held < stand.delivered;
        *stand = Stand { delivered: stand.delivered.max(held), next: held, behind: false, stepped_back };
        if held == stand.delivered {
            let keep_from = now.minus(trust.policy.access_log.gateway_retention);
            let receipt = KeptReceipt { key: key.clone(), receipt: bytes };
            self.record.delivered(self.member, held, receipt, keep_from).await;
        }
        Ok(())
    }

    /// The member stands before what it was sent: it has lost records, which are sent again as far as they are here. Once; one
    /// that goes back and back is not believed.
    fn step_back(&self, held: u64, kept_from: u64, stand: &mut Stand) -> Result<(), Missed> {
        if stand.stepped_back {
            return Err(Missed::Dispute("it goes back again and again"));
        }
        let behind = held < kept_from;
        if behind {
            error!(
                member = %self.member, held, kept_from,
                "the member has lost access records that are not here any more either: it goes on behind the gap"
            );
        } else {
            warn!(member = %self.member, held, had = stand.next, "the member has lost access records: they are sent again");
        }
        *stand = Stand { next: held, behind, stepped_back: true, ..*stand };
        Ok(())
    }

    /// The member says that there are two histories. If it shows a head that this log's own key signed and this log never had, it
    /// is right: this log was put back, and nothing is answered any more until somebody has looked.
    fn answer_for(&self, conflict: &Conflict) -> Result<Missed, StoreError> {
        let reader = self.record.reader();
        let Ok(held) = Checkpoint::open_by(&conflict.held_checkpoint, reader.domain(), reader.key()) else {
            return Ok(Missed::Dispute("a conflict without a head of this log"));
        };
        let ours = held.owner == Realm::Member(self.member)
            && held.size <= reader.committed_size(self.member)?
            && reader.root_at(self.member, held.size)?.is_none_or(|root| root == held.root);
        if ours {
            return Ok(Missed::Dispute("a conflict with a head that this log had"));
        }
        if held.owner == Realm::Member(self.member) {
            error!(
                member = %self.member, held = held.size, here = reader.size(self.member), checkpoint = conflict.held_checkpoint,
                "two histories of one access log: the store is an older copy, or another one. No answers from here on. Keep it as \
                 evidence, begin new logs in an empty data directory, and have their key put into the trust list"
            );
            self.record.disown(&conflict.held_checkpoint);
        }
        Ok(Missed::Dispute("two histories of one log"))
    }
}

impl DeliveryMetrics {
    fn delivered(&self, member: Member, outcome: &'static str, records: u64) {
        let member = KeyValue::new("member", member.to_string());
        self.calls.add(1, &[member.clone(), KeyValue::new("outcome", outcome)]);
        self.records.add(records, &[member]);
    }

    fn undelivered(&self, member: Member, records: u64, bytes: u64) {
        let member = [KeyValue::new("member", member.to_string())];
        self.waiting.record(records, &member);
        self.waiting_bytes.record(bytes, &member);
    }
}
