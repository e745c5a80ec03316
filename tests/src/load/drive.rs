//! Sends what is due. Latency is counted from when a request was due, not from when it could be sent: what waits in the driver
//! because the server is slow has waited all the same (no coordinated omission).

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hdrhistogram::Histogram;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep_until},
};

/// The longest latency that is told apart, in microseconds.
const LONGEST_US: u64 = 60_000_000;

/// What came of a round.
#[derive(Debug)]
pub struct Driven {
    /// How many requests were due.
    pub due: usize,
    /// How many were not sent, because as many as may be were under way.
    pub not_sent: usize,
    /// Ends by their word: `OK`, or a reason.
    pub ends: BTreeMap<String, usize>,
    /// Latencies in microseconds, of all that were sent.
    pub latency: Histogram<u64>,
    /// From the first instant until the last answer.
    pub took: Duration,
}

/// Sends one request for each instant of a schedule, `max_in_flight` at most under way; `send` is given the request's
/// number and says how it ended.
pub async fn drive<F>(
    schedule: &[Duration],
    max_in_flight: usize,
    send: impl Fn(usize) -> F,
) -> Result<Driven, hdrhistogram::CreationError>
where
    F: Future<Output = String> + Send + 'static,
{
    let latency = Histogram::new_with_bounds(1, LONGEST_US, 3)?;
    let (places, seen) = (Arc::new(Semaphore::new(max_in_flight)), Arc::new(Mutex::new((latency, BTreeMap::new()))));
    let (began, mut not_sent, mut under_way) = (Instant::now(), 0, JoinSet::new());
    for (number, due) in schedule.iter().enumerate() {
        let due = began + *due;
        sleep_until(due).await;
        let Ok(place) = places.clone().try_acquire_owned() else {
            not_sent += 1;
            continue;
        };
        let (sending, seen) = (send(number), seen.clone());
        under_way.spawn(async move {
            let end = sending.await;
            let took = u64::try_from(due.elapsed().as_micros()).unwrap_or(LONGEST_US).clamp(1, LONGEST_US);
            drop(place);
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.0.saturating_record(took);
            *seen.1.entry(end).or_default() += 1;
        });
        // Finished tasks are let go of, so that a long round does not pile them up.
        while under_way.try_join_next().is_some() {}
    }
    while under_way.join_next().await.is_some() {}
    let took = began.elapsed();
    let seen = std::mem::replace(
        &mut *seen.lock().unwrap_or_else(PoisonError::into_inner),
        (Histogram::new(3)?, BTreeMap::new()),
    );
    Ok(Driven { due: schedule.len(), not_sent, ends: seen.1, latency: seen.0, took })
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    fn every_ms(count: u64) -> Vec<Duration> {
        (0..count).map(Duration::from_millis).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn latency_is_counted_from_when_a_request_was_due() {
        let schedule = every_ms(100);
        let driven = drive(&schedule, 1000, |number| async move {
            sleep(Duration::from_millis(20)).await;
            if number % 10 == 0 { "OVERLOADED".to_owned() } else { "OK".to_owned() }
        });
        let driven = driven.await.unwrap();
        assert_eq!((driven.due, driven.not_sent), (100, 0));
        assert_eq!(driven.ends, BTreeMap::from([("OK".into(), 90), ("OVERLOADED".into(), 10)]));
        let (least, most) = (driven.latency.min(), driven.latency.max());
        assert!((20_000..22_000).contains(&least) && most < 23_000, "{least} to {most}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_sent_is_counted_and_nothing_waits_for_it() {
        let schedule = every_ms(100);
        let driven = drive(&schedule, 10, |_| async {
            sleep(Duration::from_secs(1)).await;
            "OK".to_owned()
        });
        let driven = driven.await.unwrap();
        assert_eq!((driven.not_sent, driven.ends["OK"]), (90, 10));
        assert_eq!(driven.latency.len(), 10);
    }
}
