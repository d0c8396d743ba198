//! What the server asks, and the connection it asks on.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll;
use rustix::process::{Signal, pidfd_send_signal};

use super::connection::{Connection, LIST_AHEAD};
use super::item::{Item, Running, State};
use crate::net::Network;
use crate::protocol::{Action, Exited, InstanceInfo, Reply, Request, Usage};
use crate::spec::InstanceId;
use crate::spool::Position;
use crate::sys;

use super::event_loop::{Keeper, Kind, token};

impl Keeper {
    pub(super) fn accept(&mut self) {
        let Ok((socket, _)) = self.listener.accept() else {
            return;
        };
        self.serial += 1;
        let serial = self.serial;
        let gateways: Vec<Ipv4Addr> = self
            .network
            .as_ref()
            .map(Network::gateway)
            .into_iter()
            .collect();
        let made = Connection::accept(socket, serial, gateways, &self.settings);
        let made = made.and_then(|connection| {
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
    pub(super) fn on_connection(&mut self, serial: u64, flags: epoll::EventFlags) -> bool {
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

    pub(super) fn say(&mut self, reply: &Reply, fds: Vec<OwnedFd>) {
        if let Some(connection) = &mut self.connection
            && let Err(e) = connection.say(reply, fds)
        {
            eprintln!("connection dropped: {e}");
            self.connection = None;
        }
    }

    pub(super) fn done(&mut self, seq: u64, result: Result<(), String>) {
        self.say(
            &Reply::Done {
                seq,
                fault: result.err(),
            },
            Vec::new(),
        );
    }

    pub(super) fn flush(&mut self) {
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

    pub(super) fn on_request(&mut self, asker: u64, request: Request) {
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
                    connection.listings.push_back((seq, serials));
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

    pub(super) fn go_on_listing(&mut self) {
        loop {
            let Some(connection) = &mut self.connection else {
                return;
            };
            if connection.pending() > LIST_AHEAD {
                return;
            }
            let Some((seq, rest)) = connection.listings.front_mut() else {
                return;
            };
            let seq = *seq;
            let Some(serial) = rest.pop_front() else {
                connection.listings.pop_front();
                let exits: Vec<Exited> = self.exits.iter().cloned().collect();
                for exit in exits {
                    self.say(&Reply::Exited(exit), Vec::new());
                }
                self.done(seq, Ok(()));
                continue;
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

    pub(super) fn usage(&self, ids: Option<Vec<InstanceId>>) -> Vec<(InstanceId, Usage)> {
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

    pub(super) fn act(&mut self, id: &InstanceId, action: Action) -> Result<(), String> {
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
            Action::LimitCpu(millis) => cgroup.set_cpu(millis).map_err(|e| e.to_string()),
        }
    }
}

pub(super) fn info(running: &Running, pid: u32, ip: Option<Ipv4Addr>) -> InstanceInfo {
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
    fn a_process_without_a_handler_would_be_spared() {
        // The test process handles neither, but ignores SIGPIPE as every Rust program.
        assert!(kernel_would_drop(std::process::id(), libc::SIGTERM));
        assert!(!kernel_would_drop(std::process::id(), libc::SIGPIPE));
        assert!(!kernel_would_drop(std::process::id(), libc::SIGCONT));
    }
}
