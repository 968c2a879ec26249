//! Fills a new worktree with the files of a commit, and its index, as git would.
//!
//! Where nothing speaks against it the files are written by several threads of this process. Whatever only git does as git
//! does (sparse checkouts, submodules, filters, formats that are new to us), and whatever goes wrong here, is left to git:
//! its result, or its message, is the one that counts.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use gix::index::entry::Mode;
use gix::progress::Discard;
use gix::worktree::stack::state::attributes::Source;
use gix::worktree::state::checkout;
use windlass_core::vcs_worktree::VcsWorktreeError;
use windlass_core::workspace::Oid;

use super::cache_tree;
use super::git::{failure, helper_failed};
use super::repository::{Config, OnlyGit, odd_attributes};
use super::{Inner, failed};
use crate::group::Cancel;

/// A copy of the index as it was right after the checkout: what it says of a file's stat is of a checkout's bytes.
pub(super) const CHECKED_OUT_INDEX: &str = "windlass-index";
/// More threads than this gain nothing.
const MAX_THREADS: usize = 8;
const OP: &str = "check out";

/// A registered worktree without files.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site<'a> {
    /// Its directory.
    pub(super) path: &'a Path,
    /// Its private git directory.
    pub(super) admin: &'a Path,
    /// The common git directory.
    pub(super) common: &'a Path,
    /// The commit that its HEAD names.
    pub(super) oid: &'a Oid,
}

/// Copies an index with its time: an entry that is as young as its index proves nothing.
fn copy_index(index: &Path, copy: &Path) -> io::Result<()> {
    let written = fs::metadata(index)?.modified()?;
    fs::copy(index, copy)?;
    File::options().write(true).open(copy)?.set_modified(written)
}

/// How a checkout ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckedOut {
    /// Files and index are there.
    Done,
    /// Nothing was done: filters are the user's code.
    Filtered,
}

/// How a checkout in this process ended.
enum Tried {
    Done,
    OnlyGit(OnlyGit),
    Full,
}

impl Inner {
    /// Writes files and index, and keeps a copy of the index; leaves both where a filter has to run.
    pub(super) fn check_out(
        &self,
        cancel: &Cancel,
        config: &Config,
        site: Site<'_>,
    ) -> Result<CheckedOut, VcsWorktreeError> {
        let tried = cancel
            .interruptible(self.git.deadline(), |stop| self.try_here(config, site, stop))
            .map_err(|error| helper_failed(OP, error))?;
        match tried {
            Tried::Done => {}
            Tried::OnlyGit(_why) => {
                if self.filters(cancel, config, site)? {
                    return Ok(CheckedOut::Filtered);
                }
                self.check_out_by_git(cancel, site)?;
            }
            Tried::Full => return Err(VcsWorktreeError::Full),
        }
        let copy = site.admin.join(CHECKED_OUT_INDEX);
        copy_index(&site.admin.join("index"), &copy)
            .map_err(|error| failed("create", &copy, error))?;
        Ok(CheckedOut::Done)
    }

    fn try_here(&self, config: &Config, site: Site<'_>, stop: &AtomicBool) -> Tried {
        match self.check_out_here(config, site, stop) {
            Ok(None) => Tried::Done,
            Ok(Some(why)) => Tried::OnlyGit(why),
            Err(error) if is_full(&error) => Tried::Full,
            Err(error) => Tried::OnlyGit(error.to_string()),
        }
    }

    /// Answers why only git can do it, or nothing if it is done.
    fn check_out_here(
        &self,
        config: &Config,
        site: Site<'_>,
        stop: &AtomicBool,
    ) -> gix::Result<Option<OnlyGit>> {
        let repository = match self.open_repository(site.admin, config) {
            Ok(repository) => repository,
            Err(why) => return Ok(Some(why)),
        };
        let commit: gix::ObjectId = match site.oid.0.parse() {
            Ok(commit) => commit,
            Err(_) => return Ok(Some("its name is of another kind".to_owned())),
        };
        let tree = repository.find_commit(commit)?.tree_id()?.detach();
        let mut index = repository.index_from_tree(&tree)?;
        let mut attributes = Vec::new();
        for entry in index.entries() {
            let path = entry.path(&index);
            let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            let plain = matches!(entry.mode, Mode::FILE | Mode::FILE_EXECUTABLE | Mode::SYMLINK);
            if !plain {
                return Ok(Some("there are submodules".to_owned()));
            }
            if name == b".gitattributes" {
                if entry.mode == Mode::SYMLINK {
                    return Ok(Some("its attributes are a link".to_owned()));
                }
                attributes.push(repository.find_blob(entry.id)?.take_data());
            }
        }
        if let Some(why) = odd_attributes(&self.git, config, site.common, &attributes) {
            return Ok(Some(why));
        }
        let extension = cache_tree::extension(&repository.objects, &tree)?;
        let mut options = repository.checkout_options(Source::IdMapping)?;
        options.destination_is_initially_empty = true;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        options.thread_limit = Some(threads.min(MAX_THREADS));
        let objects = repository.objects.clone().into_arc().map_err(gix::Error::from_error)?;
        let outcome = checkout(&mut index, site.path, objects, &Discard, &Discard, stop, options)?;
        if !outcome.collisions.is_empty() || !outcome.errors.is_empty() {
            return Ok(Some("names collide".to_owned()));
        }
        if !stop.load(std::sync::atomic::Ordering::Relaxed) {
            write_index(&index, &extension, &site.admin.join("index"))?;
        }
        Ok(None)
    }

    fn check_out_by_git(&self, cancel: &Cancel, site: Site<'_>) -> Result<(), VcsWorktreeError> {
        // What `git worktree add` itself does.
        let reset = self.git.on_worktree(site.admin, site.path, "reset");
        let reset = reset
            .set("core.fsync=all")
            .set("core.fsyncMethod=fsync")
            // One worker for each processor; git itself uses one unless told.
            .set("checkout.workers=0")
            .args(["--hard", "--no-recurse-submodules", "--quiet"]);
        let ended = reset.run(cancel)?;
        if ended.status.success() {
            return Ok(());
        }
        let error = failure("worktree add", &ended);
        match &error {
            VcsWorktreeError::Git { stderr, .. } if stderr.contains("unable to write") => {
                let full = self.lacks_room(cancel, site)?;
                Err(if full { VcsWorktreeError::Full } else { error })
            }
            _ => Err(error),
        }
    }

    /// Says whether the files of a commit do not fit. Git says that it could not write one, but not why.
    fn lacks_room(&self, cancel: &Cancel, site: Site<'_>) -> Result<bool, VcsWorktreeError> {
        let room = rustix::fs::statvfs(site.path)
            .map_err(|error| failed("create", site.path, error.into()))?;
        let listed = self.git.on_repository(site.common, "ls-tree");
        let listed =
            listed.args(["-r", "-z", "--format=%(objectsize)", &site.oid.0]).output(cancel)?;
        let mut blocks = 0;
        let mut files = 0;
        for size in listed.split(|byte| *byte == 0) {
            let size = std::str::from_utf8(size).ok().and_then(|size| size.trim().parse().ok());
            blocks += size.unwrap_or(0_u64).div_ceil(room.f_frsize.max(1));
            files += 1;
        }
        Ok(room.f_bavail < blocks || (room.f_files > 0 && room.f_favail < files))
    }
}

/// Writes an index with the extension, as git would: a lock file that is renamed.
fn write_index(index: &gix::index::State, extension: &[u8], path: &Path) -> gix::Result<()> {
    let options = gix::index::write::Options {
        extensions: gix::index::write::Extensions::None,
        skip_hash: false,
    };
    let mut bytes = Vec::new();
    index.write_to(&mut bytes, options)?;
    bytes.extend_from_slice(extension);
    let mut hasher = gix::hash::hasher(gix::hash::Kind::Sha1);
    hasher.update(&bytes);
    bytes.extend_from_slice(hasher.try_finalize()?.as_slice());
    let lock = path.with_extension("lock");
    let written = || -> io::Result<()> {
        let mut file: File = OpenOptions::new().write(true).create_new(true).open(&lock)?;
        file.write_all(&bytes)?;
        // Git refuses to look after a repository of which one worktree has half an index, as a power cut would leave it.
        file.sync_data()?;
        fs::rename(&lock, path)
    };
    written().map_err(gix::Error::from_error)
}

/// Says whether there was no room.
fn is_full(error: &gix::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>()
            && matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        {
            return true;
        }
        cause = error.source();
    }
    false
}
