//! Who works in a worktree: processes that outlived their execution, or a person's shell.

use std::fs;
use std::path::Path;

/// How many are named.
const NAMED: usize = 4;

/// Names processes whose current directory is in `path`: number and command name. Those that we may not look at are not
/// seen; without a `/proc` nobody is.
pub(super) fn occupants(path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().filter(|name| name.bytes().all(|b| b.is_ascii_digit()))
        else {
            continue;
        };
        let works_in = |link: std::path::PathBuf| link.starts_with(path);
        if fs::read_link(entry.path().join("cwd")).is_ok_and(works_in) {
            let command = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            found.push(format!("process {pid} ({})", command.trim()));
        }
    }
    if found.len() > NAMED {
        let more = found.len() - NAMED;
        found.truncate(NAMED);
        found.push(format!("{more} more"));
    }
    found
}
