//! Messages with a reset over hosts that die at each call of a port.

use windlass::core::action::{RunReason, Stdin};
use windlass::core::log_store::{From, LogItem, ReadOptions, Seq, Stream};
use windlass::core::record::{AttemptStatus, FollowUpState};
use windlass::handle::ListFilter;
use windlass::request::{InputRequest, SendOptions};

use crate::place::{Doom, Place, in_worktree, keyed, operator, run};

/// Sends a message with a reset to an attempt at rest, in whose worktree somebody has worked, on a host that dies at a call;
/// says whether it did.
async fn sent_and_dies_at(call: u64, after: bool) -> bool {
    let mut place = Place::with_files();
    let handle = place.start().await;
    let mut request = in_worktree(&place.repository(), &["script", "echo", "file:made:work"]);
    request.launch.stdin = Stdin::Messages;
    let accepted = run(&handle, request).await;
    handle.started(&operator(), accepted.execution).await.unwrap();
    let key = uuid::Uuid::from_u128(1);
    let (execution, bytes) = (accepted.execution, "first".into());
    let close = InputRequest { execution, key, bytes, secret: false, close: true };
    handle.input(operator(), close).await.unwrap();
    let record = handle.at_rest(&operator(), accepted.attempt).await.unwrap();
    place.repositories.write(record.workspace.path(), "by-hand", b"x");
    place.kill().await;
    let doom = Doom::new(call, after);
    place.doom = Some(doom.clone());
    let text = || "go on".to_owned();
    let with = || SendOptions { reset: true, ..SendOptions::default() };
    let first = async {
        let handle = place.start().await;
        handle.send_with(keyed("s"), accepted.attempt, text(), with()).await.unwrap();
        handle.at_rest(&operator(), accepted.attempt).await.unwrap();
    };
    let died = tokio::select! {
        biased;
        () = doom.came() => true,
        () = first => false,
    };
    place.kill().await;
    place.doom = None;
    let handle = place.start().await;
    let sent = handle.send_with(keyed("s"), accepted.attempt, text(), with()).await.unwrap();
    let record = handle.at_rest(&operator(), accepted.attempt).await.unwrap();
    let name = format!("call {call}, after: {after}");
    assert_eq!((record.status, &record.reason), (AttemptStatus::Finished, &None), "{name}");
    assert_eq!((record.queue, record.follow_ups), (0, 1), "{name}");
    let filter = ListFilter { all: true, attempt: Some(accepted.attempt), ..ListFilter::default() };
    let mut agents = handle.executions(&operator(), filter).await.unwrap();
    agents.retain(|record| record.action.run_reason == RunReason::Agent);
    assert_eq!(agents.len(), 2, "{name}");
    let sent = handle.follow_up(&operator(), sent.record.id).await.unwrap().record;
    assert_eq!(sent.state, FollowUpState::Consumed, "{name}");
    let path = record.workspace.path();
    assert_eq!(place.repositories.read(path, "by-hand"), None, "{name}");
    let saved = handle.snapshots(&operator(), accepted.attempt).await.unwrap().len();
    assert!((1..=2).contains(&saved), "{name}: {saved}");
    let options = ReadOptions { from: From::After(Seq(0)), max_items: 100, max_bytes: 1 << 20 };
    let log = handle.log_page(&operator(), sent.execution.unwrap(), options).await.unwrap();
    let is_output = |item: &&LogItem| match item {
        LogItem::Entry { stream: Stream::Stdout, bytes, .. } => bytes.as_ref() == b"go on\n",
        _ => false,
    };
    assert_eq!(log.items.iter().filter(is_output).count(), 1, "{name}: it is read once");
    let status = handle.status().await.unwrap();
    assert_eq!((status.running, status.queued), (0, 0), "{name}");
    died
}

#[tokio::test]
async fn a_host_that_dies_at_any_call_of_a_port_resets_and_runs_a_message_once() {
    for after in [false, true] {
        let mut call = 1;
        while sent_and_dies_at(call, after).await {
            call += 1;
        }
        assert!(call > 20, "there are more calls than {call}");
    }
}
