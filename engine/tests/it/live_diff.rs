//! A diff that is followed, over executions and a worktree that comes and goes.

use windlass::EngineError;
use windlass::core::diff_ledger::DiffMirror;
use windlass::core::diff_watch::DiffCursor;
use windlass::core::id::AttemptId;
use windlass::error::RefusalCode;
use windlass::handle::{DiffStream, Handle};
use windlass::request::RemoveOptions;

use crate::place::{Place, in_worktree, operator, run, settled};

/// Reads until everything is told that was seen and the mirror is as wanted.
async fn until(
    stream: &mut DiffStream,
    mirror: &mut DiffMirror,
    wanted: impl Fn(&DiffMirror) -> bool,
) -> Option<DiffCursor> {
    let mut cursor = None;
    while !(mirror.is_current() && wanted(mirror)) {
        for told in stream.next().await.unwrap() {
            mirror.apply(&told.event);
            cursor = Some(told.cursor);
        }
    }
    cursor
}

async fn finished(place: &Place, handle: &Handle) -> AttemptId {
    let accepted = run(handle, in_worktree(&place.repository(), &["exit", "0"])).await;
    settled(handle, &accepted).await;
    accepted.attempt
}

#[tokio::test]
async fn a_followed_diff_outlives_executions_and_a_removed_worktree_comes_back_for_it() {
    let place = Place::new();
    let handle = place.start().await;
    let id = finished(&place, &handle).await;
    let safe = RemoveOptions { force: false, discard_unsaved: false, delete_branch: false };
    handle.remove(operator(), id, safe).await.unwrap();
    let mut stream = handle.follow_diff(&operator(), id, None).await.unwrap();
    let mut mirror = DiffMirror::default();
    until(&mut stream, &mut mirror, |mirror| mirror.files().count() == 0).await;
    let record = handle.attempt(&operator(), id).await.unwrap();
    let path = record.workspace.worktree().unwrap().path.clone();
    place.repositories.write(&path, "new", b"1\n");
    let cursor = until(&mut stream, &mut mirror, |mirror| mirror.files().count() == 1).await;
    // Whoever goes on at the cursor is told what came after it.
    place.repositories.write(&path, "newer", b"2\n");
    let mut stream = handle.follow_diff(&operator(), id, cursor).await.unwrap();
    let generation = mirror.generation();
    until(&mut stream, &mut mirror, |mirror| mirror.files().count() == 2).await;
    assert_eq!(mirror.generation(), generation);
    handle.remove(operator(), id, safe).await.unwrap();
    let ended = loop {
        if let Err(error) = stream.next().await {
            break error;
        }
    };
    assert!(
        matches!(ended, EngineError::Refused { code: RefusalCode::WorkspaceGone, .. }),
        "{ended:?}"
    );
}
