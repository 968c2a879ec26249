//! A disk that is full to the last byte: who fills it can be stopped, and everything goes on when there is room again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use windlass_tests::sandbox::Running;
use windlass_tests::{isolated, namespace, not_run};

use super::{sandbox, schemas, show};

/// A file system of its own, a bit larger than the floor below which nothing is started.
struct Disk(PathBuf);

impl Disk {
    /// Mounts one where only this test sees it; `None`, said aloud, where that is not possible.
    fn mount(at: PathBuf) -> Option<Self> {
        if !namespace::is_inside() {
            not_run(
                "the command line on a full disk: there is no namespace to mount a small one in",
            );
            return None;
        }
        fs::create_dir(&at).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1152m,mode=700", "none"])
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
        let Some(disk) = Disk::mount(sandbox.data_dir()) else { return };
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
}
