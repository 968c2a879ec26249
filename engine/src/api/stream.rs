//! Streams of JSON lines: logs, searches, events, waits.
//!
//! Each is a reader with a cursor that produces the next chunk when the client has taken the last one, so a slow client
//! costs one chunk. Nothing is broadcast.

use std::convert::Infallible;
use std::future::Future;

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use bytes::{Bytes, BytesMut};
use futures::stream::{FuturesUnordered, StreamExt as _};
use futures::{FutureExt as _, Stream};
use regex::bytes::Regex;
use tokio::sync::watch;
use windlass_core::id::{AttemptId, ExecutionId};
use windlass_core::log_store::{From as LogFrom, LogItem, ReadOptions, Seq, Stream as LogStream};
use windlass_core::process_store::{Change, Cursor};
use windlass_core::record::Phase;

use super::error::{ApiError, json_line};
use super::lines::{Line, Lines};
use super::{LogQuery, Until};
use crate::error::EngineError;
use crate::handle::{Events, Handle, ListFilter, State};
use crate::request::Caller;
use crate::view::{ChangeView, ExecutionContext, ExecutionView, LogEntryView, SearchHitView};

/// How much of a log is read for one chunk.
const PAGE_ITEMS: u32 = 256;
const PAGE_BYTES: u64 = 256 << 10;

/// Makes the next chunk of a stream; `None` ends it.
pub(super) trait Reader: Send + 'static {
    /// Returns the next chunk; never an empty one.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, ApiError>> + Send;
}

/// Answers with a stream of lines. An error on the way is the last line; so is the word that the host leaves.
pub(super) fn respond<R: Reader>(reader: R, closing: watch::Receiver<bool>) -> Response {
    let body = Body::from_stream(chunks(reader, closing));
    ([(CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

fn chunks<R: Reader>(
    reader: R,
    closing: watch::Receiver<bool>,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    futures::stream::unfold(Some((reader, closing)), |state| async move {
        let (mut reader, mut closing) = state?;
        let next = tokio::select! {
            biased;
            next = reader.next() => next,
            // The sender is gone only when the server is.
            _ = closing.wait_for(|&is_closing| is_closing) => Err(ApiError::closing()),
        };
        match next {
            Ok(None) => None,
            Ok(Some(chunk)) => Some((Ok(chunk), Some((reader, closing)))),
            Err(error) => Some((Ok(error.line()), None)),
        }
    })
}

/// Compiles a client's regular expression.
pub(super) fn pattern(text: &str) -> Result<Regex, ApiError> {
    regex::bytes::RegexBuilder::new(text).size_limit(1 << 20).build().map_err(|error| {
        let (message, hint) = match &error {
            regex::Error::CompiledTooBig(_) => (
                "the regular expression stands for too much".to_owned(),
                "repeat less: every {n} counts as often as it says",
            ),
            // It shows the place.
            _ => (
                format!("the regular expression is not valid: {error}"),
                r"mend it at the mark; a \ before a character takes it as it is, as in 'f\(x\)'",
            ),
        };
        ApiError::new(StatusCode::BAD_REQUEST, "invalid", message, Some(hint))
    })
}

/// Reads a log from a cursor on.
#[derive(Debug)]
pub(super) struct LogReader {
    handle: Handle,
    caller: Caller,
    id: ExecutionId,
    from: LogFrom,
    filter: LogFilter,
    follow: bool,
    done: bool,
}

/// What of a log is shown.
#[derive(Debug)]
struct LogFilter {
    left: u64,
    since_ms: u64,
    /// Nothing after this number; `None` is not known yet.
    until: Option<Seq>,
    stream: Option<LogStream>,
    output: bool,
    grep: Option<(Regex, Lines)>,
}

impl LogReader {
    pub(super) fn new(
        handle: Handle,
        caller: Caller,
        id: ExecutionId,
        query: &LogQuery,
    ) -> Result<Self, ApiError> {
        let grep = query.grep.as_deref().map(pattern).transpose()?;
        let from = match query.tail {
            Some(count) if query.after == 0 => LogFrom::Tail(count),
            _ => LogFrom::After(Seq(query.after)),
        };
        let filter = LogFilter {
            left: query.limit.unwrap_or(u64::MAX),
            since_ms: query.since_ms.unwrap_or(0),
            until: query.follow.then_some(Seq(u64::MAX)),
            stream: query.stream,
            output: query.output,
            grep: grep.map(|regex| (regex, Lines::default())),
        };
        let done = query.limit == Some(0) || query.tail == Some(0) && !query.follow;
        Ok(Self { handle, caller, id, from, filter, follow: query.follow, done })
    }
}

impl Reader for LogReader {
    async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        let mut chunk = BytesMut::new();
        if self.filter.until.is_none() {
            // What is written from now on is for followers; else a quick writer would never let it end.
            let last = ReadOptions { from: LogFrom::Tail(1), max_items: 1, max_bytes: 1 };
            let is_final =
                self.handle.execution(&self.caller, self.id).await?.phase == Phase::Final;
            let page = self.handle.log_page(&self.caller, self.id, last).await?;
            // To one that is final nothing is added, and what its log lacks is behind its last entry.
            self.filter.until = Some(if is_final { Seq(u64::MAX) } else { page.next });
        }
        while chunk.is_empty() && !self.done {
            let options =
                ReadOptions { from: self.from, max_items: PAGE_ITEMS, max_bytes: PAGE_BYTES };
            let page = self.handle.log_page(&self.caller, self.id, options).await?;
            let within = page.items.iter().all(|item| self.filter.push(item, &mut chunk));
            self.from = LogFrom::After(page.next);
            if page.end || !within {
                self.filter.finish(&mut chunk);
                self.done = true;
            } else if page.items.is_empty() {
                if self.follow {
                    self.handle.log_grown(&self.caller, self.id, page.next).await?;
                } else {
                    self.filter.finish(&mut chunk);
                    self.done = true;
                }
            }
        }
        Ok((!chunk.is_empty()).then(|| chunk.freeze()))
    }
}

impl LogFilter {
    /// Adds what is to be shown of an item; says whether more may be.
    fn push(&mut self, item: &LogItem, chunk: &mut BytesMut) -> bool {
        if self.until.is_some_and(|until| item.first_seq() > until) {
            return false;
        }
        if let LogItem::Entry { at, stream, .. } = item
            && (at.0 < self.since_ms
                || self.stream.is_some_and(|wanted| wanted != *stream)
                || self.output && *stream == LogStream::Stdin)
        {
            return true;
        }
        let Some((_, lines)) = &mut self.grep else {
            return self.add(&LogEntryView::new(item), chunk);
        };
        let mut complete = Vec::new();
        lines.push(item, &mut complete);
        self.add_matching(complete, chunk)
    }

    /// Adds what is to be shown of lines that will not go on.
    fn finish(&mut self, chunk: &mut BytesMut) {
        if let Some((_, lines)) = &mut self.grep {
            let left = lines.finish();
            self.add_matching(left, chunk);
        }
    }

    fn add_matching(&mut self, complete: Vec<Line>, chunk: &mut BytesMut) -> bool {
        let Some((regex, _)) = &self.grep else {
            return true;
        };
        let matching: Vec<_> =
            complete.into_iter().filter(|line| regex.is_match(&line.bytes)).collect();
        matching.iter().all(|line| self.add(&line_view(line), chunk))
    }

    fn add(&mut self, entry: &LogEntryView, chunk: &mut BytesMut) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        chunk.extend_from_slice(&json_line(entry));
        self.left > 0
    }
}

/// Returns a line as an entry, its newline included.
fn line_view(line: &Line) -> LogEntryView {
    let mut bytes = BytesMut::from(line.bytes.as_ref());
    bytes.extend_from_slice(b"\n");
    let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let Line { seq, at, stream, .. } = *line;
    LogEntryView::new(&LogItem::Entry {
        seq,
        at,
        stream,
        partial: false,
        bytes: bytes.freeze(),
        len,
    })
}

/// Searches all logs, the newest execution's first.
#[derive(Debug)]
pub(super) struct SearchReader {
    handle: Handle,
    caller: Caller,
    regex: Regex,
    filter: ListFilter,
    todo: std::collections::VecDeque<(ExecutionId, AttemptId)>,
    current: Option<(ExecutionId, AttemptId, Seq, Lines)>,
    listed_all: bool,
}

impl SearchReader {
    pub(super) fn new(
        handle: Handle,
        caller: Caller,
        regex: &str,
        attempt: Option<AttemptId>,
    ) -> Result<Self, ApiError> {
        let filter = ListFilter { all: true, attempt, limit: Some(100), ..ListFilter::default() };
        let (todo, current) = (std::collections::VecDeque::new(), None);
        let regex = pattern(regex)?;
        Ok(Self { handle, caller, regex, filter, todo, current, listed_all: false })
    }

    /// Goes on to the next execution; says whether there is one.
    async fn advance(&mut self) -> Result<bool, ApiError> {
        if self.todo.is_empty() && !self.listed_all {
            let records = self.handle.executions(&self.caller, self.filter.clone()).await?;
            self.listed_all = records.len() < 100;
            self.filter.after =
                records.last().map(|last| Cursor { at: last.created_at, id: last.id.0 });
            self.todo = records.into_iter().map(|record| (record.id, record.attempt)).collect();
        }
        let Some((id, attempt)) = self.todo.pop_front() else {
            return Ok(false);
        };
        self.current = Some((id, attempt, Seq(0), Lines::default()));
        Ok(true)
    }
}

impl Reader for SearchReader {
    async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        let mut chunk = BytesMut::new();
        while chunk.is_empty() {
            let Some((id, attempt, seq, mut lines)) = self.current.take() else {
                if self.advance().await? {
                    continue;
                }
                return Ok(None);
            };
            let options = ReadOptions {
                from: LogFrom::After(seq),
                max_items: PAGE_ITEMS,
                max_bytes: PAGE_BYTES,
            };
            let page = match self.handle.log_page(&self.caller, id, options).await {
                Ok(page) => page,
                // It was removed meanwhile.
                Err(EngineError::NotFound { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            let mut complete = Vec::new();
            for item in page.items.iter() {
                lines.push(item, &mut complete);
            }
            if page.end || page.items.is_empty() {
                complete.extend(lines.finish());
            } else {
                self.current = Some((id, attempt, page.next, lines));
            }
            for line in complete.iter().filter(|line| self.regex.is_match(&line.bytes)) {
                let line = line_view(line);
                let hit = SearchHitView { execution_id: id, attempt_id: attempt, line };
                chunk.extend_from_slice(&json_line(&hit));
            }
        }
        Ok(Some(chunk.freeze()))
    }
}

/// Reads what there is, if that is wanted, and then what changes.
#[derive(Debug)]
pub(super) struct EventReader {
    pub(super) state: Option<State>,
    pub(super) events: Events,
    pub(super) follow: bool,
}

impl Reader for EventReader {
    async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        let mut chunk = BytesMut::new();
        let mut add =
            |change: &Change| chunk.extend_from_slice(&json_line(&ChangeView::from(change)));
        if let Some(state) = &mut self.state {
            if let Some(page) = state.next().await? {
                page.iter().for_each(add);
                return Ok(Some(chunk.freeze()));
            }
            self.state = None;
        }
        let page = if self.follow {
            self.events.next().await?
        } else {
            match self.events.so_far().await? {
                Some(page) => page,
                None => return Ok(None),
            }
        };
        page.iter().for_each(&mut add);
        Ok(Some(chunk.freeze()))
    }
}

/// Looks at executions once; one line for each that is done.
#[derive(Debug)]
pub(super) struct DoneReader {
    pub(super) handle: Handle,
    pub(super) caller: Caller,
    pub(super) until: Until,
    pub(super) left: std::collections::VecDeque<ExecutionId>,
}

impl Reader for DoneReader {
    async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        while let Some(id) = self.left.pop_front() {
            let settled = self.until == Until::Settled;
            if let Some(record) = self.handle.done_by_now(&self.caller, id, settled).await? {
                let view = ExecutionView::new(&record, ExecutionContext::default());
                return Ok(Some(json_line(&view)));
            }
        }
        Ok(None)
    }
}

type Wait = futures::future::BoxFuture<'static, Result<Bytes, ApiError>>;

/// Waits for executions; one line for each as it is done.
pub(super) struct WaitReader {
    waits: FuturesUnordered<Wait>,
}

impl WaitReader {
    pub(super) fn new(handle: &Handle, caller: &Caller, ids: &[ExecutionId], until: Until) -> Self {
        let wait = |id: ExecutionId| {
            let (handle, caller) = (handle.clone(), caller.clone());
            async move {
                let record = match until {
                    Until::Ended => handle.ended(&caller, id).await?,
                    Until::Settled => handle.settled(&caller, id).await?,
                };
                Ok(json_line(&ExecutionView::new(&record, ExecutionContext::default())))
            }
            .boxed()
        };
        Self { waits: ids.iter().copied().map(wait).collect() }
    }
}

impl Reader for WaitReader {
    async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        self.waits.next().await.transpose()
    }
}

#[cfg(test)]
mod tests {
    use windlass_core::time::Timestamp;

    use super::*;

    fn entry(seq: u64, text: &str) -> LogItem {
        LogItem::Entry {
            seq: Seq(seq),
            at: Timestamp(seq * 10),
            stream: LogStream::Stdout,
            partial: false,
            bytes: Bytes::copy_from_slice(text.as_bytes()),
            len: text.len() as u64,
        }
    }

    fn show(mut filter: LogFilter, items: &[LogItem]) -> Vec<u64> {
        let mut chunk = BytesMut::new();
        if items.iter().all(|item| filter.push(item, &mut chunk)) {
            filter.finish(&mut chunk);
        }
        let views = serde_json::Deserializer::from_slice(&chunk).into_iter::<LogEntryView>();
        views.map(|view| view.unwrap().seq()).collect()
    }

    fn filter() -> LogFilter {
        LogFilter {
            left: u64::MAX,
            since_ms: 0,
            until: Some(Seq(u64::MAX)),
            stream: None,
            output: false,
            grep: None,
        }
    }

    #[test]
    fn limits_times_and_patterns_select() {
        let items = [entry(1, "a\n"), entry(2, "b\n"), entry(3, "ab\n"), entry(4, "a")];
        assert_eq!(show(filter(), &items), [1, 2, 3, 4]);
        assert_eq!(show(LogFilter { left: 2, ..filter() }, &items), [1, 2]);
        assert_eq!(
            show(LogFilter { since_ms: 20, until: Some(Seq(3)), ..filter() }, &items),
            [2, 3]
        );
        assert_eq!(show(LogFilter { stream: Some(LogStream::Stderr), ..filter() }, &items), [0; 0]);
        let grep = Some((pattern("^a").unwrap(), Lines::default()));
        assert_eq!(show(LogFilter { grep, ..filter() }, &items), [1, 3, 4]);
    }

    #[test]
    fn a_bad_pattern_is_the_clients_fault() {
        assert_eq!(pattern("(").unwrap_err().view.kind, "invalid");
    }

    struct Never;

    impl Reader for Never {
        async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
            std::future::pending().await
        }
    }

    #[tokio::test]
    async fn a_stream_ends_with_a_word_when_the_host_leaves() {
        let (closing, seen) = watch::channel(false);
        let stream = chunks(Never, seen);
        closing.send(true).unwrap();
        let lines: Vec<_> = stream.collect().await;
        assert_eq!(lines.len(), 1);
        let text = String::from_utf8_lossy(lines[0].as_ref().unwrap()).into_owned();
        assert!(text.starts_with(r#"{"error":{"kind":"closing""#), "{text}");
    }
}
