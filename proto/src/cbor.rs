//! The strict CBOR profile of all signed objects: one encoding for one meaning (RFC 8949 §4.2), no tags, no floats,
//! integer keys, nothing after the end, and every key of a map accounted for.

use std::collections::BTreeMap;

use ciborium::Value;

use crate::{
    refusal::{Object, Reason, Refusal},
    time::UnixTime,
};

/// Nesting no documented object comes near.
const MAX_DEPTH: usize = 12;

/// Decodes `bytes` of at most `max_bytes`. Decoding, encoding again and comparing is what makes the encoding unique.
pub fn decode(object: Object, bytes: &[u8], max_bytes: usize) -> Result<Value, Refusal> {
    if bytes.len() > max_bytes {
        return Err(Refusal::of(object, Reason::ObjectTooLarge).with("max_bytes", max_bytes));
    }
    let mut rest = bytes;
    let value: Value = ciborium::de::from_reader_with_recursion_limit(&mut rest, MAX_DEPTH)
        .map_err(|_| Refusal::of(object, Reason::NotCbor))?;
    if !rest.is_empty() {
        return Err(Refusal::of(object, Reason::TrailingBytes));
    }
    match encode(&value) {
        Some(canonical) if canonical == bytes => Ok(value),
        _ => Err(Refusal::of(object, Reason::NotDeterministic)),
    }
}

/// The deterministic encoding; `None` for what the profile has no place for: floats, tags, duplicate keys.
pub fn encode(value: &Value) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    encode_into(value, &mut out)?;
    Some(out)
}

fn encode_into(value: &Value, out: &mut Vec<u8>) -> Option<()> {
    match value {
        Value::Array(items) => {
            head(out, 4, items.len() as u64);
            items.iter().try_for_each(|item| encode_into(item, out))
        }
        Value::Map(entries) => {
            let mut encoded = BTreeMap::new();
            for (key, value) in entries {
                if encoded.insert(encode(key)?, encode(value)?).is_some() {
                    return None;
                }
            }
            head(out, 5, encoded.len() as u64);
            for (key, value) in encoded {
                out.extend(key);
                out.extend(value);
            }
            Some(())
        }
        Value::Float(_) | Value::Tag(..) => None,
        // Integers, strings, booleans and null have one encoding each, and ciborium writes that one.
        scalar => ciborium::into_writer(scalar, out).ok(),
    }
}

/// A major type and its argument in the shortest form.
fn head(out: &mut Vec<u8>, major: u8, argument: u64) {
    let major = major << 5;
    match argument {
        0..=23 => out.push(major | argument as u8),
        24..=0xff => out.extend([major | 24, argument as u8]),
        0x100..=0xffff => {
            out.push(major | 25);
            out.extend((argument as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(major | 26);
            out.extend((argument as u32).to_be_bytes());
        }
        _ => {
            out.push(major | 27);
            out.extend(argument.to_be_bytes());
        }
    }
}

/// Reads a major type and its argument, and returns what follows. Of the simple ones that have no length.
pub(crate) fn read_head(bytes: &[u8]) -> Option<(u8, u64, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let argument = |bytes: usize| {
        let (argument, rest) = rest.split_at_checked(bytes)?;
        Some((argument.iter().fold(0, |argument, byte| argument << 8 | u64::from(*byte)), rest))
    };
    let (argument, rest) = match first & 0x1f {
        direct @ 0..=23 => (direct.into(), rest),
        24 => argument(1)?,
        25 => argument(2)?,
        26 => argument(4)?,
        27 => argument(8)?,
        _ => return None,
    };
    Some((first >> 5, argument, rest))
}

/// Builds a map with integer keys; absent values are left out. The encoder sorts, so order here is for the reader.
#[derive(Debug, Default)]
pub struct MapBuilder(Vec<(Value, Value)>);

impl MapBuilder {
    /// An empty map.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an entry.
    #[must_use]
    pub fn put(mut self, key: i64, value: impl Into<Value>) -> Self {
        self.0.push((key.into(), value.into()));
        self
    }

    /// Adds an entry if there is a value.
    #[must_use]
    pub fn put_some(self, key: i64, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.put(key, value),
            None => self,
        }
    }

    /// The map as a value.
    pub fn build(self) -> Value {
        Value::Map(self.0)
    }

    /// The map's deterministic encoding.
    ///
    /// # Panics
    /// If a key was put twice, or a value is a float or a tag: a defect of the caller's code, not of its data.
    pub fn encode(self) -> Vec<u8> {
        encode(&self.build()).expect("signed objects have distinct keys and no floats or tags")
    }
}

/// Writes an array of at most 23 items as it will stand: the caller sees to it that there are as many as it says.
#[derive(Debug)]
pub struct ArrayWriter(Vec<u8>);

impl ArrayWriter {
    /// An array of so many items, with room for this many bytes.
    pub fn new(items: u8, bytes: usize) -> Self {
        debug_assert!(items < 24, "its head has one byte");
        let mut out = Vec::with_capacity(bytes);
        out.push(ARRAY | items);
        Self(out)
    }

    /// Adds an unsigned integer.
    #[must_use]
    pub fn uint(mut self, value: u64) -> Self {
        head(&mut self.0, 0, value);
        self
    }

    /// Adds a byte string.
    #[must_use]
    pub fn bytes(mut self, value: &[u8]) -> Self {
        head(&mut self.0, 2, value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    /// Adds a text.
    #[must_use]
    pub fn text(mut self, value: &str) -> Self {
        head(&mut self.0, 3, value.len() as u64);
        self.0.extend_from_slice(value.as_bytes());
        self
    }

    /// Adds an array of byte strings.
    #[must_use]
    pub fn byte_strings<const N: usize>(mut self, values: &[[u8; N]]) -> Self {
        head(&mut self.0, 4, values.len() as u64);
        values.iter().fold(self, |array, value| array.bytes(value))
    }

    /// The array's deterministic encoding.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// An array without items.
const ARRAY: u8 = 4 << 5;

/// Writes a map as it will stand, for what is written many thousand times a second: keys of 1 to 23 in ascending order, each
/// once, which the caller sees to; no [`Value`] is made.
#[derive(Debug)]
pub struct MapWriter {
    out: Vec<u8>,
    last: u8,
}

impl MapWriter {
    /// An empty map, with room for this many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        let mut out = Vec::with_capacity(bytes);
        out.push(MAP);
        Self { out, last: 0 }
    }

    /// Adds an unsigned integer.
    #[must_use]
    pub fn uint(mut self, key: u8, value: u64) -> Self {
        self.key(key);
        head(&mut self.out, 0, value);
        self
    }

    /// Adds a byte string.
    #[must_use]
    pub fn bytes(mut self, key: u8, value: &[u8]) -> Self {
        self.key(key);
        head(&mut self.out, 2, value.len() as u64);
        self.out.extend_from_slice(value);
        self
    }

    /// Adds a text.
    #[must_use]
    pub fn text(mut self, key: u8, value: &str) -> Self {
        self.key(key);
        head(&mut self.out, 3, value.len() as u64);
        self.out.extend_from_slice(value.as_bytes());
        self
    }

    /// The map's deterministic encoding.
    pub fn finish(self) -> Vec<u8> {
        self.out
    }

    fn key(&mut self, key: u8) {
        debug_assert!(key > self.last && key < 24, "keys ascend, and have one byte each");
        self.last = key;
        self.out[0] += 1;
        self.out.push(key);
    }
}

/// A map without entries.
const MAP: u8 = 5 << 5;

/// Reads a map with integer keys, taking every entry once; [`Fields::finish`] refuses what nobody took.
#[derive(Debug)]
pub struct Fields {
    object: Object,
    entries: BTreeMap<i64, Value>,
}

impl Fields {
    /// Opens a map.
    pub fn open(object: Object, value: Value) -> Result<Self, Refusal> {
        let Value::Map(entries) = value else {
            return Err(Refusal::malformed(object, "not a map"));
        };
        let entries = entries
            .into_iter()
            .map(|(key, value)| match key.as_integer().and_then(|key| i64::try_from(key).ok()) {
                Some(key) => Ok((key, value)),
                None => Err(Refusal::malformed(object, "a key is not an integer")),
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { object, entries })
    }

    /// Takes a value if it is there.
    pub fn optional(&mut self, key: i64) -> Option<Value> {
        self.entries.remove(&key)
    }

    /// Takes a value that must be there.
    pub fn required(&mut self, key: i64) -> Result<Value, Refusal> {
        self.optional(key).ok_or_else(|| Refusal::malformed(self.object, format_args!("{key} is missing")))
    }

    /// Takes an unsigned integer.
    pub fn uint(&mut self, key: i64) -> Result<u64, Refusal> {
        let value = self.required(key)?;
        uint(&value).ok_or_else(|| self.wrong(key, "not an unsigned integer"))
    }

    /// Takes an instant in seconds since 1970, up to the end of the year 9999.
    pub fn time(&mut self, key: i64) -> Result<UnixTime, Refusal> {
        let seconds = self.uint(key)?;
        let time = UnixTime::from_secs(seconds);
        if time.as_secs() == seconds { Ok(time) } else { Err(self.wrong(key, "not an instant before the year 10000")) }
    }

    /// Takes a text of 1 to `max` bytes, without control characters.
    pub fn text(&mut self, key: i64, max: usize) -> Result<String, Refusal> {
        let value = self.required(key)?;
        text(value, max).ok_or_else(|| self.wrong(key, "not a text of the documented length"))
    }

    /// Takes a text if it is there.
    pub fn optional_text(&mut self, key: i64, max: usize) -> Result<Option<String>, Refusal> {
        if self.entries.contains_key(&key) { self.text(key, max).map(Some) } else { Ok(None) }
    }

    /// Takes an instant if it is there.
    pub fn optional_time(&mut self, key: i64) -> Result<Option<UnixTime>, Refusal> {
        if self.entries.contains_key(&key) { self.time(key).map(Some) } else { Ok(None) }
    }

    /// Takes a byte string of exactly `N` bytes.
    pub fn bytes<const N: usize>(&mut self, key: i64) -> Result<[u8; N], Refusal> {
        let value = self.required(key)?;
        bytes(&value).ok_or_else(|| self.wrong(key, "not a byte string of the documented length"))
    }

    /// Takes a byte string of at most `max` bytes.
    pub fn blob(&mut self, key: i64, max: usize) -> Result<Vec<u8>, Refusal> {
        match self.required(key)? {
            Value::Bytes(bytes) if bytes.len() <= max => Ok(bytes),
            _ => Err(self.wrong(key, "not a byte string of the documented length")),
        }
    }

    /// Takes an array of at most `max` items.
    pub fn array(&mut self, key: i64, max: usize) -> Result<Vec<Value>, Refusal> {
        match self.required(key)? {
            Value::Array(items) if items.len() <= max => Ok(items),
            _ => Err(self.wrong(key, "not an array of the documented length")),
        }
    }

    /// Takes an array that is left out when it is empty: one meaning has one encoding.
    pub fn optional_array(&mut self, key: i64, max: usize) -> Result<Vec<Value>, Refusal> {
        if !self.entries.contains_key(&key) {
            return Ok(Vec::new());
        }
        match self.array(key, max)? {
            items if items.is_empty() => Err(self.wrong(key, "an empty array is left out")),
            items => Ok(items),
        }
    }

    /// Opens a map within.
    pub fn map(&mut self, key: i64) -> Result<Self, Refusal> {
        let value = self.required(key)?;
        Self::open(self.object, value)
    }

    /// Refuses whatever was not taken: an entry this version does not know may not go unread under a signature.
    pub fn finish(self) -> Result<(), Refusal> {
        match self.entries.first_key_value() {
            None => Ok(()),
            Some((key, _)) => Err(self.wrong(*key, "unknown")),
        }
    }

    /// The refusal for an entry whose value is not as documented.
    pub fn wrong(&self, key: i64, what: &str) -> Refusal {
        Refusal::malformed(self.object, format_args!("{key}: {what}"))
    }
}

/// An unsigned integer.
pub fn uint(value: &Value) -> Option<u64> {
    value.as_integer().and_then(|integer| u64::try_from(integer).ok())
}

/// A byte string of exactly `N` bytes.
pub fn bytes<const N: usize>(value: &Value) -> Option<[u8; N]> {
    value.as_bytes().and_then(|bytes| bytes.as_slice().try_into().ok())
}

/// A text of 1 to `max` bytes, without control characters.
pub fn text(value: Value, max: usize) -> Option<String> {
    match value {
        Value::Text(text) if (1..=max).contains(&text.len()) && !text.chars().any(char::is_control) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(bytes: &[u8]) -> Option<Reason> {
        decode(Object::Token, bytes, 64).err().map(|refusal| refusal.reason())
    }

    #[test]
    fn one_meaning_has_one_encoding() {
        assert_eq!(reason(&[0xa1, 0x01, 0x02]), None);
        assert_eq!(reason(&[]), Some(Reason::NotCbor));
        assert_eq!(reason(&[0xa1, 0x01]), Some(Reason::NotCbor));
        assert_eq!(reason(&[0xff]), Some(Reason::NotCbor));
        assert_eq!(reason(&[0x01, 0x01]), Some(Reason::TrailingBytes));
        for not_unique in [
            &[0x18, 0x01][..],               // 1 in two bytes
            &[0xa2, 0x02, 0x00, 0x01, 0x00], // unsorted keys
            &[0xa2, 0x01, 0x00, 0x01, 0x00], // a key twice
            &[0x9f, 0x01, 0xff],             // indefinite length
            &[0x5f, 0x41, 0x00, 0xff],       // chunked byte string
            &[0xf9, 0x3c, 0x00],             // a float
            &[0xc1, 0x01],                   // a tag
            &[0xc2, 0x41, 0x01],             // a bignum that fits an integer
        ] {
            assert_eq!(reason(not_unique), Some(Reason::NotDeterministic), "{not_unique:x?}");
        }
    }

    #[test]
    fn size_and_depth_are_bounded() {
        let mut longest = vec![0x58, 62];
        longest.extend([0; 62]);
        assert_eq!(reason(&longest), None);
        assert_eq!(reason(&[0; 65]), Some(Reason::ObjectTooLarge));
        assert_eq!(reason(&[0x81; 40]), Some(Reason::NotCbor));
        // An array that claims four thousand million items.
        assert_eq!(reason(&[0x9a, 0xff, 0xff, 0xff, 0xff]), Some(Reason::NotCbor));
    }

    #[test]
    fn what_is_written_at_once_is_what_is_built() {
        for value in [0, 23, 24, 255, 256, 65_535, 65_536, u64::from(u32::MAX), u64::from(u32::MAX) + 1, u64::MAX] {
            let long = "x".repeat(300);
            let written = MapWriter::with_capacity(10).uint(1, value).text(2, &long).bytes(14, &[7; 16]).text(23, "");
            let built = MapBuilder::new().put(1, value).put(2, long.as_str()).put(14, vec![7; 16]).put(23, "");
            assert_eq!(written.finish(), built.encode());
        }
        assert_eq!(MapWriter::with_capacity(0).finish(), MapBuilder::new().encode());
        let written =
            ArrayWriter::new(4, 0).uint(300).text("x").bytes(&[7; 40]).byte_strings(&[[1; 2], [3; 2]]).finish();
        let hashes = [[1_u8; 2], [3; 2]].map(|hash| Value::from(hash.to_vec()));
        let built = [Value::from(300), "x".into(), vec![7_u8; 40].into(), hashes.to_vec().into()];
        assert_eq!(Some(written), encode(&Value::Array(built.to_vec())));
    }

    #[test]
    fn every_entry_is_accounted_for() {
        let map = MapBuilder::new().put(1, 7).put(-2, "x").build();
        let mut fields = Fields::open(Object::Token, map).unwrap();
        assert_eq!(fields.uint(1).unwrap(), 7);
        let refusal = fields.finish().unwrap_err();
        assert_eq!(refusal.metadata("detail"), Some("-2: unknown"));
    }
}
