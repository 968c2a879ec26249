//! What commands do, as the programs of the fakes have it.

use super::Dice;
use crate::simulation::plan::Launch;

/// Commands that end by themselves, most of them soon.
const ENDING: [&[&str]; 22] = [
    &["exit", "0"],
    &["exit", "3"],
    &["die", "11"],
    &["print", "some\n", "words\n"],
    &["script", "out:a\n", "sleep:700", "out:b\n"],
    &["script", "burst:40:60", "sleep:30", "exit:1"],
    &["script", "line:200000", "exit:0"],
    &["script", "out:\u{20ac}", "sleep:20", "err:half\u{e4}", "exit:0"],
    &["script", "sleep:9000", "exit:0"],
    &["script", "out:late\n", "sleep:7200000", "out:done\n"],
    &["script", "out:x\n", "oom"],
    &["script", "fork", "sleep:2000", "out:child\n", "end", "exit:0"],
    &["script", "fork", "setsid", "sleep:900000", "end", "exit:0"],
    &["script", "daemon", "sleep:900000", "end", "out:gone\n", "exit:0"],
    &["script", "ignore-term", "fork", "ignore-term", "sleep:60000", "end", "sleep:400", "exit:0"],
    &["leave-child"],
    &["leave-escapee"],
    &["not-executable"],
    &["no-such-program"],
    &["no-fork"],
    &["script", "setpgid", "sleep:50", "die:6"],
    &["script", "close", "sleep:1500", "exit:7"],
];

/// Commands that write into their directory.
const WRITING: [&[&str]; 6] = [
    &["script", "file:a.txt:one", "exit:0"],
    &["script", "file:a.txt:one", "sleep:300", "file:b.txt:two", "exit:0"],
    &["script", "sleep:2000", "file:late.txt:late", "exit:0"],
    &["script", "file:bad.txt:bad", "exit:1"],
    &["script", "fork", "sleep:5000", "file:after.txt:after", "end", "file:a.txt:one", "exit:0"],
    &["script", "file:a.txt:one", "sleep:40000", "exit:0"],
];

/// Commands that do not end by themselves, or only when somebody does something.
const LASTING: [&[&str]; 6] = [
    &["forever"],
    &["ignore-term"],
    &["wait", "0"],
    &["wait", "5"],
    &["script", "delay-term:3000:4", "out:up\n", "forever"],
    &["script", "file:a.txt:one", "fork", "forever", "end", "forever"],
];

/// Words of scripts that prepare a workspace.
const SETUPS: [&str; 5] = [
    "file:made.txt:made exit:0",
    "sleep:300 exit:0",
    "file:made.txt:half exit:1",
    "out:up sleep:2000 file:made.txt:late",
    "fork sleep:9000 end exit:0",
];

/// Words of scripts that tidy up.
const CLEANUPS: [&str; 6] = [
    "exit:0",
    "file:tidy.txt:tidy exit:0",
    "file:half.txt:half exit:1",
    "file:half.txt:half sleep:3000 file:tidy.txt:tidy",
    "ignore-term file:half.txt:half sleep:20000",
    "file:a.txt:tidied fork sleep:8000 end exit:0",
];

fn launch(argv: &[&str]) -> Launch {
    Launch { argv: argv.iter().map(|word| (*word).to_owned()).collect(), ..Launch::default() }
}

/// Any command.
pub(super) fn any(dice: &mut Dice) -> Launch {
    match dice.below(10) {
        0..=4 => ending(dice),
        5..=7 => writing(dice),
        _ => lasting(dice),
    }
}

/// One that ends by itself.
pub(super) fn ending(dice: &mut Dice) -> Launch {
    let argv = dice.pick(&ENDING);
    let mut launch = launch(argv);
    launch.leave = dice.happens(15);
    launch
}

/// One that writes into its directory.
pub(super) fn writing(dice: &mut Dice) -> Launch {
    let argv = dice.pick(&WRITING);
    launch(argv)
}

/// One that lasts.
pub(super) fn lasting(dice: &mut Dice) -> Launch {
    let argv = dice.pick(&LASTING);
    launch(argv)
}

/// One that copies its input.
pub(super) fn echo() -> Launch {
    Launch { stdin: true, ..launch(&["echo-stdin"]) }
}

/// Words of what prepares a workspace.
pub(super) fn setup(dice: &mut Dice) -> &'static str {
    let words: &&'static str = dice.pick(&SETUPS);
    words
}

/// Words of what tidies up.
pub(super) fn cleanup(dice: &mut Dice) -> &'static str {
    let words: &&'static str = dice.pick(&CLEANUPS);
    words
}

/// One that copies what it reads, and ends with it.
pub(super) fn reading() -> Launch {
    launch(&["echo-stdin"])
}
