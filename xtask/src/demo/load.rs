//! A load generator, bounded in connections and in time, that only ever speaks to Lauf on loopback.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::client::{Target, http::Connection};
use crate::clock;

/// After a connection failed, its next try waits so long.
const PAUSE: Duration = Duration::from_millis(50);

/// What is counted while the load runs.
#[derive(Default)]
pub(crate) struct Counts {
    answered: AtomicU64,
    refused: AtomicU64,
    broken: AtomicU64,
}

impl Counts {
    /// Answers with status 200 so far.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }
}

/// What a load came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) connections: u32,
    pub(crate) lasted: Duration,
    /// Answers with status 200.
    pub(crate) answered: u64,
    /// Answers with another status.
    pub(crate) refused: u64,
    /// Connections that failed.
    pub(crate) broken: u64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

/// Asks for `path` over `connections` connections again and again for `lasting`.
pub(crate) async fn drive(
    target: &Target,
    path: &'static str,
    connections: u32,
    lasting: Duration,
    counts: Arc<Counts>,
) -> Load {
    let start = clock::now();
    let workers: Vec<_> = (0..connections)
        .map(|_| {
            let (target, counts) = (target.clone(), Arc::clone(&counts));
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                // An exchange that hangs ends with the load.
                let work = worker(&target, path, &counts, &mut latencies);
                let _ = tokio::time::timeout(lasting, work).await;
                latencies
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for worker in workers {
        latencies.append(&mut worker.await.unwrap_or_default());
    }
    latencies.sort_unstable();
    Load {
        connections,
        lasted: start.elapsed(),
        answered: counts.answered(),
        refused: counts.refused.load(Ordering::Relaxed),
        broken: counts.broken.load(Ordering::Relaxed),
        p50: percentile(&latencies, 50),
        p99: percentile(&latencies, 99),
    }
}

/// One connection's requests, one after the other, until it is dropped.
async fn worker(target: &Target, path: &str, counts: &Counts, latencies: &mut Vec<Duration>) {
    loop {
        if let Ok(mut connection) = Connection::open(target).await {
            loop {
                let asked = clock::now();
                match connection.get(path).await {
                    Ok(reply) if reply.status == 200 => {
                        counts.answered.fetch_add(1, Ordering::Relaxed);
                        latencies.push(asked.elapsed());
                    }
                    Ok(_) => {
                        counts.refused.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(PAUSE).await;
                    }
                    Err(_) => break,
                }
            }
        }
        counts.broken.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(PAUSE).await;
    }
}

/// The value below which so many percent of the sorted values lie.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(rank).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&times, 50), Duration::from_millis(100));
        assert_eq!(percentile(&times, 99), Duration::from_millis(198));
        assert_eq!(percentile(&times[..1], 99), Duration::from_millis(1));
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_load_counts_answers_and_ends_in_time() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut buffer = [0; 1024];
                    while matches!(stream.read(&mut buffer).await, Ok(n) if n > 0) {
                        stream
                            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                            .await
                            .unwrap();
                    }
                });
            }
        });
        let target = Target {
            addr,
            host: "h".to_owned(),
        };
        let load = drive(&target, "/", 3, Duration::from_millis(100), Arc::default()).await;
        assert!(
            load.answered > 0 && load.refused == 0 && load.broken == 0,
            "{load:?}"
        );
        assert!(load.p50 <= load.p99);
    }
}
