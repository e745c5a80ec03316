//! The access record (I2): one entry on its home member's log for every exchange whose token verified, refusals among them;
//! nothing of a token that did not. And redemptions that outlive the gateway.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use ciborium::Value;
use gateway::record::LogTool;
use proto::{
    contract::recognition::{Outcome, RecognizeRequest, RecognizeResponse},
    identity::Realm,
    refusal::Reason,
    suite::sha256,
    terms::Purpose,
    token::{Cti, UnverifiedToken},
    venue::VenueId,
};
use province_stub::seed::Condition;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use tempfile::TempDir;
use tongxing::{checkpoint::Checkpoint, phone::Wish};
use tonic::Code::PermissionDenied;

use crate::sandbox::{
    Sandbox,
    forge::{self, Forger},
    gateway::OwnGateway,
    member, metric, node, shared, still_serves, until, venue,
    want::{reason, want},
};

/// A table of `gateway/src/record/store.rs`.
const REDEMPTIONS: TableDefinition<'_, (u64, [u8; 16]), &str> = TableDefinition::new("redemptions");

/// The entries of `proto/access-record.cddl`.
const TIME: i64 = 1;
const VENUE: i64 = 2;
const CALLER: i64 = 3;
const STAFF: i64 = 4;
const PURPOSE: i64 = 5;
const SCOPE: i64 = 6;
const CTI: i64 = 7;
const KIND: i64 = 8;
const OUTCOME: i64 = 9;
const SOURCE: i64 = 10;
const STATEMENT: i64 = 11;
const POLICY: i64 = 12;
const EXCHANGE: i64 = 13;
const REASON: i64 = 14;
const TRACE: i64 = 15;

type Entry = BTreeMap<i64, Value>;

/// A stopped gateway's record.
struct Record {
    exchanges: BTreeMap<u8, Vec<Entry>>,
    refusals: Vec<Entry>,
    redemptions: Vec<String>,
}

fn entry(bytes: &[u8]) -> Entry {
    let value: Value = ciborium::from_reader(bytes).expect("a record is CBOR");
    let entries = value.into_map().expect("a record is a map").into_iter();
    entries.map(|(key, value)| (i64::try_from(key.as_integer().unwrap()).unwrap(), value)).collect()
}

impl Record {
    fn open(data_dir: &Path) -> Self {
        let logs = LogTool::open(data_dir).expect("the record opens");
        let (mut exchanges, mut refusals) = (BTreeMap::<u8, Vec<Entry>>::new(), Vec::new());
        for (owner, kept_from, size) in logs.logs().unwrap() {
            let mut records = Vec::new();
            let all = logs.records(owner, kept_from, u64::MAX, |index, record, _| {
                assert_eq!(kept_from + records.len() as u64, index, "the log of {owner} has a gap");
                records.push(entry(record));
                Ok(())
            });
            all.unwrap();
            assert_eq!(kept_from + records.len() as u64, size, "the head of {owner} is not where its log ends");
            match owner {
                Realm::Member(member) => _ = exchanges.insert(member.number(), records),
                Realm::Gateway => refusals = records,
            }
        }
        for verified in logs.verify(None, shared().now()).unwrap() {
            verified.expect("what a gateway wrote verifies");
        }
        drop(logs);
        let database = Database::open(data_dir.join("record.redb")).expect("the record opens");
        let redemptions = database.begin_read().unwrap().open_table(REDEMPTIONS).unwrap();
        let redemptions = redemptions.iter().unwrap().map(|row| row.unwrap().1.value().to_owned()).collect();
        Self { exchanges, refusals, redemptions }
    }

    fn of(&self, home: u8) -> &[Entry] {
        self.exchanges.get(&home).map_or(&[], Vec::as_slice)
    }
}

fn station() -> VenueId {
    venue("44/station/guangzhou-south")
}

fn cti(request: &RecognizeRequest) -> Cti {
    UnverifiedToken::parse(&request.token).expect("a token").cti()
}

/// Stops a gateway; its record, and the directory it is in.
async fn stop(gateway: OwnGateway) -> (Record, PathBuf, TempDir) {
    let data_dir = gateway.data_dir.clone();
    let kept = gateway.stop().await;
    (Record::open(&data_dir), data_dir, kept)
}

/// What every entry says of the query.
fn assert_query(name: &str, entry: &Entry, request: &RecognizeRequest) {
    let text = |key| entry.get(&key).and_then(Value::as_text).map(str::to_owned);
    let uint = |key| entry.get(&key).and_then(Value::as_integer).and_then(|value| u64::try_from(value).ok());
    assert_eq!(uint(TIME), Some(shared().now().as_secs()), "{name}: another time");
    assert_eq!(text(VENUE).as_deref(), Some("44/station/guangzhou-south"), "{name}: another venue");
    assert_eq!(text(CALLER).as_deref(), Some("44/venue/station/guangzhou-south"), "{name}: another caller");
    let staff = (!request.staff_id.is_empty()).then(|| request.staff_id.clone());
    assert_eq!(text(STAFF), staff, "{name}: another member of staff");
    assert_eq!(uint(PURPOSE), u64::try_from(request.purpose).ok(), "{name}: another purpose");
    assert_eq!(entry.get(&CTI), Some(&Value::Bytes(cti(request).0.to_vec())), "{name}: another handle");
    let policy = shared().desk.trust().policy_edition.version;
    assert_eq!((uint(KIND), uint(POLICY)), (Some(1), Some(policy)), "{name}: another kind or policy");
    let id = entry.get(&EXCHANGE).and_then(Value::as_bytes).map(Vec::len);
    assert_eq!(id, Some(16), "{name}: no exchange id");
    let trace = entry.get(&TRACE).and_then(Value::as_bytes).map(Vec::len);
    assert_eq!(trace, Some(16), "{name}: no trace id");
}

fn assert_answered(name: &str, entry: &Entry, request: &RecognizeRequest, answer: &RecognizeResponse) {
    assert_query(name, entry, request);
    let number = |key| entry.get(&key).and_then(Value::as_integer).and_then(|value| i32::try_from(value).ok());
    assert_eq!(number(OUTCOME), Some(answer.outcome), "{name}: another outcome");
    assert_eq!(number(SCOPE), Some(answer.granted_scope as i32), "{name}: another scope");
    assert_eq!(entry.get(&EXCHANGE), Some(&Value::Bytes(answer.exchange_id.clone())), "{name}: another exchange");
    assert_eq!(number(SOURCE), Some(answer.source), "{name}: another source");
    // A statement that was not disclosed is not on record either.
    let hash = (!answer.statement.is_empty()).then(|| Value::Bytes(sha256(&answer.statement)[..16].to_vec()));
    assert_eq!(entry.get(&STATEMENT), hash.as_ref(), "{name}: another statement");
    assert_eq!(entry.get(&REASON), None, "{name}: an answer with a reason");
}

#[tokio::test]
async fn every_exchange_is_on_its_home_members_record() {
    let (sandbox, hole) = (shared(), node::black_hole().await);
    let gateway = OwnGateway::with_node(sandbox, "52", &hole.address, |_| {}).await;
    let checkpoint = gateway.at(sandbox, &station());
    let mut answered = Vec::new();
    for (home, condition, outcome) in [
        (44, Condition::Green, Outcome::Status),
        (44, Condition::Red, Outcome::Status),
        (51, Condition::NoCode, Outcome::UnknownTraveler),
        (41, Condition::Unsubstantiated, Outcome::Unsubstantiated),
        (11, Condition::Undetermined, Outcome::Undetermined),
        (52, Condition::Green, Outcome::HomeUnreachable),
    ] {
        let pass = sandbox.pass(member(&home.to_string()), condition, &Wish::default()).await;
        let request = RecognizeRequest { staff_id: format!("li.{home}"), ..sandbox.request(&station(), &pass) };
        let answer = checkpoint.send(request.clone()).await.expect("an answer");
        assert_eq!(answer.outcome(), outcome, "{home}: another outcome");
        answered.push((home, request, answer));
    }
    let count = metric(&gateway.private, "gateway_records_total").await.into_values().sum::<f64>();
    assert!((count - 6.0).abs() < 0.5, "{count} records were counted");
    let (record, _, _kept) = stop(gateway).await;
    for home in [44, 51, 41, 11, 52] {
        let of_home: Vec<_> = answered.iter().filter(|(of, ..)| *of == home).collect();
        assert_eq!(record.of(home).len(), of_home.len(), "{home}: more or fewer entries than answers");
        for (entry, (_, request, answer)) in record.of(home).iter().zip(of_home) {
            assert_answered(&home.to_string(), entry, request, answer);
        }
    }
    assert_eq!(record.exchanges.len(), 5, "a log of somebody who was not asked about");
    assert!(record.refusals.is_empty(), "nothing was refused");
    assert!(record.redemptions.is_empty(), "proofs that are bound to a venue take nothing");
}

#[tokio::test]
async fn a_refusal_is_on_record_too_and_says_nothing_of_a_token_that_did_not_verify() {
    let sandbox = shared();
    let gateway = OwnGateway::start(sandbox, |_| {}).await;
    let checkpoint = gateway.at(sandbox, &station());
    let (home, other) = (Forger::of(sandbox, member("51")), Forger::of(sandbox, member("44")));
    let ask = async |name: &str, request: &RecognizeRequest| reason(name, checkpoint.send(request.clone()).await);
    let with_token = |token: Vec<u8>| RecognizeRequest {
        token,
        venue: station().to_string(),
        purpose: Purpose::Entry.number().into(),
        ..RecognizeRequest::default()
    };

    let consent = home.consent();
    let forged = [
        (with_token(consent.sign(&other.keys.consent)), Reason::KeyUnknown),
        (with_token(forge::flipped(&home.sign(&consent))), Reason::SignatureInvalid),
        (with_token([&[0xff], &consent.cti.0[..]].concat()), Reason::NotCbor),
    ];
    for (request, reason) in &forged {
        assert_eq!(ask("a forgery", request).await, *reason, "another reason");
    }
    let good = home.present(&home.consent(), Some(&station()));
    let verified = [
        (Checkpoint::request(&station(), &good, Purpose::Medical), Reason::PurposeNotAdmitted),
        (
            RecognizeRequest { proof: Vec::new(), ..Checkpoint::request(&station(), &good, Purpose::Entry) },
            Reason::ProofMissing,
        ),
        (
            RecognizeRequest { scope: 63, ..Checkpoint::request(&station(), &good, Purpose::Entry) },
            Reason::ScopeNotGranted,
        ),
    ];
    for (request, reason) in &verified {
        assert_eq!(ask("a use that is not consented to", request).await, *reason, "another reason");
    }
    let (record, data_dir, _kept) = stop(gateway).await;
    assert_eq!(record.exchanges.keys().collect::<Vec<_>>(), [&51], "a forgery is on somebody's record");
    assert_eq!(record.of(51).len(), verified.len(), "more or fewer entries than refusals of verified tokens");
    for (entry, (request, reason)) in record.of(51).iter().zip(&verified) {
        assert_query(&format!("{reason:?}"), entry, request);
        let said = entry.get(&REASON).and_then(Value::as_text).expect("a refusal says its reason");
        assert_eq!(said, proto::refusal::reason_name(*reason), "another reason");
        assert!(!entry.contains_key(&OUTCOME) && !entry.contains_key(&STATEMENT), "a refusal with an outcome");
    }
    assert_eq!(record.refusals.len(), forged.len(), "more or fewer entries than forgeries");
    for refusal in &record.refusals {
        assert_eq!(refusal.keys().copied().collect::<Vec<_>>(), [TIME, CALLER, REASON], "a forgery left a mark");
        let caller = refusal.get(&CALLER).and_then(Value::as_text);
        assert_eq!(caller, Some("44/venue/station/guangzhou-south"), "another caller");
    }
    let bytes = std::fs::read(data_dir.join("record.redb")).unwrap();
    let there = |cti: Cti| bytes.windows(16).any(|window| window == cti.0);
    assert!(!there(consent.cti), "the handle of a forged token is in the file");
    assert!(there(cti(&verified[0].0)), "the search does not find the handle of a verified one");
}

#[tokio::test]
async fn the_oldest_refusals_make_room() {
    let gateway = OwnGateway::start(shared(), |config| config.limits.record.max_refusals = 256).await;
    let checkpoint = gateway.at(shared(), &station());
    for n in 0..700_usize {
        let request = RecognizeRequest {
            token: vec![0xff; n % 8 + 1],
            purpose: Purpose::Entry.number().into(),
            ..RecognizeRequest::default()
        };
        assert_eq!(reason("noise", checkpoint.send(request).await), Reason::NotCbor, "another reason");
    }
    let (record, _, _kept) = stop(gateway).await;
    // Of 700 the first two blocks of 256 made room.
    assert_eq!(record.refusals.len(), 700 - 512, "a flood of forgeries fills the disk");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_venues_at_once_cannot_both_redeem_a_proof() {
    let (sandbox, elsewhere) = (shared(), venue("11/station/beijing-west"));
    let (here, there) = (sandbox.at(&station()), sandbox.at(&elsewhere));
    let pass = sandbox.green(member("51")).await;
    for round in 0..10 {
        let free = pass.present(None, sandbox.now());
        let ask = |checkpoint: &Checkpoint| {
            let (checkpoint, request) =
                (checkpoint.clone(), Checkpoint::request(checkpoint.venue(), &free, Purpose::Entry));
            tokio::spawn(async move { checkpoint.send(request).await })
        };
        let (one, other) = (ask(&here), ask(&there));
        let (one, other) = (one.await.unwrap(), other.await.unwrap());
        assert_ne!(one.is_ok(), other.is_ok(), "round {round}: both won, or nobody did");
        let lost = if one.is_ok() { other } else { one };
        want(Reason::AlreadyRedeemed, PermissionDenied).about("proof").check("the one that lost", lost);
    }
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_take_the_record_with_it() {
    let sandbox = shared();
    let (asked, mut word) = tokio::sync::mpsc::channel(8);
    let hung = node::fake(sandbox, &sandbox.layout().node(member("52")), move |_| {
        let _ = asked.try_send(());
        None
    })
    .await;
    let gateway = OwnGateway::with_node(sandbox, "52", &hung.address, |_| {}).await;
    let request = sandbox.request(&station(), &sandbox.green(member("52")).await);
    let (checkpoint, asking) = (gateway.at(sandbox, &station()), request.clone());
    let caller = tokio::spawn(async move { checkpoint.send(asking).await });
    word.recv().await.expect("home is asked");
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled(), "the caller waited for its answer");
    until("the exchange is on record", Duration::from_secs(5), async || {
        metric(&gateway.private, "gateway_records_total").await.values().sum::<f64>() > 0.0
    })
    .await;
    let (record, _, _kept) = stop(gateway).await;
    let [entry] = record.of(52) else { panic!("{} entries of one exchange", record.of(52).len()) };
    assert_query("a caller that went away", entry, &request);
    let unreachable = Value::from(Outcome::HomeUnreachable as i32);
    assert_eq!(entry.get(&OUTCOME), Some(&unreachable), "another outcome");
}

#[tokio::test]
async fn a_redemption_outlives_the_gateway() {
    let sandbox = Sandbox::start(&["11", "44", "51"]).await;
    let elsewhere = venue("11/station/beijing-west");
    let pass = sandbox.green(member("51")).await;
    let free = pass.present(None, sandbox.now());
    let at = |venue: &VenueId| Checkpoint::request(venue, &free, Purpose::Entry);
    still_serves(&sandbox.at(&station()), &at(&station()), "nothing").await;
    let stopped = sandbox.stop_and_keep().await;
    let record = Record::open(&stopped.layout.gateway(1).join("data"));
    assert_eq!(record.redemptions, ["44/station/guangzhou-south"], "the redemption is not on record");
    assert_eq!(record.of(51).len(), 1, "the exchange is not on record");

    let sandbox = stopped.start().await;
    let redeemed = want(Reason::AlreadyRedeemed, PermissionDenied).about("proof");
    redeemed.check("a second venue after a restart", sandbox.at(&elsewhere).send(at(&elsewhere)).await);
    still_serves(&sandbox.at(&station()), &at(&station()), "the gateway was started again").await;
    let stopped = sandbox.stop_and_keep().await;
    let record = Record::open(&stopped.layout.gateway(1).join("data"));
    assert_eq!(record.of(51).len(), 3, "the log does not go on where it was");
}
