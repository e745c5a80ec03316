//! The gateway and a node as processes of their own, since a process has one log and one tracer. The process is this test
//! binary once more, told to be a program: it does what the program's `main` does, by the sandbox' clock.

use std::{
    env,
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use gateway::{config::Config as GatewayConfig, server::Gateway};
use peer::{dial, serve::Listeners, surroundings::Surroundings, verifier::Expected};
use proto::{member::Member, time::ManualClock, venue::VenueId};
use province_stub::{config::Config as NodeConfig, server::Node};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tongxing::checkpoint::Checkpoint;
use tonic::transport::Channel;

use super::{START, Sandbox, gateway::begin_logs, until};

/// What a process is to be: `gateway` or `node`, and its configuration.
const PROGRAM: &str = "TONGXING_TEST_PROGRAM";
const CONFIG: &str = "TONGXING_TEST_CONFIG";

/// How long a program has to start on a busy machine.
const START_WITHIN: Duration = Duration::from_secs(30);

/// A running program. It ends when this is dropped, whatever becomes of the test.
pub(crate) struct Program {
    pub(crate) address: String,
    pub(crate) private: String,
    pub(crate) data_dir: PathBuf,
    child: Child,
    alive: ChildStdin,
    log: PathBuf,
}

impl Program {
    /// A gateway beside the federation's own, with a data directory and addresses of its own.
    pub(crate) async fn gateway(sandbox: &Sandbox, name: &str, environment: &[(&str, &str)]) -> Self {
        let dir = sandbox.layout().gateway(1);
        let own = fs::read_to_string(dir.join("gateway.toml")).expect("the gateway has a configuration");
        let (address, private) = (free_address().await, free_address().await);
        let lines = own.lines().map(|line| match line.split(' ').next() {
            Some("listen") => format!("listen = \"{address}\""),
            Some("private_listen") => format!("private_listen = \"{private}\""),
            Some("data_dir") => format!("data_dir = \"data-{name}\""),
            _ => line.to_owned(),
        });
        // Patient with nodes and quick to hear of them: the machine is busy.
        let members = "[members]\ntimeout = \"1500ms\"\nattempt_timeout = \"1500ms\"\nask_every = \"100ms\"\n";
        let text = lines.chain([members.to_owned()]).collect::<Vec<_>>().join("\n");
        let config = dir.join(format!("{name}.toml"));
        fs::write(&config, text).unwrap();
        let data_dir = dir.join(format!("data-{name}"));
        begin_logs(sandbox.layout(), &data_dir);
        let started = Self::start("gateway", &config, address, environment).await;
        Self { private, data_dir, ..started }
    }

    /// The node of a member whose own has been stopped.
    pub(crate) async fn node(sandbox: &Sandbox, member: Member, environment: &[(&str, &str)]) -> Self {
        let config = sandbox.layout().node(member).join("node.toml");
        let address = sandbox.desk.node_address(member).expect("it is a member");
        Self::start("node", &config, address, environment).await
    }

    async fn start(what: &str, config: &Path, address: String, environment: &[(&str, &str)]) -> Self {
        let log = config.with_extension("log");
        // A write that a limit of files forbids is an error to it, and no signal.
        let mut child = Command::new("sh")
            .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
            .arg(env::current_exe().expect("this binary has a path"))
            .args(["--exact", "telemetry::program", "--ignored", "--nocapture"])
            .env(PROGRAM, what)
            .env(CONFIG, config)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .expect("the program starts");
        let alive = child.stdin.take().expect("its input is piped");
        let (private, data_dir) = (String::new(), PathBuf::new());
        let program = Self { address, private, data_dir, child, alive, log };
        until("the program listens", START_WITHIN, async || TcpStream::connect(&program.address).await.is_ok()).await;
        program
    }

    /// A channel to this gateway for a venue.
    pub(crate) fn channel(&self, sandbox: &Sandbox, venue: &VenueId) -> Channel {
        let standing = sandbox.desk.standing(&sandbox.layout().venue(venue)).expect("the venue has credentials");
        let limits = dial::DialLimits { connect_timeout: START_WITHIN, ..dial::DialLimits::default() };
        dial::channel(&standing, &self.address, Expected::Gateway, limits).expect("an address")
    }

    /// A venue at this gateway.
    pub(crate) fn at(&self, sandbox: &Sandbox, venue: &VenueId) -> Checkpoint {
        let standing = sandbox.desk.standing(&sandbox.layout().venue(venue)).expect("the venue has credentials");
        Checkpoint::new(venue.clone(), standing, &self.address).expect("an address")
    }

    /// Has every write behind so many bytes of a file fail from now on, as on a disk that is full; `None` lets all through.
    pub(crate) fn limit_files(&self, bytes: Option<u64>) {
        let limit = bytes.map_or("unlimited".to_owned(), |bytes| bytes.to_string());
        let pid = self.child.id().to_string();
        let set = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={limit}:")]).status();
        assert!(set.expect("prlimit is part of util-linux").success(), "the limit cannot be set");
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        String::from_utf8(fs::read(&self.log).unwrap()).expect("a log is text")
    }

    /// Stops it, which takes at most five seconds. Returns its log.
    pub(crate) async fn stop(self) -> String {
        let Self { mut child, alive, log, .. } = self;
        drop(alive);
        let mut ended = None;
        until("the program stops", Duration::from_secs(5), async || {
            ended = child.try_wait().expect("it is a child");
            ended.is_some()
        })
        .await;
        let text = String::from_utf8(fs::read(&log).unwrap()).expect("a log is text");
        assert!(ended.is_some_and(|status| status.success()), "it did not end well: {text}");
        text
    }
}

/// An address that was free a moment ago.
pub(crate) async fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    listener.local_addr().unwrap().to_string()
}

/// Is the program that the environment names, until its input ends.
pub(crate) async fn be() {
    let (Ok(what), Ok(config)) = (env::var(PROGRAM), env::var(CONFIG)) else { return };
    let (config, clock) = (PathBuf::from(config), Arc::new(ManualClock::at(START)));
    let shutdown = CancellationToken::new();
    let ended = shutdown.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        ended.cancel();
    });
    let bind = async |address| TcpListener::bind(address).await.expect("the address is free");
    if what == "gateway" {
        let _telemetry = peer::telemetry::start("info", "gateway");
        let config = GatewayConfig::read(&config).unwrap();
        let listeners = Listeners::new(bind(config.listen).await, bind(config.private_listen).await);
        let gateway = Gateway::open(config, Surroundings::by(clock)).unwrap();
        gateway.serve(listeners, shutdown).await.unwrap();
    } else {
        let _telemetry = peer::telemetry::start("info", "province-stub");
        let config = NodeConfig::read(&config).unwrap();
        let listeners = Listeners::new(bind(config.listen).await, bind(config.private_listen).await);
        let node = Node::open(config, Surroundings::by(clock)).await.unwrap();
        node.serve(listeners, shutdown).await.unwrap();
    }
}
