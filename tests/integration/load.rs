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
    let asked = async |more: &'static [&'static str]| {
        let path = dir.path().display().to_string();
        let asked = tokio::task::spawn_blocking(move || {
            let demand =
                ["--rate", "20", "--duration", "1s", "--warmup", "1s", "--members", "44", "--tokens", "4", "--json"];
            load(&[&["recognize", "--dir", &path], &demand[..], more].concat())
        });
        let asked = asked.await.unwrap();
        assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
        let round: Value = serde_json::from_slice(&asked.stdout).expect("a JSON object");
        assert_eq!((&round["due"], &round["not_sent"]), (&20.into(), &0.into()));
        round["ends"].clone()
    };
    // The first looks may come before the gateway follows the member.
    for tries in 0.. {
        let ends = asked(&[]).await;
        let count = |end: &str| ends[end].as_u64().unwrap_or_default();
        assert_eq!(count("OK") + count("OK held"), 20, "{ends}");
        if count("OK held") > 0 {
            break;
        }
        assert!(tries < 5, "nothing is ever held: {ends}");
    }
    assert_eq!(asked(&["--from-home"]).await, serde_json::json!({ "OK": 20 }), "straight from home");
    federation.stop().await.expect("it stops");
}

#[test]
fn a_demand_that_cannot_be_is_refused() {
    assert_eq!(load(&["recognize", "--rate", "0"]).status.code(), Some(2));
    let nowhere = load(&["recognize", "--dir", "/nowhere"]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("not prepared"));
}
