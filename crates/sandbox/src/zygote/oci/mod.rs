//! The second back end: a container made by an OCI runtime's command line (runc, crun, runsc, kata).
//!
//! The process that waits in the pool has a network and a mount namespace only; the runtime makes the others. When a spec comes it
//! mounts the image, writes the bundle, and calls `create` and `start`. The instance's first process then becomes a child of the
//! keeper (which is a subreaper), and everything else goes as with the own runtime: the same cgroup, pipes, events.
//!
//! Confinement is what the own runtime does, in the words of the OCI runtime specification (config.md, config-linux.md).

mod bundle;
mod complaint;
mod kind;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::mounts::mount_new;
use super::prepare::{NO_EXEC, give_to_user, make_dir, network};
use super::rootfs::Stage;
use super::{Channel, Failure, Making, Says, Step, Template, rootfs};
use crate::cgroup::Cgroup;
use crate::protocol::FailReason::Host;
use crate::spec::ContainerSpec;
use rustix::mount::MountFlags;

pub(crate) use kind::Kind;

/// What the keeper decides once about a foreign runtime.
#[derive(Debug, Clone)]
pub(crate) struct OciRuntime {
    /// The program.
    pub(crate) path: PathBuf,
    /// Which it is.
    pub(crate) kind: Kind,
    /// Arguments before the subcommand.
    pub(crate) args: Vec<String>,
    /// Where the runtime keeps its records.
    pub(crate) records: PathBuf,
}

impl OciRuntime {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.args(&self.args).arg("--root").arg(&self.records);
        command
    }

    /// A runtime that leaves cgroups alone takes its own along, so it has to be in the instance's.
    fn ignores_cgroups(&self) -> bool {
        self.args.iter().any(|arg| arg.contains("ignore-cgroups"))
    }

    /// The command that takes the runtime's records of an instance away.
    pub(crate) fn deletion(&self, name: &str) -> Command {
        let mut command = self.command();
        command.args(["delete", "--force", name]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }
}

/// Where bundles are built, in the mount namespace of each: the mapped root must be able to walk there, which it cannot in a state
/// directory that is closed to others.
pub(crate) fn stage_outside(avoid: &[PathBuf]) -> Result<PathBuf, String> {
    let places = ["/mnt", "/srv", "/media", "/opt"].map(PathBuf::from);
    let free =
        |place: &PathBuf| place.is_dir() && !avoid.iter().any(|path| path.starts_with(place));
    places
        .into_iter()
        .find(free)
        .ok_or_else(|| "none of /mnt, /srv, /media, /opt is free to mount a bundle on".to_owned())
}

/// The part before a spec comes.
pub(super) fn prepare(
    template: &Template,
    runtime: &OciRuntime,
    making: &Making<'_>,
    channel: &mut Channel,
) -> Result<(), Failure> {
    let cgroup = making.cgroup;
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .step(Host, "tie life to the keeper's")?;
    if runtime.ignores_cgroups() {
        cgroup.enter_self().step(Host, "enter the cgroup")?;
    }
    if runtime.ignores_cgroups() || runtime.kind.knows_one_hierarchy() {
        cgroup.enter_unified_self().step(Host, "enter the cgroup")?;
    }
    network(making, channel, 0)?;
    let stage = &template.stage;
    mount_new(
        "tmpfs",
        stage,
        MountFlags::NOSUID | MountFlags::NODEV,
        "mode=0755",
    )
    .step(Host, "mount the writable layer")?;
    for (name, mode, owner) in [
        ("upper", 0o755, template.uid_base),
        ("work", 0o700, 0),
        ("root", 0o755, 0),
        ("empty", 0o755, template.uid_base),
        ("layers", 0o700, 0),
        ("sys", 0o755, 0),
    ] {
        make_dir(&stage.join(name), mode, owner).step(Host, "make the stage")?;
    }
    // A file system of the right network namespace; a mapped root could not mount one.
    mount_new(
        "sysfs",
        &stage.join("sys"),
        NO_EXEC | MountFlags::RDONLY,
        "",
    )
    .step(Host, "mount /sys")
}

/// The part that starts the container; returns when its command was executed or that is certain.
pub(super) fn start(
    template: &Template,
    runtime: &OciRuntime,
    cgroup: &Cgroup,
    spec: &ContainerSpec,
    channel: &mut Channel,
    [out, err]: [&OwnedFd; 2],
) -> Result<(), Failure> {
    let begun = crate::clock::monotonic();
    cgroup
        .set_limits(&spec.limits())
        .step(Host, "set the limits")?;
    let stage = &template.stage;
    let image = Stage {
        at: stage.clone(),
        images: None,
        // As nobody asks for: its size is not set yet.
        memory_bytes: u64::MAX,
        layers_one_by_one: template.layers_one_by_one,
    };
    rootfs::assemble(&image, template.uid_base, spec)?;
    for fd in [out, err] {
        give_to_user(fd, template.uid_base, spec).step(Host, "hand over the output pipes")?;
    }
    let config = bundle::config(template, runtime, cgroup, spec);
    fs::write(stage.join("config.json"), config.to_string()).step(Host, "write the bundle")?;
    let mounted = crate::clock::monotonic();

    let log = stage.join("log");
    let pid_file = stage.join("pid");
    let name = cgroup.name();
    let call = |words: &[&str], [out, err]: [Stdio; 2]| -> io::Result<bool> {
        let mut command = runtime.command();
        command
            .arg("--log")
            .arg(&log)
            .args(["--log-format", "json"])
            .args(words);
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        Ok(command.status()?.success())
    };
    let what = format!("run {}", runtime.path.display());
    let bundle = stage.to_string_lossy();
    // What it is called with becomes the container's.
    let outputs = [out.try_clone(), err.try_clone()];
    let [Ok(out), Ok(err)] = outputs else {
        return Err(Failure::new(Host, "share the output pipes"));
    };
    let pid_path = pid_file.to_string_lossy();
    let words = ["create", "--bundle", &bundle, "--pid-file", &pid_path, name];
    let made = call(&words, [out.into(), err.into()]).step(Host, &what)?;
    if !made {
        return Err(complaint::failure_from(&log));
    }
    let pid = fs::read_to_string(&pid_file).step(Host, "read the runtime's pid file")?;
    let pid: u32 = pid
        .trim()
        .parse()
        .step(Host, "read the runtime's pid file")?;
    let before = Execution::of(pid);
    channel
        .say(&Says::Created { pid })
        .step(Host, "answer the keeper")?;
    if !call(&["start", name], [Stdio::null(), Stdio::null()]).step(Host, &what)? {
        return Err(complaint::failure_from(&log));
    }
    if let Some(before) = before
        && !runtime.kind.has_a_kernel()
    {
        before.wait_for_another();
    }
    let says = Says::Executing {
        rootfs: mounted - begun,
        confine: crate::clock::monotonic() - mounted,
    };
    channel.say(&says).step(Host, "answer the keeper")
}

/// What the first process of a container executes: until the command, that is the runtime's own program, which takes a signal for
/// itself. `start` returns a moment before.
struct Execution {
    link: PathBuf,
    file: (u64, u64),
}

impl Execution {
    /// `None` when the process has ended, or is not one of a container: kata's is the one that runs the virtual machine.
    fn of(pid: u32) -> Option<Self> {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let namespace = |process: &Path| fs::read_link(process.join("ns/pid")).ok();
        if namespace(&process)? == namespace(Path::new("/proc/self"))? {
            return None;
        }
        let link = process.join("exe");
        let file = Self::file(&link)?;
        Some(Self { link, file })
    }

    fn file(link: &Path) -> Option<(u64, u64)> {
        let file = fs::metadata(link).ok()?;
        Some((file.dev(), file.ino()))
    }

    /// Returns when it is another program or has ended, and in any case after five seconds.
    fn wait_for_another(&self) {
        let mut pause = Duration::from_micros(50);
        let mut waited = Duration::ZERO;
        while waited < Duration::from_secs(5) && Self::file(&self.link) == Some(self.file) {
            thread::sleep(pause);
            waited += pause;
            pause = (pause * 2).min(Duration::from_millis(5));
        }
    }
}

/// Marks this process as the one that inherits orphans below it.
pub(crate) fn become_subreaper() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(
        rustix::process::getpid(),
    ))?)
}
