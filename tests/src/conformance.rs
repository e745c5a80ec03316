//! The conformance kit: cases from files against any member's node, and a report.
//!
//! It is all the parties around a node (the gateway, the member's backend and operator, phones, venues, other members,
//! strangers) and needs nothing of it but the contract in `proto/`. What a case says is data, in
//! `tests/conformance/cases`; what a step can do is here.
//!
//! ```text
//! cases      the files: areas, cases and where the contract says so
//! steps      what a case can do, a small closed vocabulary
//! refused    how a refusal has to look
//! world      whoever can be played, from a federation's directory
//! person     people that the kit invents
//! tamper     signed objects, changed in one place
//! stage      one case as it is played: people, tokens, what was said so far
//! act        the steps: people enrolled, codes set
//! consents   consents asked for, listed, revoked
//! lookup     the step that matters most
//! log        the kit's own access log
//! deliver    its records delivered, as a gateway delivers them or as it should not
//! accesses   who asked, as the traveler sees it; the traveler's end
//! watch      the change stream, as a gateway follows it
//! node       what a node says of itself, and to whom it opens
//! statement  whether a statement is what the contract says
//! token      whether a token is
//! report     a line a case
//! run        all cases, one after the other
//! ```

pub mod cases;
pub mod report;
pub mod run;
pub mod steps;
pub mod world;

mod accesses;
mod act;
mod consents;
mod deliver;
mod log;
mod lookup;
mod node;
mod person;
mod refused;
mod stage;
mod statement;
mod tamper;
mod token;
mod watch;
