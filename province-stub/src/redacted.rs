//! Debug for what no log may show: people, handles, tokens (I6).

/// Shows a type's name and nothing of what it holds.
macro_rules! redacted {
    ($($name:ident $(<$life:lifetime>)?),* $(,)?) => {$(
        impl std::fmt::Debug for $name$(<$life>)? {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    )*};
}
