//! The conformance kit: a node that conforms is all green, and one that hangs, closes or talks nonsense is all red, in bounded
//! time and in words.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use peer::accept::{AcceptLimits, accept};
use proto::time::SystemClock;
use tempfile::TempDir;
use tests::conformance::{
    cases::{self, Case},
    report::{self, Verdict},
    run::{Counts, run},
    world::{Known, Options, World},
};
use tokio::{io::AsyncWriteExt as _, net::TcpListener, time::timeout};
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tongxing::{addresses::Ports, federation::Federation, layout::Layout, prepare::Plan};

use crate::sandbox::{member, node};

/// Longer than a few unanswered cases take.
const BOUND: Duration = Duration::from_secs(60);

fn all() -> Vec<Case> {
    cases::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/cases")).expect("the cases are cases")
}

/// A federation by the clock on the wall, which is the kit's.
async fn federation() -> (Federation, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let members = vec!["11".to_owned(), "44".to_owned()];
    let plan = Plan { members, people: 200, gateways: 1, ..Plan::default() };
    let federation = Federation::start(&Layout::new(dir.path()), &plan, Ports::Any, Arc::new(SystemClock)).await;
    (federation.expect("the federation starts"), dir)
}

/// What became of each case at a node, and the report.
async fn played(dir: &Path, node: &str, which: impl Fn(&Case) -> bool) -> (Counts, BTreeMap<String, Verdict>, String) {
    let (cases, mut verdicts, mut text) = (all(), BTreeMap::new(), String::new());
    let options =
        Options { node: node.to_owned(), member: member("44"), dir: dir.to_owned(), known: Some(Known::Seeded) };
    let world = World::open(&options).expect("the directory is prepared");
    let counts = timeout(
        BOUND,
        run(&world, cases.iter().filter(|case| which(case)), |case, verdict| {
            text += &(report::line(case, verdict) + "\n");
            serde_json::from_str::<serde_json::Value>(&report::json(case, verdict)).expect("a line of JSON");
            verdicts.insert(case.id.clone(), verdict.clone());
        }),
    );
    let counts = counts.await.expect("the kit ends in time");
    (counts, verdicts, text)
}

#[tokio::test]
async fn province_stub_is_all_green() {
    let (federation, dir) = federation().await;
    let address = federation.desk().node_address(member("44")).unwrap();
    let (counts, _, text) = played(dir.path(), &address, |case| !case.slow).await;
    let red: Vec<_> = text.lines().filter(|line| !line.starts_with("ok ")).collect();
    assert!(red.is_empty(), "{red:#?}");
    assert!(counts.ok >= 60 && counts.failed + counts.skipped == 0, "{counts:?}");
    federation.stop().await.unwrap();
}

/// The page shows a run without a person whom the node knows: its counts are those of the cases there are.
#[test]
fn the_page_shows_as_many_cases_as_there_are() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/README.md")).unwrap();
    let shown = page.lines().find(|line| line.ends_with(" skipped")).expect("the page shows a report's end");
    let counts = shown.split(", ").map(|part| part.split(' ').next().unwrap().parse().unwrap()).collect::<Vec<usize>>();
    let cases: Vec<_> = all().into_iter().filter(|case| !case.slow).collect();
    let evidence = cases.iter().filter(|case| format!("{case:?}").contains("person: \"known\"")).count();
    assert_eq!((counts.iter().sum::<usize>(), counts[2]), (cases.len(), evidence), "{shown}");
}

/// Asserts that all these cases fail, and that the report says so in these words.
fn assert_all_red(name: &str, (counts, _, text): (Counts, BTreeMap<String, Verdict>, String), words: &str) {
    assert!(counts.ok + counts.skipped == 0 && counts.failed > 0, "{name}: {counts:?}\n{text}");
    assert!(text.contains(words), "{name}: no {words:?} in\n{text}");
    assert!(text.lines().all(|line| line.contains("(contract: ")), "{name}: {text}");
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_red_in_bounded_time() {
    let (federation, dir) = federation().await;
    federation.stop().await.unwrap();
    // Those that a node passes by answering nobody are of no use here.
    let asked = |case: &Case| case.id.starts_with("lookup-") || case.id.starts_with("node-");
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    assert_all_red("nobody listens", played(dir.path(), &closed, asked).await, "Connection refused");
    let hole = node::black_hole().await;
    let hung = played(dir.path(), &hole.address, asked).await;
    assert_all_red("nobody speaks", hung, "it was not asked, for the node gave no answer in 3 cases before");
    let strange = played(dir.path(), &hole.address, |case| case.id == "identity-no-certificate").await;
    assert_all_red("nobody refuses", strange, "neither an answer nor an end");
}

#[tokio::test]
async fn a_node_that_talks_nonsense_is_red() {
    let (federation, dir) = federation().await;
    let desk = federation.desk().clone();
    let standing = desk.standing(&desk.layout().node(member("44"))).unwrap();
    federation.stop().await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, shutdown) = (listener.local_addr().unwrap().to_string(), CancellationToken::new());
    let accepted =
        accept(Box::new(listener), standing.trust, standing.credentials, AcceptLimits::default(), shutdown.clone());
    let mut accepted = accepted.unwrap();
    tokio::spawn(async move {
        while let Some(Ok(mut stream)) = accepted.next().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        }
    });
    let asked = |case: &Case| case.id.starts_with("lookup-");
    assert_all_red("another protocol", played(dir.path(), &address, asked).await, "no answer: connection error");
    shutdown.cancel();
}

#[tokio::test]
async fn a_node_of_another_member_is_not_the_one_asked() {
    let (federation, dir) = federation().await;
    let address = federation.desk().node_address(member("11")).unwrap();
    let asked = |case: &Case| case.id.starts_with("lookup-");
    assert_all_red("11's node for 44's", played(dir.path(), &address, asked).await, "11/node/1 answered instead");
    federation.stop().await.unwrap();
}
