//! Every log line of this process, at the level that logs most: what the gateway and the nodes tell whoever reads their
//! logs, and what they must never tell (I6).

use std::{
    io,
    sync::{LazyLock, Mutex, OnceLock},
    time::Duration,
};

use tokio::{sync::watch, time::timeout};
use tracing_subscriber::fmt::MakeWriter;

static LINES: LazyLock<(Mutex<Vec<u8>>, watch::Sender<()>)> =
    LazyLock::new(|| (Mutex::default(), watch::channel(()).0));

struct Capture;

impl io::Write for Capture {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LINES.0.lock().unwrap().extend(bytes);
        LINES.1.send_replace(());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Capture {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}

/// Starts capturing; once is enough.
pub(crate) fn start() {
    static STARTED: OnceLock<()> = OnceLock::new();
    STARTED.get_or_init(|| {
        let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false);
        let subscriber = subscriber.with_writer(Capture).finish();
        tracing::subscriber::set_global_default(subscriber).expect("nobody else captures");
    });
}

/// All that was logged so far.
pub(crate) fn all() -> Vec<u8> {
    LINES.0.lock().unwrap().clone()
}

/// Where the log stands.
pub(crate) fn mark() -> usize {
    LINES.0.lock().unwrap().len()
}

/// Waits for a line behind a mark that has all of these in it.
pub(crate) async fn line_after(mut from: usize, parts: &[&str]) -> String {
    let mut logged = LINES.1.subscribe();
    let found = timeout(Duration::from_secs(10), async {
        loop {
            logged.borrow_and_update();
            if let Some(line) = find(&mut from, parts) {
                return line;
            }
            logged.changed().await.expect("the sender is static");
        }
    });
    found.await.unwrap_or_else(|_| panic!("no log line has all of {parts:?}"))
}

/// Looks through whole lines from `from` on and moves it past them.
fn find(from: &mut usize, parts: &[&str]) -> Option<String> {
    let log = LINES.0.lock().unwrap();
    let new = &log[*from..];
    let whole = new.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    *from += whole;
    let text = String::from_utf8_lossy(&new[..whole]);
    text.lines().find(|line| parts.iter().all(|part| line.contains(part))).map(str::to_owned)
}
