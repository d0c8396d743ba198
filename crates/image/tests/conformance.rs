//! The distribution specification's cases as stories, for machines without the official suite, and
//! the corners the suite does not reach: auth, limits, resumed and refused chunks.

mod common;

use std::sync::Arc;

use common::{Registry, client};
use http::{HeaderMap, Method};
use lauf_image::{Action, AuthError, Digest, RegistryAuth};
use reqwest::Response;
use serde_json::{Value, json};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

struct Caller {
    http: reqwest::Client,
    registry: Registry,
}

impl Caller {
    async fn new() -> Self {
        Self {
            http: client(),
            registry: Registry::start().await,
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        let url = if path.starts_with("http") {
            path.to_owned()
        } else {
            self.registry.url(path)
        };
        let mut request = self.http.request(method, url).body(body.to_vec());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }

    async fn get(&self, path: &str) -> Response {
        self.send(Method::GET, path, &[], b"").await
    }

    async fn push_blob(&self, repo: &str, content: &[u8]) -> Digest {
        let digest = Digest::of(content);
        let path = format!("/v2/{repo}/blobs/uploads/?digest={digest}");
        assert_eq!(
            self.send(Method::POST, &path, &[], content).await.status(),
            201
        );
        digest
    }

    /// Pushes a manifest with its parts; gives back its bytes.
    async fn push_image(&self, repo: &str, tag: &str, extra: Value) -> Vec<u8> {
        let config = self.push_blob(repo, b"{}").await;
        let layer = self.push_blob(repo, b"layer").await;
        let mut manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": 5}],
        });
        manifest
            .as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        let bytes = serde_json::to_vec(&manifest).unwrap();
        let done = self.put_manifest(repo, tag, MANIFEST, &bytes).await;
        assert_eq!(done.status(), 201, "{}", done.text().await.unwrap());
        bytes
    }

    async fn put_manifest(&self, repo: &str, name: &str, kind: &str, bytes: &[u8]) -> Response {
        let path = format!("/v2/{repo}/manifests/{name}");
        self.send(Method::PUT, &path, &[("content-type", kind)], bytes)
            .await
    }
}

async fn code(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    (
        status,
        body["errors"][0]["code"].as_str().unwrap().to_owned(),
    )
}

#[tokio::test]
async fn a_chunked_upload_goes_step_by_step() {
    let caller = Caller::new().await;
    let begun = caller
        .send(Method::POST, "/v2/a/b/blobs/uploads/", &[], b"")
        .await;
    assert_eq!(begun.status(), 202);
    let place = begun.headers()["location"].to_str().unwrap().to_owned();
    let chunk = |range: &'static str| [("content-range", range)];
    let sent = caller
        .send(Method::PATCH, &place, &chunk("0-3"), b"0123")
        .await;
    assert_eq!(
        (
            sent.status().as_u16(),
            sent.headers()["range"].to_str().unwrap()
        ),
        (202, "0-3")
    );
    // A hole, a repetition, and a lie about the length are refused and say where to go on.
    for range in ["5-8", "0-3", "4-9"] {
        let refused = caller
            .send(Method::PATCH, &place, &chunk(range), b"4567")
            .await;
        assert_eq!(refused.status(), 416, "{range}");
        assert_eq!(refused.headers()["range"], "0-3");
    }
    let status = caller.get(&place).await;
    assert_eq!(
        (
            status.status().as_u16(),
            status.headers()["range"].to_str().unwrap()
        ),
        (204, "0-3")
    );
    let digest = Digest::of(b"01234567");
    let last = format!("{place}?digest={digest}");
    let done = caller
        .send(Method::PUT, &last, &chunk("4-7"), b"4567")
        .await;
    assert_eq!(done.status(), 201);
    assert_eq!(
        code(caller.get(&place).await).await,
        (404, "BLOB_UPLOAD_UNKNOWN".into())
    );
    let blob = format!("/v2/a/b/blobs/{digest}");
    let part = caller
        .send(Method::GET, &blob, &[("range", "bytes=2-4")], b"")
        .await;
    assert_eq!(
        (part.status().as_u16(), part.text().await.unwrap()),
        (206, "234".into())
    );
    let beyond = caller
        .send(Method::GET, &blob, &[("range", "bytes=8-")], b"")
        .await;
    assert_eq!(beyond.status(), 416);
    // Another repository does not see it until it is mounted.
    let other = format!("/v2/other/blobs/{digest}");
    assert_eq!(
        code(caller.get(&other).await).await,
        (404, "BLOB_UNKNOWN".into())
    );
    let mount = format!("/v2/other/blobs/uploads/?mount={digest}&from=a/b");
    assert_eq!(
        caller.send(Method::POST, &mount, &[], b"").await.status(),
        201
    );
    assert_eq!(caller.get(&other).await.status(), 200);
    let mount = format!(
        "/v2/other/blobs/uploads/?mount={}&from=a/b",
        Digest::of(b"none")
    );
    assert_eq!(
        caller.send(Method::POST, &mount, &[], b"").await.status(),
        202
    );
    assert_eq!(
        caller.send(Method::DELETE, &other, &[], b"").await.status(),
        202
    );
    assert_eq!(caller.get(&other).await.status(), 404);
    assert_eq!(caller.get(&blob).await.status(), 200);
}

#[tokio::test]
async fn manifests_are_kept_as_sent_and_only_when_whole() {
    let caller = Caller::new().await;
    let bytes = caller.push_image("a", "v1", json!({})).await;
    let digest = Digest::of(&bytes);
    for name in ["v1".to_owned(), digest.to_string()] {
        let got = caller.get(&format!("/v2/a/manifests/{name}")).await;
        assert_eq!(got.headers()["docker-content-digest"], digest.to_string());
        assert_eq!(got.headers()["content-type"], MANIFEST);
        assert_eq!(got.bytes().await.unwrap(), bytes);
    }
    let index = serde_json::to_vec(&json!({
        "schemaVersion": 2, "mediaType": INDEX,
        "manifests": [{"mediaType": MANIFEST, "digest": digest, "size": bytes.len()}],
    }))
    .unwrap();
    assert_eq!(
        caller
            .put_manifest("a", "multi", INDEX, &index)
            .await
            .status(),
        201
    );
    let refused = [
        (
            "b",
            "v1",
            MANIFEST,
            bytes.clone(),
            404,
            "MANIFEST_BLOB_UNKNOWN",
        ),
        (
            "b",
            "v1",
            INDEX,
            index.clone(),
            404,
            "MANIFEST_BLOB_UNKNOWN",
        ),
        ("a", "v2", INDEX, bytes.clone(), 400, "MANIFEST_INVALID"),
        (
            "a",
            "v2",
            MANIFEST,
            b"not json".to_vec(),
            400,
            "MANIFEST_INVALID",
        ),
        (
            "a",
            "v2",
            "text/plain",
            bytes.clone(),
            400,
            "MANIFEST_INVALID",
        ),
        (
            "a",
            "v2",
            MANIFEST,
            vec![b' '; (4 << 20) + 1],
            413,
            "SIZE_INVALID",
        ),
    ];
    for (repo, tag, kind, body, status, word) in refused {
        let answer = caller.put_manifest(repo, tag, kind, &body).await;
        assert_eq!(
            code(answer).await,
            (status, word.to_owned()),
            "{repo} {tag} {kind}"
        );
    }
    let wrong = Digest::of(b"other").to_string();
    let answer = caller.put_manifest("a", &wrong, MANIFEST, &bytes).await;
    assert_eq!(code(answer).await, (400, "DIGEST_INVALID".into()));
    // A tag goes alone; a digest takes its tags along.
    let delete = |name: String| async move { format!("/v2/a/manifests/{name}") };
    let path = delete("multi".into()).await;
    assert_eq!(
        caller.send(Method::DELETE, &path, &[], b"").await.status(),
        202
    );
    assert_eq!(
        code(caller.get("/v2/a/manifests/multi").await).await.1,
        "MANIFEST_UNKNOWN"
    );
    assert_eq!(
        caller
            .get(&format!("/v2/a/manifests/{}", Digest::of(&index)))
            .await
            .status(),
        200
    );
    let path = delete(digest.to_string()).await;
    assert_eq!(
        caller.send(Method::DELETE, &path, &[], b"").await.status(),
        202
    );
    assert_eq!(caller.get("/v2/a/manifests/v1").await.status(), 404);
    assert_eq!(
        caller.send(Method::DELETE, &path, &[], b"").await.status(),
        404
    );
}

#[tokio::test]
async fn lists_come_in_pages() {
    let caller = Caller::new().await;
    for (repo, tag) in [
        ("a/x", "1"),
        ("a/x", "2"),
        ("a/x", "3"),
        ("a", "1"),
        ("b", "1"),
    ] {
        caller.push_image(repo, tag, json!({})).await;
    }
    let page = caller.get("/v2/a/x/tags/list?n=2").await;
    assert_eq!(
        page.headers()["link"],
        "</v2/a/x/tags/list?n=2&last=2>; rel=\"next\""
    );
    assert_eq!(
        page.json::<Value>().await.unwrap(),
        json!({"name": "a/x", "tags": ["1", "2"]})
    );
    let rest: Value = caller
        .get("/v2/a/x/tags/list?n=2&last=2")
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(rest["tags"], json!(["3"]));
    let none: Value = caller
        .get("/v2/a/x/tags/list?n=0")
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(none["tags"], json!([]));
    let repos: Value = caller.get("/v2/_catalog").await.json().await.unwrap();
    assert_eq!(repos["repositories"], json!(["a", "a/x", "b"]));
    assert_eq!(
        code(caller.get("/v2/none/tags/list").await).await,
        (404, "NAME_UNKNOWN".into())
    );
    assert_eq!(
        code(caller.get("/v2/Bad/tags/list").await).await,
        (400, "NAME_INVALID".into())
    );
    assert_eq!(code(caller.get("/v2/a/tags/list?n=x").await).await.0, 400);
    assert_eq!(
        code(caller.send(Method::POST, "/v2/_catalog", &[], b"").await)
            .await
            .0,
        405
    );
}

#[tokio::test]
async fn referrers_come_and_go_with_their_manifests() {
    let caller = Caller::new().await;
    let image = caller.push_image("a", "v1", json!({})).await;
    let subject = json!({"mediaType": MANIFEST, "digest": Digest::of(&image), "size": image.len()});
    let mut digests = Vec::new();
    for kind in ["application/x.sbom", "application/x.signature"] {
        let extra = json!({"artifactType": kind, "subject": subject, "annotations": {"k": kind}});
        let bytes = caller.push_image("a", &kind[14..], extra).await;
        digests.push(Digest::of(&bytes));
    }
    let path = format!("/v2/a/referrers/{}", Digest::of(&image));
    let all = caller.get(&path).await;
    assert_eq!(all.headers()["content-type"], INDEX);
    let all: Value = all.json().await.unwrap();
    assert_eq!(all["manifests"].as_array().unwrap().len(), 2);
    let some = caller
        .get(&format!("{path}?artifactType=application/x.sbom"))
        .await;
    assert_eq!(some.headers()["oci-filters-applied"], "artifactType");
    let some: Value = some.json().await.unwrap();
    assert_eq!(some["manifests"][0]["digest"], json!(digests[0]));
    assert_eq!(
        some["manifests"][0]["annotations"]["k"],
        "application/x.sbom"
    );
    let gone = format!("/v2/a/manifests/{}", digests[0]);
    assert_eq!(
        caller.send(Method::DELETE, &gone, &[], b"").await.status(),
        202
    );
    let left: Value = caller.get(&path).await.json().await.unwrap();
    assert_eq!(left["manifests"].as_array().unwrap().len(), 1);
    let empty = format!("/v2/a/referrers/{}", Digest::of(b"nobody"));
    let empty: Value = caller.get(&empty).await.json().await.unwrap();
    assert_eq!(empty["manifests"], json!([]));
}

/// Lets `reader` read and nobody else do anything.
struct Readers;

impl RegistryAuth for Readers {
    fn allow(&self, headers: &HeaderMap, _: &str, action: Action) -> Result<(), AuthError> {
        match headers.get("authorization").and_then(|v| v.to_str().ok()) {
            Some("Basic reader") if action == Action::Pull => Ok(()),
            Some("Basic reader") => Err(AuthError::Denied("readers only read".into())),
            _ => Err(AuthError::Unauthenticated),
        }
    }
}

#[tokio::test]
async fn the_door_is_asked_first() {
    let registry = Registry::with(|_| {}, Arc::new(Readers)).await;
    let caller = Caller {
        http: client(),
        registry,
    };
    let answer = caller.get("/v2/").await;
    assert_eq!(answer.headers()["www-authenticate"], "Basic realm=\"lauf\"");
    assert_eq!(code(answer).await, (401, "UNAUTHORIZED".into()));
    let reader = [("authorization", "Basic reader")];
    assert_eq!(
        caller
            .send(Method::GET, "/v2/", &reader, b"")
            .await
            .status(),
        200
    );
    let answer = caller
        .send(Method::POST, "/v2/a/blobs/uploads/", &reader, b"")
        .await;
    assert_eq!(code(answer).await, (403, "DENIED".into()));
}

#[tokio::test]
async fn limits_hold_for_pushes() {
    let registry = Registry::with(
        |config| {
            config.limits.max_blob = 10;
            config.limits.max_uploads = 2;
        },
        Arc::new(lauf_image::AllowAll),
    )
    .await;
    let caller = Caller {
        http: client(),
        registry,
    };
    let digest = Digest::of(&[0; 11]);
    let path = format!("/v2/a/blobs/uploads/?digest={digest}");
    assert_eq!(
        code(caller.send(Method::POST, &path, &[], &[0; 11]).await)
            .await
            .0,
        413
    );
    let begin = || caller.send(Method::POST, "/v2/a/blobs/uploads/", &[], b"");
    // The refused one left nothing open.
    let begun = begin().await;
    assert_eq!(begin().await.status(), 202);
    assert_eq!(code(begin().await).await, (429, "TOOMANYREQUESTS".into()));
    let place = begun.headers()["location"].to_str().unwrap();
    assert_eq!(
        caller.send(Method::DELETE, place, &[], b"").await.status(),
        204
    );
    assert_eq!(begin().await.status(), 202);
}

#[tokio::test]
async fn a_proxied_push_to_google_lands_under_its_name() {
    let caller = Caller::new().await;
    let digest = Digest::of(b"x");
    let host = [("host", "us-docker.pkg.dev")];
    let path = format!("/v2/p/r/i/blobs/uploads/?digest={digest}");
    assert_eq!(
        caller.send(Method::POST, &path, &host, b"x").await.status(),
        201
    );
    assert_eq!(
        caller
            .get(&format!("/v2/p/r/i/blobs/{digest}"))
            .await
            .status(),
        404
    );
    let stored = format!("/v2/us-docker.pkg.dev/p/r/i/blobs/{digest}");
    assert_eq!(caller.get(&stored).await.status(), 200);
}
