//! A namespace of process numbers for a test of its own: what it leaves behind dies with it, and what it signals by mistake
//! is nobody else's.

use std::env;
use std::process::Command;
use std::sync::OnceLock;

use crate::not_run;

/// Set in the process inside.
const INSIDE: &str = "WINDLASS_TESTS_NAMESPACE";

/// Declares tests that run in a namespace of their own where that is permitted, and outside with a remark where it is not.
///
/// ```
/// windlass_tests::isolated! {
///     fn nothing_is_left_behind() {
///         assert_eq!(1 + 1, 2);
///     }
/// }
/// ```
#[macro_export]
macro_rules! isolated {
    ($($(#[$meta:meta])* fn $name:ident() $body:block)+) => {
        $(
            $(#[$meta])*
            #[test]
            fn $name() {
                $crate::namespace::run(concat!(module_path!(), "::", stringify!($name)), || $body);
            }
        )+
    };
}

/// Runs `body` in a namespace of its own: this test program is started again in one, for the test `path` alone.
///
/// # Panics
///
/// When the test fails inside.
pub fn run(path: &str, body: impl FnOnce()) {
    if env::var_os(INSIDE).is_some() {
        return body();
    }
    let Some(wrapper) = wrapper() else {
        not_run(
            "tests in a PID namespace of their own: `unshare --pid` is not permitted here; they run outside of one",
        );
        return body();
    };
    let test = path.split_once("::").map_or(path, |(_, test)| test);
    // The shell is the first process inside: it reaps what is orphaned there.
    let output = Command::new("unshare")
        .args(wrapper)
        .args(["--", "sh", "-c", "\"$@\"; exit $?", "sh"])
        .arg(env::current_exe().expect("this test program"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare can be started");
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    for line in stderr.lines().filter_map(|line| line.strip_prefix("not run: ")) {
        not_run(line);
    }
    assert!(
        stdout.contains("1 passed") || !output.status.success(),
        "no test is named {test}:\n{stdout}"
    );
    assert!(output.status.success(), "in a namespace: {}\n{stdout}\n{stderr}", output.status);
}

/// Says whether this process has namespaces of its own, also one to mount in.
#[must_use]
pub fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

/// Returns the arguments with which unshare works here, as root or with a user namespace.
fn wrapper() -> Option<&'static [&'static str]> {
    const WAYS: [&[&str]; 2] = [
        &["--pid", "--fork", "--kill-child", "--mount-proc"],
        &["--user", "--map-current-user", "--pid", "--fork", "--kill-child", "--mount-proc"],
    ];
    static WAY: OnceLock<Option<&'static [&'static str]>> = OnceLock::new();
    let works = |way: &&&[&str]| {
        let tried = Command::new("unshare").args(**way).arg("true").output();
        tried.is_ok_and(|output| output.status.success())
    };
    *WAY.get_or_init(|| WAYS.iter().find(works).copied())
}

#[cfg(test)]
mod tests {
    use std::fs;

    isolated! {
        fn a_test_inside_sees_few_processes() {
            let numbers = fs::read_dir("/proc").unwrap().flatten();
            let processes = numbers.filter(|entry| entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok()));
            if super::wrapper().is_some() || std::env::var_os(super::INSIDE).is_some() {
                // The shell and this program.
                assert_eq!(processes.count(), 2);
            }
        }
    }

    #[test]
    #[should_panic(expected = "no test is named")]
    fn a_name_that_no_test_has_is_noticed() {
        if super::wrapper().is_none() {
            panic!("no test is named so here, and there is no namespace to ask in");
        }
        super::run("windlass_tests::no_such_test", || ());
    }
}
