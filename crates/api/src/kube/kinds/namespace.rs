//! Namespaces: the projects there are, seen only.

use std::sync::LazyLock;

use lauf_model::Project;
use lauf_store::{Object, Resource as _, Stored};
use serde_json::{Value, json};

use crate::failed;
use crate::kube::failure::Failure;
use crate::kube::kind::{Column, Kind, Names, text};
use crate::kube::schema::{Schema, list, object, text as text_of, top};

pub(super) struct Namespaces;

const NAMES: Names = Names {
    group: "",
    version: "v1",
    kind: "Namespace",
    plural: "namespaces",
    singular: "namespace",
    short: &["ns"],
    categories: &[],
    namespaced: false,
    status: false,
};

const COLUMNS: &[Column] = &[Column {
    name: "Status",
    kind: "string",
    description: "Active: a project that can be used.",
    priority: 0,
    cell: |o| text(o, "/status/phase"),
}];

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    top(
        "A namespace is a project of Lauf. It is made and removed with Lauf's own tools.",
        object(
            "Nothing can be said of a project here.",
            vec![(
                "finalizers",
                list("Not used.", text_of("The name of a finalizer.")),
            )],
        ),
        object(
            "The state of the project.",
            vec![("phase", text_of("Always Active."))],
        ),
    )
});

impl Kind for Namespaces {
    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn stored(&self) -> lauf_store::Kind {
        Project::KIND
    }

    fn show(&self, object: &Object) -> Result<Value, Failure> {
        let project = Stored::<Project>::read(object).map_err(|error| failed::body(&error))?;
        let (id, number) = (project.value.id, project.value.number);
        Ok(json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": id,
                "uid": format!("project-{number}"),
                "resourceVersion": object.version.to_string(),
                "labels": {"kubernetes.io/metadata.name": id},
                "annotations": {"run.googleapis.com/project-number": number.to_string()},
            },
            "spec": {},
            "status": {"phase": "Active"},
        }))
    }
}
