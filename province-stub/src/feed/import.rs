//! Brings a file of evidence to a node: batch by batch over one stream, some ahead of the answers. A stream that breaks is opened again
//! and goes on from the first batch that was not answered, for as long as it was told to be patient. So long a node may owe an
//! answer, too.

use std::{
    collections::VecDeque,
    io::{self, Read},
    time::Duration,
};

use prost::Message as _;
use proto::{
    contract::{
        error::ErrorReason,
        evidence::{
            EvidenceRecord, PutEvidenceRequest, PutEvidenceResponse, RecordVerdict, Verdict,
            evidence_service_client::EvidenceServiceClient,
        },
    },
    refusal::{Reason, Refusal, reason_name},
};
use thiserror::Error;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, transport::Channel};

use super::csv::{FileError, Row, Rows};

/// Records of one batch.
const BATCH: usize = 500;
/// How large a batch grows, in bytes: with one record more, and that is less than a thousand, it is well within a message.
const BATCH_BYTES: usize = 192 * 1024;
/// Batches on their way at most: as many as the contract lets a feed send ahead.
const AHEAD: usize = 8;
/// Between two attempts to open a stream.
const PAUSE: Duration = Duration::from_millis(500);

/// What an import came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records that are on file now.
    pub accepted: u64,
    /// Records that were on file already, just so.
    pub unchanged: u64,
    /// Records that took the place of earlier revisions.
    pub corrected: u64,
    /// Records that count no more.
    pub withdrawn: u64,
    /// Rows that are not on file.
    pub refused: u64,
    /// Consents that have another status now.
    pub changed_consents: u64,
    /// Streams that broke on the way.
    pub broken: u64,
}

/// A row that is not on file, and why.
pub struct Rejected<'a> {
    /// Its line, from 1.
    pub line: u64,
    /// Its values in the file's own order.
    pub values: &'a [String],
    /// Why: a name of ErrorReason without its prefix.
    pub reason: &'static str,
    /// The field or column at fault; may be empty.
    pub field: &'a str,
    /// What is wrong.
    pub detail: &'a str,
}

// A row speaks of a person.
redacted!(Rejected<'_>);

/// Who is told how it goes.
pub trait Witness {
    /// So many bytes of the file are read, and so many rows are decided.
    fn progress(&mut self, bytes: u64, rows: u64);
    /// A row is not on file.
    fn rejected(&mut self, row: &Rejected<'_>) -> io::Result<()>;
}

/// Why an import ended before its file did. What was answered by then is on file.
#[derive(Debug, Error)]
pub enum ImportError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file of rejected rows.
    #[error("the file of rejected rows: {0}")]
    Rejected(#[from] io::Error),
    /// The node, for longer than there was patience, or for good.
    #[error("the node: {}", said(.0))]
    Node(Box<Status>),
    /// The node answered what nobody asked.
    #[error("the node answered another batch, or with another number of verdicts")]
    OutOfStep,
}

/// How to import.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Says what would become of each row, and keeps nothing.
    pub dry_run: bool,
    /// How long a node may be away, and how long it may owe an answer.
    pub patience: Duration,
}

/// A batch on its way.
struct Batch {
    number: u64,
    /// Where each of its records came from.
    rows: Vec<Row>,
    records: Vec<EvidenceRecord>,
}

struct Import<'w, R, W> {
    rows: Rows<R>,
    witness: &'w mut W,
    options: Options,
    tally: Tally,
    decided: u64,
    number: u64,
    ended: bool,
    /// Sent and not answered, in order.
    waiting: VecDeque<Batch>,
    last_answer: Instant,
}

/// Imports a file.
pub async fn import<R: Read, W: Witness>(
    client: &EvidenceServiceClient<Channel>,
    input: R,
    options: Options,
    witness: &mut W,
) -> Result<Tally, ImportError> {
    let mut import = Import {
        rows: Rows::open(input)?,
        witness,
        options,
        tally: Tally::default(),
        decided: 0,
        number: 0,
        ended: false,
        waiting: VecDeque::new(),
        last_answer: Instant::now(),
    };
    while !(import.ended && import.waiting.is_empty()) {
        if let Err(status) = import.stream(client.clone()).await? {
            if !may_pass(&status) || import.last_answer.elapsed() >= options.patience {
                return Err(ImportError::Node(Box::new(status)));
            }
            import.tally.broken += 1;
            sleep(PAUSE).await;
        }
    }
    Ok(import.tally)
}

impl<R: Read, W: Witness> Import<'_, R, W> {
    /// One stream, until everything is answered or it breaks.
    async fn stream(&mut self, mut client: EvidenceServiceClient<Channel>) -> Result<Result<(), Status>, ImportError> {
        let (requests, stream) = mpsc::channel(AHEAD);
        // What was not answered goes first, as it was.
        for batch in &self.waiting {
            let _ = requests.try_send(self.request(batch));
        }
        self.fill(&requests)?;
        let patience = self.options.patience;
        let mut answers = match within(patience, client.put_evidence(ReceiverStream::new(stream))).await {
            Ok(answers) => answers.into_inner(),
            Err(status) => return Ok(Err(status)),
        };
        while !self.waiting.is_empty() {
            match within(patience, next(&mut answers)).await {
                Ok(answer) => self.answered(&answer)?,
                Err(status) => return Ok(Err(status)),
            }
            self.fill(&requests)?;
        }
        Ok(Ok(()))
    }

    /// Reads and sends as much as may be on its way.
    fn fill(&mut self, requests: &mpsc::Sender<PutEvidenceRequest>) -> Result<(), ImportError> {
        while !self.ended && self.waiting.len() < AHEAD {
            if let Some(batch) = self.read()? {
                // A stream that has broken says so where its answers are read.
                let _ = requests.try_send(self.request(&batch));
                self.waiting.push_back(batch);
            }
        }
        Ok(())
    }

    /// The next batch; rows that are no records are rejected on the way.
    fn read(&mut self) -> Result<Option<Batch>, ImportError> {
        let (mut rows, mut records, mut bytes) = (Vec::new(), Vec::new(), 0);
        while records.len() < BATCH && bytes < BATCH_BYTES {
            let Some(row) = self.rows.next_row()? else {
                self.ended = true;
                break;
            };
            match &row.record {
                Ok(record) => {
                    bytes += record.encoded_len();
                    records.push(record.clone());
                    rows.push(row);
                }
                Err(refusal) => {
                    let (field, detail) = refusal.violation().unwrap_or_default();
                    self.reject(&row, reason_name(refusal.reason()), field, detail)?;
                }
            }
        }
        if records.is_empty() {
            return Ok(None);
        }
        self.number += 1;
        Ok(Some(Batch { number: self.number, rows, records }))
    }

    fn request(&self, batch: &Batch) -> PutEvidenceRequest {
        PutEvidenceRequest { batch: batch.number, records: batch.records.clone(), dry_run: self.options.dry_run }
    }

    fn answered(&mut self, answer: &PutEvidenceResponse) -> Result<(), ImportError> {
        let in_step = |batch: &Batch| batch.number == answer.batch && batch.rows.len() == answer.verdicts.len();
        let batch = self.waiting.pop_front().filter(in_step).ok_or(ImportError::OutOfStep)?;
        for (row, verdict) in batch.rows.iter().zip(&answer.verdicts) {
            self.decide(row, verdict)?;
        }
        self.tally.changed_consents += u64::from(answer.changed_consents);
        self.last_answer = Instant::now();
        self.witness.progress(self.rows.position(), self.decided);
        Ok(())
    }

    fn decide(&mut self, row: &Row, verdict: &RecordVerdict) -> Result<(), ImportError> {
        let count = match verdict.verdict() {
            Verdict::Accepted => &mut self.tally.accepted,
            Verdict::Unchanged => &mut self.tally.unchanged,
            Verdict::Corrected => &mut self.tally.corrected,
            Verdict::Withdrawn => &mut self.tally.withdrawn,
            Verdict::Refused => {
                return self.reject(row, reason_name(verdict.reason()), &verdict.field, &verdict.detail);
            }
            Verdict::Unspecified => return Err(ImportError::OutOfStep),
        };
        *count += 1;
        self.decided += 1;
        Ok(())
    }

    fn reject(&mut self, row: &Row, reason: &'static str, field: &str, detail: &str) -> Result<(), ImportError> {
        self.tally.refused += 1;
        self.decided += 1;
        let Row { line, values, .. } = row;
        self.witness.rejected(&Rejected { line: *line, values, reason, field, detail })?;
        Ok(())
    }
}

/// Waits for what the node says, for as long as there is patience.
async fn within<T>(patience: Duration, said: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let silent = |_| Status::deadline_exceeded("it is there, and owes an answer for longer than there was patience");
    timeout(patience, said).await.map_err(silent)?
}

async fn next(answers: &mut Streaming<PutEvidenceResponse>) -> Result<PutEvidenceResponse, Status> {
    answers.message().await?.ok_or_else(|| Status::unavailable("the stream ended"))
}

/// Whether the same may do another time: the node is away, or its store is, or an earlier stream of this feed has not ended yet.
fn may_pass(status: &Status) -> bool {
    match Refusal::reason_of(status) {
        Some(reason) => matches!(reason, Reason::StoreUnavailable | Reason::Overloaded | Reason::TrustExpired),
        None => matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded),
    }
}

fn said(status: &Status) -> String {
    match Refusal::reason_of(status) {
        Some(ErrorReason::Unspecified) | None => format!("{:?}: {}", status.code(), status.message()),
        Some(reason) => format!("{}: {}", reason_name(reason), status.message()),
    }
}

#[cfg(test)]
mod tests;
