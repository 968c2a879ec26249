//! Random looks and random readers: what is told always comes to what was found.

use proptest::prelude::*;

use super::*;
use crate::vcs_worktree::ChangeKind;

const ROOM: u64 = 40;
const MOST_GONE: usize = 6;

fn path(number: u8) -> Locator {
    Locator::new(vec![b'p', number])
}

fn found(number: u8, version: u8) -> FoundDiff {
    let file = FileDiff {
        path: path(number),
        old_path: None,
        change: ChangeKind::Modified,
        added: Some(version.into()),
        removed: None,
        mode: Some("100644".to_owned()),
        untracked: version % 2 == 1,
        too_large: version == 9,
    };
    let patch = (version != 9).then(|| Bytes::from(vec![version; 3]));
    FoundDiff { file, bytes: u64::from(version) * 2, patch }
}

fn oid(number: u8) -> Oid {
    Oid(format!("{number:040}"))
}

fn standpoint(number: u8) -> Standpoint {
    Standpoint { base: oid(number), branch: Some("work".to_owned()), head: oid(number) }
}

#[derive(Clone, Debug)]
enum Step {
    Begin(Vec<(u8, u8)>),
    Replace(u8, Vec<(u8, u8)>),
    Update(u8, Vec<u8>, Vec<(u8, u8)>, u64),
    Read(usize, usize),
}

fn files() -> impl Strategy<Value = Vec<(u8, u8)>> {
    prop::collection::btree_map(0..24_u8, 0..10_u8, 0..12).prop_map(|map| map.into_iter().collect())
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => files().prop_map(Step::Begin),
        2 => (0..3_u8, files()).prop_map(|(head, files)| Step::Replace(head, files)),
        6 => (0..3_u8, prop::collection::vec(0..24_u8, 0..6), files(), 0..2_u64)
            .prop_map(|(head, gone, files, unwatched)| Step::Update(head, gone, files, unwatched)),
        6 => (0..3_usize, 0..2_000_usize).prop_map(|(who, bytes)| Step::Read(who, bytes)),
    ]
}

/// A follower, and where it is.
#[derive(Default)]
struct Reader {
    mirror: DiffMirror,
    cursor: Option<DiffCursor>,
}

impl Reader {
    fn read(&mut self, ledger: &DiffLedger, bytes: usize) -> bool {
        let told = ledger.read(self.cursor, bytes);
        assert_eq!(told.is_empty(), !ledger.has_news(self.cursor));
        for told in &told {
            self.mirror.apply(&told.event);
            // Any event is a place to go on from, also as text.
            self.cursor = Some(told.cursor.to_string().parse().unwrap());
        }
        !told.is_empty()
    }
}

/// What was found, apart from how patches are fitted in.
fn plain(file: &FileDiff) -> FileDiff {
    FileDiff { too_large: false, ..file.clone() }
}

fn check(ledger: &DiffLedger, reader: &Reader, expected: &BTreeMap<u8, u8>) {
    let expected: Vec<_> =
        expected.iter().map(|(number, version)| plain(&found(*number, *version).file)).collect();
    let told: Vec<_> = reader.mirror.files().map(plain).collect();
    assert_eq!(told, expected);
    let exactly: Vec<_> = reader.mirror.files().cloned().collect();
    assert_eq!(exactly, ledger.files().cloned().collect::<Vec<_>>());
    assert!(reader.mirror.is_current());
    let taken: u64 = reader
        .mirror
        .files
        .values()
        .map(|(file, patch)| {
            assert_eq!(patch.is_none(), file.too_large);
            if patch.is_some() { file.added.unwrap() * 2 } else { 0 }
        })
        .sum();
    assert!(taken <= ROOM && taken == ledger.taken, "{taken}");
}

fn run(steps: &[Step]) {
    let mut ledger = DiffLedger::with_room(1, ROOM, MOST_GONE);
    let mut expected: Option<BTreeMap<u8, u8>> = None;
    let mut readers: [Reader; 3] = Default::default();
    let all = |files: &[(u8, u8)]| files.iter().map(|(n, v)| found(*n, *v)).collect::<Vec<_>>();
    for step in steps {
        match step {
            Step::Begin(files) => {
                ledger.begin(standpoint(0), all(files), 0);
                expected = Some(files.iter().copied().collect());
            }
            Step::Replace(head, files) => {
                ledger.replace(oid(*head), all(files), 0);
                expected = expected.map(|_| files.iter().copied().collect());
            }
            Step::Update(head, gone, files, unwatched) => {
                let paths = gone.iter().map(|number| path(*number)).collect();
                ledger.update(oid(*head), paths, all(files), *unwatched);
                if let Some(expected) = &mut expected {
                    expected.retain(|number, _| !gone.contains(number));
                    expected.extend(files.iter().copied());
                }
            }
            Step::Read(who, bytes) => drop(readers[*who].read(&ledger, *bytes)),
        }
        assert!(ledger.gone.len() <= MOST_GONE);
        assert_eq!(
            ledger.order.len(),
            ledger.files.len() + ledger.gone.len() + usize::from(ledger.at.is_some())
        );
    }
    let Some(expected) = expected else { return };
    for mut reader in readers.into_iter().chain([Reader::default()]) {
        while reader.read(&ledger, 700) {}
        check(&ledger, &reader, &expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whoever_reads_whenever_comes_to_what_was_found(steps in prop::collection::vec(step(), 0..40)) {
        run(&steps);
    }
}

fn kinds(told: &[ToldDiff]) -> Vec<String> {
    let kind = |told: &ToldDiff| match &told.event {
        DiffEvent::Began { generation, .. } => format!("began {generation}"),
        DiffEvent::File { file, patch } => {
            format!("{} {}", file.path.as_bytes()[1], if patch.is_some() { "patch" } else { "-" })
        }
        DiffEvent::Removed { path } => format!("{} gone", path.as_bytes()[1]),
        DiffEvent::Current { unwatched, .. } => format!("current {unwatched}"),
    };
    told.iter().map(kind).collect()
}

#[test]
fn a_follower_is_told_everything_once_and_then_what_changed() {
    let mut ledger = DiffLedger::new(5);
    assert!(ledger.read(None, 1).is_empty());
    ledger.begin(standpoint(0), vec![found(1, 1), found(2, 1)], 0);
    let first = ledger.read(None, usize::MAX);
    assert_eq!(kinds(&first), ["began 5", "1 patch", "2 patch", "current 0"]);
    let cursor = Some(first[3].cursor);
    assert!(ledger.read(cursor, usize::MAX).is_empty());
    // The same again is no news.
    ledger.update(oid(0), vec![], vec![found(1, 1)], 0);
    assert!(!ledger.has_news(cursor));
    ledger.update(oid(0), vec![path(2), path(7)], vec![found(1, 2), found(1, 3)], 0);
    let next = ledger.read(cursor, usize::MAX);
    assert_eq!(kinds(&next), ["2 gone", "1 patch", "current 0"]);
    // Who begins now is told of nothing that is gone.
    let other = ledger.read(None, usize::MAX);
    assert_eq!(kinds(&other), ["began 5", "1 patch", "current 0"]);
    // What is not watched any more is told, and another base begins anew.
    ledger.update(oid(0), vec![], vec![], 3);
    assert_eq!(kinds(&ledger.read(Some(next[2].cursor), usize::MAX)), ["current 3"]);
    ledger.begin(standpoint(1), vec![], 3);
    assert_eq!(kinds(&ledger.read(Some(next[2].cursor), usize::MAX)), ["began 6", "current 3"]);
}

#[test]
fn what_a_file_took_is_given_back_when_it_changes() {
    let mut ledger = DiffLedger::with_room(1, 10, MOST_GONE);
    ledger.begin(standpoint(0), vec![found(1, 4), found(2, 4)], 0);
    let first = ledger.read(None, usize::MAX);
    assert_eq!(kinds(&first), ["began 1", "1 patch", "2 -", "current 0"]);
    ledger.update(oid(0), vec![], vec![found(1, 1)], 0);
    ledger.update(oid(0), vec![], vec![found(2, 4)], 0);
    let next = ledger.read(Some(first[3].cursor), usize::MAX);
    assert_eq!(kinds(&next), ["1 patch", "2 patch", "current 0"]);
}

#[test]
fn a_cursor_of_another_ledger_begins_anew() {
    let mut ledger = DiffLedger::new(1);
    ledger.begin(standpoint(0), vec![found(1, 1)], 0);
    for foreign in ["2.1.1", "1.9.0", "1.0.9", "0.0.0"] {
        let told = ledger.read(Some(foreign.parse().unwrap()), usize::MAX);
        assert_eq!(kinds(&told), ["began 1", "1 patch", "current 0"], "{foreign}");
    }
}
