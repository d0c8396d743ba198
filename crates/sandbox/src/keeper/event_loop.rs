//! The loop: what happens, in which order, in the keeper.
//!
//! Each turn handles what epoll reports, then what follows from it: starts that wait are matched with zygotes that are ready,
//! logs are committed, the connection is flushed. Zygotes are made in turns that brought no start, or when a start waits.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use super::connection::{Connection, LIST_AHEAD};
use super::item::{
    Control, Item, Output, PREPARE_LIMIT, Running, START_LIMIT, Start, State, Waiting,
};
use super::sweep::Dying;
use crate::cgroup::{CgroupRoot, Limits};
use crate::clock;
use crate::net::Network;
use crate::protocol::{
    Action, ExitStatus, Exited, FailReason, InstanceInfo, Phases, Reply, Request, Usage,
};
use crate::settings::KeeperSettings;
use crate::spec::{ContainerSpec, InstanceId};
use crate::spool::{Position, Record, SpoolWriter, Stream};
use crate::sys;
use crate::zygote::{self, Failure, Says, Template};

/// What an epoll event is about; the item's serial is in the upper bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
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

fn token(kind: Kind, serial: u64) -> epoll::EventData {
    let number = KINDS.iter().position(|k| *k == kind).unwrap_or(0) as u64;
    epoll::EventData::new_u64(serial << 3 | number)
}

fn kind_of(data: u64) -> (Kind, u64) {
    (KINDS[(data & 7) as usize], data >> 3)
}

/// Starts that may wait for a zygote; more are refused as [`FailReason::Busy`].
const MAX_WAITING: usize = 10_000;
/// Exits kept for a server that does not come back; the oldest go first.
const MAX_EXITS: usize = 20_000;
/// Zygotes being prepared at the same time: more than the CPUs there are would only slow each other down.
const MAX_PREPARING: usize = 4;
/// What all partial lines together may hold before they are cut early.
const MAX_PARTIAL: usize = 32 << 20;
/// When to look for the kill that an out-of-memory event announces; doubled each time.
const OOM_LOOK_AGAIN: Duration = Duration::from_millis(2);
/// After this many looks (two seconds) the kernel has found memory elsewhere.
const OOM_LOOKS: u32 = 9;
/// How often the deadlines of starts are looked at.
const SCAN_EVERY: Duration = Duration::from_secs(1);
/// After this many failures in a row, waiting starts are told, and the pool pauses.
const MAX_FAILURES: u32 = 3;

pub(super) struct Keeper {
    settings: KeeperSettings,
    template: Template,
    cgroups: Option<CgroupRoot>,
    network: Option<Network>,
    spool: SpoolWriter,
    listener: UnixListener,
    signals: OwnedFd,
    epoll: OwnedFd,
    connection: Option<Connection>,
    items: HashMap<u64, Item>,
    by_id: HashMap<InstanceId, u64>,
    ready: VecDeque<u64>,
    preparing: usize,
    starting: usize,
    scanned: Instant,
    /// The zygote that shares the descriptor table right now.
    in_slots: Option<u64>,
    waiting: VecDeque<Waiting>,
    exits: VecDeque<Exited>,
    dying: Dying,
    /// Calls of a foreign runtime that tidy up.
    helpers: HashSet<u32>,
    /// Instances whose memory ran out and where no kill has been counted yet: serial, when to look, looks so far.
    oom_looks: Vec<(u64, Instant, u32)>,
    serial: u64,
    group_serial: u64,
    partial: usize,
    logs_seen: Position,
    logs_told: bool,
    failures: u32,
    pool_rests_until: Option<Instant>,
    shutting_down: bool,
    shutdown_seq: Option<u64>,
    buffer: Vec<u8>,
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
        Ok(Self {
            settings,
            template,
            cgroups: Some(cgroups),
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
            starting: 0,
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
            self.dying.next(),
            self.pool_rests_until,
            self.oom_looks.iter().map(|(_, at, _)| *at).min(),
        ]
        .into_iter()
        .flatten()
        .min();
        next.map(|at| at.saturating_duration_since(now))
    }

    // --- the connection ---

    fn accept(&mut self) {
        let Ok((socket, _)) = self.listener.accept() else {
            return;
        };
        self.serial += 1;
        let serial = self.serial;
        let gateways: Vec<Ipv4Addr> = self
            .network
            .as_ref()
            .map(Network::gateways)
            .unwrap_or_default();
        let made = Connection::accept(socket, serial, gateways).and_then(|connection| {
            epoll::add(
                &self.epoll,
                &connection.socket,
                token(Kind::Connection, serial),
                epoll::EventFlags::IN,
            )?;
            Ok(connection)
        });
        match made {
            Ok(connection) => {
                // The new server takes over; the old one sees the end of its stream.
                self.connection = Some(connection);
                self.logs_told = false;
                self.logs_seen = Position::default();
            }
            Err(e) => eprintln!("connection refused: {e}"),
        }
    }

    /// `true` when a start was asked for.
    fn on_connection(&mut self, serial: u64, flags: epoll::EventFlags) -> bool {
        let Some(connection) = self.connection.as_mut().filter(|c| c.serial == serial) else {
            return false;
        };
        if !flags
            .intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR)
        {
            return false;
        }
        let requests = match connection.read() {
            Ok(requests) => requests,
            Err(e) => {
                if e.kind() != io::ErrorKind::UnexpectedEof {
                    eprintln!("connection lost: {e}");
                }
                self.connection = None;
                return false;
            }
        };
        let mut asked = false;
        for request in requests {
            asked |= matches!(request, Request::Start { .. });
            self.on_request(serial, request);
        }
        asked
    }

    fn say(&mut self, reply: &Reply, fds: Vec<OwnedFd>) {
        if let Some(connection) = &mut self.connection
            && let Err(e) = connection.say(reply, fds)
        {
            eprintln!("connection dropped: {e}");
            self.connection = None;
        }
    }

    fn done(&mut self, seq: u64, result: Result<(), String>) {
        self.say(
            &Reply::Done {
                seq,
                fault: result.err(),
            },
            Vec::new(),
        );
    }

    fn flush(&mut self) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        let result = connection.flush().and_then(|empty| {
            if empty == connection.watches_room {
                connection.watches_room = !empty;
                let mut flags = epoll::EventFlags::IN;
                flags.set(epoll::EventFlags::OUT, !empty);
                epoll::modify(
                    &self.epoll,
                    &connection.socket,
                    token(Kind::Connection, connection.serial),
                    flags,
                )?;
            }
            Ok(())
        });
        if result.is_err() {
            self.connection = None;
        }
    }

    fn on_request(&mut self, asker: u64, request: Request) {
        match request {
            Request::Hello { .. } => {}
            Request::Start { seq, spec } => self.on_start(asker, seq, spec),
            Request::Act { seq, id, action } => {
                let result = self.act(&id, action);
                self.done(seq, result);
            }
            Request::Stats { seq, ids } => {
                let usage = self.usage(ids);
                self.say(&Reply::Stats { seq, usage }, Vec::new());
            }
            Request::List { seq } => {
                let running = self
                    .items
                    .iter()
                    .filter(|(_, item)| matches!(item.state, State::Running(_)));
                let serials = running.map(|(serial, _)| *serial).collect();
                if let Some(connection) = &mut self.connection {
                    connection.listing = Some((seq, serials));
                }
            }
            Request::Forget { id } => {
                self.exits.retain(|exit| exit.id != id);
            }
            Request::Configure { seq, pool_size } => {
                self.settings.pool_size = pool_size;
                self.done(seq, Ok(()));
            }
            Request::LogsSeen { position } => {
                self.logs_seen = position;
                self.logs_told = false;
            }
            Request::Shutdown { seq } => self.begin_shutdown(Some(seq)),
        }
    }

    fn go_on_listing(&mut self) {
        loop {
            let Some(connection) = &mut self.connection else {
                return;
            };
            if connection.pending() > LIST_AHEAD {
                return;
            }
            let Some((seq, rest)) = &mut connection.listing else {
                return;
            };
            let seq = *seq;
            let Some(serial) = rest.pop_front() else {
                connection.listing = None;
                self.done(seq, Ok(()));
                let exits: Vec<Exited> = self.exits.iter().cloned().collect();
                for exit in exits {
                    self.say(&Reply::Exited(exit), Vec::new());
                }
                return;
            };
            let Some(Item {
                state: State::Running(running),
                pid,
                lease,
                ..
            }) = self.items.get(&serial)
            else {
                continue;
            };
            // It may be dying this instant; its exit will be told then.
            let Ok(netns) = File::open(format!("/proc/{pid}/ns/net")) else {
                continue;
            };
            let info = info(running, *pid, lease.as_ref().map(|l| l.ip));
            self.say(&Reply::Instance { seq, info }, vec![netns.into()]);
        }
    }

    fn usage(&self, ids: Option<Vec<InstanceId>>) -> Vec<(InstanceId, Usage)> {
        let of = |id: &InstanceId, serial: &u64| {
            let item = self.items.get(serial)?;
            let usage = item.cgroup.usage();
            let usage = Usage {
                cpu: usage.cpu,
                memory_bytes: usage.memory_bytes,
                memory_peak_bytes: usage.memory_peak_bytes,
                throttled: usage.throttled,
            };
            Some((id.clone(), usage))
        };
        match ids {
            Some(ids) => ids
                .iter()
                .filter_map(|id| of(id, self.by_id.get(id)?))
                .collect(),
            None => self
                .by_id
                .iter()
                .filter_map(|(id, serial)| of(id, serial))
                .collect(),
        }
    }

    fn act(&mut self, id: &InstanceId, action: Action) -> Result<(), String> {
        let item = self
            .by_id
            .get(id)
            .and_then(|serial| self.items.get_mut(serial));
        let Some(Item {
            state: State::Running(running),
            pid,
            pidfd,
            cgroup,
            ..
        }) = item
        else {
            return Err(format!("instance {id} is not running"));
        };
        match action {
            Action::Signal(signal) => {
                if !(1..=64).contains(&signal) {
                    return Err(format!(
                        "signal {signal} does not exist; signals go from 1 to 64"
                    ));
                }
                if kernel_would_drop(*pid, signal) {
                    // The first process of a pid namespace is spared by signals it has no handler for. An app that has not
                    // asked for that privilege is to die as it would anywhere else.
                    running.stood_in_for = Some(signal);
                    return pidfd_send_signal(&*pidfd, Signal::KILL).map_err(|e| e.to_string());
                }
                sys::send_signal(pidfd.as_fd(), signal).map_err(|e| e.to_string())
            }
            Action::Kill => {
                running.frozen = false;
                let first = pidfd_send_signal(&*pidfd, Signal::KILL).map_err(|e| e.to_string());
                cgroup.kill_all().map_err(|e| e.to_string()).and(first)
            }
            Action::Freeze => {
                cgroup.freeze().map_err(|e| e.to_string())?;
                running.frozen = true;
                Ok(())
            }
            Action::Thaw => {
                cgroup.thaw().map_err(|e| e.to_string())?;
                running.frozen = false;
                Ok(())
            }
        }
    }

    // --- the pool ---

    fn wants_zygote(&self, now: Instant) -> bool {
        if self.shutting_down
            || self.preparing >= MAX_PREPARING
            || self.pool_rests_until.is_some_and(|until| until > now)
        {
            return false;
        }
        self.ready.len() + self.preparing < self.settings.pool_size as usize + self.waiting.len()
    }

    fn grow_pool(&mut self) {
        if self.in_slots.is_some() || !self.wants_zygote(clock::monotonic()) {
            return;
        }
        self.pool_rests_until = None;
        if let Err(e) = self.spawn_zygote() {
            self.on_pool_failure(&Failure::new(FailReason::Host, e));
        }
    }

    fn shrink_pool(&mut self) {
        while self.ready.len() > self.settings.pool_size as usize + self.waiting.len() {
            let Some(serial) = self.ready.pop_back() else {
                return;
            };
            if let Some(item) = self.items.get(&serial) {
                let _ = pidfd_send_signal(&item.pidfd, Signal::KILL);
            }
        }
    }

    fn spawn_zygote(&mut self) -> Result<(), String> {
        self.group_serial += 1;
        // Unlike those of an earlier keeper, about which a runtime may still be busy.
        let name = format!("i{}-{}", std::process::id(), self.group_serial);
        let root = self.cgroups.as_ref().ok_or("the keeper is shutting down")?;
        let cgroup = root.create(&name).map_err(|e| e.to_string())?;
        let into = cgroup.clone_into_fd();
        let spawned = match zygote::spawn(&self.template, &cgroup, into.as_ref().map(AsFd::as_fd)) {
            Ok(spawned) => spawned,
            Err(e) => {
                self.dying.bury(cgroup);
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
            lease: None,
            stdout: Output::new(spawned.stdout),
            stderr: Output::new(spawned.stderr),
            state: State::Preparing {
                control: Control::new(spawned.control),
                deadline: clock::monotonic() + PREPARE_LIMIT,
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

    fn watch(&self, item: &Item, serial: u64) -> io::Result<()> {
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

    fn release_slots(&mut self, serial: u64) {
        if self.in_slots == Some(serial) {
            self.in_slots = None;
            if let Err(e) = zygote::clear_slots() {
                eprintln!("clear slots: {e}");
            }
        }
    }

    fn on_pool_failure(&mut self, failure: &Failure) {
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

    // --- starts ---

    fn refuse(&mut self, asker: u64, seq: u64, failure: &Failure) {
        if self.connection.as_ref().is_some_and(|c| c.serial == asker) {
            self.say(
                &Reply::StartFailed {
                    seq,
                    reason: failure.reason,
                    text: failure.text.clone(),
                },
                Vec::new(),
            );
        }
    }

    fn on_start(&mut self, asker: u64, seq: u64, spec: Box<ContainerSpec>) {
        let known = self.by_id.contains_key(&spec.id)
            || self.exits.iter().any(|exit| exit.id == spec.id)
            || self
                .waiting
                .iter()
                .any(|waiting| waiting.spec.id == spec.id);
        let refusal = if let Err(e) = spec.validate() {
            Some(Failure::new(FailReason::InvalidSpec, e.to_string()))
        } else if known {
            Some(Failure::new(
                FailReason::IdInUse,
                format!("instance {} exists already", spec.id),
            ))
        } else if self.shutting_down {
            Some(Failure::new(
                FailReason::Busy,
                "the keeper is shutting down",
            ))
        } else if self.waiting.len() >= MAX_WAITING {
            Some(Failure::new(
                FailReason::Busy,
                format!("{MAX_WAITING} starts are waiting already"),
            ))
        } else {
            None
        };
        if let Some(failure) = refusal {
            self.refuse(asker, seq, &failure);
            return;
        }
        self.waiting.push_back(Waiting {
            seq,
            asker,
            spec,
            begun: clock::monotonic(),
        });
        self.match_waiting();
    }

    fn match_waiting(&mut self) {
        while !self.waiting.is_empty() {
            let Some(serial) = self.ready.pop_front() else {
                return;
            };
            let Some(waiting) = self.waiting.pop_front() else {
                return;
            };
            self.hand_over(serial, waiting);
        }
    }

    fn hand_over(&mut self, serial: u64, waiting: Waiting) {
        let Some(item) = self.items.get_mut(&serial) else {
            self.waiting.push_front(waiting);
            return;
        };
        let begun = clock::monotonic();
        let Waiting {
            seq,
            asker,
            spec,
            begun: asked,
        } = waiting;
        let limits = Limits {
            cpu_millis: spec.cpu_millis,
            memory_bytes: spec.memory_bytes,
            pids_max: spec.pids_max,
        };
        let State::Ready { control, .. } = &item.state else {
            self.waiting.push_front(Waiting {
                seq,
                asker,
                spec,
                begun: asked,
            });
            return;
        };
        let handed = item
            .cgroup
            .set_limits(&limits)
            .map_err(|e| e.to_string())
            .and_then(|()| {
                control
                    .send(&spec)
                    .map_err(|e| format!("hand the spec over: {e}"))
            });
        if let Err(text) = handed {
            let _ = pidfd_send_signal(&item.pidfd, Signal::KILL);
            self.refuse(asker, seq, &Failure::new(FailReason::Host, text));
            return;
        }
        let now = clock::monotonic();
        let wait = begun - asked;
        let spec = *spec;
        let start = Box::new(Start {
            seq,
            asker,
            id: spec.id.clone(),
            labels: spec.labels,
            stop_signal: spec.stop_signal,
            begun: asked,
            deadline: now + START_LIMIT,
            // A zygote that had to be waited for for longer than this was not waiting for us.
            phases: Phases {
                wait,
                hand_over: now - begun,
                pooled: wait < Duration::from_micros(100),
                ..Phases::default()
            },
            executing: false,
            created: false,
            silent: false,
            failure: None,
        });
        if let State::Ready { control, netns } = std::mem::replace(&mut item.state, State::Changing)
        {
            item.state = State::Starting {
                control,
                netns,
                start,
            };
            self.starting += 1;
        }
        self.by_id.insert(spec.id, serial);
    }

    fn on_control(&mut self, serial: u64) {
        let Some(item) = self.items.get_mut(&serial) else {
            return;
        };
        if matches!(&item.state, State::Starting { start, .. } if start.silent) {
            return;
        }
        let control = match &mut item.state {
            State::Preparing { control, .. }
            | State::Ready { control, .. }
            | State::Starting { control, .. } => control,
            State::Running(_) | State::Changing => return,
        };
        let (said, ended) = control.read().unwrap_or_else(|e| {
            (
                vec![Says::Failed(Failure::new(
                    FailReason::Host,
                    format!("listen to an instance: {e}"),
                ))],
                true,
            )
        });
        for message in said {
            match message {
                Says::Unshared => self.release_slots(serial),
                Says::Ready => self.on_ready(serial),
                Says::Executing { rootfs, confine } => {
                    if let Some(start) = self.starting(serial) {
                        start.executing = true;
                        start.phases.rootfs = rootfs;
                        start.phases.confine = confine;
                    }
                }
                Says::Created { pid } => self.on_created(serial, pid),
                Says::Failed(failure) => {
                    if self.template.oci.is_some()
                        && let Some(item) = self.items.get(&serial)
                    {
                        // The container may exist by now; without its command it is of no use.
                        let _ = item.cgroup.kill_all();
                    }
                    if let Some(start) = self.starting(serial) {
                        start.failure = Some(failure);
                    } else {
                        self.on_pool_failure(&failure);
                    }
                }
            }
        }
        let start_told = ended && self.starting(serial).is_some();
        if let Some(start) = self.starting(serial).filter(|_| ended) {
            start.silent = true;
            if start.executing && start.failure.is_none() {
                self.on_started(serial);
            }
        }
        if start_told && self.template.oci.is_some() {
            // The container may have come to its end in the meantime.
            self.on_exit(serial);
            return;
        }
        // Otherwise the process is about to end, which tells the rest.
        if ended
            && let Some(item) = self.items.get(&serial)
            && let State::Preparing { control, .. }
            | State::Ready { control, .. }
            | State::Starting { control, .. } = &item.state
        {
            let _ = epoll::delete(&self.epoll, control.socket());
        }
    }

    /// A foreign runtime has made the container: its first process takes the place of the one that called the runtime.
    fn on_created(&mut self, serial: u64, pid: u32) {
        let Some(item) = self.items.get_mut(&serial) else {
            return;
        };
        let opened = i32::try_from(pid)
            .ok()
            .and_then(rustix::process::Pid::from_raw)
            .map_or_else(
                || Err(io::Error::from(io::ErrorKind::InvalidData)),
                |pid| {
                    Ok(rustix::process::pidfd_open(
                        pid,
                        rustix::process::PidfdFlags::empty(),
                    )?)
                },
            );
        let watched = opened.and_then(|pidfd| {
            epoll::add(
                &self.epoll,
                &pidfd,
                token(Kind::Process, serial),
                epoll::EventFlags::IN,
            )?;
            Ok(pidfd)
        });
        match watched {
            Ok(pidfd) => {
                // The caller is on its way to its own end, and is reaped as a stranger.
                item.pid = pid;
                item.pidfd = pidfd;
                if let State::Starting { start, .. } = &mut item.state {
                    start.created = true;
                }
            }
            Err(e) => {
                let _ = item.cgroup.kill_all();
                if let Some(start) = self.starting(serial) {
                    start.failure = Some(Failure::new(
                        FailReason::Host,
                        format!("watch the container: {e}"),
                    ));
                }
            }
        }
    }

    /// Collects children nobody holds: those that called a foreign runtime, and what its containers leave to us.
    fn reap_strangers(&mut self) {
        // Somebody may have become ours by a message that is not read yet.
        let starting: Vec<u64> = self
            .items
            .iter()
            .filter(|(_, item)| matches!(item.state, State::Starting { .. }))
            .map(|(serial, _)| *serial)
            .collect();
        for serial in starting {
            self.on_control(serial);
        }
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        while let Some(pid) = sys::exited_child(options) {
            let held = |items: &HashMap<u64, Item>| {
                items
                    .iter()
                    .find(|(_, item)| item.pid == pid)
                    .map(|(serial, _)| *serial)
            };
            if let Some(serial) = held(&self.items) {
                self.on_exit(serial);
                if held(&self.items).is_some() {
                    // Not to be had now; its own event comes.
                    return;
                }
            } else {
                self.helpers.remove(&pid);
                if let Some(pid) = i32::try_from(pid)
                    .ok()
                    .and_then(rustix::process::Pid::from_raw)
                {
                    let _ = waitid(
                        WaitId::Pid(pid),
                        WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
                    );
                }
            }
        }
    }

    fn starting(&mut self, serial: u64) -> Option<&mut Start> {
        match self.items.get_mut(&serial).map(|item| &mut item.state) {
            Some(State::Starting { start, .. }) => Some(start),
            _ => None,
        }
    }

    fn on_ready(&mut self, serial: u64) {
        let Some(item) = self.items.get_mut(&serial) else {
            return;
        };
        let netns = match File::open(format!("/proc/{}/ns/net", item.pid)) {
            Ok(file) => OwnedFd::from(file),
            // It has died; its exit tells the rest.
            Err(_) => return,
        };
        if let Some(network) = &mut self.network {
            match network.attach(netns.as_fd()) {
                Ok(lease) => item.lease = Some(lease),
                Err(e) => {
                    let _ = pidfd_send_signal(&item.pidfd, Signal::KILL);
                    self.on_pool_failure(&Failure::new(
                        FailReason::Host,
                        format!("attach an instance to the network: {e}"),
                    ));
                    return;
                }
            }
        }
        if let State::Preparing { control, .. } =
            std::mem::replace(&mut item.state, State::Changing)
        {
            item.state = State::Ready { control, netns };
            self.preparing -= 1;
            self.failures = 0;
            self.ready.push_back(serial);
        }
    }

    fn on_started(&mut self, serial: u64) {
        let Some(item) = self.items.get_mut(&serial) else {
            return;
        };
        let State::Starting { netns, start, .. } =
            std::mem::replace(&mut item.state, State::Changing)
        else {
            return;
        };
        self.starting -= 1;
        let mut start = *start;
        start.phases.total = clock::monotonic() - start.begun;
        let running = Running {
            id: start.id,
            labels: start.labels,
            stop_signal: start.stop_signal,
            started_at: clock::wall_nanos(),
            frozen: false,
            oom_event: None,
            oom_kills: 0,
            stood_in_for: None,
        };
        let info = info(&running, item.pid, item.lease.as_ref().map(|l| l.ip));
        item.state = State::Running(Box::new(running));
        if self
            .connection
            .as_ref()
            .is_some_and(|c| c.serial == start.asker)
        {
            self.say(
                &Reply::Started {
                    seq: start.seq,
                    info,
                    phases: start.phases,
                },
                vec![netns],
            );
            // Now, not at the end of the turn: somebody's request is waiting for it.
            self.flush();
        } else if let Some(item) = self.items.get(&serial) {
            // Who asked is gone, and whoever came instead does not know of it.
            let _ = pidfd_send_signal(&item.pidfd, Signal::KILL);
        }
        self.watch_oom(serial);
    }

    /// Out-of-memory kills of processes other than the first have no other event.
    fn watch_oom(&mut self, serial: u64) {
        let Some(item) = self.items.get_mut(&serial) else {
            return;
        };
        let State::Running(running) = &mut item.state else {
            return;
        };
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

    fn on_oom(&mut self, serial: u64) {
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
    fn look_for_oom_kill(&mut self, serial: u64) -> bool {
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

    // --- output ---

    fn on_output(&mut self, serial: u64, stream: Stream) {
        // A bounded share per turn, so that one shouting instance does not keep the others waiting.
        for _ in 0..4 {
            if !self.read_output(serial, stream) {
                return;
            }
        }
    }

    /// Reads once; `false` when there is nothing more now.
    fn read_output(&mut self, serial: u64, stream: Stream) -> bool {
        let Self {
            items,
            spool,
            buffer,
            partial,
            ..
        } = self;
        let Some(item) = items.get_mut(&serial) else {
            return false;
        };
        let id = match &item.state {
            State::Running(running) => running.id.as_str(),
            State::Starting { start, .. } => start.id.as_str(),
            State::Preparing { .. } | State::Ready { .. } | State::Changing => "",
        };
        let output = match stream {
            Stream::Stdout => &mut item.stdout,
            Stream::Stderr | Stream::Dropped => &mut item.stderr,
        };
        let Some(fd) = &output.fd else { return false };
        let time = clock::wall_nanos();
        let mut write = |line: crate::lines::Line<'_>| {
            if !id.is_empty() {
                spool.append(&Record {
                    time,
                    stream,
                    cut: line.cut,
                    continues: line.continues,
                    instance: id,
                    bytes: line.bytes,
                });
            }
        };
        let before = output.lines.held();
        let more = match rustix::io::read(fd, &mut buffer[..]) {
            Ok(0) => {
                output.lines.flush(false, &mut write);
                output.fd = None;
                false
            }
            Ok(count) => {
                output.lines.push(&buffer[..count], &mut write);
                if *partial + output.lines.held() > MAX_PARTIAL + before {
                    output.lines.flush(true, &mut write);
                }
                count == buffer.len()
            }
            Err(rustix::io::Errno::INTR) => true,
            Err(_) => false,
        };
        *partial = (*partial + output.lines.held()).saturating_sub(before);
        more
    }

    fn tell_logs(&mut self) {
        let position = self.spool.commit();
        if !self.logs_told && position > self.logs_seen && self.connection.is_some() {
            self.logs_told = true;
            self.say(&Reply::LogsAdvanced, Vec::new());
        }
    }

    // --- the end of an item ---

    fn on_exit(&mut self, serial: u64) {
        if self.template.oci.is_some() {
            // The one that ended may have named another in its place.
            self.on_control(serial);
            let untold = |start: &Start| start.created && !start.silent;
            if let Some(Item {
                state: State::Starting { start, .. },
                pidfd,
                ..
            }) = self.items.get(&serial)
                && untold(start)
            {
                // Whether its command was executed is still to be said; then this is called again.
                let _ = epoll::delete(&self.epoll, pidfd);
                return;
            }
        }
        let Some(item) = self.items.get(&serial) else {
            return;
        };
        let status = match waitid(
            WaitId::PidFd(item.pidfd.as_fd()),
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
        ) {
            Ok(Some(status)) => status,
            Ok(None) => return,
            Err(e) => {
                eprintln!("wait for an instance: {e}");
                return;
            }
        };
        // Its last words: why a start failed, or that the command was executed after all.
        self.on_control(serial);
        self.release_slots(serial);
        for stream in [Stream::Stdout, Stream::Stderr] {
            while self.read_output(serial, stream) {}
        }
        let Some(mut item) = self.items.remove(&serial) else {
            return;
        };
        let made = matches!(item.state, State::Starting { .. } | State::Running(_));
        self.flush_lines(&mut item);
        let status = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => ExitStatus::Code(code),
            (None, signal) => ExitStatus::Signal {
                signal: signal.unwrap_or(libc::SIGKILL),
                core: status.dumped(),
            },
        };
        match item.state {
            State::Preparing { .. } => {
                self.preparing -= 1;
                if !self.shutting_down {
                    self.on_pool_failure(&Failure::new(
                        FailReason::Host,
                        format!("a process being prepared ended: {status:?}"),
                    ));
                }
            }
            State::Ready { .. } => self.ready.retain(|other| *other != serial),
            State::Changing => {}
            State::Starting { start, .. } => {
                self.starting -= 1;
                self.by_id.remove(&start.id);
                let failure = start
                    .failure
                    .clone()
                    .unwrap_or_else(|| ended_early(status, item.cgroup.oom_kills()));
                self.refuse(start.asker, start.seq, &failure);
            }
            State::Running(running) => {
                self.by_id.remove(&running.id);
                let usage = item.cgroup.usage();
                let exited = Exited {
                    id: running.id,
                    status: match (status, running.stood_in_for) {
                        (
                            ExitStatus::Signal {
                                signal: libc::SIGKILL,
                                core,
                            },
                            Some(signal),
                        ) => ExitStatus::Signal { signal, core },
                        (status, _) => status,
                    },
                    oom: item.cgroup.oom_kills() > 0,
                    cpu: usage.cpu,
                    memory_peak_bytes: usage.memory_peak_bytes,
                    at: clock::wall_nanos(),
                    labels: running.labels,
                };
                // What it said comes before that it is gone.
                self.spool.commit();
                self.exits.push_back(exited.clone());
                if self.exits.len() > MAX_EXITS {
                    self.exits.pop_front();
                }
                self.say(&Reply::Exited(exited), Vec::new());
                self.flush();
            }
        }
        if made && let Some(runtime) = &self.template.oci {
            match runtime.deletion(item.cgroup.name()).spawn() {
                Ok(helper) => drop(self.helpers.insert(helper.id())),
                Err(e) => eprintln!("delete a container: {e}"),
            }
        }
        self.dying.bury(item.cgroup);
        if let (Some(network), Some(lease)) = (&mut self.network, item.lease) {
            network.release(lease);
        }
    }

    /// What is left in the splitters when a stream did not come to its end.
    fn flush_lines(&mut self, item: &mut Item) {
        let id = match &item.state {
            State::Running(running) => running.id.as_str().to_owned(),
            _ => String::new(),
        };
        for (stream, output) in [
            (Stream::Stdout, &mut item.stdout),
            (Stream::Stderr, &mut item.stderr),
        ] {
            self.partial = self.partial.saturating_sub(output.lines.held());
            let time = clock::wall_nanos();
            output.lines.flush(false, |line| {
                if !id.is_empty() {
                    self.spool.append(&Record {
                        time,
                        stream,
                        cut: false,
                        continues: line.continues,
                        instance: &id,
                        bytes: line.bytes,
                    });
                }
            });
        }
    }

    fn on_deadlines(&mut self) {
        let now = clock::monotonic();
        if self.dying.next().is_some_and(|at| at <= now) {
            self.dying.retry(now);
        }
        if self.pool_rests_until.is_some_and(|until| until <= now) {
            self.pool_rests_until = None;
        }
        for (serial, at, tries) in std::mem::take(&mut self.oom_looks) {
            if at > now {
                self.oom_looks.push((serial, at, tries));
            } else if !self.look_for_oom_kill(serial) && tries < OOM_LOOKS {
                let next = now + OOM_LOOK_AGAIN * 2_u32.pow(tries + 1);
                self.oom_looks.push((serial, next, tries + 1));
            }
        }
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

    // --- the end ---

    fn begin_shutdown(&mut self, seq: Option<u64>) {
        self.shutting_down = true;
        self.shutdown_seq = seq.or(self.shutdown_seq);
        for waiting in std::mem::take(&mut self.waiting) {
            self.refuse(
                waiting.asker,
                waiting.seq,
                &Failure::new(FailReason::Busy, "the keeper is shutting down"),
            );
        }
        for item in self.items.values() {
            let _ = pidfd_send_signal(&item.pidfd, Signal::KILL);
            let _ = item.cgroup.kill_all();
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

    /// `true` when nothing is left.
    fn finish_shutdown(&mut self) -> bool {
        if !self.items.is_empty() || !self.dying.is_empty() || !self.helpers.is_empty() {
            return false;
        }
        let mut faults = Vec::new();
        if let Some(config) = self
            .settings
            .network
            .as_ref()
            .and_then(|egress| egress.config().ok())
            && let Err(e) = Network::tear_down(&config)
        {
            faults.push(e.to_string());
        }
        if let Some(Err(e)) = self.cgroups.take().map(CgroupRoot::remove) {
            faults.push(e.to_string());
        }
        if let Some(runtime) = &self.template.oci
            && let Err(e) = zygote::remove_cgroup_everywhere(&runtime.cgroup_parent)
        {
            faults.push(e.to_string());
        }
        let _ = std::fs::remove_file(self.settings.state_dir.join(super::SOCKET_NAME));
        let _ = std::fs::remove_dir(&self.template.stage);
        let fault = if faults.is_empty() {
            Ok(())
        } else {
            Err(faults.join("; "))
        };
        if let Some(seq) = self.shutdown_seq {
            self.done(seq, fault);
        } else if let Err(text) = fault {
            eprintln!("shutdown: {text}");
        }
        self.flush();
        true
    }
}

fn info(running: &Running, pid: u32, ip: Option<Ipv4Addr>) -> InstanceInfo {
    InstanceInfo {
        id: running.id.clone(),
        pid,
        ip,
        started_at: running.started_at,
        frozen: running.frozen,
        labels: running.labels.clone(),
        stop_signal: running.stop_signal,
    }
}

/// Why a zygote with a spec ended without a word.
fn ended_early(status: ExitStatus, oom_kills: u64) -> Failure {
    if oom_kills > 0 {
        let text =
            "the memory limit is too low to start any container: raise memory to 32 MiB or more";
        return Failure::new(FailReason::InvalidSpec, text);
    }
    Failure::new(
        FailReason::Host,
        format!("the process ended before it became the command: {status:?}"),
    )
}

/// Whether the kernel would not deliver a signal to the first process of a pid namespace: it has neither a handler for it
/// nor blocks it, and the signal's default is to end the process.
fn kernel_would_drop(pid: u32, signal: i32) -> bool {
    let harmless = [
        libc::SIGCHLD,
        libc::SIGCONT,
        libc::SIGURG,
        libc::SIGWINCH,
        libc::SIGSTOP,
        libc::SIGTSTP,
        libc::SIGTTIN,
        libc::SIGTTOU,
    ];
    if signal == libc::SIGKILL || harmless.contains(&signal) {
        return false;
    }
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else {
        return false;
    };
    let bit = 1_u64 << (signal - 1);
    let set = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    let Some((caught, ignored, blocked)) = set("SigCgt:")
        .zip(set("SigIgn:"))
        .zip(set("SigBlk:"))
        .map(|((c, i), b)| (c, i, b))
    else {
        return false;
    };
    (caught | ignored | blocked) & bit == 0
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

    #[test]
    fn a_process_without_a_handler_would_be_spared() {
        // The test process handles neither, but ignores SIGPIPE as every Rust program.
        assert!(kernel_would_drop(std::process::id(), libc::SIGTERM));
        assert!(!kernel_would_drop(std::process::id(), libc::SIGPIPE));
        assert!(!kernel_would_drop(std::process::id(), libc::SIGCONT));
    }
}
