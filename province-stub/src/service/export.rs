//! All that is on file about a traveler, part by part, for the traveler.
//!
//! A backend has one export under way, and reads it: a part that nobody takes for some seconds ends it (I7).

use std::{sync::Arc, time::Duration};

use proto::{
    contract::{
        traveler::{
            ExportTravelerResponse, ExportedCode, ExportedDevice, ExportedPerson, export_traveler_response::Part,
        },
        types,
    },
    policy::Policy,
    refusal::{Blame, Reason, Refusal},
    time::UnixTime,
};
use tokio::sync::mpsc::{self, error::SendTimeoutError};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::{Instrument as _, instrument};

use super::{
    access,
    codes::{evidence_on_file, source},
    consent,
};
use crate::{
    accesses::{self, Page, UnderWay},
    consents::{self, MAX_PAGE},
    home::Home,
    store::{
        DeviceId, Store,
        filing::{PastCode, PersonFile},
    },
};

/// Parts that wait for their reader.
const WAITING: usize = 32;
/// How long a part waits for room among them.
const PART_WITHIN: Duration = Duration::from_secs(5);

/// The parts of an export.
pub(crate) type Parts = ReceiverStream<Result<ExportTravelerResponse, Status>>;

/// Where the parts go.
struct Outlet {
    parts: mpsc::Sender<Result<ExportTravelerResponse, Status>>,
    /// How long a part waits for room.
    part_within: Duration,
}

/// Begins an export. Whoever is unknown is told at once. It has its place until the last part has found room.
#[instrument(level = "debug", name = "export_traveler", skip_all)]
pub(super) async fn open<S: Store>(
    home: Arc<Home<S>>,
    policy: Policy,
    now: UnixTime,
    device: DeviceId,
    place: UnderWay,
) -> Result<Parts, Refusal> {
    open_within(home, policy, now, device, place, PART_WITHIN).await
}

async fn open_within<S: Store>(
    home: Arc<Home<S>>,
    policy: Policy,
    now: UnixTime,
    device: DeviceId,
    place: UnderWay,
    part_within: Duration,
) -> Result<Parts, Refusal> {
    let person = home.store.device(device).await?.person;
    let file = home.store.person_file(person).await?;
    let (parts, stream) = mpsc::channel(WAITING + 1);
    // Room for the last word, however full it is: an export that was cut short must not look like one that is whole.
    let last_word = parts.clone().try_reserve_owned();
    let outlet = Outlet { parts, part_within };
    let giving = async move {
        let _place = place;
        if let (Err(refusal), Ok(last_word)) = (give(&home, &policy, now, device, file, &outlet).await, last_word) {
            last_word.send(Err(refusal.into()));
        }
    };
    tokio::spawn(giving.in_current_span());
    Ok(ReceiverStream::new(stream))
}

async fn give<S: Store>(
    home: &Home<S>,
    policy: &Policy,
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
    if !outlet.all(parts).await? {
        return Ok(());
    }
    let mut after = None;
    loop {
        let page = consents::list(home, device, now, after, MAX_PAGE).await?;
        after = page.next;
        let parts = page.consents.iter().map(|item| Part::Consent(consent(item))).collect();
        if !outlet.all(parts).await? || after.is_none() {
            break;
        }
    }
    let mut after = None;
    loop {
        let Page { accesses, next } = accesses::list(home, policy, now, device, after, MAX_PAGE).await?;
        after = next;
        let parts = accesses.iter().map(|item| Part::Access(access(item))).collect();
        if !outlet.all(parts).await? || after.is_none() {
            return Ok(());
        }
    }
}

impl Outlet {
    /// Gives parts on. False if the reader is gone; a refusal if it is too slow.
    async fn all(&self, parts: Vec<Part>) -> Result<bool, Refusal> {
        for part in parts {
            let part = Ok(ExportTravelerResponse { part: Some(part) });
            match self.parts.send_timeout(part, self.part_within).await {
                Ok(()) => {}
                Err(SendTimeoutError::Closed(_)) => return Ok(false),
                Err(SendTimeoutError::Timeout(_)) => {
                    return Err(Refusal::new(Reason::Overloaded).with("limit", "slow_reader").blaming(Blame::Caller));
                }
            }
        }
        Ok(true)
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

#[cfg(test)]
mod tests {
    use proto::identity::PeerId;
    use tokio_stream::StreamExt as _;

    use super::*;
    use crate::{
        accesses::Deliveries,
        seed::Condition,
        test_support::{Fixture, NOW, member, seeded},
    };

    const BRIEF: Duration = Duration::from_millis(100);

    fn backend() -> PeerId {
        PeerId::backend(member(), "app").unwrap()
    }

    /// Somebody with more devices than parts may wait.
    async fn somebody(fixture: &Fixture) -> DeviceId {
        let mut device = DeviceId([0; 16]);
        for _ in 0..WAITING + 8 {
            device = fixture.enroll(&seeded(Condition::Green)).await.0;
        }
        device
    }

    #[tokio::test]
    async fn an_export_that_nobody_reads_ends_and_says_that_it_is_not_whole() {
        let fixture = Fixture::new().await;
        let (device, policy) = (somebody(&fixture).await, fixture.policy.clone());
        let (home, exports) = (Arc::new(fixture.home), Deliveries::of("exports"));
        let open = async |part_within| {
            let place = exports.admit(&backend())?;
            open_within(home.clone(), policy.clone(), NOW, device, place, part_within).await
        };
        let unread = open(BRIEF).await.unwrap();
        let refused = open(BRIEF).await.map(|_| ()).unwrap_err();
        assert_eq!((refused.reason(), refused.metadata("limit")), (Reason::Overloaded, Some("exports")));
        while exports.admit(&backend()).is_err() {
            tokio::time::sleep(BRIEF / 10).await;
        }
        let mut parts: Vec<_> = unread.collect().await;
        let ended = parts.pop().unwrap().unwrap_err();
        assert_eq!((parts.len(), parts.iter().all(Result::is_ok)), (WAITING, true));
        assert_eq!(Refusal::reason_of(&ended), Some(Reason::Overloaded));
        // Whoever reads has all of it, and whoever goes away keeps no place.
        let parts: Vec<_> = open(PART_WITHIN).await.unwrap().collect().await;
        assert!(parts.len() > WAITING + 8 && parts.iter().all(Result::is_ok), "{}", parts.len());
        drop(open(Duration::MAX).await.unwrap());
        while exports.admit(&backend()).is_err() {
            tokio::time::sleep(BRIEF / 10).await;
        }
    }

    #[tokio::test]
    async fn who_is_unknown_is_told_at_once_and_a_store_that_fails_on_the_way_at_the_end() {
        let fixture = Fixture::new().await;
        let (device, policy) = (somebody(&fixture).await, fixture.policy.clone());
        let (home, exports) = (Arc::new(fixture.home), Deliveries::of("exports"));
        let open = async |device| {
            let place = exports.admit(&backend())?;
            open(home.clone(), policy.clone(), NOW, device, place).await
        };
        let refused = open(DeviceId([0; 16])).await.map(|_| ()).unwrap_err();
        assert_eq!(refused.reason(), Reason::DeviceUnknown);
        // It waits for its reader, and has not asked for consents yet.
        let begun = open(device).await.unwrap();
        home.store.close().await;
        let last = begun.collect::<Vec<_>>().await.pop().unwrap().unwrap_err();
        assert_eq!(Refusal::reason_of(&last), Some(Reason::StoreUnavailable));
    }
}
