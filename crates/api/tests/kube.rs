//! The Kubernetes face as its clients use it, request by request.

mod support;

use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use support::{Platform, RUN, SERVICES};
use tower::ServiceExt as _;

const HERE: &str = "127.0.0.1:8080";
/// What `lauf kubeconfig` puts before every path.
const CLUSTER: &str = "/kubernetes/us-central1";

const JSON_PATCH: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

fn url(rest: &str) -> String {
    format!("{CLUSTER}{SERVICES}{rest}")
}

fn hello() -> Value {
    json!({
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "hello", "namespace": "demo", "labels": {"app": "hello"}},
        "spec": {
            "template": {
                "metadata": {"annotations": {
                    "autoscaling.knative.dev/min-scale": "1",
                    "autoscaling.knative.dev/target": "10",
                }},
                "spec": {"containerConcurrency": 0, "containers": [{
                    "image": "hello",
                    "ports": [{"containerPort": 8080}],
                    "env": [{"name": "TARGET", "value": "World"}],
                    "resources": {"limits": {"cpu": "1"}},
                }]},
            },
            "traffic": [{"latestRevision": true, "percent": 100}],
        },
    })
}

/// A request with headers, and its answer with the content type.
async fn ask(
    p: &Platform,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl ToString,
) -> (u16, String, Value) {
    let mut request = Request::builder()
        .method(method)
        .uri(path.replace(' ', "%20"))
        .header("host", HERE)
        .header("authorization", format!("Bearer {}", p.token));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::from(body.to_string())).unwrap();
    let reply = p.router.clone().oneshot(request).await.unwrap();
    let status = reply.status().as_u16();
    let kind = reply.headers().get("content-type");
    let kind = kind.map_or("", |value| value.to_str().unwrap()).to_owned();
    let body = reply.into_body().collect().await.unwrap().to_bytes();
    let value = serde_json::from_slice(&body)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned()));
    (status, kind, value)
}

async fn get(p: &Platform, path: &str) -> Value {
    let (status, _, body) = ask(p, "GET", path, &[], "").await;
    assert_eq!(status, 200, "{path}: {body}");
    body
}

async fn patch(p: &Platform, kind: &str, query: &str, patch: &Value) -> (u16, Value) {
    let path = url(&format!("/hello{query}"));
    let (status, _, body) = ask(p, "PATCH", &path, &[("content-type", kind)], patch).await;
    (status, body)
}

async fn create(p: &Platform, object: &Value) -> Value {
    let (status, _, body) = ask(p, "POST", &url(""), &[], object).await;
    assert_eq!(status, 201, "{body}");
    body
}

/// A watch, event by event.
struct Events {
    body: Body,
    rest: Vec<u8>,
}

impl Events {
    async fn open(p: &Platform, path: &str) -> Self {
        let request = Request::builder()
            .uri(path.replace(' ', "%20"))
            .header("host", HERE)
            .header("authorization", format!("Bearer {}", p.token))
            .body(Body::empty())
            .unwrap();
        let reply = p.router.clone().oneshot(request).await.unwrap();
        assert_eq!(reply.status(), StatusCode::OK);
        Self {
            body: reply.into_body(),
            rest: Vec::new(),
        }
    }

    /// The next event's type, name and object.
    async fn next(&mut self) -> Option<(String, String, Value)> {
        while !self.rest.contains(&b'\n') {
            let frame = self.body.frame().await?.unwrap();
            self.rest.extend(frame.into_data().unwrap());
        }
        let end = self.rest.iter().position(|b| *b == b'\n').unwrap();
        let line: Vec<u8> = self.rest.drain(..=end).collect();
        let event: Value = serde_json::from_slice(&line).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let object = event["object"].clone();
        Some((
            text(&event["type"]),
            text(&object["metadata"]["name"]),
            object,
        ))
    }

    async fn expect(&mut self, kind: &str, name: &str) -> Value {
        let (got_kind, got_name, object) = self.next().await.unwrap();
        assert_eq!(
            (got_kind.as_str(), got_name.as_str()),
            (kind, name),
            "{object}"
        );
        object
    }
}

#[tokio::test]
async fn there_is_what_discovery_says() {
    let p = Platform::new().await;
    let version = get(&p, "/version").await;
    assert!(version["gitVersion"].as_str().unwrap().starts_with("v1."));
    assert_eq!(get(&p, "/api").await["versions"], json!(["v1"]));
    let groups = get(&p, &format!("{CLUSTER}/apis")).await;
    let names: Vec<&Value> = groups["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|g| &g["name"])
        .collect();
    assert!(names.contains(&&json!("serving.knative.dev")), "{groups}");
    let resources = get(&p, "/apis/serving.knative.dev/v1").await;
    let resources = resources["resources"].as_array().unwrap();
    let services = resources.iter().find(|r| r["name"] == "services").unwrap();
    assert_eq!(services["shortNames"], json!(["kservice", "ksvc"]));
    let verbs = services["verbs"].as_array().unwrap();
    assert!(verbs.contains(&json!("patch")) && verbs.contains(&json!("watch")));
    // All in one answer, for those who know that form.
    let accept =
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let (_, kind, all) = ask(&p, "GET", "/apis", &[("accept", accept)], "").await;
    assert_eq!(
        kind,
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    );
    assert_eq!(all["kind"], "APIGroupDiscoveryList");
    // Namespaces are projects.
    let namespaces = get(&p, "/api/v1/namespaces").await;
    assert_eq!(namespaces["items"][0]["metadata"]["name"], "demo");
    assert_eq!(
        get(&p, "/api/v1/namespaces/demo").await["status"]["phase"],
        "Active"
    );
}

#[tokio::test]
async fn documents_come_in_the_forms_that_clients_read() {
    let p = Platform::new().await;
    let (_, _, document) = ask(&p, "GET", "/openapi/v2", &[], "").await;
    let service = &document["definitions"]["dev.knative.serving.v1.Service"];
    assert_eq!(
        service["x-kubernetes-group-version-kind"][0]["kind"],
        "Service"
    );
    // `@` must not stand in a media type, and Go does not read one that has it: the older name is
    // answered with the newer.
    let name = |divider: &str| {
        format!("application/com.github.proto-openapi.spec.v2{divider}v1.0+protobuf")
    };
    for divider in ["@", "."] {
        let accept = name(divider);
        let (status, kind, _) = ask(&p, "GET", "/openapi/v2", &[("accept", &accept)], "").await;
        assert_eq!((status, kind), (200, name(".")));
    }
    let index = get(&p, "/openapi/v3").await;
    let address = &index["paths"]["apis/serving.knative.dev/v1"]["serverRelativeURL"];
    let document = get(&p, address.as_str().unwrap()).await;
    let path = "/apis/serving.knative.dev/v1/namespaces/{namespace}/services/{name}";
    let parameters = document["paths"][path]["patch"]["parameters"]
        .as_array()
        .unwrap();
    assert!(
        parameters
            .iter()
            .any(|parameter| parameter["name"] == "fieldValidation")
    );
    // What is not spoken is declined, and what else a client would take is used.
    let path = url("");
    let only = [("accept", "application/vnd.kubernetes.protobuf")];
    let (status, _, body) = ask(&p, "GET", &path, &only, "").await;
    assert_eq!((status, &body["reason"]), (406, &json!("NotAcceptable")));
    let either = [(
        "accept",
        "application/vnd.kubernetes.protobuf,application/json",
    )];
    assert_eq!(ask(&p, "GET", &path, &either, "").await.0, 200);
    let sent = [("content-type", "application/vnd.kubernetes.protobuf")];
    let (status, _, body) = ask(&p, "POST", &path, &sent, "k8s").await;
    assert_eq!(
        (status, &body["reason"]),
        (415, &json!("UnsupportedMediaType"))
    );
    let (_, kind, yaml) = ask(&p, "GET", &path, &[("accept", "application/yaml")], "").await;
    assert_eq!(kind, "application/yaml");
    assert!(yaml.as_str().unwrap().contains("kind: ServiceList"));
}

#[tokio::test]
async fn errors_are_in_the_form_of_the_face_that_was_asked() {
    let p = Platform::new().await;
    let (_, _, body) = ask(&p, "GET", &url("/none"), &[], "").await;
    assert_eq!(
        body,
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "services.serving.knative.dev \"none\" not found",
            "reason": "NotFound", "code": 404,
            "details": {"name": "none", "group": "serving.knative.dev", "kind": "services"},
        })
    );
    // The same path on Google's host, or for a client of Google's.
    let (_, body) = p.call("GET", RUN, &format!("{SERVICES}/none"), None).await;
    assert_eq!(body["error"]["status"], "NOT_FOUND");
    let terraform = [("user-agent", "Terraform/1.11 terraform-provider-google/7.1")];
    let (_, _, body) = ask(&p, "GET", &format!("{SERVICES}/none"), &terraform, "").await;
    assert_eq!(body["error"]["status"], "NOT_FOUND");
    // And for kubectl, whose address has no cluster in it.
    let kubectl = [(
        "user-agent",
        "kubectl/v1.33.0 (linux/amd64) kubernetes/8adc0f0",
    )];
    let (_, _, body) = ask(&p, "GET", &format!("{SERVICES}/none"), &kubectl, "").await;
    assert_eq!(body["kind"], "Status");

    for (path, code) in [
        ("/kubernetes/us-central1/api/v1/namespaces/none", 404),
        ("/kubernetes/us-central1/api/v1/namespaces/demo/pods", 404),
        (
            "/kubernetes/mars/apis/serving.knative.dev/v1/namespaces/demo/services",
            404,
        ),
        (
            "/kubernetes/us-central1/apis/serving.knative.dev/v1/namespaces/none/services",
            404,
        ),
        ("/kubernetes/us-central1/apis/serving.knative.dev/v2", 404),
    ] {
        let (status, _, body) = ask(&p, "GET", path, &[], "").await;
        assert_eq!((status, &body["kind"]), (code, &json!("Status")), "{path}");
    }
    let request = Request::builder()
        .uri("/apis")
        .header("host", HERE)
        .body(Body::empty());
    let (status, body) = p.send(request.unwrap()).await;
    assert_eq!(
        (status.as_u16(), &body["reason"]),
        (401, &json!("Unauthorized"))
    );
}

#[tokio::test]
async fn an_object_comes_back_as_it_was_said_with_defaults_beside_it() {
    let p = Platform::new().await;
    let sent = hello();
    let made = create(&p, &sent).await;
    let template = &made["spec"]["template"];
    let container = &template["spec"]["containers"][0];
    assert_eq!(template["spec"]["containerConcurrency"], 0);
    assert_eq!(
        container["resources"]["limits"],
        json!({"cpu": "1", "memory": "512Mi"})
    );
    assert_eq!(template["metadata"], sent["spec"]["template"]["metadata"]);
    // Applying the same file again, as kubectl does, finds nothing to change.
    for field in ["traffic", "template"] {
        let (status, body) = patch(
            &p,
            MERGE,
            "",
            &json!({"spec": {field: sent["spec"][field]}}),
        )
        .await;
        assert_eq!(
            (status, &body["metadata"]["generation"]),
            (200, &json!(1)),
            "{body}"
        );
    }
    // The other faces see the meaning.
    let (_, body) = p.call("GET", RUN, &format!("{SERVICES}/hello"), None).await;
    assert_eq!(body["spec"]["template"]["spec"]["containerConcurrency"], 80);
    let notes = &body["spec"]["template"]["metadata"]["annotations"];
    assert_eq!(notes["autoscaling.knative.dev/min-scale"], "1");
    assert!(body["metadata"]["managedFields"].is_null());
    // And what they change is seen here, the rest being as it was said.
    let mut changed = body.clone();
    changed["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"] = json!("Moon");
    let (status, _) = p
        .call("PUT", RUN, &format!("{SERVICES}/hello"), Some(&changed))
        .await;
    assert_eq!(status, StatusCode::OK);
    let body = get(&p, &url("/hello")).await;
    let spec = &body["spec"]["template"]["spec"];
    assert_eq!(spec["containers"][0]["env"][0]["value"], "Moon");
    assert_eq!(spec["containerConcurrency"], 0);
    let managers = body["metadata"]["managedFields"].as_array().unwrap();
    for name in ["unknown", "lauf"] {
        assert!(managers.iter().any(|m| m["manager"] == name), "{body}");
    }
}

#[tokio::test]
async fn tables_have_knatives_columns() {
    let p = Platform::new().await;
    create(&p, &hello()).await;
    p.reconcile().await;
    let accept = [(
        "accept",
        "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
    )];
    let (_, _, table) = ask(&p, "GET", &url(""), &accept, "").await;
    let names: Vec<&str> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "Name",
            "URL",
            "LatestCreated",
            "LatestReady",
            "Ready",
            "Reason"
        ]
    );
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(cells.len(), names.len());
    assert_eq!(
        (&cells[0], &cells[4], &cells[5]),
        (&json!("hello"), &json!("True"), &Value::Null)
    );
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let path = format!("{CLUSTER}/apis/serving.knative.dev/v1/namespaces/demo/revisions");
    let (_, _, table) = ask(&p, "GET", &path, &accept, "").await;
    assert_eq!(table["rows"][0]["cells"][1], "hello");
    assert_eq!(table["rows"][0]["cells"][2], "1");
    let accept = [(
        "accept",
        "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    )];
    let (_, _, list) = ask(&p, "GET", &url(""), &accept, "").await;
    assert_eq!(list["items"][0]["spec"], Value::Null);
}

#[tokio::test]
async fn lists_are_selected_and_paged() {
    let p = Platform::new().await;
    for name in ["a", "b", "c", "d"] {
        let mut object = hello();
        object["metadata"]["name"] = json!(name);
        object["metadata"]["labels"] = json!({"odd": (name == "a" || name == "c").to_string()});
        create(&p, &object).await;
    }
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap().iter();
        items
            .map(|o| o["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        names(&get(&p, &url("?labelSelector=odd = true")).await),
        ["a", "c"]
    );
    assert_eq!(
        names(&get(&p, &url("?fieldSelector=metadata.name=b")).await),
        ["b"]
    );
    assert_eq!(
        names(
            &get(
                &p,
                &url("?fieldSelector=metadata.name!=b&labelSelector=odd=false")
            )
            .await
        ),
        ["d"]
    );
    let everywhere = get(
        &p,
        "/kubernetes/us-central1/apis/serving.knative.dev/v1/services",
    )
    .await;
    assert_eq!(names(&everywhere), ["a", "b", "c", "d"]);
    let elsewhere = get(
        &p,
        "/kubernetes/europe-west1/apis/serving.knative.dev/v1/services",
    )
    .await;
    assert!(names(&elsewhere).is_empty());
    let first = get(&p, &url("?limit=3")).await;
    assert_eq!(names(&first), ["a", "b", "c"]);
    let next = first["metadata"]["continue"].as_str().unwrap();
    // Written between the pages: a watch from the list's version must tell it.
    ask(&p, "DELETE", &url("/a"), &[], "").await;
    let second = get(&p, &url(&format!("?limit=3&continue={next}"))).await;
    assert_eq!(names(&second), ["d"]);
    assert_eq!(
        second["metadata"]["resourceVersion"],
        first["metadata"]["resourceVersion"]
    );
    assert!(second["metadata"]["continue"].is_null());
    for wrong in [
        "?continue=x",
        "?limit=-1",
        "?fieldSelector=spec.x=1",
        "?labelSelector=a in",
    ] {
        let (status, _, _) = ask(&p, "GET", &url(wrong), &[], "").await;
        assert!(status == 400 || status == 422, "{wrong}: {status}");
    }
    let later = get(&p, &url("")).await["metadata"]["resourceVersion"].clone();
    let later: u64 = later.as_str().unwrap().parse().unwrap();
    let (status, _, _) = ask(
        &p,
        "GET",
        &url(&format!("?resourceVersion={}", later + 9)),
        &[],
        "",
    )
    .await;
    assert_eq!(status, 504);
    let (status, _, _) = ask(
        &p,
        "GET",
        &url("?resourceVersion=1&resourceVersionMatch=Exact"),
        &[],
        "",
    )
    .await;
    assert_eq!(status, 410);
}

#[tokio::test]
async fn a_watch_tells_every_change_in_order() {
    let p = Platform::new().await;
    create(&p, &hello()).await;
    let version = get(&p, &url("")).await["metadata"]["resourceVersion"].clone();
    let version = version.as_str().unwrap();
    let mut watch = Events::open(&p, &url(&format!("?watch=true&resourceVersion={version}"))).await;
    patch(&p, MERGE, "", &json!({"metadata": {"labels": {"x": "1"}}})).await;
    let seen = watch.expect("MODIFIED", "hello").await;
    assert_eq!(seen["metadata"]["labels"]["x"], "1");
    let mut other = hello();
    other["metadata"]["name"] = json!("other");
    create(&p, &other).await;
    watch.expect("ADDED", "other").await;
    ask(&p, "DELETE", &url("/other"), &[], "").await;
    let marked = watch.expect("MODIFIED", "other").await;
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    p.reconcile().await;
    // The stand-in for the controllers makes the one ready and removes the other.
    loop {
        let (kind, name, object) = watch.next().await.unwrap();
        if kind == "DELETED" {
            assert_eq!(name, "other");
            assert!(object["metadata"]["resourceVersion"].is_string());
            break;
        }
        assert_eq!((kind.as_str(), name.as_str()), ("MODIFIED", "hello"));
    }
    // Without a version it begins with what there is; with bookmarks its end is marked.
    let mut watch = Events::open(
        &p,
        &url("?watch=1&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"),
    )
    .await;
    watch.expect("ADDED", "hello").await;
    let mark = watch.expect("BOOKMARK", "").await;
    assert_eq!(
        mark["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    // A table's headings come once.
    let path = url("?watch=1");
    let request = Request::builder()
        .uri(path)
        .header("host", HERE)
        .header("authorization", format!("Bearer {}", p.token))
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(Body::empty());
    let reply = p.router.clone().oneshot(request.unwrap()).await.unwrap();
    let mut watch = Events {
        body: reply.into_body(),
        rest: Vec::new(),
    };
    let (_, _, table) = watch.next().await.unwrap();
    assert!(table["columnDefinitions"].is_array());
    patch(&p, MERGE, "", &json!({"metadata": {"labels": {"x": "2"}}})).await;
    let (_, _, table) = watch.next().await.unwrap();
    assert!(table["columnDefinitions"].is_null());
    assert_eq!(table["rows"][0]["cells"][0], "hello");
}

#[tokio::test]
async fn a_watch_with_a_selector_tells_what_comes_and_goes() {
    let p = Platform::new().await;
    create(&p, &hello()).await;
    let list = get(&p, &url("?labelSelector=app=hello")).await;
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    let path = url(&format!(
        "?watch=true&labelSelector=app=hello&resourceVersion={version}"
    ));
    let mut watch = Events::open(&p, &path).await;
    let mut other = hello();
    other["metadata"]["name"] = json!("other");
    other["metadata"]["labels"] = json!({"app": "other"});
    create(&p, &other).await;
    let label = |app: &str| json!({"metadata": {"labels": {"app": app}}});
    patch(&p, MERGE, "", &label("changed")).await;
    watch.expect("DELETED", "hello").await;
    patch(&p, MERGE, "", &label("again")).await;
    patch(&p, MERGE, "", &label("hello")).await;
    watch.expect("ADDED", "hello").await;
    // One name, which is how `kubectl wait` watches.
    let mut watch = Events::open(&p, &url("?watch=true&fieldSelector=metadata.name=other")).await;
    watch.expect("ADDED", "other").await;
}

/// `kubectl delete` lists one name and then watches it until it is gone. It waited for ever for what
/// went between the two.
#[tokio::test]
async fn a_watch_with_a_selector_tells_what_went_before_it_began() {
    let p = Platform::new().await;
    create(&p, &hello()).await;
    let one = "fieldSelector=metadata.name=hello";
    assert_eq!(ask(&p, "DELETE", &url("/hello"), &[], "").await.0, 200);
    let list = get(&p, &url(&format!("?{one}"))).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    p.reconcile().await;
    let path = format!("?watch=true&{one}&resourceVersion={version}");
    let mut watch = Events::open(&p, &url(&path)).await;
    // Something follows, so that a watch that missed the end is found out rather than waited for.
    create(&p, &hello()).await;
    watch.expect("DELETED", "hello").await;
    watch.expect("ADDED", "hello").await;
    // Nobody is told of the end of what was never selected.
    let mut other = hello();
    other["metadata"]["name"] = json!("other");
    create(&p, &other).await;
    assert_eq!(ask(&p, "DELETE", &url("/other"), &[], "").await.0, 200);
    p.reconcile().await;
    let label = json!({"metadata": {"labels": {"app": "again"}}});
    patch(&p, MERGE, "", &label).await;
    let (kind, name, _) = watch.next().await.unwrap();
    assert_eq!((kind.as_str(), name.as_str()), ("MODIFIED", "hello"));
}

#[tokio::test]
async fn a_watch_from_too_long_ago_is_told_to_start_over() {
    let p = Platform::with_history(4).await;
    create(&p, &hello()).await;
    let begin = get(&p, &url("")).await["metadata"]["resourceVersion"].clone();
    let begin = begin.as_str().unwrap();
    // Open before the history goes, and never read meanwhile.
    let mut slow = Events::open(&p, &url(&format!("?watch=true&resourceVersion={begin}"))).await;
    for i in 0..300 {
        patch(
            &p,
            MERGE,
            "",
            &json!({"metadata": {"labels": {"x": i.to_string()}}}),
        )
        .await;
    }
    let path = url(&format!("?watch=true&resourceVersion={begin}"));
    let (status, _, body) = ask(&p, "GET", &path, &[], "").await;
    assert_eq!((status, &body["reason"]), (410, &json!("Expired")));
    assert!(
        body["message"]
            .as_str()
            .unwrap()
            .starts_with("too old resource version")
    );
    let (status, _, _) = ask(
        &p,
        "GET",
        &url("?watch=true&resourceVersion=999999"),
        &[],
        "",
    )
    .await;
    assert_eq!(status, 410);
    loop {
        let (kind, _, object) = slow.next().await.expect("an error before the end");
        if kind == "ERROR" {
            assert_eq!(
                (&object["code"], &object["reason"]),
                (&json!(410), &json!("Expired"))
            );
            break;
        }
    }
    assert!(slow.next().await.is_none());
}

#[tokio::test]
async fn every_kind_of_patch_changes_what_it_says() {
    let p = Platform::new().await;
    create(&p, &hello()).await;
    let env = |body: &Value| body["spec"]["template"]["spec"]["containers"][0]["env"].clone();
    let (status, body) = patch(
        &p,
        JSON_PATCH,
        "",
        &json!([
            {"op": "test", "path": "/metadata/labels/app", "value": "hello"},
            {"op": "add", "path": "/spec/template/spec/containers/0/env/-", "value": {"name": "B", "value": "2"}},
        ]),
    )
    .await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(env(&body)[1], json!({"name": "B", "value": "2"}));
    let container =
        |env: Value| json!({"spec": {"template": {"spec": {"containers": [{ "env": env }]}}}});
    let (status, body) = patch(
        &p,
        STRATEGIC,
        "",
        &container(json!([{"name": "C", "value": "3"}, {"name": "B", "$patch": "delete"}])),
    )
    .await;
    assert_eq!(status, 200, "{body}");
    let wanted = json!([{"name": "TARGET", "value": "World"}, {"name": "C", "value": "3"}]);
    assert_eq!(env(&body), wanted);
    // The image is still there: the list was merged. A merge patch replaces it.
    let (status, body) = patch(&p, MERGE, "", &container(json!([]))).await;
    assert_eq!(status, 422, "{body}");
    assert_eq!(body["reason"], "Invalid");
    let causes = body["details"]["causes"].as_array().unwrap();
    assert!(
        causes
            .iter()
            .any(|c| c["field"] == "spec.template.spec.containers[0].image"),
        "{body}"
    );
    // A default that is changed becomes a wish; the port that nobody asked for clashes with none.
    let (status, body) = patch(
        &p,
        STRATEGIC,
        "",
        &json!({"spec": {"template": {"spec": {"timeoutSeconds": 60}}}}),
    )
    .await;
    assert_eq!(
        (status, &body["spec"]["template"]["spec"]["timeoutSeconds"]),
        (200, &json!(60))
    );
    for (kind, wrong, code) in [
        (
            JSON_PATCH,
            json!([{"op": "test", "path": "/metadata/name", "value": "x"}]),
            422,
        ),
        (
            JSON_PATCH,
            json!([{"op": "replace", "path": "/metadata/name", "value": "x"}]),
            400,
        ),
        (JSON_PATCH, json!({}), 400),
        (MERGE, json!([]), 400),
        (MERGE, json!({"kind": "Pod"}), 400),
        (MERGE, json!({"metadata": {"resourceVersion": "1"}}), 409),
        (MERGE, json!({"metadata": {"uid": "1"}}), 409),
        (
            MERGE,
            json!({"spec": {"traffic": [{"latestRevision": true, "percent": 90}]}}),
            422,
        ),
        ("application/json", json!({}), 415),
    ] {
        let (status, body) = patch(&p, kind, "", &wrong).await;
        assert_eq!(status, code, "{kind} {wrong}: {body}");
    }
    let before = get(&p, &url("/hello")).await;
    let (status, body) = patch(
        &p,
        MERGE,
        "?dryRun=All",
        &json!({"metadata": {"labels": {"d": "1"}}}),
    )
    .await;
    assert_eq!(
        (status, &body["metadata"]["labels"]["d"]),
        (200, &json!("1"))
    );
    assert_eq!(get(&p, &url("/hello")).await, before);
}

#[tokio::test]
async fn server_side_apply_shares_an_object_among_managers() {
    let p = Platform::new().await;
    let apply = async |manager: &str, force: bool, object: &Value| {
        let query = format!("?fieldManager={manager}&force={force}");
        patch(&p, APPLY, &query, object).await
    };
    let (status, _) = patch(&p, APPLY, "", &hello()).await;
    assert_eq!(status, 422);
    // The first makes it.
    let mut first = hello();
    first["spec"]["template"]["spec"]["containers"][0]
        .as_object_mut()
        .unwrap()
        .remove("ports");
    let (status, body) = apply("ann", false, &first).await;
    assert_eq!(status, 201, "{body}");
    let entry = &body["metadata"]["managedFields"][0];
    assert_eq!(
        (&entry["manager"], &entry["operation"]),
        (&json!("ann"), &json!("Apply"))
    );
    // Again: nothing is written.
    let (status, again) = apply("ann", false, &first).await;
    assert_eq!((status, &again), (200, &body));
    // Another brings a variable and a port of its own; the default port is nobody's.
    let second = json!({
        "apiVersion": "serving.knative.dev/v1", "kind": "Service",
        "spec": {"template": {"spec": {"containers": [{
            "env": [{"name": "B", "value": "2"}], "ports": [{"containerPort": 9090}],
        }]}}},
    });
    let (status, body) = apply("ben", false, &second).await;
    assert_eq!(status, 200, "{body}");
    let container = body["spec"]["template"]["spec"]["containers"][0].clone();
    assert_eq!(container["image"], "hello");
    assert_eq!(container["ports"][0]["containerPort"], 9090);
    assert_eq!(container["env"].as_array().unwrap().len(), 2);
    // What is another's is refused, with who and where.
    let mut clash = second.clone();
    clash["spec"]["template"]["spec"]["containers"][0]["env"] =
        json!([{"name": "TARGET", "value": "Moon"}]);
    let (status, body) = apply("ben", false, &clash).await;
    assert_eq!((status, &body["reason"]), (409, &json!("Conflict")));
    let path = ".spec.template.spec.containers[name=\"\"].env[name=\"TARGET\"].value";
    assert_eq!(
        body["details"]["causes"],
        json!([{"reason": "FieldManagerConflict", "message": "conflict with \"ann\"", "field": path}])
    );
    assert_eq!(
        body["message"],
        format!("Apply failed with 1 conflict: conflict with \"ann\": {path}")
    );
    let (status, body) = apply("ben", true, &clash).await;
    assert_eq!(status, 200);
    let env = &body["spec"]["template"]["spec"]["containers"][0]["env"];
    // The one variable it no longer says is gone.
    assert_eq!(env, &json!([{"name": "TARGET", "value": "Moon"}]));
    // What was made by other means is somebody's too.
    let mut plain = hello();
    plain["metadata"]["name"] = json!("plain");
    let (status, _) = p.call("POST", RUN, SERVICES, Some(&plain)).await;
    assert_eq!(status, StatusCode::OK);
    plain["spec"]["template"]["spec"]["containers"][0]["image"] = json!("other");
    let path = url("/plain?fieldManager=ann");
    let (status, _, body) = ask(&p, "PATCH", &path, &[("content-type", APPLY)], &plain).await;
    assert_eq!(status, 409, "{body}");
    assert!(
        body["message"]
            .as_str()
            .unwrap()
            .contains("before-first-apply"),
        "{body}"
    );
    // YAML, a dry run, and what may not be said.
    let text =
        "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata:\n  labels: {team: blue}\n";
    let path = url("/hello?fieldManager=cat&dryRun=All");
    let (status, _, body) = ask(&p, "PATCH", &path, &[("content-type", APPLY)], text).await;
    assert_eq!(
        (status, &body["metadata"]["labels"]["team"]),
        (200, &json!("blue"))
    );
    let mut wrong = hello();
    wrong["metadata"]["managedFields"] = json!([]);
    assert_eq!(apply("ann", false, &wrong).await.0, 400);
}

#[tokio::test]
async fn replacing_needs_the_version_that_was_read() {
    let p = Platform::new().await;
    let made = create(&p, &hello()).await;
    let (status, _, body) = ask(&p, "POST", &url(""), &[], hello()).await;
    assert_eq!((status, &body["reason"]), (409, &json!("AlreadyExists")));
    let mut changed = made.clone();
    changed["spec"]["template"]["spec"]["timeoutSeconds"] = json!(60);
    let (status, _, body) = ask(&p, "PUT", &url("/hello"), &[], &changed).await;
    assert_eq!((status, &body["metadata"]["generation"]), (200, &json!(2)));
    let (status, _, body) = ask(&p, "PUT", &url("/hello"), &[], &changed).await;
    assert_eq!((status, &body["reason"]), (409, &json!("Conflict")));
    // A file without a version replaces whatever there is.
    let (status, _, body) = ask(&p, "PUT", &url("/hello"), &[], hello()).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["spec"]["template"]["spec"]["timeoutSeconds"], 300);
    let (status, _, _) = ask(&p, "PUT", &url("/none"), &[], hello()).await;
    assert_eq!(status, 400);
    for (field, value, code) in [
        ("/metadata/name", json!("Not A Name"), 422),
        ("/metadata/namespace", json!("other"), 400),
        ("/apiVersion", json!("v1"), 400),
        ("/spec/template/spec/containers", json!("x"), 422),
        ("/spec/template/spec/volumes", json!([{"name": "v"}]), 422),
    ] {
        let mut wrong = hello();
        wrong["metadata"]["name"] = json!("wrong");
        if field == "/spec/template/spec/volumes" {
            wrong["spec"]["template"]["spec"]["volumes"] = value;
        } else {
            *wrong.pointer_mut(field).unwrap() = value;
        }
        let (status, _, body) = ask(&p, "POST", &url(""), &[], &wrong).await;
        assert_eq!(
            (status, &body["kind"]),
            (code, &json!("Status")),
            "{field}: {body}"
        );
    }
    // Fields that are not known: dropped and told, or refused.
    let mut typo = hello();
    typo["metadata"] = json!({"generateName": "typo-"});
    typo["spec"]["tempalte"] = json!({});
    let path = url("?fieldValidation=Strict");
    let (status, _, body) = ask(&p, "POST", &path, &[], &typo).await;
    assert_eq!(status, 400);
    assert_eq!(
        body["message"],
        "strict decoding error: unknown field \"spec.tempalte\""
    );
    let made = create(&p, &typo).await;
    assert!(
        made["metadata"]["name"]
            .as_str()
            .unwrap()
            .starts_with("typo-")
    );
    assert!(made["spec"]["tempalte"].is_null());
    // Status is the controllers'; configurations, routes and revisions are the service's.
    let (status, _, body) = ask(&p, "PUT", &url("/hello/status"), &[], hello()).await;
    assert_eq!((status, &body["reason"]), (405, &json!("MethodNotAllowed")));
    assert_eq!(get(&p, &url("/hello/status")).await["kind"], "Service");
    let path = format!("{CLUSTER}/apis/serving.knative.dev/v1/namespaces/demo/routes");
    assert_eq!(ask(&p, "POST", &path, &[], "{}").await.0, 405);
}

#[tokio::test]
async fn deletions_mean_one_object_and_no_other() {
    let p = Platform::new().await;
    let made = create(&p, &hello()).await;
    let options = |uid: &Value, policy: &str| json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy, "preconditions": {"uid": uid}});
    let (status, _, body) = ask(
        &p,
        "DELETE",
        &url("/hello"),
        &[],
        options(&json!("other"), "Background"),
    )
    .await;
    assert_eq!((status, &body["reason"]), (409, &json!("Conflict")));
    let uid = &made["metadata"]["uid"];
    let (status, _, _) = ask(&p, "DELETE", &url("/hello"), &[], options(uid, "Orphan")).await;
    assert_eq!(status, 422);
    let (status, _, _) = ask(&p, "DELETE", &url("/hello?dryRun=All"), &[], "").await;
    assert_eq!(status, 200);
    assert!(get(&p, &url("/hello")).await["metadata"]["deletionTimestamp"].is_null());
    let (status, _, body) = ask(
        &p,
        "DELETE",
        &url("/hello"),
        &[],
        options(uid, "Foreground"),
    )
    .await;
    assert_eq!((status, &body["metadata"]["uid"]), (200, uid));
    assert!(body["metadata"]["deletionTimestamp"].is_string());
    p.reconcile().await;
    assert_eq!(ask(&p, "GET", &url("/hello"), &[], "").await.0, 404);
    assert_eq!(ask(&p, "DELETE", &url("/hello"), &[], "").await.0, 404);
    // Many at once.
    for name in ["a", "b"] {
        let mut object = hello();
        object["metadata"]["name"] = json!(name);
        object["metadata"]["labels"] = json!({"go": name});
        create(&p, &object).await;
    }
    let (status, _, gone) = ask(&p, "DELETE", &url("?labelSelector=go=a"), &[], "").await;
    assert_eq!((status, gone["items"].as_array().unwrap().len()), (200, 1));
    p.reconcile().await;
    assert_eq!(
        get(&p, &url("")).await["items"].as_array().unwrap().len(),
        1
    );
}

#[tokio::test]
async fn kubectl_turns_from_one_way_of_applying_to_the_other() {
    let p = Platform::new().await;
    let mut object = hello();
    object["metadata"]["annotations"] = json!({
        "kubectl.kubernetes.io/last-applied-configuration": hello().to_string(),
    });
    let path = url("?fieldManager=kubectl-client-side-apply");
    assert_eq!(ask(&p, "POST", &path, &[], &object).await.0, 201);
    // What kubectl itself said before is no conflict for kubectl, whoever it was then.
    let mut next = hello();
    next["spec"]["template"]["spec"]["containers"][0]["image"] = json!("hello:v2");
    let (status, body) = patch(&p, APPLY, "?fieldManager=other", &next).await;
    assert_eq!(status, 409, "{body}");
    let (status, body) = patch(&p, APPLY, "?fieldManager=kubectl", &next).await;
    assert_eq!(status, 200, "{body}");
    let last = &body["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"];
    assert!(last.as_str().unwrap().contains("hello:v2"));
    // Newer ones rewrite the managers themselves first.
    let mut managers = body["metadata"]["managedFields"].clone();
    managers[0]["manager"] = json!("somebody");
    let (status, body) = patch(
        &p,
        JSON_PATCH,
        "",
        &json!([
            {"op": "replace", "path": "/metadata/managedFields", "value": managers},
            {"op": "replace", "path": "/metadata/resourceVersion", "value": body["metadata"]["resourceVersion"]},
        ]),
    )
    .await;
    assert_eq!(status, 200, "{body}");
    let names: Vec<&Value> = body["metadata"]["managedFields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| &m["manager"])
        .collect();
    assert!(names.contains(&&json!("somebody")), "{names:?}");
}

#[tokio::test]
async fn questions_about_the_caller() {
    let p = Platform::new().await;
    let path = format!("{CLUSTER}/apis/authentication.k8s.io/v1/selfsubjectreviews");
    let (status, _, body) = ask(&p, "POST", &path, &[], "{}").await;
    assert_eq!(
        (status, &body["status"]["userInfo"]["username"]),
        (201, &json!("admin@run.localhost"))
    );
    let path = format!("{CLUSTER}/apis/authorization.k8s.io/v1/selfsubjectaccessreviews");
    let question =
        json!({"spec": {"resourceAttributes": {"verb": "create", "resource": "services"}}});
    let (_, _, body) = ask(&p, "POST", &path, &[], question).await;
    assert_eq!(body["status"]["allowed"], true);
    // kubectl 1.33 asks in protobuf, and takes JSON.
    let protobuf = [("content-type", "application/vnd.kubernetes.protobuf")];
    let (status, _, body) = ask(&p, "POST", &path, &protobuf, "k8s\0\n\0").await;
    assert_eq!((status, &body["status"]["allowed"]), (201, &json!(true)));
    let (status, _, _) = ask(&p, "POST", &path, &protobuf, "{}").await;
    assert_eq!(status, 415);
}
