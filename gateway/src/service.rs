//! The tonic adapter of recognition: protobuf in, [`Query`] and [`Exchange`], protobuf or a status out. Nothing else
//! happens here.

use std::{sync::Arc, time::Duration};

use peer::{
    Caller,
    admission::{Admission, Place},
    caller,
    edge::Deadline,
};
use proto::{
    contract::recognition::{
        RecognizeRequest, RecognizeResponse, RecognizeStreamRequest, recognition_service_server::RecognitionService,
    },
    refusal::{Reason, Refusal},
};
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};
use tracing::{Instrument as _, error};

use crate::{
    exchange::Exchange,
    query::Query,
    stream::{Answers, Lane, StreamLimits},
};

/// What is kept of the deadline for the record and the way back.
const RESERVE: Duration = Duration::from_millis(50);

/// The recognition service.
#[derive(Clone, Debug)]
pub(crate) struct Recognition {
    pub(crate) exchange: Arc<Exchange>,
    pub(crate) admission: Admission,
    pub(crate) stream_limits: StreamLimits,
}

#[tonic::async_trait]
impl RecognitionService for Recognition {
    type RecognizeStreamStream = Answers;

    async fn recognize(&self, request: Request<RecognizeRequest>) -> Result<Response<RecognizeResponse>, Status> {
        let caller = caller(&request)?.clone();
        let deadline = request.extensions().get::<Deadline>().map_or_else(Instant::now, |deadline| deadline.0);
        let place = request.extensions().get::<Place>().cloned();
        Ok(Response::new(self.answer(request.into_inner(), &caller, deadline, place).await?))
    }

    async fn recognize_stream(
        &self,
        request: Request<Streaming<RecognizeStreamRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let lane = Lane {
            recognition: self.clone(),
            admission: self.admission.clone(),
            caller: Arc::new(caller(&request)?.clone()),
            limits: self.stream_limits,
        };
        Ok(Response::new(lane.open(request.into_inner())))
    }
}

impl Recognition {
    /// One query of one caller, to be answered by `deadline`.
    pub(crate) async fn answer(
        &self,
        request: RecognizeRequest,
        caller: &Caller,
        deadline: Instant,
        place: Option<Place>,
    ) -> Result<RecognizeResponse, Refusal> {
        let trust = self.exchange.trust()?;
        let query = Query::parse(request, caller, &trust.list)
            .inspect_err(|refusal| self.exchange.note(&caller.peer, refusal))?;
        let exchange = self.exchange.clone();
        // In a task of its own: a caller that goes away does not take the record with it. It keeps its place till the end.
        let running = async move {
            let _place = place;
            exchange.run(query, &trust, deadline.checked_sub(RESERVE).unwrap_or(deadline)).await
        };
        let running = tokio::spawn(running.in_current_span());
        running.await.unwrap_or_else(|error| {
            error!(%error, "an exchange failed");
            Err(Refusal::new(Reason::Internal))
        })
    }
}
