//! What every program of the federation needs to be a peer of the others: the gateway and the nodes alike.
//!
//! In the order a connection meets it:
//!
//! ```text
//! surroundings  what a program takes from its machine: time, randomness, the network
//! trust         the trust list and the policy it holds, checked, reloaded, failing closed
//! follow        newer editions of both, as a gateway tells of them
//! credentials   its own certificate and key, reloaded
//! verifier      the peer's certificate: SPIFFE id → that trust domain's bundle → delegate
//! accept        the accept loop: handshakes in tasks of their own, connections closed when trust ends
//! edge          the stack of every server: telemetry → rescue → identity → admission → deadline
//! limits        the bounds that every server has
//! health        that a program cannot answer for now
//! access        which roles may call what
//! serve         one server: gRPC with health and reflection, and a private listener for metrics
//! files         what is its owner's alone
//! dial          calls to a peer whose identity is known beforehand
//! trace         the trace that a call belongs to
//! telemetry     a program's log, its traces and metrics, and the way to a collector (otlp)
//! ```
//!
//! It is beside the protocol, not in it: [`proto`] has no I/O.

pub mod accept;
pub mod access;
pub mod admission;
pub mod config;
pub mod credentials;
pub mod dial;
pub mod edge;
pub mod files;
mod follow;
pub mod health;
pub mod limits;
pub mod metrics;
pub mod network;
mod otlp;
pub mod private;
pub mod revocation;
pub mod serve;
pub mod surroundings;
pub mod telemetry;
pub mod trace;
pub mod trust;
pub mod verifier;

pub use access::{Caller, caller};
