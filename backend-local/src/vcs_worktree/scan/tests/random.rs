//! Random trees with random dirt.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::place::Place;

/// Names that meet each other as files and as directories.
const PATHS: [&[u8]; 14] = [
    b"a",
    b"b.txt",
    b"d",
    b"d/a",
    b"d/b.txt",
    b"d/e",
    b"d/e/f",
    b"d-",
    b"d.x",
    b"new\nline",
    b"raw\xff",
    b"A",
    b"target/out",
    b"d/target",
];
const CONTENTS: [&[u8]; 7] =
    [b"", b"one\n", b"two\n", b"a\r\nb\r\n", b"a\nb\n", b"$Id$\n", b"\0bin\r\n"];
const PATTERNS: [&str; 8] = [
    "target\n",
    "*.txt\n",
    "/d\n",
    "d/*\n!d/a\n",
    "d/\n",
    "!target\n",
    "**/e\n",
    "\n#\n\\!x\nraw*\n",
];
const ATTRIBUTES: [&str; 6] = [
    "* text=auto\n",
    "*.txt text eol=crlf\n",
    "* ident\n",
    "a -text\n",
    "a filter=up\n*.txt filter=up\n",
    "*.txt working-tree-encoding=UTF-16LE\n",
];
const CONFIG: [&[&str]; 6] = [
    &[],
    &["core.autocrlf", "true"],
    &["core.autocrlf", "input"],
    &["core.eol", "crlf"],
    &["core.fileMode", "false"],
    &["index.version", "4"],
];

#[derive(Clone, Debug)]
pub(in crate::vcs_worktree) enum Step {
    Write(usize, usize),
    Delete(usize),
    MakeDirectory(usize),
    Link(usize, usize),
    Executable(usize),
    Ignore(usize, usize),
    Attributes(usize, usize),
    Add(usize),
    AddForce(usize),
    Unstage(usize),
    IntendToAdd(usize),
    Hide(usize, bool),
    Nested(usize, bool),
    JunkGit(usize),
    Touch(usize),
    Pipe(usize),
    Refresh,
    Commit,
    Exclude(usize),
}

pub(in crate::vcs_worktree) fn step() -> impl Strategy<Value = Step> {
    let path = || 0..PATHS.len();
    prop_oneof![
        6 => (path(), 0..CONTENTS.len()).prop_map(|(path, content)| Step::Write(path, content)),
        3 => path().prop_map(Step::Delete),
        1 => path().prop_map(Step::MakeDirectory),
        1 => (path(), path()).prop_map(|(path, to)| Step::Link(path, to)),
        1 => path().prop_map(Step::Executable),
        1 => (0..3_usize, 0..PATTERNS.len()).prop_map(|(dir, pattern)| Step::Ignore(dir, pattern)),
        1 => (0..2_usize, 0..ATTRIBUTES.len()).prop_map(|(dir, line)| Step::Attributes(dir, line)),
        2 => path().prop_map(Step::Add),
        1 => path().prop_map(Step::AddForce),
        1 => path().prop_map(Step::Unstage),
        1 => path().prop_map(Step::IntendToAdd),
        1 => (path(), any::<bool>()).prop_map(|(path, skip)| Step::Hide(path, skip)),
        1 => (path(), any::<bool>()).prop_map(|(path, commit)| Step::Nested(path, commit)),
        1 => path().prop_map(Step::JunkGit),
        1 => path().prop_map(Step::Touch),
        1 => path().prop_map(Step::Pipe),
        1 => Just(Step::Refresh),
        1 => Just(Step::Commit),
        1 => (0..PATTERNS.len()).prop_map(Step::Exclude),
    ]
}

/// Takes a step where it can be taken.
#[expect(clippy::too_many_lines, reason = "one arm for each kind of step")]
pub(in crate::vcs_worktree) fn take(place: &Place, top: &std::path::Path, step: &Step) {
    let path = |at: usize| PathBuf::from(OsStr::from_bytes(PATHS[at]));
    let full = |at: usize| top.join(path(at));
    let text = |at: usize| OsStr::from_bytes(PATHS[at]);
    let git = |args: &[&str], at: usize| {
        let mut command = place.command(top);
        drop(
            command
                .env("GIT_LITERAL_PATHSPECS", "1")
                .args(args)
                .arg("--")
                .arg(text(at))
                .output()
                .unwrap(),
        );
    };
    let remove = |file: &PathBuf| {
        if file.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            drop(fs::remove_dir_all(file));
        } else {
            drop(fs::remove_file(file));
        }
    };
    let room = |file: &PathBuf| {
        remove(file);
        fs::create_dir_all(file.parent().unwrap()).is_ok()
    };
    match step {
        Step::Write(at, content) => {
            if full(*at).is_dir() || fs::create_dir_all(full(*at).parent().unwrap()).is_err() {
                return;
            }
            drop(fs::remove_file(full(*at)));
            drop(fs::write(full(*at), CONTENTS[*content]));
        }
        Step::Delete(at) => remove(&full(*at)),
        Step::MakeDirectory(at) => drop(fs::create_dir_all(full(*at))),
        Step::Link(at, to) => {
            if room(&full(*at)) {
                symlink(path(*to), full(*at)).unwrap();
            }
        }
        Step::Executable(at) => {
            let file = full(*at);
            if file.symlink_metadata().is_ok_and(|meta| meta.is_file()) {
                fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
            }
        }
        Step::Ignore(dir, pattern) => {
            let dir = top.join(["", "d", "target"][*dir]);
            if dir.is_dir() {
                fs::write(dir.join(".gitignore"), PATTERNS[*pattern]).unwrap();
            }
        }
        Step::Attributes(dir, line) => {
            let dir = top.join(["", "d"][*dir]);
            if dir.is_dir() {
                fs::write(dir.join(".gitattributes"), ATTRIBUTES[*line]).unwrap();
            }
        }
        Step::Add(at) => git(&["add"], *at),
        Step::AddForce(at) => git(&["add", "--force"], *at),
        Step::Unstage(at) => git(&["rm", "-r", "-q", "--cached"], *at),
        Step::IntendToAdd(at) => git(&["add", "-N"], *at),
        Step::Hide(at, skip) => {
            let flag = if *skip { "--skip-worktree" } else { "--assume-unchanged" };
            git(&["update-index", flag], *at);
        }
        Step::Nested(at, commit) => {
            let dir = full(*at);
            if dir.join(".git").symlink_metadata().is_ok() || fs::create_dir_all(&dir).is_err() {
                return;
            }
            place.tries(&dir, &["init", "-q"]);
            drop(fs::write(dir.join("inner"), "x\n"));
            if *commit {
                place.tries(&dir, &["add", "inner"]);
                place.tries(&dir, &["commit", "-q", "-m", "m"]);
            }
        }
        Step::JunkGit(at) => {
            let dir = full(*at);
            if dir.is_dir() && dir.join(".git").symlink_metadata().is_err() {
                fs::write(dir.join(".git"), "gitdir: nowhere\n").unwrap();
            }
        }
        Step::Touch(at) => {
            if full(*at).symlink_metadata().is_ok_and(|meta| meta.is_file()) {
                let file = fs::File::options().write(true).open(full(*at)).unwrap();
                file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000))
                    .unwrap();
            }
        }
        Step::Pipe(at) => {
            let taken = PATHS[*at].contains(&b'/') && !full(*at).parent().unwrap().is_dir();
            if !taken && full(*at).symlink_metadata().is_err() {
                let made = rustix::fs::mknodat(
                    rustix::fs::CWD,
                    full(*at),
                    rustix::fs::FileType::Fifo,
                    rustix::fs::Mode::from_raw_mode(0o600),
                    0,
                );
                made.unwrap();
            }
        }
        Step::Refresh => drop(place.tries(top, &["status", "--short"])),
        Step::Commit => drop(place.tries(top, &["commit", "-q", "-m", "later"])),
        Step::Exclude(pattern) => {
            fs::write(place.repo.join(".git/info/exclude"), PATTERNS[*pattern]).unwrap();
        }
    }
}

fn run(seed: &[Step], dirt: &[Step], config: usize, original: bool) {
    let place = Place::new(&[]);
    if let [key, value] = CONFIG[config] {
        place.git(&place.repo, &["config", key, value]);
    }
    place.git(&place.repo, &["config", "filter.up.smudge", "tr a-z A-Z"]);
    place.git(&place.repo, &["config", "filter.up.clean", "tr A-Z a-z"]);
    fs::write(place.repo.join("base"), "base\n").unwrap();
    for step in seed {
        take(&place, &place.repo, step);
    }
    // Nested repositories become submodules, some files are refused.
    drop(place.command(&place.repo).args(["add", "--all", "--ignore-errors"]).output().unwrap());
    place.git(&place.repo, &["commit", "-q", "--allow-empty", "-m", "m"]);
    place.worktree();
    if !original {
        place.forget();
    }
    for step in dirt {
        take(&place, &place.at, step);
    }
    place.check();
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_look_agrees_with_git_and_with_a_fresh_checkout(
        seed in prop::collection::vec(step(), 0..12),
        dirt in prop::collection::vec(step(), 0..16),
        config in 0..CONFIG.len(),
        original in any::<bool>(),
    ) {
        run(&seed, &dirt, config, original);
    }
}
