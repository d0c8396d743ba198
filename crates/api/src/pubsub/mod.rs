//! Pub/Sub's API: `google.pubsub.v1`, as the traits that `lauf-wire` makes of the table of RPCs. gRPC
//! and REST both end here. Wire forms become the types of `lauf-events` and back; nothing is decided.

mod message;
mod policy;
mod publisher;
mod schema;
mod schemas;
mod snapshot;
mod subscriber;
mod subscription;
mod topic;

use lauf_events::pubsub::{PubSub, SubscriptionName, TopicName};
use lauf_model::Status;
use lauf_wire::google::iam::v1::i_a_m_policy_server::IAMPolicyServer;
use lauf_wire::google::pubsub::v1::publisher_server::PublisherServer;
use lauf_wire::google::pubsub::v1::schema_service_server::SchemaServiceServer;
use lauf_wire::google::pubsub::v1::subscriber_server::SubscriberServer;
use lauf_wire::status;
use tonic::service::Routes;

use crate::api::Api;
use crate::rpc::{
    self, Answer, asked, duration, missing, paths, read_duration, read_time, refuse_all, size,
    time, unsupported, wrong,
};

/// The API whose face this is.
pub(crate) const DOMAIN: &str = "pubsub.googleapis.com";

/// The largest request: ten megabytes of messages, which as JSON take a third more, and what stands
/// around them.
pub(crate) const MAX_REQUEST: usize = 16 << 20;

/// Everything that the traits are implemented for.
#[derive(Clone)]
struct Face {
    api: Api,
    pubsub: PubSub,
}

/// Adds what answers Pub/Sub's RPCs. The caller must be among a request's extensions.
pub(crate) fn add(routes: Routes, api: &Api) -> Routes {
    let face = || Face {
        api: api.clone(),
        pubsub: api.deps.pubsub.clone(),
    };
    let publisher = PublisherServer::new(face()).max_decoding_message_size(MAX_REQUEST);
    routes
        .add_service(publisher)
        .add_service(SubscriberServer::new(face()))
        .add_service(SchemaServiceServer::new(face()))
        .add_service(IAMPolicyServer::new(face()))
}

fn answer<T>(result: Result<T, Status>) -> Answer<T> {
    rpc::answer(DOMAIN, result)
}

fn refuse(error: &Status) -> tonic::Status {
    status::to_grpc(error, DOMAIN)
}

impl Face {
    /// A name with the project's id in place of its number.
    async fn named<T>(
        &self,
        field: &str,
        text: &str,
        parse: impl Fn(&str, &str) -> Result<T, Status>,
    ) -> Result<T, Status> {
        let mut words = text.splitn(3, '/');
        if let (Some("projects"), Some(project), Some(rest)) =
            (words.next(), words.next(), words.next())
            && !project.is_empty()
        {
            let project = self.api.project(project).await?.id;
            return parse(field, &format!("projects/{project}/{rest}"));
        }
        parse(field, text)
    }

    /// The name of a topic. One that is there is in a project that is there, which need not be looked up: publishers ask often.
    async fn topic(&self, text: &str) -> Result<TopicName, Status> {
        match TopicName::parse("topic", text) {
            Ok(name) if self.pubsub.has_topic(&name) => Ok(name),
            _ => self.named("topic", text, TopicName::parse).await,
        }
    }

    /// The name of a subscription, likewise.
    async fn subscription(&self, text: &str) -> Result<SubscriptionName, Status> {
        match SubscriptionName::parse("subscription", text) {
            Ok(name) if self.pubsub.has_subscription(&name) => Ok(name),
            _ => {
                self.named("subscription", text, SubscriptionName::parse)
                    .await
            }
        }
    }

    /// The project of `projects/P`.
    async fn project(&self, field: &str, text: &str) -> Result<String, Status> {
        match text.strip_prefix("projects/") {
            Some(project) if !project.is_empty() && !project.contains('/') => {
                Ok(self.api.project(project).await?.id)
            }
            _ => Err(wrong(
                field,
                format!("'{text}' has not the form projects/PROJECT."),
            )),
        }
    }
}
