//! What the binary can be asked to do besides serving, a file a command.

pub(crate) mod access;
pub(crate) mod import;
pub(crate) mod keys;
