//! A member's node: people, devices, codes and consents behind one standard lookup.
//!
//! A lookup's way, top to bottom:
//!
//! ```text
//! peer::edge       telemetry → rescue → identity → admission → deadline
//! service            decode and parse: protobuf → query
//! lookup               token, proof, venue, purpose, scope: all that the gateway checked is checked again
//!                      store         consent, person, code, evidence and the change log's head, in one snapshot
//!                      statement     what the consent grants and nothing else, signed
//! ```
//!
//! What else a node does, each in a file of its own:
//!
//! - [`enrollment`] binds a device's key to a person; [`issuance`] turns what that device signed into a consent token;
//!   [`standing`] issues tokens in bulk for the member's own tools.
//! - [`assignment`] sets a code by hand, and with it the events of the change log; [`rules`] work codes out of [`evidence`].
//! - [`accesses`] takes in what the gateway recorded, and shows each traveler who asked for them; [`deletion`] forgets a
//!   traveler.
//! - [`store`] is what all of it remembers: a trait, its types, and SQLite behind them. [`request`] makes writes
//!   idempotent.
//! - [`document`] and [`keys`] are identity documents and secrets: parsed once, shown never. [`vault`] is what seals the
//!   former before they are stored.
//! - [`seed`] makes people who are nobody.
//! - [`home`] is what every operation works with, [`config`] and [`server`] put it on the wire.
//!
//! Nothing in this crate logs a person, a handle or a token, nor carries one in an error or a metric (I6).

#[macro_use]
mod redacted;

pub mod accesses;
pub mod assessment;
pub mod assignment;
pub mod config;
pub mod consents;
pub mod deletion;
pub mod document;
pub mod enrollment;
pub mod evidence;
pub mod explanation;
pub mod feed;
pub mod home;
pub mod intake;
pub mod issuance;
pub mod keys;
pub mod lookup;
pub mod push;
pub mod reassessment;
pub mod request;
pub mod rules;
pub mod seed;
pub mod server;
pub mod standing;
pub mod store;
pub mod vault;
pub mod watch;

mod metrics;
mod service;
#[cfg(test)]
mod test_support;
