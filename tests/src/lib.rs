//! Whatever needs both sides: tools beside the tests.

pub mod load;
