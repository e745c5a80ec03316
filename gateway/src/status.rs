//! How the gateway and its members are: what the private listener answers to `/status`, and `gateway status` prints. Counts
//! are the metrics' own; nobody is named but peers (I6).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use peer::{health::Impaired, metrics::Metrics, serve::Standing};
use proto::{
    envelope::{EXPIRY_ALARM, Edition},
    identity::Realm,
    member::Member,
    time::{CLOCK_LEEWAY, UnixTime},
    trust,
};
use serde::{Deserialize, Serialize};

use crate::{
    board::{Board, Notice},
    record::{Reader, Space},
    route::Routes,
    unsubstantiated::{MAX_TRAVELERS, NONE, OTHER, Tally, Unsubstantiated},
};

/// From how full a member's room for undelivered records is an alarm, in percent.
const FULL_ALARM: u64 = 50;

/// From when before its end a certificate's age is an alarm. Leaves live 30 days.
const CERTIFICATE_ALARM: Duration = Duration::from_secs(7 * 24 * 3600);

/// How the gateway and its members are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Which replica this is.
    pub id: String,
    /// Its software and version.
    pub software: String,
    /// When it was asked, by its own clock.
    pub time: String,
    /// How long it has run, in seconds.
    pub running_seconds: u64,
    /// Its certificate.
    pub certificate: Option<Ends>,
    /// The trust list it holds.
    pub trust_list: Document,
    /// The policy it holds.
    pub policy: Document,
    /// The members, by code.
    pub members: Vec<MemberReport>,
    /// Answers since the start, by outcome.
    pub outcomes: BTreeMap<String, u64>,
    /// Refusals since the start, by reason.
    pub refusals: BTreeMap<String, u64>,
    /// Assignments that the policy does not admit, by home member and authority, as far as there were any.
    #[serde(default)]
    pub unsubstantiated: Vec<UnsubstantiatedReport>,
    /// What somebody should look after; empty if all is well.
    pub problems: Vec<String>,
}

/// A signed document that is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// Its version.
    pub version: u64,
    /// Its end.
    #[serde(flatten)]
    pub ends: Ends,
}

/// When something ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ends {
    /// The instant, RFC 3339.
    pub expire_time: String,
    /// Seconds until then; 0 if it has passed.
    pub seconds_left: u64,
}

/// How one member's nodes answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberReport {
    /// Its code.
    pub code: String,
    /// Its name, in English.
    pub name: String,
    /// What its health code is called.
    pub health_code: String,
    /// `serving`, `unreachable`, `suspended`, or `unknown` before it was asked.
    pub health: String,
    /// The node's software, as it says itself.
    pub software: String,
    /// The version of the trust list the node holds.
    pub trust_list_version: u64,
    /// The version of the policy the node holds.
    pub policy_version: u64,
    /// How long ago it last answered, in seconds.
    pub seen_seconds_ago: Option<u64>,
    /// How far its clock is ahead, in seconds.
    pub clock_offset_seconds: i64,
    /// The certificate its node showed at the latest handshake: of several nodes, the one that ends first.
    pub certificate: Option<Ends>,
    /// Why and until when it is suspended, if it is.
    pub suspension: Option<Suspension>,
}

/// A suspension in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspension {
    /// Why, as the trust list says.
    pub reason: String,
    /// Its end.
    #[serde(flatten)]
    pub ends: Ends,
}

/// Assignments of one authority that the policy does not admit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnsubstantiatedReport {
    /// The travelers' home member, by its code.
    pub member: String,
    /// The member's name, in English.
    pub name: String,
    /// The authority, e.g. `41/finance-office`; `none` if the statements name none, `other` for all that are not told apart.
    pub authority: String,
    /// Answers since the start.
    pub answers: u64,
    /// Travelers in the window.
    pub travelers: u64,
    /// Whether there may be more of them, because they are no longer told apart.
    pub at_least: bool,
    /// How many travelers in a window are usual, rounded.
    pub usual_travelers: u64,
    /// How long the window is, in seconds.
    pub window_seconds: u64,
    /// Since when there is an alarm, RFC 3339, if there is one.
    pub alarm_since: Option<String>,
}

/// What a report is made of.
#[derive(Debug)]
pub(crate) struct Reporter {
    pub(crate) standing: Standing,
    pub(crate) routes: Arc<Routes>,
    pub(crate) board: Arc<Board>,
    pub(crate) metrics: Metrics,
    pub(crate) impaired: Impaired,
    pub(crate) logs: Reader,
    pub(crate) space: Arc<Space>,
    pub(crate) unsubstantiated: Arc<Unsubstantiated>,
    pub(crate) started: UnixTime,
}

impl Reporter {
    /// How things are now, as JSON.
    pub(crate) fn to_json(&self) -> String {
        // Numbers, strings and lists of them: what cannot fail to be JSON.
        serde_json::to_string(&self.report()).unwrap_or_default()
    }

    /// How things are now.
    pub(crate) fn report(&self) -> Report {
        let (trust, now) = (self.standing.trust.current(), self.standing.trust.clock().now());
        let describe = |member: &Member| {
            let certificate = self.routes.to(*member).and_then(|home| home.client.certificate_expires_at());
            let suspension = trust.list.suspension(Realm::Member(*member), now);
            describe(*member, self.board.notice(*member), certificate, suspension, now)
        };
        let (tallies, window) = (self.unsubstantiated.tallies(now), self.unsubstantiated.window());
        let mut report = Report {
            id: self.standing.credentials.id().to_string(),
            software: concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")).to_owned(),
            time: now.to_string(),
            running_seconds: now.since(self.started),
            certificate: self.standing.credentials.expires_at().map(|end| Ends::at(end, now)),
            trust_list: Document::held(&trust.list_edition, now),
            policy: Document::held(&trust.policy_edition, now),
            members: trust.list.members.keys().map(describe).collect(),
            outcomes: self.metrics.counts("gateway_exchanges_total", "outcome"),
            refusals: self.metrics.counts("gateway_refusals_total", "reason"),
            unsubstantiated: tallies.into_iter().map(|tally| UnsubstantiatedReport::of(tally, window)).collect(),
            problems: Vec::new(),
        };
        if self.impaired.is_set() {
            report.problems.push("the access record cannot be written: there are no answers".into());
        }
        if !self.logs.is_listed(&trust.list) {
            report.problems.push("the trust list has not the key of these access logs: there are no answers".into());
        }
        let disputes: u64 =
            self.metrics.counts("gateway_deliveries_total", "outcome").get("dispute").copied().unwrap_or(0);
        if disputes > 0 {
            report
                .problems
                .push(format!("deliveries of access records that were disputed: {disputes}; the log says why"));
        }
        for member in trust.list.members.keys() {
            let filled = self.space.percent(*member);
            if filled >= FULL_ALARM {
                report.problems.push(format!("{member}: undelivered access records fill {filled} % of their room"));
            }
        }
        if let Some(out) = trust.list.suspension(Realm::Gateway, now) {
            report.problems.push(format!("the gateway is suspended until {}: {}", out.ends_at(), out.reason()));
        }
        report.find_problems();
        report
    }
}

impl Report {
    fn find_problems(&mut self) {
        let mut problems = Vec::new();
        for (what, document) in [("the trust list", &self.trust_list), ("the policy", &self.policy)] {
            problems.extend(document.ends.problem(what, EXPIRY_ALARM));
        }
        problems.extend(self.certificate.as_ref().and_then(|ends| ends.problem("the certificate", CERTIFICATE_ALARM)));
        for member in &self.members {
            let of_member = member.problems(&self.trust_list, &self.policy);
            problems.extend(of_member.into_iter().map(|problem| format!("{} {}: {problem}", member.code, member.name)));
        }
        problems.extend(self.unsubstantiated.iter().filter_map(UnsubstantiatedReport::problem));
        self.problems.append(&mut problems);
    }
}

impl MemberReport {
    fn problems(&self, trust_list: &Document, policy: &Document) -> Vec<String> {
        let mut problems = Vec::new();
        if self.suspension.is_some() {
            // Somebody means it to be so.
            return problems;
        }
        if self.health != SERVING {
            problems.push(self.health.clone());
        } else {
            let held = [
                ("trust list", self.trust_list_version, trust_list.version),
                ("policy", self.policy_version, policy.version),
            ];
            let differing = held.into_iter().filter(|(_, its, ours)| its != ours);
            problems.extend(differing.map(|(what, its, ours)| format!("holds {what} {its}, the gateway {ours}")));
            if self.clock_offset_seconds.unsigned_abs() > CLOCK_LEEWAY.as_secs() {
                problems.push(format!("its clock is {:+} s off", self.clock_offset_seconds));
            }
        }
        problems.extend(self.certificate.as_ref().and_then(|ends| ends.problem("its certificate", CERTIFICATE_ALARM)));
        problems
    }
}

impl UnsubstantiatedReport {
    fn of(tally: Tally, window: Duration) -> Self {
        Self {
            member: tally.home.to_string(),
            name: tally.home.profile().name_en.to_owned(),
            authority: tally.authority,
            answers: tally.answers,
            travelers: tally.travelers,
            at_least: tally.travelers >= MAX_TRAVELERS as u64,
            usual_travelers: tally.usual,
            window_seconds: window.as_secs(),
            alarm_since: tally.alarm_since.map(|since| since.to_string()),
        }
    }

    /// Whose assignments they are, and how many travelers have one.
    pub fn summary(&self) -> String {
        let Self { member, name, travelers, usual_travelers, .. } = self;
        let by = match self.authority.as_str() {
            NONE => "no authority",
            OTHER => "other authorities",
            authority => authority,
        };
        let at_least = if self.at_least { "at least " } else { "" };
        let window = humantime_serde::re::humantime::format_duration(Duration::from_secs(self.window_seconds));
        format!("{member} {name} by {by}: {at_least}{travelers} travelers in {window}, usually {usual_travelers}")
    }

    fn problem(&self) -> Option<String> {
        let since = self.alarm_since.as_ref()?;
        Some(format!("unsubstantiated assignments jumped at {since}: {}", self.summary()))
    }
}

impl Document {
    fn held(edition: &Edition, now: UnixTime) -> Self {
        Self { version: edition.version, ends: Ends::at(edition.expires_at, now) }
    }
}

impl Ends {
    fn at(end: UnixTime, now: UnixTime) -> Self {
        Self { expire_time: end.to_string(), seconds_left: end.since(now) }
    }

    fn problem(&self, what: &str, alarm: Duration) -> Option<String> {
        match self.seconds_left {
            0 => Some(format!("{what} expired at {}", self.expire_time)),
            left if left <= alarm.as_secs() => Some(format!("{what} expires at {}", self.expire_time)),
            _ => None,
        }
    }
}

const SERVING: &str = "serving";

fn describe(
    member: Member,
    notice: Notice,
    certificate: Option<UnixTime>,
    suspension: Option<&trust::Suspension>,
    now: UnixTime,
) -> MemberReport {
    let profile = member.profile();
    let health = match (suspension, notice.serving) {
        (Some(_), _) => "suspended",
        (None, None) => "unknown",
        (None, Some(true)) => SERVING,
        (None, Some(false)) => "unreachable",
    };
    MemberReport {
        code: member.to_string(),
        name: profile.name_en.to_owned(),
        health_code: profile.health_code_zh.to_owned(),
        health: health.to_owned(),
        software: notice.software,
        trust_list_version: notice.trust_list_version,
        policy_version: notice.policy_version,
        seen_seconds_ago: notice.last_answer.map(|answer| now.since(answer)),
        clock_offset_seconds: notice.clock_offset,
        certificate: certificate.map(|end| Ends::at(end, now)),
        suspension: suspension
            .map(|out| Suspension { reason: out.reason().to_owned(), ends: Ends::at(out.ends_at(), now) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn report(change: impl FnOnce(&mut Notice), certificate: Duration, documents: Duration) -> Report {
        let mut notice = Notice {
            serving: Some(true),
            last_answer: Some(NOW.minus(Duration::from_secs(3))),
            software: "node/1".into(),
            trust_list_version: 2,
            policy_version: 1,
            clock_offset: 0,
        };
        change(&mut notice);
        let edition = |version| Edition { version, issued_at: NOW, expires_at: NOW.plus(documents) };
        let mut report = Report {
            id: "gateway/replica/1".into(),
            software: "gateway/1".into(),
            time: NOW.to_string(),
            running_seconds: 1,
            certificate: Some(Ends::at(NOW.plus(certificate), NOW)),
            trust_list: Document::held(&edition(2), NOW),
            policy: Document::held(&edition(1), NOW),
            members: vec![describe(Member::PLATFORM, notice, Some(NOW.plus(certificate)), None, NOW)],
            outcomes: BTreeMap::new(),
            refusals: BTreeMap::new(),
            unsubstantiated: Vec::new(),
            problems: Vec::new(),
        };
        report.find_problems();
        report
    }

    #[test]
    fn all_is_well_or_it_is_said_what_is_not() {
        assert!(report(|_| {}, 29 * DAY, 6 * DAY).problems.is_empty());
        type Change = fn(&mut Notice);
        let notices: [(Change, &str); 5] = [
            (|notice| notice.serving = None, "unknown"),
            (|notice| notice.serving = Some(false), "unreachable"),
            (|notice| notice.trust_list_version = 1, "holds trust list 1, the gateway 2"),
            (|notice| notice.policy_version = 3, "holds policy 3, the gateway 1"),
            (|notice| notice.clock_offset = -31, "its clock is -31 s off"),
        ];
        for (change, said) in notices {
            let problems = report(change, 29 * DAY, 6 * DAY).problems;
            assert_eq!(problems, [format!("00 National Platform: {said}")]);
        }
        let ages = [(7 * DAY, 6 * DAY, 2), (29 * DAY, 2 * DAY, 2), (Duration::ZERO, Duration::ZERO, 4)];
        for (certificate, documents, count) in ages {
            let problems = report(|_| {}, certificate, documents).problems;
            assert_eq!(problems.len(), count, "{problems:?}");
        }
    }

    #[test]
    fn a_suspension_is_shown_and_is_no_problem() {
        let out = trust::Suspension::new("drill", NOW, NOW.plus(DAY)).unwrap();
        let notice = Notice { serving: Some(false), ..Notice::default() };
        let member = describe(Member::PLATFORM, notice, None, Some(&out), NOW);
        assert_eq!(member.health, "suspended");
        let shown = member.suspension.as_ref().map(|out| (out.reason.as_str(), out.ends.seconds_left));
        assert_eq!(shown, Some(("drill", DAY.as_secs())));
        let documents = report(|_| {}, DAY, DAY);
        assert!(member.problems(&documents.trust_list, &documents.policy).is_empty());
    }

    fn unsubstantiated(authority: &str, travelers: u64, alarm_since: Option<UnixTime>) -> UnsubstantiatedReport {
        let authority = authority.to_owned();
        let tally = Tally { home: Member::PLATFORM, authority, answers: 99, travelers, usual: 2, alarm_since };
        UnsubstantiatedReport::of(tally, Duration::from_secs(600))
    }

    #[test]
    fn an_alarm_for_an_authority_is_a_problem_and_its_counts_are_none() {
        let mut all = report(|_| {}, 29 * DAY, 6 * DAY);
        all.unsubstantiated = vec![
            unsubstantiated("00/finance-office", 21, Some(NOW)),
            unsubstantiated("none", 19, None),
            unsubstantiated("other", 4096, Some(NOW)),
        ];
        all.find_problems();
        let jumped = format!("unsubstantiated assignments jumped at {NOW}: 00 National Platform by");
        let problems = [
            format!("{jumped} 00/finance-office: 21 travelers in 10m, usually 2"),
            format!("{jumped} other authorities: at least 4096 travelers in 10m, usually 2"),
        ];
        assert_eq!(all.problems, problems);
        let of_nobody = all.unsubstantiated[1].summary();
        assert_eq!(of_nobody, "00 National Platform by no authority: 19 travelers in 10m, usually 2");
    }

    #[test]
    fn a_report_survives_its_json() {
        let mut report = report(|_| {}, DAY, DAY);
        report.unsubstantiated = vec![unsubstantiated("none", 19, None), unsubstantiated("other", 20, Some(NOW))];
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    }
}
