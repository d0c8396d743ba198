//! The one thread that writes.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::mem;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::mpsc as sync_mpsc;
use std::thread;

use bytes::Bytes;
use lauf_model::Clock;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::super::{Appended, LogError, Position};
use super::EmbeddedConfig;
use super::checkpoint::{self, Dirty, Full};
use super::files::{Folder, gone};
use super::frame::{Create, Data, Kind};
use super::journal::{Journal, Room};
use super::stream::{Segment, Stream, Streams};
use super::{record, segment};

/// The most records, and bytes of them, that are synced at once (or one append that is larger).
const BATCH: usize = 16_384;
const BATCH_BYTES: usize = 8 << 20;
/// How many segments are held open for writing.
const OPEN: usize = 256;
/// The most streams: their table must fit a journal file.
const MAX_STREAMS: usize = 100_000;

type Reply = oneshot::Sender<Result<(), LogError>>;

/// What the writer is asked.
pub(super) struct Request {
    pub(super) ask: Ask,
    /// Its share of the queue's bytes, given back when it is done.
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

pub(super) enum Ask {
    Append {
        stream: Arc<Stream>,
        records: Vec<Bytes>,
        bytes: usize,
        reply: oneshot::Sender<Result<Appended, LogError>>,
    },
    Create(String, Reply),
    Delete(String, Reply),
    Trim(Arc<Stream>, Position, Reply),
    Close(Reply),
}

pub(super) struct Writer {
    requests: mpsc::Receiver<Request>,
    streams: Arc<Streams>,
    journal: Journal,
    clock: Arc<dyn Clock>,
    folder: Folder,
    segment_bytes: u64,
    batch_bytes: usize,
    /// Segments open for writing, by stream.
    open: HashMap<u64, (Position, File)>,
    dirty: Dirty,
    /// Trims that wait until the journal no longer holds what they give up.
    trims: HashMap<String, Position>,
    checkpoints: Option<Checkpoints>,
    /// Why nothing more is written.
    broken: Option<String>,
    /// Held for as long as this thread writes.
    lock: File,
}

/// The other thread.
struct Checkpoints {
    work: sync_mpsc::Sender<Full>,
    done: sync_mpsc::Receiver<io::Result<u64>>,
    thread: thread::JoinHandle<()>,
}

/// What goes to one stream in one commit.
struct Staged {
    stream: Arc<Stream>,
    first: Position,
    next: Position,
    time: i64,
    records: Vec<u8>,
    segment: Segment,
    replies: Vec<(oneshot::Sender<Result<Appended, LogError>>, Appended)>,
    failed: Option<String>,
}

impl Writer {
    pub(super) fn new(
        requests: mpsc::Receiver<Request>,
        streams: Arc<Streams>,
        journal: Journal,
        lock: File,
        folder: Folder,
        clock: Arc<dyn Clock>,
        config: &EmbeddedConfig,
    ) -> Self {
        Self {
            requests,
            streams,
            journal,
            clock,
            folder,
            segment_bytes: config.segment_bytes,
            // With an append that is the largest there may be, it still fits a journal file.
            batch_bytes: usize::try_from(config.journal_bytes / 4)
                .map_or(BATCH_BYTES, |quarter| quarter.min(BATCH_BYTES)),
            open: HashMap::new(),
            dirty: Dirty::new(),
            trims: HashMap::new(),
            checkpoints: None,
            broken: None,
            lock,
        }
    }

    pub(super) fn run(mut self) {
        let mut next = None;
        let mut closing: Vec<Reply> = Vec::new();
        while let Some(first) = next.take().or_else(|| self.requests.blocking_recv()) {
            let mut batch: Vec<Staged> = Vec::new();
            let mut permits = Vec::new();
            let (mut bytes, mut records) = (0, 0);
            let mut request = Some(first);
            while let Some(Request { ask, permit }) = request {
                match ask {
                    Ask::Append {
                        stream,
                        records: bodies,
                        bytes: size,
                        reply,
                    } => {
                        bytes += size;
                        records += bodies.len();
                        permits.extend(permit);
                        self.stage(&mut batch, stream, &bodies, reply);
                    }
                    // In its place in the order of requests, after what was appended before it.
                    other => {
                        next = Some(Request { ask: other, permit });
                        break;
                    }
                }
                request = if bytes < self.batch_bytes && records < BATCH {
                    self.requests.try_recv().ok()
                } else {
                    None
                };
            }
            self.commit(batch, permits);
            if let Some(request) = next.take() {
                match request.ask {
                    Ask::Create(name, reply) => _ = reply.send(self.create(name)),
                    Ask::Delete(name, reply) => _ = reply.send(self.delete(&name)),
                    Ask::Trim(stream, before, reply) => {
                        let known = self.trims.entry(stream.name.clone()).or_default();
                        *known = before.max(*known);
                        self.trim();
                        _ = reply.send(Ok(()));
                    }
                    // Nothing more comes in; what is in the queue still comes out.
                    Ask::Close(reply) => {
                        self.requests.close();
                        closing.push(reply);
                    }
                    append @ Ask::Append { .. } => {
                        next = Some(Request {
                            ask: append,
                            permit: request.permit,
                        });
                    }
                }
            }
        }
        self.end();
        for reply in closing {
            let _ = reply.send(Ok(()));
        }
    }

    /// Gives an append its positions.
    fn stage(
        &self,
        batch: &mut Vec<Staged>,
        stream: Arc<Stream>,
        bodies: &[Bytes],
        reply: oneshot::Sender<Result<Appended, LogError>>,
    ) {
        if let Some(problem) = &self.broken {
            let _ = reply.send(Err(LogError::Failed(problem.clone())));
            return;
        }
        if stream.is_deleted() {
            let _ = reply.send(Err(LogError::NoStream(stream.name.clone())));
            return;
        }
        let at = batch
            .iter()
            .position(|staged| staged.stream.id == stream.id);
        let at = at.unwrap_or_else(|| {
            let (next, time, last) = stream.end();
            let segment = last
                .filter(|last| last.length < self.segment_bytes)
                .unwrap_or_else(|| Segment::empty(next));
            batch.push(Staged {
                stream,
                first: next,
                next,
                time: self.clock.now().as_microsecond().max(time),
                records: Vec::new(),
                segment,
                replies: Vec::new(),
                failed: None,
            });
            batch.len() - 1
        });
        let staged = &mut batch[at];
        for body in bodies {
            record::encode(staged.time, body, &mut staged.records);
        }
        let appended = Appended {
            first: staged.next,
            time: jiff::Timestamp::from_microsecond(staged.time).unwrap_or_default(),
        };
        staged.next = staged.next.plus(bodies.len() as u64);
        staged.replies.push((reply, appended));
    }

    /// One commit, one sync.
    fn commit(&mut self, mut batch: Vec<Staged>, permits: Vec<OwnedSemaphorePermit>) {
        if batch.is_empty() {
            return;
        }
        // Segments first: when one cannot be written, say because the disk is full, its appends fail
        // and nothing of them is in the journal.
        for staged in &mut batch {
            if let Err(error) = self.write_segment(staged) {
                staged.failed = Some(error.to_string());
            }
        }
        let ops: Vec<Kind> = batch
            .iter_mut()
            .filter(|staged| staged.failed.is_none())
            .map(|staged| {
                Kind::Data(Data {
                    stream: staged.stream.id,
                    first: staged.first.0,
                    count: staged.next.0 - staged.first.0,
                    time: staged.time,
                    records: Bytes::from(mem::take(&mut staged.records)),
                })
            })
            .collect();
        if !ops.is_empty()
            && let Err(error) = self.journal(ops)
        {
            let problem = self.fail(&error);
            for staged in &mut batch {
                staged.failed = Some(problem.clone());
            }
        }
        let sequence = self.journal.sequence();
        for staged in &mut batch {
            if staged.failed.is_none() {
                if staged.segment.base == staged.first {
                    staged.segment.begun = sequence;
                }
                staged
                    .stream
                    .publish(staged.segment, staged.next, staged.time);
                self.dirty.insert((staged.stream.id, staged.segment.base));
            }
        }
        // Whoever has the answer finds the room free that the append took in the queue.
        drop(permits);
        for staged in batch {
            for (reply, appended) in staged.replies {
                // Whoever asked may have gone; it is written all the same.
                let _ = reply.send(match &staged.failed {
                    None => Ok(appended),
                    Some(problem) => Err(LogError::Failed(problem.clone())),
                });
            }
        }
    }

    /// Writes staged records where readers will look for them; not yet durable, not yet seen.
    fn write_segment(&mut self, staged: &mut Staged) -> io::Result<()> {
        let id = staged.stream.id;
        let base = staged.segment.base;
        if self.open.get(&id).is_none_or(|(open, _)| *open != base) {
            if self.open.len() >= OPEN {
                // Any will do: it is opened again when it is needed.
                let some = self.open.keys().next().copied();
                some.map(|id| self.open.remove(&id));
            }
            let path = self.folder.segment(id, base);
            let file = if staged.segment.length == segment::HEADER {
                match segment::create(&path, id, base) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        fs::create_dir_all(self.folder.stream_dir(id))?;
                        segment::create(&path, id, base)?
                    }
                    other => other?,
                }
            } else {
                File::options().write(true).open(&path)?
            };
            self.open.insert(id, (base, file));
        }
        let Some((_, file)) = self.open.get(&id) else {
            return Err(io::Error::other("no segment is open"));
        };
        let length = staged.segment.length;
        if let Err(error) = file.write_all_at(&staged.records, length) {
            let _ = file.set_len(length);
            return Err(error);
        }
        staged.segment.length += staged.records.len() as u64;
        Ok(())
    }

    /// Writes to the journal and syncs it, in the next file where this one is full.
    fn journal(&mut self, ops: Vec<Kind>) -> io::Result<()> {
        self.collect_spares(false)?;
        match self.journal.append(ops.clone())? {
            Room::Written => return Ok(()),
            Room::NotBegun => {}
            Room::Ended => {
                let full = Full {
                    sequence: self.journal.sequence(),
                    dirty: mem::take(&mut self.dirty),
                };
                // An error says that the thread has ended, and its last answer says why.
                let _ = self.checkpoints()?.work.send(full);
            }
        }
        while !self.journal.has_room() {
            self.collect_spares(true)?;
        }
        self.journal.begin(self.streams.table(false))?;
        match self.journal.append(ops)? {
            Room::Written => Ok(()),
            _ => Err(io::Error::other("it is larger than a journal file")),
        }
    }

    fn checkpoints(&mut self) -> io::Result<&Checkpoints> {
        if self.checkpoints.is_none() {
            let (work, jobs) = sync_mpsc::channel();
            let (answers, done) = sync_mpsc::channel();
            let folder = self.folder.clone();
            let thread = thread::Builder::new()
                .name("events-sync".to_owned())
                .spawn(move || checkpoint::run(&folder, &jobs, &answers))?;
            self.checkpoints = Some(Checkpoints { work, done, thread });
        }
        self.checkpoints
            .as_ref()
            .ok_or_else(|| io::Error::other("no thread"))
    }

    /// Takes back the journal files that have become free.
    fn collect_spares(&mut self, wait: bool) -> io::Result<()> {
        let Some(checkpoints) = &self.checkpoints else {
            return Ok(());
        };
        let mut freed = Vec::new();
        if wait {
            let answer = checkpoints.done.recv();
            freed.push(answer.map_err(|_| io::Error::other("the syncing thread ended"))??);
        }
        while let Ok(answer) = checkpoints.done.try_recv() {
            freed.push(answer?);
        }
        if freed.is_empty() {
            return Ok(());
        }
        for sequence in freed {
            self.journal.freed(sequence);
        }
        self.trim();
        Ok(())
    }

    fn fail(&mut self, error: &io::Error) -> String {
        tracing::error!(%error, "the message log cannot be written; restart Lauf when the disk is well again");
        let problem = format!("{error}; nothing more is taken until Lauf is started again");
        self.broken = Some(problem.clone());
        problem
    }

    /// Journals one operation on a stream itself.
    fn operate(&mut self, op: Kind) -> Result<(), LogError> {
        if let Some(problem) = &self.broken {
            return Err(LogError::Failed(problem.clone()));
        }
        self.journal(vec![op])
            .map_err(|error| LogError::Failed(self.fail(&error)))
    }

    fn create(&mut self, name: String) -> Result<(), LogError> {
        if self.streams.get(&name).is_some() {
            return Ok(());
        }
        if self.streams.len() >= MAX_STREAMS {
            return Err(LogError::Invalid(format!(
                "there are {MAX_STREAMS} streams already, the most there may be"
            )));
        }
        let id = self.streams.new_id();
        self.operate(Kind::Create(Create {
            id,
            name: name.clone(),
        }))?;
        self.streams
            .insert(Stream::new(id, name, self.folder.clone()));
        Ok(())
    }

    fn delete(&mut self, name: &str) -> Result<(), LogError> {
        let Some(stream) = self.streams.get(name) else {
            return Ok(());
        };
        self.operate(Kind::Delete(stream.id))?;
        self.streams.remove(name);
        stream.end_tails();
        self.trims.remove(name);
        self.open.remove(&stream.id);
        // What cannot be removed now, the next start removes.
        if let Err(error) = gone(fs::remove_dir_all(self.folder.stream_dir(stream.id))) {
            tracing::warn!(%error, stream = name, "the files of a deleted stream stay for now");
        }
        Ok(())
    }

    /// Removes the files of segments that were given up and that the journal no longer holds.
    fn trim(&mut self) {
        let oldest = self.journal.oldest();
        let (streams, folder) = (&self.streams, &self.folder);
        self.trims.retain(|name, before| {
            let Some(stream) = streams.get(name) else {
                return false;
            };
            for segment in stream.take_before(*before, oldest) {
                let path = folder.segment(stream.id, segment.base);
                if let Err(error) = gone(fs::remove_file(&path)) {
                    tracing::warn!(%error, path = %path.display(), "a segment stays for now");
                }
            }
            // Wait for the journal only where there is something to wait for.
            stream.segments().get(1).is_some_and(|s| s.base <= *before)
        });
    }

    /// Leaves files that the next start has nothing to do with.
    fn end(mut self) {
        if let Some(checkpoints) = self.checkpoints.take() {
            drop(checkpoints.work);
            let _ = checkpoints.thread.join();
            for sequence in checkpoints.done.iter().flatten() {
                self.journal.freed(sequence);
            }
        }
        if self.broken.is_none()
            && !self.dirty.is_empty()
            && let Err(error) = checkpoint::sync(&self.folder, &self.dirty)
                .and_then(|()| self.journal.begin(self.streams.table(true)))
        {
            tracing::warn!(%error, "the message log was not closed properly; the next start mends it");
        }
        drop(self.lock);
    }
}
