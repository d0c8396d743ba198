//! Cgroups after their instance: killed, and removed once the kernel lets go of them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::cgroup::{Cgroup, CgroupRoot};

/// Kills and removes what an earlier keeper of this state directory left behind. Waits for it: a new keeper must not meet
/// processes that hold the old ones' ports, addresses or memory.
pub(super) fn kill_leftovers(root: &CgroupRoot) -> Result<(), String> {
    let deadline = crate::clock::monotonic() + Duration::from_secs(20);
    loop {
        let left = root.leftovers();
        if left.is_empty() {
            return Ok(());
        }
        let mut stuck = "it comes back".to_owned();
        for group in left {
            let done = group.kill_all().and_then(|()| group.destroy());
            if let Err(e) = done {
                stuck = format!("{}: {e}", group.name());
            }
        }
        if crate::clock::monotonic() > deadline {
            return Err(format!(
                "cannot remove the cgroup of an earlier instance: {stuck}"
            ));
        }
        // The kernel has no event for "the last process is gone" on v1; this runs once, before anything is served.
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Cgroups whose processes are dying. The longest dead come first.
#[derive(Debug, Default)]
pub(super) struct Dying {
    groups: VecDeque<(Cgroup, Instant, u32)>,
}

/// How many are removed at a time, so that whoever asks for something in the meantime does not wait for all of them.
const AT_A_TIME: usize = 4;

impl Dying {
    /// Removes a cgroup when there is time.
    pub(super) fn bury(&mut self, group: Cgroup) {
        let now = crate::clock::monotonic();
        self.groups.push_back((group, now, 0));
    }

    /// When to call [`Self::retry`].
    pub(super) fn next(&self) -> Option<Instant> {
        self.groups.iter().map(|(_, at, _)| *at).min()
    }

    /// Removes some of those whose time has come; the others get another time.
    pub(super) fn retry(&mut self, now: Instant) {
        let mut left = AT_A_TIME;
        self.groups.retain_mut(|(group, at, tries)| {
            if *at > now || left == 0 {
                return true;
            }
            left -= 1;
            if group.destroy().is_ok() {
                return false;
            }
            // Whatever escaped the death of the first process; normally nothing.
            if *tries % 8 == 0 {
                let _ = group.kill_all();
            }
            *tries += 1;
            *at = now + Duration::from_millis(1 << (*tries).min(10));
            true
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }
}
