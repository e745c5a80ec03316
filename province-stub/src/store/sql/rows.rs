//! Between rows and the domain: what the schema cannot promise is checked when it is read.

use proto::time::UnixTime;
use sqlx::{Encode, QueryBuilder, Row as _, Type};
use thiserror::Error;

use super::{Database, Row};
use crate::store::StoreError;

/// The inside of `IN (…)`: at least one.
pub(super) fn list<'q, V>(query: &mut QueryBuilder<Database>, values: impl IntoIterator<Item = V>)
where
    V: Encode<'q, Database> + Type<Database> + Send + 'q,
{
    let mut list = query.separated(", ");
    for value in values {
        list.push_bind(value);
    }
}

/// A time as it is stored.
pub(super) fn secs(time: UnixTime) -> i64 {
    time.as_secs().cast_signed()
}

/// A column that holds a time.
pub(super) fn time(row: &Row, column: &'static str) -> Result<UnixTime, StoreError> {
    Ok(UnixTime::from_secs(uint(row, column)?))
}

/// A column that may hold a time.
pub(super) fn optional_time(row: &Row, column: &'static str) -> Result<Option<UnixTime>, StoreError> {
    if row.try_get::<Option<i64>, _>(column)?.is_some() { Ok(Some(time(row, column)?)) } else { Ok(None) }
}

/// A column that holds a number that is not negative.
pub(super) fn uint(row: &Row, column: &'static str) -> Result<u64, StoreError> {
    u64::try_from(row.try_get::<i64, _>(column)?).map_err(|_| corrupt(column))
}

/// A number as it is bound: what a database cannot count to lies behind all that it has.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A column that holds `N` bytes.
pub(super) fn bytes<const N: usize>(row: &Row, column: &'static str) -> Result<[u8; N], StoreError> {
    row.try_get::<&[u8], _>(column)?.try_into().map_err(|_| corrupt(column))
}

/// A stored value that is not as it was written.
#[derive(Debug, Error)]
#[error("column {0} holds what was never stored there")]
pub(super) struct Corrupt(&'static str);

/// The error for it.
pub(super) fn corrupt(column: &'static str) -> StoreError {
    StoreError::Unavailable(Corrupt(column).into())
}
