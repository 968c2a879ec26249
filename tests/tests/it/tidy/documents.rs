//! Rules about documents, and about what no file may contain.

use std::path::{Component, Path, PathBuf};

use super::tree::File;

const INDEX: &str = "docs/README.md";

/// People that have homes in examples only.
const MADE_UP: [&str; 3] = ["x", "user", "you"];

/// Every document is reachable from the index, itself or by its folder.
pub(super) fn indexed(files: &[File]) -> Vec<String> {
    let Some(index) = files.iter().find(|file| file.path == INDEX) else {
        return vec![format!("{INDEX} is missing")];
    };
    let linked: Vec<String> = links(&index.text).map(|link| resolve(INDEX, link)).collect();
    let reachable = |path: &str| {
        linked.iter().any(|link| {
            link == path
                || path.strip_prefix(link.as_str()).is_some_and(|rest| rest.starts_with('/'))
        })
    };
    files
        .iter()
        .filter(|file| file.below(&["docs"]) && file.path != INDEX && !reachable(&file.path))
        .map(|file| format!("{}: not linked from {INDEX}", file.path))
        .collect()
}

/// Every link to a file of the repository leads somewhere.
pub(super) fn links_lead_somewhere(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".md")) {
        for link in links(&file.text) {
            let target = resolve(&file.path, link);
            let there = files.iter().any(|other| other.path == target || other.below(&[&target]));
            if !there {
                complaints.push(format!("{}: {link} leads nowhere", file.path));
            }
        }
    }
    complaints
}

/// The README shows the example as it is compiled and run.
pub(super) fn shown_example(files: &[File]) -> Vec<String> {
    const EXAMPLE: &str = "engine/examples/embed.rs";
    let find = |path: &str| files.iter().find(|file| file.path == path);
    let (Some(readme), Some(example)) = (find("README.md"), find(EXAMPLE)) else {
        return vec![format!("README.md and {EXAMPLE} are not both there")];
    };
    let block = format!("```rust\n{}```\n", example.text);
    if readme.text.contains(&block) {
        Vec::new()
    } else {
        vec![format!("README.md: does not show {EXAMPLE} as it is")]
    }
}

/// Lists the targets of Markdown links to files, without fragments.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("](").filter_map(|(at, mark)| {
        let target = text[at + mark.len()..].split([')', '#', ' ', '\n']).next()?;
        (!target.is_empty() && !target.contains("://") && !target.starts_with("mailto:"))
            .then_some(target)
    })
}

/// Returns a link's target from the root.
fn resolve(from: &str, link: &str) -> String {
    let joined = Path::new(from).parent().unwrap_or(Path::new("")).join(link);
    let mut path = PathBuf::new();
    for component in joined.components() {
        match component {
            Component::ParentDir => {
                path.pop();
            }
            Component::CurDir => {}
            Component::Normal(_) | Component::RootDir | Component::Prefix(_) => {
                path.push(component)
            }
        }
    }
    path.to_string_lossy().into_owned()
}

/// No file knows on which machine it was written: neither the folders given nor what lies in anybody's home.
pub(super) fn machine_paths(files: &[File], folders: &[String]) -> Vec<String> {
    // In two parts, or this file would name them.
    let homes = [concat!("/ho", "me/"), concat!("/Us", "ers/")];
    let mut complaints = Vec::new();
    for file in files {
        for (number, line) in file.text.lines().enumerate() {
            let folder = folders.iter().find(|folder| !following(line, folder).is_empty());
            let home =
                homes.into_iter().find(|home| following(line, home).into_iter().any(is_in_a_home));
            if let Some(found) = folder.map(String::as_str).or(home) {
                complaints.push(format!(
                    "{}:{}: names a folder of one machine in {found}",
                    file.path,
                    number + 1
                ));
            }
        }
    }
    complaints
}

/// Returns what follows the folder where a line names it, and not one of the same name below another.
fn following<'a>(line: &'a str, folder: &str) -> Vec<&'a str> {
    let named = line.match_indices(folder).filter(|(at, _)| {
        let before = line[..*at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "_-.~}>/".contains(c))
    });
    named.map(|(at, _)| &line[at + folder.len()..]).collect()
}

/// Says whether what follows is a path in somebody's home, and not in that of somebody made up.
fn is_in_a_home(rest: &str) -> bool {
    let path = rest.split(['"', '\'', '`', ' ', ')']).next().unwrap_or_default();
    path.split_once('/').is_some_and(|(name, below)| !below.is_empty() && !MADE_UP.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_that_nothing_links_to_is_found() {
        let docs = |index: &str| {
            [File::new(INDEX, index), File::new("docs/a.md", ""), File::new("docs/s/b.json", "")]
        };
        assert_eq!(indexed(&docs("[a](a.md)")).len(), 1);
        assert_eq!(indexed(&docs("[a](a.md), [s](s/)")).len(), 0);
        assert_eq!(indexed(&[]).len(), 1);
    }

    #[test]
    fn a_link_that_leads_nowhere_is_found() {
        let files = |link: &str| {
            [File::new("docs/a.md", &format!("[x]({link})")), File::new("README.md", "")]
        };
        assert_eq!(links_lead_somewhere(&files("b.md")).len(), 1);
        for good in ["../README.md#part", "https://example.org/b.md", "#part"] {
            assert_eq!(links_lead_somewhere(&files(good)).len(), 0, "{good}");
        }
    }

    #[test]
    fn an_example_that_differs_from_the_one_that_runs_is_found() {
        let files = |readme: &str| {
            [
                File::new("README.md", readme),
                File::new("engine/examples/embed.rs", "fn main() {}\n"),
            ]
        };
        assert_eq!(shown_example(&files("```rust\nfn main() {}\n```\n")), Vec::<String>::new());
        assert_eq!(shown_example(&files("```rust\nfn main() { }\n```\n")).len(), 1);
        assert_eq!(shown_example(&[]).len(), 1);
    }

    #[test]
    fn a_path_of_one_machine_is_found() {
        let line = |text: &str| {
            machine_paths(&[File::new("a", text)], &["/srv/checkouts/".to_owned()]).len()
        };
        assert_eq!(line("see /srv/checkouts/windlass"), 1);
        assert_eq!(line(concat!("cd /ho", "me/somebody/project")), 1);
        assert_eq!(line(concat!("cd /ho", "me/somebody")), 0);
        assert_eq!(line(concat!("cd /ho", "me/x/project")), 0);
        assert_eq!(line("chroot/srv/checkouts/x, $DIR/srv/checkouts-not"), 0);
    }
}
