//! Requests that are wrong whatever they show: fields, sizes, bytes, methods, and callers who ask for what is not theirs. And
//! what a venue refuses itself, before it asks anybody.

use proto::{
    contract::recognition::{RecognizeRequest, recognition_service_client::RecognitionServiceClient},
    identity::{PeerId, Realm},
    presentation::{MAX_TEXT_BYTES, PREFIX, Presentation},
    refusal::Reason,
    venue::VenueId,
};
use tonic::{
    Code::{InvalidArgument, PermissionDenied, ResourceExhausted, Unimplemented},
    Status,
    transport::Channel,
};

use crate::sandbox::{
    member, shared, still_serves, venue,
    want::{Want, want},
    wire::{self, Shown},
};

const RECOGNIZE: &str = "/tongxing.recognition.v1.RecognitionService/Recognize";

fn station() -> VenueId {
    venue("44/station/guangzhou-south")
}

async fn good() -> RecognizeRequest {
    let sandbox = shared();
    sandbox.request(&station(), &sandbox.green(member("51")).await)
}

/// A call at the shared gateway by whoever's credentials are in a directory.
async fn send(dir: &std::path::Path, request: RecognizeRequest) -> Result<(), Status> {
    let channel = wire::channel(&shared().desk.gateway_address().unwrap(), Some(&Shown::read(dir)));
    RecognitionServiceClient::new(channel).recognize(request).await.map(drop)
}

#[tokio::test]
async fn fields_that_are_missing_or_wrong() {
    let sandbox = shared();
    let (checkpoint, good) = (sandbox.at(&station()), good().await);
    let missing = |field| want(Reason::FieldMissing, InvalidArgument).field(field);
    let invalid = |field| want(Reason::FieldInvalid, InvalidArgument).field(field);
    let purpose = || want(Reason::PurposeUnknown, InvalidArgument).field("purpose");
    type Change = fn(&mut RecognizeRequest);
    let cases: Vec<(&str, Change, Want)> = vec![
        ("no token", |request| request.token.clear(), missing("token")),
        ("an empty request", |request| *request = RecognizeRequest::default(), purpose()),
        ("no purpose", |request| request.purpose = 0, purpose()),
        ("purpose 7", |request| request.purpose = 7, purpose()),
        ("purpose -1", |request| request.purpose = -1, purpose()),
        ("purpose 257", |request| request.purpose = 257, purpose()),
        ("an unknown scope bit", |request| request.scope = 1 + 64, invalid("scope")),
        ("a scope of 2^32 - 1", |request| request.scope = u32::MAX, invalid("scope")),
        ("a scope without the level", |request| request.scope = 4, invalid("scope")),
        ("a staff id with a space", |request| request.staff_id = "li 4".into(), invalid("staff_id")),
        ("a staff id in Chinese", |request| request.staff_id = "李".into(), invalid("staff_id")),
        ("a staff id of 33", |request| request.staff_id = "a".repeat(33), invalid("staff_id")),
        ("a venue without a name", |request| request.venue = "44/station".into(), invalid("venue")),
        ("a venue in upper case", |request| request.venue = "44/station/A".into(), invalid("venue")),
        ("a venue of 41 bytes", |request| request.venue = format!("44/station/{}", "a".repeat(30)), invalid("venue")),
        ("a venue with a phone number", |request| request.venue = "44/station/n13800138000".into(), invalid("venue")),
        ("a phone number for staff", |request| request.staff_id = "li-13800138000".into(), invalid("staff_id")),
        ("a category that is none", |request| request.venue = "44/castle/a".into(), invalid("venue")),
    ];
    for (name, change, want) in cases {
        let mut request = good.clone();
        change(&mut request);
        want.check(name, checkpoint.send(request).await);
        still_serves(&checkpoint, &good, name).await;
    }
    let longest = RecognizeRequest { staff_id: format!("a.b_c-{}.{}-abcd", "9".repeat(10), "9".repeat(10)), ..good };
    still_serves(&checkpoint, &longest, "a staff id as long as may be").await;
}

#[tokio::test]
async fn a_venue_of_a_member_that_is_none() {
    let (checkpoint, good) = (shared().at(&station()), good().await);
    let unknown = || want(Reason::MemberUnknown, InvalidArgument).field("venue");
    for (name, venue, want) in [
        ("two digits", "99/station/a", unknown().with("member", "99")),
        // Whatever has not the form of a code is not repeated.
        ("two letters", "xx/station/a", unknown()),
        ("a name", "王小明/station/a", unknown()),
    ] {
        let request = RecognizeRequest { venue: venue.into(), ..good.clone() };
        want.check(name, checkpoint.send(request).await);
        still_serves(&checkpoint, &good, name).await;
    }
}

#[tokio::test]
async fn venues_that_are_not_the_callers() {
    let (sandbox, good) = (shared(), good().await);
    let denied = |reason| want(reason, PermissionDenied);
    let layout = sandbox.layout();
    let (backend, at_station) = (layout.backend(member("44")), layout.venue(&station()));
    let naming = |venue: &str| RecognizeRequest { venue: venue.into(), ..good.clone() };
    let elsewhere = "11/station/beijing-west";
    let others = denied(Reason::VenueOfOtherMember).with("venue", elsewhere).with("member", "44");
    let next_door = "44/hospital/zhongshan-first";
    for (name, dir, request, want) in [
        ("a venue for another", &at_station, naming(elsewhere), denied(Reason::VenueNotYours).with("venue", elsewhere)),
        ("a venue next door", &at_station, naming(next_door), denied(Reason::VenueNotYours).with("venue", next_door)),
        ("a backend for 11", &backend, naming(elsewhere), others),
        (
            "a backend for a workplace",
            &backend,
            naming("44/workplace/mill"),
            denied(Reason::CategoryNotGranted).with("category", "workplace"),
        ),
        ("a backend for nobody", &backend, naming(""), want(Reason::FieldMissing, InvalidArgument).field("venue")),
        (
            "a backend's empty request",
            &backend,
            RecognizeRequest::default(),
            want(Reason::FieldMissing, InvalidArgument).field("venue"),
        ),
    ] {
        want.check(name, send(dir, request).await);
        send(&at_station, good.clone()).await.unwrap_or_else(|status| panic!("after {name}: {status:?}"));
    }
}

#[tokio::test]
async fn roles_that_may_not_ask() {
    let (sandbox, good) = (shared(), good().await);
    let (layout, dir) = (sandbox.layout(), tempfile::tempdir().unwrap());
    let feed = sandbox.layout().domain().parse_spiffe_id("spiffe://44.tongxing.test/feed/lab-1").unwrap();
    let feed = sandbox.certify(&feed, Realm::Member(member("44")), dir.path());
    let replica = sandbox.certify(&PeerId::gateway("2").unwrap(), Realm::Gateway, dir.path());
    for (role, peer) in [
        ("operator", layout.operator(member("44"))),
        ("node", layout.node(member("44"))),
        ("feed", feed),
        ("gateway", replica),
    ] {
        let refused = want(Reason::RoleNotAllowed, PermissionDenied).with("role", role).with("method", "Recognize");
        refused.check(role, send(&peer, good.clone()).await);
    }
    still_serves(&sandbox.at(&station()), &good, "four roles that may not ask").await;
}

async fn raw(path: &'static str, message: Vec<u8>) -> Result<Vec<u8>, Status> {
    let shown = Shown::read(&shared().layout().venue(&station()));
    let channel: Channel = wire::channel(&shared().desk.gateway_address().unwrap(), Some(&shown));
    wire::call(channel, path, message).await
}

#[tokio::test]
async fn messages_that_are_none() {
    let (sandbox, good) = (shared(), good().await);
    let checkpoint = sandbox.at(&station());
    let malformed = want(Reason::RequestMalformed, InvalidArgument);
    let unknown = want(Reason::MethodUnknown, Unimplemented);
    let large = want(Reason::RequestTooLarge, ResourceExhausted).with("max_bytes", 16 * 1024);
    let encoded = prost::Message::encode_to_vec(&good);
    for (name, path, message, want) in [
        ("noise", RECOGNIZE, vec![0xff; 100], &malformed),
        ("a message cut short", RECOGNIZE, encoded[..encoded.len() / 2].to_vec(), &malformed),
        ("a venue that is not UTF-8", RECOGNIZE, vec![0x1a, 1, 0xff], &malformed),
        ("no bytes at all", RECOGNIZE, Vec::new(), &want(Reason::PurposeUnknown, InvalidArgument).field("purpose")),
        ("5 MB", RECOGNIZE, vec![0x0a; 5_000_000], &large),
        ("a byte too much", RECOGNIZE, vec![0x0a; 16 * 1024 + 1], &large),
        ("another method", "/tongxing.recognition.v1.RecognitionService/Recognise", encoded.clone(), &unknown),
        ("another service", "/tongxing.recognition.v2.RecognitionService/Recognize", encoded.clone(), &unknown),
        ("the node's service", "/tongxing.province.v1.ProvinceService/Lookup", encoded.clone(), &unknown),
    ] {
        want.check(name, raw(path, message).await);
        still_serves(&checkpoint, &good, name).await;
    }
    raw(RECOGNIZE, encoded).await.expect("the same bytes, whole, get an answer");
}

#[test]
fn presentations_that_no_venue_sends_on() {
    let text = |bytes: &[u8]| format!("{PREFIX}{}", base45(bytes));
    let at = |reason| want(reason, InvalidArgument).about("presentation");
    let malformed = |detail: &str| at(Reason::ObjectMalformed).with("detail", detail);
    for (name, text, want) in [
        ("an EU certificate", "HC1:6BF".to_owned(), at(Reason::PrefixUnknown)),
        ("nothing", String::new(), at(Reason::PrefixUnknown)),
        ("lower case", format!("{PREFIX}abc"), at(Reason::NotBase45)),
        ("a code without content", PREFIX.to_owned(), at(Reason::NotCbor)),
        ("cut short", text(&[0x84, 1]), at(Reason::NotCbor)),
        ("a byte behind it", text(&[0x80, 0]), at(Reason::TrailingBytes)),
        ("a longer encoding", text(&[0x98, 0]), at(Reason::NotDeterministic)),
        ("an empty array", text(&[0x80]), malformed("not an array of four")),
        ("version 2", text(&[0x84, 2, 0x40, 0xf6, 0x40]), malformed("not version 1")),
        ("4 KiB", "T".repeat(MAX_TEXT_BYTES + 1), at(Reason::ObjectTooLarge).with("max_bytes", MAX_TEXT_BYTES)),
    ] {
        want.unsent().check(name, Presentation::from_text(&text).map_err(|refusal| refusal.to_status()));
    }
}

/// RFC 9285, by hand: an independent encoder.
fn base45(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 45] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:";
    let digits = |mut number: usize, count: usize| {
        let mut out = String::new();
        for _ in 0..count {
            out.push(char::from(ALPHABET[number % 45]));
            number /= 45;
        }
        out
    };
    let chunk = |chunk: &[u8]| match chunk {
        [high, low] => digits(usize::from(*high) * 256 + usize::from(*low), 3),
        [last] => digits(usize::from(*last), 2),
        _ => String::new(),
    };
    bytes.chunks(2).map(chunk).collect()
}
