//! One more gateway at a federation: the real one, from the federation's own configuration, with what a test changes of
//! it. Its nodes and venues are the federation's.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use gateway::{
    config::Config,
    server::{Gateway, GatewayError},
};
use peer::{dial, files::create_private_dir, serve::Listeners, surroundings::Surroundings, verifier::Expected};
use proto::{member::Member, time::Clock, venue::VenueId};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tongxing::{checkpoint::Checkpoint, layout::Layout};

use super::{
    Sandbox,
    node::{self, FakeNode},
    spare_data,
};

/// How often it looks at its files: often, so that tests need not wait.
const RELOAD_EVERY: Duration = Duration::from_millis(20);

/// How long it waits for a node, and for one attempt: long, because a machine that runs all tests at once is slow. Tests of
/// these bounds set them back to their defaults.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_millis(600));

/// A running gateway beside the federation's own.
pub(crate) struct OwnGateway {
    pub(crate) address: String,
    pub(crate) private: String,
    pub(crate) data_dir: PathBuf,
    shutdown: CancellationToken,
    served: JoinHandle<Result<(), GatewayError>>,
    dir: TempDir,
    _trust: Option<TempDir>,
}

/// The federation's configuration of its gateway, for a data directory of this one's own.
pub(crate) fn config(layout: &Layout, data_dir: PathBuf) -> Config {
    let mut config = Config::read(&layout.gateway(1).join("gateway.toml")).expect("the configuration reads");
    config.trust.held = Some(data_dir.join("held"));
    config.data_dir = data_dir;
    config.limits.server.reload_every = RELOAD_EVERY;
    (config.limits.member.timeout, config.limits.member.attempt_timeout) = PATIENCE;
    config
}

/// Has a gateway begin with logs whose key is in the trust list, unless it has some.
pub(crate) fn begin_logs(layout: &Layout, data_dir: &Path) {
    let record = Path::new("record.redb");
    create_private_dir(data_dir).expect("a data directory");
    if !data_dir.join(record).exists() {
        fs::copy(spare_data(layout).join(record), data_dir.join(record)).expect("logs to begin with");
    }
}

/// Reads what a gateway trusts and who it is, without serving.
pub(crate) fn open(config: Config, clock: Arc<dyn Clock>) -> Result<Gateway, GatewayError> {
    Gateway::open(config, Surroundings::by(clock))
}

impl OwnGateway {
    /// Starts one, by the sandbox' own clock.
    pub(crate) async fn start(sandbox: &Sandbox, change: impl FnOnce(&mut Config)) -> Self {
        Self::start_by(sandbox, sandbox.clock.clone(), change).await
    }

    /// Starts one by another clock.
    pub(crate) async fn start_by(sandbox: &Sandbox, clock: Arc<dyn Clock>, change: impl FnOnce(&mut Config)) -> Self {
        Self::start_at(sandbox, clock, "127.0.0.1:0", change).await
    }

    /// Starts one at an address that peers know already.
    pub(crate) async fn start_at(
        sandbox: &Sandbox,
        clock: Arc<dyn Clock>,
        address: &str,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut config = config(sandbox.layout(), dir.path().join("data"));
        // Doubles of one log: home would take them for two histories of one.
        config.limits.delivery.every = Duration::from_secs(3600);
        change(&mut config);
        begin_logs(sandbox.layout(), &config.data_dir);
        let data_dir = config.data_dir.clone();
        let gateway = open(config, clock).expect("the gateway opens");
        let bind = async |address| TcpListener::bind(address).await.expect("a free port");
        let listeners = Listeners::new(bind(address).await, bind("127.0.0.1:0").await);
        let address = listeners.public.local_addr().unwrap().to_string();
        let private = listeners.private.local_addr().unwrap().to_string();
        let shutdown = CancellationToken::new();
        let served = tokio::spawn(gateway.serve(listeners, shutdown.clone()));
        Self { address, private, data_dir, shutdown, served, dir, _trust: None }
    }

    /// Starts one for which a member's node is at another address.
    pub(crate) async fn with_node(
        sandbox: &Sandbox,
        code: &str,
        address: &str,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let trust = tempfile::tempdir().expect("a temporary directory");
        let list = sandbox.trust_list_with(trust.path(), |source| {
            source.members.get_mut(code).expect("it is a member").endpoints = vec![address.to_owned()];
        });
        let gateway = Self::start(sandbox, |config| {
            config.trust.list = list;
            change(config);
        })
        .await;
        Self { _trust: Some(trust), ..gateway }
    }

    /// Starts one for which a member's node hangs, and a word whenever it was asked.
    pub(crate) async fn with_hung_node(
        sandbox: &Sandbox,
        home: Member,
        change: impl FnOnce(&mut Config),
    ) -> (Self, mpsc::Receiver<()>, FakeNode) {
        let (asked, word) = mpsc::channel(64);
        let hung = node::fake(sandbox, &sandbox.layout().node(home), move |_| {
            let _ = asked.try_send(());
            None
        })
        .await;
        let gateway = Self::with_node(sandbox, &home.to_string(), &hung.address, change).await;
        (gateway, word, hung)
    }

    /// A venue of the federation at this gateway.
    pub(crate) fn at(&self, sandbox: &Sandbox, venue: &VenueId) -> Checkpoint {
        let standing = sandbox.desk.standing(&sandbox.layout().venue(venue)).expect("the venue has credentials");
        Checkpoint::new(venue.clone(), standing, &self.address).expect("an address")
    }

    /// A channel to this gateway for the peer whose credentials are in a directory.
    pub(crate) fn channel(&self, sandbox: &Sandbox, dir: &std::path::Path) -> tonic::transport::Channel {
        let standing = sandbox.desk.standing(dir).expect("the peer has credentials");
        dial::channel(&standing, &self.address, Expected::Gateway, dial::DialLimits::default()).expect("an address")
    }

    /// Stops it. What it kept stays until the returned directory is dropped.
    pub(crate) async fn stop(self) -> TempDir {
        self.shutdown.cancel();
        let ended = timeout(Duration::from_secs(5), self.served).await.expect("it stops in time");
        ended.expect("it does not panic").expect("it ends well");
        self.dir
    }
}
