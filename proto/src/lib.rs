//! The Tongxing protocol: everything the gateway and a member's node must agree on, and no I/O.
//!
//! Read in the order a recognition meets it:
//!
//! 1. [`contract`] is what travels by gRPC, generated from `tongxing/**/*.proto`.
//! 2. [`member`], [`venue`], [`identity`] and [`terms`] are the names of things: parsed once, valid from then on.
//! 3. [`token`], [`proof`] and [`presentation`] are what a traveler shows; [`consent_request`] is how a phone asks for it,
//!    and [`consent`] is whether it covers one use.
//! 4. [`statement`] and [`hint`] are what the home member answers.
//! 5. [`trust`] and [`policy`] are what makes any of it believable, in one kind of [`envelope`].
//! 6. [`log`] is how it is proven that an answer is on record, and who sees it.
//! 7. [`refusal`] is how a call is refused: one documented reason, one gRPC code each.
//!
//! Under these lie [`cbor`] (the strict profile), [`cose`] (one signed object), [`suite`] (the algorithms, in one place),
//! [`random`] and [`time`] (passed in, so that a simulation can own them). `*.cddl` beside this crate is the normative
//! layout of all signed objects.

pub mod authority;
pub mod cbor;
pub mod consent;
pub mod consent_request;
pub mod contract;
pub mod cose;
pub mod envelope;
pub mod hint;
pub mod identity;
pub mod lives;
pub mod log;
pub mod member;
pub mod policy;
pub mod presentation;
pub mod proof;
pub mod random;
pub mod refusal;
pub mod statement;
pub mod suite;
pub mod terms;
pub mod time;
pub mod token;
pub mod trust;
pub mod venue;
