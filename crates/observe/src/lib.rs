//! What happened: the logs of services and of the platform itself.
//!
//! How an entry travels: a container writes a line; [`parse_container_line`] reads it as Cloud Run
//! does; the engine makes a [`LogEntry`] of it and gives it to a [`LogSink`], which never waits;
//! one writer thread appends it to a segment file and offers it to whoever follows
//! ([`LogStore::tail`]). [`LogStore::query`] reads back what a [`Filter`] selects.
//!
//! The laws:
//!
//! 1. **Logging never slows the one who logs.** A full queue drops entries, and the log of the same
//!    resource says how many.
//! 2. **Everything is bounded:** an entry, the queue, the files, a page, the work for one page, a
//!    follower's backlog.
//! 3. **A crash loses at most what was not yet handed to the kernel,** and the store opens without
//!    repair: a torn last line is ignored.
//! 4. **The filter is Cloud Logging's query language,** or an error that names the place and says
//!    what is not supported; never a wrong answer.
#![forbid(unsafe_code)]

mod container;
mod entry;
mod filter;
mod logs;
mod severity;
mod wire;

pub use container::{ParsedLine, parse_container_line};
pub use entry::{HttpRequest, LogEntry, MAX_ENTRY, Operation, Payload, Resource, SourceLocation};
pub use filter::{Filter, FilterError, MAX_FILTER};
pub use logs::{
    LogConfig, LogError, LogSink, LogStore, MAX_PAGE_SIZE, Order, Page, Query, Tail, TailEvent,
};
pub use severity::Severity;
