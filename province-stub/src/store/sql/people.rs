//! People and their devices.

use std::{collections::HashMap, time::Duration};

use proto::{
    statement::Authority,
    suite::{Suite, VerifyingKey},
    time::UnixTime,
};
use sqlx::{QueryBuilder, Row as _, query_builder::Separated};

use super::{
    Connection, Database,
    evidence::{DOSE, HIGH, MEDIUM, STAY, TEST},
    locks,
    merge::merge,
    rest::{self, Named},
    rows::{self, bytes, corrupt, secs},
};
use crate::{
    document::Document,
    evidence::{Foreign, PersonKey},
    store::{Device, DeviceId, NewDevice, NewPerson, PersonId, StoreError},
    vault::Vault,
};

/// Rows of one INSERT, well below any bound on parameters.
const ROWS: usize = 500;
/// In whose name seeded codes stand, and who brought seeded evidence.
const SEED: &str = "seed";
/// How long a seeded stay was.
const STAYED: Duration = Duration::from_secs(24 * 3600);

/// A person, found by document, whichever key of the ring they are sealed with.
pub(super) async fn by_document(
    connection: &mut Connection,
    vault: &Vault,
    document: &Document,
) -> Result<Option<PersonId>, StoreError> {
    by_hashes(connection, &rest::hashes(vault, document)).await
}

/// A person, found by the reference that the member's own platform gave them.
async fn by_reference(
    connection: &mut Connection,
    vault: &Vault,
    reference: &Foreign,
) -> Result<Option<PersonId>, StoreError> {
    let mut query = QueryBuilder::<Database>::new("SELECT id FROM person WHERE reference IN (");
    rows::list(&mut query, rest::reference_hashes(vault, reference).into_iter().map(|hash| hash.to_vec()));
    let id: Option<i64> = query.push(")").build_query_scalar().fetch_optional(connection).await?;
    Ok(id.map(PersonId))
}

/// Many people, each in the place of their key; `None` for whom the store does not have.
pub(super) async fn find_all(
    connection: &mut Connection,
    vault: &Vault,
    keys: &[PersonKey],
) -> Result<Vec<Option<i64>>, StoreError> {
    let hashes = |key: &PersonKey| match key {
        PersonKey::Document(document) => rest::hashes(vault, document),
        PersonKey::Reference(reference) => rest::reference_hashes(vault, reference),
    };
    let hashes: Vec<_> = keys.iter().map(hashes).collect();
    let mut found = HashMap::new();
    for (column, of) in [("document", true), ("reference", false)] {
        let wanted = keys.iter().zip(&hashes).filter(|(key, _)| matches!(key, PersonKey::Document(_)) == of);
        let wanted: Vec<_> = wanted.flat_map(|(_, hashes)| hashes.iter().map(|hash| hash.to_vec())).collect();
        for chunk in wanted.chunks(ROWS) {
            let mut query = QueryBuilder::<Database>::new("SELECT id, ");
            query.push(column).push(" AS hash FROM person WHERE ").push(column).push(" IN (");
            rows::list(&mut query, chunk.iter().cloned());
            for row in query.push(")").build().fetch_all(&mut *connection).await? {
                found.insert((of, bytes::<16>(&row, "hash")?), row.try_get::<i64, _>("id")?);
            }
        }
    }
    let find = |(key, hashes): (&PersonKey, &Vec<[u8; 16]>)| {
        let of = matches!(key, PersonKey::Document(_));
        hashes.iter().find_map(|hash| found.get(&(of, *hash)).copied())
    };
    Ok(keys.iter().zip(&hashes).map(find).collect())
}

/// Adds people of whom no more is known than a document, and says who they are, each in the place of their document. Whom
/// somebody else added a moment ago is locked, as whoever is there.
pub(super) async fn add_nameless(
    connection: &mut Connection,
    vault: &Vault,
    documents: &[&Document],
) -> Result<Vec<PersonId>, StoreError> {
    let key = rest::current(connection, vault).await?;
    let sealed: Vec<_> =
        documents.iter().map(|document| rest::seal(vault, &Named::by_document(document, None))).collect();
    if vault.keys().len() > 1 {
        // The table keeps a hash from coming twice, and not a person who is there by another key's.
        let hashes: Vec<_> = documents.iter().flat_map(|document| rest::hashes(vault, document)).collect();
        locks::values(connection, &hashes).await?;
    }
    let keys: Vec<_> = documents.iter().map(|document| PersonKey::Document((*document).clone())).collect();
    let there = if vault.keys().len() > 1 { find_all(connection, vault, &keys).await? } else { vec![None; keys.len()] };
    let new: Vec<_> =
        sealed.iter().zip(&there).filter_map(|(sealed, there)| there.is_none().then_some(sealed)).collect();
    let columns = "INSERT INTO person (document, particulars, key) ";
    for chunk in new.chunks(ROWS) {
        let mut query = QueryBuilder::<Database>::new(columns);
        query.push_values(chunk, |mut row, sealed| {
            row.push_bind(sealed.document.map(|hash| hash.to_vec()))
                .push_bind(sealed.particulars.clone())
                .push_bind(key);
        });
        query.push(" ON CONFLICT DO NOTHING").build().execute(&mut *connection).await?;
    }
    let found = find_all(connection, vault, &keys).await?;
    let people: Vec<_> = found.into_iter().collect::<Option<_>>().ok_or(StoreError::PersonUnknown)?;
    let mut ids = people.clone();
    ids.sort_unstable();
    lock(connection, &ids).await?;
    Ok(people.into_iter().map(PersonId).collect())
}

/// The same of whom the member's own platform has named.
pub(super) async fn add_referred(
    connection: &mut Connection,
    vault: &Vault,
    reference: &Foreign,
) -> Result<PersonId, StoreError> {
    let key = rest::current(connection, vault).await?;
    if let Some(person) = add(connection, vault, key, &Named::by_reference(reference)).await? {
        return Ok(person);
    }
    by_reference(connection, vault, reference).await?.ok_or(StoreError::PersonUnknown)
}

async fn by_hashes(connection: &mut Connection, hashes: &[[u8; 16]]) -> Result<Option<PersonId>, StoreError> {
    let mut query = QueryBuilder::<Database>::new("SELECT id FROM person WHERE document IN (");
    let mut list = query.separated(", ");
    for hash in hashes {
        list.push_bind(hash.to_vec());
    }
    query.push(")");
    let id: Option<i64> = query.build_query_scalar().fetch_optional(connection).await?;
    Ok(id.map(PersonId))
}

/// Adds a person; `None` if the document is known already. `key` is the number of the vault's current key.
async fn add(
    connection: &mut Connection,
    vault: &Vault,
    key: i64,
    named: &Named,
) -> Result<Option<PersonId>, StoreError> {
    if let (Some(reference), 2..) = (&named.reference, vault.keys().len()) {
        let reference = Foreign::new(reference).map_err(|_| corrupt("particulars"))?;
        locks::values(connection, &rest::reference_hashes(vault, &reference)).await?;
        if by_reference(connection, vault, &reference).await?.is_some() {
            return Ok(None);
        }
    }
    if let (Some((document, _)), 2..) = (&named.document, vault.keys().len()) {
        // The table keeps a hash from coming twice, and not a person who is there by another key's.
        let hashes = rest::hashes(vault, document);
        locks::values(connection, &hashes).await?;
        if by_hashes(connection, &hashes).await?.is_some() {
            return Ok(None);
        }
    }
    let sealed = rest::seal(vault, named);
    let id: Option<i64> = sqlx::query_scalar(
        "INSERT INTO person (document, reference, particulars, key) VALUES ($1, $2, $3, $4) \
         ON CONFLICT DO NOTHING RETURNING id",
    )
    .bind(sealed.document.map(|hash| hash.to_vec()))
    .bind(sealed.reference.map(|hash| hash.to_vec()))
    .bind(sealed.particulars)
    .bind(key)
    .fetch_optional(connection)
    .await?;
    Ok(id.map(PersonId))
}

/// Locks people whom a batch is about. Somebody who was forgotten since they were found makes it one to send again.
pub(super) async fn lock(connection: &mut Connection, people: &[i64]) -> Result<(), StoreError> {
    match locks::people(connection, people).await {
        Err(StoreError::PersonUnknown) => Err(StoreError::Unavailable("somebody was forgotten meanwhile".into())),
        locked => locked,
    }
}

/// What names a person who is there.
pub(super) async fn named(connection: &mut Connection, vault: &Vault, person: PersonId) -> Result<Named, StoreError> {
    let row = sqlx::query(
        "SELECT document, reference, particulars, fingerprint FROM person \
         JOIN rest_key ON rest_key.id = person.key WHERE person.id = $1",
    );
    rest::open(vault, &row.bind(person.0).fetch_one(connection).await?)
}

/// Binds a device to its person.
pub(super) async fn enroll(
    connection: &mut Connection,
    vault: &Vault,
    device: &NewDevice,
    limit: u32,
) -> Result<PersonId, StoreError> {
    let person = whose(connection, vault, device).await?;
    locks::person(connection, person).await?;
    check_key_is_new(connection, &device.enrollment_key).await?;
    let devices: i64 = sqlx::query_scalar("SELECT count(*) FROM device WHERE person = $1")
        .bind(person.0)
        .fetch_one(&mut *connection)
        .await?;
    if devices >= i64::from(limit) {
        return Err(StoreError::TooManyDevices(limit));
    }
    sqlx::query("INSERT INTO device (id, person, enrollment_key, enrolled_at) VALUES ($1, $2, $3, $4)")
        .bind(device.id.0.as_slice())
        .bind(person.0)
        .bind(device.enrollment_key.encoded())
        .bind(secs(device.now))
        .execute(connection)
        .await?;
    Ok(person)
}

/// Whose a device is to be: they are added if the store does not have them. Who was known by document alone, or by the platform's
/// reference alone, or without a name, is known by all of it from now on.
async fn whose(connection: &mut Connection, vault: &Vault, device: &NewDevice) -> Result<PersonId, StoreError> {
    let (by_document, by_reference) = both(connection, vault, device).await?;
    let person = match (by_document, by_reference) {
        (Some(person), Some(other)) if person != other => {
            merge(connection, vault, person, other, device.now).await?;
            person
        }
        (Some(person), _) | (None, Some(person)) => person,
        (None, None) => {
            let key = rest::current(connection, vault).await?;
            let mut named = Named::by_document(&device.document, Some(&device.name));
            named.reference = device.reference.as_ref().map(|reference| reference.as_str().to_owned());
            if let Some(person) = add(connection, vault, key, &named).await? {
                return Ok(person);
            }
            // Somebody else added them a moment ago.
            let (by_document, by_reference) = both(connection, vault, device).await?;
            by_document.or(by_reference).ok_or(StoreError::PersonUnknown)?
        }
    };
    locks::person(connection, person).await?;
    complete(connection, vault, person, device).await?;
    Ok(person)
}

async fn both(
    connection: &mut Connection,
    vault: &Vault,
    device: &NewDevice,
) -> Result<(Option<PersonId>, Option<PersonId>), StoreError> {
    let known = by_document(connection, vault, &device.document).await?;
    let referred = match &device.reference {
        Some(reference) => by_reference(connection, vault, reference).await?,
        None => None,
    };
    Ok((known, referred))
}

/// Adds to what names a person what the device says of them; what contradicts it is refused.
async fn complete(
    connection: &mut Connection,
    vault: &Vault,
    person: PersonId,
    device: &NewDevice,
) -> Result<(), StoreError> {
    let known = named(connection, vault, person).await?;
    let mut complete = known.clone();
    match &mut complete.document {
        Some((document, _)) if *document != device.document => return Err(StoreError::ReferenceDiffers),
        Some((_, Some(name))) if *name != device.name => return Err(StoreError::NameDiffers),
        document => *document = Some((device.document.clone(), Some(device.name.clone()))),
    }
    match (&complete.reference, &device.reference) {
        (Some(known), Some(said)) if known != said.as_str() => return Err(StoreError::ReferenceDiffers),
        (None, Some(said)) => complete.reference = Some(said.as_str().to_owned()),
        _ => {}
    }
    if complete == known {
        return Ok(());
    }
    if vault.keys().len() > 1 {
        let mut hashes = rest::hashes(vault, &device.document);
        hashes.extend(device.reference.iter().flat_map(|reference| rest::reference_hashes(vault, reference)));
        locks::values(connection, &hashes).await?;
    }
    let (key, sealed) = (rest::current(connection, vault).await?, rest::seal(vault, &complete));
    sqlx::query("UPDATE person SET document = $1, reference = $2, particulars = $3, key = $4 WHERE id = $5")
        .bind(sealed.document.map(|hash| hash.to_vec()))
        .bind(sealed.reference.map(|hash| hash.to_vec()))
        .bind(sealed.particulars)
        .bind(key)
        .bind(person.0)
        .execute(connection)
        .await?;
    Ok(())
}

/// Refuses a key that enrolled before or that a token names: it would link what random handles unlink (I6).
pub(super) async fn check_key_is_new(connection: &mut Connection, key: &VerifyingKey) -> Result<(), StoreError> {
    locks::values(connection, &[key.encoded()]).await?;
    let known: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM device WHERE enrollment_key = $1) \
             OR EXISTS (SELECT 1 FROM consent WHERE token_key = $1)",
    )
    .bind(key.encoded())
    .fetch_one(connection)
    .await?;
    if known { Err(StoreError::KeyReused) } else { Ok(()) }
}

/// An enrolled device.
pub(super) async fn device(connection: &mut Connection, id: DeviceId) -> Result<Device, StoreError> {
    let row = sqlx::query("SELECT person, enrollment_key FROM device WHERE id = $1")
        .bind(id.0.as_slice())
        .fetch_optional(connection)
        .await?
        .ok_or(StoreError::DeviceUnknown)?;
    let key = VerifyingKey::new(Suite::Esp256, row.try_get("enrollment_key")?);
    Ok(Device { person: PersonId(row.try_get("person")?), enrollment_key: key.map_err(|_| corrupt("enrollment_key"))? })
}

/// Adds people with all that is known of them; whom the store has stays untouched.
pub(super) async fn seed(
    connection: &mut Connection,
    vault: &Vault,
    people: &[NewPerson],
    now: UnixTime,
) -> Result<u32, StoreError> {
    let key = rest::current(connection, vault).await?;
    let mut added = Vec::new();
    for person in people {
        let named = Named::by_document(&person.document, Some(&person.name));
        if let Some(id) = add(connection, vault, key, &named).await? {
            added.push((id.0, person));
        }
    }
    seed_codes(connection, &added).await?;
    seed_evidence(connection, &added, now).await?;
    Ok(added.len() as u32)
}

async fn seed_codes(connection: &mut Connection, people: &[(i64, &NewPerson)]) -> Result<(), StoreError> {
    let codes: Vec<_> = people.iter().filter_map(|(id, person)| Some((*id, person.code.as_ref()?))).collect();
    let columns = "INSERT INTO code (person, label, rule, authority, assigned_at, recorded_at, source, set_by) ";
    insert(connection, columns, &codes, |row, (id, code)| {
        row.push_bind(*id).push_bind(code.label.clone()).push_bind(code.rule.clone());
        row.push_bind(code.authority.as_ref().map(Authority::to_string));
        row.push_bind(secs(code.assigned_at)).push_bind(secs(code.assigned_at)).push_bind(SEED).push_bind(SEED);
    })
    .await?;
    for codes in codes.chunks(ROWS) {
        let base = "UPDATE person SET base = (SELECT max(code.id) FROM code WHERE code.person = person.id), \
             code = (SELECT max(code.id) FROM code WHERE code.person = person.id) WHERE id IN (";
        let mut update = QueryBuilder::<Database>::new(base);
        let mut list = update.separated(", ");
        for (id, _) in codes {
            list.push_bind(*id);
        }
        update.push(")");
        update.build().execute(&mut *connection).await?;
    }
    Ok(())
}

/// One piece of seeded evidence.
struct Seeded {
    person: i64,
    record: String,
    class: i64,
    at: UnixTime,
    until: Option<UnixTime>,
    detail: i64,
    grade: i64,
}

async fn seed_evidence(
    connection: &mut Connection,
    people: &[(i64, &NewPerson)],
    now: UnixTime,
) -> Result<(), StoreError> {
    let evidence: Vec<_> = people.iter().flat_map(|(id, person)| seeded(*id, person)).collect();
    if evidence.is_empty() {
        return Ok(());
    }
    let source = source(connection, SEED).await?;
    let columns = "INSERT INTO evidence \
                   (source, record, revision, person, class, at, until, detail, grade, received_at) ";
    insert(connection, columns, &evidence, |row, item| {
        row.push_bind(source).push_bind(item.record.clone()).push_bind(0_i64).push_bind(item.person);
        row.push_bind(item.class).push_bind(secs(item.at)).push_bind(item.until.map(secs));
        row.push_bind(item.detail).push_bind(item.grade).push_bind(secs(now));
    })
    .await
}

/// The evidence of one seeded person. Their number makes a record's id unlike any other.
fn seeded(id: i64, person: &NewPerson) -> Vec<Seeded> {
    let tests = person.tests.iter().enumerate().map(|(n, test)| Seeded {
        person: id,
        record: format!("{id}-t{n}"),
        class: TEST,
        at: test.sampled_at,
        until: None,
        detail: test.positive.into(),
        grade: 0,
    });
    let doses = person.doses.iter().enumerate().map(|(n, dose)| Seeded {
        person: id,
        record: format!("{id}-d{n}"),
        class: DOSE,
        at: dose.given_at,
        until: None,
        detail: dose.number.into(),
        grade: 0,
    });
    let stays = person.visits.iter().enumerate().map(|(n, visit)| Seeded {
        person: id,
        record: format!("{id}-s{n}"),
        class: STAY,
        at: visit.left_at.minus(STAYED),
        until: Some(visit.left_at),
        detail: visit.area.into(),
        grade: if visit.high { HIGH } else { MEDIUM },
    });
    tests.chain(doses).chain(stays).collect()
}

/// The number of a source of evidence, which is added if it is new.
pub(super) async fn source(connection: &mut Connection, name: &str) -> Result<i64, StoreError> {
    let known = sqlx::query_scalar("SELECT id FROM source WHERE name = $1").bind(name);
    if let Some(id) = known.fetch_optional(&mut *connection).await? {
        return Ok(id);
    }
    // Somebody else may add it at the same time; then theirs is the one.
    sqlx::query("INSERT INTO source (name) VALUES ($1) ON CONFLICT DO NOTHING")
        .bind(name)
        .execute(&mut *connection)
        .await?;
    Ok(sqlx::query_scalar("SELECT id FROM source WHERE name = $1").bind(name).fetch_one(connection).await?)
}

/// Inserts many rows, some hundred a statement.
async fn insert<T>(
    connection: &mut Connection,
    statement: &'static str,
    rows: &[T],
    bind: impl Fn(&mut Separated<'_, Database, &'static str>, &T),
) -> Result<(), StoreError> {
    for rows in rows.chunks(ROWS) {
        QueryBuilder::<Database>::new(statement)
            .push_values(rows, |mut row, item| bind(&mut row, item))
            .build()
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}
