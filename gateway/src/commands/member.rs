//! `gateway member`: who is in the federation. The source of the trust list is changed; the roots sign the next edition.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use gateway::{
    audit::{self, Finding},
    documents::MemberSource,
    membership::{Answerable, Source},
};
use proto::{
    member::Member,
    time::{Clock, SystemClock, UnixTime},
};

/// Members.
#[derive(Subcommand)]
pub(crate) enum MemberCommand {
    /// Add a member, from the file it handed over: bundle, endpoints, consent_keys, statement_keys, sealing_key, categories.
    Add {
        /// The member's code.
        #[arg(long)]
        code: Member,
        /// Its part of the source, TOML; the path in `bundle` starts at that file.
        #[arg(long)]
        from: PathBuf,
        #[command(flatten)]
        change: Change,
    },
    /// List the members.
    List {
        /// trust-list.toml.
        #[arg(long)]
        source: PathBuf,
    },
    /// Suspend a member: nobody of its trust domain is let in, its nodes are not asked.
    Suspend {
        /// The member's code.
        #[arg(long)]
        code: Member,
        /// For how long, e.g. 12h or 7d.
        #[arg(long = "for", value_parser = humantime, conflicts_with = "until")]
        lasts: Option<Duration>,
        /// Until when, RFC 3339.
        #[arg(long, required_unless_present = "lasts")]
        until: Option<UnixTime>,
        #[command(flatten)]
        change: Change,
    },
    /// End a member's suspension.
    Resume {
        /// The member's code.
        #[arg(long)]
        code: Member,
        #[command(flatten)]
        change: Change,
    },
    /// Show who changed what, and check that nothing was altered since.
    Audit {
        /// trust-list.toml; the audit file is beside it.
        #[arg(long)]
        source: PathBuf,
    },
}

/// What every change says.
#[derive(Args)]
pub(crate) struct Change {
    /// trust-list.toml.
    #[arg(long)]
    source: PathBuf,
    /// Who answers for it.
    #[arg(long)]
    by: String,
    /// Why: one line; with a suspension all members read it.
    #[arg(long)]
    reason: String,
}

fn humantime(text: &str) -> Result<Duration, humantime_serde::re::humantime::DurationError> {
    humantime_serde::re::humantime::parse_duration(text)
}

impl MemberCommand {
    /// Does it.
    pub(crate) fn run(self) -> Result<()> {
        let now = SystemClock.now();
        match self {
            Self::Add { code, from, change } => {
                let entry = read_entry(&from, &change.source)?;
                Source::read(&change.source)?.add(code, &entry, change.answerable(now))?;
                change.done(&format!("{code} added"))
            }
            Self::List { source } => list(&source, now),
            Self::Suspend { code, lasts, until, change } => {
                let until = lasts.map(|lasts| now.plus(lasts)).or(until).context("--for or --until")?;
                Source::read(&change.source)?.suspend(code, until, change.answerable(now))?;
                change.done(&format!("{code} suspended until {until}"))
            }
            Self::Resume { code, change } => {
                Source::read(&change.source)?.resume(code, change.answerable(now))?;
                change.done(&format!("{code} resumed"))
            }
            Self::Audit { source } => show_audit(&source),
        }
    }
}

impl Change {
    fn answerable(&self, now: UnixTime) -> Answerable<'_> {
        Answerable { by: &self.by, reason: &self.reason, now }
    }

    fn done(&self, what: &str) -> Result<()> {
        println!("{what} in {}; it counts once the roots have signed the next trust list", self.source.display());
        Ok(())
    }
}

/// What a member handed over, with its bundle's path as the source will find it.
fn read_entry(from: &Path, source: &Path) -> Result<MemberSource> {
    let text = fs::read_to_string(from).with_context(|| from.display().to_string())?;
    let mut entry: MemberSource = toml::from_str(&text).with_context(|| from.display().to_string())?;
    let absolute = |path: &Path| path.canonicalize().with_context(|| path.display().to_string());
    let bundle = absolute(&from.parent().unwrap_or(Path::new("")).join(&entry.bundle))?;
    let base = absolute(match source.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    })?;
    entry.bundle = bundle.strip_prefix(base).map(Path::to_owned).unwrap_or(bundle);
    Ok(entry)
}

fn list(source: &Path, now: UnixTime) -> Result<()> {
    for (code, member) in Source::read(source)?.parsed()?.members {
        let name = code.parse::<Member>().map_or("?", |member| member.profile().name_en);
        println!("{code} {name:<44} {}", member.endpoints.join(" "));
        let suspension = member.suspension.filter(|out| out.until.parse().is_ok_and(|until: UnixTime| until > now));
        if let Some(out) = suspension {
            println!("   suspended from {} until {}: {}", out.from, out.until, out.reason);
        }
    }
    Ok(())
}

fn show_audit(source: &Path) -> Result<()> {
    let lines = audit::read(source)?;
    for (_, line) in &lines {
        let until = line.until.as_ref().map(|until| format!(" until {until}")).unwrap_or_default();
        println!("{}  {}  {} {}{until}: {}", line.time, line.by, line.what, line.member, line.reason);
    }
    let text = fs::read_to_string(source).with_context(|| source.display().to_string())?;
    let file = audit::path(source);
    match audit::check(&lines, &text) {
        Finding::Whole => println!("{} changes, whole", lines.len()),
        Finding::Broken { number, why } => bail!("{}: line {number}: {why}", file.display()),
        Finding::NotDone => bail!("the last change was broken off and is not in {}: make it again", source.display()),
        Finding::ByHand => bail!("{} was changed by hand since the last line", source.display()),
    }
    Ok(())
}
