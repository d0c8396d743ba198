//! Schemas as OpenAPI has them.

use serde_json::{Map, Value, json};

use super::Edition;
use crate::kube::kind::{Kind, Names};
use crate::kube::schema::{Fields, Merge, Schema, Shape, meta};

/// What all kinds refer to.
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

/// Adds the definitions of a kind, its list and what they refer to.
pub(super) fn define(kind: &dyn Kind, edition: Edition, into: &mut Map<String, Value>) {
    let names = kind.names();
    let mut own = write(kind.schema(), edition);
    own["properties"]["metadata"] = refer(edition, &format!("{META}ObjectMeta"));
    own["x-kubernetes-group-version-kind"] = json!([gvk(names)]);
    into.insert(definition(names), own);
    let metadata = refer(edition, &format!("{META}ListMeta"));
    let item = refer(edition, &definition(names));
    let text = |description: &str| json!({"type": "string", "description": description});
    into.insert(
        format!("{}List", definition(names)),
        json!({
            "description": format!("A list of objects of the kind {}.", names.kind),
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": text("The group and version of this form of the list."),
                "kind": text("The kind of the list."),
                "metadata": metadata,
                "items": {"type": "array", "items": item, "description": "The objects."},
            },
            "x-kubernetes-group-version-kind": [{
                "group": names.group,
                "version": names.version,
                "kind": format!("{}List", names.kind),
            }],
        }),
    );
    if into.contains_key(&format!("{META}ObjectMeta")) {
        return;
    }
    let object_meta = write(&meta::object_meta(), edition);
    into.insert(format!("{META}ObjectMeta"), object_meta);
    for (name, schema) in common() {
        into.insert(format!("{META}{name}"), schema);
    }
}

/// The name of a kind's definition, as Kubernetes makes it of the group's.
pub(super) fn definition(names: &Names) -> String {
    let group = match names.group {
        "" => "io.k8s.api.core".to_owned(),
        group => {
            let mut parts: Vec<&str> = group.split('.').collect();
            parts.reverse();
            parts.join(".")
        }
    };
    format!("{group}.{}.{}", names.version, names.kind)
}

/// Group, version and kind, by which clients find a definition.
pub(super) fn gvk(names: &Names) -> Value {
    json!({"group": names.group, "version": names.version, "kind": names.kind})
}

/// The definition of the answer to a deletion.
pub(super) fn status(edition: Edition) -> Value {
    refer(edition, &format!("{META}Status"))
}

/// The definition of the body of a deletion.
pub(super) fn delete_options(edition: Edition) -> Value {
    refer(edition, &format!("{META}DeleteOptions"))
}

/// The definition of the body of a patch.
pub(super) fn patch(edition: Edition) -> Value {
    refer(edition, &format!("{META}Patch"))
}

/// A reference to a definition.
pub(super) fn refer(edition: Edition, name: &str) -> Value {
    json!({"$ref": format!("{}{name}", edition.definitions())})
}

fn common() -> [(&'static str, Value); 4] {
    let text = |description: &str| json!({"type": "string", "description": description});
    let object = |description: &str, properties: Value| json!({"type": "object", "description": description, "properties": properties});
    [
        (
            "ListMeta",
            object(
                "What is known of a list.",
                json!({
                    "continue": text("Where the next page starts; empty when there is none."),
                    "resourceVersion": text("The version from which a watch goes on."),
                    "selfLink": text("Not used."),
                    "remainingItemCount": {"type": "integer", "format": "int64"},
                }),
            ),
        ),
        (
            "Status",
            object(
                "The outcome of a request that returns nothing else.",
                json!({
                    "apiVersion": text("v1"),
                    "kind": text("Status"),
                    "code": {"type": "integer", "format": "int32"},
                    "details": {"type": "object"},
                    "message": text("A sentence for people."),
                    "metadata": {"type": "object"},
                    "reason": text("A word for programs."),
                    "status": text("Success or Failure."),
                }),
            ),
        ),
        (
            "DeleteOptions",
            object(
                "How to delete.",
                json!({
                    "apiVersion": text("v1"),
                    "kind": text("DeleteOptions"),
                    "dryRun": {"type": "array", "items": {"type": "string"}},
                    "gracePeriodSeconds": {"type": "integer", "format": "int64"},
                    "orphanDependents": {"type": "boolean"},
                    "preconditions": object(
                        "What must be true of the object.",
                        json!({"resourceVersion": text("Its version."), "uid": text("Its uid.")}),
                    ),
                    "propagationPolicy": text("Foreground or Background."),
                }),
            ),
        ),
        (
            "Patch",
            object("A change, in the form that its media type says.", json!({})),
        ),
    ]
}

/// A schema, with everything below it.
fn write(schema: &Schema, edition: Edition) -> Value {
    let mut out = match &schema.shape {
        Shape::Text("") => json!({"type": "string"}),
        Shape::Text(format) => json!({"type": "string", "format": format}),
        Shape::Whole(format) => json!({"type": "integer", "format": format}),
        Shape::Truth => json!({"type": "boolean"}),
        Shape::NumberOrText => match edition {
            Edition::Two => json!({"type": "string", "format": "int-or-string"}),
            Edition::Three => json!({
                "anyOf": [{"type": "integer"}, {"type": "string"}],
                "x-kubernetes-int-or-string": true,
            }),
        },
        Shape::Anything => json!({"x-kubernetes-preserve-unknown-fields": true}),
        Shape::Map(of) => json!({"type": "object", "additionalProperties": write(of, edition)}),
        Shape::Object(fields) => object(fields, edition),
        Shape::List(of, merge) => {
            let mut out = json!({"type": "array", "items": write(of, edition)});
            match merge {
                Merge::Atomic => out["x-kubernetes-list-type"] = "atomic".into(),
                Merge::Keyed(keys) => {
                    out["x-kubernetes-list-type"] = "map".into();
                    out["x-kubernetes-list-map-keys"] =
                        keys.iter().map(|key| Value::from(key.field)).collect();
                    // Strategic merge patches have one key.
                    out["x-kubernetes-patch-strategy"] = "merge".into();
                    out["x-kubernetes-patch-merge-key"] = keys.first().map(|key| key.field).into();
                }
            }
            out
        }
    };
    out["description"] = schema.description.into();
    out
}

fn object(fields: &Fields, edition: Edition) -> Value {
    let properties: Map<String, Value> = fields
        .all
        .iter()
        .map(|(name, schema)| ((*name).to_owned(), write(schema, edition)))
        .collect();
    let mut out = json!({"type": "object", "properties": properties});
    if !fields.required.is_empty() {
        out["required"] = json!(fields.required);
    }
    if fields.atomic {
        out["x-kubernetes-map-type"] = "atomic".into();
    }
    out
}
