//! What goes wrong in a plan: which classes of fault are on, and what is done at which time.

use super::Dice;
use crate::simulation::plan::{Blow, Class, Intervention, Pace, Plan, Tail, When};

/// In how many of 100 plans nothing goes wrong at all.
const CALM: u64 = 10;

/// In how many of 100 plans a class is off.
const OFF: u64 = 40;

/// How likely a class is at each opportunity, per 10,000.
fn rate(class: Class) -> u16 {
    match class {
        Class::Latency => 2_500,
        Class::LongDelay => 120,
        Class::Hang => 60,
        Class::ErrorBefore | Class::ErrorAfter => 200,
        Class::Full => 80,
        Class::Twice => 200,
        Class::CrashBefore | Class::CrashAfter => 120,
        Class::CrashBetween => 60,
        Class::CrashInRecovery => 300,
        Class::Reorder => 2_000,
        Class::SecondHost => 3_000,
        // These are done at a time.
        Class::PowerLoss | Class::LeaveHost | Class::KillShim => 1,
    }
}

fn tail(dice: &mut Dice) -> Tail {
    let permille = u16::try_from(dice.below(1_001)).unwrap_or(0);
    match dice.below(4) {
        0 => Tail::Gone,
        1 => Tail::Kept,
        2 => Tail::Torn(permille),
        _ => Tail::Zeroed(permille),
    }
}

/// How long things take.
fn pace(dice: &mut Dice) -> Pace {
    let mut ms = |most| if dice.happens(50) { dice.below(most) } else { 0 };
    Pace {
        exec_ms: ms(4),
        sync_ms: ms(6),
        commit_ms: ms(12),
        worktree_step_ms: ms(8),
        settle_ms: ms(400),
        keeps_dropped_commits: dice.happens(50),
    }
}

/// Lets things go wrong.
pub(super) fn add(plan: &mut Plan, dice: &mut Dice) {
    if dice.happens(50) {
        plan.settings.pace = pace(dice);
    }
    if dice.happens(CALM) {
        return;
    }
    for class in Class::ALL {
        if !dice.happens(OFF) {
            plan.swarm.set(class, rate(class));
        }
    }
    let names: Vec<_> = plan
        .requests
        .iter()
        .filter(|request| request.verb.launch().is_some())
        .map(|request| request.name.clone())
        .collect();
    for class in [Class::PowerLoss, Class::SecondHost, Class::LeaveHost, Class::KillShim] {
        if plan.swarm.rate(class) == 0 || !dice.happens(35) {
            continue;
        }
        let what = match class {
            Class::PowerLoss => Blow::PowerLoss {
                journals: tail(dice),
                logs: tail(dice),
                store: tail(dice),
                worktrees: tail(dice),
            },
            Class::SecondHost => Blow::SecondHost,
            Class::LeaveHost => Blow::LeaveHost,
            _ => Blow::KillShim { of: dice.pick(&names).clone() },
        };
        strike(plan, dice, what);
    }
    if dice.happens(40) {
        strike(plan, dice, Blow::KillHost);
    }
    if dice.happens(5) {
        strike(plan, dice, Blow::Room { free_bytes: 0 });
        strike(plan, dice, Blow::Room { free_bytes: 1 << 40 });
    }
    for name in names {
        if dice.happens(50) {
            strike(plan, dice, Blow::Release { of: name });
        }
    }
    for class in [Class::PowerLoss, Class::LeaveHost, Class::KillShim] {
        plan.swarm.set(class, 0);
    }
}

fn strike(plan: &mut Plan, dice: &mut Dice, what: Blow) {
    let most = *dice.pick(&[40, 1_000, 8_000, 40_000]);
    let when = When::At(dice.below(most));
    plan.interventions.push(Intervention { when, what });
}
