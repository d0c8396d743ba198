//! How many instances a revision should have: pure functions of demand, settings and a time that is
//! passed in. The gateway's fleet asks them live, the simulator asks the same code on virtual time.
//!
//! Two mechanisms, as in Cloud Run:
//!
//! - **Demand starts instances, at once.** Every queued request that neither a free slot nor a
//!   starting instance will serve asks for one more instance.
//! - **Windows start and stop them, gradually.** What was used on average of the instances' slots and
//!   CPUs, against a [`Target`] for each, says how many there should be ([`Rules::CloudRun`]; with
//!   [`Rules::Knative`], Knative's windows and targets do). More are started; fewer are left only when
//!   the others have been idle for [`Settings::idle_timeout`]. One idle instance is not a reason to stop
//!   while the load comes back.
//!
//! Beside them what else is decided about instances and waiting: how long and in what company a request
//! waits ([`queue_deadline`], [`queue_limit`]), which instance gets it ([`assign`]), how a service's
//! counts are divided over its revisions ([`split`]), how long starts that fail are paused for
//! ([`Failures`]). [`Autoscaler`] holds what one revision's decisions need to remember.
//!
//! Laws: no decision asks for more than the maximum, takes automatic scale-in below the minimum, names a
//! busy instance (unless the maximum was lowered or the count is manual, and then it finishes what it
//! has), or wakes a revision that nobody asks for.
#![forbid(unsafe_code)]

mod admission;
mod assign;
mod autoscaler;
mod decide;
mod failures;
mod history;
mod knative;
mod settings;
mod split;
mod windows;

pub use admission::{average_start, queue_deadline, queue_limit};
pub use assign::{Assigned, assign};
pub use autoscaler::{Autoscaler, Member, Victim};
pub use decide::{Decision, Demand};
pub use failures::{Failures, LIVED_TOO_SHORT};
pub use history::History;
pub use settings::{Kpa, Metric, Rules, Settings, Target, Targets};
pub use split::split;
