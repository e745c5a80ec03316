//! `province-stub import`: a file of evidence, brought to a node by a feed.

use std::{
    fs::{self, File},
    io::{self, BufReader},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use peer::{
    credentials::Credentials,
    dial::{self, DialLimits},
    files,
    serve::Standing,
    surroundings::Surroundings,
    trust::TrustStore,
    verifier::Expected,
};
use proto::contract::evidence::evidence_service_client::EvidenceServiceClient;
use province_stub::feed::{
    FeedConfig,
    csv::Rows,
    import::{ImportError, Options, Rejected, Tally, Witness, import},
};
use tokio::time::Instant;
use tonic::transport::Channel;

/// What to import, and how.
#[derive(Args)]
pub(crate) struct ImportCommand {
    /// The file: CSV in UTF-8 with a header, one record a row (see the README).
    file: PathBuf,
    /// Who the feed is and where the node: feed.toml.
    #[arg(long)]
    feed: PathBuf,
    /// Say what would become of each row, and keep nothing.
    #[arg(long)]
    dry_run: bool,
    /// Where to put the rows that are not taken in, each with why; beside the file unless it is said. What an earlier run left there is
    /// removed at the start; it is made again only if there are any.
    #[arg(long)]
    rejected: Option<PathBuf>,
    /// How long the node may be away, or owe an answer, before the import gives up. What was answered by then is on file; the same command
    /// goes on from there.
    #[arg(long, default_value = "60s", value_parser = humantime)]
    patience: Duration,
}

fn humantime(text: &str) -> Result<Duration, String> {
    humantime_serde::re::humantime::parse_duration(text).map_err(|error| error.to_string())
}

impl ImportCommand {
    /// Where the feed is configured.
    pub(crate) fn config(&self) -> Result<FeedConfig> {
        Ok(FeedConfig::read(&self.feed)?)
    }

    /// Does it, and says whether every row was taken in.
    pub(crate) async fn run(self, config: FeedConfig) -> Result<bool> {
        let name = |path: &Path| path.display().to_string();
        let file = File::open(&self.file).with_context(|| name(&self.file))?;
        let size = file.metadata().with_context(|| name(&self.file))?.len();
        let header = Rows::open(BufReader::new(File::open(&self.file)?)).and_then(|mut rows| rows.header());
        let header = header.with_context(|| name(&self.file))?;
        let path = self.rejected.clone().unwrap_or_else(|| self.file.with_extension("rejected.csv"));
        forget(&path, &self.file)?;
        let mut watch = Watch { bar: bar(size), path, header, rejected: None };
        let options = Options { dry_run: self.dry_run, patience: self.patience };
        let started = Instant::now();
        let imported = import(&client(&config)?, BufReader::new(file), options, &mut watch).await;
        watch.bar.finish_and_clear();
        let Watch { path, rejected, .. } = watch;
        if let Some(mut rejected) = rejected {
            rejected.flush().with_context(|| name(&path))?;
            eprintln!("rows that were not taken in, each with why: {}", path.display());
        }
        let tally = imported.map_err(|error| match error {
            ImportError::File(error) => anyhow::Error::new(error).context(name(&self.file)),
            error => error.into(),
        })?;
        say(&tally, self.dry_run, started.elapsed());
        Ok(tally.refused == 0)
    }
}

/// Removes what an earlier run rejected: beside a file of which everything was taken in it would say otherwise.
fn forget(rejected: &Path, file: &Path) -> Result<()> {
    let name = || format!("--rejected {}", rejected.display());
    if rejected.canonicalize().is_ok_and(|there| file.canonicalize().is_ok_and(|file| there == file)) {
        bail!("{}: this is the file to import; name another one", name());
    }
    match fs::remove_file(rejected) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).with_context(name),
        _ => Ok(()),
    }
}

fn client(config: &FeedConfig) -> Result<EvidenceServiceClient<Channel>> {
    let Surroundings { clock, network, .. } = Surroundings::system();
    let trust = TrustStore::open(config.trust.clone(), clock)?;
    let credentials = Credentials::open(config.credentials.clone(), &config.domain)?;
    let standing = Standing { trust, credentials, network };
    let limits = DialLimits { connect_timeout: Duration::from_secs(5), ..DialLimits::default() };
    let channel = dial::channel(&standing, &config.node, Expected::NodeOf(config.member), limits)?;
    Ok(EvidenceServiceClient::new(channel))
}

fn say(tally: &Tally, dry_run: bool, took: Duration) {
    let Tally { accepted, unchanged, corrected, withdrawn, refused, changed_consents, broken } = *tally;
    let rows = accepted + unchanged + corrected + withdrawn + refused;
    let seconds = took.as_secs_f64();
    println!(
        "{}{rows} rows: {accepted} accepted, {corrected} corrected, {withdrawn} withdrawn, {unchanged} unchanged, {refused} refused; \
         {changed_consents} consents changed; {seconds:.1} s, {:.0} rows/s{}",
        if dry_run { "dry run, nothing kept: " } else { "" },
        rows as f64 / seconds.max(0.001),
        if broken > 0 { format!("; the stream broke {broken} times") } else { String::new() },
    );
}

/// Shows how it goes, and keeps what is rejected.
struct Watch {
    bar: ProgressBar,
    path: PathBuf,
    header: Vec<String>,
    rejected: Option<csv::Writer<File>>,
}

fn bar(size: u64) -> ProgressBar {
    let bar = ProgressBar::new(size);
    let style = ProgressStyle::with_template("{bar:40} {percent:>3} %  {msg}  {elapsed} of {duration}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

impl Witness for Watch {
    fn progress(&mut self, bytes: u64, rows: u64) {
        self.bar.set_position(bytes);
        self.bar.set_message(format!("{rows} rows"));
    }

    fn rejected(&mut self, row: &Rejected<'_>) -> io::Result<()> {
        if self.rejected.is_none() {
            // It speaks of people: nobody else may read it.
            files::write_private(&self.path, b"")?;
            let mut writer = csv::Writer::from_writer(File::options().append(true).open(&self.path)?);
            writer.write_record(
                ["line", "reason", "field", "detail"].into_iter().chain(self.header.iter().map(String::as_str)),
            )?;
            self.rejected = Some(writer);
        }
        let Some(writer) = &mut self.rejected else { return Ok(()) };
        let Rejected { line, values, reason, field, detail } = row;
        let line = line.to_string();
        // A row may have too few values, or too many.
        let width = self.header.len();
        let values =
            values.iter().map(String::as_str).chain(std::iter::repeat("")).take(values.len().min(width).max(width));
        writer.write_record([&*line, reason, field, detail].into_iter().chain(values))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_run_rejected_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (file, rejected) = (dir.path().join("lab.csv"), dir.path().join("lab.rejected.csv"));
        fs::write(&file, "record_id,evidence\n").unwrap();
        forget(&rejected, &file).unwrap();
        fs::write(&rejected, "line,reason\n").unwrap();
        forget(&rejected, &file).unwrap();
        assert!(!rejected.exists());
        let error = forget(&dir.path().join(".").join("lab.csv"), &file).unwrap_err().to_string();
        assert!(error.contains("lab.csv: this is the file to import") && file.exists(), "{error}");
        fs::create_dir(&rejected).unwrap();
        let error = forget(&rejected, &file).unwrap_err().to_string();
        assert!(error.contains("lab.rejected.csv") && rejected.exists(), "{error}");
    }
}
