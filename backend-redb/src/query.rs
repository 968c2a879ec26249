//! Lists and changes: which order a query walks, and how several are merged.
//!
//! A list walks one order from its cursor and stops at its limit; for several states the walks are merged. What is found
//! is checked against the record itself, so that a place that is out of date, or a record that is damaged, is left out.

use std::iter::Peekable;

use redb::{Database, Range, ReadOnlyTable, ReadableDatabase as _};
use uuid::Uuid;
use windlass_core::process_store::{
    ChangeNumber, ChangePage, Cursor, Page, Query, RecordKey, Stored,
};
use windlass_core::time::Timestamp;

use crate::records::last_change;
use crate::schema::{
    CHANGES, Order, PLACES, RECORDS, TAIL_DIGITS, Value, change_key, push_end, read_change,
    read_change_key, read_end, record_key,
};

/// More states than this are filtered, not merged.
const MERGED_STATES: usize = 32;
/// More than the end of any place.
const LAST: [u8; 64] = [0xff; 64];

/// Where a record stands: lists go down from here.
type Place = (Timestamp, Uuid);

/// Reads one page.
pub(crate) fn list(database: &Database, query: &Query) -> Result<Page, redb::Error> {
    let transaction = database.begin_read()?;
    let places = transaction.open_table(PLACES)?;
    let mut picking =
        Picking { query, records: transaction.open_table(RECORDS)?, picked: Vec::new() };
    match orders(query) {
        Orders::Walked(orders) => {
            let mut walks = Vec::with_capacity(orders.len());
            for order in orders {
                walks.push(walk(&places, query, &order)?.peekable());
            }
            while let Some(place) = next_of(&mut walks)? {
                if picking.pick(place)? {
                    break;
                }
            }
        }
        Orders::Sorted(order) => {
            let mut found = walk(&places, query, &order)?.collect::<Result<Vec<Place>, _>>()?;
            found.sort_unstable_by(|one, other| other.cmp(one));
            for place in found {
                if is_after(query, place) && picking.pick(place)? {
                    break;
                }
            }
        }
    }
    Ok(picking.page())
}

/// How a list comes about.
enum Orders<'q> {
    /// Walks along these orders, merged.
    Walked(Vec<Order<'q>>),
    /// A walk along this order, whose few results have to be sorted.
    Sorted(Order<'q>),
}

fn orders(query: &Query) -> Orders<'_> {
    let mut states: Vec<&str> = query.states.iter().map(String::as_str).collect();
    states.sort_unstable();
    states.dedup();
    let merged = (1..=MERGED_STATES).contains(&states.len());
    let walked = match (&query.id_suffix, query.parent, &query.owner) {
        // With a single digit the walk in order finds a page sooner than sorting a sixteenth of all records.
        (Some(suffix), ..) if suffix.len() >= 2 => {
            let digits = &suffix[suffix.len().saturating_sub(TAIL_DIGITS)..];
            return Orders::Sorted(Order::Tail(digits));
        }
        (_, Some(parent), _) => vec![Order::Parent(parent)],
        (_, None, Some(owner)) if merged => {
            states.into_iter().map(|state| Order::OwnerState(owner, state)).collect()
        }
        (_, None, Some(owner)) => vec![Order::Owner(owner)],
        (_, None, None) if merged => states.into_iter().map(Order::State).collect(),
        (_, None, None) => vec![Order::Time],
    };
    Orders::Walked(walked)
}

/// Walks along one order, newest first, from the query's cursor on.
fn walk<'t>(
    places: &'t ReadOnlyTable<&'static [u8], ()>,
    query: &Query,
    order: &Order<'_>,
) -> Result<Walk<'t>, redb::Error> {
    let first = order.prefix(query.kind);
    let mut last = first.clone();
    match (order, query.after) {
        // Its places go on with digits; the cursor counts once they are sorted.
        (Order::Tail(_), _) | (_, None) => last.extend(LAST),
        (_, Some(Cursor { at, id })) => push_end(&mut last, at, id),
    }
    Ok(Walk(places.range(&*first..&*last)?))
}

struct Walk<'t>(Range<'t, &'static [u8], ()>);

impl Iterator for Walk<'_> {
    type Item = Result<Place, redb::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.0.next_back()? {
                Err(error) => return Some(Err(error.into())),
                Ok((key, _)) => {
                    if let Some(place) = read_end(key.value()) {
                        return Some(Ok(place));
                    }
                }
            }
        }
    }
}

/// Takes the newest of what the walks are at.
fn next_of(walks: &mut [Peekable<Walk<'_>>]) -> Result<Option<Place>, redb::Error> {
    let mut newest: Option<(usize, Place)> = None;
    for (index, walk) in walks.iter_mut().enumerate() {
        match walk.peek() {
            Some(Ok(place)) if newest.is_none_or(|(_, newest)| *place > newest) => {
                newest = Some((index, *place));
            }
            Some(Err(_)) => return walk.next().transpose(),
            Some(Ok(_)) | None => {}
        }
    }
    let Some((index, _)) = newest else { return Ok(None) };
    walks.get_mut(index).and_then(Iterator::next).transpose()
}

fn is_after(query: &Query, place: Place) -> bool {
    query.after.is_none_or(|after| place < (after.at, after.id))
}

/// A page that is being filled.
struct Picking<'q> {
    query: &'q Query,
    records: ReadOnlyTable<&'static [u8], &'static [u8]>,
    picked: Vec<Stored>,
}

impl Picking<'_> {
    /// Adds the record at a place if the query selects it; says whether there is one more than the page holds.
    fn pick(&mut self, (at, id): Place) -> Result<bool, redb::Error> {
        let key = RecordKey { kind: self.query.kind, id };
        let stored_key = record_key(key);
        let Some(value) = self.records.get(&*stored_key)? else { return Ok(false) };
        // What is damaged is left out; `get` and `check` tell of it.
        let Ok(value) = Value::read(&stored_key, value.value()) else { return Ok(false) };
        if value.at == at
            && selects(self.query, id, &value)
            && let Ok(stored) = value.stored(key)
        {
            self.picked.push(stored);
        }
        Ok(self.picked.len() > self.query.limit as usize)
    }

    fn page(mut self) -> Page {
        let limit = self.query.limit as usize;
        let more = self.picked.len() > limit;
        self.picked.truncate(limit);
        let last = self.picked.last().filter(|_| more);
        let next = last.map(|last| Cursor { at: last.record.at, id: last.record.key.id });
        Page { records: self.picked, next }
    }
}

fn selects(query: &Query, id: Uuid, value: &Value<'_>) -> bool {
    (query.states.is_empty() || query.states.iter().any(|state| state == value.state))
        && (query.parent.is_none() || query.parent == value.parent)
        && (query.owner.is_none() || query.owner.as_deref() == value.owner)
        && query
            .id_suffix
            .as_ref()
            .is_none_or(|suffix| id.simple().to_string().ends_with(suffix.as_str()))
}

/// Reads whole batches of changes.
pub(crate) fn changes(
    database: &Database,
    after: ChangeNumber,
    limit: u32,
) -> Result<ChangePage, redb::Error> {
    let table = database.begin_read()?.open_table(CHANGES)?;
    let last = last_change(&table)?;
    let mut page = ChangePage { changes: Vec::new(), last };
    let Some(first) = after.0.checked_add(1).filter(|_| limit > 0) else { return Ok(page) };
    let (mut seen, mut number) = (0_u32, None);
    for entry in table.range(change_key(ChangeNumber(first), 0).as_slice()..)? {
        let (key, value) = entry?;
        let next = read_change_key(key.value());
        if seen >= limit && next != number {
            break;
        }
        number = next;
        seen = seen.saturating_add(1);
        // An entry that is damaged is missing; the others are not.
        page.changes.extend(read_change(key.value(), value.value()));
    }
    Ok(page)
}
