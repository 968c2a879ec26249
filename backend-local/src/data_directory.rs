//! [`DataDirectory`]: the directory of a program that embeds the engine, with the local backends below it.
//!
//! It takes no lock: whoever opens it holds the host's (`windlass::api::lock::HostLock`).
//!
//! The command line keeps settings of its own beside this; it recognises such a directory by the socket that the program
//! serves in it, and leaves the rest alone.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::rand::{GetRandomFlags, getrandom};
use windlass_core::container_service::ContainerServiceError;
use windlass_core::id::NodeId;
use windlass_core::log_store::LogStoreError;
use windlass_core::vcs_worktree::VcsWorktreeError;

use crate::{
    FileLogs, GitOptions, GitWorktrees, LocalContainers, LocalOptions, OpenFiles, Provenance,
    ShimChoice,
};

/// What names this machine in the records.
const NODE_FILE: &str = "node";

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirectoryError {
    /// A file of it cannot be used.
    #[error("failed to use {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Executions cannot be kept in it.
    #[error("failed to open the executions")]
    Containers(#[from] ContainerServiceError),
    /// Logs cannot be kept in it.
    #[error("failed to open the logs")]
    Logs(#[from] LogStoreError),
    /// Worktrees cannot be kept in it.
    #[error("failed to open the worktrees")]
    Worktrees(#[from] VcsWorktreeError),
}

/// A data directory in use, by one host at a time.
#[derive(Debug)]
pub struct DataDirectory {
    /// Runs commands.
    pub containers: Arc<LocalContainers>,
    /// Reads what they wrote.
    pub logs: Arc<FileLogs>,
    /// Makes worktrees.
    pub worktrees: Arc<GitWorktrees>,
    /// This machine's name in the records, the same each time.
    pub node: NodeId,
    path: PathBuf,
}

impl DataDirectory {
    /// Opens the directory, made if it is not there, private to its user. `env` is the environment of git.
    ///
    /// # Errors
    ///
    /// See [`DataDirectoryError`]: something below it cannot be used.
    ///
    /// # Cancel safety
    ///
    /// May be dropped and called again.
    pub async fn open(
        path: impl Into<PathBuf>,
        shim: ShimChoice,
        env: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, DataDirectoryError> {
        let path = path.into();
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| DataDirectoryError::File { path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(at(&path))?;
        let node = node(&path).map_err(at(&path.join(NODE_FILE)))?;
        let runs_dir = path.join("runs");
        let logs = FileLogs::open(&runs_dir)?;
        let containers = LocalContainers::open(LocalOptions {
            runs_dir,
            shim,
            disk_floor_bytes: 1 << 30,
            orphan_grace: Duration::from_secs(5),
            provenance: Provenance::InPlace,
            // An embedding program's limit is its own business.
            open_files: OpenFiles::Keep,
        })?;
        let git = GitOptions::new(node.to_string(), path.join("worktrees"), env);
        let worktrees = GitWorktrees::open(git).await?;
        Ok(Self { containers, logs, worktrees, node, path })
    }

    /// Returns the directory, for a store to be opened in.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Reads this machine's name, and makes one the first time. The caller holds the lock.
fn node(directory: &Path) -> io::Result<NodeId> {
    let path = directory.join(NODE_FILE);
    match fs::read_to_string(&path) {
        Ok(text) => {
            text.trim().parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut random = [0; 16];
            getrandom(&mut random, GetRandomFlags::empty())?;
            let node = NodeId(uuid::Builder::from_random_bytes(random).into_uuid());
            let fresh = directory.join("node.new");
            let mut file = File::create(&fresh)?;
            writeln!(file, "{node}")?;
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
            File::open(directory)?.sync_all()?;
            Ok(node)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_is_the_same_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let made = node(dir.path()).unwrap();
        assert_eq!(node(dir.path()).unwrap(), made);
    }

    #[test]
    fn a_damaged_name_is_no_reason_for_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(NODE_FILE), "?").unwrap();
        assert_eq!(node(dir.path()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
