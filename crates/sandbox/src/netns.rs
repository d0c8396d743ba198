//! The network namespace of an instance, and sockets made in it.
//!
//! A socket belongs to the namespace it was made in for all its life, whatever its thread does later. So the way into an
//! instance is: enter its namespace, make a socket, leave again, connect. That costs about 3 microseconds and no link.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use crate::sys;

/// How long a namespace that is let go of waits for others. One that ends costs the kernel much the same as a hundred that end
/// together: a walk over all connections it tracks, for their masquerading, and waits for the readers of its tables.
const TOGETHER: Duration = Duration::from_millis(250);

/// The network namespace of one instance. Keeps the namespace alive until dropped, and for [a moment](TOGETHER) after.
#[derive(Debug)]
pub struct NetNs(Arc<OwnedFd>);

impl Drop for NetNs {
    fn drop(&mut self) {
        // Where that thread cannot be had, this is the last one.
        if let Some(ending) = ending() {
            let _ = ending.send(Arc::clone(&self.0));
        }
    }
}

/// To the thread that lets go of them.
fn ending() -> Option<&'static mpsc::Sender<Arc<OwnedFd>>> {
    static ENDING: OnceLock<Option<mpsc::Sender<Arc<OwnedFd>>>> = OnceLock::new();
    let begin = || {
        let (sender, ending) = mpsc::channel();
        let end = move || {
            while let Ok(first) = ending.recv() {
                thread::sleep(TOGETHER);
                let together: Vec<_> = std::iter::once(first).chain(ending.try_iter()).collect();
                drop(together);
            }
        };
        let thread = thread::Builder::new().name("netns-ending".to_owned());
        thread.spawn(end).ok().map(|_| sender)
    };
    ENDING.get_or_init(begin).as_ref()
}

/// Brings the thread home, however the scope is left.
struct Home<'a>(BorrowedFd<'a>);

impl Drop for Home<'_> {
    fn drop(&mut self) {
        if let Err(e) = sys::enter_namespace(self.0, libc::CLONE_NEWNET) {
            // A server thread lost in a container's network would serve the wrong people.
            sys::abort_with(&format!(
                "a thread cannot come back from a network namespace: {e}"
            ));
        }
    }
}

fn home() -> io::Result<BorrowedFd<'static>> {
    static HOME: OnceLock<OwnedFd> = OnceLock::new();
    if let Some(home) = HOME.get() {
        return Ok(home.as_fd());
    }
    let file = std::fs::File::open("/proc/self/ns/net")?;
    Ok(HOME.get_or_init(|| file.into()).as_fd())
}

impl NetNs {
    /// Wraps a descriptor of a network namespace.
    #[must_use]
    pub fn new(fd: OwnedFd) -> Self {
        Self(Arc::new(fd))
    }

    /// Runs `f` with the calling thread in the namespace, and brings it back. `f` must not wait or start threads.
    ///
    /// # Errors
    /// When the namespace cannot be entered, which needs `CAP_SYS_ADMIN`, or what `f` gives.
    pub fn with<T>(&self, f: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let home = home()?;
        sys::enter_namespace(self.0.as_fd(), libc::CLONE_NEWNET)?;
        let _back = Home(home);
        f()
    }

    /// Whether a process (in the caller's numbering) is in this namespace. One that has ended may have been.
    #[must_use]
    pub fn may_hold(&self, pid: u32) -> bool {
        let of = std::fs::metadata(format!("/proc/{pid}/ns/net"));
        match (of, rustix::fs::fstat(&self.0)) {
            (Ok(of), Ok(ours)) => of.ino() == ours.st_ino,
            _ => true,
        }
    }

    /// Begins a TCP connection to a port on 127.0.0.1 inside the instance. The stream is non-blocking; on loopback it is
    /// normally connected when this returns, and otherwise becomes writable when it is.
    ///
    /// # Errors
    /// `ConnectionRefused` when nothing listens there, or what entering the namespace gives.
    pub fn connect(&self, port: u16) -> io::Result<TcpStream> {
        let socket = self.with(|| {
            Ok(socket_with(
                AddressFamily::INET,
                SocketType::STREAM,
                SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
                None,
            )?)
        })?;
        let stream = match connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => TcpStream::from(socket),
            Err(e) => return Err(e.into()),
        };
        // Loopback answers before the call returns, but is heard only when the socket is let go of; now it is.
        match stream.take_error()? {
            None => Ok(stream),
            Some(e) => Err(e),
        }
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
