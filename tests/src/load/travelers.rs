//! Phones with tokens, enrolled at running nodes as a province's backend does it; each makes a fresh proof for every
//! request.

use std::time::Duration;

use anyhow::{Context, Result};
use proto::{
    contract::{assignment::SetCodeRequest, recognition::RecognizeRequest, types},
    member::Member,
    policy::Meaning,
    terms::{Level, Purpose},
    time::{Clock, SystemClock},
    venue::VenueId,
};
use province_stub::seed::{self, SeededPerson};
use tongxing::{
    checkpoint::Checkpoint,
    desk::Desk,
    phone::{Pass, Wish, request_id},
};

/// Tokens of one phone: policy lets a traveler have 16, and other rounds may have left some.
const TOKENS_PER_PERSON: usize = 8;
/// Longer than any measurement.
const TOKEN_LIFE: Duration = Duration::from_secs(6 * 3600);

/// Travelers of several members, with so many tokens in all.
#[derive(Debug)]
pub struct Travelers(Vec<Pass>);

impl Travelers {
    /// Enrols and greens as many people of these members as so many tokens need.
    pub async fn enroll(desk: &Desk, members: &[Member], tokens: usize) -> Result<Self> {
        let mut passes = Vec::with_capacity(tokens);
        let per_member = tokens.div_ceil(members.len().max(1));
        let wish = Wish { life: TOKEN_LIFE, ..Wish::default() };
        for member in members {
            let people = u32::try_from(per_member.div_ceil(TOKENS_PER_PERSON))?;
            let backend = desk.backend(*member)?;
            for person in seed::people(*member, people, &desk.trust().policy) {
                let phone = backend.enroll(&person).await?;
                green(desk, *member, &person).await?;
                for _ in 0..TOKENS_PER_PERSON {
                    passes.push(phone.consent(&wish, SystemClock.now()).await?);
                }
            }
        }
        passes.truncate(tokens);
        Ok(Self(passes))
    }

    /// How many tokens there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Request number `number` at a venue, by a proof made now.
    pub fn request(&self, number: usize, venue: &VenueId) -> RecognizeRequest {
        let presentation = self.0[number % self.0.len()].present(Some(venue), SystemClock.now());
        Checkpoint::request(venue, &presentation, Purpose::Entry)
    }
}

async fn green(desk: &Desk, member: Member, person: &SeededPerson) -> Result<()> {
    let policy = &desk.trust().policy;
    let label = policy.labels_meaning(member, Meaning::Level(Level::Green)).next().context("a member has a green")?;
    let request = SetCodeRequest {
        request_id: request_id(),
        document: Some(types::Document {
            r#type: i32::from(person.document.kind().number()),
            number: person.document.number().to_owned(),
        }),
        label: label.to_owned(),
        rule: "R-CLEAR".into(),
        authority: format!("{member}/cdc"),
        justification: "a measurement".into(),
    };
    desk.operator(member)?.set_code(request).await?;
    Ok(())
}
