//! Files that are handed over: kept before anything is recorded, put into worktrees, forgotten with requests that came to nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::channel::mpsc;
use windlass::EngineError;
use windlass::core::attachments::{Attachment, Attachments, AttachmentsError, Kept};
use windlass::core::id::AttemptId;
use windlass::core::locator::{Locator, OsBytes};
use windlass::core::workspace::Worktree;
use windlass::error::RefusalCode;
use windlass::request::{AttachRequest, RunRequest, SendOptions};

use crate::place::{Place, in_directory, in_worktree, keyed, operator, run};

/// Keeps attachments in memory: a file has as many bytes as its name has.
#[derive(Debug)]
struct Shelf {
    kept: Mutex<BTreeMap<AttemptId, Vec<Locator>>>,
    /// The names that were put somewhere, one list a time.
    placed: Mutex<Vec<Vec<String>>>,
    forgotten: mpsc::UnboundedSender<AttemptId>,
}

#[async_trait]
impl Attachments for Shelf {
    async fn keep(
        &self,
        attempt: AttemptId,
        file: &Locator,
        limit_bytes: u64,
    ) -> Result<Kept, AttachmentsError> {
        let bytes = file.as_bytes().len() as u64;
        if bytes > limit_bytes {
            return Err(AttachmentsError::TooLarge { file: file.clone(), limit_bytes });
        }
        self.kept.lock().unwrap().entry(attempt).or_default().push(file.clone());
        Ok(Kept { sha256: file.to_string(), bytes })
    }

    async fn place(
        &self,
        _: AttemptId,
        _: &Worktree,
        attachments: &[Attachment],
    ) -> Result<(), AttachmentsError> {
        let names = attachments.iter().map(|it| it.name.clone()).collect();
        self.placed.lock().unwrap().push(names);
        Ok(())
    }

    fn path(&self, _: &Worktree, name: &str) -> OsBytes {
        OsBytes(format!("/w/{name}").into_bytes())
    }

    async fn attempts(&self) -> Result<Vec<AttemptId>, AttachmentsError> {
        Ok(self.kept.lock().unwrap().keys().copied().collect())
    }

    async fn forget(&self, attempt: AttemptId) -> Result<(), AttachmentsError> {
        self.kept.lock().unwrap().remove(&attempt);
        self.forgotten.unbounded_send(attempt).unwrap();
        Ok(())
    }
}

/// A machine that keeps attachments of at most 4 bytes each and 6 bytes in all.
fn with_shelf() -> (Place, Arc<Shelf>, mpsc::UnboundedReceiver<AttemptId>) {
    let (forgotten, told) = mpsc::unbounded();
    let shelf = Arc::new(Shelf { kept: Mutex::default(), placed: Mutex::default(), forgotten });
    let mut place = Place::with_files();
    place.attachments = Some(Arc::clone(&shelf) as _);
    (place.config.attachments.file_bytes, place.config.attachments.attempt_bytes) = (4, 6);
    (place, shelf, told)
}

fn attach(files: &[&str]) -> Vec<AttachRequest> {
    let one = |file: &&str| AttachRequest { file: Locator::new(*file), called: (*file).to_owned() };
    files.iter().map(one).collect()
}

fn with_files(mut request: RunRequest, files: &[&str]) -> RunRequest {
    request.launch.attach = attach(files);
    request
}

fn is_refused<T: std::fmt::Debug>(result: &Result<T, EngineError>) -> bool {
    matches!(result, Err(EngineError::Refused { code: RefusalCode::CannotAttach, .. }))
}

#[tokio::test]
async fn what_no_record_speaks_of_goes_at_the_next_start_and_nothing_else() {
    let (place, shelf, mut told) = with_shelf();
    let handle = place.start().await;
    let request = with_files(in_worktree(&place.repository(), &["exit", "0"]), &["/a"]);
    let attempt = run(&handle, request).await.attempt;
    let stranger = AttemptId(uuid::Uuid::from_u128(0x5));
    shelf.kept.lock().unwrap().insert(stranger, Vec::new());
    let handle = place.restart().await;
    assert_eq!(told.next().await, Some(stranger));
    handle.shut_down().await.unwrap();
    place.all_tasks_end().await;
    assert_eq!(shelf.kept.lock().unwrap().keys().collect::<Vec<_>>(), [&attempt]);
}

#[tokio::test]
async fn they_are_there_before_each_start_and_no_git_step_waits_for_them() {
    let (place, shelf, _told) = with_shelf();
    let handle = place.start().await;
    let mut request =
        with_files(in_worktree(&place.repository(), &["script", "file:made:x"]), &["/a", "/a"]);
    request.scripts.setup = Some("file:dep:x".to_owned());
    let attempt = handle.run(keyed("k"), request.clone()).await.unwrap().attempt;
    handle.at_rest(&operator(), attempt).await.unwrap();
    assert_eq!(*shelf.placed.lock().unwrap(), vec![vec!["a".to_owned(), "a-2".to_owned()]; 2]);
    // The same request once more keeps nothing more.
    handle.run(keyed("k"), request).await.unwrap();
    assert_eq!(shelf.kept.lock().unwrap()[&attempt].len(), 2);
    let with = SendOptions { attach: attach(&["/b"]), ..SendOptions::default() };
    handle.send_with(operator(), attempt, "go on".to_owned(), with).await.unwrap();
    handle.at_rest(&operator(), attempt).await.unwrap();
    let names = ["a", "a-2", "b"].map(str::to_owned).to_vec();
    assert_eq!(shelf.placed.lock().unwrap().last(), Some(&names));
}

#[tokio::test]
async fn what_is_refused_leaves_nothing() {
    let (place, shelf, mut told) = with_shelf();
    let handle = place.start().await;
    for files in [&["/long"][..], &["/abc", "/ab"], &["/a", "/abcd"]] {
        let refused = handle
            .run(operator(), with_files(in_worktree(&place.repository(), &["exit", "0"]), files))
            .await;
        assert!(is_refused(&refused), "{files:?}: {refused:?}");
        assert!(told.next().await.is_some());
    }
    assert!(shelf.kept.lock().unwrap().is_empty());
    let refused = handle.run(operator(), with_files(in_directory(&["exit", "0"]), &["/a"])).await;
    assert!(is_refused(&refused), "{refused:?}");
    let without = Place::with_files();
    let handle = without.start().await;
    let request = in_worktree(&without.repository(), &["exit", "0"]);
    let refused = handle.run(operator(), with_files(request, &["/a"])).await;
    assert!(is_refused(&refused), "{refused:?}");
}
