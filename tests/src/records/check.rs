//! Whether homes hold what callers were told is on record: a function of what the ones noted and the others hold.

use std::collections::{BTreeMap, HashMap};

use proto::{
    log::{LogId, merkle::Hash},
    member::Member,
};
use serde::Serialize;

/// The first of what is wrong that is told one by one.
const MAX_TOLD: usize = 20;

/// What a caller knows of an answer that it has in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noted {
    /// The traveler's member, which is to hold the record.
    pub home: Member,
    /// The exchange's id.
    pub exchange: [u8; 16],
    /// Where the receipt says that the record is.
    pub at: Place,
    /// The hash of the record in the receipt.
    pub record: Hash,
}

/// A record at home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Where it is.
    pub at: Place,
    /// The exchange's id; `None` if nobody can read the record.
    pub exchange: Option<[u8; 16]>,
    /// The hash of the record.
    pub record: Hash,
}

/// A place on a member's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The log.
    pub log: LogId,
    /// The index there.
    pub index: u64,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Answers that callers have in hand.
    pub acknowledged: usize,
    /// Records at homes.
    pub held: usize,
    /// Logs at homes.
    pub logs: usize,
    /// Acknowledged, and not at home.
    pub lost: usize,
    /// Exchanges that are at homes, or were acknowledged, more than once; once for each time beyond the first.
    pub duplicates: usize,
    /// Places where a log at home does not go on with the next index, or does not begin with 0.
    pub gaps: usize,
    /// At home, and not where the receipt says.
    pub misplaced: usize,
    /// At home, and not the record that is in the receipt.
    pub altered: usize,
    /// Records at homes that nobody can read.
    pub unreadable: usize,
    /// The first of all that is wrong, a line each.
    #[serde(skip)]
    pub told: Vec<String>,
}

/// Compares what was acknowledged with what is held, by home.
pub fn check(noted: &[Noted], held: &BTreeMap<Member, Vec<Held>>) -> Verdict {
    let mut verdict = Verdict { acknowledged: noted.len(), ..Verdict::default() };
    let mut at_home: HashMap<[u8; 16], (Member, Held)> = HashMap::new();
    for (member, records) in held {
        verdict.held += records.len();
        verdict.order(*member, records);
        for record in records {
            let Some(exchange) = record.exchange else {
                verdict.unreadable += 1;
                verdict.tell(|| format!("{member} {}: nobody can read it", place(record.at)));
                continue;
            };
            if let Some((first, other)) = at_home.insert(exchange, (*member, *record)) {
                verdict.duplicates += 1;
                verdict.tell(|| {
                    let (one, two) = (place(other.at), place(record.at));
                    format!("exchange {} is at {first} {one} and at {member} {two}", hex(&exchange))
                });
            }
        }
    }
    let mut acknowledged = HashMap::with_capacity(noted.len());
    for answer in noted {
        if acknowledged.insert(answer.exchange, ()).is_some() {
            verdict.duplicates += 1;
            verdict.tell(|| format!("exchange {} was acknowledged twice", hex(&answer.exchange)));
        }
        match at_home.get(&answer.exchange) {
            Some((member, held)) if *member == answer.home => verdict.compare(answer, held),
            _ => {
                verdict.lost += 1;
                verdict.tell(|| {
                    let (exchange, at) = (hex(&answer.exchange), place(answer.at));
                    format!("exchange {exchange} is not at {}: its receipt says {at}", answer.home)
                });
            }
        }
    }
    verdict
}

impl Verdict {
    /// What did not hold.
    pub fn broken(&self) -> Vec<String> {
        let counts = [
            (self.lost, "acknowledged answers are not at home"),
            (self.duplicates, "records or answers are there twice"),
            (self.gaps, "gaps in logs at home"),
            (self.misplaced, "records are not where their receipts say"),
            (self.altered, "records are not those of their receipts"),
            (self.unreadable, "records nobody can read"),
        ];
        let counts = counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
        counts.chain(self.told.iter().cloned()).collect()
    }

    /// What there is to count of what is wrong, in a line.
    pub fn line(&self) -> String {
        let Self { lost, duplicates, gaps, misplaced, altered, unreadable, .. } = self;
        format!(
            "lost {lost}, duplicates {duplicates}, gaps {gaps}, misplaced {misplaced}, altered {altered}, \
             unreadable {unreadable}"
        )
    }

    /// The order of each log at a home.
    fn order(&mut self, member: Member, records: &[Held]) {
        let mut places: Vec<Place> = records.iter().map(|held| held.at).collect();
        places.sort_unstable();
        for log in places.chunk_by(|a, b| a.log == b.log) {
            self.logs += 1;
            let mut next = 0;
            for at in log {
                if at.index != next {
                    self.gaps += 1;
                    self.tell(|| format!("{member} {}: the next is {next}", place(*at)));
                }
                next = at.index + 1;
            }
        }
    }

    fn compare(&mut self, answer: &Noted, held: &Held) {
        let exchange = || hex(&answer.exchange);
        if answer.at != held.at {
            self.misplaced += 1;
            let (said, is) = (place(answer.at), place(held.at));
            self.tell(|| format!("exchange {} is at {is}: its receipt says {said}", exchange()));
        }
        if answer.record != held.record {
            self.altered += 1;
            self.tell(|| format!("exchange {} is another record at {}", exchange(), place(held.at)));
        }
    }

    fn tell(&mut self, what: impl FnOnce() -> String) {
        if self.told.len() < MAX_TOLD {
            self.told.push(what());
        }
    }
}

fn place(at: Place) -> String {
    format!("{}/{}", hex(&at.log.0[..4]), at.index)
}

fn hex(bytes: &[u8]) -> String {
    peer::config::to_hex(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: LogId = LogId([7; 32]);

    fn member(code: &str) -> Member {
        code.parse().unwrap()
    }

    fn record(exchange: u8, index: u64) -> Held {
        Held { at: Place { log: LOG, index }, exchange: Some([exchange; 16]), record: [exchange; 32] }
    }

    fn answer(home: &str, exchange: u8, index: u64) -> Noted {
        Noted { home: member(home), exchange: [exchange; 16], at: Place { log: LOG, index }, record: [exchange; 32] }
    }

    /// Three answers of one member and one of another. Of each there is one more record, whose answer never arrived.
    fn world() -> (Vec<Noted>, BTreeMap<Member, Vec<Held>>) {
        let noted = vec![answer("44", 0, 0), answer("44", 1, 1), answer("44", 3, 3), answer("51", 10, 1)];
        let of_44 = (0..4).map(|number| record(number, number.into())).collect();
        let of_51 = vec![record(11, 0), record(10, 1)];
        (noted, BTreeMap::from([(member("44"), of_44), (member("51"), of_51)]))
    }

    /// What is found in a world that something was done to.
    fn found(change: impl FnOnce(&mut Vec<Noted>, &mut Vec<Held>)) -> Verdict {
        let (mut noted, mut held) = world();
        change(&mut noted, held.get_mut(&member("44")).unwrap());
        let verdict = check(&noted, &held);
        assert_eq!(verdict.told.len(), verdict.broken().len() - counted(&verdict), "{verdict:?}");
        Verdict { acknowledged: 0, held: 0, logs: 0, told: vec![], ..verdict }
    }

    fn counted(verdict: &Verdict) -> usize {
        let Verdict { lost, duplicates, gaps, misplaced, altered, unreadable, .. } = verdict;
        [lost, duplicates, gaps, misplaced, altered, unreadable].into_iter().filter(|count| **count > 0).count()
    }

    #[test]
    fn what_is_as_the_receipts_say_is_well_whatever_answers_never_arrived() {
        let (noted, held) = world();
        let verdict = check(&noted, &held);
        assert_eq!(verdict, Verdict { acknowledged: 4, held: 6, logs: 2, ..Verdict::default() });
        assert_eq!(verdict.broken(), Vec::<String>::new());
        // Another replica's log at the same home is another log.
        let (noted, mut held) = world();
        let other = Held { at: Place { log: LogId([8; 32]), index: 0 }, ..record(20, 0) };
        held.get_mut(&member("44")).unwrap().push(other);
        assert_eq!(check(&noted, &held), Verdict { acknowledged: 4, held: 7, logs: 3, ..Verdict::default() });
    }

    #[test]
    fn a_lost_record_is_found_at_the_end_of_a_log_and_within() {
        assert_eq!(found(|_, held| _ = held.pop()), Verdict { lost: 1, ..Verdict::default() });
        let within = found(|_, held| _ = held.remove(1));
        assert_eq!(within, Verdict { lost: 1, gaps: 1, ..Verdict::default() });
        // At another home it is as good as lost.
        let (noted, mut held) = world();
        let gone = held.get_mut(&member("44")).unwrap().pop().unwrap();
        held.get_mut(&member("51")).unwrap().push(Held { at: Place { log: LOG, index: 2 }, ..gone });
        let verdict = check(&noted, &held);
        assert_eq!((verdict.lost, verdict.gaps, verdict.duplicates), (1, 0, 0));
        // And all of a home's.
        let (noted, mut held) = world();
        held.remove(&member("44"));
        assert_eq!(check(&noted, &held).lost, 3);
    }

    #[test]
    fn a_log_put_back_and_written_on_is_found() {
        // What was acknowledged at 3 is gone, and something else is there.
        let put_back = found(|_, held| held[3] = record(9, 3));
        assert_eq!(put_back, Verdict { lost: 1, ..Verdict::default() });
    }

    #[test]
    fn a_duplicate_is_found_wherever_it_is() {
        let again = found(|_, held| held.push(record(1, 4)));
        assert_eq!(again, Verdict { duplicates: 1, misplaced: 1, ..Verdict::default() });
        // Of one that was never acknowledged, too; and under an index that is there already.
        let unacknowledged = found(|_, held| held.push(record(2, 4)));
        assert_eq!(unacknowledged, Verdict { duplicates: 1, ..Verdict::default() });
        let same_index = found(|_, held| held.push(record(9, 3)));
        assert_eq!(same_index, Verdict { gaps: 1, ..Verdict::default() });
        let twice_acknowledged = found(|noted, _| noted.push(noted[0]));
        assert_eq!(twice_acknowledged, Verdict { duplicates: 1, ..Verdict::default() });
        let (noted, mut held) = world();
        held.get_mut(&member("51")).unwrap().push(record(0, 2));
        let verdict = check(&noted, &held);
        assert!(verdict.duplicates == 1 && !verdict.broken().is_empty(), "{verdict:?}");
    }

    #[test]
    fn a_gap_is_found_where_nobody_was_told_anything() {
        assert_eq!(found(|_, held| _ = held.remove(2)), Verdict { gaps: 1, ..Verdict::default() });
        // A log that does not begin with 0.
        let begins_late = found(|noted, held| {
            noted.remove(0);
            held.remove(0);
        });
        assert_eq!(begins_late, Verdict { gaps: 1, ..Verdict::default() });
    }

    #[test]
    fn a_wrong_index_or_log_is_found_though_the_record_is_there() {
        let index = found(|noted, _| noted[1].at.index = 2);
        assert_eq!(index, Verdict { misplaced: 1, ..Verdict::default() });
        let log = found(|noted, _| noted[1].at.log = LogId([9; 32]));
        assert_eq!(log, Verdict { misplaced: 1, ..Verdict::default() });
        let swapped = found(|_, held| (held[0].at, held[1].at) = (held[1].at, held[0].at));
        assert_eq!(swapped, Verdict { misplaced: 2, ..Verdict::default() });
    }

    #[test]
    fn another_record_than_the_receipts_is_found_and_one_that_nobody_can_read() {
        let altered = found(|_, held| held[1].record = [0xee; 32]);
        assert_eq!(altered, Verdict { altered: 1, ..Verdict::default() });
        let unreadable = found(|_, held| held[1].exchange = None);
        assert_eq!(unreadable, Verdict { unreadable: 1, lost: 1, ..Verdict::default() });
    }

    #[test]
    fn of_much_that_is_wrong_the_first_is_told_and_all_is_counted() {
        let noted: Vec<_> = (0..100).map(|number| answer("44", number, number.into())).collect();
        let verdict = check(&noted, &BTreeMap::new());
        assert_eq!((verdict.lost, verdict.told.len()), (100, MAX_TOLD));
    }
}
