//! Services: v1 and model, both directions, side by side.

use std::time::Duration;

use jiff::Timestamp;
use lauf_model::revision::{DEFAULT_CONCURRENCY, DEFAULT_TIMEOUT_SECONDS};
use lauf_model::{
    Condition, ConditionStatus, Ingress, Meta, RevisionSpec, RevisionTemplate, Scaling, Service,
    ServiceSpec, Severity, TrafficStatus, TrafficTarget, Violation,
};

use super::annotations::{self as key, Reader, Writer};
use super::autoscaling;
use super::container::{self, Role};
use super::types::{self, Map};
use crate::refuse;
use crate::services::{Desired, everything_to_latest};

/// The label that says where a resource is.
pub(crate) const LOCATION: &str = "cloud.googleapis.com/location";

/// Reads what a client wants of a service. Every violation is added to `found`.
pub(crate) fn read(sent: &types::Service, found: &mut Vec<Violation>) -> Desired {
    if let Some(kind) = sent.kind.as_deref().filter(|k| *k != "Service") {
        found.push(Violation::new(
            "kind",
            format!("'{kind}' does not belong here; it must be Service."),
        ));
    }
    if let Some(version) = sent
        .api_version
        .as_deref()
        .filter(|v| *v != types::API_VERSION)
    {
        found.push(Violation::new(
            "apiVersion",
            format!(
                "'{version}' is not served here; it must be {}.",
                types::API_VERSION
            ),
        ));
    }
    let mut notes = Reader::new("metadata.annotations", &sent.metadata.annotations, found);
    notes.refuse(&refuse::SERVICE);
    let description = notes.text(key::DESCRIPTION);
    let client = notes.text(key::CLIENT_NAME);
    let client_version = notes.text(key::CLIENT_VERSION);
    let invoker_iam_disabled = notes.bool(key::INVOKER_IAM_DISABLED, false);
    let ingress = ingress(&mut notes);
    let scaling = scaling(&mut notes);
    let (annotations, as_sent) = notes.finish();

    let mut labels = sent.metadata.labels.clone();
    labels.remove(LOCATION);
    let template = template(&sent.spec.template, found);
    let traffic = sent
        .spec
        .traffic
        .iter()
        .enumerate()
        .map(|(i, target)| traffic_target(i, target, found))
        .collect::<Vec<_>>();
    Desired {
        name: sent.metadata.name.clone().unwrap_or_default(),
        labels,
        annotations,
        as_sent,
        client,
        client_version,
        spec: ServiceSpec {
            description,
            ingress,
            invoker_iam_disabled,
            scaling,
            template,
            traffic: if traffic.is_empty() {
                everything_to_latest()
            } else {
                traffic
            },
        },
    }
}

/// Writes a service as clients read it.
pub(crate) fn write(service: &Service, version: u64) -> types::Service {
    let meta = &service.meta;
    let spec = &service.spec;
    let mut notes = Writer::new(&meta.annotations, &meta.as_sent);
    notes.text(key::DESCRIPTION, &spec.description);
    notes.text(key::CLIENT_NAME, &meta.client);
    notes.text(key::CLIENT_VERSION, &meta.client_version);
    notes.text(key::CREATOR, &meta.creator);
    notes.text(key::LAST_MODIFIER, &meta.last_modifier);
    notes.bool(key::INVOKER_IAM_DISABLED, spec.invoker_iam_disabled, false);
    notes.text(key::INGRESS, ingress_word(spec.ingress));
    notes.text(key::INGRESS_STATUS, ingress_word(spec.ingress));
    if !service.status.url.is_empty() {
        let urls = serde_json::Value::from(vec![service.status.url.clone()]);
        notes.text(key::URLS, &urls.to_string());
    }
    write_scaling(&spec.scaling, &mut notes);
    types::Service {
        api_version: Some(types::API_VERSION.to_owned()),
        kind: Some("Service".to_owned()),
        metadata: types::ObjectMeta {
            annotations: notes.finish(),
            ..metadata(meta, version, "services")
        },
        spec: types::ServiceSpec {
            template: write_template(&spec.template),
            traffic: spec.traffic.iter().map(write_target).collect(),
        },
        status: status(service),
    }
}

/// The metadata that services, revisions and their views have in common.
pub(crate) fn metadata(meta: &Meta, version: u64, plural: &str) -> types::ObjectMeta {
    metadata_in(types::API_VERSION, meta, version, plural)
}

/// The metadata that all resources have in common.
pub(crate) fn metadata_in(
    api_version: &str,
    meta: &Meta,
    version: u64,
    plural: &str,
) -> types::ObjectMeta {
    let mut labels = meta.labels.clone();
    labels.insert(LOCATION.to_owned(), meta.region.clone());
    types::ObjectMeta {
        name: Some(meta.name.clone()),
        namespace: Some(meta.project.clone()),
        self_link: Some(format!(
            "/apis/{api_version}/namespaces/{}/{plural}/{}",
            meta.project, meta.name
        )),
        uid: Some(meta.uid.clone()),
        resource_version: Some(version.to_string()),
        generation: Some(meta.generation),
        creation_timestamp: Some(time(meta.created)),
        deletion_timestamp: meta.deleted.map(time),
        labels,
        ..types::ObjectMeta::default()
    }
}

/// Writes a time as the API does, in UTC with microseconds.
pub(crate) fn time(at: Timestamp) -> String {
    format!("{at:.6}")
}

/// Writes the conditions of a resource. While it is being deleted it has not failed: clients that wait
/// for its end take a failure for one of the deletion.
pub(crate) fn conditions_of(meta: &Meta, all: &[Condition]) -> Vec<types::Condition> {
    let mut written = conditions(all);
    if meta.deleted.is_some() {
        for failed in written.iter_mut().filter(|c| c.status == "False") {
            failed.status = ConditionStatus::Unknown.as_str();
            "Deleting".clone_into(&mut failed.reason);
        }
    }
    written
}

/// Writes conditions.
pub(crate) fn conditions(conditions: &[Condition]) -> Vec<types::Condition> {
    conditions
        .iter()
        .map(|c| types::Condition {
            kind: c.kind.clone(),
            status: c.status.as_str(),
            reason: c.reason.clone(),
            message: c.message.clone(),
            last_transition_time: time(c.last_transition),
            severity: match c.severity {
                Severity::Error => "",
                Severity::Warning => "Warning",
                Severity::Info => "Info",
            },
        })
        .collect()
}

fn status(service: &Service) -> types::ServiceStatus {
    let status = &service.status;
    let observed = (status.observed_generation > 0).then_some(status.observed_generation);
    types::ServiceStatus {
        observed_generation: observed,
        conditions: conditions_of(&service.meta, &status.conditions),
        latest_created_revision_name: status.latest_created_revision.clone(),
        latest_ready_revision_name: status.latest_ready_revision.clone(),
        traffic: write_traffic_status(&status.traffic),
        url: status.url.clone(),
        address: (!status.url.is_empty()).then(|| types::Address {
            url: status.url.clone(),
        }),
    }
}

/// Writes where requests go now.
pub(crate) fn write_traffic_status(traffic: &[TrafficStatus]) -> Vec<types::TrafficTarget> {
    traffic
        .iter()
        .map(|t| types::TrafficTarget {
            revision_name: Some(t.revision.clone()),
            percent: (t.percent > 0 || t.tag.is_none()).then_some(i64::from(t.percent)),
            latest_revision: t.latest.then_some(true),
            tag: t.tag.clone(),
            url: t.url.clone(),
            ..types::TrafficTarget::default()
        })
        .collect()
}

fn ingress(notes: &mut Reader<'_>) -> Ingress {
    const WORDS: [&str; 3] = ["all", "internal", "internal-and-cloud-load-balancing"];
    match notes.word(key::INGRESS, &WORDS) {
        None | Some("all") => Ingress::All,
        Some(word) => {
            notes.wrong(
                key::INGRESS,
                word,
                "all, for now: other settings are not supported by this version of Lauf",
            );
            Ingress::All
        }
    }
}

fn ingress_word(ingress: Ingress) -> &'static str {
    match ingress {
        Ingress::All => "all",
        Ingress::Internal => "internal",
        Ingress::InternalAndLoadBalancing => "internal-and-cloud-load-balancing",
    }
}

fn scaling(notes: &mut Reader<'_>) -> Scaling {
    let min_instances = notes.count_or_zero(key::SERVICE_MIN);
    let max_instances = notes.count(key::SERVICE_MAX);
    let mode = notes.word(key::SCALING_MODE, &["automatic", "manual"]);
    let count = notes.count(key::MANUAL_COUNT);
    let manual_instances = match (mode, count) {
        (Some("automatic"), _) => {
            notes.keep(key::SCALING_MODE, "automatic".to_owned(), None);
            None
        }
        (Some("manual"), None) => {
            notes.wrong(
                key::SCALING_MODE,
                "manual",
                "automatic unless run.googleapis.com/manualInstanceCount says how many instances",
            );
            None
        }
        (_, count) => count,
    };
    Scaling {
        min_instances,
        max_instances,
        manual_instances,
    }
}

fn write_scaling(scaling: &Scaling, notes: &mut Writer<'_>) {
    notes.count_or_zero(key::SERVICE_MIN, scaling.min_instances);
    notes.count(key::SERVICE_MAX, scaling.max_instances);
    let manual = scaling.manual_instances;
    notes.value(
        key::SCALING_MODE,
        manual.is_some().then(|| "manual".to_owned()),
        |text| (text == "manual") == manual.is_some(),
    );
    notes.count(key::MANUAL_COUNT, manual);
}

fn template(sent: &types::RevisionTemplate, found: &mut Vec<Violation>) -> RevisionTemplate {
    let at = "spec.template.spec";
    check_pod(at, &sent.spec, found);
    let annotated = &sent.metadata.annotations;
    let mut notes = Reader::new("spec.template.metadata.annotations", annotated, found);
    notes.refuse(&refuse::REVISION);
    let scaling = autoscaling::read(&mut notes);
    let startup_cpu_boost = notes.bool(key::STARTUP_BOOST, false);
    let session_affinity = notes.bool(key::SESSION_AFFINITY, false);
    let cpu_throttling = notes.bool(key::CPU_THROTTLING, true);
    let (annotations, mut as_sent) = notes.finish();

    let none = types::Container::default();
    let first = sent.spec.containers.first();
    let at_first = format!("{at}.containers[0]");
    let first = first.unwrap_or(&none);
    let container = container::read(Role::Ingress, &at_first, first, &mut as_sent, found);
    let unset = |value: Option<i64>| value.filter(|v| *v != 0);
    let concurrency = unset(sent.spec.container_concurrency).unwrap_or(
        // Less than one CPU serves one request at a time.
        if container.cpu_millis < 1000 {
            1
        } else {
            i64::from(DEFAULT_CONCURRENCY)
        },
    );
    let timeout = unset(sent.spec.timeout_seconds).unwrap_or(i64::from(DEFAULT_TIMEOUT_SECONDS));
    let mut number = |field: &str, value: i64, most: u32| {
        u32::try_from(value).unwrap_or_else(|_| {
            found.push(Violation::new(
                format!("{at}.{field}"),
                format!("is {value}; must be from 1 to {most}."),
            ));
            1
        })
    };
    let concurrency = number("containerConcurrency", concurrency, 1000);
    let timeout = number("timeoutSeconds", timeout, 3600);
    RevisionTemplate {
        name: sent.metadata.name.clone().filter(|n| !n.is_empty()),
        labels: sent.metadata.labels.clone(),
        annotations,
        as_sent,
        spec: RevisionSpec {
            container,
            concurrency,
            timeout: Duration::from_secs(u64::from(timeout)),
            min_instances: scaling.min,
            max_instances: scaling.max,
            initial_instances: scaling.initial,
            targets: scaling.targets,
            knative: scaling.knative,
            service_account: sent.spec.service_account_name.clone(),
            startup_cpu_boost,
            session_affinity,
            cpu_throttling,
        },
    }
}

/// Refuses what a revision's spec asks for and no container of ours has.
pub(crate) fn check_pod(at: &str, sent: &types::RevisionSpec, found: &mut Vec<Violation>) {
    for (field, value, what) in [
        ("volumes", &sent.volumes, "Volumes are"),
        ("nodeSelector", &sent.node_selector, "A GPU is"),
        (
            "imagePullSecrets",
            &sent.image_pull_secrets,
            "A pull secret is",
        ),
        (
            "runtimeClassName",
            &sent.runtime_class_name,
            "A runtime class is",
        ),
        (
            "initContainers",
            &sent.init_containers,
            "An init container is",
        ),
        ("affinity", &sent.affinity, "Affinity is"),
        ("tolerations", &sent.tolerations, "A toleration is"),
    ] {
        refuse::field(format!("{at}.{field}"), value, what, found);
    }
    check_containers(at, sent.containers.len(), found);
}

/// Wants exactly one container.
pub(crate) fn check_containers(at: &str, count: usize, found: &mut Vec<Violation>) {
    match count {
        1 => {}
        0 => found.push(Violation::new(
            format!("{at}.containers"),
            "is empty; exactly one container is run.",
        )),
        many => found.push(Violation::new(
            format!("{at}.containers"),
            format!(
                "has {many} containers; sidecars are not supported by this version of Lauf, so \
                 keep the one that does the work."
            ),
        )),
    }
}

/// Writes a template.
pub(crate) fn write_template(template: &RevisionTemplate) -> types::RevisionTemplate {
    types::RevisionTemplate {
        metadata: types::ObjectMeta {
            name: template.name.clone(),
            labels: template.labels.clone(),
            annotations: write_revision_notes(
                &template.annotations,
                &template.as_sent,
                &template.spec,
            ),
            ..types::ObjectMeta::default()
        },
        spec: write_revision_spec(&template.spec, &template.as_sent),
    }
}

/// Writes the annotations of a template or revision.
pub(crate) fn write_revision_notes(rest: &Map, as_sent: &Map, spec: &RevisionSpec) -> Map {
    let mut notes = Writer::new(rest, as_sent);
    autoscaling::write(spec, &mut notes);
    notes.bool(key::STARTUP_BOOST, spec.startup_cpu_boost, false);
    notes.bool(key::SESSION_AFFINITY, spec.session_affinity, false);
    notes.bool(key::CPU_THROTTLING, spec.cpu_throttling, true);
    notes.finish()
}

/// Writes what a revision runs.
pub(crate) fn write_revision_spec(spec: &RevisionSpec, as_sent: &Map) -> types::RevisionSpec {
    types::RevisionSpec {
        container_concurrency: Some(i64::from(spec.concurrency)),
        timeout_seconds: i64::try_from(spec.timeout.as_secs()).ok(),
        service_account_name: spec.service_account.clone(),
        containers: vec![container::write(Role::Ingress, &spec.container, as_sent)],
        ..types::RevisionSpec::default()
    }
}

fn traffic_target(
    i: usize,
    sent: &types::TrafficTarget,
    found: &mut Vec<Violation>,
) -> TrafficTarget {
    let revision = sent.revision_name.clone().filter(|name| !name.is_empty());
    let latest = sent.latest_revision.unwrap_or(false);
    if latest && revision.is_some() {
        found.push(Violation::new(
            format!("spec.traffic[{i}]"),
            "has both revisionName and latestRevision: true; keep one.",
        ));
    }
    if !latest && revision.is_none() {
        found.push(Violation::new(
            format!("spec.traffic[{i}]"),
            "names no revision; set revisionName or latestRevision: true.",
        ));
    }
    let percent = sent.percent.unwrap_or(0);
    let percent = u32::try_from(percent)
        .ok()
        .filter(|p| *p <= 100)
        .unwrap_or_else(|| {
            found.push(Violation::new(
                format!("spec.traffic[{i}].percent"),
                format!("is {percent}; must be from 0 to 100."),
            ));
            0
        });
    TrafficTarget {
        revision: if latest { None } else { revision },
        percent,
        tag: sent.tag.clone().filter(|tag| !tag.is_empty()),
    }
}

fn write_target(target: &TrafficTarget) -> types::TrafficTarget {
    types::TrafficTarget {
        revision_name: target.revision.clone(),
        latest_revision: target.revision.is_none().then_some(true),
        percent: (target.percent > 0 || target.tag.is_none()).then_some(i64::from(target.percent)),
        tag: target.tag.clone(),
        ..types::TrafficTarget::default()
    }
}
