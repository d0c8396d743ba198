//! The sparse index: what is in each stretch of a segment.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{LogEntry, Severity, filter::Hints, filter::entry_terms};

/// How long a block gets, in bytes; more where one entry is longer.
const BLOCK: u64 = 64 << 10;

/// A block with more different terms than this counts as one that has all.
const MAX_TERMS: usize = 512;

/// A stretch of a segment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Block {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) oldest: Timestamp,
    pub(super) newest: Timestamp,
    /// When the last entry came.
    pub(super) received: Timestamp,
    severity: Severity,
    /// Sorted. `None` says that it may have any.
    terms: Option<Vec<u64>>,
}

impl Block {
    fn new(start: u64, entry: &LogEntry) -> Self {
        Self {
            start,
            end: start,
            oldest: entry.timestamp,
            newest: entry.timestamp,
            received: entry.receive_timestamp,
            severity: Severity::Default,
            terms: Some(Vec::new()),
        }
    }

    fn add(&mut self, length: u64, entry: &LogEntry, terms: &[u64]) {
        self.end += length;
        self.oldest = self.oldest.min(entry.timestamp);
        self.newest = self.newest.max(entry.timestamp);
        self.received = self.received.max(entry.receive_timestamp);
        self.severity = self.severity.max(entry.severity);
        if let Some(known) = &mut self.terms {
            for term in terms {
                if let Err(place) = known.binary_search(term) {
                    known.insert(place, *term);
                }
            }
            if known.len() > MAX_TERMS {
                self.terms = None;
            }
        }
    }

    /// Whether an entry that passes may be in here.
    pub(super) fn may_have(&self, hints: &Hints, projects: &[u64]) -> bool {
        let has = |terms: &Vec<u64>| match &self.terms {
            None => true,
            Some(known) => terms.iter().any(|term| known.binary_search(term).is_ok()),
        };
        self.severity >= hints.severity
            && hints.from.is_none_or(|from| self.newest >= from)
            && hints.until.is_none_or(|until| self.oldest <= until)
            && hints.terms.iter().all(has)
            && (projects.is_empty() || has(&projects.to_vec()))
    }
}

/// Appends to an index as entries are appended to a segment.
pub(super) fn append(blocks: &mut Vec<Block>, at: u64, length: u64, entry: &LogEntry) {
    let mut terms = Vec::with_capacity(16);
    entry_terms(entry, &mut terms);
    let open = blocks
        .last_mut()
        .filter(|block| block.end == at && block.end - block.start < BLOCK);
    let block = match open {
        Some(block) => block,
        None => {
            blocks.push(Block::new(at, entry));
            let last = blocks.len() - 1;
            &mut blocks[last]
        }
    };
    block.add(length, entry, &terms);
}
