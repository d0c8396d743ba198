//! Limits, disk, names and ports of this host.

use std::fs;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs as _};
use std::path::Path;

use rustix::process::{Resource, getrlimit};

use super::Finding;
use super::kernel::existing;

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Each running instance costs the keeper two descriptors and the server about three.
const COMFORTABLE_FILES: u64 = 20_000;
const COMFORTABLE_PIDS: u64 = 32_768;
const COMFORTABLE_INOTIFY: u64 = 1_024;

pub(super) fn limits() -> Vec<Finding> {
    let files = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let files = if files >= COMFORTABLE_FILES {
        Finding::ok("open files", format!("up to {files}"))
    } else {
        let remedy = "ulimit -Hn 1048576 (systemd: LimitNOFILE=1048576)";
        Finding::warning(
            "open files",
            format!("up to {files}: a few thousand instances at most"),
            remedy,
        )
    };
    let pids = number("/proc/sys/kernel/pid_max").unwrap_or(0);
    let pids = if pids >= COMFORTABLE_PIDS {
        Finding::ok("processes", format!("pid_max is {pids}"))
    } else {
        Finding::warning(
            "processes",
            format!("pid_max is only {pids}"),
            "sysctl -w kernel.pid_max=4194304",
        )
    };
    let watches = number("/proc/sys/fs/inotify/max_user_instances").unwrap_or(0);
    // One for each instance with a memory limit, on cgroup v2 only.
    let v2 = crate::cgroup::Hierarchy::detect().is_ok_and(|h| h.kind() == "v2");
    let watches = if watches >= COMFORTABLE_INOTIFY || !v2 {
        Finding::ok("inotify", format!("max_user_instances is {watches}"))
    } else {
        let found = format!(
            "max_user_instances is {watches}: beyond that, memory kills are told only at exit"
        );
        Finding::warning(
            "inotify",
            found,
            "sysctl -w fs.inotify.max_user_instances=65536",
        )
    };
    vec![files, pids, watches]
}

const LOW_DISK: u64 = 2 << 30;

pub(super) fn disk(data_dir: &Path) -> Vec<Finding> {
    let dir = existing(data_dir);
    let Ok(stat) = rustix::fs::statvfs(dir) else {
        return vec![Finding::missing(
            "data folder",
            format!("{} cannot be read", dir.display()),
            "lauf up --data DIR",
        )];
    };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let shown = format!("{} MiB free in {}", free >> 20, dir.display());
    let space = if free >= LOW_DISK {
        Finding::ok("disk", shown)
    } else {
        Finding::warning(
            "disk",
            shown,
            "free some, or: lauf up --data DIR on a larger disk",
        )
    };
    let writable = rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).is_ok()
        && !stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY);
    let writable = if writable {
        Finding::ok("data folder", format!("{} can be written", dir.display()))
    } else {
        Finding::missing(
            "data folder",
            format!("{} cannot be written", dir.display()),
            "sudo lauf up, or lauf up --data DIR",
        )
    };
    vec![writable, space]
}

/// Whether `curl http://hello.<domain>` finds us without any setup.
pub(super) fn names(domain: &str) -> Finding {
    let host = format!("lauf-doctor.{domain}");
    match (host.as_str(), 80).to_socket_addrs() {
        Ok(found) => {
            let found: Vec<String> = found.map(|a| a.ip().to_string()).collect();
            Finding::ok("names", format!("*.{domain} is {}", found.join(", ")))
        }
        Err(_) if domain.ends_with("localhost") => Finding::warning(
            "names",
            format!(
                "*.{domain} does not resolve with this C library (curl and browsers know it anyway)"
            ),
            "apt install libnss-myhostname",
        ),
        Err(error) => Finding::warning(
            "names",
            format!("*.{domain} does not resolve: {error}"),
            format!(
                "add a DNS record *.{domain} that points here, or: lauf up --domain run.localhost"
            ),
        ),
    }
}

pub(super) fn port(listen: SocketAddr) -> Finding {
    match TcpListener::bind(listen) {
        Ok(_) => Finding::ok("port", format!("{listen} is free")),
        Err(error) => {
            let remedy = format!(
                "ss -ltnp 'sport = :{}' shows who has it; or: lauf up --listen 127.0.0.1:0",
                listen.port()
            );
            Finding::missing("port", format!("{listen}: {error}"), remedy)
        }
    }
}
