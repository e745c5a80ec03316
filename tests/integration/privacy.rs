//! No person in the gateway (I6): not in its logs, its metrics or its files, whatever it is shown; and nothing in two tokens
//! of one person that would tell that they are.

use std::{collections::BTreeSet, fs, path::Path};

use peer::config::to_hex;
use proto::{
    contract::recognition::{Outcome, RecognizeRequest},
    member::Member,
    statement::Status,
    suite::{SigningKey, Suite},
    terms::Purpose,
    venue::VenueId,
};
use province_stub::seed::{self, Condition};
use tongxing::{checkpoint::Checkpoint, phone::Wish};

use crate::sandbox::{
    PEOPLE, Sandbox, answer_after, evidence,
    forge::{self, ALG, Forger},
    gateway::OwnGateway,
    log, member,
    needles::Needles,
    node, shared, still_serves, venue, wire,
};

/// Somebody whose particulars an attacker puts wherever bytes can be put.
pub(crate) const NAME: &str = "慕容寻欢";
pub(crate) const NUMBER: &str = "110105194912310029";

fn station() -> VenueId {
    venue("44/station/guangzhou-south")
}

/// Every seeded person of every member, and somebody whom nobody seeded.
pub(crate) fn everybody(sandbox: &Sandbox) -> Needles {
    let mut needles = Needles::new();
    for home in sandbox.federation.members() {
        for person in seed::people(*home, PEOPLE, &sandbox.desk.trust().policy) {
            let who = format!("person {} of {home}", person.index);
            needles.add(&format!("the number of {who}"), person.document.number().as_bytes());
            needles.add(&format!("the name of {who}"), person.name.as_str().as_bytes());
        }
    }
    needles.add("the forged number", NUMBER.as_bytes());
    needles.add("the forged name", NAME.as_bytes());
    needles
}

#[test]
fn the_search_finds_what_is_there() {
    let mut needles = Needles::new();
    needles.add("the number", NUMBER.as_bytes());
    needles.add("the name", NAME.as_bytes());
    for hay in [
        format!("x{NUMBER}"),
        format!("{:?}", NUMBER.as_bytes()),
        to_hex(NUMBER.as_bytes()),
        format!("{:?}", prost::bytes::Bytes::from(NAME)),
        format!("value={NAME}"),
        "MTEwMTA1MTk0OTEyMzEwMDI5".to_owned(),
    ] {
        assert_eq!(needles.found_in(hay.as_bytes()).len(), 1, "{hay}");
    }
    needles.assert_none_in("an empty place", b"110105194912310028");
}

/// Requests with a person in every place where a caller can put bytes.
pub(crate) fn laden(home: &Forger, good: &RecognizeRequest) -> Vec<(&'static str, RecognizeRequest)> {
    let consent = home.consent();
    let text = format!("{NAME}{NUMBER}");
    let stranger = SigningKey::generate(Suite::Ed25519);
    let header = |kid: &[u8]| proto::cbor::MapBuilder::new().put(ALG, -19).put(4, kid.to_vec()).put(16, forge::TOKEN);
    let payload = |iss: &str| forge::payload(&consent, iss, Some((99, text.as_str().into())));
    let kid = home.kid().0;
    let token = |token: Vec<u8>| RecognizeRequest { token, ..good.clone() };
    vec![
        ("as the token", token(text.clone().into_bytes())),
        ("in a claim, signed by a stranger", token(forge::sign1(header(&kid), payload("51"), &stranger, b""))),
        ("in a claim, signed by home", token(forge::sign1(header(&kid), payload("51"), &home.keys.consent, b""))),
        ("as the issuer", token(forge::sign1(header(&kid), payload(NAME), &home.keys.consent, b""))),
        ("as the kid", token(forge::sign1(header(&NUMBER.as_bytes()[..8]), payload("51"), &stranger, b""))),
        ("as the proof", RecognizeRequest { proof: text.clone().into_bytes(), ..good.clone() }),
        ("as the venue", RecognizeRequest { venue: format!("44/station/{NUMBER}"), ..good.clone() }),
        ("as the venue's member", RecognizeRequest { venue: format!("{NAME}/station/a"), ..good.clone() }),
        ("as no venue at all", RecognizeRequest { venue: text.clone(), ..good.clone() }),
        ("as the staff", RecognizeRequest { staff_id: text, ..good.clone() }),
        ("as the staff's number", RecognizeRequest { staff_id: NUMBER.into(), ..good.clone() }),
    ]
}

/// Every condition of every member's people, at this gateway.
async fn recognise_everybody(sandbox: &Sandbox, gateway: &OwnGateway) {
    let checkpoint = gateway.at(sandbox, &station());
    let conditions = [Condition::Green, Condition::Yellow, Condition::Red, Condition::Undetermined, Condition::NoCode];
    for home in sandbox.federation.members() {
        let people = seed::people(*home, PEOPLE, &sandbox.desk.trust().policy);
        let there = conditions.iter().filter(|condition| people.iter().any(|person| person.condition == **condition));
        for condition in there {
            let pass = sandbox.pass(*home, *condition, &Wish::default()).await;
            for bound in [Some(station()), None] {
                let presentation = pass.present(bound.as_ref(), sandbox.now());
                let shown = checkpoint.show(&presentation, Purpose::Entry).await.expect("what it carries verifies");
                shown.unwrap_or_else(|status| panic!("{home} {condition:?}: {status:?}"));
            }
        }
    }
}

fn files_under(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).expect("the directory is there").flatten() {
        match entry.path() {
            path if path.is_dir() => files.extend(files_under(&path)),
            path => files.push((path.display().to_string(), fs::read(&path).expect("the file reads"))),
        }
    }
    files
}

#[tokio::test]
async fn nobody_is_in_the_gateways_logs_metrics_or_files() {
    let sandbox = shared();
    let gateway = OwnGateway::start(sandbox, |_| {}).await;
    recognise_everybody(sandbox, &gateway).await;
    let (home, checkpoint) = (Forger::of(sandbox, member("51")), gateway.at(sandbox, &station()));
    let good = sandbox.request(&station(), &sandbox.green(member("51")).await);
    let needles = everybody(sandbox);
    for (place, request) in laden(&home, &good) {
        let status = checkpoint.send(request).await.err().unwrap_or_else(|| panic!("a person {place} is taken"));
        needles.assert_none_in(&format!("the refusal of a person {place}"), format!("{status:?}").as_bytes());
        still_serves(&checkpoint, &good, place).await;
    }
    let metrics = wire::get(&gateway.private, "/metrics").await;
    assert!(metrics.contains("gateway_exchanges_total") && metrics.contains("gateway_refusals_total"), "{metrics}");
    needles.assert_none_in("the metrics", metrics.as_bytes());
    let data_dir = gateway.data_dir.clone();
    let kept = gateway.stop().await;
    let own = sandbox.layout().gateway(1).join("data");
    let files: Vec<_> = [files_under(&data_dir), files_under(&own)].concat();
    assert!(files.iter().filter(|(name, _)| name.ends_with("record.redb")).count() == 2, "no record was looked at");
    for (name, bytes) in files {
        needles.assert_none_in(&name, &bytes);
    }
    drop(kept);
    let log = log::all();
    assert!(log.len() > 10_000, "nothing was logged that could be looked at");
    needles.assert_none_in("the log", &log);
}

/// At home everybody is on file, and sealed: not in a node's logs or metrics, and not to be read in its files.
#[tokio::test]
async fn nobody_is_in_a_nodes_logs_metrics_or_files() {
    let (sandbox, home) = (Sandbox::start(&["44", "51"]).await, member("51"));
    let (mut needles, mark) = (everybody(&sandbox), log::mark());
    for (what, secret) in evidence::say_everything(&sandbox, home).await {
        needles.add(what, &secret);
    }
    let private = sandbox.desk.prepared().addresses.nodes["51"].private.to_string();
    let metrics = wire::get(&private, "/metrics").await;
    assert!(metrics.contains("PutEvidence") && metrics.contains("node_changes_total"), "{metrics}");
    needles.assert_none_in("the metrics", metrics.as_bytes());
    let stopped = sandbox.stop_and_keep().await;
    let files = files_under(&stopped.layout.node(home).join("data"));
    let database: usize = files.iter().filter(|(name, _)| name.contains("node.db")).map(|(_, bytes)| bytes.len()).sum();
    assert!(database > 100_000, "no database was looked at");
    for (name, bytes) in files {
        needles.assert_none_in(&name, &bytes);
    }
    needles.assert_none_in("the log", &log::all()[mark..]);
}

/// Home says of its people what it wants; what of it reaches the venue is in the answer and nowhere else.
#[tokio::test]
async fn what_a_lying_home_says_of_a_person_stays_nowhere() {
    let (sandbox, home) = (shared(), Forger::of(shared(), member("51")));
    let (now, code) = (sandbox.now(), member("51"));
    let fake = node::fake(sandbox, &sandbox.layout().node(code), |_| None).await;
    let gateway = OwnGateway::with_node(sandbox, "51", &fake.address, |_| {}).await;
    type Word = Box<dyn Fn(&mut Status) + Send + Sync>;
    let words: [(&str, Word); 3] = [
        ("a label", Box::new(|status| status.label = format!("{NAME}{NUMBER}"))),
        ("a rule", Box::new(|status| (status.label, status.rule) = ("红码".into(), Some(NUMBER.into())))),
        (
            "an authority",
            Box::new(|status| {
                (status.label, status.rule) = ("红码".into(), Some("R-CASE".into()));
                status.authority = Some(format!("51/{NUMBER}").parse().expect("digits are letters of a name"));
            }),
        ),
    ];
    let log_before = log::mark();
    for (place, word) in words {
        let key = Forger::of(sandbox, code).keys.statement;
        fake.says(move |request| {
            let mut status = forge::green(code, &request.token, now);
            word(&mut status);
            node::stated(status.sign(&key))
        });
        let presentation = home.present(&home.consent(), Some(&station()));
        let request = Checkpoint::request(&station(), &presentation, Purpose::Entry);
        let answer = answer_after(&gateway.at(sandbox, &station()), &request, place).await;
        assert!(!answer.statement.is_empty() || answer.outcome() == Outcome::Unsubstantiated, "{place}: {answer:?}");
    }
    let needles = everybody(sandbox);
    let metrics = wire::get(&gateway.private, "/metrics").await;
    assert!(metrics.contains("gateway_unsubstantiated_total"), "nothing was counted: {metrics}");
    needles.assert_none_in("the metrics", metrics.as_bytes());
    let data_dir = gateway.data_dir.clone();
    let kept = gateway.stop().await;
    for (name, bytes) in files_under(&data_dir) {
        needles.assert_none_in(&name, &bytes);
    }
    drop(kept);
    needles.assert_none_in("the log", &log::all()[log_before..]);
}

/// All strings of eight bytes in it.
fn eights(bytes: &[u8]) -> BTreeSet<&[u8]> {
    bytes.windows(8).collect()
}

/// The token with the sign of the device key's y set: one random bit, which half of all tokens have in common by chance.
fn unsigned(mut token: Vec<u8>) -> Vec<u8> {
    // Key -3 of the COSE_Key, its boolean, and then claim -65537.
    let signs = [[0x22, 0xf4, 0x3a, 0, 1, 0, 0], [0x22, 0xf5, 0x3a, 0, 1, 0, 0]];
    let at = token.windows(7).position(|window| signs.iter().any(|sign| sign == window));
    token[at.expect("the token names a device key") + 1] = 0xf5;
    token
}

/// Tokens that each of a few people got, all for the same wish in the same second.
const TOKENS: usize = 6;

/// What all of one person's have in common is theirs, or the form's. Two of them may have a random byte in common beside
/// seven of the form; six do not.
fn in_common(all: &[Vec<u8>]) -> BTreeSet<&[u8]> {
    let (first, rest) = all.split_first().expect("somebody has something");
    rest.iter().fold(eights(first), |common, one| common.intersection(&eights(one)).copied().collect())
}

/// Asserts that nothing in common among one person's is not in every other person's too.
fn assert_nobody_stands_out(what: &str, by_person: &[Vec<Vec<u8>>]) {
    for (person, theirs) in by_person.iter().enumerate() {
        let common = in_common(theirs);
        assert!(!common.is_empty(), "{what}: not even the form is in common: nothing was compared");
        for stranger in by_person.iter().enumerate().filter(|(who, _)| *who != person).flat_map(|(_, others)| others) {
            let telling: Vec<_> = common.difference(&eights(stranger)).map(|part| to_hex(part)).collect();
            assert!(telling.is_empty(), "{what}: only one person's have {telling:?}");
        }
    }
}

/// Tokens of one person, none of which has any part of what the device is known by at home.
async fn tokens_of_one(sandbox: &Sandbox, home: Member) -> Vec<Vec<u8>> {
    let device = sandbox.device(home, &sandbox.person(home, Condition::Green)).await;
    // All of x, without the sign of y.
    let key = &device.enrollment.verifying_key().encoded()[1..];
    let mut tokens = Vec::new();
    for _ in 0..TOKENS {
        let token = device.ask(&sandbox.wish(&device)).await.expect("a token").token;
        for (what, secret) in [("enrolment key", key), ("device's id", &device.id)] {
            let there = eights(&token).intersection(&eights(secret)).count();
            assert_eq!(there, 0, "a token has a part of the {what} in it");
        }
        tokens.push(unsigned(token));
    }
    tokens
}

#[tokio::test]
async fn tokens_of_one_person_have_no_more_in_common_than_those_of_two() {
    for home in ["44", "51"] {
        let mut by_person = Vec::new();
        for _ in 0..3 {
            by_person.push(tokens_of_one(shared(), member(home)).await);
        }
        assert_nobody_stands_out(home, &by_person);
    }
}

#[tokio::test]
async fn requests_about_one_person_have_no_more_in_common_than_those_about_two() {
    let (sandbox, home) = (shared(), member("51"));
    let mut by_person = Vec::new();
    for _ in 0..3 {
        let (person, mut sent) = (sandbox.person(home, Condition::Green), Vec::new());
        for _ in 0..TOKENS {
            let pass = sandbox.pass_of(home, &person, &Wish::default()).await;
            sent.push(unsigned(prost::Message::encode_to_vec(&sandbox.request(&station(), &pass))));
        }
        by_person.push(sent);
    }
    assert_nobody_stands_out("requests", &by_person);
}
