//! Evidence: what a source told of a person, of which a statement discloses tests, doses and stays.

use proto::statement::{Dose, MAX_DOSES, MAX_TESTS, MAX_VISITS, RiskVisit, TestResult};

use super::{
    Connection, Row,
    rows::{corrupt, time, uint},
};
use crate::store::{PersonId, StoreError};

/// The classes of evidence, as they are stored.
pub(super) const TEST: i64 = 1;
pub(super) const DOSE: i64 = 2;
pub(super) const STAY: i64 = 3;
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
