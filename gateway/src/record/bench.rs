//! How many records a second a machine makes durable: the record as exchanges use it, and nothing around it.

use std::{fs, path::Path, sync::Arc, time::Duration};

use opentelemetry::metrics::MeterProvider as _;
use peer::{health::Impaired, surroundings::Blocking};
use proto::{
    contract::recognition::{Outcome, Source},
    identity::PeerId,
    log::record::{Ending, Entry},
    member::Member,
    random::{self, SystemRandom},
    terms::{Kind, Purpose, Scope},
    time::{Clock as _, SystemClock},
    token::Cti,
};
use tokio::{task::JoinSet, time::Instant};

use super::{Around, LogError, Record, RecordLimits, SpaceLimits};
use crate::metrics::RecordMetrics;

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Records made durable a second.
    pub per_second: f64,
    /// Half of them waited no longer than this, in milliseconds.
    pub p50_ms: f64,
    /// All but one in a hundred waited no longer than this, in milliseconds.
    pub p99_ms: f64,
    /// Records in one commit, on average.
    pub per_commit: f64,
    /// CPU time for one record of the thread that writes, in microseconds: staging, signature, store, waking who waits.
    pub writer_us: f64,
    /// CPU time of the whole process for one record, in microseconds: making it and its receipt, and who waits, as well.
    pub cpu_us: f64,
}

/// Keeps `in_flight` exchanges under way for `lasts`, each waiting for its receipt; their homes are all members in turn.
///
/// # Errors
/// If the record cannot be written under `dir`.
pub async fn bench(dir: &Path, in_flight: usize, lasts: Duration) -> Result<Figures, LogError> {
    let meter = opentelemetry::metrics::noop::NoopMeterProvider::new().meter("bench");
    let around = Around {
        domain: "tongxing.test".parse().map_err(|_| LogError::Store("no domain".into()))?,
        clock: Arc::new(SystemClock),
        metrics: RecordMetrics::new(&meter),
        impaired: Impaired::default(),
        blocking: Blocking::Threads,
    };
    let space = SpaceLimits { max_undelivered: u64::MAX >> 1, max_undelivered_per_caller: u64::MAX >> 1 };
    let (record, writer, _) = Record::open(dir, RecordLimits { space, ..RecordLimits::default() }, around)?;
    let homes: Arc<[Member]> = Member::all().collect();
    let (cpu, writer_cpu, began) = (cpu_nanos(|_| true), cpu_nanos(is_writer), Instant::now());
    let until = began + lasts;
    let mut running = JoinSet::new();
    for at in 0..in_flight {
        let (record, homes) = (record.clone(), homes.clone());
        running.spawn(async move {
            let mut waited = Vec::new();
            let (mut turn, mut entry) = (at, entry());
            while Instant::now() < until {
                let (home, asked) = (homes[turn % homes.len()], Instant::now());
                turn += 1;
                entry.exchange_id[..8].copy_from_slice(&(turn as u64).to_be_bytes());
                if record.append(home, &entry, None).await.is_ok() {
                    waited.push(asked.elapsed());
                }
            }
            waited
        });
    }
    let mut waited: Vec<Duration> = running.join_all().await.concat();
    let seconds = began.elapsed().as_secs_f64();
    let (cpu, writer_cpu) = (cpu_nanos(|_| true) - cpu, cpu_nanos(is_writer) - writer_cpu);
    let commits = record.reader().commits()?;
    drop(record);
    writer.ended().await;
    waited.sort_unstable();
    let count = waited.len().max(1);
    let quantile = |q: usize| waited.get(count * q / 100).map_or(0.0, |waited| waited.as_secs_f64() * 1e3);
    Ok(Figures {
        per_second: count as f64 / seconds,
        p50_ms: quantile(50),
        p99_ms: quantile(99),
        per_commit: count as f64 / commits.max(1) as f64,
        writer_us: writer_cpu as f64 / 1e3 / count as f64,
        cpu_us: cpu as f64 / 1e3 / count as f64,
    })
}

fn entry() -> Entry {
    let venue: proto::venue::VenueId = "44/station/guangzhou-south".parse().expect("it is a venue");
    let id: [u8; 16] = random::bytes(&SystemRandom);
    Entry {
        time: SystemClock.now(),
        caller: (&PeerId::venue(venue.clone())).into(),
        venue: Arc::new(venue),
        staff_id: Some("window-3".into()),
        purpose: Purpose::Travel,
        granted: Some(Scope::LEVEL),
        cti: Cti(id),
        kind: Kind::Own,
        policy_version: 1_800_000_000,
        exchange_id: id,
        trace_id: id,
        ending: Ending::Answered { outcome: Outcome::Status, source: Source::Home, statement: Some(id) },
    }
}

fn is_writer(thread: &str) -> bool {
    thread == "record"
}

/// The time that threads of these names were on a processor; 0 where the kernel does not say.
fn cpu_nanos(of: impl Fn(&str) -> bool) -> u64 {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let named =
        |task: &fs::DirEntry| fs::read_to_string(task.path().join("comm")).is_ok_and(|name| of(name.trim_end()));
    let stats = tasks.filter(named).filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok());
    stats.filter_map(|stat| stat.split_whitespace().next()?.parse::<u64>().ok()).sum()
}
