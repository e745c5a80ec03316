//! `gateway log`: the access logs, verified, shown, exported; beside the running gateway too.

use std::{
    fs::OpenOptions,
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use gateway::{
    config::Config,
    documents::key_to_hex,
    record::{LogTool, Shown, Verified, bench},
};
use peer::{config::to_hex, trust::TrustStore};
use proto::{
    identity::Realm,
    log::{owner_from_text, record::Ending},
    time::{Clock, SystemClock},
};
use std::{sync::Arc, time::Duration};

use crate::commands::BAD_CONFIGURATION;

/// The access logs.
#[derive(Subcommand)]
pub(crate) enum LogCommand {
    /// Print the public key of the logs, for the trust list; new logs are begun if there are none.
    Key {
        /// The data directory.
        #[arg(long)]
        data_dir: PathBuf,
    },
    /// Verify every record, subtree, head, commit and receipt; exits with 1 if anything is not as it was committed.
    Verify {
        #[command(flatten)]
        of: Of,
        /// A checkpoint that was kept from earlier: the log must extend it. May be repeated.
        #[arg(long)]
        checkpoint: Vec<PathBuf>,
        /// Verify in this process, and not in one of its own that may die of what it reads.
        #[arg(long, hide = true)]
        here: bool,
    },
    /// Print records, the newest of each log unless it is said from where.
    Show {
        #[command(flatten)]
        of: Of,
        /// One log: a member's code, or `gateway` for the replica's own.
        #[arg(long, value_parser = owner)]
        log: Option<Realm>,
        /// The first index.
        #[arg(long, requires = "log")]
        from: Option<u64>,
        /// How many of each log.
        #[arg(long, default_value_t = 20)]
        limit: u64,
    },
    /// Print signed heads, to keep elsewhere.
    Checkpoint {
        #[command(flatten)]
        of: Of,
        /// One log.
        #[arg(long, value_parser = owner)]
        log: Option<Realm>,
    },
    /// Measure how many records a second this machine makes durable, in a new directory that is removed afterwards: so many in
    /// flight, each waiting for its receipt.
    Bench {
        /// Where to put that directory: on the disk that the record is to be on.
        #[arg(long)]
        under: PathBuf,
        /// How many exchanges at once.
        #[arg(long, value_delimiter = ',', default_value = "1,64,256,512,1024")]
        in_flight: Vec<usize>,
        /// How long each takes.
        #[arg(long, default_value = "5s", value_parser = humantime)]
        lasts: Duration,
    },
    /// Write everything as lines of JSON.
    Export {
        #[command(flatten)]
        of: Of,
        /// Where to; standard output unless said.
        #[arg(long)]
        out: Option<PathBuf>,
    },
}

/// Whose logs.
#[derive(Args)]
pub(crate) struct Of {
    /// The gateway's configuration file.
    #[arg(long)]
    config: PathBuf,
}

fn humantime(text: &str) -> Result<Duration, humantime_serde::re::humantime::DurationError> {
    humantime_serde::re::humantime::parse_duration(text)
}

fn owner(text: &str) -> Result<Realm, &'static str> {
    owner_from_text(text).ok_or("a member's code, or gateway")
}

impl LogCommand {
    /// Does it.
    pub(crate) async fn run(self) -> ExitCode {
        if let Self::Bench { under, in_flight, lasts } = &self {
            return match measure(under, in_flight, *lasts).await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("gateway: {error:#}");
                    ExitCode::FAILURE
                }
            };
        }
        if let Self::Verify { here: false, .. } = &self {
            return apart();
        }
        let config = match self.of().map(|of| Config::read(&of.config)).transpose() {
            Ok(config) => config,
            Err(error) => {
                eprintln!("gateway: {error:#}");
                return ExitCode::from(BAD_CONFIGURATION);
            }
        };
        match self.with(config.as_ref()) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("gateway: {error:#}");
                ExitCode::FAILURE
            }
        }
    }

    const fn of(&self) -> Option<&Of> {
        match self {
            Self::Key { .. } | Self::Bench { .. } => None,
            Self::Verify { of, .. } | Self::Show { of, .. } | Self::Checkpoint { of, .. } | Self::Export { of, .. } => {
                Some(of)
            }
        }
    }

    fn with(&self, config: Option<&Config>) -> Result<bool> {
        if let Self::Key { data_dir } = self {
            let key = LogTool::ensure_key(data_dir).with_context(|| data_dir.display().to_string())?;
            println!("{}", key_to_hex(&key));
            return Ok(true);
        }
        let config = config.context("--config is needed")?;
        let logs = LogTool::open(&config.data_dir).with_context(|| config.data_dir.display().to_string())?;
        let mut out = BufWriter::new(io::stdout().lock());
        let well = match self {
            Self::Key { .. } | Self::Bench { .. } => true,
            Self::Verify { checkpoint, .. } => verify(&logs, config, checkpoint, &mut out)?,
            Self::Show { log, from, limit, .. } => show(&logs, *log, *from, *limit, &mut out)?,
            Self::Checkpoint { log, .. } => checkpoints(&logs, *log, config, &mut out)?,
            Self::Export { out: path, .. } => export(&logs, config, path.as_deref(), &mut out)?,
        };
        out.flush()?;
        Ok(well)
    }
}

/// Verifies in a process of its own: a store whose pages were altered may make its reader panic, and that is a finding too.
fn apart() -> ExitCode {
    let program = std::env::current_exe();
    let verified =
        program.and_then(|program| Command::new(program).args(std::env::args_os().skip(1)).arg("--here").status());
    match verified.map(|status| status.code()) {
        Ok(Some(0)) => ExitCode::SUCCESS,
        Ok(Some(code)) if code != PANICKED => u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from),
        Ok(_) => {
            println!("FAIL  the store cannot be read: its pages are not what was written");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("gateway: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The exit code of a program that panicked and unwound.
const PANICKED: i32 = 101;

async fn measure(under: &Path, in_flight: &[usize], lasts: Duration) -> Result<()> {
    println!("in flight    records/s   p50 ms   p99 ms   records/commit   CPU us/record: writer      all");
    for in_flight in in_flight {
        let dir = tempfile::tempdir_in(under).with_context(|| under.display().to_string())?;
        let figures = bench(dir.path(), *in_flight, lasts).await?;
        println!(
            "{in_flight:>9}  {:>11.0}  {:>7.2}  {:>7.2}  {:>15.1}  {:>22.2}  {:>7.2}",
            figures.per_second, figures.p50_ms, figures.p99_ms, figures.per_commit, figures.writer_us, figures.cpu_us
        );
    }
    Ok(())
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    // A reader that has gone away (`… | head`) is no error.
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe))
}

fn verify(logs: &LogTool, config: &Config, checkpoints: &[PathBuf], out: &mut impl Write) -> Result<bool> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let trust = TrustStore::open(config.trust.clone(), clock.clone())?.current();
    let (mut well, mut count) = (true, 0);
    for found in logs.verify(Some(&trust.list), clock.now())? {
        match found {
            Ok(verified) => {
                count += 1;
                writeln!(out, "ok    {}", line(&verified))?;
            }
            Err(damage) => {
                well = false;
                writeln!(out, "FAIL  {damage}")?;
            }
        }
    }
    for path in checkpoints {
        let note = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        match logs.check_extends(&note, &config.domain)? {
            Ok(checkpoint) => writeln!(out, "ok    {}: extended since {}", path.display(), checkpoint.size)?,
            Err(damage) => {
                well = false;
                writeln!(out, "FAIL  {}: {damage}", path.display())?;
            }
        }
    }
    writeln!(out, "{}", if well { format!("{count} logs verified") } else { "NOT as it was committed".to_owned() })?;
    Ok(well)
}

fn line(verified: &Verified) -> String {
    let Verified { owner, kept_from, size, root, delivered, receipt_is_listed } = verified;
    let by = if *receipt_is_listed { "" } else { " by a receipt whose key is no longer listed" };
    let at_home = if *owner == Realm::Gateway { String::new() } else { format!(", {delivered} at home{by}") };
    format!("{owner}: {size} records, kept from {kept_from}{at_home}, root {}", to_hex(root))
}

fn show(logs: &LogTool, log: Option<Realm>, from: Option<u64>, limit: u64, out: &mut impl Write) -> Result<bool> {
    for (owner, base, size) in logs.logs()? {
        if log.is_some_and(|log| log != owner) {
            continue;
        }
        let first = from.unwrap_or(size.saturating_sub(limit)).max(base);
        logs.records(owner, first, limit, |index, _, shown| writeln!(out, "{owner} {index:>8}  {}", describe(&shown)))?;
    }
    Ok(true)
}

fn describe(shown: &Shown) -> String {
    match shown {
        Shown::Exchange(entry) => {
            let ending = match &entry.ending {
                Ending::Answered { outcome, source, .. } => {
                    let word = |name: &str, prefix: &str| name.trim_start_matches(prefix).to_ascii_lowercase();
                    let source = word(source.as_str_name(), "SOURCE_");
                    format!("{} {source}", word(outcome.as_str_name(), "OUTCOME_"))
                }
                Ending::Refused(reason) => reason.to_string(),
            };
            let staff = entry.staff_id.as_deref().map(|staff| format!(" staff {staff}")).unwrap_or_default();
            let scope = entry.granted.map_or(0, |scope| scope.bits());
            format!(
                "{}  {} {} by {}{staff} scope {scope} {ending}  consent {} exchange {}",
                entry.time,
                entry.venue,
                entry.purpose,
                entry.caller.as_str(),
                to_hex(&entry.cti.0),
                to_hex(&entry.exchange_id),
            )
        }
        Shown::Refusal(refusal) => format!("{}  {} {}", refusal.time, refusal.caller.as_str(), refusal.reason),
        Shown::Unreadable => "no record".to_owned(),
    }
}

/// Each note as it is, so that a file with one of them can be verified by; several are apart by an empty line.
fn checkpoints(logs: &LogTool, log: Option<Realm>, config: &Config, out: &mut impl Write) -> Result<bool> {
    let mut between = "";
    for (owner, ..) in logs.logs()? {
        if log.is_none_or(|log| log == owner)
            && let Some(note) = logs.checkpoint(owner, &config.domain)?
        {
            write!(out, "{between}{note}")?;
            between = "\n";
        }
    }
    Ok(true)
}

fn export(logs: &LogTool, config: &Config, path: Option<&Path>, out: &mut impl Write) -> Result<bool> {
    let Some(path) = path else {
        logs.export(&config.domain, out)?;
        return Ok(true);
    };
    // Whose consents were asked for is nobody else's to read.
    let private = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path);
    let mut file = BufWriter::new(private.with_context(|| path.display().to_string())?);
    let count = logs.export(&config.domain, &mut file)?;
    file.flush()?;
    writeln!(out, "{}: {count} records", path.display())?;
    Ok(true)
}
