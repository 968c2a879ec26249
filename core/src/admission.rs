//! The admission machine: who may run now, who waits, who is refused.
//!
//! It counts slots. It does not know what runs in them and performs nothing.

use std::collections::{BTreeMap, VecDeque};

use uuid::Uuid;

use crate::attempt::Slot;
use crate::id::ExecutionId;

/// How many slots there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For one named owner.
    pub per_owner: u32,
    /// For the host.
    pub per_host: u32,
    /// For dev servers, which count for neither of these.
    pub dev_servers: u32,
    /// How many may wait.
    pub queue: u32,
}

/// What is fed to the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A new request wants a slot.
    Ask {
        /// For what.
        slot: Slot,
        /// Of which client.
        owner: Option<String>,
        /// It would rather be refused than wait.
        refuse_when_full: bool,
    },
    /// Something that is recorded needs a slot and waits as long as it takes.
    Wait {
        /// For what.
        slot: Slot,
        /// Of which client.
        owner: Option<String>,
    },
    /// Something runs already and counts, whatever the limits say.
    Adopt {
        /// What.
        slot: Slot,
        /// Of which client.
        owner: Option<String>,
    },
    /// A slot is free again, or not wanted any more.
    Release(Slot),
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The slot is taken.
    Admit(Slot),
    /// It waits.
    Queue {
        /// What.
        slot: Slot,
        /// Its place in the queue, from 1.
        position: u32,
    },
    /// It will not run. It can never start later.
    Refuse {
        /// What.
        slot: Slot,
        /// Why.
        why: Full,
    },
}

/// What is full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Full {
    /// All slots are taken.
    Slots {
        /// The asking owner's own slots.
        own: Vec<Slot>,
        /// How many others hold.
        others: u32,
    },
    /// The queue is as long as it may be.
    Queue {
        /// How long it is.
        length: u32,
    },
}

/// Who holds slots and who waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    limits: Limits,
    held: BTreeMap<Slot, Option<String>>,
    queue: VecDeque<(Slot, Option<String>)>,
}

/// What a step leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "effects that are dropped never happen"]
pub struct Step {
    /// The state after it.
    pub state: State,
    /// What follows, in order.
    pub effects: Vec<Effect>,
}

impl State {
    /// Makes the machine with no slot taken.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, held: BTreeMap::new(), queue: VecDeque::new() }
    }

    /// Returns how many slots are taken.
    #[must_use]
    pub fn running(&self) -> usize {
        self.held.len()
    }

    /// Returns how many wait.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Says for each of these slots how many wait before it; `None` if it does not wait.
    #[must_use]
    pub fn waiting_before(&self, slots: &[Slot]) -> Vec<Option<u32>> {
        let mut places: BTreeMap<Slot, Option<u32>> =
            slots.iter().map(|slot| (*slot, None)).collect();
        for (before, (waiting, _)) in (0..).zip(&self.queue) {
            if let Some(place) = places.get_mut(waiting) {
                *place = Some(before);
            }
        }
        slots.iter().map(|slot| places.get(slot).copied().flatten()).collect()
    }

    /// Takes one input.
    pub fn step(mut self, input: Input) -> Step {
        let mut effects = Vec::new();
        match input {
            Input::Ask { slot, owner, refuse_when_full } => {
                self.ask(slot, owner, refuse_when_full, &mut effects);
            }
            Input::Wait { slot, owner } => {
                if self.held.contains_key(&slot) {
                    effects.push(Effect::Admit(slot));
                } else if !self.queue.iter().any(|(waiting, _)| *waiting == slot) {
                    self.queue.push_back((slot, owner));
                    self.admit_waiting(&mut effects);
                }
            }
            Input::Adopt { .. } if planted!(LivingNotCounted) => {}
            Input::Adopt { slot, owner } => {
                self.held.insert(slot, owner);
            }
            Input::Release(slot) => {
                self.queue.retain(|(waiting, _)| *waiting != slot);
                self.held.remove(&slot);
                if !planted!(QueueForgotten) {
                    self.admit_waiting(&mut effects);
                }
            }
        }
        Step { state: self, effects }
    }

    fn ask(
        &mut self,
        slot: Slot,
        owner: Option<String>,
        refuse_when_full: bool,
        effects: &mut Vec<Effect>,
    ) {
        let free = self.has_room(slot, owner.as_deref());
        // Of those with other limits nobody is overtaken.
        let waits = |(before, waiting): &(Slot, Option<String>)| {
            is_server(*before) == is_server(slot) && self.has_room(*before, waiting.as_deref())
        };
        let overtakes = self.queue.iter().any(waits);
        if free && !overtakes {
            self.held.insert(slot, owner);
            effects.push(Effect::Admit(slot));
        } else if refuse_when_full {
            let alike = |held: &&Slot| is_server(**held) == is_server(slot);
            let all = self.held.keys().filter(alike).count();
            let is_own = |held: &&Slot| owner.is_none() || self.held.get(held) == Some(&owner);
            let own: Vec<_> = self.held.keys().filter(alike).filter(is_own).copied().collect();
            let others = u32::try_from(all - own.len()).unwrap_or(u32::MAX);
            effects.push(Effect::Refuse { slot, why: Full::Slots { own, others } });
        } else {
            let length = u32::try_from(self.queue.len()).unwrap_or(u32::MAX);
            if length >= self.limits.queue {
                effects.push(Effect::Refuse { slot, why: Full::Queue { length } });
            } else {
                self.queue.push_back((slot, owner));
                effects.push(Effect::Queue { slot, position: length + 1 });
            }
        }
    }

    fn has_room(&self, slot: Slot, owner: Option<&str>) -> bool {
        let limit = |limit: u32| usize::try_from(limit).unwrap_or(usize::MAX);
        // They are behind all others.
        let servers = self.held.range(FIRST_SERVER..).count();
        if is_server(slot) {
            return servers < limit(self.limits.dev_servers);
        }
        let of_owner = |name: &str| {
            let own = self.held.range(..FIRST_SERVER).filter(|(_, of)| of.as_deref() == Some(name));
            own.count()
        };
        let per_host = limit(self.limits.per_host) + usize::from(planted!(OneOverTheLimit));
        self.held.len() - servers < per_host
            && owner.is_none_or(|name| of_owner(name) < limit(self.limits.per_owner))
    }

    /// Admits who waits, in order; one whose limit is reached does not stand in the way of others.
    fn admit_waiting(&mut self, effects: &mut Vec<Effect>) {
        while let Some(index) =
            self.queue.iter().position(|(slot, owner)| self.has_room(*slot, owner.as_deref()))
        {
            if let Some((slot, owner)) = self.queue.remove(index) {
                self.held.insert(slot, owner);
                effects.push(Effect::Admit(slot));
            }
        }
    }
}

/// In the order of slots dev servers come last; this is before all of them.
const FIRST_SERVER: Slot = Slot::DevServer(ExecutionId(Uuid::nil()));

fn is_server(slot: Slot) -> bool {
    match slot {
        Slot::DevServer(_) => true,
        Slot::Chain(_) | Slot::Execution(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(n: u128) -> Slot {
        Slot::Execution(ExecutionId(Uuid::from_u128(n)))
    }

    fn ask(n: u128, owner: Option<&str>, refuse_when_full: bool) -> Input {
        Input::Ask { slot: slot(n), owner: owner.map(str::to_owned), refuse_when_full }
    }

    /// Feeds `inputs` and returns the effects of the last one.
    fn last(limits: Limits, inputs: Vec<Input>) -> Vec<Effect> {
        let mut state = State::new(limits);
        let mut effects = Vec::new();
        for input in inputs {
            let step = state.step(input);
            (state, effects) = (step.state, step.effects);
        }
        effects
    }

    const TWO: Limits = Limits { per_owner: 1, per_host: 2, dev_servers: 1, queue: 2 };

    #[test]
    fn an_owner_waits_for_its_own_limit_and_not_for_others() {
        let first = ask(1, Some("a"), false);
        assert_eq!(
            last(TWO, vec![first.clone(), ask(2, Some("a"), false)]),
            [Effect::Queue { slot: slot(2), position: 1 }],
        );
        assert_eq!(
            last(TWO, vec![first, ask(2, Some("a"), false), ask(3, Some("b"), false)]),
            [Effect::Admit(slot(3))],
        );
    }

    #[test]
    fn a_released_slot_goes_to_the_first_who_may_have_it() {
        let inputs = vec![
            ask(1, Some("a"), false),
            ask(2, Some("b"), false),
            ask(3, Some("a"), false),
            ask(4, Some("c"), false),
            Input::Release(slot(2)),
        ];
        assert_eq!(last(TWO, inputs), [Effect::Admit(slot(4))]);
    }

    #[test]
    fn who_would_rather_be_refused_is_told_its_own_holders_and_the_number_of_others() {
        let inputs =
            vec![ask(1, Some("a"), true), ask(2, Some("b"), true), ask(3, Some("a"), true)];
        let why = Full::Slots { own: vec![slot(1)], others: 1 };
        assert_eq!(last(TWO, inputs), [Effect::Refuse { slot: slot(3), why }]);
    }

    #[test]
    fn a_full_queue_refuses() {
        let limits = Limits { per_owner: 1, per_host: 1, dev_servers: 1, queue: 1 };
        let inputs = vec![ask(1, None, false), ask(2, None, false), ask(3, None, false)];
        let why = Full::Queue { length: 1 };
        assert_eq!(last(limits, inputs), [Effect::Refuse { slot: slot(3), why }]);
    }

    #[test]
    fn adopted_ones_may_exceed_the_limit_and_then_nothing_is_admitted() {
        let adopt = |n| Input::Adopt { slot: slot(n), owner: None };
        let inputs =
            vec![adopt(1), adopt(2), adopt(3), Input::Release(slot(1)), ask(4, None, false)];
        assert_eq!(last(TWO, inputs), [Effect::Queue { slot: slot(4), position: 1 }]);
    }

    #[test]
    fn who_waits_is_told_how_many_are_before_it() {
        let mut state = State::new(Limits { per_owner: 8, per_host: 1, dev_servers: 1, queue: 9 });
        for n in 1..5 {
            state = state.step(ask(n, None, false)).state;
        }
        assert_eq!(state.waiting_before(&[slot(4), slot(1), slot(2)]), [Some(2), None, Some(0)]);
        state = state.step(Input::Release(slot(2))).state;
        assert_eq!(state.waiting_before(&[slot(2), slot(4)]), [None, Some(1)]);
    }

    #[test]
    fn releasing_a_waiting_slot_takes_it_out_of_the_queue() {
        let inputs = vec![
            ask(1, Some("a"), false),
            ask(2, Some("a"), false),
            Input::Release(slot(2)),
            Input::Release(slot(1)),
        ];
        assert_eq!(last(TWO, inputs), []);
    }

    #[test]
    fn dev_servers_have_a_limit_of_their_own_and_take_nobody_s_slot() {
        let server = |n| Slot::DevServer(ExecutionId(Uuid::from_u128(n)));
        let serve = |n, refuse_when_full| Input::Ask {
            slot: server(n),
            owner: Some("a".to_owned()),
            refuse_when_full,
        };
        let full = vec![ask(1, Some("a"), false), ask(2, Some("b"), false)];
        let with = |more: Vec<Input>| [full.clone(), more].concat();
        assert_eq!(last(TWO, with(vec![serve(3, true)])), [Effect::Admit(server(3))]);
        let both = with(vec![serve(3, false), serve(4, true)]);
        let why = Full::Slots { own: vec![server(3)], others: 0 };
        assert_eq!(last(TWO, both), [Effect::Refuse { slot: server(4), why }]);
        // One that waits keeps nobody else from running.
        let waits = vec![serve(3, false), serve(4, false), ask(5, Some("a"), false)];
        assert_eq!(last(TWO, waits.clone()), [Effect::Admit(slot(5))]);
        let freed = [waits, vec![Input::Release(server(3))]].concat();
        assert_eq!(last(TWO, freed), [Effect::Admit(server(4))]);
        let adopted = |n| Input::Adopt { slot: server(n), owner: None };
        let more = vec![adopted(1), adopted(2), Input::Release(server(1)), serve(3, false)];
        assert_eq!(last(TWO, more), [Effect::Queue { slot: server(3), position: 1 }]);
    }
}
