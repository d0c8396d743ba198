//! What is shown while the server works: a line for each step, moving on a terminal, plain in a
//! log.

use std::time::Duration;

use anyhow::Result;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::client::http::Api;
use crate::client::output::{Out, Tint};
use crate::client::service::{self, Settled, condition};

/// Steps as people think of them, and the conditions that tell how far they are.
const STEPS: [(&str, &str); 2] = [
    ("ConfigurationsReady", "Starting the new revision"),
    ROUTING,
];
const ROUTING: (&str, &str) = ("RoutesReady", "Routing traffic");

/// A change that the server could not bring about.
#[derive(Debug)]
pub(crate) struct Failed {
    /// Why, in the server's words.
    pub(crate) message: String,
    /// The service as it is now.
    pub(crate) service: Value,
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failed {}

/// Steps on their way.
pub(crate) struct Steps {
    out: Out,
    bars: MultiProgress,
    steps: Vec<Step>,
}

struct Step {
    kind: String,
    title: String,
    bar: Option<ProgressBar>,
    said: String,
    done: bool,
}

impl Steps {
    /// Nothing to show yet.
    pub(crate) fn new(out: &Out) -> Self {
        Self {
            out: out.clone(),
            bars: MultiProgress::new(),
            steps: Vec::new(),
        }
    }

    /// Says that a step is under way, and with what.
    pub(crate) fn working(&mut self, kind: &str, title: &str, detail: &str) {
        let at = self.step(kind, title);
        let (out, step) = (&self.out, &mut self.steps[at]);
        if step.done {
            return;
        }
        let text = match detail {
            "" => format!("{title} ..."),
            detail => format!("{title} ... {}", out.tint_err(detail, Tint::Dim)),
        };
        match &step.bar {
            Some(bar) => bar.set_message(text),
            None if step.said != text => {
                out.note(&format!("  {text}"));
                step.said = text;
            }
            None => {}
        }
    }

    /// Says that a step is done.
    pub(crate) fn done(&mut self, kind: &str, title: &str) {
        self.end(kind, title, "✔", Tint::Good);
    }

    /// Says that a step failed.
    pub(crate) fn failed(&mut self, kind: &str, title: &str) {
        self.end(kind, title, "✘", Tint::Bad);
    }

    fn end(&mut self, kind: &str, title: &str, mark: &str, tint: Tint) {
        let at = self.step(kind, title);
        let (out, step) = (&self.out, &mut self.steps[at]);
        if step.done {
            return;
        }
        step.done = true;
        let text = format!("{} {title}", out.tint_err(mark, tint));
        match &step.bar {
            Some(bar) => {
                if let Ok(style) = ProgressStyle::with_template("  {msg}") {
                    bar.set_style(style);
                }
                bar.finish_with_message(text);
            }
            None => out.note(&format!("  {text}")),
        }
    }

    /// Leaves the steps that were not finished as they are.
    pub(crate) fn stop(&mut self) {
        for step in self.steps.iter().filter(|step| !step.done) {
            if let Some(bar) = &step.bar {
                bar.finish_and_clear();
            }
        }
    }

    fn step(&mut self, kind: &str, title: &str) -> usize {
        if let Some(at) = self.steps.iter().position(|step| step.kind == kind) {
            return at;
        }
        let bar = self.out.animated().then(|| {
            let bar = self.bars.add(ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template("  {spinner} {msg}") {
                bar.set_style(style.tick_strings(&["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "✔"]));
            }
            bar.enable_steady_tick(Duration::from_millis(80));
            bar
        });
        self.steps.push(Step {
            kind: kind.to_owned(),
            title: title.to_owned(),
            bar,
            said: String::new(),
            done: false,
        });
        self.steps.len() - 1
    }
}

/// Waits until a change of traffic is in effect, showing how far it is.
///
/// # Errors
/// [`Failed`] when the server gives up.
pub(crate) async fn routed(api: &Api, out: &Out, name: &str, sent: &Value) -> Result<Value> {
    let mut steps = Steps::new(out);
    let ended = follow(api, name, sent, &mut steps, &[ROUTING]).await;
    steps.stop();
    ended
}

/// Waits until a deploy is in effect, adding to steps that were begun before.
///
/// # Errors
/// [`Failed`] when the server gives up.
pub(crate) async fn deployed(
    api: &Api,
    name: &str,
    sent: &Value,
    steps: &mut Steps,
) -> Result<Value> {
    follow(api, name, sent, steps, &STEPS).await
}

async fn follow(
    api: &Api,
    name: &str,
    sent: &Value,
    steps: &mut Steps,
    shown: &[(&str, &str)],
) -> Result<Value> {
    let mut service = sent.clone();
    for round in 1_u32.. {
        let settled = service::settled(&service);
        // Until the server has seen the change, its conditions are about the one before.
        let seen = service["status"]["observedGeneration"] == service["metadata"]["generation"];
        for (kind, title) in shown.iter().copied() {
            let found = condition(&service, kind).filter(|_| seen);
            let status = found.map_or("", |c| c["status"].as_str().unwrap_or_default());
            match (status, &settled) {
                ("True", _) | (_, Settled::Ready) => steps.done(kind, title),
                ("False", Settled::Failed(_)) => {
                    // What comes after it was never begun.
                    steps.failed(kind, title);
                    break;
                }
                _ => {
                    let detail = found.and_then(|c| c["message"].as_str());
                    steps.working(kind, title, detail.unwrap_or_default());
                    break;
                }
            }
        }
        match settled {
            Settled::Ready => return Ok(service),
            Settled::Failed(message) => return Err(Failed { message, service }.into()),
            Settled::Working => {}
        }
        tokio::time::sleep(service::pause(round)).await;
        service = service::read(api, name).await?;
    }
    Ok(service)
}

impl std::fmt::Debug for Steps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let titles = self.steps.iter().map(|step| (&step.title, step.done));
        f.debug_list().entries(titles).finish()
    }
}
