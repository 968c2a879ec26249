//! Place directories: how they are made, opened, listed and removed.
//!
//! `RUNS/<execution>.<nonce>/` holds the journal, the lock, the socket, what the shim says, and the log segments. A
//! place is found by its name beneath the runs directory of this service, whatever path was recorded: of a copied data
//! directory nothing but the copy is opened, and that is recognised as one.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use uuid::Uuid;
use windlass_core::container_service::Place;
use windlass_core::id::{ExecutionId, Nonce};
use windlass_core::locator::Locator;
use windlass_core::shim::adoption::Match;
use windlass_core::shim::journal::{self, Header, JOURNAL_BYTES};

use crate::identity::{Here, compare};

/// The journal of a place.
pub(crate) const JOURNAL: &str = "journal";
/// The lock of a place.
pub(crate) const LOCK: &str = "lock";
/// The shim's socket.
pub(crate) const SOCKET: &str = "ctl";
/// What the shim itself says.
pub(crate) const STDERR: &str = "stderr";

/// Names of places that are being removed begin with it.
const DISCARDED: &str = "discarded-";

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const PRIVATE_DIRECTORY: Mode = Mode::RWXU;
const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);

/// What a directory is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Inode {
    device: u64,
    inode: u64,
}

impl Inode {
    fn of(fd: impl AsFd) -> io::Result<Self> {
        let stat = rustix::fs::fstat(fd)?;
        Ok(Self { device: stat.st_dev, inode: stat.st_ino })
    }
}

/// What a place was recorded as, in [`Place::identity`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlaceIdentity {
    machine: Option<Uuid>,
    /// The boot that it was made in.
    pub(crate) boot: Option<Uuid>,
    runs: Inode,
    place: Inode,
}

impl PlaceIdentity {
    /// Returns the recorded form: version, machine, boot, runs directory, place.
    fn encode(&self) -> String {
        let id = |id: Option<Uuid>| id.map_or_else(|| "-".to_owned(), |id| id.simple().to_string());
        format!(
            "1 {} {} {}:{} {}:{}",
            id(self.machine),
            id(self.boot),
            self.runs.device,
            self.runs.inode,
            self.place.device,
            self.place.inode
        )
    }

    /// Reads it back; `None` if it is not of this backend.
    pub(crate) fn decode(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.split(' ').collect();
        let ["1", machine, boot, runs, place] = fields[..] else { return None };
        let id = |text: &str| match text {
            "-" => Some(None),
            text => Uuid::from_str(text).ok().map(Some),
        };
        let inode = |text: &str| {
            let (device, inode) = text.split_once(':')?;
            Some(Inode { device: device.parse().ok()?, inode: inode.parse().ok()? })
        };
        Some(Self {
            machine: id(machine)?,
            boot: id(boot)?,
            runs: inode(runs)?,
            place: inode(place)?,
        })
    }

    /// Compares machines.
    pub(crate) fn machine(&self, here: &Here) -> Match {
        compare(self.machine, here.machine)
    }

    /// Compares directories: by inode, and by device within one boot. `place` is `None` if it is gone.
    pub(crate) fn directory(&self, here: &Here, runs: &Runs, place: Option<&PlaceDir>) -> Match {
        let one_boot = compare(self.boot, here.boot) == Match::Same;
        let same = |recorded: Inode, found: Inode| {
            recorded.inode == found.inode && (!one_boot || recorded.device == found.device)
        };
        let same = same(self.runs, runs.id) && place.is_none_or(|place| same(self.place, place.id));
        if same { Match::Same } else { Match::Differs }
    }
}

/// The directory of all places.
#[derive(Debug)]
pub(crate) struct Runs {
    fd: OwnedFd,
    path: PathBuf,
    id: Inode,
}

impl Runs {
    /// Opens it, component by component without following links, and makes it if it is not there.
    ///
    /// # Errors
    ///
    /// `PermissionDenied` if it belongs to somebody else or others may write to it.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        // What the caller gave may lead through links; from here on there are none.
        let path = fs::canonicalize(path)?;
        let mut fd = rustix::fs::open("/", DIRECTORY, Mode::empty())?;
        for component in path.components() {
            if let Component::Normal(name) = component {
                fd = rustix::fs::openat(&fd, name, DIRECTORY, Mode::empty())?;
            }
        }
        let stat = rustix::fs::fstat(&fd)?;
        let ours = stat.st_uid == rustix::process::geteuid().as_raw();
        if !ours || stat.st_mode & 0o022 != 0 {
            let message = format!("{} is not private to this user", path.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        let id = Inode::of(&fd)?;
        Ok(Self { fd, path, id })
    }

    /// Makes a place with an empty journal, durably. Making it again gives the same one.
    pub(crate) fn make(
        &self,
        here: &Here,
        execution: ExecutionId,
        nonce: Nonce,
    ) -> io::Result<Place> {
        let name = name(execution, nonce);
        let made = match rustix::fs::mkdirat(&self.fd, &name, PRIVATE_DIRECTORY) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(error.into()),
        };
        let result = self.fill(here, execution, nonce, &name);
        if result.is_err() && made {
            // Nobody knows of it yet. What cannot be removed is listed later as a place without a record.
            let _ = self.unmake(&name);
        }
        result
    }

    fn fill(
        &self,
        here: &Here,
        execution: ExecutionId,
        nonce: Nonce,
        name: &str,
    ) -> io::Result<Place> {
        let place = self.open_named(name)?;
        // Whoever launches or adopts makes the lock first: without one the journal, whole or not, was never used.
        if !place.exists(LOCK)? {
            let header = Header {
                execution,
                nonce,
                machine: here.machine.map_or(Vec::new(), |id| id.as_bytes().to_vec()),
                inode: place.id.inode,
            };
            place.write_synced(JOURNAL, &header.encode())?;
            rustix::fs::fsync(&place.fd)?;
            rustix::fs::fsync(&self.fd)?;
        }
        Ok(self.describe(name, nonce, here, place.id))
    }

    fn describe(&self, name: &str, nonce: Nonce, here: &Here, place: Inode) -> Place {
        let identity =
            PlaceIdentity { machine: here.machine, boot: here.boot, runs: self.id, place };
        let path = self.path.join(name);
        Place {
            locator: Locator::new(path.as_os_str().as_bytes()),
            nonce,
            identity: identity.encode(),
        }
    }

    /// Opens the place of one start; `None` if there is none.
    pub(crate) fn place(
        &self,
        execution: ExecutionId,
        nonce: Nonce,
    ) -> io::Result<Option<PlaceDir>> {
        match self.open_named(&name(execution, nonce)) {
            Ok(place) => Ok(Some(place)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn open_named(&self, name: &str) -> io::Result<PlaceDir> {
        let fd = rustix::fs::openat(&self.fd, name, DIRECTORY, Mode::empty())?;
        let id = Inode::of(&fd)?;
        Ok(PlaceDir { fd, id })
    }

    /// Lists the places that exist. A copy is described as what it was copied from, so that it is recognised.
    pub(crate) fn list(&self, here: &Here) -> io::Result<Vec<(ExecutionId, Place)>> {
        let mut places = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd)? {
            let entry = entry?;
            let Some((execution, nonce)) = entry.file_name().to_str().ok().and_then(parse) else {
                continue;
            };
            let Ok(place) = self.open_named(&name(execution, nonce)) else { continue };
            let mut id = place.id;
            if let journal::Verdict::Readable(journal) = place.read_journal()? {
                id.inode = journal.header.inode;
            }
            places.push((execution, self.describe(&name(execution, nonce), nonce, here, id)));
        }
        Ok(places)
    }

    /// Removes a place, whose lock the caller holds, and what earlier removals left of others.
    pub(crate) fn remove(&self, execution: ExecutionId, nonce: Nonce) -> io::Result<()> {
        let name = name(execution, nonce);
        let aside = format!("{DISCARDED}{name}");
        rustix::fs::renameat(&self.fd, &name, &self.fd, &aside)?;
        self.unmake(&aside)
    }

    /// Removes what a crash left half removed.
    pub(crate) fn remove_discarded(&self) -> io::Result<()> {
        for entry in rustix::fs::Dir::read_from(&self.fd)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().to_str()
                && name.strip_prefix(DISCARDED).and_then(parse).is_some()
            {
                self.unmake(name)?;
            }
        }
        Ok(())
    }

    /// Unlinks a place and the files in it; they have no directories.
    fn unmake(&self, name: &str) -> io::Result<()> {
        let place = self.open_named(name)?;
        for file in place.files()? {
            place.unlink(&file)?;
        }
        rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR)?;
        Ok(())
    }

    /// Returns the free bytes of the file system, for this user.
    pub(crate) fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstatvfs(&self.fd)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// The name of a place.
fn name(execution: ExecutionId, nonce: Nonce) -> String {
    format!("{}.{}", execution.0.hyphenated(), nonce.0.hyphenated())
}

/// Reads the name of a place, in the one form that [`name`] gives it.
fn parse(text: &str) -> Option<(ExecutionId, Nonce)> {
    let (execution, nonce) = text.split_once('.')?;
    let (execution, nonce) = (ExecutionId(execution.parse().ok()?), Nonce(nonce.parse().ok()?));
    (name(execution, nonce) == text).then_some((execution, nonce))
}

/// One place, open.
#[derive(Debug)]
pub(crate) struct PlaceDir {
    fd: OwnedFd,
    id: Inode,
}

/// The lock of a place, held until it is dropped.
#[derive(Debug)]
pub(crate) struct PlaceLock {
    file: OwnedFd,
}

impl Drop for PlaceLock {
    /// Gives it back at once. To close the descriptor is not enough: a child that is just being spawned has it too, until
    /// it executes its program, and a shim that comes meanwhile would find its place taken.
    fn drop(&mut self) {
        // It is held, so this cannot fail; closing it follows anyway.
        let _released = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }
}

impl PlaceDir {
    /// Returns the directory.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Says whether anybody ever took the lock.
    pub(crate) fn was_locked(&self) -> io::Result<bool> {
        self.exists(LOCK)
    }

    /// Takes the lock; `None` if somebody holds it.
    pub(crate) fn try_lock(&self) -> io::Result<Option<PlaceLock>> {
        // For reading: whoever waits for the place to change is not to wake itself by closing it.
        let file = self.open(LOCK, OFlags::RDONLY | OFlags::CREATE)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(PlaceLock { file })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the journal; one that is not there is damaged.
    pub(crate) fn read_journal(&self) -> io::Result<journal::Verdict> {
        let file = match self.open(JOURNAL, OFlags::RDONLY) {
            Ok(file) => File::from(file),
            Err(error) if is_absent(&error) => return Ok(journal::Verdict::Damaged),
            Err(error) => return Err(error),
        };
        // One byte more than there should be, so that a longer file is seen to be one.
        let mut bytes = Vec::with_capacity(JOURNAL_BYTES + 1);
        io::Read::read_to_end(&mut io::Read::take(file, JOURNAL_BYTES as u64 + 1), &mut bytes)?;
        Ok(journal::read(&bytes))
    }

    /// Appends a record to the journal, synced. The caller holds the lock.
    pub(crate) fn append_journal(
        &self,
        journal: &journal::Journal,
        record: &journal::Record,
    ) -> io::Result<()> {
        let file = self.open(JOURNAL, OFlags::WRONLY)?;
        // What was read may not be synced; the record says that it is.
        rustix::fs::fdatasync(&file)?;
        let bytes = record.encode(journal.synced());
        if journal.end + bytes.len() > JOURNAL_BYTES {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        std::os::unix::fs::FileExt::write_all_at(
            &File::from(file.try_clone()?),
            &bytes,
            journal.end as u64,
        )?;
        rustix::fs::fdatasync(&file)?;
        Ok(())
    }

    /// Opens a file of the place, never through a link; a new one is private.
    pub(crate) fn open(&self, name: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.fd, name, flags, PRIVATE_FILE)?)
    }

    /// Says whether there is a file of this name.
    pub(crate) fn exists(&self, name: &str) -> io::Result<bool> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Lists the names of what is in it.
    pub(crate) fn files(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd)? {
            let entry = entry?;
            match entry.file_name().to_str() {
                Ok("." | "..") => {}
                Ok(name) => names.push(name.to_owned()),
                Err(_) => return Err(io::Error::from(io::ErrorKind::InvalidData)),
            }
        }
        Ok(names)
    }

    /// Writes a whole file and syncs it.
    pub(crate) fn write_synced(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        let mut file = File::from(self.open(name, flags)?);
        io::Write::write_all(&mut file, bytes)?;
        file.sync_all()
    }

    /// Removes a file; one that is not there is removed.
    pub(crate) fn unlink(&self, name: &str) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Syncs the directory itself.
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.fd)?)
    }
}

/// Says whether an error means that there is no such file.
fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(n: u128) -> (ExecutionId, Nonce) {
        (ExecutionId(Uuid::from_u128(n)), Nonce(Uuid::from_u128(n + 1)))
    }

    #[test]
    fn an_identity_survives_its_recorded_form_and_others_are_refused() {
        let id = Inode { device: 3, inode: u64::MAX };
        let identity =
            PlaceIdentity { machine: None, boot: Some(Uuid::from_u128(7)), runs: id, place: id };
        assert_eq!(PlaceIdentity::decode(&identity.encode()), Some(identity.clone()));
        for text in ["", "1", "2 - - 1:1 1:1", "1 - - 1:1 1", "1 x - 1:1 1:1", "1 - - 1:1 1:1 9"] {
            assert_eq!(PlaceIdentity::decode(text), None, "{text}");
        }
    }

    #[test]
    fn a_device_may_change_with_the_boot_only() {
        let home = tempfile::tempdir().unwrap();
        let runs = Runs::open(home.path()).unwrap();
        let here = Here::read();
        let (execution, nonce) = ids(1);
        let place = runs.make(&here, execution, nonce).unwrap();
        let dir = runs.place(execution, nonce).unwrap().unwrap();
        let recorded = PlaceIdentity::decode(&place.identity).unwrap();
        assert_eq!(recorded.directory(&here, &runs, Some(&dir)), Match::Same);
        let moved = Inode { device: recorded.place.device + 1, ..recorded.place };
        let moved = PlaceIdentity { place: moved, ..recorded };
        assert_eq!(moved.directory(&here, &runs, Some(&dir)), Match::Differs);
        let rebooted = PlaceIdentity { boot: Some(Uuid::from_u128(1)), ..moved };
        assert_eq!(rebooted.directory(&here, &runs, Some(&dir)), Match::Same);
    }

    #[test]
    fn a_long_path_and_one_with_strange_characters_work() {
        let home = tempfile::tempdir().unwrap();
        let deep = home.path().join("ä ö\n".repeat(20)).join("x".repeat(250)).join("y".repeat(250));
        let runs = Runs::open(&deep).unwrap();
        let (execution, nonce) = ids(1);
        let place = runs.make(&Here::read(), execution, nonce).unwrap();
        assert_eq!(runs.list(&Here::read()).unwrap(), [(execution, place)]);
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("runs");
        DirBuilder::new().create(&path).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        assert_eq!(Runs::open(&path).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn a_place_behind_a_link_is_not_opened() {
        let home = tempfile::tempdir().unwrap();
        let runs = Runs::open(&home.path().join("runs")).unwrap();
        let (execution, nonce) = ids(1);
        std::os::unix::fs::symlink("/tmp", runs.path.join(name(execution, nonce))).unwrap();
        assert!(runs.place(execution, nonce).is_err());
        assert!(runs.make(&Here::read(), execution, nonce).is_err());
    }

    #[test]
    fn a_half_made_place_is_made_whole_and_a_used_one_is_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let runs = Runs::open(home.path()).unwrap();
        let here = Here::read();
        let (execution, nonce) = ids(1);
        let made = runs.make(&here, execution, nonce).unwrap();
        let journal = runs.path.join(name(execution, nonce)).join(JOURNAL);
        fs::write(&journal, b"half").unwrap();
        assert_eq!(runs.make(&here, execution, nonce).unwrap(), made);
        let place = runs.place(execution, nonce).unwrap().unwrap();
        assert!(matches!(place.read_journal().unwrap(), journal::Verdict::Readable(_)));
        drop(place.try_lock().unwrap().unwrap());
        fs::write(&journal, b"damaged").unwrap();
        assert_eq!(runs.make(&here, execution, nonce).unwrap(), made);
        assert_eq!(place.read_journal().unwrap(), journal::Verdict::Damaged);
    }

    #[test]
    fn a_removal_that_was_cut_short_is_completed() {
        let home = tempfile::tempdir().unwrap();
        let runs = Runs::open(home.path()).unwrap();
        let (execution, nonce) = ids(1);
        runs.make(&Here::read(), execution, nonce).unwrap();
        let aside = runs.path.join(format!("{DISCARDED}{}", name(execution, nonce)));
        fs::rename(runs.path.join(name(execution, nonce)), &aside).unwrap();
        assert_eq!(runs.list(&Here::read()).unwrap(), []);
        runs.remove_discarded().unwrap();
        assert!(!aside.exists());
    }
}
