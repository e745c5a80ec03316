//! Standard output that may be closed early (`… | head`): what was asked is done all the same, unsaid.

/// Prints a line; a reader that has gone away is no error.
#[macro_export]
macro_rules! say {
    ($($argument:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($argument)*);
    }};
}
