//! A traveler asks to be forgotten.
//!
//! Upholds I4 (each consent that may still be honoured is revoked as an event, in the transaction that forgets it) and I2
//! (the access records stay on the log that they are part of; they speak of nobody any more).

use proto::{identity::PeerId, refusal::Refusal, time::UnixTime};
use tracing::{info, instrument};

use crate::{
    home::Home,
    store::{DeviceId, Forgotten, Store},
};

/// Forgets the traveler of a device. That somebody had it done is said, and by which backend; who is forgotten is not.
#[instrument(level = "debug", name = "delete_traveler", skip_all)]
pub async fn delete<S: Store>(
    home: &Home<S>,
    now: UnixTime,
    backend: &PeerId,
    device: DeviceId,
) -> Result<Forgotten, Refusal> {
    let forgotten = home.store.delete_traveler(device, now, &*home.random).await?;
    let Forgotten { revoked, by_hand, .. } = forgotten;
    info!(%backend, revoked, by_hand, "a traveler is forgotten, with the consents that were revoked and the codes set by hand");
    Ok(forgotten)
}
