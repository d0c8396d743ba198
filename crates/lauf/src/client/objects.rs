//! Jobs, executions and worker pools as the v1 API has them: the calls that their commands share.

use ::http::{Method, StatusCode};
use anyhow::{Result, bail};
use clap::Args;
use serde_json::{Value, json};

use super::deploy::Steps;
use super::http::{Api, Face, refused_with};
use super::output::Out;
use super::service::{self, Settled, text};

/// How often a change is tried again when somebody else changed the object meanwhile.
const TRIES: usize = 5;

/// A kind of object.
pub(crate) struct Kind {
    /// As in paths.
    pub(crate) plural: &'static str,
    /// As in documents.
    pub(crate) name: &'static str,
    /// As people call it.
    pub(crate) word: &'static str,
    /// The command that shows which there are.
    pub(crate) shown_by: &'static str,
}

/// Work that ends.
pub(crate) const JOB: Kind = Kind {
    plural: "jobs",
    name: "Job",
    word: "job",
    shown_by: "lauf jobs list",
};

/// A run of a job.
pub(crate) const EXECUTION: Kind = Kind {
    plural: "executions",
    name: "Execution",
    word: "execution",
    shown_by: "lauf jobs executions JOB",
};

/// Instances that fetch their work.
pub(crate) const WORKER_POOL: Kind = Kind {
    plural: "workerpools",
    name: "WorkerPool",
    word: "worker pool",
    shown_by: "lauf worker-pools list",
};

/// The path of a project's objects, with more behind it.
pub(crate) fn path<'a>(api: &'a Api, plural: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
    let mut path = vec![
        "apis",
        "run.googleapis.com",
        "v1",
        "namespaces",
        api.project.as_str(),
        plural,
    ];
    path.extend(rest);
    path
}

/// A name in a path must be one, or another path would be asked.
pub(crate) fn check_name(kind: &Kind, name: &str) -> Result<()> {
    let fine = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !fine {
        bail!(
            "'{name}' is not the name of a {}: lower-case letters, digits and hyphens, starting \
             with a letter, at most 49.",
            kind.word
        );
    }
    Ok(())
}

/// The object of that name, if there is one.
pub(crate) async fn find(api: &Api, kind: &Kind, name: &str) -> Result<Option<Value>> {
    check_name(kind, name)?;
    api.find(Face::Run, &path(api, kind.plural, &[name])).await
}

/// The object of that name.
///
/// # Errors
/// When there is none, with the command that shows those there are.
pub(crate) async fn read(api: &Api, kind: &Kind, name: &str) -> Result<Value> {
    match find(api, kind, name).await? {
        Some(object) => Ok(object),
        None => bail!(
            "There is no {} '{name}' in project {} and region {}. `{}` shows those there are.",
            kind.word,
            api.project,
            api.region,
            kind.shown_by
        ),
    }
}

/// All objects of a list whose labels match, page by page.
pub(crate) async fn all(api: &Api, plural: &str, selector: &str) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    let mut next = String::new();
    loop {
        let query = [
            ("labelSelector", selector),
            ("limit", "500"),
            ("continue", next.as_str()),
        ];
        let path = path(api, plural, &[]);
        let page = api
            .call(Method::GET, Face::Run, &path, &query, None)
            .await?;
        found.extend(page["items"].as_array().cloned().unwrap_or_default());
        page["metadata"]["continue"]
            .as_str()
            .unwrap_or_default()
            .clone_into(&mut next);
        if next.is_empty() {
            return Ok(found);
        }
    }
}

/// Creates an object out of the `spec` of an empty one, or changes the one there is, and waits until the server has
/// judged it, with the step shown. `usage` is the command that creates one.
///
/// # Errors
/// What the server has against it; also when there is none yet and `has_image` says that it would have no image.
pub(crate) async fn deploy(
    api: &Api,
    out: &Out,
    (kind, name): (&Kind, &str),
    (empty, has_image): (Value, bool),
    usage: &str,
    change: impl Fn(&mut Value),
) -> Result<Value> {
    let title = format!("Deploying the {}", kind.word);
    let mut steps = Steps::new(out);
    steps.working("deploy", &title, "");
    let done = async {
        let object = match write(api, kind, name, &change).await? {
            Some(object) => object,
            None if has_image => create(api, kind, name, empty, &change).await?,
            None => bail!(
                "There is no {} '{name}' yet, so it needs an image: {usage} {name} --image IMAGE",
                kind.word
            ),
        };
        judged(api, kind, name, object).await
    };
    let done = done.await;
    match &done {
        Ok(_) => steps.done("deploy", &title),
        Err(_) => steps.failed("deploy", &title),
    }
    steps.stop();
    done
}

/// Changes the object there is; `None` when there is none.
async fn write(
    api: &Api,
    kind: &Kind,
    name: &str,
    change: impl Fn(&mut Value),
) -> Result<Option<Value>> {
    for _ in 0..TRIES {
        let Some(mut object) = find(api, kind, name).await? else {
            return Ok(None);
        };
        change(&mut object);
        if let Some(object) = object.as_object_mut() {
            object.remove("status");
        }
        let path = path(api, kind.plural, &[name]);
        let call = api.call(Method::PUT, Face::Run, &path, &[], Some(&object));
        match call.await {
            Err(error) if refused_with(&error, StatusCode::CONFLICT) => {}
            other => return other.map(Some),
        }
    }
    bail!(
        "The {} '{name}' changes all the time. Try again.",
        kind.word
    );
}

async fn create(
    api: &Api,
    kind: &Kind,
    name: &str,
    spec: Value,
    change: impl Fn(&mut Value),
) -> Result<Value> {
    let mut object = json!({
        "apiVersion": "run.googleapis.com/v1",
        "kind": kind.name,
        "metadata": {"name": name, "namespace": api.project},
        "spec": spec,
    });
    change(&mut object);
    let path = path(api, kind.plural, &[]);
    api.call(Method::POST, Face::Run, &path, &[], Some(&object))
        .await
}

/// Waits until the server has judged the latest change.
async fn judged(api: &Api, kind: &Kind, name: &str, mut object: Value) -> Result<Value> {
    for round in 1_u32.. {
        match service::settled(&object) {
            Settled::Ready => break,
            Settled::Failed(message) => bail!("{message}"),
            Settled::Working => {}
        }
        tokio::time::sleep(service::pause(round)).await;
        object = read(api, kind, name).await?;
    }
    Ok(object)
}

// How something is deleted. (No doc comment: clap would print it as the command's own.)
#[derive(Debug, Args)]
pub(crate) struct Deletion {
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Do not wait until it is gone
    #[arg(long = "async")]
    no_wait: bool,
}

/// Deletes an object, and waits until it is gone. `more` is what goes with it, after its name.
///
/// # Errors
/// When there is none, when nobody said yes, and the server's refusal.
pub(crate) async fn delete(
    api: &Api,
    out: &Out,
    kind: &Kind,
    name: &str,
    more: &str,
    how: &Deletion,
) -> Result<()> {
    const TITLE: &str = "Deleting";
    let there = read(api, kind, name).await?;
    if !(how.yes || out.quiet) {
        if !out.can_ask() {
            bail!("Deleting '{name}' needs a yes, and nobody is there to ask: add --yes.");
        }
        if !out.ask(&format!("Delete {} '{name}'{more}?", kind.word))? {
            bail!("Nothing was deleted.");
        }
    }
    let path = path(api, kind.plural, &[name]);
    let gone: Value = api
        .call(Method::DELETE, Face::Run, &path, &[], None)
        .await?;
    if !how.no_wait {
        let mut steps = Steps::new(out);
        let uid = text(&there, "/metadata/uid");
        for round in 1_u32.. {
            match find(api, kind, name).await? {
                // One of the same name made meanwhile is another one.
                Some(there) if text(&there, "/metadata/uid") == uid => {
                    steps.working("delete", TITLE, "");
                }
                _ => break,
            }
            tokio::time::sleep(service::pause(round)).await;
        }
        steps.done("delete", TITLE);
        steps.stop();
    }
    if !out.structured(&gone)? {
        out.note(&format!("The {} '{name}' is deleted.", kind.word));
    }
    Ok(())
}
