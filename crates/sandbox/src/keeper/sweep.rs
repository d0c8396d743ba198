//! Cgroups after their instance: killed, and removed once the kernel lets go of them.

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
        let mut stuck = String::new();
        for group in left {
            let done = group.kill_all().and_then(|()| group.destroy());
            if let Err(e) = done {
                stuck = format!("{}: {e}", group.name());
            }
        }
        if stuck.is_empty() {
            continue;
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

/// Cgroups whose processes are dying.
#[derive(Debug, Default)]
pub(super) struct Dying {
    groups: Vec<(Cgroup, Instant, u32)>,
}

impl Dying {
    /// Removes a cgroup now, or keeps it until that works.
    pub(super) fn bury(&mut self, group: Cgroup) {
        // Whatever escaped the death of the first process; normally nothing.
        if !group.is_empty() {
            let _ = group.kill_all();
        }
        if group.destroy().is_err() {
            self.groups.push((
                group,
                crate::clock::monotonic() + Duration::from_millis(2),
                0,
            ));
        }
    }

    /// When to call [`Self::retry`].
    pub(super) fn next(&self) -> Option<Instant> {
        self.groups.iter().map(|(_, at, _)| *at).min()
    }

    pub(super) fn retry(&mut self, now: Instant) {
        self.groups.retain_mut(|(group, at, tries)| {
            if *at > now {
                return true;
            }
            if group.destroy().is_ok() {
                return false;
            }
            *tries += 1;
            if *tries % 8 == 0 {
                let _ = group.kill_all();
            }
            *at = now + Duration::from_millis(2 << (*tries).min(9));
            true
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }
}
