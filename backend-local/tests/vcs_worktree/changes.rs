//! Diffs.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use windlass_conformance::vcs_worktree::VcsWorktreePlace as _;
use windlass_core::locator::Locator;
use windlass_core::vcs_worktree::{
    ChangeKind, DiffDetail, Identity, StepPlan, VcsWorktreeExt as _,
};

use crate::commits::step;
use crate::place::{GitPlace, attempt, path};

/// Makes every kind of change that a patch can carry.
pub(crate) fn make_a_mess(place: &GitPlace, dir: &Locator) {
    let at = path(dir);
    place.write(dir, "greeting", "hello\nworld\n");
    place.make_executable(dir, "sub/numbers");
    place.write(dir, "no newline", "x");
    place.write(dir, "new\nline \"quoted\" \t tab", "1\n");
    place.write(dir, "größe", "1\n");
    fs::write(at.join(std::ffi::OsStr::from_bytes(b"raw \xff")), "raw\n").unwrap();
    fs::write(at.join("binary"), [0, 1, 2, 255, 0, 254]).unwrap();
    fs::write(at.join("empty"), "").unwrap();
    symlink("greeting", at.join("link")).unwrap();
    symlink("/nonexistent/\nplace", at.join("broken link")).unwrap();
    fs::remove_file(at.join("file")).unwrap();
    place.write(dir, "file/is/a/directory/now", "x\n");
    fs::remove_dir_all(at.join("directory")).unwrap();
    place.write(dir, "directory", "is a file now\n");
    fs::remove_file(at.join("becomes link")).unwrap();
    symlink("elsewhere", at.join("becomes link")).unwrap();
    fs::rename(at.join("wanderer"), at.join("sub/wanderer")).unwrap();
    fs::remove_file(at.join("case")).unwrap();
    place.write(dir, "CASE", "case\n");
}

pub(crate) fn seed(place: &GitPlace) -> Locator {
    let repo = place.repository();
    place.write(&repo, "file", "a file\n");
    place.write(&repo, "directory/a", "a\n");
    place.write(&repo, "directory/b", "b\n");
    place.write(&repo, "becomes link", "text\n");
    place.write(&repo, "wanderer", "one\ntwo\nthree\nfour\n");
    place.write(&repo, "case", "Case\n");
    fs::write(path(&repo).join("binary"), [0, 9, 9, 9]).unwrap();
    place.commit(&repo, "seed");
    repo
}

/// The tree that a checkout would commit.
fn tree(place: &GitPlace, dir: &Path) -> String {
    place.ok(dir, &["add", "--all"]);
    place.ok(dir, &["write-tree"])
}

#[tokio::test]
async fn a_patch_makes_the_worktree_of_its_base_and_looking_writes_nothing() {
    let place = GitPlace::default();
    let repo = seed(&place);
    let vcs = place.open().await;
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    place.write(&worktree.path, "committed", "1\n");
    place.commit(&worktree.path, "work");
    make_a_mess(&place, &worktree.path);
    place.ok(&path(&worktree.path), &["add", "größe", "greeting"]);
    place.write(&worktree.path, "greeting", "hello\nworld\nagain\n");
    let before = place.fingerprint(&worktree);
    let diff = vcs.diff(attempt(1), &worktree, DiffDetail::Patch).await.unwrap();
    let listed = vcs.diff(attempt(1), &worktree, DiffDetail::Files).await.unwrap();
    vcs.status(attempt(1), &worktree).await.unwrap();
    vcs.plan(place.request(&worktree.path, 2)).await.unwrap();
    vcs.plan_commit(attempt(1), &worktree, "m", &fallback()).await.unwrap();
    assert!(before == place.fingerprint(&worktree), "index or objects were written");
    assert_eq!(listed.files, diff.files);
    let patch = place.home().join("patch");
    fs::write(&patch, diff.patch.unwrap()).unwrap();
    let other = place.home().join("applied");
    place.ok(&path(&repo), &["worktree", "add", "--detach", other.to_str().unwrap(), &diff.base.0]);
    place.ok(&other, &["apply", "--index", patch.to_str().unwrap()]);
    assert_eq!(tree(&place, &other), tree(&place, &path(&worktree.path)));
    let find = |name: &[u8]| {
        let found = diff.files.iter().find(|file| file.path.as_bytes() == name);
        found.unwrap_or_else(|| panic!("{} in {:?}", name.escape_ascii(), diff.files))
    };
    let binary = find(b"binary");
    assert_eq!((binary.change, binary.added, binary.removed), (ChangeKind::Modified, None, None));
    assert_eq!(find(b"becomes link").change, ChangeKind::TypeChanged);
    assert_eq!(find(b"sub/wanderer").change, ChangeKind::Renamed);
    assert_eq!(find(b"link").mode.as_deref(), Some("120000"));
    assert!(find(b"raw \xff").untracked && find(b"new\nline \"quoted\" \t tab").untracked);
    assert!(!find("größe".as_bytes()).untracked);
    assert_eq!(find(b"file").change, ChangeKind::Deleted);
    assert_eq!(find(b"greeting").added, Some(2));
}

#[tokio::test]
async fn a_change_within_one_tick_of_the_index_is_seen() {
    let place = GitPlace::default();
    let repo = place.repository();
    let vcs = place.open().await;
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    let (dir, at) = (&worktree.path, path(&worktree.path));
    let index = path(&worktree.repo).join("worktrees").join(at.file_name().unwrap()).join("index");
    place.ok(&at, &["config", "core.trustctime", "false"]);
    // The same size and time as the index says, and the index is as old as the file: git must look inside.
    let stamp = fs::metadata(at.join("greeting")).unwrap().modified().unwrap();
    let file = fs::File::options().write(true).open(at.join("greeting")).unwrap();
    place.write(dir, "greeting", "HELLO\n");
    file.set_modified(stamp).unwrap();
    fs::File::options().write(true).open(&index).unwrap().set_modified(stamp).unwrap();
    place.write(dir, "untracked", "x\n");
    let diff = vcs.diff(attempt(1), &worktree, DiffDetail::Files).await.unwrap();
    let paths: Vec<_> = diff.files.iter().map(|file| file.path.to_string()).collect();
    assert_eq!(paths, ["greeting", "untracked"]);
}

#[tokio::test]
async fn submodules_and_nested_repositories_are_named() {
    let place = GitPlace::default();
    let (repo, library) = (place.repository(), place.repository());
    let library = path(&library);
    place.ok(&path(&repo), &["submodule", "--quiet", "add", library.to_str().unwrap(), "lib"]);
    place.commit(&repo, "with a submodule");
    let vcs = place.open().await;
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    let at = path(&worktree.path);
    assert!(!vcs.status(attempt(1), &worktree).await.unwrap().dirty);
    place.ok(&at, &["submodule", "--quiet", "update", "--init"]);
    place.ok(&at.join("lib"), &["commit", "--quiet", "--allow-empty", "--message", "moved on"]);
    place.repository_at(&at.join("nested"));
    fs::create_dir(at.join("unborn")).unwrap();
    place.ok(&at.join("unborn"), &["init", "--quiet"]);
    let diff = vcs.diff(attempt(1), &worktree, DiffDetail::Patch).await.unwrap();
    let seen: Vec<_> = diff
        .files
        .iter()
        .map(|file| (file.path.to_string(), file.change, file.mode.as_deref(), file.untracked))
        .collect();
    let link = Some("160000");
    assert_eq!(
        seen,
        [
            ("lib".to_owned(), ChangeKind::Modified, link, false),
            ("nested".to_owned(), ChangeKind::Added, link, true),
            ("unborn".to_owned(), ChangeKind::Added, link, true),
        ]
    );
    let patch = String::from_utf8(diff.patch.unwrap()).unwrap();
    let head = place.ok(&at.join("nested"), &["rev-parse", "HEAD"]);
    assert!(patch.contains(&format!("+Subproject commit {head}")), "{patch}");
    // A commit takes the submodule's new commit and leaves what is nobody's submodule.
    let step = step(&*vcs, &worktree, "submodule").await;
    assert_eq!(place.run_step(&step), (Some(0), String::new()));
    let committed = place.ok(&at, &["show", "--format=", "--name-only"]);
    assert_eq!(committed, "lib");
    let plan = vcs.plan_commit(attempt(1), &worktree, "m", &fallback()).await.unwrap();
    assert!(matches!(plan, StepPlan::Nothing { .. }), "{plan:?}");
}

#[tokio::test]
async fn a_target_that_is_gone_or_unrelated_leaves_the_base() {
    let place = GitPlace::default();
    let repo = place.repository();
    place.switch(&repo, "side");
    let vcs = place.open().await;
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    assert_eq!(worktree.target.as_deref(), Some("side"));
    place.write(&worktree.path, "ours", "x\n");
    place.commit(&worktree.path, "ours");
    place.ok(&path(&repo), &["checkout", "--quiet", "--orphan", "fresh"]);
    place.commit(&repo, "another beginning");
    place.ok(&path(&repo), &["branch", "--force", "side", "fresh"]);
    let names = async || {
        let diff = vcs.diff(attempt(1), &worktree, DiffDetail::Files).await.unwrap();
        diff.files.iter().map(|file| file.path.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names().await, ["ours"]);
    place.ok(&path(&repo), &["branch", "-D", "side"]);
    assert_eq!(names().await, ["ours"]);
    let status = vcs.status(attempt(1), &worktree).await.unwrap();
    assert_eq!((status.ahead, status.behind), (1, 0));
}

pub(crate) fn fallback() -> Identity {
    Identity { name: "Fallback".to_owned(), email: "fallback@example.org".to_owned() }
}
