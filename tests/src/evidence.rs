//! What evidence costs: results by the million into a node, on either store; what a node with as many people answers; and whether
//! what was acknowledged is there when a database was killed meanwhile.
//!
//! ```text
//! file      a CSV file of results, about people who are nobody
//! site      a node of its own, on SQLite or on a PostgreSQL server of its own
//! import    the file into the node: rows a second, memory, bytes on disk
//! lookups   what the node answers then, and what that costs
//! postgres  such a server
//! kill      the database server is killed while results come in
//! ```

pub mod file;
pub mod import;
pub mod kill;
pub mod lookups;
pub mod postgres;
pub mod site;
