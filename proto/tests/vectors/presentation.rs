//! `presentation.json`.

use ciborium::Value;
use proto::{
    presentation::{MAX_TEXT_BYTES, PREFIX, Presentation},
    refusal::Reason as R,
};
use serde_json::json;

use crate::{
    bend, fixtures, hint,
    json::{Context, File, Hex, Operation, hex},
    set::Set,
    sign::{Signer, array, bytes},
    token,
};

/// The file. The proof is the bound one of `proof.json`.
pub(crate) fn file(signer: &Signer, proofs: &File) -> File {
    let proof = proofs.vectors.iter().find(|vector| vector.id == "proof/bound").expect("it is there").object_bytes();
    let own = token::signed(signer, &fixtures::own(signer), "44-consent").bytes();
    let paper = token::signed(signer, &fixtures::paper(signer), "44-consent").bytes();
    let mut set = Set::new(signer, "presentation", Operation::ReadPresentation, Context::default());
    let phone = Presentation { token: own, proof: Some(proof), hint_key: hint::k() };
    valid(&mut set, "phone", "a phone's: token, proof, k", &phone);
    let print = Presentation { token: paper, proof: None, hint_key: hint::k() };
    valid(&mut set, "paper", "paper's: no proof", &print);
    texts(&mut set, &phone.to_text());
    layouts(&mut set, &phone);
    set.file("What a QR carries. read_presentation: which token, proof and k are in this text?", &[])
}

fn encoded(presentation: &Presentation) -> Vec<u8> {
    let proof = presentation.proof.as_deref().map_or(Value::Null, bytes);
    array(vec![1.into(), bytes(&presentation.token), proof, bytes(&presentation.hint_key.0)])
}

fn text_of(bytes: &[u8]) -> String {
    format!("{PREFIX}{}", base45::encode(bytes))
}

fn valid(set: &mut Set<'_>, id: &str, what: &str, presentation: &Presentation) {
    let bytes = encoded(presentation);
    assert_eq!(text_of(&bytes), presentation.to_text());
    let claims = json!({
        "token": hex(&presentation.token),
        "proof": presentation.proof.as_deref().map(hex),
        "k": hex(&presentation.hint_key.0),
    });
    set.valid(id, what).claims(claims).bytes(&bytes).text = Some(presentation.to_text());
}

/// The text is wrong.
fn texts(set: &mut Set<'_>, good: &str) {
    let mut add = |id: &str, reason: R, what: &str, text: String| set.refused(id, reason, what).text = Some(text);
    let body = &good[PREFIX.len()..];
    add("nothing", R::PrefixUnknown, "no text at all", String::new());
    add("no-prefix", R::PrefixUnknown, "base45 alone", body.to_owned());
    add("prefix-of-hc1", R::PrefixUnknown, "the prefix of the EU certificate", format!("HC1:{body}"));
    add("prefix-lower-case", R::PrefixUnknown, "the prefix in lower case", format!("tx1:{body}"));
    add("space-in-front", R::PrefixUnknown, "nothing is trimmed", format!(" {good}"));
    add("line-end", R::NotBase45, "nothing is trimmed at the end either", format!("{good}\n"));
    add("lower-case", R::NotBase45, "base45 has no lower case", format!("{PREFIX}{}", body.to_lowercase()));
    add(
        "one-too-few",
        R::NotBase45,
        "a group of one character",
        format!("{PREFIX}{}", &body[..body.len() / 3 * 3 - 2]),
    );
    add("group-too-large", R::NotBase45, "::: is 91,124: more than two bytes", format!("{PREFIX}:::{body}"));
    let lax = last_group_plus_256(&Presentation { token: vec![0; 2], proof: None, hint_key: hint::k() });
    add("last-group-too-large", R::NotBase45, "the last two characters are more than a byte", lax);
    add("prefix-alone", R::NotCbor, "nothing follows the prefix", PREFIX.to_owned());
    let longest = "0".repeat(MAX_TEXT_BYTES - PREFIX.len());
    add("of-3172-characters", R::TrailingBytes, "zeros, as long as can be", format!("{PREFIX}{longest}"));
    add("of-3173-characters", R::ObjectTooLarge, "one more; size comes before the prefix", format!("tx1:0{longest}"));
}

/// A text whose last two characters, which are one byte, say 256 more: a lax decoder takes it for the same.
fn last_group_plus_256(presentation: &Presentation) -> String {
    let text = presentation.to_text();
    let bytes = encoded(presentation);
    assert!(bytes.len() % 2 == 1, "the last byte is a group of its own");
    let value = usize::from(bytes[bytes.len() - 1]) + 256;
    let digit = |value: usize| char::from(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:"[value % 45]);
    format!("{}{}{}", &text[..text.len() - 2], digit(value), digit(value / 45))
}

/// What the text says is wrong.
fn layouts(set: &mut Set<'_>, phone: &Presentation) {
    let good = encoded(phone);
    let mut add = |id: &str, reason: R, what: &str, bytes: &[u8]| {
        let vector = set.refused(id, reason, what);
        vector.text = Some(text_of(bytes));
        vector.bytes = Some(Hex::from(bytes));
    };
    add("truncated", R::NotCbor, "the last byte is missing", &good[..good.len() - 1]);
    add("trailing-byte", R::TrailingBytes, "a byte follows the array", &[&good[..], &[0]].concat());
    add("long-array-head", R::NotDeterministic, "the array's length in a byte of its own", &bend::long_head(&good));
    add("indefinite-array", R::NotDeterministic, "the array has an indefinite length", &bend::indefinite(&good));
    add("tagged", R::NotDeterministic, "self-described CBOR (tag 55799)", &[&[0xd9, 0xd9, 0xf7], &good[..]].concat());
    add("a-map", R::ObjectMalformed, "a map instead of the array", &[0xa0]);
    let parts = [1.into(), bytes(&phone.token), bytes(phone.proof.as_deref().unwrap()), bytes(&phone.hint_key.0)];
    let mut part = |id: &str, what: &str, at: usize, to: Value| {
        let mut parts = parts.clone();
        parts[at] = to;
        add(id, R::ObjectMalformed, what, &array(parts.to_vec()));
    };
    part("version-2", "another version", 0, 2.into());
    part("version-text", "the version is a text", 0, "1".into());
    part("token-null", "there is no token", 1, Value::Null);
    part("token-empty", "the token has no bytes", 1, bytes(&[]));
    part("token-of-1025-bytes", "the token is too large", 1, bytes(&[0; 1025]));
    part("proof-empty", "the proof has no bytes: what is not there is null", 2, bytes(&[]));
    part("proof-text", "the proof is a text", 2, "proof".into());
    part("k-of-15-bytes", "k has 15 bytes", 3, bytes(&[0; 15]));
    part("k-null", "there is no k", 3, Value::Null);
    add("array-of-three", R::ObjectMalformed, "there is no k", &array(parts[..3].to_vec()));
    add("array-of-five", R::ObjectMalformed, "something follows k", &array([&parts[..], &[Value::Null]].concat()));
}
