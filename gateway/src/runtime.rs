//! Where homes are followed and asked: on a runtime of their own, beside that of the exchanges.
//!
//! Upholds I7 under a rush: thousands of exchanges that wait for the processor would otherwise come before the one echo that
//! keeps a lease, and before the one answer that all of them wait for.

use std::io;

use peer::surroundings::Blocking;
use tokio::runtime::{Builder, Handle, Runtime};

/// Threads for the streams and lookups of all members: they wait for others most of the time.
const THREADS: usize = 1;

/// The homes' runtime. It ends with this.
#[derive(Debug)]
pub(crate) struct HomeRuntime {
    handle: Handle,
    own: Option<Runtime>,
}

impl HomeRuntime {
    /// Starts it; where everything has one order, it is the one that calls.
    pub(crate) fn start(blocking: Blocking) -> io::Result<Self> {
        let own = match blocking {
            Blocking::Threads => {
                let threads =
                    Builder::new_multi_thread().worker_threads(THREADS).thread_name("home").enable_all().build();
                Some(threads?)
            }
            Blocking::Inline => None,
        };
        let handle = own.as_ref().map_or_else(Handle::current, |runtime| runtime.handle().clone());
        Ok(Self { handle, own })
    }

    /// The way to it.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for HomeRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.own.take() {
            // Nobody waits for what hangs.
            runtime.shutdown_background();
        }
    }
}
