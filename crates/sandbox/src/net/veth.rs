//! The link of one instance: a veth pair with a route on either side.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use serde::{Deserialize, Serialize};

use super::netlink::{self, Attributes, Batch, Socket};
use super::{
    IFA_ADDRESS, IFA_LOCAL, IFLA_ADDRESS, IFLA_AF_SPEC, IFLA_GROUP, IFLA_IFNAME,
    IFLA_INET6_ADDR_GEN_MODE, IFLA_LINKINFO, IFLA_NET_NS_FD, IFLA_NUM_RX_QUEUES,
    IFLA_NUM_TX_QUEUES, INFO_DATA, INFO_KIND, NDA_DST, NDA_LLADDR, NetError, RTA_DST, RTA_GATEWAY,
    RTA_OIF, RTA_PREFSRC, UP, VETH_INFO_PEER, doing, hardware, raise_loopback,
};

/// What the instance calls its end.
const INNER_LINK: &str = "eth0";
/// The number of the instance's end in its namespace. Some kernels put devices of their own into every namespace, with small ones.
const INNER_INDEX: u32 = 100;
/// Numbers of the host's ends begin here, far above those the kernel gives out.
const OUTER_INDEX: u32 = 0x4000_0000;

/// One instance's address, and with it everything about its link.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The instance's own address.
    pub ip: Ipv4Addr,
    /// The host's end: gateway, DNS server, and where the platform answers.
    pub gateway: Ipv4Addr,
    number: u32,
    /// The host's end of the veth.
    port: String,
    index: u32,
    group: u32,
}

impl Lease {
    pub(super) fn new(
        name: &str,
        group: u32,
        gateway: Ipv4Addr,
        ip: Ipv4Addr,
        number: u32,
    ) -> Self {
        Self {
            ip,
            gateway,
            number,
            port: format!("{name}-{number}"),
            // Fourteen bits of the name's hash keep the networks of one host apart, sixteen are the number's.
            index: OUTER_INDEX | (group & 0x3fff) << 16 | number & 0xffff,
            group,
        }
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }

    #[cfg(test)]
    pub(super) fn port(&self) -> &str {
        &self.port
    }

    #[cfg(test)]
    pub(super) fn index(&self) -> u32 {
        self.index
    }

    /// Makes the pair and configures both ends. `host` and `inside` are sockets of the two namespaces, and `netns` is the inner one,
    /// which must be fresh.
    pub(super) fn connect(
        &self,
        host: &Socket,
        inside: &Socket,
        netns: BorrowedFd<'_>,
    ) -> Result<(), NetError> {
        let made = host.run_all(&self.pair(netns));
        made.map_err(|source| match source.raw_os_error() {
            // The name, or on newer kernels the number, is taken.
            Some(libc::EEXIST | libc::EBUSY) => NetError::InUse,
            _ => doing("creating the instance's link")(source),
        })?;
        host.run_all(&self.outer_end())
            .map_err(doing("configuring the instance's link"))?;
        inside
            .run_all(&self.inner_end())
            .map_err(doing("configuring the instance's network"))
    }

    /// Creates both ends, down. One queue each: by default the kernel makes one for each processor.
    fn pair(&self, netns: BorrowedFd<'_>) -> Batch {
        let netns = u32::try_from(netns.as_raw_fd()).unwrap_or(u32::MAX);
        let queues = |a: &mut Attributes<'_>| {
            a.u32(IFLA_NUM_TX_QUEUES, 1).u32(IFLA_NUM_RX_QUEUES, 1);
        };
        let mut batch = Batch::default();
        batch.push(
            netlink::RTM_NEWLINK,
            netlink::CREATE | netlink::EXCLUSIVE,
            &netlink::link_header(self.index, 0, 0),
            |a| {
                a.text(IFLA_IFNAME, &self.port)
                    .bytes(IFLA_ADDRESS, &hardware(self.gateway))
                    .u32(IFLA_GROUP, self.group);
                queues(a);
                a.nest(IFLA_LINKINFO, &[], |a| {
                    a.text(INFO_KIND, "veth").nest(INFO_DATA, &[], |a| {
                        let header = netlink::link_header(INNER_INDEX, 0, 0);
                        a.nest(VETH_INFO_PEER, &header, |a| {
                            a.text(IFLA_IFNAME, INNER_LINK)
                                .bytes(IFLA_ADDRESS, &hardware(self.ip))
                                .u32(IFLA_NET_NS_FD, netns);
                            queues(a);
                        });
                    });
                });
            },
        );
        batch
    }

    fn outer_end(&self) -> Batch {
        let mut batch = Batch::default();
        raise(&mut batch, self.index);
        // Neighbours that never expire: no ARP round trip, and thousands of instances do not overflow the host's table.
        neighbour(&mut batch, self.index, self.ip);
        batch.push(
            netlink::RTM_NEWROUTE,
            netlink::CREATE | netlink::REPLACE,
            &netlink::HOST_ROUTE_HEADER,
            |a| {
                a.ip(RTA_DST, self.ip)
                    .u32(RTA_OIF, self.index)
                    .ip(RTA_PREFSRC, self.gateway);
            },
        );
        batch
    }

    fn inner_end(&self) -> Batch {
        let mut batch = Batch::default();
        raise_loopback(&mut batch);
        raise(&mut batch, INNER_INDEX);
        // A network of one: whatever isn't this instance is behind the gateway, where the rules are.
        batch.push(
            netlink::RTM_NEWADDR,
            netlink::CREATE,
            &netlink::address_header(32, INNER_INDEX),
            |a| {
                a.ip(IFA_LOCAL, self.ip).ip(IFA_ADDRESS, self.ip);
            },
        );
        neighbour(&mut batch, INNER_INDEX, self.gateway);
        batch.push(
            netlink::RTM_NEWROUTE,
            netlink::CREATE,
            &netlink::DEFAULT_ROUTE_HEADER,
            |a| {
                a.ip(RTA_GATEWAY, self.gateway).u32(RTA_OIF, INNER_INDEX);
            },
        );
        batch
    }
}

/// Raises a link, without an IPv6 address: nothing is routed there, and the kernel would announce it and ask around.
fn raise(batch: &mut Batch, index: u32) {
    const INET6: u16 = 10;
    const NONE: u8 = 1;
    let quiet = netlink::link_header(index, 0, 0);
    batch.push(netlink::RTM_NEWLINK, 0, &quiet, |a| {
        a.nest(IFLA_AF_SPEC, &[], |a| {
            a.nest(INET6, &[], |a| {
                a.u8(IFLA_INET6_ADDR_GEN_MODE, NONE);
            });
        });
    });
    batch.last_may_fail();
    batch.push(
        netlink::RTM_NEWLINK,
        0,
        &netlink::link_header(index, UP, UP),
        |_| {},
    );
}

fn neighbour(batch: &mut Batch, index: u32, ip: Ipv4Addr) {
    batch.push(
        netlink::RTM_NEWNEIGH,
        netlink::CREATE | netlink::REPLACE,
        &netlink::neighbour_header(index),
        |a| {
            a.ip(NDA_DST, ip).bytes(NDA_LLADDR, &hardware(ip));
        },
    );
}

/// The way from a process's first network namespace to the one it makes for itself: opened in the one, used in the other.
#[derive(Debug)]
pub(crate) struct Connector {
    host: Socket,
}

impl Connector {
    /// # Errors
    /// The kernel's answer.
    pub(crate) fn open() -> io::Result<Self> {
        Socket::open().map(|host| Self { host })
    }

    /// Connects the namespace the caller is in, which must be fresh, and raises its loopback.
    ///
    /// # Errors
    /// [`NetError::InUse`] when another lease would do, or the kernel's refusal.
    pub(crate) fn connect(&self, lease: &Lease) -> Result<(), NetError> {
        let inside = Socket::open().map_err(doing("opening a netlink socket in the instance"))?;
        let netns =
            std::fs::File::open("/proc/self/ns/net").map_err(doing("opening /proc/self/ns/net"))?;
        lease.connect(&self.host, &inside, std::os::fd::AsFd::as_fd(&netns))
    }
}
