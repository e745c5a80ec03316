//! A venue: it takes a presentation, keeps `k` to itself, asks the gateway, checks that the exchange is on record and home's
//! statement, and opens the hint.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, anyhow};
use peer::{
    dial::{self, DialLimits},
    serve::Standing,
    trust::Trust,
    verifier::Expected,
};
use proto::{
    contract::{
        federation::{GetInclusionProofRequest, federation_service_client::FederationServiceClient},
        recognition::{
            Freshness, RecognizeRequest, RecognizeResponse, freshness::Requirement,
            recognition_service_client::RecognitionServiceClient,
        },
        types,
    },
    hint::IdentityHint,
    log::checkpoint::Checkpoint as Head,
    presentation::Presentation,
    refusal::Refusal,
    statement::{Statement, UnverifiedStatement},
    terms::Purpose,
    token::{ConsentToken, UnverifiedToken},
    venue::VenueId,
};
use tonic::{Status, transport::Channel};

use crate::receipt::{Question, Receipt};

/// A venue at its gateway.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    venue: VenueId,
    standing: Standing,
    client: RecognitionServiceClient<Channel>,
    federation: FederationServiceClient<Channel>,
}

/// What a venue learned.
#[derive(Debug)]
pub struct Seen {
    /// The gateway's answer.
    pub answer: RecognizeResponse,
    /// That the exchange is on record, verified by the venue itself.
    pub receipt: Receipt,
    /// Home's statement, verified by the venue itself, if the answer had one.
    pub statement: Option<Statement>,
    /// Masked name and document tail, if they were granted.
    pub hint: Option<IdentityHint>,
}

impl Checkpoint {
    /// A venue with its credentials in `standing`, at a gateway.
    pub fn new(venue: VenueId, standing: Standing, gateway: &str) -> Result<Self> {
        let limits = DialLimits { connect_timeout: Duration::from_secs(5), ..DialLimits::default() };
        let channel = dial::channel(&standing, gateway, Expected::Gateway, limits)?;
        let federation = FederationServiceClient::new(channel.clone());
        Ok(Self { venue, standing, client: RecognitionServiceClient::new(channel), federation })
    }

    /// Its id.
    pub fn venue(&self) -> &VenueId {
        &self.venue
    }

    /// The request for a presentation. `k` is not in it.
    pub fn request(venue: &VenueId, presentation: &Presentation, purpose: Purpose) -> RecognizeRequest {
        RecognizeRequest {
            token: presentation.token.clone(),
            proof: presentation.proof.clone().unwrap_or_default(),
            venue: venue.to_string(),
            purpose: i32::from(purpose.number()),
            scope: 0,
            staff_id: String::new(),
            freshness: None,
        }
    }

    /// Sends a request as it is.
    pub async fn send(&self, request: RecognizeRequest) -> Result<RecognizeResponse, Status> {
        Ok(self.client.clone().recognize(request).await?.into_inner())
    }

    /// Shows a presentation and looks at the answer.
    pub async fn show(&self, presentation: &Presentation, purpose: Purpose) -> Result<Result<Seen, Status>> {
        self.show_as_fresh(presentation, purpose, None).await
    }

    /// The same, with an answer as fresh as that.
    pub async fn show_as_fresh(
        &self,
        presentation: &Presentation,
        purpose: Purpose,
        freshness: Option<Requirement>,
    ) -> Result<Result<Seen, Status>> {
        let freshness = freshness.map(|requirement| Freshness { requirement: Some(requirement) });
        let request = RecognizeRequest { freshness, ..Self::request(&self.venue, presentation, purpose) };
        match self.send(request).await {
            Ok(answer) => self.look(presentation, purpose, answer).map(Ok),
            Err(status) => Ok(Err(status)),
        }
    }

    /// Has the gateway prove that a record is on its log, and verifies that. Returns the log's signed head.
    pub async fn prove(&self, receipt: &Receipt) -> Result<Head> {
        let on_record = receipt.on_record();
        let request = GetInclusionProofRequest {
            log: on_record.log.0.to_vec(),
            member: receipt.home().to_string(),
            index: on_record.index,
            leaf_hash: receipt.leaf().to_vec(),
        };
        let proof = self.federation.clone().get_inclusion_proof(request).await?.into_inner();
        receipt.check_proof(&proof, &self.trust()?.list)
    }

    /// Verifies what the answer carries, as every venue can with the trust list alone.
    fn look(&self, presentation: &Presentation, purpose: Purpose, answer: RecognizeResponse) -> Result<Seen> {
        let trust = self.trust()?;
        let token = token(presentation, &trust).map_err(|refusal| anyhow!("the token: {refusal}"))?;
        let now = self.standing.trust.clock().now();
        let question = Question { token: &token, venue: &self.venue, purpose, now };
        let receipt = Receipt::of(&answer, question, &trust.list)?;
        if answer.statement.is_empty() {
            return Ok(Seen { answer, receipt, statement: None, hint: None });
        }
        let verified = || {
            let statement = UnverifiedStatement::parse(&answer.statement)?;
            let key = trust.list.statement_key(statement.issuer(), statement.kid())?;
            let statement = statement.verify(key)?;
            statement.check_binding(token.consent().issuer, token.hash())?;
            statement.check_time(now, &trust.policy.lives)?;
            Ok(statement)
        };
        let statement = verified().map_err(|refusal: Refusal| anyhow!("the statement: {refusal}"))?;
        let hint = statement.status().hint.as_ref();
        let hint = hint.map(|sealed| IdentityHint::open(sealed, &presentation.hint_key)).transpose()?;
        Ok(Seen { answer, receipt, statement: Some(statement), hint })
    }

    fn trust(&self) -> Result<Arc<Trust>> {
        self.standing.trust.usable().map_err(|refusal| anyhow!("the trust list: {refusal}"))
    }
}

fn token(presentation: &Presentation, trust: &Trust) -> Result<ConsentToken, Refusal> {
    let token = UnverifiedToken::parse(&presentation.token)?;
    let key = trust.list.consent_key(token.issuer(), token.kid())?;
    token.verify(key)
}

/// The level's word.
pub fn level_word(answer: &RecognizeResponse) -> &'static str {
    match answer.level() {
        types::Level::Unspecified => "-",
        types::Level::Green => "green",
        types::Level::Yellow => "yellow",
        types::Level::Red => "red",
    }
}
