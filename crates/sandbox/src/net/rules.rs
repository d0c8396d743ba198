//! The packet filter: what instances may reach, written as one nftables transaction.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use super::{NetError, NetworkConfig, PRIVATE, Private, Subnet};

/// The whole rule set of this network. It begins by deleting what is there, so that the kernel swaps old for new in one step. It says
/// nothing of single instances: their links are known by the beginning of their names.
pub(super) fn script(
    config: &NetworkConfig,
    subnet: Subnet,
    gateway: Ipv4Addr,
    check_senders: bool,
) -> String {
    let name = &config.name;
    let links = format!("\"{name}-*\"");
    let mut ports: Vec<u16> = config.allow_host_ports.clone();
    ports.extend(config.dns_port);
    ports.extend(config.metadata_port);
    ports.push(53);
    ports.sort_unstable();
    ports.dedup();
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    let ports = ports.join(", ");
    let mut redirects = String::new();
    let mut redirect = |from: &str, to: u16| {
        let _ = writeln!(
            redirects,
            "    iifname {links} ip daddr {from} dnat ip to {gateway}:{to}"
        );
    };
    if let Some(port) = config.dns_port.filter(|p| *p != 53) {
        redirect(&format!("{gateway} udp dport 53"), port);
        redirect(&format!("{gateway} tcp dport 53"), port);
    }
    if let Some(port) = config.metadata_port {
        redirect("169.254.169.254 tcp dport 80", port);
    }
    // An instance may only send from its own address: the one whose route leads back where the packet came from.
    let spoofed = if check_senders {
        format!("\n    iifname {links} fib saddr . iif oif missing drop")
    } else {
        String::new()
    };
    let udp_dns = config.dns_port.map_or_else(String::new, |p| {
        format!("ip daddr {gateway} udp dport {p} accept\n    ")
    });

    let neighbours = match &config.private {
        Private::All => String::new(),
        Private::Only(allowed) => {
            let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
            let except = if allowed.is_empty() {
                String::new()
            } else {
                format!("ip daddr != {{ {} }} ", allowed.join(", "))
            };
            format!(
                "ip daddr {{ {} }} {except}reject with icmpx type admin-prohibited\n    ",
                PRIVATE.join(", ")
            )
        }
    };
    // Order matters in `outward`: answers first (most packets), then what is never allowed, then the world.
    format!(
        "table inet {name}
delete table inet {name}
table inet {name} {{
  chain spoofed {{
    type filter hook prerouting priority raw; policy accept;
    iifname {links} meta nfproto ipv6 drop
    iifname {links} ip saddr != {subnet} drop{spoofed}
  }}
  chain to_host {{
    type filter hook input priority filter; policy accept;
    iifname != {links} accept
    ct state established,related accept
    ip daddr {gateway} tcp dport {{ {ports} }} accept
    ip daddr {gateway} udp dport 53 accept
    {udp_dns}ip daddr {gateway} icmp type echo-request accept
    reject with icmpx type admin-prohibited
  }}
  chain outward {{
    type filter hook forward priority filter; policy accept;
    iifname {links} oifname {links} reject with icmpx type admin-prohibited
    iifname {links} ct state established,related accept
    oifname {links} ct state established,related accept
    oifname {links} drop
    iifname != {links} accept
    ip daddr {{ 169.254.0.0/16, 127.0.0.0/8, 224.0.0.0/4, {subnet} }} reject with icmpx type admin-prohibited
    {neighbours}tcp flags syn tcp option maxseg size set rt mtu
    accept
  }}
  chain redirected {{
    type nat hook prerouting priority dstnat; policy accept;
{redirects}  }}
  chain masked {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {subnet} oifname != {links} masquerade
  }}
}}
"
    )
}

/// Removes what [`script`] made. One transaction; a table that is not there is made first, so that
/// deleting cannot fail.
pub(super) fn removal(name: &str) -> String {
    format!("table inet {name}\ndelete table inet {name}\n")
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
    // nft quotes the whole offending line.
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
