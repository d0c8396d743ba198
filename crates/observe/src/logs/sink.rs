//! The way in.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

use crate::{LogEntry, Resource};

/// Of how many resources drops are counted apart.
const MAX_DROPPERS: usize = 64;

/// What goes to the writer.
pub(super) enum Message {
    Entry(Box<LogEntry>),
    Flush(oneshot::Sender<()>),
    Close(oneshot::Sender<()>),
}

/// Takes entries and never waits: when the queue is full, entries are dropped and counted, and the
/// count is logged once there is room.
#[derive(Clone)]
pub struct LogSink {
    queue: mpsc::Sender<Message>,
    pressure: Arc<Pressure>,
    ids: Arc<Ids>,
}

/// How full the queue is, and what was dropped because of it.
pub(super) struct Pressure {
    bytes: AtomicUsize,
    max_bytes: usize,
    any_dropped: AtomicBool,
    dropped: Mutex<Vec<Dropped>>,
}

/// How many entries of one resource were dropped.
pub(super) struct Dropped {
    pub(super) project: String,
    pub(super) resource: Resource,
    pub(super) last: Timestamp,
    pub(super) count: u64,
}

/// Makes ids that are unique over restarts: some randomness, then a counter.
struct Ids {
    start: String,
    next: AtomicU64,
}

impl LogSink {
    pub(super) fn new(queue: mpsc::Sender<Message>, max_bytes: usize) -> io::Result<Self> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let start = base36(u64::from_le_bytes(random), 13);
        Ok(Self {
            queue,
            pressure: Arc::new(Pressure {
                bytes: AtomicUsize::new(0),
                max_bytes,
                any_dropped: AtomicBool::new(false),
                dropped: Mutex::new(Vec::new()),
            }),
            ids: Arc::new(Ids {
                start,
                next: AtomicU64::new(0),
            }),
        })
    }

    /// Gives an entry to the log. It gets an id if it has none; what is too long is cut.
    pub fn push(&self, mut entry: LogEntry) {
        entry.bound();
        if entry.insert_id.is_empty() {
            entry.insert_id = self.ids.next();
        }
        let weight = entry.weight();
        let before = self.pressure.bytes.fetch_add(weight, Ordering::Relaxed);
        if before + weight > self.pressure.max_bytes {
            self.pressure.release(weight);
            self.pressure.count(&entry);
            return;
        }
        if let Err(error) = self.queue.try_send(Message::Entry(Box::new(entry))) {
            self.pressure.release(weight);
            // A log that is closed has nowhere to say it.
            if let mpsc::error::TrySendError::Full(Message::Entry(entry)) = error {
                self.pressure.count(&entry);
            }
        }
    }

    pub(super) fn pressure(&self) -> Arc<Pressure> {
        Arc::clone(&self.pressure)
    }

    pub(super) async fn send(&self, message: Message) -> Result<(), ()> {
        self.queue.send(message).await.map_err(drop)
    }
}

impl Pressure {
    /// An entry has left the queue.
    pub(super) fn release(&self, weight: usize) {
        self.bytes.fetch_sub(weight, Ordering::Relaxed);
    }

    /// Counts an entry that is lost.
    pub(super) fn count(&self, entry: &LogEntry) {
        let mut dropped = self.dropped.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = dropped
            .iter_mut()
            .find(|known| known.resource == entry.resource)
        {
            known.count += 1;
            known.last = entry.receive_timestamp;
        } else if dropped.len() < MAX_DROPPERS {
            dropped.push(Dropped {
                project: entry.project().unwrap_or_default().to_owned(),
                resource: entry.resource.clone(),
                last: entry.receive_timestamp,
                count: 1,
            });
        } else {
            // Rather under a wrong name than not at all.
            dropped[MAX_DROPPERS - 1].count += 1;
        }
        self.any_dropped.store(true, Ordering::Release);
    }

    /// What was dropped since this was last asked.
    pub(super) fn take_dropped(&self) -> Vec<Dropped> {
        if !self.any_dropped.swap(false, Ordering::Acquire) {
            return Vec::new();
        }
        std::mem::take(&mut self.dropped.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Ids {
    fn next(&self) -> String {
        // Of fixed width, so that entries of one time sort as they came.
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        format!("{}{}", self.start, base36(count, 8))
    }
}

fn base36(mut number: u64, width: usize) -> String {
    let mut digits = vec![b'0'; width];
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdefghijklmnopqrstuvwxyz"[(number % 36) as usize];
        number /= 36;
    }
    digits.into_iter().map(char::from).collect()
}
