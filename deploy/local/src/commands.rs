//! The commands of `tongxing`, a file each.

pub mod demo;
pub mod init;
pub mod present;
pub mod recognize;
pub mod up;

mod traveler;
