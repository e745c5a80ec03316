//! One simulation: its hosts, and the steps in which they live and things go wrong.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use gateway::server::Gateway;
use peer::surroundings::{Blocking, Pauses, Surroundings};
use province_stub::server::Node;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use turmoil::{Builder, Sim};

use crate::{
    actors::{Stage, play},
    clock::{SeededRandom, SkewedClock, now},
    faults::{Action, Link, LinkFault, Machine, Scenario},
    history::{At, At3, Event, Recorder, Restored},
    network::{CLIENTS, GATEWAY_HOSTS, NODE_HOSTS, Simulated, bind},
    pauses::Paused,
    store::Shared,
    world::{scratch, template},
};

/// How long a step is: messages arrive between two steps.
const STEP: Duration = Duration::from_millis(3);
/// Longer than any simulation.
const LIMIT: Duration = Duration::from_secs(60);
/// A healthy link's latency until it changes. Never a range: then the network draws nothing, and what is sent first by chance
/// decides nothing.
const LATENCY: Duration = Duration::from_millis(1);

/// What happened under a seed.
pub(crate) struct Run {
    pub(crate) scenario: Arc<Scenario>,
    pub(crate) history: Vec<Event>,
}

/// Runs a seed to its end.
pub(crate) fn run(seed: u64) -> Result<Run> {
    let scenario = Arc::new(Scenario::draw(seed));
    let dir = scratch()?;
    template().copy_store(dir.path())?;
    let stage = Stage {
        template: template(),
        scenario: scenario.clone(),
        recorder: Recorder::default(),
        incarnations: Arc::new([AtomicU32::new(0), AtomicU32::new(0)]),
        latest: Arc::default(),
    };
    let world = Arc::new(World {
        stage: stage.clone(),
        dir,
        home: Shared::new(scenario.lag),
        restoring: Mutex::new(None),
        starts: AtomicU32::new(0),
    });
    let mut machines = Machines::new(world.clone());
    machines.run().map_err(|error| anyhow!("seed {seed} at {}: {error}", At3(machines.sim.elapsed())))?;
    Ok(Run { scenario, history: stage.recorder.take() })
}

/// What the hosts share with whoever steps the simulation.
struct World {
    stage: Stage,
    dir: TempDir,
    home: Arc<Shared>,
    /// When the copy was made and the node ended that will come back with it.
    restoring: Mutex<Option<(At, At)>>,
    starts: AtomicU32,
}

impl World {
    fn surroundings(&self, skew: i64, pauses: Pauses) -> Surroundings {
        let start = u64::from(self.starts.fetch_add(1, Ordering::Relaxed)) + 1;
        let seed = self.stage.scenario.seed.wrapping_mul(1_000_003).wrapping_add(start);
        Surroundings {
            clock: Arc::new(SkewedClock::new(skew)),
            random: Arc::new(SeededRandom::new(seed)),
            network: Arc::new(Simulated),
            blocking: Blocking::Inline,
            pauses,
        }
    }

    /// A gateway's program.
    async fn gateway(self: Arc<Self>, gateway: usize) -> turmoil::Result {
        let scenario = &self.stage.scenario;
        let mut config = self.stage.template.gateway(gateway + 1, self.dir.path())?;
        if let Some(bytes) = scenario.cache_bytes {
            config.limits.max_cache_bytes = bytes;
        }
        if scenario.patient {
            config.limits.member.timeout = Duration::from_secs(3);
            config.limits.member.attempt_timeout = Duration::from_secs(2);
        }
        let pauses = Pauses::by(Arc::new(Paused(scenario.pauses[gateway].clone())));
        let listeners = bind(config.listen, config.private_listen).await?;
        let opened = Gateway::open(config, self.surroundings(scenario.skews.0[gateway], pauses))?;
        self.stage.incarnations[gateway].fetch_add(1, Ordering::Relaxed);
        Ok(opened.serve(listeners, CancellationToken::new()).await?)
    }

    /// The program of one of home's endpoints.
    async fn node(self: Arc<Self>, endpoint: usize) -> turmoil::Result {
        let config = self.stage.template.node(endpoint, self.dir.path())?;
        let surroundings = self.surroundings(self.stage.scenario.skews.1[endpoint], Pauses::default());
        let listeners = bind(config.listen, config.private_listen).await?;
        let (path, random) = (config.database(), surroundings.random.clone());
        let store = async |vault| {
            if endpoint == 1 {
                return Ok(self.home.replica());
            }
            self.home.open(&path, vault, &*random, self.stage.template.roster.handles.iter().copied())
        };
        let node = Node::over(config, surroundings, store).await?;
        if endpoint == 0
            && let Some((copied, crashed)) = self.restoring()
        {
            self.stage.recorder.note(Event::Restored(Restored { copied, crashed, up: now() }));
        }
        Ok(node.serve(listeners, CancellationToken::new()).await?)
    }

    fn restoring(&self) -> Option<(At, At)> {
        self.restoring.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The files of home's store, and where their copies are.
    fn store_files(&self) -> [(PathBuf, PathBuf); 2] {
        let (store, copy) = (self.dir.path().join("node"), self.dir.path().join("copy"));
        ["node.db", "node.db-wal"].map(|name| (store.join(name), copy.join(name)))
    }
}

/// The simulation, and what is broken in it.
struct Machines {
    world: Arc<World>,
    sim: Sim<'static>,
    broken: BTreeMap<Link, LinkFault>,
    copied: Option<At>,
    crashed: At,
}

impl Machines {
    fn new(world: Arc<World>) -> Self {
        let mut sim = Builder::new()
            .rng_seed(world.stage.scenario.seed)
            .tick_duration(STEP)
            .simulation_duration(LIMIT)
            .min_message_latency(LATENCY)
            .max_message_latency(LATENCY)
            .tcp_capacity(256)
            .build();
        for (endpoint, host) in NODE_HOSTS.into_iter().enumerate() {
            let world = world.clone();
            sim.host(host, move || world.clone().node(endpoint));
        }
        for (gateway, host) in GATEWAY_HOSTS.into_iter().enumerate() {
            let world = world.clone();
            sim.host(host, move || world.clone().gateway(gateway));
        }
        let stage = world.stage.clone();
        sim.client(CLIENTS, async move { Ok(play(stage).await?) });
        Self { world, sim, broken: BTreeMap::new(), copied: None, crashed: Duration::ZERO }
    }

    /// Steps until everybody has played their part.
    fn run(&mut self) -> Result<()> {
        let scenario = self.world.stage.scenario.clone();
        let mut actions = scenario.actions.iter().peekable();
        loop {
            while let Some((_, action)) = actions.next_if(|(at, _)| *at <= self.sim.elapsed()) {
                self.act(*action).with_context(|| format!("{action:?}"))?;
            }
            if self.sim.step().map_err(|error| anyhow!("{error}"))? {
                return Ok(());
            }
        }
    }

    fn act(&mut self, action: Action) -> Result<()> {
        let at = self.sim.elapsed();
        if !matches!(action, Action::Jitter(..)) {
            self.world.stage.recorder.note(Event::Fault(at, format!("{action:?}")));
        }
        match action {
            Action::Break(link, fault) => {
                self.broken.insert(link, fault);
                self.set(link, Some(fault));
            }
            Action::Heal(link) => {
                self.broken.remove(&link);
                self.set(link, None);
            }
            Action::Jitter(link, latency) => {
                if !self.broken.contains_key(&link) {
                    self.sim.set_link_latency(GATEWAY_HOSTS[link.gateway], NODE_HOSTS[link.node], latency);
                }
            }
            Action::Crash(machine) => self.crash(machine),
            Action::Bounce(machine) => self.sim.bounce(host(machine)),
            Action::Copy => self.copy()?,
            Action::Restore => self.restore()?,
        }
        Ok(())
    }

    /// Has a link do what it is to do from now on.
    fn set(&mut self, Link { gateway, node }: Link, fault: Option<LinkFault>) {
        let (gateway, node, sim) = (GATEWAY_HOSTS[gateway], NODE_HOSTS[node], &mut self.sim);
        match fault {
            Some(LinkFault::Partition | LinkFault::Lossy) => sim.partition(gateway, node),
            Some(LinkFault::DeafNode) => sim.partition_oneway(gateway, node),
            Some(LinkFault::DeafGateway) => sim.partition_oneway(node, gateway),
            Some(LinkFault::Hold) => sim.hold(gateway, node),
            Some(LinkFault::Slow(latency)) => sim.set_link_latency(gateway, node, latency),
            None => {
                sim.set_link_latency(gateway, node, LATENCY);
                // Delivers what was held, and lets everything through.
                sim.release(gateway, node);
            }
        }
    }

    /// The machine loses its power: nothing leaves it any more, and nobody is told.
    fn crash(&mut self, machine: Machine) {
        let crashing = host(machine);
        let others = || GATEWAY_HOSTS.into_iter().chain(NODE_HOSTS).chain([CLIENTS]).filter(|other| *other != crashing);
        others().for_each(|other| self.sim.partition(crashing, other));
        self.sim.crash(crashing);
        others().for_each(|other| self.sim.repair(crashing, other));
        let broken = self.broken.clone();
        let its = |link: &Link| match machine {
            Machine::Gateway(gateway) => link.gateway == gateway,
            Machine::Node(node) => link.node == node,
        };
        for (link, fault) in broken.into_iter().filter(|(link, _)| its(link)) {
            self.set(link, Some(fault));
        }
        if machine == Machine::Node(0) {
            self.crashed = self.sim.elapsed();
        }
    }

    fn copy(&mut self) -> io::Result<()> {
        self.copied = Some(self.sim.elapsed());
        fs::create_dir_all(self.world.dir.path().join("copy"))?;
        self.world.store_files().iter().try_for_each(|(store, copy)| copy_if_there(store, copy))
    }

    /// Puts the copy in the store's place, as other files. What SQLite keeps beside them goes with the old ones.
    fn restore(&mut self) -> Result<()> {
        let copied = self.copied.context("nothing was copied")?;
        for (store, copy) in self.world.store_files() {
            remove_if_there(&store)?;
            copy_if_there(&copy, &store)?;
        }
        remove_if_there(&self.world.dir.path().join("node/node.db-shm"))?;
        *self.world.restoring.lock().unwrap_or_else(PoisonError::into_inner) = Some((copied, self.crashed));
        Ok(())
    }
}

const fn host(machine: Machine) -> &'static str {
    match machine {
        Machine::Gateway(gateway) => GATEWAY_HOSTS[gateway],
        Machine::Node(node) => NODE_HOSTS[node],
    }
}

fn copy_if_there(from: &Path, to: &Path) -> io::Result<()> {
    if from.exists() { fs::copy(from, to).map(drop) } else { Ok(()) }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    if path.exists() { fs::remove_file(path) } else { Ok(()) }
}
