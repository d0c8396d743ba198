//! Stop 6: what was served, to whom, in what time.
//!
//! Each thread gathers its records in a buffer of its own and hands it over when it is full or a moment
//! old. The hand-over is a bounded channel: a sink that cannot keep up loses records, counted, and never
//! holds a request up.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode, Uri, Version};
use jiff::Timestamp;
use lauf_engine::Instance;
use lauf_model::{RevisionKey, ServiceKey};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

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
    /// The host the client asked for, as sent.
    pub host: HeaderValue,
    /// The target: path and query.
    pub uri: Uri,
    /// The client's protocol.
    pub protocol: Version,
    /// What the client got.
    pub status: StatusCode,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the response's body.
    pub response_bytes: u64,
    /// `User-Agent` as sent.
    pub user_agent: Option<HeaderValue>,
    /// `Referer` as sent.
    pub referer: Option<HeaderValue>,
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
        let host = String::from_utf8_lossy(self.host.as_bytes());
        let target = self.uri.path_and_query().map_or("/", |p| p.as_str());
        format!("{}://{host}{target}", self.scheme)
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
