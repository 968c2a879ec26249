//! Tables for people: aligned columns, no borders.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::output::{Output, Style};

/// No column is cut to less than this.
const NARROWEST: usize = 4;

/// A column that is cut to less than this tells little: others are left out before.
const LEGIBLE: usize = 10;

/// What stands between two columns.
const GAP: usize = 2;

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

/// Returns what of a text fits into as many columns of a terminal, with an ellipsis if that is not all.
fn cut(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut left = columns.saturating_sub(1);
    let mut short = String::new();
    for c in text.chars() {
        let width = c.width().unwrap_or(0);
        if width > left {
            break;
        }
        left -= width;
        short.push(c);
    }
    short.push('…');
    short
}

/// Aligns rows under a head. The last column is not padded.
#[must_use]
pub fn table(output: Output, head: &[&str], rows: &[Vec<Cell>]) -> String {
    layout(output, head, rows, &widths(head, rows))
}

/// Does the same for a terminal as wide as it is: of the columns that may be cut, named by their titles, the widest are.
/// Where standard output is no terminal, nothing is cut.
#[must_use]
pub fn fitted_table(
    output: Output,
    head: &[&str],
    may_be_cut: &[&str],
    rows: &[Vec<Cell>],
) -> String {
    let mut widths = widths(head, rows);
    if let Some(columns) = output.width {
        let free: Vec<_> = (0..head.len()).filter(|&n| may_be_cut.contains(&head[n])).collect();
        narrow(&mut widths, &free, columns);
    }
    layout(output, head, rows, &widths)
}

/// The columns that a narrow terminal is not shown, the first one first.
const EXPENDABLE: [&str; 4] = ["DISK", "BASE", "AGE", "COMMITS"];

/// Leaves out columns until a terminal has room for the rest, cut as far as they may be.
#[must_use]
pub fn without_what_does_not_fit<'a>(
    output: Output,
    head: &[&'a str],
    may_be_cut: &[&str],
    mut rows: Vec<Vec<Cell>>,
) -> (Vec<&'a str>, Vec<Vec<Cell>>) {
    let mut head = head.to_vec();
    for title in EXPENDABLE {
        let needs = |head: &[&str], rows: &[Vec<Cell>]| {
            let widths = widths(head, rows).into_iter().zip(head);
            let least = widths.map(|(width, title)| match may_be_cut.contains(title) {
                true => width.min(LEGIBLE),
                false => width,
            });
            least.sum::<usize>() + head.len().saturating_sub(1) * GAP
        };
        if output.width.is_none_or(|columns| needs(&head, &rows) <= columns) {
            break;
        }
        if let Some(n) = head.iter().position(|have| *have == title) {
            head.remove(n);
            rows.iter_mut().for_each(|row| drop(row.remove(n)));
        }
    }
    (head, rows)
}

fn widths(head: &[&str], rows: &[Vec<Cell>]) -> Vec<usize> {
    let mut widths: Vec<usize> = head.iter().map(|title| title.width()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.text.width());
        }
    }
    widths
}

/// Takes from the widest of the free columns until all fit, or nothing more can be taken.
fn narrow(widths: &mut [usize], free: &[usize], columns: usize) {
    let gaps = widths.len().saturating_sub(1) * GAP;
    loop {
        let excess = (widths.iter().sum::<usize>() + gaps).saturating_sub(columns);
        let Some(widest) = free.iter().copied().max_by_key(|&n| widths[n]) else { return };
        if excess == 0 || widths[widest] <= NARROWEST {
            return;
        }
        let next = free.iter().filter(|&&n| n != widest).map(|&n| widths[n]).max().unwrap_or(0);
        // Down to the next widest, then in turn, so that none is cut more than it must be.
        let step = (widths[widest] - next).max(1);
        widths[widest] -= step.min(excess).min(widths[widest] - NARROWEST);
    }
}

fn layout(output: Output, head: &[&str], rows: &[Vec<Cell>], widths: &[usize]) -> String {
    let head: Vec<_> = head.iter().map(|title| Cell::styled(*title, Style::Dim)).collect();
    let mut text = String::new();
    for row in std::iter::once(&head).chain(rows) {
        for (n, cell) in row.iter().enumerate() {
            let shown = cut(&cell.text, widths[n]);
            text.push_str(&output.paint(cell.style, &shown));
            if n + 1 < row.len() {
                let padding = widths[n].saturating_sub(shown.width()) + GAP;
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
    let width = pairs.iter().map(|(name, _)| name.width()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in pairs {
        let padding = " ".repeat(width - name.width() + GAP);
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

    const PLAIN: Output =
        Output { json: false, quiet: false, color: false, is_terminal: false, width: None };

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
    fn a_terminal_cuts_the_widest_and_a_pipe_nothing() {
        let title = "a title of many words that goes on and on";
        let rows = vec![vec!["x-1".into(), "windlass/short".into(), "main".into(), title.into()]];
        let head = ["ID", "BRANCH", "BASE", "TITLE"];
        let free = ["BRANCH", "BASE", "TITLE"];
        let fitted = |width| fitted_table(Output { width, ..PLAIN }, &head, &free, &rows);
        assert_eq!(
            fitted(None).lines().nth(1).unwrap(),
            format!("x-1  windlass/short  main  {title}")
        );
        assert_eq!(fitted(Some(300)), fitted(None));
        assert_eq!(
            fitted(Some(40)).lines().nth(1).unwrap(),
            "x-1  windlass/short  main  a title of m…"
        );
        for columns in 21..120 {
            let text = fitted(Some(columns));
            assert!(text.lines().all(|line| line.width() <= columns), "{columns}: {text}");
        }
        // What may not be cut is not, however narrow it is.
        assert_eq!(fitted(Some(3)).lines().nth(1).unwrap(), "x-1  win…  main  a t…");
    }

    #[test]
    fn a_narrow_terminal_is_shown_less() {
        let head = ["ATTEMPT", "BRANCH", "BASE", "DISK", "TITLE"];
        let row = ["a-12345678", "windlass/12345678-a-title", "main", "1.2 MiB", "a long title"];
        let rows = vec![row.map(Cell::from).to_vec()];
        let shown = |width| {
            let output = Output { width, ..PLAIN };
            let free = ["BRANCH", "BASE", "TITLE"];
            let (head, rows) = without_what_does_not_fit(output, &head, &free, rows.clone());
            let text = fitted_table(output, &head, &free, &rows);
            assert!(text.lines().all(|line| width.is_none_or(|width| line.width() <= width)));
            head.join(" ")
        };
        assert_eq!(shown(None), "ATTEMPT BRANCH BASE DISK TITLE");
        assert_eq!(shown(Some(49)), "ATTEMPT BRANCH BASE DISK TITLE");
        assert_eq!(shown(Some(48)), "ATTEMPT BRANCH BASE TITLE");
        assert_eq!(shown(Some(35)), "ATTEMPT BRANCH TITLE");
    }

    #[test]
    fn wide_characters_take_two_columns() {
        let rows = vec![vec!["日本語".into(), "x".into()], vec!["ab".into(), "y".into()]];
        assert_eq!(table(PLAIN, &["A", "B"], &rows), "A       B\n日本語  x\nab      y\n");
        assert_eq!(cut("日本語", 4), "日…");
    }

    #[test]
    fn sizes_are_short() {
        let shown = [0, 1_023, 1_024, 1_536, 10 << 20, 3 << 40].map(size);
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "10 MiB", "3.0 TiB"]);
    }
}
