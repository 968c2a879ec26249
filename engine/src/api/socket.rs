//! Unix sockets at paths of any length.
//!
//! A socket's address holds about a hundred bytes. Where a path is longer, its directory is opened and the socket named
//! through the descriptor, which Linux allows.

use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::{UnixListener, UnixStream};

/// The longest path that every system takes as an address (macOS: 104 with the end mark).
const ADDRESS_BYTES: usize = 103;

/// A path that fits into an address, and what keeps it valid.
#[derive(Debug)]
struct Address {
    path: PathBuf,
    _directory: Option<OwnedFd>,
}

impl Address {
    fn of(path: &Path) -> io::Result<Self> {
        if path.as_os_str().as_bytes().len() <= ADDRESS_BYTES {
            return Ok(Self { path: path.to_owned(), _directory: None });
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        };
        if !cfg!(target_os = "linux") {
            let reason =
                "the socket's path is too long for this system; use a shorter data directory";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        let directory = rustix::fs::open(parent, flags, Mode::empty())?;
        let mut short = String::from("/proc/self/fd/");
        // Writing to a string cannot fail.
        let _ = write!(short, "{}", directory.as_raw_fd());
        Ok(Self { path: Path::new(&short).join(name), _directory: Some(directory) })
    }
}

/// Listens at `path` with mode 0600, in place of whatever socket a former process left there.
///
/// The caller holds the lock that makes it the only one who does this here. The socket appears at `path` only once it
/// accepts connections.
///
/// # Errors
///
/// The system's.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    let Some(name) = path.file_name() else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    let mut fresh_name = name.to_owned();
    fresh_name.push(".new");
    let fresh = path.with_file_name(fresh_name);
    match rustix::fs::unlink(&fresh) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let address = Address::of(&fresh)?;
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(&address.path)?)?;
    rustix::fs::chmodat(CWD, &fresh, Mode::RUSR | Mode::WUSR, AtFlags::empty())?;
    rustix::net::listen(&socket, 1024)?;
    rustix::fs::rename(&fresh, path)?;
    UnixListener::from_std(socket.into())
}

/// Connects to the socket at `path`, if its other end is of the same user.
///
/// # Errors
///
/// The system's; [`PermissionDenied`](io::ErrorKind::PermissionDenied) if it is another user's.
///
/// # Cancel safety
///
/// May be dropped.
pub async fn connect(path: &Path) -> io::Result<UnixStream> {
    let address = Address::of(path)?;
    let stream = UnixStream::connect(&address.path).await?;
    if is_same_user(&stream)? {
        Ok(stream)
    } else {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "the socket belongs to another user"))
    }
}

/// Says whether the other end is a process of the same user.
pub(super) fn is_same_user(stream: &UnixStream) -> io::Result<bool> {
    Ok(stream.peer_cred()?.uid() == rustix::process::geteuid().as_raw())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn a_path_of_three_hundred_characters_works() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("é ".repeat(50)).join("y".repeat(150)).join("z".repeat(60));
        std::fs::create_dir_all(&deep).unwrap();
        let path = deep.join("host.sock");
        assert!(path.as_os_str().len() > 300);
        let listener = bind(&path).unwrap();
        let (accepted, connected) = tokio::join!(listener.accept(), connect(&path));
        assert!(is_same_user(&accepted.unwrap().0).unwrap());
        drop(connected.unwrap());
    }

    #[tokio::test]
    async fn only_the_user_may_open_it_and_a_stale_one_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("host.sock");
        drop(bind(&path).unwrap());
        let refused = connect(&path).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let _listener = bind(&path).unwrap();
        connect(&path).await.unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
