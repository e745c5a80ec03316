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
