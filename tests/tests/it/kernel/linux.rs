//! The real machine: a data directory, and the shim as it ships.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;
use windlass_core::action::{Leftovers, OutputMode, Stdin};
use windlass_core::container_service::{LaunchSpec, Place};
use windlass_core::id::ExecutionId;
use windlass_core::locator::{Locator, OsBytes};
use windlass_core::shim::journal::{self, Verdict};
use windlass_local::{FileLogs, LocalContainers, LocalOptions, OpenFiles, Provenance, ShimChoice};
use windlass_tests::process;

use super::cases::{Case, ORPHAN_GRACE};
use super::{Machine, Ports};

pub(super) struct Linux {
    home: TempDir,
    /// One for all readers: a user has few inotify instances.
    logs: Arc<FileLogs>,
}

impl Linux {
    pub(super) fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let logs = FileLogs::open(&home.path().join("runs")).unwrap();
        let script = home.path().join("not-executable");
        fs::write(&script, "#!/bin/sh\n").unwrap();
        Self { home, logs }
    }
}

impl Machine for Linux {
    fn open(&self) -> Ports {
        let containers = LocalContainers::open(LocalOptions {
            runs_dir: self.home.path().join("runs"),
            shim: ShimChoice::Path(env!("CARGO_BIN_EXE_windlass-shim-under-test").into()),
            disk_floor_bytes: 0,
            orphan_grace: ORPHAN_GRACE,
            provenance: Provenance::InPlace,
            open_files: OpenFiles::Keep,
        })
        .unwrap();
        let logs = Arc::clone(&self.logs);
        Ports { containers: Arc::clone(&containers) as _, input: containers, logs }
    }

    fn spec(&self, case: &Case, execution: ExecutionId) -> LaunchSpec {
        let home = self.home.path().as_os_str().as_bytes();
        let argv = match case.shell {
            "not-executable" => {
                let file = self.home.path().join("not-executable");
                vec![OsBytes(file.as_os_str().as_bytes().to_vec())]
            }
            "missing" => vec!["windlass-no-such-program".into()],
            script => vec!["sh".into(), "-c".into(), script.into()],
        };
        LaunchSpec {
            execution,
            argv,
            env: vec![("PATH".into(), std::env::var("PATH").unwrap().into())],
            cwd: match case.has_directory {
                true => Locator::new(home),
                false => Locator::new([home, b"/gone"].concat()),
            },
            stdin: Stdin::Null,
            output: OutputMode::Separate,
            leftovers: Leftovers::Stop,
            total: None,
            idle: None,
            grace: Duration::from_millis(200),
            log_cap_bytes: 1 << 30,
            repository_lock: None,
        }
    }

    fn kill_shim(&self, _execution: ExecutionId, place: &Place) {
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(place.locator.as_bytes()));
        let bytes = fs::read(path.join("journal")).unwrap();
        let Verdict::Readable(journal) = journal::read(&bytes) else { panic!("no journal") };
        let shim = process::open(journal.started().unwrap().shim_pid).unwrap();
        process::signal(&shim, Signal::KILL).unwrap();
        assert!(process::ended(&shim, process::PATIENCE).unwrap());
    }

    fn alive(&self, execution: ExecutionId) -> usize {
        let mark = format!("WINDLASS_EXECUTION_ID={execution}");
        let pids = fs::read_dir("/proc").unwrap();
        let numbers = pids.filter_map(|entry| entry.unwrap().file_name().into_string().ok());
        let marked = numbers.filter(|pid| {
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environ.split(|byte| *byte == 0).any(|item| item == mark.as_bytes())
        });
        marked.count()
    }
}
