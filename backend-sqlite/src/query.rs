//! Lists: the SQL for a query, and reading records back.
//!
//! Every text names its index, so that a plan never depends on statistics. A query walks one index in the order of the
//! list and stops at its limit; for several states the walks are merged. Only the rows of the page are read whole.

use serde::de::IgnoredAny;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Arguments as _, Row as _};
use uuid::Uuid;
use windlass_core::process_store::{
    Change, ChangeNumber, Cursor, Kind, Page, Query, Record, RecordKey, Revision, Stored,
};
use windlass_core::time::Timestamp;

/// What [`stored`] reads, in its order.
pub(crate) const COLUMNS: &str =
    "r.id, r.parent, r.owner, r.state, r.at, r.revision, r.change, r.body";

/// Reads one record.
pub(crate) const GET: &str = "SELECT r.id, r.parent, r.owner, r.state, r.at, r.revision, \
     r.change, r.body FROM records AS r INDEXED BY records_by_id WHERE r.kind = ? AND r.id = ?";

/// One record as [`page`] reads it: a line of numbers, the last five of them lengths, then what has these lengths.
///
/// A page is one value of such records, because a row for each costs more than finding them: every value of every row is
/// copied, and every row may wake the reader. Whatever the caller can do is left to it: the connection's thread is what
/// callers wait for.
const PACKED: &str = "format('%d %d %d %d %d %d %d %d', r.at, r.revision, r.change, \
     octet_length(r.id), coalesce(octet_length(r.parent), -1), coalesce(octet_length(r.owner), -1), \
     octet_length(r.state), octet_length(r.body)) || char(10) || coalesce(r.id, '') || \
     coalesce(r.parent, '') || coalesce(r.owner, '') || coalesce(r.state, '') || \
     coalesce(r.body, '') AS packed";

/// Reads a page of changes. One statement sees one state; the batch that holds the last wanted change is read to its end.
pub(crate) const CHANGES: &str = "SELECT l.last, c.number, c.kind, c.id, c.parent, c.owner, \
     c.state, c.revision \
     FROM (SELECT coalesce(max(number), 0) AS last FROM changes) AS l \
     LEFT JOIN changes AS c ON ?2 > 0 AND c.number > ?1 AND c.number <= coalesce( \
         (SELECT number FROM changes WHERE number > ?1 \
          ORDER BY number, ordinal LIMIT 1 OFFSET ?2 - 1), l.last) \
     ORDER BY c.number, c.ordinal";

/// More states than this are filtered, not merged: the text would grow without bound.
const MERGED_STATES: usize = 32;

/// Digits of an id's end that the index of tails holds.
const TAIL_DIGITS: usize = 8;

/// Makes the text and the arguments that list one record more than the page holds, as one value for [`page`].
pub(crate) fn list(query: &Query) -> Result<(String, SqliteArguments), sqlx::Error> {
    let mut states = query.states.clone();
    states.sort_unstable();
    states.dedup();
    let mut building = Building::default();
    building.push("SELECT group_concat(packed, '') FROM (SELECT ");
    building.push(PACKED);
    match walks(query, &states) {
        Walks::One(index) => building.walk(index, query, &states)?,
        Walks::Sorted(index) => {
            building.push(" FROM (SELECT n FROM (SELECT n, at, id");
            building.walk(index, query, &states)?;
            building.first_of_walked(query)?;
        }
        Walks::EachState(index) => {
            building.push(" FROM (SELECT n FROM (");
            for (n, state) in states.iter().enumerate() {
                building.push(if n == 0 { "" } else { " UNION ALL " });
                building.push("SELECT * FROM (SELECT n, at, id");
                building.walk(index, query, std::slice::from_ref(state))?;
                building.push(")");
            }
            building.first_of_walked(query)?;
        }
    }
    building.push(")");
    Ok((building.text, building.arguments))
}

/// How a list comes about.
enum Walks {
    /// A walk along this index, whose order is that of the list.
    One(&'static str),
    /// A walk along this index whose few results have to be sorted.
    Sorted(&'static str),
    /// One walk for each state, merged.
    EachState(&'static str),
}

fn walks(query: &Query, states: &[String]) -> Walks {
    match (&query.id_suffix, query.parent, &query.owner, states.len()) {
        // With a single digit the walk in order finds a page sooner than sorting a sixteenth of all records.
        (Some(suffix), ..) if suffix.len() >= 2 => Walks::Sorted("records_by_tail"),
        (_, Some(_), ..) => Walks::One("records_by_parent"),
        (_, None, Some(_), 0 | MERGED_STATES..) => Walks::One("records_by_owner"),
        (_, None, None, 0 | MERGED_STATES..) => Walks::One("records_by_time"),
        (_, None, Some(_), 1) => Walks::One("records_by_owner_state"),
        (_, None, None, 1) => Walks::One("records_by_state"),
        (_, None, Some(_), _) => Walks::EachState("records_by_owner_state"),
        (_, None, None, _) => Walks::EachState("records_by_state"),
    }
}

#[derive(Debug, Default)]
struct Building {
    text: String,
    arguments: SqliteArguments,
}

impl Building {
    fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    fn bind<'t, T>(&mut self, value: T) -> Result<(), sqlx::Error>
    where
        T: sqlx::Encode<'t, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
    {
        self.arguments.add(value).map_err(sqlx::Error::Encode)
    }

    /// Adds one walk, from `FROM` to `LIMIT`. A row whose place in the order cannot be read is left out.
    fn walk(&mut self, index: &str, query: &Query, states: &[String]) -> Result<(), sqlx::Error> {
        self.push(" FROM records AS r INDEXED BY ");
        self.push(index);
        self.push(" WHERE kind = ?");
        self.bind(query.kind.as_str())?;
        if let Some(parent) = query.parent {
            self.push(" AND parent = ?");
            self.bind(blob(parent))?;
        }
        if let Some(owner) = &query.owner {
            self.push(" AND owner = ?");
            self.bind(owner.as_str())?;
        }
        match states {
            [] => {}
            [state] => {
                self.push(" AND state = ?");
                self.bind(state.as_str())?;
            }
            states => {
                for (n, state) in states.iter().enumerate() {
                    self.push(if n == 0 { " AND state IN (?" } else { ",?" });
                    self.bind(state.as_str())?;
                }
                self.push(")");
            }
        }
        if let Some(suffix) = &query.id_suffix {
            self.suffix(suffix)?;
        }
        if let Some(Cursor { at, id }) = query.after {
            self.push(" AND (at, id) < (?, ?)");
            // A time out of range is after every record.
            self.bind(i64::try_from(at.0).unwrap_or(i64::MAX))?;
            self.bind(blob(id))?;
        }
        self.push(
            " AND typeof(at) = 'integer' AND length(id) = 16 ORDER BY at DESC, id DESC LIMIT ?",
        );
        self.bind(i64::from(query.limit) + 1)
    }

    /// Takes the first of what was walked, and only then reads whole rows.
    fn first_of_walked(&mut self, query: &Query) -> Result<(), sqlx::Error> {
        self.push(") ORDER BY at DESC, id DESC LIMIT ?");
        self.bind(i64::from(query.limit) + 1)?;
        self.push(") AS walked CROSS JOIN records AS r ON r.n = walked.n");
        Ok(())
    }

    fn suffix(&mut self, suffix: &str) -> Result<(), sqlx::Error> {
        if suffix.len() >= 2 {
            let tail: String = suffix.chars().rev().take(TAIL_DIGITS).collect();
            self.push(" AND tail >= ? AND tail < ?");
            // 'g' follows every digit.
            let end = format!("{tail}g");
            self.bind(tail)?;
            self.bind(end)?;
        }
        if suffix.len() == 1 || suffix.len() > TAIL_DIGITS {
            self.push(&format!(" AND substr(hex(id), -{}) = ?", suffix.len()));
            self.bind(suffix.to_ascii_uppercase())?;
        }
        Ok(())
    }
}

/// Reads a row of [`COLUMNS`]; an error is the reason why the record is damaged.
pub(crate) fn stored(kind: Kind, row: &SqliteRow) -> Result<Stored, String> {
    let id = optional_blob(row, 0).map_err(reason)?.ok_or("it has no id")?;
    let state: String = row.try_get(3).map_err(reason)?;
    let body: String = row.try_get(7).map_err(reason)?;
    is_readable(&state, &body)?;
    Ok(Stored {
        record: Record {
            key: RecordKey { kind, id },
            parent: optional_blob(row, 1).map_err(reason)?,
            owner: row.try_get(2).map_err(reason)?,
            state,
            at: Timestamp(positive(row, 4)?),
            body,
        },
        revision: Revision(positive(row, 5)?),
        change: ChangeNumber(positive(row, 6)?),
    })
}

/// Says what a stored record must fulfil beyond the types of its columns.
fn is_readable(state: &str, body: &str) -> Result<(), String> {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if state.is_empty() || state.len() > 32 || !state.bytes().all(word) {
        return Err(format!("the state {state:?} is not a short word"));
    }
    match serde_json::from_str::<IgnoredAny>(body) {
        Ok(IgnoredAny) => Ok(()),
        Err(error) => Err(format!("its body is not JSON text: {error}")),
    }
}

/// Reads the value that [`list`] selects. Damaged records are left out.
///
/// Returns `None` if the value itself cannot be taken apart.
pub(crate) fn page(query: &Query, mut packed: &[u8]) -> Option<Page> {
    let mut found = Vec::with_capacity(query.limit as usize + 1);
    while !packed.is_empty() {
        let (one, rest) = Packed::take(packed)?;
        found.push(one);
        packed = rest;
    }
    // The order in which an aggregate takes its rows is no promise.
    found.sort_by_key(|one| std::cmp::Reverse((one.at, one.id)));
    let limit = query.limit as usize;
    let next = match found.get(limit - 1) {
        Some(last) if found.len() > limit => {
            Some(Cursor { at: Timestamp(u64::try_from(last.at).unwrap_or(0)), id: last.id })
        }
        _ => None,
    };
    let records = found.iter().take(limit).filter_map(|one| one.stored(query.kind)).collect();
    Some(Page { records, next })
}

/// One record as it lies in the value that [`list`] selects.
#[derive(Debug)]
struct Packed<'a> {
    at: i64,
    id: Uuid,
    revision: i64,
    change: i64,
    parent: Option<&'a [u8]>,
    owner: Option<&'a [u8]>,
    state: &'a [u8],
    body: &'a [u8],
}

impl<'a> Packed<'a> {
    /// Takes the first record off; returns it with the rest.
    fn take(packed: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (line, rest) =
            packed.split_at_checked(packed.iter().position(|&byte| byte == b'\n')?)?;
        let mut rest = rest.get(1..)?;
        let mut fields = std::str::from_utf8(line).ok()?.split(' ');
        let mut integer = || fields.next()?.parse::<i64>().ok();
        let (at, revision, change) = (integer()?, integer()?, integer()?);
        let mut bytes = || {
            // NULL has no bytes, and -1 where it differs from the empty text.
            let length = integer()?;
            let (bytes, behind) = rest.split_at_checked(usize::try_from(length).unwrap_or(0))?;
            rest = behind;
            Some((length >= 0).then_some(bytes))
        };
        let id = Uuid::from_slice(bytes()??).ok()?;
        let (parent, owner) = (bytes()?, bytes()?);
        let (state, body) = (bytes()??, bytes()??);
        Some((Self { at, id, revision, change, parent, owner, state, body }, rest))
    }

    /// Returns the record, `None` if it is damaged.
    fn stored(&self, kind: Kind) -> Option<Stored> {
        let number = |integer: i64| u64::try_from(integer).ok();
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
        let (state, body) = (text(self.state)?, text(self.body)?);
        is_readable(&state, &body).ok()?;
        Some(Stored {
            record: Record {
                key: RecordKey { kind, id: self.id },
                parent: self.parent.map(Uuid::from_slice).transpose().ok()?,
                owner: match self.owner {
                    Some(owner) => Some(text(owner)?),
                    None => None,
                },
                state,
                at: Timestamp(number(self.at)?),
                body,
            },
            revision: Revision(number(self.revision)?),
            change: ChangeNumber(number(self.change)?),
        })
    }
}

/// Reads a row of [`CHANGES`]; `None` for the one that only holds the last number, and for a damaged one.
pub(crate) fn change(row: &SqliteRow) -> Option<Change> {
    let kind = Kind::from_word(row.try_get(2).ok()?)?;
    let id = optional_blob(row, 3).ok()??;
    Some(Change {
        number: ChangeNumber(positive(row, 1).ok()?),
        key: RecordKey { kind, id },
        parent: optional_blob(row, 4).ok()?,
        owner: row.try_get(5).ok()?,
        state: row.try_get(6).ok()?,
        revision: Revision(positive(row, 7).ok()?),
    })
}

/// Reads a row of all records; an error names it as far as it can be read, and says why.
pub(crate) fn readable(row: &SqliteRow) -> Result<(), String> {
    let word: Result<&str, _> = row.try_get(8);
    let id = optional_blob(row, 0).ok().flatten().map(|id| id.to_string());
    let n: i64 = row.try_get(9).unwrap_or_default();
    let name = |kind: &str| match &id {
        Some(id) => format!("{kind} {id}"),
        None => format!("{kind} in row {n}"),
    };
    let Ok(word) = word else {
        return Err(format!("{}: its kind is no text", name("record")));
    };
    let Some(kind) = Kind::from_word(word) else {
        return Err(format!("{}: there is no kind {word:?}", name("record")));
    };
    stored(kind, row).map(|_| ()).map_err(|reason| format!("{}: {reason}", name(word)))
}

/// Reads an id; `None` where the column is NULL.
pub(crate) fn optional_blob(row: &SqliteRow, index: usize) -> Result<Option<Uuid>, sqlx::Error> {
    let bytes: Option<&[u8]> = row.try_get(index)?;
    let decode = |source: uuid::Error| sqlx::Error::ColumnDecode {
        index: index.to_string(),
        source: source.into(),
    };
    bytes.map(|bytes| Uuid::from_slice(bytes).map_err(decode)).transpose()
}

/// Returns the id as it is stored.
pub(crate) fn blob(id: Uuid) -> Vec<u8> {
    id.as_bytes().to_vec()
}

fn positive(row: &SqliteRow, index: usize) -> Result<u64, String> {
    let integer: i64 = row.try_get(index).map_err(reason)?;
    u64::try_from(integer).map_err(|_| format!("{integer} is below zero"))
}

#[expect(clippy::needless_pass_by_value, reason = "it is given to map_err")]
fn reason(error: sqlx::Error) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use sqlx::sqlite::SqliteConnection;
    use sqlx::{ConnectOptions as _, Row as _};

    use super::*;
    use crate::{SqliteOptions, SqliteStore};

    /// Returns the lines of the plan of a text.
    async fn plan(
        connection: &mut SqliteConnection,
        text: &str,
        arguments: SqliteArguments,
    ) -> Vec<String> {
        let text = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {text}"));
        let rows = sqlx::query_with(text, arguments).fetch_all(connection).await.unwrap();
        rows.iter().map(|row| row.get("detail")).collect()
    }

    async fn connection(directory: &tempfile::TempDir) -> SqliteConnection {
        let path = directory.path().join("windlass.db");
        let store = SqliteStore::open(&path, SqliteOptions::default()).await.unwrap();
        store.close().await;
        sqlx::sqlite::SqliteConnectOptions::new().filename(path).connect().await.unwrap()
    }

    /// Queries, the index that each walks and from where, and how often it may sort.
    fn table(many: &[String]) -> Vec<(Query, &'static str, usize)> {
        let all = Query::newest(Kind::Execution, 50);
        let (states, one) = (many.to_vec(), vec!["running".to_owned()]);
        let (owner, parent) = (Some("somebody".to_owned()), Some(Uuid::nil()));
        let owned = Query { owner, ..all.clone() };
        let below = Query { parent, ..all.clone() };
        let of_one = |query: &Query| Query { states: one.clone(), ..query.clone() };
        let of_many = |query: &Query| Query { states: states.clone(), ..query.clone() };
        let ends = |end: &str| Query { id_suffix: Some(end.to_owned()), ..of_one(&owned) };
        vec![
            (all.clone(), "records_by_time (kind=?", 0),
            (of_one(&all), "records_by_state (kind=? AND state=?", 0),
            (of_many(&all), "records_by_state (kind=? AND state=?", 1),
            (below.clone(), "records_by_parent (kind=? AND parent=?", 0),
            (of_many(&below), "records_by_parent (kind=? AND parent=?", 0),
            (owned.clone(), "records_by_owner (kind=? AND owner=?", 0),
            (of_one(&owned), "records_by_owner_state (kind=? AND owner=? AND state=?", 0),
            (of_many(&owned), "records_by_owner_state (kind=? AND owner=? AND state=?", 1),
            (ends("abcd"), "records_by_tail (kind=? AND tail>? AND tail<?", 2),
            (ends("0123456789"), "records_by_tail (kind=? AND tail>? AND tail<?", 2),
            (ends("a"), "records_by_owner_state (kind=? AND owner=? AND state=?", 0),
        ]
    }

    /// Each list walks the index that it should, from where it should, and sorts only what it may.
    #[tokio::test]
    async fn lists_cost_what_they_return() {
        let directory = tempfile::tempdir().unwrap();
        let mut connection = connection(&directory).await;
        let many = ["running", "queued", "final"].map(str::to_owned);
        let after = Some(Cursor { at: Timestamp(1), id: Uuid::nil() });
        for (query, index, sorts) in table(&many) {
            for query in [query.clone(), Query { after, ..query }] {
                let (text, arguments) = list(&query).unwrap();
                let plan = plan(&mut connection, &text, arguments).await;
                let searches: Vec<_> = plan.iter().filter(|line| line.contains("INDEX")).collect();
                let walks = if sorts == 1 { many.len() } else { 1 };
                assert_eq!(searches.len(), walks, "{plan:#?}");
                for line in searches {
                    assert!(line.starts_with("SEARCH r USING"), "{plan:#?}");
                    assert!(line.contains(index), "{plan:#?}");
                    let from_cursor = line.contains("(at,id)<(?,?)");
                    assert!(from_cursor || query.after.is_none() || sorts == 2, "{plan:#?}");
                }
                let sorted = plan.iter().filter(|line| line.contains("TEMP B-TREE")).count();
                assert!(sorted <= sorts, "{plan:#?}");
                assert!(!plan.iter().any(|line| line.starts_with("SCAN r")), "{plan:#?}");
            }
        }
    }

    /// A record is found by its name, and changes from their number on.
    #[tokio::test]
    async fn reads_by_key_search() {
        let directory = tempfile::tempdir().unwrap();
        let mut connection = connection(&directory).await;
        let get = plan(&mut connection, GET, SqliteArguments::default()).await;
        assert_eq!(get, ["SEARCH r USING INDEX records_by_id (kind=? AND id=?)"]);
        let changes = plan(&mut connection, CHANGES, SqliteArguments::default()).await;
        for line in changes.iter().filter(|line| line.contains("SCAN")) {
            assert!(line.contains("SCAN l"), "{changes:#?}");
        }
    }

    /// Text that is not what [`list`] selects is refused, not misread.
    #[test]
    fn a_page_that_cannot_be_taken_apart_is_none() {
        let query = Query::newest(Kind::Execution, 5);
        let line = b"7 1 1 16 -1 -1 6 2\n0123456789abcdefqueued{}";
        assert_eq!(page(&query, line).unwrap().records.len(), 1);
        for cut in 1..line.len() {
            assert_eq!(page(&query, &line[..cut]), None, "cut at {cut}");
        }
        assert_eq!(page(&query, b""), Some(Page { records: Vec::new(), next: None }));
    }
}
