//! What every operation of a node works with: which member it is, what it remembers, what it signs with, and its dice.

use std::sync::Arc;

use proto::{member::Member, random::Random};

use crate::keys::Keys;

/// A member's node without its wires. Time and trust are handed to each operation: they change from call to call.
#[derive(Debug)]
pub struct Home<S> {
    /// The member whose travelers it answers for.
    pub member: Member,
    /// What it remembers.
    pub store: S,
    /// What it signs with.
    pub keys: Keys,
    /// Where handles, ids and nonces come from.
    pub random: Arc<dyn Random>,
}
