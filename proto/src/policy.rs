//! The one national policy (DESIGN §9): a signed, versioned TOML document that everybody reads alike.
//!
//! Upholds I8 (no venue sees more than this, no authority outside it colours anyone) and I5 (only a green may pass).
//! [`Policy::judge`] is how a member's label becomes a national answer: the gateway uses it, and so may anyone who checks.

mod assignment;
mod document;

use std::{collections::BTreeMap, fmt, time::Duration};

use ciborium::Value;

use crate::{
    envelope::{self, Edition, MAX_DOCUMENT_BYTES, Roots},
    member::Member,
    refusal::{Object, Refusal},
    statement::{Authority, Status},
    suite::SigningKey,
    terms::{Category, Decision, Level, Purpose, Scope},
};

pub use crate::lives::Lives;
pub use assignment::{AssignmentRule, EvidenceClass, EvidenceKind, EvidencePolicy, Phase};
pub use document::PolicyError;

/// The policy that ships with the project, as TOML.
pub const NATIONAL: &str = include_str!("../data/policy.toml");

const OBJECT: Object = Object::Policy;

/// A valid policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its name, e.g. `national`.
    pub name: String,
    /// Longest lives.
    pub lives: Lives,
    /// Quotas at the home node.
    pub quotas: Quotas,
    /// How long access records are kept, and when a traveler sees them.
    pub access_log: AccessLogPolicy,
    /// How long evidence is kept.
    pub evidence: EvidencePolicy,
    grants: BTreeMap<(Category, Purpose), Scope>,
    default_labels: Labels,
    labels: BTreeMap<Member, Labels>,
    rules: BTreeMap<String, Rule>,
    authorities: BTreeMap<String, Text>,
    answers: Answers,
    correction: Text,
}

/// Quotas at the home node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quotas {
    /// Live consents of one traveler.
    pub live_consents_per_traveler: u32,
    /// Enrolled devices of one traveler.
    pub devices_per_traveler: u32,
}

/// How long access records are kept, and when a traveler sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessLogPolicy {
    /// How long a gateway keeps a record that its home member has a receipt for.
    pub gateway_retention: Duration,
    /// How long the home member keeps a record.
    pub home_retention: Duration,
    /// How old a record is before its traveler sees it.
    pub visibility_delay: Duration,
}

/// What a label means. The order is for maps; it says nothing of which is stricter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Meaning {
    /// A national level.
    Level(Level),
    /// No level: a pop-up, grey, still to be verified.
    Undetermined,
}

/// A short text for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// In Chinese.
    pub zh: String,
    /// In English.
    pub en: String,
}

/// What the gate does, and what the person does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// The gate's part.
    pub decision: Decision,
    /// The person's part.
    pub text: Text,
}

/// A rule by which a level that is not green may be assigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What it is about.
    pub text: Text,
    /// How a code follows from evidence by it. `None`: it is only for codes that are set by hand or pushed.
    pub assigns: Option<AssignmentRule>,
    levels: Vec<Level>,
    authorities: Vec<String>,
}

/// What an exchange came to, before it is put in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// A national level.
    Status(Level),
    /// A label without a level.
    Undetermined,
    /// Yellow or red by a rule or an authority that is not admitted.
    Unsubstantiated(Option<Authority>),
    /// Home vouches for no code.
    UnknownTraveler,
    /// Home gave no valid answer.
    HomeUnreachable,
}

/// A member's labels.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Labels {
    meanings: BTreeMap<String, Meaning>,
    /// Of several labels that mean the same, which one the node assigns.
    assigned: BTreeMap<Meaning, String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Answers {
    green: Advice,
    yellow: Advice,
    red: Advice,
    unknown: Advice,
    undetermined: Advice,
    unsubstantiated: Advice,
    unreachable: Advice,
}

impl fmt::Display for Meaning {
    /// The word in the policy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Level(level) => level.fmt(f),
            Self::Undetermined => f.write_str("undetermined"),
        }
    }
}

impl Policy {
    /// Reads and checks a policy's TOML. The error names the key.
    pub fn from_toml(text: &str) -> Result<Self, PolicyError> {
        document::parse(text)
    }

    /// Signs an edition of a policy's TOML.
    pub fn seal(toml: &str, edition: Edition, roots: &[&SigningKey]) -> Vec<u8> {
        envelope::seal(OBJECT, edition, Value::from(toml), roots)
    }

    /// Opens an edition that `roots` signed.
    pub fn open(bytes: &[u8], roots: &Roots) -> Result<(Edition, Self), Refusal> {
        let (edition, content) = envelope::open(OBJECT, bytes, roots)?;
        let policy = Self::from_toml(&text(content)?).map_err(|error| Refusal::malformed(OBJECT, error))?;
        Ok((edition, policy))
    }

    /// The edition and the TOML of a document, whoever signed it: to look at it before it is signed.
    pub fn read_unsigned(bytes: &[u8]) -> Result<(Edition, String), Refusal> {
        let (edition, content) = envelope::open_unsigned(OBJECT, bytes)?;
        Ok((edition, text(content)?))
    }

    /// What a venue of this category may see at most for this purpose.
    pub fn grant(&self, category: Category, purpose: Purpose) -> Option<Scope> {
        self.grants.get(&(category, purpose)).copied()
    }

    /// What a member's label means; `None` if the policy does not list it for this member.
    pub fn meaning(&self, member: Member, label: &str) -> Option<Meaning> {
        self.labels_of(member).meanings.get(label).copied()
    }

    /// The labels of a member that mean this.
    pub fn labels_meaning(&self, member: Member, meaning: Meaning) -> impl Iterator<Item = &str> {
        let labels = self.labels_of(member).meanings.iter();
        labels.filter(move |(_, m)| **m == meaning).map(|(label, _)| label.as_str())
    }

    /// What home's status comes to: label to level, and whether rule and authority may assign it.
    pub fn judge(&self, status: &Status) -> Judgement {
        match self.meaning(status.issuer, &status.label) {
            None | Some(Meaning::Undetermined) => Judgement::Undetermined,
            Some(Meaning::Level(Level::Green)) => Judgement::Status(Level::Green),
            Some(Meaning::Level(level)) => {
                let (rule, authority) = (status.rule.as_deref(), status.authority.as_ref());
                if self.admits(status.issuer, level, rule, authority) {
                    Judgement::Status(level)
                } else {
                    Judgement::Unsubstantiated(status.authority.clone())
                }
            }
        }
    }

    /// Whether this rule and authority may assign what this label means at this home: whatever is not yellow or red needs neither.
    pub fn substantiates(&self, home: Member, label: &str, rule: Option<&str>, authority: Option<&Authority>) -> bool {
        match self.meaning(home, label) {
            Some(Meaning::Level(level @ (Level::Yellow | Level::Red))) => self.admits(home, level, rule, authority),
            _ => true,
        }
    }

    /// What the gate and the person do.
    pub fn advise(&self, judgement: &Judgement) -> &Advice {
        match judgement {
            Judgement::Status(Level::Green) => &self.answers.green,
            Judgement::Status(Level::Yellow) => &self.answers.yellow,
            Judgement::Status(Level::Red) => &self.answers.red,
            Judgement::Undetermined => &self.answers.undetermined,
            Judgement::Unsubstantiated(_) => &self.answers.unsubstantiated,
            Judgement::UnknownTraveler => &self.answers.unknown,
            Judgement::HomeUnreachable => &self.answers.unreachable,
        }
    }

    /// Where an unsubstantiated assignment by `authority` is corrected.
    pub fn correction(&self, home: Member, authority: Option<&Authority>) -> Text {
        let profile = home.profile();
        let kind = authority.and_then(|authority| self.authorities.get(authority.kind()));
        let named = |name: &str, kind: Option<&str>| match (authority, kind) {
            (Some(authority), Some(kind)) => format!("{name} {kind} ({authority})"),
            (Some(authority), None) => format!("{name} ({authority})"),
            (None, _) => name.to_owned(),
        };
        let owner = authority.map_or(profile, |authority| authority.member().profile());
        let zh = named(owner.name_zh, kind.map(|text| text.zh.as_str()));
        let en = named(owner.name_en, kind.map(|text| text.en.as_str()));
        Text {
            zh: self.correction.zh.replace("{authority}", &zh).replace("{member}", profile.name_zh),
            en: self.correction.en.replace("{authority}", &en).replace("{member}", profile.name_en),
        }
    }

    /// Whether the policy lists this kind of authority.
    pub fn knows_authority(&self, kind: &str) -> bool {
        self.authorities.contains_key(kind)
    }

    /// A number that is another one, but for chance, when rules or labels are: what codes follow from evidence. Editions that differ in
    /// other things, or in their lives alone, have the same.
    pub fn rules_digest(&self) -> u64 {
        let rules = format!("{:?}{:?}{:?}", self.rules, self.default_labels, self.labels);
        let [a, b, c, d, e, f, g, h, ..] = crate::suite::sha256(rules.as_bytes());
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    /// A rule by its id.
    pub fn rule(&self, id: &str) -> Option<&Rule> {
        self.rules.get(id)
    }

    fn labels_of(&self, member: Member) -> &Labels {
        self.labels.get(&member).unwrap_or(&self.default_labels)
    }

    fn admits(&self, home: Member, level: Level, rule: Option<&str>, authority: Option<&Authority>) -> bool {
        let (Some(rule), Some(authority)) = (rule, authority) else { return false };
        let of_level = self.rules.get(rule).is_some_and(|rule| rule.levels.contains(&level));
        of_level && self.may_invoke(rule, authority, home)
    }
}

fn text(content: Value) -> Result<String, Refusal> {
    let text = content.into_text().ok().filter(|toml| toml.len() <= MAX_DOCUMENT_BYTES);
    text.ok_or_else(|| Refusal::malformed(OBJECT, "the content is not a text"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{statement::LogHead, time::UnixTime};

    fn policy() -> Policy {
        Policy::from_toml(NATIONAL).unwrap()
    }

    fn status(member: &str, label: &str, by: Option<(&str, &str)>) -> Status {
        let now = UnixTime::from_secs(1_800_000_000);
        Status {
            issuer: member.parse().unwrap(),
            issued_at: now,
            expires_at: now,
            token: [0; 16],
            head: LogHead { epoch: [0; 16], seq: 0 },
            label: label.into(),
            rule: by.map(|(rule, _)| rule.into()),
            authority: by.map(|(_, authority)| authority.parse().unwrap()),
            assigned_at: None,
            tests: vec![],
            doses: vec![],
            visits: vec![],
            hint: None,
            offline_until: now,
        }
    }

    #[test]
    fn converts_what_members_really_had() {
        let (green, yellow, red) =
            (Meaning::Level(Level::Green), Meaning::Level(Level::Yellow), Meaning::Level(Level::Red));
        for (member, label, meaning) in [
            ("00", "未见异常", Some(green)),
            ("00", "无异常", Some(green)),
            ("11", "弹窗", Some(Meaning::Undetermined)),
            ("11", "居家观察", Some(yellow)),
            ("11", "绿码", None),
            ("12", "橙码", Some(yellow)),
            ("13", "弹窗", Some(Meaning::Undetermined)),
            ("43", "蓝码", Some(Meaning::Undetermined)),
            ("44", "黄码", None),
            ("44", "红码", Some(red)),
            ("52", "橙码", Some(yellow)),
            ("64", "灰码", Some(Meaning::Undetermined)),
            ("66", "绿码", Some(green)),
        ] {
            assert_eq!(policy().meaning(member.parse().unwrap(), label), meaning, "{member} {label}");
        }
    }

    #[test]
    fn every_member_has_a_green_and_a_red() {
        for member in Member::all() {
            for level in [Level::Green, Level::Red] {
                assert!(policy().labels_meaning(member, Meaning::Level(level)).next().is_some(), "{member} {level}");
            }
        }
    }

    #[test]
    fn red_needs_a_rule_and_an_authority_that_may() {
        let judge = |status: &Status| policy().judge(status);
        assert_eq!(judge(&status("41", "绿码", None)), Judgement::Status(Level::Green));
        assert_eq!(judge(&status("41", "红码", Some(("R-CASE", "41/cdc")))), Judgement::Status(Level::Red));
        assert_eq!(judge(&status("41", "红码", Some(("R-CASE", "00/cdc")))), Judgement::Status(Level::Red));
        for by in [
            None,
            Some(("R-DEPOSITOR", "41/cdc")),
            Some(("R-CASE", "41/finance-office")),
            Some(("R-CASE", "44/cdc")),
            Some(("R-MEDIUM-AREA", "41/cdc")),
        ] {
            let judged = judge(&status("41", "红码", by));
            assert!(matches!(judged, Judgement::Unsubstantiated(_)), "{by:?} {judged:?}");
        }
        assert_eq!(judge(&status("41", "紫码", None)), Judgement::Undetermined);
    }

    #[test]
    fn the_digest_is_of_rules_and_labels_alone() {
        let with = |from: &str, to: &str| Policy::from_toml(&NATIONAL.replacen(from, to, 1)).unwrap().rules_digest();
        let digest = policy().rules_digest();
        assert_eq!(with("statement = \"10m\"", "statement = \"9m\""), digest);
        assert_ne!(with("lasts = \"3d\"", "lasts = \"4d\""), digest);
        assert_ne!(with("\"绿码\" = \"green\"", "\"青码\" = \"green\""), digest);
    }

    #[test]
    fn only_green_passes() {
        let passes = |judgement| policy().advise(&judgement).decision == Decision::Pass;
        assert!(passes(Judgement::Status(Level::Green)));
        for judgement in [
            Judgement::Status(Level::Yellow),
            Judgement::Status(Level::Red),
            Judgement::Undetermined,
            Judgement::Unsubstantiated(None),
            Judgement::UnknownTraveler,
            Judgement::HomeUnreachable,
        ] {
            assert!(!passes(judgement));
        }
        let lax = NATIONAL.replace("[answers.yellow]\ndecision = \"assist\"", "[answers.yellow]\ndecision = \"pass\"");
        assert!(Policy::from_toml(&lax).unwrap_err().to_string().contains("answers.yellow"));
    }

    #[test]
    fn grants_are_per_category_and_purpose() {
        assert_eq!(policy().grant(Category::Park, Purpose::Entry), Some(Scope::LEVEL.union(Scope::IDENTITY_HINT)));
        assert_eq!(policy().grant(Category::Park, Purpose::Medical), None);
        assert_eq!(policy().grant(Category::Hospital, Purpose::Medical), Some(Scope::ALL));
    }

    #[test]
    fn the_correction_names_who_and_where() {
        let authority = "41/finance-office".parse().unwrap();
        let text = policy().correction("41".parse().unwrap(), Some(&authority));
        assert!(text.zh.contains("41/finance-office") && text.zh.contains("河南"), "{}", text.zh);
        assert!(text.en.contains("Henan"), "{}", text.en);
    }

    #[test]
    fn no_record_is_forgotten_before_its_traveler_sees_it() {
        let with = |delay: &str| {
            let shortest = NATIONAL.replacen("home_retention = \"183d\"", "home_retention = \"1d\"", 1);
            Policy::from_toml(&shortest.replacen(
                "visibility_delay = \"0s\"",
                &format!("visibility_delay = \"{delay}\""),
                1,
            ))
        };
        assert!(with("86399s").is_ok());
        let error = with("1d").unwrap_err().to_string();
        assert!(error.starts_with("access_log.visibility_delay: "), "{error}");
    }

    #[test]
    fn mistakes_are_named() {
        for (from, to, named) in [
            ("proof = \"60s\"", "proof = \"61s\"", "lives.proof"),
            ("proof = \"60s\"", "proof = \"sixty\"", "sixty"),
            ("token = \"24h\"", "token = \"25h\"", "lives.token"),
            ("gateway_retention = \"1h\"", "gateway_retention = \"31d\"", "access_log.gateway_retention"),
            ("home_retention = \"183d\"", "home_retention = \"23h\"", "access_log.home_retention"),
            ("visibility_delay = \"0s\"", "visibility_delay = \"31d\"", "access_log.visibility_delay"),
            ("live_consents_per_traveler = 16", "live_consents_per_traveler = 17", "quotas"),
            ("[grants.park]", "[grants.castle]", "castle"),
            ("[labels.44]", "[labels.99]", "labels.99"),
            (
                "levels = [\"yellow\"]\nauthorities = [\"cdc\", \"health",
                "levels = [\"green\"]\nauthorities = [\"cdc\", \"health",
                "R-TEST",
            ),
            ("name = \"national\"", "title = \"national\"", "title"),
            ("entry = [\"level\", \"tests\", \"identity-hint\"]", "entry = [\"tests\"]", "grants.hospital.entry"),
        ] {
            assert!(NATIONAL.contains(from), "{from}");
            let error = Policy::from_toml(&NATIONAL.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains(named), "{named} in {error}");
        }
        let development = NATIONAL.replacen("name = \"national\"", "name = \"x\"\ndevelopment = true", 1);
        assert!(Policy::from_toml(&development.replacen("proof = \"60s\"", "proof = \"1h\"", 1)).is_ok());
        assert!(Policy::from_toml(&development.replacen("proof = \"60s\"", "proof = \"61m\"", 1)).is_err());
    }
}
