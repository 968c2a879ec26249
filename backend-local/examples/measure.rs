//! Temporary.
#![allow(missing_docs, clippy::all, clippy::unwrap_used, reason = "temporary")]
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};
use windlass_core::action::*;
use windlass_core::container_service::*;
use windlass_core::id::*;
use windlass_core::locator::Locator;
use windlass_core::log_store::*;
use windlass_core::outcome::StoppedBy;
use windlass_local::*;

fn spec(execution: ExecutionId, script: &[&str]) -> LaunchSpec {
    LaunchSpec {
        execution,
        argv: script.iter().map(|s| (*s).into()).collect(),
        env: vec![("PATH".into(), std::env::var("PATH").unwrap().into())],
        cwd: Locator::new(std::path::Path::new("/tmp").as_os_str().as_bytes()),
        stdin: Stdin::Null, output: OutputMode::Separate, leftovers: Leftovers::Stop,
        total: None, idle: None, grace: Duration::from_secs(5), log_cap_bytes: 1 << 30, repository_lock: None,
    }
}
fn ids(n: u128) -> (ExecutionId, Nonce) {
    let base = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() << 20;
    (ExecutionId(uuid::Uuid::from_u128(base + n)), Nonce(uuid::Uuid::from_u128(base + n)))
}
fn pct(v: &mut Vec<f64>, p: f64) -> f64 { v.sort_by(f64::total_cmp); v[((v.len() - 1) as f64 * p) as usize] }

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let home = tempfile::tempdir_in(std::env::args().nth(2).unwrap()).unwrap();
    let shim = std::env::args().nth(1).unwrap();
    let options = LocalOptions {
        runs_dir: home.path().join("runs"), shim: ShimChoice::Path(shim.into()), disk_floor_bytes: 0,
        orphan_grace: Duration::from_secs(1), provenance: Provenance::InPlace, open_files: OpenFiles::Keep,
    };
    let service = LocalContainers::open(options.clone()).unwrap();
    let mut base = Vec::new();
    for _ in 0..300 { let t = Instant::now(); std::process::Command::new("/bin/true").status().unwrap(); base.push(t.elapsed().as_secs_f64() * 1e6); }
    println!("posix_spawn true p50 {:.0} us", pct(&mut base, 0.5));
    let (mut all, mut prep, mut launch, mut exit) = (vec![], vec![], vec![], vec![]);
    for n in 0..400 {
        let (e, nonce) = ids(n);
        let t0 = Instant::now();
        let place = service.prepare(e, nonce).await.unwrap();
        let t1 = Instant::now();
        service.launch(&place, spec(e, &["/bin/true"]), Epoch(1)).await.unwrap();
        let t2 = Instant::now();
        service.exited(e, &place).await.unwrap();
        let t3 = Instant::now();
        service.finished(e, &place).await.unwrap();
        let us = |a: Instant, b: Instant| (b - a).as_secs_f64() * 1e6;
        all.push(us(t0, t3)); prep.push(us(t0, t1)); launch.push(us(t1, t2)); exit.push(us(t2, t3));
    }
    println!("prepare {:.0} launch {:.0} exited {:.0} all p50 {:.0} p99 {:.0} us", pct(&mut prep, 0.5), pct(&mut launch, 0.5), pct(&mut exit, 0.5), pct(&mut all, 0.5), pct(&mut all, 0.99));
    let t = Instant::now();
    let total = 2000;
    let next = Arc::new(std::sync::atomic::AtomicU64::new(1000));
    let tasks: Vec<_> = (0..64).map(|_| { let (s, next) = (service.clone(), next.clone()); tokio::spawn(async move {
        loop { let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed); if n >= 1000 + total { break }
            let (e, nonce) = ids(n.into());
            let place = s.prepare(e, nonce).await.unwrap();
            s.launch(&place, spec(e, &["/bin/true"]), Epoch(1)).await.unwrap();
            s.finished(e, &place).await.unwrap(); } }) }).collect();
    for t in tasks { t.await.unwrap(); }
    println!("64 in flight: {:.0}/s", total as f64 / t.elapsed().as_secs_f64());
    for count in [200u128, 500] {
        let mut runs = Vec::new();
        for n in 0..count { let (e, nonce) = ids(10_000 + n); let place = service.prepare(e, nonce).await.unwrap();
            service.launch(&place, spec(e, &["sleep", "600"]), Epoch(1)).await.unwrap(); runs.push((e, place)); }
        let next = LocalContainers::open(options.clone()).unwrap();
        let t = Instant::now();
        let first = next.adopt(runs[0].0, &runs[0].1, Epoch(1)).await.unwrap();
        let one = t.elapsed();
        let all = futures::future::join_all(runs.iter().map(|(e, p)| next.adopt(*e, p, Epoch(1)))).await;
        println!("adopt {count}: first {one:?} all {:?} ({first:?})", t.elapsed());
        assert!(all.iter().all(|a| matches!(a, Ok(Adoption::Running { .. }))));
        let rss = std::fs::read_to_string("/proc/self/status").unwrap().lines().find(|l| l.starts_with("VmRSS")).unwrap().to_owned();
        println!("{rss}, fds {}", std::fs::read_dir("/proc/self/fd").unwrap().count());
        let cause = StopCause::Stop { by: StoppedBy::User };
        futures::future::join_all(runs.iter().map(|(e, p)| async { next.stop(*e, p, StopRequest { cause, grace: Duration::ZERO, epoch: Epoch(1) }).await.unwrap(); next.finished(*e, p).await.unwrap(); })).await;
    }
    let (e, nonce) = ids(77);
    let place = service.prepare(e, nonce).await.unwrap();
    let t = Instant::now();
    service.launch(&place, spec(e, &["sh", "-c", "seq 1 30000000"]), Epoch(1)).await.unwrap();
    let report = service.finished(e, &place).await.unwrap();
    println!("written {} MB in {:?}", report.bytes >> 20, t.elapsed());
    let logs = FileLogs::open(&options.runs_dir).unwrap();
    let log = LogKey { execution: e, place };
    println!("{}", std::fs::read_to_string("/proc/self/status").unwrap().lines().find(|l| l.starts_with("VmRSS")).unwrap());
    for readers in [1, 100] {
        let t = Instant::now();
        let tasks: Vec<_> = (0..readers).map(|_| { let (logs, log) = (logs.clone(), log.clone()); tokio::spawn(async move {
            let (mut cursor, mut bytes) = (Seq(0), 0u64);
            loop { let page = logs.page_after(&log, cursor).await.unwrap(); cursor = page.next;
                for item in page.items.iter() { if let LogItem::Entry { bytes: b, .. } = item { bytes += b.len() as u64 } }
                if page.end { return bytes } } }) }).collect();
        let mut sum = 0; for t in tasks { sum += t.await.unwrap(); }
        println!("{readers} readers: {:.0} MB/s in all, {:?}", sum as f64 / 1e6 / t.elapsed().as_secs_f64(), t.elapsed());
    }
    let rss = std::fs::read_to_string("/proc/self/status").unwrap().lines().find(|l| l.starts_with("VmHWM")).unwrap().to_owned();
    println!("{rss}");
    let t = Instant::now(); for _ in 0..1000 { logs.page_after(&log, Seq(5)).await.unwrap(); } println!("same page again {:?}", t.elapsed() / 1000);
    let t = Instant::now(); for n in 0..200 { logs.read(&log, ReadOptions { from: From::After(Seq(n * 7 % report.last_seq)), max_items: 1, max_bytes: 1 }).await.unwrap(); } println!("random seek {:?}", t.elapsed() / 200);
}
