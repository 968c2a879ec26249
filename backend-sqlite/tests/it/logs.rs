//! The file of logs: what it is not, and what people see of it.

use sqlx::{Connection as _, Row as _};
use windlass_conformance::log_store::{entry, fresh_log};
use windlass_core::log_store::{GapCause, LogItem, LogStore as _, LogStoreExt as _, Seq, Stream};
use windlass_sqlite::{SqliteLogs, SqliteOptions};

use crate::{chain, connect, execute, filled, open, room, run};

fn lines(first: u64, last: u64) -> Vec<LogItem> {
    (first..=last)
        .map(|seq| entry(seq, Stream::Stdout, format!("line {seq}\n").as_bytes()))
        .collect()
}

#[test]
fn logs_and_records_are_not_taken_for_each_other() {
    let (directory, path) = room();
    run(async {
        filled(&path, 1).await;
        let before = std::fs::read(&path).expect("a file");
        let refused =
            SqliteLogs::open(&path, SqliteOptions::default()).await.expect_err("a refusal");
        assert!(chain(&refused).contains("not one of Windlass"), "{}", chain(&refused));
        assert!(std::fs::read(&path).expect("a file") == before);
        let path = directory.path().join("logs.db");
        let logs = SqliteLogs::open(&path, SqliteOptions::default()).await.expect("a store");
        logs.close().await;
        let refused = open(&path).await.expect_err("a refusal");
        assert!(chain(&refused).contains("not one of Windlass"), "{}", chain(&refused));
    });
}

#[test]
fn a_newer_store_of_logs_is_refused() {
    let (_directory, path) = room();
    run(async {
        let logs = SqliteLogs::open(&path, SqliteOptions::default()).await.expect("a store");
        logs.close().await;
        execute(&path, "PRAGMA user_version = 99").await;
        let refused =
            SqliteLogs::open(&path, SqliteOptions::default()).await.expect_err("a refusal");
        assert!(chain(&refused).contains("format 99"), "{}", chain(&refused));
    });
}

#[test]
fn people_can_query_what_was_written() {
    let (_directory, path) = room();
    run(async {
        let logs = SqliteLogs::open(&path, SqliteOptions::default()).await.expect("a store");
        let log = fresh_log();
        let (first, last) = (Seq(3), Some(Seq(7)));
        let gap = LogItem::Gap { first, last, bytes: 42, cause: GapCause::Cap };
        logs.append(&log, [lines(1, 2), vec![gap], lines(8, 8)].concat()).await.expect("an append");
        let mut connection = connect(&path).await;
        let sql = "SELECT group_concat(coalesce(CAST(bytes AS TEXT), cause), '|') FROM items";
        let row = sqlx::query(sql).fetch_one(&mut connection).await.expect("a row");
        assert_eq!(row.get::<String, _>(0), "line 1\n|line 2\n|cap|line 8\n");
        connection.close().await.expect("a close");
        logs.close().await;
    });
}

#[test]
fn what_is_not_what_it_should_be_is_a_gap() {
    let (_directory, path) = room();
    run(async {
        let logs = SqliteLogs::open(&path, SqliteOptions::default()).await.expect("a store");
        let log = fresh_log();
        logs.append(&log, lines(1, 6)).await.expect("an append");
        execute(
            &path,
            "UPDATE items SET stream = 'elsewhere' WHERE last = 2; DELETE FROM items WHERE last IN (4, 6)",
        )
        .await;
        let lost = |seq| LogItem::Gap {
            first: Seq(seq),
            last: Some(Seq(seq)),
            bytes: 0,
            cause: GapCause::Power,
        };
        let expected =
            [lines(1, 1), vec![lost(2)], lines(3, 3), vec![lost(4)], lines(5, 5), vec![lost(6)]];
        let page = logs.page_after(&log, Seq(0)).await.expect("a page");
        assert_eq!(page.items[..], expected.concat());
        assert_eq!(page.next, Seq(6));
        logs.close().await;
    });
}

#[test]
fn what_was_removed_is_gone_from_the_file_whoever_removes_the_rest() {
    let (_directory, path) = room();
    run(async {
        let logs = SqliteLogs::open(&path, SqliteOptions::default()).await.expect("a store");
        let (gone, kept) = (fresh_log(), fresh_log());
        logs.append(&gone, lines(1, 2_000)).await.expect("an append");
        logs.append(&kept, lines(1, 3)).await.expect("an append");
        logs.remove(&gone).await.expect("a removal");
        logs.close().await;
        let logs = SqliteLogs::open(&path, SqliteOptions::default()).await.expect("a store");
        // Each append lets the writer remove a part of what is left, at least 256 items.
        for _ in 0..12 {
            logs.append(&kept, Vec::new()).await.expect("the end");
        }
        let mut connection = connect(&path).await;
        let sql = "SELECT count(*), (SELECT count(*) FROM logs) FROM items";
        let row = sqlx::query(sql).fetch_one(&mut connection).await.expect("a row");
        assert_eq!((row.get::<i64, _>(0), row.get::<i64, _>(1)), (3, 1));
        connection.close().await.expect("a close");
        logs.close().await;
    });
}
