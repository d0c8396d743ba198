//! Queues of Cloud Tasks, both ways.

use lauf_events::Backoff;
use lauf_events::tasks::{Limits, Queue, QueueName};
use lauf_model::Status;
use lauf_wire::google::cloud::tasks::v2 as wire;

use crate::rpc::{duration, read_duration, refuse_all, time, wrong};

/// The fields of a queue that an update can be about.
pub(super) fn may_change(field: &str) -> bool {
    matches!(
        field,
        "rate_limits"
            | "retry_config"
            | "app_engine_routing_override"
            | "stackdriver_logging_config"
    )
}

/// Reads a queue whose name has been read.
pub(super) fn read(name: QueueName, sent: wire::Queue) -> Result<Queue, Status> {
    refuse_all(&[
        (
            "queue.app_engine_routing_override",
            sent.app_engine_routing_override
                .is_some_and(|routing| routing != wire::AppEngineRouting::default()),
        ),
        (
            "queue.stackdriver_logging_config",
            sent.stackdriver_logging_config
                .is_some_and(|config| config.sampling_ratio > 0.0),
        ),
    ])?;
    let mut limits = Limits::default();
    if let Some(rate) = sent.rate_limits {
        read_rate(&rate, &mut limits)?;
    }
    if let Some(retry) = sent.retry_config {
        read_retry(&retry, &mut limits)?;
    }
    Ok(Queue {
        name,
        uid: String::new(),
        limits,
        paused: false,
        purged: None,
    })
}

/// What is 0 was not said, and stays as it is by default.
fn read_rate(sent: &wire::RateLimits, limits: &mut Limits) -> Result<(), Status> {
    if sent.max_dispatches_per_second != 0.0 {
        limits.per_second = sent.max_dispatches_per_second;
    }
    limits.burst = burst(limits.per_second);
    if sent.max_concurrent_dispatches != 0 {
        let field = "queue.rate_limits.max_concurrent_dispatches";
        limits.concurrent = count(field, sent.max_concurrent_dispatches)?;
    }
    Ok(())
}

/// The burst that goes with a rate: clients cannot choose it.
fn burst(per_second: f64) -> u32 {
    let fifth = (per_second / 5.0).clamp(10.0, 500.0);
    (10..=500)
        .rev()
        .find(|burst| f64::from(*burst) <= fifth)
        .unwrap_or(10)
}

fn read_retry(sent: &wire::RetryConfig, limits: &mut Limits) -> Result<(), Status> {
    match sent.max_attempts {
        0 => {}
        -1 => limits.max_attempts = None,
        attempts => {
            let field = "queue.retry_config.max_attempts";
            limits.max_attempts = Some(count(field, attempts)?);
        }
    }
    let time = |field: &str, sent: &Option<lauf_wire::Duration>| {
        let field = format!("queue.retry_config.{field}");
        let read = sent.as_ref().map(|sent| read_duration(&field, sent));
        read.transpose()
    };
    // Zero is no limit.
    limits.retry_duration =
        time("max_retry_duration", &sent.max_retry_duration)?.filter(|most| !most.is_zero());
    let before = limits.backoff;
    let doublings = count("queue.retry_config.max_doublings", sent.max_doublings)?;
    limits.backoff = Backoff {
        minimum: time("min_backoff", &sent.min_backoff)?.unwrap_or(before.minimum),
        maximum: time("max_backoff", &sent.max_backoff)?.unwrap_or(before.maximum),
        doublings: if doublings == 0 {
            before.doublings
        } else {
            doublings
        },
    };
    Ok(())
}

fn count(field: &str, sent: i32) -> Result<u32, Status> {
    u32::try_from(sent).map_err(|_| wrong(field, format!("{sent} is negative.")))
}

pub(super) fn show(queue: &Queue) -> wire::Queue {
    let state = if queue.paused {
        wire::queue::State::Paused
    } else {
        wire::queue::State::Running
    };
    let number = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
    let limits = &queue.limits;
    wire::Queue {
        name: queue.name.to_string(),
        rate_limits: Some(wire::RateLimits {
            max_dispatches_per_second: limits.per_second,
            max_burst_size: number(limits.burst),
            max_concurrent_dispatches: number(limits.concurrent),
        }),
        retry_config: Some(wire::RetryConfig {
            max_attempts: limits.max_attempts.map_or(-1, number),
            max_retry_duration: limits.retry_duration.map(duration),
            min_backoff: Some(duration(limits.backoff.minimum)),
            max_backoff: Some(duration(limits.backoff.maximum)),
            max_doublings: number(limits.backoff.doublings),
        }),
        state: state.into(),
        purge_time: queue.purged.map(time),
        ..wire::Queue::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> QueueName {
        QueueName::parse("name", "projects/p/locations/l/queues/q").unwrap()
    }

    #[test]
    fn what_is_not_said_is_as_documented_and_what_is_shown_is_read_as_the_same() {
        let plain = read(name(), wire::Queue::default()).unwrap();
        assert_eq!(plain.limits, Limits::default());
        let sent = wire::Queue {
            rate_limits: Some(wire::RateLimits {
                max_dispatches_per_second: 0.5,
                max_burst_size: 0,
                max_concurrent_dispatches: 7,
            }),
            retry_config: Some(wire::RetryConfig {
                max_attempts: -1,
                max_doublings: 3,
                ..wire::RetryConfig::default()
            }),
            ..wire::Queue::default()
        };
        let queue = read(name(), sent).unwrap();
        assert_eq!((queue.limits.burst, queue.limits.concurrent), (10, 7));
        assert_eq!(queue.limits.max_attempts, None);
        assert_eq!(read(name(), show(&queue)).unwrap(), queue);
        assert_eq!(read(name(), show(&plain)).unwrap(), plain);
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let sent = wire::Queue {
            stackdriver_logging_config: Some(wire::StackdriverLoggingConfig {
                sampling_ratio: 0.5,
            }),
            ..wire::Queue::default()
        };
        let error = read(name(), sent).unwrap_err();
        assert_eq!(
            error.violations[0].field,
            "queue.stackdriver_logging_config"
        );
        let sent = wire::Queue {
            retry_config: Some(wire::RetryConfig {
                max_attempts: -2,
                ..wire::RetryConfig::default()
            }),
            ..wire::Queue::default()
        };
        let error = read(name(), sent).unwrap_err();
        assert_eq!(error.violations[0].field, "queue.retry_config.max_attempts");
    }
}
