//! Which images a recording leads to: at every moment, whatever a disk may have made of what was not synced.
//!
//! What was synced is there. Of the rest, each write may be there, be missing, or be there in part, sector by sector; a file
//! may have got its length and not its bytes; a name may have changed or not, unless its directory was synced. No order is
//! kept among writes between two syncs, and none among names but that of a prefix: journaled file systems keep that, and
//! a random choice is made, too.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::image::{Contents, Image, SECTOR};
use super::random::Random;
use super::recording::{Event, FileId, Recording};

/// An image, and when the power may have gone for it to be there.
#[derive(Clone, Debug)]
pub struct Crash {
    /// The image.
    pub image: Image,
    /// The first moment: so many events had happened.
    pub first: usize,
    /// The last one. What was promised by then must be kept.
    pub last: usize,
    /// How it came about, for people.
    pub how: How,
}

/// What became of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum How {
    /// It is gone.
    Dropped,
    /// It is there.
    Kept,
    /// So much of it is there, the rest is gone.
    Prefix,
    /// The same, with the last write torn.
    Torn,
    /// Lengths and names are there, bytes are not.
    Hollow,
    /// Bytes are there, names are not.
    Nameless,
    /// Names are there, bytes are not.
    Named,
    /// Anything.
    Random,
}

impl How {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Dropped,
        Self::Kept,
        Self::Prefix,
        Self::Torn,
        Self::Hollow,
        Self::Nameless,
        Self::Named,
        Self::Random,
    ];
}

/// How many images are taken.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// At most from so many moments, evenly spread.
    pub moments: usize,
    /// Random ones of each moment.
    pub random: u32,
    /// Prefixes of each moment, and torn ones.
    pub prefixes: u32,
}

/// The state of the disk at a moment.
#[derive(Clone, Debug)]
struct Disk<'a> {
    events: &'a [Event],
    /// What is durable.
    directories: Vec<String>,
    names: BTreeMap<String, FileId>,
    contents: BTreeMap<FileId, Arc<Contents>>,
    /// What is not: indices of events, in order.
    pending: Vec<usize>,
}

/// What becomes of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Gone,
    There,
    /// The first so many bytes are.
    Cut(u64),
    /// Each sector is or is not, by these random bits and their successors.
    Sectors(u64),
    /// The length is, the bytes are not.
    Hollow,
}

/// Lists the images of a recording, each once, from the first moment to the last.
#[must_use]
pub fn crashes(recording: &Recording, effort: Effort, seed: u64) -> Vec<Crash> {
    let mut found = Found::default();
    let mut disk = Disk::new(recording);
    let all = recording.events.len() + 1;
    let most = effort.moments.min(all);
    for moment in 0..all {
        if let Some(event) = moment.checked_sub(1) {
            disk.happen(event);
        }
        // The last one is among them.
        if (moment + 1) * most / all == moment * most / all {
            continue;
        }
        let mut random = Random::new(seed, moment as u64);
        disk.images(effort, &mut random, |how, image| found.add(moment, how, image));
    }
    found.crashes
}

/// Images that were found, each once.
#[derive(Default)]
struct Found {
    crashes: Vec<Crash>,
    known: HashMap<u64, usize>,
}

impl Found {
    fn add(&mut self, moment: usize, how: How, image: Image) {
        match self.known.entry(image.digest()) {
            std::collections::hash_map::Entry::Occupied(known) => {
                self.crashes[*known.get()].last = moment;
            }
            std::collections::hash_map::Entry::Vacant(new) => {
                new.insert(self.crashes.len());
                self.crashes.push(Crash { image, first: moment, last: moment, how });
            }
        }
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// Returns the directory whose sync makes a change of names durable; `None` for other events.
fn directory(event: &Event) -> Option<&str> {
    match event {
        Event::Named { path, .. } | Event::Unnamed { path } | Event::Made { path } => {
            Some(parent(path))
        }
        Event::Renamed { to, .. } => Some(parent(to)),
        Event::Written { .. }
        | Event::Resized { .. }
        | Event::Synced { .. }
        | Event::DirectorySynced { .. }
        | Event::Said(_) => None,
    }
}

/// Returns the file whose sync makes a change of contents durable; `None` for other events.
fn file(event: &Event) -> Option<FileId> {
    match event {
        Event::Written { file, .. } | Event::Resized { file, .. } => Some(*file),
        Event::Named { .. }
        | Event::Unnamed { .. }
        | Event::Renamed { .. }
        | Event::Made { .. }
        | Event::Synced { .. }
        | Event::DirectorySynced { .. }
        | Event::Said(_) => None,
    }
}

impl<'a> Disk<'a> {
    fn new(recording: &'a Recording) -> Self {
        let before = &recording.before;
        let contents = before.contents.iter();
        Self {
            events: &recording.events,
            directories: before.directories.clone(),
            names: before.names.clone(),
            contents: contents
                .map(|(file, bytes)| (*file, Arc::new(Contents::of(bytes))))
                .collect(),
            pending: Vec::new(),
        }
    }

    /// Lets an event happen.
    fn happen(&mut self, event: usize) {
        match &self.events[event] {
            Event::Synced { file: synced, before } => {
                self.settle(|index, event| index < *before && file(event) == Some(*synced));
            }
            Event::DirectorySynced { path, before } => {
                self.settle(|index, event| index < *before && directory(event) == Some(path));
            }
            Event::Said(_) => {}
            Event::Written { .. }
            | Event::Resized { .. }
            | Event::Named { .. }
            | Event::Unnamed { .. }
            | Event::Renamed { .. }
            | Event::Made { .. } => self.pending.push(event),
        }
    }

    /// Makes what is chosen durable.
    fn settle(&mut self, chosen: impl Fn(usize, &Event) -> bool) {
        let events = self.events;
        for index in std::mem::take(&mut self.pending) {
            if chosen(index, &events[index]) {
                self.apply(index, Fate::There);
            } else {
                self.pending.push(index);
            }
        }
    }

    fn apply(&mut self, event: usize, fate: Fate) {
        if fate == Fate::Gone {
            return;
        }
        match &self.events[event] {
            Event::Written { file, offset, bytes } => {
                let contents = Arc::make_mut(self.contents.entry(*file).or_default());
                write(contents, *offset, bytes, fate);
            }
            Event::Resized { file, len } => {
                Arc::make_mut(self.contents.entry(*file).or_default()).resize(*len);
            }
            Event::Named { path, file } => {
                self.names.insert(path.clone(), *file);
            }
            Event::Unnamed { path } => {
                self.names.remove(path);
                self.directories.retain(|directory| directory != path);
            }
            Event::Renamed { from, to } => {
                if let Some(file) = self.names.remove(from) {
                    self.names.insert(to.clone(), file);
                }
            }
            Event::Made { path } => self.directories.push(path.clone()),
            Event::Synced { .. } | Event::DirectorySynced { .. } | Event::Said(_) => {}
        }
    }

    /// Returns the image that this fate of each pending event leads to.
    fn image(&self, mut fate: impl FnMut(usize, &Event) -> Fate) -> Image {
        let mut disk = self.clone();
        for (nth, index) in std::mem::take(&mut disk.pending).into_iter().enumerate() {
            let fate = fate(nth, &self.events[index]);
            disk.apply(index, fate);
        }
        let directories: std::collections::BTreeSet<String> =
            disk.directories.into_iter().collect();
        let reachable = |path: &str| parent(path).is_empty() || directories.contains(parent(path));
        let files = disk.names.iter().filter(|(path, _)| reachable(path));
        let files = files
            .map(|(path, file)| {
                let contents = disk.contents.get(file).cloned().unwrap_or_default();
                (path.clone(), (file.0, contents))
            })
            .collect();
        Image { directories, files }
    }

    /// Builds the images of this moment.
    fn images(&self, effort: Effort, random: &mut Random, mut add: impl FnMut(How, Image)) {
        add(How::Dropped, self.image(|_, _| Fate::Gone));
        let count = self.pending.len();
        if count == 0 {
            return;
        }
        add(How::Kept, self.image(|_, _| Fate::There));
        let names = |event: &Event| directory(event).is_some();
        let either = |yes: bool| if yes { Fate::There } else { Fate::Gone };
        if self.pending.iter().any(|index| names(&self.events[*index])) {
            add(How::Nameless, self.image(|_, event| either(!names(event))));
            add(How::Named, self.image(|_, event| either(names(event))));
        }
        add(
            How::Hollow,
            self.image(|_, event| if names(event) { Fate::There } else { Fate::Hollow }),
        );
        for _ in 0..effort.prefixes {
            let cut = random.below(count);
            add(How::Prefix, self.image(|nth, _| either(nth < cut)));
            let torn = self.torn(cut, random);
            add(How::Torn, self.image(|nth, _| if nth == cut { torn } else { either(nth < cut) }));
        }
        let last = self.torn(count - 1, random);
        add(How::Torn, self.image(|nth, _| if nth + 1 == count { last } else { Fate::There }));
        for _ in 0..effort.random {
            add(How::Random, self.random(random));
        }
    }

    /// Tears a write at the border of a sector.
    fn torn(&self, nth: usize, random: &mut Random) -> Fate {
        let Event::Written { offset, bytes, .. } = &self.events[self.pending[nth]] else {
            return Fate::Gone;
        };
        let (begin, end) = (*offset, offset + bytes.len() as u64);
        let borders = (end.saturating_sub(1) / SECTOR).saturating_sub(begin / SECTOR);
        match borders {
            0 => Fate::Gone,
            borders => {
                let border = begin / SECTOR + 1 + random.next() % borders;
                Fate::Cut(border * SECTOR - begin)
            }
        }
    }

    fn random(&self, random: &mut Random) -> Image {
        // Most disks keep most, or little.
        let kept = [5, 50, 95][random.below(3)];
        let torn = [0, 30][random.below(2)];
        let names = self.pending.iter().filter(|index| directory(&self.events[**index]).is_some());
        let names = names.count();
        // Names in order up to some, or any.
        let ordered = random.below(3) > 0;
        let prefix = random.below(names + 1);
        let mut nth_name = 0;
        self.image(|_, event| {
            if directory(event).is_some() {
                nth_name += 1;
                let there = if ordered { nth_name <= prefix } else { random.percent(50) };
                return if there { Fate::There } else { Fate::Gone };
            }
            if random.percent(torn) {
                return if random.percent(20) {
                    Fate::Hollow
                } else {
                    Fate::Sectors(random.next())
                };
            }
            if random.percent(kept) { Fate::There } else { Fate::Gone }
        })
    }
}

fn write(contents: &mut Contents, offset: u64, bytes: &[u8], fate: Fate) {
    match fate {
        Fate::Gone => {}
        Fate::There => contents.write(offset, bytes),
        Fate::Cut(len) => {
            let len = usize::try_from(len).unwrap_or(usize::MAX).min(bytes.len());
            contents.write(offset, &bytes[..len]);
        }
        Fate::Hollow => {
            let end = offset + bytes.len() as u64;
            if end > contents.len() {
                contents.resize(end);
            }
        }
        Fate::Sectors(bits) => {
            let mut random = Random::new(bits, 0);
            let mut at = offset;
            let end = offset + bytes.len() as u64;
            while at < end {
                let next = ((at / SECTOR + 1) * SECTOR).min(end);
                if random.percent(50) {
                    let part = |place: u64| usize::try_from(place - offset).unwrap_or(usize::MAX);
                    contents.write(at, &bytes[part(at)..part(next)]);
                }
                at = next;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::recording::Files;

    const FILE: FileId = FileId(0);

    fn recorded(events: Vec<Event>) -> Recording {
        Recording { before: Files::default(), events }
    }

    fn written(offset: u64, bytes: &[u8]) -> Event {
        Event::Written { file: FILE, offset, bytes: bytes.to_vec() }
    }

    fn named(path: &str) -> Event {
        Event::Named { path: path.to_owned(), file: FILE }
    }

    fn synced(before: usize) -> Event {
        Event::Synced { file: FILE, before }
    }

    /// Lists what is in the file `f` in each image that may be there at a moment; `None` where it is not there.
    fn seen(events: Vec<Event>, moment: usize) -> Vec<Option<Vec<u8>>> {
        let effort = Effort { moments: usize::MAX, random: 40, prefixes: 10 };
        let crashes = crashes(&recorded(events), effort, 1);
        let mut seen: Vec<_> = crashes
            .iter()
            .filter(|crash| (crash.first..=crash.last).contains(&moment))
            .map(|crash| crash.image.files.get("f").map(|(_, contents)| contents.bytes()))
            .collect();
        seen.sort();
        seen.dedup();
        seen
    }

    fn whole(path: &str) -> Event {
        Event::DirectorySynced { path: path.to_owned(), before: usize::MAX }
    }

    #[test]
    fn what_was_synced_is_there_and_the_rest_may_be() {
        let events = vec![named("f"), whole(""), written(0, b"one"), synced(3), written(3, b"two")];
        assert_eq!(seen(events.clone(), 4), [Some(b"one".to_vec())]);
        let last = seen(events, 5);
        assert!(last.contains(&Some(b"one".to_vec())) && last.contains(&Some(b"onetwo".to_vec())));
        assert!(last.contains(&Some(b"one\0\0\0".to_vec())), "{last:?}");
        assert!(last.iter().flatten().all(|bytes| bytes.starts_with(b"one")), "{last:?}");
    }

    #[test]
    fn a_name_is_there_when_its_directory_was_synced() {
        let events = vec![named("f"), written(0, b"one"), synced(2)];
        assert_eq!(seen(events.clone(), 3), [None, Some(b"one".to_vec())]);
        assert_eq!(seen([events, vec![whole("")]].concat(), 4), [Some(b"one".to_vec())]);
    }

    #[test]
    fn a_sync_covers_what_was_before_it() {
        let events = vec![named("f"), whole(""), written(0, b"one"), written(3, b"two"), synced(3)];
        assert!(seen(events, 5).contains(&Some(b"one".to_vec())));
    }

    #[test]
    fn a_torn_write_ends_at_a_sector() {
        let events = vec![named("f"), whole(""), written(500, &[7; 1_000])];
        let lengths: Vec<usize> =
            seen(events, 3).into_iter().flatten().map(|bytes| bytes.len()).collect();
        assert!(lengths.contains(&512) && lengths.contains(&1_024), "{lengths:?}");
        assert!(lengths.iter().all(|len| [0, 512, 1_024, 1_500].contains(len)), "{lengths:?}");
    }

    #[test]
    fn a_renamed_file_has_one_of_its_names() {
        let rename = Event::Renamed { from: "new".to_owned(), to: "f".to_owned() };
        let old = Event::Named { path: "f".to_owned(), file: FileId(1) };
        let events = vec![old, named("new"), written(0, b"new"), synced(3), whole(""), rename];
        assert_eq!(seen(events.clone(), 6), [Some(Vec::new()), Some(b"new".to_vec())]);
        assert_eq!(seen([events, vec![whole("")]].concat(), 7), [Some(b"new".to_vec())]);
    }

    #[test]
    fn the_same_image_is_looked_at_once_with_the_last_promise() {
        let said = Event::Said(Vec::new());
        let events = vec![named("f"), whole(""), said.clone(), said];
        let effort = Effort { moments: usize::MAX, random: 2, prefixes: 2 };
        let crashes = crashes(&recorded(events), effort, 1);
        assert_eq!(crashes.len(), 2);
        assert_eq!((crashes[1].first, crashes[1].last), (1, 4));
    }
}
