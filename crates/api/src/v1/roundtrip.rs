//! v1 and the model are two forms of one thing: what is written reads back the same, and what a
//! client sent in its own spelling comes back as sent.

use std::time::Duration;

use jiff::Timestamp;
use lauf_model::{
    Container, EnvVar, Ingress, KnativeMetric, KnativeScaling, Meta, Port, Probe, ProbeAction,
    Protocol, RevisionSpec, RevisionTemplate, Scaling, ScalingTarget, ScalingTargets, Service,
    ServiceSpec, ServiceStatus, TrafficTarget,
};
use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;

use super::{service, types};

pub(crate) fn word() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9-]{0,8}"
}

pub(crate) fn map() -> impl Strategy<Value = types::Map> {
    btree_map("[a-z]{1,5}\\.dev/[a-z]{1,5}", "[ -~]{0,8}", 0..3)
}

fn probe() -> impl Strategy<Value = Probe> {
    // A probe's own port is never the container's: that is what none means.
    let port = || of(9000..9100_u16);
    let action = prop_oneof![
        port().prop_map(|port| ProbeAction::Tcp { port }),
        (port(), vec((word(), word()), 0..2)).prop_map(|(port, headers)| ProbeAction::Http {
            path: "/ready".to_owned(),
            port,
            headers,
        }),
        (port(), "[a-z.]{0,5}").prop_map(|(port, service)| ProbeAction::Grpc { port, service }),
    ];
    (action, 0..9_u64, 1..9_u64, 1..99_u64, 1..9_u32, 1..3_u32).prop_map(
        |(action, delay, timeout, period, failure_threshold, success_threshold)| Probe {
            action,
            initial_delay: Duration::from_secs(delay),
            timeout: Duration::from_secs(timeout),
            period: Duration::from_secs(period),
            failure_threshold,
            success_threshold,
        },
    )
}

pub(crate) fn container() -> impl Strategy<Value = Container> {
    let texts = || vec("[ -~]{0,8}", 0..3);
    let env = vec(
        (word(), "[ -~]{0,8}").prop_map(|(name, value)| EnvVar { name, value }),
        0..3,
    );
    let port = (1..8999_u16, any::<bool>()).prop_map(|(number, h2c)| Port {
        number,
        protocol: if h2c { Protocol::H2c } else { Protocol::Http1 },
    });
    let amounts = (1..9000_u32, 1..1_u64 << 40);
    let probes = (of(probe()), of(probe()), of(probe()));
    (word(), texts(), texts(), env, port, amounts, probes).prop_map(
        |(name, command, args, env, port, (cpu_millis, memory_bytes), probes)| Container {
            image: format!("{name}:v1"),
            working_dir: format!("/{name}"),
            name,
            command,
            args,
            env,
            port,
            cpu_millis,
            memory_bytes,
            startup_probe: probes.0,
            liveness_probe: probes.1,
            readiness_probe: probes.2,
        },
    )
}

fn target() -> impl Strategy<Value = ScalingTarget> {
    prop_oneof![
        Just(ScalingTarget::Default),
        (1000..9500_u32).prop_map(ScalingTarget::Share),
        Just(ScalingTarget::Disabled),
    ]
}

fn knative() -> impl Strategy<Value = KnativeScaling> {
    let metric = prop_oneof![Just(KnativeMetric::Concurrency), Just(KnativeMetric::Rps)];
    let numbers = (
        of(1..10_000_000_u32),
        of(0..20_000_u32),
        of(0..20_000_u32),
        of(0..99_u32),
    );
    let duration = || of((0..4_000_000_u64).prop_map(Duration::from_millis));
    (
        of(metric),
        numbers,
        of(0..20_000_u32),
        duration(),
        duration(),
        duration(),
    )
        .prop_map(
            |(metric, numbers, panic_threshold, window, scale_down_delay, retention)| {
                KnativeScaling {
                    metric,
                    target: numbers.0,
                    target_utilization: numbers.1,
                    window,
                    panic_window: numbers.2,
                    panic_threshold,
                    scale_down_delay,
                    retention,
                    activation_scale: numbers.3,
                }
            },
        )
        // Of Knative's rules with nothing set there is only what the client wrote to ask for them.
        .prop_filter("says something", |said| *said != KnativeScaling::default())
}

fn template() -> impl Strategy<Value = RevisionTemplate> {
    let counts = (0..9_u32, of(1..99_u32), of(1..9_u32));
    let scale = (counts, target(), target(), of(knative()));
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    let numbers = (1..1000_u32, 1..3600_u64);
    (of(word()), map(), map(), container(), scale, flags, numbers).prop_map(
        |(name, labels, annotations, container, scale, flags, numbers)| RevisionTemplate {
            name,
            labels,
            annotations,
            as_sent: types::Map::new(),
            spec: RevisionSpec {
                service_account: container.name.clone(),
                container,
                concurrency: numbers.0,
                timeout: Duration::from_secs(numbers.1),
                min_instances: scale.0.0,
                max_instances: scale.0.1,
                initial_instances: scale.0.2,
                targets: ScalingTargets {
                    cpu: scale.1,
                    concurrency: scale.2,
                },
                knative: scale.3,
                startup_cpu_boost: flags.0,
                cpu_throttling: flags.1,
                session_affinity: flags.2,
            },
        },
    )
}

/// Any service that can be stored, with every field.
pub(crate) fn a_service() -> impl Strategy<Value = Service> {
    let target =
        (of(word()), 0..=100_u32, of(word())).prop_map(|(revision, percent, tag)| TrafficTarget {
            revision,
            percent,
            tag,
        });
    let scaling = (0..9_u32, of(1..99_u32), of(0..9_u32)).prop_map(|(min, max, manual)| Scaling {
        min_instances: min,
        max_instances: max,
        manual_instances: manual,
    });
    let notes = ("[ -~]{0,8}", any::<bool>(), scaling);
    (word(), map(), map(), template(), vec(target, 1..4), notes).prop_map(
        |(name, labels, annotations, template, traffic, notes)| Service {
            meta: Meta {
                project: "demo".to_owned(),
                region: "us-central1".to_owned(),
                name,
                uid: "u".to_owned(),
                generation: 3,
                created: Timestamp::UNIX_EPOCH,
                updated: Timestamp::UNIX_EPOCH,
                deleted: None,
                creator: "admin".to_owned(),
                last_modifier: "admin".to_owned(),
                client: "gcloud".to_owned(),
                client_version: "1".to_owned(),
                labels,
                annotations,
                as_sent: types::Map::new(),
                kubernetes: None,
            },
            spec: ServiceSpec {
                description: notes.0,
                ingress: Ingress::All,
                invoker_iam_disabled: notes.1,
                scaling: notes.2,
                template,
                traffic,
            },
            status: ServiceStatus::default(),
        },
    )
}

proptest! {
    #[test]
    fn model_to_v1_to_model(before in a_service()) {
        let json = serde_json::to_value(service::write(&before, 1)).unwrap();
        let sent: types::Service = serde_json::from_value(json).unwrap();
        let mut found = Vec::new();
        let read = service::read(&sent, &mut found);
        prop_assert_eq!(found, Vec::new());
        prop_assert_eq!(&read.labels, &before.meta.labels);
        prop_assert_eq!(&read.annotations, &before.meta.annotations);
        prop_assert_eq!(&read.as_sent, &before.meta.as_sent);
        prop_assert_eq!(&read.spec, &before.spec);
        prop_assert_eq!(read.client, before.meta.client);
    }

    #[test]
    fn spellings_come_back(
        boost in "True|true|TRUE|False|false", throttling in "True|true|TRUE|False|false", min in "0{0,2}[0-3]",
        dashed in "0{0,2}[1-9]",
        cpu in "1|1\\.0|1000m|0\\.5|500m", memory in "512Mi|0\\.5Gi|524288Ki|1G",
    ) {
        let mut sent = types::Service::default();
        let template = &mut sent.spec.template;
        template.metadata.annotations = [
            ("run.googleapis.com/startup-cpu-boost", &boost),
            ("run.googleapis.com/cpu-throttling", &throttling),
            ("autoscaling.knative.dev/minScale", &min),
            ("autoscaling.knative.dev/max-scale", &dashed),
            ("autoscaling.knative.dev/target", &dashed),
        ].map(|(key, value)| (key.to_owned(), value.clone())).into();
        template.spec.containers = vec![types::Container::default()];
        template.spec.containers[0].resources.limits =
            [("cpu".to_owned(), cpu.into()), ("memory".to_owned(), memory.into())].into();
        let mut found = Vec::new();
        let read = service::read(&sent, &mut found);
        prop_assert_eq!(found, Vec::new());
        prop_assert_eq!(read.spec.template.spec.max_instances, dashed.parse().ok());
        let written = service::write_template(&read.spec.template);
        prop_assert_eq!(&written.metadata.annotations, &sent.spec.template.metadata.annotations);
        prop_assert_eq!(
            &written.spec.containers[0].resources.limits,
            &sent.spec.template.spec.containers[0].resources.limits
        );
    }
}
