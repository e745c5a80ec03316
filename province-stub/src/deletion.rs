//! A traveler asks to be forgotten.
//!
//! Upholds I4 (each consent that may still be honoured is revoked as an event, in the transaction that forgets it) and I2
//! (the access records stay on the log that they are part of; they speak of nobody any more).

use proto::{refusal::Refusal, time::UnixTime};
use tracing::instrument;

use crate::{
    home::Home,
    store::{DeviceId, Forgotten, Store},
};

/// Forgets the traveler of a device.
#[instrument(level = "debug", name = "delete_traveler", skip_all)]
pub async fn delete<S: Store>(home: &Home<S>, now: UnixTime, device: DeviceId) -> Result<Forgotten, Refusal> {
    Ok(home.store.delete_traveler(device, now, &*home.random).await?)
}
