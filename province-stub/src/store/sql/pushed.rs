//! Codes that the member's own platform pushed, batch by batch, and what an operator's hand gives back when it is lifted.
//!
//! Upholds I4: a batch, the codes that follow and their events are one transaction. A pushed code, like one set by hand, is a base:
//! evidence that comes after it counts beside it.

use std::collections::BTreeMap;

use proto::{random::Random, statement::Authority, terms::Scope, time::UnixTime};
use sqlx::Row as _;

use super::{
    Connection,
    assessment::{self, Touched},
    codes, locks, people, rest,
    rows::{secs, time},
};
use crate::{
    assessment::Assess,
    evidence::{Foreign, PersonKey},
    store::{
        Code, PersonId, StoreError,
        filing::{Assignment, Cleared, Effect, PushedCode, PushedIn, PushedLabel},
    },
    vault::{Sealed, Vault},
};

/// Who pushed, when, and under which id.
#[derive(Clone, Copy)]
pub(super) struct Push<'a> {
    pub(super) platform: &'a str,
    pub(super) request_id: &'a str,
    pub(super) now: UnixTime,
}

/// A batch under way: what is sealed is sealed with the key of this number.
#[derive(Clone, Copy)]
struct Sealing<'a> {
    vault: &'a Vault,
    key: i64,
}

/// Takes in a batch. What was refused before it came here keeps its place, and has no verdict.
pub(super) async fn take_in(
    connection: &mut Connection,
    vault: &Vault,
    push: Push<'_>,
    pushed: &[Option<PushedCode>],
    assess: &dyn Assess,
    random: &dyn Random,
) -> Result<PushedIn, StoreError> {
    let people = people(connection, vault, pushed).await?;
    let sealing = Sealing { vault, key: rest::current(connection, vault).await? };
    let mut verdicts = Vec::with_capacity(pushed.len());
    let mut touched = Touched::default();
    for (number, code) in pushed.iter().enumerate() {
        let Some(code) = code else {
            verdicts.push(None);
            continue;
        };
        let person = people[&code.reference];
        let verdict = take(connection, sealing, push, number, person, code).await?;
        if matches!(verdict, Assignment::Assigned | Assignment::Withdrawn) {
            touched.touch(person.0, Scope::LEVEL);
        }
        verdicts.push(Some(verdict));
    }
    let effect = assessment::settle(connection, &touched, assess, push.now, random).await?;
    assessment::retire(connection, &touched.people(), push.now).await?;
    Ok(PushedIn { verdicts, effect })
}

/// Whose the codes are: whoever is new is added, and all are locked before anything about them is read.
async fn people(
    connection: &mut Connection,
    vault: &Vault,
    pushed: &[Option<PushedCode>],
) -> Result<BTreeMap<Foreign, PersonId>, StoreError> {
    let mut people: BTreeMap<Foreign, PersonId> = BTreeMap::new();
    let mut references: Vec<_> = pushed.iter().flatten().map(|code| code.reference.clone()).collect();
    references.sort_unstable();
    references.dedup();
    let keys: Vec<_> = references.iter().cloned().map(PersonKey::Reference).collect();
    let found = people::find_all(connection, vault, &keys).await?;
    for (reference, found) in references.into_iter().zip(found) {
        let person = match found {
            Some(id) => PersonId(id),
            None => people::add_referred(connection, vault, &reference).await?,
        };
        people.insert(reference, person);
    }
    let mut ids: Vec<_> = people.values().map(|person| person.0).collect();
    ids.sort_unstable();
    people::lock(connection, &ids).await?;
    Ok(people)
}

/// What the platform said last decides whether this is news; a hand that is over it, only whether it holds.
async fn take(
    connection: &mut Connection,
    sealing: Sealing<'_>,
    push: Push<'_>,
    number: usize,
    person: PersonId,
    pushed: &PushedCode,
) -> Result<Assignment, StoreError> {
    let row = sqlx::query(
        "SELECT label, rule, authority, assigned_at FROM code WHERE person = $1 AND source = 'platform' \
         ORDER BY id DESC LIMIT 1",
    );
    let said = match row.bind(person.0).fetch_optional(&mut *connection).await? {
        Some(row) => Some((time(&row, "assigned_at")?, codes::read(&row)?)),
        None => None,
    };
    let same = match (&pushed.code, &said) {
        (Some(code), Some((_, Some(said)))) => says_the_same(code, said),
        (None, Some((_, said))) => said.is_none(),
        (None, None) => true,
        (Some(_), _) => false,
    };
    match &said {
        Some((said_at, _)) if pushed.assigned_at < *said_at => return Ok(Assignment::Outdated),
        // Looked at anew it is news all the same: it covers what has come meanwhile.
        Some((said_at, _)) if same && pushed.assigned_at == *said_at => return Ok(Assignment::Unchanged),
        _ if same && pushed.code.is_none() => return Ok(Assignment::Unchanged),
        _ => {}
    }
    let id = file(connection, sealing, push, number, person, pushed).await?;
    if !is_under_a_hand(connection, person, pushed.assigned_at).await? {
        set_base(connection, person, pushed.code.is_some().then_some(id)).await?;
    }
    Ok(if pushed.code.is_some() { Assignment::Assigned } else { Assignment::Withdrawn })
}

/// Whether an operator has set the person's code since the platform decided: by when that came, whatever it says itself.
async fn is_under_a_hand(connection: &mut Connection, person: PersonId, decided: UnixTime) -> Result<bool, StoreError> {
    let under = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM person JOIN code ON code.id = person.base \
         WHERE person.id = $1 AND code.source = 'hand' AND code.recorded_at >= $2)",
    );
    Ok(under.bind(person.0).bind(secs(decided)).fetch_one(connection).await?)
}

fn says_the_same(pushed: &PushedLabel, base: &Code) -> bool {
    pushed.label == base.label && pushed.rule == base.rule && pushed.authority == base.authority
}

/// Puts on file what the platform says; no label is that it has none any more. It covers the evidence that was there when the
/// platform decided, and none that came since: a push may be long on its way.
async fn file(
    connection: &mut Connection,
    Sealing { vault, key }: Sealing<'_>,
    push: Push<'_>,
    number: usize,
    person: PersonId,
    pushed: &PushedCode,
) -> Result<i64, StoreError> {
    // Two codes of one batch may be of one person.
    let request_id = format!("{}#{number}", push.request_id);
    let place = rest::code_place(person, push.now, &request_id);
    let code = pushed.code.as_ref();
    let basis = code.filter(|code| !code.basis.is_empty());
    let basis = basis.map(|code| vault.seal(Sealed::Justification, &place, code.basis.as_bytes()));
    let id = sqlx::query_scalar(
        "INSERT INTO code (person, label, rule, authority, assigned_at, recorded_at, source, set_by, request_id, \
         justification, key, covers) VALUES ($1, $2, $3, $4, $5, $6, 'platform', $7, $8, $9, $10, \
         (SELECT coalesce(max(id), 0) FROM evidence WHERE person = $1 AND received_at <= $5)) RETURNING id",
    )
    .bind(person.0)
    .bind(code.map(|code| &code.label))
    .bind(code.and_then(|code| code.rule.as_ref()))
    .bind(code.and_then(|code| code.authority.as_ref()).map(Authority::to_string))
    .bind(secs(pushed.assigned_at))
    .bind(secs(push.now))
    .bind(push.platform)
    .bind(&request_id)
    .bind(&basis)
    .bind(basis.is_some().then_some(key));
    Ok(id.fetch_one(connection).await?)
}

/// Ends what was set by hand. What the platform said last, or was seeded, stands again.
pub(super) async fn clear(
    connection: &mut Connection,
    vault: &Vault,
    request_id: &str,
    cleared: &Cleared,
    assess: &dyn Assess,
    random: &dyn Random,
) -> Result<(PersonId, Effect), StoreError> {
    let person = people::by_document(connection, vault, &cleared.document).await?;
    let person = person.ok_or(StoreError::PersonUnknown)?;
    locks::person(connection, person).await?;
    let by_hand = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM person JOIN code ON code.id = person.base \
         WHERE person.id = $1 AND code.source = 'hand')",
    );
    let mut touched = Touched::default();
    if by_hand.bind(person.0).fetch_one(&mut *connection).await? {
        let key = rest::current(connection, vault).await?;
        let place = rest::code_place(person, cleared.now, request_id);
        sqlx::query(
            "INSERT INTO code (person, assigned_at, recorded_at, source, set_by, request_id, justification, key) \
             VALUES ($1, $2, $2, 'hand', $3, $4, $5, $6)",
        )
        .bind(person.0)
        .bind(secs(cleared.now))
        .bind(&cleared.cleared_by)
        .bind(request_id)
        .bind(vault.seal(Sealed::Justification, &place, cleared.justification.as_bytes()))
        .bind(key)
        .execute(&mut *connection)
        .await?;
        let base = standing_beneath(connection, person).await?;
        set_base(connection, person, base).await?;
        touched.touch(person.0, Scope::LEVEL);
    }
    let effect = assessment::settle(connection, &touched, assess, cleared.now, random).await?;
    assessment::retire(connection, &touched.people(), cleared.now).await?;
    Ok((person, effect))
}

/// What the platform said last, or was seeded; `None` if that was nothing, or that there is nothing any more.
async fn standing_beneath(connection: &mut Connection, person: PersonId) -> Result<Option<i64>, StoreError> {
    let row = sqlx::query(
        "SELECT id, label FROM code WHERE person = $1 AND source IN ('platform', 'seed') ORDER BY id DESC LIMIT 1",
    );
    let Some(row) = row.bind(person.0).fetch_optional(connection).await? else { return Ok(None) };
    let there = row.try_get::<Option<&str>, _>("label")?.is_some();
    Ok(if there { Some(row.try_get("id")?) } else { None })
}

async fn set_base(connection: &mut Connection, person: PersonId, base: Option<i64>) -> Result<(), StoreError> {
    sqlx::query("UPDATE person SET base = $1 WHERE id = $2").bind(base).bind(person.0).execute(connection).await?;
    Ok(())
}
