//! What must hold for any bytes at all: nothing panics, one meaning has one encoding, and what verifies was signed.

use std::sync::OnceLock;

use proto::{
    cbor,
    consent_request::{ConsentRequest, UnverifiedRequest},
    envelope::{Edition, Roots},
    log::{
        checkpoint::Checkpoint,
        commit::AccessReceipt,
        delivery::DeliveryReceipt,
        record::{Entry, RefusalEntry},
    },
    policy::Policy,
    presentation::Presentation,
    proof::Proof,
    refusal::Object,
    statement::UnverifiedStatement,
    suite::{Suite, VerifyingKey},
    time::UnixTime,
    token::{ConsentToken, UnverifiedToken},
    trust::TrustList,
};

use super::vectors::{objects, test_key};

/// Signatures of all algorithms here are so long; they stand at the end of an object.
const SIGNATURE: usize = 64;
/// When the vectors' requests are fresh.
const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
/// More than any object may have, so that too much is tried as well.
const MAX: usize = 600 * 1024;

/// An access receipt: what is accepted is a record of the vectors at its place, under a commit of theirs.
pub fn access_receipt(data: &[u8]) {
    one_encoding(Object::AccessReceipt, data);
    let Ok(receipt) = AccessReceipt::parse(data) else { return };
    assert_eq!(receipt.clone().encode(), data, "one receipt has two encodings");
    if receipt.verify(trusted()).is_ok() {
        let all = || genuine("access_receipt").filter_map(|object| AccessReceipt::parse(object).ok());
        let place = |of: &AccessReceipt| (of.owner, of.index, of.record.clone());
        assert!(all().any(|genuine| place(&genuine) == place(&receipt)), "a record that nobody made was accepted");
        assert!(all().any(|genuine| genuine.commit == receipt.commit), "a commit that nobody signed was accepted");
    }
}

/// What stands on a log: what it says is said again.
pub fn access_record(data: &[u8]) {
    one_encoding(Object::AccessRecord, data);
    if let Ok(entry) = Entry::decode(data) {
        assert_eq!(entry.encode(), data, "one record has two encodings");
    }
    if let Ok(entry) = RefusalEntry::decode(data) {
        assert_eq!(entry.encode(), data, "one refusal has two encodings");
    }
}

/// A checkpoint: what is accepted says what one of the vectors says. Others may have signed it too.
pub fn checkpoint(data: &[u8]) {
    let Ok(note) = std::str::from_utf8(data) else { return };
    if Checkpoint::open(note, trusted()).is_ok() {
        let said = |note: &[u8]| Some(std::str::from_utf8(note).ok()?.split_once("\n\n")?.0.to_owned());
        assert!(
            genuine("checkpoint").any(|object| said(object) == said(data)),
            "a head that nobody signed was accepted"
        );
    }
}

/// A delivery receipt of any member that could have been asked: what is accepted is one of the vectors.
pub fn delivery_receipt(data: &[u8]) {
    one_encoding(Object::DeliveryReceipt, data);
    for member in trusted().members.keys() {
        if DeliveryReceipt::open(data, *member, trusted(), NOW).is_ok() {
            assert!(
                genuine("delivery_receipt").any(|object| object == data),
                "a receipt that nobody signed was accepted"
            );
        }
    }
}

/// A consent token: what is accepted is one of the vectors.
pub fn token(data: &[u8]) {
    one_encoding(Object::Token, data);
    if verified_token(data).is_some() {
        assert!(genuine("token").any(|object| object == data), "a token that nobody signed was accepted");
    }
}

/// A proof, for the token that the vectors' proofs are for.
pub fn proof(data: &[u8]) {
    static TOKENS: OnceLock<Vec<ConsentToken>> = OnceLock::new();
    one_encoding(Object::Proof, data);
    let tokens = TOKENS.get_or_init(|| genuine("token").filter_map(verified_token).collect());
    for token in tokens {
        if Proof::verify(data, token).is_ok() {
            // Of one message there are two ECDSA signatures; what was signed is the same.
            let signed = signed_part(data);
            assert!(genuine("proof").any(|proof| signed_part(proof) == signed), "nobody signed this proof");
        }
    }
}

/// A statement: what is accepted is one of the vectors.
pub fn statement(data: &[u8]) {
    one_encoding(Object::Statement, data);
    let Ok(statement) = UnverifiedStatement::parse(data) else { return };
    let Ok(key) = trusted().statement_key(statement.issuer(), statement.kid()) else { return };
    if statement.verify(key).is_ok() {
        assert!(genuine("statement").any(|object| object == data), "a statement that nobody signed was accepted");
    }
}

/// A presentation, as the bytes in a QR and as its text.
pub fn presentation(data: &[u8]) {
    let same = |text: &str| {
        if let Ok(presentation) = Presentation::from_text(text) {
            assert_eq!(presentation.to_text(), text, "one presentation has two texts");
        }
    };
    same(&format!("TX1:{}", base45::encode(data)));
    if let Ok(text) = std::str::from_utf8(data) {
        same(text);
    }
}

/// A phone's request for a consent, of the device whose enrolment the vectors know.
pub fn consent_request(data: &[u8]) {
    one_encoding(Object::ConsentRequest, data);
    if verified_request(data).is_some() {
        let signed = signed_part(data);
        let mut genuine = genuine("consent_request");
        assert!(genuine.any(|request| signed_part(request) == signed), "nobody signed this request");
    }
}

/// A trust list: what it says is said again, and what is accepted was signed.
pub fn trust_list(data: &[u8]) {
    one_encoding(Object::TrustList, data);
    if let Ok((edition, list)) = TrustList::open_unsigned(data) {
        let again = TrustList::open_unsigned(&list.seal(edition, &[]));
        assert_eq!(again, Ok((edition, list)), "a list does not survive being written");
    }
    if TrustList::open(data, &trusted().roots).is_ok() {
        assert!(are_signed("trust_list", data, Object::TrustList), "a list that nobody signed was accepted");
    }
}

/// A policy, as a document and as a text.
pub fn policy(data: &[u8]) {
    one_encoding(Object::Policy, data);
    if let Ok((edition, toml)) = Policy::read_unsigned(data) {
        assert_eq!(Policy::read_unsigned(&Policy::seal(&toml, edition, &[])), Ok((edition, toml)));
    }
    if Policy::open(data, &trusted().roots).is_ok() {
        assert!(are_signed("policy", data, Object::Policy), "a policy that nobody signed was accepted");
    }
    if let Ok(toml) = std::str::from_utf8(data) {
        let _ = Policy::from_toml(toml);
    }
}

/// One meaning has one encoding (RFC 8949 §4.2): what decodes is what its value encodes to.
fn one_encoding(object: Object, data: &[u8]) {
    if let Ok(value) = cbor::decode(object, data, MAX) {
        assert_eq!(cbor::encode(&value).as_deref(), Some(data), "one value has two encodings");
    }
}

fn verified_token(data: &[u8]) -> Option<ConsentToken> {
    let token = UnverifiedToken::parse(data).ok()?;
    let key = trusted().consent_key(token.issuer(), token.kid()).ok()?;
    token.verify(key).ok()
}

fn verified_request(data: &[u8]) -> Option<ConsentRequest> {
    static ENROLLED: OnceLock<VerifyingKey> = OnceLock::new();
    let verified = |data, key: &VerifyingKey| UnverifiedRequest::parse(data).ok()?.verify(key, NOW).ok();
    let key = ENROLLED.get_or_init(|| {
        let key = VerifyingKey::new(Suite::Esp256, &test_key("consent_request", "enrollment")).expect("a key");
        let plain = &objects("consent_request")["consent-request-own"];
        assert!(verified(plain, &key).is_some(), "by a key that verifies nothing nothing is shown");
        key
    });
    verified(data, key)
}

/// What a document says must be what one that was signed says: more signatures may follow, also of nobody known.
fn are_signed(target: &str, data: &[u8], object: Object) -> bool {
    let payload = |bytes: &[u8]| {
        let parts = cbor::decode(object, bytes, MAX).ok()?.into_array().ok()?;
        parts.into_iter().nth(2)?.into_bytes().ok()
    };
    let said = payload(data);
    genuine(target).any(|document| payload(document) == said)
}

fn signed_part(object: &[u8]) -> &[u8] {
    &object[..object.len().saturating_sub(SIGNATURE)]
}

/// The vectors' objects: whatever in them has a good signature was signed by the vectors' keys.
fn genuine(target: &str) -> impl Iterator<Item = &'static [u8]> {
    objects(target).values().map(Vec::as_slice)
}

/// The trust list that all vectors refer to.
fn trusted() -> &'static TrustList {
    static TRUSTED: OnceLock<TrustList> = OnceLock::new();
    TRUSTED.get_or_init(|| {
        let plain = &objects("trust_list")["trust-list-plain"];
        let (_, list): (Edition, TrustList) = TrustList::open_held(plain).expect("the vectors' list is one");
        assert!(Roots::new(list.roots.threshold(), list.roots.keys().to_vec()).is_some());
        list
    })
}
