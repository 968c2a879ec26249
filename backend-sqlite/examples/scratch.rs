#![allow(missing_docs, clippy::all, clippy::unwrap_used, reason = "scratch")]
use sqlx::sqlite::*;
use sqlx::{ConnectOptions as _, Row as _};
use std::time::Instant;
#[tokio::main(worker_threads = 2)]
async fn main() {
    let path = std::env::args().nth(1).unwrap();
    let mut c = SqliteConnectOptions::new().filename(&path).disable_statement_logging().pragma("cache_size","-2048").connect().await.unwrap();
    let tail = " FROM records AS r INDEXED BY records_by_time WHERE kind = ? AND typeof(at) = 'integer' AND length(id) = 16 ORDER BY at DESC, id DESC LIMIT ?";
    let nums = "hex(r.id), hex(r.parent), r.at, r.revision, r.change, json_valid(r.body), octet_length(r.state), coalesce(octet_length(r.owner), -1), octet_length(r.body)";
    let numsnv = nums.replace("json_valid(r.body)", "1");
    let cat = nums.replace(", ", ",' ',").replace("octet_length(r.owner),' ',-1", "octet_length(r.owner),-1");
    let v = vec![
        ("V0", format!("format('%s %s %d %d %d %d %d %d %d', {nums}) || char(10) || coalesce(r.state,'')||coalesce(r.owner,'')||coalesce(r.body,'')")),
        ("V1", format!("concat(format('%s %s %d %d %d %d %d %d %d\n', {nums}), r.state, r.owner, r.body)")),
        ("V1nv", format!("concat(format('%s %s %d %d %d %d %d %d %d\n', {numsnv}), r.state, r.owner, r.body)")),
        ("V2", format!("concat({cat}, '\n', r.state, r.owner, r.body)")),
        ("body", format!("r.body")),
        ("one", format!("1")),
    ];
    for round in 0..4 { for (name, expr) in &v {
        // 200 pages in one statement, to leave the threads out of it.
        let sql = format!("WITH RECURSIVE k(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM k WHERE i < 200) SELECT sum(length((SELECT group_concat(p, '') FROM (SELECT {expr} AS p {tail}) WHERE i > 0))) FROM k").replace("LIMIT ?", "LIMIT 51").replace("kind = ?", "kind = 'execution' AND at <= 1700001990000 + i");
        let b = Instant::now();
        let row = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_one(&mut c).await.unwrap();
        let n: i64 = row.try_get(0).unwrap();
        if round > 0 { println!("{name:<6} {} us per page ({n})", b.elapsed().as_micros() / 200); }
    } }
}
