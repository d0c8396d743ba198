//! What a queue has still to do: a state machine that knows nothing of disks, sockets or clocks.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::bucket::Bucket;
use super::queue::Limits;
use super::stored::{Attempt, StoredFailure};
use crate::log::Position;

/// The most tasks in a queue.
pub(super) const MAX_TASKS: usize = 1_000_000;
/// For how long a name cannot be used again.
const NAME_KEPT: SignedDuration = SignedDuration::from_hours(1);
/// The most names that are kept of tasks that are no more.
const MAX_NAMES: usize = 1_000_000;

/// A task, as far as it has to be at hand. The rest is in the log.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    /// Where it was last written whole.
    pub(super) position: Position,
    /// When it is due.
    pub(super) due: Timestamp,
    /// What happened to it since it was written.
    pub(super) failed: Option<Box<StoredFailure>>,
    pub(super) running: bool,
}

/// All tasks of a queue.
#[derive(Debug)]
pub(super) struct Backlog {
    tasks: BTreeMap<Arc<str>, Waiting>,
    /// Those that are not running, by time.
    due: BTreeSet<(Timestamp, Arc<str>)>,
    /// Names of tasks that are no more, and when they can be used again.
    names: HashMap<Arc<str>, Timestamp>,
    forgotten: BTreeSet<(Timestamp, Arc<str>)>,
    running: usize,
    limits: Limits,
    bucket: Bucket,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Send this one.
    Send(Arc<str>),
    /// Nothing for so long.
    Wait(Duration),
    /// Nothing until something changes.
    Nothing,
}

impl Backlog {
    pub(super) fn new(limits: Limits, now: Duration) -> Self {
        Self {
            tasks: BTreeMap::new(),
            due: BTreeSet::new(),
            names: HashMap::new(),
            forgotten: BTreeSet::new(),
            running: 0,
            bucket: Bucket::new(limits.per_second, limits.burst, now),
            limits,
        }
    }

    pub(super) fn set_limits(&mut self, limits: Limits, now: Duration) {
        self.bucket.change(limits.per_second, limits.burst, now);
        self.limits = limits;
    }

    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }

    pub(super) fn get(&self, id: &str) -> Option<&Waiting> {
        self.tasks.get(id)
    }

    /// Tasks after `id`, by name.
    pub(super) fn after(&self, id: &str) -> impl Iterator<Item = (&Arc<str>, &Waiting)> {
        let begin = if id.is_empty() {
            std::ops::Bound::Unbounded
        } else {
            std::ops::Bound::Excluded(Arc::from(id))
        };
        self.tasks
            .range::<Arc<str>, _>((begin, std::ops::Bound::Unbounded))
    }

    /// Whether a name is in use, or was too lately.
    pub(super) fn is_taken(&self, id: &str, now: Timestamp) -> bool {
        self.tasks.contains_key(id) || self.names.get(id).is_some_and(|until| *until > now)
    }

    /// Takes a task in, or takes note of where it has been written again.
    pub(super) fn add(&mut self, id: &str, position: Position, due: Timestamp) {
        if let Some(known) = self.tasks.get_mut(id) {
            known.position = position;
            known.failed = None;
            return;
        }
        let id: Arc<str> = Arc::from(id);
        let waiting = Waiting {
            position,
            due,
            failed: None,
            running: false,
        };
        self.due.insert((due, Arc::clone(&id)));
        self.tasks.insert(id, waiting);
    }

    /// What is to be sent now, or how long nothing is.
    pub(super) fn next(&mut self, wall: Timestamp, now: Duration) -> Next {
        let Some((due, id)) = self.due.first().cloned() else {
            return Next::Nothing;
        };
        if self.running >= usize::try_from(self.limits.concurrent).unwrap_or(usize::MAX) {
            return Next::Nothing;
        }
        if due > wall {
            return Next::Wait(Duration::try_from(due.duration_since(wall)).unwrap_or_default());
        }
        if let Err(wait) = self.bucket.take(now) {
            return Next::Wait(wait);
        }
        self.start(&id);
        Next::Send(id)
    }

    fn start(&mut self, id: &Arc<str>) {
        if let Some(task) = self.tasks.get_mut(id)
            && !task.running
        {
            task.running = true;
            self.due.remove(&(task.due, Arc::clone(id)));
            self.running += 1;
        }
    }

    /// Lets a task be sent at once, whatever its time. `false` if it is under way, or not there.
    pub(super) fn hasten(&mut self, id: &str, wall: Timestamp) -> bool {
        let Some((id, task)) = self.tasks.get_key_value(id) else {
            return false;
        };
        if task.running {
            return false;
        }
        let id = Arc::clone(id);
        self.reschedule(&id, wall);
        true
    }

    fn reschedule(&mut self, id: &Arc<str>, due: Timestamp) {
        if let Some(task) = self.tasks.get_mut(id) {
            self.due.remove(&(task.due, Arc::clone(id)));
            task.due = due;
            self.due.insert((due, Arc::clone(id)));
        }
    }

    /// A task was sent in vain and is sent again at a time.
    pub(super) fn failed(&mut self, id: &str, failed: StoredFailure, due: Timestamp) {
        let Some((id, _)) = self.tasks.get_key_value(id) else {
            return;
        };
        let id = Arc::clone(id);
        if let Some(task) = self.tasks.get_mut(&id) {
            if task.running {
                task.running = false;
                self.running -= 1;
            }
            task.failed = Some(Box::new(failed));
        }
        self.reschedule(&id, due);
    }

    /// A task is no more. `false` if it was not there.
    pub(super) fn done(&mut self, id: &str, at: Timestamp) -> bool {
        let Some((id, task)) = self.tasks.remove_entry(id) else {
            return false;
        };
        if task.running {
            self.running -= 1;
        } else {
            self.due.remove(&(task.due, Arc::clone(&id)));
        }
        let until = at.checked_add(NAME_KEPT).unwrap_or(at);
        self.names.insert(Arc::clone(&id), until);
        self.forgotten.insert((until, id));
        true
    }

    /// All tasks are no more, and their names are free.
    pub(super) fn purge(&mut self) {
        self.tasks.clear();
        self.due.clear();
        self.running = 0;
    }

    /// Forgets names that can be used again.
    pub(super) fn forget_names(&mut self, now: Timestamp) {
        while let Some((until, id)) = self.forgotten.first().cloned()
            && (until <= now || self.forgotten.len() > MAX_NAMES)
        {
            self.forgotten.remove(&(until, Arc::clone(&id)));
            if self.names.get(&id) == Some(&until) {
                self.names.remove(&id);
            }
        }
    }

    /// Names that cannot be used yet, with the time when their tasks were done.
    pub(super) fn kept_names(&self) -> impl Iterator<Item = (&Arc<str>, Timestamp)> {
        self.forgotten
            .iter()
            .map(|(until, id)| (id, until.checked_sub(NAME_KEPT).unwrap_or(*until)))
    }
}

/// Whether and when a task is sent again that has failed `dispatched` times.
pub(super) fn again(
    limits: &Limits,
    dispatched: u32,
    first: &Attempt,
    now: Timestamp,
) -> Option<Timestamp> {
    let within = limits
        .max_attempts
        .is_none_or(|attempts| dispatched < attempts);
    let since = Duration::try_from(now.duration_since(first.dispatched)).unwrap_or_default();
    // Both limits have to be reached, as documented; without a time, attempts alone count.
    let timed = limits.retry_duration.is_some_and(|most| since < most);
    if !within && !timed {
        return None;
    }
    let wait = SignedDuration::try_from(limits.backoff.wait(dispatched)).unwrap_or_default();
    Some(now.checked_add(wait).unwrap_or(Timestamp::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn limits() -> Limits {
        Limits {
            per_second: 2.0,
            burst: 2,
            concurrent: 3,
            ..Limits::default()
        }
    }

    fn failure(id: &str) -> StoredFailure {
        StoredFailure {
            id: id.to_owned(),
            ..StoredFailure::default()
        }
    }

    #[test]
    fn tasks_leave_in_the_order_of_their_times_and_no_faster_than_allowed() {
        let mut backlog = Backlog::new(limits(), seconds(0));
        for (id, due) in [("late", 9), ("b", 2), ("a", 1), ("c", 3)] {
            backlog.add(id, Position(0), at(due));
        }
        let mut next = |wall, now| backlog.next(at(wall), now);
        assert_eq!(next(0, seconds(0)), Next::Wait(seconds(1)));
        assert_eq!(next(5, seconds(5)), Next::Send("a".into()));
        assert_eq!(next(5, seconds(5)), Next::Send("b".into()));
        assert_eq!(next(5, seconds(5)), Next::Wait(Duration::from_millis(500)));
        assert_eq!(next(6, seconds(6)), Next::Send("c".into()));
        // Three are under way.
        assert_eq!(next(9, seconds(9)), Next::Nothing);
        assert!(backlog.done("b", at(9)));
        assert_eq!(backlog.next(at(9), seconds(9)), Next::Send("late".into()));
    }

    #[test]
    fn names_stay_taken_for_an_hour() {
        let mut backlog = Backlog::new(limits(), seconds(0));
        backlog.add("a", Position(0), at(0));
        assert!(backlog.is_taken("a", at(0)));
        assert!(backlog.done("a", at(10)));
        assert!(!backlog.done("a", at(10)));
        backlog.forget_names(at(3_609));
        assert!(backlog.is_taken("a", at(3_609)));
        backlog.forget_names(at(3_610));
        assert!(!backlog.is_taken("a", at(3_610)));
        assert_eq!(backlog.kept_names().count(), 0);
    }

    #[test]
    fn what_failed_comes_again_at_its_time() {
        let mut backlog = Backlog::new(limits(), seconds(0));
        backlog.add("a", Position(0), at(0));
        assert_eq!(backlog.next(at(0), seconds(0)), Next::Send("a".into()));
        backlog.failed("a", failure("a"), at(7));
        assert_eq!(backlog.next(at(1), seconds(1)), Next::Wait(seconds(6)));
        assert!(backlog.hasten("a", at(1)));
        assert_eq!(backlog.next(at(1), seconds(1)), Next::Send("a".into()));
        assert!(!backlog.hasten("a", at(1)));
        // One that was deleted under way is not there when its answer comes.
        backlog.done("a", at(1));
        backlog.failed("a", failure("a"), at(9));
        assert_eq!(backlog.next(at(99), seconds(99)), Next::Nothing);
        assert_eq!(backlog.len(), 0);
    }

    #[test]
    fn both_limits_of_retries_have_to_be_reached() {
        let first = Attempt {
            scheduled: at(0),
            dispatched: at(0),
            answered: at(0),
            code: 0,
            message: String::new(),
        };
        let limits = Limits {
            max_attempts: Some(3),
            retry_duration: Some(seconds(100)),
            ..Limits::default()
        };
        assert!(again(&limits, 2, &first, at(500)).is_some());
        assert!(again(&limits, 9, &first, at(99)).is_some());
        assert_eq!(again(&limits, 3, &first, at(100)), None);
        let forever = Limits {
            max_attempts: None,
            ..limits
        };
        assert!(again(&forever, 1_000, &first, at(99_999)).is_some());
    }
}
