//! The network of instances: a routed link for each, NAT to the outside, and rules for what may be reached.
//!
//! Each instance that may talk to the world gets a veth pair ([`Lease`]), an address, and a default route. The host has a route of one
//! address to each, and one address of its own, the gateway, on a link without ports (`lauf0`). No bridge: a bridge has 1023 ports at
//! most, and leaving one costs the kernel a grace period under its one big lock, for each instance that ends. Requests *to* an instance
//! do not pass here: the gateway makes its sockets inside the namespace.
//!
//! Laws:
//! - An instance reaches the outside world, of private networks those listed, and on the host only the ports listed, at the gateway's
//!   address.
//! - It reaches no other instance, no link-local address (a cloud's metadata server would hand out the host's credentials), and cannot
//!   send from an address that isn't its own.
//! - The rules are replaced in one transaction; setting up again adopts what is there. `ip_forward` is switched on and left on, for
//!   others may have come to rely on it.
//! - Links are never deleted one by one (18 ms each): they vanish with the namespace they lead into.
//! - The address decides name, number and hardware address of both ends, so connecting changes no rule and asks nobody; the zygote
//!   does it for itself, while the keeper goes on.

pub mod dns;
mod host;
mod netlink;
mod rules;
mod subnet;
mod veth;

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use netlink::{Batch, Socket};

pub use subnet::{Subnet, SubnetError};
pub(crate) use veth::Connector;
pub use veth::Lease;

/// What to call the network and whom it may talk to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Name of the nftables tables and beginning of the links' names: 1 to 8 characters, letters and digits, a letter at both ends.
    pub name: String,
    /// The addresses of instances, from /16 to /29. `None`: what an existing link of this name has, else the first of a list of
    /// rarely used private networks that no route of this host overlaps.
    pub subnet: Option<Subnet>,
    /// Which private networks instances may reach through the host.
    pub private: Private,
    /// TCP ports of the host, at the gateway's address, that instances may reach, such as the platform's own. 53 always is one.
    pub allow_host_ports: Vec<u16>,
    /// Where the host's DNS server for instances listens (at the gateway's address), if not on port 53.
    pub dns_port: Option<u16>,
    /// Where requests of instances to 169.254.169.254:80 are sent: a port of the host, at the gateway's address.
    pub metadata_port: Option<u16>,
}

/// Networks that are nobody's on the internet (RFC 1918, RFC 6598): the host's own neighbours.
const PRIVATE: [&str; 4] = [
    "10.0.0.0/8",
    "100.64.0.0/10",
    "172.16.0.0/12",
    "192.168.0.0/16",
];

/// Which private networks instances may reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Private {
    /// Whatever the host routes to.
    All,
    /// These and no others.
    Only(Vec<Subnet>),
}

impl Default for Private {
    fn default() -> Self {
        Self::Only(Vec::new())
    }
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            name: "lauf".to_owned(),
            subnet: None,
            private: Private::default(),
            allow_host_ports: Vec::new(),
            dns_port: None,
            metadata_port: None,
        }
    }
}

/// Networks to try when none is configured: private ones (RFC 1918) that Docker, Podman, Kubernetes distributions, VPNs and home
/// routers do not pick by themselves.
const CANDIDATES: [&str; 6] = [
    "10.213.0.0/16",
    "10.197.0.0/16",
    "10.171.0.0/16",
    "172.29.0.0/16",
    "10.139.0.0/16",
    "192.168.212.0/22",
];

/// Why the network could not be set up or an instance not attached.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// A field of the configuration.
    #[error("network {field} `{value}`: {why}")]
    Config {
        /// The field's name.
        field: &'static str,
        /// What it was.
        value: String,
        /// What is allowed.
        why: &'static str,
    },
    /// The subnet is in use.
    #[error(
        "network subnet {subnet} overlaps {taken}, which this host already routes through {link}: configure another subnet"
    )]
    Collision {
        /// The network wanted.
        subnet: Subnet,
        /// The network in the way.
        taken: Subnet,
        /// The link it belongs to.
        link: String,
    },
    /// Every candidate subnet is in use.
    #[error(
        "none of the default subnets is free on this host: configure a subnet that no route uses (see `ip route`)"
    )]
    NoFreeSubnet,
    /// The nft program isn't installed.
    #[error(
        "the program `nft` was not found: install it (`apt install nftables`), or run without egress"
    )]
    NoNft,
    /// The nft program could not be run.
    #[error("running nft: {0}")]
    Nft(#[source] io::Error),
    /// The kernel refused the rules.
    #[error(
        "nft refused the rules ({0}): the kernel needs nf_tables with NAT (`modprobe nf_tables nft_masq nft_chain_nat`) and Lauf needs CAP_NET_ADMIN"
    )]
    Refused(String),
    /// A netlink request or a system file.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The address's former user has not quite left: another address will do.
    #[error("the link of this address is still there")]
    InUse,
    /// All addresses are taken.
    #[error("all {0} addresses of the network are in use: configure a larger subnet")]
    Exhausted(usize),
}

impl NetError {
    /// Whether another [`Lease`] would do.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        matches!(self, Self::InUse)
    }
}

fn doing(what: &'static str) -> impl FnOnce(io::Error) -> NetError {
    move |source| NetError::Io { what, source }
}

// rtnetlink attribute numbers (linux/if_link.h, if_addr.h, rtnetlink.h, neighbour.h, veth.h).
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_GROUP: u16 = 27;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const UP: u32 = 1;

/// The hardware address that belongs to an IP address: locally administered, and never given out by chance twice.
fn hardware(ip: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = ip.octets();
    [0x02, 0x4c, a, b, c, d]
}

/// The addresses of a subnet that nobody has: 0 is the network's, 1 the gateway's, the last one for broadcasts.
#[derive(Debug)]
struct Free {
    /// Never given out so far.
    fresh: std::ops::Range<u32>,
    /// Given back; the one longest out of use first, so that the link of its last user is surely gone.
    used: VecDeque<u32>,
}

impl Free {
    fn of(subnet: Subnet) -> Self {
        let size = u32::try_from(subnet.size()).unwrap_or(u32::MAX);
        Self {
            fresh: 2..size.saturating_sub(1),
            used: VecDeque::new(),
        }
    }

    fn take(&mut self) -> Option<u32> {
        self.fresh.next().or_else(|| self.used.pop_front())
    }

    fn len(&self) -> usize {
        self.fresh.len() + self.used.len()
    }
}

/// The network, set up. Dropping it leaves everything in place; [`Network::tear_down`] removes it.
#[derive(Debug)]
pub struct Network {
    config: NetworkConfig,
    subnet: Subnet,
    group: u32,
    free: Free,
    /// How many addresses there are for instances.
    size: usize,
    socket: Socket,
    home: OwnedFd,
    antispoof: bool,
}

impl Network {
    /// Sets up gateway, forwarding and rules, or adopts what an earlier process of the same name left. Instances of that process that
    /// still run keep their links and addresses, and those are not given out again while they do.
    ///
    /// # Errors
    /// A field that isn't allowed, a subnet in use, nft or privileges missing; each message says what to do.
    pub fn set_up(config: &NetworkConfig) -> Result<Self, NetError> {
        check(config)?;
        let socket = Socket::open().map_err(doing("opening a netlink socket"))?;
        let links = host::links(&socket)?;
        let subnet = host::choose_subnet(config, &socket, &links)?;
        let home = rustix::fs::open(
            "/proc/thread-self/ns/net",
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|e| doing("opening /proc/thread-self/ns/net")(e.into()))?;
        let free = Free::of(subnet);
        let mut network = Self {
            config: config.clone(),
            subnet,
            group: group(&config.name),
            size: free.len(),
            free,
            socket,
            home,
            antispoof: true,
        };
        forward()?;
        network.make_gateway()?;
        network.write_rules()?;
        Ok(network)
    }

    /// The network's addresses.
    #[must_use]
    pub fn subnet(&self) -> Subnet {
        self.subnet
    }

    /// The host's address: where DNS and the platform have to listen for instances.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        self.subnet.nth(1)
    }

    /// Whether packets are checked against the sender's own address. `false` on kernels without nftables' `fib` expression; addresses
    /// outside the subnet are dropped there too, and answers never reach a spoofer.
    #[must_use]
    pub fn checks_every_sender(&self) -> bool {
        self.antispoof
    }

    /// An address for an instance, to be connected by a [`Connector`] or [`Network::attach`].
    ///
    /// # Errors
    /// [`NetError::Exhausted`].
    pub fn lease(&mut self) -> Result<Lease, NetError> {
        let host = self.free.take().ok_or(NetError::Exhausted(self.size))?;
        Ok(Lease::new(
            &self.config.name,
            self.group,
            self.gateway(),
            self.subnet.nth(host),
            host,
        ))
    }

    /// Gives a fresh namespace an `eth0` with an address and a default route, and raises its loopback. Blocks for some hundred
    /// microseconds; the calling thread visits the namespace and comes back.
    ///
    /// # Errors
    /// [`NetError::Exhausted`], or the kernel's refusal. After an error the namespace is to be thrown away.
    pub fn attach(&mut self, netns: BorrowedFd<'_>) -> Result<Lease, NetError> {
        // The link of an address's former user, or of an instance we inherited, may still be there.
        for _ in 0..=self.free.len() {
            let lease = self.lease()?;
            let inside = open_inside(netns, self.home.as_fd())
                .map_err(doing("opening a netlink socket in the instance"))?;
            match lease.connect(&self.socket, &inside, netns) {
                Ok(()) => return Ok(lease),
                Err(error) => {
                    self.release(lease);
                    if !error.is_in_use() {
                        return Err(error);
                    }
                }
            }
        }
        Err(NetError::Exhausted(self.size))
    }

    /// Takes an address back. Call it when the namespace is gone or about to go; its link goes with it.
    pub fn release(&mut self, lease: Lease) {
        self.free.used.push_back(lease.number());
    }

    /// Removes rules, gateway and whatever links are left, of this process or an earlier one. What isn't there is no error.
    ///
    /// # Errors
    /// The kernel's refusal, or nft missing while its tables may be there.
    pub fn tear_down(config: &NetworkConfig) -> Result<(), NetError> {
        check(config)?;
        rules::apply(&rules::removal(&config.name))?;
        let socket = Socket::open().map_err(doing("opening a netlink socket"))?;
        // All in one request: the kernel waits for its readers once, not once per link.
        let mut batch = Batch::default();
        batch.push(
            netlink::RTM_DELLINK,
            0,
            &netlink::link_header(0, 0, 0),
            |a| {
                a.u32(IFLA_GROUP, group(&config.name));
            },
        );
        match socket.run_all(&batch) {
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            other => other.map_err(doing("removing the network's links")),
        }
    }

    /// The link that bears the host's address: a bridge without ports, since it is the one kind of link that every kernel with
    /// containers has and that leads nowhere. The route of the whole subnet points there, so that packets to addresses nobody has do
    /// not leave by the host's default route.
    fn make_gateway(&self) -> Result<(), NetError> {
        let (name, gateway) = (format!("{}0", self.config.name), self.gateway());
        let mut batch = Batch::default();
        batch.push(
            netlink::RTM_NEWLINK,
            netlink::CREATE,
            &netlink::link_header(0, UP, UP),
            |a| {
                a.text(IFLA_IFNAME, &name)
                    .bytes(IFLA_ADDRESS, &hardware(gateway))
                    .u32(IFLA_GROUP, self.group);
                a.nest(IFLA_LINKINFO, &[], |a| {
                    a.text(INFO_KIND, "bridge");
                });
            },
        );
        self.socket
            .run_all(&batch)
            .map_err(doing("creating the gateway's link"))?;
        let link = host::links(&self.socket)?
            .into_iter()
            .find(|l| l.name == name);
        let index = link
            .map(|l| l.index)
            .ok_or_else(|| doing("finding the gateway's link")(io::ErrorKind::NotFound.into()))?;
        let mut batch = Batch::default();
        for (of, address, prefix) in host::addresses(&self.socket)? {
            if of == index && (address, prefix) != (gateway, self.subnet.prefix()) {
                batch.push(
                    netlink::RTM_DELADDR,
                    0,
                    &netlink::address_header(prefix, index),
                    |a| {
                        a.ip(IFA_LOCAL, address);
                    },
                );
            }
        }
        let header = netlink::address_header(self.subnet.prefix(), index);
        batch.push(
            netlink::RTM_NEWADDR,
            netlink::CREATE | netlink::REPLACE,
            &header,
            |a| {
                a.ip(IFA_LOCAL, gateway).ip(IFA_ADDRESS, gateway);
            },
        );
        self.socket
            .run_all(&batch)
            .map_err(doing("giving the gateway its address"))
    }

    fn write_rules(&mut self) -> Result<(), NetError> {
        let gateway = self.gateway();
        let script = |antispoof| rules::script(&self.config, self.subnet, gateway, antispoof);
        match rules::apply(&script(true)) {
            Err(NetError::Refused(message)) => {
                rules::apply(&script(false)).map_err(|_| NetError::Refused(message))?;
                self.antispoof = false;
                Ok(())
            }
            other => other,
        }
    }
}

/// Raises the loopback of a namespace: all the network there is for an instance without egress.
///
/// # Errors
/// The kernel's answer.
pub fn lo_up(netns: BorrowedFd<'_>) -> io::Result<()> {
    let home = rustix::fs::open(
        "/proc/thread-self/ns/net",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mut batch = Batch::default();
    raise_loopback(&mut batch);
    open_inside(netns, home.as_fd())?.run_all(&batch)
}

/// The same for the namespace the caller is in.
///
/// # Errors
/// The kernel's answer.
pub fn lo_up_here() -> io::Result<()> {
    let mut batch = Batch::default();
    raise_loopback(&mut batch);
    Socket::open()?.run_all(&batch)
}

fn raise_loopback(batch: &mut Batch) {
    // Loopback is the first device of every namespace.
    batch.push(
        netlink::RTM_NEWLINK,
        0,
        &netlink::link_header(1, UP, UP),
        |_| {},
    );
}

/// Opens a netlink socket in another namespace. A socket stays in the namespace it was made in.
fn open_inside(netns: BorrowedFd<'_>, home: BorrowedFd<'_>) -> io::Result<Socket> {
    move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))?;
    let socket = Socket::open();
    if move_into_link_name_space(home, Some(LinkNameSpaceType::Network)).is_err() {
        // A thread stranded in an instance's network would do all its further work there. There is no safe way on.
        std::process::abort();
    }
    socket
}

fn check(config: &NetworkConfig) -> Result<(), NetError> {
    let name = config.name.as_bytes();
    let ends = name.first().is_some_and(u8::is_ascii_alphabetic)
        && name.last().is_some_and(u8::is_ascii_alphabetic);
    if !ends || name.len() > 8 || !name.iter().all(u8::is_ascii_alphanumeric) {
        let why = "use 1 to 8 letters and digits, beginning and ending with a letter";
        return Err(NetError::Config {
            field: "name",
            value: config.name.clone(),
            why,
        });
    }
    // `fwd`, `ip`, ... are words of nft's language and cannot name a table.
    if [
        "fwd", "ip", "ip6", "arp", "dup", "meta", "ct", "th", "rt", "inet", "netdev", "bridge",
        "table", "add",
    ]
    .contains(&config.name.as_str())
    {
        return Err(NetError::Config {
            field: "name",
            value: config.name.clone(),
            why: "this is a word of nftables' own language",
        });
    }
    if let Some(subnet) = config.subnet
        && !(16..=29).contains(&subnet.prefix())
    {
        return Err(NetError::Config {
            field: "subnet",
            value: subnet.to_string(),
            why: "use a network from /16 to /29",
        });
    }
    Ok(())
}

/// The group all our links are in, so that they can be removed in one request: from the name, far from the small numbers people use.
fn group(name: &str) -> u32 {
    name.bytes().fold(0x4c61_7566, |hash: u32, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    }) | 0x4000_0000
}

/// Lets the host pass packets on.
fn forward() -> Result<(), NetError> {
    const FILE: &str = "/proc/sys/net/ipv4/ip_forward";
    if fs::read_to_string(FILE).is_ok_and(|v| v.trim() == "1") {
        return Ok(());
    }
    fs::write(FILE, "1").map_err(doing("writing 1 to /proc/sys/net/ipv4/ip_forward"))
}

#[cfg(test)]
mod tests;
