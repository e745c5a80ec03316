//! An answer's access receipt, verified as every venue can with the trust list alone: the exchange is on record, on the log of
//! the traveler's home, and the record says what the answer says (I2).

use std::time::Duration;

use anyhow::{Result, anyhow, bail, ensure};
use proto::{
    contract::{federation::GetInclusionProofResponse, recognition::RecognizeResponse},
    identity::Realm,
    log::{
        checkpoint::Checkpoint as Head,
        commit::{AccessReceipt, OnRecord},
        merkle::{Hash, leaf_hash, root_of_path},
        record::Ending,
    },
    member::Member,
    suite::sha256,
    terms::Purpose,
    time::UnixTime,
    token::ConsentToken,
    trust::TrustList,
    venue::VenueId,
};

/// How far from now the time of an answer's record may be.
const MAX_AGE: Duration = Duration::from_secs(60);

/// A receipt that was verified and compared with its answer.
#[derive(Clone, Debug)]
pub struct Receipt {
    home: Member,
    on_record: OnRecord,
    leaf: Hash,
}

/// What a venue asked.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// By this consent.
    pub token: &'a ConsentToken,
    /// As this venue.
    pub venue: &'a VenueId,
    /// For this.
    pub purpose: Purpose,
    /// As of now.
    pub now: UnixTime,
}

impl Receipt {
    /// Verifies the receipt of an answer, and that its record is of this question and this answer.
    pub fn of(answer: &RecognizeResponse, question: Question<'_>, list: &TrustList) -> Result<Self> {
        let receipt = AccessReceipt::parse(&answer.access_receipt);
        let receipt = receipt.map_err(|refusal| anyhow!("the access receipt: {refusal}"))?;
        let on_record = receipt.verify(list).map_err(|refusal| anyhow!("the access receipt: {refusal}"))?;
        let home = question.token.consent().issuer;
        let entry = &on_record.entry;
        let Ending::Answered { outcome, source, statement } = &entry.ending else {
            bail!("the access receipt is of a refusal");
        };
        let hash = (!answer.statement.is_empty()).then(|| sha256(&answer.statement));
        // Any other exchange's receipt verifies as well: what it is of has to be compared.
        let compared = [
            ("log", on_record.owner == Realm::Member(home)),
            ("exchange", entry.exchange_id.as_slice() == answer.exchange_id),
            ("time", entry.time.since(question.now).max(question.now.since(entry.time)) <= MAX_AGE.as_secs()),
            ("consent", entry.cti == question.token.consent().cti && entry.kind == question.token.consent().kind),
            ("venue", *entry.venue == *question.venue),
            ("purpose", entry.purpose == question.purpose),
            ("outcome", *outcome == answer.outcome()),
            ("source", *source == answer.source()),
            ("scope", entry.granted.map_or(0, |granted| granted.bits().into()) == answer.granted_scope),
            ("statement", statement.as_ref().map(<[u8; 16]>::as_slice) == hash.as_ref().map(|hash| &hash[..16])),
        ];
        if let Some((what, _)) = compared.iter().find(|(_, same)| !same) {
            bail!("the access receipt is of another {what}");
        }
        Ok(Self { home, leaf: leaf_hash(&receipt.record), on_record })
    }

    /// Whose log it is on.
    pub fn home(&self) -> Member {
        self.home
    }

    /// The record's leaf hash.
    pub fn leaf(&self) -> Hash {
        self.leaf
    }

    /// Where it is, and what it says.
    pub fn on_record(&self) -> &OnRecord {
        &self.on_record
    }

    /// Verifies what the gateway shows for this record being under a head of its log. Returns the head.
    pub fn check_proof(&self, proof: &GetInclusionProofResponse, list: &TrustList) -> Result<Head> {
        let head = Head::open(&proof.checkpoint, list).map_err(|refusal| anyhow!("the checkpoint: {refusal}"))?;
        let OnRecord { log, owner, index, .. } = self.on_record;
        ensure!(head.log == log && head.owner == owner, "the checkpoint is of another log");
        let path = proof.path.iter().map(|hash| Hash::try_from(hash.as_slice())).collect::<Result<Vec<_>, _>>();
        let path = path.map_err(|_| anyhow!("the proof has a hash that is not 32 bytes"))?;
        let root = root_of_path(self.leaf, index, head.size, &path);
        ensure!(root == Some(head.root), "the proof does not lead to the checkpoint's root");
        Ok(head)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proto::{
        contract::recognition::{Outcome, Source},
        time::{Clock as _, SystemClock},
        token::UnverifiedToken,
    };
    use province_stub::seed;

    use super::*;
    use crate::{
        addresses::Ports, checkpoint::Seen, federation::Federation, layout::Layout, phone::Wish, prepare::Plan,
    };

    #[tokio::test]
    async fn a_receipt_is_of_its_own_answer_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (layout, home): (_, Member) = (Layout::new(dir.path()), "44".parse().unwrap());
        let plan = Plan { members: vec!["44".into()], people: 20, gateways: 1, ..Plan::default() };
        let federation = Federation::start(&layout, &plan, Ports::Any, Arc::new(SystemClock)).await.unwrap();
        let desk = federation.desk();
        let at = desk.checkpoint(&"44/station/guangzhou-south".parse().unwrap()).unwrap();
        let green = seed::people(home, 1, &desk.trust().policy).remove(0);
        let phone = desk.backend(home).unwrap().enroll(&green).await.unwrap();
        let pass = phone.consent(&Wish::default(), SystemClock.now()).await.unwrap();
        let show = async || -> Seen {
            let presentation = pass.present(Some(at.venue()), SystemClock.now());
            at.show(&presentation, Purpose::Entry).await.unwrap().unwrap()
        };
        let (one, another) = (show().await, show().await);
        let list = &desk.trust().list;
        let token = UnverifiedToken::parse(pass.token()).unwrap();
        let key = list.consent_key(home, token.kid()).unwrap();
        let token = token.verify(key).unwrap();
        let question = Question { token: &token, venue: at.venue(), purpose: Purpose::Entry, now: SystemClock.now() };
        assert!(Receipt::of(&one.answer, question, list).is_ok());

        let wrong = |answer: &RecognizeResponse, question| Receipt::of(answer, question, list).unwrap_err().to_string();
        let elsewhere = "44/hospital/zhongshan-first".parse().unwrap();
        assert_eq!(
            wrong(&one.answer, Question { venue: &elsewhere, ..question }),
            "the access receipt is of another venue"
        );
        let why = Question { purpose: Purpose::Medical, ..question };
        assert_eq!(wrong(&one.answer, why), "the access receipt is of another purpose");
        for now in [question.now.plus(MAX_AGE * 2), question.now.minus(MAX_AGE * 2)] {
            assert_eq!(wrong(&one.answer, Question { now, ..question }), "the access receipt is of another time");
        }
        let swapped = RecognizeResponse { access_receipt: another.answer.access_receipt.clone(), ..one.answer.clone() };
        assert_eq!(wrong(&swapped, question), "the access receipt is of another exchange");
        let altered = [
            (RecognizeResponse { outcome: Outcome::Undetermined.into(), ..one.answer.clone() }, "outcome"),
            (RecognizeResponse { source: Source::LastKnown.into(), ..one.answer.clone() }, "source"),
            (RecognizeResponse { granted_scope: 63, ..one.answer.clone() }, "scope"),
            (RecognizeResponse { statement: Vec::new(), ..one.answer.clone() }, "statement"),
        ];
        for (answer, what) in altered {
            assert_eq!(wrong(&answer, question), format!("the access receipt is of another {what}"));
        }
        let none = RecognizeResponse { access_receipt: Vec::new(), ..one.answer.clone() };
        assert!(wrong(&none, question).starts_with("the access receipt: "));

        // Who has one record gets no proof of another's place.
        let head = at.prove(&one.receipt).await.unwrap();
        assert!(head.owner == Realm::Member(home) && head.size >= 2);
        let mixed = Receipt { leaf: another.receipt.leaf, ..one.receipt.clone() };
        let refused = at.prove(&mixed).await.unwrap_err().to_string();
        assert!(refused.contains("no such record"), "{refused}");
        federation.stop().await.unwrap();
    }
}
