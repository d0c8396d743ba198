//! Processes that the kernel kills for want of memory.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::fs::inotify;

use super::item::{Item, State};
use crate::clock;
use crate::protocol::Reply;

use super::event_loop::{Keeper, Kind, token};

/// When to look for the kill that an out-of-memory event announces; doubled each time.
const OOM_LOOK_AGAIN: Duration = Duration::from_millis(2);
/// After this many looks (two seconds) the kernel has found memory elsewhere.
const OOM_LOOKS: u32 = 9;

/// Of the descriptors there may be, one in this many at most goes into events of v1, which takes one for each group. Kills in further
/// instances are seen at the exit only.
const SHARE_OF_FILES: usize = 8;

/// The files of v2 groups whose changes tell of kills, all watched by one descriptor.
#[derive(Debug)]
pub(super) struct MemoryEvents {
    pub(super) inotify: OwnedFd,
    watched: HashMap<i32, u64>,
    watches: HashMap<u64, i32>,
}

impl MemoryEvents {
    pub(super) fn new() -> io::Result<Self> {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        Ok(Self {
            inotify: inotify::init(flags)?,
            watched: HashMap::new(),
            watches: HashMap::new(),
        })
    }

    fn watch(&mut self, file: &Path, serial: u64) -> io::Result<()> {
        let watch = inotify::add_watch(&self.inotify, file, inotify::WatchFlags::MODIFY)?;
        self.watched.insert(watch, serial);
        self.watches.insert(serial, watch);
        Ok(())
    }

    /// Takes a watch away: most kernels keep it, and the file's memory, when the group is removed.
    pub(super) fn forget(&mut self, serial: u64) {
        if let Some(watch) = self.watches.remove(&serial) {
            self.watched.remove(&watch);
            let _ = inotify::remove_watch(&self.inotify, watch);
        }
    }

    /// Whose files have changed since the last call.
    fn changed(&mut self) -> Vec<u64> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut changed = Vec::new();
        while let Ok(event) = events.next() {
            let watch = event.wd();
            changed.extend(self.watched.get(&watch));
        }
        changed.sort_unstable();
        changed.dedup();
        changed
    }
}

impl Keeper {
    /// Out-of-memory kills of processes other than the first have no other event. Asked for while the zygote waits, not when a start
    /// is under way.
    pub(super) fn watch_oom(&mut self, serial: u64) {
        let Some(item) = self.items.get_mut(&serial) else {
            return;
        };
        if let Some(file) = item.cgroup.memory_events() {
            // Not vital, as below.
            let _ = self.memory_events.watch(&file, serial);
            return;
        }
        if self.oom_events >= self.max_files / SHARE_OF_FILES {
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
            item.oom_event = Some(event);
            self.oom_events += 1;
        }
    }

    pub(super) fn on_memory_events(&mut self) {
        for serial in self.memory_events.changed() {
            self.on_oom(serial);
        }
    }

    pub(super) fn on_oom(&mut self, serial: u64) {
        if let Some(Item {
            oom_event: Some(event),
            ..
        }) = self.items.get(&serial)
        {
            let mut drained = [0_u8; 8];
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
