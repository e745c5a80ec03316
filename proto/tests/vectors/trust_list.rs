//! `trust-list.json`.

use ciborium::Value;
use proto::{
    envelope::{Edition, Roots},
    refusal::{Object, Reason as R},
    suite::SigningKey,
    trust::{Suspension, TrustList},
};
use serde_json::json;

use crate::{
    bend, claims,
    document::{self, Sign},
    fixtures::{self, NOW, edition, public},
    json::{Context, File, Hex, Operation, RootKeys},
    set::Set,
    sign::{Signer, bytes, encoded},
};

/// What the verifier has: two of three roots.
pub(crate) fn context(signer: &Signer) -> Context {
    let roots = fixtures::roots(signer);
    let keys = roots.keys().iter().map(|key| Hex::from(key.encoded())).collect();
    Context { roots: Some(RootKeys { threshold: roots.threshold(), keys }), ..Context::default() }
}

/// Signs with keys by their names.
pub(crate) fn by<T>(signer: &Signer, names: &[&str], seal: impl Fn(&[&SigningKey]) -> T) -> T {
    seal(&names.iter().map(|name| signer.key(name)).collect::<Vec<_>>())
}

/// The file.
pub(crate) fn file(signer: &Signer) -> File {
    let list = fixtures::trust_list(signer);
    let mut set = Set::new(signer, "trust-list", Operation::OpenTrustList, context(signer));
    valid(&mut set, &list);
    ages(&mut set, &list);
    let make = |edition: Edition, names: &[&str]| by(signer, names, |keys| list.seal(edition, keys));
    document::envelope(&mut set, Object::TrustList, &make);
    content(&mut set, &list);
    members(&mut set, &list);
    set.file(
        "Who is in the federation and by which keys. open_trust_list: did enough of the roots sign it, is it \
         no older than the one held, does it hold now? All other files refer to trust-list/plain.",
        &[
            "root-3",
            "gateway-log",
            "11-consent",
            "11-statement",
            "44-consent",
            "44-consent-next",
            "44-statement",
            "66-consent",
        ],
    )
}

fn add(set: &mut Set<'_>, id: &str, what: &str, list: &TrustList, edition: Edition, names: &[&str]) {
    let document = Sign::split(&by(set.signer, names, |keys| list.seal(edition, keys)));
    let vector = set.valid(id, what).claims(claims::of_trust_list(edition, list)).bytes(&document.bytes());
    vector.signed_by = names.iter().map(|name| (*name).to_owned()).collect();
    vector.parts = Some(document.parts());
    vector.result = Some(json!({ "version": edition.version.to_string() }));
}

fn valid(set: &mut Set<'_>, list: &TrustList) {
    let signer = set.signer;
    add(set, "plain", "three members; two of three roots signed", list, edition(7), &["root-1", "root-2"]);
    add(set, "other-roots", "the second and the third", list, edition(7), &["root-2", "root-3"]);
    let all = ["root-1", "root-2", "root-3"];
    add(set, "all-roots", "all three signed", list, edition(7), &all);
    let next = |name: &str| public(signer, name);
    let retired = Roots::new(1, vec![next("root-2"), next("root-4")]).unwrap();
    let retired = TrustList { roots: retired, ..list.clone() };
    let (what, names) =
        ("retires two roots and adds one, whose signature counts from the next on", ["root-1", "root-4", "root-2"]);
    add(set, "retires-roots", what, &retired, edition(8), &names);
    let empty = TrustList { members: [].into(), ..list.clone() };
    let mut suspended = list.clone();
    let (member, until) = ("11".parse().unwrap(), NOW.plus(Suspension::MAX));
    let out = Suspension::new("its CA's key was seen elsewhere", NOW, until).unwrap();
    suspended.members.entry(member).and_modify(|trust| trust.suspension = Some(out));
    add(set, "suspended", "11 is out for as long as can be", &suspended, edition(8), &["root-1", "root-2"]);
    add(set, "no-members", "nobody is in the federation yet", &empty, edition(1), &["root-1", "root-2"]);
}

fn ages(set: &mut Set<'_>, list: &TrustList) {
    for document::Aged { id, what, reason, edition, now, held } in document::ages() {
        add(set, id, what, list, edition, &["root-1", "root-2"]);
        let context = Context { held: held.then(|| "trust-list/plain".into()), ..set.context.clone() };
        set.last().at(now).in_context(context);
        if let Some(reason) = reason {
            set.refuse_last(reason);
        }
    }
}

/// A list whose content was bent, signed by the first two roots.
fn bent(signer: &Signer, list: &TrustList, path: &[i64], to: Option<Value>) -> Vec<u8> {
    let good = Sign::split(&by(signer, &["root-1", "root-2"], |keys| list.seal(edition(7), keys)));
    let payload = bend::with(&good.payload, &[&[2], path].concat(), to);
    Sign { payload, ..good }.signed_again(signer, Object::TrustList).bytes()
}

/// Content that is not of its form, members apart.
fn content(set: &mut Set<'_>, list: &TrustList) {
    let signer = set.signer;
    let mut add = |id: &str, reason: R, what: &str, path: &[i64], to: Option<Value>| {
        set.refused(id, reason, what).bytes(&bent(signer, list, path, to));
    };
    let key = |name: &str| key(signer, name);
    let keys = |names: &[&str]| Some(Value::Array(names.iter().map(|name| key(name)).collect()));
    let with_alg = |alg: i64, public: Vec<u8>| Some(Value::Array(vec![Value::Array(vec![alg.into(), bytes(&public)])]));
    add("content-text", R::ObjectMalformed, "the content is a text", &[], Some("trust".into()));
    add("domain-upper-case", R::ObjectMalformed, "a domain is lower-case", &[1], Some("Tongxing.test".into()));
    add("threshold-0", R::ObjectMalformed, "nobody would have to sign the next list", &[2], Some(0.into()));
    add("threshold-4", R::ObjectMalformed, "four of three would have to", &[2], Some(4.into()));
    add("roots-twice", R::ObjectMalformed, "a root is there twice", &[3], keys(&["root-1", "root-2", "root-1"]));
    let p256 = public(signer, "device-a").encoded().to_vec();
    add("root-on-p-256", R::ObjectMalformed, "a root's key is on P-256", &[3], with_alg(-9, p256.clone()));
    let minus_8 = with_alg(-8, public(signer, "root-1").encoded().to_vec());
    add("root-alg-minus-8", R::AlgorithmNotAllowed, "a root's alg is EdDSA", &[3], minus_8);
    add("gateway-bundle-empty", R::ObjectMalformed, "the gateway has no CA", &[4, 1], Some(Value::Array(vec![])));
    add("log-key-on-p-256", R::ObjectMalformed, "logs are signed with Ed25519", &[4, 2], with_alg(-9, p256));
    let root = keys(&["root-1"]);
    add("log-key-is-a-root", R::ObjectMalformed, "one key, one use", &[4, 2], root);
    add("members-missing", R::ObjectMalformed, "lists are always written, empty ones too", &[5], None);
    add("content-unknown", R::ObjectMalformed, "99 is not in the layout", &[99], Some(1.into()));
}

fn key(signer: &Signer, name: &str) -> Value {
    Value::Array(vec![(-19).into(), bytes(public(signer, name).encoded())])
}

/// Members that are not of their form.
fn members(set: &mut Set<'_>, list: &TrustList) {
    let signer = set.signer;
    let member = |change: &dyn Fn(Vec<u8>) -> Vec<u8>| {
        let good = Sign::split(&by(signer, &["root-1", "root-2"], |keys| list.seal(edition(7), keys)));
        let content = bend::entries(&bend::entries(&good.payload)[1].1);
        let mut members = bend::decoded(&content[4].1).into_array().unwrap();
        members[1] = bend::decoded(&change(encoded(&members[1])));
        bent(signer, list, &[5], Some(Value::Array(members)))
    };
    let mut add = |id: &str, reason: R, what: &str, label: i64, to: Option<Value>| {
        set.refused(id, reason, what).bytes(&member(&|entry| bend::with(&entry, &[label], to.clone())));
    };
    let texts = |text: &str| Some(Value::Array(vec![text.into()]));
    let numbers = |numbers: &[u64]| Some(Value::Array(numbers.iter().map(|n| Value::from(*n)).collect()));
    add("member-99", R::MemberUnknown, "no member has this code", 1, Some("99".into()));
    add("member-twice", R::ObjectMalformed, "11 is there twice", 1, Some("11".into()));
    add("bundle-empty", R::ObjectMalformed, "a member has no CA", 2, Some(Value::Array(vec![])));
    add(
        "bundle-empty-certificate",
        R::ObjectMalformed,
        "a certificate has no bytes",
        2,
        Some(Value::Array(vec![bytes(&[])])),
    );
    add("endpoint-without-port", R::ObjectMalformed, "an endpoint has no port", 3, texts("node-1.44.tongxing.test"));
    add("endpoint-port-0", R::ObjectMalformed, "no port is 0", 3, texts("node-1.44.tongxing.test:0"));
    add(
        "endpoint-port-07500",
        R::ObjectMalformed,
        "a port has no leading zero",
        3,
        texts("node-1.44.tongxing.test:07500"),
    );
    add("endpoint-port-65536", R::ObjectMalformed, "ports end at 65535", 3, texts("node-1.44.tongxing.test:65536"));
    let consent = Some(Value::Array(vec![key(signer, "44-statement")]));
    add("key-with-two-uses", R::ObjectMalformed, "one key signs consents and statements", 4, consent);
    let of_11 = Some(Value::Array(vec![key(signer, "11-consent")]));
    add("key-of-two-members", R::ObjectMalformed, "11's key is 44's too", 4, of_11);
    let twice = Some(Value::Array(vec![key(signer, "44-consent"), key(signer, "44-consent")]));
    add("key-twice", R::ObjectMalformed, "a key is there twice", 4, twice);
    add("sealing-key-of-31-bytes", R::ObjectMalformed, "the sealing key is short", 6, Some(bytes(&[1; 31])));
    add("categories-descending", R::ObjectMalformed, "categories descend", 7, numbers(&[8, 3]));
    add("category-13", R::ObjectMalformed, "no category has the number 13", 7, numbers(&[13]));
    add(
        "member-entry-missing",
        R::ObjectMalformed,
        "a member without statement keys has an empty list of them",
        5,
        None,
    );
    let out = |why: &str, from: u64, until: u64| {
        Some(Value::Map(vec![(1.into(), why.into()), (2.into(), from.into()), (3.into(), until.into())]))
    };
    let (now, longest) = (NOW.as_secs(), Suspension::MAX.as_secs());
    add("suspension-without-end", R::ObjectMalformed, "it ends when it begins", 8, out("why", now, now));
    add("suspension-too-long", R::ObjectMalformed, "more than 366 days", 8, out("why", now, now + longest + 1));
    add("suspension-without-reason", R::ObjectMalformed, "nobody says why", 8, out("", now, now + 1));
    let reason = "x".repeat(Suspension::MAX_REASON_BYTES + 1);
    add("suspension-reason-too-long", R::ObjectMalformed, "a reason of 201 bytes", 8, out(&reason, now, now + 1));
    add("member-entry-unknown", R::ObjectMalformed, "99 is not in the layout", 99, Some(1.into()));
}
