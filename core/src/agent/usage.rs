//! What a conversation costs: tokens, money, and the windows that limit them.

use serde::{Deserialize, Serialize};

/// Tokens and money, as far as the agent tells.
///
/// Providers count differently; here `input_tokens` always includes what came from or went into a cache, and
/// `output_tokens` includes reasoning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens that the model read, the cached ones included.
    pub input_tokens: u64,
    /// Those of them that came from a cache.
    pub cached_input_tokens: u64,
    /// Those of them that were written to a cache.
    pub cache_write_tokens: u64,
    /// Tokens that the model wrote, reasoning included.
    pub output_tokens: u64,
    /// Those of them that were reasoning.
    pub reasoning_tokens: u64,
    /// What the agent gives as the sum, else input and output together.
    pub total_tokens: u64,
    /// Cost in millionths of a US dollar, if the agent says it.
    pub cost_usd_micros: Option<u64>,
}

impl Usage {
    /// Adds, saturating.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            input_tokens: self.input_tokens.saturating_add(other.input_tokens),
            cached_input_tokens: self.cached_input_tokens.saturating_add(other.cached_input_tokens),
            cache_write_tokens: self.cache_write_tokens.saturating_add(other.cache_write_tokens),
            output_tokens: self.output_tokens.saturating_add(other.output_tokens),
            reasoning_tokens: self.reasoning_tokens.saturating_add(other.reasoning_tokens),
            total_tokens: self.total_tokens.saturating_add(other.total_tokens),
            cost_usd_micros: match (self.cost_usd_micros, other.cost_usd_micros) {
                (None, None) => None,
                (one, two) => Some(one.unwrap_or(0).saturating_add(two.unwrap_or(0))),
            },
        }
    }

    /// Subtracts what was there before, never below zero.
    #[must_use]
    pub fn minus(self, before: Self) -> Self {
        Self {
            input_tokens: self.input_tokens.saturating_sub(before.input_tokens),
            cached_input_tokens: self
                .cached_input_tokens
                .saturating_sub(before.cached_input_tokens),
            cache_write_tokens: self.cache_write_tokens.saturating_sub(before.cache_write_tokens),
            output_tokens: self.output_tokens.saturating_sub(before.output_tokens),
            reasoning_tokens: self.reasoning_tokens.saturating_sub(before.reasoning_tokens),
            total_tokens: self.total_tokens.saturating_sub(before.total_tokens),
            cost_usd_micros: self
                .cost_usd_micros
                .map(|cost| cost.saturating_sub(before.cost_usd_micros.unwrap_or(0))),
        }
    }

    /// Fills in the sum where the agent did not give one.
    #[must_use]
    pub fn summed(mut self) -> Self {
        if self.total_tokens == 0 {
            self.total_tokens = self.input_tokens.saturating_add(self.output_tokens);
        }
        self
    }
}

/// What was used so far. Each report replaces the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageReport {
    /// Since the process began; or since the session began, if `cumulative`.
    #[serde(flatten)]
    pub usage: Usage,
    /// `usage` includes earlier processes of the same session, and nobody said how much that was.
    pub cumulative: bool,
    /// What the whole session used, where the agent tells: the next process of the session subtracts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Usage>,
}

/// One window of a usage limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitWindow {
    /// The agent's name for it.
    pub name: String,
    /// How much of it is used, in percent, if it is known.
    pub used_percent: Option<u32>,
    /// When it starts anew, in milliseconds since the Unix epoch.
    pub resets_at_ms: Option<u64>,
    /// The agent said that it is used up.
    pub exhausted: bool,
}

impl LimitWindow {
    /// Says when work can go on after a limit was hit: the latest reset of what is used up, else that of the fullest.
    #[must_use]
    pub fn reset_of(windows: &[Self]) -> Option<u64> {
        let spent = |window: &&Self| {
            window.exhausted || window.used_percent.is_some_and(|percent| percent >= 100)
        };
        let latest = windows.iter().filter(spent).filter_map(|window| window.resets_at_ms).max();
        latest.or_else(|| {
            let known = windows.iter().filter(|window| window.resets_at_ms.is_some());
            known.max_by_key(|window| window.used_percent).and_then(|window| window.resets_at_ms)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(used: u32, resets: u64) -> LimitWindow {
        let (name, exhausted) = (String::new(), false);
        LimitWindow { name, used_percent: Some(used), resets_at_ms: Some(resets), exhausted }
    }

    #[test]
    fn work_goes_on_when_the_last_exhausted_window_resets() {
        let windows = [window(100, 10), window(100, 70), window(12, 90)];
        assert_eq!(LimitWindow::reset_of(&windows), Some(70));
    }

    #[test]
    fn rounded_percentages_leave_the_fullest_window() {
        assert_eq!(LimitWindow::reset_of(&[window(88, 10), window(12, 90)]), Some(10));
        assert_eq!(LimitWindow::reset_of(&[]), None);
    }
}
