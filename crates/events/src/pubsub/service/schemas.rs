//! Schemas: made, revised, listed, deleted, tried out.

use std::collections::BTreeMap;
use std::sync::Arc;

use lauf_model::{Code, Status, Violation};
use lauf_store::{Condition, Resource as _, Txn};

use super::super::names::SchemaName;
use super::super::registry::bad_token;
use super::super::resource::{Encoding, SchemaSettings, exists, not_found};
use super::super::schema::{Checker, Compiled, Language, MAX_REVISIONS, Revision, Schema};
use super::{PubSub, begin, gone, page_of};
use crate::page::Page;
use crate::random::uid;

impl PubSub {
    pub(super) async fn load_schemas(&self) -> Result<(), lauf_store::ReadError> {
        let mut schemas: BTreeMap<SchemaName, Vec<Arc<Revision>>> = BTreeMap::new();
        for stored in self.0.store.all::<Revision>().await?.0 {
            let revision = stored.value;
            let revisions = schemas.entry(revision.schema.clone()).or_default();
            revisions.push(Arc::new(revision));
        }
        for (name, mut revisions) in schemas {
            revisions.sort_by_key(|revision| revision.created);
            self.0.schemas.put(name.clone(), Schema { name, revisions });
        }
        Ok(())
    }

    /// What the messages of a topic with these settings are held against.
    pub(super) fn checker(&self, settings: &SchemaSettings) -> Option<Arc<Checker>> {
        let schema = settings
            .schema
            .as_ref()
            .and_then(|name| self.0.schemas.get(name));
        let revisions = schema.iter().flat_map(|schema| &schema.revisions);
        let mut allowed: Vec<&Arc<Revision>> = revisions.collect();
        let at = |id: &str| allowed.iter().position(|revision| revision.id == id);
        let first = at(&settings.first_revision).unwrap_or(0);
        let last = at(&settings.last_revision).map_or(allowed.len(), |last| last + 1);
        allowed = allowed
            .get(first..last.max(first))
            .unwrap_or_default()
            .to_vec();
        let compiled = allowed.into_iter().rev().filter_map(|revision| {
            // It was understood when it was made.
            let compiled = Compiled::new(revision.language, &revision.definition).ok()?;
            Some((revision.id.clone(), compiled))
        });
        Some(Arc::new(Checker {
            encoding: settings.encoding,
            revisions: compiled.collect(),
            schema: schema.as_ref().map(|schema| schema.name.clone()),
        }))
    }

    /// Lets topics with this schema see that it changed.
    fn reopen_topics(&self, name: &SchemaName) {
        for topic in self.0.topics.by_name.all() {
            let uses = topic.config.schema.as_ref();
            if uses.is_some_and(|settings| settings.schema.as_ref() == Some(name)) {
                self.open_topic(topic.config.clone());
            }
        }
    }

    fn new_revision(
        &self,
        name: &SchemaName,
        language: Language,
        definition: &str,
    ) -> Result<Revision, Status> {
        Compiled::new(language, definition)?;
        Ok(Revision {
            schema: name.clone(),
            id: uid()?[..8].to_owned(),
            language,
            definition: definition.to_owned(),
            created: self.0.tools.clock.now(),
        })
    }

    /// Makes a schema.
    ///
    /// # Errors
    /// When the definition is not understood, or there is one of that name.
    pub async fn create_schema(
        &self,
        name: &SchemaName,
        language: Language,
        definition: &str,
    ) -> Result<Revision, Status> {
        let revision = self.new_revision(name, language, definition)?;
        let _admin = self.0.admin.lock().await;
        if self.0.schemas.get(name).is_some() {
            return Err(exists(name));
        }
        self.add_revision(name, Vec::new(), revision).await
    }

    async fn add_revision(
        &self,
        name: &SchemaName,
        mut revisions: Vec<Arc<Revision>>,
        revision: Revision,
    ) -> Result<Revision, Status> {
        if revisions.len() >= MAX_REVISIONS {
            return Err(Status::new(
                Code::FailedPrecondition,
                format!("{name} has {MAX_REVISIONS} revisions, the most there may be; delete one."),
            ));
        }
        let key = Revision::at(&(name.clone(), revision.id.clone()));
        self.write(Txn::create(key, revision.body()), || exists(name))
            .await?;
        revisions.push(Arc::new(revision.clone()));
        self.put_schema(name, revisions);
        Ok(revision)
    }

    fn put_schema(&self, name: &SchemaName, revisions: Vec<Arc<Revision>>) {
        let schema = Schema {
            name: name.clone(),
            revisions,
        };
        self.0.schemas.put(name.clone(), schema);
        self.reopen_topics(name);
    }

    fn schema_named(&self, name: &SchemaName) -> Result<Arc<Schema>, Status> {
        self.0.schemas.get(name).ok_or_else(|| not_found(name))
    }

    /// A schema at a revision, or at its newest if none is given.
    ///
    /// # Errors
    /// When there is none.
    pub fn schema(&self, name: &SchemaName, revision: Option<&str>) -> Result<Revision, Status> {
        let schema = self.schema_named(name)?;
        let found = match revision {
            None => schema.revisions.last(),
            Some(id) => schema.revisions.iter().find(|revision| revision.id == id),
        };
        let missing = || not_found(format!("{name}@{}", revision.unwrap_or_default()));
        Ok((**found.ok_or_else(missing)?).clone())
    }

    /// A project's schemas at their newest revisions, by name.
    ///
    /// # Errors
    /// When the token is none.
    pub fn list_schemas(
        &self,
        project: &str,
        size: usize,
        token: &str,
    ) -> Result<Page<Revision>, Status> {
        let page: Page<Option<Revision>> = page_of!(
            self.0.schemas,
            SchemaName,
            project,
            size,
            token,
            |_| true,
            |schema: &Arc<Schema>| schema.revisions.last().map(|newest| (**newest).clone())
        );
        Ok(Page {
            items: page.items.into_iter().flatten().collect(),
            next: page.next,
        })
    }

    /// A schema's revisions, the newest first.
    ///
    /// # Errors
    /// When there is no such schema, or the token is none.
    pub fn list_schema_revisions(
        &self,
        name: &SchemaName,
        size: usize,
        token: &str,
    ) -> Result<Page<Revision>, Status> {
        let schema = self.schema_named(name)?;
        let size = if size == 0 { MAX_REVISIONS } else { size };
        let begin = match token {
            "" => 0,
            _ => token.parse().map_err(|_| bad_token(token))?,
        };
        let newest_first = schema.revisions.iter().rev().skip(begin);
        let items: Vec<_> = newest_first
            .take(size)
            .map(|found| (**found).clone())
            .collect();
        let end = begin + items.len();
        let next = if end < schema.revisions.len() {
            end.to_string()
        } else {
            String::new()
        };
        Ok(Page { items, next })
    }

    /// Adds a revision to a schema.
    ///
    /// # Errors
    /// When there is no such schema, it is of another language, it has too many revisions, or the
    /// definition is not understood.
    pub async fn commit_schema(
        &self,
        name: &SchemaName,
        language: Language,
        definition: &str,
    ) -> Result<Revision, Status> {
        let revision = self.new_revision(name, language, definition)?;
        let _admin = self.0.admin.lock().await;
        let schema = self.schema_named(name)?;
        if schema
            .revisions
            .iter()
            .any(|other| other.language != language)
        {
            return Err(Status::invalid(vec![Violation::new(
                "schema.type",
                "A revision must be of the same type as the schema's others.",
            )]));
        }
        self.add_revision(name, schema.revisions.clone(), revision)
            .await
    }

    /// Makes an earlier revision of a schema the newest again, as a copy.
    ///
    /// # Errors
    /// When there is no such schema or revision, or there are too many.
    pub async fn rollback_schema(
        &self,
        name: &SchemaName,
        revision: &str,
    ) -> Result<Revision, Status> {
        let earlier = self.schema(name, Some(revision))?;
        self.commit_schema(name, earlier.language, &earlier.definition)
            .await
    }

    /// Deletes one revision of a schema.
    ///
    /// # Errors
    /// When there is no such schema or revision, or it is the only one.
    pub async fn delete_schema_revision(
        &self,
        name: &SchemaName,
        revision: &str,
    ) -> Result<Revision, Status> {
        let _admin = self.0.admin.lock().await;
        self.schema(name, Some(revision))?;
        let mut revisions = self.schema_named(name)?.revisions.clone();
        revisions.retain(|other| other.id != revision);
        let Some(newest) = revisions.last().cloned() else {
            return Err(Status::new(
                Code::InvalidArgument,
                format!("{revision} is the only revision of {name}; delete the schema instead."),
            ));
        };
        let key = Revision::at(&(name.clone(), revision.to_owned()));
        self.write(Txn::new().delete(key), gone).await?;
        self.put_schema(name, revisions);
        Ok((*newest).clone())
    }

    /// Deletes a schema. Topics that use it take no messages any longer.
    ///
    /// # Errors
    /// When there is none.
    pub async fn delete_schema(&self, name: &SchemaName) -> Result<(), Status> {
        let _admin = self.0.admin.lock().await;
        let schema = self.schema_named(name)?;
        let mut txn = Txn::new();
        for revision in &schema.revisions {
            let key = Revision::at(&(name.clone(), revision.id.clone()));
            txn = txn.require(Condition::Exists(key.clone())).delete(key);
        }
        self.write(txn, gone).await?;
        self.0.schemas.remove(name);
        for topic in self.0.topics.by_name.all() {
            let Some(settings) = &topic.config.schema else {
                continue;
            };
            if settings.schema.as_ref() == Some(name) {
                let mut config = topic.config.clone();
                config.schema = Some(SchemaSettings {
                    schema: None,
                    ..settings.clone()
                });
                self.put(&config.name, &config).await?;
                self.open_topic(config);
            }
        }
        Ok(())
    }

    /// Whether a definition is understood.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn validate_schema(&self, language: Language, definition: &str) -> Result<(), Status> {
        Compiled::new(language, definition).map(drop)
    }

    /// Whether a message is what a definition says.
    ///
    /// # Errors
    /// Says what is wrong with the definition or with the message.
    pub fn validate_message(
        &self,
        language: Language,
        definition: &str,
        encoding: Encoding,
        data: &[u8],
    ) -> Result<(), Status> {
        let compiled = Compiled::new(language, definition)?;
        compiled.check(encoding, data).map_err(|problem| {
            Status::new(
                Code::InvalidArgument,
                format!("Invalid data in message: Message failed schema validation: {problem}."),
            )
        })
    }
}
