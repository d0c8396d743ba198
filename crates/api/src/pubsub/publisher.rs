//! `google.pubsub.v1.Publisher`.

use lauf_events::pubsub::{SchemaName, SubscriptionName, Topic, TopicName};
use lauf_model::Status;
use lauf_wire::google::pubsub::v1::publisher_server::Publisher;
use lauf_wire::google::pubsub::v1::{
    DeleteTopicRequest, DetachSubscriptionRequest, DetachSubscriptionResponse, GetTopicRequest,
    ListTopicSnapshotsRequest, ListTopicSnapshotsResponse, ListTopicSubscriptionsRequest,
    ListTopicSubscriptionsResponse, ListTopicsRequest, ListTopicsResponse, PublishRequest,
    PublishResponse, Topic as WireTopic, UpdateTopicRequest,
};
use tonic::{Request, async_trait};

use super::{Answer, Face, answer, asked, message, missing, paths, size, topic};

#[async_trait]
impl Publisher for Face {
    async fn create_topic(&self, request: Request<WireTopic>) -> Answer<WireTopic> {
        let sent = asked(request)?;
        let made = async {
            let spec = self.read_topic("name", sent).await?;
            self.pubsub.create_topic(spec).await
        };
        answer(made.await.map(|made| topic::show(&made)))
    }

    async fn update_topic(&self, request: Request<UpdateTopicRequest>) -> Answer<WireTopic> {
        let sent = asked(request)?;
        let changed = async {
            let mask = paths(sent.update_mask)?;
            let sent = sent.topic.ok_or_else(|| missing("topic"))?;
            let spec = self.read_topic("topic.name", sent).await?;
            self.pubsub.update_topic(spec, &mask).await
        };
        answer(changed.await.map(|changed| topic::show(&changed)))
    }

    async fn publish(&self, request: Request<PublishRequest>) -> Answer<PublishResponse> {
        let sent = asked(request)?;
        let published = async {
            let name = self.topic(&sent.topic).await?;
            let messages = sent.messages.into_iter().map(message::read).collect();
            self.pubsub.publish(&name, messages).await
        };
        answer(
            published
                .await
                .map(|message_ids| PublishResponse { message_ids }),
        )
    }

    async fn get_topic(&self, request: Request<GetTopicRequest>) -> Answer<WireTopic> {
        let sent = asked(request)?;
        let found = async {
            let name = self.topic(&sent.topic).await?;
            self.pubsub.topic(&name)
        };
        answer(found.await.map(|found| topic::show(&found)))
    }

    async fn list_topics(&self, request: Request<ListTopicsRequest>) -> Answer<ListTopicsResponse> {
        let sent = asked(request)?;
        let listed = async {
            let project = self.project("project", &sent.project).await?;
            self.pubsub
                .list_topics(&project, size(sent.page_size)?, &sent.page_token)
        };
        answer(listed.await.map(|page| ListTopicsResponse {
            topics: page.items.iter().map(topic::show).collect(),
            next_page_token: page.next,
        }))
    }

    async fn list_topic_subscriptions(
        &self,
        request: Request<ListTopicSubscriptionsRequest>,
    ) -> Answer<ListTopicSubscriptionsResponse> {
        let sent = asked(request)?;
        let listed = async {
            let name = self.topic(&sent.topic).await?;
            let size = size(sent.page_size)?;
            self.pubsub
                .list_topic_subscriptions(&name, size, &sent.page_token)
        };
        answer(listed.await.map(|page| ListTopicSubscriptionsResponse {
            subscriptions: page.items,
            next_page_token: page.next,
        }))
    }

    async fn list_topic_snapshots(
        &self,
        request: Request<ListTopicSnapshotsRequest>,
    ) -> Answer<ListTopicSnapshotsResponse> {
        let sent = asked(request)?;
        let listed = async {
            let name = self.topic(&sent.topic).await?;
            let size = size(sent.page_size)?;
            self.pubsub
                .list_topic_snapshots(&name, size, &sent.page_token)
        };
        answer(listed.await.map(|page| ListTopicSnapshotsResponse {
            snapshots: page.items,
            next_page_token: page.next,
        }))
    }

    async fn delete_topic(&self, request: Request<DeleteTopicRequest>) -> Answer<()> {
        let sent = asked(request)?;
        let gone = async {
            let name = self.topic(&sent.topic).await?;
            self.pubsub.delete_topic(&name).await
        };
        answer(gone.await)
    }

    async fn detach_subscription(
        &self,
        request: Request<DetachSubscriptionRequest>,
    ) -> Answer<DetachSubscriptionResponse> {
        let sent = asked(request)?;
        let detached = async {
            let name = self
                .named("subscription", &sent.subscription, SubscriptionName::parse)
                .await?;
            self.pubsub.detach_subscription(&name).await
        };
        answer(detached.await.map(|()| DetachSubscriptionResponse {}))
    }
}

impl Face {
    async fn read_topic(&self, field: &str, sent: WireTopic) -> Result<Topic, Status> {
        let name = self.named(field, &sent.name, TopicName::parse).await?;
        let schema = match &sent.schema_settings {
            Some(settings) => {
                let field = "schema_settings.schema";
                Some(
                    self.named(field, &settings.schema, SchemaName::parse)
                        .await?,
                )
            }
            None => None,
        };
        topic::read(name, schema, sent)
    }
}
