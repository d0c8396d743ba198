//! What the host has already: links, addresses, routes; and which subnet is free.

use std::net::Ipv4Addr;

use super::netlink::{self, Socket};
use super::{
    CANDIDATES, IFA_LOCAL, IFLA_IFNAME, NetError, NetworkConfig, RTA_DST, RTA_OIF, Subnet, doing,
};

/// A link of the host.
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
}

/// All links.
pub(super) fn links(socket: &Socket) -> Result<Vec<Link>, NetError> {
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
pub(super) fn addresses(socket: &Socket) -> Result<Vec<(u32, Ipv4Addr, u8)>, NetError> {
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

/// The subnet that is configured, else the one an earlier process had, else the first that is free.
pub(super) fn choose_subnet(
    config: &NetworkConfig,
    socket: &Socket,
    links: &[Link],
) -> Result<Subnet, NetError> {
    let ours = |index: u32| {
        links.iter().any(|l| {
            l.index == index
                && l.name
                    .strip_prefix(config.name.as_str())
                    .is_some_and(|n| n == "0" || n.starts_with('-'))
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
