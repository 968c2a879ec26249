//! Reads HEAD and refs as git lays them out in files, without a git process.
//!
//! Whatever is out of the ordinary (another ref format, a symbolic ref to a symbolic ref, a link) is left to git itself.

use std::fs;
use std::io;
use std::path::{Component, Path};

use windlass_core::workspace::Oid;

/// Where refs of branches are.
pub(super) const HEADS: &str = "refs/heads/";

/// What HEAD names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// This commit, through this branch (without `refs/heads/`) or directly.
    Commit { oid: Oid, branch: Option<String> },
    /// A branch that has no commit.
    Unborn { branch: String },
    /// Something that only git can read.
    Unusual,
}

/// What a ref holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ref {
    Commit(Oid),
    Missing,
    Unusual,
}

/// Reads the HEAD of a worktree's private git directory.
pub(super) fn head(admin: &Path, common: &Path) -> io::Result<Head> {
    let file = admin.join("HEAD");
    if uses_tables(common) || !file.symlink_metadata()?.is_file() {
        return Ok(Head::Unusual);
    }
    let content = fs::read(&file)?;
    let line = content.trim_ascii_end();
    if let Some(oid) = oid(line) {
        return Ok(Head::Commit { oid, branch: None });
    }
    let name = line.strip_prefix(b"ref:").map(<[u8]>::trim_ascii_start);
    let Some(name) = name.and_then(|name| std::str::from_utf8(name).ok()) else {
        return Ok(Head::Unusual);
    };
    let Some(branch) = name.strip_prefix(HEADS) else { return Ok(Head::Unusual) };
    Ok(match read(common, name)? {
        Ref::Commit(oid) => Head::Commit { oid, branch: Some(branch.to_owned()) },
        Ref::Missing => Head::Unborn { branch: branch.to_owned() },
        Ref::Unusual => Head::Unusual,
    })
}

/// Reads a ref that all worktrees share, such as a branch.
pub(super) fn read(common: &Path, name: &str) -> io::Result<Ref> {
    let relative = Path::new(name);
    let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
    if !plain || uses_tables(common) {
        return Ok(Ref::Unusual);
    }
    match fs::read(common.join(relative)) {
        Ok(content) => Ok(oid(content.trim_ascii_end()).map_or(Ref::Unusual, Ref::Commit)),
        Err(error) if absent(&error) => packed(common, name),
        Err(error) => Err(error),
    }
}

fn packed(common: &Path, name: &str) -> io::Result<Ref> {
    let content = match fs::read(common.join("packed-refs")) {
        Ok(content) => content,
        Err(error) if absent(&error) => return Ok(Ref::Missing),
        Err(error) => return Err(error),
    };
    let found = content.split(|byte| *byte == b'\n').find_map(|line| {
        let space = line.len().checked_sub(name.len() + 1)?;
        (line[space] == b' ' && line.ends_with(name.as_bytes())).then(|| oid(&line[..space]))
    });
    Ok(match found {
        None => Ref::Missing,
        Some(oid) => oid.map_or(Ref::Unusual, Ref::Commit),
    })
}

/// The repository keeps its refs in tables, which only git reads.
fn uses_tables(common: &Path) -> bool {
    common.join("reftable").exists()
}

fn absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory
    )
}

/// Reads an object name of either hash.
pub(super) fn oid(text: &[u8]) -> Option<Oid> {
    let hex = matches!(text.len(), 40 | 64)
        && text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    hex.then(|| Oid(String::from_utf8_lossy(text).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "1191247b6d9a206f6ba3d8ac79e26d041dd86941";
    const B: &str = "2191247b6d9a206f6ba3d8ac79e26d041dd86941";

    #[test]
    fn loose_refs_win_over_packed_ones() {
        let dir = tempfile::tempdir().unwrap();
        let common = dir.path();
        fs::create_dir_all(common.join("refs/heads/a")).unwrap();
        fs::write(
            common.join("packed-refs"),
            format!("# pack-refs with: peeled\n{A} refs/heads/a\n{A} refs/heads/a/b\n^{B}\n{B} xrefs/heads/p\n"),
        )
        .unwrap();
        fs::write(common.join("refs/heads/a/b"), format!("{B}\n")).unwrap();
        fs::write(common.join("refs/heads/sym"), "ref: refs/heads/a\n").unwrap();
        for (name, expected) in [
            ("refs/heads/a", Ref::Commit(Oid(A.to_owned()))),
            ("refs/heads/a/b", Ref::Commit(Oid(B.to_owned()))),
            ("refs/heads/p", Ref::Missing),
            ("refs/heads/a/b/c", Ref::Missing),
            ("refs/heads/sym", Ref::Unusual),
            ("refs/heads/../../HEAD", Ref::Unusual),
        ] {
            assert_eq!(read(common, name).unwrap(), expected, "{name}");
        }
    }

    #[test]
    fn heads_are_attached_detached_unborn_or_left_to_git() {
        let dir = tempfile::tempdir().unwrap();
        let common = dir.path();
        fs::create_dir_all(common.join("refs/heads")).unwrap();
        fs::write(common.join("refs/heads/m"), format!("{A}\n")).unwrap();
        let commit = |branch: Option<&str>| Head::Commit {
            oid: Oid(A.to_owned()),
            branch: branch.map(str::to_owned),
        };
        for (content, expected) in [
            ("ref: refs/heads/m\n".to_owned(), commit(Some("m"))),
            (format!("{A}\n"), commit(None)),
            ("ref: refs/heads/none\n".to_owned(), Head::Unborn { branch: "none".to_owned() }),
            ("ref: refs/bisect/x\n".to_owned(), Head::Unusual),
            ("garbage".to_owned(), Head::Unusual),
        ] {
            fs::write(common.join("HEAD"), &content).unwrap();
            assert_eq!(head(common, common).unwrap(), expected, "{content:?}");
        }
        fs::create_dir(common.join("reftable")).unwrap();
        assert_eq!(head(common, common).unwrap(), Head::Unusual);
    }
}
