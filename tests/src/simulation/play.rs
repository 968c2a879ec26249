//! [`Play`]: what is done on the stage. Hosts come and go, clients ask, blows are struck, in the end everything is asked to
//! end.

pub(super) mod clients;
mod ending;

use std::sync::Arc;

use windlass::{Builder, Config};
use windlass_core::admission::Limits;
use windlass_core::cleanup::Policy;
use windlass_core::record::AttemptStatus;
use windlass_core::time::Timestamp;
use windlass_core::workspace::Worktree;
use windlass_fakes::faulty::Conductor;
use windlass_fakes::{Ambush, Loss};

use super::event::{Gone, Life};
use super::ground::{Ground, HostRuntime};
use super::place::Place;
use super::plan::{Blow, Plan, Request, When};
use super::stage::{LifeConductor, Stage};

/// How long a host that is asked to leave has for it, in milliseconds, before it is killed.
const LEAVE_MS: u64 = 30_000;

/// What is done on the stage.
#[derive(Debug)]
pub struct Play {
    /// What is being run.
    pub plan: Arc<Plan>,
    /// Where.
    pub stage: Arc<Stage>,
    /// What runs the tasks.
    pub ground: Arc<dyn Ground>,
    /// The machine.
    pub place: Place,
}

/// Something that is done at a time.
enum Cue {
    Ask(Arc<Request>),
    Strike(Blow),
}

impl Play {
    /// Runs everything to its end.
    pub async fn run(self: Arc<Self>) {
        self.host_comes();
        let watch = Arc::clone(&self);
        self.ground.spawn(None, Box::pin(async move { watch.keep_hosted().await }));
        for (at_ms, cue) in self.cues() {
            self.ground.time_reached(self.after(at_ms)).await;
            match cue {
                Cue::Ask(request) => self.ask(request),
                Cue::Strike(blow) => self.strike(blow),
            }
        }
        self.ground.time_reached(self.after(self.plan.settings.heal_ms)).await;
        // That two hosts live is one of the things that go wrong.
        let living = self.stage.living();
        for older in living.iter().rev().skip(1) {
            self.kill(*older);
        }
        for stale in self.stage.superseded() {
            self.kill(stale);
        }
        self.stage.heal();
        self.end().await;
    }

    /// Returns a time after the beginning.
    fn after(&self, ms: u64) -> Timestamp {
        self.stage.began.plus_ms(ms)
    }

    /// Lists what is done at a time, in its order.
    fn cues(&self) -> Vec<(u64, Cue)> {
        let mut cues: Vec<_> = self
            .plan
            .requests
            .iter()
            .map(|request| (request.at_ms, Cue::Ask(Arc::new(request.clone()))))
            .collect();
        for intervention in &self.plan.interventions {
            if let When::At(ms) = intervention.when {
                cues.push((ms, Cue::Strike(intervention.what.clone())));
            }
        }
        cues.sort_by_key(|(at_ms, _)| *at_ms);
        cues
    }

    /// Starts another host whenever none lives.
    async fn keep_hosted(self: Arc<Self>) {
        loop {
            self.stage.when(|stage| stage.living().is_empty().then_some(())).await;
            let at = self.ground.now().plus_ms(self.plan.settings.restart_ms);
            self.ground.time_reached(at).await;
            if self.stage.living().is_empty() {
                self.host_comes();
            }
        }
    }

    /// Lets a host come.
    pub(super) fn host_comes(self: &Arc<Self>) {
        let life = self.stage.host_comes();
        let (stage, ground) = (Arc::clone(&self.stage), Arc::clone(&self.ground));
        let conductor: Arc<dyn Conductor> =
            Arc::new(LifeConductor::new(Arc::clone(&stage), Arc::clone(&ground), life));
        let (backends, input) = self.place.ports(&conductor);
        let builder = Builder::new(backends, self.config(), self.place.node).input(input);
        let builder = builder.pid(life.0);
        let runtime = HostRuntime { ground: Arc::clone(&ground), stage: Arc::clone(&stage), life };
        let comes = async move {
            match builder.start(Arc::new(runtime)).await {
                Ok(handle) => stage.host_serves(life, handle),
                Err(_) => {
                    stage.host_gone(life, Gone::Failed);
                    ground.kill(life);
                }
            }
        };
        self.ground.spawn(Some(life), Box::pin(comes));
    }

    fn config(&self) -> Config {
        let settings = &self.plan.settings;
        let mut config = Config::standard();
        config.limits = Limits {
            per_owner: settings.per_owner,
            per_host: settings.per_host,
            dev_servers: settings.per_host,
            queue: settings.queue,
        };
        config.stop_grace_ms = settings.stop_grace_ms;
        config.background_timeout_ms = settings.background_timeout_ms;
        config.git_timeout_ms = settings.git_timeout_ms;
        config.log_cap_bytes = settings.log_cap_bytes;
        config.cleanup_period_ms = settings.cleanup_period_ms;
        config.cleanup =
            Policy { idle_ms: settings.idle_ms, orphan_ms: settings.orphan_ms, ..config.cleanup };
        config
    }

    /// Does something to the world or its hosts.
    pub fn strike(self: &Arc<Self>, blow: Blow) {
        match blow {
            // At a time there is no call to go wrong.
            Blow::Fault(_) => {}
            Blow::KillHost => {
                if let Some(life) = self.stage.living().last() {
                    self.kill(*life);
                }
            }
            Blow::LeaveHost => self.host_leaves(),
            Blow::SecondHost => self.host_comes(),
            Blow::PowerLoss { journals, logs, store, worktrees } => {
                for life in self.stage.living() {
                    self.kill(life);
                }
                let (journals, logs) = (journals.into(), logs.into());
                let (store, worktrees) = (store.into(), worktrees.into());
                self.stage.scene.world.power_loss(Loss { journals, logs, store, worktrees });
                self.stage.catch_up();
            }
            Blow::KillShim { of } => {
                for execution in
                    self.stage.names(|names| names.executions_named(&of).collect::<Vec<_>>())
                {
                    self.stage.scene.world.kill_shim(execution);
                }
                self.stage.catch_up();
            }
            Blow::StopShim { of, effect } => {
                for execution in
                    self.stage.names(|names| names.executions_named(&of).collect::<Vec<_>>())
                {
                    self.stage.scene.world.ambush_shim(execution, effect, Ambush::Freeze);
                }
            }
            Blow::Room { free_bytes } => {
                let room =
                    windlass_core::container_service::Room { free_bytes, floor_bytes: 1 << 30 };
                self.stage.scene.world.set_room(room);
            }
            Blow::Release { of } => self.release(&of),
            Blow::Write { of, path, text } => {
                self.at_worktree(&of, |repositories, worktree| {
                    repositories.write(&worktree.path, &path, text.as_bytes());
                });
            }
            Blow::DeleteDirectory { of } => {
                self.at_worktree(&of, |repositories, worktree| {
                    repositories.delete_directory(&worktree.path);
                });
            }
            Blow::Ask(request) => self.ask(Arc::new(*request)),
        }
        self.ground.changed();
    }

    fn release(&self, of: &str) {
        for execution in self.stage.names(|names| names.executions_named(of).collect::<Vec<_>>()) {
            self.stage.scene.world.release(execution);
        }
        self.stage.catch_up();
    }

    /// Does something to the worktree of an attempt, if it is there and nobody is about to take it away.
    fn at_worktree(
        &self,
        of: &str,
        act: impl FnOnce(&windlass_fakes::MemoryRepositories, &Worktree),
    ) {
        let Some(id) = self.stage.attempt_named(of) else { return };
        let worktree = self.stage.look(|view| {
            let attempt = view.store.attempt(id)?;
            let at_rest = attempt.status != AttemptStatus::Creating;
            attempt.workspace.worktree().filter(|_| at_rest).cloned()
        });
        let repositories = &self.stage.scene.repositories;
        if let Some(worktree) = worktree.filter(|worktree| repositories.exists(&worktree.path)) {
            act(repositories, &worktree);
        }
    }

    /// Kills a host.
    pub fn kill(&self, life: Life) {
        self.stage.host_gone(life, Gone::Killed);
        self.ground.kill(life);
        self.stage.catch_up();
    }

    /// Asks the newest host to leave in good order.
    fn host_leaves(self: &Arc<Self>) {
        let Some((life, handle)) = self.stage.serving().into_iter().next() else { return };
        let asks = async move { drop(handle.shut_down().await) };
        self.ground.spawn(Some(life), Box::pin(asks));
        let play = Arc::clone(self);
        let insists = async move {
            play.ground.time_reached(play.ground.now().plus_ms(LEAVE_MS)).await;
            if play.stage.lives(life) {
                play.kill(life);
            }
        };
        self.ground.spawn(None, Box::pin(insists));
    }

    /// Lets a client ask for something.
    pub fn ask(self: &Arc<Self>, request: Arc<Request>) {
        self.stage.open(&request.name);
        let play = Arc::clone(self);
        self.ground.spawn(None, Box::pin(async move { play.client(request).await }));
    }
}
