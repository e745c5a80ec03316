//! A venue at one gateway replica, and what it was told.

use std::{
    fmt,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::{Result, bail};
use peer::{
    dial::{self, DialLimits},
    serve::Standing,
    verifier::Expected,
};
use proto::{
    contract::{
        recognition::{
            Outcome, RecognizeRequest, RecognizeResponse, Source, recognition_service_client::RecognitionServiceClient,
        },
        types,
    },
    refusal::{Refusal, reason_name},
    terms::Level,
    venue::VenueId,
};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Status, transport::Channel};

use super::home::Traveler;

/// Between two questions of somebody who waits for something.
const EVERY: Duration = Duration::from_millis(20);
/// Longer than any program stands still: a connection to one that does is not given up, so that what was sent meanwhile
/// lies there when it goes on.
const NEVER: Duration = Duration::from_secs(3600);
/// How long connecting and shaking hands may take on a busy machine.
const CONNECT: Duration = Duration::from_secs(10);

/// A venue's way to one replica.
#[derive(Debug)]
pub struct Asker {
    venue: VenueId,
    clients: Vec<RecognitionServiceClient<Channel>>,
    next: AtomicUsize,
    patience: Duration,
}

/// What came of one question.
#[derive(Clone, Debug)]
pub struct Answer {
    /// When it was sent.
    pub sent: Instant,
    /// When that came.
    pub came: Instant,
    /// What it was.
    pub said: Said,
}

/// What a venue is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// A status.
    Level(Level, Source),
    /// Another outcome, or the reason of a refusal.
    Other(String),
}

impl Asker {
    /// A venue with its credentials in `standing`, over so many connections; it waits so long for each answer.
    pub fn new(
        venue: VenueId,
        standing: &Standing,
        gateway: &str,
        connections: usize,
        patience: Duration,
    ) -> Result<Self> {
        let limits = DialLimits { connect_timeout: CONNECT, keepalive_interval: NEVER, keepalive_timeout: NEVER };
        let dial = |_| {
            let channel = dial::channel(standing, gateway, Expected::Gateway, limits)?;
            Ok(RecognitionServiceClient::new(channel))
        };
        let clients = (0..connections.max(1)).map(dial).collect::<Result<_>>()?;
        Ok(Self { venue, clients, next: AtomicUsize::new(0), patience })
    }

    /// Who asks.
    pub fn venue(&self) -> &VenueId {
        &self.venue
    }

    /// Asks for a traveler, by a proof made now, for nothing special.
    pub async fn ask(&self, traveler: &Traveler) -> Answer {
        self.send(traveler.request(&self.venue)).await
    }

    /// Sends a request as it is, by the next connection.
    pub async fn send(&self, request: RecognizeRequest) -> Answer {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut client = self.clients[number % self.clients.len()].clone();
        let sent = Instant::now();
        let said = match timeout(self.patience, client.recognize(request)).await {
            Err(_) => Said::Other("NO_ANSWER".to_owned()),
            Ok(answered) => Said::of(answered.map(tonic::Response::into_inner)),
        };
        Answer { sent, came: Instant::now(), said }
    }

    /// Asks until a traveler's level comes from the cache. Returns how long that took.
    ///
    /// # Errors
    /// If it takes longer than `within`.
    pub async fn until_cached(&self, traveler: &Traveler, level: Level, within: Duration) -> Result<Duration> {
        self.until(traveler, within, |said| *said == Said::Level(level, Source::Cache)).await
    }

    /// Asks until a traveler's level is said, wherever it comes from. Returns how long that took.
    ///
    /// # Errors
    /// If it takes longer than `within`.
    pub async fn until_said(&self, traveler: &Traveler, level: Level, within: Duration) -> Result<Duration> {
        self.until(traveler, within, |said| said.level() == Some(level)).await
    }

    async fn until(&self, traveler: &Traveler, within: Duration, is_it: impl Fn(&Said) -> bool) -> Result<Duration> {
        let began = Instant::now();
        loop {
            let answer = self.ask(traveler).await;
            if is_it(&answer.said) {
                return Ok(began.elapsed());
            }
            if began.elapsed() > within {
                bail!("a traveler of {} is still said to be {} after {within:?}", traveler.member, answer.said);
            }
            sleep(EVERY).await;
        }
    }
}

impl Said {
    fn of(answered: Result<RecognizeResponse, Status>) -> Self {
        match answered {
            Ok(answer) => match (answer.outcome(), level(answer.level())) {
                (Outcome::Status, Some(level)) => Self::Level(level, answer.source()),
                (outcome, _) => Self::Other(outcome.as_str_name().trim_start_matches("OUTCOME_").to_owned()),
            },
            Err(status) => Self::Other(
                Refusal::reason_of(&status)
                    .map_or_else(|| format!("{:?}", status.code()), |reason| reason_name(reason).to_owned()),
            ),
        }
    }

    /// The level, if there is one.
    pub fn level(&self) -> Option<Level> {
        match self {
            Self::Level(level, _) => Some(*level),
            Self::Other(_) => None,
        }
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Level(level, source) => {
                write!(f, "{} {level:?}", source.as_str_name().trim_start_matches("SOURCE_"))
            }
            Self::Other(word) => f.write_str(word),
        }
    }
}

fn level(level: types::Level) -> Option<Level> {
    match level {
        types::Level::Unspecified => None,
        types::Level::Green => Some(Level::Green),
        types::Level::Yellow => Some(Level::Yellow),
        types::Level::Red => Some(Level::Red),
    }
}
