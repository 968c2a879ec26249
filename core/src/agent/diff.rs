//! A unified diff of two texts.

/// Lines around a change.
const CONTEXT: usize = 3;

/// Returns one hunk that turns `old` into `new`, or `None` if they are the same.
///
/// What both begin and end with is left out but for three lines; between, all old lines go and all new ones come. That
/// is right, quick in any case, and what an edit by replacement is; it is not always the shortest.
#[must_use]
pub fn unified_diff(old: &str, new: &str) -> Option<String> {
    if old == new {
        return None;
    }
    let (before, after) = (lines(old), lines(new));
    let same_head = before.iter().zip(&after).take_while(|(one, two)| one == two).count();
    let rest = before.len().min(after.len()) - same_head;
    let (tail_one, tail_two) = (before.iter().rev(), after.iter().rev());
    let same_tail = tail_one.zip(tail_two).take(rest).take_while(|(one, two)| one == two).count();
    let from = same_head.saturating_sub(CONTEXT);
    let until = |len: usize| (len - same_tail + CONTEXT).min(len);
    let (old_until, new_until) = (until(before.len()), until(after.len()));
    let mut hunk =
        format!("@@ -{} +{} @@\n", range(from, old_until - from), range(from, new_until - from));
    let mut put = |mark: char, lines: &[&str]| {
        for line in lines {
            hunk.push(mark);
            hunk.push_str(line);
            if !line.ends_with('\n') {
                hunk.push_str("\n\\ No newline at end of file\n");
            }
        }
    };
    put(' ', &before[from..same_head]);
    put('-', &before[same_head..before.len() - same_tail]);
    put('+', &after[same_head..after.len() - same_tail]);
    put(' ', &before[before.len() - same_tail..old_until]);
    Some(hunk)
}

fn lines(text: &str) -> Vec<&str> {
    text.split_inclusive('\n').collect()
}

/// A range without lines is counted from the line before it.
fn range(from: usize, count: usize) -> String {
    match count {
        0 => format!("{from},0"),
        1 => format!("{}", from + 1),
        _ => format!("{},{count}", from + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Applies a hunk, checking every line that it says is there.
    fn applied(old: &str, hunk: &str) -> String {
        let old = lines(old);
        let (head, body) = hunk.split_once('\n').unwrap();
        let range = head.split(' ').nth(1).unwrap().trim_start_matches('-');
        let (start, count) = range.split_once(',').unwrap_or((range, "1"));
        let start: usize = start.parse().unwrap();
        let at = if count == "0" { start } else { start - 1 };
        let mut new: String = old[..at].concat();
        let mut next = at;
        let mut body = body.split_inclusive('\n').peekable();
        while let Some(line) = body.next() {
            let bare = body.peek().is_some_and(|mark| mark.starts_with('\\'));
            let text = if bare { line[1..].trim_end_matches('\n') } else { &line[1..] };
            match &line[..1] {
                "+" => new.push_str(text),
                kind => {
                    assert_eq!(old[next], text);
                    next += 1;
                    if kind == " " {
                        new.push_str(text);
                    }
                }
            }
            if bare {
                body.next();
            }
        }
        new + &old[next..].concat()
    }

    #[test]
    fn a_change_in_the_middle_has_three_lines_around_it() {
        let old = "1\n2\n3\n4\n5\n6\n7\n8\n9\n";
        let diff = unified_diff(old, &old.replace('5', "five")).unwrap();
        assert_eq!(diff, "@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n");
    }

    #[test]
    fn a_new_file_and_a_missing_last_newline_are_as_git_writes_them() {
        let diff = unified_diff("", "new file").unwrap();
        assert_eq!(diff, "@@ -0,0 +1 @@\n+new file\n\\ No newline at end of file\n");
        assert_eq!(unified_diff("a", "a"), None);
    }

    proptest! {
        #[test]
        fn a_diff_leads_from_the_old_text_to_the_new(old in "[ab\n]{0,30}", new in "[ab\n]{0,30}") {
            if let Some(diff) = unified_diff(&old, &new) {
                prop_assert_eq!(applied(&old, &diff), new);
            } else {
                prop_assert_eq!(old, new);
            }
        }
    }
}
