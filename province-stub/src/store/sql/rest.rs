//! What is sealed at rest, in the tables: which keys sealed what, people's names, and other keys in their place.
//!
//! Every sealed row names its key in `rest_key`, so that an older key goes on to open what it sealed until [`reseal`] has
//! been everywhere. Writing looks into that table each time, and refuses if another program of the same store writes by a
//! key that this one does not have: it would not find those people, and take them for new ones.

use proto::time::UnixTime;
use sqlx::{QueryBuilder, Row as _};
use thiserror::Error;
use tracing::{info, warn};
use zeroize::Zeroizing;

use super::{
    Connection, Database, Row, locks,
    rows::{Corrupt, bytes, corrupt, list, secs, time},
};
use crate::{
    document::{Document, DocumentType},
    evidence::Foreign,
    store::{Name, PersonId, StoreError},
    vault::{Fingerprint, Indexed, NotSealedHere, RestKey, Sealed, Vault},
};

/// Something is sealed with a key that is not in the ring.
#[derive(Debug, Error)]
#[error(
    "something is sealed with the key {}, which is not in keys.at_rest; list it there, behind the current one",
    peer::config::to_hex(.0)
)]
struct KeyMissing(Fingerprint);

/// More is damaged than can be passed over.
#[derive(Debug, Error)]
#[error("more than {MAX_DAMAGED} sealed rows of one table do not open: the store is to be put back from a copy")]
struct DamagedRows;

/// Rows of one table that may be passed over because they do not open: each is read every time.
const MAX_DAMAGED: usize = 1_000;

/// What names a person: one of the two at least.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Named {
    /// Their identity document, and their name if it is known: evidence has none.
    pub(super) document: Option<(Document, Option<Name>)>,
    /// What the member's own platform calls them.
    pub(super) reference: Option<String>,
}

/// What of a person stands in the tables.
pub(super) struct SealedName {
    pub(super) document: Option<[u8; 16]>,
    pub(super) reference: Option<[u8; 16]>,
    pub(super) particulars: Vec<u8>,
}

/// Refuses a store of which something was sealed with a key that the ring lacks, and forgets keys that sealed nothing.
pub(in super::super) async fn settle(connection: &mut Connection, vault: &Vault) -> Result<(), StoreError> {
    for row in sqlx::query("SELECT id, fingerprint FROM rest_key").fetch_all(&mut *connection).await? {
        let fingerprint = bytes(&row, "fingerprint")?;
        if vault.key(&fingerprint).is_some() {
            continue;
        }
        if !forget_unused(connection, row.try_get("id")?).await? {
            return Err(missing(fingerprint));
        }
    }
    current(connection, vault).await?;
    Ok(())
}

/// The number of the key that everything new is sealed with.
pub(super) async fn current(connection: &mut Connection, vault: &Vault) -> Result<i64, StoreError> {
    let mut current = None;
    for row in sqlx::query("SELECT id, fingerprint FROM rest_key").fetch_all(&mut *connection).await? {
        let fingerprint = bytes(&row, "fingerprint")?;
        if vault.key(&fingerprint).is_none() {
            return Err(missing(fingerprint));
        }
        if fingerprint == *vault.current().fingerprint() {
            current = Some(row.try_get("id")?);
        }
    }
    if let Some(current) = current {
        return Ok(current);
    }
    let added = sqlx::query_scalar("INSERT INTO rest_key (fingerprint) VALUES ($1) RETURNING id");
    Ok(added.bind(vault.current().fingerprint().as_slice()).fetch_one(connection).await?)
}

/// Forgets a key if nothing is sealed with it, and says whether it did.
async fn forget_unused(connection: &mut Connection, key: i64) -> Result<bool, StoreError> {
    const FORGET: &str = "
        DELETE FROM rest_key WHERE id = $1
        AND NOT EXISTS (SELECT 1 FROM person WHERE key = rest_key.id)
        AND NOT EXISTS (SELECT 1 FROM code WHERE key = rest_key.id)
        AND NOT EXISTS (SELECT 1 FROM operator_access WHERE key = rest_key.id)";
    Ok(sqlx::query(FORGET).bind(key).execute(connection).await?.rows_affected() > 0)
}

fn missing(fingerprint: Fingerprint) -> StoreError {
    StoreError::Unavailable(KeyMissing(fingerprint).into())
}

/// The key that sealed a row, which says so in `fingerprint`.
fn key<'v>(vault: &'v Vault, row: &Row) -> Result<&'v RestKey, StoreError> {
    let fingerprint = bytes(row, "fingerprint")?;
    vault.key(&fingerprint).ok_or_else(|| missing(fingerprint))
}

/// What a document is found by, one hash for each key of the ring.
pub(super) fn hashes(vault: &Vault, document: &Document) -> Vec<[u8; 16]> {
    let value = document_bytes(document);
    vault.keys().iter().map(|key| key.index(Indexed::Document, &value)).collect()
}

/// What a platform's reference is found by, one hash for each key of the ring.
pub(super) fn reference_hashes(vault: &Vault, reference: &Foreign) -> Vec<[u8; 16]> {
    vault.keys().iter().map(|key| key.index(Indexed::Reference, reference.as_str().as_bytes())).collect()
}

/// Opens a text that may be there, from a row of `column` and `fingerprint`.
pub(super) fn open_text(
    vault: &Vault,
    what: Sealed,
    place: &[u8],
    row: &Row,
    column: &'static str,
) -> Result<Option<String>, StoreError> {
    let Some(sealed) = row.try_get::<Option<&[u8]>, _>(column)? else { return Ok(None) };
    let plain = key(vault, row)?.open(what, place, sealed);
    let plain = plain.map_err(|error| StoreError::Unavailable(error.into()))?;
    Ok(Some(String::from_utf8(plain.to_vec()).map_err(|_| corrupt(column))?))
}

/// Seals what names a person.
pub(super) fn seal(vault: &Vault, named: &Named) -> SealedName {
    let key = vault.current();
    let document = named.document.as_ref().map(|(document, _)| key.index(Indexed::Document, &document_bytes(document)));
    let reference = named.reference.as_ref().map(|reference| key.index(Indexed::Reference, reference.as_bytes()));
    let particulars = vault.seal(Sealed::Particulars, &place(document, reference), &named.encode());
    SealedName { document, reference, particulars }
}

/// Opens what names a person, from a row of `document`, `reference`, `particulars` and `fingerprint`.
pub(super) fn open(vault: &Vault, row: &Row) -> Result<Named, StoreError> {
    let hash = |column: &'static str| -> Result<_, StoreError> {
        let hash = row.try_get::<Option<&[u8]>, _>(column)?.map(<[u8; 16]>::try_from).transpose();
        hash.map_err(|_| corrupt(column))
    };
    let place = place(hash("document")?, hash("reference")?);
    let plain = key(vault, row)?.open(Sealed::Particulars, &place, row.try_get("particulars")?);
    let plain = plain.map_err(|error| StoreError::Unavailable(error.into()))?;
    Named::decode(&plain).ok_or_else(|| corrupt("particulars"))
}

/// Which row of `person` it is: the hashes are of nobody else.
fn place(document: Option<[u8; 16]>, reference: Option<[u8; 16]>) -> [u8; 32] {
    let mut place = [0; 32];
    place[..16].copy_from_slice(&document.unwrap_or_default());
    place[16..].copy_from_slice(&reference.unwrap_or_default());
    place
}

fn document_bytes(document: &Document) -> Vec<u8> {
    [&[document.kind().number()], document.number().as_bytes()].concat()
}

/// Which row of `code` it is.
pub(super) fn code_place(person: PersonId, recorded_at: UnixTime, request_id: &str) -> Vec<u8> {
    [&person.0.to_be_bytes()[..], &secs(recorded_at).to_be_bytes(), request_id.as_bytes()].concat()
}

/// Which row of `operator_access` it is. Not whose: they may be forgotten.
pub(super) fn access_place(at: UnixTime, operator: &str, method: &str) -> Vec<u8> {
    [&secs(at).to_be_bytes()[..], operator.as_bytes(), &[0], method.as_bytes()].concat()
}

/// Seals up to `limit` rows of older keys anew, with the current one. When there is none any more, the older keys are
/// forgotten.
///
/// A row that does not open is passed over, for it would hold up all others; what is in it is left as it is. Its key stays, so that it
/// opens once it is put back.
pub(super) async fn reseal(connection: &mut Connection, vault: &Vault, limit: u32) -> Result<u64, StoreError> {
    let current = current(connection, vault).await?;
    let older: Vec<i64> =
        sqlx::query_scalar("SELECT id FROM rest_key WHERE id <> $1").bind(current).fetch_all(&mut *connection).await?;
    let (mut resealed, mut damaged) = (0, 0);
    for key in &older {
        for table in [Table::Person, Table::Code, Table::OperatorAccess] {
            let mut page = Page { older: *key, current, limit: limit - resealed, damaged: Vec::new() };
            while page.limit > 0 {
                let asked = page.limit;
                let seen = match table {
                    Table::Person => page.reseal_people(connection, vault).await?,
                    Table::Code => page.reseal_justifications(connection, vault).await?,
                    Table::OperatorAccess => page.reseal_reasons(connection, vault).await?,
                };
                if page.damaged.len() > MAX_DAMAGED {
                    return Err(StoreError::Unavailable(Box::new(DamagedRows)));
                }
                if seen < asked as usize {
                    break;
                }
            }
            resealed = limit - page.limit;
            damaged += page.damaged.len();
        }
    }
    if resealed == 0 {
        if damaged > 0 {
            warn!(
                damaged,
                "sealed rows do not open, and are left as they are: the older keys that sealed them stay in keys.at_rest"
            );
        }
        for key in older {
            if forget_unused(connection, key).await? {
                info!("nothing is sealed with an older key any more: it may leave keys.at_rest");
            }
        }
    }
    Ok(resealed.into())
}

/// What has something sealed in it.
#[derive(Clone, Copy)]
enum Table {
    Person,
    Code,
    OperatorAccess,
}

/// Some rows of one table and one older key.
struct Page {
    older: i64,
    current: i64,
    /// How many may be sealed anew still.
    limit: u32,
    /// Those that do not open, by their numbers.
    damaged: Vec<i64>,
}

impl Page {
    /// `select`, of the rows of `table` that are not known to be damaged. The conditions are no more than these: each backend finds them
    /// by its index, however many rows there are.
    async fn rows(
        &self,
        connection: &mut Connection,
        select: &'static str,
        table: &'static str,
    ) -> Result<Vec<Row>, StoreError> {
        let mut query = QueryBuilder::<Database>::new(select);
        query.push(format!(" WHERE {table}.key = ")).push_bind(self.older);
        if !self.damaged.is_empty() {
            query.push(format!(" AND {table}.id NOT IN ("));
            list(&mut query, self.damaged.iter().copied());
            query.push(")");
        }
        query.push(" LIMIT ").push_bind(i64::from(self.limit));
        Ok(query.build().fetch_all(connection).await?)
    }

    /// Notes what became of a row: what was sealed anew, if it opened.
    fn note<T>(&mut self, id: i64, anew: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
        match anew {
            Ok(anew) => {
                self.limit -= 1;
                Ok(Some(anew))
            }
            Err(error) if is_damage(&error) => {
                self.damaged.push(id);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn reseal_people(&mut self, connection: &mut Connection, vault: &Vault) -> Result<usize, StoreError> {
        let rows = self.rows(connection, "SELECT person.id FROM person", "person").await?;
        let mut people: Vec<i64> = rows.iter().map(|row| row.try_get("id")).collect::<Result<_, _>>()?;
        people.sort_unstable();
        match locks::people(connection, &people).await {
            // Whoever was forgotten meanwhile is passed over.
            Ok(()) | Err(StoreError::PersonUnknown) => {}
            Err(error) => return Err(error),
        }
        for person in &people {
            let row = sqlx::query(
                "SELECT document, reference, particulars, fingerprint FROM person \
                 JOIN rest_key ON rest_key.id = person.key WHERE person.id = $1",
            );
            let Some(row) = row.bind(person).fetch_optional(&mut *connection).await? else { continue };
            let Some(named) = self.note(*person, open(vault, &row))? else { continue };
            let sealed = seal(vault, &named);
            sqlx::query("UPDATE person SET document = $1, reference = $2, particulars = $3, key = $4 WHERE id = $5")
                .bind(sealed.document.as_ref().map(<[u8; 16]>::as_slice))
                .bind(sealed.reference.as_ref().map(<[u8; 16]>::as_slice))
                .bind(sealed.particulars)
                .bind(self.current)
                .bind(person)
                .execute(&mut *connection)
                .await?;
        }
        Ok(people.len())
    }

    async fn reseal_justifications(&mut self, connection: &mut Connection, vault: &Vault) -> Result<usize, StoreError> {
        const SEALED: &str = "
            SELECT code.id, person, recorded_at, request_id, justification AS sealed, fingerprint
            FROM code JOIN rest_key ON rest_key.id = code.key";
        let rows = self.rows(connection, SEALED, "code").await?;
        for row in &rows {
            let id = row.try_get("id")?;
            let Some(sealed) = self.note(id, justification_anew(vault, row))? else { continue };
            let update = sqlx::query("UPDATE code SET justification = $1, key = $2 WHERE id = $3");
            update.bind(sealed).bind(self.current).bind(id).execute(&mut *connection).await?;
        }
        Ok(rows.len())
    }

    async fn reseal_reasons(&mut self, connection: &mut Connection, vault: &Vault) -> Result<usize, StoreError> {
        const SEALED: &str = "
            SELECT operator_access.id, at, operator, method, reason AS sealed, fingerprint
            FROM operator_access JOIN rest_key ON rest_key.id = operator_access.key";
        let rows = self.rows(connection, SEALED, "operator_access").await?;
        for row in &rows {
            let id = row.try_get("id")?;
            let Some(sealed) = self.note(id, reason_anew(vault, row))? else { continue };
            let update = sqlx::query("UPDATE operator_access SET reason = $1, key = $2 WHERE id = $3");
            update.bind(sealed).bind(self.current).bind(id).execute(&mut *connection).await?;
        }
        Ok(rows.len())
    }
}

/// Whether an error is of the row that was read, and not of the store or of the ring.
fn is_damage(error: &StoreError) -> bool {
    let StoreError::Unavailable(cause) = error else { return false };
    let not_of_its_type = || matches!(cause.downcast_ref(), Some(sqlx::Error::ColumnDecode { .. }));
    cause.is::<NotSealedHere>() || cause.is::<Corrupt>() || not_of_its_type()
}

fn justification_anew(vault: &Vault, row: &Row) -> Result<Vec<u8>, StoreError> {
    let request_id: Option<&str> = row.try_get("request_id")?;
    let person = PersonId(row.try_get("person")?);
    let place = code_place(person, time(row, "recorded_at")?, request_id.unwrap_or_default());
    anew(vault, Sealed::Justification, &place, row)
}

fn reason_anew(vault: &Vault, row: &Row) -> Result<Vec<u8>, StoreError> {
    let place = access_place(time(row, "at")?, row.try_get("operator")?, row.try_get("method")?);
    anew(vault, Sealed::Reason, &place, row)
}

/// What a row has in `sealed`, under the current key.
fn anew(vault: &Vault, what: Sealed, place: &[u8], row: &Row) -> Result<Vec<u8>, StoreError> {
    let plain = key(vault, row)?.open(what, place, row.try_get("sealed")?);
    let plain = plain.map_err(|error| StoreError::Unavailable(error.into()))?;
    Ok(vault.seal(what, place, &plain))
}

impl Named {
    /// A person with a document.
    pub(super) fn by_document(document: &Document, name: Option<&Name>) -> Self {
        Self { document: Some((document.clone(), name.cloned())), reference: None }
    }

    /// A person whom the member's own platform alone has named so far.
    pub(super) fn by_reference(reference: &Foreign) -> Self {
        Self { document: None, reference: Some(reference.as_str().to_owned()) }
    }

    /// The document's type, and its number, the name and the reference, each with its length before it. All zero for what
    /// is not known.
    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let (kind, number, name) = match &self.document {
            Some((document, name)) => {
                (document.kind().number(), document.number(), name.as_ref().map_or("", Name::as_str))
            }
            None => (0, "", ""),
        };
        let texts = [number, name, self.reference.as_deref().unwrap_or_default()];
        let length: usize = texts.iter().map(|text| 2 + text.len()).sum();
        let mut bytes = Zeroizing::new(Vec::with_capacity(1 + length));
        bytes.push(kind);
        for text in texts {
            bytes.extend((text.len() as u16).to_be_bytes());
            bytes.extend(text.as_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, mut rest) = bytes.split_first()?;
        let mut text = || {
            let (length, after) = rest.split_first_chunk()?;
            let (text, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            rest = after;
            str::from_utf8(text).ok()
        };
        let (number, name, reference) = (text()?, text()?, text()?);
        let document = match kind {
            0 => None,
            kind => {
                let kind = DocumentType::from_number(i64::from(*kind))?;
                let name = if name.is_empty() { None } else { Some(Name::new(name)?) };
                Some((Document::new(kind, number).ok()?, name))
            }
        };
        let reference = (!reference.is_empty()).then(|| reference.to_owned());
        rest.is_empty().then_some(Self { document, reference })
    }
}
