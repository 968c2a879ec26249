//! Rules about sources.

use super::rust::{code, compact, modules_of, names, part_tests, words_after};
use super::tree::File;

/// The folders where the same input must give the same output.
const PURE: [&str; 4] = ["core/src", "agents/src", "engine/src", "fakes/src"];

/// Modules of the standard library that reach outside.
const OUTSIDE: [&str; 3] = ["fs", "net", "process"];

/// Where the machines are.
const MACHINES: [&str; 6] = [
    "core/src/attempt",
    "core/src/attempt.rs",
    "core/src/admission",
    "core/src/admission.rs",
    "core/src/shim",
    "core/src/shim.rs",
];

/// Names that say nothing about what is inside.
const SAYS_NOTHING: [&str; 6] = ["utils", "util", "common", "types", "helpers", "helper"];

/// Lines that a file may have, its tests aside.
const MOST_LINES: usize = 600;

/// Folders in which nothing waits for time to pass, tests or not.
const SLEEPLESS: [&str; 5] = ["core", "agents", "fakes", "conformance", "tests"];

/// A port and the stem of the files that implement it.
const PORTS: [(&str, &str); 9] = [
    ("ContainerService", "container_service"),
    ("ProcessStore", "process_store"),
    ("LogStore", "log_store"),
    ("VcsWorktree", "vcs_worktree"),
    ("Input", "input"),
    ("DiffWatch", "diff_watch"),
    ("VcsHistory", "vcs_history"),
    ("Listeners", "listeners"),
    ("Attachments", "attachments"),
];

fn rust(files: &[File]) -> impl Iterator<Item = &File> {
    files.iter().filter(|file| file.is_rust())
}

/// Returns compact code without tests; nothing of a file that is a test.
fn shipped(file: &File) -> String {
    if file.is_test() { String::new() } else { compact(&part_tests(&code(&file.text)).0) }
}

/// Nothing pure reaches outside.
pub(super) fn purity(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in rust(files).filter(|file| file.below(&PURE)) {
        let shipped = shipped(file);
        for module in modules_of(&shipped, "std") {
            if OUTSIDE.contains(&module) {
                complaints.push(format!("{}: std::{module} is not for here", file.path));
            }
        }
    }
    complaints
}

/// No file is so long that nobody reads it.
pub(super) fn length(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in rust(files) {
        let code = code(&file.text);
        // Tests are read one at a time, so a file of nothing else may be longer.
        let (lines, most) = if file.is_test() {
            (code.lines().count(), 2 * MOST_LINES)
        } else {
            (part_tests(&code).0.lines().count(), MOST_LINES)
        };
        if lines > most {
            complaints.push(format!("{}: {lines} lines, {most} are allowed", file.path));
        }
    }
    complaints
}

/// Files and modules are named for what is in them.
pub(super) fn file_names(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in rust(files) {
        let parts = file.path.split('/').map(|part| part.strip_suffix(".rs").unwrap_or(part));
        let code = compact(&code(&file.text));
        let modules = words_after(&code, "mod ");
        for name in parts.chain(modules).filter(|name| SAYS_NOTHING.contains(name)) {
            complaints.push(format!("{}: `{name}` does not say what is inside", file.path));
        }
    }
    complaints
}

/// A new variant of what a machine is told must be met everywhere, so no arm takes the rest.
pub(super) fn exhaustive_machines(files: &[File]) -> Vec<String> {
    let machine = |file: &&File| file.below(&MACHINES) || MACHINES.contains(&file.path.as_str());
    let mut complaints = Vec::new();
    for file in rust(files).filter(machine) {
        let shipped = shipped(file);
        let arm = shipped.match_indices("_=>").any(|(at, _)| {
            !shipped[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_')
        });
        if arm || shipped.contains("{_ if ") || shipped.contains(",_ if ") {
            complaints.push(format!("{}: has a `_ =>` arm", file.path));
        }
    }
    complaints
}

/// Nothing is left open, and no test is switched off.
pub(super) fn left_open(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in rust(files) {
        let code = compact(&code(&file.text));
        for mark in ["#[ignore", "todo!", "unimplemented!", "#[allow("] {
            if code.contains(mark) {
                complaints.push(format!("{}: has {mark}", file.path));
            }
        }
    }
    complaints
}

/// No test waits for time to pass; it waits for what it needs.
pub(super) fn sleeps(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in rust(files) {
        let code = code(&file.text);
        let looked_at =
            if file.is_test() || file.below(&SLEEPLESS) { code } else { part_tests(&code).1 };
        let looked_at = compact(&looked_at);
        if ["thread::sleep", "time::sleep", "sleep_until"]
            .iter()
            .any(|sleep| names(&looked_at, sleep))
        {
            complaints.push(format!("{}: a test sleeps", file.path));
        }
    }
    complaints
}

/// A case that no suite lists is never run.
pub(super) fn listed_cases(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    let cases = |file: &&File| file.below(&["conformance/src"]) && file.name() != "lib.rs";
    for file in rust(files).filter(cases) {
        // A suite may spread over a folder of the same name; its list is in the file that has the name.
        let home =
            file.path.trim_start_matches("conformance/src/").split('/').next().unwrap_or_default();
        let suite = home.trim_end_matches(".rs");
        let in_suite = |other: &&File| {
            other.path == format!("conformance/src/{suite}.rs")
                || other.below(&[&format!("conformance/src/{suite}")])
        };
        let lists: String = rust(files)
            .filter(in_suite)
            .map(|other| suite_list(&compact(&code(&other.text))))
            .collect();
        for case in words_after(&compact(&code(&file.text)), "pub async fn ") {
            if !names(&lists, case) {
                complaints.push(format!("{}: {case} is in no suite", file.path));
            }
        }
    }
    complaints
}

/// Returns the bodies of the exported macros whose names end with `_suite`.
fn suite_list(compact: &str) -> String {
    let mut list = String::new();
    for (at, mark) in compact.match_indices("macro_rules!") {
        let rest = &compact[at + mark.len()..];
        let Some((name, _)) = rest.split_once(['{', '(']) else {
            continue;
        };
        if name.trim().ends_with("_suite") {
            list.push_str(&rest[..closing(rest)]);
        }
    }
    list
}

fn closing(text: &str) -> usize {
    let mut depth = 0_u32;
    for (at, c) in text.char_indices() {
        match c {
            '{' | '(' => depth += 1,
            '}' | ')' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at;
                }
            }
            _ => {}
        }
    }
    text.len()
}

/// A port has the same file name in every crate.
pub(super) fn port_files(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in rust(files) {
        let shipped = shipped(file);
        let parts: Vec<&str> =
            file.path.split('/').map(|part| part.strip_suffix(".rs").unwrap_or(part)).collect();
        for (port, stem) in PORTS {
            let implements = shipped.contains(&format!(" {port} for "))
                || shipped.contains(&format!(">{port} for "));
            let declares = shipped.contains(&format!("pub trait {port}:"));
            if (implements || declares) && !parts.contains(&stem) {
                complaints.push(format!("{}: {port} belongs into a file named {stem}", file.path));
            }
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn finds(rule: fn(&[File]) -> Vec<String>, path: &str, bad: &str) {
        assert_eq!(rule(&[File::new(path, bad)]).len(), 1, "{bad}");
    }

    #[track_caller]
    fn accepts(rule: fn(&[File]) -> Vec<String>, path: &str, good: &str) {
        assert_eq!(rule(&[File::new(path, good)]), Vec::<String>::new(), "{good}");
    }

    #[test]
    fn what_reaches_outside_from_pure_code_is_found() {
        finds(purity, "core/src/a.rs", "use std::fs;");
        finds(purity, "engine/src/api/a.rs", "use std::{io, net::TcpStream};");
        finds(purity, "fakes/src/a.rs", "fn f() { std::process::exit(1) }");
        accepts(purity, "backend-local/src/a.rs", "use std::fs;");
        accepts(purity, "engine/src/api/a.rs", "use std::os::fd::OwnedFd; // std::fs\n");
        accepts(purity, "core/src/a.rs", "#[cfg(test)]\nmod tests { use std::fs; }");
    }

    #[test]
    fn a_file_that_is_too_long_without_its_tests_is_found() {
        let lines = |count: usize| "const A: u8 = 1;\n".repeat(count);
        finds(length, "cli/src/a.rs", &lines(601));
        finds(length, "core/src/a/tests.rs", &lines(1201));
        accepts(length, "core/src/a/tests.rs", &lines(1200));
        accepts(
            length,
            "cli/src/a.rs",
            &format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", lines(599), lines(500)),
        );
    }

    #[test]
    fn names_that_say_nothing_are_found() {
        finds(file_names, "cli/src/utils.rs", "");
        finds(file_names, "cli/src/common/a.rs", "");
        finds(file_names, "cli/src/a.rs", "mod helpers { }");
        accepts(file_names, "cli/src/host.rs", "mod exit_code;");
    }

    #[test]
    fn an_arm_for_the_rest_of_a_machine_is_found() {
        finds(exhaustive_machines, "core/src/attempt/mod.rs", "match a { A => 1, _ => 2 }");
        finds(
            exhaustive_machines,
            "core/src/shim/mod.rs",
            "match a { A => 1, _ if b => 2, C => 3 }",
        );
        accepts(
            exhaustive_machines,
            "core/src/admission.rs",
            "match a { A | B => 1, C { .. } => f(|_| 2) }",
        );
        accepts(exhaustive_machines, "core/src/action.rs", "match a { A => 1, _ => 2 }");
    }

    #[test]
    fn what_is_left_open_is_found() {
        for bad in [
            "#[ignore]\nfn f() {}",
            "fn f() { todo!() }",
            "fn f() { unimplemented!(\"x\") }",
            "#[allow(dead_code)]\nfn f() {}",
        ] {
            finds(left_open, "cli/src/a.rs", bad);
        }
        accepts(left_open, "cli/src/a.rs", "// todo!()\nfn f() { g(\"#[ignore]\") }");
    }

    #[test]
    fn tests_that_sleep_are_found() {
        finds(sleeps, "tests/tests/it/a.rs", "std::thread::sleep(d);");
        finds(sleeps, "fakes/src/a.rs", "tokio::time::sleep(d).await;");
        finds(
            sleeps,
            "engine/src/a.rs",
            "#[cfg(test)]\nmod tests { fn f() { tokio::time::sleep(d); } }",
        );
        accepts(sleeps, "engine/src/a.rs", "tokio::time::sleep(d).await;");
        accepts(sleeps, "tests/tests/it/a.rs", "sh(\"sleep 5\"); // thread::sleep\n");
    }

    #[test]
    fn a_case_that_no_suite_lists_is_found() {
        let suite = "macro_rules! a_suite { ($p:tt) => { $crate::expand!(a $p [one]); }; }";
        finds(
            listed_cases,
            "conformance/src/a.rs",
            &format!("{suite} pub async fn one() {{}} pub async fn two() {{}}"),
        );
        accepts(listed_cases, "conformance/src/a.rs", &format!("{suite} pub async fn one() {{}}"));
        let spread = [
            File::new("conformance/src/a.rs", suite),
            File::new("conformance/src/a/more.rs", "pub async fn two() {}"),
        ];
        assert_eq!(listed_cases(&spread).len(), 1);
    }

    #[test]
    fn a_port_in_a_file_of_another_name_is_found() {
        finds(port_files, "fakes/src/store.rs", "impl ProcessStore for Memory {}");
        finds(
            port_files,
            "fakes/src/store.rs",
            "impl<T: ProcessStore> ProcessStore for Faulty<T> {}",
        );
        accepts(port_files, "fakes/src/process_store.rs", "impl ProcessStore for Memory {}");
        accepts(
            port_files,
            "backend-sqlite/src/process_store/mod.rs",
            "impl ProcessStore for Sqlite {}",
        );
    }
}
