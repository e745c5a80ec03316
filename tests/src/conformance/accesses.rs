//! Who asked for a traveler's status, as the backend sees it; and the traveler's end.

use proto::{
    contract::traveler::{
        Access, DeleteTravelerRequest, ListAccessesRequest, ListAccessesResponse,
        traveler_service_client::TravelerServiceClient,
    },
    log::record::Ending,
};

use super::{
    stage::{Delivered, Miss, Stage, answer, ensure, settle},
    steps::{Delete, ListAccesses},
};

/// Pages that a list may have before it is taken for one without an end.
const MAX_PAGES: usize = 50;

impl Stage<'_> {
    pub(super) async fn list_accesses(&mut self, step: &ListAccesses) -> Result<(), Miss> {
        let client = TravelerServiceClient::new(self.world.channel(step.r#as)?);
        let device_id = self.device_bytes(&step.person, step.device_bytes)?;
        let mut page_token = step.page_token.clone().unwrap_or_default();
        let mut accesses: Vec<Access> = Vec::new();
        for _ in 0..MAX_PAGES {
            let request = ListAccessesRequest { device_id: device_id.clone(), page_size: step.page_size, page_token };
            let answered = answer(client.clone().list_accesses(request)).await;
            let Some(page) = settle(answered, step.refused.as_ref(), "a page of accesses")? else { return Ok(()) };
            let ListAccessesResponse { accesses: found, next_page_token } = page;
            let size = if step.page_size == 0 { 50 } else { usize::try_from(step.page_size).unwrap_or(0) };
            let got = format!("{} of them", found.len());
            ensure(found.len() <= size, format!("at most {size} accesses on a page"), got)?;
            accesses.extend(found);
            if next_page_token.is_empty() {
                return self.judge_accesses(step, &accesses);
            }
            page_token = next_page_token;
        }
        Err(Miss::failed("an end of the list", format!("{MAX_PAGES} pages and no end")))
    }

    fn judge_accesses(&mut self, step: &ListAccesses, accesses: &[Access]) -> Result<(), Miss> {
        let number = self.actor(&step.person)?.person.number.clone();
        let own = |delivered: &&Delivered| !step.forgotten && delivered.person.number == number;
        // Later ones are newer.
        let wanted: Vec<_> = self.delivered.iter().rev().filter(own).collect();
        let count = step.count.unwrap_or(wanted.len());
        ensure(count == wanted.len(), format!("{count} delivered"), "a case that counts otherwise")?;
        ensure(accesses.len() == count, format!("{count} accesses"), format!("{}", accesses.len()))?;
        let log = self.world.log()?.id().0;
        for (got, wanted) in accesses.iter().zip(wanted) {
            let expected = as_listed(wanted, &log);
            if let Some(field) = difference(got, &expected) {
                let index = wanted.index;
                return Err(Miss::failed(format!("record {index} in its place"), format!("another {field}")));
            }
        }
        Ok(())
    }

    pub(super) async fn delete(&mut self, step: &Delete) -> Result<(), Miss> {
        let client = TravelerServiceClient::new(self.world.channel(step.r#as)?);
        let device_id = self.device_bytes(&step.person, step.device_bytes)?;
        let answered = answer(client.clone().delete_traveler(DeleteTravelerRequest { device_id })).await;
        let Some(deleted) = settle(answered, step.refused.as_ref(), "the deletion")? else { return Ok(()) };
        let before = self.last.written;
        self.written(&deleted.change_token)?;
        if let (Some(by), Some(before), Some(after)) = (step.moved, before, self.last.written) {
            let moved = after.seq.saturating_sub(before.seq);
            ensure(moved == by, format!("a change token that moved by {by}"), format!("it moved by {moved}"))?;
        }
        let got = deleted.revoked_consents;
        let expected = step.revoked.unwrap_or(got);
        ensure(got == expected, format!("revoked_consents {expected}"), format!("revoked_consents {got}"))
    }
}

/// What a traveler sees of a record.
fn as_listed(delivered: &Delivered, log: &[u8; 32]) -> Access {
    let entry = &delivered.entry;
    let (outcome, source, refusal_reason) = match &entry.ending {
        Ending::Answered { outcome, source, .. } => ((*outcome).into(), (*source).into(), String::new()),
        Ending::Refused(reason) => (0, 0, reason.to_string()),
    };
    Access {
        time: Some(entry.time.to_protobuf()),
        venue: entry.venue.to_string(),
        caller: entry.caller.as_str().to_owned(),
        staff_id: entry.staff_id.clone().unwrap_or_default(),
        purpose: entry.purpose.number().into(),
        disclosed_scope: entry.disclosed().map_or(0, |scope| scope.bits().into()),
        outcome,
        source,
        refusal_reason,
        cti: entry.cti.0.to_vec(),
        kind: entry.kind.number().into(),
        device_id: delivered.device.to_vec(),
        exchange_id: entry.exchange_id.to_vec(),
        log: log.to_vec(),
        log_index: delivered.index,
        operator_reason: String::new(),
    }
}

/// The first field in which a list's entry is not what was delivered. Paper is issued to no device, if a node sees it so.
fn difference(got: &Access, wanted: &Access) -> Option<&'static str> {
    let paper = !proto::terms::Kind::from_number(u64::try_from(wanted.kind).ok()?).is_ok_and(|kind| kind.has_device());
    let device = got.device_id == wanted.device_id || paper && got.device_id.is_empty();
    let fields = [
        ("time", got.time == wanted.time),
        ("venue", got.venue == wanted.venue),
        ("caller", got.caller == wanted.caller),
        ("staff_id", got.staff_id == wanted.staff_id),
        ("purpose", got.purpose == wanted.purpose),
        ("disclosed_scope", got.disclosed_scope == wanted.disclosed_scope),
        ("outcome", got.outcome == wanted.outcome),
        ("source", got.source == wanted.source),
        ("refusal_reason", got.refusal_reason == wanted.refusal_reason),
        ("cti", got.cti == wanted.cti),
        ("kind", got.kind == wanted.kind),
        ("device_id", device),
        ("exchange_id", got.exchange_id == wanted.exchange_id),
        ("log", got.log == wanted.log),
        ("log_index", got.log_index == wanted.log_index),
        ("operator_reason", got.operator_reason == wanted.operator_reason),
    ];
    fields.into_iter().find(|(_, same)| !same).map(|(field, _)| field)
}
