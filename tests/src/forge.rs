//! Signed objects made by hand: what proto's own functions would never make.

use ciborium::Value;
use proto::{cbor, suite::SigningKey};

/// A COSE_Sign1 (RFC 9052 §4.2) of an encoded header and payload, signed by this key whatever the header says.
///
/// # Panics
/// Never: byte strings encode.
pub fn sign1(header: Vec<u8>, payload: Vec<u8>, key: &SigningKey, aad: &[u8]) -> Vec<u8> {
    let bytes = |bytes: &[u8]| Value::Bytes(bytes.to_vec());
    let signed = [Value::from("Signature1"), bytes(&header), bytes(aad), bytes(&payload)];
    let signature = key.sign(&encode(Value::Array(signed.to_vec())));
    encode(Value::Array(vec![bytes(&header), Value::Map(Vec::new()), bytes(&payload), bytes(&signature)]))
}

/// The object with the first byte of what it is replaced by a longer encoding of the same: not deterministic.
///
/// # Panics
/// If it is no array of four.
pub fn not_deterministic(object: &[u8]) -> Vec<u8> {
    assert_eq!(object.first(), Some(&0x84), "an array of four");
    [&[0x98, 4], &object[1..]].concat()
}

/// The object with one bit of its signature flipped.
pub fn flipped(object: &[u8]) -> Vec<u8> {
    let mut flipped = object.to_vec();
    if let Some(last) = flipped.last_mut() {
        *last ^= 1;
    }
    flipped
}

fn encode(value: Value) -> Vec<u8> {
    cbor::encode(&value).expect("byte strings encode")
}
