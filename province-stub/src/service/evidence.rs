//! The evidence service's adapter: batches in, verdicts out.

use peer::caller;
use proto::{
    contract::{
        error::ErrorReason,
        evidence::{
            PutEvidenceRequest, PutEvidenceResponse, RecordVerdict, Verdict, evidence_service_server::EvidenceService,
        },
    },
    identity::PeerId,
    refusal::Refusal,
};
use tonic::{Request, Response, Status, Streaming};

use super::{
    Endpoint,
    batches::{self, Answers},
    parse,
};
use crate::{
    intake::{self, MAX_RECORDS},
    store::{Store, filing::Filed},
};

#[tonic::async_trait]
impl<S: Store> EvidenceService for Endpoint<S> {
    type PutEvidenceStream = Answers<PutEvidenceResponse>;

    async fn put_evidence(
        &self,
        request: Request<Streaming<PutEvidenceRequest>>,
    ) -> Result<Response<Self::PutEvidenceStream>, Status> {
        let (feed, endpoint) = (caller(&request)?.peer.clone(), self.clone());
        let place = self.intakes.admit(&feed)?;
        let answer = move |batch| {
            let (feed, endpoint) = (feed.clone(), endpoint.clone());
            async move { endpoint.answer_evidence(&feed, batch).await }
        };
        Ok(Response::new(batches::open(request, place, self.stopping.clone(), answer)))
    }
}

impl<S: Store> Endpoint<S> {
    async fn answer_evidence(
        &self,
        feed: &PeerId,
        request: PutEvidenceRequest,
    ) -> Result<PutEvidenceResponse, Refusal> {
        let (trust, now) = self.standing()?;
        let PutEvidenceRequest { batch, records, dry_run } = request;
        if !(1..=MAX_RECORDS).contains(&records.len()) {
            return Err(Refusal::field("records", "1 to 500"));
        }
        let records = records.into_iter().map(parse::evidence::record).collect();
        let answered = intake::take_in(&self.home, &trust.policy, &self.feeds, now, feed, records, dry_run).await?;
        if !dry_run {
            self.metrics.filed(&answered);
        }
        Ok(PutEvidenceResponse {
            batch,
            verdicts: answered.verdicts.iter().map(verdict).collect(),
            changed_consents: answered.effect.changed,
            change_token: answered.effect.head.to_change_token(self.home.member),
        })
    }
}

fn verdict(filed: &Result<Filed, Refusal>) -> RecordVerdict {
    let plain = |verdict: Verdict| RecordVerdict { verdict: verdict.into(), ..RecordVerdict::default() };
    match filed {
        Ok(Filed::Accepted) => plain(Verdict::Accepted),
        Ok(Filed::Unchanged) => plain(Verdict::Unchanged),
        Ok(Filed::Corrected) => plain(Verdict::Corrected),
        Ok(Filed::Withdrawn) => plain(Verdict::Withdrawn),
        Ok(Filed::Refused(_)) => plain(Verdict::Refused),
        Err(refusal) => {
            let (reason, field, detail) = why(refusal);
            RecordVerdict { verdict: Verdict::Refused.into(), reason: reason.into(), field, detail }
        }
    }
}

/// A refusal as a verdict says it: the reason, the field at fault, and words.
pub(super) fn why(refusal: &Refusal) -> (ErrorReason, String, String) {
    match refusal.violation() {
        Some((field, what)) => (refusal.reason(), field.to_owned(), what.to_owned()),
        None => (refusal.reason(), String::new(), refusal.to_status().message().to_owned()),
    }
}
