//! The operations: what a vector says, done with the code that gateway, node and phone use. Nothing here knows how the
//! vectors were made.

use std::collections::BTreeMap;

use proto::{
    consent::Use,
    consent_request::UnverifiedRequest,
    envelope::{Edition, Roots},
    hint::{IdentityHint, NodeSecret},
    policy::{Judgement, Policy},
    presentation::{HintKey, Presentation},
    proof::Proof,
    refusal::{Object, Refusal, reason_name},
    statement::UnverifiedStatement,
    suite::{Suite, VerifyingKey, sha256},
    terms::Scope,
    time::UnixTime,
    token::{ConsentToken, Cti, TokenHash, UnverifiedToken},
    trust::TrustList,
};
use serde_json::{Value as Json, json};

use crate::{
    json::{File, HINT_DOES_NOT_OPEN, Hex, Operation, VALID, Vector, hex},
    verify_log,
};

/// Verdict, the object it is about, and what the object comes to if it is valid.
pub(crate) type Verdict = (String, Option<String>, Option<Json>);

/// All vectors by their ids: for what a context refers to.
pub(crate) struct Verifier<'a>(BTreeMap<&'a str, &'a Vector>);

impl<'a> Verifier<'a> {
    /// Over these files.
    pub(crate) fn new(files: &'a [File]) -> Self {
        Self(files.iter().flat_map(|file| &file.vectors).map(|vector| (vector.id.as_str(), vector)).collect())
    }

    /// What a vector says it comes to.
    pub(crate) fn claimed(vector: &Vector) -> Verdict {
        (vector.verdict.clone(), vector.object.clone(), vector.result.clone())
    }

    /// What it comes to.
    pub(crate) fn verdict(&self, vector: &Vector) -> Verdict {
        match vector.operation {
            Operation::OpenHint => return open_hint(vector),
            Operation::MerkleRoot | Operation::VerifyInclusion | Operation::VerifyConsistency => {
                return verify_log::prove(vector);
            }
            _ => {}
        }
        match self.verify(vector) {
            Ok(result) => (VALID.to_owned(), None, result),
            Err(refusal) => {
                (reason_name(refusal.reason()).to_owned(), refusal.metadata("object").map(Into::into), None)
            }
        }
    }

    fn verify(&self, vector: &Vector) -> Result<Option<Json>, Refusal> {
        let (bytes, now) = (vector.object_bytes(), UnixTime::from_secs(vector.now));
        match vector.operation {
            Operation::OpenTrustList => {
                let (edition, _) = TrustList::open(&bytes, &roots(vector))?;
                self.check_edition(Object::TrustList, edition, &bytes, vector)
            }
            Operation::OpenPolicy => {
                let (edition, _) = Policy::open(&bytes, &roots(vector))?;
                self.check_edition(Object::Policy, edition, &bytes, vector)
            }
            Operation::VerifyRequest => {
                let key = vector.context.enrollment_key.as_ref().expect("an enrolment key");
                let key = VerifyingKey::new(Suite::Esp256, &key.0).expect("a P-256 key");
                UnverifiedRequest::parse(&bytes)?.verify(&key, now).map(|_| None)
            }
            Operation::VerifyToken => {
                let (token, policy) = (self.authenticate(vector, &bytes)?, self.policy(vector));
                token.check_time(now, policy.lives.of(token.consent().kind))?;
                token.check_audience(&named(&vector.context.venue))?;
                token.check_purpose(named(&vector.context.purpose))?;
                Ok(None)
            }
            Operation::UseConsent => self.use_consent(vector, &bytes, now),
            Operation::VerifyProof => {
                let token = self.token(vector);
                let proof = Proof::verify(&bytes, &token)?;
                proof.check_time(now, self.policy(vector).lives.proof)?;
                proof.check_venue(&named(&vector.context.venue))?;
                Ok(Some(json!({ "proof_id": hex(&proof.id.0) })))
            }
            Operation::ReadPresentation => {
                let read = Presentation::from_text(vector.text.as_deref().expect("a text"))?;
                let claims = vector.claims.as_ref().expect("what is in it");
                assert_eq!(claims["token"], hex(&read.token), "{}", vector.id);
                assert_eq!(claims["proof"], Json::from(read.proof.as_deref().map(hex)), "{}", vector.id);
                assert_eq!(claims["k"], hex(&read.hint_key.0), "{}", vector.id);
                Ok(None)
            }
            Operation::VerifyStatement => self.verify_statement(vector, &bytes, now),
            Operation::ReadRecord => verify_log::read_record(&bytes),
            Operation::ReadRefusalRecord => verify_log::read_refusal_record(&bytes),
            Operation::VerifyAccessReceipt => verify_log::verify_receipt(&bytes, &self.trust_list(vector)),
            Operation::OpenCheckpoint => {
                verify_log::open_checkpoint(vector.text.as_deref().expect("a note"), &self.trust_list(vector))
            }
            Operation::OpenDeliveryReceipt => {
                verify_log::open_delivery(&bytes, named(&vector.context.member), &self.trust_list(vector), now)
            }
            Operation::OpenHint | Operation::MerkleRoot | Operation::VerifyInclusion | Operation::VerifyConsistency => {
                unreachable!("no call is refused for it")
            }
        }
    }

    fn check_edition(
        &self,
        object: Object,
        edition: Edition,
        bytes: &[u8],
        vector: &Vector,
    ) -> Result<Option<Json>, Refusal> {
        if let Some(held) = &vector.context.held {
            let held = self.0[held.as_str()].object_bytes();
            let version = proto::envelope::read_edition(object, &held).expect("what is held is good").version;
            edition.check_successor(object, bytes, version, &held)?;
        }
        edition.check_time(object, UnixTime::from_secs(vector.now))?;
        Ok(Some(json!({ "version": edition.version.to_string() })))
    }

    fn authenticate(&self, vector: &Vector, token: &[u8]) -> Result<ConsentToken, Refusal> {
        let list = self.trust_list(vector);
        let token = UnverifiedToken::parse(token)?;
        let key = list.consent_key(token.issuer(), token.kid())?;
        token.verify(key)
    }

    /// The token of the context, which is good.
    fn token(&self, vector: &Vector) -> ConsentToken {
        let token = vector.context.token.as_ref().expect("a token");
        self.authenticate(vector, &token.0).expect("the context's token is good")
    }

    fn use_consent(&self, vector: &Vector, bytes: &[u8], now: UnixTime) -> Result<Option<Json>, Refusal> {
        let (token, policy) = (self.authenticate(vector, bytes)?, self.policy(vector));
        let (venue, proof) = (named(&vector.context.venue), vector.context.proof.as_ref());
        let usage =
            Use { proof: proof.map(|proof| &proof.0[..]), venue: &venue, purpose: named(&vector.context.purpose) };
        token.check_use(usage, &policy, now)?;
        let wanted = vector.context.wanted_scope.map(|bits| Scope::from_bits(bits).expect("scope bits"));
        let granted = token.grant(usage, &policy, wanted)?;
        Ok(Some(json!({ "granted_scope": granted.bits() })))
    }

    fn verify_statement(&self, vector: &Vector, bytes: &[u8], now: UnixTime) -> Result<Option<Json>, Refusal> {
        let (token, policy) = (self.token(vector), self.policy(vector));
        let (issuer, list) = (token.consent().issuer, self.trust_list(vector));
        let statement = UnverifiedStatement::parse(bytes)?;
        let key = list.statement_key(issuer, statement.kid())?;
        let statement = statement.verify(key)?;
        statement.check_binding(issuer, token.hash())?;
        statement.check_time(now, &policy.lives)?;
        statement.check_scope(Scope::from_bits(vector.context.granted_scope.expect("a scope")).expect("scope bits"))?;
        let judgement = policy.judge(statement.status());
        let (outcome, level) = match &judgement {
            Judgement::Status(level) => ("STATUS", Some(level.word())),
            Judgement::Undetermined => ("UNDETERMINED", None),
            Judgement::Unsubstantiated(_) => ("UNSUBSTANTIATED", None),
            Judgement::UnknownTraveler | Judgement::HomeUnreachable => unreachable!("a statement says neither"),
        };
        let decision = policy.advise(&judgement).decision.word();
        Ok(Some(json!({ "outcome": outcome, "level": level, "decision": decision })))
    }

    fn trust_list(&self, vector: &Vector) -> TrustList {
        let list = self.0[vector.context.trust_list.as_deref().expect("a trust list")];
        TrustList::open(&list.object_bytes(), &roots(list)).expect("the trust list is good").1
    }

    fn policy(&self, vector: &Vector) -> Policy {
        let policy = self.0[vector.context.policy.as_deref().expect("a policy")];
        Policy::open(&policy.object_bytes(), &roots(policy)).expect("the policy is good").1
    }
}

/// What names a proof among redemptions, as proof.cddl says.
pub(crate) fn proof_id(token: TokenHash, payload: &[u8]) -> [u8; 16] {
    sha256(&[&token.0[..], payload].concat())[..16].try_into().expect("32 bytes have 16")
}

fn roots(vector: &Vector) -> Roots {
    let roots = vector.context.roots.as_ref().expect("roots");
    let keys = roots.keys.iter().map(|key| VerifyingKey::new(Suite::Ed25519, &key.0).expect("an Ed25519 key"));
    Roots::new(roots.threshold, keys.collect()).expect("N of M roots")
}

/// Something the context names.
fn named<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &Option<String>) -> T {
    text.as_deref().expect("the context names it").parse().expect("its form is right")
}

fn open_hint(vector: &Vector) -> Verdict {
    let context = &vector.context;
    let fixed = |hex: &Hex| hex.0.as_slice().try_into().expect("16 bytes");
    let k = HintKey(fixed(context.k.as_ref().expect("a k")));
    if let (Some(secret), Some(cti)) = (&context.node_secret, &context.cti) {
        let secret = NodeSecret(secret.0.as_slice().try_into().expect("32 bytes"));
        assert_eq!(secret.hint_key(Cti(fixed(cti))), k, "{}: k comes of the secret and the cti", vector.id);
    }
    match IdentityHint::open(&vector.object_bytes(), &k) {
        Ok(hint) => {
            let result = json!({ "masked_name": hint.masked_name(), "document_tail": hint.document_tail() });
            (VALID.to_owned(), None, Some(result))
        }
        Err(_) => (HINT_DOES_NOT_OPEN.to_owned(), None, None),
    }
}
