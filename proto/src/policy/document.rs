//! The policy's TOML: a raw document, then one pass of checks that makes it a [`Policy`]. Errors name the key.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;
use thiserror::Error;

use super::{
    AccessLogPolicy, Advice, Answers, AssignmentRule, EvidenceClass, EvidencePolicy, Labels, Lives, Meaning, Phase,
    Policy, Quotas, Rule, Text,
};
use crate::{
    member::Member,
    statement::{MAX_LABEL_BYTES, MAX_OFFLINE, MAX_RULE_BYTES},
    terms::{Category, Decision, Kind, Level, Purpose, Scope},
    venue::is_name,
};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const PROOF: Duration = Duration::from_secs(60);
/// Phases of one assignment at most.
const MAX_PHASES: usize = 4;

/// Why a TOML is not a valid policy.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// Not TOML of the documented form.
    #[error(transparent)]
    Toml(#[from] toml::de::Error),
    /// A value is not allowed.
    #[error("{key}: {what}")]
    Value {
        /// The key, dotted.
        key: String,
        /// What is wrong, and the mend.
        what: String,
    },
}

/// Tables of labels, each under a member's code or `default`.
type RawTables = BTreeMap<String, BTreeMap<String, String>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    name: String,
    #[serde(default)]
    development: bool,
    lives: RawLives,
    quotas: RawQuotas,
    #[serde(default)]
    access_log: RawAccessLog,
    grants: BTreeMap<String, BTreeMap<String, Vec<String>>>,
    labels: RawTables,
    #[serde(default)]
    assigned_labels: RawTables,
    #[serde(default)]
    evidence: RawEvidence,
    rules: BTreeMap<String, RawRule>,
    authorities: BTreeMap<String, RawText>,
    answers: RawAnswers,
    correction: RawText,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLives {
    #[serde(with = "humantime_serde")]
    token: Duration,
    #[serde(with = "humantime_serde")]
    paper: Duration,
    #[serde(with = "humantime_serde")]
    proof: Duration,
    #[serde(with = "humantime_serde")]
    statement: Duration,
    #[serde(with = "humantime_serde")]
    offline: Duration,
    #[serde(with = "humantime_serde")]
    last_known_good: Duration,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawQuotas {
    live_consents_per_traveler: u32,
    devices_per_traveler: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawAccessLog {
    #[serde(with = "humantime_serde")]
    gateway_retention: Duration,
    #[serde(with = "humantime_serde")]
    home_retention: Duration,
    #[serde(with = "humantime_serde")]
    visibility_delay: Duration,
}

impl Default for RawAccessLog {
    fn default() -> Self {
        // Half a year: network logs are kept no less than six months (Cybersecurity Law of the PRC, article 21).
        Self { gateway_retention: HOUR, home_retention: DAY * 183, visibility_delay: Duration::ZERO }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawEvidence {
    #[serde(with = "humantime_serde")]
    retention: Duration,
}

impl Default for RawEvidence {
    fn default() -> Self {
        Self { retention: DAY * 180 }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    zh: String,
    en: String,
    levels: Vec<String>,
    authorities: Vec<String>,
    assigns: Option<RawAssignment>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAssignment {
    evidence: String,
    phases: Vec<RawPhase>,
    #[serde(default)]
    lifted_by_negative_test: bool,
    #[serde(default, with = "humantime_serde")]
    waived_by_negative_test_within: Option<Duration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPhase {
    #[serde(rename = "as")]
    meanings: Vec<String>,
    #[serde(with = "humantime_serde")]
    lasts: Duration,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawText {
    zh: String,
    en: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAdvice {
    decision: String,
    zh: String,
    en: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAnswers {
    green: RawAdvice,
    yellow: RawAdvice,
    red: RawAdvice,
    unknown: RawAdvice,
    undetermined: RawAdvice,
    unsubstantiated: RawAdvice,
    unreachable: RawAdvice,
}

pub(super) fn parse(text: &str) -> Result<Policy, PolicyError> {
    let document: Document = toml::from_str(text)?;
    let lives = check_lives(&document.lives, document.development)?;
    let quotas = check_quotas(&document.quotas)?;
    let access_log = check_access_log(&document.access_log)?;
    let mut grants = BTreeMap::new();
    for (category, purposes) in document.grants {
        for (purpose, words) in purposes {
            let key = format!("grants.{category}.{purpose}");
            grants.insert(check_place(&key, &category, &purpose)?, check_scope(&key, &words)?);
        }
    }
    let mut rules = BTreeMap::new();
    for (id, rule) in document.rules {
        let rule = check_rule(&id, rule, &document.authorities)?;
        rules.insert(id, rule);
    }
    check_waivers(&rules)?;
    let evidence = check_evidence(&document.evidence, &rules)?;
    let assigning = rules.values().any(|rule| rule.assigns.is_some());
    let (default_labels, labels) = check_tables(document.labels, document.assigned_labels, assigning)?;
    Ok(Policy {
        name: document.name,
        lives,
        quotas,
        access_log,
        evidence,
        grants,
        default_labels,
        labels,
        rules,
        authorities: document.authorities.into_iter().map(|(kind, text)| (kind, text.into())).collect(),
        answers: check_answers(document.answers)?,
        correction: document.correction.into(),
    })
}

fn wrong(key: &str, what: &str) -> PolicyError {
    PolicyError::Value { key: key.to_owned(), what: what.to_owned() }
}

fn check_lives(raw: &RawLives, development: bool) -> Result<Lives, PolicyError> {
    let at_most = |key: &str, value: Duration, max: Duration| {
        if value <= max { Ok(value) } else { Err(wrong(key, &format!("at most {} s", max.as_secs()))) }
    };
    let positive = |key: &str, value: Duration, max: Duration| {
        if value.as_secs() == 0 { Err(wrong(key, "at least 1 s")) } else { at_most(key, value, max) }
    };
    Ok(Lives {
        token: positive("lives.token", raw.token, Kind::Own.max_life())?,
        paper: positive("lives.paper", raw.paper, Kind::Paper.max_life())?,
        proof: positive("lives.proof", raw.proof, if development { HOUR } else { PROOF })?,
        statement: positive("lives.statement", raw.statement, HOUR)?,
        offline: at_most("lives.offline", raw.offline, MAX_OFFLINE)?,
        last_known_good: at_most("lives.last_known_good", raw.last_known_good, HOUR)?,
    })
}

fn check_quotas(raw: &RawQuotas) -> Result<Quotas, PolicyError> {
    let within = |key: &str, value: u32, max: u32| {
        if (1..=max).contains(&value) { Ok(value) } else { Err(wrong(key, &format!("1 to {max}"))) }
    };
    Ok(Quotas {
        live_consents_per_traveler: within("quotas.live_consents_per_traveler", raw.live_consents_per_traveler, 16)?,
        devices_per_traveler: within("quotas.devices_per_traveler", raw.devices_per_traveler, 64)?,
    })
}

fn check_access_log(raw: &RawAccessLog) -> Result<AccessLogPolicy, PolicyError> {
    let month = DAY * 30;
    let policy = AccessLogPolicy {
        gateway_retention: check_duration(
            "access_log.gateway_retention",
            raw.gateway_retention,
            Duration::ZERO,
            month,
        )?,
        home_retention: check_duration("access_log.home_retention", raw.home_retention, DAY, DAY * 3660)?,
        visibility_delay: check_duration("access_log.visibility_delay", raw.visibility_delay, Duration::ZERO, month)?,
    };
    if policy.visibility_delay >= policy.home_retention {
        return Err(wrong(
            "access_log.visibility_delay",
            "less than access_log.home_retention, or no traveler ever sees a record",
        ));
    }
    Ok(policy)
}

fn check_place(key: &str, category: &str, purpose: &str) -> Result<(Category, Purpose), PolicyError> {
    let category = category.parse().map_err(|_| wrong(key, "not a venue category"))?;
    let purpose = purpose.parse().map_err(|_| wrong(key, "not a purpose"))?;
    Ok((category, purpose))
}

fn check_scope(key: &str, words: &[String]) -> Result<Scope, PolicyError> {
    // A venue that may not see the level has nothing to ask: every grant has it.
    let mut scope = None;
    for word in words {
        let bit: Scope = word.parse().map_err(|_| wrong(key, &format!("{word} is not a scope")))?;
        scope = Some(scope.map_or(bit, |scope: Scope| scope.union(bit)));
    }
    scope.filter(|scope| scope.contains(Scope::LEVEL)).ok_or_else(|| wrong(key, "has the level at least"))
}

/// The default table and the members' own. A node that `assigns` codes needs one label for each meaning.
fn check_tables(
    labels: RawTables,
    mut assigned: RawTables,
    assigns: bool,
) -> Result<(Labels, BTreeMap<Member, Labels>), PolicyError> {
    let mut tables = BTreeMap::new();
    let mut default = None;
    for (member, table) in labels {
        let chosen = assigned.remove(&member).unwrap_or_default();
        let meanings = check_labels(&format!("labels.{member}"), table)?;
        let table = check_assigned(&format!("assigned_labels.{member}"), meanings, chosen, assigns)?;
        if member == "default" {
            default = Some(table);
        } else {
            let parsed = member.parse().map_err(|_| wrong(&format!("labels.{member}"), "not a member's code"))?;
            tables.insert(parsed, table);
        }
    }
    if let Some(member) = assigned.keys().next() {
        return Err(wrong(&format!("assigned_labels.{member}"), "is not in [labels]"));
    }
    Ok((default.ok_or_else(|| wrong("labels.default", "is missing"))?, tables))
}

fn check_labels(key: &str, table: BTreeMap<String, String>) -> Result<BTreeMap<String, Meaning>, PolicyError> {
    let check = |(label, meaning): (String, String)| {
        let key = format!("{key}.{label}");
        if label.is_empty() || label.len() > MAX_LABEL_BYTES || label.chars().any(char::is_control) {
            return Err(wrong(&key, "a label is 1 to 48 bytes without control characters"));
        }
        Ok((label, check_meaning(&key, &meaning)?))
    };
    table.into_iter().map(check).collect()
}

fn check_meaning(key: &str, word: &str) -> Result<Meaning, PolicyError> {
    if word == "undetermined" {
        return Ok(Meaning::Undetermined);
    }
    word.parse().map(Meaning::Level).map_err(|_| wrong(key, "green, yellow, red or undetermined"))
}

/// Which labels the node assigns: what is `chosen` is in the table, and if it `assigns` any, nothing is left open.
fn check_assigned(
    key: &str,
    meanings: BTreeMap<String, Meaning>,
    chosen: BTreeMap<String, String>,
    assigns: bool,
) -> Result<Labels, PolicyError> {
    let mut assigned = BTreeMap::new();
    for (word, label) in chosen {
        let key = format!("{key}.{word}");
        let meaning = check_meaning(&key, &word)?;
        if meanings.get(&label) != Some(&meaning) {
            return Err(wrong(&key, &format!("{label} does not mean it in this member's labels")));
        }
        assigned.insert(meaning, label);
    }
    for meaning in meanings.values().filter(|meaning| assigns && !assigned.contains_key(meaning)) {
        let labels: Vec<_> = meanings.iter().filter(|(_, m)| *m == meaning).map(|(label, _)| label.as_str()).collect();
        if labels.len() > 1 {
            let what = format!("is missing: one of {}, which mean the same", labels.join(", "));
            return Err(wrong(&format!("{key}.{meaning}"), &what));
        }
    }
    Ok(Labels { meanings, assigned })
}

/// Whatever may follow from evidence follows from evidence that is still there.
fn check_evidence(raw: &RawEvidence, rules: &BTreeMap<String, Rule>) -> Result<EvidencePolicy, PolicyError> {
    let key = "evidence.retention";
    let retention = check_duration(key, raw.retention, DAY * 30, DAY * 3660)?;
    let assigning = rules.iter().filter_map(|(id, rule)| rule.assigns.as_ref().map(|assigns| (id, assigns.reach())));
    match assigning.max_by_key(|(_, reach)| *reach) {
        Some((id, reach)) if reach > retention => {
            Err(wrong(key, &format!("no less than {} s, as long as rules.{id} may reach back", reach.as_secs())))
        }
        _ => Ok(EvidencePolicy { retention }),
    }
}

/// Only who may invoke a rule about tests may bring one.
fn check_waivers(rules: &BTreeMap<String, Rule>) -> Result<(), PolicyError> {
    let assigning = || rules.iter().filter_map(|(id, rule)| rule.assigns.as_ref().map(|assigns| (id, assigns)));
    if assigning().any(|(_, assigns)| assigns.evidence == EvidenceClass::PositiveTest) {
        return Ok(());
    }
    let eased = |a: &AssignmentRule| a.lifted_by_negative_test || a.waived_by_negative_test_within.is_some();
    match assigning().find(|(_, assigns)| eased(assigns)) {
        Some((id, _)) => Err(wrong(
            &format!("rules.{id}.assigns"),
            "a negative test eases it, but no rule is about positive-test, so nobody may bring tests",
        )),
        None => Ok(()),
    }
}

fn check_duration(key: &str, value: Duration, min: Duration, max: Duration) -> Result<Duration, PolicyError> {
    let whole = value.subsec_nanos() == 0;
    let what = format!("{} to {} s, whole seconds", min.as_secs(), max.as_secs());
    if (min..=max).contains(&value) && whole { Ok(value) } else { Err(wrong(key, &what)) }
}

fn check_rule(id: &str, raw: RawRule, authorities: &BTreeMap<String, RawText>) -> Result<Rule, PolicyError> {
    let key = format!("rules.{id}");
    if id.len() > MAX_RULE_BYTES {
        return Err(wrong(&key, "a rule's id is at most 32 bytes"));
    }
    let mut levels = Vec::new();
    for level in &raw.levels {
        match level.parse() {
            Ok(level @ (Level::Yellow | Level::Red)) => levels.push(level),
            _ => return Err(wrong(&format!("{key}.levels"), "yellow or red: green needs no rule")),
        }
    }
    for kind in &raw.authorities {
        if !is_name(kind) || !authorities.contains_key(kind) {
            return Err(wrong(&format!("{key}.authorities"), &format!("{kind} is not one of [authorities]")));
        }
    }
    let assigns =
        raw.assigns.map(|assigns| check_assignment(&format!("{key}.assigns"), assigns, &levels)).transpose()?;
    Ok(Rule { text: Text { zh: raw.zh, en: raw.en }, assigns, levels, authorities: raw.authorities })
}

fn check_assignment(key: &str, raw: RawAssignment, levels: &[Level]) -> Result<AssignmentRule, PolicyError> {
    let class = EvidenceClass::ALL.iter().copied().find(|class| class.word() == raw.evidence);
    let evidence = class.ok_or_else(|| {
        let words: Vec<_> = EvidenceClass::ALL.iter().map(|class| class.word()).collect();
        wrong(&format!("{key}.evidence"), &format!("one of {}", words.join(", ")))
    })?;
    if !(1..=MAX_PHASES).contains(&raw.phases.len()) {
        return Err(wrong(&format!("{key}.phases"), &format!("1 to {MAX_PHASES}")));
    }
    let check = |(n, phase): (usize, &RawPhase)| check_phase(&format!("{key}.phases.{n}"), phase, levels);
    let phases = raw.phases.iter().enumerate().map(check).collect::<Result<_, _>>()?;
    let waived = raw.waived_by_negative_test_within;
    let waived = waived
        .map(|age| check_duration(&format!("{key}.waived_by_negative_test_within"), age, HOUR, DAY * 30))
        .transpose()?;
    Ok(AssignmentRule {
        evidence,
        phases,
        lifted_by_negative_test: raw.lifted_by_negative_test,
        waived_by_negative_test_within: waived,
    })
}

fn check_phase(key: &str, raw: &RawPhase, levels: &[Level]) -> Result<Phase, PolicyError> {
    let words = format!("{key}.as");
    let mut meanings = Vec::new();
    for word in &raw.meanings {
        match check_meaning(&words, word)? {
            Meaning::Level(Level::Green) => return Err(wrong(&words, "green follows from no rule")),
            Meaning::Level(level) if !levels.contains(&level) => {
                return Err(wrong(&words, &format!("{level} is not one of the rule's levels")));
            }
            meaning if meanings.contains(&meaning) => return Err(wrong(&words, &format!("{word} is there twice"))),
            meaning => meanings.push(meaning),
        }
    }
    if meanings.is_empty() {
        return Err(wrong(&words, "one at least of yellow, red and undetermined"));
    }
    Ok(Phase { meanings, lasts: check_duration(&format!("{key}.lasts"), raw.lasts, HOUR, DAY * 366)? })
}

fn check_answers(raw: RawAnswers) -> Result<Answers, PolicyError> {
    let check = |key: &str, raw: RawAdvice, may_pass: bool| {
        let key = format!("answers.{key}");
        let decision = raw.decision.parse().map_err(|_| wrong(&key, "the decision is pass, assist or stop"))?;
        if decision == Decision::Pass && !may_pass {
            return Err(wrong(&key, "only a green may pass"));
        }
        Ok(Advice { decision, text: Text { zh: raw.zh, en: raw.en } })
    };
    Ok(Answers {
        green: check("green", raw.green, true)?,
        yellow: check("yellow", raw.yellow, false)?,
        red: check("red", raw.red, false)?,
        unknown: check("unknown", raw.unknown, false)?,
        undetermined: check("undetermined", raw.undetermined, false)?,
        unsubstantiated: check("unsubstantiated", raw.unsubstantiated, false)?,
        unreachable: check("unreachable", raw.unreachable, false)?,
    })
}

impl From<RawText> for Text {
    fn from(raw: RawText) -> Self {
        Self { zh: raw.zh, en: raw.en }
    }
}
