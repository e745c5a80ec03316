//! Ways to break an encoding or a map.

use ciborium::Value;
use proto::{cbor, refusal::Object};

use crate::sign::encoded;

/// The encoded map with the entry at a path of keys replaced, or removed.
pub(crate) fn with(map: &[u8], path: &[i64], to: Option<Value>) -> Vec<u8> {
    let mut value = decoded(map);
    set(&mut value, path, to);
    encoded(&value)
}

/// What an encoding says.
pub(crate) fn decoded(map: &[u8]) -> Value {
    cbor::decode(Object::Token, map, 1 << 20).unwrap()
}

fn set(value: &mut Value, path: &[i64], to: Option<Value>) {
    let (Some((key, rest)), Value::Map(entries)) = (path.split_first(), value) else { panic!("no map at {path:?}") };
    let at = entries.iter().position(|(there, _)| *there == Value::from(*key));
    match (rest, at, to) {
        ([], Some(at), None) => drop(entries.remove(at)),
        ([], Some(at), Some(to)) => entries[at].1 = to,
        ([], None, Some(to)) => entries.push(((*key).into(), to)),
        (rest, Some(at), to) => set(&mut entries[at].1, rest, to),
        _ => panic!("nothing at {path:?}"),
    }
}

/// The encoded entries of an encoded map, in its order.
pub(crate) fn entries(map: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let Value::Map(entries) = decoded(map) else { panic!("not a map") };
    entries.iter().map(|(key, value)| (encoded(key), encoded(value))).collect()
}

/// A map of these entries in this order, whatever they are: at most 23.
pub(crate) fn join(entries: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    assert!(entries.len() < 24);
    let head = vec![0xa0 | entries.len() as u8];
    entries.iter().fold(head, |mut map, (key, value)| {
        map.extend(key);
        map.extend(value);
        map
    })
}

/// The map with the encoding of one entry's value replaced by whatever this is.
pub(crate) fn with_raw(map: &[u8], key: i64, value: &[u8]) -> Vec<u8> {
    let key = encoded(&key.into());
    let entries = entries(map).into_iter().map(|(there, old)| {
        let new = if there == key { value.to_vec() } else { old };
        (there, new)
    });
    join(&entries.collect::<Vec<_>>())
}

/// The map with its first two entries in the other order.
pub(crate) fn unsorted(map: &[u8]) -> Vec<u8> {
    let mut entries = entries(map);
    entries.swap(0, 1);
    join(&entries)
}

/// The map with its first entry twice.
pub(crate) fn doubled(map: &[u8]) -> Vec<u8> {
    let mut entries = entries(map);
    entries.insert(1, entries[0].clone());
    join(&entries)
}

/// The array or map of at most 23 items with an indefinite length.
pub(crate) fn indefinite(item: &[u8]) -> Vec<u8> {
    assert!(item[0] & 0x1f < 24);
    [&[item[0] | 0x1f], &item[1..], &[0xff]].concat()
}

/// The array or map of at most 23 items with its length in a byte of its own.
pub(crate) fn long_head(item: &[u8]) -> Vec<u8> {
    assert!(item[0] & 0x1f < 24);
    [&[item[0] & 0xe0 | 24, item[0] & 0x1f], &item[1..]].concat()
}

/// The bytes with one bit of one byte flipped; from the end if negative.
pub(crate) fn flipped(bytes: &[u8], at: isize) -> Vec<u8> {
    let mut flipped = bytes.to_vec();
    let at = if at < 0 { bytes.len() - at.unsigned_abs() } else { at.unsigned_abs() };
    flipped[at] ^= 1;
    flipped
}

/// Signatures that say the same in other bytes: what a verifier that is not strict takes.
pub(crate) mod scalar {
    /// The order of Ed25519's group (RFC 8032 §5.1), little-endian.
    const L: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    /// The order of P-256's group (FIPS 186-4 D.1.2.3), big-endian.
    const N: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad,
        0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];

    /// Ed25519: `S + L` for `S`.
    pub(crate) fn larger(signature: &[u8]) -> Vec<u8> {
        let mut carry = 0;
        let s = signature[32..].iter().zip(L).map(|(a, b)| {
            let sum = u16::from(*a) + u16::from(b) + carry;
            carry = sum >> 8;
            sum as u8
        });
        let s: Vec<u8> = s.collect();
        [&signature[..32], &s].concat()
    }

    /// ECDSA: `n − s` for `s`.
    pub(crate) fn negated(signature: &[u8]) -> Vec<u8> {
        let mut borrow = 0;
        let s = N.iter().zip(&signature[32..]).rev().map(|(a, b)| {
            let difference = i16::from(*a) - i16::from(*b) - borrow;
            borrow = i16::from(difference < 0);
            difference as u8
        });
        let mut s: Vec<u8> = s.collect();
        s.reverse();
        [&signature[..32], &s].concat()
    }

    /// `r ‖ s` as DER (RFC 3279 §2.2.3), as most libraries give it.
    pub(crate) fn der(signature: &[u8]) -> Vec<u8> {
        let integer = |number: &[u8]| {
            let start = number.iter().position(|byte| *byte != 0).unwrap();
            let sign: &[u8] = if number[start] > 0x7f { &[0] } else { &[] };
            let number = [sign, &number[start..]].concat();
            [&[2, number.len() as u8], number.as_slice()].concat()
        };
        let both = [integer(&signature[..32]), integer(&signature[32..])].concat();
        [&[0x30, both.len() as u8], both.as_slice()].concat()
    }
}
