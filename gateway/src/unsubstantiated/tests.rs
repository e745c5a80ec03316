//! What is counted as what, and when it is an alarm.

use proto::{policy::NATIONAL, time::ManualClock};

use super::*;

const START: UnixTime = UnixTime::from_secs(1_800_000_000);
const SLOT: Duration = Duration::from_secs(60);
const WINDOW: Duration = Duration::from_secs(600);
const OFFICE: &str = "41/finance-office";

/// Everybody in it is of Henan, and a new traveler whenever one is scanned.
struct Scene {
    counts: Unsubstantiated,
    policy: Policy,
    home: Member,
    now: UnixTime,
    scanned: u64,
}

impl Scene {
    fn open() -> Self {
        let counts = Unsubstantiated::new(AlarmLimits::default());
        let policy = Policy::from_toml(NATIONAL).unwrap();
        Self { counts, policy, home: "41".parse().unwrap(), now: START, scanned: 0 }
    }

    fn see(&self, authority: &str, traveler: u64) -> String {
        let token = TokenHash::of(&traveler.to_be_bytes());
        let authority = (authority != NONE).then(|| authority.parse().unwrap());
        self.counts.count(self.home, authority.as_ref(), &self.policy, token, self.now)
    }

    /// Others than before; what the last of them is counted as.
    fn scan(&mut self, authority: &str, travelers: u64) -> String {
        let first = self.scanned;
        self.scanned += travelers;
        (first..self.scanned).fold(String::new(), |_, traveler| self.see(authority, traveler))
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.plus(time);
    }

    fn tally(&self, authority: &str) -> Tally {
        let tallies = self.counts.tallies(self.now);
        let found = tallies.into_iter().find(|tally| tally.home == self.home && tally.authority == authority);
        found.unwrap_or_else(|| panic!("{authority} was never counted"))
    }

    fn travelers(&self, authority: &str) -> u64 {
        self.tally(authority).travelers
    }

    fn alarm(&self, authority: &str) -> bool {
        self.tally(authority).alarm_since.is_some()
    }

    fn names(&self) -> Vec<String> {
        self.counts.tallies(self.now).into_iter().map(|tally| tally.authority).collect()
    }
}

#[test]
fn who_is_scanned_a_thousand_times_is_one_traveler() {
    let mut scene = Scene::open();
    (0..1000).for_each(|_| assert_eq!(scene.see(NONE, 7), NONE));
    let tally = scene.tally(NONE);
    assert_eq!((tally.answers, tally.travelers, tally.alarm_since), (1000, 1, None));
    scene.scan(NONE, 2);
    assert_eq!(scene.travelers(NONE), 3);
}

#[test]
fn the_window_slides() {
    let mut scene = Scene::open();
    scene.scan(NONE, 3);
    scene.pass(SLOT);
    scene.scan(NONE, 2);
    scene.see(NONE, 0);
    scene.pass(8 * SLOT);
    assert_eq!(scene.travelers(NONE), 5, "the first slot is in the window still");
    scene.pass(SLOT);
    assert_eq!(scene.travelers(NONE), 3, "who was seen again stays");
    scene.pass(SLOT);
    assert_eq!((scene.travelers(NONE), scene.tally(NONE).answers), (0, 6));
}

#[test]
fn a_window_is_a_multiple_of_ten_seconds() {
    for (window, counted) in [(10_000, 10), (10_001, 20), (15_000, 20), (600_000, 600), (86_400_000, 86_400)] {
        let window = Duration::from_millis(window);
        let counts = Unsubstantiated::new(AlarmLimits { window, ..AlarmLimits::default() });
        assert_eq!(counts.window(), Duration::from_secs(counted));
    }
}

#[test]
fn an_alarm_begins_at_its_bound_and_ends_below_half_of_it() {
    for (first, left, stands) in [(10, 10, true), (11, 9, false)] {
        let mut scene = Scene::open();
        scene.scan(OFFICE, first);
        scene.pass(SLOT);
        scene.scan(OFFICE, left - 1);
        assert!(!scene.alarm(OFFICE), "19 are none yet");
        scene.scan(OFFICE, 1);
        assert_eq!(scene.tally(OFFICE).alarm_since, Some(START.plus(SLOT)));
        scene.pass(9 * SLOT);
        assert_eq!((scene.travelers(OFFICE), scene.alarm(OFFICE)), (left, stands));
        scene.pass(SLOT);
        assert!(!scene.alarm(OFFICE));
    }
}

#[test]
fn what_is_usual_is_no_alarm_and_several_times_that_is_one() {
    let mut scene = Scene::open();
    for _ in 0..24 {
        scene.scan(OFFICE, 10);
        scene.pass(WINDOW);
    }
    assert_eq!((scene.tally(OFFICE).usual, scene.travelers(OFFICE)), (10, 0));
    scene.scan(OFFICE, 20);
    scene.pass(SLOT);
    scene.scan(OFFICE, 19);
    assert!(!scene.alarm(OFFICE), "four times ten are 40");
    scene.scan(OFFICE, 1);
    assert!(scene.alarm(OFFICE));
    scene.pass(9 * SLOT);
    assert!(scene.alarm(OFFICE), "20 are half of it");
    scene.pass(SLOT);
    assert!(!scene.alarm(OFFICE));
    // All of it again as after a day in which nobody asked.
    scene.pass(25 * WINDOW);
    assert_eq!(scene.tally(OFFICE).usual, 0);
    scene.scan(OFFICE, 20);
    assert!(scene.alarm(OFFICE));
}

#[test]
fn an_alarm_does_not_become_usual_by_going_on() {
    let mut scene = Scene::open();
    for _ in 0..600 {
        scene.scan(OFFICE, 3);
        scene.pass(SLOT);
    }
    let tally = scene.tally(OFFICE);
    assert_eq!((tally.travelers, tally.usual), (27, 0));
    assert_eq!(tally.alarm_since, Some(START.plus(6 * SLOT)));
}

#[test]
fn a_name_is_shown_when_it_can_be_nobodys_own() {
    let mut scene = Scene::open();
    assert_eq!(scene.scan("41/cdc", 1), "41/cdc", "the policy lists the kind");
    assert_eq!(scene.scan("44/cdc", 1), "44/cdc", "whoever's it is");
    assert_eq!(scene.scan(OFFICE, 4), OTHER);
    assert_eq!(scene.see(OFFICE, scene.scanned - 1), OTHER, "the same traveler once more");
    assert_eq!(scene.scan(OFFICE, 1), OFFICE);
    assert_eq!((scene.tally(OFFICE).answers, scene.travelers(OFFICE)), (1, 5), "with those who had it before");
    assert_eq!(scene.scan("41/110105194912310029", 30), OTHER, "a number is a person's");
    assert_eq!(scene.names(), ["41/cdc", OFFICE, "44/cdc", OTHER]);
    assert!(scene.alarm(OTHER), "it is counted all the same");
}

#[test]
fn a_name_of_few_is_forgotten_with_them() {
    let mut scene = Scene::open();
    scene.scan(OFFICE, 4);
    scene.pass(WINDOW);
    assert_eq!(scene.scan(OFFICE, 4), OTHER, "those of before are gone");
    assert_eq!(scene.scan(OFFICE, 1), OFFICE);
    // Sixteen others push one out that waits.
    scene.scan("41/tax-office", 4);
    for letter in b'a'..=b'p' {
        scene.scan(&format!("41/office-{}", char::from(letter)), 1);
    }
    assert_eq!(scene.scan("41/tax-office", 1), OTHER);
}

#[test]
fn a_member_that_makes_up_names_fills_its_own_room() {
    let mut scene = Scene::open();
    for letter in b'a'..=b'p' {
        let name = format!("41/office-{}", char::from(letter));
        assert_eq!(scene.scan(&name, 5), name);
    }
    assert_eq!(scene.scan(OFFICE, 25), OTHER);
    assert_eq!(scene.scan("41/cdc", 1), OTHER, "whether or not the policy lists the kind");
    assert_eq!(scene.scan("41/office-a", 1), "41/office-a");
    assert!(scene.alarm(OTHER));
    scene.home = "51".parse().unwrap();
    assert_eq!(scene.scan("51/finance-office", 5), "51/finance-office");
    assert_eq!(scene.names().len(), 16 + 1 + 2);
}

#[test]
fn no_more_travelers_are_told_apart_than_there_is_room_for_and_so_many_are_an_alarm() {
    let mut scene = Scene::open();
    // More and more, but never four times what is usual.
    for travelers in [19, 75, 299, 1195].iter().flat_map(|travelers| [travelers; USUAL_WINDOWS]) {
        scene.scan(NONE, *travelers);
        scene.pass(WINDOW);
    }
    let most = MAX_TRAVELERS as u64;
    scene.scan(NONE, most - 1);
    let usual = scene.tally(NONE).usual;
    assert!(4 * usual > most && !scene.alarm(NONE), "usual are {usual}");
    scene.scan(NONE, 10);
    assert_eq!(scene.travelers(NONE), most);
    assert!(scene.alarm(NONE));
    scene.see(NONE, scene.scanned - 1);
    assert_eq!(scene.counts.ledger(scene.home, scene.now).accounts[NONE].travelers.0.len(), MAX_TRAVELERS);
}

#[test]
fn a_clock_that_was_set_back_does_not_keep_an_alarm() {
    let mut scene = Scene::open();
    scene.now = START.plus(3650 * 24 * 3600 * Duration::from_secs(1));
    scene.scan(NONE, 20);
    assert!(scene.alarm(NONE));
    scene.now = START;
    assert!(!scene.alarm(NONE));
    scene.scan(NONE, 2);
    // Not so far that it would matter.
    scene.now = START.minus(SLOT);
    assert_eq!(scene.travelers(NONE), 2);
}

#[tokio::test(start_paused = true)]
async fn an_alarm_ends_when_nobody_asks() {
    let mut scene = Scene::open();
    scene.scan(NONE, 20);
    let (counts, clock) = (Arc::new(scene.counts), Arc::new(ManualClock::at(START)));
    let shutdown = CancellationToken::new();
    let keeping = tokio::spawn(counts.clone().keep(clock.clone(), shutdown.clone()));
    let stands = || {
        let ledger = counts.members[&scene.home].lock().unwrap();
        ledger.accounts[NONE].alarm_since.is_some()
    };
    clock.advance(9 * SLOT);
    tokio::time::sleep(SLOT + Duration::from_secs(1)).await;
    assert!(stands());
    clock.advance(SLOT);
    tokio::time::sleep(SLOT).await;
    assert!(!stands());
    shutdown.cancel();
    keeping.await.unwrap();
}
