//! What a service must look like before it is stored. Every violation is found, not only the
//! first. Limits are Cloud Run's ("Quotas and limits", "Memory limits", "CPU limits").

mod job;
mod worker_pool;

use std::collections::HashSet;
use std::time::Duration;

pub use job::{MAX_RETRIES, MAX_TASK_TIMEOUT, MAX_TASKS, RESERVED_TASK_ENV, execution, job};
pub use worker_pool::{MAX_INSTANCES, RESERVED_WORKER_ENV, worker_pool};

use crate::quantity::{format_cpu, format_memory};
use crate::revision::DEFAULT_MAX_INSTANCES;
use crate::{
    Container, Probe, ProbeAction, RevisionSpec, ScalingTarget, ScalingTargets, Service, Violation,
};

const CONTAINER: &str = "spec.template.spec.containers[0]";
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// Environment variables that the platform sets itself.
pub const RESERVED_ENV: [&str; 4] = ["PORT", "K_SERVICE", "K_REVISION", "K_CONFIGURATION"];
const MAX_ENV: usize = 1000;
const MAX_ENV_VALUE: usize = 32 * 1024;
const MAX_ARGS: usize = 1000;

/// All violations of a service, in the order of its fields; empty when it may be stored.
#[must_use]
pub fn service(service: &Service) -> Vec<Violation> {
    let mut found = Vec::new();
    service_name(&service.meta.name, &mut found);
    let spec = &service.spec;
    labels("metadata.labels", &service.meta.labels, &mut found);
    labels(
        "spec.template.metadata.labels",
        &spec.template.labels,
        &mut found,
    );
    if let Some(name) = &spec.template.name {
        revision_name(name, &service.meta.name, &mut found);
    }
    container(
        CONTAINER,
        &spec.template.spec.container,
        &RESERVED_ENV,
        &mut found,
    );
    revision_numbers(service, &mut found);
    traffic(service, &mut found);
    found
}

/// Checks a service's name.
pub fn service_name(name: &str, found: &mut Vec<Violation>) {
    resource_name("service", name, found);
}

fn resource_name(kind: &str, name: &str, found: &mut Vec<Violation>) {
    let well_formed = name.len() < 50
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !well_formed {
        found.push(Violation::new(
            "metadata.name",
            format!(
                "'{name}' is not a {kind} name: only lowercase letters, digits and hyphens, \
                 beginning with a letter, not ending with a hyphen, at most 49 characters."
            ),
        ));
    }
}

fn revision_name(name: &str, owner: &str, found: &mut Vec<Violation>) {
    let suffix = name
        .strip_prefix(owner)
        .and_then(|rest| rest.strip_prefix('-'));
    let well_formed = name.len() <= 63
        && suffix.is_some_and(|s| {
            !s.is_empty()
                && !s.ends_with('-')
                && s.bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        });
    if !well_formed {
        found.push(Violation::new(
            "spec.template.metadata.name",
            format!(
                "'{name}' is not a revision name of '{owner}': it must be '{owner}-' and a suffix \
                 of lowercase letters, digits and hyphens, 63 characters in all at most."
            ),
        ));
    }
}

fn labels(
    field: &str,
    labels: &std::collections::BTreeMap<String, String>,
    found: &mut Vec<Violation>,
) {
    for (key, value) in labels {
        let name = key.rsplit('/').next().unwrap_or_default();
        let word = |s: &str| {
            s.len() <= 63
                && s.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        };
        if name.is_empty() || !word(name) || key.len() > 317 {
            found.push(Violation::new(
                format!("{field}[{key}]"),
                "a label key is at most 63 letters, digits, '-', '_' or '.', after an optional \
                 'prefix/'.",
            ));
        }
        if !word(value) {
            found.push(Violation::new(
                format!("{field}[{key}]"),
                format!(
                    "'{value}' is not a label value: at most 63 letters, digits, '-', '_', '.'."
                ),
            ));
        }
    }
}

/// Checks a container that is at path `path` in the request; `reserved` are the variables that the
/// platform sets itself.
fn container(path: &str, container: &Container, reserved: &[&str], found: &mut Vec<Violation>) {
    let at = |field: &str| format!("{path}.{field}");
    if container.image.trim().is_empty() {
        found.push(Violation::new(
            at("image"),
            "is required: name a container image.",
        ));
    }
    for (field, list) in [("command", &container.command), ("args", &container.args)] {
        if list.len() > MAX_ARGS {
            found.push(Violation::new(
                at(field),
                format!(
                    "has {} entries; at most {MAX_ARGS} are allowed.",
                    list.len()
                ),
            ));
        }
        if list.iter().any(|a| a.contains('\0')) {
            found.push(Violation::new(
                at(field),
                "contains a NUL character; remove it.",
            ));
        }
    }
    env(path, container, reserved, found);
    if !container.working_dir.is_empty() && !container.working_dir.starts_with('/') {
        found.push(Violation::new(
            at("workingDir"),
            format!(
                "'{}' must be an absolute path, such as /app.",
                container.working_dir
            ),
        ));
    }
    if container.port.number == 0 {
        found.push(Violation::new(
            at("ports[0].containerPort"),
            "must be from 1 to 65535.",
        ));
    }
    resources(path, container, found);
    for (field, probe, longest) in [
        ("startupProbe", &container.startup_probe, 240),
        ("livenessProbe", &container.liveness_probe, 3600),
        ("readinessProbe", &container.readiness_probe, 300),
    ] {
        if let Some(probe) = probe {
            check_probe(&at(field), probe, Duration::from_secs(longest), found);
            let total = probe.period.saturating_mul(probe.failure_threshold);
            if field == "startupProbe" && total > Duration::from_secs(240) {
                found.push(Violation::new(
                    at(field),
                    format!(
                        "failureThreshold times periodSeconds is {} s; a container must start \
                         within 240 s.",
                        total.as_secs()
                    ),
                ));
            }
        }
    }
}

fn env(path: &str, container: &Container, reserved: &[&str], found: &mut Vec<Violation>) {
    let at = |i: usize, field: &str| format!("{path}.env[{i}].{field}");
    if container.env.len() > MAX_ENV {
        found.push(Violation::new(
            format!("{path}.env"),
            format!(
                "has {} variables; at most {MAX_ENV} are allowed.",
                container.env.len()
            ),
        ));
    }
    let mut seen = HashSet::new();
    for (i, var) in container.env.iter().enumerate() {
        if var.name.is_empty() || var.name.contains(['=', '\0']) {
            found.push(Violation::new(
                at(i, "name"),
                format!(
                    "'{}' is not a variable name: it must not be empty or contain '='.",
                    var.name
                ),
            ));
        } else if reserved.contains(&var.name.as_str()) {
            found.push(Violation::new(
                at(i, "name"),
                format!(
                    "The following reserved env names were provided: {}. These values are \
                     automatically set by the system.",
                    var.name
                ),
            ));
        } else if !seen.insert(&var.name) {
            found.push(Violation::new(
                at(i, "name"),
                format!("'{}' is set twice; keep one.", var.name),
            ));
        }
        if var.value.len() > MAX_ENV_VALUE {
            found.push(Violation::new(
                at(i, "value"),
                format!(
                    "has {} bytes; at most {MAX_ENV_VALUE} are allowed.",
                    var.value.len()
                ),
            ));
        }
        if var.value.contains('\0') {
            found.push(Violation::new(
                at(i, "value"),
                "contains a NUL character; remove it.",
            ));
        }
    }
}

fn resources(path: &str, container: &Container, found: &mut Vec<Violation>) {
    let cpu = container.cpu_millis;
    let memory = container.memory_bytes;
    let allowed = (80..=1000).contains(&cpu) && cpu.is_multiple_of(10)
        || [2000, 4000, 6000, 8000].contains(&cpu);
    if !allowed {
        found.push(Violation::new(
            format!("{path}.resources.limits.cpu"),
            format!(
                "Invalid value specified for cpu: {}. Must be 1, 2, 4, 6 or 8, or from 0.08 to 1 \
                 in steps of 0.01.",
                format_cpu(cpu)
            ),
        ));
        return;
    }
    let (least, most) = match cpu {
        ..500 => (128 * MIB, 512 * MIB),
        500..1000 => (128 * MIB, GIB),
        1000 => (128 * MIB, 4 * GIB),
        2000 => (128 * MIB, 8 * GIB),
        4000 => (2 * GIB, 16 * GIB),
        6000 => (4 * GIB, 24 * GIB),
        _ => (4 * GIB, 32 * GIB),
    };
    if !(least..=most).contains(&memory) {
        found.push(Violation::new(
            format!("{path}.resources.limits.memory"),
            format!(
                "Invalid value specified for memory: {}. With {} CPU it must be from {} to {}.",
                format_memory(memory),
                format_cpu(cpu),
                format_memory(least),
                format_memory(most)
            ),
        ));
    }
}

fn check_probe(at: &str, probe: &Probe, longest: Duration, found: &mut Vec<Violation>) {
    let seconds = |field: &str, value: Duration, least: u64, found: &mut Vec<Violation>| {
        if value < Duration::from_secs(least) || value > longest {
            found.push(Violation::new(
                format!("{at}.{field}"),
                format!(
                    "is {}; must be from {least} to {}.",
                    value.as_secs(),
                    longest.as_secs()
                ),
            ));
        }
    };
    seconds("initialDelaySeconds", probe.initial_delay, 0, found);
    seconds("timeoutSeconds", probe.timeout, 1, found);
    seconds("periodSeconds", probe.period, 1, found);
    if probe.timeout > probe.period {
        found.push(Violation::new(
            format!("{at}.timeoutSeconds"),
            format!(
                "is {}; must not be more than periodSeconds, which is {}.",
                probe.timeout.as_secs(),
                probe.period.as_secs()
            ),
        ));
    }
    if probe.failure_threshold == 0 {
        found.push(Violation::new(
            format!("{at}.failureThreshold"),
            "must be 1 or more.",
        ));
    }
    if let ProbeAction::Http { path, headers, .. } = &probe.action {
        if !path.starts_with('/') {
            found.push(Violation::new(
                format!("{at}.httpGet.path"),
                format!("'{path}' must begin with '/'."),
            ));
        }
        if headers.iter().any(|(n, v)| {
            n.is_empty()
                || !n.bytes().all(|b| b.is_ascii_graphic() && b != b':')
                || v.bytes().any(|b| b < b' ' && b != b'\t')
        }) {
            found.push(Violation::new(
                format!("{at}.httpGet.httpHeaders"),
                "holds a header that is not valid HTTP.",
            ));
        }
    }
}

fn revision_numbers(service: &Service, found: &mut Vec<Violation>) {
    let spec = &service.spec.template.spec;
    if !(1..=1000).contains(&spec.concurrency) {
        found.push(Violation::new(
            "spec.template.spec.containerConcurrency",
            format!("is {}; must be from 1 to 1000.", spec.concurrency),
        ));
    }
    if spec.container.cpu_millis < 1000 && spec.concurrency > 1 {
        found.push(Violation::new(
            "spec.template.spec.containerConcurrency",
            format!(
                "is {}; with less than 1 CPU it must be 1. Set concurrency to 1 or cpu to 1.",
                spec.concurrency
            ),
        ));
    }
    if !(Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&spec.timeout) {
        found.push(Violation::new(
            "spec.template.spec.timeoutSeconds",
            format!("is {}; must be from 1 to 3600.", spec.timeout.as_secs()),
        ));
    }
    let template = "spec.template.metadata.annotations[autoscaling.knative.dev";
    scale(template, spec.min_instances, spec.max_instances, found);
    scaling(spec, found);
    let scaling = &service.spec.scaling;
    scale(
        "metadata.annotations[run.googleapis.com",
        scaling.min_instances,
        scaling.max_instances,
        found,
    );
    if let Some(manual) = scaling.manual_instances.filter(|m| *m > 1000) {
        found.push(Violation::new(
            "metadata.annotations[run.googleapis.com/manualInstanceCount]",
            format!("is {manual}; must be from 0 to 1000."),
        ));
    }
}

/// How a revision is scaled (Cloud Run, "Custom scaling controls"; Knative Serving, "Autoscaling").
fn scaling(spec: &RevisionSpec, found: &mut Vec<Violation>) {
    let at = |key: &str| format!("spec.template.metadata.annotations[{key}]");
    let (cpu, concurrency) = (
        at("run.googleapis.com/scaling-cpu-target"),
        at("run.googleapis.com/scaling-concurrency-target"),
    );
    let targets = &spec.targets;
    for (at, target) in [(&cpu, targets.cpu), (&concurrency, targets.concurrency)] {
        if let ScalingTarget::Share(share) = target
            && !(1_000..=9_500).contains(&share)
        {
            found.push(Violation::new(
                at.clone(),
                format!(
                    "is {}; must be from 0.1 to 0.95, or disabled.",
                    f64::from(share) / 10_000.0
                ),
            ));
        }
    }
    if targets.cpu == ScalingTarget::Disabled && targets.concurrency == ScalingTarget::Disabled {
        found.push(Violation::new(
            concurrency,
            "is disabled, and so is run.googleapis.com/scaling-cpu-target; one of the two must decide.",
        ));
    }
    let most = spec.max_instances.unwrap_or(DEFAULT_MAX_INSTANCES);
    if let Some(initial) = spec.initial_instances
        && !(1..=most).contains(&initial)
    {
        found.push(Violation::new(
            at("autoscaling.knative.dev/initial-scale"),
            format!("is {initial}; must be from 1 to the maximum, which is {most}."),
        ));
    }
    let Some(knative) = &spec.knative else { return };
    if *targets != ScalingTargets::default() {
        found.push(Violation::new(
            cpu,
            "does not go with autoscaling.knative.dev settings other than minScale, maxScale and \
             initial-scale: those have the revision scaled by Knative's rules. Keep one of the two.",
        ));
    }
    let hundredths = |key: &str, value: Option<u32>, least: u32, most: u32, found: &mut Vec<_>| {
        if let Some(value) = value.filter(|v| !(least * 100..=most * 100).contains(v)) {
            found.push(Violation::new(
                at(&format!("autoscaling.knative.dev/{key}")),
                format!(
                    "is {}; must be from {least} to {most}.",
                    f64::from(value) / 100.0
                ),
            ));
        }
    };
    let percent = knative.target_utilization;
    hundredths("target-utilization-percentage", percent, 1, 100, found);
    hundredths(
        "panic-window-percentage",
        knative.panic_window,
        1,
        100,
        found,
    );
    let percent = knative.panic_threshold;
    hundredths("panic-threshold-percentage", percent, 110, 1000, found);
    if knative.target == Some(0) {
        found.push(Violation::new(
            at("autoscaling.knative.dev/target"),
            "is less than 0.01, the least.",
        ));
    }
    let seconds = |key: &str, value: Option<Duration>, least, found: &mut Vec<_>| {
        let range = Duration::from_secs(least)..=Duration::from_secs(3600);
        if let Some(value) = value.filter(|v| !range.contains(v)) {
            found.push(Violation::new(
                at(&format!("autoscaling.knative.dev/{key}")),
                format!("is {value:?}; must be from {least}s to 1h."),
            ));
        }
    };
    seconds("window", knative.window, 6, found);
    seconds("scale-down-delay", knative.scale_down_delay, 0, found);
    let retention = knative.retention;
    seconds("scale-to-zero-pod-retention-period", retention, 0, found);
    for (key, value) in [
        ("window", knative.window),
        ("scale-down-delay", knative.scale_down_delay),
    ] {
        if value.is_some_and(|v| v.subsec_nanos() > 0) {
            found.push(Violation::new(
                at(&format!("autoscaling.knative.dev/{key}")),
                "must be a whole number of seconds.",
            ));
        }
    }
    if let Some(scale) = knative.activation_scale
        && !(1..=most).contains(&scale)
    {
        found.push(Violation::new(
            at("autoscaling.knative.dev/activation-scale"),
            format!("is {scale}; must be from 1 to the maximum, which is {most}."),
        ));
    }
}

fn scale(prefix: &str, min: u32, max: Option<u32>, found: &mut Vec<Violation>) {
    if max == Some(0) {
        found.push(Violation::new(
            format!("{prefix}/maxScale]"),
            "must be 1 or more.",
        ));
    } else if let Some(max) = max.filter(|max| min > *max) {
        found.push(Violation::new(
            format!("{prefix}/minScale]"),
            format!("is {min}; must not be more than maxScale, which is {max}."),
        ));
    }
}

fn traffic(service: &Service, found: &mut Vec<Violation>) {
    let targets = &service.spec.traffic;
    if targets.is_empty() {
        return;
    }
    let sum: u64 = targets.iter().map(|t| u64::from(t.percent)).sum();
    if sum != 100 {
        found.push(Violation::new(
            "spec.traffic",
            format!("Traffic targets must sum to 100 percent, but sum to {sum}."),
        ));
    }
    let mut tags = HashSet::new();
    for (i, target) in targets.iter().enumerate() {
        if let Some(tag) = &target.tag {
            let well_formed = tag.len() <= 46
                && tag.starts_with(|c: char| c.is_ascii_lowercase())
                && !tag.ends_with('-')
                && tag
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            if !well_formed {
                found.push(Violation::new(
                    format!("spec.traffic[{i}].tag"),
                    format!(
                        "'{tag}' is not a tag: lowercase letters, digits and hyphens, beginning \
                         with a letter, at most 46 characters."
                    ),
                ));
            }
            if !tags.insert(tag) {
                found.push(Violation::new(
                    format!("spec.traffic[{i}].tag"),
                    format!("'{tag}' is used by two targets; a tag names one revision."),
                ));
            }
        }
    }
}
