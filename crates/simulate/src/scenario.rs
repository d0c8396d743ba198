//! One set of settings to play the requests against.

use std::fmt;
use std::time::Duration;

use jiff::SignedDuration;
use lauf_scale::{Kpa, Metric, Rules, Settings, Target, Targets};

use crate::Distribution;

/// Settings of a service and facts about its container.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// What it is called.
    pub name: String,
    /// How it is scaled.
    pub settings: Settings,
    /// Memory of an instance, in bytes.
    pub memory_bytes: u64,
    /// How long a request may take.
    pub timeout: Duration,
    /// How long a start takes, asked for to ready.
    pub start_time: Distribution,
    /// How long an instance takes to end.
    pub stop_time: Duration,
    /// How many of a hundred starts fail.
    pub start_failures: f64,
}

/// What is billed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Billing {
    /// The time in which an instance starts, serves or stops.
    Requests,
    /// Its whole life.
    Instances,
}

impl Scenario {
    /// A service that says nothing, with a container that starts in the given time.
    #[must_use]
    pub fn new(name: &str, start_time: Distribution) -> Self {
        Self {
            name: name.to_owned(),
            settings: Settings::default(),
            memory_bytes: 512 << 20,
            timeout: Duration::from_secs(300),
            start_time,
            stop_time: Duration::ZERO,
            start_failures: 0.0,
        }
    }

    /// What is billed, as the settings have it.
    #[must_use]
    pub fn billing(&self) -> Billing {
        if self.settings.cpu_always {
            Billing::Instances
        } else {
            Billing::Requests
        }
    }

    /// This scenario with other settings: `NAME: KEY=VALUE, KEY=VALUE`, or without a name, which is then
    /// the text itself.
    ///
    /// # Errors
    /// What is not known or not possible, by its key.
    pub fn with(&self, text: &str) -> Result<Self, ScenarioError> {
        let named = text.split_once(':').filter(|(name, _)| !name.contains('='));
        let (name, rules) = named.unwrap_or((text, text));
        let mut scenario = Self {
            name: name.trim().to_owned(),
            ..self.clone()
        };
        // Commas also stand within values: `start=percentiles:p50=1s,p99=2s`.
        let mut rule = String::new();
        for part in rules.split(',').chain([""]) {
            let begins = part.is_empty()
                || Rule::ALL
                    .iter()
                    .any(|r| part.trim().starts_with(&format!("{}=", r.key)));
            if begins && !rule.is_empty() {
                scenario.set(&rule)?;
                rule.clear();
            }
            if !rule.is_empty() {
                rule.push(',');
            }
            rule.push_str(part);
        }
        scenario.check()?;
        Ok(scenario)
    }

    /// Changes one setting, `KEY=VALUE`.
    ///
    /// # Errors
    /// What is not known or not possible.
    pub fn set(&mut self, rule: &str) -> Result<(), ScenarioError> {
        let (key, value) = rule
            .split_once('=')
            .ok_or_else(|| ScenarioError(format!("'{rule}' is not like max=10")))?;
        let (key, value) = (key.trim(), value.trim());
        let found = Rule::ALL.iter().find(|r| r.key == key).ok_or_else(|| {
            let keys: Vec<_> = Rule::ALL.iter().map(|r| r.key).collect();
            ScenarioError(format!(
                "'{key}' is no setting; there are {}",
                keys.join(", ")
            ))
        })?;
        (found.apply)(self, value)
            .ok_or_else(|| ScenarioError(format!("{key}={value}: must be {}", found.allowed)))
    }

    fn check(&self) -> Result<(), ScenarioError> {
        if let Rules::CloudRun(targets) = &self.settings.rules
            && (targets.cpu, targets.concurrency) == (Target::Off, Target::Off)
        {
            return Err(ScenarioError(
                "cpu-target and concurrency-target are both off; one of the two must decide"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    fn targets(&mut self) -> &mut Targets {
        if !matches!(self.settings.rules, Rules::CloudRun(_)) {
            self.settings.rules = Rules::default();
        }
        match &mut self.settings.rules {
            Rules::CloudRun(targets) => targets,
            Rules::Knative(_) => unreachable!("set above"),
        }
    }

    fn knative(&mut self) -> &mut Kpa {
        if !matches!(self.settings.rules, Rules::Knative(_)) {
            self.settings.rules = Rules::Knative(Kpa {
                metric: Metric::Concurrency,
                target: f64::from(self.settings.concurrency.max(1)) * 0.7,
                window: Duration::from_secs(60),
                panic_window: 0.1,
                panic_threshold: 2.0,
                scale_down_delay: Duration::ZERO,
                retention: Duration::ZERO,
                activation: 1,
            });
        }
        match &mut self.settings.rules {
            Rules::Knative(kpa) => kpa,
            Rules::CloudRun(_) => unreachable!("set above"),
        }
    }
}

/// Why a scenario makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ScenarioError(String);

/// A setting of a scenario.
pub struct Rule {
    /// What it is called.
    pub key: &'static str,
    /// What it may be.
    pub allowed: &'static str,
    apply: fn(&mut Scenario, &str) -> Option<()>,
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rule")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

const DURATION: &str = "a duration, such as 90s or 15m";
const COUNT: &str = "a whole number, 0 or more";
const TARGET: &str = "from 0.1 to 0.95, off, or default";

macro_rules! rule {
    ($key:literal, $allowed:expr, |$scenario:ident, $value:ident| $apply:expr) => {
        Rule {
            key: $key,
            allowed: $allowed,
            apply: |$scenario, $value| {
                $apply;
                Some(())
            },
        }
    };
}

impl Rule {
    /// All there are.
    pub const ALL: &'static [Self] = &[
        rule!("min", COUNT, |s, v| s.settings.min = v.parse().ok()?),
        rule!("max", "a whole number, 1 or more", |s, v| s.settings.max =
            positive(v)?),
        rule!("manual", COUNT, |s, v| s.settings.manual =
            Some(v.parse().ok()?)),
        rule!("concurrency", "from 1 to 1000", |s, v| {
            s.settings.concurrency = positive(v).filter(|c| *c <= 1000)?;
        }),
        rule!("cpu", "CPUs, such as 1, 2 or 500m", |s, v| s
            .settings
            .cpus =
            cpus(v)?),
        rule!("memory", "bytes, such as 512Mi or 2Gi", |s, v| s
            .memory_bytes =
            parse_bytes(v)?),
        rule!("cpu-target", TARGET, |s, v| s.targets().cpu = target(v)?),
        rule!("concurrency-target", TARGET, |s, v| s
            .targets()
            .concurrency =
            target(v)?),
        rule!("cpu-always", "true or false", |s, v| s
            .settings
            .cpu_always =
            v.parse().ok()?),
        rule!("idle-timeout", DURATION, |s, v| {
            s.settings.idle_timeout = parse_duration(v).filter(|d| !d.is_zero())?;
        }),
        rule!("timeout", DURATION, |s, v| s.timeout = parse_duration(v)?),
        rule!(
            "start",
            "how long a start takes, such as 800ms or lognormal:p50=1s,p99=4s",
            |s, v| {
                s.start_time = v.parse().ok()?;
            }
        ),
        rule!("stop", DURATION, |s, v| s.stop_time = parse_duration(v)?),
        rule!("start-failures", "a percentage", |s, v| {
            s.start_failures = v
                .trim_end_matches('%')
                .parse()
                .ok()
                .filter(|p| (0.0..=100.0).contains(p))?;
        }),
        rule!("knative", "true", |s, v| {
            v.parse::<bool>().ok().filter(|yes| *yes)?;
            s.knative();
        }),
        rule!("metric", "concurrency or rps", |s, v| {
            s.knative().metric = match v {
                "concurrency" => Metric::Concurrency,
                "rps" => Metric::Rps,
                _ => return None,
            };
        }),
        rule!(
            "target",
            "what one instance is to have, utilization taken into account; 0.01 or more",
            |s, v| {
                s.knative().target = v.parse().ok().filter(|t| *t >= 0.01)?;
            }
        ),
        rule!("window", "from 6s to 1h", |s, v| s.knative().window =
            between(v, 6)?),
        rule!("panic-window", "a percentage from 1 to 100", |s, v| {
            s.knative().panic_window = percent(v, 1.0, 100.0)?;
        }),
        rule!(
            "panic-threshold",
            "a percentage from 110 to 1000",
            |s, v| {
                s.knative().panic_threshold = percent(v, 110.0, 1000.0)?;
            }
        ),
        rule!("scale-down-delay", "from 0s to 1h", |s, v| {
            s.knative().scale_down_delay = between(v, 0)?;
        }),
        rule!("retention", "from 0s to 1h", |s, v| s.knative().retention =
            between(v, 0)?),
        rule!("activation", "a whole number, 1 or more", |s, v| s
            .knative()
            .activation =
            positive(v)?),
    ];
}

fn positive(text: &str) -> Option<u32> {
    text.parse().ok().filter(|n| *n > 0)
}

fn target(text: &str) -> Option<Target> {
    match text {
        "off" | "disabled" => Some(Target::Off),
        "default" => Some(Target::Default),
        share => share
            .parse()
            .ok()
            .filter(|s| (0.1..=0.95).contains(s))
            .map(Target::Share),
    }
}

fn percent(text: &str, least: f64, most: f64) -> Option<f64> {
    let number: f64 = text.trim_end_matches('%').parse().ok()?;
    (least..=most).contains(&number).then_some(number / 100.0)
}

fn between(text: &str, least: u64) -> Option<Duration> {
    let range = Duration::from_secs(least)..=Duration::from_secs(3600);
    parse_duration(text).filter(|d| range.contains(d))
}

fn cpus(text: &str) -> Option<f64> {
    let cpus = match text.strip_suffix('m') {
        Some(millis) => millis.parse::<f64>().ok()? / 1000.0,
        None => text.parse().ok()?,
    };
    (0.01..=1000.0).contains(&cpus).then_some(cpus)
}

/// Bytes, as Kubernetes writes them: `512Mi`, `2Gi`, `1000000`.
#[must_use]
pub fn parse_bytes(text: &str) -> Option<u64> {
    let at = text
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let unit: u64 = match unit {
        "" => 1,
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// A duration with its unit: `250ms`, `1.5s`, `15m`, `1h30m`.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    // What logs hold, without the work of a general parser: seconds.
    let seconds = text.strip_suffix('s').unwrap_or_default();
    if !seconds.is_empty() && seconds.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Duration::try_from_secs_f64(seconds.parse().ok()?).ok();
    }
    let duration: SignedDuration = text.parse().ok()?;
    Duration::try_from(duration).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Scenario {
        Scenario::new("base", Distribution::Constant(Duration::from_secs(1)))
    }

    #[test]
    fn a_scenario_changes_what_it_names() {
        let scenario = base()
            .with("small: max=3, concurrency=10, start=percentiles:p50=1s,p99=2s, memory=1Gi, cpu=500m")
            .unwrap();
        assert_eq!(scenario.name, "small");
        assert_eq!(
            (scenario.settings.max, scenario.settings.concurrency),
            (3, 10)
        );
        assert!(
            matches!(scenario.start_time, Distribution::Percentiles(points) if points.len() == 2)
        );
        assert_eq!(
            (scenario.memory_bytes, scenario.settings.cpus),
            (1 << 30, 0.5)
        );
        let unnamed = base().with("cpu-target=off").unwrap();
        assert_eq!(unnamed.name, "cpu-target=off");
        let knative = base().with("window=30s, target=7").unwrap();
        let Rules::Knative(kpa) = knative.settings.rules else {
            panic!("not Knative's rules");
        };
        assert_eq!((kpa.window, kpa.target), (Duration::from_secs(30), 7.0));
    }

    #[test]
    fn what_makes_no_sense_is_told_by_its_key() {
        for (text, told) in [
            ("max=0", "max=0: must be"),
            ("maxx=1", "'maxx' is no setting; there are min, max"),
            ("max", "'max' is not like"),
            ("cpu-target=off, concurrency-target=off", "one of the two"),
            ("window=1s", "from 6s to 1h"),
        ] {
            let error = base().with(text).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn durations_and_bytes() {
        assert_eq!(parse_duration("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(
            parse_duration("0.000120s"),
            Some(Duration::from_micros(120))
        );
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(parse_duration("-1s"), None);
        assert_eq!(parse_duration("s"), None);
        assert_eq!(parse_bytes("512Mi"), Some(512 << 20));
        assert_eq!(parse_bytes("512MiB"), None);
    }
}
