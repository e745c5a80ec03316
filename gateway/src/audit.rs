//! The audit file beside a source: who changed what, when, why, until when. A line a change, each naming the one before it,
//! so that a line that was altered, dropped or moved is found.
//!
//! The line is on disk before the change is: what is in the source without a line was changed by hand, and that is said.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use peer::config::to_hex;
use proto::{suite::sha256, time::UnixTime};
use serde::{Deserialize, Serialize};

/// The longest name of somebody who changes things, in bytes.
const MAX_BY_BYTES: usize = 64;
/// The longest reason, in bytes.
const MAX_REASON_BYTES: usize = 200;
/// What the first line names as the one before it.
const NOTHING: &str = "";

/// Who changes something, and why.
#[derive(Clone, Debug)]
pub struct Change {
    by: String,
    what: &'static str,
    member: String,
    reason: String,
    until: Option<UnixTime>,
}

/// One line of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// When, RFC 3339.
    pub time: String,
    /// Who, as they said themselves.
    pub by: String,
    /// What was done: `add`, `suspend` or `resume`.
    pub what: String,
    /// To which member.
    pub member: String,
    /// Why.
    pub reason: String,
    /// Until when, RFC 3339; a suspension has an end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub until: Option<String>,
    /// SHA-256 of the source before, hexadecimal.
    pub before: String,
    /// SHA-256 of the source after, hexadecimal.
    pub after: String,
    /// SHA-256 of the line before this one, without its line end, hexadecimal; empty in the first.
    pub previous: String,
}

/// What a look at the file comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Every line follows from the one before it, and the last one is the source as it stands.
    Whole,
    /// Line `number`, from 1, is not what followed the one before it.
    Broken {
        /// Which.
        number: usize,
        /// How.
        why: &'static str,
    },
    /// All lines follow, and the last change is not in the source: a change was broken off; make it again.
    NotDone,
    /// All lines follow, and the source is none that they speak of: it was changed by hand.
    ByHand,
}

impl Change {
    /// A change that somebody answers for.
    ///
    /// # Errors
    /// If nobody is named, or no reason is given, or either is longer than a line.
    pub fn new(by: &str, what: &'static str, member: &str, reason: &str, until: Option<UnixTime>) -> Result<Self> {
        let line = |name, text: &str, max| {
            if text.trim().is_empty() || text.len() > max || text.chars().any(char::is_control) {
                bail!("{name}: one line of 1 to {max} bytes");
            }
            Ok(text.to_owned())
        };
        Ok(Self {
            by: line("--by", by, MAX_BY_BYTES)?,
            what,
            member: member.to_owned(),
            reason: line("--reason", reason, MAX_REASON_BYTES)?,
            until,
        })
    }

    /// Writes the change into the audit file, then the new source in the place of the old, each durable before the next.
    pub fn commit(self, source: &Path, before: &str, after: &str, now: UnixTime) -> Result<()> {
        let audit = path(source);
        let mut file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .read(true)
            .open(&audit)
            .with_context(|| audit.display().to_string())?;
        file.try_lock().with_context(|| format!("{}: somebody else is changing it", audit.display()))?;
        if fs::read_to_string(source).with_context(|| source.display().to_string())? != before {
            bail!("{}: it was changed meanwhile; look at it and try again", source.display());
        }
        let lines = read(source)?;
        let line = Line {
            time: now.to_string(),
            by: self.by,
            what: self.what.to_owned(),
            member: self.member,
            reason: self.reason,
            until: self.until.map(|until| until.to_string()),
            before: hash(before),
            after: hash(after),
            previous: lines.last().map_or_else(|| NOTHING.to_owned(), |(text, _)| hash(text)),
        };
        let mut text = serde_json::to_string(&line)?;
        text.push('\n');
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).with_context(|| audit.display().to_string())?;
        crate::pki::write_public(source, after.as_bytes())
    }
}

/// The audit file of a source: beside it, `….audit.jsonl`.
pub fn path(source: &Path) -> PathBuf {
    source.with_extension("audit.jsonl")
}

/// All lines, each with its text.
///
/// # Errors
/// If a line is not one: its number is named.
pub fn read(source: &Path) -> Result<Vec<(String, Line)>> {
    let path = path(source);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let parse = |(number, text): (usize, &str)| {
        let line = serde_json::from_str(text).with_context(|| format!("{}: line {}", path.display(), number + 1))?;
        Ok((text.to_owned(), line))
    };
    text.lines().enumerate().map(parse).collect()
}

/// Checks that each line follows from the one before it, and that the last one is the source as it stands.
pub fn check(lines: &[(String, Line)], source: &str) -> Finding {
    let mut before: Option<&(String, Line)> = None;
    for (number, line) in (1..).zip(lines) {
        let previous = before.map_or_else(|| NOTHING.to_owned(), |(text, _)| hash(text));
        if line.1.previous != previous {
            return Finding::Broken { number, why: "it does not name the line before it" };
        }
        if before.is_some_and(|(_, before)| ![&before.after, &before.before].contains(&&line.1.before)) {
            return Finding::Broken { number, why: "it begins with another source than the line before it left" };
        }
        before = Some(line);
    }
    let source = hash(source);
    match before {
        None => Finding::Whole,
        Some((_, last)) if last.after == source => Finding::Whole,
        Some((_, last)) if last.before == source => Finding::NotDone,
        Some(_) => Finding::ByHand,
    }
}

fn hash(text: &str) -> String {
    to_hex(&sha256(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    fn change(what: &'static str) -> Change {
        Change::new("li", what, "44", "a reason", None).unwrap()
    }

    fn source(dir: &Path, content: &str) -> PathBuf {
        let path = dir.join("trust-list.toml");
        fs::write(&path, content).unwrap();
        path
    }

    #[test]
    fn each_change_is_a_line_that_names_the_one_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let source = source(dir.path(), "one");
        change("suspend").commit(&source, "one", "two", NOW).unwrap();
        change("resume").commit(&source, "two", "three", NOW).unwrap();
        assert_eq!(fs::read_to_string(&source).unwrap(), "three");
        let lines = read(&source).unwrap();
        assert_eq!(lines.iter().map(|(_, line)| line.what.as_str()).collect::<Vec<_>>(), ["suspend", "resume"]);
        assert_eq!(check(&lines, "three"), Finding::Whole);
        assert_eq!(check(&lines, "two"), Finding::NotDone);
        assert_eq!(check(&lines, "four"), Finding::ByHand);
        assert_eq!(check(&lines[1..], "three"), broken(1, "it does not name the line before it"), "dropped");
        let swapped = [lines[1].clone(), lines[0].clone()];
        assert!(matches!(check(&swapped, "two"), Finding::Broken { number: 1, .. }));
        let altered = fs::read_to_string(path(&source)).unwrap().replacen("a reason", "another", 1);
        fs::write(path(&source), altered).unwrap();
        assert_eq!(check(&read(&source).unwrap(), "three"), broken(2, "it does not name the line before it"));
        fs::write(path(&source), "{}\n").unwrap();
        assert!(read(&source).unwrap_err().to_string().contains("line 1"));
    }

    fn broken(number: usize, why: &'static str) -> Finding {
        Finding::Broken { number, why }
    }

    #[test]
    fn a_source_that_was_changed_meanwhile_or_is_being_changed_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let source = source(dir.path(), "one");
        let error = change("add").commit(&source, "zero", "two", NOW).unwrap_err().to_string();
        assert!(error.contains("changed meanwhile"), "{error}");
        let other = fs::File::options().append(true).open(path(&source)).unwrap();
        other.lock().unwrap();
        let error = change("add").commit(&source, "one", "two", NOW).unwrap_err().to_string();
        assert!(error.contains("somebody else"), "{error}");
        assert_eq!(fs::read_to_string(&source).unwrap(), "one");
        assert!(read(&source).unwrap().is_empty());
    }

    #[test]
    fn somebody_answers_for_a_change_and_says_why() {
        let long = "x".repeat(201);
        for (by, reason) in [("", "why"), ("li", " "), ("li", "two\nlines"), ("li", &long), (&long, "why")] {
            assert!(Change::new(by, "add", "44", reason, None).is_err(), "{by} {reason}");
        }
    }
}
