//! Random days of work on worktrees by hosts that are killed; `cargo xtask days` runs longer ones.

use std::path::Path;
use std::process::Command;

use windlass_tests::isolated;
use windlass_tests::worktrees::Days;

isolated! {
    fn nothing_is_lost_in_random_days_with_killed_hosts() {
        for seed in 1..=2 {
            let room = tempfile::tempdir().unwrap();
            let host = |data: &Path| {
                let mut command = Command::new(env!("CARGO_BIN_EXE_windlass-worktree-host"));
                command.arg("serve").arg(data);
                command
            };
            let room_path = room.path().canonicalize().unwrap();
            let tally = Days::new(&host, &room_path, seed).run(150, &mut |_, _| ());
            assert!(tally.killed > 5 && tally.restored > 5, "seed {seed}: {tally:?}");
        }
    }
}
