//! What a traveler sees of their consents, and how they take one back.
//!
//! A traveler is named by any of their devices; another's consent is as unknown as one that never was (I1).

use proto::{refusal::Refusal, statement::LogHead, time::UnixTime, token::Cti};
use tracing::instrument;

use crate::{
    home::Home,
    store::{DeviceId, IssuedConsent, PageKey, Store},
};

/// Consents on a page, unless it is asked for less.
pub const DEFAULT_PAGE: u32 = 50;
/// Consents on a page at most.
pub const MAX_PAGE: u32 = 100;

/// A page of consents, newest first.
#[derive(Clone, Debug)]
pub struct Page {
    /// The consents.
    pub consents: Vec<IssuedConsent>,
    /// Where the next page begins, if there may be one.
    pub next: Option<PageKey>,
}

/// Lists the consents of a device's traveler that have not expired.
#[instrument(level = "debug", name = "list_consents", skip_all)]
pub async fn list<S: Store>(
    home: &Home<S>,
    device: DeviceId,
    now: UnixTime,
    after: Option<PageKey>,
    size: u32,
) -> Result<Page, Refusal> {
    let person = home.store.device(device).await?.person;
    let consents = home.store.consents(person, now, after, size).await?;
    let full = consents.len() == size as usize;
    let next = consents.last().filter(|_| full).map(|last| PageKey { issued_at: last.issued_at, cti: last.cti });
    Ok(Page { consents, next })
}

/// Revokes one consent of a device's traveler.
#[instrument(level = "debug", name = "revoke_consent", skip_all)]
pub async fn revoke<S: Store>(home: &Home<S>, device: DeviceId, cti: Cti, now: UnixTime) -> Result<LogHead, Refusal> {
    let person = home.store.device(device).await?.person;
    Ok(home.store.revoke_consent(cti, Some(person), now).await?)
}
