//! Whatever a user does, in the end what is told is what a plain diff answers, to the letter.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use windlass_conformance::diff_watch::{Following, Ports, attempt, worktree};
use windlass_core::vcs_worktree::DiffDetail;
use windlass_core::workspace::Worktree;

use crate::place::{GitPlace, path};

/// Names that meet each other as files and as directories.
const PATHS: [&[u8]; 13] = [
    b"greeting",
    b"sub/numbers",
    b"a",
    b"a/b",
    b"a/b/c",
    b"sub/a",
    b"raw\xff",
    b"new\nline",
    b"target/out",
    b"sub/target/out",
    b"sub/deep/er/file",
    b"b.log",
    b"sub/b.log",
];
const CONTENTS: [&[u8]; 7] =
    [b"", b"hello\n", b"1\n2\n3\n", b"1\n2\n4\n", b"\0binary", b"1\r\n2\r\n", b"a\nb\nc\nd\ne\n"];
const RULES: [&str; 5] = ["target\n", "*.log\n", "/a\n", "*\n!sub\n", ""];
const ATTRIBUTES: [&str; 3] = ["* text=auto\n", "* -diff\n", ""];

#[derive(Clone, Debug)]
enum Step {
    Write(usize, usize),
    Append(usize),
    Delete(usize),
    Rename(usize, usize),
    Link(usize, usize),
    Executable(usize),
    Ignore(bool, usize),
    Exclude(usize),
    Attributes(bool, usize),
    Add(usize),
    Unstage(usize),
    Refresh,
    Commit,
    Undo(bool),
    Switch(usize),
    Land,
    Pack,
    Nested(usize),
    CommitInside(usize),
    Stash,
}

fn step() -> impl Strategy<Value = Step> {
    let file = || 0..PATHS.len();
    prop_oneof![
        8 => (file(), 0..CONTENTS.len()).prop_map(|(at, content)| Step::Write(at, content)),
        2 => file().prop_map(Step::Append),
        4 => file().prop_map(Step::Delete),
        4 => (file(), file()).prop_map(|(from, to)| Step::Rename(from, to)),
        1 => (file(), file()).prop_map(|(at, to)| Step::Link(at, to)),
        1 => file().prop_map(Step::Executable),
        2 => (any::<bool>(), 0..RULES.len()).prop_map(|(top, rule)| Step::Ignore(top, rule)),
        1 => (0..RULES.len()).prop_map(Step::Exclude),
        1 => (any::<bool>(), 0..ATTRIBUTES.len()).prop_map(|(top, line)| Step::Attributes(top, line)),
        2 => file().prop_map(Step::Add),
        1 => file().prop_map(Step::Unstage),
        1 => Just(Step::Refresh),
        2 => Just(Step::Commit),
        1 => any::<bool>().prop_map(Step::Undo),
        1 => (0..3_usize).prop_map(Step::Switch),
        1 => Just(Step::Land),
        1 => Just(Step::Pack),
        1 => file().prop_map(Step::Nested),
        1 => file().prop_map(Step::CommitInside),
        1 => Just(Step::Stash),
    ]
}

/// A user at work in a worktree.
struct User<'a> {
    place: &'a GitPlace,
    repo: PathBuf,
    top: PathBuf,
}

impl User<'_> {
    fn file(&self, at: usize) -> PathBuf {
        self.top.join(OsStr::from_bytes(PATHS[at]))
    }

    /// Lets git try.
    fn git(&self, dir: &Path, args: &[&str]) {
        drop(self.place.git(dir, args));
    }

    fn remove(file: &Path) {
        match file.symlink_metadata() {
            Ok(meta) if meta.is_dir() => fs::remove_dir_all(file).unwrap(),
            Ok(_) => fs::remove_file(file).unwrap(),
            Err(_) => {}
        }
    }

    /// Says whether there is a directory for it.
    fn room(file: &Path) -> bool {
        fs::create_dir_all(file.parent().unwrap()).is_ok()
    }

    /// Takes a step where it can be taken.
    fn take(&self, step: &Step) {
        match step {
            Step::Write(at, content) => {
                if Self::room(&self.file(*at)) && !self.file(*at).is_dir() {
                    // Through no link.
                    Self::remove(&self.file(*at));
                    fs::write(self.file(*at), CONTENTS[*content]).unwrap();
                }
            }
            Step::Append(at) => {
                if self.file(*at).symlink_metadata().is_ok_and(|meta| meta.is_file()) {
                    let mut content = fs::read(self.file(*at)).unwrap();
                    content.extend_from_slice(b"more\n");
                    fs::write(self.file(*at), content).unwrap();
                }
            }
            Step::Delete(at) => Self::remove(&self.file(*at)),
            Step::Rename(from, to) => {
                if Self::room(&self.file(*to)) {
                    drop(fs::rename(self.file(*from), self.file(*to)));
                }
            }
            Step::Link(at, to) => {
                if Self::room(&self.file(*at)) && !self.file(*at).is_dir() {
                    Self::remove(&self.file(*at));
                    symlink(OsStr::from_bytes(PATHS[*to]), self.file(*at)).unwrap();
                }
            }
            Step::Executable(at) => {
                if self.file(*at).symlink_metadata().is_ok_and(|meta| meta.is_file()) {
                    let mode = fs::Permissions::from_mode(0o755);
                    fs::set_permissions(self.file(*at), mode).unwrap();
                }
            }
            Step::Ignore(top, rule) => self.write_beside(*top, ".gitignore", RULES[*rule]),
            Step::Attributes(top, line) => {
                self.write_beside(*top, ".gitattributes", ATTRIBUTES[*line]);
            }
            Step::Exclude(rule) => {
                fs::create_dir_all(self.repo.join("info")).unwrap();
                fs::write(self.repo.join("info/exclude"), RULES[*rule]).unwrap();
            }
            step => self.use_git(step),
        }
    }

    fn write_beside(&self, top: bool, name: &str, text: &str) {
        let dir = if top { self.top.clone() } else { self.top.join("sub") };
        if dir.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            fs::write(dir.join(name), text).unwrap();
        }
    }

    fn use_git(&self, step: &Step) {
        let name = |at: usize| OsStr::from_bytes(PATHS[at]).to_str();
        let top = &self.top;
        match step {
            Step::Add(at) => {
                if let Some(name) = name(*at) {
                    self.git(top, &["add", "--force", "--", name]);
                }
            }
            Step::Unstage(at) => {
                if let Some(name) = name(*at) {
                    self.git(top, &["rm", "-r", "-q", "--cached", "--", name]);
                }
            }
            Step::Refresh => self.git(top, &["status"]),
            Step::Commit => {
                self.git(top, &["add", "--all"]);
                self.git(top, &["commit", "-q", "-m", "work"]);
            }
            Step::Undo(hard) => {
                let how = if *hard { "--hard" } else { "--soft" };
                self.git(top, &["reset", "-q", how, "HEAD~1"]);
            }
            Step::Switch(number) => {
                self.git(top, &["switch", "-q", "-C", ["one", "two/three", "two/four"][*number]]);
            }
            // The target takes all that was done: the base moves.
            Step::Land => self.git(top, &["branch", "-f", "landed", "HEAD"]),
            Step::Pack => self.git(top, &["pack-refs", "--all"]),
            Step::Nested(at) => {
                let dir = self.file(*at);
                if dir.join(".git").symlink_metadata().is_err() && fs::create_dir_all(&dir).is_ok()
                {
                    self.git(&dir, &["init", "-q"]);
                    fs::write(dir.join("inner"), "x\n").unwrap();
                }
            }
            Step::CommitInside(at) => {
                let dir = self.file(*at);
                if dir.join(".git").symlink_metadata().is_ok() {
                    self.git(&dir, &["add", "--all"]);
                    self.git(&dir, &["commit", "-q", "--allow-empty", "-m", "inside"]);
                }
            }
            Step::Stash => self.git(top, &["stash", "-q"]),
            _ => {}
        }
    }
}

/// The parts of a patch, sorted: a plain one has what counts as gone after the others.
fn parts(patch: &[u8]) -> Vec<String> {
    let text = patch.escape_ascii().to_string().replace("\\n", "\n");
    let mut parts: Vec<String> = text.split("\ndiff --git ").map(str::to_owned).collect();
    for part in &mut parts {
        *part = part.trim_start_matches("diff --git ").trim_end().to_owned();
    }
    parts.sort();
    parts
}

/// Waits until what is told is the plain diff, patch included.
pub(crate) async fn agree(ports: &Ports, worktree: &Worktree, following: &mut Following) {
    loop {
        let before = ports.worktrees.diff(attempt(), worktree, DiffDetail::Patch).await.unwrap();
        following.settle(ports, worktree).await;
        let patch = before.patch.unwrap();
        if parts(&following.mirror.patch()) == parts(&patch) {
            return;
        }
        // The same files and counts, and another text: more is to be told.
        println!("waiting for {}", patch.escape_ascii());
        following.read_on().await.unwrap();
    }
}

fn run(batches: &[Vec<Step>]) {
    let place = GitPlace::default();
    windlass_conformance::block_on(async {
        let (ports, repo, mut worktree) = worktree(&place).await;
        // As if the attempt were for another branch than the one that it began from.
        worktree.target = Some("landed".to_owned());
        place.ok(&path(&repo), &["branch", "landed"]);
        let user = User { place: &place, repo: path(&worktree.repo), top: path(&worktree.path) };
        let mut following = Following::begin(&ports, &worktree, None).await;
        agree(&ports, &worktree, &mut following).await;
        for batch in batches {
            batch.iter().for_each(|step| user.take(step));
            agree(&ports, &worktree, &mut following).await;
        }
        let fingerprint = place.fingerprint(&worktree);
        let mut late = Following::begin(&ports, &worktree, None).await;
        agree(&ports, &worktree, &mut late).await;
        assert!(place.fingerprint(&worktree) == fingerprint, "index or objects were written");
    });
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 16,
        failure_persistence: None,
        max_shrink_iters: 0,
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_is_told_in_the_end_is_a_plain_diff(
        batches in prop::collection::vec(prop::collection::vec(step(), 1..6), 1..12),
    ) {
        run(&batches);
    }
}
