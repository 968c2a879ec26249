//! What is made is what `git worktree add` makes: nasty repositories of every kind, each compared with git's own worktree.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use windlass_conformance::vcs_worktree::{MakeAtOnce as _, VcsWorktreePlace as _};
use windlass_core::vcs_worktree::{Origin, VcsWorktreeError, WorktreeRequest};
use windlass_local::{GitOptions, GitWorktrees};

use crate::place::{GitPlace, attempt, locator, path, write_program};
use crate::sources::content;

/// Who is to write the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// This process.
    Us,
    /// Git itself.
    Git,
}

/// A git that writes down which commands it is given.
struct Recorded {
    program: PathBuf,
    log: PathBuf,
}

impl Recorded {
    fn new(place: &GitPlace) -> Self {
        let (program, log) = (place.home().join("recording-git"), place.home().join("git.log"));
        let script = format!(
            "#!/bin/sh\nprintf '%s ' \"$@\" >> {log:?}\necho >> {log:?}\nexec git \"$@\"\n"
        );
        write_program(&program, script);
        Self { program, log }
    }

    /// Says who wrote the files since the last question.
    fn who(&self) -> Who {
        let log = String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned();
        fs::remove_file(&self.log).unwrap();
        let reset = log.lines().any(|line| line.contains(" reset --hard "));
        if reset { Who::Git } else { Who::Us }
    }
}

/// Makes a worktree of `dir` by us and one by git, and compares them.
async fn compare(place: &GitPlace, dir: &Path, base: Option<&str>, expected: Who) {
    compare_with(place, dir, base, expected, true).await;
}

/// As [`compare`]; what is not `normalised` may differ from its own index by its line ends, for git too.
async fn compare_with(
    place: &GitPlace,
    dir: &Path,
    base: Option<&str>,
    expected: Who,
    normalised: bool,
) {
    let recorded = Recorded::new(place);
    let options = GitOptions { program: recorded.program.clone(), ..place.options("data") };
    let vcs = GitWorktrees::open(options).await.unwrap();
    let vcs: &dyn windlass_core::vcs_worktree::VcsWorktree = &*vcs;
    let request =
        WorktreeRequest { base: base.map(str::to_owned), ..place.request(&locator(dir), 1) };
    let worktree = vcs.plan(request).await.unwrap().worktree;
    place.make(vcs, attempt(1), &worktree, &Origin::Base).await.unwrap();
    assert_eq!(recorded.who(), expected, "{}", dir.display());
    let (ours, theirs) = (path(&worktree.path), place.home().join("theirs"));
    let mut add = vec!["worktree", "add", "--quiet", "--detach", theirs.to_str().unwrap()];
    add.push(worktree.base_oid.0.as_str());
    place.ok(dir, &add);
    assert!(content(&ours) == content(&theirs), "files differ: {}", dir.display());
    let stages = ["ls-files", "--stage", "-v", "-z"];
    assert_eq!(place.ok(&ours, &stages), place.ok(&theirs, &stages));
    // Before any status: the index must be right as it is.
    let (stats, sizes) = (indexed(place, &ours), indexed(place, &theirs));
    for ((name, of_ours), (_, of_theirs)) in stats.iter().zip(&sizes) {
        assert_eq!(of_ours.size, of_theirs.size, "{name:?}");
        if let Ok(meta) = ours.join(name).symlink_metadata()
            && expected == Who::Us
        {
            let found = Indexed {
                mtime: format!("{}:{}", meta.mtime(), meta.mtime_nsec()),
                ino: (meta.ino() & 0xffff_ffff).to_string(),
                size: meta.size().to_string(),
            };
            assert_eq!(*of_ours, found, "{name:?}");
        }
    }
    let trees = ["--no-optional-locks", "write-tree"];
    let objects = place.ok(dir, &["count-objects", "-v"]);
    assert_eq!(place.ok(&ours, &trees), place.ok(&theirs, &trees));
    assert_eq!(place.ok(dir, &["count-objects", "-v"]), objects, "the trees are known");
    if normalised {
        for at in [&ours, &theirs] {
            assert_eq!(place.ok(at, &["status", "--porcelain"]), "");
        }
    }
    let listed = place.ok(dir, &["worktree", "list", "--porcelain"]);
    assert!(!listed.contains("locked") && !listed.contains("prunable"), "{listed}");
}

/// What an index says of a file.
#[derive(Debug, PartialEq, Eq)]
struct Indexed {
    mtime: String,
    ino: String,
    size: String,
}

/// Reads what the index of a worktree says of its files.
fn indexed(place: &GitPlace, at: &Path) -> Vec<(PathBuf, Indexed)> {
    let names = place.git(at, &["ls-files", "-z"]).stdout;
    let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let debug = place.git(at, &["ls-files", "-z", "--debug"]).stdout;
    let debug = String::from_utf8_lossy(&debug).into_owned();
    let stats = debug.split("  ctime: ").skip(1).map(|stat| {
        let after = |word: &str| {
            let (_, rest) = stat.split_once(word).unwrap();
            rest.split_whitespace().next().unwrap().to_owned()
        };
        Indexed { mtime: after("  mtime: "), ino: after("ino: "), size: after("  size: ") }
    });
    names.map(|name| PathBuf::from(OsStr::from_bytes(name))).zip(stats).collect()
}

async fn check(expected: Who, make: impl FnOnce(&GitPlace, &Path)) {
    check_with(expected, true, make).await;
}

async fn check_with(expected: Who, normalised: bool, make: impl FnOnce(&GitPlace, &Path)) {
    let place = GitPlace::default();
    let dir = place.home().join("repo");
    fs::create_dir(&dir).unwrap();
    place.ok(&dir, &["init", "--quiet"]);
    make(&place, &dir);
    compare_with(&place, &dir, None, expected, normalised).await;
    place.ok(&dir, &["fsck", "--strict", "--no-dangling"]);
}

fn commit_all(place: &GitPlace, dir: &Path) {
    place.ok(dir, &["add", "--all", "--force"]);
    place.ok(dir, &["commit", "--quiet", "--allow-empty", "--message", "all"]);
}

fn put(dir: &Path, name: impl AsRef<OsStr>, bytes: impl AsRef<[u8]>) {
    let file = dir.join(name.as_ref());
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, bytes).unwrap();
}

#[tokio::test]
async fn names_of_every_kind_are_written_by_us() {
    check(Who::Us, |place, dir| {
        put(dir, OsStr::from_bytes(b"raw \xff\xfe"), "1");
        put(dir, "n".repeat(255), "2");
        put(dir, "two\nlines", "3");
        put(dir, "tab\tand \"quotes\" \\ $x", "4");
        put(dir, "CASE/a", "5");
        put(dir, "case/a", "6");
        put(dir, "CASE/A", "7");
        put(dir, "-rf", "8");
        put(dir, "a", "9");
        put(dir, "a.b/c", "10");
        put(dir, "a-b", "11");
        put(dir, "cafe\u{301}", "12");
        put(dir, "caf\u{e9}", "13");
        let deep = vec!["deep"; 300].join("/");
        put(dir, format!("{deep}/file"), "14");
        put(dir, "empty", "");
        put(dir, "large", "0123456789abcdef".repeat(400_000));
        put(dir, "script", "#!/bin/sh\n");
        fs::set_permissions(dir.join("script"), fs::Permissions::from_mode(0o755)).unwrap();
        commit_all(place, dir);
    })
    .await;
}

#[tokio::test]
async fn links_of_every_kind_are_written_by_us() {
    check(Who::Us, |place, dir| {
        put(dir, "file", "1");
        put(dir, "folder/file", "2");
        for (target, name) in [
            ("file", "to-file"),
            ("folder", "to-folder"),
            ("nowhere", "dangling"),
            ("/etc/passwd", "out"),
            ("../../..", "up"),
            ("loop-b", "loop-a"),
            ("loop-a", "loop-b"),
            ("self", "self"),
        ] {
            symlink(target, dir.join(name)).unwrap();
        }
        symlink(OsStr::from_bytes(b"raw \xff"), dir.join("raw")).unwrap();
        symlink("x".repeat(1000), dir.join("long")).unwrap();
        commit_all(place, dir);
    })
    .await;
}

#[tokio::test]
async fn an_empty_tree_is_written_by_us() {
    check(Who::Us, commit_all).await;
}

#[tokio::test]
async fn line_ends_are_as_git_makes_them() {
    let attributes = [
        "",
        "* text=auto\n",
        "* text\n",
        "* -text\n",
        "* text eol=crlf\n",
        "* text=auto eol=lf\n",
        "* crlf\n*.lf -crlf\n",
        "*.dos text eol=crlf\n*.unix text eol=lf\nbin* binary\n[attr]mine text eol=crlf\n*.mine mine\n",
    ];
    let settings: [&[(&str, &str)]; 6] = [
        &[],
        &[("core.autocrlf", "true")],
        &[("core.autocrlf", "input")],
        &[("core.eol", "crlf")],
        &[("core.autocrlf", "false"), ("core.eol", "crlf")],
        &[("core.autocrlf", "true"), ("core.safecrlf", "true"), ("core.eol", "lf")],
    ];
    for (attributes, settings) in
        attributes.iter().flat_map(|a| settings.iter().map(move |s| (a, s)))
    {
        check_with(Who::Us, false, |place, dir| {
            // What is in the objects is as it was written, whatever the attributes say.
            for (name, bytes) in [
                ("lf", &b"a\nb\n"[..]),
                ("x.lf", b"a\nb\n"),
                ("crlf", b"a\r\nb\r\n"),
                ("mixed", b"a\r\nb\nc\r"),
                ("cr", b"a\rb\r"),
                ("bin", b"a\nb\0c\n"),
                ("x.dos", b"a\nb\n"),
                ("x.unix", b"a\r\nb\n"),
                ("x.mine", b"a\n"),
                ("none", b"a"),
                ("sub/x.dos", b"a\nb"),
                ("controls", b"\x01\x02\x03a\nb\n\x1a"),
            ] {
                put(dir, name, bytes);
            }
            commit_all(place, dir);
            if !attributes.is_empty() {
                put(dir, ".gitattributes", attributes);
                put(dir, "sub/.gitattributes", "x.dos -text\n");
                let added = ["add", ".gitattributes", "sub/.gitattributes"];
                place.ok(dir, &added);
                place.ok(dir, &["commit", "--quiet", "--message", "attributes"]);
            }
            for (key, value) in *settings {
                place.ok(dir, &["config", key, value]);
            }
        })
        .await;
    }
}

#[tokio::test]
async fn attributes_outside_of_the_tree_count() {
    check(Who::Us, |place, dir| {
        put(dir, "a.txt", "a\nb\n");
        put(dir, "b.dat", "a\nb\n");
        put(dir, "c.md", "a\nb\n");
        commit_all(place, dir);
        put(dir, ".git/info/attributes", "*.txt text eol=crlf\n");
        put(&place.home(), ".config/git/attributes", "*.dat text eol=crlf\n*.txt text eol=lf\n");
    })
    .await;
    check(Who::Us, |place, dir| {
        put(dir, "c.md", "a\nb\n");
        commit_all(place, dir);
        put(&place.home(), "attrs", "*.md text eol=crlf\n");
        put(&place.home(), ".gitconfig", "[core]\n\tattributesFile = ~/attrs\n");
    })
    .await;
}

#[tokio::test]
async fn filters_are_left_to_git_where_they_are_configured() {
    let filtered = |place: &GitPlace, dir: &Path| {
        put(dir, "a.up", "text\n");
        put(dir, "b", "text\n");
        put(dir, "sub/.gitattributes", "*.up filter=up\n");
        put(dir, "sub/c.up", "text\n");
        commit_all(place, dir);
    };
    check(Who::Us, filtered).await;
    check(Who::Git, |place, dir| {
        filtered(place, dir);
        place.ok(dir, &["config", "filter.up.smudge", "tr a-z A-Z"]);
        place.ok(dir, &["config", "filter.up.clean", "tr A-Z a-z"]);
    })
    .await;
    // A driver that nothing uses is no reason.
    check(Who::Us, |place, dir| {
        put(dir, "b", "text\n");
        commit_all(place, dir);
        place.ok(dir, &["config", "filter.up.smudge", "tr a-z A-Z"]);
    })
    .await;
}

#[tokio::test]
async fn what_only_git_knows_is_left_to_it() {
    type Make = fn(&GitPlace, &Path);
    fn plain(place: &GitPlace, dir: &Path) {
        put(dir, "a", "1\n");
        put(dir, "sub/b", "2\n");
        put(dir, "sub/c/d", "3\n");
        commit_all(place, dir);
    }
    let cases: [(&str, Make); 9] = [
        ("an identity in the file", |place, dir| {
            put(dir, ".gitattributes", "a ident\n");
            put(dir, "a", "$Id$\n");
            plain(place, dir);
        }),
        ("an encoding", |place, dir| {
            put(dir, ".gitattributes", "u working-tree-encoding=UTF-16LE\n");
            put(dir, "u", "a\0b\0".as_bytes());
            plain(place, dir);
        }),
        ("a sparse checkout", |place, dir| {
            plain(place, dir);
            place.ok(dir, &["sparse-checkout", "set", "--no-cone", "/a"]);
        }),
        ("a cone", |place, dir| {
            plain(place, dir);
            place.ok(dir, &["sparse-checkout", "set", "--cone", "sub/c"]);
        }),
        ("a sparse index", |place, dir| {
            plain(place, dir);
            place.ok(dir, &["sparse-checkout", "set", "--cone", "--sparse-index", "sub/c"]);
        }),
        ("no executable bits", |place, dir| {
            put(dir, "x", "#!/bin/sh\n");
            fs::set_permissions(dir.join("x"), fs::Permissions::from_mode(0o755)).unwrap();
            plain(place, dir);
            place.ok(dir, &["config", "core.fileMode", "false"]);
        }),
        ("no links", |place, dir| {
            symlink("a", dir.join("l")).unwrap();
            plain(place, dir);
            place.ok(dir, &["config", "core.symlinks", "false"]);
        }),
        ("a submodule that points nowhere", |place, dir| {
            plain(place, dir);
            let oid = place.ok(dir, &["rev-parse", "HEAD"]);
            put(dir, ".gitmodules", "[submodule \"m\"]\n\tpath = m\n\turl = /nonexistent\n");
            place.ok(dir, &["add", ".gitmodules"]);
            let link = format!("160000,{oid},m");
            place.ok(dir, &["update-index", "--add", "--cacheinfo", &link]);
            place.ok(dir, &["commit", "--quiet", "--message", "submodule"]);
        }),
        ("configuration of its own", |place, dir| {
            plain(place, dir);
            place.ok(dir, &["config", "extensions.worktreeConfig", "true"]);
            place.ok(dir, &["config", "--worktree", "core.autocrlf", "true"]);
        }),
    ];
    for (name, make) in cases {
        eprintln!("{name}");
        check(Who::Git, make).await;
    }
}

#[tokio::test]
async fn object_stores_of_every_kind_are_read() {
    // Packed with deltas, partly loose.
    check(Who::Us, |place, dir| {
        for number in 0..40 {
            put(dir, format!("f{number}"), format!("line {number}\n").repeat(300));
        }
        commit_all(place, dir);
        put(dir, "f0", "changed\n".repeat(300));
        commit_all(place, dir);
        place.ok(dir, &["gc", "--quiet", "--aggressive"]);
        put(dir, "loose", "1");
        commit_all(place, dir);
        place.ok(dir, &["pack-refs", "--all"]);
    })
    .await;
    // Replaced objects.
    check_with(Who::Us, false, |place, dir| {
        put(dir, "a", "before\n");
        commit_all(place, dir);
        put(dir, "other", "after\n");
        let other = place.ok(dir, &["hash-object", "-w", "other"]);
        fs::remove_file(dir.join("other")).unwrap();
        let blob = place.ok(dir, &["rev-parse", "HEAD:a"]);
        place.ok(dir, &["replace", &blob, &other]);
    })
    .await;
    // Borrowed objects, and a shallow history.
    for options in [&["--shared"][..], &["--no-local", "--depth=1"]] {
        let place = GitPlace::default();
        let (source, clone) = (place.repository(), place.home().join("clone"));
        place.write(&source, "more", "x\n");
        place.commit(&source, "second");
        let mut args = vec!["clone", "--quiet"];
        args.extend(options);
        args.extend([".", clone.to_str().unwrap()]);
        place.ok(&path(&source), &args);
        compare(&place, &clone, None, Who::Us).await;
    }
}

#[tokio::test]
async fn a_partial_clone_is_left_to_git_which_fetches_what_is_missing() {
    let place = GitPlace::default();
    let (source, clone) = (place.repository(), place.home().join("clone"));
    place.ok(&path(&source), &["config", "uploadpack.allowFilter", "true"]);
    place.ok(&path(&source), &["config", "uploadpack.allowAnySHA1InWant", "true"]);
    let url = format!("file://{}", path(&source).display());
    let args = ["clone", "--quiet", "--no-checkout", "--filter=blob:none", &url];
    place.ok(&place.home(), &[&args[..], &[clone.to_str().unwrap()]].concat());
    compare(&place, &clone, None, Who::Git).await;
}

#[tokio::test]
async fn other_formats_are_left_to_git() {
    for (option, who) in [("--object-format=sha256", Who::Git), ("--ref-format=reftable", Who::Git)]
    {
        let place = GitPlace::default();
        let dir = place.home().join("repo");
        fs::create_dir(&dir).unwrap();
        if !place.git(&dir, &["init", "--quiet", option]).status.success() {
            eprintln!("not run: this git has no {option}");
            continue;
        }
        put(&dir, "a", "1\n");
        commit_all(&place, &dir);
        compare(&place, &dir, None, who).await;
    }
}

#[tokio::test]
async fn every_kind_of_base_is_resolved() {
    let place = GitPlace::default();
    let dir = path(&place.repository());
    place.ok(&dir, &["tag", "--annotate", "--message", "x", "annotated"]);
    place.ok(&dir, &["tag", "light"]);
    let first = place.ok(&dir, &["rev-parse", "HEAD"]);
    put(&dir, "second", "2\n");
    commit_all(&place, &dir);
    let clone = place.home().join("clone");
    place.ok(&dir, &["clone", "--quiet", ".", clone.to_str().unwrap()]);
    place.ok(&clone, &["branch", "topic", "annotated"]);
    let vcs = place.open().await;
    for (base, oid, target) in [
        ("annotated", Some(&first), None),
        ("light", Some(&first), None),
        ("topic", Some(&first), Some("topic")),
        (&first[..12], Some(&first), None),
        ("HEAD~1", Some(&first), None),
        ("origin/main", None, None),
        ("refs/remotes/origin/main", None, None),
    ] {
        let request =
            WorktreeRequest { base: Some(base.to_owned()), ..place.request(&locator(&clone), 1) };
        let planned = vcs.plan(request).await.unwrap().worktree;
        if let Some(oid) = oid {
            assert_eq!(planned.base_oid.0, *oid, "{base}");
        }
        assert_eq!(planned.target.as_deref(), target, "{base}");
    }
    for base in ["nothing", "-x", "--all", "HEAD:second", "light^{tree}", "", "a..b", "^main"] {
        let request =
            WorktreeRequest { base: Some(base.to_owned()), ..place.request(&locator(&clone), 1) };
        let refused = vcs.plan(request).await;
        assert!(
            matches!(refused, Err(VcsWorktreeError::UnknownBase { .. })),
            "{base:?}: {refused:?}"
        );
    }
    compare(&place, &clone, Some("annotated"), Who::Us).await;
}

#[tokio::test]
async fn a_worktree_of_a_worktree_belongs_to_the_same_repository() {
    let place = GitPlace::default();
    let repo = place.repository();
    let linked = place.home().join("linked");
    place
        .ok(&path(&repo), &["worktree", "add", "--quiet", "-b", "topic", linked.to_str().unwrap()]);
    put(&linked, "topical", "x\n");
    commit_all(&place, &linked);
    let vcs = place.open().await;
    let planned = vcs.plan(place.request(&locator(&linked), 1)).await.unwrap().worktree;
    assert_eq!(path(&planned.repo), path(&repo).join(".git"));
    assert_eq!(planned.target.as_deref(), Some("topic"));
    drop(vcs);
    compare(&place, &linked, None, Who::Us).await;
}

#[tokio::test]
async fn a_tree_that_git_refuses_is_refused_with_its_message() {
    for name in [".git", "..", "git~1"] {
        let place = GitPlace::default();
        let repo = place.repository();
        let dir = path(&repo);
        let blob = place.ok(&dir, &["rev-parse", "HEAD:greeting"]);
        let raw = hex(&blob);
        let mut tree = format!("100644 {name}\0").into_bytes();
        tree.extend(raw);
        let file = place.home().join("tree");
        fs::write(&file, tree).unwrap();
        let write = ["hash-object", "--literally", "-t", "tree", "-w", file.to_str().unwrap()];
        let tree = place.ok(&dir, &write);
        let commit = place.ok(&dir, &["commit-tree", "-m", "nasty", &tree]);
        let vcs = place.open().await;
        let request = WorktreeRequest { base: Some(commit), ..place.request(&repo, 1) };
        let worktree = vcs.plan(request).await.unwrap().worktree;
        let refused = vcs.make(attempt(1), &worktree, &Origin::Base).await;
        assert!(matches!(refused, Err(VcsWorktreeError::Git { .. })), "{name}: {refused:?}");
        assert!(!path(&worktree.path).exists());
        assert_eq!(place.branches(&repo), ["main"]);
    }
}

fn hex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}

#[tokio::test]
async fn missing_objects_are_said_and_leave_nothing() {
    for what in ["HEAD:greeting", "HEAD^{tree}", "HEAD:sub"] {
        let place = GitPlace::default();
        let repo = place.repository();
        let dir = path(&repo);
        let vcs = place.open().await;
        let worktree = vcs.plan(place.request(&repo, 1)).await.unwrap().worktree;
        let oid = place.ok(&dir, &["rev-parse", what]);
        fs::remove_file(dir.join(".git/objects").join(&oid[..2]).join(&oid[2..])).unwrap();
        let refused = vcs.make(attempt(1), &worktree, &Origin::Base).await;
        let Err(VcsWorktreeError::Git { stderr, .. }) = refused else { panic!("{refused:?}") };
        let said = ["unable to read tree", "cannot read object"];
        assert!(said.iter().any(|said| stderr.contains(said)), "{what} {oid}: {stderr}");
        assert!(!path(&worktree.path).exists() && !dir.join(".git/worktrees").exists());
        assert_eq!(place.branches(&repo), ["main"]);
    }
}

/// A random tree: names from a nasty alphabet, files, executables and links.
fn trees() -> impl Strategy<Value = Vec<(Vec<Vec<u8>>, u8, Vec<u8>)>> {
    let byte = prop_oneof![
        8 => prop::sample::select(b"abAB.-_ ~".to_vec()),
        1 => prop::sample::select(vec![b'\n', b'"', b'\\', 0xff, 0xc3, b'*', b'[', b'!']),
    ];
    let name = prop::collection::vec(byte, 1..6)
        .prop_filter("a name of the system's own", |name| name != b"." && name != b"..");
    let path = prop::collection::vec(name, 1..4);
    let content = prop::collection::vec(prop::sample::select(b"x\n\r\0\xff".to_vec()), 0..40);
    prop::collection::vec((path, 0_u8..4, content), 0..25)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn random_trees_are_as_git_makes_them(tree in trees(), crlf in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let place = GitPlace::default();
        let dir = place.home().join("repo");
        fs::create_dir(&dir).unwrap();
        place.ok(&dir, &["init", "--quiet"]);
        for (parts, kind, bytes) in tree {
            let at = parts.iter().fold(dir.clone(), |at, part| at.join(OsStr::from_bytes(part)));
            // What is in the way of what stays away.
            if fs::create_dir_all(at.parent().unwrap()).is_err() || at.symlink_metadata().is_ok() {
                continue;
            }
            let target: Vec<u8> = bytes.iter().map(|byte| if *byte == 0 { b'0' } else { *byte }).collect();
            if kind == 0 && !target.is_empty() {
                symlink(OsStr::from_bytes(&target), &at).unwrap();
            } else {
                fs::write(&at, &bytes).unwrap();
                let mode = if kind == 1 { 0o755 } else { 0o644 };
                fs::set_permissions(&at, fs::Permissions::from_mode(mode)).unwrap();
            }
        }
        commit_all(&place, &dir);
        if crlf {
            place.ok(&dir, &["config", "core.autocrlf", "true"]);
        }
        runtime.block_on(compare_with(&place, &dir, None, Who::Us, !crlf));
    }
}
