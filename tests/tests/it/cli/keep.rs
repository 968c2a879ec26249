//! `rm`, `restore`, `snapshots` and `gc`, and what `run --copy` brings along.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use windlass_tests::isolated;
use windlass_tests::repo::{TempRepo, git_in};
use windlass_tests::sandbox::Sandbox;
use windlass_tests::worktrees::{difference, everything};

use super::{run_script, run_until_ready, schemas, show, with_repo};

/// An attempt whose worktree holds every common kind of unsaved work; returns its id and where that is.
fn dirty(sandbox: &Sandbox, repo: &TempRepo) -> (String, PathBuf) {
    let script = "pwd; echo changed > README.md; rm src/main.rs; echo new > new; mkdir -p empty/deep; \
        ln -s nowhere link; echo secret > .env; mkdir target; head -c 300000 /dev/zero > target/big; \
        git init -q nested; echo inner > nested/file; echo staged > staged; git add staged";
    repo.write(".gitignore", ".env\ntarget/\n");
    let _ = repo.commit("ignore");
    let ran = run_script(sandbox, repo, &["--no-commit", "--title", "Dirty"], script).expect(0);
    let worktree = PathBuf::from(ran.text().trim());
    let id =
        sandbox.run(["ls", "--json"]).expect(0).json_lines()[0]["id"].as_str().unwrap().to_owned();
    (id, worktree)
}

/// A directory in which nothing can be made, renamed or removed, until it is dropped.
struct Immutable(PathBuf);

impl Immutable {
    /// `None` where that cannot be done.
    fn new(path: &Path) -> Option<Self> {
        chattr("+i", path).then(|| Self(path.to_owned()))
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        assert!(chattr("-i", &self.0) || std::thread::panicking());
    }
}

fn chattr(flag: &str, path: &Path) -> bool {
    Command::new("chattr").arg(flag).arg(path).status().is_ok_and(|status| status.success())
}

isolated! {
    fn a_dirty_worktree_is_saved_removed_and_comes_back() {
        let (sandbox, repo) = with_repo();
        let (id, worktree) = dirty(&sandbox, &repo);
        let before = everything(&worktree);
        let removed = sandbox.run(["rm", &id]).expect(0);
        assert!(removed.stderr.contains("saved as snapshot 1"), "{}", removed.stderr);
        assert!(!worktree.exists());
        assert_eq!(show(&sandbox, &id)["status"], "removed");
        assert_eq!(show(&sandbox, &id)["snapshots"], 1);
        let listed = sandbox.run(["snapshots", &id, "--json"]).expect(0).json_lines();
        assert_eq!(listed.len(), 1);
        schemas().assert("snapshot.json", &listed[0]);
        assert!(sandbox.run(["snapshots", &id]).expect(0).text().contains("removal"));
        // Plain tools read it.
        let archive = listed[0]["archive"].as_str().unwrap();
        let tar = Command::new("tar").args(["--zstd", "--list", "--file", archive]).output().unwrap();
        assert!(String::from_utf8_lossy(&tar.stdout).contains("files/nested/file"), "{tar:?}");
        let restored = sandbox.run(["restore", &id]).expect(0);
        assert_eq!(restored.text(), format!("{}\n", worktree.display()));
        assert_eq!(difference(&before, &everything(&worktree)), "");
        assert_eq!(show(&sandbox, &id)["status"], "finished");
        // Once more is no error.
        sandbox.run(["restore", &id]).expect(0);
    }

    fn an_older_snapshot_comes_back_when_it_is_asked_for() {
        let (sandbox, repo) = with_repo();
        let ran = run_script(&sandbox, &repo, &["--no-commit"], "pwd; echo one > file").expect(0);
        let worktree = PathBuf::from(ran.text().trim());
        sandbox.run(["rm", "@last"]).expect(0);
        sandbox.run(["restore", "@last"]).expect(0);
        fs::write(worktree.join("file"), "two\n").unwrap();
        sandbox.run(["rm", "@last"]).expect(0);
        // The last one is needed to come back.
        sandbox.run(["snapshots", "@last", "--rm", "2"]).expect(4);
        sandbox.run(["restore", "@last", "--snapshot", "1"]).expect(0);
        assert_eq!(fs::read_to_string(worktree.join("file")).unwrap(), "one\n");
        sandbox.run(["restore", "@last", "--snapshot", "2"]).expect(4);
        sandbox.run(["snapshots", "@last", "--rm", "2"]).expect(0);
        sandbox.run(["snapshots", "@last", "--rm", "2"]).expect(3);
        assert_eq!(sandbox.run(["snapshots", "@last", "--json"]).expect(0).json_lines().len(), 1);
    }

    fn what_cannot_be_saved_is_not_removed_unless_it_is_given_up() {
        let (sandbox, repo) = with_repo();
        let (id, worktree) = dirty(&sandbox, &repo);
        let socket = worktree.join("a socket");
        drop(UnixListener::bind(&socket).unwrap());
        for flags in [&["rm", &id][..], &["rm", &id, "--force"]] {
            let refused = sandbox.run(flags).expect(4);
            assert!(refused.stderr.contains("a socket"), "{}", refused.stderr);
            assert!(refused.stderr.contains("--discard-unsaved"), "{}", refused.stderr);
            assert!(socket.exists() && worktree.join("nested/file").exists());
        }
        let removed = sandbox.run(["rm", &id, "--discard-unsaved"]).expect(0);
        assert!(removed.stderr.contains("not saved: a socket"), "{}", removed.stderr);
        sandbox.run(["restore", &id]).expect(0);
        assert!(!socket.exists() && worktree.join("nested/file").exists());
    }

    fn a_merge_in_progress_needs_force_and_comes_back() {
        let (sandbox, repo) = with_repo();
        let script = "pwd; echo ours > README.md; git commit -qam ours; git checkout -q -b other HEAD~1; \
            echo theirs > README.md; git commit -qam theirs; git checkout -q -; git merge other; true";
        let ran = run_script(&sandbox, &repo, &["--no-commit"], script);
        let worktree = PathBuf::from(ran.text().lines().next().unwrap());
        let before = everything(&worktree);
        let refused = sandbox.run(["rm", "@last"]).expect(4);
        assert!(refused.stderr.contains("merge"), "{}", refused.stderr);
        sandbox.run(["rm", "@last", "--force"]).expect(0);
        sandbox.run(["restore", "@last"]).expect(0);
        assert_eq!(difference(&before, &everything(&worktree)), "");
        git_in(&worktree, ["merge", "--abort"]);
    }

    fn a_branch_is_deleted_on_request_and_its_commits_come_back() {
        let (sandbox, repo) = with_repo();
        run_script(&sandbox, &repo, &["--branch", "topic"], "echo x > made").expect(0);
        let tip = repo.git(["rev-parse", "topic"]);
        sandbox.run(["rm", "topic", "--delete-branch"]).expect(0);
        assert_eq!(repo.git(["branch", "--list", "topic"]), "");
        sandbox.run(["restore", "@last"]).expect(0);
        assert_eq!(repo.git(["rev-parse", "topic"]), tip);
    }

    fn looking_at_a_removed_worktree_brings_it_back() {
        let (sandbox, repo) = with_repo();
        let (id, worktree) = dirty(&sandbox, &repo);
        sandbox.run(["rm", &id]).expect(0);
        assert!(sandbox.run(["diff", &id, "--stat"]).expect(0).text().contains("README.md"));
        assert!(worktree.join("nested/file").exists());
    }

    fn cleanup_says_what_it_would_do_and_why() {
        let (sandbox, repo) = with_repo();
        let (id, worktree) = dirty(&sandbox, &repo);
        let items = sandbox.run(["gc", "--dry-run", "--json"]).expect(0).json_lines();
        assert_eq!(items.len(), 1, "{items:?}");
        schemas().assert("gc-item.json", &items[0]);
        assert_eq!((items[0]["action"].as_str(), items[0]["attempt_id"].as_str()), (Some("keep"), Some(&*id)));
        let running = run_until_ready(&sandbox, &repo);
        let text = sandbox.run(["gc"]).expect(0);
        assert!(text.text().contains("keep"), "{}", text.text());
        assert!(worktree.exists(), "nothing is idle for long enough");
        sandbox.run(["gc", "--keep", &id]).expect(0);
        let kept = sandbox.run(["gc", "--dry-run"]).expect(0);
        assert!(kept.text().contains("however long"), "{}", kept.text());
        sandbox.run(["gc", "--no-keep", &id]).expect(0);
        sandbox.run(["stop", &running]).expect(0);
        // Nothing without a marker of ours is touched.
        let stranger = worktree.parent().unwrap().join("a stranger's");
        fs::create_dir(&stranger).unwrap();
        let found = sandbox.run(["gc", "--json"]).expect(0).json_lines();
        assert!(found.iter().any(|item| item["path"] == stranger.to_str().unwrap() && item["action"] == "keep"));
        assert!(stranger.exists());
    }

    fn what_somebody_deleted_is_noticed_and_can_be_removed() {
        let (sandbox, repo) = with_repo();
        let ran = run_script(&sandbox, &repo, &["--branch", "topic"], "pwd; echo x > made").expect(0);
        let worktree = PathBuf::from(ran.text().trim());
        fs::remove_dir_all(&worktree).unwrap();
        let items = sandbox.run(["gc", "--json"]).expect(0).json_lines();
        assert!(items.iter().any(|item| item["action"] == "mark_missing"), "{items:?}");
        sandbox.run(["restore", "topic"]).expect(0);
        assert_eq!(fs::read_to_string(worktree.join("made")).unwrap(), "x\n");
        fs::remove_dir_all(&worktree).unwrap();
        sandbox.run(["rm", "topic"]).expect(0);
        assert_eq!(repo.git(["worktree", "list", "--porcelain"]).matches("worktree ").count(), 1);
    }

    fn what_stands_where_a_worktree_was_or_where_git_moved_it_is_told_in_one_line() {
        let (sandbox, repo) = with_repo();
        let ran = run_script(&sandbox, &repo, &["--branch", "topic"], "pwd; echo x > made").expect(0);
        let worktree = PathBuf::from(ran.text().trim());
        let about = |reason: &str| {
            let items = sandbox.run(["gc", "--json"]).expect(0).json_lines();
            let ours: Vec<_> = items.iter().filter(|item| item["path"] == worktree.to_str().unwrap()).collect();
            let [only] = ours.as_slice() else { panic!("{ours:?}") };
            assert_eq!(only["action"], "keep", "{only}");
            assert!(only["reason"].as_str().unwrap().contains(reason), "{only}");
            assert_eq!(show(&sandbox, "topic")["missing"], false);
        };
        let away = sandbox.path().join("away");
        fs::rename(repo.path(), &away).unwrap();
        about("not the recorded worktree");
        fs::rename(&away, repo.path()).unwrap();
        let (here, there) = (worktree.to_str().unwrap(), away.to_str().unwrap());
        repo.git(["worktree", "move", here, there]);
        about("it was moved to");
        for verb in ["diff", "restore", "rm"] {
            let refused = sandbox.run([verb, "topic"]).expect(4);
            assert!(refused.stderr.contains("it was moved to"), "{verb}: {}", refused.stderr);
        }
        let exec = sandbox.run(["exec", "topic", "--", "true"]).expect(126);
        assert!(exec.stderr.contains("it was moved to") && exec.stderr.contains("hint"), "{}", exec.stderr);
        fs::write(&worktree, "a file").unwrap();
        about("not the recorded worktree");
        fs::remove_file(&worktree).unwrap();
        repo.git(["worktree", "move", there, here]);
        sandbox.run(["rm", "topic"]).expect(0);
    }

    fn a_removal_that_failed_late_is_told_and_ends_when_it_is_asked_for_again() {
        // What its repository knows of it cannot go, or its directory cannot.
        for (stuck, again) in [(".git/worktrees", "rm"), (".trash", "rm"), (".trash", "gc"), (".trash", "restore")] {
            let (sandbox, repo) = with_repo();
            let ran = run_script(&sandbox, &repo, &["--no-commit", "--branch", "topic"], "pwd; echo x > made").expect(0);
            let worktree = PathBuf::from(ran.text().trim());
            let stuck = match stuck {
                ".trash" => sandbox.data_dir().join("worktrees/.trash"),
                below => repo.path().join(below),
            };
            let Some(fixed) = Immutable::new(&stuck) else {
                eprintln!("not run: files cannot be made immutable here");
                return;
            };
            for _ in 0..2 {
                let refused = sandbox.run(["rm", "topic"]).expect(4);
                assert!(refused.stderr.contains("all of it is saved"), "{}", refused.stderr);
                let shown = show(&sandbox, "topic");
                assert_eq!((&shown["status"], &shown["reason"]["kind"]), (&"removed".into(), &"remove_failed".into()));
            }
            let items = sandbox.run(["gc", "--dry-run", "--json"]).expect(0).json_lines();
            let named = |item: &&Value| item["action"] == "end_removal" && item["reason"].as_str().unwrap().contains("failed");
            assert_eq!(items.iter().filter(named).count(), 1, "{items:?}");
            // All that there is of it may be in its snapshot.
            sandbox.run(["snapshots", "topic", "--rm", "1", "--force"]).expect(4);
            sandbox.run(["gc"]).expect(1);
            drop(fixed);
            let arguments = if again == "gc" { vec![again] } else { vec![again, "topic"] };
            sandbox.run(arguments).expect(0);
            let shown = show(&sandbox, "topic");
            assert_eq!(shown["reason"], Value::Null);
            if again != "restore" {
                assert_eq!(shown["status"], "removed");
                assert_eq!(repo.git(["worktree", "list", "--porcelain"]).matches("worktree ").count(), 1);
                assert_eq!(fs::read_dir(worktree.parent().unwrap()).map_or(0, Iterator::count), 0);
                sandbox.run(["restore", "topic"]).expect(0);
            }
            assert_eq!(fs::read_to_string(worktree.join("made")).unwrap(), "x\n");
            sandbox.run(["rm", "topic"]).expect(0);
        }
    }

    fn what_cannot_be_deleted_is_told_before_anything_is_touched() {
        let (sandbox, repo) = with_repo();
        let ran = run_script(&sandbox, &repo, &["--branch", "topic"], "pwd; mkdir logs; echo x > logs/made").expect(0);
        let worktree = PathBuf::from(ran.text().trim());
        for (flag, back, path, said) in [
            ("+i", "-i", "README.md", "README.md (it is immutable"),
            ("+a", "-a", "logs/made", "logs/made (it is append-only"),
            ("+i", "-i", "logs", "logs (it is immutable"),
        ] {
            if !chattr(flag, &worktree.join(path)) {
                eprintln!("not run: files cannot be made immutable here");
                return;
            }
            let refused = sandbox.run(["rm", "topic"]);
            assert!(chattr(back, &worktree.join(path)), "{refused:?}");
            assert!(refused.expect(4).stderr.contains(said));
        }
        sandbox.run(["exec", "topic", "--", "cat", "logs/made"]).expect(0);
        sandbox.run(["rm", "topic"]).expect(0);
        assert!(!worktree.exists());
        assert_eq!(sandbox.run(["gc", "--dry-run"]).expect(0).text(), "", "nothing is left");
    }

    fn each_way_out_is_said_and_works() {
        let (sandbox, repo) = with_repo();
        let ran = run_script(&sandbox, &repo, &["--branch", "topic"], "pwd; echo x > made; git checkout -q --detach").expect(0);
        let worktree = PathBuf::from(ran.text().trim());
        // Without its marker nothing is done with it but what its user asks for by name.
        let admin = repo.path().join(".git/worktrees").join(worktree.file_name().unwrap());
        fs::remove_file(admin.join("windlass-worktree")).unwrap();
        for verb in ["diff", "rm"] {
            let refused = sandbox.run([verb, "topic"]).expect(4);
            assert!(refused.stderr.contains("restoring it marks it again"), "{}", refused.stderr);
        }
        sandbox.run(["restore", "topic"]).expect(0);
        // It was on no branch, and is on none again.
        sandbox.run(["rm", "topic"]).expect(0);
        assert_eq!(show(&sandbox, "@last")["branch"], Value::Null);
        fs::create_dir_all(&worktree).unwrap();
        fs::write(worktree.join("theirs"), "x").unwrap();
        let refused = sandbox.run(["restore", "@last"]).expect(4);
        assert!(refused.stderr.contains("something that is not ours stands there"), "{}", refused.stderr);
        fs::remove_dir_all(&worktree).unwrap();
        let restored = sandbox.run(["restore", "@last"]).expect(0);
        assert!(!restored.stderr.contains("branch"), "{}", restored.stderr);
        assert!(worktree.join("made").exists());
        sandbox.run(["rm", "@last"]).expect(0);
        // Nobody's worktree is taken for ours, whatever is asked for.
        repo.git(["worktree", "add", "-q", "--detach", worktree.to_str().unwrap()]);
        let refused = sandbox.run(["restore", "@last"]).expect(4);
        assert!(refused.stderr.contains("no marker of ours"), "{}", refused.stderr);
        repo.git(["worktree", "remove", worktree.to_str().unwrap()]);
        sandbox.run(["restore", "@last"]).expect(0);
    }

    fn ignored_files_are_copied_in_by_globs_and_nothing_else_is() {
        let (sandbox, repo) = with_repo();
        repo.write(".gitignore", ".env*\nkeys/\n");
        let _ = repo.commit("ignore");
        repo.write(".env", "a secret\n");
        repo.write(".env.local", "another\n");
        repo.write("keys/one", "1\n");
        let copied = run_script(&sandbox, &repo, &["--copy", ".env*", "--copy", "keys/"], "cat .env .env.local keys/one").expect(0);
        assert_eq!(copied.text(), "a secret\nanother\n1\n");
        assert_eq!(repo.git(["ls-tree", "-r", "--name-only", "HEAD"]), ".gitignore\nREADME.md\nsrc/main.rs");
        // They are where they came from: there is nothing to save.
        sandbox.run(["rm", "@last"]).expect(0);
        assert_eq!(sandbox.run(["snapshots", "@last", "--json"]).expect(0).text(), "");
        assert!(!copied.stderr.contains("--copy"), "{}", copied.stderr);
        let none = run_script(&sandbox, &repo, &["--copy", ".npmrc", "--copy", ".env"], "cat .env").expect(0);
        assert!(none.stderr.contains("no file matches --copy .npmrc"), "{}", none.stderr);
        assert!(!none.stderr.contains("--copy .env"), "{}", none.stderr);
        let refused = run_script(&sandbox, &repo, &["--copy", "../*"], "true").expect(122);
        assert!(refused.stderr.contains("../*"), "{}", refused.stderr);
        let refused = run_script(&sandbox, &repo, &["--copy", "["], "true").expect(122);
        assert!(refused.stderr.contains("never matches"), "{}", refused.stderr);
        assert!(!Path::new(&sandbox.path().join("created")).exists());
    }
}
