//! Real source trees: what is made is what `git worktree add` makes.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use windlass_conformance::vcs_worktree::VcsWorktreePlace as _;
use windlass_core::vcs_worktree::{DiffDetail, VcsWorktreeExt as _};

use crate::place::{GitPlace, REMOVAL, attempt, locator, path};

/// How many real source trees there are to be.
const TREES: usize = 3;

/// The largest packages in the local cache of cargo, if there are any.
fn cached() -> Vec<PathBuf> {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let cache = home.map(|home| home.join("registry/cache"));
    let registries = cache.and_then(|cache| fs::read_dir(cache).ok()).into_iter().flatten();
    let mut crates: Vec<_> = registries
        .flat_map(|registry| fs::read_dir(registry.unwrap().path()).unwrap())
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.metadata().unwrap().len(), entry.path()))
        .filter(|(bytes, _)| *bytes < 4 << 20)
        .collect();
    crates.sort();
    crates.into_iter().rev().take(TREES).map(|(_, path)| path).collect()
}

/// A tree with what packages rarely have, and enough files.
fn synthetic(dir: &Path) {
    for number in 0..300 {
        let folder = dir.join(format!("folder {}", number % 17)).join("below");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("file-{number}")), "text\n".repeat(number)).unwrap();
    }
    fs::write(dir.join("crlf"), "a\r\nb\r\n").unwrap();
    fs::write(dir.join(".gitattributes"), "*.dos text eol=crlf\n").unwrap();
    fs::write(dir.join("line.dos"), "a\nb\n").unwrap();
    fs::write(dir.join("n".repeat(255)), "long\n").unwrap();
    fs::write(dir.join("script"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(dir.join("script"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("script", dir.join("link")).unwrap();
    fs::write(dir.join("CASE"), "upper\n").unwrap();
    fs::write(dir.join("case"), "lower\n").unwrap();
}

/// Everything that a checkout consists of, without times.
pub(crate) fn content(dir: &Path) -> Vec<(PathBuf, u32, Vec<u8>)> {
    let (mut seen, mut folders) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let relative = path.strip_prefix(dir).unwrap().to_owned();
            if relative == Path::new(".git") {
                continue;
            }
            let bytes = if meta.is_symlink() {
                fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
            } else if meta.is_dir() {
                folders.push(path);
                Vec::new()
            } else {
                fs::read(&path).unwrap()
            };
            seen.push((relative, meta.permissions().mode(), bytes));
        }
    }
    seen.sort();
    seen
}

#[tokio::test]
async fn what_is_made_is_what_git_makes() {
    let place = GitPlace::default();
    let sources = place.home().join("sources");
    fs::create_dir(&sources).unwrap();
    synthetic(&sources.join("synthetic"));
    let packages = cached();
    for package in &packages {
        let unpacked =
            Command::new("tar").arg("-xzf").arg(package).arg("-C").arg(&sources).status();
        assert!(unpacked.unwrap().success(), "{}", package.display());
    }
    if packages.len() < TREES {
        eprintln!("not run: {TREES} real source trees: cargo keeps {} here", packages.len());
    }
    let vcs = place.open().await;
    for (number, entry) in (1..).zip(fs::read_dir(&sources).unwrap()) {
        let dir = entry.unwrap().path();
        let repo = locator(&dir);
        place.ok(&dir, &["init", "--quiet"]);
        place.ok(&dir, &["add", "--all", "--force"]);
        place.ok(&dir, &["commit", "--quiet", "--message", "all"]);
        let ours = place.worktree(&*vcs, &repo, number).await.unwrap();
        let at = path(&ours.path);
        assert_eq!(place.ok(&at, &["status", "--porcelain"]), "");
        let theirs = place.home().join(format!("theirs {number}"));
        place.ok(&dir, &["worktree", "add", "--quiet", "--detach", theirs.to_str().unwrap()]);
        assert!(content(&at) == content(&theirs), "{} differs", dir.display());
        let index = ["ls-files", "--stage", "-v"];
        assert_eq!(place.ok(&at, &index), place.ok(&theirs, &index));
        place.ok(&dir, &["fsck", "--strict", "--no-dangling"]);
        assert!(!vcs.status(attempt(number), &ours).await.unwrap().dirty);
        let diff = vcs.diff(attempt(number), &ours, DiffDetail::Files).await.unwrap();
        assert!(diff.files.is_empty());
        vcs.save_and_remove(attempt(number), &ours, &REMOVAL).await.unwrap();
        assert!(place.branches(&repo).contains(&ours.branch));
    }
}
