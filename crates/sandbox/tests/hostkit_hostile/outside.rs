//! What is outside of the containers, to be reached for.

use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Child, Command, Stdio};

/// Ports on all addresses of the host, an abstract socket, a process. Gone when dropped.
pub(crate) struct Outside {
    /// Nobody may reach it, by TCP or by UDP.
    pub(crate) shut: TcpListener,
    /// What instances of Lauf may reach at their gateway.
    pub(crate) open: TcpListener,
    name: String,
    _socket: UnixListener,
    process: Child,
}

/// What a container reaches for, beyond [`Outside`].
#[derive(Clone)]
pub(crate) struct Reached {
    /// The host as instances see it.
    pub(crate) gateway: Ipv4Addr,
    /// Another instance.
    pub(crate) neighbour: Ipv4Addr,
    /// Its first process, in the host's numbering.
    pub(crate) pid: u32,
    /// Whether the open port can be reached at all.
    pub(crate) has_network: bool,
}

impl Outside {
    pub(crate) fn new() -> Self {
        let shut = TcpListener::bind("0.0.0.0:0").unwrap();
        let echo = UdpSocket::bind(("0.0.0.0", shut.local_addr().unwrap().port())).unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((length, from)) = echo.recv_from(&mut buffer) {
                let _ = echo.send_to(&buffer[..length], from);
            }
        });
        let name = format!("hostkit-hostile-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        Self {
            shut,
            open: TcpListener::bind("0.0.0.0:0").unwrap(),
            _socket: UnixListener::bind_addr(&address).unwrap(),
            name,
            process: Command::new("sleep")
                .arg("1000")
                .stdin(Stdio::null())
                .spawn()
                .unwrap(),
        }
    }

    /// The command line of the hostile program.
    pub(crate) fn words(&self, reached: &Reached) -> Vec<String> {
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port().to_string();
        let open = if reached.has_network {
            port(&self.open)
        } else {
            "0".to_owned()
        };
        vec![
            "/hostile".to_owned(),
            port(&self.shut),
            self.name.clone(),
            self.process.id().to_string(),
            own_address().unwrap_or(Ipv4Addr::LOCALHOST).to_string(),
            reached.gateway.to_string(),
            open,
            reached.neighbour.to_string(),
            reached.pid.to_string(),
        ]
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The address of the host towards the world, where it has one. Nothing is sent.
fn own_address() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}
