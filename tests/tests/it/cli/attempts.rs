//! `ls`, `path`, `diff`, `commit`, `rm`.

use std::fs;
use std::path::Path;

use windlass_tests::isolated;
use windlass_tests::repo::git_in;

use super::{run_script, run_until_ready, schemas, with_repo};

isolated! {
    fn attempts_are_listed_newest_first_with_what_became_of_their_branch() {
        let (sandbox, repo) = with_repo();
        run_script(&sandbox, &repo, &["--branch", "one"], "echo x > made").expect(0);
        run_script(&sandbox, &repo, &["--branch", "two", "--no-commit"], "echo x > made").expect(0);
        let list = sandbox.run(["ls", "--json"]).expect(0).json_lines();
        list.iter().for_each(|line| schemas().assert("attempt.json", line));
        let told: Vec<_> = list
            .iter()
            .map(|one| (one["branch"].as_str().unwrap(), one["ahead"].as_u64(), one["dirty"].as_bool()))
            .collect();
        assert_eq!(told, [("two", Some(0), Some(true)), ("one", Some(1), Some(false))]);
    }

    fn a_diff_is_against_the_merge_base_and_can_be_applied() {
        let (sandbox, repo) = with_repo();
        let script = "echo changed > README.md; git mv src/main.rs src/other.rs; git commit -qm moved; echo untracked > new";
        run_script(&sandbox, &repo, &["--no-commit"], script).expect(0);
        repo.write("elsewhere", "x");
        let _: String = repo.commit("the base goes on");
        let diff = sandbox.run(["diff", "@last"]).expect(0);
        let patch = sandbox.path().join("patch");
        fs::write(&patch, &diff.stdout).unwrap();
        repo.git(["apply", patch.to_str().unwrap()]);
        assert_eq!(repo.git(["status", "--porcelain"]), " M README.md\n D src/main.rs\n?? new\n?? src/other.rs");
        let files = sandbox.run(["diff", "@last", "--json"]).expect(0).json_lines();
        files.iter().for_each(|file| schemas().assert("diff-file.json", file));
        assert_eq!(files.len(), 3, "a rename is one file: {files:?}");
    }

    fn looking_at_a_diff_writes_nothing_into_the_repository() {
        let (sandbox, repo) = with_repo();
        let ran = run_script(&sandbox, &repo, &["--no-commit"], "pwd; echo x > made").expect(0);
        let objects = || repo.git(["count-objects", "-v"]);
        let before = objects();
        sandbox.run(["diff", "@last"]).expect(0);
        assert_eq!(objects(), before);
        assert_eq!(git_in(Path::new(ran.text().trim()), ["status", "--porcelain"]), "?? made");
    }

    fn what_is_dirty_is_committed_on_request() {
        let (sandbox, repo) = with_repo();
        let ran = run_script(&sandbox, &repo, &["--no-commit"], "pwd; echo x > made").expect(0);
        let worktree = Path::new(ran.text().trim());
        sandbox.run(["commit", "@last", "-m", "Made it\n\nWith care."]).expect(0);
        assert_eq!(git_in(worktree, ["log", "-1", "--format=%B"]).trim(), "Made it\n\nWith care.");
        assert_eq!(git_in(worktree, ["status", "--porcelain"]), "");
        sandbox.run(["commit", "@last"]).expect(0);
        assert_eq!(git_in(worktree, ["rev-list", "--count", "HEAD"]), "2", "nothing to commit, yet committed");
    }

    fn a_clean_worktree_is_removed_and_its_branch_stays() {
        let (sandbox, repo) = with_repo();
        let ran = run_script(&sandbox, &repo, &["--branch", "topic"], "pwd; echo x > made").expect(0);
        let attempt = sandbox.run(["show", "topic", "--json"]).expect(0).json()["id"].as_str().unwrap().to_owned();
        sandbox.run(["rm", "topic"]).expect(0);
        assert!(!Path::new(ran.text().trim()).exists());
        assert_eq!(repo.git(["worktree", "list", "--porcelain"]).matches("worktree ").count(), 1);
        assert_eq!(repo.git(["show", "topic:made"]), "x");
        assert_eq!(sandbox.run(["ls"]).expect(0).text(), "");
        let removed = sandbox.run(["show", &attempt, "--json"]).expect(0).json();
        schemas().assert("attempt.json", &removed);
        assert_eq!(removed["status"], "removed");
        // What is asked for in it brings it back.
        let there = sandbox.run(["exec", &attempt, "--", "cat", "made"]).expect(0);
        assert_eq!(there.text(), "x\n");
    }

    fn a_worktree_in_use_is_removed_by_force_only() {
        let (sandbox, repo) = with_repo();
        let id = run_until_ready(&sandbox, &repo);
        sandbox.run(["rm", "@last"]).expect(4);
        sandbox.run(["rm", "@last", "--force"]).expect(0);
        sandbox.run(["wait", &id]).expect(143);
    }
}
