//! Load at a rate, and what it costs: an open-loop driver that makes a fresh proof for every request, a bare echo to compare
//! with, and the processor time of whole processes.
//!
//! ```text
//! schedule    when each request is due, whatever became of the ones before it
//! drive       sends what is due, and counts latency from when it was due
//! travelers   phones with tokens, enrolled at running nodes
//! echo        a gRPC server that does nothing: the same messages over the same TLS
//! process     programs started for a measurement, and what they used
//! programs    a federation's gateway and nodes as such programs
//! report      what came of a round
//! ```

pub mod drive;
pub mod echo;
pub mod process;
pub mod programs;
pub mod report;
pub mod schedule;
pub mod travelers;
