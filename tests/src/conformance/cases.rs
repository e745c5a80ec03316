//! The case files: `tests/conformance/cases/*.toml`, an area each.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::steps::Step;

/// One file: what belongs together.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Area {
    /// What its cases are about.
    #[serde(rename = "area")]
    name: String,
    /// The cases, in the order they are played.
    #[serde(rename = "case")]
    cases: Vec<Case>,
}

/// One case.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Its name in reports: lower-case letters, digits and hyphens.
    pub id: String,
    /// What a node that conforms does, in a line.
    pub title: String,
    /// Where the contract says so: `<file under proto/>: <its words>`.
    pub contract: Vec<Reference>,
    /// What there is before its first step.
    #[serde(default)]
    pub given: Given,
    /// Whether it waits longer than a few seconds: such cases are played only when they are asked for.
    #[serde(default)]
    pub slow: bool,
    /// What happens.
    pub steps: Vec<Step>,
}

/// Words of the contract.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Reference {
    /// The file, below `proto/`.
    pub file: String,
    /// Words in it; line breaks and comment signs aside.
    pub words: String,
}

/// What there is before the first step of a case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Given {
    /// Nothing: the case's people are unknown to the node.
    #[default]
    Nothing,
    /// A traveler who has enrolled a phone and has no code.
    Enrolled,
    /// A traveler who has enrolled a phone and has a green code.
    Traveler,
    /// That traveler with a token for everything, in the slot `token`.
    Pass,
    /// That traveler with a paper token, in the slot `token`.
    Paper,
}

impl TryFrom<String> for Reference {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once(": ") {
            Some((file, words)) if !words.trim().is_empty() => {
                Ok(Self { file: file.to_owned(), words: words.to_owned() })
            }
            _ => Err(format!("{text}: not `<file>: <words>`")),
        }
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.file, self.words)
    }
}

/// Reads all case files of a directory, by name.
///
/// # Errors
/// If a file is none, or two cases have one id.
pub fn read(dir: &Path) -> Result<Vec<Case>> {
    let entries = fs::read_dir(dir).with_context(|| dir.display().to_string())?;
    let mut paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    let mut cases: Vec<Case> = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let area: Area = toml::from_str(&text).with_context(|| path.display().to_string())?;
        for case in area.cases {
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            let fit = !case.id.is_empty() && case.id.bytes().all(plain);
            if !fit || case.steps.is_empty() || case.contract.is_empty() {
                bail!("{} ({}): the case {:?} has no id, contract or step", path.display(), area.name, case.id);
            }
            if cases.iter().any(|other| other.id == case.id) {
                bail!("{}: the id {} is another case's", path.display(), case.id);
            }
            cases.push(case);
        }
    }
    if cases.is_empty() {
        bail!("{}: no case", dir.display());
    }
    Ok(cases)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    /// A contract's text as one line: comment signs at the beginning of lines aside.
    fn plain(text: &str) -> String {
        let line = |line: &str| line.trim().trim_start_matches("//").trim_start_matches([';', '#']).trim().to_owned();
        let lines: Vec<_> = text.lines().map(line).collect();
        lines.join(" ").split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_case_says_where_the_contract_says_so() {
        let cases = read(&root().join("tests/conformance/cases")).unwrap();
        assert!(cases.len() >= 60, "{} cases", cases.len());
        for case in &cases {
            for reference in &case.contract {
                let path = root().join("proto").join(&reference.file);
                let text = plain(&fs::read_to_string(&path).unwrap_or_else(|_| panic!("{}: {}", case.id, reference)));
                assert!(text.contains(&reference.words), "{}: not in the contract: {reference}", case.id);
            }
        }
    }

    #[test]
    fn a_file_that_is_none_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let case = |step: &str| {
            format!(
                "area = \"a\"\n[[case]]\nid = \"one\"\ntitle = \"t\"\ncontract = [\"cose.cddl: kid\"]\nsteps = [{step}]\n"
            )
        };
        let good = "{ do = \"wait\", seconds = 1 }";
        for (text, named) in [
            (String::new(), "missing field"),
            (case("{ do = \"dance\" }"), "unknown variant"),
            (case("{ do = \"wait\", seconds = 1, minutes = 1 }"), "unknown field"),
            (case("{ do = \"lookup\", refused = \"NO_SUCH_REASON\" }"), "NO_SUCH_REASON"),
            (case(""), "no id, contract or step"),
            (case(good).replace("cose.cddl: kid", "cose.cddl"), "not `<file>: <words>`"),
            (format!("{}{}", case(good), case(good).replace("area = \"a\"\n", "")), "another case's"),
        ] {
            fs::write(dir.path().join("a.toml"), text).unwrap();
            let error = format!("{:#}", read(dir.path()).unwrap_err());
            assert!(error.contains(named) && error.contains("a.toml"), "{named} in {error}");
        }
        fs::write(dir.path().join("a.toml"), case(good)).unwrap();
        assert_eq!(read(dir.path()).unwrap().len(), 1);
        fs::remove_file(dir.path().join("a.toml")).unwrap();
        assert!(read(dir.path()).is_err());
    }
}
