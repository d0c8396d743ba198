//! What would have happened: a service's requests played on virtual time against any settings, with the
//! decisions of `lauf-scale` that also run live.
//!
//! ```text
//! access log ─▶ input: arrivals in order ─▶ a world for each scenario ─▶ report: table, JSON, SVG
//!                      service times ──┘          └─ start times, CPUs, queue, autoscaler
//! ```
//!
//! In: a log as bytes ([`Input`]), and [`Scenario`]s. Out: one [`Report`] for each. All scenarios get the
//! same requests, and the n-th start of each takes the same time, so that what differs between them is
//! what their settings do.
//!
//! What is modelled: the queue with its bounds, which instance gets a request, starts and their failures,
//! scale-in, request timeouts, CPUs that requests share, what is billed. What is not: the network, memory,
//! crashes, clients that give up.
//!
//! Laws: no clock, no I/O beyond the reader that is passed in; the same input and seed give the same
//! bytes; memory does not grow with the length of the log.
#![forbid(unsafe_code)]

mod distribution;
mod engine;
mod input;
mod instance;
mod meter;
mod random;
mod report;
mod scenario;

use std::io::{self, BufRead};

pub use distribution::Distribution;
pub use input::{Arrival, BadLine, Format, Input, InputOptions, InputSummary};
pub use report::{Bucket, Report, Totals, plot, table};
pub use scenario::{Billing, Rule, Scenario, ScenarioError, parse_bytes, parse_duration};

use engine::World;
use random::Random;

/// How a simulation is run, beside its scenarios.
#[derive(Debug, Clone)]
pub struct Options {
    /// Decides what is drawn.
    pub seed: u64,
    /// How long an instance works on a request; as recorded when `None`.
    pub service_time: Option<Distribution>,
    /// How much of that is CPU time, from 0 to 1; the rest is waiting for others.
    pub cpu_share: f64,
    /// How long to go on after the last request has ended.
    pub tail: std::time::Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 1,
            service_time: None,
            cpu_share: 0.0,
            tail: std::time::Duration::ZERO,
        }
    }
}

/// How long an instance works on a request of which neither log nor options say it.
const UNKNOWN_SERVICE_TIME: std::time::Duration = std::time::Duration::from_millis(100);

/// Plays the requests of a log against every scenario.
///
/// # Errors
/// When the log cannot be read. Lines that make no sense are no errors; [`Input::summary`] has them.
pub fn simulate<R: BufRead>(
    input: &mut Input<R>,
    scenarios: &[Scenario],
    options: &Options,
) -> io::Result<Vec<Report>> {
    let mut worlds: Vec<_> = scenarios
        .iter()
        .map(|scenario| World::new(scenario.clone(), options.seed))
        .collect();
    let mut random = Random::new(options.seed, random::SERVICE);
    let mut known = UNKNOWN_SERVICE_TIME;
    let mut first = None;
    while let Some(arrival) = input.next_arrival()? {
        let at = arrival.at.saturating_sub(*first.get_or_insert(arrival.at));
        // A request that was refused says nothing of how long it would have taken.
        known = arrival.service_time.unwrap_or(known);
        let service_time = match &options.service_time {
            Some(distribution) => distribution.draw(&mut random),
            None => known,
        };
        let work = instance::Work::new(service_time, options.cpu_share);
        for world in &mut worlds {
            world.arrive(at, work);
        }
    }
    Ok(worlds
        .into_iter()
        .map(|world| world.finish(options.tail))
        .collect())
}
