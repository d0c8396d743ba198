//! What there is: groups, versions, resources (`apidiscovery.k8s.io` and its older form).

use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use super::accept::{not_acceptable, offers};
use super::failure::Failure;
use super::kind::{Kind, group_version};
use super::kinds;
use super::review::Review;
use crate::api::Ask;
use crate::reply::{self, Reply};

/// The version of Kubernetes whose API this is like, which clients choose their ways by.
const LIKE: (&str, &str) = ("1", "33");

/// `/`: the paths there are.
pub(crate) fn root() -> Result<Reply, Failure> {
    let mut paths: Vec<String> = ["/api", "/api/v1", "/apis", "/livez", "/readyz", "/version"]
        .into_iter()
        .chain(["/openapi/v2", "/openapi/v3"])
        .map(str::to_owned)
        .collect();
    for (group, version) in group_versions() {
        if !group.is_empty() {
            paths.push(format!("/apis/{group}"));
            paths.push(format!("/apis/{group}/{version}"));
        }
    }
    paths.sort();
    paths.dedup();
    Ok(reply::ok(&json!({ "paths": paths }))?)
}

/// `/livez`, `/readyz`: that this answer comes says it all.
pub(crate) fn health() -> Reply {
    let mut reply = Response::new(Body::from("ok"));
    reply.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    reply
}

/// `/version`.
pub(crate) fn version() -> Result<Reply, Failure> {
    let (major, minor) = LIKE;
    let lauf = env!("CARGO_PKG_VERSION");
    Ok(reply::ok(&json!({
        "major": major,
        "minor": minor,
        "gitVersion": format!("v{major}.{minor}.0+lauf-{lauf}"),
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    }))?)
}

/// Every group and version that has something in it, the core first.
fn group_versions() -> Vec<(&'static str, &'static str)> {
    let kinds = kinds::all().iter().map(|kind| {
        let names = kind.names();
        (names.group, names.version)
    });
    let mut all: Vec<_> = kinds
        .chain(Review::ALL.iter().map(|review| review.group_version()))
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn kinds_of<'a>(group: &'a str, version: &'a str) -> impl Iterator<Item = &'static dyn Kind> + 'a {
    kinds::all().iter().copied().filter(move |kind| {
        let names = kind.names();
        names.group == group && names.version == version
    })
}

/// `/api`.
pub(crate) fn core_versions(ask: &Ask) -> Result<Reply, Failure> {
    let old = json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [],
    });
    either(ask, &old, &|version| {
        aggregated(version, |group| group.is_empty())
    })
}

/// `/apis`.
pub(crate) fn groups(ask: &Ask) -> Result<Reply, Failure> {
    let mut names: Vec<&str> = group_versions().iter().map(|(group, _)| *group).collect();
    names.retain(|group| !group.is_empty());
    names.dedup();
    let groups: Vec<Value> = names.into_iter().map(describe).collect();
    let old = json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups});
    either(ask, &old, &|version| {
        aggregated(version, |group| !group.is_empty())
    })
}

/// `/apis/GROUP`.
pub(crate) fn group(name: &str) -> Result<Reply, Failure> {
    let known = group_versions().iter().any(|(group, _)| *group == name);
    if !known || name.is_empty() {
        return Err(nowhere(&format!("/apis/{name}")));
    }
    let mut group = describe(name);
    group["kind"] = "APIGroup".into();
    group["apiVersion"] = "v1".into();
    Ok(reply::ok(&group)?)
}

fn describe(group: &str) -> Value {
    let versions: Vec<Value> = group_versions()
        .into_iter()
        .filter(|(g, _)| *g == group)
        .map(|(g, v)| json!({"groupVersion": group_version(g, v), "version": v}))
        .collect();
    json!({
        "name": group,
        "versions": versions,
        "preferredVersion": versions.first(),
    })
}

/// `/apis/GROUP/VERSION` and `/api/v1`.
pub(crate) fn resources(group: &str, version: &str) -> Result<Reply, Failure> {
    let word = group_version(group, version);
    if !group_versions().contains(&(group, version)) {
        return Err(nowhere(&word));
    }
    let mut resources = Vec::new();
    for kind in kinds_of(group, version) {
        let names = kind.names();
        let mut resource = json!({
            "name": names.plural,
            "singularName": names.singular,
            "namespaced": names.namespaced,
            "kind": names.kind,
            "verbs": verbs(kind),
            "storageVersionHash": "",
        });
        if !names.short.is_empty() {
            resource["shortNames"] = json!(names.short);
        }
        if !names.categories.is_empty() {
            resource["categories"] = json!(names.categories);
        }
        resources.push(resource);
        if names.status {
            resources.push(json!({
                "name": format!("{}/status", names.plural),
                "singularName": "",
                "namespaced": names.namespaced,
                "kind": names.kind,
                "verbs": ["get"],
            }));
        }
    }
    for review in Review::ALL
        .iter()
        .filter(|r| r.group_version() == (group, version))
    {
        resources.push(json!({
            "name": review.plural(),
            "singularName": review.kind().to_lowercase(),
            "namespaced": false,
            "kind": review.kind(),
            "verbs": ["create"],
        }));
    }
    Ok(reply::ok(&json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": word,
        "resources": resources,
    }))?)
}

/// All groups that are wanted with their resources, in one answer.
fn aggregated(version: &str, wanted: impl Fn(&str) -> bool) -> Value {
    let mut groups: Vec<Value> = Vec::new();
    for (group, v) in group_versions() {
        if !wanted(group) {
            continue;
        }
        let known = groups.last_mut().filter(|g| g["metadata"]["name"] == group);
        let described = aggregated_version(group, v);
        match known.and_then(|g| g["versions"].as_array_mut()) {
            Some(versions) => versions.push(described),
            None => groups.push(json!({
                "metadata": {"name": group, "creationTimestamp": null},
                "versions": [described],
            })),
        }
    }
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": groups,
    })
}

fn aggregated_version(group: &str, version: &str) -> Value {
    let response = |kind: &str| json!({"group": group, "version": version, "kind": kind});
    let mut resources: Vec<Value> = kinds_of(group, version)
        .map(|kind| {
            let names = kind.names();
            let mut resource = json!({
                "resource": names.plural,
                "responseKind": response(names.kind),
                "scope": if names.namespaced { "Namespaced" } else { "Cluster" },
                "singularResource": names.singular,
                "verbs": verbs(kind),
                "shortNames": names.short,
                "categories": names.categories,
            });
            if names.status {
                resource["subresources"] = json!([{
                    "subresource": "status",
                    "responseKind": response(names.kind),
                    "verbs": ["get"],
                }]);
            }
            resource
        })
        .collect();
    let reviews = Review::ALL
        .iter()
        .filter(|r| r.group_version() == (group, version));
    resources.extend(reviews.map(|review| {
        json!({
            "resource": review.plural(),
            "responseKind": response(review.kind()),
            "scope": "Cluster",
            "singularResource": review.kind().to_lowercase(),
            "verbs": ["create"],
        })
    }));
    json!({"version": version, "resources": resources, "freshness": "Current"})
}

fn verbs(kind: &dyn Kind) -> Vec<&'static str> {
    kind.verbs().iter().map(|verb| verb.word()).collect()
}

/// The one answer with everything for those who know it, and the older one for others.
fn either(ask: &Ask, old: &Value, new: &dyn Fn(&str) -> Value) -> Result<Reply, Failure> {
    for offer in offers(ask) {
        if !offer.is_json() {
            continue;
        }
        if offer.parameter("as").is_empty() {
            return Ok(reply::ok(old)?);
        }
        let version = offer.parameter("v");
        let known = offer.parameter("g") == "apidiscovery.k8s.io"
            && offer.parameter("as") == "APIGroupDiscoveryList"
            && matches!(version, "v2" | "v2beta1");
        if known {
            let mut reply = reply::with_status(StatusCode::OK, &new(version))?;
            let kind = format!(
                "application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
            );
            if let Ok(kind) = HeaderValue::from_str(&kind) {
                reply.headers_mut().insert(header::CONTENT_TYPE, kind);
            }
            return Ok(reply);
        }
    }
    Err(not_acceptable(&["application/json"]))
}

fn nowhere(what: &str) -> Failure {
    let message = format!("the server could not find the requested resource: {what}");
    Failure::new(404, "NotFound", message)
}
