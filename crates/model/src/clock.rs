//! Time, passed in. The rest of the workspace may not read the machine's clocks
//! (`clippy.toml` bans it), so tests and the simulator run on virtual time.

use std::sync::Mutex;
use std::time::Duration;

use jiff::Timestamp;

/// A source of time: a wall clock for people and a monotonic one for measuring.
pub trait Clock: Send + Sync + 'static {
    /// Wall-clock time, for timestamps that people and APIs see.
    fn now(&self) -> Timestamp;
    /// Time since an arbitrary fixed point; never goes back. For deadlines and windows.
    fn monotonic(&self) -> Duration;
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    origin: std::time::Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts at zero now.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the clock"
    )]
    pub fn new() -> Self {
        Self {
            origin: std::time::Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the clock"
    )]
    fn now(&self) -> Timestamp {
        Timestamp::try_from(std::time::SystemTime::now()).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }
}

/// A clock that stands still until it is moved. For tests and simulations.
#[derive(Debug, Default)]
pub struct VirtualClock {
    elapsed: Mutex<Duration>,
}

impl VirtualClock {
    /// A clock at the Unix epoch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves time forward.
    pub fn advance(&self, by: Duration) {
        *self
            .elapsed
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) += by;
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        let elapsed = jiff::SignedDuration::try_from(self.monotonic()).unwrap_or_default();
        Timestamp::UNIX_EPOCH + elapsed
    }

    fn monotonic(&self) -> Duration {
        *self
            .elapsed
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
