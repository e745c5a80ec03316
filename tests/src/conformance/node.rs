//! What a node says of itself, to whom it opens, and what it makes of bytes.

use proto::{
    contract::province::{GetNodeRequest, province_service_client::ProvinceServiceClient},
    statement::LogHead,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use super::{
    refused::short,
    stage::{ANSWER, Miss, Stage, answer, ensure, settle},
    steps::{Connect, GetNode, Health, Message, Send, Stranger},
};
use crate::wire;

impl Stage<'_> {
    pub(super) async fn get_node(&mut self, step: &GetNode) -> Result<(), Miss> {
        let client = ProvinceServiceClient::new(self.world.channel(step.r#as)?);
        let answered = answer(client.clone().get_node(GetNodeRequest {})).await;
        let Some(node) = settle(answered, step.refused.as_ref(), "the node about itself")? else { return Ok(()) };
        let printable = node.software.bytes().all(|b| b.is_ascii_graphic());
        let named = printable && (1..=64).contains(&node.software.len());
        ensure(named, "software of 1 to 64 printable ASCII characters, no space", short(&node.software))?;
        let trust = self.world.trust();
        let (list, policy) = (trust.list_edition.version, trust.policy_edition.version);
        let held = (node.trust_list_version, node.policy_version);
        ensure(held == (list, policy), format!("versions {list} and {policy}"), format!("{} and {}", held.0, held.1))?;
        self.made_change_token(&node.change_token)?;
        self.is_now("node_time", node.node_time.as_ref().map(|time| time.seconds))
    }

    pub(super) async fn health(&mut self, step: &Health) -> Result<(), Miss> {
        let client = HealthClient::new(self.world.channel(step.r#as)?);
        let request = HealthCheckRequest { service: step.service.clone() };
        let answered = answer(client.clone().check(request)).await;
        let Some(health) = settle(answered, None, "SERVING")? else { return Ok(()) };
        ensure(health.status() == ServingStatus::Serving, "SERVING", health.status().as_str_name())
    }

    pub(super) async fn connect(&mut self, step: &Connect) -> Result<(), Miss> {
        let shown = self.world.stranger(step.r#as)?;
        let refused = "a connection that is closed";
        let node = self.world.node();
        let lost = |got: String| Miss::Failed { expected: refused.into(), got, unanswered: true };
        let socket = timeout(ANSWER, TcpStream::connect(node)).await;
        let mut socket = match socket {
            Ok(Ok(socket)) => socket,
            Ok(Err(error)) => return Err(lost(format!("no connection at all: {error}"))),
            Err(_) => return Err(lost("no connection at all".into())),
        };
        let first = if step.r#as == Stranger::NoTls {
            timeout(ANSWER, speak(&mut socket)).await
        } else {
            drop(socket);
            let spoken = async {
                // Under TLS 1.3 a client learns of its refusal when it reads.
                match wire::handshake(node, shown.as_ref()).await {
                    Ok((_, mut stream)) => speak(&mut stream).await,
                    Err(_) => None,
                }
            };
            timeout(ANSWER, spoken).await
        };
        match first {
            Ok(None) => Ok(()),
            // A TLS alert says no.
            Ok(Some(0x15)) if step.r#as == Stranger::NoTls => Ok(()),
            Ok(Some(_)) => Err(Miss::failed(refused, "an answer: it was let in")),
            Err(_) => Err(lost(format!("neither an answer nor an end within {} s", ANSWER.as_secs()))),
        }
    }

    pub(super) async fn send(&mut self, step: &Send) -> Result<(), Miss> {
        let message = match step.message {
            Message::Empty => Vec::new(),
            Message::Noise => vec![0xff; 100],
            Message::CutShort => vec![0x0a, 100, 1],
            Message::Huge => vec![0x0a; 512 * 1024],
        };
        let channel = self.world.channel(step.r#as)?;
        let called = wire::call(channel, &step.method, message);
        let answered = answer(async { called.await.map(tonic::Response::new) }).await;
        settle(answered, Some(&step.refused), "a refusal").map(drop)
    }

    /// The change token of a write, which is of now.
    pub(super) fn written(&mut self, token: &[u8]) -> Result<(), Miss> {
        self.last.written = Some(self.made_change_token(token)?);
        Ok(())
    }

    /// A change token of now: of this member's one change log, which never goes back.
    pub(super) fn made_change_token(&self, token: &[u8]) -> Result<LogHead, Miss> {
        let head = self.change_token(token)?;
        self.world.observe(head).map_err(|got| Miss::failed("a change log that goes on", got))?;
        Ok(head)
    }

    /// A change token that the gateway reads: 26 bytes, of this member.
    pub(super) fn change_token(&self, token: &[u8]) -> Result<LogHead, Miss> {
        let expected = "a change token of 26 bytes: 1, the member, the epoch, the last change's number";
        match LogHead::from_change_token(token) {
            Some((member, head)) if member == self.world.member() => Ok(head),
            Some((member, _)) => Err(Miss::failed(expected, format!("one of {member}"))),
            None => Err(Miss::failed(expected, format!("{} bytes of another make", token.len()))),
        }
    }
}

/// Begins to speak HTTP/2 and hears the first byte of an answer; `None` if the other side ends it.
async fn speak(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Option<u8> {
    // The client's preface, and a SETTINGS frame without settings (RFC 9113 §3.4).
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    stream.write_all(PREFACE).await.ok()?;
    stream.flush().await.ok()?;
    stream.read_u8().await.ok()
}
