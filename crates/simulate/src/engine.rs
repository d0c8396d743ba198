//! A service on virtual time: what the gateway's pool and worker do live, done by events.
//!
//! Every decision is `lauf-scale`'s. What is here is what the machine does by itself: instances take
//! their time to start, requests take theirs, CPUs are shared.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use lauf_price::Usage;
use lauf_scale::{
    Autoscaler, Member, Settings, assign, average_start, queue_deadline, queue_limit,
};

use crate::Scenario;
use crate::instance::{Instance, Request, State, Work};
use crate::meter::{Level, Timeline, Times};
use crate::random::{self, Random};
use crate::report::{Report, Totals};

/// Something that happens to an instance, a request that waits, or the autoscaler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A start ended well, or not.
    Started(usize, bool),
    /// The next request on an instance's CPUs has had its time, unless the generation has changed.
    CpuDone(usize, u64),
    /// A request has waited for others: it arrived, it began.
    Done(usize, Duration, Duration),
    /// A request has waited too long for an instance.
    Expired(u64),
    /// An instance has ended.
    Ended(usize),
    /// The autoscaler wanted to be asked.
    Wake,
}

/// A request without an instance.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    arrived: Duration,
    work: Work,
}

/// One scenario being played.
pub(crate) struct World {
    scenario: Scenario,
    now: Duration,
    serial: u64,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,

    scaler: Autoscaler,
    wake: Option<Duration>,
    resting: bool,
    instances: Vec<Instance>,
    /// Places of those that have ended.
    gone: Vec<usize>,
    /// Those that have been ready and have not ended, in the order they became ready.
    members: Vec<usize>,
    /// Those that get requests.
    ready: Vec<usize>,
    first_free: usize,
    share: u32,
    average_start: Duration,
    queue: BTreeMap<u64, Waiting>,
    next_ticket: u64,
    starts: Random,
    failures: Random,

    level: Level,
    /// In seconds of requests in flight, and of CPU.
    request_time: f64,
    cpu_time: f64,
    requests: u64,
    seen: Vec<Member>,

    totals: Totals,
    latency: Times,
    waited: Times,
    timeline: Timeline,
    by_requests: Usage,
    by_instances: Usage,
    idle_minimum: Usage,
    idle_minimum_seconds: f64,
    last_end: Duration,
}

impl World {
    pub(crate) fn new(scenario: Scenario, seed: u64) -> Self {
        let mut world = Self {
            scaler: Autoscaler::new(&scenario.settings),
            scenario,
            now: Duration::ZERO,
            serial: 0,
            events: BinaryHeap::new(),
            wake: None,
            resting: false,
            instances: Vec::new(),
            gone: Vec::new(),
            members: Vec::new(),
            ready: Vec::new(),
            first_free: 0,
            share: u32::MAX,
            average_start: Duration::ZERO,
            queue: BTreeMap::new(),
            next_ticket: 0,
            starts: Random::new(seed, random::STARTS),
            failures: Random::new(seed, random::FAILURES),
            level: Level::default(),
            request_time: 0.0,
            cpu_time: 0.0,
            requests: 0,
            seen: Vec::new(),
            totals: Totals::default(),
            latency: Times::new(),
            waited: Times::new(),
            timeline: Timeline::new(),
            by_requests: Usage::default(),
            by_instances: Usage::default(),
            idle_minimum: Usage::default(),
            idle_minimum_seconds: 0.0,
            last_end: Duration::ZERO,
        };
        world.act();
        world
    }

    fn settings(&self) -> &Settings {
        &self.scenario.settings
    }

    /// A request arrives. Those before it have arrived already.
    pub(crate) fn arrive(&mut self, at: Duration, work: Work) {
        self.run_until(at);
        self.totals.requests += 1;
        self.timeline.now().requests += 1;
        if self.queue.is_empty()
            && let Some(index) = self.take()
        {
            self.begin(index, at, work);
            if std::mem::take(&mut self.resting) {
                self.act();
            }
            return;
        }
        let settings = self.settings();
        let most = settings.manual.unwrap_or(settings.max);
        if self.queue.len() >= queue_limit(most, settings.concurrency) {
            self.refuse(at);
            return;
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.queue.insert(ticket, Waiting { arrived: at, work });
        self.count_queue();
        self.at(
            at + queue_deadline(self.average_start),
            Event::Expired(ticket),
        );
        self.dispatch();
        self.act();
    }

    /// Nobody else arrives: what there is is finished, and then it goes on for `tail`.
    pub(crate) fn finish(mut self, tail: Duration) -> Report {
        while self.level.in_flight > 0 || !self.queue.is_empty() {
            let Some(Reverse((at, _, _))) = self.events.peek() else {
                break;
            };
            self.run_until(*at);
        }
        let end = self.last_end.max(self.now) + tail;
        self.run_until(end);
        for index in 0..self.instances.len() {
            if self.instances[index].state != State::Gone {
                self.bill(index);
            }
        }
        let unit = Duration::try_from_secs_f64(self.idle_minimum_seconds).unwrap_or_default();
        let (cpu, memory) = self.size();
        self.idle_minimum.add(unit, cpu, memory);
        self.totals.seconds = end.as_secs_f64();
        self.totals.latency = self.latency.percentiles();
        self.totals.waiting = self.waited.percentiles();
        self.totals.cpu_seconds = self.cpu_time;
        Report::new(
            self.scenario,
            self.totals,
            [self.by_requests, self.by_instances, self.idle_minimum],
            self.timeline.finish(),
        )
    }

    // === time ===

    fn at(&mut self, time: Duration, event: Event) {
        self.serial += 1;
        self.events.push(Reverse((time, self.serial, event)));
    }

    fn run_until(&mut self, until: Duration) {
        while let Some(Reverse((at, _, _))) = self.events.peek()
            && *at <= until
        {
            let Some(Reverse((at, _, event))) = self.events.pop() else {
                break;
            };
            self.advance(at);
            self.happen(event);
        }
        self.advance(until);
    }

    /// Lets time go by in which nothing happens.
    fn advance(&mut self, to: Duration) {
        let seconds = to.saturating_sub(self.now).as_secs_f64();
        if seconds == 0.0 {
            return;
        }
        self.timeline.advance(to, &self.level);
        self.request_time += f64::from(self.level.in_flight) * seconds;
        self.cpu_time += self.level.busy_cpus * seconds;
        let there = self.level.instances + self.level.starting;
        self.totals.instance_seconds += f64::from(there) * seconds;
        let idle = self.level.instances.saturating_sub(self.level.busy);
        let kept = idle.min(self.settings().min);
        self.idle_minimum_seconds += f64::from(kept) * seconds;
        self.now = to;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Started(index, true) => self.started(index),
            Event::Started(index, false) => self.start_failed(index),
            Event::CpuDone(index, generation) => self.cpu_done(index, generation),
            Event::Done(index, arrived, began) => {
                let late = self.now.saturating_sub(began) >= self.scenario.timeout;
                self.end(index, arrived, began, late);
            }
            Event::Expired(ticket) => {
                if let Some(waiting) = self.queue.remove(&ticket) {
                    self.count_queue();
                    self.refuse(waiting.arrived);
                }
            }
            Event::Ended(index) => self.ended(index),
            Event::Wake => {
                if self.wake == Some(self.now) {
                    self.wake = None;
                    self.act();
                }
            }
        }
    }

    // === requests ===

    /// Takes a slot of an instance, if one is free.
    fn take(&mut self) -> Option<usize> {
        let slots = self.settings().concurrency.max(1);
        let instances = &mut self.instances;
        let found = assign(
            &self.ready,
            self.first_free,
            self.share,
            slots,
            |index, limit| {
                let instance = &mut instances[*index];
                let room = instance.in_flight < limit;
                instance.in_flight += u32::from(room);
                room
            },
        )?;
        self.first_free = found.first_free;
        self.ready.get(found.index).copied()
    }

    /// An instance begins to work on a request for which a slot was taken.
    fn begin(&mut self, index: usize, arrived: Duration, work: Work) {
        let now = self.now;
        self.requests += 1;
        self.level.in_flight += 1;
        let waited = now.saturating_sub(arrived);
        self.waited.record(waited);
        self.totals.waited += u64::from(!waited.is_zero());
        let instance = &mut self.instances[index];
        self.level.busy += u32::from(instance.in_flight == 1);
        instance.billable_since.get_or_insert(now);
        if work.cpu.is_zero() {
            let wait = work.wait.min(self.scenario.timeout);
            self.at(now + wait, Event::Done(index, arrived, now));
            return;
        }
        let request = Request {
            arrived,
            began: now,
            wait: work.wait,
        };
        let busy = instance.cpu.busy();
        instance.cpu.add(now, work.cpu, request);
        self.level.busy_cpus += instance.cpu.busy() - busy;
        self.plan_cpu(index);
    }

    fn plan_cpu(&mut self, index: usize) {
        let cpu = &self.instances[index].cpu;
        if let Some(next) = cpu.next() {
            let event = Event::CpuDone(index, cpu.generation);
            self.at(next, event);
        }
    }

    fn cpu_done(&mut self, index: usize, generation: u64) {
        if self.instances[index].cpu.generation != generation {
            return;
        }
        let now = self.now;
        let busy = self.instances[index].cpu.busy();
        while let Some(request) = self.instances[index].cpu.done(now) {
            // What is over its time is answered for the instance; it works on all the same.
            let latest = (request.began + self.scenario.timeout).max(now);
            let event = Event::Done(index, request.arrived, request.began);
            self.at((now + request.wait).min(latest), event);
        }
        self.level.busy_cpus += self.instances[index].cpu.busy() - busy;
        self.plan_cpu(index);
    }

    /// A request ends.
    fn end(&mut self, index: usize, arrived: Duration, began: Duration, late: bool) {
        let now = self.now;
        self.last_end = now;
        if late {
            self.totals.timed_out += 1;
            self.latency.record(began + self.scenario.timeout - arrived);
        } else {
            self.totals.served += 1;
            self.latency.record(now - arrived);
        }
        self.level.in_flight -= 1;
        let instance = &mut self.instances[index];
        instance.in_flight -= 1;
        if instance.in_flight == 0 {
            instance.idle_since = now;
            self.level.busy -= 1;
            self.bill_busy(index);
        }
        if self.instances[index].state == State::Ready {
            self.first_free = 0;
            self.dispatch();
        } else if self.instances[index].in_flight == 0 {
            self.act();
        }
    }

    /// Hands free slots to those who have waited longest.
    fn dispatch(&mut self) {
        while !self.queue.is_empty()
            && let Some(index) = self.take()
        {
            if let Some((_, waiting)) = self.queue.pop_first() {
                self.begin(index, waiting.arrived, waiting.work);
            }
        }
        self.count_queue();
    }

    fn count_queue(&mut self) {
        self.level.queued = u32::try_from(self.queue.len()).unwrap_or(u32::MAX);
        self.totals.most_queued = self.totals.most_queued.max(self.level.queued);
        let bucket = self.timeline.now();
        bucket.most_queued = bucket.most_queued.max(self.level.queued);
    }

    /// A request is answered with 429.
    fn refuse(&mut self, arrived: Duration) {
        self.last_end = self.now;
        self.totals.refused += 1;
        self.timeline.now().refused += 1;
        self.waited.record(self.now.saturating_sub(arrived));
    }

    // === instances ===

    /// Asks the autoscaler, and does what it says.
    fn act(&mut self) {
        let now = self.now;
        let decision = loop {
            let request_time = Duration::try_from_secs_f64(self.request_time).unwrap_or_default();
            self.scaler.record(now, request_time, self.requests);
            self.seen.clear();
            let members = self.members.iter().map(|i| self.instances[*i].member());
            self.seen.extend(members);
            let decision = self.scaler.decide(
                now,
                &self.scenario.settings,
                &self.seen,
                self.level.queued,
                self.level.starting,
            );
            for _ in 0..decision.start {
                self.start();
            }
            if decision.stop > 0 {
                self.scale_in(decision.stop);
            }
            self.stop_drained();
            if !decision.measure_cpu {
                break decision;
            }
            let cpu_time = Duration::try_from_secs_f64(self.cpu_time).unwrap_or_default();
            self.scaler.record_cpu(now, cpu_time);
        };
        if self.share != decision.share {
            self.share = decision.share;
            self.first_free = 0;
        }
        self.resting = decision.resting;
        if self.wake != decision.next {
            self.wake = decision.next;
            if let Some(next) = decision.next {
                self.at(next, Event::Wake);
            }
        }
    }

    fn start(&mut self) {
        let (now, cpus) = (self.now, self.settings().cpus);
        let index = match self.gone.pop() {
            // Events of the one that was there before are not this one's.
            Some(index) => {
                let generation = self.instances[index].cpu.generation + 1;
                self.instances[index] = Instance::new(now, cpus, generation);
                index
            }
            None => {
                self.instances.push(Instance::new(now, cpus, 0));
                self.instances.len() - 1
            }
        };
        self.level.starting += 1;
        self.totals.starts += 1;
        self.timeline.now().starts += 1;
        self.count_instances();
        let took = self.scenario.start_time.draw(&mut self.starts);
        let fails = self.failures.unit() * 100.0 < self.scenario.start_failures;
        self.at(self.now + took, Event::Started(index, !fails));
    }

    fn started(&mut self, index: usize) {
        let now = self.now;
        self.level.starting -= 1;
        self.level.instances += 1;
        let took = now.saturating_sub(self.instances[index].began);
        self.average_start = average_start(self.average_start, took);
        let instance = &mut self.instances[index];
        instance.state = State::Ready;
        instance.ready_at = now;
        instance.idle_since = now;
        self.scaler.instance_ready(Duration::ZERO);
        self.bill_busy(index);
        self.members.push(index);
        self.show_ready();
        self.dispatch();
        self.act();
    }

    fn start_failed(&mut self, index: usize) {
        self.level.starting -= 1;
        self.totals.failed_starts += 1;
        self.bill(index);
        self.scaler.start_failed(self.now, true);
        if self.level.starting == 0 && self.ready.is_empty() {
            // Whoever waits would wait for nothing.
            for waiting in std::mem::take(&mut self.queue).into_values() {
                self.totals.failed += 1;
                self.waited.record(self.now.saturating_sub(waiting.arrived));
                self.last_end = self.now;
            }
            self.count_queue();
        }
        self.act();
    }

    fn scale_in(&mut self, count: u32) {
        let mut left = count;
        for victim in Autoscaler::victims(self.settings(), &self.seen) {
            let index = self.members[victim.index];
            let instance = &mut self.instances[index];
            if left == 0 || instance.state != State::Ready {
                continue;
            }
            if victim.drain || instance.in_flight == 0 {
                instance.state = State::Draining;
                self.level.leaving += 1;
                left -= 1;
            }
        }
        self.show_ready();
    }

    /// Stops those that are to go and have no requests left.
    fn stop_drained(&mut self) {
        let now = self.now;
        for i in 0..self.members.len() {
            let index = self.members[i];
            let instance = &mut self.instances[index];
            if instance.state == State::Draining && instance.in_flight == 0 {
                instance.state = State::Stopping;
                let life = now.saturating_sub(instance.ready_at).as_secs_f64();
                let shortest = self.totals.shortest_life.unwrap_or(f64::INFINITY);
                self.totals.shortest_life = Some(shortest.min(life));
                instance.billable_since.get_or_insert(now);
                self.at(now + self.scenario.stop_time, Event::Ended(index));
            }
        }
    }

    fn ended(&mut self, index: usize) {
        self.members.retain(|member| *member != index);
        self.level.instances -= 1;
        self.level.leaving -= 1;
        self.totals.stops += 1;
        self.bill(index);
        self.act();
    }

    fn show_ready(&mut self) {
        let is_ready = |index: &usize| self.instances[*index].state == State::Ready;
        self.ready.clear();
        self.ready
            .extend(self.members.iter().copied().filter(is_ready));
        self.first_free = 0;
    }

    fn count_instances(&mut self) {
        let most = self.totals.most_instances.max(self.level.serving());
        self.totals.most_instances = most;
    }

    // === bills ===

    fn size(&self) -> (u32, u64) {
        let cpu = millis(self.settings().cpus);
        (cpu, self.scenario.memory_bytes)
    }

    /// What an instance was billable for until now is over.
    fn bill_busy(&mut self, index: usize) {
        let now = self.now;
        let (cpu, memory) = self.size();
        let instance = &mut self.instances[index];
        let Some(since) = instance.billable_since.take() else {
            return;
        };
        // Rounding up does not bill the same moment twice.
        let from = since.max(instance.billed_until);
        let time = lauf_price::Billing::Requests.billed(now.saturating_sub(from));
        instance.billed_until = from + time;
        self.by_requests.add(time, cpu, memory);
    }

    /// An instance is gone, or the world is.
    fn bill(&mut self, index: usize) {
        self.bill_busy(index);
        let (cpu, memory) = self.size();
        let instance = &mut self.instances[index];
        let life = self.now.saturating_sub(instance.began);
        instance.state = State::Gone;
        self.gone.push(index);
        let time = lauf_price::Billing::Instances.billed(life);
        self.by_instances.add(time, cpu, memory);
    }
}

fn millis(cpus: f64) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "CPUs are from 0.01 to 1000"
    )]
    let millis = (cpus * 1000.0).round() as u32;
    millis
}
