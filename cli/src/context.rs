//! What every verb works with: the client, the output, the environment.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use windlass::Backends;
use windlass::api::client::Client;
use windlass::core::log_store::LogStore;
use windlass::request::Caller;

use crate::args::Global;
use crate::config::{DataDir, Environment, check_header};
use crate::error::CliError;
use crate::host::connect::{HostAt, no_host};
use crate::host::inside;
use crate::output::Output;

/// Puts something around the store that keeps the logs.
pub type WrapLogs = fn(Arc<dyn LogStore>) -> Arc<dyn LogStore>;

/// What a program that is its own command line may set.
#[derive(Clone, Debug)]
pub struct Options {
    /// The shim's program; `None` finds it beside the current executable, which else answers to the shim hook itself.
    pub shim: Option<PathBuf>,
    /// How long a host without anything to do stays; `None` is what the settings say.
    pub idle: Option<Duration>,
    /// What is put around the backends when a host opens them; `None` is nothing.
    pub wrap: Option<fn(Backends) -> Backends>,
    /// The same for the store that keeps the logs.
    pub wrap_logs: Option<WrapLogs>,
}

/// What every verb works with.
#[derive(Debug)]
pub struct Context {
    /// What every verb takes.
    pub global: Global,
    /// The environment.
    pub environment: Environment,
    /// How to print.
    pub output: Output,
    /// What the program set.
    pub options: Options,
}

impl Context {
    /// Opens the data directory, and makes it if it is not there.
    ///
    /// # Errors
    ///
    /// It cannot be used.
    pub fn data_dir(&self) -> Result<DataDir, CliError> {
        DataDir::open_or_create(&self.environment.data_dir(&self.global)?, &self.global)
    }

    /// Returns a client of the host, which starts one at its first request where none runs.
    ///
    /// # Errors
    ///
    /// The data directory cannot be used, or owner or key are impossible.
    pub fn client(&self) -> Result<Client, CliError> {
        let owner = self.environment.owner(&self.global)?;
        let key = match check_header("--key", self.global.key.clone())? {
            Some(key) => key,
            None => random_uuid()?.to_string(),
        };
        let path = self.environment.data_dir(&self.global)?;
        let data = match DataDir::open(&path, &self.global)? {
            Some(data) => data,
            // Where no host could be started for it, none is made.
            None if self.global.no_start => return Err(no_host(&path)),
            None => {
                inside::refuse(&self.environment)?;
                self.data_dir()?
            }
        };
        let host = HostAt::new(data, self);
        Ok(Client::new(Arc::new(host), Caller { owner, key: Some(key) }))
    }
}

/// Makes a random UUID.
///
/// # Errors
///
/// The system has no random bytes.
pub fn random_uuid() -> Result<uuid::Uuid, CliError> {
    let mut random = [0; 16];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| CliError::io("get random bytes", &error.into()))?;
    Ok(uuid::Builder::from_random_bytes(random).into_uuid())
}
