//! From demand, settings, history and time to a decision.

use std::time::Duration;

use crate::knative::KpaState;
use crate::windows::{self, Wish};
use crate::{History, Rules, Settings, Target};

/// What a revision has and what is asked of it, now. Instances that drain are not counted, nor are
/// their requests: both go by themselves.
#[derive(Debug, Clone, Copy, Default)]
pub struct Demand<'a> {
    /// Requests that instances are working on.
    pub in_flight: u32,
    /// Slots of ready instances that are free.
    pub free: u32,
    /// Requests that wait for a slot.
    pub queued: u32,
    /// Instances that may get requests.
    pub ready: u32,
    /// Instances that run but may not get requests now.
    pub unready: u32,
    /// Instances being started.
    pub starting: u32,
    /// Since when each instance without a request has had none.
    pub idle_since: &'a [Duration],
}

impl Demand<'_> {
    pub(crate) fn alive(&self) -> u32 {
        self.ready
            .saturating_add(self.unready)
            .saturating_add(self.starting)
    }

    pub(crate) fn load(&self) -> u32 {
        self.in_flight.saturating_add(self.queued)
    }
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Decision {
    /// How many instances there should be.
    pub wanted: u32,
    /// Start this many now.
    pub start: u32,
    /// Stop this many now: idle ones, the longest idle first. With manual scaling, and when the
    /// maximum was lowered, busy ones may be among them: they finish what they have first.
    pub stop: u32,
    /// How many requests an instance should have before the next one gets any; see
    /// [`assign`](crate::assign).
    pub share: u32,
    /// When to ask again if nothing happens before. `None`: only when something happens.
    pub next: Option<Duration>,
    /// Nobody looks at the load until `next`: ask again as soon as an instance gets a request.
    pub resting: bool,
    /// Measure what instances use of their CPUs now.
    pub measure_cpu: bool,
}

/// Decides how many instances to start or stop at `now`.
pub(crate) fn decide(
    now: Duration,
    settings: &Settings,
    history: &History,
    kpa: &mut KpaState,
    demand: &Demand<'_>,
) -> Decision {
    match settings.manual {
        Some(wanted) => exactly(wanted, settings, demand),
        None => {
            let wish = match &settings.rules {
                Rules::CloudRun(targets) => windows::wish(now, settings, targets, history, demand),
                Rules::Knative(rules) => kpa.wish(now, settings, rules, history, demand),
            };
            automatic(now, settings, history, kpa, demand, wish)
        }
    }
}

fn exactly(wanted: u32, settings: &Settings, demand: &Demand<'_>) -> Decision {
    Decision {
        wanted,
        start: wanted.saturating_sub(demand.alive()),
        stop: demand.alive().saturating_sub(wanted),
        share: windows::share(settings, Target::Default.for_instances(wanted)),
        ..Decision::default()
    }
}

fn automatic(
    now: Duration,
    settings: &Settings,
    history: &History,
    kpa: &KpaState,
    demand: &Demand<'_>,
    wish: Wish,
) -> Decision {
    let alive = demand.alive();
    let floor = settings.floor();
    let loaded = demand.load() > 0 || history.concurrency(now, settings.short_window()) > 0.0;
    let mut decision = Decision {
        share: wish.share,
        measure_cpu: alive > 0 && settings.wants_cpu() && (loaded || settings.cpu_always),
        ..Decision::default()
    };
    let tick = next_tick(now, settings);

    // Out: what is queued and will find neither a free slot nor one of a starting instance; and what
    // the windows want, but only a request wakes a revision that has none.
    let slots = settings.slots();
    let coming = demand.starting.saturating_mul(slots);
    let unserved = demand
        .queued
        .saturating_sub(demand.free.saturating_add(coming));
    let mut out = alive.saturating_add(unserved.div_ceil(slots));
    if alive > 0 {
        out = out.max(wish.instances);
    } else if out > 0 {
        out = out.max(settings.activation());
    }
    let start = out.min(settings.max).max(floor).saturating_sub(alive);
    if start > 0 {
        decision.wanted = alive + start;
        decision.start = start;
        decision.next = Some(tick);
        return decision;
    }

    // In: what the load now and the windows want stays.
    let for_load = demand.load().div_ceil(slots);
    decision.wanted = for_load.max(wish.instances).max(floor).min(settings.max);
    let rests = demand
        .idle_since
        .iter()
        .map(|since| *since + rest(settings, decision.wanted));
    let expired = u32::try_from(rests.clone().filter(|at| *at <= now).count()).unwrap_or(u32::MAX);
    let cooling_until = history
        .last_start()
        .map(|at| at + settings.short_window())
        .filter(|until| *until > now);
    let above_max = alive.saturating_sub(settings.max);
    decision.stop = if cooling_until.is_some() {
        above_max
    } else {
        expired
            .min(alive.saturating_sub(decision.wanted))
            .max(above_max)
    };

    let left = alive - decision.stop;
    if left == 0 {
        return decision;
    }
    // While there is load the windows move, and so they do while something that could go is kept.
    let kept = left > floor && (expired > decision.stop || kpa.is_waiting());
    if loaded || decision.measure_cpu || kept {
        decision.next = Some(tick);
    } else {
        decision.resting = true;
        // An instance that is not idle now cannot be expired before a whole rest has passed, so nobody
        // needs to report when it becomes idle.
        let all_busy = (now + rest(settings, decision.wanted)).max(tick);
        let next = rests.filter(|at| *at > now).min().unwrap_or(all_busy);
        decision.next = (left > floor).then(|| next.min(all_busy));
    }
    if let Some(until) = cooling_until.filter(|_| kept) {
        decision.next = decision.next.map(|next| next.min(until));
    }
    decision
}

/// How long an instance must have been idle before it may go, when `wanted` are to be left.
fn rest(settings: &Settings, wanted: u32) -> Duration {
    match &settings.rules {
        Rules::CloudRun(_) => settings.idle_timeout,
        Rules::Knative(kpa) if wanted == 0 => kpa.window + kpa.retention,
        Rules::Knative(_) => Duration::ZERO,
    }
}

/// The next moment at which all revisions with the same settings look at their load, so that what they
/// ask of others can be asked together.
fn next_tick(now: Duration, settings: &Settings) -> Duration {
    let tick = settings.tick().as_nanos();
    let next = (now.as_nanos() / tick + 1) * tick;
    u64::try_from(next).map_or(Duration::MAX, Duration::from_nanos)
}
