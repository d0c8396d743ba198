//! What one data-plane thread has for itself, and what all share.

use std::cell::RefCell;
use std::fmt::Write;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Cache};
use lauf_model::Clock;
use tokio::runtime::Handle;
use tokio_rustls::TlsAcceptor;

use crate::config::GatewayConfig;
use crate::drain::Drain;
use crate::face::Face;
use crate::meter::{Collector, Meter};
use crate::random::Random;
use crate::route::{RouteTable, Routes};
use crate::upstream::Upstreams;

/// What all threads share.
pub(crate) struct Shared {
    pub(crate) config: GatewayConfig,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) face: Arc<dyn Face>,
    pub(crate) control: Handle,
    pub(crate) tls: TlsAcceptor,
    pub(crate) routes: Routes,
    pub(crate) collector: Collector,
}

/// One thread's own things.
pub(crate) struct Thread {
    pub(crate) shared: Arc<Shared>,
    pub(crate) routes: RefCell<Cache<Arc<ArcSwap<RouteTable>>, Arc<RouteTable>>>,
    pub(crate) upstreams: Rc<Upstreams>,
    pub(crate) meter: Rc<Meter>,
    pub(crate) random: Random,
    pub(crate) drain: Rc<Drain>,
    date: RefCell<Date>,
}

/// The last `Date` written and its second.
#[derive(Default)]
struct Date {
    second: i64,
    text: String,
}

impl Thread {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let limits = &shared.config.limits;
        Self {
            routes: RefCell::new(Cache::new(Arc::clone(&shared.routes.0))),
            upstreams: Rc::new(Upstreams::new(
                limits.idle_upstreams,
                limits.connect_timeout,
                Arc::clone(&shared.clock),
            )),
            meter: Rc::new(Meter::new(shared.collector.clone())),
            random: Random::new(),
            drain: Rc::default(),
            date: RefCell::default(),
            shared,
        }
    }

    /// Writes the time as `Date` has it (RFC 9110, section 5.6.7).
    pub(crate) fn write_date(&self, to: &mut Vec<u8>) {
        let now = self.shared.clock.now();
        let mut date = self.date.borrow_mut();
        if date.second != now.as_second() || date.text.is_empty() {
            date.second = now.as_second();
            date.text.clear();
            // Writing to a string cannot fail.
            let _ = write!(date.text, "{}", now.strftime("%a, %d %b %Y %H:%M:%S GMT"));
        }
        to.extend_from_slice(date.text.as_bytes());
    }

    pub(crate) fn now(&self) -> Duration {
        self.shared.clock.monotonic()
    }
}
