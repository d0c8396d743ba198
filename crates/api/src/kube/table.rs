//! Objects as rows of a table (`meta.k8s.io/v1`, `Table`), which is what `kubectl get` prints.

use lauf_model::{Status, Violation};
use serde_json::{Value, json};

use super::failure::Failure;
use super::kind::Kind;

/// What of an object comes with its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Include {
    Nothing,
    Metadata,
    Object,
}

impl Include {
    /// Reads the parameter `includeObject`.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        match text {
            "None" => Ok(Self::Nothing),
            "" | "Metadata" => Ok(Self::Metadata),
            "Object" => Ok(Self::Object),
            other => Err(Status::invalid(vec![Violation::new(
                "includeObject",
                format!("'{other}' is not allowed; it must be None, Metadata or Object."),
            )])
            .into()),
        }
    }
}

/// Writes objects of a kind as a table, with or without its headings.
pub(crate) fn table(
    kind: &dyn Kind,
    objects: &[Value],
    metadata: Value,
    include: Include,
    headings: bool,
) -> Value {
    let mut table = json!({
        "apiVersion": "meta.k8s.io/v1",
        "kind": "Table",
        "metadata": metadata,
        "columnDefinitions": Value::Null,
        "rows": objects.iter().map(|object| row(kind, object, include)).collect::<Vec<_>>(),
    });
    if headings {
        table["columnDefinitions"] = columns(kind);
    }
    table
}

fn columns(kind: &dyn Kind) -> Value {
    let name = json!({
        "name": "Name",
        "type": "string",
        "format": "name",
        "description": "The object's name, unique in its namespace.",
        "priority": 0,
    });
    let others = kind.columns().iter().map(|column| {
        json!({
            "name": column.name,
            "type": column.kind,
            "format": "",
            "description": column.description,
            "priority": column.priority,
        })
    });
    std::iter::once(name).chain(others).collect()
}

fn row(kind: &dyn Kind, object: &Value, include: Include) -> Value {
    let name = object["metadata"]["name"].clone();
    let others = kind.columns().iter().map(|column| (column.cell)(object));
    let cells: Vec<Value> = std::iter::once(name).chain(others).collect();
    let object = match include {
        Include::Nothing => Value::Null,
        Include::Metadata => json!({
            "apiVersion": "meta.k8s.io/v1",
            "kind": "PartialObjectMetadata",
            "metadata": object["metadata"],
        }),
        Include::Object => object.clone(),
    };
    json!({"cells": cells, "object": object})
}
