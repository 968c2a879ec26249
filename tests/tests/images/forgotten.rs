//! The recorder and the disk are tested, too: who forgets a sync is found, who forgets none is not.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use tokio::runtime::Runtime;
use windlass_tests::images::campaign::{Campaign, Subject};
use windlass_tests::images::recorder::Recorder;
use windlass_tests::images::recording::{Event, Recording};

/// What a writer of notes forgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forgets {
    Nothing,
    /// To sync a note before it says that it is kept.
    File,
    /// To sync the directory that names a new file.
    Directory,
    /// To sync the new file before it takes the name of the old one.
    BeforeRename,
    /// That a write may be torn: its length is trusted.
    Tearing,
}

/// Keeps numbers, in one of three ways: appended to a file, a file for each, or one that is replaced.
struct Notes {
    forgets: Forgets,
}

/// How many notes were kept at which moment.
#[derive(Debug)]
struct Kept(Vec<usize>);

/// Long enough to be torn.
const NOTE: usize = 700;

fn note(n: usize) -> Vec<u8> {
    vec![u8::try_from(n + 1).unwrap(); NOTE]
}

impl Notes {
    fn sync(&self, file: &File, unless: Forgets) -> io::Result<()> {
        if self.forgets == unless { Ok(()) } else { file.sync_all() }
    }

    fn keep(&self, root: &Path, n: usize) -> io::Result<()> {
        let mut appended = File::options().append(true).create(true).open(root.join("appended"))?;
        appended.write_all(&note(n))?;
        self.sync(&appended, Forgets::File)?;

        let own = File::create_new(root.join(format!("own-{n}")))?;
        own.write_all_at(&note(n), 0)?;
        own.sync_data()?;

        let mut new = File::create(root.join("replaced.new"))?;
        new.write_all(&note(n))?;
        self.sync(&new, Forgets::BeforeRename)?;
        fs::rename(root.join("replaced.new"), root.join("replaced"))?;
        self.sync(&File::open(root)?, Forgets::Directory)
    }

    /// Returns how many notes each of the three ways has kept.
    fn read(&self, root: &Path) -> io::Result<[usize; 3]> {
        let mut appended = Vec::new();
        if let Ok(mut file) = File::open(root.join("appended")) {
            file.seek(SeekFrom::Start(0))?;
            file.read_to_end(&mut appended)?;
        }
        let whole = |n: &usize| {
            let found = appended.get(n * NOTE..(n + 1) * NOTE);
            match self.forgets {
                Forgets::Tearing => found.is_some(),
                _ => found == Some(&note(*n)),
            }
        };
        let appended_count = (0..).take_while(whole).count();
        if (0..appended_count).any(|n| appended[n * NOTE..(n + 1) * NOTE] != note(n)) {
            return Err(io::Error::other("a note is not what it was"));
        }
        let own = |n: &usize| {
            fs::read(root.join(format!("own-{n}"))).is_ok_and(|bytes| bytes == note(*n))
        };
        let replaced = match fs::read(root.join("replaced")) {
            Ok(bytes) => {
                let n = usize::from(*bytes.first().unwrap_or(&0));
                if n == 0 || bytes != note(n - 1) {
                    return Err(io::Error::other("what was replaced is neither old nor new"));
                }
                n
            }
            Err(_) => 0,
        };
        Ok([appended_count, (0..).take_while(own).count(), replaced])
    }
}

impl Subject for Notes {
    type History = Kept;

    fn name(&self) -> &'static str {
        "notes"
    }

    fn ignored(&self) -> &'static [&'static str] {
        &[]
    }

    fn record(&self, _: &Runtime, root: &Path, _: u64) -> Result<(Recording, Kept), String> {
        let recorder = Recorder::start(root, self.ignored()).unwrap();
        let mut kept = Vec::new();
        for n in 0..6 {
            self.keep(root, n).unwrap();
            kept.push(recorder.position());
        }
        Ok((recorder.finish(), Kept(kept)))
    }

    fn examine(
        &self,
        _: &Runtime,
        root: &Path,
        Kept(kept): &Kept,
        (_, last): (usize, usize),
        recorder: Option<&Recorder>,
    ) -> Result<Kept, String> {
        let found = self.read(root).map_err(|error| error.to_string())?;
        let promised = kept.iter().filter(|moment| **moment <= last).count();
        if found.iter().any(|count| *count < promised) {
            return Err(format!("{promised} notes were kept, and there are {found:?}"));
        }
        let _nothing_is_done = recorder;
        Ok(Kept(Vec::new()))
    }
}

fn campaign() -> Campaign {
    Campaign::of(1_500, 7)
}

#[test]
fn a_writer_that_forgets_nothing_loses_nothing() {
    if let Err(finding) = campaign().run(&Notes { forgets: Forgets::Nothing }) {
        panic!("{finding}");
    }
}

#[test]
fn a_writer_that_forgets_something_is_found() {
    for forgets in [Forgets::File, Forgets::Directory, Forgets::BeforeRename, Forgets::Tearing] {
        let finding = campaign().run(&Notes { forgets }).unwrap_err();
        fs::remove_dir_all(&finding.kept).unwrap();
    }
}

/// Makes every sort of change once and returns what was recorded of it.
#[test]
fn everything_that_changes_files_is_recorded_in_order() {
    let room = tempfile::tempdir().unwrap();
    let root = room.path().canonicalize().unwrap();
    fs::write(root.join("old"), "old").unwrap();
    let recorder = Recorder::start(&root, &["-left-out"]).unwrap();
    fs::write(root.join("x-left-out"), "nobody").unwrap();
    let mut file = File::create(root.join("new")).unwrap();
    file.write_all(b"one").unwrap();
    file.write_at(b"two", 10).unwrap();
    let slices = [io::IoSlice::new(b"a"), io::IoSlice::new(b"b")];
    assert_eq!(file.write_vectored(&slices).unwrap(), 2);
    file.set_len(5).unwrap();
    file.sync_data().unwrap();
    fs::hard_link(root.join("new"), root.join("linked")).unwrap();
    fs::rename(root.join("linked"), root.join("renamed")).unwrap();
    fs::remove_file(root.join("old")).unwrap();
    fs::create_dir(root.join("sub")).unwrap();
    File::open(root.join("sub")).unwrap().sync_all().unwrap();
    File::open(&root).unwrap().sync_all().unwrap();
    fs::copy(root.join("new"), root.join("sub/copy")).unwrap();
    drop(file);
    let mut again = File::options().append(true).open(root.join("new")).unwrap();
    again.write_all(b"end").unwrap();
    drop(File::create(root.join("new")).unwrap());
    let recording = recorder.finish();
    fs::write(root.join("after"), "nobody").unwrap();

    let (new, copy) = (
        windlass_tests::images::recording::FileId(1),
        windlass_tests::images::recording::FileId(2),
    );
    let named = |path: &str, file| Event::Named { path: path.to_owned(), file };
    let written =
        |file, offset, bytes: &[u8]| Event::Written { file, offset, bytes: bytes.to_vec() };
    let synced = |path: &str, before| Event::DirectorySynced { path: path.to_owned(), before };
    assert_eq!(recording.before.contents.values().collect::<Vec<_>>(), [b"old"]);
    assert_eq!(
        recording.events,
        [
            named("new", new),
            written(new, 0, b"one"),
            written(new, 10, b"two"),
            written(new, 3, b"ab"),
            Event::Resized { file: new, len: 5 },
            Event::Synced { file: new, before: 5 },
            named("linked", new),
            Event::Renamed { from: "linked".to_owned(), to: "renamed".to_owned() },
            Event::Unnamed { path: "old".to_owned() },
            Event::Made { path: "sub".to_owned() },
            synced("sub", 10),
            synced("", 11),
            named("sub/copy", copy),
            written(copy, 0, b"oneab"),
            written(new, 5, b"end"),
            Event::Resized { file: new, len: 0 },
        ]
    );
}
