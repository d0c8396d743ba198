//! What only a foreign runtime needs: its container becomes ours, its helpers are reaped.

use std::collections::HashMap;
use std::io;

use rustix::event::epoll;
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::item::{Item, State};
use crate::protocol::FailReason;
use crate::sys;
use crate::zygote::Failure;

use super::event_loop::{Keeper, Kind, token};

impl Keeper {
    /// A foreign runtime has made the container: its first process takes the place of the one that called the runtime.
    pub(super) fn on_created(&mut self, serial: u64, pid: u32) {
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
    pub(super) fn reap_strangers(&mut self) {
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
}
