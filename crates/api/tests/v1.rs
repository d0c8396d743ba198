//! The v1 API as its clients use it, request by request.

mod support;

use http::StatusCode;
use serde_json::{Value, json};
use support::{NUMBER, Platform, RUN, SERVICES};

fn hello() -> Value {
    json!({
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {
            "name": "hello", "namespace": "demo", "labels": {}, "generation": null,
            "annotations": {
                "run.googleapis.com/client-name": "gcloud",
                "run.googleapis.com/launch-stage": "BETA",
            },
        },
        "spec": {"template": {
            "metadata": {
                "labels": {"client.knative.dev/nonce": "abc"},
                "annotations": {
                    "run.googleapis.com/startup-cpu-boost": "True",
                    "autoscaling.knative.dev/maxScale": "7",
                    "client.knative.dev/user-image": "hello",
                },
            },
            "spec": {"containers": [{
                "name": "", "image": "hello",
                "env": [{"name": "A", "value": "1"}],
                "resources": {"limits": {"cpu": "1", "memory": "0.5Gi"}, "requests": {}},
            }], "nodeSelector": {}, "timeoutSeconds": "60"},
        }},
        "status": {"address": {}},
    })
}

#[tokio::test]
async fn a_service_lives_from_create_to_delete() {
    let p = Platform::new().await;
    let one = format!("{SERVICES}/hello");
    let (status, body) = p.call("GET", RUN, &one, None).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{body}");
    assert_eq!(body["error"]["status"], "NOT_FOUND");
    assert_eq!(body["error"]["details"][0]["domain"], "run.googleapis.com");

    let (status, body) = p.call("POST", RUN, SERVICES, Some(&hello())).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let (status, again) = p.call("POST", RUN, SERVICES, Some(&hello())).await;
    assert_eq!(status, StatusCode::CONFLICT, "{again}");
    assert_eq!(again["error"]["status"], "ALREADY_EXISTS");

    p.reconcile().await;
    let (_, body) = p.call("GET", RUN, &one, None).await;
    let meta = &body["metadata"];
    assert_eq!(meta["generation"], 1);
    assert_eq!(
        meta["labels"]["cloud.googleapis.com/location"],
        "us-central1"
    );
    assert_eq!(
        meta["annotations"]["run.googleapis.com/launch-stage"],
        "BETA"
    );
    assert_eq!(meta["annotations"]["run.googleapis.com/ingress"], "all");
    assert_eq!(body["status"]["observedGeneration"], 1);
    assert_eq!(body["status"]["conditions"][0]["type"], "Ready");
    assert_eq!(body["status"]["conditions"][0]["status"], "True");
    assert_eq!(
        body["status"]["url"],
        format!("http://hello-{NUMBER}.us-central1.run.localhost:8080")
    );
    assert_eq!(body["status"]["address"]["url"], body["status"]["url"]);
    let template = &body["spec"]["template"];
    assert_eq!(
        template["metadata"]["annotations"]["run.googleapis.com/startup-cpu-boost"],
        "True"
    );
    let spec = &template["spec"];
    assert_eq!(spec["containerConcurrency"], 80);
    assert_eq!(spec["timeoutSeconds"], 60);
    let container = &spec["containers"][0];
    assert_eq!(
        container["ports"],
        json!([{"name": "http1", "containerPort": 8080}])
    );
    assert_eq!(
        container["resources"]["limits"],
        json!({"cpu": "1", "memory": "0.5Gi"})
    );
    assert_eq!(
        body["spec"]["traffic"],
        json!([{"latestRevision": true, "percent": 100}])
    );

    // Putting back what was got changes nothing.
    let (status, same) = p.call("PUT", RUN, &one, Some(&body)).await;
    assert_eq!(status, StatusCode::OK, "{same}");
    assert_eq!(same, body);

    // A change raises the generation; the status is the old one until controllers have seen it.
    let mut changed = body.clone();
    changed["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"] = json!("2");
    let (status, changed) = p.call("PUT", RUN, &one, Some(&changed)).await;
    assert_eq!(status, StatusCode::OK, "{changed}");
    assert_eq!(changed["metadata"]["generation"], 2);
    assert_eq!(changed["status"]["observedGeneration"], 1);
    // The object of before the change is stale now.
    let mut stale = body.clone();
    stale["spec"]["template"]["spec"]["timeoutSeconds"] = json!(61);
    let (status, conflict) = p.call("PUT", RUN, &one, Some(&stale)).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(conflict["error"]["status"], "ABORTED");
    // A status that moved on is no conflict.
    p.reconcile().await;
    let (status, body) = p.call("PUT", RUN, &one, Some(&changed)).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(body["metadata"]["generation"], 2);

    let revisions = "/apis/serving.knative.dev/v1/namespaces/demo/revisions";
    let mine = format!("{revisions}?labelSelector=serving.knative.dev/service = hello&limit=1");
    let (status, first) = p.call("GET", RUN, &mine, None).await;
    assert_eq!(status, StatusCode::OK, "{first}");
    assert_eq!(first["items"][0]["metadata"]["name"], "hello-00001-abc");
    let next = first["metadata"]["continue"].as_str().unwrap();
    let (_, second) = p
        .call("GET", RUN, &format!("{mine}&continue={next}"), None)
        .await;
    let revision = &second["items"][0];
    assert_eq!(revision["metadata"]["name"], "hello-00002-abc");
    assert_eq!(
        revision["metadata"]["labels"]["client.knative.dev/nonce"],
        "abc"
    );
    assert_eq!(
        revision["metadata"]["labels"]["serving.knative.dev/configurationGeneration"],
        "2"
    );
    assert_eq!(
        revision["metadata"]["annotations"]["autoscaling.knative.dev/maxScale"],
        "7"
    );
    assert!(
        revision["status"]["imageDigest"]
            .as_str()
            .unwrap()
            .contains("@sha256:")
    );
    assert_eq!(second["metadata"]["continue"], Value::Null);

    let (status, body) = p
        .call("DELETE", RUN, &format!("{revisions}/hello-00002-abc"), None)
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    let (status, _) = p
        .call("DELETE", RUN, &format!("{revisions}/hello-00001-abc"), None)
        .await;
    assert_eq!(status, StatusCode::OK);

    for view in ["routes", "configurations"] {
        let path = format!("/apis/serving.knative.dev/v1/namespaces/demo/{view}/hello");
        let (status, body) = p.call("GET", RUN, &path, None).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(body["status"]["conditions"][0]["type"], "Ready");
        assert_eq!(
            body["metadata"]["labels"]["serving.knative.dev/service"],
            "hello"
        );
    }

    let (status, body) = p.call("DELETE", RUN, &one, None).await;
    assert_eq!(
        (status, &body["status"]),
        (StatusCode::OK, &json!("Success"))
    );
    let (_, body) = p.call("GET", RUN, &one, None).await;
    assert_ne!(body["metadata"]["deletionTimestamp"], Value::Null);
    p.reconcile().await;
    let (status, _) = p.call("GET", RUN, &one, None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn every_violation_is_named_and_nothing_stored() {
    let p = Platform::new().await;
    let mut bad = hello();
    bad["metadata"]["name"] = json!("Bad_Name");
    bad["metadata"]["namespace"] = json!("other");
    bad["metadata"]["annotations"]["run.googleapis.com/ingress"] = json!("internal");
    bad["metadata"]["annotations"]["run.googleapis.com/iap-enabled"] = json!("true");
    let template = &mut bad["spec"]["template"];
    template["metadata"]["annotations"]["autoscaling.knative.dev/minScale"] = json!("many");
    template["metadata"]["annotations"]["run.googleapis.com/cloudsql-instances"] = json!("a:b:c");
    let spec = &mut template["spec"];
    spec["volumes"] = json!([{"name": "v"}]);
    spec["containerConcurrency"] = json!(1001);
    spec["containers"][0]["env"] = json!([{"name": "S", "valueFrom": {"secretKeyRef": {}}}]);
    spec["containers"][0]["resources"]["limits"]["cpu"] = json!("three");
    spec["containers"][0]["livenessProbe"] = json!({"httpGet": {"path": "x", "port": 99999}});
    let at = "spec.template.spec.containers[0]";
    let (status, body) = p.call("POST", RUN, SERVICES, Some(&bad)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let fields: Vec<&str> = body["error"]["details"][0]["fieldViolations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v["field"].as_str().unwrap())
        .collect();
    for field in [
        "metadata.namespace",
        "metadata.annotations[run.googleapis.com/ingress]",
        "metadata.annotations[run.googleapis.com/iap-enabled]",
        "metadata.name",
        "spec.template.metadata.annotations[autoscaling.knative.dev/minScale]",
        "spec.template.metadata.annotations[run.googleapis.com/cloudsql-instances]",
        "spec.template.spec.volumes",
        "spec.template.spec.containerConcurrency",
        &format!("{at}.env[0].valueFrom"),
        &format!("{at}.resources.limits.cpu"),
        &format!("{at}.livenessProbe.httpGet.port"),
        &format!("{at}.livenessProbe.httpGet.path"),
    ] {
        assert!(fields.contains(&field), "{field} in {fields:?}");
    }
    let (_, list) = p.call("GET", RUN, SERVICES, None).await;
    assert_eq!(list["items"], json!([]));

    for (body, message) in [
        ("{", "Invalid JSON payload"),
        ("[]", "Invalid JSON payload"),
        ("{\"spec\": {\"template\": 3}}", "spec.template"),
        ("{} x", "Invalid JSON payload"),
        ("{}", "spec.template.spec.containers"),
    ] {
        let request = http::Request::post(SERVICES)
            .header("host", RUN)
            .header("authorization", format!("Bearer {}", p.token))
            .body(axum::body::Body::from(body))
            .unwrap();
        let (status, reply) = p.send(request).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        let text = reply["error"]["message"].as_str().unwrap();
        assert!(text.contains(message), "{body}: {text}");
    }
}

#[tokio::test]
async fn places_are_told_apart() {
    let p = Platform::new().await;
    let europe = "europe-west1-run.googleapis.com";
    p.call("POST", RUN, SERVICES, Some(&hello())).await;
    let number = SERVICES.replace("demo", &NUMBER.to_string());
    let mut mine = hello();
    mine["metadata"]["namespace"] = json!(NUMBER.to_string());
    let (status, body) = p.call("POST", europe, &number, Some(&mine)).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let count = |body: &Value| body["items"].as_array().unwrap().len();
    let (_, list) = p.call("GET", europe, SERVICES, None).await;
    assert_eq!(count(&list), 1);
    let all = "/v1/projects/demo/locations/-/services";
    let (_, list) = p.call("GET", "run.googleapis.com", all, None).await;
    assert_eq!(count(&list), 2);
    let (_, list) = p
        .call(
            "GET",
            "run.googleapis.com",
            "/v1/projects/demo/locations",
            None,
        )
        .await;
    assert_eq!(list["locations"][1]["locationId"], "europe-west1");
    for (host, path, named) in [
        ("mars-run.googleapis.com", SERVICES.to_owned(), "mars"),
        (RUN, SERVICES.replace("demo", "other"), "other"),
        (RUN, "/apis/nothing".to_owned(), "/apis/nothing"),
    ] {
        let (status, body) = p.call("GET", host, &path, None).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert!(
            body["error"]["message"].as_str().unwrap().contains(named),
            "{body}"
        );
    }
    let (status, _) = p
        .call("GET", "translate.googleapis.com", "/v1/x", None)
        .await;
    assert_eq!(status, StatusCode::NOT_IMPLEMENTED);
    let stranger = http::Request::get(SERVICES).header("host", RUN);
    let (status, body) = p
        .send(stranger.body(axum::body::Body::empty()).unwrap())
        .await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert_eq!(body["error"]["status"], "UNAUTHENTICATED");
    let (status, _) = p
        .call("POST", RUN, SERVICES, Some(&json!("x".repeat(5 << 20))))
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn dry_run_stores_nothing() {
    let p = Platform::new().await;
    let dry = format!("{SERVICES}?dryRun=all");
    let (status, body) = p.call("POST", RUN, &dry, Some(&hello())).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let (status, _) = p.call("GET", RUN, &format!("{SERVICES}/hello"), None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_policy_opens_a_service_and_goes_with_it() {
    let p = Platform::new().await;
    let global = "run.googleapis.com";
    let at = |verb: &str| format!("/v1/projects/demo/locations/us-central1/services/hello:{verb}");
    let (status, _) = p.call("GET", global, &at("getIamPolicy"), None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    p.call("POST", RUN, SERVICES, Some(&hello())).await;
    let (_, policy) = p
        .call(
            "GET",
            global,
            &at("getIamPolicy?options.requestedPolicyVersion=3"),
            None,
        )
        .await;
    let etag = policy["etag"].as_str().unwrap().to_owned();
    let open = |etag: &str| {
        json!({"policy": {"etag": etag, "version": 3, "bindings":
            [{"role": "roles/run.invoker", "members": ["allUsers"]}]}})
    };
    let set = at("setIamPolicy");
    let (status, body) = p.call("POST", global, &set, Some(&open(&etag))).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let (status, body) = p.call("POST", global, &set, Some(&open(&etag))).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(body["error"]["status"], "ABORTED");
    let (_, policy) = p.call("GET", global, &at("getIamPolicy"), None).await;
    assert_eq!(policy["bindings"][0]["members"][0], "allUsers");
    // gcloud sends the etag back in the other alphabet and without padding.
    let etag = policy["etag"].as_str().unwrap();
    let etag = etag.replace('+', "-").replace('/', "_").replace('=', "");
    let (status, body) = p.call("POST", global, &set, Some(&open(&etag))).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let bad = json!({"policy": {"bindings": [{"role": "x", "members": ["me"], "condition": {"expression": "true"}}]}});
    let (status, body) = p.call("POST", global, &set, Some(&bad)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let found = &body["error"]["details"][0]["fieldViolations"];
    assert_eq!(found.as_array().unwrap().len(), 3, "{found}");

    p.call("DELETE", RUN, &format!("{SERVICES}/hello"), None)
        .await;
    p.reconcile().await;
    p.call("POST", RUN, SERVICES, Some(&hello())).await;
    let (_, policy) = p.call("GET", global, &at("getIamPolicy"), None).await;
    assert_eq!(policy["bindings"], Value::Null);
}
