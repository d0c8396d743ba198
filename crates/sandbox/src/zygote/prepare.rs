//! What a zygote does before a request comes: namespaces, cgroup, network, `/proc`, `/dev`, `/sys`, user namespace; and the farewell to
//! the host's tree of files, which would cost a start more than anything else (the kernel waits for its readers).

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, Uid, chown, makedev, mkdirat, mknodat};
use rustix::mount::MountFlags;

use super::mounts::{bind, mount_new, read_only};
use super::rootfs::{self, Stage};
use super::{Channel, Failure, Making, Step, Template};
use crate::cgroup::Limiter;
use crate::net::{Connector, NetError};
use crate::protocol::FailReason::Host;
use crate::spec::{ContainerSpec, ID_COUNT};
use crate::sys;

/// What waits for the start.
pub(super) struct Prepared {
    /// Where to mount the image.
    pub(super) stage: Stage,
    /// The limits, to be set by whoever can no longer find the cgroup.
    pub(super) limiter: Limiter,
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
pub(super) fn prepare(
    template: &Template,
    making: &Making<'_>,
    channel: &mut Channel,
) -> Result<Prepared, Failure> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .step(Host, "tie life to the keeper's")?;
    let mut limiter = making.cgroup.limiter().step(Host, "open the limits")?;
    making.cgroup.enter_self().step(Host, "enter the cgroup")?;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    network(making, channel, libc::CLONE_NEWCGROUP)?;
    // Where the host's killer looks first when the whole machine is out of memory. Not vital.
    let _ = fs::write("/proc/self/oom_score_adj", "500");
    // Keys are the host's business; without kernel support there are none to keep apart.
    let _ = sys::own_keyring();
    rustix::process::setsid().ok();

    let stage = &template.stage;
    let base = template.uid_base;
    // Its size is set again when the memory limit is another.
    let size = rootfs::size_options(making.usual.memory_bytes);
    mount_new(
        "tmpfs",
        stage,
        MountFlags::NOSUID | MountFlags::NODEV,
        &format!("mode=0700,{size}"),
    )
    .step(Host, "mount the writable layer")?;
    for (name, mode, owner) in [
        ("images", 0o700, 0),
        ("upper", 0o755, base),
        // So that the image need not have them, nor the start make them. What is mounted there hides whose they are.
        ("upper/proc", 0o755, 0),
        ("upper/sys", 0o755, 0),
        ("upper/dev", 0o755, 0),
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
    show_cgroups(template, &groups).step(Host, "show the cgroup in /sys/fs/cgroup")?;
    mask(stage).step(Host, "hide parts of /proc and /sys")?;
    let user_namespace = user_namespace(template).step(
        Host,
        "make a user namespace (is user.max_user_namespaces too low?)",
    )?;
    let stage = leave_the_host(template, making.usual.memory_bytes)
        .step(Host, "let go of the host's tree")?;
    limiter.set(&making.usual).step(Host, "set the limits")?;
    Ok(Prepared {
        stage,
        limiter,
        user_namespace,
        null,
    })
}

/// Takes the folders of the layers along, makes the stage the root, and everything else disappear.
fn leave_the_host(template: &Template, memory_bytes: u64) -> io::Result<Stage> {
    let mut images = Vec::new();
    for (number, dir) in template.layer_dirs.iter().enumerate() {
        let inside = PathBuf::from(format!("/images/{number}"));
        let at = template.stage.join(format!("images/{number}"));
        make_dir(&at, 0o700, 0)?;
        // With the mounts below it; the folder may not be there yet when no image is.
        match rustix::mount::mount_bind_recursive(dir, &at) {
            Err(rustix::io::Errno::NOENT) => {}
            done => {
                done?;
                images.push((dir.clone(), inside.clone()));
                if let Ok(real) = dir.canonicalize()
                    && real != *dir
                {
                    images.push((real, inside));
                }
            }
        }
    }
    rustix::process::chdir(&template.stage)?;
    // The old root ends up on top of the new one, where it is taken off.
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", rustix::mount::UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    Ok(Stage {
        at: PathBuf::from("/"),
        images: Some(images),
        memory_bytes,
        layers_one_by_one: template.layers_one_by_one,
    })
}

/// Makes a directory. The mode is as given, since a zygote has no umask.
pub(super) fn make_dir(path: &Path, mode: u32, owner: u32) -> io::Result<()> {
    mkdirat(CWD, path, Mode::from_raw_mode(mode))?;
    if owner != 0 {
        chown(path, Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)))?;
    }
    Ok(())
}

/// A network namespace of its own (and what else is in `kinds`), with its loopback, and its link to the world if it is to have one.
pub(super) fn network(
    making: &Making<'_>,
    channel: &mut Channel,
    kinds: libc::c_int,
) -> Result<(), Failure> {
    let link = match making.lease {
        Some(lease) => Some((
            Connector::open().step(Host, "reach the host's network")?,
            lease,
        )),
        None => None,
    };
    sys::new_namespaces(kinds | libc::CLONE_NEWNET).step(Host, "make namespaces")?;
    // Any user may listen on any port and ping, as on Docker; the network is the instance's own.
    fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")
        .step(Host, "open the low ports")?;
    // Group ids are those of the namespace's owner, the host: all of them.
    let _ = fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647");
    let Some((connector, lease)) = link else {
        return sys::loopback_up().step(Host, "set up the loopback interface");
    };
    let mut connected = connector.connect(lease);
    while connected.as_ref().is_err_and(NetError::is_in_use) {
        let another = channel.address().step(Host, "ask for an address")?;
        connected = connector.connect(&another);
    }
    connected.step(Host, "attach an instance to the network")
}

/// `/dev`. The nodes belong to the host's root, which is nobody in there: they are the host's devices.
fn device_tree(dev: &Path, base: u32) -> io::Result<()> {
    mount_new(
        "tmpfs",
        dev,
        MountFlags::NOSUID | MountFlags::NOEXEC,
        &format!("mode=0755,size=65536k,uid={base},gid={base}"),
    )?;
    for (name, major, minor) in [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    ] {
        mknodat(
            CWD,
            dev.join(name),
            FileType::CharacterDevice,
            Mode::from_raw_mode(0o666),
            makedev(major, minor),
        )?;
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
        make_dir(&dev.join(name), 0o755, 0)?;
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

/// Hides what is to be hidden, and takes write access away. Not by one mount option for each mount: those on `/proc` and `/sys` all become
/// read-only at once, and then `/proc` itself is given back.
fn mask(stage: &Path) -> io::Result<()> {
    let (nothing, null) = (stage.join("mask"), stage.join("dev/null"));
    // What is there and of the right kind is covered; a device that covers a file needs no protection.
    let cover = |what: &Path, path: &Path| match bind(what, path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) if e.raw_os_error() == Some(libc::ENOTDIR) => Ok(Some(false)),
        done => done.map(|()| Some(true)),
    };
    let mut covered = Vec::new();
    for path in READ_ONLY {
        let path = stage.join(path);
        if cover(&path, &path)? == Some(true) {
            covered.push(path);
        }
    }
    for path in MASKED {
        let path = stage.join(path);
        match cover(&nothing, &path)? {
            Some(true) => covered.push(path),
            Some(false) => bind(&null, &path)?,
            None => {}
        }
    }
    // One per CPU on bare metal; Docker hides each.
    let cpus = stage.join("sys/devices/system/cpu");
    for cpu in fs::read_dir(&cpus).into_iter().flatten().flatten() {
        let path = cpu.path().join("thermal_throttle");
        if cover(&nothing, &path)? == Some(true) {
            covered.push(path);
        }
    }
    close_to_writers(stage, &covered)
}

fn close_to_writers(stage: &Path, covered: &[PathBuf]) -> io::Result<()> {
    use libc::{MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY};
    let path =
        |name| std::ffi::CString::new(stage.join(name).into_os_string().into_encoded_bytes());
    let (proc, sys) = (path("proc")?, path("sys")?);
    let nothing = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    match sys::set_mount_attributes(&sys, nothing, 0, true) {
        Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => {
            let cgroups = stage.join("sys/fs/cgroup");
            for shown in fs::read_dir(&cgroups).into_iter().flatten().flatten() {
                // On v2 these are files and no mounts.
                let _ = read_only(&shown.path());
            }
            covered.iter().try_for_each(|path| read_only(path))?;
            read_only(&cgroups)
        }
        done => {
            done?;
            sys::set_mount_attributes(&proc, MOUNT_ATTR_RDONLY, 0, true)?;
            sys::set_mount_attributes(&proc, 0, MOUNT_ATTR_RDONLY, false)
        }
    }
}

/// Shows the instance its own cgroup where runtimes such as the JVM look for their limits; [`mask`] makes it read-only.
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
        return unified.map_or(Ok(()), |from| bind(&from, &at));
    }
    mount_new("tmpfs", &at, NO_EXEC, "mode=0755,size=64k")?;
    for mount in v1 {
        let (Some(from), Some(name)) = (folder(mount), mount.at.file_name()) else {
            continue;
        };
        let target = at.join(name);
        make_dir(&target, 0o755, 0)?;
        bind(&from, &target)?;
    }
    Ok(())
}

/// Makes a user namespace with the one map all instances have. A process has to be in it for a moment; the descriptor
/// keeps it alive afterwards.
fn user_namespace(template: &Template) -> io::Result<OwnedFd> {
    sys::beside_user_namespace(|pid| {
        let of = template.stage.join("proc").join(pid.to_string());
        let map = format!("0 {} {ID_COUNT}\n", template.uid_base);
        fs::write(of.join("uid_map"), &map)?;
        fs::write(of.join("gid_map"), &map)?;
        fs::File::open(of.join("ns/user")).map(OwnedFd::from)
    })
}

/// Lets the user of the instance open its own output again by way of `/dev/stdout`.
pub(super) fn give_to_user(fd: &OwnedFd, base: u32, spec: &ContainerSpec) -> io::Result<()> {
    Ok(rustix::fs::fchown(
        fd,
        Some(Uid::from_raw(base + spec.uid)),
        Some(Gid::from_raw(base + spec.gid)),
    )?)
}
