//! Files that were handed to attempts: kept below one directory, and put into worktrees from there.
//!
//! ```text
//! ROOT/<attempt uuid>/<SHA-256 in hexadecimal>    its bytes, mode 0600
//! ROOT/<attempt uuid>/.new-<pid>-<number>         one that is being copied; of no use after a crash
//! WORKTREE/.windlass/attachments/.gitignore       `*`: git sees nothing of the folder
//! ```

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use rustix::fs::{CWD, Mode, OFlags, fsync, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use windlass_core::attachments::{Attachment, Attachments, AttachmentsError, FOLDER, Kept};
use windlass_core::error::BackendError;
use windlass_core::id::AttemptId;
use windlass_core::locator::{Locator, OsBytes};
use windlass_core::workspace::Worktree;

/// Says to git that nothing of the folder is anybody's work, this file included.
const IGNORE: (&str, &[u8]) = (".gitignore", b"*\n");

/// Owner only: what is handed over may be private.
const OWN_FILE: Mode = Mode::from_raw_mode(0o600);

/// Keeps attachments below a directory.
#[derive(Clone)]
pub struct FileAttachments {
    root: Arc<Path>,
    next: Arc<AtomicU64>,
}

impl fmt::Debug for FileAttachments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileAttachments").field("root", &self.root).finish_non_exhaustive()
    }
}

impl FileAttachments {
    /// Keeps them below `root`, which is made when it is needed and belongs to one data directory alone.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into().into(), next: Arc::default() }
    }

    fn dir(&self, attempt: AttemptId) -> PathBuf {
        self.root.join(attempt.0.to_string())
    }

    fn keep_now(
        &self,
        attempt: AttemptId,
        file: &Locator,
        limit_bytes: u64,
    ) -> Result<Kept, AttachmentsError> {
        let source = open_source(file)?;
        let dir = self.dir(attempt);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(failed("keep"))?;
        let at = open_dir(CWD, dir.as_os_str()).map_err(|error| failed("keep")(error.into()))?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let new = format!(".new-{}-{number}", std::process::id());
        let kept = copy(source, file, &at, &new, limit_bytes).and_then(|kept| {
            let moved = renameat(&at, &new, &at, &kept.sha256).and_then(|()| fsync(&at));
            // The directory that it is in may be new as well.
            let above =
                moved.map_err(io::Error::from).and_then(|()| File::open(&*self.root)?.sync_all());
            above.map(|()| kept).map_err(failed("keep"))
        });
        if kept.is_err() {
            // What cannot be removed is of no use and in nobody's way.
            let _left = unlinkat(&at, &new, rustix::fs::AtFlags::empty());
        }
        kept
    }

    fn place_now(
        &self,
        attempt: AttemptId,
        worktree: &Path,
        attachments: &[Attachment],
    ) -> Result<(), AttachmentsError> {
        let mut folder = open_dir(CWD, worktree.as_os_str()).map_err(in_the_way(worktree))?;
        let mut path = worktree.to_owned();
        for part in FOLDER.split('/') {
            path.push(part);
            match mkdirat(&folder, part, Mode::from_raw_mode(0o777)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(failed("place")(error.into())),
            }
            folder = open_dir(&folder, OsStr::new(part)).map_err(in_the_way(&path))?;
        }
        let (ignore, text) = IGNORE;
        fill(&folder, ignore, |mut file| file.write_all(text)).map_err(failed("place"))?;
        let kept = self.dir(attempt);
        for attachment in attachments {
            let from = kept.join(&attachment.sha256);
            let done = fill(&folder, &attachment.name, |mut to| {
                let mut from = File::open(&from)?;
                io::copy(&mut from, &mut to).map(drop)
            });
            done.map_err(failed("place"))?;
        }
        Ok(())
    }
}

/// Makes a file in a directory unless something of that name is there; a half-written one never has the name.
fn fill(dir: &OwnedFd, name: &str, write: impl FnOnce(File) -> io::Result<()>) -> io::Result<()> {
    let there = rustix::fs::statat(dir, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
    match there {
        Ok(_) => return Ok(()),
        Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    // Hidden, and behind the file that hides it wherever it matters.
    let half = format!(".{}.part", uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, name.as_bytes()));
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    write(openat(dir, &half, flags, OWN_FILE)?.into())?;
    renameat(dir, &half, dir, name)?;
    Ok(())
}

/// Opens a file that is to be kept: a plain one, of which no link is the last part.
fn open_source(file: &Locator) -> Result<File, AttachmentsError> {
    let unfit = |why: String| AttachmentsError::Unfit { file: file.clone(), why };
    let path = Path::new(OsStr::from_bytes(file.as_bytes()));
    if !path.is_absolute() {
        return Err(unfit("its path is not absolute".to_owned()));
    }
    // A pipe without a writer would never be opened.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat(CWD, path, flags, Mode::empty()).map_err(|error| match error {
        Errno::LOOP => unfit("it is a link".to_owned()),
        Errno::NXIO => unfit("it is no plain file".to_owned()),
        error => unfit(io::Error::from(error).to_string()),
    })?;
    let opened = File::from(opened);
    match opened.metadata() {
        Ok(found) if found.is_file() => Ok(opened),
        Ok(found) if found.is_dir() => Err(unfit("it is a directory".to_owned())),
        Ok(_) => Err(unfit("it is no plain file".to_owned())),
        Err(error) => Err(unfit(error.to_string())),
    }
}

/// Copies a file under a passing name, to the disk; no more of it than may be.
fn copy(
    mut source: File,
    file: &Locator,
    at: &OwnedFd,
    new: &str,
    limit_bytes: u64,
) -> Result<Kept, AttachmentsError> {
    let too_large = || AttachmentsError::TooLarge { file: file.clone(), limit_bytes };
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let opened = openat(at, new, flags, OWN_FILE);
    let mut target = File::from(opened.map_err(|error| failed("keep")(error.into()))?);
    let (mut hash, mut bytes) = (Sha256::new(), 0_u64);
    let mut chunk = vec![0; 256 << 10];
    loop {
        let read = source.read(&mut chunk).map_err(failed("keep"))?;
        let Some(part) = chunk.get(..read).filter(|part| !part.is_empty()) else { break };
        bytes += part.len() as u64;
        // It may grow while it is read.
        if bytes > limit_bytes {
            return Err(too_large());
        }
        hash.update(part);
        target.write_all(part).map_err(failed("keep"))?;
    }
    target.sync_all().map_err(failed("keep"))?;
    let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Kept { sha256, bytes })
}

fn open_dir(at: impl AsFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

fn failed(op: &'static str) -> impl Fn(io::Error) -> AttachmentsError {
    move |error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => AttachmentsError::Full,
        _ => BackendError::permanent("local", op, error).into(),
    }
}

fn in_the_way(path: &Path) -> impl Fn(Errno) -> AttachmentsError {
    let path = path.display().to_string();
    move |error| match error {
        Errno::LOOP | Errno::NOTDIR => {
            AttachmentsError::InTheWay { why: format!("{path} is no directory") }
        }
        error => failed("place")(error.into()),
    }
}

/// Does something that blocks on a thread of its own.
async fn blocking<T: Send + 'static>(
    op: &'static str,
    work: impl FnOnce() -> Result<T, AttachmentsError> + Send + 'static,
) -> Result<T, AttachmentsError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| BackendError::permanent("local", op, error))?
}

#[async_trait]
impl Attachments for FileAttachments {
    async fn keep(
        &self,
        attempt: AttemptId,
        file: &Locator,
        limit_bytes: u64,
    ) -> Result<Kept, AttachmentsError> {
        let (this, file) = (self.clone(), file.clone());
        blocking("keep", move || this.keep_now(attempt, &file, limit_bytes)).await
    }

    async fn place(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        attachments: &[Attachment],
    ) -> Result<(), AttachmentsError> {
        let (this, attachments) = (self.clone(), attachments.to_vec());
        let path = PathBuf::from(OsStr::from_bytes(worktree.path.as_bytes()));
        blocking("place", move || this.place_now(attempt, &path, &attachments)).await
    }

    fn path(&self, worktree: &Worktree, name: &str) -> OsBytes {
        let path = Path::new(OsStr::from_bytes(worktree.path.as_bytes()));
        OsBytes(OsString::from(path.join(FOLDER).join(name)).into_vec())
    }

    async fn attempts(&self) -> Result<Vec<AttemptId>, AttachmentsError> {
        let root = Arc::clone(&self.root);
        blocking("list", move || {
            let entries = match fs::read_dir(&*root) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(error) => return Err(failed("list")(error)),
            };
            let id =
                |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
            Ok(entries.filter_map(id).map(AttemptId).collect())
        })
        .await
    }

    async fn forget(&self, attempt: AttemptId) -> Result<(), AttachmentsError> {
        let dir = self.dir(attempt);
        blocking("forget", move || match fs::remove_dir_all(&dir) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed("forget")(error)),
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use uuid::Uuid;
    use windlass_core::workspace::Oid;

    use super::*;

    const A: AttemptId = AttemptId(Uuid::from_u128(0xa));

    struct Ground {
        dir: tempfile::TempDir,
        kept: FileAttachments,
        worktree: Worktree,
    }

    impl Ground {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("w");
            fs::create_dir(&path).unwrap();
            let worktree = Worktree {
                repo: locator(dir.path()),
                path: locator(&path),
                branch: "b".into(),
                base: "main".into(),
                base_oid: Oid("0".into()),
                target: None,
                copy: None,
            };
            let kept = FileAttachments::new(dir.path().join("attachments"));
            Self { dir, kept, worktree }
        }

        /// Keeps a file of these bytes.
        async fn keep(&self, name: &str, bytes: &[u8]) -> Attachment {
            let file = self.dir.path().join(name);
            fs::write(&file, bytes).unwrap();
            let kept = self.kept.keep(A, &locator(&file), 100).await.unwrap();
            let (name, called) = (name.to_owned(), name.to_owned());
            Attachment { name, called, sha256: kept.sha256, bytes: kept.bytes }
        }

        async fn place(&self, attachments: &[Attachment]) -> Result<(), AttachmentsError> {
            self.kept.place(A, &self.worktree, attachments).await
        }

        fn folder(&self) -> PathBuf {
            self.dir.path().join("w").join(FOLDER)
        }

        fn names(&self) -> Vec<OsString> {
            let entries = fs::read_dir(self.folder()).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        }
    }

    fn locator(path: &Path) -> Locator {
        Locator::new(path.as_os_str().as_bytes())
    }

    #[tokio::test]
    async fn what_is_there_stays_and_what_is_missing_comes_again() {
        let ground = Ground::new();
        let both = [ground.keep("a", b"1").await, ground.keep("b", b"2").await];
        ground.place(&both).await.unwrap();
        assert_eq!(ground.names(), [".gitignore", "a", "b"]);
        fs::write(ground.folder().join("a"), "changed").unwrap();
        fs::remove_file(ground.folder().join("b")).unwrap();
        // A host was killed in the middle.
        fs::write(ground.folder().join(".gitignore"), "*\n").unwrap();
        ground.place(&both).await.unwrap();
        assert_eq!(fs::read(ground.folder().join("a")).unwrap(), b"changed");
        assert_eq!(fs::read(ground.folder().join("b")).unwrap(), b"2");
        assert_eq!(
            ground.kept.path(&ground.worktree, "a").0,
            ground.folder().join("a").as_os_str().as_bytes()
        );
    }

    #[tokio::test]
    async fn the_same_bytes_are_kept_once_and_go_with_their_attempt() {
        let ground = Ground::new();
        let (one, other) = (ground.keep("a", b"same").await, ground.keep("b", b"same").await);
        assert_eq!((&one.sha256, one.bytes), (&other.sha256, 4));
        assert_eq!(
            fs::read_dir(ground.dir.path().join("attachments").join(A.0.to_string()))
                .unwrap()
                .count(),
            1
        );
        assert_eq!(ground.kept.attempts().await.unwrap(), [A]);
        ground.kept.forget(A).await.unwrap();
        ground.kept.forget(A).await.unwrap();
        assert!(ground.kept.attempts().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_is_no_plain_file_is_refused_and_nothing_is_kept_of_what_is_too_large() {
        let ground = Ground::new();
        let at = |name: &str| ground.dir.path().join(name);
        fs::write(at("large"), [0; 101]).unwrap();
        symlink(at("large"), at("link")).unwrap();
        let keep = async |path: &Path| ground.kept.keep(A, &locator(path), 100).await.unwrap_err();
        assert!(matches!(
            keep(&at("large")).await,
            AttachmentsError::TooLarge { limit_bytes: 100, .. }
        ));
        for unfit in
            [at("link"), at("w"), at("missing"), PathBuf::from("relative"), "/dev/null".into()]
        {
            let error = keep(&unfit).await;
            assert!(matches!(error, AttachmentsError::Unfit { .. }), "{unfit:?}: {error:?}");
        }
        let dir = at("attachments").join(A.0.to_string());
        assert_eq!(fs::read_dir(dir).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn no_link_is_followed_on_the_way_into_the_folder() {
        let ground = Ground::new();
        let one = [ground.keep("a", b"1").await];
        let outside = ground.dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let top = ground.dir.path().join("w/.windlass");
        symlink(&outside, &top).unwrap();
        assert!(matches!(ground.place(&one).await, Err(AttachmentsError::InTheWay { .. })));
        fs::remove_file(&top).unwrap();
        fs::create_dir(&top).unwrap();
        symlink(&outside, ground.folder()).unwrap();
        assert!(matches!(ground.place(&one).await, Err(AttachmentsError::InTheWay { .. })));
        fs::remove_file(ground.folder()).unwrap();
        fs::create_dir(ground.folder()).unwrap();
        // A name that leads elsewhere is somebody's, and stays.
        symlink(outside.join("target"), ground.folder().join("a")).unwrap();
        ground.place(&one).await.unwrap();
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }
}
