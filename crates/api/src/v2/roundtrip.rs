//! v2 and the model are two forms of one thing: what is written reads back the same, what a client
//! sent comes back as sent, and what only v1 can say survives a way through v2.

use lauf_model::{Meta, Service, ServiceStatus};
use lauf_wire::google::cloud::run::v2;
use lauf_wire::{DynamicMessage, dynamic};
use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;
use prost::Message as _;
use prost_reflect::Value;

use super::service;
use crate::services::Desired;
use crate::v1::roundtrip::a_service;

/// A message as it comes over the wire.
fn sent(message: &v2::Service) -> v2::Service {
    v2::Service::decode(message.encode_to_vec().as_slice()).unwrap()
}

proptest! {
    #[test]
    fn model_to_v2_to_model(
        mut before in a_service(), system in any::<bool>(), known in any::<bool>(),
    ) {
        if system {
            let notes = &mut before.meta.annotations;
            notes.insert("run.googleapis.com/launch-stage".to_owned(), "BETA".to_owned());
            let notes = &mut before.spec.template.annotations;
            let environment = "run.googleapis.com/execution-environment".to_owned();
            notes.insert(environment, "gen2".to_owned());
        }
        if known {
            // What v2 has no words for.
            let labels = &mut before.meta.labels;
            labels.insert("run.googleapis.com/x".to_owned(), "y".to_owned());
            let sent = [("run.googleapis.com/cpu-throttling".to_owned(), "True".to_owned())];
            before.spec.template.as_sent = sent.into();
        } else {
            before.spec.template.spec.targets = Default::default();
            before.spec.template.spec.knative = None;
            before.spec.template.spec.initial_instances = None;
            let container = &mut before.spec.template.spec.container;
            for probe in [
                &mut container.startup_probe, &mut container.liveness_probe,
                &mut container.readiness_probe,
            ].into_iter().flatten() {
                probe.success_threshold = 1;
            }
        }
        let message = sent(&service::write(&before));
        let mut found = Vec::new();
        let old = known.then_some(&before);
        let read = service::read(&before.meta.name, &message, old, &mut found);
        prop_assert_eq!(found, Vec::new());
        prop_assert_eq!(&read.labels, &before.meta.labels);
        prop_assert_eq!(&read.annotations, &before.meta.annotations);
        prop_assert_eq!(&read.as_sent, &before.meta.as_sent);
        prop_assert_eq!(&read.spec, &before.spec);
        prop_assert_eq!(read.client, before.meta.client);
    }

    #[test]
    fn v2_to_model_to_v2(message in a_message(), before in a_service()) {
        // As a new service, and in place of any other.
        for old in [None, Some(&before)] {
            let mut found = Vec::new();
            let desired = service::read("hello", &sent(&message), old, &mut found);
            prop_assert_eq!(found, Vec::new());
            let made = applied(desired, &before.meta);
            is_in(&dynamic(&message), &dynamic(&service::write(&made)))?;
        }
    }

    /// Any service that v1 may have made, updated through v2 with what v2 shows of it and one change
    /// that v2 can make, is what it was but for that.
    #[test]
    fn v1_to_v2_to_v1(before in a_service(), description in "[a-z ]{0,9}") {
        let mut message = service::write(&before);
        message.description.clone_from(&description);
        let mut found = Vec::new();
        let name = &before.meta.name;
        let desired = service::read(name, &sent(&message), Some(&before), &mut found);
        prop_assert_eq!(found, Vec::new());
        let mut wanted = before.clone();
        wanted.spec.description = description;
        let after = applied(desired, &before.meta);
        let v1 = |service: &Service| {
            let form = crate::v1::service::write(service, 7);
            serde_json::to_value((form.metadata, form.spec)).unwrap()
        };
        prop_assert_eq!(v1(&after), v1(&wanted));
    }
}

fn applied(desired: Desired, meta: &Meta) -> Service {
    Service {
        meta: Meta {
            labels: desired.labels,
            annotations: desired.annotations,
            as_sent: desired.as_sent,
            client: desired.client,
            client_version: desired.client_version,
            ..meta.clone()
        },
        spec: desired.spec,
        status: ServiceStatus::default(),
    }
}

/// Whether everything that `sent` says is in `got`, which may have defaults besides.
fn is_in(sent: &DynamicMessage, got: &DynamicMessage) -> Result<(), TestCaseError> {
    for (field, value) in sent.fields() {
        let there = got.get_field(&field);
        match (value, there.as_ref()) {
            (Value::Message(sent), Value::Message(got)) => is_in(sent, got)?,
            (Value::List(sent), Value::List(got)) => {
                prop_assert_eq!(sent.len(), got.len(), "{}", field.full_name());
                for pair in sent.iter().zip(got) {
                    match pair {
                        (Value::Message(sent), Value::Message(got)) => is_in(sent, got)?,
                        (sent, got) => prop_assert_eq!(sent, got, "{}", field.full_name()),
                    }
                }
            }
            (sent, got) => prop_assert_eq!(sent, got, "{}", field.full_name()),
        }
    }
    Ok(())
}

fn map() -> impl Strategy<Value = std::collections::BTreeMap<String, String>> {
    btree_map("[a-z]{1,5}\\.dev/[a-zA-Z]{1,5}", "[ -~]{0,8}", 0..3)
}

/// Services as clients of v2 send them: amounts in any spelling, much left out.
fn a_message() -> impl Strategy<Value = v2::Service> {
    let texts = ("[ -~]{0,12}", map(), map(), "[a-z]{0,5}", "[0-9.]{0,5}");
    let choices = (
        // What else there is of ingress is refused for now.
        0..2_i32,
        prop::sample::select(vec![3, 4, 2]),
        0..5_i32,
        of(1..9_i32),
        0..2_i32,
        any::<bool>(),
    );
    (texts, choices, a_template()).prop_map(|(texts, choices, template)| {
        let (description, labels, annotations, client, client_version) = texts;
        let (ingress, launch_stage, min_instance_count, manual, mode, invoker_iam_disabled) =
            choices;
        v2::Service {
            description,
            labels,
            annotations,
            client,
            client_version,
            ingress,
            launch_stage,
            invoker_iam_disabled,
            scaling: Some(v2::ServiceScaling {
                min_instance_count,
                manual_instance_count: manual,
                scaling_mode: if manual.is_some() { 2 } else { mode },
                ..Default::default()
            }),
            template: Some(template),
            traffic: vec![v2::TrafficTarget {
                r#type: 1,
                percent: 100,
                tag: "live".to_owned(),
                ..Default::default()
            }],
            ..Default::default()
        }
    })
}

fn a_template() -> impl Strategy<Value = v2::RevisionTemplate> {
    let texts = (map(), map(), "([a-z]{1,5}@[a-z]{1,5})?");
    let counts = (
        0..3_i32,
        of(3..9_i32),
        of(1..3600_i64),
        0..1000_i32,
        0..3_i32,
    );
    (texts, counts, a_container()).prop_map(|(texts, counts, container)| {
        let (labels, annotations, service_account) = texts;
        let (min, max, timeout, concurrency, environment) = counts;
        v2::RevisionTemplate {
            labels,
            annotations,
            service_account,
            scaling: Some(v2::RevisionScaling {
                min_instance_count: min,
                max_instance_count: max.unwrap_or_default(),
            }),
            timeout: timeout.map(|seconds| lauf_wire::Duration { seconds, nanos: 0 }),
            max_instance_request_concurrency: concurrency,
            session_affinity: concurrency % 2 == 1,
            execution_environment: environment,
            containers: vec![container],
            ..Default::default()
        }
    })
}

fn a_container() -> impl Strategy<Value = v2::Container> {
    let words = || vec("[ -~]{0,8}", 0..3);
    let limits = prop::sample::select(vec![
        [("cpu", "1"), ("memory", "0.5Gi")],
        [("cpu", "1000m"), ("memory", "512Mi")],
        [("cpu", "2.0"), ("memory", "1G")],
    ]);
    let env = btree_map("[A-Z]{1,5}", "[ -~]{0,8}", 0..3);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (words(), words(), env, limits, flags, of(a_probe())).prop_map(
        |(command, args, env, limits, (cpu_idle, startup_cpu_boost, h2c), liveness_probe)| {
            let limits = limits.iter().map(|(k, v)| (k.to_string(), v.to_string()));
            v2::Container {
                image: "hello".to_owned(),
                command,
                args,
                env: env
                    .into_iter()
                    .map(|(name, value)| v2::EnvVar {
                        name,
                        values: Some(v2::env_var::Values::Value(value)),
                    })
                    .collect(),
                resources: Some(v2::ResourceRequirements {
                    limits: limits.collect(),
                    cpu_idle,
                    startup_cpu_boost,
                }),
                ports: vec![v2::ContainerPort {
                    name: if h2c { "h2c" } else { "http1" }.to_owned(),
                    container_port: 9000,
                }],
                liveness_probe,
                ..Default::default()
            }
        },
    )
}

fn a_probe() -> impl Strategy<Value = v2::Probe> {
    use v2::probe::ProbeType;
    let kind = prop_oneof![
        (0..9_i32).prop_map(|port| ProbeType::TcpSocket(v2::TcpSocketAction { port })),
        ("/[a-z]{0,5}", 0..9_i32).prop_map(|(path, port)| {
            let header = v2::HttpHeader {
                name: "X".to_owned(),
                value: "y".to_owned(),
            };
            ProbeType::HttpGet(v2::HttpGetAction {
                path,
                port,
                http_headers: vec![header],
            })
        }),
        ("[a-z]{0,5}", 0..9_i32)
            .prop_map(|(service, port)| ProbeType::Grpc(v2::GrpcAction { port, service })),
    ];
    (kind, 0..9_i32, 0..9_i32, 9..99_i32, 0..9_i32).prop_map(
        |(probe_type, delay, timeout, period, failures)| v2::Probe {
            initial_delay_seconds: delay,
            timeout_seconds: timeout,
            period_seconds: period,
            failure_threshold: failures,
            probe_type: Some(probe_type),
        },
    )
}
