//! The autoscaler on virtual time: stories, and laws over random loads.
#![allow(missing_docs, clippy::cast_possible_truncation)]

use std::time::Duration;

use lauf_scale::*;
use proptest::prelude::*;

fn ten_slots() -> Settings {
    Settings {
        concurrency: 10,
        ..Settings::default()
    }
}

fn s(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn idle(since: u64) -> Member {
    Member {
        ready: true,
        draining: false,
        in_flight: 0,
        idle_since: Some(s(since)),
    }
}

fn busy(in_flight: u32) -> Member {
    Member {
        in_flight,
        idle_since: None,
        ..idle(0)
    }
}

/// A decision of a revision that has seen nothing.
fn fresh(settings: &Settings, members: &[Member], queued: u32, starting: u32) -> Decision {
    Autoscaler::new(settings).decide(s(0), settings, members, queued, starting)
}

/// One that had so many requests at once, and so many CPUs busy, for `seconds` until now.
fn after(settings: &Settings, seconds: u64, requests: f64, cpus: f64) -> Autoscaler {
    let mut scaler = Autoscaler::new(settings);
    for t in 0..=seconds {
        let at = s(t);
        scaler.record(at, at.mul_f64(requests), t);
        scaler.record_cpu(at, at.mul_f64(cpus));
    }
    scaler
}

#[test]
fn every_queued_request_gets_a_slot() {
    let start = |queued, starting, max| {
        let settings = Settings { max, ..ten_slots() };
        fresh(&settings, &[], queued, starting).start
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
fn what_drains_serves_nobody() {
    let draining = Member {
        draining: true,
        ..busy(10)
    };
    assert_eq!(fresh(&ten_slots(), &[draining], 1, 0).start, 1);
    let free = fresh(&ten_slots(), &[draining, busy(1)], 1, 0);
    assert_eq!(free.start, 0);
}

#[test]
fn minimum_and_manual_counts_are_kept() {
    let min = |min, max| Settings {
        min,
        max,
        ..ten_slots()
    };
    assert_eq!(fresh(&min(3, 100), &[], 0, 0).start, 3);
    assert_eq!(fresh(&min(9, 4), &[], 0, 0).start, 4);
    let manual = Settings {
        manual: Some(2),
        ..ten_slots()
    };
    assert_eq!(fresh(&manual, &[], 500, 0).start, 2);
    assert_eq!(fresh(&manual, &[idle(0); 5], 0, 0).stop, 3);
    assert_eq!(fresh(&manual, &[busy(9), busy(9)], 500, 0).start, 0);
}

#[test]
fn an_instance_goes_after_the_idle_timeout_and_not_before() {
    let settings = ten_slots();
    let at = |now, settings: &Settings| {
        Autoscaler::new(settings).decide(s(now), settings, &[idle(100)], 0, 0)
    };
    let before = at(999, &settings);
    assert_eq!((before.stop, before.next), (0, Some(s(1000))));
    assert!(before.resting, "nothing happens, nobody looks");
    assert_eq!(at(1000, &settings).stop, 1);
    let kept = at(1000, &Settings { min: 1, ..settings });
    assert_eq!((kept.wanted, kept.stop, kept.next), (1, 0, None));
}

#[test]
fn the_windows_keep_what_the_load_of_the_last_minutes_wants() {
    let settings = ten_slots();
    let mut scaler = after(&settings, 600, 60.0, 0.0);
    let members = [idle(0); 30];
    scaler.record(s(900), s(36_000), 0);
    let during = scaler.decide(s(900), &settings, &members, 0, 0);
    // Half of the long window is over: 30 requests fill 3 instances, 5 are to be 60 % busy.
    assert_eq!((during.wanted, during.stop), (5, 25));
    scaler.record(s(1500), s(36_000), 0);
    assert_eq!(scaler.decide(s(1500), &settings, &members, 0, 0).stop, 30);
}

#[test]
fn the_windows_start_instances_before_the_slots_are_full() {
    let settings = ten_slots();
    let wanted = |requests: f64, alive: usize| {
        let mut scaler = after(&settings, 600, requests, 0.0);
        scaler.decide(s(600), &settings, &vec![busy(1); alive], 0, 0)
    };
    assert_eq!(
        wanted(9.0, 1).start,
        0,
        "one instance may be nine tenths full"
    );
    assert_eq!(wanted(9.5, 1).start, 1);
    assert_eq!(wanted(60.0, 4).start, 6);
    assert_eq!(wanted(60.0, 10).start, 0);
    assert_eq!(wanted(60.0, 0).start, 0, "only a request wakes");
    assert_eq!(wanted(6000.0, 1).start, 99, "the maximum holds");
}

#[test]
fn the_cpu_starts_instances_and_spreads_the_requests() {
    let settings = Settings {
        cpus: 2.0,
        ..Settings::default()
    };
    let mut scaler = after(&settings, 60, 10.0, 2.0);
    let decision = scaler.decide(s(60), &settings, &[busy(10)], 0, 0);
    assert!(decision.measure_cpu);
    assert_eq!((decision.start, decision.wanted), (1, 2));
    let spread = scaler.decide(s(60), &settings, &[busy(10), busy(0)], 0, 0);
    assert_eq!((spread.start, spread.share), (0, 5));
    let off = Settings {
        rules: Rules::CloudRun(Targets {
            cpu: Target::Off,
            concurrency: Target::Default,
        }),
        ..settings
    };
    let decision = scaler.decide(s(60), &off, &[busy(10)], 0, 0);
    assert_eq!((decision.start, decision.measure_cpu), (0, false));
    assert_eq!(
        decision.share, 72,
        "nine tenths of the slots of one instance"
    );
}

#[test]
fn the_last_instance_goes_by_requests_alone() {
    let settings = Settings {
        cpu_always: true,
        ..Settings::default()
    };
    let mut scaler = after(&settings, 1000, 0.0, 0.9);
    let one = scaler.decide(s(1000), &settings, &[idle(0)], 0, 0);
    assert_eq!(one.stop, 1, "a busy CPU keeps no last instance");
    let mut scaler = after(&settings, 1000, 0.0, 2.4);
    let five = scaler.decide(s(1000), &settings, &[idle(0); 5], 0, 0);
    assert_eq!((five.wanted, five.stop), (4, 1), "but it keeps several");
}

#[test]
fn targets_of_ones_own_are_kept_at_any_count() {
    let settings = Settings {
        rules: Rules::CloudRun(Targets {
            cpu: Target::Off,
            concurrency: Target::Share(0.2),
        }),
        ..ten_slots()
    };
    let mut scaler = after(&settings, 600, 4.3, 0.0);
    assert_eq!(scaler.decide(s(600), &settings, &[busy(4)], 0, 0).wanted, 3);
    let two = [busy(2), busy(2)];
    assert_eq!(
        scaler.decide(s(600), &settings, &two, 0, 0).wanted,
        2,
        "within a tenth"
    );
    assert_eq!(scaler.decide(s(600), &settings, &two, 0, 0).share, 2);
}

#[test]
fn after_a_start_nothing_is_stopped_for_a_minute() {
    let settings = ten_slots();
    let mut scaler = Autoscaler::new(&settings);
    assert_eq!(
        scaler.decide(s(1000), &settings, &[idle(0)], 11, 0).start,
        1
    );
    let members = [busy(1), idle(0)];
    let cooling = scaler.decide(s(1059), &settings, &members, 0, 0);
    assert_eq!(cooling.stop, 0);
    assert!(cooling.next.is_some_and(|at| at <= s(1060)));
    assert_eq!(scaler.decide(s(1060), &settings, &members, 0, 0).stop, 1);
}

#[test]
fn starts_that_fail_are_not_tried_again_at_once() {
    let settings = ten_slots();
    let mut scaler = Autoscaler::new(&settings);
    assert_eq!(scaler.decide(s(10), &settings, &[], 1, 0).start, 1);
    scaler.start_failed(s(11), true);
    let paused = scaler.decide(s(11), &settings, &[], 1, 0);
    assert_eq!(paused.start, 0);
    let next = paused.next.expect("says when to try again");
    assert_eq!(scaler.decide(next, &settings, &[], 1, 0).start, 1);
}

#[test]
fn victims_are_idle_ones_and_busy_ones_only_when_they_must() {
    let settings = ten_slots();
    let unready = Member {
        ready: false,
        ..idle(500)
    };
    let members = [idle(7), busy(1), idle(3), unready, idle(3)];
    let order = |settings: &Settings| -> Vec<_> {
        let victims = Autoscaler::victims(settings, &members);
        victims.iter().map(|v| (v.index, v.drain)).collect()
    };
    let idle = [(3, false), (4, false), (2, false), (0, false)];
    assert_eq!(order(&settings), idle);
    let lowered = order(&Settings { max: 1, ..settings });
    assert_eq!(lowered[..4], idle);
    assert!(lowered[4..].contains(&(1, true)));
}

fn kpa() -> Kpa {
    Kpa {
        metric: Metric::Concurrency,
        target: 7.0,
        window: s(60),
        panic_window: 0.1,
        panic_threshold: 2.0,
        scale_down_delay: Duration::ZERO,
        retention: Duration::ZERO,
        activation: 1,
    }
}

fn knative(kpa: Kpa) -> Settings {
    Settings {
        rules: Rules::Knative(kpa),
        ..ten_slots()
    }
}

#[test]
fn knative_goes_to_zero_after_its_window_and_retention() {
    let settings = knative(kpa());
    let mut scaler = after(&settings, 100, 1.0, 0.0);
    let at = |scaler: &mut Autoscaler, settings: &Settings, now| {
        scaler.record(s(now), s(100), 0);
        scaler.decide(s(now), settings, &[idle(100)], 0, 0).stop
    };
    assert_eq!(at(&mut scaler.clone(), &settings, 159), 0);
    assert_eq!(at(&mut scaler.clone(), &settings, 160), 1);
    let kept = knative(Kpa {
        retention: s(30),
        ..kpa()
    });
    assert_eq!(at(&mut scaler, &kept, 189), 0);
    assert_eq!(at(&mut scaler, &kept, 190), 1);
}

#[test]
fn knative_panics_in_a_burst_and_calms_down_a_window_later() {
    let settings = knative(kpa());
    let mut scaler = after(&settings, 100, 7.0, 0.0);
    let calm = scaler.decide(s(100), &settings, &[busy(7)], 0, 0);
    assert_eq!((calm.wanted, calm.start), (1, 0));
    // 70 at once for six seconds.
    scaler.record(s(106), s(700 + 420), 0);
    let panic = scaler.decide(s(106), &settings, &[busy(10)], 0, 0);
    assert_eq!(panic.start, 9, "the panic window wants ten");
    let ten = [idle(106); 10];
    scaler.record(s(150), s(1120), 0);
    assert_eq!(scaler.decide(s(150), &settings, &ten, 0, 0).stop, 0);
    scaler.record(s(166), s(1120), 0);
    let over = scaler.decide(s(166), &settings, &ten, 0, 0);
    assert_eq!(over.stop, 5, "not more than half at once");
}

#[test]
fn knative_delays_scale_in_and_activates_together() {
    let settings = knative(Kpa {
        scale_down_delay: s(300),
        activation: 3,
        ..kpa()
    });
    assert_eq!(fresh(&settings, &[], 1, 0).start, 3);
    let mut scaler = after(&settings, 100, 28.0, 0.0);
    let four = [idle(100); 4];
    assert_eq!(scaler.decide(s(100), &settings, &four, 0, 0).wanted, 4);
    scaler.record(s(399), s(2800), 0);
    assert_eq!(scaler.decide(s(399), &settings, &four, 0, 0).stop, 0);
    scaler.record(s(400), s(2800), 0);
    assert!(scaler.decide(s(400), &settings, &four, 0, 0).stop > 0);
}

#[test]
fn knative_lets_those_go_that_were_activated_and_never_asked() {
    let settings = knative(Kpa {
        activation: 2,
        ..kpa()
    });
    let mut scaler = Autoscaler::new(&settings);
    let mut members = vec![idle(0); 2];
    for now in 0..=200 {
        scaler.record(s(now), Duration::ZERO, 0);
        let decision = scaler.decide(s(now), &settings, &members, 0, 0);
        assert_eq!(decision.start, 0, "at {now} s");
        members.truncate(members.len() - usize::try_from(decision.stop).unwrap());
    }
    assert!(members.is_empty());
}

#[test]
fn knative_counts_requests_a_second_if_told() {
    let settings = knative(Kpa {
        metric: Metric::Rps,
        target: 10.0,
        ..kpa()
    });
    let mut scaler = Autoscaler::new(&settings);
    for t in 0..=100 {
        scaler.record(s(t), s(t), t * 45);
    }
    assert_eq!(scaler.decide(s(100), &settings, &[busy(1)], 0, 0).wanted, 5);
}

fn a_revision() -> impl Strategy<Value = Settings> {
    let share = || {
        prop_oneof![
            Just(Target::Default),
            (0.1..0.95).prop_map(Target::Share),
            Just(Target::Off)
        ]
    };
    let cloud_run = (share(), share())
        .prop_map(|(cpu, concurrency)| Rules::CloudRun(Targets { cpu, concurrency }));
    let knative = (0.01..100.0, 6_u64..600, 0_u64..600, 1_u32..5).prop_map(
        |(target, window, delay, activation)| {
            Rules::Knative(Kpa {
                target,
                window: s(window),
                scale_down_delay: s(delay),
                activation,
                ..kpa()
            })
        },
    );
    let rules = prop_oneof![cloud_run, knative];
    (0_u32..20, 0_u32..50, 1_u32..200, rules, any::<bool>()).prop_map(
        |(min, max, concurrency, rules, cpu_always)| Settings {
            min,
            max,
            concurrency,
            rules,
            cpu_always,
            ..Settings::default()
        },
    )
}

proptest! {
    #[test]
    fn no_decision_breaks_a_law(
        settings in a_revision(), queued in 0_u32..5000, ready in 0_u32..60, unready in 0_u32..5, starting in 0_u32..20,
        at_work in 0_u32..60, load in 0.0..1000.0, cpus in 0.0..50.0, now in 1000_u64..5000,
    ) {
        let mut scaler = Autoscaler::new(&settings);
        for t in 0..now / 10 {
            scaler.record(s(t * 10), s(t * 10).mul_f64(load), t);
            scaler.record_cpu(s(t * 10), s(t * 10).mul_f64(cpus));
        }
        let at_work = at_work.min(ready);
        let mut members = vec![busy(1); at_work as usize];
        members.extend((0..ready - at_work).map(|i| idle(u64::from(i) * 17)));
        members.extend(vec![Member { ready: false, ..idle(3) }; unready as usize]);
        let decision = scaler.decide(s(now), &settings, &members, queued, starting);
        let alive = ready + unready + starting;
        let idle = ready - at_work + unready;
        prop_assert!(decision.start == 0 || alive + decision.start <= settings.max);
        prop_assert!(decision.start == 0 || decision.stop == 0);
        prop_assert!(alive > 0 || queued > 0 || decision.start <= settings.min);
        prop_assert!(alive - decision.stop.min(alive) >= settings.min.min(settings.max).min(alive));
        prop_assert!((1..=settings.concurrency).contains(&decision.share));
        if alive <= settings.max {
            prop_assert!(decision.stop <= idle);
            let victims = Autoscaler::victims(&settings, &members);
            prop_assert!(victims.iter().all(|v| !v.drain && members[v.index].in_flight == 0));
        }
        if let Some(next) = decision.next {
            prop_assert!(next > s(now));
        }
        // What is queued is served, as far as the maximum allows.
        let slots = u64::from(alive - unready + decision.start) * u64::from(settings.concurrency);
        prop_assert!(
            slots >= u64::from(at_work) + u64::from(queued) || alive + decision.start >= settings.max
        );
    }
}
