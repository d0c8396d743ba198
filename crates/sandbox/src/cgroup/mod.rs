//! Control groups: how much of the machine one instance may use, and the switch that stops it.
//!
//! Three layouts are met in the field, all behind the same four types: pure v2, pure v1, and the hybrid of v1 controllers beside a v2
//! tree without them. [`Hierarchy`] finds out which, [`CgroupRoot`] is Lauf's own folder in it, [`Cgroup`] is one instance. A hybrid
//! group has a v2 half too, because freeze, kill, CPU time and `CLONE_INTO_CGROUP` work there without any controller and are several
//! times cheaper than their v1 counterparts.
//!
//! Laws: nothing outside the folder named by the caller is written to, except the list of enabled controllers on the way down (v2);
//! no file descriptor is held per group; a group without processes costs no CPU; everything left by a crash is found again by name.
//!
//! Why there is no device filter on v2: v1 has the `devices` controller and Lauf uses it (one group for all), on v2 the same would be a BPF program per
//! group. It isn't needed: an instance has no `CAP_MKNOD`, lives in a user namespace (where the kernel refuses device nodes anyway), and
//! every mount it sees but the handful of bind-mounted standard nodes is `nodev`.

mod detect;
mod files;
mod v1;
mod v2;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use detect::Hierarchy;

/// What one instance may use at most. Zero in a field means no limit of that kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Thousandths of one CPU, enforced over periods of 100 ms and used as the weight when the machine is full.
    pub cpu_millis: u32,
    /// Bytes of memory, page cache and files on tmpfs included. No swap comes on top.
    pub memory_bytes: u64,
    /// Most tasks (processes and threads) at once.
    pub pids_max: u32,
}

/// What a group has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time consumed by all processes that were ever in the group.
    pub cpu: Duration,
    /// Memory charged right now, in bytes.
    pub memory_bytes: u64,
    /// The most that was ever charged, in bytes; the current value on kernels before 5.19, which do not record it on v2.
    pub memory_peak_bytes: u64,
    /// Time the group wanted to run but had spent its quota.
    pub throttled: Duration,
}

/// Why a cgroup operation failed, and what a person can do about it.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No cgroup file system is mounted, or none of the mounted ones has a controller Lauf needs.
    #[error(
        "cgroup controller `{controller}` is not available: mount cgroup2 on /sys/fs/cgroup (`mount -t cgroup2 none /sys/fs/cgroup`), or boot without `cgroup_disable={controller}`"
    )]
    NoController {
        /// The missing controller's name.
        controller: &'static str,
    },
    /// No place was found where a group may be created.
    #[error(
        "cannot create a cgroup named `{name}` in any of {tried}: {source}; run as root, or give the service `Delegate=yes`"
    )]
    NotWritable {
        /// The name asked for.
        name: String,
        /// The folders that were tried.
        tried: String,
        /// The last error met.
        source: io::Error,
    },
    /// A name that can't be a cgroup's.
    #[error(
        "cgroup name `{0}` is not allowed: use letters, digits, `-`, `_` and `.`, at most 128 of them, not beginning with a `.`"
    )]
    BadName(String),
    /// The kernel refused to read or write a cgroup file.
    #[error("cgroup file {path}: {source}")]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl CgroupError {
    /// The operating system's error, when there is one.
    #[must_use]
    pub fn io(&self) -> Option<&io::Error> {
        match self {
            Self::NotWritable { source, .. } | Self::File { source, .. } => Some(source),
            Self::NoController { .. } | Self::BadName(_) => None,
        }
    }

    /// Whether the group still has processes, dying ones included, or child groups: the caller tries again later.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.io()
            .is_some_and(|e| matches!(e.raw_os_error(), Some(libc::EBUSY | libc::ENOTEMPTY)))
    }
}

pub(crate) type Result<T, E = CgroupError> = std::result::Result<T, E>;

fn check_name(name: &str) -> Result<()> {
    let fine = !name.is_empty()
        && name.len() <= 128
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    // A group named like a control file (`cpu.max`) could not be created, or would hide it from a reader.
    let control_file = [
        "cgroup.", "cpu.", "memory.", "pids.", "io.", "cpuset.", "devices.", "freezer.", "hugetlb.",
    ]
    .iter()
    .any(|prefix| name.starts_with(prefix));
    if fine && !control_file {
        Ok(())
    } else {
        Err(CgroupError::BadName(name.to_owned()))
    }
}

/// Lauf's own folder in the hierarchy: the parent of all instances' groups.
#[derive(Debug)]
pub struct CgroupRoot {
    v1: Option<v1::Root>,
    v2: Option<v2::Root>,
}

impl CgroupRoot {
    /// Creates a group, or adopts the one that has this name already. It has no limits until [`Cgroup::set_limits`].
    ///
    /// # Errors
    /// A name with other characters than letters, digits, `-`, `_`, `.`; or the kernel's refusal (often the limit on descendants).
    pub fn create(&self, name: &str) -> Result<Cgroup> {
        check_name(name)?;
        let group = self.at(name);
        let made = group
            .v1
            .as_ref()
            .map_or(Ok(()), v1::Group::make)
            .and_then(|()| group.v2.as_ref().map_or(Ok(()), v2::Group::make));
        if let Err(error) = made {
            // Half a group is worse than none: it would be found as a leftover for ever.
            let _ = group.destroy();
            return Err(error);
        }
        Ok(group)
    }

    /// Confines the calling process to the devices that instances may use, where there is a controller for that, and with it all that
    /// it forks from now on. [`CgroupRoot::remove`] undoes it.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn confine_self(&self) -> Result<()> {
        self.v1.as_ref().map_or(Ok(()), v1::Root::confine_self)
    }

    /// The groups that exist below this root, those of an earlier process included, in no particular order.
    #[must_use]
    pub fn leftovers(&self) -> Vec<Cgroup> {
        let mut names = Vec::new();
        let bases = self
            .v1
            .iter()
            .flat_map(v1::Root::dirs)
            .chain(self.v2.iter().map(v2::Root::dir));
        for base in bases {
            names.extend(files::children(base));
        }
        names.sort_unstable();
        names.dedup();
        names
            .into_iter()
            .filter(|name| check_name(name).is_ok())
            .map(|name| Cgroup {
                v1: self.v1.as_ref().map(|root| root.left_group(&name)),
                ..self.at(&name)
            })
            .collect()
    }

    /// Bounds the memory of all groups together. Where there is no memory controller, nothing is bounded.
    ///
    /// # Errors
    /// The kernel's refusal: on v1 also when more than that is in use already.
    pub fn limit_memory(&self, bytes: u64) -> Result<()> {
        if let Some(v1) = &self.v1 {
            v1.limit_memory(bytes)?;
        }
        self.v2.as_ref().map_or(Ok(()), |v2| v2.limit_memory(bytes))
    }

    /// The memory that all groups use together, without files that could be read again from disk. `None` where nobody counts.
    #[must_use]
    pub fn memory_in_use(&self) -> Option<u64> {
        let v1 = self.v1.as_ref().and_then(v1::Root::memory_in_use);
        v1.or_else(|| self.v2.as_ref().and_then(v2::Root::memory_in_use))
    }

    /// Removes the folder. All groups in it must have been destroyed.
    ///
    /// # Errors
    /// [`CgroupError::is_busy`] while a group is left.
    pub fn remove(self) -> Result<()> {
        if let Some(v1) = &self.v1 {
            v1.remove()?;
        }
        self.v2.as_ref().map_or(Ok(()), v2::Root::remove)
    }

    /// The folders this root consists of, for messages.
    #[must_use]
    pub fn dirs(&self) -> Vec<PathBuf> {
        self.v1
            .iter()
            .flat_map(v1::Root::dirs)
            .chain(self.v2.iter().map(v2::Root::dir))
            .map(Path::to_owned)
            .collect()
    }

    fn at(&self, name: &str) -> Cgroup {
        Cgroup {
            name: name.to_owned(),
            v1: self.v1.as_ref().map(|r| r.group(name)),
            v2: self.v2.as_ref().map(|r| r.group(name)),
        }
    }
}

/// One instance's group: a folder in every hierarchy in use. Dropping it changes nothing; [`Cgroup::destroy`] removes it.
#[derive(Debug)]
pub struct Cgroup {
    name: String,
    v1: Option<v1::Group>,
    v2: Option<v2::Group>,
}

impl Cgroup {
    /// The name given to [`CgroupRoot::create`].
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sets all limits, first or again; a running group may be given other ones.
    ///
    /// # Errors
    /// The kernel's refusal, such as EBUSY for a memory limit below what is in use and cannot be reclaimed.
    pub fn set_limits(&self, limits: &Limits) -> Result<()> {
        let mut limiter = self.limiter()?;
        // What is set by now is not known, so everything is written.
        limiter.now = None;
        limiter.set(limits)
    }

    /// Sets the CPU limit alone, in thousandths of a CPU; 0 means none.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn set_cpu(&self, cpu_millis: u32) -> Result<()> {
        if let Some(v1) = &self.v1 {
            v1.set_cpu(cpu_millis)?;
        }
        self.v2.as_ref().map_or(Ok(()), |v2| v2.set_cpu(cpu_millis))
    }

    /// The files of a group that was just created, opened for a start that is to be quick, and by a process that will not see the
    /// cgroup file system any more.
    ///
    /// # Errors
    /// The kernel's answer.
    pub(crate) fn limiter(&self) -> Result<Limiter> {
        Ok(Limiter {
            v1: self.v1.as_ref().map(v1::Group::knobs).transpose()?,
            v2: self.v2.as_ref().map(v2::Group::knobs).transpose()?,
            now: Some(Limits::default()),
        })
    }

    /// A descriptor of the v2 folder, for `CLONE_INTO_CGROUP` (clone3, Linux 5.7); `None` where there is no v2 hierarchy.
    ///
    /// A cgroup namespace made in the same `clone3` call is rooted at the *parent's* cgroup (the kernel takes the caller's), so the
    /// child has to `unshare(CLONE_NEWCGROUP)` itself, after [`Cgroup::enter_self`].
    #[must_use]
    pub fn clone_into_fd(&self) -> Option<OwnedFd> {
        self.v2.as_ref().and_then(|v2| v2.open_dir().ok())
    }

    /// Moves the calling process into the v1 hierarchies; nothing to do on pure v2. Meant for the forked child: it allocates nothing.
    /// The v2 half is entered by `CLONE_INTO_CGROUP`, or by [`Cgroup::enter_unified_self`] where clone3 cannot.
    ///
    /// # Errors
    /// The kernel's answer; a partly moved process is possible then, and the caller ends.
    pub fn enter_self(&self) -> io::Result<()> {
        self.v1.as_ref().map_or(Ok(()), v1::Group::enter_self)
    }

    /// Moves the calling process into the v2 hierarchy, where there is one. Allocates nothing.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn enter_unified_self(&self) -> io::Result<()> {
        self.v2.as_ref().map_or(Ok(()), v2::Group::enter_self)
    }

    /// Moves another process (by its id in the caller's pid namespace) into every hierarchy, for a runtime that only reports a pid.
    ///
    /// # Errors
    /// ESRCH when there is no such process.
    pub fn enter_pid(&self, pid: u32) -> Result<()> {
        if let Some(v1) = &self.v1 {
            v1.enter_pid(pid)?;
        }
        self.v2.as_ref().map_or(Ok(()), |v2| v2.enter_pid(pid))
    }

    /// Asks the kernel to stop all processes where they are. They stop within microseconds; a process in an uninterruptible wait
    /// stops when that ends.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn freeze(&self) -> Result<()> {
        match (&self.v2, &self.v1) {
            (Some(v2), _) => v2.set_frozen(true),
            (None, Some(v1)) => v1.set_frozen(true),
            (None, None) => Ok(()),
        }
    }

    /// Lets frozen processes go on.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn thaw(&self) -> Result<()> {
        match (&self.v2, &self.v1) {
            (Some(v2), _) => v2.set_frozen(false),
            (None, Some(v1)) => v1.set_frozen(false),
            (None, None) => Ok(()),
        }
    }

    /// Whether every process of the group has stopped.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn is_frozen(&self) -> Result<bool> {
        match (&self.v2, &self.v1) {
            (Some(v2), _) => v2.is_frozen(),
            (None, Some(v1)) => v1.is_frozen(),
            (None, None) => Ok(false),
        }
    }

    /// Kills every process of the group with SIGKILL, frozen or not. Returns when the signals are sent, not when the processes are gone.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn kill_all(&self) -> Result<()> {
        if let Some(v2) = &self.v2 {
            v2.kill_all()?;
        }
        // On hybrid this catches what only ever entered the v1 half; it reads one empty file otherwise.
        self.v1.as_ref().map_or(Ok(()), v1::Group::kill_all)
    }

    /// Whether no process, not even a zombie, is left in the group.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v1.as_ref().is_none_or(v1::Group::is_empty)
            && self.v2.as_ref().is_none_or(v2::Group::is_empty)
    }

    /// How many processes the kernel has killed in this group for want of memory.
    #[must_use]
    pub fn oom_kills(&self) -> u64 {
        match (&self.v1, &self.v2) {
            (Some(v1), _) if v1.has_memory() => v1.oom_kills(),
            (_, Some(v2)) => v2.oom_kills(),
            _ => 0,
        }
    }

    /// On v2, the file whose changes tell that the group met its memory limit, among lesser events: to be watched by inotify, which one
    /// descriptor can do for all groups. Then read [`Cgroup::oom_kills`].
    #[must_use]
    pub fn memory_events(&self) -> Option<PathBuf> {
        match (&self.v1, &self.v2) {
            (Some(v1), _) if v1.has_memory() => None,
            (_, Some(v2)) => v2.memory_events(),
            _ => None,
        }
    }

    /// On v1, a descriptor that becomes readable when the group meets its memory limit and the kernel kills in it; drained by a plain
    /// `read`. A caller short of descriptors can do without and compare [`Cgroup::oom_kills`] when the process ends.
    ///
    /// # Errors
    /// The limit on open files; `Unsupported` on v2.
    pub fn oom_event(&self) -> io::Result<OwnedFd> {
        match &self.v1 {
            Some(v1) if v1.has_memory() => v1.oom_event(),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// CPU time and the most memory, of a group that is about to go: what is left to be told of it. Cheaper than [`Cgroup::usage`].
    #[must_use]
    pub fn final_usage(&self) -> Usage {
        let mut usage = self
            .v2
            .as_ref()
            .map(v2::Group::final_usage)
            .unwrap_or_default();
        if let Some(v1) = &self.v1 {
            v1.add_final_usage(&mut usage);
        }
        usage
    }

    /// What the group has used. A value whose file cannot be read is zero: accounting must not stop an instance.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let mut usage = self.v2.as_ref().map(v2::Group::usage).unwrap_or_default();
        if let Some(v1) = &self.v1 {
            v1.add_usage(&mut usage);
        }
        usage
    }

    /// Removes the group. Succeeds when it is gone already.
    ///
    /// # Errors
    /// [`CgroupError::is_busy`] while processes are dying in it: the caller retries after their exit was reported.
    pub fn destroy(&self) -> Result<()> {
        if let Some(v2) = &self.v2 {
            v2.destroy()?;
        }
        self.v1.as_ref().map_or(Ok(()), v1::Group::destroy)
    }
}

/// The limits of one group, to be set by whoever holds this.
#[derive(Debug)]
pub(crate) struct Limiter {
    v1: Option<v1::Knobs>,
    v2: Option<v2::Knobs>,
    /// What was set last; a new group has no limits.
    now: Option<Limits>,
}

impl Limiter {
    /// Sets all limits; only what differs from those set before costs anything.
    pub(crate) fn set(&mut self, limits: &Limits) -> Result<()> {
        if self.now.as_ref() == Some(limits) {
            return Ok(());
        }
        // Half of them may be set when this fails.
        let now = self.now.take();
        if let Some(v1) = &self.v1 {
            v1.set(now.as_ref(), limits)?;
        }
        if let Some(v2) = &self.v2 {
            v2.set(now.as_ref(), limits)?;
        }
        self.now = Some(*limits);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_folder_are_refused() {
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "../a",
            "cpu.max",
            "cgroup.procs",
            "memory.x",
            "a b",
            "ä",
            &"x".repeat(129),
        ] {
            assert!(
                matches!(check_name(bad), Err(CgroupError::BadName(_))),
                "{bad:?}"
            );
        }
        for good in ["a", "hello-00001-abc", "i_1.2", &"x".repeat(128)] {
            assert!(check_name(good).is_ok(), "{good:?}");
        }
    }
}
