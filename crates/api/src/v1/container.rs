//! Containers, probes and resources: v1 and model, both directions.

use std::time::Duration;

use lauf_model::container::{DEFAULT_CPU_MILLIS, DEFAULT_MEMORY_BYTES};
use lauf_model::quantity::{format_cpu, format_memory, parse_cpu, parse_memory};
use lauf_model::{Container, EnvVar, Port, Probe, ProbeAction, Protocol, Violation};
use serde_json::Value;

use super::annotations::{CPU_LIMIT, MEMORY_LIMIT};
use super::types::{self, Map};
use crate::refuse;

/// What a container is for, which decides what it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Serves requests on its port; always has a startup probe.
    Ingress,
    /// Works without requests and has no port.
    Worker,
}

/// The port of a container that has none; no probe can mean it.
const NO_PORT: Port = Port {
    number: 0,
    protocol: Protocol::Http1,
};

/// Reads a container that is at path `at`. Spellings of limits go to `as_sent`.
pub(crate) fn read(
    role: Role,
    at: &str,
    sent: &types::Container,
    as_sent: &mut Map,
    found: &mut Vec<Violation>,
) -> Container {
    for (field, value, what) in [
        ("envFrom", &sent.env_from, "Environment from a source is"),
        ("volumeMounts", &sent.volume_mounts, "Volumes are"),
        (
            "securityContext",
            &sent.security_context,
            "A security context is",
        ),
        ("lifecycle", &sent.lifecycle, "A lifecycle hook is"),
    ] {
        refuse::field(format!("{at}.{field}"), value, what, found);
    }
    let port = match role {
        Role::Ingress => port(at, &sent.ports, found),
        Role::Worker => {
            if !sent.ports.is_empty() {
                found.push(Violation::new(
                    format!("{at}.ports"),
                    "is only for services: this container gets no requests. Leave it out.",
                ));
            }
            NO_PORT
        }
    };
    let (cpu_millis, memory_bytes) = limits(at, &sent.resources, as_sent, found);
    let mut probe = |field: &str, sent: &Option<types::Probe>| {
        sent.as_ref()
            .map(|probe| read_probe(&format!("{at}.{field}"), probe, port, found))
    };
    let startup_probe = probe("startupProbe", &sent.startup_probe);
    let liveness_probe = probe("livenessProbe", &sent.liveness_probe);
    let readiness_probe = probe("readinessProbe", &sent.readiness_probe);
    let env = sent
        .env
        .iter()
        .enumerate()
        .map(|(i, var)| {
            refuse::field(
                format!("{at}.env[{i}].valueFrom"),
                &var.value_from,
                "Secrets are",
                found,
            );
            EnvVar {
                name: var.name.clone(),
                value: var.value.clone().unwrap_or_default(),
            }
        })
        .collect();
    Container {
        name: sent.name.clone(),
        image: sent.image.clone(),
        command: sent.command.clone(),
        args: sent.args.clone(),
        env,
        working_dir: sent.working_dir.clone(),
        port: match role {
            Role::Ingress => port,
            Role::Worker => Port::default(),
        },
        cpu_millis,
        memory_bytes,
        // What every container without a probe has is not a probe of its own.
        startup_probe: startup_probe
            .filter(|p| role == Role::Worker || *p != Probe::default_startup()),
        liveness_probe,
        readiness_probe,
    }
}

/// Writes a container, with every default filled in.
pub(crate) fn write(role: Role, container: &Container, as_sent: &Map) -> types::Container {
    let (port, default_probe) = match role {
        Role::Ingress => (container.port, Some(Probe::default_startup())),
        Role::Worker => (NO_PORT, None),
    };
    let startup = container.startup_probe.clone().or(default_probe);
    let limit = |key: &str, canonical: String, same: &dyn Fn(&str) -> bool| {
        let sent = as_sent.get(key).filter(|text| same(text)).cloned();
        Value::String(sent.unwrap_or(canonical))
    };
    types::Container {
        name: container.name.clone(),
        image: container.image.clone(),
        command: container.command.clone(),
        args: container.args.clone(),
        working_dir: container.working_dir.clone(),
        ports: match role {
            Role::Ingress => vec![write_port(port)],
            Role::Worker => Vec::new(),
        },
        env: container
            .env
            .iter()
            .map(|var| types::EnvVar {
                name: var.name.clone(),
                value: Some(var.value.clone()),
                value_from: Value::Null,
            })
            .collect(),
        resources: types::Resources {
            limits: [
                (
                    "cpu".to_owned(),
                    limit(CPU_LIMIT, written_cpu(container.cpu_millis), &|text| {
                        parse_cpu(text) == Some(container.cpu_millis)
                    }),
                ),
                (
                    "memory".to_owned(),
                    limit(
                        MEMORY_LIMIT,
                        format_memory(container.memory_bytes),
                        &|text| parse_memory(text) == Some(container.memory_bytes),
                    ),
                ),
            ]
            .into(),
            requests: Default::default(),
        },
        startup_probe: startup.map(|p| write_probe(&p, port)),
        liveness_probe: container
            .liveness_probe
            .as_ref()
            .map(|p| write_probe(p, port)),
        readiness_probe: container
            .readiness_probe
            .as_ref()
            .map(|p| write_probe(p, port)),
        ..types::Container::default()
    }
}

fn write_port(port: Port) -> types::Port {
    let name = match port.protocol {
        Protocol::Http1 => "http1",
        Protocol::H2c => "h2c",
    };
    types::Port {
        name: Some(name.to_owned()),
        container_port: Some(i64::from(port.number)),
        protocol: None,
    }
}

/// One CPU is `1000m` in what Cloud Run fills in, and so here.
fn written_cpu(millis: u32) -> String {
    if millis == DEFAULT_CPU_MILLIS {
        "1000m".to_owned()
    } else {
        format_cpu(millis)
    }
}

fn port(path: &str, ports: &[types::Port], found: &mut Vec<Violation>) -> Port {
    let at = |field: &str| format!("{path}.ports[0].{field}");
    if ports.len() > 1 {
        found.push(Violation::new(
            format!("{path}.ports"),
            format!(
                "has {} ports; a container that serves requests has exactly one.",
                ports.len()
            ),
        ));
    }
    let Some(sent) = ports.first() else {
        return Port::default();
    };
    let number = match sent.container_port {
        None | Some(0) => Port::default().number,
        Some(number) => u16::try_from(number).unwrap_or_else(|_| {
            found.push(Violation::new(
                at("containerPort"),
                format!("is {number}; must be from 1 to 65535."),
            ));
            Port::default().number
        }),
    };
    let protocol = match sent.name.as_deref() {
        None | Some("" | "http1") => Protocol::Http1,
        Some("h2c") => Protocol::H2c,
        Some(other) => {
            found.push(Violation::new(
                at("name"),
                format!("'{other}' is not a protocol; it must be http1 or h2c."),
            ));
            Protocol::Http1
        }
    };
    if let Some(other) = sent
        .protocol
        .as_deref()
        .filter(|p| !matches!(*p, "" | "TCP"))
    {
        found.push(Violation::new(
            at("protocol"),
            format!("'{other}' is not allowed; it must be TCP."),
        ));
    }
    Port { number, protocol }
}

fn limits(
    path: &str,
    resources: &types::Resources,
    as_sent: &mut Map,
    found: &mut Vec<Violation>,
) -> (u32, u64) {
    if !resources.requests.is_empty() {
        found.push(refuse::violation(
            format!("{path}.resources.requests"),
            "A request other than the limits is",
        ));
    }
    let (mut cpu, mut memory) = (DEFAULT_CPU_MILLIS, DEFAULT_MEMORY_BYTES);
    for (name, value) in &resources.limits {
        let at = format!("{path}.resources.limits.{name}");
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        match name.as_str() {
            "cpu" => match parse_cpu(&text) {
                Some(value) => {
                    cpu = value;
                    if text != written_cpu(value) {
                        as_sent.insert(CPU_LIMIT.to_owned(), text);
                    }
                }
                None => found.push(Violation::new(
                    at,
                    format!("'{text}' is not an amount of CPU, such as 1 or 500m."),
                )),
            },
            "memory" => match parse_memory(&text) {
                Some(value) => {
                    memory = value;
                    if text != format_memory(value) {
                        as_sent.insert(MEMORY_LIMIT.to_owned(), text);
                    }
                }
                None => found.push(Violation::new(
                    at,
                    format!("'{text}' is not an amount of memory, such as 512Mi or 2Gi."),
                )),
            },
            "nvidia.com/gpu" => found.push(refuse::violation(at, "A GPU is")),
            _ => found.push(Violation::new(
                at,
                "is not a resource of a container; there are cpu and memory.",
            )),
        }
    }
    (cpu, memory)
}

/// Reads a probe, filling in the defaults of Kubernetes.
pub(crate) fn read_probe(
    at: &str,
    sent: &types::Probe,
    own: Port,
    found: &mut Vec<Violation>,
) -> Probe {
    let port = |field: &str, sent: Option<i64>, found: &mut Vec<Violation>| match sent {
        None | Some(0) => None,
        Some(number) => match u16::try_from(number) {
            Ok(number) => Some(number).filter(|n| *n != own.number),
            Err(_) => {
                found.push(Violation::new(
                    format!("{at}.{field}.port"),
                    format!("is {number}; must be from 1 to 65535."),
                ));
                None
            }
        },
    };
    let said = [
        sent.tcp_socket.is_some(),
        sent.http_get.is_some(),
        sent.grpc.is_some(),
    ];
    if said.iter().filter(|said| **said).count() > 1 {
        found.push(Violation::new(
            at,
            "has more than one of tcpSocket, httpGet and grpc; keep one.",
        ));
    }
    refuse::field(
        format!("{at}.exec"),
        &sent.exec,
        "A command as a probe is",
        found,
    );
    let action = if let Some(http) = &sent.http_get {
        for (field, value) in [("host", &http.host), ("scheme", &http.scheme)] {
            if let Some(value) = value
                .as_deref()
                .filter(|v| !v.is_empty() && !v.eq_ignore_ascii_case("http"))
            {
                found.push(Violation::new(
                    format!("{at}.httpGet.{field}"),
                    format!("'{value}' is not supported; leave it out."),
                ));
            }
        }
        ProbeAction::Http {
            path: http
                .path
                .clone()
                .filter(|p| !p.is_empty())
                .unwrap_or_else(|| "/".to_owned()),
            port: port("httpGet", http.port, found),
            headers: http
                .http_headers
                .iter()
                .map(|h| (h.name.clone(), h.value.clone()))
                .collect(),
        }
    } else if let Some(grpc) = &sent.grpc {
        ProbeAction::Grpc {
            port: port("grpc", grpc.port, found),
            service: grpc.service.clone().unwrap_or_default(),
        }
    } else {
        let tcp = sent.tcp_socket.clone().unwrap_or_default();
        if tcp.host.is_some_and(|host| !host.is_empty()) {
            found.push(refuse::violation(
                format!("{at}.tcpSocket.host"),
                "Another host is",
            ));
        }
        ProbeAction::Tcp {
            port: port("tcpSocket", tcp.port, found),
        }
    };
    let mut number = |field: &str, sent: Option<i64>, default: u32| match sent {
        None => default,
        Some(value) => u32::try_from(value).unwrap_or_else(|_| {
            found.push(Violation::new(
                format!("{at}.{field}"),
                format!("is {value}; must be 0 or more, and not that large."),
            ));
            default
        }),
    };
    let unset = |v: Option<i64>| v.filter(|v| *v != 0);
    Probe {
        action,
        initial_delay: seconds(number("initialDelaySeconds", sent.initial_delay_seconds, 0)),
        timeout: seconds(number("timeoutSeconds", unset(sent.timeout_seconds), 1)),
        period: seconds(number("periodSeconds", unset(sent.period_seconds), 10)),
        failure_threshold: number("failureThreshold", unset(sent.failure_threshold), 3),
        success_threshold: number("successThreshold", unset(sent.success_threshold), 1),
    }
}

fn seconds(count: u32) -> Duration {
    Duration::from_secs(u64::from(count))
}

/// Writes a probe.
pub(crate) fn write_probe(probe: &Probe, own: Port) -> types::Probe {
    let port = |port: &Option<u16>| Some(i64::from(port.unwrap_or(own.number)));
    let whole = |d: Duration| i64::try_from(d.as_secs()).ok();
    let mut written = types::Probe {
        initial_delay_seconds: whole(probe.initial_delay).filter(|s| *s > 0),
        timeout_seconds: whole(probe.timeout),
        period_seconds: whole(probe.period),
        failure_threshold: Some(i64::from(probe.failure_threshold)),
        success_threshold: Some(i64::from(probe.success_threshold)).filter(|n| *n != 1),
        ..types::Probe::default()
    };
    match &probe.action {
        ProbeAction::Tcp { port: p } => {
            written.tcp_socket = Some(types::TcpSocket {
                port: port(p),
                host: None,
            });
        }
        ProbeAction::Http {
            path,
            port: p,
            headers,
        } => {
            written.http_get = Some(types::HttpGet {
                path: Some(path.clone()),
                port: port(p),
                http_headers: headers
                    .iter()
                    .map(|(name, value)| types::Header {
                        name: name.clone(),
                        value: value.clone(),
                    })
                    .collect(),
                ..types::HttpGet::default()
            });
        }
        ProbeAction::Grpc { port: p, service } => {
            written.grpc = Some(types::Grpc {
                port: port(p),
                service: Some(service.clone()).filter(|s| !s.is_empty()),
            });
        }
    }
    written
}
