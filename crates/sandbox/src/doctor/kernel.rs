//! What the kernel can do for us.

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

use super::Finding;
use crate::cgroup::{Hierarchy, Limits};
use crate::net::{Network, NetworkConfig};
use crate::{net, sys};

/// Runs a probe in a thread that first leaves for new namespaces. What the probe makes there is gone when the thread ends.
fn apart<T: Send>(
    namespaces: libc::c_int,
    probe: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            sys::new_namespaces(namespaces)?;
            probe()
        });
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the probe failed")))
    })
}

pub(super) fn version() -> Finding {
    let name = rustix::system::uname();
    let text = |c: &std::ffi::CStr| c.to_string_lossy().into_owned();
    Finding::ok(
        "kernel",
        format!("Linux {} on {}", text(name.release()), text(name.machine())),
    )
}

pub(super) fn privileges() -> Finding {
    // CAP_NET_ADMIN, CAP_SYS_CHROOT, CAP_SYS_ADMIN, CAP_MKNOD, CAP_SETUID, CAP_SETGID, CAP_KILL.
    const NEEDED: [(u32, &str); 7] = [
        (12, "NET_ADMIN"),
        (18, "SYS_CHROOT"),
        (21, "SYS_ADMIN"),
        (27, "MKNOD"),
        (7, "SETUID"),
        (6, "SETGID"),
        (5, "KILL"),
    ];
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok())
        .unwrap_or(0);
    let lacking: Vec<&str> = NEEDED
        .iter()
        .filter(|(bit, _)| effective >> bit & 1 == 0)
        .map(|(_, n)| *n)
        .collect();
    if !rustix::process::geteuid().is_root() {
        return Finding::missing("privileges", "not root", "sudo lauf up");
    }
    if lacking.is_empty() {
        return Finding::ok("privileges", "root with the capabilities needed");
    }
    let found = format!("root without CAP_{}", lacking.join(", CAP_"));
    Finding::missing(
        "privileges",
        found,
        "run outside a container, or give it: docker run --privileged --cgroupns host ...",
    )
}

pub(super) fn namespaces() -> Vec<Finding> {
    let mut found = Vec::new();
    for (name, flag) in [
        ("pid namespaces", libc::CLONE_NEWPID),
        ("mount namespaces", libc::CLONE_NEWNS),
        ("network namespaces", libc::CLONE_NEWNET),
        ("ipc namespaces", libc::CLONE_NEWIPC),
        ("uts namespaces", libc::CLONE_NEWUTS),
        ("cgroup namespaces", libc::CLONE_NEWCGROUP),
    ] {
        if let Err(error) = apart(flag, || Ok(())) {
            let remedy = "needs root, and a kernel with CONFIG_NAMESPACES: sudo lauf doctor";
            found.push(Finding::missing(name, error.to_string(), remedy));
        }
    }
    if found.is_empty() {
        found.push(Finding::ok(
            "namespaces",
            "pid, mount, network, ipc, uts and cgroup can be made",
        ));
    }
    found.push(user_namespaces());
    found
}

/// A user namespace can't be made by a process with threads, hence a child.
fn user_namespaces() -> Finding {
    let mut command = Command::new("/proc/self/exe");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // SAFETY: system calls only between fork and exec. The child never gets to exec: success is reported as an error of our own.
    unsafe {
        command.pre_exec(|| {
            sys::new_namespaces(libc::CLONE_NEWUSER)?;
            Err(io::Error::from_raw_os_error(libc::EALREADY))
        });
    }
    match command.spawn() {
        Err(error) if error.raw_os_error() == Some(libc::EALREADY) => {
            Finding::ok("user namespaces", "can be made")
        }
        Err(error) => Finding::missing(
            "user namespaces",
            error.to_string(),
            "sysctl -w user.max_user_namespaces=65536 kernel.unprivileged_userns_clone=1",
        ),
        Ok(mut child) => {
            let _ = child.kill().and_then(|()| child.wait());
            Finding::ok("user namespaces", "can be made")
        }
    }
}

/// The closest existing folder at or above `path`.
pub(super) fn existing(path: &Path) -> &Path {
    path.ancestors()
        .find(|p| p.is_dir())
        .unwrap_or(Path::new("/"))
}

pub(super) fn mounts(data_dir: &Path) -> Vec<Finding> {
    let lower = existing(data_dir).to_owned();
    let tmpfs = apart(libc::CLONE_NEWNS, || {
        private_tmpfs()?;
        Ok(())
    });
    if let Err(error) = tmpfs {
        return vec![Finding::missing(
            "tmpfs",
            error.to_string(),
            "needs root and a kernel with CONFIG_TMPFS: sudo lauf doctor",
        )];
    }
    // As an instance is mounted: image layers from the data folder below, a folder in memory above.
    let overlay = apart(libc::CLONE_NEWNS, move || {
        let data = rustix::fs::open(
            &lower,
            rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY,
            rustix::fs::Mode::empty(),
        )?;
        private_tmpfs()?;
        for dir in ["/tmp/upper", "/tmp/work", "/tmp/merged"] {
            fs::create_dir(dir)?;
        }
        let lower = std::os::fd::AsRawFd::as_raw_fd(&data);
        let options =
            format!("lowerdir=/proc/thread-self/fd/{lower},upperdir=/tmp/upper,workdir=/tmp/work");
        let options = std::ffi::CString::new(options).map_err(io::Error::other)?;
        mount(
            "overlay",
            "/tmp/merged",
            "overlay",
            MountFlags::empty(),
            Some(options.as_c_str()),
        )?;
        fs::write("/tmp/merged/.lauf-doctor", "x")?;
        fs::read("/tmp/upper/.lauf-doctor").map(drop)
    });
    let overlay = match overlay {
        Ok(()) => Finding::ok(
            "overlayfs",
            format!("mounts with its layers in {}", existing(data_dir).display()),
        ),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Finding::missing(
            "overlayfs",
            "not in this kernel",
            "modprobe overlay && echo overlay > /etc/modules-load.d/lauf.conf",
        ),
        Err(error) => Finding::missing(
            "overlayfs",
            format!(
                "refused with layers in {}: {error}",
                existing(data_dir).display()
            ),
            "put --data on a local file system such as ext4, xfs or btrfs: lauf up --data DIR",
        ),
    };
    vec![Finding::ok("tmpfs", "mounts"), overlay]
}

/// In a new mount namespace: nothing gets out any more, and /tmp is empty and ours.
fn private_tmpfs() -> io::Result<()> {
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    Ok(mount("tmpfs", "/tmp", "tmpfs", MountFlags::empty(), None)?)
}

pub(super) fn seccomp() -> Finding {
    let actions = fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    if !actions.split_ascii_whitespace().any(|a| a == "errno") {
        return Finding::missing(
            "seccomp",
            "not in this kernel",
            "use a kernel with CONFIG_SECCOMP_FILTER (every distribution's has it)",
        );
    }
    // In a thread, which takes the filter with it when it ends.
    let tried = apart(0, || {
        let filter = crate::seccomp::default_filter().map_err(io::Error::other)?;
        rustix::thread::set_no_new_privs(true)?;
        crate::seccomp::install(&filter)
    });
    match tried {
        Ok(()) => Finding::ok("seccomp", "the filter of instances can be installed"),
        Err(error) => Finding::missing(
            "seccomp",
            error.to_string(),
            "allow seccomp(2) to whatever contains Lauf",
        ),
    }
}

pub(super) fn pidfd() -> Finding {
    let tried = pidfd_open(getpid(), PidfdFlags::empty()).and_then(|fd| {
        // Signal 0 asks whether it could be sent; WINCH is ignored by default, as 0 has no name here.
        pidfd_send_signal(fd.as_fd(), Signal::WINCH)
    });
    match tried {
        Ok(()) => Finding::ok("pidfd", "open and signal work"),
        Err(error) => Finding::missing(
            "pidfd",
            io::Error::from(error).to_string(),
            "use Linux 5.10 or newer",
        ),
    }
}

pub(super) fn cgroups() -> Vec<Finding> {
    let hierarchy = match Hierarchy::detect() {
        Ok(hierarchy) => hierarchy,
        Err(error) => {
            return vec![Finding::missing(
                "cgroups",
                error.to_string(),
                "mount -t cgroup2 none /sys/fs/cgroup",
            )];
        }
    };
    let layout = Finding::ok("cgroups", hierarchy.describe());
    let root = match hierarchy.root(&format!("lauf-doctor-{}", std::process::id())) {
        Ok(root) => root,
        Err(error) => {
            return vec![
                layout,
                Finding::missing(
                    "cgroup limits",
                    error.to_string(),
                    "sudo lauf up, or systemd: Delegate=yes",
                ),
            ];
        }
    };
    let limits = Limits {
        cpu_millis: 500,
        memory_bytes: 64 << 20,
        pids_max: 16,
    };
    let group = root.create("probe");
    let tried = group
        .as_ref()
        .map_err(ToString::to_string)
        .and_then(|g| g.set_limits(&limits).map_err(|e| e.to_string()));
    let limits = match tried {
        Ok(()) => Finding::ok("cgroup limits", "CPU, memory and task limits can be set"),
        Err(error) => {
            let remedy =
                "give Lauf the controllers: systemctl set-property lauf.service Delegate=yes";
            Finding::missing("cgroup limits", error, remedy)
        }
    };
    let into = group.as_ref().ok().map(clone_into);
    let into = match into {
        Some(Ok(true)) => Finding::ok(
            "CLONE_INTO_CGROUP",
            "processes can be born into their cgroup",
        ),
        Some(Ok(false)) | None => Finding::warning(
            "CLONE_INTO_CGROUP",
            "no cgroup v2 tree: starts take a little longer, freezing is slower",
            "mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified",
        ),
        Some(Err(error)) => Finding::warning(
            "CLONE_INTO_CGROUP",
            error.to_string(),
            "use Linux 5.7 or newer for faster starts",
        ),
    };
    if let Ok(group) = &group {
        let _ = group.kill_all();
        // The child was waited for, so this takes a few tries at most.
        for _ in 0..100 {
            match group.destroy() {
                Err(error) if error.is_busy() => {
                    std::thread::sleep(std::time::Duration::from_millis(2))
                }
                _ => break,
            }
        }
    }
    let _ = root.remove();
    vec![layout, limits, into]
}

/// Whether a process can be started in the group; `false` if there is no folder to start it in.
fn clone_into(group: &crate::cgroup::Cgroup) -> io::Result<bool> {
    let Some(folder) = group.clone_into_fd() else {
        return Ok(false);
    };
    match sys::clone_process(0, Some(folder.as_fd()))? {
        // Other threads' locks may be held in this copy of the process; ending takes none.
        sys::Cloned::Child => sys::exit_now(0),
        sys::Cloned::Parent { pidfd, .. } => {
            use rustix::process::{WaitId, WaitIdOptions, waitid};
            waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)?;
            Ok(true)
        }
    }
}

pub(super) fn network(egress: bool) -> Vec<Finding> {
    if !egress {
        let lo = apart(libc::CLONE_NEWNET, net::lo_up_here);
        return vec![match lo {
            Ok(()) => Finding::ok("network", "egress is off; instances have their loopback"),
            Err(error) => Finding::missing("network", error.to_string(), "sudo lauf doctor"),
        }];
    }
    // The whole thing, gateway, rules and one instance, in a network namespace that plays the host.
    let tried = apart(libc::CLONE_NEWNET, || {
        let config = NetworkConfig {
            name: "doctor".to_owned(),
            ..NetworkConfig::default()
        };
        let home = fs::File::open("/proc/thread-self/ns/net")?;
        sys::new_namespaces(libc::CLONE_NEWNET)?;
        let instance = fs::File::open("/proc/thread-self/ns/net")?;
        sys::enter_namespace(home.as_fd(), libc::CLONE_NEWNET)?;
        let mut network = match Network::set_up(&config) {
            Ok(network) => network,
            Err(error) => return Ok(Err(error)),
        };
        Ok(network
            .attach(instance.as_fd())
            .map(|_| network.checks_every_sender()))
    });
    let network = match tried {
        Ok(Ok(true)) => Finding::ok("egress", "veth, routes, NAT and checks of senders work"),
        Ok(Ok(false)) => Finding::warning(
            "egress",
            "works, but the kernel can't check that instances send from their own addresses",
            "use a kernel with CONFIG_NFT_FIB_INET (modprobe nft_fib_inet)",
        ),
        Ok(Err(net::NetError::NoNft)) => Finding::missing(
            "egress",
            "the program nft is not installed",
            "apt install nftables",
        ),
        Ok(Err(error)) => {
            let remedy = "modprobe -a bridge veth nf_tables nft_masq nft_nat nft_reject_inet nft_chain_nat nft_ct nft_fib_inet";
            Finding::missing("egress", error.to_string(), remedy)
        }
        Err(error) => Finding::missing(
            "egress",
            error.to_string(),
            "sudo lauf doctor, or start with egress off",
        ),
    };
    vec![network, forwarding(), foreign_filter()]
}

fn forwarding() -> Finding {
    let now = fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap_or_default();
    if now.trim() == "1" {
        return Finding::ok("ip_forward", "on");
    }
    // Opened, not written: switching it on is for `lauf up`.
    match fs::OpenOptions::new()
        .write(true)
        .open("/proc/sys/net/ipv4/ip_forward")
    {
        Ok(_) => Finding::ok("ip_forward", "off; lauf up switches it on"),
        Err(error) => Finding::missing(
            "ip_forward",
            format!("off, and {error}"),
            "sysctl -w net.ipv4.ip_forward=1",
        ),
    }
}

/// Docker makes the host drop forwarded packets that it does not know; accepting them in a table of ours does not help.
fn foreign_filter() -> Finding {
    let listing = Command::new("nft")
        .args(["list", "chain", "ip", "filter", "FORWARD"])
        .stderr(Stdio::null())
        .output();
    let text = listing
        .map(|o| String::from_utf8_lossy(&o.stdout).into_owned())
        .unwrap_or_default();
    if text.contains("policy drop") && !text.contains("lauf") {
        let remedy = "iptables -I FORWARD -i lauf+ -j ACCEPT && iptables -I FORWARD -o lauf+ -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT";
        return Finding::warning(
            "firewall",
            "the FORWARD chain drops what it does not know (Docker does that): instances would have no egress",
            remedy,
        );
    }
    Finding::ok(
        "firewall",
        "no other rule drops forwarded packets by default",
    )
}
