//! The step that matters most: a lookup, as the gateway makes it or as it should not be made.

use std::{sync::Arc, time::Duration};

use proto::{
    contract::province::{
        LookupRequest, LookupResponse, lookup_response::Result as Answer,
        province_service_client::ProvinceServiceClient,
    },
    proof::prove,
    random::{self, SystemRandom},
    suite::{SigningKey, Suite},
    terms::Scope,
    time::UnixTime,
    token::{TokenHash, UnverifiedToken},
};
use tonic::Code;

use super::{
    stage::{Miss, Pass, Stage, answer, ensure, settle},
    statement::{self, Asked},
    steps::Lookup,
    tamper::{needs_key, tamper},
};

impl Stage<'_> {
    pub(super) async fn lookup(&mut self, step: &Lookup) -> Result<(), Miss> {
        let client = ProvinceServiceClient::new(self.world.channel(step.r#as)?);
        let pass = self.pass(&step.slot)?.clone();
        let token = self.token(step, &pass)?;
        let proof = self.proof(step, &pass, &token)?;
        let mut exchange_id = random::bytes::<64>(&SystemRandom).to_vec();
        exchange_id.truncate(step.exchange_id_bytes);
        let request = LookupRequest {
            token: token.clone(),
            proof,
            venue: step.venue.clone(),
            purpose: step.purpose,
            scope: step.scope,
            exchange_id,
        };
        for _ in 0..step.times {
            let answered = answer(client.clone().lookup(request.clone())).await;
            if let Some(answered) = settle(answered, step.refused.as_ref(), &expected(step))? {
                self.judge(step, &pass, &token, answered)?;
            }
        }
        Ok(())
    }

    /// The token as it is shown.
    fn token(&self, step: &Lookup, pass: &Pass) -> Result<Vec<u8>, Miss> {
        if !step.token {
            return Ok(Vec::new());
        }
        let key = self.world.consent_key();
        // Before the key is looked up no signature matters.
        let layout = step.refused.as_ref().is_some_and(|refused| refused.code() == Code::InvalidArgument);
        if needs_key(&step.tamper) && key.is_none() && !layout {
            return Err(Miss::skipped("needs the member's consent key in the directory"));
        }
        let changed = tamper(&pass.token, &step.tamper, &self.hand(key, b""));
        changed.map_err(|what| Miss::skipped(format!("the token cannot be changed so: {what}")))
    }

    /// The proof for the token as it is shown; empty is none.
    fn proof(&self, step: &Lookup, pass: &Pass, token: &[u8]) -> Result<Vec<u8>, Miss> {
        let wanted = &step.proof;
        if !wanted.there.unwrap_or(pass.key.is_some()) {
            return Ok(Vec::new());
        }
        let own = pass.key.clone().filter(|_| wanted.key_known);
        let key = own.unwrap_or_else(|| Arc::new(SigningKey::generate(Suite::Esp256)));
        let base = match &wanted.of {
            Some(slot) => self.pass(slot)?.token.clone(),
            None => token.to_vec(),
        };
        let cti = UnverifiedToken::parse(&base).map_or(pass.consent.cti, |base| base.cti());
        let venue = wanted.venue.as_ref().map(|venue| venue.parse()).transpose();
        let venue = venue.map_err(|_| Miss::skipped("the case has no such venue"))?;
        let now = self.world.now();
        let at = UnixTime::from_secs(now.as_secs().saturating_add_signed(-wanted.age));
        let hash = TokenHash::of(&base);
        let life = Duration::from_secs(wanted.life);
        let proof = prove(hash, cti, &key, venue.as_ref(), at, life, &SystemRandom);
        let changed = tamper(&proof, &wanted.tamper, &self.hand(Some(&key), &hash.0));
        changed.map_err(|what| Miss::skipped(format!("the proof cannot be changed so: {what}")))
    }

    /// Looks at an answer that is no refusal.
    fn judge(&mut self, step: &Lookup, pass: &Pass, token: &[u8], answered: LookupResponse) -> Result<(), Miss> {
        let expected = expected(step);
        let bytes = match answered.result {
            Some(Answer::UnknownTraveler(unknown)) => {
                ensure(step.unknown, expected, "UnknownTraveler")?;
                return self.made_change_token(&unknown.change_token).map(drop);
            }
            Some(Answer::Statement(bytes)) if !step.unknown => bytes,
            Some(Answer::Statement(_)) => return Err(Miss::failed(expected, "a statement")),
            None => return Err(Miss::failed(expected, "an answer without a result")),
        };
        let scope = Scope::from_bits(step.scope.into()).map_err(|_| Miss::failed("a refusal", "a statement"))?;
        let statement = statement::read(&bytes, self.world).map_err(|got| Miss::failed(expected, got))?;
        let faults = statement::faults(&statement, &Asked { pass, token, scope }, self.world);
        self.world.keep(self.case, faults);
        let status = statement.status();
        if let Some(word) = &step.label {
            let label = self.world.label(word);
            ensure(status.label == label, format!("the label {label}"), format!("the label {}", status.label))?;
        }
        for field in &step.has {
            ensure(statement::has(status, *field), format!("a statement with {field:?}"), "none in it")?;
        }
        for field in &step.lacks {
            let got = "it is in the statement";
            ensure(!statement::has(status, *field), format!("a statement without {field:?}"), got)?;
        }
        if let (Some(by), Some(before)) = (step.advanced, self.last.head) {
            let moved = status.head.seq.saturating_sub(before.seq);
            let expected = format!("a change log that moved by {by}");
            ensure(moved == by, expected, format!("it moved by {moved}, or somebody else uses the node"))?;
        }
        self.last.head = Some(status.head);
        Ok(())
    }
}

fn expected(step: &Lookup) -> String {
    if step.unknown { "UnknownTraveler".into() } else { "a statement that holds".into() }
}
