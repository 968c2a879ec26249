//! The start of a command: a child behind its gate, and the program that it becomes.

use std::sync::Arc;

use windlass_core::action::Stdin;
use windlass_core::container_service::LaunchSpec;
use windlass_core::execution::{ExecFailure, ExecStep};
use windlass_core::locator::OsBytes;
use windlass_core::outcome::{Exit, NotStarted};
use windlass_core::shim::journal::Started;
use windlass_core::shim::machine::{Input, Now};
use windlass_core::shim::message::PROTOCOL_VERSION;
use windlass_core::vcs_worktree::GitStep;

use super::State;
use super::happened::{Happened, StartId};
use super::kernel::{Birth, PID_NAMESPACE, Role};
use super::pipe::Output;
use super::program::Program;
use super::shim::{Command, Shim};
use super::task::Task;

/// No such file or directory.
const ENOENT: u32 = 2;
/// No process can be made.
const EAGAIN: u32 = 11;
/// It may not be done.
const EACCES: u32 = 13;

impl State {
    /// Makes the child behind the gate.
    pub(super) fn fork_command(&mut self, pid: u32) -> Input {
        match self.try_fork(pid) {
            Ok(started) => Input::Forked(Box::new(started)),
            Err((step, errno, reason)) => {
                let at = self.now;
                if let Some(start) = self.start_of(pid) {
                    self.note(|| Happened::NotStarted { start, reason });
                }
                Input::ExecFailed(ExecFailure { step, errno, reason, at })
            }
        }
    }

    fn try_fork(&mut self, pid: u32) -> Result<Started, (ExecStep, u32, NotStarted)> {
        let failed = (ExecStep::Fork, EAGAIN, NotStarted::SpawnFailed);
        let shim = self.shim(pid).ok_or(failed)?;
        let (start, cwd) = (shim.start, shim.launch.as_ref().ok_or(failed)?.cwd.clone());
        let (stdin, output) = {
            let launch = shim.launch.as_ref().ok_or(failed)?;
            (launch.stdin, launch.output)
        };
        shim.listens = true;
        let refused = shim.launch.as_ref().is_some_and(|it| Program::has_no_fork(&it.argv));
        if self.is_missing(&cwd) {
            return Err((ExecStep::Directory, ENOENT, NotStarted::DirectoryGone));
        }
        if refused {
            return Err(failed);
        }
        let birth = Birth {
            parent: pid,
            group: None,
            // The shim's: it has one already, and the command gets a group only.
            session: Some(pid),
            start: Some(start),
            marked: true,
            leader: true,
            role: Role::Gated,
        };
        let child = self.birth(birth).ok_or(failed)?;
        let began = self.machine_now();
        let boot = self.kernel.boot_id();
        let shim_name = self.kernel.processes.get(&pid).map(|process| process.name);
        let shim_name = shim_name.ok_or(failed)?;
        let shim = self.shim(pid).ok_or(failed)?;
        let epoch = shim.epoch;
        shim.outputs = Output::pipes(output);
        if stdin == Stdin::Messages {
            shim.stdin.open();
        }
        shim.command = Some(Command {
            pid: child.pid,
            began,
            word: None,
            settled: false,
            executes_at: None,
            exit: None,
        });
        Ok(Started {
            epoch,
            protocol: PROTOCOL_VERSION,
            shim_version: String::from("world"),
            boot,
            pid_namespace: PID_NAMESPACE,
            pid: child.pid,
            start_ticks: child.start_ticks,
            pidfs_handle: None,
            group: child.pid,
            cgroup: None,
            shim_pid: pid,
            shim_start_ticks: shim_name.start_ticks,
            at: began.wall,
        })
    }

    /// Lets a child whose gate is open execute its program when the time has come.
    pub(super) fn execute_due(&mut self, pid: u32, now: Now) {
        let Some(shim) = self.shim(pid) else { return };
        let Some(command) = &mut shim.command else { return };
        if command.executes_at.is_none_or(|at| at > now.boot_ms) {
            return;
        }
        command.executes_at = None;
        let (child, start) = (command.pid, shim.start);
        let Some(launch) = shim.launch.take() else { return };
        let word = self.become_program(child, start, &launch);
        if let Some(command) = self.shim(pid).and_then(|shim| shim.command.as_mut()) {
            command.word = Some(word);
        }
        self.kernel.wake(pid);
    }

    /// Lets the child of a shim that has just died go its way: behind a closed gate it ends, behind an open one it executes
    /// its program all the same.
    pub(super) fn abandon_child(&mut self, shim: &Shim) {
        let Some(command) = &shim.command else { return };
        let is_gated = self.kernel.processes.get(&command.pid).is_some_and(|child| {
            child.start == Some(shim.start) && matches!(child.role, Role::Gated)
        });
        match &shim.launch {
            Some(launch) if is_gated && command.executes_at.is_some() => {
                let _nobody_hears = self.become_program(command.pid, shim.start, launch);
            }
            Some(_) | None if is_gated => self.end(command.pid, Exit::Code(0), false),
            Some(_) | None => {}
        }
    }

    /// Lets a child execute its program; the failure is what it says on its error pipe.
    fn become_program(
        &mut self,
        child: u32,
        start: StartId,
        launch: &LaunchSpec,
    ) -> Result<(), ExecFailure> {
        let executed = match Program::find(&launch.argv) {
            Program::Runs(ops) => {
                let directory = Arc::new(launch.cwd.clone());
                let step = step_of(launch).map(Arc::new);
                let task = Task::new(ops, called(&launch.argv), directory, step);
                self.execute(child, start, task, &launch.cwd)
            }
            Program::NotExecutable => Err((EACCES, NotStarted::NotExecutable)),
            Program::NoFork | Program::NotFound => Err((ENOENT, NotStarted::ProgramNotFound)),
        };
        let at = self.now;
        executed.map_err(|(errno, reason)| {
            self.note(|| Happened::NotStarted { start, reason });
            self.end(child, Exit::Code(127), false);
            ExecFailure { step: ExecStep::Exec, errno, reason, at }
        })
    }

    /// Turns a child behind its gate into its program.
    fn execute(
        &mut self,
        child: u32,
        start: StartId,
        task: Task,
        directory: &windlass_core::locator::Locator,
    ) -> Result<(), (u32, NotStarted)> {
        let Some(process) = self.kernel.processes.get_mut(&child).filter(|it| it.lives()) else {
            // It was killed behind the gate; that is seen as every end is.
            return Ok(());
        };
        process.role = Role::Task(task);
        let name = process.name;
        let directory = directory.clone();
        self.note(|| Happened::Started { start, process: name, directory });
        self.kernel.wake(child);
        Ok(())
    }
}

/// Returns the git step that a launch is, if it holds the lock of a repository.
fn step_of(launch: &LaunchSpec) -> Option<GitStep> {
    let repository_lock = launch.repository_lock.clone()?;
    let text = |name: &OsBytes| String::from_utf8_lossy(&name.0).into_owned();
    let env = launch.env.iter().map(|(name, value)| (text(name), value.clone()));
    Some(GitStep {
        argv: launch.argv.clone(),
        env: env.collect(),
        base_env: Vec::new(),
        cwd: launch.cwd.clone(),
        repository_lock,
    })
}

/// What the kernel calls a program: the first bytes of its file's name.
fn called(argv: &[OsBytes]) -> Arc<str> {
    let program = argv.first().map(|program| program.0.as_slice()).unwrap_or_default();
    let name = program.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    String::from_utf8_lossy(&name[..name.len().min(15)]).into()
}
