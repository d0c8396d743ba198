//! Jobs of Cloud Scheduler, both ways.

use std::time::Duration;

use jiff::Timestamp;
use lauf_events::pubsub::TopicName;
use lauf_events::scheduler::{DEFAULT_DEADLINE, Job, JobName, Retries, Target};
use lauf_events::{Backoff, Identity};
use lauf_model::{Code, Status};
use lauf_wire::google::cloud::scheduler::v1 as wire;
use lauf_wire::google::rpc;

use crate::outgoing;
use crate::rpc::{duration, missing, read_duration, time, unsupported, wrong};

/// The zone of a job that names none.
const DEFAULT_ZONE: &str = "Etc/UTC";

/// The fields of a job that an update can be about.
pub(super) fn may_change(field: &str) -> bool {
    matches!(
        field,
        "description"
            | "schedule"
            | "time_zone"
            | "retry_config"
            | "attempt_deadline"
            | "http_target"
            | "pubsub_target"
            | "app_engine_http_target"
    )
}

/// Reads a job whose name has been read.
pub(super) fn read(name: JobName, sent: wire::Job) -> Result<Job, Status> {
    let deadline = sent
        .attempt_deadline
        .map(|sent| read_duration("job.attempt_deadline", &sent))
        .transpose()?;
    let time_zone = if sent.time_zone.is_empty() {
        DEFAULT_ZONE.to_owned()
    } else {
        sent.time_zone
    };
    Ok(Job {
        name,
        description: sent.description,
        target: read_target(sent.target)?,
        schedule: sent.schedule,
        time_zone,
        paused: false,
        retries: sent
            .retry_config
            .map(|sent| read_retries(&sent))
            .transpose()?
            .unwrap_or_default(),
        deadline: deadline.unwrap_or(DEFAULT_DEADLINE),
        updated: Timestamp::UNIX_EPOCH,
        next: None,
        last: None,
        again: 0,
    })
}

fn read_target(sent: Option<wire::job::Target>) -> Result<Target, Status> {
    match sent {
        Some(wire::job::Target::HttpTarget(sent)) => {
            use wire::http_target::AuthorizationHeader::{OauthToken, OidcToken};
            let identity = sent.authorization_header.map(|header| match header {
                OauthToken(token) => outgoing::oauth(token.service_account_email, token.scope),
                OidcToken(token) => {
                    outgoing::oidc(token.service_account_email, token.audience, &sent.uri)
                }
            });
            Ok(Target::Http {
                method: outgoing::read_method("http_target.http_method", sent.http_method)?,
                uri: sent.uri,
                headers: sent.headers,
                body: sent.body.into(),
                identity,
            })
        }
        Some(wire::job::Target::PubsubTarget(sent)) => Ok(Target::PubSub {
            topic: TopicName::parse("pubsub_target.topic_name", &sent.topic_name)?,
            data: sent.data.into(),
            attributes: sent.attributes,
        }),
        Some(wire::job::Target::AppEngineHttpTarget(_)) => {
            Err(unsupported("app_engine_http_target"))
        }
        None => Err(missing("http_target or pubsub_target")),
    }
}

fn read_retries(sent: &wire::RetryConfig) -> Result<Retries, Status> {
    let default = Retries::default();
    let time = |field: &str, sent: &Option<lauf_wire::Duration>, default: Duration| {
        sent.as_ref()
            .map_or(Ok(default), |sent| read_duration(field, sent))
    };
    let count = |field: &str, sent: i32| {
        u32::try_from(sent).map_err(|_| wrong(field, format!("{sent} is negative.")))
    };
    let doublings = count("retry_config.max_doublings", sent.max_doublings)?;
    Ok(Retries {
        count: count("retry_config.retry_count", sent.retry_count)?,
        duration: time(
            "retry_config.max_retry_duration",
            &sent.max_retry_duration,
            default.duration,
        )?,
        backoff: Backoff {
            minimum: time(
                "retry_config.min_backoff_duration",
                &sent.min_backoff_duration,
                default.backoff.minimum,
            )?,
            maximum: time(
                "retry_config.max_backoff_duration",
                &sent.max_backoff_duration,
                default.backoff.maximum,
            )?,
            // Nothing tells 0 from what was not said.
            doublings: if doublings == 0 {
                default.backoff.doublings
            } else {
                doublings
            },
        },
    })
}

pub(super) fn show(job: &Job) -> wire::Job {
    let state = if job.paused {
        wire::job::State::Paused
    } else {
        wire::job::State::Enabled
    };
    let backoff = job.retries.backoff;
    wire::Job {
        name: job.name.to_string(),
        description: job.description.clone(),
        schedule: job.schedule.clone(),
        time_zone: job.time_zone.clone(),
        user_update_time: Some(time(job.updated)),
        state: state.into(),
        status: job.last.as_ref().map(|last| rpc::Status {
            code: last.code,
            message: last.message.clone(),
            details: Vec::new(),
        }),
        schedule_time: job.next.map(time),
        last_attempt_time: job.last.as_ref().map(|last| time(last.time)),
        retry_config: Some(wire::RetryConfig {
            retry_count: i32::try_from(job.retries.count).unwrap_or(i32::MAX),
            max_retry_duration: Some(duration(job.retries.duration)),
            min_backoff_duration: Some(duration(backoff.minimum)),
            max_backoff_duration: Some(duration(backoff.maximum)),
            max_doublings: i32::try_from(backoff.doublings).unwrap_or(i32::MAX),
        }),
        attempt_deadline: Some(duration(job.deadline)),
        target: Some(show_target(&job.target)),
    }
}

fn show_target(target: &Target) -> wire::job::Target {
    match target {
        Target::Http {
            uri,
            method,
            headers,
            body,
            identity,
        } => wire::job::Target::HttpTarget(wire::HttpTarget {
            uri: uri.clone(),
            http_method: outgoing::show_method(method),
            headers: headers.clone(),
            body: body.clone().into(),
            authorization_header: identity.as_ref().map(show_identity),
        }),
        Target::PubSub {
            topic,
            data,
            attributes,
        } => wire::job::Target::PubsubTarget(wire::PubsubTarget {
            topic_name: topic.to_string(),
            data: data.clone().into(),
            attributes: attributes.clone(),
        }),
    }
}

fn show_identity(identity: &Identity) -> wire::http_target::AuthorizationHeader {
    use wire::http_target::AuthorizationHeader::{OauthToken, OidcToken};
    match identity.clone() {
        Identity::Oidc { email, audience } => OidcToken(wire::OidcToken {
            service_account_email: email,
            audience,
        }),
        Identity::OAuth { email, scope } => OauthToken(wire::OAuthToken {
            service_account_email: email,
            scope,
        }),
    }
}

/// An id for a job that was given none.
pub(super) fn new_id() -> Result<String, Status> {
    let mut bytes = [0_u8; 10];
    getrandom::fill(&mut bytes).map_err(|error| {
        Status::new(
            Code::Unavailable,
            format!("The system gives no randomness: {error}."),
        )
    })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> JobName {
        JobName::parse("name", "projects/p/locations/l/jobs/j").unwrap()
    }

    fn http(target: wire::HttpTarget) -> wire::Job {
        wire::Job {
            schedule: "* * * * *".to_owned(),
            target: Some(wire::job::Target::HttpTarget(target)),
            ..wire::Job::default()
        }
    }

    #[test]
    fn what_is_shown_is_read_as_the_same() {
        let token = wire::OidcToken {
            service_account_email: "a@b.c".to_owned(),
            audience: String::new(),
        };
        let sent = http(wire::HttpTarget {
            uri: "https://a.example/x".to_owned(),
            headers: [("X-A".to_owned(), "b".to_owned())].into(),
            body: "hello".into(),
            authorization_header: Some(wire::http_target::AuthorizationHeader::OidcToken(token)),
            ..wire::HttpTarget::default()
        });
        let job = read(name(), sent).unwrap();
        let shown = show(&job);
        assert_eq!(shown.time_zone, "Etc/UTC");
        assert_eq!(shown.attempt_deadline.unwrap().seconds, 180);
        let Some(wire::job::Target::HttpTarget(target)) = &shown.target else {
            panic!("{shown:?}");
        };
        assert_eq!(target.http_method(), wire::HttpMethod::Post);
        let Some(wire::http_target::AuthorizationHeader::OidcToken(token)) =
            &target.authorization_header
        else {
            panic!("{target:?}");
        };
        assert_eq!(token.audience, "https://a.example/x");
        assert_eq!(read(name(), shown).unwrap(), job);
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let engine = wire::job::Target::AppEngineHttpTarget(wire::AppEngineHttpTarget::default());
        for (target, field) in [
            (Some(engine), "app_engine_http_target"),
            (None, "http_target"),
        ] {
            let sent = wire::Job {
                target,
                ..wire::Job::default()
            };
            let error = read(name(), sent).unwrap_err();
            let said = format!("{} {:?}", error.message, error.violations);
            assert!(said.contains(field), "{said}");
        }
        let sent = wire::Job {
            retry_config: Some(wire::RetryConfig {
                retry_count: -1,
                ..wire::RetryConfig::default()
            }),
            ..http(wire::HttpTarget::default())
        };
        let error = read(name(), sent).unwrap_err();
        assert_eq!(error.violations[0].field, "retry_config.retry_count");
    }
}
