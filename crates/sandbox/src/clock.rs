//! The edge where time comes in: the keeper's two clocks.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Now, for deadlines and durations.
#[expect(
    clippy::disallowed_methods,
    reason = "the keeper is the I/O edge; its deadlines are real ones"
)]
pub(crate) fn monotonic() -> Instant {
    Instant::now()
}

/// Nanoseconds since the epoch, for the time of a log line.
#[expect(
    clippy::disallowed_methods,
    reason = "the keeper is the I/O edge; log lines carry the wall clock"
)]
pub(crate) fn wall_nanos() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
