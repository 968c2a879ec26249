//! Who works in a worktree: processes that outlived their execution, or a person's shell.
//!
//! A process works in it if its current or root directory is there, if it has a file there open for writing or mapped into
//! its memory so that writing there writes the file, or a directory by which it could write one. Those that we may not
//! look at are not seen; without a `/proc` nobody is. Neither are this process and its own git, which only looks unless it
//! holds the repository's lock.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::identity::{Pidfd, Stat, StatRead};

/// How many are named.
const NAMED: usize = 4;
/// How long whoever is there may take to leave: after each commit git stays for a moment, to look whether there is
/// something to tidy up.
const PATIENCE: Duration = Duration::from_millis(500);
/// The access mode in the flags that the kernel prints in octal; 0 is reading.
const ACCESS: u32 = 0o3;

/// Says how a process works below a path, if it does.
type How = fn(process: &Path, path: &Path) -> Option<String>;

/// A process that works below a path.
struct Occupant {
    pid: u32,
    name: String,
    how: String,
}

/// Names the processes that stand below `path` or have something open there, and do not end within a moment: number,
/// command name, and how. Blocking.
pub(super) fn occupants(path: &Path) -> Vec<String> {
    patiently(path, works_in)
}

/// As [`occupants`], the processes that have a file below `path` mapped for writing. That takes longer, a microsecond for
/// each mapping that there is.
pub(super) fn mappers(path: &Path) -> Vec<String> {
    patiently(path, maps_in)
}

fn patiently(path: &Path, how: How) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = look(path, how);
        let left = deadline.saturating_duration_since(Instant::now());
        if found.is_empty() || left.is_zero() {
            return named(&found);
        }
        wait_for_any(&found, left);
    }
}

fn named(found: &[Occupant]) -> Vec<String> {
    let first = found.iter().take(NAMED);
    let mut names: Vec<String> =
        first.map(|Occupant { pid, name, how }| format!("process {pid} ({name}) {how}")).collect();
    match found.len().saturating_sub(NAMED) {
        0 => {}
        more => names.push(format!("{more} more")),
    }
    names
}

/// Waits until one of them has ended, as long as that may take.
fn wait_for_any(occupants: &[Occupant], most: Duration) {
    let mut opened = Vec::new();
    for occupant in occupants {
        match Pidfd::open(occupant.pid) {
            Ok(process) => opened.push(process),
            Err(Errno::SRCH) => return,
            // It is looked for again when the time is over.
            Err(_) => {}
        }
    }
    let mut ends: Vec<_> = opened.iter().map(|end| PollFd::new(end, PollFlags::IN)).collect();
    let most = Timespec {
        tv_sec: i64::try_from(most.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: most.subsec_nanos().into(),
    };
    // However it ends, what counts is the next look.
    let _ = poll(&mut ends, Some(&most));
}

fn look(path: &Path, how: How) -> Vec<Occupant> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if pid == std::process::id() {
            continue;
        }
        let Some(how) = how(&entry.path(), path) else { continue };
        let name = match Stat::read(pid) {
            StatRead::Found(stat) if stat.is_dead() => continue,
            StatRead::Found(stat) if stat.parent == std::process::id() && stat.name == "git" => {
                continue;
            }
            StatRead::Found(stat) => stat.name,
            StatRead::Gone => continue,
            StatRead::Unreadable => "?".to_owned(),
        };
        found.push(Occupant { pid, name, how });
    }
    found
}

fn works_in(process: &Path, path: &Path) -> Option<String> {
    let leads = |link: PathBuf| fs::read_link(link).is_ok_and(|target| target.starts_with(path));
    if leads(process.join("cwd")) || leads(process.join("root")) {
        return Some("stands in it".to_owned());
    }
    for descriptor in fs::read_dir(process.join("fd")).ok()?.flatten() {
        let descriptor = descriptor.path();
        let Ok(target) = fs::read_link(&descriptor) else { continue };
        let Ok(below) = target.strip_prefix(path) else { continue };
        let name = descriptor.file_name().unwrap_or_default();
        let is_directory = || fs::metadata(&descriptor).is_ok_and(|meta| meta.is_dir());
        if may_write(&process.join("fdinfo").join(name)) || is_directory() {
            let below = below.display().to_string();
            let below = if below.is_empty() { ".".to_owned() } else { below };
            return Some(format!("has {} open", below.escape_debug()));
        }
    }
    None
}

fn maps_in(process: &Path, path: &Path) -> Option<String> {
    let maps = fs::read(process.join("maps")).ok()?;
    let below = mapped_for_writing(&maps, path)?;
    Some(format!("has {} mapped for writing", below.display().to_string().escape_debug()))
}

/// Finds a file below `path` in a list of mappings that is shared with whoever reads it and may be written to.
fn mapped_for_writing(maps: &[u8], path: &Path) -> Option<PathBuf> {
    maps.split(|byte| *byte == b'\n').find_map(|line| {
        // Addresses, permissions (`rw-s`), offset, device and inode with a space after each, then blanks and the file.
        let permissions = line.split(|byte| *byte == b' ').nth(1)?;
        if !permissions.contains(&b'w') || !permissions.contains(&b's') {
            return None;
        }
        let file = &line[line.iter().position(|byte| *byte == b'/')?..];
        let file = PathBuf::from(OsString::from_vec(unescaped(file)));
        file.strip_prefix(path).ok().map(Path::to_owned)
    })
}

/// The kernel writes a line's end in a name as `\012`, and nothing else otherwise than it is.
fn unescaped(name: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((first, after)) = rest.split_first() {
        (plain, rest) = match rest.strip_prefix(br"\012") {
            Some(after) => {
                plain.push(b'\n');
                (plain, after)
            }
            None => {
                plain.push(*first);
                (plain, after)
            }
        };
    }
    plain
}

/// Says whether a descriptor is open for writing. One that is gone again is not.
fn may_write(info: &Path) -> bool {
    let Ok(text) = fs::read_to_string(info) else { return false };
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    // What cannot be read is taken for the worse.
    flags.is_none_or(|flags| flags & ACCESS != 0)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A shell that has said that it is ready; it ends when its standard input is closed.
    fn shell(script: &str, path: &Path) -> Child {
        let script = format!("{script}\necho ready; read line");
        let mut child = Command::new("sh")
            .args(["-c", &script, "sh"])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        child
    }

    #[test]
    fn whoever_could_write_is_named_and_a_reader_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let inside = fs::canonicalize(dir.path()).unwrap().join("inside");
        fs::create_dir(&inside).unwrap();
        fs::write(inside.join("file"), "x").unwrap();
        for (script, how) in [
            (r#"cd "$1""#, Some("stands in it")),
            (r#"exec 3>>"$1/file""#, Some("has file open")),
            (r#"exec 3<"$1""#, Some("has . open")),
            (r#"exec 3<"$1/file""#, None),
            ("", None),
        ] {
            let mut child = shell(script, &inside);
            let found = occupants(&inside);
            drop(child.stdin.take());
            child.wait().unwrap();
            match how {
                Some(how) => {
                    let expected = format!("process {} (sh) {how}", child.id());
                    assert_eq!(found, [expected], "{script}");
                }
                None => assert!(found.is_empty(), "{script}: {found:?}"),
            }
        }
        assert!(occupants(&inside).is_empty());
    }

    #[test]
    fn mappings_that_write_a_file_below_are_told_from_others() {
        let line = |permissions: &str, file: &str| {
            format!("7f00-7f01 {permissions} 00000000 fd:00 42                         {file}\n")
        };
        let below = Path::new("/w\n/a b");
        let found = |lines: &[String]| mapped_for_writing(lines.concat().as_bytes(), below);
        let own = r"/w\012/a b/sub/f";
        assert_eq!(found(&[line("rw-s", own)]), Some("sub/f".into()));
        assert_eq!(found(&[line("r--s", own), line("rw-p", own)]), None);
        assert_eq!(
            found(&[line("rw-s", r"/w\012/a bc"), line("rw-s", "/dev/zero (deleted)")]),
            None
        );
        assert_eq!(found(&[line("rw-s", ""), line("-w-s", own)]), Some("sub/f".into()));
    }

    #[test]
    fn whoever_leaves_in_a_moment_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let inside = fs::canonicalize(dir.path()).unwrap();
        let mut child = shell(r#"cd "$1""#, &inside);
        let stdin = child.stdin.take();
        assert_eq!(look(&inside, works_in).len(), 1);
        let looking = std::thread::spawn(move || occupants(&inside));
        drop(stdin);
        assert!(looking.join().unwrap().is_empty());
        child.wait().unwrap();
    }
}
