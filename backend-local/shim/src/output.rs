//! The pipes that the command writes into, on their way to the log.

use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd};

use windlass_core::shim::cutter::Cutter;
use windlass_core::shim::frame::{FrameTime, Stream};

use crate::log::Log;
use crate::sys;

/// How many reads one pipe gets before others are looked at.
const READS_AT_ONCE: usize = 16;

#[derive(Debug)]
struct Output {
    pipe: Option<PipeReader>,
    stream: Stream,
    cutter: Cutter,
}

/// What one read did.
enum Outcome {
    Bytes(usize),
    Empty,
    End,
}

/// The output pipes, and the one buffer that they share: what is read is written before anything else is read.
#[derive(Debug)]
pub(crate) struct Outputs {
    outputs: Vec<Output>,
    buffer: Vec<u8>,
}

impl Outputs {
    /// Returns no pipes, with a buffer for entries of this size.
    pub(crate) fn new(entry_bytes: usize) -> Self {
        Self { outputs: Vec::new(), buffer: vec![0; entry_bytes] }
    }

    /// Takes a child's pipes over.
    pub(crate) fn take(&mut self, stdout: PipeReader, stderr: Option<PipeReader>) {
        self.outputs.push(Output::new(stdout, Stream::Stdout));
        self.outputs.extend(stderr.map(|pipe| Output::new(pipe, Stream::Stderr)));
    }

    /// Lists the open pipes, for polling, by the index that [`read`](Self::read) takes.
    pub(crate) fn open(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        self.outputs
            .iter()
            .enumerate()
            .filter_map(|(index, output)| Some((index, output.pipe.as_ref()?.as_fd())))
    }

    /// Says whether anybody may still write into any of them.
    pub(crate) fn any_open(&self) -> bool {
        self.outputs.iter().any(|output| output.pipe.is_some())
    }

    /// Returns when held bytes must be given up, in milliseconds since the boot.
    pub(crate) fn due_ms(&self) -> Option<u64> {
        self.outputs.iter().filter_map(|output| output.cutter.due_ms()).min()
    }

    /// Logs what was held for too long.
    pub(crate) fn release_due(&mut self, now_ms: u64, log: &mut Log) {
        for output in &mut self.outputs {
            if output.cutter.due_ms().is_some_and(|due_ms| due_ms <= now_ms) {
                output.release(sys::frame_time(), log);
            }
        }
    }

    /// Logs what a ready pipe holds, within bounds; returns whether it held anything.
    pub(crate) fn read(&mut self, index: usize, log: &mut Log) -> bool {
        let Some(output) = self.outputs.get_mut(index) else { return false };
        let mut any = false;
        for _ in 0..READS_AT_ONCE {
            match output.read(&mut self.buffer, log) {
                Outcome::Bytes(_) => any = true,
                Outcome::Empty | Outcome::End => break,
            }
        }
        any
    }

    /// Logs what the pipes hold right now, and what was held back of it; never waits, and never follows a writer that
    /// goes on.
    pub(crate) fn drain(&mut self, log: &mut Log) {
        for output in &mut self.outputs {
            let Some(pipe) = &output.pipe else { continue };
            let mut waiting = sys::bytes_waiting(pipe.as_fd()).unwrap_or(0);
            // One read more than there are bytes tells whether the pipe is at its end.
            loop {
                match output.read(&mut self.buffer, log) {
                    Outcome::Bytes(len) if len <= waiting => waiting -= len,
                    Outcome::Bytes(_) | Outcome::Empty | Outcome::End => break,
                }
            }
            output.release(sys::frame_time(), log);
        }
    }
}

impl Output {
    fn new(pipe: PipeReader, stream: Stream) -> Self {
        Self { pipe: Some(pipe), stream, cutter: Cutter::default() }
    }

    fn read(&mut self, buffer: &mut [u8], log: &mut Log) -> Outcome {
        let Some(pipe) = &mut self.pipe else { return Outcome::End };
        let held = self.cutter.held().len();
        let (front, rest) = buffer.split_at_mut(held);
        front.copy_from_slice(self.cutter.held());
        match pipe.read(rest) {
            Ok(0) => {
                self.pipe = None;
                self.release(sys::frame_time(), log);
                Outcome::End
            }
            Ok(len) => {
                let time = sys::frame_time();
                let data = &buffer[..held + len];
                let cut = self.cutter.cut(data, time.boot_ns / 1_000_000);
                let (lines, rest) = data[..cut.lines + cut.rest].split_at(cut.lines);
                if !lines.is_empty() {
                    log.entry(time, self.stream, false, lines);
                }
                if !rest.is_empty() {
                    log.entry(time, self.stream, true, rest);
                }
                Outcome::Bytes(len)
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Outcome::Empty,
                _ => {
                    say!("output cannot be read: {error}");
                    self.pipe = None;
                    Outcome::End
                }
            },
        }
    }

    fn release(&mut self, time: FrameTime, log: &mut Log) {
        let (held, len) = self.cutter.release();
        if len > 0 {
            log.entry(time, self.stream, true, &held[..len]);
        }
    }
}
