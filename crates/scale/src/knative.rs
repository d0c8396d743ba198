//! What Knative's pod autoscaler wants: a stable window, a panic window for bursts, and a delay before
//! there are fewer (Knative Serving, "Configuring autoscaling").

use std::collections::VecDeque;
use std::time::Duration;

use crate::windows::{Wish, share, whole};
use crate::{Demand, History, Kpa, Metric, Settings};

/// Not more than this many times the instances there are, at once (Knative's `max-scale-up-rate`).
const UP_RATE: f64 = 1000.0;
/// Not fewer than one in this many of them (Knative's `max-scale-down-rate`).
const DOWN_RATE: u32 = 2;
/// The smallest target.
const LEAST_TARGET: f64 = 0.01;

/// What the pod autoscaler remembers.
#[derive(Debug, Clone, Default)]
pub(crate) struct KpaState {
    /// When the load was last above the panic threshold, and the most instances wanted since.
    panic: Option<(Duration, u32)>,
    /// What was wanted lately: times in order, numbers falling.
    delayed: VecDeque<(Duration, u32)>,
}

impl KpaState {
    pub(crate) fn wish(
        &mut self,
        now: Duration,
        settings: &Settings,
        kpa: &Kpa,
        history: &History,
        demand: &Demand<'_>,
    ) -> Wish {
        let series = match kpa.metric {
            Metric::Concurrency => &history.request_time,
            Metric::Rps => &history.requests,
        };
        let stable = series.known_rate(now, kpa.window);
        let panic = series.known_rate(now, settings.short_window());
        let target = kpa.target.max(LEAST_TARGET);
        let there = demand.ready.max(1);
        let (most, fewest) = (
            whole(UP_RATE * f64::from(there)),
            demand.ready.div_euclid(DOWN_RATE),
        );
        let bounded = |load: f64| {
            let needed = whole(load / target);
            let bounded = needed.clamp(fewest.min(most), most);
            // Without load there is nothing to activate: what is left is on its way down.
            if needed > 0 {
                bounded.max(kpa.activation)
            } else {
                bounded
            }
        };
        let (stable_wants, panic_wants) = (bounded(stable), bounded(panic));

        let over = f64::from(panic_wants) / f64::from(there) >= kpa.panic_threshold;
        self.panic = match (self.panic, over) {
            (None, false) => None,
            (None, true) => Some((now, demand.ready)),
            (Some((_, most)), true) => Some((now, most)),
            // A whole stable window without another burst ends it.
            (Some((last, _)), false) if now >= last + kpa.window => None,
            (calm, false) => calm,
        };
        let mut wanted = stable_wants;
        if let Some((_, most)) = &mut self.panic {
            // In a panic there are never fewer than there were.
            *most = (*most).max(stable_wants).max(panic_wants);
            wanted = *most;
        }
        Wish {
            instances: self.delay(now, kpa.scale_down_delay, wanted),
            share: match kpa.metric {
                Metric::Concurrency => share(settings, target / f64::from(settings.slots())),
                // What is counted says nothing of slots: as many requests for each.
                Metric::Rps => {
                    let load = history.concurrency(now, settings.short_window());
                    let serving = f64::from(wanted.min(demand.ready).max(1));
                    let load = load.max(f64::from(demand.in_flight));
                    share(settings, load / serving / f64::from(settings.slots()))
                }
            },
        }
    }

    /// Whether something is remembered that time alone will change.
    pub(crate) fn is_waiting(&self) -> bool {
        self.panic.is_some() || self.delayed.front().is_some_and(|(_, wanted)| *wanted > 0)
    }

    /// The most that was wanted within the delay.
    fn delay(&mut self, now: Duration, delay: Duration, wanted: u32) -> u32 {
        while self.delayed.back().is_some_and(|(_, w)| *w <= wanted) {
            self.delayed.pop_back();
        }
        self.delayed.push_back((now, wanted));
        while self.delayed.len() > 1
            && self
                .delayed
                .front()
                .is_some_and(|(at, _)| *at + delay <= now)
        {
            self.delayed.pop_front();
        }
        self.delayed.front().map_or(wanted, |(_, w)| *w)
    }
}
