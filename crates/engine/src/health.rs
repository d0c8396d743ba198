//! Liveness and readiness probes of a running instance.

use std::sync::Arc;

use lauf_model::{Container, Probe, ProbeAction};

use crate::Endpoint;
use crate::probe;

/// Tries `probe` for as long as the instance lives, and calls `changed` each time its verdict
/// turns: `false` after `failure_threshold` failures in a row, `true` after `success_threshold`
/// successes.
pub(crate) async fn watch(
    endpoint: Arc<dyn Endpoint>,
    container: Container,
    probe: Probe,
    mut changed: impl FnMut(bool, String),
) {
    tokio::time::sleep(probe.initial_delay).await;
    let mut well = true;
    let mut streak = 0;
    let mut ticks = tokio::time::interval(probe.period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let result = probe::attempt(&endpoint, container.port, &probe).await;
        if result.is_ok() == well {
            streak = 0;
            continue;
        }
        streak += 1;
        let needed = if well {
            probe.failure_threshold
        } else {
            probe.success_threshold
        };
        if streak >= needed {
            well = !well;
            streak = 0;
            changed(well, result.err().unwrap_or_default());
        }
    }
}

/// The log line of a liveness probe that has failed (Cloud Run, "Troubleshoot").
pub(crate) fn liveness_failed(container: &Container, probe: &Probe, cause: &str) -> String {
    let port = probe::port(&probe.action, container.port);
    let path = match &probe.action {
        ProbeAction::Http { path, .. } => format!(" path \"{path}\""),
        _ => String::new(),
    };
    let name = if container.name.is_empty() {
        "ingress"
    } else {
        &container.name
    };
    format!(
        "LIVENESS {} probe failed {} times consecutively for container \"{name}\" on port \
         {port}{path}. The instance has been shut down. Cause: {cause}",
        probe::kind(&probe.action),
        probe.failure_threshold
    )
}
