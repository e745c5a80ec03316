//! What is on file about one person, for themselves and for operators, whose looks are on file too.

use proto::time::UnixTime;
use sqlx::Row as _;

use super::{
    Connection, Row, codes, evidence, people, rest,
    rows::{bytes, corrupt, optional_time, secs, time, uint},
};
use crate::{
    store::{
        DeviceId, Particulars, PersonId, StoreError,
        filing::{CodeOnFile, EvidenceOnFile, OperatorAccess, OperatorLook, Origin, PastCode, PersonFile},
    },
    vault::{Sealed, Vault},
};

/// Assignments that an export has at most, the latest ones.
const MAX_CODES: i64 = 10_000;
/// How an operator looked, as it is stored.
const EXPLAIN: &str = "explain_code";

/// A person's code with what it follows from.
pub(super) async fn code(connection: &mut Connection, person: PersonId) -> Result<Option<CodeOnFile>, StoreError> {
    let row = sqlx::query(
        "SELECT label, rule, authority, assigned_at, source, ends_at, evidence, due_at FROM person \
         JOIN code ON code.id = person.code WHERE person.id = $1",
    );
    let Some(row) = row.bind(person.0).fetch_optional(&mut *connection).await? else { return Ok(None) };
    let Some(code) = codes::read(&row)? else { return Ok(None) };
    let evidence = match row.try_get::<Option<i64>, _>("evidence")? {
        Some(id) => {
            let sql = format!("{} WHERE evidence.id = $1 AND evidence.class <> 0", evidence::ON_FILE);
            let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id).fetch_optional(connection).await?;
            row.as_ref().map(evidence::read_on_file).transpose()?
        }
        None => None,
    };
    let (ends_at, due_at) = (optional_time(&row, "ends_at")?, optional_time(&row, "due_at")?);
    Ok(Some(CodeOnFile { code, origin: origin(&row)?, ends_at, due_at, evidence }))
}

/// Puts an operator's look on file, and says at whom.
pub(super) async fn record_look(
    connection: &mut Connection,
    vault: &Vault,
    access: &OperatorAccess,
) -> Result<PersonId, StoreError> {
    let person = people::by_document(connection, vault, &access.document).await?.ok_or(StoreError::PersonUnknown)?;
    let key = rest::current(connection, vault).await?;
    let place = rest::access_place(access.now, &access.operator, EXPLAIN);
    sqlx::query(
        "INSERT INTO operator_access (person, at, operator, method, reason, key) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(person.0)
    .bind(secs(access.now))
    .bind(&access.operator)
    .bind(EXPLAIN)
    .bind(vault.seal(Sealed::Reason, &place, access.reason.as_bytes()))
    .bind(key)
    .execute(connection)
    .await?;
    Ok(person)
}

/// Up to `limit` looks at a person, newest first, those before a time and a number.
pub(super) async fn looks(
    connection: &mut Connection,
    vault: &Vault,
    person: PersonId,
    before: Option<(UnixTime, u64)>,
    limit: u32,
) -> Result<Vec<OperatorLook>, StoreError> {
    let (at, id) = before.unwrap_or((UnixTime::MAX, u64::MAX));
    let rows = sqlx::query(
        "SELECT operator_access.id, at, operator, method, reason, fingerprint FROM operator_access \
         LEFT JOIN rest_key ON rest_key.id = operator_access.key \
         WHERE person = $1 AND (at, operator_access.id) < ($2, $3) ORDER BY at DESC, operator_access.id DESC LIMIT $4",
    );
    let rows = rows.bind(person.0).bind(secs(at)).bind(super::rows::int(id)).bind(i64::from(limit));
    rows.fetch_all(connection).await?.iter().map(|row| read_look(vault, row)).collect()
}

fn read_look(vault: &Vault, row: &Row) -> Result<OperatorLook, StoreError> {
    let (at, operator) = (time(row, "at")?, row.try_get::<String, _>("operator")?);
    let place = rest::access_place(at, &operator, row.try_get("method")?);
    let reason = rest::open_text(vault, Sealed::Reason, &place, row, "reason")?.unwrap_or_default();
    Ok(OperatorLook { id: uint(row, "id")?, at, operator, reason })
}

/// Forgets looks from before a time, some rows at most.
pub(super) async fn sweep_looks(connection: &mut Connection, before: UnixTime, limit: i64) -> Result<u64, StoreError> {
    let swept =
        sqlx::query("DELETE FROM operator_access WHERE id IN (SELECT id FROM operator_access WHERE at < $1 LIMIT $2)");
    Ok(swept.bind(secs(before)).bind(limit).execute(connection).await?.rows_affected())
}

/// All that is on file about a person.
pub(super) async fn person(
    connection: &mut Connection,
    vault: &Vault,
    person: PersonId,
) -> Result<PersonFile, StoreError> {
    let named = people::named(connection, vault, person).await?;
    let particulars = named.document.map(|(document, name)| {
        let name = name.map(|name| name.as_str().to_owned()).unwrap_or_default();
        let particulars = Particulars { name, document_number: document.number().to_owned() };
        (document, particulars)
    });
    let devices = sqlx::query("SELECT id, enrolled_at FROM device WHERE person = $1 ORDER BY enrolled_at, id");
    let devices = devices.bind(person.0).fetch_all(&mut *connection).await?;
    let device = |row: &Row| Ok((DeviceId(bytes(row, "id")?), time(row, "enrolled_at")?));
    Ok(PersonFile {
        particulars,
        has_reference: named.reference.is_some(),
        devices: devices.iter().map(device).collect::<Result<_, StoreError>>()?,
        codes: past_codes(connection, vault, person).await?,
        evidence: all_evidence(connection, person).await?,
    })
}

async fn past_codes(connection: &mut Connection, vault: &Vault, person: PersonId) -> Result<Vec<PastCode>, StoreError> {
    let rows = sqlx::query(
        "SELECT person, label, rule, authority, assigned_at, recorded_at, source, set_by, request_id, justification, \
         fingerprint FROM code LEFT JOIN rest_key ON rest_key.id = code.key \
         WHERE person = $1 ORDER BY code.id DESC LIMIT $2",
    );
    let rows = rows.bind(person.0).bind(MAX_CODES).fetch_all(connection).await?;
    let code = |row: &Row| {
        let recorded_at = time(row, "recorded_at")?;
        let request_id: Option<&str> = row.try_get("request_id")?;
        let place = rest::code_place(person, recorded_at, request_id.unwrap_or_default());
        Ok(PastCode {
            label: row.try_get("label")?,
            rule: row.try_get("rule")?,
            authority: row.try_get("authority")?,
            assigned_at: time(row, "assigned_at")?,
            recorded_at,
            origin: origin(row)?,
            set_by: row.try_get("set_by")?,
            justification: rest::open_text(vault, Sealed::Justification, &place, row, "justification")?,
        })
    };
    rows.iter().map(code).collect()
}

async fn all_evidence(connection: &mut Connection, person: PersonId) -> Result<Vec<EvidenceOnFile>, StoreError> {
    let sql = format!("{} WHERE person = $1 ORDER BY at DESC, evidence.id DESC", evidence::ON_FILE);
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(person.0).fetch_all(connection).await?;
    rows.iter().map(evidence::read_on_file).collect()
}

fn origin(row: &Row) -> Result<Origin, StoreError> {
    Origin::from_word(row.try_get("source")?).ok_or_else(|| corrupt("source"))
}
