//! `diff`: what an attempt changed, against its merge base.

use windlass::core::vcs_worktree::ChangeKind;
use windlass::view::DiffFileView;

use crate::args::DiffArgs;
use crate::context::Context;
use crate::error::CliError;
use crate::ids;
use crate::output::{Output, Style};
use crate::table::{Cell, table};

/// Shows what an attempt changed: a patch, or files and counts.
///
/// # Errors
///
/// There is no such attempt, or the host's.
pub(super) async fn diff(context: &Context, args: DiffArgs) -> Result<u8, CliError> {
    let (client, output) = (context.client()?, context.output);
    let id = ids::attempt(&client, &args.attempt).await?;
    if output.json {
        for file in client.diff(id).await?.files {
            output.object(&file)?;
        }
    } else if args.stat {
        let files = client.diff(id).await?.files;
        if !files.is_empty() {
            output.bytes(stat(output, &files).as_bytes())?;
        }
    } else {
        output.bytes(&client.patch(id).await?)?;
    }
    Ok(0)
}

fn stat(output: Output, files: &[DiffFileView]) -> String {
    let count = |sign: char, file: &DiffFileView, lines: Option<u64>, style| match lines {
        Some(lines) => Cell::styled(format!("{sign}{lines}"), style),
        None if file.too_large => Cell::from("large"),
        None => Cell::from("binary"),
    };
    let rows: Vec<_> = files
        .iter()
        .map(|file| {
            let path = match &file.old_path {
                Some(old) => format!("{old} -> {}", file.path),
                None => file.path.to_string(),
            };
            vec![
                Cell::from(letter(file)),
                count('+', file, file.added, Style::Good),
                count('-', file, file.removed, Style::Bad),
                Cell::from(path),
            ]
        })
        .collect();
    let sum = |of: fn(&DiffFileView) -> Option<u64>| files.iter().filter_map(of).sum::<u64>();
    let mut text = table(output, &["", "ADDED", "REMOVED", "FILE"], &rows);
    let (added, removed) = (sum(|file| file.added), sum(|file| file.removed));
    let files = counted(u64::try_from(files.len()).unwrap_or(u64::MAX), "file");
    let added = counted(added, "line");
    text.push_str(&format!("{files} changed, {added} added, {removed} removed\n"));
    text
}

fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn letter(file: &DiffFileView) -> &'static str {
    if file.untracked {
        return "?";
    }
    match file.change {
        ChangeKind::Added => "A",
        ChangeKind::Modified => "M",
        ChangeKind::Deleted => "D",
        ChangeKind::Renamed => "R",
        ChangeKind::Copied => "C",
        ChangeKind::TypeChanged => "T",
    }
}

#[cfg(test)]
mod tests {
    use windlass::core::locator::Locator;

    use super::*;

    #[test]
    fn files_are_counted() {
        let file = |path: &str, added, untracked| DiffFileView {
            path: Locator::new(path.as_bytes()),
            old_path: None,
            change: ChangeKind::Modified,
            added,
            removed: added,
            mode: None,
            untracked,
            too_large: false,
        };
        let plain =
            Output { json: false, quiet: false, color: false, is_terminal: false, width: None };
        let text = stat(plain, &[file("a b", Some(3), false), file("c", None, true)]);
        let expected = "   ADDED   REMOVED  FILE\n\
                        M  +3      -3       a b\n\
                        ?  binary  binary   c\n\
                        2 files changed, 3 lines added, 3 removed\n";
        assert_eq!(text, expected);
    }
}
