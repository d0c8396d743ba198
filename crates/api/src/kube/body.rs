//! What a client sends: JSON or YAML, read strictly enough to tell what is wrong with it.

use std::cell::RefCell;
use std::fmt;

use http::header;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::failure::Failure;
use crate::api::Ask;

/// How deep a body may nest, as serde_json has it.
pub(crate) const DEEPEST: usize = 127;

/// A body, and the fields that stood in it twice.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Body {
    pub(crate) value: Value,
    pub(crate) twice: Vec<String>,
}

/// The media type of the body, without its parameters.
pub(crate) fn media(ask: &Ask) -> String {
    let header = ask.headers.get(header::CONTENT_TYPE);
    let text = header.and_then(|value| value.to_str().ok()).unwrap_or("");
    let media = text.split(';').next().unwrap_or("").trim();
    media.to_ascii_lowercase()
}

/// Reads a body that is an object; an empty one is `null`.
pub(crate) fn object(ask: &Ask) -> Result<Body, Failure> {
    match media(ask).as_str() {
        "" | "application/json" => json(&ask.body),
        "application/yaml" | "text/yaml" | "application/x-yaml" => yaml(&ask.body),
        _ => Err(unsupported(&["application/json", "application/yaml"])),
    }
}

/// The answer to a body of a kind that is not read.
pub(crate) fn unsupported(accepted: &[&str]) -> Failure {
    Failure::new(
        415,
        "UnsupportedMediaType",
        format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        ),
    )
}

/// Whether a body is an object in Kubernetes' protobuf: the magic number and then `runtime.Unknown`.
pub(crate) fn is_protobuf(ask: &Ask) -> bool {
    media(ask) == "application/vnd.kubernetes.protobuf" && ask.body.starts_with(b"k8s\0")
}

/// Reads JSON.
pub(crate) fn json(text: &[u8]) -> Result<Body, Failure> {
    if text.trim_ascii().is_empty() {
        return Ok(Body {
            value: Value::Null,
            twice: Vec::new(),
        });
    }
    let mut reader = serde_json::Deserializer::from_slice(text);
    let twice = RefCell::new(Vec::new());
    let wrong = |error| Failure::bad_request(format!("the body is not valid JSON: {error}"));
    let value = Careful {
        at: String::new(),
        twice: &twice,
    }
    .deserialize(&mut reader)
    .map_err(wrong)?;
    reader.end().map_err(wrong)?;
    Ok(Body {
        value,
        twice: twice.into_inner(),
    })
}

/// Reads YAML, and so JSON too.
pub(crate) fn yaml(text: &[u8]) -> Result<Body, Failure> {
    // Most of what comes as YAML is JSON, which is read quicker and with better words.
    if text.trim_ascii_start().starts_with(b"{")
        && let Ok(body) = json(text)
    {
        return Ok(body);
    }
    let text =
        std::str::from_utf8(text).map_err(|_| Failure::bad_request("the body is not UTF-8"))?;
    if text.trim().is_empty() {
        return json(b"");
    }
    let value: Value = serde_saphyr::from_str(text)
        .map_err(|error| Failure::bad_request(format!("the body is not valid YAML: {error}")))?;
    if depth(&value) > DEEPEST {
        return Err(Failure::bad_request(format!(
            "the body nests more than {DEEPEST} levels deep"
        )));
    }
    Ok(Body {
        value,
        twice: Vec::new(),
    })
}

/// How deep a value nests.
pub(crate) fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// Reads a value and notes the fields that stand in it twice, the last of which counts.
struct Careful<'a> {
    at: String,
    twice: &'a RefCell<Vec<String>>,
}

impl<'de> DeserializeSeed<'de> for Careful<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Careful<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(Careful {
            at: format!("{}[{}]", self.at, items.len()),
            twice: self.twice,
        })? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let at = super::check::below(&self.at, &name);
            let value = map.next_value_seed(Careful {
                at: at.clone(),
                twice: self.twice,
            })?;
            if fields.insert(name, value).is_some() {
                self.twice.borrow_mut().push(at);
            }
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_that_stand_twice_are_named() {
        let body = json(br#"{"a": [{"b": 1, "b": 2}], "c": null, "c": 1.5}"#).unwrap();
        assert_eq!(body.value, json!({"a": [{"b": 2}], "c": 1.5}));
        assert_eq!(body.twice, ["a[0].b", "c"]);
        for wrong in ["{", "{} {}", "{\"a\":}", &"[".repeat(500)] {
            assert_eq!(json(wrong.as_bytes()).unwrap_err().code, 400, "{wrong}");
        }
    }

    #[test]
    fn yaml_is_read_like_json() {
        let body = yaml(b"a:\n  - b: 'x'\n    n: 1\nt: true\n").unwrap();
        assert_eq!(body.value, json!({"a": [{"b": "x", "n": 1}], "t": true}));
        assert!(yaml(b"a: [").is_err());
        // A small text must not become a large object.
        let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n\
                    c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n\
                    e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n\
                    g: [*f,*f,*f,*f,*f,*f,*f,*f,*f]\n";
        assert!(yaml(bomb.as_bytes()).is_err());
    }
}
