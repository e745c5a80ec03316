//! `delivery-receipt.json`.

use ciborium::Value;
use proto::{
    log::{LogId, delivery::DeliveryReceipt, merkle::empty_root},
    refusal::{Object, Reason as R},
    suite::{Kid, Suite},
    time::UnixTime,
};

use crate::{
    bend, claims,
    fixtures::{NOW, noise, public, secs},
    json::{Context, File, Operation},
    layout::{self, Sample},
    set::Set,
    sign::{ALG, Sign1, Signer, TYP, bytes, header},
};

/// The file.
pub(crate) fn file(signer: &Signer) -> File {
    let context =
        Context { trust_list: Some("trust-list/plain".into()), member: Some("44".into()), ..Context::default() };
    let mut set = Set::new(signer, "delivery-receipt", Operation::OpenDeliveryReceipt, context);
    let good = receipt(signer);
    valid(&mut set, &good);
    let sample = Sample { signed_by: "44-statement", good: signed(signer, &good) };
    layout::core(&mut set, &sample);
    claims_of(&mut set, &sample);
    keys(&mut set, &sample);
    members(&mut set, &good);
    set.file(
        "What a member says that it holds of an access log. open_delivery_receipt: did the member that was asked say \
         it, and not in the future? Log, size and root are the caller's to compare.",
        &["gateway-log", "11-statement", "stranger"],
    )
}

fn receipt(signer: &Signer) -> DeliveryReceipt {
    DeliveryReceipt {
        issuer: "44".parse().unwrap(),
        log: LogId::of(&public(signer, "gateway-log")),
        size: 1042,
        root: noise("the root of 44's log"),
        issued_at: NOW.minus(secs(1)),
    }
}

fn signed(signer: &Signer, receipt: &DeliveryReceipt) -> Sign1 {
    signer.settle("44-statement", &receipt.sign(signer.key("44-statement")), b"")
}

fn valid(set: &mut Set<'_>, good: &DeliveryReceipt) {
    let signer = set.signer;
    let mut add = |id: &str, reason: Option<R>, what: &str, receipt: DeliveryReceipt, now: UnixTime| {
        let vector = match reason {
            None => set.valid(id, what),
            Some(reason) => set.refused(id, reason, what),
        };
        vector.signed("44-statement", &signed(signer, &receipt)).claims(claims::of_delivery(&receipt)).at(now);
    };
    add("plain", None, "1,042 records of the log that checkpoint/plain is of", *good, NOW);
    let nothing = DeliveryReceipt { size: 0, root: empty_root(), ..*good };
    add("of-nothing", None, "it holds no record yet: the root is the SHA-256 of nothing", nothing, NOW);
    add("size-of-64-bits", None, "2^64 − 1 records", DeliveryReceipt { size: u64::MAX, ..*good }, NOW);
    add("of-long-ago", None, "a receipt does not expire", *good, NOW.plus(secs(10 * 366 * 86_400)));
    let first = good.issued_at.minus(secs(30));
    add("iat-at-the-edge", None, "iat is 30 s ahead", *good, first);
    add("iat-beyond", Some(R::NotYetValid), "iat is 31 s ahead", *good, first.minus(secs(1)));
}

/// One claim is not of its form.
fn claims_of(set: &mut Set<'_>, sample: &Sample<'_>) {
    let mut add = |id: &str, reason: R, what: &str, key: i64, to: Option<Value>| {
        let bytes = sample.payload(set.signer, bend::with(&sample.good.payload, &[key], to));
        set.bad(id, reason, what, &bytes);
    };
    add("iss-99", R::MemberUnknown, "no member has this code", 1, Some("99".into()));
    add("iss-gateway", R::ObjectMalformed, "the gateway gives itself no receipt", 1, Some("gateway".into()));
    let mut malformed = |id: &str, what: &str, key: i64, to: Option<Value>| add(id, R::ObjectMalformed, what, key, to);
    malformed("log-of-8-bytes", "the key's id instead of the log's", 2, Some(bytes(&[1; 8])));
    malformed("log-missing", "it does not say which log", 2, None);
    malformed("size-negative", "there are no fewer than none", 3, Some((-1).into()));
    malformed("size-text", "the size is a text", 3, Some("1042".into()));
    malformed("root-of-31-bytes", "the root is short", 4, Some(bytes(&[1; 31])));
    malformed("iat-missing", "it does not say when", 6, None);
    malformed("iat-beyond-9999", "the first second of the year 10000", 6, Some(253_402_300_800_u64.into()));
    malformed("a-life", "it has a 5: a receipt does not expire", 5, Some(1_800_003_600.into()));
}

/// The key, its algorithm, its signature.
fn keys(set: &mut Set<'_>, sample: &Sample<'_>) {
    let (signer, good) = (set.signer, &sample.good);
    let by = |kid: Kid, name: &str| {
        let protected = header(Object::DeliveryReceipt, Suite::Ed25519, kid).encode();
        signer.sign1(name, protected, good.payload.clone(), b"").bytes()
    };
    let kid = |name: &str| public(signer, name).kid();
    let mut add = |id: &str, reason: R, what: &str, bytes: Vec<u8>| set.bad(id, reason, what, &bytes);
    let statement = bend::with(&good.protected, &[TYP], Some(65003.into()));
    let statement = signer.sign1("44-statement", statement, good.payload.clone(), b"").bytes();
    add("typ-of-a-statement", R::TypeMismatch, "the same key signs statements: typ tells them apart", statement);
    let consent = by(kid("44-consent"), "44-consent");
    add("kid-of-another-use", R::KeyUnknown, "signed with 44's consent key: one key, one use", consent);
    let log = by(kid("gateway-log"), "gateway-log");
    add("by-the-gateway", R::KeyUnknown, "the gateway gives itself a receipt", log);
    let lying = by(kid("11-statement"), "11-statement");
    add("by-another-member", R::KeyUnknown, "iss is 44, the key is 11's", lying);
    let forged = by(kid("44-statement"), "stranger");
    add("signed-by-a-stranger", R::SignatureInvalid, "44's kid, a stranger's signature", forged);
    let esp256 = bend::with(&good.protected, &[ALG], Some((-9).into()));
    let esp256 = signer.sign1("44-statement", esp256, good.payload.clone(), b"").bytes();
    add("alg-not-the-keys", R::AlgorithmMismatch, "the header says ESP256, the key is an Ed25519 key", esp256);
    let more = Sign1 { payload: bend::with(&good.payload, &[3], Some(1043.into())), ..good.clone() };
    add("size-changed", R::SignatureInvalid, "another size under the old signature", more.bytes());
}

/// Receipts of members that were not asked, or have no key.
fn members(set: &mut Set<'_>, good: &DeliveryReceipt) {
    let signer = set.signer;
    let asked = |member: &str| Context { member: Some(member.to_owned()), ..set.context.clone() };
    let (of_11, of_66, of_51) = (asked("11"), asked("66"), asked("51"));
    let by = |iss: &str, name: &str| DeliveryReceipt { issuer: iss.parse().unwrap(), ..*good }.sign(signer.key(name));
    let honest = by("11", "11-statement");
    let what = "44 was asked, and 11 says it, with its own key";
    set.refused("of-another-member", R::ObjectMalformed, what).bytes(&honest);
    set.valid("of-11", "11 was asked, and says it").in_context(of_11).bytes(&honest);
    let what = "66 has no statement keys";
    set.refused("of-a-member-without-keys", R::KeyUnknown, what).in_context(of_66).bytes(&by("66", "stranger"));
    let what = "51 is not in the trust list";
    set.refused("of-a-member-not-listed", R::KeyUnknown, what).in_context(of_51).bytes(&by("51", "stranger"));
}
