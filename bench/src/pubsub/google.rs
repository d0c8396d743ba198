//! Pub/Sub's own API over gRPC: Lauf, and Google's emulator.

use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use googleapis_tonic_google_pubsub_v1::google::pubsub::v1::publisher_client::PublisherClient;
use googleapis_tonic_google_pubsub_v1::google::pubsub::v1::subscriber_client::SubscriberClient;
use googleapis_tonic_google_pubsub_v1::google::pubsub::v1::{
    AcknowledgeRequest, DeleteSubscriptionRequest, DeleteTopicRequest, PublishRequest,
    PubsubMessage, PushConfig, StreamingPullRequest, Subscription, Topic,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint as Address};
use tonic::{Request, Status};

use super::endpoint::Endpoint;
use super::server::Server;
use super::{Options, Peer, While, side_by_side};
use crate::machine::now;
use crate::platform::Platform;

/// The most bytes of a message of gRPC either way.
const LARGE: usize = 64 << 20;

/// The most acknowledgements in a request, which is what fits those of Google's clients.
const ACKNOWLEDGED: usize = 2_500;

/// Adds the token, where there is one.
#[derive(Clone)]
struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", token.clone());
        }
        Ok(request)
    }
}

type Connection = InterceptedService<Channel, Bearer>;

/// What is kept running for it.
enum Running {
    Lauf(Platform),
    LaufOnNats(Platform, Server),
    Emulator(Server),
}

/// A server of Pub/Sub's API.
pub(super) struct Google {
    name: &'static str,
    durability: &'static str,
    project: String,
    topics: PublisherClient<Connection>,
    subscriptions: SubscriberClient<Connection>,
    endpoint: Endpoint,
    /// The last part of the names of this round.
    round: usize,
    running: Running,
}

impl Google {
    /// A whole Lauf, through the port that everything goes through.
    pub(super) async fn lauf(dir: tempfile::TempDir) -> anyhow::Result<Self> {
        let platform = Platform::up_in(dir, &["--pool", "1"])?;
        let (address, token) = (platform.address.to_string(), platform.token().to_owned());
        let running = Running::Lauf(platform);
        let durability = "synced to the disk";
        Self::new("lauf", durability, &address, Some(&token), running).await
    }

    /// The same with the messages on NATS.
    pub(super) async fn lauf_on_nats(dir: tempfile::TempDir) -> anyhow::Result<Self> {
        let beside = tempfile::tempdir_in(dir.path().parent().context("it has a folder")?)?;
        let nats = Server::nats(beside, "always").await?;
        let url = format!("nats://127.0.0.1:{}", nats.port);
        let platform = Platform::up_in(dir, &["--pool", "1", "--message-log", &url])?;
        let (address, token) = (platform.address.to_string(), platform.token().to_owned());
        let running = Running::LaufOnNats(platform, nats);
        let durability = "synced to the disk by NATS";
        Self::new("lauf on nats", durability, &address, Some(&token), running).await
    }

    /// Google's emulator.
    pub(super) async fn emulator(dir: tempfile::TempDir) -> anyhow::Result<Self> {
        let server = Server::emulator(dir).await?;
        let address = format!("127.0.0.1:{}", server.port);
        let running = Running::Emulator(server);
        Self::new("emulator", "in memory", &address, None, running).await
    }

    async fn new(
        name: &'static str,
        durability: &'static str,
        address: &str,
        token: Option<&str>,
        running: Running,
    ) -> anyhow::Result<Self> {
        let address = Address::from_shared(format!("http://{address}"))?;
        let address = address
            .initial_connection_window_size(Some(16 << 20))
            .initial_stream_window_size(Some(16 << 20))
            .tcp_nodelay(true);
        let channel = address.connect().await?;
        let token = token.map(|token| format!("Bearer {token}").parse());
        let bearer = Bearer(token.transpose()?);
        let topics = PublisherClient::with_interceptor(channel.clone(), bearer.clone());
        let subscriptions = SubscriberClient::with_interceptor(channel, bearer);
        Ok(Self {
            name,
            durability,
            project: "projects/demo".to_owned(),
            topics: topics.max_encoding_message_size(LARGE),
            subscriptions: subscriptions.max_decoding_message_size(LARGE),
            endpoint: Endpoint::open().await?,
            round: 0,
            running,
        })
    }

    fn topic(&self, what: &str) -> String {
        format!("{}/topics/{what}-{}", self.project, self.round)
    }

    fn subscription(&self, what: &str) -> String {
        format!("{}/subscriptions/{what}-{}", self.project, self.round)
    }

    async fn make(&mut self, what: &str, push: Option<PushConfig>) -> anyhow::Result<()> {
        let topic = self.topic(what);
        let name = self.subscription(what);
        let new = Topic {
            name: topic.clone(),
            ..Topic::default()
        };
        self.topics.create_topic(new).await?;
        let new = Subscription {
            name,
            topic,
            push_config: push,
            ack_deadline_seconds: 60,
            ..Subscription::default()
        };
        self.subscriptions.create_subscription(new).await?;
        Ok(())
    }
}

fn batch(topic: String, messages: usize, size: usize) -> PublishRequest {
    let message = PubsubMessage {
        data: Bytes::from(vec![b'x'; size]),
        ..PubsubMessage::default()
    };
    PublishRequest {
        topic,
        messages: vec![message; messages],
    }
}

#[async_trait]
impl Peer for Google {
    fn name(&self) -> &'static str {
        self.name
    }

    fn durability(&self) -> &'static str {
        self.durability
    }

    fn processes(&self) -> anyhow::Result<Vec<u32>> {
        Ok(match &self.running {
            Running::Lauf(platform) => vec![platform.server()?],
            Running::LaufOnNats(platform, nats) => vec![platform.server()?, nats.id()],
            Running::Emulator(server) => vec![server.id()],
        })
    }

    async fn begin(&mut self, round: usize) -> anyhow::Result<()> {
        self.round = round;
        self.make("bulk", None).await?;
        self.make("single", None).await?;
        let push = PushConfig {
            push_endpoint: self.endpoint.url.clone(),
            ..PushConfig::default()
        };
        self.make("push", Some(push)).await
    }

    async fn publish(&mut self, options: &Options) -> anyhow::Result<(usize, Duration)> {
        let request = batch(self.topic("bulk"), options.batch, options.size);
        let topics = &self.topics;
        let publisher = |publishing: While| {
            let (mut topics, request) = (topics.clone(), request.clone());
            async move {
                let mut messages = 0;
                while publishing.lasts() {
                    let answer = topics.publish(request.clone()).await?;
                    messages += answer.into_inner().message_ids.len();
                }
                Ok(messages)
            }
        };
        side_by_side(options, publisher).await
    }

    async fn pull(
        &mut self,
        messages: usize,
        options: &Options,
    ) -> anyhow::Result<(usize, Duration)> {
        let begin = now();
        let (send, mut requests) = mpsc::channel(64);
        let first = StreamingPullRequest {
            subscription: self.subscription("bulk"),
            stream_ack_deadline_seconds: 60,
            max_outstanding_messages: i64::from(options.outstanding),
            client_id: "bench".to_owned(),
            ..StreamingPullRequest::default()
        };
        send.send(first).await?;
        let requests = stream::poll_fn(move |context| requests.poll_recv(context));
        let stream = self.subscriptions.streaming_pull(requests).await?;
        let mut stream = stream.into_inner();
        let mut got = 0;
        // In requests of their own, as all of Google's clients do it.
        let mut acknowledging = JoinSet::new();
        while got < messages && begin.elapsed() < options.pulling() {
            let came = stream.message().await?.context("the stream has ended")?;
            got += came.received_messages.len();
            let ids = came.received_messages.into_iter();
            let ids: Vec<String> = ids.map(|message| message.ack_id).collect();
            for some in ids.chunks(ACKNOWLEDGED) {
                let mut subscriptions = self.subscriptions.clone();
                let request = AcknowledgeRequest {
                    subscription: self.subscription("bulk"),
                    ack_ids: some.to_vec(),
                };
                acknowledging.spawn(async move { subscriptions.acknowledge(request).await });
            }
        }
        while let Some(done) = acknowledging.join_next().await {
            done??;
        }
        Ok((got, begin.elapsed()))
    }

    async fn singles(&mut self, options: &Options) -> anyhow::Result<Vec<Duration>> {
        let request = batch(self.topic("single"), 1, options.size);
        let mut times = Vec::new();
        for _ in 0..options.singles {
            let request = request.clone();
            let begin = now();
            self.topics.publish(request).await?;
            times.push(begin.elapsed());
        }
        Ok(times)
    }

    async fn pushes(&mut self, options: &Options) -> anyhow::Result<Vec<Duration>> {
        let request = batch(self.topic("push"), 1, options.size);
        let mut times = Vec::new();
        while self.endpoint.came.try_recv().is_ok() {}
        for _ in 0..options.singles {
            let request = request.clone();
            let begin = now();
            self.topics.publish(request).await?;
            let came = self.endpoint.came.recv();
            let came = tokio::time::timeout(Duration::from_secs(30), came).await;
            let came = came.context("it is not pushed")?.context("nothing comes")?;
            times.push(came.saturating_duration_since(begin));
        }
        Ok(times)
    }

    async fn end(&mut self) -> anyhow::Result<()> {
        for what in ["bulk", "single", "push"] {
            let topic = self.topic(what);
            let gone = DeleteSubscriptionRequest {
                subscription: self.subscription(what),
            };
            self.subscriptions.delete_subscription(gone).await?;
            self.topics
                .delete_topic(DeleteTopicRequest { topic })
                .await?;
        }
        Ok(())
    }
}
