//! What a zygote does before a request comes: namespaces, cgroup, network, `/proc`, `/dev`, `/sys`, user namespace.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{
    CWD, FileType, Gid, Mode, OFlags, Uid, chmodat, chown, makedev, mkdirat, mknodat,
};
use rustix::mount::MountFlags;

use super::mounts::{bind, bind_read_only, mount_new};
use super::{Failure, Step, Template};
use crate::cgroup::Cgroup;
use crate::protocol::FailReason::Host;
use crate::spec::{ContainerSpec, ID_COUNT};
use crate::sys::{self, Cloned};

/// What waits for the start.
pub(super) struct Prepared {
    /// The user namespace to enter late.
    pub(super) user_namespace: OwnedFd,
    /// The container's own `/dev/null`, for the standard input.
    pub(super) null: OwnedFd,
}

/// Files in `/proc` and `/sys` that tell about or control the host: hidden, as Docker hides them.
pub(super) const MASKED: [&str; 13] = [
    "proc/acpi",
    "proc/asound",
    "proc/interrupts",
    "proc/kcore",
    "proc/keys",
    "proc/latency_stats",
    "proc/sched_debug",
    "proc/scsi",
    "proc/timer_list",
    "proc/timer_stats",
    "sys/devices/virtual/powercap",
    "sys/firmware",
    "sys/kernel/debug",
];

/// Parts of `/proc` that stay visible and lose their write access.
pub(super) const READ_ONLY: [&str; 5] = [
    "proc/bus",
    "proc/fs",
    "proc/irq",
    "proc/sys",
    "proc/sysrq-trigger",
];

pub(super) const NO_EXEC: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);

/// See the module.
pub(super) fn prepare(template: &Template, cgroup: &Cgroup) -> Result<Prepared, Failure> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .step(Host, "tie life to the keeper's")?;
    cgroup.enter_self().step(Host, "enter the cgroup")?;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    sys::new_namespaces(libc::CLONE_NEWCGROUP | libc::CLONE_NEWNET)
        .step(Host, "make namespaces")?;
    // Where the host's killer looks first when the whole machine is out of memory. Not vital.
    let _ = fs::write("/proc/self/oom_score_adj", "500");
    // Keys are the host's business; without kernel support there are none to keep apart.
    let _ = sys::own_keyring();
    rustix::process::setsid().ok();
    network().step(Host, "set up the loopback interface")?;

    let stage = &template.stage;
    let base = template.uid_base;
    // Its size is set when the memory limit is known.
    mount_new(
        "tmpfs",
        stage,
        MountFlags::NOSUID | MountFlags::NODEV,
        "mode=0700",
    )
    .step(Host, "mount the writable layer")?;
    for (name, mode, owner) in [
        ("upper", 0o755, base),
        ("work", 0o700, 0),
        ("root", 0o755, 0),
        ("empty", 0o755, base),
        ("layers", 0o700, 0),
        ("mask", 0o755, 0),
        ("proc", 0o755, 0),
        ("sys", 0o755, 0),
        ("dev", 0o755, 0),
    ] {
        make_dir(&stage.join(name), mode, owner).step(Host, "make the stage")?;
    }
    device_tree(&stage.join("dev"), base).step(Host, "set up /dev")?;
    let open_null = rustix::fs::open(
        stage.join("dev/null"),
        OFlags::RDWR | OFlags::CLOEXEC,
        Mode::empty(),
    );
    let null = open_null.step(Host, "open /dev/null")?;
    mount_new("proc", &stage.join("proc"), NO_EXEC, "").step(Host, "mount /proc")?;
    mount_new(
        "sysfs",
        &stage.join("sys"),
        NO_EXEC | MountFlags::RDONLY,
        "",
    )
    .step(Host, "mount /sys")?;
    mask(stage).step(Host, "hide parts of /proc and /sys")?;
    show_cgroups(template, &groups).step(Host, "show the cgroup in /sys/fs/cgroup")?;
    let user_namespace = user_namespace(template).step(
        Host,
        "make a user namespace (is user.max_user_namespaces too low?)",
    )?;
    Ok(Prepared {
        user_namespace,
        null,
    })
}

pub(super) fn make_dir(path: &Path, mode: u32, owner: u32) -> io::Result<()> {
    mkdirat(CWD, path, Mode::from_raw_mode(mode))?;
    chmodat(
        CWD,
        path,
        Mode::from_raw_mode(mode),
        rustix::fs::AtFlags::empty(),
    )?;
    chown(path, Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)))?;
    Ok(())
}

pub(super) fn network() -> io::Result<()> {
    sys::loopback_up()?;
    // Any user may listen on any port and ping, as on Docker; the network is the instance's own.
    fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")?;
    // Group ids are those of the namespace's owner, the host: all of them.
    let _ = fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647");
    Ok(())
}

fn device_tree(dev: &Path, base: u32) -> io::Result<()> {
    mount_new(
        "tmpfs",
        dev,
        MountFlags::NOSUID | MountFlags::NOEXEC,
        "mode=0755,size=65536k",
    )?;
    chown(dev, Some(Uid::from_raw(base)), Some(Gid::from_raw(base)))?;
    for (name, major, minor) in [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    ] {
        let path = dev.join(name);
        mknodat(
            CWD,
            &path,
            FileType::CharacterDevice,
            Mode::from_raw_mode(0o666),
            makedev(major, minor),
        )?;
        chmodat(
            CWD,
            &path,
            Mode::from_raw_mode(0o666),
            rustix::fs::AtFlags::empty(),
        )?;
        chown(&path, Some(Uid::from_raw(base)), Some(Gid::from_raw(base)))?;
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        symlink(target, dev.join(name))?;
    }
    for name in ["pts", "shm", "mqueue"] {
        make_dir(&dev.join(name), 0o755, base)?;
    }
    let terminals = format!(
        "newinstance,ptmxmode=0666,mode=0620,uid={base},gid={}",
        base + 5
    );
    mount_new(
        "devpts",
        &dev.join("pts"),
        MountFlags::NOSUID | MountFlags::NOEXEC,
        &terminals,
    )?;
    mount_new(
        "tmpfs",
        &dev.join("shm"),
        NO_EXEC,
        &format!("mode=1777,size=65536k,uid={base},gid={base}"),
    )?;
    mount_new("mqueue", &dev.join("mqueue"), NO_EXEC, "")?;
    chown(
        dev.join("mqueue"),
        Some(Uid::from_raw(base)),
        Some(Gid::from_raw(base)),
    )?;
    Ok(())
}

fn mask(stage: &Path) -> io::Result<()> {
    let nothing = stage.join("mask");
    let null = stage.join("dev/null");
    for path in READ_ONLY {
        let path = stage.join(path);
        if path.exists() {
            bind_read_only(&path, &path)?;
        }
    }
    for path in MASKED {
        let path = stage.join(path);
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => bind_read_only(&nothing, &path)?,
            Ok(meta) if meta.is_file() => bind(&null, &path)?,
            Ok(_) | Err(_) => {}
        }
    }
    // One per CPU on bare metal; Docker hides each.
    let throttle = stage.join("sys/devices/system/cpu");
    for cpu in fs::read_dir(&throttle).into_iter().flatten().flatten() {
        let path = cpu.path().join("thermal_throttle");
        if path.is_dir() {
            bind_read_only(&nothing, &path)?;
        }
    }
    Ok(())
}

/// Shows the instance its own cgroup, read-only, where runtimes such as the JVM look for their limits.
fn show_cgroups(template: &Template, groups: &str) -> io::Result<()> {
    let at = template.stage.join("sys/fs/cgroup");
    if !at.is_dir() {
        return Ok(());
    }
    let own_group = |controller: Option<&str>| -> Option<PathBuf> {
        groups.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (names, path) = rest.split_once(':')?;
            let fits =
                controller.map_or(names.is_empty(), |c| names.split(',').any(|name| name == c));
            fits.then(|| PathBuf::from(path))
        })
    };
    let folder = |mount: &super::mounts::CgroupMount| -> Option<PathBuf> {
        let group = own_group(mount.controllers.first().map(String::as_str))?;
        Some(mount.at.join(group.strip_prefix(&mount.root).ok()?))
    };
    let v1: Vec<_> = template
        .cgroup_mounts
        .iter()
        .filter(|m| !m.controllers.is_empty())
        .collect();
    if v1.is_empty() {
        let unified = template.cgroup_mounts.first().and_then(folder);
        return unified.map_or(Ok(()), |from| bind_read_only(&from, &at));
    }
    mount_new("tmpfs", &at, NO_EXEC, "mode=0755,size=64k")?;
    for mount in v1 {
        let (Some(from), Some(name)) = (folder(mount), mount.at.file_name()) else {
            continue;
        };
        let target = at.join(name);
        make_dir(&target, 0o755, 0)?;
        bind_read_only(&from, &target)?;
    }
    let flags = NO_EXEC | MountFlags::RDONLY;
    Ok(rustix::mount::mount_remount(
        &at,
        flags,
        c"mode=0755,size=64k",
    )?)
}

/// Makes a user namespace with the one map all instances have. A process has to be in it for a moment; the descriptor
/// keeps it alive afterwards.
fn user_namespace(template: &Template) -> io::Result<OwnedFd> {
    match sys::clone_process(libc::CLONE_NEWUSER, None)? {
        Cloned::Child => sys::sleep_for_ever(),
        Cloned::Parent { pid, pidfd } => {
            let of = template.stage.join("proc").join(pid.to_string());
            let map = format!("0 {} {ID_COUNT}\n", template.uid_base);
            let made = fs::write(of.join("uid_map"), &map)
                .and_then(|()| fs::write(of.join("gid_map"), &map))
                .and_then(|()| fs::File::open(of.join("ns/user")));
            rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL)?;
            rustix::process::waitid(
                rustix::process::WaitId::PidFd(pidfd.as_fd()),
                rustix::process::WaitIdOptions::EXITED,
            )?;
            made.map(OwnedFd::from)
        }
    }
}

/// Lets the user of the instance open its own output again by way of `/dev/stdout`.
pub(super) fn give_to_user(fd: &OwnedFd, base: u32, spec: &ContainerSpec) -> io::Result<()> {
    Ok(rustix::fs::fchown(
        fd,
        Some(Uid::from_raw(base + spec.uid)),
        Some(Gid::from_raw(base + spec.gid)),
    )?)
}
