//! What a node must remember, in the domain's own words: the [`Store`] trait that every backend implements and its types.
//!
//! Upholds I4 (a new status and its change events are one transaction; a lookup reads status and log head in one
//! snapshot) and I1 (a consent that was revoked is never found unrevoked afterwards). No SQL here: `store/sql` has it, once
//! for every backend. [`sqlite`] is the embedded one, [`postgres`] the one of a server, and the tests in `store/suite.rs`
//! run against any.

pub mod access_log;
pub mod filing;
mod migrations;
pub mod postgres;
pub mod sqlite;
#[cfg(test)]
mod suite;
mod types;
mod witness;

use std::{fmt, future::Future, time::Duration};

use proto::{
    log::LogId,
    random::Random,
    refusal::{Reason, Refusal},
    statement::LogHead,
    terms::Scope,
    time::{CLOCK_LEEWAY, UnixTime},
    token::Cti,
};
use thiserror::Error;
use tokio::sync::watch;

use self::{
    access_log::{AccessKey, Delivered, Delivery, LogOnFile, RecordOnFile, TravelerAccess},
    filing::{
        Cleared, CodeOnFile, Effect, Intake, OperatorAccess, OperatorLook, PersonFile, PushedCode, PushedIn,
        Reassessed, TakenIn,
    },
};
use crate::{assessment::Assess, document::Document, request::RequestKey};

pub use self::types::{
    Assigned, Change, ChangeKind, Code, Device, DeviceId, Forgotten, Found, IssuedConsent, IssuedToken, Name,
    NewAssignment, NewConsent, NewDevice, NewPerson, PageKey, Particulars, PersonId, Snapshot,
};

/// How long past its expiry a consent may still be honoured by somebody: the leeway of whoever checks it, and as much
/// again for a clock that is behind the node's. Until then its changes are events.
pub const HONOURED_AFTER_EXPIRY: Duration = Duration::from_secs(2 * CLOCK_LEEWAY.as_secs());
/// How long an answered request keeps its answer.
pub const REQUEST_RETENTION: Duration = Duration::from_secs(24 * 3600);
/// How long change events are kept; a stream resumes for at least 24 h.
pub const CHANGE_RETENTION: Duration = Duration::from_secs(48 * 3600);
/// How long after its expiry a consent is kept, so that access records that come late still find their traveler.
pub const CONSENT_RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);

/// What a node remembers. Every operation is one transaction, durable when it returns.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Binds a device to a person, who is added without a code if the store does not have them. At most `limit` devices
    /// per person. Idempotent; the head is the one of now, of a repeated request too.
    fn enroll_device(
        &self,
        request: &RequestKey,
        device: &NewDevice,
        limit: u32,
    ) -> impl Future<Output = Result<(DeviceId, LogHead), StoreError>> + Send;

    /// An enrolled device.
    fn device(&self, id: DeviceId) -> impl Future<Output = Result<Device, StoreError>> + Send;

    /// Keeps an issued consent, at most `limit` live ones per person, and returns its token: the earlier one when the
    /// request was answered before. A paper consent takes the place of the person's live paper consents, whose
    /// revocations are events. An ordinary issue is none. The head is the one behind these events, in the same
    /// transaction; of a repeated request the one of now, which is no earlier.
    fn issue_consent(
        &self,
        request: &RequestKey,
        consent: &NewConsent,
        limit: u32,
        random: &dyn Random,
    ) -> impl Future<Output = Result<(IssuedToken, LogHead), StoreError>> + Send;

    /// Keeps many issued consents of no device, all or none, under the same limits.
    fn issue_standing(
        &self,
        consents: &[NewConsent],
        limit: u32,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Revokes a consent, of this person if one is named; the first time it is an event.
    fn revoke_consent(
        &self,
        cti: Cti,
        of: Option<PersonId>,
        now: UnixTime,
    ) -> impl Future<Output = Result<LogHead, StoreError>> + Send;

    /// Up to `limit` consents of a person that have not expired, newest first, those after `after` in that order.
    fn consents(
        &self,
        person: PersonId,
        now: UnixTime,
        after: Option<PageKey>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<IssuedConsent>, StoreError>> + Send;

    /// Revokes all live consents of no device, each an event, and says how many they were.
    fn revoke_standing(
        &self,
        now: UnixTime,
        random: &dyn Random,
    ) -> impl Future<Output = Result<u32, StoreError>> + Send;

    /// Forgets the person of a device: all that the store has of them. Every consent of theirs that may still be honoured is
    /// one event, revoked, in an order that `random` shuffles. Access records that were bound to them stay, bound to nobody.
    fn delete_traveler(
        &self,
        device: DeviceId,
        now: UnixTime,
        random: &dyn Random,
    ) -> impl Future<Output = Result<Forgotten, StoreError>> + Send;

    /// Everything a lookup needs, read in one snapshot: the log's head, and what stands behind the handle. Of the
    /// evidence only what `scope` discloses is read.
    fn find(&self, cti: Cti, scope: Scope) -> impl Future<Output = Result<Snapshot, StoreError>> + Send;

    /// Assigns a code. Every consent of the person that may still be honoured is one event, in an order that `random`
    /// shuffles; assigning the status that already holds is recorded and is no event. Idempotent.
    fn set_code(
        &self,
        request: &RequestKey,
        assignment: &NewAssignment,
        random: &dyn Random,
    ) -> impl Future<Output = Result<Assigned, StoreError>> + Send;

    /// Adds people, with evidence that came now; whom the store has already stays as they are. Returns how many were added.
    fn seed(&self, people: &[NewPerson], now: UnixTime) -> impl Future<Output = Result<u32, StoreError>> + Send;

    /// A person, found by document.
    fn person_by_document(
        &self,
        document: &Document,
    ) -> impl Future<Output = Result<Option<PersonId>, StoreError>> + Send;

    /// The committed head of the change log.
    fn head(&self) -> impl Future<Output = Result<LogHead, StoreError>> + Send;

    /// Tells, soon after, that this process has committed events. A hint: other processes of the same store give none.
    fn commits(&self) -> watch::Receiver<()>;

    /// Up to `limit` events after number `after`, in order.
    fn changes(&self, after: u64, limit: u32) -> impl Future<Output = Result<Vec<Change>, StoreError>> + Send;

    /// Takes in records of an access log, all or none: [`access_log::HeldLog::followed_by`] says what becomes of them. Each
    /// is bound to whose consent it was, as far as that is known now. Idempotent. A conflict is one only with records that are
    /// on file as they came: if they were damaged since, the store does not answer.
    fn record_accesses(&self, delivery: &Delivery) -> impl Future<Output = Result<Delivered, StoreError>> + Send;

    /// Up to `limit` accesses that are bound to a person, none of them after `until`, newest first, those after `after` in
    /// that order. One that says it is of a time later than it came has its place where it came.
    fn accesses(
        &self,
        person: PersonId,
        until: UnixTime,
        after: Option<AccessKey>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<TravelerAccess>, StoreError>> + Send;

    /// All access logs on file.
    fn access_logs(&self) -> impl Future<Output = Result<Vec<LogOnFile>, StoreError>> + Send;

    /// Up to `limit` records on file of an access log, from index `from` on, in order.
    fn access_records(
        &self,
        log: LogId,
        from: u64,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<RecordOnFile>, StoreError>> + Send;

    /// Forgets some of what is past its retention, and says how much: nothing when it is done. One transaction is short,
    /// so that nobody waits for it. The change log's head stays. Access records are kept for `retention.accesses` after they
    /// came, and forgotten from the start of their log on, whose base moves with them; evidence of conflicts stays. So are
    /// operators' looks; a person's evidence is forgotten when it has been over for `retention.evidence`, but for doses, and so
    /// are assignments that hold no more.
    fn sweep(&self, now: UnixTime, retention: Retention) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Takes in evidence, and changes the codes that follow by `assess`, with their events. Whatever is about a person is
    /// changed in the order of these calls.
    fn put_evidence(
        &self,
        intake: &Intake<'_>,
        assess: &dyn Assess,
        random: &dyn Random,
    ) -> impl Future<Output = Result<TakenIn, StoreError>> + Send;

    /// Takes in codes that the member's own platform pushed. Whom it names first is added. Idempotent.
    fn put_codes(
        &self,
        request: &RequestKey,
        codes: &[Option<PushedCode>],
        assess: &dyn Assess,
        random: &dyn Random,
    ) -> impl Future<Output = Result<PushedIn, StoreError>> + Send;

    /// Ends what was set by hand, if anything was: what the platform said last stands again, or what was seeded, or what
    /// follows from evidence. Idempotent.
    fn clear_code(
        &self,
        request: &RequestKey,
        cleared: &Cleared,
        assess: &dyn Assess,
        random: &dyn Random,
    ) -> impl Future<Output = Result<Effect, StoreError>> + Send;

    /// When time alone may change somebody's code next.
    fn next_due(&self) -> impl Future<Output = Result<Option<UnixTime>, StoreError>> + Send;

    /// Assesses up to `limit` of those who are due at `now`.
    fn reassess_due(
        &self,
        limit: u32,
        assess: &dyn Assess,
        now: UnixTime,
        random: &dyn Random,
    ) -> impl Future<Output = Result<Reassessed, StoreError>> + Send;

    /// Assesses one person.
    fn reassess_person(
        &self,
        person: PersonId,
        assess: &dyn Assess,
        now: UnixTime,
        random: &dyn Random,
    ) -> impl Future<Output = Result<Reassessed, StoreError>> + Send;

    /// Assesses up to `limit` people with evidence who come after one in the order of their numbers, and says who was last;
    /// nobody when there is nobody left.
    fn reassess_following(
        &self,
        after: PersonId,
        limit: u32,
        assess: &dyn Assess,
        now: UnixTime,
        random: &dyn Random,
    ) -> impl Future<Output = Result<(Reassessed, Option<PersonId>), StoreError>> + Send;

    /// The digest of the rules by which everybody was assessed last; 0 before the first.
    fn assessed_rules(&self) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Notes that everybody was assessed by the rules of this digest.
    fn set_assessed_rules(&self, digest: u64) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// A person's code with what it follows from.
    fn code_on_file(&self, person: PersonId) -> impl Future<Output = Result<Option<CodeOnFile>, StoreError>> + Send;

    /// Puts an operator's look at a person on file, and says who that is.
    fn record_operator_access(
        &self,
        access: &OperatorAccess,
    ) -> impl Future<Output = Result<PersonId, StoreError>> + Send;

    /// Up to `limit` looks at a person, newest first, those before a time and a number in that order.
    fn operator_looks(
        &self,
        person: PersonId,
        before: Option<(UnixTime, u64)>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<OperatorLook>, StoreError>> + Send;

    /// All that is on file about a person, read in one snapshot.
    fn person_file(&self, person: PersonId) -> impl Future<Output = Result<PersonFile, StoreError>> + Send;

    /// Seals up to `limit` rows of older keys of the vault anew, with the current one, and says how many: nothing when it is
    /// done, and then no older key is needed any more, but for rows that do not open: they are passed over, counted in the log, and
    /// their keys stay needed.
    fn reseal(&self, limit: u32) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Finishes what is under way and lets go of the store's files.
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// How long things are kept, by the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Access records after they came, and operators' looks.
    pub accesses: Duration,
    /// Evidence after it was over.
    pub evidence: Duration,
}

/// Why a store refuses. Its texts never hold a person's data.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The request id was used for another request.
    #[error("the request id was used for another request")]
    RequestIdReused,
    /// No such person.
    #[error("no such person")]
    PersonUnknown,
    /// The person has another name.
    #[error("the document belongs to a person of another name")]
    NameDiffers,
    /// No such device.
    #[error("no such device")]
    DeviceUnknown,
    /// No such consent.
    #[error("no such consent")]
    ConsentUnknown,
    /// The platform's reference is another person's, or this person has another one.
    #[error("the reference is another person's, or this person has another one")]
    ReferenceDiffers,
    /// The key was seen before, as an enrolment key or in a token.
    #[error("the key was used before")]
    KeyReused,
    /// The person has as many live consents as they may.
    #[error("too many live consents")]
    TooManyConsents(u32),
    /// The person has as many devices as they may.
    #[error("too many devices")]
    TooManyDevices(u32),
    /// The backend does not answer as it should.
    #[error("the store does not answer")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<StoreError> for Refusal {
    /// The details of a failing backend go to the log and no further.
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::RequestIdReused => Self::new(Reason::RequestIdReused),
            StoreError::PersonUnknown => Self::new(Reason::PersonUnknown),
            StoreError::NameDiffers => Self::field("name", "is not the name on file for this document"),
            StoreError::DeviceUnknown => Self::new(Reason::DeviceUnknown),
            StoreError::ConsentUnknown => Self::new(Reason::ConsentUnknown),
            StoreError::ReferenceDiffers => {
                Self::field("person_reference", "is another person's, or this person has another one")
            }
            StoreError::KeyReused => Self::new(Reason::FieldInvalid),
            StoreError::TooManyConsents(limit) => Self::new(Reason::TooManyConsents).with("limit", limit),
            StoreError::TooManyDevices(limit) => Self::new(Reason::TooManyDevices).with("limit", limit),
            StoreError::Unavailable(detail) => {
                tracing::error!(%detail, "the store does not answer");
                Self::new(Reason::StoreUnavailable)
            }
        }
    }
}

impl From<sqlx::Error> for StoreError {
    /// A database's messages name tables and columns, never a value.
    fn from(error: sqlx::Error) -> Self {
        Self::Unavailable(error.into())
    }
}
