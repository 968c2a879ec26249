//! What the words of a failure mean. Agents tell most of it in English only.

use windlass_core::agent::{Failure, FailureReason};

/// Words, in lower case, and what they mean. The first that is found counts.
const WORDS: &[(&str, FailureReason)] = &[
    ("usage limit", FailureReason::UsageLimit),
    ("usage_limit", FailureReason::UsageLimit),
    ("credit balance is too low", FailureReason::UsageLimit),
    ("exceeded your current quota", FailureReason::UsageLimit),
    ("hit your limit", FailureReason::UsageLimit),
    ("context window", FailureReason::ContextWindow),
    ("context length", FailureReason::ContextWindow),
    ("prompt is too long", FailureReason::ContextWindow),
    ("no rollout found", FailureReason::Session),
    ("session not found", FailureReason::Session),
    ("invalid session", FailureReason::Session),
    ("no previous sessions", FailureReason::Session),
    ("no conversation found", FailureReason::Session),
    ("resuming session", FailureReason::Session),
    ("starting session", FailureReason::Session),
    ("already has an active writer", FailureReason::Session),
    ("trusted director", FailureReason::Untrusted),
    ("untrusted folder", FailureReason::Untrusted),
    ("rate limit", FailureReason::RateLimit),
    ("too many requests", FailureReason::RateLimit),
    ("resource exhausted", FailureReason::RateLimit),
    ("resource_exhausted", FailureReason::RateLimit),
    ("unauthorized", FailureReason::Auth),
    ("unauthenticated", FailureReason::Auth),
    ("api key", FailureReason::Auth),
    ("authentication", FailureReason::Auth),
    ("not logged in", FailureReason::Auth),
    ("/login", FailureReason::Auth),
    ("invalid auth", FailureReason::Auth),
    ("missing environment variable", FailureReason::Auth),
    ("unexpected argument", FailureReason::Config),
    ("unknown option", FailureReason::Config),
    ("unknown argument", FailureReason::Config),
    ("high demand", FailureReason::Provider),
    ("overloaded", FailureReason::Provider),
    ("internal server error", FailureReason::Provider),
    ("stream disconnected", FailureReason::Network),
    ("network error", FailureReason::Network),
    ("connection", FailureReason::Network),
    ("fetch failed", FailureReason::Network),
    ("terminated", FailureReason::Network),
    ("socket", FailureReason::Network),
];

/// Makes a failure from what an agent said.
pub(crate) fn from_words(message: &str) -> Failure {
    let message = without_colours(message);
    let lower = message.to_lowercase();
    let status = status_in(&lower);
    let by_words = WORDS.iter().find(|(words, _)| lower.contains(words)).map(|(_, reason)| *reason);
    let by_status = status.map(|status| Failure::http(status, "").reason);
    Failure {
        http_status: status,
        retry_after_ms: retry_in(&lower),
        resets_at_ms: reset_in(&lower),
        ..Failure::new(by_words.or(by_status).unwrap_or(FailureReason::Unknown), message)
    }
}

/// Makes a failure from the status of an answer and what was said with it.
pub(crate) fn from_status(status: u64, message: &str) -> Failure {
    let said = from_words(message);
    let Some(status) = u16::try_from(status).ok().filter(|status| (400..600).contains(status))
    else {
        return said;
    };
    let reason = match said.reason {
        FailureReason::Unknown | FailureReason::Network => Failure::http(status, "").reason,
        told => told,
    };
    Failure { reason, http_status: Some(status), ..said }
}

/// Leaves out the sequences that colour a line on a terminal.
fn without_colours(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !(c.is_ascii_digit() || c == ';'));
        plain.push_str(end.map_or("", |end| part[end..].strip_prefix('m').unwrap_or(&part[end..])));
    }
    plain
}

/// Finds `status 429`, `status: 429` and the like.
fn status_in(lower: &str) -> Option<u16> {
    lower
        .match_indices("status")
        .find_map(|(at, word)| {
            let rest = lower[at + word.len()..].trim_start_matches([':', ' ', '=', '"']);
            number(rest).and_then(|(number, _)| u16::try_from(number).ok())
        })
        .filter(|status| (400..600).contains(status))
}

/// Finds `retry after 2s`.
fn retry_in(lower: &str) -> Option<u64> {
    let rest = &lower[lower.find("retry after ")? + "retry after ".len()..];
    let (amount, unit) = number(rest)?;
    if unit.starts_with("ms") {
        Some(amount)
    } else if unit.trim_start().starts_with('s') {
        amount.checked_mul(1000)
    } else {
        None
    }
}

/// Finds `limit reached|1795170000`, seconds since the Unix epoch.
fn reset_in(lower: &str) -> Option<u64> {
    let rest = &lower[lower.find("limit reached|")? + "limit reached|".len()..];
    number(rest).and_then(|(seconds, _)| seconds.checked_mul(1000))
}

fn number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_tell_why() {
        for (words, reason) in [
            ("You’ve hit your usage limit. Upgrade", FailureReason::UsageLimit),
            ("exceeded retry limit, last status: 429 Too Many Requests", FailureReason::RateLimit),
            ("unexpected status 401 Unauthorized: x", FailureReason::Auth),
            ("unexpected status 503 nothing", FailureReason::Provider),
            ("no rollout found for thread id 1 (code -32600)", FailureReason::Session),
            ("Gemini CLI is not running in a trusted directory.", FailureReason::Untrusted),
            ("whatever", FailureReason::Unknown),
        ] {
            assert_eq!(from_words(words).reason, reason, "{words}");
        }
    }

    #[test]
    fn colours_are_left_out() {
        let failure = from_words("\u{1b}[91m\u{1b}[1mError: \u{1b}[0mSession not found");
        assert_eq!(failure.message, "Error: Session not found");
    }

    #[test]
    fn numbers_in_words_are_found() {
        let failure = from_words("Resource exhausted\nSuggested retry after 2s.");
        assert_eq!(failure.retry_after_ms, Some(2000));
        assert_eq!(from_words("last status: 429").http_status, Some(429));
        assert_eq!(from_words("status of things").http_status, None);
        let failure = from_words("Claude AI usage limit reached|1795170000");
        assert_eq!(failure.resets_at_ms, Some(1_795_170_000_000));
    }

    #[test]
    fn a_status_that_is_none_is_not_believed() {
        assert_eq!(from_status(200, "x").http_status, None);
        assert_eq!(from_status(70_000, "x").http_status, None);
        assert_eq!(from_status(500, "terminated").reason, FailureReason::Provider);
    }
}
