//! `policy.json`.

use ciborium::Value;
use proto::{
    envelope::Edition,
    policy::Policy,
    refusal::{Object, Reason as R},
};
use serde_json::json;

use crate::{
    bend, claims,
    document::{self, Sign},
    fixtures::{POLICY, edition},
    json::{Context, File, Operation},
    set::Set,
    sign::Signer,
    trust_list::{self, by},
};

/// The file.
pub(crate) fn file(signer: &Signer) -> File {
    let mut set = Set::new(signer, "policy", Operation::OpenPolicy, trust_list::context(signer));
    add(&mut set, "plain", "a small policy; two of three roots signed", POLICY, edition(7));
    let development = POLICY.replacen("name = \"vectors\"", "name = \"vectors\"\ndevelopment = true", 1);
    let development = swap(&development, "proof = \"60s\"", "proof = \"1h\"");
    add(&mut set, "development", "a development policy's proofs may live an hour", &development, edition(7));
    ages(&mut set);
    document::envelope(&mut set, Object::Policy, &|edition: Edition, names: &[&str]| {
        by(signer, names, |keys| Policy::seal(POLICY, edition, keys))
    });
    texts(&mut set);
    access_logs(&mut set);
    let good = Sign::split(&sealed(signer, POLICY, edition(7)));
    let bytes = Sign { payload: bend::with(&good.payload, &[2], Some(Value::Bytes(POLICY.into()))), ..good };
    let bytes = bytes.signed_again(signer, Object::Policy).bytes();
    set.refused("content-bytes", R::ObjectMalformed, "the TOML is a byte string").bytes(&bytes);
    set.file(
        "What labels mean, who may see what, how long things live: a TOML text. open_policy: did enough of \
         the roots sign it, is it no older than the one held, does it hold now? All other files refer to \
         policy/plain.",
        &["root-3"],
    )
}

fn sealed(signer: &Signer, toml: &str, edition: Edition) -> Vec<u8> {
    by(signer, &["root-1", "root-2"], |keys| Policy::seal(toml, edition, keys))
}

fn add(set: &mut Set<'_>, id: &str, what: &str, toml: &str, edition: Edition) {
    let document = Sign::split(&sealed(set.signer, toml, edition));
    let vector = set.valid(id, what).claims(claims::of_policy(edition, toml)).bytes(&document.bytes());
    vector.signed_by = vec!["root-1".into(), "root-2".into()];
    vector.result = Some(json!({ "version": edition.version.to_string() }));
    // The text is long: its parts are written out once.
    if id == "plain" {
        vector.parts = Some(document.parts());
    }
}

fn ages(set: &mut Set<'_>) {
    for document::Aged { id, what, reason, edition, now, held } in document::ages() {
        add(set, id, what, POLICY, edition);
        let context = Context { held: held.then(|| "policy/plain".into()), ..set.context.clone() };
        set.last().at(now).in_context(context);
        if let Some(reason) = reason {
            set.refuse_last(reason);
        }
    }
}

/// The text with something else in it.
fn swap(toml: &str, from: &str, to: &str) -> String {
    assert!(toml.contains(from), "{from}");
    toml.replacen(from, to, 1)
}

/// Texts that are no policy.
fn texts(set: &mut Set<'_>) {
    for (id, what, from, to) in [
        ("not-toml", "not TOML", "name = ", "name "),
        ("key-unknown", "an unknown key", "name = \"vectors\"", "name = \"vectors\"\ntitle = \"x\""),
        ("key-missing", "a missing key", "name = \"vectors\"", ""),
        ("proof-of-61s", "proofs live 60 s at most", "proof = \"60s\"", "proof = \"61s\""),
        ("life-without-unit", "a duration has a unit", "proof = \"60s\"", "proof = \"60\""),
        ("offline-of-11m", "10 min offline at most", "offline = \"10m\"", "offline = \"11m\""),
        ("seventeen-consents", "16 consents at most", "traveler = 16", "traveler = 17"),
        ("grant-at-a-castle", "no category has this name", "[grants.station]", "[grants.castle]"),
        ("grant-without-level", "every grant has the level", "entry = [\"level\", ", "entry = ["),
        ("label-purple", "no level has this name", "\"黄码\" = \"yellow\"", "\"黄码\" = \"purple\""),
        ("labels-of-99", "no member has this code", "[labels.11]", "[labels.99]"),
        ("labels-without-default", "members without a table have the default", "[labels.default]", "[labels.12]"),
        ("rule-for-green", "green needs no rule", "levels = [\"yellow\"]", "levels = [\"green\"]"),
        ("rule-by-nobody", "an authority that is not listed", "authorities = [\"cdc\"]", "authorities = [\"tax\"]"),
        (
            "yellow-passes",
            "only a green may pass",
            "yellow = { decision = \"assist\"",
            "yellow = { decision = \"pass\"",
        ),
    ] {
        let bytes = sealed(set.signer, &swap(POLICY, from, to), edition(7));
        set.refused(id, R::ObjectMalformed, what).bytes(&bytes);
    }
}

/// How long access records are kept, and when travelers see them: a table that may be left out, and each key of it too.
fn access_logs(set: &mut Set<'_>) {
    let with = |keys: &str| format!("{POLICY}\n[access_log]\n{keys}\n");
    let most = "gateway_retention = \"30d\"\nhome_retention = \"3660d\"\nvisibility_delay = \"30d\"";
    add(set, "access-log", "as long as can be", &with(most), edition(7));
    add(set, "access-log-in-part", "the others have their defaults", &with("home_retention = \"1d\""), edition(7));
    for (id, what, keys) in [
        ("access-log-key-unknown", "an unknown key", "retention = \"1h\""),
        ("gateway-retention-of-31d", "a gateway keeps what it delivered 30 d at most", "gateway_retention = \"31d\""),
        ("home-retention-of-23h", "home keeps records a day at least", "home_retention = \"23h\""),
        ("home-retention-of-3661d", "and 3,660 d at most", "home_retention = \"3661d\""),
        ("visibility-delay-of-31d", "travelers wait 30 d at most", "visibility_delay = \"31d\""),
    ] {
        let bytes = sealed(set.signer, &with(keys), edition(7));
        set.refused(id, R::ObjectMalformed, what).bytes(&bytes);
    }
}
