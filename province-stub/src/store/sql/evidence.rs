//! Evidence: what a source told of a person, of which a statement discloses tests, doses and stays.

use proto::statement::{Dose, MAX_DOSES, MAX_TESTS, MAX_VISITS, RiskVisit, TestResult};
use sqlx::Row as _;

use super::{
    Connection, Row,
    rows::{corrupt, optional_time, time, uint},
};
use crate::{
    evidence::{Evidence, EvidenceId, Fact, Risk},
    store::{PersonId, StoreError, filing::EvidenceOnFile},
};

/// The classes of evidence, as they are stored.
pub(super) const WITHDRAWN: i64 = 0;
pub(super) const TEST: i64 = 1;
pub(super) const DOSE: i64 = 2;
pub(super) const STAY: i64 = 3;
pub(super) const CASE: i64 = 4;
pub(super) const CONTACT: i64 = 5;
pub(super) const LISTING: i64 = 6;
/// The risk that an area was listed with.
pub(super) const MEDIUM: i64 = 2;
pub(super) const HIGH: i64 = 3;

/// A person's tests, latest first.
pub(super) async fn tests(connection: &mut Connection, person: PersonId) -> Result<Vec<TestResult>, StoreError> {
    let rows = sqlx::query(
        "SELECT at, detail FROM evidence WHERE person = $1 AND class = $2 ORDER BY at DESC, id DESC LIMIT $3",
    );
    let rows = rows.bind(person.0).bind(TEST).bind(MAX_TESTS as i64).fetch_all(connection).await?;
    let test = |row: &Row| Ok(TestResult { sampled_at: time(row, "at")?, positive: uint(row, "detail")? != 0 });
    rows.iter().map(test).collect()
}

/// A person's doses, latest first.
pub(super) async fn doses(connection: &mut Connection, person: PersonId) -> Result<Vec<Dose>, StoreError> {
    let rows = sqlx::query(
        "SELECT at, detail FROM evidence WHERE person = $1 AND class = $2 ORDER BY at DESC, detail DESC LIMIT $3",
    );
    let rows = rows.bind(person.0).bind(DOSE).bind(MAX_DOSES as i64).fetch_all(connection).await?;
    let dose = |row: &Row| {
        let number = u8::try_from(uint(row, "detail")?).map_err(|_| corrupt("detail"))?;
        Ok(Dose { number, given_at: time(row, "at")? })
    };
    rows.iter().map(dose).collect()
}

/// A person's stays in areas of medium and high risk, latest first.
pub(super) async fn visits(connection: &mut Connection, person: PersonId) -> Result<Vec<RiskVisit>, StoreError> {
    let rows = sqlx::query(
        "SELECT until, detail, grade FROM evidence WHERE person = $1 AND class = $2 AND grade >= $3 \
         ORDER BY until DESC, detail LIMIT $4",
    );
    let rows = rows.bind(person.0).bind(STAY).bind(MEDIUM).bind(MAX_VISITS as i64).fetch_all(connection).await?;
    let visit = |row: &Row| {
        let area = u32::try_from(uint(row, "detail")?).map_err(|_| corrupt("detail"))?;
        Ok(RiskVisit { area, high: uint(row, "grade")? == HIGH.cast_unsigned(), left_at: time(row, "until")? })
    };
    rows.iter().map(visit).collect()
}

/// A fact from a row of `id`, `class`, `at`, `until`, `detail`, `grade`, `authority` and `received_at`.
pub(super) fn read(row: &Row) -> Result<Evidence, StoreError> {
    let (at, until) = (time(row, "at")?, optional_time(row, "until")?);
    let detail = uint(row, "detail")?;
    let fact = match row.try_get("class")? {
        TEST => Fact::Test { sampled_at: at, positive: detail != 0 },
        DOSE => Fact::Dose { number: u8::try_from(detail).map_err(|_| corrupt("detail"))?, given_at: at },
        STAY => Fact::Stay {
            area: u32::try_from(detail).map_err(|_| corrupt("detail"))?,
            entered_at: at,
            left_at: until.ok_or_else(|| corrupt("until"))?,
        },
        CASE => Fact::Case { since: at, ended_at: until },
        CONTACT => Fact::Contact { last_at: at },
        _ => return Err(corrupt("class")),
    };
    let authority = row.try_get::<Option<&str>, _>("authority")?.map(str::parse).transpose();
    Ok(Evidence {
        id: EvidenceId(row.try_get("id")?),
        fact,
        risk: if matches!(fact, Fact::Stay { .. }) { Risk::from_number(uint(row, "grade")?) } else { None },
        authority: authority.map_err(|_| corrupt("authority"))?,
        received_at: time(row, "received_at")?,
    })
}

/// A record with where it came from, from a row of `source` (its name), `record` and all that [`read`] asks for.
pub(super) fn read_on_file(row: &Row) -> Result<EvidenceOnFile, StoreError> {
    Ok(EvidenceOnFile { source: row.try_get("source")?, record: row.try_get("record")?, evidence: read(row)? })
}

/// The columns of [`read_on_file`].
pub(super) const ON_FILE: &str = "
    SELECT evidence.id, source.name AS source, record, class, at, until, detail, grade, authority, received_at
    FROM evidence JOIN source ON source.id = evidence.source";
