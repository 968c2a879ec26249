//! Power loss for longer than the tests take: images until there are enough, or the time is over.
//!
//! `windlass-images [--images N] [--seed N] [--only PART] [--seconds N] [--threads N]`. It also plays the shim that is
//! recorded.

#[cfg(target_os = "linux")]
#[path = "../../tests/images/symbols.rs"]
mod symbols;

use std::process::ExitCode;
use std::time::Duration;

use windlass_tests::images::campaign::{Campaign, Finding, Subject, Tally};
use windlass_tests::images::log_stores::LogStores;
use windlass_tests::images::process_stores::ProcessStores;
use windlass_tests::images::supervised::{Supervised, be_the_shim_if_asked};

/// What can be examined.
const PARTS: [&str; 3] = ["sqlite", "redb", "shim"];

struct Wish {
    images: u64,
    seed: u64,
    only: Option<String>,
    time: Option<Duration>,
    threads: Option<usize>,
}

fn main() -> ExitCode {
    be_the_shim_if_asked();
    if cfg!(not(target_os = "linux")) {
        eprintln!("not run: what happens to files is recorded on Linux only");
        return ExitCode::FAILURE;
    }
    match wish() {
        Ok(wish) => fulfil(&wish),
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}

fn wish() -> Result<Wish, String> {
    let mut wish = Wish { images: 10_000, seed: 1, only: None, time: None, threads: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word} takes a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{word} takes a number"));
        match word.as_str() {
            "--images" => wish.images = number()?,
            "--seed" => wish.seed = number()?,
            "--seconds" => wish.time = Some(Duration::from_secs(number()?)),
            "--threads" => wish.threads = usize::try_from(number()?).ok(),
            "--only" if PARTS.contains(&value.as_str()) => wish.only = Some(value),
            "--only" => return Err(format!("--only takes one of {}", PARTS.join(", "))),
            _ => return Err(format!("nobody knows {word}")),
        }
    }
    Ok(wish)
}

fn fulfil(wish: &Wish) -> ExitCode {
    let Ok(program) = std::env::current_exe() else {
        eprintln!("this program does not find itself");
        return ExitCode::FAILURE;
    };
    let wanted = |part: &str| wish.only.as_deref().is_none_or(|only| only == part);
    let shares = if wish.only.is_some() { 1 } else { PARTS.len() as u64 };
    let mut campaign = Campaign::of((wish.images / shares).max(1), wish.seed);
    campaign.time = wish.time.map(|time| time / u32::try_from(shares).unwrap_or(1));
    campaign.threads = wish.threads.unwrap_or(campaign.threads);
    let half = Campaign {
        images: (campaign.images / 2).max(1),
        time: campaign.time.map(|time| time / 2),
        ..campaign
    };
    let run = || -> Result<(), Box<Finding>> {
        if wanted("sqlite") {
            examine(&half, &ProcessStores::Sqlite)?;
            examine(&half, &LogStores::Sqlite)?;
        }
        if wanted("redb") {
            examine(&half, &ProcessStores::Redb)?;
            examine(&half, &LogStores::Redb)?;
        }
        if wanted("shim") {
            examine(&campaign, &Supervised { program: program.clone() })?;
        }
        Ok(())
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(finding) => {
            eprintln!("{finding}");
            ExitCode::FAILURE
        }
    }
}

fn examine(campaign: &Campaign, subject: &impl Subject) -> Result<(), Box<Finding>> {
    let tally = campaign.run(subject)?;
    let rate = tally.rate();
    let Tally { recordings, events, images, again, by_fate, .. } = tally;
    println!(
        "{}: {images} images, {rate} a second on {} threads, {again} of them inside recoveries, from {recordings} \
         recordings with {events} events; nothing was lost",
        subject.name(),
        campaign.threads
    );
    let fates: Vec<String> =
        by_fate.iter().map(|(how, count)| format!("{how:?} {count}")).collect();
    println!("  {}", fates.join(", "));
    Ok(())
}
