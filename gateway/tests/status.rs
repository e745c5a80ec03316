//! `gateway status` as operators' tools see it: what it prints, and its exit status.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::{Command, Output},
    thread,
};

const WELL: &str = r#"{
    "id": "gateway/replica/1", "software": "gateway/0.1.0", "time": "2027-01-15T08:00:00Z", "running_seconds": 5,
    "certificate": { "expire_time": "2027-02-14T08:00:00Z", "seconds_left": 2592000 },
    "trust_list": { "version": 3, "expire_time": "2027-01-22T08:00:00Z", "seconds_left": 604800 },
    "policy": { "version": 1, "expire_time": "2027-01-22T08:00:00Z", "seconds_left": 604800 },
    "members": [], "outcomes": { "status": 12 }, "refusals": {}, "problems": []
}"#;

const DEPOSITORS: &str = r#"{
    "member": "41", "name": "Henan", "authority": "41/finance-office", "answers": 70, "travelers": 31, "at_least": false,
    "usual_travelers": 1, "window_seconds": 600, "alarm_since": "2027-01-15T07:58:00Z"
}"#;

/// A configuration whose private listener is at `address`.
fn config(dir: &tempfile::TempDir, address: SocketAddr) -> PathBuf {
    let root = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let path = dir.path().join("gateway.toml");
    let text = format!(
        "domain = \"tongxing.test\"\nlisten = \"127.0.0.1:7443\"\nprivate_listen = \"{address}\"\ndata_dir = \"data\"\n\
         [identity]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n\
         [trust]\nlist = \"t\"\npolicy = \"p\"\nroots = [\"{root}\"]\nthreshold = 1\n"
    );
    fs::write(&path, text).unwrap();
    path
}

fn run(config: &PathBuf, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    command.arg("status").arg("--config").arg(config).args(more).output().unwrap()
}

/// A private listener that gives each of these answers once.
fn serve(answers: Vec<String>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for answer in answers {
            let (mut socket, _) = listener.accept().unwrap();
            let _ = socket.read(&mut [0; 1024]).unwrap();
            write!(socket, "HTTP/1.0 200 OK\r\n\r\n{answer}").unwrap();
        }
    });
    address
}

#[test]
fn exits_with_0_if_all_is_well_and_1_if_not() {
    let dir = tempfile::tempdir().unwrap();
    let ill = WELL.replace("\"problems\": []", "\"problems\": [\"44 Guangdong: unreachable\"]");
    let ill = ill.replace("\"refusals\": {}", &format!("\"refusals\": {{}}, \"unsubstantiated\": [{DEPOSITORS}]"));
    let config = config(&dir, serve(vec![WELL.to_owned(), WELL.to_owned(), ill]));
    let well = run(&config, &[]);
    let text = String::from_utf8(well.stdout).unwrap();
    assert_eq!(well.status.code(), Some(0), "{text}");
    assert!(text.contains("version 3, 7 days left") && text.contains("problems     none"), "{text}");
    let json = run(&config, &["--json"]);
    assert_eq!((json.status.code(), String::from_utf8(json.stdout).unwrap()), (Some(0), format!("{WELL}\n")));
    let ill = run(&config, &[]);
    let text = String::from_utf8(ill.stdout).unwrap();
    assert_eq!(ill.status.code(), Some(1), "{text}");
    assert!(text.contains("problem      44 Guangdong: unreachable"), "{text}");
    assert!(text.contains("no basis     41 Henan by 41/finance-office: 31 travelers in 10m, usually 1;"), "{text}");
}

#[test]
fn exits_with_64_for_a_configuration_and_1_for_a_gateway_that_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let missing = run(&dir.path().join("none.toml"), &[]);
    let said = String::from_utf8(missing.stderr).unwrap();
    assert_eq!(missing.status.code(), Some(64), "{said}");
    assert!(said.contains("none.toml"), "{said}");
    let gone = run(&config(&dir, "127.0.0.1:1".parse().unwrap()), &[]);
    let said = String::from_utf8(gone.stderr).unwrap();
    assert_eq!(gone.status.code(), Some(1), "{said}");
    assert!(said.contains("is this gateway running?"), "{said}");
}
