//! The network of instances: a bridge with NAT to the outside, and rules for what may be reached through it.
//!
//! Each instance that may talk to the world gets a veth pair from a bridge of the host into its network namespace, an address, and a
//! default route. Bridges come in turn (`lauf0`, `lauf1`, ...), because the kernel allows 1023 ports on one. Requests *to* an instance do
//! not pass here: the gateway makes its sockets inside the namespace.
//!
//! Laws:
//! - An instance reaches the outside world, and on the host only the ports listed, at the bridge's address.
//! - It reaches no other instance, no link-local address (a cloud's metadata server would hand out the host's credentials), and cannot
//!   send from an address that isn't its own.
//! - The rules are replaced in one transaction; setting up again adopts what is there. `ip_forward` is switched on and left on, for
//!   others may have come to rely on it.
//! - Links are never deleted one by one (18 ms each): they vanish with the namespace they lead into.
//! - The address decides the names and hardware addresses of both ends, so attaching changes no rule and asks nobody.

pub mod dns;
mod netlink;
mod rules;
mod subnet;

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use netlink::{Batch, Socket};

pub use subnet::{Subnet, SubnetError};

/// What to call the network and whom it may talk to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Name of the nftables tables and beginning of the bridges' names: 1 to 8 characters, letters and digits, a letter at both ends.
    pub name: String,
    /// The addresses of instances, from /16 to /29. `None`: what an existing bridge of this name has, else the first of a list of
    /// rarely used private networks that no route of this host overlaps.
    pub subnet: Option<Subnet>,
    /// TCP ports of the host, at the bridge's address, that instances may reach, such as the platform's own. 53 always is one.
    pub allow_host_ports: Vec<u16>,
    /// Where the host's DNS server for instances listens (at the bridge's address), if not on port 53.
    pub dns_port: Option<u16>,
    /// Where requests of instances to 169.254.169.254:80 are sent: a port of the host, at the bridge's address.
    pub metadata_port: Option<u16>,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            name: "lauf".to_owned(),
            subnet: None,
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
    /// All addresses are taken.
    #[error("all {0} addresses of the network are in use: configure a larger subnet")]
    Exhausted(usize),
}

fn doing(what: &'static str) -> impl FnOnce(io::Error) -> NetError {
    move |source| NetError::Io { what, source }
}

/// The address of one attached instance.
#[derive(Debug, PartialEq, Eq)]
pub struct Lease {
    /// The instance's own address.
    pub ip: Ipv4Addr,
    /// The host's end: gateway, DNS server, and where the platform answers.
    pub gateway: Ipv4Addr,
    bridge: usize,
    host: u32,
}

/// One bridge and its share of the subnet.
#[derive(Debug)]
struct Bridge {
    link: String,
    index: u32,
    network: Subnet,
    /// Numbers of free addresses; the one longest out of use first, so that the link of its last user is surely gone.
    free: VecDeque<u32>,
}

/// A bridge has a /22 at most: with network, broadcast and gateway addresses taken out, 1021 instances on at most 1023 ports.
const BRIDGE_PREFIX: u8 = 22;
/// What the instance calls its end.
const INNER_LINK: &str = "eth0";

// rtnetlink attribute numbers (linux/if_link.h, if_addr.h, rtnetlink.h, neighbour.h, veth.h).
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_GROUP: u16 = 27;
const IFLA_NET_NS_FD: u16 = 28;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const INFO_SLAVE_KIND: u16 = 4;
const INFO_SLAVE_DATA: u16 = 5;
const VETH_INFO_PEER: u16 = 1;
const BR_MCAST_SNOOPING: u16 = 23;
const BRPORT_ISOLATED: u16 = 33;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const UP: u32 = 1;

/// The hardware address that belongs to an IP address: locally administered, and never given out by chance twice.
fn hardware(ip: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = ip.octets();
    [0x02, 0x4c, a, b, c, d]
}

impl Bridge {
    fn new(name: &str, number: u32, subnet: Subnet) -> Self {
        let prefix = subnet.prefix().max(BRIDGE_PREFIX);
        let size = u32::try_from(Subnet::of(subnet.base(), prefix).size()).unwrap_or(0);
        let network = Subnet::of(subnet.nth(number * size), prefix);
        Self {
            link: format!("{name}{number}"),
            index: 0,
            network,
            free: (2..size - 1).collect(),
        }
    }

    fn gateway(&self) -> Ipv4Addr {
        self.network.nth(1)
    }

    /// The numbers of all addresses for instances.
    fn hosts(&self) -> std::ops::Range<u32> {
        2..u32::try_from(self.network.size())
            .unwrap_or(0)
            .saturating_sub(1)
    }

    /// The host's end of the veth of instance number `host`.
    fn port(&self, host: u32) -> String {
        format!("{}-{host}", self.link)
    }
}

/// The network, set up. Dropping it leaves everything in place; [`Network::tear_down`] removes it.
#[derive(Debug)]
pub struct Network {
    config: NetworkConfig,
    subnet: Subnet,
    group: u32,
    bridges: Vec<Bridge>,
    socket: Socket,
    home: OwnedFd,
    antispoof: bool,
}

impl Network {
    /// Sets up bridge, address, forwarding and rules, or adopts what an earlier process of the same name left. Instances of that
    /// process that still run keep their links and addresses, and those are not given out again while they do.
    ///
    /// # Errors
    /// A field that isn't allowed, a subnet in use, nft or privileges missing; each message says what to do.
    pub fn set_up(config: &NetworkConfig) -> Result<Self, NetError> {
        check(config)?;
        let socket = Socket::open().map_err(doing("opening a netlink socket"))?;
        let links = links(&socket)?;
        let subnet = choose_subnet(config, &socket, &links)?;
        let home = rustix::fs::open(
            "/proc/thread-self/ns/net",
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|e| doing("opening /proc/thread-self/ns/net")(e.into()))?;
        let group = group(&config.name);
        let mut network = Self {
            config: config.clone(),
            subnet,
            group,
            bridges: Vec::new(),
            socket,
            home,
            antispoof: true,
        };
        forward()?;
        // As many bridges as an earlier process had, so that the rules hold for the instances it left.
        let there = links
            .iter()
            .filter_map(|l| {
                l.name
                    .strip_prefix(config.name.as_str())?
                    .parse::<u32>()
                    .ok()
            })
            .max()
            .unwrap_or(0);
        let most = 1u32 << BRIDGE_PREFIX.saturating_sub(subnet.prefix());
        for _ in 0..=there.min(most - 1) {
            network.add_bridge()?;
        }
        network.write_rules()?;
        Ok(network)
    }

    /// The network's addresses.
    #[must_use]
    pub fn subnet(&self) -> Subnet {
        self.subnet
    }

    /// The host's address on every bridge that exists: where DNS and the platform have to listen for instances. The first one is
    /// there from the beginning; more come with more instances, and any instance reaches any of them.
    #[must_use]
    pub fn gateways(&self) -> Vec<Ipv4Addr> {
        self.bridges.iter().map(Bridge::gateway).collect()
    }

    /// Whether frames are checked against the sender's own address, port by port. `false` on kernels without the nftables bridge
    /// family; addresses outside the subnet are dropped there too, and answers never reach a spoofer.
    #[must_use]
    pub fn checks_every_port(&self) -> bool {
        self.antispoof
    }

    /// Gives the namespace an `eth0` with an address and a default route, and raises its loopback. The namespace must be fresh.
    /// Blocks for a few hundred microseconds; the calling thread visits the namespace and comes back.
    ///
    /// # Errors
    /// [`NetError::Exhausted`], or the kernel's refusal. After an error the namespace is to be thrown away.
    pub fn attach(&mut self, netns: BorrowedFd<'_>) -> Result<Lease, NetError> {
        let mut tries: usize = self.bridges.iter().map(|b| b.free.len()).sum::<usize>() + 1;
        while tries > 0 {
            tries -= 1;
            let (number, host) = self.take()?;
            match self.connect(number, host, netns) {
                Ok(lease) => return Ok(lease),
                // The link of the address's former user, or of an instance we inherited, is still there: another one.
                Err(NetError::Io { source, .. }) if source.raw_os_error() == Some(libc::EEXIST) => {
                    self.put_back(number, host)
                }
                Err(error) => {
                    self.put_back(number, host);
                    return Err(error);
                }
            }
        }
        Err(NetError::Exhausted(
            self.bridges.iter().map(|b| b.hosts().len()).sum(),
        ))
    }

    /// Takes an address back. Call it when the namespace is gone or about to go; its link goes with it.
    pub fn release(&mut self, lease: Lease) {
        self.put_back(lease.bridge, lease.host);
    }

    /// Removes rules, bridges and whatever links are left, of this process or an earlier one. What isn't there is no error.
    ///
    /// # Errors
    /// The kernel's refusal, or nft missing while its tables may be there.
    pub fn tear_down(config: &NetworkConfig) -> Result<(), NetError> {
        check(config)?;
        match rules::apply(&rules::removal(&config.name, true)) {
            Err(NetError::Refused(_)) => rules::apply(&rules::removal(&config.name, false))?,
            other => other?,
        }
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

    /// A free address, from a new bridge if the present ones are full.
    fn take(&mut self) -> Result<(usize, u32), NetError> {
        for (number, bridge) in self.bridges.iter_mut().enumerate() {
            if let Some(host) = bridge.free.pop_front() {
                return Ok((number, host));
            }
        }
        self.add_bridge()?;
        self.write_rules()?;
        let number = self.bridges.len() - 1;
        let host = self
            .bridges
            .get_mut(number)
            .and_then(|b| b.free.pop_front());
        host.map(|host| (number, host))
            .ok_or(NetError::Exhausted(0))
    }

    fn put_back(&mut self, number: usize, host: u32) {
        if let Some(bridge) = self.bridges.get_mut(number) {
            bridge.free.push_back(host);
        }
    }

    fn add_bridge(&mut self) -> Result<(), NetError> {
        let number = u32::try_from(self.bridges.len()).unwrap_or(u32::MAX);
        let most = 1u32 << BRIDGE_PREFIX.saturating_sub(self.subnet.prefix());
        if number >= most {
            return Err(NetError::Exhausted(
                self.bridges.iter().map(|b| b.hosts().len()).sum(),
            ));
        }
        let mut bridge = Bridge::new(&self.config.name, number, self.subnet);
        let gateway = bridge.gateway();
        let mut batch = Batch::default();
        batch.push(
            netlink::RTM_NEWLINK,
            netlink::CREATE,
            &netlink::link_header(0, UP, UP),
            |a| {
                a.text(IFLA_IFNAME, &bridge.link)
                    .bytes(IFLA_ADDRESS, &hardware(gateway))
                    .u32(IFLA_GROUP, self.group);
                a.nest(IFLA_LINKINFO, &[], |a| {
                    a.text(INFO_KIND, "bridge").nest(INFO_DATA, &[], |a| {
                        a.u8(BR_MCAST_SNOOPING, 0);
                    });
                });
            },
        );
        self.socket
            .run_all(&batch)
            .map_err(doing("creating the bridge"))?;
        let link = links(&self.socket)?
            .into_iter()
            .find(|l| l.name == bridge.link);
        bridge.index = link
            .map(|l| l.index)
            .ok_or_else(|| doing("finding the bridge")(io::ErrorKind::NotFound.into()))?;
        let mut batch = Batch::default();
        for (index, address, prefix) in addresses(&self.socket)? {
            if index == bridge.index && (address, prefix) != (gateway, bridge.network.prefix()) {
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
        let header = netlink::address_header(bridge.network.prefix(), bridge.index);
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
            .map_err(doing("giving the bridge its address"))?;
        self.bridges.push(bridge);
        Ok(())
    }

    fn write_rules(&mut self) -> Result<(), NetError> {
        let script = |antispoof| rules::script(&self.config, self.subnet, &self.bridges, antispoof);
        match rules::apply(&script(true)) {
            Err(NetError::Refused(message)) => {
                rules::apply(&script(false)).map_err(|_| NetError::Refused(message))?;
                self.antispoof = false;
                Ok(())
            }
            other => other,
        }
    }

    fn connect(&self, number: usize, host: u32, netns: BorrowedFd<'_>) -> Result<Lease, NetError> {
        let Some(bridge) = self.bridges.get(number) else {
            return Err(NetError::Exhausted(0));
        };
        let (ip, gateway) = (bridge.network.nth(host), bridge.gateway());
        let port = bridge.port(host);
        let fd = u32::try_from(std::os::fd::AsRawFd::as_raw_fd(&netns)).unwrap_or(u32::MAX);

        let mut outside = Batch::default();
        outside.push(
            netlink::RTM_NEWLINK,
            netlink::CREATE | netlink::EXCLUSIVE,
            &netlink::link_header(0, UP, UP),
            |a| {
                a.text(IFLA_IFNAME, &port)
                    .u32(IFLA_MASTER, bridge.index)
                    .u32(IFLA_GROUP, self.group);
                a.nest(IFLA_LINKINFO, &[], |a| {
                    a.text(INFO_KIND, "veth").nest(INFO_DATA, &[], |a| {
                        a.nest(VETH_INFO_PEER, &netlink::link_header(0, 0, 0), |a| {
                            a.text(IFLA_IFNAME, INNER_LINK)
                                .bytes(IFLA_ADDRESS, &hardware(ip))
                                .u32(IFLA_NET_NS_FD, fd);
                        });
                    });
                });
            },
        );
        // Settings of a bridge port can only be given to a port that exists.
        outside.push(
            netlink::RTM_NEWLINK,
            0,
            &netlink::link_header(0, 0, 0),
            |a| {
                a.text(IFLA_IFNAME, &port).nest(IFLA_LINKINFO, &[], |a| {
                    a.text(INFO_SLAVE_KIND, "bridge")
                        .nest(INFO_SLAVE_DATA, &[], |a| {
                            a.u8(BRPORT_ISOLATED, 1);
                        });
                });
            },
        );
        // Neighbours that never expire: no ARP round trip, and thousands of instances do not overflow the host's table.
        outside.push(
            netlink::RTM_NEWNEIGH,
            netlink::CREATE | netlink::REPLACE,
            &netlink::neighbour_header(bridge.index),
            |a| {
                a.ip(NDA_DST, ip).bytes(NDA_LLADDR, &hardware(ip));
            },
        );
        self.socket
            .run_all(&outside)
            .map_err(doing("creating the instance's link"))?;

        let socket = open_inside(netns, self.home.as_fd())
            .map_err(doing("opening a netlink socket in the instance"))?;
        // Some kernels put devices of their own into every namespace, so that the index is not always the same.
        let inner = links(&socket)?
            .into_iter()
            .find(|l| l.name == INNER_LINK)
            .map(|l| l.index);
        let inner = inner
            .ok_or_else(|| doing("finding eth0 in the instance")(io::ErrorKind::NotFound.into()))?;
        let mut inside = Batch::default();
        raise_loopback(&mut inside);
        // Not to be had in the creating request: the inner end is configured before the two are tied together.
        inside.push(
            netlink::RTM_NEWLINK,
            0,
            &netlink::link_header(inner, UP, UP),
            |_| {},
        );
        // A network of one: whatever isn't this instance is behind the gateway, where the rules are.
        inside.push(
            netlink::RTM_NEWADDR,
            netlink::CREATE,
            &netlink::address_header(32, inner),
            |a| {
                a.ip(IFA_LOCAL, ip).ip(IFA_ADDRESS, ip);
            },
        );
        inside.push(
            netlink::RTM_NEWNEIGH,
            netlink::CREATE | netlink::REPLACE,
            &netlink::neighbour_header(inner),
            |a| {
                a.ip(NDA_DST, gateway).bytes(NDA_LLADDR, &hardware(gateway));
            },
        );
        inside.push(
            netlink::RTM_NEWROUTE,
            netlink::CREATE,
            &netlink::DEFAULT_ROUTE_HEADER,
            |a| {
                a.ip(RTA_GATEWAY, gateway).u32(RTA_OIF, inner);
            },
        );
        let done = socket
            .run_all(&inside)
            .map_err(|source| match source.raw_os_error() {
                // Only a fresh namespace can be attached; this EEXIST must not look like a link name in use.
                Some(libc::EEXIST) => {
                    doing("configuring the instance's network")(io::ErrorKind::AlreadyExists.into())
                }
                _ => doing("configuring the instance's network")(source),
            });
        done.map(|()| Lease {
            ip,
            gateway,
            bridge: number,
            host,
        })
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

struct Link {
    index: u32,
    name: String,
}

fn links(socket: &Socket) -> Result<Vec<Link>, NetError> {
    let mut found = Vec::new();
    socket
        .dump(
            netlink::RTM_GETLINK,
            &netlink::link_header(0, 0, 0),
            |body| {
                let name = netlink::attributes(body.get(16..).unwrap_or_default())
                    .find(|(kind, _)| *kind == IFLA_IFNAME);
                if let (Some(index), Some((_, name))) = (netlink::u32_at(body, 4), name) {
                    let name = String::from_utf8_lossy(name)
                        .trim_end_matches('\0')
                        .to_owned();
                    found.push(Link { index, name });
                }
            },
        )
        .map_err(doing("listing links"))?;
    Ok(found)
}

/// All IPv4 addresses of the host: link, address, prefix length.
fn addresses(socket: &Socket) -> Result<Vec<(u32, Ipv4Addr, u8)>, NetError> {
    let mut found = Vec::new();
    socket
        .dump(
            netlink::RTM_GETADDR,
            &netlink::address_header(0, 0),
            |body| {
                let local = netlink::attributes(body.get(8..).unwrap_or_default())
                    .find(|(kind, _)| *kind == IFA_LOCAL);
                let address = local.and_then(|(_, value)| netlink::ip_of(value));
                if let (Some(address), Some(prefix), Some(index)) =
                    (address, body.get(1), netlink::u32_at(body, 4))
                {
                    found.push((index, address, *prefix));
                }
            },
        )
        .map_err(doing("listing addresses"))?;
    Ok(found)
}

/// All IPv4 routes but the default ones: network and link.
fn routes(socket: &Socket) -> Result<Vec<(Subnet, u32)>, NetError> {
    let mut found = Vec::new();
    socket
        .dump(
            netlink::RTM_GETROUTE,
            &[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            |body| {
                let attribute = |wanted| {
                    netlink::attributes(body.get(12..).unwrap_or_default())
                        .find(|(k, _)| *k == wanted)
                        .map(|(_, v)| v)
                };
                let (Some(prefix), Some(to)) =
                    (body.get(1), attribute(RTA_DST).and_then(netlink::ip_of))
                else {
                    return;
                };
                let index = attribute(RTA_OIF)
                    .and_then(|v| netlink::u32_at(v, 0))
                    .unwrap_or(0);
                if *prefix > 0 {
                    found.push((Subnet::of(to, *prefix), index));
                }
            },
        )
        .map_err(doing("listing routes"))?;
    Ok(found)
}

fn choose_subnet(
    config: &NetworkConfig,
    socket: &Socket,
    links: &[Link],
) -> Result<Subnet, NetError> {
    let ours = |index: u32| {
        links.iter().any(|l| {
            l.index == index
                && l.name
                    .strip_prefix(config.name.as_str())
                    .is_some_and(|n| n.parse::<u32>().is_ok())
        })
    };
    let routes = routes(socket)?;
    let taken = |subnet: Subnet| {
        routes
            .iter()
            .find(|(net, link)| net.overlaps(subnet) && !ours(*link))
            .copied()
    };
    let candidates: Vec<Subnet> = CANDIDATES
        .iter()
        .filter_map(|text| text.parse().ok())
        .collect();
    if let Some(subnet) = config.subnet {
        return match taken(subnet) {
            None => Ok(subnet),
            Some((net, index)) => {
                let link = links
                    .iter()
                    .find(|l| l.index == index)
                    .map_or_else(|| "no link".to_owned(), |l| l.name.clone());
                Err(NetError::Collision {
                    subnet,
                    taken: net,
                    link,
                })
            }
        };
    }
    let first = links
        .iter()
        .find(|l| l.name.strip_prefix(config.name.as_str()) == Some("0"));
    if let Some(first) = first {
        let present = addresses(socket)?
            .into_iter()
            .find(|(index, ..)| *index == first.index);
        let known = present
            .and_then(|(_, address, _)| candidates.iter().find(|c| c.contains(address)).copied());
        if let Some(subnet) = known.filter(|s| taken(*s).is_none()) {
            return Ok(subnet);
        }
    }
    candidates
        .into_iter()
        .find(|c| taken(*c).is_none())
        .ok_or(NetError::NoFreeSubnet)
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
