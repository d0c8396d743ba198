//! What Cloud Run's windows want: the higher of what CPU and concurrency say (Cloud Run, "About instance
//! autoscaling" and "Custom scaling controls").

use std::time::Duration;

use crate::{Demand, History, Settings, Target, Targets};

/// What a mechanism wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wish {
    /// How many instances.
    pub(crate) instances: u32,
    /// How many requests each of them should have before another one gets any.
    pub(crate) share: u32,
}

pub(crate) fn wish(
    now: Duration,
    settings: &Settings,
    targets: &Targets,
    history: &History,
    demand: &Demand<'_>,
) -> Wish {
    let slots = f64::from(settings.slots());
    let short = history.concurrency(now, settings.short_window());
    let long = history.concurrency(now, settings.long_window());
    let alive = demand.alive();
    let by_requests = instances(short.max(long) / slots, targets.concurrency, alive);
    let by_cpu = instances(
        history.busy_cpus(now, settings.short_window()) / settings.cpus.max(0.01),
        targets.cpu,
        alive,
    );
    let wanted = by_requests.max(by_cpu);
    let requests = long > 0.0 || demand.load() > 0;
    Wish {
        instances: match (requests, wanted) {
            (true, _) => wanted.max(1),
            // Whether the last instance goes is a matter of requests only.
            (false, 0 | 1) => 0,
            (false, more) => more,
        },
        share: if by_cpu > by_requests {
            // The CPU is what is scarce: as many requests for each.
            let serving = f64::from(wanted.min(demand.ready).max(1));
            share(
                settings,
                short.max(f64::from(demand.in_flight)) / serving / slots,
            )
        } else {
            share(settings, targets.concurrency.for_instances(wanted))
        },
    }
}

/// How many slots of an instance a share of them is, at least one.
pub(crate) fn share(settings: &Settings, share: f64) -> u32 {
    whole(f64::from(settings.slots()) * share).clamp(1, settings.slots())
}

/// How many instances a load wants that would fill `load` of them to the brim; `alive` are there.
fn instances(load: f64, target: Target, alive: u32) -> u32 {
    match target {
        Target::Off => 0,
        _ if load <= 0.0 => 0,
        Target::Default => whole((load - Target::SLACK) / Target::SHARE).max(1),
        Target::Share(share) => {
            let exact = load / share.clamp(0.01, 1.0);
            let off = (exact - f64::from(alive)).abs();
            if alive > 0 && off <= f64::from(alive) * Target::TOLERANCE {
                alive
            } else {
                whole(exact)
            }
        }
    }
}

/// Rounds up to a whole number, but not for a thousandth, which is within the error of measurement.
pub(crate) fn whole(exact: f64) -> u32 {
    let up = (exact - 1e-3).ceil();
    if up >= f64::from(u32::MAX) {
        return u32::MAX;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a whole number between 0 and u32::MAX, checked above"
    )]
    let whole = up.max(0.0) as u32;
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_target_is_higher_for_few_instances() {
        for (load, wanted) in [
            (0.0, 0),
            (0.01, 1),
            (0.9, 1),
            (0.91, 2),
            (1.5, 2),
            (1.51, 3),
            (60.0, 100),
        ] {
            assert_eq!(instances(load, Target::Default, 1), wanted, "{load}");
        }
        for count in 1..50 {
            let brim = Target::Default.for_instances(count) * f64::from(count);
            assert_eq!(instances(brim, Target::Default, 1), count);
        }
    }

    #[test]
    fn a_target_of_ones_own_is_kept_to_within_a_tenth() {
        let half = Target::Share(0.5);
        assert_eq!(instances(0.5, half, 0), 1);
        assert_eq!(instances(0.51, half, 0), 2);
        assert_eq!(instances(5.0, half, 10), 10);
        assert_eq!(instances(5.5, half, 10), 10);
        assert_eq!(instances(5.51, half, 10), 12);
        assert_eq!(instances(4.5, half, 10), 10);
        assert_eq!(instances(4.4, half, 10), 9);
        assert_eq!(instances(9.9, Target::Off, 10), 0);
    }
}
