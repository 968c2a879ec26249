//! One command that writes flat out.

use std::cell::Cell;
use std::env;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use windlass::core::id::ExecutionId;
use windlass::core::log_store::{From, LogItem, ReadOptions, Seq};
use windlass::core::outcome::Outcome;
use windlass::request::Caller;

use super::Bench;
use super::host::{Data, Host};
use super::idle::field;
use super::measure::{Contender, Sample, interleave};
use super::report::{Report, Unit, Want};
use crate::failure::{Doing, Failure};

/// How much it writes.
const BYTES: u64 = 1 << 30;

/// How many follow it.
const FOLLOWERS: u32 = 100;

/// Bytes of one line, its newline included.
const LINE: usize = 64;

/// Writes `bytes` in lines to standard output, in pieces as large as a pipe takes.
///
/// In the end it writes the most memory that its parent has had, in bytes, into the file `parents`.
pub(super) fn generate(bytes: u64, parents: Option<&Path>) -> Result<(), Failure> {
    let mut line = [b'x'; LINE];
    line[LINE - 1] = b'\n';
    let piece = line.repeat(64 * 1024 / LINE);
    let mut out = io::stdout().lock();
    let mut left = bytes;
    while left > 0 {
        let part = usize::try_from(left).map_or(piece.len(), |left| left.min(piece.len()));
        out.write_all(&piece[..part]).doing("write to standard output")?;
        left -= part as u64;
    }
    let Some(path) = parents else { return Ok(()) };
    let parent = format!("/proc/{}/status", std::os::unix::process::parent_id());
    let most = field(&parent, "VmHWM:")? * 1024.0;
    fs::write(path, most.to_string()).doing("write what the parent needed")
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
    let pipe = generator.stdout.take().ok_or_else(|| Failure::new("the generator has no pipe"))?;
    let copied = Command::new("cat").stdin(pipe).stdout(file).status().doing("run cat")?;
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

/// What a host of ours said of one command that wrote flat out.
struct Ours {
    sample: Sample,
    host_bytes: f64,
    shim_bytes: f64,
}

/// Runs the generator under a host of its own, so that its memory is the host's alone.
fn through_windlass(bench: &Bench, bytes: u64, followers: u32) -> Result<Ours, Failure> {
    let data = bench.data("output")?;
    let program = env::current_exe().doing("find this program")?;
    let output = Command::new(program)
        .args(["part", "keep"])
        .arg(&data.dir)
        .arg(&data.shim)
        .args([bytes.to_string(), followers.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .doing("run a host")?;
    fs::remove_dir_all(&data.dir).doing("remove the data directory")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let figures: Vec<f64> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    match figures.as_slice() {
        &[seconds, host_bytes, shim_bytes] if output.status.success() => Ok(Ours {
            sample: Sample::rate(bytes, Duration::from_secs_f64(seconds)),
            host_bytes,
            shim_bytes,
        }),
        _ => Err(Failure::new(format!("the host ended with {}: {said}", output.status))),
    }
}

pub(super) fn measure(bench: &Bench) -> Result<Report, Failure> {
    let bytes = bench.size(BYTES);
    let few = bytes / 4;
    let memory = Cell::new((0.0_f64, 0.0_f64));
    let ours = |bytes, followers| {
        let ours = through_windlass(bench, bytes, followers)?;
        let (host, shim) = memory.get();
        memory.set((host.max(ours.host_bytes), shim.max(ours.shim_bytes)));
        Ok(ours.sample)
    };
    let taken = interleave(
        bench.rounds().min(3),
        vec![
            Contender::new("generator | cat > file", || through_cat(bench, bytes)),
            Contender::new("windlass", || ours(bytes, 0)),
            Contender::new("windlass, 100 followers", || ours(few, FOLLOWERS)),
        ],
    )?;
    let [limit, alone, followed] = taken.as_slice() else {
        return Err(Failure::new("three contenders"));
    };
    let mut report = Report::default();
    report.add(limit, Unit::Bytes, Some(limit), &[]);
    report.add(alone, Unit::Bytes, Some(limit), &[Want::RatioAtLeast(0.4)]);
    report.add(followed, Unit::Bytes, Some(limit), &[Want::RatioAtLeast(0.35)]);
    let (host, shim) = memory.get();
    report.add_amount("most memory of the host", host, Unit::Bytes, &[Want::AtMost(50e6)]);
    report.add_amount("most memory of the shim", shim, Unit::Bytes, &[Want::AtMost(3e6)]);
    Ok(report)
}

/// Runs the generator, follows its log, and prints seconds, own memory and the shim's. Fails if anything is lost.
pub(super) fn keep(data: &Data, bytes: u64, followers: u32) -> Result<(), Failure> {
    let runtime = tokio::runtime::Runtime::new().doing("make a runtime")?;
    let (seconds, shim) = runtime.block_on(async {
        let host = Host::open(data).await?;
        let program = env::current_exe().doing("find this program")?;
        let program =
            program.to_str().ok_or_else(|| Failure::new("the target directory is not UTF-8"))?;
        let parents = data.dir.join("shim-memory");
        let report = parents.to_str().ok_or_else(|| Failure::new("the directory is not UTF-8"))?;
        let begun = Instant::now();
        let id = host.start(&[program, "part", "generate", &bytes.to_string(), report]).await?;
        let mut following = tokio::task::JoinSet::new();
        for _ in 0..followers {
            let host = host.clone();
            following.spawn(async move { follow(&host, id, bytes).await });
        }
        let record =
            host.handle.ended(&Caller::default(), id).await.doing("wait for the generator")?;
        let seconds = begun.elapsed().as_secs_f64();
        if record.outcome != Some(Outcome::Exited { code: 0 }) {
            return Err(Failure::new(format!("the generator ended as {:?}", record.outcome)));
        }
        while let Some(followed) = following.join_next().await {
            followed.map_err(|error| Failure::new(format!("a follower died: {error}")))??;
        }
        follow(&host, id, bytes).await?;
        host.close().await?;
        let shim = fs::read_to_string(&parents).doing("read what the shim needed")?;
        let shim: f64 = shim.parse().map_err(|_| Failure::new(format!("{shim:?} is no size")))?;
        Ok((seconds, shim))
    })?;
    let own = field("/proc/self/status", "VmHWM:")? * 1024.0;
    println!("{seconds} {own} {shim}");
    Ok(())
}

/// Reads a log from its beginning to its end; a number or byte that is missing is a failure.
async fn follow(host: &Host, id: ExecutionId, bytes: u64) -> Result<(), Failure> {
    let (mut seen, mut read) = (Seq(0), 0);
    loop {
        let options = ReadOptions { from: From::After(seen), max_items: 1_000, max_bytes: 1 << 20 };
        let page =
            host.handle.log_page(&Caller::default(), id, options).await.doing("read the log")?;
        for item in page.items.iter() {
            match item {
                LogItem::Entry { seq, bytes, .. } if seq.0 == seen.0 + 1 => {
                    read += bytes.len() as u64
                }
                other => return Err(Failure::new(format!("{other:?} after number {}", seen.0))),
            }
            seen = item.last_seq();
        }
        if page.end {
            break;
        }
        if page.items.is_empty() {
            host.handle.log_grown(&Caller::default(), id, seen).await.doing("wait for the log")?;
        }
    }
    if read == bytes {
        Ok(())
    } else {
        Err(Failure::new(format!("{read} of {bytes} bytes are in the log")))
    }
}
