//! Evidence, taken in batch by batch: one row for each record of each source, in its latest revision.
//!
//! A batch is loaded with all that it touches, decided in memory record by record, and written by a few statements, so that
//! millions can come in. Upholds I4: what follows from it is settled in the same transaction.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proto::{random::Random, terms::Scope, time::UnixTime};
use sqlx::{QueryBuilder, Row as _};

use super::{
    Connection, Database, Row,
    assessment::{self, Touched},
    changes,
    evidence::{CASE, CONTACT, DOSE, LISTING, STAY, TEST, WITHDRAWN},
    locks, people, regrade, rows,
};
use crate::{
    assessment::Assess,
    evidence::{Content, Fact, Listing, MAX_EVIDENCE, MAX_LISTINGS, PersonKey, Record, Risk},
    store::{
        StoreError,
        filing::{Effect, Filed, Intake, NotFiled, TakenIn},
    },
    vault::Vault,
};

/// Rows of one INSERT, well below the databases' bounds on parameters.
const ROWS: usize = 500;

/// How much a source has on file about people: by person, and not by source, of which there may be millions; the sum keeps
/// the planner from that index.
pub(super) const FILED: &str = "SELECT person, count(*) AS filed FROM evidence WHERE source + 0 = ";
/// The listings of areas.
pub(super) const LISTINGS: &str = "SELECT id, detail, at, until, grade FROM evidence WHERE class = 6 AND detail IN (";

/// Takes in a batch. In a dry run the caller rolls back.
pub(super) async fn take_in(
    connection: &mut Connection,
    vault: &Vault,
    intake: &Intake<'_>,
    assess: &dyn Assess,
    random: &dyn Random,
) -> Result<TakenIn, StoreError> {
    let before = changes::head(connection).await?;
    if intake.records.is_empty() {
        return Ok(TakenIn { verdicts: Vec::new(), effect: Effect { head: before, changed: 0 } });
    }
    let source = people::source(connection, intake.source).await?;
    let mut batch = Batch::load(connection, vault, source, intake.records).await?;
    let verdicts = intake.records.iter().map(|record| batch.file(record)).collect();
    let touched = batch.write(connection, vault, source, intake).await?;
    let mut effect = assessment::settle(connection, &touched, assess, intake.now, random).await?;
    if intake.dry_run {
        // Nobody ever gets to see a head of which nothing is kept.
        effect.head = before;
    }
    Ok(TakenIn { verdicts, effect })
}

/// Whom a row is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// Nobody.
    Nobody,
    /// Somebody whom the batch names, by place in its list.
    Named(usize),
    /// Somebody else on file.
    Other(i64),
}

impl Whose {
    const fn other(self) -> Option<i64> {
        match self {
            Self::Other(id) => Some(id),
            Self::Nobody | Self::Named(_) => None,
        }
    }
}

/// What a row says, but for whom it is about and its grade.
#[derive(Clone, PartialEq, Eq)]
struct Says {
    class: i64,
    at: i64,
    until: Option<i64>,
    detail: i64,
    authority: Option<String>,
}

/// A record as it stands, on file or about to be.
#[derive(Clone)]
struct Held {
    /// Its row's id, if it is on file.
    row: Option<i64>,
    revision: u32,
    whose: Whose,
    says: Says,
    grade: i64,
}

/// Somebody whom the batch names.
struct Named {
    key: PersonKey,
    id: Option<i64>,
    count: u32,
    /// Whether a record is accepted about them, so that they are put on file.
    wanted: bool,
}

/// A batch with all that it touches.
struct Batch {
    held: HashMap<String, Held>,
    /// The records that are to be written.
    written: BTreeSet<String>,
    /// Rows whose place is taken.
    replaced: Vec<i64>,
    named: Vec<Named>,
    by_key: HashMap<PersonKey, usize>,
    by_id: HashMap<i64, usize>,
    listings: BTreeMap<i64, Vec<(String, Listing)>>,
    relisted: BTreeSet<i64>,
    touched: Vec<(Whose, Scope)>,
}

impl Batch {
    async fn load(
        connection: &mut Connection,
        vault: &Vault,
        source: i64,
        records: &[Record],
    ) -> Result<Self, StoreError> {
        let mut batch = Self {
            held: HashMap::new(),
            written: BTreeSet::new(),
            replaced: Vec::new(),
            named: Vec::new(),
            by_key: HashMap::new(),
            by_id: HashMap::new(),
            listings: BTreeMap::new(),
            relisted: BTreeSet::new(),
            touched: Vec::new(),
        };
        // Areas first, then people, each in order; what is held under these records may change until they are locked.
        let former = batch.lock_areas(connection, source, records).await?;
        batch.load_people(connection, vault, records, former).await?;
        batch.load_held(connection, source, records).await?;
        batch.count(connection, source).await?;
        batch.load_listings(connection, records).await?;
        Ok(batch)
    }

    /// Locks the areas that these records are about, or were: listings and stays of one area do not pass each other unseen. Says whom the
    /// records are about on file.
    async fn lock_areas(
        &mut self,
        connection: &mut Connection,
        source: i64,
        records: &[Record],
    ) -> Result<BTreeSet<i64>, StoreError> {
        self.load_held(connection, source, records).await?;
        let mut areas: BTreeMap<i64, bool> = BTreeMap::new();
        let held = self.held.values().map(|held| (held.says.class, held.says.detail));
        let brought = records.iter().map(|record| says(&record.content)).map(|says| (says.class, says.detail));
        for (class, area) in held.chain(brought).filter(|(class, _)| matches!(*class, STAY | LISTING)) {
            *areas.entry(area).or_default() |= class == LISTING;
        }
        locks::areas(connection, &areas).await?;
        let former = self.held.values().filter_map(|held| held.whose.other()).collect();
        self.held.clear();
        Ok(former)
    }

    /// Whoever is named is locked before anything about them is read.
    async fn load_people(
        &mut self,
        connection: &mut Connection,
        vault: &Vault,
        records: &[Record],
        former: BTreeSet<i64>,
    ) -> Result<(), StoreError> {
        let named = records.iter().filter_map(|record| match &record.content {
            Content::About { person, .. } => Some(person.clone()),
            Content::Listing { .. } | Content::TooOld | Content::Withdrawn => None,
        });
        let keys: Vec<_> = named.collect::<BTreeSet<_>>().into_iter().collect();
        let found = people::find_all(connection, vault, &keys).await?;
        // Whoever is not named any more by a correction or a withdrawal is as concerned as who is.
        let concerned: BTreeSet<i64> = found.iter().copied().flatten().chain(former).collect();
        people::lock(connection, &concerned.into_iter().collect::<Vec<_>>()).await?;
        for (key, id) in keys.into_iter().zip(found) {
            // One person may be named by document here and by reference there.
            let known = id.and_then(|id| self.by_id.get(&id).copied());
            let place = known.unwrap_or_else(|| {
                self.named.push(Named { key: key.clone(), id, count: 0, wanted: false });
                self.named.len() - 1
            });
            if let Some(id) = id {
                self.by_id.insert(id, place);
            }
            self.by_key.insert(key, place);
        }
        Ok(())
    }

    /// How much this source has on file about whom the batch names.
    async fn count(&mut self, connection: &mut Connection, source: i64) -> Result<(), StoreError> {
        for (person, count) in counts(connection, source, self.by_id.keys().copied()).await? {
            self.named[self.by_id[&person]].count = count;
        }
        Ok(())
    }

    async fn load_held(
        &mut self,
        connection: &mut Connection,
        source: i64,
        records: &[Record],
    ) -> Result<(), StoreError> {
        let ids: BTreeSet<_> = records.iter().map(|record| record.id.as_str()).collect();
        let mut query = QueryBuilder::<Database>::new(
            "SELECT id, record, revision, person, class, at, until, detail, grade, authority FROM evidence WHERE source = ",
        );
        query.push_bind(source).push(" AND record IN (");
        rows::list(&mut query, ids.iter().map(|id| (*id).to_owned()));
        for row in query.push(")").build().fetch_all(connection).await? {
            let held = self.read_held(&row)?;
            self.held.insert(row.try_get("record")?, held);
        }
        Ok(())
    }

    fn read_held(&self, row: &Row) -> Result<Held, StoreError> {
        let whose = match row.try_get::<Option<i64>, _>("person")? {
            None => Whose::Nobody,
            Some(id) => self.by_id.get(&id).map_or(Whose::Other(id), |place| Whose::Named(*place)),
        };
        let class = row.try_get("class")?;
        let says = if class == WITHDRAWN {
            // When it came is noted in place of when it was.
            Says::nothing()
        } else {
            Says {
                class,
                at: row.try_get("at")?,
                until: row.try_get("until")?,
                detail: row.try_get("detail")?,
                authority: row.try_get("authority")?,
            }
        };
        let revision = u32::try_from(rows::uint(row, "revision")?).map_err(|_| rows::corrupt("revision"))?;
        Ok(Held { row: Some(row.try_get("id")?), revision, whose, says, grade: row.try_get("grade")? })
    }

    /// The listings of all areas that somebody stayed in, or that are listed.
    async fn load_listings(&mut self, connection: &mut Connection, records: &[Record]) -> Result<(), StoreError> {
        let areas: BTreeSet<i64> = records.iter().filter_map(area).collect();
        if areas.is_empty() {
            return Ok(());
        }
        let mut query = QueryBuilder::<Database>::new(LISTINGS);
        rows::list(&mut query, areas);
        for row in query.push(")").build().fetch_all(connection).await? {
            // A listing on file is known here by its row, one of this batch by its record.
            let id: i64 = row.try_get("id")?;
            self.listings.entry(row.try_get("detail")?).or_default().push((row_name(id), read_listing(&row)?));
        }
        Ok(())
    }

    /// Decides on one record, and notes what is to be written.
    fn file(&mut self, record: &Record) -> Filed {
        let (mut says, mut whose) = (says(&record.content), self.whose(&record.content));
        let held = self.held.get(record.id.as_str());
        if held.is_some_and(|held| record.revision < held.revision) {
            return Filed::Refused(NotFiled::Superseded);
        }
        let graded = match (self.grade(record, whose), held) {
            // A correction that says what is not kept says all the same that what is on file is wrong.
            (Err(NotFiled::TooOld | NotFiled::AreaNotListed), Some(held)) if held.says != says => Ok(None),
            (graded, _) => graded.map(Some),
        };
        if let Some(held) = held.filter(|held| held.revision == record.revision) {
            return self.again(record, held, &says, whose, graded);
        }
        let grade = match graded {
            Ok(Some(grade)) => grade,
            Ok(None) => {
                (says, whose) = (Says::nothing(), Whose::Nobody);
                0
            }
            Err(why) => return Filed::Refused(why),
        };
        let filed = match (&record.content, held) {
            (Content::Withdrawn, _) => Filed::Withdrawn,
            (_, Some(held)) if held.says.class != WITHDRAWN => Filed::Corrected,
            _ => Filed::Accepted,
        };
        self.take_place(record, Held { row: None, revision: record.revision, whose, says, grade });
        filed
    }

    /// A revision that is on file already: just so, or with another content.
    fn again(
        &self,
        record: &Record,
        held: &Held,
        says: &Says,
        whose: Whose,
        graded: Result<Option<i64>, NotFiled>,
    ) -> Filed {
        // A listing's risk is what it says; a stay's only follows.
        let same_risk = match &record.content {
            Content::Listing { listing, .. } => held.grade == listing.risk as i64,
            Content::About { .. } | Content::TooOld | Content::Withdrawn => true,
        };
        let same = held.says == *says && held.whose == whose && same_risk;
        let counts_no_more = graded == Ok(None) && held.says.class == WITHDRAWN;
        match record.content {
            _ if same || counts_no_more => Filed::Unchanged,
            Content::TooOld => Filed::Refused(NotFiled::TooOld),
            _ => Filed::Refused(NotFiled::Conflict),
        }
    }

    fn whose(&self, content: &Content) -> Whose {
        match content {
            Content::About { person, .. } => Whose::Named(self.by_key[person]),
            Content::Listing { .. } | Content::TooOld | Content::Withdrawn => Whose::Nobody,
        }
    }

    /// The grade that a record is filed with, if it may be.
    fn grade(&self, record: &Record, whose: Whose) -> Result<i64, NotFiled> {
        let fact = match &record.content {
            Content::Withdrawn => return Ok(0),
            Content::TooOld => return Err(NotFiled::TooOld),
            Content::Listing { listing, .. } => return self.room_for(record, listing),
            Content::About { fact, .. } => fact,
        };
        let Whose::Named(place) = whose else { return Err(NotFiled::PersonUnknown) };
        let named = &self.named[place];
        // Whom the platform alone can name, nobody else can add.
        if named.id.is_none() && matches!(named.key, PersonKey::Reference(_)) {
            return Err(NotFiled::PersonUnknown);
        }
        let grade = match *fact {
            Fact::Stay { area, entered_at, left_at } => {
                self.risk_of(area, (entered_at, left_at)).ok_or(NotFiled::AreaNotListed)?
            }
            _ => 0,
        };
        let replaces = self.held.get(record.id.as_str()).is_some_and(|held| held.whose == whose);
        if named.count >= MAX_EVIDENCE && !replaces {
            return Err(NotFiled::TooMuch);
        }
        Ok(grade)
    }

    /// Every stay in an area is held against all of its listings.
    fn room_for(&self, record: &Record, listing: &Listing) -> Result<i64, NotFiled> {
        let area = i64::from(listing.area);
        let listed = self.listings.get(&area).map_or(0, Vec::len);
        let replaces = self
            .held
            .get(record.id.as_str())
            .is_some_and(|held| held.says.class == LISTING && held.says.detail == area);
        if listed >= MAX_LISTINGS && !replaces { Err(NotFiled::TooMuch) } else { Ok(listing.risk as i64) }
    }

    /// The highest risk that an area was listed with at any time of a stay.
    fn risk_of(&self, area: u32, (entered, left): (UnixTime, UnixTime)) -> Option<i64> {
        let listings = self.listings.get(&i64::from(area))?.iter();
        let meanwhile = listings.filter(|(_, listing)| listing.is_amid(entered, left));
        meanwhile.map(|(_, listing)| listing.risk as i64).max()
    }

    /// Notes that a record takes the place of what is held under its id.
    fn take_place(&mut self, record: &Record, new: Held) {
        let id = record.id.as_str();
        if let Some(old) = self.held.get(id).cloned() {
            self.replaced.extend(old.row);
            self.touch(&old, -1);
            let name = old.row.map_or_else(|| id.to_owned(), row_name);
            if let Some(listings) = self.listings.get_mut(&old.says.detail) {
                listings.retain(|(listed, _)| *listed != name);
            }
        }
        self.touch(&new, 1);
        if let Content::Listing { listing, .. } = record.content {
            self.listings.entry(i64::from(listing.area)).or_default().push((id.to_owned(), listing));
        }
        self.held.insert(id.to_owned(), new);
        self.written.insert(id.to_owned());
    }

    fn touch(&mut self, held: &Held, count: i32) {
        if held.says.class == LISTING {
            self.relisted.insert(held.says.detail);
        }
        if let Whose::Named(place) = held.whose {
            let named = &mut self.named[place];
            named.count = named.count.saturating_add_signed(count);
            named.wanted |= count > 0;
        }
        if held.whose != Whose::Nobody {
            self.touched.push((held.whose, discloses(held.says.class)));
        }
    }

    /// Writes what was decided, and says whose codes are to be settled.
    async fn write(
        mut self,
        connection: &mut Connection,
        vault: &Vault,
        source: i64,
        intake: &Intake<'_>,
    ) -> Result<Touched, StoreError> {
        self.add_people(connection, vault).await?;
        delete(connection, &self.replaced).await?;
        self.insert(connection, source, rows::secs(intake.now)).await?;
        for area in &self.relisted {
            regrade::relist(connection, *area, rows::secs(intake.now)).await?;
        }
        let mut touched = Touched::default();
        for (whose, scope) in &self.touched {
            let id = match *whose {
                Whose::Named(place) => self.named[place].id,
                Whose::Other(id) => Some(id),
                Whose::Nobody => None,
            };
            if let Some(id) = id {
                touched.touch(id, *scope);
            }
        }
        Ok(touched)
    }

    /// Puts people on file whom nobody has named before.
    async fn add_people(&mut self, connection: &mut Connection, vault: &Vault) -> Result<(), StoreError> {
        let new = self.named.iter_mut().filter(|named| named.wanted && named.id.is_none());
        let (mut places, mut documents) = (Vec::new(), Vec::new());
        for named in new {
            if let PersonKey::Document(document) = &named.key {
                documents.push(document);
                places.push(&mut named.id);
            }
        }
        if documents.is_empty() {
            return Ok(());
        }
        let people = people::add_nameless(connection, vault, &documents).await?;
        places.into_iter().zip(people).for_each(|(place, person)| *place = Some(person.0));
        Ok(())
    }

    async fn insert(&self, connection: &mut Connection, source: i64, now: i64) -> Result<(), StoreError> {
        let written: Vec<_> = self.written.iter().map(|id| (id, &self.held[id])).collect();
        for chunk in written.chunks(ROWS) {
            let mut query = QueryBuilder::<Database>::new(
                "INSERT INTO evidence \
                 (source, record, revision, person, class, at, until, detail, grade, authority, received_at) ",
            );
            query.push_values(chunk, |mut row, (id, held)| {
                let person = match held.whose {
                    Whose::Named(place) => self.named[place].id,
                    Whose::Other(id) => Some(id),
                    Whose::Nobody => None,
                };
                row.push_bind(source).push_bind(id.to_string()).push_bind(i64::from(held.revision)).push_bind(person);
                row.push_bind(held.says.class).push_bind(if held.says.class == WITHDRAWN { now } else { held.says.at });
                row.push_bind(held.says.until).push_bind(held.says.detail).push_bind(held.grade);
                row.push_bind(held.says.authority.clone()).push_bind(now);
            });
            query.build().execute(&mut *connection).await?;
        }
        Ok(())
    }
}

impl Says {
    /// What a record says that counts no more.
    const fn nothing() -> Self {
        Self { class: WITHDRAWN, at: 0, until: None, detail: 0, authority: None }
    }
}

fn says(content: &Content) -> Says {
    match content {
        Content::TooOld | Content::Withdrawn => Says::nothing(),
        Content::Listing { listing, authority } => Says {
            class: LISTING,
            at: rows::secs(listing.since),
            until: listing.until.map(rows::secs),
            detail: i64::from(listing.area),
            authority: Some(authority.to_string()),
        },
        Content::About { fact, authority, .. } => {
            let (at, until) = fact.span();
            let (class, detail) = match *fact {
                Fact::Test { positive, .. } => (TEST, i64::from(positive)),
                Fact::Dose { number, .. } => (DOSE, i64::from(number)),
                Fact::Stay { area, .. } => (STAY, i64::from(area)),
                Fact::Case { .. } => (CASE, 0),
                Fact::Contact { .. } => (CONTACT, 0),
            };
            let (at, until, authority) = (rows::secs(at), until.map(rows::secs), Some(authority.to_string()));
            Says { class, at, until, detail, authority }
        }
    }
}

/// The scope that discloses a class of evidence to a venue: none, if it shows in the code alone.
fn discloses(class: i64) -> Scope {
    match class {
        TEST => Scope::TESTS,
        DOSE => Scope::VACCINATION,
        STAY => Scope::RISK_AREAS,
        _ => Scope::LEVEL,
    }
}

fn area(record: &Record) -> Option<i64> {
    match &record.content {
        Content::About { fact: Fact::Stay { area, .. }, .. } => Some(i64::from(*area)),
        Content::Listing { listing, .. } => Some(i64::from(listing.area)),
        _ => None,
    }
}

fn row_name(id: i64) -> String {
    // No source's own id has a '#'.
    format!("#{id}")
}

pub(super) fn read_listing(row: &Row) -> Result<Listing, StoreError> {
    let until = row.try_get::<Option<i64>, _>("until")?.is_some();
    Ok(Listing {
        area: u32::try_from(rows::uint(row, "detail")?).map_err(|_| rows::corrupt("detail"))?,
        risk: Risk::from_number(rows::uint(row, "grade")?).ok_or_else(|| rows::corrupt("grade"))?,
        since: rows::time(row, "at")?,
        until: if until { Some(rows::time(row, "until")?) } else { None },
    })
}

/// How much a source has on file about each of these people. A laboratory does not crowd out what others say.
async fn counts(
    connection: &mut Connection,
    source: i64,
    people: impl Iterator<Item = i64>,
) -> Result<Vec<(i64, u32)>, StoreError> {
    let mut people = people.peekable();
    if people.peek().is_none() {
        return Ok(Vec::new());
    }
    let mut query = QueryBuilder::<Database>::new(FILED);
    query.push_bind(source).push(" AND person IN (");
    rows::list(&mut query, people);
    let rows = query.push(") GROUP BY person").build().fetch_all(connection).await?;
    let count = |row: &Row| Ok((row.try_get("person")?, u32::try_from(rows::uint(row, "filed")?).unwrap_or(u32::MAX)));
    rows.iter().map(count).collect()
}

async fn delete(connection: &mut Connection, ids: &[i64]) -> Result<(), StoreError> {
    for ids in ids.chunks(ROWS) {
        let mut query = QueryBuilder::<Database>::new("DELETE FROM evidence WHERE id IN (");
        rows::list(&mut query, ids.iter().copied());
        query.push(")").build().execute(&mut *connection).await?;
    }
    Ok(())
}
