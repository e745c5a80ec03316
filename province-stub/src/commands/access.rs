//! `province-stub access`: the access logs on file, verified and shown. It only reads, also beside a running node.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use clap::Subcommand;
use peer::{config::to_hex, trust::TrustFiles};
use proto::{
    log::record::{Ending, Entry},
    member::Member,
    random::SystemRandom,
    trust::TrustList,
};
use province_stub::{
    accesses::verify::{Verdict, verify},
    config::Config,
    store::{
        Store,
        access_log::{LogOnFile, RecordOnFile},
        postgres::PostgresStore,
        sqlite::SqliteStore,
    },
};

/// The list that a node keeps in its directory.
const HELD_LIST: &str = "trust-list.cose";

/// The access logs on file.
#[derive(Subcommand)]
pub(crate) enum AccessCommand {
    /// Verify every log: a line each, `ok` or `FAIL` and what is wrong; then what never came of it, `GAP`, and the conflicts
    /// on file. Exits with 1 if there is any of it.
    Verify {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Show the newest records on file of every log.
    Show {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// How many of each log.
        #[arg(long, default_value_t = 20)]
        limit: u32,
    },
}

impl AccessCommand {
    /// Does it, and says whether all is well.
    pub(crate) async fn run(self) -> Result<bool> {
        let (Self::Verify { config: path } | Self::Show { config: path, .. }) = &self;
        let config = Config::read(path)?;
        let (text, well) = match &config.postgres {
            Some(server) => {
                let (url, random) = (server.url.text()?, Arc::new(SystemRandom));
                let store = PostgresStore::inspect(&url, server.limits, &config.data_dir, random).await;
                self.look(&config, store.with_context(|| server.url.to_string())?).await?
            }
            None => {
                let database = config.database();
                let store = SqliteStore::inspect(&database).await;
                self.look(&config, store.with_context(|| database.display().to_string())?).await?
            }
        };
        print!("{text}");
        Ok(well)
    }

    async fn look<S: Store>(&self, config: &Config, store: S) -> Result<(String, bool)> {
        let seen = match self {
            Self::Verify { .. } => report(&store, config.member, &trust_list(&config.trust)?).await?,
            Self::Show { limit, .. } => (show(&store, *limit).await?, true),
        };
        store.close().await;
        Ok(seen)
    }
}

/// The trust list that the node works by. Not by way of its own reader, which keeps what it reads: these files are the
/// running node's.
fn trust_list(files: &TrustFiles) -> Result<TrustList> {
    let read = |path: &Path| fs::read(path).with_context(|| path.display().to_string());
    let held = files.held.iter().map(|dir| dir.join(HELD_LIST)).find(|held| held.exists());
    let (path, opened) = match held {
        Some(held) => (held.clone(), TrustList::open_held(&read(&held)?)),
        None => (files.list.clone(), TrustList::open(&read(&files.list)?, &files.roots)),
    };
    let (_, list) = opened.map_err(|refusal| anyhow::anyhow!("{}: {refusal}", path.display()))?;
    Ok(list)
}

async fn report<S: Store>(store: &S, member: Member, list: &TrustList) -> Result<(String, bool)> {
    let verdicts = verify(store, member, list).await?;
    let (mut text, mut well) = (String::new(), true);
    for verdict in &verdicts {
        let Verdict { log: LogOnFile { log, held, next_start, conflicts, evidence, .. }, fault, listed } = verdict;
        well &= verdict.is_well();
        let (base, size) = (held.base.size(), held.tree.size());
        let signed = held.latest.as_ref().map_or(0, |latest| latest.size);
        let word = fault.as_ref().map_or("ok  ".to_owned(), |_| "FAIL".to_owned());
        write!(text, "{word} {log} records {base}..{size} of {signed} signed")?;
        match fault {
            Some(fault) => writeln!(text, ": {fault}")?,
            None => writeln!(text)?,
        }
        if let Some(next) = next_start {
            writeln!(text, "GAP  {log} records {size}..{next} never came: they are lost here and at the gateway")?;
        }
        if !listed {
            writeln!(text, "     its key is no longer in the trust list: it is verified by the one on file")?;
        }
        for found in evidence {
            let conflict = &found.conflict;
            writeln!(
                text,
                "     conflict at {}, brought by {}: held {}, shown a head of {}, at record {}",
                found.at, found.caller, conflict.held_size, conflict.shown_size, conflict.index
            )?;
        }
        if *conflicts > evidence.len() as u64 {
            writeln!(text, "     {conflicts} conflicts in all")?;
        }
    }
    let faults = verdicts.iter().filter(|verdict| verdict.fault.is_some()).count();
    let gaps = verdicts.iter().filter(|verdict| verdict.log.next_start.is_some()).count();
    let conflicts: usize = verdicts.iter().map(|verdict| verdict.log.evidence.len()).sum();
    writeln!(text, "{} logs, {faults} failed, {gaps} gaps, {conflicts} conflicts on file", verdicts.len())?;
    Ok((text, well))
}

async fn show<S: Store>(store: &S, limit: u32) -> Result<String> {
    let mut text = String::new();
    for LogOnFile { log, held, .. } in store.access_logs().await? {
        writeln!(text, "{log} records {}..{}", held.base.size(), held.tree.size())?;
        let first = held.tree.size().saturating_sub(limit.into());
        for record in store.access_records(log, first, limit).await?.iter().rev() {
            writeln!(text, "{}", line(record))?;
        }
    }
    Ok(text)
}

/// One record in a line. Nobody's handle is in it: a terminal keeps what it shows.
fn line(on_file: &RecordOnFile) -> String {
    let RecordOnFile { index, record, matched, .. } = on_file;
    let Ok(entry) = Entry::decode(record) else { return format!("{index:>8} unreadable, {} bytes", record.len()) };
    let ending = match &entry.ending {
        Ending::Answered { outcome, source, .. } => format!("{} {}", outcome.as_str_name(), source.as_str_name()),
        Ending::Refused(reason) => format!("refused {reason}"),
    };
    let disclosed = entry.disclosed().map_or("nothing".to_owned(), |scope| scope.to_string());
    format!(
        "{index:>8} {} {} by {}{} for {}: {ending}, disclosed {disclosed}, {}, exchange {}",
        entry.time,
        entry.venue,
        entry.caller.as_str(),
        entry.staff_id.map(|staff| format!(" ({staff})")).unwrap_or_default(),
        entry.purpose,
        if *matched { "of a traveler" } else { "of nobody known" },
        to_hex(&entry.exchange_id),
    )
}
