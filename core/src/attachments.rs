//! The optional port [`Attachments`]: files that are handed to an attempt, kept, and put into its worktree.
//!
//! What names files and links to them is here; what copies them is a backend.

use std::borrow::Cow;
use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::BackendError;
use crate::id::AttemptId;
use crate::locator::{Locator, OsBytes};
use crate::workspace::Worktree;

/// The folder of a worktree that attachments are put into. Git ignores it, without a file of the user's saying so.
pub const FOLDER: &str = ".windlass/attachments";

/// The environment variable that lists where an attempt's attachments are, one a line.
pub const ATTACHMENTS: &str = "WINDLASS_ATTACHMENTS";

/// The most bytes of a name in the folder.
const NAME_BYTES: usize = 200;

/// The most bytes of a name that are kept of its end, from its last dot on.
const EXTENSION_BYTES: usize = 20;

/// A file that was handed to an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Its name in the folder: one component, printable, no other one's in whatever case.
    pub name: String,
    /// What whoever handed it over calls it.
    pub called: String,
    /// The SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
    /// How many bytes it has.
    pub bytes: u64,
}

/// What was kept of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
    /// How many bytes it has.
    pub bytes: u64,
}

/// Why a file was not kept, or not put where it belongs.
#[derive(Debug, thiserror::Error)]
pub enum AttachmentsError {
    /// It is not there, no plain file, or not to be read.
    #[error("{file} cannot be attached: {why}")]
    Unfit {
        /// The file.
        file: Locator,
        /// What is wrong with it.
        why: String,
    },
    /// It has more bytes than may be attached.
    #[error("{file} has more than {limit_bytes} bytes")]
    TooLarge {
        /// The file.
        file: Locator,
        /// How many it may have.
        limit_bytes: u64,
    },
    /// Something that is not ours is where they belong.
    #[error("attachments cannot be put into the worktree: {why}")]
    InTheWay {
        /// What.
        why: String,
    },
    /// There is no room on the disk.
    #[error("no space left for attachments")]
    Full,
    /// The backend failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// Keeps files that are handed to attempts, and puts them into worktrees.
///
/// # Contract
///
/// - A file that was kept is there after a power cut, whatever becomes of the one that it was copied from.
/// - What is in a worktree's folder already stays as it is, whoever put it there.
/// - Nothing is written outside of the worktree's folder, whatever links lie in the way.
///
/// # Cancel safety
///
/// May be dropped and begun again.
#[async_trait]
pub trait Attachments: fmt::Debug + Send + Sync + 'static {
    /// Keeps a copy of a file for an attempt.
    ///
    /// # Errors
    ///
    /// [`AttachmentsError`]; nothing is kept then.
    async fn keep(
        &self,
        attempt: AttemptId,
        file: &Locator,
        limit_bytes: u64,
    ) -> Result<Kept, AttachmentsError>;

    /// Puts what was kept for an attempt into its worktree, as far as it is not there.
    ///
    /// # Errors
    ///
    /// [`AttachmentsError`].
    async fn place(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        attachments: &[Attachment],
    ) -> Result<(), AttachmentsError>;

    /// Says where an attachment of a worktree is, as its commands name it.
    fn path(&self, worktree: &Worktree, name: &str) -> OsBytes;

    /// Lists the attempts for which anything is kept.
    ///
    /// # Errors
    ///
    /// [`AttachmentsError::Backend`].
    async fn attempts(&self) -> Result<Vec<AttemptId>, AttachmentsError>;

    /// Removes all that is kept for an attempt.
    ///
    /// # Errors
    ///
    /// [`AttachmentsError::Backend`].
    async fn forget(&self, attempt: AttemptId) -> Result<(), AttachmentsError>;
}

/// Makes the name that a file gets in the folder from what it is called: the last component, without what is not printable, cut,
/// and with a number where another one has it, in whatever case.
#[must_use]
pub fn name_for(called: &str, others: &[Attachment]) -> String {
    let last = called.rsplit('/').find(|part| !part.is_empty()).unwrap_or_default();
    let plain: String = last
        .chars()
        .map(|c| {
            if c.is_control() || matches!(c, '/' | '\\' | '\u{2028}' | '\u{2029}') {
                '_'
            } else {
                c
            }
        })
        .collect();
    // A leading dot or hyphen means something to programs.
    let plain = match plain.strip_prefix(['.', '-']) {
        Some(rest) => format!("_{rest}"),
        None => plain,
    };
    let plain = if plain.trim().is_empty() { "attachment".to_owned() } else { plain };
    let (stem, extension) = match plain.rsplit_once('.') {
        Some((stem, end)) if !stem.is_empty() && end.len() < EXTENSION_BYTES => {
            (stem, format!(".{end}"))
        }
        Some(_) | None => (plain.as_str(), String::new()),
    };
    let is_taken =
        |name: &str| others.iter().any(|other| other.name.to_lowercase() == name.to_lowercase());
    let mut number = 1_u32;
    loop {
        let mark = if number == 1 { String::new() } else { format!("-{number}") };
        let room = NAME_BYTES - extension.len() - mark.len();
        let name = format!("{}{mark}{extension}", cut(stem, room));
        if !is_taken(&name) {
            return name;
        }
        number += 1;
    }
}

/// Cuts a text at the border of a character.
fn cut(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

/// Says where the attachments are to which a text links by name: in the target of a Markdown link or image, and between
/// backticks. Anything else of it stays as it is.
#[must_use]
pub fn with_paths(text: &str, attachments: &[Attachment], path: impl Fn(&str) -> String) -> String {
    let find = |name: &str| {
        let name = name.strip_prefix("./").unwrap_or(name);
        // The newest first: one that was sent later is meant.
        let meant = |it: &&Attachment| it.called == name || it.name == name;
        attachments.iter().rev().find(meant).map(|it| path(&it.name))
    };
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['`', ']']) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let (taken, shown) =
            quoted(from, find).or_else(|| linked(from, find)).unwrap_or_else(|| {
                let first = from.chars().next().map_or(0, char::len_utf8);
                (first, Cow::Borrowed(from.get(..first).unwrap_or_default()))
            });
        out.push_str(&shown);
        rest = from.get(taken..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

/// Reads a name between backticks; returns how much it takes, and what is shown instead.
fn quoted<'t>(
    text: &'t str,
    find: impl Fn(&str) -> Option<String>,
) -> Option<(usize, Cow<'t, str>)> {
    let inside = text.strip_prefix('`')?;
    let (name, _) = inside.split_once('`')?;
    let path = find(name)?;
    Some((name.len() + 2, Cow::Owned(format!("`{path}`"))))
}

/// Reads the target of a link likewise.
fn linked<'t>(
    text: &'t str,
    find: impl Fn(&str) -> Option<String>,
) -> Option<(usize, Cow<'t, str>)> {
    let inside = text.strip_prefix("](")?;
    let (target, length, rest) = match inside.strip_prefix('<') {
        Some(angled) => {
            let (target, rest) = angled.split_once('>')?;
            (target, target.len() + 2, rest)
        }
        None => {
            // A name may have parentheses and blanks in it that no reader of Markdown would take.
            let known = inside.match_indices([')', ' ']).map(|(at, _)| inside.split_at(at));
            let (target, rest) = known.take(64).find(|(target, _)| find(target).is_some())?;
            (target, target.len(), rest)
        }
    };
    let path = find(target)?;
    rest.starts_with([')', ' ']).then_some(())?;
    let needs_angles = path.contains([' ', '(', ')', '<', '>']);
    let path = if needs_angles { format!("<{path}>") } else { path };
    Some((2 + length, Cow::Owned(format!("]({path}"))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn attached(called: &str, others: &[Attachment]) -> Attachment {
        let name = name_for(called, others);
        Attachment { name, called: called.to_owned(), sha256: "0".into(), bytes: 1 }
    }

    fn all(called: &[&str]) -> Vec<Attachment> {
        let mut all = Vec::new();
        for called in called {
            let one = attached(called, &all);
            all.push(one);
        }
        all
    }

    fn names(called: &[&str]) -> Vec<String> {
        all(called).into_iter().map(|it| it.name).collect()
    }

    #[test]
    fn a_name_is_one_harmless_component() {
        assert_eq!(names(&["../x"]), ["x"]);
        assert_eq!(names(&["/etc/passwd", ".."]), ["passwd", "_."]);
        assert_eq!(
            names(&["a\nb", "", "///", " "]),
            ["a_b", "attachment", "attachment-2", "attachment-3"]
        );
        assert_eq!(names(&[".gitignore", "-rf", "a\\b"]), ["_gitignore", "_rf", "a_b"]);
    }

    #[test]
    fn one_name_twice_gets_a_number_in_whatever_case() {
        assert_eq!(names(&["a.png", "A.PNG", "b/a.png"]), ["a.png", "A-2.PNG", "a-3.png"]);
        assert_eq!(names(&["ä", "Ä"]), ["ä", "Ä-2"]);
    }

    #[test]
    fn a_long_name_keeps_its_end_and_its_characters() {
        let long = format!("{}.jpeg", "ü".repeat(200));
        let names = names(&[&long, &long]);
        assert!(names.iter().all(|name| name.len() <= NAME_BYTES && name.ends_with(".jpeg")));
        assert!(names[1].ends_with("-2.jpeg"));
    }

    #[test]
    fn links_lead_to_the_files() {
        let all = all(&["a.png", "b c.txt", "dir/a.png"]);
        let at = |text: &str| with_paths(text, &all, |name| format!("/w/{name}"));
        assert_eq!(at("see ![x](a.png) and `a.png`."), "see ![x](/w/a.png) and `/w/a.png`.");
        assert_eq!(at("[x](./a.png \"title\")"), "[x](/w/a.png \"title\")");
        assert_eq!(at("[x](<b c.txt>) [y](b c.txt)"), "[x](</w/b c.txt>) [y](</w/b c.txt>)");
        assert_eq!(at("![](dir/a.png)"), "![](/w/a-2.png)");
        for same in
            ["a.png", "[x](other.png)", "[x](a.png", "`a.png", "](", "`", "[x](/abs/a.png)", ""]
        {
            assert_eq!(at(same), same);
        }
        let once = at("![x](a.png)");
        assert_eq!(at(&once), once, "done twice it is the same");
    }

    proptest! {
        #[test]
        fn whatever_it_is_called_it_stays_in_its_folder(
            called in proptest::collection::vec("\\PC{0,20}|[./\\\\a-b\n\u{0}]{0,300}", 1..8)
        ) {
            let called: Vec<&str> = called.iter().map(String::as_str).collect();
            let mut seen = std::collections::BTreeSet::new();
            for name in names(&called) {
                prop_assert!(!name.is_empty() && name.len() <= NAME_BYTES, "{name:?}");
                prop_assert!(!name.contains(['/', '\0', '\n']) && !name.starts_with('.'), "{name:?}");
                prop_assert!(seen.insert(name.to_lowercase()), "{name:?} twice");
            }
        }

        #[test]
        fn a_text_without_names_stays_as_it_is(text in "\\PC{0,60}|[`\\]()<> a\n]{0,60}") {
            let all = all(&["picture.png"]);
            prop_assert_eq!(with_paths(&text, &all, |_| "/never".to_owned()), text);
        }
    }
}
