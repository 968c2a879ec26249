//! The cap, and the full disk.

use std::path::Path;
use std::process::Command;

use windlass_core::shim::frame::{GapCause, Seal, missing_between};
use windlass_core::shim::message::Launch;

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
    let size: usize = log.iter().flat_map(|(_, items)| items).map(|item| match item {
        Item::Entry { bytes, .. } => bytes.len(),
        Item::Gap(_) => 0,
    }).sum();
    assert!(size <= 256 << 10 && size > 128 << 10, "{size}");
    let first = &log[0].1[0];
    assert!(matches!(first, Item::Entry { seq: 1, bytes, .. } if bytes.starts_with(b"000001\n")));
    let gaps = log.windows(2).filter_map(|pair| {
        missing_between(&pair[0].0, &covered(&pair[0].1), &pair[1].0)
    }).collect::<Vec<_>>();
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
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "none"]);
        let mut mount = { mount }.clone_into_owned();
        mount.arg(directory.path()).status().unwrap().success().then(|| Self(directory))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}
