//! Messages of `google.cloud.run.v2` in their JSON form. Unknown fields are refused, as Google
//! does; fields that this version cannot honour are read as raw values, for the refusal to name
//! them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::wire::{Output, Seconds, is_default, wire_enum};
use crate::lenient;

pub(crate) type Map = BTreeMap<String, String>;

wire_enum! {
    /// `google.cloud.run.v2.IngressTraffic`.
    Ingress {
        Unspecified = "INGRESS_TRAFFIC_UNSPECIFIED" 0,
        All = "INGRESS_TRAFFIC_ALL" 1,
        Internal = "INGRESS_TRAFFIC_INTERNAL_ONLY" 2,
        LoadBalancer = "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER" 3,
        None = "INGRESS_TRAFFIC_NONE" 4,
    }
}

wire_enum! {
    /// `google.api.LaunchStage`.
    LaunchStage {
        Unspecified = "LAUNCH_STAGE_UNSPECIFIED" 0,
        EarlyAccess = "EARLY_ACCESS" 1,
        Alpha = "ALPHA" 2,
        Beta = "BETA" 3,
        Ga = "GA" 4,
        Deprecated = "DEPRECATED" 5,
        Unimplemented = "UNIMPLEMENTED" 6,
        Prelaunch = "PRELAUNCH" 7,
    }
}

wire_enum! {
    /// `google.cloud.run.v2.ExecutionEnvironment`.
    Execution {
        Unspecified = "EXECUTION_ENVIRONMENT_UNSPECIFIED" 0,
        Gen1 = "EXECUTION_ENVIRONMENT_GEN1" 1,
        Gen2 = "EXECUTION_ENVIRONMENT_GEN2" 2,
    }
}

wire_enum! {
    /// `google.cloud.run.v2.TrafficTargetAllocationType`.
    Allocation {
        Unspecified = "TRAFFIC_TARGET_ALLOCATION_TYPE_UNSPECIFIED" 0,
        Latest = "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST" 1,
        Revision = "TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION" 2,
    }
}

wire_enum! {
    /// `google.cloud.run.v2.ServiceScaling.ScalingMode`.
    ScalingMode {
        Unspecified = "SCALING_MODE_UNSPECIFIED" 0,
        Automatic = "AUTOMATIC" 1,
        Manual = "MANUAL" 2,
    }
}

wire_enum! {
    /// `google.cloud.run.v2.EncryptionKeyRevocationAction`.
    Revocation {
        Unspecified = "ENCRYPTION_KEY_REVOCATION_ACTION_UNSPECIFIED" 0,
        PreventNew = "PREVENT_NEW" 1,
        Shutdown = "SHUTDOWN" 2,
    }
}

wire_enum! {
    /// `google.cloud.run.v2.Condition.State`.
    State {
        Unspecified = "STATE_UNSPECIFIED" 0,
        Pending = "CONDITION_PENDING" 1,
        Reconciling = "CONDITION_RECONCILING" 2,
        Failed = "CONDITION_FAILED" 3,
        Succeeded = "CONDITION_SUCCEEDED" 4,
    }
}

wire_enum! {
    /// `google.cloud.run.v2.Condition.Severity`.
    Severity {
        Unspecified = "SEVERITY_UNSPECIFIED" 0,
        Error = "ERROR" 1,
        Warning = "WARNING" 2,
        Info = "INFO" 3,
    }
}

wire_enum! {
    /// `google.cloud.run.v2.Condition.CommonReason`.
    CommonReason {
        Undefined = "COMMON_REASON_UNDEFINED" 0,
        Unknown = "UNKNOWN" 1,
        RevisionFailed = "REVISION_FAILED" 3,
        ProgressDeadlineExceeded = "PROGRESS_DEADLINE_EXCEEDED" 4,
        ContainerMissing = "CONTAINER_MISSING" 6,
        ContainerPermissionDenied = "CONTAINER_PERMISSION_DENIED" 7,
        ContainerImageUnauthorized = "CONTAINER_IMAGE_UNAUTHORIZED" 8,
        Internal = "INTERNAL" 16,
    }
}

wire_enum! {
    /// `google.cloud.run.v2.Condition.RevisionReason`.
    RevisionReason {
        Undefined = "REVISION_REASON_UNDEFINED" 0,
        Pending = "PENDING" 1,
        Reserve = "RESERVE" 2,
        Retired = "RETIRED" 3,
        Retiring = "RETIRING" 4,
        Recreating = "RECREATING" 5,
        HealthCheckContainerError = "HEALTH_CHECK_CONTAINER_ERROR" 6,
        MinInstancesNotProvisioned = "MIN_INSTANCES_NOT_PROVISIONED" 8,
        NoDeployment = "NO_DEPLOYMENT" 10,
        MinInstancesWarming = "MIN_INSTANCES_WARMING" 12,
    }
}

/// `google.cloud.run.v2.Service`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Service {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) name: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) description: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) uid: Output<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) generation: Output<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) labels: Map,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) annotations: Map,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) create_time: Output<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) update_time: Output<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) delete_time: Output<String>,
    #[serde(skip_serializing)]
    pub(crate) expire_time: Output<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) creator: Output<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) last_modifier: Output<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) client: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) client_version: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) ingress: Ingress,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) launch_stage: LaunchStage,
    #[serde(skip_serializing)]
    pub(crate) binary_authorization: Value,
    pub(crate) template: Template,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) traffic: Vec<TrafficTarget>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) scaling: ServiceScaling,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) invoker_iam_disabled: bool,
    #[serde(skip_serializing)]
    pub(crate) default_uri_disabled: Value,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) urls: Output<Vec<String>>,
    #[serde(skip_serializing)]
    pub(crate) iap_enabled: Value,
    #[serde(skip_serializing)]
    pub(crate) multi_region_settings: Value,
    #[serde(skip_serializing)]
    pub(crate) custom_audiences: Value,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) observed_generation: Output<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) terminal_condition: Output<Condition>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) conditions: Output<Vec<Condition>>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) latest_ready_revision: Output<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) latest_created_revision: Output<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) traffic_statuses: Output<Vec<TrafficStatus>>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) uri: Output<String>,
    #[serde(skip_serializing)]
    pub(crate) satisfies_pzs: Output<bool>,
    #[serde(skip_serializing)]
    pub(crate) threat_detection_enabled: Output<bool>,
    #[serde(skip_serializing)]
    pub(crate) build_config: Value,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) reconciling: Output<bool>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) etag: String,
}

/// `google.cloud.run.v2.RevisionTemplate`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Template {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) revision: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) labels: Map,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) annotations: Map,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) scaling: RevisionScaling,
    #[serde(skip_serializing)]
    pub(crate) vpc_access: Value,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) timeout: Option<Seconds>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) service_account: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) containers: Vec<Container>,
    #[serde(skip_serializing)]
    pub(crate) volumes: Value,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) execution_environment: Execution,
    #[serde(skip_serializing)]
    pub(crate) encryption_key: Value,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::int")]
    pub(crate) max_instance_request_concurrency: Option<i64>,
    #[serde(skip_serializing)]
    pub(crate) service_mesh: Value,
    #[serde(skip_serializing)]
    pub(crate) encryption_key_revocation_action: Revocation,
    #[serde(skip_serializing)]
    pub(crate) encryption_key_shutdown_duration: Value,
    #[serde(skip_serializing)]
    pub(crate) session_affinity: Value,
    #[serde(skip_serializing)]
    pub(crate) health_check_disabled: Value,
    #[serde(skip_serializing)]
    pub(crate) node_selector: Value,
    #[serde(skip_serializing)]
    pub(crate) gpu_zonal_redundancy_disabled: Value,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) client: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) client_version: String,
}

/// `google.cloud.run.v2.ServiceScaling`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct ServiceScaling {
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::int")]
    pub(crate) min_instance_count: Option<i64>,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::int")]
    pub(crate) max_instance_count: Option<i64>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) scaling_mode: ScalingMode,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::int")]
    pub(crate) manual_instance_count: Option<i64>,
}

/// `google.cloud.run.v2.RevisionScaling`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct RevisionScaling {
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::int")]
    pub(crate) min_instance_count: Option<i64>,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::int")]
    pub(crate) max_instance_count: Option<i64>,
}

/// `google.cloud.run.v2.Container`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Container {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) name: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) image: String,
    #[serde(skip_serializing)]
    pub(crate) source_code: Value,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) command: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) args: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) env: Vec<EnvVar>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) resources: Option<Resources>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) ports: Vec<Port>,
    #[serde(skip_serializing)]
    pub(crate) volume_mounts: Value,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) working_dir: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) liveness_probe: Option<Probe>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) startup_probe: Option<Probe>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) readiness_probe: Option<Probe>,
    #[serde(skip_serializing)]
    pub(crate) depends_on: Value,
    #[serde(skip_serializing)]
    pub(crate) base_image_uri: Value,
    #[serde(skip_serializing)]
    pub(crate) build_info: Output<bool>,
}

/// `google.cloud.run.v2.EnvVar`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct EnvVar {
    pub(crate) name: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) value: Option<String>,
    #[serde(skip_serializing)]
    pub(crate) value_source: Value,
}

/// `google.cloud.run.v2.ResourceRequirements`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Resources {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) limits: Map,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) cpu_idle: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) startup_cpu_boost: bool,
}

/// `google.cloud.run.v2.ContainerPort`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Port {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) name: String,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::int")]
    pub(crate) container_port: Option<i64>,
}

/// `google.cloud.run.v2.Probe`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Probe {
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::int")]
    pub(crate) initial_delay_seconds: Option<i64>,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::int")]
    pub(crate) timeout_seconds: Option<i64>,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::int")]
    pub(crate) period_seconds: Option<i64>,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::int")]
    pub(crate) failure_threshold: Option<i64>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) http_get: Option<HttpGet>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) tcp_socket: Option<TcpSocket>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) grpc: Option<Grpc>,
}

/// `google.cloud.run.v2.HTTPGetAction`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct HttpGet {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) path: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) http_headers: Vec<Header>,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::int")]
    pub(crate) port: Option<i64>,
}

/// `google.cloud.run.v2.HTTPHeader`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Header {
    pub(crate) name: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) value: String,
}

/// `google.cloud.run.v2.TCPSocketAction`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TcpSocket {
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::int")]
    pub(crate) port: Option<i64>,
}

/// `google.cloud.run.v2.GRPCAction`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Grpc {
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::int")]
    pub(crate) port: Option<i64>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) service: String,
}

/// `google.cloud.run.v2.TrafficTarget`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TrafficTarget {
    #[serde(rename = "type", skip_serializing_if = "is_default")]
    pub(crate) kind: Allocation,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) revision: String,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient::int")]
    pub(crate) percent: Option<i64>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) tag: String,
}

/// `google.cloud.run.v2.TrafficTargetStatus`.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub(crate) struct TrafficStatus {
    #[serde(rename = "type")]
    pub(crate) kind: Allocation,
    pub(crate) revision: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) percent: u32,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) tag: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) uri: String,
}

/// `google.cloud.run.v2.Condition`.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) state: State,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) message: String,
    pub(crate) last_transition_time: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) severity: Severity,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) reason: CommonReason,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) revision_reason: RevisionReason,
}

/// `google.cloud.run.v2.Revision`. Clients write none of it.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Revision {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) generation: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) labels: Map,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) annotations: Map,
    pub(crate) create_time: String,
    pub(crate) update_time: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) delete_time: Option<String>,
    pub(crate) launch_stage: LaunchStage,
    pub(crate) service: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) conditions: Vec<Condition>,
    pub(crate) observed_generation: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) reconciling: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) creator: String,
    pub(crate) etag: String,
    /// The fields that it has in common with a template.
    #[serde(flatten)]
    pub(crate) template: Template,
}
