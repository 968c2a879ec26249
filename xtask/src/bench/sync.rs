//! Small durable writes: what a disk allows, which every durable step pays.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;

use super::Bench;
use super::measure::{Contender, Sample, interleave};
use super::report::{Report, Unit};
use crate::failure::{Doing, Failure};

/// Bytes of one record, about as much as a small record of the store.
const RECORD: [u8; 220] = [0x5a; 220];

/// A file whose blocks are there already, so that a sync need not change its size.
#[derive(Debug)]
pub(crate) struct Preallocated {
    file: File,
    at: u64,
    len: u64,
}

impl Preallocated {
    pub(crate) fn new(bench: &Bench, name: &str, records: u64) -> Result<Self, Failure> {
        let len = records * RECORD.len() as u64;
        let mut file = File::create_new(bench.path(name)).doing(format_args!("make {name}"))?;
        let zeros = [0; 64 * 1024];
        let mut left = len;
        while left > 0 {
            let part = left.min(zeros.len() as u64);
            file.write_all(&zeros[..usize::try_from(part).unwrap_or(zeros.len())])
                .doing("preallocate")?;
            left -= part;
        }
        file.sync_all().doing("sync the new file")?;
        Ok(Self { file, at: 0, len })
    }

    /// Writes one record durably; begins again at the end.
    pub(crate) fn append(&mut self) -> Result<(), Failure> {
        if self.at + RECORD.len() as u64 > self.len {
            self.at = 0;
        }
        self.file.write_all_at(&RECORD, self.at).doing("write a record")?;
        self.at += RECORD.len() as u64;
        self.file.sync_data().doing("sync a record")
    }
}

pub(super) fn measure(bench: &Bench) -> Result<Report, Failure> {
    let count = bench.size(1_000);
    let mut preallocated = Preallocated::new(bench, "preallocated", count)?;
    let mut growing = OpenOptions::new()
        .create_new(true)
        .append(true)
        .open(bench.path("growing"))
        .doing("make a growing file")?;
    let taken = interleave(
        bench.rounds(),
        vec![
            Contender::new("preallocated file, fdatasync", || {
                Sample::each(count, || preallocated.append())
            }),
            Contender::new("growing file, fdatasync", || {
                Sample::each(count, || {
                    growing.write_all(&RECORD).doing("append")?;
                    growing.sync_data().doing("sync")
                })
            }),
        ],
    )?;
    Ok(Report::compared(&taken, Unit::Times))
}
