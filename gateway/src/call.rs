//! One query of one caller, however it came: parsed, then its exchange run to the end in a task of its own.

use std::{sync::Arc, time::Duration};

use peer::{Caller, admission::Place, trace::Trace};
use proto::{
    contract::recognition::{RecognizeRequest, RecognizeResponse},
    refusal::{Reason, Refusal, reason_name},
};
use tokio::time::Instant;
use tracing::{
    Instrument as _, Span, debug_span, error,
    field::{Empty, display},
};

use crate::{exchange::Exchange, metrics::outcome_word, query::Query};

/// What is kept of the deadline for the record and the way back.
const RESERVE: Duration = Duration::from_millis(50);

/// Answers a query by `deadline`. A caller that goes away does not take the record with it: the exchange goes on, and keeps
/// the caller's place until it ends.
pub(crate) async fn answer(
    exchange: &Arc<Exchange>,
    request: RecognizeRequest,
    caller: &Caller,
    trace: Trace,
    deadline: Instant,
    place: Option<Place>,
) -> Result<RecognizeResponse, Refusal> {
    let trust = exchange.trust()?;
    let query = Query::parse(request, caller, trace, &trust.list)
        .inspect_err(|refusal| exchange.note(&caller.peer, refusal))?;
    let exchange = exchange.clone();
    let running = async move {
        let _place = place;
        let answer = exchange.run(query, &trust, deadline.checked_sub(RESERVE).unwrap_or(deadline)).await;
        note(&answer);
        answer
    };
    let span = debug_span!("exchange", member = Empty, outcome = Empty, source = Empty, reason = Empty);
    tokio::spawn(running.instrument(span)).await.unwrap_or_else(|error| {
        error!(%error, "an exchange failed");
        Err(Refusal::new(Reason::Internal))
    })
}

/// What came of it, for whoever reads the trace.
fn note(answer: &Result<RecognizeResponse, Refusal>) {
    let span = Span::current();
    match answer {
        Ok(answer) => {
            let source = answer.source().as_str_name().trim_start_matches("SOURCE_").to_ascii_lowercase();
            span.record("outcome", display(outcome_word(answer.outcome()))).record("source", display(source))
        }
        Err(refusal) => span.record("reason", reason_name(refusal.reason())),
    };
}
