//! The wire form of `run.googleapis.com/v1`: jobs, executions, tasks and worker pools. What they have
//! in common with services is in the types of those.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::lenient;
use crate::v1::types::{Condition, Container, EnvVar, ObjectMeta, RevisionTemplate};

/// The API version of everything here.
pub(crate) const API_VERSION: &str = "run.googleapis.com/v1";

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Job {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) api_version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<String>,
    #[serde(deserialize_with = "lenient::nullable")]
    pub(crate) metadata: ObjectMeta,
    #[serde(deserialize_with = "lenient::nullable")]
    pub(crate) spec: JobSpec,
    /// Never read: only controllers write it.
    #[serde(skip_deserializing)]
    pub(crate) status: JobStatus,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct JobSpec {
    #[serde(deserialize_with = "lenient::nullable")]
    pub(crate) template: ExecutionTemplate,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) start_execution_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) run_execution_token: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ExecutionTemplate {
    #[serde(deserialize_with = "lenient::nullable")]
    pub(crate) metadata: ObjectMeta,
    #[serde(deserialize_with = "lenient::nullable")]
    pub(crate) spec: ExecutionSpec,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ExecutionSpec {
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "lenient::int"
    )]
    pub(crate) parallelism: Option<i64>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "lenient::int"
    )]
    pub(crate) task_count: Option<i64>,
    #[serde(deserialize_with = "lenient::nullable")]
    pub(crate) template: TaskTemplate,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct TaskTemplate {
    #[serde(deserialize_with = "lenient::nullable")]
    pub(crate) spec: TaskSpec,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct TaskSpec {
    #[serde(deserialize_with = "lenient::nullable")]
    pub(crate) containers: Vec<Container>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "lenient::int"
    )]
    pub(crate) max_retries: Option<i64>,
    /// An int64, and so a string in JSON.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "lenient::int",
        serialize_with = "as_text"
    )]
    pub(crate) timeout_seconds: Option<i64>,
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "lenient::nullable"
    )]
    pub(crate) service_account_name: String,
    #[serde(skip_serializing)]
    pub(crate) volumes: Value,
    #[serde(skip_serializing)]
    pub(crate) node_selector: Value,
}

fn as_text<S: serde::Serializer>(value: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.serialize_str(&value.to_string()),
        None => serializer.serialize_none(),
    }
}

#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JobStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) observed_generation: Option<i64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) conditions: Vec<Condition>,
    pub(crate) execution_count: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) latest_created_execution: Option<ExecutionReference>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExecutionReference {
    pub(crate) name: String,
    pub(crate) creation_timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) completion_timestamp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deletion_timestamp: Option<String>,
    pub(crate) completion_status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Execution {
    pub(crate) api_version: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) metadata: ObjectMeta,
    pub(crate) spec: ExecutionSpec,
    pub(crate) status: ExecutionStatus,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExecutionStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) observed_generation: Option<i64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) conditions: Vec<Condition>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) start_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) completion_time: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) running_count: u32,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) succeeded_count: u32,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) failed_count: u32,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) cancelled_count: u32,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) retried_count: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Task {
    pub(crate) api_version: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) metadata: ObjectMeta,
    pub(crate) spec: TaskSpec,
    pub(crate) status: TaskStatus,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TaskStatus {
    pub(crate) observed_generation: i64,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) start_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) completion_time: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) retried: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_attempt_result: Option<AttemptResult>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AttemptResult {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) term_signal: Option<i32>,
    /// Always there: gcloud reads its message.
    pub(crate) status: RpcStatus,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub(crate) struct RpcStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<i32>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) message: String,
}

/// The body of `:run`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RunJob {
    #[serde(deserialize_with = "lenient::nullable")]
    pub(crate) overrides: Overrides,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Overrides {
    #[serde(deserialize_with = "lenient::nullable")]
    pub(crate) container_overrides: Vec<ContainerOverride>,
    #[serde(deserialize_with = "lenient::int")]
    pub(crate) task_count: Option<i64>,
    #[serde(deserialize_with = "lenient::int")]
    pub(crate) timeout_seconds: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ContainerOverride {
    #[serde(deserialize_with = "lenient::nullable")]
    pub(crate) name: String,
    #[serde(deserialize_with = "lenient::nullable")]
    pub(crate) args: Vec<String>,
    #[serde(deserialize_with = "lenient::nullable")]
    pub(crate) clear_args: bool,
    #[serde(deserialize_with = "lenient::nullable")]
    pub(crate) env: Vec<EnvVar>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct WorkerPool {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) api_version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<String>,
    #[serde(deserialize_with = "lenient::nullable")]
    pub(crate) metadata: ObjectMeta,
    #[serde(deserialize_with = "lenient::nullable")]
    pub(crate) spec: WorkerPoolSpec,
    /// Never read: only controllers write it.
    #[serde(skip_deserializing)]
    pub(crate) status: WorkerPoolStatus,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct WorkerPoolSpec {
    #[serde(deserialize_with = "lenient::nullable")]
    pub(crate) template: RevisionTemplate,
    #[serde(deserialize_with = "lenient::nullable")]
    pub(crate) instance_splits: Vec<InstanceSplit>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct InstanceSplit {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) latest_revision: Option<bool>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "lenient::int"
    )]
    pub(crate) percent: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) revision_name: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WorkerPoolStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) observed_generation: Option<i64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) conditions: Vec<Condition>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) latest_created_revision_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) latest_ready_revision_name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) instance_splits: Vec<InstanceSplit>,
}
