//! Containers and probes, v2 and v1's form, both directions.

use std::collections::BTreeMap;

use lauf_model::Violation;
use serde_json::Value;

use super::types;
use crate::refuse;
use crate::v1::types as v1;

/// Reads the container at `i` into v1's form.
pub(crate) fn read(i: usize, sent: &types::Container, found: &mut Vec<Violation>) -> v1::Container {
    let at = format!("template.containers[{i}]");
    for (field, value, what) in [
        ("sourceCode", &sent.source_code, "Source code is"),
        ("volumeMounts", &sent.volume_mounts, "Volumes are"),
        ("dependsOn", &sent.depends_on, "A second container is"),
        (
            "baseImageUri",
            &sent.base_image_uri,
            "Automatic base image updates are",
        ),
    ] {
        refuse::field(format!("{at}.{field}"), value, what, found);
    }
    let env = sent.env.iter().enumerate().map(|(j, var)| {
        let at = format!("{at}.env[{j}].valueSource");
        refuse::field(at, &var.value_source, "Secrets are", found);
        v1::EnvVar {
            name: var.name.clone(),
            value: var.value.clone(),
            value_from: Value::Null,
        }
    });
    let limits = sent.resources.iter().flat_map(|r| &r.limits);
    v1::Container {
        name: sent.name.clone(),
        image: sent.image.clone(),
        command: sent.command.clone(),
        args: sent.args.clone(),
        working_dir: sent.working_dir.clone(),
        env: env.collect(),
        ports: sent
            .ports
            .iter()
            .map(|port| v1::Port {
                name: Some(port.name.clone()),
                container_port: port.container_port,
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

fn probe(sent: &types::Probe) -> v1::Probe {
    v1::Probe {
        initial_delay_seconds: sent.initial_delay_seconds,
        timeout_seconds: sent.timeout_seconds,
        period_seconds: sent.period_seconds,
        failure_threshold: sent.failure_threshold,
        tcp_socket: sent.tcp_socket.as_ref().map(|tcp| v1::TcpSocket {
            port: tcp.port,
            host: None,
        }),
        http_get: sent.http_get.as_ref().map(|http| v1::HttpGet {
            path: Some(http.path.clone()),
            port: http.port,
            http_headers: http
                .http_headers
                .iter()
                .map(|header| v1::Header {
                    name: header.name.clone(),
                    value: header.value.clone(),
                })
                .collect(),
            ..v1::HttpGet::default()
        }),
        grpc: sent.grpc.as_ref().map(|grpc| v1::Grpc {
            port: grpc.port,
            service: Some(grpc.service.clone()),
        }),
        ..v1::Probe::default()
    }
}

/// Writes a container from v1's form, but for its resources.
pub(crate) fn write(form: v1::Container) -> types::Container {
    types::Container {
        name: form.name,
        image: form.image,
        command: form.command,
        args: form.args,
        working_dir: form.working_dir,
        env: form
            .env
            .into_iter()
            .map(|var| types::EnvVar {
                name: var.name,
                value: var.value,
                value_source: Value::Null,
            })
            .collect(),
        ports: form
            .ports
            .into_iter()
            .map(|port| types::Port {
                name: port.name.unwrap_or_default(),
                container_port: port.container_port,
            })
            .collect(),
        startup_probe: form.startup_probe.map(write_probe),
        liveness_probe: form.liveness_probe.map(write_probe),
        readiness_probe: form.readiness_probe.map(write_probe),
        ..types::Container::default()
    }
}

fn write_probe(form: v1::Probe) -> types::Probe {
    types::Probe {
        initial_delay_seconds: form.initial_delay_seconds,
        timeout_seconds: form.timeout_seconds,
        period_seconds: form.period_seconds,
        failure_threshold: form.failure_threshold,
        tcp_socket: form
            .tcp_socket
            .map(|tcp| types::TcpSocket { port: tcp.port }),
        http_get: form.http_get.map(|http| types::HttpGet {
            path: http.path.unwrap_or_default(),
            port: http.port,
            http_headers: http
                .http_headers
                .into_iter()
                .map(|header| types::Header {
                    name: header.name,
                    value: header.value,
                })
                .collect(),
        }),
        grpc: form.grpc.map(|grpc| types::Grpc {
            port: grpc.port,
            service: grpc.service.unwrap_or_default(),
        }),
    }
}
