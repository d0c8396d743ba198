//! One attempt of a task, from its start to its end.

use std::sync::Arc;
use std::time::Duration;

use lauf_engine::{Engine, Exit, ExitReason, Instance, InstanceSpec, InstanceState, StartError};
use lauf_model::{AttemptResult, Clock, Code, InstanceId};
use tokio::sync::{mpsc, watch};

use super::machine::{Outcome, lost};
use super::slots::{Slot, Slots};

/// What a task gets between SIGTERM and SIGKILL (Cloud Run, "Container contract").
const STOP_GRACE: Duration = Duration::from_secs(10);

/// What an attempt tells the execution it belongs to.
#[derive(Debug)]
pub(crate) enum News {
    /// Its start is over; with why, if the host could not do it.
    Started(Result<(), String>),
    /// It has ended.
    Ended {
        index: u32,
        instance: InstanceId,
        outcome: Outcome,
    },
}

/// All that an attempt needs.
pub(crate) struct Attempt {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) slots: Slots,
    /// Given back when the attempt has ended.
    pub(crate) slot: Option<Slot>,
    pub(crate) spec: InstanceSpec,
    pub(crate) index: u32,
    pub(crate) timeout: Duration,
    /// An instance that an earlier server started.
    pub(crate) adopted: Option<Arc<Instance>>,
    /// Turns true when the execution is to end.
    pub(crate) ending: watch::Receiver<bool>,
    pub(crate) news: mpsc::UnboundedSender<News>,
}

impl Attempt {
    /// Runs it to its end. The news are bounded by the tasks there are: two of each attempt.
    pub(crate) async fn run(mut self) {
        let outcome = self.outcome().await;
        drop(self.slot.take());
        // Whoever is not there any more reads it from the keeper in its next life.
        let _ = self.news.send(News::Ended {
            index: self.index,
            instance: self.spec.id.clone(),
            outcome,
        });
    }

    async fn outcome(&mut self) -> Outcome {
        let instance = match self.adopted.take() {
            Some(instance) => instance,
            None => match self.start().await {
                Ok(instance) => instance,
                Err(outcome) => return outcome,
            },
        };
        let ran = self.clock.now().duration_since(instance.started);
        let left = self
            .timeout
            .saturating_sub(Duration::try_from(ran).unwrap_or_default());
        let mut state = instance.state.clone();
        let mut ending = self.ending.clone();
        let timed_out = tokio::select! {
            biased;
            exit = exited(&mut state) => return self.judge(&exit, false),
            () = tokio::time::sleep(left) => true,
            () = turned_true(&mut ending) => false,
        };
        self.engine.stop(&self.spec.id, STOP_GRACE).await;
        let exit = exited(&mut state).await;
        self.judge(&exit, timed_out)
    }

    async fn start(&mut self) -> Result<Arc<Instance>, Outcome> {
        let mut ending = self.ending.clone();
        let permit = tokio::select! {
            biased;
            () = turned_true(&mut ending) => None,
            permit = self.slots.start() => permit,
        };
        let started = match permit {
            // One that may have been started by an earlier server is not among these: it was adopted,
            // or the keeper knows it and the start below finds it.
            None => return Err(Outcome::Cancelled),
            Some(_permit) => self.engine.start(self.spec.clone()).await,
        };
        let told = match &started {
            Err(error) if !error.is_permanent() => Err(error.to_string()),
            _ => Ok(()),
        };
        // As above.
        let _ = self.news.send(News::Started(told));
        started.map_err(|error| match error {
            StartError::Host(_) => Outcome::NotStarted,
            error => Outcome::Failed(AttemptResult {
                exit_code: None,
                signal: None,
                code: Some(match error {
                    StartError::Image(_) => Code::NotFound,
                    StartError::OutOfMemory { .. } => Code::ResourceExhausted,
                    _ => Code::FailedPrecondition,
                }),
                message: error.to_string(),
            }),
        })
    }

    /// What an exit means for the task.
    fn judge(&self, exit: &Exit, timed_out: bool) -> Outcome {
        let failed = |code, message: String| {
            Outcome::Failed(AttemptResult {
                exit_code: exit.code,
                signal: exit.signal,
                code: Some(code),
                message,
            })
        };
        match exit.reason {
            ExitReason::Own | ExitReason::Liveness if exit.code == Some(0) => Outcome::Succeeded,
            ExitReason::Own | ExitReason::Liveness => {
                let how = if exit.signal.is_some() {
                    "The container was ended by a signal."
                } else {
                    "The container exited with an error."
                };
                failed(Code::Unknown, how.to_owned())
            }
            ExitReason::OutOfMemory => {
                let limit = self.spec.container.memory_bytes >> 20;
                let text =
                    format!("Memory limit of {limit} MiB exceeded. Raise the job's memory limit.");
                failed(Code::ResourceExhausted, text)
            }
            ExitReason::Stopped if timed_out => {
                let text = format!(
                    "The configured timeout of {} s was reached.",
                    self.timeout.as_secs()
                );
                failed(Code::DeadlineExceeded, text)
            }
            ExitReason::Stopped => Outcome::Cancelled,
            ExitReason::Lost => lost(),
        }
    }
}

async fn exited(state: &mut watch::Receiver<InstanceState>) -> Exit {
    let seen = state
        .wait_for(|s| matches!(s, InstanceState::Exited(_)))
        .await;
    match seen.as_deref() {
        Ok(InstanceState::Exited(exit)) => exit.clone(),
        // An engine that forgets an instance has lost it.
        _ => Exit {
            code: None,
            signal: None,
            reason: ExitReason::Lost,
            at: jiff::Timestamp::UNIX_EPOCH,
        },
    }
}

async fn turned_true(flag: &mut watch::Receiver<bool>) {
    if flag.wait_for(|set| *set).await.is_err() {
        // The execution's driver is gone with the server, and this with it.
        std::future::pending::<()>().await;
    }
}
