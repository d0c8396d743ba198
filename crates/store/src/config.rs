//! The settings of a store.

use std::num::NonZeroUsize;

/// How much a store may hold and keep. The defaults suit one machine.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// How many changes stay readable for watchers that come late or are slow. Default 20,000.
    pub history_changes: u64,
    /// How many bytes of bodies those changes may hold on disk. Default 64 MiB.
    pub history_bytes: u64,
    /// How many of the newest changes are also held in memory. Default 2,048.
    pub recent_changes: usize,
    /// How many bytes of bodies the changes in memory may hold. Default 8 MiB.
    pub recent_bytes: usize,
    /// How many transactions may wait for the writer. Default 8,192.
    pub queue_len: NonZeroUsize,
    /// How many bytes the waiting transactions may hold. Default 64 MiB.
    pub queue_bytes: usize,
    /// How many reads may run at a time, each on its own connection. Default 4.
    pub readers: NonZeroUsize,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            history_changes: 20_000,
            history_bytes: 64 << 20,
            recent_changes: 2_048,
            recent_bytes: 8 << 20,
            queue_len: const { NonZeroUsize::new(8_192).unwrap() },
            queue_bytes: 64 << 20,
            readers: const { NonZeroUsize::new(4).unwrap() },
        }
    }
}
