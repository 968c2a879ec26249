//! What this machine can do: git, kernel, shim, disk. Probed by trying, never by version alone.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::commands::doctor::Check;
use crate::config::show;
use crate::table::size;

/// The oldest git that will do.
const GIT: (u64, u64) = (2, 36);

/// Less free space than this is mentioned, whatever the floor is.
const LITTLE_BYTES: u64 = 256 << 20;

/// Checks git.
#[must_use]
pub(crate) fn git() -> Check {
    let hint = "install git 2.36 or newer and see that it is on PATH";
    let said = Command::new("git").arg("--version").stdin(Stdio::null()).output();
    match said {
        Ok(said) if said.status.success() => {
            let text = String::from_utf8_lossy(&said.stdout).trim().to_owned();
            match git_version(&text) {
                Some(version) if version >= GIT => Check::ok("git", text),
                Some(_) | None => Check::failed("git", text, hint),
            }
        }
        Ok(said) => Check::failed("git", format!("git --version failed: {}", said.status), hint),
        Err(error) => Check::failed("git", format!("git cannot be run: {error}"), hint),
    }
}

fn git_version(text: &str) -> Option<(u64, u64)> {
    let mut numbers = text.split_ascii_whitespace().nth(2)?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Checks the kernel's version.
#[must_use]
pub(crate) fn kernel() -> Check {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    let detail = format!("{} {release}", name.sysname().to_string_lossy());
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u64>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if cfg!(target_os = "linux") && version < (5, 10) {
        return Check::failed("kernel", detail, "use Linux 5.10 or newer");
    }
    Check::ok("kernel", detail)
}

/// Checks what the kernel can do for supervision.
#[cfg(target_os = "linux")]
#[must_use]
pub(crate) fn abilities() -> Vec<Check> {
    let mut checks = Vec::new();
    let pidfd = rustix::process::pidfd_open(
        rustix::process::getpid(),
        rustix::process::PidfdFlags::empty(),
    );
    match pidfd {
        Ok(pidfd) => {
            checks.push(Check::ok("pidfd", "processes are signalled by descriptor"));
            checks.push(pidfs(&pidfd));
        }
        Err(error) => checks.push(Check::failed(
            "pidfd",
            format!("there are none: {error}"),
            "use Linux 5.10 or newer; a sandbox may forbid pidfd_open",
        )),
    }
    checks.push(match rustix::process::child_subreaper() {
        Ok(_) => Check::ok("subreaper", "orphans are adopted by the shim"),
        Err(error) => Check::failed(
            "subreaper",
            format!("not available: {error}"),
            "a sandbox may forbid prctl",
        ),
    });
    checks.push(cgroup());
    checks
}

/// Elsewhere there are none of these.
#[cfg(not(target_os = "linux"))]
#[must_use]
pub(crate) fn abilities() -> Vec<Check> {
    vec![Check::warning(
        "supervision",
        "no subreaper, pidfd or cgroup here",
        "processes that leave the tree are found by enumeration only",
    )]
}

/// Says whether pidfds have names that are never given twice.
#[cfg(target_os = "linux")]
fn pidfs(pidfd: &std::os::fd::OwnedFd) -> Check {
    /// `PID_FS_MAGIC` of the kernel.
    const PID_FS_MAGIC: i128 = 0x5049_4446;
    match rustix::fs::fstatfs(pidfd) {
        Ok(found) if i128::from(found.f_type) == PID_FS_MAGIC => {
            Check::ok("pidfs", "processes have names that are never given twice")
        }
        Ok(_) | Err(_) => Check::warning(
            "pidfs",
            "processes are told apart by start time",
            "Linux 6.9 and newer have it; it works without",
        ),
    }
}

/// Says whether a cgroup was delegated to us.
#[cfg(target_os = "linux")]
fn cgroup() -> Check {
    let hint = "children that change their user or leave their group may be out of reach, and memory limits are \
                sampled; under systemd, `windlass host install` asks for delegation";
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let Some(path) = own.lines().find_map(|line| line.strip_prefix("0::/")) else {
        return Check::warning("cgroup", "no cgroup of version 2", hint);
    };
    let directory = Path::new("/sys/fs/cgroup").join(path);
    let controllers = std::fs::read_to_string(directory.join("cgroup.controllers"));
    let is_writable =
        rustix::fs::access(directory.join("cgroup.procs"), rustix::fs::Access::WRITE_OK).is_ok();
    match controllers {
        Ok(controllers) if is_writable && controllers.contains("memory") => Check::ok(
            "cgroup",
            format!("{} is delegated: {}", show(&directory), controllers.trim()),
        ),
        Ok(_) => Check::warning("cgroup", format!("{} is not delegated", show(&directory)), hint),
        Err(_) => Check::warning("cgroup", "no cgroup of version 2", hint),
    }
}

/// Checks the shim: the one that was named, else the one beside this program, else this program.
#[must_use]
pub(crate) fn shim(named: Option<&Path>) -> Check {
    let beside = || std::env::current_exe().ok().map(|path| path.with_file_name("windlass-shim"));
    let path = named.map(PathBuf::from).or_else(|| beside().filter(|path| path.exists()));
    let Some(path) = path else {
        return hook();
    };
    let wanted = windlass_shim::version_line();
    let said =
        Command::new(&path).arg(windlass_shim::VERSION_ARGUMENT).stdin(Stdio::null()).output();
    let said = match said {
        Ok(said) => String::from_utf8_lossy(&said.stdout).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    if said == wanted {
        return Check::ok("shim", format!("{} ({said})", show(&path)));
    }
    let hint = "install windlass and windlass-shim of the same version side by side";
    if named.is_none() && windlass_shim::is_hooked() {
        let detail =
            format!("{} says {said:?}, not {wanted:?}; windlass is its own shim", show(&path));
        return Check::warning("shim", detail, hint);
    }
    Check::failed("shim", format!("{} says {said:?}, not {wanted:?}", show(&path)), hint)
}

fn hook() -> Check {
    if windlass_shim::is_hooked() {
        return Check::warning(
            "shim",
            "windlass is its own shim",
            "put windlass-shim beside windlass: an execution then takes 0.4 MB instead of 3",
        );
    }
    Check::failed("shim", "there is none", "put windlass-shim beside windlass")
}

/// Checks the free space where the data directory is, or will be: below `floor_bytes` nothing new is started.
#[must_use]
pub(crate) fn disk(path: &Path, floor_bytes: u64) -> Check {
    let existing = path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(path);
    match rustix::fs::statvfs(existing) {
        Ok(found) => {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            let detail = format!("{} free at {}", size(free), show(existing));
            if free < floor_bytes {
                let floor = size(floor_bytes);
                let hint =
                    format!("free some: below {floor} (disk_floor_bytes) nothing new is started");
                return Check::failed("disk", detail, &hint);
            }
            if free < LITTLE_BYTES {
                let hint = "free some: output, records and snapshots need room";
                return Check::warning("disk", detail, hint);
            }
            Check::ok("disk", detail)
        }
        Err(error) => Check::failed(
            "disk",
            format!("{} cannot be measured: {error}", show(existing)),
            "check the file system",
        ),
    }
}

/// Checks owner and mode of the data directory. The owner was checked when it was opened.
#[must_use]
pub(crate) fn permissions(path: &Path) -> Check {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.mode() & 0o077 != 0 => Check::warning(
            "data directory",
            format!(
                "{} has mode {:o}: others may look into it",
                show(path),
                metadata.mode() & 0o7777
            ),
            "chmod 700 it: logs and environments are in it",
        ),
        Ok(_) => {
            let writable = rustix::fs::access(path, rustix::fs::Access::WRITE_OK);
            match writable {
                Ok(()) => Check::ok("data directory", show(path)),
                Err(error) => Check::failed(
                    "data directory",
                    format!("{} cannot be written: {error}", show(path)),
                    "check its mode and the mount",
                ),
            }
        }
        Err(error) => {
            Check::failed("data directory", format!("{}: {error}", show(path)), "check its mode")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::commands::doctor::State;

    #[test]
    fn versions_of_git_are_read() {
        assert_eq!(git_version("git version 2.43.0"), Some((2, 43)));
        assert_eq!(git_version("git version 2.39.5 (Apple Git-154)"), Some((2, 39)));
        assert_eq!(git_version("git"), None);
    }

    #[test]
    fn another_program_is_no_shim() {
        assert_eq!(shim(Some(Path::new("/bin/true"))).status, State::Failed);
        assert_eq!(shim(Some(Path::new("/nonexistent"))).status, State::Failed);
    }

    #[test]
    fn an_open_data_directory_is_a_warning() {
        let root = tempfile::tempdir().unwrap();
        let status_of_mode = |mode| {
            std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            permissions(root.path()).status
        };
        assert_eq!(status_of_mode(0o700), State::Ok);
        assert_eq!(status_of_mode(0o755), State::Warning);
    }

    #[test]
    fn a_directory_that_is_not_there_yet_is_measured_above() {
        let root = tempfile::tempdir().unwrap();
        let check = disk(&root.path().join("a/b/c"), 0);
        assert!(check.detail.contains(&show(root.path())), "{check:?}");
        assert_ne!(check.status, State::Failed);
        let floor = disk(root.path(), u64::MAX);
        assert!(floor.status == State::Failed && floor.hint.is_some(), "{floor:?}");
    }
}
