//! How a revision is scaled, as annotations say it, in both directions: counts, Cloud Run's targets
//! and Knative's pod autoscaler. Each of Knative's keys has two spellings, and the client's comes back.

use std::time::Duration;

use jiff::SignedDuration;
use lauf_model::{KnativeMetric, KnativeScaling, RevisionSpec, ScalingTarget, ScalingTargets};

use super::annotations::{Reader, Writer};

/// A key in the spelling that is written unless the client used the other, and that other.
type Key = [&'static str; 2];

macro_rules! knative {
    ($first:literal, $second:literal) => {
        [
            concat!("autoscaling.knative.dev/", $first),
            concat!("autoscaling.knative.dev/", $second),
        ]
    };
}

// gcloud writes the counts in the older spelling, so that is the one here.
const MIN: Key = knative!("minScale", "min-scale");
const MAX: Key = knative!("maxScale", "max-scale");
const INITIAL: Key = knative!("initial-scale", "initialScale");
const CLASS: Key = knative!("class", "class");
const METRIC: Key = knative!("metric", "metric");
const TARGET: Key = knative!("target", "target");
const UTILIZATION: Key = knative!(
    "target-utilization-percentage",
    "targetUtilizationPercentage"
);
const WINDOW: Key = knative!("window", "window");
const PANIC_WINDOW: Key = knative!("panic-window-percentage", "panicWindowPercentage");
const PANIC_THRESHOLD: Key = knative!("panic-threshold-percentage", "panicThresholdPercentage");
const DELAY: Key = knative!("scale-down-delay", "scaleDownDelay");
const RETENTION: Key = knative!(
    "scale-to-zero-pod-retention-period",
    "scaleToZeroPodRetentionPeriod"
);
const ACTIVATION: Key = knative!("activation-scale", "activationScale");
const ALGORITHM: Key = knative!("metric-aggregation-algorithm", "metricAggregationAlgorithm");
const BURST: Key = knative!("target-burst-capacity", "targetBurstCapacity");
const CPU_TARGET: Key = ["run.googleapis.com/scaling-cpu-target"; 2];
const CONCURRENCY_TARGET: Key = ["run.googleapis.com/scaling-concurrency-target"; 2];

const KPA: &str = "kpa.autoscaling.knative.dev";
const DISABLED: &str = "disabled";

/// What annotations say of a revision's scaling.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Scaling {
    pub(crate) min: u32,
    pub(crate) max: Option<u32>,
    pub(crate) initial: Option<u32>,
    pub(crate) targets: ScalingTargets,
    pub(crate) knative: Option<KnativeScaling>,
}

/// Reads them.
pub(crate) fn read(notes: &mut Reader<'_>) -> Scaling {
    let min = notes.parsed(&MIN, "a whole number, 0 or more", whole, |min| {
        written(min).filter(|_| *min > 0)
    });
    Scaling {
        min: min.unwrap_or(0),
        max: notes.parsed(&MAX, "a whole number, 1 or more", whole, written),
        initial: notes.parsed(&INITIAL, "a whole number, 1 or more", whole, written),
        targets: ScalingTargets {
            cpu: target(notes, &CPU_TARGET),
            concurrency: target(notes, &CONCURRENCY_TARGET),
        },
        knative: knative(notes),
    }
}

fn target(notes: &mut Reader<'_>, key: &Key) -> ScalingTarget {
    let allowed = "from 0.1 to 0.95, or disabled";
    notes
        .parsed(key, allowed, parse_target, write_target)
        .unwrap_or_default()
}

fn parse_target(text: &str) -> Option<ScalingTarget> {
    if text.trim().eq_ignore_ascii_case(DISABLED) {
        return Some(ScalingTarget::Disabled);
    }
    scaled(text, 10_000.0).map(ScalingTarget::Share)
}

fn write_target(target: &ScalingTarget) -> Option<String> {
    match target {
        ScalingTarget::Default => None,
        ScalingTarget::Share(share) => Some((f64::from(*share) / 10_000.0).to_string()),
        ScalingTarget::Disabled => Some(DISABLED.to_owned()),
    }
}

fn knative(notes: &mut Reader<'_>) -> Option<KnativeScaling> {
    let class = notes.parsed(
        &CLASS,
        "kpa.autoscaling.knative.dev: other autoscalers need a Kubernetes cluster. To scale by CPU, \
         leave it out and set run.googleapis.com/scaling-cpu-target",
        |text| (text == KPA).then_some(()),
        |()| None,
    );
    // Knative's default is the one there is.
    let linear = notes.parsed(
        &ALGORITHM,
        "linear: a weighted average is not supported by this version of Lauf",
        |text| (text == "linear").then_some(()),
        |()| None,
    );
    // Every request goes by way of the queue here, whatever burst it is to absorb.
    let burst = notes.parsed(
        &BURST,
        "-1, or a number, 0 or more",
        |text| text.parse().ok().filter(|n: &f64| *n >= 0.0 || *n == -1.0),
        |_| None,
    );
    let percent = "a number with at most two decimals";
    let count = "a whole number, 1 or more";
    let duration = "a duration, such as 90s or 5m";
    let metric = "concurrency or rps: other metrics need a Kubernetes cluster";
    let settings = KnativeScaling {
        metric: notes.parsed(&METRIC, metric, parse_metric, |m| Some(write_metric(*m))),
        target: notes.parsed(&TARGET, percent, hundredths, write_hundredths),
        target_utilization: notes.parsed(&UTILIZATION, percent, hundredths, write_hundredths),
        window: notes.parsed(&WINDOW, duration, parse_duration, write_duration),
        panic_window: notes.parsed(&PANIC_WINDOW, percent, hundredths, write_hundredths),
        panic_threshold: notes.parsed(&PANIC_THRESHOLD, percent, hundredths, write_hundredths),
        scale_down_delay: notes.parsed(&DELAY, duration, parse_duration, write_duration),
        retention: notes.parsed(&RETENTION, duration, parse_duration, write_duration),
        activation_scale: notes.parsed(&ACTIVATION, count, whole, written),
    };
    let said = class.is_some()
        || linear.is_some()
        || burst.is_some()
        || settings != KnativeScaling::default();
    said.then_some(settings)
}

/// Writes them.
pub(crate) fn write(spec: &RevisionSpec, notes: &mut Writer<'_>) {
    let min = spec.min_instances;
    let canonical = (min > 0).then(|| min.to_string());
    notes.parsed(&MIN, &canonical, |text| whole(text) == Some(min));
    count(&MAX, spec.max_instances, notes);
    count(&INITIAL, spec.initial_instances, notes);
    for (key, target) in [
        (&CPU_TARGET, spec.targets.cpu),
        (&CONCURRENCY_TARGET, spec.targets.concurrency),
    ] {
        notes.parsed(key, &write_target(&target), |text| {
            parse_target(text) == Some(target)
        });
    }
    let Some(knative) = &spec.knative else { return };
    // Without any other sign of Knative's rules the class is the sign.
    let alone = (*knative == KnativeScaling::default()).then(|| KPA.to_owned());
    let fixed = |key, canonical, notes: &mut Writer<'_>| {
        // Nothing else is taken, so what was sent still holds.
        notes.parsed(key, canonical, |_| true);
    };
    fixed(&ALGORITHM, &None, notes);
    fixed(&BURST, &None, notes);
    let sign = alone.filter(|_| !notes.has(&ALGORITHM) && !notes.has(&BURST));
    fixed(&CLASS, &sign, notes);
    let metric = knative.metric.map(write_metric);
    notes.parsed(&METRIC, &metric, |text| {
        parse_metric(text) == knative.metric
    });
    for (key, value) in [
        (&TARGET, knative.target),
        (&UTILIZATION, knative.target_utilization),
        (&PANIC_WINDOW, knative.panic_window),
        (&PANIC_THRESHOLD, knative.panic_threshold),
    ] {
        let canonical = value.as_ref().and_then(write_hundredths);
        notes.parsed(key, &canonical, |text| {
            value.is_some() && hundredths(text) == value
        });
    }
    for (key, value) in [
        (&WINDOW, knative.window),
        (&DELAY, knative.scale_down_delay),
        (&RETENTION, knative.retention),
    ] {
        let canonical = value.as_ref().and_then(write_duration);
        notes.parsed(key, &canonical, |text| {
            value.is_some() && parse_duration(text) == value
        });
    }
    count(&ACTIVATION, knative.activation_scale, notes);
}

fn count(key: &Key, value: Option<u32>, notes: &mut Writer<'_>) {
    notes.parsed(key, &value.as_ref().and_then(written), |text| {
        value.is_some() && whole(text) == value
    });
}

fn whole(text: &str) -> Option<u32> {
    text.trim().parse().ok()
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "others have values that are not written"
)]
fn written(count: &u32) -> Option<String> {
    Some(count.to_string())
}

fn parse_metric(text: &str) -> Option<KnativeMetric> {
    match text {
        "concurrency" => Some(KnativeMetric::Concurrency),
        "rps" => Some(KnativeMetric::Rps),
        _ => None,
    }
}

fn write_metric(metric: KnativeMetric) -> String {
    match metric {
        KnativeMetric::Concurrency => "concurrency",
        KnativeMetric::Rps => "rps",
    }
    .to_owned()
}

fn hundredths(text: &str) -> Option<u32> {
    scaled(text, 100.0)
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "others have values that are not written"
)]
fn write_hundredths(value: &u32) -> Option<String> {
    Some((f64::from(*value) / 100.0).to_string())
}

/// A number in units of `1 / scale`, rounded.
fn scaled(text: &str, scale: f64) -> Option<u32> {
    let value = text.trim().parse::<f64>().ok()? * scale;
    let value = value.round();
    if !(0.0..=f64::from(u32::MAX)).contains(&value) {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a whole number between 0 and u32::MAX, checked above"
    )]
    let value = value as u32;
    Some(value)
}

/// A duration as Go writes it: numbers with units, such as `1h30m` or `1.5s`.
fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let go = |c: char| c.is_ascii_digit() || ".hmsun\u{b5}".contains(c);
    let duration: SignedDuration = text.parse().ok().filter(|_| text.chars().all(go))?;
    Duration::try_from(duration).ok()
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "others have values that are not written"
)]
fn write_duration(duration: &Duration) -> Option<String> {
    Some(if duration.subsec_nanos() == 0 {
        format!("{}s", duration.as_secs())
    } else {
        format!("{}ns", duration.as_nanos())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::annotations::Writer;
    use crate::v1::types::Map;
    use lauf_model::{Container, Violation};

    fn map(pairs: &[(&str, &str)]) -> Map {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    fn reads(pairs: &[(&str, &str)]) -> (Scaling, Map, Vec<Violation>) {
        let mut found = Vec::new();
        let sent = map(pairs);
        let mut notes = Reader::new("spec.template.metadata.annotations", &sent, &mut found);
        let scaling = read(&mut notes);
        let (rest, as_sent) = notes.finish();
        assert_eq!(rest, Map::new());
        let spec = RevisionSpec {
            min_instances: scaling.min,
            max_instances: scaling.max,
            initial_instances: scaling.initial,
            targets: scaling.targets,
            knative: scaling.knative.clone(),
            ..RevisionSpec::new(Container::new("i"))
        };
        let mut writer = Writer::new(&rest, &as_sent);
        write(&spec, &mut writer);
        (scaling, writer.finish(), found)
    }

    #[test]
    fn every_setting_is_read_and_comes_back_as_sent() {
        for pairs in [
            &[
                ("run.googleapis.com/scaling-cpu-target", "0.750"),
                ("run.googleapis.com/scaling-concurrency-target", "disabled"),
            ][..],
            &[("autoscaling.knative.dev/min-scale", "2")],
            &[("autoscaling.knative.dev/minScale", "02")],
            &[("autoscaling.knative.dev/min-scale", "0")],
            &[("autoscaling.knative.dev/minScale", "0")],
            &[("autoscaling.knative.dev/class", KPA)],
            &[("autoscaling.knative.dev/target-burst-capacity", "-1")],
            &[
                ("autoscaling.knative.dev/metric", "rps"),
                ("autoscaling.knative.dev/target", "150"),
                (
                    "autoscaling.knative.dev/targetUtilizationPercentage",
                    "70.5",
                ),
                ("autoscaling.knative.dev/window", "1m30s"),
                ("autoscaling.knative.dev/panic-window-percentage", "20.0"),
                ("autoscaling.knative.dev/panic-threshold-percentage", "150"),
                ("autoscaling.knative.dev/scale-down-delay", "15m"),
                (
                    "autoscaling.knative.dev/scaleToZeroPodRetentionPeriod",
                    "1m5s",
                ),
                ("autoscaling.knative.dev/activation-scale", "3"),
                ("autoscaling.knative.dev/initial-scale", "4"),
                (
                    "autoscaling.knative.dev/metric-aggregation-algorithm",
                    "linear",
                ),
            ],
        ] {
            let (_, written, found) = reads(pairs);
            assert_eq!(found, Vec::new());
            assert_eq!(written, map(pairs));
        }
        let (scaling, ..) = reads(&[
            ("autoscaling.knative.dev/window", "1m30s"),
            ("autoscaling.knative.dev/target", "0.5"),
        ]);
        let knative = scaling.knative.unwrap();
        assert_eq!(knative.window, Some(Duration::from_secs(90)));
        assert_eq!(knative.target, Some(50));
        assert_eq!(
            reads(&[("autoscaling.knative.dev/maxScale", "3")])
                .0
                .knative,
            None
        );
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        for (pairs, text) in [
            (
                &[(
                    "autoscaling.knative.dev/class",
                    "hpa.autoscaling.knative.dev",
                )][..],
                "scaling-cpu-target",
            ),
            (
                &[("autoscaling.knative.dev/metric", "memory")],
                "concurrency or rps",
            ),
            (
                &[(
                    "autoscaling.knative.dev/metric-aggregation-algorithm",
                    "weightedExponential",
                )],
                "linear",
            ),
            (&[("autoscaling.knative.dev/window", "PT60S")], "a duration"),
            (&[("autoscaling.knative.dev/target", "many")], "a number"),
            (
                &[("run.googleapis.com/scaling-cpu-target", "60%")],
                "from 0.1 to 0.95",
            ),
            (
                &[
                    ("autoscaling.knative.dev/minScale", "2"),
                    ("autoscaling.knative.dev/min-scale", "1"),
                ],
                "one setting",
            ),
        ] {
            let (_, _, found) = reads(pairs);
            assert_eq!(found.len(), 1, "{pairs:?}");
            assert!(found[0].description.contains(text), "{:?}", found[0]);
            assert!(found[0].field.contains(pairs.last().unwrap().0));
        }
    }
}
