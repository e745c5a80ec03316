//! `checkpoint.json`.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use proto::{
    identity::Realm,
    log::{
        LogId,
        checkpoint::{Checkpoint, MAX_NOTE_BYTES},
        merkle::empty_root,
    },
    refusal::Reason as R,
    suite::sha256,
};
use serde_json::json;

use crate::{
    claims,
    fixtures::{noise, public, trust_list},
    json::{Context, File, Operation, hex},
    set::Set,
    sign::Signer,
};

/// The file.
pub(crate) fn file(signer: &Signer) -> File {
    let context = Context { trust_list: Some("trust-list/plain".into()), ..Context::default() };
    let mut set = Set::new(signer, "checkpoint", Operation::OpenCheckpoint, context);
    valid(&mut set);
    witnessed(&mut set);
    forms(&mut set);
    lines(&mut set);
    signature_lines(&mut set);
    keys(&mut set);
    set.file(
        "A log's signed head: a checkpoint (C2SP tlog-checkpoint) in a signed note (C2SP signed-note), in `text`. \
         open_checkpoint: did the log's own key, which the trust list has, sign it, and what does it say?",
        &["gateway-log", "stranger", "44-statement"],
    )
}

fn head(signer: &Signer) -> Checkpoint {
    let owner = Realm::Member("44".parse().unwrap());
    Checkpoint {
        log: LogId::of(&public(signer, "gateway-log")),
        owner,
        size: 1042,
        root: noise("the root of 44's log"),
    }
}

fn origin(head: &Checkpoint) -> String {
    format!("tongxing.test/access-log/{}/{}", head.owner, head.log)
}

/// The three lines.
fn text(head: &Checkpoint) -> String {
    format!("{}\n{}\n{}\n", origin(head), head.size, STANDARD.encode(head.root))
}

/// A line of a signature: key hash and signature, by the number of the algorithm.
fn line(signer: &Signer, name: &str, key: &str, algorithm: u8, text: &str) -> String {
    let (public, signature) = (public(signer, key), signer.signature(key, text.as_bytes()));
    let hash = sha256(&[name.as_bytes(), b"\n", &[algorithm], public.encoded()].concat());
    format!("— {name} {}\n", STANDARD.encode([&hash[..4], &signature].concat()))
}

/// Any text, signed as a checkpoint of this origin.
fn note(signer: &Signer, origin: &str, text: &str) -> String {
    format!("{text}\n{}", line(signer, origin, "gateway-log", 1, text))
}

fn add(set: &mut Set<'_>, id: &str, what: &str, head: &Checkpoint, note: String) {
    let vector = set.valid(id, what);
    vector.text = Some(note);
    vector.result = Some(json!({
        "log_id": hex(&head.log.0),
        "log": head.owner.to_string(),
        "size": head.size.to_string(),
        "root": hex(&head.root),
    }));
}

fn valid(set: &mut Set<'_>) {
    let signer = set.signer;
    let plain = head(signer);
    for (id, what, head) in [
        ("plain", "44's log, of 1,042 records", plain),
        (
            "empty-log",
            "no record: its root is the SHA-256 of nothing",
            Checkpoint { size: 0, root: empty_root(), ..plain },
        ),
        ("size-of-64-bits", "2^64 − 1 records", Checkpoint { size: u64::MAX, ..plain }),
        ("of-the-replica", "the replica's own log", Checkpoint { owner: Realm::Gateway, ..plain }),
    ] {
        let note = head.sign(&trust_list(signer).domain, signer.key("gateway-log"));
        assert_eq!(note, self::note(signer, &origin(&head), &text(&head)));
        add(set, id, what, &head, note.clone());
        let vector = set.last().claims(claims::of_checkpoint(&head)).bytes(note.as_bytes());
        vector.signed_by = vec!["gateway-log".to_owned()];
    }
}

/// Signatures of others, which nobody needs to know.
fn witnessed(set: &mut Set<'_>) {
    let signer = set.signer;
    let head = head(signer);
    let (origin, text) = (origin(&head), text(&head));
    let own = line(signer, &origin, "gateway-log", 1, &text);
    let witness = line(signer, "witness.test/w", "stranger", 1, &text);
    let another = line(signer, &origin, "stranger", 1, &text);
    let noise = format!("— w {}\n", STANDARD.encode([0; 5]));
    add(set, "witnessed", "a witness signed too", &head, format!("{text}\n{own}{witness}"));
    add(set, "witnessed-first", "a witness signed before the log", &head, format!("{text}\n{witness}{own}"));
    add(
        set,
        "another-key-first",
        "another key of the same name signed before",
        &head,
        format!("{text}\n{another}{own}"),
    );
    let (eight, nine) = (noise.repeat(7), noise.repeat(8));
    add(set, "eight-signatures", "as many as can be", &head, format!("{text}\n{eight}{own}"));
    let mut refused = |id: &str, reason: R, what: &str, note: String| set.refused(id, reason, what).text = Some(note);
    refused("nine-signatures", R::ObjectMalformed, "one too many", format!("{text}\n{nine}{own}"));
    refused("a-witness-alone", R::SignatureInvalid, "the log's own signature is missing", format!("{text}\n{witness}"));
    let room = |bytes| MAX_NOTE_BYTES + bytes - format!("{text}\n{own}").len();
    let padded = |bytes: usize| {
        let (name, signature) = ("w", STANDARD.encode([0; 5]));
        let name = name.repeat(room(bytes) - "—  \n".len() - signature.len());
        format!("{text}\n{own}— {name} {signature}\n")
    };
    add(set, "of-1024-bytes", "as long as a note can be", &head, padded(0));
    let too_large = padded(1);
    assert_eq!(too_large.len(), MAX_NOTE_BYTES + 1);
    set.refused("of-1025-bytes", R::ObjectTooLarge, "one byte more").text = Some(too_large);
}

/// What is no signed note.
fn forms(set: &mut Set<'_>) {
    let head = head(set.signer);
    let (text, good) = (text(&head), note(set.signer, &origin(&head), &text(&head)));
    let mut refused = |id: &str, what: &str, note: String| {
        set.refused(id, R::ObjectMalformed, what).text = Some(note);
    };
    refused("nothing", "no text at all", String::new());
    refused("text-alone", "nothing is signed", text.clone());
    refused("no-signature", "an empty line, and no signature behind it", format!("{text}\n"));
    refused("no-empty-line", "the signature follows the root", good.replacen("\n\n", "\n", 1));
    refused("no-last-line-break", "the last line does not end", good.trim_end().to_owned());
    refused("empty-last-line", "an empty line follows", format!("{good}\n"));
    refused("hyphen", "a hyphen where signed notes have a dash (U+2014)", good.replace('—', "-"));
}

/// Well signed, and what is signed is no checkpoint of this federation.
fn lines(set: &mut Set<'_>) {
    let signer = set.signer;
    let head = head(signer);
    let (origin, root) = (origin(&head), STANDARD.encode(head.root));
    let mut of = |id: &str, what: &str, origin: &str, lines: &[&str]| {
        let text = lines.iter().fold(format!("{origin}\n"), |text, line| text + line + "\n");
        set.refused(id, R::ObjectMalformed, what).text = Some(note(signer, origin, &text));
    };
    let mut place = |id: &str, what: &str, from: &str, to: &str| {
        of(id, what, &origin.replacen(from, to, 1), &["1042", &root]);
    };
    place("of-another-federation", "the domain is another", "tongxing.test", "elsewhere.test");
    place("of-another-log", "a log, and not one of accesses", "access-log", "trust-log");
    place("of-nobody", "no member has the code 99", "/44/", "/99/");
    place("log-id-upper-case", "digits are lower-case", &head.log.to_string(), &head.log.to_string().to_uppercase());
    place("log-id-short", "the id of the key, 8 bytes, instead of the log's", &head.log.to_string()[16..], "");
    let mut size = |id: &str, what: &str, size: &str| of(id, what, &origin, &[size, &root]);
    size("size-0-in-front", "a size has no leading zero", "01042");
    size("size-with-a-sign", "a size has no sign", "+1042");
    size("size-negative", "a size is not negative", "-1");
    size("size-beyond-64-bits", "2^64", "18446744073709551616");
    size("size-with-a-space", "nothing is trimmed", " 1042");
    size("size-empty", "the line is there, and empty: it ends the text", "");
    size("size-hexadecimal", "a size is decimal", "0x412");
    let mut rooted = |id: &str, what: &str, root: &str| of(id, what, &origin, &["1042", root]);
    rooted("root-of-31-bytes", "the root is short", &STANDARD.encode([7; 31]));
    rooted("root-without-padding", "base64 is padded here", root.trim_end_matches('='));
    rooted("root-in-hexadecimal", "the root is in base64", &hex(&head.root));
    // The last digit before the padding has two bits that say nothing: they are zero.
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let last = digits.iter().position(|digit| *digit == root.as_bytes()[42]).unwrap();
    let lax = format!("{}{}=", &root[..42], char::from(digits[last + 1]));
    rooted("root-with-bits-behind", "one root has one base64", &lax);
    rooted("root-for-urls", "the digits are + and /", &STANDARD.encode([0xff; 32]).replace('/', "_"));
    of("two-lines", "there is no root", &origin, &["1042"]);
    of("four-lines", "a line follows the root: extensions are not taken", &origin, &["1042", &root, "more"]);
    let returns = format!("{origin}\r\n1042\r\n{root}\r\n");
    set.refused("carriage-returns", R::ObjectMalformed, "lines end in line breaks alone").text =
        Some(note(signer, &origin, &returns));
}

/// Signatures that are none.
fn signature_lines(set: &mut Set<'_>) {
    let signer = set.signer;
    let head = head(signer);
    let (origin, text) = (origin(&head), text(&head));
    let own = line(signer, &origin, "gateway-log", 1, &text);
    let encoded = own.trim_end().rsplit(' ').next().unwrap();
    let signature = STANDARD.decode(encoded).unwrap();
    let mut by = |id: &str, reason: R, what: &str, lines: &str| {
        set.refused(id, reason, what).text = Some(format!("{text}\n{lines}"));
    };
    let with = |bytes: &[u8]| format!("— {origin} {}\n", STANDARD.encode(bytes));
    let without_name = own.replace(&origin, "");
    by("signature-without-name", R::ObjectMalformed, "nobody signed it", &without_name);
    by("signature-of-4-bytes", R::ObjectMalformed, "a key's hash, and no signature", &with(&signature[..4]));
    let starred = format!("*{}", &encoded[1..]);
    by("signature-not-base64", R::ObjectMalformed, "a digit is none", &own.replacen(encoded, &starred, 1));
    by("signature-without-padding", R::ObjectMalformed, "base64 is padded here", &own.replace('=', ""));
    by(
        "signature-with-two-spaces",
        R::ObjectMalformed,
        "one space is between name and signature",
        &own.replacen(&format!("{origin} "), &format!("{origin}  "), 1),
    );
    let mut flipped = signature.clone();
    flipped[67] ^= 1;
    by("signature-flipped", R::SignatureInvalid, "one bit of the signature is another", &with(&flipped));
    by("signature-of-63-bytes", R::SignatureInvalid, "its last byte is missing", &with(&signature[..67]));
    by("signature-of-65-bytes", R::SignatureInvalid, "a byte follows it", &with(&[&signature[..], &[0]].concat()));
    let mut hash = signature.clone();
    hash[0] ^= 1;
    by("key-hash-flipped", R::SignatureInvalid, "the signature is of another key, by its hash", &with(&hash));
    let other_name = own.replacen(&origin, "witness.test/w", 1);
    by("under-another-name", R::SignatureInvalid, "the signature is of another name", &other_name);
    by(
        "of-another-algorithm",
        R::SignatureInvalid,
        "the key's hash is that of a cosignature, 4",
        &line(signer, &origin, "gateway-log", 4, &text),
    );
    let short = signer.signature("gateway-log", text.trim_end().as_bytes());
    by(
        "signed-without-line-break",
        R::SignatureInvalid,
        "the text ends with its line break: that is signed too",
        &with(&[&signature[..4], &short].concat()),
    );
    let longer = signer.signature("gateway-log", format!("{text}\n").as_bytes());
    by(
        "signed-with-the-empty-line",
        R::SignatureInvalid,
        "the empty line is not of the text",
        &with(&[&signature[..4], &longer].concat()),
    );
}

/// Whose key it is, and whether it signed this.
fn keys(set: &mut Set<'_>) {
    let signer = set.signer;
    let head = head(signer);
    let good = note(signer, &origin(&head), &text(&head));
    let mut refused = |id: &str, reason: R, what: &str, note: String| set.refused(id, reason, what).text = Some(note);
    let by = |log: LogId, key: &str| {
        let head = Checkpoint { log, ..head };
        format!("{}\n{}", text(&head), line(signer, &origin(&head), key, 1, &text(&head)))
    };
    let id = |key: &str| LogId::of(&public(signer, key));
    refused("of-a-stranger", R::KeyUnknown, "the trust list does not have its key", by(id("stranger"), "stranger"));
    let statement = by(id("44-statement"), "44-statement");
    refused("key-of-another-use", R::KeyUnknown, "44's statement key signs no logs: one key, one use", statement);
    let mut same = id("gateway-log");
    same.0[31] ^= 1;
    refused(
        "log-id-of-the-same-kid",
        R::KeyUnknown,
        "the first 8 bytes are the key's, the last is not",
        by(same, "gateway-log"),
    );
    refused(
        "signed-by-a-stranger",
        R::SignatureInvalid,
        "the gateway's log, a stranger's signature",
        by(id("gateway-log"), "stranger"),
    );
    refused(
        "size-changed",
        R::SignatureInvalid,
        "another size under the old signature",
        good.replacen("1042", "1043", 1),
    );
    let root = good.replacen(&STANDARD.encode(head.root), &STANDARD.encode(noise::<32>("another root")), 1);
    refused("root-changed", R::SignatureInvalid, "another root under the old signature", root);
    refused(
        "member-changed",
        R::SignatureInvalid,
        "another member's log, in the name too",
        good.replace("/44/", "/11/"),
    );
}
