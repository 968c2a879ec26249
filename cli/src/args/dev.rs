//! Arguments of `dev`.

use std::ffi::OsString;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;

use super::{LaunchArgs, OnInterrupt};
use crate::duration;

/// Arguments of `dev`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Without a command it runs the script that the attempt's project has for it (project set
--dev). An attempt has one dev server at a time. It runs beside the chain, without a
deadline: messages do not wait for it, and it is stopped when the attempt is stopped or
removed. WINDLASS_PORT_BASE is the first of ten ports that no other attempt has, the same
for everything that runs in this one; +K means the K-th after it.

Examples:
  windlass dev @last -- npm run dev
  windlass dev a-1234abcd -d --ready-port 5173 -- npm run dev
  windlass dev @last --ready-port +0 --shell 'python3 -m http.server $WINDLASS_PORT_BASE'
  windlass dev @last --replace --ready-pattern 'listening on' -- ./serve

Ready is said on standard error. One that ends before it is ready is an error; after
--ready-timeout it is left running, and the code is 119.")]
pub struct DevArgs {
    /// The attempt
    pub attempt: String,
    /// Stop the dev server that the attempt has first
    #[arg(long)]
    pub replace: bool,
    /// It is ready when a process of it listens on this port
    #[arg(long, value_name = "N|+K", conflicts_with = "ready_pattern")]
    pub ready_port: Option<ReadyPort>,
    /// It is ready when a line of its output matches this regular expression
    #[arg(long, value_name = "RE")]
    pub ready_pattern: Option<String>,
    /// How long it may take to be ready [default: 1m]
    #[arg(long, value_name = "D", allow_hyphen_values = true, value_parser = duration::parse_positive)]
    pub ready_timeout: Option<Duration>,
    /// Run TEXT with /bin/sh instead of a command
    #[arg(long, value_name = "TEXT", conflicts_with = "command")]
    pub shell: Option<String>,
    /// Set a variable; without a value, take it from here
    #[arg(long, value_name = "K[=V]", action = clap::ArgAction::Append)]
    pub env: Vec<OsString>,
    /// Take all variables from here
    #[arg(long)]
    pub env_all: bool,
    /// Set a variable to a secret, as with run
    #[arg(long, value_name = "K[=SOURCE]", action = clap::ArgAction::Append)]
    pub secret: Vec<OsString>,
    /// Refuse if as many dev servers run as may, instead of waiting
    #[arg(long)]
    pub no_queue: bool,
    /// What Ctrl-C does while following; not with -d
    #[arg(long, value_name = "WHAT", default_value = "ask", conflicts_with = "detach")]
    pub on_interrupt: OnInterrupt,
    /// Do not follow; print the execution's id, and return when it is ready if that is looked for
    #[arg(short, long)]
    pub detach: bool,
    /// The command [default: the script of its project]
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

impl DevArgs {
    /// Says how it is to be run, with this script where no command is given.
    #[must_use]
    pub fn launch(&self, script: Option<String>) -> LaunchArgs {
        LaunchArgs {
            shell: self.shell.clone().or(script),
            env: self.env.clone(),
            env_all: self.env_all,
            secret: self.secret.clone(),
            timeout: None,
            idle_timeout: None,
            stdin: false,
            merge_streams: false,
            leave_running: false,
            no_queue: self.no_queue,
            on_interrupt: self.on_interrupt,
            detach: self.detach,
            command: self.command.clone(),
        }
    }
}

/// A port, or one of those that the attempt has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadyPort {
    /// This one.
    Number(u16),
    /// So many after the first that the attempt has.
    Own(u16),
}

impl FromStr for ReadyPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "a port from 1 to 65535, or + and a number".to_owned();
        match text.strip_prefix('+') {
            Some(offset) => offset.parse().map(Self::Own).map_err(|_| wrong()),
            None => match text.parse() {
                Ok(0) | Err(_) => Err(wrong()),
                Ok(port) => Ok(Self::Number(port)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_a_number_or_one_of_its_own() {
        assert_eq!("8080".parse(), Ok(ReadyPort::Number(8080)));
        assert_eq!("+0".parse(), Ok(ReadyPort::Own(0)));
        for bad in ["0", "", "+", "65536", "-1", "http"] {
            assert!(bad.parse::<ReadyPort>().is_err(), "{bad}");
        }
    }
}
