//! Services, v2 and model. A request is turned into v1's form and read there, so that defaults,
//! refusals and spellings are the same in both versions; only the words of the errors differ.

use lauf_model::{
    ConditionStatus, Probe as ModelProbe, RevisionSpec, RevisionTemplate, Service, ServiceSpec,
    TrafficStatus, Violation,
};
use serde_json::Value;

use super::types::{self, Allocation, Execution, Ingress, LaunchStage, Map, ScalingMode};
use super::wire::{Output, Seconds};
use super::{condition, container};
use crate::refuse;
use crate::services::Desired;
use crate::v1::annotations as key;
use crate::v1::{service as v1_service, types as v1};

pub(crate) const LAUNCH_STAGE: &str = "run.googleapis.com/launch-stage";
const EXECUTION: &str = "run.googleapis.com/execution-environment";
/// The keys of labels and annotations that are the system's: v2 neither shows nor takes them.
const SYSTEM: [&str; 4] = [
    "run.googleapis.com/",
    "cloud.googleapis.com/",
    "serving.knative.dev/",
    "autoscaling.knative.dev/",
];

/// Reads what a client wants of the service `name`; `old` is the one that it takes the place of.
/// Every violation is added to `found`.
pub(crate) fn read(
    name: &str,
    sent: &types::Service,
    old: Option<&Service>,
    found: &mut Vec<Violation>,
) -> Desired {
    refuse_service(sent, found);
    user_only("labels", &sent.labels, found);
    user_only("annotations", &sent.annotations, found);
    let mut annotations = sent.annotations.clone();
    annotations.extend(stage_note(sent.launch_stage, old));
    let mut note = |key: &str, value: Option<String>| {
        if let Some(value) = value.filter(|v| !v.is_empty()) {
            annotations.insert(key.to_owned(), value);
        }
    };
    note(key::DESCRIPTION, Some(sent.description.clone()));
    note(key::CLIENT_NAME, Some(sent.client.clone()));
    note(key::CLIENT_VERSION, Some(sent.client_version.clone()));
    note(
        key::INVOKER_IAM_DISABLED,
        sent.invoker_iam_disabled.then(|| true.to_string()),
    );
    note(
        key::INGRESS,
        match sent.ingress {
            Ingress::Unspecified | Ingress::All => None,
            Ingress::Internal => Some("internal"),
            Ingress::LoadBalancer => Some("internal-and-cloud-load-balancing"),
            Ingress::None => Some("none"),
        }
        .map(str::to_owned),
    );
    let scaling = &sent.scaling;
    let count = |field: &str, value: Option<i64>, found: &mut Vec<Violation>| {
        let at = format!("scaling.{field}");
        counted(at, value, found)
    };
    let min = count("minInstanceCount", scaling.min_instance_count, found);
    note(key::SERVICE_MIN, min.filter(|n| n != "0"));
    let max = count("maxInstanceCount", scaling.max_instance_count, found);
    note(key::SERVICE_MAX, max.filter(|n| n != "0"));
    let manual = count("manualInstanceCount", scaling.manual_instance_count, found);
    match (scaling.scaling_mode, manual) {
        (ScalingMode::Manual, None) => found.push(Violation::new(
            "scaling.scalingMode",
            "is MANUAL, but scaling.manualInstanceCount does not say how many instances.",
        )),
        (ScalingMode::Automatic, _) | (_, None) => {}
        (_, manual) => {
            note(key::SCALING_MODE, Some("manual".to_owned()));
            note(key::MANUAL_COUNT, manual);
        }
    }

    let old_template = old.map(|old| &old.spec.template);
    let traffic = sent
        .traffic
        .iter()
        .enumerate()
        .map(|(i, target)| traffic_target(i, target, found))
        .collect();
    let form = v1::Service {
        metadata: v1::ObjectMeta {
            name: Some(name.to_owned()),
            labels: sent.labels.clone(),
            annotations,
            ..v1::ObjectMeta::default()
        },
        spec: v1::ServiceSpec {
            template: template(&sent.template, old_template, found),
            traffic,
        },
        ..v1::Service::default()
    };
    let mut desired = v1_service::read(&form, found);
    if let Some(old) = old {
        keep(old, &mut desired);
    }
    desired
}

/// What v2 has no words for stays as v1 has it.
fn keep(old: &Service, desired: &mut Desired) {
    let system_too = |old: &Map, new: &mut Map, fields: &[&str]| {
        for (key, value) in old {
            if is_system(key) && !fields.contains(&key.as_str()) {
                new.insert(key.clone(), value.clone());
            }
        }
    };
    system_too(&old.meta.labels, &mut desired.labels, &[]);
    let fields = [LAUNCH_STAGE];
    system_too(&old.meta.annotations, &mut desired.annotations, &fields);
    desired.as_sent.clone_from(&old.meta.as_sent);
    let was = &old.spec.template;
    let template = &mut desired.spec.template;
    system_too(&was.labels, &mut template.labels, &[]);
    let fields = [EXECUTION, key::CLIENT_NAME, key::CLIENT_VERSION];
    system_too(&was.annotations, &mut template.annotations, &fields);
    let limits = [key::CPU_LIMIT, key::MEMORY_LIMIT];
    for (key, value) in &was.as_sent {
        if !limits.contains(&key.as_str()) {
            template.as_sent.insert(key.clone(), value.clone());
        }
    }
    let was = &was.spec.container;
    let container = &mut template.spec.container;
    let threshold = |was: &Option<ModelProbe>, now: &mut Option<ModelProbe>| {
        if let (Some(was), Some(now)) = (was, now) {
            now.success_threshold = was.success_threshold;
        }
    };
    threshold(&was.startup_probe, &mut container.startup_probe);
    threshold(&was.liveness_probe, &mut container.liveness_probe);
    threshold(&was.readiness_probe, &mut container.readiness_probe);
}

fn is_system(key: &str) -> bool {
    SYSTEM.iter().any(|prefix| key.starts_with(prefix))
}

fn user_only(at: &str, sent: &Map, found: &mut Vec<Violation>) {
    for key in sent.keys().filter(|key| is_system(key)) {
        found.push(Violation::new(
            format!("{at}[{key}]"),
            "is a key of the system's, which v2 does not take; set the field that stands for it.",
        ));
    }
}

fn shown(all: &Map) -> Map {
    let user = all.iter().filter(|(key, _)| !is_system(key));
    user.map(|(k, v)| (k.clone(), v.clone())).collect()
}

fn refuse_service(sent: &types::Service, found: &mut Vec<Violation>) {
    for (field, value, what) in [
        (
            "binaryAuthorization",
            &sent.binary_authorization,
            "Binary Authorization is",
        ),
        (
            "defaultUriDisabled",
            &sent.default_uri_disabled,
            "Switching off the default URL is",
        ),
        ("iapEnabled", &sent.iap_enabled, "Identity-Aware Proxy is"),
        (
            "multiRegionSettings",
            &sent.multi_region_settings,
            "A multi-region service is",
        ),
        (
            "customAudiences",
            &sent.custom_audiences,
            "Custom audiences are",
        ),
        (
            "buildConfig",
            &sent.build_config,
            "A build by the service is",
        ),
    ] {
        refuse::field(field.to_owned(), value, what, found);
    }
}

fn refuse_template(sent: &types::Template, found: &mut Vec<Violation>) {
    for (field, value, what) in [
        ("vpcAccess", &sent.vpc_access, "VPC access is"),
        ("volumes", &sent.volumes, "Volumes are"),
        (
            "encryptionKey",
            &sent.encryption_key,
            "A customer's encryption key is",
        ),
        (
            "encryptionKeyShutdownDuration",
            &sent.encryption_key_shutdown_duration,
            "A customer's encryption key is",
        ),
        ("serviceMesh", &sent.service_mesh, "A service mesh is"),
        (
            "sessionAffinity",
            &sent.session_affinity,
            "Session affinity is",
        ),
        (
            "healthCheckDisabled",
            &sent.health_check_disabled,
            "Switching off the health check is",
        ),
        ("nodeSelector", &sent.node_selector, "A GPU is"),
        (
            "gpuZonalRedundancyDisabled",
            &sent.gpu_zonal_redundancy_disabled,
            "A GPU is",
        ),
    ] {
        refuse::field(format!("template.{field}"), value, what, found);
    }
    if sent.encryption_key_revocation_action != types::Revocation::Unspecified {
        found.push(refuse::violation(
            "template.encryptionKeyRevocationAction",
            "A customer's encryption key is",
        ));
    }
}

/// The annotation that a launch stage is in v1. The spelling that was there stays while it means
/// the same.
fn stage_note(sent: LaunchStage, old: Option<&Service>) -> Option<(String, String)> {
    let was = old.and_then(|old| old.meta.annotations.get(LAUNCH_STAGE));
    let text = match was {
        Some(text) if stage(Some(text)) == sent => text.clone(),
        _ => match sent {
            LaunchStage::Unspecified | LaunchStage::Ga => return None,
            other => other.name().to_owned(),
        },
    };
    Some((LAUNCH_STAGE.to_owned(), text))
}

/// The launch stage that an annotation says.
pub(crate) fn stage(note: Option<&String>) -> LaunchStage {
    let text = note.map(|text| Value::String(text.to_ascii_uppercase()));
    text.and_then(|text| serde_json::from_value(text).ok())
        .unwrap_or(LaunchStage::Ga)
}

fn counted(at: String, value: Option<i64>, found: &mut Vec<Violation>) -> Option<String> {
    let value = value?;
    if u32::try_from(value).is_err() {
        found.push(Violation::new(
            at,
            format!("is {value}; must be 0 or more, and not that large."),
        ));
        return None;
    }
    Some(value.to_string())
}

fn template(
    sent: &types::Template,
    old: Option<&RevisionTemplate>,
    found: &mut Vec<Violation>,
) -> v1::RevisionTemplate {
    refuse_template(sent, found);
    user_only("template.labels", &sent.labels, found);
    user_only("template.annotations", &sent.annotations, found);
    let mut annotations = sent.annotations.clone();
    let mut note = |key: &str, value: Option<String>| {
        if let Some(value) = value.filter(|v| !v.is_empty()) {
            annotations.insert(key.to_owned(), value);
        }
    };
    let environment = match sent.execution_environment {
        Execution::Unspecified => None,
        Execution::Gen1 => Some("gen1".to_owned()),
        Execution::Gen2 => Some("gen2".to_owned()),
    };
    // A word that v2 does not know reads as unspecified, and stays when it comes back so.
    let was = old.and_then(|old| old.annotations.get(EXECUTION));
    let same = was.filter(|was| execution(Some(was)) == sent.execution_environment);
    note(EXECUTION, same.cloned().or(environment));
    note(key::CLIENT_NAME, Some(sent.client.clone()));
    note(key::CLIENT_VERSION, Some(sent.client_version.clone()));
    let scaling = &sent.scaling;
    let at = "template.scaling.minInstanceCount".to_owned();
    let min = counted(at, scaling.min_instance_count, found);
    note(key::MIN, min.filter(|n| n != "0"));
    let at = "template.scaling.maxInstanceCount".to_owned();
    let max = counted(at, scaling.max_instance_count, found);
    note(key::MAX, max.filter(|n| n != "0"));
    let resources = sent.containers.first().and_then(|c| c.resources.as_ref());
    if let Some(resources) = resources {
        // Whoever says anything of resources says whether CPU is idle between requests.
        note(
            key::CPU_THROTTLING,
            (!resources.cpu_idle).then(|| false.to_string()),
        );
        note(
            key::STARTUP_BOOST,
            resources.startup_cpu_boost.then(|| true.to_string()),
        );
    }
    v1::RevisionTemplate {
        metadata: v1::ObjectMeta {
            name: Some(sent.revision.clone()).filter(|name| !name.is_empty()),
            labels: sent.labels.clone(),
            annotations,
            ..v1::ObjectMeta::default()
        },
        spec: v1::RevisionSpec {
            container_concurrency: sent.max_instance_request_concurrency,
            timeout_seconds: sent.timeout.map(|Seconds(seconds)| seconds),
            service_account_name: sent.service_account.clone(),
            containers: sent
                .containers
                .iter()
                .enumerate()
                .map(|(i, c)| container::read(i, c, found))
                .collect(),
            ..v1::RevisionSpec::default()
        },
    }
}

fn traffic_target(
    i: usize,
    sent: &types::TrafficTarget,
    found: &mut Vec<Violation>,
) -> v1::TrafficTarget {
    let named = !sent.revision.is_empty();
    let wrong = match (sent.kind, named) {
        (Allocation::Latest, true) => Some("has both a revision and the type for the latest"),
        (Allocation::Revision, false) => Some("names no revision, which its type asks for"),
        (Allocation::Unspecified, false) => Some("has neither a type nor a revision"),
        _ => None,
    };
    if let Some(wrong) = wrong {
        found.push(Violation::new(
            format!("traffic[{i}]"),
            format!(
                "{wrong}; set TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST, or \
                 TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION and a revision."
            ),
        ));
    }
    let by_name = named && wrong.is_none();
    v1::TrafficTarget {
        revision_name: by_name.then(|| sent.revision.clone()),
        latest_revision: Some(!by_name),
        percent: sent.percent,
        tag: Some(sent.tag.clone()),
        ..v1::TrafficTarget::default()
    }
}

/// Writes a service as clients read it.
pub(crate) fn write(service: &Service) -> types::Service {
    let (meta, spec, status) = (&service.meta, &service.spec, &service.status);
    let name = full_name(service);
    let revision = |revision: &str| {
        let some = Some(revision).filter(|r| !r.is_empty());
        Output(some.map(|r| format!("{name}/revisions/{r}")))
    };
    let (ready, others): (Vec<_>, Vec<_>) =
        status.conditions.iter().partition(|c| c.kind == "Ready");
    let url = Some(status.url.clone()).filter(|url| !url.is_empty());
    types::Service {
        uid: meta.uid.clone().into(),
        generation: meta.generation.to_string().into(),
        create_time: v1_service::time(meta.created).into(),
        update_time: v1_service::time(meta.updated).into(),
        delete_time: Output(meta.deleted.map(v1_service::time)),
        creator: meta.creator.clone().into(),
        last_modifier: meta.last_modifier.clone().into(),
        observed_generation: status.observed_generation.to_string().into(),
        terminal_condition: Output(ready.first().map(|c| condition::write(c))),
        conditions: others
            .iter()
            .map(|c| condition::write(c))
            .collect::<Vec<_>>()
            .into(),
        latest_ready_revision: revision(&status.latest_ready_revision),
        latest_created_revision: revision(&status.latest_created_revision),
        traffic_statuses: status
            .traffic
            .iter()
            .map(write_traffic_status)
            .collect::<Vec<_>>()
            .into(),
        urls: Output(url.clone().map(|url| vec![url])),
        uri: Output(url),
        reconciling: Output(Some(!settled(service)).filter(|busy| *busy)),
        etag: super::etag(service),
        name,
        ..wanted(service, spec)
    }
}

/// Whether nothing is under way: the controllers are done with the current generation.
pub(crate) fn settled(service: &Service) -> bool {
    let ready = lauf_model::condition::find(&service.status.conditions, "Ready");
    service.meta.deleted.is_none()
        && service.status.observed_generation >= service.meta.generation
        && ready.is_some_and(|c| c.status != ConditionStatus::Unknown)
}

/// The fields that clients may set.
fn wanted(service: &Service, spec: &ServiceSpec) -> types::Service {
    let meta = &service.meta;
    let scaling = &spec.scaling;
    let traffic = spec.traffic.iter().map(|target| types::TrafficTarget {
        kind: match target.revision {
            Some(_) => Allocation::Revision,
            None => Allocation::Latest,
        },
        revision: target.revision.clone().unwrap_or_default(),
        percent: (target.percent > 0).then(|| target.percent.into()),
        tag: target.tag.clone().unwrap_or_default(),
    });
    types::Service {
        description: spec.description.clone(),
        labels: shown(&meta.labels),
        annotations: shown(&meta.annotations),
        client: meta.client.clone(),
        client_version: meta.client_version.clone(),
        ingress: match spec.ingress {
            lauf_model::Ingress::All => Ingress::All,
            lauf_model::Ingress::Internal => Ingress::Internal,
            lauf_model::Ingress::InternalAndLoadBalancing => Ingress::LoadBalancer,
        },
        launch_stage: stage(meta.annotations.get(LAUNCH_STAGE)),
        invoker_iam_disabled: spec.invoker_iam_disabled,
        scaling: types::ServiceScaling {
            min_instance_count: (scaling.min_instances > 0).then(|| scaling.min_instances.into()),
            max_instance_count: scaling.max_instances.map(i64::from),
            scaling_mode: match scaling.manual_instances {
                Some(_) => ScalingMode::Manual,
                None => ScalingMode::Unspecified,
            },
            manual_instance_count: scaling.manual_instances.map(i64::from),
        },
        template: {
            let template = &spec.template;
            types::Template {
                revision: template.name.clone().unwrap_or_default(),
                ..write_template(
                    &template.labels,
                    &template.annotations,
                    &template.as_sent,
                    &template.spec,
                )
            }
        },
        traffic: traffic.collect(),
        ..types::Service::default()
    }
}

/// Writes what a template and a revision have in common.
pub(crate) fn write_template(
    labels: &Map,
    annotations: &Map,
    as_sent: &Map,
    spec: &RevisionSpec,
) -> types::Template {
    let form = v1_service::write_revision_spec(spec, as_sent);
    let note = |key: &str| annotations.get(key).cloned().unwrap_or_default();
    let resources = |container: &v1::Container| types::Resources {
        limits: container
            .resources
            .limits
            .iter()
            .map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned()))
            .collect(),
        cpu_idle: spec.cpu_throttling,
        startup_cpu_boost: spec.startup_cpu_boost,
    };
    let containers = form.containers.into_iter().map(|c| types::Container {
        resources: Some(resources(&c)),
        ..container::write(c)
    });
    types::Template {
        labels: shown(labels),
        annotations: shown(annotations),
        scaling: types::RevisionScaling {
            min_instance_count: (spec.min_instances > 0).then(|| spec.min_instances.into()),
            max_instance_count: spec.max_instances.map(i64::from),
        },
        timeout: form.timeout_seconds.map(Seconds),
        service_account: form.service_account_name,
        containers: containers.collect(),
        execution_environment: execution(annotations.get(EXECUTION)),
        max_instance_request_concurrency: form.container_concurrency,
        client: note(key::CLIENT_NAME),
        client_version: note(key::CLIENT_VERSION),
        ..types::Template::default()
    }
}

fn execution(note: Option<&String>) -> Execution {
    match note.map(String::as_str) {
        Some("gen1") => Execution::Gen1,
        Some("gen2") => Execution::Gen2,
        _ => Execution::Unspecified,
    }
}

fn write_traffic_status(status: &TrafficStatus) -> types::TrafficStatus {
    types::TrafficStatus {
        kind: if status.latest {
            Allocation::Latest
        } else {
            Allocation::Revision
        },
        revision: status.revision.clone(),
        percent: status.percent,
        tag: status.tag.clone().unwrap_or_default(),
        uri: status.url.clone().unwrap_or_default(),
    }
}

/// `projects/P/locations/L/services/S`.
pub(crate) fn full_name(service: &Service) -> String {
    let meta = &service.meta;
    format!(
        "projects/{}/locations/{}/services/{}",
        meta.project, meta.region, meta.name
    )
}
