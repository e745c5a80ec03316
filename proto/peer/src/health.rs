//! What a program says of itself while it runs: that it cannot answer for now.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Says that a program cannot answer for now, although it runs: its health and readiness follow.
#[derive(Clone, Debug, Default)]
pub struct Impaired(Arc<AtomicBool>);

impl Impaired {
    /// Sets it.
    pub fn set(&self, impaired: bool) {
        self.0.store(impaired, Ordering::Relaxed);
    }

    /// Whether it is.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
