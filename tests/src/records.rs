//! Whether what was answered is on record, with real processes: what is at homes after the gateway was killed again and
//! again, and what becomes of the records of a member that is away. Each measurement holds a promise (I2, I7) and says so
//! when it is broken.
//!
//! ```text
//! kill       the gateway killed at random moments under load: no acknowledged answer is lost or there twice
//! away       a member's node that is away for long: what waits for it, and how it comes home
//! flood      forged tokens as fast as they are refused
//! callers    venues that ask without end, and note every answer they have in hand
//! check      what they noted and what homes hold, compared
//! site       a federation of programs that are started again, and what is on their disks
//! ```

pub mod away;
pub mod callers;
pub mod check;
pub mod flood;
pub mod kill;
pub mod site;
