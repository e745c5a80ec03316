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
    rows::secs,
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

/// Takes in a batch.
pub(super) async fn take_in(
    connection: &mut Connection,
    vault: &Vault,
    push: Push<'_>,
    pushed: &[PushedCode],
    assess: &dyn Assess,
    random: &dyn Random,
) -> Result<PushedIn, StoreError> {
    let people = people(connection, vault, pushed).await?;
    let sealing = Sealing { vault, key: rest::current(connection, vault).await? };
    let mut verdicts = Vec::with_capacity(pushed.len());
    let mut touched = Touched::default();
    for (number, code) in pushed.iter().enumerate() {
        let person = people[&code.reference];
        let verdict = take(connection, sealing, push, number, person, code).await?;
        if matches!(verdict, Assignment::Assigned | Assignment::Withdrawn) {
            touched.touch(person.0, Scope::LEVEL);
        }
        verdicts.push(verdict);
    }
    let effect = assessment::settle(connection, &touched, assess, push.now, random).await?;
    Ok(PushedIn { verdicts, effect })
}

/// Whose the codes are: whoever is new is added, and all are locked before anything about them is read.
async fn people(
    connection: &mut Connection,
    vault: &Vault,
    pushed: &[PushedCode],
) -> Result<BTreeMap<Foreign, PersonId>, StoreError> {
    let mut people: BTreeMap<Foreign, PersonId> = BTreeMap::new();
    let mut references: Vec<_> = pushed.iter().map(|code| code.reference.clone()).collect();
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
    locks::people(connection, &ids).await?;
    Ok(people)
}

async fn take(
    connection: &mut Connection,
    sealing: Sealing<'_>,
    push: Push<'_>,
    number: usize,
    person: PersonId,
    pushed: &PushedCode,
) -> Result<Assignment, StoreError> {
    // The base itself says since when it holds, by whoever set it: its row's `assigned_at` is the platform's own time.
    let row = sqlx::query(
        "SELECT code.label, code.rule, code.authority, code.assigned_at, code.source FROM person \
         JOIN code ON code.id = person.base WHERE person.id = $1",
    );
    let row = row.bind(person.0).fetch_optional(&mut *connection).await?;
    let (base, by_platform) = match &row {
        Some(row) => (codes::read(row)?, row.try_get::<&str, _>("source")? == "platform"),
        None => (None, false),
    };
    if base.as_ref().is_some_and(|base| pushed.assigned_at < base.assigned_at) {
        return Ok(Assignment::Outdated);
    }
    match (&pushed.code, base) {
        (None, Some(_)) if by_platform => {
            withdraw(connection, push, person, pushed.assigned_at).await?;
            set_base(connection, person, None).await?;
            Ok(Assignment::Withdrawn)
        }
        // What was set by hand stands, but nothing of the platform's is beneath it any more.
        (None, Some(_)) if pushed_before(connection, person).await? => {
            withdraw(connection, push, person, pushed.assigned_at).await?;
            Ok(Assignment::Withdrawn)
        }
        // The platform has said nothing.
        (None, _) => Ok(Assignment::Unchanged),
        (Some(code), Some(base)) if by_platform && says_the_same(code, &base) => Ok(Assignment::Unchanged),
        (Some(code), _) => {
            assign(connection, sealing, push, number, person, code, pushed.assigned_at).await?;
            Ok(Assignment::Assigned)
        }
    }
}

/// Whether a code of the platform's is on file that it has not taken back.
async fn pushed_before(connection: &mut Connection, person: PersonId) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT label FROM code WHERE person = $1 AND source = 'platform' ORDER BY id DESC LIMIT 1");
    match row.bind(person.0).fetch_optional(connection).await? {
        Some(row) => Ok(row.try_get::<Option<&str>, _>("label")?.is_some()),
        None => Ok(false),
    }
}

fn says_the_same(pushed: &PushedLabel, base: &Code) -> bool {
    pushed.label == base.label && pushed.rule == base.rule && pushed.authority == base.authority
}

async fn assign(
    connection: &mut Connection,
    Sealing { vault, key }: Sealing<'_>,
    push: Push<'_>,
    number: usize,
    person: PersonId,
    code: &PushedLabel,
    assigned_at: UnixTime,
) -> Result<(), StoreError> {
    // Two codes of one batch may be of one person.
    let request_id = format!("{}#{number}", push.request_id);
    let place = rest::code_place(person, push.now, &request_id);
    let basis = (!code.basis.is_empty()).then(|| vault.seal(Sealed::Justification, &place, code.basis.as_bytes()));
    let id: i64 = sqlx::query_scalar(
        "INSERT INTO code (person, label, rule, authority, assigned_at, recorded_at, source, set_by, request_id, \
         justification, key, covers) VALUES ($1, $2, $3, $4, $5, $6, 'platform', $7, $8, $9, $10, \
         (SELECT coalesce(max(id), 0) FROM evidence WHERE person = $1)) RETURNING id",
    )
    .bind(person.0)
    .bind(&code.label)
    .bind(&code.rule)
    .bind(code.authority.as_ref().map(Authority::to_string))
    .bind(secs(assigned_at))
    .bind(secs(push.now))
    .bind(push.platform)
    .bind(&request_id)
    .bind(&basis)
    .bind(basis.is_some().then_some(key))
    .fetch_one(&mut *connection)
    .await?;
    set_base(connection, person, Some(id)).await
}

/// Puts on file that the platform has no code for a person any more.
async fn withdraw(
    connection: &mut Connection,
    push: Push<'_>,
    person: PersonId,
    assigned_at: UnixTime,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO code (person, assigned_at, recorded_at, source, set_by, request_id) \
         VALUES ($1, $2, $3, 'platform', $4, $5)",
    )
    .bind(person.0)
    .bind(secs(assigned_at))
    .bind(secs(push.now))
    .bind(push.platform)
    .bind(push.request_id)
    .execute(connection)
    .await?;
    Ok(())
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
