//! Streams of the API as their client sees them: JSON lines, and what goes on at its cursor after a loss.

use std::collections::BTreeSet;
use std::marker::PhantomData;

use bytes::{Buf as _, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use uuid::Uuid;
use windlass_core::id::ExecutionId;

use super::client::{Client, ClientError};
use super::{EventsQuery, LogQuery, Until, with_query};
use crate::view::{ChangeView, ErrorBody, ExecutionView, LogEntryView};

/// The longest line of a stream: the patch of the largest file, every byte of it escaped, and then some.
const MAX_LINE_BYTES: usize = 32 << 20;

/// A stream of JSON lines.
#[derive(Debug)]
pub struct Lines<T> {
    body: Incoming,
    buffer: BytesMut,
    /// How much of the buffer is known to hold no newline.
    scanned: usize,
    kind: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Lines<T> {
    pub(super) fn new(body: Incoming) -> Self {
        Self { body, buffer: BytesMut::new(), scanned: 0, kind: PhantomData }
    }

    /// Returns the next object; `None` after the last one.
    ///
    /// # Errors
    ///
    /// [`ClientError`]; the stream has then ended.
    ///
    /// # Cancel safety
    ///
    /// May be dropped; nothing is lost.
    pub async fn next(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            let end = self.buffer[self.scanned..].iter().position(|&byte| byte == b'\n');
            if let Some(end) = end {
                let line = self.buffer.split_to(self.scanned + end);
                self.buffer.advance(1);
                self.scanned = 0;
                return parse(&line).map(Some);
            }
            self.scanned = self.buffer.len();
            if self.scanned > MAX_LINE_BYTES {
                return Err(ClientError::Protocol { reason: "a line is too long".to_owned() });
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(ClientError::lost(error)),
                None if self.buffer.is_empty() => return Ok(None),
                None => {
                    return Err(ClientError::Lost { reason: "it broke off".to_owned() });
                }
            }
        }
    }
}

fn parse<T: DeserializeOwned>(line: &[u8]) -> Result<T, ClientError> {
    if line.starts_with(br#"{"error":"#)
        && let Ok(body) = serde_json::from_slice::<ErrorBody>(line)
    {
        return Err(ClientError::Api { status: 200, view: body.error });
    }
    serde_json::from_slice(line).map_err(|error| ClientError::protocol(&error))
}

/// How often a stream that had begun may break off, one time after the other, before anything comes. Each of them was a host
/// that answered, so that more of them are survived than of requests that nobody answers; a host that dies of what it is
/// asked is not asked for ever.
const LOSSES: u32 = 32;

/// Counts a loss; gives up when too many came one after the other. A host that leaves in order is none: the next one goes
/// on, however many follow each other while nothing is to be told.
pub(super) fn survive(error: ClientError, losses: &mut u32) -> Result<(), ClientError> {
    if matches!(&error, ClientError::Api { view, .. } if view.kind == "closing") {
        *losses = 0;
        return Ok(());
    }
    *losses += 1;
    if error.is_lost() && *losses < LOSSES { Ok(()) } else { Err(error) }
}

/// A log's entries. A connection that is lost is made again, and the log read on from where it was.
#[derive(Debug)]
pub struct LogLines {
    client: Client,
    id: ExecutionId,
    query: LogQuery,
    lines: Option<Lines<LogEntryView>>,
    seen: u64,
    losses: u32,
}

impl LogLines {
    pub(super) fn new(client: Client, id: ExecutionId, query: LogQuery) -> Self {
        Self { client, id, query, lines: None, seen: 0, losses: 0 }
    }

    /// Returns the next entry or gap; `None` after the last one.
    ///
    /// # Errors
    ///
    /// [`ClientError`]. A log that is searched for a pattern is not read on after a loss: where it was is not known.
    ///
    /// # Cancel safety
    ///
    /// May be dropped; nothing is lost.
    pub async fn next(&mut self) -> Result<Option<LogEntryView>, ClientError> {
        loop {
            let lines = match &mut self.lines {
                Some(lines) => lines,
                None => {
                    let path =
                        with_query(&format!("/v1/executions/{}/log", self.id), &self.pairs());
                    self.lines.insert(self.client.lines(&path).await?)
                }
            };
            match lines.next().await {
                Ok(Some(entry)) => {
                    self.losses = 0;
                    self.seen += 1;
                    self.query.after = entry.seq();
                    self.query.limit = self.query.limit.map(|limit| limit.saturating_sub(1));
                    return Ok(Some(entry));
                }
                Ok(None) => return Ok(None),
                Err(error) => {
                    if self.query.grep.is_some() && self.seen > 0 {
                        return Err(error);
                    }
                    survive(error, &mut self.losses)?;
                    self.lines = None;
                }
            }
        }
    }

    fn pairs(&self) -> Vec<(&'static str, String)> {
        let LogQuery { after, tail, limit, since_ms, stream, output, grep, follow } = &self.query;
        let mut pairs = vec![("after", after.to_string()), ("follow", follow.to_string())];
        pairs.extend(output.then(|| ("output", output.to_string())));
        pairs.extend(tail.map(|tail| ("tail", tail.to_string())));
        pairs.extend(limit.map(|limit| ("limit", limit.to_string())));
        pairs.extend(since_ms.map(|ms| ("since_ms", ms.to_string())));
        pairs.extend(grep.as_ref().map(|grep| ("grep", grep.clone())));
        if let Some(stream) = stream
            && let Ok(serde_json::Value::String(word)) = serde_json::to_value(stream)
        {
            pairs.push(("stream", word));
        }
        pairs
    }
}

/// Returns the query of a wait.
pub(super) fn wait_pairs<'a>(
    ids: impl IntoIterator<Item = &'a ExecutionId>,
    until: Until,
) -> Vec<(&'static str, String)> {
    let ids: Vec<_> = ids.into_iter().map(ToString::to_string).collect();
    let until = match until {
        Until::Ended => "ended",
        Until::Settled => "settled",
    };
    vec![("ids", ids.join(",")), ("until", until.to_owned())]
}

/// Executions as they are done. A connection that is lost is made again for those that are left.
#[derive(Debug)]
pub struct WaitLines {
    client: Client,
    left: BTreeSet<ExecutionId>,
    until: Until,
    lines: Option<Lines<ExecutionView>>,
    losses: u32,
}

impl WaitLines {
    pub(super) fn new(client: Client, left: BTreeSet<ExecutionId>, until: Until) -> Self {
        Self { client, left, until, lines: None, losses: 0 }
    }

    /// Returns the next one that is done; `None` after the last one.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    ///
    /// # Cancel safety
    ///
    /// May be dropped; nothing is lost.
    pub async fn next(&mut self) -> Result<Option<ExecutionView>, ClientError> {
        while !self.left.is_empty() {
            let lines = match &mut self.lines {
                Some(lines) => lines,
                None => {
                    let pairs = wait_pairs(&self.left, self.until);
                    self.lines.insert(self.client.lines(&with_query("/v1/wait", &pairs)).await?)
                }
            };
            match lines.next().await {
                Ok(Some(view)) => {
                    self.losses = 0;
                    self.left.remove(&view.id);
                    return Ok(Some(view));
                }
                Ok(None) => {
                    return Err(ClientError::Lost { reason: "the wait ended early".to_owned() });
                }
                Err(error) => {
                    survive(error, &mut self.losses)?;
                    self.lines = None;
                }
            }
        }
        Ok(None)
    }
}

/// Changes in their order. A connection that is lost is made again, and the changes read on from where they were.
#[derive(Debug)]
pub struct EventLines {
    client: Client,
    /// The last batch that was seen whole.
    after: u64,
    /// The batch that is being seen, and of what it told.
    current: u64,
    seen: BTreeSet<(String, Uuid)>,
    /// Everything that there is comes first.
    state: bool,
    /// As of which number that is, once it has begun.
    as_of: Option<u64>,
    follow: bool,
    lines: Option<Lines<ChangeView>>,
    losses: u32,
}

impl EventLines {
    pub(super) fn new(client: Client, query: EventsQuery) -> Self {
        let EventsQuery { after, state, follow } = query;
        let (seen, as_of, lines, losses) = (BTreeSet::new(), None, None, 0);
        Self { client, after, current: after, seen, state, as_of, follow, lines, losses }
    }

    /// Returns the next change; `None` after the last one. What there is at first is told as changes, too; it is told again
    /// from its beginning if the connection is lost before anything has changed.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    ///
    /// # Cancel safety
    ///
    /// May be dropped; nothing is lost.
    pub async fn next(&mut self) -> Result<Option<ChangeView>, ClientError> {
        loop {
            let lines = match &mut self.lines {
                Some(lines) => lines,
                None => {
                    let pairs = [
                        ("after", self.after.to_string()),
                        ("state", self.state.to_string()),
                        ("follow", self.follow.to_string()),
                    ];
                    self.lines.insert(self.client.lines(&with_query("/v1/events", &pairs)).await?)
                }
            };
            match lines.next().await {
                Ok(Some(change)) => {
                    if self.is_news(&change) {
                        self.losses = 0;
                        return Ok(Some(change));
                    }
                }
                Ok(None) => return Ok(None),
                Err(error) => {
                    survive(error, &mut self.losses)?;
                    self.lines = None;
                    self.as_of = None;
                }
            }
        }
    }

    /// Says whether a change was not told before, and moves the cursor.
    fn is_news(&mut self, change: &ChangeView) -> bool {
        if self.state {
            let as_of = *self.as_of.get_or_insert(change.number);
            if change.number == as_of {
                return true;
            }
            // From here on there are changes.
            self.state = false;
            self.current = as_of;
        }
        if change.number != self.current {
            self.after = self.current;
            self.current = change.number;
            self.seen.clear();
        }
        self.seen.insert((change.kind.clone(), change.id))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::task::JoinHandle;

    use super::*;
    use crate::api::client::AtSocket;
    use crate::api::socket;
    use crate::request::{Caller, StopTarget};

    const HEAD: &str = "HTTP/1.1 200 OK\r\nwindlass-api: 1\r\ntransfer-encoding: chunked\r\n\r\n";

    /// Answers one connection after the other with these bytes, closes each, and returns the heads of the requests.
    fn script(answers: Vec<String>) -> (tempfile::TempDir, Client, JoinHandle<Vec<String>>) {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("host.sock");
        let listener = socket::bind(&path).unwrap();
        let served = tokio::spawn(async move {
            let mut requests = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).await.unwrap();
                    request.push(byte[0]);
                }
                stream.write_all(answer.as_bytes()).await.unwrap();
                requests.push(String::from_utf8(request).unwrap());
            }
            requests
        });
        let caller = Caller { owner: None, key: Some("key-1".to_owned()) };
        (root, Client::new(Arc::new(AtSocket(path)), caller), served)
    }

    /// Returns an answer of these lines; an `end` makes it whole.
    fn answer(lines: &[&str], end: bool) -> String {
        let chunk = |line: &&str| format!("{:x}\r\n{line}\n\r\n", line.len() + 1);
        let body: String = lines.iter().map(chunk).collect();
        format!("{HEAD}{body}{}", if end { "0\r\n\r\n" } else { "" })
    }

    fn entry(seq: u64) -> String {
        let at = "1970-01-01T00:00:00.000Z";
        format!(r#"{{"seq":{seq},"at":"{at}","stream":"stdout","text":"x","partial":false}}"#)
    }

    const CLOSING: &str = r#"{"error":{"kind":"closing","message":"m","hint":null}}"#;

    #[tokio::test]
    async fn a_log_goes_on_after_the_last_entry_that_came() {
        let (_root, client, served) = script(vec![
            answer(&[&entry(1), &entry(2)], false),
            String::new(),
            answer(&[CLOSING], true),
            answer(&[CLOSING], true),
            answer(&[CLOSING], true),
            answer(&[CLOSING], true),
            answer(&[&entry(3)], true),
        ]);
        let query = LogQuery { tail: Some(9), follow: true, ..LogQuery::default() };
        let mut log = client.log(ExecutionId(uuid::Uuid::nil()), query);
        let mut seen = Vec::new();
        while let Some(entry) = log.next().await.unwrap() {
            seen.push(entry.seq());
        }
        assert_eq!(seen, [1, 2, 3]);
        let requests = served.await.unwrap();
        assert!(requests[0].contains("?after=0&follow=true&tail=9 "), "{}", requests[0]);
        assert!(requests[6].contains("?after=2&follow=true"), "{}", requests[6]);
    }

    #[tokio::test]
    async fn events_of_a_batch_that_broke_off_are_not_told_twice() {
        let change = |number: u64, id: u64| {
            format!(
                r#"{{"number":{number},"kind":"attempt","id":"{}","parent_id":null,"owner":null,"state":null,"revision":{id}}}"#,
                Uuid::from_u128(u128::from(id))
            )
        };
        let (_root, client, served) = script(vec![
            answer(&[&change(1, 1), &change(2, 1)], false),
            answer(&[&change(2, 1), &change(2, 2), &change(3, 1)], true),
        ]);
        let mut events = client.events(EventsQuery::default());
        let mut seen = Vec::new();
        while let Some(change) = events.next().await.unwrap() {
            seen.push((change.number, change.revision));
        }
        assert_eq!(seen, [(1, 1), (2, 1), (2, 2), (3, 1)]);
        assert!(served.await.unwrap()[1].contains("/v1/events?after=1&"));
    }

    #[tokio::test]
    async fn what_there_is_is_told_anew_until_something_has_changed() {
        let line = |number: u64, id: u64| {
            format!(
                r#"{{"number":{number},"kind":"task","id":"{}","parent_id":null,"owner":null,"state":"todo","revision":{id}}}"#,
                Uuid::from_u128(u128::from(id))
            )
        };
        let (_root, client, served) = script(vec![
            answer(&[&line(7, 1)], false),
            answer(&[&line(8, 1), &line(8, 2), &line(9, 1)], false),
            answer(&[&line(9, 1), &line(9, 3)], true),
        ]);
        let query = EventsQuery { state: true, follow: true, ..EventsQuery::default() };
        let mut events = client.events(query);
        let mut seen = Vec::new();
        while let Some(change) = events.next().await.unwrap() {
            seen.push((change.number, change.revision));
        }
        assert_eq!(seen, [(7, 1), (8, 1), (8, 2), (9, 1), (9, 3)]);
        let requests = served.await.unwrap();
        assert!(requests[1].contains("/v1/events?after=0&state=true&"), "{}", requests[1]);
        assert!(requests[2].contains("/v1/events?after=8&state=false&"), "{}", requests[2]);
    }

    #[tokio::test]
    async fn a_request_whose_answer_was_lost_is_repeated_under_its_key() {
        let whole = "HTTP/1.1 202 Accepted\r\nwindlass-api: 1\r\ncontent-length: 2\r\n\r\n{}";
        let torn = whole.trim_end_matches('}');
        let (_root, client, served) =
            script(vec![String::new(), torn.to_owned(), whole.to_owned()]);
        let target = StopTarget::Execution(ExecutionId(uuid::Uuid::nil()));
        client.stop(target, None).await.unwrap();
        for request in served.await.unwrap() {
            assert!(request.contains("\r\nidempotency-key: key-1\r\n"), "{request}");
        }
    }

    #[tokio::test]
    async fn what_is_lost_again_and_again_is_reported() {
        let (_root, client, served) = script(vec![String::new(); 4]);
        let error = client.host().await.unwrap_err();
        assert!(matches!(error, ClientError::Lost { .. }), "{error:?}");
        served.await.unwrap();
        let error = client.host().await.unwrap_err();
        assert!(matches!(error, ClientError::NoHost { .. }), "{error:?}");
    }

    #[tokio::test]
    async fn another_version_of_the_api_is_told_apart() {
        let other = "HTTP/1.1 200 OK\r\nwindlass-api: 2\r\ncontent-length: 2\r\n\r\n{}";
        let version = r#"{"api":2,"version":"9.0.0","kind":"daemon","pid":1}"#;
        let frozen = format!(
            "HTTP/1.1 200 OK\r\nwindlass-api: 2\r\ncontent-length: {}\r\n\r\n{version}",
            version.len()
        );
        let (_root, client, served) = script(vec![frozen, other.to_owned()]);
        assert_eq!(client.version().await.unwrap().api, 2);
        match client.host().await.unwrap_err() {
            ClientError::Api { view, .. } => assert_eq!(view.kind, "api_version"),
            error => panic!("{error:?}"),
        }
        served.await.unwrap();
    }
}
