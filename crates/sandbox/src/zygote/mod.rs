//! A zygote: a process that has everything of a container but the image and the command.
//!
//! The keeper forks it ahead of time ([`spawn`]). It takes its namespaces, its cgroup, its network, its `/proc`, `/dev` and `/sys`,
//! lets go of the host's files ([`prepare`]), says that it is ready and waits on a socket. When a spec comes, it mounts the image
//! ([`rootfs`]), gives up all power ([`confine`]) and becomes the command ([`exec`]). The socket closes by itself at `execve`, which is how the keeper
//! learns of success; everything else is said on it in [`Says`].
//!
//! Everything here but [`spawn`] runs in the child, which has one thread and its own copy of the keeper's small memory, so
//! ordinary Rust is allowed. It never returns into the keeper's code.

mod confine;
mod exec;
mod mounts;
mod oci;
mod prepare;
mod rootfs;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cgroup::{Cgroup, Limits};
use crate::net::Lease;
use crate::protocol::FailReason;
use crate::seccomp::CompiledFilter;
use crate::spec::ContainerSpec;
use crate::sys::{self, Cloned};
use crate::wire::{FrameReader, FrameWriter};

/// The descriptors a zygote begins with, by number: its socket, and the instance's standard output and error.
const SLOTS: [RawFd; 3] = [3, 4, 5];
/// The first descriptor number that is nobody's slot.
pub(crate) const FIRST_FREE: RawFd = 6;

/// What a zygote tells the keeper.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Says {
    /// It has its own descriptor table now; the slots may be used for the next one.
    Unshared,
    /// The address it was given belongs to somebody who has not quite left; it waits for another.
    AddressInUse,
    /// It waits for a spec.
    Ready,
    /// A foreign runtime has made the container; from here on, this is its first process.
    Created {
        /// In the keeper's numbering.
        pid: u32,
    },
    /// The next thing it does is `execve`; the end of the stream now means success.
    Executing {
        /// Time spent on the image.
        rootfs: Duration,
        /// Time spent on giving up power.
        confine: Duration,
    },
    /// It cannot go on, and ends.
    Failed(Failure),
}

/// What the keeper tells a zygote.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Told {
    /// Another address than that it began with.
    Address(Lease),
    /// What to become.
    Spec(Box<ContainerSpec>),
}

/// Why a start failed, as it goes over the wires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Failure {
    pub(crate) reason: FailReason,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(reason: FailReason, text: impl Into<String>) -> Self {
        Self {
            reason,
            text: text.into(),
        }
    }
}

/// Names the step that failed: `.step(FailReason::Mount, "mount /proc")`.
pub(crate) trait Step<T> {
    fn step(self, reason: FailReason, what: &str) -> Result<T, Failure>;
}

impl<T, E: std::fmt::Display> Step<T> for Result<T, E> {
    fn step(self, reason: FailReason, what: &str) -> Result<T, Failure> {
        self.map_err(|e| Failure::new(reason, format!("{what}: {e}")))
    }
}

/// What all zygotes of a keeper have in common.
#[derive(Debug)]
pub(crate) struct Template {
    /// An empty directory over which each zygote builds, in its own mount namespace.
    pub(crate) stage: PathBuf,
    /// See [`crate::KeeperSettings::uid_base`].
    pub(crate) uid_base: u32,
    /// The system call filter.
    pub(crate) filter: CompiledFilter,
    /// Where the cgroup file systems are mounted.
    pub(crate) cgroup_mounts: Vec<CgroupMount>,
    /// The cgroup above the instances', as a path within each hierarchy.
    pub(crate) cgroup_parent: String,
    /// The foreign runtime, when there is one.
    pub(crate) oci: Option<OciRuntime>,
    /// Below which directories image layers are.
    pub(crate) layer_dirs: Vec<PathBuf>,
    /// See [`takes_layers_one_by_one`].
    pub(crate) layers_one_by_one: bool,
}

/// What one zygote is made with.
#[derive(Debug)]
pub(crate) struct Making<'a> {
    /// Its group.
    pub(crate) cgroup: &'a Cgroup,
    /// Its address, when there is egress.
    pub(crate) lease: Option<&'a Lease>,
    /// The limits that its spec will probably have: set before it comes, and set again only where it has others.
    pub(crate) usual: Limits,
}

pub(crate) use mounts::{
    CgroupMount, cgroup_mounts, hide_unified_cgroups, keep_all_mounts, keep_only_mounts,
    remove_cgroup_everywhere,
};
pub(crate) use oci::{Kind, OciRuntime, become_subreaper, stage_outside};
pub(crate) use rootfs::takes_layers_one_by_one;

/// A zygote as the keeper holds it.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) pid: u32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) control: UnixStream,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// Reserves the slots, so that no other descriptor ever gets their numbers. Called once, at the keeper's start.
pub(crate) fn reserve_slots() -> io::Result<()> {
    let null = rustix::fs::open(
        "/dev/null",
        rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    // One that certainly lies above the slots.
    let high = rustix::io::fcntl_dupfd_cloexec(&null, 64)?;
    drop(null);
    for slot in SLOTS {
        sys::put_into_slot(high.as_fd(), slot, true)?;
    }
    Ok(())
}

/// Empties the slots after a zygote has said [`Says::Unshared`] or is dead.
pub(crate) fn clear_slots() -> io::Result<()> {
    let null = sys::borrow_slot(0);
    SLOTS
        .into_iter()
        .try_for_each(|slot| sys::put_into_slot(null, slot, true))
}

/// Forks a zygote. Until it has said [`Says::Unshared`] it shares the descriptor table, which makes the cost of the fork
/// independent of how many instances the keeper holds; the slots must stay as they are until then.
///
/// # Errors
/// When the process, its pipes or its socket cannot be made.
pub(crate) fn spawn(
    template: &Template,
    making: &Making<'_>,
    group_dirs_fd: Option<BorrowedFd<'_>>,
) -> io::Result<Spawned> {
    let (control, theirs) = UnixStream::pair()?;
    // A whole spec fits, so that handing it over never waits for the zygote.
    rustix::net::sockopt::set_socket_send_buffer_size_force(&control, 4 << 20)?;
    control.set_nonblocking(true)?;
    let (stdout, stdout_theirs) = output_pipe()?;
    let (stderr, stderr_theirs) = output_pipe()?;
    for (slot, fd) in
        SLOTS
            .into_iter()
            .zip([theirs.as_fd(), stdout_theirs.as_fd(), stderr_theirs.as_fd()])
    {
        sys::put_into_slot(fd, slot, true)?;
    }
    let kinds = if template.oci.is_some() {
        libc::CLONE_NEWNS
    } else {
        libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS
    };
    // A foreign runtime puts the container into its cgroup itself.
    let group_dirs_fd = group_dirs_fd.filter(|_| template.oci.is_none());
    let flags = libc::CLONE_FILES | kinds;
    match sys::clone_process(flags, group_dirs_fd)? {
        Cloned::Parent { pid, pidfd } => Ok(Spawned {
            pid,
            pidfd,
            control,
            stdout,
            stderr,
        }),
        Cloned::Child => {
            let ended =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| live(template, making)));
            sys::exit_now(if ended.is_ok() { 125 } else { 126 })
        }
    }
}

/// A pipe whose reading end never makes the keeper wait and whose writing end is an ordinary one.
pub(crate) fn output_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&read, true)?;
    Ok((read, write))
}

struct Channel {
    socket: UnixStream,
    reader: FrameReader,
    writer: FrameWriter,
}

impl Channel {
    fn say(&mut self, message: &Says) -> io::Result<()> {
        self.writer.push(message, Vec::new())?;
        self.writer.flush(&self.socket).map(drop)
    }

    /// Waits for what the keeper has to tell. The end of the stream means that the keeper is gone or does not need us.
    fn hear(&mut self) -> Told {
        loop {
            match self
                .reader
                .next_frame()
                .and_then(|frame| frame.map(|f| f.decode()).transpose())
            {
                Ok(Some(told)) => return told,
                Ok(None) => {}
                Err(_) => sys::exit_now(125),
            }
            match self.reader.fill(&self.socket) {
                Ok(0) => sys::exit_now(0),
                Err(e) if e.kind() != io::ErrorKind::Interrupted => sys::exit_now(125),
                Ok(_) | Err(_) => {}
            }
        }
    }

    fn spec(&mut self) -> Box<ContainerSpec> {
        match self.hear() {
            Told::Spec(spec) => spec,
            Told::Address(_) => sys::exit_now(125),
        }
    }

    /// Another address in the place of one that is in use.
    fn address(&mut self) -> io::Result<Lease> {
        self.say(&Says::AddressInUse)?;
        match self.hear() {
            Told::Address(lease) => Ok(lease),
            Told::Spec(_) => sys::exit_now(125),
        }
    }

    /// Whether the keeper still holds the other end.
    fn keeper_lives(&self) -> bool {
        let mut poll = [rustix::event::PollFd::new(
            &self.socket,
            rustix::event::PollFlags::empty(),
        )];
        let now = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        matches!(rustix::event::poll(&mut poll, Some(&now)), Ok(0))
    }
}

/// The life of a zygote. Returns only when it failed, after saying so.
fn live(template: &Template, making: &Making<'_>) {
    if sys::keep_only_below(FIRST_FREE).is_err() {
        sys::exit_now(125);
    }
    // Modes are as they are given; the command gets the usual mask back.
    rustix::process::umask(rustix::fs::Mode::empty());
    let [socket, out, err] = SLOTS.map(sys::own_slot);
    let mut channel = Channel {
        socket: UnixStream::from(socket),
        reader: FrameReader::default(),
        writer: FrameWriter::default(),
    };
    let result = match &template.oci {
        None => become_container(template, making, &mut channel, &out, &err),
        Some(runtime) => call_runtime(template, runtime, making, &mut channel, [&out, &err]),
    };
    let Err(failure) = result;
    // The keeper may be gone; there is nobody else to tell.
    let _ = channel.say(&Says::Failed(failure));
}

enum Never {}

fn call_runtime(
    template: &Template,
    runtime: &OciRuntime,
    making: &Making<'_>,
    channel: &mut Channel,
    outputs: [&OwnedFd; 2],
) -> Result<Never, Failure> {
    let host = FailReason::Host;
    channel
        .say(&Says::Unshared)
        .step(host, "answer the keeper")?;
    sys::close_on_exec_from(3).step(host, "mark descriptors")?;
    oci::prepare(template, runtime, making, channel)?;
    channel.say(&Says::Ready).step(host, "answer the keeper")?;
    let spec = channel.spec();
    sys::reset_signals();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    oci::start(template, runtime, making.cgroup, &spec, channel, outputs)?;
    sys::exit_now(0)
}

fn become_container(
    template: &Template,
    making: &Making<'_>,
    channel: &mut Channel,
    out: &OwnedFd,
    err: &OwnedFd,
) -> Result<Never, Failure> {
    let host = FailReason::Host;
    channel
        .say(&Says::Unshared)
        .step(host, "answer the keeper")?;
    sys::reset_signals();
    let mut prepared = prepare::prepare(template, making, channel)?;
    channel.say(&Says::Ready).step(host, "answer the keeper")?;
    let spec = channel.spec();

    let begun = crate::clock::monotonic();
    let limiter = &mut prepared.limiter;
    limiter.set(&spec.limits()).step(host, "set the limits")?;
    rootfs::assemble(&prepared.stage, template.uid_base, &spec)?;
    let root = rootfs::open(&prepared.stage)?;
    rootfs::enter(&prepared.stage, template.uid_base, root)?;
    rustix::system::sethostname(spec.hostname.as_bytes()).step(host, "set the host name")?;
    rootfs::make_working_directory(template.uid_base, &spec)?;
    let mounted = crate::clock::monotonic();

    for (fd, number) in [(out, 1), (err, 2)] {
        prepare::give_to_user(fd, template.uid_base, &spec)
            .step(host, "hand over the output pipes")?;
        sys::put_into_slot(fd.as_fd(), number, false)
            .step(host, "put the output pipes in place")?;
    }
    sys::put_into_slot(prepared.null.as_fd(), 0, false)
        .step(host, "put the standard input in place")?;
    sys::close_on_exec_from(3).step(host, "mark descriptors")?;
    let command = exec::Command::new(&spec)?;
    confine::enter_user(&prepared, &spec)?;
    if !channel.keeper_lives() {
        sys::exit_now(0);
    }
    confine::give_up_power(template, &spec)?;
    let confined = crate::clock::monotonic();

    let says = Says::Executing {
        rootfs: mounted - begun,
        confine: confined - mounted,
    };
    channel.say(&says).step(host, "answer the keeper")?;
    Err(command.execute())
}
