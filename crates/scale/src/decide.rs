//! From demand, settings, history and time to a decision.

use std::time::Duration;

use crate::History;

/// What a revision's owner allows and wishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Instances kept even when idle. A minimum above the maximum counts as the maximum.
    pub min: u32,
    /// The most instances.
    pub max: u32,
    /// Exactly this many, no autoscaling.
    pub manual: Option<u32>,
    /// Requests one instance may have at once; 0 counts as 1.
    pub concurrency: u32,
    /// How full an instance should be on average over the windows, in percent; 60 in Cloud Run.
    pub target_percent: u32,
    /// How long an instance must be idle before it may go; 15 minutes in Cloud Run. The windows are
    /// proportional to it (1 and 10 of 15 minutes), so that a revision set to shrink fast does.
    pub idle_timeout: Duration,
}

impl Settings {
    /// The share of an instance's slots that the windows aim at, as in Cloud Run.
    pub const TARGET_PERCENT: u32 = 60;
    /// How long an idle instance is kept, as in Cloud Run.
    pub const IDLE_TIMEOUT: Duration = Duration::from_secs(15 * 60);

    /// The short window: one minute of a 15-minute idle timeout. Also the cooldown after a start.
    #[must_use]
    pub fn short_window(&self) -> Duration {
        self.idle_timeout / 15
    }

    /// The long window: ten minutes of a 15-minute idle timeout.
    #[must_use]
    pub fn long_window(&self) -> Duration {
        self.idle_timeout / 3 * 2
    }

    fn slots(&self) -> u32 {
        self.concurrency.max(1)
    }
}

/// What a revision has and what is asked of it, now.
#[derive(Debug, Clone, Copy, Default)]
pub struct Demand<'a> {
    /// Requests that instances are working on.
    pub in_flight: u32,
    /// Requests that wait for a slot.
    pub queued: u32,
    /// Instances that may get requests.
    pub ready: u32,
    /// Instances that run but may not get requests now.
    pub unready: u32,
    /// Instances being started.
    pub starting: u32,
    /// Since when each ready instance without a request has had none.
    pub idle_since: &'a [Duration],
}

impl Demand<'_> {
    fn alive(&self) -> u32 {
        self.ready
            .saturating_add(self.unready)
            .saturating_add(self.starting)
    }
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Decision {
    /// How many instances there should be.
    pub wanted: u32,
    /// Start this many now.
    pub start: u32,
    /// Stop this many idle instances now, the longest idle first. With manual scaling, and when the
    /// maximum was lowered, busy ones may be among them: they finish what they have first.
    pub stop: u32,
    /// When to ask again if nothing happens before. `None`: only when something happens.
    pub next: Option<Duration>,
}

/// Decides how many instances to start or stop at `now`.
#[must_use]
pub fn decide(
    now: Duration,
    settings: &Settings,
    history: &History,
    demand: &Demand<'_>,
) -> Decision {
    match settings.manual {
        Some(wanted) => exactly(wanted, demand),
        None => automatic(now, settings, history, demand),
    }
}

fn exactly(wanted: u32, demand: &Demand<'_>) -> Decision {
    Decision {
        wanted,
        start: wanted.saturating_sub(demand.alive()),
        stop: demand.alive().saturating_sub(wanted),
        next: None,
    }
}

fn automatic(
    now: Duration,
    settings: &Settings,
    history: &History,
    demand: &Demand<'_>,
) -> Decision {
    let alive = demand.alive();
    let floor = settings.min.min(settings.max);

    // Scale out: what is queued and will find neither a free slot nor one of a starting instance.
    let slots = u64::from(settings.slots());
    let free = (u64::from(demand.ready) * slots).saturating_sub(u64::from(demand.in_flight));
    let coming = u64::from(demand.starting) * slots;
    let unserved = u64::from(demand.queued).saturating_sub(free + coming);
    let more = u32::try_from(unserved.div_ceil(slots)).unwrap_or(u32::MAX);
    let start = alive
        .saturating_add(more)
        .min(settings.max)
        .max(floor)
        .saturating_sub(alive);
    if start > 0 {
        return Decision {
            wanted: alive + start,
            start,
            stop: 0,
            next: None,
        };
    }

    // Scale in: what the load now and the windows want stays.
    let load = u64::from(demand.in_flight) + u64::from(demand.queued);
    let for_load = u32::try_from(load.div_ceil(slots)).unwrap_or(u32::MAX);
    let short = history.average(now, settings.short_window());
    let long = history.average(now, settings.long_window());
    let for_windows = instances_for(short.max(long), settings);
    let wanted = for_load.max(for_windows).max(floor).min(settings.max);

    let expired = demand
        .idle_since
        .iter()
        .filter(|since| now >= **since + settings.idle_timeout)
        .count();
    let expired = u32::try_from(expired).unwrap_or(u32::MAX);
    let cooling_until = history
        .last_start()
        .map(|at| at + settings.short_window())
        .filter(|until| *until > now);
    let above_max = alive.saturating_sub(settings.max);
    let stop = if cooling_until.is_some() {
        above_max
    } else {
        expired.min(alive.saturating_sub(wanted)).max(above_max)
    };

    // An instance that is not idle now cannot be expired before a whole timeout has passed, so
    // nobody needs to report when it becomes idle.
    let left = alive - stop;
    let next = (left > floor).then(|| {
        let next_expiry = demand
            .idle_since
            .iter()
            .map(|since| *since + settings.idle_timeout)
            .filter(|at| *at > now)
            .min();
        let all_busy = now + settings.idle_timeout;
        let mut next = next_expiry.unwrap_or(all_busy).min(all_busy);
        if expired > stop || demand.in_flight > 0 || short.max(long) > 0.0 {
            next = next.min(now + history.spacing().max(Duration::from_millis(1)));
        }
        if let Some(until) = cooling_until
            && expired > 0
        {
            next = next.min(until);
        }
        next
    });
    Decision {
        wanted,
        start: 0,
        stop,
        next,
    }
}

/// How many instances an average concurrency wants at the target.
fn instances_for(concurrency: f64, settings: &Settings) -> u32 {
    let target =
        f64::from(settings.slots()) * f64::from(settings.target_percent.clamp(1, 100)) / 100.0;
    let wanted = (concurrency / target).ceil();
    if wanted >= f64::from(u32::MAX) {
        return u32::MAX;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a whole number between 0 and u32::MAX, checked above"
    )]
    let wanted = wanted.max(0.0) as u32;
    wanted
}
