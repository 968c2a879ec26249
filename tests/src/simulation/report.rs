//! What people are shown: the violated property, the plan, the last events in columns, the difference of what there is.

use std::fmt::Write as _;

use windlass_core::process_store::Write;
use windlass_fakes::faulty::{About, Fault, Told};
use windlass_fakes::world::{Happened, Signaller, StartId};

use super::event::{Answer, Event, What};
use super::names::Names;
use super::plan::Plan;
use super::stage::Outcome;
use super::view::{Kernel, Start};

/// How many events are shown.
const LAST: usize = 40;

/// How an event is printed: about what, and what.
fn columns(event: &Event, names: &Names) -> (String, String) {
    let of = |about: About| names.of(about).to_string();
    match &event.what {
        What::Called { life, call, fault, .. } => {
            let fault = match fault {
                Fault::None => String::new(),
                fault => format!("   ! {fault:?}"),
            };
            (of(call.about), format!("host {} calls {}{fault}", life.0, call.site.as_str()))
        }
        What::Returned { life, call, told, .. } => {
            let told = match told {
                Told::Done => "is told that it is done",
                Told::Failed => "is told that it failed",
                Told::Injected => "is told that it failed, as the fault says",
                Told::Nothing => "dies",
            };
            (of(call.about), format!("host {} {told}: {}", life.0, call.site.as_str()))
        }
        What::Performed { call, failure, .. } => {
            let what = match failure {
                None => "was done".to_owned(),
                Some(why) => format!("failed: {why}"),
            };
            (of(call.about), format!("{} {what}", call.site.as_str()))
        }
        What::Committed { life, lease, number, writes } => {
            let what: Vec<_> = writes.iter().map(|write| written(write, names)).collect();
            let (epoch, number) = (lease.epoch.0, number.0);
            (
                String::new(),
                format!("durable #{number} by host {} ({epoch}): {}", life.0, what.join(", ")),
            )
        }
        What::Acquired { life, lease } => {
            (String::new(), format!("host {} takes over: epoch {}", life.0, lease.epoch.0))
        }
        What::Happened(happened) => happened_columns(happened, names),
        What::Asked { life, request, .. } => {
            let about = request.verb.of().unwrap_or_default().to_owned();
            (about, format!("{} asks host {}: {:?}", request.name, life.0, request.verb))
        }
        What::Answered { request, answer, .. } => {
            let about = request.verb.of().unwrap_or_default().to_owned();
            (about, format!("{} hears: {}", request.name, answer_text(answer)))
        }
        What::Read { execution, after, page, .. } => (
            names.execution(*execution).to_string(),
            format!("log read after {} to {} (end {})", after.0, page.next.0, page.end),
        ),
        What::HostComes { life } => (String::new(), format!("host {} comes", life.0)),
        What::HostServes { life, epoch } => {
            (String::new(), format!("host {} serves, epoch {}", life.0, epoch.0))
        }
        What::HostGone { life, why } => {
            (String::new(), format!("host {} is gone: {why:?}", life.0))
        }
        What::HostSays { life, running, queued } => {
            (String::new(), format!("host {} counts {running} running, {queued} waiting", life.0))
        }
        What::Healed => (String::new(), "nothing goes wrong from here on".to_owned()),
        What::Settled => (String::new(), "everything had time to end".to_owned()),
    }
}

fn answer_text(answer: &Answer) -> String {
    match answer {
        Answer::Accepted(_) => "accepted".to_owned(),
        Answer::Trying(_) => "will try again".to_owned(),
        Answer::Done => "done".to_owned(),
        Answer::Committing(_) => "a git step commits".to_owned(),
        Answer::Clean => "nothing to commit".to_owned(),
        Answer::Cleaned(items) => format!("cleanup found {}", items.len()),
        Answer::Refused { code, reason } => format!("refused ({code:?}): {reason}"),
        Answer::Wrong(why) => format!("wrong: {why}"),
        Answer::Unknown(why) => format!("unknown: {why}"),
    }
}

fn written(write: &Write, names: &Names) -> String {
    let key = write.key();
    let name = match key.kind {
        windlass_core::process_store::Kind::Attempt => {
            names.of(About::Attempt(windlass_core::id::AttemptId(key.id)))
        }
        windlass_core::process_store::Kind::Execution => {
            names.execution(windlass_core::id::ExecutionId(key.id))
        }
        _ => "".into(),
    };
    match write {
        Write::Put { record, .. } => format!("{} {name} [{}]", key.kind.as_str(), record.state),
        Write::Delete { .. } => format!("{} {name} deleted", key.kind.as_str()),
    }
}

fn happened_columns(happened: &Happened, names: &Names) -> (String, String) {
    let of = |start: &StartId| names.execution(start.execution).to_string();
    match happened {
        Happened::ShimStarted { start, shim } => (of(start), format!("K shim {} starts", shim.pid)),
        Happened::Started { start, process, .. } => {
            (of(start), format!("K process {} starts", process.pid))
        }
        Happened::NotStarted { start, reason } => (of(start), format!("K not started: {reason:?}")),
        Happened::Forked { start, parent, child } => {
            (of(start), format!("K {} forks {}", parent.pid, child.pid))
        }
        Happened::Exited { start, process, leader, exit, .. } => {
            let who = if *leader { "leader" } else { "child" };
            let about = start.as_ref().map(of).unwrap_or_default();
            (about, format!("K {who} {} ends: {exit:?}", process.pid))
        }
        Happened::Signalled { start, process, signal, by } => {
            let by = match by {
                Signaller::Shim(_) => "its shim",
                Signaller::Host => "a host",
                Signaller::Itself => "itself",
                Signaller::Kernel => "the kernel",
                Signaller::Somebody => "somebody",
            };
            let about = start.as_ref().map(of).unwrap_or_default();
            (about, format!("K {} gets signal {signal} from {by}", process.pid))
        }
        Happened::Wrote { start, stream, bytes, .. } => {
            (of(start), format!("K writes {} bytes to {stream:?}", bytes.len()))
        }
        Happened::FileWritten { directory, path, .. } => {
            (String::new(), format!("K {directory}: {path} is written"))
        }
        Happened::PidReused { process, .. } => {
            (String::new(), format!("K the number {} is given again", process.pid))
        }
        Happened::Recorded { start, record } => {
            let text = format!("{record:?}");
            let word = text.split(['(', ' ']).next().unwrap_or_default().to_owned();
            (of(start), format!("K journal: {word}"))
        }
        Happened::LogSynced { start, last_seq } => {
            (of(start), format!("K log is on the disk to {last_seq}"))
        }
        Happened::PlaceRemoved { start } => (of(start), "K its place is removed".to_owned()),
        Happened::ShimGone { start, shim, killed } => {
            let how = if *killed { "is killed" } else { "leaves" };
            (of(start), format!("K shim {} {how}", shim.pid))
        }
        Happened::StrangerStarted { process } => {
            (String::new(), format!("K stranger {} starts", process.pid))
        }
        Happened::PowerLost { boot } => (String::new(), format!("K power lost; boot {boot}")),
        Happened::DirectoryMade { directory } => (String::new(), format!("K {directory} is made")),
        Happened::DirectoryRenamed { from, to } => {
            (String::new(), format!("K {from} becomes {to}"))
        }
        Happened::DirectoryRemoved { directory } => {
            (String::new(), format!("K {directory} is removed"))
        }
    }
}

/// Prints events in columns: virtual time, name, event. Those that prove the violation are marked.
#[must_use]
pub fn events(outcome: &Outcome, last: Option<usize>) -> String {
    let mut text = String::new();
    let proof = outcome.violation.as_ref().map(|violation| &violation.proof);
    let begin = outcome.trace.first().map_or(0, |event| event.at.0);
    let skip = last.map_or(0, |last| outcome.trace.len().saturating_sub(last));
    for (n, event) in outcome.trace.iter().enumerate() {
        let proves = event.number == outcome.noticed_at
            || proof.is_some_and(|proof| proof.contains(&event.number));
        if n < skip && !proves {
            continue;
        }
        let (about, what) = columns(event, &outcome.names);
        let (mark, ms) = (if proves { '>' } else { ' ' }, event.at.0 - begin);
        // Writing to a string does not fail.
        let _written = writeln!(text, "{mark} {ms:>9} {about:<8} {what}");
    }
    text
}

/// Prints what the records, the kernel and the worktrees say of each execution and attempt.
#[must_use]
pub fn difference(outcome: &Outcome) -> String {
    let mut text = String::new();
    let _written = writeln!(text, "{:<10} {:<34} kernel", "execution", "store");
    for record in outcome.store.executions() {
        let name = outcome.names.execution(record.id);
        let stored = match record.outcome {
            Some(outcome) => format!("{}, {outcome:?}", record.phase.as_str()),
            None => record.phase.as_str().to_owned(),
        };
        let kernel = kernel_text(&outcome.kernel, record.id);
        let _written = writeln!(text, "{name:<10} {stored:<34} {kernel}");
    }
    for attempt in outcome.store.attempts() {
        let reason = attempt.reason.as_ref().map(|reason| format!(", {reason:?}"));
        let _written = writeln!(
            text,
            "{:<10} attempt {}{}{}",
            attempt.title,
            attempt.status.as_str(),
            if attempt.claim.is_some() { ", claimed" } else { "" },
            reason.unwrap_or_default()
        );
    }
    text
}

fn kernel_text(kernel: &Kernel, id: windlass_core::id::ExecutionId) -> String {
    let one = |start: &Start| {
        let state = match (start.leader, start.exit) {
            (None, _) => "never ran".to_owned(),
            (Some(_), Some(exit)) => format!("{exit:?}"),
            (Some(_), None) if start.living.is_empty() => "gone with the machine".to_owned(),
            (Some(_), None) => "runs".to_owned(),
        };
        let journal = match start.journal.last() {
            None => "no journal".to_owned(),
            Some(record) => {
                let text = format!("{record:?}");
                text.split(['(', ' ']).next().unwrap_or_default().to_owned()
            }
        };
        format!("{state}, {} alive, {} signals, {journal}", start.living.len(), start.signals.len())
    };
    let all: Vec<_> = kernel.starts_of(id).map(|(_, start)| one(start)).collect();
    if all.is_empty() { "no start".to_owned() } else { all.join("; ") }
}

/// Prints everything that one needs to understand a violation and to see it again.
#[must_use]
pub fn violation(outcome: &Outcome, plan: &Plan, commit: &str, again: &str) -> String {
    let Some(violation) = &outcome.violation else { return String::new() };
    let mut text = String::new();
    let _written = writeln!(text, "violated: {violation}");
    let _written =
        writeln!(text, "seed {} at commit {commit}, scenario {}", plan.seed, plan.scenario);
    let _written = writeln!(text, "\nplan\n{plan}");
    let _written = writeln!(
        text,
        "the last events ({} in all)\n{}",
        outcome.events,
        events(outcome, Some(LAST))
    );
    let _written = writeln!(text, "what there is\n{}", difference(outcome));
    let _written = writeln!(text, "again: {again}");
    text
}
