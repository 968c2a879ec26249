//! As much of Rust's grammar as the rules need: what is code, what is a test, which paths are named.

/// Replaces comments and the insides of literals with spaces. Lines stay where they are.
pub(super) fn code(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = match chars[at] {
            '/' if chars.get(at + 1) == Some(&'/') => line_end(&chars, at),
            '/' if chars.get(at + 1) == Some(&'*') => comment_end(&chars, at),
            'r' | 'b' | 'c' if !follows_word(&chars, at) => prefixed_end(&chars, at),
            '"' => quoted_end(&chars, at, '"'),
            '\'' => char_end(&chars, at),
            _ => at,
        };
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|&c| if c == '\n' { c } else { ' ' }));
            at = end;
        }
    }
    out
}

fn follows_word(chars: &[char], at: usize) -> bool {
    at > 0 && is_word(chars[at - 1])
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn line_end(chars: &[char], from: usize) -> usize {
    (from..chars.len()).find(|&at| chars[at] == '\n').unwrap_or(chars.len())
}

fn comment_end(chars: &[char], from: usize) -> usize {
    let mut depth = 0_u32;
    let mut at = from;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

/// The end of a literal that begins with `r`, `b`, `c`, `br`, `cr` and quotes; `from` if it is a word.
fn prefixed_end(chars: &[char], from: usize) -> usize {
    let mut at = from;
    while at < from + 2 && matches!(chars.get(at), Some('r' | 'b' | 'c')) {
        at += 1;
    }
    let raw = chars[from..at].contains(&'r');
    let hashes = if raw { chars[at..].iter().take_while(|c| **c == '#').count() } else { 0 };
    match chars.get(at + hashes) {
        Some('"') if raw => {
            let body = at + hashes + 1;
            let closes = |at: usize| {
                chars[at] == '"'
                    && chars[at + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes
            };
            (body..chars.len()).find(|&at| closes(at)).map_or(chars.len(), |at| at + 1 + hashes)
        }
        Some('"') => quoted_end(chars, at, '"'),
        Some('\'') if chars[from] == 'b' && at == from + 1 => quoted_end(chars, at, '\''),
        _ => from,
    }
}

fn quoted_end(chars: &[char], from: usize, quote: char) -> usize {
    let mut at = from + 1;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            c if c == quote => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// The end of a character; `from` if it is a lifetime.
fn char_end(chars: &[char], from: usize) -> usize {
    match (chars.get(from + 1), chars.get(from + 2)) {
        (Some('\\'), _) => quoted_end(chars, from, '\''),
        (Some(_), Some('\'')) => from + 3,
        _ => from,
    }
}

/// Parts code from its tests: the items under `#[cfg(test)]`. Takes and gives what [`code`] gives.
pub(super) fn part_tests(code: &str) -> (String, String) {
    let (mut rest, mut plain, mut tests) = (code, String::new(), String::new());
    let next = |text: &str| {
        ["#[cfg(test)]", "#[cfg(all(test"].iter().filter_map(|mark| text.find(mark)).min()
    };
    while let Some(at) = next(rest) {
        plain.push_str(&rest[..at]);
        let end = at + item_end(&rest[at..]);
        tests.push_str(&rest[at..end]);
        rest = &rest[end..];
    }
    plain.push_str(rest);
    (plain, tests)
}

/// The end of the item at the start: its closing brace, or its semicolon if it has no body.
fn item_end(text: &str) -> usize {
    let (mut braces, mut others) = (0_u32, 0_u32);
    for (at, c) in text.char_indices() {
        match c {
            '(' | '[' => others += 1,
            ')' | ']' => others = others.saturating_sub(1),
            '{' => braces += 1,
            '}' => {
                braces = braces.saturating_sub(1);
                if braces == 0 {
                    return at + 1;
                }
            }
            ';' if braces == 0 && others == 0 => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Drops white space that does not part two words.
pub(super) fn compact(code: &str) -> String {
    let mut out = String::with_capacity(code.len());
    let mut space = false;
    for c in code.chars() {
        if c.is_whitespace() {
            space = true;
            continue;
        }
        if space && is_word(c) && out.chars().next_back().is_some_and(is_word) {
            out.push(' ');
        }
        space = false;
        out.push(c);
    }
    out
}

/// Says whether compact code names `name` as a whole, `::` included in it.
pub(super) fn names(compact: &str, name: &str) -> bool {
    compact.match_indices(name).any(|(at, _)| {
        let before = compact[..at].chars().next_back();
        let after = compact[at + name.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

/// Lists what is taken directly out of a crate: the `b` of `a::b` and of `a::{b, c::d}`.
pub(super) fn modules_of<'a>(compact: &'a str, krate: &str) -> Vec<&'a str> {
    let prefix = format!("{krate}::");
    let mut found = Vec::new();
    for (at, _) in compact.match_indices(&prefix) {
        if compact[..at].chars().next_back().is_some_and(is_word) {
            continue;
        }
        let rest = &compact[at + prefix.len()..];
        if rest.starts_with('{') {
            found.extend(group(rest));
        } else {
            found.push(first_word(rest));
        }
    }
    found
}

/// Lists the first words of what stands in the braces at the start.
fn group(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let (mut depth, mut begin) = (0_u32, 1);
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if (c == ',' && depth == 1) || depth == 0 {
            found.push(first_word(&text[begin..at]));
            begin = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    found.retain(|word| !word.is_empty());
    found
}

fn first_word(text: &str) -> &str {
    &text[..text.find(|c| !is_word(c)).unwrap_or(text.len())]
}

/// Returns the word after each occurrence of `before`, for example the names of functions.
pub(super) fn words_after<'a>(compact: &'a str, before: &str) -> Vec<&'a str> {
    let starts = compact.match_indices(before).map(|(at, _)| at + before.len());
    starts.map(|at| first_word(&compact[at..])).filter(|word| !word.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_no_code() {
        let text = "a // b\n/* c /* d */ e */ f \"g \\\" h\" r#\"i\"j\"# k 'l' b'm' '\\'' n";
        let left: Vec<String> = code(text).split_whitespace().map(str::to_owned).collect();
        assert_eq!(left, ["a", "f", "k", "n"]);
    }

    #[test]
    fn lifetimes_and_words_before_quotes_are_code() {
        let text = "fn f<'a>(x: &'a str) { bar(r, b) }";
        assert_eq!(code(text), text);
    }

    #[test]
    fn tests_are_parted_from_code() {
        let (plain, tests) = part_tests(
            "a;\n#[cfg(test)]\nmod tests { fn f() { g([1; 2]); } }\nb;\n#[cfg(test)]\nmod t;\nc",
        );
        assert_eq!(compact(&plain), "a;b;c");
        assert!(tests.contains("fn f()") && tests.contains("mod t;"));
    }

    #[test]
    fn modules_are_found_in_paths_and_in_groups() {
        let text =
            compact("use std::{io, fs::{self, File}}; std :: net::x(); mystd::process::y();");
        assert_eq!(modules_of(&text, "std"), ["io", "fs", "net"]);
    }

    #[test]
    fn names_are_whole_words() {
        assert!(
            names("a::sleep(1)", "sleep")
                && !names("sleeper(1)", "sleep")
                && !names("a_sleep()", "sleep")
        );
    }
}
