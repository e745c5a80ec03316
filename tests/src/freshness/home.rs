//! A member's home, reached directly whatever becomes of the gateway's way there: it enrols travelers and turns their
//! codes.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use peer::{
    dial::{self, DialLimits},
    verifier::Expected,
};
use proto::{
    contract::{
        assignment::{SetCodeRequest, assignment_service_client::AssignmentServiceClient},
        recognition::RecognizeRequest,
        types,
    },
    member::Member,
    policy::Meaning,
    terms::{Level, Purpose},
    time::{Clock, SystemClock},
    venue::VenueId,
};
use province_stub::seed;
use tokio::time::{Instant, sleep};
use tongxing::{
    checkpoint::Checkpoint,
    desk::Desk,
    phone::{self, Pass, Wish, request_id},
};
use tonic::transport::Channel;

/// Longer than any measurement.
const TOKEN_LIFE: Duration = Duration::from_secs(6 * 3600);
/// How long a code may take to be turned, and how soon it is tried again.
const TURN: Duration = Duration::from_secs(10);
const TURN_AGAIN: Duration = Duration::from_millis(50);
/// How long connecting and shaking hands may take on a busy machine.
const CONNECT: Duration = Duration::from_secs(10);

/// A traveler with a phone.
#[derive(Debug)]
pub struct Traveler {
    /// Whose.
    pub member: Member,
    document: types::Document,
    pass: Pass,
}

impl Traveler {
    /// A request for them, by a proof for this venue made now.
    pub fn request(&self, venue: &VenueId) -> RecognizeRequest {
        Checkpoint::request(venue, &self.pass.present(Some(venue), SystemClock.now()), Purpose::Entry)
    }
}

/// A member's home.
#[derive(Debug)]
pub struct Home {
    member: Member,
    operator: AssignmentServiceClient<Channel>,
    green: String,
    red: String,
}

impl Home {
    /// The home of a member, at the address where its node listens.
    pub fn open(desk: &Desk, member: Member) -> Result<Self> {
        let standing = desk.standing(&desk.layout().operator(member))?;
        let limits = DialLimits { connect_timeout: CONNECT, ..DialLimits::default() };
        let channel = dial::channel(&standing, &desk.node_address(member)?, Expected::NodeOf(member), limits)?;
        let trust = desk.trust();
        let label = |level| {
            let mut labels = trust.policy.labels_meaning(member, Meaning::Level(level));
            labels.next().map(str::to_owned).with_context(|| format!("{member} has no label for {level:?}"))
        };
        let (green, red) = (label(Level::Green)?, label(Level::Red)?);
        Ok(Self { member, operator: AssignmentServiceClient::new(channel), green, red })
    }

    /// Whose.
    pub fn member(&self) -> Member {
        self.member
    }

    /// Enrols so many travelers, all green: those of the member's people that come after the first `skip`.
    pub async fn enroll(&self, desk: &Desk, skip: usize, count: usize) -> Result<Vec<Arc<Traveler>>> {
        let backend = desk.backend(self.member)?;
        let wish = Wish { life: TOKEN_LIFE, ..Wish::default() };
        let people = seed::people(self.member, u32::try_from(skip + count)?, &desk.trust().policy);
        let mut travelers = Vec::with_capacity(count);
        for person in people.iter().skip(skip) {
            let phone = backend.enroll(person).await?;
            let pass = phone.consent(&wish, SystemClock.now()).await?;
            let traveler = Traveler { member: self.member, document: phone::document(person), pass };
            self.turn(&traveler, Level::Green).await?;
            travelers.push(Arc::new(traveler));
        }
        Ok(travelers)
    }

    /// Turns a traveler's code. Returns when home's acknowledgement was there.
    pub async fn turn(&self, traveler: &Traveler, level: Level) -> Result<Instant> {
        let (label, rule) = match level {
            Level::Green => (&self.green, "R-CLEAR"),
            Level::Yellow | Level::Red => (&self.red, "R-CASE"),
        };
        let request = SetCodeRequest {
            request_id: request_id(),
            document: Some(traveler.document.clone()),
            label: label.clone(),
            rule: rule.to_owned(),
            authority: format!("{}/cdc", self.member),
            justification: "a measurement".to_owned(),
        };
        let deadline = Instant::now() + TURN;
        loop {
            // The same request again is the same change: a connection that a fault has broken is no reason to give up.
            match self.operator.clone().set_code(request.clone()).await {
                Ok(_) => return Ok(Instant::now()),
                Err(status) if Instant::now() > deadline => {
                    return Err(status).with_context(|| format!("the code of a traveler of {}", self.member));
                }
                Err(_) => sleep(TURN_AGAIN).await,
            }
        }
    }
}
