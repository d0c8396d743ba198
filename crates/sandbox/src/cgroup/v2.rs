//! The v2 half of a group: limits where the controllers are here (pure v2), and freeze, kill and CPU time always.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use super::files::{self, Knob, at};
use super::{Limits, Result, Usage};

/// CPU quota is handed out per this many microseconds: short enough that a throttled request waits at most a tenth of a second.
pub(super) const CPU_PERIOD_US: u64 = 100_000;
/// The kernel takes no quota below one millisecond.
pub(super) const CPU_QUOTA_MIN_US: u64 = 1_000;

/// Quota in microseconds per [`CPU_PERIOD_US`].
pub(super) fn quota_us(cpu_millis: u32) -> u64 {
    (u64::from(cpu_millis) * CPU_PERIOD_US / 1_000).max(CPU_QUOTA_MIN_US)
}

/// Which of the controllers Lauf uses live in the v2 hierarchy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Controllers {
    pub(super) cpu: bool,
    pub(super) memory: bool,
    pub(super) pids: bool,
}

impl Controllers {
    /// From the content of `cgroup.controllers`.
    pub(super) fn parse(list: &str) -> Self {
        let has = |name| list.split_ascii_whitespace().any(|c| c == name);
        Self {
            cpu: has("cpu"),
            memory: has("memory"),
            pids: has("pids"),
        }
    }

    pub(super) fn any(self) -> bool {
        self.cpu || self.memory || self.pids
    }

    /// What to write to `cgroup.subtree_control`, `+` to enable and `-` to disable.
    fn list(self, sign: char) -> String {
        let mut list = String::new();
        for (name, on) in [
            ("cpu", self.cpu),
            ("memory", self.memory),
            ("pids", self.pids),
        ] {
            if on {
                list.push(sign);
                list.push_str(name);
                list.push(' ');
            }
        }
        list.trim_end().to_owned()
    }
}

/// Lauf's folder in the v2 hierarchy.
#[derive(Debug)]
pub(super) struct Root {
    dir: PathBuf,
    controllers: Controllers,
    /// The leaf this process went to because its own group had to hand out controllers and may then hold no processes.
    moved_from: Option<(PathBuf, PathBuf)>,
}

impl Root {
    /// Creates the folder `name` in `base` and has it hand the controllers on. `own` is the group this process is in.
    pub(super) fn create(
        base: &Path,
        own: &Path,
        name: &str,
        controllers: Controllers,
    ) -> Result<Self> {
        let dir = base.join(name);
        files::make_dir(&dir)?;
        let mut root = Self {
            dir,
            controllers,
            moved_from: None,
        };
        if controllers.any() {
            let enabled = enable(base, controllers);
            if enabled.as_ref().is_err_and(super::CgroupError::is_busy) && base == own {
                // "No internal processes": a group that hands out controllers has no processes of its own. We make ourselves a leaf.
                let leaf = base.join(format!("{name}-self"));
                files::make_dir(&leaf)?;
                files::write(&leaf, "cgroup.procs", "0")?;
                root.moved_from = Some((base.to_owned(), leaf));
                if let Err(error) = enable(base, controllers) {
                    let _ = root.remove();
                    return Err(error);
                }
            } else if let Err(error) = enabled {
                let _ = files::remove_dir(&root.dir);
                return Err(error);
            }
            enable(&root.dir, controllers)?;
        }
        Ok(root)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn group(&self, name: &str) -> Group {
        Group::new(self.dir.join(name), self.controllers)
    }

    pub(super) fn limit_memory(&self, bytes: u64) -> Result<()> {
        if !self.controllers.memory {
            return Ok(());
        }
        files::write(&self.dir, "memory.max", &bytes.to_string())
    }

    pub(super) fn memory_in_use(&self) -> Option<u64> {
        let all = files::number(&self.dir, "memory.current")?;
        let stat = files::read(&self.dir, "memory.stat").ok()?;
        let of = |key: &str| files::keyed_in(&stat, key).unwrap_or(0);
        Some(all.saturating_sub(of("inactive_file") + of("active_file")))
    }

    pub(super) fn remove(&self) -> Result<()> {
        files::remove_dir(&self.dir)?;
        if let Some((base, leaf)) = &self.moved_from {
            // Best effort: with other delegated children the controllers stay on, and we stay in the leaf.
            if files::write(base, "cgroup.subtree_control", &self.controllers.list('-')).is_ok()
                && files::write(base, "cgroup.procs", "0").is_ok()
            {
                let _ = files::remove_dir(leaf);
            }
        }
        Ok(())
    }
}

fn enable(dir: &Path, controllers: Controllers) -> Result<()> {
    files::write(dir, "cgroup.subtree_control", &controllers.list('+'))
}

#[derive(Debug)]
pub(super) struct Group {
    dir: PathBuf,
    procs: CString,
    controllers: Controllers,
}

impl Group {
    fn new(dir: PathBuf, controllers: Controllers) -> Self {
        let procs = files::c_path(&dir.join("cgroup.procs"));
        Self {
            dir,
            procs,
            controllers,
        }
    }

    pub(super) fn make(&self) -> Result<()> {
        files::make_dir(&self.dir)
    }

    pub(super) fn destroy(&self) -> Result<()> {
        files::remove_dir(&self.dir)
    }

    pub(super) fn open_dir(&self) -> io::Result<OwnedFd> {
        Ok(rustix::fs::open(
            &self.dir,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?)
    }

    pub(super) fn enter_self(&self) -> io::Result<()> {
        files::enter(&self.procs)
    }

    pub(super) fn enter_pid(&self, pid: u32) -> Result<()> {
        files::write(&self.dir, "cgroup.procs", &pid.to_string())
    }

    pub(super) fn set_cpu(&self, cpu_millis: u32) -> Result<()> {
        if !self.controllers.cpu {
            return Ok(());
        }
        let (max, weight) = max_and_weight(cpu_millis);
        files::write(&self.dir, "cpu.max", &max)?;
        files::write(&self.dir, "cpu.weight", &weight)
    }

    pub(super) fn knobs(&self) -> Result<Knobs> {
        let open = |on: bool, file| on.then(|| Knob::open(&self.dir, file)).transpose();
        let Controllers { cpu, memory, pids } = self.controllers;
        // Absent where the kernel has no swap accounting.
        let swap = memory.then(|| Knob::open_if_there(&self.dir, "memory.swap.max"));
        Ok(Knobs {
            cpu: open(cpu, "cpu.max")?,
            weight: open(cpu, "cpu.weight")?,
            memory: open(memory, "memory.max")?,
            swap: swap.transpose()?.flatten(),
            pids: open(pids, "pids.max")?,
        })
    }

    pub(super) fn set_frozen(&self, frozen: bool) -> Result<()> {
        files::write(&self.dir, "cgroup.freeze", if frozen { "1" } else { "0" })
    }

    pub(super) fn is_frozen(&self) -> Result<bool> {
        let text = files::read(&self.dir, "cgroup.events").map_err(at(&self.dir))?;
        Ok(files::keyed_in(&text, "frozen") == Some(1))
    }

    pub(super) fn is_empty(&self) -> bool {
        files::keyed(&self.dir, "cgroup.events", "populated") != Some(1)
    }

    pub(super) fn kill_all(&self) -> Result<()> {
        // Linux 5.14. Before that: stop them all, so that none can fork away from the list, then kill each; SIGKILL ends frozen ones.
        if !files::write_if_there(&self.dir, "cgroup.kill", "1")? && self.dir.exists() {
            self.set_frozen(true)?;
            super::v1::kill_listed(&self.dir);
            self.set_frozen(false)?;
        }
        Ok(())
    }

    pub(super) fn oom_kills(&self) -> u64 {
        files::keyed(&self.dir, "memory.events", "oom_kill").unwrap_or(0)
    }

    pub(super) fn memory_events(&self) -> Option<PathBuf> {
        self.controllers
            .memory
            .then(|| self.dir.join("memory.events"))
    }

    pub(super) fn usage(&self) -> Usage {
        let mut usage = self.final_usage();
        if self.controllers.memory {
            usage.memory_bytes = files::number(&self.dir, "memory.current").unwrap_or(0);
        }
        usage.memory_peak_bytes = usage.memory_peak_bytes.max(usage.memory_bytes);
        usage
    }

    pub(super) fn final_usage(&self) -> Usage {
        let stat = files::read(&self.dir, "cpu.stat").unwrap_or_default();
        let micros = |key| Duration::from_micros(files::keyed_in(&stat, key).unwrap_or(0));
        let peak = || files::number(&self.dir, "memory.peak");
        Usage {
            cpu: micros("usage_usec"),
            throttled: micros("throttled_usec"),
            memory_bytes: 0,
            memory_peak_bytes: self.controllers.memory.then(peak).flatten().unwrap_or(0),
        }
    }
}

/// The files by which limits are set.
#[derive(Debug)]
pub(super) struct Knobs {
    cpu: Option<Knob>,
    weight: Option<Knob>,
    memory: Option<Knob>,
    swap: Option<Knob>,
    pids: Option<Knob>,
}

impl Knobs {
    /// Goes from the limits `now`, if known, to others.
    pub(super) fn set(&self, now: Option<&Limits>, limits: &Limits) -> Result<()> {
        let turn =
            |knob: &Option<Knob>, value: &str| knob.as_ref().map_or(Ok(()), |knob| knob.set(value));
        if now.is_none_or(|now| now.cpu_millis != limits.cpu_millis) {
            let (max, weight) = max_and_weight(limits.cpu_millis);
            turn(&self.cpu, &max)?;
            turn(&self.weight, &weight)?;
        }
        if now.is_none_or(|now| now.memory_bytes != limits.memory_bytes) {
            turn(&self.memory, &max_or(limits.memory_bytes))?;
            let swap = if limits.memory_bytes == 0 { "max" } else { "0" };
            turn(&self.swap, swap)?;
        }
        if now.is_none_or(|now| now.pids_max != limits.pids_max) {
            turn(&self.pids, &max_or(limits.pids_max.into()))?;
        }
        Ok(())
    }
}

fn max_and_weight(cpu_millis: u32) -> (String, String) {
    match cpu_millis {
        0 => (format!("max {CPU_PERIOD_US}"), "100".to_owned()),
        // One whole CPU has the default weight of 100, so that instances share a full machine by their size.
        millis => (
            format!("{} {CPU_PERIOD_US}", quota_us(millis)),
            (millis / 10).clamp(1, 10_000).to_string(),
        ),
    }
}

fn max_or(value: u64) -> String {
    if value == 0 {
        "max".to_owned()
    } else {
        value.to_string()
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
        let group = Group::new(
            dir.path().to_owned(),
            Controllers {
                cpu: true,
                memory: true,
                pids: true,
            },
        );
        (dir, group)
    }

    fn content(dir: &tempfile::TempDir, file: &str) -> String {
        fs::read_to_string(dir.path().join(file)).unwrap()
    }

    #[test]
    fn limits_are_written_in_the_kernels_own_format() {
        let (dir, group) = fake(&[
            ("cpu.max", ""),
            ("cpu.weight", ""),
            ("memory.max", ""),
            ("memory.swap.max", ""),
            ("pids.max", ""),
        ]);
        let limits = Limits {
            cpu_millis: 500,
            memory_bytes: 512 << 20,
            pids_max: 1000,
        };
        group.knobs().unwrap().set(None, &limits).unwrap();
        assert_eq!(content(&dir, "cpu.max"), "50000 100000");
        assert_eq!(content(&dir, "cpu.weight"), "50");
        assert_eq!(content(&dir, "memory.max"), "536870912");
        assert_eq!(content(&dir, "memory.swap.max"), "0");
        assert_eq!(content(&dir, "pids.max"), "1000");
    }

    #[test]
    fn zero_means_no_limit_and_tiny_shares_reach_the_kernels_minimum() {
        let (dir, group) = fake(&[
            ("cpu.max", ""),
            ("cpu.weight", ""),
            ("memory.max", ""),
            ("pids.max", ""),
        ]);
        let knobs = group.knobs().unwrap();
        knobs.set(None, &Limits::default()).unwrap();
        assert_eq!(content(&dir, "cpu.max"), "max 100000");
        assert_eq!(content(&dir, "memory.max"), "max");
        assert_eq!(content(&dir, "pids.max"), "max");
        assert_eq!(quota_us(1), 1_000);
        assert_eq!(quota_us(8_000), 800_000);
    }

    #[test]
    fn usage_survives_kernels_that_lack_files() {
        let (_dir, group) = fake(&[
            (
                "cpu.stat",
                "usage_usec 2500000\nuser_usec 1\nthrottled_usec 7\n",
            ),
            ("memory.current", "4096\n"),
        ]);
        let usage = group.usage();
        assert_eq!(usage.cpu, Duration::from_millis(2500));
        assert_eq!(usage.throttled, Duration::from_micros(7));
        assert_eq!((usage.memory_bytes, usage.memory_peak_bytes), (4096, 4096));
        assert_eq!(group.oom_kills(), 0);
    }

    #[test]
    fn only_controllers_that_are_here_are_enabled() {
        let c = Controllers::parse("cpuset cpu io pids\n");
        assert_eq!(
            c,
            Controllers {
                cpu: true,
                memory: false,
                pids: true
            }
        );
        assert_eq!(c.list('+'), "+cpu +pids");
        assert!(!Controllers::parse("hugetlb").any());
    }
}
