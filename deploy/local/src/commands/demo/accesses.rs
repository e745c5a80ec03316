//! The end of the demonstration: a traveler reads who asked for them, and the access logs are held to what was asked here (I2).

use std::{collections::BTreeSet, path::Path, time::Duration};

use anyhow::{Context, Result, anyhow, ensure};
use gateway::record::{LogTool, Verified};
use proto::{
    contract::{recognition::Outcome, traveler::Access},
    identity::{PeerId, Realm},
    log::LogId,
    presentation::Presentation,
    refusal::{Reason, reason_name},
    terms::{Category, Kind, Purpose, Scope},
    time::{Clock, SystemClock},
    trust::TrustList,
    venue::VenueId,
};
use province_stub::{
    accesses::verify::verify,
    config::Config,
    store::{Store as _, sqlite::SqliteStore},
};
use tokio::time::{Instant, sleep};

use super::{
    Asked, Ending, Report,
    cases::{PASS, Stage, at, look, source_words},
    list,
};
use crate::{
    phone::{Phone, Wish},
    receipt::Receipt,
    venues,
};

/// Where the traveler is asked, and why: the first three that there are.
const VISITS: [(Category, Purpose); 6] = [
    (Category::Station, Purpose::Entry),
    (Category::Hospital, Purpose::Medical),
    (Category::Airport, Purpose::Travel),
    (Category::Park, Purpose::Entry),
    (Category::Residential, Purpose::Entry),
    (Category::Other, Purpose::Entry),
];
const PLACES: usize = 3;
/// How long records may take to their home members: they are gathered for half a second; one whose node was away is tried
/// again after five at most.
const DELIVERY: Duration = Duration::from_secs(20);
const BETWEEN: Duration = Duration::from_millis(100);

/// A traveler is asked at some places, and reads the list; then the logs are looked at. `other` is another one's phone.
pub(super) async fn perform(stage: &Stage, other: &Phone, report: &mut Report) -> Result<()> {
    let (_, phone) = stage.enroll(stage.main).await?;
    visit(stage, &phone, report).await?;

    let (started, asked) = (Instant::now(), asked_of(&phone, &report.asked).await?);
    let accesses = listed(&phone, asked.len()).await?;
    list::print(stage.main, &phone, &accesses, report.json);
    let found = compare(&asked, &accesses).and_then(|words| {
        let here = accesses.iter().any(|access| access.device_id == phone.id());
        here.then_some(words).context("nothing is listed as shown on this phone")
    });
    report.found("access-list", "COMPLETE", found, ms(started));

    let (started, asked) = (Instant::now(), asked_of(other, &report.asked).await?);
    let others = listed(other, asked.len()).await?;
    let found = compare(&asked, &others).and_then(|words| {
        let mine: BTreeSet<_> = accesses.iter().map(|access| &access.exchange_id).collect();
        ensure!(!others.iter().any(|access| mine.contains(&access.exchange_id)), "an exchange is on two lists");
        Ok(format!("{words}, none of them on the first list"))
    });
    report.found("access-list-of-another", "COMPLETE", found, ms(started));

    let (started, receipts) = (Instant::now(), receipts(&report.asked));
    report.found("access-receipts", "VERIFIED", receipts, ms(started));
    let (started, proved) = (Instant::now(), prove(stage, &accesses, &report.asked).await);
    report.found("access-proof", "VERIFIED", proved, ms(started));
    logs(stage, report).await
}

/// At each place; at the first one again, and on paper; and a copy of what was shown there at the last one.
async fn visit(stage: &Stage, phone: &Phone, report: &mut Report) -> Result<()> {
    let pass = phone.consent(&Wish::default(), SystemClock.now()).await?;
    let present = |venue: &VenueId| pass.present(Some(venue), SystemClock.now());
    let places = places(stage);
    let (first, why) = places.first().cloned().context("a federation has venues")?;
    for (venue, purpose) in &places {
        let name = format!("asked-at-{}", venue.category());
        stage.ask(report, &name, venue, &present(venue), *purpose, PASS).await?;
    }
    let (result, took) = look(report, &stage.desk.checkpoint(&first)?, &present(&first), why).await?;
    report.noted("asked-again", PASS, Ending::of(&result), took, &source_words(&result));
    if let Some((last, purpose)) = places.last().filter(|(last, _)| *last != first) {
        let want = Ending::Refusal(Reason::ProofOfOtherVenue);
        stage.ask(report, "asked-with-a-copy", last, &present(&first), *purpose, want).await?;
    }
    let paper = Wish { kind: Kind::Paper, scope: Scope::LEVEL, ..Wish::default() };
    let printed: Presentation = phone.consent(&paper, SystemClock.now()).await?.present(None, SystemClock.now());
    stage.ask(report, "asked-on-paper", &first, &printed, why, PASS).await
}

/// Venues of different categories, away from home where there are such.
fn places(stage: &Stage) -> Vec<(VenueId, Purpose)> {
    let venues = venues::of(&stage.members);
    let place = |(category, purpose)| {
        let mut there = venues.iter().filter(|venue| venue.category() == category);
        let away = there.clone().find(|venue| venue.member() != stage.main).or_else(|| there.next())?;
        Some((away.clone(), purpose))
    };
    VISITS.into_iter().filter_map(place).take(PLACES).collect()
}

/// What was asked here by any consent of this phone's traveler.
async fn asked_of(phone: &Phone, asked: &[Asked]) -> Result<Vec<Asked>> {
    let consents: BTreeSet<_> = phone.consents().await?.into_iter().map(|consent| consent.cti).collect();
    let theirs: Vec<_> = asked.iter().filter(|asked| consents.contains(asked.cti.0.as_slice())).cloned().collect();
    ensure!(!theirs.is_empty(), "home does not list the consents that the traveler was asked by");
    Ok(theirs)
}

/// The traveler's list, once there are so many on it or they had their time.
async fn listed(phone: &Phone, count: usize) -> Result<Vec<Access>> {
    let began = Instant::now();
    loop {
        let accesses = phone.accesses().await?;
        if accesses.len() >= count || began.elapsed() > DELIVERY {
            return Ok(accesses);
        }
        sleep(BETWEEN).await;
    }
}

/// Whether a list is what was asked, all of it and nothing else, newest first.
fn compare(asked: &[Asked], accesses: &[Access]) -> Result<String> {
    let (count, wanted) = (accesses.len(), asked.len());
    ensure!(count == wanted, "{count} accesses are listed, and {wanted} were made");
    let mut open: Vec<_> = asked.iter().collect();
    for access in accesses {
        let found = open.iter().rposition(|asked| asked.is(access));
        let found = found.with_context(|| format!("listed, and not made: {} at {}", access.purpose, access.venue))?;
        open.remove(found);
    }
    let when = |access: &Access| access.time.map_or(0, |time| time.seconds);
    let falls = |pair: &[Access]| {
        let [newer, older] = pair else { return true };
        when(newer) >= when(older) && (newer.log != older.log || newer.log_index > older.log_index)
    };
    ensure!(accesses.windows(2).all(falls), "the list is not newest first");
    let venues: BTreeSet<_> = accesses.iter().map(|access| &access.venue).collect();
    let refused = accesses.iter().filter(|access| !access.refusal_reason.is_empty()).count();
    Ok(format!("{}, {refused} refused, at {}", many(count as u64, "exchange"), many(venues.len() as u64, "venue")))
}

impl Asked {
    /// Whether this is what a traveler's list has there.
    fn is(&self, access: &Access) -> bool {
        let caller = PeerId::venue(self.venue.clone()).to_string();
        let asked = access.venue == self.venue.to_string()
            && access.caller == caller
            && access.purpose == i32::from(self.purpose.number())
            && access.cti == self.cti.0;
        let ended = match (self.ending, &self.receipt) {
            (Ending::Answer(outcome, _), Some(receipt)) => {
                let on_record = receipt.on_record();
                access.outcome() == outcome
                    && access.kind == i32::from(on_record.entry.kind.number())
                    && access.exchange_id == on_record.entry.exchange_id
                    && (access.log.as_slice(), access.log_index) == (&on_record.log.0, on_record.index)
                    && access.disclosed_scope == on_record.entry.disclosed().map_or(0, |scope| scope.bits().into())
            }
            (Ending::Refusal(reason), None) => {
                access.refusal_reason == reason_name(reason)
                    && access.outcome() == Outcome::Unspecified
                    && access.disclosed_scope == 0
            }
            _ => false,
        };
        asked && ended
    }
}

/// Every answer's receipt was verified as it came; no two are of one place.
fn receipts(asked: &[Asked]) -> Result<String> {
    let answers = asked.iter().filter(|asked| matches!(asked.ending, Ending::Answer(..))).count();
    let place = |receipt: &Receipt| {
        let on_record = receipt.on_record();
        (on_record.log, receipt.home(), on_record.index)
    };
    let places: BTreeSet<_> = asked.iter().filter_map(|asked| asked.receipt.as_ref()).map(place).collect();
    ensure!(places.len() == answers, "{answers} answers have {} places on the logs", places.len());
    let logs: BTreeSet<_> = places.iter().map(|(log, home, _)| (log, home)).collect();
    Ok(format!("{answers} answers, each in a place of its own on {}", many(logs.len() as u64, "log")))
}

/// The replica that has the traveler's newest answer proves that its record is under the head of its log.
async fn prove(stage: &Stage, accesses: &[Access], asked: &[Asked]) -> Result<String> {
    let mut receipts = asked.iter().rev().filter_map(|asked| Some((&asked.venue, asked.receipt.as_ref()?)));
    let newest = receipts
        .find(|(_, receipt)| accesses.iter().any(|access| access.exchange_id == receipt.on_record().entry.exchange_id));
    let (venue, receipt) = newest.context("no answer is on the list")?;
    let head = stage.desk.checkpoint(venue)?.prove(receipt).await?;
    Ok(format!("record {} is under the head of {} of the log of {}", receipt.on_record().index, head.size, head.owner))
}

/// Beside the running gateway and the running node: all is at home, all is as it was committed, and nothing is missing.
async fn logs(stage: &Stage, report: &mut Report) -> Result<()> {
    let layout = stage.desk.layout();
    let trust = stage.desk.trust();
    let mut records = 0;
    for replica in 1..=usize::from(stage.desk.prepared().plan.gateways) {
        let (started, dir) = (Instant::now(), layout.gateway(replica).join("data"));
        let verified = delivered(&dir, &trust.list).await;
        let found = verified.map(|verified| {
            let of_members = verified.iter().filter(|log| log.owner != Realm::Gateway && log.size > 0);
            let count: u64 = of_members.clone().map(|log| log.size).sum();
            records += count;
            format!("{} of {}, all at home", many(count, "record"), many(of_members.count() as u64, "member"))
        });
        report.found(&at("access-log", replica), "VERIFIED", found, ms(started));
    }
    let (started, made) = (Instant::now(), report.asked.len() as u64);
    let all = (records == made).then(|| format!("{made} exchanges were asked for, and each has its record"));
    let all = all.ok_or_else(|| anyhow!("{records} records of {made} exchanges"));
    report.found("access-log-complete", "COMPLETE", all, ms(started));
    let (started, home) = (Instant::now(), at_home(stage, &trust.list).await);
    report.found(&format!("access-log-at-{}", stage.main), "VERIFIED", home, ms(started));
    Ok(())
}

/// A replica's logs, verified, once home members have receipts for all of them.
async fn delivered(data_dir: &Path, list: &TrustList) -> Result<Vec<Verified>> {
    let began = Instant::now();
    loop {
        let found = LogTool::open(data_dir)?.verify(Some(list), SystemClock.now())?;
        let verified = found.into_iter().collect::<Result<Vec<_>, _>>().map_err(|damage| anyhow!("{damage}"))?;
        let mut waiting = verified.iter().filter(|log| log.owner != Realm::Gateway && log.delivered < log.size);
        match waiting.next() {
            None => return Ok(verified),
            Some(log) if began.elapsed() > DELIVERY => {
                return Err(anyhow!("{} of {} records of {} are at home", log.delivered, log.size, log.owner));
            }
            Some(_) => sleep(BETWEEN).await,
        }
    }
}

/// What the main member has on file.
async fn at_home(stage: &Stage, list: &TrustList) -> Result<String> {
    let config = Config::read(&stage.desk.layout().node(stage.main).join("node.toml"))?;
    let store = SqliteStore::inspect(&config.database()).await?;
    let verdicts = verify(&store, stage.main, list).await;
    store.close().await;
    let (mut logs, mut records) = (BTreeSet::<LogId>::new(), 0);
    for verdict in verdicts? {
        if let Some(fault) = verdict.fault {
            return Err(anyhow!("{}: {fault}", verdict.log.log));
        }
        ensure!(verdict.log.evidence.is_empty(), "{}: conflicts are on file", verdict.log.log);
        logs.insert(verdict.log.log);
        records += verdict.log.held.tree.size();
    }
    Ok(format!("{} on file at home, from {}", many(records, "record"), many(logs.len() as u64, "replica")))
}

fn many(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn ms(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1000.0
}
