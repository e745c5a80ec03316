//! The search for what must be nowhere: a secret in any form in which a program might write it down.

use std::collections::{BTreeMap, BTreeSet};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use peer::config::to_hex;

/// What must be nowhere, found by its first bytes.
pub(crate) struct Needles {
    by_prefix: BTreeMap<[u8; PREFIX], Vec<(Vec<u8>, String)>>,
    first_bytes: Vec<bool>,
}

const PREFIX: usize = 6;

impl Needles {
    pub(crate) fn new() -> Self {
        Self { by_prefix: BTreeMap::new(), first_bytes: vec![false; 1 << 16] }
    }

    /// A secret in every form in which a program might write bytes down: as they are, in hexadecimal, in base64, as Rust
    /// shows them.
    pub(crate) fn add(&mut self, what: &str, secret: &[u8]) {
        let listed = format!("{secret:?}");
        let listed = listed.trim_matches(['[', ']']).as_bytes().to_vec();
        let shown = secret.escape_ascii().to_string().into_bytes();
        let encoded = [STANDARD_NO_PAD.encode(secret), URL_SAFE_NO_PAD.encode(secret)].map(String::into_bytes);
        for form in [secret.to_vec(), to_hex(secret).into_bytes(), listed, shown].into_iter().chain(encoded) {
            let prefix = *form.first_chunk().expect("a secret is long enough to be one");
            self.first_bytes[usize::from(u16::from_be_bytes([prefix[0], prefix[1]]))] = true;
            self.by_prefix.entry(prefix).or_default().push((form, what.to_owned()));
        }
    }

    /// What of it is in these bytes.
    pub(crate) fn found_in(&self, bytes: &[u8]) -> BTreeSet<&str> {
        let mut found = BTreeSet::new();
        for (at, window) in bytes.windows(PREFIX).enumerate() {
            if !self.first_bytes[usize::from(u16::from_be_bytes([window[0], window[1]]))] {
                continue;
            }
            let candidates = self.by_prefix.get(window).into_iter().flatten();
            found.extend(candidates.filter(|(form, _)| bytes[at..].starts_with(form)).map(|(_, what)| what.as_str()));
        }
        found
    }

    pub(crate) fn assert_none_in(&self, where_: &str, bytes: &[u8]) {
        let found = self.found_in(bytes);
        assert!(found.is_empty(), "{where_} ({} bytes) holds {found:?}", bytes.len());
    }
}
