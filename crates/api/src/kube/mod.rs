//! The Kubernetes face: Knative Serving's objects as an API server serves them, for unmodified
//! `kubectl`, `kn` and every program that is made of client-go.
//!
//! ```text
//! speaks: is it for this face?  ->  path  ->  discovery, openapi, review   what there is
//!                                         ->  get, list, watch             store -> kind -> accept/table
//!                                         ->  create, replace, patch       body -> intent -> kind -> store
//! ```
//!
//! A [`kind::Kind`] says what a sort of object is called, how it looks, and how it is written;
//! everything else here works on any kind. A project is a namespace, a region is a cluster: the
//! first part of the path, `/kubernetes/REGION`, tells which, and `lauf kubeconfig` writes it into
//! the server's address.
//!
//! The laws, beside those of the crate:
//!
//! 1. **The same objects.** What is written here is what Cloud Run's faces read, and the other way
//!    round; nothing is stored twice but the client's own spelling.
//! 2. **Intent without defaults.** What a client wants is kept as it said it ([`intent`]); defaults
//!    are filled in when it is shown, are owned by nobody and clash with nothing.
//! 3. **Errors are Kubernetes' `Status`** with reason, details and causes, made in `failure`.
//! 4. **A watch misses nothing**: it follows the store's one order, holds a page of changes at most,
//!    and is told `410` when its place is no longer kept.

mod accept;
mod body;
mod check;
mod delete;
mod discovery;
mod failure;
mod fields;
mod intent;
mod kind;
mod kinds;
mod knative;
mod list;
mod openapi;
mod patch;
mod path;
mod review;
mod schema;
mod select;
mod speaks;
mod table;
mod view;
mod watch;
mod write;

use axum::body::Body;
use http::{Method, Request};
use lauf_iam::Caller;
use lauf_model::{Code, Status};

use crate::api::{Api, Ask};
use crate::host::Host;
use crate::reply::Reply;

use accept::Accept;
use failure::Failure;
use kind::Place;
use path::Target;

pub(crate) use kinds::carry;
pub(crate) use speaks::is_kubernetes;

/// The first segment of paths that can only be meant for this face.
pub(crate) const PREFIX: &str = "kubernetes";

/// What the face keeps for as long as it serves.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    watches: std::sync::Arc<tokio::sync::Semaphore>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            watches: std::sync::Arc::new(tokio::sync::Semaphore::new(watch::MOST)),
        }
    }
}

/// Answers a request of somebody who was let in; errors too are answers.
pub(crate) async fn answer(api: &Api, caller: Caller, host: Host, request: Request<Body>) -> Reply {
    match api.read(caller, host, request).await {
        Ok(ask) => dispatch(api, &ask).await,
        Err(status) => refuse(status),
    }
}

/// An error, in this face's form.
pub(crate) fn refuse(status: Status) -> Reply {
    Failure::from(status).reply()
}

async fn dispatch(api: &Api, ask: &Ask) -> Reply {
    let target = path::parse(&ask.path);
    let answered = match &target {
        Ok(target) => answer_target(api, ask, target).await,
        Err(failure) => Err(failure.clone()),
    };
    let answered = api.audited(ask, answered).await;
    answered.unwrap_or_else(|failure| match &target {
        Ok(Target::Object { kind, name, .. }) => failure.about(kind.names(), name).reply(),
        _ => failure.reply(),
    })
}

async fn answer_target(api: &Api, ask: &Ask, target: &Target) -> Result<Reply, Failure> {
    let get = ask.method == Method::GET || ask.method == Method::HEAD;
    match target {
        Target::Root if get => discovery::root(),
        Target::Health if get => Ok(discovery::health()),
        Target::Version if get => discovery::version(),
        Target::OpenApiV2 if get => openapi::v2(ask),
        Target::OpenApiV3 if get => openapi::v3_index(),
        Target::OpenApiV3Of(group_version) if get => openapi::v3(ask, group_version),
        Target::CoreVersions if get => discovery::core_versions(ask),
        Target::Groups if get => discovery::groups(ask),
        Target::Group(group) if get => discovery::group(group),
        Target::Resources(group, version) if get => discovery::resources(group, version),
        Target::Review(review) if ask.method == Method::POST => review::answer(ask, *review),
        Target::Object {
            kind,
            region,
            namespace,
            name,
            subresource,
        } => {
            let kind = *kind;
            let place = place(api, ask, region.as_deref(), namespace.as_deref()).await?;
            let accept = Accept::of(ask)?;
            match (ask.method.as_str(), name.as_str(), subresource.as_deref()) {
                ("GET", "", None) if watch::is_asked(ask) => {
                    watch::answer(api, ask, kind, &place, "", &accept).await
                }
                ("GET", "", None) => list::list(api, ask, kind, &place, &accept).await,
                ("GET", name, None | Some("status"))
                    if !name.is_empty() && watch::is_asked(ask) =>
                {
                    watch::answer(api, ask, kind, &place, name, &accept).await
                }
                ("GET", name, None | Some("status")) if !name.is_empty() => {
                    list::get(api, ask, kind, &place, name, &accept).await
                }
                ("DELETE", name, None) => {
                    delete::answer(api, ask, kind, &place, name, &accept).await
                }
                ("POST" | "PUT" | "PATCH", name, None) => {
                    write::answer(api, ask, kind, &place, name, &accept).await
                }
                (_, _, Some("status")) => Err(Failure::not_allowed(
                    ask,
                    "is written by Lauf's controllers and by nobody else",
                )),
                (_, _, Some(_)) => Err(Failure::no_such_path(ask)),
                _ => Err(Failure::not_allowed(ask, "is not supported here")),
            }
        }
        _ => Err(Failure::not_allowed(ask, "is not supported here")),
    }
}

/// The namespace and the cluster that a request is about.
async fn place(
    api: &Api,
    ask: &Ask,
    region: Option<&str>,
    namespace: Option<&str>,
) -> Result<Place, Failure> {
    let region = match region {
        Some(region) => api.known_region(region)?.to_owned(),
        None => api.region(ask)?,
    };
    let project = match namespace {
        None => None,
        Some(namespace) => match api.project(namespace).await {
            Ok(project) => Some(project.id),
            Err(status) if status.code == Code::NotFound => {
                return Err(Failure::no_namespace(namespace, &status.message));
            }
            Err(status) => return Err(status.into()),
        },
    };
    Ok(Place { project, region })
}
