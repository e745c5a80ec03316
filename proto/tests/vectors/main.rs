//! The test vectors in `proto/vectors/*.json`: made, verified, and held to the layouts.
//!
//! Everything comes of fixed keys, nonces and times, so making the files again gives the same bytes; ECDSA signatures,
//! which are randomised, are kept for as long as they verify. `TONGXING_VECTORS=write` writes the files.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod bend;
mod beyond;
mod cddl;
mod checkpoint;
mod claims;
mod delivery;
mod document;
mod fixtures;
#[path = "../generate/mod.rs"]
mod generate;
mod hint;
mod json;
mod keys;
mod layout;
mod merkle;
mod policy;
mod presentation;
mod proof;
mod readme;
mod reasons;
mod receipt;
mod record;
mod request;
mod set;
mod sign;
mod statement;
mod token;
mod trust_list;
mod usage;
mod verify;
mod verify_log;

use std::{collections::BTreeSet, env, fs, path::PathBuf};

use json::{FILES, File, Hex, VALID, Vector};
use serde::Deserialize;
use sign::Signer;
use verify::Verifier;

/// All files, made anew.
fn make() -> Vec<File> {
    let committed: Vec<_> = FILES.iter().filter_map(|name| json::committed(name)).collect();
    let signer = Signer::new(&committed);
    let proofs = proof::file(&signer);
    let presentations = presentation::file(&signer, &proofs);
    let mut files = vec![
        trust_list::file(&signer),
        policy::file(&signer),
        request::file(&signer),
        token::file(&signer),
        proofs,
        presentations,
        statement::file(&signer),
        hint::file(&signer),
        merkle::file(&signer),
        record::file(&signer),
        receipt::file(&signer),
        checkpoint::file(&signer),
        delivery::file(&signer),
    ];
    beyond::mark(&mut files);
    files
}

#[test]
fn the_code_makes_the_committed_files() {
    let (made, write) = (make(), env::var("TONGXING_VECTORS").is_ok_and(|what| what == "write"));
    for (name, file) in FILES.iter().zip(&made) {
        assert_eq!(*name, file.kind);
        if write {
            fs::write(json::path(name), json::print(file)).unwrap();
            continue;
        }
        let committed = json::committed(name).unwrap_or_else(|| panic!("{name}.json is not there"));
        for (made, committed) in file.vectors.iter().zip(&committed.vectors) {
            assert_eq!(made, committed, "{}: TONGXING_VECTORS=write writes what the code makes now", made.id);
        }
        let same = fs::read_to_string(json::path(name)).unwrap() == json::print(file);
        assert!(same, "{name}.json is not what the code makes: TONGXING_VECTORS=write writes it");
    }
}

#[test]
fn every_vector_gives_its_verdict() {
    let files = json::all();
    let verifier = Verifier::new(&files);
    let vectors = files.iter().flat_map(|file| &file.vectors);
    let wrong: Vec<_> = vectors
        .map(|vector| (&vector.id, Verifier::claimed(vector), verifier.verdict(vector)))
        .filter(|(_, claimed, got)| claimed != got)
        .collect();
    assert!(wrong.is_empty(), "id, what it says, what it comes to: {wrong:#?}");
}

#[test]
fn ids_are_distinct_and_every_kind_has_both_verdicts() {
    let mut ids = BTreeSet::new();
    for file in json::all() {
        assert!(
            file.vectors.iter().all(|vector| ids.insert(vector.id.clone())),
            "an id of {} is there twice",
            file.kind
        );
        for valid in [true, false] {
            assert!(file.vectors.iter().any(|vector| (vector.verdict == VALID) == valid), "{}", file.kind);
        }
    }
    assert!(ids.len() > 800, "{} vectors", ids.len());
}

/// Objects that another program made from the claims and keys of the committed vectors.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Produced {
    objects: Vec<Made>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Made {
    id: String,
    bytes: Hex,
    /// Of a presentation.
    text: Option<String>,
}

/// `tests/clients/vectors` runs it, with the file in TONGXING_VECTORS_PRODUCED.
#[test]
#[ignore = "it needs a file that another program made"]
fn what_another_program_made_gives_the_same_verdicts() {
    let path = PathBuf::from(env::var_os("TONGXING_VECTORS_PRODUCED").expect("TONGXING_VECTORS_PRODUCED names a file"));
    let Produced { objects } = json::read(&path);
    let files = json::all();
    let verifier = Verifier::new(&files);
    let with_claims = || files.iter().flat_map(|file| &file.vectors).filter(|vector| vector.claims.is_some());
    let made: BTreeSet<_> = objects.iter().map(|object| object.id.as_str()).collect();
    let missing: Vec<_> = with_claims().map(|vector| &vector.id).filter(|id| !made.contains(id.as_str())).collect();
    assert!(missing.is_empty(), "not made: {missing:?}");
    let mut fresh = 0;
    for Made { id, bytes, text } in objects {
        let vector = with_claims().find(|vector| vector.id == id).unwrap_or_else(|| panic!("no claims of {id}"));
        fresh += usize::from(vector.bytes.as_ref() != Some(&bytes));
        let made = Vector { bytes: Some(bytes), text, ..vector.clone() };
        assert_eq!(verifier.verdict(&made), Verifier::claimed(vector), "{id}");
        let esp256 = vector.signed_by.iter().any(|name| keys::test_key(name).alg == -9);
        assert!(esp256 || made == *vector, "{id}: Ed25519 has one signature, and so this object one encoding");
    }
    assert!(fresh > 0, "nothing was signed anew: is this a copy?");
}
