//! The control protocol: what a host and a shim say to each other over a Unix stream socket.
//!
//! Each message is a length (u32, of what follows), a code (u8) and fields. A host opens with [`Request::Launch`] on the
//! connection that the shim is started with, or with [`Request::Hello`] on any other. The shim answers, and tells every
//! connection of what happens to the execution. `Hello`, `Status`, `Stop` and their answers are frozen for ever: fields
//! are only ever appended. The rest is kept for one version back. No I/O here.

use std::fmt;

use uuid::Uuid;

use crate::execution::{
    EndCause, ExecFailure, ExitReport, FinalReport, Leftovers, OutputMode, Stdin,
};
use crate::id::{Epoch, ExecutionId, Nonce};
use crate::shim::journal::Started;
use crate::shim::wire::{Malformed, Reader, Wire, Writer};

/// The version of the protocol that this code speaks.
pub const PROTOCOL_VERSION: u16 = 1;
/// The most bytes of a launch message; the kernel refuses argument vectors far smaller.
pub const MAX_LAUNCH_BYTES: usize = 32 << 20;
/// The most bytes of any other message.
pub const MAX_MESSAGE_BYTES: usize = 2 << 20;
/// The most bytes of input that wait in a shim for the command to read them.
pub const MAX_WAITING_INPUT_BYTES: u64 = 1 << 20;
/// Length and code.
pub const PREFIX_BYTES: usize = 5;

/// How to start the command, and what it is bound to.
#[derive(Clone, PartialEq, Eq)]
pub struct Launch {
    /// Which execution.
    pub execution: ExecutionId,
    /// Which start; the journal must have the same.
    pub nonce: Nonce,
    /// The host's epoch.
    pub epoch: Epoch,
    /// Program and arguments; never empty, no NUL in them.
    pub argv: Vec<Vec<u8>>,
    /// The whole environment.
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
    /// The directory to run in, as an absolute path.
    pub cwd: Vec<u8>,
    /// Standard input.
    pub stdin: Stdin,
    /// Output.
    pub output: OutputMode,
    /// What happens to leftovers after a natural exit.
    pub leftovers: Leftovers,
    /// Total run time in milliseconds; `None` is none.
    pub total_ms: Option<u64>,
    /// Longest time without output in milliseconds; `None` is none.
    pub idle_ms: Option<u64>,
    /// From TERM to KILL when a deadline fires, in milliseconds.
    pub grace_ms: u64,
    /// Most payload bytes of log that are kept.
    pub log_cap_bytes: u64,
}

impl fmt::Debug for Launch {
    /// Prints names of variables, never their values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lossy = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
        f.debug_struct("Launch")
            .field("execution", &self.execution)
            .field("argv", &self.argv.iter().map(lossy).collect::<Vec<_>>())
            .field("env", &self.env.iter().map(|(name, _)| lossy(name)).collect::<Vec<_>>())
            .field("cwd", &lossy(&self.cwd))
            .finish_non_exhaustive()
    }
}

/// A request to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// The host's epoch.
    pub epoch: Epoch,
    /// Why; the first cause that was given counts.
    pub cause: EndCause,
    /// From TERM to KILL in milliseconds; 0 kills at once. The shortest that was given counts.
    pub grace_ms: u64,
    /// From an interrupt to TERM in milliseconds; 0 sends no interrupt.
    pub interrupt_ms: u64,
}

/// A message to standard input.
#[derive(Clone, PartialEq, Eq)]
pub struct Input {
    /// The host's epoch.
    pub epoch: Epoch,
    /// Its name.
    pub key: Uuid,
    /// Its place in the order, from 0.
    pub position: u64,
    /// Whether the log keeps its length only.
    pub secret: bool,
    /// Whether the stream is closed after it.
    pub close: bool,
    /// What to write.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Input #{} {} ({} bytes)", self.position, self.key, self.bytes.len())
    }
}

/// What a host says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Start the command. The first message of the connection that the shim is started with, and of no other.
    Launch(Box<Launch>),
    /// Here is a host. Answered by [`Notice::Welcome`], whatever the versions; to a lower epoch by
    /// [`Notice::Superseded`] as well.
    Hello {
        /// The version that the host speaks.
        version: u16,
        /// The host's epoch.
        epoch: Epoch,
    },
    /// Say [`Notice::Welcome`] again.
    Status,
    /// End the execution. Answered by [`Notice::StopTaken`] or [`Notice::Superseded`].
    Stop(Stop),
    /// Write to standard input. Answered by [`Notice::InputTaken`], [`Notice::InputRefused`] or
    /// [`Notice::Superseded`].
    Input(Input),
}

/// Where the execution is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The version that the shim speaks.
    pub version: u16,
    /// Which execution.
    pub execution: ExecutionId,
    /// Which start.
    pub nonce: Nonce,
    /// The highest epoch that the shim has heard of.
    pub epoch: Epoch,
    /// The shim's process number.
    pub shim_pid: u32,
    /// The command, once it runs.
    pub started: Option<Started>,
    /// Why it could not be started.
    pub exec_failed: Option<ExecFailure>,
    /// Why it is being ended.
    pub stopping: Option<EndCause>,
    /// The outcome, once it is known.
    pub exited: Option<ExitReport>,
    /// The end, once nothing will change any more.
    pub finished: Option<FinalReport>,
    /// The position of the next input message.
    pub next_input: u64,
}

/// Why a message to standard input was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputRefusal {
    /// Its position is not the next one.
    NotNext,
    /// Too much waits to be read.
    Full,
    /// There is no such stream, or it is closed.
    Closed,
}

/// What a shim says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The answer to a hello or status.
    Welcome(Box<Welcome>),
    /// The command runs.
    Started(Box<Started>),
    /// The command could not be started; durable. `Final` follows.
    ExecFailed(ExecFailure),
    /// The outcome is known and durable.
    Exited(ExitReport),
    /// Nothing will change any more; durable. The shim leaves.
    Final(Box<FinalReport>),
    /// A stop was accepted; if there was anything to stop, `Stopping` is durable.
    StopTaken,
    /// An input message is in the log and will be written, or was taken before.
    InputTaken {
        /// Its name.
        key: Uuid,
        /// Its position.
        position: u64,
    },
    /// An input message was not taken.
    InputRefused {
        /// Its name.
        key: Uuid,
        /// Its position.
        position: u64,
        /// Why.
        reason: InputRefusal,
        /// The position that is next.
        next: u64,
    },
    /// The request came from a lower epoch and was refused.
    Superseded {
        /// The highest epoch that the shim has heard of.
        epoch: Epoch,
    },
    /// The request is none that this version knows, or it cannot be read.
    Unsupported {
        /// Its code.
        code: u8,
    },
}

/// Why the front of a stream is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// It is longer than allowed, or has no code: the stream is of no use any more.
    Length,
    /// Nothing is known by this code; the next message may be.
    Code(u8),
    /// The fields are not what the code asks for; the next message may be readable.
    Fields(u8),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length => f.write_str("impossible length of a message"),
            Self::Code(code) => write!(f, "unknown message {code}"),
            Self::Fields(code) => write!(f, "malformed message {code}"),
        }
    }
}

impl std::error::Error for Unreadable {}

/// One message in a stream of bytes, not yet decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framed<'a> {
    /// Its code.
    pub code: u8,
    /// Its fields.
    pub fields: &'a [u8],
    /// How many bytes of the stream it is.
    pub len: usize,
}

/// Finds the message at the front of `stream`; `None` if it is not all there yet.
///
/// # Errors
///
/// [`Unreadable::Length`] if it is longer than `max_bytes` or empty.
pub fn split(stream: &[u8], max_bytes: usize) -> Result<Option<Framed<'_>>, Unreadable> {
    let from = &mut Reader::new(stream);
    let Ok(len) = from.u32() else { return Ok(None) };
    let len = usize::try_from(len).map_err(|_| Unreadable::Length)?;
    if len == 0 || len > max_bytes {
        return Err(Unreadable::Length);
    }
    match (from.raw(len), from.rest()) {
        (Ok([code, fields @ ..]), _) => Ok(Some(Framed { code: *code, fields, len: len + 4 })),
        (Ok([]) | Err(Malformed), _) => Ok(None),
    }
}

fn framed(code: u8, put: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut message = Writer::new();
    message.block(|fields| {
        fields.u8(code);
        put(fields);
    });
    message.into_bytes()
}

impl Request {
    /// Returns the message's bytes, length included.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Launch(launch) => framed(1, |to| launch.put(to)),
            Self::Hello { version, epoch } => framed(2, |to| {
                to.u16(*version);
                epoch.put(to);
            }),
            Self::Status => framed(3, |_| ()),
            Self::Stop(stop) => framed(4, |to| stop.put(to)),
            Self::Input(input) => framed(5, |to| input.put(to)),
        }
    }

    /// Reads a message.
    ///
    /// # Errors
    ///
    /// [`Unreadable::Code`] or [`Unreadable::Fields`].
    pub fn decode(message: Framed<'_>) -> Result<Self, Unreadable> {
        let from = &mut Reader::new(message.fields);
        let read = match message.code {
            1 => Launch::get(from).map(Box::new).map(Self::Launch),
            2 => Hello::get(from).map(|Hello(version, epoch)| Self::Hello { version, epoch }),
            3 => Ok(Self::Status),
            4 => Stop::get(from).map(Self::Stop),
            5 => Input::get(from).map(Self::Input),
            code @ (0 | 6..=u8::MAX) => return Err(Unreadable::Code(code)),
        };
        read.map_err(|Malformed| Unreadable::Fields(message.code))
    }
}

struct Hello(u16, Epoch);

impl Hello {
    fn get(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self(from.u16()?, Wire::get(from)?))
    }
}

impl Notice {
    /// Returns the message's bytes, length included.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Welcome(welcome) => framed(65, |to| welcome.put(to)),
            Self::Started(started) => framed(66, |to| started.put(to)),
            Self::ExecFailed(failure) => framed(67, |to| failure.put(to)),
            Self::Exited(report) => framed(68, |to| report.put(to)),
            Self::Final(report) => framed(69, |to| report.put(to)),
            Self::StopTaken => framed(70, |_| ()),
            Self::InputTaken { key, position } => framed(71, |to| {
                to.uuid(*key);
                to.u64(*position);
            }),
            Self::InputRefused { key, position, reason, next } => framed(72, |to| {
                to.uuid(*key);
                to.u64(*position);
                reason.put(to);
                to.u64(*next);
            }),
            Self::Superseded { epoch } => framed(73, |to| epoch.put(to)),
            Self::Unsupported { code } => framed(74, |to| to.u8(*code)),
        }
    }

    /// Reads a message.
    ///
    /// # Errors
    ///
    /// [`Unreadable::Code`] or [`Unreadable::Fields`].
    pub fn decode(message: Framed<'_>) -> Result<Self, Unreadable> {
        let from = &mut Reader::new(message.fields);
        let read = match message.code {
            65 => Wire::get(from).map(Box::new).map(Self::Welcome),
            66 => Wire::get(from).map(Box::new).map(Self::Started),
            67 => Wire::get(from).map(Self::ExecFailed),
            68 => Wire::get(from).map(Self::Exited),
            69 => Wire::get(from).map(Box::new).map(Self::Final),
            70 => Ok(Self::StopTaken),
            71 => Self::input_taken(from),
            72 => Self::input_refused(from),
            73 => Wire::get(from).map(|epoch| Self::Superseded { epoch }),
            74 => from.u8().map(|code| Self::Unsupported { code }),
            code @ (0..=64 | 75..=u8::MAX) => return Err(Unreadable::Code(code)),
        };
        read.map_err(|Malformed| Unreadable::Fields(message.code))
    }

    fn input_taken(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self::InputTaken { key: from.uuid()?, position: from.u64()? })
    }

    fn input_refused(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self::InputRefused {
            key: from.uuid()?,
            position: from.u64()?,
            reason: Wire::get(from)?,
            next: from.u64()?,
        })
    }
}

/// A variable as a wire value.
struct Variable(Vec<u8>, Vec<u8>);

impl Wire for Variable {
    fn put(&self, to: &mut Writer) {
        to.bytes(&self.0);
        to.bytes(&self.1);
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self(from.bytes()?.to_vec(), from.bytes()?.to_vec()))
    }
}

impl Wire for Launch {
    fn put(&self, to: &mut Writer) {
        self.execution.put(to);
        self.nonce.put(to);
        self.epoch.put(to);
        to.u32(u32::try_from(self.argv.len()).unwrap_or(u32::MAX));
        for argument in &self.argv {
            to.bytes(argument);
        }
        to.u32(u32::try_from(self.env.len()).unwrap_or(u32::MAX));
        for (name, value) in &self.env {
            to.bytes(name);
            to.bytes(value);
        }
        to.bytes(&self.cwd);
        self.stdin.put(to);
        self.output.put(to);
        self.leftovers.put(to);
        to.option(self.total_ms.as_ref(), |ms, to| to.u64(*ms));
        to.option(self.idle_ms.as_ref(), |ms, to| to.u64(*ms));
        to.u64(self.grace_ms);
        to.u64(self.log_cap_bytes);
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let execution = Wire::get(from)?;
        let nonce = Wire::get(from)?;
        let epoch = Wire::get(from)?;
        let arguments = from.u32()?;
        let argv =
            (0..arguments).map(|_| from.bytes().map(<[u8]>::to_vec)).collect::<Result<_, _>>()?;
        let variables = from.u32()?;
        let env = (0..variables)
            .map(|_| Variable::get(from).map(|Variable(name, value)| (name, value)))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            execution,
            nonce,
            epoch,
            argv,
            env,
            cwd: from.bytes()?.to_vec(),
            stdin: Wire::get(from)?,
            output: Wire::get(from)?,
            leftovers: Wire::get(from)?,
            total_ms: from.option(Reader::u64)?,
            idle_ms: from.option(Reader::u64)?,
            grace_ms: from.u64()?,
            log_cap_bytes: from.u64()?,
        })
    }
}

impl Wire for Stop {
    fn put(&self, to: &mut Writer) {
        self.epoch.put(to);
        to.value(&self.cause);
        to.u64(self.grace_ms);
        to.u64(self.interrupt_ms);
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            epoch: Wire::get(from)?,
            cause: from.value()?,
            grace_ms: from.u64()?,
            interrupt_ms: from.u64()?,
        })
    }
}

impl Wire for Input {
    fn put(&self, to: &mut Writer) {
        self.epoch.put(to);
        to.uuid(self.key);
        to.u64(self.position);
        to.bool(self.secret);
        to.bool(self.close);
        to.bytes(&self.bytes);
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            epoch: Wire::get(from)?,
            key: from.uuid()?,
            position: from.u64()?,
            secret: from.bool()?,
            close: from.bool()?,
            bytes: from.bytes()?.to_vec(),
        })
    }
}

impl Wire for InputRefusal {
    fn put(&self, to: &mut Writer) {
        to.u8(match self {
            Self::NotNext => 1,
            Self::Full => 2,
            Self::Closed => 3,
        });
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match from.u8()? {
            1 => Ok(Self::NotNext),
            2 => Ok(Self::Full),
            3 => Ok(Self::Closed),
            0 | 4..=u8::MAX => Err(Malformed),
        }
    }
}

impl Wire for Welcome {
    fn put(&self, to: &mut Writer) {
        to.u16(self.version);
        self.execution.put(to);
        self.nonce.put(to);
        self.epoch.put(to);
        to.u32(self.shim_pid);
        to.option(self.started.as_ref(), |value, to| to.value(value));
        to.option(self.exec_failed.as_ref(), |value, to| to.value(value));
        to.option(self.stopping.as_ref(), |value, to| to.value(value));
        to.option(self.exited.as_ref(), |value, to| to.value(value));
        to.option(self.finished.as_ref(), |value, to| to.value(value));
        to.u64(self.next_input);
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            version: from.u16()?,
            execution: Wire::get(from)?,
            nonce: Wire::get(from)?,
            epoch: Wire::get(from)?,
            shim_pid: from.u32()?,
            started: from.option(Reader::value)?,
            exec_failed: from.option(Reader::value)?,
            stopping: from.option(Reader::value)?,
            exited: from.option(Reader::value)?,
            finished: from.option(Reader::value)?,
            next_input: from.u64()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execution::{ExecStep, ResourceUse};
    use crate::outcome::{CompletedBy, Exit, NotStarted, Outcome, StoppedBy};
    use crate::time::Timestamp;

    fn launch() -> Launch {
        Launch {
            execution: ExecutionId(Uuid::from_u128(1)),
            nonce: Nonce(Uuid::from_u128(2)),
            epoch: Epoch(3),
            argv: vec![b"sh".to_vec(), vec![0xff, 0xfe], Vec::new()],
            env: vec![(b"PATH".to_vec(), b"/bin".to_vec()), (b"X".to_vec(), vec![0x80; 3 << 20])],
            cwd: b"/tmp/\xff".to_vec(),
            stdin: Stdin::Messages,
            output: OutputMode::Merged,
            leftovers: Leftovers::Leave,
            total_ms: Some(1),
            idle_ms: None,
            grace_ms: 5_000,
            log_cap_bytes: 1 << 30,
        }
    }

    fn requests() -> Vec<Request> {
        let epoch = Epoch(u64::MAX);
        let cause = EndCause::Completed { by: CompletedBy::Turn };
        let (key, bytes) = (Uuid::from_u128(9), b"hello\n".to_vec());
        vec![
            Request::Launch(Box::new(launch())),
            Request::Hello { version: 1, epoch },
            Request::Status,
            Request::Stop(Stop { epoch, cause, grace_ms: 0, interrupt_ms: 100 }),
            Request::Input(Input { epoch, key, position: 4, secret: true, close: false, bytes }),
        ]
    }

    fn notices() -> Vec<Notice> {
        let failure = ExecFailure {
            step: ExecStep::Exec,
            errno: 13,
            reason: NotStarted::NotExecutable,
            at: Timestamp(5),
        };
        let exited = ExitReport {
            outcome: Outcome::Stopped { by: StoppedBy::Host },
            exit: Some(Exit::Signal(9)),
            at: Timestamp(7),
            usage: ResourceUse::default(),
            out_of_memory: true,
        };
        let finished = FinalReport {
            exit: exited.clone(),
            last_seq: 1,
            bytes: 2,
            dropped_bytes: 3,
            output_incomplete: true,
            survivors: Vec::new(),
            more_survivors: 0,
        };
        let key = Uuid::from_u128(9);
        vec![
            Notice::Welcome(Box::new(Welcome {
                version: 1,
                execution: ExecutionId(Uuid::from_u128(1)),
                nonce: Nonce(Uuid::from_u128(2)),
                epoch: Epoch(3),
                shim_pid: 4,
                started: None,
                exec_failed: Some(failure),
                stopping: Some(EndCause::Stopped { by: StoppedBy::User }),
                exited: Some(exited.clone()),
                finished: Some(finished.clone()),
                next_input: 6,
            })),
            Notice::ExecFailed(failure),
            Notice::Exited(exited),
            Notice::Final(Box::new(finished)),
            Notice::StopTaken,
            Notice::InputTaken { key, position: 1 },
            Notice::InputRefused { key, position: 1, reason: InputRefusal::Full, next: 1 },
            Notice::Superseded { epoch: Epoch(8) },
            Notice::Unsupported { code: 200 },
        ]
    }

    #[test]
    fn every_message_is_read_back_and_no_part_of_one_is() {
        for request in requests() {
            let bytes = request.encode();
            let whole = split(&bytes, MAX_LAUNCH_BYTES).unwrap().unwrap();
            assert_eq!(whole.len, bytes.len());
            assert_eq!(Request::decode(whole), Ok(request));
            for cut in (0..bytes.len()).take(64).chain([bytes.len() - 1]) {
                assert_eq!(split(&bytes[..cut], MAX_LAUNCH_BYTES), Ok(None));
            }
        }
        for notice in notices() {
            let bytes = notice.encode();
            let whole = split(&bytes, MAX_MESSAGE_BYTES).unwrap().unwrap();
            assert_eq!(Notice::decode(whole), Ok(notice));
        }
    }

    #[test]
    fn fields_of_a_newer_version_are_ignored() {
        for request in requests() {
            let mut bytes = request.encode();
            bytes.extend(b"from the future");
            let len = u32::try_from(bytes.len() - 4).unwrap();
            bytes[..4].copy_from_slice(&len.to_le_bytes());
            let whole = split(&bytes, MAX_LAUNCH_BYTES).unwrap().unwrap();
            assert_eq!(Request::decode(whole), Ok(request));
        }
    }

    #[test]
    fn a_message_that_is_too_long_is_refused_before_it_is_there() {
        let bytes = u32::MAX.to_le_bytes();
        assert_eq!(split(&bytes, MAX_MESSAGE_BYTES), Err(Unreadable::Length));
        assert_eq!(split(&[0; 5], MAX_MESSAGE_BYTES), Err(Unreadable::Length));
        let unknown = framed(99, |_| ());
        let whole = split(&unknown, 9).unwrap().unwrap();
        assert_eq!(Request::decode(whole), Err(Unreadable::Code(99)));
        assert_eq!(Notice::decode(whole), Err(Unreadable::Code(99)));
        let short = framed(4, |to| to.u8(1));
        let whole = split(&short, 9).unwrap().unwrap();
        assert_eq!(Request::decode(whole), Err(Unreadable::Fields(4)));
    }

    /// The frozen messages, byte by byte: this test never changes.
    #[test]
    fn hello_status_and_stop_are_frozen() {
        let hello = Request::Hello { version: 1, epoch: Epoch(2) };
        assert_eq!(hello.encode(), [11, 0, 0, 0, 2, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Request::Status.encode(), [1, 0, 0, 0, 3]);
        let stop = Request::Stop(Stop {
            epoch: Epoch(2),
            cause: EndCause::Stopped { by: StoppedBy::User },
            grace_ms: 5,
            interrupt_ms: 0,
        });
        let mut expected = vec![31, 0, 0, 0, 4];
        expected.extend([2, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([2, 0, 0, 0, 1, 1]);
        expected.extend([5, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([0; 8]);
        assert_eq!(stop.encode(), expected);
    }
}
