//! Whoever says at home what codes follow from: a member's feeds, which bring evidence, and its platform, which pushes codes.

use proto::{
    contract::{
        assignment::{
            ClearCodeRequest, ExplainCodeRequest, PushedCode, PutCodesRequest, PutCodesResponse, SetCodeRequest,
            assignment_service_client::AssignmentServiceClient,
        },
        evidence::{
            Case, Contact, EvidenceRecord, Person, PutEvidenceRequest, PutEvidenceResponse, Risk, RiskArea, Stay, Test,
            Vaccination, Verdict, Withdrawal, evidence_record::Content, evidence_service_client::EvidenceServiceClient,
            person::Person as Whom,
        },
        traveler::ExportTravelerRequest,
    },
    member::Member,
    time::UnixTime,
};
use province_stub::seed::{self, SeededPerson};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tongxing::phone::{document, request_id};
use tonic::{Status, Streaming, transport::Channel};

use super::{
    PEOPLE, Sandbox,
    wire::{self, Shown},
};

/// A feed at its member's node.
#[derive(Clone)]
pub(crate) struct Feed {
    pub(crate) client: EvidenceServiceClient<Channel>,
    pub(crate) home: Member,
}

/// A stream of batches that stays open.
pub(crate) struct Open<B, A> {
    pub(crate) batches: mpsc::Sender<B>,
    pub(crate) answers: Streaming<A>,
}

impl Sandbox {
    /// One of a member's feeds: `lab-1` or `cdc-1`.
    pub(crate) fn feed(&self, home: Member, name: &str) -> Feed {
        let shown = Shown::read(&self.layout().feed(home, name));
        let channel = wire::channel(&self.desk.node_address(home).unwrap(), Some(&shown));
        Feed { client: EvidenceServiceClient::new(channel), home }
    }

    /// A member's platform.
    pub(crate) fn platform(&self, home: Member) -> AssignmentServiceClient<Channel> {
        let shown = Shown::read(&self.layout().backend(home));
        AssignmentServiceClient::new(wire::channel(&self.desk.node_address(home).unwrap(), Some(&shown)))
    }

    /// Somebody whom no node was seeded with, and of whom nothing is on file.
    pub(crate) fn newcomer(&self, home: Member, number: u32) -> SeededPerson {
        let people = seed::people(home, PEOPLE + number + 1, &self.desk.trust().policy);
        people.into_iter().next_back().expect("there is one at least")
    }
}

impl Feed {
    /// A record about somebody, in the name of one of the member's own authorities.
    pub(crate) fn about(&self, person: &SeededPerson, authority: &str, content: Content) -> EvidenceRecord {
        self.about_whom(Whom::Document(document(person)), authority, content)
    }

    /// The same, by whatever names them.
    pub(crate) fn about_whom(&self, whom: Whom, authority: &str, content: Content) -> EvidenceRecord {
        EvidenceRecord {
            record_id: request_id(),
            revision: 0,
            person: Some(Person { person: Some(whom) }),
            authority: format!("{}/{authority}", self.home),
            content: Some(content),
        }
    }

    /// A listing of an area.
    pub(crate) fn listing(&self, area: u32, risk: Risk, since: UnixTime) -> EvidenceRecord {
        let area = RiskArea { area, risk: risk.into(), start_time: Some(since.to_protobuf()), end_time: None };
        EvidenceRecord {
            record_id: request_id(),
            revision: 0,
            person: None,
            authority: format!("{}/joint-mechanism", self.home),
            content: Some(Content::RiskArea(area)),
        }
    }

    /// Brings one batch, and says what became of it. The stream is over then: a feed has one at a time.
    pub(crate) async fn put(&self, records: Vec<EvidenceRecord>) -> PutEvidenceResponse {
        let request = PutEvidenceRequest { batch: 7, records, dry_run: false };
        let answer = self.send(request).await.unwrap_or_else(|status| panic!("the stream ends: {status:?}"));
        assert_eq!(answer.batch, 7, "the batch's number is another");
        answer
    }

    /// Brings one batch of which every record is new.
    pub(crate) async fn bring(&self, records: Vec<EvidenceRecord>) -> PutEvidenceResponse {
        let answer = self.put(records).await;
        let refused = answer.verdicts.iter().find(|verdict| verdict.verdict() != Verdict::Accepted);
        assert!(refused.is_none(), "it is not taken in: {refused:?}");
        answer
    }

    /// Sends one batch as it is; the end of the stream if that is how it is answered.
    pub(crate) async fn send(&self, request: PutEvidenceRequest) -> Result<PutEvidenceResponse, Status> {
        the_only(self.client.clone().put_evidence(tokio_stream::once(request)).await?.into_inner()).await
    }

    /// Opens a stream that stays open.
    pub(crate) async fn open(&self) -> Result<Open<PutEvidenceRequest, PutEvidenceResponse>, Status> {
        let (batches, stream) = mpsc::channel(64);
        let answers = self.client.clone().put_evidence(ReceiverStream::new(stream)).await?.into_inner();
        Ok(Open { batches, answers })
    }
}

/// Pushes one batch of codes under a request id of its own.
pub(crate) async fn push(platform: &AssignmentServiceClient<Channel>, codes: Vec<PushedCode>) -> PutCodesResponse {
    let request = PutCodesRequest { request_id: request_id(), codes };
    let answer = push_as(platform, request.clone()).await.unwrap_or_else(|status| panic!("it ends: {status:?}"));
    assert_eq!(answer.request_id, request.request_id, "the batch's id is another");
    answer
}

/// Sends one batch of codes as it is.
pub(crate) async fn push_as(
    platform: &AssignmentServiceClient<Channel>,
    request: PutCodesRequest,
) -> Result<PutCodesResponse, Status> {
    the_only(platform.clone().put_codes(tokio_stream::once(request)).await?.into_inner()).await
}

/// What takes back a record.
pub(crate) fn withdrawal(record_id: &str, revision: u32) -> EvidenceRecord {
    let content = Some(Content::Withdrawal(Withdrawal {}));
    EvidenceRecord { record_id: record_id.into(), revision, content, ..EvidenceRecord::default() }
}

/// Has everybody at a home say and ask all that there is about somebody: feeds, platform, operator, backend; some of it where it does
/// not belong. What of it must be nowhere but at home, and there sealed.
pub(crate) async fn say_everything(sandbox: &Sandbox, home: Member) -> Vec<(&'static str, Vec<u8>)> {
    let (person, reference, now) = (sandbox.newcomer(home, 99), format!("p-{}", request_id()), sandbox.now());
    let (justification, basis, reason) = ("复核本人来电八八四八", "流调第四七一一号卷宗", "信访件第九五二七号核查");
    let phone = sandbox.desk.backend(home).unwrap().enroll_as(&person, &reference).await.expect("the phone enrols");
    let (lab, cdc) = (sandbox.feed(home, "lab-1"), sandbox.feed(home, "cdc-1"));
    let number = person.document.number().to_owned();
    let by_document = lab.about(&person, "health-commission", test(now, false));
    let by_reference = lab.about_whom(Whom::Reference(reference.clone()), "health-commission", dose(1, now));
    lab.bring(vec![by_document.clone(), by_reference]).await;
    let misplaced = lab.put(vec![
        EvidenceRecord { record_id: number.clone(), ..by_document.clone() },
        EvidenceRecord { authority: format!("{home}/{number}"), ..by_document.clone() },
        lab.about_whom(Whom::Reference(number.clone()), "health-commission", test(now, true)),
        lab.about_whom(Whom::Reference(person.name.as_str().into()), "health-commission", test(now, true)),
    ]);
    let told = format!("{:?}", misplaced.await);
    assert!(!told.contains(&number) && !told.contains(person.name.as_str()), "a verdict repeats what was sent");
    cdc.bring(vec![cdc.about(&person, "cdc", contact(now))]).await;
    let code = |reference: &str, evidence: &str| PushedCode {
        person_reference: reference.into(),
        label: "红码".into(),
        rule: "R-CASE".into(),
        authority: format!("{home}/cdc"),
        assign_time: Some(now.to_protobuf()),
        evidence: evidence.into(),
    };
    push(&sandbox.platform(home), vec![code(&reference, basis), code(&number, basis), code("p-1", "a\nb")]).await;
    let document = || Some(document(&person));
    let set = SetCodeRequest {
        request_id: request_id(),
        document: document(),
        label: "绿码".into(),
        rule: "R-CLEAR".into(),
        authority: format!("{home}/cdc"),
        justification: justification.into(),
    };
    let mut operator = sandbox.desk.operator(home).unwrap();
    operator.set_code(set.clone()).await.expect("the code is set");
    operator.set_code(SetCodeRequest { label: number.clone(), request_id: request_id(), ..set }).await.unwrap_err();
    let look = ExplainCodeRequest { document: document(), reason: reason.into() };
    operator.explain_code(look.clone()).await.expect("it is explained");
    operator.explain_code(ExplainCodeRequest { reason: format!("{reason}\n"), ..look }).await.unwrap_err();
    let clear =
        ClearCodeRequest { request_id: request_id(), document: document(), justification: justification.into() };
    operator.clear_code(clear).await.expect("it is cleared");
    phone.code().await.expect("it is explained").expect("there is a code");
    let request = ExportTravelerRequest { device_id: phone.id().to_vec() };
    let mut parts = sandbox.travelers(home).export_traveler(request).await.expect("an export").into_inner();
    let mut all = String::new();
    while let Some(part) = parts.message().await.expect("the export goes on") {
        all += &format!("{part:?}");
    }
    for said in [justification, basis, reason, &number, person.name.as_str()] {
        assert!(all.contains(said), "an export lacks {said}");
    }
    vec![
        ("a newcomer's number", number.into_bytes()),
        ("a newcomer's name", person.name.as_str().into()),
        ("a platform's reference", reference.into_bytes()),
        ("a justification", justification.into()),
        ("what a platform's decision rests on", basis.into()),
        ("an operator's reason", reason.into()),
    ]
}

/// The answer to the only batch of a stream, once the stream is over.
async fn the_only<A>(mut answers: Streaming<A>) -> Result<A, Status> {
    let answer = answers.message().await?.expect("a batch has an answer");
    assert!(answers.message().await?.is_none(), "more than was sent is answered");
    Ok(answer)
}

pub(crate) fn test(sampled_at: UnixTime, positive: bool) -> Content {
    Content::Test(Test { sample_time: Some(sampled_at.to_protobuf()), positive })
}

pub(crate) fn dose(dose: u32, given_at: UnixTime) -> Content {
    Content::Vaccination(Vaccination { dose, give_time: Some(given_at.to_protobuf()) })
}

pub(crate) fn stay(area: u32, from: UnixTime, until: UnixTime) -> Content {
    Content::Stay(Stay { area, enter_time: Some(from.to_protobuf()), leave_time: Some(until.to_protobuf()) })
}

pub(crate) fn case(since: UnixTime, until: Option<UnixTime>) -> Content {
    Content::Case(Case { start_time: Some(since.to_protobuf()), end_time: until.map(UnixTime::to_protobuf) })
}

pub(crate) fn contact(last_at: UnixTime) -> Content {
    Content::Contact(Contact { contact_time: Some(last_at.to_protobuf()) })
}
