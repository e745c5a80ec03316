//! Codes worked out from what is on file: whoever was touched is assessed, and what changed is written with its events.
//!
//! Upholds I4: evidence, code and events are one transaction, whether evidence came or time passed. Assessing somebody of whom
//! nothing changed writes nothing.

use std::collections::{BTreeMap, BTreeSet};

use proto::{random::Random, terms::Scope, time::UnixTime, token::Cti};
use sqlx::{QueryBuilder, Row as _};

use super::{
    Connection, Database, Row, changes, codes, evidence, locks, regrade,
    rows::{self, bytes, corrupt, optional_time, secs, uint},
};
use crate::{
    assessment::{Assess, Assessment, Assigned, Base, Dossier, Outcome},
    evidence::EvidenceId,
    store::{
        ChangeKind, Code, HONOURED_AFTER_EXPIRY, PersonId, StoreError,
        filing::{Effect, Origin, Reassessed},
    },
};

/// Rows of one INSERT, well below the databases' bounds on parameters.
const ROWS: usize = 500;

/// People whose codes are to be settled, each with the scope bits of what else changed about them: what a consent of that scope
/// disclosed is old.
#[derive(Debug, Default)]
pub(super) struct Touched(BTreeMap<i64, u64>);

/// When somebody is due who has another file than before: at once, and all that was said of them is old.
pub(super) const AT_ONCE: UnixTime = UnixTime::from_secs(0);

/// All scope bits: every consent discloses the code.
const EVERYTHING: u64 = u64::MAX;

impl Touched {
    /// Adds a person of whom something of this scope changed; of the level alone if only the code may have.
    pub(super) fn touch(&mut self, person: i64, scope: Scope) {
        // The level is in every scope: whether it changed is seen when it is worked out.
        *self.0.entry(person).or_default() |= bits(scope) & !bits(Scope::LEVEL);
    }
}

impl Touched {
    /// The people.
    pub(super) fn people(&self) -> Vec<i64> {
        self.0.keys().copied().collect()
    }
}

fn bits(scope: Scope) -> u64 {
    scope.bits().into()
}

/// An assignment on file.
#[derive(Clone, Debug)]
struct OnFile {
    id: i64,
    code: Option<Code>,
    origin: Origin,
    ends_at: Option<UnixTime>,
    evidence: Option<EvidenceId>,
    covers: EvidenceId,
}

/// What is on file about one person.
#[derive(Debug, Default)]
struct File {
    dossier: Dossier,
    /// The base's row.
    base: Option<i64>,
    /// The row of the assignment that holds.
    current: Option<i64>,
    /// Those two.
    codes: Vec<OnFile>,
    due_at: Option<UnixTime>,
}

impl File {
    /// The assignment that holds.
    fn held(&self) -> Option<&OnFile> {
        self.codes.iter().find(|code| Some(code.id) == self.current)
    }
}

/// What is to hold from now on.
enum Next {
    /// An assignment that is on file.
    OnFile(Option<i64>),
    /// One that follows from rules and evidence.
    New(Assigned),
}

/// Assesses people, writes what changed, and appends an event for each consent that discloses any of it.
pub(super) async fn settle(
    connection: &mut Connection,
    touched: &Touched,
    assess: &dyn Assess,
    now: UnixTime,
    random: &dyn Random,
) -> Result<Effect, StoreError> {
    let people = touched.people();
    let mut events = Vec::new();
    for chunk in people.chunks(ROWS) {
        let (mut assigned, mut changed, mut moved) = (Vec::new(), BTreeMap::new(), Vec::new());
        for (person, file) in load(connection, chunk).await? {
            let Assessment { outcome, due_at } = assess.assess(&file.dossier, now);
            if due_at != file.due_at {
                set_due(connection, person, due_at).await?;
            }
            // A statement that was signed before may live beyond a time that has come nearer.
            let nearer = due_at.is_some_and(|due_at| file.due_at.is_none_or(|known| due_at < known));
            let other = file.due_at == Some(AT_ONCE);
            let same = says_the_same(&file, &outcome);
            let mut seen = if nearer || other || !same { EVERYTHING } else { touched.0[&person] };
            match (next(&file, outcome), file.held()) {
                (Next::New(code), Some(held)) if same && held.origin == Origin::Rules => {
                    keep(connection, held, &code).await?;
                }
                // What nobody could see change has held all the time.
                (Next::New(code), held) => {
                    let since =
                        held.filter(|_| same).and_then(|held| held.code.as_ref()).map_or(now, |code| code.assigned_at);
                    assigned.push((person, since, code));
                    moved.push(person);
                }
                (Next::OnFile(row), _) if row != file.current => {
                    hold(connection, person, row).await?;
                    moved.push(person);
                    // The same word of another time: whoever sees since when it holds sees that.
                    seen |= bits(Scope::ASSIGNMENT);
                }
                (Next::OnFile(_), _) => {}
            }
            changed.insert(person, seen);
        }
        assign(connection, &assigned, now).await?;
        retire(connection, &moved, now).await?;
        events.extend(honoured(connection, &changed, now).await?);
    }
    let changed = events.len() as u32;
    let head = changes::append(connection, events, ChangeKind::Status, now, random).await?;
    Ok(Effect { head, changed })
}

/// Whoever is due, some at most, and some of those whose stays were in an area that is listed otherwise now: neither waits for the
/// other.
pub(super) async fn due(
    connection: &mut Connection,
    limit: u32,
    assess: &dyn Assess,
    now: UnixTime,
    random: &dyn Random,
) -> Result<Reassessed, StoreError> {
    let mut touched = Touched::default();
    for person in regrade::some(connection, now, limit).await? {
        touched.touch(person, Scope::RISK_AREAS);
    }
    let due = sqlx::query_scalar("SELECT id FROM person WHERE due_at <= $1 ORDER BY due_at LIMIT $2");
    let due: Vec<i64> = due.bind(secs(now)).bind(i64::from(limit)).fetch_all(&mut *connection).await?;
    due.into_iter().for_each(|person| touched.touch(person, Scope::LEVEL));
    again(connection, &touched, assess, now, random).await
}

/// The next people with evidence after one of them, some at most, and who the last of them was.
pub(super) async fn following(
    connection: &mut Connection,
    after: PersonId,
    limit: u32,
    assess: &dyn Assess,
    now: UnixTime,
    random: &dyn Random,
) -> Result<(Reassessed, Option<PersonId>), StoreError> {
    let people: Vec<i64> = sqlx::query_scalar(
        "SELECT id FROM person WHERE id > $1 AND EXISTS (SELECT 1 FROM evidence WHERE evidence.person = person.id) \
         ORDER BY id LIMIT $2",
    )
    .bind(after.0)
    .bind(i64::from(limit))
    .fetch_all(&mut *connection)
    .await?;
    let last = people.last().copied().map(PersonId);
    let mut touched = Touched::default();
    people.into_iter().for_each(|person| touched.touch(person, Scope::LEVEL));
    Ok((again(connection, &touched, assess, now, random).await?, last))
}

/// One person.
pub(super) async fn one(
    connection: &mut Connection,
    person: PersonId,
    assess: &dyn Assess,
    now: UnixTime,
    random: &dyn Random,
) -> Result<Reassessed, StoreError> {
    again(connection, &Touched::from([person]), assess, now, random).await
}

/// When somebody is due next; at once, if an area is listed otherwise now.
pub(super) async fn next_due(connection: &mut Connection) -> Result<Option<UnixTime>, StoreError> {
    if regrade::is_due(connection).await? {
        return Ok(Some(AT_ONCE));
    }
    let row =
        sqlx::query("SELECT min(due_at) AS due_at FROM person WHERE due_at IS NOT NULL").fetch_one(connection).await?;
    optional_time(&row, "due_at")
}

/// The digest of the rules by which everybody was assessed last.
pub(super) async fn rules(connection: &mut Connection) -> Result<u64, StoreError> {
    let digest: i64 = sqlx::query_scalar("SELECT rules FROM log_head").fetch_one(connection).await?;
    Ok(digest.cast_unsigned())
}

/// Notes that everybody was assessed by the rules of this digest.
pub(super) async fn set_rules(connection: &mut Connection, digest: u64) -> Result<(), StoreError> {
    sqlx::query("UPDATE log_head SET rules = $1").bind(digest.cast_signed()).execute(connection).await?;
    Ok(())
}

/// Looks at people again, each with the scope of what else has changed about them.
async fn again(
    connection: &mut Connection,
    touched: &Touched,
    assess: &dyn Assess,
    now: UnixTime,
    random: &dyn Random,
) -> Result<Reassessed, StoreError> {
    let people = touched.people();
    match locks::people(connection, &people).await {
        // Who was forgotten meanwhile has no file; the others are locked.
        Ok(()) | Err(StoreError::PersonUnknown) => {}
        Err(error) => return Err(error),
    }
    let effect = settle(connection, touched, assess, now, random).await?;
    Ok(Reassessed { people: people.len() as u32, effect })
}

impl<const N: usize> From<[PersonId; N]> for Touched {
    /// People of whom only the code may have changed.
    fn from(people: [PersonId; N]) -> Self {
        Self(people.into_iter().map(|person| (person.0, 0)).collect())
    }
}

fn next(file: &File, outcome: Outcome) -> Next {
    match outcome {
        Outcome::Base => Next::OnFile(file.base),
        Outcome::NoCode => Next::OnFile(None),
        Outcome::Assigned(assigned) => Next::New(assigned),
    }
}

/// Whether nobody can see a difference to what holds. Where an assignment comes from is none.
fn says_the_same(file: &File, outcome: &Outcome) -> bool {
    let held = file.held().and_then(|held| held.code.as_ref());
    let held = held.map(|code| (&code.label, &code.rule, &code.authority));
    let new = match outcome {
        Outcome::Base => file.dossier.base.as_ref().map(|base| (&base.label, &base.rule, &base.authority)),
        Outcome::Assigned(assigned) => Some((&assigned.label, &assigned.rule, &assigned.authority)),
        Outcome::NoCode => None,
    };
    held == new
}

/// Notes what a status that goes on follows from now.
async fn keep(connection: &mut Connection, held: &OnFile, new: &Assigned) -> Result<(), StoreError> {
    if (held.ends_at, held.evidence) == (new.ends_at, new.evidence) {
        return Ok(());
    }
    sqlx::query("UPDATE code SET ends_at = $1, evidence = $2 WHERE id = $3")
        .bind(new.ends_at.map(secs))
        .bind(new.evidence.map(|id| id.0))
        .bind(held.id)
        .execute(connection)
        .await?;
    Ok(())
}

/// Makes an assignment on file the one that holds, or none.
async fn hold(connection: &mut Connection, person: i64, row: Option<i64>) -> Result<(), StoreError> {
    sqlx::query("UPDATE person SET code = $1 WHERE id = $2").bind(row).bind(person).execute(connection).await?;
    Ok(())
}

/// Notes which assignments of these people neither hold nor are bases any more, nor may stand again as what the platform said last, or
/// was seeded: they are forgotten in time.
pub(super) async fn retire(connection: &mut Connection, people: &[i64], now: UnixTime) -> Result<(), StoreError> {
    if people.is_empty() {
        return Ok(());
    }
    let mut query = QueryBuilder::<Database>::new("UPDATE code SET over_at = ");
    query.push_bind(secs(now)).push(
        " WHERE over_at IS NULL AND NOT EXISTS (SELECT 1 FROM person WHERE person.id = code.person \
         AND code.id IN (person.code, person.base)) AND (source IN ('hand', 'rules') \
         OR EXISTS (SELECT 1 FROM code AS later WHERE later.person = code.person AND later.id > code.id \
         AND later.source IN ('platform', 'seed'))) AND person IN (",
    );
    rows::list(&mut query, people.iter().copied());
    query.push(")").build().execute(connection).await?;
    Ok(())
}

/// Forgets assignments that were over before a time, some rows at most.
pub(super) async fn sweep(connection: &mut Connection, before: UnixTime, limit: i64) -> Result<u64, StoreError> {
    let swept = sqlx::query("DELETE FROM code WHERE id IN (SELECT id FROM code WHERE over_at < $1 LIMIT $2)");
    Ok(swept.bind(secs(before)).bind(limit).execute(connection).await?.rows_affected())
}

async fn set_due(connection: &mut Connection, person: i64, due_at: Option<UnixTime>) -> Result<(), StoreError> {
    sqlx::query("UPDATE person SET due_at = $1 WHERE id = $2")
        .bind(due_at.map(secs))
        .bind(person)
        .execute(connection)
        .await?;
    Ok(())
}

/// Puts assignments on file, which hold from now on.
async fn assign(
    connection: &mut Connection,
    assigned: &[(i64, UnixTime, Assigned)],
    now: UnixTime,
) -> Result<(), StoreError> {
    if assigned.is_empty() {
        return Ok(());
    }
    let mut query = QueryBuilder::<Database>::new(
        "INSERT INTO code (person, label, rule, authority, assigned_at, recorded_at, source, set_by, ends_at, evidence) ",
    );
    query.push_values(assigned, |mut row, (person, since, code)| {
        row.push_bind(*person).push_bind(code.label.clone()).push_bind(code.rule.clone());
        row.push_bind(code.authority.as_ref().map(ToString::to_string)).push_bind(secs(*since)).push_bind(secs(now));
        row.push_bind(Origin::Rules.word()).push_bind(Origin::Rules.word());
        row.push_bind(code.ends_at.map(secs)).push_bind(code.evidence.map(|id| id.0));
    });
    query.build().execute(&mut *connection).await?;
    // The latest of each is the one that was put there now.
    let mut query = QueryBuilder::<Database>::new(
        "UPDATE person SET code = (SELECT max(code.id) FROM code WHERE code.person = person.id) WHERE id IN (",
    );
    rows::list(&mut query, assigned.iter().map(|(person, ..)| *person));
    query.push(")").build().execute(connection).await?;
    Ok(())
}

/// The consents that somebody may still honour, of people each with the scope bits of what changed: those that disclose any of it.
async fn honoured(
    connection: &mut Connection,
    changed: &BTreeMap<i64, u64>,
    now: UnixTime,
) -> Result<Vec<Cti>, StoreError> {
    let people: BTreeSet<i64> = changed.iter().filter_map(|(person, bits)| (*bits != 0).then_some(*person)).collect();
    if people.is_empty() {
        return Ok(Vec::new());
    }
    let mut query = QueryBuilder::<Database>::new("SELECT person, cti, scope FROM consent WHERE expires_at > ");
    query.push_bind(secs(now.minus(HONOURED_AFTER_EXPIRY))).push(" AND revoked_at IS NULL AND person IN (");
    rows::list(&mut query, people);
    let mut handles = Vec::new();
    for row in query.push(")").build().fetch_all(connection).await? {
        if changed
            .get(&row.try_get("person")?)
            .is_some_and(|changed| changed & uint(&row, "scope").unwrap_or(EVERYTHING) != 0)
        {
            handles.push(Cti(bytes(&row, "cti")?));
        }
    }
    Ok(handles)
}

/// The files of these people.
async fn load(connection: &mut Connection, people: &[i64]) -> Result<BTreeMap<i64, File>, StoreError> {
    let mut files = BTreeMap::new();
    if people.is_empty() {
        return Ok(files);
    }
    let mut query = QueryBuilder::<Database>::new("SELECT id, code, base, due_at FROM person WHERE id IN (");
    rows::list(&mut query, people.iter().copied());
    for row in query.push(")").build().fetch_all(&mut *connection).await? {
        let (current, base) = (row.try_get("code")?, row.try_get("base")?);
        let file = File { current, base, due_at: optional_time(&row, "due_at")?, ..File::default() };
        files.insert(row.try_get("id")?, file);
    }
    load_codes(connection, people, &mut files).await?;
    let mut query = QueryBuilder::<Database>::new(
        "SELECT person, id, class, at, until, detail, grade, authority, received_at FROM evidence WHERE person IN (",
    );
    rows::list(&mut query, people.iter().copied());
    for row in query.push(")").build().fetch_all(connection).await? {
        if let Some(file) = files.get_mut(&row.try_get::<i64, _>("person")?) {
            file.dossier.evidence.push(evidence::read(&row)?);
        }
    }
    Ok(files)
}

/// The assignments that hold, and the bases.
async fn load_codes(
    connection: &mut Connection,
    people: &[i64],
    files: &mut BTreeMap<i64, File>,
) -> Result<(), StoreError> {
    let mut query = QueryBuilder::<Database>::new(
        "SELECT person.id AS who, code.id, label, rule, authority, assigned_at, source, ends_at, evidence, covers \
         FROM person JOIN code ON code.id IN (person.code, person.base) WHERE person.id IN (",
    );
    rows::list(&mut query, people.iter().copied());
    for row in query.push(")").build().fetch_all(&mut *connection).await? {
        let Some(file) = files.get_mut(&row.try_get::<i64, _>("who")?) else { continue };
        let assignment = read(&row)?;
        if file.base == Some(assignment.id) {
            file.dossier.base = assignment.code.clone().map(|code| Base {
                label: code.label,
                rule: code.rule,
                authority: code.authority,
                covers: assignment.covers,
            });
        }
        file.codes.push(assignment);
    }
    Ok(())
}

fn read(row: &Row) -> Result<OnFile, StoreError> {
    Ok(OnFile {
        id: row.try_get("id")?,
        code: codes::read(row)?,
        origin: Origin::from_word(row.try_get("source")?).ok_or_else(|| corrupt("source"))?,
        ends_at: optional_time(row, "ends_at")?,
        evidence: row.try_get::<Option<i64>, _>("evidence")?.map(EvidenceId),
        covers: EvidenceId(row.try_get("covers")?),
    })
}
