//! Processes that the kernel kills for want of memory.

use std::time::{Duration, Instant};

use rustix::event::epoll;

use super::item::{Item, State};
use crate::clock;
use crate::protocol::Reply;

use super::event_loop::{Keeper, Kind, token};

/// When to look for the kill that an out-of-memory event announces; doubled each time.
const OOM_LOOK_AGAIN: Duration = Duration::from_millis(2);
/// After this many looks (two seconds) the kernel has found memory elsewhere.
const OOM_LOOKS: u32 = 9;

/// Process, two pipes, and the event this file is about.
const FILES_PER_ITEM: usize = 4;

impl Keeper {
    /// Out-of-memory kills of processes other than the first have no other event.
    /// When descriptors become scarce they are kept for what no instance can do without; kills are then seen at the exit only.
    pub(super) fn watch_oom(&mut self, serial: u64) {
        let crowded = self.items.len() * FILES_PER_ITEM > self.max_files / 4 * 3;
        let Some(item) = self.items.get_mut(&serial) else {
            return;
        };
        let State::Running(running) = &mut item.state else {
            return;
        };
        if crowded {
            return;
        }
        if let Ok(event) = item.cgroup.oom_event()
            && epoll::add(
                &self.epoll,
                &event,
                token(Kind::Oom, serial),
                epoll::EventFlags::IN,
            )
            .is_ok()
        {
            running.oom_event = Some(event);
        }
    }

    pub(super) fn on_oom(&mut self, serial: u64) {
        if let Some(Item {
            state: State::Running(running),
            ..
        }) = self.items.get(&serial)
            && let Some(event) = &running.oom_event
        {
            let mut drained = [0_u8; 4096];
            let _ = rustix::io::read(event, &mut drained);
        }
        let looking = self.oom_looks.iter().any(|(other, _, _)| *other == serial);
        if !self.look_for_oom_kill(serial) && !looking {
            // The event comes when memory runs out, a moment before the kernel has killed and counted.
            let at = clock::monotonic() + OOM_LOOK_AGAIN;
            self.oom_looks.push((serial, at, 0));
        }
    }

    /// Whether there is nothing left to wait for.
    pub(super) fn look_for_oom_kill(&mut self, serial: u64) -> bool {
        let Some(Item {
            state: State::Running(running),
            cgroup,
            ..
        }) = self.items.get_mut(&serial)
        else {
            return true;
        };
        let kills = cgroup.oom_kills();
        if kills <= running.oom_kills {
            return false;
        }
        running.oom_kills = kills;
        let id = running.id.clone();
        self.say(&Reply::Oom { id }, Vec::new());
        true
    }

    /// Looks where an event promised a kill that was not counted yet.
    pub(super) fn look_again(&mut self, now: Instant) {
        for (serial, at, tries) in std::mem::take(&mut self.oom_looks) {
            if at > now {
                self.oom_looks.push((serial, at, tries));
            } else if !self.look_for_oom_kill(serial) && tries < OOM_LOOKS {
                let next = now + OOM_LOOK_AGAIN * 2_u32.pow(tries + 1);
                self.oom_looks.push((serial, next, tries + 1));
            }
        }
    }
}
