//! [`tests::wire`], and what only these tests ask over it.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::transport::Channel;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

pub(crate) use tests::wire::{Shown, call, channel, handshake};

/// What the health service says of a service, or of the whole server.
pub(crate) async fn is_serving(channel: Channel, service: &str) -> bool {
    let request = HealthCheckRequest { service: service.to_owned() };
    let response = HealthClient::new(channel).check(request).await.expect("health is open");
    response.into_inner().status() == ServingStatus::Serving
}

/// An HTTP GET on a private listener.
pub(crate) async fn get(address: &str, path: &str) -> String {
    let mut socket = TcpStream::connect(address).await.expect("the private listener listens");
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).await.unwrap();
    text
}
