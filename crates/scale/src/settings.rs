//! What a revision's owner allows and wishes.

use std::time::Duration;

/// How many instances a revision may have, and by which rules.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Instances kept even when idle. A minimum above the maximum counts as the maximum.
    pub min: u32,
    /// The most instances.
    pub max: u32,
    /// Exactly this many, no autoscaling.
    pub manual: Option<u32>,
    /// Requests one instance may have at once; 0 counts as 1.
    pub concurrency: u32,
    /// CPUs of one instance.
    pub cpus: f64,
    /// Instances have CPU also when they have no requests, so that what they use then counts.
    pub cpu_always: bool,
    /// What the windows aim at.
    pub rules: Rules,
    /// How long an instance must be idle before it may go; 15 minutes in Cloud Run. Cloud Run's windows
    /// are proportional to it (1 and 10 of 15 minutes), so that a revision set to shrink fast does.
    pub idle_timeout: Duration,
}

impl Default for Settings {
    /// A Cloud Run revision that says nothing.
    fn default() -> Self {
        Self {
            min: 0,
            max: 100,
            manual: None,
            concurrency: 80,
            cpus: 1.0,
            cpu_always: false,
            rules: Rules::default(),
            idle_timeout: Self::IDLE_TIMEOUT,
        }
    }
}

/// Whose rules the windows follow.
#[derive(Debug, Clone, PartialEq)]
pub enum Rules {
    /// Cloud Run's: utilization of CPU and of concurrency, each with a target.
    CloudRun(Targets),
    /// Knative's pod autoscaler's: a stable and a panic window over one metric.
    Knative(Kpa),
}

impl Default for Rules {
    fn default() -> Self {
        Self::CloudRun(Targets::default())
    }
}

/// The targets of Cloud Run's two drivers. The one that wants more instances has its way.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Targets {
    /// Of an instance's CPUs, over the short window.
    pub cpu: Target,
    /// Of an instance's slots, over the short and the long window, whichever is higher.
    pub concurrency: Target,
}

/// How full an instance should be on average.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Target {
    /// 60 % for many instances, and more for few: three tenths of an instance are not worth another
    /// one ([`Target::for_instances`]).
    #[default]
    Default,
    /// This share, from 0.1 to 0.95, at any number of instances; what is within a tenth of it is left
    /// as it is.
    Share(f64),
    /// The driver says nothing.
    Off,
}

impl Target {
    /// Cloud Run's default target.
    pub const SHARE: f64 = 0.6;
    /// What the instances together may have above the default target before another one is started.
    /// Cloud Run says only that the threshold is higher at low counts.
    pub const SLACK: f64 = 0.3;
    /// How far from a target of one's own counts as on it.
    pub const TOLERANCE: f64 = 0.1;

    /// The share of one instance's capacity that is used before `count` instances become more.
    #[must_use]
    pub fn for_instances(self, count: u32) -> f64 {
        match self {
            Self::Default => (Self::SHARE + Self::SLACK / f64::from(count.max(1))).min(1.0),
            Self::Share(share) => share,
            Self::Off => 1.0,
        }
    }
}

/// Settings of Knative's pod autoscaler (`autoscaling.knative.dev/*`).
#[derive(Debug, Clone, PartialEq)]
pub struct Kpa {
    /// What is measured.
    pub metric: Metric,
    /// How much of it one instance should have, utilization taken into account; at least 0.01.
    pub target: f64,
    /// The stable window.
    pub window: Duration,
    /// The panic window, as a share of the stable one.
    pub panic_window: f64,
    /// Panic begins when the panic window wants this many times the instances there are.
    pub panic_threshold: f64,
    /// Fewer instances must have been enough for this long.
    pub scale_down_delay: Duration,
    /// The last instance stays this long after it was last wanted.
    pub retention: Duration,
    /// Not fewer than this many when there are any.
    pub activation: u32,
}

/// What Knative's pod autoscaler measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Requests at once.
    Concurrency,
    /// Requests a second.
    Rps,
}

/// The shortest time between two looks at the load.
const SHORTEST_TICK: Duration = Duration::from_millis(100);

impl Settings {
    /// How long an idle instance is kept, as in Cloud Run.
    pub const IDLE_TIMEOUT: Duration = Duration::from_secs(15 * 60);

    /// The short window: a minute of Cloud Run's 15-minute idle timeout, Knative's panic window. Also
    /// the cooldown after a start.
    #[must_use]
    pub fn short_window(&self) -> Duration {
        match &self.rules {
            Rules::CloudRun(_) => self.idle_timeout / 15,
            Rules::Knative(kpa) => kpa.window.mul_f64(kpa.panic_window.clamp(0.01, 1.0)),
        }
    }

    /// The long window: ten minutes of Cloud Run's 15-minute idle timeout, Knative's stable window.
    #[must_use]
    pub fn long_window(&self) -> Duration {
        match &self.rules {
            Rules::CloudRun(_) => self.idle_timeout / 3 * 2,
            Rules::Knative(kpa) => kpa.window,
        }
    }

    /// How often the load is looked at while there is some: every 5 seconds with Cloud Run's defaults,
    /// every 2 with Knative's.
    #[must_use]
    pub fn tick(&self) -> Duration {
        let tick = match self.rules {
            Rules::CloudRun(_) => self.short_window() / 12,
            Rules::Knative(_) => self.short_window() / 3,
        };
        tick.max(SHORTEST_TICK)
    }

    /// Whether what instances use of their CPUs can change a decision.
    #[must_use]
    pub fn wants_cpu(&self) -> bool {
        self.manual.is_none()
            && self.max > 1
            && matches!(&self.rules, Rules::CloudRun(targets) if targets.cpu != Target::Off)
    }

    /// The smallest number of instances.
    pub(crate) fn floor(&self) -> u32 {
        self.min.min(self.max)
    }

    /// Requests that one instance takes at once.
    pub(crate) fn slots(&self) -> u32 {
        self.concurrency.max(1)
    }

    /// How many instances wake together when there are none.
    pub(crate) fn activation(&self) -> u32 {
        match &self.rules {
            Rules::CloudRun(_) => 1,
            Rules::Knative(kpa) => kpa.activation.max(1),
        }
    }
}
