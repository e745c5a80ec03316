//! Presentations for load tests: standing tokens with fresh proofs, rewritten before the proofs expire.
//!
//! Their keys live in memory alone: a start revokes the standing tokens of the one before it, so that starting often does
//! not pile up consents, and issues new ones.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use gateway::pki::write_public;
use proto::{
    contract::{recognition::RecognizeRequest, types::Purpose as WirePurpose},
    member::Member,
    suite::{SigningKey, Suite},
    terms::{Purpose, Purposes, Scope},
    time::UnixTime,
    token::Audience,
    venue::VenueId,
};
use province_stub::{
    seed::{self, Condition},
    standing::StandingConsent,
};

use crate::{checkpoint::Checkpoint, federation::Federation, phone::Pass, venues};

/// Presentations in the file, at least.
pub const PRESENTATIONS: usize = 2000;

/// How often the file is rewritten: a reader gets proofs with most of their life left.
pub const REWRITE_EVERY: Duration = Duration::from_secs(20);

const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);
const RENEW_BEFORE: Duration = Duration::from_secs(2 * 3600);
/// A traveler may have 16 live consents; standing ones and their successors leave room for the others.
const TOKENS_PER_PERSON: usize = 4;

/// Standing tokens.
#[derive(Debug)]
pub struct Load {
    venue: VenueId,
    file: PathBuf,
    passes: Vec<(Member, Pass)>,
}

impl Load {
    /// Revokes what an earlier start left and issues anew.
    pub async fn open(federation: &Federation, now: UnixTime) -> Result<Self> {
        let venue = venues::for_load(federation.members()).context("no venue to load")?;
        federation.revoke_standing().await?;
        let file = federation.desk().layout().load_file();
        let mut load = Self { venue, file, passes: Vec::new() };
        load.renew(federation, now).await?;
        Ok(load)
    }

    /// Whose travelers are in it.
    #[cfg(test)]
    pub(crate) fn members(&self) -> impl Iterator<Item = Member> {
        self.passes.iter().map(|(member, _)| *member)
    }

    /// Drops tokens that end soon and issues new ones in their place.
    pub async fn renew(&mut self, federation: &Federation, now: UnixTime) -> Result<()> {
        // Standing consents are issued past a node's RPCs, so a foreign node has none.
        let members: Vec<_> = federation.members().iter().filter(|member| !federation.is_external(**member)).collect();
        self.passes.retain(|(member, pass)| members.contains(&member) && pass.expires_at > now.plus(RENEW_BEFORE));
        let people = usize::try_from(federation.people())?;
        let per_member = PRESENTATIONS.div_ceil(members.len().max(1)).min(people * TOKENS_PER_PERSON);
        for member in members {
            let there = self.passes.iter().filter(|(of, _)| of == member).count();
            if there < per_member {
                self.issue(federation, *member, per_member - there).await?;
            }
        }
        Ok(())
    }

    async fn issue(&mut self, federation: &Federation, member: Member, count: usize) -> Result<()> {
        let policy = &federation.desk().trust().policy;
        let people = seed::people(member, federation.people(), policy);
        let coded: Vec<_> = people.iter().filter(|person| person.condition != Condition::NoCode).collect();
        let keys: Vec<_> = (0..count).map(|_| SigningKey::generate(Suite::Esp256)).collect();
        let consents = keys.iter().zip(coded.iter().cycle()).map(|(key, person)| StandingConsent {
            document: person.document.clone(),
            audience: Audience::Anywhere,
            purposes: Purposes::ALL,
            scope: Scope::ALL,
            life: TOKEN_LIFE,
            token_key: Some(key.verifying_key().clone()),
        });
        let issued = federation.issue_standing(member, consents.collect()).await?;
        for (issued, key) in issued.into_iter().zip(keys) {
            let pass = Pass::new(issued.token, Some(key), issued.hint_key, issued.expires_at)?;
            self.passes.push((member, pass));
        }
        Ok(())
    }

    /// Writes the presentations with fresh proofs, by atomic rename. Returns how many.
    pub fn write(&self, now: UnixTime) -> Result<usize> {
        let count = self.passes.len().max(PRESENTATIONS);
        let requests =
            self.passes.iter().cycle().take(count).map(|(_, pass)| {
                Checkpoint::request(&self.venue, &pass.present(Some(&self.venue), now), Purpose::Entry)
            });
        let requests: Vec<_> = requests.map(|request| to_json(&request)).collect();
        write_public(&self.file, &serde_json::to_vec(&requests)?)?;
        Ok(requests.len())
    }
}

/// A request in protobuf's JSON mapping, as ghz and grpcurl read it.
pub fn to_json(request: &RecognizeRequest) -> serde_json::Value {
    serde_json::json!({
        "token": BASE64_STANDARD.encode(&request.token),
        "proof": BASE64_STANDARD.encode(&request.proof),
        "venue": request.venue,
        "purpose": WirePurpose::try_from(request.purpose).unwrap_or_default().as_str_name(),
    })
}
