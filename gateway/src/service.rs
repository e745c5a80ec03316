//! The tonic adapter: protobuf in, [`Query`] and [`Exchange`], protobuf or a status out. Nothing else happens here.

use std::{sync::Arc, time::Duration};

use peer::{admission::Place, caller, edge::Deadline};
use proto::{
    contract::recognition::{RecognizeRequest, RecognizeResponse, recognition_service_server::RecognitionService},
    refusal::{Reason, Refusal},
};
use tokio::time::Instant;
use tonic::{Request, Response, Status};
use tracing::error;

use crate::{exchange::Exchange, query::Query};

/// What is kept of the deadline for the record and the way back.
const RESERVE: Duration = Duration::from_millis(50);

/// The recognition service.
#[derive(Clone, Debug)]
pub(crate) struct Recognition(pub(crate) Arc<Exchange>);

#[tonic::async_trait]
impl RecognitionService for Recognition {
    async fn recognize(&self, request: Request<RecognizeRequest>) -> Result<Response<RecognizeResponse>, Status> {
        Ok(Response::new(self.answer(request).await?))
    }
}

impl Recognition {
    async fn answer(&self, request: Request<RecognizeRequest>) -> Result<RecognizeResponse, Refusal> {
        let trust = self.0.trust()?;
        let caller = caller(&request)?.clone();
        let deadline = request.extensions().get::<Deadline>().map_or_else(Instant::now, |deadline| deadline.0);
        let place = request.extensions().get::<Place>().cloned();
        let query = Query::parse(request.into_inner(), &caller, &trust.list)
            .inspect_err(|refusal| self.0.metrics.refused(refusal.reason()))?;
        let exchange = self.0.clone();
        // In a task of its own: a caller that goes away does not take the record with it. It keeps its place till the end.
        let running = tokio::spawn(async move {
            let _place = place;
            exchange.run(query, &trust, deadline.checked_sub(RESERVE).unwrap_or(deadline)).await
        });
        running.await.unwrap_or_else(|error| {
            error!(%error, "an exchange failed");
            Err(Refusal::new(Reason::Internal))
        })
    }
}
