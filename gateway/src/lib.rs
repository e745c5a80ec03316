//! The national gateway: routes recognition queries to the home province and never learns who anyone is.
//!
//! A request's way, top to bottom:
//!
//! ```text
//! peer::edge       telemetry → rescue → identity → admission → deadline
//! service            one call, or a stream of them
//! call                 decode and parse: protobuf → query
//! exchange             consent       token signature, proof, time, audience, purpose
//!                      policy        venue's category × purpose → granted scope
//!                      redemption    a proof is redeemed by one venue
//!                      home          what it said before and still holds, what others are asking it, or itself
//!                      recognition   label → level, rule admissible? outcome, decision
//!                      record        durable, then the answer leaves
//! deliver            each record to its home member, later and in order
//! ```
//!
//! `home` is one member: a `cache` under a lease that `follow` keeps by the member's change stream, single flights, and
//! the client of its nodes, which `route` finds by the token's issuer; all of that lives on a `runtime` of its own.
//! `stream` runs many such exchanges for one caller. `federation` publishes the signed documents and the `board` of
//! members; `unsubstantiated` counts, by authority, assignments that the policy does not admit. `status` says on the
//! private listener how all of it is. `pki` and `documents` are the commands that make certificates, the trust list and
//! the policy.

pub mod audit;
pub mod ceremony;
pub mod config;
pub mod documents;
pub mod membership;
pub mod pki;
pub mod record;
pub mod server;
pub mod status;

mod board;
mod cache;
mod call;
mod consent;
mod deliver;
mod exchange;
mod federation;
mod follow;
mod home;
mod member;
mod metrics;
mod query;
mod recognition;
mod redemption;
mod resilience;
mod route;
mod runtime;
mod service;
mod stream;
mod unsubstantiated;
