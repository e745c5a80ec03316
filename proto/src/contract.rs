//! The generated contract. Nothing here is written by hand; generated messages never travel past a `service` module.
#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]

include!(concat!(env!("OUT_DIR"), "/contract.rs"));

/// All of the contract's files with their imports and comments, for gRPC reflection and for `-protoset`.
pub const DESCRIPTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));

pub use tongxing::access::v1 as access;
pub use tongxing::assignment::v1 as assignment;
pub use tongxing::error::v1 as error;
pub use tongxing::evidence::v1 as evidence;
pub use tongxing::federation::v1 as federation;
pub use tongxing::province::v1 as province;
pub use tongxing::recognition::v1 as recognition;
pub use tongxing::traveler::v1 as traveler;
pub use tongxing::types::v1 as types;
