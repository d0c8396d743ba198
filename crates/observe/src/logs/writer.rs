//! The one thread that writes the log.

use std::{
    io,
    sync::{Arc, PoisonError},
};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;

use super::{
    LogConfig, Shared,
    segment::Segment,
    sink::{Dropped, Message, Pressure},
};
use crate::{LogEntry, Payload, Severity};

/// How much is written at a time at most.
const BATCH: usize = 2_048;
const BATCH_BYTES: usize = 1 << 20;

/// No segment is shorter than this, however little may be kept.
const MIN_SEGMENT: u64 = 64 << 10;

/// Places in segments are 32 bits; this leaves room for one more batch.
const MAX_SEGMENT: u64 = 1 << 31;

pub(super) struct Writer {
    shared: Arc<Shared>,
    queue: mpsc::Receiver<Message>,
    pressure: Arc<Pressure>,
    max_bytes: u64,
    max_age: SignedDuration,
    segment_bytes: u64,
    /// How much is written at a time, at most one entry more.
    batch_bytes: usize,
    /// Whether the last write failed, so that a full disk is reported once.
    failing: bool,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        queue: mpsc::Receiver<Message>,
        pressure: Arc<Pressure>,
        config: &LogConfig,
    ) -> Self {
        let most = (config.max_bytes / 8).clamp(MIN_SEGMENT, MAX_SEGMENT);
        let segment_bytes = config.segment_bytes.clamp(MIN_SEGMENT, most);
        Self {
            shared,
            queue,
            pressure,
            max_bytes: config.max_bytes,
            max_age: SignedDuration::try_from(config.max_age).unwrap_or(SignedDuration::MAX),
            segment_bytes,
            batch_bytes: usize::try_from(segment_bytes / 2)
                .unwrap_or(BATCH_BYTES)
                .min(BATCH_BYTES),
            failing: false,
        }
    }

    pub(super) fn run(mut self) {
        let mut closing = Vec::new();
        while let Some(first) = self.queue.blocking_recv() {
            let mut entries = Vec::new();
            let mut flushed = Vec::new();
            let mut bytes = 0;
            let mut next = Some(first);
            while let Some(message) = next {
                match message {
                    Message::Entry(entry) => {
                        bytes += entry.weight();
                        entries.push(*entry);
                    }
                    Message::Flush(reply) => flushed.push(reply),
                    Message::Close(reply) => {
                        closing.push(reply);
                        // Nothing more comes in; what is in the queue still comes out.
                        self.queue.close();
                    }
                }
                let more = entries.len() < BATCH && bytes < self.batch_bytes;
                next = if more {
                    self.queue.try_recv().ok()
                } else {
                    None
                };
            }
            self.write(entries);
            self.pressure.release(bytes);
            let lost = self.pressure.take_dropped();
            self.write(lost.into_iter().map(tell).collect());
            for reply in flushed {
                // Whoever asked may have gone.
                let _ = reply.send(());
            }
        }
        if let Err(error) = self.active().finish() {
            tracing::warn!(%error, "the log could not be synced to disk");
        }
        self.shared
            .followers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .end();
        for reply in closing {
            let _ = reply.send(());
        }
    }

    fn active(&self) -> Arc<Segment> {
        let segments = self
            .shared
            .segments
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        // There is always one: `open` sees to the first, `retain` keeps the last.
        Arc::clone(&segments[segments.len() - 1])
    }

    fn write(&mut self, entries: Vec<LogEntry>) {
        if entries.is_empty() {
            return;
        }
        match self.append(&entries) {
            Ok(()) => self.failing = false,
            Err(error) => {
                if !self.failing {
                    tracing::error!(%error, dir = %self.shared.dir.display(), "log entries are lost: the log cannot be written");
                }
                self.failing = true;
                for entry in &entries {
                    self.pressure.count(entry);
                }
            }
        }
        let mut followers = self
            .shared
            .followers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for entry in entries {
            if followers.is_empty() {
                break;
            }
            followers.offer(entry);
        }
    }

    fn append(&self, entries: &[LogEntry]) -> io::Result<()> {
        let mut lines = Vec::with_capacity(entries.len() * 512);
        let mut placed = Vec::with_capacity(entries.len());
        for entry in entries {
            let start = lines.len();
            serde_json::to_writer(&mut lines, entry)?;
            lines.push(b'\n');
            placed.push(((lines.len() - start) as u64, entry));
        }
        let mut active = self.active();
        let coming = lines.len() as u64;
        if active.end() > 0 && active.end() + coming > self.segment_bytes {
            active = self.rotate(&active, coming.max(self.segment_bytes))?;
        }
        active.append(&lines, &placed)
    }

    /// Ends the active segment, begins the next, and lets go of what is too old, and of as much as
    /// leaves room for `room` more bytes.
    fn rotate(&self, active: &Segment, room: u64) -> io::Result<Arc<Segment>> {
        // A full disk must not keep old segments from going; the index can be made anew.
        if let Err(error) = active.finish() {
            tracing::warn!(%error, "a segment of the log could not be finished");
        }
        let next = Arc::new(Segment::create(&self.shared.dir, active.id + 1)?);
        let mut segments = self
            .shared
            .segments
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        segments.push_back(Arc::clone(&next));
        let now = active.received();
        let mut bytes: u64 = segments.iter().map(|segment| segment.end()).sum();
        while segments.len() > 1
            && (bytes + room > self.max_bytes || self.too_old(&segments[0], now))
            && let Some(oldest) = segments.pop_front()
        {
            bytes -= oldest.end();
            if let Err(error) = oldest.remove() {
                tracing::warn!(%error, "an old segment of the log could not be removed");
            }
        }
        Ok(next)
    }

    fn too_old(&self, segment: &Segment, now: Option<Timestamp>) -> bool {
        match (segment.received(), now) {
            (Some(received), Some(now)) => now.duration_since(received) > self.max_age,
            _ => false,
        }
    }
}

/// The entry that says that others are missing.
fn tell(dropped: Dropped) -> LogEntry {
    let mut entry = LogEntry::new(
        format!(
            "projects/{}/logs/run.googleapis.com%2Fvarlog%2Fsystem",
            dropped.project
        ),
        dropped.resource,
        dropped.last,
        Payload::Text(format!(
            "{} log entries were dropped because they came faster than they could be written.",
            dropped.count
        )),
    );
    entry.severity = Severity::Warning;
    entry.insert_id = format!("dropped-{}", dropped.last.as_nanosecond());
    entry
}
