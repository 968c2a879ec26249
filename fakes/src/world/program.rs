//! The programs of a world: what a command does, read from its argument vector.
//!
//! | arguments | what it does |
//! |---|---|
//! | `exit CODE`, `die SIGNAL` | ends at once |
//! | `print STDOUT STDERR` | prints both and exits with 0 |
//! | `wait CODE` | prints `ready`, waits until it is released, exits |
//! | `forever`, `ignore-term` | prints `ready` and runs until TERM, or until KILL |
//! | `echo-stdin`, `ignore-stdin` | prints `ready`; copies its input and exits with 0 at its end, or reads nothing |
//! | `leave-child`, `leave-escapee` | exits with 0; a child runs on, one that holds no pipe or one in a session of its own that holds them |
//! | `not-executable …`, `no-fork …` | cannot be started |
//! | `script WORD…` | does what the words say, one after the other, and exits with 0 |
//!
//! The words of a script; what stands for bytes goes to the end of the word and may hold anything:
//!
//! | word | what it does |
//! |---|---|
//! | `out:BYTES`, `err:BYTES` | writes them at once |
//! | `burst:COUNT:LEN` | writes so many lines of so many bytes |
//! | `line:LEN` | writes so many bytes without a newline |
//! | `sleep:MS` | waits |
//! | `wait`, `echo`, `forever` | until it is released, until its input ends, until it is killed |
//! | `exit:CODE`, `die:SIGNAL`, `oom` | ends; the last by the kernel's hand, for lack of memory |
//! | `ignore-term`, `delay-term:MS:CODE`, `default-term` | from here on takes TERM so |
//! | `fork WORD… end` | makes a child that does what the words say |
//! | `daemon WORD… end` | the same in a session of its own, as a grandchild whose parent exits at once |
//! | `setsid`, `setpgid` | leaves its session, or its group alone |
//! | `close` | closes its output |
//! | `unmark` | takes the mark out of its environment |
//! | `file:PATH:CONTENT` | writes a file in its directory |
//! | `stuck` | cannot be killed from here on, as in an uninterruptible sleep |

use std::sync::Arc;

use bytes::Bytes;
use windlass_core::locator::OsBytes;
use windlass_core::log_store::Stream;

/// One thing that a command does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// Writes into a pipe.
    Write(Stream, Bytes),
    /// Waits so many milliseconds.
    Sleep(u64),
    /// Waits until it is released.
    AwaitRelease,
    /// Copies its input to its output until that ends.
    Echo,
    /// Does nothing any more.
    Forever,
    Exit(u8),
    Die(u8),
    OutOfMemory,
    /// Takes TERM like this from here on.
    Trap(Trap),
    Fork(Arc<[Op]>),
    /// Forks twice: a session, then a grandchild of its own.
    Daemon(Arc<[Op]>),
    SetSession,
    SetGroup,
    CloseOutput,
    Unmark,
    /// Writes a file in its directory.
    File(String, Vec<u8>),
    Stuck,
    /// Does in its directory what the git step says that it was given.
    GitStep,
}

/// What a command does when it gets TERM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Trap {
    #[default]
    Dies,
    Ignores,
    /// Goes on for so many milliseconds, then exits with a code.
    Delays(u64, u8),
}

/// What is found under the name of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// It can be run.
    Runs(Arc<[Op]>),
    /// It is there and may not be executed.
    NotExecutable,
    /// There is no process for it.
    NoFork,
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
        let ready = || Op::Write(Stream::Stdout, Bytes::from_static(b"ready"));
        let write = |stream, bytes: &[u8]| Op::Write(stream, Bytes::copy_from_slice(bytes));
        let Some((program, rest)) = argv.split_first() else { return Self::NotFound };
        let rest: Vec<&[u8]> = rest.iter().map(|word| word.0.as_slice()).collect();
        let ops = match (program.0.as_slice(), rest.as_slice()) {
            (b"exit", [code]) => vec![Op::Exit(number(code))],
            (b"die", [signal]) => vec![Op::Die(number(signal))],
            (b"print", [stdout, stderr]) => {
                vec![write(Stream::Stdout, stdout), write(Stream::Stderr, stderr), Op::Exit(0)]
            }
            (b"wait", [code]) => vec![ready(), Op::AwaitRelease, Op::Exit(number(code))],
            (b"forever" | b"ignore-stdin", []) => vec![ready(), Op::Forever],
            (b"ignore-term", []) => vec![Op::Trap(Trap::Ignores), ready(), Op::Forever],
            (b"echo-stdin", []) => vec![ready(), Op::Echo, Op::Exit(0)],
            (b"leave-child", []) => {
                vec![Op::Fork(Arc::new([Op::CloseOutput, Op::Forever])), Op::Exit(0)]
            }
            (b"leave-escapee", []) => {
                vec![Op::Fork(Arc::new([Op::SetSession, Op::Forever])), Op::Exit(0)]
            }
            (b"script", words) => {
                let mut ops = script(&mut words.iter());
                ops.push(Op::Exit(0));
                ops
            }
            // A text for a shell is the same words, with spaces between them.
            (b"/bin/sh", [b"-c", text]) => {
                let words: Vec<_> = text.split(u8::is_ascii_whitespace).collect();
                let mut ops = script(&mut words.iter());
                ops.push(Op::Exit(0));
                ops
            }
            (name, [_]) if crate::vcs_worktree::is_step(name) => vec![Op::GitStep],
            (b"not-executable", _) => return Self::NotExecutable,
            _ if Self::has_no_fork(argv) => return Self::NoFork,
            _ => return Self::NotFound,
        };
        Self::Runs(ops.into())
    }
    /// Says whether no process can be made for a program.
    pub(crate) fn has_no_fork(argv: &[OsBytes]) -> bool {
        argv.first().is_some_and(|program| program.0 == b"no-fork")
    }
}

/// Reads words up to the end, or to the word that ends a child's.
fn script<'a>(words: &mut impl Iterator<Item = &'a &'a [u8]>) -> Vec<Op> {
    let mut ops = Vec::new();
    while let Some(word) = words.next() {
        let (name, argument) = cut(word);
        let with_zero = |mut ops: Vec<Op>| -> Arc<[Op]> {
            ops.push(Op::Exit(0));
            ops.into()
        };
        let op = match name {
            b"end" => break,
            b"out" => Op::Write(Stream::Stdout, Bytes::copy_from_slice(argument)),
            b"err" => Op::Write(Stream::Stderr, Bytes::copy_from_slice(argument)),
            b"burst" => {
                let (count, len) = cut(argument);
                for at in 0..number::<usize>(count) {
                    let mut line = vec![letter(at); number(len)];
                    line.push(b'\n');
                    ops.push(Op::Write(Stream::Stdout, line.into()));
                }
                continue;
            }
            b"line" => Op::Write(Stream::Stdout, vec![b'x'; number(argument)].into()),
            b"sleep" => Op::Sleep(number(argument)),
            b"wait" => Op::AwaitRelease,
            b"echo" => Op::Echo,
            b"forever" => Op::Forever,
            b"exit" => Op::Exit(number(argument)),
            b"die" => Op::Die(number(argument)),
            b"oom" => Op::OutOfMemory,
            b"ignore-term" => Op::Trap(Trap::Ignores),
            b"default-term" => Op::Trap(Trap::Dies),
            b"delay-term" => {
                let (ms, code) = cut(argument);
                Op::Trap(Trap::Delays(number(ms), number(code)))
            }
            b"fork" => Op::Fork(with_zero(script(words))),
            b"daemon" => Op::Daemon(with_zero(script(words))),
            b"setsid" => Op::SetSession,
            b"setpgid" => Op::SetGroup,
            b"close" => Op::CloseOutput,
            b"unmark" => Op::Unmark,
            b"file" => {
                let (path, content) = cut(argument);
                Op::File(String::from_utf8_lossy(path).into_owned(), content.to_vec())
            }
            b"stuck" => Op::Stuck,
            _ => {
                let word = String::from_utf8_lossy(word);
                assert_eq!(word, "", "a script has no such word");
                continue;
            }
        };
        ops.push(op);
    }
    ops
}

/// Cuts a word at its first colon.
fn cut(word: &[u8]) -> (&[u8], &[u8]) {
    match word.iter().position(|byte| *byte == b':') {
        Some(at) => (&word[..at], &word[at + 1..]),
        None => (word, &[]),
    }
}

/// Returns the letter that fills a line of a burst.
fn letter(at: usize) -> u8 {
    b'a' + u8::try_from(at % 26).unwrap_or(0)
}

fn number<T: std::str::FromStr + Default>(word: &[u8]) -> T {
    let number = std::str::from_utf8(word).ok().and_then(|word| word.parse().ok());
    assert!(number.is_some(), "{:?} is no number here", String::from_utf8_lossy(word));
    number.unwrap_or_default()
}
