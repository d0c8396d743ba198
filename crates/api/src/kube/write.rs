//! Writing: an object is made, replaced, patched or applied. Whatever the way, what comes of it is
//! an intent and its managers, which the kind stores.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::accept::Accept;
use super::body::{self, Body};
use super::check::{self, Strictness, Warnings};
use super::failure::{Cause, Failure};
use super::fields::{Conflict, Managers, Who};
use super::intent;
use super::kind::{Kind, Place, Verb};
use super::patch::Patch;
use super::view::{Current, Next};
use crate::api::{Api, Ask};
use crate::reply::Reply;

/// The longest name of a manager.
const MAX_MANAGER: usize = 128;
/// What `kubectl apply` remembers in the object itself.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A write, as all ways of writing have it.
pub(crate) struct Write<'a> {
    api: &'a Api,
    ask: &'a Ask,
    kind: &'static dyn Kind,
    place: &'a Place,
    manager: String,
    strictness: Strictness,
    dry_run: bool,
}

/// Answers a request that writes.
pub(crate) async fn answer(
    api: &Api,
    ask: &Ask,
    kind: &'static dyn Kind,
    place: &Place,
    name: &str,
    accept: &Accept,
) -> Result<Reply, Failure> {
    let write = Write {
        api,
        ask,
        kind,
        place,
        manager: manager(ask)?,
        strictness: Strictness::of(ask)?,
        dry_run: dry_run(ask)?,
    };
    let (status, object, warnings) = match (ask.method.as_str(), name) {
        ("POST", "") => write.create().await?,
        ("PUT", name) if !name.is_empty() => write.replace(name).await?,
        ("PATCH", name) if !name.is_empty() => write.patch(name).await?,
        _ => return Err(Failure::not_allowed(ask, "is not supported here")),
    };
    let mut reply = accept.object(kind, status, object)?;
    warnings.add_to(&mut reply);
    Ok(reply)
}

type Written = Result<(StatusCode, Value, Warnings), Failure>;

impl Write<'_> {
    async fn create(&self) -> Written {
        self.need(Verb::Create)?;
        let (mut object, warnings) = self.check(body::object(self.ask)?)?;
        self.same_kind(&object)?;
        let name = match object["metadata"]["name"].as_str() {
            Some(name) if !name.is_empty() => name.to_owned(),
            _ => generated(&object["metadata"]["generateName"])?,
        };
        object["metadata"]["name"] = name.clone().into();
        self.same_place(&object, &name)?;
        if object["metadata"]["resourceVersion"]
            .as_str()
            .is_some_and(|text| !text.is_empty())
        {
            return Err(Failure::bad_request(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        let object = self.make(&name, &object).await?;
        Ok((StatusCode::CREATED, object, warnings))
    }

    async fn make(&self, name: &str, object: &Value) -> Result<Value, Failure> {
        let intent = self.kind.wanted(object);
        let schema = self.kind.schema();
        let managers =
            Managers::default().updated(schema, &json!({}), &intent, self.who(&self.api_version()));
        let next = Next { intent, managers };
        let made = self
            .kind
            .create(self.api, self.ask, self.place, name, next, self.dry_run);
        made.await
    }

    async fn replace(&self, name: &str) -> Written {
        self.need(Verb::Update)?;
        let (object, warnings) = self.check(body::object(self.ask)?)?;
        self.same_kind(&object)?;
        self.same_place(&object, name)?;
        let edit = |current: &Current| self.next(name, current, &object);
        let object = self.change(name, &edit).await?;
        Ok((StatusCode::OK, object, warnings))
    }

    async fn patch(&self, name: &str) -> Written {
        self.need(Verb::Patch)?;
        let schema = self.kind.schema();
        let patch = match Patch::read(self.ask)? {
            Patch::Apply(body) => return self.apply(name, body).await,
            patch => patch,
        };
        // A patch is checked by what comes of it, so what it would say is known only then.
        let warnings = std::sync::Mutex::new(Warnings::default());
        let edit = |current: &Current| {
            let new = patch.apply(schema, &current.shown)?;
            let (new, said) = self.check(Body {
                value: new,
                twice: Vec::new(),
            })?;
            *warnings
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner) = said;
            self.same_kind(&new)?;
            self.same_place(&new, name)?;
            self.next(name, current, &new)
        };
        let object = self.change(name, &edit).await?;
        let warnings = warnings
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok((StatusCode::OK, object, warnings))
    }

    /// What an object shall be when a client has made `new` of what it was shown.
    fn next(&self, name: &str, current: &Current, new: &Value) -> Result<Next, Failure> {
        self.same_object(name, current, new)?;
        let (new_intent, shown) = (self.kind.wanted(new), self.kind.wanted(&current.shown));
        let intent = intent::changed(&new_intent, &shown, &current.intent);
        // Clients may say who manages what; kubectl does when it turns to server-side apply.
        let said = &new["metadata"]["managedFields"];
        let managers = if said.is_null() || *said == current.shown["metadata"]["managedFields"] {
            current.managers.clone()
        } else {
            Managers::read(said).ok_or_else(|| {
                Failure::bad_request("metadata.managedFields is not a list of managers")
            })?
        };
        let api_version = self.api_version();
        let who = self.who(&api_version);
        let managers = managers.updated(self.kind.schema(), &current.intent, &intent, who);
        Ok(Next { intent, managers })
    }

    async fn apply(&self, name: &str, body: Body) -> Written {
        if self.ask.param("fieldManager").is_empty() {
            return Err(option(
                "fieldManager",
                "Required value: is required for apply patch",
            ));
        }
        let (config, warnings) = self.check(body)?;
        self.same_kind(&config)?;
        self.same_place(&config, name)?;
        if !config["metadata"]["managedFields"].is_null() {
            return Err(Failure::bad_request(
                "metadata.managedFields must be nil in a configuration that is applied",
            ));
        }
        let force = match self.ask.param("force") {
            "" | "false" => false,
            "true" => true,
            other => return Err(option("force", &format!("'{other}' is not true or false"))),
        };
        let schema = self.kind.schema();
        let api_version = self.api_version();
        let wanted = self.kind.wanted(&config);
        let applied = |current: &Current| -> Result<Next, Failure> {
            let mut managers = current.managers.clone();
            if managers.is_empty() && current.intent != json!({}) {
                // What was there before anybody applied anything is somebody's too.
                let before = Who {
                    name: "before-first-apply",
                    ..self.who(&api_version)
                };
                managers = managers.updated(schema, &json!({}), &current.intent, before);
            }
            let who = self.who(&api_version);
            let apply = |force| {
                managers
                    .clone()
                    .applied(schema, &current.intent, &wanted, who, force)
            };
            let outcome = match apply(force) {
                Err(conflicts) if self.allowed(&current.intent, &conflicts) => apply(true),
                outcome => outcome,
            };
            let (mut intent, managers) = outcome.map_err(|conflicts| clash(&conflicts))?;
            self.remember(&mut intent, &config);
            Ok(Next { intent, managers })
        };
        let edit = |current: &Current| {
            self.same_object(name, current, &config)?;
            applied(current)
        };
        match self.change(name, &edit).await {
            Err(failure) if failure.code == 404 => {
                let nothing = Current {
                    shown: json!({}),
                    intent: json!({}),
                    managers: Managers::default(),
                };
                let next = applied(&nothing)?;
                let kind = self.kind;
                let made = kind.create(self.api, self.ask, self.place, name, next, self.dry_run);
                Ok((StatusCode::CREATED, made.await?, warnings))
            }
            object => Ok((StatusCode::OK, object?, warnings)),
        }
    }

    /// Whether all conflicts are about fields that kubectl itself has said in its older way of
    /// applying, and that nobody has changed since.
    fn allowed(&self, live: &Value, conflicts: &[Conflict]) -> bool {
        let last = live.pointer("/metadata/annotations");
        let last = last.and_then(|notes| notes[LAST_APPLIED].as_str());
        if self.manager != "kubectl" {
            return false;
        }
        let Some(last) = last.and_then(|text| serde_json::from_str::<Value>(text).ok()) else {
            return false;
        };
        let schema = self.kind.schema();
        let last = self.kind.wanted(&last);
        let difference = super::fields::compare(schema, &last, live);
        let own = super::fields::fields(schema, &last)
            .without(&difference.modified)
            .without(&difference.added)
            .without(&difference.removed);
        let own = own.paths();
        conflicts
            .iter()
            .flat_map(|conflict| &conflict.fields)
            .all(|field| own.contains(field))
    }

    /// Keeps kubectl's older memory true, where there is one.
    fn remember(&self, intent: &mut Value, config: &Value) {
        let notes = intent.pointer_mut("/metadata/annotations");
        let last = notes.and_then(|notes| notes.get_mut(LAST_APPLIED));
        if let Some(last) = last.filter(|_| self.manager == "kubectl") {
            let mut config = config.clone();
            let notes = config.pointer_mut("/metadata/annotations");
            if let Some(notes) = notes.and_then(Value::as_object_mut) {
                notes.remove(LAST_APPLIED);
            }
            *last = format!("{config}\n").into();
        }
    }

    async fn change(&self, name: &str, edit: super::kind::Edit<'_>) -> Result<Value, Failure> {
        let changed = self
            .kind
            .change(self.api, self.ask, self.place, name, self.dry_run, edit);
        changed.await
    }

    fn check(&self, body: Body) -> Result<(Value, Warnings), Failure> {
        if !body.value.is_object() {
            return Err(Failure::bad_request("the body must be an object"));
        }
        check::object(self.kind.schema(), body, self.strictness)
    }

    fn api_version(&self) -> String {
        self.kind.names().api_version()
    }

    fn who<'a>(&'a self, api_version: &'a str) -> Who<'a> {
        Who {
            name: &self.manager,
            api_version,
            now: self.api.deps.clock.now(),
        }
    }

    fn need(&self, verb: Verb) -> Result<(), Failure> {
        if self.kind.verbs().contains(&verb) {
            return Ok(());
        }
        let names = self.kind.names();
        Err(Failure::not_allowed(
            self.ask,
            &format!(
                "is not supported: {} are made from services; change the service instead",
                names.plural
            ),
        ))
    }

    fn same_kind(&self, object: &Value) -> Result<(), Failure> {
        let names = self.kind.names();
        for (field, wanted) in [
            ("apiVersion", names.api_version()),
            ("kind", names.kind.to_owned()),
        ] {
            let said = object[field].as_str().unwrap_or_default();
            if said != wanted && !(said.is_empty() && self.ask.method != Method::PATCH) {
                return Err(Failure::bad_request(format!(
                    "the {field} of the object ({said}) does not match that of the request \
                     ({wanted})"
                )));
            }
        }
        Ok(())
    }

    fn same_place(&self, object: &Value, name: &str) -> Result<(), Failure> {
        let said = |field: &str| {
            let text = object["metadata"][field].as_str();
            text.filter(|text| !text.is_empty())
        };
        if let Some(other) = said("name").filter(|said| *said != name) {
            return Err(Failure::bad_request(format!(
                "the name of the object ({other}) does not match the name on the URL ({name})"
            )));
        }
        // A project may be called by its number too, in the path as in the object.
        let asked = super::path::namespace(&self.ask.path);
        let places = [self.place.project.as_deref(), asked];
        if let Some(other) = said("namespace").filter(|said| !places.contains(&Some(*said))) {
            return Err(Failure::bad_request(format!(
                "the namespace of the provided object ({other}) does not match the namespace sent \
                 on the request ({})",
                asked.unwrap_or_default()
            )));
        }
        Ok(())
    }

    /// Whether a client means the object as it is now, if it says which it means.
    fn same_object(&self, name: &str, current: &Current, new: &Value) -> Result<(), Failure> {
        for field in ["uid", "resourceVersion"] {
            let said = new["metadata"][field].as_str().unwrap_or_default();
            let is = current.shown["metadata"][field]
                .as_str()
                .unwrap_or_default();
            if said.is_empty() || said == is {
                continue;
            }
            let why = if field == "uid" {
                format!(
                    "Precondition failed: UID in precondition: {said}, UID in object meta: {is}"
                )
            } else {
                "the object has been modified; please apply your changes to the latest version \
                 and try again"
                    .to_owned()
            };
            return Err(Failure::conflict(self.kind.names(), name, &why));
        }
        Ok(())
    }
}

/// Conflicts of an apply, as Kubernetes says them.
fn clash(conflicts: &[Conflict]) -> Failure {
    let causes: Vec<Cause> = conflicts
        .iter()
        .flat_map(|conflict| {
            conflict.fields.iter().map(|field| Cause {
                reason: "FieldManagerConflict",
                message: format!("conflict with {}", conflict.with),
                field: field.clone(),
            })
        })
        .collect();
    let list = match conflicts {
        [one] if one.fields.len() == 1 => {
            format!("conflict with {}: {}", one.with, one.fields.concat())
        }
        many => many
            .iter()
            .map(|c| format!("conflicts with {}:\n- {}", c.with, c.fields.join("\n- ")))
            .collect::<Vec<_>>()
            .join("\n"),
    };
    let s = if causes.len() == 1 { "" } else { "s" };
    let message = format!("Apply failed with {} conflict{s}: {list}", causes.len());
    Failure::new(409, "Conflict", message).because(causes)
}

/// A parameter that is wrong.
pub(crate) fn option(name: &str, why: &str) -> Failure {
    lauf_model::Status::invalid(vec![lauf_model::Violation::new(name, why)]).into()
}

/// Whether nothing shall be stored.
pub(crate) fn dry_run(ask: &Ask) -> Result<bool, Failure> {
    match ask.param("dryRun") {
        "" => Ok(false),
        "All" => Ok(true),
        other => Err(option(
            "dryRun",
            &format!("Unsupported value: \"{other}\": supported values: \"All\""),
        )),
    }
}

/// Who writes: what the client calls itself, or the beginning of its user agent.
fn manager(ask: &Ask) -> Result<String, Failure> {
    let named = ask.param("fieldManager");
    if named.len() > MAX_MANAGER || named.chars().any(char::is_control) {
        return Err(option(
            "fieldManager",
            &format!("must be at most {MAX_MANAGER} printable characters"),
        ));
    }
    if !named.is_empty() {
        return Ok(named.to_owned());
    }
    let agent = ask.headers.get(http::header::USER_AGENT);
    let agent = agent.and_then(|value| value.to_str().ok()).unwrap_or("");
    let name: String = agent
        .split('/')
        .next()
        .unwrap_or("")
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_MANAGER)
        .collect();
    Ok(if name.is_empty() {
        "unknown".to_owned()
    } else {
        name
    })
}

/// A name that begins as the client wishes.
fn generated(beginning: &Value) -> Result<String, Failure> {
    let Some(beginning) = beginning.as_str().filter(|text| !text.is_empty()) else {
        return Err(lauf_model::Status::invalid(vec![lauf_model::Violation::new(
            "metadata.name",
            "Required value: name or generateName is required",
        )])
        .into());
    };
    // Without vowels and what looks like them, so that no word comes out.
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut bytes = [0_u8; 5];
    getrandom::fill(&mut bytes).map_err(|error| {
        let message = format!("the system gives no randomness: {error}");
        Failure::new(500, "InternalError", message)
    })?;
    let letters = bytes
        .iter()
        .map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]));
    Ok(beginning.chars().take(44).chain(letters).collect())
}
