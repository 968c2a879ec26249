//! Our stores keep their word: a bounded number of images of each.

use windlass_tests::images::campaign::{Campaign, Subject};
use windlass_tests::images::log_stores::LogStores;
use windlass_tests::images::process_stores::ProcessStores;
use windlass_tests::images::supervised::Supervised;

/// How many images of each store.
const IMAGES: u64 = 400;

fn keeps_its_word(subject: &impl Subject) {
    let campaign = Campaign::of(IMAGES, 1);
    match campaign.run(subject) {
        Ok(tally) => {
            // A power cut inside a recovery was among them, and each sort of loss.
            assert!(tally.images >= IMAGES && tally.again > 0, "{tally:?}");
            println!("{}: {} images a second, {tally:?}", subject.name(), tally.rate());
        }
        Err(finding) => panic!("{finding}"),
    }
}

#[test]
fn records_in_sqlite_survive_power_loss() {
    keeps_its_word(&ProcessStores::Sqlite);
}

#[test]
fn records_in_redb_survive_power_loss() {
    keeps_its_word(&ProcessStores::Redb);
}

#[test]
fn logs_in_sqlite_survive_power_loss() {
    keeps_its_word(&LogStores::Sqlite);
}

#[test]
fn logs_in_redb_survive_power_loss() {
    keeps_its_word(&LogStores::Redb);
}

#[test]
fn journal_and_segments_survive_power_loss() {
    keeps_its_word(&Supervised { program: env!("CARGO_BIN_EXE_windlass-images").into() });
}
