//! What came of a scenario.

mod plot;
mod table;

use std::time::Duration;

use lauf_price::{Billing as By, Money, Usage, idle_rates};
use serde::Serialize;

use crate::Scenario;
use crate::meter::{Level, Percentiles};
use crate::scenario::Billing;

pub use plot::plot;
pub use table::table;

/// What came of a scenario.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// What it is called.
    pub name: String,
    /// What happened in all.
    pub totals: Totals,
    /// What it would have cost on Cloud Run with CPU during requests only.
    pub request_based: Bill,
    /// What it would have cost with CPU always.
    pub instance_based: Bill,
    /// Which of the two the settings ask for: `requests` or `instances`.
    pub billed_by: &'static str,
    /// How long a bucket of the timeline is, in seconds.
    pub bucket_seconds: f64,
    /// What happened when.
    pub timeline: Vec<Bucket>,
}

/// What happened in all.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// From the first request to the end.
    pub seconds: f64,
    /// Requests that arrived.
    pub requests: u64,
    /// Those that were answered by an instance in time.
    pub served: u64,
    /// Those that got no instance (429).
    pub refused: u64,
    /// Those that took longer than the request timeout (504).
    pub timed_out: u64,
    /// Those whose instance could not be started (503).
    pub failed: u64,
    /// Those that waited for an instance and got one.
    pub waited: u64,
    /// How long requests that got an instance took, waiting included, in milliseconds.
    pub latency: Percentiles,
    /// How long requests waited for an instance, in milliseconds.
    pub waiting: Percentiles,
    /// Requests that waited at once, at most.
    pub most_queued: u32,
    /// Instances that were started.
    pub starts: u64,
    /// Starts that failed.
    pub failed_starts: u64,
    /// Instances that were stopped.
    pub stops: u64,
    /// How long the instance that was stopped soonest had been ready, in seconds.
    pub shortest_life: Option<f64>,
    /// Instances at once, at most: starting ones included, and not those that get no further requests.
    pub most_instances: u32,
    /// Instances over time, starting ones included.
    pub instance_seconds: f64,
    /// CPU time that requests used.
    pub cpu_seconds: f64,
}

/// A part of the timeline.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bucket {
    /// Instances over time, without those that start.
    pub instance_seconds: f64,
    /// Instances being started, over time.
    pub starting_seconds: f64,
    /// Requests in flight, over time.
    pub request_seconds: f64,
    /// CPU time.
    pub cpu_seconds: f64,
    /// Instances at once, at most, as in [`Totals`].
    pub most_instances: u32,
    /// Requests that waited at once, at most.
    pub most_queued: u32,
    /// Requests that arrived.
    pub requests: u64,
    /// Requests that got no instance.
    pub refused: u64,
    /// Instances that were started.
    pub starts: u64,
}

impl Bucket {
    pub(crate) fn add(&mut self, level: &Level, seconds: f64) {
        self.instance_seconds += f64::from(level.instances) * seconds;
        self.starting_seconds += f64::from(level.starting) * seconds;
        self.request_seconds += f64::from(level.in_flight) * seconds;
        self.cpu_seconds += level.busy_cpus * seconds;
        self.most_instances = self.most_instances.max(level.serving());
        self.most_queued = self.most_queued.max(level.queued);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.instance_seconds += other.instance_seconds;
        self.starting_seconds += other.starting_seconds;
        self.request_seconds += other.request_seconds;
        self.cpu_seconds += other.cpu_seconds;
        self.most_instances = self.most_instances.max(other.most_instances);
        self.most_queued = self.most_queued.max(other.most_queued);
        self.requests += other.requests;
        self.refused += other.refused;
        self.starts += other.starts;
    }
}

/// What is billed for, and what it costs at Cloud Run's Tier 1 rates.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bill {
    /// Billable seconds of one CPU, rounded as they are billed.
    pub cpu_seconds: f64,
    /// Billable seconds of one GiB.
    pub gib_seconds: f64,
    /// Seconds of one CPU of idle instances that a minimum keeps, billed at a lower rate.
    pub idle_cpu_seconds: f64,
    /// What it costs before anything is free.
    #[serde(serialize_with = "dollars")]
    pub cost: Money,
    /// What a month of such periods costs, before anything is free.
    #[serde(serialize_with = "dollars")]
    pub month: Money,
    /// What a month of such periods costs an account that uses nothing else: less what is free.
    #[serde(serialize_with = "dollars")]
    pub month_after_free: Money,
}

fn dollars<S: serde::Serializer>(money: &Money, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&format!("{money:.6}"))
}

/// A month, as prices count it.
const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);

impl Bill {
    fn new(by: By, usage: Usage, idle: Usage, seconds: f64) -> Self {
        let rates = by.rates();
        let idle_cost = |idle: &Usage| idle_rates().cost(idle);
        let times = if seconds > 0.0 {
            MONTH.as_secs_f64() / seconds
        } else {
            0.0
        };
        let (a_month, idle_month) = (scaled(usage, times), scaled(idle, times));
        Self {
            cpu_seconds: usage.cpu_seconds(),
            gib_seconds: usage.gib_seconds(),
            idle_cpu_seconds: idle.cpu_seconds(),
            cost: rates.cost(&usage) + idle_cost(&idle),
            month: rates.cost(&a_month) + idle_cost(&idle_month),
            month_after_free: rates.cost_after_free(&a_month) + idle_cost(&idle_month),
        }
    }
}

/// So many times as much.
fn scaled(usage: Usage, times: f64) -> Usage {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an estimate; what is too large is cut"
    )]
    let scale = |amount: u128| (amount as f64 * times).round() as u128;
    Usage {
        cpu: scale(usage.cpu),
        memory: scale(usage.memory),
        requests: u64::try_from(scale(usage.requests.into())).unwrap_or(u64::MAX),
    }
}

impl Report {
    pub(crate) fn new(
        scenario: Scenario,
        totals: Totals,
        [by_requests, by_instances, idle]: [Usage; 3],
        (width, timeline): (Duration, Vec<Bucket>),
    ) -> Self {
        let by_requests = Usage {
            requests: totals.requests,
            ..by_requests
        };
        Self {
            request_based: Bill::new(By::Requests, by_requests, idle, totals.seconds),
            instance_based: Bill::new(
                By::Instances,
                by_instances,
                Usage::default(),
                totals.seconds,
            ),
            billed_by: match scenario.billing() {
                Billing::Requests => "requests",
                Billing::Instances => "instances",
            },
            name: scenario.name,
            totals,
            bucket_seconds: width.as_secs_f64(),
            timeline,
        }
    }

    /// The bill that the settings ask for.
    #[must_use]
    pub fn bill(&self) -> &Bill {
        match self.billed_by {
            "instances" => &self.instance_based,
            _ => &self.request_based,
        }
    }
}
