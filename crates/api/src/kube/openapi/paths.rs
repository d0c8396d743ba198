//! The paths of a kind and what can be done there, as OpenAPI has them.

use serde_json::{Map, Value, json};

use super::{Edition, types};
use crate::kube::kind::{Kind, Verb};

/// Media types of patches.
const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// Adds the paths of a kind.
pub(super) fn define(kind: &dyn Kind, edition: Edition, into: &mut Map<String, Value>) {
    let names = kind.names();
    let base = match names.group {
        "" => format!("/api/{}", names.version),
        group => format!("/apis/{group}/{}", names.version),
    };
    let of = Operations { kind, edition };
    let everywhere = format!("{base}/{}", names.plural);
    if !names.namespaced {
        into.insert(everywhere.clone(), of.collection(false));
        into.insert(format!("{everywhere}/{{name}}"), of.item(false));
        return;
    }
    let list = of.operation("list", &[], &of.list_parameters());
    let list = of.returning(list, &types::refer(edition, &of.list_name()));
    into.insert(everywhere, json!({ "get": list }));
    let inside = format!("{base}/namespaces/{{namespace}}/{}", names.plural);
    into.insert(inside.clone(), of.collection(true));
    into.insert(format!("{inside}/{{name}}"), of.item(true));
    if names.status {
        let get = of.operation("get", &["namespace", "name"], &[]);
        let get = of.returning(get, &of.own());
        into.insert(format!("{inside}/{{name}}/status"), json!({ "get": get }));
    }
}

struct Operations<'a> {
    kind: &'a dyn Kind,
    edition: Edition,
}

impl Operations<'_> {
    fn can(&self, verb: Verb) -> bool {
        self.kind.verbs().contains(&verb)
    }

    fn own(&self) -> Value {
        types::refer(self.edition, &types::definition(self.kind.names()))
    }

    fn list_name(&self) -> String {
        format!("{}List", types::definition(self.kind.names()))
    }

    fn collection(&self, namespaced: bool) -> Value {
        let place: &[&str] = if namespaced { &["namespace"] } else { &[] };
        let mut path = Map::new();
        let list = self.operation("list", place, &self.list_parameters());
        let list = self.returning(list, &types::refer(self.edition, &self.list_name()));
        path.insert("get".to_owned(), list);
        if self.can(Verb::Create) {
            let post = self.operation("create", place, &self.write_parameters());
            let post = self.taking(post, &self.own(), &["application/json"]);
            path.insert("post".to_owned(), self.returning(post, &self.own()));
        }
        if self.can(Verb::DeleteCollection) {
            let delete = self.operation("deletecollection", place, &self.list_parameters());
            let delete = self.returning(delete, &types::status(self.edition));
            path.insert("delete".to_owned(), delete);
        }
        Value::Object(path)
    }

    fn item(&self, namespaced: bool) -> Value {
        let place: &[&str] = if namespaced {
            &["namespace", "name"]
        } else {
            &["name"]
        };
        let own = self.own();
        let mut path = Map::new();
        let get = self.operation("get", place, &[]);
        path.insert("get".to_owned(), self.returning(get, &own));
        if self.can(Verb::Update) {
            let put = self.operation("update", place, &self.write_parameters());
            let put = self.taking(put, &own, &["application/json"]);
            path.insert("put".to_owned(), self.returning(put, &own));
        }
        if self.can(Verb::Patch) {
            let mut parameters = self.write_parameters();
            parameters.push(("force", "boolean"));
            let patch = self.operation("patch", place, &parameters);
            let patch = self.taking(patch, &types::patch(self.edition), &PATCHES);
            path.insert("patch".to_owned(), self.returning(patch, &own));
        }
        if self.can(Verb::Delete) {
            let parameters = [("dryRun", "string"), ("propagationPolicy", "string")];
            let delete = self.operation("delete", place, &parameters);
            let body = types::delete_options(self.edition);
            let delete = self.taking(delete, &body, &["application/json"]);
            path.insert(
                "delete".to_owned(),
                self.returning(delete, &types::status(self.edition)),
            );
        }
        Value::Object(path)
    }

    fn list_parameters(&self) -> Vec<(&'static str, &'static str)> {
        vec![
            ("allowWatchBookmarks", "boolean"),
            ("continue", "string"),
            ("fieldSelector", "string"),
            ("labelSelector", "string"),
            ("limit", "integer"),
            ("resourceVersion", "string"),
            ("resourceVersionMatch", "string"),
            ("sendInitialEvents", "boolean"),
            ("timeoutSeconds", "integer"),
            ("watch", "boolean"),
        ]
    }

    fn write_parameters(&self) -> Vec<(&'static str, &'static str)> {
        vec![
            ("dryRun", "string"),
            ("fieldManager", "string"),
            ("fieldValidation", "string"),
        ]
    }

    fn operation(&self, verb: &str, place: &[&str], query: &[(&str, &str)]) -> Value {
        let names = self.kind.names();
        let parameter = |name: &str, inside: &str, kind: &str| {
            let mut parameter = json!({"name": name, "in": inside});
            if inside == "path" {
                parameter["required"] = true.into();
            }
            match self.edition {
                Edition::Two => parameter["type"] = kind.into(),
                Edition::Three => parameter["schema"] = json!({ "type": kind }),
            }
            parameter
        };
        let place_parameters = place.iter().map(|name| parameter(name, "path", "string"));
        let query = query
            .iter()
            .map(|(name, kind)| parameter(name, "query", kind));
        let scope = if place.contains(&"namespace") {
            "Namespaced"
        } else {
            ""
        };
        let group: String = names.group.split('.').map(capital).collect();
        json!({
            "operationId": format!("{verb}{group}{}{scope}{}", capital(names.version), names.kind),
            "parameters": place_parameters.chain(query).collect::<Vec<_>>(),
            "x-kubernetes-action": verb,
            "x-kubernetes-group-version-kind": types::gvk(names),
        })
    }

    fn returning(&self, mut operation: Value, schema: &Value) -> Value {
        let ok = match self.edition {
            Edition::Two => json!({"description": "OK", "schema": schema}),
            Edition::Three => json!({
                "description": "OK",
                "content": {"application/json": {"schema": schema}},
            }),
        };
        operation["responses"] = json!({"200": ok, "401": {"description": "Unauthorized"}});
        operation
    }

    fn taking(&self, mut operation: Value, schema: &Value, media: &[&str]) -> Value {
        match self.edition {
            Edition::Two => {
                operation["consumes"] = json!(media);
                let body = json!({"name": "body", "in": "body", "schema": schema});
                if let Some(parameters) = operation["parameters"].as_array_mut() {
                    parameters.push(body);
                }
            }
            Edition::Three => {
                let content: Map<String, Value> = media
                    .iter()
                    .map(|media| ((*media).to_owned(), json!({"schema": schema})))
                    .collect();
                operation["requestBody"] = json!({ "content": content });
            }
        }
        operation
    }
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}
