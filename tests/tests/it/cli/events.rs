//! `events`: what changed, and what there is.

use serde_json::Value;
use windlass_tests::isolated;

use super::{schemas, with_repo};

fn kinds_and_states(events: &[Value]) -> Vec<(&str, &str)> {
    let text = events.iter().map(|event| (event["kind"].as_str(), event["state"].as_str()));
    text.map(|(kind, state)| (kind.unwrap(), state.unwrap_or("deleted"))).collect()
}

isolated! {
    fn a_change_of_an_attempt_is_followed_by_the_status_of_its_task() {
        let (sandbox, repo) = with_repo();
        sandbox.run_in(repo.path(), ["project", "add", "--name", "app"]).expect(0);
        let task = sandbox.run(["task", "add", "Do it", "-p", "app"]).expect(0).text().trim().to_owned();
        let mut following = sandbox.start(["events", "-f", "--json"]);
        let mut seen = Vec::new();
        // It begins to follow before anything runs, and so sees every status.
        while seen.len() < 2 {
            seen.push(serde_json::from_str::<Value>(&following.line().unwrap()).unwrap());
        }
        assert_eq!(kinds_and_states(&seen), [("project", "known"), ("task", "todo")]);
        sandbox.run(["run", "--task", &task, "--", "true"]).expect(0);
        while seen.last().unwrap()["state"] != "in_review" {
            seen.push(serde_json::from_str(&following.line().unwrap()).unwrap());
        }
        seen.iter().for_each(|event| schemas().assert("change.json", event));
        let last = &seen[seen.len() - 2..];
        assert_eq!(last[0]["number"], last[1]["number"]);
        assert_eq!((&last[0]["kind"], &last[0]["parent_id"]), (&"attempt".into(), &last[1]["id"]));
        let statuses = kinds_and_states(&seen).into_iter().filter(|(kind, _)| *kind == "task");
        let statuses: Vec<_> = statuses.map(|(_, state)| state).collect();
        assert_eq!(statuses.first(), Some(&"todo"));
        assert_eq!(statuses.last(), Some(&"in_review"));
        assert!(statuses.windows(2).all(|pair| pair[0] != pair[1]), "{statuses:?}");
        let text = sandbox.run(["events"]).expect(0);
        assert!(text.text().contains(&task), "{}", text.text());
    }

    fn what_there_is_comes_first_when_it_is_asked_for() {
        let (sandbox, repo) = with_repo();
        sandbox.run_in(repo.path(), ["project", "add", "--name", "app"]).expect(0);
        let task = sandbox.run(["task", "add", "Do it", "-p", "app"]).expect(0).text().trim().to_owned();
        sandbox.run(["run", "--task", &task, "--", "true"]).expect(0);
        sandbox.run_in(repo.path(), ["run", "--", "true"]).expect(0);
        sandbox.run(["rm", "@last"]).expect(0);
        let there = sandbox.run(["events", "--state", "--json"]).expect(0).json_lines();
        there.iter().for_each(|event| schemas().assert("change.json", event));
        let expected = [("project", "known"), ("task", "in_review"), ("attempt", "finished")];
        assert_eq!(kinds_and_states(&there), expected);
        let number = there[0]["number"].as_u64().unwrap();
        assert!(there.iter().all(|event| event["number"] == number));
        let mut following = sandbox.start(["events", "--state", "-f", "--json"]);
        for event in &there {
            assert_eq!(&serde_json::from_str::<Value>(&following.line().unwrap()).unwrap(), event);
        }
        sandbox.run(["task", "set", &task, "--status", "done"]).expect(0);
        let next: Value = serde_json::from_str(&following.line().unwrap()).unwrap();
        assert_eq!((&next["kind"], &next["state"], &next["number"]), (&"task".into(), &"done".into(), &(number + 1).into()));
    }

    fn a_follower_goes_on_where_it_was_over_a_restart_of_the_host() {
        let (sandbox, repo) = with_repo();
        sandbox.run_in(repo.path(), ["project", "add", "--name", "app"]).expect(0);
        let mut following = sandbox.start(["events", "-f", "--json"]);
        assert!(following.line().unwrap().contains("\"project\""));
        sandbox.run(["host", "stop"]).expect(0);
        for title in ["one", "two"] {
            sandbox.run(["task", "add", title, "-p", "app"]).expect(0);
            let event: Value = serde_json::from_str(&following.line().unwrap()).unwrap();
            assert_eq!((&event["kind"], &event["state"]), (&"task".into(), &"todo".into()));
        }
        let beyond = sandbox.run(["events", "-f", "--after", "1000000", "--json"]).expect(2);
        assert_eq!(beyond.error()["error"]["kind"], "invalid");
    }
}
