//! Kinds that are rare, each by name.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;

use sha2::{Digest as _, Sha256};

use super::place::Place;
use crate::vcs_worktree::copied::{self, Copied};
use crate::vcs_worktree::scan::Standing::{self, Changed, CopiedIn, Ignored, Nested, Untracked};
use crate::vcs_worktree::tree::{Entry, stamp};

/// A repository with files `a`, `d/b` and `x` (executable), and its worktree.
fn place(init: &[&str], config: &[(&str, &str)]) -> Place {
    let place = Place::new(init);
    for (key, value) in config {
        place.git(&place.repo, &["config", key, value]);
    }
    fs::create_dir(place.repo.join("d")).unwrap();
    for (file, content) in [("a", "a\n"), ("d/b", "b\n"), ("x", "#!/bin/sh\n")] {
        fs::write(place.repo.join(file), content).unwrap();
    }
    fs::set_permissions(place.repo.join("x"), fs::Permissions::from_mode(0o755)).unwrap();
    place.commit(&place.repo);
    place.worktree();
    place
}

fn plain() -> Place {
    place(&[], &[])
}

/// What must be found; everything is checked against git besides.
#[track_caller]
fn check(place: &Place, expected: &[(&str, Standing)]) {
    place.check();
    let expected: Vec<_> =
        expected.iter().map(|(path, standing)| ((*path).to_owned(), *standing)).collect();
    assert_eq!(place.standings(), expected);
}

#[test]
fn a_fresh_worktree_has_nothing_that_differs() {
    let place = plain();
    check(&place, &[]);
    assert!(!place.scan().index_differs);
}

#[test]
fn a_change_of_the_same_length_at_the_same_time_is_seen() {
    let place = plain();
    let file = place.at.join("a");
    let before = file.metadata().unwrap().modified().unwrap();
    fs::write(&file, "b\n").unwrap();
    fs::File::options().write(true).open(&file).unwrap().set_modified(before).unwrap();
    check(&place, &[("a", Changed)]);
}

#[test]
fn a_file_that_was_only_touched_is_the_same() {
    let place = plain();
    fs::write(place.at.join("a"), "a\n").unwrap();
    fs::set_permissions(place.at.join("a"), fs::Permissions::from_mode(0o600)).unwrap();
    check(&place, &[]);
    assert!(!place.is_dirty());
}

#[test]
fn what_git_was_told_not_to_look_at_is_looked_at() {
    for flag in ["--assume-unchanged", "--skip-worktree"] {
        let place = plain();
        place.git(&place.at, &["update-index", flag, "a", "d/b"]);
        place.write("a", "hidden\n");
        fs::remove_file(place.at.join("d/b")).unwrap();
        check(&place, &[("a", Changed), ("d", Untracked)]);
        assert!(place.scan().index_differs, "{flag}");
        assert!(!place.is_dirty(), "git is told not to look: {flag}");
    }
}

#[test]
fn an_intended_addition_and_a_staged_one_are_untracked_by_head() {
    let place = plain();
    place.write("intended", "x\n");
    place.write("staged", "x\n");
    place.git(&place.at, &["add", "-N", "intended"]);
    place.git(&place.at, &["add", "staged"]);
    check(&place, &[("intended", Untracked), ("staged", Untracked)]);
    assert!(place.scan().index_differs);
}

#[test]
fn a_change_that_is_staged_and_undone_leaves_the_file_the_same() {
    let place = plain();
    place.write("a", "other\n");
    place.git(&place.at, &["add", "a"]);
    place.write("a", "a\n");
    check(&place, &[]);
    assert!(place.scan().index_differs && place.is_dirty());
}

#[test]
fn unmerged_paths_are_changed() {
    let place = plain();
    place.write("a", "ours\n");
    place.commit(&place.at);
    fs::write(place.repo.join("a"), "theirs\n").unwrap();
    place.commit(&place.repo);
    assert!(!place.tries(&place.at, &["merge", "-q", "main"]));
    check(&place, &[("a", Changed)]);
    assert!(place.scan().index_differs && place.is_dirty());
}

#[test]
fn submodules_are_their_own_repositories() {
    let place = Place::new(&[]);
    let library = place.home().join("library");
    fs::create_dir(&library).unwrap();
    place.git(&library, &["init", "-q"]);
    fs::write(library.join("f"), "f\n").unwrap();
    place.commit(&library);
    place.git(&place.repo, &["submodule", "-q", "add", library.to_str().unwrap(), "lib"]);
    place.commit(&place.repo);
    place.worktree();
    check(&place, &[]);
    place.git(&place.at, &["submodule", "-q", "update", "--init"]);
    check(&place, &[("lib/.git", Nested), ("lib/f", Nested)]);
    assert!(!place.is_dirty());
    place.write("lib/new", "x\n");
    check(&place, &[("lib/.git", Nested), ("lib/f", Nested), ("lib/new", Nested)]);
    assert!(place.is_dirty());
    fs::remove_file(place.at.join("lib/new")).unwrap();
    place.git(&place.at.join("lib"), &["commit", "-q", "--allow-empty", "-m", "on"]);
    place.check();
    assert!(place.is_dirty());
    fs::remove_dir_all(place.at.join("lib")).unwrap();
    place.check();
    assert_eq!(place.scan().deleted, [std::path::Path::new("lib")]);
}

#[test]
fn an_empty_directory_in_the_place_of_an_indexed_file_is_not_ignored() {
    let place = plain();
    place.write(".gitignore", "/out\n");
    place.write("out", "x\n");
    place.git(&place.at, &["add", "--force", "out"]);
    fs::remove_file(place.at.join("out")).unwrap();
    fs::create_dir(place.at.join("out")).unwrap();
    check(&place, &[(".gitignore", Untracked), ("out", Untracked)]);
    place.write("out/inside", "x\n");
    check(&place, &[(".gitignore", Untracked), ("out/inside", Ignored)]);
}

#[test]
fn nested_repositories_are_nested_whole_also_where_they_are_ignored() {
    let place = plain();
    for (dir, commit) in [("n", true), ("unborn", false), ("ignored/n", true)] {
        fs::create_dir_all(place.at.join(dir)).unwrap();
        place.git(&place.at.join(dir), &["init", "-q"]);
        place.write(format!("{dir}/.gitignore"), "out\n");
        place.write(format!("{dir}/out"), "x\n");
        if commit {
            place.commit(&place.at.join(dir));
        }
    }
    place.write("ignored/file", "x\n");
    place.write(".gitignore", "ignored\n");
    place.check();
    let standings = place.standings();
    let others: Vec<_> = standings.iter().filter(|(_, standing)| *standing != Nested).collect();
    assert_eq!(
        others,
        [&(".gitignore".to_owned(), Untracked), &("ignored/file".to_owned(), Ignored)]
    );
    for path in ["n/out", "unborn/out", "ignored/n/out", "n/.git/HEAD", "unborn/.git/HEAD"] {
        assert!(standings.contains(&(path.to_owned(), Nested)), "{path}");
    }
}

#[test]
fn a_repository_around_tracked_files_does_not_hide_them() {
    let place = plain();
    place.git(&place.at.join("d"), &["init", "-q"]);
    place.write("d/b", "changed\n");
    place.check();
    let others: Vec<_> =
        place.standings().into_iter().filter(|(_, standing)| *standing != Nested).collect();
    assert_eq!(others, [("d/b".to_owned(), Changed)]);
}

#[test]
fn a_bare_repository_is_untracked_file_by_file() {
    let place = plain();
    place.git(&place.at, &["init", "-q", "--bare", "bare"]);
    place.check();
    assert!(place.standings().contains(&("bare/HEAD".to_owned(), Untracked)));
}

#[test]
fn a_sparse_checkout_misses_nothing_and_shows_what_is_there_all_the_same() {
    for index in ["--no-sparse-index", "--sparse-index"] {
        let place = plain();
        place.git(&place.at, &["sparse-checkout", "set", "--cone", index, "e"]);
        assert!(!place.at.join("d").exists());
        place.check();
        assert_eq!(place.standings(), []);
        assert!(place.scan().deleted.is_empty());
        place.write("d/b", "b\n");
        place.write("d/new", "x\n");
        assert_eq!(
            place.standings(),
            [("d/b".to_owned(), Changed), ("d/new".to_owned(), Untracked)],
            "{index}"
        );
        place.write("d/b", "other\n");
        assert!(place.is_dirty());
    }
}

#[test]
fn every_source_of_ignore_rules_counts() {
    let place = Place::new(&[]);
    fs::write(place.repo.join("tracked.log"), "x\n").unwrap();
    fs::write(place.repo.join(".gitignore"), "*.log\nbuild/\n").unwrap();
    place.git(&place.repo, &["add", "--force", "."]);
    place.commit(&place.repo);
    let user = place.home().join("user-ignore");
    fs::write(&user, "*.user\n").unwrap();
    place.git(&place.repo, &["config", "core.excludesFile", "~/user-ignore"]);
    fs::write(place.repo.join(".git/info/exclude"), "*.mine\n").unwrap();
    place.worktree();
    for path in
        ["a.user", "a.mine", "a.log", "build/deep/er", "s/kept.log", "s/other.log", "build.txt"]
    {
        place.write(path, "x\n");
    }
    place.write("s/.gitignore", "!kept.log\n");
    place.write("tracked.log", "changed\n");
    check(
        &place,
        &[
            ("a.log", Ignored),
            ("a.mine", Ignored),
            ("a.user", Ignored),
            ("build/deep/er", Ignored),
            ("build.txt", Untracked),
            ("s/.gitignore", Untracked),
            ("s/kept.log", Untracked),
            ("s/other.log", Ignored),
            ("tracked.log", Changed),
        ],
    );
}

#[test]
fn the_users_default_ignore_file_counts() {
    let place = plain();
    let folder = place.home().join(".config/git");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("ignore"), "*.swp\n").unwrap();
    place.write("a.swp", "x\n");
    check(&place, &[("a.swp", Ignored)]);
    assert!(!place.is_dirty());
}

#[test]
fn rules_that_a_link_or_a_pipe_holds_are_no_rules() {
    let place = plain();
    fs::write(place.home().join("rules"), "*\n").unwrap();
    symlink(place.home().join("rules"), place.at.join(".gitignore")).unwrap();
    fifo(&place.at.join("d/.gitignore"));
    place.write("d/new", "x\n");
    // Git itself would wait for the pipe for ever.
    assert_eq!(
        place.standings(),
        [".gitignore", "d/.gitignore", "d/new"].map(|path| (path.to_owned(), Untracked))
    );
    assert!(place.is_dirty());
}

#[test]
fn names_that_differ_only_in_case_are_different() {
    let place = plain();
    fs::rename(place.at.join("a"), place.at.join("A")).unwrap();
    check(&place, &[("A", Untracked)]);
    assert_eq!(place.scan().deleted, [std::path::Path::new("a")]);
    let place = self::place(&[], &[("core.ignoreCase", "true")]);
    place.write("A", "x\n");
    // By its bytes it is not what HEAD has; what git shows is left to git.
    assert_eq!(place.standings(), [("A".to_owned(), Untracked)]);
    place.is_dirty();
}

#[test]
fn executable_bits_count_also_where_git_was_told_not_to_trust_them() {
    for config in ["true", "false"] {
        let place = plain();
        place.git(&place.repo, &["config", "core.fileMode", config]);
        fs::set_permissions(place.at.join("a"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(place.at.join("x"), fs::Permissions::from_mode(0o644)).unwrap();
        check(&place, &[("a", Changed), ("x", Changed)]);
        assert_eq!(place.is_dirty(), config == "true");
    }
}

#[test]
fn a_file_system_without_links_has_files_instead() {
    let place = Place::new(&[]);
    symlink("target", place.repo.join("link")).unwrap();
    place.commit(&place.repo);
    place.git(&place.repo, &["config", "core.symlinks", "false"]);
    place.worktree();
    assert!(place.at.join("link").symlink_metadata().unwrap().is_file());
    check(&place, &[]);
    assert!(!place.is_dirty());
    place.write("link", "elsewhere");
    check(&place, &[("link", Changed)]);
}

#[test]
fn links_are_compared_by_where_they_lead_and_never_followed() {
    let place = Place::new(&[]);
    symlink("one", place.repo.join("link")).unwrap();
    fs::create_dir(place.repo.join("d")).unwrap();
    fs::write(place.repo.join("d/f"), "f\n").unwrap();
    place.commit(&place.repo);
    place.worktree();
    let outside = place.home().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("f"), "f\n").unwrap();
    fs::remove_dir_all(place.at.join("d")).unwrap();
    symlink(&outside, place.at.join("d")).unwrap();
    fs::remove_file(place.at.join("link")).unwrap();
    symlink("link", place.at.join("link")).unwrap();
    check(&place, &[("d", Untracked), ("link", Changed)]);
    assert_eq!(place.scan().deleted, [std::path::Path::new("d/f")]);
}

#[test]
fn files_and_directories_take_each_others_place() {
    let place = plain();
    fs::remove_file(place.at.join("a")).unwrap();
    place.write("a/inside", "x\n");
    fs::remove_dir_all(place.at.join("d")).unwrap();
    place.write("d", "x\n");
    fs::remove_file(place.at.join("x")).unwrap();
    fs::create_dir(place.at.join("x")).unwrap();
    check(&place, &[("a/inside", Untracked), ("d", Untracked), ("x", Untracked)]);
    let deleted = place.scan().deleted;
    assert_eq!(deleted, ["a", "d/b", "x"].map(std::path::PathBuf::from));
}

#[test]
fn special_files_are_listed_as_such() {
    let place = plain();
    fifo(&place.at.join("pipe"));
    fs::remove_file(place.at.join("a")).unwrap();
    fifo(&place.at.join("a"));
    let socket = UnixListener::bind(place.at.join("socket")).unwrap();
    check(&place, &[("a", Changed), ("pipe", Untracked), ("socket", Untracked)]);
    let scan = place.scan();
    for name in ["a", "pipe", "socket"] {
        assert!(matches!(scan.listing.entries[OsStr::new(name)], Entry::Special(_)), "{name}");
    }
    drop(socket);
}

#[test]
fn names_may_be_anything_that_the_system_takes() {
    let long = "n".repeat(255);
    let names: [&[u8]; 4] = [b"new\nline", b"raw\xff", b"tab\tquote\"\\", long.as_bytes()];
    let place = Place::new(&[]);
    for name in names {
        fs::write(place.repo.join(OsStr::from_bytes(name)), "x\n").unwrap();
    }
    place.commit(&place.repo);
    place.worktree();
    check(&place, &[]);
    for name in names {
        place.write(OsStr::from_bytes(name), "y\n");
        place.write(OsStr::from_bytes(&[b"u/", name].concat()), "y\n");
    }
    place.check();
    assert_eq!(place.standings().len(), 8);
}

#[test]
fn every_form_of_index_is_read() {
    for config in [
        ("index.version", "4"),
        ("core.splitIndex", "true"),
        ("index.skipHash", "true"),
        ("core.untrackedCache", "true"),
    ] {
        let place = place(&[], &[config]);
        check(&place, &[]);
        place.write("a", "changed\n");
        place.write("d/new", "x\n");
        place.git(&place.at, &["add", "d/new"]);
        check(&place, &[("a", Changed), ("d/new", Untracked)]);
    }
}

#[test]
fn repositories_with_longer_object_names_are_read() {
    let place = place(&["--object-format=sha256"], &[]);
    check(&place, &[]);
    assert!(!place.is_dirty());
    place.write("a", "changed\n");
    place.write("new", "x\n");
    place.git(&place.at, &["add", "new"]);
    check(&place, &[("a", Changed), ("new", Untracked)]);
}

#[test]
fn an_index_that_is_gone_or_damaged_hides_nothing() {
    for damage in [None, Some(&b""[..]), Some(b"DIRC\0\0\0\x02\0\0\0\x09"), Some(&[0; 4096])] {
        let place = plain();
        place.write("a", "changed\n");
        place.write("new", "x\n");
        fs::remove_file(place.at.join("d/b")).unwrap();
        let index = place.admin().join("index");
        match damage {
            None => fs::remove_file(index).unwrap(),
            Some(content) => fs::write(index, content).unwrap(),
        }
        let standings = place.standings();
        let expected = [("a", Changed), ("d", Untracked), ("new", Untracked)];
        assert_eq!(standings, expected.map(|(path, standing)| (path.to_owned(), standing)));
        let scan = place.scan();
        assert!(scan.index_differs);
        assert_eq!(scan.deleted, [std::path::Path::new("d/b")]);
    }
}

#[test]
fn what_git_takes_for_unchanged_after_a_conversion_is_changed_by_its_bytes() {
    let place = Place::new(&[]);
    fs::write(place.repo.join(".gitattributes"), "*.txt text\n*.bin -text\n").unwrap();
    for file in ["one.txt", "two.txt", "three.bin"] {
        fs::write(place.repo.join(file), "1\n2\n").unwrap();
    }
    place.commit(&place.repo);
    place.worktree();
    check(&place, &[]);
    place.write("one.txt", "1\r\n2\r\n");
    place.write("three.bin", "1\r\n2\r\n");
    place.git(&place.at, &["add", "one.txt"]);
    check(&place, &[("one.txt", Changed), ("three.bin", Changed)]);
    place.write("three.bin", "1\n2\n");
    assert!(!place.is_dirty());
    // Without the memory of the checkout too.
    place.forget();
    check(&place, &[("one.txt", Changed)]);
}

#[test]
fn what_a_checkout_converts_is_the_same_in_its_converted_form() {
    for original in [true, false] {
        let place = Place::new(&[]);
        fs::write(place.repo.join(".gitattributes"), "*.dos text eol=crlf\n*.id ident\n").unwrap();
        fs::write(place.repo.join("line.dos"), "1\n2\n").unwrap();
        fs::write(place.repo.join("name.id"), "$Id$\n").unwrap();
        place.commit(&place.repo);
        place.worktree();
        if !original {
            place.forget();
        }
        check(&place, &[]);
        // The same bytes, written anew.
        for file in ["line.dos", "name.id"] {
            let content = fs::read(place.at.join(file)).unwrap();
            fs::remove_file(place.at.join(file)).unwrap();
            place.write(file, content);
        }
        check(&place, &[]);
        // The bytes of the object are not what a checkout gives.
        place.write("line.dos", "1\n2\n");
        place.write("name.id", "$Id$\n");
        check(&place, &[("line.dos", Changed), ("name.id", Changed)]);
    }
}

#[test]
fn a_driver_is_never_run_and_what_it_made_is_known_by_its_checkout() {
    let place = Place::new(&[]);
    let ran = place.home().join("ran");
    let driver = |what: &str| format!("touch {}; {what}", ran.display());
    fs::write(place.repo.join(".gitattributes"), "*.up filter=up\n").unwrap();
    fs::write(place.repo.join("one.up"), "one\n").unwrap();
    fs::write(place.repo.join("two.up"), "two\n").unwrap();
    place.commit(&place.repo);
    place.git(&place.repo, &["config", "filter.up.smudge", &driver("tr a-z A-Z")]);
    place.git(&place.repo, &["config", "filter.up.clean", &driver("tr A-Z a-z")]);
    place.worktree();
    // What is as young as the index proves nothing, and here nothing is to be proven by content.
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(2);
    for index in ["index", "windlass-index"] {
        let index = fs::File::options().write(true).open(place.admin().join(index)).unwrap();
        index.set_modified(later).unwrap();
    }
    place.write("two.up", "TWO\n");
    fs::remove_file(&ran).unwrap();
    assert_eq!(place.standings(), [("two.up".to_owned(), Changed)]);
    assert!(!ran.exists());
}

#[test]
fn attributes_are_heads_and_the_users() {
    let place = plain();
    // Not committed: a checkout of HEAD does not know them.
    place.write(".gitattributes", "* text eol=crlf\n");
    place.write("a", "a\n");
    check(&place, &[(".gitattributes", Untracked)]);
    let place = plain();
    let file = place.home().join("attributes");
    fs::write(&file, "a text eol=crlf\n").unwrap();
    place.git(&place.repo, &["config", "core.attributesFile", file.to_str().unwrap()]);
    place.write("a", "a\r\n");
    check(&place, &[]);
    place.write("a", "a\n");
    check(&place, &[("a", Changed)]);
}

#[test]
fn what_was_copied_in_is_told_until_it_changes() {
    let place = plain();
    place.write(".gitignore", ".env\n");
    place.write(".env", "secret\n");
    place.write("notes", "copied\n");
    let from = |name: &str, text: &str| fs::write(place.repo.join(name), text).unwrap();
    from(".env", "secret\n");
    from("notes", "copied\n");
    let entry = |name: &str| {
        let file = place.at.join(name);
        let stat = rustix::fs::lstat(&file).unwrap();
        let sha256 = Sha256::digest(fs::read(&file).unwrap()).into();
        (name.into(), Copied { stamp: stamp(&stat), sha256 })
    };
    copied::write(&place.admin(), &[entry(".env"), entry("notes")].into()).unwrap();
    let standings = |expected: [(&str, Standing); 3]| {
        assert_eq!(place.standings(), expected.map(|(path, one)| (path.to_owned(), one)));
    };
    standings([(".env", CopiedIn), (".gitignore", Untracked), ("notes", CopiedIn)]);
    // Written anew with the same bytes, and changed to others of the same length.
    fs::remove_file(place.at.join(".env")).unwrap();
    place.write(".env", "secret\n");
    place.write("notes", "COPIED\n");
    standings([(".env", CopiedIn), (".gitignore", Untracked), ("notes", Untracked)]);
    // What exists nowhere else any more: the place that it came from has other bytes, a link to them, or nothing.
    from(".env", "public\n");
    standings([(".env", Ignored), (".gitignore", Untracked), ("notes", Untracked)]);
    fs::remove_file(place.repo.join(".env")).unwrap();
    std::os::unix::fs::symlink(place.at.join(".env"), place.repo.join(".env")).unwrap();
    standings([(".env", Ignored), (".gitignore", Untracked), ("notes", Untracked)]);
    fs::remove_file(place.repo.join(".env")).unwrap();
    standings([(".env", Ignored), (".gitignore", Untracked), ("notes", Untracked)]);
    from(".env", "secret\n");
    standings([(".env", CopiedIn), (".gitignore", Untracked), ("notes", Untracked)]);
    place.write(".env", "public\n");
    fs::write(place.admin().join(copied::FILE), "damaged").unwrap();
    standings([(".env", Ignored), (".gitignore", Untracked), ("notes", Untracked)]);
}

#[test]
fn replaced_objects_are_what_git_shows() {
    let place = plain();
    let rev = |what: &str| String::from_utf8(place.git(&place.at, &["rev-parse", what])).unwrap();
    let head = rev("HEAD");
    place.write("a", "other\n");
    place.git(&place.at, &["commit", "-q", "-a", "-m", "other"]);
    let other = rev("HEAD");
    place.git(&place.at, &["reset", "-q", "--hard", head.trim()]);
    place.git(&place.at, &["replace", head.trim(), other.trim()]);
    assert!(place.is_dirty());
    assert_eq!(place.standings(), [("a".to_owned(), Changed)]);
    assert!(place.scan().index_differs);
}

#[test]
fn what_is_mounted_inside_is_not_looked_into() {
    if !rustix::process::geteuid().is_root() {
        println!("not run: mounting needs root");
        return;
    }
    let place = plain();
    fs::create_dir(place.at.join("mounted")).unwrap();
    let home = place.home();
    let Some(memory) = Mounted::new(&["-t", "tmpfs", "none"], &place.at.join("mounted")) else {
        println!("not run: the system mounts nothing here");
        return;
    };
    fs::create_dir(home.join("elsewhere")).unwrap();
    let elsewhere = home.join("elsewhere");
    let bound =
        Mounted::new(&["--bind", elsewhere.to_str().unwrap()], &place.at.join("d")).unwrap();
    place.write("mounted/inside", "x\n");
    let standings = place.standings();
    let listing = place.scan().listing;
    for name in ["mounted", "d"] {
        assert!(matches!(listing.entries[OsStr::new(name)], Entry::Mount), "{name}");
    }
    let expected = [("d", Changed), ("mounted", Untracked)];
    assert_eq!(standings, expected.map(|(path, one)| (path.to_owned(), one)));
    assert!(place.scan().deleted.is_empty());
    drop((memory, bound));
}

/// Something that is mounted until this is dropped.
struct Mounted(std::path::PathBuf);

impl Mounted {
    fn new(args: &[&str], at: &std::path::Path) -> Option<Self> {
        let mounted = std::process::Command::new("mount").args(args).arg(at).status().ok()?;
        mounted.success().then(|| Self(at.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(std::process::Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}

fn fifo(path: &std::path::Path) {
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
}

#[test]
fn a_tree_that_is_deeper_than_any_path_is_closed_where_paths_end() {
    let place = plain();
    let mut dir =
        rustix::fs::open(&place.at, rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap();
    for _ in 0..3000 {
        rustix::fs::mkdirat(&dir, "n", rustix::fs::Mode::from_raw_mode(0o755)).unwrap();
        dir = rustix::fs::openat(&dir, "n", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty())
            .unwrap();
    }
    drop(dir);
    let scan = place.scan();
    let [only] = scan.differing.as_slice() else { panic!("{} entries", scan.differing.len()) };
    assert_eq!(only.standing, Untracked);
    assert!(!place.is_dirty(), "git shows no empty directory");
    // The standard library would hold a descriptor for each level.
    let removed = std::process::Command::new("rm").arg("-rf").arg(place.at.join("n")).status();
    assert!(removed.unwrap().success());
}
