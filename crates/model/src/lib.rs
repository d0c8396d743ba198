//! The words of the house: what a service, a revision, a job, a task *are*, independent of
//! any wire form, store or machine.
//!
//! Everything here is pure: no I/O, no clock of its own, no async. The API faces convert their
//! wire forms into these types (and back) and never keep a second model; controllers, gateway and
//! engine read them. Three laws:
//!
//! 1. A value that exists is well formed: names, quantities and references are parsed once, at the
//!    edge, into types that cannot hold nonsense.
//! 2. [`validate`] finds *every* violation of a request, each with its field path.
//! 3. What a client sent and Lauf does not interpret (labels, annotations) is kept as sent.
#![forbid(unsafe_code)]

pub mod clock;
pub mod condition;
pub mod container;
pub mod error;
pub mod execution;
pub mod expand;
pub mod job;
pub mod key;
pub mod meta;
pub mod policy;
pub mod project;
pub mod quantity;
pub mod revision;
pub mod scaling;
pub mod service;
pub mod task;
pub mod traffic;
pub mod url;
pub mod validate;
pub mod worker_pool;

pub use clock::{Clock, SystemClock, VirtualClock};
pub use condition::{Condition, ConditionStatus, Severity};
pub use container::{Container, EnvVar, Port, Probe, ProbeAction, Protocol};
pub use error::{Code, Status, Violation};
pub use execution::{ContainerOverride, Execution, ExecutionStatus, Overrides};
pub use job::{ExecutionSpec, ExecutionTemplate, Job, JobSpec, JobStatus, TaskSpec};
pub use key::{
    ExecutionKey, InstanceId, JobKey, Place, RevisionKey, ServiceKey, TaskKey, WorkerPoolKey,
    WorkerPoolRevisionKey,
};
pub use meta::Meta;
pub use policy::{Binding, Policy};
pub use project::Project;
pub use revision::{
    BOOST_AFTER_START, Revision, RevisionSpec, RevisionStatus, RevisionTemplate, boosted_cpu,
};
pub use scaling::{KnativeMetric, KnativeScaling, ScalingTarget, ScalingTargets};
pub use service::{Ingress, Scaling, Service, ServiceSpec, ServiceStatus};
pub use task::{AttemptResult, Task, TaskState};
pub use traffic::{TrafficStatus, TrafficTarget};
pub use worker_pool::{InstanceSplit, WorkerPool, WorkerPoolRevision, WorkerPoolSpec, WorkerSpec};
