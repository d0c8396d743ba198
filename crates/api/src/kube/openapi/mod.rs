//! The published description of what there is, which `kubectl explain` shows and clients check
//! against: OpenAPI 2 as a whole, OpenAPI 3 by group and version. All of it is made of the kinds'
//! schemas, once.

mod paths;
mod proto;
mod types;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

use super::accept::{not_acceptable, offers};
use super::failure::Failure;
use super::kind::{Kind, group_version};
use super::kinds;
use crate::api::Ask;
use crate::reply::{self, Reply};

/// The two editions of OpenAPI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edition {
    Two,
    Three,
}

impl Edition {
    /// Where definitions are.
    fn definitions(self) -> &'static str {
        match self {
            Self::Two => "#/definitions/",
            Self::Three => "#/components/schemas/",
        }
    }
}

/// The media type of the second edition as protobuf, which is how client-go reads it.
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// The same as most clients ask for it. It is no media type, as an `@` must not stand in one, and Go
/// does not read an answer that says so.
const PROTOBUF_ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

struct Two {
    json: Bytes,
    protobuf: Bytes,
}

static TWO: LazyLock<Two> = LazyLock::new(|| {
    let mut definitions = Map::new();
    let mut paths = Map::new();
    for kind in kinds::all() {
        types::define(*kind, Edition::Two, &mut definitions);
        paths::define(*kind, Edition::Two, &mut paths);
    }
    let document = json!({
        "swagger": "2.0",
        "info": info(),
        "paths": paths,
        "definitions": definitions,
    });
    Two {
        protobuf: proto::document(&document).into(),
        json: document.to_string().into(),
    }
});

static THREE: LazyLock<BTreeMap<String, Bytes>> = LazyLock::new(|| {
    let mut of: BTreeMap<String, Vec<&dyn Kind>> = BTreeMap::new();
    for kind in kinds::all() {
        let names = kind.names();
        let path = match names.group {
            "" => format!("api/{}", names.version),
            group => format!("apis/{}", group_version(group, names.version)),
        };
        of.entry(path).or_default().push(*kind);
    }
    let document = |kinds: Vec<&dyn Kind>| {
        let mut schemas = Map::new();
        let mut paths = Map::new();
        for kind in kinds {
            types::define(kind, Edition::Three, &mut schemas);
            paths::define(kind, Edition::Three, &mut paths);
        }
        let document = json!({
            "openapi": "3.0.0",
            "info": info(),
            "paths": paths,
            "components": {"schemas": schemas},
        });
        Bytes::from(document.to_string())
    };
    of.into_iter()
        .map(|(path, kinds)| (path, document(kinds)))
        .collect()
});

fn info() -> Value {
    json!({"title": "Lauf", "version": env!("CARGO_PKG_VERSION")})
}

/// `/openapi/v2`.
pub(crate) fn v2(ask: &Ask) -> Result<Reply, Failure> {
    for offer in offers(ask) {
        if offer.media == PROTOBUF || offer.media == PROTOBUF_ASKED {
            let mut reply = reply::raw(StatusCode::OK, TWO.protobuf.to_vec());
            let kind = HeaderValue::from_static(PROTOBUF);
            reply.headers_mut().insert(header::CONTENT_TYPE, kind);
            return Ok(reply);
        }
        if offer.is_json() {
            return Ok(reply::raw(StatusCode::OK, TWO.json.to_vec()));
        }
    }
    Err(not_acceptable(&["application/json", PROTOBUF]))
}

/// `/openapi/v3`: which documents there are. Their addresses change with what they say, so clients
/// may keep them.
pub(crate) fn v3_index() -> Result<Reply, Failure> {
    let paths: Map<String, Value> = THREE
        .iter()
        .map(|(path, document)| {
            let url = format!("/openapi/v3/{path}?hash={}", hash(document));
            (path.clone(), json!({"serverRelativeURL": url}))
        })
        .collect();
    Ok(reply::ok(&json!({ "paths": paths }))?)
}

/// `/openapi/v3/apis/GROUP/VERSION`.
pub(crate) fn v3(ask: &Ask, path: &str) -> Result<Reply, Failure> {
    let document = THREE.get(path).ok_or_else(|| Failure::no_such_path(ask))?;
    if !offers(ask).iter().any(|offer| offer.is_json()) {
        return Err(not_acceptable(&["application/json"]));
    }
    let mut reply = reply::raw(StatusCode::OK, document.to_vec());
    if ask.param("hash") == hash(document) {
        let for_a_year = HeaderValue::from_static("private, max-age=31536000, immutable");
        reply
            .headers_mut()
            .insert(header::CACHE_CONTROL, for_a_year);
    }
    Ok(reply)
}

/// Tells one document from another (FNV-1a; nobody is kept out by it).
fn hash(document: &[u8]) -> String {
    let hash = document
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    URL_SAFE_NO_PAD.encode(hash.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every reference in a document leads somewhere, as clients that generate code insist.
    fn check_references(value: &Value, document: &Value) {
        match value {
            Value::Object(fields) => {
                if let Some(to) = fields.get("$ref").and_then(Value::as_str) {
                    let pointer = to.trim_start_matches('#');
                    assert!(document.pointer(pointer).is_some(), "{to} leads nowhere");
                }
                fields.values().for_each(|v| check_references(v, document));
            }
            Value::Array(items) => items.iter().for_each(|v| check_references(v, document)),
            _ => {}
        }
    }

    #[test]
    fn documents_are_whole() {
        let two: Value = serde_json::from_slice(&TWO.json).unwrap();
        check_references(&two, &two);
        assert!(TWO.protobuf.len() > 10_000);
        for (path, document) in THREE.iter() {
            let document: Value = serde_json::from_slice(document).unwrap();
            check_references(&document, &document);
            assert!(!document["paths"].as_object().unwrap().is_empty(), "{path}");
        }
        let keys: Vec<&String> = THREE.keys().collect();
        assert_eq!(keys, ["api/v1", "apis/serving.knative.dev/v1"]);
    }
}
