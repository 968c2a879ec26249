//! The suite of [`DiffWatch`].
#![expect(clippy::panic, reason = "a case that fails panics")]

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;
use windlass_core::diff_ledger::DiffMirror;
use windlass_core::diff_watch::{
    DiffCursor, DiffEvent, DiffFollower, DiffWatch, DiffWatchError, ToldDiff,
};
use windlass_core::id::AttemptId;
use windlass_core::locator::Locator;
use windlass_core::vcs_worktree::{
    ChangeKind, CreateMode, Creation, DiffDetail, FileDiff, Origin, VcsWorktree, VcsWorktreeError,
    WorktreeRequest,
};
use windlass_core::workspace::Worktree;

use crate::vcs_worktree::VcsWorktreePlace;

/// After this somebody who waits for an event is told that there is none.
const PATIENCE: Duration = Duration::from_secs(20);

/// The two ports of one backend.
#[derive(Clone, Debug)]
pub struct Ports {
    /// What makes and compares worktrees.
    pub worktrees: Arc<dyn VcsWorktree>,
    /// What follows their diffs.
    pub watch: Arc<dyn DiffWatch>,
}

/// Where a backend keeps worktrees whose diffs can be followed.
pub trait DiffWatchPlace: VcsWorktreePlace {
    /// Opens the backend. A second time is a restart of the same data directory.
    fn open_watched(&self) -> impl Future<Output = Ports> + Send;
}

/// Expands places into named tests of every case: `diff_watch_suite! { memory => crate::place::Memory }`.
#[macro_export]
macro_rules! diff_watch_suite {
    ($($name:ident => $place:ty),+ $(,)?) => {
        $crate::expand!(diff_watch { $($name => $place),+ } [
            a_follower_is_told_all_that_differs_and_that_it_is_current,
            an_edit_is_told_alone,
            what_does_not_differ_any_more_is_removed,
            a_file_that_is_renamed_is_told_as_that,
            what_is_ignored_is_not_told,
            rules_that_change_change_what_is_told,
            a_commit_goes_on_in_its_generation,
            another_branch_begins_a_generation,
            followers_are_told_the_same_whenever_they_begin,
            a_cursor_goes_on_where_it_was,
            a_cursor_of_before_a_restart_begins_anew,
            a_worktree_that_is_gone_ends_it,
            what_is_no_worktree_is_not_followed,
        ]);
    };
}

/// One follower, and what it knows.
#[derive(Debug)]
pub struct Following {
    follower: Box<dyn DiffFollower>,
    /// What it was told comes to.
    pub mirror: DiffMirror,
    /// Where it is.
    pub cursor: Option<DiffCursor>,
}

impl Following {
    /// Begins to follow, or goes on where `before` was.
    ///
    /// # Panics
    ///
    /// When that is refused.
    pub fn begin(
        ports: &Ports,
        worktree: &Worktree,
        before: Option<Self>,
    ) -> impl Future<Output = Self> + Send {
        Self::follow(ports, worktree, before)
    }

    async fn follow(ports: &Ports, worktree: &Worktree, before: Option<Self>) -> Self {
        let (mirror, cursor) = match before {
            Some(before) => (before.mirror, before.cursor),
            None => (DiffMirror::default(), None),
        };
        let follower = ports.watch.follow(attempt(), worktree, cursor).await.expect("a follower");
        Self { follower, mirror, cursor }
    }

    /// Waits for the next page.
    ///
    /// # Errors
    ///
    /// What the follower says.
    ///
    /// # Panics
    ///
    /// When nothing comes for a minute.
    pub fn read_on(
        &mut self,
    ) -> impl Future<Output = Result<Vec<ToldDiff>, DiffWatchError>> + Send {
        self.page_in_time()
    }

    async fn page_in_time(&mut self) -> Result<Vec<ToldDiff>, DiffWatchError> {
        let next = tokio::time::timeout(PATIENCE, self.page()).await;
        next.unwrap_or_else(|_| panic!("nothing is told; known: {:#?}", self.mirror))
    }

    async fn page(&mut self) -> Result<Vec<ToldDiff>, DiffWatchError> {
        let told = self.follower.next().await?;
        assert!(!told.is_empty(), "a page has one event at least");
        for told in &told {
            self.mirror.apply(&told.event);
            self.cursor = Some(told.cursor);
        }
        Ok(told)
    }

    /// Waits until what is known is what a plain diff answers; returns all that was told until then.
    ///
    /// # Panics
    ///
    /// When it does not come to that.
    pub fn settle(
        &mut self,
        ports: &Ports,
        worktree: &Worktree,
    ) -> impl Future<Output = Vec<DiffEvent>> + Send {
        self.come_to_a_plain_diff(ports, worktree)
    }

    async fn come_to_a_plain_diff(&mut self, ports: &Ports, worktree: &Worktree) -> Vec<DiffEvent> {
        let diff = ports.worktrees.diff(attempt(), worktree, DiffDetail::Files);
        let diff = diff.await.expect("a diff");
        let mut events = Vec::new();
        while !self.mirror.is_current()
            || self.mirror.base() != Some(&diff.base)
            || self.mirror.head() != Some(&diff.head)
            || !self.mirror.files().eq(&diff.files)
        {
            let next = tokio::time::timeout(PATIENCE, self.page()).await;
            let told = next.unwrap_or_else(|_| {
                panic!("it does not come to {diff:#?}\nbut is {:#?}", self.mirror)
            });
            events.extend(told.expect("events").into_iter().map(|told| told.event));
        }
        events
    }
}

/// The attempt of every case.
#[must_use]
pub fn attempt() -> AttemptId {
    AttemptId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001))
}

/// Makes a repository with two files, `greeting` and `sub/numbers`, and a worktree of it.
///
/// # Panics
///
/// When that cannot be done at once.
pub fn worktree(
    place: &impl DiffWatchPlace,
) -> impl Future<Output = (Ports, Locator, Worktree)> + Send {
    make_worktree(place)
}

async fn make_worktree(place: &impl DiffWatchPlace) -> (Ports, Locator, Worktree) {
    let repo = place.init();
    place.write(&repo, "greeting", "hello\n");
    place.write(&repo, "sub/numbers", "1\n2\n3\n");
    place.commit(&repo, "first");
    let ports = place.open_watched().await;
    let request = WorktreeRequest {
        attempt: attempt(),
        repo: repo.clone(),
        base: None,
        branch: None,
        title: "Followed".to_owned(),
        copy: Vec::new(),
    };
    let worktree = ports.worktrees.plan(request).await.expect("a plan").worktree;
    let made = ports.worktrees.create(attempt(), &worktree, &Origin::Base, CreateMode::Begin);
    let Creation::Done(_) = made.await.expect("a worktree") else { panic!("a step for nothing") };
    (ports, repo, worktree)
}

fn names(mirror: &DiffMirror) -> Vec<(String, ChangeKind)> {
    mirror.files().map(|file| (file.path.to_string(), file.change)).collect()
}

fn told_files(events: &[DiffEvent]) -> Vec<&FileDiff> {
    let mut files = Vec::new();
    for event in events {
        if let DiffEvent::File { file, .. } = event {
            files.push(file);
        }
    }
    files
}

fn generations(events: &[DiffEvent]) -> usize {
    events.iter().filter(|event| matches!(event, DiffEvent::Began { .. })).count()
}

/// The first thing is where it begins, the last that it is all.
pub async fn a_follower_is_told_all_that_differs_and_that_it_is_current(
    place: impl DiffWatchPlace,
) {
    let (ports, _, worktree) = worktree(&place).await;
    place.write(&worktree.path, "greeting", "hello\nworld\n");
    place.write(&worktree.path, "new", "1\n");
    place.delete(&worktree.path, "sub/numbers");
    let mut following = Following::begin(&ports, &worktree, None).await;
    let events = following.settle(&ports, &worktree).await;
    assert!(matches!(&events[0], DiffEvent::Began { base, branch, .. }
        if *base == worktree.base_oid && branch.as_ref() == Some(&worktree.branch)));
    assert!(matches!(events.last(), Some(DiffEvent::Current { unwatched: 0, .. })));
    let patch = String::from_utf8(following.mirror.patch()).expect("text");
    for line in ["+++ b/greeting\n", "+world\n", "+++ b/new\n", "--- a/sub/numbers\n"] {
        assert!(patch.contains(line), "{line:?} in {patch}");
    }
}

/// What did not change is not told again.
pub async fn an_edit_is_told_alone(place: impl DiffWatchPlace) {
    let (ports, _, worktree) = worktree(&place).await;
    place.write(&worktree.path, "greeting", "bye\n");
    let mut following = Following::begin(&ports, &worktree, None).await;
    following.settle(&ports, &worktree).await;
    place.write(&worktree.path, "sub/numbers", "1\n2\n3\n4\n");
    let events = following.settle(&ports, &worktree).await;
    let paths: Vec<_> = told_files(&events).iter().map(|file| file.path.to_string()).collect();
    assert!(paths.iter().all(|path| path == "sub/numbers"), "{paths:?}");
    assert_eq!(generations(&events), 0);
    place.make_executable(&worktree.path, "sub/numbers");
    following.settle(&ports, &worktree).await;
    let modes: Vec<_> = following.mirror.files().map(|file| file.mode.as_deref()).collect();
    assert_eq!(modes, [Some("100644"), Some("100755")]);
}

/// Files that are as they were, and new ones that are gone again.
pub async fn what_does_not_differ_any_more_is_removed(place: impl DiffWatchPlace) {
    let (ports, _, worktree) = worktree(&place).await;
    place.write(&worktree.path, "greeting", "bye\n");
    place.write(&worktree.path, "new/file", "x\n");
    let mut following = Following::begin(&ports, &worktree, None).await;
    following.settle(&ports, &worktree).await;
    place.delete(&worktree.path, "new/file");
    place.write(&worktree.path, "greeting", "hello\n");
    let events = following.settle(&ports, &worktree).await;
    let removed = |event: &&DiffEvent| matches!(event, DiffEvent::Removed { .. });
    assert_eq!(events.iter().filter(removed).count(), 2, "{events:?}");
    assert_eq!(following.mirror.files().count(), 0);
}

/// Also if only one of both paths is touched at a time.
pub async fn a_file_that_is_renamed_is_told_as_that(place: impl DiffWatchPlace) {
    let (ports, _, worktree) = worktree(&place).await;
    let mut following = Following::begin(&ports, &worktree, None).await;
    following.settle(&ports, &worktree).await;
    place.write(&worktree.path, "moved", "1\n2\n3\n");
    following.settle(&ports, &worktree).await;
    assert_eq!(names(&following.mirror), [("moved".to_owned(), ChangeKind::Added)]);
    place.delete(&worktree.path, "sub/numbers");
    following.settle(&ports, &worktree).await;
    assert_eq!(names(&following.mirror), [("moved".to_owned(), ChangeKind::Renamed)]);
    place.write(&worktree.path, "sub/numbers", "1\n2\n3\n");
    following.settle(&ports, &worktree).await;
    assert_eq!(names(&following.mirror), [("moved".to_owned(), ChangeKind::Added)]);
}

/// Whatever happens to it.
pub async fn what_is_ignored_is_not_told(place: impl DiffWatchPlace) {
    let (ports, _, worktree) = worktree(&place).await;
    place.ignore(&worktree.path, "noise");
    let mut following = Following::begin(&ports, &worktree, None).await;
    following.settle(&ports, &worktree).await;
    for round in 0..3 {
        place.write(&worktree.path, "noise", &format!("{round}\n"));
    }
    place.write(&worktree.path, "greeting", "bye\n");
    let events = following.settle(&ports, &worktree).await;
    let paths: Vec<_> = told_files(&events).iter().map(|file| file.path.to_string()).collect();
    assert!(!paths.is_empty() && paths.iter().all(|path| path == "greeting"), "{paths:?}");
}

/// What was there all the time comes and goes with the rules.
pub async fn rules_that_change_change_what_is_told(place: impl DiffWatchPlace) {
    let (ports, _, worktree) = worktree(&place).await;
    place.write(&worktree.path, "noise", "x\n");
    let mut following = Following::begin(&ports, &worktree, None).await;
    following.settle(&ports, &worktree).await;
    place.ignore(&worktree.path, "noise");
    following.settle(&ports, &worktree).await;
    assert_eq!(names(&following.mirror), [(".gitignore".to_owned(), ChangeKind::Added)]);
    place.delete(&worktree.path, ".gitignore");
    following.settle(&ports, &worktree).await;
    assert_eq!(names(&following.mirror), [("noise".to_owned(), ChangeKind::Added)]);
}

/// It changes HEAD, and whether files are tracked.
pub async fn a_commit_goes_on_in_its_generation(place: impl DiffWatchPlace) {
    let (ports, _, worktree) = worktree(&place).await;
    place.write(&worktree.path, "new", "1\n");
    let mut following = Following::begin(&ports, &worktree, None).await;
    following.settle(&ports, &worktree).await;
    assert!(following.mirror.files().all(|file| file.untracked));
    let head = place.commit(&worktree.path, "work");
    let events = following.settle(&ports, &worktree).await;
    assert_eq!((generations(&events), following.mirror.head()), (0, Some(&head)));
    assert!(following.mirror.files().all(|file| !file.untracked));
}

/// Also if nothing differs otherwise than before.
pub async fn another_branch_begins_a_generation(place: impl DiffWatchPlace) {
    let (ports, _, worktree) = worktree(&place).await;
    place.write(&worktree.path, "new", "1\n");
    let mut following = Following::begin(&ports, &worktree, None).await;
    following.settle(&ports, &worktree).await;
    let before = following.mirror.generation();
    place.switch(&worktree.path, "elsewhere");
    while following.mirror.branch() != Some("elsewhere") {
        following.read_on().await.expect("events");
    }
    following.settle(&ports, &worktree).await;
    assert!(following.mirror.generation() > before);
    assert_eq!(names(&following.mirror), [("new".to_owned(), ChangeKind::Added)]);
}

/// Early, late, or slow.
pub async fn followers_are_told_the_same_whenever_they_begin(place: impl DiffWatchPlace) {
    let (ports, _, worktree) = worktree(&place).await;
    let mut early = Following::begin(&ports, &worktree, None).await;
    let mut slow = Following::begin(&ports, &worktree, None).await;
    early.settle(&ports, &worktree).await;
    for number in 0..20 {
        // The counts tell one content from another.
        place.write(&worktree.path, &format!("new-{}", number % 7), &"x\n".repeat(number + 1));
        early.settle(&ports, &worktree).await;
    }
    let mut late = Following::begin(&ports, &worktree, None).await;
    for other in [&mut slow, &mut late] {
        let events = other.settle(&ports, &worktree).await;
        assert!(told_files(&events).len() <= 14, "each file is told once, or nearly: {events:?}");
        assert_eq!(other.mirror, early.mirror);
    }
}

/// While it is watched still, nothing is told twice.
pub async fn a_cursor_goes_on_where_it_was(place: impl DiffWatchPlace) {
    let (ports, _, worktree) = worktree(&place).await;
    place.write(&worktree.path, "greeting", "bye\n");
    let mut other = Following::begin(&ports, &worktree, None).await;
    other.settle(&ports, &worktree).await;
    let mut following = Following::begin(&ports, &worktree, None).await;
    following.settle(&ports, &worktree).await;
    let before = Following::begin(&ports, &worktree, Some(following)).await;
    place.write(&worktree.path, "new", "1\n");
    let mut following = Following::begin(&ports, &worktree, Some(before)).await;
    let events = following.settle(&ports, &worktree).await;
    assert_eq!(generations(&events), 0);
    let paths: Vec<_> = told_files(&events).iter().map(|file| file.path.to_string()).collect();
    assert!(paths.iter().all(|path| path == "new"), "{paths:?}");
}

/// It is not mistaken for one of the new watch.
pub async fn a_cursor_of_before_a_restart_begins_anew(place: impl DiffWatchPlace) {
    let (ports, _, worktree) = worktree(&place).await;
    place.write(&worktree.path, "greeting", "bye\n");
    let mut following = Following::begin(&ports, &worktree, None).await;
    following.settle(&ports, &worktree).await;
    let generation = following.mirror.generation();
    drop(ports);
    let ports = place.open_watched().await;
    place.write(&worktree.path, "greeting", "hello\n");
    let mut following = Following::begin(&ports, &worktree, Some(following)).await;
    let events = following.settle(&ports, &worktree).await;
    assert_eq!(generations(&events), 1);
    assert!(following.mirror.generation() > generation);
    assert_eq!(following.mirror.files().count(), 0);
}

/// It is told, not waited for.
pub async fn a_worktree_that_is_gone_ends_it(place: impl DiffWatchPlace) {
    let (ports, _, worktree) = worktree(&place).await;
    let mut following = Following::begin(&ports, &worktree, None).await;
    following.settle(&ports, &worktree).await;
    place.delete_directory(&worktree.path);
    let error = loop {
        if let Err(error) = following.read_on().await {
            break error;
        }
    };
    let DiffWatchError::Worktree(error) = error else { panic!("{error:?}") };
    assert!(
        matches!(*error, VcsWorktreeError::Gone { .. } | VcsWorktreeError::Mismatch { .. }),
        "{error:?}"
    );
}

/// It is said at once.
pub async fn what_is_no_worktree_is_not_followed(place: impl DiffWatchPlace) {
    let (ports, _, worktree) = worktree(&place).await;
    place.delete_directory(&worktree.path);
    let error = ports.watch.follow(attempt(), &worktree, None).await.expect_err("nothing there");
    let DiffWatchError::Worktree(error) = error else { panic!("{error:?}") };
    assert!(matches!(*error, VcsWorktreeError::Gone { .. }), "{error:?}");
}
