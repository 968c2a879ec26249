//! What a program that is recorded calls around its calls of the system: [`Recorder`] for who wants the recording, the rest
//! for the functions that take the place of the system's.
//!
//! Nothing here makes a call of the system's in place of the program. While one is made that belongs to a recording, its
//! lock is held: order and content are those of the files. A process without a recording pays one load for each call.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::recording::{Event, FileId, Files, Recording, is_ignored};

/// How many descriptors are remembered; one beyond is looked at anew with each call.
const DESCRIPTORS: usize = 1 << 16;
/// A descriptor that nobody has looked at.
const UNKNOWN: u64 = 0;
/// One that belongs to no recording.
const FOREIGN: u64 = 1;
/// One of a socket.
const SOCKET: u64 = 2;
/// The first number that stands for something of a recording.
const FIRST_TARGET: u64 = 3;

/// How many recordings are being made.
static ACTIVE: AtomicUsize = AtomicUsize::new(0);
/// The recordings.
static RECORDINGS: Mutex<Vec<Active>> = Mutex::new(Vec::new());
/// Numbers the recordings of this process, from 1.
static NEXT: AtomicU64 = AtomicU64::new(1);
/// What is known of each descriptor: one of the above, or a recording's number and an index of its targets.
static KNOWN: [AtomicU64; DESCRIPTORS] = [const { AtomicU64::new(UNKNOWN) }; DESCRIPTORS];

thread_local! {
    /// The recorder itself is making calls.
    static OURS: Cell<bool> = const { Cell::new(false) };
}

/// What a descriptor is of.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    File(FileId),
    Directory(String),
}

/// A recording that is being made.
#[derive(Debug)]
struct Active {
    number: u64,
    root: PathBuf,
    ignored: Vec<String>,
    recording: Recording,
    names: BTreeMap<String, FileId>,
    next: u32,
    targets: Vec<Target>,
    /// Where each event goes at once, for a process that may end at any time.
    sink: Option<PathBuf>,
    /// Syncs that were given to the kernel's queue, and how many of them were seen to end.
    queued: Vec<(Target, usize)>,
    ended: usize,
}

impl Active {
    fn push(&mut self, event: Event) {
        if let Some(sink) = &self.sink {
            let ours = OURS.replace(true);
            append(sink, &event);
            OURS.set(ours);
        }
        self.recording.events.push(event);
    }

    fn fresh(&mut self) -> FileId {
        self.next += 1;
        FileId(self.next - 1)
    }

    fn relative(&self, path: &Path) -> Option<String> {
        path.strip_prefix(&self.root).ok()?.to_str().map(str::to_owned)
    }

    /// Returns what a path names, as something that a descriptor may be of.
    fn target(&mut self, path: &str, create: bool) -> Option<Target> {
        if let Some(file) = self.names.get(path) {
            return Some(Target::File(*file));
        }
        if is_ignored(path, &self.ignored) {
            return None;
        }
        if create {
            let file = self.fresh();
            self.names.insert(path.to_owned(), file);
            self.push(Event::Named { path: path.to_owned(), file });
            return Some(Target::File(file));
        }
        let at = self.root.join(path);
        let kind = fs::metadata(&at).ok()?;
        if kind.is_dir() {
            return Some(Target::Directory(path.to_owned()));
        }
        // Made by a call that passed us by. What is in it came the same way.
        let ours = OURS.replace(true);
        let bytes = fs::read(&at);
        OURS.set(ours);
        let file = self.fresh();
        self.names.insert(path.to_owned(), file);
        self.push(Event::Named { path: path.to_owned(), file });
        self.push(Event::Written { file, offset: 0, bytes: bytes.ok()? });
        Some(Target::File(file))
    }

    /// Notes what a descriptor is of.
    fn know(&mut self, fd: i32, target: &Target) {
        let index = self.targets.iter().position(|known| known == target).unwrap_or_else(|| {
            self.targets.push(target.clone());
            self.targets.len() - 1
        });
        set(fd, (self.number << 32) | (index as u64 + FIRST_TARGET));
    }

    fn synced(&mut self, target: &Target, before: usize) {
        self.push(match target {
            Target::File(file) => Event::Synced { file: *file, before },
            Target::Directory(path) => Event::DirectorySynced { path: path.clone(), before },
        });
    }
}

/// Writes an event at the end of a file, as a line.
///
/// # Panics
///
/// When it cannot be written: a recording with a hole would accuse the innocent.
fn append(sink: &Path, event: &Event) {
    let line = serde_json::to_vec(event).expect("an event as JSON");
    let mut file = fs::OpenOptions::new().append(true).open(sink).expect("the recording");
    file.write_all(&[&line[..], b"\n"].concat()).expect("room for the recording");
}

/// A recording that is being made, of a directory in this process.
#[derive(Debug)]
pub struct Recorder {
    number: u64,
}

impl Recorder {
    /// Begins to record what happens below `root`, but to files whose names end with one of `ignored`.
    ///
    /// # Errors
    ///
    /// Those of reading what is there.
    pub fn start(root: &Path, ignored: &[&str]) -> io::Result<Self> {
        Self::begin(root, ignored, None)
    }

    /// The same, with each event also written to a file that is there, as a line of JSON, before the call returns. The
    /// first line has what was there before.
    ///
    /// # Errors
    ///
    /// Those of reading what is there, and of writing the first line.
    pub fn start_into(root: &Path, ignored: &[&str], sink: &Path) -> io::Result<Self> {
        Self::begin(root, ignored, Some(sink.to_owned()))
    }

    fn begin(root: &Path, ignored: &[&str], sink: Option<PathBuf>) -> io::Result<Self> {
        let root = fs::canonicalize(root)?;
        let ignored: Vec<String> = ignored.iter().map(|&suffix| suffix.to_owned()).collect();
        let before = Files::read(&root, &ignored)?;
        if let Some(sink) = &sink {
            fs::write(sink, [&serde_json::to_vec(&before)?[..], b"\n"].concat())?;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let next = u32::try_from(before.contents.len()).unwrap_or(u32::MAX);
        let mut active = recordings();
        active.push(Active {
            number,
            root,
            ignored,
            names: before.names.clone(),
            recording: Recording { before, events: Vec::new() },
            next,
            targets: Vec::new(),
            sink,
            queued: Vec::new(),
            ended: 0,
        });
        // What belonged to no recording may belong to this one.
        for known in &KNOWN {
            let _changed =
                known.compare_exchange(FOREIGN, UNKNOWN, Ordering::Relaxed, Ordering::Relaxed);
        }
        ACTIVE.fetch_add(1, Ordering::Release);
        Ok(Self { number })
    }

    /// Returns how many things have happened.
    #[must_use]
    pub fn position(&self) -> usize {
        let recordings = recordings();
        let mine = recordings.iter().find(|active| active.number == self.number);
        mine.map_or(0, |active| active.recording.events.len())
    }

    /// Ends the recording.
    #[must_use]
    pub fn finish(self) -> Recording {
        take(self.number).unwrap_or_default()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        drop(take(self.number));
    }
}

fn take(number: u64) -> Option<Recording> {
    let mut recordings = recordings();
    let at = recordings.iter().position(|active| active.number == number)?;
    ACTIVE.fetch_sub(1, Ordering::Release);
    Some(recordings.swap_remove(at).recording)
}

/// Reads a recording that was written to a file.
///
/// # Errors
///
/// Those of the file; a line that is no event.
pub fn read_recording(sink: &Path) -> io::Result<Recording> {
    let text = fs::read_to_string(sink)?;
    let mut lines = text.lines();
    let before = serde_json::from_str(lines.next().unwrap_or_default())?;
    let events = lines.map(serde_json::from_str).collect::<Result<_, _>>()?;
    Ok(Recording { before, events })
}

fn recordings() -> MutexGuard<'static, Vec<Active>> {
    // What a panic leaves of a recording is still in order.
    RECORDINGS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says whether no call is of interest now.
fn idle() -> bool {
    ACTIVE.load(Ordering::Acquire) == 0 || OURS.get()
}

fn set(fd: i32, known: u64) {
    if let Some(slot) = usize::try_from(fd).ok().and_then(|fd| KNOWN.get(fd)) {
        slot.store(known, Ordering::Relaxed);
    }
}

fn known(fd: i32) -> u64 {
    let slot = usize::try_from(fd).ok().and_then(|fd| KNOWN.get(fd));
    slot.map_or(UNKNOWN, |slot| slot.load(Ordering::Relaxed))
}

/// A call that belongs to a recording: nothing else happens to any until it is noted or let go.
#[derive(Debug)]
pub struct Call {
    recordings: MutexGuard<'static, Vec<Active>>,
    index: usize,
    target: Target,
}

impl Call {
    fn active(&mut self) -> &mut Active {
        &mut self.recordings[self.index]
    }

    /// Notes that bytes were written.
    pub fn wrote(mut self, offset: u64, bytes: &[u8]) {
        if let Target::File(file) = self.target {
            self.active().push(Event::Written { file, offset, bytes: bytes.to_vec() });
        }
    }

    /// Notes a new length.
    pub fn resized(mut self, len: u64) {
        if let Target::File(file) = self.target {
            self.active().push(Event::Resized { file, len });
        }
    }

    /// Notes that everything so far is durable.
    pub fn synced(mut self) {
        let target = self.target.clone();
        let before = self.active().recording.events.len();
        self.active().synced(&target, before);
    }

    /// Notes that the kernel was asked to make everything so far durable, and did not answer yet.
    pub fn queued(mut self) {
        let queued = (self.target.clone(), self.active().recording.events.len());
        self.active().queued.push(queued);
    }
}

/// Finds out whether a call with this descriptor belongs to a recording.
#[must_use]
pub fn call(fd: i32) -> Option<Call> {
    if idle() || matches!(known(fd), FOREIGN | SOCKET) {
        return None;
    }
    let mut recordings = recordings();
    let value = known(fd);
    let number = value >> 32;
    if let Some(index) = recordings.iter().position(|active| active.number == number) {
        let target = usize::try_from((value & u64::from(u32::MAX)) - FIRST_TARGET).ok()?;
        let target = recordings[index].targets.get(target)?.clone();
        return Some(Call { recordings, index, target });
    }
    let link = fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
    if link.to_string_lossy().starts_with("socket:") {
        set(fd, SOCKET);
        return None;
    }
    let found = recordings
        .iter_mut()
        .enumerate()
        .find_map(|(index, active)| Some((index, active.relative(&link)?)));
    let Some((index, path)) = found else {
        set(fd, FOREIGN);
        return None;
    };
    let Some(target) = recordings[index].target(&path, false) else {
        set(fd, FOREIGN);
        return None;
    };
    recordings[index].know(fd, &target);
    Some(Call { recordings, index, target })
}

/// Notes what a program with a single recording tells others over a socket.
pub fn said(fd: i32, bytes: &[u8]) {
    if idle() {
        return;
    }
    if known(fd) == UNKNOWN {
        // Finds out what it is.
        drop(call(fd));
    }
    if known(fd) == SOCKET
        && let [only] = recordings().as_mut_slice()
        && only.sink.is_some()
    {
        only.push(Event::Said(bytes.to_vec()));
    }
}

/// Notes that so many syncs of the kernel's queue have ended. Which ones it does not say; so none counts before all have.
pub fn ended(count: usize) {
    if idle() {
        return;
    }
    for active in recordings().iter_mut().filter(|active| !active.queued.is_empty()) {
        active.ended += count;
        if active.ended >= active.queued.len() {
            active.ended = 0;
            for (target, before) in std::mem::take(&mut active.queued) {
                active.synced(&target, before);
            }
        }
    }
}

/// Forgets a descriptor that is closed.
pub fn closed(fd: i32) {
    set(fd, UNKNOWN);
}

/// Forgets a range of descriptors, both ends included.
pub fn closed_range(first: usize, last: usize) {
    for slot in KNOWN.iter().take(last.saturating_add(1)).skip(first) {
        slot.store(UNKNOWN, Ordering::Relaxed);
    }
}

/// A call about a name below a recorded directory.
#[derive(Debug)]
pub struct NameCall {
    recordings: MutexGuard<'static, Vec<Active>>,
    index: usize,
    path: String,
    other: Option<String>,
}

impl NameCall {
    fn active(&mut self) -> &mut Active {
        &mut self.recordings[self.index]
    }

    fn is_ignored(&mut self) -> bool {
        let path = self.path.clone();
        is_ignored(&path, &self.active().ignored)
    }

    /// Notes that the file was opened.
    pub fn opened(mut self, fd: i32, create: bool, truncate: bool) {
        let path = self.path.clone();
        let was_there = self.active().names.contains_key(&path);
        match self.active().target(&path, create) {
            Some(target) => {
                self.active().know(fd, &target);
                if let (Target::File(file), true, true) = (&target, truncate, was_there) {
                    let file = *file;
                    self.active().push(Event::Resized { file, len: 0 });
                }
            }
            None => set(fd, FOREIGN),
        }
    }

    /// Notes that the name was removed.
    pub fn unnamed(mut self) {
        if self.is_ignored() {
            return;
        }
        let path = std::mem::take(&mut self.path);
        self.active().names.remove(&path);
        self.active().push(Event::Unnamed { path });
    }

    /// Notes that the directory was made.
    pub fn made(mut self) {
        let path = std::mem::take(&mut self.path);
        self.active().push(Event::Made { path });
    }

    /// Notes that the file got the other name, too.
    pub fn linked(mut self) {
        let (from, Some(to)) = (self.path.clone(), self.other.take()) else { return };
        if let Some(Target::File(file)) = self.active().target(&from, false) {
            self.active().names.insert(to.clone(), file);
            self.active().push(Event::Named { path: to, file });
        }
    }

    /// Notes that the file has the other name now.
    pub fn renamed(mut self) {
        let (from, Some(to)) = (self.path.clone(), self.other.take()) else { return };
        if let Some(file) = self.active().names.remove(&from) {
            self.active().names.insert(to.clone(), file);
        }
        self.active().push(Event::Renamed { from, to });
    }
}

/// Finds out whether a call about this name belongs to a recording. `directory` is where a relative path begins, if it is
/// not the current directory.
#[must_use]
pub fn name_call(directory: Option<i32>, path: &Path) -> Option<NameCall> {
    if idle() {
        return None;
    }
    let path = absolute(directory, path)?;
    let recordings = recordings();
    let (index, path) = recordings
        .iter()
        .enumerate()
        .find_map(|(index, active)| Some((index, active.relative(&path)?)))?;
    Some(NameCall { recordings, index, path, other: None })
}

/// The same for a call with two names.
///
/// # Panics
///
/// When one of them is recorded and the other one is not: what came from outside, or went there, has no place in a recording.
#[must_use]
pub fn names_call(
    (from_directory, from): (Option<i32>, &Path),
    (to_directory, to): (Option<i32>, &Path),
) -> Option<NameCall> {
    let to = if idle() { return None } else { absolute(to_directory, to)? };
    let Some(mut call) = name_call(from_directory, from) else {
        let recordings = recordings();
        let recorded = recordings.iter().any(|active| active.relative(&to).is_some());
        assert!(!recorded, "{} comes from outside of the recording", to.display());
        return None;
    };
    let other = call.active().relative(&to);
    assert!(other.is_some(), "{} is outside of the recording", to.display());
    call.other = other;
    Some(call)
}

fn absolute(directory: Option<i32>, path: &Path) -> Option<PathBuf> {
    let base = if path.is_absolute() {
        PathBuf::new()
    } else {
        match directory {
            Some(fd) => fs::read_link(format!("/proc/self/fd/{fd}")).ok()?,
            None => std::env::current_dir().ok()?,
        }
    };
    let mut whole = PathBuf::new();
    for component in base.join(path).components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                whole.pop();
            }
            Component::RootDir | Component::Prefix(_) | Component::Normal(_) => {
                whole.push(component);
            }
        }
    }
    Some(whole)
}
