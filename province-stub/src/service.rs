//! The tonic adapters: protobuf in, one operation, protobuf or a status out. Nothing else happens here.
//!
//! Who may call what is not asked here but at the edge; [`crate::server`] gives it the rules.

mod batches;
mod codes;
mod evidence;
mod export;
mod parse;
mod watch;

use std::sync::Arc;

use peer::{
    caller,
    trust::{Trust, TrustStore},
};
use proto::{
    contract::{
        access::{
            self, RecordAccessesRequest, RecordAccessesResponse, access_log_service_server::AccessLogService,
            record_accesses_response,
        },
        province::{
            GetNodeRequest, GetNodeResponse, LookupRequest, LookupResponse, UnknownTraveler, WatchChangesRequest,
            lookup_response, province_service_server::ProvinceService,
        },
        recognition::{Outcome, Source},
        traveler::{
            Access, Consent, DeleteTravelerRequest, DeleteTravelerResponse, EnrollDeviceRequest, EnrollDeviceResponse,
            ExportTravelerRequest, GetCodeRequest, GetCodeResponse, IssueConsentRequest, IssueConsentResponse,
            ListAccessesRequest, ListAccessesResponse, ListConsentsRequest, ListConsentsResponse, RevokeConsentRequest,
            RevokeConsentResponse, traveler_service_server::TravelerService,
        },
    },
    log::record::Ending,
    refusal::{Blame, Refusal},
    time::UnixTime,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::{Instrument as _, debug_span, field::Empty};

use crate::{
    accesses::{self, Deliveries, Seen, Taken},
    consents, deletion,
    enrollment::enroll,
    explanation,
    home::Home,
    intake::Feeds,
    issuance::issue,
    lookup::{Answer, lookup},
    metrics::{NodeMetrics, outcome_word},
    push::Platforms,
    store::{
        IssuedConsent, Store,
        access_log::{AccessKey, TravelerAccess},
    },
    watch::Watchers,
};

/// A home with its wires: what all services share.
#[derive(Debug)]
pub(crate) struct Endpoint<S> {
    pub(crate) home: Arc<Home<S>>,
    pub(crate) trust: Arc<TrustStore>,
    pub(crate) metrics: NodeMetrics,
    pub(crate) watchers: Arc<Watchers>,
    pub(crate) deliveries: Deliveries,
    pub(crate) intakes: Deliveries,
    pub(crate) pushes: Deliveries,
    pub(crate) exports: Deliveries,
    pub(crate) feeds: Arc<Feeds>,
    pub(crate) platforms: Arc<Platforms>,
    pub(crate) stopping: CancellationToken,
}

impl<S> Clone for Endpoint<S> {
    /// For a stream, which lives beyond its call.
    fn clone(&self) -> Self {
        Self {
            home: self.home.clone(),
            trust: self.trust.clone(),
            metrics: self.metrics.clone(),
            watchers: self.watchers.clone(),
            deliveries: self.deliveries.clone(),
            intakes: self.intakes.clone(),
            pushes: self.pushes.clone(),
            exports: self.exports.clone(),
            feeds: self.feeds.clone(),
            platforms: self.platforms.clone(),
            stopping: self.stopping.clone(),
        }
    }
}

impl<S: Store> Endpoint<S> {
    /// What is trusted, and the time, as of now. An expired trust list here is home's to mend.
    fn standing(&self) -> Result<(Arc<Trust>, UnixTime), Refusal> {
        let trust = self.trust.usable().map_err(|refusal| refusal.blaming(Blame::Home))?;
        Ok((trust, self.trust.clock().now()))
    }

    async fn answer_lookup(&self, request: LookupRequest) -> Result<Answer, Refusal> {
        let (trust, now) = self.standing()?;
        let query = parse::query(request)?;
        lookup(&self.home, &trust.list, &trust.policy, now, &query).await
    }

    async fn answer_enroll(&self, request: Request<EnrollDeviceRequest>) -> Result<EnrollDeviceResponse, Refusal> {
        let (trust, now) = self.standing()?;
        let backend = caller(&request)?.peer.clone();
        let enrollment = parse::enrollment(request.into_inner())?;
        let (device, head) = enroll(&self.home, &trust.policy, now, &backend, enrollment).await?;
        Ok(EnrollDeviceResponse {
            device_id: device.0.to_vec(),
            home_time: Some(now.to_protobuf()),
            change_token: head.to_change_token(self.home.member),
        })
    }

    async fn answer_issue(&self, request: IssueConsentRequest) -> Result<IssueConsentResponse, Refusal> {
        let (trust, now) = self.standing()?;
        if request.consent_request.is_empty() {
            return Err(Refusal::missing("consent_request"));
        }
        let (issued, head) = issue(&self.home, &trust.policy, now, &request.consent_request).await?;
        self.metrics.issued();
        Ok(IssueConsentResponse {
            token: issued.token,
            hint_key: issued.hint_key.0.to_vec(),
            expire_time: Some(issued.expires_at.to_protobuf()),
            home_time: Some(now.to_protobuf()),
            change_token: head.to_change_token(self.home.member),
        })
    }

    async fn answer_list(&self, request: ListConsentsRequest) -> Result<ListConsentsResponse, Refusal> {
        let (_, now) = self.standing()?;
        let (device, after, size) = parse::list_consents(&request)?;
        let page = consents::list(&self.home, device, now, after, size).await?;
        Ok(ListConsentsResponse {
            consents: page.consents.iter().map(consent).collect(),
            next_page_token: page.next.map(parse::page_token).unwrap_or_default(),
        })
    }

    async fn answer_revoke(&self, request: RevokeConsentRequest) -> Result<RevokeConsentResponse, Refusal> {
        let (_, now) = self.standing()?;
        let (device, cti) = parse::revocation(&request)?;
        let head = consents::revoke(&self.home, device, cti, now).await?;
        self.metrics.revoked();
        Ok(RevokeConsentResponse { change_token: head.to_change_token(self.home.member) })
    }

    async fn answer_list_accesses(&self, request: ListAccessesRequest) -> Result<ListAccessesResponse, Refusal> {
        let (trust, now) = self.standing()?;
        let (device, after, size) = parse::list_accesses(&request)?;
        let page = accesses::list(&self.home, &trust.policy, now, device, after, size).await?;
        Ok(ListAccessesResponse {
            accesses: page.accesses.iter().map(access).collect(),
            next_page_token: page.next.map(parse::access_page_token).unwrap_or_default(),
        })
    }

    async fn answer_delete(&self, request: Request<DeleteTravelerRequest>) -> Result<DeleteTravelerResponse, Refusal> {
        let (_, now) = self.standing()?;
        let backend = caller(&request)?.peer.clone();
        let device = parse::deletion(request.get_ref())?;
        let forgotten = deletion::delete(&self.home, now, &backend, device).await?;
        self.metrics.deleted();
        Ok(DeleteTravelerResponse {
            change_token: forgotten.head.to_change_token(self.home.member),
            revoked_consents: forgotten.revoked,
        })
    }

    async fn answer_record(&self, request: Request<RecordAccessesRequest>) -> Result<Taken, Refusal> {
        let (trust, now) = self.standing()?;
        let replica = caller(&request)?.peer.clone();
        let _alone = self.deliveries.admit(&replica)?;
        let brought = parse::delivery(request.into_inner())?;
        accesses::record(&self.home, &trust.list, now, replica, brought).await
    }

    async fn answer_node(&self) -> Result<GetNodeResponse, Refusal> {
        let (trust, now) = self.standing()?;
        let head = self.home.store.head().await?;
        Ok(GetNodeResponse {
            software: concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")).to_owned(),
            trust_list_version: trust.list_edition.version,
            policy_version: trust.policy_edition.version,
            change_token: head.to_change_token(self.home.member),
            node_time: Some(now.to_protobuf()),
        })
    }

    async fn answer_get_code(&self, request: GetCodeRequest) -> Result<GetCodeResponse, Refusal> {
        let (trust, now) = self.standing()?;
        let code = explanation::of_device(&self.home, &trust.policy, now, parse::code(&request)?).await?;
        Ok(GetCodeResponse { code: code.map(|code| self.explain(&trust, &code)) })
    }
}

#[tonic::async_trait]
impl<S: Store> ProvinceService for Endpoint<S> {
    type WatchChangesStream = watch::Changes;

    async fn lookup(&self, request: Request<LookupRequest>) -> Result<Response<LookupResponse>, Status> {
        let span = debug_span!("lookup", outcome = Empty);
        let answer = self.answer_lookup(request.into_inner()).instrument(span.clone()).await;
        span.record("outcome", outcome_word(&answer));
        self.metrics.looked_up(&answer);
        let result = match answer? {
            Answer::Statement(statement) => lookup_response::Result::Statement(statement),
            Answer::UnknownTraveler(head) => lookup_response::Result::UnknownTraveler(UnknownTraveler {
                change_token: head.to_change_token(self.home.member),
            }),
        };
        Ok(Response::new(LookupResponse { result: Some(result) }))
    }

    async fn get_node(&self, _request: Request<GetNodeRequest>) -> Result<Response<GetNodeResponse>, Status> {
        Ok(Response::new(self.answer_node().await?))
    }

    async fn watch_changes(
        &self,
        request: Request<Streaming<WatchChangesRequest>>,
    ) -> Result<Response<watch::Changes>, Status> {
        Ok(Response::new(watch::open(self.home.clone(), self.watchers.clone(), request.into_inner())?))
    }
}

#[tonic::async_trait]
impl<S: Store> TravelerService for Endpoint<S> {
    type ExportTravelerStream = export::Parts;

    async fn enroll_device(
        &self,
        request: Request<EnrollDeviceRequest>,
    ) -> Result<Response<EnrollDeviceResponse>, Status> {
        Ok(Response::new(self.answer_enroll(request).await?))
    }

    async fn issue_consent(
        &self,
        request: Request<IssueConsentRequest>,
    ) -> Result<Response<IssueConsentResponse>, Status> {
        Ok(Response::new(self.answer_issue(request.into_inner()).await?))
    }

    async fn list_consents(
        &self,
        request: Request<ListConsentsRequest>,
    ) -> Result<Response<ListConsentsResponse>, Status> {
        Ok(Response::new(self.answer_list(request.into_inner()).await?))
    }

    async fn revoke_consent(
        &self,
        request: Request<RevokeConsentRequest>,
    ) -> Result<Response<RevokeConsentResponse>, Status> {
        Ok(Response::new(self.answer_revoke(request.into_inner()).await?))
    }

    async fn list_accesses(
        &self,
        request: Request<ListAccessesRequest>,
    ) -> Result<Response<ListAccessesResponse>, Status> {
        Ok(Response::new(self.answer_list_accesses(request.into_inner()).await?))
    }

    async fn delete_traveler(
        &self,
        request: Request<DeleteTravelerRequest>,
    ) -> Result<Response<DeleteTravelerResponse>, Status> {
        Ok(Response::new(self.answer_delete(request).await?))
    }

    async fn get_code(&self, request: Request<GetCodeRequest>) -> Result<Response<GetCodeResponse>, Status> {
        Ok(Response::new(self.answer_get_code(request.into_inner()).await?))
    }

    async fn export_traveler(
        &self,
        request: Request<ExportTravelerRequest>,
    ) -> Result<Response<export::Parts>, Status> {
        let (trust, now) = self.standing()?;
        let backend = caller(&request)?.peer.clone();
        let place = self.exports.admit(&backend)?;
        let device = parse::export(request.get_ref())?;
        Ok(Response::new(export::open(self.home.clone(), trust.policy.clone(), now, device, place).await?))
    }
}

#[tonic::async_trait]
impl<S: Store> AccessLogService for Endpoint<S> {
    async fn record_accesses(
        &self,
        request: Request<RecordAccessesRequest>,
    ) -> Result<Response<RecordAccessesResponse>, Status> {
        let taken = self.answer_record(request).await?;
        self.metrics.took_in(&taken);
        let result = match taken {
            Taken::Receipt { receipt, .. } => record_accesses_response::Result::Receipt(receipt),
            Taken::Conflict(conflict) => record_accesses_response::Result::Conflict(access::Conflict {
                held_checkpoint: conflict.held_note.unwrap_or_default(),
                held_size: conflict.held_size,
                index: conflict.index,
            }),
        };
        Ok(Response::new(RecordAccessesResponse { result: Some(result) }))
    }
}

fn access(seen: &Seen) -> Access {
    let access = match seen {
        Seen::Access(access) => &**access,
        Seen::Look(look) => {
            return Access {
                time: Some(look.at.to_protobuf()),
                caller: look.operator.clone(),
                operator_reason: look.reason.clone(),
                ..Access::default()
            };
        }
    };
    let TravelerAccess { key: AccessKey { log, index, .. }, entry, device } = access;
    let (outcome, source, refused) = match &entry.ending {
        Ending::Answered { outcome, source, .. } => (*outcome, *source, ""),
        Ending::Refused(reason) => (Outcome::Unspecified, Source::Unspecified, &**reason),
    };
    Access {
        time: Some(entry.time.to_protobuf()),
        venue: entry.venue.to_string(),
        caller: entry.caller.as_str().to_owned(),
        staff_id: entry.staff_id.clone().unwrap_or_default(),
        purpose: i32::from(entry.purpose.number()),
        disclosed_scope: entry.disclosed().map_or(0, |scope| scope.bits().into()),
        outcome: outcome.into(),
        source: source.into(),
        refusal_reason: refused.to_owned(),
        cti: entry.cti.0.to_vec(),
        kind: i32::from(entry.kind.number()),
        device_id: device.map(|device| device.0.to_vec()).unwrap_or_default(),
        exchange_id: entry.exchange_id.to_vec(),
        log: log.0.to_vec(),
        log_index: *index,
        operator_reason: String::new(),
    }
}

fn consent(consent: &IssuedConsent) -> Consent {
    Consent {
        cti: consent.cti.0.to_vec(),
        kind: i32::from(consent.kind.number()),
        scope: consent.scope.bits().into(),
        issue_time: Some(consent.issued_at.to_protobuf()),
        expire_time: Some(consent.expires_at.to_protobuf()),
        revoke_time: consent.revoked_at.map(UnixTime::to_protobuf),
    }
}
