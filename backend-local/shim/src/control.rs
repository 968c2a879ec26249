//! The control connections: bytes in, requests out; notices in, bytes out. Nothing here waits.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};

use windlass_core::shim::machine::{Conn, To};
use windlass_core::shim::message::{
    self, Launch, MAX_LAUNCH_BYTES, MAX_MESSAGE_BYTES, Notice, Request, Unreadable,
};

use crate::{CONTROL_SOCKET, sys};

/// How many hosts may be connected; a further one is turned away.
const MAX_CONNECTIONS: usize = 16;
/// How many bytes may wait for a host to read them; one that lets more wait is let go.
const MAX_UNSENT_BYTES: usize = 1 << 20;
/// How much is read at a time.
const READ_BYTES: usize = 16 * 1024;

/// Waits for the launch message, which opens the connection that the shim is started with.
///
/// # Errors
///
/// The connection ended before the message was whole, or it is none: then nothing may run.
pub(crate) fn receive_launch(socket: &mut UnixStream) -> io::Result<(Launch, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut chunk = [0; READ_BYTES];
    loop {
        if let Some(framed) = message::split(&bytes, MAX_LAUNCH_BYTES).map_err(io::Error::other)? {
            let len = framed.len;
            let Request::Launch(launch) = Request::decode(framed).map_err(io::Error::other)? else {
                return Err(io::Error::other("the first message is no launch"));
            };
            return Ok((*launch, bytes.split_off(len)));
        }
        match socket.read(&mut chunk) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => bytes.extend_from_slice(&chunk[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[derive(Debug)]
struct Connection {
    socket: UnixStream,
    received: Vec<u8>,
    unsent: Vec<u8>,
}

/// All connections, and the socket that takes new ones.
#[derive(Debug)]
pub(crate) struct Control {
    listener: Option<UnixListener>,
    connections: BTreeMap<Conn, Connection>,
    next: u64,
}

impl Control {
    /// Takes over the connection that the shim was started with, and what it has said after the launch.
    pub(crate) fn new(first: UnixStream, received: Vec<u8>) -> io::Result<Self> {
        let mut control = Self { listener: None, connections: BTreeMap::new(), next: 0 };
        control.add(first, received)?;
        Ok(control)
    }

    /// Binds the socket in the place, by a name that is short wherever the place is.
    pub(crate) fn listen(&mut self) -> io::Result<()> {
        match fs::remove_file(CONTROL_SOCKET) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let listener = UnixListener::bind(CONTROL_SOCKET)?;
        fs::set_permissions(CONTROL_SOCKET, fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        self.listener = Some(listener);
        Ok(())
    }

    fn add(&mut self, socket: UnixStream, received: Vec<u8>) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        self.connections
            .insert(Conn(self.next), Connection { socket, received, unsent: Vec::new() });
        self.next += 1;
        Ok(())
    }

    /// Returns the listener's descriptor, for polling.
    pub(crate) fn listener(&self) -> Option<BorrowedFd<'_>> {
        self.listener.as_ref().map(AsFd::as_fd)
    }

    /// Lists the connections, for polling: which, on what, and whether something waits to be sent.
    pub(crate) fn connections(&self) -> impl Iterator<Item = (Conn, BorrowedFd<'_>, bool)> {
        self.connections.iter().map(|(conn, connection)| {
            (*conn, connection.socket.as_fd(), !connection.unsent.is_empty())
        })
    }

    /// Takes the connections that wait. Only our own user and root may speak to us.
    pub(crate) fn accept(&mut self) {
        while let Some(Ok((socket, _))) = self.listener.as_ref().map(UnixListener::accept) {
            let uid = sys::peer_uid(socket.as_fd());
            let known = uid.is_ok_and(|uid| uid == sys::own_uid() || uid == 0);
            if known && self.connections.len() < MAX_CONNECTIONS {
                // One that cannot be set up is dropped, and its host sees that.
                let _ = self.add(socket, Vec::new());
            }
        }
    }

    /// Reads what a connection has to say and returns its whole requests.
    pub(crate) fn receive(&mut self, conn: Conn) -> Vec<Request> {
        let Some(connection) = self.connections.get_mut(&conn) else { return Vec::new() };
        let mut chunk = [0; READ_BYTES];
        let open = match connection.socket.read(&mut chunk) {
            Ok(0) => false,
            Ok(len) => {
                connection.received.extend_from_slice(&chunk[..len]);
                true
            }
            Err(error) => {
                matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
            }
        };
        let requests = self.parse(conn);
        if !open {
            self.connections.remove(&conn);
        }
        requests
    }

    /// Takes whole requests off what a connection has said.
    pub(crate) fn parse(&mut self, conn: Conn) -> Vec<Request> {
        let mut requests = Vec::new();
        let mut unknown = Vec::new();
        let mut broken = false;
        let Some(connection) = self.connections.get_mut(&conn) else { return requests };
        let mut at = 0;
        loop {
            match message::split(&connection.received[at..], MAX_MESSAGE_BYTES) {
                Ok(None) => break,
                Ok(Some(framed)) => {
                    at += framed.len;
                    match Request::decode(framed) {
                        Ok(request) => requests.push(request),
                        Err(Unreadable::Code(code) | Unreadable::Fields(code)) => {
                            unknown.push(code)
                        }
                        Err(Unreadable::Length) => broken = true,
                    }
                }
                Err(_) => {
                    broken = true;
                    break;
                }
            }
        }
        connection.received.drain(..at);
        // A message of two megabytes must not be paid for as long as the execution lives.
        if connection.received.is_empty() {
            connection.received = Vec::new();
        }
        for code in unknown {
            self.tell(To::One(conn), &Notice::Unsupported { code });
        }
        if broken {
            self.connections.remove(&conn);
        }
        requests
    }

    /// Sends a notice; what a host does not read at once waits, within bounds.
    pub(crate) fn tell(&mut self, to: To, notice: &Notice) {
        let bytes = notice.encode();
        match to {
            To::One(conn) => self.send(conn, &bytes),
            To::All => {
                for conn in self.connections.keys().copied().collect::<Vec<_>>() {
                    self.send(conn, &bytes);
                }
            }
        }
    }

    fn send(&mut self, conn: Conn, bytes: &[u8]) {
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.unsent.extend_from_slice(bytes);
            self.flush(conn);
        }
    }

    /// Sends what waits, as far as it goes.
    pub(crate) fn flush(&mut self, conn: Conn) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let mut alive = true;
        while alive && !connection.unsent.is_empty() {
            match connection.socket.write(&connection.unsent) {
                Ok(0) => alive = false,
                Ok(len) => drop(connection.unsent.drain(..len)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => alive = false,
            }
        }
        // A host that is gone, or does not listen, hears of it from the journal.
        if !alive || connection.unsent.len() > MAX_UNSENT_BYTES {
            self.connections.remove(&conn);
        }
    }

    /// Takes the socket's name away: nobody will answer there any more.
    pub(crate) fn close(&self) {
        let _ = fs::remove_file(CONTROL_SOCKET);
    }
}
