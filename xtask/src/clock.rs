//! The one place that asks the machine for the time.

use std::time::Instant;

/// The current instant.
#[expect(
    clippy::disallowed_methods,
    reason = "a developer's tool measures real time; everything in xtask asks here"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
