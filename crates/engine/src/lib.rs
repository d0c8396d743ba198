//! The one trait by which instances are started, watched and stopped, and what stands behind it.
//!
//! In: an [`InstanceSpec`] (whose it is, which image, what to run). Out: an [`Instance`], which
//! can be connected to and whose state can be watched. The laws of [`Engine`] are written at the
//! trait.
#![forbid(unsafe_code)]

mod command;
mod fault;
mod health;
mod instance;
mod local;
mod owner;
mod probe;
mod prober;
mod startup;
mod table;
#[cfg(test)]
mod testing;

pub use local::{InstanceLog, LocalConfig, LocalEngine};

pub use instance::{
    Endpoint, Exit, ExitReason, FirstConnection, Instance, InstanceSpec, InstanceState, StartError,
    StartPhases,
};

pub use owner::{Owner, TaskAttempt};

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lauf_model::InstanceId;

/// Runs instances.
///
/// Laws that every implementation keeps, and that one shared test suite checks:
///
/// 1. [`start`](Engine::start) returns only when the startup probe has passed, or with an error and
///    nothing left behind. An instance without requests that has no probe has started when its
///    command runs. Dropping the future does not leak the instance: it is stopped, unless it is a
///    task's, which goes on and is found again by its id.
/// 2. An instance that was returned reaches [`InstanceState::Exited`] exactly once, however it ends,
///    and never changes state afterwards.
/// 3. [`stop`](Engine::stop) sends SIGTERM, waits for the grace, then kills; it returns when the
///    instance is gone. Stopping an instance that is gone is not an error.
/// 4. Instances outlive the server where the implementation can make it so; after a restart
///    [`running`](Engine::running) gives them back, with the spec they were started with.
/// 5. What came of a task's instance is known until [`forget`](Engine::forget): `running` gives it
///    back too when it has ended, and to start it once more is to get it as it is. So a task's
///    instance is run at most once, whoever asks for it and however often.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// Makes an image ready to start: pulls and unpacks what is missing. `image` is by digest
    /// (`NAME@sha256:...`). Cheap when it is there already.
    async fn prepare(&self, image: &str) -> Result<(), StartError>;

    /// Starts one instance and waits until it may get requests.
    async fn start(&self, spec: InstanceSpec) -> Result<Arc<Instance>, StartError>;

    /// Stops an instance: SIGTERM, `grace`, SIGKILL.
    async fn stop(&self, id: &InstanceId, grace: Duration);

    /// The instances that were running before this server started, and those of tasks that ended
    /// since and are not forgotten.
    async fn running(&self) -> Vec<Arc<Instance>>;

    /// The CPU time that instances have used so far; without those that are gone, or of which it cannot
    /// be told.
    async fn cpu_time(&self, _ids: &[InstanceId]) -> Vec<(InstanceId, Duration)> {
        Vec::new()
    }

    /// Says that the exit of a task's instance is known for good. An engine whose instances do not
    /// outlive the server has nothing to forget.
    fn forget(&self, _id: &InstanceId) {}

    /// Names the life of whatever holds the instances. Those that were begun in another life and are
    /// not among the [`running`](Engine::running) are lost.
    fn life(&self) -> String {
        String::new()
    }
}

/// Finds images. Separate from [`Engine`], since only the controllers need it.
#[async_trait]
pub trait ImageResolver: Send + Sync + 'static {
    /// The image by digest, `NAME@sha256:...`, for this machine's platform, and pulled as far as
    /// needed to know that it can be used.
    async fn resolve(&self, image: &str) -> Result<String, StartError>;
}
