//! Eventarc's API: triggers, channels and providers of `google.cloud.eventarc.v1`, and publishing to channels, over gRPC
//! and REST. Wire forms become the types of `lauf-events` and back.
//!
//! What takes a while at Google's is done when it is answered here. Its operation says what it was and is not
//! stored; who asks for it again is told so.

mod channel;
mod provider;
mod publishing;
mod trigger;

use std::fmt::Display;

use lauf_events::eventarc::{ChannelName, Eventarc, Spec, TriggerName};
use lauf_events::pubsub::TopicName;
use lauf_model::{Service, ServiceKey, Status};
use lauf_wire::google::cloud::eventarc::publishing::v1::publisher_server::PublisherServer;
use lauf_wire::google::cloud::eventarc::v1 as wire;
use lauf_wire::google::cloud::eventarc::v1::eventarc_server::{
    Eventarc as EventarcApi, EventarcServer,
};
use lauf_wire::google::longrunning::{Operation, operation::Result as Outcome};
use lauf_wire::{FieldMask, Named, mask, pack};
use tonic::service::Routes;
use tonic::{Request, async_trait};

use crate::api::Api;
use crate::rpc::{self, Answer, asked, missing, size, unsupported, wrong};

pub(crate) use publishing::DOMAIN as PUBLISHING;

/// The API whose face this is.
pub(crate) const DOMAIN: &str = "eventarc.googleapis.com";

/// What the ids of its operations begin with.
pub(crate) const OPERATION: &str = "eventarc-";

#[derive(Clone)]
struct Face {
    api: Api,
    eventarc: Eventarc,
}

/// Adds what answers Eventarc's RPCs and those that publish. The caller must be among a request's extensions.
pub(crate) fn add(routes: Routes, api: &Api) -> Routes {
    let face = Face {
        api: api.clone(),
        eventarc: api.deps.eventarc.clone(),
    };
    let most = api.config.max_body;
    let publisher = PublisherServer::new(face.clone());
    routes
        .add_service(EventarcServer::new(face).max_decoding_message_size(most))
        .add_service(publisher.max_decoding_message_size(most))
}

fn answer<T>(result: Result<T, Status>) -> Answer<T> {
    rpc::answer(DOMAIN, result)
}

/// An operation that is done, whose id is `WHAT.ID`, such as `create.my-trigger` or `delete-channel.my-channel`.
fn done<M: Named>(
    name: &(impl Display + ?Sized),
    what: &str,
    made: Option<lauf_wire::Timestamp>,
    result: &M,
) -> Operation {
    let name = name.to_string();
    let mut words = name.splitn(6, '/');
    let place: Vec<&str> = words.by_ref().take(4).collect();
    let id = words.nth(1).unwrap_or_default();
    let metadata = wire::OperationMetadata {
        create_time: made,
        end_time: made,
        target: name.clone(),
        verb: what.split('-').next().unwrap_or_default().to_owned(),
        api_version: "v1".to_owned(),
        ..wire::OperationMetadata::default()
    };
    Operation {
        name: format!("{}/operations/{OPERATION}{what}.{id}", place.join("/")),
        metadata: Some(pack(&metadata)),
        done: true,
        result: Some(Outcome::Response(pack(result))),
    }
}

fn done_trigger(name: &TriggerName, verb: &str, trigger: &wire::Trigger) -> Operation {
    done(name, verb, trigger.create_time, trigger)
}

fn done_channel(name: &ChannelName, verb: &str, channel: &wire::Channel) -> Operation {
    let what = format!("{verb}-channel");
    done(name, &what, channel.create_time, channel)
}

/// An operation that somebody asks for again, by its name and what its id says.
pub(crate) fn operation(api: &Api, name: &str, id: &str) -> Result<Operation, Status> {
    let unknown = || Status::not_found("Operation", name);
    let (what, id) = id.split_once('.').ok_or_else(unknown)?;
    let (place, _) = name.split_once("/operations/").ok_or_else(unknown)?;
    let eventarc = &api.deps.eventarc;
    if let Some(verb) = what.strip_suffix("-channel") {
        let channel = ChannelName::parse("name", &format!("{place}/channels/{id}"))?;
        let now = match (verb, eventarc.channel(&channel)) {
            ("create" | "update", Ok(found)) => channel::show(&found),
            ("delete", _) => wire::Channel {
                name: channel.to_string(),
                ..wire::Channel::default()
            },
            _ => return Err(unknown()),
        };
        return Ok(done_channel(&channel, verb, &now));
    }
    let trigger = TriggerName::parse("name", &format!("{place}/triggers/{id}"))?;
    let now = match (what, eventarc.get(&trigger)) {
        ("create" | "update", Ok(found)) => trigger::show(&found),
        ("delete", _) => wire::Trigger {
            name: trigger.to_string(),
            ..wire::Trigger::default()
        },
        _ => return Err(unknown()),
    };
    Ok(done_trigger(&trigger, what, &now))
}

/// What is asked to be tried only.
fn refuse_dry_run(validate_only: bool) -> Result<(), Status> {
    if validate_only {
        return Err(unsupported("validate_only"));
    }
    Ok(())
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

    async fn update_trigger(
        &self,
        request: Request<wire::UpdateTriggerRequest>,
    ) -> Answer<Operation> {
        let sent = asked(request)?;
        answer(self.update(sent).await)
    }

    async fn delete_trigger(
        &self,
        request: Request<wire::DeleteTriggerRequest>,
    ) -> Answer<Operation> {
        let sent = asked(request)?;
        let gone = async {
            refuse_dry_run(sent.validate_only)?;
            let name = self.name("name", &sent.name).await?;
            if sent.allow_missing && self.eventarc.get(&name).is_err() {
                return Ok(done_trigger(&name, "delete", &wire::Trigger::default()));
            }
            let gone = self.eventarc.delete(&name).await?;
            Ok(done_trigger(&name, "delete", &trigger::show(&gone)))
        };
        answer(gone.await)
    }

    async fn get_channel(
        &self,
        request: Request<wire::GetChannelRequest>,
    ) -> Answer<wire::Channel> {
        let sent = asked(request)?;
        let found = async {
            let name = self.channel_name("name", &sent.name).await?;
            Ok(channel::show(&self.eventarc.channel(&name)?))
        };
        answer(found.await)
    }

    async fn list_channels(
        &self,
        request: Request<wire::ListChannelsRequest>,
    ) -> Answer<wire::ListChannelsResponse> {
        let sent = asked(request)?;
        let listed = async {
            let (project, location) = rpc::parent(&self.api, "parent", &sent.parent).await?;
            let size = size(sent.page_size)?;
            let token = &sent.page_token;
            let page = self
                .eventarc
                .list_channels(&project, &location, size, token);
            Ok(wire::ListChannelsResponse {
                channels: page.items.iter().map(channel::show).collect(),
                next_page_token: page.next,
                ..wire::ListChannelsResponse::default()
            })
        };
        answer(listed.await)
    }

    async fn create_channel(
        &self,
        request: Request<wire::CreateChannelRequest>,
    ) -> Answer<Operation> {
        let sent = asked(request)?;
        let made = async {
            refuse_dry_run(sent.validate_only)?;
            let parent = rpc::located(&self.api, "parent", &sent.parent).await?;
            let name = format!("{parent}/channels/{}", sent.channel_id);
            let name = ChannelName::parse("channel_id", &name)?;
            self.api.known_region(&name.location)?;
            let channel = sent.channel.unwrap_or_default();
            rpc::refuse_all(&[
                ("channel.provider", !channel.provider.is_empty()),
                (
                    "channel.crypto_key_name",
                    !channel.crypto_key_name.is_empty(),
                ),
            ])?;
            let made = self.eventarc.create_channel(name.clone(), channel.labels);
            Ok(done_channel(&name, "create", &channel::show(&made.await?)))
        };
        answer(made.await)
    }

    async fn update_channel(
        &self,
        request: Request<wire::UpdateChannelRequest>,
    ) -> Answer<Operation> {
        let sent = asked(request)?;
        let changed = async {
            refuse_dry_run(sent.validate_only)?;
            let channel = sent.channel.ok_or_else(|| missing("channel"))?;
            let name = self.channel_name("channel.name", &channel.name).await?;
            let old = channel::show(&self.eventarc.channel(&name)?);
            let mask = sent.update_mask.as_ref();
            let whole = mask::update(mask, &channel, || old, channel::may_change)?;
            let changed = self.eventarc.label_channel(&name, whole.labels).await?;
            Ok(done_channel(&name, "update", &channel::show(&changed)))
        };
        answer(changed.await)
    }

    async fn delete_channel(
        &self,
        request: Request<wire::DeleteChannelRequest>,
    ) -> Answer<Operation> {
        let sent = asked(request)?;
        let gone = async {
            refuse_dry_run(sent.validate_only)?;
            let name = self.channel_name("name", &sent.name).await?;
            let gone = self.eventarc.delete_channel(&name).await?;
            Ok(done_channel(&name, "delete", &channel::show(&gone)))
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

    async fn channel_name(&self, field: &str, text: &str) -> Result<ChannelName, Status> {
        ChannelName::parse(field, &rpc::located(&self.api, field, text).await?)
    }

    async fn create(&self, sent: wire::CreateTriggerRequest) -> Result<Operation, Status> {
        refuse_dry_run(sent.validate_only)?;
        let parent = rpc::located(&self.api, "parent", &sent.parent).await?;
        let name = format!("{parent}/triggers/{}", sent.trigger_id);
        let name = TriggerName::parse("trigger_id", &name)?;
        let trigger = sent.trigger.ok_or_else(|| missing("trigger"))?;
        let topic = match trigger::topic(&trigger) {
            Some(topic) => Some(self.topic(topic).await?),
            None => None,
        };
        let channel = match &*trigger.channel {
            "" => None,
            channel => Some(self.channel_name("trigger.channel", channel).await?),
        };
        let spec = self.spec(name.clone(), trigger, (topic, channel)).await?;
        let made = self.eventarc.create(spec).await?;
        Ok(done_trigger(&name, "create", &trigger::show(&made)))
    }

    async fn update(&self, sent: wire::UpdateTriggerRequest) -> Result<Operation, Status> {
        refuse_dry_run(sent.validate_only)?;
        if sent.allow_missing {
            return Err(unsupported("allow_missing"));
        }
        let trigger = sent.trigger.ok_or_else(|| missing("trigger"))?;
        let name = self.name("trigger.name", &trigger.name).await?;
        let old = self.eventarc.get(&name)?;
        let asked = sent
            .update_mask
            .filter(|mask| !mask::is_everything(Some(mask)));
        let mask = asked.unwrap_or_else(|| FieldMask {
            paths: trigger::CHANGES.map(str::to_owned).to_vec(),
        });
        let may = |field: &str| trigger::CHANGES.contains(&field);
        let whole = mask::update(Some(&mask), &trigger, || trigger::show(&old), may)?;
        let fixed = (old.spec.topic.clone(), old.spec.channel.clone());
        let spec = self.spec(name.clone(), whole, fixed).await?;
        let changed = self.eventarc.update(&name, |now| {
            if *now != old {
                return Err(Status::new(
                    lauf_model::Code::Aborted,
                    format!(
                        "Trigger '{name}' has been changed by somebody else meanwhile. Try again."
                    ),
                ));
            }
            Ok(spec)
        });
        Ok(done_trigger(
            &name,
            "update",
            &trigger::show(&changed.await?),
        ))
    }

    /// What a trigger is to be, whose service must be there.
    async fn spec(
        &self,
        name: TriggerName,
        mut trigger: wire::Trigger,
        source: (Option<TopicName>, Option<ChannelName>),
    ) -> Result<Spec, Status> {
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
        trigger::read(name, trigger, destination, url, source)
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
