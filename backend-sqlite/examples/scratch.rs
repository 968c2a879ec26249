#![allow(missing_docs, clippy::all, clippy::unwrap_used, reason = "scratch")]
use sqlx::sqlite::*;
use sqlx::{ConnectOptions as _, Row as _};
use std::time::Instant;
#[tokio::main(worker_threads = 2)]
async fn main() {
    let path = std::env::args().nth(1).unwrap();
    let mut c = SqliteConnectOptions::new().filename(&path).row_buffer_size(256).disable_statement_logging().pragma("cache_size","-2048").connect().await.unwrap();
    let hdr = "SELECT r.id, r.parent, r.owner, r.state, r.at, r.revision, r.change, r.body";
    let tail = " FROM records AS r INDEXED BY records_by_time WHERE kind = ? ORDER BY at DESC, id DESC LIMIT ?";
    let v = vec![
        ("one row", format!("{hdr} {tail}"), 1),
        ("50 ids", format!("SELECT r.id {tail}"), 51),
        ("50 all", format!("{hdr} {tail}"), 51),
        ("50 all valid", format!("{hdr}, json_valid(r.body) {tail}"), 51),
        ("count valid", format!("SELECT sum(json_valid(body)) FROM (SELECT body {tail})"), 51),
        ("count", format!("SELECT sum(length(body)) FROM (SELECT body {tail})"), 51),
        ("A", format!("SELECT format('%s %s %d %d %d %d', hex(r.id), hex(r.parent), r.at, r.revision, r.change, json_valid(r.body)), r.state, r.owner, r.body {tail}"), 51),
        ("A2", format!("SELECT hex(r.id)||' '||coalesce(hex(r.parent),'')||' '||r.at||' '||r.revision||' '||r.change||' '||json_valid(r.body), r.state, r.owner, r.body {tail}"), 51),
        ("A3", format!("SELECT r.id, r.parent, format('%d %d %d %d %d %s%s', r.at, r.revision, r.change, json_valid(r.body), length(r.state), r.state, r.owner), r.body {tail}"), 51),
        ("B", format!("SELECT format('%s %s %d %d %d %d %d %s%s', hex(r.id), hex(r.parent), r.at, r.revision, r.change, json_valid(r.body), length(r.state), r.state, r.owner), r.body {tail}"), 51),
        ("body", format!("SELECT r.body {tail}"), 51),
        ("packed", format!("SELECT group_concat(p, '') FROM (SELECT hex(r.id)||coalesce(hex(r.parent),'')||'|'||coalesce(r.owner,'')||'|'||r.state||'|'||r.at||'|'||r.revision||'|'||r.change||'|'||octet_length(r.body)||'|'||r.body AS p {tail})"), 51),
        ("packed valid", format!("SELECT group_concat(p, '') FROM (SELECT hex(r.id)||coalesce(hex(r.parent),'')||'|'||coalesce(r.owner,'')||'|'||r.state||'|'||r.at||'|'||r.revision||'|'||r.change||'|'||json_valid(r.body)||octet_length(r.body)||'|'||r.body AS p {tail})"), 51),
    ];
    for round in 0..2 { for (name, sql, limit) in &v {
        let mut times = vec![];
        for _ in 0..3000 {
            let b = Instant::now();
            let rows = sqlx::query(sqlx::AssertSqlSafe(sql.clone())).bind("execution").bind(*limit as i64).fetch_all(&mut c).await.unwrap();
            let mut n = 0;
            for r in &rows { n += r.try_get_raw(0).is_ok() as usize; }
            times.push(b.elapsed().as_micros());
            std::hint::black_box(n);
        }
        times.sort();
        if round == 1 { println!("{name:<20} p50 {} p99 {}", times[1500], times[2970]); }
    } }
}
