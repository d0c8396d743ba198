//! Strategic merge patch (Kubernetes, "Update API objects in place using kubectl patch"): a merge
//! that knows which lists have keys, with a few directives.

use serde_json::{Map, Value};

use crate::kube::failure::Failure;
use crate::kube::fields::element;
use crate::kube::schema::{Merge, MergeKey, Schema, Shape};

const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE_VALUES: &str = "$deleteFromPrimitiveList/";

/// What comes of an object.
pub(super) fn apply(schema: &Schema, object: &Value, patch: &Value) -> Result<Value, Failure> {
    let empty = Map::new();
    let object = object.as_object().unwrap_or(&empty);
    let patch = patch.as_object().unwrap_or(&empty);
    Ok(Value::Object(
        merge_fields(schema, object, patch)?.unwrap_or_default(),
    ))
}

/// Fields with a patch's laid over; `None` when the patch says that they go.
fn merge_fields(
    schema: &Schema,
    object: &Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<Option<Map<String, Value>>, Failure> {
    let mut merged = object.clone();
    match patch.get(DIRECTIVE).map(|word| word.as_str()) {
        None | Some(Some("merge")) => {}
        Some(Some("replace")) => {
            let replaced = patch.iter().filter(|(name, _)| !name.starts_with('$'));
            return Ok(Some(
                replaced.map(|(n, v)| (n.clone(), v.clone())).collect(),
            ));
        }
        Some(Some("delete")) => return Ok(None),
        Some(_) => return Err(wrong("$patch must be merge, replace or delete")),
    }
    if let Some(keep) = patch.get(RETAIN) {
        let keep = texts(keep).ok_or_else(|| wrong("$retainKeys must be a list of names"))?;
        merged.retain(|name, _| keep.contains(&name.as_str()));
    }
    for (name, value) in patch {
        if let Some(list) = name.strip_prefix(DELETE_VALUES) {
            let gone = value
                .as_array()
                .ok_or_else(|| wrong("$deleteFromPrimitiveList must be a list"))?;
            if let Some(Value::Array(items)) = merged.get_mut(list) {
                items.retain(|item| !gone.contains(item));
            }
        }
        if name.starts_with('$') {
            continue;
        }
        let field = schema.field(name);
        match (field, value) {
            (_, Value::Null) => {
                merged.remove(name);
            }
            (Some(field), Value::Object(value)) => {
                let empty = Map::new();
                let before = merged
                    .get(name)
                    .and_then(Value::as_object)
                    .unwrap_or(&empty);
                match merge_fields(field, before, value)? {
                    Some(value) => merged.insert(name.clone(), Value::Object(value)),
                    None => merged.remove(name),
                };
            }
            (Some(field), Value::Array(value)) => {
                let before = merged.get(name).and_then(Value::as_array);
                let before = before.map(Vec::as_slice).unwrap_or_default();
                let order = patch.get(&format!("{ORDER}{name}"));
                let list = merge_list(field, before, value, order)?;
                merged.insert(name.clone(), Value::Array(list));
            }
            (_, value) => {
                merged.insert(name.clone(), without_directives(value));
            }
        }
    }
    Ok(Some(merged))
}

fn merge_list(
    schema: &Schema,
    before: &[Value],
    patch: &[Value],
    order: Option<&Value>,
) -> Result<Vec<Value>, Failure> {
    let directive = |item: &Value| {
        item.get(DIRECTIVE)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    // An element that is nothing but the directive says that the others are the whole list.
    let whole = patch
        .iter()
        .any(|item| directive(item).as_deref() == Some("replace"));
    let (of, keys) = match &schema.shape {
        Shape::List(of, Merge::Keyed(keys)) if !whole => (of, keys),
        _ => {
            let items = patch.iter().filter(|item| directive(item).is_none());
            return Ok(items.map(without_directives).collect());
        }
    };
    // Patches know one key of a list, and say nothing of the others where they have a default.
    let keys = keys.get(..1).unwrap_or_default();
    let mut merged = before.to_vec();
    for item in patch {
        let Some(key) = element(keys, item) else {
            let names: Vec<&str> = keys.iter().map(|key| key.field).collect();
            return Err(wrong(&format!(
                "map: {item} does not contain declared merge key: {}",
                names.join(", ")
            )));
        };
        let place = merged
            .iter()
            .position(|m| element(keys, m).as_ref() == Some(&key));
        let item = item
            .as_object()
            .ok_or_else(|| wrong("an element must be an object"))?;
        let empty = Map::new();
        let found = place.and_then(|place| merged.get(place)?.as_object());
        match (merge_fields(of, found.unwrap_or(&empty), item)?, place) {
            (Some(value), Some(place)) => {
                if let Some(slot) = merged.get_mut(place) {
                    *slot = Value::Object(value);
                }
            }
            (Some(value), None) => merged.push(Value::Object(value)),
            (None, Some(place)) => drop(merged.remove(place)),
            (None, None) => {}
        }
    }
    if let Some(order) = order {
        sort(&mut merged, keys, order)?;
    }
    Ok(merged)
}

/// Puts elements in the order a patch wants; those that it does not name stay behind what they
/// followed.
fn sort(items: &mut [Value], keys: &[MergeKey], order: &Value) -> Result<(), Failure> {
    let order = order
        .as_array()
        .ok_or_else(|| wrong("$setElementOrder must be a list"))?;
    let rank = |item: &Value| {
        let key = element(keys, item)?;
        order
            .iter()
            .position(|o| element(keys, o).as_ref() == Some(&key))
    };
    let mut last = 0;
    let mut ranked: Vec<(usize, Value)> = items
        .iter()
        .map(|item| {
            last = rank(item).unwrap_or(last);
            (last, item.clone())
        })
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    for (slot, (_, item)) in items.iter_mut().zip(ranked) {
        *slot = item;
    }
    Ok(())
}

fn without_directives(value: &Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .filter(|(name, value)| !name.starts_with('$') && !value.is_null())
                .map(|(name, value)| (name.clone(), without_directives(value)))
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.iter().map(without_directives).collect()),
        other => other.clone(),
    }
}

fn texts(value: &Value) -> Option<Vec<&str>> {
    value.as_array()?.iter().map(Value::as_str).collect()
}

fn wrong(why: &str) -> Failure {
    Failure::bad_request(format!("the strategic merge patch is not valid: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::schema::serving;
    use serde_json::json;

    fn env(env: &Value) -> Value {
        json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "env": env}]}}}})
    }

    fn patched(before: &Value, patch: &Value) -> Result<Value, u16> {
        apply(&serving::service(), before, patch).map_err(|failure| failure.code)
    }

    fn names(object: &Value) -> Vec<&str> {
        let env = &object["spec"]["template"]["spec"]["containers"][0]["env"];
        env.as_array()
            .unwrap()
            .iter()
            .map(|e| e["name"].as_str().unwrap())
            .collect()
    }

    #[test]
    fn lists_are_merged_by_their_keys() {
        let before = env(&json!([{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]));
        let patch = env(&json!([
            {"name": "B", "value": "3"}, {"name": "C", "value": "4"}, {"name": "A", "$patch": "delete"},
        ]));
        let after = patched(&before, &patch).unwrap();
        assert_eq!(names(&after), ["B", "C"]);
        let containers = &after["spec"]["template"]["spec"]["containers"];
        assert_eq!(containers[0]["env"][0]["value"], "3");
        // In another order.
        let mut patch = env(&json!([{"name": "C", "value": "4"}]));
        patch["spec"]["template"]["spec"]["containers"][0]["$setElementOrder/env"] =
            json!([{"name": "C"}, {"name": "B"}, {"name": "A"}]);
        assert_eq!(names(&patched(&before, &patch).unwrap()), ["C", "B", "A"]);
        // As a whole.
        let patch = env(&json!([{"name": "Z"}, {"$patch": "replace"}]));
        assert_eq!(names(&patched(&before, &patch).unwrap()), ["Z"]);
    }

    #[test]
    fn directives_and_nulls() {
        let before = json!({
            "metadata": {"labels": {"a": "1", "b": "2"}},
            "spec": {"traffic": [{"percent": 100}], "template": {"spec": {"containers": []}}},
        });
        let patch = json!({
            "metadata": {"labels": {"a": null, "c": "3"}},
            "spec": {"traffic": [{"percent": 50}, {"percent": 50}]},
        });
        let after = patched(&before, &patch).unwrap();
        assert_eq!(after["metadata"]["labels"], json!({"b": "2", "c": "3"}));
        assert_eq!(after["spec"]["traffic"].as_array().unwrap().len(), 2);
        let patch = json!({"metadata": {"labels": {"$patch": "replace", "x": "y"}}});
        assert_eq!(
            patched(&before, &patch).unwrap()["metadata"]["labels"],
            json!({"x": "y"})
        );
        let patch = json!({"metadata": {"labels": {"$patch": "delete"}}});
        assert!(patched(&before, &patch).unwrap()["metadata"]["labels"].is_null());
        let patch = json!({"metadata": {"labels": {"$retainKeys": ["b"]}}});
        assert_eq!(
            patched(&before, &patch).unwrap()["metadata"]["labels"],
            json!({"b": "2"})
        );
        for wrong in [
            json!({"spec": {"$patch": "grow"}}),
            env(&json!([{"value": 1}])).pointer("/spec/template").map(|t| json!({"spec": {"template": {"spec": {"containers": [{"ports": [{"name": "x"}]}]}}, "t": t}})).unwrap(),
        ] {
            assert_eq!(patched(&before, &wrong), Err(400), "{wrong}");
        }
    }
}
