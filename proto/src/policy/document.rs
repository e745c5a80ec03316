//! The policy's TOML: a raw document, then one pass of checks that makes it a [`Policy`]. Errors name the key.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;
use thiserror::Error;

use super::{AccessLogPolicy, Advice, Answers, Labels, Lives, Meaning, Policy, Quotas, Rule, Text};
use crate::{
    statement::{MAX_LABEL_BYTES, MAX_OFFLINE, MAX_RULE_BYTES},
    terms::{Category, Decision, Kind, Level, Purpose, Scope},
    venue::is_name,
};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const PROOF: Duration = Duration::from_secs(60);

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
    labels: BTreeMap<String, BTreeMap<String, String>>,
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
#[serde(deny_unknown_fields)]
struct RawRule {
    zh: String,
    en: String,
    levels: Vec<String>,
    authorities: Vec<String>,
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
    let mut labels = BTreeMap::new();
    let mut default_labels = None;
    for (member, table) in document.labels {
        let key = format!("labels.{member}");
        let table = check_labels(&key, table)?;
        if member == "default" {
            default_labels = Some(table);
        } else {
            let member = member.parse().map_err(|_| wrong(&key, "not a member's code"))?;
            labels.insert(member, table);
        }
    }
    let mut rules = BTreeMap::new();
    for (id, rule) in document.rules {
        let rule = check_rule(&id, rule, &document.authorities)?;
        rules.insert(id, rule);
    }
    Ok(Policy {
        name: document.name,
        lives,
        quotas,
        access_log,
        grants,
        default_labels: default_labels.ok_or_else(|| wrong("labels.default", "is missing"))?,
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
    let within = |key: &str, value: Duration, min: Duration, max: Duration| {
        let whole = value.subsec_nanos() == 0;
        let what = format!("{} to {} s, whole seconds", min.as_secs(), max.as_secs());
        if (min..=max).contains(&value) && whole { Ok(value) } else { Err(wrong(key, &what)) }
    };
    let month = DAY * 30;
    let policy = AccessLogPolicy {
        gateway_retention: within("access_log.gateway_retention", raw.gateway_retention, Duration::ZERO, month)?,
        home_retention: within("access_log.home_retention", raw.home_retention, DAY, DAY * 3660)?,
        visibility_delay: within("access_log.visibility_delay", raw.visibility_delay, Duration::ZERO, month)?,
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

fn check_labels(key: &str, table: BTreeMap<String, String>) -> Result<Labels, PolicyError> {
    let check = |(label, meaning): (String, String)| {
        let key = format!("{key}.{label}");
        if label.is_empty() || label.len() > MAX_LABEL_BYTES || label.chars().any(char::is_control) {
            return Err(wrong(&key, "a label is 1 to 48 bytes without control characters"));
        }
        let meaning = match meaning.as_str() {
            "undetermined" => Meaning::Undetermined,
            level => Meaning::Level(level.parse().map_err(|_| wrong(&key, "green, yellow, red or undetermined"))?),
        };
        Ok((label, meaning))
    };
    table.into_iter().map(check).collect()
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
    Ok(Rule { text: Text { zh: raw.zh, en: raw.en }, levels, authorities: raw.authorities })
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
