//! The pipe that the command reads from: messages are logged, queued, and written as the command takes them.

use std::collections::VecDeque;
use std::io::{self, PipeWriter, Write};
use std::os::fd::{AsFd, BorrowedFd};

use windlass_core::shim::frame::Stream;

use crate::log::Log;
use crate::sys;

/// The command's standard input, as far as it is ours.
#[derive(Debug, Default)]
pub(crate) struct StdinPipe {
    pipe: Option<PipeWriter>,
    queue: VecDeque<u8>,
    close: bool,
}

/// What writing did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// How many bytes the pipe took.
    pub(crate) bytes: u64,
    /// The pipe is closed now.
    pub(crate) ended: bool,
}

impl StdinPipe {
    /// Takes the pipe over, if there is one.
    pub(crate) fn open(&mut self, pipe: Option<PipeWriter>) {
        self.pipe = pipe;
    }

    /// Returns the pipe for polling, and whether anything waits for it.
    pub(crate) fn fd(&self) -> Option<(BorrowedFd<'_>, bool)> {
        self.pipe.as_ref().map(|pipe| (pipe.as_fd(), !self.queue.is_empty()))
    }

    /// Logs a message, then queues it.
    pub(crate) fn feed(&mut self, bytes: &[u8], secret: bool, close: bool, log: &mut Log) {
        let time = sys::frame_time();
        if secret {
            log.secret(time, Stream::Stdin, !bytes.ends_with(b"\n"), bytes.len() as u64);
        } else {
            for piece in bytes.chunks(log.entry_bytes()) {
                log.entry(time, Stream::Stdin, !piece.ends_with(b"\n"), piece);
            }
        }
        self.queue.extend(bytes);
        self.close |= close;
    }

    /// Writes what the pipe takes, and closes it behind a closing message or when nobody reads any more.
    pub(crate) fn write(&mut self) -> Written {
        let mut written = Written { bytes: 0, ended: false };
        let Some(pipe) = &mut self.pipe else { return written };
        while !self.queue.is_empty() {
            match pipe.write(self.queue.as_slices().0) {
                Ok(len) => {
                    self.queue.drain(..len);
                    written.bytes += len as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return written,
                Err(_) => {
                    written.ended = true;
                    break;
                }
            }
        }
        // What was a megabyte once must not be kept for it.
        self.queue = VecDeque::new();
        if self.close || written.ended {
            written.ended = true;
            self.close();
        }
        written
    }

    /// Closes the pipe and forgets what was not written.
    pub(crate) fn close(&mut self) {
        self.pipe = None;
        self.queue = VecDeque::new();
    }
}
