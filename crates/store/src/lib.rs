//! Desired state, durable.
//!
//! The store keeps every resource the platform was asked for as opaque bytes under a [`Key`], and
//! is the only place that survives a restart. Which type of the model lies under which key stands in
//! one file, `resource.rs`; everything else here knows bytes alone. Its shape is etcd's rather than
//! an ORM's: read one ([`Store::get`]), read many in order ([`Store::list`]), change some if nothing
//! else did ([`Store::write`]), and follow what changes ([`Store::watch`]).
//!
//! How data flows: a [`Txn`] enters a bounded queue; one writer thread takes whatever has queued,
//! applies it in one SQLite transaction with one sync to disk (group commit), then publishes the
//! changes to the watchers, then answers the callers. Readers have read-only connections of their
//! own and never wait for the writer.
//!
//! The laws:
//!
//! 1. **One order.** Every transaction that changes something takes the next [`Version`] of one
//!    store-wide counter. All its changes carry that version, and nothing sees half of it.
//! 2. **Acknowledged is durable.** When [`Store::write`] returns `Ok`, the change is synced to disk:
//!    it survives `kill -9` and loss of power, and opening the store again needs no repair.
//! 3. **Conditions are checked under the same order.** Of many writers that expect one version of
//!    a key, exactly one wins; the others get [`WriteError::Conflict`].
//! 4. **A list is a snapshot**, of the version it names. Watching from that version misses nothing
//!    and repeats nothing.
//! 5. **A watch has no gaps.** Changes come in order; a reader that is slow reads on from disk; a
//!    reader that is slower than the kept history is told so ([`WatchError::Compacted`]).
//! 6. **Everything is bounded:** key and body sizes, the write queue (in entries and bytes), the
//!    page of a list, the history, and what a watcher holds in memory.
#![forbid(unsafe_code)]

mod config;
mod error;
mod history;
mod key;
mod lock;
mod object;
mod read;
mod resource;
mod schema;
mod store;
mod txn;
mod walk;
mod watch;
mod writer;

pub use config::StoreConfig;
pub use error::{OpenError, ReadError, WatchError, WriteError};
pub use key::{Key, Kind, MAX_KEY_PART};
pub use object::{Object, Version};
pub use read::{ListQuery, MAX_PAGE, Page, Scope};
pub use resource::{
    BodyError, PolicyName, PolicyOwner, Resource, ResourceError, Stored, service_of,
};
pub use store::Store;
pub use txn::{Condition, MAX_BODY, MAX_OPS, Op, Txn};
pub use walk::Walk;
pub use watch::{Change, Event, Watch, WatchQuery};
