//! Why nothing of ours ever forks the host: what that costs once the host is big.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use super::Bench;
use super::launch::spawn_true;
use super::measure::{Contender, Sample, interleave};
use super::report::{Report, Unit};
use crate::failure::{Doing, Failure};

/// Resident bytes of the big host.
const BIG: usize = 1 << 30;

/// Memory that is really there: every page was written to.
#[derive(Debug)]
pub(crate) struct Ballast(Vec<u8>);

impl Ballast {
    pub(crate) fn new(bytes: usize) -> Self {
        let mut memory = vec![0_u8; bytes];
        for page in memory.chunks_mut(4096) {
            page[0] = 1;
        }
        Self(memory)
    }

    /// Reads it all, so that it was needed until here.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.0.chunks(4096).all(|page| page[0] == 1) {
            Ok(())
        } else {
            Err(Failure::new("the ballast is not there"))
        }
    }
}

pub(super) fn measure(bench: &Bench) -> Result<Report, Failure> {
    let count = bench.size(100);
    let ballast = Ballast::new(BIG);
    let taken = interleave(
        bench.rounds(),
        vec![
            Contender::new("posix_spawn from 1 GiB", || Sample::each(count, spawn_true)),
            Contender::new("fork from 1 GiB", || Sample::each(count.div_ceil(5), fork_true)),
        ],
    )?;
    ballast.check()?;
    Ok(Report::compared(&taken, Unit::Times))
}

/// Runs `true` by a fork: the standard library takes that way when a user is given.
fn fork_true() -> Result<(), Failure> {
    let user = rustix::process::getuid().as_raw();
    let status = Command::new("/bin/true").uid(user).status().doing("run /bin/true")?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure::new(format!("/bin/true ended with {status}")))
    }
}
