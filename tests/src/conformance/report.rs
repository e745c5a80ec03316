//! A line a case: what was expected, what came, and where the contract says so.

use serde_json::json;

use super::cases::Case;

/// What became of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As the contract says.
    Ok,
    /// It could not be played here.
    Skipped(String),
    /// Otherwise.
    Failed {
        /// Which step, from 1, and its word; 0 is what the case begins with.
        step: String,
        /// What the contract wants.
        expected: String,
        /// What there was.
        got: String,
    },
}

/// One case's line.
pub fn line(case: &Case, verdict: &Verdict) -> String {
    match verdict {
        Verdict::Ok => format!("ok   {:<40} {}", case.id, case.title),
        Verdict::Skipped(why) => format!("skip {:<40} {why}", case.id),
        Verdict::Failed { step, expected, got } => {
            format!("FAIL {:<40} {step}: expected {expected}, got {got} (contract: {})", case.id, contract(case))
        }
    }
}

/// One case's line for programs.
pub fn json(case: &Case, verdict: &Verdict) -> String {
    let (word, details) = match verdict {
        Verdict::Ok => ("ok", json!({})),
        Verdict::Skipped(why) => ("skip", json!({ "why": why })),
        Verdict::Failed { step, expected, got } => ("FAIL", json!({ "step": step, "expected": expected, "got": got })),
    };
    let contract: Vec<_> = case.contract.iter().map(ToString::to_string).collect();
    let mut line = json!({ "id": case.id, "title": case.title, "verdict": word, "contract": contract });
    if let (Some(line), Some(details)) = (line.as_object_mut(), details.as_object()) {
        line.extend(details.clone());
    }
    line.to_string()
}

/// Where the contract says so.
pub fn contract(case: &Case) -> String {
    case.contract.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
