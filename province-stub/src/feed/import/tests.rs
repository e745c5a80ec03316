//! An import against nodes that answer, and that do not.

use std::future::pending;

use proto::contract::evidence::evidence_service_server::{EvidenceService, EvidenceServiceServer};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Response,
    transport::{Endpoint, Server},
};

use super::*;

/// The most that a node reads as one message.
const MESSAGE_BYTES: usize = 256 * 1024;

/// How a node is.
#[derive(Clone, Copy)]
enum Node {
    /// Takes in whatever comes.
    Answers,
    /// Opens a stream, and says nothing on it.
    OwesAnswers,
    /// Does not even open the stream.
    OwesHeaders,
}

type Answers = ReceiverStream<Result<PutEvidenceResponse, Status>>;

#[tonic::async_trait]
impl EvidenceService for Node {
    type PutEvidenceStream = Answers;

    async fn put_evidence(&self, request: Request<Streaming<PutEvidenceRequest>>) -> Result<Response<Answers>, Status> {
        let (node, (answers, stream)) = (*self, mpsc::channel(1));
        if matches!(node, Self::OwesHeaders) {
            return pending().await;
        }
        let mut batches = request.into_inner();
        tokio::spawn(async move {
            while let Some(batch) = batches.message().await.transpose() {
                let Self::Answers = node else { return pending().await };
                let said = batch.map(|batch| {
                    let accepted = RecordVerdict { verdict: Verdict::Accepted.into(), ..RecordVerdict::default() };
                    let verdicts = vec![accepted; batch.records.len()];
                    PutEvidenceResponse { batch: batch.batch, verdicts, ..PutEvidenceResponse::default() }
                });
                if answers.send(said).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// Keeps the lines of what is rejected.
#[derive(Default)]
struct Lines(Vec<u64>);

impl Witness for Lines {
    fn progress(&mut self, _: u64, _: u64) {}

    fn rejected(&mut self, row: &Rejected<'_>) -> io::Result<()> {
        assert_eq!(format!("{row:?}"), "Rejected(…)");
        self.0.push(row.line);
        Ok(())
    }
}

async fn import_to(node: Node, patience: Duration, text: &str) -> (Result<Tally, ImportError>, Vec<u64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = EvidenceServiceServer::new(node).max_decoding_message_size(MESSAGE_BYTES);
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)));
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    let (mut lines, options) = (Lines::default(), Options { dry_run: false, patience });
    let client = EvidenceServiceClient::new(channel);
    let imported = timeout(Duration::from_secs(60), import(&client, text.as_bytes(), options, &mut lines)).await;
    (imported.expect("an import ends"), lines.0)
}

const HEADER: &str = "record_id,evidence,person_reference,authority,time,result\n";
const ROW: &str = "1,test,p-1,41/cdc,2022-04-28T08:00:00Z,negative\n";

#[tokio::test]
async fn a_node_that_is_there_and_never_answers_is_not_waited_for_without_end() {
    for node in [Node::OwesAnswers, Node::OwesHeaders] {
        let (imported, _) = import_to(node, Duration::from_millis(200), &format!("{HEADER}{ROW}")).await;
        let error = imported.unwrap_err();
        assert!(matches!(&error, ImportError::Node(status) if status.code() == Code::DeadlineExceeded), "{error}");
        assert!(error.to_string().contains("owes an answer"), "{error}");
    }
}

#[tokio::test]
async fn no_row_makes_a_message_that_no_node_reads() {
    // A value that is far too long, and more of the longest than one message has room for.
    let (swallowed, long) = ("a".repeat(300_000), "a".repeat(256));
    let longest = format!("{long},test,{long},{long},2022-04-28T08:00:00Z,negative\n");
    let text = format!("{HEADER}{ROW}2,test,\"{swallowed}\",41/cdc,,\n{ROW}{}", longest.repeat(900));
    let (imported, rejected) = import_to(Node::Answers, Duration::from_secs(30), &text).await;
    let tally = imported.unwrap();
    assert_eq!((tally.accepted, tally.refused, tally.broken), (902, 1, 0));
    assert_eq!(rejected, [3]);
}
