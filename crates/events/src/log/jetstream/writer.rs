//! The one writer of a stream: a task that turns what waits into blocks and sends them.
//!
//! Blocks are sent without waiting for each other, and each says after which sequence it may be stored.
//! So the server refuses what comes out of order, twice, or after somebody else has written. When an
//! answer is missing or a refusal, the writer looks at the last message of the stream: it says which of the
//! blocks on their way have arrived, and the others are sent again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::super::{Appended, LogError, MAX_APPEND_RECORDS};
use super::Shared;
use super::block::{self, Head};
use super::stream::{Stream, position};

/// Blocks on their way at a time. What comes meanwhile waits, and shares the next block.
const WINDOW: usize = 4;
/// Between two looks at a server that does not answer.
const AGAIN: Duration = Duration::from_millis(200);

/// Records that wait to be stored.
pub(super) struct Append {
    pub(super) records: Vec<Bytes>,
    pub(super) bytes: usize,
    pub(super) answer: oneshot::Sender<Result<Appended, LogError>>,
    /// Its room in the queue, free again when it is answered.
    pub(super) room: OwnedSemaphorePermit,
}

/// Who waits for a block.
struct Waiting {
    /// The place of its first record in the block.
    index: u64,
    answer: oneshot::Sender<Result<Appended, LogError>>,
    _room: OwnedSemaphorePermit,
}

/// A block on its way.
struct Sent {
    head: Head,
    block: Bytes,
    waiting: Vec<Waiting>,
}

/// What is known for certain of the stream.
struct Known {
    /// Its last sequence.
    last: u64,
    /// The time of its last block, so that no later one has an earlier time.
    time: Timestamp,
}

/// What a look at the stream shows.
struct Found {
    last: u64,
    head: Option<Head>,
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    stream: Arc<Stream>,
    queue: mpsc::UnboundedReceiver<Append>,
    pending: VecDeque<Append>,
    window: VecDeque<Sent>,
    acks: FuturesOrdered<BoxFuture<'static, Result<u64, LogError>>>,
    known: Option<Known>,
    /// The number of the next block.
    number: u64,
    /// A block of this writer has been stored: whoever writes now without it has taken over.
    proven: bool,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        stream: Arc<Stream>,
        queue: mpsc::UnboundedReceiver<Append>,
    ) -> Self {
        Self {
            shared,
            stream,
            queue,
            pending: VecDeque::new(),
            window: VecDeque::new(),
            acks: FuturesOrdered::new(),
            known: None,
            number: 0,
            proven: false,
        }
    }

    /// Writes until the stream is shut and all that waited is stored.
    pub(super) async fn run(mut self) {
        let mut open = true;
        while open || !self.pending.is_empty() || !self.window.is_empty() {
            while let Ok(append) = self.queue.try_recv() {
                self.pending.push_back(append);
            }
            while self.window.len() < WINDOW && !self.pending.is_empty() {
                self.send().await;
            }
            tokio::select! {
                Some(answer) = self.acks.next(), if !self.acks.is_empty() => match answer {
                    Ok(sequence) => self.stored(sequence),
                    Err(error) => self.recover(error).await,
                },
                append = self.queue.recv(), if open && self.pending.is_empty() => match append {
                    Some(append) => self.pending.push_back(append),
                    None => open = false,
                },
                else => {}
            }
        }
    }

    /// Makes the next block, and sends it.
    async fn send(&mut self) {
        if self.known.is_none() {
            let unknown = LogError::Failed("the stream has not been looked at".to_owned());
            self.recover(unknown).await;
        }
        let Some(known) = &mut self.known else {
            return;
        };
        let now = self.shared.clock.now().as_microsecond();
        let now = Timestamp::from_microsecond(now).unwrap_or_default();
        known.time = known.time.max(now);
        let time = known.time;

        let before = self.window.len();
        self.pack(time);
        for place in before..self.window.len() {
            if let Err(error) = self.transmit(place).await {
                self.recover(error).await;
                return;
            }
        }
    }

    /// Puts what waits into blocks at the end of the window: as many appends as fit into one, or one that
    /// needs several.
    fn pack(&mut self, time: Timestamp) {
        let most = self.shared.block_bytes;
        let (mut records, mut waiting) = (Vec::new(), Vec::new());
        let mut bytes = 0;
        while let Some(next) = self.pending.front() {
            let count = records.len() + next.records.len();
            let fits =
                count <= MAX_APPEND_RECORDS && block::body_len(count, bytes + next.bytes) <= most;
            if !fits && !records.is_empty() {
                break;
            }
            let Some(next) = self.pending.pop_front() else {
                break;
            };
            waiting.push(Waiting {
                index: records.len() as u64,
                answer: next.answer,
                _room: next.room,
            });
            records.extend(next.records);
            bytes += next.bytes;
        }
        let body = block::body(records.iter());
        let parts = body.len().div_ceil(most).max(1);
        for part in 0..parts {
            let head = Head {
                writer: self.shared.me,
                number: self.number,
                time,
                part: u16::try_from(part).unwrap_or(u16::MAX),
                parts: u16::try_from(parts).unwrap_or(u16::MAX),
            };
            self.number += 1;
            let slice = body.slice(part * most..body.len().min((part + 1) * most));
            let last = part + 1 == parts;
            self.window.push_back(Sent {
                head,
                block: block::seal(head, &slice),
                waiting: if last {
                    std::mem::take(&mut waiting)
                } else {
                    Vec::new()
                },
            });
        }
    }

    /// Sends the block at this place of the window.
    async fn transmit(&mut self, place: usize) -> Result<(), LogError> {
        let (Some(sent), Some(known)) = (self.window.get(place), &self.known) else {
            return Ok(());
        };
        let last = known.last + place as u64;
        let subject = self.stream.subject.clone();
        let ack = self
            .shared
            .server
            .publish(subject, last, sent.block.clone())
            .await?;
        self.acks.push_back(Box::pin(async move {
            ack.await
                .map(|stored| stored.sequence)
                .map_err(|error| super::server::failed(&error))
        }));
        Ok(())
    }

    /// The first block of the window is durable.
    fn stored(&mut self, sequence: u64) {
        let Some(sent) = self.window.pop_front() else {
            return;
        };
        self.proven = true;
        if let Some(known) = &mut self.known {
            known.last = sequence;
        }
        let cache = &self.shared.cache;
        cache.put(self.stream.id, sequence, sent.block);
        let Head {
            time, part, parts, ..
        } = sent.head;
        if part + 1 < parts {
            return;
        }
        self.stream.ends_at(sequence + 1);
        let first = position(sequence - u64::from(part));
        for waiting in sent.waiting {
            let first = first.plus(waiting.index);
            let _ = waiting.answer.send(Ok(Appended { first, time }));
        }
    }

    /// Finds out what has been stored and sends the rest again; gives all up when that does not succeed.
    async fn recover(&mut self, cause: LogError) {
        tracing::debug!(stream = self.stream.name, %cause, "looks at what the NATS server has");
        let outcome = timeout(self.shared.patience, self.settle()).await;
        let error = match outcome {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(_) => cause,
        };
        self.acks.clear();
        // It may have changed when somebody asks again.
        if !self.proven {
            self.known = None;
        }
        let sent = self.window.drain(..).flat_map(|sent| sent.waiting);
        for answer in sent.map(|waiting| waiting.answer) {
            let _ = answer.send(Err(error.clone()));
        }
        for append in self.pending.drain(..) {
            let _ = append.answer.send(Err(error.clone()));
        }
    }

    /// Until the server answers. Fails only with what will not get better by waiting.
    async fn settle(&mut self) -> Result<(), LogError> {
        loop {
            self.acks.clear();
            match look(&self.shared, &self.stream).await {
                Ok(found) => {
                    self.compare(&found)?;
                    if self.transmit_all().await.is_ok() {
                        return Ok(());
                    }
                }
                Err(missing @ LogError::NoStream(_)) => return Err(missing),
                Err(error) => {
                    tracing::warn!(stream = self.stream.name, %error, "the NATS server does not answer");
                }
            }
            sleep(AGAIN).await;
        }
    }

    async fn transmit_all(&mut self) -> Result<(), LogError> {
        for place in 0..self.window.len() {
            self.transmit(place).await?;
        }
        Ok(())
    }

    /// Takes out of the window what is stored.
    fn compare(&mut self, found: &Found) -> Result<(), LogError> {
        let time = found.head.map_or(Timestamp::UNIX_EPOCH, |head| head.time);
        let Some(known) = &mut self.known else {
            self.known = Some(Known {
                last: found.last,
                time,
            });
            return Ok(());
        };
        if found.last < known.last {
            return Err(LogError::Failed(format!(
                "the NATS server has lost messages of stream '{}': it ends at {} and has acknowledged {}",
                self.stream.name, found.last, known.last
            )));
        }
        let Some(head) = found.head.filter(|_| found.last > known.last) else {
            return Ok(());
        };
        if head.writer != self.shared.me {
            if self.proven {
                return Err(LogError::Failed(format!(
                    "another Lauf writes to stream '{}'; only one may at a time",
                    self.stream.name
                )));
            }
            known.last = found.last;
            known.time = known.time.max(time);
            return Ok(());
        }
        // It is one of those on their way, or one that was given up and came late.
        let arrived = self.window.iter();
        let arrived = arrived
            .filter(|sent| sent.head.number <= head.number)
            .count() as u64;
        for sequence in found.last + 1 - arrived..=found.last {
            self.stored(sequence);
        }
        if let Some(known) = &mut self.known {
            known.last = found.last;
        }
        Ok(())
    }
}

async fn look(shared: &Shared, stream: &Stream) -> Result<Found, LogError> {
    let extent = shared.server.extent(&stream.on_server).await?;
    let last = extent.ok_or_else(|| stream.missing())?.last;
    let message = match last {
        0 => None,
        last => shared.server.message(&stream.on_server, last).await?,
    };
    let head = message.map(block::open).transpose()?.map(|opened| opened.0);
    Ok(Found { last, head })
}
