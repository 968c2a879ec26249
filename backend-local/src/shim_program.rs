//! Finds the shim, once: what was opened when the host started is executed until it ends, whatever an upgrade puts in
//! its place meanwhile.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags};

/// The name of the small binary beside the current executable.
const FILE: &str = "windlass-shim";

/// Where the shim is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShimChoice {
    /// The small binary at this path; of another version it is refused.
    Path(PathBuf),
    /// The small binary beside the current executable, if it is there in this version; else the [`Hook`](Self::Hook).
    Beside,
    /// This program itself, which called [`windlass_shim::main_if_shim`] first in `main`. Refused if it did not: its
    /// `main` would run again.
    Hook,
}

/// A program that is the shim if it is started as one.
#[derive(Debug)]
pub(crate) struct ShimProgram {
    file: OwnedFd,
}

impl ShimProgram {
    /// Finds and opens it, and asks for its version. Blocking.
    ///
    /// # Errors
    ///
    /// `Unsupported` if it is of another version, or this program did not call the hook.
    pub(crate) fn open(choice: &ShimChoice) -> io::Result<Self> {
        match choice {
            ShimChoice::Path(path) => Self::binary(path),
            ShimChoice::Hook => Self::hook(),
            ShimChoice::Beside => {
                let beside = std::env::current_exe().map(|current| current.with_file_name(FILE));
                let found = beside.and_then(|path| Self::binary(&path));
                found.or_else(|not| {
                    Self::hook().map_err(|_| {
                        let message =
                            format!("no shim beside this program, nor a hook in it: {not}");
                        io::Error::new(io::ErrorKind::Unsupported, message)
                    })
                })
            }
        }
    }

    fn binary(path: &Path) -> io::Result<Self> {
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("shim {}: {error}", path.display()))
        };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file =
            rustix::fs::open(path, flags, Mode::empty()).map_err(|error| named(error.into()))?;
        let program = Self { file };
        let asked = Command::new(program.path())
            .arg(windlass_shim::VERSION_ARGUMENT)
            .env_clear()
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .map_err(named)?;
        let said = String::from_utf8_lossy(&asked.stdout);
        let wanted = windlass_shim::version_line();
        if said.trim_end() != wanted {
            let message = format!("it says {:?}, not {wanted:?}", said.trim_end());
            return Err(named(io::Error::new(io::ErrorKind::Unsupported, message)));
        }
        Ok(program)
    }

    fn hook() -> io::Result<Self> {
        if !windlass_shim::is_hooked() {
            let message = "this program does not call windlass_shim::main_if_shim first in main";
            return Err(io::Error::new(io::ErrorKind::Unsupported, message));
        }
        // The very file that runs, even if another one has its name by now.
        let running = if cfg!(target_os = "linux") {
            PathBuf::from("/proc/self/exe")
        } else {
            std::env::current_exe()?
        };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(Self { file: rustix::fs::open(running, flags, Mode::empty())? })
    }

    /// Returns a path by which this process, or a child before its exec, executes what was opened.
    pub(crate) fn path(&self) -> PathBuf {
        let directory = if cfg!(target_os = "linux") { "/proc/self/fd" } else { "/dev/fd" };
        PathBuf::from(format!("{directory}/{}", self.file.as_raw_fd()))
    }

    /// Returns what makes it the shim, and whose, for process lists.
    pub(crate) fn arguments(&self, whose: &str) -> [String; 2] {
        [windlass_shim::SHIM_MARK.to_owned(), whose.to_owned()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_hook_nothing_would_be_a_shim() {
        assert_eq!(
            ShimProgram::open(&ShimChoice::Hook).unwrap_err().kind(),
            io::ErrorKind::Unsupported
        );
    }

    #[test]
    fn another_program_is_refused_by_name() {
        let path = PathBuf::from("/bin/true");
        let error = ShimProgram::open(&ShimChoice::Path(path)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert!(error.to_string().contains("/bin/true"), "{error}");
        let path = PathBuf::from("/nonexistent/shim");
        let error = ShimProgram::open(&ShimChoice::Path(path)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
