//! Gives memory back to the system after a burst of work.
//!
//! What the allocator has once had it keeps for later: after a thousand deploys or a list of all services
//! that is more than what the services at zero take.

use std::fs;
use std::time::Duration;

use lauf_sandbox::heap;
use tokio::task::JoinHandle;

/// Between two looks. One costs microseconds.
const EVERY: Duration = Duration::from_secs(2);

/// What has to be worth it: giving back takes a millisecond for each ten mebibytes or so.
const WORTH: u64 = 8 << 20;

/// Growth from one look to the next that means that the work still goes on.
const BUSY: u64 = 1 << 20;

/// Looks now and then, for as long as the server runs.
pub(crate) fn give_back() -> JoinHandle<()> {
    tokio::spawn(async {
        let mut watch = Watch::default();
        loop {
            tokio::time::sleep(EVERY).await;
            if resident().is_some_and(|bytes| watch.look(bytes)) {
                // In a thread of its own: who needs memory meanwhile may wait, but nobody else.
                let _ = tokio::task::spawn_blocking(heap::trim).await;
                watch.left = resident().unwrap_or_default();
            }
        }
    })
}

/// Decides when.
#[derive(Default)]
struct Watch {
    /// What was resident after the last time.
    left: u64,
    /// What was resident at the last look.
    before: u64,
}

impl Watch {
    /// Whether it is time: much has come since the last time, and no more is coming.
    fn look(&mut self, resident: u64) -> bool {
        let grown = resident.saturating_sub(self.before);
        self.before = resident;
        self.left = self.left.min(resident);
        grown < BUSY && resident - self.left >= WORTH
    }
}

/// Bytes of memory of this process that no file backs (proc(5), `/proc/pid/statm`).
fn resident() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = text.split(' ').skip(1).map(str::parse::<u64>);
    let (all, shared) = (pages.next()?.ok()?, pages.next()?.ok()?);
    let page = u64::try_from(rustix::param::page_size()).ok()?;
    Some(all.saturating_sub(shared) * page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_goes_back_once_after_each_burst() {
        const MIB: u64 = 1 << 20;
        let mut watch = Watch::default();
        let mut times = Vec::new();
        for (at, mib) in [10, 30, 50, 50, 20, 20, 20, 27, 27, 29, 29, 20]
            .into_iter()
            .enumerate()
        {
            if watch.look(mib * MIB) {
                times.push(at);
                // So much of it was free.
                watch.left = 20 * MIB;
            }
        }
        // In the middle of the work nothing is given back, and nothing for little.
        assert_eq!(times, [3, 10]);
    }

    #[test]
    fn what_is_given_back_is_no_longer_resident() {
        // Small ones, which come from the heap and not from the system one by one, and one that keeps its end.
        let many: Vec<_> = (0..65_536).map(|_| vec![1_u8; 1024]).collect();
        let last = vec![1_u8; 1024];
        let held = resident().unwrap();
        drop(many);
        heap::trim();
        let after = resident().unwrap();
        // Other tests run meanwhile.
        assert!(held.saturating_sub(after) >= 32 << 20, "{held} {after}");
        drop(last);
    }
}
