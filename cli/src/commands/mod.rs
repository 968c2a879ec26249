//! The verbs, a file for each family. A verb returns the exit code that the process ends with.

mod chain;
mod change;
mod compact;
mod config;
mod dev;
mod diff;
pub(crate) mod doctor;
mod events;
mod history;
mod host;
mod keep;
mod list;
mod logs;
mod outcome;
mod project;
mod retry;
mod run;
mod send;
mod show;
mod task;
mod wait;

use std::future::Future;

use clap::CommandFactory as _;

use crate::args::{Cli, HostAction, UtilTool, Verb};
use crate::context::Context;
use crate::error::CliError;

/// Does what the command line says.
///
/// # Errors
///
/// Why it was not done.
pub fn perform(context: &Context, verb: Verb) -> Result<u8, CliError> {
    match verb {
        Verb::Run(args) => block_on(run::run(context, args)),
        Verb::Exec(args) => block_on(run::exec(context, args)),
        Verb::Dev(args) => block_on(dev::dev(context, args)),
        Verb::Input(args) => block_on(change::input(context, args)),
        Verb::Ps(args) => block_on(list::ps(context, args)),
        Verb::Retry(args) => block_on(retry::retry(context, args)),
        Verb::Send(args) => block_on(send::send(context, args)),
        Verb::Ls(args) => block_on(list::ls(context, args)),
        Verb::Show(args) => block_on(show::show(context, args)),
        Verb::Path(args) => block_on(show::path(context, args)),
        Verb::Logs(args) => block_on(logs::logs(context, args)),
        Verb::Wait(args) => block_on(wait::wait(context, args)),
        Verb::Stop(args) => block_on(wait::stop(context, args)),
        Verb::Diff(args) => block_on(diff::diff(context, args)),
        Verb::Commit(args) => block_on(change::commit(context, args)),
        Verb::Merge(args) => block_on(history::merge(context, args)),
        Verb::Rebase(args) => block_on(history::rebase(context, args)),
        Verb::Abort(args) => block_on(history::abort(context, args)),
        Verb::Push(args) => block_on(history::push(context, args)),
        Verb::Set(args) => block_on(history::set(context, args)),
        Verb::Rm(args) => block_on(keep::rm(context, args)),
        Verb::Restore(args) => block_on(keep::restore(context, args)),
        Verb::Snapshots(args) => block_on(keep::snapshots(context, args)),
        Verb::Gc(args) => block_on(keep::gc(context, args)),
        Verb::Search(args) => block_on(logs::search(context, args)),
        Verb::Events(args) => block_on(events::events(context, args)),
        Verb::Task(args) => block_on(task::task(context, args.action)),
        Verb::Project(args) => block_on(project::project(context, args.action)),
        Verb::Config(args) => config::config(context, args),
        Verb::Host(args) => match args.action {
            // It has a runtime of its own.
            HostAction::Run { background, stay, moved } => {
                host::run(context, background, stay, moved)
            }
            action => block_on(host::host(context, action)),
        },
        Verb::Doctor => block_on(doctor::doctor(context)),
        Verb::Util(args) => match args.tool {
            UtilTool::Completion { shell } => completion(context, shell),
            UtilTool::Compact => block_on(compact::compact(context)),
        },
    }
}

/// Runs a verb on a small runtime. Threads that wait for something in the system end with the process.
fn block_on(verb: impl Future<Output = Result<u8, CliError>>) -> Result<u8, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::io("start the runtime", &error))?;
    let result = runtime.block_on(verb);
    runtime.shutdown_background();
    result
}

fn completion(context: &Context, shell: clap_complete::Shell) -> Result<u8, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "windlass", &mut script);
    context.output.bytes(&script)?;
    Ok(0)
}
