//! Codes that the member's own platform pushes: it keeps its own assignment (赋码), the node federates what it comes to.
//!
//! Upholds I8: a label of this member's table, a rule and an authority, as for a code that is set by hand; whether they may assign
//! that level is judged by every reader, by the published policy.

use std::collections::BTreeSet;

use proto::{
    identity::{PeerId, Role},
    member::Member,
    policy::{Meaning, Policy},
    refusal::{Reason, Refusal},
    terms::Level,
    time::{CLOCK_LEEWAY, UnixTime},
};
use tracing::instrument;

use crate::{
    home::Home,
    request::{Method, RequestId, RequestKey, digest},
    rules::Rules,
    store::{
        Store,
        filing::{Assignment, Effect, PushedCode},
    },
};

/// Codes of one batch at most.
pub const MAX_CODES: usize = 500;

/// The backends that may push codes, by name.
pub type Platforms = BTreeSet<String>;

/// A batch as the platform pushes it. Codes that were refused where they were parsed keep their place.
pub struct Batch {
    /// The platform's id of it.
    pub request_id: RequestId,
    /// All that was asked, for idempotency.
    pub asked: Vec<u8>,
    /// The codes.
    pub codes: Vec<Result<PushedCode, Refusal>>,
}

redacted!(Batch);

/// What became of a batch: one verdict for each code, in order.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The verdicts.
    pub verdicts: Vec<Result<Assignment, Refusal>>,
    /// What followed.
    pub effect: Effect,
}

/// Refuses a backend that is no platform.
pub fn admit(platforms: &Platforms, backend: &PeerId) -> Result<(), Refusal> {
    match backend.role() {
        Role::Backend(name) if platforms.contains(&**name) => Ok(()),
        _ => Err(Refusal::new(Reason::PlatformNotAdmitted)),
    }
}

/// Takes in a batch.
#[instrument(level = "debug", name = "put_codes", skip_all)]
pub async fn take_in<S: Store>(
    home: &Home<S>,
    policy: &Policy,
    now: UnixTime,
    platform: &PeerId,
    batch: Batch,
) -> Result<Answered, Refusal> {
    let check =
        |code: Result<PushedCode, Refusal>| code.and_then(|code| check(home.member, policy, now, &code).map(|()| code));
    let checked: Vec<_> = batch.codes.into_iter().map(check).collect();
    let request = RequestKey {
        caller: platform.to_string(),
        id: batch.request_id.as_str().to_owned(),
        method: Method::PutCodes,
        digest: digest(&[&batch.asked]),
        at: now,
    };
    let codes: Vec<Option<PushedCode>> = checked.iter().map(|code| code.as_ref().ok().cloned()).collect();
    let rules = Rules::new(home.member, policy);
    let pushed = home.store.put_codes(&request, &codes, &rules, &*home.random).await?;
    // Of a batch that has its answer already that one counts, whatever time and policy make of it now.
    let verdicts = checked.into_iter().zip(pushed.verdicts).map(|(code, verdict)| match (code, verdict) {
        (_, Some(Assignment::Outdated)) => Err(Refusal::new(Reason::AssignmentOutdated)),
        (_, Some(verdict)) => Ok(verdict),
        (Err(refusal), None) => Err(refusal),
        (Ok(_), None) => {
            Err(Refusal::field("assign_time", "was refused when it first came: send it under another request id"))
        }
    });
    Ok(Answered { verdicts: verdicts.collect(), effect: pushed.effect })
}

/// Refused in this order: a time yet to come, an authority of another member, a label the policy does not have for this member, a
/// label that is not green without a rule.
fn check(member: Member, policy: &Policy, now: UnixTime, pushed: &PushedCode) -> Result<(), Refusal> {
    if pushed.assigned_at > now.plus(CLOCK_LEEWAY) {
        return Err(Refusal::field("assign_time", "not in the future"));
    }
    let Some(code) = &pushed.code else { return Ok(()) };
    if code.authority.as_ref().is_some_and(|by| by.member() != member && by.member() != Member::PLATFORM) {
        return Err(Refusal::field("authority", "is of the member itself or of 00"));
    }
    let meaning = policy.meaning(member, &code.label);
    let meaning = meaning.ok_or_else(|| Refusal::new(Reason::LabelUnknown).with("label", &code.label))?;
    if code.rule.is_none() && meaning != Meaning::Level(Level::Green) {
        return Err(Refusal::missing("rule"));
    }
    Ok(())
}
