//! Tables for people: aligned columns, no borders.

use crate::output::{Output, Style};

/// One cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// Makes a cell with a style.
    #[must_use]
    pub fn styled(text: impl Into<String>, style: Style) -> Self {
        Self { text: printable(&text.into()), style }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::styled(text, Style::Plain)
    }
}

/// Returns a text on one line, without control characters.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Returns the beginning of a text, at most `limit` characters, with an ellipsis if it was longer.
#[must_use]
pub fn shorten(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(limit.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// Aligns rows under a head. The last column is not padded.
#[must_use]
pub fn table(output: Output, head: &[&str], rows: &[Vec<Cell>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|title| title.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.text.chars().count());
        }
    }
    let head: Vec<_> = head.iter().map(|title| Cell::styled(*title, Style::Dim)).collect();
    let mut text = String::new();
    for row in std::iter::once(&head).chain(rows) {
        for (n, cell) in row.iter().enumerate() {
            text.push_str(&output.paint(cell.style, &cell.text));
            if n + 1 < row.len() {
                let padding = widths[n] - cell.text.chars().count() + 2;
                text.extend(std::iter::repeat_n(' ', padding));
            }
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text
}

/// Aligns names and values.
#[must_use]
pub fn pairs(output: Output, pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in pairs {
        let padding = " ".repeat(width - name.chars().count() + 2);
        text.push_str(&output.paint(Style::Dim, name));
        text.push_str(&padding);
        text.push_str(value);
        text.push('\n');
    }
    text
}

/// Shows a number of bytes: `512 B`, `1.5 KiB`, `20 MiB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1_024 {
        return format!("{bytes} B");
    }
    let (mut tenths, mut unit) = (u128::from(bytes) * 10 / 1_024, 0);
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1_024;
        unit += 1;
    }
    if tenths < 100 {
        format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
    } else {
        format!("{} {}", tenths / 10, UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Output = Output { json: false, quiet: false, color: false, is_terminal: false };

    #[test]
    fn columns_are_aligned_and_nothing_trails() {
        let rows = vec![
            vec!["x-1".into(), "running".into(), "äöü".into()],
            vec!["x-22222".into(), "".into(), "b\nc".into()],
        ];
        let expected = "ID       STATUS   WHAT\nx-1      running  äöü\nx-22222           b c\n";
        assert_eq!(table(PLAIN, &["ID", "STATUS", "WHAT"], &rows), expected);
    }

    #[test]
    fn colour_does_not_change_the_width() {
        let color = Output { color: true, ..PLAIN };
        let rows = vec![vec![Cell::styled("up", Style::Good), "x".into()]];
        let text = table(color, &["STATE", "N"], &rows);
        assert!(text.contains("\x1b[32mup\x1b[0m     x"), "{text:?}");
    }

    #[test]
    fn sizes_and_long_texts_are_short() {
        let shown = [0, 1_023, 1_024, 1_536, 10 << 20, 3 << 40].map(size);
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "10 MiB", "3.0 TiB"]);
        assert_eq!(shorten("abcdef", 4), "abc…");
        assert_eq!(shorten("äöü", 3), "äöü");
    }
}
