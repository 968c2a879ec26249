//! [`Supervised`]: journal and log segments of an execution under power loss, as the shim that ships writes them and the
//! store of logs reads them.
//!
//! The shim is a process of its own: the program that makes the images plays it, too, and records itself.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Runtime;
use uuid::Uuid;
use windlass_core::container_service::Place;
use windlass_core::execution::{EndCause, FinalReport, Leftovers, OutputMode, Stdin};
use windlass_core::id::{Epoch, ExecutionId, Nonce};
use windlass_core::locator::Locator;
use windlass_core::log_store::{
    From, GapCause, LogItem, LogKey, LogStore, LogStoreExt as _, ReadOptions, Seq,
};
use windlass_core::outcome::StoppedBy;
use windlass_core::shim::frame::{Decoded, Frame, SEGMENT_HEADER_BYTES, decode, segment_index};
use windlass_core::shim::journal::{self, Header, Journal, Record, Tail, Verdict, Void};
use windlass_core::shim::message::{self, Launch, MAX_LAUNCH_BYTES, Notice, Request, Stop};
use windlass_core::time::Timestamp;
use windlass_local::FileLogs;
use windlass_shim::{JOURNAL_FILE, SHIM_MARK, STDERR_FILE};

use super::campaign::Subject;
use super::image::Contents;
use super::process_stores::chain;
use super::random::Random;
use super::recorder::{Recorder, read_recording};
use super::recording::{Event, FileId, Recording};

/// Names the file that a shim records itself into.
const RECORDING: &str = "WINDLASS_RECORDING";
/// How long a shim may be silent.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the shim says to people goes with its place; nothing rests on it.
const IGNORED: &[&str] = &["/stderr"];

/// Plays the shim and records itself, if this process was started as one; else returns at once.
pub fn be_the_shim_if_asked() {
    if std::env::args_os().nth(1).as_deref() != Some(OsStr::new(SHIM_MARK)) {
        return;
    }
    if let Some(sink) = std::env::var_os(RECORDING) {
        let recorder = std::env::current_dir().and_then(|place| {
            let runs = place.parent().unwrap_or(&place);
            Recorder::start_into(runs, IGNORED, Path::new(&sink))
        });
        match recorder {
            // It goes on to the end of the process.
            Ok(recorder) => std::mem::forget(recorder),
            Err(error) => {
                eprintln!("no recording: {error}");
                std::process::exit(2);
            }
        }
    }
    let _end: ExitCode = windlass_shim::run();
    std::process::exit(0);
}

/// Executions under the shim.
#[derive(Clone, Debug)]
pub struct Supervised {
    /// The program that plays the shim: it calls [`be_the_shim_if_asked`].
    pub program: PathBuf,
}

/// What the shim wrote and said.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The records, each with the moment at which it was written.
    records: Vec<(usize, Record)>,
    /// What it said, each with the moment.
    said: Vec<(usize, Notice)>,
    /// What it wrote into its log, by last number.
    written: BTreeMap<u64, LogItem>,
    /// What can be read when all is over.
    whole: Vec<LogItem>,
    /// The moment from which on the word of the next host is durable.
    concluded: Option<usize>,
}

fn key() -> LogKey {
    let (execution, nonce) = (ExecutionId(Uuid::from_u128(0xe)), Nonce(Uuid::from_u128(0xa)));
    let place = Place { locator: Locator::new("place"), nonce, identity: String::new() };
    LogKey { execution, place }
}

/// Returns the name of the place.
fn place() -> String {
    let LogKey { execution, place } = key();
    format!("{}.{}", execution.0.hyphenated(), place.nonce.0.hyphenated())
}

fn read_journal(root: &Path) -> Result<Journal, String> {
    let bytes = fs::read(root.join(place()).join(JOURNAL_FILE));
    let bytes = bytes.map_err(|error| format!("the journal is gone: {error}"))?;
    match journal::read(&bytes) {
        Verdict::Readable(journal) => Ok(journal),
        other => Err(format!("the journal is {other:?}")),
    }
}

/// Returns a command and whether it is to be stopped.
fn launch(seed: u64) -> (Launch, bool) {
    let mut random = Random::new(seed, 3);
    let (lines, other) = (random.below(12_000), random.below(2_000));
    let (script, stop) = match seed % 6 {
        // Far above the cap, so that segments come and go.
        0 | 3 => (format!("seq 1 {lines}; seq 1 {other} >&2; seq 1 {lines}; exit 3"), false),
        1 => (format!("seq 1 {other}; exec sleep 600"), true),
        2 => ("kill -9 $$".to_owned(), false),
        4 => ("printf 'one line'; exit 0".to_owned(), false),
        _ => (String::new(), false),
    };
    let argv: &[&str] =
        if script.is_empty() { &["/no/such/program"] } else { &["/bin/sh", "-c", &script] };
    let LogKey { execution, place } = key();
    let launch = Launch {
        execution,
        nonce: place.nonce,
        epoch: Epoch(3),
        argv: argv.iter().map(|argument| argument.as_bytes().to_vec()).collect(),
        env: vec![(b"PATH".to_vec(), b"/usr/bin:/bin".to_vec())],
        cwd: b"/".to_vec(),
        stdin: Stdin::Null,
        output: OutputMode::Separate,
        leftovers: Leftovers::Stop,
        total_ms: None,
        idle_ms: None,
        grace_ms: 5_000,
        log_cap_bytes: 1 << 16,
    };
    (launch, stop)
}

impl Supervised {
    /// Runs a command under the shim and returns once that is gone.
    fn supervise(&self, root: &Path, sink: &Path, seed: u64) -> io::Result<()> {
        let (launch, stop) = launch(seed);
        let at = root.join(place());
        let (mut ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(PATIENCE))?;
        let stderr = File::options().append(true).create(true).open(at.join(STDERR_FILE))?;
        let mut shim = Command::new(&self.program)
            .args([SHIM_MARK, "recorded"])
            .env(RECORDING, sink)
            .current_dir(&at)
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()?;
        let mut tell = || -> io::Result<()> {
            ours.write_all(&Request::Launch(Box::new(launch.clone())).encode())?;
            let mut heard = Vec::new();
            loop {
                while let Some(notice) = take(&mut heard)? {
                    if stop && matches!(notice, Notice::Started(_)) {
                        let cause = EndCause::Stopped { by: StoppedBy::User };
                        let stop = Stop { epoch: Epoch(3), cause, grace_ms: 0, interrupt_ms: 0 };
                        ours.write_all(&Request::Stop(stop).encode())?;
                    }
                }
                let mut chunk = [0; 4096];
                match ours.read(&mut chunk) {
                    Ok(0) => return Ok(()),
                    Ok(len) => heard.extend_from_slice(&chunk[..len]),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
        };
        let told = tell();
        if told.is_err() {
            shim.kill()?;
        }
        let end = shim.wait()?;
        told?;
        if end.success() { Ok(()) } else { Err(io::Error::other(format!("the shim: {end}"))) }
    }
}

/// Takes a notice from the front of what was heard.
fn take(heard: &mut Vec<u8>) -> io::Result<Option<Notice>> {
    let framed = message::split(heard, MAX_LAUNCH_BYTES).map_err(io::Error::other)?;
    let Some(framed) = framed else { return Ok(None) };
    let notice = Notice::decode(framed).map_err(io::Error::other)?;
    heard.drain(..framed.len);
    Ok(Some(notice))
}

impl History {
    /// Reads what the shim did from its recording.
    fn of(recording: &Recording) -> Result<Self, String> {
        let mut history = Self::default();
        let mut heard = Vec::new();
        let mut names: BTreeMap<FileId, String> =
            recording.before.names.iter().map(|(path, file)| (*file, path.clone())).collect();
        let before = recording.before.contents.iter();
        let mut contents: BTreeMap<FileId, Contents> =
            before.map(|(file, bytes)| (*file, Contents::of(bytes))).collect();
        for (index, event) in recording.events.iter().enumerate() {
            match event {
                Event::Named { path, file } => {
                    names.insert(*file, path.clone());
                }
                Event::Resized { file, len } => contents.entry(*file).or_default().resize(*len),
                Event::Written { file, offset, bytes } => {
                    let contents = contents.entry(*file).or_default();
                    contents.write(*offset, bytes);
                    if names.get(file).is_some_and(|name| name.ends_with(JOURNAL_FILE)) {
                        history.note_records(index + 1, &contents.bytes())?;
                    }
                }
                Event::Said(bytes) => {
                    heard.extend_from_slice(bytes);
                    while let Some(notice) = take(&mut heard).map_err(|error| error.to_string())? {
                        history.said.push((index + 1, notice));
                    }
                }
                Event::Synced { .. }
                | Event::DirectorySynced { .. }
                | Event::Unnamed { .. }
                | Event::Renamed { .. }
                | Event::Made { .. } => {}
            }
        }
        for (file, contents) in contents {
            let name = names.get(&file).and_then(|path| path.rsplit('/').next());
            if name.is_some_and(|name| segment_index(name).is_some()) {
                history.note_segment(&contents.bytes());
            }
        }
        Ok(history)
    }

    fn note_records(&mut self, moment: usize, bytes: &[u8]) -> Result<(), String> {
        let Verdict::Readable(journal) = journal::read(bytes) else {
            return Err("the shim wrote a journal that cannot be read".to_owned());
        };
        let known = self.records.len();
        self.records.extend(journal.records.into_iter().skip(known).map(|record| (moment, record)));
        Ok(())
    }

    fn note_segment(&mut self, bytes: &[u8]) {
        let mut rest = bytes.get(SEGMENT_HEADER_BYTES..).unwrap_or_default();
        while let Decoded::Frame { frame, len } = decode(rest) {
            let item = match frame {
                Frame::Entry { seq, time, stream, partial, bytes, len } => LogItem::Entry {
                    seq: Seq(seq),
                    at: time.wall,
                    stream,
                    partial,
                    bytes: Bytes::copy_from_slice(bytes),
                    len,
                },
                Frame::Gap { gap, .. } => LogItem::Gap {
                    first: Seq(gap.first_seq),
                    last: Some(Seq(gap.last_seq)),
                    bytes: gap.bytes,
                    cause: gap.cause,
                },
                Frame::Seal(_) => return,
            };
            self.written.insert(item.last_seq().0, item);
            rest = &rest[len..];
        }
    }

    /// Says which record was promised at a moment and is not in the journal, or is in it and was never written.
    fn explain_journal(
        &self,
        found: &[Record],
        (first, last): (usize, usize),
    ) -> Result<(), String> {
        let mut possible = self.records.iter().filter(|(written, _)| *written <= first);
        for record in found {
            if !possible.any(|(_, written)| written == record) {
                return Err(format!("{record:?} was never written, or out of order"));
            }
        }
        let concluded = self.concluded.is_some_and(|moment| moment <= last);
        if concluded && !found.iter().any(|record| matches!(record, Record::Void(_))) {
            return Err("what the next host said is gone".to_owned());
        }
        let said = self.said.iter().take_while(|(moment, _)| *moment <= last);
        for (_, notice) in said {
            let kept = match notice {
                Notice::Started(_) => found.iter().any(|it| matches!(it, Record::Started(_))),
                Notice::ExecFailed(_) => found.iter().any(|it| matches!(it, Record::ExecFailed(_))),
                Notice::StopTaken => found.iter().any(|it| matches!(it, Record::Stopping(_))),
                Notice::Exited(report) => found
                    .iter()
                    .any(|it| matches!(it, Record::Exited(exited) if exited.report == *report)),
                Notice::Final(report) => self.final_in(found).as_ref() == Some(report),
                Notice::Welcome(_)
                | Notice::InputTaken { .. }
                | Notice::InputRefused { .. }
                | Notice::Superseded { .. }
                | Notice::Unsupported { .. } => true,
            };
            if !kept {
                return Err(format!("{notice:?} was said and is not in the journal: {found:?}"));
            }
        }
        Ok(())
    }

    fn final_in(&self, found: &[Record]) -> Option<Box<FinalReport>> {
        found.iter().find_map(|record| match record {
            Record::Final(report) => Some(report.clone()),
            Record::Started(_)
            | Record::ExecFailed(_)
            | Record::Stopping(_)
            | Record::Exited(_)
            | Record::Void(_) => None,
        })
    }

    /// Says why the log must not be like this: items follow each other, each as it was written or a gap; once the end was
    /// promised, all of it.
    fn explain_log(&self, found: &[LogItem], last: usize) -> Result<(), String> {
        let mut next = 1;
        for item in found {
            if item.first_seq().0 != next {
                return Err(format!("{item:?} where {next} is next"));
            }
            next = item.last_seq().0 + 1;
            let written = self.written.get(&item.last_seq().0);
            let stands_for_others =
                matches!(item, LogItem::Gap { cause: GapCause::Cap | GapCause::Power, .. });
            if !stands_for_others && written != Some(item) {
                return Err(format!("{item:?} was never written"));
            }
        }
        let ended = self
            .said
            .iter()
            .any(|(moment, notice)| *moment <= last && matches!(notice, Notice::Final(_)));
        if ended && found != self.whole {
            return Err(format!("the end was told, and of {:?} there is {found:?}", self.whole));
        }
        Ok(())
    }
}

/// Reads a log from its beginning; returns it with whether it ends.
async fn read_log(logs: &dyn LogStore) -> Result<(Vec<LogItem>, bool), String> {
    let (key, mut next, mut found) = (key(), Seq(0), Vec::new());
    loop {
        let page = logs.page_after(&key, next).await;
        let page = page.map_err(|error| format!("the log: {}", chain(&error)))?;
        found.extend(page.items.iter().cloned());
        next = page.next;
        if page.items.is_empty() || page.end {
            return Ok((found, page.end));
        }
    }
}

impl Subject for Supervised {
    type History = History;

    fn name(&self) -> &'static str {
        "journal and segments"
    }

    fn ignored(&self) -> &'static [&'static str] {
        IGNORED
    }

    fn record(
        &self,
        runtime: &Runtime,
        root: &Path,
        seed: u64,
    ) -> Result<(Recording, History), String> {
        let io = |error: io::Error| error.to_string();
        let LogKey { execution, place: Place { nonce, .. } } = key();
        let at = root.join(place());
        DirBuilder::new().mode(0o700).create(&at).map_err(io)?;
        let header = Header { execution, nonce, machine: b"a machine".to_vec(), inode: 0 };
        fs::write(at.join(JOURNAL_FILE), header.encode()).map_err(io)?;
        let outside = tempfile::tempdir().map_err(io)?;
        let sink = outside.path().join("recording");
        self.supervise(root, &sink, seed).map_err(io)?;
        let recording = read_recording(&sink).map_err(io)?;
        let mut history = History::of(&recording)?;
        history.whole = runtime
            .block_on(async {
                let logs = FileLogs::open(root).map_err(|error| chain(&error))?;
                read_log(&*logs).await
            })?
            .0;
        Ok((recording, history))
    }

    fn examine(
        &self,
        runtime: &Runtime,
        root: &Path,
        history: &History,
        moments: (usize, usize),
        recorder: Option<&Recorder>,
    ) -> Result<History, String> {
        let journal = read_journal(root)?;
        history.explain_journal(&journal.records, moments)?;
        let found = runtime.block_on(async {
            let logs = FileLogs::open(root).map_err(|error| chain(&error))?;
            let found = look(&*logs, history, moments.1).await?;
            // What the next host does with a log whose shim is gone.
            logs.seal(&key()).await.map_err(|error| chain(&error))?;
            let (sealed, ends) = read_log(&*logs).await?;
            let kept = sealed.starts_with(&found) && sealed.len() <= found.len() + 1;
            if !(ends && kept) {
                return Err(format!("sealed, it is {sealed:?}, and was {found:?} before"));
            }
            Ok(found)
        })?;
        let written = found.iter().map(|item| (item.last_seq().0, item.clone())).collect();
        let records = journal.records.iter().map(|record| (0, record.clone())).collect();
        let mut after = History { records, written, whole: found, ..History::default() };
        if let Some(recorder) = recorder {
            let begun = recorder.position();
            if let Some(record) = conclude(root, &journal)? {
                after.records.push((begun, record));
                after.concluded = Some(recorder.position());
            }
        }
        Ok(after)
    }
}

/// Reads the log in every way and holds it against what was written.
async fn look(logs: &dyn LogStore, history: &History, last: usize) -> Result<Vec<LogItem>, String> {
    let (found, _) = read_log(logs).await?;
    history.explain_log(&found, last)?;
    let error =
        |error: windlass_core::log_store::LogStoreError| format!("the log: {}", chain(&error));
    let status = logs.status(&key()).await.map_err(error)?;
    let end = found.last().map_or(Seq(0), LogItem::last_seq);
    if status.last != end {
        return Err(format!("its status ends at {:?}, its items at {end:?}", status.last));
    }
    for from in [From::Tail(3), From::After(Seq(end.0 / 2))] {
        let options = ReadOptions { from, max_items: 1_000, max_bytes: 1 << 20 };
        let page = logs.read(&key(), options).await.map_err(error)?;
        let part = page.items.iter().all(|item| match item {
            LogItem::Entry { .. } => found.contains(item),
            LogItem::Gap { .. } => true,
        });
        if !part || page.next != end {
            return Err(format!("{from:?} is {:?} of {found:?}", page.items));
        }
    }
    Ok(found)
}

/// Writes into an unused journal that nothing ran, as the host does that comes next; returns what it wrote.
fn conclude(root: &Path, journal: &Journal) -> Result<Option<Record>, String> {
    if !journal.records.is_empty() {
        return Ok(None);
    }
    let write = || {
        let path = root.join(place()).join(JOURNAL_FILE);
        let file = File::options().write(true).open(path)?;
        // What was read may not be durable; the record says that it is.
        file.sync_data()?;
        let record = Record::Void(Void { epoch: Epoch(9), at: Timestamp(1) });
        file.write_all_at(&record.encode(journal.synced()), journal.end as u64)?;
        file.sync_data()?;
        Ok(record)
    };
    let record = write().map_err(|error: io::Error| error.to_string())?;
    let after = read_journal(root)?;
    if after.records != [record.clone()] || !matches!(after.tail, Tail::Clean | Tail::Torn) {
        return Err(format!("behind {:?} it reads {:?}", journal.tail, after.records));
    }
    Ok(Some(record))
}
