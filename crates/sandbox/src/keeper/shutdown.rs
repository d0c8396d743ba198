//! The end of the keeper.

use rustix::process::{Signal, pidfd_send_signal};

use crate::cgroup::CgroupRoot;
use crate::net::Network;
use crate::protocol::FailReason;
use crate::zygote::{self, Failure};

use super::event_loop::Keeper;

impl Keeper {
    pub(super) fn begin_shutdown(&mut self, seq: Option<u64>) {
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

    /// `true` when nothing is left.
    pub(super) fn finish_shutdown(&mut self) -> bool {
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
        // Also what a foreign runtime of an earlier keeper made in hierarchies we do not use.
        if let Err(e) = zygote::remove_cgroup_everywhere(&self.template.cgroup_parent) {
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
