//! Finding a seeded person in a wished-for condition, and getting a pass for them.

use anyhow::{Context, Result, bail};
use peer::config::to_hex;
use proto::{
    member::Member,
    refusal::{Reason, Refusal},
    time::UnixTime,
};
use province_stub::seed::{self, Condition, SeededPerson};
use tonic::Status;

use crate::{
    desk::Desk,
    phone::{Backend, Pass, Phone, Wish},
};

/// People tried before giving up: each may have as many consents as policy allows.
const TRIES: usize = 16;

/// Reads a condition's word.
pub(crate) fn parse_condition(text: &str) -> Result<Condition, String> {
    match text {
        "green" => Ok(Condition::Green),
        "yellow" => Ok(Condition::Yellow),
        "red" => Ok(Condition::Red),
        "undetermined" => Ok(Condition::Undetermined),
        "unsubstantiated" => Ok(Condition::Unsubstantiated),
        "none" => Ok(Condition::NoCode),
        _ => Err("green, yellow, red, undetermined, unsubstantiated or none".into()),
    }
}

/// The seeded people of a member in a condition, in an order of their own each time.
pub(crate) fn people(desk: &Desk, member: Member, condition: Condition) -> Result<Vec<SeededPerson>> {
    let people = seed::people(member, desk.prepared().plan.people, &desk.trust().policy);
    let mut people: Vec<_> = people.into_iter().filter(|person| person.condition == condition).collect();
    if people.is_empty() {
        bail!("nobody seeded in {member} is in this condition: {condition:?}");
    }
    let dice: [u8; 8] = proto::random::bytes(&proto::random::SystemRandom);
    let turn = usize::try_from(u64::from_be_bytes(dice) % people.len() as u64)?;
    people.rotate_left(turn);
    Ok(people)
}

/// Gets a pass for somebody in this condition; who has too many already is passed over.
pub(crate) async fn pass(
    desk: &Desk,
    member: Member,
    condition: Condition,
    wish: &Wish,
    now: UnixTime,
) -> Result<Pass> {
    let backend = desk.backend(member)?;
    let mut refused = None;
    for person in people(desk, member, condition)?.iter().take(TRIES) {
        match consent(desk, &backend, member, person, wish, now).await {
            Ok(pass) => return Ok(pass),
            Err(error) if is_quota(&error) => refused = Some(error),
            Err(error) => return Err(explain(error)).with_context(|| format!("node of {member}")),
        }
    }
    Err(refused.map_or_else(|| anyhow::anyhow!("nobody to ask for"), explain))
}

/// By the phone that an earlier command enrolled for this person; by a new one if home knows no such phone.
async fn consent(
    desk: &Desk,
    backend: &Backend,
    member: Member,
    person: &SeededPerson,
    wish: &Wish,
    now: UnixTime,
) -> Result<Pass> {
    let kept = desk.layout().phone(member, person.index);
    if let Some(phone) = Phone::kept(&kept, backend) {
        match phone.consent(wish, now).await {
            Err(error) if has_reason(&error, &[Reason::DeviceUnknown]) => {}
            settled => return settled,
        }
    }
    let phone = backend.enroll(person).await?;
    if desk.prepared().plan.is_external(member) {
        // Nobody was seeded there: who enrols is new to it, and has no code.
        desk.assign(member, person).await?;
    }
    phone.keep(&kept)?;
    phone.consent(wish, now).await
}

fn has_reason(error: &anyhow::Error, reasons: &[Reason]) -> bool {
    let reason = error.downcast_ref::<Status>().and_then(Refusal::reason_of);
    reason.is_some_and(|reason| reasons.contains(&reason))
}

fn is_quota(error: &anyhow::Error) -> bool {
    has_reason(error, &[Reason::TooManyConsents, Reason::TooManyDevices])
}

/// A status' message and reason, instead of all of its bytes.
fn explain(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref::<Status>() {
        Some(status) => anyhow::anyhow!("{}", say(status)),
        None => error,
    }
}

/// A status as people read it.
pub(crate) fn say(status: &Status) -> String {
    use tonic_types::StatusExt;
    match status.get_details_error_info() {
        Some(info) => {
            let mut metadata: Vec<_> = info.metadata.iter().map(|(key, value)| format!("{key} {value}")).collect();
            metadata.sort();
            format!("{}: {} ({})", info.reason, status.message(), metadata.join(", "))
        }
        None if status.code() == tonic::Code::Unavailable => {
            format!("nobody answers: {}; is `cargo run` running?", status.message())
        }
        None => format!("{:?}: {}", status.code(), status.message()),
    }
}

/// An id as people read it.
pub(crate) fn hex(bytes: &[u8]) -> String {
    to_hex(bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use peer::{serve::Listeners, surroundings::Surroundings};
    use proto::{
        contract::recognition::{Decision, Outcome},
        terms::Purpose,
        time::{Clock as _, SystemClock},
    };
    use province_stub::{config::Config, server::Node};
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{
        addresses::Ports, checkpoint::Checkpoint, federation::Federation, layout::Layout, load::Load, prepare::Plan,
    };

    async fn listener() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").await.unwrap()
    }

    /// A node that this federation has prepared and not started; nobody seeds it.
    async fn start(layout: &Layout, member: Member, public: TcpListener) -> CancellationToken {
        let config = Config::read(&layout.node(member).join("node.toml")).unwrap();
        let node = Node::open(config, Surroundings::system()).await.unwrap();
        let (listeners, shutdown) = (Listeners::new(public, listener().await), CancellationToken::new());
        tokio::spawn(node.serve(listeners, shutdown.clone()));
        shutdown
    }

    async fn outcome(desk: &Desk, at: &Checkpoint, member: Member, condition: Condition) -> (Outcome, Decision) {
        let now = SystemClock.now();
        let pass = super::pass(desk, member, condition, &Wish::default(), now).await.unwrap();
        let seen = at.show(&pass.present(Some(at.venue()), SystemClock.now()), Purpose::Entry).await.unwrap().unwrap();
        (seen.answer.outcome(), seen.answer.decision())
    }

    #[tokio::test]
    async fn a_foreign_node_learns_of_people_as_they_are_shown() {
        let (dir, public) = (tempfile::tempdir().unwrap(), listener().await);
        let (layout, foreign): (_, Member) = (Layout::new(dir.path()), "44".parse().unwrap());
        let address = public.local_addr().unwrap().to_string();
        let plan = Plan {
            members: vec!["11".into(), "44".into()],
            people: 20,
            gateways: 1,
            external: [("44".to_owned(), address.clone())].into(),
            ..Plan::default()
        };
        let federation = Federation::start(&layout, &plan, Ports::Any, Arc::new(SystemClock)).await.unwrap();
        let desk = federation.desk();
        assert_eq!(desk.trust().list.members[&foreign].endpoints, [address]);
        assert!(!federation.healthy().await.unwrap().contains(&foreign), "nobody serves there yet");
        let shutdown = start(&layout, foreign, public).await;
        assert_eq!(federation.healthy().await.unwrap().len(), 2);

        let at = desk.checkpoint(&"11/station/beijing-west".parse().unwrap()).unwrap();
        assert_eq!(outcome(desk, &at, foreign, Condition::Green).await, (Outcome::Status, Decision::Pass));
        assert_eq!(outcome(desk, &at, foreign, Condition::Red).await, (Outcome::Status, Decision::Stop));
        let doubtful = outcome(desk, &at, foreign, Condition::Unsubstantiated).await;
        assert_eq!(doubtful, (Outcome::Unsubstantiated, Decision::Assist));
        let without = outcome(desk, &at, foreign, Condition::NoCode).await;
        assert_eq!(without, (Outcome::UnknownTraveler, Decision::Assist));

        // Standing consents are issued past a node's RPCs.
        let load = Load::open(&federation, SystemClock.now()).await.unwrap();
        assert!(load.write(SystemClock.now()).unwrap() >= 2000 && load.members().all(|member| member != foreign));
        shutdown.cancel();
        federation.stop().await.unwrap();
    }
}
