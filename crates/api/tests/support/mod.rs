//! A platform small enough for a test: the real API on a store in memory, and a stand-in for the
//! controllers that finds every service ready at once.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "each test uses a part of it"
)]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use lauf_api::{
    ApiConfig, AuditEntry, Deps, Live, LiveCounts, LogPage, LogQuery, LogStream, Logs, router,
};
use lauf_events::eventarc::Eventarc;
use lauf_events::log::{EmbeddedConfig, EmbeddedLog};
use lauf_events::pubsub::PubSub;
use lauf_events::scheduler::Scheduler;
use lauf_events::tasks::Tasks;
use lauf_events::{CallError, Caller, Identity};
use lauf_iam::Iam;
use lauf_model::url::Site;
use lauf_model::{
    Clock, Condition, ConditionStatus, Meta, Project, Revision, RevisionStatus, Service,
    ServiceKey, Severity, SystemClock, condition, traffic,
};
use lauf_store::{Resource as _, Store, StoreConfig, Txn};
use serde_json::Value;
use tower::ServiceExt as _;

pub const RUN: &str = "us-central1-run.googleapis.com";
pub const SERVICES: &str = "/apis/serving.knative.dev/v1/namespaces/demo/services";
pub const NUMBER: u64 = 123_456_789_012;

pub struct Platform {
    pub router: Router,
    pub store: Store,
    pub token: String,
    _dir: tempfile::TempDir,
}

struct NothingRuns;

impl Live for NothingRuns {
    fn instances(&self, _: &ServiceKey) -> LiveCounts {
        LiveCounts::default()
    }
}

/// The world, of which nothing can be reached.
struct Nowhere;

#[async_trait]
impl Caller for Nowhere {
    async fn call(
        &self,
        request: Request<Bytes>,
        _: Option<Identity>,
        _: Duration,
    ) -> Result<Response<Bytes>, CallError> {
        Err(CallError::Unreachable(format!(
            "nobody is at {}",
            request.uri()
        )))
    }
}

struct OneEntry;

#[async_trait]
impl Logs for OneEntry {
    fn audit(&self, entry: AuditEntry) -> Value {
        Value::Object(entry.proto)
    }

    async fn list(&self, query: LogQuery) -> Result<LogPage, lauf_model::Status> {
        Ok(LogPage {
            entries: vec![serde_json::json!({
                "logName": format!("projects/{}/logs/run.googleapis.com%2Fstdout", query.projects[0]),
                "textPayload": query.filter,
                "timestamp": "2026-01-01T00:00:00Z",
                "resource": {"type": "cloud_run_revision", "labels": {}},
            })],
            next_page_token: String::new(),
        })
    }

    async fn tail(&self, _: &str) -> Result<LogStream, lauf_model::Status> {
        Ok(Box::pin(futures_util::stream::empty()))
    }
}

impl Platform {
    pub async fn new() -> Self {
        Self::on(Store::in_memory().unwrap()).await
    }

    /// One whose store keeps few changes for those who come late.
    pub async fn with_history(changes: u64) -> Self {
        let config = StoreConfig {
            history_changes: changes,
            recent_changes: usize::try_from(changes).unwrap(),
            ..StoreConfig::default()
        };
        Self::on(Store::in_memory_with(&config).unwrap()).await
    }

    pub async fn on(store: Store) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let iam = Iam::open(dir.path(), "run.localhost").unwrap();
        let token = std::fs::read_to_string(iam.token_file()).unwrap();
        let project = Project {
            id: "demo".to_owned(),
            number: NUMBER,
        };
        let txn = Txn::create(Project::at("demo"), project.body());
        store.write(txn).await.unwrap();
        let mut config = ApiConfig::new(site(), "us-central1", "demo");
        config.regions.push("europe-west1".to_owned());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let log = EmbeddedLog::open(
            dir.path().join("events"),
            &EmbeddedConfig::default(),
            Arc::clone(&clock),
        );
        let log = Arc::new(log.unwrap());
        let caller = Arc::new(Nowhere);
        let pubsub = PubSub::start(lauf_events::pubsub::Deps {
            log: Arc::clone(&log) as _,
            store: store.clone(),
            clock: Arc::clone(&clock),
            caller: Arc::clone(&caller) as _,
        });
        let pubsub = pubsub.await.unwrap();
        let scheduler = Scheduler::start(lauf_events::scheduler::Deps {
            store: store.clone(),
            clock: Arc::clone(&clock),
            caller: Arc::clone(&caller) as _,
            pubsub: pubsub.clone(),
        });
        let tasks = Tasks::start(lauf_events::tasks::Deps {
            log,
            store: store.clone(),
            clock: Arc::clone(&clock),
            caller,
        });
        let eventarc = Eventarc::start(lauf_events::eventarc::Deps {
            store: store.clone(),
            clock: Arc::clone(&clock),
            pubsub: pubsub.clone(),
        });
        let deps = Deps {
            store: store.clone(),
            iam: Arc::new(iam),
            logs: Arc::new(OneEntry),
            pubsub,
            scheduler: scheduler.await.unwrap(),
            tasks: tasks.await.unwrap(),
            eventarc: eventarc.await.unwrap(),
            clock,
            live: Arc::new(NothingRuns),
        };
        Self {
            router: router(config, deps),
            store,
            token: token.trim().to_owned(),
            _dir: dir,
        }
    }

    pub async fn send(&self, request: Request<Body>) -> (StatusCode, Value) {
        let reply = self.router.clone().oneshot(request).await.unwrap();
        let status = reply.status();
        let body = reply.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    pub async fn call(
        &self,
        method: &str,
        host: &str,
        path: &str,
        body: Option<&Value>,
    ) -> (StatusCode, Value) {
        let body = body.map_or(Body::empty(), |b| Body::from(b.to_string()));
        let request = Request::builder()
            .method(method)
            .uri(path.replace(' ', "%20"))
            .header("host", host)
            .header("authorization", format!("Bearer {}", self.token))
            .body(body)
            .unwrap();
        self.send(request).await
    }

    /// What the controllers do, as far as clients see it.
    pub async fn reconcile(&self) {
        reconcile(&self.store).await;
    }
}

fn site() -> Site {
    Site {
        scheme: "http".to_owned(),
        domain: "run.localhost".to_owned(),
        port: Some(8080),
    }
}

/// Makes every service ready, stamps its revisions, and removes what is to be deleted.
pub async fn reconcile(store: &Store) {
    let now = SystemClock::new().now();
    let ready = |kind: &str| Condition {
        kind: kind.to_owned(),
        status: ConditionStatus::True,
        reason: String::new(),
        message: String::new(),
        severity: Severity::Error,
        last_transition: now,
    };
    for revision in store.all::<Revision>().await.unwrap().0 {
        let Meta {
            project,
            region,
            name,
            deleted,
            ..
        } = revision.value.meta;
        if deleted.is_some() {
            let service = ServiceKey {
                project,
                region,
                name: revision.value.service,
            };
            let gone = Txn::new().delete(Revision::at(&service.revision(&name)));
            store.write(gone).await.unwrap();
        }
    }
    for stored in store.all::<Service>().await.unwrap().0 {
        let mut service = stored.value;
        if service.meta.deleted.is_some() {
            let gone = Txn::new().delete(Service::at(&service.key()));
            store.write(gone).await.unwrap();
            continue;
        }
        if service.status.observed_generation == service.meta.generation {
            continue;
        }
        let mut txn = Txn::new();
        let key = service.key();
        let template = service.spec.template.clone();
        let latest = key.revision(&service.status.latest_created_revision);
        let same = match service.status.latest_created_revision.as_str() {
            "" => false,
            _ => store
                .find::<Revision>(&latest)
                .await
                .unwrap()
                .is_some_and(|r| {
                    r.value.spec == template.spec && r.value.meta.labels == template.labels
                }),
        };
        if !same {
            let name = template.name.clone().unwrap_or_else(|| {
                format!("{}-{:05}-abc", service.meta.name, service.meta.generation)
            });
            let image = &template.spec.container.image;
            let revision = Revision {
                meta: Meta {
                    name: name.clone(),
                    labels: template.labels.clone(),
                    annotations: template.annotations.clone(),
                    generation: 1,
                    ..service.meta.clone()
                },
                service: service.meta.name.clone(),
                service_generation: service.meta.generation,
                template_as_sent: template.as_sent.clone(),
                spec: template.spec.clone(),
                status: RevisionStatus {
                    image_digest: format!("{image}@sha256:{:064}", 7),
                    conditions: vec![ready("Ready"), ready("ContainerReady")],
                },
            };
            txn = txn.put(Revision::at(&key.revision(&name)), revision.body());
            service.status.latest_created_revision.clone_from(&name);
            service.status.latest_ready_revision = name;
        }
        let status = &mut service.status;
        status.observed_generation = service.meta.generation;
        for kind in ["Ready", "ConfigurationsReady", "RoutesReady"] {
            condition::set(&mut status.conditions, ready(kind));
        }
        let url = |tag: Option<&str>| site().url(&service.meta.name, NUMBER, &key.region, tag);
        status.url = url(None);
        status.traffic =
            traffic::resolve(&service.spec.traffic, Some(&status.latest_ready_revision));
        for target in &mut status.traffic {
            target.url = target.tag.as_deref().map(|tag| url(Some(tag)));
        }
        txn = txn.put(Service::at(&key), service.body());
        store.write(txn).await.unwrap();
    }
}
