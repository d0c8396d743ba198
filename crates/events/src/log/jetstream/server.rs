//! What is asked of the NATS server, in the log's words.

use std::fmt::Display;
use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{
    ContextBuilder, CreateStreamErrorKind, DeleteStreamErrorKind, GetStreamErrorKind,
    PublishAckFuture,
};
use async_nats::jetstream::stream::{
    Config, DirectGetErrorKind, DiscardPolicy, Info, LastRawMessageErrorKind, RetentionPolicy,
    StorageType,
};
use async_nats::{HeaderMap, header};
use bytes::Bytes;
use futures_util::TryStreamExt as _;

use super::super::LogError;

/// After so long without an answer a request counts as lost.
pub(super) const ANSWER: Duration = Duration::from_secs(5);

/// What the server says of a stream.
pub(super) struct Extent {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) bytes: u64,
}

/// A connection to a server, or to several of a cluster.
pub(super) struct Server {
    context: Context,
    replicas: usize,
}

impl Server {
    pub(super) fn new(client: async_nats::Client, replicas: usize) -> Self {
        let context = ContextBuilder::new()
            .timeout(ANSWER)
            .ack_timeout(ANSWER)
            .backpressure_on_inflight(true)
            .build(client);
        Self { context, replicas }
    }

    /// All streams whose names begin like this, with their descriptions.
    pub(super) async fn streams(&self, prefix: &str) -> Result<Vec<Info>, LogError> {
        let mut all = Vec::new();
        let mut listed = self.context.streams();
        while let Some(info) = listed.try_next().await.map_err(|e| failed(&e))? {
            if info.config.name.starts_with(prefix) {
                all.push(info);
            }
        }
        Ok(all)
    }

    /// Makes a stream, or finds the one that is there.
    pub(super) async fn create(
        &self,
        name: &str,
        subject: String,
        description: &str,
    ) -> Result<Info, LogError> {
        let config = Config {
            name: name.to_owned(),
            description: Some(description.to_owned()),
            subjects: vec![subject],
            retention: RetentionPolicy::Limits,
            discard: DiscardPolicy::New,
            storage: StorageType::File,
            num_replicas: self.replicas,
            // Expected sequences do what duplicate detection would, so it need not remember anything.
            duplicate_window: Duration::from_millis(100),
            deny_delete: true,
            allow_direct: true,
            ..Config::default()
        };
        match self.context.create_stream(config).await {
            Ok(stream) => Ok(stream.cached_info().clone()),
            Err(error) => match error.kind() {
                CreateStreamErrorKind::JetStream(said)
                    if said.error_code() == ErrorCode::STREAM_NAME_EXIST =>
                {
                    self.info(name).await?.ok_or_else(|| {
                        LogError::Failed(format!("the stream {name} comes and goes"))
                    })
                }
                _ => Err(failed(&error)),
            },
        }
    }

    pub(super) async fn delete(&self, name: &str) -> Result<(), LogError> {
        match self.context.delete_stream(name).await {
            Ok(_) => Ok(()),
            Err(error) => match error.kind() {
                DeleteStreamErrorKind::JetStream(said)
                    if said.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                {
                    Ok(())
                }
                _ => Err(failed(&error)),
            },
        }
    }

    /// What the server knows of a stream, if there is one.
    pub(super) async fn info(&self, name: &str) -> Result<Option<Info>, LogError> {
        match self.context.get_stream(name).await {
            Ok(stream) => Ok(Some(stream.cached_info().clone())),
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(said)
                    if said.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                {
                    Ok(None)
                }
                _ => Err(failed(&error)),
            },
        }
    }

    /// What a stream holds, if there is one.
    pub(super) async fn extent(&self, name: &str) -> Result<Option<Extent>, LogError> {
        Ok(self.info(name).await?.map(|info| extent_of(&info)))
    }

    /// A message, if it is still there.
    pub(super) async fn message(
        &self,
        name: &str,
        sequence: u64,
    ) -> Result<Option<Bytes>, LogError> {
        let stream = self
            .context
            .get_stream_no_info(name)
            .await
            .map_err(|e| failed(&e))?;
        match stream.direct_get(sequence).await {
            Ok(message) => return Ok(Some(message.payload)),
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => {}
            Err(error) => return Err(failed(&error)),
        }
        // Any replica may have answered, also one that is behind; the leader knows.
        match stream.get_raw_message(sequence).await {
            Ok(message) => Ok(Some(message.payload)),
            Err(error) => match error.kind() {
                LastRawMessageErrorKind::NoMessageFound => Ok(None),
                LastRawMessageErrorKind::JetStream(said)
                    if said.error_code() == ErrorCode::NO_MESSAGE_FOUND =>
                {
                    Ok(None)
                }
                _ => Err(failed(&error)),
            },
        }
    }

    /// Gives up everything before a sequence.
    pub(super) async fn purge(&self, name: &str, before: u64) -> Result<(), LogError> {
        let stream = self
            .context
            .get_stream_no_info(name)
            .await
            .map_err(|e| failed(&e))?;
        match stream.purge().sequence(before).await {
            Ok(_) => Ok(()),
            Err(error) => Err(failed(&error)),
        }
    }

    /// Sends a message that is stored only if it comes right after `last`.
    pub(super) async fn publish(
        &self,
        subject: String,
        last: u64,
        payload: Bytes,
    ) -> Result<PublishAckFuture, LogError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::NATS_EXPECTED_LAST_SEQUENCE, last.to_string());
        self.context
            .publish_with_headers(subject, headers, payload)
            .await
            .map_err(|e| failed(&e))
    }

    /// Says goodbye.
    pub(super) async fn leave(&self) {
        let _ = tokio::time::timeout(ANSWER, self.context.client().drain()).await;
    }
}

pub(super) fn extent_of(info: &Info) -> Extent {
    Extent {
        first: info.state.first_sequence.max(1),
        last: info.state.last_sequence,
        bytes: info.state.bytes,
    }
}

pub(super) fn failed(error: &impl Display) -> LogError {
    LogError::Failed(format!("NATS JetStream: {error}"))
}
