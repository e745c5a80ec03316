//! The steps, and those about people: devices enrolled, codes set.

use std::{sync::Arc, time::Duration};

use ciborium::Value;
use proto::{
    cbor,
    contract::{
        assignment::{SetCodeRequest, assignment_service_client::AssignmentServiceClient},
        traveler::{EnrollDeviceRequest, traveler_service_client::TravelerServiceClient},
    },
    random::{self, SystemRandom},
    suite::{SigningKey, Suite},
    time::UnixTime,
    token::device_key_to_cose,
};
use tokio::time::sleep;
use tongxing::phone::request_id;

use super::{
    person::resident_id,
    stage::{Device, Miss, Stage, answer, ensure, settle},
    steps::{Enroll, EnrollmentKey, Letters, RequestId, Review, SetCode, Step, Wait},
    token::near,
};

/// The longest a case may wait at once.
const MAX_WAIT: Duration = Duration::from_secs(120);

impl Stage<'_> {
    /// Plays one step.
    pub(super) async fn play(&mut self, step: &Step) -> Result<(), Miss> {
        match step {
            Step::Enroll(enroll) => self.enroll(enroll).await,
            Step::SetCode(set_code) => self.set_code(set_code).await,
            Step::Issue(issue) => self.issue(issue).await,
            Step::List(list) => self.list(list).await,
            Step::Revoke(revoke) => self.revoke(revoke).await,
            Step::Lookup(lookup) => self.lookup(lookup).await,
            Step::Deliver(deliver) => self.deliver(deliver).await,
            Step::ListAccesses(list) => self.list_accesses(list).await,
            Step::Delete(delete) => self.delete(delete).await,
            Step::Watch(watch) => self.watch(watch).await,
            Step::Probe(probe) => self.probe(probe).await,
            Step::GetNode(get_node) => self.get_node(get_node).await,
            Step::Health(health) => self.health(health).await,
            Step::Connect(connect) => self.connect(connect).await,
            Step::Send(send) => self.send(send).await,
            Step::Review(Review { every_statement }) => match self.world.faulty(*every_statement) {
                None => Ok(()),
                Some((count, first)) => {
                    let expected = format!("every statement {every_statement:?}");
                    Err(Miss::failed(expected, format!("{count} that are not, the first in {first}")))
                }
            },
            Step::Wait(Wait { seconds }) => {
                sleep(Duration::from_secs(*seconds).min(MAX_WAIT)).await;
                Ok(())
            }
        }
    }

    pub(super) async fn enroll(&mut self, step: &Enroll) -> Result<(), Miss> {
        for _ in 0..step.times {
            self.enroll_once(step).await?;
        }
        Ok(())
    }

    async fn enroll_once(&mut self, step: &Enroll) -> Result<(), Miss> {
        let client = TravelerServiceClient::new(self.world.channel(step.r#as)?);
        let home = self.world.member();
        let (key, enrollment_key) = self.enrollment_key(step.key)?;
        let request_id = self.next_id(&step.request_id, &self.last.enroll_id);
        let person = &mut self.actor(&step.person)?.person;
        match step.number.as_deref() {
            Some("resident") => person.number = resident_id(home, true),
            Some("resident-wrong") => person.number = resident_id(home, false),
            Some(number) => person.number = number.to_owned(),
            None => {}
        }
        person.kind = step.r#type.unwrap_or(person.kind);
        let mut document = person.document();
        if step.letters == Letters::Lower {
            document.number = document.number.to_lowercase();
        }
        let request = EnrollDeviceRequest {
            request_id: request_id.clone(),
            document: step.document.then_some(document),
            name: step.name.clone().unwrap_or_else(|| person.name.clone()),
            enrollment_key,
            person_reference: String::new(),
        };
        let answered = answer(client.clone().enroll_device(request)).await;
        let Some(enrolled) = settle(answered, step.refused.as_ref(), "a device")? else { return Ok(()) };
        let id: [u8; 16] = enrolled
            .device_id
            .as_slice()
            .try_into()
            .map_err(|_| Miss::failed("a device id of 16 bytes", format!("one of {}", enrolled.device_id.len())))?;
        self.is_now("home_time", enrolled.home_time.as_ref().map(|time| time.seconds))?;
        self.written(&enrolled.change_token)?;
        let before = self.last.enrolled.as_ref().map(|enrolled| enrolled.device_id.clone());
        if let Some(before) = before {
            let expected = if step.same { "the device of the last time" } else { "a device of its own" };
            ensure((before == enrolled.device_id) == step.same, expected, "another answer")?;
        }
        self.actor(&step.person)?.device = Some(Device { id, key: key.clone() });
        self.last.enroll_id = request_id;
        self.last.enroll_key = Some(key);
        self.last.enrolled = Some(enrolled);
        Ok(())
    }

    /// A key, and how it is sent.
    fn enrollment_key(&self, wanted: EnrollmentKey) -> Result<(Arc<SigningKey>, Vec<u8>), Miss> {
        let last = || self.last.enroll_key.clone().ok_or_else(|| Miss::skipped("nothing was enrolled yet"));
        let key = match wanted {
            EnrollmentKey::Used => last()?,
            EnrollmentKey::Token => {
                self.last.token_key.clone().ok_or_else(|| Miss::skipped("the case has no token with a key"))?
            }
            _ => Arc::new(SigningKey::generate(Suite::Esp256)),
        };
        let Value::Map(mut cose) = device_key_to_cose(key.verifying_key()) else {
            return Err(Miss::skipped("a COSE_Key is a map"));
        };
        match wanted {
            EnrollmentKey::Missing => return Ok((key, Vec::new())),
            EnrollmentKey::Noise => return Ok((key, vec![0xff; 40])),
            EnrollmentKey::Extended => cose.push((3.into(), 1.into())),
            // As large as no coordinate of P-256 is.
            EnrollmentKey::OffCurve => {
                cose.retain(|(label, _)| *label != Value::from(-2));
                cose.push(((-2).into(), Value::Bytes(vec![0xff; 32])));
            }
            EnrollmentKey::Fresh | EnrollmentKey::Used | EnrollmentKey::Token => {}
        }
        let encoded = cbor::encode(&Value::Map(cose)).ok_or_else(|| Miss::skipped("a COSE_Key encodes"))?;
        Ok((key, encoded))
    }

    pub(super) async fn set_code(&mut self, step: &SetCode) -> Result<(), Miss> {
        let client = AssignmentServiceClient::new(self.world.channel(step.r#as)?);
        let request_id = self.next_id(&step.request_id, &self.last.set_code_id);
        let document = self.actor(&step.person)?.person.document();
        let rule = step.rule.as_deref().unwrap_or(if step.label == "green" { "R-CLEAR" } else { "R-CASE" });
        let request = SetCodeRequest {
            request_id: request_id.clone(),
            document: step.document.then_some(document),
            label: self.world.label(&step.label),
            rule: rule.to_owned(),
            authority: self.world.fill(&step.authority),
            justification: step.justification.clone(),
        };
        let answered = answer(client.clone().set_code(request)).await;
        let Some(set) = settle(answered, step.refused.as_ref(), "the assignment")? else { return Ok(()) };
        let assigned_at = set.assign_time.as_ref().map(|time| time.seconds);
        if step.same_time {
            let before = self.last.set.as_ref().and_then(|set| set.assign_time.as_ref()).map(|time| time.seconds);
            ensure(assigned_at == before, "the assignment time that it had", "another one")?;
        } else {
            self.is_now("assign_time", assigned_at)?;
        }
        self.last.written = Some(self.change_token(&set.change_token)?);
        if let Some(changed) = step.changed {
            let got = set.changed_consents;
            ensure(got == changed, format!("changed_consents {changed}"), format!("changed_consents {got}"))?;
        }
        if step.same {
            ensure(self.last.set.as_ref() == Some(&set), "the answer of the last time", "another answer")?;
        }
        self.last.set_code_id = request_id;
        self.last.set = Some(set);
        Ok(())
    }

    /// A device's id as a case wants it: somebody's, or so many random bytes.
    pub(super) fn device_bytes(&mut self, person: &str, count: Option<usize>) -> Result<Vec<u8>, Miss> {
        match count {
            Some(count) => Ok(random_bytes(count)),
            None => Ok(self.device(person)?.id.to_vec()),
        }
    }

    fn next_id(&self, wanted: &RequestId, last: &str) -> String {
        match wanted {
            RequestId::New => request_id(),
            RequestId::Fixed => self.fixed_id.clone(),
            RequestId::Same => last.to_owned(),
            RequestId::Text(text) => text.clone(),
        }
    }

    /// Whether a time that the node says is the time it is.
    pub(super) fn is_now(&self, what: &str, seconds: Option<i64>) -> Result<(), Miss> {
        let now = self.world.now();
        let said = seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(UnixTime::from_secs);
        let got = said.map_or("none".to_owned(), |said| said.to_string());
        ensure(said.is_some_and(|said| near(said, now)), format!("{what} {now}, give or take 30 s"), got)
    }
}

pub(super) fn random_bytes(count: usize) -> Vec<u8> {
    let mut bytes = random::bytes::<64>(&SystemRandom).to_vec();
    bytes.truncate(count);
    bytes
}
