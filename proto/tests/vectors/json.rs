//! The shape of `proto/vectors/*.json`: see proto/vectors/README.md, which documents every field.

use std::{collections::BTreeMap, fs, path::PathBuf};

use proto::refusal::{Object, Reason, reason_name};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value as Json;

/// The names of the files, in the order in which a recognition meets what they hold.
pub(crate) const FILES: [&str; 13] = [
    "trust-list",
    "policy",
    "consent-request",
    "consent-token",
    "proof",
    "presentation",
    "statement",
    "hint",
    "merkle",
    "access-record",
    "access-receipt",
    "checkpoint",
    "delivery-receipt",
];

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    pub(crate) kind: String,
    pub(crate) layout: String,
    pub(crate) about: String,
    pub(crate) test_keys: BTreeMap<String, TestKey>,
    pub(crate) vectors: Vec<Vector>,
}

/// A key that is public knowledge, its private half included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TestKey {
    pub(crate) alg: i64,
    pub(crate) private: Hex,
    pub(crate) public: Hex,
    pub(crate) kid: Hex,
}

/// One object and its verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Vector {
    pub(crate) id: String,
    pub(crate) what: String,
    pub(crate) operation: Operation,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) signed_by: Vec<String>,
    pub(crate) now: u64,
    pub(crate) context: Context,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) claims: Option<Json>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bytes: Option<Hex>,
    /// How often `bytes` stands there: what is too large is not written out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) repeat: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parts: Option<Parts>,
    pub(crate) verdict: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) object: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) result: Option<Json>,
    /// Malformed, though its CDDL takes it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) beyond_layout: bool,
}

/// What is done with the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Operation {
    OpenTrustList,
    OpenPolicy,
    VerifyRequest,
    VerifyToken,
    UseConsent,
    VerifyProof,
    ReadPresentation,
    VerifyStatement,
    OpenHint,
    MerkleRoot,
    VerifyInclusion,
    VerifyConsistency,
    ReadRecord,
    ReadRefusalRecord,
    VerifyAccessReceipt,
    OpenCheckpoint,
    OpenDeliveryReceipt,
}

impl Operation {
    /// The kind of object it is done to; a hint and a proof in a tree are none that a refusal could speak of.
    pub(crate) const fn object(self) -> Option<Object> {
        match self {
            Self::OpenTrustList => Some(Object::TrustList),
            Self::OpenPolicy => Some(Object::Policy),
            Self::VerifyRequest => Some(Object::ConsentRequest),
            Self::VerifyToken | Self::UseConsent => Some(Object::Token),
            Self::VerifyProof => Some(Object::Proof),
            Self::ReadPresentation => Some(Object::Presentation),
            Self::VerifyStatement => Some(Object::Statement),
            Self::OpenHint | Self::MerkleRoot | Self::VerifyInclusion | Self::VerifyConsistency => None,
            Self::ReadRecord | Self::ReadRefusalRecord => Some(Object::AccessRecord),
            Self::VerifyAccessReceipt => Some(Object::AccessReceipt),
            Self::OpenCheckpoint => Some(Object::Checkpoint),
            Self::OpenDeliveryReceipt => Some(Object::DeliveryReceipt),
        }
    }
}

/// What the verifier knows beside the object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Context {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trust_list: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) roots: Option<RootKeys>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) held: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) enrollment_key: Option<Hex>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<Hex>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) proof: Option<Hex>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) venue: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) purpose: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) wanted_scope: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) granted_scope: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node_secret: Option<Hex>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cti: Option<Hex>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) k: Option<Hex>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) nonce: Option<Hex>,
    /// Who was asked for a delivery receipt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) member: Option<String>,
    /// What a leaf of a tree is the hash of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) leaf: Option<Hex>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) index: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) size: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) root: Option<Hex>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) old_size: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) old_root: Option<Hex>,
}

/// The roots a verifier has, and how many must sign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RootKeys {
    pub(crate) threshold: usize,
    pub(crate) keys: Vec<Hex>,
}

/// The steps between claims and bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parts {
    pub(crate) protected: Hex,
    pub(crate) payload: Hex,
    pub(crate) external_aad: Hex,
    pub(crate) signatures: Vec<Signature>,
}

/// One signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Signature {
    /// In a COSE_Sign each signature has a header of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) protected: Option<Hex>,
    pub(crate) sig_structure: Hex,
    pub(crate) signature: Hex,
}

/// Bytes, as lower-case hexadecimal digits in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct Hex(pub(crate) Vec<u8>);

impl From<Hex> for String {
    fn from(hex: Hex) -> Self {
        hex.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl TryFrom<String> for Hex {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digits = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !digits || !text.len().is_multiple_of(2) {
            return Err(format!("not hexadecimal: {text}"));
        }
        let pairs = (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16));
        pairs.collect::<Result<_, _>>().map(Self).map_err(|error| error.to_string())
    }
}

impl From<&[u8]> for Hex {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

/// As JSON has bytes.
pub(crate) fn hex(bytes: &[u8]) -> String {
    Hex::from(bytes).into()
}

/// What passes.
pub(crate) const VALID: &str = "valid";

/// What a hint that does not open comes to: nobody refuses a call for it, so it has no reason of ErrorReason.
pub(crate) const HINT_DOES_NOT_OPEN: &str = "HINT_DOES_NOT_OPEN";

/// What a path or a proof in a tree comes to that does not show what it should: no reason of ErrorReason either, the
/// object that it is a part of has one.
pub(crate) const NOT_PROVEN: &str = "NOT_PROVEN";

impl Vector {
    /// A valid one.
    pub(crate) fn valid(operation: Operation, id: String, what: &str, now: u64, context: Context) -> Self {
        Self {
            id,
            what: what.to_owned(),
            operation,
            signed_by: Vec::new(),
            now,
            context,
            claims: None,
            text: None,
            bytes: None,
            repeat: None,
            parts: None,
            verdict: VALID.to_owned(),
            object: None,
            result: None,
            beyond_layout: false,
        }
    }

    /// Another verdict, of the operation's own object.
    #[must_use]
    pub(crate) fn refused(self, reason: Reason) -> Self {
        let object = self.operation.object();
        self.refused_for(reason, object)
    }

    /// Another verdict.
    #[must_use]
    pub(crate) fn refused_for(self, reason: Reason, object: Option<Object>) -> Self {
        let object = object.map(|object| object.word().to_owned());
        Self { verdict: reason_name(reason).to_owned(), object, ..self }
    }

    /// The bytes that are verified.
    pub(crate) fn object_bytes(&self) -> Vec<u8> {
        self.bytes.as_ref().map_or_else(Vec::new, |bytes| bytes.0.repeat(self.repeat.unwrap_or(1)))
    }
}

/// Where the files are.
pub(crate) fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors").join(format!("{name}.json"))
}

/// A committed file; `None` before it was written the first time.
pub(crate) fn committed(name: &str) -> Option<File> {
    path(name).exists().then(|| read(&path(name)))
}

/// All committed files.
pub(crate) fn all() -> Vec<File> {
    FILES.iter().map(|name| committed(name).unwrap_or_else(|| panic!("{name}.json is not there"))).collect()
}

/// Reads JSON.
pub(crate) fn read<T: DeserializeOwned>(path: &PathBuf) -> T {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The text of a file.
pub(crate) fn print(file: &File) -> String {
    serde_json::to_string_pretty(file).unwrap() + "\n"
}
