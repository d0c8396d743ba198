//! What a subscription has still to do: a state machine that knows nothing of disks, sockets or
//! clocks. Time is a duration since some fixed point, passed in, that never goes back.
//!
//! ```text
//!              offer                take                    ack
//!  the topic ---------> ready ----------------> leased ---------------> done
//!   frontier              ^                        | nack, deadline
//!                         |   back-off             v
//!                         +--------- delayed <--- failed ---> forwarding ---> done
//! ```
//!
//! Messages are looked at in the order of the topic; the *frontier* is the first that was not. Of those
//! before it only the ones that are not done are remembered, so that a backlog costs nothing until
//! it is worked on. The laws:
//!
//! 1. A message is with at most one consumer at a time, and is never given out after it was done.
//! 2. Every message that is not done is given out again, sooner or later, until it is done, handed to
//!    the dead-letter topic, or too old.
//! 3. With ordering, a message is given out only when all earlier ones of its key are done, or are
//!    with the same consumer. When one fails, those after it that are with the consumer are taken
//!    back, and come again even if they were said to be done, as Google documents it; but where delivery
//!    is exactly once, done is done. Other keys are not held up.
//! 4. What is remembered is bounded. Of one key it is at most [`KEY_WINDOW`] messages; where the
//!    others begin is remembered instead, and they are read again when there is room.

mod journal;
mod keys;
mod ranges;
mod restore;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::log::Position;
pub(crate) use journal::{Kind as JournalEntry, Saved};
use keys::Keys;
use ranges::Ranges;
pub(crate) use restore::Clocks;

/// The most messages that are remembered of one subscription: given out, or to be given out again.
/// No more are looked at until some are done.
pub const MAX_SEEN: usize = 200_000;
/// The most messages of one ordering key that are remembered.
pub const KEY_WINDOW: usize = 1_000;

/// How a subscription wants its messages.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rules {
    /// How long a consumer may take.
    pub(crate) ack_deadline: Duration,
    /// Whether messages with a key come in order.
    pub(crate) ordered: bool,
    /// Whether only the consumer that has a message now may say that it is done.
    pub(crate) exactly_once: bool,
    /// How long a message that failed waits: at least and at most. Without, not at all.
    pub(crate) retry: Option<(Duration, Duration)>,
    /// After how many attempts a message goes to the dead-letter topic.
    pub(crate) max_attempts: Option<u32>,
}

/// A message of the topic, as it is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offered<'a> {
    pub(crate) position: Position,
    pub(crate) time: Timestamp,
    pub(crate) size: usize,
    /// Empty for none.
    pub(crate) key: &'a str,
}

/// A message that was given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) position: Position,
    /// Of this lease; another one has another.
    pub(crate) number: u64,
    /// The first is 1.
    pub(crate) attempt: u32,
}

/// Whether an acknowledgement, or a longer or shorter deadline, counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It counts.
    Counts,
    /// It is about a lease that is no more. An error only where delivery is exactly once.
    Stale,
}

/// Who takes messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ConsumerId(pub(crate) u64);

/// How much a consumer takes, and how long it may.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Appetite {
    /// Messages that may be with it at a time.
    pub(crate) messages: usize,
    /// Bytes of them; one message is given even if it is larger.
    pub(crate) bytes: usize,
    /// Messages of one ordering key that may be with it at a time.
    pub(crate) of_one_key: usize,
    /// Instead of the subscription's own deadline.
    pub(crate) ack_deadline: Option<Duration>,
}

#[derive(Debug)]
struct Consumer {
    appetite: Appetite,
    /// What is with it.
    messages: usize,
    bytes: usize,
    /// Messages that only it may have, because it has earlier ones of their key.
    ready: BTreeSet<Position>,
}

/// A message that was looked at and is not done.
#[derive(Debug)]
struct Seen {
    time: Timestamp,
    size: usize,
    failures: u32,
    key: Option<Arc<str>>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// May be taken: by the consumer that has earlier ones of its key, or by anybody.
    Ready(Option<ConsumerId>),
    /// Behind an earlier one of its key.
    Waiting,
    /// Not before a time.
    Delayed(Duration),
    Leased {
        until: Duration,
        number: u64,
        consumer: Option<ConsumerId>,
    },
    /// Said to be done while an earlier one of its key is not: it comes again if that one does.
    Acked,
    /// On its way to the dead-letter topic.
    Forwarding,
}

/// What is known, from before this start, of a message that has not been looked at.
#[derive(Clone, Copy, Debug, Default)]
struct Carried {
    failures: u32,
    lease: Option<(u64, Duration)>,
}

/// What a subscription has still to do.
#[derive(Debug)]
pub(crate) struct Backlog {
    rules: Rules,
    frontier: Position,
    /// Done, at or after the frontier.
    done: Ranges,
    carried: BTreeMap<Position, Carried>,
    /// What an earlier start had looked at ends here, and these keys had more than was remembered.
    restored_upto: Position,
    restored_overflow: HashMap<String, Position>,
    seen: BTreeMap<Position, Seen>,
    ready: BTreeSet<Position>,
    delayed: BTreeSet<(Duration, Position)>,
    leases: BTreeSet<(Duration, Position)>,
    keys: Keys,
    consumers: BTreeMap<ConsumerId, Consumer>,
    forwarding: Vec<Position>,
    /// Leases with lower numbers are of earlier starts.
    first_number: u64,
    next_number: u64,
    changes: Unsaved,
}

/// What changed since it was last asked.
#[derive(Debug, Default)]
pub(crate) struct Unsaved {
    pub(crate) done: Vec<Position>,
    pub(crate) failures: Vec<(Position, u32)>,
    pub(crate) leases: Vec<(Position, u64, Duration)>,
}

impl Unsaved {
    pub(crate) fn is_empty(&self) -> bool {
        self.done.is_empty() && self.failures.is_empty() && self.leases.is_empty()
    }
}

impl Backlog {
    /// A subscription that has everything from `frontier` on before it. Leases are numbered from
    /// `first_number`, which must be higher than any number used before.
    pub(crate) fn new(rules: Rules, frontier: Position, first_number: u64) -> Self {
        Self {
            rules,
            frontier,
            done: Ranges::default(),
            carried: BTreeMap::new(),
            restored_upto: frontier,
            restored_overflow: HashMap::new(),
            seen: BTreeMap::new(),
            ready: BTreeSet::new(),
            delayed: BTreeSet::new(),
            leases: BTreeSet::new(),
            keys: Keys::default(),
            consumers: BTreeMap::new(),
            forwarding: Vec::new(),
            first_number,
            next_number: first_number,
            changes: Unsaved::default(),
        }
    }

    /// Changes the rules for what comes from now on.
    pub(crate) fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    // --- Looking at the topic.

    /// Where to read on, having passed over what is known to be done.
    pub(crate) fn read_from(&mut self) -> Position {
        if self.restored_overflow.is_empty()
            && let Some(end) = self.done.end_of(self.frontier)
        {
            self.advance(end);
        }
        self.frontier
    }

    /// Whether what an earlier start had looked at must be looked at again before anybody says anything
    /// of it: which messages belong to one key stands in the messages alone.
    pub(crate) fn is_restoring(&self) -> bool {
        self.rules.ordered && self.frontier < self.restored_upto
    }

    /// How many more messages would be taken at once if they were ready, besides `others` that wait
    /// without being consumers.
    pub(crate) fn wanted(&self, others: usize) -> usize {
        let hunger: usize = self.consumers.values().map(Consumer::room).sum();
        let own: usize = self.consumers.values().map(|c| c.ready.len()).sum();
        (hunger + others)
            .saturating_sub(self.ready.len() + own)
            .min(MAX_SEEN.saturating_sub(self.seen.len()))
    }

    /// Looks at the next message. Says whether it has to be kept at hand, because it will be given out.
    pub(crate) fn offer(&mut self, offered: Offered<'_>, now: Duration) -> bool {
        let position = offered.position;
        let done = self.done.contains(position) && !self.is_restored(position, offered.key);
        self.advance(position.plus(1));
        let carried = self.carried.remove(&position).unwrap_or_default();
        !done && self.track(offered, carried, now)
    }

    /// Passes over everything before `position`: it is not for this subscription.
    pub(crate) fn pass(&mut self, position: Position) {
        self.advance(position);
    }

    fn advance(&mut self, frontier: Position) {
        if frontier <= self.frontier {
            return;
        }
        self.frontier = frontier;
        if !self.done.is_empty() {
            self.done.forget_before(frontier);
        }
        if !self.carried.is_empty() {
            // What is known of the message just passed is asked for next.
            self.carried = self.carried.split_off(&Position(frontier.0 - 1));
        }
        if frontier >= self.restored_upto {
            self.restored_overflow.clear();
        }
    }

    fn is_restored(&self, position: Position, key: &str) -> bool {
        let from = self.restored_overflow.get(key);
        from.is_some_and(|from| position >= *from)
    }

    fn track(&mut self, offered: Offered<'_>, carried: Carried, now: Duration) -> bool {
        let position = offered.position;
        let key = if self.rules.ordered && !offered.key.is_empty() {
            match self.keys.enter(offered.key, position) {
                Some(key) => Some(key),
                None => return false,
            }
        } else {
            None
        };
        let lease = carried.lease.filter(|(_, until)| *until > now);
        let state = match lease {
            Some((number, until)) => State::Leased {
                until,
                number,
                consumer: None,
            },
            None => State::Waiting,
        };
        let seen = Seen {
            time: offered.time,
            size: offered.size,
            failures: carried.failures,
            key: key.clone(),
            state,
        };
        self.seen.insert(position, seen);
        if let Some((_, until)) = lease {
            self.leases.insert((until, position));
            if let Some(key) = &key {
                self.keys.lease(key, position, None);
            }
        } else if key.is_none() {
            self.make_ready(position, None);
        }
        if let Some(key) = key {
            self.settle(&key);
        }
        true
    }

    /// Where to read again for keys that had more messages than were remembered, and have room now.
    pub(crate) fn refill_from(&mut self) -> Option<Position> {
        if self.seen.len() >= MAX_SEEN {
            return None;
        }
        self.keys.refill_from()
    }

    /// Looks again at a message before the frontier. Says whether it is to be kept at hand.
    pub(crate) fn refill(&mut self, offered: Offered<'_>, now: Duration) -> bool {
        let room = self.seen.len() < MAX_SEEN;
        if offered.position >= self.frontier
            || !self.keys.wants_again(offered.key, offered.position, room)
        {
            return false;
        }
        self.track(offered, Carried::default(), now)
    }

    /// All before `next` has been looked at again.
    pub(crate) fn refilled(&mut self, next: Position) {
        self.keys.refilled(next, self.frontier);
    }

    // --- Consumers.

    /// Lets somebody take messages.
    pub(crate) fn join(&mut self, id: ConsumerId, appetite: Appetite) {
        let consumer = Consumer {
            appetite,
            messages: 0,
            bytes: 0,
            ready: BTreeSet::new(),
        };
        self.consumers.insert(id, consumer);
    }

    /// Changes how much a consumer takes.
    pub(crate) fn set_appetite(&mut self, id: ConsumerId, appetite: Appetite) {
        if let Some(consumer) = self.consumers.get_mut(&id) {
            consumer.appetite = appetite;
        }
    }

    /// Somebody takes no more. What is with it stays so until its deadline.
    pub(crate) fn leave(&mut self, id: ConsumerId) {
        let Some(consumer) = self.consumers.remove(&id) else {
            return;
        };
        for position in consumer.ready {
            if let Some(key) = self.seen.get(&position).and_then(|seen| seen.key.clone()) {
                self.settle(&key);
            }
        }
    }

    /// Whether a consumer would get something.
    pub(crate) fn has_for(&self, id: ConsumerId) -> bool {
        self.next_for(id).is_some()
    }

    /// What a consumer would get next, and its size; nothing if it has no room for it.
    fn next_for(&self, id: ConsumerId) -> Option<(Position, usize)> {
        let consumer = self.consumers.get(&id).filter(|c| c.room() > 0)?;
        let own = consumer.ready.first();
        let position = *self.ready.first().into_iter().chain(own).min()?;
        let size = self.seen.get(&position)?.size;
        let crowded = consumer.bytes + size > consumer.appetite.bytes;
        (!crowded || consumer.messages == 0).then_some((position, size))
    }

    /// Gives a consumer messages, at most `messages` and `bytes` of them, but one if there is one
    /// that it may have.
    pub(crate) fn take(
        &mut self,
        id: ConsumerId,
        messages: usize,
        bytes: usize,
        now: Duration,
    ) -> Vec<Given> {
        let mut given = Vec::new();
        let mut total = 0;
        while given.len() < messages {
            let Some((position, size)) = self.next_for(id) else {
                break;
            };
            if total + size > bytes && total > 0 {
                break;
            }
            total += size.max(1);
            given.extend(self.lease(position, id, now));
        }
        given
    }

    fn lease(&mut self, position: Position, id: ConsumerId, now: Duration) -> Option<Given> {
        self.unready(position);
        let number = self.next_number;
        let consumer = self.consumers.get_mut(&id)?;
        let seen = self.seen.get_mut(&position)?;
        let deadline = consumer
            .appetite
            .ack_deadline
            .unwrap_or(self.rules.ack_deadline);
        let until = now + deadline;
        self.next_number += 1;
        consumer.messages += 1;
        consumer.bytes += seen.size;
        seen.state = State::Leased {
            until,
            number,
            consumer: Some(id),
        };
        self.leases.insert((until, position));
        if self.rules.exactly_once {
            self.changes.leases.push((position, number, until));
        }
        let attempt = seen.failures + 1;
        if let Some(key) = seen.key.clone() {
            self.keys.lease(&key, position, Some(id));
            self.settle(&key);
        }
        Some(Given {
            position,
            number,
            attempt,
        })
    }

    // --- What consumers say.

    /// A message is done.
    pub(crate) fn ack(&mut self, position: Position, number: u64, now: Duration) -> Outcome {
        if self.rules.exactly_once && !self.holds(position, number, now) {
            return Outcome::Stale;
        }
        if !self.rules.exactly_once && self.is_behind(position) {
            return self.set_aside(position, number);
        }
        if self.seen.contains_key(&position) {
            self.finish(position);
        } else if position >= self.frontier && !self.done.contains(position) {
            // Given out before this start, and not looked at since.
            let earlier = self.rules.exactly_once || number < self.first_number;
            let keyed = self.rules.ordered && !self.rules.exactly_once;
            if !earlier || keyed || self.done.len() >= MAX_SEEN {
                return Outcome::Stale;
            }
            self.done.insert(position, position.plus(1));
            self.carried.remove(&position);
            self.changes.done.push(position);
        }
        Outcome::Counts
    }

    /// Whether an earlier message of the same key is not done.
    fn is_behind(&self, position: Position) -> bool {
        let key = self.seen.get(&position).and_then(|seen| seen.key.as_ref());
        let first = key.and_then(|key| self.keys.first(key));
        first.is_some_and(|first| first < position)
    }

    /// Keeps in mind that a message is done as soon as those before it are. One that was taken back
    /// meanwhile comes again whatever is said of it.
    fn set_aside(&mut self, position: Position, number: u64) -> Outcome {
        let Some(seen) = self.seen.get(&position) else {
            return Outcome::Counts;
        };
        match seen.state {
            State::Acked => Outcome::Counts,
            State::Leased { number: found, .. } if found == number => {
                self.unlease(position);
                if let Some(seen) = self.seen.get_mut(&position) {
                    seen.state = State::Acked;
                }
                Outcome::Counts
            }
            _ => Outcome::Stale,
        }
    }

    /// Whether this lease of this message is the one in force.
    fn holds(&self, position: Position, number: u64, now: Duration) -> bool {
        let lease = match self.seen.get(&position) {
            Some(seen) => match seen.state {
                State::Leased { until, number, .. } => Some((number, until)),
                _ => None,
            },
            None => self
                .carried
                .get(&position)
                .and_then(|carried| carried.lease),
        };
        lease.is_some_and(|(found, until)| found == number && until > now)
    }

    /// A consumer needs another `deadline` from now for a message; none at all means that it gives
    /// the message back.
    pub(crate) fn modify(
        &mut self,
        position: Position,
        number: u64,
        deadline: Duration,
        now: Duration,
    ) -> Outcome {
        if !self.holds(position, number, now) {
            return Outcome::Stale;
        }
        if deadline.is_zero() {
            if self.seen.contains_key(&position) {
                self.fail(position, now);
            } else if let Some(carried) = self.carried.get_mut(&position) {
                carried.lease = None;
                carried.failures += 1;
                let failures = carried.failures;
                self.changes.failures.push((position, failures));
            }
            return Outcome::Counts;
        }
        let renewed = now + deadline;
        if let Some(seen) = self.seen.get_mut(&position) {
            if let State::Leased { until, .. } = &mut seen.state {
                self.leases.remove(&(*until, position));
                *until = renewed;
                self.leases.insert((renewed, position));
            }
        } else if let Some(carried) = self.carried.get_mut(&position) {
            carried.lease = Some((number, renewed));
        }
        if self.rules.exactly_once {
            self.changes.leases.push((position, number, renewed));
        }
        Outcome::Counts
    }

    /// A message could not be handed over; it goes to somebody else, and nobody has failed.
    pub(crate) fn take_back(&mut self, position: Position, number: u64) {
        let leased = self.seen.get(&position).is_some_and(
            |seen| matches!(seen.state, State::Leased { number: found, .. } if found == number),
        );
        if leased {
            self.unlease(position);
            self.note_lease_end(position);
            self.again(position, State::Waiting);
        }
    }

    /// Lets a lease be known to have ended before its deadline, though nobody has failed: the next start
    /// must not find it in force.
    fn note_lease_end(&mut self, position: Position) {
        if self.rules.exactly_once {
            self.changes.leases.push((position, 0, Duration::ZERO));
        }
    }

    // --- Time.

    /// Ends leases whose deadline has come, and lets go on what has waited long enough.
    pub(crate) fn tick(&mut self, now: Duration) {
        while let Some(&(until, position)) = self.leases.first()
            && until <= now
        {
            self.fail(position, now);
        }
        while let Some(&(until, position)) = self.delayed.first()
            && until <= now
        {
            self.delayed.remove(&(until, position));
            let failures = self.seen.get(&position).map_or(0, |seen| seen.failures);
            if self.is_last(failures) {
                self.forward(position);
            } else {
                self.again(position, State::Waiting);
            }
        }
    }

    /// When [`Backlog::tick`] has something to do next.
    pub(crate) fn wake(&self) -> Option<Duration> {
        let lease = self.leases.first().map(|(until, _)| *until);
        let delayed = self.delayed.first().map(|(until, _)| *until);
        lease.into_iter().chain(delayed).min()
    }

    /// Gives up messages that are older than `time`, unless somebody has them.
    pub(crate) fn forget_older_than(&mut self, time: Timestamp) {
        let old: Vec<Position> = self
            .seen
            .iter()
            .take_while(|(_, seen)| seen.time < time)
            .filter(|(_, seen)| !matches!(seen.state, State::Leased { .. } | State::Forwarding))
            .map(|(position, _)| *position)
            .collect();
        for position in old {
            self.finish(position);
        }
    }

    // --- Failure.

    fn fail(&mut self, position: Position, now: Duration) {
        self.unlease(position);
        let Some(seen) = self.seen.get_mut(&position) else {
            return;
        };
        seen.failures = seen.failures.saturating_add(1);
        let failures = seen.failures;
        self.changes.failures.push((position, failures));
        if self.is_last(failures) {
            self.forward(position);
            return;
        }
        let wait = self.rules.retry.map(|(least, most)| {
            let doubled = 2_u32.saturating_pow(failures - 1);
            least.saturating_mul(doubled).min(most)
        });
        match wait {
            Some(wait) if !wait.is_zero() => {
                self.delayed.insert((now + wait, position));
                self.again(position, State::Delayed(now + wait));
            }
            _ => self.again(position, State::Waiting),
        }
    }

    fn is_last(&self, failures: u32) -> bool {
        self.rules.max_attempts.is_some_and(|most| failures >= most)
    }

    fn forward(&mut self, position: Position) {
        self.forwarding.push(position);
        self.again(position, State::Forwarding);
    }

    /// Messages that have failed too often: to be published to the dead-letter topic, and then
    /// told to [`Backlog::forwarded`].
    pub(crate) fn take_forwarding(&mut self) -> Vec<(Position, u32)> {
        let positions = mem::take(&mut self.forwarding);
        positions
            .into_iter()
            .filter_map(|position| Some((position, self.seen.get(&position)?.failures)))
            .collect()
    }

    /// A message is in the dead-letter topic, or could not be put there and is tried again later.
    pub(crate) fn forwarded(&mut self, position: Position, done: bool, retry_at: Duration) {
        let forwarding = self
            .seen
            .get(&position)
            .is_some_and(|seen| seen.state == State::Forwarding);
        if !forwarding {
            return;
        }
        if done {
            self.finish(position);
        } else {
            self.delayed.insert((retry_at, position));
            self.again(position, State::Delayed(retry_at));
        }
    }

    // --- Moving a message from state to state.

    /// A message that is with nobody goes to `state`. Later ones of its key are taken back.
    fn again(&mut self, position: Position, state: State) {
        let Some(seen) = self.seen.get_mut(&position) else {
            return;
        };
        seen.state = state;
        let Some(key) = seen.key.clone() else {
            if state == State::Waiting {
                self.make_ready(position, None);
            }
            return;
        };
        for later in self.keys.give_back(&key, position) {
            self.unlease(later);
            self.note_lease_end(later);
            if let Some(seen) = self.seen.get_mut(&later) {
                seen.state = State::Waiting;
            }
        }
        self.settle(&key);
    }

    /// Decides whether the first waiting message of a key may be taken, and by whom.
    fn settle(&mut self, key: &Arc<str>) {
        if let Some(position) = self.keys.offered(key) {
            self.unready(position);
        }
        let Some(head) = self.keys.head(key) else {
            self.keys.remove_if_empty(key);
            return;
        };
        let waiting = self
            .seen
            .get(&head.position)
            .is_some_and(|seen| seen.state == State::Waiting);
        if !waiting {
            return;
        }
        match head.owner {
            None if head.leased == 0 => self.make_ready(head.position, None),
            Some(owner) => match self.consumers.get(&owner) {
                Some(consumer) if head.leased < consumer.appetite.of_one_key => {
                    self.make_ready(head.position, Some(owner));
                }
                _ => return,
            },
            None => return,
        }
        self.keys.set_offered(key, head.position);
    }

    fn make_ready(&mut self, position: Position, only: Option<ConsumerId>) {
        if let Some(seen) = self.seen.get_mut(&position) {
            seen.state = State::Ready(only);
            self.ready_for(only).map(|ready| ready.insert(position));
        }
    }

    fn unready(&mut self, position: Position) {
        if let Some(seen) = self.seen.get_mut(&position)
            && let State::Ready(only) = seen.state
        {
            seen.state = State::Waiting;
            self.ready_for(only).map(|ready| ready.remove(&position));
        }
    }

    fn ready_for(&mut self, only: Option<ConsumerId>) -> Option<&mut BTreeSet<Position>> {
        match only {
            None => Some(&mut self.ready),
            Some(id) => Some(&mut self.consumers.get_mut(&id)?.ready),
        }
    }

    /// Nobody has the message any longer.
    fn unlease(&mut self, position: Position) {
        let Some(seen) = self.seen.get(&position) else {
            return;
        };
        if let State::Leased {
            until, consumer, ..
        } = seen.state
        {
            self.leases.remove(&(until, position));
            if let Some(consumer) = consumer.and_then(|id| self.consumers.get_mut(&id)) {
                consumer.messages -= 1;
                consumer.bytes -= seen.size;
            }
        }
    }

    /// A message is done, and those after it of its key that waited for that alone.
    fn finish(&mut self, position: Position) {
        let Some(key) = self.finish_one(position) else {
            return;
        };
        while let Some(next) = self.keys.first(&key)
            && self
                .seen
                .get(&next)
                .is_some_and(|seen| seen.state == State::Acked)
        {
            self.finish_one(next);
        }
        self.settle(&key);
    }

    /// A message is done. Says what its key is.
    fn finish_one(&mut self, position: Position) -> Option<Arc<str>> {
        self.unlease(position);
        self.unready(position);
        let seen = self.seen.remove(&position)?;
        if let State::Delayed(until) = seen.state {
            self.delayed.remove(&(until, position));
        }
        self.changes.done.push(position);
        if let Some(key) = &seen.key {
            self.keys.finish(key, position);
        }
        seen.key
    }

    // --- What has to be written down.

    /// What changed since this was last asked.
    pub(crate) fn take_changes(&mut self) -> Unsaved {
        mem::take(&mut self.changes)
    }

    /// Whether anything changed.
    pub(crate) fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// How many messages are not done, of those looked at.
    #[cfg(test)]
    fn seen(&self) -> usize {
        self.seen.len()
    }

    /// How many may be taken by whoever comes.
    pub(crate) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// When a message was published, of those that are looked at and not done.
    pub(crate) fn time(&self, position: Position) -> Option<Timestamp> {
        self.seen.get(&position).map(|seen| seen.time)
    }

    /// How much a consumer takes.
    pub(crate) fn appetite(&self, id: ConsumerId) -> Option<Appetite> {
        self.consumers.get(&id).map(|consumer| consumer.appetite)
    }

    /// The number that the next lease gets.
    pub(crate) fn next_number(&self) -> u64 {
        self.next_number
    }

    /// Everything before this position is done.
    pub(crate) fn done_before(&self) -> Position {
        let seen = self.seen.first_key_value().map(|(position, _)| *position);
        seen.into_iter()
            .chain(self.keys.overflow_from())
            .chain([self.frontier])
            .min()
            .unwrap_or(self.frontier)
    }
}

impl Consumer {
    fn room(&self) -> usize {
        if self.bytes >= self.appetite.bytes && self.messages > 0 {
            return 0;
        }
        self.appetite.messages.saturating_sub(self.messages)
    }
}
