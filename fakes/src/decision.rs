//! [`Decisions`]: what could go one way or another, decided by a seed.
//!
//! Each question has a key of its own: where it is asked, about what, for the how many-th time, and which draw it is. So an
//! answer depends on nothing that was asked before, and a plan from which something was taken away goes on as it did: that
//! keeps shrinking local. What an answer means is the asker's.

use std::collections::BTreeMap;

/// One question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Question<'a> {
    /// Where it is asked, for example `store.commit`.
    pub site: &'a str,
    /// About what, for example the name of an attempt; empty for nothing in particular.
    pub about: &'a str,
    /// For the how many-th time, from 1.
    pub nth: u32,
    /// Which draw: one question may need several answers.
    pub draw: u32,
}

/// A question with its answer, for those who look back.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Decision {
    /// Where it was asked.
    pub site: String,
    /// About what.
    pub about: String,
    /// For the how many-th time.
    pub nth: u32,
    /// Which draw.
    pub draw: u32,
    /// What was answered; never 0, which is what happens where nothing is decided.
    pub answer: u64,
}

/// Answers questions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decisions {
    seed: u64,
    overrides: BTreeMap<(String, String, u32, u32), u64>,
    mattered: Vec<Decision>,
    counts: BTreeMap<u64, u32>,
}

impl Decisions {
    /// Makes those of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Fixes an answer, whatever the seed says.
    pub fn fix(&mut self, decision: &Decision) {
        let Decision { site, about, nth, draw, answer } = decision;
        self.overrides.insert((site.clone(), about.clone(), *nth, *draw), *answer);
    }

    /// Counts how often it was asked at a place about a thing; the first time is 1.
    pub fn count(&mut self, site: &str, about: &str) -> u32 {
        let count = self.counts.entry(mix(of_text(site), of_text(about))).or_insert(0);
        *count += 1;
        *count
    }

    /// Returns a number that depends on the seed and the question alone, and remembers nothing.
    #[must_use]
    pub fn draw(&self, question: &Question<'_>) -> u64 {
        let place = mix(of_text(question.site), of_text(question.about));
        mix(mix(self.seed, place), u64::from(question.nth) << 32 | u64::from(question.draw))
    }

    /// Answers 0 but for `per_10_000` of all cases, in which it answers 1 to `answers`.
    pub fn rarely(&mut self, question: &Question<'_>, per_10_000: u16, answers: u64) -> u64 {
        let fixed = self.fixed(question);
        let answer = fixed.unwrap_or_else(|| {
            if per_10_000 == 0 || answers == 0 {
                return 0;
            }
            let draw = self.draw(question);
            let hit = draw % 10_000 < u64::from(per_10_000);
            if hit { 1 + (draw >> 32) % answers } else { 0 }
        });
        if answer != 0 {
            self.mattered.push(Decision {
                site: question.site.to_owned(),
                about: question.about.to_owned(),
                nth: question.nth,
                draw: question.draw,
                answer,
            });
        }
        answer
    }

    fn fixed(&self, question: &Question<'_>) -> Option<u64> {
        if self.overrides.is_empty() {
            return None;
        }
        let Question { site, about, nth, draw } = *question;
        self.overrides.get(&(site.to_owned(), about.to_owned(), nth, draw)).copied()
    }

    /// Returns the answers that were not 0, in the order of the questions.
    #[must_use]
    pub fn mattered(&self) -> &[Decision] {
        &self.mattered
    }
}

/// Makes one number of two, so that each bit of both moves half of its bits.
#[must_use]
pub fn mix(a: u64, b: u64) -> u64 {
    let mut x = a ^ b.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
    x = (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    x = (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^ (x >> 32)
}

/// Makes a number of a text.
#[must_use]
pub fn of_text(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(site: &'static str, nth: u32) -> Question<'static> {
        Question { site, about: "r1", nth, draw: 0 }
    }

    #[test]
    fn an_answer_depends_on_its_question_alone() {
        let mut all = Decisions::new(7);
        let together: Vec<u64> =
            (1..100).map(|nth| all.rarely(&question("store.commit", nth), 5_000, 9)).collect();
        let alone: Vec<u64> = (1..100)
            .rev()
            .map(|nth| Decisions::new(7).rarely(&question("store.commit", nth), 5_000, 9))
            .collect();
        assert_eq!(together, alone.into_iter().rev().collect::<Vec<_>>());
        let hits = together.iter().filter(|answer| **answer != 0).count();
        assert!((30..70).contains(&hits), "{hits} of 99 at one half");
        assert_eq!(all.mattered().len(), hits);
    }

    #[test]
    fn what_is_fixed_is_answered_whatever_the_seed() {
        let fixed = Decision {
            site: "store.commit".to_owned(),
            about: "r1".to_owned(),
            nth: 3,
            draw: 0,
            answer: 4,
        };
        let mut decisions = Decisions::new(1);
        decisions.fix(&fixed);
        assert_eq!(decisions.rarely(&question("store.commit", 3), 0, 9), 4);
        assert_eq!(decisions.rarely(&question("store.commit", 2), 0, 9), 0);
        assert_eq!(decisions.mattered(), [fixed]);
    }

    #[test]
    fn it_counts_for_each_thing_at_each_place() {
        let mut decisions = Decisions::new(1);
        assert_eq!(decisions.count("a", "x"), 1);
        assert_eq!(decisions.count("a", "x"), 2);
        assert_eq!(decisions.count("a", "y"), 1);
        assert_eq!(decisions.count("b", "x"), 1);
    }
}
