//! Services: the thing with a URL.

use serde::{Deserialize, Serialize};

use crate::{Condition, Meta, RevisionTemplate, ServiceKey, TrafficStatus, TrafficTarget};

/// A stored service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Identity and bookkeeping.
    pub meta: Meta,
    /// What the user wants.
    pub spec: ServiceSpec,
    /// What the controllers made of it.
    #[serde(default)]
    pub status: ServiceStatus,
}

impl Service {
    /// Its key.
    #[must_use]
    pub fn key(&self) -> ServiceKey {
        ServiceKey {
            project: self.meta.project.clone(),
            region: self.meta.region.clone(),
            name: self.meta.name.clone(),
        }
    }
}

/// What the user wants of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// A free text.
    #[serde(default)]
    pub description: String,
    /// Who may reach it.
    #[serde(default)]
    pub ingress: Ingress,
    /// Anybody may call it, whatever its policy says.
    #[serde(default)]
    pub invoker_iam_disabled: bool,
    /// Instance counts over all its revisions.
    #[serde(default)]
    pub scaling: Scaling,
    /// The next revision.
    pub template: RevisionTemplate,
    /// Where requests go; empty means all to the latest ready revision.
    #[serde(default)]
    pub traffic: Vec<TrafficTarget>,
}

/// Which networks may reach a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Ingress {
    /// Everyone who reaches the gateway.
    #[default]
    All,
    /// Only the platform's own instances.
    Internal,
    /// Those and a load balancer in front.
    InternalAndLoadBalancing,
}

/// Service-level instance counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Scaling {
    /// Instances kept, divided over the revisions by traffic.
    #[serde(default)]
    pub min_instances: u32,
    /// The most instances over all revisions that get traffic.
    #[serde(default)]
    pub max_instances: Option<u32>,
    /// Exactly this many, no autoscaling.
    #[serde(default)]
    pub manual_instances: Option<u32>,
}

/// What the controllers know of a service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// The generation the rest of the status is about.
    #[serde(default)]
    pub observed_generation: i64,
    /// `Ready`, `ConfigurationsReady`, `RoutesReady`.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// The newest revision made.
    #[serde(default)]
    pub latest_created_revision: String,
    /// The newest revision that became ready.
    #[serde(default)]
    pub latest_ready_revision: String,
    /// Where requests go now.
    #[serde(default)]
    pub traffic: Vec<TrafficStatus>,
    /// The service's URL.
    #[serde(default)]
    pub url: String,
}
