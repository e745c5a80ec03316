//! `statement.json`.

use ciborium::Value;
use proto::{
    authority::Authority,
    refusal::{Object, Reason as R},
    statement::{Dose, LogHead, MAX_DOSES, MAX_TESTS, MAX_VISITS, RiskVisit, Status, TestResult},
    suite::{Kid, Suite},
    time::UnixTime,
    token::TokenHash,
};
use serde_json::json;

use crate::{
    bend, claims,
    fixtures::{self, NOW, green, noise, public, secs},
    hint,
    json::{Context, File, Hex, Operation},
    layout::{self, Sample},
    set::Set,
    sign::{ALG, Sign1, Signer, bytes, header},
    token,
};

const STATUS: i64 = -65538;

/// The file.
pub(crate) fn file(signer: &Signer) -> File {
    let token = token::signed(signer, &fixtures::own(signer), "44-consent").bytes();
    let context = Context {
        trust_list: Some("trust-list/plain".into()),
        policy: Some("policy/plain".into()),
        token: Some(Hex::from(&token[..])),
        granted_scope: Some(63),
        ..Context::default()
    };
    let status = green(TokenHash::of(&token).short());
    let mut set = Set::new(signer, "statement", Operation::VerifyStatement, context);
    valid(&mut set, &status);
    judged(&mut set, &status);
    let sample = Sample { signed_by: "44-statement", good: signed(signer, &status) };
    layout::core(&mut set, &sample);
    claims_of(&mut set, &sample);
    evidence(&mut set, &status);
    keys(&mut set, &sample);
    uses(&mut set, &status);
    set.file(
        "What home says of the token in the context, which is good. verify_statement: did the token's member \
         say it, of this token, does it hold now, disclose no more than was granted, and what does it come to \
         under the policy?",
        &["44-consent", "device-a"],
    )
}

fn signed(signer: &Signer, status: &Status) -> Sign1 {
    signer.settle("44-statement", &status.sign(signer.key("44-statement")), b"")
}

/// Adds a valid one and what it comes to.
fn add(set: &mut Set<'_>, id: &str, what: &str, status: &Status, outcome: &str, level: Option<&str>, decision: &str) {
    let statement = signed(set.signer, status);
    let vector = set.valid(id, what);
    vector.signed("44-statement", &statement).claims(claims::of_status(status));
    vector.result = Some(json!({ "outcome": outcome, "level": level, "decision": decision }));
}

/// Everything home may disclose.
fn full(status: &Status) -> Status {
    let ago = |days: u64| NOW.minus(secs(days * 86_400));
    Status {
        label: "红码".into(),
        rule: Some("R-CASE".into()),
        authority: Some("44/cdc".parse().unwrap()),
        assigned_at: Some(ago(1)),
        tests: (1..=MAX_TESTS).map(|n| TestResult { sampled_at: ago(n as u64), positive: n == 1 }).collect(),
        doses: (1..=MAX_DOSES).map(|n| Dose { number: 5 - n as u8, given_at: ago(90 * n as u64) }).collect(),
        visits: (0..MAX_VISITS)
            .map(|n| RiskVisit { area: 449_990 + n as u32, high: n % 2 == 1, left_at: ago(20) })
            .collect(),
        hint: Some(hint::sealed()),
        ..status.clone()
    }
}

fn valid(set: &mut Set<'_>, status: &Status) {
    add(set, "green", "the least that can be said", status, "STATUS", Some("green"), "pass");
    let what = "the most that can be said: every list is full";
    add(set, "red-and-all", what, &full(status), "STATUS", Some("red"), "stop");
    let seq = Status { head: LogHead { epoch: noise("another epoch"), seq: u64::MAX }, ..status.clone() };
    add(
        set,
        "seq-of-64-bits",
        "2^64 − 1: more than a signed integer or a double holds",
        &seq,
        "STATUS",
        Some("green"),
        "pass",
    );
    let brief = Status { expires_at: status.issued_at, offline_until: status.issued_at, ..status.clone() };
    add(
        set,
        "no-life",
        "it ends when it begins, which a statement may",
        &Status { issued_at: NOW, expires_at: NOW, offline_until: NOW, ..brief },
        "STATUS",
        Some("green"),
        "pass",
    );
}

/// What labels, rules and authorities come to.
fn judged(set: &mut Set<'_>, status: &Status) {
    let by = |label: &str, rule: Option<&str>, authority: Option<&str>| Status {
        label: label.into(),
        rule: rule.map(Into::into),
        authority: authority.map(|authority| authority.parse::<Authority>().unwrap()),
        ..status.clone()
    };
    let nationals = by("黄码", Some("R-TEST"), Some("00/cdc"));
    add(set, "yellow-by-a-national-authority", "yellow", &nationals, "STATUS", Some("yellow"), "assist");
    let unknown = by("紫码", Some("R-CASE"), Some("44/cdc"));
    add(set, "label-unknown", "a label the policy does not list is no level", &unknown, "UNDETERMINED", None, "assist");
    for (id, what, rule, authority) in [
        ("red-without-a-rule", "red, and nobody says why", None, None),
        ("red-by-no-rule", "a rule the policy does not have", Some("R-DEPOSITOR"), Some("44/cdc")),
        ("red-by-the-wrong-rule", "a rule that makes nobody red", Some("R-TEST"), Some("44/cdc")),
        ("red-by-the-wrong-authority", "an authority that may not", Some("R-CASE"), Some("44/finance-office")),
        ("red-by-another-member", "another member's authority", Some("R-CASE"), Some("41/cdc")),
    ] {
        add(set, id, what, &by("红码", rule, authority), "UNSUBSTANTIATED", None, "assist");
    }
    let green = by("绿码", Some("R-DEPOSITOR"), Some("44/finance-office"));
    add(set, "green-by-anybody", "green needs no rule", &green, "STATUS", Some("green"), "pass");
}

/// One claim is not of its form.
fn claims_of(set: &mut Set<'_>, sample: &Sample<'_>) {
    let mut add = |id: &str, reason: R, what: &str, path: &[i64], to: Option<Value>| {
        let bytes = sample.payload(set.signer, bend::with(&sample.good.payload, path, to));
        set.bad(id, reason, what, &bytes);
    };
    add("iss-99", R::MemberUnknown, "no member has this code", &[1], Some("99".into()));
    add("cti", R::ObjectMalformed, "it has a cti (7), as a token", &[7], Some(bytes(&[7; 16])));
    add("status-missing", R::ObjectMalformed, "there is no status", &[STATUS], None);
    let mut of = |id: &str, what: &str, key: i64, to: Option<Value>| {
        add(id, R::ObjectMalformed, what, &[STATUS, key], to);
    };
    of("token-of-32-bytes", "the whole hash instead of its first half", 1, Some(bytes(&[1; 32])));
    of("head-of-one", "the head has no seq", 2, Some(Value::Array(vec![bytes(&[1; 16])])));
    of("seq-text", "seq is a text", 2, Some(Value::Array(vec![bytes(&[1; 16]), "42".into()])));
    of("label-empty", "the label has no characters", 3, Some("".into()));
    of("label-of-51-bytes", "17 characters, and 51 bytes", 3, Some("绿".repeat(17).into()));
    of("label-with-a-line-end", "a control character", 3, Some("绿\n码".into()));
    of("rule-null", "what is not there is left out", 4, Some(Value::Null));
    of("rule-of-33-bytes", "the rule is too long", 4, Some("R".repeat(33).into()));
    of("authority-without-member", "an authority is of a member", 5, Some("cdc".into()));
    of("authority-of-nobody", "no member has the code 99", 5, Some("99/cdc".into()));
    of("assigned-negative", "it was assigned before 1970", 6, Some((-1).into()));
    of("tests-none", "an empty list is left out", 7, Some(Value::Array(vec![])));
    of("hint-of-91-bytes", "a sealed hint has 92 bytes", 10, Some(bytes(&[1; 91])));
    of("offline-missing", "there is no offline_until", 11, None);
    of("entry-unknown", "12 is not in the layout", 12, Some(1.into()));
}

/// Lists that are too long, and items that are not of their form.
fn evidence(set: &mut Set<'_>, status: &Status) {
    let signer = set.signer;
    let full = full(status);
    let mut add = |id: &str, what: &str, status: &Status| {
        set.refused(id, R::ObjectMalformed, what).signed("44-statement", &signed(signer, status));
    };
    let lean = Status { hint: None, visits: vec![], ..full.clone() };
    let five = vec![full.tests[0]; MAX_TESTS + 1];
    add("five-tests", "a test too many", &Status { tests: five, ..lean.clone() });
    let five = vec![full.doses[0]; MAX_DOSES + 1];
    add("five-doses", "a dose too many", &Status { doses: five, ..lean.clone() });
    let nine = vec![full.visits[0]; MAX_VISITS + 1];
    add("nine-visits", "a visit too many", &Status { visits: nine, ..lean.clone() });
    let tenth = Dose { number: 10, ..full.doses[0] };
    add("dose-10", "doses have one digit", &Status { doses: vec![tenth], ..lean.clone() });
    let far = RiskVisit { area: 1_000_000, ..full.visits[0] };
    add("area-of-seven-digits", "areas have six digits", &Status { visits: vec![far], ..lean });
    let (before, after) = (status.issued_at.minus(secs(1)), status.expires_at.plus(secs(1)));
    add(
        "exp-before-iat",
        "it ends before it begins",
        &Status { expires_at: before, offline_until: before, ..status.clone() },
    );
    add("offline-before-iat", "offline_until is before iat", &Status { offline_until: before, ..status.clone() });
    add("offline-after-exp", "offline_until is after exp", &Status { offline_until: after, ..status.clone() });
    let far = status.issued_at.plus(secs(601));
    let long = Status { expires_at: far, offline_until: far, ..status.clone() };
    add("offline-too-far", "offline_until is 601 s after iat, which no policy can allow", &long);
    let result = bend::with(&signed(signer, &full).payload, &[STATUS, 7], Some(list(&[1_799_000_000, 2])));
    let protected = signed(signer, &full).protected;
    let grade = bend::with(&signed(signer, &full).payload, &[STATUS, 9], Some(list(&[449_999, 3, 1_799_000_000])));
    for (id, what, payload) in [("test-result-2", "a test is 0 or 1", result), ("grade-3", "an area is 1 or 2", grade)]
    {
        let bytes = signer.sign1("44-statement", protected.clone(), payload, b"").bytes();
        set.bad(id, R::ObjectMalformed, what, &bytes);
    }
}

/// A list of one item.
fn list(item: &[u64]) -> Value {
    Value::Array(vec![Value::Array(item.iter().map(|number| Value::from(*number)).collect())])
}

/// The key, its algorithm, its signature, the binding.
fn keys(set: &mut Set<'_>, sample: &Sample<'_>) {
    let (signer, good) = (set.signer, &sample.good);
    let by = |kid: Kid, name: &str, payload: &[u8]| {
        let protected = header(Object::Statement, Suite::Ed25519, kid).encode();
        signer.sign1(name, protected, payload.to_vec(), b"").bytes()
    };
    let mut add = |id: &str, reason: R, what: &str, bytes: Vec<u8>| set.bad(id, reason, what, &bytes);
    let kid = |name: &str| public(signer, name).kid();
    let consent = by(kid("44-consent"), "44-consent", &good.payload);
    add("kid-of-another-use", R::KeyUnknown, "signed with 44's consent key: one key, one use", consent);
    let beijing = bend::with(&good.payload, &[1], Some("11".into()));
    let honest = by(kid("11-statement"), "11-statement", &beijing);
    add("of-another-member", R::KeyUnknown, "11 speaks of 44's token, with its own key: it is not 44's", honest);
    let lying = by(kid("44-statement"), "44-statement", &beijing);
    add("in-another-name", R::ObjectMalformed, "44's key, and iss is 11", lying);
    let esp256 = bend::with(&good.protected, &[ALG], Some((-9).into()));
    let esp256 = signer.sign1("44-statement", esp256, good.payload.clone(), b"").bytes();
    add("alg-not-the-keys", R::AlgorithmMismatch, "the header says ESP256, the key is an Ed25519 key", esp256);
    let forged = by(kid("44-statement"), "stranger", &good.payload);
    add("signed-by-a-stranger", R::SignatureInvalid, "44's kid, a stranger's signature", forged);
    let pass = Sign1 { payload: bend::with(&good.payload, &[STATUS, 3], Some("红码".into())), ..good.clone() };
    add("label-changed", R::SignatureInvalid, "another label under the old signature", pass.bytes());
}

/// Good statements of another token, at the wrong time, or with too much in them.
fn uses(set: &mut Set<'_>, status: &Status) {
    let signer = set.signer;
    let context = set.context.clone();
    let mut add = |id: &str, reason: Option<R>, what: &str, status: &Status, now: UnixTime, scope: u64| {
        let vector = match reason {
            None => set.valid(id, what),
            Some(reason) => set.refused(id, reason, what),
        };
        vector.signed("44-statement", &signed(signer, status)).claims(claims::of_status(status));
        vector.at(now).in_context(Context { granted_scope: Some(scope), ..context.clone() });
        if reason.is_none() {
            vector.result = Some(json!({ "outcome": "STATUS", "level": "green", "decision": "pass" }));
        }
    };
    let of_other = Status { token: TokenHash::of(b"another token").short(), ..status.clone() };
    add("of-another-token", Some(R::ObjectMalformed), "it answers for another token", &of_other, NOW, 63);
    let (first, last) = (status.issued_at.minus(secs(30)), status.expires_at.plus(secs(29)));
    add("iat-at-the-edge", None, "iat is 30 s ahead", status, first, 63);
    add("iat-beyond", Some(R::NotYetValid), "iat is 31 s ahead", status, first.minus(secs(1)), 63);
    add("exp-at-the-edge", None, "exp was 29 s ago", status, last, 63);
    add("exp-beyond", Some(R::Expired), "exp was 30 s ago", status, last.plus(secs(1)), 63);
    let long = Status { expires_at: status.issued_at.plus(secs(601)), ..status.clone() };
    add("life-too-long", Some(R::LifeTooLong), "601 s: the policy has 600", &long, NOW, 63);
    let none = |label: &str| Status { label: label.into(), ..status.clone() };
    let full = full(status);
    for (id, what, scope, status) in [
        (
            "discloses-assigned-at",
            "when it was assigned was not granted",
            61,
            Status { assigned_at: full.assigned_at, ..none("绿码") },
        ),
        ("discloses-tests", "tests were not granted", 59, Status { tests: full.tests.clone(), ..none("绿码") }),
        ("discloses-doses", "vaccination was not granted", 55, Status { doses: full.doses.clone(), ..none("绿码") }),
        ("discloses-visits", "risk areas were not granted", 47, Status { visits: full.visits.clone(), ..none("绿码") }),
        ("discloses-a-hint", "the hint was not granted", 31, Status { hint: full.hint.clone(), ..none("绿码") }),
    ] {
        add(id, Some(R::ObjectMalformed), what, &status, NOW, scope);
    }
    let by_rule = Status { rule: full.rule.clone(), authority: full.authority.clone(), ..none("绿码") };
    add("rule-in-any-scope", None, "rule and authority may come with the level alone", &by_rule, NOW, 1);
    add(
        "binding-before-time",
        Some(R::ObjectMalformed),
        "another token's and expired: the token is told",
        &of_other,
        last.plus(secs(9)),
        63,
    );
}
