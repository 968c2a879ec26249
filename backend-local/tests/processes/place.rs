//! A data directory of a test, its scripts, and what a test can see of them beside the service.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tempfile::TempDir;
use windlass_conformance::container_service::{ContainerServicePlace, Script};
use windlass_conformance::input::{InputPlace, Ports};
use windlass_core::action::{Leftovers, OutputMode, Stdin};
use windlass_core::container_service::{ContainerService, LaunchSpec, Place};
use windlass_core::id::ExecutionId;
use windlass_core::locator::{Locator, OsBytes};
use windlass_core::log_store::{LogItem, LogKey, LogStore as _, LogStoreExt as _, Seq, Stream};
use windlass_core::shim::journal::{self, Journal};
use windlass_local::{FileLogs, LocalContainers, LocalOptions, OpenFiles, Provenance, ShimChoice};

/// The longest that a script runs when a test fails to stop it.
const FOREVER: &str = "600";

/// One data directory.
#[derive(Debug)]
pub(crate) struct Local {
    home: TempDir,
    /// One for all readers: a user has few inotify instances.
    logs: OnceLock<Arc<FileLogs>>,
}

impl Default for Local {
    fn default() -> Self {
        Self { home: tempfile::tempdir().unwrap(), logs: OnceLock::new() }
    }
}

impl Local {
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    pub(crate) fn runs(&self) -> PathBuf {
        self.home().join("runs")
    }

    pub(crate) fn options(&self) -> LocalOptions {
        LocalOptions {
            runs_dir: self.runs(),
            shim: ShimChoice::Path(env!("CARGO_BIN_EXE_windlass-shim-of-local-tests").into()),
            disk_floor_bytes: 0,
            orphan_grace: Duration::from_millis(100),
            provenance: Provenance::InPlace,
            open_files: OpenFiles::Keep,
        }
    }

    pub(crate) fn open(&self) -> Arc<LocalContainers> {
        LocalContainers::open(self.options()).unwrap()
    }

    fn fifo(&self, execution: ExecutionId) -> PathBuf {
        self.home().join(format!("{execution}.fifo"))
    }

    /// Says how to run a shell script, with positional parameters.
    pub(crate) fn shell(&self, script: &str, parameters: &[&str]) -> LaunchSpec {
        let mut argv = vec!["sh".into(), "-c".into(), script.into(), "sh".into()];
        argv.extend(parameters.iter().map(|parameter| OsBytes::from(*parameter)));
        LaunchSpec {
            execution: ExecutionId(uuid::Uuid::nil()),
            argv,
            env: vec![("PATH".into(), std::env::var("PATH").unwrap().into())],
            cwd: Locator::new(self.home().as_os_str().as_bytes()),
            stdin: Stdin::Null,
            output: OutputMode::Separate,
            leftovers: Leftovers::Stop,
            total: None,
            idle: None,
            grace: Duration::from_secs(5),
            log_cap_bytes: 1 << 30,
            repository_lock: None,
        }
    }

    pub(crate) async fn log(
        &self,
        execution: ExecutionId,
        place: &Place,
        at_least: usize,
    ) -> Vec<LogItem> {
        let logs = self.logs.get_or_init(|| FileLogs::open(&self.runs()).unwrap());
        let log = LogKey { execution, place: place.clone() };
        let (mut cursor, mut items) = (Seq(0), Vec::new());
        let mut bytes = 0;
        loop {
            let page = logs.page_after(&log, cursor).await.unwrap();
            cursor = page.next;
            for item in page.items.iter() {
                if let LogItem::Entry { stream, bytes: payload, .. } = item
                    && *stream != Stream::Stdin
                {
                    bytes += payload.len();
                }
            }
            items.extend(page.items.iter().cloned());
            if page.end || bytes >= at_least {
                return items;
            }
            logs.grown(&log, cursor).await.unwrap();
        }
    }

    async fn bytes_of(&self, execution: ExecutionId, place: &Place, at_least: usize) -> Vec<u8> {
        let items = self.log(execution, place, at_least).await;
        let output = items.into_iter().filter_map(|item| match item {
            LogItem::Entry { stream: Stream::Stdin, .. } | LogItem::Gap { .. } => None,
            LogItem::Entry { bytes, .. } => Some(bytes),
        });
        output.flatten().collect()
    }

    fn script(&self, script: &Script, execution: ExecutionId) -> LaunchSpec {
        let forever = format!("exec sleep {FOREVER}");
        let spec = match script {
            Script::Exit(code) => self.shell("exit $1", &[&code.to_string()]),
            Script::Die(signal) => self.shell("kill -$1 $$", &[&signal.to_string()]),
            Script::Print { stdout, stderr } => {
                self.shell("printf %s \"$1\"; printf %s \"$2\" >&2", &[stdout, stderr])
            }
            Script::UntilReleased(code) => {
                let fifo = self.fifo(execution);
                if !fifo.exists() {
                    rustix::fs::mknodat(
                        rustix::fs::CWD,
                        &fifo,
                        rustix::fs::FileType::Fifo,
                        rustix::fs::Mode::RWXU,
                        0,
                    )
                    .unwrap();
                }
                let fifo = fifo.display().to_string();
                self.shell(
                    "printf ready; read -r line < \"$1\"; exit $2",
                    &[&fifo, &code.to_string()],
                )
            }
            Script::Forever => self.shell(&format!("printf ready; {forever}"), &[]),
            Script::IgnoreTerm => {
                self.shell(&format!("trap '' TERM; printf ready; {forever}"), &[])
            }
            Script::EchoStdin => {
                let spec = self.shell("printf ready; exec cat", &[]);
                LaunchSpec { stdin: Stdin::Messages, ..spec }
            }
            Script::IgnoreStdin => {
                let spec = self.shell(&format!("printf ready; {forever}"), &[]);
                LaunchSpec { stdin: Stdin::Messages, ..spec }
            }
            Script::LeaveChild => {
                self.shell(&format!("sleep {FOREVER} > /dev/null 2>&1 & exit 0"), &[])
            }
            Script::LeaveEscapee => self.shell(&format!("setsid sleep {FOREVER} & exit 0"), &[]),
            Script::MissingProgram => {
                LaunchSpec { argv: vec!["windlass-no-such-program".into()], ..self.shell("", &[]) }
            }
            Script::NotExecutable => {
                let file = self.home().join("not-executable");
                fs::write(&file, "#!/bin/sh\n").unwrap();
                fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
                let argv = vec![OsBytes(file.as_os_str().as_bytes().to_vec())];
                LaunchSpec { argv, ..self.shell("", &[]) }
            }
            Script::MissingDirectory => {
                let gone = self.home().join("gone");
                LaunchSpec {
                    cwd: Locator::new(gone.as_os_str().as_bytes()),
                    ..self.shell("exit 0", &[])
                }
            }
        };
        LaunchSpec { execution, ..spec }
    }
}

#[async_trait]
impl ContainerServicePlace for Local {
    async fn open(&self) -> Arc<dyn ContainerService> {
        Self::open(self)
    }

    fn spec(&self, script: &Script, execution: ExecutionId) -> LaunchSpec {
        self.script(script, execution)
    }

    async fn release(&self, execution: ExecutionId) {
        let fifo = self.fifo(execution);
        // Opening waits for the script to read.
        tokio::task::spawn_blocking(move || fs::write(fifo, "go\n")).await.unwrap().unwrap();
    }

    async fn output(&self, execution: ExecutionId, place: &Place, at_least: usize) -> Vec<u8> {
        self.bytes_of(execution, place, at_least).await
    }

    async fn alive(&self, execution: ExecutionId) -> usize {
        marked(execution).len()
    }

    async fn kill_supervisor(&self, _execution: ExecutionId, place: &Place) {
        let shim = read_journal(place).started().unwrap().shim_pid;
        tokio::task::spawn_blocking(move || kill(shim)).await.unwrap();
    }

    async fn damage(&self, _execution: ExecutionId, place: &Place) {
        let file = path_of(place).join("journal");
        let mut bytes = fs::read(&file).unwrap();
        bytes[20] ^= 0xff;
        fs::write(file, bytes).unwrap();
    }
}

#[async_trait]
impl InputPlace for Local {
    async fn open(&self) -> Ports {
        let service = Self::open(self);
        Ports { containers: Arc::clone(&service) as _, input: service }
    }

    fn spec(&self, script: &Script, execution: ExecutionId) -> LaunchSpec {
        self.script(script, execution)
    }

    async fn output(&self, execution: ExecutionId, place: &Place, at_least: usize) -> Vec<u8> {
        self.bytes_of(execution, place, at_least).await
    }

    async fn logged_input(&self, execution: ExecutionId, place: &Place) -> Vec<(Vec<u8>, u64)> {
        let items = self.log(execution, place, usize::MAX).await;
        let input = items.into_iter().filter_map(|item| match item {
            LogItem::Entry { stream: Stream::Stdin, bytes, len, .. } => Some((bytes.to_vec(), len)),
            LogItem::Entry { .. } | LogItem::Gap { .. } => None,
        });
        input.collect()
    }
}

/// Returns the directory of a place.
pub(crate) fn path_of(place: &Place) -> PathBuf {
    OsStr::from_bytes(place.locator.as_bytes()).into()
}

/// Reads the journal of a place.
pub(crate) fn read_journal(place: &Place) -> Journal {
    match journal::read(&fs::read(path_of(place).join("journal")).unwrap()) {
        journal::Verdict::Readable(journal) => journal,
        other => panic!("{other:?}"),
    }
}

/// Lists the processes that carry the mark of an execution and live.
pub(crate) fn marked(execution: ExecutionId) -> Vec<u32> {
    let mark = format!("WINDLASS_EXECUTION_ID={execution}");
    let pids = fs::read_dir("/proc").unwrap();
    pids.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environ.split(|byte| *byte == 0).any(|item| item == mark.as_bytes())
        })
        .collect()
}

/// Says whether a process lives: it is there and no zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Kills a process and waits until it is gone.
pub(crate) fn kill(pid: u32) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    pidfd_send_signal(&pidfd, Signal::KILL).unwrap();
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None).unwrap();
}
