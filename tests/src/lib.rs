//! Whatever needs both sides: tools beside the tests.
//!
//! ```text
//! conformance   cases from files against anybody's node, and a report
//! certificates  certificates that nobody should believe
//! evidence      what evidence costs, and whether what was acknowledged stays
//! forge         signed objects made by hand
//! freshness     how soon a change is seen, and what is said while programs stand still
//! load          presentations at a rate, and what it costs to recognise them
//! records       what is on record after programs were killed, and while a member is away
//! wire          connections and messages that no client of ours would make
//! ```

pub mod certificates;
pub mod conformance;
pub mod evidence;
pub mod forge;
pub mod freshness;
pub mod load;
pub mod records;
pub mod wire;
