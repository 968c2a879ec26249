//! The pipes between a command and its shim, both ways.

use std::collections::VecDeque;

use bytes::Bytes;
use windlass_core::action::OutputMode;
use windlass_core::log_store::Stream;
use windlass_core::shim::cutter::Cutter;

use super::State;
use super::happened::Happened;
use super::kernel::Role;
use super::task::Written;

/// How much an output pipe holds.
const OUTPUT_BYTES: usize = 1 << 20;
/// How much an input pipe holds.
const INPUT_BYTES: usize = 64 << 10;

/// Bytes on their way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pipe {
    pieces: VecDeque<Bytes>,
    len: usize,
}

impl Pipe {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn put(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.len += bytes.len();
            self.pieces.push_back(bytes);
        }
    }

    /// Takes at most so many bytes, as one read does.
    pub(crate) fn take(&mut self, at_most: usize) -> Bytes {
        let first = self.pieces.front().map_or(0, Bytes::len);
        if first >= self.len.min(at_most) {
            // The common case copies nothing.
            let Some(piece) = self.pieces.front_mut() else { return Bytes::new() };
            let taken = piece.split_to(first.min(at_most));
            if piece.is_empty() {
                self.pieces.pop_front();
            }
            self.len -= taken.len();
            return taken;
        }
        let mut taken = Vec::with_capacity(self.len.min(at_most));
        while let Some(piece) = self.pieces.front_mut() {
            let more = piece.len().min(at_most - taken.len());
            taken.extend_from_slice(&piece.split_to(more));
            if !piece.is_empty() {
                break;
            }
            self.pieces.pop_front();
        }
        self.len -= taken.len();
        taken.into()
    }
}

/// The reading end of what a command writes.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    pub(crate) stream: Stream,
    pub(crate) pipe: Pipe,
    /// The end was not read yet.
    pub(crate) open: bool,
    pub(crate) cutter: Cutter,
}

impl Output {
    fn new(stream: Stream) -> Self {
        Self { stream, pipe: Pipe::default(), open: true, cutter: Cutter::default() }
    }

    /// Returns the pipes of a command.
    pub(crate) fn pipes(mode: OutputMode) -> Vec<Self> {
        match mode {
            OutputMode::Separate => vec![Self::new(Stream::Stdout), Self::new(Stream::Stderr)],
            OutputMode::Merged => vec![Self::new(Stream::Stdout)],
        }
    }
}

/// The writing end of what a command reads, and what waits for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct StdinPipe {
    /// There is a pipe, and we hold it open.
    open: bool,
    pipe: Pipe,
    queue: Pipe,
    close: bool,
}

impl StdinPipe {
    pub(crate) fn open(&mut self) {
        self.open = true;
    }

    pub(crate) fn queue(&mut self, bytes: Vec<u8>, close: bool) {
        self.queue.put(bytes.into());
        self.close |= close;
    }

    /// Closes the pipe and forgets what was not written. What is in the pipe can still be read.
    pub(crate) fn close(&mut self) {
        self.open = false;
        self.queue = Pipe::default();
    }

    /// Says whether there is anything to do: bytes that fit, or an end to be told.
    pub(crate) fn is_ready(&self) -> bool {
        let has_room = self.queue.len > 0 && self.pipe.len < INPUT_BYTES;
        self.open && (has_room || (self.close && self.queue.len == 0))
    }

    /// Writes what the pipe takes; returns how much that was, and whether the pipe is closed now.
    pub(crate) fn write(&mut self) -> (u64, bool) {
        if !self.open {
            return (0, false);
        }
        let mut written = 0;
        while self.queue.len > 0 && self.pipe.len < INPUT_BYTES {
            let bytes = self.queue.take(INPUT_BYTES - self.pipe.len);
            written += bytes.len() as u64;
            self.pipe.put(bytes);
        }
        let ended = self.close && self.queue.len == 0;
        if ended {
            self.close();
        }
        (written, ended)
    }
}

impl State {
    /// Writes into a pipe of a command; the reader is its shim, if that lives.
    pub(crate) fn write_pipe(&mut self, pid: u32, stream: Stream, bytes: &Bytes) -> Written {
        let Some(process) = self.kernel.processes.get(&pid) else { return Written::Broken };
        let (Some(start), name) = (process.start, process.name) else { return Written::Broken };
        let Some(reader) = self.shim_of(start) else { return Written::Broken };
        let Some(shim) = self.shim(reader) else { return Written::Broken };
        // Where both are one pipe, it is the first.
        let index = shim.outputs.iter().position(|output| output.stream == stream).unwrap_or(0);
        let Some(output) = shim.outputs.get_mut(index).filter(|output| output.open) else {
            return Written::Broken;
        };
        let stream = output.stream;
        let taken = bytes.slice(..bytes.len().min(OUTPUT_BYTES.saturating_sub(output.pipe.len)));
        let len = taken.len();
        output.pipe.put(taken.clone());
        if len > 0 {
            self.note(|| Happened::Wrote { start, process: name, stream, bytes: taken });
            self.kernel.wake(reader);
        }
        Written::Taken(len)
    }

    /// Returns what the input of a process holds, and whether that is all there will be; `None` if it has no input.
    pub(crate) fn peek_input(&mut self, pid: u32) -> Option<(Bytes, bool)> {
        let start = self.kernel.processes.get(&pid)?.start?;
        let reader = self.shim_of(start)?;
        let stdin = &mut self.shim(reader)?.stdin;
        let ended = !stdin.open;
        let all = stdin.pipe.take(usize::MAX);
        stdin.pipe.put(all.clone());
        Some((all, ended))
    }

    /// Takes bytes off the input of a process; its shim may have more.
    pub(crate) fn take_input(&mut self, pid: u32, len: usize) {
        let start = self.kernel.processes.get(&pid).and_then(|process| process.start);
        let Some(reader) = start.and_then(|start| self.shim_of(start)) else { return };
        if let Some(shim) = self.shim(reader) {
            let _taken = shim.stdin.pipe.take(len);
            self.kernel.wake(reader);
        }
    }

    /// Wakes those of a start who wait for room in a pipe.
    pub(crate) fn wake_writers(&mut self, reader: u32) {
        let Some(start) = self.kernel.processes.get(&reader).and_then(|shim| shim.start) else {
            return;
        };
        let tasks: Vec<u32> = self
            .kernel
            .members(start)
            .filter(|process| matches!(&process.role, Role::Task(task) if task.waits_for_pipe()))
            .map(|process| process.name.pid)
            .collect();
        tasks.into_iter().for_each(|pid| self.kernel.wake(pid));
    }
}
