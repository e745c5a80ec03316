//! Home's receipt as it is kept: with the key that it verifies by, since the trust list may have another one by the time that
//! somebody looks.

use proto::suite::{Suite, VerifyingKey};

/// A receipt and its key.
#[derive(Clone, Debug)]
pub(crate) struct KeptReceipt {
    /// The member's statement key that signed it.
    pub(crate) key: VerifyingKey,
    /// The receipt.
    pub(crate) receipt: Vec<u8>,
}

impl KeptReceipt {
    /// Key and receipt, one behind the other.
    pub(super) fn encode(&self) -> Vec<u8> {
        [self.key.encoded(), &self.receipt].concat()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (key, receipt) = bytes.split_at_checked(Suite::Ed25519.public_key_len())?;
        Some(Self { key: VerifyingKey::new(Suite::Ed25519, key).ok()?, receipt: receipt.to_vec() })
    }
}
