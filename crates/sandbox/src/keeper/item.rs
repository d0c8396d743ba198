//! One process the keeper holds, from zygote to exit.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::cgroup::Cgroup;
use crate::lines::LineSplitter;
use crate::net::Lease;
use crate::protocol::Phases;
use crate::spec::{ContainerSpec, InstanceId};
use crate::wire::{FrameReader, FrameWriter};
use crate::zygote::{Failure, Says, Told};

/// A zygote or an instance.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) pid: u32,
    pub(super) pidfd: OwnedFd,
    pub(super) cgroup: Cgroup,
    pub(super) lease: Option<Lease>,
    pub(super) stdout: Output,
    pub(super) stderr: Output,
    /// What tells of kills for want of memory, where each group needs its own.
    pub(super) oom_event: Option<OwnedFd>,
    pub(super) state: State,
}

/// Where an item is in its life. Each state carries what only it has.
#[derive(Debug)]
pub(super) enum State {
    /// The zygote is setting itself up.
    Preparing {
        control: Control,
        deadline: Instant,
        /// It has said why it cannot.
        failed: bool,
    },
    /// The zygote waits for a spec. The namespace is held for the server's sake until it is handed over.
    Ready { control: Control, netns: OwnedFd },
    /// The zygote has a spec.
    Starting {
        control: Control,
        netns: OwnedFd,
        start: Box<Start>,
    },
    /// The command runs.
    Running(Box<Running>),
    /// Between two of the others; never seen from outside of the function that changes it.
    Changing,
}

/// A start on its way.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) seq: u64,
    /// Serial of the connection that asked.
    pub(super) asker: u64,
    pub(super) id: InstanceId,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) stop_signal: i32,
    pub(super) outlives_asker: bool,
    pub(super) begun: Instant,
    pub(super) deadline: Instant,
    pub(super) phases: Phases,
    pub(super) executing: bool,
    /// A foreign runtime has made the container.
    pub(super) created: bool,
    /// The zygote, or who called the runtime, says no more.
    pub(super) silent: bool,
    pub(super) failure: Option<Failure>,
}

/// A request to start that waits for a zygote.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) seq: u64,
    pub(super) asker: u64,
    pub(super) spec: Box<ContainerSpec>,
    pub(super) begun: Instant,
}

/// A running instance.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) id: InstanceId,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) stop_signal: i32,
    pub(super) started_at: u64,
    pub(super) frozen: bool,
    pub(super) oom_kills: u64,
    /// A deadly signal that the kernel would have kept from the first process of a pid namespace, and that was therefore
    /// carried out by a kill.
    pub(super) stood_in_for: Option<i32>,
}

/// One end of an output pipe. The descriptor is gone once the stream has ended.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) fd: Option<OwnedFd>,
    pub(super) lines: LineSplitter,
}

impl Output {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self {
            fd: Some(fd),
            lines: LineSplitter::default(),
        }
    }
}

/// The socket to a zygote.
#[derive(Debug)]
pub(super) struct Control {
    socket: UnixStream,
    reader: FrameReader,
}

impl Control {
    pub(super) fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            reader: FrameReader::default(),
        }
    }

    pub(super) fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// Hands something over. Never waits: the socket's buffer takes any spec there can be.
    pub(super) fn tell(&self, told: &Told) -> io::Result<()> {
        let mut writer = FrameWriter::default();
        writer.push(told, Vec::new())?;
        if writer.flush(&self.socket)? {
            Ok(())
        } else {
            Err(io::ErrorKind::WouldBlock.into())
        }
    }

    /// What the zygote said, and whether the stream has ended.
    pub(super) fn read(&mut self) -> io::Result<(Vec<Says>, bool)> {
        let mut said = Vec::new();
        loop {
            let ended = match self.reader.fill(&self.socket) {
                Ok(0) => true,
                Ok(_) => false,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok((said, false)),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                // A zygote that died with unread bytes in its socket.
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => true,
                Err(e) => return Err(e),
            };
            while let Some(frame) = self.reader.next_frame()? {
                said.push(frame.decode()?);
            }
            if ended {
                return Ok((said, true));
            }
        }
    }
}

/// How long a zygote may take to set itself up.
pub(super) const PREPARE_LIMIT: Duration = Duration::from_secs(30);

/// How long a start may take from the spec to `execve`; a hanging network file system under the layers is the usual reason.
pub(super) const START_LIMIT: Duration = Duration::from_secs(60);
