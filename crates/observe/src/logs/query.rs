//! Reading the log back.
//!
//! A page is the best `page_size` entries in the wanted order, which is by time and then by place in
//! the log. Blocks are visited best first, by the best time each can offer, and the visit ends when
//! no block left can offer anything better than what is held. So the newest entries are found by
//! reading the newest blocks, however long the log is, and entries that came out of order still
//! stand where they belong.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use jiff::Timestamp;

use super::{LogError, Shared, segment::Segment};
use crate::{Filter, LogEntry, filter::project_term};

/// The most entries on one page.
pub const MAX_PAGE_SIZE: usize = 1_000;

/// The most bytes of entries on one page; at least one entry is.
const MAX_PAGE_BYTES: usize = 16 << 20;

/// How much is read for one page before it is given out short.
const MAX_SCAN: u64 = 256 << 20;

/// In which order entries come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Order {
    /// `timestamp asc`, Cloud Logging's default.
    #[default]
    Asc,
    /// `timestamp desc`.
    Desc,
}

/// What to read.
#[derive(Clone, Debug)]
pub struct Query {
    /// Which entries.
    pub filter: Filter,
    /// In which order.
    pub order: Order,
    /// How many at most; between 1 and [`MAX_PAGE_SIZE`].
    pub page_size: usize,
    /// Where the page before ended.
    pub page_token: Option<String>,
    /// Of which parents, such as `projects/P`; of all where there are none.
    pub resource_names: Vec<String>,
}

/// What was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The entries.
    pub entries: Vec<LogEntry>,
    /// For the next page, where there may be one.
    pub next_page_token: Option<String>,
}

/// Where an entry stands: greater comes earlier in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    time: i128,
    place: i128,
}

impl Rank {
    const BEST: Self = Self {
        time: i128::MAX,
        place: i128::MAX,
    };

    fn new(order: Order, time: Timestamp, place: u64) -> Self {
        let (time, place) = (time.as_nanosecond(), i128::from(place));
        match order {
            Order::Desc => Self { time, place },
            Order::Asc => Self {
                time: -time,
                place: -place,
            },
        }
    }

    fn token(self, query: u64) -> String {
        format!("{query:016x}.{}.{}", self.time, self.place)
    }

    fn from_token(token: &str, query: u64) -> Option<Self> {
        let mut parts = token.split('.');
        let (of, time, place) = (parts.next()?, parts.next()?, parts.next()?);
        let known = u64::from_str_radix(of, 16) == Ok(query) && parts.next().is_none();
        known.then_some(Self {
            time: time.parse().ok()?,
            place: place.parse().ok()?,
        })
    }
}

/// An entry that is held while a better one may come. The worst is on top of the heap.
struct Held {
    rank: Reverse<Rank>,
    entry: LogEntry,
    bytes: usize,
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.rank == other.rank
    }
}

impl Eq for Held {}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Held {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank.cmp(&other.rank)
    }
}

/// A block that may hold an answer.
struct Candidate {
    segment: Arc<Segment>,
    start: u64,
    end: u64,
    /// The best that it can offer.
    best: Rank,
}

pub(super) fn run(shared: &Shared, query: &Query) -> Result<Page, LogError> {
    let id = query_id(query);
    let after = match query.page_token.as_deref() {
        None | Some("") => Rank::BEST,
        Some(token) => Rank::from_token(token, id).ok_or(LogError::PageToken)?,
    };
    let io = |source| LogError::Io {
        path: shared.dir.clone(),
        source,
    };
    let candidates = candidates(shared, query, after);
    let size = query.page_size.clamp(1, MAX_PAGE_SIZE);
    let mut held = Best {
        heap: BinaryHeap::new(),
        bytes: 0,
        size,
        left_out: false,
    };
    let mut scanned = 0;
    // What comes after here was not looked at.
    let mut stopped_at = None;
    for candidate in candidates {
        if held.is_full() && candidate.best < held.worst() {
            stopped_at = Some(held.worst());
            break;
        }
        // Short of the budget only where the next page gets further than this one began.
        if scanned >= MAX_SCAN && candidate.best.time < after.time {
            stopped_at = Some(Rank {
                place: i128::MAX,
                ..candidate.best
            });
            break;
        }
        scanned += candidate.end - candidate.start;
        let bytes = candidate
            .segment
            .read(candidate.start, candidate.end)
            .map_err(io)?;
        let mut at = candidate.start;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let place = u64::from(candidate.segment.id) << 32 | at;
            at += line.len() as u64;
            // A line that was damaged on disk is left out.
            let Ok(entry) = serde_json::from_slice::<LogEntry>(line) else {
                continue;
            };
            let rank = Rank::new(query.order, entry.timestamp, place);
            if rank < after
                // That there is more is worth knowing; once known, what is worse is not.
                && !(held.left_out && held.is_full() && rank < held.worst())
                && names_match(&query.resource_names, &entry)
                && query.filter.matches(&entry)
            {
                held.add(Held {
                    rank: Reverse(rank),
                    entry,
                    bytes: line.len(),
                });
            }
        }
    }
    let left_out = held.left_out;
    let mut entries = held.heap.into_sorted_vec();
    // Best first; those after the place where the search stopped wait for the next page.
    if let Some(stopped_at) = stopped_at {
        entries.retain(|held| held.rank.0 >= stopped_at);
    }
    let next = match stopped_at {
        Some(stopped_at) => Some(
            entries
                .last()
                .map_or(stopped_at, |l| stopped_at.min(l.rank.0)),
        ),
        None if left_out => entries.last().map(|last| last.rank.0),
        None => None,
    };
    Ok(Page {
        entries: entries.into_iter().map(|held| held.entry).collect(),
        next_page_token: next.map(|rank| rank.token(id)),
    })
}

/// The best entries so far.
struct Best {
    heap: BinaryHeap<Held>,
    bytes: usize,
    size: usize,
    /// Whether there were more.
    left_out: bool,
}

impl Best {
    fn is_full(&self) -> bool {
        self.heap.len() >= self.size
    }

    fn worst(&self) -> Rank {
        self.heap.peek().map_or(Rank::BEST, |held| held.rank.0)
    }

    fn add(&mut self, held: Held) {
        self.bytes += held.bytes;
        self.heap.push(held);
        while self.heap.len() > self.size || (self.bytes > MAX_PAGE_BYTES && self.heap.len() > 1) {
            if let Some(worst) = self.heap.pop() {
                self.bytes -= worst.bytes;
            }
            self.left_out = true;
            // What was left out for its bytes must not be overtaken by something worse.
            self.size = self.size.min(self.heap.len());
        }
    }
}

fn candidates(shared: &Shared, query: &Query, after: Rank) -> Vec<Candidate> {
    let hints = query.filter.hints();
    let projects: Vec<u64> = query
        .resource_names
        .iter()
        .filter_map(|name| parent_project(name))
        .map(project_term)
        .collect();
    // A parent that is no project may be any: then the projects do not narrow.
    let projects = if projects.len() == query.resource_names.len() {
        projects
    } else {
        Vec::new()
    };
    let mut candidates = Vec::new();
    for segment in shared.snapshot() {
        segment.read_blocks(|blocks| {
            for block in blocks
                .iter()
                .filter(|block| block.may_have(hints, &projects))
            {
                let (best, worst) = match query.order {
                    Order::Desc => (block.newest, block.oldest),
                    Order::Asc => (block.oldest, block.newest),
                };
                let place = u64::from(segment.id) << 32;
                let (first, last) = (place | block.start, place | block.end);
                let (best_at, worst_at) = match query.order {
                    Order::Desc => (last, first),
                    Order::Asc => (first, last),
                };
                if Rank::new(query.order, worst, worst_at) < after {
                    candidates.push(Candidate {
                        segment: Arc::clone(&segment),
                        start: block.start,
                        end: block.end,
                        best: Rank::new(query.order, best, best_at),
                    });
                }
            }
        });
    }
    candidates.sort_unstable_by_key(|candidate| Reverse(candidate.best));
    candidates
}

/// What a token is good for.
fn query_id(query: &Query) -> u64 {
    let mut hasher = DefaultHasher::new();
    query.filter.to_string().hash(&mut hasher);
    query.order.hash(&mut hasher);
    query.resource_names.hash(&mut hasher);
    hasher.finish()
}

/// The project of a parent: of `projects/P`, also where a view or a bucket in it is named.
fn parent_project(name: &str) -> Option<&str> {
    name.strip_prefix("projects/")?.split('/').next()
}

/// Whether an entry is of one of the parents. Organisations, folders and billing accounts own
/// nothing here.
pub(super) fn names_match(names: &[String], entry: &LogEntry) -> bool {
    names.is_empty()
        || names
            .iter()
            .filter_map(|name| parent_project(name))
            .any(|project| {
                entry
                    .project()
                    .is_some_and(|of| of.eq_ignore_ascii_case(project))
            })
}
