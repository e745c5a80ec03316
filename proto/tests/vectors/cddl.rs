//! The layouts held to the code and the code to the layouts: what is valid has its layout, in the vectors and at
//! random, and no number in a layout can be another without a vector that shows it.
//!
//! The validator does not anchor `.regexp`, which RFC 8610 does: that texts have their form is checked by another one,
//! in `tests/cddl.py`.

use std::{collections::BTreeSet, fs, path::Path, sync::Arc, time::Duration};

use cddl::{
    cddl_from_str,
    validator::{Validator as _, cbor::CBORValidator, cbor_value::decode_cbor},
};
use proptest::{collection::vec, option, prelude::*, sample::select};
use proto::{
    consent_request::ConsentRequest,
    envelope::Roots,
    member::Member,
    policy::Policy,
    presentation::{HintKey, Presentation},
    proof::prove,
    random::SystemRandom,
    statement::Status,
    terms::Category,
    time::UnixTime,
    token::{Consent, Cti, TokenHash},
    trust::{GatewayTrust, MemberTrust, Suspension, TrustList},
    venue::VenueId,
};

use crate::{
    fixtures::{POLICY, edition},
    generate::{consent, delivery_receipt, device, entry, issuer, member, receipt_by, request, status, time, venue},
    json::{self, File, Operation, VALID, Vector},
};

/// All layouts.
const LAYOUTS: [&str; 12] = [
    "access-receipt",
    "access-record",
    "consent-request",
    "consent-token",
    "cose",
    "delivery-receipt",
    "envelope",
    "policy",
    "presentation",
    "proof",
    "statement",
    "trust-list",
];

fn layout(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("{name}.cddl"))).unwrap()
}

/// The layout with another rule in front: the first one is what an object must be.
fn rooted(layout: &str, rule: &str) -> String {
    format!("start = {rule}\n{layout}")
}

/// What a layout must be true of: bytes, and the rule that they follow.
struct Instance {
    of: String,
    rule: &'static str,
    bytes: Vec<u8>,
}

/// Checks objects against a layout; the error names the first that is not of it.
fn check_all(layout: &str, instances: &[Instance]) -> Result<(), String> {
    let rules: BTreeSet<_> = instances.iter().map(|instance| instance.rule).collect();
    for rule in rules {
        let layout = rooted(layout, rule);
        // A layout that does not parse would refuse everything.
        let layout = cddl_from_str(&layout, false).expect("the layout parses");
        for Instance { of, bytes, .. } in instances.iter().filter(|instance| instance.rule == rule) {
            let value = decode_cbor(bytes).expect("it is CBOR");
            CBORValidator::new(&layout, value, None).validate().map_err(|error| format!("{of}: {error}"))?;
        }
    }
    Ok(())
}

/// The kinds that are one COSE_Sign1, as cose.cddl has it.
const SIGN1: [&str; 5] = ["consent-request", "consent-token", "proof", "statement", "delivery-receipt"];

/// Valid objects of a layout, from the vectors: of its own file, or of all files for cose.cddl and envelope.cddl.
fn instances(files: &[File], name: &str) -> Vec<Instance> {
    let of_layout = |file: &&File| match name {
        "cose" => SIGN1.contains(&file.kind.as_str()),
        "envelope" => ["trust-list", "policy"].contains(&file.kind.as_str()),
        name => file.kind == name,
    };
    let vectors =
        files.iter().filter(of_layout).flat_map(|file| &file.vectors).filter(|vector| vector.verdict == VALID);
    vectors.flat_map(|vector| instances_of(vector, name)).collect()
}

fn instances_of(vector: &Vector, name: &str) -> Vec<Instance> {
    let instance = |rule, bytes: &[u8]| Instance { of: vector.id.clone(), rule, bytes: bytes.to_vec() };
    let rule = match name {
        "access-receipt" => "access-receipt",
        "access-record" if vector.operation == Operation::ReadRefusalRecord => "refusal-record",
        "access-record" => "access-record",
        "consent-request" => "consent-request",
        "consent-token" => "consent-token",
        "cose" => "signed-object",
        "delivery-receipt" => "delivery-receipt",
        "envelope" => "envelope",
        "policy" => "policy",
        "presentation" => "presentation",
        "proof" => "proof",
        "statement" => "statement",
        "trust-list" => "trust-list",
        _ => unreachable!("no layout {name}"),
    };
    let mut all = vec![instance(rule, &vector.object_bytes())];
    if ["cose", "envelope"].contains(&name) {
        let signatures = vector.parts.iter().flat_map(|parts| &parts.signatures);
        all.extend(signatures.map(|by| instance("sig-structure", &by.sig_structure.0)));
    }
    all
}

#[test]
fn valid_vectors_have_their_layout() {
    let files = json::all();
    for name in LAYOUTS {
        let (layout, instances) = (layout(name), instances(&files, name));
        assert!(!instances.is_empty(), "nothing is valid under {name}.cddl");
        assert_eq!(check_all(&layout, &instances), Ok(()), "{name}.cddl");
    }
}

#[test]
fn every_number_of_every_layout_counts() {
    let files = json::all();
    let (mut changed, mut unseen) = (0, Vec::new());
    for name in LAYOUTS {
        let (layout, instances) = (layout(name), instances(&files, name));
        for mutant in mutants(&layout) {
            changed += 1;
            if check_all(&mutant.layout, &instances).is_ok() {
                unseen.push(format!("{name}.cddl:{}: {}", mutant.line, mutant.what));
            }
        }
    }
    assert!(unseen.is_empty(), "no valid vector would show these: {unseen:#?}");
    assert!(changed > 180, "only {changed} numbers were changed");
}

/// A layout with one number changed.
struct Mutant {
    line: usize,
    what: String,
    layout: String,
}

/// Every key of a map, every fixed value of one, and every named number, each made 100 more.
fn mutants(layout: &str) -> Vec<Mutant> {
    let mut mutants = Vec::new();
    for (number, line) in layout.lines().enumerate() {
        let code = line.split(';').next().unwrap_or_default();
        for (start, end) in numbers(code) {
            let old: i64 = code[start..end].parse().unwrap();
            let new = format!("{}{}{}", &line[..start], old + 100, &line[end..]);
            let mut lines: Vec<_> = layout.lines().collect();
            lines[number] = &new;
            mutants.push(Mutant { line: number + 1, what: new.trim().to_owned(), layout: lines.join("\n") + "\n" });
        }
    }
    mutants
}

/// Where the numbers are that a number in an object must equal: before or after `=>`, or after `=` alone in a line.
fn numbers(code: &str) -> Vec<(usize, usize)> {
    let digits = |text: &str| text.len() - text.trim_start_matches(|c: char| c == '-' || c.is_ascii_digit()).len();
    let mut found = Vec::new();
    for (at, arrow) in code.match_indices("=>") {
        let before = code[..at].trim_end();
        let start = before.len() - before.chars().rev().take_while(|c| *c == '-' || c.is_ascii_digit()).count();
        found.push((start, before.len()));
        let after = at + arrow.len() + 1;
        found.push((after, after + digits(&code[after..])));
    }
    if let Some((name, number)) = code.split_once(" = ") {
        let start = name.len() + 3;
        if number.trim().len() == digits(number) {
            found.push((start, start + digits(number)));
        }
    }
    // A range (0..9) has edges, which are no single number.
    found.retain(|(start, end)| start < end && !code[*end..].starts_with(".."));
    found
}

/// Random objects of a layout, made by the code.
fn check(name: &'static str, bytes: Vec<u8>) -> Result<(), TestCaseError> {
    let instance = Instance { of: "a random object".into(), rule: name, bytes };
    prop_assert_eq!(check_all(&layout(name), &[instance]), Ok(()));
    Ok(())
}

prop_compose! {
    fn member_trust()(
        cas in vec(vec(any::<u8>(), 1..40), 1..=4), ports in vec(1_u16.., 0..=8), keys in (0_usize..3, 0_usize..3),
        sealing_key in any::<[u8; 32]>(), categories in vec(select(Category::ALL), 0..12),
        out in proptest::option::of("[ -~]{1,200}"),
    ) -> MemberTrust {
        let keys_of = |count| proto::trust::keys((0..count).map(|_| issuer().verifying_key().clone()));
        MemberTrust {
            bundle: cas,
            endpoints: ports.iter().map(|port| format!("node.tongxing.test:{port}")).collect(),
            consent_keys: keys_of(keys.0),
            statement_keys: keys_of(keys.1),
            sealing_key,
            categories: categories.into_iter().collect(),
            suspension: out.map(|why| {
                let from = UnixTime::from_secs(1_800_000_000);
                Suspension::new(&why, from, from.plus(Suspension::MAX)).unwrap()
            }),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn random_tokens_have_their_layout(consent in consent()) {
        check("consent-token", Consent::sign(&consent, &issuer()))?;
    }

    #[test]
    fn random_statements_have_their_layout(status in status()) {
        check("statement", Status::sign(&status, &issuer()))?;
    }

    #[test]
    fn random_requests_have_their_layout(request in request()) {
        check("consent-request", ConsentRequest::sign(&request, &device()))?;
    }

    #[test]
    fn random_proofs_have_their_layout(venue in option::of(venue()), now in time(), life in 1_u64..3600) {
        let (token, venue): (_, Option<VenueId>) = (TokenHash::of(b"token"), venue);
        let life = Duration::from_secs(life);
        check("proof", prove(token, Cti([5; 16]), &device(), venue.as_ref(), now, life, &SystemRandom))?;
    }

    #[test]
    fn random_presentations_have_their_layout(
        token in vec(any::<u8>(), 1..=1024), proof in option::of(vec(any::<u8>(), 1..=1024)), k in any::<[u8; 16]>(),
    ) {
        let text = Presentation { token, proof, hint_key: HintKey(k) }.to_text();
        check("presentation", base45::decode(&text[4..]).unwrap())?;
    }

    #[test]
    fn random_records_have_their_layout(entry in entry()) {
        check("access-record", entry.encode())?;
    }

    #[test]
    fn random_access_receipts_have_their_layout(receipt in receipt_by(Arc::new(issuer()))) {
        check("access-receipt", receipt.encode())?;
    }

    #[test]
    fn random_delivery_receipts_have_their_layout(receipt in delivery_receipt()) {
        check("delivery-receipt", receipt.sign(&issuer()))?;
    }

    #[test]
    fn random_trust_lists_have_their_layout(
        members in vec((member(), member_trust()), 0..5), roots in 1_usize..4, version in any::<u64>(),
    ) {
        let members: Vec<(Member, MemberTrust)> = members;
        let keys: Vec<_> = (0..roots).map(|_| issuer()).collect();
        let log_keys = proto::trust::keys([issuer().verifying_key().clone()]);
        let list = TrustList {
            domain: "tongxing.test".parse().unwrap(),
            roots: Roots::new(1, keys.iter().map(|key| key.verifying_key().clone()).collect()).unwrap(),
            gateway: GatewayTrust { bundle: vec![vec![0x30]], log_keys },
            members: members.into_iter().collect(),
        };
        let sealed = list.seal(edition(version), &keys.iter().collect::<Vec<_>>());
        check("envelope", sealed.clone())?;
        check("trust-list", sealed)?;
    }

    #[test]
    fn random_policies_have_their_layout(version in any::<u64>(), comment in "[a-z绿 ]{0,200}", roots in 1_usize..4) {
        let keys: Vec<_> = (0..roots).map(|_| issuer()).collect();
        let toml = format!("{POLICY}\n# {comment}\n");
        check("policy", Policy::seal(&toml, edition(version), &keys.iter().collect::<Vec<_>>()))?;
    }
}
