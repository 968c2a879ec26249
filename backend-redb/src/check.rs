//! Reads everything once and reports what is damaged.

use redb::{
    Database, ReadOnlyTable, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _,
};
use windlass_core::process_store::{ChangeNumber, CheckReport, Kind, RecordKey};

use crate::door::caught;
use crate::schema::{
    CHANGES, LEASES, PLACES, RECORDS, Value, read_change, read_change_key, read_lease,
    read_record_key,
};

/// The most that a report names of a sort; what is beyond is counted.
const REPORTED: usize = 100;

type Table = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// Lines of a report, and how many more there are.
#[derive(Default)]
struct Lines {
    lines: Vec<String>,
    more: u64,
}

impl Lines {
    fn add(&mut self, line: String) {
        if self.lines.len() < REPORTED {
            self.lines.push(line);
        } else {
            self.more += 1;
        }
    }

    fn all(mut self) -> Vec<String> {
        if self.more > 0 {
            self.lines.push(format!("and {} more", self.more));
        }
        self.lines
    }
}

#[derive(Default)]
struct Checking {
    records: u64,
    /// Places that records stand at, as far as these can be read.
    places: u64,
    set_aside: Lines,
    problems: Lines,
    /// All records said where they stand.
    complete: bool,
}

/// Reads it all, in one transaction.
pub(crate) fn check(database: &Database) -> Result<CheckReport, redb::Error> {
    let transaction = database.begin_read()?;
    let places = transaction.open_table(PLACES)?;
    let mut checking = Checking { complete: true, ..Checking::default() };
    // A damaged page ends a walk, not the report.
    let records = transaction.open_table(RECORDS)?;
    if let Err(error) = caught(|| checking.records(&records, &places)) {
        checking.complete = false;
        checking.problems.add(format!("not all records could be read: {error}"));
    }
    match places.len() {
        Ok(there) if checking.complete && there != checking.places => {
            let line = format!("the lists have {there} places instead of {}", checking.places);
            checking.problems.add(line);
        }
        Ok(_) => {}
        Err(error) => checking.problems.add(format!("the lists could not be read: {error}")),
    }
    let changes = transaction.open_table(CHANGES)?;
    if let Err(error) = caught(|| checking.changes(&changes)) {
        checking.problems.add(format!("not all changes could be read: {error}"));
    }
    let leases = transaction.open_table(LEASES)?;
    if let Err(error) = caught(|| checking.leases(&leases)) {
        checking.problems.add(format!("not all leases could be read: {error}"));
    }
    Ok(CheckReport {
        records: checking.records,
        set_aside: checking.set_aside.all(),
        problems: checking.problems.all(),
    })
}

impl Checking {
    fn records(
        &mut self,
        records: &Table,
        places: &ReadOnlyTable<&'static [u8], ()>,
    ) -> Result<(), redb::Error> {
        for entry in records.iter()? {
            let (key, value) = entry?;
            let (stored_key, value) = (key.value(), value.value());
            let Some((word, id)) = read_record_key(stored_key) else {
                self.complete = false;
                self.set_aside.add("a record whose name cannot be read".to_owned());
                continue;
            };
            let Some(kind) = Kind::from_word(word) else {
                self.complete = false;
                self.set_aside.add(format!("{word} {id}: its kind is not known"));
                continue;
            };
            let key = RecordKey { kind, id };
            let value = match Value::read(stored_key, value) {
                Ok(value) => value,
                Err(reason) => {
                    self.complete = false;
                    self.set_aside.add(format!("{key}: {reason}"));
                    continue;
                }
            };
            match value.stored(key) {
                Ok(_) => self.records += 1,
                Err(reason) => self.set_aside.add(format!("{key}: {reason}")),
            }
            for place in value.places(key) {
                self.places += 1;
                if places.get(&*place)?.is_none() {
                    self.problems.add(format!("{key} is missing in a list"));
                }
            }
        }
        Ok(())
    }

    fn changes(&mut self, changes: &Table) -> Result<(), redb::Error> {
        let mut last = ChangeNumber(0);
        for entry in changes.iter()? {
            let (key, value) = entry?;
            let number = read_change_key(key.value()).unwrap_or_default();
            if number != last && number.0 != last.0 + 1 {
                self.problems.add(format!("change {} follows {}", number.0, last.0));
            }
            last = number;
            if read_change(key.value(), value.value()).is_none() {
                self.problems.add(format!("an entry of change {} is damaged", number.0));
            }
        }
        Ok(())
    }

    fn leases(&mut self, leases: &Table) -> Result<(), redb::Error> {
        for entry in leases.iter()? {
            let (node, value) = entry?;
            if read_lease(node.value(), value.value()).is_none() {
                self.problems.add("a lease is damaged".to_owned());
            }
        }
        Ok(())
    }
}
