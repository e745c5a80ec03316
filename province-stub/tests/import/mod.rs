//! A file of evidence is brought to a node, by the library and by the program: rows that are refused, a node that goes away meanwhile,
//! a connection that is cut; nothing that was acknowledged is lost, and nothing counts twice.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    process::{Command, Output},
    time::Duration,
};

use peer::config::to_hex;
use proto::{
    contract::{
        evidence::evidence_service_client::EvidenceServiceClient,
        traveler::{
            ExportTravelerRequest, export_traveler_response::Part, traveler_service_client::TravelerServiceClient,
        },
    },
    identity::PeerId,
    time::{Clock as _, SystemClock, UnixTime},
};
use province_stub::{
    feed::import::{ImportError, Options, Rejected, Tally, Witness, import},
    seed::{self, SeededPerson},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tonic::transport::Channel;

use crate::{
    Phone,
    federation::{Federation, Running, home},
};

const HOUR: Duration = Duration::from_secs(3600);
const HEADER: &str = "record_id,revision,evidence,document_type,document_number,authority,time,result,dose";

fn lab() -> PeerId {
    PeerId::feed(home(), "lab-1").unwrap()
}

fn client(federation: &Federation, address: &str) -> EvidenceServiceClient<Channel> {
    EvidenceServiceClient::new(federation.dial_at(address, &lab()))
}

const fn options(dry_run: bool) -> Options {
    Options { dry_run, patience: Duration::from_secs(60) }
}

/// What an import tells of rows that are not on file, and how far it has come.
struct Ears {
    rejected: Vec<(u64, &'static str, String)>,
    decided: watch::Sender<u64>,
}

impl Ears {
    fn new() -> Self {
        Self { rejected: Vec::new(), decided: watch::channel(0).0 }
    }
}

impl Witness for Ears {
    fn progress(&mut self, _: u64, rows: u64) {
        self.decided.send_replace(rows);
    }

    fn rejected(&mut self, row: &Rejected<'_>) -> io::Result<()> {
        self.rejected.push((row.line, row.reason, row.field.to_owned()));
        Ok(())
    }
}

async fn bring(client: &EvidenceServiceClient<Channel>, text: &str, dry_run: bool) -> (Tally, Ears) {
    let mut ears = Ears::new();
    let tally = import(client, text.as_bytes(), options(dry_run), &mut ears).await.unwrap();
    (tally, ears)
}

/// Good rows and every kind of bad one, in turn.
fn mixed() -> String {
    let at = |ago| SystemClock.now().minus(ago);
    let (earlier, ahead, old) = (at(HOUR), SystemClock.now().plus(HOUR), at(HOUR * 24 * 200));
    format!(
        "{HEADER}\n\
         t1,,test,20,E41000001,41/health-commission,{earlier},negative,\n\
         t2,,test,20,E41000001,41/health-commission,{earlier},perhaps,\n\
         v1,,vaccination,20,E41000001,41/health-commission,{earlier},,2\n\
         t1,,test,20,E41000001,41/health-commission,{earlier},positive,\n\
         t3,,test,20,E41000001,41/health-commission,{ahead},negative,\n\
         c1,,case,20,E41000002,41/health-commission,{earlier},,\n\
         t4,,test,10,110105194912310021,41/health-commission,{earlier},negative,\n\
         t5,,test,20,E41000001,41/health-commission,{old},negative,\n\
         t6,,test\n\
         t7,,test,20,E41000003,41/health-commission,{earlier},positive,\n\
         t1,1,test,20,E41000001,41/health-commission,{earlier},positive,\n\
         t7,1,withdrawal,,,,,,\n"
    )
}

/// The lines that are refused, each with its reason and its field or column.
fn refused() -> Vec<(u64, &'static str, String)> {
    [
        (3, "FIELD_INVALID", "result"),
        (5, "REVISION_CONFLICT", ""),
        (6, "FIELD_INVALID", "test.sample_time"),
        (7, "EVIDENCE_NOT_ADMITTED", ""),
        (8, "FIELD_INVALID", "document.number"),
        (9, "EVIDENCE_TOO_OLD", ""),
        (10, "REQUEST_MALFORMED", "row"),
    ]
    .map(|(line, reason, field)| (line, reason, field.to_owned()))
    .into()
}

#[tokio::test]
async fn every_row_is_decided_and_a_dry_run_keeps_nothing() {
    let federation = Federation::new();
    let node = federation.start().await;
    let (client, text) = (client(&federation, &node.address), mixed());
    let first = Tally { accepted: 3, corrected: 1, withdrawn: 1, refused: 7, ..Tally::default() };
    for dry_run in [true, true, false] {
        let (tally, mut ears) = bring(&client, &text, dry_run).await;
        assert_eq!(tally, first, "dry run: {dry_run}");
        // Those that are no records are told as they are read, before the node has said anything of the others.
        ears.rejected.sort_unstable();
        assert_eq!(ears.rejected, refused());
        assert_eq!(*ears.decided.borrow(), 12, "a row is not decided");
    }
    // Again: what is superseded by now is refused, and the rest is there already.
    let (tally, ears) = bring(&client, &text, false).await;
    assert_eq!((tally.unchanged, tally.refused, tally.accepted + tally.corrected + tally.withdrawn), (3, 9, 0));
    let superseded = ears.rejected.iter().filter(|(_, reason, _)| *reason == "REVISION_SUPERSEDED");
    assert_eq!(superseded.map(|(line, ..)| *line).collect::<Vec<_>>(), [2, 5, 11]);
    // A file without a row is one all the same.
    assert_eq!(bring(&client, HEADER, false).await.0, Tally::default());
    let other = import(&client, &b"name\n"[..], options(false), &mut Ears::new()).await;
    assert!(matches!(other, Err(ImportError::File(_))), "{other:?}");
    node.stop().await.unwrap();
}

const PEOPLE: u32 = 100;
const ROWS: u64 = 8_000;

fn people() -> Vec<SeededPerson> {
    let policy = proto::policy::Policy::from_toml(proto::policy::NATIONAL).unwrap();
    seed::people(home(), PEOPLE, &policy)
}

/// Eighty tests of each of a hundred people.
fn many() -> String {
    let (people, now) = (people(), SystemClock.now());
    let mut text = format!("{HEADER}\n");
    for row in 0..ROWS {
        let person = &people[(row % u64::from(PEOPLE)) as usize];
        let (kind, number) = (person.document.kind().number(), person.document.number());
        let at: UnixTime = now.minus(HOUR + Duration::from_secs(row));
        writeln!(text, "row-{row},0,test,{kind},{number},41/health-commission,{at},negative,").unwrap();
    }
    text
}

/// Asserts that all rows are on file, each once.
async fn assert_all_once(federation: &Federation, node: &Running, text: &str) {
    let (tally, _) = bring(&client(federation, &node.address), text, false).await;
    assert_eq!(tally, Tally { unchanged: ROWS, ..Tally::default() }, "what was acknowledged is not all there");
    let phone = Phone::enroll(federation, node, &people()[7]).await;
    let mut traveler = TravelerServiceClient::new(federation.dial(node, &crate::backend()));
    let request = ExportTravelerRequest { device_id: phone.device_id };
    let mut parts = traveler.export_traveler(request).await.unwrap().into_inner();
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    while let Some(part) = parts.message().await.unwrap() {
        if let Some(Part::Evidence(evidence)) = part.part {
            *seen.entry(evidence.record_id).or_default() += 1;
        }
    }
    assert_eq!(seen.len() as u64, ROWS / u64::from(PEOPLE));
    assert!(seen.values().all(|times| *times == 1), "a record counts twice");
}

#[tokio::test]
async fn a_node_that_stops_and_starts_again_meanwhile_loses_nothing() {
    let federation = Federation::new();
    let mut node = federation.start().await;
    let (client, text) = (client(&federation, &node.address), many());
    let mut ears = Ears::new();
    let mut decided = ears.decided.subscribe();
    let importing = tokio::spawn({
        let text = text.clone();
        async move { (import(&client, text.as_bytes(), options(false), &mut ears).await, ears.rejected) }
    });
    for rows in [1_000, 4_000] {
        decided.wait_for(|decided| *decided >= rows).await.expect("the import goes on");
        let address = node.address.clone();
        node.stop().await.unwrap();
        node = federation.start_at(&address).await;
    }
    let (tally, rejected) = importing.await.unwrap();
    let tally = tally.unwrap();
    assert!(rejected.is_empty() && tally.refused == 0, "{rejected:?}");
    // What was durable though its answer was lost is there already when it comes again.
    assert_eq!(tally.accepted + tally.unchanged, ROWS, "{tally:?}");
    assert!(tally.broken >= 1, "no stream has broken: {tally:?}");
    assert_all_once(&federation, &node, &text).await;
    node.stop().await.unwrap();
}

/// A feed that keeps its stream open all day does not hold up a node that is to stop.
#[tokio::test]
async fn an_idle_stream_ends_when_the_node_stops() {
    let federation = Federation::new();
    let node = federation.start().await;
    let (batches, stream) = tokio::sync::mpsc::channel(1);
    let stream = tokio_stream::wrappers::ReceiverStream::new(stream);
    let mut answers = client(&federation, &node.address).put_evidence(stream).await.unwrap().into_inner();
    let stopping = std::time::Instant::now();
    node.stop().await.unwrap();
    assert!(stopping.elapsed() < Duration::from_secs(2), "{:?}", stopping.elapsed());
    assert!(matches!(answers.message().await, Ok(None)), "it ends without an answer that nobody asked for");
    drop(batches);
}

/// A way to the node that can be cut: all connections at once, in the middle of whatever they carry.
async fn way_to(node: String) -> (String, watch::Sender<u32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (cut, cuts) = watch::channel(0);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let (node, mut cuts) = (node.clone(), cuts.clone());
            cuts.mark_unchanged();
            tokio::spawn(async move {
                let Ok(mut onward) = TcpStream::connect(&node).await else { return };
                tokio::select! {
                    _ = copy_bidirectional(&mut socket, &mut onward) => {}
                    _ = cuts.changed() => {}
                }
            });
        }
    });
    (address, cut)
}

#[tokio::test]
async fn a_connection_that_is_cut_meanwhile_loses_nothing() {
    let federation = Federation::new();
    let node = federation.start().await;
    let (address, cut) = way_to(node.address.clone()).await;
    let (client, text) = (client(&federation, &address), many());
    let mut ears = Ears::new();
    let mut decided = ears.decided.subscribe();
    let importing = tokio::spawn({
        let text = text.clone();
        async move { import(&client, text.as_bytes(), options(false), &mut ears).await }
    });
    for (times, rows) in [(1, 500), (2, 2_500), (3, 5_000)] {
        decided.wait_for(|decided| *decided >= rows).await.expect("the import goes on");
        cut.send_replace(times);
    }
    let tally = importing.await.unwrap().unwrap();
    assert_eq!((tally.accepted + tally.unchanged, tally.refused), (ROWS, 0), "{tally:?}");
    assert!(tally.broken >= 3, "{tally:?}");
    assert_all_once(&federation, &node, &text).await;
    node.stop().await.unwrap();
}

#[tokio::test]
async fn a_node_that_stays_away_or_does_not_want_this_feed_is_told() {
    let federation = Federation::new();
    let node = federation.start().await;
    let operator = EvidenceServiceClient::new(federation.dial(&node, &crate::operator()));
    // For good: patience does not help.
    let refused = import(&operator, mixed().as_bytes(), options(false), &mut Ears::new()).await.unwrap_err();
    assert!(refused.to_string().contains("ROLE_NOT_ALLOWED"), "{refused}");
    let client = client(&federation, &node.address);
    node.stop().await.unwrap();
    let impatient = Options { dry_run: false, patience: Duration::ZERO };
    let away = import(&client, mixed().as_bytes(), impatient, &mut Ears::new()).await;
    assert!(matches!(away, Err(ImportError::Node(_))), "{away:?}");
}

/// `province-stub import`, as a laboratory runs it.
async fn run(federation: &Federation, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_province-stub"));
    command.arg("import").args(arguments).current_dir(federation.dir.path()).env("RUST_LOG", "trace");
    let Output { status, stdout, stderr } =
        tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said = String::from_utf8([stdout, stderr].concat()).unwrap();
    for secret in ["E41000001", "110105194912310021"] {
        assert!(!said.contains(secret), "it says whom a row is about: {said}");
    }
    (status.code().unwrap(), said)
}

/// Writes the feed's own configuration.
fn write_feed(federation: &Federation, node: &str) {
    let credentials = federation.certify(&lab());
    let root = to_hex(federation.list.roots.keys().first().unwrap().encoded());
    let text = format!(
        "member = \"{}\"\ndomain = \"{}\"\nnode = \"{node}\"\n[identity]\ncertificate = \"{}\"\nkey = \"{}\"\n\
         [trust]\nlist = \"trust\"\npolicy = \"policy\"\nroots = [\"{root}\"]\nthreshold = 1\n",
        home(),
        federation.domain,
        credentials.certificate.display(),
        credentials.key.display(),
    );
    fs::write(federation.path("feed.toml"), text).unwrap();
}

#[tokio::test]
async fn the_program_brings_a_file_and_says_what_became_of_it() {
    let federation = Federation::new();
    let node = federation.start().await;
    write_feed(&federation, &node.address);
    let rejected = federation.path("day.rejected.csv");
    fs::write(federation.path("day.csv"), mixed()).unwrap();
    // A file of an earlier run that everybody could read.
    fs::File::create(&rejected).unwrap().write_all(b"old").unwrap();
    fs::set_permissions(&rejected, fs::Permissions::from_mode(0o644)).unwrap();
    let (code, said) = run(&federation, &["day.csv", "--feed", "feed.toml", "--dry-run"]).await;
    assert_eq!(code, 1, "{said}");
    for words in [
        "dry run, nothing kept: 12 rows: 3 accepted, 1 corrected, 1 withdrawn, 0 unchanged, 7 refused",
        "day.rejected.csv",
    ] {
        assert!(said.contains(words), "{words} in {said}");
    }
    assert_eq!(fs::metadata(&rejected).unwrap().permissions().mode() & 0o777, 0o600, "others may read it");
    let text = fs::read_to_string(&rejected).unwrap();
    let mut lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.remove(0), format!("line,reason,field,detail,{HEADER}"));
    lines.sort_by_key(|line| line.split(',').next().unwrap().parse::<u64>().unwrap());
    let source = mixed();
    let source: Vec<_> = source.lines().collect();
    assert_eq!(lines.len(), refused().len());
    for (line, (number, reason, field)) in lines.iter().zip(refused()) {
        assert!(line.starts_with(&format!("{number},{reason},{field},")), "{line}");
        assert!(line.contains(source[number as usize - 1]), "{line} has not the row as it was");
    }
    fs::remove_file(&rejected).unwrap();

    let good: String = mixed()
        .lines()
        .filter(|line| line.starts_with("record_id") || line.starts_with("v1"))
        .collect::<Vec<_>>()
        .join("\n");
    fs::write(federation.path("good.csv"), good).unwrap();
    for words in ["1 rows: 1 accepted", "1 unchanged"] {
        let (code, said) = run(&federation, &["good.csv", "--feed", "feed.toml"]).await;
        assert_eq!(code, 0, "{said}");
        assert!(said.contains(words), "{words} in {said}");
    }
    assert!(!federation.path("good.rejected.csv").exists(), "nothing was rejected");
    let elsewhere = ["day.csv", "--feed", "feed.toml", "--rejected", "out/why.csv"];
    assert_eq!(run(&federation, &elsewhere).await.0, 1);
    assert_eq!(fs::metadata(federation.path("out/why.csv")).unwrap().permissions().mode() & 0o777, 0o600);

    node.stop().await.unwrap();
    let (code, said) = run(&federation, &["good.csv", "--feed", "feed.toml", "--patience", "0s"]).await;
    assert!(code == 1 && said.contains("province-stub: the node: "), "{code}: {said}");
    for (file, words) in [("nowhere.csv", "nowhere.csv"), ("feed.toml", "feed.toml: the name of column 1")] {
        let (code, said) = run(&federation, &[file, "--feed", "feed.toml"]).await;
        assert!(code == 1 && said.contains(words), "{file}: {code}: {said}");
    }
    write_feed(&federation, "nowhere");
    for (arguments, expected, words) in [
        (&["good.csv", "--feed", "feed.toml"][..], 64, "node = nowhere: host:port"),
        (&["good.csv", "--feed", "no-feed.toml"][..], 64, "no-feed.toml"),
        (&["good.csv"][..], 2, "--feed"),
    ] {
        let (code, said) = run(&federation, arguments).await;
        assert!(code == expected && said.contains(words), "{arguments:?}: {code}: {said}");
    }
}
