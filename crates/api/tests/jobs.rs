//! Jobs, executions, tasks and worker pools in v1, request by request. Nothing runs here: what the
//! controllers would write is written by the tests.

mod support;

use http::StatusCode;
use lauf_model::{
    ConditionStatus, Execution, ExecutionKey, Meta, Task, WorkerPool, WorkerPoolKey,
    WorkerPoolRevision,
};
use lauf_store::{Resource as _, Txn};
use serde_json::{Value, json};
use support::{Platform, RUN, SERVICES};

const JOBS: &str = "/apis/run.googleapis.com/v1/namespaces/demo/jobs";
const EXECUTIONS: &str = "/apis/run.googleapis.com/v1/namespaces/demo/executions";
const TASKS: &str = "/apis/run.googleapis.com/v1/namespaces/demo/tasks";
const POOLS: &str = "/apis/run.googleapis.com/v1/namespaces/demo/workerpools";

fn etl() -> Value {
    json!({
        "apiVersion": "run.googleapis.com/v1",
        "kind": "Job",
        "metadata": {"name": "etl", "namespace": "demo", "labels": {"team": "blue"},
            "annotations": {"run.googleapis.com/client-name": "gcloud",
                "run.googleapis.com/launch-stage": "BETA"}},
        "spec": {"template": {
            "metadata": {"labels": {"team": "blue"},
                "annotations": {"run.googleapis.com/execution-environment": "gen2"}},
            "spec": {"taskCount": 3, "parallelism": 2, "template": {"spec": {
                "containers": [{"image": "etl", "args": ["--all"],
                    "env": [{"name": "A", "value": "1"}],
                    "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}],
                "maxRetries": 0, "timeoutSeconds": "120",
            }}},
        }},
    })
}

async fn run(p: &Platform, job: &str, body: &Value) -> Value {
    let (status, body) = p
        .call("POST", RUN, &format!("{JOBS}/{job}:run"), Some(body))
        .await;
    assert_eq!(status, StatusCode::OK, "{body}");
    body
}

/// Stores the tasks of an execution, as its driver would.
async fn make_tasks(p: &Platform, execution: &Value) {
    let key = ExecutionKey {
        project: "demo".into(),
        region: "us-central1".into(),
        name: execution["metadata"]["name"].as_str().unwrap().into(),
    };
    let of = p
        .store
        .find::<Execution>(&key)
        .await
        .unwrap()
        .unwrap()
        .value;
    let put = |txn: Txn, index| {
        let task = Task::new(&of, index, format!("uid-{index}"), of.meta.created);
        txn.put(Task::at(&task.key()), task.body())
    };
    let txn = (0..of.spec.task_count).fold(Txn::new(), put);
    p.store.write(txn).await.unwrap();
}

#[tokio::test]
async fn a_job_comes_back_as_sent_and_knows_its_executions() {
    let p = Platform::new().await;
    let (status, body) = p.call("POST", RUN, JOBS, Some(&etl())).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let one = format!("{JOBS}/etl");
    let (_, job) = p.call("GET", RUN, &one, None).await;
    let template = &job["spec"]["template"];
    assert_eq!(template["metadata"], etl()["spec"]["template"]["metadata"]);
    let task = &template["spec"]["template"]["spec"];
    assert_eq!(task["timeoutSeconds"], "120", "an int64 is a string");
    assert_eq!(task["maxRetries"], 0);
    let container = &task["containers"][0];
    assert!(container.get("ports").is_none(), "{container}");
    assert!(container.get("startupProbe").is_none(), "{container}");
    let notes = &job["metadata"]["annotations"];
    assert_eq!(notes["run.googleapis.com/launch-stage"], "BETA");
    assert!(notes["run.googleapis.com/creator"].is_string(), "{notes}");

    // What was got can be put back, and changes nothing.
    let (status, same) = p.call("PUT", RUN, &one, Some(&job)).await;
    assert_eq!(status, StatusCode::OK, "{same}");
    assert_eq!(same["metadata"]["generation"], 1);

    let execution = run(&p, "etl", &json!({})).await;
    let name = execution["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("etl-") && name.len() == 9, "{name}");
    let labels = &execution["metadata"]["labels"];
    assert_eq!(labels["run.googleapis.com/job"], "etl");
    assert_eq!(labels["team"], "blue");
    assert_eq!(execution["spec"]["taskCount"], 3);
    assert_eq!(execution["status"]["conditions"][0]["type"], "Completed");
    let (_, job) = p.call("GET", RUN, &one, None).await;
    assert_eq!(job["status"]["executionCount"], 1);
    assert_eq!(job["status"]["latestCreatedExecution"]["name"], name);

    // A stale version is a conflict only when the job itself was changed.
    let mut stale = same;
    stale["metadata"]["generation"] = Value::Null;
    let (status, body) = p.call("PUT", RUN, &one, Some(&stale)).await;
    assert_eq!(status, StatusCode::CONFLICT, "{body}");
}

#[tokio::test]
async fn overrides_are_checked_like_the_job_itself() {
    let p = Platform::new().await;
    p.call("POST", RUN, JOBS, Some(&etl())).await;
    let body = json!({"overrides": {
        "containerOverrides": [{"args": ["--day", "1"], "env": [{"name": "A", "value": "2"}]}],
        "taskCount": 7, "timeoutSeconds": "30",
    }});
    let made = run(&p, "etl", &body).await;
    let spec = &made["spec"];
    let task = &spec["template"]["spec"];
    assert_eq!(
        (&spec["taskCount"], &task["timeoutSeconds"]),
        (&json!(7), &json!("30"))
    );
    assert_eq!(task["containers"][0]["args"], json!(["--day", "1"]));
    assert_eq!(task["containers"][0]["env"][0]["value"], "2");

    let body = json!({"overrides": {"taskCount": 10_001, "timeoutSeconds": 604_801,
        "containerOverrides": [{"name": "other"}, {"args": ["x"], "clearArgs": true}]}});
    let path = format!("{JOBS}/etl:run");
    let (status, answer) = p.call("POST", RUN, &path, Some(&body)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
    let fields: Vec<&str> = answer["error"]["details"][0]["fieldViolations"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|v| v["field"].as_str())
        .collect();
    assert_eq!(
        fields,
        [
            "overrides.containerOverrides[0].name",
            "overrides.containerOverrides[1].clearArgs",
            "spec.template.spec.taskCount",
            "spec.template.spec.template.spec.timeoutSeconds",
        ]
    );
    let (status, _) = p
        .call("POST", RUN, &format!("{JOBS}/nope:run"), Some(&json!({})))
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn lists_are_by_label_and_page_by_page() {
    let p = Platform::new().await;
    let mut other = etl();
    other["metadata"]["name"] = "etl-two".into();
    for job in [etl(), other] {
        let (status, body) = p.call("POST", RUN, JOBS, Some(&job)).await;
        assert_eq!(status, StatusCode::OK, "{body}");
    }
    let mut names = Vec::new();
    for _ in 0..3 {
        let made = run(&p, "etl", &json!({})).await;
        make_tasks(&p, &made).await;
        names.push(made["metadata"]["name"].as_str().unwrap().to_owned());
    }
    // Its name begins like that of the first job and its executions.
    make_tasks(&p, &run(&p, "etl-two", &json!({})).await).await;

    let mut found = Vec::new();
    let mut next = String::new();
    loop {
        let query = format!(
            "{EXECUTIONS}?labelSelector=run.googleapis.com/job = etl&limit=2&continue={next}"
        );
        let (status, page) = p.call("GET", RUN, &query, None).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 2);
        found.extend(
            items
                .iter()
                .map(|e| e["metadata"]["name"].as_str().unwrap().to_owned()),
        );
        next = page["metadata"]["continue"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        if next.is_empty() {
            break;
        }
    }
    names.sort();
    assert_eq!(found, names);

    let query = format!(
        "{TASKS}?labelSelector=run.googleapis.com/execution = {},run.googleapis.com/runningState in (Pending,Running)",
        names[1]
    );
    let (_, page) = p.call("GET", RUN, &query, None).await;
    let items = page["items"].as_array().unwrap();
    let indices: Vec<u64> = items
        .iter()
        .filter_map(|t| t["status"]["index"].as_u64())
        .collect();
    assert_eq!(indices, [0, 1, 2], "{page}");
    let task = &items[0];
    assert_eq!(task["spec"]["containers"][0]["args"], json!(["--all"]));
    assert_eq!(task["metadata"]["labels"]["run.googleapis.com/job"], "etl");
    let name = task["metadata"]["name"].as_str().unwrap();
    let (status, same) = p.call("GET", RUN, &format!("{TASKS}/{name}"), None).await;
    assert_eq!((status, &same), (StatusCode::OK, task));

    // All regions on the global host.
    let (_, all) = p.call("GET", "run.googleapis.com", JOBS, None).await;
    assert_eq!(all["items"].as_array().unwrap().len(), 2);
    let (_, none) = p
        .call("GET", "europe-west1-run.googleapis.com", JOBS, None)
        .await;
    assert_eq!(none["items"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn executions_are_cancelled_and_deleted_and_policies_are_a_jobs_own() {
    let p = Platform::new().await;
    p.call("POST", RUN, JOBS, Some(&etl())).await;
    let made = run(&p, "etl", &json!({})).await;
    let name = made["metadata"]["name"].as_str().unwrap();
    let one = format!("{EXECUTIONS}/{name}");
    let (status, body) = p.call("POST", RUN, &format!("{one}:cancel"), None).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let (status, body) = p.call("DELETE", RUN, &one, None).await;
    assert_eq!(
        (status, &body["status"]),
        (StatusCode::OK, &json!("Success"))
    );
    let (_, body) = p.call("GET", RUN, &one, None).await;
    assert!(body["metadata"]["deletionTimestamp"].is_string(), "{body}");

    let path = |verb: &str| format!("/v1/projects/demo/locations/us-central1/jobs/etl:{verb}");
    let policy = json!({"policy": {"bindings": [
        {"role": "roles/run.invoker", "members": ["user:ann@example.com"]}]}});
    let (status, body) = p
        .call("POST", RUN, &path("setIamPolicy"), Some(&policy))
        .await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let (_, body) = p.call("GET", RUN, &path("getIamPolicy"), None).await;
    assert_eq!(body["bindings"][0]["members"][0], "user:ann@example.com");
    let (status, _) = p
        .call(
            "GET",
            RUN,
            &path("getIamPolicy").replace("/etl", "/x"),
            None,
        )
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, _) = p.call("DELETE", RUN, &format!("{JOBS}/etl"), None).await;
    assert_eq!(status, StatusCode::OK);
    let (status, body) = p
        .call("POST", RUN, &format!("{JOBS}/etl:run"), Some(&json!({})))
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
}

#[tokio::test]
async fn a_token_makes_one_execution_with_the_job() {
    let p = Platform::new().await;
    let mut job = etl();
    job["spec"]["startExecutionToken"] = "first".into();
    let (status, body) = p.call("POST", RUN, JOBS, Some(&job)).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(
        body["status"]["latestCreatedExecution"]["name"],
        "etl-first"
    );
    let (status, body) = p
        .call("GET", RUN, &format!("{EXECUTIONS}/etl-first"), None)
        .await;
    assert_eq!(status, StatusCode::OK, "{body}");
    // The same token again asks for nothing, another one for another.
    job["metadata"]["labels"]["team"] = "red".into();
    let (_, body) = p.call("PUT", RUN, &format!("{JOBS}/etl"), Some(&job)).await;
    assert_eq!(body["status"]["executionCount"], 1);
    job["spec"]["startExecutionToken"] = "second".into();
    let (_, body) = p.call("PUT", RUN, &format!("{JOBS}/etl"), Some(&job)).await;
    assert_eq!(body["status"]["executionCount"], 2);
}

#[tokio::test]
async fn what_a_job_or_pool_cannot_have_is_refused_by_name_all_at_once() {
    let p = Platform::new().await;
    let mut job = etl();
    let spec = &mut job["spec"]["template"]["spec"];
    spec["taskCount"] = 10_001.into();
    let task = &mut spec["template"]["spec"];
    task["volumes"] = json!([{"name": "v", "emptyDir": {}}]);
    task["containers"][0]["ports"] = json!([{"containerPort": 8080}]);
    task["containers"][0]["livenessProbe"] = json!({"httpGet": {"path": "/", "port": 1}});
    task["maxRetries"] = 11.into();
    let fields = |body: &Value| -> Vec<String> {
        let all = body["error"]["details"][0]["fieldViolations"].as_array();
        let all = all.unwrap_or_else(|| panic!("{body}")).iter();
        all.filter_map(|v| v["field"].as_str().map(str::to_owned))
            .collect()
    };
    let (status, body) = p.call("POST", RUN, JOBS, Some(&job)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let at = "spec.template.spec.template.spec";
    assert_eq!(
        fields(&body),
        [
            format!("{at}.volumes"),
            format!("{at}.containers[0].ports"),
            "spec.template.spec.taskCount".to_owned(),
            format!("{at}.containers[0].livenessProbe"),
            format!("{at}.maxRetries"),
        ]
    );

    let pool = json!({
        "apiVersion": "run.googleapis.com/v1", "kind": "WorkerPool",
        "metadata": {"name": "puller", "annotations": {
            "run.googleapis.com/scalingMode": "automatic",
            "run.googleapis.com/maxScale": "3"}},
        "spec": {"template": {"spec": {"timeoutSeconds": 5, "containers": [{"image": "puller"}]}},
            "instanceSplits": [{"latestRevision": true, "percent": 60}, {"percent": 30}]},
    });
    let (status, body) = p.call("POST", RUN, POOLS, Some(&pool)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(
        fields(&body),
        [
            "metadata.annotations[run.googleapis.com/maxScale]",
            "metadata.annotations[run.googleapis.com/scalingMode]",
            "spec.template.spec.timeoutSeconds",
            "spec.instanceSplits[1]",
            "spec.instanceSplits",
        ]
    );
    for list in [JOBS, POOLS] {
        let (_, body) = p.call("GET", RUN, list, None).await;
        assert_eq!(body["items"], json!([]));
    }
}

#[tokio::test]
async fn a_worker_pool_lives_from_create_to_delete_beside_a_service_of_its_name() {
    let p = Platform::new().await;
    let pool = json!({
        "apiVersion": "run.googleapis.com/v1", "kind": "WorkerPool",
        "metadata": {"name": "puller", "annotations": {
            "run.googleapis.com/scalingMode": "manual",
            "run.googleapis.com/manualInstanceCount": "3",
            "run.googleapis.com/description": "pulls"}},
        "spec": {"template": {"spec": {"containers": [{"image": "puller"}]}}},
    });
    let (status, body) = p.call("POST", RUN, POOLS, Some(&pool)).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let service = json!({"metadata": {"name": "puller"},
        "spec": {"template": {"spec": {"containers": [{"image": "puller"}]}}}});
    let (status, body) = p.call("POST", RUN, SERVICES, Some(&service)).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let one = format!("{POOLS}/puller");
    let (_, mut body) = p.call("GET", RUN, &one, None).await;
    let notes = &body["metadata"]["annotations"];
    assert_eq!(notes["run.googleapis.com/manualInstanceCount"], "3");
    assert_eq!(notes["run.googleapis.com/scalingMode"], "manual");
    assert_eq!(
        body["spec"]["instanceSplits"],
        json!([{"latestRevision": true, "percent": 100}])
    );
    body["metadata"]["annotations"]["run.googleapis.com/manualInstanceCount"] = "5".into();
    let (status, body) = p.call("PUT", RUN, &one, Some(&body)).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(body["metadata"]["generation"], 2);
    let (status, _) = p.call("DELETE", RUN, &one, None).await;
    assert_eq!(status, StatusCode::OK);
    let (_, body) = p.call("GET", RUN, &one, None).await;
    assert!(body["metadata"]["deletionTimestamp"].is_string());
}

#[tokio::test]
async fn the_revisions_of_services_and_pools_are_one_list_in_pages() {
    let p = Platform::new().await;
    let spec = json!({"template": {"spec": {"containers": [{"image": "puller"}]}}});
    for name in ["a", "b"] {
        let service = json!({"metadata": {"name": name}, "spec": spec});
        let (status, body) = p.call("POST", RUN, SERVICES, Some(&service)).await;
        assert_eq!(status, StatusCode::OK, "{body}");
    }
    p.reconcile().await;
    let revisions = "/apis/serving.knative.dev/v1/namespaces/demo/revisions";
    let (_, of_services) = p.call("GET", RUN, revisions, None).await;
    let mut all = names(&of_services);
    assert_eq!(all.len(), 2);
    let pool = json!({"metadata": {"name": "puller"}, "spec": spec});
    p.call("POST", RUN, POOLS, Some(&pool)).await;
    let key = WorkerPoolKey {
        project: "demo".into(),
        region: "us-central1".into(),
        name: "puller".into(),
    };
    let made = p.store.find::<WorkerPool>(&key).await.unwrap().unwrap();
    for name in ["puller-1", "puller-2"] {
        let revision = WorkerPoolRevision {
            meta: Meta {
                name: name.into(),
                ..made.value.meta.clone()
            },
            pool: "puller".into(),
            pool_generation: 1,
            template_as_sent: Default::default(),
            spec: made.value.spec.template.spec.clone(),
            status: Default::default(),
        };
        let at = WorkerPoolRevision::at(&key.revision(name));
        p.store
            .write(Txn::new().put(at, revision.body()))
            .await
            .unwrap();
        all.push(name.to_owned());
    }
    for (limit, pages) in [(1, 4), (2, 2), (3, 2), (4, 1), (0, 1)] {
        let (mut seen, mut after, mut count) = (Vec::new(), String::new(), 0);
        loop {
            let page = format!("{revisions}?limit={limit}&continue={after}");
            let (_, page) = p.call("GET", RUN, &page, None).await;
            seen.extend(names(&page));
            count += 1;
            match page["metadata"]["continue"].as_str() {
                Some(next) => next.clone_into(&mut after),
                None => break,
            }
        }
        assert_eq!(seen, all, "in pages of {limit}");
        assert_eq!(count, pages, "pages of {limit}");
    }
    let of_pool = format!("{revisions}?labelSelector=run.googleapis.com/workerPool%20%3D%20puller");
    let (_, of_pool) = p.call("GET", RUN, &of_pool, None).await;
    assert_eq!(names(&of_pool), all[2..]);
}

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().unwrap();
    let name = |item: &Value| item["metadata"]["name"].as_str().unwrap().to_owned();
    items.iter().map(name).collect()
}

#[tokio::test]
async fn what_failed_and_is_being_deleted_has_not_failed_to_be_deleted() {
    let p = Platform::new().await;
    p.call("POST", RUN, JOBS, Some(&etl())).await;
    let made = run(&p, "etl", &json!({})).await;
    let name = made["metadata"]["name"].as_str().unwrap();
    let key = ExecutionKey {
        project: "demo".into(),
        region: "us-central1".into(),
        name: name.into(),
    };
    let mut failed = p.store.find::<Execution>(&key).await.unwrap().unwrap();
    let completed = &mut failed.value.status.conditions[0];
    assert_eq!(completed.kind, "Completed");
    completed.status = ConditionStatus::False;
    completed.reason = "NonZeroExitCode".into();
    let at = Execution::at(&key);
    let txn = Txn::replace(at, failed.version, failed.value.body());
    p.store.write(txn).await.unwrap();
    let one = format!("{EXECUTIONS}/{name}");
    let shown = async || p.call("GET", RUN, &one, None).await.1["status"]["conditions"][0].clone();
    assert_eq!(shown().await["status"], "False");
    let (status, _) = p.call("DELETE", RUN, &one, None).await;
    assert_eq!(status, StatusCode::OK);
    let deleting = shown().await;
    assert_eq!(deleting["status"], "Unknown");
    assert_eq!(deleting["reason"], "Deleting");
}
