//! Assigning a code by hand: an operator of this member says label, rule, authority and why.
//!
//! Upholds I8: only the home member assigns, and it names the rule and the authority. Whether they may assign that level
//! is not judged here but by every reader, by the published policy: a wrong one comes back UNSUBSTANTIATED.

use proto::{
    identity::PeerId,
    member::Member,
    policy::Policy,
    refusal::{Reason, Refusal},
    statement::Authority,
    time::UnixTime,
};
use tracing::instrument;

use crate::{
    document::Document,
    home::Home,
    request::{Method, RequestId, RequestKey, digest},
    rules::Rules,
    store::{
        Assigned, NewAssignment, Store,
        filing::{Cleared, Effect},
    },
};

/// The longest a justification may be, in characters.
pub const MAX_JUSTIFICATION_CHARS: usize = 256;

/// A code to assign, as the operator asks for it. The texts' forms are checked where they are parsed.
#[derive(Clone)]
pub struct Assignment {
    /// The operator's id of the request.
    pub request_id: RequestId,
    /// To whom.
    pub document: Document,
    /// The member's own label, 1 to [`proto::statement::MAX_LABEL_BYTES`] bytes.
    pub label: String,
    /// The rule, 1 to [`proto::statement::MAX_RULE_BYTES`] bytes.
    pub rule: String,
    /// The authority that decided.
    pub authority: Authority,
    /// Why, 1 to [`MAX_JUSTIFICATION_CHARS`] characters. Never leaves the node, but to the traveler.
    pub justification: String,
}

/// The end of what was set by hand, as the operator asks for it.
#[derive(Clone)]
pub struct Clearing {
    /// The operator's id of the request.
    pub request_id: RequestId,
    /// Whose code.
    pub document: Document,
    /// Why, 1 to [`MAX_JUSTIFICATION_CHARS`] characters. Never leaves the node, but to the traveler.
    pub justification: String,
}

// A justification speaks of a person.
redacted!(Assignment, Clearing);

/// Assigns a code.
///
/// Refused in this order: a label the policy does not have for this member, an authority of another member, a request id
/// used before, an unknown person.
#[instrument(level = "debug", skip_all)]
pub async fn set_code<S: Store>(
    home: &Home<S>,
    policy: &Policy,
    now: UnixTime,
    operator: &PeerId,
    assignment: Assignment,
) -> Result<Assigned, Refusal> {
    let Assignment { request_id, document, label, rule, authority, justification } = assignment;
    if policy.meaning(home.member, &label).is_none() {
        return Err(Refusal::new(Reason::LabelUnknown).with("label", label));
    }
    if authority.member() != home.member && authority.member() != Member::PLATFORM {
        return Err(Refusal::field("authority", "is of the member itself or of 00"));
    }
    let by = authority.to_string();
    let asked = [
        &[document.kind().number()][..],
        document.number().as_bytes(),
        label.as_bytes(),
        rule.as_bytes(),
        by.as_bytes(),
        justification.as_bytes(),
    ];
    let request = RequestKey {
        caller: operator.to_string(),
        id: request_id.as_str().to_owned(),
        method: Method::SetCode,
        digest: digest(&asked),
        at: now,
    };
    let set_by = operator.to_string();
    let assignment = NewAssignment { document, label, rule, authority, justification, set_by, now };
    Ok(home.store.set_code(&request, &assignment, &*home.random).await?)
}

/// Ends what was set by hand: from then on the code is what evidence and rules say, or the platform.
#[instrument(level = "debug", skip_all)]
pub async fn clear_code<S: Store>(
    home: &Home<S>,
    policy: &Policy,
    now: UnixTime,
    operator: &PeerId,
    clearing: Clearing,
) -> Result<Effect, Refusal> {
    let Clearing { request_id, document, justification } = clearing;
    let asked = [&[document.kind().number()][..], document.number().as_bytes(), justification.as_bytes()];
    let request = RequestKey {
        caller: operator.to_string(),
        id: request_id.as_str().to_owned(),
        method: Method::ClearCode,
        digest: digest(&asked),
        at: now,
    };
    let cleared = Cleared { document, justification, cleared_by: operator.to_string(), now };
    let rules = Rules::new(home.member, policy);
    Ok(home.store.clear_code(&request, &cleared, &rules, &*home.random).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        seed::Condition,
        test_support::{Fixture, NOW, member, seeded, seeded_document},
    };

    fn assignment(id: &str) -> Assignment {
        Assignment {
            request_id: RequestId::new(id).unwrap(),
            document: seeded(Condition::Green).document,
            label: "红码".into(),
            rule: "R-CASE".into(),
            authority: "41/cdc".parse().unwrap(),
            justification: "a test".into(),
        }
    }

    async fn set(fixture: &Fixture, assignment: Assignment) -> Result<Assigned, Refusal> {
        let operator = PeerId::operator(member(), "li").unwrap();
        set_code(&fixture.home, &fixture.policy, NOW, &operator, assignment).await
    }

    #[tokio::test]
    async fn a_change_is_in_the_log_when_the_call_returns() {
        let fixture = Fixture::new().await;
        fixture.phone(&seeded(Condition::Green), |_| {}).await;
        fixture.phone(&seeded(Condition::Green), |_| {}).await;
        let assigned = set(&fixture, assignment("request-1")).await.unwrap();
        assert_eq!((assigned.changed, assigned.head.seq, assigned.assigned_at), (2, 2, NOW));
        assert_eq!(fixture.home.store.head().await.unwrap(), assigned.head);
        assert_eq!(set(&fixture, assignment("request-1")).await.unwrap(), assigned);
        let other = Assignment { justification: "another".into(), ..assignment("request-1") };
        assert_eq!(set(&fixture, other).await.unwrap_err().reason(), Reason::RequestIdReused);
    }

    #[tokio::test]
    async fn an_inadmissible_rule_is_stored_as_asked_and_a_national_authority_is_fine() {
        let fixture = Fixture::new().await;
        let rule = Assignment { rule: "R-DEPOSITOR".into(), ..assignment("request-1") };
        assert!(set(&fixture, rule).await.is_ok());
        let national = Assignment { authority: "00/cdc".parse().unwrap(), ..assignment("request-2") };
        assert!(set(&fixture, national).await.is_ok());
    }

    #[tokio::test]
    async fn every_way_to_be_wrong_has_its_reason() {
        let fixture = Fixture::new().await;
        let base = || assignment("request-1");
        for (assignment, reason) in [
            (Assignment { label: "紫码".into(), ..base() }, Reason::LabelUnknown),
            (Assignment { label: "未见异常".into(), ..base() }, Reason::LabelUnknown),
            (Assignment { authority: "44/cdc".parse().unwrap(), ..base() }, Reason::FieldInvalid),
            (Assignment { document: seeded_document(50), ..base() }, Reason::PersonUnknown),
        ] {
            assert_eq!(set(&fixture, assignment).await.unwrap_err().reason(), reason);
        }
        fixture.home.store.close().await;
        assert_eq!(set(&fixture, base()).await.unwrap_err().reason(), Reason::StoreUnavailable);
        assert_eq!(format!("{:?}", base()), "Assignment(…)");
    }
}
