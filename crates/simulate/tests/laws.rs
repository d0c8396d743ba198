//! Thousands of services on virtual time: whatever the load and the settings, the laws hold.
#![allow(missing_docs, clippy::cast_precision_loss)]

use std::fmt::Write as _;
use std::time::Duration;

use lauf_simulate::*;
use oorandom::Rand64;

/// A trace of requests as columns: bursts, pauses and steady parts, drawn by a seed.
fn a_trace(random: &mut Rand64) -> (String, u64) {
    let mut text = "t,duration_ms\n".to_owned();
    let (mut now, mut count) = (0.0, 0);
    for _ in 0..random.rand_range(1..6) {
        let requests = random.rand_range(1..120);
        // From many at once to one a minute, and quiet times between.
        let gap = [0.0, 0.001, 0.05, 1.0, 60.0][pick(random, 5)];
        let longest = [1.0, 100.0, 5000.0, 60_000.0][pick(random, 4)];
        for _ in 0..requests {
            now += gap * random.rand_float();
            count += 1;
            let _ = writeln!(text, "{now:.6},{:.3}", longest * random.rand_float());
        }
        now += [0.0, 30.0, 2000.0][pick(random, 3)];
    }
    (text, count)
}

fn pick(random: &mut Rand64, among: u64) -> usize {
    usize::try_from(random.rand_range(0..among)).unwrap()
}

/// Settings drawn by a seed, as people would write them.
fn a_scenario(random: &mut Rand64) -> Scenario {
    let start = ["0ms", "50ms", "3s", "lognormal:p50=1s,p99=20s"][pick(random, 4)];
    let mut scenario = Scenario::new("drawn", start.parse().unwrap());
    let mut set = |rule: &str| scenario.set(rule).unwrap();
    set(["max=1", "max=3", "max=100"][pick(random, 3)]);
    set(["concurrency=1", "concurrency=4", "concurrency=80"][pick(random, 3)]);
    set(["min=0", "min=0", "min=2"][pick(random, 3)]);
    set(["cpu-always=false", "cpu-always=true"][pick(random, 2)]);
    set(["idle-timeout=15m", "idle-timeout=30s"][pick(random, 2)]);
    set(["stop=0s", "stop=2s"][pick(random, 2)]);
    set(["timeout=300s", "timeout=10s"][pick(random, 2)]);
    set(["start-failures=0", "start-failures=0", "start-failures=30"][pick(random, 3)]);
    match pick(random, 5) {
        0 => set("concurrency-target=0.3"),
        1 => set("cpu-target=off"),
        2 => set("concurrency-target=off"),
        3 => {
            set("window=20s");
            set(["scale-down-delay=0s", "scale-down-delay=60s"][pick(random, 2)]);
            set(["metric=concurrency", "metric=rps"][pick(random, 2)]);
        }
        _ => {}
    }
    if pick(random, 12) == 0 {
        set("manual=2");
    }
    scenario
}

fn play(trace: &str, scenarios: &[Scenario], options: &Options) -> Vec<Report> {
    let mut input = Input::new(trace.as_bytes(), InputOptions::default());
    simulate(&mut input, scenarios, options).unwrap()
}

/// Long enough for everything to come to rest.
const TAIL: Duration = Duration::from_secs(3 * 3600);

#[test]
fn whatever_the_load_the_laws_hold() {
    for seed in 0..3000 {
        let mut random = Rand64::new(seed);
        let (trace, count) = a_trace(&mut random);
        let scenario = a_scenario(&mut random);
        let options = Options {
            seed: 7,
            cpu_share: [0.0, 0.5, 1.0][pick(&mut random, 3)],
            tail: TAIL,
            ..Options::default()
        };
        let report = play(&trace, std::slice::from_ref(&scenario), &options).remove(0);
        let told = |law: &str| format!("seed {seed}: {law}\n{scenario:?}\n{:?}", report.totals);
        let totals = &report.totals;
        let set = &scenario.settings;

        // No request is lost: each ends in one of four ways.
        let ended = totals.served + totals.refused + totals.timed_out + totals.failed;
        assert_eq!(
            (totals.requests, ended),
            (count, count),
            "{}",
            told("a request is lost")
        );

        // Never above the maximum.
        let most = set.manual.unwrap_or(set.max);
        assert!(
            totals.most_instances <= most,
            "{}",
            told("above the maximum")
        );

        // At rest there is what the minimum keeps, and nothing else.
        let left = totals.starts - totals.failed_starts - totals.stops;
        let floor = set.manual.unwrap_or(set.min.min(set.max));
        if scenario.start_failures == 0.0 {
            assert_eq!(left, u64::from(floor), "{}", told("not at rest"));
        }
        let last = report.timeline.last().unwrap();
        assert!(last.in_flight_is_zero(), "{}", told("busy at the end"));

        // No flapping: what was started stays for as long as an idle instance does.
        if let (Some(life), lauf_scale::Rules::CloudRun(_)) = (totals.shortest_life, &set.rules) {
            let least = set.idle_timeout.as_secs_f64();
            assert!(life >= least - 1e-6, "{}", told("flapping"));
        }

        // What is not refused was not kept waiting for longer than is allowed.
        assert!(
            totals.latency.p50 <= totals.latency.p99,
            "{}",
            told("percentiles")
        );
        let busy: f64 = report.timeline.iter().map(|b| b.request_seconds).sum();
        let slots = totals.instance_seconds * f64::from(set.concurrency);
        assert!(busy <= slots + 1e-6, "{}", told("more requests than slots"));
        assert!(totals.cpu_seconds <= totals.instance_seconds * set.cpus + 1e-6);

        // Billing by instance covers billing by request.
        let (by_request, by_instance) = (&report.request_based, &report.instance_based);
        let lives = totals.starts as f64;
        assert!(
            by_request.cpu_seconds <= by_instance.cpu_seconds + 0.1 * lives * set.cpus,
            "{}",
            told("billed twice")
        );
    }
}

trait AtRest {
    fn in_flight_is_zero(&self) -> bool;
}

impl AtRest for Bucket {
    fn in_flight_is_zero(&self) -> bool {
        self.request_seconds == 0.0 && self.most_queued == 0
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_does_not() {
    let mut random = Rand64::new(42);
    let (trace, _) = a_trace(&mut random);
    let start = "lognormal:p50=1s,p99=20s".parse().unwrap();
    let scenarios = [
        Scenario::new("a", start),
        a_scenario(&mut random),
        a_scenario(&mut random),
    ];
    let bytes = |seed| {
        let options = Options {
            seed,
            service_time: Some("lognormal:p50=100ms,p99=3s".parse().unwrap()),
            cpu_share: 0.4,
            tail: Duration::ZERO,
        };
        let reports = play(&trace, &scenarios, &options);
        let json = serde_json::to_string(&reports).unwrap();
        (json, table(&reports), plot(&reports))
    };
    assert_eq!(bytes(1), bytes(1));
    assert_ne!(bytes(1).0, bytes(2).0);
}

#[test]
fn lines_out_of_order_change_nothing() {
    let rows: Vec<_> = (0..500).map(|i| format!("{}.5,200\n", i / 3)).collect();
    let shuffled: Vec<_> = (0..500).map(|i| rows[(i * 7) % 500].clone()).collect();
    let scenario = [Scenario::new("a", "1s".parse().unwrap())];
    let played = |rows: &[String]| {
        let trace = format!("t,duration_ms\n{}", rows.concat());
        let reports = play(&trace, &scenario, &Options::default());
        serde_json::to_string(&reports).unwrap()
    };
    assert_eq!(played(&rows), played(&shuffled));
}

#[test]
fn requests_that_share_a_cpu_take_as_long_as_theory_says() {
    // One CPU, Poisson arrivals, four fifths busy: the mean stay is five times the work, whatever its
    // distribution (Kleinrock, "Queueing Systems", volume 2: M/G/1 with processor sharing).
    let mut random = Rand64::new(11);
    let mut trace = "t\n".to_owned();
    let mut now = 0.0;
    for _ in 0..200_000 {
        now -= (1.0 - random.rand_float()).ln() / 8.0;
        let _ = writeln!(trace, "{now:.9}");
    }
    let scenario = Scenario::new("one", "0ms".parse().unwrap())
        .with("manual=1, concurrency=1000, timeout=1h")
        .unwrap();
    let mean = |work: &str| {
        let options = Options {
            service_time: Some(work.parse().unwrap()),
            cpu_share: 1.0,
            ..Options::default()
        };
        let report = play(&trace, std::slice::from_ref(&scenario), &options).remove(0);
        let stays: f64 = report.timeline.iter().map(|b| b.request_seconds).sum();
        stays / report.totals.requests as f64
    };
    let constant = mean("100ms");
    assert!((constant / 0.5 - 1.0).abs() < 0.05, "{constant}");
    // A lognormal with a mean of 100 ms.
    let spread = mean("lognormal:p50=60.65ms,p99=620.9ms");
    assert!((spread / 0.5 - 1.0).abs() < 0.15, "{spread}");
}

#[test]
fn a_long_log_needs_no_more_memory_than_its_window() {
    // 300,000 lines made while they are read.
    struct Lines(u64);
    impl std::io::Read for Lines {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            let line = match self.0 {
                0 => "t,duration_ms\n".to_owned(),
                n if n <= 300_000 => format!("{}.{:03},20\n", n / 100, (n % 100) * 10),
                _ => return Ok(0),
            };
            self.0 += 1;
            out[..line.len()].copy_from_slice(line.as_bytes());
            Ok(line.len())
        }
    }
    let options = InputOptions {
        window: 1000,
        ..InputOptions::default()
    };
    let reader = std::io::BufReader::new(Lines(0));
    let mut input = Input::new(reader, options);
    let scenario = [Scenario::new("a", "500ms".parse().unwrap())];
    let reports = simulate(&mut input, &scenario, &Options::default()).unwrap();
    assert_eq!(input.summary().requests, 300_000);
    assert_eq!(reports[0].totals.served, 300_000);
    assert!(reports[0].timeline.len() <= 720);
}
