//! Changes as clients send them, by media type.

mod merge;
mod operations;
mod strategic;

use serde_json::Value;

use super::body::{self, Body};
use super::failure::Failure;
use super::schema::Schema;
use crate::api::Ask;

/// A change.
pub(crate) enum Patch {
    /// RFC 6902.
    Operations(Vec<operations::Operation>),
    /// RFC 7396.
    Merge(Value),
    /// Kubernetes' own, which merges lists by their keys.
    Strategic(Value),
    /// A configuration that is applied.
    Apply(Body),
}

impl Patch {
    /// Reads the body of a request.
    pub(crate) fn read(ask: &Ask) -> Result<Self, Failure> {
        let media = body::media(ask);
        match media.as_str() {
            "application/json-patch+json" => operations::read(&ask.body).map(Self::Operations),
            "application/merge-patch+json" => Ok(Self::Merge(fields(&ask.body)?)),
            "application/strategic-merge-patch+json" => Ok(Self::Strategic(fields(&ask.body)?)),
            "application/apply-patch+yaml" => body::yaml(&ask.body).map(Self::Apply),
            _ => Err(body::unsupported(&[
                "application/json-patch+json",
                "application/merge-patch+json",
                "application/strategic-merge-patch+json",
                "application/apply-patch+yaml",
            ])),
        }
    }

    /// What comes of an object.
    pub(crate) fn apply(&self, schema: &Schema, object: &Value) -> Result<Value, Failure> {
        match self {
            Self::Operations(patch) => operations::apply(patch, object),
            Self::Merge(patch) => Ok(merge::apply(object, patch)),
            Self::Strategic(patch) => strategic::apply(schema, object, patch),
            Self::Apply(_) => Err(Failure::bad_request("a configuration is no patch")),
        }
    }
}

fn fields(text: &[u8]) -> Result<Value, Failure> {
    let patch = body::json(text)?.value;
    if patch.is_object() {
        return Ok(patch);
    }
    Err(Failure::bad_request("the patch must be a JSON object"))
}
