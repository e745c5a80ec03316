//! Logging for `main`s: one line an event on standard error, `RUST_LOG` or `info`.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts logging. `default` applies where `RUST_LOG` is not set, e.g. `info` or `warn`.
pub fn start(default: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    // A second start (in tests) changes nothing.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(true)
        .try_init();
}
