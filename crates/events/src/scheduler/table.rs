//! All jobs in memory, and which is due next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::job::{Job, JobName, Last};

/// All jobs, and what is due when.
#[derive(Default)]
pub(super) struct Table {
    pub(super) jobs: BTreeMap<JobName, Entry>,
    pub(super) due: BTreeSet<(Timestamp, JobName)>,
}

/// A job as it is waited for.
pub(super) struct Entry {
    pub(super) job: Arc<Job>,
    /// When it stands in `due`.
    pub(super) due: Option<Timestamp>,
    /// The run under way, if there is one.
    pub(super) run: Option<Run>,
}

/// A run under way: one time that has come, and the attempts at it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// The time that has come.
    pub(super) of: Timestamp,
    /// When it was first tried.
    pub(super) first: Duration,
    pub(super) failures: u32,
}

/// What came of an attempt.
pub(super) struct Ended {
    pub(super) name: JobName,
    pub(super) run: Run,
    pub(super) last: Last,
    pub(super) failures: u32,
    /// How long until it is tried again; without, the run is over.
    pub(super) retry: Option<Duration>,
}

impl Table {
    pub(super) fn schedule(&mut self, name: &JobName, at: Option<Timestamp>) {
        let Some(entry) = self.jobs.get_mut(name) else {
            return;
        };
        if let Some(before) = entry.due.take() {
            self.due.remove(&(before, name.clone()));
        }
        if let Some(at) = at {
            entry.due = Some(at);
            self.due.insert((at, name.clone()));
        }
    }

    /// What a job is after an attempt, and when it is due.
    pub(super) fn settle(
        &mut self,
        ended: Ended,
        now: Timestamp,
    ) -> Option<(Job, Option<Timestamp>)> {
        let Ended {
            name,
            run,
            last,
            failures,
            retry,
        } = ended;
        let entry = self.jobs.get_mut(&name)?;
        // A retry is of this run; without one the run is over.
        entry.run = retry.map(|_| Run { failures, ..run });
        let mut job = (*entry.job).clone();
        job.last = Some(last);
        if job.again > 0 {
            job.again -= 1;
            if retry.is_none() {
                job.next = Some(now);
            }
            return Some((job, Some(now)));
        }
        let due = match retry {
            // The store keeps the time that the run is of, so that a start goes on with it.
            Some(wait) => now
                .checked_add(SignedDuration::try_from(wait).unwrap_or_default())
                .ok(),
            None => {
                job.next = if job.paused {
                    None
                } else {
                    job.due_after(now.max(run.of))
                };
                job.next
            }
        };
        Some((job, due))
    }

    /// Lets each job wait for its first time after now, where it waits for a later one: the clock that
    /// said when has been set back.
    pub(super) fn reckon(&mut self, now: Timestamp) {
        let waiting = self.jobs.iter().filter(|(_, entry)| entry.run.is_none());
        let late: Vec<(JobName, Timestamp)> = waiting
            .filter_map(|(name, entry)| {
                // What is due already is not late.
                let due = entry.due.filter(|due| *due > now)?;
                let first = entry.job.due_after(now)?;
                (due > first).then(|| (name.clone(), first))
            })
            .collect();
        for (name, first) in late {
            if let Some(entry) = self.jobs.get_mut(&name) {
                Arc::make_mut(&mut entry.job).next = Some(first);
            }
            self.schedule(&name, Some(first));
        }
    }

    pub(super) fn remove(&mut self, name: &JobName) {
        self.schedule(name, None);
        self.jobs.remove(name);
    }
}
