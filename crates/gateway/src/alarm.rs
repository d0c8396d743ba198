//! Deadlines that cost nothing while they are met.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use lauf_model::Clock;
use tokio::time::{Instant, Sleep};

/// One timer for all the deadlines of a task, one after another or several at once. It is not set anew for
/// each of them: it rings at the earliest that was asked for or a while later, and whoever still waits sets
/// it again. A connection that serves a thousand requests a second so sets its timer once a minute.
#[derive(Debug)]
pub(crate) struct Alarm {
    /// The longest it is ever set for, so that the next deadline seldom comes before it.
    longest: Duration,
    set: RefCell<Option<Set>>,
}

#[derive(Debug)]
struct Set {
    sleep: Pin<Box<Sleep>>,
    /// On the clock that deadlines are told by.
    rings: Duration,
}

impl Alarm {
    pub(crate) fn new(longest: Duration) -> Self {
        Self {
            longest,
            set: RefCell::new(None),
        }
    }

    /// Ready once `deadline` has passed. Until then the task is woken at times, to ask again.
    pub(crate) fn poll(
        &self,
        cx: &mut Context<'_>,
        clock: &dyn Clock,
        deadline: Duration,
    ) -> Poll<()> {
        let mut set = self.set.borrow_mut();
        loop {
            if let Some(set) = &mut *set
                && set.rings <= deadline
                && set.sleep.as_mut().poll(cx).is_pending()
            {
                return Poll::Pending;
            }
            let now = clock.monotonic();
            if now >= deadline {
                return Poll::Ready(());
            }
            let after = (deadline - now).min(self.longest);
            let rings = now + after;
            match &mut *set {
                Some(set) => {
                    set.sleep.as_mut().reset(Instant::now() + after);
                    set.rings = rings;
                }
                None => {
                    *set = Some(Set {
                        sleep: Box::pin(tokio::time::sleep(after)),
                        rings,
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;

    use lauf_model::SystemClock;

    use super::*;

    #[tokio::test]
    async fn it_rings_no_earlier_than_asked_and_serves_several_deadlines() {
        let clock = SystemClock::new();
        let alarm = Alarm::new(Duration::from_millis(20));
        let polls = Cell::new(0);
        let wait = |deadline: Duration| {
            let (alarm, clock, polls) = (&alarm, &clock, &polls);
            poll_fn(move |cx| {
                polls.set(polls.get() + 1);
                alarm.poll(cx, clock, deadline)
            })
        };
        // Beyond the longest it is set for, then sooner than it is set for, then what has passed.
        for after in [50, 5, 0] {
            let deadline = clock.monotonic() + Duration::from_millis(after);
            wait(deadline).await;
            assert!(clock.monotonic() >= deadline);
        }
        let early = clock.monotonic() + Duration::from_millis(5);
        let late = early + Duration::from_millis(10);
        poll_fn(|cx| {
            let (early, late) = (alarm.poll(cx, &clock, early), alarm.poll(cx, &clock, late));
            assert!(early.is_ready() || late.is_pending());
            late
        })
        .await;
        assert!(clock.monotonic() >= late && polls.get() < 50);
    }
}
