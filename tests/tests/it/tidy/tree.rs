//! The files of the repository, as text.

use std::fs;
use std::path::Path;

/// What is built, kept by version control or by an editor.
const SKIPPED: [&str; 3] = ["target", ".git", ".idea"];

/// One file.
#[derive(Clone, Debug)]
pub(super) struct File {
    /// From the root, with slashes.
    pub(super) path: String,
    pub(super) text: String,
}

impl File {
    pub(super) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    pub(super) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Returns the last part of the path.
    pub(super) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// Says whether the whole file is there for tests.
    pub(super) fn is_test(&self) -> bool {
        self.path.starts_with("tests/")
            || self.path.split('/').any(|part| part == "tests" || part == "tests.rs")
    }

    /// Says whether it lies in one of these folders.
    pub(super) fn below(&self, folders: &[&str]) -> bool {
        folders
            .iter()
            .any(|folder| self.path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')))
    }
}

/// Reads every text file below `root`, in order of their paths.
pub(super) fn read(root: &Path) -> Vec<File> {
    let mut files = Vec::new();
    collect(root, "", &mut files);
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn collect(dir: &Path, prefix: &str, files: &mut Vec<File>) {
    for entry in fs::read_dir(dir).expect("a directory of the repository") {
        let entry = entry.expect("an entry of the repository");
        let name = entry.file_name().into_string().expect("a name in UTF-8");
        if SKIPPED.contains(&name.as_str()) {
            continue;
        }
        let path = format!("{prefix}{name}");
        let kind = entry.file_type().expect("the type of an entry");
        if kind.is_dir() {
            collect(&entry.path(), &format!("{path}/"), files);
        } else if kind.is_file()
            && let Ok(text) = fs::read_to_string(entry.path())
        {
            files.push(File { path, text });
        }
    }
}
