//! The loop: what happens, in which order, in the keeper.
//!
//! Each turn handles what epoll reports, then what follows from it: starts that wait are matched with zygotes that are ready,
//! logs are committed, the connection is flushed. Zygotes are made, and cgroups of the dead removed, when no start needs the time.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::process::{Signal, pidfd_send_signal};

use super::connection::Connection;
use super::item::{Item, PREPARE_LIMIT, START_LIMIT, State, Waiting};
use super::memory::MemoryEvents;
use super::room::Room;
use super::sweep::Dying;
use crate::cgroup::{CgroupRoot, Limits};
use crate::clock;
use crate::net::Network;
use crate::protocol::{Exited, FailReason};
use crate::settings::KeeperSettings;
use crate::spec::InstanceId;
use crate::spool::{Position, SpoolWriter, Stream};
use crate::sys;
use crate::zygote::{Failure, Template};

/// What an epoll event is about; the item's serial is in the upper bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Listener,
    Connection,
    Signals,
    Process,
    Control,
    Stdout,
    Stderr,
    Oom,
}

const KINDS: [Kind; 8] = [
    Kind::Listener,
    Kind::Connection,
    Kind::Signals,
    Kind::Process,
    Kind::Control,
    Kind::Stdout,
    Kind::Stderr,
    Kind::Oom,
];

pub(super) fn token(kind: Kind, serial: u64) -> epoll::EventData {
    let number = KINDS.iter().position(|k| *k == kind).unwrap_or(0) as u64;
    epoll::EventData::new_u64(serial << 3 | number)
}

fn kind_of(data: u64) -> (Kind, u64) {
    (KINDS[(data & 7) as usize], data >> 3)
}

/// The serial of events that are about no item. Items begin with 1.
const NOBODY: u64 = 0;

/// How often the deadlines of starts are looked at.
const SCAN_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Keeper {
    pub(super) settings: KeeperSettings,
    pub(super) template: Template,
    pub(super) cgroups: Option<CgroupRoot>,
    pub(super) room: Room,
    pub(super) network: Option<Network>,
    pub(super) spool: SpoolWriter,
    pub(super) listener: UnixListener,
    pub(super) signals: OwnedFd,
    pub(super) epoll: OwnedFd,
    pub(super) connection: Option<Connection>,
    pub(super) items: HashMap<u64, Item>,
    pub(super) by_id: HashMap<InstanceId, u64>,
    pub(super) ready: VecDeque<u64>,
    pub(super) preparing: usize,
    /// The limits that zygotes get before it is known what they will become.
    pub(super) usual: Limits,
    pub(super) starting: usize,
    /// When the last spec was handed over.
    pub(super) handed_over: Option<Instant>,
    pub(super) memory_events: MemoryEvents,
    /// How many items have an event of their own for kills.
    pub(super) oom_events: usize,
    pub(super) scanned: Instant,
    /// The zygote that shares the descriptor table right now.
    pub(super) in_slots: Option<u64>,
    pub(super) waiting: VecDeque<Waiting>,
    pub(super) exits: VecDeque<Exited>,
    pub(super) dying: Dying,
    /// Calls of a foreign runtime that tidy up.
    pub(super) helpers: HashSet<u32>,
    /// Instances whose memory ran out and where no kill has been counted yet: serial, when to look, looks so far.
    pub(super) oom_looks: Vec<(u64, Instant, u32)>,
    pub(super) serial: u64,
    pub(super) group_serial: u64,
    pub(super) partial: usize,
    pub(super) logs_seen: Position,
    pub(super) logs_told: bool,
    pub(super) failures: u32,
    pub(super) pool_rests_until: Option<Instant>,
    pub(super) shutting_down: bool,
    pub(super) shutdown_seq: Option<u64>,
    pub(super) buffer: Vec<u8>,
    /// How many descriptors the keeper may have.
    pub(super) max_files: usize,
}

impl Keeper {
    pub(super) fn new(
        settings: KeeperSettings,
        template: Template,
        cgroups: CgroupRoot,
        network: Option<Network>,
        spool: SpoolWriter,
        listener: UnixListener,
        signals: OwnedFd,
    ) -> io::Result<Self> {
        let max_files = super::max_files();
        let room = Room::new(settings.memory_max, settings.max_instances, max_files);
        cgroups
            .limit_memory(room.limit())
            .map_err(|e| io::Error::other(format!("bound the memory of all instances: {e}")))?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(
            &epoll,
            &listener,
            token(Kind::Listener, 0),
            epoll::EventFlags::IN,
        )?;
        epoll::add(
            &epoll,
            &signals,
            token(Kind::Signals, 0),
            epoll::EventFlags::IN,
        )?;
        let memory_events = MemoryEvents::new()?;
        epoll::add(
            &epoll,
            &memory_events.inotify,
            token(Kind::Oom, NOBODY),
            epoll::EventFlags::IN,
        )?;
        Ok(Self {
            settings,
            template,
            cgroups: Some(cgroups),
            room,
            network,
            spool,
            listener,
            signals,
            epoll,
            connection: None,
            items: HashMap::new(),
            by_id: HashMap::new(),
            ready: VecDeque::new(),
            preparing: 0,
            usual: Limits::default(),
            starting: 0,
            handed_over: None,
            memory_events,
            oom_events: 0,
            scanned: clock::monotonic(),
            in_slots: None,
            waiting: VecDeque::new(),
            exits: VecDeque::new(),
            dying: Dying::default(),
            helpers: HashSet::new(),
            oom_looks: Vec::new(),
            serial: 0,
            group_serial: 0,
            partial: 0,
            logs_seen: Position::default(),
            logs_told: false,
            failures: 0,
            pool_rests_until: None,
            shutting_down: false,
            shutdown_seq: None,
            buffer: vec![0; 64 << 10],
            max_files,
        })
    }

    /// Serves until told to shut down; gives the exit code.
    pub(super) fn run(&mut self) -> i32 {
        let mut events = Vec::with_capacity(256);
        loop {
            let timeout = self.timeout().map(|t| Timespec {
                tv_sec: t.as_secs().cast_signed(),
                tv_nsec: i64::from(t.subsec_nanos()),
            });
            events.clear();
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                timeout.as_ref(),
            ) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => {
                    eprintln!("epoll: {e}");
                    return 1;
                }
            }
            let mut asked = false;
            for event in &events {
                let (kind, serial) = kind_of(event.data.u64());
                match kind {
                    Kind::Listener => self.accept(),
                    Kind::Connection => asked |= self.on_connection(serial, event.flags),
                    Kind::Signals => self.on_signals(),
                    Kind::Control => self.on_control(serial),
                    Kind::Stdout => self.on_output(serial, Stream::Stdout),
                    Kind::Stderr => self.on_output(serial, Stream::Stderr),
                    Kind::Oom if serial == NOBODY => self.on_memory_events(),
                    Kind::Oom => self.on_oom(serial),
                    Kind::Process => self.on_exit(serial),
                }
            }
            self.on_deadlines();
            self.match_waiting();
            if !asked || !self.waiting.is_empty() {
                self.grow_pool();
            }
            self.shrink_pool();
            self.tell_logs();
            self.go_on_listing();
            self.flush();
            if self.shutting_down && self.finish_shutdown() {
                return 0;
            }
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let now = clock::monotonic();
        if self.wants_zygote(now) && self.in_slots.is_none() {
            return Some(Duration::ZERO);
        }
        // Deadlines of starts are long; looking at them once a second is exact enough, and costs nothing when there are none.
        let scan = (self.preparing + self.starting > 0).then_some(self.scanned + SCAN_EVERY);
        let next = [
            scan,
            self.dying.next().map(|at| at + self.dying_later()),
            self.refills_at(now),
            self.pool_rests_until,
            self.room.next().filter(|_| !self.waiting.is_empty()),
            self.oom_looks.iter().map(|(_, at, _)| *at).min(),
        ]
        .into_iter()
        .flatten()
        .min();
        next.map(|at| at.saturating_duration_since(now))
    }

    /// When a pool that leaves starts alone is to be filled up.
    fn refills_at(&self, now: Instant) -> Option<Instant> {
        let short = self.ready.len() + self.preparing < self.settings.pool_size as usize;
        self.leaves_starts_alone().filter(|at| short && *at > now)
    }

    /// The dead can wait while somebody's start is under way, but not for ever.
    fn dying_later(&self) -> Duration {
        if self.starting > 0 {
            Duration::from_millis(20)
        } else {
            Duration::ZERO
        }
    }

    fn on_deadlines(&mut self) {
        let now = clock::monotonic();
        let later = self.dying_later();
        if self.dying.next().is_some_and(|at| at + later <= now) {
            self.dying.retry(now);
        }
        if self.pool_rests_until.is_some_and(|until| until <= now) {
            self.pool_rests_until = None;
        }
        self.look_again(now);
        if self.preparing + self.starting == 0 || now < self.scanned + SCAN_EVERY {
            return;
        }
        self.scanned = now;
        for item in self.items.values_mut() {
            match &mut item.state {
                State::Preparing { deadline, .. } if *deadline <= now => {
                    *deadline = now + PREPARE_LIMIT;
                    let _ = pidfd_send_signal(&item.pidfd, Signal::KILL);
                }
                State::Starting { start, .. } if start.deadline <= now => {
                    start.deadline = now + START_LIMIT;
                    let text = format!(
                        "the image could not be mounted and the command executed within {} s",
                        START_LIMIT.as_secs()
                    );
                    start.failure = Some(Failure::new(FailReason::TimedOut, text));
                    let _ = pidfd_send_signal(&item.pidfd, Signal::KILL);
                }
                _ => {}
            }
        }
    }

    fn on_signals(&mut self) {
        for signal in sys::read_signals(self.signals.as_fd()) {
            if signal == libc::SIGCHLD {
                self.reap_strangers();
            } else {
                self.begin_shutdown(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_as_they_went() {
        for kind in KINDS {
            for serial in [0, 1, 77, u64::MAX >> 4] {
                assert_eq!(kind_of(token(kind, serial).u64()), (kind, serial));
            }
        }
    }
}
