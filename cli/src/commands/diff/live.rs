//! `diff -f`: what an attempt changes, as it changes.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};

use windlass::api::client::Client;
use windlass::core::id::AttemptId;
use windlass::core::locator::Locator;
use windlass::view::{DiffEventKind, DiffEventView, DiffFileView};

use super::{HEAD, line, rows, summary};
use crate::args::OnInterrupt;
use crate::error::CliError;
use crate::follow::{Followed, Follower};
use crate::output::{Output, Style};
use crate::signals::Interrupts;
use crate::table::fitted_table;

/// How many lines of a terminal are not for files: the head, the sum, two remarks, and where the cursor is.
const OTHER_LINES: usize = 5;

/// Follows a diff until it is interrupted.
///
/// # Errors
///
/// The host's; also when the worktree is gone.
pub(super) async fn follow(client: Client, id: AttemptId, output: Output) -> Result<u8, CliError> {
    let mut events = client.follow_diff(id, None);
    let interrupts = Interrupts::new(OnInterrupt::Detach, None);
    let mut follower = Follower::new(client, Vec::new(), interrupts)?;
    let mut sink = match (output.json, io::stdout().is_terminal()) {
        (true, _) => Sink::Json,
        (false, true) => Sink::Screen(Screen::default()),
        (false, false) => Sink::Lines { begun: false },
    };
    loop {
        match follower.watch(events.next()).await? {
            Followed::Done(event) => sink.take(output, event?)?,
            Followed::Detached(code) => return Ok(code),
        }
    }
}

/// Where events go.
enum Sink {
    Json,
    Lines { begun: bool },
    Screen(Screen),
}

impl Sink {
    fn take(&mut self, output: Output, event: DiffEventView) -> Result<(), CliError> {
        match self {
            Self::Json => output.object(&event),
            Self::Lines { begun } => match event.event {
                DiffEventKind::Began { base, branch, .. } => {
                    if std::mem::replace(begun, true) {
                        output.line(&format!("anew {}", against(&base.0, branch.as_deref())))?;
                    }
                    Ok(())
                }
                DiffEventKind::File { file, .. } => output.line(&line(&file)),
                DiffEventKind::Removed { path } => output.line(&format!("- {path}")),
                DiffEventKind::Current { unwatched, .. } => {
                    remark(unwatched).iter().for_each(|remark| output.note(remark));
                    Ok(())
                }
            },
            Self::Screen(screen) => match screen.take(event.event) {
                true => {
                    let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
                    let columns = size.map(|size| usize::from(size.ws_col)).filter(|&n| n > 0);
                    let lines = size.map(|size| usize::from(size.ws_row)).filter(|&n| n > 0);
                    let output = Output { width: columns.or(output.width), ..output };
                    output.bytes(screen.draw(output, lines.unwrap_or(24)).as_bytes())
                }
                false => Ok(()),
            },
        }
    }
}

fn against(base: &str, branch: Option<&str>) -> String {
    let base = base.get(..10).unwrap_or(base);
    format!("against {base}, {}", branch.unwrap_or("on no branch"))
}

fn remark(unwatched: u64) -> Option<String> {
    (unwatched > 0).then(|| {
        format!(
            "{unwatched} directories cannot be watched and are looked at only when something else changes; \
             fs.inotify.max_user_watches is the limit"
        )
    })
}

/// What a terminal shows.
#[derive(Debug, Default)]
struct Screen {
    against: String,
    files: BTreeMap<Locator, DiffFileView>,
    unwatched: u64,
    /// How many lines were drawn last.
    drawn: usize,
}

impl Screen {
    /// Takes in an event; says whether it is time to draw.
    fn take(&mut self, event: DiffEventKind) -> bool {
        match event {
            DiffEventKind::Began { base, branch, .. } => {
                self.files.clear();
                self.against = against(&base.0, branch.as_deref());
                false
            }
            DiffEventKind::File { file, .. } => {
                self.files.insert(file.path.clone(), file);
                false
            }
            DiffEventKind::Removed { path } => {
                self.files.remove(&path);
                false
            }
            DiffEventKind::Current { unwatched, .. } => {
                self.unwatched = unwatched;
                true
            }
        }
    }

    /// Draws over what was drawn before, on a terminal with so many lines.
    fn draw(&mut self, output: Output, lines: usize) -> String {
        let room = lines.saturating_sub(OTHER_LINES).max(1);
        let shown: Vec<_> = self.files.values().take(room).cloned().collect();
        let mut text = match shown.as_slice() {
            [] => String::new(),
            shown => fitted_table(output, &HEAD, &["FILE"], &rows(shown)),
        };
        let mut say = |words: &str, style| {
            let words: String = words.chars().take(output.width.unwrap_or(usize::MAX)).collect();
            text.push_str(&output.paint(style, &words));
            text.push('\n');
        };
        if self.files.len() > room {
            say(&format!("… and {} more", self.files.len() - room), Style::Dim);
        }
        say(&format!("{}; {}", summary(self.files.values()), self.against), Style::Plain);
        if let Some(remark) = remark(self.unwatched) {
            say(&remark, Style::Bad);
        }
        let over = match self.drawn {
            0 => String::new(),
            drawn => format!("\x1b[{drawn}F\x1b[J"),
        };
        self.drawn = text.lines().count();
        over + &text
    }
}

#[cfg(test)]
mod tests {
    use windlass::core::vcs_worktree::ChangeKind;
    use windlass::core::workspace::Oid;

    use super::*;

    const PLAIN: Output =
        Output { json: false, quiet: false, color: false, is_terminal: true, width: Some(40) };

    fn file(path: &str) -> DiffEventKind {
        let file = DiffFileView {
            path: Locator::new(path.as_bytes()),
            old_path: None,
            change: ChangeKind::Modified,
            added: Some(1),
            removed: Some(0),
            mode: None,
            untracked: false,
            too_large: false,
        };
        DiffEventKind::File { file, patch: None }
    }

    fn current(unwatched: u64) -> DiffEventKind {
        DiffEventKind::Current { head: Oid("b".repeat(40)), unwatched }
    }

    #[test]
    fn a_screen_is_drawn_over_what_was_there_and_fits() {
        let mut screen = Screen::default();
        let (base, branch) = (Oid("a".repeat(40)), Some("work".to_owned()));
        assert!(!screen.take(DiffEventKind::Began { generation: 1, base, branch }));
        assert!(screen.take(current(0)));
        assert_eq!(
            screen.draw(PLAIN, 8),
            "0 files changed, 0 lines added, 0 removed"[..40].to_owned() + "\n"
        );
        for number in 0..5 {
            screen.take(file(&format!("{number}-{}", "long".repeat(20))));
        }
        screen.take(DiffEventKind::Removed {
            path: Locator::new("0-".to_owned() + &"long".repeat(20)),
        });
        assert!(screen.take(current(3)));
        let text = screen.draw(PLAIN, 8);
        let lines: Vec<_> = text.strip_prefix("\x1b[1F\x1b[J").unwrap().lines().collect();
        assert_eq!(lines.len(), 7, "{text}");
        assert!(
            lines[1].starts_with("M  +1") && lines[1].contains("1-long") && lines[1].ends_with('…')
        );
        assert_eq!(lines[4], "… and 1 more");
        assert!(lines[6].starts_with("3 directories cannot be watched"));
        assert!(lines.iter().all(|line| line.chars().count() <= 40), "{text}");
        assert!(screen.draw(PLAIN, 8).starts_with("\x1b[7F\x1b[J"));
    }
}
