//! All cases, one after the other: a node is tested, not loaded.

use super::{
    cases::Case,
    report::Verdict,
    stage::{Miss, Stage},
    world::World,
};

/// Cases in a row that may go without any answer; after them the rest is not asked.
const UNANSWERED: usize = 3;

/// How many came out how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// As the contract says.
    pub ok: usize,
    /// Otherwise.
    pub failed: usize,
    /// Not played.
    pub skipped: usize,
}

/// Plays cases and hands each one's verdict over as it comes.
pub async fn run<'a>(
    world: &World,
    cases: impl IntoIterator<Item = &'a Case>,
    mut told: impl FnMut(&Case, &Verdict),
) -> Counts {
    let (mut counts, mut unanswered) = (Counts::default(), 0);
    for case in cases {
        let (verdict, silent) = if unanswered < UNANSWERED { play(world, case).await } else { not_asked() };
        unanswered = if silent { unanswered + 1 } else { 0 };
        match verdict {
            Verdict::Ok => counts.ok += 1,
            Verdict::Skipped(_) => counts.skipped += 1,
            Verdict::Failed { .. } => counts.failed += 1,
        }
        told(case, &verdict);
    }
    counts
}

/// Plays one case. Returns also whether the node said nothing at all.
async fn play(world: &World, case: &Case) -> (Verdict, bool) {
    let mut stage = Stage::new(world, &case.id);
    if let Err(miss) = stage.prepare(case.given).await {
        return verdict(miss, "what it begins with".into());
    }
    for (step, number) in case.steps.iter().zip(1..) {
        if let Err(miss) = stage.play(step).await {
            return verdict(miss, format!("step {number} ({})", step.word()));
        }
    }
    (Verdict::Ok, false)
}

fn verdict(miss: Miss, step: String) -> (Verdict, bool) {
    match miss {
        Miss::Skipped(why) => (Verdict::Skipped(why), false),
        Miss::Failed { expected, got, unanswered } => (Verdict::Failed { step, expected, got }, unanswered),
    }
}

fn not_asked() -> (Verdict, bool) {
    let got = format!("nothing: it was not asked, for the node gave no answer in {UNANSWERED} cases before");
    (Verdict::Failed { step: "none".into(), expected: "an answer".into(), got }, true)
}
