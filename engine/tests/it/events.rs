//! Events: numbered, from any number on, without a gap, for any number of followers.

use windlass::EngineError;
use windlass::Handle;
use windlass::core::process_store::{Change, ChangeNumber, Kind};
use windlass::handle::{EventPage, Events};
use windlass::request::{
    Caller, LaunchRequest, ProjectChange, ProjectRequest, TaskChange, TaskRequest, TaskRun,
};

use crate::place::{Place, in_directory, operator, owner, run, settled};

const START: ChangeNumber = ChangeNumber(0);

/// Reads everything after a number that has happened by now.
async fn after(handle: &Handle, caller: &Caller, number: ChangeNumber) -> Vec<Change> {
    let mut events = handle.events(caller, number);
    let mut all = Vec::new();
    while let Some(page) = events.so_far().await.unwrap() {
        all.extend(page.iter().cloned());
    }
    all
}

async fn last(handle: &Handle) -> ChangeNumber {
    handle.changes(&operator(), START, 1).await.unwrap().last
}

/// Makes a task of a new project.
async fn task(place: &Place, handle: &Handle, caller: &Caller) -> windlass::core::id::TaskId {
    let with = ProjectChange::default();
    let request = ProjectRequest { repo: place.repository(), with };
    let project = handle.add_project(caller.clone(), request).await.unwrap().record.id;
    let (title, description) = ("Do it".to_owned(), String::new());
    let request = TaskRequest { project, title, description, parent: None };
    handle.add_task(caller.clone(), request).await.unwrap().record.id
}

fn command(argv: &[&str]) -> TaskRun {
    TaskRun::new(LaunchRequest::command(argv.iter().copied()))
}

fn statuses(changes: &[Change]) -> Vec<&str> {
    let tasks = changes.iter().filter(|change| change.key.kind == Kind::Task);
    tasks.map(|change| change.state.as_deref().unwrap_or("deleted")).collect()
}

/// Follows until a number is reached.
async fn follow(mut events: Events, until: ChangeNumber) -> Vec<Change> {
    let mut seen = Vec::new();
    while events.after() < until {
        let page: EventPage = events.next().await.unwrap();
        assert!(page.len() > 0);
        seen.extend(page.iter().cloned());
    }
    seen
}

#[tokio::test]
async fn who_follows_sees_the_status_of_a_task_change_with_its_attempts() {
    let place = Place::new();
    let handle = place.start().await;
    let id = task(&place, &handle, &operator()).await;
    let before = last(&handle).await;
    let mut events = handle.events(&operator(), START);
    let mut seen = Vec::new();
    let accepted = handle.run_task(operator(), id, command(&["wait", "0"])).await.unwrap();
    handle.started(&operator(), accepted.execution).await.unwrap();
    let started = last(&handle).await;
    while events.after() < started {
        seen.extend(events.next().await.unwrap().iter().cloned());
    }
    // What was told at first is how it stands by then.
    assert_eq!(statuses(&seen), ["in_progress"]);
    place.world.release(accepted.execution);
    settled(&handle, &accepted).await;
    while events.after() < last(&handle).await {
        seen.extend(events.next().await.unwrap().iter().cloned());
    }
    assert_eq!(statuses(&seen), ["in_progress", "in_review"]);
    let told = seen.iter().rfind(|change| change.key.kind == Kind::Task).unwrap();
    let with = seen.iter().find(|change| change.number == told.number).unwrap();
    assert_eq!((with.key.kind, with.key.id), (Kind::Attempt, accepted.attempt.0));
    assert_eq!(told.key.id, id.0);
    // Who comes later is told the same, or only how it stands in the end.
    let late = after(&handle, &operator(), before).await;
    assert_eq!(statuses(&late).last(), Some(&"in_review"));
    let numbers: Vec<_> = seen.iter().map(|change| change.number).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    assert!(seen.iter().all(|change| change.key.kind != Kind::Request));
    // What is not there any more has no status.
    handle.remove_task(operator(), id, false).await.unwrap();
    let handle = place.restart().await;
    assert_eq!(statuses(&after(&handle, &operator(), before).await), ["deleted"]);
}

#[tokio::test]
async fn many_followers_see_the_same_wherever_they_begin_and_however_slow_they_are() {
    let place = Place::new();
    let handle = place.start().await;
    let slow = handle.events(&operator(), START);
    let mut followers = Vec::new();
    for _ in 0..20 {
        followers.push(tokio::spawn({
            let events = handle.events(&operator(), START);
            // Far more than happens here: it is ended with the host.
            async move {
                let (mut events, mut seen) = (events, Vec::new());
                while let Ok(page) = events.next().await {
                    seen.extend(page.iter().cloned());
                }
                seen
            }
        }));
    }
    for _ in 0..30 {
        let accepted = run(&handle, in_directory(&["exit", "0"])).await;
        settled(&handle, &accepted).await;
    }
    let end = last(&handle).await;
    let all = after(&handle, &operator(), START).await;
    assert_eq!(follow(slow, end).await, all);
    for number in 0..end.0 {
        let number = ChangeNumber(number);
        let rest: Vec<_> = all.iter().filter(|change| change.number > number).cloned().collect();
        assert_eq!(after(&handle, &operator(), number).await, rest);
    }
    // All that was told to anybody was told before the host left.
    handle.shut_down().await.unwrap();
    for follower in followers {
        assert_eq!(follower.await.unwrap(), all);
    }
    let raw = place.start().await.changes(&operator(), START, u32::MAX).await.unwrap().changes;
    let kept: Vec<_> = raw
        .into_iter()
        .filter(|change| change.key.kind != Kind::Request && change.number <= end)
        .collect();
    assert_eq!(all, kept);
}

#[tokio::test]
async fn an_owner_is_told_of_its_own_alone() {
    let place = Place::new();
    let handle = place.start().await;
    let (a, b) = (owner("a"), owner("b"));
    let id = task(&place, &handle, &a).await;
    let accepted = handle.run_task(a.clone(), id, command(&["exit", "0"])).await.unwrap();
    settled(&handle, &accepted).await;
    assert_eq!(after(&handle, &b, START).await, []);
    assert_eq!(after(&handle, &a, START).await, after(&handle, &operator(), START).await);
    let own = handle.run(b.clone(), in_directory(&["exit", "0"])).await.unwrap();
    let mut events = handle.events(&b, START);
    assert!(events.next().await.unwrap().iter().all(|change| change.owner.as_deref() == Some("b")));
    settled(&handle, &own).await;
}

#[tokio::test]
async fn what_there_is_and_what_changes_after_it_leave_no_gap() {
    let place = Place::new();
    let handle = place.start().await;
    let id = task(&place, &handle, &operator()).await;
    let gone = run(&handle, in_directory(&["exit", "0"])).await;
    settled(&handle, &gone).await;
    handle.remove(operator(), gone.attempt, Default::default()).await.unwrap();
    let accepted = handle.run_task(operator(), id, command(&["wait", "0"])).await.unwrap();
    handle.started(&operator(), accepted.execution).await.unwrap();

    let mut state = handle.state(&operator()).await.unwrap();
    let number = state.number();
    let mut there = Vec::new();
    while let Some(page) = state.next().await.unwrap() {
        there.extend(page);
    }
    let kinds: Vec<_> = there.iter().map(|change| change.key.kind).collect();
    assert_eq!(kinds, [Kind::Project, Kind::Task, Kind::Attempt, Kind::Execution]);
    assert!(there.iter().all(|change| change.number == number));
    assert_eq!(statuses(&there), ["in_progress"]);
    assert_eq!(there[2].key.id, accepted.attempt.0);
    place.world.release(accepted.execution);
    settled(&handle, &accepted).await;
    let rest = after(&handle, &operator(), number).await;
    assert_eq!(statuses(&rest), ["in_review"]);
    let end = rest.iter().rfind(|change| change.key.kind == Kind::Execution).unwrap();
    assert_eq!(end.state.as_deref(), Some("final"));
    let mut mine = handle.state(&owner("a")).await.unwrap();
    assert_eq!(mine.next().await.unwrap(), None);
}

#[tokio::test]
async fn a_number_that_is_still_to_come_is_refused_rather_than_waited_for() {
    let place = Place::new();
    let handle = place.start().await;
    let accepted = run(&handle, in_directory(&["exit", "0"])).await;
    settled(&handle, &accepted).await;
    let beyond = ChangeNumber(last(&handle).await.0 + 1);
    let mut events = handle.events(&operator(), beyond);
    assert!(matches!(events.next().await, Err(EngineError::Invalid { .. })));
    assert!(matches!(events.so_far().await, Err(EngineError::Invalid { .. })));
    // Nobody else is kept from following by it.
    let mut events = handle.events(&operator(), START);
    assert!(events.next().await.unwrap().len() > 0);
}

#[tokio::test]
async fn one_who_stops_waiting_keeps_nobody_else_waiting() {
    let place = Place::new();
    let handle = place.start().await;
    let end = last(&handle).await;
    let (mut first, mut second) =
        (handle.events(&operator(), end), handle.events(&operator(), end));
    let waits = tokio::spawn(async move { first.next().await.map(|page| page.len()) });
    // The first one is waiting by the time that this is answered.
    tokio::task::yield_now().await;
    handle.status().await.unwrap();
    let other = tokio::spawn(async move { second.next().await.unwrap().len() });
    tokio::task::yield_now().await;
    waits.abort();
    assert!(waits.await.unwrap_err().is_cancelled());
    let accepted = run(&handle, in_directory(&["exit", "0"])).await;
    assert!(other.await.unwrap() > 0);
    settled(&handle, &accepted).await;
}

#[tokio::test]
async fn who_is_always_there_first_keeps_nobody_from_what_is_read() {
    let place = Place::new();
    let handle = place.start().await;
    let id = task(&place, &handle, &operator()).await;
    let end = last(&handle).await;
    let (mut eager, mut other) = (handle.events(&operator(), end), handle.events(&operator(), end));
    let eager = tokio::spawn(async move { while eager.next().await.is_ok() {} });
    for n in 0..20 {
        let title = Some(format!("{n}"));
        let change = TaskChange { title, ..TaskChange::default() };
        // While the other is not asking the eager one has read it, and waits for more.
        handle.set_task(operator(), id, None, change).await.unwrap();
        tokio::task::yield_now().await;
        handle.status().await.unwrap();
        assert_eq!(other.next().await.unwrap().len(), 1);
        assert_eq!(other.after(), last(&handle).await);
    }
    handle.shut_down().await.unwrap();
    eager.await.unwrap();
}
