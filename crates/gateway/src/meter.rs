//! Stop 6: what was served, to whom, in what time.
//!
//! Each thread gathers its records in a buffer of its own and hands it over when it is full or a moment
//! old. The hand-over is a bounded channel: a sink that cannot keep up loses records, counted, and never
//! holds a request up.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Method, StatusCode, Version};
use jiff::Timestamp;
use lauf_engine::Instance;
use lauf_model::{RevisionKey, ServiceKey};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::fields::Known;
use crate::message::RequestHead;
use crate::route::ServiceRoute;

/// Records in a thread's buffer before it is handed over.
const BATCH: usize = 256;
/// How old a record may get in a buffer that does not fill.
const LINGER: Duration = Duration::from_millis(50);
/// Batches that may wait for the sink.
const BACKLOG: usize = 64;

/// One request to a service.
#[derive(Debug, Clone)]
pub struct RequestRecord {
    /// The route it took; names the service.
    pub(crate) route: Arc<ServiceRoute>,
    /// The revision that served it, or would have.
    pub revision: Option<Arc<RevisionKey>>,
    /// The instance that served it, if one did.
    pub instance: Option<Arc<Instance>>,
    /// When it arrived.
    pub received: Timestamp,
    /// From its arrival to the last byte of the response.
    pub latency: Duration,
    /// How much of that it waited for an instance; zero when a slot was free.
    pub waited: Duration,
    /// Its method.
    pub method: Method,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Where it went and who sent it.
    pub(crate) words: Words,
    /// The client's protocol.
    pub protocol: Version,
    /// What the client got.
    pub status: StatusCode,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the response's body.
    pub response_bytes: u64,
    /// The client's address.
    pub remote: IpAddr,
    /// The trace it belongs to; 0 when it was refused before one was made.
    pub trace: u128,
    /// How it ended.
    pub outcome: Outcome,
}

impl RequestRecord {
    /// The service.
    #[must_use]
    pub fn service(&self) -> &ServiceKey {
        &self.route.key
    }

    /// The URL as the client saw it.
    #[must_use]
    pub fn url(&self) -> String {
        let (host, target) = (self.words.get(0), self.words.get(1));
        format!("{}://{host}{target}", self.scheme)
    }

    /// The host the client asked for, as sent.
    #[must_use]
    pub fn host(&self) -> Cow<'_, str> {
        self.words.get(0)
    }

    /// `User-Agent` as sent.
    #[must_use]
    pub fn user_agent(&self) -> Option<Cow<'_, str>> {
        self.words.has(2).then(|| self.words.get(2))
    }

    /// `Referer` as sent.
    #[must_use]
    pub fn referer(&self) -> Option<Cow<'_, str>> {
        self.words.has(3).then(|| self.words.get(3))
    }
}

/// What a record keeps of a head, in one piece: host, target, and the agent and the referer where there are
/// any. So much of each and no more, since many records wait while a sink is slow.
#[derive(Debug, Clone, Default)]
pub(crate) struct Words {
    text: Box<[u8]>,
    ends: [u32; 4],
    has: [bool; 4],
}

/// Bytes of each.
const LONGEST: usize = 4 * 1024;

impl Words {
    pub(crate) fn of(head: &RequestHead) -> Self {
        let all = [
            Some(head.host().as_bytes()),
            Some(head.target().as_bytes()),
            head.fields.get(Known::UserAgent),
            head.fields.get(Known::Referer),
        ];
        let cut = all.map(|word| word.map_or(&[][..], |word| &word[..word.len().min(LONGEST)]));
        let mut end = 0;
        let ends = cut.map(|word| {
            end += u32::try_from(word.len()).unwrap_or(0);
            end
        });
        Self {
            text: cut.concat().into(),
            ends,
            has: all.map(|word| word.is_some()),
        }
    }

    fn has(&self, index: usize) -> bool {
        self.has[index]
    }

    fn get(&self, index: usize) -> Cow<'_, str> {
        let at = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        let start = index
            .checked_sub(1)
            .map_or(0, |before| at(self.ends[before]));
        String::from_utf8_lossy(self.text.get(start..at(self.ends[index])).unwrap_or(&[]))
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The client got the container's whole response.
    Complete,
    /// The gateway refused it or gave up, and this is why.
    Failed(&'static str),
}

/// Takes records. Called on the control runtime, a batch at a time; must not block for long.
pub trait RequestSink: Send + Sync + 'static {
    /// Takes a batch of records, in the order their requests ended on one thread.
    fn record(&self, batch: Vec<RequestRecord>);
}

/// Nobody wants them.
impl RequestSink for () {
    fn record(&self, _: Vec<RequestRecord>) {}
}

/// Where all threads hand their batches to.
#[derive(Clone)]
pub(crate) struct Collector {
    batches: mpsc::Sender<Vec<RequestRecord>>,
    lost: Arc<AtomicU64>,
}

impl Collector {
    pub(crate) fn new(sink: Arc<dyn RequestSink>, control: &Handle) -> Self {
        let (batches, mut inbox) = mpsc::channel::<Vec<RequestRecord>>(BACKLOG);
        let lost = Arc::new(AtomicU64::new(0));
        let reported = Arc::clone(&lost);
        control.spawn(async move {
            while let Some(batch) = inbox.recv().await {
                sink.record(batch);
                match reported.swap(0, Ordering::Relaxed) {
                    0 => {}
                    n => tracing::warn!("{n} request records were lost: their sink is too slow"),
                }
            }
        });
        Self { batches, lost }
    }
}

/// One thread's buffer.
pub(crate) struct Meter {
    collector: Collector,
    buffer: RefCell<Vec<RequestRecord>>,
    flushing: Cell<bool>,
}

impl Meter {
    pub(crate) fn new(collector: Collector) -> Self {
        Self {
            collector,
            buffer: RefCell::default(),
            flushing: Cell::new(false),
        }
    }

    /// Takes a record; `self` is needed again when the buffer is a moment old.
    pub(crate) fn record(self: &Rc<Self>, record: RequestRecord) {
        let mut buffer = self.buffer.borrow_mut();
        if buffer.capacity() == 0 {
            buffer.reserve_exact(BATCH);
        }
        buffer.push(record);
        if buffer.len() >= BATCH {
            drop(buffer);
            self.flush();
        } else if !self.flushing.replace(true) {
            let meter = Rc::clone(self);
            tokio::task::spawn_local(async move {
                tokio::time::sleep(LINGER).await;
                meter.flushing.set(false);
                meter.flush();
            });
        }
    }

    /// Hands over what there is.
    pub(crate) fn flush(&self) {
        let batch = std::mem::take(&mut *self.buffer.borrow_mut());
        if batch.is_empty() {
            return;
        }
        if let Err(refused) = self.collector.batches.try_send(batch) {
            let n = u64::try_from(refused.into_inner().len()).unwrap_or(u64::MAX);
            self.collector.lost.fetch_add(n, Ordering::Relaxed);
        }
    }
}
