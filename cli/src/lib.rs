//! The command line of Windlass, and the daemon behind it.
//!
//! A client of the host's API ([`commands`]) and the process around the engine ([`host`]). [`config`] alone reads the
//! environment. What an execution is, and when it may start, is not decided here.

pub mod args;
pub mod commands;
pub mod config;
pub mod context;
pub mod duration;
pub mod error;
pub mod follow;
mod forward;
pub mod host;
pub mod ids;
pub mod launch;
pub mod output;
mod probe;
pub mod signals;
pub mod table;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::error::{ContextKind, ErrorKind};
use clap::{CommandFactory as _, FromArgMatches as _};

use args::{Cli, FOLLOWING_VERBS};
use config::Environment;
use context::Context;
pub use context::Options;
use error::{Class, CliError};
use output::Output;

/// Does what the command line says; returns the exit code.
///
/// The caller has called [`windlass_shim::main_if_shim`] first, or configures the shim with [`main_with`].
#[must_use]
pub fn main() -> ExitCode {
    main_with(Options { shim: None, idle: None, wrap: None, wrap_logs: None })
}

/// Does what the command line says, with what the program sets.
#[must_use]
pub fn main_with(options: Options) -> ExitCode {
    ExitCode::from(perform(std::env::args_os().collect(), options))
}

fn perform(words: Vec<OsString>, options: Options) -> u8 {
    let cli = match parse(&words) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let environment = Environment::read();
    let output = Output::new(&cli.global, &environment);
    let ends_with_the_execution = cli.verb.ends_with_the_execution();
    let context = Context { global: cli.global, environment, output, options };
    match commands::perform(&context, cli.verb) {
        Ok(code) => code,
        Err(error) => {
            error.print(output.json);
            error.class.exit_code(ends_with_the_execution)
        }
    }
}

/// Reads the command line; else says what is wrong with it, or prints the help, and returns the exit code.
fn parse(words: &[OsString]) -> Result<Cli, u8> {
    let parsed = Cli::command()
        .try_get_matches_from(words)
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let error = match parsed {
        Ok(cli) => return Ok(cli),
        Err(error) => error,
    };
    if !error.use_stderr() {
        // Whoever reads the help may stop reading it.
        let _gone = error.print();
        return Err(0);
    }
    let (verb, as_json) = look(words);
    let verb = verb.unwrap_or_default();
    let hint = hint(&error, &verb);
    if as_json {
        CliError::usage(first_paragraph(&error.render().to_string()), hint).print(true);
    } else {
        // There is nowhere left to say that standard error is gone.
        let _gone = error.print();
        let _gone = writeln!(std::io::stderr(), "  hint: {hint}");
    }
    Err(Class::Usage.exit_code(FOLLOWING_VERBS.contains(&verb.as_str())))
}

/// Says what to do about a command line that makes no sense.
fn hint(error: &clap::Error, verb: &str) -> String {
    let takes_a_command = matches!(verb, "run" | "exec");
    let argument = error.get(ContextKind::InvalidArg).map(ToString::to_string).unwrap_or_default();
    match error.kind() {
        // The command was not told apart from what is ours.
        ErrorKind::UnknownArgument if takes_a_command && !argument.starts_with('-') => {
            let of = if verb == "exec" { " ATTEMPT" } else { "" };
            format!("put -- before the command: windlass {verb}{of} -- {argument} …")
        }
        ErrorKind::MissingRequiredArgument if takes_a_command && argument.contains("CMD") => {
            let of = if verb == "exec" { " @last" } else { "" };
            format!("say what to run: windlass {verb}{of} -- make test")
        }
        ErrorKind::InvalidSubcommand | ErrorKind::MissingSubcommand => {
            format!("windlass {verb} --help lists what there is").replace("  ", " ")
        }
        _ if verb.is_empty() => "see windlass --help".to_owned(),
        _ => format!("windlass {verb} --help has examples"),
    }
}

/// Makes one line of what comes before the usage: the lines after the first one name the arguments.
fn first_paragraph(rendered: &str) -> String {
    let lines = rendered.lines().map(str::trim).take_while(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join(" ").trim_start_matches("error: ").to_owned()
}

/// Finds the verb and `--json` in a command line that makes no sense as a whole.
fn look(words: &[OsString]) -> (Option<String>, bool) {
    let ours = words.iter().skip(1).take_while(|word| *word != "--");
    let as_json = ours.clone().any(|word| word == "--json");
    let verbs = Cli::command();
    let verb = ours
        .filter_map(|word| word.to_str())
        .find(|word| verbs.find_subcommand(word).is_some())
        .map(str::to_owned);
    (verb, as_json)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn usage_errors_end_with_the_verbs_code() {
        for (line, code) in [
            ("windlass run", 120),
            ("windlass --owner me exec", 120),
            ("windlass wait --timeout x", 120),
            ("windlass ps --nope", 2),
            ("windlass", 2),
            ("windlass nope -- run", 2),
        ] {
            assert_eq!(parse(&words(line)).unwrap_err(), code, "{line}");
        }
    }

    #[test]
    fn a_usage_error_says_what_to_do() {
        for (line, expected) in [
            ("windlass run true", "put -- before the command: windlass run -- true …"),
            ("windlass exec @last true", "windlass exec ATTEMPT -- true …"),
            ("windlass run", "say what to run"),
            ("windlass exec @last", "say what to run"),
            ("windlass run --nope -- true", "windlass run --help has examples"),
            ("windlass ps --status done", "windlass ps --help has examples"),
            ("windlass nope", "windlass --help lists what there is"),
            ("windlass config nope", "windlass config --help lists what there is"),
        ] {
            let words = words(line);
            let error = Cli::command().try_get_matches_from(&words).unwrap_err();
            let hint = hint(&error, &look(&words).0.unwrap_or_default());
            assert!(hint.contains(expected), "{line}: {hint}");
        }
    }

    #[test]
    fn a_usage_error_in_json_names_the_arguments() {
        let rendered = "error: these are missing:\n  <A>\n  <B>\n\nUsage: x <A> <B>\n";
        assert_eq!(first_paragraph(rendered), "these are missing: <A> <B>");
    }

    #[test]
    fn json_is_seen_before_the_command_only() {
        assert_eq!(look(&words("windlass run --nope --json")), (Some("run".to_owned()), true));
        assert_eq!(
            look(&words("windlass run --nope -- x --json")),
            (Some("run".to_owned()), false)
        );
    }
}
