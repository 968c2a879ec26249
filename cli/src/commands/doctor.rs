//! `doctor`: checks what Windlass needs, one line each.

use serde::Serialize;
use windlass::api::lock::{HostLock, signature};
use windlass::core::process_store::CheckReport;

use crate::args::LogsKind;
use crate::config::{DataDir, show};
use crate::context::Context;
use crate::error::CliError;
use crate::host::connect::{plain_client, version};
use crate::host::inside;
use crate::host::settings::Settings;
use crate::host::stores::{KeptLogs, Store};
use crate::output::Style;
use crate::probe;
use crate::table::{Cell, table};

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// As it should be.
    Ok,
    /// It works, but less well.
    Warning,
    /// It does not work.
    Failed,
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    /// What was checked.
    pub(crate) name: &'static str,
    /// How it ended.
    pub(crate) status: State,
    /// What was found.
    pub(crate) detail: String,
    /// What to do, unless it is as it should be.
    pub(crate) hint: Option<String>,
}

impl Check {
    /// Makes the check of something that is as it should be.
    #[must_use]
    pub(crate) fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, status: State::Ok, detail: detail.into(), hint: None }
    }

    /// Makes the check of something that works less well.
    #[must_use]
    pub(crate) fn warning(name: &'static str, detail: impl Into<String>, hint: &str) -> Self {
        let hint = Some(hint.to_owned());
        Self { name, status: State::Warning, detail: detail.into(), hint }
    }

    /// Makes the check of something that does not work.
    #[must_use]
    pub(crate) fn failed(name: &'static str, detail: impl Into<String>, hint: &str) -> Self {
        let hint = Some(hint.to_owned());
        Self { name, status: State::Failed, detail: detail.into(), hint }
    }
}

/// Checks everything. Ends with 1 if something does not work.
///
/// # Errors
///
/// The output cannot be written.
pub(crate) async fn doctor(context: &Context) -> Result<u8, CliError> {
    let output = context.output;
    let mut checks = vec![probe::git(), probe::kernel()];
    checks.extend(probe::abilities());
    checks.push(probe::shim(context.options.shim.as_deref()));
    if inside::refuse(&context.environment).is_err() {
        checks.push(Check::warning(
            "execution",
            "this is inside an execution: no host is started from here",
            "run doctor outside, for example in a terminal",
        ));
    }
    checks.extend(data_directory(context).await);
    if output.json {
        for check in &checks {
            output.object(check)?;
        }
    } else {
        let rows: Vec<_> = checks.iter().map(row).collect();
        output.bytes(table(output, &["CHECK", "STATUS", "FOUND"], &rows).as_bytes())?;
        for check in &checks {
            if let Some(hint) = &check.hint {
                output.line(&format!("{}: {hint}", check.name))?;
            }
        }
    }
    Ok(u8::from(checks.iter().any(|check| check.status == State::Failed)))
}

fn row(check: &Check) -> Vec<Cell> {
    let (word, style) = match check.status {
        State::Ok => ("ok", Style::Good),
        State::Warning => ("warning", Style::Active),
        State::Failed => ("failed", Style::Bad),
    };
    vec![check.name.into(), Cell::styled(word, style), check.detail.clone().into()]
}

/// Checks the data directory, its host and its store. Makes nothing where there is none.
async fn data_directory(context: &Context) -> Vec<Check> {
    let opened = context
        .environment
        .data_dir(&context.global)
        .and_then(|path| Ok((DataDir::open(&path, &context.global)?, path)));
    let (data, path) = match opened {
        Ok((Some(data), path)) => (data, path),
        Ok((None, path)) => {
            let detail = format!("{} is not there yet; the first use makes it", show(&path));
            let floor = Settings::default().disk_floor_bytes();
            return vec![Check::ok("data directory", detail), probe::disk(&path, floor)];
        }
        Err(error) => {
            let hint = error.view.hint.unwrap_or_default();
            return vec![Check::failed("data directory", error.view.message, &hint)];
        }
    };
    let mut checks = vec![probe::permissions(&path)];
    // Settings that cannot be read are told below, by what needs them.
    let settings = Settings::read(&data).unwrap_or_default();
    checks.push(probe::disk(&path, settings.disk_floor_bytes()));
    match version(&data).await {
        Ok(host) => {
            let detail = format!("version {} runs as process {}", host.version, host.pid);
            checks.push(Check::ok("host", detail));
            checks.push(match plain_client(&data).check().await {
                Ok(report) => store(&data, &report),
                Err(error) => Check::failed("store", error.to_string(), "see the host's log"),
            });
            checks.push(Check::ok("logs", logs_detail(&data)));
        }
        Err(_) => checks.extend(store_without_host(&data).await),
    }
    checks
}

/// Checks the store itself, under the host's lock.
async fn store_without_host(data: &DataDir) -> Vec<Check> {
    let lock = match HostLock::try_take(&data.lock()) {
        Ok(Some(lock)) => lock,
        Ok(None) => {
            let detail = format!("{} holds the lock and does not answer", signature(&data.lock()));
            let hint = "see the host's log; a host that is stopped or stuck may be killed: executions run on";
            return vec![Check::failed("host", detail, hint)];
        }
        Err(error) => {
            return vec![Check::failed(
                "host",
                error.to_string(),
                "check the data directory's mode",
            )];
        }
    };
    let mut checks = vec![Check::ok("host", "none runs; any verb starts one")];
    let refused = |name, error: CliError| {
        Check::failed(name, error.view.message, &error.view.hint.unwrap_or_default())
    };
    if data.store().exists() {
        checks.push(match Store::open(data).await {
            Ok(opened) => {
                let report = opened.port().check().await;
                opened.close().await;
                match report {
                    Ok(report) => store(data, &report),
                    Err(error) => {
                        Check::failed("store", error.to_string(), "restore it from a backup")
                    }
                }
            }
            Err(error) => refused("store", error),
        });
    }
    if data.logs().exists() {
        checks.push(match KeptLogs::open(data).await {
            Ok(opened) => {
                if let Some(opened) = opened {
                    opened.close().await;
                }
                Check::ok("logs", logs_detail(data))
            }
            Err(error) => refused("logs", error),
        });
    }
    drop(lock);
    checks
}

/// Says in what the logs are kept.
fn logs_detail(data: &DataDir) -> String {
    match data.logs_kind() {
        LogsKind::Files => "files: the segments that were written".to_owned(),
        kind => format!("{}: {}", kind.as_str(), show(&data.logs())),
    }
}

fn store(data: &DataDir, report: &CheckReport) -> Check {
    let detail = format!("{}: {} records", data.store_kind().as_str(), report.records);
    if let Some(problem) = report.problems.first() {
        return Check::failed(
            "store",
            format!("{detail}; {problem}"),
            &format!("keep a copy of {} and restore it from a backup", show(&data.store())),
        );
    }
    if let Some(damaged) = report.set_aside.first() {
        return Check::warning(
            "store",
            format!("{detail}; {} set aside as damaged, first {damaged}", report.set_aside.len()),
            "the rest is usable; nothing that they described is cleaned up",
        );
    }
    Check::ok("store", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_a_warning_and_a_broken_store_a_failure() {
        let data = DataDir { path: "/data".into(), fixed: None };
        let mut report = CheckReport { records: 3, ..CheckReport::default() };
        assert_eq!(store(&data, &report), Check::ok("store", "sqlite: 3 records"));
        report.set_aside.push("attempt 1".to_owned());
        assert_eq!(store(&data, &report).status, State::Warning);
        report.problems.push("a page is torn".to_owned());
        let failed = store(&data, &report);
        assert_eq!(failed.status, State::Failed);
        assert!(failed.hint.is_some_and(|hint| hint.contains("/data/windlass.db")));
    }

    #[test]
    fn a_check_is_an_object_with_all_its_fields() {
        let json = serde_json::to_value(Check::ok("git", "2.50")).unwrap();
        let expected = serde_json::json!({
            "name": "git", "status": "ok", "detail": "2.50", "hint": null
        });
        assert_eq!(json, expected);
    }
}
