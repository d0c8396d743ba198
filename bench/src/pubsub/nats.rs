//! NATS JetStream with its own client.

use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::{Context, context::ContextBuilder, stream};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::TryStreamExt as _;

use super::server::Server;
use super::{Options, Peer, While, side_by_side};
use crate::machine::now;

pub(super) struct Nats {
    name: &'static str,
    durability: &'static str,
    context: Context,
    round: usize,
    server: Server,
}

impl Nats {
    /// As durable as all others.
    pub(super) async fn synced(dir: tempfile::TempDir) -> anyhow::Result<Self> {
        Self::start(dir, "nats jetstream", "synced to the disk", "always").await
    }

    /// As it comes.
    pub(super) async fn lazy(dir: tempfile::TempDir) -> anyhow::Result<Self> {
        let durability = "lost with the power for 2 minutes";
        Self::start(dir, "nats as it comes", durability, "2m").await
    }

    async fn start(
        dir: tempfile::TempDir,
        name: &'static str,
        durability: &'static str,
        sync: &str,
    ) -> anyhow::Result<Self> {
        let server = Server::nats(dir, sync).await?;
        let client = async_nats::connect(format!("nats://127.0.0.1:{}", server.port)).await?;
        Ok(Self {
            name,
            durability,
            context: ContextBuilder::new()
                .backpressure_on_inflight(true)
                .build(client),
            round: 0,
            server,
        })
    }

    fn stream(&self) -> String {
        format!("bench-{}", self.round)
    }
}

fn body(options: &Options) -> Bytes {
    Bytes::from(vec![b'x'; options.size])
}

#[async_trait]
impl Peer for Nats {
    fn name(&self) -> &'static str {
        self.name
    }

    fn durability(&self) -> &'static str {
        self.durability
    }

    fn processes(&self) -> anyhow::Result<Vec<u32>> {
        Ok(vec![self.server.id()])
    }

    async fn begin(&mut self, round: usize) -> anyhow::Result<()> {
        self.round = round;
        let config = stream::Config {
            name: self.stream(),
            subjects: vec![self.stream()],
            storage: stream::StorageType::File,
            ..stream::Config::default()
        };
        self.context.create_stream(config).await?;
        Ok(())
    }

    async fn publish(&mut self, options: &Options) -> anyhow::Result<(usize, Duration)> {
        let (stream, batch) = (self.stream(), options.batch);
        let context = &self.context;
        let publisher = |publishing: While| {
            let (context, subject, body) = (context.clone(), stream.clone(), body(options));
            async move {
                let mut messages = 0;
                while publishing.lasts() {
                    let mut acks = Vec::with_capacity(batch);
                    for _ in 0..batch {
                        acks.push(context.publish(subject.clone(), body.clone()).await?);
                    }
                    for ack in acks {
                        ack.await?;
                        messages += 1;
                    }
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
        let stream = self.context.get_stream(self.stream()).await?;
        let config = pull::Config {
            durable_name: Some("bench".to_owned()),
            max_ack_pending: i64::from(options.outstanding),
            ..pull::Config::default()
        };
        let consumer = stream.create_consumer(config).await?;
        let came = consumer
            .stream()
            .max_messages_per_batch(usize::try_from(options.outstanding)?);
        let mut came = came.messages().await?;
        let mut got = 0;
        while got < messages && begin.elapsed() < options.pulling() {
            let message = came.try_next().await?.context("no more comes")?;
            message
                .ack()
                .await
                .map_err(|error| anyhow::anyhow!("{error}"))?;
            got += 1;
        }
        Ok((got, begin.elapsed()))
    }

    async fn singles(&mut self, options: &Options) -> anyhow::Result<Vec<Duration>> {
        let mut times = Vec::new();
        for _ in 0..options.singles {
            let begin = now();
            let ack = self.context.publish(self.stream(), body(options)).await?;
            ack.await?;
            times.push(begin.elapsed());
        }
        Ok(times)
    }

    async fn pushes(&mut self, _: &Options) -> anyhow::Result<Vec<Duration>> {
        Ok(Vec::new())
    }

    async fn end(&mut self) -> anyhow::Result<()> {
        self.context.delete_stream(self.stream()).await?;
        Ok(())
    }
}
