//! Liveness and readiness probes of a running instance.

use std::sync::Arc;

use lauf_model::{Container, Probe};

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

/// The log line of a liveness probe that has failed.
pub(crate) fn liveness_failed(container: &Container, probe: &Probe, cause: &str) -> String {
    format!(
        "LIVENESS {}. The instance has been shut down. Cause: {cause}",
        probe::failed_times(container, &probe.action, probe.failure_threshold)
    )
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use lauf_model::ProbeAction;
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;
    use crate::testing::Loopback;

    fn probe(failure_threshold: u32, success_threshold: u32) -> Probe {
        Probe {
            action: ProbeAction::Tcp { port: None },
            initial_delay: Duration::from_secs(7),
            timeout: Duration::from_secs(1),
            period: Duration::from_secs(10),
            failure_threshold,
            success_threshold,
        }
    }

    async fn listen(address: SocketAddr) -> TcpListener {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        socket.listen(16).unwrap()
    }

    /// Time is virtual: it moves on when nothing else is to be done.
    #[tokio::test(start_paused = true)]
    async fn verdicts_turn_after_so_many_in_a_row() {
        let begun = tokio::time::Instant::now();
        let seconds = move || begun.elapsed().as_secs();
        let app = listen("127.0.0.1:0".parse().unwrap()).await;
        let address = app.local_addr().unwrap();
        let (say, mut said) = mpsc::unbounded_channel();
        let watching = watch(
            Arc::new(Loopback(address)),
            Container::new("image"),
            probe(3, 2),
            move |well, cause| say.send((well, cause, seconds())).unwrap(),
        );
        let watching = tokio::spawn(watching);
        // Well at 7 s, 17 s and 27 s; then nobody listens at 37 s, 47 s and 57 s.
        tokio::time::sleep_until(begun + Duration::from_secs(30)).await;
        assert!(said.try_recv().is_err());
        drop(app);
        let (well, cause, at) = said.recv().await.unwrap();
        assert!(!well && cause.contains("refused"), "{cause}");
        assert_eq!(at / 10, 5);
        // Well again at 67 s and 77 s.
        let _app = listen(address).await;
        let (well, cause, at) = said.recv().await.unwrap();
        assert_eq!((well, cause.as_str(), at / 10), (true, "", 7));
        watching.abort();
    }
}
