//! `project`: repositories with what their attempts have in common.

use windlass_tests::isolated;
use windlass_tests::repo::TempRepo;
use windlass_tests::sandbox::run;

use super::{sandbox, schemas, with_repo};

isolated! {
    fn a_project_is_added_where_one_stands_and_found_by_name_and_id() {
        let (sandbox, repo) = with_repo();
        let sub = repo.path().join("src");
        let added = sandbox.run_in(&sub, ["project", "add", "--base", "HEAD", "--copy", ".env*"]).expect(0);
        let id = added.text().trim().to_owned();
        assert!(id.starts_with("p-"), "{id}");
        let shown = sandbox.run(["project", "show", &id, "--json"]).expect(0).json();
        schemas().assert("project.json", &shown);
        let name = repo.path().file_name().unwrap().to_str().unwrap();
        assert_eq!(shown["name"], name);
        assert_eq!(shown["repo"], repo.path().canonicalize().unwrap().to_str().unwrap());
        assert_eq!((&shown["base"], &shown["copy"]), (&"HEAD".into(), &serde_json::json!([".env*"])));
        let digits = id.trim_start_matches("p-");
        for (directory, text) in [(sandbox.path(), name), (sandbox.path(), digits), (sub.as_path(), "")] {
            let words = ["project", "show", text, "--json"].into_iter().filter(|word| !word.is_empty());
            assert_eq!(sandbox.run_in(directory, words).expect(0).json()["id"], shown["id"], "{text:?}");
        }
        let text = sandbox.run(["project", "show", name]).expect(0);
        assert!(text.text().contains("copy        .env*"), "{}", text.text());
        let listed = sandbox.run(["project", "ls", "--json"]).expect(0).json_lines();
        assert_eq!(listed, [shown]);
        assert!(sandbox.run(["project", "ls"]).expect(0).text().contains(name));
        // What is there twice, or nowhere, is refused.
        let again = sandbox.run_in(&sub, ["project", "add", "--json"]).expect(4);
        assert_eq!(again.error()["error"]["kind"], "name_taken");
        let nowhere = sandbox.run(["project", "add", "--json"]).expect(4);
        assert_eq!(nowhere.error()["error"]["kind"], "not_a_repository");
        assert_eq!(sandbox.run(["project", "show", "nope", "--json"]).expect(3).error()["error"]["kind"], "not_found");
    }

    fn what_is_said_of_a_project_is_changed_and_taken_back() {
        let (sandbox, repo) = with_repo();
        sandbox.run_in(repo.path(), ["project", "add", "--name", "app"]).expect(0);
        let set = |words: &[&str]| sandbox.run([&["project", "set", "app", "--json"], words].concat());
        let view = set(&["--setup", "make deps", "--dev", "make serve", "--no-commit", "--copy", "a", "--copy", "b"]).expect(0).json();
        schemas().assert("project.json", &view);
        assert_eq!((&view["setup"], &view["commit"], &view["version"]), (&"make deps".into(), &"keep".into(), &2.into()));
        assert_eq!(view["copy"], serde_json::json!(["a", "b"]));
        let view = set(&["--unset", "dev", "--unset", "copy", "--commit", "--if-version", "2"]).expect(0).json();
        assert_eq!((&view["dev"], &view["commit"], &view["version"]), (&().into(), &"commit".into(), &3.into()));
        assert_eq!((&view["setup"], &view["copy"]), (&"make deps".into(), &serde_json::json!([])));
        let late = set(&["--cleanup", "true", "--if-version", "2"]).expect(4);
        assert_eq!(late.error()["error"]["kind"], "conflict");
        for wrong in [&["--dev", "x", "--unset", "dev"][..], &[]] {
            assert_eq!(set(wrong).expect(2).error()["error"]["kind"], "usage");
        }
        assert_eq!(set(&["--base", "nope"]).expect(4).error()["error"]["kind"], "unknown_base");
        assert_eq!(sandbox.run(["project", "show", "app", "--json"]).expect(0).json(), view);
    }

    fn a_project_with_tasks_goes_by_force_alone() {
        let (sandbox, repo) = with_repo();
        let other = TempRepo::with_commit();
        sandbox.run_in(repo.path(), ["project", "add", "--name", "app"]).expect(0);
        sandbox.run_in(other.path(), ["project", "add", "--name", "other"]).expect(0);
        sandbox.run(["task", "add", "Do it", "-p", "app"]).expect(0);
        let refused = sandbox.run(["project", "rm", "app", "--json"]).expect(4);
        assert_eq!(refused.error()["error"]["kind"], "in_use");
        sandbox.run(["project", "rm", "app", "--force"]).expect(0);
        sandbox.run(["project", "rm", "other"]).expect(0);
        assert_eq!(sandbox.run(["project", "ls"]).expect(0).text(), "");
        assert_eq!(sandbox.run(["task", "ls", "--json"]).expect(0).text(), "");
    }

    fn owners_have_projects_of_their_own() {
        let (sandbox, repo) = with_repo();
        for who in ["a", "b"] {
            sandbox.run_in(repo.path(), ["project", "add", "--name", "app", "--owner", who]).expect(0);
        }
        assert_eq!(sandbox.run(["project", "ls", "--json", "--owner", "a"]).expect(0).json_lines().len(), 1);
        // The operator sees both, and must say which one.
        assert_eq!(sandbox.run(["project", "show", "app", "--json"]).expect(2).error()["error"]["kind"], "ambiguous");
        assert_eq!(sandbox.run_in(repo.path(), ["task", "add", "x", "--json"]).expect(2).error()["error"]["kind"], "ambiguous");
        let id = sandbox.run_in(repo.path(), ["task", "add", "x", "--owner", "a"]).expect(0).text().trim().to_owned();
        sandbox.run(["task", "show", &id, "--owner", "b"]).expect(3);
    }

    fn a_repeated_call_with_its_key_adds_once() {
        let (sandbox, repo) = with_repo();
        let add = ["project", "add", "--name", "app", "--key", "k"];
        let first = sandbox.run_in(repo.path(), add).expect(0);
        sandbox.run(["host", "stop"]).expect(0);
        assert_eq!(sandbox.run_in(repo.path(), add).expect(0).text(), first.text());
        let other = sandbox.run_in(repo.path(), ["project", "add", "--name", "b", "--key", "k", "--json"]);
        assert_eq!(other.expect(4).error()["error"]["kind"], "key_reused");
        let mut task = sandbox.command(["task", "add", "x", "--key", "t"]);
        let first = run(task.current_dir(repo.path())).expect(0);
        assert_eq!(run(&mut task).expect(0).text(), first.text());
        assert_eq!(sandbox.run(["task", "ls", "--json"]).expect(0).json_lines().len(), 1);
    }

    fn a_bare_repository_is_a_project_too() {
        let sandbox = sandbox();
        let repo = TempRepo::with_commit();
        let bare = sandbox.path().join("app.git");
        repo.git(["clone", "--quiet", "--bare", ".", bare.to_str().unwrap()]);
        sandbox.run(["project", "add", "--repo", bare.to_str().unwrap()]).expect(0);
        let view = sandbox.run(["project", "show", "app", "--json"]).expect(0).json();
        assert_eq!(view["repo"], bare.to_str().unwrap());
        let task = sandbox.run(["task", "add", "x", "-p", "app"]).expect(0).text().trim().to_owned();
        sandbox.run(["run", "--task", &task, "--", "true"]).expect(0);
    }
}
