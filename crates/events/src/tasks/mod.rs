//! Cloud Tasks: requests that are sent once each, at a time, no faster than a queue allows.
//!
//! A queue is a stream of the [log](crate::log), which says what was added, tried and done, and a task
//! with a mailbox that owns what is still to be done (`backlog`) and sends it (`work`). The laws:
//!
//! 1. **A task that was added is sent** until it succeeds, has failed too often, or is deleted; `kill -9`
//!    and loss of power change nothing about that. It may be sent more than once.
//! 2. **A name is used once**: adding a task of a name that is there, or was there within the last hour,
//!    is refused.
//! 3. **A queue keeps its limits**: of tasks a second, in a burst, and under way at a time.

mod backlog;
mod bucket;
mod queue;
mod service;
mod stored;
mod work;

pub use queue::{Limits, Queue, QueueName, TaskName};
pub use service::{Deps, StartError, Tasks};
pub use stored::{Attempt, HttpRequest, Task};
