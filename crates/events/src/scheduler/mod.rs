//! Cloud Scheduler: requests and messages at the times that a schedule says.
//!
//! A job's next time stands in the store. When it has come, the job runs; only when it is done, with
//! its retries, is the next time stored. The laws:
//!
//! 1. **At least once.** A time that has come is acted upon, whatever is killed: a start that finds it in
//!    the past makes up for it, once, however many were missed.
//! 2. **One at a time.** A job that is still running when its next time comes does not run twice; the
//!    next time is the first after it is done.
//! 3. **One timer for all.** Jobs that wait cost memory alone.

mod cron;
mod job;
mod service;
mod table;

pub use cron::{Cron, CronError};
pub use job::{DEFAULT_DEADLINE, Job, JobName, Last, MAX_BODY, Retries, Target};
pub(crate) use job::{check_http, check_identity};
pub use service::{Deps, Scheduler};
