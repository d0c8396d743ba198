//! What is known of each stream in memory: its segments and where it ends. The writer changes it,
//! everybody reads it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::sync::watch;

use super::super::{Extent, Position};
use super::files::Folder;
use super::frame::{Row, Table};
use super::segment;

/// One stream.
pub(super) struct Stream {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) folder: Folder,
    state: Mutex<State>,
    tail: Mutex<Option<watch::Sender<Position>>>,
}

#[derive(Debug, Default)]
struct State {
    /// The oldest first. The last is the one that grows.
    segments: VecDeque<Segment>,
    next: Position,
    time: i64,
}

/// A file of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// The position of its first record.
    pub(super) base: Position,
    /// How many of its bytes may be read.
    pub(super) length: u64,
    /// The journal file that its first records are in; 0 from before this start.
    pub(super) begun: u64,
}

/// Where the records from a position on are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) segment: Segment,
    /// The first position that can be read; later than the one asked for where that is trimmed.
    pub(super) from: Position,
    /// The position after the segment's last record that may be read.
    pub(super) end: Position,
}

impl Stream {
    pub(super) fn new(id: u64, name: String, folder: Folder) -> Self {
        Self::with(id, name, folder, VecDeque::new(), Position(0), 0)
    }

    pub(super) fn with(
        id: u64,
        name: String,
        folder: Folder,
        segments: VecDeque<Segment>,
        next: Position,
        time: i64,
    ) -> Self {
        Self {
            id,
            name,
            folder,
            state: Mutex::new(State {
                segments,
                next,
                time,
            }),
            tail: Mutex::new(Some(watch::Sender::new(next))),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The position after the last record.
    pub(super) fn next(&self) -> Position {
        self.state().next
    }

    /// The position after the last record, the time of that, and the segment that grows.
    pub(super) fn end(&self) -> (Position, i64, Option<Segment>) {
        let state = self.state();
        (state.next, state.time, state.segments.back().copied())
    }

    /// Lets records be seen that are durable now: those in `segment`, up to `next`.
    pub(super) fn publish(&self, segment: Segment, next: Position, time: i64) {
        let mut state = self.state();
        match state.segments.back_mut() {
            Some(last) if last.base == segment.base => *last = segment,
            _ => state.segments.push_back(segment),
        }
        state.next = next;
        state.time = time;
        drop(state);
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tail) = &*tail {
            tail.send_replace(next);
        }
    }

    pub(super) fn tail(&self) -> watch::Receiver<Position> {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.as_ref().map_or_else(
            // Deleted meanwhile: a receiver that ends at once.
            || watch::channel(self.next()).1,
            watch::Sender::subscribe,
        )
    }

    /// Ends the tails. The stream is deleted.
    pub(super) fn end_tails(&self) {
        self.tail
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }

    /// Whether the stream has been deleted.
    pub(super) fn is_deleted(&self) -> bool {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.is_none()
    }

    pub(super) fn extent(&self) -> Extent {
        let state = self.state();
        Extent {
            first: state.first(),
            next: state.next,
            bytes: state.segments.iter().map(|s| s.length).sum(),
        }
    }

    /// Where to read from `from` on; `None` at the end.
    pub(super) fn place(&self, from: Position) -> Option<Place> {
        let state = self.state();
        let from = from.max(state.first());
        if from >= state.next {
            return None;
        }
        let after = state.segments.partition_point(|s| s.base <= from);
        Some(Place {
            segment: state.segments[after.checked_sub(1)?],
            from,
            end: state.segments.get(after).map_or(state.next, |s| s.base),
        })
    }

    /// All segments, the oldest first.
    pub(super) fn segments(&self) -> Vec<Segment> {
        self.state().segments.iter().copied().collect()
    }

    /// Takes out the segments that hold nothing at or after `before`, but never the last one, nor one
    /// that grew when the journal file `needed`, the oldest that would be played, was begun.
    pub(super) fn take_before(&self, before: Position, needed: u64) -> Vec<Segment> {
        let mut state = self.state();
        let mut taken = Vec::new();
        while state.segments.len() > 1
            && state.segments[1].base <= before
            && state.segments[1].begun < needed
        {
            taken.extend(state.segments.pop_front());
        }
        taken
    }

    fn row(&self) -> Row {
        let state = self.state();
        let last = state.segments.back();
        Row {
            id: self.id,
            name: self.name.clone(),
            next: state.next.0,
            time: state.time,
            base: last.map_or(0, |s| s.base.0),
            length: last.map_or(0, |s| s.length),
        }
    }
}

impl State {
    fn first(&self) -> Position {
        self.segments.front().map_or(self.next, |s| s.base)
    }
}

/// All streams, by name.
#[derive(Default)]
pub(super) struct Streams {
    by_name: RwLock<HashMap<String, Arc<Stream>>>,
    next_id: Mutex<u64>,
}

impl Streams {
    pub(super) fn new(streams: BTreeMap<u64, Stream>, next_id: u64) -> Self {
        Self {
            by_name: RwLock::new(
                streams
                    .into_values()
                    .map(|stream| (stream.name.clone(), Arc::new(stream)))
                    .collect(),
            ),
            next_id: Mutex::new(next_id),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<Arc<Stream>> {
        let streams = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        streams.get(name).cloned()
    }

    pub(super) fn len(&self) -> usize {
        let streams = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        streams.len()
    }

    pub(super) fn names(&self) -> Vec<String> {
        let streams = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<String> = streams.keys().cloned().collect();
        names.sort_unstable();
        names
    }

    pub(super) fn new_id(&self) -> u64 {
        let mut next = self.next_id.lock().unwrap_or_else(PoisonError::into_inner);
        let id = *next;
        *next += 1;
        id
    }

    pub(super) fn insert(&self, stream: Stream) {
        let mut streams = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        streams.insert(stream.name.clone(), Arc::new(stream));
    }

    pub(super) fn remove(&self, name: &str) {
        let mut streams = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        streams.remove(name);
    }

    /// How all streams are now.
    pub(super) fn table(&self, whole: bool) -> Table {
        let streams = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        Table {
            streams: streams.values().map(|stream| stream.row()).collect(),
            next_id: *self.next_id.lock().unwrap_or_else(PoisonError::into_inner),
            whole,
        }
    }
}

impl Segment {
    /// A segment that nothing has been written to.
    pub(super) fn empty(base: Position) -> Self {
        Self {
            base,
            length: segment::HEADER,
            begun: 0,
        }
    }
}
