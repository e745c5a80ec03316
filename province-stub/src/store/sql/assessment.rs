//! Codes worked out from what is on file: whoever was touched is assessed, and what changed is written with its events.
//!
//! Upholds I4: evidence, code and events are one transaction, whether evidence came or time passed. Assessing somebody of whom
//! nothing changed writes nothing.

use std::collections::{BTreeMap, BTreeSet};

use proto::{random::Random, terms::Scope, time::UnixTime, token::Cti};
use sqlx::{QueryBuilder, Row as _};

use super::{
    Connection, Database, Row, changes, codes, evidence,
    rows::{self, bytes, corrupt, secs, time, uint},
};
use crate::{
    assessment::{Assess, Assessment, Base, Dossier, Outcome},
    evidence::{Evidence, EvidenceId, Fact, Risk},
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

/// All scope bits: every consent discloses the code.
const EVERYTHING: u64 = u64::MAX;

impl Touched {
    /// Adds a person of whom something of this scope changed; of the level alone if only the code may have.
    pub(super) fn touch(&mut self, person: i64, scope: Scope) {
        // The level is in every scope: whether it changed is seen when it is worked out.
        *self.0.entry(person).or_default() |= bits(scope) & !bits(Scope::LEVEL);
    }
}

fn bits(scope: Scope) -> u64 {
    scope.bits().into()
}

/// A code to hold from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Standing {
    code: Option<Code>,
    origin: Origin,
    set_by: String,
    ends_at: Option<UnixTime>,
    evidence: Option<EvidenceId>,
    covers: i64,
}

/// What is on file about one person.
#[derive(Debug, Default)]
struct File {
    dossier: Dossier,
    base: Option<Standing>,
    /// The latest assignment and its row.
    current: Option<(i64, Standing)>,
    due_at: Option<UnixTime>,
}

/// Assesses people, writes what changed, and appends an event for each consent that discloses any of it.
pub(super) async fn settle(
    connection: &mut Connection,
    touched: &Touched,
    assess: &dyn Assess,
    now: UnixTime,
    random: &dyn Random,
) -> Result<Effect, StoreError> {
    let people: Vec<i64> = touched.0.keys().copied().collect();
    let (mut assigned, mut events) = (Vec::new(), Vec::new());
    for chunk in people.chunks(ROWS) {
        let files = load(connection, chunk).await?;
        let mut changed = BTreeMap::new();
        for (person, file) in &files {
            let Assessment { outcome, due_at } = assess.assess(&file.dossier, now);
            if due_at != file.due_at {
                set_due(connection, *person, due_at).await?;
            }
            let standing = standing(file, outcome, now);
            let held = file.current.as_ref();
            if says_the_same(held.map(|(_, held)| held), standing.as_ref()) {
                keep(connection, held, standing.as_ref()).await?;
                // A statement that was signed before may live beyond a time that has come nearer.
                let nearer = due_at.is_some_and(|due_at| file.due_at.is_none_or(|known| due_at < known));
                changed.insert(*person, if nearer { EVERYTHING } else { touched.0[person] });
            } else {
                assigned.push((*person, standing));
                changed.insert(*person, EVERYTHING);
            }
        }
        events.extend(honoured(connection, &changed, now).await?);
    }
    insert(connection, &assigned, now).await?;
    let changed = events.len() as u32;
    let head = changes::append(connection, events, ChangeKind::Status, now, random).await?;
    Ok(Effect { head, changed })
}

/// Whoever is due, some at most.
pub(super) async fn due(
    connection: &mut Connection,
    limit: u32,
    assess: &dyn Assess,
    now: UnixTime,
    random: &dyn Random,
) -> Result<Reassessed, StoreError> {
    let due = sqlx::query_scalar(super::DUE).bind(secs(now)).bind(i64::from(limit)).fetch_all(&mut *connection).await?;
    again(connection, due, assess, now, random).await
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
    Ok((again(connection, people, assess, now, random).await?, last))
}

/// One person.
pub(super) async fn one(
    connection: &mut Connection,
    person: PersonId,
    assess: &dyn Assess,
    now: UnixTime,
    random: &dyn Random,
) -> Result<Reassessed, StoreError> {
    again(connection, vec![person.0], assess, now, random).await
}

/// When somebody is due next.
pub(super) async fn next_due(connection: &mut Connection) -> Result<Option<UnixTime>, StoreError> {
    let row = sqlx::query("SELECT min(due_at) AS due_at FROM person WHERE due_at IS NOT NULL").fetch_one(connection).await?;
    optional_time(&row, "due_at")
}

/// Whoever is looked at again may have been in an area whose listing changed: what is disclosed of that may have, too.
async fn again(
    connection: &mut Connection,
    people: Vec<i64>,
    assess: &dyn Assess,
    now: UnixTime,
    random: &dyn Random,
) -> Result<Reassessed, StoreError> {
    super::lock_people(connection, &people.iter().copied().collect()).await?;
    let mut touched = Touched::default();
    people.iter().for_each(|person| touched.touch(*person, Scope::RISK_AREAS));
    let effect = settle(connection, &touched, assess, now, random).await?;
    Ok(Reassessed { people: people.len() as u32, effect })
}

/// The standing that an assessment comes to; the base's own words where the base stands. `None`: there was never a code, and
/// there is none.
fn standing(file: &File, outcome: Outcome, now: UnixTime) -> Option<Standing> {
    let by_rules = |code, ends_at, evidence| Standing {
        code,
        origin: Origin::Rules,
        set_by: Origin::Rules.word().to_owned(),
        ends_at,
        evidence,
        covers: 0,
    };
    match outcome {
        Outcome::Base => file.base.clone(),
        Outcome::Assigned(assigned) => {
            let code = Code {
                label: assigned.label,
                rule: assigned.rule,
                authority: assigned.authority,
                assigned_at: now,
            };
            Some(by_rules(Some(code), assigned.ends_at, assigned.evidence))
        }
        Outcome::NoCode => file.current.is_some().then(|| by_rules(None, None, None)),
    }
}

/// Whether nobody can see a difference. Where an assignment comes from is no such difference; an operator's mark is kept by the
/// base.
fn says_the_same(held: Option<&Standing>, new: Option<&Standing>) -> bool {
    let says = |standing: Option<&Standing>| {
        let code = standing.and_then(|standing| standing.code.clone());
        code.map(|code| (code.label, code.rule, code.authority))
    };
    says(held) == says(new)
}

/// Notes what a status that goes on follows from now.
async fn keep(
    connection: &mut Connection,
    held: Option<&(i64, Standing)>,
    new: Option<&Standing>,
) -> Result<(), StoreError> {
    let (Some((row, held)), Some(new)) = (held, new) else { return Ok(()) };
    if (held.ends_at, held.evidence, held.origin) == (new.ends_at, new.evidence, new.origin) {
        return Ok(());
    }
    sqlx::query("UPDATE code SET ends_at = $1, evidence = $2, source = $3, set_by = $4 WHERE id = $5")
        .bind(new.ends_at.map(secs))
        .bind(new.evidence.map(|id| id.0))
        .bind(new.origin.word())
        .bind(&new.set_by)
        .bind(row)
        .execute(connection)
        .await?;
    Ok(())
}

async fn set_due(connection: &mut Connection, person: i64, due_at: Option<UnixTime>) -> Result<(), StoreError> {
    sqlx::query("UPDATE person SET due_at = $1 WHERE id = $2")
        .bind(due_at.map(secs))
        .bind(person)
        .execute(connection)
        .await?;
    Ok(())
}

async fn insert(
    connection: &mut Connection,
    assigned: &[(i64, Option<Standing>)],
    now: UnixTime,
) -> Result<(), StoreError> {
    let standing: Vec<_> = assigned.iter().filter_map(|(person, standing)| Some((person, standing.as_ref()?))).collect();
    for chunk in standing.chunks(ROWS) {
        let mut query = QueryBuilder::<Database>::new(
            "INSERT INTO code \
             (person, label, rule, authority, assigned_at, recorded_at, source, set_by, ends_at, evidence, covers) ",
        );
        query.push_values(chunk, |mut row, (person, standing)| {
            let code = standing.code.as_ref();
            row.push_bind(**person).push_bind(code.map(|code| code.label.clone()));
            row.push_bind(code.and_then(|code| code.rule.clone()));
            row.push_bind(code.and_then(|code| code.authority.as_ref().map(ToString::to_string)));
            row.push_bind(secs(now)).push_bind(secs(now)).push_bind(standing.origin.word());
            row.push_bind(standing.set_by.clone()).push_bind(standing.ends_at.map(secs));
            row.push_bind(standing.evidence.map(|id| id.0)).push_bind(standing.covers);
        });
        query.build().execute(&mut *connection).await?;
    }
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
    rows::list(&mut query, people.into_iter());
    let mut handles = Vec::new();
    for row in query.push(")").build().fetch_all(connection).await? {
        if changed.get(&row.try_get("person")?).is_some_and(|changed| changed & uint(&row, "scope").unwrap_or(EVERYTHING) != 0) {
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
    let mut query = QueryBuilder::<Database>::new(
        "SELECT person.id AS who, person.due_at, code.id, code.label, code.rule, code.authority, code.assigned_at, \
         code.source, code.set_by, code.ends_at, code.evidence, code.covers \
         FROM person LEFT JOIN code ON code.id = person.base WHERE person.id IN (",
    );
    rows::list(&mut query, people.iter().copied());
    for row in query.push(")").build().fetch_all(&mut *connection).await? {
        let base = read_standing(&row)?;
        let mut file = File { due_at: optional_time(&row, "due_at")?, ..File::default() };
        if let Some((_, standing)) = base {
            file.dossier.base = standing.code.clone().map(|code| Base {
                label: code.label,
                rule: code.rule,
                authority: code.authority,
                covers: EvidenceId(standing.covers),
            });
            file.base = Some(standing);
        }
        files.insert(row.try_get("who")?, file);
    }
    let mut query = QueryBuilder::<Database>::new(
        "SELECT person AS who, id, label, rule, authority, assigned_at, source, set_by, ends_at, evidence, covers \
         FROM code WHERE id IN (SELECT max(id) FROM code WHERE person IN (",
    );
    rows::list(&mut query, people.iter().copied());
    for row in query.push(") GROUP BY person)").build().fetch_all(&mut *connection).await? {
        if let Some(file) = files.get_mut(&row.try_get::<i64, _>("who")?) {
            file.current = read_standing(&row)?;
        }
    }
    let mut query = QueryBuilder::<Database>::new(
        "SELECT person, id, class, at, until, detail, grade, authority, received_at FROM evidence WHERE person IN (",
    );
    rows::list(&mut query, people.iter().copied());
    for row in query.push(")").build().fetch_all(connection).await? {
        if let Some(file) = files.get_mut(&row.try_get::<i64, _>("person")?) {
            file.dossier.evidence.push(read_evidence(&row)?);
        }
    }
    Ok(files)
}

/// An assignment and its row, if there is one.
fn read_standing(row: &Row) -> Result<Option<(i64, Standing)>, StoreError> {
    let Some(id) = row.try_get::<Option<i64>, _>("id")? else { return Ok(None) };
    let origin = Origin::from_word(row.try_get("source")?).ok_or_else(|| corrupt("source"))?;
    let standing = Standing {
        code: codes::read(row)?,
        origin,
        set_by: row.try_get("set_by")?,
        ends_at: optional_time(row, "ends_at")?,
        evidence: row.try_get::<Option<i64>, _>("evidence")?.map(EvidenceId),
        covers: row.try_get("covers")?,
    };
    Ok(Some((id, standing)))
}

/// A fact from a row of `id`, `class`, `at`, `until`, `detail`, `grade`, `authority` and `received_at`.
pub(super) fn read_evidence(row: &Row) -> Result<Evidence, StoreError> {
    let (at, until) = (time(row, "at")?, optional_time(row, "until")?);
    let detail = uint(row, "detail")?;
    let fact = match row.try_get("class")? {
        evidence::TEST => Fact::Test { sampled_at: at, positive: detail != 0 },
        evidence::DOSE => Fact::Dose { number: u8::try_from(detail).map_err(|_| corrupt("detail"))?, given_at: at },
        evidence::STAY => Fact::Stay {
            area: u32::try_from(detail).map_err(|_| corrupt("detail"))?,
            entered_at: at,
            left_at: until.ok_or_else(|| corrupt("until"))?,
        },
        evidence::CASE => Fact::Case { since: at, ended_at: until },
        evidence::CONTACT => Fact::Contact { last_at: at },
        _ => return Err(corrupt("class")),
    };
    let authority = row.try_get::<Option<&str>, _>("authority")?.map(str::parse).transpose();
    Ok(Evidence {
        id: EvidenceId(row.try_get("id")?),
        fact,
        risk: if matches!(fact, Fact::Stay { .. }) { Risk::from_number(uint(row, "grade")?) } else { None },
        authority: authority.map_err(|_| corrupt("authority"))?,
        received_at: time(row, "received_at")?,
    })
}

pub(super) fn optional_time(row: &Row, column: &'static str) -> Result<Option<UnixTime>, StoreError> {
    let known = row.try_get::<Option<i64>, _>(column)?.is_some();
    if known { Ok(Some(time(row, column)?)) } else { Ok(None) }
}
