//! The assignment service's adapter: codes set by hand and cleared, pushed by the platform, and explained.

use peer::{caller, trust::Trust};
use prost::Message as _;
use proto::{
    contract::{
        assignment::{
            AssignmentSource, ClearCodeRequest, ClearCodeResponse, CodeExplanation, CodeVerdict, CodeVerdictDetail,
            EvidenceOnFile as WireEvidence, ExplainCodeRequest, ExplainCodeResponse, PutCodesRequest, PutCodesResponse,
            SetCodeRequest, SetCodeResponse, assignment_service_server::AssignmentService,
        },
        types,
    },
    identity::PeerId,
    policy::{Meaning, Policy},
    refusal::Refusal,
    terms::Level,
    time::UnixTime,
};
use tonic::{Request, Response, Status, Streaming};

use super::{
    Endpoint,
    batches::{self, Answers},
    evidence::why,
    parse,
};
use crate::{
    assignment::{clear_code, set_code},
    evidence::Fact,
    explanation,
    push::{self, Batch, MAX_CODES},
    store::{
        Store,
        filing::{Assignment, CodeOnFile, EvidenceOnFile, Origin},
    },
};

#[tonic::async_trait]
impl<S: Store> AssignmentService for Endpoint<S> {
    type PutCodesStream = Answers<PutCodesResponse>;

    async fn set_code(&self, request: Request<SetCodeRequest>) -> Result<Response<SetCodeResponse>, Status> {
        Ok(Response::new(self.answer_set_code(request).await?))
    }

    async fn clear_code(&self, request: Request<ClearCodeRequest>) -> Result<Response<ClearCodeResponse>, Status> {
        Ok(Response::new(self.answer_clear_code(request).await?))
    }

    async fn explain_code(
        &self,
        request: Request<ExplainCodeRequest>,
    ) -> Result<Response<ExplainCodeResponse>, Status> {
        Ok(Response::new(self.answer_explain_code(request).await?))
    }

    async fn put_codes(
        &self,
        request: Request<Streaming<PutCodesRequest>>,
    ) -> Result<Response<Self::PutCodesStream>, Status> {
        let (platform, endpoint) = (caller(&request)?.peer.clone(), self.clone());
        push::admit(&self.platforms, &platform)?;
        let place = self.pushes.admit(&platform)?;
        let answer = move |batch| {
            let (platform, endpoint) = (platform.clone(), endpoint.clone());
            async move { endpoint.answer_codes(&platform, batch).await }
        };
        Ok(Response::new(batches::open(request, place, self.stopping.clone(), answer)))
    }
}

impl<S: Store> Endpoint<S> {
    async fn answer_set_code(&self, request: Request<SetCodeRequest>) -> Result<SetCodeResponse, Refusal> {
        let (trust, now) = self.standing()?;
        let operator = caller(&request)?.peer.clone();
        let assignment = parse::assignment(request.into_inner())?;
        let assigned = set_code(&self.home, &trust.policy, now, &operator, assignment).await?;
        self.metrics.changed(assigned.changed);
        Ok(SetCodeResponse {
            assign_time: Some(assigned.assigned_at.to_protobuf()),
            change_token: assigned.head.to_change_token(self.home.member),
            changed_consents: assigned.changed,
        })
    }

    async fn answer_clear_code(&self, request: Request<ClearCodeRequest>) -> Result<ClearCodeResponse, Refusal> {
        let (trust, now) = self.standing()?;
        let operator = caller(&request)?.peer.clone();
        let clearing = parse::clearing(request.into_inner())?;
        let effect = clear_code(&self.home, &trust.policy, now, &operator, clearing).await?;
        self.metrics.changed(effect.changed);
        Ok(ClearCodeResponse {
            change_token: effect.head.to_change_token(self.home.member),
            changed_consents: effect.changed,
        })
    }

    async fn answer_explain_code(&self, request: Request<ExplainCodeRequest>) -> Result<ExplainCodeResponse, Refusal> {
        let (trust, now) = self.standing()?;
        let operator = caller(&request)?.peer.clone();
        let (document, reason) = parse::explanation(request.into_inner())?;
        let code = explanation::for_operator(&self.home, &trust.policy, now, &operator, document, reason).await?;
        self.metrics.looked_at();
        Ok(ExplainCodeResponse { code: code.map(|code| self.explain(&trust, &code)) })
    }

    async fn answer_codes(&self, platform: &PeerId, request: PutCodesRequest) -> Result<PutCodesResponse, Refusal> {
        let (trust, now) = self.standing()?;
        let asked = request.encode_to_vec();
        let PutCodesRequest { request_id: id, codes } = request;
        let request_id = parse::request_id(&id)?;
        if !(1..=MAX_CODES).contains(&codes.len()) {
            return Err(Refusal::field("codes", "1 to 500"));
        }
        let codes = codes.into_iter().map(parse::evidence::pushed).collect();
        let batch = Batch { request_id, asked, codes };
        let answered = push::take_in(&self.home, &trust.policy, now, platform, batch).await?;
        self.metrics.pushed(&answered);
        Ok(PutCodesResponse {
            request_id: id,
            verdicts: answered.verdicts.iter().map(verdict).collect(),
            changed_consents: answered.effect.changed,
            change_token: answered.effect.head.to_change_token(self.home.member),
        })
    }

    /// A code as its traveler, or an operator, sees it.
    pub(super) fn explain(&self, trust: &Trust, on_file: &CodeOnFile) -> CodeExplanation {
        let CodeOnFile { code, origin, ends_at, evidence, due_at: _ } = on_file;
        let policy: &Policy = &trust.policy;
        let rule = code.rule.as_deref().and_then(|rule| policy.rule(rule));
        let level = match policy.meaning(self.home.member, &code.label) {
            Some(Meaning::Level(level)) => Some(level),
            Some(Meaning::Undetermined) | None => None,
        };
        CodeExplanation {
            label: code.label.clone(),
            level: level.map_or(types::Level::Unspecified, wire_level).into(),
            source: source(*origin).into(),
            rule: code.rule.clone().unwrap_or_default(),
            rule_zh: rule.map(|rule| rule.text.zh.clone()).unwrap_or_default(),
            rule_en: rule.map(|rule| rule.text.en.clone()).unwrap_or_default(),
            authority: code.authority.as_ref().map(ToString::to_string).unwrap_or_default(),
            assign_time: Some(code.assigned_at.to_protobuf()),
            end_time: ends_at.map(UnixTime::to_protobuf),
            evidence: evidence.iter().map(evidence_on_file).collect(),
            substantiated: policy.substantiates(
                self.home.member,
                &code.label,
                code.rule.as_deref(),
                code.authority.as_ref(),
            ),
        }
    }
}

fn verdict(assigned: &Result<Assignment, Refusal>) -> CodeVerdictDetail {
    let plain = |verdict: CodeVerdict| CodeVerdictDetail { verdict: verdict.into(), ..CodeVerdictDetail::default() };
    match assigned {
        Ok(Assignment::Assigned) => plain(CodeVerdict::Assigned),
        Ok(Assignment::Unchanged) => plain(CodeVerdict::Unchanged),
        Ok(Assignment::Withdrawn) => plain(CodeVerdict::Withdrawn),
        Ok(Assignment::Outdated) => plain(CodeVerdict::Refused),
        Err(refusal) => {
            let (reason, field, detail) = why(refusal);
            CodeVerdictDetail { verdict: CodeVerdict::Refused.into(), reason: reason.into(), field, detail }
        }
    }
}

pub(super) fn evidence_on_file(on_file: &EvidenceOnFile) -> WireEvidence {
    let EvidenceOnFile { source, record, evidence } = on_file;
    let (start, end) = evidence.fact.span();
    let mut wire = WireEvidence {
        source: source.clone(),
        record_id: record.clone(),
        class: evidence.fact.kind().word().to_owned(),
        start_time: Some(start.to_protobuf()),
        end_time: end.map(UnixTime::to_protobuf),
        risk: evidence.risk.map(|risk| risk.word().to_owned()).unwrap_or_default(),
        authority: evidence.authority.as_ref().map(ToString::to_string).unwrap_or_default(),
        receive_time: Some(evidence.received_at.to_protobuf()),
        ..WireEvidence::default()
    };
    match evidence.fact {
        Fact::Test { positive, .. } => wire.positive = positive,
        Fact::Dose { number, .. } => wire.dose = number.into(),
        Fact::Stay { area, .. } => wire.area = area,
        Fact::Case { .. } | Fact::Contact { .. } => {}
    }
    wire
}

pub(super) const fn source(origin: Origin) -> AssignmentSource {
    match origin {
        Origin::Hand => AssignmentSource::Hand,
        Origin::Platform => AssignmentSource::Platform,
        Origin::Rules => AssignmentSource::Rules,
        Origin::Seed => AssignmentSource::Seed,
    }
}

const fn wire_level(level: Level) -> types::Level {
    match level {
        Level::Green => types::Level::Green,
        Level::Yellow => types::Level::Yellow,
        Level::Red => types::Level::Red,
    }
}
