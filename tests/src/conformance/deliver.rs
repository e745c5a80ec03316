//! Access records delivered, as a gateway delivers them or as it should not.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use proto::{
    contract::{
        access::{
            Conflict, RecordAccessesRequest, access_log_service_client::AccessLogServiceClient,
            record_accesses_response::Result as Answer,
        },
        recognition::{Outcome, Source},
    },
    identity::{FederationDomain, PeerId, Realm},
    log::{
        LogId,
        checkpoint::Checkpoint,
        delivery::DeliveryReceipt,
        record::{Ending, Entry},
    },
    random::{self, SystemRandom},
    refusal::{Reason, Refusal},
    suite::{SigningKey, Suite},
    terms::{Kind, Purpose, Scope},
    time::UnixTime,
    token::Cti,
    venue::VenueId,
};

use super::{
    act::random_bytes,
    log::{History, KitLog, note},
    stage::{Delivered, Miss, Stage, answer, ensure, settle},
    steps::{Before, Deliver, Note, Party, Path},
    token::near,
};
use crate::forge;

/// Records that the kit brings a node up to date with, at once.
const CATCH_UP: u64 = 500;
/// As many seconds before now the case's first record was made: each later one a second after it.
const AGE: u64 = 100;

/// What was sent, as far as it has to be judged.
struct Sent {
    request: RecordAccessesRequest,
    /// How much the node held before.
    held: u64,
    /// Of records that go on where it stands.
    end: u64,
}

impl Stage<'_> {
    pub(super) async fn deliver(&mut self, step: &Deliver) -> Result<(), Miss> {
        if let Err(miss) = self.catch_up().await {
            // One fault of a node makes one case red.
            let spoiled = self.world.log()?.spoiled;
            let why = "the node holds another log than the kit's, since a case that failed";
            return Err(if spoiled { Miss::skipped(why) } else { miss });
        }
        let done = self.deliver_once(step).await;
        if let Err(Miss::Failed { .. }) = done {
            let mut log = self.world.log()?;
            (log.held, log.spoiled) = (None, true);
        }
        done
    }

    async fn deliver_once(&mut self, step: &Deliver) -> Result<(), Miss> {
        let sent = self.compose(step)?;
        let client = AccessLogServiceClient::new(self.world.channel(step.r#as)?);
        let wanted = if step.conflict.is_some() { "a conflict" } else { "a receipt" };
        let answered = answer(client.clone().record_accesses(sent.request.clone())).await;
        let Some(answered) = settle(answered, step.refused.as_ref(), wanted)? else { return Ok(()) };
        match (answered.result, step.conflict) {
            (Some(Answer::Receipt(receipt)), None) => self.judge_receipt(&receipt, &sent),
            (Some(Answer::Conflict(conflict)), Some(from)) => self.judge_conflict(&conflict, &sent, from),
            (Some(Answer::Receipt(_)), Some(_)) => Err(Miss::failed(wanted, "a receipt")),
            (Some(Answer::Conflict(_)), None) => Err(Miss::failed(wanted, "a conflict")),
            (None, _) => Err(Miss::failed(wanted, "an answer without a result")),
        }
    }

    /// Asks where the node stands, where that is not known, and delivers what it has not: another node may have had it, or
    /// a run was cut off.
    async fn catch_up(&mut self) -> Result<(), Miss> {
        if self.world.log()?.held.is_some() {
            return Ok(());
        }
        let client = AccessLogServiceClient::new(self.world.channel(Party::Gateway)?);
        // No records: a question.
        let (mut from, mut count) = (0, 0);
        loop {
            let request = {
                let log = self.world.log()?;
                let end = log.history.size().min(from + count);
                let checkpoint = self.head(&log, &log.history, log.history.size());
                self.request(&log, &log.history, from, end, checkpoint)
            };
            let end = from + request.records.len() as u64;
            let answered = answer(client.clone().record_accesses(request)).await;
            let expected = "where the node stands with the kit's log";
            let answered = settle(answered, None, expected)?.and_then(|answered| answered.result);
            let Some(Answer::Receipt(receipt)) = answered else {
                return Err(Miss::failed(expected, "no receipt: it holds another log than the directory has"));
            };
            let receipt = self.receipt(&receipt)?;
            let mut log = self.world.log()?;
            if receipt.size > log.history.size() {
                return Err(Miss::skipped("the node holds more of the kit's log than there is in the directory"));
            }
            ensure(receipt.root == log.history.root(receipt.size), "the root of what it was sent", "another root")?;
            ensure(receipt.size >= end, format!("{end} records at least"), format!("{}", receipt.size))?;
            if receipt.size == log.history.size() {
                log.held = Some(receipt.size);
                return Ok(());
            }
            (from, count) = (receipt.size, CATCH_UP);
        }
    }

    /// The head of a history of the kit's log.
    fn head(&self, log: &KitLog, history: &History, size: u64) -> String {
        let owner = Realm::Member(self.world.member());
        note(history, size, log.id(), owner, &self.world.trust().list.domain, log.key())
    }

    /// Records of a history, with a checkpoint of its whole size.
    fn request(
        &self,
        log: &KitLog,
        history: &History,
        from: u64,
        end: u64,
        checkpoint: String,
    ) -> RecordAccessesRequest {
        let proof = history.proof(end, history.size());
        RecordAccessesRequest {
            log: log.id().0.to_vec(),
            first_index: from,
            records: history.records(from, end).to_vec(),
            checkpoint,
            consistency_proof: proof.into_iter().map(Vec::from).collect(),
            frontier: Vec::new(),
        }
    }

    /// The request that a step wants.
    fn compose(&mut self, step: &Deliver) -> Result<Sent, Miss> {
        let new = self.new_records(step)?;
        let mut log = self.world.log()?;
        let held = log.held.ok_or_else(|| Miss::skipped("nobody knows where the node stands"))?;
        let at = |offset: i64| {
            held.checked_add_signed(offset).ok_or_else(|| Miss::skipped("the kit's log is not that long yet"))
        };
        let fork = step.fork.map(at).transpose()?;
        let history = match fork {
            Some(fork) => {
                let mut other = log.history.forked(fork);
                // What is new in a fork is so by itself.
                new.into_iter().for_each(|record| other.push(record));
                other
            }
            None => {
                log.append(new).map_err(|error| Miss::skipped(format!("{error:#}")))?;
                log.history.clone()
            }
        };
        let from = at(step.from)?;
        let end = step.count.map_or(history.size(), |count| from + count as u64).max(from).min(history.size());
        let size = if step.checkpoint == Note::BelowEnd { end.saturating_sub(1) } else { history.size() };
        let (log_id, checkpoint) = self.checkpoint(step, &log, &history, size);
        let mut request = self.request(&log, &history, from, end, checkpoint);
        if let Some(id) = log_id {
            request.log = id.0.to_vec();
        }
        if let Some(bytes) = step.log_bytes {
            request.log = random_bytes(bytes);
        }
        if let Some([count, bytes]) = step.instead {
            request.records = vec![vec![0; bytes]; count];
        }
        let proof = &mut request.consistency_proof;
        let other = || random::bytes::<32>(&SystemRandom).to_vec();
        match step.proof {
            Path::Own => {}
            Path::Missing => proof.clear(),
            Path::Extended => proof.push(other()),
            Path::ShortHash => *proof = vec![vec![0; 31]],
            Path::TooLong => *proof = vec![other(); 64],
            Path::Flipped => match proof.first_mut() {
                Some(first) => first[0] ^= 1,
                None => return Err(Miss::skipped("there is no proof to be changed")),
            },
        }
        request.frontier = frontier(step.frontier, &history, from)?;
        let gap = from > held && step.frontier == Before::Untold;
        Ok(Sent { request, held, end: if gap { held } else { end.max(held) } })
    }

    /// The checkpoint, and the log that the request speaks of if it is not the kit's.
    fn checkpoint(&self, step: &Deliver, log: &KitLog, history: &History, size: u64) -> (Option<LogId>, String) {
        let domain = self.world.trust().list.domain.clone();
        let owner = Realm::Member(self.world.member());
        let stranger = SigningKey::generate(Suite::Ed25519);
        let strangers = LogId::of(stranger.verifying_key());
        let of = |id, owner, domain: &FederationDomain, key| note(history, size, id, owner, domain, key);
        let own = || of(log.id(), owner, &domain, log.key());
        let (id, text) = match step.checkpoint {
            Note::Head | Note::BelowEnd => (None, own()),
            Note::Missing => (None, String::new()),
            Note::Noise => (None, "the log is quite long".into()),
            Note::Witnessed => (None, format!("{}— witness.test/w {}\n", own(), STANDARD.encode([9; 76]))),
            Note::Oversize => {
                let own = own();
                let line = format!("— {} {}\n", "w".repeat(1025 - own.len() - 14), STANDARD.encode([9; 5]));
                (None, own + &line)
            }
            Note::OtherFederation => match "elsewhere.test".parse() {
                Ok(elsewhere) => (None, of(log.id(), owner, &elsewhere, log.key())),
                Err(_) => (None, String::new()),
            },
            Note::OtherMember => (None, of(log.id(), Realm::Member(self.world.other_code()), &domain, log.key())),
            Note::Gateways => (None, of(log.id(), Realm::Gateway, &domain, log.key())),
            Note::OtherLog => (None, of(strangers, owner, &domain, &stranger)),
            Note::UnknownKey => (Some(strangers), of(strangers, owner, &domain, &stranger)),
            Note::ByStranger => (None, of(log.id(), owner, &domain, &stranger)),
            Note::Endless => {
                let checkpoint = Checkpoint { log: log.id(), owner, size: 1 << 63, root: history.root(size) };
                (None, checkpoint.sign(&domain, log.key()))
            }
            Note::Changed => (None, own().replacen(&format!("\n{size}\n"), &format!("\n{}\n", size + 1), 1)),
        };
        if !step.flipped {
            return (id, text);
        }
        let flipped = text.trim_end().rsplit_once(' ').and_then(|(before, signature)| {
            let bytes = STANDARD.decode(signature).ok()?;
            Some(format!("{before} {}\n", STANDARD.encode(forge::flipped(&bytes))))
        });
        (id, flipped.unwrap_or(text))
    }

    /// What the log gets before it is delivered.
    fn new_records(&mut self, step: &Deliver) -> Result<Vec<Vec<u8>>, Miss> {
        let mut records = Vec::new();
        let odd = step.even && !self.world.log()?.history.size().is_multiple_of(2);
        for _ in 0..step.new + usize::from(odd) {
            records.push(match step.record_bytes {
                Some(bytes) => (0..bytes).map(|_| random::bytes::<1>(&SystemRandom)[0] | 0xe0).collect(),
                None => self.entry(None, step.long)?.encode(),
            });
        }
        for slot in &step.of {
            let entry = self.entry(Some(slot), step.long)?;
            records.push(entry.encode());
            let index = self.world.log()?.history.size() + records.len() as u64 - 1;
            let pass = self.pass(slot)?;
            let (person, device) = (pass.person.clone(), pass.device);
            self.delivered.push(Delivered { person, device, entry, index });
        }
        Ok(records)
    }

    /// A record, of a token or of nobody's. Each ends in another way than the one before it.
    fn entry(&mut self, slot: Option<&str>, long: bool) -> Result<Entry, Miss> {
        let bad = |what: &str| Miss::skipped(format!("the kit's {what} is none"));
        let (cti, kind) = match slot {
            Some(slot) => self.pass(slot).map(|pass| (pass.consent.cti, pass.consent.kind))?,
            None => (Cti(random::bytes(&SystemRandom)), Kind::Own),
        };
        let turn = self.entries;
        self.entries += 1;
        let name = if long { "v".repeat(25) } else { "guangzhou-south".into() };
        let category = if long { "residential" } else { "station" };
        let venue: VenueId = format!("44/{category}/{name}").parse().map_err(|_| bad("venue"))?;
        let backend = PeerId::backend(self.world.other_code(), "app").ok_or_else(|| bad("backend"))?;
        let by_venue = long || turn.is_multiple_of(2);
        let caller = if by_venue { PeerId::venue(venue.clone()) } else { backend };
        let answered = |outcome, source, statement| Ending::Answered { outcome, source, statement };
        let statement = Some(random::bytes(&SystemRandom));
        let (granted, ending) = match turn % 5 {
            _ if long => (Some(Scope::ALL), Ending::Refused("R".repeat(40).into())),
            0 => (Some(Scope::ALL), answered(Outcome::Status, Source::Cache, statement)),
            1 => (None, Ending::refused(Reason::AudienceMismatch)),
            2 => (Scope::from_bits(33).ok(), answered(Outcome::Undetermined, Source::Home, statement)),
            3 => (Scope::from_bits(1).ok(), answered(Outcome::UnknownTraveler, Source::Home, None)),
            _ => (Scope::from_bits(1).ok(), answered(Outcome::HomeUnreachable, Source::Unspecified, None)),
        };
        let trust = self.world.trust();
        // Old enough for the traveler to see it.
        let age = trust.policy.access_log.visibility_delay.as_secs() + AGE;
        let staff = if long { Some("s".repeat(32)) } else { turn.is_multiple_of(2).then(|| "window-3".into()) };
        let first = self.world.now().as_secs().saturating_sub(age);
        let base = *self.first_entry.get_or_insert(first);
        Ok(Entry {
            time: UnixTime::from_secs(base + turn.min(AGE)),
            venue: Arc::new(venue),
            caller: (&caller).into(),
            staff_id: staff,
            purpose: Purpose::from_number(1 + turn % 6).map_err(|_| bad("purpose"))?,
            granted,
            cti,
            kind,
            policy_version: trust.policy_edition.version,
            exchange_id: random::bytes(&SystemRandom),
            trace_id: random::bytes(&SystemRandom),
            ending,
        })
    }

    /// A receipt that the trust list verifies, of now and for the kit's log.
    fn receipt(&self, bytes: &[u8]) -> Result<DeliveryReceipt, Miss> {
        let (trust, now, id) = (self.world.trust(), self.world.now(), self.world.log()?.id());
        let wrong = |refusal: Refusal| Miss::failed("the member's receipt", format!("a receipt that is {refusal}"));
        let receipt = DeliveryReceipt::open(bytes, self.world.member(), &trust.list, now).map_err(wrong)?;
        ensure(receipt.log == id, "a receipt for the log that was sent", "one for another log")?;
        ensure(near(receipt.issued_at, now), "a receipt of now", format!("one of {}", receipt.issued_at))?;
        Ok(receipt)
    }

    fn judge_receipt(&self, bytes: &[u8], sent: &Sent) -> Result<(), Miss> {
        let receipt = self.receipt(bytes)?;
        let mut log = self.world.log()?;
        ensure(
            receipt.size == sent.end,
            format!("a receipt for {} records", sent.end),
            format!("one for {}", receipt.size),
        )?;
        ensure(receipt.root == log.history.root(sent.end), "the root of what it was sent", "another root")?;
        log.held = Some(receipt.size);
        log.accepted.insert(sent.request.checkpoint.clone());
        Ok(())
    }

    fn judge_conflict(&self, conflict: &Conflict, sent: &Sent, from: i64) -> Result<(), Miss> {
        let log = self.world.log()?;
        let (held, index) = (sent.held, sent.held.saturating_add_signed(from));
        let got = (conflict.held_size, conflict.index);
        ensure(got == (held, index), format!("{held} held, another record at {index}"), format!("{got:?}"))?;
        let opened = Checkpoint::open(&conflict.held_checkpoint, &self.world.trust().list);
        let signed = opened.is_ok_and(|opened| opened.log == log.id() && opened.size >= held);
        ensure(signed, "a checkpoint signed by the log's own key, of what is held", "another note")?;
        // Of an earlier run's the kit knows no more than that it was signed.
        let known = log.accepted.is_empty() || log.accepted.contains(&conflict.held_checkpoint);
        ensure(known, "a checkpoint that it gave a receipt for", "another one")
    }
}

/// The tree over what is before a record, as a step wants it told.
fn frontier(told: Before, history: &History, from: u64) -> Result<Vec<Vec<u8>>, Miss> {
    if told == Before::Untold {
        return Ok(Vec::new());
    }
    if from == 0 || from > history.size() {
        return Err(Miss::skipped("the kit's log is not that long yet"));
    }
    let mut hashes: Vec<_> = history.peaks(from).into_iter().map(Vec::from).collect();
    let last = hashes.len() - 1;
    match told {
        Before::Untold | Before::Own => {}
        Before::Flipped => hashes[last][0] ^= 1,
        Before::Extended => hashes.push(vec![0; 32]),
        Before::OtherNumber if last == 0 => hashes.push(vec![0; 32]),
        Before::OtherNumber => hashes.truncate(1),
        Before::ShortHash => hashes[last].truncate(31),
    }
    Ok(hashes)
}
