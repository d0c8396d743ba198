//! Containers and probes, v2 and v1's form, both directions.

use std::collections::BTreeMap;

use lauf_model::Violation;
use lauf_wire::google::cloud::run::v2::{self, env_var::Values, probe::ProbeType};
use serde_json::Value;

use super::says;
use crate::refuse;
use crate::v1::annotations::{CPU_LIMIT, MEMORY_LIMIT};
use crate::v1::container::Role;
use crate::v1::types as v1;

/// Reads the container at the path `at` into v1's form.
pub(crate) fn read(
    at: &str,
    role: Role,
    sent: &v2::Container,
    found: &mut Vec<Violation>,
) -> v1::Container {
    let resources = sent.resources.as_ref();
    for (field, said) in [
        ("cpu_idle", resources.is_some_and(|r| r.cpu_idle)),
        (
            "startup_cpu_boost",
            resources.is_some_and(|r| r.startup_cpu_boost),
        ),
    ] {
        if said && role == Role::Worker {
            found.push(Violation::new(
                format!("{at}.resources.{field}"),
                "is only for services: this container gets no requests. Leave it out.",
            ));
        }
    }
    for (field, said, what) in [
        ("source_code", says(&sent.source_code), "Source code is"),
        ("volume_mounts", says(&sent.volume_mounts), "Volumes are"),
        (
            "depends_on",
            says(&sent.depends_on),
            "A second container is",
        ),
        (
            "base_image_uri",
            says(&sent.base_image_uri),
            "Automatic base image updates are",
        ),
    ] {
        if said {
            found.push(refuse::violation(format!("{at}.{field}"), what));
        }
    }
    let limits = sent.resources.iter().flat_map(|r| &r.limits);
    v1::Container {
        name: sent.name.clone(),
        image: sent.image.clone(),
        command: sent.command.clone(),
        args: sent.args.clone(),
        working_dir: sent.working_dir.clone(),
        env: read_env(at, &sent.env, found),
        ports: sent
            .ports
            .iter()
            .map(|port| v1::Port {
                name: Some(port.name.clone()),
                container_port: number(port.container_port),
                protocol: None,
            })
            .collect(),
        resources: v1::Resources {
            limits: limits.map(|(k, v)| (k.clone(), v.clone().into())).collect(),
            requests: BTreeMap::new(),
        },
        startup_probe: sent.startup_probe.as_ref().map(probe),
        liveness_probe: sent.liveness_probe.as_ref().map(probe),
        readiness_probe: sent.readiness_probe.as_ref().map(probe),
        ..v1::Container::default()
    }
}

/// Reads the variables of what is at the path `at`.
pub(crate) fn read_env(
    at: &str,
    sent: &[v2::EnvVar],
    found: &mut Vec<Violation>,
) -> Vec<v1::EnvVar> {
    let vars = sent.iter().enumerate().map(|(j, var)| {
        let value = match &var.values {
            Some(Values::Value(value)) => Some(value.clone()),
            Some(Values::ValueSource(_)) => {
                let at = format!("{at}.env[{j}].value_source");
                found.push(refuse::violation(at, "Secrets are"));
                None
            }
            None => None,
        };
        v1::EnvVar {
            name: var.name.clone(),
            value,
            value_from: Value::Null,
        }
    });
    vars.collect()
}

/// Keeps the spellings of what v2 has no words for. Those of limits are v2's to say.
pub(crate) fn keep_spellings(was: &v1::Map, now: &mut v1::Map) {
    for (key, value) in was {
        if ![CPU_LIMIT, MEMORY_LIMIT].contains(&key.as_str()) {
            now.insert(key.clone(), value.clone());
        }
    }
}

/// A number that is not said when it is zero.
pub(crate) fn number(value: i32) -> Option<i64> {
    (value != 0).then(|| value.into())
}

/// The number that is written for one that may not be there. None is larger than v1 lets through.
pub(crate) fn shown(value: Option<i64>) -> i32 {
    value.and_then(|v| v.try_into().ok()).unwrap_or_default()
}

fn probe(sent: &v2::Probe) -> v1::Probe {
    let mut form = v1::Probe {
        initial_delay_seconds: number(sent.initial_delay_seconds),
        timeout_seconds: number(sent.timeout_seconds),
        period_seconds: number(sent.period_seconds),
        failure_threshold: number(sent.failure_threshold),
        ..v1::Probe::default()
    };
    match &sent.probe_type {
        Some(ProbeType::TcpSocket(tcp)) => {
            form.tcp_socket = Some(v1::TcpSocket {
                port: number(tcp.port),
                host: None,
            });
        }
        Some(ProbeType::HttpGet(http)) => {
            let headers = http.http_headers.iter().map(|header| v1::Header {
                name: header.name.clone(),
                value: header.value.clone(),
            });
            form.http_get = Some(v1::HttpGet {
                path: Some(http.path.clone()),
                port: number(http.port),
                http_headers: headers.collect(),
                ..v1::HttpGet::default()
            });
        }
        Some(ProbeType::Grpc(grpc)) => {
            form.grpc = Some(v1::Grpc {
                port: number(grpc.port),
                service: Some(grpc.service.clone()),
            });
        }
        None => {}
    }
    form
}

/// Writes a container from v1's form.
pub(crate) fn write(form: v1::Container) -> v2::Container {
    let limits = form.resources.limits.iter();
    let limits = limits.map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned()));
    v2::Container {
        resources: Some(v2::ResourceRequirements {
            limits: limits.collect(),
            ..v2::ResourceRequirements::default()
        }),
        name: form.name,
        image: form.image,
        command: form.command,
        args: form.args,
        working_dir: form.working_dir,
        env: form
            .env
            .into_iter()
            .map(|var| v2::EnvVar {
                name: var.name,
                values: var.value.map(Values::Value),
            })
            .collect(),
        ports: form
            .ports
            .into_iter()
            .map(|port| v2::ContainerPort {
                name: port.name.unwrap_or_default(),
                container_port: shown(port.container_port),
            })
            .collect(),
        startup_probe: form.startup_probe.map(write_probe),
        liveness_probe: form.liveness_probe.map(write_probe),
        readiness_probe: form.readiness_probe.map(write_probe),
        ..v2::Container::default()
    }
}

fn write_probe(form: v1::Probe) -> v2::Probe {
    let tcp = form.tcp_socket.map(|tcp| {
        ProbeType::TcpSocket(v2::TcpSocketAction {
            port: shown(tcp.port),
        })
    });
    let http = form.http_get.map(|http| {
        let headers = http.http_headers.into_iter().map(|header| v2::HttpHeader {
            name: header.name,
            value: header.value,
        });
        ProbeType::HttpGet(v2::HttpGetAction {
            path: http.path.unwrap_or_default(),
            port: shown(http.port),
            http_headers: headers.collect(),
        })
    });
    let grpc = form.grpc.map(|grpc| {
        ProbeType::Grpc(v2::GrpcAction {
            port: shown(grpc.port),
            service: grpc.service.unwrap_or_default(),
        })
    });
    v2::Probe {
        initial_delay_seconds: shown(form.initial_delay_seconds),
        timeout_seconds: shown(form.timeout_seconds),
        period_seconds: shown(form.period_seconds),
        failure_threshold: shown(form.failure_threshold),
        probe_type: tcp.or(http).or(grpc),
    }
}
