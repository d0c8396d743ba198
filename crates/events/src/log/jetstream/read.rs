//! Reading a stream: blocks, one after the other, and the records in them.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;

use super::super::{Chunk, Limit, LogError, Position, Record};
use super::Shared;
use super::block::{self, Head};
use super::stream::{PER_BLOCK, Stream, position};

/// Blocks that are asked for at a time.
const AHEAD: usize = 8;

impl Shared {
    /// See [`super::super::MessageLog::read`].
    pub(super) async fn read(
        &self,
        stream: &Arc<Stream>,
        from: Position,
        limit: Limit,
    ) -> Result<Chunk, LogError> {
        let end = stream.end();
        let mut reading = Reading {
            from,
            limit,
            bytes: 0,
            chunk: Chunk {
                records: Vec::new(),
                next: from.max(position(1)),
            },
            parts: None,
        };
        let mut sequence = (from.0 / PER_BLOCK).max(stream.first());
        while sequence < end {
            let gone = {
                let ahead = stream::iter(sequence..end)
                    .map(|sequence| async move { (sequence, self.block(stream, sequence).await) })
                    .buffered(AHEAD);
                tokio::pin!(ahead);
                let mut gone = None;
                while let Some((at, block)) = ahead.next().await {
                    let Some(block) = block? else {
                        gone = Some(at);
                        break;
                    };
                    if !reading.take(at, block)? {
                        return Ok(reading.chunk);
                    }
                }
                gone
            };
            // Only from the front can a block be gone: it has been trimmed meanwhile.
            let Some(gone) = gone else {
                break;
            };
            let extent = self.server.extent(&stream.on_server).await?;
            stream.begins_at(extent.ok_or_else(|| stream.missing())?.first);
            sequence = stream.first().max(gone + 1);
        }
        reading.chunk.next = reading.chunk.next.max(position(end));
        Ok(reading.chunk)
    }

    /// The first sequence whose block was written at this time or later.
    pub(super) async fn sequence_at(
        &self,
        stream: &Arc<Stream>,
        time: Timestamp,
    ) -> Result<u64, LogError> {
        let mut first = stream.first();
        let mut end = stream.end();
        while first < end {
            let middle = first + (end - first) / 2;
            let earlier = match self.block(stream, middle).await? {
                Some(block) => block::open(block)?.0.time < time,
                None => true,
            };
            if earlier {
                first = middle + 1;
            } else {
                end = middle;
            }
        }
        Ok(end)
    }

    /// A block, if it is still there.
    async fn block(&self, stream: &Stream, sequence: u64) -> Result<Option<Bytes>, LogError> {
        if let Some(block) = self.cache.get(stream.id, sequence) {
            return Ok(Some(block));
        }
        let block = self.server.message(&stream.on_server, sequence).await?;
        if let Some(block) = &block {
            self.cache.put(stream.id, sequence, block.clone());
        }
        Ok(block)
    }
}

/// What has been read so far.
struct Reading {
    from: Position,
    limit: Limit,
    bytes: usize,
    chunk: Chunk,
    /// The parts of a large append, of which more come.
    parts: Option<Parts>,
}

struct Parts {
    /// Where the first of them is.
    sequence: u64,
    /// The head of the last.
    head: Head,
    body: BytesMut,
}

impl Reading {
    /// Takes the next block. Returns whether there is room for more.
    fn take(&mut self, sequence: u64, block: Bytes) -> Result<bool, LogError> {
        let (head, body) = block::open(block)?;
        if head.parts == 1 {
            self.parts = None;
            return self.records(sequence, head.time, block::records(body)?, sequence);
        }
        if head.part == 0 {
            let parts = Parts {
                sequence,
                head,
                body: body.into(),
            };
            self.parts = Some(parts);
            return Ok(true);
        }
        // One whose beginning is not there belongs to an append that was never whole, or to one before
        // the position asked for.
        let Some(mut parts) = self.parts.take() else {
            return Ok(true);
        };
        let follows = head.writer == parts.head.writer && head.number == parts.head.number + 1;
        if !follows {
            return Ok(true);
        }
        parts.head = head;
        parts.body.extend_from_slice(&body);
        if head.part + 1 < head.parts {
            self.parts = Some(parts);
            return Ok(true);
        }
        let records = block::records(parts.body.freeze())?;
        self.records(parts.sequence, head.time, records, sequence)
    }

    /// Takes the records of an append, or of several, that begin at a sequence and end at `last`.
    fn records(
        &mut self,
        sequence: u64,
        time: Timestamp,
        records: Vec<Bytes>,
        last: u64,
    ) -> Result<bool, LogError> {
        for (index, body) in (0..).zip(records) {
            let position = position(sequence).plus(index);
            if position < self.from {
                continue;
            }
            let count = self.chunk.records.len();
            let full = count >= self.limit.records
                || self.bytes.saturating_add(body.len()) > self.limit.bytes;
            if full && count > 0 {
                return Ok(false);
            }
            self.bytes += body.len();
            self.chunk.next = position.plus(1);
            self.chunk.records.push(Record {
                position,
                time,
                body,
            });
        }
        self.chunk.next = self.chunk.next.max(position(last + 1));
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream as a list of blocks, the first at sequence 1.
    struct Blocks(Vec<Bytes>);

    impl Blocks {
        fn put(&mut self, writer: u64, (part, parts): (u16, u16), body: &[u8]) {
            let head = Head {
                writer,
                number: self.0.len() as u64,
                time: Timestamp::UNIX_EPOCH,
                part,
                parts,
            };
            self.0.push(block::seal(head, body));
        }

        /// One append in so many parts, of which the first `sent` arrive.
        fn append(&mut self, writer: u64, records: &[&str], parts: u16, sent: u16) {
            let records: Vec<Bytes> = records
                .iter()
                .map(|r| Bytes::from((*r).to_owned()))
                .collect();
            let body = block::body(records.iter());
            let size = body.len().div_ceil(usize::from(parts));
            for (part, slice) in (0..sent).zip(body.chunks(size)) {
                self.put(writer, (part, parts), slice);
            }
        }

        fn read(&self, from: u64, records: usize) -> (Vec<(u64, String)>, u64) {
            let mut reading = Reading {
                from: Position(from),
                limit: Limit {
                    records,
                    bytes: usize::MAX,
                },
                bytes: 0,
                chunk: Chunk {
                    records: Vec::new(),
                    next: Position(from),
                },
                parts: None,
            };
            let first = from / PER_BLOCK;
            for (sequence, block) in (1..).zip(&self.0).filter(|(at, _)| *at >= first) {
                if !reading.take(sequence, block.clone()).unwrap() {
                    break;
                }
            }
            let text = |r: &Record| String::from_utf8(r.body.to_vec()).unwrap();
            let found = reading.chunk.records.iter();
            (
                found.map(|r| (r.position.0, text(r))).collect(),
                reading.chunk.next.0,
            )
        }

        fn texts(&self, from: u64) -> Vec<String> {
            let (found, _) = self.read(from, usize::MAX);
            found.into_iter().map(|(_, text)| text).collect()
        }
    }

    #[test]
    fn an_append_in_parts_is_one_and_its_positions_are_those_of_the_first() {
        let mut blocks = Blocks(Vec::new());
        blocks.append(7, &["small"], 1, 1);
        blocks.append(7, &["large", "and larger"], 3, 3);
        blocks.append(7, &["last"], 1, 1);
        let (found, next) = blocks.read(0, usize::MAX);
        let wanted = [
            (4_096, "small"),
            (8_192, "large"),
            (8_193, "and larger"),
            (20_480, "last"),
        ];
        assert_eq!(found, wanted.map(|(at, text)| (at, text.to_owned())));
        assert_eq!(next, 6 * PER_BLOCK);
        // In pieces, each from where the one before ended.
        let (first, next) = blocks.read(0, 2);
        assert_eq!((first.len(), next), (2, 8_193));
        assert_eq!(blocks.texts(next), ["and larger", "last"]);
        // From the middle of its parts.
        assert_eq!(blocks.texts(3 * PER_BLOCK), ["last"]);
    }

    #[test]
    fn parts_whose_writer_died_are_no_append() {
        let mut blocks = Blocks(Vec::new());
        blocks.append(7, &["never whole"], 3, 2);
        blocks.append(8, &["next"], 1, 1);
        blocks.append(8, &["never whole either"], 3, 1);
        blocks.append(9, &["whole", "in parts"], 3, 3);
        blocks.append(9, &["again not"], 2, 1);
        // The second part of something whose first is another's.
        blocks.put(10, (1, 2), b"rubbish");
        blocks.append(11, &["end"], 1, 1);
        assert_eq!(blocks.texts(0), ["next", "whole", "in parts", "end"]);
    }
}
