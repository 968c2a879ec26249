//! Cases of the port [`VcsWorktree`].
#![expect(clippy::panic, reason = "a case fails by panicking")]

mod changes;
mod making;
mod removal;
mod reset;
mod restore;
mod save;
mod survey;
mod whose;

use std::future::Future;
use std::sync::Arc;

use uuid::Uuid;
use windlass_core::id::AttemptId;
use windlass_core::locator::Locator;
use windlass_core::snapshot::SnapshotNumber;
use windlass_core::vcs_worktree::{
    GitStep, Identity, Origin, Removed, SaveRequest, Saved, VcsWorktree, VcsWorktreeError,
    VcsWorktreeExt as _, WorktreeRequest,
};
use windlass_core::workspace::{Oid, Worktree};

pub use self::changes::{
    a_commit_is_by_the_repositorys_identity_if_it_has_one,
    a_commit_step_takes_everything_and_commits_once, a_diff_ends_at_the_merge_base,
    a_diff_names_every_kind_of_change, a_new_worktree_has_no_diff, a_patch_is_made_on_request_only,
    ignored_files_are_no_dirt, nothing_to_commit_is_clean, status_tells_dirt_and_distance,
};
pub use self::making::{
    MakeAtOnce, a_filter_has_a_part_in_making_a_worktree_again_and_the_hook_has_none,
    a_half_made_worktree_is_found_by_nothing_but_a_creation_or_a_removal,
    a_hook_runs_once_in_a_step_and_whoever_comes_next_concludes,
    a_step_that_failed_is_undone_and_can_be_asked_for_again,
    a_step_that_nobody_ran_is_asked_for_anew, concluding_needs_a_step_that_is_complete,
    creating_what_is_there_keeps_it,
};
pub use self::removal::{
    a_branch_is_deleted_only_if_its_commits_were_saved,
    a_clean_worktree_is_removed_and_its_branch_kept, committed_work_does_not_hinder_removal,
    removing_what_somebody_deleted_frees_the_repository, what_is_not_ours_is_not_removed,
    what_was_not_saved_is_not_removed, what_was_staged_in_a_deleted_worktree_comes_back,
};
pub use self::reset::{
    a_reset_ends_a_merge, a_reset_moves_no_branch_of_somebody_else,
    a_reset_undoes_only_what_was_saved, a_reset_undoes_what_a_commit_would_take,
    nothing_to_undo_needs_no_step,
};
pub use self::restore::{
    a_branch_that_is_checked_out_elsewhere_is_left_there,
    a_branch_that_is_gone_comes_back_with_its_worktree, a_branch_that_moved_on_is_left_where_it_is,
    a_clean_worktree_comes_back_on_its_branch, a_snapshot_that_is_gone_restores_nothing,
    commits_that_no_branch_reaches_come_back, copied_files_are_no_work_and_come_back,
    ignored_files_are_copied_in_by_globs, nothing_is_restored_over_a_strangers_directory,
    restoring_what_is_there_keeps_it, the_index_comes_back, what_was_dirty_comes_back_as_it_was,
    what_was_saved_and_not_removed_is_put_back,
};
pub use self::save::{
    a_merge_that_has_not_ended_refuses_and_can_be_saved, ignored_files_are_chosen_by_size_or_globs,
    saving_again_gives_the_same_answer, saving_in_place_leaves_the_worktree,
    what_cannot_be_saved_is_named_and_nothing_is_touched, what_is_discarded_is_left_out_and_named,
    what_is_ignored_by_default_is_saved,
};
pub use self::survey::{
    a_survey_tells_what_is_there, a_survey_touches_and_lists_nothing_of_others,
};
pub use self::whose::{
    a_directory_that_was_deleted_is_gone, a_directory_that_was_replaced_is_a_mismatch,
    a_path_outside_the_root_is_a_mismatch, another_attempt_is_a_mismatch,
    another_data_directory_is_a_mismatch,
};

/// Where a backend keeps its worktrees, and a user with repositories beside it.
///
/// The user's actions are what a person does with an editor, a shell and git; they panic where that would fail.
pub trait VcsWorktreePlace: Default + Send + Sync {
    /// Opens the backend. A second time is a restart of the same data directory.
    fn open(&self) -> impl Future<Output = Arc<dyn VcsWorktree>> + Send;

    /// Opens the backend for another data directory beside it.
    fn open_other(&self) -> impl Future<Output = Arc<dyn VcsWorktree>> + Send;

    /// Makes an empty repository with branch `main` checked out and returns its directory.
    fn init(&self) -> Locator;

    /// Makes a directory that is in no repository.
    fn directory(&self) -> Locator;

    /// Writes a file, with the directories on the way.
    fn write(&self, dir: &Locator, path: &str, content: &str);

    /// Reads a file; `None` if there is none.
    fn read(&self, dir: &Locator, path: &str) -> Option<String>;

    /// Deletes a file.
    fn delete(&self, dir: &Locator, path: &str);

    /// Makes a file executable.
    fn make_executable(&self, dir: &Locator, path: &str);

    /// Makes an entry that is neither file nor link nor directory, for example a named pipe.
    fn make_special(&self, dir: &Locator, path: &str);

    /// Puts a file as it is, or its deletion, into the index.
    fn stage(&self, dir: &Locator, path: &str);

    /// Reads a file of the index; `None` if there is none.
    fn indexed(&self, dir: &Locator, path: &str) -> Option<String>;

    /// Gives the repository a hook that runs after the checkout of a new worktree, leaves the file `hooked` there, and fails
    /// or not.
    fn hook(&self, dir: &Locator, fails: bool);

    /// Counts how often the hook ran.
    fn hook_runs(&self, dir: &Locator) -> u32;

    /// Has the committed file `greeting` pass a filter when it is checked out, which leaves it as it is.
    fn filter(&self, dir: &Locator);

    /// Begins to merge a branch that has commits of its own, in a way that changes no file, and does not end it.
    fn begin_merge(&self, dir: &Locator, branch: &str);

    /// Says whether a merge has begun and not ended.
    fn is_merging(&self, dir: &Locator) -> bool;

    /// Deletes a branch that is checked out nowhere.
    fn delete_branch(&self, dir: &Locator, name: &str);

    /// Has git ignore the files of this name, by a committed `.gitignore` with one name a line.
    fn ignore(&self, dir: &Locator, name: &str) {
        self.write(dir, ".gitignore", &format!("{name}\n"));
    }

    /// Commits everything in a checkout, as somebody with an identity of his own.
    fn commit(&self, dir: &Locator, message: &str) -> Oid;

    /// Gives the repository an identity.
    fn identify(&self, dir: &Locator, identity: &Identity);

    /// Makes a branch at HEAD without checking it out.
    fn branch(&self, dir: &Locator, name: &str);

    /// Tags HEAD.
    fn tag(&self, dir: &Locator, name: &str);

    /// Renames the branch that is checked out.
    fn rename_branch(&self, dir: &Locator, name: &str);

    /// Makes a branch at HEAD and checks it out.
    fn switch(&self, dir: &Locator, name: &str);

    /// Detaches HEAD from its branch.
    fn detach(&self, dir: &Locator);

    /// Lists the branches of the repository, sorted.
    fn branches(&self, dir: &Locator) -> Vec<String>;

    /// Reads the commit of a branch.
    fn tip(&self, dir: &Locator, branch: &str) -> Oid;

    /// Deletes a whole directory.
    fn delete_directory(&self, dir: &Locator);

    /// Puts an ordinary directory with one file in a directory's place.
    fn replace_directory(&self, dir: &Locator);

    /// Says whether there is a directory.
    fn exists(&self, dir: &Locator) -> bool;

    /// Runs a git step to its end; says whether it ended with 0.
    fn perform(&self, step: &GitStep) -> bool;

    /// Reads message and author of the commit that HEAD names.
    fn last_commit(&self, dir: &Locator) -> (String, Identity);
}

/// Expands places into named tests of every case.
///
/// ```ignore
/// windlass_conformance::vcs_worktree_suite! {
///     memory => crate::place::Memory,
/// }
/// ```
#[macro_export]
macro_rules! vcs_worktree_suite {
    ($($name:ident => $place:ty),+ $(,)?) => {
        $crate::expand!(vcs_worktree { $($name => $place),+ } [
            a_plan_makes_nothing,
            a_new_worktree_holds_the_base_on_a_new_branch,
            uncommitted_changes_of_the_source_are_mentioned_and_stay_out,
            creating_what_is_there_keeps_it,
            a_branch_that_exists_is_refused_and_left_alone,
            a_branch_below_another_is_refused,
            bases_are_branches_tags_and_commits,
            a_base_that_names_nothing_is_refused,
            a_repository_without_a_commit_is_refused,
            a_directory_in_no_repository_is_refused,
            a_name_that_is_no_branch_name_is_refused,
            titles_of_any_script_name_branches,
            attempts_of_one_title_do_not_meet,
            a_worktree_of_a_worktree_belongs_to_the_repository,
            a_restart_finds_the_worktree,
            a_hook_runs_once_in_a_step_and_whoever_comes_next_concludes,
            a_step_that_failed_is_undone_and_can_be_asked_for_again,
            a_step_that_nobody_ran_is_asked_for_anew,
            concluding_needs_a_step_that_is_complete,
            a_half_made_worktree_is_found_by_nothing_but_a_creation_or_a_removal,
            a_filter_has_a_part_in_making_a_worktree_again_and_the_hook_has_none,
            branches_that_are_renamed_switched_or_left_are_followed,
            another_attempt_is_a_mismatch,
            another_data_directory_is_a_mismatch,
            a_path_outside_the_root_is_a_mismatch,
            a_directory_that_was_deleted_is_gone,
            a_directory_that_was_replaced_is_a_mismatch,
            status_tells_dirt_and_distance,
            ignored_files_are_no_dirt,
            a_new_worktree_has_no_diff,
            a_diff_names_every_kind_of_change,
            a_diff_ends_at_the_merge_base,
            a_patch_is_made_on_request_only,
            nothing_to_commit_is_clean,
            a_commit_step_takes_everything_and_commits_once,
            a_commit_is_by_the_repositorys_identity_if_it_has_one,
            a_reset_undoes_what_a_commit_would_take,
            a_reset_ends_a_merge,
            a_reset_moves_no_branch_of_somebody_else, a_reset_undoes_only_what_was_saved,
            nothing_to_undo_needs_no_step,
            saving_again_gives_the_same_answer,
            saving_in_place_leaves_the_worktree,
            what_cannot_be_saved_is_named_and_nothing_is_touched,
            what_is_discarded_is_left_out_and_named,
            a_merge_that_has_not_ended_refuses_and_can_be_saved,
            what_is_ignored_by_default_is_saved,
            ignored_files_are_chosen_by_size_or_globs,
            a_clean_worktree_is_removed_and_its_branch_kept,
            committed_work_does_not_hinder_removal,
            what_was_not_saved_is_not_removed,
            what_is_not_ours_is_not_removed,
            removing_what_somebody_deleted_frees_the_repository,
            what_was_staged_in_a_deleted_worktree_comes_back,
            a_branch_is_deleted_only_if_its_commits_were_saved,
            a_clean_worktree_comes_back_on_its_branch,
            what_was_dirty_comes_back_as_it_was,
            the_index_comes_back,
            commits_that_no_branch_reaches_come_back,
            a_branch_that_moved_on_is_left_where_it_is,
            a_branch_that_is_checked_out_elsewhere_is_left_there,
            a_branch_that_is_gone_comes_back_with_its_worktree,
            restoring_what_is_there_keeps_it,
            what_was_saved_and_not_removed_is_put_back,
            nothing_is_restored_over_a_strangers_directory,
            a_snapshot_that_is_gone_restores_nothing,
            ignored_files_are_copied_in_by_globs,
            copied_files_are_no_work_and_come_back,
            a_survey_tells_what_is_there,
            a_survey_touches_and_lists_nothing_of_others,
        ]);
    };
}

/// What comes before a removal by the safe rules.
const REMOVAL: SaveRequest = SaveRequest::before_removal(SnapshotNumber::FIRST);

const FALLBACK: (&str, &str) = ("Fallback Name", "fallback@example.org");

pub(crate) fn fallback() -> Identity {
    Identity { name: FALLBACK.0.to_owned(), email: FALLBACK.1.to_owned() }
}

pub(crate) fn attempt(number: u8) -> AttemptId {
    AttemptId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 | u128::from(number)))
}

pub(crate) fn request(repo: &Locator, number: u8) -> WorktreeRequest {
    WorktreeRequest {
        attempt: attempt(number),
        repo: repo.clone(),
        base: None,
        branch: None,
        title: "Some work".to_owned(),
        copy: Vec::new(),
    }
}

/// Makes a repository with one commit of two files.
pub(crate) fn repository(place: &impl VcsWorktreePlace) -> (Locator, Oid) {
    let repo = place.init();
    place.write(&repo, "greeting", "hello\n");
    place.write(&repo, "sub/numbers", "1\n2\n3\n");
    let oid = place.commit(&repo, "first");
    (repo, oid)
}

/// What a worktree was, as its record keeps it.
fn removed(saved: &Saved) -> Removed {
    let snapshot = saved.snapshot.as_ref().map(|snapshot| snapshot.number);
    Removed { head: saved.head.clone(), branch: saved.branch.clone(), snapshot }
}

/// Saves and removes attempt 1's worktree and returns what it is made again from.
async fn take_away(vcs: &dyn VcsWorktree, worktree: &Worktree, request: &SaveRequest) -> Origin {
    let saved = vcs.save_and_remove(attempt(1), worktree, request).await.expect("removed");
    let verified = vcs.verify(attempt(1), worktree).await;
    assert!(matches!(verified, Err(VcsWorktreeError::Gone { .. })), "{verified:?}");
    Origin::Removed(removed(&saved))
}

/// Makes a worktree for attempt 1 of a new repository.
async fn created(place: &impl VcsWorktreePlace) -> (Arc<dyn VcsWorktree>, Locator, Worktree) {
    let (repo, _) = repository(place);
    let vcs = place.open().await;
    let worktree = vcs.plan(request(&repo, 1)).await.expect("a plan").worktree;
    vcs.make(attempt(1), &worktree, &Origin::Base).await.expect("a worktree");
    (vcs, repo, worktree)
}

/// Planning makes neither branch nor directory.
pub async fn a_plan_makes_nothing(place: impl VcsWorktreePlace) {
    let (repo, oid) = repository(&place);
    let vcs = place.open().await;
    let planned = vcs.plan(request(&repo, 1)).await.expect("a plan");
    assert!(!planned.source_is_dirty);
    assert_eq!(planned.worktree.base, "main");
    assert_eq!(planned.worktree.base_oid, oid);
    assert_eq!(planned.worktree.target.as_deref(), Some("main"));
    assert_eq!(place.branches(&repo), ["main"]);
    assert!(!place.exists(&planned.worktree.path));
    let verified = vcs.verify(attempt(1), &planned.worktree).await;
    assert!(matches!(verified, Err(VcsWorktreeError::Gone { .. })), "{verified:?}");
    let again = vcs.plan(request(&repo, 1)).await.expect("a plan");
    assert_eq!(again, planned);
}

/// A new worktree has the files of its base and a branch of its own.
pub async fn a_new_worktree_holds_the_base_on_a_new_branch(place: impl VcsWorktreePlace) {
    let (repo, oid) = repository(&place);
    let vcs = place.open().await;
    let worktree = vcs.plan(request(&repo, 1)).await.expect("a plan").worktree;
    let verified = vcs.make(attempt(1), &worktree, &Origin::Base).await.expect("a worktree");
    assert_eq!(verified.head, oid);
    assert_eq!(verified.branch.as_deref(), Some(worktree.branch.as_str()));
    assert_eq!(place.read(&worktree.path, "sub/numbers").as_deref(), Some("1\n2\n3\n"));
    assert!(place.branches(&repo).contains(&worktree.branch));
    assert_eq!(vcs.verify(attempt(1), &worktree).await.expect("verified"), verified);
    let status = vcs.status(attempt(1), &worktree).await.expect("a status");
    assert!(!status.dirty);
    assert_eq!((status.ahead, status.behind), (0, 0));
}

/// What is not committed at the source does not come along.
pub async fn uncommitted_changes_of_the_source_are_mentioned_and_stay_out(
    place: impl VcsWorktreePlace,
) {
    let (repo, _) = repository(&place);
    place.write(&repo, "greeting", "changed\n");
    let vcs = place.open().await;
    let planned = vcs.plan(request(&repo, 1)).await.expect("a plan");
    assert!(planned.source_is_dirty);
    vcs.make(attempt(1), &planned.worktree, &Origin::Base).await.expect("a worktree");
    let read = place.read(&planned.worktree.path, "greeting");
    assert_eq!(read.as_deref(), Some("hello\n"));
    assert_eq!(place.read(&repo, "greeting").as_deref(), Some("changed\n"));
}

/// A branch that exists is the user's, by whatever way its name came.
pub async fn a_branch_that_exists_is_refused_and_left_alone(place: impl VcsWorktreePlace) {
    let (repo, oid) = repository(&place);
    let vcs = place.open().await;
    place.branch(&repo, "taken");
    let named = WorktreeRequest { branch: Some("taken".to_owned()), ..request(&repo, 1) };
    let refused = vcs.plan(named).await;
    assert!(matches!(refused, Err(VcsWorktreeError::BranchExists { .. })), "{refused:?}");
    // It may also appear after the plan.
    let worktree = vcs.plan(request(&repo, 1)).await.expect("a plan").worktree;
    place.branch(&repo, &worktree.branch);
    let refused = vcs.make(attempt(1), &worktree, &Origin::Base).await;
    let Err(VcsWorktreeError::BranchExists { branch }) = refused else { panic!("{refused:?}") };
    assert_eq!(branch, worktree.branch);
    assert_eq!(place.tip(&repo, &worktree.branch), oid);
    assert!(!place.exists(&worktree.path));
}

/// Branch names are paths: `a` and `a/b` cannot both be.
pub async fn a_branch_below_another_is_refused(place: impl VcsWorktreePlace) {
    let (repo, _) = repository(&place);
    let vcs = place.open().await;
    place.branch(&repo, "a/b");
    for name in ["a", "a/b/c"] {
        let named = WorktreeRequest { branch: Some(name.to_owned()), ..request(&repo, 1) };
        let refused = vcs.plan(named).await;
        assert!(matches!(refused, Err(VcsWorktreeError::BranchExists { .. })), "{refused:?}");
    }
    let named = WorktreeRequest { branch: Some("a/c".to_owned()), ..request(&repo, 1) };
    let worktree = vcs.plan(named).await.expect("a plan").worktree;
    assert_eq!(worktree.branch, "a/c");
    vcs.make(attempt(1), &worktree, &Origin::Base).await.expect("a worktree");
}

/// A base is whatever names a commit; only a branch becomes the target.
pub async fn bases_are_branches_tags_and_commits(place: impl VcsWorktreePlace) {
    let (repo, first) = repository(&place);
    place.tag(&repo, "v1");
    place.branch(&repo, "old");
    place.write(&repo, "greeting", "second\n");
    let second = place.commit(&repo, "second");
    let vcs = place.open().await;
    for (number, base, oid, target) in [
        (1, "v1", &first, None),
        (2, "old", &first, Some("old")),
        (3, first.0.as_str(), &first, None),
        (4, "main", &second, Some("main")),
        (5, "HEAD", &second, Some("main")),
    ] {
        let named = WorktreeRequest { base: Some(base.to_owned()), ..request(&repo, number) };
        let worktree = vcs.plan(named).await.expect("a plan").worktree;
        assert_eq!(worktree.base, base);
        assert_eq!(worktree.base_oid, *oid, "{base}");
        assert_eq!(worktree.target.as_deref(), target, "{base}");
        let verified =
            vcs.make(attempt(number), &worktree, &Origin::Base).await.expect("a worktree");
        assert_eq!(verified.head, *oid, "{base}");
    }
}

/// An unknown base is named in the refusal.
pub async fn a_base_that_names_nothing_is_refused(place: impl VcsWorktreePlace) {
    let (repo, _) = repository(&place);
    let vcs = place.open().await;
    for base in ["nowhere", "", "-x", "main..main", "0000000000000000000000000000000000000001"] {
        let named = WorktreeRequest { base: Some(base.to_owned()), ..request(&repo, 1) };
        let refused = vcs.plan(named).await;
        let Err(VcsWorktreeError::UnknownBase { base: said }) = refused else {
            panic!("{base:?}: {refused:?}")
        };
        assert_eq!(said, base);
    }
}

/// There is nothing to start from.
pub async fn a_repository_without_a_commit_is_refused(place: impl VcsWorktreePlace) {
    let repo = place.init();
    let vcs = place.open().await;
    let refused = vcs.plan(request(&repo, 1)).await;
    assert!(matches!(refused, Err(VcsWorktreeError::Empty { .. })), "{refused:?}");
}

/// Neither an ordinary directory nor one that is not there will do.
pub async fn a_directory_in_no_repository_is_refused(place: impl VcsWorktreePlace) {
    let vcs = place.open().await;
    let mut nowhere = place.directory().as_bytes().to_vec();
    for _ in 0..2 {
        let refused = vcs.plan(request(&Locator::new(nowhere.clone()), 1)).await;
        assert!(matches!(refused, Err(VcsWorktreeError::NotARepository { .. })), "{refused:?}");
        nowhere.extend(b"/missing");
    }
}

/// Names that git refuses or takes for something else are refused.
pub async fn a_name_that_is_no_branch_name_is_refused(place: impl VcsWorktreePlace) {
    let (repo, _) = repository(&place);
    let vcs = place.open().await;
    for name in ["", "-x", "a b", "a..b", "x.lock", "@{-1}", "HEAD", "a/", "/a", "a\nb", "@"] {
        let named = WorktreeRequest { branch: Some(name.to_owned()), ..request(&repo, 1) };
        let refused = vcs.plan(named).await;
        let Err(VcsWorktreeError::InvalidBranch { branch }) = refused else {
            panic!("{name:?}: {refused:?}")
        };
        assert_eq!(branch, name);
    }
}

/// Every title gives a branch that can be made.
pub async fn titles_of_any_script_name_branches(place: impl VcsWorktreePlace) {
    let (repo, _) = repository(&place);
    let vcs = place.open().await;
    let long = "語".repeat(500);
    let titles = ["Größe ändern", "修复登录页面", "../..//.lock~^:?*[\\", "", "🚀", long.as_str()];
    for (number, title) in (1..).zip(titles) {
        let titled = WorktreeRequest { title: title.to_owned(), ..request(&repo, number) };
        let worktree = vcs.plan(titled).await.expect("a plan").worktree;
        let verified =
            vcs.make(attempt(number), &worktree, &Origin::Base).await.expect("a worktree");
        assert_eq!(verified.branch, Some(worktree.branch), "{title:?}");
    }
    let titled = WorktreeRequest { title: "Größe ändern".to_owned(), ..request(&repo, 100) };
    let branch = vcs.plan(titled).await.expect("a plan").worktree.branch;
    assert!(branch.ends_with("größe-ändern"), "{branch}");
}

/// The id keeps attempts apart.
pub async fn attempts_of_one_title_do_not_meet(place: impl VcsWorktreePlace) {
    let (repo, _) = repository(&place);
    let vcs = place.open().await;
    let one = vcs.plan(request(&repo, 1)).await.expect("a plan").worktree;
    let two = vcs.plan(request(&repo, 2)).await.expect("a plan").worktree;
    assert_ne!(one.path, two.path);
    assert_ne!(one.branch, two.branch);
    assert_eq!(one.repo, two.repo);
    vcs.make(attempt(1), &one, &Origin::Base).await.expect("a worktree");
    vcs.make(attempt(2), &two, &Origin::Base).await.expect("a worktree");
    place.write(&one.path, "mine", "1\n");
    assert_eq!(place.read(&two.path, "mine"), None);
    assert!(!vcs.status(attempt(2), &two).await.expect("a status").dirty);
}

/// A request may stand in a worktree; its HEAD is the base then.
pub async fn a_worktree_of_a_worktree_belongs_to_the_repository(place: impl VcsWorktreePlace) {
    let (vcs, _, worktree) = created(&place).await;
    place.write(&worktree.path, "greeting", "work\n");
    let oid = place.commit(&worktree.path, "work");
    let second = vcs.plan(request(&worktree.path, 2)).await.expect("a plan").worktree;
    assert_eq!(second.repo, worktree.repo);
    assert_eq!(second.base_oid, oid);
    assert_eq!(second.target.as_deref(), Some(worktree.branch.as_str()));
    vcs.make(attempt(2), &second, &Origin::Base).await.expect("a worktree");
    assert_eq!(place.read(&second.path, "greeting").as_deref(), Some("work\n"));
}

/// What was made is ours after a restart.
pub async fn a_restart_finds_the_worktree(place: impl VcsWorktreePlace) {
    let (vcs, _, worktree) = created(&place).await;
    let before = vcs.verify(attempt(1), &worktree).await.expect("verified");
    drop(vcs);
    let vcs = place.open().await;
    assert_eq!(vcs.verify(attempt(1), &worktree).await.expect("verified"), before);
    assert_eq!(vcs.make(attempt(1), &worktree, &Origin::Base).await.expect("kept"), before);
}

/// The branch is observed, not fought.
pub async fn branches_that_are_renamed_switched_or_left_are_followed(place: impl VcsWorktreePlace) {
    let (vcs, _, worktree) = created(&place).await;
    let head = vcs.verify(attempt(1), &worktree).await.expect("verified").head;
    place.rename_branch(&worktree.path, "renamed");
    let verified = vcs.verify(attempt(1), &worktree).await.expect("verified");
    assert_eq!((verified.branch.as_deref(), &verified.head), (Some("renamed"), &head));
    place.switch(&worktree.path, "other/name");
    let verified = vcs.verify(attempt(1), &worktree).await.expect("verified");
    assert_eq!((verified.branch.as_deref(), &verified.head), (Some("other/name"), &head));
    place.detach(&worktree.path);
    let verified = vcs.verify(attempt(1), &worktree).await.expect("verified");
    assert_eq!((verified.branch, verified.head), (None, head));
    let status = vcs.status(attempt(1), &worktree).await.expect("a status");
    assert_eq!(status.branch, None);
}
