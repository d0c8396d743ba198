//! The autoscaler on virtual time: stories, and laws over random loads.
#![allow(missing_docs, clippy::cast_possible_truncation)]

use std::time::Duration;

use lauf_scale::{Demand, History, Settings, decide};
use proptest::prelude::*;

fn settings() -> Settings {
    Settings {
        min: 0,
        max: 100,
        manual: None,
        concurrency: 10,
        target_percent: Settings::TARGET_PERCENT,
        idle_timeout: Settings::IDLE_TIMEOUT,
    }
}

fn s(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn fresh() -> History {
    History::new(settings().long_window())
}

#[test]
fn every_queued_request_gets_a_slot() {
    let start = |queued, starting, max| {
        let demand = Demand {
            queued,
            starting,
            ..Demand::default()
        };
        decide(s(0), &Settings { max, ..settings() }, &fresh(), &demand).start
    };
    assert_eq!(start(1, 0, 100), 1);
    assert_eq!(start(10, 0, 100), 1);
    assert_eq!(start(11, 0, 100), 2);
    assert_eq!(start(25, 1, 100), 2);
    assert_eq!(start(10, 1, 100), 0);
    assert_eq!(start(100_000, 0, 7), 7);
    assert_eq!(start(5, 0, 0), 0);
}

#[test]
fn minimum_and_manual_counts_are_kept() {
    let none = Demand::default();
    assert_eq!(
        decide(
            s(0),
            &Settings {
                min: 3,
                ..settings()
            },
            &fresh(),
            &none
        )
        .start,
        3
    );
    assert_eq!(
        decide(
            s(0),
            &Settings {
                min: 9,
                max: 4,
                ..settings()
            },
            &fresh(),
            &none
        )
        .start,
        4
    );
    let manual = Settings {
        manual: Some(2),
        ..settings()
    };
    assert_eq!(decide(s(0), &manual, &fresh(), &none).start, 2);
    let five = Demand {
        ready: 5,
        ..Demand::default()
    };
    assert_eq!(decide(s(0), &manual, &fresh(), &five).stop, 3);
}

#[test]
fn an_instance_goes_after_the_idle_timeout_and_not_before() {
    let idle = [s(100)];
    let demand = Demand {
        ready: 1,
        idle_since: &idle,
        ..Demand::default()
    };
    let before = decide(s(999), &settings(), &fresh(), &demand);
    assert_eq!((before.stop, before.next), (0, Some(s(1000))));
    assert_eq!(decide(s(1000), &settings(), &fresh(), &demand).stop, 1);
    let kept = Settings {
        min: 1,
        ..settings()
    };
    assert_eq!(
        decide(s(1000), &kept, &fresh(), &demand),
        lauf_scale::Decision {
            wanted: 1,
            ..Default::default()
        }
    );
}

#[test]
fn the_windows_keep_what_the_load_of_the_last_minutes_wants() {
    let mut history = fresh();
    // 60 requests at once for ten minutes want 10 instances of 10 slots at 60 %.
    for t in 0..=600 {
        history.record(s(t), s(t * 60));
    }
    let idle = vec![Duration::ZERO; 30];
    let demand = Demand {
        ready: 30,
        idle_since: &idle,
        ..Demand::default()
    };
    let now = s(600) + settings().idle_timeout;
    history.record(s(900), s(600 * 60));
    let during = decide(s(900), &settings(), &history, &demand);
    assert_eq!(during.wanted, 5, "half of the long window is over");
    assert_eq!(during.stop, 25);
    history.record(now, s(600 * 60));
    assert_eq!(decide(now, &settings(), &history, &demand).stop, 30);
}

#[test]
fn after_a_start_nothing_is_stopped_for_a_minute() {
    let mut history = fresh();
    history.started(s(1000));
    let idle = [Duration::ZERO];
    let demand = Demand {
        ready: 2,
        in_flight: 1,
        idle_since: &idle,
        ..Demand::default()
    };
    let cooling = decide(s(1059), &settings(), &history, &demand);
    assert_eq!(cooling.stop, 0);
    assert!(cooling.next.is_some_and(|at| at <= s(1060)));
    assert_eq!(decide(s(1060), &settings(), &history, &demand).stop, 1);
}

proptest! {
    #[test]
    fn no_decision_breaks_a_law(
        min in 0_u32..20, max in 0_u32..50, concurrency in 1_u32..200,
        queued in 0_u32..5000, ready in 0_u32..60, unready in 0_u32..5, starting in 0_u32..20,
        busy in 0_u32..60, load in 0_u64..1000, now in 1000_u64..5000,
    ) {
        let settings = Settings { min, max, concurrency, ..settings() };
        let mut history = fresh();
        for t in 0..now / 10 {
            history.record(s(t * 10), s(t * 10 * load));
        }
        let busy = busy.min(ready);
        let idle: Vec<_> = (0..ready - busy).map(|i| s(u64::from(i) * 17)).collect();
        let demand = Demand { in_flight: busy, queued, ready, unready, starting, idle_since: &idle };
        let decision = decide(s(now), &settings, &history, &demand);
        let alive = ready + unready + starting;
        prop_assert!(decision.start == 0 || alive + decision.start <= max);
        prop_assert!(decision.start == 0 || decision.stop == 0);
        prop_assert!(alive - decision.stop.min(alive) >= min.min(max).min(alive));
        if alive <= max {
            prop_assert!(decision.stop as usize <= idle.len());
        }
        if let Some(next) = decision.next {
            prop_assert!(next > s(now));
        }
        // What is queued is served, as far as the maximum allows.
        let slots = u64::from(alive + decision.start) * u64::from(concurrency);
        prop_assert!(
            slots >= u64::from(busy) + u64::from(queued) || alive + decision.start >= max
        );
    }
}
