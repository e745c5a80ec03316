//! The tonic adapter of recognition: a call or a stream of them in, protobuf or a status out. Nothing else happens here.

use std::sync::Arc;

use peer::{
    admission::{Admission, Place},
    caller,
    edge::Deadline,
    trace::Trace,
};
use proto::contract::recognition::{
    RecognizeRequest, RecognizeResponse, RecognizeStreamRequest, recognition_service_server::RecognitionService,
};
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    call,
    exchange::Exchange,
    stream::{Answers, Lane, StreamLimits},
};

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
        let (caller, trace) = (caller(&request)?.clone(), Trace::of_request(&request));
        let deadline = request.extensions().get::<Deadline>().map_or_else(Instant::now, |deadline| deadline.0);
        let place = request.extensions().get::<Place>().cloned();
        let answer = call::answer(&self.exchange, request.into_inner(), &caller, trace, deadline, place).await?;
        Ok(Response::new(answer))
    }

    async fn recognize_stream(
        &self,
        request: Request<Streaming<RecognizeStreamRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let lane = Lane {
            trace: Trace::of_request(&request),
            exchange: self.exchange.clone(),
            admission: self.admission.clone(),
            caller: Arc::new(caller(&request)?.clone()),
            limits: self.stream_limits,
        };
        Ok(Response::new(lane.open(request.into_inner())))
    }
}
