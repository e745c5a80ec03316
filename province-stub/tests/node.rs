//! A node on the wire: who may call what, a traveler's whole way, and what must never be in a log.

// Helpers of tests are tests to us, not to clippy.
#![allow(clippy::unwrap_used)]

mod accesses;
mod federation;
mod import;
mod reassessment;

use std::{
    io,
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use federation::{Federation, Running, home, neighbour};
use proto::{
    cbor,
    consent_request::ConsentRequest,
    contract::{
        access::{RecordAccessesRequest, access_log_service_client::AccessLogServiceClient},
        assignment::{
            ClearCodeRequest, ExplainCodeRequest, SetCodeRequest, assignment_service_client::AssignmentServiceClient,
        },
        province::{LookupRequest, lookup_response::Result as Answer, province_service_client::ProvinceServiceClient},
        traveler::{
            DeleteTravelerRequest, EnrollDeviceRequest, ExportTravelerRequest, GetCodeRequest, IssueConsentRequest,
            IssueConsentResponse, ListAccessesRequest, traveler_service_client::TravelerServiceClient,
        },
        types::{Document, Purpose},
    },
    envelope::MAX_LIFE,
    hint::IdentityHint,
    identity::PeerId,
    presentation::HintKey,
    proof::prove,
    random::{self, SystemRandom},
    refusal::{Reason, Refusal},
    statement::{LogHead, Statement, UnverifiedStatement},
    suite::{SigningKey, Suite},
    terms::{Kind, Purposes, Scope},
    time::{Clock as _, ManualClock, SystemClock},
    token::{Audience, Cti, TokenHash, UnverifiedToken, device_key_to_cose},
};
use province_stub::{
    keys::{KeyFiles, KeySource},
    seed::{Condition, SeededPerson},
    server::NodeError,
    standing::StandingConsent,
};
use sqlx::{ConnectOptions as _, Connection as _, sqlite::SqliteConnectOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::{Response, Status};
use tonic_types::StatusExt as _;
use tracing_subscriber::fmt::MakeWriter;

const VENUE: &str = "44/hospital/first";

fn gateway() -> PeerId {
    PeerId::gateway("1").unwrap()
}

fn backend() -> PeerId {
    PeerId::backend(home(), "app").unwrap()
}

fn operator() -> PeerId {
    PeerId::operator(home(), "li").unwrap()
}

fn reason<T>(result: Result<Response<T>, Status>) -> Reason {
    let status = result.err().unwrap();
    Refusal::reason_of(&status).unwrap_or_else(|| panic!("{status:?}"))
}

fn document(person: &SeededPerson) -> Option<Document> {
    Some(Document { r#type: i32::from(person.document.kind().number()), number: person.document.number().into() })
}

/// A phone that has enrolled for a person and holds a token.
struct Phone {
    device_id: Vec<u8>,
    key: SigningKey,
    issued: IssueConsentResponse,
}

impl Phone {
    async fn enroll(federation: &Federation, node: &Running, person: &SeededPerson) -> Self {
        let mut traveler = TravelerServiceClient::new(federation.dial(node, &backend()));
        let (enrollment, key) = (SigningKey::generate(Suite::Esp256), SigningKey::generate(Suite::Esp256));
        let request = EnrollDeviceRequest {
            request_id: "enroll-0001".into(),
            document: document(person),
            name: person.name.as_str().into(),
            enrollment_key: cbor::encode(&device_key_to_cose(enrollment.verifying_key())).unwrap(),
            person_reference: String::new(),
        };
        let device = traveler.enroll_device(request).await.unwrap().into_inner();
        let request = ConsentRequest {
            device_id: device.device_id.clone().try_into().unwrap(),
            audience: Audience::Anywhere,
            purposes: Purposes::ALL,
            scope: Scope::ALL,
            kind: Kind::Own,
            life: Duration::from_secs(3600),
            token_key: Some(key.verifying_key().clone()),
            issued_at: SystemClock.now(),
            nonce: random::bytes(&SystemRandom),
        };
        let consent_request = request.sign(&enrollment);
        let issued = traveler.issue_consent(IssueConsentRequest { consent_request }).await.unwrap().into_inner();
        Self { device_id: device.device_id, key, issued }
    }

    fn cti(&self, federation: &Federation) -> Cti {
        let token = UnverifiedToken::parse(&self.issued.token).unwrap();
        let token = token.verify(federation.list.members[&home()].consent_keys.values().next().unwrap()).unwrap();
        token.consent().cti
    }

    fn lookup(&self, federation: &Federation) -> LookupRequest {
        let (hash, cti) = (TokenHash::of(&self.issued.token), self.cti(federation));
        let life = Duration::from_secs(60);
        LookupRequest {
            token: self.issued.token.clone(),
            proof: prove(hash, cti, &self.key, None, SystemClock.now(), life, &SystemRandom),
            venue: VENUE.into(),
            purpose: Purpose::Medical.into(),
            scope: u32::from(Scope::ALL.bits()),
            exchange_id: vec![1; 16],
        }
    }
}

async fn status(federation: &Federation, node: &Running, phone: &Phone) -> Statement {
    let mut province = ProvinceServiceClient::new(federation.dial(node, &gateway()));
    let answer = province.lookup(phone.lookup(federation)).await.unwrap().into_inner();
    let Some(Answer::Statement(bytes)) = answer.result else { panic!("{answer:?}") };
    let statement = UnverifiedStatement::parse(&bytes).unwrap();
    let key = federation.list.statement_key(home(), statement.kid()).unwrap();
    statement.verify(key).unwrap()
}

fn red(person: &SeededPerson) -> SetCodeRequest {
    SetCodeRequest {
        request_id: "set-code-0001".into(),
        document: document(person),
        label: "红码".into(),
        rule: "R-CASE".into(),
        authority: "41/cdc".into(),
        justification: "a test".into(),
    }
}

#[tokio::test]
async fn a_travelers_whole_way() {
    let federation = Federation::new();
    let node = federation.start().await;
    let people = node.handle.seed(12).await.unwrap();
    let person = people.iter().find(|person| person.condition == Condition::Green).unwrap();
    let phone = Phone::enroll(&federation, &node, person).await;

    let green = status(&federation, &node, &phone).await;
    assert_eq!(green.status().label, "绿码");
    let k = HintKey(phone.issued.hint_key.clone().try_into().unwrap());
    let hint = IdentityHint::open(green.status().hint.as_ref().unwrap(), &k).unwrap();
    assert_eq!(hint, IdentityHint::mask(person.name.as_str(), person.document.number()));

    let mut assignment = AssignmentServiceClient::new(federation.dial(&node, &operator()));
    let assigned = assignment.set_code(red(person)).await.unwrap().into_inner();
    assert_eq!(assigned.changed_consents, 1);
    assert_eq!(assignment.set_code(red(person)).await.unwrap().into_inner(), assigned);

    let now_red = status(&federation, &node, &phone).await;
    assert_eq!((now_red.status().label.as_str(), now_red.status().rule.as_deref()), ("红码", Some("R-CASE")));
    let (member, head) = LogHead::from_change_token(&assigned.change_token).unwrap();
    assert_eq!((member, head), (home(), now_red.status().head));
    assert_eq!(head.seq, green.status().head.seq + 1);

    let metrics = scrape(&node).await;
    assert!(metrics.contains("node_lookups_total{outcome=\"statement\"} 2"), "{metrics}");
    assert!(metrics.contains("node_changes_total"), "{metrics}");
    node.stop().await.unwrap();
}

async fn scrape(node: &Running) -> String {
    let mut socket = tokio::net::TcpStream::connect(&node.private).await.unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    socket.write_all(request).await.unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn standing_consents_are_recognised_until_they_are_revoked() {
    let federation = Federation::new();
    let node = federation.start().await;
    let people = node.handle.seed(12).await.unwrap();
    let keys: Vec<_> = people.iter().map(|_| SigningKey::generate(Suite::Esp256)).collect();
    let standing = people.iter().zip(&keys).map(|(person, key)| StandingConsent {
        document: person.document.clone(),
        audience: Audience::Anywhere,
        purposes: Purposes::ALL,
        scope: Scope::ALL,
        life: Duration::from_secs(3600),
        token_key: Some(key.verifying_key().clone()),
    });
    let issued = node.handle.issue_standing(standing.collect()).await.unwrap();
    let mut province = ProvinceServiceClient::new(federation.dial(&node, &gateway()));
    for ((person, key), issued) in people.iter().zip(keys).zip(issued) {
        let issued = IssueConsentResponse { token: issued.token, ..Default::default() };
        let request = Phone { device_id: vec![], key, issued }.lookup(&federation);
        let answer = province.lookup(request.clone()).await.unwrap().into_inner().result.unwrap();
        let expected = person.condition != Condition::NoCode;
        assert_eq!(matches!(answer, Answer::Statement(_)), expected, "{:?}", person.condition);
        if person.index + 1 == people.len() as u32 {
            assert_eq!(node.handle.revoke_standing().await.unwrap(), 12);
            assert_eq!(reason(province.lookup(request).await), Reason::ConsentRevoked);
        }
    }
    node.stop().await.unwrap();
}

#[tokio::test]
async fn a_traveler_is_forgotten_when_the_call_returns() {
    let federation = Federation::new();
    let node = federation.start().await;
    let people = node.handle.seed(12).await.unwrap();
    let phone = Phone::enroll(&federation, &node, &people[0]).await;
    let before = status(&federation, &node, &phone).await;
    let mut traveler = TravelerServiceClient::new(federation.dial(&node, &backend()));
    let request = DeleteTravelerRequest { device_id: phone.device_id.clone() };
    let forgotten = traveler.delete_traveler(request.clone()).await.unwrap().into_inner();
    let (_, head) = LogHead::from_change_token(&forgotten.change_token).unwrap();
    assert_eq!((forgotten.revoked_consents, head.seq), (1, before.status().head.seq + 1));
    assert_eq!(reason(traveler.delete_traveler(request).await), Reason::DeviceUnknown);
    let listed =
        traveler.list_accesses(ListAccessesRequest { device_id: phone.device_id.clone(), ..Default::default() });
    assert_eq!(reason(listed.await), Reason::DeviceUnknown);
    let mut province = ProvinceServiceClient::new(federation.dial(&node, &gateway()));
    let answer = province.lookup(phone.lookup(&federation)).await.unwrap().into_inner().result.unwrap();
    assert!(matches!(answer, Answer::UnknownTraveler(_)), "{answer:?}");
    assert!(scrape(&node).await.contains("node_deletions_total 1"));
    node.stop().await.unwrap();
}

#[tokio::test]
async fn everybody_calls_what_is_theirs() {
    let federation = Federation::new();
    let node = federation.start().await;
    for (peer, lookup, travelers, codes) in [
        (gateway(), Reason::FieldMissing, Reason::RoleNotAllowed, Reason::RoleNotAllowed),
        (backend(), Reason::RoleNotAllowed, Reason::FieldMissing, Reason::RoleNotAllowed),
        (operator(), Reason::RoleNotAllowed, Reason::RoleNotAllowed, Reason::FieldMissing),
        (
            PeerId::backend(neighbour(), "app").unwrap(),
            Reason::RoleNotAllowed,
            Reason::MemberNotAllowed,
            Reason::RoleNotAllowed,
        ),
        (
            PeerId::operator(neighbour(), "li").unwrap(),
            Reason::RoleNotAllowed,
            Reason::RoleNotAllowed,
            Reason::MemberNotAllowed,
        ),
        (PeerId::node(home(), "2").unwrap(), Reason::RoleNotAllowed, Reason::RoleNotAllowed, Reason::RoleNotAllowed),
        (
            PeerId::venue("41/park/a".parse().unwrap()),
            Reason::RoleNotAllowed,
            Reason::RoleNotAllowed,
            Reason::RoleNotAllowed,
        ),
    ] {
        let channel = federation.dial(&node, &peer);
        let mut province = ProvinceServiceClient::new(channel.clone());
        assert_eq!(reason(province.lookup(LookupRequest::default()).await), lookup, "{peer}");
        let mut traveler = TravelerServiceClient::new(channel.clone());
        assert_eq!(reason(traveler.enroll_device(EnrollDeviceRequest::default()).await), travelers, "{peer}");
        assert_eq!(reason(traveler.issue_consent(IssueConsentRequest::default()).await), travelers, "{peer}");
        assert_eq!(reason(traveler.list_accesses(ListAccessesRequest::default()).await), travelers, "{peer}");
        assert_eq!(reason(traveler.delete_traveler(DeleteTravelerRequest::default()).await), travelers, "{peer}");
        // Who may look up may deliver: the gateway alone.
        let mut log = AccessLogServiceClient::new(channel.clone());
        assert_eq!(reason(log.record_accesses(RecordAccessesRequest::default()).await), lookup, "{peer}");
        assert_eq!(reason(traveler.get_code(GetCodeRequest::default()).await), travelers, "{peer}");
        assert_eq!(reason(traveler.export_traveler(ExportTravelerRequest::default()).await), travelers, "{peer}");
        let mut assignment = AssignmentServiceClient::new(channel);
        assert_eq!(reason(assignment.set_code(SetCodeRequest::default()).await), codes, "{peer}");
        assert_eq!(reason(assignment.clear_code(ClearCodeRequest::default()).await), codes, "{peer}");
        assert_eq!(reason(assignment.explain_code(ExplainCodeRequest::default()).await), codes, "{peer}");
    }
    let mut province = ProvinceServiceClient::new(federation.dial(&node, &gateway()));
    let large = LookupRequest { token: vec![0; 20_000], ..Default::default() };
    assert_eq!(reason(province.lookup(large).await), Reason::RequestTooLarge);
    node.stop().await.unwrap();
}

/// An operator's look that cannot be put on record, because the disk is full or for any other reason, shows nothing (I2).
#[tokio::test]
async fn without_a_record_of_the_look_there_is_no_answer() {
    let federation = Federation::new();
    let node = federation.start().await;
    let person = node.handle.seed(12).await.unwrap().remove(0);
    let phone = Phone::enroll(&federation, &node, &person).await;
    let options = SqliteConnectOptions::new().filename(federation.path("data").join("node.db"));
    let mut database = options.connect().await.unwrap();
    let full = "CREATE TRIGGER full BEFORE INSERT ON operator_access BEGIN SELECT raise(ABORT, 'no room'); END";
    sqlx::query(full).execute(&mut database).await.unwrap();
    let mut assignment = AssignmentServiceClient::new(federation.dial(&node, &operator()));
    let look = ExplainCodeRequest { document: document(&person), reason: "12345".into() };
    assert_eq!(reason(assignment.explain_code(look.clone()).await), Reason::StoreUnavailable);
    let mut traveler = TravelerServiceClient::new(federation.dial(&node, &backend()));
    let list = ListAccessesRequest { device_id: phone.device_id.clone(), ..Default::default() };
    assert!(traveler.list_accesses(list.clone()).await.unwrap().into_inner().accesses.is_empty());
    sqlx::query("DROP TRIGGER full").execute(&mut database).await.unwrap();
    assert!(assignment.explain_code(look).await.unwrap().into_inner().code.is_some());
    assert_eq!(traveler.list_accesses(list).await.unwrap().into_inner().accesses.len(), 1);
    database.close().await.unwrap();
    node.stop().await.unwrap();
}

#[tokio::test]
async fn a_node_does_not_start_with_what_nobody_would_believe() {
    let federation = Federation::new();
    let open = async |config| federation.open(config, Arc::new(SystemClock)).await.map(drop).unwrap_err();
    let mut config = federation.config();
    config.credentials = federation.certify(&PeerId::node(home(), "2").unwrap());
    let error = open(config).await;
    assert!(matches!(&error, NodeError::Identity { .. }), "{error}");
    type Change = fn(&mut KeyFiles);
    let changes: [(Change, &str); 3] = [
        (|keys| keys.consent.set_file_name("other-consent.key"), "consent"),
        (|keys| keys.statement.set_file_name("other-statement.key"), "statement"),
        (|keys| keys.sealing.set_file_name("secret"), "sealing"),
    ];
    for (change, what) in changes {
        let mut config = federation.config();
        change(&mut config.keys);
        let error = open(config).await;
        assert!(matches!(&error, NodeError::NotTrusted { what: found, .. } if *found == what), "{error}");
    }
    let mut config = federation.config();
    config.keys.secret = federation.path("trust");
    assert!(matches!(open(config).await, NodeError::Keys(_)));
    let mut config = federation.config();
    config.keys.at_rest = vec![KeySource::File(federation.path("nowhere"))];
    assert!(matches!(open(config).await, NodeError::Keys(_)));
    let mut config = federation.config();
    config.trust.list = federation.path("nowhere");
    assert!(matches!(open(config).await, NodeError::Trust(_)));
    std::fs::write(federation.path("data").join("node.db"), [7; 4096]).unwrap();
    assert!(matches!(open(federation.config()).await, NodeError::Store { .. }));
    std::fs::write(federation.path("file"), "").unwrap();
    let mut config = federation.config();
    config.data_dir = federation.path("file").join("data");
    assert!(matches!(open(config).await, NodeError::DataDir { .. }));
}

#[tokio::test]
async fn a_node_whose_trust_has_expired_answers_nothing() {
    let federation = Federation::new();
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let node = federation.start_by(clock.clone()).await;
    let mut province = ProvinceServiceClient::new(federation.dial(&node, &gateway()));
    assert_eq!(reason(province.lookup(LookupRequest::default()).await), Reason::FieldMissing);
    clock.advance(MAX_LIFE);
    let status = province.lookup(LookupRequest::default()).await.unwrap_err();
    assert_eq!(Refusal::reason_of(&status), Some(Reason::TrustExpired));
    assert_eq!(status.get_details_error_info().unwrap().metadata["source"], "home");
    node.stop().await.unwrap();
}

#[tokio::test]
async fn a_stopped_node_takes_up_where_it_was() {
    let federation = Federation::new();
    let node = federation.start().await;
    let people = node.handle.seed(12).await.unwrap();
    let phone = Phone::enroll(&federation, &node, &people[0]).await;
    let before = status(&federation, &node, &phone).await;
    let (handle, stopped) = (node.handle.clone(), tokio::time::timeout(Duration::from_secs(5), node.stop()));
    stopped.await.unwrap().unwrap();
    assert_eq!(handle.revoke_standing().await.unwrap_err().reason(), Reason::StoreUnavailable);
    let node = federation.start().await;
    let after = status(&federation, &node, &phone).await;
    assert_eq!(after.status().head, before.status().head);
    assert_eq!(after.status().label, before.status().label);
    node.stop().await.unwrap();
}

/// Every log line of this process, at the level that logs most.
static LOG: LazyLock<Arc<Mutex<Vec<u8>>>> = LazyLock::new(Arc::default);

struct Capture;

impl io::Write for Capture {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Capture {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}

#[tokio::test]
async fn no_log_line_and_no_error_ever_holds_a_person() {
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(Capture).with_ansi(false).finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let federation = Federation::new();
    let node = federation.start().await;
    let people = node.handle.seed(12).await.unwrap();
    let person = &people[0];
    let phone = Phone::enroll(&federation, &node, person).await;
    status(&federation, &node, &phone).await;
    let mut assignment = AssignmentServiceClient::new(federation.dial(&node, &operator()));
    assignment.set_code(red(person)).await.unwrap();
    let reused = SetCodeRequest { justification: person.name.as_str().into(), ..red(person) };
    let refused = assignment.set_code(reused).await.unwrap_err();
    // The access log: a record of theirs, two stories, the list, and all of it forgotten.
    let (channel, now) = (federation.dial(&node, &gateway()), SystemClock.now());
    for cti in [phone.cti(&federation), Cti([9; 16])] {
        let record = accesses::entry(cti, now).encode();
        accesses::deliver(channel.clone(), accesses::delivery(&federation, vec![record])).await;
    }
    let mut traveler = TravelerServiceClient::new(federation.dial(&node, &backend()));
    let list = ListAccessesRequest { device_id: phone.device_id.clone(), ..Default::default() };
    assert_eq!(traveler.list_accesses(list).await.unwrap().into_inner().accesses.len(), 1);
    let delete = DeleteTravelerRequest { device_id: phone.device_id.clone() };
    traveler.delete_traveler(delete).await.unwrap();
    let handle = node.handle.clone();
    node.stop().await.unwrap();
    // A store that fails is logged, with all that it says.
    handle.seed(12).await.unwrap_err();

    let log = String::from_utf8_lossy(&LOG.lock().unwrap()).into_owned();
    assert!(log.contains("node serves") && log.contains("the store does not answer"), "the log was captured");
    assert!(log.contains("an access log tells two stories"), "a conflict is said aloud");
    let forgotten = log.lines().find(|line| line.contains("a traveler is forgotten")).unwrap();
    for told in [&*backend().to_string(), "revoked=1", "by_hand=1"] {
        assert!(forgotten.contains(told), "{told} in {forgotten}");
    }
    let told = format!("{refused:?}");
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let cti = phone.cti(&federation);
    for secret in [
        person.document.number().to_owned(),
        person.name.as_str().to_owned(),
        hex(&cti.0),
        hex(&phone.device_id),
        format!("{:?}", &phone.device_id),
        hex(&phone.issued.token[..32]),
        format!("{:?}", &phone.issued.token[..32]),
        format!("{:?}", cti.0),
    ] {
        assert!(!log.contains(&secret) && !told.contains(&secret), "{secret}");
    }
}
