//! Services, v2 and model. A request is turned into v1's form and read there, so that defaults,
//! refusals and spellings are the same in both versions; only the words of the errors differ.

use lauf_model::{RevisionSpec, RevisionTemplate, Service, ServiceSpec, TrafficStatus, Violation};
use lauf_wire::Duration;
use lauf_wire::google::api::LaunchStage;
use lauf_wire::google::cloud::run::v2::{
    self, ExecutionEnvironment as Execution, IngressTraffic as Ingress,
    TrafficTargetAllocationType as Allocation, service_scaling::ScalingMode,
};

use super::container::{number, shown};
use super::shared::{self, EXECUTION, LAUNCH_STAGE, counted, keep_system, known, user_only, users};
use super::{condition, container, says, time};
use crate::refuse;
use crate::services::Desired;
use crate::v1::annotations as key;
use crate::v1::container::Role;
use crate::v1::types::Map;
use crate::v1::{service as v1_service, types as v1};

const AUTOMATIC: &str = "automatic";

/// Reads what a client wants of the service `name`; `old` is the one that it takes the place of.
/// Every violation is added to `found`.
pub(crate) fn read(
    name: &str,
    sent: &v2::Service,
    old: Option<&Service>,
    found: &mut Vec<Violation>,
) -> Desired {
    refuse_service(sent, found);
    user_only("labels", &sent.labels, found);
    user_only("annotations", &sent.annotations, found);
    let mut annotations = sent.annotations.clone();
    let sent_stage = known::<LaunchStage>("launch_stage", sent.launch_stage, found);
    let old_notes = old.map(|old| &old.meta.annotations);
    annotations.extend(shared::stage_note(sent_stage, old_notes));
    let ingress = known::<Ingress>("ingress", sent.ingress, found);
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
        match ingress {
            Ingress::Unspecified | Ingress::All => None,
            Ingress::InternalOnly => Some("internal"),
            Ingress::InternalLoadBalancer => Some("internal-and-cloud-load-balancing"),
            Ingress::None => Some("none"),
        }
        .map(str::to_owned),
    );
    let scaling = sent.scaling.unwrap_or_default();
    let count = |field: &str, value: Option<i32>, found: &mut Vec<Violation>| {
        counted(format!("scaling.{field}"), value?, found)
    };
    let not_zero = |value: i32| (value != 0).then_some(value);
    note(
        key::SERVICE_MIN,
        count(
            "min_instance_count",
            not_zero(scaling.min_instance_count),
            found,
        ),
    );
    note(
        key::SERVICE_MAX,
        count(
            "max_instance_count",
            not_zero(scaling.max_instance_count),
            found,
        ),
    );
    let manual = count(
        "manual_instance_count",
        scaling.manual_instance_count,
        found,
    );
    let mode = known::<ScalingMode>("scaling.scaling_mode", scaling.scaling_mode, found);
    match (mode, manual) {
        (ScalingMode::Manual, None) => found.push(Violation::new(
            "scaling.scaling_mode",
            "is MANUAL, but scaling.manual_instance_count does not say how many instances.",
        )),
        (ScalingMode::Automatic, _) => note(key::SCALING_MODE, Some(AUTOMATIC.to_owned())),
        (_, None) => {}
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
            template: template(
                &sent.template.clone().unwrap_or_default(),
                old_template,
                found,
            ),
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
    keep_system(&old.meta.labels, &mut desired.labels, &[]);
    let fields = [LAUNCH_STAGE];
    keep_system(&old.meta.annotations, &mut desired.annotations, &fields);
    // Which kind of scaling was named is v2's to say too.
    let mode = desired.as_sent.remove(key::SCALING_MODE);
    desired.as_sent.clone_from(&old.meta.as_sent);
    if mode.is_some() || is_automatic(&desired.as_sent) {
        desired.as_sent.remove(key::SCALING_MODE);
        desired
            .as_sent
            .extend(mode.map(|mode| (key::SCALING_MODE.to_owned(), mode)));
    }
    let (was, now) = (&old.spec.template, &mut desired.spec.template);
    keep_system(&was.labels, &mut now.labels, &[]);
    keep_system(&was.annotations, &mut now.annotations, &[EXECUTION]);
    container::keep_spellings(&was.as_sent, &mut now.as_sent);
    now.spec.initial_instances = was.spec.initial_instances;
    now.spec.targets = was.spec.targets;
    now.spec.knative.clone_from(&was.spec.knative);
    shared::keep_container(&was.spec.container, &mut now.spec.container);
}

/// Whether automatic scaling, which there is anyway, was asked for by name.
fn is_automatic(as_sent: &Map) -> bool {
    as_sent
        .get(key::SCALING_MODE)
        .is_some_and(|m| m == AUTOMATIC)
}

fn refuse_service(sent: &v2::Service, found: &mut Vec<Violation>) {
    for (field, said, what) in [
        (
            "binary_authorization",
            says(&sent.binary_authorization),
            "Binary Authorization is",
        ),
        (
            "default_uri_disabled",
            sent.default_uri_disabled,
            "Switching off the default URL is",
        ),
        ("iap_enabled", sent.iap_enabled, "Identity-Aware Proxy is"),
        (
            "multi_region_settings",
            says(&sent.multi_region_settings),
            "A multi-region service is",
        ),
        (
            "custom_audiences",
            says(&sent.custom_audiences),
            "Custom audiences are",
        ),
        (
            "build_config",
            says(&sent.build_config),
            "A build by the service is",
        ),
    ] {
        if said {
            found.push(refuse::violation(field, what));
        }
    }
}

fn refuse_template(sent: &v2::RevisionTemplate, found: &mut Vec<Violation>) {
    const KEY: &str = "A customer's encryption key is";
    for (field, said, what) in [
        ("vpc_access", says(&sent.vpc_access), "VPC access is"),
        ("volumes", says(&sent.volumes), "Volumes are"),
        ("encryption_key", says(&sent.encryption_key), KEY),
        (
            "encryption_key_shutdown_duration",
            says(&sent.encryption_key_shutdown_duration),
            KEY,
        ),
        (
            "encryption_key_revocation_action",
            sent.encryption_key_revocation_action != 0,
            KEY,
        ),
        (
            "service_mesh",
            says(&sent.service_mesh),
            "A service mesh is",
        ),
        (
            "health_check_disabled",
            sent.health_check_disabled,
            "Switching off the health check is",
        ),
        ("node_selector", says(&sent.node_selector), "A GPU is"),
        (
            "gpu_zonal_redundancy_disabled",
            sent.gpu_zonal_redundancy_disabled == Some(true),
            "A GPU is",
        ),
    ] {
        if said {
            found.push(refuse::violation(format!("template.{field}"), what));
        }
    }
}

fn template(
    sent: &v2::RevisionTemplate,
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
    let at = "template.execution_environment";
    let wanted = known::<Execution>(at, sent.execution_environment, found);
    let was = old.map(|old| &old.annotations);
    let environment = shared::environment_note(wanted, was);
    note(EXECUTION, environment.map(|(_, text)| text));
    let scaling = sent.scaling.unwrap_or_default();
    for (key, field, value) in [
        (key::MIN, "min_instance_count", scaling.min_instance_count),
        (key::MAX, "max_instance_count", scaling.max_instance_count),
    ] {
        let count = counted(format!("template.scaling.{field}"), value, found);
        note(key, count.filter(|n| n != "0"));
    }
    note(
        key::SESSION_AFFINITY,
        sent.session_affinity.then(|| true.to_string()),
    );
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
            container_concurrency: number(sent.max_instance_request_concurrency),
            timeout_seconds: sent
                .timeout
                .and_then(|timeout| shared::seconds("template.timeout", timeout, found)),
            service_account_name: sent.service_account.clone(),
            containers: sent
                .containers
                .iter()
                .enumerate()
                .map(|(i, c)| {
                    let at = format!("template.containers[{i}]");
                    container::read(&at, Role::Ingress, c, found)
                })
                .collect(),
            ..v1::RevisionSpec::default()
        },
    }
}

fn traffic_target(
    i: usize,
    sent: &v2::TrafficTarget,
    found: &mut Vec<Violation>,
) -> v1::TrafficTarget {
    let named = !sent.revision.is_empty();
    let kind = known::<Allocation>(&format!("traffic[{i}].type"), sent.r#type, found);
    let wrong = match (kind, named) {
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
        percent: Some(sent.percent.into()),
        tag: Some(sent.tag.clone()),
        ..v1::TrafficTarget::default()
    }
}

/// Writes a service as clients read it.
pub(crate) fn write(service: &Service) -> v2::Service {
    let (meta, spec, status) = (&service.meta, &service.spec, &service.status);
    let name = full_name(service);
    let revision = |revision: &str| match revision {
        "" => String::new(),
        revision => format!("{name}/revisions/{revision}"),
    };
    let (ready, others): (Vec<_>, Vec<_>) =
        status.conditions.iter().partition(|c| c.kind == "Ready");
    let url = Some(status.url.clone()).filter(|url| !url.is_empty());
    v2::Service {
        uid: meta.uid.clone(),
        generation: meta.generation,
        create_time: Some(time(meta.created)),
        update_time: Some(time(meta.updated)),
        delete_time: meta.deleted.map(time),
        creator: meta.creator.clone(),
        last_modifier: meta.last_modifier.clone(),
        observed_generation: status.observed_generation,
        terminal_condition: ready.first().map(|c| condition::write(c)),
        conditions: others.into_iter().map(condition::write).collect(),
        latest_ready_revision: revision(&status.latest_ready_revision),
        latest_created_revision: revision(&status.latest_created_revision),
        traffic_statuses: status.traffic.iter().map(write_traffic_status).collect(),
        urls: url.clone().into_iter().collect(),
        uri: url.unwrap_or_default(),
        reconciling: !super::settled(meta, status.observed_generation, &status.conditions),
        etag: super::etag(meta),
        name,
        ..wanted(service, spec)
    }
}

/// The fields that clients may set.
fn wanted(service: &Service, spec: &ServiceSpec) -> v2::Service {
    let meta = &service.meta;
    let scaling = &spec.scaling;
    let traffic = spec.traffic.iter().map(|target| v2::TrafficTarget {
        r#type: allocation(target.revision.is_none()),
        revision: target.revision.clone().unwrap_or_default(),
        percent: shown(Some(target.percent.into())),
        tag: target.tag.clone().unwrap_or_default(),
    });
    let ingress = match spec.ingress {
        lauf_model::Ingress::All => Ingress::All,
        lauf_model::Ingress::Internal => Ingress::InternalOnly,
        lauf_model::Ingress::InternalAndLoadBalancing => Ingress::InternalLoadBalancer,
    };
    let mode = match scaling.manual_instances {
        Some(_) => ScalingMode::Manual,
        None if is_automatic(&meta.as_sent) => ScalingMode::Automatic,
        None => ScalingMode::Unspecified,
    };
    let scaled = *scaling != lauf_model::Scaling::default() || mode == ScalingMode::Automatic;
    let template = &spec.template;
    v2::Service {
        description: spec.description.clone(),
        labels: users(&meta.labels),
        annotations: users(&meta.annotations),
        client: meta.client.clone(),
        client_version: meta.client_version.clone(),
        ingress: ingress.into(),
        launch_stage: shared::stage(meta.annotations.get(LAUNCH_STAGE)).into(),
        invoker_iam_disabled: spec.invoker_iam_disabled,
        scaling: scaled.then(|| v2::ServiceScaling {
            min_instance_count: shown(Some(scaling.min_instances.into())),
            max_instance_count: shown(scaling.max_instances.map(i64::from)),
            scaling_mode: mode.into(),
            manual_instance_count: scaling.manual_instances.map(|n| shown(Some(n.into()))),
        }),
        template: Some(v2::RevisionTemplate {
            revision: template.name.clone().unwrap_or_default(),
            ..write_template(
                &template.labels,
                &template.annotations,
                &template.as_sent,
                &template.spec,
            )
        }),
        traffic: traffic.collect(),
        ..v2::Service::default()
    }
}

/// Writes what a template and a revision have in common.
pub(crate) fn write_template(
    labels: &Map,
    annotations: &Map,
    as_sent: &Map,
    spec: &RevisionSpec,
) -> v2::RevisionTemplate {
    let form = v1_service::write_revision_spec(spec, as_sent);
    let containers = form.containers.into_iter().map(|form| {
        let mut container = container::write(form);
        if let Some(resources) = &mut container.resources {
            resources.cpu_idle = spec.cpu_throttling;
            resources.startup_cpu_boost = spec.startup_cpu_boost;
        }
        container
    });
    let scaled = spec.min_instances > 0 || spec.max_instances.is_some();
    v2::RevisionTemplate {
        labels: users(labels),
        annotations: users(annotations),
        scaling: scaled.then(|| v2::RevisionScaling {
            min_instance_count: shown(Some(spec.min_instances.into())),
            max_instance_count: shown(spec.max_instances.map(i64::from)),
        }),
        timeout: form
            .timeout_seconds
            .map(|seconds| Duration { seconds, nanos: 0 }),
        service_account: form.service_account_name,
        containers: containers.collect(),
        execution_environment: shared::environment(annotations.get(EXECUTION)).into(),
        max_instance_request_concurrency: shown(form.container_concurrency),
        session_affinity: spec.session_affinity,
        ..v2::RevisionTemplate::default()
    }
}

fn allocation(latest: bool) -> i32 {
    if latest {
        Allocation::Latest.into()
    } else {
        Allocation::Revision.into()
    }
}

fn write_traffic_status(status: &TrafficStatus) -> v2::TrafficTargetStatus {
    v2::TrafficTargetStatus {
        r#type: allocation(status.latest),
        revision: status.revision.clone(),
        percent: shown(Some(status.percent.into())),
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
