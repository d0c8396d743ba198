//! `google.cloud.run.v2.Revisions`.

use lauf_model::{Code, Revision, Status, Violation, WorkerPoolRevision};
use lauf_store::{Stored, Version};
use lauf_wire::google::cloud::run::v2::revisions_server::Revisions;
use lauf_wire::google::cloud::run::v2::{
    DeleteRevisionRequest, GetRevisionRequest, ListRevisionsRequest, ListRevisionsResponse,
    Revision as WireRevision,
};
use lauf_wire::google::longrunning::Operation;
use tonic::{Request, async_trait};

use super::name::{AnyRevision, At, Kind, lets_through};
use super::{Answer, Face, answer, asked, next, operation, page, revision, worker_pool};

/// A revision, of a service or of a worker pool.
enum Found {
    Service(Stored<Revision>),
    WorkerPool(Stored<WorkerPoolRevision>),
}

#[async_trait]
impl Revisions for Face {
    async fn get_revision(&self, request: Request<GetRevisionRequest>) -> Answer<WireRevision> {
        let (_, sent) = asked(request)?;
        let found = self.revision(&sent.name).await;
        answer(found.map(|(_, found)| match found {
            Found::Service(found) => revision::write(&found.value, found.version),
            Found::WorkerPool(found) => worker_pool::write_revision(&found.value, found.version),
        }))
    }

    async fn list_revisions(
        &self,
        request: Request<ListRevisionsRequest>,
    ) -> Answer<ListRevisionsResponse> {
        let (_, sent) = asked(request)?;
        answer(self.revisions(sent).await)
    }

    async fn delete_revision(&self, request: Request<DeleteRevisionRequest>) -> Answer<Operation> {
        let (_, sent) = asked(request)?;
        answer(self.delete_revision(sent).await)
    }
}

impl Face {
    /// A revision, of the service or worker pool that its name says.
    async fn revision(&self, name: &str) -> Result<(AnyRevision, Found), Status> {
        let key = At("name").revision(&self.api, name).await?;
        let missing = |of: &str, name: &str| {
            Err(Status::not_found(
                "Revision",
                format!("{of}/revisions/{name}"),
            ))
        };
        let found = match &key {
            AnyRevision::Service(key) => {
                let found = self.api.revision(key).await?;
                if found.value.service != key.service.name {
                    return missing(&key.service.name, &key.revision);
                }
                Found::Service(found)
            }
            AnyRevision::WorkerPool(key) => {
                let found = self.api.worker_pool_revision(key).await?;
                if found.value.pool != key.pool.name {
                    return missing(&key.pool.name, &key.revision);
                }
                Found::WorkerPool(found)
            }
        };
        Ok((key, found))
    }

    /// Of one service or worker pool, or of all of them, `services/-`.
    async fn revisions(&self, sent: ListRevisionsRequest) -> Result<ListRevisionsResponse, Status> {
        let form = "locations/REGION/services/SERVICE";
        let (place, of) = At("parent").parent(&self.api, &sent.parent, form).await?;
        let (size, token) = (sent.page_size, sent.page_token.as_str());
        let page = match of {
            Kind::Service(service) => {
                page::<Revision, _>(&self.api, &place, size, token, |stored| {
                    let ours = lets_through(service, &stored.value.service);
                    let shown = sent.show_deleted || stored.value.meta.deleted.is_none();
                    (ours && shown).then(|| revision::write(&stored.value, stored.version))
                })
                .await?
            }
            Kind::WorkerPool(pool) => {
                page::<WorkerPoolRevision, _>(&self.api, &place, size, token, |stored| {
                    let ours = lets_through(pool, &stored.value.pool);
                    let shown = sent.show_deleted || stored.value.meta.deleted.is_none();
                    let write = || worker_pool::write_revision(&stored.value, stored.version);
                    (ours && shown).then(write)
                })
                .await?
            }
            _ => return Err(At("parent").wrong(&sent.parent, form)),
        };
        Ok(ListRevisionsResponse {
            next_page_token: next(&page),
            revisions: page.items,
        })
    }

    async fn delete_revision(&self, sent: DeleteRevisionRequest) -> Result<Operation, Status> {
        let (key, found) = self.revision(&sent.name).await?;
        let version = match &found {
            Found::Service(found) => found.version,
            Found::WorkerPool(found) => found.version,
        };
        check_etag(&sent, version)?;
        let only_check = sent.validate_only;
        let gone = match key {
            AnyRevision::Service(key) => {
                operation::deleted(&self.api.delete_revision(&key, only_check).await?)
            }
            AnyRevision::WorkerPool(key) => operation::deleted(
                &self
                    .api
                    .delete_worker_pool_revision(&key, only_check)
                    .await?,
            ),
        };
        Ok(operation::checked(gone, only_check))
    }
}

fn check_etag(sent: &DeleteRevisionRequest, version: Version) -> Result<(), Status> {
    if sent.etag.is_empty() {
        return Ok(());
    }
    let expected = crate::etag::version(&sent.etag).ok_or_else(|| {
        Status::invalid(vec![Violation::new(
            "etag",
            format!("'{}' is not one that a read gave.", sent.etag),
        )])
    })?;
    if expected == version {
        return Ok(());
    }
    Err(Status::new(
        Code::Aborted,
        format!(
            "Revision '{}' was changed since it was read. Read it again.",
            sent.name
        ),
    ))
}
