//! How the autoscaler is to decide for a revision.
//!
//! Numbers with a fraction are kept as whole numbers of a small unit, so that equal settings are equal.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The utilization that Cloud Run's autoscaler aims at (`run.googleapis.com/scaling-*-target`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ScalingTargets {
    /// Of an instance's CPUs.
    #[serde(default)]
    pub cpu: ScalingTarget,
    /// Of the requests that an instance may have at once.
    #[serde(default)]
    pub concurrency: ScalingTarget,
}

/// One driver's target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ScalingTarget {
    /// Nothing was said: 60 %, and more at low counts.
    #[default]
    Default,
    /// This many ten-thousandths, from 1,000 to 9,500.
    Share(u32),
    /// The driver is disabled.
    Disabled,
}

/// Settings of Knative's pod autoscaler (`autoscaling.knative.dev/*`); what is `None` has Knative's
/// default. A revision that has any is scaled by Knative's rules instead of Cloud Run's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct KnativeScaling {
    /// What is measured; concurrency by default.
    #[serde(default)]
    pub metric: Option<KnativeMetric>,
    /// How much of it one instance may have, in hundredths.
    #[serde(default)]
    pub target: Option<u32>,
    /// How much of the target is aimed at, in hundredths of a percent.
    #[serde(default)]
    pub target_utilization: Option<u32>,
    /// The stable window, 6 s to 1 h.
    #[serde(default)]
    pub window: Option<Duration>,
    /// The panic window, in hundredths of a percent of the stable one.
    #[serde(default)]
    pub panic_window: Option<u32>,
    /// How much more than the instances can take begins a panic, in hundredths of a percent.
    #[serde(default)]
    pub panic_threshold: Option<u32>,
    /// How long fewer instances must have been enough, at most 1 h.
    #[serde(default)]
    pub scale_down_delay: Option<Duration>,
    /// How long the last instance stays, at most 1 h.
    #[serde(default)]
    pub retention: Option<Duration>,
    /// Not fewer than this many when there are any.
    #[serde(default)]
    pub activation_scale: Option<u32>,
}

/// What Knative's pod autoscaler measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KnativeMetric {
    /// Requests at once.
    Concurrency,
    /// Requests a second.
    Rps,
}
