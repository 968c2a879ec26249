//! What the host costs while nothing happens: the daemon as the command line starts it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::Bench;
use super::report::{Report, Unit, Want};
use crate::failure::{Doing, Failure};

/// How long the host is left alone before it is looked at.
const SETTLE: Duration = Duration::from_secs(2);

/// How long it is looked at.
const WATCHED: Duration = Duration::from_secs(20);

pub(super) fn measure(bench: &Bench) -> Result<Report, Failure> {
    let dir = bench.path("idle");
    let watched = if bench.tenth { WATCHED / 10 } else { WATCHED };
    let ran = windlass(bench, &dir, &["ps", "--json"]).and_then(|_| watch(bench, &dir, watched));
    // Ended in any case; one that was not started cannot be.
    let ended = windlass(bench, &dir, &["host", "stop"]);
    let (wakes, resident) = ran?;
    ended?;
    let mut report = Report::default();
    report.add_amount("wake-ups a second", wakes, Unit::Times, &[Want::AtMost(1.0)]);
    report.add_amount("resident memory", resident, Unit::Bytes, &[Want::AtMost(25e6)]);
    Ok(report)
}

fn watch(bench: &Bench, dir: &Path, watched: Duration) -> Result<(f64, f64), Failure> {
    let status = windlass(bench, dir, &["host", "status", "--json"])?;
    let status: Value = serde_json::from_str(&status)
        .map_err(|error| Failure::new(format!("{error}: {status}")))?;
    let pid = status["pid"].as_u64().ok_or_else(|| Failure::new(format!("no pid in {status}")))?;
    thread::sleep(SETTLE);
    let before = wake_ups(pid)?;
    thread::sleep(watched);
    let woken = wake_ups(pid)?;
    // A thread that has ended meanwhile takes its number along.
    let since = woken.iter().map(|(thread, count)| count - before.get(thread).unwrap_or(&0.0));
    let wakes = since.sum::<f64>() / watched.as_secs_f64();
    Ok((wakes, field(&format!("/proc/{pid}/status"), "VmRSS:")? * 1024.0))
}

/// Counts how often each thread of a process has gone to sleep.
fn wake_ups(pid: u64) -> Result<BTreeMap<OsString, f64>, Failure> {
    let mut counts = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).doing("list the threads of the host")? {
        let task = task.doing("look at a thread of the host")?;
        let status = task.path().join("status");
        let count = field(&status.to_string_lossy(), "voluntary_ctxt_switches:")?;
        counts.insert(task.file_name(), count);
    }
    Ok(counts)
}

/// Reads a number of a status file of the kernel.
pub(super) fn field(path: &str, name: &str) -> Result<f64, Failure> {
    let text = fs::read_to_string(path).doing(format_args!("read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| Failure::new(format!("{path} has no {name}")))
}

fn windlass(bench: &Bench, dir: &Path, arguments: &[&str]) -> Result<String, Failure> {
    let output = Command::new(&bench.windlass)
        .args(arguments)
        .arg("--data-dir")
        .arg(dir)
        .output()
        .doing(format_args!("run {}", bench.windlass.display()))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Failure::new(format!(
            "windlass {} ended with {}: {said}",
            arguments.join(" "),
            output.status
        )))
    }
}
