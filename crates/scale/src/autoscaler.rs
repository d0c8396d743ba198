//! One revision's autoscaler: what it has seen, and what it says to do next.
//!
//! Whoever runs instances (the gateway's worker live, the simulator on virtual time) tells it what
//! happens and does what it says. Everything that is decided is decided here.

use std::cmp::Reverse;
use std::time::Duration;

use crate::knative::KpaState;
use crate::{Decision, Demand, Failures, History, Settings, decide};

/// A running instance as the autoscaler sees it.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    /// It may get requests.
    pub ready: bool,
    /// It gets no further requests and goes when it has none.
    pub draining: bool,
    /// Requests it works on.
    pub in_flight: u32,
    /// Since when it has had none; `None` while it has one.
    pub idle_since: Option<Duration>,
}

/// An instance that is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Victim {
    /// Its place among the members.
    pub index: usize,
    /// It is busy: it finishes what it has first. Others go only if they are still idle.
    pub drain: bool,
}

/// One revision's autoscaler.
#[derive(Debug, Clone)]
pub struct Autoscaler {
    history: History,
    failures: Failures,
    kpa: KpaState,
    idle_since: Vec<Duration>,
    cpu_asked: Option<Duration>,
}

impl Autoscaler {
    /// One that has seen nothing yet.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self {
            history: History::new(settings),
            failures: Failures::default(),
            kpa: KpaState::default(),
            idle_since: Vec::new(),
            cpu_asked: None,
        }
    }

    /// What the load was.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Notes the load until now: request time and requests, of all instances together, gone ones
    /// included.
    pub fn record(&mut self, now: Duration, request_time: Duration, requests: u64) {
        self.history.record(now, request_time, requests);
    }

    /// Notes the CPU time used until `at`, of all instances together, gone ones included.
    pub fn record_cpu(&mut self, at: Duration, cpu_time: Duration) {
        self.history.record_cpu(at, cpu_time);
    }

    /// Decides what to do now. What it says to start, and to measure, counts as done.
    pub fn decide(
        &mut self,
        now: Duration,
        settings: &Settings,
        members: &[Member],
        queued: u32,
        starting: u32,
    ) -> Decision {
        self.history.configure(settings);
        self.idle_since.clear();
        let mut demand = Demand {
            queued,
            starting,
            ..Demand::default()
        };
        for member in members.iter().filter(|m| !m.draining) {
            demand.in_flight = demand.in_flight.saturating_add(member.in_flight);
            self.idle_since.extend(member.idle_since);
            if member.ready {
                demand.ready += 1;
                let free = settings.slots().saturating_sub(member.in_flight);
                demand.free = demand.free.saturating_add(free);
            } else {
                demand.unready += 1;
            }
        }
        let demand = Demand {
            idle_since: &self.idle_since,
            ..demand
        };
        let mut decision = decide::decide(now, settings, &self.history, &mut self.kpa, &demand);
        if decision.start > 0 {
            if let Some(until) = self.failures.pause(now) {
                decision.start = 0;
                decision.next = Some(until);
            } else {
                self.history.started(now);
            }
        }
        // Once for each look at the load, however often something happens in between.
        let look = |at: Duration| at.as_nanos() / settings.tick().as_nanos();
        decision.measure_cpu &= self.cpu_asked.is_none_or(|at| look(at) != look(now));
        if decision.measure_cpu {
            self.cpu_asked = Some(now);
        }
        decision
    }

    /// Who is to go, in this order, until enough have. More than a decision's number are named, since
    /// an idle one may have become busy meanwhile.
    #[must_use]
    pub fn victims(settings: &Settings, members: &[Member]) -> Vec<Victim> {
        let staying = members.iter().enumerate().filter(|(_, m)| !m.draining);
        let mut idle: Vec<_> = staying
            .clone()
            .filter_map(|(i, m)| Some((m.ready, m.idle_since?, Reverse(i))))
            .collect();
        // Who serves nobody anyway first, then the longest idle; the newest of equal ones, since load
        // gathers on the oldest.
        idle.sort_unstable();
        let idle = idle.into_iter().map(|(_, _, Reverse(index))| Victim {
            index,
            drain: false,
        });
        let alive = u32::try_from(staying.clone().count()).unwrap_or(u32::MAX);
        if settings.manual.is_none() && alive <= settings.max {
            return idle.collect();
        }
        // The newest have the least to lose.
        let busy = staying
            .rev()
            .map(|(index, _)| Victim { index, drain: true });
        idle.chain(busy).collect()
    }

    /// A start failed. `permanent`: by the container's own doing rather than the host's.
    pub fn start_failed(&mut self, now: Duration, permanent: bool) {
        if permanent {
            self.failures.add(now);
        } else {
            self.failures.add_host(now);
        }
    }

    /// An instance is ready, `lived` after its start.
    pub fn instance_ready(&mut self, lived: Duration) {
        self.failures.survived(lived);
    }

    /// An instance ended by its own doing, `lived` after its start.
    pub fn instance_ended(&mut self, now: Duration, lived: Duration) {
        self.failures.ended(now, lived);
    }
}
