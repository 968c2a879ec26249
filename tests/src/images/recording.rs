//! [`Recording`]: what happened to the files below a directory, in the order in which it happened.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Names one file for the time of a recording, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileId(pub u32);

/// One thing that happened. Paths are relative to the recorded directory; the directory itself is the empty path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// Bytes were written into a file.
    Written {
        /// Which.
        file: FileId,
        /// Where.
        offset: u64,
        /// What.
        bytes: Vec<u8>,
    },
    /// A file got another length.
    Resized {
        /// Which.
        file: FileId,
        /// Its length, in bytes.
        len: u64,
    },
    /// What had happened to a file's content is durable.
    Synced {
        /// Which.
        file: FileId,
        /// Events before this one count.
        before: usize,
    },
    /// A file got a name, its first or another one.
    Named {
        /// The name.
        path: String,
        /// Which.
        file: FileId,
    },
    /// A name went.
    Unnamed {
        /// The name.
        path: String,
    },
    /// A file changed its name; what had the new one lost it.
    Renamed {
        /// The old name.
        from: String,
        /// The new one.
        to: String,
    },
    /// A directory was made.
    Made {
        /// Its name.
        path: String,
    },
    /// What had happened to the names in a directory is durable.
    DirectorySynced {
        /// Which.
        path: String,
        /// Events before this one count.
        before: usize,
    },
    /// Somebody outside was told something.
    Said(Vec<u8>),
}

/// The files below a directory: their names, and their contents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// The directories in it.
    pub directories: Vec<String>,
    /// Which file has which name.
    pub names: BTreeMap<String, FileId>,
    /// What is in them.
    pub contents: BTreeMap<FileId, Vec<u8>>,
}

impl Files {
    /// Reads what is below a directory, but for names that end with one of `ignored`, and but for what is no regular file.
    ///
    /// # Errors
    ///
    /// Those of the file system; a name that is not UTF-8.
    pub fn read(root: &Path, ignored: &[String]) -> io::Result<Self> {
        let mut files = Self::default();
        files.read_directory(root, "", ignored)?;
        Ok(files)
    }

    fn read_directory(&mut self, dir: &Path, prefix: &str, ignored: &[String]) -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name().into_string();
            let name = name.map_err(|_| io::Error::from(io::ErrorKind::InvalidFilename))?;
            let path = format!("{prefix}{name}");
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.directories.push(path.clone());
                self.read_directory(&entry.path(), &format!("{path}/"), ignored)?;
            } else if kind.is_file() && !is_ignored(&path, ignored) {
                let file = FileId(u32::try_from(self.contents.len()).unwrap_or(u32::MAX));
                self.contents.insert(file, fs::read(entry.path())?);
                self.names.insert(path, file);
            }
        }
        Ok(())
    }
}

/// Says whether a file is left out of a recording.
pub(super) fn is_ignored(path: &str, ignored: &[String]) -> bool {
    ignored.iter().any(|suffix| path.ends_with(suffix.as_str()))
}

/// What happened to the files below a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    /// What was there before, all of it durable.
    pub before: Files,
    /// What happened.
    pub events: Vec<Event>,
}
