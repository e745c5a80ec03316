//! Changes of who is in the federation: edits of the trust list's source, each with somebody who answers for it.
//!
//! The source stays a text that people read and comment: what is not changed is left as it is written. Nothing here
//! signs; the next edition is made from the source by the roots.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use proto::{member::Member, time::UnixTime, trust::Suspension};
use toml_edit::{DocumentMut, Item, Table, value};

use crate::{
    audit::Change,
    documents::{MemberSource, TrustSource},
};

/// The source of a trust list, to be changed.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    text: String,
    document: DocumentMut,
}

/// Who answers for a change, and why it is made.
#[derive(Clone, Copy, Debug)]
pub struct Answerable<'a> {
    /// Their name.
    pub by: &'a str,
    /// Why.
    pub reason: &'a str,
    /// When.
    pub now: UnixTime,
}

impl Source {
    /// Reads a source.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let document = text.parse().map_err(|error| anyhow!("{}: {error}", path.display()))?;
        let source = Self { path: path.to_owned(), text, document };
        source.check()?;
        Ok(source)
    }

    /// What it says.
    pub fn parsed(&self) -> Result<TrustSource> {
        toml::from_str(&self.document.to_string()).with_context(|| self.path.display().to_string())
    }

    /// Adds a member, from what it handed over: a TOML of its part, with paths that start at the source.
    ///
    /// # Errors
    /// If it is there already, or the whole would not be a trust list: a key with two uses, a bundle without a CA.
    pub fn add(mut self, code: Member, entry: &MemberSource, who: Answerable<'_>) -> Result<()> {
        let members = self.members()?;
        if members.contains_key(&code.to_string()) {
            bail!("member {code} is in the federation already");
        }
        let entry: DocumentMut = toml::to_string(entry)?.parse()?;
        members.insert(&code.to_string(), Item::Table(entry.as_table().clone()));
        self.commit(Change::new(who.by, "add", &code.to_string(), who.reason, None)?, who.now)
    }

    /// Suspends a member until an instant.
    ///
    /// # Errors
    /// If it is not there, or suspended already, or the suspension has no reason or no end within bounds.
    pub fn suspend(mut self, code: Member, until: UnixTime, who: Answerable<'_>) -> Result<()> {
        let suspension = Suspension::new(who.reason, who.now, until)?;
        let member = self.member(code)?;
        if member.contains_key(SUSPENSION) && ends_after(member, who.now) {
            bail!("member {code} is suspended already; resume it first, or wait for its end");
        }
        let mut table = Table::new();
        table.insert("reason", value(suspension.reason()));
        table.insert("from", value(suspension.begins_at().to_string()));
        table.insert("until", value(suspension.ends_at().to_string()));
        member.insert(SUSPENSION, Item::Table(table));
        self.commit(Change::new(who.by, "suspend", &code.to_string(), who.reason, Some(until))?, who.now)
    }

    /// Ends a member's suspension.
    ///
    /// # Errors
    /// If it is not there or not suspended.
    pub fn resume(mut self, code: Member, who: Answerable<'_>) -> Result<()> {
        if self.member(code)?.remove(SUSPENSION).is_none() {
            bail!("member {code} is not suspended");
        }
        self.commit(Change::new(who.by, "resume", &code.to_string(), who.reason, None)?, who.now)
    }

    fn commit(self, change: Change, now: UnixTime) -> Result<()> {
        self.check()?;
        change.commit(&self.path, &self.text, &self.document.to_string(), now)
    }

    /// Whether a trust list can be made of it.
    fn check(&self) -> Result<()> {
        let base = self.path.parent().unwrap_or(Path::new("."));
        self.parsed()?.resolve(base).map(drop).with_context(|| self.path.display().to_string())
    }

    fn members(&mut self) -> Result<&mut Table> {
        let members = self.document.entry("members").or_insert_with(|| {
            let mut table = Table::new();
            table.set_implicit(true);
            Item::Table(table)
        });
        members.as_table_mut().context("members: not a table")
    }

    fn member(&mut self, code: Member) -> Result<&mut Table> {
        let member = self.members()?.get_mut(&code.to_string());
        let member = member.with_context(|| format!("member {code} is not in the federation"))?;
        member.as_table_mut().with_context(|| format!("members.{code}: not a table"))
    }
}

const SUSPENSION: &str = "suspension";

fn ends_after(member: &Table, now: UnixTime) -> bool {
    let until = member.get(SUSPENSION).and_then(|suspension| suspension.get("until")?.as_str()?.parse().ok());
    until.is_some_and(|until: UnixTime| until > now)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use peer::config::to_hex;
    use proto::{
        identity::Realm,
        suite::{SigningKey, Suite},
    };

    use super::*;
    use crate::{
        audit::{self, Finding},
        documents::{key_to_hex, read_trust_source},
        pki::Authority,
    };

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
    const WEEK: Duration = Duration::from_secs(7 * 86_400);
    const WHO: Answerable<'_> = Answerable { by: "li", reason: "its CA's key is in strange hands", now: NOW };

    fn key() -> String {
        key_to_hex(SigningKey::generate(Suite::Ed25519).verifying_key())
    }

    fn entry(endpoint: &str) -> MemberSource {
        MemberSource {
            bundle: "ca.pem".into(),
            endpoints: vec![endpoint.into()],
            consent_keys: vec![key()],
            statement_keys: vec![key()],
            sealing_key: to_hex(&[4; 32]),
            categories: vec!["station".into()],
            suspension: None,
        }
    }

    /// A source that somebody has written a comment into.
    fn source(dir: &Path) -> PathBuf {
        let domain = "tongxing.test".parse().unwrap();
        let ca = Authority::create(Realm::Gateway, &domain, NOW).unwrap();
        fs::write(dir.join("ca.pem"), ca.certificate()).unwrap();
        let member = toml::to_string(&entry("127.0.0.1:7500")).unwrap();
        let text = format!(
            "domain = \"tongxing.test\"\nthreshold = 1\nroots = [\"{}\"]\n\n[gateway]\nbundle = \"ca.pem\"\n\n\
             # Guangdong, since March.\n[members.44]\n{member}",
            key()
        );
        let path = dir.join("trust-list.toml");
        fs::write(&path, text).unwrap();
        path
    }

    fn code(code: &str) -> Member {
        code.parse().unwrap()
    }

    fn read(path: &Path) -> Source {
        Source::read(path).unwrap()
    }

    fn is_whole(path: &Path) -> bool {
        audit::check(&audit::read(path).unwrap(), &fs::read_to_string(path).unwrap()) == Finding::Whole
    }

    #[test]
    fn a_member_is_suspended_and_resumed_and_the_text_stays_as_people_wrote_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = source(dir.path());
        let before = fs::read_to_string(&path).unwrap();
        read(&path).suspend(code("44"), NOW.plus(WEEK), WHO).unwrap();
        let list = read_trust_source(&path).unwrap();
        let out = list.suspension(Realm::Member(code("44")), NOW).unwrap();
        assert_eq!((out.reason(), out.ends_at()), (WHO.reason, NOW.plus(WEEK)));
        assert!(fs::read_to_string(&path).unwrap().contains("# Guangdong, since March."));
        read(&path).resume(code("44"), Answerable { reason: "a new CA", ..WHO }).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), before);
        let lines = audit::read(&path).unwrap();
        let said: Vec<_> = lines.iter().map(|(_, line)| (line.what.as_str(), line.by.as_str())).collect();
        assert_eq!(said, [("suspend", "li"), ("resume", "li")]);
        assert_eq!(lines[0].1.until, Some(NOW.plus(WEEK).to_string()));
        assert!(is_whole(&path));
    }

    #[test]
    fn a_member_is_added_once_and_only_if_the_list_would_be_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = source(dir.path());
        read(&path).add(code("51"), &entry("127.0.0.1:7501"), WHO).unwrap();
        assert_eq!(read_trust_source(&path).unwrap().members.len(), 2);
        assert!(is_whole(&path));
        let before = fs::read_to_string(&path).unwrap();
        let twice = MemberSource { consent_keys: vec![key()], ..entry("127.0.0.1:7502") };
        let twice = MemberSource { statement_keys: twice.consent_keys.clone(), ..twice };
        let refused = [
            read(&path).add(code("51"), &entry("127.0.0.1:7501"), WHO),
            read(&path).add(code("11"), &twice, WHO),
            read(&path).add(code("11"), &MemberSource { bundle: "none.pem".into(), ..entry("a:1") }, WHO),
            read(&path).add(code("11"), &entry("a:1"), Answerable { by: "", ..WHO }),
        ];
        for (refused, why) in refused.into_iter().zip(["already", "more than one use", "none.pem", "--by"]) {
            let error = format!("{:#}", refused.unwrap_err());
            assert!(error.contains(why), "{why} in {error}");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), before, "a refused change changes nothing");
    }

    #[test]
    fn who_is_not_there_or_not_out_cannot_be_resumed_and_a_suspension_has_bounds() {
        let dir = tempfile::tempdir().unwrap();
        let path = source(dir.path());
        let error = |result: Result<()>| format!("{:#}", result.unwrap_err());
        assert!(error(read(&path).suspend(code("11"), NOW.plus(WEEK), WHO)).contains("not in the federation"));
        assert!(error(read(&path).resume(code("44"), WHO)).contains("not suspended"));
        assert!(error(read(&path).suspend(code("44"), NOW, WHO)).contains("ends after it begins"));
        assert!(error(read(&path).suspend(code("44"), NOW.plus(WEEK * 60), WHO)).contains("366 days"));
        read(&path).suspend(code("44"), NOW.plus(WEEK), WHO).unwrap();
        assert!(error(read(&path).suspend(code("44"), NOW.plus(WEEK), WHO)).contains("suspended already"));
        let later = Answerable { now: NOW.plus(WEEK), ..WHO };
        read(&path).suspend(code("44"), NOW.plus(WEEK * 2), later).unwrap();
        assert!(audit::read(&path).unwrap().len() == 2 && is_whole(&path));
    }
}
