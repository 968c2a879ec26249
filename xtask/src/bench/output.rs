//! One command that writes flat out.

use std::env;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::process::{Command, Stdio};
use std::time::Instant;

use super::Bench;
use super::measure::{Contender, Sample, interleave};
use super::report::{Report, Unit};
use crate::failure::{Doing, Failure};

/// How much it writes.
const BYTES: u64 = 1 << 30;

/// Bytes of one line, its newline included.
const LINE: usize = 64;

/// Writes `bytes` in lines to standard output, in pieces as large as a pipe takes.
pub(super) fn generate(bytes: u64) -> Result<(), Failure> {
    let mut line = [b'x'; LINE];
    line[LINE - 1] = b'\n';
    let piece = line.repeat(64 * 1024 / LINE);
    let mut out = io::stdout().lock();
    let mut left = bytes;
    while left > 0 {
        let part = usize::try_from(left).map_or(piece.len(), |left| left.min(piece.len()));
        out.write_all(&piece[..part])
            .doing("write to standard output")?;
        left -= part as u64;
    }
    Ok(())
}

/// Runs `generator | cat > file`.
fn through_cat(bench: &Bench, bytes: u64) -> Result<Sample, Failure> {
    let path = bench.path("cat");
    let file = File::create(&path).doing("make the file for cat")?;
    let program = env::current_exe().doing("find this program")?;
    let begun = Instant::now();
    let mut generator = Command::new(program)
        .args(["part", "generate", &bytes.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .doing("start the generator")?;
    let pipe = generator
        .stdout
        .take()
        .ok_or_else(|| Failure::new("the generator has no pipe"))?;
    let copied = Command::new("cat")
        .stdin(pipe)
        .stdout(file)
        .status()
        .doing("run cat")?;
    let generated = generator.wait().doing("wait for the generator")?;
    let took = begun.elapsed();
    let written = fs::metadata(&path).doing("measure the file of cat")?.len();
    fs::remove_file(&path).doing("remove the file of cat")?;
    if copied.success() && generated.success() && written == bytes {
        Ok(Sample::rate(bytes, took))
    } else {
        Err(Failure::new(format!(
            "{written} of {bytes} bytes: generator {generated}, cat {copied}"
        )))
    }
}

pub(super) fn measure(bench: &Bench) -> Result<Report, Failure> {
    let bytes = bench.size(BYTES);
    let taken = interleave(
        bench.rounds(),
        vec![Contender::new("generator | cat > file", || {
            through_cat(bench, bytes)
        })],
    )?;
    Ok(Report::compared(&taken, Unit::Bytes))
}
