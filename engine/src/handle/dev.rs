//! Dev servers: the script that a project has for them, and when one is ready.

use std::pin::pin;

use futures::future::{self, Either};
use regex::bytes::{Regex, RegexBuilder};
use windlass_core::id::{AttemptId, ExecutionId};
use windlass_core::log_store::{From, LogItem, ReadOptions, Seq, Stream};
use windlass_core::record::Phase;

use super::Handle;
use crate::error::{EngineError, RefusalCode};
use crate::host::records::{read_project, read_task};
use crate::request::Caller;

/// How an execution is known to be ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadyCheck {
    /// A process of it listens on this TCP port.
    Port(u16),
    /// A line of its output matches this regular expression.
    Pattern(String),
}

/// Whether an execution became ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It did.
    Ready {
        /// The line that says so, as far as it was written, where a pattern was looked for.
        line: Option<String>,
    },
    /// It ended before.
    Ended,
}

impl Handle {
    /// Returns the script of the project that an attempt belongs to: that of its task, else the one that has its repository.
    ///
    /// # Errors
    ///
    /// [`EngineError::NotFound`]; [`EngineError::Refused`] where there is no project with a script, or no telling which.
    pub async fn dev_script(
        &self,
        caller: &Caller,
        attempt: AttemptId,
    ) -> Result<String, EngineError> {
        let record = self.attempt(caller, attempt).await?;
        let short = attempt.short();
        let none = |reason: String| EngineError::refused(RefusalCode::NoDevScript, reason);
        let missing = |name: &str| none(format!("project {name} has no script for a dev server"));
        if let Some(task) = record.task {
            let (task, _) = read_task(&self.ports, None, task).await?;
            let (project, _) = read_project(&self.ports, None, task.project).await?;
            return project.defaults.dev.ok_or_else(|| missing(&project.name));
        }
        let repo = record.workspace.worktree().map(|worktree| worktree.repo.clone());
        let mut found = self.projects(caller).await?;
        found.retain(|project| Some(&project.record.git_dir) == repo.as_ref());
        match found.as_slice() {
            [] => Err(none(format!("{short} belongs to no project, so that there is no script"))),
            [one] => one.record.defaults.dev.clone().ok_or_else(|| missing(&one.record.name)),
            [_, _, ..] => Err(none(format!("several projects have the repository of {short}"))),
        }
    }

    /// Waits until an execution is ready, or has ended.
    ///
    /// # Errors
    ///
    /// [`EngineError::NotFound`]; [`EngineError::Invalid`] for a bad pattern; [`EngineError::Refused`] where nobody can tell
    /// who listens on a port; [`EngineError::Closing`] if the host leaves before.
    pub async fn ready(
        &self,
        caller: &Caller,
        id: ExecutionId,
        check: &ReadyCheck,
    ) -> Result<Readiness, EngineError> {
        match check {
            ReadyCheck::Port(port) => {
                let listens = pin!(self.listens(caller, id, *port));
                match future::select(listens, pin!(self.ended(caller, id))).await {
                    Either::Left((readiness, _)) => readiness,
                    Either::Right((ended, _)) => ended.map(|_| Readiness::Ended),
                }
            }
            ReadyCheck::Pattern(pattern) => {
                let says = pin!(self.says(caller, id, LineWatch::new(pattern)?));
                match future::select(says, pin!(self.ended(caller, id))).await {
                    Either::Left((readiness, _)) => readiness,
                    // What it wrote in the end counts, too.
                    Either::Right((Ok(_), says)) => says.await,
                    Either::Right((Err(error), _)) => Err(error),
                }
            }
        }
    }

    async fn listens(
        &self,
        caller: &Caller,
        id: ExecutionId,
        port: u16,
    ) -> Result<Readiness, EngineError> {
        let Some(listeners) = self.listeners.clone() else {
            let reason = "this engine's backend does not tell who listens on a port";
            return Err(EngineError::refused(RefusalCode::NotListened, reason));
        };
        let record = self.started(caller, id).await?;
        match record.place {
            Some(place) if record.phase < Phase::Ended => {
                listeners.listens(id, &place, port).await?;
                Ok(Readiness::Ready { line: None })
            }
            Some(_) | None => Ok(Readiness::Ended),
        }
    }

    /// Follows a log until a line of it matches.
    async fn says(
        &self,
        caller: &Caller,
        id: ExecutionId,
        mut watch: LineWatch,
    ) -> Result<Readiness, EngineError> {
        let mut after = Seq(0);
        loop {
            let from = From::After(after);
            let options = ReadOptions { from, max_items: 256, max_bytes: 1 << 20 };
            let page = self.log_page(caller, id, options).await?;
            if let Some(line) = page.items.iter().find_map(|item| watch.push(item)) {
                return Ok(Readiness::Ready { line: Some(line) });
            }
            if page.end {
                return Ok(Readiness::Ended);
            }
            after = page.next;
            if page.items.is_empty() {
                self.log_grown(caller, id, after).await?;
            }
        }
    }
}

/// The most of a line that is looked at.
const LINE_BYTES: usize = 64 << 10;

/// Looks for a line that matches, over the borders of entries. One that has no end yet counts as far as it goes.
#[derive(Debug)]
struct LineWatch {
    pattern: Regex,
    /// The lines that have begun.
    begun: Vec<(Stream, Vec<u8>)>,
}

impl LineWatch {
    fn new(pattern: &str) -> Result<Self, EngineError> {
        let built = RegexBuilder::new(pattern).size_limit(1 << 20).build();
        let pattern = built.map_err(|error| EngineError::Invalid {
            reason: format!("{pattern:?} is no regular expression: {error}"),
        })?;
        Ok(Self { pattern, begun: Vec::new() })
    }

    /// Takes an item of a log; returns the line that matches.
    fn push(&mut self, item: &LogItem) -> Option<String> {
        let LogItem::Entry { stream, bytes, .. } = item else {
            // What is missing may have held the rest of them.
            self.begun.clear();
            return None;
        };
        if *stream == Stream::Stdin {
            return None;
        }
        let begun = self.begun.iter().position(|(of, _)| of == stream);
        let mut line = begun.map(|at| self.begun.swap_remove(at).1).unwrap_or_default();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(piece.strip_suffix(b"\n").unwrap_or(piece));
            if self.pattern.is_match(&line) {
                return Some(String::from_utf8_lossy(&line).trim().to_owned());
            }
            if piece.ends_with(b"\n") {
                line.clear();
            } else if line.len() > LINE_BYTES {
                line.drain(..line.len() - LINE_BYTES / 2);
            }
        }
        if !line.is_empty() {
            self.begun.push((*stream, line));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use windlass_core::log_store::GapCause;
    use windlass_core::time::Timestamp;

    use super::*;

    fn entry(stream: Stream, text: &str) -> LogItem {
        LogItem::Entry {
            seq: Seq(1),
            at: Timestamp(1),
            stream,
            partial: !text.ends_with('\n'),
            bytes: Bytes::copy_from_slice(text.as_bytes()),
            len: text.len() as u64,
        }
    }

    /// Feeds items; returns the number of the one that tells, and the line.
    fn told(pattern: &str, items: &[LogItem]) -> Option<(usize, String)> {
        let mut watch = LineWatch::new(pattern).unwrap();
        items.iter().enumerate().find_map(|(n, item)| Some((n, watch.push(item)?)))
    }

    #[test]
    fn a_line_is_found_over_the_borders_of_entries_and_streams_do_not_mix() {
        let items = [
            entry(Stream::Stdout, "starting\nlist"),
            entry(Stream::Stderr, "ening on nothing\n"),
            entry(Stream::Stdin, "ening on nothing\n"),
            entry(Stream::Stdout, "ening on 80"),
            entry(Stream::Stdout, "80\n"),
        ];
        assert_eq!(told(r"listening on \d+", &items), Some((3, "listening on 80".to_owned())));
        assert_eq!(told("^listening on 8080$", &items), Some((4, "listening on 8080".to_owned())));
        assert_eq!(told("starting\\s*listening", &items), None);
    }

    #[test]
    fn what_is_missing_joins_nothing() {
        let (first, last, bytes) = (Seq(2), Some(Seq(3)), 9);
        let gap = LogItem::Gap { first, last, bytes, cause: GapCause::Cap };
        let items = [entry(Stream::Stdout, "re"), gap, entry(Stream::Stdout, "ady\n")];
        assert_eq!(told("ready", &items), None);
    }

    #[test]
    fn a_line_without_end_is_bounded_and_still_matches_where_it_goes_on() {
        let mut items = vec![entry(Stream::Stdout, &"x".repeat(50 << 10)); 40];
        items.push(entry(Stream::Stdout, "ready"));
        let mut watch = LineWatch::new("ready").unwrap();
        let found = items.iter().filter(|item| watch.push(item).is_some()).count();
        assert_eq!(found, 1);
        let mut watch = LineWatch::new("never").unwrap();
        for item in &items {
            watch.push(item);
            assert!(watch.begun.iter().all(|(_, line)| line.len() <= LINE_BYTES));
        }
    }

    #[test]
    fn what_is_no_regular_expression_is_refused() {
        assert!(matches!(LineWatch::new("("), Err(EngineError::Invalid { .. })));
    }
}
