//! A start, from the request to the running command.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::epoll;
use rustix::process::{Signal, pidfd_send_signal};

use super::item::{Item, Running, START_LIMIT, Start, State, Waiting};
use crate::cgroup::Limits;
use crate::clock;
use crate::protocol::{FailReason, Phases, Reply};
use crate::spec::ContainerSpec;
use crate::zygote::{Failure, Says, Told};

use super::event_loop::Keeper;
use super::requests::info;
use super::room::Verdict;

/// Starts that may wait for a zygote; more are refused as [`FailReason::Busy`].
const MAX_WAITING: usize = 10_000;
/// For how long a start waits for the memory of what is dying.
const GIVING_BACK: Duration = Duration::from_secs(1);

impl Keeper {
    pub(super) fn refuse(&mut self, asker: u64, seq: u64, failure: &Failure) {
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

    pub(super) fn on_start(&mut self, asker: u64, seq: u64, spec: Box<ContainerSpec>) {
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

    pub(super) fn match_waiting(&mut self) {
        while let Some(waiting) = self.waiting.front()
            && !self.ready.is_empty()
        {
            // What dies gives its memory back a moment after it is gone; each look at the dying is another chance.
            let now = clock::monotonic();
            let may_wait = !self.dying.is_empty()
                && now.saturating_duration_since(waiting.begun) < GIVING_BACK;
            let verdict = self.room.ask(
                now,
                self.cgroups.as_ref(),
                self.by_id.len(),
                waiting.spec.memory_bytes,
                may_wait,
            );
            if verdict == Verdict::Wait {
                return;
            }
            let Some(waiting) = self.waiting.pop_front() else {
                return;
            };
            if let Verdict::Refuse(text) = verdict {
                let failure = Failure::new(FailReason::NoRoom, text);
                self.refuse(waiting.asker, waiting.seq, &failure);
            } else if let Some(serial) = self.ready.pop_front() {
                self.hand_over(serial, waiting);
            }
        }
    }

    pub(super) fn hand_over(&mut self, serial: u64, waiting: Waiting) {
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
        let State::Ready { control, .. } = &item.state else {
            self.waiting.push_front(Waiting {
                seq,
                asker,
                spec,
                begun: asked,
            });
            return;
        };
        let told = Told::Spec(spec);
        let handed = control
            .tell(&told)
            .map_err(|e| format!("hand the spec over: {e}"));
        let Told::Spec(spec) = told else { return };
        self.usual = usual_after(&spec.limits(), self.usual);
        self.handed_over = Some(clock::monotonic());
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
            outlives_asker: spec.outlives_asker,
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

    pub(super) fn on_control(&mut self, serial: u64) {
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
                Says::AddressInUse => self.give_another_address(serial),
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
                        if let Some(Item {
                            state: State::Preparing { failed, .. },
                            ..
                        }) = self.items.get_mut(&serial)
                        {
                            *failed = true;
                        }
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

    pub(super) fn starting(&mut self, serial: u64) -> Option<&mut Start> {
        match self.items.get_mut(&serial).map(|item| &mut item.state) {
            Some(State::Starting { start, .. }) => Some(start),
            _ => None,
        }
    }

    pub(super) fn on_ready(&mut self, serial: u64) {
        let Some(item) = self.items.get_mut(&serial) else {
            return;
        };
        let netns = match File::open(format!("/proc/{}/ns/net", item.pid)) {
            Ok(file) => OwnedFd::from(file),
            // It has died; its exit tells the rest.
            Err(_) => return,
        };
        if let State::Preparing { control, .. } =
            std::mem::replace(&mut item.state, State::Changing)
        {
            item.state = State::Ready { control, netns };
            self.preparing -= 1;
            self.failures = 0;
            self.ready.push_back(serial);
            self.watch_oom(serial);
        }
    }

    fn give_another_address(&mut self, serial: u64) {
        let (Some(network), Some(item)) = (&mut self.network, self.items.get_mut(&serial)) else {
            return;
        };
        let State::Preparing { control, .. } = &item.state else {
            return;
        };
        let told = network
            .lease()
            .map_err(|e| e.to_string())
            .map(Told::Address);
        let told = told.and_then(|told| {
            control.tell(&told).map_err(|e| e.to_string())?;
            Ok(told)
        });
        match told {
            Ok(Told::Address(lease)) => {
                if let Some(old) = item.lease.replace(lease) {
                    network.release(old);
                }
            }
            Ok(Told::Spec(_)) => {}
            Err(text) => {
                eprintln!("an address for an instance: {text}");
                let _ = pidfd_send_signal(&item.pidfd, Signal::KILL);
            }
        }
    }

    pub(super) fn on_started(&mut self, serial: u64) {
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
        } else if let Some(item) = self.items.get(&serial)
            && !start.outlives_asker
        {
            // Who asked is gone, and whoever came instead does not know of it.
            let _ = pidfd_send_signal(&item.pidfd, Signal::KILL);
        }
    }
}

/// What the next spec will probably want, after one that wanted this. A zygote gets ready under these limits, so they must not be ones
/// that it could not live with.
fn usual_after(wanted: &Limits, before: Limits) -> Limits {
    const LEAST_MEMORY: u64 = 64 << 20;
    const LEAST_PIDS: u32 = 16;
    let fits = |value: u64, least: u64| value == 0 || value >= least;
    if fits(wanted.memory_bytes, LEAST_MEMORY) && fits(wanted.pids_max.into(), LEAST_PIDS.into()) {
        *wanted
    } else {
        before
    }
}
