//! `logs` and `search`.

use std::fs;

use base64::Engine as _;
use serde_json::{Value, json};
use windlass_tests::isolated;

use super::{run_detached, run_script, schemas, show, with_repo};

isolated! {
    fn raw_output_is_the_bytes_as_written() {
        let (sandbox, repo) = with_repo();
        let bytes: Vec<u8> = (0..200_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect();
        fs::write(sandbox.path().join("bytes"), &bytes).unwrap();
        let script = format!("cat {0}/bytes; cat {0}/bytes >&2", sandbox.path().display());
        let id = run_detached(&sandbox, &repo, &[], &script);
        sandbox.run(["wait", &id]).expect(0);
        let mut command = sandbox.command(["logs", &id, "--raw"]);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert!(output.stdout == bytes, "standard output differs");
        assert!(output.stderr == bytes, "standard error differs");
    }

    fn entries_and_gaps_cover_every_number() {
        let (sandbox, repo) = with_repo();
        let id = run_detached(&sandbox, &repo, &[], "seq 1 5000; printf '\\377\\376'; echo; printf unended");
        sandbox.run(["wait", &id]).expect(0);
        let entries = sandbox.run(["logs", &id, "--json"]).expect(0).json_lines();
        let mut bytes = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            schemas().assert("log-entry.json", entry);
            assert_eq!(entry["seq"], index as u64 + 1);
            bytes.extend(payload(entry));
        }
        let mut expected: Vec<u8> = (1..=5000).flat_map(|i| format!("{i}\n").into_bytes()).collect();
        expected.extend(b"\xff\xfe\nunended");
        assert_eq!(bytes, expected);
        assert_eq!(entries.last().unwrap()["partial"], true);
    }

    fn a_damaged_log_is_never_taken_for_an_empty_output() {
        let (sandbox, repo) = with_repo();
        let id = run_detached(&sandbox, &repo, &["--no-commit"], "echo one; echo two >&2; echo three");
        sandbox.run(["wait", &id]).expect(0);
        sandbox.run(["host", "stop"]).expect(0);
        let known = show(&sandbox, &id)["log"].clone();
        sandbox.run(["host", "stop"]).expect(0);
        for place in fs::read_dir(sandbox.data_dir().join("runs")).unwrap().flatten() {
            for file in ["00000001.seg", "journal"] {
                let path = place.path().join(file);
                let mut bytes = fs::read(&path).unwrap();
                bytes[..60].fill(b'?');
                fs::write(&path, bytes).unwrap();
            }
        }
        let expected = json!([{
            "seq": known["entries"],
            "gap": {"first_seq": 1, "last_seq": known["entries"], "bytes": "one\ntwo\nthree\n".len(), "cause": "power"},
        }]);
        for flags in [&[][..], &["-f"], &["--tail", "5"], &["--after", "0"]] {
            let entries = sandbox.run([&["logs", &id, "--json"], flags].concat()).expect(0).json_lines();
            entries.iter().for_each(|entry| schemas().assert("log-entry.json", entry));
            assert_eq!(Value::from(entries), expected, "{flags:?}");
        }
        let shown = sandbox.run(["logs", &id]).expect(0);
        let told = format!("{}{}", shown.text(), shown.stderr);
        assert!(told.contains("14 bytes of output are missing"), "{told}");
        assert_eq!(show(&sandbox, &id)["log"], known);
    }

    fn reading_resumes_after_any_number() {
        let (sandbox, repo) = with_repo();
        let id = run_detached(&sandbox, &repo, &[], "for i in 1 2 3 4 5 6; do echo $i; done; echo e >&2");
        sandbox.run(["wait", &id]).expect(0);
        let all = sandbox.run(["logs", &id, "--json"]).expect(0).json_lines();
        for after in 0..all.len() {
            let rest = sandbox.run(["logs", &id, "--json", "--after", &after.to_string()]).expect(0).json_lines();
            assert_eq!(rest, all[after..]);
        }
        assert_eq!(sandbox.run(["logs", &id, "--json", "--tail", "1"]).expect(0).json_lines(), all[all.len() - 1..]);
        assert_eq!(sandbox.run(["logs", &id, "--json", "--limit", "1"]).expect(0).json_lines(), all[..1]);
    }

    fn a_follower_sees_what_comes_and_stops_at_the_end() {
        let (sandbox, repo) = with_repo();
        let fifo = sandbox.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
        let id = run_detached(&sandbox, &repo, &[], &format!("echo before; cat {}; echo after", fifo.display()));
        let mut follower = sandbox.start(["logs", "-f", &id]);
        assert_eq!(follower.line().as_deref(), Some("before"));
        fs::write(&fifo, "between\n").unwrap();
        assert_eq!(follower.line().as_deref(), Some("between"));
        assert_eq!(follower.line().as_deref(), Some("after"));
        assert_eq!(follower.line(), None);
        assert_eq!(follower.wait().code, Some(0));
    }

    fn a_stream_and_a_pattern_select() {
        let (sandbox, repo) = with_repo();
        run_script(&sandbox, &repo, &[], "echo apple; echo pear; echo apple tree >&2").expect(0);
        let logs = |flags: &[&str]| sandbox.run([&["logs", "@last"], flags].concat()).expect(0).text().to_owned();
        assert_eq!(logs(&["--stream", "stdout"]), "apple\npear\n");
        let errors = sandbox.run(["logs", "@last", "--stream", "stderr"]).expect(0);
        assert_eq!((errors.text(), errors.stderr.as_str()), ("", "apple tree\n"));
        assert_eq!(logs(&["--grep", "^ap+le$"]), "apple\n");
        assert_eq!(logs(&["--grep", "banana"]), "");
        sandbox.run(["logs", "@last", "--grep", "("]).expect(2);
    }

    fn a_search_finds_in_all_logs_or_in_one() {
        let (sandbox, repo) = with_repo();
        run_script(&sandbox, &repo, &["--branch", "one"], "echo needle 1; echo hay").expect(0);
        run_script(&sandbox, &repo, &["--branch", "two"], "echo hay; echo needle 2").expect(0);
        let hits = |flags: &[&str]| {
            let hits = sandbox.run([&["search", "needle [0-9]", "--json"], flags].concat()).expect(0).json_lines();
            hits.iter().for_each(|hit| schemas().assert("search-hit.json", hit));
            hits.len()
        };
        assert_eq!(hits(&[]), 2);
        assert_eq!(hits(&["--attempt", "one"]), 1);
        sandbox.run(["search", "("]).expect(2);
    }

    fn one_line_without_an_end_is_kept_whole() {
        let (sandbox, repo) = with_repo();
        let length = 10_000_000;
        let id = run_detached(&sandbox, &repo, &[], &format!("head -c {length} /dev/zero | tr '\\0' x"));
        sandbox.run(["wait", &id]).expect(0);
        let raw = sandbox.run(["logs", &id, "--raw"]).expect(0);
        assert!(raw.stdout.len() == length && raw.stdout.iter().all(|&byte| byte == b'x'), "{} bytes", raw.stdout.len());
    }
}

fn payload(entry: &Value) -> Vec<u8> {
    match (entry["text"].as_str(), entry["bytes"].as_str()) {
        (Some(text), None) => text.as_bytes().to_vec(),
        (None, Some(bytes)) => base64::engine::general_purpose::STANDARD.decode(bytes).unwrap(),
        _ => panic!("neither text nor bytes: {entry}"),
    }
}
