//! Histories made by hand: each rule bites, and none bites what may be.

use proto::statement::LogHead;

use super::*;
use crate::history::{Change, PassId, Restored, Rule, Write};

const RED: Value = Value::Red(Rule::Case);

/// One green person with two tokens, and one without a code.
fn setup() -> Setup {
    Setup { codes: vec![Value::Green, Value::Nothing], passes: vec![0, 0, 1] }
}

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn write(what: Change, began: u64, ended: u64) -> Event {
    Event::Write(Write { what, began: at(began), ended: at(ended), acknowledged: true })
}

fn red(began: u64, ended: u64) -> Event {
    write(Change::Code(0, RED), began, ended)
}

fn told(value: Value, source: Option<Source>) -> Told {
    let head = Some(LogHead { epoch: [7; 16], seq: 5 });
    Told { value, source, pass: value == Value::Green, head, signed_at: source.and(head) }
}

fn ask(pass: PassId, sent: u64, received: u64, told: Told) -> Event {
    let answer = Answer::Told(told);
    let (sent, received) = (at(sent), at(received));
    let wanted = Wanted::Default;
    Event::Ask(Ask { gateway: 0, incarnations: (1, 1), pass, wanted, sent, received, answer, last: Last::No })
}

fn home(pass: PassId, sent: u64, received: u64, value: Value) -> Event {
    ask(pass, sent, received, told(value, Some(Source::Home)))
}

fn cache(pass: PassId, sent: u64, received: u64, value: Value) -> Event {
    ask(pass, sent, received, told(value, Some(Source::Cache)))
}

fn refused(pass: PassId, sent: u64, received: u64) -> Event {
    ask(pass, sent, received, Told { head: None, ..told(Value::Revoked, None) })
}

/// The rules that a history breaks.
fn broken(history: &[Event]) -> Vec<&'static str> {
    check(&setup(), history, true).into_iter().map(|violation| violation.rule).collect()
}

fn fine(history: &[Event]) {
    assert_eq!(check(&setup(), history, true), [], "{history:?}");
}

#[test]
fn an_old_value_is_stale_a_second_after_the_new_one_was_acknowledged() {
    let flip = red(5_000, 5_010);
    fine(&[home(0, 1_000, 1_010, Value::Green), flip.clone(), home(0, 5_100, 5_110, RED)]);
    fine(&[flip.clone(), home(0, 6_009, 6_020, Value::Green)]);
    assert_eq!(broken(&[flip.clone(), home(0, 6_010, 6_020, Value::Green)]), ["STALE"]);
    assert_eq!(broken(&[flip, home(1, 6_500, 6_520, Value::Green)]), ["STALE"], "all of a person's tokens");
}

#[test]
fn a_new_value_is_not_told_before_it_began() {
    fine(&[home(0, 4_900, 5_001, RED), red(5_000, 5_010)]);
    assert_eq!(broken(&[home(0, 4_900, 5_000, RED), red(5_000, 5_010)]), ["STALE"]);
    assert_eq!(broken(&[home(0, 4_900, 5_000, Value::Unsubstantiated)]), ["STALE"], "nobody ever set that");
}

#[test]
fn what_is_under_way_may_have_happened_or_not() {
    for value in [Value::Green, RED] {
        fine(&[home(0, 7_000, 7_010, value), red(5_000, 9_000)]);
    }
    let given_up =
        Event::Write(Write { what: Change::Revoke(0), began: at(5_000), ended: at(6_000), acknowledged: false });
    fine(&[given_up.clone(), home(0, 9_000, 9_010, Value::Green), refused(0, 9_020, 9_030)]);
    assert_eq!(broken(&[given_up, refused(1, 9_020, 9_030)]), ["STALE"], "another token's");
}

#[test]
fn what_is_held_is_given_for_a_second_and_not_for_as_long_as_its_record_takes() {
    let flip = red(5_000, 5_010);
    fine(&[flip.clone(), home(0, 5_000, 6_900, Value::Green)]);
    fine(&[flip.clone(), cache(0, 5_000, 6_050, Value::Green)]);
    assert_eq!(broken(&[flip, cache(0, 5_000, 6_061, Value::Green)]), ["STALE_CACHE"]);
}

#[test]
fn a_consent_that_was_taken_back_is_refused() {
    let revoked = write(Change::Revoke(0), 5_000, 5_010);
    fine(&[home(0, 5_500, 5_510, Value::Green), refused(0, 5_520, 5_530), revoked.clone(), refused(0, 8_000, 8_010)]);
    fine(&[revoked.clone(), home(1, 8_000, 8_010, Value::Green)]);
    assert_eq!(broken(&[revoked.clone(), home(0, 6_010, 6_020, Value::Green)]), ["STALE"]);
    assert_eq!(broken(&[refused(0, 4_000, 4_010), revoked]), ["STALE"], "nobody had taken it back");
}

#[test]
fn a_new_token_is_known_sooner_or_later() {
    let issued = write(Change::Issue(0, 3), 5_000, 5_010);
    let unknown = |sent| ask(3, sent, sent + 10, told(Value::Nothing, None));
    fine(&[issued.clone(), unknown(5_500), home(3, 5_600, 5_610, Value::Green), unknown(7_000)]);
    assert_eq!(broken(&[issued, unknown(12_000)]), ["STALE"]);
    assert_eq!(broken(&[ask(0, 100, 110, told(Value::Nothing, None))]), ["STALE"], "it was always there");
}

#[test]
fn a_restore_brings_back_what_was_copied() {
    let restored = Event::Restored(Restored { copied: at(4_000), crashed: at(8_000), up: at(9_000) });
    let flipped = [red(5_000, 5_010), restored.clone()];
    let after = |event: Event| [&flipped[..], &[event]].concat();
    for value in [Value::Green, RED] {
        fine(&after(home(0, 8_500, 8_510, value)));
        fine(&after(home(0, 9_900, 9_910, value)));
    }
    assert_eq!(broken(&after(home(0, 6_500, 6_510, Value::Green))), ["STALE"], "before the crash it was red");
    assert_eq!(broken(&after(home(0, 10_000, 10_010, RED))), ["STALE"]);
    // Whoever copied while it changed may have either; what is acknowledged only now stands now.
    let during = Event::Restored(Restored { copied: at(5_005), crashed: at(8_000), up: at(9_000) });
    for value in [Value::Green, RED] {
        fine(&[red(5_000, 5_010), during.clone(), home(0, 20_000, 20_010, value)]);
    }
    let retried = [restored, red(7_900, 9_500), home(0, 20_000, 20_010, RED)];
    fine(&retried);
    assert_eq!(broken(&[&retried[..2], &[home(0, 20_000, 20_010, Value::Green)]].concat()), ["STALE"]);
    // A token that was issued after the copy is gone, and one that was taken back is good again.
    let [issued, revoked] = [write(Change::Issue(0, 3), 5_000, 5_010), write(Change::Revoke(1), 6_000, 6_010)];
    let lost = [issued, revoked, flipped[1].clone()];
    let gone = ask(3, 20_000, 20_010, told(Value::Nothing, None));
    fine(&[&lost[..], &[gone, home(1, 20_000, 20_010, Value::Green)]].concat());
    assert_eq!(broken(&[&lost[..], &[refused(1, 20_000, 20_010)]].concat()), ["STALE"]);
}

#[test]
fn nobody_goes_back_within_a_log() {
    let stands_at = |sent: u64, seq: u64, source: Source, change: &dyn Fn(&mut Ask)| {
        let head = Some(LogHead { epoch: [7; 16], seq });
        let event = ask(0, sent, sent + 10, Told { head, ..told(Value::Green, Some(source)) });
        let Event::Ask(mut ask) = event else { unreachable!() };
        change(&mut ask);
        Event::Ask(ask)
    };
    let plain = |sent, seq, source| stands_at(sent, seq, source, &|_| {});
    fine(&[plain(1_000, 5, Source::Home), plain(1_011, 5, Source::Home), plain(1_030, 9, Source::Home)]);
    for source in [Source::Home, Source::Cache] {
        assert_eq!(broken(&[plain(1_000, 6, source), plain(1_011, 5, Source::Home)]), ["BACKWARDS"], "{source:?}");
        fine(&[plain(1_000, 6, source), plain(1_009, 5, Source::Home)]);
        // What is held is as of where the change stream is: home itself may be ahead of that.
        fine(&[plain(1_000, 6, source), plain(1_011, 5, Source::Cache)]);
    }
    let unsigned = stands_at(1_000, 6, Source::Home, &|ask| {
        ask.pass = 2;
        ask.answer =
            Answer::Told(Told { head: Some(LogHead { epoch: [7; 16], seq: 6 }), ..told(Value::Nothing, None) });
    });
    fine(&[unsigned, plain(1_011, 5, Source::Home)]);
    assert_eq!(broken(&[plain(1_000, 4, Source::Cache)]), ["BACKWARDS"], "signed at 5");
    // Another gateway, another start of it, another log.
    let others: [&dyn Fn(&mut Ask); 4] =
        [&|ask| ask.gateway = 1, &|ask| ask.incarnations = (2, 2), &|ask| ask.incarnations = (1, 2), &|ask| {
            let Answer::Told(told) = &mut ask.answer else { unreachable!() };
            let head = Some(LogHead { epoch: [8; 16], seq: 5 });
            (told.head, told.signed_at) = (head, head);
        }];
    for other in others {
        fine(&[plain(1_000, 6, Source::Home), stands_at(1_011, 5, Source::Home, other)]);
    }
}

#[test]
fn who_asks_for_freshness_gets_it() {
    let head = |epoch, seq| LogHead { epoch: [epoch; 16], seq };
    let wanting = |wanted, source| {
        let Event::Ask(ask) = ask(0, 1_000, 1_010, told(Value::Green, Some(source))) else { unreachable!() };
        broken(&[Event::Ask(Ask { wanted, ..ask })])
    };
    for source in [Source::Home, Source::Cache] {
        assert!(wanting(Wanted::AtLeast(head(7, 5)), source).is_empty());
        assert_eq!(wanting(Wanted::AtLeast(head(7, 6)), source), ["FRESHNESS"]);
        assert!(wanting(Wanted::AtLeast(head(8, 6)), source).is_empty(), "of another log");
    }
    assert!(wanting(Wanted::FromHome, Source::Home).is_empty());
    assert_eq!(wanting(Wanted::FromHome, Source::Cache), ["FRESHNESS"]);
}

#[test]
fn a_gate_opens_for_a_green_of_homes_alone() {
    let open = |value, source| broken(&[ask(2, 1_000, 1_010, Told { pass: true, ..told(value, source) })]);
    assert_eq!(open(Value::Nothing, None), ["OPEN"]);
    assert_eq!(broken(&[ask(0, 1_000, 1_010, Told { signed_at: None, ..told(Value::Green, None) })]), ["OPEN"]);
    fine(&[ask(2, 1_000, 1_010, told(Value::Nothing, None))]);
    let with = |answer| {
        let Event::Ask(ask) = home(0, 1_000, 1_010, Value::Green) else { unreachable!() };
        broken(&[Event::Ask(Ask { answer, ..ask })])
    };
    assert_eq!(with(Answer::Unreachable { pass: true }), ["OPEN"]);
    assert_eq!(with(Answer::Wrong("the statement: SIGNATURE_INVALID".into())), ["WRONG"]);
    for harmless in [Answer::Unreachable { pass: false }, Answer::Failed("OVERLOADED".into())] {
        assert!(with(harmless).is_empty());
    }
}

#[test]
fn in_the_end_everybody_is_told_what_is_right_and_the_second_time_from_the_cache() {
    let flip = red(5_000, 5_010);
    let last = |event: Event, last| {
        let Event::Ask(ask) = event else { unreachable!() };
        [flip.clone(), Event::Ask(Ask { last, ..ask })]
    };
    fine(&last(home(0, 5_500, 5_510, RED), Last::First));
    fine(&last(cache(0, 5_500, 5_510, RED), Last::Second));
    assert_eq!(broken(&last(home(0, 5_500, 5_510, Value::Green), Last::First)), ["LIVENESS"], "old, though not stale");
    let second = last(home(0, 5_500, 5_510, RED), Last::Second);
    assert_eq!(broken(&second), ["LIVENESS"]);
    assert!(check(&setup(), &second, false).is_empty(), "a cache that holds next to nothing");
    let Event::Ask(ask) = home(0, 5_500, 5_510, RED) else { unreachable!() };
    let unreachable = Ask { answer: Answer::Unreachable { pass: false }, last: Last::First, ..ask };
    assert_eq!(broken(&[Event::Ask(unreachable)]), ["LIVENESS"]);
}
