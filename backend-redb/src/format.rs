//! Formats of a file: tells a store from anything else, makes new ones, migrates older ones.
//!
//! The table `windlass` says what a file holds and in which format. It is read behind a shut gate, so that a file that is
//! refused was not touched. A new file gets its name only when it is whole. A migration is one transaction: until it is
//! committed, the store is as it was.

use std::fs::{File, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use redb::{
    Builder, Database, ReadableDatabase as _, TableDefinition, TableError, WriteTransaction,
};

use crate::db::{OpenError, Opened, RedbOptions};
use crate::door::caught;
use crate::gate::Gate;

/// What the file is.
const WINDLASS: TableDefinition<'_, &str, &str> = TableDefinition::new("windlass");
/// The key of what it holds.
const HOLDS: &str = "holds";
/// The key of its format, a decimal number.
const FORMAT: &str = "format";

/// How every file of redb begins.
const MAGIC: [u8; 9] = [b'r', b'e', b'd', b'b', 0x1a, 0x0a, 0xa9, 0x0d, 0x0a];

/// One step from the format before it.
pub(crate) type Migration = fn(&WriteTransaction) -> Result<(), redb::Error>;

/// What a file holds, and how.
#[derive(Debug)]
pub(crate) struct Format {
    /// The word in the table.
    pub(crate) holds: &'static str,
    /// The steps from nothing to the newest format, whose number is their count.
    pub(crate) migrations: &'static [Migration],
}

impl Format {
    fn known(&self) -> u32 {
        u32::try_from(self.migrations.len()).unwrap_or(u32::MAX)
    }
}

/// Opens the store at `path`, making or migrating it if need be. Blocking.
pub(crate) fn open(
    path: &Path,
    options: &RedbOptions,
    format: &Format,
) -> Result<Opened, OpenError> {
    loop {
        match look(path)? {
            // Somebody else may be quicker; then it is there the next time.
            Found::Nothing => {
                if let Some(made) = make(path, options, format)? {
                    return Ok(made);
                }
            }
            Found::Database(file) => return use_database(path, file, options, format),
        }
    }
}

/// What lies at the path.
enum Found {
    Nothing,
    Database(File),
}

fn look(path: &Path) -> Result<Found, OpenError> {
    let mut file = match File::options().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(OpenError::refused(path, error)),
    };
    let mut magic = Vec::with_capacity(MAGIC.len());
    let read = (&mut file).take(MAGIC.len() as u64).read_to_end(&mut magic);
    read.map_err(|error| OpenError::refused(path, error))?;
    if magic.is_empty() {
        // A store is whole from the moment it has its name: this is somebody else's file, or damage.
        return Err(OpenError::refused(path, "it is empty"));
    }
    if magic != MAGIC {
        return Err(OpenError::refused(
            path,
            "it is not a redb database, or its beginning is damaged",
        ));
    }
    Ok(Found::Database(file))
}

/// Opens what is there.
fn use_database(
    path: &Path,
    file: File,
    options: &RedbOptions,
    format: &Format,
) -> Result<Opened, OpenError> {
    let of_database = |error| OpenError::of_database(path, error);
    tidy(path, &file).map_err(|error| OpenError::of_io(path, error))?;
    let gate = Gate::shut(file, options.max_bytes).map_err(of_database)?;
    let of_redb = |error| OpenError::of_redb(path, error);
    let opened = caught(|| Ok(builder(options).create_with_backend(gate.clone())));
    let database = opened.map_err(of_redb)?.map_err(of_database)?;
    let known = format.known();
    let found = match caught(|| stamp(&database)).map_err(of_redb)? {
        Some((holds, found)) if holds == format.holds => found,
        Some((holds, _)) => {
            let why = format!("it holds {holds}, not {}", format.holds);
            return Err(OpenError::refused(path, why));
        }
        None => {
            return Err(OpenError::refused(path, "it is a redb database, but not one of Windlass"));
        }
    };
    if found > known {
        return Err(OpenError::Newer { found, known });
    }
    gate.release().map_err(|error| OpenError::of_io(path, error))?;
    if found < known {
        caught(|| migrate(&database, found, format)).map_err(of_redb)?;
    }
    Ok(Opened { database, gate })
}

/// Makes a new store; `None` if there is one by now.
///
/// It is made under another name. Two that make it at the same time wait for nobody: the second is told so.
fn make(path: &Path, options: &RedbOptions, format: &Format) -> Result<Option<Opened>, OpenError> {
    let of_io = |error| OpenError::of_io(path, error);
    let unfinished = beside(path, ".new");
    // Commands and what they wrote are nobody else's business.
    let mut creating = File::options();
    creating.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = creating.open(&unfinished).map_err(of_io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(OpenError::of_database(path, redb::DatabaseError::DatabaseAlreadyOpen));
        }
        Err(TryLockError::Error(error)) => return Err(of_io(error)),
    }
    if !is_still(&file, &unfinished).map_err(of_io)? {
        // Who made it has just given it its name.
        return Ok(None);
    }
    // What is in it was left behind by somebody who was killed.
    file.set_len(0).map_err(of_io)?;
    let gate =
        Gate::open(file, options.max_bytes).map_err(|error| OpenError::of_database(path, error))?;
    let made = builder(options).create_with_backend(gate.clone());
    let database = made.map_err(|error| OpenError::of_database(path, error))?;
    migrate(&database, 0, format).map_err(|error| OpenError::of_redb(path, error))?;
    let named = match std::fs::hard_link(&unfinished, path) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(of_io(error)),
    };
    std::fs::remove_file(&unfinished).map_err(of_io)?;
    sync_directory(path).map_err(of_io)?;
    Ok(named.then_some(Opened { database, gate }))
}

/// Takes away the first name of a store whose maker was killed after he had given it its second.
fn tidy(path: &Path, file: &File) -> io::Result<()> {
    let unfinished = beside(path, ".new");
    if is_still(file, &unfinished)? { std::fs::remove_file(unfinished) } else { Ok(()) }
}

/// Says whether `path` names the file that is open.
fn is_still(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let open = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (open.dev(), open.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn builder(options: &RedbOptions) -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(options.cache_bytes());
    builder
}

/// Reads what a database says of itself.
fn stamp(database: &Database) -> Result<Option<(String, u32)>, redb::Error> {
    let transaction = database.begin_read()?;
    let table = match transaction.open_table(WINDLASS) {
        Ok(table) => table,
        Err(TableError::Storage(error)) => return Err(error.into()),
        // Not there, or something else of the same name.
        Err(_) => return Ok(None),
    };
    let holds = table.get(HOLDS)?.map(|holds| holds.value().to_owned());
    let format = table.get(FORMAT)?.and_then(|format| format.value().parse().ok());
    Ok(holds.zip(format).filter(|(_, format)| *format > 0))
}

/// Takes a store from format `found` to the newest, in one transaction.
fn migrate(database: &Database, found: u32, format: &Format) -> Result<(), redb::Error> {
    let transaction = begin(database)?;
    let done = usize::try_from(found).unwrap_or(usize::MAX);
    for migration in format.migrations.iter().skip(done) {
        migration(&transaction)?;
    }
    {
        let mut table = transaction.open_table(WINDLASS)?;
        table.insert(HOLDS, format.holds)?;
        table.insert(FORMAT, &*format.known().to_string())?;
    }
    transaction.commit()?;
    Ok(())
}

/// Begins a transaction whose commit is durable and after which the file can be opened at once, whatever happens.
pub(crate) fn begin(database: &Database) -> Result<WriteTransaction, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    Ok(transaction)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// Returns the path with `suffix` at its end.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use redb::{ReadableTable as _, ReadableTableMetadata as _};

    use super::*;

    const NUMBERS: TableDefinition<'_, u64, u64> = TableDefinition::new("numbers");
    const SQUARES: TableDefinition<'_, u64, u64> = TableDefinition::new("squares");

    fn make_numbers(transaction: &WriteTransaction) -> Result<(), redb::Error> {
        transaction.open_table(NUMBERS)?;
        Ok(())
    }

    fn square(transaction: &WriteTransaction) -> Result<(), redb::Error> {
        let numbers = transaction.open_table(NUMBERS)?;
        let mut squares = transaction.open_table(SQUARES)?;
        for entry in numbers.iter()? {
            let (key, number) = entry?;
            squares.insert(key.value(), number.value() * number.value())?;
        }
        Ok(())
    }

    fn empty_and_fail(transaction: &WriteTransaction) -> Result<(), redb::Error> {
        transaction.delete_table(NUMBERS)?;
        Err(redb::Error::Corrupted("on purpose".to_owned()))
    }

    static FIRST: Format = Format { holds: "numbers", migrations: &[make_numbers] };
    static NEXT: Format = Format { holds: "numbers", migrations: &[make_numbers, square] };
    static FAILING: Format =
        Format { holds: "numbers", migrations: &[make_numbers, empty_and_fail] };

    fn open_as(path: &Path, format: &Format) -> Result<Opened, OpenError> {
        open(path, &RedbOptions::default(), format)
    }

    /// Makes a store of the first format with a hundred numbers; as a kill leaves it if `hot`.
    fn older(path: &Path, hot: bool) {
        let opened = open_as(path, &FIRST).unwrap();
        let transaction = begin(&opened.database).unwrap();
        {
            let mut numbers = transaction.open_table(NUMBERS).unwrap();
            for number in 0..100 {
                numbers.insert(number, number).unwrap();
            }
        }
        transaction.commit().unwrap();
        let killed = fs::read(path).unwrap();
        drop(opened);
        if hot {
            fs::write(path, killed).unwrap();
        }
    }

    fn count(opened: &Opened, table: TableDefinition<'_, u64, u64>) -> u64 {
        let transaction = opened.database.begin_read().unwrap();
        transaction.open_table(table).unwrap().len().unwrap()
    }

    #[test]
    fn an_older_store_is_migrated_and_then_newer_for_who_made_it() {
        for hot in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("store");
            older(&path, hot);
            let opened = open_as(&path, &NEXT).unwrap();
            assert_eq!((count(&opened, NUMBERS), count(&opened, SQUARES)), (100, 100));
            drop(opened);
            let before = fs::read(&path).unwrap();
            let refused = open_as(&path, &FIRST).unwrap_err();
            assert!(matches!(refused, OpenError::Newer { found: 2, known: 1 }), "{refused}");
            assert!(fs::read(&path).unwrap() == before, "it was touched");
            assert_eq!(count(&open_as(&path, &NEXT).unwrap(), SQUARES), 100);
        }
    }

    #[test]
    fn a_migration_that_fails_leaves_the_store_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        older(&path, false);
        assert!(open_as(&path, &FAILING).is_err());
        assert_eq!(count(&open_as(&path, &FIRST).unwrap(), NUMBERS), 100);
        assert_eq!(count(&open_as(&path, &NEXT).unwrap(), SQUARES), 100);
    }
}
