//! Tells whether this process is part of an execution. A host that were started here would die with it.

use std::path::Path;

use crate::config::Environment;
use crate::error::{Class, CliError};

/// Refuses if this process is part of an execution.
///
/// # Errors
///
/// It is.
pub fn refuse(environment: &Environment) -> Result<(), CliError> {
    let Some(why) = execution(environment) else { return Ok(()) };
    Err(CliError::new(
        Class::NoHost,
        "no_host",
        format!("no host runs, and none is started from inside an execution ({why})"),
        "start it outside, for example in a terminal: windlass host run; or with `windlass host install`",
    ))
}

/// Says by what an execution is recognised around this process.
fn execution(environment: &Environment) -> Option<String> {
    if let Some(id) = environment.execution() {
        return Some(format!("WINDLASS_EXECUTION_ID is {}", id.display()));
    }
    ancestors()
        .into_iter()
        .find(|&pid| holds_shim_lock(pid))
        .map(|pid| format!("process {pid} is its shim"))
}

/// Lists the processes above this one, nearest first, as far as the system tells.
fn ancestors() -> Vec<u32> {
    let mut found = Vec::new();
    let mut next = std::fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(parent);
    while let Some(pid) = next.filter(|&pid| pid > 0 && !found.contains(&pid)) {
        found.push(pid);
        next =
            std::fs::read_to_string(format!("/proc/{pid}/stat")).ok().as_deref().and_then(parent);
    }
    found
}

/// Reads the parent from a `stat` line. The name in parentheses may hold anything, parentheses included.
fn parent(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Says whether a process has the lock of an execution's place open: only its shim does.
fn holds_shim_lock(pid: u32) -> bool {
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors
        .flatten()
        .any(|entry| std::fs::read_link(entry.path()).is_ok_and(|target| is_shim_lock(&target)))
}

/// Recognises `…/runs/<uuid>.<uuid>/lock`.
fn is_shim_lock(path: &Path) -> bool {
    let mut parts = path.iter().rev();
    let (file, place, runs) = (parts.next(), parts.next(), parts.next());
    let is_place = place
        .and_then(|name| name.to_str())
        .and_then(|name| name.split_once('.'))
        .is_some_and(|(execution, nonce)| {
            [execution, nonce].iter().all(|id| id.parse::<uuid::Uuid>().is_ok())
        });
    file.is_some_and(|name| name == windlass_shim::LOCK_FILE)
        && runs.is_some_and(|name| name == "runs")
        && is_place
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_of_a_place_is_recognised() {
        let place = "01890a5d-ac96-774b-bcce-b302099a8057.01890a5d-ac96-774b-bcce-b302099a8058";
        assert!(is_shim_lock(Path::new(&format!("/d/runs/{place}/lock"))));
        for path in [
            format!("/d/runs/{place}/journal"),
            format!("/d/other/{place}/lock"),
            "/d/runs/a.b/lock".to_owned(),
            "/lock".to_owned(),
        ] {
            assert!(!is_shim_lock(Path::new(&path)), "{path}");
        }
    }

    #[test]
    fn the_parent_is_found_behind_any_name() {
        assert_eq!(parent("12 (a) b (c)) S 7 12 12 0"), Some(7));
        assert_eq!(parent("garbage"), None);
    }

    #[test]
    fn the_mark_in_the_environment_is_enough() {
        let variables = vec![("WINDLASS_EXECUTION_ID".into(), "01890a5d".into())];
        let error = refuse(&Environment { variables }).unwrap_err();
        assert_eq!(error.class, Class::NoHost);
    }
}
