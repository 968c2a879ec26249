//! A disk whose power can be cut: ext4 on a loop device, stopped by the file system's own shutdown.
//!
//! After a cut the file system writes nothing more, its journal neither; what reached the device by then is what a machine
//! would find after a power failure. It needs root and loop devices; where they are missing it says so.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::ioctl;
use tempfile::TempDir;
use uuid::Uuid;

use crate::namespace;

/// Stop at once, without flushing the journal (`EXT4_GOING_FLAGS_NOLOGFLUSH`).
const NO_LOG_FLUSH: u32 = 2;
/// `EXT4_IOC_SHUTDOWN`: `_IOR('X', 125, __u32)`.
const SHUTDOWN: ioctl::Opcode = ioctl::opcode::read::<u32>(b'X', 125);

/// Where loop devices are asked for; who holds its lock is the only one of us who does.
const LOOPS: &str = "/dev/loop-control";
/// Where the kernel names the boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A disk that is mounted.
#[derive(Debug)]
pub struct Disk {
    /// Holds image and mount point.
    dir: TempDir,
    /// The loop device, the same one after each start.
    device: PathBuf,
}

impl Disk {
    /// Makes a disk of so many MiB with an empty file system.
    ///
    /// # Errors
    ///
    /// Why there can be none on this machine.
    pub fn new(mebibytes: u64) -> Result<Self, String> {
        if !namespace::is_inside() {
            return Err("a namespace of mounts is not permitted here".to_owned());
        }
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let image = dir.path().join("image");
        let made = File::create(&image).and_then(|image| image.set_len(mebibytes << 20));
        made.and_then(|()| fs::create_dir(dir.path().join("mount")))
            .map_err(|error| error.to_string())?;
        let mut format = Command::new("mkfs.ext4");
        // Tables are written at once, not later behind our back.
        format.args(["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"]);
        run(format.arg(&image))?;
        let alone = devices().map_err(|error| format!("{LOOPS}: {error}"))?;
        let device = run(Command::new("losetup").args(["--find", "--show"]).arg(&image))?;
        drop(alone);
        let disk = Self { dir, device: PathBuf::from(device) };
        disk.mount()?;
        Ok(disk)
    }

    /// Starts it again after a cut, as another boot: its journal is replayed. Nobody may have a file open on it.
    ///
    /// # Panics
    ///
    /// When it cannot be unmounted, or cannot be mounted again: then it is beyond repair by its journal.
    pub fn restart(&self) {
        // Between its end and its start its device is nobody's.
        let alone = devices().expect("the lock of the loop devices");
        run(Command::new("umount").arg(self.path())).expect("nobody uses the disk");
        let mut attach = Command::new("losetup");
        attach.arg(&self.device).arg(self.dir.path().join("image"));
        run(&mut attach).expect("its loop device is still free");
        drop(alone);
        self.mount().expect("a file system that its journal repairs");
        // What tells boots apart; the mount is this namespace's alone.
        let boot = self.dir.path().join("boot");
        fs::write(&boot, format!("{}\n", Uuid::from_bytes(random()))).expect("a file");
        // An earlier disk's may be there, and nothing can be mounted on a file that was deleted.
        let _ = rustix::mount::unmount(BOOT_ID, rustix::mount::UnmountFlags::DETACH);
        run(Command::new("mount").arg("--bind").arg(&boot).arg(BOOT_ID)).expect("another boot");
    }

    /// Returns where it is mounted.
    ///
    /// # Panics
    ///
    /// When the path cannot be resolved.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.dir.path().canonicalize().expect("the real path of the disk").join("mount")
    }

    /// Makes everything that is written so far survive.
    ///
    /// # Panics
    ///
    /// When the system refuses.
    pub fn sync(&self) {
        let top = File::open(self.path()).expect("the top directory");
        rustix::fs::syncfs(&top).expect("a sync of the disk");
    }

    /// Cuts the power. What is written from now on fails; what was not synced may be gone.
    ///
    /// # Panics
    ///
    /// When the system refuses.
    #[expect(unsafe_code, reason = "the only way to stop a file system is this request of its own")]
    pub fn cut(&self) {
        let top = File::open(self.path()).expect("the top directory");
        // SAFETY: the request reads one number, which lives until it returns, and writes no memory.
        let stop = unsafe { ioctl::Setter::<SHUTDOWN, u32>::new(NO_LOG_FLUSH) };
        // SAFETY: the descriptor is open, and an ext4 file system knows the request.
        unsafe { ioctl::ioctl(&top, stop) }.expect("a shutdown of the file system");
    }

    fn mount(&self) -> Result<(), String> {
        let at = self.dir.path().join("mount");
        let mounted = run(Command::new("mount").arg(&self.device).arg(at));
        // From now on it is freed with the last use, whatever becomes of this process.
        run(Command::new("losetup").arg("--detach").arg(&self.device))?;
        mounted.map(drop)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Detached at once and freed when the last file is closed; in a namespace of its own also when that ends.
        let at = self.dir.path().join("mount");
        let _ = rustix::mount::unmount(at, rustix::mount::UnmountFlags::DETACH);
    }
}

/// Keeps other disks from taking a loop device until it is dropped.
fn devices() -> io::Result<File> {
    let loops = File::open(LOOPS)?;
    loops.lock()?;
    Ok(loops)
}

/// Reads what no other boot is called.
fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    let urandom = File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes));
    urandom.expect("random bytes");
    bytes
}

/// Runs a command; returns the line that it prints.
fn run(command: &mut Command) -> Result<String, String> {
    let name = Path::new(command.get_program()).display().to_string();
    match command.output() {
        Ok(output) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        }
        Ok(output) => Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(format!("there is no {name}")),
        Err(error) => Err(format!("{name}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::Disk;

    crate::isolated! {
        fn what_was_synced_survives_a_cut_and_what_was_not_does_not() {
            let disk = match Disk::new(32) {
                Ok(disk) => disk,
                Err(why) => return crate::not_run(&format!("power cuts: {why}")),
            };
            disk.sync();
            let mut kept = fs::File::create(disk.path().join("kept")).unwrap();
            kept.write_all(b"kept").unwrap();
            kept.sync_all().unwrap();
            fs::File::open(disk.path()).unwrap().sync_all().unwrap();
            fs::write(disk.path().join("lost"), "lost").unwrap();
            disk.cut();
            assert!(fs::write(disk.path().join("later"), "later").is_err());
            drop(kept);
            disk.restart();
            assert_eq!(fs::read(disk.path().join("kept")).unwrap(), b"kept");
            assert!(!disk.path().join("lost").exists());
        }
    }
}
