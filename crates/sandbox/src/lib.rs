//! One container on this Linux host, and the *keeper* that is the parent of all of them.
//!
//! Data comes in as a [`ContainerSpec`] handed to [`KeeperClient::start`]; what goes out is a [`Started`] with the network
//! namespace of the instance, later an [`KeeperEvent::Exited`], and everything the instance wrote, in the [`spool`].
//!
//! ```text
//! server (tokio, big)          keeper (one thread, small)             instance (pid 1 of its own pid namespace)
//! KeeperClient  <--socket-->   epoll loop: pool, pidfds, log pipes --> zygote --spec--> overlay, confinement, execve
//! ```
//!
//! The laws this room keeps:
//!
//! - Nothing is forked from the big process; only the keeper forks, and the keeper stays small.
//! - Whatever can be made before a request comes is made before it: a pool item (a *zygote*) already sits in its
//!   namespaces and cgroup, with `/proc`, `/dev`, `/sys` and the network prepared. A start only adds the image and execs.
//! - All mounts are made by real root in namespaces that belong to the host's user namespace; only then does the zygote
//!   enter a user namespace, so that root inside has no power over any of them.
//! - An instance is never blocked by a dead server: its output goes to the spool on disk, its exit is kept until the
//!   server has said that it knows.
//! - `kill -9` of the keeper kills its instances (parent-death signal); what a hostile app saves from that is found by its
//!   cgroup and killed by the next keeper of the same state directory.

pub mod cgroup;
pub mod doctor;
pub mod heap;
pub mod net;
pub mod seccomp;

pub mod client;
mod clock;
pub mod keeper;
pub mod lines;
pub mod listening;
pub mod netns;
pub mod protocol;
pub mod settings;
pub mod spec;
pub mod spool;
mod sys;
pub mod wire;
mod zygote;

pub use client::{KeeperClient, KeeperError, KeeperEvent, Listed, StartError, Started};
pub use keeper::{KeeperArgs, keeper_main, raise_file_limit};
pub use netns::NetNs;
pub use protocol::{ExitStatus, Exited, FailReason, InstanceInfo, Phases, Usage};
pub use settings::{Difference, KeeperConfig, KeeperSettings, Runtime};
pub use spec::{ContainerSpec, InstanceId};
