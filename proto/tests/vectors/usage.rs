//! `use_consent`, in `consent-token.json`: a token with its proof, one use, and what that may disclose.

use proto::{
    proof::prove,
    refusal::{Object, Reason as R},
    terms::{Purposes, Scope},
    token::{Audience, Consent, TokenHash},
};
use serde_json::{Value as Json, json};

use crate::{
    claims,
    fixtures::{self, NOW, STATION, secs},
    json::{Context, Hex, Operation},
    proof::{Nonce, nonce},
    set::Set,
    sign::Signer,
    token::signed,
};

/// One use.
struct Use<'a> {
    consent: &'a Consent,
    /// With a good proof for this venue, or with what is here instead.
    proof: Option<Vec<u8>>,
    venue: &'a str,
    purpose: &'a str,
    wanted: Option<u64>,
}

/// What it comes to.
enum Want {
    Granted(u64),
    Refused(R, Option<Object>),
}

/// Adds them.
pub(crate) fn add(set: &mut Set<'_>) {
    set.operation = Operation::UseConsent;
    let signer = set.signer;
    let anywhere = Consent { audience: Audience::Anywhere, purposes: Purposes::ALL, ..fixtures::own(signer) };
    let level = Consent { scope: Scope::LEVEL, ..anywhere.clone() };
    let (paper, assisted) = (fixtures::paper(signer), fixtures::assisted(signer));
    let proof = |consent: &Consent, venue: &str| Some(good_proof(signer, consent, venue));
    let at = |consent, proof, venue, purpose, wanted| Use { consent, proof, venue, purpose, wanted };
    let here = |consent, proof| at(consent, proof, STATION, "entry", None);
    let (hospital, park) = ("44/hospital/no-1", "44/park/yuexiu");
    let refused = |reason| Want::Refused(reason, Some(Object::Proof));

    let usage = here(&anywhere, proof(&anywhere, STATION));
    case(set, "use-own", "the scope is cut to what stations may see", &usage, &Want::Granted(33));
    let usage = here(&level, proof(&level, STATION));
    case(set, "use-of-the-level", "no more than the traveler agreed to", &usage, &Want::Granted(1));
    let usage = at(&anywhere, proof(&anywhere, hospital), hospital, "medical", None);
    case(set, "use-at-a-hospital", "a hospital treating someone may see all", &usage, &Want::Granted(63));
    let usage = at(&anywhere, proof(&anywhere, hospital), hospital, "medical", Some(5));
    case(set, "use-of-a-part", "a part of what was granted is asked for", &usage, &Want::Granted(5));
    case(set, "use-paper", "paper has no proof", &here(&paper, None), &Want::Granted(1));
    case(set, "use-assisted", "nor has an assisted token", &here(&assisted, None), &Want::Granted(33));

    case(set, "use-without-proof", "an own token without a proof", &here(&anywhere, None), &refused(R::ProofMissing));
    let usage = here(&paper, proof(&anywhere, STATION));
    case(set, "use-paper-with-proof", "paper with a proof", &usage, &refused(R::ProofUnexpected));
    let usage = here(&paper, Some(vec![0xff]));
    case(set, "use-paper-with-noise", "nobody reads a proof that has no place", &usage, &refused(R::ProofUnexpected));
    let usage = here(&level, proof(&anywhere, STATION));
    case(
        set,
        "use-with-proof-of-another",
        "a proof of another token with the same cti",
        &usage,
        &refused(R::SignatureInvalid),
    );
    let usage = here(&anywhere, proof(&anywhere, hospital));
    case(set, "use-elsewhere", "the proof is for a hospital", &usage, &refused(R::ProofOfOtherVenue));
    let nothing = |reason| Want::Refused(reason, None);
    let usage = at(&anywhere, proof(&anywhere, park), park, "entry", None);
    case(set, "use-not-admitted", "the policy has no word about parks", &usage, &nothing(R::PurposeNotAdmitted));
    let usage = at(&anywhere, proof(&anywhere, STATION), STATION, "medical", None);
    case(set, "use-not-admitted-here", "nobody is treated at a station", &usage, &nothing(R::PurposeNotAdmitted));
    let usage = at(&anywhere, proof(&anywhere, STATION), STATION, "entry", Some(5));
    case(set, "use-of-too-much", "tests are asked for, for entry", &usage, &nothing(R::ScopeNotGranted));
    let token = |reason| Want::Refused(reason, Some(Object::Token));
    let old = Consent { expires_at: NOW.minus(secs(60)), ..anywhere.clone() };
    let usage = here(&old, Some(vec![0xff]));
    case(set, "use-expired-with-noise", "token and proof are wrong: the token is told", &usage, &token(R::Expired));
    let usage = at(&anywhere, None, park, "entry", None);
    case(
        set,
        "use-without-proof-at-a-park",
        "no proof, not admitted: the proof is told",
        &usage,
        &refused(R::ProofMissing),
    );
}

fn case(set: &mut Set<'_>, id: &str, what: &str, usage: &Use<'_>, want: &Want) {
    let Use { consent, proof, venue, purpose, wanted } = usage;
    let context = Context {
        venue: Some((*venue).to_owned()),
        purpose: Some((*purpose).to_owned()),
        wanted_scope: *wanted,
        proof: proof.as_deref().map(Hex::from),
        ..set.context.clone()
    };
    let token = signed(set.signer, consent, "44-consent");
    let vector = set.valid(id, what);
    vector.in_context(context).claims(claims::of_consent(consent)).signed("44-consent", &token);
    match want {
        Want::Granted(scope) => vector.result = Some(granted(*scope)),
        Want::Refused(reason, object) => *vector = vector.clone().refused_for(*reason, *object),
    }
}

/// What a use that is covered comes to.
pub(crate) fn granted(scope: u64) -> Json {
    json!({ "granted_scope": scope })
}

/// A proof of this token by its device, now.
fn good_proof(signer: &Signer, consent: &Consent, venue: &str) -> Vec<u8> {
    let token = TokenHash::of(&signed(signer, consent, "44-consent").bytes());
    let (venue, random) = (venue.parse().unwrap(), Nonce(nonce()));
    let made = prove(token, consent.cti, signer.key("device-a"), Some(&venue), NOW, secs(60), &random);
    signer.settle("device-a", &made, &token.0).bytes()
}
