//! The v2 API as its clients use it, request by request.

mod support;

use http::StatusCode;
use lauf_model::{ConditionStatus, Service, ServiceKey};
use lauf_store::{Resource as _, Txn};
use serde_json::{Value, json};
use support::{NUMBER, Platform, RUN, SERVICES};

const V2: &str = "/v2/projects/demo/locations/us-central1/services";
const OWN: &str = "127.0.0.1:8080";

fn hello() -> Value {
    json!({
        "description": "says hello",
        "labels": {"team": "a"},
        "template": {
            "scaling": {"maxInstanceCount": 7},
            "timeout": "60s",
            "containers": [{
                "image": "hello",
                "env": [{"name": "A", "value": "1"}],
                "resources": {"limits": {"cpu": "1", "memory": "0.5Gi"}, "cpuIdle": true},
            }],
        },
    })
}

async fn created(p: &Platform) -> Value {
    let path = format!("{V2}?serviceId=hello");
    let (status, body) = p.call("POST", OWN, &path, Some(&hello())).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    body
}

async fn get(p: &Platform, path: &str) -> Value {
    let (status, body) = p.call("GET", OWN, path, None).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    body
}

fn fields(body: &Value) -> Vec<&str> {
    let violations = body["error"]["details"][0]["fieldViolations"].as_array();
    let violations = violations.unwrap_or_else(|| panic!("{body}"));
    violations
        .iter()
        .map(|v| v["field"].as_str().unwrap())
        .collect()
}

fn operation(body: &Value) -> String {
    format!("/v2/{}", body["name"].as_str().unwrap())
}

#[tokio::test]
async fn a_service_lives_from_create_to_delete() {
    let p = Platform::new().await;
    let one = format!("{V2}/hello");
    let (status, body) = p.call("GET", RUN, &one, None).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{body}");

    let made = created(&p).await;
    assert_eq!(made["done"], Value::Null, "{made}");
    let kind = "type.googleapis.com/google.cloud.run.v2.Service";
    assert_eq!(made["metadata"]["@type"], kind);
    assert_eq!(made["metadata"]["reconciling"], true);
    let again = format!("{V2}?serviceId=hello");
    let (status, body) = p.call("POST", OWN, &again, Some(&hello())).await;
    assert_eq!(status, StatusCode::CONFLICT, "{body}");

    let at = operation(&made);
    assert_eq!(get(&p, &at).await["done"], Value::Null);
    p.reconcile().await;
    let done = get(&p, &at).await;
    assert_eq!(done["name"], made["name"]);
    assert_eq!(done["done"], true);
    assert_eq!(done["response"]["@type"], kind);

    let body = get(&p, &one).await;
    let name = "projects/demo/locations/us-central1/services/hello";
    assert_eq!(body["name"], name);
    assert_eq!(body["generation"], "1");
    assert_eq!(body["observedGeneration"], "1");
    assert_eq!(body["labels"], json!({"team": "a"}));
    assert_eq!(body["reconciling"], Value::Null);
    assert_eq!(body["terminalCondition"]["type"], "Ready");
    assert_eq!(body["terminalCondition"]["state"], "CONDITION_SUCCEEDED");
    assert_eq!(body["conditions"].as_array().unwrap().len(), 2);
    assert_eq!(body["ingress"], "INGRESS_TRAFFIC_ALL");
    assert_eq!(body["launchStage"], "GA");
    assert_eq!(body["uri"], body["urls"][0]);
    assert_eq!(body["template"]["timeout"], "60s");
    assert_eq!(body["template"]["maxInstanceRequestConcurrency"], 80);
    let container = &body["template"]["containers"][0];
    assert_eq!(container["resources"]["limits"]["memory"], "0.5Gi");
    assert_eq!(container["resources"]["cpuIdle"], true);
    assert_eq!(container["ports"][0]["containerPort"], 8080);
    assert_eq!(
        body["traffic"],
        json!([{"type": "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST", "percent": 100}])
    );
    assert_eq!(body["trafficStatuses"][0]["percent"], 100);
    let revision = body["latestReadyRevision"].as_str().unwrap();
    assert!(revision.starts_with(&format!("{name}/revisions/hello-")));
    // By the project's number it is the same.
    let by_number = one.replace("demo", &NUMBER.to_string());
    assert_eq!(get(&p, &by_number).await, body);

    let (status, gone) = p.call("DELETE", OWN, &one, None).await;
    assert_eq!(status, StatusCode::OK, "{gone}");
    let at_delete = operation(&gone);
    assert_eq!(get(&p, &at_delete).await["done"], Value::Null);
    p.reconcile().await;
    let done = get(&p, &at_delete).await;
    assert_eq!(done["done"], true);
    assert_eq!(done["response"]["name"], name);
    // The operation that made it says what became of it.
    assert_eq!(get(&p, &at).await["error"]["code"], 5);
    let (status, _) = p.call("GET", OWN, &one, None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn putting_back_what_was_got_changes_nothing() {
    let p = Platform::new().await;
    created(&p).await;
    p.reconcile().await;
    let one = format!("{V2}/hello");
    let got = get(&p, &one).await;
    let (status, body) = p.call("PATCH", OWN, &one, Some(&got)).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(body["done"], true);
    assert_eq!(get(&p, &one).await, got);
}

#[tokio::test]
async fn v1_and_v2_show_the_same_object() {
    let p = Platform::new().await;
    let v1 = json!({
        "apiVersion": "serving.knative.dev/v1", "kind": "Service",
        "metadata": {"name": "hello", "namespace": "demo", "annotations": {
            "run.googleapis.com/client-name": "gcloud",
            "run.googleapis.com/launch-stage": "BETA",
            "run.googleapis.com/operation-id": "x",
        }},
        "spec": {"template": {
            "metadata": {"annotations": {
                "run.googleapis.com/startup-cpu-boost": "True",
                "run.googleapis.com/execution-environment": "gen2",
                "client.knative.dev/user-image": "hello",
            }},
            "spec": {"containers": [{
                "image": "hello",
                "livenessProbe": {"httpGet": {"path": "/up"}, "periodSeconds": 5},
            }]},
        }},
    });
    let (status, body) = p.call("POST", RUN, SERVICES, Some(&v1)).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    p.reconcile().await;
    let in_v1 = format!("{SERVICES}/hello");
    let (_, before) = p.call("GET", RUN, &in_v1, None).await;

    let one = format!("{V2}/hello");
    let got = get(&p, &one).await;
    assert_eq!(got["launchStage"], "BETA");
    assert_eq!(got["client"], "gcloud");
    let template = &got["template"];
    let environment = &template["executionEnvironment"];
    assert_eq!(environment, "EXECUTION_ENVIRONMENT_GEN2");
    assert_eq!(
        template["annotations"],
        json!({"client.knative.dev/user-image": "hello"})
    );
    let container = &template["containers"][0];
    assert_eq!(container["resources"]["startupCpuBoost"], true);
    assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/up");

    let (status, body) = p.call("PATCH", OWN, &one, Some(&got)).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let (_, after) = p.call("GET", RUN, &in_v1, None).await;
    assert_eq!(after, before);

    let change = json!({"description": "new"});
    let path = format!("{one}?updateMask=description");
    let (status, body) = p.call("PATCH", OWN, &path, Some(&change)).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let (_, mut after) = p.call("GET", RUN, &in_v1, None).await;
    let notes = after["metadata"]["annotations"].as_object_mut().unwrap();
    assert_eq!(
        notes.remove("run.googleapis.com/description").unwrap(),
        "new"
    );
    assert_eq!(
        after["metadata"]["annotations"],
        before["metadata"]["annotations"]
    );
    assert_eq!(after["spec"], before["spec"]);
}

#[tokio::test]
async fn a_mask_changes_what_it_names() {
    let p = Platform::new().await;
    created(&p).await;
    p.reconcile().await;
    let one = format!("{V2}/hello");
    let got = get(&p, &one).await;

    let path = format!("{one}?updateMask=template.scaling.max_instance_count,labels");
    let sent = json!({"template": {"scaling": {"max_instance_count": "3"}}});
    let (status, body) = p.call("PATCH", OWN, &path, Some(&sent)).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(body["done"], Value::Null);
    let now = get(&p, &one).await;
    assert_eq!(now["generation"], "2");
    assert_eq!(now["template"]["scaling"]["maxInstanceCount"], 3);
    assert_eq!(now["template"]["containers"], got["template"]["containers"]);
    assert_eq!(now["labels"], Value::Null);
    assert_eq!(now["description"], "says hello");

    for wrong in ["nonsense", "uid", "template.containers.image"] {
        let path = format!("{one}?updateMask={wrong}");
        let (status, body) = p.call("PATCH", OWN, &path, Some(&sent)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(fields(&body), ["update_mask"]);
    }
}

#[tokio::test]
async fn an_old_etag_is_a_conflict_but_progress_is_not() {
    let p = Platform::new().await;
    created(&p).await;
    let one = format!("{V2}/hello");
    let mut got = get(&p, &one).await;
    p.reconcile().await;
    got["description"] = "second".into();
    let (status, body) = p.call("PATCH", OWN, &one, Some(&got)).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    got["description"] = "third".into();
    let (status, body) = p.call("PATCH", OWN, &one, Some(&got)).await;
    assert_eq!(status, StatusCode::CONFLICT, "{body}");
    assert_eq!(body["error"]["status"], "ABORTED");
    let old = got["etag"].as_str().unwrap();
    let path = format!("{one}?etag={}", old.replace('+', "%2B"));
    let (status, _) = p.call("DELETE", OWN, &path, None).await;
    assert_eq!(status, StatusCode::CONFLICT);
    let (status, body) = p.call("DELETE", OWN, &format!("{one}?etag=!"), None).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
}

#[tokio::test]
async fn what_is_wrong_is_said_in_the_words_of_v2() {
    let p = Platform::new().await;
    let sent = json!({
        "annotations": {"run.googleapis.com/ingress": "all"},
        "ingress": 2,
        "iapEnabled": true,
        "scaling": {"minInstanceCount": -1},
        "template": {
            "vpcAccess": {"connector": "c"},
            "healthCheckDisabled": true,
            "maxInstanceRequestConcurrency": 9999,
            "scaling": {"minInstanceCount": 5, "maxInstanceCount": 2},
            "containers": [{"image": "hello", "volumeMounts": [{"name": "v"}],
                "env": [{"name": "S", "valueSource": {"secretKeyRef": {"secret": "s"}}}]}],
        },
        "traffic": [{"type": 2, "percent": 100}],
    });
    let path = format!("{V2}?serviceId=hello");
    let (status, body) = p.call("POST", OWN, &path, Some(&sent)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    let mut found = fields(&body);
    found.sort_unstable();
    assert_eq!(
        found,
        [
            "annotations[run.googleapis.com/ingress]",
            "iap_enabled",
            "ingress",
            "scaling.min_instance_count",
            "template.containers[0].env[0].value_source",
            "template.containers[0].volume_mounts",
            "template.health_check_disabled",
            "template.max_instance_request_concurrency",
            "template.scaling.min_instance_count",
            "template.vpc_access",
            "traffic[0]",
        ]
    );
    for (sent, field) in [
        (
            json!({"template": {"timeout": "1.5s", "containers": [{"image": "hello"}]}}),
            "template.timeout",
        ),
        (json!({"ingress": "NONSENSE"}), "ingress"),
        (json!({"template": {"nonsense": 1}}), "template.nonsense"),
    ] {
        let (status, body) = p.call("POST", OWN, &path, Some(&sent)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(fields(&body), [field]);
    }
    let (status, body) = p.call("POST", OWN, V2, Some(&hello())).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    assert_eq!(fields(&body), ["service_id"]);
    let elsewhere = V2.replace("us-central1", "mars");
    let (status, _) = p.call("GET", OWN, &elsewhere, None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_check_stores_nothing_and_a_missing_service_can_be_made() {
    let p = Platform::new().await;
    let path = format!("{V2}?serviceId=hello&validateOnly=true");
    let (status, body) = p.call("POST", OWN, &path, Some(&hello())).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(body["done"], true);
    let one = format!("{V2}/hello");
    let (status, _) = p.call("PATCH", OWN, &one, Some(&hello())).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let path = format!("{one}?allowMissing=true");
    let (status, body) = p.call("PATCH", OWN, &path, Some(&hello())).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let path = format!("{one}?validateOnly=true");
    let (status, body) = p.call("DELETE", OWN, &path, None).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(body["done"], true);
    assert_eq!(get(&p, &one).await["deleteTime"], Value::Null);
}

#[tokio::test]
async fn revisions_are_listed_read_and_deleted() {
    let p = Platform::new().await;
    created(&p).await;
    p.reconcile().await;
    let one = format!("{V2}/hello");
    let mut second = hello();
    second["template"]["containers"][0]["image"] = "hello:2".into();
    let (status, body) = p.call("PATCH", OWN, &one, Some(&second)).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    p.reconcile().await;

    let all = format!("{one}/revisions");
    let listed = get(&p, &all).await;
    assert_eq!(listed["revisions"].as_array().unwrap().len(), 2);
    let first = get(&p, &format!("{all}?pageSize=1")).await;
    assert_eq!(first["revisions"].as_array().unwrap().len(), 1);
    let token = first["nextPageToken"].as_str().unwrap();
    let rest = get(&p, &format!("{all}?pageSize=1&pageToken={token}")).await;
    assert_ne!(rest["revisions"][0]["name"], first["revisions"][0]["name"]);

    let old = format!("/v2/{}", first["revisions"][0]["name"].as_str().unwrap());
    let revision = get(&p, &old).await;
    assert_eq!(revision, first["revisions"][0]);
    assert_eq!(revision["service"], "hello");
    let image = revision["containers"][0]["image"].as_str().unwrap();
    assert!(image.starts_with("hello@sha256:"), "{image}");
    let elsewhere = old.replace("services/hello/", "services/other/");
    let (status, _) = p.call("GET", OWN, &elsewhere, None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);

    let latest = &get(&p, &one).await["latestReadyRevision"];
    let latest = format!("/v2/{}", latest.as_str().unwrap());
    let (status, body) = p.call("DELETE", OWN, &latest, None).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    let (status, body) = p.call("DELETE", OWN, &old, None).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let at = operation(&body);
    assert_eq!(get(&p, &at).await["done"], Value::Null);
    p.reconcile().await;
    let done = get(&p, &at).await;
    assert_eq!(
        done["response"]["@type"],
        "type.googleapis.com/google.cloud.run.v2.Revision"
    );
    let (status, _) = p.call("GET", OWN, &old, None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn operations_are_listed_awaited_and_forgotten() {
    let p = Platform::new().await;
    let made = created(&p).await;
    let at = operation(&made);
    let short = json!({"timeout": "0s"});
    let (status, body) = p
        .call("POST", OWN, &format!("{at}:wait"), Some(&short))
        .await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(body["done"], Value::Null);
    let wait = format!("{at}:wait");
    let waiting = p.call("POST", OWN, &wait, None);
    let (waited, ()) = tokio::join!(waiting, p.reconcile());
    assert_eq!(waited.1["done"], true, "{waited:?}");

    let listed = get(&p, "/v2/projects/demo/locations/us-central1/operations").await;
    assert_eq!(listed["operations"][0]["name"], made["name"]);
    let (status, body) = p.call("DELETE", OWN, &at, None).await;
    assert_eq!((status, body), (StatusCode::OK, json!({})));
    let unknown = "/v2/projects/demo/locations/us-central1/operations/nothing";
    for method in ["GET", "DELETE"] {
        let (status, _) = p.call(method, OWN, unknown, None).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn services_are_listed_by_page_and_region() {
    let p = Platform::new().await;
    for name in ["a", "b", "c"] {
        let path = format!("{V2}?serviceId={name}");
        let (status, body) = p.call("POST", OWN, &path, Some(&hello())).await;
        assert_eq!(status, StatusCode::OK, "{body}");
    }
    let first = get(&p, &format!("{V2}?pageSize=2")).await;
    assert_eq!(first["services"].as_array().unwrap().len(), 2);
    let token = first["nextPageToken"].as_str().unwrap();
    let rest = get(&p, &format!("{V2}?pageSize=2&pageToken={token}")).await;
    assert_eq!(rest["services"].as_array().unwrap().len(), 1);
    assert_eq!(rest["nextPageToken"], Value::Null);
    let elsewhere = V2.replace("us-central1", "europe-west1");
    assert_eq!(get(&p, &elsewhere).await, json!({}));
    let everywhere = V2.replace("us-central1", "-");
    let all = get(&p, &everywhere).await;
    assert_eq!(all["services"].as_array().unwrap().len(), 3);
    for (query, field) in [("pageSize=-1", "page_size"), ("nonsense=1", "nonsense")] {
        let (status, body) = p.call("GET", OWN, &format!("{V2}?{query}"), None).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(fields(&body), [field]);
    }
    let (status, body) = p.call("GET", OWN, &format!("{V2}?pageToken=x"), None).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
}

#[tokio::test]
async fn a_policy_is_set_got_and_tested() {
    let p = Platform::new().await;
    created(&p).await;
    let one = format!("{V2}/hello");
    let open =
        json!({"policy": {"bindings": [{"role": "roles/run.invoker", "members": ["allUsers"]}]}});
    let path = format!("{one}:setIamPolicy");
    let (status, body) = p.call("POST", OWN, &path, Some(&open)).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let got = get(&p, &format!("{one}:getIamPolicy")).await;
    assert_eq!(got, body);
    let asked = json!({"permissions": ["run.services.get"]});
    let path = format!("{one}:testIamPermissions");
    let (_, body) = p.call("POST", OWN, &path, Some(&asked)).await;
    assert_eq!(body, asked);
    // gcloud asks before it makes a service.
    let path = format!("{V2}/not-there-yet:testIamPermissions");
    let (_, body) = p.call("POST", OWN, &path, Some(&asked)).await;
    assert_eq!(body, asked);
}

#[tokio::test]
async fn a_deploy_that_fails_is_an_operation_with_an_error() {
    let p = Platform::new().await;
    let made = created(&p).await;
    p.reconcile().await;
    let key = Service::at(&ServiceKey {
        project: "demo".to_owned(),
        region: "us-central1".to_owned(),
        name: "hello".to_owned(),
    });
    for (reason, code, field) in [
        ("HealthCheckContainerError", 9, "revisionReason"),
        ("ContainerMissing", 5, "reason"),
    ] {
        let object = p.store.get(&key).await.unwrap().unwrap();
        let mut service: Service = serde_json::from_slice(&object.body).unwrap();
        for condition in &mut service.status.conditions {
            condition.status = ConditionStatus::False;
            condition.reason = reason.to_owned();
            condition.message = "It does not start.".to_owned();
        }
        let body = serde_json::to_vec(&service).unwrap();
        let txn = Txn::new().put(key.clone(), body);
        p.store.write(txn).await.unwrap();
        let done = get(&p, &operation(&made)).await;
        assert_eq!(done["done"], true);
        assert_eq!(
            done["error"],
            json!({"code": code, "message": "It does not start."})
        );
        assert_eq!(done["response"], Value::Null);
        let ready = &done["metadata"]["terminalCondition"];
        assert_eq!(ready["state"], "CONDITION_FAILED");
        assert_eq!(ready["severity"], "ERROR");
        assert!(ready[field].is_string(), "{ready}");
    }
}

#[tokio::test]
async fn enums_are_numbers_where_the_client_asks_for_them() {
    let p = Platform::new().await;
    created(&p).await;
    p.reconcile().await;
    let one = format!("{V2}/hello");
    let path = format!("{one}?%24alt=json%3Benum-encoding%3Dint");
    let got = get(&p, &path).await;
    assert_eq!(got["ingress"], 1);
    assert_eq!(got["launchStage"], 4);
    assert_eq!(got["traffic"][0]["type"], 1);
    assert_eq!(got["trafficStatuses"][0]["type"], 1);
    assert_eq!(got["terminalCondition"]["state"], 4);
    // Masks and what is put back do not mind.
    let path = format!("{path}&updateMask=labels");
    let (status, body) = p.call("PATCH", OWN, &path, Some(&got)).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(body["done"], true);
    assert_eq!(body["response"]["ingress"], 1);
    assert_eq!(get(&p, &one).await["generation"], "1");
}

#[tokio::test]
async fn locations_are_listed_and_read() {
    let p = Platform::new().await;
    for version in ["v1", "v2"] {
        let all = get(&p, &format!("/{version}/projects/demo/locations")).await;
        let locations = all["locations"].as_array().unwrap();
        assert_eq!(locations.len(), 2);
        assert_eq!(locations[0]["locationId"], "us-central1");
        let one = format!("/{version}/{}", locations[1]["name"].as_str().unwrap());
        assert_eq!(get(&p, &one).await, locations[1]);
        let (status, _) = p
            .call("GET", OWN, &one.replace("europe-west1", "mars"), None)
            .await;
        assert_eq!(status, StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn requests_that_are_none_are_refused() {
    let p = Platform::new().await;
    created(&p).await;
    let one = format!("{V2}/hello");
    for (method, path, body, status) in [
        ("PUT", one.as_str(), None, 404),
        ("POST", &format!("{one}:cancel"), None, 404),
        ("GET", &format!("{one}?alt=xml"), None, 400),
        ("GET", &format!("{V2}/%ff"), None, 400),
        ("GET", &format!("{V2}/hello%2Fx"), None, 404),
        ("GET", &one, Some(json!({"x": 1})), 400),
        ("POST", &format!("{V2}?serviceId=x"), Some(json!([])), 400),
        ("PATCH", &one, Some(json!({"labels": {"a": 1}})), 400),
        ("POST", &format!("{one}:setIamPolicy"), None, 400),
    ] {
        let (got, answer) = p.call(method, OWN, path, body.as_ref()).await;
        assert_eq!(got.as_u16(), status, "{method} {path}: {answer}");
        assert_eq!(answer["error"]["code"], status, "{answer}");
    }
}
