//! One control connection to a shim: messages out, notices in.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use windlass_core::id::{Epoch, ExecutionId, Nonce};
use windlass_core::shim::adoption::Answer;
use windlass_core::shim::message::{
    MAX_MESSAGE_BYTES, Notice, PROTOCOL_VERSION, Request, Unreadable, Welcome, split,
};

use crate::place::{PlaceDir, SOCKET};

/// How long a shim may take to answer a hello before it counts as mute.
pub(crate) const HELLO_PATIENCE: Duration = Duration::from_secs(2);

/// A stream of messages.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    unread: BytesMut,
}

impl Connection {
    /// Takes over a connected socket.
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self { stream, unread: BytesMut::new() }
    }

    /// Connects to the socket in a place, however long the place's path is.
    async fn open(place: &PlaceDir) -> io::Result<Self> {
        let stream = UnixStream::connect(beneath(place.fd(), SOCKET)).await?;
        let peer = stream.peer_cred()?.uid();
        if peer != rustix::process::geteuid().as_raw() {
            let message = format!("the socket is user {peer}'s");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        Ok(Self::new(stream))
    }

    /// Sends a message.
    ///
    /// # Cancel safety
    ///
    /// None: a part of it may have been sent.
    pub(crate) async fn send(&mut self, request: &Request) -> io::Result<()> {
        self.stream.write_all(&request.encode()).await
    }

    /// Returns the next notice; `None` at the end of the stream. What a newer shim says beyond our knowledge is left out.
    ///
    /// # Cancel safety
    ///
    /// May be dropped and called again.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Notice>> {
        loop {
            if let Some(framed) = split(&self.unread, MAX_MESSAGE_BYTES).map_err(invalid)? {
                let notice = Notice::decode(framed);
                let len = framed.len;
                self.unread.advance(len);
                match notice {
                    Ok(notice) => return Ok(Some(notice)),
                    Err(Unreadable::Code(_)) => continue,
                    Err(error @ (Unreadable::Length | Unreadable::Fields(_))) => {
                        return Err(invalid(error));
                    }
                }
            }
            if self.stream.read_buf(&mut self.unread).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Says hello on a connection that is established.
    async fn hello(&mut self, epoch: Epoch) -> io::Result<Option<Box<Welcome>>> {
        self.send(&Request::Hello { version: PROTOCOL_VERSION, epoch }).await?;
        while let Some(notice) = self.next().await? {
            if let Notice::Welcome(welcome) = notice {
                return Ok(Some(welcome));
            }
        }
        Ok(None)
    }
}

/// What came of a hello.
#[derive(Debug)]
pub(crate) enum Hello {
    /// Our shim answered, and has heard of no higher epoch.
    Ours(Connection, Box<Welcome>),
    /// Anything else; in words, too.
    Not(Answer, String),
}

impl Hello {
    /// Returns the answer as the adoption matrix wants it.
    pub(crate) fn answer(&self) -> Answer {
        match self {
            Self::Ours(..) => Answer::Ours,
            Self::Not(answer, _) => *answer,
        }
    }
}

/// Connects to the shim of a place and asks who it is.
pub(crate) async fn hello(
    place: &PlaceDir,
    execution: ExecutionId,
    nonce: Nonce,
    epoch: Epoch,
) -> Hello {
    let asked = async {
        let mut connection = Connection::open(place).await?;
        let welcome = connection.hello(epoch).await?;
        Ok::<_, io::Error>(welcome.map(|welcome| (connection, welcome)))
    };
    let (connection, welcome) = match tokio::time::timeout(HELLO_PATIENCE, asked).await {
        Ok(Ok(Some(answered))) => answered,
        Ok(Ok(None)) => return Hello::Not(Answer::Mute, "the shim closed the connection".into()),
        Ok(Err(error)) => return Hello::Not(Answer::Mute, format!("no connection: {error}")),
        Err(_) => return Hello::Not(Answer::Mute, "the shim does not answer".into()),
    };
    if (welcome.execution, welcome.nonce) != (execution, nonce) {
        let other = format!("the shim is that of {}, {}", welcome.execution, welcome.nonce.0);
        return Hello::Not(Answer::Foreign, other);
    }
    if welcome.epoch > epoch {
        return Hello::Not(Answer::Superseded, format!("the shim knows epoch {}", welcome.epoch.0));
    }
    Hello::Ours(connection, welcome)
}

/// Returns a short path to a file beneath an open directory: a socket's address is bounded, a directory's path is not.
fn beneath(directory: BorrowedFd<'_>, name: &str) -> String {
    format!("/proc/self/fd/{}/{name}", directory.as_raw_fd())
}

fn invalid(error: Unreadable) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
