//! A disk that is full to the last byte: who fills it can be stopped, and everything goes on when there is room again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use windlass_tests::sandbox::Running;
use windlass_tests::{isolated, namespace, not_run};

use super::{sandbox, schemas, show};

/// A file system of its own.
struct Disk(PathBuf);

/// A bit larger than the floor below which nothing is started.
const ABOVE_THE_FLOOR: &str = "1152m";

impl Disk {
    /// Mounts one where only this test sees it; `None`, said aloud, where that is not possible.
    fn mount(at: PathBuf, size: &str) -> Option<Self> {
        if !namespace::is_inside() {
            not_run(
                "the command line on a full disk: there is no namespace to mount a small one in",
            );
            return None;
        }
        fs::create_dir(&at).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size},mode=700"), "none"])
            .arg(&at)
            .output()
            .unwrap();
        if !mounted.status.success() {
            let why = String::from_utf8_lossy(&mounted.stderr).trim().to_owned();
            not_run(&format!("the command line on a full disk: {why}"));
            return None;
        }
        Some(Self(at))
    }

    fn resize(&self, size: &str) {
        let how = format!("remount,size={size}");
        let resized = Command::new("mount").args(["-o", &how]).arg(&self.0).status().unwrap();
        assert!(resized.success());
    }

    /// Returns how many bytes are free.
    fn free(&self) -> u64 {
        let disk = rustix::fs::statvfs(&self.0).unwrap();
        disk.f_bavail * disk.f_frsize
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily, because a test that failed leaves processes there; the namespace ends them.
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

/// Makes a pipe with a name.
fn fifo(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}

isolated! {
    fn who_fills_the_disk_can_be_stopped() {
        let sandbox = sandbox();
        let Some(disk) = Disk::mount(sandbox.data_dir(), ABOVE_THE_FLOOR) else { return };
        let full = sandbox.path().join("full");
        fifo(&full);
        let mut told = Running::start(Command::new("cat").arg(&full));
        // It takes what is there, says so, and goes on taking whatever becomes free.
        let script = r#"echo filling
            cat /dev/zero >"$1/filler" 2>/dev/null
            echo full >"$2"
            while :; do cat /dev/zero; done >>"$1/filler" 2>/dev/null"#;
        let here = sandbox.path().to_str().unwrap();
        let data = sandbox.data_dir();
        sandbox.run(["ps"]).expect(0);
        let filler = ["sh", "-c", script, "sh", data.to_str().unwrap(), full.to_str().unwrap()];
        let id = sandbox.run([&["run", "-d", "--dir", here, "--"], &filler[..]].concat()).expect(0);
        let id = id.text().trim().to_owned();
        assert_eq!(told.line().as_deref(), Some("full"));
        assert!(disk.free() < 64 << 10, "{} bytes are free", disk.free());

        assert_eq!(sandbox.run(["ps", "--json"]).expect(0).json_lines().len(), 1);
        assert_eq!(sandbox.run(["logs", &id]).expect(0).text(), "filling\n");
        assert_eq!(show(&sandbox, &id)["status"], "running");
        let refused = sandbox.run(["--json", "run", "--dir", here, "--", "true"]).expect(122).error();
        schemas().assert("error.json", &refused);
        assert_eq!(refused["error"]["kind"], "disk_floor", "{refused}");

        let stopped = sandbox.run(["stop", &id, "--grace", "100ms", "--json"]).expect(0).json();
        schemas().assert("execution.json", &stopped);
        assert_eq!(stopped["status"], "killed", "{stopped:#}");
        assert_eq!(stopped["survivors"], json!([]));
        assert_eq!(sandbox.run(["wait", &id]).code, Some(143));
        assert_eq!(sandbox.run(["ps"]).expect(0).text(), "");
        assert!(disk.free() < 64 << 10, "{} bytes are free", disk.free());
        // The next host finds it so on the same full disk.
        sandbox.run(["host", "stop"]).expect(0);
        assert_eq!(show(&sandbox, &id)["status"], "killed");
        sandbox.run(["run", "--dir", here, "--", "true"]).expect(122);

        fs::remove_file(data.join("filler")).unwrap();
        sandbox.run(["run", "--dir", here, "--", "sh", "-c", "exit 7"]).expect(7);
        assert_eq!(show(&sandbox, &id)["status"], "killed");
        sandbox.run(["host", "stop"]).expect(0);
    }
    fn a_run_that_cannot_be_recorded_to_its_end_says_that_the_disk_is_full() {
        let sandbox = sandbox();
        let Some(disk) = Disk::mount(sandbox.data_dir(), "3m") else { return };
        sandbox.run(["config", "set", "disk_floor_bytes", "0"]).expect(0);
        let here = sandbox.path().to_str().unwrap();
        let script = "head -c 6400000 /dev/zero; exit 3";
        let told = sandbox.run(["run", "--dir", here, "--shell", script]).expect(122);
        assert!(told.stderr.contains("no space left"), "{}", told.stderr);
        assert!(told.stderr.contains("windlass wait x-"), "{}", told.stderr);
        let gaps = told.stderr.lines().filter(|line| line.contains("are missing")).count();
        assert_eq!(gaps, 2, "{}", told.stderr);
        let host = sandbox.run(["host", "status", "--json"]).expect(0).json();
        let events = sandbox.run(["events", "--json"]).expect(0).json_lines();
        let last = events.last().unwrap()["number"].to_string();
        let mut events = sandbox.start(["events", "-f", "--after", &last]);
        disk.resize("64m");
        assert!(events.line().is_some(), "what waited is recorded when there is room");
        sandbox.run(["wait", "@last"]).expect(3);
        assert_eq!(sandbox.run(["host", "status", "--json"]).expect(0).json()["pid"], host["pid"]);
        sandbox.run(["host", "stop"]).expect(0);
    }
}
