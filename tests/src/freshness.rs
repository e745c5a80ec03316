//! How fresh what venues see is, with real processes: how soon a flip is seen, what is said while streams are cut and
//! programs stand still, and what one cold or hung traveler costs. Each measurement holds a promise (I4, I7) and says so
//! when it is broken.
//!
//! ```text
//! flips        green to red and back: until every replica gives the new level
//! stops        streams cut and programs stopped: no old answer a second after home's acknowledgement
//! cold         thousands ask for one traveler at once: home is asked once
//! hung         a lookup that hangs holds up nobody else
//! idle         the processor time of a whole federation that nobody asks anything
//! site         a federation of programs, its homes, and venues that ask
//! home         a member's home: it enrols travelers and turns their codes
//! ask          a venue at one replica, and what it was told
//! background   recognitions at a rate meanwhile
//! forwarder    connections that can be held and cut
//! figures      medians, tails, and what is said at the end
//! ```

pub mod ask;
pub mod background;
pub mod cold;
pub mod figures;
pub mod flips;
pub mod forwarder;
pub mod home;
pub mod hung;
pub mod idle;
pub mod site;
pub mod stops;
