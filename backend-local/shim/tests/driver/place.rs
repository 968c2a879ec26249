//! A place in a temporary directory, and a host of a few lines.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use uuid::Uuid;
use windlass_core::execution::{
    EndCause, ExecFailure, ExitReport, FinalReport, Leftovers, OutputMode, Stdin,
};
use windlass_core::id::{Epoch, ExecutionId, Nonce};
use windlass_core::outcome::StoppedBy;
use windlass_core::shim::frame::{
    Decoded, Frame, Gap, SEGMENT_HEADER_BYTES, SegmentHeader, Stream, decode, decode_seal,
    segment_file, segment_index,
};
use windlass_core::shim::journal::{self, Header, Journal, Record, Started, Verdict};
use windlass_core::shim::message::{
    self, Input, Launch, MAX_LAUNCH_BYTES, Notice, Request, Stop, Welcome,
};
use windlass_shim::{CONTROL_SOCKET, JOURNAL_FILE, LOCK_FILE, SHIM_MARK, STDERR_FILE};

/// How long a notice may take before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(30);

/// A place, with the journal that a host makes.
pub(crate) struct Place {
    directory: tempfile::TempDir,
}

/// A launch that runs `script` in a shell.
pub(crate) fn script(script: &str) -> Launch {
    command(&["/bin/sh", "-c", script])
}

/// A launch that runs a command.
pub(crate) fn command(argv: &[&str]) -> Launch {
    Launch {
        execution: ExecutionId(Uuid::from_u128(0xe)),
        nonce: Nonce(Uuid::from_u128(0xa)),
        epoch: Epoch(3),
        argv: argv.iter().map(|argument| argument.as_bytes().to_vec()).collect(),
        env: vec![(b"PATH".to_vec(), b"/usr/bin:/bin".to_vec())],
        cwd: b"/".to_vec(),
        stdin: Stdin::Null,
        output: OutputMode::Separate,
        leftovers: Leftovers::Stop,
        total_ms: None,
        idle_ms: None,
        grace_ms: 5_000,
        log_cap_bytes: 1 << 30,
    }
}

impl Place {
    pub(crate) fn new() -> Self {
        Self::under(&std::env::temp_dir())
    }

    pub(crate) fn under(root: &std::path::Path) -> Self {
        let directory = tempfile::tempdir_in(root).unwrap();
        let launch = command(&["unused"]);
        let header = Header {
            execution: launch.execution,
            nonce: launch.nonce,
            machine: b"a machine".to_vec(),
            inode: 0,
        };
        fs::write(directory.path().join(JOURNAL_FILE), header.encode()).unwrap();
        let place = Self { directory };
        place.make_fifo("ready");
        place
    }

    /// Makes a named pipe and returns its path.
    pub(crate) fn make_fifo(&self, name: &str) -> String {
        let path = self.path(name);
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        path.into_os_string().into_string().unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn scratch(&self) -> String {
        self.path("scratch").into_os_string().into_string().unwrap()
    }

    /// Starts a shim and gives it the launch. Its script may say that it is ready by `echo >$READY`.
    pub(crate) fn launch(&self, mut launch: Launch) -> Host<'_> {
        let mut host = self.start(Stdio::null());
        let ready = self.path("ready").into_os_string().into_encoded_bytes();
        launch.env.push((b"READY".to_vec(), ready));
        host.say(&Request::Launch(Box::new(launch)));
        host
    }

    /// Starts a shim that waits for its launch.
    pub(crate) fn start(&self, stdout: Stdio) -> Host<'_> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        let stderr = File::options().append(true).create(true).open(self.path(STDERR_FILE));
        let shim = Command::new(shim())
            .args([SHIM_MARK, "driven by a test"])
            .current_dir(self.directory.path())
            .stdin(OwnedFd::from(theirs))
            .stdout(stdout)
            .stderr(stderr.unwrap())
            .spawn()
            .unwrap();
        Host { place: self, shim, socket: ours, received: Vec::new(), seen: Vec::new() }
    }

    pub(crate) fn journal(&self) -> Journal {
        match journal::read(&fs::read(self.path(JOURNAL_FILE)).unwrap()) {
            Verdict::Readable(journal) => journal,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until no shim holds the place any more.
    pub(crate) fn wait_for_lock(&self) {
        File::open(self.path(LOCK_FILE)).unwrap().lock().unwrap();
    }

    /// Connects as another host would.
    pub(crate) fn connect(&self) -> UnixStream {
        let socket = UnixStream::connect(self.path(CONTROL_SOCKET)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    /// Reads the whole log: segment headers and, in order, what lies in the segments.
    pub(crate) fn log(&self) -> Vec<(SegmentHeader, Vec<Item>)> {
        let (segments, sealed) = self.log_so_far();
        assert!(sealed, "the last segment is not sealed");
        segments
    }

    /// Reads what there is of the log, and whether it is sealed.
    pub(crate) fn log_so_far(&self) -> (Vec<(SegmentHeader, Vec<Item>)>, bool) {
        let names = fs::read_dir(self.directory.path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut indices = names.filter_map(|name| segment_index(&name)).collect::<Vec<_>>();
        indices.sort_unstable();
        let mut segments = Vec::new();
        let mut sealed = true;
        for index in indices {
            assert!(sealed, "a segment behind one that is not sealed");
            let file = fs::read(self.path(&segment_file(index))).unwrap();
            let header = SegmentHeader::decode(&file).unwrap();
            assert_eq!(header.index, index);
            let (mut items, mut at) = (Vec::new(), SEGMENT_HEADER_BYTES);
            sealed = false;
            while at < file.len() {
                assert!(!sealed, "something behind a seal");
                let Decoded::Frame { frame, len } = decode(&file[at..]) else {
                    panic!("{:?} at {at} of {index}", decode(&file[at..]))
                };
                at += len;
                match frame {
                    Frame::Entry { seq, stream, partial, bytes, len, .. } => {
                        let bytes = bytes.to_vec();
                        items.push(Item::Entry { seq, stream, partial, bytes, len });
                    }
                    Frame::Gap { gap, .. } => items.push(Item::Gap(gap)),
                    Frame::Seal(seal) => {
                        assert_eq!(Some(seal), decode_seal(&file));
                        sealed = true;
                    }
                }
            }
            segments.push((header, items));
        }
        (segments, sealed)
    }

    /// Returns the entries of a stream, joined, after checking that the numbers of the log have no hole.
    pub(crate) fn stream(&self, wanted: Stream) -> Vec<u8> {
        let mut next = 1;
        let mut joined = Vec::new();
        for item in self.log().into_iter().flat_map(|(_, items)| items) {
            match item {
                Item::Entry { seq, stream, bytes, .. } => {
                    assert_eq!(seq, next);
                    next += 1;
                    if stream == wanted {
                        joined.extend(bytes);
                    }
                }
                Item::Gap(gap) => panic!("{gap:?}"),
            }
        }
        joined
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8(self.stream(Stream::Stdout)).unwrap()
    }

    pub(crate) fn said(&self) -> String {
        fs::read_to_string(self.path(STDERR_FILE)).unwrap()
    }
}

/// What lies in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Entry { seq: u64, stream: Stream, partial: bool, bytes: Vec<u8>, len: u64 },
    Gap(Gap),
}

/// The connection of a host, and the shim if this host started it.
pub(crate) struct Host<'a> {
    place: &'a Place,
    shim: Child,
    socket: UnixStream,
    received: Vec<u8>,
    seen: Vec<Notice>,
}

/// Finds the example, beside the directory that the test binary is in.
fn shim() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let shim = own.parent().unwrap().parent().unwrap().join("examples/own_shim");
    assert!(shim.exists(), "build the examples too: {}", shim.display());
    shim
}

pub(crate) fn say(socket: &mut UnixStream, request: &Request) {
    socket.write_all(&request.encode()).unwrap();
}

/// Waits for the next notice on a connection; `None` is its end.
pub(crate) fn hear(socket: &mut UnixStream, received: &mut Vec<u8>) -> Option<Notice> {
    loop {
        if let Some(framed) = message::split(received, MAX_LAUNCH_BYTES).unwrap() {
            let notice = Notice::decode(framed).unwrap();
            received.drain(..framed.len);
            return Some(notice);
        }
        let mut chunk = [0; 4096];
        match socket.read(&mut chunk) {
            Ok(0) => return None,
            Ok(len) => received.extend_from_slice(&chunk[..len]),
            // A read with a time limit is interrupted when the machine is frozen and goes on.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
            Err(error) => panic!("nothing was heard: {error}"),
        }
    }
}

impl Host<'_> {
    pub(crate) fn say(&mut self, request: &Request) {
        say(&mut self.socket, request);
    }

    /// Says a part of a message.
    pub(crate) fn mutter(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    pub(crate) fn hear(&mut self) -> Option<Notice> {
        let notice = hear(&mut self.socket, &mut self.received);
        self.seen.extend(notice.clone());
        notice
    }

    /// Waits for a notice that `pick` takes.
    #[track_caller]
    pub(crate) fn expect<T>(&mut self, pick: impl Fn(Notice) -> Option<T>) -> T {
        while let Some(notice) = self.hear() {
            if let Some(picked) = pick(notice) {
                return picked;
            }
        }
        panic!("the shim left; it had said {:?} and {:?}", self.seen, self.place.said());
    }

    #[track_caller]
    pub(crate) fn started(&mut self) -> Started {
        self.expect(
            |notice| if let Notice::Started(started) = notice { Some(*started) } else { None },
        )
    }

    #[track_caller]
    pub(crate) fn exited(&mut self) -> ExitReport {
        self.expect(|notice| if let Notice::Exited(report) = notice { Some(report) } else { None })
    }

    #[track_caller]
    pub(crate) fn exec_failed(&mut self) -> ExecFailure {
        self.expect(|notice| if let Notice::ExecFailed(it) = notice { Some(it) } else { None })
    }

    #[track_caller]
    pub(crate) fn welcome(&mut self) -> Welcome {
        self.expect(
            |notice| if let Notice::Welcome(welcome) = notice { Some(*welcome) } else { None },
        )
    }

    /// Waits for the end, and compares what was said of it with what was recorded.
    #[track_caller]
    pub(crate) fn finished(&mut self) -> FinalReport {
        let said = self
            .expect(|notice| if let Notice::Final(report) = notice { Some(*report) } else { None });
        assert!(self.left().success(), "{}", self.place.said());
        assert_eq!(
            self.place.journal().records.last(),
            Some(&Record::Final(Box::new(said.clone())))
        );
        said
    }

    /// Waits until the shim is gone.
    pub(crate) fn left(&mut self) -> ExitStatus {
        self.shim.wait().unwrap()
    }

    pub(crate) fn stop(&mut self, grace_ms: u64) {
        self.say(&stop(3, grace_ms));
    }

    pub(crate) fn feed(&mut self, position: u64, bytes: &[u8], secret: bool, close: bool) {
        self.say(&Request::Input(Input {
            epoch: Epoch(3),
            key: Uuid::from_u128(u128::from(position)),
            position,
            secret,
            close,
            bytes: bytes.to_vec(),
        }));
    }

    /// Asks for a stop that begins with an interrupt.
    pub(crate) fn interrupt(&mut self, interrupt_ms: u64) {
        let cause = EndCause::Stopped { by: StoppedBy::User };
        self.say(&Request::Stop(Stop { epoch: Epoch(3), cause, grace_ms: 0, interrupt_ms }));
    }

    /// Waits until the script says that it is ready.
    #[track_caller]
    pub(crate) fn ready(&mut self) {
        let fifo = self.place.path("ready");
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || sender.send(fs::read(fifo)));
        let Ok(said) = receiver.recv_timeout(PATIENCE) else {
            panic!("never ready; the shim said {:?}", self.place.said())
        };
        assert_eq!(said.unwrap(), b"\n");
    }

    /// Says no more.
    pub(crate) fn hang_up(&mut self) {
        self.socket.shutdown(std::net::Shutdown::Both).unwrap();
    }

    /// Closes the connection and forgets the shim, as a host does that dies.
    pub(crate) fn die(mut self) {
        let (unconnected, _) = UnixStream::pair().unwrap();
        self.socket = unconnected;
        // The lock tells when it is gone; a test that fails before that must not leave it.
        std::mem::forget(self);
    }
}

pub(crate) fn stop(epoch: u64, grace_ms: u64) -> Request {
    let cause = EndCause::Stopped { by: StoppedBy::User };
    Request::Stop(Stop { epoch: Epoch(epoch), cause, grace_ms, interrupt_ms: 0 })
}

impl Drop for Host<'_> {
    /// Leaves nothing behind, whatever a test thought of it.
    fn drop(&mut self) {
        if matches!(self.shim.try_wait(), Ok(None)) {
            let _ = self.socket.write_all(&stop(u64::MAX, 0).encode());
            let _ = self.socket.shutdown(std::net::Shutdown::Write);
            let mut rest = Vec::new();
            let _ = self.socket.read_to_end(&mut rest);
            let _ = self.shim.wait();
        }
    }
}

/// Says whether a process lives, zombies aside.
pub(crate) fn alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().starts_with(" Z"))
}

/// Reads the process numbers that a script wrote into a file, one a line.
pub(crate) fn pids(path: &str) -> Vec<u32> {
    fs::read_to_string(path).unwrap().lines().map(|line| line.parse().unwrap()).collect()
}

/// Sends a signal, by its name without `SIG`.
pub(crate) fn signal(pid: u32, name: &str) {
    let kill = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status();
    assert!(kill.unwrap().success());
}
