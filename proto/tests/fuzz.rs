//! What the fuzz targets say of any bytes, without a fuzzer: every vector, each with single bytes changed, and whatever a
//! fuzzer once found.

use std::{fs, path::Path};

use proptest::prelude::*;

#[expect(unreachable_pub, reason = "public to the crate of the fuzzer")]
#[path = "../fuzz/src/targets.rs"]
mod targets;
#[expect(unreachable_pub, reason = "public to the crate of the fuzzer")]
#[path = "../fuzz/src/vectors.rs"]
mod vectors;

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 11] = [
    ("access_receipt", targets::access_receipt),
    ("access_record", targets::access_record),
    ("checkpoint", targets::checkpoint),
    ("consent_request", targets::consent_request),
    ("delivery_receipt", targets::delivery_receipt),
    ("policy", targets::policy),
    ("presentation", targets::presentation),
    ("proof", targets::proof),
    ("statement", targets::statement),
    ("token", targets::token),
    ("trust_list", targets::trust_list),
];

#[test]
fn every_target_holds_for_every_vector_and_every_regression() {
    assert_eq!(TARGETS.map(|(name, _)| name).to_vec(), vectors::targets().collect::<Vec<_>>());
    let regressions = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/regressions");
    for (name, target) in TARGETS {
        vectors::objects(name).values().for_each(|object| target(object));
        for found in fs::read_dir(regressions.join(name)).into_iter().flatten() {
            target(&fs::read(found.expect("the directory reads").path()).expect("the file reads"));
        }
    }
}

/// `TONGXING_FUZZ_CORPUS=DIR` has the fuzzer's first inputs written: DIR/<target>/<vector>.
#[test]
fn the_vectors_are_what_a_fuzzer_begins_with() {
    let Some(dir) = std::env::var_os("TONGXING_FUZZ_CORPUS") else { return };
    for (name, _) in TARGETS {
        let dir = Path::new(&dir).join(name);
        fs::create_dir_all(&dir).expect("the directory can be made");
        for (id, object) in vectors::objects(name) {
            fs::write(dir.join(id), object).expect("the file can be written");
        }
    }
}

proptest! {
    #[test]
    fn every_target_holds_for_bent_vectors(which in any::<u32>(), place in any::<u32>(), bit in 0_u32..8) {
        for (name, target) in TARGETS {
            let objects = vectors::objects(name);
            let mut object = objects.values().nth(which as usize % objects.len()).cloned().unwrap_or_default();
            let length = object.len().max(1);
            if let Some(byte) = object.get_mut(place as usize % length) {
                *byte ^= 1 << bit;
            }
            target(&object);
        }
    }
}
