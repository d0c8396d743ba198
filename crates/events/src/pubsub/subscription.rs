//! A subscription at work: one task that owns its backlog, reads the topic for it, hands messages out
//! and writes down what is done. Everybody else talks to it through a bounded mailbox.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use jiff::{SignedDuration, Timestamp};
use lauf_model::{Clock, Code, Status};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;

use super::ack_id::AckId;
use super::backlog::{
    Appetite, Backlog, Clocks, ConsumerId, Given, JournalEntry, Offered, Outcome, Rules, Saved,
};
use super::filter::Filter;
use super::message::{Message, Published};
use super::resource::{Subscription, not_found};
use super::topics::{Topics, stream_of};
use crate::log::{Chunk, Limit, LogError, MessageLog, Position, Receipt, failed};

/// What is read of the topic at once.
const READ: Limit = Limit {
    records: 1_000,
    bytes: 1 << 20,
};
/// What is handed to a consumer at once.
const HAND: Limit = Limit {
    records: 1_000,
    bytes: 1 << 20,
};
/// Messages that have been read and wait to be handed out are kept in memory up to so many bytes.
const CACHE: usize = 16 << 20;
/// A journal is written anew when what changed since takes so many bytes, and several times what it
/// would then begin with.
const REWRITE: usize = 256 << 10;
/// How often messages that are too old are looked for.
const OLD_EVERY: Duration = Duration::from_secs(60);
/// How long a message waits whose dead-letter topic does not take it.
const DEAD_LETTER_RETRY: Duration = Duration::from_secs(10);
/// How long a pull waits for a message.
pub(super) const PULL_WAIT: Duration = Duration::from_secs(10);
/// How many requests wait for a subscription.
const MAILBOX: usize = 4_096;
/// How many pulls wait for messages.
const MAX_PULLS: usize = 10_000;
/// How many hand-outs wait for a consumer that reads slowly.
const HANDS: usize = 4;
/// Journal records that could not be written yet.
const MAX_UNWRITTEN: usize = 1_000;

/// The stream that a subscription's journal is kept in.
pub(super) fn journal_of(uid: &str) -> String {
    format!("pubsub/subscription/{uid}")
}

/// A message as a subscriber gets it.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivered {
    /// To be given back when it is done.
    pub ack_id: String,
    /// The message.
    pub message: Published,
    /// How often it has been handed out, this time included; where there is a dead-letter policy.
    pub attempt: Option<u32>,
}

/// What was asked of a message did not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The lease is no more. Only where delivery is exactly once.
    Stale,
    /// It could not be written down; try again.
    Unwritten,
}

/// What a subscription is asked.
pub(super) enum Ask {
    Pull {
        messages: usize,
        wait: bool,
        reply: oneshot::Sender<Result<Vec<Delivered>, Status>>,
    },
    /// Acknowledgements.
    Ack(Vec<AckId>, Results),
    /// Other deadlines, from now; none at all gives a message back.
    Modify(Vec<(AckId, Duration)>, Results),
    Join(Appetite, oneshot::Sender<Result<Subscriber, Status>>),
    Appetite(ConsumerId, Appetite),
    /// A consumer has room again.
    Room,
    Configure(Box<Subscription>),
    /// Everything before is done, and everything after is not.
    Seek(Position, oneshot::Sender<Result<(), Status>>),
    /// Back to what was saved.
    Restore(Box<Saved>, oneshot::Sender<Result<(), Status>>),
    Save(oneshot::Sender<Saved>),
    /// A message is in the dead-letter topic, or is not.
    Forwarded(Position, bool),
    /// It is deleted.
    End,
}

/// One answer for each message, in order.
pub(super) type Results = oneshot::Sender<Vec<Result<(), Refused>>>;

/// The way to a subscription.
pub(super) struct Handle {
    pub(super) mailbox: mpsc::Sender<Ask>,
    pub(super) signs: Arc<Signs>,
    /// In its acknowledgement ids.
    pub(super) tag: u32,
}

/// What can be seen of a subscription without asking it.
pub(super) struct Signs {
    /// Everything before is done: the topic need not keep it for this subscription.
    pub(super) done_before: AtomicU64,
    /// Whether it has been used since this was last asked.
    pub(super) used: AtomicBool,
}

/// Somebody who gets messages as they come.
#[derive(Debug)]
pub struct Subscriber {
    id: ConsumerId,
    hands: mpsc::Receiver<Result<Vec<Delivered>, Status>>,
    mailbox: mpsc::Sender<Ask>,
    stalled: Arc<AtomicBool>,
    appetite: Appetite,
}

impl Subscriber {
    /// The next messages; `None` when the subscription ended.
    ///
    /// # Errors
    /// Why it ended: deleted or detached.
    pub async fn next(&mut self) -> Option<Result<Vec<Delivered>, Status>> {
        let hand = self.hands.recv().await;
        if self.stalled.swap(false, Ordering::AcqRel) {
            // A full mailbox is being read, and whoever reads it looks for room anyway.
            let _ = self.mailbox.try_send(Ask::Room);
        }
        hand
    }

    /// Takes another number of messages and bytes at a time.
    pub async fn set_limits(&mut self, messages: usize, bytes: usize) {
        self.appetite.messages = messages;
        self.appetite.bytes = bytes;
        self.tell().await;
    }

    /// Takes another time for each message that it gets from now on.
    pub async fn set_ack_deadline(&mut self, deadline: Duration) {
        self.appetite.ack_deadline = Some(deadline);
        self.tell().await;
    }

    async fn tell(&self) {
        let _ = self
            .mailbox
            .send(Ask::Appetite(self.id, self.appetite))
            .await;
    }
}

/// What all subscriptions work with.
#[derive(Clone)]
pub(super) struct Tools {
    pub(super) log: Arc<dyn MessageLog>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) topics: Arc<Topics>,
}

/// Makes a subscription's journal, with everything from `frontier` on before it.
pub(super) async fn begin(
    log: &dyn MessageLog,
    uid: &str,
    frontier: Position,
) -> Result<(), LogError> {
    let journal = journal_of(uid);
    log.create(&journal).await?;
    let saved = Saved {
        done_before: frontier.0,
        upto: frontier.0,
        ..Saved::default()
    };
    let record = JournalEntry::Saved(saved).into_record();
    log.append(&journal, vec![record])?.await.map(drop)
}

/// Starts a subscription from its journal.
pub(super) async fn start(tools: Tools, config: Subscription) -> Result<Arc<Handle>, LogError> {
    let topic = stream_of(&config.topic_uid);
    let tail = tools.log.tail(&topic).await?;
    let clocks = clocks(&*tools.clock);
    let first_number = u64::try_from(clocks.wall).unwrap_or(1).max(1);
    let journal = journal_of(&config.uid);
    let (backlog, size) = load(&*tools.log, &journal, rules(&config), clocks, first_number).await?;
    let (mailbox, asks) = mpsc::channel(MAILBOX);
    let signs = Arc::new(Signs {
        done_before: AtomicU64::new(backlog.done_before().0),
        used: AtomicBool::new(false),
    });
    let work = Work {
        filter: filter(&config),
        topic,
        journal,
        backlog,
        tail,
        tag: tag(&config.uid),
        signs: Arc::clone(&signs),
        // The task must not keep itself alive by holding its own mailbox.
        mailbox: mailbox.downgrade(),
        pulls: VecDeque::new(),
        consumers: BTreeMap::new(),
        closed: FuturesUnordered::new(),
        next_consumer: 0,
        cache: HashMap::new(),
        cached: 0,
        unwritten: VecDeque::new(),
        journal_size: size,
        old_at: Duration::ZERO,
        config,
        tools,
    };
    let handle = Handle {
        mailbox,
        signs,
        tag: work.tag,
    };
    tokio::spawn(work.run(asks));
    Ok(Arc::new(handle))
}

/// Reads a journal. The last thing that was saved counts, and what changed after it.
async fn load(
    log: &dyn MessageLog,
    journal: &str,
    rules: Rules,
    clocks: Clocks,
    first_number: u64,
) -> Result<(Backlog, usize), LogError> {
    let mut backlog = None;
    let mut size = 0;
    let mut next = Position(0);
    loop {
        let chunk = log.read(journal, next, READ).await?;
        if chunk.records.is_empty() {
            break;
        }
        next = chunk.next;
        for record in chunk.records {
            size += record.body.len();
            let entry = JournalEntry::from_record(record.body)
                .map_err(|error| LogError::Failed(format!("{journal} is damaged: {error}")))?;
            match entry {
                Some(JournalEntry::Saved(saved)) => {
                    size = 0;
                    let number = backlog.as_ref().map_or(first_number, Backlog::next_number);
                    backlog = Some(Backlog::restore(rules.clone(), &saved, clocks, number));
                }
                Some(JournalEntry::Changes(changes)) => {
                    if let Some(backlog) = &mut backlog {
                        backlog.replay(&changes, clocks);
                    }
                }
                None => {}
            }
        }
    }
    // A journal is made with something saved in it. One without was not made to the end, and its
    // subscription was never told to anybody.
    backlog
        .map(|backlog| (backlog, size))
        .ok_or_else(|| LogError::Failed(format!("{journal} is empty")))
}

pub(super) fn tag(uid: &str) -> u32 {
    crc32fast::hash(uid.as_bytes())
}

pub(super) fn clocks(clock: &dyn Clock) -> Clocks {
    Clocks {
        wall: clock.now().as_microsecond(),
        now: clock.monotonic(),
    }
}

fn rules(config: &Subscription) -> Rules {
    // Pushes fail fast where nobody listens; they wait a little even if nobody asked for that.
    let push = (Duration::from_millis(100), Duration::from_secs(60));
    let retry = config.retry.map(|retry| (retry.minimum, retry.maximum));
    Rules {
        ack_deadline: config.ack_deadline,
        ordered: config.ordered,
        exactly_once: config.exactly_once,
        retry: retry.or(config.push.is_some().then_some(push)),
        max_attempts: config.dead_letter.as_ref().map(|dead| dead.max_attempts),
    }
}

fn filter(config: &Subscription) -> Option<Filter> {
    // It was understood when the subscription was made.
    Some(&config.filter)
        .filter(|text| !text.is_empty())
        .and_then(|text| Filter::parse(text).ok())
}

/// A pull that waits.
struct Pull {
    messages: usize,
    until: Duration,
    /// Whether it waits at all.
    wait: bool,
    reply: oneshot::Sender<Result<Vec<Delivered>, Status>>,
}

struct Consumer {
    hands: mpsc::Sender<Result<Vec<Delivered>, Status>>,
    stalled: Arc<AtomicBool>,
}

struct Work {
    tools: Tools,
    config: Subscription,
    filter: Option<Filter>,
    topic: String,
    journal: String,
    backlog: Backlog,
    tail: watch::Receiver<Position>,
    signs: Arc<Signs>,
    tag: u32,
    mailbox: mpsc::WeakSender<Ask>,
    pulls: VecDeque<Pull>,
    consumers: BTreeMap<ConsumerId, Consumer>,
    /// Ends when a consumer goes.
    closed: FuturesUnordered<BoxFuture<'static, ConsumerId>>,
    next_consumer: u64,
    /// Messages that have been read and not been handed out.
    cache: HashMap<Position, Message>,
    cached: usize,
    /// Journal records that found the log's queue full.
    unwritten: VecDeque<Bytes>,
    /// What the journal has grown since all was saved.
    journal_size: usize,
    old_at: Duration,
}

impl Work {
    async fn run(mut self, mut asks: mpsc::Receiver<Ask>) {
        while self.backlog.is_restoring() && !self.config.detached {
            if let Err(error) = self.look_on().await {
                tracing::error!(%error, name = %self.config.name, "messages cannot be read");
                break;
            }
        }
        loop {
            let more = self.turn().await;
            if more {
                // Let others be heard in between.
                tokio::task::yield_now().await;
            } else {
                let deadline = self.deadline();
                let hungry = self.hungry();
                tokio::select! {
                    ask = asks.recv() => {
                        let Some(ask) = ask else { break };
                        if !self.hear(ask).await {
                            break;
                        }
                    }
                    Some(id) = self.closed.next() => self.leave(id),
                    changed = self.tail.changed(), if hungry => {
                        if changed.is_err() {
                            break;
                        }
                    }
                    () = sleep(deadline) => {}
                }
            }
            let mut acks = Vec::new();
            for _ in 0..256 {
                let Ok(ask) = asks.try_recv() else { break };
                match ask {
                    Ask::Ack(ids, reply) => acks.push((self.ack(&ids), reply)),
                    other => {
                        if !self.hear(other).await {
                            self.part(&not_found(&self.config.name));
                            return;
                        }
                    }
                }
            }
            self.answer(acks);
            self.backlog.tick(self.now());
        }
        self.part(&not_found(&self.config.name));
    }

    fn now(&self) -> Duration {
        self.tools.clock.monotonic()
    }

    fn clocks(&self) -> Clocks {
        clocks(&*self.tools.clock)
    }

    /// Whether more of the topic is wanted than there is.
    fn hungry(&self) -> bool {
        !self.config.detached && self.backlog.wanted(self.pulled()) > 0
    }

    fn pulled(&self) -> usize {
        self.pulls.iter().map(|pull| pull.messages).sum()
    }

    /// How long until something has to be done without being asked.
    fn deadline(&self) -> Duration {
        let pull = self.pulls.front().map(|pull| pull.until);
        let unwritten =
            (!self.unwritten.is_empty()).then(|| self.now() + Duration::from_millis(10));
        self.backlog
            .wake()
            .into_iter()
            .chain(pull)
            .chain(unwritten)
            .chain([self.old_at])
            .min()
            .map_or(OLD_EVERY, |at| at.saturating_sub(self.now()))
    }

    // --- What it is asked.

    /// Does what is asked. `false` if it was to end.
    async fn hear(&mut self, ask: Ask) -> bool {
        match ask {
            Ask::Pull {
                messages,
                wait,
                reply,
            } => self.pull(messages, wait, reply).await,
            Ask::Ack(ids, reply) => {
                let results = self.ack(&ids);
                self.answer(vec![(results, reply)]);
            }
            Ask::Modify(changes, reply) => {
                let now = self.now();
                let results = changes
                    .into_iter()
                    .map(|(id, deadline)| {
                        let outcome = self.backlog.modify(id.position, id.number, deadline, now);
                        self.result(outcome)
                    })
                    .collect();
                self.answer(vec![(results, reply)]);
            }
            Ask::Join(appetite, reply) => self.join(appetite, reply),
            Ask::Appetite(id, appetite) => self.backlog.set_appetite(id, appetite),
            Ask::Room => {}
            Ask::Configure(config) => self.configure(*config),
            Ask::Seek(position, reply) => {
                let saved = Saved {
                    done_before: position.0,
                    upto: position.0,
                    ..Saved::default()
                };
                let _ = reply.send(self.restore(saved).await);
            }
            Ask::Restore(saved, reply) => {
                let _ = reply.send(self.restore(*saved).await);
            }
            Ask::Save(reply) => {
                let _ = reply.send(self.backlog.save(self.clocks()));
            }
            Ask::Forwarded(position, done) => {
                let retry_at = self.now() + DEAD_LETTER_RETRY;
                self.backlog.forwarded(position, done, retry_at);
            }
            Ask::End => return false,
        }
        true
    }

    fn detached(&self) -> Status {
        Status::new(
            Code::FailedPrecondition,
            format!(
                "Subscription {} is detached from its topic and delivers nothing; make a new one.",
                self.config.name
            ),
        )
    }

    async fn pull(
        &mut self,
        messages: usize,
        wait: bool,
        reply: oneshot::Sender<Result<Vec<Delivered>, Status>>,
    ) {
        if self.config.detached {
            let _ = reply.send(Err(self.detached()));
            return;
        }
        if self.pulls.len() >= MAX_PULLS {
            let _ = reply.send(Err(Status::new(
                Code::ResourceExhausted,
                format!("{MAX_PULLS} pulls wait for messages of this subscription already."),
            )));
            return;
        }
        self.pulls.push_back(Pull {
            messages: messages.min(HAND.records),
            until: self.now() + PULL_WAIT,
            wait,
            reply,
        });
        if !wait {
            // It gets what there is now, once some of the topic has been looked at.
            for _ in 0..20 {
                if !self.turn().await || self.pulls.iter().all(|pull| pull.wait) {
                    break;
                }
            }
            self.give_up_pulls(|pull| !pull.wait);
        }
    }

    fn ack(&mut self, ids: &[AckId]) -> Vec<Result<(), Refused>> {
        let now = self.now();
        ids.iter()
            .map(|id| {
                let outcome = self.backlog.ack(id.position, id.number, now);
                self.result(outcome)
            })
            .collect()
    }

    fn result(&self, outcome: Outcome) -> Result<(), Refused> {
        match outcome {
            Outcome::Stale if self.config.exactly_once => Err(Refused::Stale),
            _ => Ok(()),
        }
    }

    /// Answers when what was said is written down; at once where that does not matter.
    fn answer(&mut self, answers: Vec<(Vec<Result<(), Refused>>, Results)>) {
        if answers.is_empty() {
            return;
        }
        let receipt = self.write_changes();
        if !self.config.exactly_once {
            for (results, reply) in answers {
                let _ = reply.send(results);
            }
            return;
        }
        tokio::spawn(async move {
            let written = match receipt {
                Ok(Some(receipt)) => receipt.await.is_ok(),
                Ok(None) => true,
                Err(()) => false,
            };
            for (mut results, reply) in answers {
                if !written {
                    for result in &mut results {
                        *result = result.and(Err(Refused::Unwritten));
                    }
                }
                let _ = reply.send(results);
            }
        });
    }

    fn join(&mut self, appetite: Appetite, reply: oneshot::Sender<Result<Subscriber, Status>>) {
        if self.config.detached {
            let _ = reply.send(Err(self.detached()));
            return;
        }
        let Some(mailbox) = self.mailbox.upgrade() else {
            return;
        };
        let id = self.new_consumer();
        let (sender, hands) = mpsc::channel(HANDS);
        let stalled = Arc::new(AtomicBool::new(false));
        let subscriber = Subscriber {
            id,
            hands,
            mailbox,
            stalled: Arc::clone(&stalled),
            appetite,
        };
        if reply.send(Ok(subscriber)).is_err() {
            return;
        }
        self.backlog.join(id, appetite);
        let gone = sender.clone();
        self.closed.push(Box::pin(async move {
            gone.closed().await;
            id
        }));
        let consumer = Consumer {
            hands: sender,
            stalled,
        };
        self.consumers.insert(id, consumer);
    }

    fn new_consumer(&mut self) -> ConsumerId {
        self.next_consumer += 1;
        ConsumerId(self.next_consumer)
    }

    fn leave(&mut self, id: ConsumerId) {
        self.consumers.remove(&id);
        self.backlog.leave(id);
    }

    fn configure(&mut self, config: Subscription) {
        self.filter = filter(&config);
        self.backlog.set_rules(rules(&config));
        self.config = config;
        if self.config.detached {
            self.part(&self.detached());
        }
    }

    /// Tells whoever waits why nothing more comes.
    fn part(&mut self, why: &Status) {
        for pull in self.pulls.drain(..) {
            let _ = pull.reply.send(Err(why.clone()));
        }
        for (id, consumer) in mem::take(&mut self.consumers) {
            // One that is not reading hears it from the end of its channel.
            let _ = consumer.hands.try_send(Err(why.clone()));
            self.backlog.leave(id);
        }
    }

    /// Goes on from what was saved.
    async fn restore(&mut self, saved: Saved) -> Result<(), Status> {
        // What is still unwritten is about what was before.
        self.backlog.take_changes();
        self.unwritten.clear();
        let record = JournalEntry::Saved(saved.clone()).into_record();
        let receipt = self.tools.log.append(&self.journal, vec![record]);
        let written = match receipt {
            Ok(receipt) => receipt.await,
            Err(error) => Err(error),
        };
        written.map_err(|error| failed(&error))?;
        self.journal_size = 0;
        let number = self.backlog.next_number();
        let rules = rules(&self.config);
        let mut backlog = Backlog::restore(rules, &saved, self.clocks(), number);
        for id in self.consumers.keys() {
            if let Some(appetite) = self.backlog.appetite(*id) {
                backlog.join(*id, appetite);
            }
        }
        self.backlog = backlog;
        self.cache.clear();
        self.cached = 0;
        self.note_done();
        Ok(())
    }

    // --- What it does by itself.

    /// Reads, hands out and writes down a piece. Says whether there is more to do at once.
    async fn turn(&mut self) -> bool {
        self.backlog.tick(self.now());
        if self.now() >= self.old_at {
            self.old_at = self.now() + OLD_EVERY;
            self.forget_old().await;
        }
        self.forward();
        let mut more = false;
        if !self.config.detached {
            match self.read().await {
                Ok(read) => more |= read,
                Err(LogError::NoStream(_)) => {}
                Err(error) => {
                    tracing::error!(%error, name = %self.config.name, "messages cannot be read")
                }
            }
            more |= self.hand_out().await;
        }
        let now = self.now();
        self.give_up_pulls(|pull| pull.until <= now);
        // What could not be written now is tried again at a later turn.
        let _ = self.write_changes();
        self.note_done();
        self.rewrite();
        more
    }

    fn note_done(&self) {
        let done_before = if self.config.detached {
            u64::MAX
        } else {
            self.backlog.done_before().0
        };
        self.signs.done_before.store(done_before, Ordering::Release);
    }

    /// Looks at a piece of the topic, if more is wanted. Says whether there was any.
    async fn read(&mut self) -> Result<bool, LogError> {
        let mut read = false;
        if let Some(from) = self.backlog.refill_from() {
            let chunk = self.tools.log.read(&self.topic, from, READ).await?;
            let next = chunk.next;
            self.look(chunk, true);
            self.backlog.refilled(next);
            read = true;
        }
        let wanted = self.backlog.wanted(self.pulled());
        let from = self.backlog.read_from();
        if wanted == 0 || from >= *self.tail.borrow_and_update() {
            return Ok(read);
        }
        self.look_on().await?;
        Ok(true)
    }

    /// Looks at the next piece of the topic.
    async fn look_on(&mut self) -> Result<(), LogError> {
        let from = self.backlog.read_from();
        let chunk = self.tools.log.read(&self.topic, from, READ).await?;
        let end = chunk.records.is_empty();
        let next = chunk.next;
        self.look(chunk, false);
        self.backlog.pass(next);
        if end && self.backlog.is_restoring() {
            // The topic ends before what was once looked at: its log is older than the journal.
            return Err(LogError::Failed(format!("{} is too short", self.topic)));
        }
        Ok(())
    }

    fn look(&mut self, chunk: Chunk, again: bool) {
        let now = self.now();
        let oldest = self.oldest();
        for record in chunk.records {
            let size = record.body.len();
            let message = match Message::from_record(record.body) {
                Ok(message) => message,
                Err(error) => {
                    tracing::error!(%error, position = %record.position, "a message cannot be read and is left out");
                    continue;
                }
            };
            let passes = self
                .filter
                .as_ref()
                .is_none_or(|filter| filter.matches(&message.attributes));
            if !passes || record.time < oldest {
                if !again {
                    self.backlog.pass(record.position.plus(1));
                }
                continue;
            }
            let offered = Offered {
                position: record.position,
                time: record.time,
                size: message.size(),
                key: &message.ordering_key,
            };
            let keep = if again {
                self.backlog.refill(offered, now)
            } else {
                self.backlog.offer(offered, now)
            };
            if keep && self.cached + size <= CACHE {
                self.cached += size;
                self.cache.insert(record.position, message);
            }
        }
    }

    fn oldest(&self) -> Timestamp {
        let retention =
            SignedDuration::try_from(self.config.retention).unwrap_or(SignedDuration::MAX);
        let oldest = self.tools.clock.now().checked_sub(retention);
        oldest.unwrap_or(Timestamp::MIN)
    }

    async fn forget_old(&mut self) {
        let oldest = self.oldest();
        self.backlog.forget_older_than(oldest);
        if let Ok(position) = self.tools.log.position_at(&self.topic, oldest).await {
            self.backlog.pass(position);
        }
    }

    /// Hands messages to whoever wants them. Says whether there may be more.
    async fn hand_out(&mut self) -> bool {
        let mut more = false;
        while self.backlog.ready() > 0 && !self.pulls.is_empty() {
            let Some(pull) = self.pulls.pop_front() else {
                break;
            };
            if pull.reply.is_closed() {
                continue;
            }
            let id = self.new_consumer();
            let appetite = Appetite {
                messages: pull.messages,
                bytes: usize::MAX,
                of_one_key: usize::MAX,
                ack_deadline: None,
            };
            self.backlog.join(id, appetite);
            let given = self
                .backlog
                .take(id, pull.messages, 4 * HAND.bytes, self.now());
            self.backlog.leave(id);
            let delivered = self.deliver(&given).await;
            if delivered.is_empty() && !given.is_empty() {
                // It failed, and was said to have; what comes next tries again.
                self.pulls.push_front(pull);
                return false;
            }
            if pull.reply.send(Ok(delivered)).is_err() {
                self.take_back(&given);
            }
            more = true;
        }
        let hungry: Vec<ConsumerId> = self
            .consumers
            .keys()
            .copied()
            .filter(|id| self.backlog.has_for(*id))
            .collect();
        // Each gets a share, so that the first does not get all.
        let share = (self.backlog.ready() / hungry.len().max(1)).clamp(10, HAND.records);
        for id in hungry {
            let Some(consumer) = self.consumers.get(&id) else {
                continue;
            };
            let hands = consumer.hands.clone();
            let Ok(permit) = hands.try_reserve() else {
                consumer.stalled.store(true, Ordering::Release);
                // It may have read the last hand before it could see that it is waited for.
                if consumer.hands.capacity() > 0 {
                    more = true;
                }
                continue;
            };
            let given = self.backlog.take(id, share, HAND.bytes, self.now());
            let delivered = self.deliver(&given).await;
            if delivered.is_empty() {
                continue;
            }
            more = true;
            permit.send(Ok(delivered));
        }
        more
    }

    /// Makes ready for the wire what was given out. Where delivery is exactly once, that it was given
    /// out is written down first.
    async fn deliver(&mut self, given: &[Given]) -> Vec<Delivered> {
        if given.is_empty() {
            return Vec::new();
        }
        if self.config.exactly_once {
            let written = match self.write_changes() {
                Ok(Some(receipt)) => receipt.await.is_ok(),
                Ok(None) => true,
                Err(()) => false,
            };
            if !written {
                self.take_back(given);
                return Vec::new();
            }
        }
        let mut delivered = Vec::with_capacity(given.len());
        for one in given {
            match self.message(one.position).await {
                Ok(Some(message)) => delivered.push(Delivered {
                    ack_id: AckId {
                        position: one.position,
                        number: one.number,
                    }
                    .to_text(self.tag),
                    message,
                    attempt: self.config.dead_letter.as_ref().map(|_| one.attempt),
                }),
                // Given up by the topic meanwhile.
                Ok(None) => {
                    self.backlog.ack(one.position, one.number, self.now());
                }
                Err(error) => {
                    tracing::error!(%error, name = %self.config.name, "a message cannot be read");
                    self.backlog.take_back(one.position, one.number);
                }
            }
        }
        delivered
    }

    /// A message, from memory or from the log.
    async fn message(&mut self, position: Position) -> Result<Option<Published>, LogError> {
        if let Some(message) = self.cache.remove(&position) {
            let time = self.backlog.time(position).unwrap_or_default();
            self.cached = self.cached.saturating_sub(message.size());
            return Ok(Some(Published {
                position,
                time,
                message,
            }));
        }
        let one = Limit {
            records: 1,
            bytes: usize::MAX,
        };
        let chunk = self.tools.log.read(&self.topic, position, one).await?;
        let record = chunk.records.into_iter().next();
        record
            .filter(|record| record.position == position)
            .map(|record| {
                let message = Message::from_record(record.body)
                    .map_err(|error| LogError::Failed(error.to_string()))?;
                Ok(Published {
                    position,
                    time: record.time,
                    message,
                })
            })
            .transpose()
    }

    fn take_back(&mut self, given: &[Given]) {
        for one in given {
            self.backlog.take_back(one.position, one.number);
        }
    }

    fn give_up_pulls(&mut self, over: impl Fn(&Pull) -> bool) {
        if self.pulls.is_empty() {
            return;
        }
        self.pulls.retain(|pull| !pull.reply.is_closed());
        let pulls = mem::take(&mut self.pulls);
        let (over, waiting): (VecDeque<_>, _) = pulls.into_iter().partition(over);
        self.pulls = waiting;
        for pull in over {
            let _ = pull.reply.send(Ok(Vec::new()));
        }
    }

    /// Publishes what failed too often to the dead-letter topic.
    fn forward(&mut self) {
        for (position, failures) in self.backlog.take_forwarding() {
            let (Some(dead), Some(mailbox)) = (&self.config.dead_letter, self.mailbox.upgrade())
            else {
                let retry_at = self.now() + DEAD_LETTER_RETRY;
                self.backlog.forwarded(position, false, retry_at);
                continue;
            };
            let letter = DeadLetterPost {
                tools: self.tools.clone(),
                topic: self.topic.clone(),
                to: dead.topic.clone(),
                subscription: self.config.name.clone(),
                position,
                failures,
            };
            tokio::spawn(async move {
                let done = match letter.send().await {
                    Ok(()) => true,
                    Err(status) => {
                        tracing::warn!(%status, "a message cannot go to its dead-letter topic yet");
                        false
                    }
                };
                let _ = mailbox.send(Ask::Forwarded(position, done)).await;
            });
        }
    }

    // --- The journal.

    /// Hands what changed to the log. `Ok(None)` if nothing did; an error if it has to wait.
    fn write_changes(&mut self) -> Result<Option<Receipt>, ()> {
        if self.backlog.has_changes() {
            let changes = self.backlog.take_changes().to_changes(self.clocks());
            let record = JournalEntry::Changes(changes).into_record();
            self.journal_size += record.len();
            if self.unwritten.len() >= MAX_UNWRITTEN {
                // At-least-once allows for losing acknowledgements; nothing else is so many.
                self.unwritten.pop_front();
            }
            self.unwritten.push_back(record);
        }
        if self.unwritten.is_empty() {
            return Ok(None);
        }
        let records: Vec<Bytes> = self.unwritten.iter().cloned().collect();
        match self.tools.log.append(&self.journal, records) {
            Ok(receipt) => {
                self.unwritten.clear();
                Ok(Some(receipt))
            }
            Err(error) => {
                if error != LogError::Full {
                    tracing::warn!(%error, name = %self.config.name, "acknowledgements cannot be written");
                    self.unwritten.clear();
                }
                Err(())
            }
        }
    }

    /// Writes down all there is to know when what changed has become long, and gives up what was
    /// written before.
    fn rewrite(&mut self) {
        if self.journal_size < REWRITE || !self.unwritten.is_empty() {
            return;
        }
        let record = JournalEntry::Saved(self.backlog.save(self.clocks())).into_record();
        if self.journal_size < 4 * record.len() {
            return;
        }
        let Ok(receipt) = self.tools.log.append(&self.journal, vec![record]) else {
            return;
        };
        self.journal_size = 0;
        let (log, journal) = (Arc::clone(&self.tools.log), self.journal.clone());
        tokio::spawn(async move {
            if let Ok(appended) = receipt.await {
                let _ = log.trim(&journal, appended.first).await;
            }
        });
    }
}

/// A message on its way to a dead-letter topic.
struct DeadLetterPost {
    tools: Tools,
    topic: String,
    to: super::names::TopicName,
    subscription: super::names::SubscriptionName,
    position: Position,
    failures: u32,
}

impl DeadLetterPost {
    async fn send(self) -> Result<(), Status> {
        let one = Limit {
            records: 1,
            bytes: usize::MAX,
        };
        let chunk = self.tools.log.read(&self.topic, self.position, one).await;
        let chunk = chunk.map_err(|error| failed(&error))?;
        let record = chunk.records.into_iter().next();
        let Some(record) = record.filter(|record| record.position == self.position) else {
            // Given up by the topic: there is nothing to keep.
            return Ok(());
        };
        let mut message = Message::from_record(record.body)
            .map_err(|error| Status::new(Code::Internal, error.to_string()))?;
        let notes = [
            ("DeliveryCount", self.failures.to_string()),
            ("Subscription", self.subscription.id.clone()),
            ("SubscriptionProject", self.subscription.project.clone()),
            ("TopicPublishTime", record.time.to_string()),
        ];
        for (name, value) in notes {
            message
                .attributes
                .insert(format!("CloudPubSubDeadLetterSource{name}"), value);
        }
        self.tools
            .topics
            .publish_dead_letter(&self.to, message)
            .await
            .map(drop)
    }
}
