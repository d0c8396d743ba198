//! `google.cloud.run.v2.Revisions`.

use lauf_model::{Code, Revision, RevisionKey, ServiceKey, Status, Violation};
use lauf_store::Stored;
use lauf_wire::google::cloud::run::v2::revisions_server::Revisions;
use lauf_wire::google::cloud::run::v2::{
    DeleteRevisionRequest, GetRevisionRequest, ListRevisionsRequest, ListRevisionsResponse,
    Revision as WireRevision,
};
use lauf_wire::google::longrunning::Operation;
use tonic::{Request, async_trait};

use super::name::At;
use super::{Answer, Face, answer, asked, name, next, operation, page, revision};

#[async_trait]
impl Revisions for Face {
    async fn get_revision(&self, request: Request<GetRevisionRequest>) -> Answer<WireRevision> {
        let (_, sent) = asked(request)?;
        let found = self.revision(&sent.name).await;
        answer(found.map(|(_, found)| revision::write(&found.value, found.version)))
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
    /// A revision, of the service that its name says.
    async fn revision(&self, name: &str) -> Result<(RevisionKey, Stored<Revision>), Status> {
        let key = At("name").revision(&self.api, name).await?;
        let found = self.api.revision(&key).await?;
        if found.value.service == key.service.name {
            return Ok((key, found));
        }
        let name = format!("{}/revisions/{}", key.service.name, key.revision);
        Err(Status::not_found("Revision", name))
    }

    /// Of one service, or of all of them, `services/-`.
    async fn revisions(&self, sent: ListRevisionsRequest) -> Result<ListRevisionsResponse, Status> {
        let key: ServiceKey = At("parent").services(&self.api, &sent.parent).await?;
        let page = page::<Revision, _>(
            &self.api,
            &key,
            sent.page_size,
            &sent.page_token,
            |stored| {
                let ours = key.name == name::ALL || stored.value.service == key.name;
                let shown = sent.show_deleted || stored.value.meta.deleted.is_none();
                (ours && shown).then(|| revision::write(&stored.value, stored.version))
            },
        )
        .await?;
        Ok(ListRevisionsResponse {
            next_page_token: next(&page),
            revisions: page.items,
        })
    }

    async fn delete_revision(&self, sent: DeleteRevisionRequest) -> Result<Operation, Status> {
        let (key, found) = self.revision(&sent.name).await?;
        if !sent.etag.is_empty() {
            let expected = crate::etag::version(&sent.etag).ok_or_else(|| {
                Status::invalid(vec![Violation::new(
                    "etag",
                    format!("'{}' is not one that a read gave.", sent.etag),
                )])
            })?;
            if expected != found.version {
                return Err(Status::new(
                    Code::Aborted,
                    format!(
                        "Revision '{}' was changed since it was read. Read it again.",
                        key.revision
                    ),
                ));
            }
        }
        let gone = self.api.delete_revision(&key, sent.validate_only).await?;
        let operation = operation::of_revision(&gone);
        Ok(if sent.validate_only {
            operation::succeeded(operation)
        } else {
            operation
        })
    }
}
