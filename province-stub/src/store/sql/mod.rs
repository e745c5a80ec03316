//! The store in SQL: every operation of [`Store`], once, for every backend.
//!
//! Upholds I4: a change and its events are one transaction, and what a lookup reads is of one snapshot.
//!
//! Each backend declares this module by its path, so that one source is compiled for each database, with the types and the
//! few small functions that `super` has for it. Generics would say the same with a dozen bounds on every function, for each
//! type that is bound or read; a driver that chooses at run time would take numbers and texts alone. What all databases
//! understand is a little less than each does: parameters are `$1, $2 …`, numbers are 64 bits, an error of one statement
//! is the end of its transaction, and whatever has to wait for somebody else asks [`locks`] first.

mod accesses;
mod assessment;
pub(super) mod changes;
mod codes;
mod consents;
mod deletion;
pub(super) mod epoch;
mod evidence;
mod file;
mod intake;
mod merge;
mod people;
mod pushed;
mod regrade;
mod requests;
pub(super) mod rest;
mod rows;

use std::time::Duration;

use proto::{log::LogId, random::Random, statement::LogHead, terms::Scope, time::UnixTime, token::Cti};
use tokio::sync::watch;
use tracing::error;

use self::pushed::Push;
use super::{Backend, Connection, Database, Row, Transaction, locks};
use crate::{
    assessment::Assess,
    document::Document,
    request::RequestKey,
    store::{
        Assigned, CHANGE_RETENTION, CONSENT_RETENTION, Change, Device, DeviceId, Forgotten, IssuedConsent, IssuedToken,
        NewAssignment, NewConsent, NewDevice, NewPerson, PageKey, PersonId, REQUEST_RETENTION, Retention, Snapshot,
        Store, StoreError,
        access_log::{AccessKey, Delivered, Delivery, LogOnFile, RecordOnFile, TravelerAccess},
        filing::{
            Cleared, CodeOnFile, Effect, Intake, OperatorAccess, OperatorLook, PersonFile, PushedCode, PushedIn,
            Reassessed, TakenIn,
        },
    },
};

/// What every batch asks about evidence: each must be found by this index, however much evidence there is.
#[cfg(test)]
pub(super) fn asked_of_evidence() -> [(String, &'static str); 4] {
    [
        (format!("{}1 AND person IN (1, 2) GROUP BY person", intake::FILED), "evidence_of_person"),
        (format!("{}110101, 110102)", intake::LISTINGS), "evidence_of_area"),
        (regrade::STAYS.replace("$1", "110101").replace("$2", "1").replace("$3", "200"), "evidence_of_area"),
        (regrade::LISTINGS.replace("$1", "110101"), "evidence_of_area"),
    ]
}

/// Rows of one table that one sweep forgets at most: some ten milliseconds.
const SWEPT_AT_ONCE: i64 = 2_000;
/// What is forgotten, and when.
const SWEEPS: [(&str, Duration); 3] = [
    (
        "DELETE FROM request WHERE (caller, id) IN (SELECT caller, id FROM request WHERE at < $1 LIMIT $2)",
        REQUEST_RETENTION,
    ),
    ("DELETE FROM change_log WHERE seq IN (SELECT seq FROM change_log WHERE at < $1 LIMIT $2)", CHANGE_RETENTION),
    ("DELETE FROM consent WHERE cti IN (SELECT cti FROM consent WHERE expires_at < $1 LIMIT $2)", CONSENT_RETENTION),
];

impl Backend {
    /// Begins a new epoch of the change log: whoever restored the store where nobody could see it says so with this.
    pub async fn renew_epoch(&self, random: &dyn Random) -> Result<LogHead, StoreError> {
        self.attempt(|| async move {
            let mut tx = self.begin().await?;
            let head = epoch::renew(&mut tx, random).await?;
            self.commit(tx).await?;
            Ok(head)
        })
        .await
    }

    /// Commits what may have made events, and tells who waits for them. The witness comes first: no event is ever told
    /// that it does not know of.
    pub(super) async fn commit(&self, mut tx: Transaction) -> Result<(), StoreError> {
        let head = changes::head(&mut tx).await?;
        self.witness.note(head).map_err(|error| StoreError::Unavailable(error.into()))?;
        tx.commit().await?;
        self.committed.send_replace(());
        Ok(())
    }

    /// Takes in a delivery. `None`: whether it or this store tells another story than was told before has to be judged.
    async fn take_in(&self, delivery: &Delivery, sound: bool) -> Result<Option<Delivered>, StoreError> {
        self.attempt(|| async move {
            let mut tx = self.begin().await?;
            let delivered = accesses::record(&mut tx, delivery, sound).await?;
            if delivered.is_some() {
                tx.commit().await?;
            }
            Ok(delivered)
        })
        .await
    }

    /// Nobody is accused of a second history for what was damaged here.
    async fn judge(&self, delivery: &Delivery) -> Result<Delivered, StoreError> {
        let busy = || StoreError::Unavailable("an access log's records are being read for another delivery".into());
        let _alone = self.judging.try_lock().map_err(|_| busy())?;
        let sound = accesses::is_sound(self, delivery.log).await?;
        if !sound {
            error!(log = %delivery.log, "an access log's records on file are not those that were taken in: see `access verify`");
            return Err(rows::corrupt("record"));
        }
        let delivered = self.take_in(delivery, true).await?;
        Ok(delivered.expect("what is sound is judged"))
    }
}

impl Store for Backend {
    async fn enroll_device(
        &self,
        request: &RequestKey,
        device: &NewDevice,
        limit: u32,
    ) -> Result<(DeviceId, LogHead), StoreError> {
        let vault = self.vault()?;
        self.attempt(|| async move {
            let mut tx = self.begin().await?;
            let head = changes::head(&mut tx).await?;
            if let Some(earlier) = requests::answered(&mut tx, vault, request).await? {
                return Ok((earlier?, head));
            }
            let person = people::enroll(&mut tx, vault, device, limit).await?;
            requests::remember(&mut tx, vault, request, person, &device.id).await?;
            // Two people on file may have become one: somebody has to look what their code is now.
            self.commit(tx).await?;
            Ok((device.id, head))
        })
        .await
    }

    async fn device(&self, id: DeviceId) -> Result<Device, StoreError> {
        self.attempt(|| async move { people::device(&mut *self.reader().await?, id).await }).await
    }

    async fn issue_consent(
        &self,
        request: &RequestKey,
        consent: &NewConsent,
        limit: u32,
        random: &dyn Random,
    ) -> Result<(IssuedToken, LogHead), StoreError> {
        let vault = self.vault()?;
        self.attempt(|| async move {
            let mut tx = self.begin().await?;
            if let Some(earlier) = requests::answered(&mut tx, vault, request).await? {
                return Ok((earlier?, changes::head(&mut tx).await?));
            }
            let head = consents::issue(&mut tx, consent, limit, random).await?;
            let issued = IssuedToken { cti: consent.cti, expires_at: consent.expires_at, token: consent.token.clone() };
            requests::remember(&mut tx, vault, request, consent.person, &issued).await?;
            self.commit(tx).await?;
            Ok((issued, head))
        })
        .await
    }

    async fn issue_standing(&self, consents: &[NewConsent], limit: u32) -> Result<(), StoreError> {
        self.attempt_at_length(|| async move {
            let mut tx = self.begin().await?;
            consents::issue_standing(&mut tx, consents, limit).await?;
            tx.commit().await?;
            Ok(())
        })
        .await
    }

    async fn revoke_consent(&self, cti: Cti, of: Option<PersonId>, now: UnixTime) -> Result<LogHead, StoreError> {
        self.attempt(|| async move {
            let mut tx = self.begin().await?;
            let head = consents::revoke(&mut tx, cti, of, now).await?;
            self.commit(tx).await?;
            Ok(head)
        })
        .await
    }

    async fn consents(
        &self,
        person: PersonId,
        now: UnixTime,
        after: Option<PageKey>,
        limit: u32,
    ) -> Result<Vec<IssuedConsent>, StoreError> {
        self.attempt(|| async move { consents::list(&mut *self.reader().await?, person, now, after, limit).await })
            .await
    }

    async fn revoke_standing(&self, now: UnixTime, random: &dyn Random) -> Result<u32, StoreError> {
        self.attempt_at_length(|| async move {
            let mut tx = self.begin().await?;
            let revoked = consents::revoke_standing(&mut tx, now, random).await?;
            self.commit(tx).await?;
            Ok(revoked)
        })
        .await
    }

    async fn delete_traveler(
        &self,
        device: DeviceId,
        now: UnixTime,
        random: &dyn Random,
    ) -> Result<Forgotten, StoreError> {
        let forgotten = self.attempt(|| async move {
            let mut tx = self.begin().await?;
            let forgotten = deletion::forget(&mut tx, device, now, random).await?;
            self.commit(tx).await?;
            Ok(forgotten)
        });
        let forgotten = forgotten.await?;
        self.wipe().await;
        Ok(forgotten)
    }

    async fn find(&self, cti: Cti, scope: Scope) -> Result<Snapshot, StoreError> {
        let vault = self.vault()?;
        self.attempt(|| async move {
            if consents::reads_evidence(scope) {
                // Dropping a transaction that only read ends its snapshot.
                return consents::find(&mut *self.snapshot().await?, vault, cti, scope).await;
            }
            // One statement is a snapshot of its own, and most lookups need no more.
            consents::find(&mut *self.reader().await?, vault, cti, scope).await
        })
        .await
    }

    async fn set_code(
        &self,
        request: &RequestKey,
        assignment: &NewAssignment,
        random: &dyn Random,
    ) -> Result<Assigned, StoreError> {
        let vault = self.vault()?;
        self.attempt(|| async move {
            let mut tx = self.begin().await?;
            if let Some(earlier) = requests::answered(&mut tx, vault, request).await? {
                return earlier;
            }
            let (person, assigned) = codes::set(&mut tx, vault, &request.id, assignment, random).await?;
            requests::remember(&mut tx, vault, request, person, &assigned).await?;
            self.commit(tx).await?;
            Ok(assigned)
        })
        .await
    }

    async fn seed(&self, people: &[NewPerson], now: UnixTime) -> Result<u32, StoreError> {
        let vault = self.vault()?;
        self.attempt_at_length(|| async move {
            let mut tx = self.begin().await?;
            let added = people::seed(&mut tx, vault, people, now).await?;
            tx.commit().await?;
            Ok(added)
        })
        .await
    }

    async fn person_by_document(&self, document: &Document) -> Result<Option<PersonId>, StoreError> {
        let vault = self.vault()?;
        self.attempt(|| async move { people::by_document(&mut *self.reader().await?, vault, document).await }).await
    }

    async fn head(&self) -> Result<LogHead, StoreError> {
        self.attempt(|| async move { changes::head(&mut *self.reader().await?).await }).await
    }

    fn commits(&self) -> watch::Receiver<()> {
        self.committed.subscribe()
    }

    async fn changes(&self, after: u64, limit: u32) -> Result<Vec<Change>, StoreError> {
        self.attempt(|| async move { changes::after(&mut *self.reader().await?, after, limit).await }).await
    }

    async fn record_accesses(&self, delivery: &Delivery) -> Result<Delivered, StoreError> {
        if let Some(delivered) = self.take_in(delivery, false).await? {
            return Ok(delivered);
        }
        // It may take longer than anybody waits: what is found then is what the next delivery hears.
        let (store, delivery) = (self.clone(), delivery.clone());
        let judged = tokio::spawn(async move { store.judge(&delivery).await });
        judged.await.map_err(|error| StoreError::Unavailable(error.into()))?
    }

    async fn accesses(
        &self,
        person: PersonId,
        until: UnixTime,
        after: Option<AccessKey>,
        limit: u32,
    ) -> Result<Vec<TravelerAccess>, StoreError> {
        self.attempt(|| async move { accesses::list(&mut *self.reader().await?, person, until, after, limit).await })
            .await
    }

    async fn access_logs(&self) -> Result<Vec<LogOnFile>, StoreError> {
        self.attempt(|| async move { accesses::logs(&mut *self.snapshot().await?).await }).await
    }

    async fn access_records(&self, log: LogId, from: u64, limit: u32) -> Result<Vec<RecordOnFile>, StoreError> {
        self.attempt(|| async move { accesses::records(&mut *self.reader().await?, log, from, limit).await }).await
    }

    async fn sweep(&self, now: UnixTime, retention: Retention) -> Result<u64, StoreError> {
        let mut forgotten = 0;
        // A transaction each: what takes too long in one holds up no other.
        for (statement, kept) in SWEEPS {
            forgotten += self
                .attempt_at_length(|| async move {
                    let mut tx = self.begin().await?;
                    let before = rows::secs(now.minus(kept));
                    let swept = sqlx::query(statement).bind(before).bind(SWEPT_AT_ONCE).execute(&mut *tx).await?;
                    self.commit(tx).await?;
                    Ok(swept.rows_affected())
                })
                .await?;
        }
        let (accesses, evidence) = (now.minus(retention.accesses), now.minus(retention.evidence));
        forgotten += self
            .attempt_at_length(|| async move {
                let mut tx = self.begin().await?;
                let swept = accesses::sweep(&mut tx, accesses, SWEPT_AT_ONCE).await?
                    + file::sweep_looks(&mut tx, accesses, SWEPT_AT_ONCE).await?;
                self.commit(tx).await?;
                Ok(swept)
            })
            .await?;
        forgotten += self
            .attempt_at_length(|| async move {
                let mut tx = self.begin().await?;
                let swept = regrade::sweep(&mut tx, evidence, now, SWEPT_AT_ONCE).await?
                    + assessment::sweep(&mut tx, evidence, SWEPT_AT_ONCE).await?;
                self.commit(tx).await?;
                Ok(swept)
            })
            .await?;
        if forgotten == 0 {
            // What was still in use when a traveler was forgotten, or was swept before this, leaves the files now.
            self.wipe().await;
        }
        Ok(forgotten)
    }

    async fn put_evidence(
        &self,
        intake: &Intake<'_>,
        assess: &dyn Assess,
        random: &dyn Random,
    ) -> Result<TakenIn, StoreError> {
        let vault = self.vault()?;
        self.attempt_at_length(|| async move {
            let mut tx = self.begin().await?;
            let taken = intake::take_in(&mut tx, vault, intake, assess, random).await?;
            if !intake.dry_run {
                self.commit(tx).await?;
            }
            Ok(taken)
        })
        .await
    }

    async fn put_codes(
        &self,
        request: &RequestKey,
        codes: &[Option<PushedCode>],
        assess: &dyn Assess,
        random: &dyn Random,
    ) -> Result<PushedIn, StoreError> {
        let vault = self.vault()?;
        self.attempt_at_length(|| async move {
            let mut tx = self.begin().await?;
            if let Some(earlier) = requests::answered(&mut tx, vault, request).await? {
                return earlier;
            }
            let push = Push { platform: &request.caller, request_id: &request.id, now: request.at };
            let pushed = pushed::take_in(&mut tx, vault, push, codes, assess, random).await?;
            requests::remember_of_many(&mut tx, vault, request, &pushed).await?;
            self.commit(tx).await?;
            Ok(pushed)
        })
        .await
    }

    async fn clear_code(
        &self,
        request: &RequestKey,
        cleared: &Cleared,
        assess: &dyn Assess,
        random: &dyn Random,
    ) -> Result<Effect, StoreError> {
        let vault = self.vault()?;
        self.attempt(|| async move {
            let mut tx = self.begin().await?;
            if let Some(earlier) = requests::answered(&mut tx, vault, request).await? {
                return earlier;
            }
            let (person, effect) = pushed::clear(&mut tx, vault, &request.id, cleared, assess, random).await?;
            requests::remember(&mut tx, vault, request, person, &effect).await?;
            self.commit(tx).await?;
            Ok(effect)
        })
        .await
    }

    async fn next_due(&self) -> Result<Option<UnixTime>, StoreError> {
        self.attempt(|| async move { assessment::next_due(&mut *self.reader().await?).await }).await
    }

    async fn reassess_due(
        &self,
        limit: u32,
        assess: &dyn Assess,
        now: UnixTime,
        random: &dyn Random,
    ) -> Result<Reassessed, StoreError> {
        self.attempt_at_length(|| async move {
            let mut tx = self.begin().await?;
            let reassessed = assessment::due(&mut tx, limit, assess, now, random).await?;
            self.commit(tx).await?;
            Ok(reassessed)
        })
        .await
    }

    async fn reassess_person(
        &self,
        person: PersonId,
        assess: &dyn Assess,
        now: UnixTime,
        random: &dyn Random,
    ) -> Result<Reassessed, StoreError> {
        self.attempt(|| async move {
            let mut tx = self.begin().await?;
            let reassessed = assessment::one(&mut tx, person, assess, now, random).await?;
            self.commit(tx).await?;
            Ok(reassessed)
        })
        .await
    }

    async fn reassess_following(
        &self,
        after: PersonId,
        limit: u32,
        assess: &dyn Assess,
        now: UnixTime,
        random: &dyn Random,
    ) -> Result<(Reassessed, Option<PersonId>), StoreError> {
        self.attempt_at_length(|| async move {
            let mut tx = self.begin().await?;
            let reassessed = assessment::following(&mut tx, after, limit, assess, now, random).await?;
            self.commit(tx).await?;
            Ok(reassessed)
        })
        .await
    }

    async fn assessed_rules(&self) -> Result<u64, StoreError> {
        self.attempt(|| async move { assessment::rules(&mut *self.reader().await?).await }).await
    }

    async fn set_assessed_rules(&self, digest: u64) -> Result<(), StoreError> {
        self.attempt(|| async move {
            let mut tx = self.begin().await?;
            assessment::set_rules(&mut tx, digest).await?;
            self.commit(tx).await
        })
        .await
    }

    async fn code_on_file(&self, person: PersonId) -> Result<Option<CodeOnFile>, StoreError> {
        self.attempt(|| async move { file::code(&mut *self.snapshot().await?, person).await }).await
    }

    async fn record_operator_access(&self, access: &OperatorAccess) -> Result<PersonId, StoreError> {
        let vault = self.vault()?;
        self.attempt(|| async move {
            let mut tx = self.begin().await?;
            let person = file::record_look(&mut tx, vault, access).await?;
            tx.commit().await?;
            Ok(person)
        })
        .await
    }

    async fn operator_looks(
        &self,
        person: PersonId,
        before: Option<(UnixTime, u64)>,
        limit: u32,
    ) -> Result<Vec<OperatorLook>, StoreError> {
        let vault = self.vault()?;
        let look = || async move { file::looks(&mut *self.reader().await?, vault, person, before, limit).await };
        self.attempt(look).await
    }

    async fn person_file(&self, person: PersonId) -> Result<PersonFile, StoreError> {
        let vault = self.vault()?;
        self.attempt(|| async move { file::person(&mut *self.snapshot().await?, vault, person).await }).await
    }

    async fn reseal(&self, limit: u32) -> Result<u64, StoreError> {
        let vault = self.vault()?;
        self.attempt_at_length(|| async move {
            let mut tx = self.begin().await?;
            let resealed = rest::reseal(&mut tx, vault, limit).await?;
            tx.commit().await?;
            Ok(resealed)
        })
        .await
    }

    async fn close(&self) {
        self.let_go().await;
    }
}
