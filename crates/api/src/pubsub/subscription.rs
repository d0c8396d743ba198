//! Subscriptions, both ways.

use std::time::Duration;

use jiff::Timestamp;
use lauf_events::pubsub::{
    DEFAULT_EXPIRATION, DEFAULT_RETENTION, DeadLetter, Oidc, Push, Retry, Subscription,
    SubscriptionName, Topic, TopicName, Unwrapped,
};
use lauf_model::Status;
use lauf_wire::google::pubsub::v1 as wire;

use super::{duration, read_duration, refuse_all, wrong};

const DEFAULT_ACK_DEADLINE: i32 = 10;
const DEFAULT_MINIMUM_BACKOFF: Duration = Duration::from_secs(10);
const DEFAULT_MAXIMUM_BACKOFF: Duration = Duration::from_secs(600);
const DEFAULT_ATTEMPTS: i32 = 5;

/// The names in a subscription, which have been read.
pub(super) struct Names {
    pub(super) name: SubscriptionName,
    pub(super) topic: TopicName,
    pub(super) dead_letter: Option<TopicName>,
}

/// Reads a subscription.
pub(super) fn read(names: Names, sent: wire::Subscription) -> Result<Subscription, Status> {
    refuse_all(&[
        ("bigquery_config", sent.bigquery_config.is_some()),
        ("cloud_storage_config", sent.cloud_storage_config.is_some()),
        ("bigtable_config", sent.bigtable_config.is_some()),
        ("message_transforms", !sent.message_transforms.is_empty()),
        ("tags", !sent.tags.is_empty()),
    ])?;
    let ack_deadline = match sent.ack_deadline_seconds {
        0 => DEFAULT_ACK_DEADLINE,
        seconds => seconds,
    };
    let ack_deadline = u64::try_from(ack_deadline).map_err(|_| {
        wrong(
            "ack_deadline_seconds",
            format!("{ack_deadline} is negative."),
        )
    })?;
    let retention = sent
        .message_retention_duration
        .map(|sent| read_duration("message_retention_duration", &sent))
        .transpose()?;
    let expiration = match sent.expiration_policy {
        None => Some(DEFAULT_EXPIRATION),
        Some(policy) => policy
            .ttl
            .map(|ttl| read_duration("expiration_policy.ttl", &ttl))
            .transpose()?,
    };
    let max_attempts = match sent.dead_letter_policy.as_ref() {
        Some(policy) if policy.max_delivery_attempts != 0 => policy.max_delivery_attempts,
        _ => DEFAULT_ATTEMPTS,
    };
    let max_attempts = u32::try_from(max_attempts).unwrap_or(0);
    Ok(Subscription {
        name: names.name,
        uid: String::new(),
        topic: names.topic,
        topic_uid: String::new(),
        topic_deleted: false,
        labels: sent.labels,
        push: sent.push_config.and_then(read_push),
        ack_deadline: Duration::from_secs(ack_deadline),
        retain_acked: sent.retain_acked_messages,
        retention: retention.unwrap_or(DEFAULT_RETENTION),
        ordered: sent.enable_message_ordering,
        expiration,
        filter: sent.filter,
        dead_letter: names.dead_letter.map(|topic| DeadLetter {
            topic,
            max_attempts,
        }),
        retry: sent.retry_policy.as_ref().map(read_retry).transpose()?,
        detached: false,
        exactly_once: sent.enable_exactly_once_delivery,
        used: Timestamp::UNIX_EPOCH,
    })
}

fn read_retry(sent: &wire::RetryPolicy) -> Result<Retry, Status> {
    let read = |field, sent: Option<lauf_wire::Duration>, default| match sent {
        Some(sent) => read_duration(field, &sent),
        None => Ok(default),
    };
    Ok(Retry {
        minimum: read(
            "retry_policy.minimum_backoff",
            sent.minimum_backoff,
            DEFAULT_MINIMUM_BACKOFF,
        )?,
        maximum: read(
            "retry_policy.maximum_backoff",
            sent.maximum_backoff,
            DEFAULT_MAXIMUM_BACKOFF,
        )?,
    })
}

/// Reads how messages are sent. Without an endpoint they are not.
pub(super) fn read_push(sent: wire::PushConfig) -> Option<Push> {
    if sent.push_endpoint.is_empty() {
        return None;
    }
    Some(Push {
        attributes: sent.attributes,
        oidc: sent.authentication_method.map(|method| {
            let wire::push_config::AuthenticationMethod::OidcToken(token) = method;
            Oidc {
                service_account: token.service_account_email,
                audience: token.audience,
            }
        }),
        unwrapped: match sent.wrapper {
            Some(wire::push_config::Wrapper::NoWrapper(no)) => Some(Unwrapped {
                write_metadata: no.write_metadata,
            }),
            _ => None,
        },
        ..Push::new(sent.push_endpoint)
    })
}

fn show_push(push: &Push) -> wire::PushConfig {
    wire::PushConfig {
        push_endpoint: push.endpoint.clone(),
        attributes: push.attributes.clone(),
        authentication_method: push.oidc.as_ref().map(|oidc| {
            wire::push_config::AuthenticationMethod::OidcToken(wire::push_config::OidcToken {
                service_account_email: oidc.service_account.clone(),
                audience: oidc.audience.clone(),
            })
        }),
        wrapper: push.unwrapped.map(|unwrapped| {
            wire::push_config::Wrapper::NoWrapper(wire::push_config::NoWrapper {
                write_metadata: unwrapped.write_metadata,
            })
        }),
    }
}

/// Shows a subscription; `topic` is its topic, if that is still there.
pub(super) fn show(subscription: &Subscription, topic: Option<&Topic>) -> wire::Subscription {
    wire::Subscription {
        name: subscription.name.to_string(),
        topic: subscription.topic_name(),
        push_config: Some(
            subscription
                .push
                .as_ref()
                .map(show_push)
                .unwrap_or_default(),
        ),
        ack_deadline_seconds: i32::try_from(subscription.ack_deadline.as_secs()).unwrap_or(0),
        retain_acked_messages: subscription.retain_acked,
        message_retention_duration: Some(duration(subscription.retention)),
        labels: subscription.labels.clone(),
        enable_message_ordering: subscription.ordered,
        expiration_policy: Some(wire::ExpirationPolicy {
            ttl: subscription.expiration.map(duration),
        }),
        filter: subscription.filter.clone(),
        dead_letter_policy: subscription
            .dead_letter
            .as_ref()
            .map(|dead| wire::DeadLetterPolicy {
                dead_letter_topic: dead.topic.to_string(),
                max_delivery_attempts: i32::try_from(dead.max_attempts).unwrap_or(0),
            }),
        retry_policy: subscription.retry.map(|retry| wire::RetryPolicy {
            minimum_backoff: Some(duration(retry.minimum)),
            maximum_backoff: Some(duration(retry.maximum)),
        }),
        detached: subscription.detached,
        enable_exactly_once_delivery: subscription.exactly_once,
        topic_message_retention_duration: topic.and_then(|topic| topic.retention).map(duration),
        state: wire::subscription::State::Active.into(),
        ..Default::default()
    }
}
