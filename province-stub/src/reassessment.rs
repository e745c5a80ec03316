//! Codes change when time passes, too: whoever is due is assessed again at that instant, and by other rules everybody is.
//!
//! Upholds I4 with [`crate::lookup`], which never tells a code whose time is over, and ends every statement where time alone may
//! change what it says.

use std::time::Duration;

use proto::{policy::Policy, time::UnixTime};
use tracing::{Instrument as _, debug_span, info, warn};

use crate::{
    home::Home,
    rules::Rules,
    store::{
        PersonId, Store, StoreError,
        filing::{Effect, Reassessed},
    },
};

/// How often it is looked who is due, if nothing is known to be before.
pub const EVERY: Duration = Duration::from_secs(5);
/// How long after a commit of this node: others may follow it.
pub const AFTER_COMMIT: Duration = Duration::from_millis(200);
/// People of one transaction at most: a few milliseconds.
const AT_ONCE: u32 = 200;

/// How long after other rules came everybody is assessed by them: what was under way by the former ones is done by then.
const SETTLED_AFTER: Duration = Duration::from_secs(3);
/// A clock that goes back by more than this was wrong before, and codes may have ended by it that have not.
const BACK: Duration = Duration::from_secs(60);
/// Between two looks for areas that others are at.
const OTHERS: Duration = Duration::from_millis(100);

/// Where a node stands with working out everybody anew by other rules.
#[derive(Debug, Default)]
pub struct Progress {
    /// The edition of the policy that was looked at last, and the digest of its rules.
    seen: Option<(u64, u64)>,
    /// Whether everybody's code is by these rules; else from when on they are worked out, and who was last.
    pass: Option<(UnixTime, PersonId)>,
    latest: UnixTime,
}

impl Progress {
    /// Takes note of policy and time, and says the digest of the rules. Whoever has seen them change assesses everybody, whatever
    /// another node of this member has done: this one has gone by the former ones until now.
    async fn note<S: Store>(
        &mut self,
        home: &Home<S>,
        policy: &Policy,
        edition: u64,
        now: UnixTime,
    ) -> Result<u64, StoreError> {
        let digest = match self.seen {
            Some((seen, digest)) if seen == edition => digest,
            _ => policy.rules_digest(),
        };
        match self.seen {
            None if home.store.assessed_rules().await? != digest => self.pass = Some((now, PersonId(0))),
            Some((_, before)) if before != digest => self.pass = Some((now.plus(SETTLED_AFTER), PersonId(0))),
            _ if now.plus(BACK) < self.latest => {
                warn!("the clock went back: all codes are worked out anew");
                self.pass = Some((now, PersonId(0)));
                self.latest = now;
            }
            _ => {}
        }
        self.seen = Some((edition, digest));
        self.latest = self.latest.max(now);
        Ok(digest)
    }
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Some were assessed; there may be more.
    Done(Effect),
    /// There was nothing to do, and is nothing for so long, unless something is committed.
    Nothing(Duration),
}

/// Assesses some of those who are due, or else some of those who have not been assessed by the rules of this edition of the policy
/// yet. Says what followed, or that nothing was to be done.
pub async fn some<S: Store>(
    home: &Home<S>,
    policy: &Policy,
    edition: u64,
    progress: &mut Progress,
    now: UnixTime,
) -> Result<Step, StoreError> {
    let rules = Rules::new(home.member, policy);
    // A span for what is done, and none for having looked.
    let span = || debug_span!("reassess");
    let digest = progress.note(home, policy, edition, now).await?;
    let next_due = home.store.next_due().await?;
    if next_due.is_some_and(|due_at| due_at <= now) {
        let due = home.store.reassess_due(AT_ONCE, &rules, now, &*home.random);
        let Reassessed { people, effect } = due.instrument(span()).await?;
        return Ok(if people == 0 { Step::Nothing(OTHERS) } else { Step::Done(effect) });
    }
    let until_due = next_due.map_or(EVERY, |due_at| Duration::from_secs(due_at.since(now)).min(EVERY));
    let Some((from, after)) = progress.pass else { return Ok(Step::Nothing(until_due)) };
    if now < from {
        return Ok(Step::Nothing(until_due.min(SETTLED_AFTER)));
    }
    let following = home.store.reassess_following(after, AT_ONCE, &rules, now, &*home.random);
    let (reassessed, last) = following.instrument(span()).await?;
    progress.pass = last.map(|last| (from, last));
    if last.is_none() {
        home.store.set_assessed_rules(digest).await?;
        info!(edition, "all codes are by the rules of this edition of the policy");
    }
    Ok(Step::Done(reassessed.effect))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        evidence::{Content, Fact, Foreign, PersonKey, Record},
        store::filing::Intake,
        test_support::{Fixture, HOUR, NOW, member, seeded_document},
    };
    use proto::policy::NATIONAL;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    /// Whoever has had contact three days ago: red by the national rules.
    async fn contacts(fixture: &Fixture, count: u32) {
        let fact = Fact::Contact { last_at: NOW.minus(DAY * 3) };
        let record = |n: u32| Record {
            id: Foreign::new(&format!("contact-{n}")).unwrap(),
            revision: 0,
            content: Content::About {
                person: PersonKey::Document(seeded_document(100 + n)),
                fact,
                authority: "41/cdc".parse().unwrap(),
            },
        };
        let records: Vec<_> = (0..count).map(record).collect();
        let intake = Intake { source: "41/feed/cdc-1", records: &records, now: NOW, dry_run: false };
        let rules = Rules::new(member(), &fixture.policy);
        fixture.home.store.put_evidence(&intake, &rules, &*fixture.home.random).await.unwrap();
    }

    async fn label(fixture: &Fixture, n: u32) -> Option<String> {
        let person = fixture.home.store.person_by_document(&seeded_document(100 + n)).await.unwrap()?;
        Some(fixture.home.store.code_on_file(person).await.unwrap()?.code.label)
    }

    /// Does all that is to be done, and says in how many parts.
    async fn all(fixture: &Fixture, policy: &Policy, edition: u64, progress: &mut Progress, now: UnixTime) -> usize {
        let mut parts = 0;
        while let Step::Done(_) = some(&fixture.home, policy, edition, progress, now).await.unwrap() {
            parts += 1;
        }
        parts
    }

    fn policy(from: &str, to: &str) -> Policy {
        assert!(NATIONAL.contains(from), "{from}");
        Policy::from_toml(&NATIONAL.replacen(from, to, 1)).unwrap()
    }

    #[tokio::test]
    async fn other_rules_concern_everybody_once_and_other_lives_nobody() {
        const RED: &str = "phases = [{ as = [\"red\"], lasts = \"14d\" }, { as = [\"yellow\"], lasts = \"7d\" }]";
        let (fixture, mut progress) = (Fixture::new().await, Progress::default());
        // Three parts' worth, and one part that finds nobody left.
        contacts(&fixture, 2 * AT_ONCE + 7).await;
        assert_eq!(all(&fixture, &fixture.policy, 1, &mut progress, NOW).await, 4);
        assert_eq!(all(&fixture, &fixture.policy, 1, &mut progress, NOW).await, 0, "once is enough");
        let lives = policy("statement = \"10m\"", "statement = \"5m\"");
        assert_eq!(all(&fixture, &lives, 2, &mut progress, NOW).await, 0, "other lives are no other rules");
        assert_eq!(label(&fixture, 3).await.as_deref(), Some("红码"));
        let short = policy(RED, "phases = [{ as = [\"red\"], lasts = \"2d\" }, { as = [\"yellow\"], lasts = \"7d\" }]");
        // Other nodes of the member take the new edition up first.
        assert_eq!(all(&fixture, &short, 3, &mut progress, NOW).await, 0);
        assert_eq!(all(&fixture, &short, 3, &mut progress, NOW.plus(SETTLED_AFTER)).await, 4);
        let last = 2 * AT_ONCE + 6;
        assert_eq!(
            (label(&fixture, 0).await.as_deref(), label(&fixture, last).await.as_deref()),
            (Some("黄码"), Some("黄码"))
        );
        // A node that starts again knows by which rules it has worked.
        assert_eq!(all(&fixture, &short, 3, &mut Progress::default(), NOW).await, 0);
        let gone = policy(RED, "phases = [{ as = [\"red\"], lasts = \"1h\" }]");
        assert_eq!(all(&fixture, &gone, 4, &mut Progress::default(), NOW).await, 4);
        assert_eq!(label(&fixture, last).await.as_deref(), Some("绿码"));
    }

    #[tokio::test]
    async fn rules_that_change_while_everybody_is_assessed_begin_anew() {
        let (fixture, mut progress) = (Fixture::new().await, Progress::default());
        contacts(&fixture, AT_ONCE + 1).await;
        let begun = some(&fixture.home, &fixture.policy, 1, &mut progress, NOW).await.unwrap();
        assert!(matches!(begun, Step::Done(_)));
        let labels = policy(
            "[labels.default]\n\"绿码\" = \"green\"",
            "[labels.default]\n\"绿码\" = \"green\"\n\"暂缓\" = \"undetermined\"",
        );
        assert_eq!(all(&fixture, &labels, 2, &mut progress, NOW).await, 0, "not before all have the edition");
        let settled = NOW.plus(SETTLED_AFTER);
        assert_eq!(all(&fixture, &labels, 2, &mut progress, settled).await, 3, "from the first one on");
        assert_eq!(fixture.home.store.assessed_rules().await.unwrap(), labels.rules_digest());
    }

    #[tokio::test]
    async fn whoever_is_due_goes_first_and_nobody_is_before_their_time() {
        let (fixture, mut progress) = (Fixture::new().await, Progress::default());
        contacts(&fixture, AT_ONCE + 1).await;
        all(&fixture, &fixture.policy, 1, &mut progress, NOW).await;
        let (yellow, green) = (NOW.plus(DAY * 11), NOW.plus(DAY * 18));
        assert_eq!(all(&fixture, &fixture.policy, 1, &mut progress, yellow.minus(Duration::from_secs(1))).await, 0);
        assert_eq!(all(&fixture, &fixture.policy, 1, &mut progress, yellow).await, 2, "so many at once at most");
        assert_eq!(label(&fixture, 0).await.as_deref(), Some("黄码"));
        assert_eq!(all(&fixture, &fixture.policy, 1, &mut progress, green.plus(HOUR)).await, 2);
        assert_eq!(label(&fixture, AT_ONCE).await.as_deref(), Some("绿码"));
    }
}
