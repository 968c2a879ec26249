//! Projects and tasks: versions, keys, names, and attempts of tasks over hosts that come and go.

use windlass::EngineError;
use windlass::Handle;
use windlass::core::id::TaskId;
use windlass::core::locator::Locator;
use windlass::core::process_store::Revision;
use windlass::core::record::{AttemptStatus, CommitPolicy};
use windlass::core::task::TaskStatus;
use windlass::error::RefusalCode;
use windlass::handle::{Project, Task, TaskFilter};
use windlass::request::{
    Caller, ExecRequest, LaunchRequest, ProjectChange, ProjectRequest, Say, StopTarget, TaskChange,
    TaskRequest, TaskRun,
};

use crate::place::{Fault, Place, in_directory, keyed, operator, owner, run, settled};

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, EngineError>) -> RefusalCode {
    match result {
        Err(EngineError::Refused { code, .. }) => code,
        other => panic!("not refused: {other:?}"),
    }
}

#[track_caller]
fn missing<T: std::fmt::Debug>(result: Result<T, EngineError>) {
    assert!(matches!(result, Err(EngineError::NotFound { .. })), "{result:?}");
}

fn named(repo: &Locator, name: &str) -> ProjectRequest {
    let with = ProjectChange { name: Some(name.to_owned()), ..ProjectChange::default() };
    ProjectRequest { repo: repo.clone(), with }
}

fn titled(project: &Project, title: &str) -> TaskRequest {
    let (title, description) = (title.to_owned(), "all of it".to_owned());
    TaskRequest { project: project.record.id, title, description, parent: None }
}

fn say(status: Say) -> TaskChange {
    TaskChange { status: Some(status), ..TaskChange::default() }
}

fn command(argv: &[&str]) -> TaskRun {
    TaskRun::new(LaunchRequest::command(argv.iter().copied()))
}

async fn project(place: &Place, handle: &Handle) -> Project {
    handle.add_project(operator(), named(&place.repository(), "app")).await.unwrap()
}

async fn task(handle: &Handle, project: &Project) -> TaskId {
    handle.add_task(operator(), titled(project, "Do it")).await.unwrap().record.id
}

async fn look(handle: &Handle, id: TaskId) -> Task {
    handle.task(&operator(), id).await.unwrap()
}

#[tokio::test]
async fn a_project_knows_its_repository_and_shares_its_name_with_no_other_of_its_owner() {
    let place = Place::new();
    let handle = place.start().await;
    let repo = place.repository();
    let request = ProjectRequest { repo: repo.clone(), with: ProjectChange::default() };
    let first = handle.add_project(operator(), request).await.unwrap();
    assert_eq!(first.record.name, repo.to_string().rsplit('/').next().unwrap());
    assert_eq!((&first.record.repo, first.version), (&repo, Revision(1)));
    let app = handle.add_project(operator(), named(&repo, " app ")).await.unwrap();
    assert_eq!(app.record.name, "app");
    let at = handle.projects_at(&operator(), repo.clone()).await.unwrap();
    assert_eq!(at, [app.clone(), first.clone()]);
    assert_eq!(handle.projects_at(&operator(), place.repository()).await.unwrap(), []);

    let taken = handle.add_project(operator(), named(&repo, "app")).await;
    assert_eq!(refused(taken), RefusalCode::NameTaken);
    handle.add_project(owner("b"), named(&repo, "app")).await.unwrap();
    let nowhere = handle.add_project(operator(), named(&Locator::new("/nowhere"), "x")).await;
    assert_eq!(refused(nowhere), RefusalCode::NotARepository);
    for name in ["", "a\nb"] {
        let invalid = handle.add_project(operator(), named(&repo, name)).await;
        assert!(matches!(invalid, Err(EngineError::Invalid { .. })), "{invalid:?}");
    }
    missing(handle.project(&owner("b"), app.record.id).await);
    assert_eq!(handle.projects(&owner("b")).await.unwrap().len(), 1);
    assert_eq!(handle.projects(&operator()).await.unwrap().len(), 3);

    let rename = |name: &str| ProjectChange { name: Some(name.to_owned()), ..Default::default() };
    let id = first.record.id;
    let taken = handle.set_project(operator(), id, None, rename("app")).await;
    assert_eq!(refused(taken), RefusalCode::NameTaken);
    handle.set_project(operator(), id, None, rename("other")).await.unwrap();
    let unknown = ProjectChange { base: Some(Some("nope".to_owned())), ..Default::default() };
    let unknown = handle.set_project(operator(), id, None, unknown).await;
    assert_eq!(refused(unknown), RefusalCode::UnknownBase);
    assert_eq!(handle.project(&operator(), id).await.unwrap().version, Revision(2));
}

#[tokio::test]
async fn two_who_change_the_same_version_conflict_and_one_of_them_wins() {
    let place = Place::new();
    let handle = place.start().await;
    let app = project(&place, &handle).await;
    let id = task(&handle, &app).await;
    let titled = |title: &str| TaskChange { title: Some(title.to_owned()), ..Default::default() };
    let at = |version| Some(Revision(version));
    let (one, other) = futures::join!(
        handle.set_task(operator(), id, at(1), titled("one")),
        handle.set_task(operator(), id, at(1), titled("other")),
    );
    assert_eq!(one.unwrap().version, Revision(2));
    assert_eq!(refused(other), RefusalCode::Conflict);
    assert_eq!(look(&handle, id).await.record.title, "one");
    // What is so already is no new version.
    let same = handle.set_task(operator(), id, at(2), titled("one")).await.unwrap();
    assert_eq!(same.version, Revision(2));
    let change = ProjectChange { setup: Some(Some("make".to_owned())), ..Default::default() };
    let set = handle.set_project(operator(), app.record.id, at(1), change.clone()).await.unwrap();
    assert_eq!(set.record.defaults.setup.as_deref(), Some("make"));
    let late = handle.set_project(operator(), app.record.id, at(1), change).await;
    assert_eq!(refused(late), RefusalCode::Conflict);
    let nothing = ProjectChange { setup: Some(None), ..Default::default() };
    let set = handle.set_project(operator(), app.record.id, at(2), nothing).await.unwrap();
    assert_eq!(set.record.defaults.setup, None);
}

#[tokio::test]
async fn an_attempt_of_a_task_is_as_its_project_says_unless_the_request_says_otherwise() {
    let place = Place::new();
    let handle = place.start().await;
    let app = project(&place, &handle).await;
    let change = ProjectChange {
        copy: Some(vec![".env".to_owned()]),
        commit: Some(CommitPolicy::Keep),
        ..Default::default()
    };
    handle.set_project(operator(), app.record.id, None, change).await.unwrap();
    let id = task(&handle, &app).await;
    let accepted = handle.run_task(operator(), id, command(&["exit", "0"])).await.unwrap();
    settled(&handle, &accepted).await;
    let attempt = handle.attempt(&operator(), accepted.attempt).await.unwrap();
    assert_eq!((attempt.task, attempt.title.as_str()), (Some(id), "Do it"));
    assert_eq!(attempt.commit, CommitPolicy::Keep);
    let worktree = attempt.workspace.worktree().unwrap();
    assert_eq!(worktree.repo, app.record.git_dir);
    assert_eq!(worktree.copy.as_ref().unwrap().globs, [".env"]);

    let other = TaskRun {
        branch: Some("topic".to_owned()),
        copy: Some(Vec::new()),
        title: Some("Another way".to_owned()),
        commit: Some(CommitPolicy::Commit),
        ..command(&["exit", "0"])
    };
    let accepted = handle.run_task(operator(), id, other).await.unwrap();
    let attempt = handle.attempt(&operator(), accepted.attempt).await.unwrap();
    assert_eq!((attempt.title.as_str(), attempt.commit), ("Another way", CommitPolicy::Commit));
    let worktree = attempt.workspace.worktree().unwrap();
    assert_eq!((worktree.branch.as_str(), &worktree.copy), ("topic", &None));
    settled(&handle, &accepted).await;
    let dir = TaskRun { dir: Some(Locator::new("/d")), ..command(&["exit", "0"]) };
    let accepted = handle.run_task(operator(), id, dir).await.unwrap();
    let attempt = handle.attempt(&operator(), accepted.attempt).await.unwrap();
    assert_eq!((attempt.task, attempt.workspace.worktree()), (Some(id), None));

    let of = windlass::handle::ListFilter { task: Some(id), ..Default::default() };
    run(&handle, in_directory(&["exit", "0"])).await;
    assert_eq!(handle.attempts(&operator(), of).await.unwrap().len(), 3);
    assert_eq!(look(&handle, id).await.attempts.len(), 3);
}

#[tokio::test]
async fn the_status_of_a_task_follows_its_attempts_and_its_users_word() {
    let place = Place::new();
    let handle = place.start().await;
    let app = project(&place, &handle).await;
    let id = task(&handle, &app).await;
    assert_eq!(look(&handle, id).await.status, TaskStatus::Todo);
    let accepted = handle.run_task(operator(), id, command(&["wait", "0"])).await.unwrap();
    handle.started(&operator(), accepted.execution).await.unwrap();
    assert_eq!(look(&handle, id).await.status, TaskStatus::InProgress);
    place.pass(1);
    place.world.release(accepted.execution);
    settled(&handle, &accepted).await;
    assert_eq!(look(&handle, id).await.status, TaskStatus::InReview);
    for (word, status) in [
        (Say::Done, TaskStatus::Done),
        (Say::Todo, TaskStatus::Todo),
        (Say::Cancelled, TaskStatus::Cancelled),
        (Say::Archived, TaskStatus::Archived),
    ] {
        place.pass(1);
        let said = handle.set_task(operator(), id, None, say(word)).await.unwrap();
        assert_eq!(said.status, status, "{word:?}");
    }
    let closed = handle.run_task(operator(), id, command(&["exit", "0"])).await;
    assert_eq!(refused(closed), RefusalCode::TaskClosed);
    let all = handle.tasks(&operator(), TaskFilter::default()).await.unwrap();
    let only = |status| TaskFilter { status: Some(status), ..TaskFilter::default() };
    assert_eq!(handle.tasks(&operator(), only(TaskStatus::Archived)).await.unwrap(), all);
    assert_eq!(handle.tasks(&operator(), only(TaskStatus::InReview)).await.unwrap(), []);
    let reopened = handle.set_task(operator(), id, None, say(Say::Reopen)).await.unwrap();
    assert_eq!(reopened.status, TaskStatus::InReview);
    place.pass(1);
    let accepted = handle.run_task(operator(), id, command(&["exit", "0"])).await.unwrap();
    settled(&handle, &accepted).await;
    assert_eq!(look(&handle, id).await.status, TaskStatus::InReview);
}

#[tokio::test]
async fn a_repeated_request_with_its_key_changes_nothing_and_another_one_is_refused() {
    let place = Place::new();
    let handle = place.start().await;
    let repo = place.repository();
    let first = handle.add_project(keyed("a"), named(&repo, "app")).await.unwrap();
    assert_eq!(handle.add_project(keyed("a"), named(&repo, "app")).await.unwrap(), first);
    let made = handle.add_task(keyed("b"), titled(&first, "Do it")).await.unwrap();
    let handle = place.restart().await;
    assert_eq!(handle.add_task(keyed("b"), titled(&first, "Do it")).await.unwrap(), made);
    assert_eq!(handle.tasks(&operator(), TaskFilter::default()).await.unwrap().len(), 1);
    let reused = handle.add_task(keyed("b"), titled(&first, "Another")).await;
    assert_eq!(refused(reused), RefusalCode::KeyReused);
    let id = made.record.id;
    for _ in 0..2 {
        // The second time it is at another version, and has been changed by this very request.
        let set = handle.set_task(keyed("c"), id, Some(Revision(1)), say(Say::Done)).await.unwrap();
        assert_eq!((set.status, set.version), (TaskStatus::Done, Revision(2)));
    }
    let accepted = handle.run_task(keyed("d"), id, command(&["exit", "0"])).await.unwrap();
    settled(&handle, &accepted).await;
    handle.set_task(operator(), id, None, say(Say::Cancelled)).await.unwrap();
    let again = handle.run_task(keyed("d"), id, command(&["exit", "0"])).await.unwrap();
    assert_eq!(again, accepted, "it was taken before the task was cancelled");
    // A key stands for one request, whatever it is about.
    let reused = handle.run_task(keyed("b"), id, command(&["exit", "0"])).await;
    assert_eq!(refused(reused), RefusalCode::KeyReused);
    let reused = handle.run(keyed("a"), in_directory(&["exit", "0"])).await;
    assert_eq!(refused(reused), RefusalCode::KeyReused);
    let reused = handle.set_task(keyed("d"), id, None, say(Say::Done)).await;
    assert_eq!(refused(reused), RefusalCode::KeyReused);
    for _ in 0..2 {
        handle.remove_task(keyed("e"), id, true).await.unwrap();
    }
    missing(handle.remove_task(operator(), id, false).await);
}

#[tokio::test]
async fn a_change_in_doubt_is_told_and_repeating_it_with_its_key_makes_it_once() {
    for fault in [Fault::Before, Fault::After] {
        let place = Place::new();
        let handle = place.start().await;
        let repo = place.repository();
        let waiting = run(&handle, in_directory(&["wait", "0"])).await;
        handle.started(&operator(), waiting.execution).await.unwrap();
        place.store.fail("known", fault);
        let caller = || keyed("k");
        let (unsure, behind) = futures::join!(
            handle.add_project(caller(), named(&repo, "app")),
            handle.add_project(keyed("l"), named(&repo, "other")),
        );
        assert!(matches!(unsure, Err(EngineError::Backend(_))), "{unsure:?}");
        // Who waits behind it is told, too, unless he came when the loop had started over.
        let behind = match behind {
            Ok(behind) => behind,
            Err(_) => handle.add_project(keyed("l"), named(&repo, "other")).await.unwrap(),
        };
        let made = handle.add_project(caller(), named(&repo, "app")).await.unwrap();
        let mut all = handle.projects(&operator()).await.unwrap();
        all.sort_by(|a, b| a.record.name.cmp(&b.record.name));
        assert_eq!(all, [made, behind], "{fault:?}");
        place.world.release(waiting.execution);
        settled(&handle, &waiting).await;
        assert_eq!(place.launches(), 1);
    }
}

#[tokio::test]
async fn nothing_starts_for_a_task_that_was_closed_or_removed_before() {
    for remove in [false, true] {
        for first in [false, true] {
            let place = Place::new();
            let handle = place.start().await;
            let app = project(&place, &handle).await;
            let id = task(&handle, &app).await;
            let start = handle.run_task(operator(), id, command(&["forever"]));
            let close = async {
                match remove {
                    true => handle.remove_task(operator(), id, false).await,
                    false => {
                        handle.set_task(operator(), id, None, say(Say::Cancelled)).await.map(drop)
                    }
                }
            };
            let (started, closed) = if first {
                let (closed, started) = futures::join!(close, start);
                (started, closed)
            } else {
                futures::join!(start, close)
            };
            let attempts = handle.attempts(&operator(), Default::default()).await.unwrap();
            assert_eq!(attempts.len(), usize::from(started.is_ok()), "{remove} {first}");
            match (first, remove) {
                (true, false) => assert_eq!(refused(started), RefusalCode::TaskClosed),
                (true, true) => missing(started),
                (false, true) => assert_eq!(refused(closed), RefusalCode::Busy),
                (false, false) => closed.unwrap(),
            }
        }
    }
}

#[tokio::test]
async fn a_task_goes_when_nothing_of_it_runs_and_its_attempts_stay() {
    let place = Place::new();
    let handle = place.start().await;
    let app = project(&place, &handle).await;
    let id = task(&handle, &app).await;
    let accepted = handle.run_task(operator(), id, command(&["wait", "0"])).await.unwrap();
    handle.started(&operator(), accepted.execution).await.unwrap();
    assert_eq!(refused(handle.remove_task(operator(), id, false).await), RefusalCode::Busy);
    assert_eq!(refused(handle.remove_task(operator(), id, true).await), RefusalCode::Busy);
    let in_use = handle.remove_project(operator(), app.record.id, false).await;
    assert_eq!(refused(in_use), RefusalCode::InUse);
    let busy = handle.remove_project(operator(), app.record.id, true).await;
    assert_eq!(refused(busy), RefusalCode::Busy);
    place.world.release(accepted.execution);
    settled(&handle, &accepted).await;
    // What runs beside the chain counts as well.
    let launch = LaunchRequest::command(["forever"]);
    let run_reason = windlass::core::action::RunReason::DevServer;
    let request = ExecRequest { attempt: accepted.attempt, run_reason, launch, replace: false };
    let server = handle.exec(operator(), request).await.unwrap();
    handle.started(&operator(), server.execution).await.unwrap();
    assert_eq!(refused(handle.remove_task(operator(), id, false).await), RefusalCode::Busy);
    handle.stop(operator(), StopTarget::Execution(server.execution), None).await.unwrap();
    settled(&handle, &server).await;

    handle.remove_task(operator(), id, false).await.unwrap();
    missing(handle.task(&operator(), id).await);
    let attempt = handle.attempt(&operator(), accepted.attempt).await.unwrap();
    assert_eq!(attempt.status, AttemptStatus::Finished);
    let id = task(&handle, &app).await;
    let accepted = handle.run_task(operator(), id, command(&["exit", "0"])).await.unwrap();
    settled(&handle, &accepted).await;
    handle.remove_task(operator(), id, true).await.unwrap();
    let attempt = handle.attempt(&operator(), accepted.attempt).await.unwrap();
    assert_eq!(attempt.status, AttemptStatus::Removed);
    task(&handle, &app).await;
    handle.remove_project(operator(), app.record.id, true).await.unwrap();
    assert_eq!(handle.tasks(&operator(), TaskFilter::default()).await.unwrap(), []);
    missing(handle.project(&operator(), app.record.id).await);
}

#[tokio::test]
async fn owners_see_neither_each_others_projects_nor_tasks() {
    let place = Place::new();
    let handle = place.start().await;
    let (a, b): (Caller, Caller) = (owner("a"), owner("b"));
    let app = handle.add_project(a.clone(), named(&place.repository(), "app")).await.unwrap();
    let made = handle.add_task(a.clone(), titled(&app, "Do it")).await.unwrap();
    let id = made.record.id;
    missing(handle.add_task(b.clone(), titled(&app, "Do it")).await);
    missing(handle.task(&b, id).await);
    missing(handle.set_task(b.clone(), id, None, say(Say::Done)).await);
    missing(handle.run_task(b.clone(), id, command(&["exit", "0"])).await);
    missing(handle.remove_task(b.clone(), id, false).await);
    missing(handle.remove_project(b.clone(), app.record.id, true).await);
    assert_eq!(handle.tasks(&b, TaskFilter::default()).await.unwrap(), []);
    let hex = id.0.simple().to_string();
    assert_eq!(handle.find_planned(&b, &hex).await.unwrap(), (vec![], vec![]));
    assert_eq!(handle.find_planned(&a, &hex).await.unwrap(), (vec![], vec![id]));
    assert_eq!(look(&handle, id).await, made);
}
