//! Waiting until a started container is ready for requests.

use std::net::TcpStream;
use std::sync::Arc;

use lauf_model::{Clock, Container, Probe, ProbeAction};

use crate::Endpoint;
use crate::probe::{self, seconds};
use crate::prober::Prober;

/// Returns when the startup probe has passed, or says in what way it has not. A probe that is a mere connection to the container's port
/// gives that connection.
///
/// A container cannot answer before it listens, so whatever the probe, the port is waited for
/// first; an HTTP or gRPC probe is tried at that very moment and then every period.
pub(crate) async fn wait(
    clock: &dyn Clock,
    prober: &Prober,
    endpoint: &Arc<dyn Endpoint>,
    container: &Container,
) -> Result<Option<TcpStream>, String> {
    let default = Probe::default_startup();
    let probe = container.startup_probe.as_ref().unwrap_or(&default);
    let port = probe::port(&probe.action, container.port);
    let limit = probe.initial_delay + probe.period.saturating_mul(probe.failure_threshold);
    let passed = async {
        tokio::time::sleep(probe.initial_delay).await;
        let connection = prober
            .listening(Arc::clone(endpoint), port, clock.monotonic())
            .await;
        if matches!(probe.action, ProbeAction::Tcp { .. }) {
            return Ok(Some(connection).filter(|_| port == container.port.number));
        }
        drop(connection);
        let mut failures = 0;
        loop {
            match probe::attempt(endpoint, container.port, probe).await {
                Ok(()) => return Ok(None),
                Err(text) => {
                    failures += 1;
                    if failures >= probe.failure_threshold {
                        return Err(text);
                    }
                }
            }
            tokio::time::sleep(probe.period).await;
        }
    };
    let failed = |text: String| {
        format!(
            "The STARTUP {} probe failed on port {port}: {text}. The container must listen on \
             0.0.0.0:$PORT.",
            probe::kind(&probe.action)
        )
    };
    match tokio::time::timeout(limit, passed).await {
        Ok(result) => result.map_err(failed),
        Err(_) => Err(failed(format!(
            "nothing listens on it after {}",
            seconds(limit)
        ))),
    }
}
