//! How codes follow from evidence (赋码), as the policy says it: which evidence, which level, how long it lasts, who may invoke it.
//!
//! Upholds I8: one rule set for all members, as data in the signed policy, and each member says what follows in its own labels.
//! Here are only the rules; a home node works the codes out.

use std::time::Duration;

use super::{Meaning, Policy};
use crate::{member::Member, statement::Authority};

/// How a code follows from evidence of one class.
///
/// The clock of the phases starts when the evidence ends: the end of a case, the last contact, the departure from an area, the
/// sampling of a test. Until then the first phase holds, and a case without an end stays in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssignmentRule {
    /// What it is about.
    pub evidence: EvidenceClass,
    /// One after the other, 1 to 4; after the last one nothing follows from the evidence any more.
    pub phases: Vec<Phase>,
    /// Whether a negative test that was sampled after the evidence began ends it.
    pub lifted_by_negative_test: bool,
    /// 1 h to 30 d: it does not apply while a negative test that was sampled since the evidence began is younger than this.
    pub waived_by_negative_test_within: Option<Duration>,
}

/// A phase of an assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phase {
    /// What to assign, best first: the first that the member has a label for. Never green, never empty. A member that has none
    /// of them vouches for no code.
    pub meanings: Vec<Meaning>,
    /// How long: 1 h to 366 d, whole seconds.
    pub lasts: Duration,
}

/// A class of evidence that rules are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EvidenceClass {
    /// A case, confirmed or asymptomatic.
    Case,
    /// A close contact of a case.
    Contact,
    /// A stay in a high-risk area.
    HighRiskStay,
    /// A stay in a medium-risk area.
    MediumRiskStay,
    /// A stay in an area that is listed, and neither of the two.
    LowRiskStay,
    /// A positive nucleic-acid test.
    PositiveTest,
}

/// A kind of evidence as it is brought: what a negative test or an area's listing comes to depends on other evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EvidenceKind {
    /// A nucleic-acid test of either result.
    Test,
    /// A dose of a vaccine.
    Dose,
    /// A stay in an area of whatever risk.
    Stay,
    /// A case.
    Case,
    /// A close contact of a case.
    Contact,
    /// A listing of an area at risk.
    Listing,
}

impl EvidenceKind {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Test, Self::Dose, Self::Stay, Self::Case, Self::Contact, Self::Listing];

    /// The word for it, in configuration, files and messages.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Test => "test",
            Self::Dose => "vaccination",
            Self::Stay => "stay",
            Self::Case => "case",
            Self::Contact => "contact",
            Self::Listing => "risk-area",
        }
    }

    /// From its word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

/// How long evidence is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvidencePolicy {
    /// After it ended, 30 d to 3660 d; never shorter than anything may follow from it.
    pub retention: Duration,
}

impl AssignmentRule {
    /// How long after the evidence ended something may follow from it.
    pub(super) fn reach(&self) -> Duration {
        let phases = self.phases.iter().map(|phase| phase.lasts).sum::<Duration>();
        phases.max(self.waived_by_negative_test_within.unwrap_or_default())
    }
}

impl EvidenceClass {
    /// All of them.
    pub const ALL: &[Self] =
        &[Self::Case, Self::Contact, Self::HighRiskStay, Self::MediumRiskStay, Self::LowRiskStay, Self::PositiveTest];

    /// The word in the policy.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Case => "case",
            Self::Contact => "contact",
            Self::HighRiskStay => "high-risk-stay",
            Self::MediumRiskStay => "medium-risk-stay",
            Self::LowRiskStay => "low-risk-stay",
            Self::PositiveTest => "positive-test",
        }
    }

    const fn kind(self) -> EvidenceKind {
        match self {
            Self::Case => EvidenceKind::Case,
            Self::Contact => EvidenceKind::Contact,
            Self::HighRiskStay | Self::MediumRiskStay | Self::LowRiskStay => EvidenceKind::Stay,
            Self::PositiveTest => EvidenceKind::Test,
        }
    }
}

impl Policy {
    /// The rules by which codes follow from evidence, by id.
    pub fn assignments(&self) -> impl Iterator<Item = (&str, &AssignmentRule)> {
        self.rules.iter().filter_map(|(id, rule)| rule.assigns.as_ref().map(|assigns| (id.as_str(), assigns)))
    }

    /// Whether this authority may invoke this rule at this home: it is home's or the platform's, of a kind that the rule lists.
    pub fn may_invoke(&self, rule: &str, authority: &Authority, home: Member) -> bool {
        let rule = self.rules.get(rule);
        of_home(authority, home)
            && rule.is_some_and(|rule| rule.authorities.iter().any(|kind| kind == authority.kind()))
    }

    /// Whether evidence of this kind may be brought in this authority's name at this home: whoever may invoke a rule about it. Of
    /// doses, about which there are no rules, any kind that the policy lists. Nobody may bring what no rule asks for.
    pub fn admits_authority_for(&self, kind: EvidenceKind, home: Member, authority: &Authority) -> bool {
        let kind = match kind {
            EvidenceKind::Dose => return of_home(authority, home) && self.knows_authority(authority.kind()),
            EvidenceKind::Listing => EvidenceKind::Stay,
            kind => kind,
        };
        self.assignments().any(|(id, rule)| rule.evidence.kind() == kind && self.may_invoke(id, authority, home))
    }

    /// The label that a node of this member assigns when it means this: the member's one label for it, or of several the one
    /// that the policy chooses. `None` if the member has no such label, or the policy neither chooses nor assigns anything.
    pub fn label_for(&self, member: Member, meaning: Meaning) -> Option<&str> {
        if let Some(chosen) = self.labels_of(member).assigned.get(&meaning) {
            return Some(chosen);
        }
        let mut labels = self.labels_meaning(member, meaning);
        labels.next().filter(|_| labels.next().is_none())
    }
}

fn of_home(authority: &Authority, home: Member) -> bool {
    authority.member() == home || authority.member() == Member::PLATFORM
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{policy::NATIONAL, terms::Level};

    const GREEN: Meaning = Meaning::Level(Level::Green);
    const YELLOW: Meaning = Meaning::Level(Level::Yellow);
    const RED: Meaning = Meaning::Level(Level::Red);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn policy() -> Policy {
        Policy::from_toml(NATIONAL).unwrap()
    }

    fn swapped(from: &str, to: &str) -> String {
        assert!(NATIONAL.contains(from), "{from}");
        NATIONAL.replacen(from, to, 1)
    }

    /// The national policy as it was before rules assigned anything.
    fn without_assignments() -> String {
        let tables = NATIONAL.split("\n[").filter(|table| {
            let name = table.split(']').next().unwrap();
            !name.ends_with(".assigns") && !name.starts_with("assigned_labels") && name != "evidence"
        });
        tables.collect::<Vec<_>>().join("\n[")
    }

    #[test]
    fn the_national_rules_are_what_they_say() {
        let policy = policy();
        let of = |id: &str| policy.rule(id).unwrap().assigns.clone().unwrap();
        let phase = |meanings: &[Meaning], days| Phase { meanings: meanings.into(), lasts: DAY * days };
        for (id, evidence, phases) in [
            ("R-CASE", EvidenceClass::Case, vec![phase(&[RED], 14)]),
            ("R-CONTACT", EvidenceClass::Contact, vec![phase(&[RED], 14), phase(&[YELLOW], 7)]),
            ("R-HIGH-AREA", EvidenceClass::HighRiskStay, vec![phase(&[RED], 14)]),
            ("R-MEDIUM-AREA", EvidenceClass::MediumRiskStay, vec![phase(&[YELLOW], 14)]),
            ("R-LOW-AREA", EvidenceClass::LowRiskStay, vec![phase(&[Meaning::Undetermined, YELLOW], 7)]),
            ("R-TEST", EvidenceClass::PositiveTest, vec![phase(&[YELLOW, Meaning::Undetermined], 3)]),
        ] {
            let rule = of(id);
            assert_eq!((rule.evidence, &rule.phases), (evidence, &phases), "{id}");
            assert_eq!(rule.lifted_by_negative_test, id == "R-TEST");
            assert_eq!(rule.waived_by_negative_test_within, (id == "R-LOW-AREA").then_some(DAY * 3));
        }
        assert_eq!(policy.assignments().count(), EvidenceClass::ALL.len());
        assert_eq!(policy.evidence.retention, DAY * 180);
    }

    #[test]
    fn every_member_has_one_label_for_what_it_means() {
        let policy = policy();
        for member in Member::all() {
            let said = [GREEN, YELLOW, RED, Meaning::Undetermined].map(|meaning| policy.label_for(member, meaning));
            let expected = match member.to_string().as_str() {
                "00" => [Some("未见异常"), Some("黄码"), Some("红码"), Some("待核验")],
                "11" => [Some("未见异常"), Some("居家观察"), Some("集中观察"), Some("弹窗")],
                "12" => [Some("绿码"), Some("橙码"), Some("红码"), None],
                "13" => [Some("绿码"), Some("黄码"), Some("红码"), Some("弹窗")],
                "43" => [Some("绿码"), Some("黄码"), Some("红码"), Some("蓝码")],
                "44" => [Some("绿码"), None, Some("红码"), None],
                "64" => [Some("绿码"), Some("黄码"), Some("红码"), Some("灰码")],
                _ => [Some("绿码"), Some("黄码"), Some("红码"), None],
            };
            assert_eq!(said, expected, "{member}");
        }
    }

    #[test]
    fn a_label_may_be_chosen_where_there_is_no_choice() {
        let toml = swapped("[assigned_labels.00]", "[assigned_labels.default]\nred = \"红码\"\n[assigned_labels.00]");
        assert_eq!(Policy::from_toml(&toml).unwrap().label_for("31".parse().unwrap(), RED), Some("红码"));
    }

    #[test]
    fn a_policy_without_assignments_is_read_as_before() {
        let (before, now) = (Policy::from_toml(&without_assignments()).unwrap(), policy());
        assert_eq!(before.assignments().count(), 0);
        assert_eq!(before.evidence, now.evidence);
        assert!(before.may_invoke("R-CASE", &"44/cdc".parse().unwrap(), "44".parse().unwrap()));
        for member in Member::all() {
            for meaning in [GREEN, YELLOW, RED, Meaning::Undetermined] {
                let labels = |policy: &Policy| policy.labels_meaning(member, meaning).count();
                assert_eq!(labels(&before), labels(&now));
                // Nothing is chosen of several.
                let one = if labels(&before) == 1 { now.label_for(member, meaning) } else { None };
                assert_eq!(before.label_for(member, meaning), one, "{member} {meaning}");
            }
        }
    }

    #[test]
    fn who_may_invoke_what() {
        let policy = policy();
        let home = "44".parse().unwrap();
        for (rule, authority, may) in [
            ("R-CASE", "44/cdc", true),
            ("R-CASE", "00/health-commission", true),
            ("R-CASE", "44/joint-mechanism", false),
            ("R-CASE", "41/cdc", false),
            ("R-CASE", "44/finance-office", false),
            ("R-DEPOSITOR", "44/cdc", false),
            ("R-LOW-AREA", "44/joint-mechanism", true),
        ] {
            assert_eq!(policy.may_invoke(rule, &authority.parse().unwrap(), home), may, "{rule} {authority}");
        }
    }

    #[test]
    fn who_may_bring_what() {
        use EvidenceKind::{Case, Contact, Dose, Listing, Stay, Test};
        let (policy, home) = (policy(), "44".parse().unwrap());
        let kinds = |policy: &Policy, authority: &str| {
            let authority: Authority = authority.parse().unwrap();
            let admitted = |kind: &EvidenceKind| policy.admits_authority_for(*kind, home, &authority);
            [Test, Dose, Stay, Case, Contact, Listing].into_iter().filter(admitted).collect::<Vec<_>>()
        };
        assert_eq!(kinds(&policy, "44/cdc"), [Test, Dose, Stay, Case, Contact, Listing]);
        assert_eq!(kinds(&policy, "44/health-commission"), [Test, Dose, Case, Contact]);
        assert_eq!(kinds(&policy, "00/joint-mechanism"), [Dose, Stay, Listing]);
        assert_eq!(kinds(&policy, "44/finance-office"), []);
        assert_eq!(kinds(&policy, "41/cdc"), []);
        let before = Policy::from_toml(&without_assignments()).unwrap();
        assert_eq!(kinds(&before, "44/cdc"), [Dose]);
    }

    #[test]
    fn mistakes_are_named() {
        let phase = "[{ as = [\"red\"], lasts = \"14d\" }]";
        let in_phases = "rules.R-CASE.assigns.phases.0";
        for (from, to, named) in [
            ("evidence = \"case\"", "evidence = \"cases\"", "rules.R-CASE.assigns.evidence: one of case, contact"),
            ("evidence = \"case\"", "", "missing field `evidence`"),
            ("evidence = \"case\"", "evidence = \"case\"\nlast = \"1d\"", "unknown field `last`"),
            (phase, "[]", "rules.R-CASE.assigns.phases: 1 to 4"),
            (phase, &format!("[{}]", "{ as = [\"red\"], lasts = \"1h\" },".repeat(5)), "assigns.phases: 1 to 4"),
            (phase, "[{ as = [], lasts = \"14d\" }]", &format!("{in_phases}.as: one at least")),
            (phase, "[{ as = [\"green\"], lasts = \"14d\" }]", &format!("{in_phases}.as: green follows")),
            (phase, "[{ as = [\"yellow\"], lasts = \"14d\" }]", &format!("{in_phases}.as: yellow is not one")),
            (phase, "[{ as = [\"blue\"], lasts = \"14d\" }]", &format!("{in_phases}.as: green, yellow")),
            (phase, "[{ as = [\"red\", \"red\"], lasts = \"14d\" }]", &format!("{in_phases}.as: red is there twice")),
            (phase, "[{ as = [\"red\"], lasts = \"59m\" }]", &format!("{in_phases}.lasts: 3600 to")),
            (phase, "[{ as = [\"red\"], lasts = \"367d\" }]", &format!("{in_phases}.lasts: 3600 to")),
            (phase, "[{ as = [\"red\"], lasts = \"1h 1ms\" }]", &format!("{in_phases}.lasts: 3600 to")),
            (phase, "[{ as = [\"red\"], lasts = \"14\" }]", "lasts = \"14\""),
            (phase, "[{ as = [\"red\"] }]", "missing field `lasts`"),
            (phase, "[{ lasts = \"14d\" }]", "missing field `as`"),
            (phase, "[{ as = [\"red\"], lasts = \"14d\", then = 1 }]", "unknown field `then`"),
            (
                "within = \"72h\"",
                "within = \"59m\"",
                "rules.R-LOW-AREA.assigns.waived_by_negative_test_within: 3600 to",
            ),
            (
                "within = \"72h\"",
                "within = \"31d\"",
                "rules.R-LOW-AREA.assigns.waived_by_negative_test_within: 3600 to",
            ),
            ("\"positive-test\"\n", "\"contact\"\n", "rules.R-LOW-AREA.assigns: a negative test eases it"),
            ("retention = \"180d\"", "retention = \"29d\"", "evidence.retention: 2592000 to 316224000 s"),
            ("retention = \"180d\"", "retention = \"3661d\"", "evidence.retention: 2592000 to 316224000 s"),
            ("retention = \"180d\"", "keep = \"180d\"", "unknown field `keep`"),
            (
                phase,
                "[{ as = [\"red\"], lasts = \"180d\" }, { as = [\"red\"], lasts = \"1h\" }]",
                "evidence.retention: no less than 15555600 s, as long as rules.R-CASE",
            ),
            ("green = \"未见异常\"\n", "", "assigned_labels.00.green: is missing: one of 无异常, 未见异常"),
            ("yellow = \"黄码\" ", "", "assigned_labels.52.yellow: is missing: one of 橙码, 黄码"),
            ("yellow = \"黄码\" ", "yellow = \"红码\" ", "assigned_labels.52.yellow: 红码 does not mean it"),
            ("yellow = \"黄码\" ", "yellow = \"弹窗\" ", "assigned_labels.52.yellow: 弹窗 does not mean it"),
            ("yellow = \"黄码\" ", "orange = \"橙码\" ", "assigned_labels.52.orange: green, yellow, red or"),
            ("[assigned_labels.52]", "[assigned_labels.31]", "assigned_labels.52.yellow: is missing"),
            (
                "[assigned_labels.00]",
                "[assigned_labels.31]\n[assigned_labels.00]",
                "assigned_labels.31: is not in [labels]",
            ),
            ("[labels.default]", "[labels.default]\n\"青码\" = \"green\"", "assigned_labels.default.green: is missing"),
        ] {
            let error = Policy::from_toml(&swapped(from, to)).unwrap_err().to_string();
            assert!(error.contains(named), "{named} in {error}");
        }
    }

    #[test]
    fn the_bounds_are_inside() {
        for (from, to) in [
            ("lasts = \"3d\"", "lasts = \"1h\""),
            ("within = \"72h\"", "within = \"1h\""),
            ("within = \"72h\"", "within = \"30d\""),
            ("retention = \"180d\"", "retention = \"30d\""),
            ("retention = \"180d\"", "retention = \"3660d\""),
            ("[{ as = [\"red\"], lasts = \"14d\" }]", "[{ as = [\"red\"], lasts = \"180d\" }]"),
        ] {
            assert!(Policy::from_toml(&swapped(from, to)).is_ok(), "{to}");
        }
        let phases = format!("[{}]", "{ as = [\"red\"], lasts = \"366d\" },".repeat(4));
        let longest = swapped("[{ as = [\"red\"], lasts = \"14d\" }]", &phases);
        assert!(Policy::from_toml(&longest.replacen("retention = \"180d\"", "retention = \"1464d\"", 1)).is_ok());
    }
}
