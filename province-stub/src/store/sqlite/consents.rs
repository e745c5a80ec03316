//! Consents: issued, found, revoked, and forgotten long after their end.
//!
//! Upholds I1: a consent is found with what revoked it, in one snapshot with its person's status and the log's head.

use proto::{
    random::Random,
    statement::{Dose, LogHead, MAX_DOSES, MAX_TESTS, MAX_VISITS, RiskVisit, TestResult},
    suite::VerifyingKey,
    terms::{Kind, Scope},
    time::UnixTime,
    token::{Cti, TokenHash},
};
use sqlx::{Row as _, SqliteConnection, sqlite::SqliteRow};

use super::{
    changes, codes, people,
    rows::{bytes, corrupt, secs, time, uint},
};
use crate::store::{
    ChangeKind, Found, HONOURED_AFTER_EXPIRY, IssuedConsent, NewConsent, PageKey, Particulars, PersonId, Snapshot,
    StoreError,
};

/// The log's head is always there; all else is there if the handle is known.
const FIND: &str = "
    SELECT log_head.epoch, log_head.seq, consent.token_hash, consent.revoked_at,
           person.id AS person, person.name, person.document_number,
           code.label, code.rule, code.authority, code.assigned_at
    FROM log_head
    LEFT JOIN consent ON consent.cti = ?
    LEFT JOIN person ON person.id = consent.person
    LEFT JOIN code ON code.id = (SELECT max(id) FROM code WHERE code.person = person.id)";

/// Keeps an issued consent.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    consent: &NewConsent,
    limit: u32,
) -> Result<(), StoreError> {
    if let Some(key) = &consent.token_key {
        people::check_key_is_new(connection, key).await?;
    }
    let live: u32 =
        sqlx::query_scalar("SELECT count(*) FROM consent WHERE person = ? AND revoked_at IS NULL AND expires_at > ?")
            .bind(consent.person.0)
            .bind(secs(consent.issued_at))
            .fetch_one(&mut *connection)
            .await?;
    if live >= limit {
        return Err(StoreError::TooManyConsents(limit));
    }
    sqlx::query(
        "INSERT INTO consent (cti, person, device, kind, token_hash, token_key, scope, issued_at, expires_at) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(consent.cti.0.as_slice())
    .bind(consent.person.0)
    .bind(consent.device.as_ref().map(|device| device.0.as_slice()))
    .bind(consent.kind.number())
    .bind(TokenHash::of(&consent.token).0.to_vec())
    .bind(consent.token_key.as_ref().map(VerifyingKey::encoded))
    .bind(consent.scope.bits())
    .bind(secs(consent.issued_at))
    .bind(secs(consent.expires_at))
    .execute(connection)
    .await?;
    Ok(())
}

/// If the consent is on paper, revokes the papers it takes the place of: a printed code that was lost dies with the reprint.
/// Returns the log's head behind these events.
pub(super) async fn replace_paper(
    connection: &mut SqliteConnection,
    consent: &NewConsent,
    random: &dyn Random,
) -> Result<LogHead, StoreError> {
    if consent.kind != Kind::Paper {
        return changes::head(connection).await;
    }
    let rows = sqlx::query(
        "UPDATE consent SET revoked_at = ?1 \
         WHERE person = ?2 AND kind = ?3 AND revoked_at IS NULL AND expires_at > ?4 RETURNING cti",
    )
    .bind(secs(consent.issued_at))
    .bind(consent.person.0)
    .bind(Kind::Paper.number())
    .bind(secs(consent.issued_at.minus(HONOURED_AFTER_EXPIRY)))
    .fetch_all(&mut *connection)
    .await?;
    let revoked = rows.iter().map(|row| Ok(Cti(bytes(row, "cti")?))).collect::<Result<_, StoreError>>()?;
    changes::append(connection, revoked, ChangeKind::Revoked, consent.issued_at, random).await
}

/// Revokes a consent. Doing so again changes nothing.
pub(super) async fn revoke(
    connection: &mut SqliteConnection,
    cti: Cti,
    of: Option<PersonId>,
    now: UnixTime,
) -> Result<LogHead, StoreError> {
    let known: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM consent WHERE cti = ?1 AND person = coalesce(?2, person))")
            .bind(cti.0.as_slice())
            .bind(of.map(|person| person.0))
            .fetch_one(&mut *connection)
            .await?;
    if !known {
        return Err(StoreError::ConsentUnknown);
    }
    let revoked = sqlx::query("UPDATE consent SET revoked_at = ? WHERE cti = ? AND revoked_at IS NULL")
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
    connection: &mut SqliteConnection,
    person: PersonId,
    now: UnixTime,
    after: Option<PageKey>,
    limit: u32,
) -> Result<Vec<IssuedConsent>, StoreError> {
    // Before the first page lies what is later than everything.
    let after = after.unwrap_or(PageKey { issued_at: UnixTime::MAX, cti: Cti([0xff; 16]) });
    let rows = sqlx::query(
        "SELECT cti, kind, scope, issued_at, expires_at, revoked_at FROM consent \
         WHERE person = ?1 AND expires_at > ?2 AND (issued_at, cti) < (?3, ?4) \
         ORDER BY issued_at DESC, cti DESC LIMIT ?5",
    )
    .bind(person.0)
    .bind(secs(now))
    .bind(secs(after.issued_at))
    .bind(after.cti.0.as_slice())
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(issued_consent).collect()
}

fn issued_consent(row: &SqliteRow) -> Result<IssuedConsent, StoreError> {
    let revoked = row.try_get::<Option<i64>, _>("revoked_at")?.is_some();
    Ok(IssuedConsent {
        cti: Cti(bytes(row, "cti")?),
        kind: Kind::from_number(uint(row, "kind")?).map_err(|_| corrupt("kind"))?,
        scope: Scope::from_bits(uint(row, "scope")?).map_err(|_| corrupt("scope"))?,
        issued_at: time(row, "issued_at")?,
        expires_at: time(row, "expires_at")?,
        revoked_at: if revoked { Some(time(row, "revoked_at")?) } else { None },
    })
}

/// Revokes what was issued to no device.
pub(super) async fn revoke_standing(
    connection: &mut SqliteConnection,
    now: UnixTime,
    random: &dyn Random,
) -> Result<u32, StoreError> {
    let rows = sqlx::query(
        "UPDATE consent SET revoked_at = ?1 \
         WHERE device IS NULL AND revoked_at IS NULL AND expires_at > ?2 RETURNING cti",
    )
    .bind(secs(now))
    .bind(secs(now.minus(HONOURED_AFTER_EXPIRY)))
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

/// What stands behind a handle.
pub(super) async fn find(connection: &mut SqliteConnection, cti: Cti, scope: Scope) -> Result<Snapshot, StoreError> {
    let row = sqlx::query(FIND).bind(cti.0.as_slice()).fetch_one(&mut *connection).await?;
    let head = LogHead { epoch: bytes(&row, "epoch")?, seq: uint(&row, "seq")? };
    let Some(person) = row.try_get::<Option<i64>, _>("person")?.map(PersonId) else {
        return Ok(Snapshot { head, found: None });
    };
    let mut found = Found {
        token: TokenHash(bytes(&row, "token_hash")?),
        revoked: row.try_get::<Option<i64>, _>("revoked_at")?.is_some(),
        particulars: Particulars { name: row.try_get("name")?, document_number: row.try_get("document_number")? },
        code: codes::read(&row)?,
        tests: Vec::new(),
        doses: Vec::new(),
        visits: Vec::new(),
    };
    if scope.contains(Scope::TESTS) {
        found.tests = tests(connection, person).await?;
    }
    if scope.contains(Scope::VACCINATION) {
        found.doses = doses(connection, person).await?;
    }
    if scope.contains(Scope::RISK_AREAS) {
        found.visits = visits(connection, person).await?;
    }
    Ok(Snapshot { head, found: Some(found) })
}

async fn tests(connection: &mut SqliteConnection, person: PersonId) -> Result<Vec<TestResult>, StoreError> {
    let rows = sqlx::query("SELECT sampled_at, positive FROM test WHERE person = ? ORDER BY sampled_at DESC LIMIT ?")
        .bind(person.0)
        .bind(MAX_TESTS as i64)
        .fetch_all(connection)
        .await?;
    let test = |row: &_| Ok(TestResult { sampled_at: time(row, "sampled_at")?, positive: uint(row, "positive")? != 0 });
    rows.iter().map(test).collect()
}

async fn doses(connection: &mut SqliteConnection, person: PersonId) -> Result<Vec<Dose>, StoreError> {
    let rows =
        sqlx::query("SELECT number, given_at FROM dose WHERE person = ? ORDER BY given_at DESC, number DESC LIMIT ?")
            .bind(person.0)
            .bind(MAX_DOSES as i64)
            .fetch_all(connection)
            .await?;
    let dose = |row: &_| {
        let number = u8::try_from(uint(row, "number")?).map_err(|_| corrupt("number"))?;
        Ok(Dose { number, given_at: time(row, "given_at")? })
    };
    rows.iter().map(dose).collect()
}

async fn visits(connection: &mut SqliteConnection, person: PersonId) -> Result<Vec<RiskVisit>, StoreError> {
    let rows =
        sqlx::query("SELECT area, high, left_at FROM visit WHERE person = ? ORDER BY left_at DESC, area LIMIT ?")
            .bind(person.0)
            .bind(MAX_VISITS as i64)
            .fetch_all(connection)
            .await?;
    let visit = |row: &_| {
        let area = u32::try_from(uint(row, "area")?).map_err(|_| corrupt("area"))?;
        Ok(RiskVisit { area, high: uint(row, "high")? != 0, left_at: time(row, "left_at")? })
    };
    rows.iter().map(visit).collect()
}
