//! An instance on virtual time: its requests, and the CPUs that they share.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Duration;

/// What a request asks of an instance: first CPU time, then time in which it only waits for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Work {
    pub(crate) cpu: Duration,
    pub(crate) wait: Duration,
}

impl Work {
    pub(crate) fn new(total: Duration, cpu_share: f64) -> Self {
        let cpu = total.mul_f64(cpu_share.clamp(0.0, 1.0)).min(total);
        Self {
            cpu,
            wait: total - cpu,
        }
    }
}

/// A request that an instance works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) arrived: Duration,
    pub(crate) began: Duration,
    pub(crate) wait: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Starting,
    Ready,
    /// Gets no further requests.
    Draining,
    Stopping,
    Gone,
}

/// An instance.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) state: State,
    pub(crate) began: Duration,
    pub(crate) ready_at: Duration,
    pub(crate) in_flight: u32,
    pub(crate) idle_since: Duration,
    pub(crate) cpu: Cpu,
    /// Since when it is billable when requests are billed.
    pub(crate) billable_since: Option<Duration>,
    /// What is billed already goes until then.
    pub(crate) billed_until: Duration,
}

impl Instance {
    pub(crate) fn new(now: Duration, cpus: f64, generation: u64) -> Self {
        Self {
            state: State::Starting,
            began: now,
            ready_at: now,
            in_flight: 0,
            idle_since: now,
            cpu: Cpu {
                generation,
                ..Cpu::new(now, cpus)
            },
            billable_since: Some(now),
            billed_until: Duration::ZERO,
        }
    }

    /// As the autoscaler sees it.
    pub(crate) fn member(&self) -> lauf_scale::Member {
        lauf_scale::Member {
            ready: true,
            draining: self.state != State::Ready,
            in_flight: self.in_flight,
            idle_since: (self.in_flight == 0).then_some(self.idle_since),
        }
    }
}

/// The CPUs of an instance, shared evenly by the requests that want them; one request uses one at most.
///
/// Instead of following each request, it counts how much CPU time a request that was there from the
/// beginning would have had: a request is done when that has grown by its own.
#[derive(Debug)]
pub(crate) struct Cpu {
    cpus: f64,
    at: Duration,
    /// In nanoseconds.
    had: f64,
    running: BinaryHeap<Running>,
    serial: u64,
    /// Grows whenever the next to be done may be another.
    pub(crate) generation: u64,
}

#[derive(Debug)]
struct Running {
    done_at: f64,
    serial: u64,
    request: Request,
}

impl Cpu {
    fn new(now: Duration, cpus: f64) -> Self {
        Self {
            cpus,
            at: now,
            had: 0.0,
            running: BinaryHeap::new(),
            serial: 0,
            generation: 0,
        }
    }

    /// How many CPUs are busy.
    pub(crate) fn busy(&self) -> f64 {
        self.count().min(self.cpus)
    }

    fn count(&self) -> f64 {
        f64::from(u32::try_from(self.running.len()).unwrap_or(u32::MAX))
    }

    fn speed(&self) -> f64 {
        (self.cpus / self.count().max(1.0)).min(1.0)
    }

    fn advance(&mut self, now: Duration) {
        if self.running.is_empty() {
            // Small numbers are exact.
            self.had = 0.0;
        } else {
            self.had += nanos(now.saturating_sub(self.at)) * self.speed();
        }
        self.at = now;
    }

    /// A request begins to use it.
    pub(crate) fn add(&mut self, now: Duration, cpu: Duration, request: Request) {
        self.advance(now);
        self.serial += 1;
        self.generation += 1;
        self.running.push(Running {
            done_at: self.had + nanos(cpu),
            serial: self.serial,
            request,
        });
    }

    /// When the next request will have had its CPU time, if none comes.
    pub(crate) fn next(&self) -> Option<Duration> {
        let left = (self.running.peek()?.done_at - self.had).max(0.0);
        // Up, so that it is done then.
        let after = (left / self.speed()).ceil();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "whole, not negative, and what is too large is cut to 584 years"
        )]
        let after = Duration::from_nanos(after as u64);
        Some(self.at.saturating_add(after))
    }

    /// Takes out the next one that has had its CPU time.
    pub(crate) fn done(&mut self, now: Duration) -> Option<Request> {
        self.advance(now);
        // Half a nanosecond is a rounding error.
        if self.running.peek()?.done_at > self.had + 0.5 {
            return None;
        }
        self.generation += 1;
        self.running.pop().map(|running| running.request)
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "exact for the 104 days that a request may not take"
)]
fn nanos(duration: Duration) -> f64 {
    duration.as_nanos() as f64
}

// The heap gives the greatest first: the one that is done first is.
impl Ord for Running {
    fn cmp(&self, other: &Self) -> Ordering {
        let done = other.done_at.total_cmp(&self.done_at);
        done.then(other.serial.cmp(&self.serial))
    }
}

impl PartialOrd for Running {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Running {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Running {}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn request(n: u64) -> Request {
        Request {
            arrived: ms(n),
            began: ms(n),
            wait: ms(0),
        }
    }

    #[test]
    fn requests_share_the_cpus() {
        let mut cpu = Cpu::new(ms(0), 1.0);
        cpu.add(ms(0), ms(100), request(0));
        assert_eq!(cpu.next(), Some(ms(100)));
        cpu.add(ms(50), ms(20), request(1));
        // Both at half speed: the second is done after 40 ms, the first has 30 ms left then.
        assert_eq!(cpu.next(), Some(ms(90)));
        assert_eq!(cpu.done(ms(89)), None);
        assert_eq!(cpu.done(ms(90)), Some(request(1)));
        assert_eq!(cpu.next(), Some(ms(120)));
        assert_eq!(cpu.done(ms(120)), Some(request(0)));
        assert_eq!(cpu.next(), None);
    }

    #[test]
    fn one_request_uses_one_cpu_and_half_a_cpu_takes_twice_as_long() {
        let mut two = Cpu::new(ms(0), 2.0);
        two.add(ms(0), ms(100), request(0));
        assert_eq!((two.next(), two.busy()), (Some(ms(100)), 1.0));
        let mut half = Cpu::new(ms(0), 0.5);
        half.add(ms(0), ms(100), request(0));
        assert_eq!((half.next(), half.busy()), (Some(ms(200)), 0.5));
    }
}
