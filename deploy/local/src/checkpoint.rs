//! A venue: it takes a presentation, keeps `k` to itself, asks the gateway, checks home's statement and opens the hint.

use std::time::Duration;

use anyhow::{Result, anyhow};
use peer::{
    dial::{self, DialLimits},
    serve::Standing,
    verifier::Expected,
};
use proto::{
    contract::{
        recognition::{
            Freshness, RecognizeRequest, RecognizeResponse, freshness::Requirement,
            recognition_service_client::RecognitionServiceClient,
        },
        types,
    },
    hint::IdentityHint,
    presentation::Presentation,
    statement::{Statement, UnverifiedStatement},
    terms::Purpose,
    token::UnverifiedToken,
    venue::VenueId,
};
use tonic::{Status, transport::Channel};

/// A venue at its gateway.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    venue: VenueId,
    standing: Standing,
    client: RecognitionServiceClient<Channel>,
}

/// What a venue learned.
#[derive(Debug)]
pub struct Seen {
    /// The gateway's answer.
    pub answer: RecognizeResponse,
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
        Ok(Self { venue, standing, client: RecognitionServiceClient::new(channel) })
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
            Ok(answer) => self.look(presentation, answer).map(Ok),
            Err(status) => Ok(Err(status)),
        }
    }

    /// Verifies what the answer carries, as every venue can with the trust list alone.
    fn look(&self, presentation: &Presentation, answer: RecognizeResponse) -> Result<Seen> {
        if answer.statement.is_empty() {
            return Ok(Seen { answer, statement: None, hint: None });
        }
        let verified = || {
            let trust = self.standing.trust.usable()?;
            let token = UnverifiedToken::parse(&presentation.token)?;
            let token_key = trust.list.consent_key(token.issuer(), token.kid())?;
            let token = token.verify(token_key)?;
            let statement = UnverifiedStatement::parse(&answer.statement)?;
            let key = trust.list.statement_key(statement.issuer(), statement.kid())?;
            let statement = statement.verify(key)?;
            statement.check_binding(token.consent().issuer, token.hash())?;
            statement.check_time(self.standing.trust.clock().now(), &trust.policy.lives)?;
            Ok(statement)
        };
        let statement = verified().map_err(|refusal: proto::refusal::Refusal| anyhow!("the statement: {refusal}"))?;
        let hint = statement.status().hint.as_ref();
        let hint = hint.map(|sealed| IdentityHint::open(sealed, &presentation.hint_key)).transpose()?;
        Ok(Seen { answer, statement: Some(statement), hint })
    }
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
