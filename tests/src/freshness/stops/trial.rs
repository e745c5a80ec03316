//! One traveler through one fault: a venue keeps asking, and what it was told is judged afterwards.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use proto::terms::Level;
use serde::Serialize;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::SECOND;
use crate::freshness::{
    ask::{Answer, Asker, Said},
    figures::milliseconds,
    home::Traveler,
};

/// Questions without an answer from which on a venue asks less often, so that a fault meets questions of all ages instead of
/// many of one.
const PATIENT_FROM: usize = 4;
const LESS_OFTEN: Duration = Duration::from_millis(250);
/// Questions without an answer at most.
const MAX_UNDER_WAY: usize = 128;

/// What a venue was told of one traveler.
pub(super) struct Watched {
    pub(super) traveler: Arc<Traveler>,
    pub(super) answers: Vec<Answer>,
}

/// Asks for a traveler again and again until it is told to stop, whatever becomes of the questions before.
pub(super) async fn watch(
    asker: Arc<Asker>,
    traveler: Arc<Traveler>,
    every: Duration,
    stop: CancellationToken,
) -> Watched {
    let (mut under_way, mut answers) = (JoinSet::new(), Vec::new());
    loop {
        let pace = if under_way.len() < PATIENT_FROM { every } else { every.max(LESS_OFTEN) };
        tokio::select! {
            () = stop.cancelled() => break,
            () = sleep(pace) => {}
        }
        while let Some(answer) = under_way.try_join_next() {
            answers.extend(answer);
        }
        if under_way.len() < MAX_UNDER_WAY {
            let (asker, traveler) = (asker.clone(), traveler.clone());
            under_way.spawn(async move { asker.ask(&traveler).await });
        }
    }
    answers.extend(under_way.join_all().await);
    Watched { traveler, answers }
}

/// What venues were told in many trials.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tally {
    /// How many answers there were since each fault's beginning.
    pub answers: usize,
    /// What they said, and how often.
    pub told: BTreeMap<String, usize>,
    /// Answers of the old level to questions that were sent after home's acknowledgement.
    pub old: usize,
    /// Of these, to questions that were sent a second after it or later.
    pub old_after_a_second: usize,
    /// How long after the acknowledgement the last question was sent that got an old answer, in milliseconds.
    pub oldest_ms: f64,
    /// Questions that were sent a second after the acknowledgement or later, whatever came of them.
    pub asked_after_a_second: usize,
}

impl Tally {
    /// Adds one trial: what was answered since `began` of a traveler whose red was acknowledged then.
    pub(super) fn add(&mut self, answers: &[Answer], began: Instant, acknowledged: Instant) {
        for Answer { sent, said, .. } in answers.iter().filter(|answer| answer.sent >= began) {
            self.answers += 1;
            *self.told.entry(said.to_string()).or_default() += 1;
            let Some(age) = sent.checked_duration_since(acknowledged) else { continue };
            let late = age >= SECOND;
            self.asked_after_a_second += usize::from(late);
            if let Said::Level(Level::Green, _) = said {
                self.old += 1;
                self.old_after_a_second += usize::from(late);
                self.oldest_ms = self.oldest_ms.max(milliseconds(age));
            }
        }
    }

    /// For people.
    pub(super) fn lines(&self) -> Vec<String> {
        let told: Vec<_> = self.told.iter().map(|(what, count)| format!("{what} {count}")).collect();
        let Self { old, old_after_a_second, oldest_ms, asked_after_a_second, .. } = self;
        vec![
            format!("  told: {}", told.join(", ")),
            format!("  old answers a second after the acknowledgement: {old_after_a_second} of {asked_after_a_second}"),
            format!("  old answers before that: {}, the last {oldest_ms:.0} ms after it", old - old_after_a_second),
        ]
    }
}

#[cfg(test)]
mod tests {
    use proto::contract::recognition::Source;

    use super::*;

    #[tokio::test]
    async fn what_is_old_is_counted_from_when_it_was_asked() {
        let began = Instant::now();
        let acknowledged = began + Duration::from_secs(5);
        let answer = |sent_ms: u64, level| {
            let sent = began + Duration::from_millis(sent_ms);
            Answer { sent, came: sent + Duration::from_secs(60), said: Said::Level(level, Source::Cache) }
        };
        let mut tally = Tally::default();
        let held = [answer(4_999, Level::Green), answer(5_700, Level::Green), answer(5_999, Level::Green)];
        tally.add(&held, began, acknowledged);
        assert_eq!((tally.answers, tally.old, tally.old_after_a_second), (3, 2, 0));
        assert_eq!((tally.oldest_ms, tally.asked_after_a_second), (999.0, 0));
        tally.add(&[answer(6_000, Level::Green), answer(6_100, Level::Red)], began, acknowledged);
        assert_eq!((tally.old_after_a_second, tally.asked_after_a_second), (1, 2));
        assert_eq!(tally.told["CACHE Green"], 4);
    }
}
