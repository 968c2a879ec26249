//! The checkout that runs the user's code: the step that git performs as an execution, and what is made of it afterwards.
//!
//! Between the two calls of a creation everything stands in files, so that any host can go on:
//!
//! ```text
//! .NAME.creating              beside the worktree: it is half made
//! windlass-checkout           in its private git directory: the step is asked for
//! windlass-checkout.begun     it has begun, and is never to begin again
//! windlass-checkout.done      it has come to its end, and all of it is on the disk
//! windlass.lock               its lock, held by everything of the step
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::rand::{GetRandomFlags, getrandom};
use windlass_core::id::AttemptId;
use windlass_core::locator::OsBytes;
use windlass_core::vcs_worktree::{GitStep, VcsWorktreeError};
use windlass_core::workspace::Worktree;

use super::undo::Lock;
use super::{Fill, Making, remove_note};
use crate::group::Cancel;
use crate::repository_lock::{self, LOCK_FILE};
use crate::vcs_worktree::checkout::Site;
use crate::vcs_worktree::copy::COPYING;
use crate::vcs_worktree::git::{Git, without_newline};
use crate::vcs_worktree::marker::{Intent, Marker, Read, write_durably};
use crate::vcs_worktree::repository::Config;
use crate::vcs_worktree::underway::{self, note_of};
use crate::vcs_worktree::verify::{Found, read_link};
use crate::vcs_worktree::{Inner, failed, locator, path_of, settle};

/// Says in the private git directory how far the step is.
const FILE: &str = "windlass-checkout";
const FIRST_LINE: &str = "windlass-checkout 1";
/// What its name ends with once the step has begun, and once it is done.
const BEGUN: &str = ".begun";
const DONE: &str = ".done";

/// What the step runs. Nothing is put into the text: git, the private git directory, the worktree, the ticket, the commit
/// and the hook, if there is one, are its arguments.
///
/// It does what `git worktree add` does: git resets the worktree to its commit, with the variables that it sets for that;
/// the hook runs without them, in the worktree, with git's own programs in its path, and its output goes to standard error.
/// The index is copied before the hook may change it. The ticket is taken by renaming it, so that whoever runs the step
/// twice does it once; that it is done is said when all of it is on the disk.
const SCRIPT: &str = r#"git=$1 admin=$2 path=$3 ticket=$4 oid=$5 hook=$6
state=$admin/windlass-checkout
if [ "$(cat "$state.done" 2>/dev/null)" = "$ticket" ]; then
    exit 0
fi
if [ "$(cat "$state" 2>/dev/null)" != "$ticket" ] || ! mv -f "$state" "$state.begun"; then
    echo "this checkout has begun before, or nobody waits for it any more" >&2
    exit 1
fi
unset $("$git" rev-parse --local-env-vars)
flush() {
    sync -f "$admin" "$path" 2>/dev/null || sync
}
GIT_DIR=$path/.git GIT_WORK_TREE=$path "$git" -c checkout.workers=0 -c core.fsmonitor=false -c gc.auto=0 \
    -c maintenance.auto=false reset --hard --no-recurse-submodules --quiet || exit
cp -p "$admin/index" "$admin/windlass-index" || exit
if [ -n "$hook" ]; then
    own=$("$git" --exec-path) || exit
    PATH=$own${PATH:+:$PATH}
    export PATH
    "$hook" "$(printf %s "$oid" | tr 0-9a-f 0)" "$oid" 1 >&2 || exit
fi
flush
mv -f "$state.begun" "$state.done" || exit
flush
"#;

impl Inner {
    /// Finds the hook that git would run after the checkout of a new worktree.
    pub(super) fn hook(
        &self,
        cancel: &Cancel,
        config: &Config,
        site: Site<'_>,
    ) -> Result<Option<PathBuf>, VcsWorktreeError> {
        let hook = match config.value("core.hookspath") {
            None => site.common.join("hooks/post-checkout"),
            // Git's way to read it is git's own.
            Some(_) => {
                let asked = self.git.on_worktree(site.admin, site.path, "rev-parse");
                let asked = asked.args(["--path-format=absolute", "--git-path"]);
                let named = asked.arg("hooks/post-checkout").output(cancel)?;
                path_of(&windlass_core::locator::Locator::new(without_newline(&named)))
            }
        };
        let runs = rustix::fs::access(&hook, rustix::fs::Access::EXEC_OK).is_ok();
        Ok((runs && hook.is_file()).then_some(hook))
    }

    /// Says whether the checkout of a commit runs a filter.
    pub(in crate::vcs_worktree) fn filters(
        &self,
        cancel: &Cancel,
        config: &Config,
        site: Site<'_>,
    ) -> Result<bool, VcsWorktreeError> {
        let drivers: BTreeSet<Vec<u8>> = config.drivers().collect();
        if drivers.is_empty() {
            return Ok(false);
        }
        let at = |error| failed("create", site.path, error);
        let scratch = self.scratch.dir().map_err(at)?;
        // Attributes are read from an index: the files are not there yet.
        let index = scratch.path().join("index");
        let on_index =
            |name| self.git.on_worktree(site.admin, site.path, name).env("GIT_INDEX_FILE", &index);
        on_index("read-tree").arg(&site.oid.0).output(cancel)?;
        let paths = on_index("ls-files").arg("-z").output(cancel)?;
        let paths = scratch.input("paths", &paths).map_err(at)?;
        let asked = on_index("check-attr").args(["--cached", "-z", "--stdin", "filter"]);
        let told = asked.stdin(paths).output(cancel)?;
        // Path, attribute and value, in turn.
        let mut values = told.split(|byte| *byte == 0).skip(2).step_by(3);
        Ok(values.any(|value| drivers.contains(value)))
    }

    /// Asks for the step.
    pub(super) fn ask_for_step(
        &self,
        site: Site<'_>,
        hook: Option<&Path>,
    ) -> Result<GitStep, VcsWorktreeError> {
        let ask = || -> io::Result<String> {
            let mut random = [0; 16];
            getrandom(&mut random, GetRandomFlags::empty())?;
            let step = uuid::Builder::from_random_bytes(random).into_uuid();
            let ticket = format!("{FIRST_LINE}\nstep={step}");
            write_durably(&site.admin.join(FILE), format!("{ticket}\n").as_bytes())?;
            Ok(ticket)
        };
        let ticket = ask().map_err(|error| failed("create", site.admin, error))?;
        let bytes = |path: &Path| OsBytes(path.as_os_str().as_bytes().to_vec());
        let mut argv: Vec<OsBytes> =
            vec!["/bin/sh".into(), "-c".into(), SCRIPT.into(), "windlass-checkout".into()];
        argv.extend([bytes(self.git.program()), bytes(site.admin), bytes(site.path)]);
        argv.extend([ticket.into(), site.oid.0.as_str().into()]);
        argv.push(hook.map_or_else(|| "".into(), bytes));
        Ok(GitStep {
            argv,
            env: Git::step_env(),
            base_env: self.git.base_env(),
            cwd: locator(site.path),
            // Its own: a hook may take its time, and others are made meanwhile.
            repository_lock: locator(site.admin),
        })
    }

    /// Finds a half-made worktree whose step has proven to be complete.
    pub(in crate::vcs_worktree) fn completed(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
    ) -> Result<Option<(Intent, PathBuf)>, VcsWorktreeError> {
        let path = self.inside(worktree)?;
        let Some(intent) = self.half_made(attempt, worktree, &path, &note_of(&path))? else {
            return Ok(None);
        };
        let at = |error| failed("create", &path, error);
        let Some(admin) = private_directory(&path, worktree).map_err(at)? else { return Ok(None) };
        let done = admin.join(format!("{FILE}{DONE}")).is_file();
        // With its marker it is whole, and only its note is left over.
        let unmarked = matches!(Marker::read(&admin).map_err(at)?, Read::Missing);
        Ok((done && unmarked).then_some((intent, admin)))
    }

    /// Ends a creation whose step has proven to be complete.
    ///
    /// The caller holds the repository's lock through `cancel`; it is let go before the rest is filled in. What fails is
    /// undone; what a crash leaves is done again.
    pub(in crate::vcs_worktree) fn conclude(
        &self,
        cancel: &Cancel,
        attempt: AttemptId,
        worktree: &Worktree,
        (intent, admin): (Intent, PathBuf),
        fill: Fill<'_>,
    ) -> Result<Found, VcsWorktreeError> {
        let (path, common) = (self.inside(worktree)?, path_of(&worktree.repo));
        let note = note_of(&path);
        let held =
            underway::begin(&note, &intent).map_err(|error| failed("create", &note, error))?;
        cancel.change_lock(held);
        let making = Making { common: &common, path: &path, intent: &intent, worktree };
        match self.complete(cancel, &making, &admin, fill) {
            Ok(()) => {
                forget(&admin);
                remove_note(&note)?;
                self.verify(cancel, attempt, worktree)
            }
            Err(error) => {
                self.take_back(cancel, &making, Lock::Maybe);
                Err(error)
            }
        }
    }

    fn complete(
        &self,
        cancel: &Cancel,
        making: &Making<'_>,
        admin: &Path,
        fill: Fill<'_>,
    ) -> Result<(), VcsWorktreeError> {
        let Making { common, path, intent, worktree } = *making;
        let at = |error| failed("create", path, error);
        let verified = self.head(cancel, admin, common, path)?;
        let (path, common) = (path.to_owned(), common.to_owned());
        let found = Found { path, admin: admin.to_owned(), common, verified };
        fill(&found)?;
        // What the step made is on the disk already, and what follows it is little.
        settle::settle_now(admin, &found.path).map_err(at)?;
        self.seal(&found, &intent.marker, worktree).map_err(at)
    }

    /// Undoes what a step did not bring to its end, and says so; answers a worktree that is whole all the same.
    pub(in crate::vcs_worktree) fn refuse_incomplete(
        &self,
        cancel: &Cancel,
        attempt: AttemptId,
        worktree: &Worktree,
    ) -> Result<Found, VcsWorktreeError> {
        self.abandon(cancel, attempt, worktree)?;
        match self.verify(cancel, attempt, worktree) {
            Err(VcsWorktreeError::Gone { path }) => Err(VcsWorktreeError::Incomplete { path }),
            other => other,
        }
    }
}

/// Says whether the files of a half-made worktree are, or were to be, made by a step.
pub(super) fn was_asked(admin: &Path) -> bool {
    ["", BEGUN, DONE].iter().any(|end| admin.join(format!("{FILE}{end}")).exists())
}

/// Takes away what the step left in the private git directory of a worktree that is whole.
pub(super) fn forget(admin: &Path) {
    let states = ["", BEGUN, DONE].map(|end| format!("{FILE}{end}"));
    for name in states.iter().map(String::as_str).chain([COPYING, LOCK_FILE]) {
        // With the marker it says nothing any more: that it stays harms nobody.
        drop(fs::remove_file(admin.join(name)));
    }
}

/// Says whether nothing of a step works in a half-made worktree.
pub(super) fn is_free(path: &Path, worktree: &Worktree) -> io::Result<bool> {
    match lock_of(path, worktree)? {
        Some(admin) => repository_lock::is_free(&admin),
        None => Ok(true),
    }
}

/// The private git directory of a half-made worktree whose step has, or had, the lock.
pub(in crate::vcs_worktree) fn lock_of(
    path: &Path,
    worktree: &Worktree,
) -> io::Result<Option<PathBuf>> {
    let admin = private_directory(path, worktree)?;
    Ok(admin.filter(|admin| admin.join(LOCK_FILE).is_file()))
}

/// The private git directory that a worktree names, if it is one of its repository.
fn private_directory(path: &Path, worktree: &Worktree) -> io::Result<Option<PathBuf>> {
    let admin = match read_link(&path.join(".git"), "gitdir: ", path) {
        Ok(admin) => admin,
        // Something else is in the way of it.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory
            ) =>
        {
            None
        }
        Err(error) => return Err(error),
    };
    let folder = path_of(&worktree.repo).join("worktrees");
    Ok(admin.filter(|admin| admin.parent() == Some(&folder)))
}
