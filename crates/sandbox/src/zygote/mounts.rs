//! Small helpers around the mount table.

use std::ffi::CString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change,
    mount_remount, unmount,
};

/// Where a cgroup file system is mounted on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CgroupMount {
    /// The controllers of a v1 hierarchy; none for v2.
    pub(crate) controllers: Vec<String>,
    /// The cgroup that is at its root.
    pub(crate) root: PathBuf,
    /// Where it is.
    pub(crate) at: PathBuf,
}

struct MountLine {
    root: PathBuf,
    at: PathBuf,
    kind: String,
    options: String,
}

fn unescape(text: &str) -> PathBuf {
    // The kernel writes space, tab, newline and backslash as octal.
    PathBuf::from(
        text.replace("\\040", " ")
            .replace("\\011", "\t")
            .replace("\\012", "\n")
            .replace("\\134", "\\"),
    )
}

fn mount_lines() -> io::Result<Vec<MountLine>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let parse = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (root, at) = (unescape(left.next()?), unescape(left.next()?));
        let mut right = right.split(' ');
        let kind = right.next()?.to_owned();
        let options = right.nth(1)?.to_owned();
        Some(MountLine {
            root,
            at,
            kind,
            options,
        })
    };
    Ok(table.lines().filter_map(parse).collect())
}

/// Finds the cgroup file systems.
pub(crate) fn cgroup_mounts() -> io::Result<Vec<CgroupMount>> {
    let known = ["cpu", "cpuacct", "cpuset", "memory", "pids"];
    Ok(mount_lines()?
        .into_iter()
        .filter_map(|line| match line.kind.as_str() {
            "cgroup2" => Some(CgroupMount {
                controllers: Vec::new(),
                root: line.root,
                at: line.at,
            }),
            "cgroup" => {
                let controllers: Vec<String> = line
                    .options
                    .split(',')
                    .filter(|o| known.contains(o))
                    .map(str::to_owned)
                    .collect();
                (!controllers.is_empty()).then_some(CgroupMount {
                    controllers,
                    root: line.root,
                    at: line.at,
                })
            }
            _ => None,
        })
        .collect())
}

/// Makes the current mount namespace private, and takes every mount out of it that is not on the way to one of `needed`.
/// Each clone of a mount namespace copies the whole table, so a short table makes every start cheaper.
pub(crate) fn keep_only_mounts(needed: &[PathBuf]) -> io::Result<()> {
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    let mut lines = mount_lines()?;
    // The latest first: what lies on top goes before what it lies on.
    lines.reverse();
    for line in lines {
        let wanted =
            line.kind.starts_with("cgroup") || needed.iter().any(|path| path.starts_with(&line.at));
        // Under /sys and on /proc only what is above or is a cgroup tree counts, which the first test has kept.
        let holds_cgroup = line.at == Path::new("/sys/fs/cgroup");
        if !wanted && !holds_cgroup {
            // A mount below one that is gone already fails here, and is gone.
            let _ = unmount(&line.at, UnmountFlags::DETACH);
        }
    }
    Ok(())
}

/// Keeps the table as it is, but for itself: mounts of the host still come in, none go out.
pub(crate) fn keep_all_mounts() -> io::Result<()> {
    Ok(mount_change(
        "/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )?)
}

/// Takes cgroup v2 out of the current mount namespace where it is beside v1 and has controllers: for a runtime that refuses such a host.
pub(crate) fn hide_unified_cgroups() -> io::Result<()> {
    let lines = mount_lines()?;
    if !lines.iter().any(|line| line.kind == "cgroup") {
        return Ok(());
    }
    for line in lines.iter().filter(|line| line.kind == "cgroup2") {
        let controllers = fs::read_to_string(line.at.join("cgroup.controllers"))?;
        if !controllers.trim().is_empty() {
            unmount(&line.at, UnmountFlags::DETACH)?;
        }
    }
    Ok(())
}

/// Removes an empty cgroup and the empty ones right below it from every hierarchy: a foreign runtime makes them in all there are,
/// and leaves the upper ones.
pub(crate) fn remove_cgroup_everywhere(path: &str) -> io::Result<()> {
    for line in mount_lines()?
        .into_iter()
        .filter(|line| line.kind.starts_with("cgroup"))
    {
        let Ok(within) = Path::new(path).strip_prefix(&line.root) else {
            continue;
        };
        let dir = line.at.join(within);
        for below in fs::read_dir(&dir).into_iter().flatten().flatten() {
            // Control files are no directories, and stay.
            let _ = fs::remove_dir(below.path());
        }
        let _ = fs::remove_dir(&dir);
    }
    Ok(())
}

/// Mounts a file system.
pub(crate) fn mount_new(kind: &str, at: &Path, flags: MountFlags, data: &str) -> io::Result<()> {
    let data = CString::new(data)?;
    Ok(mount(kind, at, kind, flags, data.as_c_str())?)
}

/// Binds `from` to `at`.
pub(crate) fn bind(from: &Path, at: &Path) -> io::Result<()> {
    Ok(mount_bind(from, at)?)
}

/// Makes a bind mount read-only.
pub(crate) fn read_only(at: &Path) -> io::Result<()> {
    let flags = MountFlags::BIND
        | MountFlags::RDONLY
        | MountFlags::NOSUID
        | MountFlags::NODEV
        | MountFlags::NOEXEC;
    Ok(mount_remount(at, flags, c"")?)
}
