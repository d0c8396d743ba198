//! Objects by their schema: which fields they say, how two of them differ, and their merge.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::set::{Element, Set};
use crate::kube::schema::{Merge, MergeKey, Schema, Shape};

/// How two objects differ.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Difference {
    /// Fields that only the old one has.
    pub(crate) removed: Set,
    /// Fields that only the new one has.
    pub(crate) added: Set,
    /// Fields that both have, with other values.
    pub(crate) modified: Set,
}

/// The parts of a value that are told apart.
enum Parts<'a> {
    /// None: it is one value.
    One,
    /// Fields.
    Fields(&'a Map<String, Value>, &'a Schema),
    /// Elements of a list that have keys.
    Elements(Vec<(Element, &'a Value)>, &'a Schema),
}

fn parts<'a>(schema: &'a Schema, value: &'a Value) -> Parts<'a> {
    match (&schema.shape, value) {
        (Shape::Object(fields), Value::Object(map)) if !fields.atomic => Parts::Fields(map, schema),
        (Shape::Map(_), Value::Object(map)) => Parts::Fields(map, schema),
        (Shape::List(of, Merge::Keyed(keys)), Value::Array(items)) => {
            let found: Option<Vec<_>> = items
                .iter()
                .map(|item| Some((element(keys, item)?, item)))
                .collect();
            // A list with an element twice, or one without its key, is one value.
            found
                .filter(|found| {
                    let mut elements: Vec<&Element> = found.iter().map(|(e, _)| e).collect();
                    elements.sort();
                    elements.windows(2).all(|pair| pair[0] != pair[1])
                })
                .map_or(Parts::One, |found| Parts::Elements(found, of))
        }
        _ => Parts::One,
    }
}

/// The step to an element of a list; `None` where it has not all its keys.
pub(crate) fn element(keys: &[MergeKey], item: &Value) -> Option<Element> {
    let item = item.as_object()?;
    let keys: Option<Map<String, Value>> = keys
        .iter()
        .map(|key| {
            let value = match item.get(key.field) {
                Some(Value::Null) | None => Value::from(key.default?),
                Some(value @ (Value::String(_) | Value::Number(_) | Value::Bool(_))) => {
                    value.clone()
                }
                Some(_) => return None,
            };
            Some((key.field.to_owned(), value))
        })
        .collect();
    Some(Element::Key(Value::Object(keys?).to_string()))
}

/// The fields that an object says.
pub(crate) fn fields(schema: &Schema, value: &Value) -> Set {
    let mut set = Set::default();
    walk(schema, value, &mut Vec::new(), &mut set);
    set
}

fn walk(schema: &Schema, value: &Value, path: &mut Vec<Element>, set: &mut Set) {
    match parts(schema, value) {
        Parts::Fields(map, of) if !map.is_empty() => {
            for (name, value) in map {
                path.push(Element::Field(name.clone()));
                match of.field(name) {
                    Some(field) => walk(field, value, path, set),
                    None => set.insert(path),
                }
                path.pop();
            }
        }
        Parts::Elements(elements, of) if !elements.is_empty() => {
            for (element, value) in elements {
                path.push(element);
                set.insert(path);
                walk(of, value, path, set);
                path.pop();
            }
        }
        _ => set.insert(path),
    }
}

/// How an object differs from what it was.
pub(crate) fn compare(schema: &Schema, old: &Value, new: &Value) -> Difference {
    let mut difference = Difference::default();
    differ(
        schema,
        Some(old),
        Some(new),
        &mut Vec::new(),
        &mut difference,
    );
    difference
}

fn differ(
    schema: &Schema,
    old: Option<&Value>,
    new: Option<&Value>,
    path: &mut Vec<Element>,
    out: &mut Difference,
) {
    let (old, new) = match (old, new) {
        (None, None) => return,
        (Some(old), None) => return walk(schema, old, path, &mut out.removed),
        (None, Some(new)) => return walk(schema, new, path, &mut out.added),
        (Some(old), Some(new)) if old == new => return,
        (Some(old), Some(new)) => (old, new),
    };
    match (parts(schema, old), parts(schema, new)) {
        (Parts::Fields(old, of), Parts::Fields(new, _)) => {
            if old.is_empty() {
                out.removed.insert(path);
            }
            if new.is_empty() {
                out.added.insert(path);
            }
            let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
            names.sort();
            names.dedup();
            for name in names {
                path.push(Element::Field(name.clone()));
                match of.field(name) {
                    Some(field) => differ(field, old.get(name), new.get(name), path, out),
                    None => one(old.get(name), new.get(name), path, out),
                }
                path.pop();
            }
        }
        (Parts::Elements(old, of), Parts::Elements(new, _)) => {
            if old.is_empty() {
                out.removed.insert(path);
            }
            if new.is_empty() {
                out.added.insert(path);
            }
            let mut pairs: BTreeMap<Element, (Option<&Value>, Option<&Value>)> = BTreeMap::new();
            for (element, value) in old {
                pairs.entry(element).or_default().0 = Some(value);
            }
            for (element, value) in new {
                pairs.entry(element).or_default().1 = Some(value);
            }
            for (element, (old, new)) in pairs {
                path.push(element);
                match (old, new) {
                    (Some(_), None) => out.removed.insert(path),
                    (None, Some(_)) => out.added.insert(path),
                    _ => {}
                }
                differ(of, old, new, path, out);
                path.pop();
            }
        }
        (Parts::One, Parts::One) => out.modified.insert(path),
        _ => {
            walk(schema, old, path, &mut out.removed);
            walk(schema, new, path, &mut out.added);
        }
    }
}

fn one(old: Option<&Value>, new: Option<&Value>, path: &[Element], out: &mut Difference) {
    match (old, new) {
        (Some(_), None) => out.removed.insert(path),
        (None, Some(_)) => out.added.insert(path),
        (Some(old), Some(new)) if old != new => out.modified.insert(path),
        _ => {}
    }
}

/// What an object becomes when a configuration is laid over it.
pub(crate) fn merge(schema: &Schema, live: &Value, config: &Value) -> Value {
    match (parts(schema, live), parts(schema, config)) {
        (Parts::Fields(live, of), Parts::Fields(config, _)) => {
            let mut merged = live.clone();
            for (name, value) in config {
                let value = match (live.get(name), of.field(name)) {
                    (Some(live), Some(field)) => merge(field, live, value),
                    _ => value.clone(),
                };
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (Parts::Elements(live, of), Parts::Elements(config, _)) => {
            // In the order of the configuration; what it does not name stays where it is, and what
            // is new comes behind it, as in Kubernetes' own structured merge.
            let named = |element: &Element| config.iter().any(|(e, _)| e == element);
            let mut merged = Vec::new();
            let mut at = 0;
            for (element, value) in &config {
                let place = live.iter().position(|(e, _)| e == element);
                let until = place.unwrap_or_else(|| {
                    let ahead = live.iter().skip(at).take_while(|(e, _)| !named(e));
                    at + ahead.count()
                });
                for (other, kept) in live.get(at..until).unwrap_or_default() {
                    if !named(other) {
                        merged.push((*kept).clone());
                    }
                }
                at = at.max(place.map_or(until, |place| place + 1));
                merged.push(match place.and_then(|place| live.get(place)) {
                    Some((_, live)) => merge(of, live, value),
                    None => (*value).clone(),
                });
            }
            for (other, kept) in live.get(at..).unwrap_or_default() {
                if !named(other) {
                    merged.push((*kept).clone());
                }
            }
            Value::Array(merged)
        }
        _ => config.clone(),
    }
}

/// Takes fields away, but for what somebody owns; `None` when nothing is left.
pub(crate) fn remove(schema: &Schema, value: &Value, gone: &Set, owned: &Set) -> Option<Value> {
    match parts(schema, value) {
        Parts::Fields(map, of) => {
            let kept: Map<String, Value> = map
                .iter()
                .filter_map(|(name, value)| {
                    let step = Element::Field(name.clone());
                    let value = keep(of.field(name), &step, value, gone, owned)?;
                    Some((name.clone(), value))
                })
                .collect();
            (!kept.is_empty() || map.is_empty()).then_some(Value::Object(kept))
        }
        Parts::Elements(elements, of) => {
            let none_before = elements.is_empty();
            let kept: Vec<Value> = elements
                .into_iter()
                .filter_map(|(step, value)| {
                    let mut kept = keep(Some(of), &step, value, gone, owned)?;
                    restore_keys(&step, value, &mut kept);
                    Some(kept)
                })
                .collect();
            (!kept.is_empty() || none_before).then_some(Value::Array(kept))
        }
        Parts::One => Some(value.clone()),
    }
}

fn keep(
    schema: Option<&Schema>,
    step: &Element,
    value: &Value,
    gone: &Set,
    owned: &Set,
) -> Option<Value> {
    let nobody = Set::default();
    let owned_below = owned.under(step);
    if gone.has(step) && owned_below.is_none() {
        return None;
    }
    match (schema, gone.under(step)) {
        (Some(schema), Some(gone)) => remove(schema, value, gone, owned_below.unwrap_or(&nobody)),
        _ => Some(value.clone()),
    }
}

/// An element that stays keeps what it is found by.
fn restore_keys(step: &Element, before: &Value, kept: &mut Value) {
    let Element::Key(keys) = step else { return };
    let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
    for name in keys.keys() {
        if let (Some(value), Some(kept)) = (before.get(name), kept.as_object_mut()) {
            kept.insert(name.clone(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::schema::serving;
    use serde_json::json;

    fn intent(container: &Value) -> Value {
        json!({"spec": {"template": {"spec": {"containers": container}}}})
    }

    #[test]
    fn lists_with_keys_are_merged_by_them() {
        let schema = serving::service();
        let live = intent(&json!([{"image": "a", "env": [
            {"name": "A", "value": "1"}, {"name": "B", "value": "2"}, {"name": "C", "value": "3"},
        ]}]));
        let config = intent(&json!([{"env": [
            {"name": "D", "value": "4"}, {"name": "B", "value": "5"},
        ]}]));
        let merged = merge(&schema, &live, &config);
        let names: Vec<&str> = merged["spec"]["template"]["spec"]["containers"][0]["env"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["A", "D", "B", "C"]);
        let difference = compare(&schema, &live, &merged);
        let path = ".spec.template.spec.containers[name=\"\"].env[name=\"B\"].value";
        assert_eq!(difference.modified.paths(), [path]);
        assert!(difference.removed.is_empty());
    }

    #[test]
    fn traffic_is_one_value() {
        let schema = serving::service();
        let traffic = |percent: u32| json!({"spec": {"traffic": [{"latestRevision": true, "percent": percent}]}});
        let difference = compare(&schema, &traffic(100), &traffic(50));
        assert_eq!(difference.modified.paths(), [".spec.traffic"]);
    }

    #[test]
    fn ports_are_told_apart_by_number_and_protocol() {
        let schema = serving::service();
        let ports = |ports: Value| intent(&json!([{ "ports": ports }]));
        let both = merge(
            &schema,
            &ports(json!([{"containerPort": 80}])),
            &ports(json!([{"containerPort": 80, "protocol": "TCP", "name": "h2c"}])),
        );
        let merged = &both["spec"]["template"]["spec"]["containers"][0]["ports"];
        assert_eq!(
            merged,
            &json!([{"containerPort": 80, "protocol": "TCP", "name": "h2c"}])
        );
    }
}
