//! What the fuzzer begins with, and what it must not be able to forge: the objects of the test vectors.

use std::{collections::BTreeMap, sync::LazyLock};

/// The files of the vectors, by what they are fuzzed as.
const FILES: [(&str, &str); 11] = [
    ("access_receipt", include_str!("../../vectors/access-receipt.json")),
    ("access_record", include_str!("../../vectors/access-record.json")),
    ("checkpoint", include_str!("../../vectors/checkpoint.json")),
    ("consent_request", include_str!("../../vectors/consent-request.json")),
    ("delivery_receipt", include_str!("../../vectors/delivery-receipt.json")),
    ("policy", include_str!("../../vectors/policy.json")),
    ("presentation", include_str!("../../vectors/presentation.json")),
    ("proof", include_str!("../../vectors/proof.json")),
    ("statement", include_str!("../../vectors/statement.json")),
    ("token", include_str!("../../vectors/consent-token.json")),
    ("trust_list", include_str!("../../vectors/trust-list.json")),
];

/// Every object of a target's vectors, by the vector's name: good ones and bad ones.
pub fn objects(target: &str) -> &'static BTreeMap<String, Vec<u8>> {
    static OBJECTS: LazyLock<BTreeMap<&str, BTreeMap<String, Vec<u8>>>> =
        LazyLock::new(|| FILES.iter().map(|(name, text)| (*name, read(text))).collect());
    OBJECTS.get(target).expect("the target has vectors")
}

/// A public key that a target's vectors are signed by.
pub fn test_key(target: &str, name: &str) -> Vec<u8> {
    let (_, text) = FILES.iter().find(|(file, _)| *file == target).expect("the target has vectors");
    let key = &parse(text)["test_keys"][name]["public"];
    parse_hex(key.as_str().expect("the vectors have this key"))
}

fn parse(text: &str) -> serde_json::Value {
    serde_json::from_str(text).expect("a file of vectors is JSON")
}

fn read(text: &str) -> BTreeMap<String, Vec<u8>> {
    let file = parse(text);
    let vectors = file["vectors"].as_array().expect("a file of vectors has vectors");
    let read = |vector: &serde_json::Value| {
        let id = vector["id"].as_str().expect("a vector has an id").replace('/', "-");
        let bytes = match (vector["bytes"].as_str(), vector["text"].as_str()) {
            (Some(hex), _) => parse_hex(hex),
            (None, text) => text.unwrap_or_default().as_bytes().to_vec(),
        };
        (id, bytes)
    };
    vectors.iter().map(read).collect()
}

/// The targets.
pub fn targets() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, _)| *name)
}

fn parse_hex(text: &str) -> Vec<u8> {
    let digit = |i| u8::from_str_radix(&text[i..i + 2], 16).expect("bytes are hexadecimal");
    (0..text.len()).step_by(2).map(digit).collect()
}
