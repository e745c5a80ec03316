//! `hint.json`.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce as AeadNonce, UnboundKey},
    hkdf::{HKDF_SHA256, Salt},
};
use proto::{
    hint::{IdentityHint, NodeSecret},
    presentation::HintKey,
    random::Random,
    token::Cti,
};
use serde_json::json;

use crate::{
    bend,
    fixtures::noise,
    json::{Context, File, HINT_DOES_NOT_OPEN, Hex, Operation},
    keys,
    set::Set,
    sign::Signer,
};

/// The nonce of all hints here. In life it is random: twice the same under one key gives both away.
#[derive(Debug)]
struct Nonce([u8; 12]);

impl Random for Nonce {
    fn fill(&self, out: &mut [u8]) {
        out.copy_from_slice(&self.0);
    }
}

/// The node's secret, the token's handle, and the `k` that comes of both.
fn context() -> (Context, HintKey, Nonce) {
    let (secret, cti) = (keys::private("44 node secret"), Cti(noise("the own token's cti")));
    let (k, nonce) = (NodeSecret(secret).hint_key(cti), noise("a hint's nonce"));
    let context = Context {
        node_secret: Some(Hex::from(&secret[..])),
        cti: Some(Hex::from(&cti.0[..])),
        k: Some(Hex::from(&k.0[..])),
        nonce: Some(Hex::from(&nonce[..])),
        ..Context::default()
    };
    (context, k, Nonce(nonce))
}

/// The `k` of the own token.
pub(crate) fn k() -> HintKey {
    context().1
}

/// A hint as home seals it for the own token.
pub(crate) fn sealed() -> Vec<u8> {
    let (_, k, nonce) = context();
    IdentityHint::mask("王小明", "440106199001011234").seal(&k, &nonce)
}

/// The file.
pub(crate) fn file(signer: &Signer) -> File {
    let (context, k, nonce) = context();
    let mut set = Set::new(signer, "hint", Operation::OpenHint, context.clone());
    for (id, what, name, number) in [
        ("two-characters", "a star for the second", "王小", "449999199001011234"),
        ("four-characters", "a compound surname: its first character alone stays", "欧阳星河", "44999919900101123X"),
        ("one-character", "a star even so", "王", "E1"),
        ("beyond-16-bits", "𠮷 is one character, and two units of UTF-16", "𠮷野家", "H01234567"),
        ("dots-count", "every character counts", "买买提·艾力", "650104199001011234"),
        ("at-most-eight-stars", "eight stars for the rest of a long name", "Maximiliana Rosenthal", "C01X00T47"),
    ] {
        let hint = IdentityHint::mask(name, number);
        let claims = json!({ "name": name, "document_number": number });
        let vector = set.valid(id, what).claims(claims).bytes(&hint.seal(&k, &nonce));
        vector.result = Some(json!({ "masked_name": hint.masked_name(), "document_tail": hint.document_tail() }));
    }
    let good = sealed();
    let mut add = |id: &str, what: &str, context: &Context, bytes: &[u8]| {
        let vector = set.valid(id, what);
        vector.in_context(context.clone()).bytes(bytes).verdict = HINT_DOES_NOT_OPEN.to_owned();
    };
    let other = Context { k: Some(Hex(vec![0; 16])), node_secret: None, cti: None, ..context.clone() };
    add("another-k", "the k of another token", &other, &good);
    add("tag-flipped", "one bit of the tag is another", &context, &bend::flipped(&good, -1));
    add("nonce-flipped", "one bit of the nonce is another", &context, &bend::flipped(&good, 0));
    add("of-91-bytes", "the last byte is missing", &context, &good[..91]);
    add("of-93-bytes", "a byte follows", &context, &[&good[..], &[0]].concat());
    let mut long_name = [b'*'; 64];
    (long_name[0], long_name[1]) = (49, 1);
    add("name-of-49-bytes", "well sealed, and the name longer than 48 bytes", &context, &seal(&k, &nonce, long_name));
    let mut long_tail = [b'*'; 64];
    (long_tail[0], long_tail[1]) = (1, 9);
    add("tail-of-9-bytes", "well sealed, and the tail longer than 8 bytes", &context, &seal(&k, &nonce, long_tail));
    let mut not_text = [0; 64];
    (not_text[0], not_text[1], not_text[2]) = (1, 1, 0xff);
    add("not-utf-8", "well sealed, and the name not UTF-8", &context, &seal(&k, &nonce, not_text));
    set.file(
        "Masked name and tail of the document's number, sealed for the venue. open_hint: what does k open? k \
         itself comes of the node's secret and the token's cti.",
        &[],
    )
}

/// Seals any plaintext, as statement.cddl says.
fn seal(k: &HintKey, nonce: &Nonce, mut plain: [u8; 64]) -> Vec<u8> {
    let derived = Salt::new(HKDF_SHA256, &[]).extract(&k.0);
    let key = UnboundKey::from(derived.expand(&[b"tongxing/1/hint"], &AES_256_GCM).unwrap());
    let nonce_of = AeadNonce::assume_unique_for_key(nonce.0);
    let tag = LessSafeKey::new(key).seal_in_place_separate_tag(nonce_of, Aad::empty(), &mut plain).unwrap();
    [&nonce.0[..], &plain, tag.as_ref()].concat()
}
