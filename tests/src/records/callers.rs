//! Venues that ask without end and note every answer that they have in hand: whose it is, its exchange's id, and where its
//! receipt says that the record is. What a caller has no answer of, it knows nothing of, and notes nothing.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use peer::{
    dial::{self, DialLimits},
    trust::Trust,
    verifier::Expected,
};
use proto::{
    contract::recognition::{
        Outcome, RecognizeRequest, RecognizeResponse, recognition_service_client::RecognitionServiceClient,
    },
    identity::Realm,
    log::{commit::AccessReceipt, merkle::leaf_hash},
    member::Member,
    random::SystemRandom,
    refusal::{Refusal, reason_name},
    venue::VenueId,
};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tongxing::desk::Desk;
use tonic::{Status, transport::Channel};

use super::check::{Noted, Place};
use crate::load::{
    drive::{Driven, drive},
    schedule::{Arrivals, schedule},
    travelers::Travelers,
};

/// How long a caller waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long connecting and shaking hands may take on a busy machine.
const CONNECT: Duration = Duration::from_secs(10);
const CONNECTIONS: usize = 8;
/// Below what a gateway takes from one caller.
const MAX_IN_FLIGHT: usize = 384;
/// Steady load is driven in rounds of this length, so that it can end.
const ROUND: Duration = Duration::from_secs(2);
/// Answers without a receipt that shows them, that are told one by one.
const MAX_TOLD: usize = 20;

/// A venue, with travelers of several members who come to it.
#[derive(Debug)]
pub struct Callers {
    venue: VenueId,
    clients: Vec<RecognitionServiceClient<Channel>>,
    travelers: BTreeMap<Member, Travelers>,
    trust: Arc<Trust>,
    next: AtomicUsize,
    notes: Mutex<Notes>,
}

/// What was noted.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// Answers, each shown by its receipt to be on record.
    pub answers: Vec<Noted>,
    /// Answers of which no receipt shows that.
    pub unproven: usize,
    /// Why, for the first of them.
    pub told: Vec<String>,
}

impl Callers {
    /// A venue's credentials, and so many tokens of each of these members.
    pub async fn enroll(desk: &Desk, venue: &VenueId, members: &[Member], tokens: usize) -> Result<Arc<Self>> {
        let standing = desk.standing(&desk.layout().venue(venue))?;
        let gateway = desk.gateway_address()?;
        let limits = DialLimits { connect_timeout: CONNECT, ..DialLimits::default() };
        let dial = |_| {
            let channel = dial::channel(&standing, &gateway, Expected::Gateway, limits)?;
            Ok(RecognitionServiceClient::new(channel))
        };
        let clients = (0..CONNECTIONS).map(dial).collect::<Result<_>>()?;
        let mut travelers = BTreeMap::new();
        for member in members {
            travelers.insert(*member, Travelers::enroll(desk, &[*member], tokens).await?);
        }
        let (venue, trust) = (venue.clone(), desk.trust());
        Ok(Arc::new(Self { venue, clients, travelers, trust, next: AtomicUsize::new(0), notes: Mutex::default() }))
    }

    /// Asks for travelers of these members by turns, at a rate, for so long.
    pub async fn drive(self: &Arc<Self>, members: &[Member], rate: f64, lasts: Duration) -> Result<Driven> {
        let due = schedule(Arrivals::Poisson, rate, lasts, &SystemRandom);
        let send = |number: usize| {
            let (callers, member) = (self.clone(), members[number % members.len()]);
            async move { callers.ask(member).await }
        };
        Ok(drive(&due, MAX_IN_FLIGHT, send).await?)
    }

    /// Asks for the next traveler of a member, notes the answer, and says what it was.
    async fn ask(&self, member: Member) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        match self.send(number, self.request(member, number)).await {
            Err(word) => word,
            Ok(answer) => {
                let noted = self.note(member, &answer);
                let mut notes = self.notes();
                match noted {
                    Ok(noted) => notes.answers.push(noted),
                    Err(error) => {
                        notes.unproven += 1;
                        if notes.told.len() < MAX_TOLD {
                            notes.told.push(format!("an answer for a traveler of {member}: {error:#}"));
                        }
                    }
                }
                word(&answer)
            }
        }
    }

    /// A traveler of a member at this venue, by a proof made now.
    pub fn request(&self, member: Member, number: usize) -> RecognizeRequest {
        self.travelers[&member].request(number, &self.venue)
    }

    /// Sends a request as it is: the answer, or why there is none.
    pub async fn send(&self, number: usize, request: RecognizeRequest) -> Result<RecognizeResponse, String> {
        let mut client = self.clients[number % self.clients.len()].clone();
        match timeout(PATIENCE, client.recognize(request)).await {
            Err(_) => Err("NO_ANSWER".to_owned()),
            Ok(Err(status)) => Err(reason(&status)),
            Ok(Ok(answer)) => Ok(answer.into_inner()),
        }
    }

    /// How many answers were noted so far.
    pub fn acknowledged(&self) -> usize {
        self.notes().answers.len()
    }

    /// Everything that was noted.
    pub fn take_notes(&self) -> Notes {
        std::mem::take(&mut self.notes())
    }

    /// Reads the receipt as a venue that doubts the gateway does: by the trust list alone.
    fn note(&self, home: Member, answer: &RecognizeResponse) -> Result<Noted> {
        let told = |refusal: Refusal| anyhow::anyhow!("its receipt: {refusal}");
        let receipt = AccessReceipt::parse(&answer.access_receipt).map_err(told)?;
        let shown = receipt.verify(&self.trust.list).map_err(told)?;
        if shown.owner != Realm::Member(home) {
            bail!("its receipt is for the log of {}", shown.owner);
        }
        let exchange = answer.exchange_id.as_slice().try_into().context("its exchange's id is not 16 bytes")?;
        if shown.entry.exchange_id != exchange || *shown.entry.venue != self.venue {
            bail!("its receipt is for another exchange");
        }
        let at = Place { log: shown.log, index: shown.index };
        Ok(Noted { home, exchange, at, record: leaf_hash(&receipt.record) })
    }

    fn notes(&self) -> std::sync::MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Steady load, until this is stopped or dropped.
#[derive(Debug)]
pub struct Load {
    stop: CancellationToken,
    driving: JoinHandle<Result<Ends>>,
}

/// How requests ended.
pub type Ends = BTreeMap<String, usize>;

impl Load {
    /// From now on, over all these members.
    pub fn start(callers: &Arc<Callers>, members: &[Member], rate: f64) -> Self {
        let stop = CancellationToken::new();
        let (callers, members, stopped) = (callers.clone(), members.to_vec(), stop.clone());
        let driving = tokio::spawn(async move {
            let mut ends = Ends::new();
            while !stopped.is_cancelled() {
                add(&mut ends, &callers.drive(&members, rate, ROUND).await?);
            }
            Ok(ends)
        });
        Self { stop, driving }
    }

    /// Ends it within a round.
    pub async fn stop(mut self) -> Result<Ends> {
        self.stop.cancel();
        (&mut self.driving).await?
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.driving.abort();
    }
}

/// Adds what came of a round; what was due and not sent, because as many as may be were under way, is one more end.
pub fn add(ends: &mut Ends, driven: &Driven) {
    for (end, count) in &driven.ends {
        *ends.entry(end.clone()).or_default() += count;
    }
    if driven.not_sent > 0 {
        *ends.entry("not sent".to_owned()).or_default() += driven.not_sent;
    }
}

/// How requests ended, in a line.
pub fn line(ends: &Ends) -> String {
    ends.iter().map(|(end, count)| format!("{end} {count}")).collect::<Vec<_>>().join(", ")
}

fn word(answer: &RecognizeResponse) -> String {
    let outcome = answer.outcome().as_str_name().trim_start_matches("OUTCOME_");
    match answer.outcome() {
        Outcome::Status => format!("{outcome} {}", answer.source().as_str_name().trim_start_matches("SOURCE_")),
        _ => outcome.to_owned(),
    }
}

fn reason(status: &Status) -> String {
    Refusal::reason_of(status).map_or_else(|| format!("{:?}", status.code()), |reason| reason_name(reason).to_owned())
}

/// Requests a second, on a command line.
pub fn rate(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|rate: &f64| (0.1..=1e6).contains(rate)).ok_or_else(|| "0.1 to 1000000".to_owned())
}
