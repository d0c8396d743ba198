//! Triggers of Eventarc, both ways.

use lauf_events::eventarc::{ChannelName, Destination, Filter, Spec, Trigger, TriggerName};
use lauf_events::pubsub::TopicName;
use lauf_model::Status;
use lauf_wire::google::cloud::eventarc::v1 as wire;

use crate::rpc::{missing, refuse_all, time, unsupported, wrong};

/// How events are written.
const JSON: &str = "application/json";

/// The fields that an update may change: all that it does without a mask.
pub(super) const CHANGES: [&str; 4] = ["event_filters", "service_account", "destination", "labels"];

/// The topic that a trigger is given, if it is given one.
pub(super) fn topic(sent: &wire::Trigger) -> Option<&str> {
    match sent.transport.as_ref()?.intermediary.as_ref()? {
        wire::transport::Intermediary::Pubsub(pubsub) => {
            Some(&*pubsub.topic).filter(|topic| !topic.is_empty())
        }
    }
}

/// Reads where events go.
pub(super) fn read_destination(
    sent: Option<wire::Destination>,
    location: &str,
) -> Result<Destination, Status> {
    let sent = sent.ok_or_else(|| missing("trigger.destination"))?;
    refuse_all(&[(
        "trigger.destination.network_config",
        sent.network_config.is_some(),
    )])?;
    use wire::destination::Descriptor;
    match sent.descriptor {
        Some(Descriptor::CloudRun(run)) if run.service.is_empty() => {
            Err(missing("trigger.destination.cloud_run.service"))
        }
        Some(Descriptor::CloudRun(run)) => Ok(Destination {
            service: run.service,
            region: if run.region.is_empty() {
                location.to_owned()
            } else {
                run.region
            },
            path: run.path,
        }),
        Some(Descriptor::CloudFunction(_)) => {
            Err(unsupported("trigger.destination.cloud_function"))
        }
        Some(Descriptor::Gke(_)) => Err(unsupported("trigger.destination.gke")),
        Some(Descriptor::Workflow(_)) => Err(unsupported("trigger.destination.workflow")),
        Some(Descriptor::HttpEndpoint(_)) => Err(unsupported("trigger.destination.http_endpoint")),
        None => Err(missing("trigger.destination.cloud_run")),
    }
}

/// Reads a trigger whose name, destination, topic and channel have been read.
pub(super) fn read(
    name: TriggerName,
    sent: wire::Trigger,
    destination: Destination,
    service_url: String,
    (topic, channel): (Option<TopicName>, Option<ChannelName>),
) -> Result<Spec, Status> {
    refuse_all(&[(
        "trigger.retry_policy",
        sent.retry_policy
            .is_some_and(|policy| policy.max_attempts != 0),
    )])?;
    if !matches!(&*sent.event_data_content_type, "" | JSON) {
        return Err(wrong(
            "trigger.event_data_content_type",
            format!("'{}' is not {JSON}.", sent.event_data_content_type),
        ));
    }
    let filters = sent.event_filters.into_iter().map(|filter| Filter {
        attribute: filter.attribute,
        value: filter.value,
        operator: filter.operator,
    });
    Ok(Spec {
        name,
        filters: filters.collect(),
        destination,
        service_url,
        service_account: sent.service_account,
        topic,
        channel,
        labels: sent.labels,
    })
}

pub(super) fn show(trigger: &Trigger) -> wire::Trigger {
    let spec = &trigger.spec;
    let filters = spec.filters.iter().map(|filter| wire::EventFilter {
        attribute: filter.attribute.clone(),
        value: filter.value.clone(),
        operator: filter.operator.clone(),
    });
    let run = wire::CloudRun {
        service: spec.destination.service.clone(),
        path: spec.destination.path.clone(),
        region: spec.destination.region.clone(),
    };
    wire::Trigger {
        name: spec.name.to_string(),
        uid: trigger.uid.clone(),
        create_time: Some(time(trigger.created)),
        update_time: Some(time(trigger.updated.unwrap_or(trigger.created))),
        event_filters: filters.collect(),
        service_account: spec.service_account.clone(),
        destination: Some(wire::Destination {
            network_config: None,
            descriptor: Some(wire::destination::Descriptor::CloudRun(run)),
        }),
        transport: Some(wire::Transport {
            intermediary: Some(wire::transport::Intermediary::Pubsub(wire::Pubsub {
                topic: trigger.topic.to_string(),
                subscription: trigger.subscription.to_string(),
            })),
        }),
        channel: spec
            .channel
            .as_ref()
            .map_or_else(String::new, ToString::to_string),
        labels: spec.labels.clone(),
        event_data_content_type: JSON.to_owned(),
        ..wire::Trigger::default()
    }
}
