//! A caller that sends forged tokens of one member, as fast as it is refused.

use std::sync::Arc;

use anyhow::Result;
use proto::{contract::recognition::RecognizeRequest, member::Member, venue::VenueId};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tongxing::desk::Desk;

use super::callers::{Callers, Ends, line};
use crate::forge;

/// Requests under way at once.
const IN_FLIGHT: usize = 32;
/// Real tokens that they are made of.
const TOKENS: usize = 8;
/// What all of them are told.
const REFUSED: &str = "SIGNATURE_INVALID";

/// Forged tokens, ready to be sent.
#[derive(Debug)]
pub struct Flood {
    callers: Arc<Callers>,
    forged: Arc<Vec<RecognizeRequest>>,
}

/// A flood under way, until it is stopped or dropped.
#[derive(Debug)]
pub struct Flooding {
    stop: CancellationToken,
    sending: JoinSet<Ends>,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Flooded {
    /// How the requests ended.
    pub ends: Ends,
}

impl Flood {
    /// Takes a member's real tokens and forges their signatures.
    pub async fn ready(desk: &Desk, venue: &VenueId, member: Member) -> Result<Self> {
        let callers = Callers::enroll(desk, venue, &[member], TOKENS).await?;
        let forge = |number| {
            let request = callers.request(member, number);
            RecognizeRequest { token: forge::flipped(&request.token), ..request }
        };
        let forged = Arc::new((0..TOKENS).map(forge).collect());
        Ok(Self { callers, forged })
    }

    /// Sends them from now on.
    pub fn start(self) -> Flooding {
        let (stop, mut sending) = (CancellationToken::new(), JoinSet::new());
        for sender in 0..IN_FLIGHT {
            let (callers, forged, stop) = (self.callers.clone(), self.forged.clone(), stop.clone());
            sending.spawn(async move {
                let mut ends = Ends::new();
                for number in (sender..).step_by(IN_FLIGHT).take_while(|_| !stop.is_cancelled()) {
                    let sent = callers.send(number, forged[number % forged.len()].clone()).await;
                    let end = sent.map_or_else(|word| word, |answer| answer.outcome().as_str_name().to_owned());
                    *ends.entry(end).or_default() += 1;
                }
                ends
            });
        }
        Flooding { stop, sending }
    }
}

impl Flooding {
    /// Ends it.
    pub async fn stop(mut self) -> Result<Flooded> {
        self.stop.cancel();
        let mut ends = Ends::new();
        while let Some(sent) = self.sending.join_next().await {
            for (end, count) in sent? {
                *ends.entry(end).or_default() += count;
            }
        }
        Ok(Flooded { ends })
    }
}

impl Flooded {
    /// A line.
    pub fn line(&self) -> String {
        format!("forged tokens meanwhile: {}", line(&self.ends))
    }

    /// What did not hold: that all of it was refused, and for what it is.
    pub fn broken(&self) -> Option<String> {
        let answered = self.ends.iter().any(|(end, _)| end.starts_with("OUTCOME_"));
        (answered || !self.ends.contains_key(REFUSED)).then(|| format!("forged tokens: {}", line(&self.ends)))
    }
}
