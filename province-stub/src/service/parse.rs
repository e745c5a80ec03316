//! From protobuf to the domain: every field checked against the form its comment in the contract gives it. No protobuf
//! past this file.
//!
//! What is refused names the field and what would be right, and never repeats what was sent: it may be a person's (I6).

pub(super) mod evidence;

use peer::config::{parse_hex, to_hex};
use proto::{
    cbor,
    contract::{
        access::RecordAccessesRequest,
        assignment::{ClearCodeRequest, ExplainCodeRequest, SetCodeRequest},
        province::LookupRequest,
        traveler::{
            DeleteTravelerRequest, EnrollDeviceRequest, ExportTravelerRequest, GetCodeRequest, ListAccessesRequest,
            ListConsentsRequest, RevokeConsentRequest,
        },
        types,
    },
    log::{
        LogId,
        merkle::{Frontier, MAX_PROOF},
        record::MAX_RECORD_BYTES,
    },
    refusal::{Object, Reason, Refusal},
    statement::{MAX_LABEL_BYTES, MAX_RULE_BYTES},
    suite::VerifyingKey,
    terms::{Purpose, Scope},
    time::UnixTime,
    token::{Cti, device_key_from_cose},
    venue::VenueId,
};

use crate::{
    accesses::{Brought, MAX_RECORDS},
    assignment::{Assignment, Clearing, MAX_JUSTIFICATION_CHARS},
    consents::{DEFAULT_PAGE, MAX_PAGE},
    document::{Document, DocumentType},
    enrollment::Enrollment,
    lookup::Query,
    request::RequestId,
    store::{DeviceId, Name, PageKey, access_log::AccessKey},
};

/// A COSE_Key of P-256 has some forty bytes.
const MAX_COSE_KEY_BYTES: usize = 128;

/// A lookup, refused in this order: token, venue, purpose, scope, exchange id.
pub(super) fn query(request: LookupRequest) -> Result<Query, Refusal> {
    let LookupRequest { token, proof, venue, purpose, scope, exchange_id } = request;
    if token.is_empty() {
        return Err(Refusal::missing("token"));
    }
    let venue = VenueId::from_field("venue", &venue)?;
    let purpose = Purpose::from_number(u64::try_from(purpose).unwrap_or(0))
        .map_err(|unknown| Refusal::new(Reason::PurposeUnknown).violating("purpose", unknown))?;
    let scope = Scope::from_bits(u64::from(scope)).map_err(|_| Refusal::field("scope", "scope bits, 1 to 63"))?;
    if !scope.contains(Scope::LEVEL) {
        return Err(Refusal::field("scope", "the level (1) is always part of it"));
    }
    match exchange_id.len() {
        16 => {}
        0 => return Err(Refusal::missing("exchange_id")),
        _ => return Err(Refusal::field("exchange_id", "16 bytes")),
    }
    Ok(Query { token, proof: (!proof.is_empty()).then_some(proof), venue, purpose, scope })
}

/// Whose consents, from where on, and how many.
pub(super) fn list_consents(request: &ListConsentsRequest) -> Result<(DeviceId, Option<PageKey>, u32), Refusal> {
    let device = parse_device_id(&request.device_id)?;
    let size = parse_page_size(request.page_size)?;
    Ok((device, parse_after(&request.page_token, parse_page_token)?, size))
}

/// Whose accesses, from where on, and how many.
pub(super) fn list_accesses(request: &ListAccessesRequest) -> Result<(DeviceId, Option<AccessKey>, u32), Refusal> {
    let device = parse_device_id(&request.device_id)?;
    let size = parse_page_size(request.page_size)?;
    Ok((device, parse_after(&request.page_token, parse_access_page_token)?, size))
}

fn parse_page_size(size: i32) -> Result<u32, Refusal> {
    match u32::try_from(size) {
        Ok(0) => Ok(DEFAULT_PAGE),
        Ok(size) if size <= MAX_PAGE => Ok(size),
        _ => Err(Refusal::field("page_size", "0 to 100")),
    }
}

fn parse_after<K>(token: &str, parse: impl Fn(&str) -> Option<K>) -> Result<Option<K>, Refusal> {
    match token {
        "" => Ok(None),
        token => parse(token).map(Some).ok_or_else(|| Refusal::field("page_token", "one that was given out")),
    }
}

/// A page's end, as a caller brings it back: 16 hexadecimal digits of a time and 32 of a handle.
pub(super) fn page_token(key: PageKey) -> String {
    format!("{:016x}{}", key.issued_at.as_secs(), to_hex(&key.cti.0))
}

fn parse_page_token(token: &str) -> Option<PageKey> {
    let (time, cti) = token.split_at_checked(16)?;
    let issued_at = UnixTime::from_secs(u64::from_be_bytes(parse_hex(time)?.try_into().ok()?));
    Some(PageKey { issued_at, cti: Cti(parse_hex(cti)?.try_into().ok()?) })
}

/// The same of accesses: 16 hexadecimal digits of a time, 64 of a log and 16 of an index.
pub(super) fn access_page_token(key: AccessKey) -> String {
    format!("{:016x}{}{:016x}", key.time.as_secs(), key.log, key.index)
}

fn parse_access_page_token(token: &str) -> Option<AccessKey> {
    let (time, rest) = token.split_at_checked(16)?;
    let (log, index) = rest.split_at_checked(64)?;
    let number = |text| Some(u64::from_be_bytes(parse_hex(text)?.try_into().ok()?));
    Some(AccessKey { time: UnixTime::from_secs(number(time)?), log: LogId::from_hex(log)?, index: number(index)? })
}

/// Records of an access log, refused in the order of its fields.
pub(super) fn delivery(request: RecordAccessesRequest) -> Result<Brought, Refusal> {
    let RecordAccessesRequest { log, first_index, records, checkpoint, consistency_proof, frontier } = request;
    if log.is_empty() {
        return Err(Refusal::missing("log"));
    }
    let log = LogId(log.try_into().map_err(|_| Refusal::field("log", "32 bytes"))?);
    if first_index.checked_add(records.len() as u64).is_none() {
        return Err(Refusal::field("first_index", "an index that no record is beyond"));
    }
    if records.len() > MAX_RECORDS || records.iter().any(|record| !(1..=MAX_RECORD_BYTES).contains(&record.len())) {
        return Err(Refusal::field("records", "at most 1,000, each of 1 to 512 bytes"));
    }
    if checkpoint.is_empty() {
        return Err(Refusal::missing("checkpoint"));
    }
    let hashes =
        |hashes: &[Vec<u8>]| hashes.iter().map(|hash| hash.as_slice().try_into().ok()).collect::<Option<Vec<_>>>();
    let proof = hashes(&consistency_proof).filter(|proof| proof.len() <= MAX_PROOF);
    let proof = proof.ok_or_else(|| Refusal::field("consistency_proof", "at most 63 hashes of 32 bytes"))?;
    let before = match frontier.as_slice() {
        [] => None,
        frontier => {
            let before = hashes(frontier).and_then(|peaks| Frontier::from_peaks(first_index, peaks));
            Some(before.ok_or_else(|| Refusal::field("frontier", "a hash of 32 bytes for each bit of `first_index`"))?)
        }
    };
    Ok(Brought { log, first_index, records, checkpoint, proof, before })
}

/// Which consent to revoke, and whose.
pub(super) fn revocation(request: &RevokeConsentRequest) -> Result<(DeviceId, Cti), Refusal> {
    let device = parse_device_id(&request.device_id)?;
    match <[u8; 16]>::try_from(request.cti.as_slice()) {
        Ok(cti) => Ok((device, Cti(cti))),
        Err(_) if request.cti.is_empty() => Err(Refusal::missing("cti")),
        Err(_) => Err(Refusal::field("cti", "16 bytes")),
    }
}

/// Whom to forget.
pub(super) fn deletion(request: &DeleteTravelerRequest) -> Result<DeviceId, Refusal> {
    parse_device_id(&request.device_id)
}

/// Whose code to explain.
pub(super) fn code(request: &GetCodeRequest) -> Result<DeviceId, Refusal> {
    parse_device_id(&request.device_id)
}

/// Whose data to give.
pub(super) fn export(request: &ExportTravelerRequest) -> Result<DeviceId, Refusal> {
    parse_device_id(&request.device_id)
}

fn parse_device_id(bytes: &[u8]) -> Result<DeviceId, Refusal> {
    match <[u8; 16]>::try_from(bytes) {
        Ok(id) => Ok(DeviceId(id)),
        Err(_) if bytes.is_empty() => Err(Refusal::missing("device_id")),
        Err(_) => Err(Refusal::field("device_id", "16 bytes")),
    }
}

/// An enrolment, refused in the order of its fields.
pub(super) fn enrollment(request: EnrollDeviceRequest) -> Result<Enrollment, Refusal> {
    let EnrollDeviceRequest { request_id: id, document, name, enrollment_key, person_reference } = request;
    Ok(Enrollment {
        request_id: self::request_id(&id)?,
        document: parse_document(document)?,
        name: parse_name(&name)?,
        enrollment_key: parse_enrollment_key(&enrollment_key)?,
        reference: match person_reference.is_empty() {
            true => None,
            false => Some(evidence::foreign("person_reference", &person_reference)?),
        },
    })
}

/// An assignment, refused in the order of its fields.
pub(super) fn assignment(request: SetCodeRequest) -> Result<Assignment, Refusal> {
    let SetCodeRequest { request_id: id, document, label, rule, authority, justification } = request;
    let request_id = request_id(&id)?;
    let document = parse_document(document)?;
    let label = parse_text("label", label, |label| label.len() <= MAX_LABEL_BYTES, "a label of at most 48 bytes")?;
    let rule = parse_text("rule", rule, |rule| rule.len() <= MAX_RULE_BYTES, "a rule's id of at most 32 bytes")?;
    if authority.is_empty() {
        return Err(Refusal::missing("authority"));
    }
    let authority = authority.parse().map_err(|error| Refusal::field("authority", error))?;
    let justification = parse_line("justification", justification)?;
    Ok(Assignment { request_id, document, label, rule, authority, justification })
}

/// The end of an assignment by hand, refused in the order of its fields.
pub(super) fn clearing(request: ClearCodeRequest) -> Result<Clearing, Refusal> {
    let ClearCodeRequest { request_id: id, document, justification } = request;
    Ok(Clearing {
        request_id: request_id(&id)?,
        document: parse_document(document)?,
        justification: parse_line("justification", justification)?,
    })
}

/// Whose code to explain to an operator, and what for.
pub(super) fn explanation(request: ExplainCodeRequest) -> Result<(Document, String), Refusal> {
    let ExplainCodeRequest { document, reason } = request;
    Ok((parse_document(document)?, parse_line("reason", reason)?))
}

/// A line that somebody wrote for a file.
fn parse_line(field: &'static str, text: String) -> Result<String, Refusal> {
    let short = |text: &str| text.chars().count() <= MAX_JUSTIFICATION_CHARS;
    parse_text(field, text, short, "a line of at most 256 characters")
}

/// A caller's own id of a request.
pub(super) fn request_id(text: &str) -> Result<RequestId, Refusal> {
    if text.is_empty() {
        return Err(Refusal::missing("request_id"));
    }
    let form = "8 to 64 characters of A-Z, a-z, 0-9 and '-', and no resident ID's number";
    RequestId::new(text).ok_or_else(|| Refusal::field("request_id", form))
}

fn parse_document(document: Option<types::Document>) -> Result<Document, Refusal> {
    let types::Document { r#type, number } = document.ok_or_else(|| Refusal::missing("document"))?;
    if r#type == 0 {
        return Err(Refusal::missing("document.type"));
    }
    let kind = DocumentType::from_number(i64::from(r#type))
        .ok_or_else(|| Refusal::field("document.type", "not a known type of document"))?;
    if number.is_empty() {
        return Err(Refusal::missing("document.number"));
    }
    Document::new(kind, &number).map_err(|error| Refusal::field("document.number", error))
}

fn parse_name(text: &str) -> Result<Name, Refusal> {
    if text.is_empty() {
        return Err(Refusal::missing("name"));
    }
    Name::new(text).ok_or_else(|| Refusal::field("name", "1 to 64 characters, no control character, no outer space"))
}

fn parse_enrollment_key(bytes: &[u8]) -> Result<VerifyingKey, Refusal> {
    if bytes.is_empty() {
        return Err(Refusal::missing("enrollment_key"));
    }
    // The object is never named: a COSE_Key stands in no envelope of its own.
    cbor::decode(Object::ConsentRequest, bytes, MAX_COSE_KEY_BYTES)
        .and_then(|value| device_key_from_cose(Object::ConsentRequest, value))
        .map_err(|_| Refusal::field("enrollment_key", "a P-256 COSE_Key in deterministic CBOR"))
}

/// A line of text that is not empty, as `fits` says.
fn parse_text(field: &'static str, text: String, fits: impl Fn(&str) -> bool, form: &str) -> Result<String, Refusal> {
    if text.is_empty() {
        return Err(Refusal::missing(field));
    }
    if !fits(&text) || text.chars().any(char::is_control) || text.trim() != text {
        return Err(Refusal::field(field, form));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use proto::{
        suite::{SigningKey, Suite},
        token::device_key_to_cose,
    };
    use tonic_types::StatusExt as _;

    use super::*;

    /// Reason and field of a refusal, as a caller sees them.
    fn seen<T>(result: Result<T, Refusal>) -> (Reason, String) {
        let refusal = result.err().unwrap();
        let details = refusal.to_status().get_details_bad_request().unwrap();
        (refusal.reason(), details.field_violations[0].field.clone())
    }

    fn lookup_request() -> LookupRequest {
        LookupRequest {
            token: vec![1],
            proof: vec![],
            venue: "44/station/guangzhou-south".into(),
            purpose: 2,
            scope: 1,
            exchange_id: vec![0; 16],
        }
    }

    fn enroll_request() -> EnrollDeviceRequest {
        let key = SigningKey::generate(Suite::Esp256);
        EnrollDeviceRequest {
            request_id: "request-1".into(),
            document: Some(types::Document { r#type: 20, number: "E12345678".into() }),
            name: "欧阳星洲".into(),
            enrollment_key: cbor::encode(&device_key_to_cose(key.verifying_key())).unwrap(),
            person_reference: String::new(),
        }
    }

    fn set_request() -> SetCodeRequest {
        SetCodeRequest {
            request_id: "request-1".into(),
            document: Some(types::Document { r#type: 20, number: "E12345678".into() }),
            label: "红码".into(),
            rule: "R-CASE".into(),
            authority: "44/cdc".into(),
            justification: "a test".into(),
        }
    }

    #[test]
    fn a_lookups_fields_are_checked() {
        let parsed = query(lookup_request()).unwrap();
        assert_eq!((parsed.purpose, parsed.scope, parsed.proof), (Purpose::Travel, Scope::LEVEL, None));
        let base = lookup_request;
        for (request, reason, field) in [
            (LookupRequest { token: vec![], ..base() }, Reason::FieldMissing, "token"),
            (LookupRequest { venue: String::new(), ..base() }, Reason::FieldMissing, "venue"),
            (LookupRequest { venue: "44/castle/x".into(), ..base() }, Reason::FieldInvalid, "venue"),
            (LookupRequest { venue: "99/station/x".into(), ..base() }, Reason::MemberUnknown, "venue"),
            (LookupRequest { purpose: 0, ..base() }, Reason::PurposeUnknown, "purpose"),
            (LookupRequest { purpose: -1, ..base() }, Reason::PurposeUnknown, "purpose"),
            (LookupRequest { purpose: 7, ..base() }, Reason::PurposeUnknown, "purpose"),
            (LookupRequest { scope: 0, ..base() }, Reason::FieldInvalid, "scope"),
            (LookupRequest { scope: 64, ..base() }, Reason::FieldInvalid, "scope"),
            (LookupRequest { scope: 4, ..base() }, Reason::FieldInvalid, "scope"),
            (LookupRequest { exchange_id: vec![], ..base() }, Reason::FieldMissing, "exchange_id"),
            (LookupRequest { exchange_id: vec![0; 15], ..base() }, Reason::FieldInvalid, "exchange_id"),
        ] {
            assert_eq!(seen(query(request)), (reason, field.to_owned()));
        }
    }

    #[test]
    fn an_enrolments_fields_are_checked() {
        assert!(enrollment(enroll_request()).is_ok());
        let base = enroll_request;
        // The standard's own example (GB 11643-1999).
        let named = "11010519491231002X-0428";
        let document = |r#type, number: &str| Some(types::Document { r#type, number: number.into() });
        for (request, reason, field) in [
            (EnrollDeviceRequest { request_id: String::new(), ..base() }, Reason::FieldMissing, "request_id"),
            (EnrollDeviceRequest { request_id: "short".into(), ..base() }, Reason::FieldInvalid, "request_id"),
            (EnrollDeviceRequest { request_id: named.into(), ..base() }, Reason::FieldInvalid, "request_id"),
            (
                EnrollDeviceRequest { person_reference: named.into(), ..base() },
                Reason::FieldInvalid,
                "person_reference",
            ),
            (EnrollDeviceRequest { document: None, ..base() }, Reason::FieldMissing, "document"),
            (EnrollDeviceRequest { document: document(0, "1"), ..base() }, Reason::FieldMissing, "document.type"),
            (EnrollDeviceRequest { document: document(11, "1"), ..base() }, Reason::FieldInvalid, "document.type"),
            (EnrollDeviceRequest { document: document(20, ""), ..base() }, Reason::FieldMissing, "document.number"),
            (EnrollDeviceRequest { document: document(10, "1"), ..base() }, Reason::FieldInvalid, "document.number"),
            (EnrollDeviceRequest { name: String::new(), ..base() }, Reason::FieldMissing, "name"),
            (EnrollDeviceRequest { name: "长".repeat(65), ..base() }, Reason::FieldInvalid, "name"),
            (EnrollDeviceRequest { enrollment_key: vec![], ..base() }, Reason::FieldMissing, "enrollment_key"),
            (EnrollDeviceRequest { enrollment_key: vec![0xa0], ..base() }, Reason::FieldInvalid, "enrollment_key"),
            (EnrollDeviceRequest { enrollment_key: vec![0; 129], ..base() }, Reason::FieldInvalid, "enrollment_key"),
        ] {
            assert_eq!(seen(enrollment(request)), (reason, field.to_owned()));
        }
    }

    #[test]
    fn an_assignments_fields_are_checked() {
        assert!(assignment(set_request()).is_ok());
        let base = set_request;
        for (request, reason, field) in [
            (SetCodeRequest { request_id: "request_1".into(), ..base() }, Reason::FieldInvalid, "request_id"),
            (SetCodeRequest { document: None, ..base() }, Reason::FieldMissing, "document"),
            (SetCodeRequest { label: String::new(), ..base() }, Reason::FieldMissing, "label"),
            (SetCodeRequest { label: "长".repeat(17), ..base() }, Reason::FieldInvalid, "label"),
            (SetCodeRequest { rule: String::new(), ..base() }, Reason::FieldMissing, "rule"),
            (SetCodeRequest { rule: "R".repeat(33), ..base() }, Reason::FieldInvalid, "rule"),
            (SetCodeRequest { rule: "R\n".into(), ..base() }, Reason::FieldInvalid, "rule"),
            (SetCodeRequest { authority: String::new(), ..base() }, Reason::FieldMissing, "authority"),
            (SetCodeRequest { authority: "44".into(), ..base() }, Reason::FieldInvalid, "authority"),
            (SetCodeRequest { justification: String::new(), ..base() }, Reason::FieldMissing, "justification"),
            (SetCodeRequest { justification: "长".repeat(257), ..base() }, Reason::FieldInvalid, "justification"),
        ] {
            assert_eq!(seen(assignment(request)), (reason, field.to_owned()));
        }
        assert!(assignment(SetCodeRequest { justification: "长".repeat(256), ..base() }).is_ok());
    }

    fn record_request() -> RecordAccessesRequest {
        RecordAccessesRequest {
            log: vec![1; 32],
            first_index: 7,
            records: vec![vec![1]],
            checkpoint: "a note".into(),
            consistency_proof: vec![vec![2; 32]],
            frontier: vec![],
        }
    }

    #[test]
    fn a_deliverys_fields_are_checked() {
        let base = record_request;
        let widest = RecordAccessesRequest {
            first_index: u64::MAX - 1_000,
            records: vec![vec![0; 512]; 1_000],
            consistency_proof: vec![vec![2; 32]; 63],
            ..base()
        };
        let before = delivery(RecordAccessesRequest { frontier: vec![vec![2; 32]; 3], ..base() }).unwrap().before;
        assert_eq!(before.map(|before| before.size()), Some(7));
        let brought = delivery(widest).unwrap();
        assert_eq!((brought.records.len(), brought.proof.len()), (1_000, 63));
        for (request, reason, field) in [
            (RecordAccessesRequest { log: vec![], ..base() }, Reason::FieldMissing, "log"),
            (RecordAccessesRequest { log: vec![1; 31], ..base() }, Reason::FieldInvalid, "log"),
            (RecordAccessesRequest { first_index: u64::MAX, ..base() }, Reason::FieldInvalid, "first_index"),
            (RecordAccessesRequest { records: vec![vec![1]; 1_001], ..base() }, Reason::FieldInvalid, "records"),
            (RecordAccessesRequest { records: vec![vec![1], vec![]], ..base() }, Reason::FieldInvalid, "records"),
            (RecordAccessesRequest { records: vec![vec![1; 513]], ..base() }, Reason::FieldInvalid, "records"),
            (RecordAccessesRequest { checkpoint: String::new(), ..base() }, Reason::FieldMissing, "checkpoint"),
            (
                RecordAccessesRequest { consistency_proof: vec![vec![2; 32]; 64], ..base() },
                Reason::FieldInvalid,
                "consistency_proof",
            ),
            (RecordAccessesRequest { frontier: vec![vec![2; 32]; 2], ..base() }, Reason::FieldInvalid, "frontier"),
            (RecordAccessesRequest { frontier: vec![vec![2; 31]; 3], ..base() }, Reason::FieldInvalid, "frontier"),
            (
                RecordAccessesRequest { consistency_proof: vec![vec![2; 31]], ..base() },
                Reason::FieldInvalid,
                "consistency_proof",
            ),
        ] {
            assert_eq!(seen(delivery(request)), (reason, field.to_owned()));
        }
    }

    #[test]
    fn a_lists_fields_are_checked() {
        let base = || ListAccessesRequest { device_id: vec![1; 16], page_size: 0, page_token: String::new() };
        assert_eq!(list_accesses(&base()).unwrap(), (DeviceId([1; 16]), None, 50));
        let key = AccessKey { time: UnixTime::from_secs(1_800_000_000), log: LogId([0xab; 32]), index: u64::MAX };
        let page_token = access_page_token(key);
        let next = ListAccessesRequest { page_size: 100, page_token: page_token.clone(), ..base() };
        assert_eq!(list_accesses(&next).unwrap(), (DeviceId([1; 16]), Some(key), 100));
        for (request, reason, field) in [
            (ListAccessesRequest { device_id: vec![], ..base() }, Reason::FieldMissing, "device_id"),
            (ListAccessesRequest { device_id: vec![1; 15], ..base() }, Reason::FieldInvalid, "device_id"),
            (ListAccessesRequest { page_size: 101, ..base() }, Reason::FieldInvalid, "page_size"),
            (ListAccessesRequest { page_size: -1, ..base() }, Reason::FieldInvalid, "page_size"),
            (ListAccessesRequest { page_token: "x".into(), ..base() }, Reason::FieldInvalid, "page_token"),
            (ListAccessesRequest { page_token: page_token + "0", ..base() }, Reason::FieldInvalid, "page_token"),
        ] {
            assert_eq!(seen(list_accesses(&request)), (reason, field.to_owned()));
        }
    }

    #[test]
    fn no_refusal_repeats_what_was_sent() {
        let number = "449999199001011231";
        let document = Some(types::Document { r#type: 10, number: number.into() });
        let refusal = enrollment(EnrollDeviceRequest { document, ..enroll_request() }).unwrap_err();
        assert!(!refusal.to_string().contains(number));
        let refusal = enrollment(EnrollDeviceRequest { name: " 欧阳星洲".into(), ..enroll_request() }).unwrap_err();
        assert!(!refusal.to_string().contains("欧阳"));
    }
}
