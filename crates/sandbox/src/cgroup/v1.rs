//! The v1 half of a group: one folder per mounted hierarchy, for the controllers that the v2 tree does not have.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{Mode, OFlags};

use super::files::{self, Knob};
use super::v2::quota_us;
use super::{Limits, Result, Usage};

/// What the `devices` controller lets an instance use: the nodes every container expects. Character devices, `major:minor`.
const ALLOWED_DEVICES: [&str; 9] = [
    "c 1:3 rwm",   // null
    "c 1:5 rwm",   // zero
    "c 1:7 rwm",   // full
    "c 1:8 rwm",   // random
    "c 1:9 rwm",   // urandom
    "c 5:0 rwm",   // tty
    "c 5:1 rwm",   // console
    "c 5:2 rwm",   // ptmx
    "c 136:* rwm", // pts/*
];

/// The places of the v1 controllers in use; two of them may be the same folder (`cpu,cpuacct`). `None`: not on v1, or not needed.
#[derive(Clone, Debug, Default)]
pub(super) struct Dirs {
    pub(super) cpu: Option<PathBuf>,
    /// Only without a v2 tree, whose `cpu.stat` counts CPU time without a controller.
    pub(super) cpuacct: Option<PathBuf>,
    pub(super) memory: Option<PathBuf>,
    pub(super) pids: Option<PathBuf>,
    /// One group for all instances, in which the keeper is itself, so that they are born there.
    pub(super) devices: Option<Devices>,
    /// Only without a v2 tree, whose `cgroup.freeze` is six times faster.
    pub(super) freezer: Option<PathBuf>,
}

/// The place of the group for devices, and where the process was before.
#[derive(Clone, Debug)]
pub(super) struct Devices {
    pub(super) dir: PathBuf,
    pub(super) from: PathBuf,
}

impl Dirs {
    fn each(&self) -> impl Iterator<Item = &PathBuf> {
        [
            &self.cpu,
            &self.cpuacct,
            &self.memory,
            &self.pids,
            &self.freezer,
        ]
        .into_iter()
        .flatten()
        .chain(self.devices.iter().map(|devices| &devices.dir))
    }

    /// Each folder once.
    fn unique(&self) -> Vec<PathBuf> {
        let mut dirs: Vec<PathBuf> = self.each().cloned().collect();
        dirs.sort_unstable();
        dirs.dedup();
        dirs
    }

    pub(super) fn join(&self, name: &str) -> Self {
        let join = |dir: &Option<PathBuf>| dir.as_ref().map(|d| d.join(name));
        Self {
            cpu: join(&self.cpu),
            cpuacct: join(&self.cpuacct),
            memory: join(&self.memory),
            pids: join(&self.pids),
            devices: None,
            freezer: join(&self.freezer),
        }
    }
}

#[derive(Debug)]
pub(super) struct Root {
    dirs: Dirs,
    unique: Vec<PathBuf>,
}

impl Root {
    /// Creates the folders. What a group can inherit is set here once instead of per instance: the list of devices.
    pub(super) fn create(dirs: Dirs) -> Result<Self> {
        let unique = dirs.unique();
        let root = Self { dirs, unique };
        for dir in &root.unique {
            files::make_dir(dir)?;
        }
        if let Some(memory) = &root.dirs.memory {
            // Kernels before 5.11 need it for limits to hold for nested groups; later ones say so in the log and ignore it.
            let _ = files::write_if_there(memory, "memory.use_hierarchy", "1");
        }
        // The kernel refuses to begin a list anew while there are groups below; those an earlier process left have theirs already.
        if let Some(devices) = root
            .dirs
            .devices
            .as_ref()
            .map(|devices| &devices.dir)
            .filter(|dir| files::children(dir).is_empty())
        {
            begin_list(devices)?;
            for device in ALLOWED_DEVICES {
                files::write(devices, "devices.allow", device)?;
            }
        }
        Ok(root)
    }

    pub(super) fn dirs(&self) -> impl Iterator<Item = &Path> {
        self.unique.iter().map(PathBuf::as_path)
    }

    pub(super) fn group(&self, name: &str) -> Group {
        Group::new(self.dirs.join(name))
    }

    /// A group that may be left of an earlier process. Some runtimes make a group for devices for each of their containers.
    pub(super) fn left_group(&self, name: &str) -> Group {
        let mut dirs = self.dirs.join(name);
        dirs.devices = self.dirs.devices.as_ref().map(|devices| Devices {
            dir: devices.dir.join(name),
            from: devices.from.clone(),
        });
        Group::new(dirs)
    }

    /// Moves the calling process, and with it all that it forks from now on, into the group for devices.
    pub(super) fn confine_self(&self) -> Result<()> {
        let Some(devices) = &self.dirs.devices else {
            return Ok(());
        };
        files::write(&devices.dir, "cgroup.procs", "0")
    }

    pub(super) fn limit_memory(&self, bytes: u64) -> Result<()> {
        // The folder above the groups has the same files as they.
        self.group("").knobs()?.set_memory(None, bytes)
    }

    pub(super) fn memory_in_use(&self) -> Option<u64> {
        let dir = self.dirs.memory.as_ref()?;
        let all = files::number(dir, "memory.usage_in_bytes")?;
        let stat = files::read(dir, "memory.stat").ok()?;
        let of = |key: &str| files::keyed_in(&stat, key).unwrap_or(0);
        Some(all.saturating_sub(of("total_inactive_file") + of("total_active_file")))
    }

    pub(super) fn remove(&self) -> Result<()> {
        if let Some(Devices { dir, from }) = &self.dirs.devices
            && files::pids(dir).contains(&std::process::id())
        {
            files::write(from, "cgroup.procs", "0")?;
        }
        self.unique
            .iter()
            .try_for_each(|dir| files::remove_dir(dir))
    }
}

#[derive(Debug)]
pub(super) struct Group {
    dirs: Dirs,
    unique: Vec<PathBuf>,
    /// `cgroup.procs` of each folder, ready for the forked child.
    procs: Vec<CString>,
}

impl Group {
    fn new(dirs: Dirs) -> Self {
        let unique = dirs.unique();
        let procs = unique
            .iter()
            .map(|d| files::c_path(&d.join("cgroup.procs")))
            .collect();
        Self {
            dirs,
            unique,
            procs,
        }
    }

    pub(super) fn make(&self) -> Result<()> {
        self.unique.iter().try_for_each(|dir| files::make_dir(dir))
    }

    pub(super) fn destroy(&self) -> Result<()> {
        self.unique
            .iter()
            .try_for_each(|dir| files::remove_dir(dir))
    }

    pub(super) fn enter_self(&self) -> io::Result<()> {
        self.procs.iter().try_for_each(|procs| files::enter(procs))
    }

    pub(super) fn enter_pid(&self, pid: u32) -> Result<()> {
        self.unique
            .iter()
            .try_for_each(|dir| files::write(dir, "cgroup.procs", &pid.to_string()))
    }

    pub(super) fn has_memory(&self) -> bool {
        self.dirs.memory.is_some()
    }

    pub(super) fn set_cpu(&self, cpu_millis: u32) -> Result<()> {
        let Some(cpu) = &self.dirs.cpu else {
            return Ok(());
        };
        let (quota, shares) = quota_and_shares(cpu_millis);
        files::write(cpu, "cpu.cfs_quota_us", &quota)?;
        files::write(cpu, "cpu.shares", &shares)
    }

    pub(super) fn knobs(&self) -> Result<Knobs> {
        let open =
            |dir: &Option<PathBuf>, file| dir.as_ref().map(|dir| Knob::open(dir, file)).transpose();
        let memory = &self.dirs.memory;
        let swap = memory
            .as_ref()
            .map(|dir| Knob::open_if_there(dir, "memory.memsw.limit_in_bytes"))
            .transpose()?;
        Ok(Knobs {
            quota: open(&self.dirs.cpu, "cpu.cfs_quota_us")?,
            shares: open(&self.dirs.cpu, "cpu.shares")?,
            memory: open(memory, "memory.limit_in_bytes")?,
            memory_and_swap: swap.flatten(),
            pids: open(&self.dirs.pids, "pids.max")?,
        })
    }

    pub(super) fn set_frozen(&self, frozen: bool) -> Result<()> {
        let Some(freezer) = &self.dirs.freezer else {
            return Ok(());
        };
        files::write(
            freezer,
            "freezer.state",
            if frozen { "FROZEN" } else { "THAWED" },
        )
    }

    pub(super) fn is_frozen(&self) -> Result<bool> {
        let Some(freezer) = &self.dirs.freezer else {
            return Ok(false);
        };
        let state = files::read(freezer, "freezer.state").map_err(files::at(freezer))?;
        Ok(state.trim() == "FROZEN")
    }

    /// Any folder tells who is in the group, for every process is in all of them.
    fn members(&self) -> Option<&PathBuf> {
        self.dirs.pids.as_ref().or(self.unique.first())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members().is_none_or(|dir| files::pids(dir).is_empty())
    }

    pub(super) fn kill_all(&self) -> Result<()> {
        let Some(members) = self.members() else {
            return Ok(());
        };
        if files::pids(members).is_empty() {
            return Ok(());
        }
        if self.dirs.freezer.is_some() {
            // Frozen processes cannot fork away from the list; the signal takes effect when they thaw.
            self.set_frozen(true)?;
            kill_listed(members);
            return self.set_frozen(false);
        }
        // No freezer: with the task limit at zero nothing can fork, so one pass reaches all.
        let old = self
            .dirs
            .pids
            .as_ref()
            .and_then(|dir| files::read(dir, "pids.max").ok().map(|max| (dir, max)));
        if let Some((dir, _)) = &old {
            files::write(dir, "pids.max", "0")?;
        }
        kill_listed(members);
        if let Some((dir, max)) = old {
            files::write(dir, "pids.max", max.trim())?;
        }
        Ok(())
    }

    pub(super) fn oom_kills(&self) -> u64 {
        self.dirs
            .memory
            .as_ref()
            .and_then(|dir| files::keyed(dir, "memory.oom_control", "oom_kill"))
            .unwrap_or(0)
    }

    pub(super) fn oom_event(&self) -> io::Result<OwnedFd> {
        let Some(memory) = &self.dirs.memory else {
            return Err(io::Error::from(io::ErrorKind::Unsupported));
        };
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        // The kernel keeps its own reference to the file; ours is closed at the end of this function.
        let control = rustix::fs::open(
            memory.join("memory.oom_control"),
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let line = format!("{} {}", event.as_fd().as_raw_fd(), control.as_raw_fd());
        let target = rustix::fs::open(
            memory.join("cgroup.event_control"),
            OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        rustix::io::write(&target, line.as_bytes())?;
        Ok(event)
    }

    /// Fills in what the v1 controllers know; what they do not know stays as it is.
    pub(super) fn add_usage(&self, usage: &mut Usage) {
        self.add_final_usage(usage);
        if let Some(nanos) = self
            .dirs
            .cpu
            .as_ref()
            .and_then(|dir| files::keyed(dir, "cpu.stat", "throttled_time"))
        {
            usage.throttled = Duration::from_nanos(nanos);
        }
        if let Some(memory) = &self.dirs.memory {
            usage.memory_bytes = files::number(memory, "memory.usage_in_bytes").unwrap_or(0);
            usage.memory_peak_bytes = usage.memory_peak_bytes.max(usage.memory_bytes);
        }
    }

    /// The part of it that does not change any more once all processes are gone.
    pub(super) fn add_final_usage(&self, usage: &mut Usage) {
        if let Some(nanos) = self
            .dirs
            .cpuacct
            .as_ref()
            .and_then(|dir| files::number(dir, "cpuacct.usage"))
        {
            usage.cpu = Duration::from_nanos(nanos);
        }
        if let Some(memory) = &self.dirs.memory {
            usage.memory_peak_bytes =
                files::number(memory, "memory.max_usage_in_bytes").unwrap_or(0);
        }
    }
}

/// Denies everything. The kernel refuses while groups below are on their way out, which goes on for a moment after they were removed.
fn begin_list(devices: &Path) -> Result<()> {
    let mut tries = 0;
    loop {
        match files::write(devices, "devices.deny", "a") {
            Err(e)
                if tries < 200
                    && e.io().and_then(io::Error::raw_os_error) == Some(libc::EINVAL) =>
            {
                tries += 1;
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return other,
        }
    }
}

/// The files by which limits are set. The period of the CPU quota is the kernel's default, which is the one we count in.
#[derive(Debug)]
pub(super) struct Knobs {
    quota: Option<Knob>,
    shares: Option<Knob>,
    memory: Option<Knob>,
    memory_and_swap: Option<Knob>,
    pids: Option<Knob>,
}

impl Knobs {
    /// Goes from the limits `now`, if known, to others.
    pub(super) fn set(&self, now: Option<&Limits>, limits: &Limits) -> Result<()> {
        if now.is_none_or(|now| now.cpu_millis != limits.cpu_millis) {
            let (quota, shares) = quota_and_shares(limits.cpu_millis);
            turn(self.quota.as_ref(), &quota)?;
            turn(self.shares.as_ref(), &shares)?;
        }
        if now.is_none_or(|now| now.memory_bytes != limits.memory_bytes) {
            self.set_memory(now, limits.memory_bytes)?;
        }
        if now.is_none_or(|now| now.pids_max != limits.pids_max) {
            let max = match limits.pids_max {
                0 => "max".to_owned(),
                max => max.to_string(),
            };
            turn(self.pids.as_ref(), &max)?;
        }
        Ok(())
    }

    /// Memory, and memory plus swap, to the same value. Neither may pass the other on the way, hence the order depends on the
    /// direction.
    fn set_memory(&self, now: Option<&Limits>, bytes: u64) -> Result<()> {
        let Some(memory) = &self.memory else {
            return Ok(());
        };
        let now = match now {
            Some(Limits {
                memory_bytes: 0, ..
            }) => u64::MAX,
            Some(now) => now.memory_bytes,
            None => memory.number().unwrap_or(u64::MAX),
        };
        let value = match bytes {
            0 => "-1".to_owned(),
            bytes => bytes.to_string(),
        };
        if bytes == 0 || bytes > now {
            turn(self.memory_and_swap.as_ref(), &value)?;
            memory.set(&value)
        } else {
            memory.set(&value)?;
            turn(self.memory_and_swap.as_ref(), &value)
        }
    }
}

fn quota_and_shares(cpu_millis: u32) -> (String, String) {
    match cpu_millis {
        0 => ("-1".to_owned(), "1024".to_owned()),
        millis => (
            quota_us(millis).to_string(),
            (u64::from(millis) * 1024 / 1000)
                .clamp(2, 262_144)
                .to_string(),
        ),
    }
}

fn turn(knob: Option<&Knob>, value: &str) -> Result<()> {
    knob.map_or(Ok(()), |knob| knob.set(value))
}

/// Sends SIGKILL to every process listed, until the list has no process that was not sent one yet.
pub(super) fn kill_listed(dir: &Path) {
    let mut sent = std::collections::BTreeSet::new();
    loop {
        let fresh: Vec<u32> = files::pids(dir)
            .into_iter()
            .filter(|pid| *pid != 0 && sent.insert(*pid))
            .collect();
        if fresh.is_empty() {
            return;
        }
        for pid in fresh {
            if let Some(pid) = i32::try_from(pid)
                .ok()
                .and_then(rustix::process::Pid::from_raw)
            {
                // Gone already is as good as killed.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn fake(files: &[(&str, &str)]) -> (tempfile::TempDir, Group) {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(dir.path().join(name), content).unwrap();
        }
        let at = || Some(dir.path().to_owned());
        let group = Group::new(Dirs {
            cpu: at(),
            cpuacct: at(),
            memory: at(),
            pids: at(),
            devices: None,
            freezer: at(),
        });
        (dir, group)
    }

    fn content(dir: &tempfile::TempDir, file: &str) -> String {
        fs::read_to_string(dir.path().join(file)).unwrap()
    }

    #[test]
    fn limits_are_written_in_the_kernels_own_format() {
        let (dir, group) = fake(&[
            ("cpu.cfs_quota_us", ""),
            ("cpu.shares", ""),
            ("memory.limit_in_bytes", ""),
            ("memory.memsw.limit_in_bytes", ""),
            ("pids.max", ""),
        ]);
        let limits = Limits {
            cpu_millis: 2000,
            memory_bytes: 1 << 30,
            pids_max: 64,
        };
        group.knobs().unwrap().set(None, &limits).unwrap();
        assert_eq!(content(&dir, "cpu.cfs_quota_us"), "200000");
        assert_eq!(content(&dir, "cpu.shares"), "2048");
        assert_eq!(content(&dir, "memory.limit_in_bytes"), "1073741824");
        assert_eq!(content(&dir, "memory.memsw.limit_in_bytes"), "1073741824");
        assert_eq!(content(&dir, "pids.max"), "64");
    }

    #[test]
    fn only_what_differs_is_written() {
        let (dir, group) = fake(&[
            ("cpu.cfs_quota_us", "-"),
            ("cpu.shares", "-"),
            ("memory.limit_in_bytes", "-"),
            ("pids.max", "-"),
        ]);
        let knobs = group.knobs().unwrap();
        let now = Limits {
            cpu_millis: 2000,
            memory_bytes: 1 << 20,
            pids_max: 64,
        };
        knobs.set(Some(&now), &now).unwrap();
        let other = Limits {
            cpu_millis: 1000,
            ..now
        };
        knobs.set(Some(&now), &other).unwrap();
        assert_eq!(content(&dir, "cpu.cfs_quota_us"), "100000");
        assert_eq!(content(&dir, "memory.limit_in_bytes"), "-");
        assert_eq!(content(&dir, "pids.max"), "-");
    }

    #[test]
    fn usage_and_kills_come_from_the_v1_files() {
        let (_dir, group) = fake(&[
            ("cpuacct.usage", "1500000000\n"),
            (
                "cpu.stat",
                "nr_periods 4\nnr_throttled 2\nthrottled_time 3000\n",
            ),
            ("memory.usage_in_bytes", "100\n"),
            ("memory.max_usage_in_bytes", "200\n"),
            (
                "memory.oom_control",
                "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
            ),
        ]);
        let mut usage = Usage::default();
        group.add_usage(&mut usage);
        assert_eq!(usage.cpu, Duration::from_millis(1500));
        assert_eq!(usage.throttled, Duration::from_micros(3));
        assert_eq!((usage.memory_bytes, usage.memory_peak_bytes), (100, 200));
        assert_eq!(group.oom_kills(), 3);
    }

    #[test]
    fn controllers_mounted_together_are_one_folder() {
        let dirs = Dirs {
            cpu: Some("/c".into()),
            cpuacct: Some("/c".into()),
            memory: Some("/m".into()),
            ..Dirs::default()
        };
        assert_eq!(Group::new(dirs).procs.len(), 2);
    }
}
