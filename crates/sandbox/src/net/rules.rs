//! The packet filter: what instances may reach, written as one nftables transaction.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::{Command, Stdio};

use super::{Bridge, NetError, NetworkConfig, Subnet};

/// The whole rule set of this network. It begins by deleting what is there, so that the kernel swaps old for new in one step.
pub(super) fn script(
    config: &NetworkConfig,
    subnet: Subnet,
    bridges: &[Bridge],
    with_bridge_family: bool,
) -> String {
    let name = &config.name;
    let links: Vec<String> = bridges.iter().map(|b| format!("\"{}\"", b.link)).collect();
    let links = links.join(", ");
    let gateways: Vec<String> = bridges.iter().map(|b| b.gateway().to_string()).collect();
    let gateways = gateways.join(", ");
    let mut ports: Vec<u16> = config.allow_host_ports.clone();
    ports.extend(config.dns_port);
    ports.extend(config.metadata_port);
    ports.push(53);
    ports.sort_unstable();
    ports.dedup();
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    let ports = ports.join(", ");
    let mut redirects = String::new();
    if let Some(port) = config.dns_port.filter(|p| *p != 53) {
        let _ = writeln!(
            redirects,
            "    iifname {{ {links} }} ip daddr {{ {gateways} }} udp dport 53 redirect to :{port}"
        );
        let _ = writeln!(
            redirects,
            "    iifname {{ {links} }} ip daddr {{ {gateways} }} tcp dport 53 redirect to :{port}"
        );
    }
    if let Some(port) = config.metadata_port {
        let _ = writeln!(
            redirects,
            "    iifname {{ {links} }} ip daddr 169.254.169.254 tcp dport 80 redirect to :{port}"
        );
    }

    // Order matters in `outward`: answers first (most packets), then what is never allowed, then the world.
    let mut text = format!(
        "table inet {name}
delete table inet {name}
table inet {name} {{
  chain spoofed {{
    type filter hook prerouting priority raw; policy accept;
    iifname {{ {links} }} ip saddr != {subnet} drop
    iifname {{ {links} }} meta nfproto ipv6 drop
  }}
  chain to_host {{
    type filter hook input priority filter; policy accept;
    iifname != {{ {links} }} accept
    ct state established,related accept
    ip daddr {{ {gateways} }} tcp dport {{ {ports} }} accept
    ip daddr {{ {gateways} }} udp dport 53 accept
    {udp_dns}ip daddr {{ {gateways} }} icmp type echo-request accept
    reject with icmpx type admin-prohibited
  }}
  chain outward {{
    type filter hook forward priority filter; policy accept;
    iifname {{ {links} }} oifname {{ {links} }} reject with icmpx type admin-prohibited
    iifname {{ {links} }} ct state established,related accept
    oifname {{ {links} }} ct state established,related accept
    oifname {{ {links} }} drop
    iifname != {{ {links} }} accept
    ip daddr {{ 169.254.0.0/16, 127.0.0.0/8, 224.0.0.0/4, {subnet} }} reject with icmpx type admin-prohibited
    tcp flags syn tcp option maxseg size set rt mtu
    accept
  }}
  chain redirected {{
    type nat hook prerouting priority dstnat; policy accept;
{redirects}  }}
  chain masked {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {subnet} oifname != {{ {links} }} masquerade
  }}
}}
",
        udp_dns = config.dns_port.map_or_else(String::new, |p| format!("ip daddr {{ {gateways} }} udp dport {p} accept\n    ")),
    );
    if with_bridge_family {
        text.push_str(&bridge_table(name, bridges));
    }
    text
}

/// An instance may only send from its own address. Which address belongs to which port is fixed by the port's name, so the list is
/// written once per bridge and no attach ever touches the rules.
fn bridge_table(name: &str, bridges: &[Bridge]) -> String {
    let (mut owners, mut ours) = (String::new(), String::new());
    for bridge in bridges {
        // By name and not by `ibrname`, for which many kernels have no module.
        let _ = writeln!(ours, "    iifname \"{}-*\" jump owned", bridge.link);
        for host in bridge.hosts() {
            let _ = write!(
                owners,
                "\"{}\" . {},",
                bridge.port(host),
                bridge.network.nth(host)
            );
        }
    }
    format!(
        "table bridge {name}
delete table bridge {name}
table bridge {name} {{
  set owners {{
    type ifname . ipv4_addr
    elements = {{ {owners} }}
  }}
  chain owned {{
    ether type ip iifname . ip saddr @owners accept
    ether type arp iifname . arp saddr ip @owners accept
    drop
  }}
  chain spoofed {{
    type filter hook prerouting priority -300; policy accept;
{ours}  }}
}}
"
    )
}

/// Removes what [`script`] made. One transaction; tables that are not there are made first, so that deleting cannot fail.
pub(super) fn removal(name: &str, with_bridge_family: bool) -> String {
    let mut text = format!("table inet {name}\ndelete table inet {name}\n");
    if with_bridge_family {
        let _ = write!(text, "table bridge {name}\ndelete table bridge {name}\n");
    }
    text
}

/// Has the `nft` program carry out a script, all of it or nothing.
pub(super) fn apply(script: &str) -> Result<(), NetError> {
    let child = Command::new("nft")
        .args(["-f", "-"])
        .env("PATH", search_path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(NetError::NoNft),
        other => other.map_err(NetError::Nft)?,
    };
    if let Some(mut stdin) = child.stdin.take() {
        // A broken pipe means that nft gave up; what it said is more useful.
        let _ = stdin.write_all(script.as_bytes());
    }
    let output = child.wait_with_output().map_err(NetError::Nft)?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    // nft quotes the whole offending line, which can be the list of a thousand owners.
    let message: Vec<String> = message
        .lines()
        .take(4)
        .map(|l| l.chars().take(200).collect())
        .collect();
    Err(NetError::Refused(message.join(" / ")))
}

/// Services are often started without the folders where nft lives.
fn search_path() -> std::ffi::OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin:/usr/local/sbin");
    path
}
