//! Fuzz targets for what strangers send. `tests/fuzz` builds and runs them; `proto/tests/fuzz.rs` replays their inputs
//! without a fuzzer.

pub mod targets;
pub mod vectors;
