//! [`Campaign`]: records, builds images, examines them, and does it again inside a part of the examinations.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use super::crashes::{Crash, Effort, How, crashes};
use super::recorder::Recorder;
use super::recording::Recording;

/// Something whose word about power loss is examined.
pub trait Subject: Send + Sync {
    /// What was promised to whom, and when.
    type History: fmt::Debug + Send + Sync;

    /// Its name.
    fn name(&self) -> &'static str;

    /// What the names of files end with that are not recorded, because nothing rests on them.
    fn ignored(&self) -> &'static [&'static str];

    /// Makes something of it in an empty directory and lets it work, as the seed says.
    ///
    /// # Errors
    ///
    /// A sentence: it did not work even without a power cut.
    fn record(
        &self,
        runtime: &Runtime,
        root: &Path,
        seed: u64,
    ) -> Result<(Recording, Self::History), String>;

    /// Opens what a power cut left, at some moment from `first` to `last`, holds it against the history, and works on.
    /// Returns the history from here on, whose moments are those of `recorder`.
    ///
    /// # Errors
    ///
    /// A sentence: which word was not kept.
    fn examine(
        &self,
        runtime: &Runtime,
        root: &Path,
        history: &Self::History,
        moments: (usize, usize),
        recorder: Option<&Recorder>,
    ) -> Result<Self::History, String>;
}

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub struct Campaign {
    /// So many images at least, unless the time is over before.
    pub images: u64,
    /// The time, if it is limited.
    pub time: Option<Duration>,
    /// Where chance begins; each recording takes the next one.
    pub seed: u64,
    /// How many threads examine.
    pub threads: usize,
    /// How much is taken from each moment.
    pub effort: Effort,
    /// At most so many images are taken from one recording, so that there are many.
    pub images_of_one: usize,
    /// In each so-manieth examination the power goes again.
    pub again: usize,
    /// At most so many images are taken from one such examination.
    pub images_again: usize,
}

impl Campaign {
    /// Returns a campaign of so many images, with a thread for each processor.
    #[must_use]
    pub fn of(images: u64, seed: u64) -> Self {
        Self {
            images,
            time: None,
            seed,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            effort: Effort { moments: usize::MAX, random: 3, prefixes: 1 },
            images_of_one: 1_200,
            again: 40,
            images_again: 20,
        }
    }
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Recordings of work.
    pub recordings: u64,
    /// Things that happened in them.
    pub events: u64,
    /// Images that were examined, those below included.
    pub images: u64,
    /// Images of power cuts inside an examination.
    pub again: u64,
    /// Images by what became of what was not synced.
    pub by_fate: BTreeMap<How, u64>,
    /// How long the examinations took.
    pub took: Duration,
}

impl Tally {
    /// Returns how many images a second were examined.
    #[must_use]
    pub fn rate(&self) -> u64 {
        let millis = self.took.as_millis().max(1);
        u64::try_from(u128::from(self.images) * 1_000 / millis).unwrap_or(u64::MAX)
    }
}

/// A word that was not kept.
#[derive(Debug)]
pub struct Finding {
    /// What was examined.
    pub subject: &'static str,
    /// The seed of the recording.
    pub seed: u64,
    /// What became of what was not synced.
    pub how: How,
    /// When the power went.
    pub moments: (usize, usize),
    /// Whether it went again inside the recovery.
    pub again: bool,
    /// What is wrong.
    pub what: String,
    /// The image, kept for whoever wants to look at it.
    pub kept: PathBuf,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, seed, how, moments: (first, last), again, what, kept } = self;
        let again = if *again { ", in a recovery" } else { "" };
        write!(
            f,
            "{subject}: {what}\n  seed {seed}, power lost between events {first} and {last}{again}, \
             what was not synced: {how:?}\n  the image is in {}",
            kept.display()
        )
    }
}

/// Makes a directory for images: in memory where that is possible, since they are many.
///
/// # Errors
///
/// Those of the file system.
pub fn room() -> io::Result<TempDir> {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }
}

/// Makes a runtime for one thread of examinations.
///
/// # Errors
///
/// Those of the system.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

impl Campaign {
    /// Carries it out.
    ///
    /// # Errors
    ///
    /// The first word that was not kept.
    ///
    /// # Panics
    ///
    /// When the machine has no room or no threads.
    pub fn run<S: Subject>(&self, subject: &S) -> Result<Tally, Box<Finding>> {
        let mut tally = Tally::default();
        let begun = Instant::now();
        let mut seed = self.seed;
        while tally.images < self.images && self.time.is_none_or(|time| begun.elapsed() < time) {
            self.round(subject, seed, &mut tally)?;
            seed += 1;
        }
        Ok(tally)
    }

    /// Records once and examines the images of that.
    fn round<S: Subject>(
        &self,
        subject: &S,
        seed: u64,
        tally: &mut Tally,
    ) -> Result<(), Box<Finding>> {
        let work = room().expect("room for files");
        let recorded = subject.record(&runtime().expect("a runtime"), work.path(), seed);
        let recorded = recorded.and_then(|(recording, history)| {
            let silent = recording.events.is_empty();
            if silent { Err("nothing was recorded".to_owned()) } else { Ok((recording, history)) }
        });
        let (recording, history) = recorded.map_err(|what| {
            let kept = work.keep();
            let (how, moments) = (How::Kept, (0, 0));
            let subject = subject.name();
            Box::new(Finding { subject, seed, how, moments, again: false, what, kept })
        })?;
        let mut found = crashes(&recording, self.effort, seed);
        let left = usize::try_from(self.images - tally.images).unwrap_or(usize::MAX);
        spread(&mut found, left.min(self.images_of_one));
        tally.recordings += 1;
        tally.events += recording.events.len() as u64;
        let begun = Instant::now();
        let examined = self.examine_all(subject, seed, &history, &found);
        tally.took += begun.elapsed();
        for how in examined? {
            tally.images += 1;
            *tally.by_fate.entry(how.0).or_default() += 1;
            tally.again += u64::from(how.1);
        }
        Ok(())
    }

    /// Examines images on all threads; returns of each what became of it, and whether it was one inside a recovery.
    fn examine_all<S: Subject>(
        &self,
        subject: &S,
        seed: u64,
        history: &S::History,
        found: &[Crash],
    ) -> Result<Vec<(How, bool)>, Box<Finding>> {
        let next = AtomicUsize::new(0);
        let over = AtomicBool::new(false);
        let results = Mutex::new((Vec::with_capacity(found.len()), None));
        let work = || {
            let mut bench = Bench::new(self, subject, seed);
            while !over.load(Ordering::Relaxed) {
                let nth = next.fetch_add(1, Ordering::Relaxed);
                let Some(crash) = found.get(nth) else { break };
                if let Err(finding) = bench.examine(history, crash, nth.is_multiple_of(self.again))
                {
                    over.store(true, Ordering::Relaxed);
                    results.lock().unwrap_or_else(PoisonError::into_inner).1 = Some(finding);
                }
            }
            results.lock().unwrap_or_else(PoisonError::into_inner).0.extend(bench.done);
        };
        std::thread::scope(|scope| {
            for _ in 1..self.threads {
                scope.spawn(work);
            }
            work();
        });
        let (done, finding) = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        match finding {
            Some(finding) => Err(finding),
            None => Ok(done),
        }
    }
}

/// Keeps `most` of a list, evenly spread.
fn spread<T>(list: &mut Vec<T>, most: usize) {
    let len = list.len();
    if len > most {
        let mut nth = 0;
        list.retain(|_| {
            nth += 1;
            nth * most / len != (nth - 1) * most / len
        });
    }
}

/// What one thread examines with.
struct Bench<'a, S: Subject> {
    campaign: &'a Campaign,
    subject: &'a S,
    seed: u64,
    runtime: Runtime,
    root: TempDir,
    done: Vec<(How, bool)>,
}

impl<'a, S: Subject> Bench<'a, S> {
    fn new(campaign: &'a Campaign, subject: &'a S, seed: u64) -> Self {
        let (runtime, root) = (runtime().expect("a runtime"), room().expect("room for images"));
        Self { campaign, subject, seed, runtime, root, done: Vec::new() }
    }

    fn examine(
        &mut self,
        history: &S::History,
        crash: &Crash,
        again: bool,
    ) -> Result<(), Box<Finding>> {
        let Self { subject, runtime, root, .. } = &*self;
        let moments = (crash.first, crash.last);
        crash.image.write(root.path()).expect("room for an image");
        if !again {
            let examined = subject.examine(runtime, root.path(), history, moments, None);
            examined.map_err(|what| self.finding(crash, false, what))?;
            self.done.push((crash.how, false));
            return Ok(());
        }
        let recorder = Recorder::start(root.path(), subject.ignored()).expect("a recording");
        let examined = subject.examine(runtime, root.path(), history, moments, Some(&recorder));
        let after = examined.map_err(|what| self.finding(crash, false, what))?;
        let recording = recorder.finish();
        self.done.push((crash.how, false));
        // Each moment gives some.
        let effort = Effort { moments: self.campaign.images_again / 2, ..self.campaign.effort };
        let mut found = crashes(&recording, effort, self.seed);
        spread(&mut found, self.campaign.images_again);
        for crash in found {
            crash.image.write(self.root.path()).expect("room for an image");
            let moments = (crash.first, crash.last);
            let examined =
                self.subject.examine(&self.runtime, self.root.path(), &after, moments, None);
            examined.map_err(|what| self.finding(&crash, true, what))?;
            self.done.push((crash.how, true));
        }
        Ok(())
    }

    fn finding(&self, crash: &Crash, again: bool, what: String) -> Box<Finding> {
        let kept = room().expect("room for the image").keep();
        // What was examined is not what it was any more.
        crash.image.write(&kept).expect("room for the image");
        Box::new(Finding {
            subject: self.subject.name(),
            seed: self.seed,
            how: crash.how,
            moments: (crash.first, crash.last),
            again,
            what,
            kept,
        })
    }
}
