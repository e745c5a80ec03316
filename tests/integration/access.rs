//! The access record's way: receipts that anybody verifies, delivery to the home member, the traveler's own list, and what
//! becomes of a member, a disk or a caller that does not do its part (I2, I6, I7).

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use ::gateway::{
    documents::key_to_hex,
    record::{LogTool, Shown, SpaceLimits},
    server::GatewayError,
};
use peer::{
    dial::{self, DialLimits},
    verifier::Expected,
};
use proto::{
    contract::{
        access::{
            Conflict, RecordAccessesRequest, RecordAccessesResponse,
            access_log_service_server::{AccessLogService, AccessLogServiceServer},
            record_accesses_response::Result as Said,
        },
        federation::{
            GetInclusionProofRequest, GetInclusionProofResponse, federation_service_client::FederationServiceClient,
        },
        recognition::{Outcome, RecognizeResponse, Source},
        traveler::{Access, ListAccessesRequest, traveler_service_client::TravelerServiceClient},
    },
    identity::Realm,
    log::{
        LogId,
        checkpoint::Checkpoint as Head,
        commit::{AccessReceipt, OnRecord},
        delivery::DeliveryReceipt,
        merkle::{self, Hash, root_of_path},
    },
    member::Member,
    refusal::{Reason, reason_name},
    suite::{SigningKey, Suite},
    terms::Purpose,
    venue::VenueId,
};
use province_stub::{seed::Condition, store::sqlite::SqliteStore};
use tokio_util::sync::DropGuard;
use tongxing::{
    checkpoint::Checkpoint,
    phone::{Pass, Phone, Wish},
};
use tonic::{
    Code::{InvalidArgument, NotFound, Unavailable},
    Request, Response, Status,
    service::Routes,
};

use crate::sandbox::{
    Sandbox, Stopped,
    forge::{self, Forger},
    gateway::{self, OwnGateway},
    member, metric, node,
    program::Program,
    shared, until, venue,
    want::{reason, want},
};

const PATIENCE: Duration = Duration::from_secs(20);

fn station() -> VenueId {
    venue("44/station/guangzhou-south")
}

fn dialled() -> DialLimits {
    DialLimits { connect_timeout: PATIENCE, ..DialLimits::default() }
}

/// A traveler with a phone and a consent.
struct Traveler {
    home: Member,
    phone: Phone,
    pass: Pass,
}

impl Traveler {
    async fn of(sandbox: &Sandbox, home: &str) -> Self {
        let home = member(home);
        let person = sandbox.person(home, Condition::Green);
        let phone = sandbox.desk.backend(home).unwrap().enroll(&person).await.expect("the phone enrols");
        let pass = phone.consent(&Wish::default(), sandbox.now()).await.expect("home issues a token");
        Self { home, phone, pass }
    }

    /// Who asked for them, as home says.
    async fn accesses(&self, sandbox: &Sandbox) -> Vec<Access> {
        let standing = sandbox.desk.standing(&sandbox.layout().backend(self.home)).unwrap();
        let address = sandbox.desk.node_address(self.home).unwrap();
        let channel = dial::channel(&standing, &address, Expected::NodeOf(self.home), dialled()).unwrap();
        let request =
            ListAccessesRequest { device_id: self.phone.id().to_vec(), page_size: 100, page_token: String::new() };
        let listed = TravelerServiceClient::new(channel).list_accesses(request).await;
        listed.map(|listed| listed.into_inner().accesses).unwrap_or_default()
    }

    /// Waits until home has so many of them.
    async fn accesses_when(&self, sandbox: &Sandbox, count: usize) -> Vec<Access> {
        until(&format!("{count} accesses are at home"), PATIENCE, async || self.accesses(sandbox).await.len() >= count)
            .await;
        self.accesses(sandbox).await
    }

    async fn shown(&self, sandbox: &Sandbox, at: &Checkpoint) -> Result<RecognizeResponse, Status> {
        at.send(sandbox.request(&station(), &self.pass)).await
    }
}

fn on_record(sandbox: &Sandbox, answer: &RecognizeResponse) -> OnRecord {
    let receipt = AccessReceipt::parse(&answer.access_receipt).expect("a receipt");
    receipt.verify(&sandbox.desk.trust().list).expect("a receipt that verifies")
}

async fn prove(sandbox: &Sandbox, request: GetInclusionProofRequest) -> Result<GetInclusionProofResponse, Status> {
    let standing = sandbox.desk.standing(&sandbox.layout().venue(&station())).unwrap();
    let address = sandbox.desk.gateway_address().unwrap();
    let channel = dial::channel(&standing, &address, Expected::Gateway, dialled()).unwrap();
    Ok(FederationServiceClient::new(channel).get_inclusion_proof(request).await?.into_inner())
}

#[tokio::test]
async fn a_receipts_record_is_proven_on_its_log_and_on_no_other() {
    let sandbox = shared();
    let traveler = Traveler::of(sandbox, "51").await;
    let answer = traveler.shown(sandbox, &sandbox.at(&station())).await.expect("an answer");
    let receipt = AccessReceipt::parse(&answer.access_receipt).unwrap();
    let there = on_record(sandbox, &answer);
    assert_eq!((there.owner, there.entry.exchange_id.to_vec()), (Realm::Member(traveler.home), answer.exchange_id));
    let leaf = merkle::leaf_hash(&receipt.record);
    let request = || GetInclusionProofRequest {
        log: there.log.0.to_vec(),
        member: "51".into(),
        index: there.index,
        leaf_hash: leaf.to_vec(),
    };
    let proof = prove(sandbox, request()).await.expect("a proof");
    let head = Head::open(&proof.checkpoint, &sandbox.desk.trust().list).expect("a head that verifies");
    assert_eq!((head.log, head.owner), (there.log, there.owner));
    let path: Vec<Hash> = proof.path.iter().map(|hash| hash.as_slice().try_into().unwrap()).collect();
    assert_eq!(root_of_path(leaf, there.index, head.size, &path), Some(head.root));

    let unknown = want(Reason::RecordUnknown, NotFound);
    let elsewhere = GetInclusionProofRequest { log: vec![7; 32], ..request() };
    unknown.clone().check("a log that is not here", prove(sandbox, elsewhere).await);
    let beyond = prove(sandbox, GetInclusionProofRequest { index: u64::MAX, ..request() }).await;
    assert_eq!(reason("beyond the end", beyond), Reason::RecordUnknown);
    let never = GetInclusionProofRequest { member: "66".into(), index: 1 << 40, ..request() };
    unknown.clone().check("a log without a record", prove(sandbox, never).await);
    let guessed = GetInclusionProofRequest { leaf_hash: vec![7; 32], ..request() };
    unknown.check("a record that the caller has not", prove(sandbox, guessed).await);
    let cut = GetInclusionProofRequest { leaf_hash: vec![7; 31], ..request() };
    want(Reason::FieldInvalid, InvalidArgument).field("leaf_hash").check("no hash", prove(sandbox, cut).await);
    let invalid = want(Reason::FieldInvalid, InvalidArgument).field("log");
    invalid.check("no id", prove(sandbox, GetInclusionProofRequest { log: vec![7; 31], ..request() }).await);
    let nobody = want(Reason::MemberUnknown, InvalidArgument).field("member").with("member", "99");
    nobody.check("no member", prove(sandbox, GetInclusionProofRequest { member: "99".into(), ..request() }).await);
}

#[tokio::test]
async fn every_answer_reaches_its_home_and_its_traveler_sees_it() {
    let sandbox = Sandbox::start(&["44", "51"]).await;
    let (traveler, other) = (Traveler::of(&sandbox, "51").await, Traveler::of(&sandbox, "51").await);
    let at = sandbox.at(&station());
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(traveler.shown(&sandbox, &at).await.expect("an answer"));
    }
    let refused =
        Checkpoint::request(&station(), &traveler.pass.present(Some(&station()), sandbox.now()), Purpose::Medical);
    assert_eq!(reason("a purpose", at.send(refused).await), Reason::PurposeNotAdmitted);
    other.shown(&sandbox, &at).await.expect("an answer");

    let mut accesses = traveler.accesses_when(&sandbox, 4).await;
    accesses.sort_by_key(|access| access.log_index);
    assert_eq!(accesses.len(), 4, "one for each exchange, and nobody else's");
    for (access, answer) in accesses.iter().zip(&answers) {
        let there = on_record(&sandbox, answer);
        assert_eq!((&access.exchange_id, access.log_index), (&answer.exchange_id, there.index));
        assert_eq!((access.outcome(), access.source()), (Outcome::Status, answer.source()));
        assert_eq!(
            (access.disclosed_scope, access.venue.as_str()),
            (answer.granted_scope, "44/station/guangzhou-south")
        );
        assert_eq!(access.caller, "44/venue/station/guangzhou-south");
        assert_eq!(access.device_id, traveler.phone.id());
        assert_eq!(access.log, there.log.0);
    }
    assert_eq!(accesses[3].refusal_reason, reason_name(Reason::PurposeNotAdmitted));
    assert_eq!((accesses[3].disclosed_scope, accesses[3].outcome()), (0, Outcome::Unspecified));
    assert!(answers.iter().any(|answer| answer.source() == Source::Home));
    assert_eq!(other.accesses_when(&sandbox, 1).await.len(), 1);
    sandbox.stop().await;
}

#[tokio::test]
async fn what_a_member_that_was_away_must_have_waits_for_it() {
    let mut sandbox = Sandbox::start(&["44", "51"]).await;
    let (away, at) = (Traveler::of(&sandbox, "51").await, sandbox.at(&station()));
    let near = Traveler::of(&sandbox, "44").await;
    sandbox.federation.stop_node(member("51")).await.unwrap();
    for _ in 0..3 {
        let answer = away.shown(&sandbox, &at).await.expect("an answer");
        assert_eq!(answer.outcome(), Outcome::HomeUnreachable);
    }
    near.shown(&sandbox, &at).await.expect("an answer");
    near.accesses_when(&sandbox, 1).await;
    sandbox.federation.restart_node(member("51")).await.unwrap();
    let accesses = away.accesses_when(&sandbox, 3).await;
    assert_eq!(accesses.len(), 3, "what was not disclosed is on record too");
    assert!(accesses.iter().all(|access| access.outcome() == Outcome::HomeUnreachable && access.disclosed_scope == 0));
    sandbox.stop().await;
}

#[tokio::test]
async fn what_waits_is_bounded_for_a_member_and_for_each_caller_and_harms_nobody_else() {
    let (sandbox, hole) = (shared(), node::black_hole().await);
    let gateway = OwnGateway::with_node(sandbox, "52", &hole.address, |config| {
        config.limits.record.space = SpaceLimits { max_undelivered: 1_000, max_undelivered_per_caller: 600 };
        config.limits.member.timeout = Duration::from_millis(50);
        config.limits.member.attempt_timeout = Duration::from_millis(50);
    })
    .await;
    let (here, there) = (station(), venue("11/station/beijing-west"));
    let pass = sandbox.green(member("52")).await;
    let fill = async |venue: &VenueId| {
        let (checkpoint, mut answers) = (gateway.at(sandbox, venue), 0);
        loop {
            match checkpoint.send(sandbox.request(venue, &pass)).await {
                Ok(_) => answers += 1,
                Err(status) => return (answers, status),
            }
            assert!(answers < 10, "nothing bounds what waits");
        }
    };
    let unavailable = |limit| want(Reason::RecordUnavailable, Unavailable).from("gateway").retry().with("limit", limit);
    let (answers, refused) = fill(&here).await;
    assert!((2..=4).contains(&answers), "{answers} records of some 150 to 250 bytes within 600");
    unavailable("undelivered_per_caller").check("a caller that has its part", Err::<(), _>(refused));
    let (answers, refused) = fill(&there).await;
    assert!((1..=3).contains(&answers), "{answers} more within 1,000");
    unavailable("undelivered").check("a member whose room is full", Err::<(), _>(refused));
    let near = sandbox.request(&here, &sandbox.green(member("44")).await);
    crate::sandbox::still_serves(&gateway.at(sandbox, &here), &near, "a member that is away").await;
    gateway.stop().await;
}

#[tokio::test]
async fn forgeries_for_a_member_take_nothing_of_its_room() {
    let sandbox = shared();
    let gateway = OwnGateway::start(sandbox, |_| {}).await;
    let checkpoint = gateway.at(sandbox, &station());
    let (home, other) = (Forger::of(sandbox, member("51")), Forger::of(sandbox, member("44")));
    for n in 0..60_usize {
        let consent = home.consent();
        let token = if n % 2 == 0 { consent.sign(&other.keys.consent) } else { forge::flipped(&home.sign(&consent)) };
        let pass = home.present(&home.consent(), Some(&station()));
        let mut request = Checkpoint::request(&station(), &pass, Purpose::Entry);
        request.token = token;
        assert!(checkpoint.send(request).await.is_err(), "a forgery was answered");
    }
    let data_dir = gateway.data_dir.clone();
    let _kept = gateway.stop().await;
    let logs = LogTool::open(&data_dir).unwrap().logs().unwrap();
    assert_eq!(logs, [(Realm::Gateway, 0, 60)], "a forgery is on somebody's log");
}

#[tokio::test]
async fn who_cannot_verify_a_receipt_gets_no_answer() {
    let (sandbox, dir) = (shared(), tempfile::tempdir().unwrap());
    let list = sandbox.trust_list_with(dir.path(), |source| source.gateway.log_keys.clear());
    let gateway = OwnGateway::start(sandbox, |config| config.trust.list = list).await;
    let traveler = Traveler::of(sandbox, "51").await;
    let refused = traveler.shown(sandbox, &gateway.at(sandbox, &station())).await;
    let unlisted = want(Reason::RecordUnavailable, Unavailable).from("gateway").retry().with("limit", "log_key");
    unlisted.check("a log key that the trust list has not", refused);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_full_means_no_answer_and_nothing_that_was_acknowledged_is_lost() {
    let sandbox = Sandbox::start(&["44", "51"]).await;
    let gateway = Program::gateway(&sandbox, "full", &[]).await;
    let (traveler, at) = (Traveler::of(&sandbox, "51").await, gateway.at(&sandbox, &station()));
    let mut acknowledged = Vec::new();
    let mut ask = async || {
        let answer = traveler.shown(&sandbox, &at).await;
        acknowledged.extend(answer.iter().map(|answer| answer.exchange_id.clone()));
        answer
    };
    until("there are answers", PATIENCE, async || ask().await.is_ok()).await;
    gateway.limit_files(Some(16 * 1024));
    let full = want(Reason::RecordUnavailable, Unavailable).from("gateway").retry();
    full.check("a disk that is full", ask().await);
    assert_eq!(reason("still", ask().await), Reason::RecordUnavailable);
    assert!(crate::sandbox::wire::get(&gateway.private, "/readyz").await.contains("impaired"));
    assert!(metric(&gateway.private, "gateway_record_failures_total").await.values().sum::<f64>() > 0.5);
    gateway.limit_files(None);
    until("there are answers again", PATIENCE, async || ask().await.is_ok()).await;
    assert!(crate::sandbox::wire::get(&gateway.private, "/readyz").await.contains("ready"));
    ask().await.expect("an answer");
    let data_dir = gateway.data_dir.clone();
    gateway.stop().await;
    let logs = LogTool::open(&data_dir).unwrap();
    for verified in logs.verify(None, sandbox.now()).unwrap() {
        verified.expect("what was committed verifies");
    }
    let mut on_record = Vec::new();
    let owner = Realm::Member(traveler.home);
    let all = logs.records(owner, 0, u64::MAX, |_, _, shown| {
        if let Shown::Exchange(entry) = shown {
            on_record.push(entry.exchange_id.to_vec());
        }
        Ok(())
    });
    all.unwrap();
    assert!(acknowledged.iter().all(|id| on_record.iter().filter(|on_record| *on_record == id).count() == 1));
    sandbox.stop().await;
}

/// What a lying home says to a delivery.
type Lie = Box<dyn Fn(&RecordAccessesRequest) -> Said + Send + Sync>;

/// A home that takes in no record and says something else.
#[derive(Clone)]
struct Liar {
    lie: Arc<Mutex<Lie>>,
    calls: Arc<Mutex<Vec<RecordAccessesRequest>>>,
}

#[tonic::async_trait]
impl AccessLogService for Liar {
    async fn record_accesses(
        &self,
        request: Request<RecordAccessesRequest>,
    ) -> Result<Response<RecordAccessesResponse>, Status> {
        let request = request.into_inner();
        let result = Some((self.lie.lock().unwrap())(&request));
        self.calls.lock().unwrap().push(request);
        Ok(Response::new(RecordAccessesResponse { result }))
    }
}

/// A gateway with logs of its own that delivers to this home instead of 51's.
async fn gateway_with(sandbox: &Sandbox, liar: &Liar) -> (OwnGateway, LogId, DropGuard, tempfile::TempDir) {
    let (routes, home) = (Routes::new(AccessLogServiceServer::new(liar.clone())), member("51"));
    let (address, serving) = node::serve(sandbox, &sandbox.layout().node(home), routes).await;
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let key = LogTool::ensure_key(&data_dir).unwrap();
    let list = sandbox.trust_list_with(dir.path(), |source| {
        source.members.get_mut("51").unwrap().endpoints = vec![address];
        source.gateway.log_keys = vec![key_to_hex(&key)];
    });
    let gateway = OwnGateway::start(sandbox, |config| {
        config.data_dir = data_dir;
        config.trust.list = list;
        config.limits.delivery.every = Duration::from_millis(20);
    })
    .await;
    (gateway, LogId::of(&key), serving, dir)
}

#[tokio::test]
async fn a_home_that_lies_about_a_log_stops_nobody_and_nothing_is_trimmed_for_it() {
    let sandbox = shared();
    let home = member("51");
    let key = Forger::of(sandbox, home).keys.statement;
    let key = Arc::new(key);
    let receipt = move |key: &SigningKey, issuer, log, size, root| {
        let issued_at = sandbox.now();
        Said::Receipt(DeliveryReceipt { issuer, log: LogId(log), size, root, issued_at }.sign(key))
    };
    let log_of = |request: &RecordAccessesRequest| <[u8; 32]>::try_from(request.log.as_slice()).unwrap();
    let stranger = SigningKey::generate(Suite::Ed25519);
    let sign = |f: fn(&RecordAccessesRequest) -> (u64, Hash)| -> Lie {
        let (key, receipt) = (key.clone(), receipt);
        Box::new(move |request| {
            let (size, root) = f(request);
            receipt(&key, home, log_of(request), size, root)
        })
    };

    let other_log: Lie = {
        let (key, receipt) = (key.clone(), receipt);
        Box::new(move |_| receipt(&key, home, [9; 32], 0, merkle::empty_root()))
    };
    let of_stranger: Lie =
        { Box::new(move |request| receipt(&stranger, home, log_of(request), 0, merkle::empty_root())) };
    let lies: Vec<(&str, Lie, &str)> = vec![
        ("a receipt for another root", sign(|request| (request.records.len() as u64, [7; 32])), "dispute"),
        ("a receipt for more than there is", sign(|_| (1 << 40, [7; 32])), "dispute"),
        ("a receipt for nothing, whatever is sent", sign(|_| (0, merkle::empty_root())), "dispute"),
        ("a receipt for another log", other_log, "dispute"),
        ("somebody else's receipt", of_stranger, "invalid_receipt"),
        ("no receipt", Box::new(|_| Said::Receipt(b"yes".to_vec())), "invalid_receipt"),
        (
            "a conflict without a head",
            Box::new(|_| Said::Conflict(Conflict { held_checkpoint: "ours".into(), held_size: 9, index: 0 })),
            "dispute",
        ),
        (
            "a conflict with the head that was just shown",
            Box::new(|request| {
                Said::Conflict(Conflict { held_checkpoint: request.checkpoint.clone(), held_size: 9, index: 0 })
            }),
            "dispute",
        ),
    ];
    let liar = Liar { lie: Arc::new(Mutex::new(Box::new(|_| Said::Receipt(Vec::new())))), calls: Arc::default() };
    for (name, lie, outcome) in lies {
        *liar.lie.lock().unwrap() = lie;
        // A new gateway for each: after a dispute it waits for a minute.
        let (gateway, _, _serving, _dir) = gateway_with(sandbox, &liar).await;
        let checkpoint = gateway.at(sandbox, &station());
        let request = sandbox.request(&station(), &sandbox.green(home).await);
        let answer = checkpoint.send(request.clone()).await.expect("an answer");
        assert_eq!(answer.outcome(), Outcome::HomeUnreachable, "that home answers no lookup");
        let said = format!("outcome=\"{outcome}\"");
        until(name, PATIENCE, async || {
            let counted = metric(&gateway.private, "gateway_deliveries_total").await;
            counted
                .iter()
                .any(|(labels, count)| labels.contains("member=\"51\"") && labels.contains(&said) && *count > 0.5)
        })
        .await;
        checkpoint.send(request).await.unwrap_or_else(|status| panic!("{name} stopped the gateway: {status:?}"));
        let data_dir = gateway.data_dir.clone();
        let _kept = gateway.stop().await;
        for verified in LogTool::open(&data_dir).unwrap().verify(None, sandbox.now()).unwrap() {
            let verified = verified.expect("the log is as it was");
            assert_eq!((verified.kept_from, verified.delivered, verified.size), (0, 0, 2), "{name}");
        }
    }
    let calls = liar.calls.lock().unwrap();
    assert!(calls.iter().all(|call| call.first_index == 0), "something counts as delivered");
}

/// Copies what a program keeps.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

async fn delivered(sandbox: &Sandbox) {
    let private = sandbox.desk.prepared().addresses.gateways[0].private.to_string();
    until("nothing waits", PATIENCE, async || {
        let waiting = metric(&private, "gateway_undelivered_records").await;
        !waiting.is_empty() && waiting.values().all(|count| *count < 0.5)
    })
    .await;
}

#[tokio::test]
async fn a_record_that_was_put_back_is_refused_or_found_out_by_home() {
    let sandbox = Sandbox::start(&["44", "51"]).await;
    let traveler = Traveler::of(&sandbox, "51").await;
    traveler.shown(&sandbox, &sandbox.at(&station())).await.expect("an answer");
    traveler.accesses_when(&sandbox, 1).await;
    let stopped = sandbox.stop_and_keep().await;
    let (data, aside) = (stopped.layout.gateway(1).join("data"), stopped.layout.dir().join("aside"));
    copy(&data, &aside);

    let sandbox = stopped.start().await;
    for _ in 0..3 {
        traveler_at(&sandbox, &traveler).await.expect("an answer");
    }
    traveler.accesses_when(&sandbox, 4).await;
    let stopped = sandbox.stop_and_keep().await;
    // The store alone: its witness knows that there was more.
    fs::copy(aside.join("record.redb"), data.join("record.redb")).unwrap();
    let config = gateway::config(&stopped.layout, data.clone());
    let refused = gateway::open(config, stopped.clock.clone()).expect_err("an older copy is not gone on with");
    assert!(matches!(&refused, GatewayError::Record(why) if why.contains("older copy")), "{refused}");

    // All of it: home knows, as soon as there is another record where it has one.
    copy(&aside, &data);
    let sandbox = stopped.start().await;
    let at = sandbox.at(&station());
    until("the gateway has found out", PATIENCE, async || {
        let again = at.send(sandbox.request(&station(), &traveler.pass)).await;
        again.is_err_and(|status| reason("a log with two histories", Err::<(), _>(status)) == Reason::RecordUnavailable)
    })
    .await;
    let private = sandbox.desk.prepared().addresses.gateways[0].private.to_string();
    assert!(crate::sandbox::wire::get(&private, "/readyz").await.contains("impaired"));
    let stopped = sandbox.stop_and_keep().await;
    let config = gateway::config(&stopped.layout, data.clone());
    let refused = gateway::open(config, stopped.clock.clone()).expect_err("a restart does not forget it");
    assert!(matches!(&refused, GatewayError::Record(why) if why.contains("never had")), "{refused}");
    // And home has both heads on file.
    let store = SqliteStore::inspect(&stopped.layout.node(member("51")).join("data/node.db")).await.unwrap();
    let logs = province_stub::store::Store::access_logs(&store).await.unwrap();
    assert_eq!((logs[0].held.tree.size(), logs[0].evidence.is_empty()), (4, false));
}

/// Shows a traveler at the federation's gateway, wherever it is now.
async fn traveler_at(sandbox: &Sandbox, traveler: &Traveler) -> Result<RecognizeResponse, Status> {
    traveler.shown(sandbox, &sandbox.at(&station())).await
}

/// Stops a federation, puts a member's store back to what it was, and starts again.
async fn with_node_put_back(sandbox: Sandbox, home: Member, from: &Path) -> Sandbox {
    let stopped: Stopped = sandbox.stop_and_keep().await;
    let data = stopped.layout.node(home).join("data");
    for name in ["node.db", "node.db-wal", "node.db-shm"] {
        let _ = fs::remove_file(data.join(name));
    }
    copy(from, &data);
    stopped.start().await
}

#[tokio::test]
async fn a_home_that_was_put_back_gets_again_what_it_lost_or_goes_on_behind_it() {
    let home = member("51");
    let mut sandbox = Sandbox::start(&["44", "51"]).await;
    let traveler = Traveler::of(&sandbox, "51").await;
    traveler_at(&sandbox, &traveler).await.expect("an answer");
    traveler.accesses_when(&sandbox, 1).await;
    delivered(&sandbox).await;
    let stopped = sandbox.stop_and_keep().await;
    let (data, aside) = (stopped.layout.node(home).join("data"), stopped.layout.dir().join("aside"));
    copy(&data, &aside);
    sandbox = stopped.start().await;
    for _ in 0..3 {
        traveler_at(&sandbox, &traveler).await.expect("an answer");
    }
    traveler.accesses_when(&sandbox, 4).await;
    delivered(&sandbox).await;

    // The gateway has them still: an hour is what it keeps.
    sandbox = with_node_put_back(sandbox, home, &aside).await;
    assert_eq!(traveler.accesses_when(&sandbox, 4).await.len(), 4);
    delivered(&sandbox).await;

    // Two hours later a block is full and what is delivered of it is not kept.
    for _ in 0..260 {
        traveler_at(&sandbox, &traveler).await.expect("an answer");
    }
    delivered(&sandbox).await;
    sandbox.clock.advance(Duration::from_secs(2 * 3600));
    let fresh = Traveler::of(&sandbox, "51").await;
    traveler_at(&sandbox, &fresh).await.expect("an answer");
    let data = sandbox.layout().gateway(1).join("data");
    let kept = || {
        let logs = LogTool::open(&data).unwrap().logs().unwrap();
        *logs.iter().find(|(owner, ..)| *owner == Realm::Member(home)).unwrap()
    };
    until("a block is trimmed", PATIENCE, async || kept().1 == 256).await;
    sandbox = with_node_put_back(sandbox, home, &aside).await;
    // The same person with a token of now: the first access, which was never lost, and the one of now.
    let again = Traveler::of(&sandbox, "51").await;
    traveler_at(&sandbox, &again).await.expect("an answer");
    again.accesses_when(&sandbox, 2).await;
    delivered(&sandbox).await;
    let (_, _, size) = kept();
    let stopped = sandbox.stop_and_keep().await;
    let store = SqliteStore::inspect(&stopped.layout.node(home).join("data/node.db")).await.unwrap();
    let parts = province_stub::store::Store::access_logs(&store).await.unwrap();
    let parts: Vec<_> = parts.iter().map(|part| (part.start, part.held.tree.size(), part.next_start)).collect();
    assert_eq!(parts, [(0, 1, Some(256)), (256, size, None)]);
}
