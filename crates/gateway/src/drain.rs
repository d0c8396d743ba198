//! Telling a thread's connections to finish.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;

/// The open connections of one thread. A connection costs an entry here and one comparison each time it
/// is polled, nothing more, until the thread drains.
#[derive(Debug, Default)]
pub(crate) struct Drain {
    draining: Cell<bool>,
    next: Cell<u64>,
    open: RefCell<HashMap<u64, Option<Waker>>>,
    closed: Notify,
}

/// A connection that can be asked to finish what it has and close.
pub(crate) trait Graceful: Future {
    /// No further requests after those begun.
    fn finish(self: Pin<&mut Self>);
}

impl Drain {
    /// How many connections are open.
    pub(crate) fn open(&self) -> usize {
        self.open.borrow().len()
    }

    /// Whether the thread drains.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Counts a connection until the guard is dropped.
    pub(crate) fn enter(self: &Rc<Self>) -> Open {
        let id = self.next.get();
        self.next.set(id + 1);
        self.open.borrow_mut().insert(id, None);
        Open {
            id,
            drain: Rc::clone(self),
            registered: Cell::new(false),
        }
    }

    /// Asks all connections to finish.
    pub(crate) fn begin(&self) {
        self.draining.set(true);
        let wakers: Vec<_> = self
            .open
            .borrow_mut()
            .values_mut()
            .filter_map(Option::take)
            .collect();
        for waker in wakers {
            waker.wake();
        }
        self.closed.notify_waiters();
    }

    /// Waits until fewer than `count` connections are open.
    pub(crate) async fn fewer_than(&self, count: usize) {
        loop {
            let closed = self.closed.notified();
            if self.open() < count {
                return;
            }
            closed.await;
        }
    }
}

/// An open connection's entry.
pub(crate) struct Open {
    id: u64,
    drain: Rc<Drain>,
    registered: Cell<bool>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.drain.open.borrow_mut().remove(&self.id);
        self.drain.closed.notify_waiters();
    }
}

impl Open {
    /// Whether the connection is to finish what it has and close. Has its task woken when that changes;
    /// asked by one task only.
    pub(crate) fn is_to_finish(&self, cx: &mut Context<'_>) -> bool {
        if !self.registered.replace(true)
            && let Some(entry) = self.drain.open.borrow_mut().get_mut(&self.id)
        {
            *entry = Some(cx.waker().clone());
        }
        self.drain.draining.get()
    }

    /// Runs a connection to its end; when the thread drains it is asked to finish.
    pub(crate) async fn watch<C: Graceful>(&self, connection: C) -> C::Output {
        let mut connection = pin!(connection);
        let mut asked = false;
        std::future::poll_fn(|cx: &mut Context<'_>| -> Poll<C::Output> {
            if self.is_to_finish(cx) && !asked {
                asked = true;
                connection.as_mut().finish();
            }
            connection.as_mut().poll(cx)
        })
        .await
    }
}
