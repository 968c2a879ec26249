//! What the host says: `host.log`, 8 MiB and one older file, or standard error in the foreground.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use windlass::core::time::Timestamp;
use windlass::view::Time;

use crate::duration::now_ms;

/// When a file is put aside.
const MAX_BYTES: u64 = 8 << 20;

/// Where the host's words go.
#[derive(Debug)]
pub struct HostLog {
    /// The file that standard error is connected to; `None` in the foreground.
    file: Option<Mutex<PathBuf>>,
}

/// Opens the log for appending.
///
/// # Errors
///
/// The system's.
pub fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// Returns the path that a full log is moved to.
fn older(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

impl HostLog {
    /// Makes the log of a host in the foreground.
    #[must_use]
    pub fn foreground() -> Self {
        Self { file: None }
    }

    /// Makes the log of a host in the background and connects standard error to it, so that a panic is in it too.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn background(path: &Path) -> io::Result<Self> {
        rustix::stdio::dup2_stderr(open(path)?)?;
        Ok(Self { file: Some(Mutex::new(path.to_owned())) })
    }

    /// Says something. What cannot be written is lost: there is nowhere else to say it.
    pub fn say(&self, text: &str) {
        let line = format!("{} [{}] {text}\n", Time(Timestamp(now_ms())), std::process::id());
        if let Some(path) = &self.file {
            let path = path.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = rotate(&path);
            let _ = io::stderr().write_all(line.as_bytes());
        } else {
            let _ = io::stderr().write_all(line.as_bytes());
        }
    }
}

/// Moves a full log aside and connects standard error to a new one.
fn rotate(path: &Path) -> io::Result<()> {
    if std::fs::metadata(path).is_ok_and(|metadata| metadata.len() < MAX_BYTES) {
        return Ok(());
    }
    std::fs::rename(path, older(path))?;
    rustix::stdio::dup2_stderr(open(path)?)?;
    Ok(())
}

/// Returns the last lines of a log, at most 2 KiB.
#[must_use]
pub fn tail(path: &Path) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(2_048)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim_end();
    match text.split_once('\n') {
        // What it begins with may be the end of a longer line.
        Some((_, rest)) if bytes.len() >= 2_048 => rest.to_owned(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_whole_lines() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("host.log");
        assert_eq!(tail(&path), "");
        let lines: Vec<_> = (0..1_000).map(|n| format!("line {n:04}")).collect();
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
        let tail = tail(&path);
        assert!(tail.starts_with("line ") && tail.ends_with("line 0999"), "{tail}");
        assert!(tail.len() <= 2_048);
    }
}
