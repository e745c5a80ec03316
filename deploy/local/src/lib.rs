//! The one-machine federation: the national gateway and every member as a real node, with real certificates, real stores
//! and people in them. What `cargo run` starts, and what the integration tests stand on.
//!
//! ```text
//! options       what is asked for: directory, members, people, replicas, policy
//! layout        where everything is under the state directory
//! venues        the checkpoints of this federation
//! addresses     who listens where; a taken port is replaced
//! external      nodes that are somebody else's
//! prepare       keys, certificates, trust list, policy, configuration: made once, renewed at every start
//! desk          every party of it, to be played
//! federation    all of it running in one process, each part to be stopped by itself
//! phone         a traveler's phone and its backend: enrol, consent, prove
//! checkpoint    a venue: show it a presentation, get an answer
//! receipt       that an answer is on record, verified
//! load          thousands of presentations, kept fresh in a file
//! commands/     up, init, demo, recognize, present
//! ```

pub mod addresses;
pub mod checkpoint;
pub mod clock;
pub mod commands;
pub mod desk;
pub mod external;
pub mod federation;
pub mod layout;
pub mod load;
pub mod options;
mod output;
pub mod phone;
pub mod prepare;
pub mod qr;
pub mod receipt;
pub mod venues;
