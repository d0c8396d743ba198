//! How many instances a revision should have: a pure function of demand, settings and a time that is
//! passed in. The gateway's fleet asks it live, the simulator asks the same code on virtual time.
//!
//! Two mechanisms, as in Cloud Run:
//!
//! - **Demand starts instances, at once.** Every queued request that neither a free slot nor a
//!   starting instance will serve asks for one more instance ([`decide`]).
//! - **Windows stop them, gradually.** The average concurrency over a short and a long window, at
//!   [`Settings::target_percent`] of what an instance can take, says how many are still wanted; an
//!   instance goes only when it has been idle for [`Settings::idle_timeout`] *and* more than the
//!   wanted number are there. One idle instance is not a reason to stop while the load comes back.
//!
//! Laws: `decide` never asks for more than the maximum, never lets automatic scale-in go below the
//! minimum, never names a busy instance, and asks for nothing when nothing is wanted.
#![forbid(unsafe_code)]

mod admission;
mod decide;
mod history;

pub use admission::{queue_deadline, queue_limit};
pub use decide::{Decision, Demand, Settings, decide};
pub use history::History;
