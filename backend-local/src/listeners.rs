//! Tells when a process of a local execution listens on a port, from what the kernel shows in `/proc`.
//!
//! The kernel tells nobody that a socket began to listen, so it is looked, at first often, then less: at the two tables of
//! listening sockets, and only where one has the port, at who holds it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use async_trait::async_trait;
use windlass_core::container_service::Place;
use windlass_core::error::BackendError;
use windlass_core::id::ExecutionId;
use windlass_core::listeners::Listeners;

use crate::container_service::LocalContainers;
use crate::sweep;

/// How long after the first look the second one is.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// The longest time between two looks.
const LONGEST_PAUSE: Duration = Duration::from_millis(320);

/// The state of a socket that listens, as the tables have it.
const LISTEN: &str = "0A";

#[async_trait]
impl Listeners for LocalContainers {
    async fn listens(
        &self,
        execution: ExecutionId,
        place: &Place,
        port: u16,
    ) -> Result<(), BackendError> {
        let mut pause = FIRST_PAUSE;
        loop {
            // One that was adopted is known a moment later.
            let attached = self.slot(execution, place).and_then(|slot| slot.attached());
            let running = attached.and_then(|attached| attached.state.borrow().running);
            if let Some(running) = running {
                let look = move || is_held(&listening(running.pid, port), execution, running.pid);
                let looked = tokio::task::spawn_blocking(look).await;
                if looked.map_err(|error| BackendError::permanent("local", "listens", error))? {
                    return Ok(());
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// Names the sockets that listen on a port where a process is.
fn listening(pid: u32, port: u16) -> BTreeSet<u64> {
    let tables =
        ["tcp", "tcp6"].map(|table| fs::read_to_string(format!("/proc/{pid}/net/{table}")));
    tables.iter().flatten().flat_map(|table| sockets(table, port)).collect()
}

/// Reads the sockets that listen on a port from a table.
fn sockets(table: &str, port: u16) -> Vec<u64> {
    let socket = |line: &str| {
        let mut fields = line.split_whitespace();
        let (_, at) = fields.nth(1)?.rsplit_once(':')?;
        let listens = fields.nth(1)? == LISTEN;
        let inode = fields.nth(5)?.parse().ok()?;
        (listens && u16::from_str_radix(at, 16) == Ok(port)).then_some(inode)
    };
    table.lines().skip(1).filter_map(socket).collect()
}

/// Says whether a process of an execution holds one of these sockets.
fn is_held(sockets: &BTreeSet<u64>, execution: ExecutionId, pid: u32) -> bool {
    !sockets.is_empty() && sweep::tree_of(execution, pid).into_iter().any(|pid| holds(pid, sockets))
}

fn holds(pid: u32, sockets: &BTreeSet<u64>) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()).any(|target| {
        let inode = target.as_os_str().as_bytes().strip_prefix(b"socket:[");
        let inode = inode.and_then(|rest| str::from_utf8(rest.strip_suffix(b"]")?).ok());
        inode
            .and_then(|inode| inode.parse::<u64>().ok())
            .is_some_and(|inode| sockets.contains(&inode))
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::process::CommandExt as _;

    use super::*;

    #[test]
    fn a_table_tells_who_listens_on_a_port() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 0100007F:4E20 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0\n   \
            1: 0100007F:4E20 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 20 4 30 10 -1\n   \
            2: 00000000000000000000000000000000:4E21 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0 100 0 0 10 0\n\
            nonsense\n";
        assert_eq!(sockets(table, 20_000), [4_711]);
        assert_eq!(sockets(table, 20_001), [4_713]);
        assert!(sockets(table, 20_002).is_empty());
    }

    #[test]
    fn the_kernel_is_asked_and_tells_a_listener_from_a_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let pid = std::process::id();
        let found = listening(pid, port);
        assert!(holds(pid, &found), "{found:?}");
        assert!(listening(pid, connection.local_addr().unwrap().port()).is_empty());
        let nobody = ExecutionId(uuid::Uuid::from_u128(0x5eed));
        let mut other =
            std::process::Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
        assert!(!is_held(&found, nobody, other.id()), "it is not theirs");
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
