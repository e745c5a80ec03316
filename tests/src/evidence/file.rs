//! A CSV file of nucleic-acid results, each about another person, none of whom ever was.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result};
use proto::{member::Member, policy::Policy, time::UnixTime};
use province_stub::seed;

/// One in so many is positive.
const POSITIVE_ONE_IN: u32 = 1_000;
/// Samples were taken within these hours.
const WITHIN: u32 = 48 * 3600;

/// Writes one result for each of the first `people` seeded people of a member.
pub fn write(path: &Path, member: Member, people: u32, policy: &Policy, now: UnixTime) -> Result<()> {
    let mut file = BufWriter::new(File::create(path).with_context(|| path.display().to_string())?);
    writeln!(file, "record_id,evidence,document_number,authority,time,result")?;
    for (person, number) in seed::people(member, people, policy).iter().zip(0_u32..) {
        let sampled_at = now.minus(Duration::from_secs(u64::from(3600 + number % WITHIN)));
        let result = if number % POSITIVE_ONE_IN == POSITIVE_ONE_IN - 1 { "positive" } else { "negative" };
        let document = person.document.number();
        writeln!(file, "n{number},test,{document},{member}/health-commission,{sampled_at},{result}")?;
    }
    Ok(file.flush()?)
}
