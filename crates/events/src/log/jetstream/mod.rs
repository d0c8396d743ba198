//! The log of several machines: streams of a NATS JetStream server or cluster.
//!
//! Every stream is a JetStream stream in files on the server, with as many replicas as are asked for.
//! How durable an acknowledged append is, is the server's to say: with several replicas a majority has
//! it, and with `sync_interval: always` in the server's configuration its disk does, too. Without that,
//! an append survives the death of a server's process, but not the loss of its power.
//!
//! One process writes to a stream at a time. Every message says after which one it may be stored, so
//! of two that try, one is refused and says so.

mod block;
mod cache;
mod names;
mod read;
mod server;
mod stream;
mod writer;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::ConnectOptions;
use async_nats::jetstream::stream::Info;
use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use lauf_model::Clock;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{
    Chunk, Extent, Limit, LogError, MessageLog, Position, Receipt, append_problem, name_problem,
};
use cache::Cache;
use names::Names;
use server::Server;
use stream::{PER_BLOCK, Stream, position};
use writer::{Append, Writer};

/// Between two tries to connect.
const CONNECT_AGAIN: Duration = Duration::from_millis(500);
/// What a server must take in one message. NATS takes 1 MiB unless it is told otherwise.
const LEAST_PAYLOAD: usize = 64 << 10;
/// What a message has besides the body of a block: our head, and NATS's headers.
const OVERHEAD: usize = block::HEAD + 1_024;
/// What an append takes in the queue besides its bytes, and each of its records.
const APPEND_COSTS: usize = 64;

/// Where the server is, and how large things get.
#[derive(Clone, Debug)]
pub struct JetStreamConfig {
    /// `nats://` or `tls://` addresses of servers of one cluster, divided by commas; with user and
    /// password or a token, if it wants any.
    pub url: String,
    /// Whose streams these are: 1 to 32 lower-case letters and digits. Each owner sees its own only.
    pub owner: String,
    /// On how many servers of the cluster each stream is.
    pub replicas: usize,
    /// How long to wait for a server that does not answer before giving up.
    pub patience: Duration,
    /// How many bytes may wait to be stored.
    pub queue_bytes: usize,
    /// How many bytes of blocks are kept in memory for those who follow a stream.
    pub cache_bytes: usize,
}

impl JetStreamConfig {
    /// For these servers and this owner; everything else as usual.
    #[must_use]
    pub fn new(url: impl Into<String>, owner: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            owner: owner.into(),
            replicas: 1,
            patience: Duration::from_secs(15),
            queue_bytes: 128 << 20,
            cache_bytes: 64 << 20,
        }
    }
}

/// Why a log cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// What was configured can never work; says what is wrong.
    #[error("{0}")]
    Invalid(String),
    /// No server answers, or none that has JetStream.
    #[error(
        "the message log on NATS cannot be reached: {0}; start the server with JetStream enabled (nats-server --jetstream) and look at its address"
    )]
    Unreachable(String),
}

/// What the log, its writers and its readers share.
struct Shared {
    server: Server,
    cache: Cache,
    clock: Arc<dyn Clock>,
    /// The number of this process among the writers of its streams.
    me: u64,
    /// The most bytes of a block's body.
    block_bytes: usize,
    /// How long a writer waits for a server that does not answer.
    patience: Duration,
}

/// A handle on the log; clones are the same log.
#[derive(Clone)]
pub struct JetStreamLog(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    names: Names,
    streams: Mutex<BTreeMap<String, Arc<Stream>>>,
    writers: Mutex<JoinSet<()>>,
    /// Creating and deleting happen one at a time.
    admin: tokio::sync::Mutex<()>,
    queue: Arc<Semaphore>,
    queue_bytes: usize,
    ids: AtomicU64,
    closed: AtomicBool,
    /// Where writers run.
    runtime: Handle,
}

impl JetStreamLog {
    /// Connects to the server and looks at the streams that are there. Waits some seconds for a server
    /// that is just starting.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(
        config: &JetStreamConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ConnectError> {
        if let Some(problem) = names::owner_problem(&config.owner) {
            return Err(ConnectError::Invalid(problem));
        }
        let client = client(config).await?;
        let payload = client.server_info().max_payload;
        if payload < LEAST_PAYLOAD {
            return Err(ConnectError::Invalid(format!(
                "the NATS server takes messages of at most {payload} bytes; set max_payload to at least {LEAST_PAYLOAD}, better 1MB"
            )));
        }
        let me = getrandom::u64().map_err(|error| {
            ConnectError::Invalid(format!("the system has no random numbers: {error}"))
        })?;
        let log = Self(Arc::new(Inner {
            shared: Arc::new(Shared {
                server: Server::new(client, config.replicas),
                cache: Cache::new(config.cache_bytes),
                clock,
                me,
                block_bytes: payload.min(1 << 20) - OVERHEAD,
                patience: config.patience,
            }),
            names: Names::new(&config.owner),
            streams: Mutex::default(),
            writers: Mutex::default(),
            admin: tokio::sync::Mutex::default(),
            queue: Arc::new(Semaphore::new(config.queue_bytes)),
            queue_bytes: config.queue_bytes,
            ids: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            runtime: Handle::current(),
        }));
        let found = log.0.shared.server.streams(&log.0.names.prefix()).await;
        let found = found.map_err(|error| ConnectError::Unreachable(error.to_string()))?;
        for info in found {
            if let Some(name) = info.config.description.clone() {
                log.0.open(&name, &info);
            }
        }
        Ok(log)
    }
}

async fn client(config: &JetStreamConfig) -> Result<async_nats::Client, ConnectError> {
    let servers: Vec<async_nats::ServerAddr> = config
        .url
        .split(',')
        .map(|server| server.trim().parse())
        .collect::<Result<_, _>>()
        .map_err(|error| {
            ConnectError::Invalid(format!(
                "the address of the message log is none: {error}; write it as nats://HOST:PORT"
            ))
        })?;
    let connect = || {
        let options = ConnectOptions::new().name("lauf");
        options.connect(servers.clone())
    };
    let patient = async {
        loop {
            match connect().await {
                Ok(client) => return client,
                Err(error) => {
                    tracing::warn!(%error, "the NATS server cannot be reached yet");
                    sleep(CONNECT_AGAIN).await;
                }
            }
        }
    };
    match timeout(config.patience, patient).await {
        Ok(client) => Ok(client),
        Err(_) => {
            let hosts: Vec<String> = servers
                .iter()
                .map(|server| format!("{}:{}", server.host(), server.port()))
                .collect();
            Err(ConnectError::Unreachable(format!(
                "{} did not answer within {} s",
                hosts.join(", "),
                config.patience.as_secs_f64()
            )))
        }
    }
}

impl Inner {
    /// Takes up a stream that is on the server.
    fn open(self: &Arc<Self>, name: &str, info: &Info) {
        let (send, queue) = mpsc::unbounded_channel();
        let extent = server::extent_of(info);
        let stream = Arc::new(Stream::new(
            self.ids.fetch_add(1, Ordering::Relaxed),
            name.to_owned(),
            info.config.name.clone(),
            info.config.subjects.first().cloned().unwrap_or_default(),
            (extent.first, extent.last + 1),
            send,
        ));
        let writer = Writer::new(Arc::clone(&self.shared), Arc::clone(&stream), queue);
        let mut writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        // Those of deleted streams have ended.
        while writers.try_join_next().is_some() {}
        writers.spawn_on(writer.run(), &self.runtime);
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.insert(name.to_owned(), stream);
    }

    fn check_open(&self) -> Result<(), LogError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(LogError::Closed);
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Result<Arc<Stream>, LogError> {
        self.check_open()?;
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let found = streams.get(name).cloned();
        found.ok_or_else(|| LogError::NoStream(name.to_owned()))
    }
}

#[async_trait]
impl MessageLog for JetStreamLog {
    async fn create(&self, stream: &str) -> Result<(), LogError> {
        if let Some(problem) = name_problem(stream) {
            return Err(LogError::Invalid(problem));
        }
        let inner = &self.0;
        let _one = inner.admin.lock().await;
        if inner.find(stream).is_ok() {
            return Ok(());
        }
        inner.check_open()?;
        let random = getrandom::u64().map_err(|error| server::failed(&error))?;
        let subject = inner.names.subject(random);
        let name = inner.names.on_server(stream);
        let info = inner.shared.server.create(&name, subject, stream).await?;
        inner.open(stream, &info);
        Ok(())
    }

    async fn delete(&self, stream: &str) -> Result<(), LogError> {
        let inner = &self.0;
        let _one = inner.admin.lock().await;
        inner.check_open()?;
        let name = inner.names.on_server(stream);
        inner.shared.server.delete(&name).await?;
        let gone = {
            let mut streams = inner.streams.lock().unwrap_or_else(PoisonError::into_inner);
            streams.remove(stream)
        };
        if let Some(gone) = gone {
            gone.shut();
        }
        Ok(())
    }

    async fn streams(&self) -> Result<Vec<String>, LogError> {
        self.0.check_open()?;
        let streams = self
            .0
            .streams
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Ok(streams.keys().cloned().collect())
    }

    fn append(&self, stream: &str, records: Vec<Bytes>) -> Result<Receipt, LogError> {
        if let Some(problem) = append_problem(&records) {
            return Err(LogError::Invalid(problem));
        }
        let stream = self.0.find(stream)?;
        let bytes = records.iter().map(Bytes::len).sum::<usize>();
        // One that is larger than the whole queue waits until it is alone there.
        let costs = (bytes + APPEND_COSTS * (records.len() + 1)).min(self.0.queue_bytes);
        let costs = u32::try_from(costs).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.0.queue).try_acquire_many_owned(costs);
        let (answer, receipt) = oneshot::channel();
        stream.queue(Append {
            records,
            bytes,
            answer,
            room: room.map_err(|_| LogError::Full)?,
        })?;
        Ok(Receipt(receipt))
    }

    async fn read(&self, stream: &str, from: Position, limit: Limit) -> Result<Chunk, LogError> {
        let stream = self.0.find(stream)?;
        self.0.shared.read(&stream, from, limit).await
    }

    async fn extent(&self, stream: &str) -> Result<Extent, LogError> {
        let stream = self.0.find(stream)?;
        let held = self.0.shared.server.extent(&stream.on_server).await?;
        let held = held.ok_or_else(|| stream.missing())?;
        let next = position(stream.end());
        Ok(Extent {
            first: position(stream.first()).min(next),
            next,
            bytes: held.bytes,
        })
    }

    async fn position_at(&self, stream: &str, time: Timestamp) -> Result<Position, LogError> {
        let stream = self.0.find(stream)?;
        let sequence = self.0.shared.sequence_at(&stream, time).await?;
        Ok(position(sequence))
    }

    async fn trim(&self, stream: &str, before: Position) -> Result<(), LogError> {
        let stream = self.0.find(stream)?;
        // The last message stays: its time is what the next one must not be earlier than.
        let before = (before.0 / PER_BLOCK).min(stream.end().saturating_sub(1));
        if before <= stream.first() {
            return Ok(());
        }
        let server = &self.0.shared.server;
        server.purge(&stream.on_server, before).await?;
        stream.begins_at(before);
        Ok(())
    }

    async fn tail(&self, stream: &str) -> Result<watch::Receiver<Position>, LogError> {
        self.0.find(stream)?.tail()
    }

    async fn close(&self) {
        // What is being created is there before all streams are shut.
        let _one = self.0.admin.lock().await;
        if self.0.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        let streams = {
            let mut streams = self
                .0
                .streams
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *streams)
        };
        for stream in streams.values() {
            stream.shut();
        }
        let mut writers = {
            let mut writers = self
                .0
                .writers
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *writers)
        };
        // Whoever is not done by then is stopped.
        let all = async { while writers.join_next().await.is_some() {} };
        if timeout(self.0.shared.patience, all).await.is_err() {
            tracing::error!("the NATS server did not take what still waited to be stored");
            writers.abort_all();
        }
        self.0.shared.server.leave().await;
    }
}
