//! `diff`: what an attempt changed, against its merge base.

mod live;

use windlass::core::vcs_worktree::ChangeKind;
use windlass::view::DiffFileView;

use crate::args::DiffArgs;
use crate::context::Context;
use crate::error::CliError;
use crate::ids;
use crate::output::{Output, Style};
use crate::table::{Cell, printable, table};

/// Shows what an attempt changed: a patch, or files and counts.
///
/// # Errors
///
/// There is no such attempt, or the host's.
pub(super) async fn diff(context: &Context, args: DiffArgs) -> Result<u8, CliError> {
    let (client, output) = (context.client()?, context.output);
    let id = ids::attempt(&client, &args.attempt).await?;
    if args.follow {
        return live::follow(client, id, output).await;
    }
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

/// The head of a table of files.
const HEAD: [&str; 4] = ["", "ADDED", "REMOVED", "FILE"];

fn stat(output: Output, files: &[DiffFileView]) -> String {
    let mut text = table(output, &HEAD, &rows(files));
    text.push_str(&summary(files));
    text.push('\n');
    text
}

fn rows(files: &[DiffFileView]) -> Vec<Vec<Cell>> {
    let count = |sign: char, file: &DiffFileView, lines: Option<u64>, style| match lines {
        Some(lines) => Cell::styled(format!("{sign}{lines}"), style),
        None if file.too_large => Cell::from("large"),
        None => Cell::from("binary"),
    };
    let row = |file: &DiffFileView| {
        vec![
            Cell::from(letter(file)),
            count('+', file, file.added, Style::Good),
            count('-', file, file.removed, Style::Bad),
            Cell::from(name(file)),
        ]
    };
    files.iter().map(row).collect()
}

fn name(file: &DiffFileView) -> String {
    match &file.old_path {
        Some(old) => format!("{old} -> {}", file.path),
        None => file.path.to_string(),
    }
}

/// A file on a line of its own.
fn line(file: &DiffFileView) -> String {
    let counts = match (file.added, file.removed) {
        (Some(added), Some(removed)) => format!("+{added} -{removed}"),
        _ if file.too_large => "large".to_owned(),
        _ => "binary".to_owned(),
    };
    format!("{} {counts} {}", letter(file), printable(&name(file)))
}

fn summary<'a>(files: impl IntoIterator<Item = &'a DiffFileView>) -> String {
    let (mut count, mut added, mut removed) = (0, 0, 0);
    for file in files {
        count += 1;
        added += file.added.unwrap_or(0);
        removed += file.removed.unwrap_or(0);
    }
    let (files, added) = (counted(count, "file"), counted(added, "line"));
    format!("{files} changed, {added} added, {removed} removed")
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
