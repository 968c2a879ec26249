//! What is known of starting the agents, as data: options in, argument vector and environment out.
//!
//! What was seen to work with versions of late 2026 is in `docs/agents.md`. Whether a program is there, and which version,
//! is found out elsewhere.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use windlass_core::action::Stdin;
use windlass_core::agent::{Permission, Start, Usage};
use windlass_core::locator::OsBytes;

use crate::protocol::{Agent, Protocol};

/// Longer messages do not go among the arguments: Linux takes 128 KiB for one.
const MAX_ARGUMENT_BYTES: usize = 96 << 10;

/// The git directories of a linked worktree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitDirs {
    /// The common one, absolute: `…/main/.git`.
    pub common: String,
    /// The worktree's own: `…/main/.git/worktrees/name`.
    pub own: String,
}

impl GitDirs {
    /// Returns the directories that a commit writes to. Not all of `.git`: an agent's sandbox may protect that by name.
    #[must_use]
    pub fn written_by_commit(&self) -> Vec<String> {
        let below = |name: &str| format!("{}/{name}", self.common);
        let mut dirs = vec![below("objects"), below("refs"), below("logs")];
        dirs.push(self.own.clone());
        dirs
    }
}

/// What to start an agent for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The agent.
    pub agent: Agent,
    /// The protocol; see [`Agent::preferred`].
    pub protocol: Protocol,
    /// The program, and arguments that come before all others. Never joined or split.
    pub program: Vec<OsBytes>,
    /// Arguments that come after those that are known here, but before the message.
    pub extra_arguments: Vec<OsBytes>,
    /// The first message.
    pub prompt: Option<String>,
    /// The session to resume.
    pub resume: Option<String>,
    /// A UUID for a new session, for an agent that lets us choose: so it is known before it starts.
    pub session_id: Option<String>,
    /// The model; `None` leaves the agent's default.
    pub model: Option<String>,
    /// What it may do without asking.
    pub permission: Permission,
    /// The directory to work in, absolute.
    pub cwd: String,
    /// The git directories, where the worktree is a linked one.
    pub git: Option<GitDirs>,
    /// A directory for temporary files of this execution alone; outside the agent's own home.
    pub temp_dir: Option<String>,
    /// What the session had used before, where it is known.
    pub session_usage: Option<Usage>,
    /// Name and version of the client.
    pub client: (String, String),
}

/// How to start an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Program and arguments.
    pub argv: Vec<OsBytes>,
    /// Variables to set, beside those that it gets anyway.
    pub env: BTreeMap<String, OsBytes>,
    /// How standard input is connected. With messages, what is to be written comes from the conversation.
    pub stdin: Stdin,
    /// What the conversation begins with.
    pub start: Start,
}

/// What is to be kept in mind about an agent that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits {
    /// It reports its session id only when it pleases; with this it takes ours.
    pub takes_session_id: bool,
    /// A session can be resumed in the directory of its beginning only.
    pub resumes_in_place_only: bool,
    /// Resuming within this many milliseconds after the session began destroys it.
    pub resume_not_before_ms: u64,
    /// It refuses a second process on one session by itself. Of the others there must be one at a time.
    pub locks_its_session: bool,
    /// An interrupt by signal leaves litter or is ignored: terminate instead.
    pub never_interrupt_by_signal: bool,
}

/// Returns what is to be kept in mind.
#[must_use]
pub fn traits(agent: &Agent, protocol: Protocol) -> Traits {
    let none = Traits {
        takes_session_id: false,
        resumes_in_place_only: false,
        resume_not_before_ms: 0,
        locks_its_session: false,
        never_interrupt_by_signal: true,
    };
    match agent {
        Agent::Claude => Traits { takes_session_id: true, ..none },
        Agent::Codex => Traits { locks_its_session: true, ..none },
        Agent::Gemini => Traits {
            takes_session_id: protocol == Protocol::Gemini,
            resumes_in_place_only: true,
            resume_not_before_ms: if protocol == Protocol::Acp { 60_000 } else { 0 },
            ..none
        },
        Agent::Opencode => Traits { resumes_in_place_only: true, ..none },
        Agent::Acp => Traits { resumes_in_place_only: true, ..none },
        Agent::Plain => Traits { never_interrupt_by_signal: false, ..none },
    }
}

/// Returns where the agent's own program lies below the `node_modules` that its launcher was installed in, most likely
/// first. A launcher that is killed leaves the agent behind, so its program is to be run instead where it is there.
///
/// `os` and `arch` are as in `std::env::consts`.
#[must_use]
pub fn native_program(agent: &Agent, os: &str, arch: &str) -> Vec<String> {
    if *agent != Agent::Codex {
        return Vec::new();
    }
    let cpu = match arch {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        _ => return Vec::new(),
    };
    let (system, target) = match os {
        "linux" => ("linux", "unknown-linux-musl"),
        "macos" => ("darwin", "apple-darwin"),
        _ => return Vec::new(),
    };
    let inside = format!("vendor/{arch}-{target}/bin/codex");
    vec![
        format!("@openai/codex-{system}-{cpu}/{inside}"),
        format!("@openai/codex/node_modules/@openai/codex-{system}-{cpu}/{inside}"),
    ]
}

/// Says how to start an agent.
#[must_use]
pub fn launch(options: &Options) -> Launch {
    let mut line = CommandLine { argv: options.program.clone(), env: BTreeMap::new() };
    if let Some(dir) = &options.temp_dir {
        line.set("TMPDIR", dir);
    }
    let mut start = Start {
        prompt: options.prompt.clone(),
        prompt_by_protocol: true,
        resume: options.resume.clone(),
        cwd: options.cwd.clone(),
        model: options.model.clone(),
        permission: options.permission,
        writable_roots: options.git.as_ref().map_or_else(Vec::new, GitDirs::written_by_commit),
        session_usage: options.session_usage,
        client: options.client.clone(),
    };
    let stdin = match options.protocol {
        Protocol::Claude => claude(options, &mut line),
        Protocol::CodexExec => codex_exec(options, &mut start, &mut line),
        Protocol::CodexAppServer => {
            line.push("app-server");
            line.extra(options);
            Stdin::Messages
        }
        Protocol::Gemini => gemini(options, &mut start, &mut line),
        Protocol::Opencode => opencode(options, &mut line),
        Protocol::Acp => acp(options, &mut line),
        Protocol::Plain => {
            line.extra(options);
            Stdin::Messages
        }
    };
    Launch { argv: line.argv, env: line.env, stdin, start }
}

/// An argument vector and an environment under way.
struct CommandLine {
    argv: Vec<OsBytes>,
    env: BTreeMap<String, OsBytes>,
}

impl CommandLine {
    fn push(&mut self, argument: &str) {
        self.argv.push(argument.into());
    }

    fn pushes(&mut self, arguments: &[&str]) {
        for argument in arguments {
            self.push(argument);
        }
    }

    /// Adds `--name=value` as one argument: a value that begins with a dash is then no option.
    fn option(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.push(&format!("{name}={value}"));
        }
    }

    fn set(&mut self, name: &str, value: &str) {
        self.env.insert(name.to_owned(), value.into());
    }

    fn extra(&mut self, options: &Options) {
        self.argv.extend(options.extra_arguments.iter().cloned());
    }
}

fn claude(options: &Options, line: &mut CommandLine) -> Stdin {
    line.pushes(&[
        "-p",
        "--verbose",
        "--output-format=stream-json",
        "--input-format=stream-json",
        "--include-partial-messages",
        "--replay-user-messages",
    ]);
    let mode = match options.permission {
        Permission::Plan => "plan",
        Permission::Ask => "default",
        Permission::Edit => "acceptEdits",
        Permission::Full => "bypassPermissions",
    };
    line.option("--permission-mode", Some(mode));
    // With everything allowed nobody watches, so there is nobody to answer.
    if options.permission == Permission::Full {
        line.push("--disallowedTools=AskUserQuestion");
    } else {
        line.push("--permission-prompt-tool=stdio");
    }
    line.option("--model", options.model.as_deref());
    match &options.resume {
        Some(session) => line.option("--resume", Some(session)),
        None => line.option("--session-id", options.session_id.as_deref()),
    }
    line.extra(options);
    Stdin::Messages
}

fn codex_exec(options: &Options, start: &mut Start, line: &mut CommandLine) -> Stdin {
    line.pushes(&["exec", "--json"]);
    if let Some(model) = &options.model {
        line.pushes(&["-m", model]);
    }
    let sandbox = match options.permission {
        Permission::Plan => "read-only",
        Permission::Ask | Permission::Edit => "workspace-write",
        Permission::Full => "danger-full-access",
    };
    line.pushes(&["-s", sandbox]);
    line.pushes(&["-c", "check_for_update_on_startup=false"]);
    if sandbox == "workspace-write" {
        let roots = Value::from(start.writable_roots.clone());
        line.pushes(&["-c", &format!("sandbox_workspace_write.writable_roots={roots}")]);
        // The shared temporary directories are writable by default, and other worktrees may lie there.
        line.pushes(&["-c", "sandbox_workspace_write.exclude_slash_tmp=true"]);
        line.pushes(&["-c", "sandbox_workspace_write.exclude_tmpdir_env_var=true"]);
    }
    line.extra(options);
    let prompt = options.prompt.as_deref().unwrap_or_default();
    if let Some(session) = &options.resume {
        line.pushes(&["resume", session]);
        if prompt.len() <= MAX_ARGUMENT_BYTES {
            if prompt.starts_with('-') {
                line.push("--");
            }
            line.push(prompt);
            start.prompt_by_protocol = false;
            return Stdin::Null;
        }
    }
    line.push("-");
    Stdin::Messages
}

/// Gemini CLI starts itself again as a child unless it is told not to: a signal would reach the parent only.
fn gemini_env(line: &mut CommandLine) {
    line.set("GEMINI_CLI_NO_RELAUNCH", "true");
    line.set("GEMINI_CLI_TRUST_WORKSPACE", "true");
}

fn gemini(options: &Options, start: &mut Start, line: &mut CommandLine) -> Stdin {
    gemini_env(line);
    if let Some(model) = &options.model {
        line.pushes(&["-m", model]);
    }
    let mode = match options.permission {
        Permission::Plan => "plan",
        Permission::Ask => "default",
        Permission::Edit => "auto_edit",
        Permission::Full => "yolo",
    };
    line.pushes(&["-o", "stream-json", "--approval-mode", mode]);
    match (&options.resume, &options.session_id) {
        (Some(session), _) => line.pushes(&["--resume", session]),
        (None, Some(session)) => line.pushes(&["--session-id", session]),
        (None, None) => {}
    }
    line.extra(options);
    let prompt = options.prompt.as_deref().unwrap_or_default();
    if prompt.len() <= MAX_ARGUMENT_BYTES && !prompt.starts_with('-') {
        line.pushes(&["-p", prompt]);
        start.prompt_by_protocol = false;
        return Stdin::Null;
    }
    Stdin::Messages
}

fn opencode_env(options: &Options, line: &mut CommandLine) {
    for name in [
        "OPENCODE_DISABLE_AUTOUPDATE",
        "OPENCODE_DISABLE_MODELS_FETCH",
        "OPENCODE_DISABLE_LSP_DOWNLOAD",
        "OPENCODE_DISABLE_DEFAULT_PLUGINS",
    ] {
        line.set(name, "1");
    }
    // By default it asks for nothing but what lies outside.
    let (bash, edit) = match options.permission {
        Permission::Plan => ("deny", "deny"),
        Permission::Ask => ("ask", "ask"),
        Permission::Edit => ("ask", "allow"),
        Permission::Full => ("allow", "allow"),
    };
    let config = json!({
        "autoupdate": false,
        "share": "disabled",
        "permission": { "bash": bash, "edit": edit },
    });
    line.set("OPENCODE_CONFIG_CONTENT", &config.to_string());
}

fn opencode(options: &Options, line: &mut CommandLine) -> Stdin {
    opencode_env(options, line);
    line.pushes(&["run", "--format", "json"]);
    if options.permission == Permission::Full {
        line.push("--auto");
    }
    if let Some(model) = &options.model {
        line.pushes(&["--model", model]);
    }
    if let Some(session) = &options.resume {
        // Without the directory it works in the old one, and never ends if that is another.
        line.pushes(&["--session", session, "--dir", &options.cwd]);
    }
    line.extra(options);
    // As an argument the message would be quoted and escaped.
    Stdin::Messages
}

fn acp(options: &Options, line: &mut CommandLine) -> Stdin {
    match options.agent {
        Agent::Gemini => {
            gemini_env(line);
            line.push("--acp");
            if let Some(model) = &options.model {
                line.pushes(&["-m", model]);
            }
        }
        Agent::Opencode => {
            opencode_env(options, line);
            line.push("acp");
        }
        Agent::Claude | Agent::Codex | Agent::Acp | Agent::Plain => {}
    }
    line.extra(options);
    Stdin::Messages
}
