//! `--attach`: files that are handed to an attempt.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::Value;
use windlass_tests::isolated;
use windlass_tests::process::{PATIENCE, ended, open, signal};
use windlass_tests::repo::git_in;
use windlass_tests::sandbox::Sandbox;

use super::{run_script, schemas, show, with_repo};

fn newest(sandbox: &Sandbox) -> Value {
    let view = sandbox.run(["ls", "--json"]).expect(0).json_lines().remove(0);
    show(sandbox, view["id"].as_str().unwrap())
}

fn id(sandbox: &Sandbox) -> String {
    newest(sandbox)["id"].as_str().unwrap().to_owned()
}

fn folder(view: &Value) -> PathBuf {
    Path::new(view["worktree"].as_str().unwrap()).join(".windlass/attachments")
}

/// Waits until nothing of the attempt's chain goes on, and shows what its last execution printed.
fn printed(sandbox: &Sandbox, attempt: &str) -> String {
    sandbox.run(["wait", attempt]).expect(0);
    sandbox.run(["logs", attempt]).expect(0).text().to_owned()
}

/// The files below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let each = |entry: fs::DirEntry| match entry.path().is_dir() {
        true => files(&entry.path()),
        false => vec![entry.path()],
    };
    entries.flatten().flat_map(each).collect()
}

isolated! {
    fn files_of_a_run_are_there_before_it_and_git_sees_nothing_of_them() {
        let (sandbox, repo) = with_repo();
        let file = sandbox.path().join("shot.png");
        fs::write(&file, b"PNG\n").unwrap();
        let file = file.to_str().unwrap();
        let script = "cat \"$WINDLASS_ATTACHMENTS\" > made; git status --porcelain; git add -A; git commit -qm all";
        let ran = run_script(&sandbox, &repo, &["--attach", file], script).expect(0);
        assert_eq!(ran.text(), "?? made\n");
        let view = newest(&sandbox);
        schemas().assert("attempt.json", &view);
        assert_eq!((&view["attachments"][0]["name"], &view["attachments"][0]["bytes"], &view["dirty"]), (&"shot.png".into(), &4.into(), &false.into()));
        let placed = folder(&view).join("shot.png");
        assert_eq!(fs::read(&placed).unwrap(), b"PNG\n");
        assert_eq!(fs::metadata(&placed).unwrap().permissions().mode() & 0o777, 0o600);
        let worktree = folder(&view).join("../..");
        assert_eq!(git_in(&worktree, ["show", "--stat", "--format=", "HEAD"]).lines().count(), 2, "one file and a sum");
        assert!(!sandbox.run(["diff", &id(&sandbox)]).expect(0).text().contains("windlass"));
        assert!(!repo.path().join(".git/info/exclude").exists() || !fs::read_to_string(repo.path().join(".git/info/exclude")).unwrap().contains("windlass"));
        // What was handed over is kept by us: it may be gone where it came from.
        fs::remove_file(file).unwrap();
        let kept = files(&sandbox.data_dir().join("attachments"));
        assert_eq!(kept.len(), 1);
        assert_eq!(fs::metadata(&kept[0]).unwrap().permissions().mode() & 0o777, 0o600);
        let attempt = id(&sandbox);
        sandbox.run(["rm", &attempt]).expect(0);
        assert!(!placed.exists());
        let again = sandbox.run(["exec", &attempt, "--shell", "cat \"$WINDLASS_ATTACHMENTS\""]).expect(0);
        assert_eq!(again.stdout, b"PNG\n");
    }

    fn links_of_a_message_lead_to_the_files_that_came_with_it() {
        let (sandbox, repo) = with_repo();
        for (dir, text) in [("one", "1"), ("two", "2")] {
            fs::create_dir(sandbox.path().join(dir)).unwrap();
            fs::write(sandbox.path().join(dir).join("a b.txt"), text).unwrap();
        }
        run_script(&sandbox, &repo, &[], "cat; printf '%s\\n' \"$WINDLASS_ATTACHMENTS\"").expect(0);
        let attempt = id(&sandbox);
        let at = |dir: &str| sandbox.path().join(dir).join("a b.txt").to_str().unwrap().to_owned();
        sandbox.run(["send", &attempt, "--attach", &at("one"), "see ![it](a b.txt) and `a b.txt`, not a b.txt"]).expect(0);
        let here = folder(&newest(&sandbox));
        let here = here.to_str().unwrap();
        assert_eq!(printed(&sandbox, &attempt), format!("see ![it](<{here}/a b.txt>) and `{here}/a b.txt`, not a b.txt\n{here}/a b.txt\n"));
        // Another one of the same name gets a number, and is what the next message means; one that came before is not copied again.
        sandbox.run(["send", &attempt, "--attach", &at("two"), "--attach", &at("one"), &format!("see [it](<{}>)", at("two"))]).expect(0);
        assert_eq!(printed(&sandbox, &attempt), format!("see [it](<{here}/a b-2.txt>)\n{here}/a b.txt\n{here}/a b-2.txt\n"));
        assert_eq!(fs::read_to_string(format!("{here}/a b-2.txt")).unwrap(), "2");
    }

    fn what_is_no_plain_file_or_too_much_is_refused_and_nothing_is_left() {
        let (sandbox, repo) = with_repo();
        let at = |name: &str| sandbox.path().join(name).to_str().unwrap().to_owned();
        sandbox.run(["config", "set", "attachments.file_bytes", "1000"]).expect(0);
        sandbox.run(["config", "set", "attachments.attempt_bytes", "1500"]).expect(0);
        fs::write(at("fits"), [b'x'; 1_000]).unwrap();
        fs::write(at("fits-too"), [b'y'; 600]).unwrap();
        fs::write(at("large"), [b'x'; 1_001]).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        symlink(at("fits"), at("link")).unwrap();
        let place = repo.path().to_str().unwrap();
        let run = |files: &[&str]| {
            let attach: Vec<String> = files.iter().flat_map(|file| ["--attach".to_owned(), at(file)]).collect();
            let words = ["run", "--json", "--repo", place].map(str::to_owned).into_iter().chain(attach);
            sandbox.run(words.chain(["--", "true"].map(str::to_owned)))
        };
        for wrong in [&["missing"][..], &["large"], &["pipe"], &["home"], &["fits", "fits-too"]] {
            let refused = run(wrong).expect(122);
            assert_eq!(refused.error()["error"]["kind"], "cannot_attach", "{wrong:?}");
        }
        assert!(sandbox.run(["ls", "-a", "--json"]).expect(0).json_lines().is_empty());
        run(&["fits"]).expect(0);
        let refused = sandbox.run(["send", &id(&sandbox), "--json", "--attach", &at("fits-too"), "x"]).expect(4);
        assert_eq!(refused.error()["error"]["kind"], "cannot_attach");
        run(&["link"]).expect(0);
        assert_eq!(files(&sandbox.data_dir().join("attachments")).len(), 2, "nothing is left of what was refused");
        // They outlive a host that is killed.
        let pid = sandbox.run(["host", "status", "--json"]).expect(0).json()["pid"].as_u64().unwrap();
        let host = open(u32::try_from(pid).unwrap()).unwrap();
        signal(&host, Signal::KILL).unwrap();
        assert!(ended(&host, PATIENCE).unwrap());
        let read = sandbox.run(["exec", &id(&sandbox), "--shell", "wc -c < \"$WINDLASS_ATTACHMENTS\""]).expect(0);
        assert_eq!(read.text().trim(), "1000");
    }

    fn links_and_files_of_the_user_s_are_not_written_through() {
        let (sandbox, repo) = with_repo();
        let outside = sandbox.path().join("outside");
        fs::create_dir(&outside).unwrap();
        symlink(&outside, repo.path().join(".windlass")).unwrap();
        let _ = repo.commit("a link");
        let file = sandbox.path().join("a");
        fs::write(&file, "a").unwrap();
        let failed = run_script(&sandbox, &repo, &["--attach", file.to_str().unwrap()], "true").expect(126);
        assert!(failed.stderr.contains("no directory"), "{failed:?}");
        assert!(files(&outside).is_empty());
    }
}
