//! How agents are started: argument vectors and environments, as they were seen to work.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use windlass_agents::{Agent, GitDirs, Launch, Options, Protocol, launch, native_program, traits};
use windlass_core::action::Stdin;
use windlass_core::agent::Permission;

fn options(agent: Agent, protocol: Protocol) -> Options {
    Options {
        agent,
        protocol,
        program: vec!["/opt/agent".into()],
        extra_arguments: Vec::new(),
        prompt: Some("two words and \"quotes\"".to_owned()),
        resume: None,
        session_id: None,
        model: None,
        permission: Permission::Edit,
        cwd: "/w".to_owned(),
        git: None,
        temp_dir: Some("/t".to_owned()),
        session_usage: None,
        client: ("windlass".to_owned(), "1".to_owned()),
    }
}

fn argv(launch: &Launch) -> Vec<&str> {
    launch.argv.iter().map(|argument| std::str::from_utf8(&argument.0).unwrap()).collect()
}

fn variable<'a>(launch: &'a Launch, name: &str) -> &'a str {
    std::str::from_utf8(&launch.env[name].0).unwrap()
}

#[test]
fn codex_exec_takes_its_message_on_standard_input_and_may_commit() {
    let git = GitDirs { common: "/m/.git".to_owned(), own: "/m/.git/worktrees/x".to_owned() };
    let launch = launch(&Options { git: Some(git), ..options(Agent::Codex, Protocol::CodexExec) });
    assert_eq!(
        argv(&launch),
        [
            "/opt/agent",
            "exec",
            "--json",
            "-s",
            "workspace-write",
            "-c",
            "check_for_update_on_startup=false",
            "-c",
            "sandbox_workspace_write.writable_roots=[\"/m/.git/objects\",\"/m/.git/refs\",\"/m/.git/logs\",\"/m/.git/worktrees/x\"]",
            "-c",
            "sandbox_workspace_write.exclude_slash_tmp=true",
            "-c",
            "sandbox_workspace_write.exclude_tmpdir_env_var=true",
            "-",
        ]
    );
    assert_eq!(launch.stdin, Stdin::Messages);
    assert!(launch.start.prompt_by_protocol);
    assert_eq!(variable(&launch, "TMPDIR"), "/t");
}

#[test]
fn codex_exec_resumes_with_its_message_as_one_argument_and_null_for_input() {
    let resumed = Options {
        resume: Some("id".to_owned()),
        model: Some("m".to_owned()),
        permission: Permission::Full,
        prompt: Some("-v".to_owned()),
        ..options(Agent::Codex, Protocol::CodexExec)
    };
    let launch = launch(&resumed);
    assert_eq!(argv(&launch)[3..7], ["-m", "m", "-s", "danger-full-access"]);
    assert_eq!(argv(&launch)[9..], ["resume", "id", "--", "-v"]);
    assert_eq!(launch.stdin, Stdin::Null);
    assert!(!launch.start.prompt_by_protocol);
}

#[test]
fn gemini_does_not_start_itself_again_and_trusts_the_worktree() {
    let launch = launch(&Options {
        session_id: Some("u".to_owned()),
        permission: Permission::Full,
        ..options(Agent::Gemini, Protocol::Gemini)
    });
    let words = "two words and \"quotes\"";
    assert_eq!(
        argv(&launch)[1..],
        ["-o", "stream-json", "--approval-mode", "yolo", "--session-id", "u", "-p", words]
    );
    assert_eq!(launch.stdin, Stdin::Null);
    assert_eq!(variable(&launch, "GEMINI_CLI_NO_RELAUNCH"), "true");
    assert_eq!(variable(&launch, "GEMINI_CLI_TRUST_WORKSPACE"), "true");
}

#[test]
fn a_message_that_is_too_long_for_an_argument_goes_to_standard_input() {
    let long = Some("x".repeat(200_000));
    let launch = launch(&Options { prompt: long, ..options(Agent::Gemini, Protocol::Gemini) });
    assert!(!argv(&launch).contains(&"-p"));
    assert_eq!(launch.stdin, Stdin::Messages);
    assert!(launch.start.prompt_by_protocol);
}

#[test]
fn opencode_gets_its_message_on_standard_input_and_asks() {
    let launch = launch(&Options {
        resume: Some("ses".to_owned()),
        ..options(Agent::Opencode, Protocol::Opencode)
    });
    assert_eq!(argv(&launch)[1..], ["run", "--format", "json", "--session", "ses", "--dir", "/w"]);
    assert_eq!(launch.stdin, Stdin::Messages);
    let config: serde_json::Value =
        serde_json::from_str(variable(&launch, "OPENCODE_CONFIG_CONTENT")).unwrap();
    assert_eq!(config["permission"], serde_json::json!({ "bash": "ask", "edit": "allow" }));
}

#[test]
fn options_of_claude_are_one_argument_each() {
    let evil = "--dangerously-skip-permissions";
    let launch = launch(&Options {
        resume: Some(evil.to_owned()),
        model: Some("a b".to_owned()),
        permission: Permission::Ask,
        ..options(Agent::Claude, Protocol::Claude)
    });
    let argv = argv(&launch);
    assert!(argv.contains(&"--resume=--dangerously-skip-permissions"));
    assert!(argv.contains(&"--model=a b"));
    assert!(argv.contains(&"--permission-prompt-tool=stdio"));
    assert!(!argv.contains(&evil));
    let launch = windlass_agents::launch(&Options {
        permission: Permission::Full,
        session_id: Some("u".to_owned()),
        ..options(Agent::Claude, Protocol::Claude)
    });
    let argv: Vec<&str> =
        launch.argv.iter().map(|one| std::str::from_utf8(&one.0).unwrap()).collect();
    assert!(argv.contains(&"--session-id=u"));
    assert!(argv.contains(&"--permission-mode=bypassPermissions"));
    assert!(!argv.contains(&"--permission-prompt-tool=stdio"));
}

#[test]
fn acp_is_spoken_with_any_program() {
    let program = vec!["npx".into(), "-y".into(), "some agent".into()];
    let launch = launch(&Options { program, ..options(Agent::Acp, Protocol::Acp) });
    assert_eq!(argv(&launch), ["npx", "-y", "some agent"]);
    let launch = windlass_agents::launch(&options(Agent::Gemini, Protocol::Acp));
    assert_eq!(launch.argv[1].0, b"--acp");
    let launch = windlass_agents::launch(&options(Agent::Opencode, Protocol::Acp));
    assert_eq!(launch.argv[1].0, b"acp");
    let launch = windlass_agents::launch(&options(Agent::Codex, Protocol::CodexAppServer));
    assert_eq!(launch.argv[1].0, b"app-server");
}

#[test]
fn the_program_behind_the_launcher_is_known() {
    let paths = native_program(&Agent::Codex, "linux", "x86_64");
    assert_eq!(paths[0], "@openai/codex-linux-x64/vendor/x86_64-unknown-linux-musl/bin/codex");
    assert_eq!(native_program(&Agent::Codex, "linux", "riscv64"), Vec::<String>::new());
    assert_eq!(native_program(&Agent::Gemini, "linux", "x86_64"), Vec::<String>::new());
}

#[test]
fn protocols_that_can_ask_are_preferred_where_asking_may_be_needed() {
    assert_eq!(Agent::Gemini.preferred(Permission::Ask), Protocol::Acp);
    assert_eq!(Agent::Gemini.preferred(Permission::Full), Protocol::Gemini);
    for agent in [Agent::Claude, Agent::Codex, Agent::Opencode, Agent::Acp] {
        assert!(agent.preferred(Permission::Ask).is_interactive(), "{agent:?}");
    }
    assert_eq!(traits(&Agent::Gemini, Protocol::Acp).resume_not_before_ms, 60_000);
    assert!(traits(&Agent::Codex, Protocol::CodexExec).locks_its_session);
}

#[test]
fn agents_are_known_by_name_and_their_protocol_by_what_they_say() {
    assert_eq!("acp:my-agent --x".parse(), Ok(Agent::Acp));
    assert!("nobody".parse::<Agent>().is_err());
    let rpc = serde_json::json!({ "id": 1, "result": {} });
    let event = serde_json::json!({ "type": "thread.started" });
    assert_eq!(Agent::Codex.protocol_of_message(Some(&rpc)), Protocol::CodexAppServer);
    assert_eq!(Agent::Codex.protocol_of_message(Some(&event)), Protocol::CodexExec);
    assert_eq!(Agent::Gemini.protocol_of_message(Some(&rpc)), Protocol::Acp);
    assert_eq!(Agent::Opencode.protocol_of_message(None), Protocol::Opencode);
}
