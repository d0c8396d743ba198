//! Answers kept for as long as they say, a bounded number of them.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::message;

/// The most answers kept; the oldest goes first.
const ENTRIES: usize = 4096;
/// Answers longer than this are not worth keeping.
const LARGEST: usize = 4096;
/// However long an answer says it holds, look again after this: people change DNS and expect to see it.
const LONGEST: u32 = 300;

#[derive(Debug, Default)]
pub(super) struct Cache {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// By the query without its id: the flags, the question and the extensions all have a say in the answer.
    answers: HashMap<Vec<u8>, Answer>,
    order: VecDeque<Vec<u8>>,
}

#[derive(Debug)]
struct Answer {
    message: Vec<u8>,
    since: Instant,
    lifetime: Duration,
}

impl Cache {
    /// The answer to this very query, with its id and with the time it was kept taken off.
    pub(super) fn get(&self, query: &[u8]) -> Option<Vec<u8>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = kept.answers.get(query.get(2..)?)?;
        let age = answer.since.elapsed();
        if age >= answer.lifetime {
            return None;
        }
        let mut reply = answer.message.clone();
        drop(kept);
        reply.get_mut(..2)?.copy_from_slice(query.get(..2)?);
        message::age(&mut reply, u32::try_from(age.as_secs()).unwrap_or(u32::MAX));
        Some(reply)
    }

    pub(super) fn put(&self, query: &[u8], reply: &[u8]) {
        let (Some(key), Some(seconds)) = (query.get(2..), message::lifetime(reply)) else {
            return;
        };
        if reply.len() > LARGEST || key.len() > 512 {
            return;
        }
        let lifetime = Duration::from_secs(seconds.min(LONGEST).into());
        let answer = Answer {
            message: reply.to_vec(),
            since: Instant::now(),
            lifetime,
        };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.answers.insert(key.to_vec(), answer).is_none() {
            kept.order.push_back(key.to_vec());
        }
        while kept.order.len() > ENTRIES {
            if let Some(oldest) = kept.order.pop_front() {
                kept.answers.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::{A, answer, query, question};
    use super::*;

    fn reply(query: &[u8], ttl: u32) -> Vec<u8> {
        answer(
            query,
            question(query).unwrap().unwrap().bytes,
            0,
            Some(&[1, 2, 3, 4]),
            ttl,
        )
    }

    #[tokio::test(start_paused = true)]
    async fn answers_age_and_end() {
        let cache = Cache::default();
        let (first, again) = (query(1, "a.example", A), query(2, "a.example", A));
        cache.put(&first, &reply(&first, 30));
        tokio::time::advance(Duration::from_secs(10)).await;
        let got = cache.get(&again).unwrap();
        assert_eq!(got[..2], again[..2], "the id of who asks now");
        assert_eq!(message::lifetime(&got), Some(20));
        tokio::time::advance(Duration::from_secs(20)).await;
        assert!(cache.get(&again).is_none());
    }

    #[tokio::test]
    async fn the_oldest_make_room() {
        let cache = Cache::default();
        for i in 0..ENTRIES + 10 {
            let query = query(0, &format!("n{i}.example"), A);
            cache.put(&query, &reply(&query, 60));
        }
        assert_eq!(cache.kept.lock().unwrap().answers.len(), ENTRIES);
        assert!(cache.get(&query(0, "n0.example", A)).is_none());
        assert!(cache.get(&query(0, "n20.example", A)).is_some());
    }
}
