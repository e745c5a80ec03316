//! The load driver, for a second: so that the tool that measures does not rot between measurements.

use std::{process::Command, sync::Arc};

use proto::time::SystemClock;
use serde_json::Value;
use tongxing::{addresses::Ports, federation::Federation, layout::Layout, prepare::Plan};

fn load(arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_load")).args(arguments).output().expect("the driver starts")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_federation_is_asked_at_a_rate() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan { members: ["11", "44"].map(str::to_owned).into(), people: 1, gateways: 1, ..Plan::default() };
    let layout = Layout::new(dir.path());
    let federation = Federation::start(&layout, &plan, Ports::Any, Arc::new(SystemClock)).await.expect("it starts");
    let path = dir.path().display().to_string();
    let asked = tokio::task::spawn_blocking(move || {
        let demand =
            ["--rate", "20", "--duration", "1s", "--warmup", "1s", "--members", "44", "--tokens", "8", "--json"];
        load(&[&["recognize", "--dir", &path], &demand[..]].concat())
    });
    let asked = asked.await.unwrap();
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    let round: Value = serde_json::from_slice(&asked.stdout).expect("a JSON object");
    assert_eq!((&round["due"], &round["not_sent"]), (&20.into(), &0.into()));
    assert_eq!(round["ends"], serde_json::json!({ "OK": 20 }), "{round}");
    federation.stop().await.expect("it stops");
}

#[test]
fn a_demand_that_cannot_be_is_refused() {
    assert_eq!(load(&["recognize", "--rate", "0"]).status.code(), Some(2));
    let nowhere = load(&["recognize", "--dir", "/nowhere"]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("not prepared"));
}
