//! What the benchmarks ask of this machine: time, ports, load, memory, descriptors, processes.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process_group};

/// The one clock of the benchmarks.
#[expect(
    clippy::disallowed_methods,
    reason = "a benchmark's measure is the machine's own time"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Refuses to measure a debug build, and to run without the rights that sandboxes need.
pub(crate) fn check() -> anyhow::Result<()> {
    if cfg!(debug_assertions) {
        bail!("this is a debug build; run `cargo xtask bench ...`");
    }
    if !rustix::process::geteuid().is_root() {
        bail!("run this as root: it starts containers");
    }
    Ok(())
}

/// A port of loopback that nobody has now.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Runs what waits for others, on as many threads as most machines here have processors.
pub(crate) fn on_two_threads(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(work)
}

/// What the disk alone takes to make so many bytes durable, in a file whose blocks are there.
pub(crate) fn synced(dir: &Path, size: usize, times: usize) -> anyhow::Result<Vec<Duration>> {
    let file = File::create(dir.join("bare"))?;
    let bytes = vec![1; size];
    file.write_all_at(&vec![0; size * times], 0)?;
    file.sync_all()?;
    let mut taken = Vec::new();
    for time in 0..times {
        let begin = now();
        file.write_all_at(&bytes, u64::try_from(time * size)?)?;
        file.sync_data()?;
        taken.push(begin.elapsed());
    }
    Ok(taken)
}

/// `/proc/loadavg`, for the reader of a table.
pub(crate) fn load() -> String {
    fs::read_to_string("/proc/loadavg").map_or_else(|_| "?".to_owned(), |t| t.trim().to_owned())
}

/// Memory that could be had without swapping, in bytes.
pub(crate) fn available() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    kib_after(&text, "MemAvailable:").context("no MemAvailable in /proc/meminfo")
}

/// Resident memory of a process, in bytes.
pub(crate) fn resident(pid: u32) -> anyhow::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    kib_after(&text, "VmRSS:").context("the process has no memory")
}

fn kib_after(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// Open descriptors of a process.
pub(crate) fn descriptors(pid: u32) -> anyhow::Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// Processor time of a process so far.
pub(crate) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("no process state")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 10))
}

/// The first of the processes whose command line has this word and this text somewhere: the one
/// that none of the others is the parent of.
pub(crate) fn process_with(word: &str, text: &str) -> anyhow::Result<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // It may have ended meanwhile.
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        if line.split('\0').any(|w| w == word) && line.contains(text) {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let parent = status
                .lines()
                .find_map(|line| line.strip_prefix("PPid:")?.trim().parse::<u32>().ok());
            found.push((pid, parent));
        }
    }
    let is_found = |pid: &u32| found.iter().any(|(other, _)| other == pid);
    found
        .iter()
        .find(|(_, parent)| parent.as_ref().is_some_and(|parent| !is_found(parent)))
        .map(|(pid, _)| *pid)
        .with_context(|| format!("no process '{word}' of {text}"))
}

/// A process with all that it starts; ends with its owner.
pub(crate) struct Group(Child);

impl Group {
    /// Starts it in a process group of its own.
    pub(crate) fn spawn(command: &mut Command) -> anyhow::Result<Self> {
        use std::os::unix::process::CommandExt;
        let child = command
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Self(child))
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Whether it has ended by itself.
    pub(crate) fn ended(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(Some(_)))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself.
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let _ = self.0.wait();
    }
}
