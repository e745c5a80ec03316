//! A home member's signed receipt for what it holds of a log. `delivery-receipt.cddl`.

use super::{LogId, merkle::Hash};
use crate::{
    cbor::{Fields, MapBuilder},
    cose::{self, Unverified},
    member::Member,
    refusal::{Object, Reason, Refusal},
    suite::{SigningKey, VerifyingKey},
    time::{CLOCK_LEEWAY, UnixTime},
    trust::TrustList,
};

const OBJECT: Object = Object::DeliveryReceipt;

const ISS: i64 = 1;
const LOG: i64 = 2;
const SIZE: i64 = 3;
const ROOT: i64 = 4;
const IAT: i64 = 6;

/// What a member holds of one log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryReceipt {
    /// The member.
    pub issuer: Member,
    /// The log's id.
    pub log: LogId,
    /// How many of its records.
    pub size: u64,
    /// The root of their tree.
    pub root: Hash,
    /// When it said so.
    pub issued_at: UnixTime,
}

impl DeliveryReceipt {
    /// Signs it with the member's statement key.
    pub fn sign(&self, key: &SigningKey) -> Vec<u8> {
        let payload = MapBuilder::new()
            .put(ISS, self.issuer.to_string())
            .put(LOG, self.log.0.to_vec())
            .put(SIZE, self.size)
            .put(ROOT, self.root.to_vec())
            .put(IAT, self.issued_at.as_secs())
            .encode();
        cose::sign(OBJECT, key, key.verifying_key().kid(), payload, b"")
    }

    /// Reads a receipt and verifies it by the trust list: of this member, and not from the future.
    pub fn open(bytes: &[u8], member: Member, list: &TrustList, now: UnixTime) -> Result<Self, Refusal> {
        Ok(Self::open_with_key(bytes, member, list, now)?.0)
    }

    /// The same, and which of the member's keys it is by.
    pub fn open_with_key<'l>(
        bytes: &[u8],
        member: Member,
        list: &'l TrustList,
        now: UnixTime,
    ) -> Result<(Self, &'l VerifyingKey), Refusal> {
        let (object, receipt) = Self::parse(bytes, member)?;
        let key = list.receipt_key(member, object.kid())?;
        receipt.verify(&object, key, now)?;
        Ok((receipt, key))
    }

    /// Reads a receipt of a member and verifies it by one key.
    pub fn open_by(bytes: &[u8], member: Member, key: &VerifyingKey, now: UnixTime) -> Result<Self, Refusal> {
        let (object, receipt) = Self::parse(bytes, member)?;
        if object.kid() != key.kid() {
            return Err(Refusal::of(OBJECT, Reason::KeyUnknown));
        }
        receipt.verify(&object, key, now)?;
        Ok(receipt)
    }

    fn verify(&self, object: &Unverified, key: &VerifyingKey, now: UnixTime) -> Result<(), Refusal> {
        object.verify(key, b"")?;
        if self.issued_at > now.plus(CLOCK_LEEWAY) {
            return Err(Refusal::of(OBJECT, Reason::NotYetValid).with("seconds", self.issued_at.since(now)));
        }
        Ok(())
    }

    fn parse(bytes: &[u8], member: Member) -> Result<(Unverified, Self), Refusal> {
        let object = Unverified::parse(OBJECT, bytes)?;
        let mut claims = Fields::open(OBJECT, object.payload()?)?;
        let issuer = claims.text(ISS, 2)?.parse().map_err(|_| Refusal::of(OBJECT, Reason::MemberUnknown))?;
        let log = LogId(claims.bytes(LOG)?);
        let (size, root, issued_at) = (claims.uint(SIZE)?, claims.bytes(ROOT)?, claims.time(IAT)?);
        claims.finish()?;
        if issuer != member {
            return Err(Refusal::malformed(OBJECT, "it is another member's"));
        }
        Ok((object, Self { issuer, log, size, root, issued_at }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        envelope::Roots,
        suite::Suite,
        trust::{self, GatewayTrust, MemberTrust},
    };
    use std::{
        collections::{BTreeMap, BTreeSet},
        time::Duration,
    };

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    #[test]
    fn a_receipt_is_its_members_own_and_of_no_later_time() {
        let key = SigningKey::generate(Suite::Ed25519);
        let root = SigningKey::generate(Suite::Ed25519).verifying_key().clone();
        let (member, other): (Member, Member) = ("44".parse().unwrap(), "51".parse().unwrap());
        let trust = |keys| MemberTrust {
            bundle: vec![vec![1]],
            endpoints: vec![],
            consent_keys: trust::keys([]),
            statement_keys: trust::keys(keys),
            sealing_key: [0; 32],
            categories: BTreeSet::new(),
            suspension: None,
        };
        let list = TrustList {
            domain: "tongxing.test".parse().unwrap(),
            roots: Roots::new(1, vec![root]).unwrap(),
            gateway: GatewayTrust { bundle: vec![vec![1]], log_keys: trust::keys([]) },
            members: BTreeMap::from([
                (member, trust(vec![key.verifying_key().clone()])),
                (other, trust(vec![SigningKey::generate(Suite::Ed25519).verifying_key().clone()])),
            ]),
        };
        let receipt = DeliveryReceipt { issuer: member, log: LogId([1; 32]), size: 9, root: [2; 32], issued_at: NOW };
        let bytes = receipt.sign(&key);
        assert_eq!(DeliveryReceipt::open(&bytes, member, &list, NOW), Ok(receipt));
        assert_eq!(DeliveryReceipt::open_by(&bytes, member, key.verifying_key(), NOW), Ok(receipt));
        let refused = |bytes: &[u8], of, now| DeliveryReceipt::open(bytes, of, &list, now).unwrap_err().reason();
        assert_eq!(refused(&bytes, other, NOW), Reason::ObjectMalformed);
        assert_eq!(refused(&bytes, member, NOW.minus(Duration::from_secs(31))), Reason::NotYetValid);
        let stolen = DeliveryReceipt { issuer: other, ..receipt }.sign(&key);
        assert_eq!(refused(&stolen, other, NOW), Reason::KeyUnknown);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(DeliveryReceipt::open(&flipped, member, &list, NOW).is_err(), "bit {bit}");
        }
    }
}
