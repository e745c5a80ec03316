//! Consents: issued, found, revoked, and forgotten long after their end.
//!
//! Upholds I1: a consent is found with what revoked it, in one snapshot with its person's status and the log's head.

use std::collections::BTreeSet;

use proto::{
    random::Random,
    statement::LogHead,
    suite::VerifyingKey,
    terms::{Kind, Scope},
    time::UnixTime,
    token::{Cti, TokenHash},
};
use sqlx::Row as _;

use super::{
    Connection, Row, changes, codes, evidence, locks, people, rest,
    rows::{bytes, corrupt, optional_time, secs, time, uint},
};
use crate::{
    store::{
        ChangeKind, Found, HONOURED_AFTER_EXPIRY, IssuedConsent, NewConsent, PageKey, Particulars, PersonId, Snapshot,
        StoreError,
    },
    vault::Vault,
};

/// The log's head is always there; all else is there if the handle is known.
const FIND: &str = "
    SELECT log_head.epoch, log_head.seq, consent.token_hash, consent.revoked_at,
           person.id AS person, person.document, person.reference, person.particulars, person.due_at,
           rest_key.fingerprint,
           code.label, code.rule, code.authority, code.assigned_at
    FROM log_head
    LEFT JOIN consent ON consent.cti = $1
    LEFT JOIN person ON person.id = consent.person
    LEFT JOIN rest_key ON rest_key.id = person.key
    LEFT JOIN code ON code.id = person.code";

/// Keeps an issued consent. On paper it takes the place of the person's papers: a printed code that was lost dies with the
/// reprint. Returns the log's head behind their revocations.
pub(super) async fn issue(
    connection: &mut Connection,
    consent: &NewConsent,
    limit: u32,
    random: &dyn Random,
) -> Result<LogHead, StoreError> {
    locks::person(connection, consent.person).await?;
    let replaced = if consent.kind == Kind::Paper { revoke_papers(connection, consent).await? } else { Vec::new() };
    insert(connection, consent, limit).await?;
    changes::append(connection, replaced, ChangeKind::Revoked, consent.issued_at, random).await
}

/// Keeps many issued consents.
pub(super) async fn issue_standing(
    connection: &mut Connection,
    consents: &[NewConsent],
    limit: u32,
) -> Result<(), StoreError> {
    let people: BTreeSet<_> = consents.iter().map(|consent| consent.person.0).collect();
    locks::people(connection, &Vec::from_iter(people)).await?;
    for consent in consents {
        insert(connection, consent, limit).await?;
    }
    Ok(())
}

async fn insert(connection: &mut Connection, consent: &NewConsent, limit: u32) -> Result<(), StoreError> {
    if let Some(key) = &consent.token_key {
        people::check_key_is_new(connection, key).await?;
    }
    let live: i64 =
        sqlx::query_scalar("SELECT count(*) FROM consent WHERE person = $1 AND revoked_at IS NULL AND expires_at > $2")
            .bind(consent.person.0)
            .bind(secs(consent.issued_at))
            .fetch_one(&mut *connection)
            .await?;
    if live >= i64::from(limit) {
        return Err(StoreError::TooManyConsents(limit));
    }
    sqlx::query(
        "INSERT INTO consent (cti, person, device, kind, token_hash, token_key, scope, issued_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(consent.cti.0.as_slice())
    .bind(consent.person.0)
    .bind(consent.device.as_ref().map(|device| device.0.as_slice()))
    .bind(i64::from(consent.kind.number()))
    .bind(TokenHash::of(&consent.token).0.to_vec())
    .bind(consent.token_key.as_ref().map(VerifyingKey::encoded))
    .bind(i64::from(consent.scope.bits()))
    .bind(secs(consent.issued_at))
    .bind(secs(consent.expires_at))
    .execute(connection)
    .await?;
    Ok(())
}

/// Revokes the papers that another one takes the place of, and says which they were.
async fn revoke_papers(connection: &mut Connection, consent: &NewConsent) -> Result<Vec<Cti>, StoreError> {
    let rows = sqlx::query(
        "UPDATE consent SET revoked_at = $1 \
         WHERE person = $2 AND kind = $3 AND revoked_at IS NULL AND expires_at > $4 RETURNING cti",
    )
    .bind(secs(consent.issued_at))
    .bind(consent.person.0)
    .bind(i64::from(Kind::Paper.number()))
    .bind(secs(consent.issued_at.minus(HONOURED_AFTER_EXPIRY)))
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok(Cti(bytes(row, "cti")?))).collect()
}

/// Revokes a consent. Doing so again changes nothing.
pub(super) async fn revoke(
    connection: &mut Connection,
    cti: Cti,
    of: Option<PersonId>,
    now: UnixTime,
) -> Result<LogHead, StoreError> {
    let person = sqlx::query_scalar("SELECT person FROM consent WHERE cti = $1 AND person = coalesce($2, person)")
        .bind(cti.0.as_slice())
        .bind(of.map(|person| person.0))
        .fetch_optional(&mut *connection)
        .await?
        .ok_or(StoreError::ConsentUnknown)?;
    locks::person(connection, PersonId(person)).await.map_err(|error| match error {
        // Forgotten a moment ago, and the consent with them.
        StoreError::PersonUnknown => StoreError::ConsentUnknown,
        error => error,
    })?;
    let revoked = sqlx::query("UPDATE consent SET revoked_at = $1 WHERE cti = $2 AND revoked_at IS NULL")
        .bind(secs(now))
        .bind(cti.0.as_slice())
        .execute(&mut *connection)
        .await?
        .rows_affected();
    let event = if revoked == 0 { &[][..] } else { &[cti] };
    changes::append_in_order(connection, event, ChangeKind::Revoked, now).await
}

/// A page of a person's consents, newest first.
pub(super) async fn list(
    connection: &mut Connection,
    person: PersonId,
    now: UnixTime,
    after: Option<PageKey>,
    limit: u32,
) -> Result<Vec<IssuedConsent>, StoreError> {
    // Before the first page lies what is later than everything.
    let after = after.unwrap_or(PageKey { issued_at: UnixTime::MAX, cti: Cti([0xff; 16]) });
    let rows = sqlx::query(
        "SELECT cti, kind, scope, issued_at, expires_at, revoked_at FROM consent \
         WHERE person = $1 AND expires_at > $2 AND (issued_at, cti) < ($3, $4) \
         ORDER BY issued_at DESC, cti DESC LIMIT $5",
    )
    .bind(person.0)
    .bind(secs(now))
    .bind(secs(after.issued_at))
    .bind(after.cti.0.as_slice())
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await?;
    rows.iter().map(issued_consent).collect()
}

fn issued_consent(row: &Row) -> Result<IssuedConsent, StoreError> {
    Ok(IssuedConsent {
        cti: Cti(bytes(row, "cti")?),
        kind: Kind::from_number(uint(row, "kind")?).map_err(|_| corrupt("kind"))?,
        scope: Scope::from_bits(uint(row, "scope")?).map_err(|_| corrupt("scope"))?,
        issued_at: time(row, "issued_at")?,
        expires_at: time(row, "expires_at")?,
        revoked_at: optional_time(row, "revoked_at")?,
    })
}

/// Revokes what was issued to no device.
pub(super) async fn revoke_standing(
    connection: &mut Connection,
    now: UnixTime,
    random: &dyn Random,
) -> Result<u32, StoreError> {
    let live = "SELECT DISTINCT person FROM consent WHERE device IS NULL AND revoked_at IS NULL AND expires_at > $1";
    let honoured = secs(now.minus(HONOURED_AFTER_EXPIRY));
    let mut people: Vec<i64> = sqlx::query_scalar(live).bind(honoured).fetch_all(&mut *connection).await?;
    people.sort_unstable();
    locks::people(connection, &people).await?;
    let rows = sqlx::query(
        "UPDATE consent SET revoked_at = $1 \
         WHERE device IS NULL AND revoked_at IS NULL AND expires_at > $2 RETURNING cti",
    )
    .bind(secs(now))
    .bind(honoured)
    .fetch_all(&mut *connection)
    .await?;
    let revoked: Vec<_> = rows.iter().map(|row| Ok(Cti(bytes(row, "cti")?))).collect::<Result<_, StoreError>>()?;
    let count = revoked.len() as u32;
    changes::append(connection, revoked, ChangeKind::Revoked, now, random).await?;
    Ok(count)
}

/// Whether a lookup of this scope needs more than one statement.
pub(super) fn reads_evidence(scope: Scope) -> bool {
    [Scope::TESTS, Scope::VACCINATION, Scope::RISK_AREAS].into_iter().any(|evidence| scope.contains(evidence))
}

/// Who a person is. A device takes a document and a name; of whom evidence or the platform alone has named, nobody knows.
fn particulars(vault: &Vault, row: &Row) -> Result<Option<Particulars>, StoreError> {
    let Some((document, Some(name))) = rest::open(vault, row)?.document else { return Ok(None) };
    Ok(Some(Particulars { name: name.as_str().to_owned(), document_number: document.number().to_owned() }))
}

/// What stands behind a handle.
pub(super) async fn find(
    connection: &mut Connection,
    vault: &Vault,
    cti: Cti,
    scope: Scope,
) -> Result<Snapshot, StoreError> {
    let row = sqlx::query(FIND).bind(cti.0.as_slice()).fetch_one(&mut *connection).await?;
    let head = changes::read_head(&row)?;
    let Some(person) = row.try_get::<Option<i64>, _>("person")?.map(PersonId) else {
        return Ok(Snapshot { head, found: None });
    };
    let particulars = if scope.contains(Scope::IDENTITY_HINT) { particulars(vault, &row)? } else { None };
    let mut found = Found {
        person,
        token: TokenHash(bytes(&row, "token_hash")?),
        revoked: row.try_get::<Option<i64>, _>("revoked_at")?.is_some(),
        particulars,
        code: codes::read(&row)?,
        due_at: optional_time(&row, "due_at")?,
        tests: Vec::new(),
        doses: Vec::new(),
        visits: Vec::new(),
    };
    if scope.contains(Scope::TESTS) {
        found.tests = evidence::tests(connection, person).await?;
    }
    if scope.contains(Scope::VACCINATION) {
        found.doses = evidence::doses(connection, person).await?;
    }
    if scope.contains(Scope::RISK_AREAS) {
        found.visits = evidence::visits(connection, person).await?;
    }
    Ok(Snapshot { head, found: Some(found) })
}
