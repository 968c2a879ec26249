//! Cases about listing what is there.

use windlass_core::id::AttemptId;
use windlass_core::vcs_worktree::{FoundState, Origin, Removal, VcsWorktree, VcsWorktreeError};
use windlass_core::workspace::Worktree;

use super::{MakeAtOnce as _, REMOVAL, VcsWorktreePlace, attempt, created, request};

/// The word for a state, with whose it is.
async fn seen(vcs: &dyn VcsWorktree, worktree: &Worktree) -> Vec<(Option<AttemptId>, String)> {
    let repos = [worktree.repo.clone()];
    let found = vcs.survey(&repos).await.expect("a survey");
    assert!(found.is_sorted_by_key(|thing| thing.path.as_bytes().to_vec()), "{found:?}");
    let word = |state: &FoundState| {
        format!("{state:?}").chars().take_while(|char| char.is_alphanumeric()).collect()
    };
    let mut seen: Vec<_> = found.iter().map(|thing| (thing.attempt, word(&thing.state))).collect();
    seen.sort();
    seen
}

/// Whole, deleted by somebody, being removed, gone.
pub async fn a_survey_tells_what_is_there(place: impl VcsWorktreePlace) {
    let (vcs, repo, first) = created(&place).await;
    let second = vcs.plan(request(&repo, 2)).await.expect("a plan").worktree;
    vcs.make(attempt(2), &second, &Origin::Base).await.expect("a worktree");
    let word = |number, word: &str| (Some(attempt(number)), word.to_owned());
    assert_eq!(seen(&*vcs, &first).await, [word(1, "Whole"), word(2, "Whole")]);
    let found = vcs.survey(&[]).await.expect("a survey");
    let whole = found.iter().find(|thing| thing.attempt == Some(attempt(1))).expect("attempt 1");
    assert_eq!((&whole.path, whole.worktree.as_ref()), (&first.path, Some(&first)));
    place.delete_directory(&second.path);
    assert_eq!(seen(&*vcs, &first).await, [word(1, "Whole"), word(2, "Missing")]);
    place.write(&first.path, "new", "x\n");
    vcs.save(attempt(1), &first, &REMOVAL).await.expect("saved");
    let vcs = place.open().await;
    assert_eq!(seen(&*vcs, &first).await, [word(1, "Removing"), word(2, "Missing")]);
    vcs.remove(attempt(1), &first, Removal::Worktree).await.expect("removed");
    vcs.save(attempt(2), &second, &REMOVAL).await.expect("saved");
    vcs.remove(attempt(2), &second, Removal::Worktree).await.expect("removed");
    assert_eq!(seen(&*vcs, &first).await, []);
}

/// Another data directory's worktrees of the same repository are nobody's business here.
pub async fn a_survey_touches_and_lists_nothing_of_others(place: impl VcsWorktreePlace) {
    let (vcs, repo, ours) = created(&place).await;
    let other = place.open_other().await;
    let theirs = other.plan(request(&repo, 2)).await.expect("a plan").worktree;
    other.make(attempt(2), &theirs, &Origin::Base).await.expect("a worktree");
    place.write(&theirs.path, "new", "x\n");
    assert_eq!(seen(&*vcs, &ours).await, [(Some(attempt(1)), "Whole".to_owned())]);
    assert_eq!(seen(&*other, &ours).await, [(Some(attempt(2)), "Whole".to_owned())]);
    let refused = vcs.save(attempt(2), &theirs, &REMOVAL).await;
    assert!(matches!(refused, Err(VcsWorktreeError::Mismatch { .. })), "{refused:?}");
    // A directory that somebody put where ours are made carries no marker.
    place.delete_directory(&ours.path);
    place.write(&ours.path, "stranger", "x\n");
    let states = seen(&*vcs, &ours).await;
    assert!(states.contains(&(None, "Foreign".to_owned())), "{states:?}");
    assert_eq!(place.read(&theirs.path, "new").as_deref(), Some("x\n"));
    assert_eq!(place.read(&ours.path, "stranger").as_deref(), Some("x\n"));
}
