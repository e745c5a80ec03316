//! All that is on file about a traveler, part by part, for the traveler.

use std::sync::Arc;

use peer::trust::Trust;
use proto::{
    contract::{
        traveler::{
            ExportTravelerResponse, ExportedCode, ExportedDevice, ExportedPerson, export_traveler_response::Part,
        },
        types,
    },
    refusal::Refusal,
    time::UnixTime,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::{Instrument as _, instrument};

use super::{
    Endpoint, access,
    codes::{evidence_on_file, source},
    consent,
};
use crate::{
    accesses::{self, Page},
    consents::{self, MAX_PAGE},
    store::{
        DeviceId, Store,
        filing::{PastCode, PersonFile},
    },
};

/// Parts that wait for their reader.
const WAITING: usize = 32;

/// The parts of an export.
pub(crate) type Parts = ReceiverStream<Result<ExportTravelerResponse, Status>>;

/// Where the parts go; `None` when nobody reads them any more.
struct Outlet(mpsc::Sender<Result<ExportTravelerResponse, Status>>);

/// Begins an export. Whoever is unknown is told at once.
#[instrument(level = "debug", name = "export_traveler", skip_all)]
pub(super) async fn open<S: Store>(
    endpoint: Endpoint<S>,
    trust: Arc<Trust>,
    now: UnixTime,
    device: DeviceId,
) -> Result<Parts, Refusal> {
    let person = endpoint.home.store.device(device).await?.person;
    let file = endpoint.home.store.person_file(person).await?;
    let (parts, stream) = mpsc::channel(WAITING);
    let outlet = Outlet(parts);
    let giving = async move {
        if let Err(refusal) = give(&endpoint, &trust, now, device, file, &outlet).await {
            let _ = outlet.0.send(Err(refusal.into())).await;
        }
    };
    tokio::spawn(giving.in_current_span());
    Ok(ReceiverStream::new(stream))
}

async fn give<S: Store>(
    endpoint: &Endpoint<S>,
    trust: &Trust,
    now: UnixTime,
    device: DeviceId,
    file: PersonFile,
    outlet: &Outlet,
) -> Result<(), Refusal> {
    let mut parts = vec![Part::Person(person(&file))];
    parts.extend(file.devices.iter().map(|(id, at)| {
        Part::Device(ExportedDevice { device_id: id.0.to_vec(), enroll_time: Some(at.to_protobuf()) })
    }));
    parts.extend(file.codes.iter().map(|code| Part::Code(past_code(code))));
    parts.extend(file.evidence.iter().map(|evidence| Part::Evidence(evidence_on_file(evidence))));
    if !outlet.all(parts).await {
        return Ok(());
    }
    let mut after = None;
    loop {
        let page = consents::list(&endpoint.home, device, now, after, MAX_PAGE).await?;
        after = page.next;
        let parts = page.consents.iter().map(|item| Part::Consent(consent(item))).collect();
        if !outlet.all(parts).await || after.is_none() {
            break;
        }
    }
    let mut after = None;
    loop {
        let Page { accesses, next } =
            accesses::list(&endpoint.home, &trust.policy, now, device, after, MAX_PAGE).await?;
        after = next;
        let parts = accesses.iter().map(|item| Part::Access(access(item))).collect();
        if !outlet.all(parts).await || after.is_none() {
            return Ok(());
        }
    }
}

impl Outlet {
    /// Gives parts on, and says whether somebody still reads.
    async fn all(&self, parts: Vec<Part>) -> bool {
        for part in parts {
            if self.0.send(Ok(ExportTravelerResponse { part: Some(part) })).await.is_err() {
                return false;
            }
        }
        true
    }
}

fn person(file: &PersonFile) -> ExportedPerson {
    let (document, name) = file.particulars.as_ref().map_or((None, String::new()), |(document, particulars)| {
        let number = document.number().to_owned();
        (Some(types::Document { r#type: document.kind().number().into(), number }), particulars.name.clone())
    });
    ExportedPerson { document, name, has_reference: file.has_reference }
}

fn past_code(code: &PastCode) -> ExportedCode {
    ExportedCode {
        label: code.label.clone().unwrap_or_default(),
        rule: code.rule.clone().unwrap_or_default(),
        authority: code.authority.clone().unwrap_or_default(),
        assign_time: Some(code.assigned_at.to_protobuf()),
        record_time: Some(code.recorded_at.to_protobuf()),
        source: source(code.origin).into(),
        set_by: code.set_by.clone(),
        justification: code.justification.clone().unwrap_or_default(),
    }
}
