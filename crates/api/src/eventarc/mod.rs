//! Eventarc's API: triggers and providers of `google.cloud.eventarc.v1`, over gRPC and REST. Wire forms become
//! the types of `lauf-events` and back.
//!
//! What takes a while at Google's is done when it is answered here. Its operation says what it was and is not
//! stored; who asks for it again is told so.

mod provider;
mod trigger;

use lauf_events::eventarc::{Eventarc, TriggerName};
use lauf_events::pubsub::TopicName;
use lauf_model::{Service, ServiceKey, Status};
use lauf_wire::google::cloud::eventarc::v1 as wire;
use lauf_wire::google::cloud::eventarc::v1::eventarc_server::{
    Eventarc as EventarcApi, EventarcServer,
};
use lauf_wire::google::longrunning::{Operation, operation::Result as Outcome};
use lauf_wire::pack;
use tonic::service::Routes;
use tonic::{Request, async_trait};

use crate::api::Api;
use crate::rpc::{self, Answer, asked, missing, size, unsupported, wrong};

/// The API whose face this is.
pub(crate) const DOMAIN: &str = "eventarc.googleapis.com";

/// What the ids of its operations begin with.
pub(crate) const OPERATION: &str = "eventarc-";

#[derive(Clone)]
struct Face {
    api: Api,
    eventarc: Eventarc,
}

/// Adds what answers Eventarc's RPCs. The caller must be among a request's extensions.
pub(crate) fn add(routes: Routes, api: &Api) -> Routes {
    let face = Face {
        api: api.clone(),
        eventarc: api.deps.eventarc.clone(),
    };
    let most = api.config.max_body;
    routes.add_service(EventarcServer::new(face).max_decoding_message_size(most))
}

fn answer<T>(result: Result<T, Status>) -> Answer<T> {
    rpc::answer(DOMAIN, result)
}

/// An operation that is done, whose id is `VERB.TRIGGER`.
fn done(name: &TriggerName, verb: &str, trigger: &wire::Trigger) -> Operation {
    let metadata = wire::OperationMetadata {
        create_time: trigger.create_time,
        end_time: trigger.create_time,
        target: name.to_string(),
        verb: verb.to_owned(),
        api_version: "v1".to_owned(),
        ..wire::OperationMetadata::default()
    };
    Operation {
        name: format!(
            "projects/{}/locations/{}/operations/{OPERATION}{verb}.{}",
            name.project, name.location, name.id
        ),
        metadata: Some(pack(&metadata)),
        done: true,
        result: Some(Outcome::Response(pack(trigger))),
    }
}

/// An operation that somebody asks for again, by its name and what its id says.
pub(crate) fn operation(api: &Api, name: &str, id: &str) -> Result<Operation, Status> {
    let unknown = || Status::not_found("Operation", name);
    let (verb, trigger) = id.split_once('.').ok_or_else(unknown)?;
    let (place, _) = name.split_once("/operations/").ok_or_else(unknown)?;
    let trigger = TriggerName::parse("name", &format!("{place}/triggers/{trigger}"))?;
    let now = match (verb, api.deps.eventarc.get(&trigger)) {
        ("create", Ok(found)) => trigger::show(&found),
        ("create", Err(_)) => return Err(unknown()),
        ("delete", _) => wire::Trigger {
            name: trigger.to_string(),
            ..wire::Trigger::default()
        },
        _ => return Err(unknown()),
    };
    Ok(done(&trigger, verb, &now))
}

#[async_trait]
impl EventarcApi for Face {
    async fn get_trigger(
        &self,
        request: Request<wire::GetTriggerRequest>,
    ) -> Answer<wire::Trigger> {
        let sent = asked(request)?;
        let found = async {
            let found = self.eventarc.get(&self.name("name", &sent.name).await?)?;
            Ok(trigger::show(&found))
        };
        answer(found.await)
    }

    async fn list_triggers(
        &self,
        request: Request<wire::ListTriggersRequest>,
    ) -> Answer<wire::ListTriggersResponse> {
        let sent = asked(request)?;
        let listed = async {
            if !sent.filter.is_empty() {
                return Err(unsupported("filter"));
            }
            let (project, location) = rpc::parent(&self.api, "parent", &sent.parent).await?;
            let size = size(sent.page_size)?;
            let page = self
                .eventarc
                .list(&project, &location, size, &sent.page_token);
            Ok(wire::ListTriggersResponse {
                triggers: page.items.iter().map(trigger::show).collect(),
                next_page_token: page.next,
                ..wire::ListTriggersResponse::default()
            })
        };
        answer(listed.await)
    }

    async fn create_trigger(
        &self,
        request: Request<wire::CreateTriggerRequest>,
    ) -> Answer<Operation> {
        let sent = asked(request)?;
        answer(self.create(sent).await)
    }

    async fn delete_trigger(
        &self,
        request: Request<wire::DeleteTriggerRequest>,
    ) -> Answer<Operation> {
        let sent = asked(request)?;
        let gone = async {
            if sent.validate_only {
                return Err(unsupported("validate_only"));
            }
            let name = self.name("name", &sent.name).await?;
            if sent.allow_missing && self.eventarc.get(&name).is_err() {
                return Ok(done(&name, "delete", &wire::Trigger::default()));
            }
            let gone = self.eventarc.delete(&name).await?;
            Ok(done(&name, "delete", &trigger::show(&gone)))
        };
        answer(gone.await)
    }

    async fn get_provider(
        &self,
        request: Request<wire::GetProviderRequest>,
    ) -> Answer<wire::Provider> {
        let sent = asked(request)?;
        let found = async {
            let name = rpc::located(&self.api, "name", &sent.name).await?;
            name.split_once("/providers/")
                .and_then(|(parent, id)| provider::show(parent, id))
                .ok_or_else(|| Status::not_found("Provider", &sent.name))
        };
        answer(found.await)
    }

    async fn list_providers(
        &self,
        request: Request<wire::ListProvidersRequest>,
    ) -> Answer<wire::ListProvidersResponse> {
        let sent = asked(request)?;
        let listed = async {
            if !sent.filter.is_empty() {
                return Err(unsupported("filter"));
            }
            let parent = rpc::located(&self.api, "parent", &sent.parent).await?;
            Ok(wire::ListProvidersResponse {
                providers: provider::all(&parent),
                ..wire::ListProvidersResponse::default()
            })
        };
        answer(listed.await)
    }
}

impl Face {
    async fn name(&self, field: &str, text: &str) -> Result<TriggerName, Status> {
        TriggerName::parse(field, &rpc::located(&self.api, field, text).await?)
    }

    async fn create(&self, sent: wire::CreateTriggerRequest) -> Result<Operation, Status> {
        if sent.validate_only {
            return Err(unsupported("validate_only"));
        }
        let parent = rpc::located(&self.api, "parent", &sent.parent).await?;
        let name = format!("{parent}/triggers/{}", sent.trigger_id);
        let name = TriggerName::parse("trigger_id", &name)?;
        let mut trigger = sent.trigger.ok_or_else(|| missing("trigger"))?;
        let topic = match trigger::topic(&trigger) {
            Some(topic) => Some(self.topic(topic).await?),
            None => None,
        };
        let destination = trigger::read_destination(trigger.destination.take(), &name.location)?;
        let region = self.api.known_region(&destination.region)?;
        let project = self.api.project(&name.project).await?;
        let key = ServiceKey {
            region: region.to_owned(),
            project: project.id.clone(),
            name: destination.service.clone(),
        };
        if self.api.find::<Service>(&key).await?.is_none() {
            return Err(wrong(
                "trigger.destination.cloud_run.service",
                format!(
                    "There is no service '{}' in {region}; deploy it first.",
                    destination.service
                ),
            ));
        }
        let site = &self.api.config.site;
        let url = site.url(&destination.service, project.number, region, None);
        let spec = trigger::read(name.clone(), trigger, destination, url, topic)?;
        let made = self.eventarc.create(spec).await?;
        Ok(done(&name, "create", &trigger::show(&made)))
    }

    /// A topic's name with the project's id in place of its number.
    async fn topic(&self, text: &str) -> Result<TopicName, Status> {
        const FIELD: &str = "trigger.transport.pubsub.topic";
        let Some((project, rest)) = text
            .strip_prefix("projects/")
            .and_then(|rest| rest.split_once('/'))
        else {
            return TopicName::parse(FIELD, text);
        };
        let project = self.api.project(project).await?.id;
        TopicName::parse(FIELD, &format!("projects/{project}/{rest}"))
    }
}
