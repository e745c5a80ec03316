//! What happened in many simulations, counted.

use std::{collections::BTreeMap, fmt};

use proto::contract::recognition::Source;

use crate::{
    history::{Answer, Change, Event},
    run::Run,
};

/// What has to happen so often in a seed, on the average.
const EVENTS: [(&str, u64); 5] =
    [("asks", 500), ("from CACHE", 100), ("from HOME", 100), ("flips", 30), ("revocations", 1)];
/// What has to go wrong in one seed of twenty at least.
const FAULTS: [&str; 18] = [
    "clock skew",
    "cut in a pause",
    "deep lag",
    "gateway crash",
    "hold",
    "lag",
    "lossy link",
    "node crash",
    "one-way partition",
    "partition",
    "patience",
    "pause before applying",
    "pause before recording",
    "restore",
    "restored",
    "slow link",
    "slow reader",
    "tiny cache",
];

/// How often each thing happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Questions, answers by their kind, changes by their kind.
    pub(crate) events: BTreeMap<&'static str, u64>,
    /// Faults by their kind.
    pub(crate) faults: BTreeMap<&'static str, u64>,
}

impl Totals {
    /// Counts a run.
    pub(crate) fn count(&mut self, run: &Run) {
        for (kind, count) in &run.scenario.kinds {
            *self.faults.entry(kind).or_default() += count;
        }
        for event in &run.history {
            let kind = match event {
                Event::Write(write) => match write.what {
                    Change::Code(..) => "flips",
                    Change::Revoke(_) => "revocations",
                    Change::Issue(..) => "tokens issued",
                },
                Event::Restored(_) => "restored",
                Event::Fault(..) => continue,
                Event::Ask(ask) => {
                    *self.events.entry("asks").or_default() += 1;
                    answer_kind(&ask.answer)
                }
            };
            *self.events.entry(kind).or_default() += 1;
        }
    }

    /// What happened too seldom in so many seeds for the rest to mean much.
    pub(crate) fn too_few(&self, seeds: u64) -> Vec<String> {
        let enough = EVENTS.iter().map(|(kind, per_seed)| (*kind, per_seed * seeds));
        let enough = enough.chain(FAULTS.iter().map(|kind| (*kind, seeds.div_ceil(20))));
        let of = |kind: &str| self.events.get(kind).or_else(|| self.faults.get(kind)).copied().unwrap_or_default();
        let few = enough.filter(|(kind, enough)| of(kind) < *enough);
        few.map(|(kind, enough)| format!("{} {kind}, at least {enough} are wanted", of(kind))).collect()
    }
}

fn answer_kind(answer: &Answer) -> &'static str {
    match answer {
        Answer::Told(told) => match told.source {
            Some(Source::Cache) => "from CACHE",
            Some(Source::Home) => "from HOME",
            Some(_) => "from elsewhere",
            None => "without a statement",
        },
        Answer::Unreachable { .. } => "home unreachable",
        Answer::Failed(_) => "failed",
        Answer::Wrong(_) => "wrong",
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, counts) in [("events", &self.events), ("faults", &self.faults)] {
            let counts: Vec<_> = counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
            writeln!(f, "{what}: {}", counts.join(", "))?;
        }
        Ok(())
    }
}
