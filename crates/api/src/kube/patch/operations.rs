//! JSON Patch (RFC 6902), bounded: a patch that copies what it copied could grow without end, and
//! one that adds below what it added could nest deeper than a stack holds.

use serde::Deserialize;
use serde_json::Value;

use crate::kube::body::{DEEPEST, depth};
use crate::kube::failure::Failure;

/// The most operations of a patch (as of Kubernetes' API server).
const MOST: usize = 10_000;
/// How many bytes of JSON all copies of a patch may make.
const MOST_COPIED: usize = 4 << 20;

/// One operation (RFC 6902, 4).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub(crate) enum Operation {
    Add { path: String, value: Value },
    Remove { path: String },
    Replace { path: String, value: Value },
    Move { from: String, path: String },
    Copy { from: String, path: String },
    Test { path: String, value: Value },
}

/// Reads a patch.
pub(super) fn read(text: &[u8]) -> Result<Vec<Operation>, Failure> {
    let patch: Vec<Operation> = serde_json::from_slice(text)
        .map_err(|error| Failure::bad_request(format!("the JSON patch is not valid: {error}")))?;
    if patch.len() > MOST {
        return Err(too_large(&format!(
            "has {} operations; at most {MOST} are allowed",
            patch.len()
        )));
    }
    Ok(patch)
}

/// What comes of an object.
pub(super) fn apply(patch: &[Operation], object: &Value) -> Result<Value, Failure> {
    let mut object = object.clone();
    let mut copied = 0;
    for (i, operation) in patch.iter().enumerate() {
        if let Operation::Copy { from, .. } = operation
            && let Some(value) = object.pointer(from)
        {
            copied += value.to_string().len();
            if copied > MOST_COPIED {
                return Err(too_large(&format!("copies more than {MOST_COPIED} bytes")));
            }
        }
        step(&mut object, operation).map_err(|why| {
            Failure::new(
                422,
                "Invalid",
                format!(
                    "the server rejected our request due to an error in our request: operation \
                     {i} of the JSON patch: {why}"
                ),
            )
        })?;
    }
    Ok(object)
}

fn too_large(why: &str) -> Failure {
    Failure::new(
        413,
        "RequestEntityTooLarge",
        format!("the JSON patch {why}"),
    )
}

fn step(object: &mut Value, operation: &Operation) -> Result<(), String> {
    match operation {
        Operation::Add { path, value } => add(object, path, value.clone()),
        Operation::Remove { path } => remove(object, path).map(drop),
        Operation::Replace { path, value } => {
            not_too_deep(path, value)?;
            let place = object.pointer_mut(path).ok_or_else(|| nothing(path))?;
            *place = value.clone();
            Ok(())
        }
        Operation::Move { from, path } => {
            if path
                .strip_prefix(from.as_str())
                .is_some_and(|rest| rest.starts_with('/'))
            {
                return Err(format!("{from} cannot be moved into itself"));
            }
            let value = remove(object, from)?;
            add(object, path, value)
        }
        Operation::Copy { from, path } => {
            let value = object.pointer(from).cloned().ok_or_else(|| nothing(from))?;
            add(object, path, value)
        }
        Operation::Test { path, value } => match object.pointer(path) {
            Some(is) if same(is, value) => Ok(()),
            Some(is) => Err(format!("the test failed: {path} is {is}, not {value}")),
            None => Err(nothing(path)),
        },
    }
}

/// Numbers are the same by their value (RFC 6902, 4.6).
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|w| same(v, w)))
        }
        _ => a == b,
    }
}

/// What holds the place of a path, and the last step to it.
fn parent<'a>(object: &'a mut Value, path: &str) -> Result<(&'a mut Value, String), String> {
    let (above, last) = path
        .rsplit_once('/')
        .ok_or_else(|| format!("'{path}' is not a JSON pointer"))?;
    let holder = object.pointer_mut(above).ok_or_else(|| nothing(path))?;
    Ok((holder, last.replace("~1", "/").replace("~0", "~")))
}

/// Whatever stands in an object came by here or was as deep as a body may be.
fn not_too_deep(path: &str, value: &Value) -> Result<(), String> {
    if path.matches('/').count() + depth(value) > DEEPEST {
        return Err(format!(
            "the object would nest more than {DEEPEST} levels deep"
        ));
    }
    Ok(())
}

fn add(object: &mut Value, path: &str, value: Value) -> Result<(), String> {
    not_too_deep(path, &value)?;
    if path.is_empty() {
        *object = value;
        return Ok(());
    }
    match parent(object, path)? {
        (Value::Object(fields), name) => {
            fields.insert(name, value);
            Ok(())
        }
        (Value::Array(items), place) => {
            let place = if place == "-" {
                items.len()
            } else {
                index(&place).ok_or_else(|| nothing(path))?
            };
            if place > items.len() {
                return Err(nothing(path));
            }
            items.insert(place, value);
            Ok(())
        }
        _ => Err(nothing(path)),
    }
}

fn remove(object: &mut Value, path: &str) -> Result<Value, String> {
    if path.is_empty() {
        return Ok(object.take());
    }
    match parent(object, path)? {
        (Value::Object(fields), name) => fields.remove(&name).ok_or_else(|| nothing(path)),
        (Value::Array(items), place) => match index(&place) {
            Some(place) if place < items.len() => Ok(items.remove(place)),
            _ => Err(nothing(path)),
        },
        _ => Err(nothing(path)),
    }
}

/// A place in a list: no sign, no leading zero (RFC 6901, 4).
fn index(text: &str) -> Option<usize> {
    let plain = text.bytes().all(|b| b.is_ascii_digit());
    let plain = plain && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok())?
}

fn nothing(path: &str) -> String {
    format!("there is nothing at {path}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(patch: &Value, object: &Value) -> Result<Value, u16> {
        let patch = read(patch.to_string().as_bytes()).map_err(|f| f.code)?;
        apply(&patch, object).map_err(|f| f.code)
    }

    #[test]
    fn operations_are_those_of_the_rfc() {
        let object = json!({"a": {"b": [1, 2]}});
        let patch = json!([
            {"op": "test", "path": "/a/b/0", "value": 1.0},
            {"op": "add", "path": "/a/b/-", "value": 3},
            {"op": "replace", "path": "/a/b/0", "value": 0},
            {"op": "copy", "from": "/a/b", "path": "/c"},
            {"op": "move", "from": "/c", "path": "/d"},
            {"op": "remove", "path": "/a"},
        ]);
        assert_eq!(run(&patch, &object), Ok(json!({"d": [0, 2, 3]})));
        for (wrong, code) in [
            (json!([{"op": "test", "path": "/a", "value": 1}]), 422),
            (json!([{"op": "remove", "path": "/x"}]), 422),
            (json!([{"op": "replace", "path": "/x", "value": 1}]), 422),
            (json!([{"op": "move", "from": "/a", "path": "/a/b"}]), 422),
            (json!([{"op": "add", "path": "x", "value": 1}]), 422),
            (json!([{"op": "add", "path": "/a/b/7", "value": 1}]), 422),
            (json!([{"op": "add", "path": "/a/b/01", "value": 1}]), 422),
            (json!([{"op": "add", "path": "/a/b/x", "value": 1}]), 422),
            (json!([{"op": "add", "path": "/a"}]), 400),
            (json!([{"op": "grow", "path": "/x"}]), 400),
            (json!({"op": "add"}), 400),
        ] {
            assert_eq!(run(&wrong, &object), Err(code), "{wrong}");
        }
    }

    /// Cases of the RFC's appendix A that the one above has not.
    #[test]
    fn the_rfcs_cases() {
        for (object, patch, result) in [
            (
                json!({"foo": "bar"}),
                json!([{"op": "add", "path": "/child", "value": {"g": {}}}]),
                json!({"foo": "bar", "child": {"g": {}}}),
            ),
            (
                json!({"foo": ["bar", "baz"]}),
                json!([{"op": "add", "path": "/foo/1", "value": "qux"}]),
                json!({"foo": ["bar", "qux", "baz"]}),
            ),
            (
                json!({"foo": ["a", "b", "c"]}),
                json!([{"op": "move", "from": "/foo/0", "path": "/foo/2"}]),
                json!({"foo": ["b", "c", "a"]}),
            ),
            (
                json!({"/": 9, "~1": 10}),
                json!([{"op": "test", "path": "/~01", "value": 10}]),
                json!({"/": 9, "~1": 10}),
            ),
            (
                json!({"foo": ["bar"]}),
                json!([{"op": "add", "path": "/foo/-", "value": ["abc", "def"]}]),
                json!({"foo": ["bar", ["abc", "def"]]}),
            ),
            (
                json!({"foo": null}),
                json!([{"op": "replace", "path": "", "value": {"a": 1}}]),
                json!({"a": 1}),
            ),
        ] {
            assert_eq!(run(&patch, &object), Ok(result), "{patch}");
        }
    }

    #[test]
    fn copies_of_copies_end() {
        let double = |i: usize| json!({"op": "copy", "from": "/a", "path": format!("/a/{i}")});
        let patch: Value = (0..60).map(double).collect();
        assert_eq!(run(&patch, &json!({"a": {"x": "0123456789"}})), Err(413));
    }

    #[test]
    fn what_is_added_below_what_was_added_ends() {
        let deeper = |i: usize| json!({"op": "add", "path": "/a".repeat(i), "value": {}});
        let patch = |n: usize| -> Value { (1..=n).map(deeper).collect() };
        assert!(run(&patch(100), &json!({})).is_ok());
        assert_eq!(run(&patch(200), &json!({})), Err(422));
        let copies = vec![json!({"op": "copy", "from": "/a", "path": "/a/b"}); 200];
        assert_eq!(run(&copies.into(), &json!({"a": {}})), Err(422));
    }
}
