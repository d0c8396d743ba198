//! What is wanted of an object, as a client said it: labels, annotations and spec, without the
//! defaults that are filled in when it is shown, and in the client's own spelling.
//!
//! Clients change what they were shown, defaults and all. [`changed`] finds out which of it they
//! want: what they left as it was shown is as it was said before, and a default that they left alone
//! is still nobody's wish. So a container's default port does not clash with a port that somebody
//! applies, and `kubectl apply` of the same file finds nothing to change.

use serde_json::{Map, Value, json};

/// The parts of an object that clients write, without what says nothing.
pub(crate) fn of(object: &Value) -> Value {
    let mut intent = Map::new();
    let mut metadata = Map::new();
    for name in ["labels", "annotations"] {
        if let Some(value) = said(&object["metadata"][name]) {
            metadata.insert(name.to_owned(), value);
        }
    }
    if !metadata.is_empty() {
        intent.insert("metadata".to_owned(), Value::Object(metadata));
    }
    if let Some(spec) = said(&object["spec"]) {
        intent.insert("spec".to_owned(), spec);
    }
    Value::Object(intent)
}

/// A value without the parts that say nothing: `null`, and objects and lists of nothing else.
fn said(value: &Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Object(fields) => {
            let fields: Map<String, Value> = fields
                .iter()
                .filter_map(|(name, value)| Some((name.clone(), said(value)?)))
                .collect();
            (!fields.is_empty()).then_some(Value::Object(fields))
        }
        Value::Array(items) if items.is_empty() => None,
        Value::Array(items) => {
            // An element that says nothing is still one.
            let items = items
                .iter()
                .map(|item| said(item).unwrap_or_else(|| json!({})));
            Some(Value::Array(items.collect()))
        }
        other => Some(other.clone()),
    }
}

/// Lays what was said over an object with its defaults, so that it comes back as it was said.
pub(crate) fn lay_over(shown: &mut Value, intent: &Value) {
    match (shown, intent) {
        (Value::Object(shown), Value::Object(intent)) => {
            for (name, value) in intent {
                match shown.get_mut(name) {
                    Some(shown) => lay_over(shown, value),
                    None => {
                        shown.insert(name.clone(), value.clone());
                    }
                }
            }
        }
        (Value::Array(shown), Value::Array(intent)) if shown.len() == intent.len() => {
            for (shown, value) in shown.iter_mut().zip(intent) {
                lay_over(shown, value);
            }
        }
        (shown, value) => *shown = value.clone(),
    }
}

/// What is wanted after a client has made `new` of what it was shown, which was made of `before`.
/// All three are intents in form; that of `shown` has the defaults in it.
pub(crate) fn changed(new: &Value, shown: &Value, before: &Value) -> Value {
    let mut intent = Map::new();
    for (part, whole) in [("metadata", false), ("spec", true)] {
        let kept = keep(new.get(part), shown.get(part), before.get(part), whole);
        if let Some(kept) = kept.as_ref().and_then(said) {
            intent.insert(part.to_owned(), kept);
        }
    }
    Value::Object(intent)
}

/// `whole` says that a default with parts is wanted with all of them as soon as one is changed:
/// half a probe means another one.
fn keep(
    new: Option<&Value>,
    shown: Option<&Value>,
    before: Option<&Value>,
    whole: bool,
) -> Option<Value> {
    let new = new?;
    if Some(new) == shown {
        return before.cloned();
    }
    if whole && before.is_none() {
        return Some(new.clone());
    }
    match (new, shown, before) {
        (Value::Object(new), Some(Value::Object(shown)), before) => {
            let before = before.and_then(Value::as_object);
            let fields: Map<String, Value> = new
                .iter()
                .filter_map(|(name, value)| {
                    let before = before.and_then(|fields| fields.get(name));
                    let kept = keep(Some(value), shown.get(name), before, whole)?;
                    Some((name.clone(), kept))
                })
                .collect();
            Some(Value::Object(fields))
        }
        (Value::Array(new), Some(Value::Array(shown)), Some(Value::Array(before)))
            if new.len() == shown.len() && new.len() == before.len() =>
        {
            let items = new
                .iter()
                .zip(shown)
                .zip(before)
                .map(|((new, shown), before)| {
                    keep(Some(new), Some(shown), Some(before), whole).unwrap_or(Value::Null)
                });
            Some(Value::Array(items.collect()))
        }
        (new, _, _) => Some(new.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_nothing_is_not_said() {
        let object = json!({
            "metadata": {"name": "x", "labels": {}, "annotations": {"a": "b"}, "uid": "u"},
            "spec": {"template": {"metadata": {"creationTimestamp": null}, "spec": {
                "containers": [{"image": "i", "resources": {}}, {}],
            }}},
            "status": {},
        });
        assert_eq!(
            of(&object),
            json!({
                "metadata": {"annotations": {"a": "b"}},
                "spec": {"template": {"spec": {"containers": [{"image": "i"}, {}]}}},
            })
        );
    }

    #[test]
    fn defaults_left_alone_are_nobodys_wish() {
        let before = json!({"spec": {"c": [{"image": "a"}], "n": "1"}});
        let shown =
            json!({"spec": {"c": [{"image": "a", "ports": [{"p": 8080}]}], "n": "1", "d": 80}});
        // One field is changed, the rest is sent back.
        let mut new = shown.clone();
        new["spec"]["c"][0]["image"] = json!("b");
        assert_eq!(
            changed(&new, &shown, &before),
            json!({"spec": {"c": [{"image": "b"}], "n": "1"}})
        );
        // A default that is set is a wish.
        new["spec"]["d"] = json!(81);
        assert_eq!(changed(&new, &shown, &before)["spec"]["d"], 81);
        // A default with parts is wanted whole, once one of them is.
        new["spec"]["c"][0]["ports"][0]["p"] = json!(9090);
        new["spec"]["c"][0]["ports"][0]["q"] = json!(1);
        let ports = &changed(&new, &shown, &before)["spec"]["c"][0]["ports"];
        assert_eq!(ports, &json!([{"p": 9090, "q": 1}]));
        // What is left out is no longer wanted.
        let new = json!({"spec": {"c": [{"image": "a"}]}});
        assert_eq!(
            changed(&new, &shown, &before),
            json!({"spec": {"c": [{"image": "a"}]}})
        );
        // Nothing changed.
        assert_eq!(changed(&shown, &shown, &before), before);
    }

    #[test]
    fn spellings_come_back() {
        let mut shown = json!({"limits": {"cpu": "1000m", "memory": "512Mi"}, "ports": [{"name": "http1", "n": 1}]});
        lay_over(
            &mut shown,
            &json!({"limits": {"cpu": "1"}, "ports": [{"n": 1}], "zero": 0}),
        );
        assert_eq!(
            shown,
            json!({"limits": {"cpu": "1", "memory": "512Mi"}, "ports": [{"name": "http1", "n": 1}], "zero": 0})
        );
    }
}
