//! `google.pubsub.v1.Subscriber`.

use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, stream};
use lauf_events::pubsub::{
    DELETED_TOPIC, Refused, RefusedIds, SnapshotName, Subscriber as Hand, Subscription,
    SubscriptionName, TopicName,
};
use lauf_model::Status;
use lauf_wire::google::pubsub::v1::streaming_pull_response as parts;
use lauf_wire::google::pubsub::v1::subscriber_server::Subscriber;
use lauf_wire::google::pubsub::v1::{
    AcknowledgeRequest, CreateSnapshotRequest, DeleteSnapshotRequest, DeleteSubscriptionRequest,
    GetSnapshotRequest, GetSubscriptionRequest, ListSnapshotsRequest, ListSnapshotsResponse,
    ListSubscriptionsRequest, ListSubscriptionsResponse, ModifyAckDeadlineRequest,
    ModifyPushConfigRequest, PullRequest, PullResponse, SeekRequest, SeekResponse,
    Snapshot as WireSnapshot, StreamingPullRequest, StreamingPullResponse,
    Subscription as WireSubscription, UpdateSnapshotRequest, UpdateSubscriptionRequest,
    seek_request,
};
use lauf_wire::google::rpc;
use prost::Message as _;
use tokio::sync::mpsc;
use tonic::{Code, Request, Response, Streaming, async_trait};

use super::subscription::Names;
use super::{
    Answer, DOMAIN, Face, answer, asked, message, missing, paths, read_time, refuse, size,
    snapshot, subscription, unsupported, wrong,
};

/// Answers that wait for a client that reads slowly. Messages wait elsewhere.
const ANSWERS: usize = 4;

#[async_trait]
impl Subscriber for Face {
    async fn create_subscription(
        &self,
        request: Request<WireSubscription>,
    ) -> Answer<WireSubscription> {
        let sent = asked(request)?;
        let made = async {
            let spec = self.read_subscription("", sent).await?;
            self.pubsub.create_subscription(spec).await
        };
        answer(made.await.map(|made| self.show_subscription(&made)))
    }

    async fn get_subscription(
        &self,
        request: Request<GetSubscriptionRequest>,
    ) -> Answer<WireSubscription> {
        let sent = asked(request)?;
        let found = async {
            let name = self.subscription(&sent.subscription).await?;
            self.pubsub.subscription(&name)
        };
        answer(found.await.map(|found| self.show_subscription(&found)))
    }

    async fn update_subscription(
        &self,
        request: Request<UpdateSubscriptionRequest>,
    ) -> Answer<WireSubscription> {
        let sent = asked(request)?;
        let changed = async {
            let mask = paths(sent.update_mask)?;
            let sent = sent.subscription.ok_or_else(|| missing("subscription"))?;
            // One that is not there is told before what the rest of it lacks: the topic is left out of most updates.
            let name = self
                .named("subscription.name", &sent.name, SubscriptionName::parse)
                .await?;
            self.pubsub.subscription(&name)?;
            let spec = self.read_subscription("subscription.", sent).await?;
            self.pubsub.update_subscription(spec, &mask).await
        };
        answer(
            changed
                .await
                .map(|changed| self.show_subscription(&changed)),
        )
    }

    async fn list_subscriptions(
        &self,
        request: Request<ListSubscriptionsRequest>,
    ) -> Answer<ListSubscriptionsResponse> {
        let sent = asked(request)?;
        let listed = async {
            let project = self.project("project", &sent.project).await?;
            let size = size(sent.page_size)?;
            self.pubsub
                .list_subscriptions(&project, size, &sent.page_token)
        };
        answer(listed.await.map(|page| {
            ListSubscriptionsResponse {
                subscriptions: page
                    .items
                    .iter()
                    .map(|found| self.show_subscription(found))
                    .collect(),
                next_page_token: page.next,
            }
        }))
    }

    async fn delete_subscription(&self, request: Request<DeleteSubscriptionRequest>) -> Answer<()> {
        let sent = asked(request)?;
        let gone = async {
            let name = self.subscription(&sent.subscription).await?;
            self.pubsub.delete_subscription(&name).await
        };
        answer(gone.await)
    }

    async fn modify_ack_deadline(&self, request: Request<ModifyAckDeadlineRequest>) -> Answer<()> {
        let sent = asked(request)?;
        let modified = async {
            let name = self.subscription(&sent.subscription).await?;
            let deadline = seconds("ack_deadline_seconds", sent.ack_deadline_seconds)?;
            self.pubsub
                .modify_ack_deadline(&name, &sent.ack_ids, &[deadline])
                .await
        };
        settled(modified.await)
    }

    async fn acknowledge(&self, request: Request<AcknowledgeRequest>) -> Answer<()> {
        let sent = asked(request)?;
        let done = async {
            let name = self.subscription(&sent.subscription).await?;
            self.pubsub.acknowledge(&name, &sent.ack_ids).await
        };
        settled(done.await)
    }

    async fn pull(&self, request: Request<PullRequest>) -> Answer<PullResponse> {
        let sent = asked(request)?;
        let pulled = async {
            let name = self.subscription(&sent.subscription).await?;
            let most = usize::try_from(sent.max_messages).unwrap_or(0);
            #[expect(deprecated, reason = "gcloud sends it")]
            let wait = !sent.return_immediately;
            self.pubsub.pull(&name, most, wait).await
        };
        answer(pulled.await.map(|messages| PullResponse {
            received_messages: messages.into_iter().map(message::show).collect(),
        }))
    }

    type StreamingPullStream =
        Pin<Box<dyn Stream<Item = Result<StreamingPullResponse, tonic::Status>> + Send>>;

    async fn streaming_pull(
        &self,
        request: Request<Streaming<StreamingPullRequest>>,
    ) -> Answer<Self::StreamingPullStream> {
        let mut requests = asked(request)?;
        let Some(first) = requests.message().await? else {
            return Err(refuse(&missing("subscription")));
        };
        let pull = async {
            let name = self.subscription(&first.subscription).await?;
            let deadline = seconds(
                "stream_ack_deadline_seconds",
                first.stream_ack_deadline_seconds,
            )?;
            let messages = limit(first.max_outstanding_messages);
            let bytes = limit(first.max_outstanding_bytes);
            let hand = self
                .pubsub
                .subscribe(&name, messages, bytes, deadline)
                .await?;
            let config = self.pubsub.subscription(&name)?;
            Ok(Pull {
                face: self.clone(),
                name,
                config,
                hand,
            })
        };
        let pull = pull.await.map_err(|error| refuse(&error))?;
        let (answers, stream) = mpsc::channel(ANSWERS);
        tokio::spawn(pull.run(first, requests, answers));
        let stream = stream::unfold(stream, |mut stream| async {
            let answer = stream.recv().await?;
            Some((answer, stream))
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn modify_push_config(&self, request: Request<ModifyPushConfigRequest>) -> Answer<()> {
        let sent = asked(request)?;
        let modified = async {
            let name = self.subscription(&sent.subscription).await?;
            let push = sent.push_config.and_then(subscription::read_push);
            self.pubsub.modify_push(&name, push).await
        };
        answer(modified.await)
    }

    async fn get_snapshot(&self, request: Request<GetSnapshotRequest>) -> Answer<WireSnapshot> {
        let sent = asked(request)?;
        let found = async {
            let name = self
                .named("snapshot", &sent.snapshot, SnapshotName::parse)
                .await?;
            self.pubsub.snapshot(&name)
        };
        answer(found.await.map(|found| snapshot::show(&found)))
    }

    async fn list_snapshots(
        &self,
        request: Request<ListSnapshotsRequest>,
    ) -> Answer<ListSnapshotsResponse> {
        let sent = asked(request)?;
        let listed = async {
            let project = self.project("project", &sent.project).await?;
            let size = size(sent.page_size)?;
            self.pubsub.list_snapshots(&project, size, &sent.page_token)
        };
        answer(listed.await.map(|page| ListSnapshotsResponse {
            snapshots: page.items.iter().map(snapshot::show).collect(),
            next_page_token: page.next,
        }))
    }

    async fn create_snapshot(
        &self,
        request: Request<CreateSnapshotRequest>,
    ) -> Answer<WireSnapshot> {
        let sent = asked(request)?;
        let made = async {
            if !sent.tags.is_empty() {
                return Err(unsupported("tags"));
            }
            let name = self.named("name", &sent.name, SnapshotName::parse).await?;
            let of = self.subscription(&sent.subscription).await?;
            self.pubsub.create_snapshot(&name, &of, sent.labels).await
        };
        answer(made.await.map(|made| snapshot::show(&made)))
    }

    async fn update_snapshot(
        &self,
        request: Request<UpdateSnapshotRequest>,
    ) -> Answer<WireSnapshot> {
        let sent = asked(request)?;
        let changed = async {
            let mask = paths(sent.update_mask)?;
            let sent = sent.snapshot.ok_or_else(|| missing("snapshot"))?;
            let name = self
                .named("snapshot.name", &sent.name, SnapshotName::parse)
                .await?;
            let mut spec = self.pubsub.snapshot(&name)?;
            spec.labels = sent.labels;
            if let Some(time) = &sent.expire_time {
                spec.expires = read_time("snapshot.expire_time", time)?;
            }
            self.pubsub.update_snapshot(&spec, &mask).await
        };
        answer(changed.await.map(|changed| snapshot::show(&changed)))
    }

    async fn delete_snapshot(&self, request: Request<DeleteSnapshotRequest>) -> Answer<()> {
        let sent = asked(request)?;
        let gone = async {
            let name = self
                .named("snapshot", &sent.snapshot, SnapshotName::parse)
                .await?;
            self.pubsub.delete_snapshot(&name).await
        };
        answer(gone.await)
    }

    async fn seek(&self, request: Request<SeekRequest>) -> Answer<SeekResponse> {
        let sent = asked(request)?;
        let sought = async {
            let name = self.subscription(&sent.subscription).await?;
            match sent.target.ok_or_else(|| missing("time or snapshot"))? {
                seek_request::Target::Time(time) => {
                    let time = read_time("time", &time)?;
                    self.pubsub.seek_to_time(&name, time).await
                }
                seek_request::Target::Snapshot(snapshot) => {
                    let to = self
                        .named("snapshot", &snapshot, SnapshotName::parse)
                        .await?;
                    self.pubsub.seek_to_snapshot(&name, &to).await
                }
            }
        };
        answer(sought.await.map(|()| SeekResponse {}))
    }
}

impl Face {
    async fn read_subscription(
        &self,
        within: &str,
        sent: WireSubscription,
    ) -> Result<Subscription, Status> {
        let field = |name: &str| format!("{within}{name}");
        let name = self
            .named(&field("name"), &sent.name, SubscriptionName::parse)
            .await?;
        // An update may leave the topic out, or send back that it is gone.
        let known = self.pubsub.subscription(&name).ok();
        let topic = match known {
            Some(known) if sent.topic.is_empty() || sent.topic == DELETED_TOPIC => known.topic,
            _ => {
                self.named(&field("topic"), &sent.topic, TopicName::parse)
                    .await?
            }
        };
        let dead_letter = match &sent.dead_letter_policy {
            Some(policy) if !policy.dead_letter_topic.is_empty() => {
                let field = field("dead_letter_policy.dead_letter_topic");
                let text = &policy.dead_letter_topic;
                Some(self.named(&field, text, TopicName::parse).await?)
            }
            _ => None,
        };
        let names = Names {
            name,
            topic,
            dead_letter,
        };
        subscription::read(names, sent)
    }

    fn show_subscription(&self, of: &Subscription) -> WireSubscription {
        let topic = self.pubsub.topic(&of.topic).ok();
        let topic = topic.filter(|topic| topic.uid == of.topic_uid);
        subscription::show(of, topic.as_ref())
    }
}

fn seconds(field: &str, sent: i32) -> Result<Duration, Status> {
    u64::try_from(sent)
        .map(Duration::from_secs)
        .map_err(|_| wrong(field, format!("{sent} is negative.")))
}

/// A limit of flow control. Clients say with anything below 1 that they have none.
fn limit(sent: i64) -> usize {
    usize::try_from(sent).unwrap_or(0)
}

/// The answer to acknowledgements. Those that did not count are named in the details, where clients
/// with exactly-once delivery look for them.
fn settled(result: Result<RefusedIds, Status>) -> Answer<()> {
    match result {
        Err(error) => Err(refuse(&error)),
        Ok(refused) if refused.is_empty() => Ok(Response::new(())),
        Ok(refused) => {
            let stale = refused.iter().any(|(_, why)| *why == Refused::Stale);
            let (code, text) = if stale {
                (
                    Code::InvalidArgument,
                    "Some acknowledgement ids in the request were invalid: their leases are no more.",
                )
            } else {
                (
                    Code::Unavailable,
                    "Some acknowledgements could not be written down. Try them again.",
                )
            };
            let info = rpc::ErrorInfo {
                reason: "ACKNOWLEDGEMENT_FAILED".to_owned(),
                domain: DOMAIN.to_owned(),
                metadata: message::failures(&refused),
            };
            let details = rpc::Status {
                code: code.into(),
                message: text.to_owned(),
                details: vec![lauf_wire::pack(&info)],
            };
            let details = details.encode_to_vec().into();
            Err(tonic::Status::with_details(code, text, details))
        }
    }
}

/// A streaming pull under way.
struct Pull {
    face: Face,
    name: SubscriptionName,
    config: Subscription,
    hand: Hand,
}

type Sender = mpsc::Sender<Result<StreamingPullResponse, tonic::Status>>;

impl Pull {
    /// Works until either side ends.
    async fn run(
        mut self,
        first: StreamingPullRequest,
        mut requests: Streaming<StreamingPullRequest>,
        answers: Sender,
    ) {
        let mut next = Some(first);
        let mut open = true;
        loop {
            if let Some(request) = next.take()
                && let Err(error) = self.hear(request, &answers).await
            {
                let _ = answers.send(Err(refuse(&error))).await;
                return;
            }
            tokio::select! {
                request = requests.message(), if open => match request {
                    Ok(Some(request)) => next = Some(request),
                    // The client says no more; it may still listen.
                    Ok(None) => open = false,
                    Err(_) => return,
                },
                hand = self.hand.next() => {
                    let answer = match hand {
                        Some(Ok(messages)) => Ok(StreamingPullResponse {
                            received_messages: messages.into_iter().map(message::show).collect(),
                            subscription_properties: Some(self.properties()),
                            ..Default::default()
                        }),
                        Some(Err(error)) => Err(refuse(&error)),
                        None => return,
                    };
                    let last = answer.is_err();
                    if answers.send(answer).await.is_err() || last {
                        return;
                    }
                }
                () = answers.closed() => return,
            }
        }
    }

    fn properties(&self) -> parts::SubscriptionProperties {
        parts::SubscriptionProperties {
            exactly_once_delivery_enabled: self.config.exactly_once,
            message_ordering_enabled: self.config.ordered,
        }
    }

    /// Does what the client says.
    async fn hear(
        &mut self,
        request: StreamingPullRequest,
        answers: &Sender,
    ) -> Result<(), Status> {
        if request.stream_ack_deadline_seconds != 0 {
            let deadline = request.stream_ack_deadline_seconds;
            let deadline = seconds("stream_ack_deadline_seconds", deadline)?;
            self.hand.set_ack_deadline(deadline).await;
        }
        // Settings change while a stream lives; clients look at what comes with it.
        if let Ok(config) = self.face.pubsub.subscription(&self.name) {
            self.config = config;
        }
        let mut answer = StreamingPullResponse {
            subscription_properties: Some(self.properties()),
            ..Default::default()
        };
        let ids = request.ack_ids;
        if !ids.is_empty() {
            let refused = self.face.pubsub.acknowledge(&self.name, &ids).await?;
            let (good, stale, unwritten) = sort(ids, &refused);
            answer.acknowledge_confirmation = Some(parts::AcknowledgeConfirmation {
                ack_ids: good,
                invalid_ack_ids: stale,
                temporary_failed_ack_ids: unwritten,
                ..Default::default()
            });
        }
        let ids = request.modify_deadline_ack_ids;
        if !ids.is_empty() {
            if ids.len() != request.modify_deadline_seconds.len() {
                return Err(wrong(
                    "modify_deadline_seconds",
                    "It must have one entry for each of modify_deadline_ack_ids.",
                ));
            }
            let deadlines = request
                .modify_deadline_seconds
                .iter()
                .map(|sent| seconds("modify_deadline_seconds", *sent))
                .collect::<Result<Vec<_>, _>>()?;
            let refused = self
                .face
                .pubsub
                .modify_ack_deadline(&self.name, &ids, &deadlines)
                .await?;
            let (good, stale, unwritten) = sort(ids, &refused);
            answer.modify_ack_deadline_confirmation = Some(parts::ModifyAckDeadlineConfirmation {
                ack_ids: good,
                invalid_ack_ids: stale,
                temporary_failed_ack_ids: unwritten,
            });
        }
        let confirms = answer.acknowledge_confirmation.is_some()
            || answer.modify_ack_deadline_confirmation.is_some();
        if confirms && self.config.exactly_once {
            // An error says that the client has gone, which is seen next.
            let _ = answers.send(Ok(answer)).await;
        }
        Ok(())
    }
}

/// Tells ids that counted from those that did not, and from those to try again.
fn sort(ids: Vec<String>, refused: &RefusedIds) -> (Vec<String>, Vec<String>, Vec<String>) {
    let (mut good, mut stale, mut unwritten) = (Vec::new(), Vec::new(), Vec::new());
    for id in ids {
        match refused.iter().find(|(other, _)| *other == id) {
            None => good.push(id),
            Some((_, Refused::Stale)) => stale.push(id),
            Some((_, Refused::Unwritten)) => unwritten.push(id),
        }
    }
    (good, stale, unwritten)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_that_do_not_count_are_refused_with_googles_codes() {
        let code = |why| {
            settled(Ok(vec![("id".to_owned(), why)]))
                .unwrap_err()
                .code()
        };
        // "Acknowledgment and ModifyAckDeadline requests return an INVALID_ARGUMENT response":
        // cloud.google.com/pubsub/docs/exactly-once-delivery.
        assert_eq!(code(Refused::Stale), Code::InvalidArgument);
        assert_eq!(code(Refused::Unwritten), Code::Unavailable);
        assert!(settled(Ok(Vec::new())).is_ok());
    }
}
