//! What a running service has shown: its requests, how long its starts took, and its settings.

use std::time::Duration;

use anyhow::{Result, bail};
use lauf_simulate::{Distribution, Scenario, parse_duration};
use serde_json::{Value, json};

use super::START;
use crate::client::http::Api;
use crate::client::logs;
use crate::client::service::{self, text};

/// Starts read at most, the newest.
const STARTS: usize = 1000;

/// What was learned.
pub(super) struct Learned {
    /// The requests, as lines of JSON.
    pub(super) requests: Vec<u8>,
    /// The settings.
    pub(super) scenario: Scenario,
    count: usize,
    starts: usize,
}

impl Learned {
    /// What was learned, for people.
    pub(super) fn said(&self) -> String {
        let starts = match self.starts {
            0 => format!("no starts (assuming {} s)", START.as_secs()),
            n => format!("{n} starts"),
        };
        format!("Learned from {} requests and {starts}.", self.count)
    }
}

/// Learns from a service.
pub(super) async fn from_service(
    api: &Api,
    name: &str,
    revision: Option<&str>,
    limit: usize,
) -> Result<Learned> {
    let service = service::read(api, name).await?;
    let filter = logs::filter(api, name, revision, None);
    let requests = format!("{filter} AND httpRequest.status > 0");
    let requests = logs::last(api, &requests, limit).await?;
    if requests.is_empty() {
        bail!("{name} has logged no requests yet; send it some, or name a log");
    }
    let started = format!("{filter} AND labels.\"lauf.dev/started-in\":*");
    let started = logs::last(api, &started, STARTS).await?;
    let took: Vec<Duration> = started
        .iter()
        .filter_map(|entry| parse_duration(text(entry, "/labels/lauf.dev~1started-in")))
        .collect();
    let starts = took.len();
    let start_time = Distribution::of(took).unwrap_or(Distribution::Constant(START));
    Ok(Learned {
        count: requests.len(),
        starts,
        requests: lines(&requests),
        scenario: settings(&service, name, start_time)?,
    })
}

/// What a simulation needs of entries, one a line.
fn lines(entries: &[Value]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        let line = json!({
            "timestamp": entry["timestamp"],
            "httpRequest": {
                "status": entry["httpRequest"]["status"],
                "latency": entry["httpRequest"]["latency"],
            },
            "resource": { "labels": entry["resource"]["labels"] },
            "labels": entry.get("labels").cloned().unwrap_or_else(|| json!({})),
        });
        out.extend_from_slice(line.to_string().as_bytes());
        out.push(b'\n');
    }
    out
}

/// The settings of a service's template.
fn settings(service: &Value, name: &str, start_time: Distribution) -> Result<Scenario> {
    let mut scenario = Scenario::new(name, start_time);
    let template = &service["spec"]["template"];
    let spec = &template["spec"];
    let note = |key: &str| {
        let notes = &template["metadata"]["annotations"];
        notes[format!("autoscaling.knative.dev/{key}")].as_str()
    };
    let own = |key: &str| {
        let notes = &template["metadata"]["annotations"];
        notes[format!("run.googleapis.com/{key}")].as_str()
    };
    let wide = |key: &str| {
        let notes = &service["metadata"]["annotations"];
        notes[format!("run.googleapis.com/{key}")].as_str()
    };
    let limit = |key: &str| spec["containers"][0]["resources"]["limits"][key].as_str();
    let number = |value: &Value| value.as_i64().map(|n| n.to_string());
    let mut set = |key: &str, value: Option<&str>| match value {
        Some(value) => scenario.set(&format!("{key}={value}")),
        None => Ok(()),
    };
    set(
        "min",
        note("minScale").or(note("min-scale")).or(wide("minScale")),
    )?;
    set(
        "max",
        note("maxScale").or(note("max-scale")).or(wide("maxScale")),
    )?;
    set("manual", wide("manualInstanceCount"))?;
    set(
        "concurrency",
        number(&spec["containerConcurrency"]).as_deref(),
    )?;
    let timeout = number(&spec["timeoutSeconds"]).map(|s| format!("{s}s"));
    set("timeout", timeout.as_deref())?;
    set("cpu", limit("cpu"))?;
    set("memory", limit("memory"))?;
    set("cpu-target", own("scaling-cpu-target"))?;
    set("concurrency-target", own("scaling-concurrency-target"))?;
    let throttled = own("cpu-throttling").is_none_or(|text| !text.eq_ignore_ascii_case("false"));
    set("cpu-always", (!throttled).then_some("true"))?;
    if note("class").is_some() {
        set("knative", Some("true"))?;
    }
    let either = |kebab: &str, camel: &str| note(kebab).or(note(camel));
    set("metric", note("metric"))?;
    let utilization = either(
        "target-utilization-percentage",
        "targetUtilizationPercentage",
    );
    if note("target").is_some() || utilization.is_some() {
        let concurrency = spec["containerConcurrency"].as_f64().unwrap_or(80.0);
        let rps = note("metric") == Some("rps");
        let most = if rps { 200.0 } else { concurrency };
        let target = note("target").and_then(|t| t.parse().ok()).unwrap_or(most);
        let target = if rps { target } else { target.min(concurrency) };
        let percent: f64 = utilization.and_then(|t| t.parse().ok()).unwrap_or(70.0);
        let aim = (target * percent / 100.0).max(0.01);
        set("target", Some(&aim.to_string()))?;
    }
    set("window", note("window"))?;
    let (kebab, camel) = ("panic-window-percentage", "panicWindowPercentage");
    set("panic-window", either(kebab, camel))?;
    let (kebab, camel) = ("panic-threshold-percentage", "panicThresholdPercentage");
    set("panic-threshold", either(kebab, camel))?;
    set(
        "scale-down-delay",
        either("scale-down-delay", "scaleDownDelay"),
    )?;
    let (kebab, camel) = (
        "scale-to-zero-pod-retention-period",
        "scaleToZeroPodRetentionPeriod",
    );
    set("retention", either(kebab, camel))?;
    set("activation", either("activation-scale", "activationScale"))?;
    Ok(scenario)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_those_of_the_service() {
        let service = json!({
            "metadata": { "annotations": { "run.googleapis.com/maxScale": "9" } },
            "spec": { "template": {
                "metadata": { "annotations": {
                    "autoscaling.knative.dev/min-scale": "2",
                    "autoscaling.knative.dev/target": "30",
                    "autoscaling.knative.dev/window": "90s",
                    "run.googleapis.com/cpu-throttling": "false",
                } },
                "spec": {
                    "containerConcurrency": 20,
                    "timeoutSeconds": 60,
                    "containers": [{ "resources": { "limits": { "cpu": "2", "memory": "1Gi" } } }],
                },
            } },
        });
        let scenario = settings(&service, "hello", Distribution::Constant(START)).unwrap();
        let set = &scenario.settings;
        assert_eq!((set.min, set.max, set.concurrency), (2, 9, 20));
        assert!(set.cpu_always && (set.cpus - 2.0).abs() < 1e-9);
        assert_eq!(scenario.memory_bytes, 1 << 30);
        assert_eq!(scenario.timeout, Duration::from_secs(60));
        let lauf_scale::Rules::Knative(kpa) = &set.rules else {
            panic!("not Knative's rules");
        };
        assert!(
            (kpa.target - 14.0).abs() < 1e-9,
            "70 % of the 20 that an instance can have"
        );
        assert_eq!(kpa.window, Duration::from_secs(90));
    }
}
