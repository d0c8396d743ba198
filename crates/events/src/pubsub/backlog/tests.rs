//! Stories on virtual time, and a property against the plainest model there is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;

use super::journal::Changes;
use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn rules() -> Rules {
    Rules {
        ack_deadline: 10 * SECOND,
        ordered: false,
        exactly_once: false,
        retry: None,
        max_attempts: None,
    }
}

fn ordered() -> Rules {
    Rules {
        ordered: true,
        ..rules()
    }
}

/// A topic whose messages have keys, a subscription, and a clock.
struct World {
    topic: Vec<String>,
    backlog: Backlog,
    now: Duration,
    next_consumer: u64,
}

const MANY: Appetite = Appetite {
    messages: usize::MAX,
    bytes: usize::MAX,
    of_one_key: usize::MAX,
    ack_deadline: None,
};
const ANN: ConsumerId = ConsumerId(1);
const BOB: ConsumerId = ConsumerId(2);

impl World {
    fn new(rules: Rules) -> Self {
        Self {
            topic: Vec::new(),
            backlog: Backlog::new(rules, Position(0), 1),
            now: Duration::ZERO,
            next_consumer: 100,
        }
    }

    /// Somebody new.
    fn join(&mut self) -> ConsumerId {
        let id = ConsumerId(self.next_consumer);
        self.next_consumer += 1;
        self.backlog.join(id, MANY);
        id
    }

    fn publish(&mut self, keys: &[&str]) {
        self.topic.extend(keys.iter().map(|key| (*key).to_owned()));
        self.read();
    }

    fn offered(topic: &[String], n: usize) -> Offered<'_> {
        Offered {
            position: Position(n as u64),
            time: Timestamp::from_second(i64::try_from(n).unwrap()).unwrap(),
            size: 10,
            key: &topic[n],
        }
    }

    /// Reads the topic as the shell does: on at the frontier, and again for keys that overflowed.
    fn read(&mut self) {
        loop {
            let from = usize::try_from(self.backlog.read_from().0).unwrap();
            if from >= self.topic.len() || self.backlog.seen() >= MAX_SEEN {
                break;
            }
            self.backlog
                .offer(Self::offered(&self.topic, from), self.now);
        }
        while let Some(from) = self.backlog.refill_from() {
            let from = usize::try_from(from.0).unwrap();
            let end = self.topic.len().min(from + 50);
            for n in from..end {
                self.backlog.refill(Self::offered(&self.topic, n), self.now);
            }
            self.backlog.refilled(Position(end as u64));
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.backlog.tick(self.now);
    }

    fn take(&mut self, id: ConsumerId, messages: usize) -> Vec<Given> {
        self.read();
        self.backlog.take(id, messages, usize::MAX, self.now)
    }

    /// A pull: somebody who comes once.
    fn pull(&mut self, messages: usize) -> Vec<Given> {
        let id = self.join();
        let given = self.take(id, messages);
        self.backlog.leave(id);
        given
    }

    fn ack(&mut self, given: &Given) -> Outcome {
        self.backlog.ack(given.position, given.number, self.now)
    }

    fn nack(&mut self, given: &Given) -> Outcome {
        let zero = Duration::ZERO;
        self.backlog
            .modify(given.position, given.number, zero, self.now)
    }

    /// `kill -9`, and a start that takes `downtime`.
    fn restart(&mut self, saved: &Saved, changes: &[Changes], downtime: Duration) {
        let rules = self.backlog.rules.clone();
        // The clock that never goes back begins anew with each start.
        let wall = self.clocks().wall + i64::try_from(downtime.as_micros()).unwrap();
        let now = Duration::from_secs(3);
        let clocks = Clocks { wall, now };
        let mut backlog = Backlog::restore(rules, saved, clocks, self.backlog.next_number);
        for changes in changes {
            backlog.replay(changes, clocks);
        }
        self.backlog = backlog;
        self.now = now;
        if self.backlog.is_restoring() {
            self.read();
        }
    }

    fn clocks(&self) -> Clocks {
        Clocks {
            wall: i64::try_from(self.now.as_micros()).unwrap() + 1_000_000,
            now: self.now,
        }
    }
}

fn places(given: &[Given]) -> Vec<u64> {
    given.iter().map(|g| g.position.0).collect()
}

#[test]
fn what_is_acked_is_done_and_what_is_not_comes_again() {
    let mut world = World::new(rules());
    world.publish(&["", "", ""]);
    let first = world.pull(2);
    assert_eq!(places(&first), [0, 1]);
    assert_eq!(world.ack(&first[0]), Outcome::Counts);
    assert_eq!(places(&world.pull(10)), [2]);
    assert!(world.pull(10).is_empty());
    world.pass(10 * SECOND);
    let again = world.pull(10);
    assert_eq!(places(&again), [1, 2]);
    assert_eq!(again[0].attempt, 2);
    // An ack that comes late counts, but a late nack takes nothing from whoever has it now.
    assert_eq!(world.nack(&first[1]), Outcome::Stale);
    assert_eq!(world.ack(&first[1]), Outcome::Counts);
    assert_eq!(world.ack(&again[1]), Outcome::Counts);
    world.pass(100 * SECOND);
    assert!(world.pull(10).is_empty());
    assert_eq!(world.backlog.done_before(), Position(3));
}

#[test]
fn a_lease_can_be_made_longer_and_given_back() {
    let mut world = World::new(rules());
    world.publish(&["", ""]);
    let given = world.pull(2);
    let longer = 60 * SECOND;
    world
        .backlog
        .modify(given[0].position, given[0].number, longer, world.now);
    world.nack(&given[1]);
    assert_eq!(places(&world.pull(10)), [1]);
    world.pass(59 * SECOND);
    assert_eq!(places(&world.pull(10)), [1]);
    world.pass(SECOND);
    assert_eq!(places(&world.pull(10)), [0]);
}

#[test]
fn failures_wait_longer_each_time_up_to_a_bound() {
    let retry = Some((10 * SECOND, 35 * SECOND));
    let mut world = World::new(Rules { retry, ..rules() });
    world.publish(&[""]);
    for wait in [10, 20, 35, 35] {
        let given = world.pull(1);
        world.nack(&given[0]);
        world.pass((wait - 1) * SECOND);
        assert!(world.pull(1).is_empty(), "it came before {wait} s");
        world.pass(SECOND);
        assert!(world.backlog.ready() > 0);
    }
}

#[test]
fn a_poison_message_goes_to_the_dead_letters() {
    let max_attempts = Some(3);
    let mut world = World::new(Rules {
        max_attempts,
        ..rules()
    });
    world.publish(&["", ""]);
    for attempt in 1..=3 {
        let given = world.pull(1);
        assert_eq!((given[0].position.0, given[0].attempt), (0, attempt));
        world.nack(&given[0]);
    }
    assert_eq!(world.backlog.take_forwarding(), [(Position(0), 3)]);
    assert_eq!(places(&world.pull(10)), [1]);
    // The dead-letter topic was not there; later it is.
    let later = world.now + 5 * SECOND;
    world.backlog.forwarded(Position(0), false, later);
    assert!(world.backlog.take_forwarding().is_empty());
    world.pass(5 * SECOND);
    assert_eq!(world.backlog.take_forwarding(), [(Position(0), 3)]);
    world.backlog.forwarded(Position(0), true, later);
    assert_eq!(world.backlog.done_before(), Position(1));
}

#[test]
fn a_failing_head_holds_up_its_key_and_no_other() {
    let retry = Some((10 * SECOND, 10 * SECOND));
    let mut world = World::new(Rules { retry, ..ordered() });
    world.publish(&["a", "b", "a", "b", "", "a"]);
    let given = world.pull(2);
    assert_eq!(places(&given), [0, 1]);
    world.nack(&given[0]);
    world.ack(&given[1]);
    assert_eq!(places(&world.pull(10)), [3, 4]);
    world.pass(10 * SECOND);
    let given = world.pull(10);
    assert_eq!(places(&given)[..3], [0, 2, 5]);
}

#[test]
fn one_consumer_at_a_time_has_a_key() {
    let mut world = World::new(ordered());
    world.backlog.join(ANN, MANY);
    world.backlog.join(BOB, MANY);
    world.publish(&["a", "a", "b", "a"]);
    let ann = world.take(ANN, 1);
    assert_eq!(places(&ann), [0]);
    assert_eq!(places(&world.take(BOB, 10)), [2]);
    // Ann gets on with hers without acknowledging each.
    let more = world.take(ANN, 10);
    assert_eq!(places(&more), [1, 3]);
    // The middle one fails: it and the one after it are taken back, the first stays with her.
    world.nack(&more[0]);
    assert_eq!(world.nack(&more[1]), Outcome::Stale);
    assert!(world.take(BOB, 10).is_empty());
    assert_eq!(places(&world.take(ANN, 10)), [1, 3]);
    // She goes: nobody gets the key until her leases have ended.
    world.backlog.leave(ANN);
    assert!(world.take(BOB, 10).is_empty());
    world.ack(&ann[0]);
    assert!(world.take(BOB, 10).is_empty());
    world.pass(10 * SECOND);
    assert_eq!(places(&world.take(BOB, 10))[..2], [1, 2]);
}

#[test]
fn a_consumer_may_want_one_message_of_a_key_at_a_time() {
    let mut world = World::new(ordered());
    world.backlog.join(
        ANN,
        Appetite {
            of_one_key: 1,
            ..MANY
        },
    );
    world.publish(&["a", "a", "b", "", ""]);
    let given = world.take(ANN, 10);
    assert_eq!(places(&given), [0, 2, 3, 4]);
    assert!(world.take(ANN, 10).is_empty());
    world.ack(&given[0]);
    assert_eq!(places(&world.take(ANN, 10)), [1]);
}

#[test]
fn what_comes_after_a_failure_comes_again_even_if_it_was_said_to_be_done() {
    let mut world = World::new(ordered());
    world.backlog.join(ANN, MANY);
    world.publish(&["a", "a", "a", "b"]);
    let given = world.take(ANN, 10);
    assert_eq!(world.ack(&given[1]), Outcome::Counts);
    assert_eq!(world.ack(&given[3]), Outcome::Counts);
    assert_eq!(world.backlog.done_before(), Position(0));
    assert_eq!(world.nack(&given[0]), Outcome::Counts);
    assert_eq!(world.ack(&given[2]), Outcome::Stale);
    let again = world.take(ANN, 10);
    assert_eq!(places(&again), [0, 1, 2]);
    // The other way round they are done as soon as the first is.
    assert_eq!(world.ack(&again[2]), Outcome::Counts);
    assert_eq!(world.ack(&again[1]), Outcome::Counts);
    assert!(world.take(ANN, 10).is_empty());
    assert_eq!(world.ack(&again[0]), Outcome::Counts);
    assert_eq!(world.backlog.done_before(), Position(4));
}

#[test]
fn consumers_get_no_more_than_they_take() {
    let mut world = World::new(rules());
    world.publish(&[""; 10]);
    let appetite = Appetite {
        messages: 3,
        bytes: 25,
        ..MANY
    };
    world.backlog.join(ANN, appetite);
    let given = world.take(ANN, 10);
    assert_eq!(given.len(), 2, "of 10 bytes each");
    assert!(!world.backlog.has_for(ANN));
    world.ack(&given[0]);
    assert_eq!(world.take(ANN, 10).len(), 1);
    // One that is larger than all it takes is given alone.
    world.backlog.set_appetite(
        ANN,
        Appetite {
            bytes: 1,
            ..appetite
        },
    );
    assert!(world.take(ANN, 10).is_empty());
    world.pass(10 * SECOND);
    assert_eq!(world.take(ANN, 10).len(), 1);
}

#[test]
fn exactly_once_counts_only_the_lease_in_force() {
    let exactly_once = true;
    let mut world = World::new(Rules {
        exactly_once,
        ..rules()
    });
    world.publish(&["", ""]);
    let given = world.pull(2);
    world.pass(10 * SECOND);
    assert_eq!(world.ack(&given[0]), Outcome::Stale);
    let again = world.pull(2);
    assert_eq!(world.ack(&given[0]), Outcome::Stale);
    assert_eq!(world.ack(&again[0]), Outcome::Counts);
    assert_eq!(world.ack(&again[0]), Outcome::Stale);
}

#[test]
fn exactly_once_holds_over_a_restart() {
    let exactly_once = true;
    let mut world = World::new(Rules {
        exactly_once,
        ..rules()
    });
    let saved = world.backlog.save(world.clocks());
    world.publish(&["", "", ""]);
    let given = world.pull(3);
    world.ack(&given[0]);
    let changes = world.backlog.take_changes().to_changes(world.clocks());
    world.restart(&saved, &[changes], 4 * SECOND);
    // The other two are still with whoever had them.
    assert!(world.pull(10).is_empty());
    assert_eq!(world.ack(&given[1]), Outcome::Counts);
    assert_eq!(world.ack(&given[0]), Outcome::Stale);
    world.pass(5 * SECOND);
    assert!(world.pull(10).is_empty());
    world.pass(SECOND);
    assert_eq!(places(&world.pull(10)), [2]);
    assert_eq!(world.ack(&given[2]), Outcome::Stale);
}

#[test]
fn what_is_old_is_given_up() {
    let mut world = World::new(rules());
    world.publish(&["", "", "", ""]);
    let given = world.pull(1);
    world
        .backlog
        .forget_older_than(Timestamp::from_second(2).unwrap());
    assert_eq!(places(&world.pull(10)), [2, 3]);
    assert_eq!(world.ack(&given[0]), Outcome::Counts);
    assert_eq!(world.backlog.done_before(), Position(2));
}

#[test]
fn a_key_with_very_many_messages_is_not_remembered_whole() {
    let mut world = World::new(ordered());
    let mut keys = vec!["hot"; 5 * KEY_WINDOW];
    keys.extend(["cold"; 3]);
    world.publish(&keys);
    assert_eq!(world.backlog.seen(), KEY_WINDOW + 3);
    world.backlog.join(ANN, MANY);
    let mut places = Vec::new();
    while let Some(given) = world.take(ANN, 1).first().copied() {
        places.push(given.position.0);
        world.ack(&given);
        assert!(world.backlog.seen() <= KEY_WINDOW + 3);
    }
    let wanted: Vec<u64> = (0..keys.len() as u64).collect();
    assert_eq!(places, wanted);
}

#[test]
fn a_backlog_of_blocked_keys_survives_a_restart() {
    let mut world = World::new(ordered());
    let keys: Vec<&str> = (0..3 * KEY_WINDOW)
        .map(|n| if n % 3 == 0 { "x" } else { "hot" })
        .collect();
    world.publish(&keys);
    let mut done = BTreeSet::new();
    for round in 0..40 {
        let mut failed = BTreeSet::new();
        for given in world.pull(100) {
            let key = keys[usize::try_from(given.position.0).unwrap()];
            if (given.position.0 + round) % 31 == 0 {
                failed.insert(key);
            }
            // What comes after a failure comes again, whatever is said of it.
            if !failed.contains(key) {
                assert_eq!(world.ack(&given), Outcome::Counts);
                done.insert(given.position.0);
            }
        }
        let saved = world.backlog.save(world.clocks());
        world.restart(&saved, &[], SECOND);
    }
    for _ in 0..200 {
        for given in world.pull(1_000) {
            assert!(done.insert(given.position.0), "{given:?} was done");
            world.ack(&given);
        }
    }
    assert_eq!(done.len(), keys.len());
    assert_eq!(world.backlog.done_before(), Position(keys.len() as u64));
}

// --- Against a model.

#[derive(Clone, Debug)]
enum Act {
    Publish(Vec<u8>),
    Take { who: u8, messages: usize },
    Ack(prop::sample::Index),
    Nack(prop::sample::Index),
    Extend(prop::sample::Index),
    Pass(u64),
    Leave(u8),
    Forward(bool),
    Save,
    Restart(u64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let at = any::<prop::sample::Index>;
    let act = prop_oneof![
        3 => prop::collection::vec(0..4_u8, 1..8).prop_map(Act::Publish),
        5 => (0..3_u8, 1..6_usize).prop_map(|(who, messages)| Act::Take { who, messages }),
        4 => at().prop_map(Act::Ack),
        2 => at().prop_map(Act::Nack),
        1 => at().prop_map(Act::Extend),
        2 => (1..8_u64).prop_map(Act::Pass),
        1 => (1..3_u8).prop_map(Act::Leave),
        1 => any::<bool>().prop_map(Act::Forward),
        1 => Just(Act::Save),
        1 => (0..12_u64).prop_map(Act::Restart),
    ];
    prop::collection::vec(act, 1..150)
}

fn some_rules() -> impl Strategy<Value = Rules> {
    (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(ordered, exactly_once, retry, dead)| Rules {
            ack_deadline: 10 * SECOND,
            ordered,
            exactly_once,
            retry: retry.then_some((2 * SECOND, 5 * SECOND)),
            max_attempts: dead.then_some(4),
        },
    )
}

/// The truth: which messages are done, and who has which of the others, until when.
#[derive(Default)]
struct Model {
    done: BTreeSet<Position>,
    held: BTreeMap<Position, (Given, u8, Duration)>,
    /// Said to be done while an earlier one of the key is not.
    pending: BTreeSet<Position>,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn no_law_is_broken(rules in some_rules(), acts in acts()) {
        check_laws(rules, acts);
    }
}

fn check_laws(rules: Rules, acts: Vec<Act>) {
    let mut world = World::new(rules.clone());
    let mut model = Model::default();
    let mut given: Vec<(Given, u8)> = Vec::new();
    let mut saved = world.backlog.save(world.clocks());
    let mut changes: Vec<Changes> = Vec::new();
    let mut joined: BTreeMap<u8, ConsumerId> = BTreeMap::new();
    for act in acts {
        match act {
            Act::Publish(keys) => {
                let names = ["", "a", "b", "c"];
                let keys: Vec<_> = keys.iter().map(|k| names[usize::from(*k)]).collect();
                world.publish(&keys);
            }
            Act::Take { who: 0, messages } => {
                let taken = world.pull(messages);
                model.give(&world, 0, &taken);
                given.extend(taken.into_iter().map(|g| (g, 0)));
            }
            Act::Take { who, messages } => {
                let id = *joined.entry(who).or_insert_with(|| world.join());
                let taken = world.take(id, messages);
                model.give(&world, who, &taken);
                given.extend(taken.into_iter().map(|g| (g, who)));
            }
            Act::Ack(at) if !given.is_empty() => {
                let (this, _) = given[at.index(given.len())];
                let outcome = world.ack(&this);
                let holds = model.holds(&world, this);
                if rules.exactly_once {
                    assert_eq!(outcome == Outcome::Counts, holds, "{this:?}");
                }
                if outcome == Outcome::Counts {
                    model.held.remove(&this.position);
                    if !rules.exactly_once && model.is_behind(&world, this.position) {
                        model.pending.insert(this.position);
                    } else {
                        model.finish(&world, this.position);
                    }
                }
            }
            Act::Nack(at) if !given.is_empty() => {
                let (this, _) = given[at.index(given.len())];
                let outcome = world.nack(&this);
                if outcome == Outcome::Counts {
                    assert!(model.holds(&world, this), "{this:?}");
                    model.give_back(&world, this.position);
                }
            }
            Act::Extend(at) if !given.is_empty() => {
                let (this, _) = given[at.index(given.len())];
                let longer = 20 * SECOND;
                let outcome = world
                    .backlog
                    .modify(this.position, this.number, longer, world.now);
                if outcome == Outcome::Counts {
                    assert!(model.holds(&world, this), "{this:?}");
                    if let Some(held) = model.held.get_mut(&this.position) {
                        held.2 = world.now + longer;
                    }
                }
            }
            Act::Ack(_) | Act::Nack(_) | Act::Extend(_) => {}
            Act::Pass(seconds) => {
                // In small steps, so that the model sees each end in its order.
                for _ in 0..seconds {
                    world.pass(SECOND);
                    model.expire(&world);
                }
            }
            Act::Leave(who) => {
                if let Some(id) = joined.remove(&who) {
                    world.backlog.leave(id);
                }
            }
            Act::Forward(done) => {
                for (position, failures) in world.backlog.take_forwarding() {
                    assert!(failures >= 4);
                    assert!(!model.done.contains(&position) && !model.held.contains_key(&position));
                    world.backlog.forwarded(position, done, world.now + SECOND);
                    if done {
                        model.finish(&world, position);
                    }
                }
            }
            Act::Save => {
                world.backlog.take_changes();
                saved = world.backlog.save(world.clocks());
                changes.clear();
            }
            Act::Restart(downtime) => {
                let late = world.backlog.take_changes().to_changes(world.clocks());
                changes.push(late);
                let before = world.now;
                world.restart(&saved, &changes, Duration::from_secs(downtime));
                joined.clear();
                // What was with somebody still is where delivery is exactly once, and is not
                // where it is not.
                model.pending.clear();
                let held = mem::take(&mut model.held);
                if rules.exactly_once {
                    for (position, (this, who, until)) in held {
                        let left = until.saturating_sub(before + Duration::from_secs(downtime));
                        if !left.is_zero() {
                            model.held.insert(position, (this, who, world.now + left));
                        }
                    }
                }
                saved = world.backlog.save(world.clocks());
                changes.clear();
            }
        }
        let late = world.backlog.take_changes();
        if !late.is_empty() {
            changes.push(late.to_changes(world.clocks()));
        }
    }
    // All of it gets done in the end.
    for _ in 0..200 {
        world.pass(10 * SECOND);
        model.expire(&world);
        for this in world.pull(1_000) {
            model.give(&world, 0, &[this]);
            assert_eq!(world.ack(&this), Outcome::Counts);
            model.held.remove(&this.position);
            model.finish(&world, this.position);
        }
        for (position, _) in world.backlog.take_forwarding() {
            world.backlog.forwarded(position, true, world.now);
            model.finish(&world, position);
        }
    }
    assert_eq!(model.done.len(), world.topic.len(), "some never came");
    assert_eq!(world.backlog.seen(), 0);
    assert_eq!(
        world.backlog.done_before(),
        Position(world.topic.len() as u64)
    );
}

impl Model {
    fn give(&mut self, world: &World, who: u8, taken: &[Given]) {
        for this in taken {
            let position = this.position;
            assert!(!self.done.contains(&position), "{this:?} is done");
            assert!(
                !self.held.contains_key(&position),
                "{this:?} is with another"
            );
            assert!(
                !self.pending.contains(&position),
                "{this:?} is as good as done"
            );
            let key = &world.topic[usize::try_from(position.0).unwrap()];
            if world.backlog.rules.ordered && !key.is_empty() {
                for earlier in (0..position.0).map(Position) {
                    let same = world.topic[usize::try_from(earlier.0).unwrap()] == *key;
                    let over = self.done.contains(&earlier) || self.pending.contains(&earlier);
                    if same && !over {
                        let held = self.held.get(&earlier);
                        // A pull that comes again is another consumer, but what one pull takes
                        // belongs together.
                        assert!(
                            held.is_some_and(|(other, holder, _)| *holder == who
                                && (who != 0 || taken.contains(other))),
                            "{this:?} came before {earlier}"
                        );
                    }
                }
            }
            let until = world.now + world.backlog.rules.ack_deadline;
            self.held.insert(position, (*this, who, until));
        }
    }

    fn holds(&self, world: &World, this: Given) -> bool {
        let held = self.held.get(&this.position);
        held.is_some_and(|(found, _, until)| found.number == this.number && *until > world.now)
    }

    /// Those of a message's key, where keys matter.
    fn of_its_key(world: &World, position: Position) -> Vec<Position> {
        let key = |at: &Position| &world.topic[usize::try_from(at.0).unwrap()];
        if !world.backlog.rules.ordered || key(&position).is_empty() {
            return vec![position];
        }
        let all = (0..world.topic.len() as u64).map(Position);
        all.filter(|other| key(other) == key(&position)).collect()
    }

    fn is_behind(&self, world: &World, position: Position) -> bool {
        let all = Self::of_its_key(world, position);
        all.iter()
            .any(|other| *other < position && !self.done.contains(other))
    }

    /// A message is done, and with it those that waited for it.
    fn finish(&mut self, world: &World, position: Position) {
        self.done.insert(position);
        for next in Self::of_its_key(world, position) {
            if !self.done.contains(&next) && !self.pending.remove(&next) {
                break;
            }
            self.done.insert(next);
        }
    }

    /// A message is nobody's again, and those of its key after it.
    fn give_back(&mut self, world: &World, position: Position) {
        for other in Self::of_its_key(world, position) {
            if other >= position {
                self.held.remove(&other);
                self.pending.remove(&other);
            }
        }
    }

    fn expire(&mut self, world: &World) {
        loop {
            let ended = self
                .held
                .iter()
                .find(|(_, (_, _, until))| *until <= world.now);
            let Some(position) = ended.map(|(position, _)| *position) else {
                return;
            };
            self.give_back(world, position);
        }
    }
}
