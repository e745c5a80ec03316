//! Streams of batches: what ends one, with which reason, and what does not. Whoever goes on after it loses nothing.

use std::time::Duration;

use proto::{
    contract::{
        assignment::{CodeVerdict, PushedCode, PutCodesRequest},
        evidence::{EvidenceRecord, PutEvidenceRequest, Verdict},
    },
    refusal::Reason,
};
use tokio::time::timeout;
use tongxing::phone::request_id;
use tonic::Code::{AlreadyExists, InvalidArgument, ResourceExhausted, Unavailable};

use super::{DAY, HOUR, PATIENCE};
use crate::sandbox::{
    Sandbox,
    evidence::{Feed, Open, case, push_as, test},
    member, until,
    want::{Want, want},
    wire::{self, Shown},
};

const MAX_BYTES: usize = 256 * 1024;
const HOME: &str = "51";

async fn start() -> (Sandbox, Feed) {
    let sandbox = Sandbox::start(&[HOME]).await;
    let lab = sandbox.feed(member(HOME), "lab-1");
    (sandbox, lab)
}

fn tests(sandbox: &Sandbox, lab: &Feed, count: usize) -> Vec<EvidenceRecord> {
    let person = sandbox.newcomer(lab.home, 3);
    let record = || lab.about(&person, "health-commission", test(sandbox.now().minus(HOUR), false));
    (0..count).map(|_| record()).collect()
}

const fn batch(number: u64, records: Vec<EvidenceRecord>) -> PutEvidenceRequest {
    PutEvidenceRequest { batch: number, records, dry_run: false }
}

impl<B, A: std::fmt::Debug> Open<B, A> {
    async fn send(&self, batch: B) {
        self.batches.send(batch).await.expect("the stream is open");
    }

    async fn next(&mut self) -> A {
        let next = timeout(PATIENCE, self.answers.message()).await.expect("an answer in time");
        next.expect("the stream goes on").expect("an answer")
    }

    /// The end of the stream, with its reason.
    async fn ends_with(mut self, name: &str, want: &Want) {
        want.check(name, timeout(PATIENCE, self.answers.message()).await.expect("an end in time"));
    }
}

fn invalid(field: &'static str) -> Want {
    want(Reason::FieldInvalid, InvalidArgument).field(field)
}

fn too_large() -> Want {
    want(Reason::RequestTooLarge, ResourceExhausted).with("max_bytes", MAX_BYTES)
}

#[tokio::test]
async fn batches_are_answered_in_order_though_they_come_ahead() {
    let (sandbox, lab) = start().await;
    let mut open = lab.open().await.expect("the stream opens");
    // More than may be on the way: the rest waits, and harms nobody.
    let all = tests(&sandbox, &lab, 40);
    for (number, records) in all.chunks(2).enumerate() {
        open.send(batch(number as u64 * 10, records.to_vec())).await;
    }
    for number in 0..20 {
        let answer = open.next().await;
        assert_eq!((answer.batch, answer.verdicts.len()), (number * 10, 2), "out of order");
        assert!(answer.verdicts.iter().all(|verdict| verdict.verdict() == Verdict::Accepted));
    }
    // From here on as after a break: what is there already changes nothing.
    open.send(batch(0, all)).await;
    assert!(open.next().await.verdicts.iter().all(|verdict| verdict.verdict() == Verdict::Unchanged));
    drop(open);
    sandbox.stop().await;
}

#[tokio::test]
async fn a_feed_has_one_stream_at_a_time() {
    let (sandbox, lab) = start().await;
    let mut open = lab.open().await.expect("the stream opens");
    let second = || lab.open();
    let overloaded = want(Reason::Overloaded, ResourceExhausted).from("home").with("limit", "evidence").retry();
    overloaded.check("a second stream", second().await.map(drop));
    // Another feed has a place of its own, and so has the platform.
    let cdc = sandbox.feed(member(HOME), "cdc-1");
    let fact = case(sandbox.now(), None);
    cdc.bring(vec![cdc.about(&sandbox.newcomer(lab.home, 3), "cdc", fact)]).await;
    open.send(batch(1, tests(&sandbox, &lab, 1))).await;
    assert_eq!(open.next().await.batch, 1, "the first stream is disturbed");
    drop(open);
    until("its place is free again", PATIENCE, async || second().await.is_ok()).await;
    sandbox.stop().await;
}

#[tokio::test]
async fn what_concerns_no_record_ends_the_stream() {
    let (sandbox, lab) = start().await;
    let large = || EvidenceRecord { record_id: "a".repeat(MAX_BYTES), ..EvidenceRecord::default() };
    for (name, request, want) in [
        ("no record", batch(1, vec![]), invalid("records")),
        ("501 records", batch(1, tests(&sandbox, &lab, 501)), invalid("records")),
        ("256 KiB and a few bytes", batch(1, vec![large()]), too_large()),
    ] {
        let mut open = lab.open().await.unwrap_or_else(|status| panic!("before {name}: {status:?}"));
        open.send(batch(1, tests(&sandbox, &lab, 1))).await;
        assert_eq!(open.next().await.verdicts[0].verdict(), Verdict::Accepted, "before {name}");
        open.send(request).await;
        // What comes behind it is not read.
        open.send(batch(2, tests(&sandbox, &lab, 1))).await;
        open.ends_with(name, &want).await;
    }
    assert_eq!(lab.bring(tests(&sandbox, &lab, 500)).await.verdicts.len(), 500, "500 records are a batch");
    let channel = wire::channel(
        &sandbox.desk.node_address(lab.home).unwrap(),
        Some(&Shown::read(&sandbox.layout().feed(lab.home, "lab-1"))),
    );
    let noise = wire::call(channel, "/tongxing.evidence.v1.EvidenceService/PutEvidence", vec![0xff; 100]).await;
    want(Reason::RequestMalformed, InvalidArgument).check("noise", noise);
    lab.bring(tests(&sandbox, &lab, 1)).await;
    sandbox.stop().await;
}

#[tokio::test]
async fn expired_trust_ends_a_stream_and_what_is_renewed_takes_it_up() {
    let (sandbox, lab) = start().await;
    let mut open = lab.open().await.expect("the stream opens");
    let records = tests(&sandbox, &lab, 1);
    open.send(batch(1, records.clone())).await;
    open.next().await;
    sandbox.clock.advance(DAY * 8);
    open.send(batch(2, records.clone())).await;
    open.ends_with("day 8", &want(Reason::TrustExpired, Unavailable).from("home").retry()).await;
    sandbox.federation.renew().await.expect("new editions");
    let mut verdict = None;
    until("the new editions are held", PATIENCE, async || {
        verdict = lab.send(batch(2, records.clone())).await.ok().map(|answer| answer.verdicts[0].verdict());
        verdict.is_some()
    })
    .await;
    assert_eq!(verdict, Some(Verdict::Unchanged), "what was acknowledged before is not there any more");
    sandbox.stop().await;
}

fn code(sandbox: &Sandbox, reference: &str) -> PushedCode {
    PushedCode {
        person_reference: reference.into(),
        label: "绿码".into(),
        assign_time: Some(sandbox.now().to_protobuf()),
        ..PushedCode::default()
    }
}

#[tokio::test]
async fn a_batch_of_codes_is_answered_once_under_its_id() {
    let (sandbox, lab) = start().await;
    let platform = sandbox.platform(lab.home);
    let request =
        PutCodesRequest { request_id: request_id(), codes: vec![code(&sandbox, "p-1"), code(&sandbox, "p 2")] };
    let first = push_as(&platform, request.clone()).await.expect("it is answered");
    let verdicts: Vec<_> = first.verdicts.iter().map(|verdict| (verdict.verdict(), verdict.reason())).collect();
    assert_eq!(verdicts, [(CodeVerdict::Assigned, Reason::Unspecified), (CodeVerdict::Refused, Reason::FieldInvalid)]);
    // As after a break: the kept answer, and not that it holds already.
    assert_eq!(push_as(&platform, request.clone()).await.expect("it is answered"), first);
    let reused = want(Reason::RequestIdReused, AlreadyExists);
    let other = PutCodesRequest { codes: vec![code(&sandbox, "p-3")], ..request.clone() };
    reused.check("another batch under its id", push_as(&platform, other).await);
    let short = PutCodesRequest { request_id: "1234567".into(), ..request.clone() };
    invalid("request_id").check("a short id", push_as(&platform, short).await);
    let many = |count| PutCodesRequest { request_id: request_id(), codes: vec![code(&sandbox, "p-1"); count] };
    invalid("codes").check("no code", push_as(&platform, many(0)).await);
    invalid("codes").check("501 codes", push_as(&platform, many(501)).await);
    assert_eq!(push_as(&platform, many(500)).await.expect("500 codes are a batch").verdicts.len(), 500);
    let large = PutCodesRequest { request_id: "a".repeat(MAX_BYTES), codes: vec![] };
    too_large().check("256 KiB and a few bytes", push_as(&platform, large).await);
    sandbox.stop().await;
}

/// Batches wait for their reader and are no burden to anybody else (I7).
#[tokio::test]
async fn a_sender_that_does_not_read_holds_up_itself_alone() {
    let (sandbox, lab) = start().await;
    let open = lab.open().await.expect("the stream opens");
    for number in 0..64 {
        open.send(batch(number, tests(&sandbox, &lab, 1))).await;
    }
    // Nobody reads its answers; everybody else is served.
    let cdc = sandbox.feed(member(HOME), "cdc-1");
    for _ in 0..3 {
        let fact = case(sandbox.now(), None);
        let record = cdc.about(&sandbox.newcomer(lab.home, 4), "cdc", fact);
        timeout(Duration::from_secs(10), cdc.bring(vec![record])).await.expect("another feed is served");
    }
    drop(open);
    sandbox.stop().await;
}
