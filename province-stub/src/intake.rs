//! Taking in evidence: what a feed brings is checked against what it may bring, in whose name, and how old; then it is put on file,
//! and the codes that follow change with it.
//!
//! Upholds I8: nothing a feed says makes a code by itself, only by a national rule that the authority behind it may invoke; a
//! stolen certificate of a laboratory can bring tests, and no case.

use std::collections::{BTreeMap, BTreeSet};

use proto::{
    identity::{PeerId, Role},
    member::Member,
    policy::{EvidenceKind, Policy},
    refusal::{Reason, Refusal},
    statement::Authority,
    time::{CLOCK_LEEWAY, UnixTime},
};
use tracing::instrument;

use crate::{
    evidence::{Content, Fact, Listing, Record},
    home::Home,
    rules::Rules,
    store::{
        Store,
        filing::{Effect, Filed, Intake, NotFiled},
    },
};

/// Records of one batch at most.
pub const MAX_RECORDS: usize = 500;

/// What one feed may bring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedRights {
    /// Which evidence.
    pub evidence: BTreeSet<EvidenceKind>,
    /// In the name of which kinds of authority.
    pub authorities: BTreeSet<String>,
}

/// What each feed may bring, by its name.
pub type Feeds = BTreeMap<String, FeedRights>;

/// What became of a batch: one verdict for each record, in order.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The verdicts.
    pub verdicts: Vec<Result<Filed, Refusal>>,
    /// What followed.
    pub effect: Effect,
}

/// Takes in a batch. Records that were refused where they were parsed keep their place.
#[instrument(level = "debug", name = "put_evidence", skip_all)]
pub async fn take_in<S: Store>(
    home: &Home<S>,
    policy: &Policy,
    feeds: &Feeds,
    now: UnixTime,
    feed: &PeerId,
    brought: Vec<Result<Record, Refusal>>,
    dry_run: bool,
) -> Result<Answered, Refusal> {
    let rights = match feed.role() {
        Role::Feed(name) => feeds.get(&**name),
        _ => None,
    };
    let desk = Desk { member: home.member, policy, rights, now };
    let checked: Vec<Result<Record, Refusal>> =
        brought.into_iter().map(|record| record.and_then(|record| desk.check(record))).collect();
    let records: Vec<Record> = checked.iter().filter_map(|record| record.as_ref().ok().cloned()).collect();
    let source = feed.to_string();
    let intake = Intake { source: &source, records: &records, now, dry_run };
    let rules = Rules::new(home.member, policy);
    let taken = home.store.put_evidence(&intake, &rules, &*home.random).await?;
    let mut filed = taken.verdicts.into_iter();
    let verdicts = checked.into_iter().map(|record| {
        record?;
        match filed.next().unwrap_or(Filed::Refused(NotFiled::Conflict)) {
            Filed::Refused(why) => Err(Refusal::new(reason(why))),
            filed => Ok(filed),
        }
    });
    Ok(Answered { verdicts: verdicts.collect(), effect: taken.effect })
}

const fn reason(why: NotFiled) -> Reason {
    match why {
        NotFiled::Superseded => Reason::RevisionSuperseded,
        NotFiled::Conflict => Reason::RevisionConflict,
        NotFiled::PersonUnknown => Reason::PersonUnknown,
        NotFiled::TooOld => Reason::EvidenceTooOld,
        NotFiled::AreaNotListed => Reason::AreaNotListed,
        NotFiled::TooMuch => Reason::TooMuchEvidence,
    }
}

/// What a record is held against before anything on file is looked at.
struct Desk<'a> {
    member: Member,
    policy: &'a Policy,
    rights: Option<&'a FeedRights>,
    now: UnixTime,
}

impl Desk<'_> {
    /// Refused in this order: a time yet to come; evidence, then an authority, that the feed may not bring; an authority that may
    /// not invoke the rule. What is too old is filed as such: it may correct what is not.
    fn check(&self, record: Record) -> Result<Record, Refusal> {
        let (kind, authority, ended_at) = match &record.content {
            // Its own records any feed may take back, as long as it is one.
            Content::Withdrawn | Content::TooOld => {
                let refused = || Refusal::new(Reason::EvidenceNotAdmitted).with("evidence", "withdrawal");
                return self.rights.map(|_| record).ok_or_else(refused);
            }
            Content::About { fact, authority, .. } => {
                self.check_past(fact)?;
                (fact.kind(), authority, ended_at(fact))
            }
            Content::Listing { listing: Listing { until, .. }, authority } => {
                (EvidenceKind::Listing, authority, *until)
            }
        };
        self.check_rights(kind, authority)?;
        if !self.policy.admits_authority_for(kind, self.member, authority) {
            return Err(Refusal::new(Reason::AuthorityNotAdmitted).with("authority", authority));
        }
        let oldest = self.now.minus(self.policy.evidence.retention);
        if ended_at.is_some_and(|ended_at| ended_at < oldest) {
            return Ok(Record { content: Content::TooOld, ..record });
        }
        Ok(record)
    }

    /// Whatever is about a person has happened.
    fn check_past(&self, fact: &Fact) -> Result<(), Refusal> {
        let latest = self.now.plus(CLOCK_LEEWAY);
        let (began, ended) = fact.span();
        let (began_field, ended_field) = match fact {
            Fact::Test { .. } => ("test.sample_time", ""),
            Fact::Dose { .. } => ("vaccination.give_time", ""),
            Fact::Stay { .. } => ("stay.enter_time", "stay.leave_time"),
            Fact::Case { .. } => ("case.start_time", "case.end_time"),
            Fact::Contact { .. } => ("contact.contact_time", ""),
        };
        if began > latest {
            return Err(Refusal::field(began_field, "not in the future"));
        }
        match ended {
            Some(ended) if ended > latest => Err(Refusal::field(ended_field, "not in the future")),
            _ => Ok(()),
        }
    }

    fn check_rights(&self, kind: EvidenceKind, authority: &Authority) -> Result<(), Refusal> {
        let refused = || Refusal::new(Reason::EvidenceNotAdmitted).with("evidence", kind.word());
        let rights = self.rights.filter(|rights| rights.evidence.contains(&kind)).ok_or_else(refused)?;
        if rights.authorities.contains(authority.kind()) {
            return Ok(());
        }
        Err(refused().with("authority", authority))
    }
}

/// When a fact was over; `None` for what goes on, and for a vaccination, which is never over.
const fn ended_at(fact: &Fact) -> Option<UnixTime> {
    match *fact {
        Fact::Dose { .. } => None,
        Fact::Case { ended_at, .. } => ended_at,
        Fact::Test { sampled_at: at, .. } | Fact::Stay { left_at: at, .. } | Fact::Contact { last_at: at } => Some(at),
    }
}
