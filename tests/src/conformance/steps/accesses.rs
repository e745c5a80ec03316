//! Steps about access records: delivered as a gateway delivers them, listed for the traveler; and the traveler's end.

use serde::Deserialize;

use super::{Party, Refused, TRAVELER};

/// `RecordAccesses`, with records of the kit's own log. Where it begins and ends is counted from what the node holds.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Deliver {
    /// Who calls.
    pub r#as: Party,
    /// How many records of nobody's consents the log gets before.
    pub new: usize,
    /// The log gets records of these slots' tokens before, each ended in another way than the one before it.
    pub of: Vec<String>,
    /// Before these it gets one more if it had an odd number of records.
    pub even: bool,
    /// The new records are this many random bytes, which are no record.
    pub record_bytes: Option<usize>,
    /// The new records are as long as records are.
    pub long: bool,
    /// Where the batch begins: −1 is the last record held, 1 leaves one out.
    pub from: i64,
    /// How many records are sent; all from there on unless said.
    pub count: Option<usize>,
    /// From this record on the log is another one: one that a gateway might have made up.
    pub fork: Option<i64>,
    /// The checkpoint.
    pub checkpoint: Note,
    /// Whether a bit of its signature is another.
    pub flipped: bool,
    /// The consistency proof.
    pub proof: Path,
    /// The tree over what was before the records.
    pub frontier: Before,
    /// So many bytes for the log's id.
    pub log_bytes: Option<usize>,
    /// So many records of so many bytes each instead of the log's own.
    pub instead: Option<[usize; 2]>,
    /// It is a conflict, from this record on.
    pub conflict: Option<i64>,
    /// It is refused.
    pub refused: Option<Refused>,
}

/// Which checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Note {
    /// The log's head.
    #[default]
    Head,
    /// That, with somebody else's signature beside the log's own.
    Witnessed,
    /// None.
    Missing,
    /// Words that are no note.
    Noise,
    /// One of 1,025 bytes.
    Oversize,
    /// A log of another federation.
    OtherFederation,
    /// The log of another member's records.
    OtherMember,
    /// A gateway's log of its own.
    Gateways,
    /// Another log, of a key that nobody knows.
    OtherLog,
    /// That other log, which is the one the request speaks of.
    UnknownKey,
    /// The right log, signed by a key that nobody knows.
    ByStranger,
    /// Another size than was signed.
    Changed,
    /// One record less than the end of those that are sent.
    BelowEnd,
    /// 2^63 records, which nothing counts to.
    Endless,
}

/// Which consistency proof.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Path {
    /// The log's own.
    #[default]
    Own,
    /// That, with a bit of it another.
    Flipped,
    /// None.
    Missing,
    /// That, with a hash behind it.
    Extended,
    /// A hash of 31 bytes.
    ShortHash,
    /// 64 hashes.
    TooLong,
}

/// Which frontier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Before {
    /// None: there is no gap that nobody can fill.
    #[default]
    Untold,
    /// The log's own.
    Own,
    /// That, with a bit of its last hash another.
    Flipped,
    /// That, with a hash behind it.
    Extended,
    /// Its first hash alone, or two where it has one.
    OtherNumber,
    /// That, with a last hash of 31 bytes.
    ShortHash,
}

/// `ListAccesses`. On all pages together there is what the case delivered of the person's tokens, and nothing else.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ListAccesses {
    /// Who calls.
    pub r#as: Party,
    /// Whose.
    pub person: String,
    /// The device: 16 bytes of the person's, or as many random ones as this.
    pub device_bytes: Option<usize>,
    /// Accesses on a page.
    pub page_size: i32,
    /// A page token that was never given out.
    pub page_token: Option<String>,
    /// How many there are on all pages together.
    pub count: Option<usize>,
    /// There are none any more, whatever the case delivered.
    pub forgotten: bool,
    /// It is refused.
    pub refused: Option<Refused>,
}

/// `DeleteTraveler`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Delete {
    /// Who calls.
    pub r#as: Party,
    /// By whose device.
    pub person: String,
    /// The device: 16 bytes of the person's, or as many random ones as this.
    pub device_bytes: Option<usize>,
    /// How many consents it revokes.
    pub revoked: Option<u32>,
    /// By how much its change token moved since that of the case's last write.
    pub moved: Option<u64>,
    /// It is refused.
    pub refused: Option<Refused>,
}

impl Default for Deliver {
    fn default() -> Self {
        Self {
            r#as: Party::Gateway,
            new: 0,
            of: Vec::new(),
            even: false,
            record_bytes: None,
            long: false,
            from: 0,
            count: None,
            fork: None,
            checkpoint: Note::Head,
            flipped: false,
            proof: Path::Own,
            frontier: Before::Untold,
            log_bytes: None,
            instead: None,
            conflict: None,
            refused: None,
        }
    }
}

impl Default for ListAccesses {
    fn default() -> Self {
        Self {
            r#as: Party::Backend,
            person: TRAVELER.into(),
            device_bytes: None,
            page_size: 0,
            page_token: None,
            count: None,
            forgotten: false,
            refused: None,
        }
    }
}

impl Default for Delete {
    fn default() -> Self {
        Self {
            r#as: Party::Backend,
            person: TRAVELER.into(),
            device_bytes: None,
            revoked: None,
            moved: None,
            refused: None,
        }
    }
}
