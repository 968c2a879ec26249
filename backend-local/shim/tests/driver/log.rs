//! The cap, and the full disk.

use std::path::Path;
use std::process::Command;

use windlass_core::outcome::Outcome;
use windlass_core::shim::frame::{GapCause, Seal, missing_between};
use windlass_core::shim::message::{Launch, Request};

use crate::place::Item;
use crate::{Place, script};

/// Returns the numbers that a segment covers: up to which, and how many bytes.
fn covered(items: &[Item]) -> Seal {
    let mut seal = Seal { last_seq: 0, bytes: 0, dropped: 0, entries: 0 };
    for item in items {
        match item {
            Item::Entry { seq, len, .. } => {
                (seal.last_seq, seal.bytes) = (*seq, seal.bytes + len);
            }
            Item::Gap(gap) => (seal.last_seq, seal.bytes) = (gap.last_seq, seal.bytes + gap.bytes),
        }
    }
    seal
}

#[test]
fn the_cap_keeps_head_and_tail_and_the_gap_between_them_is_exact() {
    let place = Place::new();
    let launch = Launch { log_cap_bytes: 256 << 10, ..script("seq -w 1 200000") };
    let report = place.launch(launch).finished();
    assert_eq!(report.bytes, 200_000 * 7);
    let log = place.log();
    let size: usize = log
        .iter()
        .flat_map(|(_, items)| items)
        .map(|item| match item {
            Item::Entry { bytes, .. } => bytes.len(),
            Item::Gap(_) => 0,
        })
        .sum();
    assert!(size <= 256 << 10 && size > 128 << 10, "{size}");
    let first = &log[0].1[0];
    assert!(matches!(first, Item::Entry { seq: 1, bytes, .. } if bytes.starts_with(b"000001\n")));
    let gaps = log
        .windows(2)
        .filter_map(|pair| missing_between(&pair[0].0, &covered(&pair[0].1), &pair[1].0))
        .collect::<Vec<_>>();
    let [gap] = gaps[..] else { panic!("{gaps:?}") };
    assert_eq!(gap.bytes as usize, 1_400_000 - size);
    assert_eq!(gap.bytes, report.dropped_bytes);
    let last = log.last().map(|(_, items)| covered(items)).unwrap();
    assert_eq!(last.last_seq, report.last_seq);
}

/// A file system of one megabyte, unmounted when it is dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// Mounts it; `None` if we may not.
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(directory.path());
        mount.status().unwrap().success().then(|| Self(directory))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_a_gap_and_logging_goes_on_after_it() {
    let Some(disk) = SmallDisk::mount() else {
        println!("not run: mounting a file system of its own needs privileges");
        return;
    };
    let place = Place::under(disk.path());
    let ballast = place.path("ballast");
    std::fs::write(&ballast, vec![0; 900 << 10]).unwrap();
    let fifo = place.make_fifo("fifo");
    let text = format!("head -c 300000 /dev/zero; echo >$READY; read go < {fifo}; echo back");
    let mut host = place.launch(script(&text));
    host.ready();
    // What was written before the word is read before the answer to a later request.
    host.say(&Request::Status);
    host.welcome();
    std::fs::remove_file(&ballast).unwrap();
    std::fs::write(&fifo, "go\n").unwrap();
    let report = host.finished();
    assert_eq!(report.exit.outcome, Outcome::Exited { code: 0 }, "the command is not harmed");
    let items = place.log().into_iter().flat_map(|(_, items)| items).collect::<Vec<_>>();
    let (mut next, mut bytes, mut gaps) = (1, 0, Vec::new());
    for item in &items {
        match item {
            Item::Entry { seq, len, .. } => {
                assert_eq!(*seq, next);
                (next, bytes) = (seq + 1, bytes + len);
            }
            Item::Gap(gap) => {
                assert_eq!((gap.first_seq, gap.cause), (next, GapCause::Full));
                (next, bytes) = (gap.last_seq + 1, bytes + gap.bytes);
                gaps.push(*gap);
            }
        }
    }
    assert_eq!((next - 1, bytes), (report.last_seq, 300_005));
    assert!(!gaps.is_empty());
    assert_eq!(gaps.iter().map(|gap| gap.bytes).sum::<u64>(), report.dropped_bytes);
    assert!(!report.output_incomplete, "everything that is missing has a gap");
    let last = items.last();
    assert!(matches!(last, Some(Item::Entry { bytes, .. }) if bytes == b"back\n"), "{last:?}");
}
