//! The steps.

use std::process::Command;

use super::{Done, Step, alone, output};
use crate::cargo::{cargo, target};
use crate::failure::{Doing as _, Failure};

pub(super) const ALL: &[Step] = &[
    Step {
        name: "fmt",
        about: "the sources are formatted",
        hint: "run `cargo fmt --all`",
        run: fmt,
    },
    Step {
        name: "clippy",
        about: "no lint complains, in code, tests, examples and benchmarks",
        hint: "mend what clippy names above, or expect it with a reason",
        run: clippy,
    },
    Step {
        name: "test",
        about: "every test passes, those in documentation included",
        hint: "the failing test is named above; its name is the sentence that does not hold",
        run: test,
    },
    Step {
        name: "doc",
        about: "the documentation has no broken links",
        hint: "mend what rustdoc names above",
        run: doc,
    },
    Step {
        name: "embed",
        about: "the example of the README runs",
        hint: "run `cargo run -p windlass --example embed REPOSITORY DATA_DIRECTORY` and read what it says",
        run: embed,
    },
    Step {
        name: "alone",
        about: "the programs built alone carry no crash points and no planted bugs",
        hint: "a default feature, or a dependency of windlass-cli, turns them on; `cargo tree -e features -p windlass-cli` shows which",
        run: alone::check,
    },
    Step {
        name: "sim",
        about: "the simulation finds nothing in some thousand runs of each layer, and every planted bug",
        hint: "the plan above shows it again; `cargo xtask sim --plan FILE --trace full` shows every event",
        run: sim,
    },
    Step {
        name: "bench",
        about: "a tenth of the extreme sizes: nothing is lost, memory stays bounded",
        hint: "`cargo xtask bench --tenth --profile dev --only ROW` runs one row",
        run: bench,
    },
];

fn fmt() -> Result<Done, Failure> {
    output::require(cargo().args(["fmt", "--all", "--", "--check"]))
}

fn clippy() -> Result<Done, Failure> {
    output::require(cargo().args([
        "clippy",
        "--locked",
        "--workspace",
        "--all-targets",
        "--features",
        "xtask/bench",
        "--",
        "-D",
        "warnings",
    ]))
}

fn test() -> Result<Done, Failure> {
    output::require(cargo().args(["test", "--locked", "--workspace", "--features", "xtask/bench"]))
}

fn doc() -> Result<Done, Failure> {
    // Libraries only: the program and the library `windlass` would be written to the same place.
    output::require(
        cargo()
            .args(["doc", "--locked", "--workspace", "--no-deps", "--lib"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )
}

/// Runs the example on a small repository, in a folder that goes afterwards.
fn embed() -> Result<Done, Failure> {
    let dir = target().join(format!("embed-{}", std::process::id()));
    let repo = dir.join("repo");
    std::fs::create_dir_all(&repo).doing("make a folder for the example")?;
    let git = |arguments: &[&str]| {
        let user = ["-c", "user.name=Example", "-c", "user.email=example@localhost"];
        output::require(Command::new("git").arg("-C").arg(&repo).args(user).args(arguments))
    };
    let run = || {
        git(&["init", "--quiet"])?;
        git(&["commit", "--quiet", "--allow-empty", "--message", "first"])?;
        let example = ["run", "--locked", "--quiet", "-p", "windlass", "--example", "embed", "--"];
        output::require(cargo().args(example).arg(&repo).arg(dir.join("data")))
    };
    let done = run();
    std::fs::remove_dir_all(&dir).doing("remove the example's folder")?;
    done
}

/// Bounded runs of the simulation: a longer one is for somebody's night.
fn sim() -> Result<Done, Failure> {
    let runs: [&[&str]; 6] = [
        &["--regressions"],
        &["--planted"],
        &["--layer", "1", "--runs", "10000"],
        &["--layer", "2", "--runs", "8000"],
        &["--layer", "2", "--runs", "300", "--meta"],
        &["--layer", "3", "--runs", "2000"],
    ];
    let mut all = Done::default();
    for arguments in runs {
        let simulation = ["run", "--locked", "--quiet", "-p", "xtask", "--", "sim"];
        let done = output::require(cargo().args(simulation).args(arguments))?;
        all.not_run.extend(done.not_run);
    }
    Ok(all)
}

fn bench() -> Result<Done, Failure> {
    output::require(cargo().args([
        "run",
        "--locked",
        "--quiet",
        "-p",
        "xtask",
        "--",
        "bench",
        "--tenth",
        "--profile",
        "dev",
    ]))
}
