//! Runtimes beside that of the exchanges: one on which homes are followed and asked, one on which records are delivered.
//!
//! Upholds I7 under a rush: thousands of exchanges that wait for the processor would otherwise come before the one echo that
//! keeps a lease, and before the one answer that all of them wait for; and a backlog of records before both.

use std::io;

use peer::surroundings::Blocking;
use tokio::runtime::{Builder, Handle, Runtime};

/// Threads of each: what is done there waits for others most of the time.
const THREADS: usize = 1;

/// A runtime of its own. It ends with this.
#[derive(Debug)]
pub(crate) struct OwnRuntime {
    handle: Handle,
    own: Option<Runtime>,
}

impl OwnRuntime {
    /// Starts it; where everything has one order, it is the one that calls.
    pub(crate) fn start(name: &'static str, blocking: Blocking) -> io::Result<Self> {
        let own = match blocking {
            Blocking::Threads => {
                let threads =
                    Builder::new_multi_thread().worker_threads(THREADS).thread_name(name).enable_all().build();
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

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.own.take() {
            // Nobody waits for what hangs.
            runtime.shutdown_background();
        }
    }
}
