//! What goes wrong in a simulation and when: drawn from its seed before it begins.

use std::{collections::BTreeMap, time::Duration};

use fastrand::Rng;
use peer::surroundings::Point;

use crate::{history::At, pauses::Pause};

/// Nothing goes wrong before this.
const CALM_UNTIL: At = Duration::from_millis(1_500);
/// And nothing after this: everything heals, and nobody changes anything any more.
pub(crate) const HEALED: At = Duration::from_secs(12);
/// The last looks: every breaker and every pause between two attempts is over.
pub(crate) const LAST_LOOKS: At = Duration::from_millis(22_000);

/// The link between a gateway and one of home's endpoints, both from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Link {
    pub(crate) gateway: usize,
    pub(crate) node: usize,
}

/// What a link does to messages.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum LinkFault {
    /// Drops them.
    Partition,
    /// Drops those to the node.
    DeafNode,
    /// Drops those to the gateway.
    DeafGateway,
    /// Keeps them until it heals.
    Hold,
    /// Delivers them late.
    Slow(Duration),
    /// Drops some, for a moment at a time.
    Lossy,
}

/// A machine that ends and comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Machine {
    Gateway(usize),
    Node(usize),
}

/// What happens to the world between two steps of the simulation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    Break(Link, LinkFault),
    Heal(Link),
    /// A healthy link's latency is another from now on.
    Jitter(Link, Duration),
    Crash(Machine),
    Bounce(Machine),
    /// Home's store is copied.
    Copy,
    /// The copy is put in place of the store of a node that is down.
    Restore,
}

/// Everything that a seed decides beforehand.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    /// How fast each clock is, in seconds: the gateways', the nodes'. Any two are within the leeway of 30 s.
    pub(crate) skews: ([i64; 2], [i64; 2]),
    /// How far the second endpoint is behind.
    pub(crate) lag: Duration,
    /// Whether the gateways wait long for home, so that lookups are under way while much happens.
    pub(crate) patient: bool,
    /// How much each gateway may hold, if that is next to nothing. What it gives up then goes by the real time, so that such
    /// a seed does not replay to the last answer.
    pub(crate) cache_bytes: Option<u64>,
    /// When each gateway is stopped between two steps.
    pub(crate) pauses: [Vec<Pause>; 2],
    /// In the order of their times.
    pub(crate) actions: Vec<(At, Action)>,
    /// When a person with many tokens changes many times.
    pub(crate) bursts: Vec<At>,
    /// How often each kind of fault is drawn.
    pub(crate) kinds: BTreeMap<&'static str, u64>,
}

impl Scenario {
    /// What a seed decides.
    pub(crate) fn draw(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut skew = || rng.i64(-14..=14);
        let skews = ([skew(), skew()], [skew(), skew()]);
        // A copy that is further behind than a second is no danger while the change stream says so.
        let deep = seed % 6 == 5;
        let patient = seed % 4 == 2 && !deep;
        let lag = match seed % 3 {
            _ if deep => millis(&mut rng, 900, 3_000),
            0 => Duration::ZERO,
            // Who joins a lookup gets what was read up to half a second before, and that of a copy that is behind.
            _ if patient => millis(&mut rng, 200, 450),
            _ => millis(&mut rng, 1, 900),
        };
        let mut scenario = Self {
            seed,
            skews,
            lag,
            patient,
            cache_bytes: (seed % 8 == 7).then_some(6_000),
            pauses: [Vec::new(), Vec::new()],
            actions: Vec::new(),
            bursts: Vec::new(),
            kinds: BTreeMap::new(),
        };
        scenario.count("clock skew");
        if !scenario.lag.is_zero() {
            scenario.count(if deep { "deep lag" } else { "lag" });
        }
        if patient {
            scenario.count("patience");
        }
        if scenario.cache_bytes.is_some() {
            scenario.count("tiny cache");
        }
        for gateway in 0..2 {
            scenario.draw_link(&mut rng, Link { gateway, node: 1 });
            scenario.draw_pauses(&mut rng, gateway, Point::BeforeRecording);
        }
        if !deep {
            scenario.draw_machines(&mut rng);
            for gateway in 0..2 {
                scenario.draw_link(&mut rng, Link { gateway, node: 0 });
                scenario.draw_pauses(&mut rng, gateway, Point::BeforeApplying);
            }
            scenario.draw_burst(&mut rng);
        }
        for (gateway, node) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            scenario.draw_jitter(&mut rng, Link { gateway, node });
        }
        scenario.actions.sort_by_key(|(at, _)| *at);
        scenario
    }

    fn count(&mut self, kind: &'static str) {
        *self.kinds.entry(kind).or_default() += 1;
    }

    /// One fault after another, with good times in between.
    fn draw_link(&mut self, rng: &mut Rng, link: Link) {
        let mut at = CALM_UNTIL + millis(rng, 0, 3_000);
        loop {
            let fault = LinkFault::draw(rng);
            let until = at + millis(rng, 200, 3_000);
            if until >= HEALED {
                return;
            }
            self.count(fault.kind());
            if fault == LinkFault::Lossy {
                self.draw_losses(rng, link, at..until);
            } else {
                self.actions.push((at, Action::Break(link, fault)));
                self.actions.push((until, Action::Heal(link)));
            }
            at = until + millis(rng, 1_000, 6_000);
        }
    }

    fn draw_losses(&mut self, rng: &mut Rng, link: Link, time: std::ops::Range<At>) {
        let mut at = time.start;
        while at < time.end {
            let until = at + millis(rng, 2, 30);
            self.actions.push((at, Action::Break(link, LinkFault::Lossy)));
            self.actions.push((until, Action::Heal(link)));
            at = until + millis(rng, 10, 400);
        }
    }

    /// Latencies change by themselves. Drawn here and not by the network: what is sent first must not decide them.
    fn draw_jitter(&mut self, rng: &mut Rng, link: Link) {
        let mut at = Duration::ZERO;
        while at < HEALED {
            self.actions.push((at, Action::Jitter(link, millis(rng, 1, 8))));
            at += millis(rng, 50, 500);
        }
    }

    fn draw_pauses(&mut self, rng: &mut Rng, gateway: usize, point: Point) {
        let mut from = CALM_UNTIL + millis(rng, 0, 6_000);
        loop {
            let until = from + millis(rng, 300, 3_000);
            if until >= HEALED {
                return;
            }
            self.count(match point {
                Point::BeforeApplying => "pause before applying",
                Point::BeforeRecording => "pause before recording",
            });
            self.pauses[gateway].push(Pause { point, from, until });
            if point == Point::BeforeApplying && rng.bool() {
                self.draw_cut(rng, gateway, from..until);
            }
            from = until + millis(rng, 2_000, 8_000);
        }
    }

    /// What was read before a pause is applied after it, and what comes behind that does not come any more.
    fn draw_cut(&mut self, rng: &mut Rng, gateway: usize, pause: std::ops::Range<At>) {
        self.count("cut in a pause");
        let (at, until) = (pause.start + millis(rng, 150, 300), pause.end + millis(rng, 200, 1_500));
        let fault = if rng.bool() { LinkFault::Partition } else { LinkFault::Hold };
        for node in 0..2 {
            self.actions.push((at, Action::Break(Link { gateway, node }, fault)));
            self.actions.push((until.min(HEALED), Action::Heal(Link { gateway, node })));
        }
    }

    /// Crashes, each machine at its own times; home's first endpoint may come back with an older store.
    fn draw_machines(&mut self, rng: &mut Rng) {
        for machine in [Machine::Gateway(0), Machine::Gateway(1), Machine::Node(0), Machine::Node(1)] {
            if rng.f64() < 0.4 {
                continue;
            }
            let at = CALM_UNTIL + millis(rng, 1_500, 7_000);
            let until = at + millis(rng, 200, 3_000);
            self.actions.push((at, Action::Crash(machine)));
            self.actions.push((until, Action::Bounce(machine)));
            if machine == Machine::Node(0) && rng.bool() {
                self.actions.push((at - millis(rng, 100, 2_500), Action::Copy));
                self.actions.push((at + Duration::from_millis(100), Action::Restore));
                self.count("restore");
            } else {
                self.count(if let Machine::Node(_) = machine { "node crash" } else { "gateway crash" });
            }
        }
    }

    /// A reader that is stopped for seconds while hundreds of events come.
    fn draw_burst(&mut self, rng: &mut Rng) {
        if rng.f64() < 0.7 {
            return;
        }
        let at = CALM_UNTIL + millis(rng, 500, 6_000);
        self.count("slow reader");
        self.bursts.push(at);
        let (from, until) = (at - Duration::from_millis(20), at + millis(rng, 2_000, 4_000));
        let gateway = rng.usize(0..2);
        self.pauses[gateway].retain(|pause| pause.until < from || pause.from > until);
        self.pauses[gateway].push(Pause { point: Point::BeforeApplying, from, until });
    }
}

impl LinkFault {
    fn draw(rng: &mut Rng) -> Self {
        match rng.u8(0..10) {
            0 => Self::Partition,
            1 => Self::DeafNode,
            2 => Self::DeafGateway,
            3 => Self::Hold,
            4 => Self::Lossy,
            // Late messages do most harm when they get through all the same: before a lookup is given up.
            5 => Self::Slow(millis(rng, 700, 3_000)),
            6 => Self::Slow(millis(rng, 170, 700)),
            _ => Self::Slow(millis(rng, 40, 170)),
        }
    }

    /// Its name in the totals.
    pub(crate) const fn kind(self) -> &'static str {
        match self {
            Self::Partition => "partition",
            Self::DeafNode | Self::DeafGateway => "one-way partition",
            Self::Hold => "hold",
            Self::Slow(_) => "slow link",
            Self::Lossy => "lossy link",
        }
    }
}

/// A duration from `min` to `max` milliseconds.
pub(crate) fn millis(rng: &mut Rng, min: u64, max: u64) -> Duration {
    Duration::from_millis(rng.u64(min..=max))
}
