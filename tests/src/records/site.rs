//! A federation of programs that are ended and started again, and what is on the disks of its gateway and its homes.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use gateway::record::{LogTool, Verified};
use proto::{
    identity::Realm,
    log::{LogId, merkle::leaf_hash, record::Entry},
    member::Member,
    time::{Clock, SystemClock},
    venue::VenueId,
};
use province_stub::{
    config::Config,
    store::{Store as _, sqlite::SqliteStore},
};
use serde::Serialize;
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    task::spawn_blocking,
    time::{Instant, sleep},
};
use tongxing::{desk::Desk, layout::Layout};

use super::check::{Held, Place};
use crate::{
    freshness::site::counts,
    load::{
        process::Program,
        programs::{self, Programs, Wanted, program},
    },
};

/// How long a program that was started again has to listen.
const START: Duration = Duration::from_secs(30);
/// Between two looks at something that is waited for.
const EVERY: Duration = Duration::from_millis(5);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Records that are read at home at once.
const PAGE: u32 = 10_000;

/// Programs of one gateway replica and its nodes. They end, and their directory goes, when this is dropped.
#[derive(Debug)]
pub struct Site {
    // Dropped in this order: programs before what they write to.
    /// The programs.
    pub programs: Programs,
    /// The desk.
    pub desk: Desk,
    dir: Option<TempDir>,
}

/// What waits at the gateway for a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// Records.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Site {
    /// Starts nodes of these members and of the venues', and one gateway replica.
    pub async fn start(members: &[Member], venues: &[&VenueId], gateway_settings: &str) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("tongxing-records-").tempdir()?;
        let members = members.iter().copied().chain(venues.iter().map(|venue| venue.member())).collect();
        let wanted = Wanted { members, gateways: 1, gateway_settings: gateway_settings.to_owned() };
        let desk = programs::ready(&Layout::new(dir.path()), &wanted).await?;
        Ok(Self { programs: Programs::start(&desk).await?, desk, dir: Some(dir) })
    }

    /// Ends the programs. Where something is wrong what they left stays, and is said.
    pub fn close(mut self, well: bool) -> Option<PathBuf> {
        let kept = self.dir.take().filter(|_| !well).map(TempDir::keep);
        drop(self);
        kept
    }

    /// All members that have a node here.
    pub fn members(&self) -> Vec<Member> {
        self.programs.nodes.keys().copied().collect()
    }

    /// What the gateway says waits, by member.
    pub async fn waiting(&self) -> Result<BTreeMap<Member, Waiting>> {
        let gateway = self.desk.prepared().addresses.gateways.first().context("there is a gateway")?;
        let mut waiting: BTreeMap<Member, Waiting> = BTreeMap::new();
        for (labels, count) in counts(gateway.private, "gateway_undelivered_records").await? {
            waiting.entry(member_of(&labels)?).or_default().records = count;
        }
        for (labels, count) in counts(gateway.private, "gateway_undelivered_bytes").await? {
            waiting.entry(member_of(&labels)?).or_default().bytes = count;
        }
        Ok(waiting)
    }

    /// Waits until nothing waits at the gateway and it has a durable receipt of every home for all of its log. Returns how long
    /// that took, or nothing if it did not come within `at_most`.
    ///
    /// # Errors
    /// If a log is not as it was committed.
    pub async fn until_delivered(&self, at_most: Duration) -> Result<Option<Duration>> {
        let began = Instant::now();
        while began.elapsed() < at_most {
            let waiting = self.waiting().await?;
            let known = self.programs.nodes.keys().all(|member| waiting.contains_key(member));
            if known && waiting.values().all(|waiting| waiting.records == 0) && self.all_delivered()? {
                return Ok(Some(began.elapsed()));
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(None)
    }

    /// Whether the gateway has home's receipt for all of each log, by what is on its disk.
    fn all_delivered(&self) -> Result<bool> {
        let whole = |log: &Verified| log.owner == Realm::Gateway || log.delivered == log.size;
        Ok(self.verified()?.iter().all(whole))
    }

    /// The gateway's logs, each verified.
    ///
    /// # Errors
    /// If one is not as it was committed.
    pub fn verified(&self) -> Result<Vec<Verified>> {
        let found = self.logs()?.verify(Some(&self.desk.trust().list), SystemClock.now())?;
        Ok(found.into_iter().collect::<Result<_, _>>()?)
    }

    /// The gateway's logs as they are on its disk now.
    pub fn logs(&self) -> Result<LogTool> {
        Ok(LogTool::open(&self.gateway_config()?.data_dir)?)
    }

    /// What names them.
    pub fn log_id(&self) -> Result<LogId> {
        Ok(LogId::of(self.logs()?.key()))
    }

    fn gateway_config(&self) -> Result<gateway::config::Config> {
        Ok(gateway::config::Config::read(&self.gateway_file())?)
    }

    fn gateway_file(&self) -> PathBuf {
        self.desk.layout().gateway(1).join("gateway.toml")
    }

    fn node_file(&self, member: Member) -> PathBuf {
        self.desk.layout().node(member).join("node.toml")
    }

    /// A home's store, to look at beside its node.
    pub async fn store(&self, member: Member) -> Result<SqliteStore> {
        let database = Config::read(&self.node_file(member))?.database();
        SqliteStore::inspect(&database).await.with_context(|| database.display().to_string())
    }

    /// How many records a home holds of the gateway's log.
    pub async fn size_at_home(&self, store: &SqliteStore, log: LogId) -> Result<u64> {
        let logs = store.access_logs().await?;
        Ok(logs.iter().filter(|part| part.log == log).map(|part| part.held.tree.size()).max().unwrap_or(0))
    }

    /// Every record at every home; `each` is shown what can be read of them.
    pub async fn held(&self, mut each: impl FnMut(Member, &Entry)) -> Result<BTreeMap<Member, Vec<Held>>> {
        let mut held = BTreeMap::new();
        for member in self.members() {
            let store = self.store(member).await?;
            let mut logs: Vec<LogId> = store.access_logs().await?.iter().map(|part| part.log).collect();
            logs.sort_unstable();
            logs.dedup();
            let records: &mut Vec<Held> = held.entry(member).or_default();
            for log in logs {
                let mut from = 0;
                loop {
                    let page = store.access_records(log, from, PAGE).await?;
                    let Some(last) = page.last() else { break };
                    from = last.index + 1;
                    for on_file in &page {
                        let entry = Entry::decode(&on_file.record).ok();
                        if let Some(entry) = &entry {
                            each(member, entry);
                        }
                        records.push(Held {
                            at: Place { log, index: on_file.index },
                            exchange: entry.map(|entry| entry.exchange_id),
                            record: leaf_hash(&on_file.record),
                        });
                    }
                }
            }
            store.close().await;
        }
        Ok(held)
    }

    /// What `gateway log verify` and each node's `access verify` find wrong.
    pub async fn programs_find(&self) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        let mut verify = vec![("gateway".to_owned(), "gateway", "log", self.gateway_file())];
        for member in self.members() {
            verify.push((format!("node {member}"), "province-stub", "access", self.node_file(member)));
        }
        for (whose, binary, what, config) in verify {
            if let Some(text) = ask_program(binary, what, config).await? {
                wrong.push(format!("{whose}: {what} verify: {text}"));
            }
        }
        Ok(wrong)
    }
}

/// What `BINARY WHAT verify` said, if it is not content.
async fn ask_program(binary: &str, what: &str, config: PathBuf) -> Result<Option<String>> {
    let (program, what) = (program(binary)?, what.to_owned());
    let run = move || {
        let mut command = Command::new(program);
        command.args([&what, "verify", "--config"]).arg(config).env("RUST_LOG", "warn").stdin(Stdio::null()).output()
    };
    let output = spawn_blocking(run).await??;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().replace('\n', " | ");
    Ok((!output.status.success()).then(|| format!("{} {}", text(&output.stdout), text(&output.stderr))))
}

/// Waits until a program that was just started listens. Returns how long that took.
///
/// # Errors
/// If it ends instead; with what it said last.
pub async fn until_listening(program: &mut Program, address: &str, log: &Path) -> Result<Duration> {
    let began = Instant::now();
    loop {
        if TcpStream::connect(address).await.is_ok() {
            return Ok(began.elapsed());
        }
        program.used().with_context(|| last_lines(log))?;
        if began.elapsed() > START {
            bail!("nobody listens on {address}: {}", last_lines(log));
        }
        sleep(EVERY).await;
    }
}

/// Where a program writes what it says.
pub fn log(layout: &Layout, name: &str) -> PathBuf {
    layout.dir().join(format!("{name}.log"))
}

fn last_lines(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let mut last: Vec<_> = text.lines().rev().take(5).collect();
    last.reverse();
    format!("it said last: {}", last.join(" | "))
}

fn member_of(labels: &str) -> Result<Member> {
    let code = labels.split_once("member=\"").and_then(|(_, rest)| rest.split_once('"'));
    code.and_then(|(code, _)| code.parse().ok()).with_context(|| format!("no member in {labels}"))
}
