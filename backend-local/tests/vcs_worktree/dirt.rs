//! Random trees with random dirt of every kind: what is taken away comes back as it was.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use proptest::test_runner::Config;
use windlass_conformance::vcs_worktree::{MakeAtOnce as _, VcsWorktreePlace as _};
use windlass_core::vcs_worktree::{Origin, Removed, SaveRequest, Unfinished, VcsWorktreeExt as _};

use crate::place::{GitPlace, REMOVAL, attempt, path};
use crate::portrait::{assert_same, portrait};

/// How many worktrees are tried; each takes about half a second.
const CASES: u32 = 12;

/// Something that is done in a worktree. Where it cannot be done, nothing is.
#[derive(Clone, Debug)]
enum Dirt {
    Write(Vec<u8>, Vec<u8>),
    Holes(Vec<u8>, u64, u64),
    Delete(Vec<u8>),
    Dir(Vec<u8>),
    Link(Vec<u8>, Vec<u8>),
    Hard(Vec<u8>, Vec<u8>),
    Mode(Vec<u8>, u32),
    Time(Vec<u8>, i64, u32),
    Stage(Vec<u8>),
    StageAll,
    Intend(Vec<u8>),
    Hide(Vec<u8>),
    Commit,
    Detach,
    Undo,
    Nest(Vec<u8>, bool),
    Operate(u8),
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => prop::sample::select(vec![b"a".to_vec(), b"b".to_vec(), b"greeting".to_vec(), b"sub".to_vec(),
            b"numbers".to_vec(), b"A".to_vec(), b"x.log".to_vec(), b"ign".to_vec(), b".env".to_vec()]),
        1 => prop::collection::vec(prop::sample::select(
            b"\x01\n\t \"\\*?[]{}$'-.#!~\x7f\x80\xff\xc3\xa9zZ".to_vec()), 1..12),
        1 => Just(vec![b'n'; 255]),
    ]
    .prop_filter("a name", |name| {
        !matches!(name.as_slice(), b"." | b"..") && !name.eq_ignore_ascii_case(b".git")
    })
}

fn entry() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(name(), 1..4).prop_map(|names| names.join(&b'/'))
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(Vec::new()),
        prop::collection::vec(any::<u8>(), 1..100),
        Just(b"a\r\nb\r\n".to_vec()),
        (1_usize..3 << 20)
            .prop_map(|size| (0..size).map(|at| u8::try_from(at * 31 % 251).unwrap()).collect()),
    ]
}

fn dirt() -> impl Strategy<Value = Dirt> {
    prop_oneof![
        8 => (entry(), bytes()).prop_map(|(path, bytes)| Dirt::Write(path, bytes)),
        1 => (entry(), 1_u64 << 20..1 << 24, any::<u64>())
            .prop_map(|(path, size, at)| Dirt::Holes(path, size, at % size)),
        3 => entry().prop_map(Dirt::Delete),
        2 => entry().prop_map(Dirt::Dir),
        3 => (entry(), prop_oneof![entry(), Just(b"../../x".to_vec()), Just(b"/etc".to_vec())])
            .prop_map(|(path, target)| Dirt::Link(path, target)),
        2 => (entry(), entry()).prop_map(|(path, first)| Dirt::Hard(path, first)),
        3 => (entry(), 0_u32..0o10000).prop_map(|(path, mode)| Dirt::Mode(path, mode)),
        3 => (entry(), -1_000_000_i64..5_000_000_000, 0_u32..1_000_000_000)
            .prop_map(|(path, seconds, nanos)| Dirt::Time(path, seconds, nanos)),
        3 => entry().prop_map(Dirt::Stage),
        1 => Just(Dirt::StageAll),
        1 => entry().prop_map(Dirt::Intend),
        1 => entry().prop_map(Dirt::Hide),
        2 => Just(Dirt::Commit),
        1 => Just(Dirt::Detach),
        1 => Just(Dirt::Undo),
        1 => (entry(), any::<bool>()).prop_map(|(path, commit)| Dirt::Nest(path, commit)),
        1 => any::<u8>().prop_map(Dirt::Operate),
    ]
}

impl Dirt {
    fn perform(&self, place: &GitPlace, dir: &Path) {
        let at = |path: &[u8]| dir.join(OsStr::from_bytes(path));
        // A way that leads through a link leads out.
        let own = |path: &[u8]| {
            let relative = PathBuf::from(OsString::from_vec(path.to_vec()));
            relative.ancestors().skip(1).all(|above| !dir.join(above).is_symlink())
        };
        let with_parent = |path: &[u8]| {
            own(path)
                .then(|| at(path))
                .filter(|path| fs::create_dir_all(path.parent().unwrap()).is_ok())
        };
        match self {
            Self::Write(path, bytes) => {
                if let Some(path) = with_parent(path).filter(|path| !path.is_symlink()) {
                    drop(fs::write(path, bytes));
                }
            }
            Self::Holes(path, size, data) => {
                let path = with_parent(path).filter(|path| path.symlink_metadata().is_err());
                if let Some(file) = path.and_then(|path| File::create(path).ok()) {
                    file.set_len(*size).unwrap();
                    file.write_at(b"data", *data).unwrap();
                }
            }
            Self::Delete(path) if own(path) => {
                let path = at(path);
                if fs::remove_file(&path).is_err() {
                    drop(fs::remove_dir_all(path));
                }
            }
            Self::Dir(path) if own(path) => drop(fs::create_dir_all(at(path))),
            Self::Link(path, target) => {
                if let Some(path) = with_parent(path) {
                    drop(symlink(OsStr::from_bytes(target), path));
                }
            }
            Self::Hard(path, first) if own(first) => {
                if let Some(path) = with_parent(path) {
                    drop(fs::hard_link(at(first), path));
                }
            }
            Self::Mode(path, mode) if own(path) && !at(path).is_symlink() => {
                drop(fs::set_permissions(at(path), Permissions::from_mode(*mode)));
            }
            Self::Time(path, seconds, nanos) if own(path) && !at(path).is_symlink() => {
                let age = Duration::from_secs(seconds.unsigned_abs());
                let epoch = SystemTime::UNIX_EPOCH;
                let time = if *seconds < 0 { epoch - age } else { epoch + age };
                if let Ok(file) = File::open(at(path)) {
                    file.set_modified(time + Duration::from_nanos((*nanos).into())).unwrap();
                }
            }
            Self::Nest(path, commit) if own(path) && fs::create_dir_all(at(path)).is_ok() => {
                let nested = at(path);
                drop(place.git(&nested, &["init", "--quiet"]));
                drop(fs::write(nested.join("inside"), "x"));
                if *commit {
                    drop(place.git(&nested, &["add", "inside"]));
                    drop(place.git(&nested, &["commit", "--quiet", "--message", "inside"]));
                }
            }
            _ => self.ask_git(place, dir),
        }
    }

    /// What is not done to files but by git.
    fn ask_git(&self, place: &GitPlace, dir: &Path) {
        let git = |args: &[&OsStr]| {
            let args: Vec<&str> = args.iter().filter_map(|arg| arg.to_str()).collect();
            drop(place.git(dir, &args));
        };
        let os = OsStr::new;
        let named = |path: &[u8]| OsString::from_vec([b":(top,literal)".as_slice(), path].concat());
        match self {
            Self::Stage(path) => git(&[os("add"), os("--"), &named(path)]),
            Self::StageAll => git(&[os("add"), os("--all")]),
            Self::Intend(path) => git(&[os("add"), os("--intent-to-add"), os("--"), &named(path)]),
            Self::Hide(path) => {
                git(&[
                    os("update-index"),
                    os("--skip-worktree"),
                    os("--"),
                    OsStr::from_bytes(path),
                ]);
            }
            Self::Commit => {
                git(&["add", "--all"].map(os));
                git(&["commit", "--quiet", "--message", "more"].map(os));
            }
            Self::Detach => git(&["switch", "--quiet", "--detach"].map(os)),
            Self::Undo => git(&["reset", "--quiet", "HEAD~1"].map(os)),
            Self::Operate(which) => {
                let commands: [&[&str]; 4] = [
                    &["merge", "--quiet", "theirs"],
                    &["rebase", "--quiet", "--autostash", "theirs"],
                    &["cherry-pick", "theirs"],
                    &["bisect", "start", "HEAD", "theirs"],
                ];
                drop(place.git(dir, commands[usize::from(*which) % commands.len()]));
            }
            _ => {}
        }
    }
}

async fn comes_back(dirt: &[Dirt]) {
    let place = GitPlace::default();
    let repo = place.repository();
    place.write(&repo, ".gitignore", "*.log\nign\n.env\n");
    place.write(&repo, ".gitattributes", "numbers text eol=crlf\n");
    place.commit(&repo, "ignore");
    let source = path(&repo);
    place.ok(&source, &["switch", "--quiet", "--create", "theirs"]);
    place.write(&repo, "greeting", "theirs\n");
    place.commit(&repo, "theirs");
    place.ok(&source, &["switch", "--quiet", "main"]);
    place.write(&repo, "greeting", "ours\n");
    place.commit(&repo, "ours");
    let vcs = place.open().await;
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    let dir = path(&worktree.path);
    for dirt in dirt {
        dirt.perform(&place, &dir);
    }
    let before = portrait(&place, &worktree);
    let request = SaveRequest { unfinished: Unfinished::Save, ..REMOVAL };
    let saved = vcs.save_and_remove(attempt(1), &worktree, &request).await.unwrap();
    let snapshot = saved.snapshot.as_ref().map(|snapshot| snapshot.number);
    let removed = Removed { head: saved.head, branch: saved.branch, snapshot };
    if snapshot.is_none() {
        // Only permissions and times of what is committed may differ.
        let vcs = place.open().await;
        vcs.make(attempt(1), &worktree, &Origin::Removed(removed)).await.unwrap();
        let after = portrait(&place, &worktree);
        assert!(after.entries.keys().eq(before.entries.keys()), "{dirt:?}");
        assert_eq!(after.said[2], before.said[2]);
        return;
    }
    place.ok(&source, &["reflog", "expire", "--expire=now", "--all"]);
    place.ok(&source, &["gc", "--quiet", "--prune=now"]);
    let vcs = place.open().await;
    vcs.make(attempt(1), &worktree, &Origin::Removed(removed)).await.unwrap();
    assert_same(&portrait(&place, &worktree), &before);
    place.ok(&dir, &["fsck", "--no-dangling"]);
}

#[test]
fn whatever_was_done_comes_back() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let config = Config {
        cases: cases.unwrap_or(CASES),
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    };
    proptest!(config, |(dirt in prop::collection::vec(dirt(), 1..24))| {
        runtime.block_on(comes_back(&dirt));
    });
}
