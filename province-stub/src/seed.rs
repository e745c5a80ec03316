//! Seeded people: realistic for each member, the same every time, and nobody at all.
//!
//! Nobody's, because every ID number stands in the member's area `<code>9999`: GB/T 2260 gives no prefecture the number
//! 99, so no such number was ever issued; the check character is valid all the same. Names are put together from a list
//! made for this project.
//!
//! # Who has which code
//! By index, so that a tool can say where to find what; how many people there are changes nobody's code.
//!
//! | index | condition |
//! | --- | --- |
//! | 0 | green |
//! | 1 | yellow, where the member has a label for it, else green |
//! | 2 | red |
//! | 3 | undetermined, where the member has a label for it, else green |
//! | 4 | unsubstantiated: red by the rule `R-DEPOSITOR` of the authority `<code>/finance-office` |
//! | 5 | no code |
//! | 6 … | green, but for every 25th (yellow), every 60th (red), every 70th (undetermined) and every 90th (no code) |

mod names;

use std::time::Duration;

use jiff::{ToSpan as _, civil::Date};
use proto::{
    member::Member,
    policy::{Meaning, Policy},
    statement::{Authority, Dose, RiskVisit, TestResult},
    terms::Level,
    time::UnixTime,
};

use crate::{
    document::Document,
    store::{Code, Name, NewPerson},
};

/// The rule of the unsubstantiated red: Henan's depositors were turned red by it in June 2022. No policy has it.
pub const UNSUBSTANTIATED_RULE: &str = "R-DEPOSITOR";
/// The authority behind it. No policy has it either.
pub const UNSUBSTANTIATED_AUTHORITY: &str = "finance-office";

/// Birth dates lie in this many days from the first on: elders and children alike. A prime, so that strides reach all.
const FIRST_BIRTH: Date = jiff::civil::date(1931, 1, 1);
const BIRTH_DAYS: u64 = 33_599;
/// Days from one person's birth to the next one's.
const BIRTH_STRIDE: u64 = 7_919;
/// Sequence numbers of one area and birth date.
const SEQUENCES: u64 = 999;

const DAY: Duration = Duration::from_secs(24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);

/// Rules and kinds of authority that the national policy admits.
const RED_BY: [(&str, &str); 3] =
    [("R-CASE", "cdc"), ("R-HIGH-AREA", "joint-mechanism"), ("R-CONTACT", "health-commission")];
const YELLOW_BY: [(&str, &str); 3] =
    [("R-CONTACT", "cdc"), ("R-MEDIUM-AREA", "joint-mechanism"), ("R-TEST", "health-commission")];
const UNDETERMINED_BY: (&str, &str) = ("R-TEST", "cdc");

/// What a seeded person's code comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    /// A green.
    Green,
    /// A yellow, by an admissible rule and authority.
    Yellow,
    /// A red, by an admissible rule and authority.
    Red,
    /// A label without a level.
    Undetermined,
    /// A red that nothing in the policy supports.
    Unsubstantiated,
    /// No code.
    NoCode,
}

/// A person who is nobody.
#[derive(Clone, Debug)]
pub struct SeededPerson {
    /// Which one.
    pub index: u32,
    /// Their document.
    pub document: Document,
    /// Their name.
    pub name: Name,
    /// What their code comes to.
    pub condition: Condition,
    label: Option<String>,
    by: Option<(&'static str, Authority)>,
    dice: u64,
}

/// The first `count` seeded people of a member.
///
/// # Panics
/// Never: all that is put together here is valid, which the tests hold for every member.
pub fn people(member: Member, count: u32, policy: &Policy) -> Vec<SeededPerson> {
    (0..count).map(|index| person(member, index, policy)).collect()
}

/// Seeded people as the store takes them, with a past as of `now`.
pub fn records(people: &[SeededPerson], now: UnixTime) -> Vec<NewPerson> {
    people.iter().map(|person| person.record(now)).collect()
}

fn person(member: Member, index: u32, policy: &Policy) -> SeededPerson {
    let dice = mix(u64::from(member.number()) << 32 | u64::from(index));
    let labels = |meaning| policy.labels_meaning(member, meaning).collect::<Vec<_>>();
    let condition = match planned(index) {
        // Guangdong's two colours have no yellow, and few members have a label without a level.
        Condition::Yellow if labels(Meaning::Level(Level::Yellow)).is_empty() => Condition::Green,
        Condition::Undetermined if labels(Meaning::Undetermined).is_empty() => Condition::Green,
        planned => planned,
    };
    let labels = match condition {
        Condition::Green => labels(Meaning::Level(Level::Green)),
        Condition::Yellow => labels(Meaning::Level(Level::Yellow)),
        Condition::Red | Condition::Unsubstantiated => labels(Meaning::Level(Level::Red)),
        Condition::Undetermined => labels(Meaning::Undetermined),
        Condition::NoCode => Vec::new(),
    };
    let label = labels.get(dice as usize % labels.len().max(1)).map(|label| (*label).to_owned());
    let by = assigned_by(condition, dice).map(|(rule, kind)| {
        let authority = format!("{member}/{kind}").parse();
        (rule, authority.expect("a member's code and a lower-case word are an authority"))
    });
    let name = Name::new(&names::name(dice)).expect("listed names are short and plain");
    SeededPerson { index, document: document(member, index), name, condition, label, by, dice }
}

/// The table at the head of this file.
const fn planned(index: u32) -> Condition {
    match index {
        0 => Condition::Green,
        1 => Condition::Yellow,
        2 => Condition::Red,
        3 => Condition::Undetermined,
        4 => Condition::Unsubstantiated,
        5 => Condition::NoCode,
        _ if index.is_multiple_of(90) => Condition::NoCode,
        _ if index.is_multiple_of(70) => Condition::Undetermined,
        _ if index.is_multiple_of(60) => Condition::Red,
        _ if index.is_multiple_of(25) => Condition::Yellow,
        _ => Condition::Green,
    }
}

/// Greens have no rule: nothing restricts the person.
fn assigned_by(condition: Condition, dice: u64) -> Option<(&'static str, &'static str)> {
    let pick = |list: [_; 3]| list[(dice >> 24) as usize % 3];
    match condition {
        Condition::Green | Condition::NoCode => None,
        Condition::Yellow => Some(pick(YELLOW_BY)),
        Condition::Red => Some(pick(RED_BY)),
        Condition::Undetermined => Some(UNDETERMINED_BY),
        Condition::Unsubstantiated => Some((UNSUBSTANTIATED_RULE, UNSUBSTANTIATED_AUTHORITY)),
    }
}

/// A resident ID. The stride visits every birth date once before it comes back to the first, and then takes the next
/// sequence number: all numbers of a member are different.
fn document(member: Member, index: u32) -> Document {
    let round = u64::from(index) / BIRTH_DAYS;
    let day = u64::from(index) * BIRTH_STRIDE % BIRTH_DAYS;
    let birth = FIRST_BIRTH.saturating_add(day.cast_signed().days());
    let sequence = 1 + (mix(day) % SEQUENCES + round) % SEQUENCES;
    Document::resident_id(area(member), birth, sequence as u16)
        .expect("an area, a date and a sequence number are an ID")
}

/// The member's area that was never assigned, also where seeded people stayed.
fn area(member: Member) -> u32 {
    u32::from(member.number()) * 10_000 + 9_999
}

impl SeededPerson {
    /// Their label; whoever has no code has none.
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// By which rule and authority; a green has none.
    pub fn assigned_by(&self) -> Option<(&str, &Authority)> {
        self.by.as_ref().map(|(rule, authority)| (*rule, authority))
    }

    fn record(&self, now: UnixTime) -> NewPerson {
        let rule = self.by.as_ref().map(|(rule, _)| *rule);
        let ago = |unit: Duration, count: u64| now.minus(unit * u32::try_from(count).unwrap_or(u32::MAX));
        let code = self.label.clone().map(|label| Code {
            label,
            rule: rule.map(str::to_owned),
            authority: self.by.as_ref().map(|(_, authority)| authority.clone()),
            assigned_at: ago(HOUR, 2 + self.dice % 200),
        });
        NewPerson {
            document: self.document.clone(),
            name: self.name.clone(),
            code,
            tests: self.tests(rule, ago),
            doses: self.doses(ago),
            visits: self.visits(rule, ago),
        }
    }

    /// Three people in four were tested lately, up to five times; a case's last test was positive.
    fn tests(&self, rule: Option<&str>, ago: impl Fn(Duration, u64) -> UnixTime) -> Vec<TestResult> {
        let case = rule == Some("R-CASE");
        let count = if case { 3 } else { [0, 1, 2, 5][(self.dice >> 32) as usize % 4] };
        let test = |n: u64| TestResult { sampled_at: ago(HOUR, 5 + self.dice % 20 + 30 * n), positive: case && n == 0 };
        (0..count).map(test).collect()
    }

    /// None to three doses, half a year apart.
    fn doses(&self, ago: impl Fn(Duration, u64) -> UnixTime) -> Vec<Dose> {
        let count = (self.dice >> 40) % 4;
        let dose = |n: u64| Dose { number: n as u8, given_at: ago(DAY, 30 + self.dice % 90 + 180 * (count - n)) };
        (1..=count).map(dose).collect()
    }

    /// Whom a rule about an area made red or yellow, and a few others long ago.
    fn visits(&self, rule: Option<&str>, ago: impl Fn(Duration, u64) -> UnixTime) -> Vec<RiskVisit> {
        let area = self.document.number()[..6].parse().unwrap_or_default();
        match rule {
            Some("R-HIGH-AREA") => vec![RiskVisit { area, high: true, left_at: ago(DAY, 2) }],
            Some("R-MEDIUM-AREA") => vec![RiskVisit { area, high: false, left_at: ago(DAY, 3) }],
            _ if (self.dice >> 48).is_multiple_of(8) => {
                vec![RiskVisit { area, high: false, left_at: ago(DAY, 20 + self.dice % 30) }]
            }
            _ => Vec::new(),
        }
    }
}

/// SplitMix64: spreads a number over all 64 bits, the same every time.
const fn mix(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proto::{
        policy::{Judgement, NATIONAL},
        statement::{LogHead, Status},
    };

    use super::*;
    use crate::document::DocumentType;

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    fn policy() -> Policy {
        Policy::from_toml(NATIONAL).unwrap()
    }

    fn judge(policy: &Policy, member: Member, record: &NewPerson) -> Option<Judgement> {
        let code = record.code.clone()?;
        Some(policy.judge(&Status {
            issuer: member,
            issued_at: NOW,
            expires_at: NOW,
            token: [0; 16],
            head: LogHead { epoch: [0; 16], seq: 0 },
            label: code.label,
            rule: code.rule,
            authority: code.authority,
            assigned_at: None,
            tests: vec![],
            doses: vec![],
            visits: vec![],
            hint: None,
            offline_until: NOW,
        }))
    }

    #[test]
    fn nobody_can_be_meant() {
        let policy = policy();
        for member in Member::all() {
            let mut seen = BTreeSet::new();
            for person in people(member, 2_000, &policy) {
                let number = person.document.number();
                // `Document` checks the check character; 99 is no prefecture of GB/T 2260.
                assert!(Document::new(DocumentType::ResidentId, number).is_ok());
                assert!(number.starts_with(&format!("{member}9999")));
                assert!(seen.insert(number.to_owned()), "{member} {}", person.index);
                assert!(names::is_listed(person.name.as_str()));
            }
        }
    }

    #[test]
    fn numbers_stay_different_when_birth_dates_come_again() {
        let round = BIRTH_DAYS as u32;
        let member = Member::PLATFORM;
        let numbers: BTreeSet<_> = (0..5).map(|n| document(member, n * round + 7).number().to_owned()).collect();
        assert_eq!(numbers.len(), 5);
    }

    #[test]
    fn everybody_is_what_the_table_says() {
        let policy = policy();
        for member in Member::all() {
            let people = people(member, 300, &policy);
            for (person, record) in people.iter().zip(records(&people, NOW)) {
                let judged = judge(&policy, member, &record);
                let as_said = match person.condition {
                    Condition::Green => judged == Some(Judgement::Status(Level::Green)),
                    Condition::Yellow => judged == Some(Judgement::Status(Level::Yellow)),
                    Condition::Red => judged == Some(Judgement::Status(Level::Red)),
                    Condition::Undetermined => judged == Some(Judgement::Undetermined),
                    Condition::Unsubstantiated => matches!(judged, Some(Judgement::Unsubstantiated(Some(_)))),
                    Condition::NoCode => judged.is_none(),
                };
                assert!(as_said, "{member} {} {judged:?}", person.index);
            }
        }
    }

    #[test]
    fn a_dozen_have_every_condition_the_member_has() {
        for member in Member::all() {
            let conditions: Vec<_> = people(member, 12, &policy()).iter().map(|person| person.condition).collect();
            let has = |meaning| policy().labels_meaning(member, meaning).next().is_some();
            assert_eq!(conditions[0], Condition::Green);
            assert_eq!(conditions[1] == Condition::Yellow, has(Meaning::Level(Level::Yellow)), "{member}");
            assert_eq!(conditions[2], Condition::Red);
            assert_eq!(conditions[3] == Condition::Undetermined, has(Meaning::Undetermined), "{member}");
            assert_eq!(conditions[4..6], [Condition::Unsubstantiated, Condition::NoCode]);
            assert_eq!(conditions[6..], [Condition::Green; 6]);
        }
    }

    #[test]
    fn people_are_of_all_ages_and_mostly_green() {
        let people = people("44".parse().unwrap(), 1_000, &policy());
        let born = |years: std::ops::Range<u32>| {
            people.iter().filter(|p| years.contains(&p.document.number()[6..10].parse().unwrap())).count()
        };
        assert!(born(1931..1950) > 100 && born(2010..2023) > 50);
        assert_eq!(born(1931..2023), 1_000);
        let greens = people.iter().filter(|person| person.condition == Condition::Green).count();
        assert!(greens > 900, "{greens}");
    }

    #[test]
    fn many_have_evidence_and_no_more_than_a_past() {
        let people = people("41".parse().unwrap(), 400, &policy());
        let records = records(&people, NOW);
        assert!(records.iter().filter(|record| !record.tests.is_empty()).count() > 200);
        assert!(records.iter().filter(|record| record.doses.len() >= 2).count() > 100);
        assert!(records.iter().any(|record| !record.visits.is_empty()));
        assert!(records.iter().flat_map(|record| &record.tests).all(|test| test.sampled_at < NOW));
        assert!(records.iter().flat_map(|record| &record.doses).all(|dose| dose.given_at < NOW));
    }

    #[test]
    fn the_same_people_every_time() {
        let member = "44".parse().unwrap();
        let few = people(member, 20, &policy());
        let many = people(member, 200, &policy());
        assert!(few.iter().zip(&many).all(|(a, b)| a.document == b.document && a.name == b.name));
    }
}
