//! Who acts: venues that ask, home's operator and backend that change things. Their links are fast and have no faults.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use fastrand::Rng;
use peer::surroundings::{Blocking, Pauses, Surroundings};
use proto::{
    contract::{
        assignment::{SetCodeRequest, assignment_service_client::AssignmentServiceClient},
        recognition::freshness::Requirement,
    },
    refusal::{Reason, Refusal},
    statement::LogHead,
    terms::Purpose,
    time::Clock,
};
use tokio::time::{sleep, timeout};
use tongxing::{
    checkpoint::Checkpoint,
    desk::Desk,
    phone::{self, Phone, Wish},
};
use tonic::{Status, transport::Channel};

use crate::{
    clock::{SeededRandom, SkewedClock, now},
    faults::{HEALED, LAST_LOOKS, Scenario, millis},
    history::{Answer, Ask, At, Change, Event, Last, PassId, Recorder, Rule, Value, Wanted, Write},
    network::Simulated,
    world::{GATEWAYS, Roster, Shown, Template, address, home, venues},
};

/// The longest a venue waits.
const PATIENCE: Duration = Duration::from_secs(5);
/// When the venues begin to ask in earnest.
const OPENED: At = Duration::from_millis(300);
/// How long home's own people wait before they ask again, and between two attempts.
const ATTEMPT: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_millis(70);
/// Changes in a burst: each is as many events as its person has tokens.
const BURST: usize = 40;
/// Who has a phone in hand, to revoke consents and ask for others.
const WITH_PHONES: [usize; 2] = [0, 6];
/// Whose code nobody ever sets.
const WITHOUT_CODE: usize = 5;

/// What everybody needs.
#[derive(Clone)]
pub(crate) struct Stage {
    pub(crate) template: &'static Template,
    pub(crate) scenario: Arc<Scenario>,
    pub(crate) recorder: Recorder,
    /// How often each gateway was started.
    pub(crate) incarnations: Arc<[AtomicU32; 2]>,
    /// Where home's log stood behind the latest change.
    pub(crate) latest: Arc<Mutex<Option<LogHead>>>,
}

/// The tokens that are shown, by their numbers.
type Passes = Arc<Mutex<Vec<Arc<Shown>>>>;

/// Plays everybody, from the beginning to the last looks.
pub(crate) async fn play(stage: Stage) -> Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SkewedClock::new(0));
    let desk = Desk::open_in(
        &stage.template.layout,
        Surroundings {
            clock: clock.clone(),
            random: Arc::new(SeededRandom::new(stage.scenario.seed)),
            network: Arc::new(Simulated),
            blocking: Blocking::Inline,
            pauses: Pauses::default(),
        },
    )?;
    let passes: Passes = Arc::new(Mutex::new(stage.template.roster.shown.clone()));
    let venues = Venues::new(&stage, &desk, passes.clone())?;
    let mut operator = Operator::new(&stage, &desk, clock, passes).await?;
    let mut rng = Rng::with_seed(stage.scenario.seed ^ 0x0bea_c011);
    for venue in 0..3 {
        tokio::spawn(venues.clone().ask_on(venue, rng.fork()));
    }
    operator.change_on(rng.fork()).await?;
    sleep(LAST_LOOKS.saturating_sub(now())).await;
    venues.look_last().await;
    Ok(())
}

/// All venues, at both gateways.
#[derive(Clone)]
struct Venues {
    stage: Stage,
    passes: Passes,
    /// By gateway, then in the order of the venues.
    checkpoints: Arc<[Vec<Checkpoint>; 2]>,
}

impl Venues {
    fn new(stage: &Stage, desk: &Desk, passes: Passes) -> Result<Self> {
        let at = |port: u16| -> Result<Vec<Checkpoint>> {
            let checkpoint = |venue: &proto::venue::VenueId| {
                let standing = desk.standing(&desk.layout().venue(venue))?;
                Checkpoint::new(venue.clone(), standing, &address(port))
            };
            venues().iter().map(checkpoint).collect()
        };
        let checkpoints = Arc::new([at(GATEWAYS[0])?, at(GATEWAYS[1])?]);
        Ok(Self { stage: stage.clone(), passes, checkpoints })
    }

    /// One venue's day: many travelers at first, few once everything has healed.
    async fn ask_on(self, venue: usize, mut rng: Rng) {
        sleep(OPENED).await;
        while now() < LAST_LOOKS - PATIENCE {
            let busy = now() < HEALED + Duration::from_secs(1);
            sleep(if busy { millis(&mut rng, 30, 80) } else { millis(&mut rng, 400, 900) }).await;
            let count = self.passes().len();
            // Half of all who come are few, and come again and again.
            let pass = if rng.bool() { rng.usize(0..4) } else { rng.usize(0..count) };
            let wanted = self.want(&mut rng);
            tokio::spawn(self.clone().ask(rng.usize(0..2), venue, pass, wanted, Last::No));
        }
    }

    /// Two looks at everybody, at both gateways, when everything has long healed.
    async fn look_last(&self) {
        let count = self.passes().len();
        for last in [Last::First, Last::Second] {
            for pass in 0..count {
                let look = |gateway| self.clone().ask(gateway, 0, pass, Wanted::Default, last);
                tokio::join!(look(0), look(1));
            }
        }
    }

    /// One in five wants something special.
    fn want(&self, rng: &mut Rng) -> Wanted {
        let latest = *self.stage.latest.lock().unwrap_or_else(PoisonError::into_inner);
        match (rng.u8(0..16), latest) {
            (0..=1, _) => Wanted::FromHome,
            (2, Some(latest)) => Wanted::AtLeast(latest),
            _ => Wanted::Default,
        }
    }

    async fn ask(self, gateway: usize, venue: usize, pass: PassId, wanted: Wanted, last: Last) {
        let shown = self.passes()[pass].clone();
        let incarnation = || self.stage.incarnations[gateway].load(Ordering::Relaxed);
        let (then, sent) = (incarnation(), now());
        let checkpoint = &self.checkpoints[gateway][venue];
        let requirement = match wanted {
            Wanted::Default => None,
            Wanted::AtLeast(head) => Some(Requirement::AtLeastAsFresh(head.to_change_token(home()))),
            Wanted::FromHome => Some(Requirement::FromHome(true)),
        };
        let showing = checkpoint.show_as_fresh(&shown.presentations[venue], Purpose::Entry, requirement);
        let answered = timeout(PATIENCE, showing).await;
        let answer = answered.map_or_else(|_| Answer::Failed("no answer".into()), Answer::of);
        let incarnations = (then, incarnation());
        let ask = Ask { gateway, incarnations, pass, wanted, sent, received: now(), answer, last };
        self.stage.recorder.note(Event::Ask(ask));
    }

    fn passes(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Shown>>> {
        self.passes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Home's operator and backend.
struct Operator {
    stage: Stage,
    roster: Arc<Roster>,
    clock: Arc<dyn Clock>,
    client: AssignmentServiceClient<Channel>,
    phones: Vec<Phone>,
    passes: Passes,
    /// What was last set, by person.
    values: Vec<Value>,
    requests: u64,
}

impl Operator {
    async fn new(stage: &Stage, desk: &Desk, clock: Arc<dyn Clock>, passes: Passes) -> Result<Self> {
        let roster = stage.template.roster.clone();
        let backend = desk.backend(home())?;
        let mut phones = Vec::new();
        for person in WITH_PHONES {
            phones.push(backend.enroll(&roster.people[person].person).await?);
        }
        let values = roster.people.iter().map(|traveler| traveler.value).collect();
        let client = desk.operator(home())?;
        Ok(Self { stage: stage.clone(), roster, clock, client, phones, passes, values, requests: 0 })
    }

    /// One change after another until everything heals.
    async fn change_on(&mut self, mut rng: Rng) -> Result<()> {
        let mut bursts = self.stage.scenario.bursts.clone();
        while now() < HEALED {
            if bursts.first().is_some_and(|at| *at <= now()) {
                bursts.remove(0);
                for _ in 0..BURST {
                    self.flip(&mut rng, self.roster.burst()).await?;
                }
            }
            sleep(millis(&mut rng, 60, 300)).await;
            match rng.u8(0..20) {
                0 => self.issue(&mut rng).await?,
                1 => self.revoke(&mut rng).await?,
                _ => {
                    let person = rng.usize(0..self.roster.people.len());
                    if person != WITHOUT_CODE {
                        self.flip(&mut rng, person).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Sets a person's code to something else.
    async fn flip(&mut self, rng: &mut Rng, person: usize) -> Result<()> {
        let value = loop {
            let value = match rng.u8(0..6) {
                0..3 => Value::Green,
                3..5 => Value::Red(Rule::ALL[rng.usize(0..3)]),
                _ => Value::Unsubstantiated,
            };
            if value != self.values[person] {
                break value;
            }
        };
        self.values[person] = value;
        self.requests += 1;
        let (label, rule, authority) = match value {
            Value::Red(rule) => ("红码", rule.name().0, rule.name().1),
            Value::Unsubstantiated => ("红码", "R-DEPOSITOR", "44/finance-office"),
            _ => ("绿码", "R-CLEAR", "44/health-commission"),
        };
        let request = SetCodeRequest {
            request_id: format!("request-{}", self.requests),
            document: Some(phone::document(&self.roster.people[person].person)),
            label: label.into(),
            rule: rule.into(),
            authority: authority.into(),
            justification: "a simulation".into(),
        };
        let began = now();
        loop {
            match timeout(ATTEMPT, self.client.set_code(request.clone())).await {
                Ok(Ok(response)) => {
                    let head = LogHead::from_change_token(&response.into_inner().change_token).map(|(_, head)| head);
                    *self.stage.latest.lock().unwrap_or_else(PoisonError::into_inner) = head;
                    break;
                }
                Ok(Err(status)) => check_retryable(&status)?,
                Err(_) => {}
            }
            sleep(AGAIN).await;
        }
        self.note(Change::Code(person, value), began, true);
        Ok(())
    }

    /// Gets somebody another token. Whoever has too many gets none.
    async fn issue(&mut self, rng: &mut Rng) -> Result<()> {
        let whose = rng.usize(0..self.phones.len());
        let began = now();
        let wish = Wish::default();
        let Ok(Ok(pass)) = timeout(ATTEMPT, self.phones[whose].consent(&wish, self.clock.now())).await else {
            return Ok(());
        };
        let person = WITH_PHONES[whose];
        let number = {
            let mut passes = self.passes.lock().unwrap_or_else(PoisonError::into_inner);
            passes.push(Arc::new(Shown::new(person, pass, self.clock.now())));
            passes.len() - 1
        };
        self.note(Change::Issue(person, number), began, true);
        Ok(())
    }

    /// Takes a consent back.
    async fn revoke(&mut self, rng: &mut Rng) -> Result<()> {
        let whose = rng.usize(0..self.phones.len());
        let of_theirs: Vec<_> = {
            let passes = self.passes.lock().unwrap_or_else(PoisonError::into_inner);
            let numbered = passes.iter().cloned().enumerate();
            numbered.filter(|(_, shown)| shown.person == WITH_PHONES[whose]).collect()
        };
        let (number, shown) = rng.choice(&of_theirs).context("everybody has a token")?;
        let began = now();
        let acknowledged = loop {
            match timeout(ATTEMPT, self.phones[whose].revoke(&shown.pass)).await {
                Ok(Ok(_)) => break true,
                Ok(Err(error)) => {
                    let status = error.downcast_ref::<Status>().context("a refusal")?;
                    if Refusal::reason_of(status) == Some(Reason::ConsentUnknown) {
                        // The store was put back to before it was issued.
                        break false;
                    }
                    check_retryable(status)?;
                }
                Err(_) => {}
            }
            sleep(AGAIN).await;
        };
        self.note(Change::Revoke(*number), began, acknowledged);
        Ok(())
    }

    fn note(&self, what: Change, began: At, acknowledged: bool) {
        self.stage.recorder.note(Event::Write(Write { what, began, ended: now(), acknowledged }));
    }
}

/// A node that is away is asked again; anything else is a mistake of the simulation's.
fn check_retryable(status: &Status) -> Result<()> {
    match Refusal::reason_of(status) {
        None | Some(Reason::Overloaded | Reason::StoreUnavailable | Reason::DeadlineExceeded) => Ok(()),
        Some(_) => Err(anyhow::anyhow!("home refuses: {status:?}")),
    }
}
