//! For files at random: what [`Rules`] says is what a plain reading of the policy says, and nothing changes unannounced.

use std::time::Duration;

use proptest::{collection::vec, option, prelude::*, sample::select};
use proto::{
    policy::Judgement,
    statement::{LogHead, Status},
};

use super::*;

const MEMBERS: [&str; 9] = ["00", "11", "12", "41", "43", "44", "52", "64", "66"];
/// All that is dated at random begins in so many seconds, and ends in ten days more.
const BEGINS: i64 = 40 * DAY;
/// Long enough for everything to be over: 60 days is the longest life.
const HORIZON: i64 = BEGINS + 10 * DAY + 61 * DAY;

/// The national policy, and one that uses what it leaves out: phases of other meanings, lifted cases and stays, waived contacts.
static POLICIES: LazyLock<[Policy; 2]> = LazyLock::new(|| {
    let mut other = NATIONAL.to_owned();
    for (from, to) in [
        ("evidence = \"case\" ", "lifted_by_negative_test = true\nevidence = \"case\" "),
        ("evidence = \"contact\"", "waived_by_negative_test_within = \"30d\"\nevidence = \"contact\""),
        (
            "[{ as = [\"yellow\"], lasts = \"14d\" }]",
            "[{ as = [\"yellow\"], lasts = \"1h\" }, { as = [\"undetermined\"], lasts = \"59d\" }]\n\
             lifted_by_negative_test = true\nwaived_by_negative_test_within = \"1h\"",
        ),
    ] {
        assert!(other.contains(from), "{from}");
        other = other.replacen(from, to, 1);
    }
    [Policy::from_toml(NATIONAL).unwrap(), Policy::from_toml(&other).unwrap()]
});

/// An instant: to the second, or every six hours so that many are the same.
fn instant() -> impl Strategy<Value = i64> {
    prop_oneof![0..BEGINS, (0..BEGINS / (6 * HOUR)).prop_map(|n| n * 6 * HOUR)]
}

fn fact() -> impl Strategy<Value = (Fact, Option<Risk>)> {
    let span = || (instant(), 0..10 * DAY);
    let risk = option::weighted(0.9, select(vec![Risk::Low, Risk::Medium, Risk::High]));
    let tests = || (instant(), any::<bool>()).prop_map(|(sampled_at, positive)| (test(sampled_at, positive), None));
    prop_oneof![
        (span(), any::<bool>()).prop_map(|((since, life), over)| (case(since, over.then_some(since + life)), None)),
        instant().prop_map(|last_at| (contact(last_at), None)),
        (span(), risk).prop_map(|((entered_at, life), risk)| {
            let evidence = stay(0, entered_at, entered_at + life, risk);
            (evidence.fact, evidence.risk)
        }),
        tests(),
        tests(),
        instant().prop_map(|given_at| (Fact::Dose { number: 1, given_at: at(given_at) }, None)),
    ]
}

fn some_evidence() -> impl Strategy<Value = Vec<Evidence>> {
    // What is no authority is read as none.
    let authorities = ["00/cdc", "00/cdc", "00/cdc", "00/joint-mechanism", "00/health-commission", "00/tax", ""];
    let record = (fact(), select(authorities.to_vec()));
    vec(record, 0..8).prop_map(|records| {
        let numbered = records.into_iter().zip(1..);
        let evidence = numbered.map(|(((fact, risk), authority), id)| Evidence {
            id: EvidenceId(id),
            fact,
            risk,
            authority: authority.parse().ok(),
            received_at: at(0),
        });
        evidence.collect()
    })
}

/// A member, a policy, and a file.
fn situation() -> impl Strategy<Value = (Member, &'static Policy, Dossier)> {
    let labels = ["绿码", "未见异常", "黄码", "居家观察", "弹窗", "灰码", "红码", "集中观察", "紫码"];
    let base = (select(labels.to_vec()), 0..8_i64).prop_map(|(label, covers)| base(label, covers));
    (select(MEMBERS.to_vec()), 0..2_usize, option::weighted(0.4, base), some_evidence()).prop_map(
        |(member, policy, base, evidence)| (member.parse().unwrap(), &POLICIES[policy], Dossier { base, evidence }),
    )
}

/// Something that follows from evidence: rule, evidence, meanings, and when it ends.
type Found<'a> = (&'a str, &'a Evidence, &'a [Meaning], Option<u64>);

/// The policy read word by word, for one instant: no order, no short cuts, and no thought of when it changes.
fn plainly(member: Member, policy: &Policy, dossier: &Dossier, now: UnixTime) -> Outcome {
    let now = now.as_secs();
    let admitted = |evidence: &Evidence, rule: &str| {
        evidence.authority.as_ref().is_some_and(|authority| policy.may_invoke(rule, authority, member))
    };
    let negative = |since: u64| {
        let tests = dossier.evidence.iter().filter_map(move |evidence| match evidence.fact {
            // In both policies R-TEST alone is about tests.
            Fact::Test { sampled_at, positive: false } if admitted(evidence, "R-TEST") => Some(sampled_at.as_secs()),
            _ => None,
        });
        tests.filter(move |test| since <= *test && *test <= now)
    };
    let mut found = Vec::new();
    for (id, rule) in policy.assignments() {
        for evidence in &dossier.evidence {
            let Some((class, begin, end)) = interval(evidence) else { continue };
            let covered = dossier.base.as_ref().is_some_and(|base| evidence.id <= base.covers);
            if class != rule.evidence.word() || covered || !admitted(evidence, id) {
                continue;
            }
            let lifted = rule.lifted_by_negative_test && negative(begin + 1).next().is_some();
            let waives = |age: Duration| negative(begin).any(|test| now - test < age.as_secs());
            if lifted || rule.waived_by_negative_test_within.is_some_and(waives) {
                continue;
            }
            // Phases as intervals: the first one begins with the evidence, and none follows one that is open.
            let (mut from, mut until) = (begin, end);
            for phase in &rule.phases {
                until = until.map(|until| until + phase.lasts.as_secs());
                if from <= now && until.is_none_or(|until| now < until) {
                    found.push((id, evidence, &*phase.meanings, until));
                }
                let Some(next) = until else { break };
                from = next;
            }
        }
    }
    choose(member, policy, dossier, found)
}

/// The class of evidence, when it begins, and when it ends if it does.
fn interval(evidence: &Evidence) -> Option<(&'static str, u64, Option<u64>)> {
    let (class, begin, end) = match evidence.fact {
        Fact::Case { since, ended_at } => ("case", since, ended_at),
        Fact::Contact { last_at } => ("contact", last_at, Some(last_at)),
        Fact::Test { sampled_at, positive: true } => ("positive-test", sampled_at, Some(sampled_at)),
        Fact::Stay { entered_at, left_at, .. } => match evidence.risk?.word() {
            "high" => ("high-risk-stay", entered_at, Some(left_at)),
            "medium" => ("medium-risk-stay", entered_at, Some(left_at)),
            _ => ("low-risk-stay", entered_at, Some(left_at)),
        },
        Fact::Test { positive: false, .. } | Fact::Dose { .. } => return None,
    };
    Some((class, begin.as_secs(), end.map(UnixTime::as_secs)))
}

/// The strictest of what was found, weighed against the base.
fn choose(member: Member, policy: &Policy, dossier: &Dossier, found: Vec<Found<'_>>) -> Outcome {
    let severity = |meaning: Option<Meaning>| match meaning.map(|meaning| meaning.to_string()).as_deref() {
        Some("green") => 0,
        Some("yellow") => 2,
        Some("red") => 3,
        _ => 1,
    };
    let has_label = |meaning: &&Meaning| policy.labels_meaning(member, **meaning).next().is_some();
    let ranked = found.into_iter().map(|(id, evidence, meanings, until)| {
        let meaning = meanings.iter().find(has_label).copied();
        // The least of these is the one that counts.
        ((3 - severity(meaning), u64::MAX - until.unwrap_or(u64::MAX), id, evidence.id), meaning, evidence, until)
    });
    let first = ranked.min_by_key(|(rank, ..)| *rank);
    let floor = dossier.base.as_ref().map(|base| severity(policy.meaning(member, &base.label)));
    let green = || policy.label_for(member, Meaning::Level(Level::Green)).unwrap().to_owned();
    match (first, floor) {
        (Some(((mildness, ..), ..)), Some(floor)) if 3 - mildness <= floor => Outcome::Base,
        (None, Some(_)) => Outcome::Base,
        (Some((_, None, ..)), _) => Outcome::NoCode,
        (Some(((_, _, rule, id), Some(meaning), evidence, until)), _) => Outcome::Assigned(Assigned {
            label: policy.label_for(member, meaning).unwrap().into(),
            rule: Some(rule.into()),
            authority: evidence.authority.clone(),
            evidence: Some(id),
            ends_at: until.map(UnixTime::from_secs),
        }),
        (None, None) if dossier.evidence.iter().all(|evidence| evidence.authority.is_none()) => Outcome::NoCode,
        (None, None) => {
            Outcome::Assigned(Assigned { label: green(), rule: None, authority: None, evidence: None, ends_at: None })
        }
    }
}

/// The assessment of `from`, and of every instant that one of them named, in order.
fn chain(rules: Rules<'_>, dossier: &Dossier, from: UnixTime) -> Vec<(UnixTime, Assessment)> {
    let mut chain = vec![(from, rules.assess(dossier, from))];
    while let (now, Assessment { due_at: Some(due_at), .. }) = chain[chain.len() - 1] {
        assert!(due_at > now, "{due_at} has passed");
        assert!(chain.len() < 1_000, "it comes to no end");
        chain.push((due_at, rules.assess(dossier, due_at)));
    }
    chain
}

fn strictness_of(member: Member, policy: &Policy, dossier: &Dossier, outcome: &Outcome) -> Strictness {
    match outcome {
        Outcome::Base => strictness(policy.meaning(member, &dossier.base.as_ref().unwrap().label)),
        Outcome::Assigned(assigned) => strictness(policy.meaning(member, &assigned.label)),
        Outcome::NoCode => Strictness::Unclear,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn nothing_changes_unannounced_and_all_is_as_the_policy_says((member, policy, dossier) in situation()) {
        let chain = chain(Rules::new(member, policy), &dossier, at(-HOUR));
        prop_assert!(chain[chain.len() - 1].0 < at(HORIZON));
        let holds = |now: UnixTime| &chain[chain.partition_point(|(from, _)| *from <= now) - 1].1.outcome;
        // Every hour; and of each instant that was named the second before it, and itself.
        let named = chain[1..].iter().flat_map(|(due_at, _)| [due_at.minus(Duration::from_secs(1)), *due_at]);
        for now in (-HOUR..HORIZON).step_by(HOUR as usize).map(at).chain(named) {
            prop_assert_eq!(holds(now), &plainly(member, policy, &dossier, now), "at {}", now);
        }
    }

    #[test]
    fn neither_the_order_nor_an_earlier_look_changes_anything(
        (member, policy, mut dossier) in situation(), now in instant(), turn in any::<usize>(),
    ) {
        let rules = Rules::new(member, policy);
        let once = rules.assess(&dossier, at(now));
        prop_assert_eq!(&rules.assess(&dossier, at(now)), &once);
        let by = turn % dossier.evidence.len().max(1);
        dossier.evidence.rotate_left(by);
        prop_assert_eq!(&rules.assess(&dossier, at(now)), &once);
        dossier.evidence.reverse();
        prop_assert_eq!(&rules.assess(&dossier, at(now)), &once);
    }

    #[test]
    fn withdrawing_leaves_what_would_have_been_without(
        (member, policy, dossier) in situation(), now in instant(), which in any::<usize>(),
    ) {
        prop_assume!(!dossier.evidence.is_empty());
        let rules = Rules::new(member, policy);
        let with = rules.assess(&dossier, at(now)).outcome;
        let mut less = dossier.clone();
        let gone = less.evidence.remove(which % dossier.evidence.len());
        // Of whom nobody has said anything any more nothing is known: no code is not stricter than a green.
        prop_assume!(less.evidence.iter().any(|evidence| evidence.authority.is_some()));
        let without = rules.assess(&less, at(now)).outcome;
        prop_assert_eq!(&without, &plainly(member, policy, &less, at(now)));
        let [before, after] = [&with, &without].map(|outcome| strictness_of(member, policy, &dossier, outcome));
        if matches!(gone.fact, Fact::Test { positive: false, .. }) {
            prop_assert!(after >= before, "a negative test only ever makes it milder: {:?} {:?}", with, without);
            return Ok(());
        }
        prop_assert!(after <= before, "anything else only ever makes it stricter: {:?} {:?}", with, without);
        let follows_from_it = match &with {
            Outcome::Assigned(assigned) => assigned.evidence == Some(gone.id),
            Outcome::NoCode => true,
            Outcome::Base => false,
        };
        prop_assert!(follows_from_it || without == with, "it follows from another: {:?} {:?}", with, without);
    }

    #[test]
    fn what_follows_from_rules_is_never_unsubstantiated((member, policy, dossier) in situation(), now in instant()) {
        if let Outcome::Assigned(assigned) = Rules::new(member, policy).assess(&dossier, at(now)).outcome {
            let green = assigned.rule.is_none();
            let judged = policy.judge(&Status {
                issuer: member,
                issued_at: at(now),
                expires_at: at(now),
                token: [0; 16],
                head: LogHead { epoch: [0; 16], seq: 0 },
                label: assigned.label,
                rule: assigned.rule,
                authority: assigned.authority,
                assigned_at: None,
                tests: vec![],
                doses: vec![],
                visits: vec![],
                hint: None,
                offline_until: at(now),
            });
            prop_assert!(matches!(judged, Judgement::Status(_) | Judgement::Undetermined), "{:?}", judged);
            prop_assert_eq!(judged == Judgement::Status(Level::Green), green);
        }
    }
}
