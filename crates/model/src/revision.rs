//! Revisions: immutable snapshots of a service's template.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Condition, Container, KnativeScaling, Meta, ScalingTargets};

/// What the next revision shall be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionTemplate {
    /// The name the user asked for; made from the service's name when `None`.
    #[serde(default)]
    pub name: Option<String>,
    /// Labels as sent.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Annotations that no field of [`RevisionSpec`] stands for, as sent.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// As in [`Meta::as_sent`], for the template's annotations.
    #[serde(default)]
    pub as_sent: BTreeMap<String, String>,
    /// What to run.
    pub spec: RevisionSpec,
}

/// What instances of a revision run and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionSpec {
    /// The container that serves requests. (Further ones come with sidecars.)
    pub container: Container,
    /// Requests one instance may have at once; 1 to 1000.
    pub concurrency: u32,
    /// How long a request may take, 1 s to 60 min.
    pub timeout: Duration,
    /// Instances kept running even when idle.
    #[serde(default)]
    pub min_instances: u32,
    /// The most instances; the default of 100 when `None`.
    #[serde(default)]
    pub max_instances: Option<u32>,
    /// How many instances a new revision is started with, and must get ready; one when `None`.
    #[serde(default)]
    pub initial_instances: Option<u32>,
    /// What Cloud Run's autoscaler aims at.
    #[serde(default)]
    pub targets: ScalingTargets,
    /// Knative's rules instead of Cloud Run's.
    #[serde(default)]
    pub knative: Option<KnativeScaling>,
    /// Email of the identity instances run as; the default one when empty.
    #[serde(default)]
    pub service_account: String,
    /// More CPU until the startup probe has passed and ten seconds longer; see [`boosted_cpu`].
    #[serde(default)]
    pub startup_cpu_boost: bool,
    /// A client gets the instance again that it had before, where that can be.
    #[serde(default)]
    pub session_affinity: bool,
    /// CPU only while requests are in flight (billing by request) rather than always.
    #[serde(default = "yes")]
    pub cpu_throttling: bool,
}

impl RevisionSpec {
    /// What is run when nothing but the container was said.
    #[must_use]
    pub fn new(container: Container) -> Self {
        Self {
            container,
            concurrency: DEFAULT_CONCURRENCY,
            timeout: Duration::from_secs(u64::from(DEFAULT_TIMEOUT_SECONDS)),
            min_instances: 0,
            max_instances: None,
            initial_instances: None,
            targets: ScalingTargets::default(),
            knative: None,
            service_account: String::new(),
            startup_cpu_boost: false,
            session_affinity: false,
            cpu_throttling: true,
        }
    }
}

fn yes() -> bool {
    true
}

/// What a CPU limit becomes while an instance starts with the boost, both in thousandths of a CPU (Cloud Run, "Startup CPU boost":
/// up to 1 CPU becomes 2, 2 become 4, and 4, 6 and 8 become 8). No limit stays none.
#[must_use]
pub fn boosted_cpu(millis: u32) -> u32 {
    match millis {
        0 => 0,
        1..=1000 => 2000,
        1001..=2000 => 4000,
        2001..=8000 => 8000,
        more => more,
    }
}

/// How long the boost goes on after the instance has started (Cloud Run, "Startup CPU boost").
pub const BOOST_AFTER_START: Duration = Duration::from_secs(10);

/// The concurrency of a revision that says nothing (Cloud Run, "Maximum concurrent requests").
pub const DEFAULT_CONCURRENCY: u32 = 80;
/// How long a request may take when nothing is said, in seconds (Cloud Run, "Request timeout").
pub const DEFAULT_TIMEOUT_SECONDS: u32 = 300;
/// The most instances of a revision that says nothing (Cloud Run, "Maximum instances").
pub const DEFAULT_MAX_INSTANCES: u32 = 100;

/// A stored revision. `spec` never changes; only the status does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Identity; `meta.name` is the revision's name.
    pub meta: Meta,
    /// The service it belongs to.
    pub service: String,
    /// The service's generation that made it.
    pub service_generation: i64,
    /// As [`RevisionTemplate::as_sent`] at the time.
    #[serde(default)]
    pub template_as_sent: BTreeMap<String, String>,
    /// What its instances run.
    pub spec: RevisionSpec,
    /// What the controllers found out.
    #[serde(default)]
    pub status: RevisionStatus,
}

/// What the controllers know of a revision.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RevisionStatus {
    /// The image by digest, `NAME@sha256:...`, once resolved.
    #[serde(default)]
    pub image_digest: String,
    /// `Ready`, `ContainerReady`, `ResourcesAvailable`, `Active`, ...
    #[serde(default)]
    pub conditions: Vec<Condition>,
}
