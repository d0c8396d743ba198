//! Waiting until a started container is ready for requests.

use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};

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
    let word = if container.startup_probe.is_some() {
        "STARTUP"
    } else {
        "Default STARTUP"
    };
    let failed = |times: u32, cause: String| {
        let failure = probe::failed_times(container, &probe.action, times);
        format!("{word} {failure}. The instance was not started. Cause: {cause}.")
    };
    let limit = probe.initial_delay + probe.period.saturating_mul(probe.failure_threshold);
    // What the last try got, for when time is up before the next.
    let last = Mutex::new(None);
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
                        return Err(failed(failures, text));
                    }
                    *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
                }
            }
            tokio::time::sleep(probe.period).await;
        }
    };
    match tokio::time::timeout(limit, passed).await {
        Ok(result) => result,
        Err(_) => {
            let last = last.into_inner().unwrap_or_else(PoisonError::into_inner);
            let cause = last.unwrap_or_else(|| {
                format!(
                    "nothing has answered within {}; the container must listen on 0.0.0.0:$PORT",
                    seconds(limit)
                )
            });
            Err(failed(probe.failure_threshold, cause))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lauf_model::SystemClock;
    use tokio::time::Instant;

    use super::*;
    use crate::testing::{Deaf, Loopback};

    async fn started(endpoint: Arc<dyn Endpoint>, probe: Option<Probe>) -> Result<(), String> {
        let clock = Arc::new(SystemClock::new());
        let prober = Prober::start(Arc::clone(&clock) as _).unwrap();
        let mut container = Container::new("image");
        container.startup_probe = probe;
        let started = wait(&*clock, &prober, &endpoint, &container).await;
        started.map(drop)
    }

    fn every_ten_seconds(action: ProbeAction, failure_threshold: u32) -> Probe {
        Probe {
            action,
            initial_delay: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            period: Duration::from_secs(10),
            failure_threshold,
            success_threshold: 1,
        }
    }

    /// Time is virtual: it moves on when nothing else is to be done.
    #[tokio::test(start_paused = true)]
    async fn a_container_has_240_seconds_to_listen() {
        let begun = Instant::now();
        let text = started(Arc::new(Deaf), None).await.unwrap_err();
        assert_eq!(begun.elapsed().as_secs(), 240);
        assert_eq!(
            text,
            "Default STARTUP TCP probe failed 1 time consecutively for container \"ingress\" on port \
             8080. The instance was not started. Cause: nothing has answered within 240s; the \
             container must listen on 0.0.0.0:$PORT."
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_of_the_users_may_fail_as_often_as_it_says() {
        let begun = Instant::now();
        let probe = every_ten_seconds(ProbeAction::Tcp { port: Some(9000) }, 6);
        let text = started(Arc::new(Deaf), Some(probe)).await.unwrap_err();
        assert_eq!(begun.elapsed().as_secs(), 65);
        assert!(
            text.starts_with("STARTUP TCP probe failed 6 times consecutively for container \"ingress\" on port 9000. "),
            "{text}"
        );
    }

    #[tokio::test]
    async fn a_container_that_listens_is_started_at_once() {
        let app = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Arc::new(Loopback(app.local_addr().unwrap()));
        assert_eq!(started(endpoint, None).await, Ok(()));
    }
}
