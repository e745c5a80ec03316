//! `access-record.json`.

use std::sync::Arc;

use ciborium::Value;
use proto::{
    contract::recognition::{Outcome, Source},
    identity::PeerId,
    log::record::{Caller, Ending, Entry, MAX_RECORD_BYTES, RefusalEntry},
    refusal::Reason as R,
    suite::sha256,
    terms::{Kind, Purpose, Scope},
    token::{Cti, TokenHash},
};
use serde_json::json;

use crate::{
    bend, claims,
    fixtures::{self, NOW, STATION, green, noise, secs},
    json::{Context, File, Operation},
    set::Set,
    sign::{Signer, bytes},
    token,
};

const SOURCE: i64 = 10;

/// The file.
pub(crate) fn file(signer: &Signer) -> File {
    let mut set = Set::new(signer, "access-record", Operation::ReadRecord, Context::default());
    valid(&mut set);
    let good = entry(signer).encode();
    encoding(&mut set, &good);
    entries(&mut set, &good);
    endings(&mut set, &good);
    set.operation = Operation::ReadRefusalRecord;
    refusals(&mut set);
    set.file(
        "What stands on an access log for one exchange. read_record: is it one, and what of the granted scope went \
         out? read_refusal_record: is it what a replica's own log has of a call that it refused before the token \
         verified?",
        &[],
    )
}

/// The exchange that the vectors of statements are of: by the member's own backend, answered with statement/green.
pub(crate) fn entry(signer: &Signer) -> Entry {
    let token = TokenHash::of(&token::signed(signer, &fixtures::own(signer), "44-consent").bytes());
    let statement = green(token.short()).sign(signer.key("44-statement"));
    Entry {
        time: NOW.minus(secs(1)),
        venue: Arc::new(STATION.parse().unwrap()),
        caller: (&PeerId::backend("44".parse().unwrap(), "yuekangma").unwrap()).into(),
        staff_id: Some("gate-3_Li.W".into()),
        purpose: Purpose::Travel,
        granted: Some(Scope::from_bits(33).unwrap()),
        cti: Cti(noise("the own token's cti")),
        kind: Kind::Own,
        policy_version: 7,
        exchange_id: noise("an exchange"),
        trace_id: noise("a trace"),
        ending: Ending::Answered {
            outcome: Outcome::Status,
            source: Source::Home,
            statement: Some(sha256(&statement)[..16].try_into().unwrap()),
        },
    }
}

/// With another ending, and nothing granted.
pub(crate) fn refused(signer: &Signer, ending: Ending) -> Entry {
    Entry { staff_id: None, granted: None, ending, ..entry(signer) }
}

/// As long as a record can be.
pub(crate) fn longest(signer: &Signer) -> Entry {
    let venue = format!("44/residential/{}", "v".repeat(25));
    Entry {
        caller: (&PeerId::venue(venue.parse().unwrap())).into(),
        venue: Arc::new(venue.parse().unwrap()),
        staff_id: Some("s".repeat(32)),
        policy_version: u64::MAX,
        ending: Ending::Refused("R".repeat(40).into()),
        ..entry(signer)
    }
}

/// A call that was refused before its token verified.
pub(crate) fn refusal(caller: Caller) -> RefusalEntry {
    RefusalEntry { time: NOW.minus(secs(1)), caller, reason: "NOT_CBOR".into() }
}

fn valid(set: &mut Set<'_>) {
    let (answered, longest) = (entry(set.signer), longest(set.signer));
    let other = |outcome, source| Ending::Answered { outcome, source, statement: None };
    let mut add = |id: &str, what: &str, entry: &Entry, disclosed: Option<u8>| {
        let vector = set.valid(id, what).claims(claims::of_entry(entry)).bytes(&entry.encode());
        vector.result = Some(json!({ "disclosed": disclosed }));
    };
    add("answered", "a status of home's went out, with the hash of its statement", &answered, Some(33));
    let venues = (&PeerId::venue(STATION.parse().unwrap())).into();
    let cached = Entry { caller: venues, staff_id: None, ..answered.clone() };
    add("by-the-venue-itself", "the venue called; nobody said which member of staff", &cached, Some(33));
    let ending = other(Outcome::Undetermined, Source::Cache);
    let undetermined = Entry { ending, ..answered.clone() };
    add("undetermined", "a label without a level went out too", &undetermined, Some(33));
    let ending = other(Outcome::Unsubstantiated, Source::Home);
    add(
        "unsubstantiated",
        "granted, and neither level nor label went out",
        &Entry { ending, ..answered.clone() },
        None,
    );
    let ending = other(Outcome::UnknownTraveler, Source::Home);
    add("unknown-traveler", "home knows nobody by it", &Entry { ending, ..answered.clone() }, None);
    let ending = other(Outcome::HomeUnreachable, Source::Unspecified);
    add("home-unreachable", "no status, and so none from anywhere", &Entry { ending, ..answered.clone() }, None);
    let early = refused(set.signer, Ending::refused(R::AudienceMismatch));
    let mut add = |id: &str, what: &str, entry: &Entry| {
        let vector = set.valid(id, what).claims(claims::of_entry(entry)).bytes(&entry.encode());
        vector.result = Some(json!({ "disclosed": null }));
    };
    add("refused", "refused before anything was granted", &early);
    let late = Entry { ending: Ending::refused(R::ConsentRevoked), ..answered.clone() };
    add("refused-by-home", "granted, and then refused: nothing went out", &late);
    let later = Entry { ending: Ending::Refused("OF_VERSION_2".into()), ..early };
    add("reason-of-a-later-version", "a reason that this version does not know is one", &later);
    add("longest", "everything is as long as can be, the policy's version is 2^64 − 1", &longest);
}

/// What is no encoding, or not the one there is.
fn encoding(set: &mut Set<'_>, good: &[u8]) {
    let too_many = set.refused("of-513-bytes", R::ObjectTooLarge, "a byte more than a record may have").bytes(&[0]);
    too_many.repeat = Some(MAX_RECORD_BYTES + 1);
    let mut add = |id: &str, reason: R, what: &str, bytes: Vec<u8>| set.bad(id, reason, what, &bytes);
    add("empty", R::NotCbor, "no bytes at all", vec![]);
    add("truncated", R::NotCbor, "the last byte is missing", good[..good.len() - 1].to_vec());
    add("trailing-byte", R::TrailingBytes, "a byte follows the record", [good, &[0]].concat());
    add("long-map-head", R::NotDeterministic, "the map's length in a byte of its own", bend::long_head(good));
    add("indefinite-map", R::NotDeterministic, "the map has an indefinite length", bend::indefinite(good));
    add("tagged", R::NotDeterministic, "self-described CBOR (tag 55799)", [&[0xd9, 0xd9, 0xf7], good].concat());
    add("unsorted", R::NotDeterministic, "the first two entries change places", bend::unsorted(good));
    add("entry-twice", R::NotDeterministic, "the first entry is there twice", bend::doubled(good));
    let float = bend::with_raw(good, 1, &[0xfa, 0x4e, 0xd6, 0x93, 0xa4]);
    add("float", R::NotDeterministic, "the time is a float", float);
    add("an-array", R::ObjectMalformed, "an array instead of the map", vec![0x80]);
    let text_key = [bend::entries(good), vec![(vec![0x61, 0x78], vec![1])]].concat();
    add("text-key", R::ObjectMalformed, "an entry whose key is a text", bend::join(&text_key));
}

/// Entries that are not of their form.
fn entries(set: &mut Set<'_>, good: &[u8]) {
    let mut add = |id: &str, what: &str, key: i64, to: Option<Value>| {
        set.bad(id, R::ObjectMalformed, what, &bend::with(good, &[key], to));
    };
    add("entry-unknown", "99 is not in the layout: refused, never skipped", 99, Some(1.into()));
    add("time-missing", "there is no time", 1, None);
    add("time-beyond-9999", "the first second of the year 10000", 1, Some(253_402_300_800_u64.into()));
    add("venue-at-a-castle", "no category is called so", 2, Some("44/castle/x".into()));
    add("venue-of-nobody", "no member has the code 99", 2, Some("99/station/x".into()));
    add("venue-with-a-long-number", "11 digits in a row could be anybody's", 2, Some("44/station/13800138000".into()));
    add("caller-of-two-parts", "a peer has a realm, a role and a name", 3, Some("44/backend".into()));
    add("caller-of-five-parts", "a part too many", 3, Some("44/venue/station/a/b".into()));
    add("caller-of-a-word", "a realm is two digits, or the gateway", 3, Some("guangdong/backend/app".into()));
    add("caller-upper-case", "names are lower-case", 3, Some("44/backend/App".into()));
    add("caller-with-a-hyphen-last", "hyphens are within names", 3, Some("44/backend/app-".into()));
    add("caller-of-97-bytes", "it is too long", 3, Some(format!("44/backend/{}", "a".repeat(86)).into()));
    add("staff-null", "what is not there is left out", 4, Some(Value::Null));
    add("staff-of-33-bytes", "it is too long", 4, Some("s".repeat(33).into()));
    add("staff-in-chinese", "letters, digits, and . _ -", 4, Some("李".into()));
    add("purpose-0", "no purpose has the number 0", 5, Some(0.into()));
    add("purpose-7", "no purpose has the number 7", 5, Some(7.into()));
    add("scope-none", "what was not granted is left out", 6, Some(0.into()));
    add("scope-64", "there are six bits", 6, Some(64.into()));
    add("cti-of-15-bytes", "the handle has 15 bytes", 7, Some(bytes(&[7; 15])));
    add("kind-5", "no kind has the number 5", 8, Some(5.into()));
    add("policy-text", "the policy's version is a text", 12, Some("7".into()));
    add("exchange-of-15-bytes", "the exchange's id has 15 bytes", 13, Some(bytes(&[7; 15])));
    add("trace-missing", "there is no trace", 15, None);
}

/// How it ended: with an answer or a refusal, and with what belongs to it.
fn endings(set: &mut Set<'_>, good: &[u8]) {
    let refused = refused(set.signer, Ending::refused(R::AudienceMismatch)).encode();
    let mut add = |id: &str, what: &str, record: &[u8], key: i64, to: Option<Value>| {
        set.bad(id, R::ObjectMalformed, what, &bend::with(record, &[key], to));
    };
    add("outcome-0", "no outcome has the number 0", good, 9, Some(0.into()));
    add("outcome-6", "no outcome has the number 6", good, 9, Some(6.into()));
    add("source-missing", "an answer says where its status came from", good, SOURCE, None);
    add("source-4", "no source has the number 4", good, SOURCE, Some(4.into()));
    add("statement-of-32-bytes", "the whole hash instead of its first half", good, 11, Some(bytes(&[1; 32])));
    add("answered-and-refused", "it has an outcome and a reason", good, 14, Some("EXPIRED".into()));
    add("neither-answered-nor-refused", "it has no reason and no outcome", &refused, 14, None);
    add("refused-with-a-source", "a refusal has no source", &refused, SOURCE, Some(1.into()));
    add("refused-with-a-statement", "a refusal has no statement", &refused, 11, Some(bytes(&[1; 16])));
    add("reason-lower-case", "reasons are upper-case", &refused, 14, Some("expired".into()));
    add("reason-of-41-bytes", "it is too long", &refused, 14, Some("R".repeat(41).into()));
    add("reason-number", "a reason's number instead of its name", &refused, 14, Some(21.into()));
}

/// What a replica's own log has.
fn refusals(set: &mut Set<'_>) {
    let (replicas, backends) = (PeerId::gateway("1").unwrap(), entry(set.signer).caller);
    let good = refusal(backends);
    for (id, what, entry) in [
        ("refusal", "the token was no CBOR: nothing of it is here", &good),
        ("refusal-of-a-replica", "another replica called", &refusal((&replicas).into())),
    ] {
        set.valid(id, what).claims(claims::of_refusal(entry)).bytes(&entry.encode());
    }
    let with_more = entry(set.signer).encode();
    set.bad("refusal-with-more", R::ObjectMalformed, "a whole record says more than a refusal may", &with_more);
    let mut add = |id: &str, what: &str, key: i64, to: Option<Value>| {
        set.bad(id, R::ObjectMalformed, what, &bend::with(&good.encode(), &[key], to));
    };
    add("refusal-with-a-cti", "nothing of the token is in it", 7, Some(bytes(&[7; 16])));
    add("refusal-of-nobody", "there is no caller", 3, None);
    add("refusal-without-reason", "there is no reason", 14, None);
    add("refusal-reason-lower-case", "reasons are upper-case", 14, Some("not_cbor".into()));
    set.bad("refusal-truncated", R::NotCbor, "the last byte is missing", &good.encode()[..good.encode().len() - 1]);
}
