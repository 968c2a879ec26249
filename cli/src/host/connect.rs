//! Finds the host of a data directory; starts one where none runs, and replaces an older daemon.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::UnixStream;
use windlass::api::client::{AtSocket, Client, ClientError, Connect};
use windlass::api::lock::signature;
use windlass::api::{API_VERSION, HostKind, VersionView, socket};
use windlass::request::Caller;
use windlass::view::ErrorView;

use super::lock::{free_within, take_within};
use super::presence::Presence;
use super::{inside, start};
use crate::config::{DataDir, Environment, show};
use crate::context::Context;
use crate::error::{Class, CliError};

/// How long a host may take to say its version. One that is stopped or starved takes longer, and is reported.
const ANSWER: Duration = Duration::from_secs(10);

/// How long a host that was asked to leave may take.
pub const LEAVE: Duration = Duration::from_secs(30);

/// How long others may take to start a host.
const OTHERS_START: Duration = Duration::from_secs(20);

/// How many hosts are started for one connection, if each is ended before it can be connected to.
const STARTS: u32 = 8;

/// The host of a data directory.
#[derive(Debug)]
pub struct HostAt {
    data: DataDir,
    environment: Environment,
    no_start: bool,
    checked: tokio::sync::Mutex<bool>,
}

impl HostAt {
    /// Names the host of a data directory. Nothing is done before the first request.
    #[must_use]
    pub fn new(data: DataDir, context: &Context) -> Self {
        Self {
            data,
            environment: context.environment.clone(),
            no_start: context.global.no_start,
            checked: tokio::sync::Mutex::new(false),
        }
    }

    async fn find(&self, again: bool) -> Result<UnixStream, CliError> {
        let path = self.data.socket();
        match socket::connect(&path).await {
            Ok(stream) => {
                let mut checked = self.checked.lock().await;
                if *checked && !again {
                    return Ok(stream);
                }
                let version = version(&self.data).await;
                match version {
                    // It is leaving, or died just now: start over below.
                    Err(ClientError::Lost { .. } | ClientError::NoHost { .. }) => {}
                    Err(error) => return Err(error.into()),
                    Ok(version) if self.is_outdated(&version) => {
                        leave(&self.data, &version).await?
                    }
                    Ok(version) if version.api != API_VERSION => return Err(other_api(&version)),
                    Ok(_) => {
                        *checked = true;
                        return Ok(stream);
                    }
                }
            }
            Err(error) if is_absent(&error) => {}
            Err(error) => {
                return Err(CliError::new(
                    Class::NoHost,
                    "no_host",
                    format!("failed to connect to {}: {error}", show(&path)),
                    "check the owner and mode of the data directory; `windlass doctor` does",
                ));
            }
        }
        self.begin().await
    }

    /// Says whether a host is to be replaced: an older daemon. What belongs to another program is not ours to end.
    fn is_outdated(&self, host: &VersionView) -> bool {
        host.kind == HostKind::Daemon
            && !self.no_start
            && is_older(&host.version, env!("CARGO_PKG_VERSION"))
            && inside::refuse(&self.environment).is_ok()
    }

    /// Starts a host, or waits for whoever does it already.
    async fn begin(&self) -> Result<UnixStream, CliError> {
        let path = self.data.socket();
        if self.no_start {
            return Err(no_host(&self.data.path));
        }
        if self.data.fixed.is_none() {
            return Err(CliError::new(
                Class::NoHost,
                "no_host",
                format!("the program that drives {} does not run", show(&self.data.path)),
                "start that program, or name another directory with --data-dir",
            ));
        }
        inside::refuse(&self.environment)?;
        let start_lock = take_within(&self.data.start_lock(), OTHERS_START)
            .await
            .map_err(|error| CliError::unusable("take the lock for starting a host", &error))?;
        if start_lock.is_none() {
            return Err(CliError::new(
                Class::NoHost,
                "no_host",
                "another process has been starting a host for too long",
                format!("see what holds {}", show(&self.data.start_lock())),
            ));
        }
        let mut started = 0;
        loop {
            // Somebody else may have been quicker.
            match socket::connect(&path).await {
                Ok(stream) => return Ok(stream),
                // Whoever ended the one that was started just now did not mean what waits for a host.
                Err(error) if is_absent(&error) && started < STARTS => started += 1,
                Err(error) => return Err(self.silent(&error)),
            }
            if let Err(error) = start::in_background(&self.data).await {
                // The one that is there may answer by now.
                let answer =
                    socket::connect(&path).await.ok().filter(|_| error.view.kind == "host_exists");
                return answer.ok_or(error);
            }
        }
    }

    /// Makes the error for a host that was started and takes no connection.
    fn silent(&self, error: &io::Error) -> CliError {
        CliError::new(
            Class::NoHost,
            "no_host",
            format!("the host has started and does not answer: {error}"),
            format!("see {}", show(&self.data.log())),
        )
    }
}

#[async_trait]
impl Connect for HostAt {
    async fn connect(&self, again: bool) -> Result<UnixStream, ErrorView> {
        self.find(again).await.map_err(|error| error.view)
    }
}

/// Makes the error for a host that this client cannot talk to and may not replace.
fn other_api(host: &VersionView) -> CliError {
    let hint = match host.kind {
        HostKind::Daemon => "use a windlass of its version, or end it: windlass host stop",
        HostKind::Embedded => "it belongs to another program; use a windlass of its version",
    };
    let message = format!(
        "the host (version {}) speaks version {} of the API, this windlass version {API_VERSION}",
        host.version, host.api
    );
    CliError::new(Class::NoHost, "api_version", message, hint)
}

/// Says whether a failed connection means that no host runs.
#[must_use]
pub fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// What to do where no host runs.
pub const START_ONE: &str = "start one: windlass host run, or any verb without --no-start";

/// Makes the error for a data directory whose host does not run.
#[must_use]
pub fn no_host(data: &Path) -> CliError {
    let message = format!("no host runs for {}", show(data));
    CliError::new(Class::NoHost, "no_host", message, START_ONE)
}

/// Returns a client that asks whatever host is there, and starts none.
#[must_use]
pub fn plain_client(data: &DataDir) -> Client {
    Client::new(Arc::new(AtSocket(data.socket())), Caller::default())
}

/// Asks the host for its version.
///
/// # Errors
///
/// There is none, or it does not answer in time.
pub async fn version(data: &DataDir) -> Result<VersionView, ClientError> {
    let client = plain_client(data);
    match tokio::time::timeout(ANSWER, client.version()).await {
        Ok(version) => version,
        Err(_) => Err(ClientError::NoHost {
            view: ErrorView {
                kind: "no_host".to_owned(),
                message: format!("the host ({}) does not answer", signature(&data.lock())),
                hint: Some(format!("see {}; is it stopped?", show(&data.log()))),
            },
        }),
    }
}

/// Makes a daemon leave and waits until it has left. Executions are not touched.
///
/// # Errors
///
/// It refuses, or takes too long.
pub async fn leave(data: &DataDir, host: &VersionView) -> Result<(), CliError> {
    let failed = |error: io::Error| CliError::io("wait until the host has left", &error);
    let mut presence = Presence::watch(data).map_err(failed)?;
    match plain_client(data).stop_host().await {
        // It was gone before it could answer.
        Ok(()) | Err(ClientError::Lost { .. } | ClientError::NoHost { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    // The lock is not taken: the next host may be waiting for it already, and have it before this hears of it.
    let lock = data.lock();
    let gone = tokio::select! {
        biased;
        gone = free_within(&lock, LEAVE) => gone.map_err(failed)?,
        () = another(data, host, &mut presence) => true,
    };
    match gone {
        true => Ok(()),
        false => Err(CliError::new(
            Class::Failed,
            "no_host",
            format!("the host ({}) was asked to leave and has not", signature(&data.lock())),
            format!("see {}", show(&data.log())),
        )),
    }
}

/// Waits until another host than this one answers.
async fn another(data: &DataDir, host: &VersionView, presence: &mut Presence) {
    while !version(data).await.is_ok_and(|next| next.pid != host.pid) {
        presence.changed().await;
    }
}

/// Compares versions by their numbers; what is no number counts as 0.
fn is_older(version: &str, than: &str) -> bool {
    let numbers = |text: &str| -> Vec<u64> {
        let text = text.split(['-', '+']).next().unwrap_or_default();
        text.split('.').map(|part| part.parse().unwrap_or(0)).collect()
    };
    numbers(version) < numbers(than)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert!(is_older("0.9.0", "0.10.0"));
        assert!(is_older("0.1.0", "0.1.1"));
        assert!(!is_older("1.0.0", "0.9.9"));
        assert!(!is_older("0.1.0", "0.1.0"));
        assert!(!is_older("0.1.0+dirty", "0.1.0"));
    }
}
