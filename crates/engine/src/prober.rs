//! Waits for a port to be listened on, to a tenth of a millisecond.
//!
//! The kernel tells when a process begins to listen ([`lauf_sandbox::listening`]); then the instances it may belong to are tried. Where
//! it does not tell, or not in time, tries come at growing pauses, a thirty-second of the time waited so far: a container that starts in
//! a millisecond is seen at once, and one that takes a minute costs a few hundred tries. Tokio's timers tick in whole milliseconds, which
//! is as long as a whole start, so one thread of its own does it for all instances.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use lauf_model::Clock;
use lauf_sandbox::listening::{Listener, Listening, Waker};
use tokio::sync::oneshot;

use crate::Endpoint;

/// The pauses between tries of an instance, at the beginning and at most.
struct Pauses {
    shortest: Duration,
    longest: Duration,
}

/// Without events.
const BLIND: Pauses = Pauses {
    shortest: Duration::from_micros(100),
    longest: Duration::from_millis(50),
};
/// With events, tries are for the case that one was lost.
const TOLD: Pauses = Pauses {
    shortest: Duration::from_millis(5),
    longest: Duration::from_millis(250),
};
/// The event comes when the process is about to listen. So many tries follow at the pauses of those who are not told.
const TRIES_WHEN_TOLD: u32 = 20;

/// The thread that tries. It ends when this is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Prober {
    jobs: mpsc::Sender<Job>,
    waker: Waker,
}

struct Job {
    endpoint: Arc<dyn Endpoint>,
    port: u16,
    since: Duration,
    due: Duration,
    /// Tries left that an event gave reason for.
    told: u32,
    /// A connection that the kernel has not decided on yet.
    connecting: Option<TcpStream>,
    answer: oneshot::Sender<TcpStream>,
}

impl Prober {
    pub(crate) fn start(clock: Arc<dyn Clock>) -> std::io::Result<Self> {
        let (jobs, incoming) = mpsc::channel();
        let (listening, waker) = Listening::new()?;
        std::thread::Builder::new()
            .name("lauf-probe".into())
            .spawn(move || run(&*clock, &incoming, listening))?;
        Ok(Self { jobs, waker })
    }

    /// Returns when something listens on `port`, with a connection to it. Dropping the future ends the tries.
    pub(crate) async fn listening(
        &self,
        endpoint: Arc<dyn Endpoint>,
        port: u16,
        now: Duration,
    ) -> TcpStream {
        let (answer, answered) = oneshot::channel();
        let job = Job {
            endpoint,
            port,
            since: now,
            due: now,
            told: 0,
            connecting: None,
            answer,
        };
        let sent = self.jobs.send(job);
        self.waker.wake();
        if sent.is_ok()
            && let Ok(connection) = answered.await
        {
            return connection;
        }
        // The thread is gone only when the process is going down.
        std::future::pending().await
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        // The thread finds out that nobody is left.
        self.waker.wake();
    }
}

fn run(clock: &dyn Clock, incoming: &mpsc::Receiver<Job>, mut listening: Listening) {
    let pauses = if listening.has_events() { TOLD } else { BLIND };
    // Few at a time, and all of them are looked at when somebody listens: no need for an order.
    let mut waiting: Vec<Job> = Vec::new();
    loop {
        loop {
            match incoming.try_recv() {
                Ok(job) => waiting.push(job),
                Err(mpsc::TryRecvError::Empty) => break,
                Err(mpsc::TryRecvError::Disconnected) if waiting.is_empty() => return,
                Err(mpsc::TryRecvError::Disconnected) => break,
            }
        }
        let now = clock.monotonic();
        let mut place = 0;
        while let Some(job) = waiting.get_mut(place) {
            if job.answer.is_closed() {
                waiting.swap_remove(place);
                continue;
            }
            if job.due <= now {
                if let Some(connection) = connect(job) {
                    // Nobody waiting any more is the same as an answer taken.
                    let _ = waiting.swap_remove(place).answer.send(connection);
                    continue;
                }
                job.due = now + pause(job, &pauses, now);
            }
            place += 1;
        }
        let next = waiting.iter().map(|job| job.due).min();
        let timeout = next.map(|due| due.saturating_sub(clock.monotonic()));
        listening.wait(timeout, |who| {
            let told = |job: &Job| match who {
                Listener::Process(pid) => job.endpoint.may_hold(pid),
                Listener::Unknown => true,
            };
            for job in waiting.iter_mut().filter(|job| told(job)) {
                job.told = TRIES_WHEN_TOLD;
                job.due = Duration::ZERO;
            }
        });
    }
}

/// How long until a job is tried again.
fn pause(job: &mut Job, pauses: &Pauses, now: Duration) -> Duration {
    if let Some(left) = job.told.checked_sub(1) {
        job.told = left;
        return BLIND.shortest;
    }
    let waited = now.saturating_sub(job.since);
    (waited / 32).clamp(pauses.shortest, pauses.longest)
}

/// One try: begins a connection, or looks how the one begun before went.
fn connect(job: &mut Job) -> Option<TcpStream> {
    let stream = match job.connecting.take() {
        Some(stream) => stream,
        None => job.endpoint.connect(job.port).ok()?,
    };
    if stream.peer_addr().is_ok() {
        return Some(stream);
    }
    if matches!(stream.take_error(), Ok(None)) {
        job.connecting = Some(stream);
    }
    None
}
