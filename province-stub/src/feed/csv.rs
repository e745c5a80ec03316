//! Evidence as a CSV file (RFC 4180, UTF-8), one record a row, with a header. The columns are those of [`COLUMNS`], in any order; those that
//! a file does not need may be left out, and so may any value that does not apply. No value has more than [`MAX_VALUE_BYTES`]: all that a
//! quote swallows which nobody closed is one row that is refused, and no more is kept of it.
//!
//! | column | what it is |
//! | --- | --- |
//! | `record_id` | the source's own id of the record: required |
//! | `revision` | 0 unless it is said; more with every correction |
//! | `evidence` | `test`, `vaccination`, `stay`, `case`, `contact`, `risk-area` or `withdrawal`: required |
//! | `document_type`, `document_number` | whom it is about: 10 (resident ID) unless it is said |
//! | `person_reference` | or the platform's reference of them |
//! | `authority` | in whose name, e.g. `44/cdc` |
//! | `time` | sample, dose, arrival, diagnosis, contact, start of a listing: RFC 3339 with its offset |
//! | `end_time` | departure, end of a case, end of a listing |
//! | `result` | of a test: `positive` or `negative` |
//! | `dose` | of a vaccination: 1 to 9 |
//! | `area` | of a stay or a listing: six digits of GB/T 2260 |
//! | `risk` | of a listing: `low`, `medium` or `high` |

use std::io::Read;

use csv::{ByteRecord, Reader, ReaderBuilder, StringRecord, Trim};
use proto::{
    contract::{
        evidence::{
            Case, Contact, EvidenceRecord, Person, Risk, RiskArea, Stay, Test, Vaccination, Withdrawal,
            evidence_record::Content, person::Person as Whom,
        },
        types,
    },
    refusal::{Reason, Refusal},
    time::UnixTime,
};
use thiserror::Error;

/// All columns there are.
pub const COLUMNS: [&str; 13] = [
    "record_id",
    "revision",
    "evidence",
    "document_type",
    "document_number",
    "person_reference",
    "authority",
    "time",
    "end_time",
    "result",
    "dose",
    "area",
    "risk",
];

/// The longest a value may be, in bytes: more than any that a node takes.
pub const MAX_VALUE_BYTES: usize = 256;

/// The document type of a row that does not say: a resident ID.
const RESIDENT_ID: i32 = 10;

/// A file that cannot be read as one of evidence.
#[derive(Debug, Error)]
pub enum FileError {
    /// A column that nobody knows, counted from 1. Its name is not told: a file without a header has a person's number there.
    #[error("the name of column {0} is not one of {list}; the first row is the header", list = COLUMNS.join(", "))]
    Column(usize),
    /// A column that must be there is not, or one is there twice.
    #[error("column {0} is missing, or there twice")]
    Missing(&'static str),
    /// It does not read.
    #[error(transparent)]
    Csv(#[from] csv::Error),
}

/// Rows of a file.
#[derive(Debug)]
pub struct Rows<R> {
    reader: Reader<R>,
    /// Where each column stands.
    columns: Vec<Option<usize>>,
}

/// One row: its line, what it says as it stands, and as a record, or why it is none.
pub struct Row {
    /// The line it begins on, from 1.
    pub line: u64,
    /// Its values in the file's own order, each cut to [`MAX_VALUE_BYTES`].
    pub values: Vec<String>,
    /// What it says.
    pub record: Result<EvidenceRecord, Refusal>,
}

// A row speaks of a person.
redacted!(Row);

impl<R: Read> Rows<R> {
    /// Opens a file and reads its header.
    pub fn open(input: R) -> Result<Self, FileError> {
        let mut reader = ReaderBuilder::new().trim(Trim::All).flexible(true).from_reader(input);
        // Excel begins a UTF-8 file with a mark.
        let header: Vec<String> =
            reader.headers()?.iter().map(|name| name.trim_start_matches('\u{feff}').to_owned()).collect();
        if let Some(unknown) = header.iter().position(|name| !COLUMNS.contains(&name.as_str())) {
            return Err(FileError::Column(unknown + 1));
        }
        let place = |column: &&str| header.iter().position(|name| name == column);
        if let Some(twice) = COLUMNS.iter().find(|column| header.iter().filter(|name| name == *column).count() > 1) {
            return Err(FileError::Missing(twice));
        }
        if let Some(missing) = ["record_id", "evidence"].iter().find(|column| place(column).is_none()) {
            return Err(FileError::Missing(missing));
        }
        Ok(Self { columns: COLUMNS.iter().map(place).collect(), reader })
    }

    /// The header as it stands.
    pub fn header(&mut self) -> Result<Vec<String>, FileError> {
        Ok(self.reader.headers()?.iter().map(str::to_owned).collect())
    }

    /// How far the file is read, in bytes.
    pub fn position(&self) -> u64 {
        self.reader.position().byte()
    }

    /// The next row; `None` after the last one.
    pub fn next_row(&mut self) -> Result<Option<Row>, FileError> {
        let mut bytes = ByteRecord::new();
        if !self.reader.read_byte_record(&mut bytes)? {
            return Ok(None);
        }
        let line = bytes.position().map_or(0, csv::Position::line);
        let text: Vec<String> = bytes.iter().map(cut).collect();
        if let Some(long) = bytes.iter().position(|value| value.len() > MAX_VALUE_BYTES) {
            let column = self.columns.iter().position(|place| *place == Some(long)).map_or("row", |n| COLUMNS[n]);
            let most = format!("at most {MAX_VALUE_BYTES} bytes; a quote may be open");
            return Ok(Some(Row { line, values: text, record: Err(Refusal::field(column, most)) }));
        }
        let record = match StringRecord::from_byte_record(bytes) {
            Ok(values) if values.len() == self.reader.headers()?.len() => self.read(&values),
            Ok(_) => {
                Err(Refusal::new(Reason::RequestMalformed).violating("row", "as many values as the header has columns"))
            }
            Err(_) => Err(Refusal::new(Reason::RequestMalformed).violating("row", "UTF-8")),
        };
        Ok(Some(Row { line, values: text, record }))
    }

    fn read(&self, values: &StringRecord) -> Result<EvidenceRecord, Refusal> {
        let get = |column: &str| {
            let place = COLUMNS.iter().position(|name| *name == column).and_then(|column| self.columns[column]);
            place.and_then(|place| values.get(place)).unwrap_or_default()
        };
        let kind = get("evidence");
        let withdrawn = kind == "withdrawal";
        let time = || parse_time("time", get("time"));
        let end_time = || parse_time("end_time", get("end_time"));
        let content = match kind {
            "test" => Content::Test(Test { sample_time: time()?, positive: parse_result(get("result"))? }),
            "vaccination" => {
                Content::Vaccination(Vaccination { dose: number("dose", get("dose"))?, give_time: time()? })
            }
            "stay" => {
                Content::Stay(Stay { area: number("area", get("area"))?, enter_time: time()?, leave_time: end_time()? })
            }
            "case" => Content::Case(Case { start_time: time()?, end_time: end_time()? }),
            "contact" => Content::Contact(Contact { contact_time: time()? }),
            "risk-area" => Content::RiskArea(RiskArea {
                area: number("area", get("area"))?,
                risk: parse_risk(get("risk"))?.into(),
                start_time: time()?,
                end_time: end_time()?,
            }),
            "withdrawal" => Content::Withdrawal(Withdrawal {}),
            "" => return Err(Refusal::missing("evidence")),
            _ => {
                let known = "test, vaccination, stay, case, contact, risk-area or withdrawal";
                return Err(Refusal::field("evidence", known));
            }
        };
        let nobody = withdrawn || kind == "risk-area";
        Ok(EvidenceRecord {
            record_id: get("record_id").to_owned(),
            revision: if get("revision").is_empty() { 0 } else { number("revision", get("revision"))? },
            person: if nobody {
                None
            } else {
                person(get("document_type"), get("document_number"), get("person_reference"))?
            },
            authority: if withdrawn { String::new() } else { get("authority").to_owned() },
            content: Some(content),
        })
    }
}

/// What is kept of a value: as much as one may have.
fn cut(value: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(&value[..value.len().min(MAX_VALUE_BYTES)]).into_owned();
    text.truncate(text.floor_char_boundary(MAX_VALUE_BYTES));
    text
}

/// Whom a row is about. What is wrong with a number is told by the node, as of every other source.
fn person(kind: &str, number_: &str, reference: &str) -> Result<Option<Person>, Refusal> {
    let whom = match (number_.is_empty(), reference.is_empty()) {
        (true, true) => return Ok(None),
        (true, false) => Whom::Reference(reference.to_owned()),
        (false, true) => {
            let kind = if kind.is_empty() { RESIDENT_ID } else { number("document_type", kind)? };
            Whom::Document(types::Document { r#type: kind, number: number_.to_owned() })
        }
        (false, false) => return Err(Refusal::field("person_reference", "not beside a document")),
    };
    Ok(Some(Person { person: Some(whom) }))
}

/// A time; a row without one is the node's to refuse.
fn parse_time(column: &'static str, text: &str) -> Result<Option<prost_types::Timestamp>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    let time: UnixTime = text.parse().map_err(|error| Refusal::field(column, error))?;
    Ok(Some(time.to_protobuf()))
}

fn parse_result(text: &str) -> Result<bool, Refusal> {
    match text {
        "positive" => Ok(true),
        "negative" => Ok(false),
        _ => Err(Refusal::field("result", "positive or negative")),
    }
}

fn parse_risk(text: &str) -> Result<Risk, Refusal> {
    match text {
        "low" => Ok(Risk::Low),
        "medium" => Ok(Risk::Medium),
        "high" => Ok(Risk::High),
        _ => Err(Refusal::field("risk", "low, medium or high")),
    }
}

fn number<N: std::str::FromStr>(column: &'static str, text: &str) -> Result<N, Refusal> {
    text.parse().map_err(|_| Refusal::field(column, "a whole number"))
}

#[cfg(test)]
mod tests {
    use proto::policy::{NATIONAL, Policy};

    use super::*;
    use crate::seed;

    fn rows(text: &str) -> Vec<Row> {
        let mut rows = Rows::open(text.as_bytes()).unwrap();
        std::iter::from_fn(|| rows.next_row().unwrap()).collect()
    }

    #[test]
    fn every_kind_of_evidence_has_its_row() {
        let text = "record_id,evidence,document_number,authority,time,end_time,result,dose,area,risk\n\
            t1,test,11010519491231002X,44/cdc,2022-04-28T08:00:00+08:00,,negative,,,\n\
            v1,vaccination,11010519491231002X,44/cdc,2021-04-28T08:00:00Z,,,2,,\n\
            s1,stay,11010519491231002X,44/cdc,2022-04-20T08:00:00Z,2022-04-21T08:00:00Z,,,310115,\n\
            c1,case,11010519491231002X,44/cdc,2022-04-20T08:00:00Z,,,,,\n\
            k1,contact,11010519491231002X,44/cdc,2022-04-20T08:00:00Z,,,,,\n\
            r1,risk-area,,44/cdc,2022-04-20T08:00:00Z,,,,310115,high\n\
            t0,withdrawal,,,,,,,,\n";
        let rows = rows(text);
        let content = |n: usize| rows[n].record.clone().unwrap().content.unwrap();
        let time = Some("2022-04-28T00:00:00Z".parse::<UnixTime>().unwrap().to_protobuf());
        assert_eq!(content(0), Content::Test(Test { sample_time: time, positive: false }));
        assert!(matches!(content(1), Content::Vaccination(Vaccination { dose: 2, .. })));
        assert!(matches!(content(2), Content::Stay(Stay { area: 310_115, leave_time: Some(_), .. })));
        assert!(matches!(content(3), Content::Case(Case { end_time: None, .. })));
        assert!(matches!(content(4), Content::Contact(_)));
        assert!(matches!(content(5), Content::RiskArea(RiskArea { area: 310_115, .. })));
        assert_eq!(content(6), Content::Withdrawal(Withdrawal {}));
        assert_eq!((rows[0].line, rows[6].line, rows.len()), (2, 8, 7));
        assert!(rows[5].record.clone().unwrap().person.is_none());
    }

    #[test]
    fn people_are_named_in_one_way() {
        let text = "record_id,evidence,document_type,document_number,person_reference,time,result\n\
            1,test,20,E12345678,,2022-04-28T08:00:00Z,positive\n\
            2,test,,,p-7,2022-04-28T08:00:00Z,positive\n\
            3,test,,E12345678,p-7,2022-04-28T08:00:00Z,positive\n\
            4,test,,,,2022-04-28T08:00:00Z,positive\n";
        let rows = rows(text);
        let whom = |n: usize| rows[n].record.clone().unwrap().person.map(|person| person.person.unwrap());
        let document = types::Document { r#type: 20, number: "E12345678".into() };
        assert_eq!(whom(0), Some(Whom::Document(document)));
        assert_eq!(whom(1), Some(Whom::Reference("p-7".into())));
        assert_eq!(rows[2].record.clone().unwrap_err().violation().unwrap().0, "person_reference");
        assert_eq!(whom(3), None);
    }

    #[test]
    fn a_wrong_row_says_which_column_and_holds_up_no_other() {
        let text = "record_id,evidence,revision,time,result,dose,area,risk\n\
            1,tests,,,,,,\n\
            2,,,,,,,\n\
            3,test,,2022-04-28,negative,,,\n\
            4,test,,2022-04-28T08:00:00Z,none,,,\n\
            5,vaccination,,2022-04-28T08:00:00Z,,two,,\n\
            6,stay,,2022-04-28T08:00:00Z,,,上海,\n\
            7,risk-area,,2022-04-28T08:00:00Z,,,310115,extreme\n\
            8,test,one,2022-04-28T08:00:00Z,negative,,,\n\
            9,test,,2022-04-28T08:00:00Z\n\
            10,withdrawal,1,,,,,\n";
        let columns: Vec<_> = rows(text)
            .iter()
            .map(|row| row.record.as_ref().err().map_or("", |refusal| refusal.violation().unwrap().0))
            .collect();
        assert_eq!(columns, ["evidence", "evidence", "time", "result", "dose", "area", "risk", "revision", "row", ""]);
        let mut latin = b"record_id,evidence\n1,test\n".to_vec();
        latin.extend(b"\xe9,test\n");
        let mut rows = Rows::open(latin.as_slice()).unwrap();
        assert_eq!(rows.next_row().unwrap().unwrap().record.unwrap_err().violation().unwrap().0, "result");
        assert_eq!(rows.next_row().unwrap().unwrap().record.unwrap_err().violation().unwrap().0, "row");
    }

    /// The README imports it: two of its rows are wrong, and nobody in it is real.
    #[test]
    fn the_sample_is_about_seeded_people() {
        let text = include_str!("../../../deploy/evidence-sample.csv").replace("DAY", "2022-04-28");
        let policy = Policy::from_toml(NATIONAL).unwrap();
        let seeded = seed::people("51".parse().unwrap(), 200, &policy);
        let is_seeded = |number: &str| seeded.iter().any(|person| person.document.number() == number);
        let whom = |row: &Row| match row.record.clone().unwrap().person.map(|person| person.person.unwrap()) {
            Some(Whom::Document(document)) => Some(is_seeded(&document.number)),
            _ => None,
        };
        let known: Vec<_> = rows(&text).iter().map(whom).collect();
        assert_eq!(known, [None, Some(true), Some(true), Some(true), Some(true), Some(false)]);
    }

    #[test]
    fn a_quote_that_nobody_closes_is_one_row_that_is_refused() {
        let header = "record_id,evidence,document_number,time,result\n";
        let row = "1,test,E12345678,2022-04-28T08:00:00Z,negative\n";
        let text = format!("{header}{row}2,test,\"{}\",,\n{row}3,test,\"{}", "检".repeat(100_000), row.repeat(6_000));
        let rows = rows(&text);
        assert_eq!(rows.iter().map(|row| row.record.is_ok()).collect::<Vec<_>>(), [true, false, true, false]);
        for (row, line) in [(&rows[1], 3), (&rows[3], 5)] {
            let refusal = row.record.as_ref().unwrap_err();
            assert_eq!((refusal.reason(), refusal.violation().unwrap().0), (Reason::FieldInvalid, "document_number"));
            assert_eq!(row.line, line);
            let (longest, most) = (row.values.iter().map(String::len).max().unwrap(), MAX_VALUE_BYTES);
            assert!((most - 2..=most).contains(&longest), "{longest}");
        }
        // Bytes that are no UTF-8 become longer when they are shown; a value in a column that there is not is of the row.
        let mut latin = b"record_id,evidence\n1,".to_vec();
        latin.extend([0xe9; MAX_VALUE_BYTES]);
        latin.extend(b"\n1,test,");
        latin.extend([b'a'; MAX_VALUE_BYTES + 1]);
        let mut rows = Rows::open(latin.as_slice()).unwrap();
        let row = rows.next_row().unwrap().unwrap();
        assert_eq!(row.record.unwrap_err().reason(), Reason::RequestMalformed);
        assert!(row.values[1].len() <= MAX_VALUE_BYTES);
        let beyond = rows.next_row().unwrap().unwrap().record.unwrap_err();
        assert_eq!((beyond.reason(), beyond.violation().unwrap().0), (Reason::FieldInvalid, "row"));
    }

    #[test]
    fn debug_shows_nobody() {
        let rows = rows("record_id,evidence,document_number\n1,tests,11010519491231002X\n");
        assert_eq!(format!("{:?}", rows[0]), "Row(…)");
    }

    #[test]
    fn a_header_that_is_not_ours_is_told_at_once() {
        let error = |text: &str| Rows::open(text.as_bytes()).unwrap_err().to_string();
        assert!(error("record_id,evidence,name\n").contains("the name of column 3 is not one of record_id"));
        // A file without a header.
        let shown = format!("{:?}", Rows::open("11010519491231002X,test\n".as_bytes()).unwrap_err());
        assert_eq!((shown.as_str(), error("11010519491231002X,test\n").contains("110105")), ("Column(1)", false));
        assert_eq!(error("record_id,time\n"), "column evidence is missing, or there twice");
        assert_eq!(error("record_id,evidence,time,time\n"), "column time is missing, or there twice");
        assert!(Rows::open("\u{feff}record_id,evidence\n".as_bytes()).is_ok());
    }
}
