//! Follows an execution: its output to standard output and error, exactly, until it ends or somebody interrupts.

use std::future::Future;
use std::io::IsTerminal as _;
use std::pin::pin;

use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use windlass::api::Until;
use windlass::api::client::Client;
use windlass::api::resume::LogLines;
use windlass::core::id::ExecutionId;
use windlass::core::log_store::{GapCause, Stream};
use windlass::request::StopTarget;
use windlass::view::{ExecutionView, GapView, LogEntryView};

use crate::error::{Class, CliError};
use crate::output::Output;
use crate::signals::{Decision, Interrupts, Signals};

/// How something that may be interrupted ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Followed<T> {
    /// It came to its end.
    Done(T),
    /// The client leaves with this code; what it followed runs on.
    Detached(u8),
}

/// Follows one or more executions as one client.
#[derive(Debug)]
pub struct Follower {
    client: Client,
    signals: Signals,
    interrupts: Interrupts,
    /// What a stop is asked for.
    targets: Vec<ExecutionId>,
}

impl Follower {
    /// Begins to listen for interruptions.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn new(
        client: Client,
        targets: Vec<ExecutionId>,
        interrupts: Interrupts,
    ) -> Result<Self, CliError> {
        let signals = Signals::new().map_err(|error| CliError::io("listen for signals", &error))?;
        Ok(Self { client, signals, interrupts, targets })
    }

    /// Waits for `work`, and decides about interruptions meanwhile.
    ///
    /// # Errors
    ///
    /// A stop that was wanted could not be asked for.
    pub async fn watch<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> Result<Followed<T>, CliError> {
        let mut work = pin!(work);
        loop {
            let what = tokio::select! {
                biased;
                what = self.signals.next() => what,
                value = &mut work => return Ok(Followed::Done(value)),
            };
            match self.interrupts.decide(what, &mut self.signals).await {
                Decision::Detach(code) => return Ok(Followed::Detached(code)),
                Decision::Stop => {
                    for id in &self.targets {
                        self.client.stop(StopTarget::Execution(*id), None).await?;
                    }
                }
                Decision::GoOn => {}
            }
        }
    }

    /// Writes a log's entries to a sink until the log ends.
    ///
    /// # Errors
    ///
    /// The host's, or the output's.
    pub async fn output(
        &mut self,
        mut lines: LogLines,
        sink: &mut impl Sink,
    ) -> Result<Followed<()>, CliError> {
        loop {
            let entry = match self.watch(lines.next()).await? {
                Followed::Done(entry) => entry?,
                Followed::Detached(code) => return Ok(Followed::Detached(code)),
            };
            let Some(entry) = entry else { break };
            match self.watch(sink.write(&entry)).await? {
                Followed::Done(written) => written?,
                Followed::Detached(code) => return Ok(Followed::Detached(code)),
            }
        }
        match self.watch(sink.finish()).await? {
            Followed::Done(written) => written.map(Followed::Done),
            Followed::Detached(code) => Ok(Followed::Detached(code)),
        }
    }

    /// Waits until an execution is settled.
    ///
    /// # Errors
    ///
    /// The host's.
    pub async fn settled(&mut self, id: ExecutionId) -> Result<Followed<ExecutionView>, CliError> {
        let mut wait = self.client.wait([id], Until::Settled);
        Ok(match self.watch(wait.next()).await? {
            Followed::Done(view) => Followed::Done(view?.ok_or_else(|| {
                CliError::not_found(format!("execution {} not found", id.short()))
            })?),
            Followed::Detached(code) => Followed::Detached(code),
        })
    }
}

/// Where entries of a log go.
pub trait Sink {
    /// Writes one.
    fn write(&mut self, entry: &LogEntryView) -> impl Future<Output = Result<(), CliError>>;

    /// Writes what is left.
    fn finish(&mut self) -> impl Future<Output = Result<(), CliError>>;
}

/// Writes bytes as they were: each stream to its own. Nothing is added but a word about gaps, if that is wanted: at the
/// first of each cause, and about all of them in the end.
#[derive(Debug)]
pub struct Exact<O, E> {
    out: O,
    err: E,
    tells_gaps: bool,
    /// What was written to standard input is shown, too.
    with_input: bool,
    /// A terminal shows it, and its cursor is not at the beginning of a line.
    open: Open,
    /// How many gaps of a cause there were, and their bytes.
    gaps: Vec<(GapCause, u64, u64)>,
}

/// Which of the two outputs are terminals, and whether a line is open there.
#[derive(Clone, Copy, Debug, Default)]
struct Open {
    out_is_terminal: bool,
    err_is_terminal: bool,
    line: bool,
}

impl Open {
    fn wrote(&mut self, is_terminal: bool, bytes: &[u8]) {
        if let (true, Some(last)) = (is_terminal, bytes.last()) {
            self.line = *last != b'\n';
        }
    }
}

impl Exact<tokio::io::Stdout, tokio::io::Stderr> {
    /// Writes to this process's standard output and error.
    #[must_use]
    pub fn standard(tells_gaps: bool) -> Self {
        let open = Open {
            out_is_terminal: std::io::stdout().is_terminal(),
            err_is_terminal: std::io::stderr().is_terminal(),
            line: false,
        };
        Self { open, ..Self::new(tokio::io::stdout(), tokio::io::stderr(), tells_gaps) }
    }
}

impl<O, E> Exact<O, E> {
    fn new(out: O, err: E, tells_gaps: bool) -> Self {
        let (with_input, open, gaps) = (false, Open::default(), Vec::new());
        Self { out, err, tells_gaps, with_input, open, gaps }
    }

    /// Shows what was written to standard input as well, on standard output.
    #[must_use]
    pub fn with_input(self, with_input: bool) -> Self {
        Self { with_input, ..self }
    }

    /// Says whether a terminal shows the beginning of a line that was not ended.
    #[must_use]
    pub fn is_within_a_line(&self) -> bool {
        self.open.line
    }

    /// Counts a gap; returns what to say about it.
    fn count(&mut self, gap: &GapView) -> Option<String> {
        match self.gaps.iter_mut().find(|(cause, ..)| *cause == gap.cause) {
            Some((_, count, bytes)) => {
                *count += 1;
                *bytes += gap.bytes;
                None
            }
            None => {
                self.gaps.push((gap.cause, 1, gap.bytes));
                Some(gap_text(gap))
            }
        }
    }

    /// Says what all gaps come to, where more than the first one was not told.
    fn sums(&self) -> Vec<String> {
        let told = self.gaps.iter().filter(|(_, count, _)| *count > 1);
        told.map(|(cause, count, bytes)| {
            let why = why_missing(*cause);
            format!("[windlass: {bytes} bytes of output are missing in {count} places: {why}]")
        })
        .collect()
    }
}

impl<O, E: AsyncWrite + Unpin> Exact<O, E> {
    async fn say(&mut self, text: &str) -> std::io::Result<()> {
        let line = std::mem::take(&mut self.open.line) && self.open.err_is_terminal;
        let text = format!("{}{text}\n", if line { "\n" } else { "" });
        write_flushed(&mut self.err, text.as_bytes()).await
    }
}

impl<O: AsyncWrite + Unpin, E: AsyncWrite + Unpin> Sink for Exact<O, E> {
    async fn write(&mut self, entry: &LogEntryView) -> Result<(), CliError> {
        let written = match (payload(entry)?, entry) {
            (Some((Stream::Stdin, _)), _) if !self.with_input => Ok(()),
            (Some((Stream::Stderr, bytes)), _) => {
                self.open.wrote(self.open.err_is_terminal, &bytes);
                write_flushed(&mut self.err, &bytes).await
            }
            (Some((Stream::Stdout | Stream::Pty | Stream::Stdin, bytes)), _) => {
                self.open.wrote(self.open.out_is_terminal, &bytes);
                write_flushed(&mut self.out, &bytes).await
            }
            (None, LogEntryView::Gap { gap, .. }) if self.tells_gaps => match self.count(gap) {
                Some(text) => self.say(&text).await,
                None => Ok(()),
            },
            _ => Ok(()),
        };
        written.map_err(|error| CliError::output(&error))
    }

    async fn finish(&mut self) -> Result<(), CliError> {
        for text in self.sums() {
            self.say(&text).await.map_err(|error| CliError::output(&error))?;
        }
        Ok(())
    }
}

async fn write_flushed(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}

/// Writes one JSON object a line.
#[derive(Debug)]
pub struct JsonLines;

impl Sink for JsonLines {
    async fn write(&mut self, entry: &LogEntryView) -> Result<(), CliError> {
        let mut line = serde_json::to_vec(entry)
            .map_err(|error| CliError::output(&std::io::Error::from(error)))?;
        line.push(b'\n');
        write_flushed(&mut tokio::io::stdout(), &line)
            .await
            .map_err(|error| CliError::output(&error))
    }

    async fn finish(&mut self) -> Result<(), CliError> {
        Ok(())
    }
}

/// Writes every line behind the time at which it began.
#[derive(Debug)]
pub struct Timed<O> {
    out: O,
    output: Output,
    /// The stream whose line is open.
    open: Option<Stream>,
}

impl Timed<tokio::io::Stdout> {
    /// Writes to this process's standard output.
    #[must_use]
    pub fn standard(output: Output) -> Self {
        Self { out: tokio::io::stdout(), output, open: None }
    }
}

impl<O: AsyncWrite + Unpin> Sink for Timed<O> {
    async fn write(&mut self, entry: &LogEntryView) -> Result<(), CliError> {
        let mut text = Vec::new();
        let at = match entry {
            LogEntryView::Gap { .. } => None,
            LogEntryView::Text { at, .. } | LogEntryView::Bytes { at, .. } => Some(*at),
        };
        let stream = payload(entry)?;
        if self.open.is_some() && self.open != stream.as_ref().map(|(stream, _)| *stream) {
            text.push(b'\n');
            self.open = None;
        }
        match (entry, stream, at) {
            (LogEntryView::Gap { gap, .. }, _, _) => {
                text.extend_from_slice(gap_text(gap).as_bytes());
                text.push(b'\n');
            }
            (_, Some((stream, bytes)), Some(at)) => {
                for line in bytes.split_inclusive(|&byte| byte == b'\n') {
                    if self.open.is_none() {
                        let mark = match stream {
                            Stream::Stdout | Stream::Pty => " ",
                            Stream::Stderr => "!",
                            Stream::Stdin => "<",
                        };
                        let time = self.output.paint(crate::output::Style::Dim, &at.to_string());
                        text.extend_from_slice(format!("{time} {mark} ").as_bytes());
                    }
                    text.extend_from_slice(line);
                    self.open = (!line.ends_with(b"\n")).then_some(stream);
                }
            }
            _ => {}
        }
        write_flushed(&mut self.out, &text).await.map_err(|error| CliError::output(&error))
    }

    async fn finish(&mut self) -> Result<(), CliError> {
        if self.open.take().is_some() {
            let written = write_flushed(&mut self.out, b"\n").await;
            return written.map_err(|error| CliError::output(&error));
        }
        Ok(())
    }
}

fn payload(entry: &LogEntryView) -> Result<Option<(Stream, bytes::Bytes)>, CliError> {
    entry.payload().map_err(|error| {
        CliError::new(
            Class::Failed,
            "protocol",
            format!("the host sent an entry that is no base64: {error}"),
            "use the host's version of windlass",
        )
    })
}

fn why_missing(cause: GapCause) -> &'static str {
    match cause {
        GapCause::Cap => "more than the log keeps",
        GapCause::Full => "the disk was full",
        GapCause::Dropped => "dropped on request",
        GapCause::Power => "lost with the machine or the shim, or damaged",
    }
}

/// Says what is missing.
#[must_use]
pub fn gap_text(gap: &GapView) -> String {
    let why = why_missing(gap.cause);
    if gap.bytes == 0 {
        // What was lost without being counted.
        return format!("[windlass: output is missing here: {why}]");
    }
    format!("[windlass: {} bytes of output are missing here: {why}]", gap.bytes)
}

#[cfg(test)]
mod tests {
    use windlass::core::time::Timestamp;
    use windlass::view::Time;

    use super::*;

    fn entry(stream: Stream, text: &str) -> LogEntryView {
        LogEntryView::Text {
            seq: 1,
            at: Time(Timestamp(0)),
            stream,
            text: text.to_owned(),
            partial: !text.ends_with('\n'),
            secret_bytes: None,
        }
    }

    #[test]
    fn a_gap_of_unknown_size_gives_no_number() {
        let gap = GapView { first_seq: 1, last_seq: Some(3), bytes: 0, cause: GapCause::Power };
        assert_eq!(
            gap_text(&gap),
            "[windlass: output is missing here: lost with the machine or the shim, or damaged]"
        );
    }

    const PLAIN: Output =
        Output { json: false, quiet: false, color: false, is_terminal: false, width: None };

    #[tokio::test]
    async fn each_stream_goes_to_its_own_exactly() {
        let mut sink = Exact::new(Vec::new(), Vec::new(), true);
        let binary = LogEntryView::Bytes {
            seq: 3,
            at: Time(Timestamp(0)),
            stream: Stream::Stdout,
            bytes: "/wA=".to_owned(),
            partial: true,
        };
        let gap = GapView { first_seq: 4, last_seq: Some(5), bytes: 7, cause: GapCause::Cap };
        for entry in [
            entry(Stream::Stdout, "out\n"),
            entry(Stream::Stderr, "err"),
            entry(Stream::Stdin, "typed\n"),
            binary,
            LogEntryView::Gap { seq: 5, gap },
        ] {
            sink.write(&entry).await.unwrap();
        }
        assert_eq!(sink.out, b"out\n\xff\0");
        assert_eq!(sink.err.split(|&b| b == b'[').next(), Some(&b"err"[..]));
        assert!(sink.err.ends_with(b"more than the log keeps]\n"));
    }

    #[tokio::test]
    async fn gaps_of_one_cause_are_told_at_the_first_and_in_the_end() {
        let mut sink = Exact::new(Vec::new(), Vec::new(), true);
        sink.open = Open { out_is_terminal: true, err_is_terminal: true, line: false };
        sink.write(&entry(Stream::Stdout, "begun")).await.unwrap();
        assert!(sink.is_within_a_line());
        for seq in 2..82 {
            let gap =
                GapView { first_seq: seq, last_seq: Some(seq), bytes: 10, cause: GapCause::Full };
            sink.write(&LogEntryView::Gap { seq, gap }).await.unwrap();
        }
        sink.finish().await.unwrap();
        assert!(!sink.is_within_a_line());
        let expected = "\n[windlass: 10 bytes of output are missing here: the disk was full]\n\
            [windlass: 800 bytes of output are missing in 80 places: the disk was full]\n";
        assert_eq!(String::from_utf8(sink.err).unwrap(), expected);
    }

    #[tokio::test]
    async fn what_was_typed_is_shown_on_request() {
        let mut sink = Exact::new(Vec::new(), Vec::new(), true).with_input(true);
        sink.write(&entry(Stream::Stdin, "typed\n")).await.unwrap();
        assert_eq!(sink.out, b"typed\n");
    }

    #[tokio::test]
    async fn times_stand_before_lines_and_streams_do_not_share_one() {
        let mut sink = Timed { out: Vec::new(), output: PLAIN, open: None };
        for entry in [
            entry(Stream::Stdout, "a\nb"),
            entry(Stream::Stdout, "c\n"),
            entry(Stream::Stdout, "d"),
            entry(Stream::Stderr, "e"),
        ] {
            sink.write(&entry).await.unwrap();
        }
        sink.finish().await.unwrap();
        let time = "1970-01-01T00:00:00.000Z";
        let expected = format!("{time}   a\n{time}   bc\n{time}   d\n{time} ! e\n");
        assert_eq!(String::from_utf8(sink.out).unwrap(), expected);
    }
}
