//! Integration tests: the real gateway and real nodes in one process, over real mutual TLS. Every outcome, every reason.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod access;
mod assignment;
mod cache;
mod conformance;
mod connections;
mod consents;
mod evidence;
mod examples;
mod federation;
mod follow;
mod identity;
mod last_known;
mod load;
mod outcomes;
mod policy;
mod precedence;
mod privacy;
mod reasons;
mod record;
mod refusals;
mod renewal;
mod requests;
mod revocation;
mod sandbox;
mod service;
mod status;
mod streams;
mod suspension;
mod telemetry;
mod unreachable;
mod unsubstantiated;
mod uses;
