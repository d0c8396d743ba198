//! Zygotes: how many there are, and how one is made.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::process::{Signal, pidfd_send_signal};

use super::item::{Control, Item, Output, PREPARE_LIMIT, State};
use crate::clock;
use crate::net::Network;
use crate::protocol::FailReason;
use crate::zygote::{self, Failure, Making};

use super::event_loop::{Keeper, Kind, token};

/// Zygotes being prepared at the same time: more than the CPUs there are would only slow each other down.
const MAX_PREPARING: usize = 4;
/// How long a started container has before the pool is filled up again.
const HEAD_START: Duration = Duration::from_millis(20);
/// After this many failures in a row, waiting starts are told, and the pool pauses.
const MAX_FAILURES: u32 = 3;

impl Keeper {
    pub(super) fn wants_zygote(&self, now: Instant) -> bool {
        if self.shutting_down
            || self.preparing >= MAX_PREPARING
            || self.pool_rests_until.is_some_and(|until| until > now)
        {
            return false;
        }
        self.ready.len() + self.preparing < self.pool_wanted()
            && self.leaves_starts_alone().is_none_or(|until| until <= now)
    }

    /// How many zygotes there should be: those of the pool, and one for each start that waits for nothing else. Of those that wait for
    /// memory, the first asks for it, and needs one to ask with.
    fn pool_wanted(&self) -> usize {
        let waiting = match self.room.is_short() {
            true => self.waiting.len().min(1),
            false => self.waiting.len(),
        };
        self.settings.pool_size as usize + waiting
    }

    /// Until when no zygote is made, so that the containers that were just started have the processors for themselves. Only while
    /// half of the pool is left: after that, starts to come matter as much as those under way.
    pub(super) fn leaves_starts_alone(&self) -> Option<Instant> {
        let plenty =
            self.waiting.is_empty() && self.ready.len() * 2 >= self.settings.pool_size as usize;
        self.handed_over
            .filter(|_| plenty)
            .map(|at| at + HEAD_START)
    }

    pub(super) fn grow_pool(&mut self) {
        if self.in_slots.is_some() || !self.wants_zygote(clock::monotonic()) {
            return;
        }
        self.pool_rests_until = None;
        if let Err(e) = self.spawn_zygote() {
            self.on_pool_failure(&Failure::new(FailReason::Host, e));
        }
    }

    pub(super) fn shrink_pool(&mut self) {
        while self.ready.len() > self.pool_wanted() {
            let Some(serial) = self.ready.pop_back() else {
                return;
            };
            if let Some(item) = self.items.get(&serial) {
                let _ = pidfd_send_signal(&item.pidfd, Signal::KILL);
            }
        }
    }

    pub(super) fn spawn_zygote(&mut self) -> Result<(), String> {
        self.group_serial += 1;
        // Unlike those of an earlier keeper, about which a runtime may still be busy.
        let name = format!("i{}-{}", std::process::id(), self.group_serial);
        let root = self.cgroups.as_ref().ok_or("the keeper is shutting down")?;
        let cgroup = root.create(&name).map_err(|e| e.to_string())?;
        let into = cgroup.clone_into_fd();
        let lease = match self.network.as_mut().map(Network::lease).transpose() {
            Ok(lease) => lease,
            Err(e) => {
                self.dying.bury(cgroup);
                return Err(e.to_string());
            }
        };
        let making = Making {
            cgroup: &cgroup,
            lease: lease.as_ref(),
            usual: self.usual,
        };
        let spawned = match zygote::spawn(&self.template, &making, into.as_ref().map(AsFd::as_fd)) {
            Ok(spawned) => spawned,
            Err(e) => {
                self.dying.bury(cgroup);
                if let (Some(network), Some(lease)) = (&mut self.network, lease) {
                    network.release(lease);
                }
                let _ = zygote::clear_slots();
                return Err(format!("fork an instance: {e}"));
            }
        };
        self.serial += 1;
        let serial = self.serial;
        self.in_slots = Some(serial);
        self.preparing += 1;
        let item = Item {
            pid: spawned.pid,
            pidfd: spawned.pidfd,
            cgroup,
            lease,
            stdout: Output::new(spawned.stdout),
            stderr: Output::new(spawned.stderr),
            oom_event: None,
            state: State::Preparing {
                control: Control::new(spawned.control),
                deadline: clock::monotonic() + PREPARE_LIMIT,
                failed: false,
            },
        };
        let watched = self.watch(&item, serial);
        self.items.insert(serial, item);
        watched.map_err(|e| {
            if let Some(item) = self.items.get(&serial) {
                let _ = pidfd_send_signal(&item.pidfd, Signal::KILL);
            }
            format!("watch an instance: {e}")
        })
    }

    pub(super) fn watch(&self, item: &Item, serial: u64) -> io::Result<()> {
        let add = |fd: BorrowedFd<'_>, kind| {
            epoll::add(&self.epoll, fd, token(kind, serial), epoll::EventFlags::IN)
        };
        add(item.pidfd.as_fd(), Kind::Process)?;
        if let State::Preparing { control, .. } = &item.state {
            add(control.socket().as_fd(), Kind::Control)?;
        }
        for (output, kind) in [(&item.stdout, Kind::Stdout), (&item.stderr, Kind::Stderr)] {
            if let Some(fd) = &output.fd {
                add(fd.as_fd(), kind)?;
            }
        }
        Ok(())
    }

    pub(super) fn release_slots(&mut self, serial: u64) {
        if self.in_slots == Some(serial) {
            self.in_slots = None;
            if let Err(e) = zygote::clear_slots() {
                eprintln!("clear slots: {e}");
            }
        }
    }

    pub(super) fn on_pool_failure(&mut self, failure: &Failure) {
        eprintln!("a pool item failed: {failure}");
        self.failures += 1;
        if self.failures < MAX_FAILURES {
            return;
        }
        self.pool_rests_until = Some(clock::monotonic() + Duration::from_secs(1));
        for waiting in std::mem::take(&mut self.waiting) {
            self.refuse(waiting.asker, waiting.seq, failure);
        }
    }
}
