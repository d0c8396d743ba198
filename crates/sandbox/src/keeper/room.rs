//! Whether the machine has room for one more instance.
//!
//! Limits of instances are promises that are rarely called in: a thousand idle ones with 512 MiB each fit where they use a megabyte
//! each. So what counts is what is in use. The sum of all is bounded by the kernel, in the cgroup above them; this refuses starts
//! before that bound is met, so that a start is told off rather than somebody's instance killed.
//!
//! A start that was let in takes a moment to use memory. Until then a share is set aside for it, and when memory is short starts wait for
//! each other instead of being refused.

use std::collections::VecDeque;
use std::fs;
use std::time::{Duration, Instant};

use crate::cgroup::CgroupRoot;

/// What is set aside for an instance that has just been let in, if its own limit is not lower.
const SHARE: u64 = 64 << 20;
/// For how long. Then it has what it needs, or asks for more while others see that there is less.
const SETTLING: Duration = Duration::from_secs(1);
/// How long a measurement is good for. Reading the counters of thousands of cgroups takes milliseconds.
const FRESH: Duration = Duration::from_millis(50);
/// The same before somebody is refused.
const NEW: Duration = Duration::from_millis(2);
/// The descriptors that the keeper and the server need besides those of instances, and how many each instance takes of the busier one.
const OTHER_FILES: usize = 2_000;
const FILES_OF_ONE: usize = 3;

/// How much there is.
#[derive(Debug)]
pub(super) struct Room {
    /// The most bytes of all instances together.
    limit: u64,
    /// What the rest of the machine keeps.
    floor: u64,
    /// The most instances.
    most: usize,
    measured: Option<(Instant, Free)>,
    settling: VecDeque<(Instant, u64)>,
    /// The last who asked was to wait.
    short: bool,
}

/// Bytes that are free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Free {
    /// Of what instances may use together.
    of_limit: u64,
    /// Of the machine's, without what it keeps.
    of_machine: u64,
}

/// What is to become of a start.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may go on, and has its share.
    Enter,
    /// Others have to settle first.
    Wait,
    /// There is no room. Holds the sentence for the user.
    Refuse(String),
}

/// The most memory of all instances together when nothing is configured: what the machine has, less a tenth and at least 512 MiB for
/// everything else; of a small machine three quarters.
pub(crate) fn default_limit(total: u64) -> u64 {
    let rest = (total / 10).max(512 << 20).min(total / 4);
    total - rest
}

impl Room {
    /// `files` is how many descriptors a process of the platform may have.
    pub(super) fn new(limit: Option<u64>, most: Option<u32>, files: usize) -> Self {
        let total = meminfo("MemTotal:").unwrap_or(u64::MAX);
        let by_files = files.saturating_sub(OTHER_FILES) / FILES_OF_ONE;
        Self {
            limit: limit.unwrap_or_else(|| default_limit(total)),
            // Instances may fill the machine up to here, whatever else runs on it.
            floor: (total / 50).clamp(64 << 20, 512 << 20),
            most: most.map_or(by_files.max(1), |n| {
                usize::try_from(n).unwrap_or(usize::MAX)
            }),
            measured: None,
            settling: VecDeque::new(),
            short: false,
        }
    }

    /// The bound for the cgroup above all instances.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Decides about one start beside `running` others. With `may_wait` it waits where memory is missing, since some is being given back.
    pub(super) fn ask(
        &mut self,
        now: Instant,
        cgroups: Option<&CgroupRoot>,
        running: usize,
        memory_limit: u64,
        may_wait: bool,
    ) -> Verdict {
        self.settle(now);
        let share = if memory_limit == 0 {
            SHARE
        } else {
            memory_limit.min(SHARE)
        };
        let free = self.free(now, FRESH, cgroups);
        let mut verdict = self.decide(free, running, share);
        // Nobody is refused because of what somebody used who has left since.
        if matches!(verdict, Verdict::Refuse(_)) && !self.is_full(running) {
            let free = self.free(now, NEW, cgroups);
            verdict = self.decide(free, running, share);
            if may_wait && matches!(verdict, Verdict::Refuse(_)) {
                verdict = Verdict::Wait;
            }
        }
        self.short = verdict == Verdict::Wait;
        if verdict == Verdict::Enter {
            self.settling.push_back((now, share));
        }
        verdict
    }

    /// Whether there are as many instances as there may be.
    fn is_full(&self, running: usize) -> bool {
        running >= self.most
    }

    /// Whether the last who asked is to wait for memory.
    pub(super) fn is_short(&self) -> bool {
        self.short
    }

    /// What is free, by a measurement that is not older than this.
    fn free(&mut self, now: Instant, age: Duration, cgroups: Option<&CgroupRoot>) -> Free {
        match self.measured {
            Some((at, free)) if now.saturating_duration_since(at) < age => free,
            _ => self.measure(now, cgroups),
        }
    }

    fn measure(&mut self, now: Instant, cgroups: Option<&CgroupRoot>) -> Free {
        // Where nothing can be read, nothing is refused.
        let used = cgroups.and_then(CgroupRoot::memory_in_use).unwrap_or(0);
        let available = meminfo("MemAvailable:").unwrap_or(u64::MAX);
        let free = Free {
            of_limit: self.limit.saturating_sub(used),
            of_machine: available.saturating_sub(self.floor),
        };
        self.measured = Some((now, free));
        free
    }

    fn decide(&self, free: Free, running: usize, share: u64) -> Verdict {
        if self.is_full(running) {
            return Verdict::Refuse(format!(
                "{running} instances run on this machine, which is the most (lauf up --max-instances)"
            ));
        }
        let aside: u64 = self.settling.iter().map(|(_, share)| share).sum();
        let fits = |bytes: u64| bytes >= aside.saturating_add(share);
        if fits(free.of_limit) && fits(free.of_machine) {
            return Verdict::Enter;
        }
        if aside > 0 {
            return Verdict::Wait;
        }
        Verdict::Refuse(if fits(free.of_limit) {
            format!(
                "the machine has {} MiB of memory left beside its reserve, with {running} instances running",
                free.of_machine >> 20
            )
        } else {
            format!(
                "{running} instances run, and {} of the {} MiB that all may use together (lauf up --memory) are left",
                free.of_limit >> 20,
                self.limit >> 20
            )
        })
    }

    fn settle(&mut self, now: Instant) {
        while let Some((since, _)) = self.settling.front()
            && now.saturating_duration_since(*since) >= SETTLING
        {
            self.settling.pop_front();
        }
    }

    /// When a start that waits may be asked about again.
    pub(super) fn next(&self) -> Option<Instant> {
        self.settling.front().map(|(since, _)| *since + SETTLING)
    }
}

/// A line of `/proc/meminfo`, in bytes.
pub(crate) fn meminfo(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    fn room(limit: u64, most: usize) -> Room {
        Room {
            limit,
            floor: 0,
            most,
            measured: None,
            settling: VecDeque::new(),
            short: false,
        }
    }

    fn free(of_limit: u64, of_machine: u64) -> Free {
        Free {
            of_limit,
            of_machine,
        }
    }

    #[test]
    fn the_machine_keeps_a_part_for_itself() {
        assert_eq!(default_limit(24 * GIB), 24 * GIB - 24 * GIB / 10);
        assert_eq!(default_limit(4 * GIB), 4 * GIB - 512 * MIB);
        assert_eq!(default_limit(GIB), 768 * MIB);
    }

    #[test]
    fn idle_instances_with_large_limits_fit() {
        // A thousand of 512 MiB each, which use 800 MiB together, on a machine of 4 GiB.
        let room = room(4 * GIB, 6000);
        let verdict = room.decide(free(4 * GIB - 800 * MIB, 3 * GIB), 1000, SHARE);
        assert_eq!(verdict, Verdict::Enter);
    }

    #[test]
    fn starts_wait_for_each_other_and_are_refused_only_when_that_does_not_help() {
        let begun = crate::clock::monotonic();
        let mut room = room(GIB, 100);
        let there = free(150 * MIB, 10 * GIB);
        assert_eq!(room.decide(there, 9, SHARE), Verdict::Enter);
        room.settling.push_back((begun, SHARE));
        assert_eq!(room.decide(there, 10, SHARE), Verdict::Enter);
        room.settling.push_back((begun, SHARE));
        assert_eq!(room.decide(there, 11, SHARE), Verdict::Wait);
        assert_eq!(room.next(), Some(begun + SETTLING));
        // They have settled, and use little.
        room.settle(begun + SETTLING);
        assert_eq!(room.decide(there, 11, SHARE), Verdict::Enter);
        // They have settled, and use all there was.
        let text = "11 instances run, and 20 of the 1024 MiB that all may use together (lauf up --memory) are left";
        assert_eq!(
            room.decide(free(20 * MIB, 10 * GIB), 11, SHARE),
            Verdict::Refuse(text.to_owned())
        );
        let text =
            "the machine has 3 MiB of memory left beside its reserve, with 11 instances running";
        assert_eq!(
            room.decide(free(GIB, 3 * MIB), 11, SHARE),
            Verdict::Refuse(text.to_owned())
        );
        let text = "100 instances run on this machine, which is the most (lauf up --max-instances)";
        assert_eq!(
            room.decide(free(GIB, GIB), 100, SHARE),
            Verdict::Refuse(text.to_owned())
        );
    }

    #[test]
    fn a_small_instance_needs_no_more_than_its_limit() {
        let mut room = room(GIB, 100);
        room.measured = Some((crate::clock::monotonic(), free(40 * MIB, GIB)));
        let now = crate::clock::monotonic();
        assert_eq!(room.ask(now, None, 1, 32 * MIB, false), Verdict::Enter);
        assert_eq!(room.ask(now, None, 2, 32 * MIB, false), Verdict::Wait);
    }

    #[test]
    fn descriptors_bound_the_number() {
        assert_eq!(Room::new(None, None, 20_000).most, 6_000);
        assert_eq!(Room::new(None, Some(7), 20_000).most, 7);
        assert_eq!(Room::new(None, None, 100).most, 1);
    }
}
