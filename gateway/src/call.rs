//! One query of one caller, however it came: parsed, then its exchange run to the end in a task of its own.

use std::{sync::Arc, time::Duration};

use peer::{Caller, admission::Place};
use proto::{
    contract::recognition::{RecognizeRequest, RecognizeResponse},
    refusal::{Reason, Refusal},
};
use tokio::time::Instant;
use tracing::{Instrument as _, error};

use crate::{exchange::Exchange, query::Query};

/// What is kept of the deadline for the record and the way back.
const RESERVE: Duration = Duration::from_millis(50);

/// Answers a query by `deadline`. A caller that goes away does not take the record with it: the exchange goes on, and keeps
/// the caller's place until it ends.
pub(crate) async fn answer(
    exchange: &Arc<Exchange>,
    request: RecognizeRequest,
    caller: &Caller,
    deadline: Instant,
    place: Option<Place>,
) -> Result<RecognizeResponse, Refusal> {
    let trust = exchange.trust()?;
    let query =
        Query::parse(request, caller, &trust.list).inspect_err(|refusal| exchange.note(&caller.peer, refusal))?;
    let exchange = exchange.clone();
    let running = async move {
        let _place = place;
        exchange.run(query, &trust, deadline.checked_sub(RESERVE).unwrap_or(deadline)).await
    };
    tokio::spawn(running.in_current_span()).await.unwrap_or_else(|error| {
        error!(%error, "an exchange failed");
        Err(Refusal::new(Reason::Internal))
    })
}
