//! The wire form of the v1 API: Knative Serving's objects as Cloud Run serves them. Fields that
//! Lauf cannot honour are read too, so that a request with one is refused and not half obeyed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::lenient;

/// `serving.knative.dev/v1`, the API version of everything here.
pub(crate) const API_VERSION: &str = "serving.knative.dev/v1";

pub(crate) type Map = BTreeMap<String, String>;

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Service {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) api_version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<String>,
    #[serde(deserialize_with = "lenient::nullable")]
    pub(crate) metadata: ObjectMeta,
    #[serde(deserialize_with = "lenient::nullable")]
    pub(crate) spec: ServiceSpec,
    /// Never read: only controllers write it.
    #[serde(skip_deserializing)]
    pub(crate) status: ServiceStatus,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ObjectMeta {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) self_link: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) uid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) resource_version: Option<String>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "lenient::int"
    )]
    pub(crate) generation: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) creation_timestamp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deletion_timestamp: Option<String>,
    #[serde(
        skip_serializing_if = "Map::is_empty",
        deserialize_with = "lenient::nullable"
    )]
    pub(crate) labels: Map,
    #[serde(
        skip_serializing_if = "Map::is_empty",
        deserialize_with = "lenient::nullable"
    )]
    pub(crate) annotations: Map,
    #[serde(skip_serializing_if = "Vec::is_empty", skip_deserializing)]
    pub(crate) owner_references: Vec<OwnerReference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) generate_name: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OwnerReference {
    pub(crate) api_version: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) controller: bool,
    pub(crate) block_owner_deletion: bool,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ServiceSpec {
    #[serde(deserialize_with = "lenient::nullable")]
    pub(crate) template: RevisionTemplate,
    #[serde(deserialize_with = "lenient::nullable")]
    pub(crate) traffic: Vec<TrafficTarget>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RevisionTemplate {
    #[serde(deserialize_with = "lenient::nullable")]
    pub(crate) metadata: ObjectMeta,
    #[serde(deserialize_with = "lenient::nullable")]
    pub(crate) spec: RevisionSpec,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct TrafficTarget {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) revision_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) configuration_name: Option<String>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "lenient::int"
    )]
    pub(crate) percent: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) latest_revision: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tag: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RevisionSpec {
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "lenient::int"
    )]
    pub(crate) container_concurrency: Option<i64>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "lenient::int"
    )]
    pub(crate) timeout_seconds: Option<i64>,
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "lenient::nullable"
    )]
    pub(crate) service_account_name: String,
    #[serde(deserialize_with = "lenient::nullable")]
    pub(crate) containers: Vec<Container>,
    #[serde(skip_serializing)]
    pub(crate) volumes: Value,
    #[serde(skip_serializing)]
    pub(crate) node_selector: Value,
    #[serde(skip_serializing)]
    pub(crate) image_pull_secrets: Value,
    #[serde(skip_serializing)]
    pub(crate) runtime_class_name: Value,
    #[serde(skip_serializing)]
    pub(crate) init_containers: Value,
    #[serde(skip_serializing)]
    pub(crate) affinity: Value,
    #[serde(skip_serializing)]
    pub(crate) tolerations: Value,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Container {
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "lenient::nullable"
    )]
    pub(crate) name: String,
    #[serde(deserialize_with = "lenient::nullable")]
    pub(crate) image: String,
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "lenient::nullable"
    )]
    pub(crate) command: Vec<String>,
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "lenient::nullable"
    )]
    pub(crate) args: Vec<String>,
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "lenient::nullable"
    )]
    pub(crate) working_dir: String,
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "lenient::nullable"
    )]
    pub(crate) ports: Vec<Port>,
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "lenient::nullable"
    )]
    pub(crate) env: Vec<EnvVar>,
    #[serde(deserialize_with = "lenient::nullable")]
    pub(crate) resources: Resources,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) startup_probe: Option<Probe>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) liveness_probe: Option<Probe>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) readiness_probe: Option<Probe>,
    #[serde(skip_serializing)]
    pub(crate) env_from: Value,
    #[serde(skip_serializing)]
    pub(crate) volume_mounts: Value,
    #[serde(skip_serializing)]
    pub(crate) security_context: Value,
    #[serde(skip_serializing)]
    pub(crate) lifecycle: Value,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Port {
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "lenient::nullable"
    )]
    pub(crate) name: Option<String>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "lenient::int"
    )]
    pub(crate) container_port: Option<i64>,
    #[serde(skip_serializing)]
    pub(crate) protocol: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct EnvVar {
    pub(crate) name: String,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "lenient::nullable"
    )]
    pub(crate) value: Option<String>,
    #[serde(skip_serializing)]
    pub(crate) value_from: Value,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Resources {
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "lenient::nullable"
    )]
    pub(crate) limits: BTreeMap<String, Value>,
    #[serde(skip_serializing, deserialize_with = "lenient::nullable")]
    pub(crate) requests: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Probe {
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "lenient::int"
    )]
    pub(crate) initial_delay_seconds: Option<i64>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "lenient::int"
    )]
    pub(crate) timeout_seconds: Option<i64>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "lenient::int"
    )]
    pub(crate) period_seconds: Option<i64>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "lenient::int"
    )]
    pub(crate) failure_threshold: Option<i64>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "lenient::int"
    )]
    pub(crate) success_threshold: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tcp_socket: Option<TcpSocket>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) http_get: Option<HttpGet>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) grpc: Option<Grpc>,
    #[serde(skip_serializing)]
    pub(crate) exec: Value,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct TcpSocket {
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "lenient::int"
    )]
    pub(crate) port: Option<i64>,
    #[serde(skip_serializing)]
    pub(crate) host: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct HttpGet {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<String>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "lenient::int"
    )]
    pub(crate) port: Option<i64>,
    #[serde(skip_serializing)]
    pub(crate) host: Option<String>,
    #[serde(skip_serializing)]
    pub(crate) scheme: Option<String>,
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "lenient::nullable"
    )]
    pub(crate) http_headers: Vec<Header>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Header {
    pub(crate) name: String,
    pub(crate) value: String,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Grpc {
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "lenient::int"
    )]
    pub(crate) port: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) service: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServiceStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) observed_generation: Option<i64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) conditions: Vec<Condition>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) latest_created_revision_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) latest_ready_revision_name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) traffic: Vec<TrafficTarget>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) address: Option<Address>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub(crate) struct Address {
    pub(crate) url: String,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) status: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) message: String,
    pub(crate) last_transition_time: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) severity: &'static str,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Revision {
    pub(crate) api_version: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) metadata: ObjectMeta,
    pub(crate) spec: RevisionSpec,
    pub(crate) status: RevisionStatus,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RevisionStatus {
    pub(crate) observed_generation: i64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) conditions: Vec<Condition>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) container_statuses: Vec<ContainerStatus>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) image_digest: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) log_url: String,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ContainerStatus {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) name: String,
    pub(crate) image_digest: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct List<T> {
    pub(crate) api_version: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) metadata: ListMeta,
    pub(crate) items: Vec<T>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) unreachable: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ListMeta {
    pub(crate) resource_version: String,
    #[serde(rename = "continue", skip_serializing_if = "String::is_empty")]
    pub(crate) next: String,
    pub(crate) self_link: String,
}
