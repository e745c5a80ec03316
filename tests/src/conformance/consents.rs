//! Consents as the backend handles them: asked for by a phone, listed, revoked.

use std::{collections::HashMap, sync::Arc, time::Duration};

use proto::{
    consent_request::ConsentRequest,
    contract::traveler::{
        Consent, IssueConsentRequest, ListConsentsRequest, ListConsentsResponse, RevokeConsentRequest,
        traveler_service_client::TravelerServiceClient,
    },
    random::{self, SystemRandom},
    suite::{SigningKey, Suite},
    terms::{Kind, Purpose, Purposes, Scope},
    time::UnixTime,
};

use super::{
    act::random_bytes,
    stage::{Device, Miss, Pass, Stage, answer, ensure, settle},
    steps::{Issue, List, Nonce, Revoke, TokenKey},
    tamper::tamper,
    token,
};

/// Pages that a list may have before it is taken for one without an end.
const MAX_PAGES: usize = 50;

impl Stage<'_> {
    pub(super) async fn issue(&mut self, step: &Issue) -> Result<(), Miss> {
        for _ in 0..step.times {
            self.issue_once(step).await?;
        }
        Ok(())
    }

    async fn issue_once(&mut self, step: &Issue) -> Result<(), Miss> {
        let client = TravelerServiceClient::new(self.world.channel(step.r#as)?);
        let device = self.device(&step.person)?;
        let now = self.world.now();
        let (asked, key) = self.wish(step, &device, now)?;
        let signer = if step.signer_known { device.key.clone() } else { Arc::new(SigningKey::generate(Suite::Esp256)) };
        let signed = match (step.nonce, &self.last.asked) {
            (Nonce::Again, Some((_, bytes))) => bytes.clone(),
            _ => asked.sign(&signer),
        };
        let wrong = |what| Miss::skipped(format!("the request cannot be changed so: {what}"));
        let consent_request = tamper(&signed, &step.tamper, &self.hand(Some(&signer), b"")).map_err(wrong)?;
        let request = IssueConsentRequest { consent_request };
        let answered = answer(client.clone().issue_consent(request)).await;
        let Some(issued) = settle(answered, step.refused.as_ref(), "a token")? else { return Ok(()) };
        let trust = self.world.trust();
        let checked = token::check(&issued, &asked, &trust.list, self.world.member(), now);
        let (consent, hint_key) = checked.map_err(|got| Miss::failed("the token that was asked for", got))?;
        let before = self.last.written;
        self.written(&issued.change_token)?;
        if let (Some(by), Some(before), Some(after)) = (step.moved, before, self.last.written) {
            let moved = after.seq.saturating_sub(before.seq);
            ensure(moved == by, format!("a change token that moved by {by}"), format!("it moved by {moved}"))?;
        }
        let before = self.last.issued.as_ref().map(|before| (&before.token, &before.hint_key));
        if let Some(before) = before {
            let expected = if step.same { "the token of the last time" } else { "a token of its own" };
            ensure((before == (&issued.token, &issued.hint_key)) == step.same, expected, "another answer")?;
        }
        let fresh = self.passes.values().all(|other| step.same || other.consent.cti != consent.cti);
        ensure(fresh, "a cti of its own", "the cti of another token")?;
        let person = self.actor(&step.person)?.person.clone();
        let (token, device) = (issued.token.clone(), device.id);
        let pass = Pass { token, consent, key: key.clone(), hint_key, person, device };
        self.passes.insert(step.slot.clone(), pass);
        self.last.token_key = key;
        self.last.asked = Some((asked, signed));
        self.last.issued = Some(issued);
        Ok(())
    }

    /// What the phone asks for, and the token's private key.
    fn wish(
        &self,
        step: &Issue,
        device: &Device,
        now: UnixTime,
    ) -> Result<(ConsentRequest, Option<Arc<SigningKey>>), Miss> {
        let bad = |what: &str| Miss::skipped(format!("the case has no such {what}"));
        let last = || self.last.asked.as_ref().ok_or_else(|| Miss::skipped("nothing was asked for yet"));
        let kind = Kind::from_number(step.kind.into()).map_err(|_| bad("kind"))?;
        let fresh = || Some(Arc::new(SigningKey::generate(Suite::Esp256)));
        let key = match step.key {
            TokenKey::Fresh if matches!(step.nonce, Nonce::Again | Nonce::SignedAgain) => self.last.token_key.clone(),
            TokenKey::Fresh if kind.has_device() => fresh(),
            TokenKey::Fresh | TokenKey::Missing => None,
            TokenKey::Extra => fresh(),
            TokenKey::Enrollment => Some(device.key.clone()),
            TokenKey::Used => self.last.token_key.clone(),
        };
        let purposes = step.purposes.iter().map(|number| Purpose::from_number((*number).into()));
        let purposes: Vec<_> = purposes.collect::<Result<_, _>>().map_err(|_| bad("purpose"))?;
        let asked = ConsentRequest {
            device_id: if step.device_known { device.id } else { random::bytes(&SystemRandom) },
            audience: step.audience.parse().map_err(|_| bad("audience"))?,
            purposes: Purposes::new(purposes).ok_or_else(|| bad("purpose"))?,
            scope: Scope::from_bits(step.scope.into()).map_err(|_| bad("scope"))?,
            kind,
            life: Duration::from_secs(step.life),
            token_key: key.as_ref().map(|key| key.verifying_key().clone()),
            issued_at: UnixTime::from_secs(now.as_secs().saturating_add_signed(-step.age)),
            nonce: random::bytes(&SystemRandom),
        };
        let asked = match step.nonce {
            Nonce::New => asked,
            Nonce::Same => ConsentRequest { nonce: last()?.0.nonce, ..asked },
            Nonce::Again => last()?.0.clone(),
            Nonce::SignedAgain => {
                let before = last()?.0.clone();
                ConsentRequest { issued_at: before.issued_at.plus(Duration::from_secs(1)), ..before }
            }
        };
        Ok((asked, key))
    }

    pub(super) async fn revoke(&mut self, step: &Revoke) -> Result<(), Miss> {
        let client = TravelerServiceClient::new(self.world.channel(step.r#as)?);
        let device_id = self.device_bytes(&step.person, step.device_bytes)?;
        let cti = match step.cti_bytes {
            Some(count) => random_bytes(count),
            None => self.pass(&step.slot)?.consent.cti.0.to_vec(),
        };
        let answered = answer(client.clone().revoke_consent(RevokeConsentRequest { device_id, cti })).await;
        match settle(answered, step.refused.as_ref(), "the revocation")? {
            Some(revoked) => self.written(&revoked.change_token),
            None => Ok(()),
        }
    }

    pub(super) async fn list(&mut self, step: &List) -> Result<(), Miss> {
        let client = TravelerServiceClient::new(self.world.channel(step.r#as)?);
        let device_id = self.device_bytes(&step.person, step.device_bytes)?;
        let mut page_token = step.page_token.clone().unwrap_or_default();
        let mut consents: Vec<Consent> = Vec::new();
        for _ in 0..MAX_PAGES {
            let request = ListConsentsRequest { device_id: device_id.clone(), page_size: step.page_size, page_token };
            let answered = answer(client.clone().list_consents(request)).await;
            let Some(page) = settle(answered, step.refused.as_ref(), "a page of consents")? else { return Ok(()) };
            let ListConsentsResponse { consents: found, next_page_token } = page;
            let size = if step.page_size == 0 { 50 } else { usize::try_from(step.page_size).unwrap_or(0) };
            let got = format!("{} of them", found.len());
            ensure(found.len() <= size, format!("at most {size} consents on a page"), got)?;
            consents.extend(found);
            if next_page_token.is_empty() {
                return self.judge_list(step, &consents);
            }
            page_token = next_page_token;
        }
        Err(Miss::failed("an end of the list", format!("{MAX_PAGES} pages and no end")))
    }

    fn judge_list(&self, step: &List, consents: &[Consent]) -> Result<(), Miss> {
        let by_cti: HashMap<&[u8], &Consent> = consents.iter().map(|c| (c.cti.as_slice(), c)).collect();
        ensure(by_cti.len() == consents.len(), "each consent once", "one of them twice")?;
        let seconds = |consent: &Consent| consent.issue_time.as_ref().map(|time| time.seconds);
        let sorted = consents.is_sorted_by(|a, b| seconds(a) >= seconds(b));
        ensure(sorted, "the newest first", "another order")?;
        if let Some(count) = step.count {
            ensure(consents.len() == count, format!("{count} consents"), format!("{}", consents.len()))?;
        }
        for slot in &step.has {
            let pass = self.pass(slot)?;
            let listed = by_cti.get(pass.consent.cti.0.as_slice());
            let listed = listed.ok_or_else(|| Miss::failed(format!("the consent {slot} in the list"), "it is not"))?;
            let said = (listed.kind, listed.scope, listed.expire_time.as_ref().map(|time| time.seconds));
            let consent = &pass.consent;
            let expires = Some(consent.expires_at.to_protobuf().seconds);
            let wanted = (i32::from(consent.kind.number()), u32::from(consent.scope.bits()), expires);
            ensure(said == wanted, format!("kind, scope and end {wanted:?}"), format!("{said:?}"))?;
            let (revoked, wanted) = (listed.revoke_time.is_some(), step.revoked.contains(slot));
            ensure(revoked == wanted, format!("{slot} revoked: {wanted}"), format!("{revoked}"))?;
        }
        for slot in &step.lacks {
            let there = by_cti.contains_key(self.pass(slot)?.consent.cti.0.as_slice());
            ensure(!there, format!("a list without the consent {slot}"), "it is there")?;
        }
        Ok(())
    }
}
