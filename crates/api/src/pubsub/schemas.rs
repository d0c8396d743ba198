//! `google.pubsub.v1.SchemaService`.

use lauf_events::pubsub::{Language, SchemaName};
use lauf_model::Status;
use lauf_wire::google::pubsub::v1::schema_service_server::SchemaService;
use lauf_wire::google::pubsub::v1::{
    CommitSchemaRequest, CreateSchemaRequest, DeleteSchemaRequest, DeleteSchemaRevisionRequest,
    GetSchemaRequest, ListSchemaRevisionsRequest, ListSchemaRevisionsResponse, ListSchemasRequest,
    ListSchemasResponse, RollbackSchemaRequest, Schema, SchemaView, ValidateMessageRequest,
    ValidateMessageResponse, ValidateSchemaRequest, ValidateSchemaResponse,
    validate_message_request::SchemaSpec,
};
use tonic::{Request, async_trait};

use super::topic::read_encoding;
use super::{Answer, Face, answer, asked, missing, schema, size};

#[async_trait]
impl SchemaService for Face {
    async fn create_schema(&self, request: Request<CreateSchemaRequest>) -> Answer<Schema> {
        let sent = asked(request)?;
        let made = async {
            let project = self.project("parent", &sent.parent).await?;
            let name = format!("projects/{project}/schemas/{}", sent.schema_id);
            let name = SchemaName::parse("schema_id", &name)?;
            let (language, definition) = read(sent.schema)?;
            self.pubsub
                .create_schema(&name, language, &definition)
                .await
        };
        answer(made.await.map(|made| schema::show(&made, true)))
    }

    async fn get_schema(&self, request: Request<GetSchemaRequest>) -> Answer<Schema> {
        let sent = asked(request)?;
        let found = async {
            let (name, revision) = self.revision("name", &sent.name).await?;
            self.pubsub.schema(&name, revision.as_deref())
        };
        let full = sent.view != i32::from(SchemaView::Basic);
        answer(found.await.map(|found| schema::show(&found, full)))
    }

    async fn list_schemas(
        &self,
        request: Request<ListSchemasRequest>,
    ) -> Answer<ListSchemasResponse> {
        let sent = asked(request)?;
        let listed = async {
            let project = self.project("parent", &sent.parent).await?;
            let size = size(sent.page_size)?;
            self.pubsub.list_schemas(&project, size, &sent.page_token)
        };
        let full = sent.view == i32::from(SchemaView::Full);
        answer(listed.await.map(|page| ListSchemasResponse {
            schemas: page.items.iter().map(|s| schema::show(s, full)).collect(),
            next_page_token: page.next,
        }))
    }

    async fn list_schema_revisions(
        &self,
        request: Request<ListSchemaRevisionsRequest>,
    ) -> Answer<ListSchemaRevisionsResponse> {
        let sent = asked(request)?;
        let listed = async {
            let name = self.named("name", &sent.name, SchemaName::parse).await?;
            let size = size(sent.page_size)?;
            self.pubsub
                .list_schema_revisions(&name, size, &sent.page_token)
        };
        let full = sent.view == i32::from(SchemaView::Full);
        answer(listed.await.map(|page| ListSchemaRevisionsResponse {
            schemas: page.items.iter().map(|s| schema::show(s, full)).collect(),
            next_page_token: page.next,
        }))
    }

    async fn commit_schema(&self, request: Request<CommitSchemaRequest>) -> Answer<Schema> {
        let sent = asked(request)?;
        let made = async {
            let name = self.named("name", &sent.name, SchemaName::parse).await?;
            let (language, definition) = read(sent.schema)?;
            self.pubsub
                .commit_schema(&name, language, &definition)
                .await
        };
        answer(made.await.map(|made| schema::show(&made, true)))
    }

    async fn rollback_schema(&self, request: Request<RollbackSchemaRequest>) -> Answer<Schema> {
        let sent = asked(request)?;
        let made = async {
            let name = self.named("name", &sent.name, SchemaName::parse).await?;
            self.pubsub.rollback_schema(&name, &sent.revision_id).await
        };
        answer(made.await.map(|made| schema::show(&made, true)))
    }

    async fn delete_schema_revision(
        &self,
        request: Request<DeleteSchemaRevisionRequest>,
    ) -> Answer<Schema> {
        let sent = asked(request)?;
        let left = async {
            let (name, revision) = self.revision("name", &sent.name).await?;
            #[expect(deprecated, reason = "older clients send it")]
            let revision = revision.unwrap_or(sent.revision_id);
            self.pubsub.delete_schema_revision(&name, &revision).await
        };
        answer(left.await.map(|left| schema::show(&left, true)))
    }

    async fn delete_schema(&self, request: Request<DeleteSchemaRequest>) -> Answer<()> {
        let sent = asked(request)?;
        let gone = async {
            let name = self.named("name", &sent.name, SchemaName::parse).await?;
            self.pubsub.delete_schema(&name).await
        };
        answer(gone.await)
    }

    async fn validate_schema(
        &self,
        request: Request<ValidateSchemaRequest>,
    ) -> Answer<ValidateSchemaResponse> {
        let sent = asked(request)?;
        let valid = read(sent.schema)
            .and_then(|(language, definition)| self.pubsub.validate_schema(language, &definition));
        answer(valid.map(|()| ValidateSchemaResponse {}))
    }

    async fn validate_message(
        &self,
        request: Request<ValidateMessageRequest>,
    ) -> Answer<ValidateMessageResponse> {
        let sent = asked(request)?;
        let valid = async {
            let encoding = read_encoding("encoding", sent.encoding)?;
            let (language, definition) = match sent.schema_spec {
                Some(SchemaSpec::Name(name)) => {
                    let (name, revision) = self.revision("name", &name).await?;
                    let found = self.pubsub.schema(&name, revision.as_deref())?;
                    (found.language, found.definition)
                }
                Some(SchemaSpec::Schema(schema)) => read(Some(schema))?,
                None => return Err(missing("name or schema")),
            };
            self.pubsub
                .validate_message(language, &definition, encoding, &sent.message)
        };
        answer(valid.await.map(|()| ValidateMessageResponse {}))
    }
}

impl Face {
    /// The schema, and the revision that `projects/P/schemas/S@REVISION` names.
    async fn revision(
        &self,
        field: &str,
        text: &str,
    ) -> Result<(SchemaName, Option<String>), Status> {
        let (name, revision) = match text.split_once('@') {
            Some((name, revision)) => (name, Some(revision.to_owned())),
            None => (text, None),
        };
        let name = self.named(field, name, SchemaName::parse).await?;
        Ok((name, revision))
    }
}

fn read(sent: Option<Schema>) -> Result<(Language, String), Status> {
    let sent = sent.ok_or_else(|| missing("schema"))?;
    let language = schema::read_language("schema.type", sent.r#type)?;
    Ok((language, sent.definition))
}
