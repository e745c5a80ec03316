//! A gRPC server that does nothing: tonic over the same TLS, the same requests in, one canned answer of the real size out. What
//! a recognition costs beyond this is ours.

use anyhow::Result;
use peer::{
    accept::{AcceptLimits, accept},
    serve::Standing,
};
use prost::Message as _;
use proto::contract::recognition::{
    RecognizeRequest, RecognizeResponse, RecognizeStreamRequest, RecognizeStreamResponse,
    recognition_service_server::{RecognitionService, RecognitionServiceServer},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, transport::Server};

#[derive(Debug)]
struct Echo(RecognizeResponse);

#[tonic::async_trait]
impl RecognitionService for Echo {
    type RecognizeStreamStream = tokio_stream::Empty<Result<RecognizeStreamResponse, Status>>;

    async fn recognize(&self, _request: Request<RecognizeRequest>) -> Result<Response<RecognizeResponse>, Status> {
        Ok(Response::new(self.0.clone()))
    }

    async fn recognize_stream(
        &self,
        _request: Request<Streaming<RecognizeStreamRequest>>,
    ) -> Result<Response<Self::RecognizeStreamStream>, Status> {
        Err(Status::unimplemented("the echo has one call"))
    }
}

/// Answers every call with these bytes of a RecognizeResponse until it is told to stop.
pub async fn serve(listener: TcpListener, standing: Standing, answer: &[u8], stop: CancellationToken) -> Result<()> {
    let service = RecognitionServiceServer::new(Echo(RecognizeResponse::decode(answer)?));
    let incoming =
        accept(Box::new(listener), standing.trust, standing.credentials, AcceptLimits::default(), stop.clone())?;
    Server::builder().add_service(service).serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await?;
    Ok(())
}
