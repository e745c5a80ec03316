//! Each rule, member and boundary by name; [`properties`] holds all of it to a plainer reading of the policy.

mod properties;

use std::sync::LazyLock;

use proto::policy::NATIONAL;

use super::*;
use crate::evidence::EvidenceId;

const SECOND: i64 = 1;
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

static POLICY: LazyLock<Policy> = LazyLock::new(|| Policy::from_toml(NATIONAL).unwrap());

/// So many seconds from where the tests begin.
fn at(seconds: i64) -> UnixTime {
    UnixTime::from_secs(1_800_000_000_u64.strict_add_signed(seconds))
}

fn evidence(id: i64, fact: Fact) -> Evidence {
    Evidence { id: EvidenceId(id), fact, risk: None, authority: by("00/cdc"), received_at: at(0) }
}

fn by(authority: &str) -> Option<proto::statement::Authority> {
    Some(authority.parse().unwrap())
}

fn case(since: i64, ended_at: Option<i64>) -> Fact {
    Fact::Case { since: at(since), ended_at: ended_at.map(at) }
}

fn contact(last_at: i64) -> Fact {
    Fact::Contact { last_at: at(last_at) }
}

fn test(sampled_at: i64, positive: bool) -> Fact {
    Fact::Test { sampled_at: at(sampled_at), positive }
}

fn stay(id: i64, entered_at: i64, left_at: i64, risk: Option<Risk>) -> Evidence {
    let fact = Fact::Stay { area: 419_999, entered_at: at(entered_at), left_at: at(left_at) };
    Evidence { risk, ..evidence(id, fact) }
}

fn base(label: &str, covers: i64) -> Base {
    Base { label: label.into(), rule: None, authority: None, covers: EvidenceId(covers) }
}

fn file(evidence: &[Evidence]) -> Dossier {
    Dossier { base: None, evidence: evidence.into() }
}

fn assess(member: &str, dossier: &Dossier, seconds: i64) -> Assessment {
    Rules::new(member.parse().unwrap(), &POLICY).assess(dossier, at(seconds))
}

fn assigned(member: &str, dossier: &Dossier, seconds: i64) -> Assigned {
    match assess(member, dossier, seconds).outcome {
        Outcome::Assigned(assigned) => assigned,
        outcome => panic!("{outcome:?}"),
    }
}

/// The outcome in a word: the label, `base` or `none`.
fn word(member: &str, dossier: &Dossier, seconds: i64) -> String {
    match assess(member, dossier, seconds).outcome {
        Outcome::Base => "base".into(),
        Outcome::Assigned(assigned) => assigned.label,
        Outcome::NoCode => "none".into(),
    }
}

/// What it comes to from `start` on, each with its first second, as the assessments themselves say when to look again.
fn timeline(member: &str, dossier: &Dossier, start: i64) -> Vec<(i64, String)> {
    let mut line: Vec<(i64, String)> = Vec::new();
    let mut next = Some(start);
    while let Some(seconds) = next {
        let outcome = word(member, dossier, seconds);
        if line.last().is_none_or(|(_, last)| *last != outcome) {
            line.push((seconds, outcome));
        }
        let due = assess(member, dossier, seconds).due_at;
        next = due.map(|due| due.as_secs().cast_signed() - at(0).as_secs().cast_signed());
        if let Some(due) = next {
            assert!(due > seconds, "{due} is not after {seconds}");
            assert_eq!(word(member, dossier, due - SECOND), line.last().unwrap().1, "until {due}");
        }
    }
    line
}

fn assert_timeline(member: &str, dossier: &Dossier, start: i64, expected: &[(i64, &str)]) {
    let line = timeline(member, dossier, start);
    let line: Vec<_> = line.iter().map(|(seconds, word)| (*seconds, word.as_str())).collect();
    assert_eq!(line, expected, "{member} {:?}", dossier.evidence);
}

#[test]
fn each_rule_in_its_time() {
    // Each begins at 0; an hour before that it is on file already, and nothing follows yet.
    for (evidence, then) in [
        (evidence(1, case(0, None)), &[(0, "红码")][..]),
        (evidence(1, case(0, Some(10 * DAY))), &[(0, "红码"), (24 * DAY, "绿码")]),
        (evidence(1, case(0, Some(0))), &[(0, "红码"), (14 * DAY, "绿码")]),
        (evidence(1, contact(0)), &[(0, "红码"), (14 * DAY, "黄码"), (21 * DAY, "绿码")]),
        (stay(1, 0, 2 * DAY, Some(Risk::High)), &[(0, "红码"), (16 * DAY, "绿码")]),
        (stay(1, 0, 2 * DAY, Some(Risk::Medium)), &[(0, "黄码"), (16 * DAY, "绿码")]),
        (stay(1, 0, 2 * DAY, Some(Risk::Low)), &[(0, "黄码"), (9 * DAY, "绿码")]),
        (evidence(1, test(0, true)), &[(0, "黄码"), (3 * DAY, "绿码")]),
        (stay(1, 0, 2 * DAY, None), &[]),
        (evidence(1, test(0, false)), &[]),
        (evidence(1, Fact::Dose { number: 1, given_at: at(0) }), &[]),
    ] {
        let expected = [&[(-HOUR, "绿码")], then].concat();
        assert_timeline("41", &file(&[evidence]), -HOUR, &expected);
    }
}

#[test]
fn it_says_which_rule_which_evidence_and_until_when() {
    let dossier = file(&[Evidence { authority: by("41/health-commission"), ..evidence(7, contact(0)) }]);
    let expected = |label: &str, ends_at| Assigned {
        label: label.into(),
        rule: Some("R-CONTACT".into()),
        authority: by("41/health-commission"),
        evidence: Some(EvidenceId(7)),
        ends_at: Some(at(ends_at)),
    };
    for (now, label, ends_at) in [
        (0, "红码", 14 * DAY),
        (14 * DAY - SECOND, "红码", 14 * DAY),
        (14 * DAY, "黄码", 21 * DAY),
        (21 * DAY - SECOND, "黄码", 21 * DAY),
    ] {
        let assessment = assess("41", &dossier, now);
        assert_eq!(assessment.outcome, Outcome::Assigned(expected(label, ends_at)), "{now}");
        assert_eq!(assessment.due_at, Some(at(ends_at)), "{now}");
    }
    let green = Assigned { label: "绿码".into(), rule: None, authority: None, evidence: None, ends_at: None };
    let over = Assessment { outcome: Outcome::Assigned(green), due_at: None };
    assert_eq!(assess("41", &dossier, 21 * DAY), over);
    let going_on = file(&[evidence(1, case(0, None))]);
    assert_eq!(assigned("41", &going_on, 900 * DAY).ends_at, None);
    assert_eq!(assess("41", &going_on, 900 * DAY).due_at, None);
}

#[test]
fn each_member_says_it_in_its_own_labels() {
    for (member, [high, medium, low, test_result, green]) in [
        ("00", ["红码", "黄码", "待核验", "黄码", "未见异常"]),
        ("11", ["集中观察", "居家观察", "弹窗", "居家观察", "未见异常"]),
        ("12", ["红码", "橙码", "橙码", "橙码", "绿码"]),
        ("13", ["红码", "黄码", "弹窗", "黄码", "绿码"]),
        ("41", ["红码", "黄码", "黄码", "黄码", "绿码"]),
        ("43", ["红码", "黄码", "蓝码", "黄码", "绿码"]),
        // Two colours: who should be yellow has no code, and no green.
        ("44", ["红码", "none", "none", "none", "绿码"]),
        ("52", ["红码", "黄码", "黄码", "黄码", "绿码"]),
        ("64", ["红码", "黄码", "灰码", "黄码", "绿码"]),
        ("66", ["红码", "黄码", "黄码", "黄码", "绿码"]),
    ] {
        let of = |risk| word(member, &file(&[stay(1, 0, DAY, risk)]), DAY);
        assert_eq!(
            [of(Some(Risk::High)), of(Some(Risk::Medium)), of(Some(Risk::Low))],
            [high, medium, low],
            "{member}"
        );
        assert_eq!(word(member, &file(&[evidence(1, test(0, true))]), 0), test_result, "{member}");
        assert_eq!(of(None), green, "{member}");
    }
    assert_timeline("44", &file(&[evidence(1, contact(0))]), 0, &[(0, "红码"), (14 * DAY, "none"), (21 * DAY, "绿码")]);
}

#[test]
fn of_whom_nothing_is_on_file_there_is_no_code() {
    assert_eq!(assess("41", &file(&[]), 0), Assessment { outcome: Outcome::NoCode, due_at: None });
}

#[test]
fn a_negative_test_lifts_what_was_sampled_before_it() {
    let with = |sampled_at| file(&[evidence(1, test(0, true)), evidence(2, test(sampled_at, false))]);
    assert_timeline("41", &with(DAY), 0, &[(0, "黄码"), (DAY, "绿码")]);
    assert_timeline("41", &with(SECOND), 0, &[(0, "黄码"), (SECOND, "绿码")]);
    for too_early in [0, -SECOND] {
        assert_timeline("41", &with(too_early), 0, &[(0, "黄码"), (3 * DAY, "绿码")]);
    }
    // Another positive one after it is evidence of its own.
    let mut again = with(DAY);
    again.evidence.push(evidence(3, test(2 * DAY, true)));
    let expected = [(0, "黄码"), (DAY, "绿码"), (2 * DAY, "黄码"), (5 * DAY, "绿码")];
    assert_timeline("41", &again, 0, &expected);
    // It lifts nothing that is not for a test to lift.
    for fact in [contact(0), case(0, None)] {
        assert_eq!(word("41", &file(&[evidence(1, fact), evidence(2, test(DAY, false))]), 2 * DAY), "红码");
    }
}

#[test]
fn a_waiver_ends_when_its_test_has_aged() {
    let with = |tests: &[i64]| {
        let tests = tests.iter().zip(2..).map(|(sampled_at, id)| evidence(id, test(*sampled_at, false)));
        file(&[stay(1, 0, DAY, Some(Risk::Low))].into_iter().chain(tests).collect::<Vec<_>>())
    };
    let until_the_end = |first: i64| [(0, "绿码"), (first, "黄码"), (8 * DAY, "绿码")];
    // Sampled when they came, and not a second earlier.
    assert_timeline("41", &with(&[0]), 0, &until_the_end(3 * DAY));
    assert_timeline("41", &with(&[-SECOND]), 0, &[(0, "黄码"), (8 * DAY, "绿码")]);
    // The latest counts, and a gap is a gap.
    assert_timeline("41", &with(&[0, 2 * DAY]), 0, &until_the_end(5 * DAY));
    let gap = [(0, "绿码"), (3 * DAY, "黄码"), (4 * DAY, "绿码"), (7 * DAY, "黄码"), (8 * DAY, "绿码")];
    assert_timeline("41", &with(&[0, 4 * DAY]), 0, &gap);
    // One that outlives the stay's own time leaves nothing to come back.
    assert_timeline("41", &with(&[6 * DAY]), 7 * DAY, &[(7 * DAY, "绿码")]);
    let assessment = assess("41", &with(&[0]), 3 * DAY - SECOND);
    assert_eq!(assessment.due_at, Some(at(3 * DAY)));
}

#[test]
fn only_whoever_may_invoke_the_rule_is_heard() {
    let case = |authority| file(&[Evidence { authority, ..evidence(1, case(0, None)) }]);
    for authority in [by("41/cdc"), by("00/health-commission")] {
        assert_eq!(word("41", &case(authority), 0), "红码");
    }
    for authority in [by("44/cdc"), by("41/joint-mechanism"), by("41/finance-office")] {
        assert_eq!(word("41", &case(authority), 0), "绿码");
    }
    assert_eq!(word("41", &case(None), 0), "none", "what was seeded is nobody's word, for a green either");
    for authority in [by("41/joint-mechanism"), by("44/cdc"), None] {
        let negative = Evidence { authority, ..evidence(2, test(DAY, false)) };
        assert_eq!(word("41", &file(&[evidence(1, test(0, true)), negative]), DAY), "黄码", "it lifts nothing");
    }
}

#[test]
fn what_is_set_stands_against_what_was_known_then_and_not_against_what_comes_later() {
    let against = |label: &str, evidence| Dossier { base: Some(base(label, 0)), evidence: vec![evidence] };
    for (label, id, fact, expected) in [
        ("绿码", -1, case(-DAY, None), "base"),
        ("绿码", 0, case(-DAY, None), "base"),
        ("绿码", 1, case(-DAY, None), "红码"),
        ("绿码", 1, test(0, true), "黄码"),
        ("绿码", 1, test(0, false), "base"),
        ("黄码", 1, test(0, true), "base"),
        ("黄码", 1, contact(0), "红码"),
        ("红码", 1, case(0, None), "base"),
        ("红码", 1, test(0, false), "base"),
        // What the policy has no label for is not clear, and yields to what is.
        ("紫码", 1, test(0, true), "黄码"),
        ("紫码", 1, test(0, false), "base"),
    ] {
        assert_eq!(word("41", &against(label, evidence(id, fact)), DAY), expected, "{label} {fact:?}");
    }
    // Equal is the base's: it comes back when the red is over, and stays.
    let yellow = against("黄码", evidence(1, contact(0)));
    assert_timeline("41", &yellow, 1, &[(1, "红码"), (14 * DAY, "base")]);
    let green = against("绿码", evidence(1, contact(0)));
    assert_timeline("41", &green, 1, &[(1, "红码"), (14 * DAY, "黄码"), (21 * DAY, "base")]);
    // No label for it is stricter than a green, and than nothing else.
    let medium = |label| against(label, stay(1, -DAY, 0, Some(Risk::Medium)));
    assert_eq!(word("44", &medium("绿码"), 1), "none");
    assert_eq!(word("44", &medium("红码"), 1), "base");
    assert_eq!(word("44", &medium("待定"), 1), "base");
}

#[test]
fn a_pushed_red_is_red_whoever_is_behind_it() {
    let pushed = Base { rule: Some("R-DEPOSITOR".into()), authority: by("41/finance-office"), ..base("红码", 0) };
    let test = evidence(1, test(0, true));
    let dossier = Dossier { base: Some(pushed), evidence: vec![test] };
    assert_eq!(word("41", &dossier, DAY), "base", "the gateway says that it is unsubstantiated");
}

#[test]
fn a_test_lifts_and_waives_whenever_it_came() {
    let early = evidence(-1, test(-HOUR, false));
    let positive = evidence(1, test(-DAY, true));
    let low = stay(1, -DAY, 0, Some(Risk::Low));
    for evidence in [positive, low] {
        let dossier = |evidence| Dossier { base: Some(base("绿码", 0)), evidence };
        assert_eq!(word("41", &dossier(vec![evidence.clone()]), HOUR), "黄码");
        assert_eq!(word("41", &dossier(vec![evidence, early.clone()]), HOUR), "base");
    }
}

#[test]
fn of_equals_the_one_that_ends_last_then_rule_and_number() {
    let why = |evidence: &[Evidence]| {
        let reversed: Vec<_> = evidence.iter().rev().cloned().collect();
        let chosen = assigned("41", &file(evidence), DAY);
        assert_eq!(assigned("41", &file(&reversed), DAY), chosen);
        (chosen.rule.unwrap(), chosen.evidence.unwrap().0)
    };
    let high = |id, left_at| stay(id, 0, left_at, Some(Risk::High));
    assert_eq!(why(&[evidence(1, contact(0)), high(2, HOUR)]), ("R-HIGH-AREA".into(), 2));
    assert_eq!(why(&[high(1, HOUR), high(2, 0), evidence(3, case(0, None))]), ("R-CASE".into(), 3));
    assert_eq!(why(&[high(1, 0), evidence(2, contact(0))]), ("R-CONTACT".into(), 2));
    assert_eq!(why(&[high(3, 0), high(2, 0)]), ("R-HIGH-AREA".into(), 2));
    // A red that ends sooner is stricter than a yellow that ends later.
    assert_eq!(why(&[high(1, 0), stay(2, 0, DAY, Some(Risk::Medium))]), ("R-HIGH-AREA".into(), 1));
}

#[test]
fn red_is_green_in_the_second_that_the_evidence_is_gone() {
    let mistaken = evidence(1, case(0, None));
    let other = evidence(2, test(-DAY, false));
    assert_eq!(word("41", &file(&[mistaken, other.clone()]), HOUR), "红码");
    assert_eq!(word("41", &file(&[other]), HOUR), "绿码");
    assert_eq!(word("41", &file(&[]), HOUR), "none");
}

#[test]
fn a_policy_that_assigns_nothing_makes_nobody_red() {
    let tables = NATIONAL.split("\n[").filter(|table| !table.split(']').next().unwrap().ends_with(".assigns"));
    let policy = Policy::from_toml(&tables.collect::<Vec<_>>().join("\n[")).unwrap();
    let dossier = file(&[evidence(1, case(0, None))]);
    let Assessment { outcome, due_at } = Rules::new("41".parse().unwrap(), &policy).assess(&dossier, at(0));
    assert!(matches!(outcome, Outcome::Assigned(green) if green.label == "绿码" && green.rule.is_none()));
    assert_eq!(due_at, None);
}
