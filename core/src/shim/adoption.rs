//! The adoption matrix: what a host concludes from what it observed of a place.
//!
//! Pure and total. It does not observe: whoever calls it tries the lock first, and looks at the journal and the
//! processes only while holding it. The types say so: there is no way to speak of the journal of a held lock.

use crate::outcome::Lost;
use crate::shim::journal;

/// What a host observed of one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Observations {
    /// Whether the directory is the recorded one.
    pub directory: Match,
    /// Whether the machine is the recorded one.
    pub machine: Match,
    /// The lock, and what was seen because of it.
    pub lock: Lock,
}

/// A recorded value against the one that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Match {
    /// They are equal.
    Same,
    /// They differ.
    Differs,
    /// One of them is not known.
    Unknown,
}

/// The lock of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lock {
    /// Somebody holds it; this is what answers at the socket.
    Held(Answer),
    /// It was free and we hold it now; this is what is there.
    Taken(Evidence),
}

/// What answered a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// A shim with our nonce.
    Ours,
    /// A shim with our nonce that has heard of a higher epoch.
    Superseded,
    /// Nobody, or nobody in time.
    Mute,
    /// Somebody with another nonce.
    Foreign,
}

/// What was seen under the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Evidence {
    /// What the journal says.
    pub journal: Journal,
    /// Whether the boot is the recorded one.
    pub boot: Match,
    /// Whether the pid namespace is the recorded one.
    pub pid_namespace: Match,
    /// The recorded command.
    pub command: Command,
}

/// What a journal says: its furthest record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Journal {
    /// It is of a newer version.
    Newer,
    /// It is damaged before its tail.
    Damaged,
    /// It is not there.
    Missing,
    /// It is readable and has no record that matters: nothing was started.
    Empty,
    /// `Started`.
    Started,
    /// `ExecFailed`.
    ExecFailed,
    /// `Exited`.
    Exited,
    /// `Final`.
    Final,
    /// `Void`.
    Void,
}

impl Journal {
    /// Returns the furthest record of what was read.
    #[must_use]
    pub fn of(read: &journal::Verdict) -> Self {
        let journal = match read {
            journal::Verdict::Readable(journal) => journal,
            journal::Verdict::Newer { .. } => return Self::Newer,
            journal::Verdict::Damaged => return Self::Damaged,
        };
        let furthest = [
            (journal.void().is_some(), Self::Void),
            (journal.finished().is_some(), Self::Final),
            (journal.exited().is_some(), Self::Exited),
            (journal.exec_failed().is_some(), Self::ExecFailed),
            (journal.started().is_some(), Self::Started),
        ];
        furthest.into_iter().find_map(|(there, kind)| there.then_some(kind)).unwrap_or(Self::Empty)
    }
}

/// The recorded command, by its verified identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// It lives.
    Alive,
    /// It is gone, a zombie, or its number belongs to another process.
    Gone,
    /// It cannot be told.
    Unknown,
}

/// How far a sweep may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sweep {
    /// The recorded command, its group and what carries the mark.
    Tree,
    /// Only what carries the mark: recorded numbers are of another namespace, or there are none.
    Marked,
    /// Nothing: what was recorded cannot have outlived that boot.
    Nothing,
}

/// Why nothing is concluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Doubt {
    /// The pid namespace is another one.
    PidNamespace,
    /// The boot, the namespace or the command is not known.
    Identity,
}

/// Why a place is not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stranger {
    /// The directory is not the recorded one: the data directory was copied.
    Directory,
    /// The machine is another one.
    Machine,
}

/// What is to be done with a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Row 0. Nothing is touched; it is reported.
    Foreign(Stranger),
    /// Row 2. It is supervised; attach.
    Attach,
    /// Row 2 for an old host. Another one drives it.
    Superseded,
    /// Row 3. Retried and shown; nothing is killed for it.
    Unresponsive(Answer),
    /// Rows 1 and 10. Sweep, then it is lost. Never launched.
    SweepThenLost {
        /// How far the sweep reaches.
        sweep: Sweep,
        /// Why it is lost.
        reason: Lost,
    },
    /// Row 4. It never ran and must not.
    NeverRan,
    /// Row 5. The outcome is in `Final`.
    Ended,
    /// Row 6. Sweep, then the outcome is in `Exited` or `ExecFailed`, the cause in `Stopping`.
    SweepThenEnded {
        /// How far the sweep reaches.
        sweep: Sweep,
    },
    /// Row 7. Append `Void`, synced; then it never ran.
    CloseForEver,
    /// Row 8. It was lost when the machine restarted; nothing is signalled.
    LostRestarted,
    /// Row 8. It cannot be told whether it runs; reported, not ended, not touched.
    Unverifiable(Doubt),
    /// Row 9. Stop the tree, then it is lost: its supervisor died.
    StopTreeThenLost,
}

impl Verdict {
    /// Says whether processes may be signalled on its account.
    #[must_use]
    pub fn may_signal(self) -> bool {
        match self {
            Self::StopTreeThenLost => true,
            Self::SweepThenLost { sweep, .. } | Self::SweepThenEnded { sweep } => {
                sweep != Sweep::Nothing
            }
            Self::Foreign(_)
            | Self::Attach
            | Self::Superseded
            | Self::Unresponsive(_)
            | Self::NeverRan
            | Self::Ended
            | Self::CloseForEver
            | Self::LostRestarted
            | Self::Unverifiable(_) => false,
        }
    }

    /// Says whether it permits to launch the action again, in a new place.
    #[must_use]
    pub fn permits_a_launch(self) -> bool {
        match self {
            Self::NeverRan | Self::CloseForEver => true,
            Self::Foreign(_)
            | Self::Attach
            | Self::Superseded
            | Self::Unresponsive(_)
            | Self::SweepThenLost { .. }
            | Self::Ended
            | Self::SweepThenEnded { .. }
            | Self::LostRestarted
            | Self::Unverifiable(_)
            | Self::StopTreeThenLost => false,
        }
    }
}

/// Concludes what is to be done. The first row that matches wins.
#[must_use]
pub fn verdict(observed: Observations) -> Verdict {
    // Row 0.
    if observed.machine == Match::Differs {
        return Verdict::Foreign(Stranger::Machine);
    }
    match observed.directory {
        Match::Same => {}
        Match::Differs | Match::Unknown => return Verdict::Foreign(Stranger::Directory),
    }
    match observed.lock {
        // Rows 2 and 3. The journal is not looked at: its writer is at work and knows better.
        Lock::Held(Answer::Ours) => Verdict::Attach,
        Lock::Held(Answer::Superseded) => Verdict::Superseded,
        Lock::Held(answer @ (Answer::Mute | Answer::Foreign)) => Verdict::Unresponsive(answer),
        Lock::Taken(evidence) => under_the_lock(evidence),
    }
}

/// Rows 1 and 4 to 10.
fn under_the_lock(evidence: Evidence) -> Verdict {
    let sweep = match (evidence.boot, evidence.pid_namespace) {
        (Match::Differs, _) => Sweep::Nothing,
        (Match::Same, Match::Same) => Sweep::Tree,
        (Match::Same | Match::Unknown, _) => Sweep::Marked,
    };
    match evidence.journal {
        Journal::Exited if planted!(ExitTakenForLost) => {
            Verdict::SweepThenLost { sweep, reason: Lost::SupervisorDied }
        }
        Journal::Newer | Journal::Damaged | Journal::Missing => {
            // Numbers of an unreadable journal are nothing to go by.
            let sweep = if sweep == Sweep::Tree { Sweep::Marked } else { sweep };
            Verdict::SweepThenLost { sweep, reason: Lost::EvidenceDamaged }
        }
        Journal::Void => Verdict::NeverRan,
        Journal::Final => Verdict::Ended,
        Journal::Exited | Journal::ExecFailed => Verdict::SweepThenEnded { sweep },
        Journal::Empty => Verdict::CloseForEver,
        Journal::Started => started(evidence),
    }
}

/// Rows 8 to 10.
fn started(evidence: Evidence) -> Verdict {
    match (evidence.boot, evidence.pid_namespace, evidence.command) {
        (Match::Differs, _, Command::Alive) if planted!(SignalledAfterRestart) => {
            Verdict::StopTreeThenLost
        }
        (Match::Differs, _, _) => Verdict::LostRestarted,
        (Match::Same, Match::Differs, _) => Verdict::Unverifiable(Doubt::PidNamespace),
        (Match::Unknown, _, _)
        | (Match::Same, Match::Unknown, _)
        | (Match::Same, Match::Same, Command::Unknown) => Verdict::Unverifiable(Doubt::Identity),
        (Match::Same, Match::Same, Command::Alive) => Verdict::StopTreeThenLost,
        (Match::Same, Match::Same, Command::Gone) => {
            Verdict::SweepThenLost { sweep: Sweep::Tree, reason: Lost::SupervisorDied }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    const MATCHES: [Match; 3] = [Match::Same, Match::Differs, Match::Unknown];
    const COMMANDS: [Command; 3] = [Command::Alive, Command::Gone, Command::Unknown];
    const ANSWERS: [Answer; 4] = [Answer::Ours, Answer::Superseded, Answer::Mute, Answer::Foreign];
    const JOURNALS: [Journal; 9] = [
        Journal::Newer,
        Journal::Damaged,
        Journal::Missing,
        Journal::Empty,
        Journal::Started,
        Journal::ExecFailed,
        Journal::Exited,
        Journal::Final,
        Journal::Void,
    ];

    fn ours(lock: Lock) -> Observations {
        Observations { directory: Match::Same, machine: Match::Same, lock }
    }

    fn evidence(journal: Journal, command: Command) -> Evidence {
        Evidence { journal, boot: Match::Same, pid_namespace: Match::Same, command }
    }

    /// Checks the verdict on a place of ours whose lock was free.
    #[track_caller]
    fn check(seen: Evidence, expected: Verdict) {
        assert_eq!(verdict(ours(Lock::Taken(seen))), expected, "{seen:?}");
    }

    /// Every combination there is.
    fn all() -> Vec<Observations> {
        let mut locks: Vec<Lock> = ANSWERS.into_iter().map(Lock::Held).collect();
        for journal in JOURNALS {
            for boot in MATCHES {
                for pid_namespace in MATCHES {
                    for command in COMMANDS {
                        let seen = Evidence { journal, boot, pid_namespace, command };
                        locks.push(Lock::Taken(seen));
                    }
                }
            }
        }
        let mut all = Vec::new();
        for directory in MATCHES {
            for machine in MATCHES {
                all.extend(locks.iter().map(|&lock| Observations { directory, machine, lock }));
            }
        }
        all
    }

    #[test]
    fn row_0_a_strange_place_is_not_touched_whatever_it_holds() {
        for observed in all() {
            let expected = match (observed.machine, observed.directory) {
                (Match::Differs, _) => Verdict::Foreign(Stranger::Machine),
                (_, Match::Differs | Match::Unknown) => Verdict::Foreign(Stranger::Directory),
                (_, Match::Same) => continue,
            };
            assert_eq!(verdict(observed), expected, "{observed:?}");
        }
    }

    #[test]
    fn row_1_damage_is_swept_by_the_mark_and_lost() {
        for journal in [Journal::Newer, Journal::Damaged, Journal::Missing] {
            for command in COMMANDS {
                check(
                    evidence(journal, command),
                    Verdict::SweepThenLost { sweep: Sweep::Marked, reason: Lost::EvidenceDamaged },
                );
            }
        }
    }

    #[test]
    fn rows_2_and_3_a_held_lock_is_about_who_answers() {
        let table = [
            (Answer::Ours, Verdict::Attach),
            (Answer::Superseded, Verdict::Superseded),
            (Answer::Mute, Verdict::Unresponsive(Answer::Mute)),
            (Answer::Foreign, Verdict::Unresponsive(Answer::Foreign)),
        ];
        for (answer, expected) in table {
            assert_eq!(verdict(ours(Lock::Held(answer))), expected);
        }
    }

    #[test]
    fn rows_4_to_7_the_journal_says_it() {
        for command in COMMANDS {
            check(evidence(Journal::Void, command), Verdict::NeverRan);
            check(evidence(Journal::Final, command), Verdict::Ended);
            let ended = Verdict::SweepThenEnded { sweep: Sweep::Tree };
            check(evidence(Journal::Exited, command), ended);
            check(evidence(Journal::ExecFailed, command), ended);
            check(evidence(Journal::Empty, command), Verdict::CloseForEver);
        }
    }

    #[test]
    fn row_6_after_a_restart_or_from_another_namespace_sweeps_less() {
        let seen = evidence(Journal::Exited, Command::Alive);
        check(
            Evidence { boot: Match::Differs, ..seen },
            Verdict::SweepThenEnded { sweep: Sweep::Nothing },
        );
        check(
            Evidence { pid_namespace: Match::Differs, ..seen },
            Verdict::SweepThenEnded { sweep: Sweep::Marked },
        );
    }

    #[test]
    fn row_8_another_boot_is_lost_and_another_namespace_is_no_verdict() {
        for command in COMMANDS {
            let seen = evidence(Journal::Started, command);
            check(Evidence { boot: Match::Differs, ..seen }, Verdict::LostRestarted);
            check(
                Evidence { boot: Match::Differs, pid_namespace: Match::Differs, ..seen },
                Verdict::LostRestarted,
            );
            check(
                Evidence { pid_namespace: Match::Differs, ..seen },
                Verdict::Unverifiable(Doubt::PidNamespace),
            );
        }
    }

    #[test]
    fn rows_9_and_10_a_tree_without_supervisor_is_stopped_or_swept() {
        check(evidence(Journal::Started, Command::Alive), Verdict::StopTreeThenLost);
        check(
            evidence(Journal::Started, Command::Gone),
            Verdict::SweepThenLost { sweep: Sweep::Tree, reason: Lost::SupervisorDied },
        );
        check(evidence(Journal::Started, Command::Unknown), Verdict::Unverifiable(Doubt::Identity));
    }

    #[test]
    fn every_verdict_is_reached() {
        let mut kinds: Vec<_> =
            all().into_iter().map(|seen| std::mem::discriminant(&verdict(seen))).collect();
        kinds.sort_by_key(|kind| format!("{kind:?}"));
        kinds.dedup();
        assert_eq!(kinds.len(), 12);
    }

    fn evidences() -> impl Strategy<Value = Evidence> {
        (select(&JOURNALS[..]), select(&MATCHES[..]), select(&MATCHES[..]), select(&COMMANDS[..]))
            .prop_map(|(journal, boot, pid_namespace, command)| Evidence {
                journal,
                boot,
                pid_namespace,
                command,
            })
    }

    fn observations() -> impl Strategy<Value = Observations> {
        let lock = prop_oneof![
            select(&ANSWERS[..]).prop_map(Lock::Held),
            evidences().prop_map(Lock::Taken)
        ];
        (select(&MATCHES[..]), select(&MATCHES[..]), lock)
            .prop_map(|(directory, machine, lock)| Observations { directory, machine, lock })
    }

    proptest! {
        #[test]
        fn nothing_is_signalled_while_the_lock_is_held(seen in observations()) {
            if matches!(seen.lock, Lock::Held(_)) {
                prop_assert!(!verdict(seen).may_signal());
                prop_assert!(!verdict(seen).permits_a_launch());
            }
        }

        #[test]
        fn only_a_readable_journal_without_a_start_permits_a_launch(seen in observations()) {
            if verdict(seen).permits_a_launch() {
                let Lock::Taken(Evidence { journal, .. }) = seen.lock else {
                    return Err(TestCaseError::fail("launched beside a supervisor"));
                };
                prop_assert!(matches!(journal, Journal::Empty | Journal::Void));
            }
        }

        #[test]
        fn another_boot_never_kills(seen in evidences()) {
            let seen = Evidence { boot: Match::Differs, ..seen };
            prop_assert!(!verdict(ours(Lock::Taken(seen))).may_signal());
        }

        #[test]
        fn recorded_numbers_are_used_only_in_their_boot_and_namespace(seen in evidences()) {
            let by_number = match verdict(ours(Lock::Taken(seen))) {
                Verdict::StopTreeThenLost => true,
                Verdict::SweepThenLost { sweep, .. } | Verdict::SweepThenEnded { sweep } => {
                    sweep == Sweep::Tree
                }
                _ => false,
            };
            if by_number {
                prop_assert_eq!((seen.boot, seen.pid_namespace), (Match::Same, Match::Same));
            }
        }

        #[test]
        fn what_is_not_known_never_ends_a_started_execution(seen in evidences()) {
            let seen = Evidence { journal: Journal::Started, boot: Match::Unknown, ..seen };
            prop_assert_eq!(
                verdict(ours(Lock::Taken(seen))),
                Verdict::Unverifiable(Doubt::Identity)
            );
        }
    }
}
