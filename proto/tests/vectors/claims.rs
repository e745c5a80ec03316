//! Claims as the files have them: names for numbers, so that whoever produces an object must know its layout.
//!
//! What may exceed 2^53 is a text: JSON readers lose digits beyond it.

use proto::{
    consent_request::ConsentRequest,
    envelope::Edition,
    log::{
        checkpoint::Checkpoint,
        commit::{AccessReceipt, Commit},
        delivery::DeliveryReceipt,
        record::{Ending, Entry, RefusalEntry},
    },
    statement::Status,
    suite::VerifyingKey,
    terms::{Category, Purposes},
    time::UnixTime,
    token::Consent,
    trust::{Keys, MemberTrust, TrustList},
    venue::VenueId,
};
use serde_json::{Value as Json, json};

use crate::json::hex;

fn purposes(purposes: Purposes) -> Vec<u8> {
    purposes.iter().map(|purpose| purpose.number()).collect()
}

fn device_key(key: Option<&VerifyingKey>) -> Option<String> {
    key.map(|key| hex(key.encoded()))
}

/// Of a consent token.
pub(crate) fn of_consent(consent: &Consent) -> Json {
    json!({
        "iss": consent.issuer.to_string(),
        "aud": consent.audience.to_string(),
        "exp": consent.expires_at.as_secs(),
        "iat": consent.issued_at.as_secs(),
        "cti": hex(&consent.cti.0),
        "device_key": device_key(consent.device_key.as_ref()),
        "purposes": purposes(consent.purposes),
        "scope": consent.scope.bits(),
        "kind": consent.kind.number(),
    })
}

/// Of a proof.
pub(crate) fn of_proof(venue: Option<&VenueId>, issued_at: UnixTime, expires_at: UnixTime, nonce: [u8; 8]) -> Json {
    json!({
        "aud": venue.map(ToString::to_string),
        "exp": expires_at.as_secs(),
        "iat": issued_at.as_secs(),
        "nonce": hex(&nonce),
    })
}

/// Of a consent request.
pub(crate) fn of_request(request: &ConsentRequest) -> Json {
    json!({
        "aud": request.audience.to_string(),
        "iat": request.issued_at.as_secs(),
        "cti": hex(&request.nonce),
        "device_key": device_key(request.token_key.as_ref()),
        "device_id": hex(&request.device_id),
        "purposes": purposes(request.purposes),
        "scope": request.scope.bits(),
        "kind": request.kind.number(),
        "life": request.life.as_secs().to_string(),
    })
}

/// Of a statement.
pub(crate) fn of_status(status: &Status) -> Json {
    let visits = status.visits.iter().map(|visit| {
        let grade = if visit.high { 2 } else { 1 };
        json!([visit.area, grade, visit.left_at.as_secs()])
    });
    json!({
        "iss": status.issuer.to_string(),
        "exp": status.expires_at.as_secs(),
        "iat": status.issued_at.as_secs(),
        "token": hex(&status.token),
        "epoch": hex(&status.head.epoch),
        "seq": status.head.seq.to_string(),
        "label": status.label,
        "rule": status.rule,
        "authority": status.authority.as_ref().map(ToString::to_string),
        "assigned_at": status.assigned_at.map(UnixTime::as_secs),
        "tests": status.tests.iter().map(|t| json!([t.sampled_at.as_secs(), u8::from(t.positive)])).collect::<Vec<_>>(),
        "doses": status.doses.iter().map(|d| json!([d.number, d.given_at.as_secs()])).collect::<Vec<_>>(),
        "visits": visits.collect::<Vec<_>>(),
        "hint": status.hint.as_deref().map(hex),
        "offline_until": status.offline_until.as_secs(),
    })
}

/// Of an edition of a document, beside its content.
fn of_edition(edition: Edition, content: &str, value: Json) -> Json {
    json!({
        "version": edition.version.to_string(),
        "exp": edition.expires_at.as_secs(),
        "iat": edition.issued_at.as_secs(),
        content: value,
    })
}

/// Of a policy.
pub(crate) fn of_policy(edition: Edition, toml: &str) -> Json {
    of_edition(edition, "toml", toml.into())
}

/// Of a trust list.
pub(crate) fn of_trust_list(edition: Edition, list: &TrustList) -> Json {
    let bundle = |bundle: &[Vec<u8>]| bundle.iter().map(|der| hex(der)).collect::<Vec<_>>();
    let keys = |keys: &Keys| keys.values().map(|key| hex(key.encoded())).collect::<Vec<_>>();
    let member = |trust: &MemberTrust| {
        let suspension = trust.suspension.as_ref().map(|out| {
            json!({ "reason": out.reason(), "from": out.begins_at().as_secs(), "until": out.ends_at().as_secs() })
        });
        let mut claims = json!({
            "bundle": bundle(&trust.bundle),
            "endpoints": trust.endpoints,
            "consent_keys": keys(&trust.consent_keys),
            "statement_keys": keys(&trust.statement_keys),
            "sealing_key": hex(&trust.sealing_key),
            "categories": trust.categories.iter().map(|category: &Category| category.number()).collect::<Vec<_>>(),
        });
        if let Some(suspension) = suspension {
            claims["suspension"] = suspension;
        }
        claims
    };
    let members = list.members.iter().map(|(code, trust)| {
        let mut entry = member(trust);
        entry["code"] = code.to_string().into();
        entry
    });
    let content = json!({
        "domain": list.domain.to_string(),
        "threshold": list.roots.threshold(),
        "roots": list.roots.keys().iter().map(|key| hex(key.encoded())).collect::<Vec<_>>(),
        "gateway": { "bundle": bundle(&list.gateway.bundle), "log_keys": keys(&list.gateway.log_keys) },
        "members": members.collect::<Vec<_>>(),
    });
    of_edition(edition, "content", content)
}

/// Of an access record.
pub(crate) fn of_entry(entry: &Entry) -> Json {
    let (mut outcome, mut source, mut statement, mut reason) = (None, None, None, None);
    match &entry.ending {
        Ending::Answered { outcome: how, source: whence, statement: hash } => {
            (outcome, source, statement) = (Some(*how as i32), Some(*whence as i32), hash.map(|hash| hex(&hash)));
        }
        Ending::Refused(why) => reason = Some(why.to_string()),
    }
    json!({
        "time": entry.time.as_secs(),
        "venue": entry.venue.to_string(),
        "caller": entry.caller.as_str(),
        "staff": entry.staff_id,
        "purpose": entry.purpose.number(),
        "scope": entry.granted.map(|scope| scope.bits()),
        "cti": hex(&entry.cti.0),
        "kind": entry.kind.number(),
        "outcome": outcome,
        "source": source,
        "statement": statement,
        "policy": entry.policy_version.to_string(),
        "exchange": hex(&entry.exchange_id),
        "reason": reason,
        "trace": hex(&entry.trace_id),
    })
}

/// Of a refusal on a replica's own log.
pub(crate) fn of_refusal(entry: &RefusalEntry) -> Json {
    json!({ "time": entry.time.as_secs(), "caller": entry.caller.as_str(), "reason": entry.reason })
}

/// Of an access receipt and the commit in it.
pub(crate) fn of_receipt(receipt: &AccessReceipt, commit: &Commit) -> Json {
    json!({
        "log": receipt.owner.to_string(),
        "index": receipt.index.to_string(),
        "record": hex(&receipt.record),
        "position": receipt.position.to_string(),
        "path": receipt.path.iter().map(|hash| hex(hash)).collect::<Vec<_>>(),
        "commit": {
            "number": commit.number.to_string(),
            "root": hex(&commit.root),
            "count": commit.count.to_string(),
            "heads": hex(&commit.heads),
            "iat": commit.issued_at.as_secs(),
        },
    })
}

/// Of a checkpoint, beside the domain, which is the trust list's, and the log's id, which is the key's.
pub(crate) fn of_checkpoint(checkpoint: &Checkpoint) -> Json {
    json!({
        "log": checkpoint.owner.to_string(),
        "size": checkpoint.size.to_string(),
        "root": hex(&checkpoint.root),
    })
}

/// Of a delivery receipt.
pub(crate) fn of_delivery(receipt: &DeliveryReceipt) -> Json {
    json!({
        "iss": receipt.issuer.to_string(),
        "log_id": hex(&receipt.log.0),
        "size": receipt.size.to_string(),
        "root": hex(&receipt.root),
        "iat": receipt.issued_at.as_secs(),
    })
}
