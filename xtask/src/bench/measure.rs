//! Samples, percentiles, and taking turns.

use std::time::{Duration, Instant};

use crate::failure::Failure;

/// What one turn of one contender gave.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Sample {
    /// How long each of many took, in seconds; sorted.
    Latency(Vec<f64>),
    /// How much was done, per second.
    Rate(f64),
}

impl Sample {
    /// Takes the time of `count` calls.
    pub(crate) fn each(
        count: u64,
        mut call: impl FnMut() -> Result<(), Failure>,
    ) -> Result<Self, Failure> {
        let mut seconds = Vec::new();
        for _ in 0..count {
            let begun = Instant::now();
            call()?;
            seconds.push(begun.elapsed().as_secs_f64());
        }
        Ok(Self::latencies(seconds))
    }

    /// Sorts what was measured, in seconds.
    pub(crate) fn latencies(mut seconds: Vec<f64>) -> Self {
        seconds.sort_by(f64::total_cmp);
        Self::Latency(seconds)
    }

    /// Divides an amount by the time that it took.
    #[expect(clippy::cast_precision_loss, reason = "amounts are far below 2^52")]
    pub(crate) fn rate(amount: u64, took: Duration) -> Self {
        Self::Rate(amount as f64 / took.as_secs_f64())
    }

    /// Returns the figure that is compared: the median of latencies, or the rate.
    fn figure(&self) -> f64 {
        match self {
            Self::Latency(sorted) => percentile(sorted, 50),
            Self::Rate(rate) => *rate,
        }
    }

    fn p99(&self) -> Option<f64> {
        match self {
            Self::Latency(sorted) => Some(percentile(sorted, 99)),
            Self::Rate(_) => None,
        }
    }
}

/// Returns the value that `percent` of the sorted values do not exceed (nearest rank).
pub(crate) fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    percentile(&values, 50)
}

/// One of the things that take turns.
pub(crate) struct Contender<'a> {
    label: &'static str,
    turn: Box<dyn FnMut() -> Result<Sample, Failure> + 'a>,
}

impl<'a> Contender<'a> {
    pub(crate) fn new(
        label: &'static str,
        turn: impl FnMut() -> Result<Sample, Failure> + 'a,
    ) -> Self {
        Self { label, turn: Box::new(turn) }
    }
}

/// What all turns of one contender gave.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Taken {
    pub(crate) label: &'static str,
    /// One for each round.
    pub(crate) samples: Vec<Sample>,
}

impl Taken {
    /// Returns the median over the rounds of what is compared: seconds, or amount per second.
    pub(crate) fn figure(&self) -> f64 {
        median(self.samples.iter().map(Sample::figure).collect())
    }

    /// Returns the median over the rounds of the 99th percentile in seconds; `None` for a rate.
    pub(crate) fn p99(&self) -> Option<f64> {
        self.samples.iter().map(Sample::p99).collect::<Option<Vec<_>>>().map(median)
    }

    /// Says whether the figures are latencies.
    pub(crate) fn is_latency(&self) -> bool {
        matches!(self.samples.first(), Some(Sample::Latency(_)))
    }

    /// Returns the median over the rounds of this one's figure divided by the other's of the same round.
    pub(crate) fn ratio(&self, to: &Self) -> f64 {
        median(
            self.samples
                .iter()
                .zip(&to.samples)
                .map(|(ours, theirs)| ours.figure() / theirs.figure())
                .collect(),
        )
    }
}

/// Lets everybody take a turn in each of `rounds` rounds, after one turn that does not count. Each round begins with
/// another one, so that nobody always follows the same neighbour.
pub(crate) fn interleave(
    rounds: u32,
    contenders: Vec<Contender<'_>>,
) -> Result<Vec<Taken>, Failure> {
    let mut contenders = contenders;
    let mut taken: Vec<Taken> = contenders
        .iter()
        .map(|contender| Taken { label: contender.label, samples: Vec::new() })
        .collect();
    let count = contenders.len();
    for round in 0..=rounds {
        for turn in 0..count {
            let at = (turn + round as usize) % count;
            let sample = (contenders[at].turn)()
                .map_err(|failure| Failure::new(format!("{}: {failure}", contenders[at].label)))?;
            if round > 0 {
                taken[at].samples.push(sample);
            }
        }
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let sorted: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(
            [percentile(&sorted, 50), percentile(&sorted, 99), percentile(&sorted, 100)],
            [100.0, 198.0, 200.0]
        );
        assert_eq!(percentile(&[7.0], 99), 7.0);
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The machine is ten times slower in the second round; the ratio does not notice.
        let figures =
            |rates: [f64; 3]| Taken { label: "", samples: rates.map(Sample::Rate).to_vec() };
        assert_eq!(figures([20.0, 2.0, 20.0]).ratio(&figures([10.0, 1.0, 10.0])), 2.0);
    }

    #[test]
    fn everybody_takes_a_turn_in_each_round_and_the_first_does_not_count() {
        let turns = RefCell::new(Vec::new());
        let contender = |label: &'static str| {
            let turns = &turns;
            Contender::new(label, move || {
                turns.borrow_mut().push(label);
                Ok(Sample::Rate(1.0))
            })
        };
        let taken = interleave(2, vec![contender("a"), contender("b")]).unwrap();
        assert_eq!(*turns.borrow(), ["a", "b", "b", "a", "a", "b"]);
        assert!(taken.iter().all(|one| one.samples.len() == 2));
    }
}
