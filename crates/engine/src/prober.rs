//! Waits for a port to be listened on, to a tenth of a millisecond.
//!
//! The kernel gives no event when another network namespace starts to listen, so this has to try.
//! Tries come at growing pauses, a thirty-second of the time waited so far: a container that
//! starts in a millisecond is seen at once, and one that takes a minute costs a few hundred tries.
//! Tokio's timers tick in whole milliseconds, which is as long as a whole start, so one thread of
//! its own does it for all instances.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use lauf_model::Clock;
use tokio::sync::oneshot;

use crate::Endpoint;

const SHORTEST_PAUSE: Duration = Duration::from_micros(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// The thread that tries. It ends when this is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Prober {
    jobs: mpsc::Sender<Job>,
}

struct Job {
    endpoint: Arc<dyn Endpoint>,
    port: u16,
    since: Duration,
    due: Duration,
    /// A connection that the kernel has not decided on yet.
    connecting: Option<TcpStream>,
    answer: oneshot::Sender<()>,
}

impl Prober {
    pub(crate) fn start(clock: Arc<dyn Clock>) -> std::io::Result<Self> {
        let (jobs, incoming) = mpsc::channel();
        std::thread::Builder::new()
            .name("lauf-probe".into())
            .spawn(move || run(&*clock, &incoming))?;
        Ok(Self { jobs })
    }

    /// Returns when something listens on `port`. Dropping the future ends the tries.
    pub(crate) async fn listening(&self, endpoint: Arc<dyn Endpoint>, port: u16, now: Duration) {
        let (answer, answered) = oneshot::channel();
        let job = Job {
            endpoint,
            port,
            since: now,
            due: now,
            connecting: None,
            answer,
        };
        if self.jobs.send(job).is_ok() && answered.await.is_ok() {
            return;
        }
        // The thread is gone only when the process is going down.
        std::future::pending::<()>().await;
    }
}

fn run(clock: &dyn Clock, incoming: &mpsc::Receiver<Job>) {
    let mut waiting: BinaryHeap<Reverse<ByDue>> = BinaryHeap::new();
    loop {
        let received = match waiting.peek() {
            None => incoming
                .recv()
                .map_err(|_| mpsc::RecvTimeoutError::Disconnected),
            Some(Reverse(ByDue(first))) => {
                incoming.recv_timeout(first.due.saturating_sub(clock.monotonic()))
            }
        };
        match received {
            Ok(job) => waiting.push(Reverse(ByDue(job))),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) if waiting.is_empty() => return,
            Err(mpsc::RecvTimeoutError::Disconnected) => std::thread::sleep(SHORTEST_PAUSE),
        }
        let now = clock.monotonic();
        while waiting
            .peek()
            .is_some_and(|Reverse(ByDue(job))| job.due <= now)
        {
            let Some(Reverse(ByDue(mut job))) = waiting.pop() else {
                break;
            };
            if job.answer.is_closed() {
                continue;
            }
            if is_listening(&mut job) {
                // Nobody waiting any more is the same as an answer taken.
                let _ = job.answer.send(());
                continue;
            }
            let waited = now.saturating_sub(job.since);
            job.due = now + (waited / 32).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
            waiting.push(Reverse(ByDue(job)));
        }
    }
}

/// One try: begins a connection, or looks how the one begun before went.
fn is_listening(job: &mut Job) -> bool {
    let stream = match job.connecting.take() {
        Some(stream) => stream,
        None => match job.endpoint.connect(job.port) {
            Ok(stream) => stream,
            Err(_) => return false,
        },
    };
    if stream.peer_addr().is_ok() {
        return true;
    }
    if matches!(stream.take_error(), Ok(None)) {
        job.connecting = Some(stream);
    }
    false
}

struct ByDue(Job);

impl PartialEq for ByDue {
    fn eq(&self, other: &Self) -> bool {
        self.0.due == other.0.due
    }
}
impl Eq for ByDue {}
impl PartialOrd for ByDue {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for ByDue {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.due.cmp(&other.0.due)
    }
}
