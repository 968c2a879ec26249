//! Adopting what runs after the host was killed.

use std::env;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use windlass::core::id::ExecutionId;
use windlass::core::outcome::Outcome;
use windlass::handle::ListFilter;
use windlass::request::{Caller, StopTarget};

use super::Bench;
use super::host::{Data, Host};
use super::measure::{Contender, Sample, interleave};
use super::report::{Report, Unit, Want};
use crate::failure::{Doing, Failure};

/// How many executions live when the host dies.
const EXECUTIONS: u64 = 500;

/// Ends whatever a measurement left running, however it ended.
struct Swept<'a>(&'a Data);

impl Drop for Swept<'_> {
    fn drop(&mut self) {
        if let Err(error) = windlass_tests::process::sweep(&self.0.dir) {
            eprintln!("not everything of {} could be ended: {error}", self.0.dir.display());
        }
    }
}

pub(super) fn measure(bench: &Bench) -> Result<Report, Failure> {
    let count = bench.size(EXECUTIONS);
    let mut firsts = Vec::new();
    let taken = interleave(
        if bench.rounds() > 1 { 2 } else { 1 },
        vec![Contender::new("all adopted", || {
            let (first, all) = adopt(bench, count)?;
            firsts.push(first);
            Ok(Sample::latencies(vec![all]))
        })],
    )?;
    let first = Sample::latencies(firsts);
    let mut report = Report::default();
    report.add_sample("first answer", first, &[Want::MedianAtMost(0.2)]);
    for one in &taken {
        report.add(one, Unit::Times, None, &[Want::MedianAtMost(1.0)]);
    }
    Ok(report)
}

/// Starts `count` executions below a host that is killed then; returns the seconds until the next host gave its first
/// answer, and until it had adopted all.
fn adopt(bench: &Bench, count: u64) -> Result<(f64, f64), Failure> {
    let data = bench.data("adopt")?;
    let _swept = Swept(&data);
    kill_a_host(&data, count)?;
    bench.runtime.block_on(async {
        let begun = Instant::now();
        let host = Host::open(&data).await?;
        host.handle.status().await.doing("ask for the first answer")?;
        let first = begun.elapsed().as_secs_f64();
        let filter = ListFilter { limit: None, ..ListFilter::default() };
        let running = host.handle.executions(&Caller::default(), filter).await.doing("list")?;
        if running.len() as u64 != count {
            return Err(Failure::new(format!(
                "{} of {count} run after the host was killed",
                running.len()
            )));
        }
        let ids: Vec<ExecutionId> = running.iter().map(|record| record.id).collect();
        host.containers.adopted(count).await;
        let all = begun.elapsed().as_secs_f64();
        stop_all(&host, &ids).await?;
        host.close().await?;
        Ok((first, all))
    })
}

async fn stop_all(host: &Host, ids: &[ExecutionId]) -> Result<(), Failure> {
    for &id in ids {
        let target = StopTarget::Execution(id);
        host.handle.stop(Caller::default(), target, Some(Duration::ZERO)).await.doing("stop")?;
    }
    for &id in ids {
        let record = host.handle.ended(&Caller::default(), id).await.doing("wait for a stop")?;
        if !matches!(record.outcome, Some(Outcome::Stopped { .. })) {
            return Err(Failure::new(format!(
                "an adopted execution ended as {:?}",
                record.outcome
            )));
        }
    }
    Ok(())
}

fn kill_a_host(data: &Data, count: u64) -> Result<(), Failure> {
    let program = env::current_exe().doing("find this program")?;
    let mut host: Child = Command::new(program)
        .args(["part", "start-many"])
        .arg(&data.dir)
        .arg(&data.shim)
        .arg(count.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .doing("start a host")?;
    let pipe = host.stdout.take().ok_or_else(|| Failure::new("the host has no pipe"))?;
    let mut said = String::new();
    BufReader::new(pipe).read_line(&mut said).doing("hear of the host")?;
    host.kill().doing("kill the host")?;
    let status = host.wait().doing("wait for the host")?;
    if said.trim() == "started" {
        Ok(())
    } else {
        Err(Failure::new(format!("the host ended with {status}")))
    }
}

/// Starts `count` executions that run for long, says so, and waits to be killed.
pub(super) fn start_many(data: &Data, count: u64) -> Result<(), Failure> {
    let runtime = tokio::runtime::Runtime::new().doing("make a runtime")?;
    runtime.block_on(async {
        let host = Host::open(data).await?;
        let mut starting = tokio::task::JoinSet::new();
        for _ in 0..count {
            let host = host.clone();
            starting.spawn(async move {
                let id = host.start(&["/bin/sleep", "100000"]).await?;
                host.running(id).await
            });
        }
        while let Some(started) = starting.join_next().await {
            started.map_err(|error| Failure::new(format!("a task died: {error}")))??;
        }
        println!("started");
        io::stdout().flush().doing("say so")?;
        io::stdin().read(&mut [0]).doing("wait to be killed").map(drop)
    })
}
