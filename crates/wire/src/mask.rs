//! Field masks (google.aip.dev/134, /161): which fields of a resource an update is about.

use lauf_model::{Status, Violation};
use prost_reflect::{DynamicMessage, Kind, MapKey, ReflectMessage as _, Value};
use prost_types::FieldMask;

use crate::query::field;
use crate::{Named, dynamic, typed};

/// Whether all of a resource is to be replaced: there is no mask, an empty one, or one with `*`.
pub fn is_everything(mask: Option<&FieldMask>) -> bool {
    mask.is_none_or(|mask| mask.paths.is_empty() || mask.paths.iter().any(|path| path == "*"))
}

/// What is wanted of a resource after an update: `old`, with the fields that `mask` names as `sent`
/// has them; those that it lacks are reset. `may` tells which top-level fields can be updated at all.
/// Paths are in either case; below a map the rest of a path is the key, in backquotes or not.
///
/// # Errors
/// `INVALID_ARGUMENT`, with every path that leads nowhere, into a list, or to what cannot be updated.
pub fn update<M: Named + Clone>(
    mask: Option<&FieldMask>,
    sent: &M,
    old: impl FnOnce() -> M,
    may: impl Fn(&str) -> bool,
) -> Result<M, Status> {
    let Some(mask) = mask.filter(|mask| !is_everything(Some(mask))) else {
        return Ok(sent.clone());
    };
    let (sent, mut base) = (dynamic(sent), dynamic(&old()));
    let mut found = Vec::new();
    for path in &mask.paths {
        let parts: Vec<&str> = path.split('.').collect();
        let first = field(&base.descriptor(), parts[0]);
        let allowed = first.is_some_and(|first| may(first.name()));
        if !allowed || put(&parts, Some(&sent), &mut base).is_none() {
            found.push(Violation::new(
                "update_mask",
                format!("'{path}' is not a path of fields that can be updated."),
            ));
        }
    }
    if found.is_empty() {
        Ok(typed(&base))
    } else {
        Err(Status::invalid(found))
    }
}

fn put(path: &[&str], sent: Option<&DynamicMessage>, base: &mut DynamicMessage) -> Option<()> {
    let (first, rest) = path.split_first()?;
    let field = field(&base.descriptor(), first)?;
    let value = sent.filter(|sent| sent.has_field(&field));
    let value = value.map(|sent| sent.get_field(&field));
    if rest.is_empty() {
        match value {
            Some(value) => base.set_field(&field, value.into_owned()),
            None => base.clear_field(&field),
        }
        return Some(());
    }
    if field.is_map() {
        let joined = rest.join(".");
        let key = MapKey::String(joined.trim_matches('`').to_owned());
        let Kind::Message(entry) = field.kind() else {
            return None;
        };
        if entry.map_entry_key_field().kind() != Kind::String {
            return None;
        }
        let into = base.get_field_mut(&field).as_map_mut()?;
        match value.as_ref().and_then(|map| map.as_map()?.get(&key)) {
            Some(value) => into.insert(key, value.clone()),
            None => into.remove(&key),
        };
        return Some(());
    }
    if field.is_list() {
        return None;
    }
    let Kind::Message(of) = field.kind() else {
        return None;
    };
    let had = base.has_field(&field);
    let mut inner = match base.get_field(&field).as_ref() {
        Value::Message(inner) if had => inner.clone(),
        _ => DynamicMessage::new(of),
    };
    let value = value.as_ref().and_then(|value| value.as_message());
    put(rest, value, &mut inner)?;
    // Resetting what is not there makes nothing.
    if had || value.is_some() {
        base.set_field(&field, Value::Message(inner));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::google::cloud::run::v2::{RevisionScaling, RevisionTemplate, Service};

    fn service(description: &str, labels: &[(&str, &str)], timeout: i64) -> Service {
        Service {
            description: description.to_owned(),
            labels: labels
                .iter()
                .map(|(k, v)| (k.to_string(), v.to_string()))
                .collect(),
            template: Some(RevisionTemplate {
                timeout: Some(prost_types::Duration {
                    seconds: timeout,
                    nanos: 0,
                }),
                containers: vec![Default::default()],
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn apply(mask: &[&str], sent: &Service, old: &Service) -> Result<Service, Status> {
        let mask = FieldMask {
            paths: mask.iter().map(|p| (*p).to_owned()).collect(),
        };
        update(Some(&mask), sent, || old.clone(), |field| field != "uid")
    }

    #[test]
    fn a_mask_sets_resets_and_refuses() {
        let old = service("old", &[("a", "1"), ("b.c/d", "2")], 5);
        let mut sent = service("", &[("b.c/d", "3")], 6);
        sent.template.as_mut().unwrap().containers.clear();
        let paths = ["description", "labels.b.c/d", "template.timeout"];
        let now = apply(&paths, &sent, &old).unwrap();
        assert_eq!(now, service("", &[("a", "1"), ("b.c/d", "3")], 6));
        assert_eq!(
            apply(&["labels.`b.c/d`"], &sent, &old).unwrap().labels["b.c/d"],
            "3"
        );
        assert_eq!(apply(&["*"], &sent, &old).unwrap(), sent);
        assert_eq!(update(None, &sent, || old.clone(), |_| true).unwrap(), sent);
        let template = RevisionTemplate {
            scaling: Some(RevisionScaling {
                max_instance_count: 3,
                ..Default::default()
            }),
            ..Default::default()
        };
        let scaled = Service {
            template: Some(template),
            ..Default::default()
        };
        for path in [
            "template.scaling.maxInstanceCount",
            "template.scaling.max_instance_count",
        ] {
            let now = apply(&[path], &scaled, &old).unwrap().template.unwrap();
            assert_eq!(now.scaling.unwrap().max_instance_count, 3);
            assert_eq!(now.containers.len(), 1);
        }
        // What is not there is not made by resetting it.
        let empty = Service::default();
        assert_eq!(
            apply(&["template.scaling.max_instance_count"], &empty, &empty),
            Ok(empty)
        );
    }

    #[test]
    fn paths_that_lead_nowhere_are_all_named() {
        let old = service("old", &[], 5);
        let wrong = [
            "template.containers.image",
            "uid",
            "nonsense",
            "",
            "description.x",
            ".",
            "template.",
        ];
        let error = apply(&wrong, &old, &old).unwrap_err();
        assert_eq!(error.violations.len(), wrong.len(), "{error}");
        assert!(error.violations.iter().all(|v| v.field == "update_mask"));
    }

    proptest! {
        #[test]
        fn any_path_is_followed_or_refused(
            paths in prop::collection::vec(
                "((template|labels|scaling|containers|timeout|seconds|x|`|\\*|é)?\\.?){0,6}", 0..4,
            ),
        ) {
            let old = service("old", &[("a", "1")], 5);
            let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
            // With what is there already, whatever a mask names changes nothing.
            if let Ok(now) = apply(&paths, &old, &old) {
                prop_assert_eq!(now, old);
            }
        }
    }
}
