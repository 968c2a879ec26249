//! `cargo xtask`: the checks that everything must pass, and the benchmarks.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[cfg(feature = "bench")]
mod bench;
mod bench_command;
mod cargo;
mod ci;
mod days;
mod failure;
mod images;
mod sim;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Checks and benchmarks of Windlass")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs every check; stops at the first that fails
    Ci(ci::Arguments),
    /// Measures ours beside the limit of the machine, in turn; prints ratios
    Bench(bench_command::Arguments),
    /// Works on worktrees at random while hosts are killed; nothing may be lost
    Days(days::Arguments),
    /// Attacks the engine on a simulated machine; every promise has an oracle
    Sim(sim::Arguments),
    /// Cuts the power at every moment of stores and executions, in a model of a disk; no word may be broken
    Images(images::Arguments),
    /// Does the measuring, in a build that carries it
    #[cfg(feature = "bench")]
    #[command(hide = true)]
    Measure(bench::Arguments),
    /// Plays a part in a measurement
    #[cfg(feature = "bench")]
    #[command(hide = true, subcommand)]
    Part(bench::Part),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Ci(arguments) => ci::run(&arguments),
        Command::Bench(arguments) => bench_command::run(&arguments),
        Command::Days(arguments) => days::run(&arguments),
        Command::Sim(arguments) => sim::run(&arguments),
        Command::Images(arguments) => images::run(&arguments),
        #[cfg(feature = "bench")]
        Command::Measure(arguments) => bench::run(&arguments),
        #[cfg(feature = "bench")]
        Command::Part(part) => bench::play(&part),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("\nfailed: {failure}");
            if let Some(hint) = failure.hint() {
                eprintln!("what to do: {hint}");
            }
            ExitCode::FAILURE
        }
    }
}
