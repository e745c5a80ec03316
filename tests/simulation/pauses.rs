//! A gateway's machine that stops the program between two steps, as a signal or a hypervisor does.

use std::{future::Future, pin::Pin};

use peer::surroundings::{Pausing, Point};
use tokio::time::sleep;

use crate::{clock::now, history::At};

/// Whoever comes to the point while it lasts goes on when it ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pause {
    /// Where.
    pub(crate) point: Point,
    /// From when.
    pub(crate) from: At,
    /// Until when.
    pub(crate) until: At,
}

/// All pauses of one gateway.
#[derive(Debug)]
pub(crate) struct Paused(pub(crate) Vec<Pause>);

impl Pausing for Paused {
    fn at(&self, point: Point) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let now = now();
        let pause = self.0.iter().find(|pause| pause.point == point && (pause.from..pause.until).contains(&now));
        let rest = pause.map(|pause| pause.until - now);
        Box::pin(async move {
            if let Some(rest) = rest {
                sleep(rest).await;
            }
        })
    }
}
