//! Idempotency: the same request gets the same answer, another one under the same id is refused.
//!
//! What was asked is kept as a keyed hash, which is not made anew when the key changes: whoever asks again across the end
//! of a key is refused, for as long as a request is kept.

use proto::{statement::LogHead, time::UnixTime, token::Cti};
use sqlx::Row as _;

use super::{
    Connection,
    rows::{bytes, corrupt, secs},
};
use crate::{
    request::RequestKey,
    store::{
        Assigned, DeviceId, IssuedToken, PersonId, StoreError,
        filing::{Assignment, Effect, PushedIn},
    },
    vault::{Indexed, Vault},
};

/// An answer that can be kept and given again.
pub(super) trait Answer: Sized {
    fn encode(&self) -> Vec<u8>;
    fn decode(bytes: &[u8]) -> Option<Self>;
}

/// The answer this request had before, if it had one.
pub(super) async fn answered<A: Answer>(
    connection: &mut Connection,
    vault: &Vault,
    request: &RequestKey,
) -> Result<Option<Result<A, StoreError>>, StoreError> {
    let row = sqlx::query("SELECT method, digest, response FROM request WHERE caller = $1 AND id = $2")
        .bind(&request.caller)
        .bind(&request.id)
        .fetch_optional(connection)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let digest: [u8; 32] = bytes(&row, "digest")?;
    let asked = vault.keys().iter().any(|key| key.digest(Indexed::Request, &request.digest) == digest);
    if !asked || row.try_get::<&str, _>("method")? != request.method.word() {
        return Ok(Some(Err(StoreError::RequestIdReused)));
    }
    Ok(Some(A::decode(row.try_get("response")?).ok_or_else(|| corrupt("response"))))
}

/// Keeps the answer of a request that was about a person.
pub(super) async fn remember(
    connection: &mut Connection,
    vault: &Vault,
    request: &RequestKey,
    person: PersonId,
    answer: &impl Answer,
) -> Result<(), StoreError> {
    keep(connection, vault, request, Some(person), answer).await
}

/// The same of one that was about many, and whose answer speaks of none.
pub(super) async fn remember_of_many(
    connection: &mut Connection,
    vault: &Vault,
    request: &RequestKey,
    answer: &impl Answer,
) -> Result<(), StoreError> {
    keep(connection, vault, request, None, answer).await
}

async fn keep(
    connection: &mut Connection,
    vault: &Vault,
    request: &RequestKey,
    person: Option<PersonId>,
    answer: &impl Answer,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO request (caller, id, method, digest, response, at, person) VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(&request.caller)
    .bind(&request.id)
    .bind(request.method.word())
    .bind(vault.current().digest(Indexed::Request, &request.digest).to_vec())
    .bind(answer.encode())
    .bind(secs(request.at))
    .bind(person.map(|person| person.0))
    .execute(connection)
    .await?;
    Ok(())
}

impl Answer for DeviceId {
    fn encode(&self) -> Vec<u8> {
        self.0.to_vec()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.try_into().ok()?))
    }
}

impl Answer for IssuedToken {
    fn encode(&self) -> Vec<u8> {
        [&self.cti.0, &self.expires_at.as_secs().to_be_bytes()[..], &self.token].concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (cti, rest) = bytes.split_first_chunk()?;
        let (expires_at, token) = rest.split_first_chunk()?;
        let expires_at = UnixTime::from_secs(u64::from_be_bytes(*expires_at));
        Some(Self { cti: Cti(*cti), expires_at, token: token.to_vec() })
    }
}

impl Answer for Assigned {
    fn encode(&self) -> Vec<u8> {
        let numbers = [self.assigned_at.as_secs(), self.head.seq, u64::from(self.changed)];
        [&self.head.epoch[..], &numbers.map(u64::to_be_bytes).concat()].concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (epoch, rest) = bytes.split_first_chunk()?;
        let (assigned_at, rest) = rest.split_first_chunk()?;
        let (seq, changed) = rest.split_first_chunk()?;
        Some(Self {
            assigned_at: UnixTime::from_secs(u64::from_be_bytes(*assigned_at)),
            head: LogHead { epoch: *epoch, seq: u64::from_be_bytes(*seq) },
            changed: u64::from_be_bytes(changed.try_into().ok()?).try_into().ok()?,
        })
    }
}

impl Answer for Effect {
    fn encode(&self) -> Vec<u8> {
        [&self.head.epoch[..], &self.head.seq.to_be_bytes(), &self.changed.to_be_bytes()].concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (epoch, rest) = bytes.split_first_chunk()?;
        let (seq, changed) = rest.split_first_chunk()?;
        let head = LogHead { epoch: *epoch, seq: u64::from_be_bytes(*seq) };
        Some(Self { head, changed: u32::from_be_bytes(changed.try_into().ok()?) })
    }
}

impl Answer for PushedIn {
    /// What followed, then one byte for each verdict.
    fn encode(&self) -> Vec<u8> {
        let number =
            |verdict: &Option<Assignment>| VERDICTS.iter().position(|known| known == verdict).unwrap_or_default() as u8;
        self.effect.encode().into_iter().chain(self.verdicts.iter().map(number)).collect()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (effect, verdicts) = bytes.split_at_checked(16 + 8 + 4)?;
        let verdicts = verdicts.iter().map(|number| VERDICTS.get(usize::from(*number)).copied());
        Some(Self { effect: Effect::decode(effect)?, verdicts: verdicts.collect::<Option<_>>()? })
    }
}

const VERDICTS: [Option<Assignment>; 5] = [
    None,
    Some(Assignment::Assigned),
    Some(Assignment::Unchanged),
    Some(Assignment::Withdrawn),
    Some(Assignment::Outdated),
];
