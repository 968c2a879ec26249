//! What goes wrong: what the plan names, else what the swarm throws.

use std::collections::BTreeMap;

use windlass_fakes::decision::Question;
use windlass_fakes::faulty::{Fault, Site};

use super::super::event::Life;
use super::super::plan::{Blow, Class, Plan, When};
use super::{Chosen, Inner, at_call};

/// How long a call takes at most that is only slow, in milliseconds.
const LATENCY_MS: u64 = 40;

/// How long a call takes at most that takes long, in milliseconds.
const LONG_MS: u64 = 20_000;

/// During how many calls after it came a host takes over.
const RECOVERY_CALLS: u32 = 40;

/// What the plan strikes at calls and polls.
#[derive(Debug, Default)]
pub(super) struct Faults {
    any: BTreeMap<u64, Vec<Blow>>,
    named: BTreeMap<(String, String, u32), Vec<Blow>>,
    polls: BTreeMap<(u32, u32), Vec<Blow>>,
    /// What the swarm threw, as the plan could name it.
    pub(super) chosen: Vec<Chosen>,
}

impl Faults {
    pub(super) fn of(plan: &Plan) -> Self {
        let mut faults = Self::default();
        for intervention in &plan.interventions {
            let blow = intervention.what.clone();
            match intervention.when.clone() {
                When::At(_) => {}
                When::AnyCall(nth) => faults.any.entry(nth).or_default().push(blow),
                When::Call { site, about, nth } => {
                    faults.named.entry((site, about, nth)).or_default().push(blow);
                }
                When::Poll { life, nth } => {
                    faults.polls.entry((life, nth)).or_default().push(blow);
                }
            }
        }
        faults
    }

    fn at(&mut self, nth_of_all: u64, site: Site, about: &str, nth: u32) -> Vec<Blow> {
        let mut blows = self.any.remove(&nth_of_all).unwrap_or_default();
        if !self.named.is_empty() {
            let key = (site.as_str().to_owned(), about.to_owned(), nth);
            blows.extend(self.named.remove(&key).unwrap_or_default());
        }
        blows
    }
}

/// Says whether something can go wrong at a method in this way.
fn applies(class: Class, site: Site) -> bool {
    match class {
        Class::Latency | Class::LongDelay | Class::Hang | Class::CrashBefore => true,
        Class::CrashInRecovery => true,
        // An error of a save promises that the worktree is in its place, also where a crash had left it aside.
        Class::ErrorBefore => site != Site::Save,
        // An error of these promises that everything is as it was.
        Class::ErrorAfter => site.has_effect() && !matches!(site, Site::Create | Site::Save),
        Class::CrashAfter => site.has_effect(),
        // What hears two answers of a takeover does not know which one counts.
        Class::Twice => site.has_effect() && site != Site::Acquire,
        Class::Full => {
            matches!(site, Site::Prepare | Site::Commit | Site::Create)
        }
        Class::CrashBetween
        | Class::PowerLoss
        | Class::SecondHost
        | Class::LeaveHost
        | Class::KillShim
        | Class::Reorder => false,
    }
}

/// Makes the fault of a class from a number.
fn fault(class: Class, number: u64) -> Fault {
    let delay = |most: u64| {
        let ms = 1 + (number >> 8) % most;
        if number & 1 == 0 {
            Fault::Delay { before_ms: ms, after_ms: 0 }
        } else {
            Fault::Delay { before_ms: 0, after_ms: ms }
        }
    };
    match class {
        Class::Latency => delay(LATENCY_MS),
        Class::LongDelay => delay(LONG_MS),
        Class::Hang => Fault::Hang,
        Class::ErrorBefore => Fault::ErrorBefore,
        Class::ErrorAfter => Fault::ErrorAfter,
        Class::Full => Fault::Full,
        Class::Twice => Fault::Twice,
        Class::CrashAfter => Fault::CrashAfter,
        Class::CrashBefore | Class::CrashInRecovery => Fault::CrashBefore,
        Class::CrashBetween
        | Class::PowerLoss
        | Class::SecondHost
        | Class::LeaveHost
        | Class::KillShim
        | Class::Reorder => Fault::None,
    }
}

/// The classes in the order in which they are tried.
const AT_CALLS: [Class; 10] = [
    Class::CrashBefore,
    Class::CrashAfter,
    Class::CrashInRecovery,
    Class::ErrorBefore,
    Class::ErrorAfter,
    Class::Full,
    Class::Twice,
    Class::Hang,
    Class::LongDelay,
    Class::Latency,
];

impl Inner {
    /// Says what goes wrong with a call.
    pub(super) fn fault_at(&mut self, life: Life, site: Site, about: &str) -> Fault {
        self.calls += 1;
        let calls = match self.hosts.get_mut(&life) {
            Some(host) => {
                host.calls += 1;
                host.calls
            }
            None => 0,
        };
        let nth = self.decisions.count(site.as_str(), about);
        let mut struck = Fault::None;
        let named = self.faults.at(self.calls, site, about, nth);
        // Whoever asks while everything is asked to end is answered, and asks once.
        for blow in named.into_iter().filter(|_| !self.healed) {
            match blow {
                Blow::Fault(fault) => struck = fault,
                Blow::KillHost => struck = Fault::CrashBefore,
                Blow::PowerLoss { .. } => {
                    struck = Fault::CrashBefore;
                    self.blows.push_back(blow);
                }
                blow => self.blows.push_back(blow),
            }
        }
        if struck != Fault::None || self.healed || self.plan.swarm.is_calm() {
            return struck;
        }
        let taking_over = life.0 > 1 && calls <= RECOVERY_CALLS;
        let question = Question { site: site.as_str(), about, nth, draw: 0 };
        let draw = self.decisions.draw(&question);
        let mut left = draw % 10_000;
        for class in AT_CALLS {
            if !applies(class, site) || (class == Class::CrashInRecovery && !taking_over) {
                continue;
            }
            // An error of a creation promises that nothing that was begun is left, by a crash before it neither.
            let fails = matches!(class, Class::ErrorBefore | Class::Full);
            if fails && site == Site::Create && nth > 1 {
                continue;
            }
            let rate = u64::from(self.plan.swarm.rate(class));
            if left < rate {
                let fault = fault(class, draw >> 16);
                self.faults.chosen.push(at_call(site.as_str(), about, nth, fault));
                return fault;
            }
            left -= rate;
        }
        Fault::None
    }

    /// Says whether a host dies after a poll of its loop.
    pub(super) fn dies_after_poll(&mut self, life: Life, nth: u32) -> bool {
        let mut dies = false;
        let named = self.faults.polls.remove(&(life.0, nth)).unwrap_or_default();
        for blow in named.into_iter().filter(|_| !self.healed) {
            match blow {
                Blow::KillHost => dies = true,
                blow => self.blows.push_back(blow),
            }
        }
        let rate = self.plan.swarm.rate(Class::CrashBetween);
        if dies || rate == 0 || self.healed {
            return dies;
        }
        let about = life.0.to_string();
        let question = Question { site: "poll", about: &about, nth, draw: 0 };
        if self.decisions.draw(&question) % 10_000 >= u64::from(rate) {
            return false;
        }
        let when = When::Poll { life: life.0, nth };
        self.faults.chosen.push(Chosen { when, what: Blow::KillHost });
        true
    }

    /// Chooses one of `count`, 0 unless a class of the swarm says otherwise.
    pub(super) fn choose(
        &mut self,
        class: Class,
        site: &'static str,
        about: &str,
        count: u64,
    ) -> u64 {
        let rate = if self.healed { 0 } else { self.plan.swarm.rate(class) };
        if count < 2 || (rate == 0 && self.plan.fixed.is_empty()) {
            return 0;
        }
        let nth = self.decisions.count(site, about);
        let question = Question { site, about, nth, draw: 0 };
        self.decisions.rarely(&question, rate, count - 1)
    }
}
