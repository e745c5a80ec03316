//! Why somebody has the code they have: the rule, the evidence, until when. For the traveler, and for an operator, whose look is on
//! the traveler's record before they see anything.
//!
//! Upholds I2 at home: no operator reads of a person without a record that the person can read.

use proto::{identity::PeerId, refusal::Refusal, time::UnixTime};
use tracing::instrument;

use crate::{
    document::Document,
    home::Home,
    store::{
        DeviceId, Store,
        filing::{CodeOnFile, OperatorAccess},
    },
};

/// The code of a device's traveler.
#[instrument(level = "debug", name = "get_code", skip_all)]
pub async fn of_device<S: Store>(home: &Home<S>, device: DeviceId) -> Result<Option<CodeOnFile>, Refusal> {
    let person = home.store.device(device).await?.person;
    Ok(home.store.code_on_file(person).await?)
}

/// The code of a person, for an operator, and why they look.
#[instrument(level = "debug", name = "explain_code", skip_all)]
pub async fn for_operator<S: Store>(
    home: &Home<S>,
    now: UnixTime,
    operator: &PeerId,
    document: Document,
    reason: String,
) -> Result<Option<CodeOnFile>, Refusal> {
    let access = OperatorAccess { document, operator: operator.to_string(), reason, now };
    let person = home.store.record_operator_access(&access).await?;
    Ok(home.store.code_on_file(person).await?)
}
