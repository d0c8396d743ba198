//! What instances use of their CPUs, read for all revisions together.
//!
//! The workers of all revisions look at their load at the same moments. What they ask here while an
//! answer is under way is asked of the engine at once, in pieces that do not keep it from starting
//! instances. Nobody asks for a revision without instances.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use lauf_engine::Engine;
use lauf_model::InstanceId;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

/// Questions that may wait; those beyond are left out, and are asked again a little later.
const BACKLOG: usize = 4096;
/// Instances read at once.
const AT_ONCE: usize = 64;

/// The CPU time of each instance that is there, so far.
pub(crate) type CpuReading = oneshot::Receiver<HashMap<InstanceId, Duration>>;

struct Question {
    ids: Vec<InstanceId>,
    reply: oneshot::Sender<HashMap<InstanceId, Duration>>,
}

/// Reads the CPU time of instances. Clones share it.
#[derive(Clone)]
pub(crate) struct CpuMeter(mpsc::Sender<Question>);

impl CpuMeter {
    /// A meter on the control runtime, that ends with the last clone.
    pub(crate) fn new(engine: Arc<dyn Engine>, control: &Handle) -> Self {
        let (questions, inbox) = mpsc::channel(BACKLOG);
        control.spawn(answer(engine, inbox));
        Self(questions)
    }

    /// Begins to read these. `None` when too much is asked already.
    pub(crate) fn read(&self, ids: Vec<InstanceId>) -> Option<CpuReading> {
        let (reply, answer) = oneshot::channel();
        self.0.try_send(Question { ids, reply }).ok()?;
        Some(answer)
    }
}

async fn answer(engine: Arc<dyn Engine>, mut inbox: mpsc::Receiver<Question>) {
    let mut questions = Vec::new();
    while inbox.recv_many(&mut questions, BACKLOG).await > 0 {
        let ids: Vec<_> = questions.iter().flat_map(|q| &q.ids).cloned().collect();
        let mut usage = HashMap::with_capacity(ids.len());
        for some in ids.chunks(AT_ONCE) {
            usage.extend(engine.cpu_time(some).await);
        }
        for Question { ids, reply } in questions.drain(..) {
            let known = ids.into_iter().filter_map(|id| {
                let time = *usage.get(&id)?;
                Some((id, time))
            });
            let _ = reply.send(known.collect());
        }
    }
}
