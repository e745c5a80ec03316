//! The schema, brought into a database that is empty, and found in one that is not.

use sqlx::{
    SqlSafeStr as _,
    migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator},
};

use super::StoreError;

/// Runs what has not been run yet. No release has been made: there is one edition of the schema, and none that anything is
/// brought forward from.
pub(super) async fn run<C>(pool: &sqlx::Pool<C>, initial: &'static str) -> Result<(), StoreError>
where
    C: sqlx::Database,
    C::Connection: Migrate,
{
    let initial = Migration::new(1, "initial".into(), MigrationType::Simple, initial.into_sql_str(), false);
    match Migrator::with_migrations(vec![initial]).run(pool).await {
        Ok(()) => Ok(()),
        Err(MigrateError::VersionMissing(_) | MigrateError::VersionMismatch(_)) => Err(StoreError::Unavailable(
            "it was made by an earlier development version; remove it, or name another data_dir".into(),
        )),
        Err(error) => Err(StoreError::Unavailable(error.into())),
    }
}
