//! Merges, rebases and pushes over hosts that die at each call of a port.

use windlass::Handle;
use windlass::core::id::AttemptId;
use windlass::core::locator::Locator;
use windlass::core::record::{AttemptRecord, AttemptStatus, PullRequestState};
use windlass::core::vcs_history::{Conclusion, MergeStyle, Merged};
use windlass::core::vcs_worktree::{DiffDetail, Identity};
use windlass::error::{EngineError, RefusalCode};
use windlass::handle::Integrated;
use windlass::request::{
    AttemptChange, MergeRequest, PullRequestChange, PushRequest, RebaseRequest, RemoveOptions,
};

use crate::place::{Doom, Place, in_worktree, operator, run};

/// An attempt whose work is committed, and the checkout that it was made from.
async fn worked(place: &Place, handle: &Handle) -> (AttemptId, Locator) {
    let repo = place.repository();
    let accepted = run(handle, in_worktree(&repo, &["script", "file:made:work"])).await;
    handle.at_rest(&operator(), accepted.attempt).await.unwrap();
    (accepted.attempt, repo)
}

async fn record(handle: &Handle, id: AttemptId) -> AttemptRecord {
    handle.attempt(&operator(), id).await.unwrap()
}

fn merged(integrated: Integrated) -> Merged {
    match integrated.conclusion {
        Conclusion::Merged(merged) => merged,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn code(refused: Result<Integrated, EngineError>) -> RefusalCode {
    match refused {
        Err(EngineError::Refused { code, .. }) => code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn work_is_merged_once_recorded_and_shown_when_its_worktree_is_gone() {
    let place = Place::with_files();
    let handle = place.start().await;
    let (id, repo) = worked(&place, &handle).await;
    let request = MergeRequest { style: MergeStyle::Squash, ..MergeRequest::default() };
    let first = handle.merge(operator(), id, request.clone()).await.unwrap();
    assert!(first.execution.is_some());
    let first = merged(first);
    assert_eq!((first.target.as_str(), first.style), ("main", Some(MergeStyle::Squash)));
    assert_eq!(place.repositories.read(&repo, "made").as_deref(), Some(&b"work"[..]));
    let now = record(&handle, id).await;
    assert_eq!((now.status, &now.history.merged), (AttemptStatus::Finished, &Some(first.clone())));
    assert!(now.merged_at.is_some());
    let again = handle.merge(operator(), id, request.clone()).await.unwrap();
    assert_eq!((again.execution, merged(again)), (None, first.clone()));
    assert!(handle.standing(&operator(), id).await.unwrap().unwrap().landed);
    let diff = handle.diff(&operator(), id, DiffDetail::Files).await.unwrap();
    handle.remove(operator(), id, RemoveOptions::default()).await.unwrap();
    let later = handle.diff(&operator(), id, DiffDetail::Files).await.unwrap();
    assert_eq!((later.files.len(), &later.files), (1, &diff.files));
    let repeated = handle.merge(operator(), id, request).await.unwrap();
    assert_eq!(merged(repeated), first);
    assert_eq!(record(&handle, id).await.status, AttemptStatus::Removed, "nobody made it again");
}

#[tokio::test]
async fn what_cannot_be_merged_is_refused_and_nothing_is_touched() {
    let place = Place::with_files();
    let handle = place.start().await;
    let (id, repo) = worked(&place, &handle).await;
    place.repositories.write(&repo, "base", b"mine");
    let request = MergeRequest::default();
    let refused = handle.merge(operator(), id, request.clone()).await;
    assert_eq!(code(refused), RefusalCode::Dirty);
    let into = |branch: &str| MergeRequest { into: Some(branch.to_owned()), ..request.clone() };
    let refused = handle.merge(operator(), id, into("missing")).await;
    assert_eq!(code(refused), RefusalCode::NoTarget);
    for name in ["", "-x", "a b"] {
        let refused = handle.merge(operator(), id, into(name)).await;
        assert!(matches!(refused, Err(EngineError::Invalid { .. })), "{name:?}");
    }
    let now = record(&handle, id).await;
    assert_eq!((now.status, now.history.integration), (AttemptStatus::Finished, None));
    let path = now.workspace.path().clone();
    place.repositories.write(&path, "forgotten", b"x");
    let refused = handle.rebase(operator(), id, RebaseRequest::default()).await;
    assert_eq!(code(refused), RefusalCode::Dirty);
    let refused = handle.abort(operator(), id).await;
    assert_eq!(code(refused), RefusalCode::NothingToDo);
    let go_on = RebaseRequest { go_on: true, onto: None };
    assert_eq!(code(handle.rebase(operator(), id, go_on).await), RefusalCode::NothingToDo);
}

#[tokio::test]
async fn what_an_abort_undoes_is_in_a_snapshot() {
    let place = Place::with_files();
    let handle = place.start().await;
    let (id, _) = worked(&place, &handle).await;
    let path = record(&handle, id).await.workspace.path().clone();
    place.repositories.begin_merge(&path, "main");
    place.repositories.write(&path, "half", b"done");
    let aborted = handle.abort(operator(), id).await.unwrap();
    assert!(matches!(aborted.conclusion, Conclusion::Aborted { .. }));
    assert!(!place.repositories.is_merging(&path));
    assert_eq!(handle.snapshots(&operator(), id).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_target_is_changed_and_pull_requests_are_noted() {
    let place = Place::with_files();
    let handle = place.start().await;
    let (id, _) = worked(&place, &handle).await;
    let url = "https://example.org/7".to_owned();
    let state = Some(PullRequestState::Open);
    let change = AttemptChange {
        target: Some("next".to_owned()),
        pull_request: Some(PullRequestChange { url: url.clone(), state }),
    };
    handle.set_attempt(operator(), id, change).await.unwrap();
    let now = record(&handle, id).await;
    assert_eq!(now.workspace.worktree().unwrap().target.as_deref(), Some("next"));
    assert_eq!(now.history.pull_requests[0].url, url);
    let refused = handle.merge(operator(), id, MergeRequest::default()).await;
    assert_eq!(code(refused), RefusalCode::NoTarget);
    for url in ["", "javascript:1", "https://a b"] {
        let pull_request = Some(PullRequestChange { url: url.to_owned(), state });
        let change = AttemptChange { pull_request, ..AttemptChange::default() };
        let refused = handle.set_attempt(operator(), id, change).await;
        assert!(matches!(refused, Err(EngineError::Invalid { .. })), "{url:?}");
    }
}

/// What is done with the commits of an attempt.
#[derive(Clone, Copy, Debug)]
enum Verb {
    Merge,
    Rebase,
    Push,
}

impl Verb {
    async fn ask(self, handle: &Handle, id: AttemptId) -> Result<Integrated, EngineError> {
        match self {
            Self::Merge => handle.merge(operator(), id, MergeRequest::default()).await,
            Self::Rebase => handle.rebase(operator(), id, RebaseRequest::default()).await,
            Self::Push => handle.push(operator(), id, PushRequest::default()).await,
        }
    }
}

/// Does something with the commits of an attempt on a host that dies at a call; says whether it did.
async fn dies_at(verb: Verb, call: u64, after: bool) -> bool {
    let mut place = Place::with_files();
    let handle = place.start().await;
    let (id, repo) = worked(&place, &handle).await;
    place.repositories.write(&repo, "other", b"theirs");
    let they = Identity { name: "They".to_owned(), email: "they@example.org".to_owned() };
    place.repositories.commit(&repo, "theirs", &they);
    place.kill().await;
    let doom = Doom::new(call, after);
    place.doom = Some(doom.clone());
    let first = async {
        let handle = place.start().await;
        verb.ask(&handle, id).await.unwrap();
    };
    let died = tokio::select! {
        biased;
        () = doom.came() => true,
        () = first => false,
    };
    place.kill().await;
    place.doom = None;
    let handle = place.start().await;
    let done = verb.ask(&handle, id).await.unwrap();
    let name = format!("{verb:?}, call {call}, after: {after}");
    let now = record(&handle, id).await;
    assert_eq!((now.status, &now.history.integration), (AttemptStatus::Finished, &None), "{name}");
    match done.conclusion {
        Conclusion::Merged(merged) => {
            assert_eq!(now.history.merged, Some(merged), "{name}");
            assert_eq!(place.repositories.commits(&repo, "main"), 3, "{name}: it is merged once");
            let made = place.repositories.read(&repo, "made");
            assert_eq!(made.as_deref(), Some(&b"work"[..]), "{name}");
        }
        Conclusion::Rebased { head, .. } => {
            assert_eq!(now.head, Some(head), "{name}");
            let branch = &now.workspace.worktree().unwrap().branch;
            assert_eq!(place.repositories.commits(&repo, branch), 3, "{name}");
        }
        Conclusion::Pushed { .. } => {}
        other => panic!("{name}: {other:?}"),
    }
    let status = handle.status().await.unwrap();
    assert_eq!((status.running, status.queued), (0, 0), "{name}");
    died
}

#[tokio::test]
async fn a_host_that_dies_at_any_call_of_a_port_merges_rebases_and_pushes_once() {
    for verb in [Verb::Merge, Verb::Rebase, Verb::Push] {
        for after in [false, true] {
            let mut call = 1;
            while dies_at(verb, call, after).await {
                call += 1;
            }
            assert!(call > 15, "{verb:?}: there are more calls than {call}");
        }
    }
}
