//! The programs of a world: what a command does, read from its argument vector.

use windlass_core::locator::OsBytes;

/// What a command does once it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Script {
    /// `exit CODE`
    Exit(u8),
    /// `die SIGNAL`
    Die(u8),
    /// `print STDOUT STDERR`: prints both and exits with 0.
    Print { stdout: Vec<u8>, stderr: Vec<u8> },
    /// `wait CODE`: prints `ready`, waits until it is released, exits.
    UntilReleased(u8),
    /// `forever`: prints `ready` and runs until TERM.
    Forever,
    /// `ignore-term`: prints `ready` and runs until KILL.
    IgnoreTerm,
    /// `echo-stdin`: prints `ready`, copies its input, exits with 0 at the end of it.
    EchoStdin,
    /// `ignore-stdin`: prints `ready`, reads nothing, runs until TERM.
    IgnoreStdin,
    /// `leave-child`: leaves a child behind that runs for ever, and exits with 0.
    LeaveChild,
}

/// What is found under the name of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// It can be run.
    Script(Script),
    /// `not-executable`: it is there and may not be executed.
    NotExecutable,
    /// There is none of this name.
    NotFound,
}

impl Program {
    /// Looks a command up.
    ///
    /// # Panics
    ///
    /// When a known program is called with arguments that it does not take: a test that is wrong, not a command.
    pub(crate) fn find(argv: &[OsBytes]) -> Self {
        let words: Vec<&[u8]> = argv.iter().map(|word| word.0.as_slice()).collect();
        let script = match words[..] {
            [b"exit", code] => Script::Exit(small(code)),
            [b"die", signal] => Script::Die(small(signal)),
            [b"print", stdout, stderr] => {
                Script::Print { stdout: stdout.to_vec(), stderr: stderr.to_vec() }
            }
            [b"wait", code] => Script::UntilReleased(small(code)),
            [b"forever"] => Script::Forever,
            [b"ignore-term"] => Script::IgnoreTerm,
            [b"echo-stdin"] => Script::EchoStdin,
            [b"ignore-stdin"] => Script::IgnoreStdin,
            [b"leave-child"] => Script::LeaveChild,
            [b"not-executable", ..] => return Self::NotExecutable,
            _ => return Self::NotFound,
        };
        Self::Script(script)
    }
}

fn small(word: &[u8]) -> u8 {
    let number = std::str::from_utf8(word).ok().and_then(|word| word.parse().ok());
    assert!(number.is_some(), "{word:?} is no number from 0 to 255");
    number.unwrap_or_default()
}
