//! The words between the server and the keeper.
//!
//! Each message is one JSON document in one frame (see [`crate::wire`]); file descriptors travel beside it. Both sides say
//! [`VERSION`] first and part when it differs, because a server may be updated while its keeper lives on.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::settings::KeeperSettings;
use crate::spec::{ContainerSpec, InstanceId};
use crate::spool::Position;

/// The version of these messages.
pub const VERSION: u32 = 2;

/// What the server asks. `seq` comes back in the answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Request {
    /// The first message.
    Hello {
        /// [`VERSION`] of the server.
        version: u32,
    },
    /// Start an instance; answered by `Started` or `StartFailed`.
    Start {
        /// Repeated in the answer.
        seq: u64,
        /// What to run.
        spec: Box<ContainerSpec>,
    },
    /// Something to do with one instance; answered by `Done`.
    Act {
        /// Repeated in the answer.
        seq: u64,
        /// Which instance.
        id: InstanceId,
        /// What to do with it.
        action: Action,
    },
    /// Ask for usage; answered by `Stats`.
    Stats {
        /// Repeated in the answer.
        seq: u64,
        /// Of which instances; all when `None`.
        ids: Option<Vec<InstanceId>>,
    },
    /// Ask for every instance; answered by any number of `Instance`, then the unacknowledged exits as `Exited`, then `Done`.
    List {
        /// Repeated in the answer.
        seq: u64,
    },
    /// The server knows of this exit for good; the keeper forgets it.
    Forget {
        /// Whose exit.
        id: InstanceId,
    },
    /// Change the size of the pool; answered by `Done`.
    Configure {
        /// Repeated in the answer.
        seq: u64,
        /// How many zygotes shall wait ready.
        pool_size: u32,
    },
    /// The server has read the spool up to here; the keeper may say `LogsAdvanced` again.
    LogsSeen {
        /// Up to where.
        position: Position,
    },
    /// Kill everything, clean up, exit; answered by `Done` when all is gone.
    Shutdown {
        /// Repeated in the answer.
        seq: u64,
    },
}

/// What can be done with a running instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Send a signal to its first process.
    Signal(i32),
    /// Kill every process of it, frozen or not.
    Kill,
    /// Stop all its processes from being scheduled.
    Freeze,
    /// Undo `Freeze`.
    Thaw,
    /// Give it another CPU limit, in thousandths of a CPU; 0 means none.
    LimitCpu(u32),
}

/// What the keeper says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Reply {
    /// The first message.
    Hello {
        /// [`VERSION`] of the keeper.
        version: u32,
        /// Its process id.
        pid: u32,
        /// The host's addresses towards the instances, when there is egress: where DNS and metadata may listen.
        gateways: Vec<Ipv4Addr>,
        /// What it was set up with; an older keeper does not say.
        #[serde(default)]
        settings: Option<Box<KeeperSettings>>,
    },
    /// The command was executed. Carries one descriptor: the network namespace.
    Started {
        /// Of the `Start`.
        seq: u64,
        /// The instance.
        info: InstanceInfo,
        /// Where the time went.
        phases: Phases,
    },
    /// The instance could not be started; nothing of it is left.
    StartFailed {
        /// Of the `Start`.
        seq: u64,
        /// The class of the fault.
        reason: FailReason,
        /// The fault in words a user understands.
        text: String,
    },
    /// One living instance of a `List`. Carries one descriptor: the network namespace.
    Instance {
        /// Of the `List`.
        seq: u64,
        /// The instance.
        info: InstanceInfo,
    },
    /// The request was done, or could not be.
    Done {
        /// Of the request.
        seq: u64,
        /// `Some` with the fault in words.
        fault: Option<String>,
    },
    /// Usage as asked.
    Stats {
        /// Of the request.
        seq: u64,
        /// One entry for each instance that lives.
        usage: Vec<(InstanceId, Usage)>,
    },
    /// An instance ended. Said again at each `List` until forgotten.
    Exited(Exited),
    /// A process of the instance was killed for want of memory; the instance itself may live on.
    Oom {
        /// Which instance.
        id: InstanceId,
    },
    /// The spool has more than the server has seen.
    LogsAdvanced,
}

/// A living instance, as told at start and at adoption.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceInfo {
    /// Its name.
    pub id: InstanceId,
    /// Its first process, in the host's numbering.
    pub pid: u32,
    /// Its address towards the outside, when there is egress.
    pub ip: Option<Ipv4Addr>,
    /// When it was started, in nanoseconds since the epoch.
    pub started_at: u64,
    /// Whether it is frozen.
    pub frozen: bool,
    /// The labels of its spec.
    pub labels: BTreeMap<String, String>,
    /// The stop signal of its spec.
    pub stop_signal: i32,
}

/// Where the time of a start went, as the keeper and the zygote saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Phases {
    /// Request read to a zygote taken: nothing when the pool had one.
    pub wait: Duration,
    /// Handing the spec over.
    pub hand_over: Duration,
    /// The limits, the image and the files.
    pub rootfs: Duration,
    /// User namespace, capabilities, filter.
    pub confine: Duration,
    /// Request read to `execve` done, everything included.
    pub total: Duration,
    /// Whether a waiting zygote was used.
    pub pooled: bool,
}

/// How an instance ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exited {
    /// Its name.
    pub id: InstanceId,
    /// How the first process ended.
    pub status: ExitStatus,
    /// Whether any of its processes was killed for want of memory.
    pub oom: bool,
    /// CPU time used over its life.
    pub cpu: Duration,
    /// The most memory it had, in bytes.
    pub memory_peak_bytes: u64,
    /// When, in nanoseconds since the epoch.
    pub at: u64,
    /// The labels of its spec.
    pub labels: BTreeMap<String, String>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// It returned this code.
    Code(i32),
    /// It was killed.
    Signal {
        /// By which signal.
        signal: i32,
        /// Whether the kernel counted it as dumping core.
        core: bool,
    },
}

/// What an instance used so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time.
    pub cpu: Duration,
    /// Memory now, in bytes.
    pub memory_bytes: u64,
    /// The most memory so far, in bytes.
    pub memory_peak_bytes: u64,
    /// Time it was held back by its CPU limit.
    pub throttled: Duration,
}

/// The classes of failed starts: what the caller should do depends on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FailReason {
    /// The command is not in the image, or its interpreter is not. The user must mend the image or the command.
    CommandNotFound,
    /// The command is there, but may not be executed or is for another platform. The user must mend the image.
    NotExecutable,
    /// Arguments and environment are too long together.
    ArgumentsTooLong,
    /// The user or a group cannot be taken on.
    BadUser,
    /// The working directory cannot be made or entered.
    BadCwd,
    /// The image cannot be mounted.
    Mount,
    /// The spec is refused.
    InvalidSpec,
    /// An instance of this name lives, or its exit was not acknowledged.
    IdInUse,
    /// Too many starts are waiting; try again later.
    Busy,
    /// All instances together have what they may have; try again when some have ended.
    NoRoom,
    /// The start took too long and was given up.
    TimedOut,
    /// The host lacks something; the operator must look.
    Host,
}
