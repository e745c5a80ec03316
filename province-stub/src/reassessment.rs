//! Codes change when time passes, too: whoever is due is assessed again at that instant, and by other rules everybody is.
//!
//! Upholds I4 with [`crate::lookup`], which never tells a code whose time is over, and ends every statement where time alone may
//! change what it says.

use std::time::Duration;

use proto::policy::Policy;
use tracing::{Instrument as _, debug_span, info};

use crate::{
    home::Home,
    rules::Rules,
    store::{
        PersonId, Store, StoreError,
        filing::{Effect, Reassessed},
    },
};
use proto::time::UnixTime;

/// How often it is looked who is due, if nothing is known to be before.
pub const EVERY: Duration = Duration::from_secs(5);
/// How long after a commit of this node: others may follow it.
pub const AFTER_COMMIT: Duration = Duration::from_millis(200);
/// People of one transaction at most: a few milliseconds.
const AT_ONCE: u32 = 200;

/// Where a node stands with working out everybody anew by other rules.
#[derive(Debug, Default)]
pub struct Progress {
    /// The edition of the policy that was looked at last, and the digest of its rules.
    seen: Option<(u64, u64)>,
    /// Whether everybody's code is by these rules.
    done: bool,
    after: Option<PersonId>,
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
    let next_due = home.store.next_due().await?;
    if next_due.is_some_and(|due_at| due_at <= now) {
        let due = home.store.reassess_due(AT_ONCE, &rules, now, &*home.random);
        let Reassessed { effect, .. } = due.instrument(span()).await?;
        return Ok(Step::Done(effect));
    }
    let digest = match progress.seen {
        Some((seen, digest)) if seen == edition => digest,
        seen => {
            let digest = policy.rules_digest();
            if seen.is_none_or(|(_, before)| before != digest) {
                *progress = Progress { done: home.store.assessed_rules().await? == digest, ..Progress::default() };
            }
            progress.seen = Some((edition, digest));
            digest
        }
    };
    if progress.done {
        return Ok(Step::Nothing(next_due.map_or(EVERY, |due_at| Duration::from_secs(due_at.since(now)).min(EVERY))));
    }
    let after = progress.after.unwrap_or(PersonId(0));
    let following = home.store.reassess_following(after, AT_ONCE, &rules, now, &*home.random);
    let (reassessed, last) = following.instrument(span()).await?;
    progress.after = last;
    if last.is_none() {
        home.store.set_assessed_rules(digest).await?;
        progress.done = true;
        info!(edition, "all codes are by the rules of this edition of the policy");
    }
    Ok(Step::Done(reassessed.effect))
}
