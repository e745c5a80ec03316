//! Records of evidence and pushed codes: each is checked by itself, so that one that is wrong holds up no other.

use proto::{
    contract::{
        assignment::PushedCode as WireCode,
        evidence::{EvidenceRecord, Person, evidence_record::Content as WireContent, person::Person as WirePerson},
    },
    refusal::Refusal,
    statement::{Authority, MAX_LABEL_BYTES, MAX_RULE_BYTES},
    time::UnixTime,
};

use super::{parse_document, parse_text};
use crate::{
    assignment::MAX_JUSTIFICATION_CHARS,
    evidence::{Content, Fact, Foreign, Listing, MAX_REVISION, PersonKey, Record, Risk},
    store::filing::{PushedCode, PushedLabel},
};

/// Six digits of GB/T 2260.
const AREAS: std::ops::RangeInclusive<u32> = 110_000..=999_999;

/// A record, refused in this order: its id, revision, content, person, authority.
pub(in crate::service) fn record(record: EvidenceRecord) -> Result<Record, Refusal> {
    let EvidenceRecord { record_id, revision, person, authority, content } = record;
    let id = foreign("record_id", &record_id)?;
    if revision > MAX_REVISION {
        return Err(Refusal::field("revision", "0 to 1,000,000"));
    }
    let content = match content.ok_or_else(|| Refusal::missing("content"))? {
        WireContent::Withdrawal(_) => {
            refuse_if_set("person", person.is_some())?;
            refuse_if_set("authority", !authority.is_empty())?;
            Content::Withdrawn
        }
        WireContent::RiskArea(area) => {
            let since = time("risk_area.start_time", area.start_time)?;
            let listing = Listing {
                area: county("risk_area.area", area.area)?,
                risk: risk(area.risk)?,
                since,
                until: end("risk_area.end_time", area.end_time, since)?,
            };
            refuse_if_set("person", person.is_some())?;
            Content::Listing { listing, authority: parse_authority(&authority)? }
        }
        about => {
            let fact = fact(about)?;
            Content::About { person: parse_person(person)?, fact, authority: parse_authority(&authority)? }
        }
    };
    Ok(Record { id, revision, content })
}

fn fact(content: WireContent) -> Result<Fact, Refusal> {
    match content {
        WireContent::Test(test) => {
            Ok(Fact::Test { sampled_at: time("test.sample_time", test.sample_time)?, positive: test.positive })
        }
        WireContent::Vaccination(dose) => {
            let number = u8::try_from(dose.dose).ok().filter(|number| (1..=9).contains(number));
            let number = number.ok_or_else(|| Refusal::field("vaccination.dose", "1 to 9"))?;
            Ok(Fact::Dose { number, given_at: time("vaccination.give_time", dose.give_time)? })
        }
        WireContent::Stay(stay) => {
            let (area, entered_at) = (county("stay.area", stay.area)?, time("stay.enter_time", stay.enter_time)?);
            let left_at = time("stay.leave_time", stay.leave_time)?;
            if left_at < entered_at {
                return Err(Refusal::field("stay.leave_time", "not before the person came"));
            }
            Ok(Fact::Stay { area, entered_at, left_at })
        }
        WireContent::Case(case) => {
            let since = time("case.start_time", case.start_time)?;
            Ok(Fact::Case { since, ended_at: end("case.end_time", case.end_time, since)? })
        }
        WireContent::Contact(contact) => {
            Ok(Fact::Contact { last_at: time("contact.contact_time", contact.contact_time)? })
        }
        WireContent::RiskArea(_) | WireContent::Withdrawal(_) => Err(Refusal::missing("content")),
    }
}

/// A pushed code, refused in the order of its fields.
pub(in crate::service) fn pushed(code: WireCode) -> Result<PushedCode, Refusal> {
    let WireCode { person_reference, label, rule, authority, assign_time, evidence } = code;
    let reference = foreign("person_reference", &person_reference)?;
    if label.is_empty() {
        for (field, set) in
            [("rule", !rule.is_empty()), ("authority", !authority.is_empty()), ("evidence", !evidence.is_empty())]
        {
            refuse_if_set(field, set)?;
        }
        return Ok(PushedCode { reference, code: None, assigned_at: time("assign_time", assign_time)? });
    }
    let label = parse_text("label", label, |label| label.len() <= MAX_LABEL_BYTES, "a label of at most 48 bytes")?;
    let rule = match rule.is_empty() {
        true => None,
        false => {
            Some(parse_text("rule", rule, |rule| rule.len() <= MAX_RULE_BYTES, "a rule's id of at most 32 bytes")?)
        }
    };
    let authority = match (authority.is_empty(), &rule) {
        (true, None) => None,
        (true, Some(_)) => return Err(Refusal::missing("authority")),
        (false, None) => return Err(Refusal::missing("rule")),
        (false, Some(_)) => Some(parse_authority(&authority)?),
    };
    let assigned_at = time("assign_time", assign_time)?;
    if evidence.chars().count() > MAX_JUSTIFICATION_CHARS || evidence.chars().any(char::is_control) {
        return Err(Refusal::field("evidence", "at most 256 characters, no control character"));
    }
    Ok(PushedCode { reference, code: Some(PushedLabel { label, rule, authority, basis: evidence }), assigned_at })
}

/// A name that another system gave to something of its own.
pub(in crate::service) fn foreign(field: &'static str, text: &str) -> Result<Foreign, Refusal> {
    if text.is_empty() {
        return Err(Refusal::missing(field));
    }
    Foreign::new(text).map_err(|error| Refusal::field(field, error))
}

fn parse_person(person: Option<Person>) -> Result<PersonKey, Refusal> {
    let named = person.and_then(|person| person.person).ok_or_else(|| Refusal::missing("person"))?;
    match named {
        WirePerson::Document(document) => Ok(PersonKey::Document(parse_document(Some(document))?)),
        WirePerson::Reference(reference) => Ok(PersonKey::Reference(foreign("person.reference", &reference)?)),
    }
}

fn parse_authority(text: &str) -> Result<Authority, Refusal> {
    if text.is_empty() {
        return Err(Refusal::missing("authority"));
    }
    text.parse().map_err(|error| Refusal::field("authority", error))
}

fn time(field: &'static str, time: Option<prost_types::Timestamp>) -> Result<UnixTime, Refusal> {
    let time = time.ok_or_else(|| Refusal::missing(field))?;
    UnixTime::from_protobuf(&time).ok_or_else(|| Refusal::field(field, "an instant of the years 1970 to 9999"))
}

/// An end that may be open, and is not before its beginning.
fn end(field: &'static str, end: Option<prost_types::Timestamp>, since: UnixTime) -> Result<Option<UnixTime>, Refusal> {
    let Some(end) = end else { return Ok(None) };
    let end = time(field, Some(end))?;
    if end < since { Err(Refusal::field(field, "not before it began")) } else { Ok(Some(end)) }
}

fn county(field: &'static str, area: u32) -> Result<u32, Refusal> {
    if AREAS.contains(&area) { Ok(area) } else { Err(Refusal::field(field, "six digits of GB/T 2260")) }
}

fn risk(number: i32) -> Result<Risk, Refusal> {
    let risk = u64::try_from(number).ok().and_then(Risk::from_number);
    risk.ok_or_else(|| Refusal::field("risk_area.risk", "low, medium or high"))
}

fn refuse_if_set(field: &'static str, set: bool) -> Result<(), Refusal> {
    if set { Err(Refusal::field(field, "is not said of this")) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
