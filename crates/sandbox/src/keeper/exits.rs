//! The end of an item: what it was, what it used, what is left to do.

use std::os::fd::AsFd;

use rustix::event::epoll;
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::item::{Item, Start, State};
use crate::clock;
use crate::protocol::{ExitStatus, Exited, FailReason, Reply};
use crate::spool::Stream;
use crate::zygote::Failure;

use super::event_loop::Keeper;

/// Exits kept for a server that does not come back; the oldest go first.
const MAX_EXITS: usize = 20_000;

impl Keeper {
    pub(super) fn on_exit(&mut self, serial: u64) {
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
        self.memory_events.forget(serial);
        let Some(mut item) = self.items.remove(&serial) else {
            return;
        };
        let made = matches!(item.state, State::Starting { .. } | State::Running(_));
        self.flush_lines(&mut item);
        if item.oom_event.take().is_some() {
            self.oom_events -= 1;
        }
        let status = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => ExitStatus::Code(code),
            (None, signal) => ExitStatus::Signal {
                signal: signal.unwrap_or(libc::SIGKILL),
                core: status.dumped(),
            },
        };
        let status = match &self.template.oci {
            Some(runtime) => runtime.kind.status(status),
            None => status,
        };
        match item.state {
            State::Preparing { failed, .. } => {
                self.preparing -= 1;
                if !failed && !self.shutting_down {
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
                let usage = item.cgroup.final_usage();
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
