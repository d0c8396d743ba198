//! v2 and the model are two forms of one thing: what is written reads back the same.

use proptest::prelude::*;
use serde_json::Value;

use super::{service, types, wire};
use crate::v1::roundtrip::a_service;

/// The digits of the enums in a message, in place of their names.
fn in_numbers(value: &mut Value) {
    const NUMBERS: [(&str, i64); 6] = [
        ("INGRESS_TRAFFIC_ALL", 1),
        ("GA", 4),
        ("TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST", 1),
        ("TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION", 2),
        ("MANUAL", 2),
        ("EXECUTION_ENVIRONMENT_GEN2", 2),
    ];
    match value {
        Value::String(text) => {
            if let Some((_, number)) = NUMBERS.iter().find(|(name, _)| name == text) {
                *value = (*number).into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(in_numbers),
        Value::Object(fields) => fields.values_mut().for_each(in_numbers),
        _ => {}
    }
}

proptest! {
    #[test]
    fn model_to_v2_to_model(
        mut before in a_service(), system in any::<bool>(), numbers in any::<bool>(),
        known in any::<bool>(),
    ) {
        if system {
            let notes = &mut before.meta.annotations;
            notes.insert("run.googleapis.com/launch-stage".to_owned(), "BETA".to_owned());
            let notes = &mut before.spec.template.annotations;
            let environment = "run.googleapis.com/execution-environment".to_owned();
            notes.insert(environment, "gen2".to_owned());
        }
        if known {
            // What v2 has no words for.
            let labels = &mut before.meta.labels;
            labels.insert("run.googleapis.com/x".to_owned(), "y".to_owned());
            let sent = [("run.googleapis.com/cpu-throttling".to_owned(), "True".to_owned())];
            before.spec.template.as_sent = sent.into();
        } else {
            let container = &mut before.spec.template.spec.container;
            for probe in [
                &mut container.startup_probe, &mut container.liveness_probe,
                &mut container.readiness_probe,
            ].into_iter().flatten() {
                probe.success_threshold = 1;
            }
        }
        let mut json = serde_json::to_value(service::write(&before)).unwrap();
        if numbers {
            in_numbers(&mut json["ingress"]);
            in_numbers(&mut json["launchStage"]);
            in_numbers(&mut json["scaling"]);
            in_numbers(&mut json["template"]["executionEnvironment"]);
            for target in json["traffic"].as_array_mut().unwrap() {
                in_numbers(&mut target["type"]);
            }
        }
        let sent: types::Service = serde_json::from_value(wire::normal(json)).unwrap();
        let mut found = Vec::new();
        let read = service::read(&before.meta.name, &sent, known.then_some(&before), &mut found);
        prop_assert_eq!(found, Vec::new());
        prop_assert_eq!(&read.labels, &before.meta.labels);
        prop_assert_eq!(&read.annotations, &before.meta.annotations);
        prop_assert_eq!(&read.as_sent, &before.meta.as_sent);
        prop_assert_eq!(&read.spec, &before.spec);
        prop_assert_eq!(read.client, before.meta.client);
    }
}
