//! Signing by N of M roots that are apart: a draft goes from one to the next, each adds its signature offline, and what
//! enough of them have signed is published.
//!
//! ```text
//! draft      from the source: version and life are fixed, nobody has signed
//! cosign     on each root's own machine: shows what it is, adds one signature
//! publish    enough have signed, by the roots that receivers hold; then in the place of the edition before
//! ```

use std::{fmt, fs, path::Path, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use proto::{
    envelope::{self, Edition, Roots},
    policy::Policy,
    refusal::Object,
    suite::{Kid, SigningKey},
    time::UnixTime,
    trust::{MemberTrust, TrustList},
};

use crate::{
    documents::{edition, read_trust_source, read_version},
    pki::write_public,
};

/// What a draft is, for whoever is to sign it.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Which document.
    pub object: Object,
    /// Its version and life.
    pub edition: Edition,
    /// Who is said to have signed so far.
    pub signers: Vec<Kid>,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    TrustList(Box<TrustList>),
    Policy(String),
}

/// Makes a draft of the trust list from its source, to follow the edition in `current`.
pub fn draft_trust_list(source: &Path, current: &Path, now: UnixTime, life: Duration) -> Result<Vec<u8>> {
    let list = read_trust_source(source)?;
    let edition = edition(read_version(Object::TrustList, current)?, now, life)?;
    Ok(list.seal(edition, &[]))
}

/// Makes a draft of the policy from its TOML, to follow the edition in `current`.
pub fn draft_policy(toml: &str, current: &Path, now: UnixTime, life: Duration) -> Result<Vec<u8>> {
    Policy::from_toml(toml)?;
    let edition = edition(read_version(Object::Policy, current)?, now, life)?;
    Ok(Policy::seal(toml, edition, &[]))
}

/// Reads a draft, or any edition: nothing of it is verified.
///
/// # Errors
/// If it is neither a trust list nor a policy.
pub fn read(path: &Path) -> Result<(Draft, Vec<u8>)> {
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    let draft = Draft::trust_list(&bytes).or_else(|_| Draft::policy(&bytes));
    Ok((draft.map_err(|refusal| anyhow!("{}: {refusal}", path.display()))?, bytes))
}

/// Adds a root's signature to a draft in its place.
///
/// # Errors
/// If this root has signed it already, or it is none of the trust list's roots nor of `others`, which may be retired by it.
pub fn cosign(path: &Path, root: &SigningKey, known: &Roots) -> Result<Draft> {
    let (draft, bytes) = read(path)?;
    let own = draft.roots();
    let is_root = |roots: &Roots| roots.keys().contains(root.verifying_key());
    if !is_root(known) && !own.is_some_and(is_root) {
        bail!("this key is none of the roots: its signature would count for nobody");
    }
    let signed = envelope::cosign(draft.object, &bytes, root);
    let signed = signed.map_err(|refusal| anyhow!("{}: {refusal}", path.display()))?;
    write_public(path, &signed)?;
    Ok(read(path)?.0)
}

/// Puts a draft that enough roots have signed in the place of the edition before it.
///
/// `known` are the roots that receivers hold: those of the trust list before it, or the pinned ones. A list that names
/// other roots than those must be signed by enough of both, or who takes it up could not open it again.
///
/// # Errors
/// If too few have signed, it is no newer than the edition in `out`, or it is over.
pub fn publish(path: &Path, out: &Path, known: &Roots, now: UnixTime) -> Result<Edition> {
    let (draft, bytes) = read(path)?;
    let refused = |refusal| anyhow!("{}: {refusal}", path.display());
    envelope::open(draft.object, &bytes, known).map_err(refused)?;
    if let Some(own) = draft.roots() {
        envelope::open(draft.object, &bytes, own).context("by its own roots").map_err(|error| anyhow!("{error:#}"))?;
    }
    draft.edition.check_time(draft.object, now).map_err(refused)?;
    let held = read_version(draft.object, out)?;
    if draft.edition.version <= held {
        bail!("{}: version {} is no newer than {held} in {}", path.display(), draft.edition.version, out.display());
    }
    write_public(out, &bytes)?;
    Ok(draft.edition)
}

impl Draft {
    fn trust_list(bytes: &[u8]) -> Result<Self, proto::refusal::Refusal> {
        let (edition, list) = TrustList::open_unsigned(bytes)?;
        let signers = envelope::read_signers(Object::TrustList, bytes)?;
        Ok(Self { object: Object::TrustList, edition, signers, content: Content::TrustList(Box::new(list)) })
    }

    fn policy(bytes: &[u8]) -> Result<Self, proto::refusal::Refusal> {
        let (edition, toml) = Policy::read_unsigned(bytes)?;
        let signers = envelope::read_signers(Object::Policy, bytes)?;
        Ok(Self { object: Object::Policy, edition, signers, content: Content::Policy(toml) })
    }

    /// The roots it names for the next edition; a policy names none.
    pub fn roots(&self) -> Option<&Roots> {
        match &self.content {
            Content::TrustList(list) => Some(&list.roots),
            Content::Policy(_) => None,
        }
    }

    /// What is otherwise than in an edition before it, a line each.
    pub fn differences(&self, before: &Self) -> Vec<String> {
        match (&before.content, &self.content) {
            (Content::TrustList(before), Content::TrustList(after)) => differences_of_lists(before, after),
            (Content::Policy(before), Content::Policy(after)) => differences_of_texts(before, after),
            _ => vec!["it is another kind of document".to_owned()],
        }
    }
}

impl fmt::Display for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Edition { version, issued_at, expires_at } = self.edition;
        writeln!(f, "{} version {version}, {issued_at} to {expires_at}", self.object.word().replace('_', " "))?;
        match &self.content {
            Content::TrustList(list) => {
                writeln!(
                    f,
                    "{} members of {}, next list by {} roots",
                    list.members.len(),
                    list.domain,
                    list.roots.threshold()
                )?;
            }
            Content::Policy(toml) => writeln!(f, "{} lines", toml.lines().count())?,
        }
        match self.signers.as_slice() {
            [] => f.write_str("signed by nobody yet"),
            signers => {
                let kids: Vec<_> = signers.iter().map(ToString::to_string).collect();
                write!(f, "signed by {}", kids.join(", "))
            }
        }
    }
}

fn differences_of_lists(before: &TrustList, after: &TrustList) -> Vec<String> {
    let mut lines = Vec::new();
    let mut note = |changed: bool, what: String| lines.extend(changed.then_some(what));
    note(before.domain != after.domain, format!("domain: {} → {}", before.domain, after.domain));
    note(before.roots != after.roots, "the roots of the next list".to_owned());
    note(before.gateway.bundle != after.gateway.bundle, "the gateway's CA".to_owned());
    note(before.gateway.log_keys != after.gateway.log_keys, "the gateway's log keys".to_owned());
    for (code, old) in &before.members {
        match after.members.get(code) {
            None => note(true, format!("{code}: leaves")),
            Some(new) => parts(old, new).for_each(|what| note(true, format!("{code}: {what}"))),
        }
    }
    for code in after.members.keys().filter(|code| !before.members.contains_key(code)) {
        note(true, format!("{code}: joins"));
    }
    lines
}

fn parts(old: &MemberTrust, new: &MemberTrust) -> impl Iterator<Item = String> {
    let suspended = match (&old.suspension, &new.suspension) {
        (_, Some(out)) => format!("suspended until {}: {}", out.ends_at(), out.reason()),
        (_, None) => "no longer suspended".to_owned(),
    };
    [
        (old.bundle != new.bundle, "CA".to_owned()),
        (old.endpoints != new.endpoints, format!("endpoints: {}", new.endpoints.join(" "))),
        (old.consent_keys != new.consent_keys, "consent keys".to_owned()),
        (old.statement_keys != new.statement_keys, "statement keys".to_owned()),
        (old.sealing_key != new.sealing_key, "sealing key".to_owned()),
        (old.categories != new.categories, "categories".to_owned()),
        (old.suspension != new.suspension, suspended),
    ]
    .into_iter()
    .filter_map(|(changed, what)| changed.then_some(what))
}

/// Lines that are in one text alone, in their order.
fn differences_of_texts(before: &str, after: &str) -> Vec<String> {
    let gone = before.lines().filter(|line| !after.lines().any(|other| other == *line));
    let new = after.lines().filter(|line| !before.lines().any(|other| other == *line));
    gone.map(|line| format!("- {line}")).chain(new.map(|line| format!("+ {line}"))).collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proto::{
        envelope::MAX_LIFE,
        policy::NATIONAL,
        suite::{Suite, VerifyingKey},
    };

    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    fn key() -> SigningKey {
        SigningKey::generate(Suite::Ed25519)
    }

    fn roots(threshold: usize, keys: &[&SigningKey]) -> Roots {
        let public: Vec<VerifyingKey> = keys.iter().map(|key| key.verifying_key().clone()).collect();
        Roots::new(threshold, public).unwrap()
    }

    /// A directory with the source of a list without members, by these roots.
    struct Table(tempfile::TempDir);

    impl Table {
        fn new(threshold: usize, keys: &[&SigningKey]) -> Self {
            let table = Self(tempfile::tempdir().unwrap());
            table.name(threshold, keys);
            let domain = "tongxing.test".parse().unwrap();
            let ca = crate::pki::Authority::create(proto::identity::Realm::Gateway, &domain, NOW).unwrap();
            fs::write(table.path("ca.pem"), ca.certificate()).unwrap();
            table
        }

        /// Names the roots of the next list.
        fn name(&self, threshold: usize, keys: &[&SigningKey]) {
            let keys: Vec<_> = keys.iter().map(|key| crate::documents::key_to_hex(key.verifying_key())).collect();
            let text = format!(
                "domain = \"tongxing.test\"\nthreshold = {threshold}\nroots = {keys:?}\n[members]\n[gateway]\nbundle = \"ca.pem\"\n"
            );
            fs::write(self.path("trust-list.toml"), text).unwrap();
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn draft(&self, now: UnixTime) -> PathBuf {
            let draft = draft_trust_list(&self.path("trust-list.toml"), &self.path("out"), now, MAX_LIFE).unwrap();
            fs::write(self.path("draft"), draft).unwrap();
            self.path("draft")
        }

        fn publish(&self, known: &Roots) -> Result<Edition> {
            publish(&self.path("draft"), &self.path("out"), known, NOW)
        }
    }

    fn error<T: fmt::Debug>(result: Result<T>) -> String {
        format!("{:#}", result.unwrap_err())
    }

    #[test]
    fn roots_that_are_apart_sign_one_after_the_other() {
        let (a, b, c, stranger) = (key(), key(), key(), key());
        let known = roots(2, &[&a, &b, &c]);
        let table = Table::new(2, &[&a, &b, &c]);
        let draft = table.draft(NOW);
        assert!(error(table.publish(&known)).contains("THRESHOLD_NOT_MET"));
        let once = cosign(&draft, &a, &known).unwrap();
        assert_eq!(once.signers, [a.verifying_key().kid()]);
        assert!(once.to_string().contains("trust list version 1800000000"), "{once}");
        assert!(error(cosign(&draft, &a, &known)).contains("already"));
        assert!(error(cosign(&draft, &stranger, &known)).contains("none of the roots"));
        assert!(error(table.publish(&known)).contains("THRESHOLD_NOT_MET"));
        cosign(&draft, &c, &known).unwrap();
        let edition = table.publish(&known).unwrap();
        let opened = TrustList::open(&fs::read(table.path("out")).unwrap(), &known).unwrap();
        assert_eq!(opened.0, edition);
        assert!(error(table.publish(&known)).contains("no newer"), "the same again");
    }

    #[test]
    fn roots_change_by_the_word_of_both() {
        let (old, new) = (key(), key());
        let (known, next) = (roots(1, &[&old]), roots(1, &[&new]));
        let table = Table::new(1, &[&new]);
        let draft = table.draft(NOW);
        cosign(&draft, &new, &known).unwrap();
        assert!(error(table.publish(&known)).contains("THRESHOLD_NOT_MET"), "the new root alone");
        cosign(&draft, &old, &known).unwrap();
        table.publish(&known).unwrap();
        // The retired root has no word any more.
        let draft = table.draft(NOW);
        assert!(error(cosign(&draft, &old, &next)).contains("none of the roots"));
        let table = Table::new(1, &[&new]);
        let draft = table.draft(NOW);
        cosign(&draft, &old, &known).unwrap();
        assert!(error(table.publish(&known)).contains("by its own roots"), "the old root alone");
    }

    #[test]
    fn a_draft_that_is_over_is_not_published_and_other_files_are_no_drafts() {
        let root = key();
        let known = roots(1, &[&root]);
        let table = Table::new(1, &[&root]);
        let draft = table.draft(NOW.minus(MAX_LIFE));
        cosign(&draft, &root, &known).unwrap();
        assert!(error(table.publish(&known)).contains("EXPIRED"));
        fs::write(&draft, "nothing").unwrap();
        assert!(read(&draft).is_err() && cosign(&draft, &root, &known).is_err() && table.publish(&known).is_err());
    }

    #[test]
    fn whoever_signs_sees_what_is_otherwise() {
        let (a, b) = (key(), key());
        let table = Table::new(1, &[&a]);
        let before = read(&table.draft(NOW)).unwrap().0;
        table.name(1, &[&b]);
        let after = read(&table.draft(NOW)).unwrap().0;
        assert_eq!(after.differences(&before), ["the roots of the next list"]);
        assert!(before.differences(&before).is_empty());
        let policy = |toml: &str| {
            let path = table.path("policy");
            fs::write(&path, draft_policy(toml, &table.path("none"), NOW, MAX_LIFE).unwrap()).unwrap();
            read(&path).unwrap().0
        };
        let shorter = NATIONAL.replace("token = \"24h\" ", "token = \"12h\" ");
        let lines = policy(&shorter).differences(&policy(NATIONAL));
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].starts_with("- token = \"24h\"") && lines[1].starts_with("+ token = \"12h\""));
        assert_eq!(policy(NATIONAL).differences(&before), ["it is another kind of document"]);
        assert!(draft_policy("nonsense", &table.path("none"), NOW, MAX_LIFE).is_err());
    }
}
