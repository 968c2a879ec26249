//! What a row found, for people: figures, ratios, and whether they are as wanted.

use std::fmt;
use std::fmt::Write as _;
use std::fs;
use std::thread;

use super::measure::{Sample, Taken};
use crate::cargo::root;
use crate::failure::{Doing, Failure};

/// What is wanted of a line. Times are in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Want {
    RatioAtMost(f64),
    RatioAtLeast(f64),
    /// At most this ratio, and so many seconds more.
    RatioAndMore(f64, f64),
    MedianAtMost(f64),
    P99AtMost(f64),
    RateAtLeast(f64),
    AtMost(f64),
}

/// In what a rate is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Bytes,
    Times,
}

/// One line: who, how much, how it compares.
#[derive(Clone, Debug, PartialEq)]
struct Line {
    label: String,
    figure: String,
    p99: String,
    ratio: String,
    wanted: String,
    missed: bool,
}

/// What a row found.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Report {
    lines: Vec<Line>,
}

impl Report {
    /// Adds a contender, compared with another one if there is one to compare with.
    pub(crate) fn add(&mut self, taken: &Taken, unit: Unit, to: Option<&Taken>, wants: &[Want]) {
        let figure = taken.figure();
        let ratio = to.map(|other| taken.ratio(other));
        let verdicts: Vec<(String, bool)> =
            wants.iter().map(|want| want.judge(unit, figure, taken.p99(), ratio)).collect();
        self.lines.push(Line {
            label: taken.label.to_owned(),
            figure: if taken.is_latency() { latency(figure) } else { amount(figure, unit, true) },
            p99: taken.p99().map(latency).unwrap_or_default(),
            ratio: ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
            wanted: verdicts.iter().map(|(text, _)| text.as_str()).collect::<Vec<_>>().join(", "),
            missed: verdicts.iter().any(|(_, holds)| !holds),
        });
    }

    /// Adds a line that says what the following ones are of.
    pub(crate) fn add_title(&mut self, title: String) {
        self.lines.push(Line {
            label: title,
            figure: String::new(),
            p99: String::new(),
            ratio: String::new(),
            wanted: String::new(),
            missed: false,
        });
    }

    /// Adds an amount that is no rate and has nothing to be compared with.
    pub(crate) fn add_amount(
        &mut self,
        label: impl Into<String>,
        value: f64,
        unit: Unit,
        wants: &[Want],
    ) {
        let verdicts: Vec<(String, bool)> =
            wants.iter().map(|want| want.judge(unit, value, None, None)).collect();
        self.lines.push(Line {
            label: label.into(),
            figure: amount(value, unit, false),
            p99: String::new(),
            ratio: String::new(),
            wanted: verdicts.iter().map(|(text, _)| text.as_str()).collect::<Vec<_>>().join(", "),
            missed: verdicts.iter().any(|(_, holds)| !holds),
        });
    }

    /// Adds one sample of latencies that has nothing to be compared with.
    pub(crate) fn add_sample(&mut self, label: &'static str, sample: Sample, wants: &[Want]) {
        let taken = Taken { label, samples: vec![sample] };
        self.add(&taken, Unit::Times, None, wants);
    }

    /// Adds contenders, each compared with the first and nothing wanted of them.
    pub(crate) fn compared(taken: &[Taken], unit: Unit) -> Self {
        let mut report = Self::default();
        for one in taken {
            report.add(one, unit, taken.first(), &[]);
        }
        report
    }

    /// Counts the lines that are not as wanted.
    pub(crate) fn missed(&self) -> usize {
        self.lines.iter().filter(|line| line.missed).count()
    }

    fn cells(&self) -> Vec<[String; 5]> {
        let header = ["", "p50 or rate", "p99", "ratio", "wanted"].map(str::to_owned);
        let lines = self.lines.iter().map(|line| {
            [
                line.label.clone(),
                line.figure.clone(),
                line.p99.clone(),
                line.ratio.clone(),
                if line.missed { format!("{} MISSED", line.wanted) } else { line.wanted.clone() },
            ]
        });
        std::iter::once(header).chain(lines).collect()
    }

    fn markdown(&self) -> String {
        let mut text = String::new();
        for (at, cells) in self.cells().iter().enumerate() {
            text.push_str(&format!("| {} |\n", cells.join(" | ")));
            if at == 0 {
                text.push_str("|---|---|---|---|---|\n");
            }
        }
        text
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cells = self.cells();
        let width =
            |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..5).map(width).collect();
        for row in &cells {
            let mut line = format!("  {:<width$}", row[0], width = widths[0]);
            for column in 1..5 {
                write!(line, "  {:>width$}", row[column], width = widths[column])?;
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

impl Want {
    /// Says what is wanted, and whether it is so. What was not measured is not so.
    fn judge(
        self,
        unit: Unit,
        figure: f64,
        p99: Option<f64>,
        ratio: Option<f64>,
    ) -> (String, bool) {
        match self {
            Self::RatioAtMost(bound) => {
                (format!("ratio ≤ {bound}"), ratio.is_some_and(|ratio| ratio <= bound))
            }
            Self::RatioAtLeast(bound) => {
                (format!("ratio ≥ {bound}"), ratio.is_some_and(|ratio| ratio >= bound))
            }
            Self::RatioAndMore(bound, more) => {
                let text = if more > 0.0 {
                    format!("ratio ≤ {bound} and {} more", latency(more))
                } else {
                    format!("ratio ≤ {bound}")
                };
                // The other's figure is this one's by the ratio.
                (text, ratio.is_some_and(|ratio| figure <= bound * (figure / ratio) + more))
            }
            Self::MedianAtMost(bound) => (format!("p50 ≤ {}", latency(bound)), figure <= bound),
            Self::P99AtMost(bound) => {
                (format!("p99 ≤ {}", latency(bound)), p99.is_some_and(|p99| p99 <= bound))
            }
            Self::RateAtLeast(bound) => {
                (format!("≥ {}", amount(bound, unit, true)), figure >= bound)
            }
            Self::AtMost(bound) => (format!("≤ {}", amount(bound, unit, false)), figure <= bound),
        }
    }
}

fn latency(seconds: f64) -> String {
    let micros = seconds * 1e6;
    if micros < 10_000.0 { format!("{micros:.0} µs") } else { format!("{:.1} ms", micros / 1e3) }
}

fn amount(value: f64, unit: Unit, per_second: bool) -> String {
    let suffix = if per_second { "/s" } else { "" };
    match unit {
        Unit::Bytes if value >= 1e9 => format!("{:.2} GB{suffix}", value / 1e9),
        Unit::Bytes => format!("{:.1} MB{suffix}", value / 1e6),
        Unit::Times if value < 10.0 && !per_second => format!("{value:.2}"),
        Unit::Times => format!("{value:.0}{suffix}"),
    }
}

const BEGIN: &str = "<!-- measured: begin -->";
const END: &str = "<!-- measured: end -->";

/// Replaces what is between the marks in docs/performance.md.
pub(crate) fn write(reports: &[(&'static str, &'static str, Report)]) -> Result<(), Failure> {
    let path = root().join("docs/performance.md");
    let old = fs::read_to_string(&path).doing(format_args!("read {}", path.display()))?;
    let new = replace(&old, reports, &machine())?;
    fs::write(&path, new).doing(format_args!("write {}", path.display()))?;
    println!("\nwritten to {}", path.display());
    Ok(())
}

fn replace(old: &str, reports: &[(&str, &str, Report)], machine: &str) -> Result<String, Failure> {
    let parts =
        old.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) =
        parts.ok_or_else(|| Failure::new(format!("docs/performance.md lacks {BEGIN} or {END}")))?;
    let mut text = format!("{before}{BEGIN}\n\n{machine}\n");
    for (name, about, report) in reports {
        text.push_str(&format!("\n### {name}: {about}\n\n{}", report.markdown()));
    }
    text.push_str(&format!("\n{END}{after}"));
    Ok(text)
}

/// Says on what it was measured, as far as it matters for comparing.
fn machine() -> String {
    let cpus = thread::available_parallelism().map_or(0, usize::from);
    let uname = rustix::system::uname();
    format!(
        "{cpus} CPUs, {} {}, release build.",
        uname.sysname().to_string_lossy(),
        uname.release().to_string_lossy()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_replaces_what_is_between_the_marks_only() {
        let old = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let new = replace(&old, &[("row", "about", Report::default())], "a machine").unwrap();
        assert!(new.starts_with("before\n") && new.ends_with("\nafter\n"));
        assert!(new.contains("### row: about") && !new.contains("old"));
        assert!(replace("no marks", &[], "").is_err());
    }

    #[test]
    fn what_is_beyond_what_is_wanted_is_missed() {
        let holds = |want: Want| want.judge(Unit::Times, 2.0, Some(3.0), Some(4.0)).1;
        for want in [
            Want::MedianAtMost(2.0),
            Want::P99AtMost(3.0),
            Want::RatioAtMost(4.0),
            Want::RatioAtLeast(4.0),
            Want::RateAtLeast(2.0),
            Want::AtMost(2.0),
        ] {
            assert!(holds(want), "{want:?}");
        }
        for want in [
            Want::MedianAtMost(1.9),
            Want::P99AtMost(2.9),
            Want::RatioAtMost(3.9),
            Want::RatioAtLeast(4.1),
            Want::RateAtLeast(2.1),
            Want::AtMost(1.9),
        ] {
            assert!(!holds(want), "{want:?}");
        }
        assert!(!Want::P99AtMost(1.0).judge(Unit::Times, 0.0, None, None).1);
    }
}
