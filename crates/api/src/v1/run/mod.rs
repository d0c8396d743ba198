//! Jobs, executions, tasks and worker pools in v1: `/apis/run.googleapis.com/v1`.

pub(crate) mod execution;
pub(crate) mod job;
#[cfg(test)]
mod roundtrip;
pub(crate) mod types;
pub(crate) mod worker_pool;

use std::collections::BTreeMap;

use lauf_model::{
    Execution, ExecutionKey, JobKey, Place, Status, Task, TaskKey, Violation, WorkerPoolKey,
};
use lauf_store::{Resource, Stored};
use serde::Serialize;

use self::execution::{EXECUTION, JOB};
use super::types::{List, ListMeta, Map, ObjectMeta};
use super::{check_namespace, deleted, dry_run, listed_region, version};
use crate::api::{Api, Ask};
use crate::jobs::TaskOf;
use crate::page::Token;
use crate::reply::{self, Reply};
use crate::selector::Selector;
use crate::services::{Expected, Listing};

/// The API group of everything here.
const GROUP: &str = "run.googleapis.com";

/// A project and a region, known from the path and the host.
struct Here {
    project: String,
    region: String,
}

impl Place for Here {
    fn project(&self) -> &str {
        &self.project
    }
    fn region(&self) -> &str {
        &self.region
    }
    fn name(&self) -> &str {
        ""
    }
}

/// Answers a request below `/apis/run.googleapis.com/v1/namespaces/PROJECT`.
pub(super) async fn namespaced(
    api: &Api,
    ask: &Ask,
    project: &str,
    path: &[&str],
) -> Result<Reply, Status> {
    let here = || -> Result<Here, Status> {
        Ok(Here {
            project: project.to_owned(),
            region: api.region(ask)?,
        })
    };
    let method = ask.method.as_str();
    match (method, path) {
        ("GET", ["jobs"]) => {
            list(api, ask, project, "JobList", "", |stored| {
                let written = job::write(&stored.value, stored.version.get());
                (written.metadata.labels.clone(), written)
            })
            .await
        }
        ("POST", ["jobs"]) => create_job(api, ask, &here()?).await,
        ("GET", ["executions"]) => list_executions(api, ask, project).await,
        ("GET", ["tasks"]) => list_tasks(api, ask, project).await,
        ("GET", ["workerpools"]) => {
            list(api, ask, project, "WorkerPoolList", "", |stored| {
                let written = worker_pool::write(&stored.value, stored.version.get());
                (written.metadata.labels.clone(), written)
            })
            .await
        }
        ("POST", ["workerpools"]) => create_pool(api, ask, &here()?).await,
        (_, ["jobs", name]) => {
            let (name, verb) = name_and_verb(name);
            one_job(api, ask, JobKey::beside(&here()?, name), verb).await
        }
        (_, ["executions", name]) => {
            let (name, verb) = name_and_verb(name);
            one_execution(api, ask, ExecutionKey::beside(&here()?, name), verb).await
        }
        ("GET", ["tasks", name]) => {
            let TaskOf { task, execution } = api.task(&TaskKey::beside(&here()?, *name)).await?;
            let version = task.version.get();
            let of = &execution.value;
            reply::ok(&execution::write_task(&task.value, of, version))
        }
        (_, ["workerpools", name]) => {
            one_pool(api, ask, WorkerPoolKey::beside(&here()?, *name)).await
        }
        _ => Err(ask.no_such_path()),
    }
}

fn name_and_verb(text: &str) -> (&str, &str) {
    text.rsplit_once(':').unwrap_or((text, ""))
}

/// What is common to everything that a client writes: its metadata has to be about this place.
async fn check_metadata(
    api: &Api,
    sent: &ObjectMeta,
    here: &impl Place,
    found: &mut Vec<Violation>,
) -> Result<(), Status> {
    check_namespace(api, sent, here.project(), found).await?;
    if sent.generate_name.is_some() {
        found.push(Violation::new(
            "metadata.generateName",
            "is not supported; set metadata.name.",
        ));
    }
    Ok(())
}

/// A replacement has to be of what the request is about, and says what it expects to replace.
async fn check_replacement(
    api: &Api,
    sent: &mut ObjectMeta,
    key: &impl Place,
    found: &mut Vec<Violation>,
) -> Result<Expected, Status> {
    check_metadata(api, sent, key, found).await?;
    let name = key.name();
    if let Some(other) = sent.name.as_deref().filter(|n| *n != name) {
        found.push(Violation::new(
            "metadata.name",
            format!("is '{other}', but the request is about '{name}'; a name cannot be changed."),
        ));
    }
    sent.name = Some(name.to_owned());
    Ok(Expected {
        version: version(sent, found),
        generation: sent.generation,
    })
}

async fn create_job(api: &Api, ask: &Ask, here: &Here) -> Result<Reply, Status> {
    let sent: types::Job = ask.json()?;
    let mut found = Vec::new();
    check_metadata(api, &sent.metadata, here, &mut found).await?;
    let desired = job::read(&sent, &mut found);
    let key = JobKey::beside(here, &desired.name);
    let made = api.create_job(&ask.caller, &key, desired, found, dry_run(ask)?);
    let made = made.await?;
    reply::ok(&job::write(&made.value, made.version.get()))
}

async fn one_job(api: &Api, ask: &Ask, key: JobKey, verb: &str) -> Result<Reply, Status> {
    match (ask.method.as_str(), verb) {
        ("GET", "") => {
            let found = api.job(&key).await?;
            reply::ok(&job::write(&found.value, found.version.get()))
        }
        ("PUT", "") => {
            let mut sent: types::Job = ask.json()?;
            let mut found = Vec::new();
            let expected = check_replacement(api, &mut sent.metadata, &key, &mut found).await?;
            let desired = job::read(&sent, &mut found);
            let made = api
                .replace_job(&ask.caller, &key, desired, expected, found, dry_run(ask)?)
                .await?;
            reply::ok(&job::write(&made.value, made.version.get()))
        }
        ("DELETE", "") => {
            let expected = Expected::default();
            let gone = api.delete_job(&ask.caller, &key, expected, dry_run(ask)?);
            let uid = gone.await?.value.meta.uid;
            deleted(GROUP, "jobs", &key.name, &uid)
        }
        ("POST", "run") => {
            let sent: types::RunJob = ask.json()?;
            let mut found = Vec::new();
            let overrides = job::read_overrides(&sent.overrides, &mut found);
            let (expected, dry_run) = (Expected::default(), dry_run(ask)?);
            let made = api
                .run_job(&ask.caller, &key, &overrides, expected, found, dry_run)
                .await?;
            reply::ok(&execution::write(&made.value, made.version.get()))
        }
        _ => Err(ask.no_such_path()),
    }
}

async fn one_execution(
    api: &Api,
    ask: &Ask,
    key: ExecutionKey,
    verb: &str,
) -> Result<Reply, Status> {
    let expected = Expected::default();
    match (ask.method.as_str(), verb) {
        ("GET", "") => {
            let found = api.execution(&key).await?;
            reply::ok(&execution::write(&found.value, found.version.get()))
        }
        ("POST", "cancel") => {
            let made = api.cancel_execution(&ask.caller, &key, expected, dry_run(ask)?);
            let made = made.await?;
            reply::ok(&execution::write(&made.value, made.version.get()))
        }
        ("DELETE", "") => {
            let gone = api.delete_execution(&ask.caller, &key, expected, dry_run(ask)?);
            let uid = gone.await?.value.meta.uid;
            deleted(GROUP, "executions", &key.name, &uid)
        }
        _ => Err(ask.no_such_path()),
    }
}

async fn create_pool(api: &Api, ask: &Ask, here: &Here) -> Result<Reply, Status> {
    let sent: types::WorkerPool = ask.json()?;
    let mut found = Vec::new();
    check_metadata(api, &sent.metadata, here, &mut found).await?;
    let desired = worker_pool::read(&sent, &mut found);
    let key = WorkerPoolKey::beside(here, &desired.name);
    let made = api.create_worker_pool(&ask.caller, &key, desired, found, dry_run(ask)?);
    let made = made.await?;
    reply::ok(&worker_pool::write(&made.value, made.version.get()))
}

async fn one_pool(api: &Api, ask: &Ask, key: WorkerPoolKey) -> Result<Reply, Status> {
    match ask.method.as_str() {
        "GET" => {
            let found = api.worker_pool(&key).await?;
            reply::ok(&worker_pool::write(&found.value, found.version.get()))
        }
        "PUT" => {
            let mut sent: types::WorkerPool = ask.json()?;
            let mut found = Vec::new();
            let expected = check_replacement(api, &mut sent.metadata, &key, &mut found).await?;
            let desired = worker_pool::read(&sent, &mut found);
            let made = api
                .replace_worker_pool(&ask.caller, &key, desired, expected, found, dry_run(ask)?)
                .await?;
            reply::ok(&worker_pool::write(&made.value, made.version.get()))
        }
        "DELETE" => {
            let expected = Expected::default();
            let gone = api.delete_worker_pool(&ask.caller, &key, expected, dry_run(ask)?);
            let uid = gone.await?.value.meta.uid;
            deleted(GROUP, "workerpools", &key.name, &uid)
        }
        _ => Err(ask.no_such_path()),
    }
}

async fn list_executions(api: &Api, ask: &Ask, project: &str) -> Result<Reply, Status> {
    let selector = Selector::parse(ask.param("labelSelector"))?;
    // Names of executions begin with that of their job.
    let prefix = selector.only(JOB).map(|job| format!("{job}-"));
    let prefix = prefix.unwrap_or_default();
    list(api, ask, project, "ExecutionList", &prefix, |stored| {
        let written = execution::write(&stored.value, stored.version.get());
        (written.metadata.labels.clone(), written)
    })
    .await
}

async fn list_tasks(api: &Api, ask: &Ask, project: &str) -> Result<Reply, Status> {
    let Query {
        selector,
        from,
        limit,
        region,
    } = query(api, ask)?;
    let prefix = selector.only(EXECUTION).map(|execution| {
        ExecutionKey {
            project: String::new(),
            region: String::new(),
            name: execution.to_owned(),
        }
        .task_prefix()
    });
    let page: Listing<Stored<Task>> = api
        .page_of(
            project,
            region.as_deref(),
            &prefix.unwrap_or_default(),
            limit,
            from,
            |stored: Stored<Task>| {
                selector
                    .matches(&execution::task_labels(&stored.value))
                    .then_some(stored)
            },
        )
        .await?;
    // What a task runs stands in its execution.
    let mut executions: BTreeMap<ExecutionKey, Option<Execution>> = BTreeMap::new();
    let mut items = Vec::with_capacity(page.items.len());
    for stored in &page.items {
        let key = stored.value.execution_key();
        if !executions.contains_key(&key) {
            let found = api.find::<Execution>(&key).await?;
            executions.insert(key.clone(), found.map(|e| e.value));
        }
        // One that is just being removed has no execution any more.
        if let Some(Some(of)) = executions.get(&key) {
            let version = stored.version.get();
            items.push(execution::write_task(&stored.value, of, version));
        }
    }
    let (next, version) = (page.next, page.version);
    write_list(
        "TaskList",
        Listing {
            items,
            next,
            version,
        },
    )
}

struct Query {
    selector: Selector,
    from: Option<Token>,
    limit: usize,
    region: Option<String>,
}

fn query(api: &Api, ask: &Ask) -> Result<Query, Status> {
    if !ask.param("fieldSelector").is_empty() {
        return Err(Status::invalid(vec![Violation::new(
            "fieldSelector",
            "is not supported by this version of Lauf; select by labels.",
        )]));
    }
    Ok(Query {
        selector: Selector::parse(ask.param("labelSelector"))?,
        from: Token::decode(ask.param("continue"))?,
        limit: ask.count("limit")?,
        region: listed_region(api, ask)?,
    })
}

async fn list<T: Resource, V: Serialize>(
    api: &Api,
    ask: &Ask,
    project: &str,
    kind: &'static str,
    prefix: &str,
    write: impl Fn(&Stored<T>) -> (Map, V),
) -> Result<Reply, Status> {
    let query = query(api, ask)?;
    let region = query.region.as_deref();
    let select = |stored: Stored<T>| {
        // Labels are those that clients see, which include some that are not stored.
        let (labels, item) = write(&stored);
        query.selector.matches(&labels).then_some(item)
    };
    let page = api.page_of(project, region, prefix, query.limit, query.from, select);
    write_list(kind, page.await?)
}

fn write_list<V: Serialize>(kind: &'static str, page: Listing<V>) -> Result<Reply, Status> {
    reply::ok(&List {
        api_version: types::API_VERSION,
        kind,
        metadata: ListMeta {
            resource_version: page.version.to_string(),
            next: page.next.map(|t| t.encode()).unwrap_or_default(),
            self_link: String::new(),
        },
        items: page.items,
        unreachable: Vec::new(),
    })
}
