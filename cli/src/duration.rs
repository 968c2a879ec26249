//! Durations and times as they are typed and shown.

use std::time::{Duration, SystemTime};

/// A point in time, or how long ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// A point in time, in milliseconds since the Unix epoch.
    At(u64),
    /// So long ago.
    Ago(Duration),
}

impl Since {
    /// Returns the point in time, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn at_ms(self, now_ms: u64) -> u64 {
        match self {
            Self::At(at) => at,
            Self::Ago(ago) => now_ms.saturating_sub(millis(ago)),
        }
    }
}

/// Returns a duration in milliseconds.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Returns the present in milliseconds since the Unix epoch.
#[must_use]
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, millis)
}

/// Reads `500ms`, `30s`, `5m`, `2h`.
///
/// # Errors
///
/// What to tell the user.
pub fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 {
        return Err("a duration begins with a number: 500ms, 30s, 5m, 2h".to_owned());
    }
    let (number, unit) = text.split_at(digits);
    let ms_per_unit: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("a duration is a number with a unit: 500ms, 30s, 5m, 2h".to_owned()),
    };
    // Of digits alone, so it can only be too large.
    let number: Option<u64> = number.parse().ok();
    // Milliseconds beyond a signed 64-bit number would not fit into every store.
    let ms = number
        .and_then(|number| number.checked_mul(ms_per_unit))
        .filter(|&ms| i64::try_from(ms).is_ok());
    ms.map(Duration::from_millis).ok_or_else(|| "the duration is too long".to_owned())
}

/// Reads a duration that is not zero.
///
/// # Errors
///
/// What to tell the user.
pub fn parse_positive(text: &str) -> Result<Duration, String> {
    match parse(text)? {
        Duration::ZERO => Err("the duration is zero".to_owned()),
        duration => Ok(duration),
    }
}

/// Reads a time in RFC 3339, or a duration ago.
///
/// # Errors
///
/// What to tell the user.
pub fn parse_since(text: &str) -> Result<Since, String> {
    if let Ok(ago) = parse(text) {
        return Ok(Since::Ago(ago));
    }
    let at = humantime::parse_rfc3339_weak(text).map_err(|_| {
        "neither a time like 2030-01-31T12:00:00Z nor a duration like 5m".to_owned()
    })?;
    Ok(Since::At(at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, millis)))
}

/// Shows a duration in at most two units: `850ms`, `12.3s`, `4m05s`, `3h12m`, `2d4h`.
#[must_use]
pub fn show(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        0 => format!("{ms}ms"),
        1..60 => format!("{seconds}.{}s", ms % 1_000 / 100),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// Shows how long ago something was, in one unit: `now`, `12s`, `4m`, `3h`, `2d`.
#[must_use]
pub fn age(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        0 => "now".to_owned(),
        1..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        let good = [("500ms", 500), ("30s", 30_000), ("5m", 300_000), ("2h", 7_200_000), ("0s", 0)];
        for (text, ms) in good {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "5", "s", "-5s", "1.5s", "5 s", "5d", "99999999999999999999s", "1h30m"] {
            assert!(parse(text).is_err(), "{text}");
        }
        for text in ["18446744073709551615ms", "99999999999999999999999h"] {
            assert!(parse(text).is_err_and(|error| error.contains("too long")), "{text}");
        }
        assert!(parse("-5s").is_err_and(|error| error.contains("begins with a number")));
        assert!(parse_positive("0ms").is_err());
    }

    #[test]
    fn since_is_a_time_or_a_duration_ago() {
        assert_eq!(parse_since("1970-01-01T00:00:01.500Z"), Ok(Since::At(1_500)));
        assert_eq!(parse_since("10s").map(|since| since.at_ms(15_000)), Ok(5_000));
        assert!(parse_since("yesterday").is_err());
    }

    #[test]
    fn durations_are_short() {
        let shown = [850, 12_345, 245_000, 11_520_000, 187_200_000].map(show);
        assert_eq!(shown, ["850ms", "12.3s", "4m05s", "3h12m", "2d4h"]);
        assert_eq!([0, 59_999, 60_000, 86_400_000].map(age), ["now", "59s", "1m", "1d"]);
    }
}
