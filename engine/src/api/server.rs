//! Serves the API on a Unix socket, to processes of the same user only.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};

use super::error::ApiError;
use super::{API_VERSION, FROZEN_ROUTES, HostKind, MAX_BODY_BYTES, VERSION_HEADER, routes, socket};
use crate::handle::Handle;

/// How to serve.
#[derive(Debug)]
pub struct ServeOptions {
    /// Whose process this is.
    pub kind: HostKind,
    /// Its version.
    pub version: String,
    /// Its process number.
    pub pid: u32,
    /// Where a client's request to leave goes; `None` refuses it.
    pub stop: Option<mpsc::Sender<()>>,
    /// Where the number of connected clients is kept.
    pub clients: watch::Sender<usize>,
    /// Ends the server and its streams when it becomes true.
    pub closing: watch::Receiver<bool>,
    /// In what records and logs are kept, for [`crate::view::HostView`].
    pub keeps: Option<Keeps>,
}

/// In what a host keeps records and logs, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keeps {
    /// The records, for example `sqlite`.
    pub store: String,
    /// The logs, for example `files`.
    pub logs: String,
}

/// What every request may use.
#[derive(Clone, Debug)]
pub(super) struct ApiState {
    pub(super) handle: Handle,
    pub(super) kind: HostKind,
    pub(super) version: Arc<str>,
    pub(super) pid: u32,
    pub(super) stop: Option<mpsc::Sender<()>>,
    pub(super) closing: watch::Receiver<bool>,
    pub(super) keeps: Option<Arc<Keeps>>,
}

/// Serves until `options.closing` becomes true and the last request is answered.
///
/// # Errors
///
/// The system's, if it cannot go on accepting.
///
/// # Cancel safety
///
/// Dropping it closes the listener; requests that are being answered go on.
pub async fn serve(
    handle: Handle,
    listener: UnixListener,
    options: ServeOptions,
) -> io::Result<()> {
    let ServeOptions { kind, version, pid, stop, clients, closing, keeps } = options;
    let keeps = keeps.map(Arc::new);
    let mut ended = closing.clone();
    let state = ApiState { handle, kind, version: version.into(), pid, stop, closing, keeps };
    let router = routes::router()
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(axum::middleware::from_fn_with_state(state.clone(), check_version))
        .with_state(state);
    let listener = SameUser { listener, clients };
    axum::serve(listener, router)
        .with_graceful_shutdown(async move {
            // An error says that the sender is gone, and with it whoever wanted to serve.
            let _gone = ended.wait_for(|&is_closing| is_closing).await;
        })
        .await
}

/// Serves in a data directory as an embedding program does: the command line finds the host by the socket there, and may
/// not ask it to leave. Returns when the listener fails; dropping it ends the service.
///
/// The caller holds the directory's lock; `pid` is its process number.
///
/// # Errors
///
/// The system's.
///
/// # Cancel safety
///
/// As [`serve`].
pub async fn serve_embedded(handle: Handle, directory: &Path, pid: u32) -> io::Result<()> {
    let (_open, closing) = watch::channel(false);
    let (clients, _counted) = watch::channel(0);
    let options = ServeOptions {
        kind: HostKind::Embedded,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid,
        stop: None,
        clients,
        closing,
        keeps: None,
    };
    serve(handle, super::socket::bind(&directory.join(super::lock::SOCKET_FILE))?, options).await
}

/// Refuses clients that speak another version, and tells all of them ours.
async fn check_version(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let wanted = request.headers().get(VERSION_HEADER);
    let ours = HeaderValue::from(API_VERSION);
    let is_frozen = FROZEN_ROUTES.contains(&request.uri().path());
    let mut response = if is_frozen || wanted.is_none_or(|wanted| *wanted == ours) {
        next.run(request).await
    } else {
        ApiError::new(
            StatusCode::BAD_REQUEST,
            "api_version",
            format!("the host (version {}) speaks version {API_VERSION} of the API", state.version),
            Some(
                "use a client of the same version as the host, or end the host: windlass host stop",
            ),
        )
        .into_response()
    };
    response.headers_mut().insert(VERSION_HEADER, ours);
    response
}

/// Accepts connections of the same user and counts them.
#[derive(Debug)]
struct SameUser {
    listener: UnixListener,
    clients: watch::Sender<usize>,
}

impl axum::serve::Listener for SameUser {
    type Io = Counted;
    type Addr = ();

    async fn accept(&mut self) -> (Counted, ()) {
        loop {
            let (stream, _) = axum::serve::Listener::accept(&mut self.listener).await;
            // A stranger, or one that is gone already, is dropped.
            if matches!(socket::is_same_user(&stream), Ok(true)) {
                self.clients.send_modify(|clients| *clients += 1);
                return (Counted { stream, clients: self.clients.clone() }, ());
            }
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection that is counted until it is dropped.
#[derive(Debug)]
struct Counted {
    stream: UnixStream,
    clients: watch::Sender<usize>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.clients.send_modify(|clients| *clients -= 1);
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
}
