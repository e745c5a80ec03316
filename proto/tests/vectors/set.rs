//! A file in the making.

use std::collections::{BTreeMap, BTreeSet};

use proto::{refusal::Reason, time::UnixTime};
use serde_json::Value as Json;

use crate::{
    fixtures::NOW,
    json::{Context, File, Hex, Operation, Vector},
    keys,
    sign::{Sign1, Signer},
};

/// The vectors of one kind.
pub(crate) struct Set<'a> {
    pub(crate) signer: &'a Signer,
    pub(crate) operation: Operation,
    /// What a vector's context is unless it says otherwise.
    pub(crate) context: Context,
    kind: &'static str,
    vectors: Vec<Vector>,
}

impl<'a> Set<'a> {
    /// An empty one.
    pub(crate) fn new(signer: &'a Signer, kind: &'static str, operation: Operation, context: Context) -> Self {
        Self { signer, operation, context, kind, vectors: Vec::new() }
    }

    /// Adds a vector that is valid.
    pub(crate) fn valid(&mut self, id: &str, what: &str) -> &mut Vector {
        let id = format!("{}/{id}", self.kind);
        let vector = Vector::valid(self.operation, id, what, NOW.as_secs(), self.context.clone());
        self.vectors.push(vector);
        self.last()
    }

    /// Adds a vector that is refused.
    pub(crate) fn refused(&mut self, id: &str, reason: Reason, what: &str) -> &mut Vector {
        let vector = self.valid(id, what);
        *vector = vector.clone().refused(reason);
        vector
    }

    /// Adds bytes that are refused.
    pub(crate) fn bad(&mut self, id: &str, reason: Reason, what: &str, bytes: &[u8]) {
        self.refused(id, reason, what).bytes(bytes);
    }

    /// The vector that was added last.
    pub(crate) fn last(&mut self) -> &mut Vector {
        self.vectors.last_mut().expect("one was added")
    }

    /// Makes the vector that was added last one that is refused.
    pub(crate) fn refuse_last(&mut self, reason: Reason) {
        let last = self.last();
        *last = Vector { result: None, ..last.clone().refused(reason) };
    }

    /// The vectors alone: to make others of them.
    pub(crate) fn into_vectors(self) -> Vec<Vector> {
        self.vectors
    }

    /// The file, with the keys that its vectors and whatever they refer to are signed with.
    pub(crate) fn file(self, about: &str, more_keys: &[&str]) -> File {
        let signed_by = self.vectors.iter().flat_map(|vector| &vector.signed_by).map(String::as_str);
        let names: BTreeSet<_> = signed_by.chain(more_keys.iter().copied()).collect();
        let test_keys: BTreeMap<_, _> = names.iter().map(|name| ((*name).to_owned(), keys::test_key(name))).collect();
        let kind = self.kind.to_owned();
        let layout = match self.kind {
            // A hint is in the statement's file: it is a part of one.
            "hint" => "statement.cddl".to_owned(),
            // A signed note, and hashes: neither is CBOR.
            "checkpoint" | "merkle" => "tongxing/access/v1/access.proto".to_owned(),
            kind => format!("{kind}.cddl"),
        };
        File { kind, layout, about: about.to_owned(), test_keys, vectors: self.vectors }
    }
}

impl Vector {
    /// With these bytes.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes = Some(Hex::from(bytes));
        self
    }

    /// With a signed object and its parts.
    pub(crate) fn signed(&mut self, by: &str, object: &Sign1) -> &mut Self {
        self.signed_by = vec![by.to_owned()];
        self.parts = Some(object.parts());
        self.bytes(&object.bytes())
    }

    /// With claims, from which the bytes can be made.
    pub(crate) fn claims(&mut self, claims: Json) -> &mut Self {
        self.claims = Some(claims);
        self
    }

    /// At another time.
    pub(crate) fn at(&mut self, now: UnixTime) -> &mut Self {
        self.now = now.as_secs();
        self
    }

    /// In another context.
    pub(crate) fn in_context(&mut self, context: Context) -> &mut Self {
        self.context = context;
        self
    }
}
