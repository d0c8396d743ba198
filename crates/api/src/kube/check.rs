//! Whether what was sent has the fields and the types that its kind has.

use http::HeaderValue;
use lauf_model::{Status, Violation};
use serde_json::Value;

use super::body::Body;
use super::failure::Failure;
use super::schema::{Schema, Shape};
use crate::api::Ask;
use crate::reply::Reply;

/// What becomes of fields that a kind does not have (`fieldValidation`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strictness {
    /// They are dropped in silence.
    Ignore,
    /// They are dropped, and the answer says so.
    Warn,
    /// The request is refused.
    Strict,
}

/// The most warnings of one answer.
const MOST_WARNINGS: usize = 20;

/// What is to be said of a request that is carried out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Warnings(Vec<String>);

impl Strictness {
    /// Reads the parameter.
    pub(crate) fn of(ask: &Ask) -> Result<Self, Failure> {
        match ask.param("fieldValidation") {
            "" | "Warn" => Ok(Self::Warn),
            "Ignore" => Ok(Self::Ignore),
            "Strict" => Ok(Self::Strict),
            other => Err(Status::invalid(vec![Violation::new(
                "fieldValidation",
                format!(
                    "Unsupported value: \"{other}\": supported values: \"Ignore\", \"Strict\", \
                     \"Warn\""
                ),
            )])
            .into()),
        }
    }
}

impl Warnings {
    /// Adds them to an answer (RFC 7234, 5.5).
    pub(crate) fn add_to(&self, reply: &mut Reply) {
        for text in self.0.iter().take(MOST_WARNINGS) {
            let quoted: String = text
                .chars()
                .filter(|c| !c.is_control())
                .flat_map(|c| match c {
                    '"' | '\\' => vec!['\\', c],
                    c => vec![c],
                })
                .collect();
            if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
                reply.headers_mut().append("warning", value);
            }
        }
    }
}

/// Checks an object, and drops the fields that its kind does not have.
pub(crate) fn object(
    schema: &Schema,
    body: Body,
    strictness: Strictness,
) -> Result<(Value, Warnings), Failure> {
    let Body { mut value, twice } = body;
    let (mut unknown, mut wrong) = (Vec::new(), Vec::new());
    walk(schema, &mut value, "", &mut unknown, &mut wrong);
    let twice = twice.iter().map(|at| format!("duplicate field \"{at}\""));
    let unknown = unknown.iter().map(|at| format!("unknown field \"{at}\""));
    let said: Vec<String> = unknown.chain(twice).collect();
    if strictness == Strictness::Strict && !said.is_empty() {
        let message = format!("strict decoding error: {}", said.join(", "));
        return Err(Failure::bad_request(message));
    }
    if !wrong.is_empty() {
        return Err(Status::invalid(wrong).into());
    }
    let said = if strictness == Strictness::Warn {
        said
    } else {
        Vec::new()
    };
    Ok((value, Warnings(said)))
}

/// A path and one more field.
pub(crate) fn below(at: &str, name: &str) -> String {
    if at.is_empty() {
        name.to_owned()
    } else {
        format!("{at}.{name}")
    }
}

fn walk(
    schema: &Schema,
    value: &mut Value,
    at: &str,
    unknown: &mut Vec<String>,
    wrong: &mut Vec<Violation>,
) {
    if value.is_null() {
        return;
    }
    let fits = match (&schema.shape, &mut *value) {
        (Shape::Object(fields), Value::Object(map)) => {
            map.retain(|name, value| match fields.get(name) {
                Some(schema) => {
                    walk(schema, value, &below(at, name), unknown, wrong);
                    true
                }
                None => {
                    unknown.push(below(at, name));
                    false
                }
            });
            for name in &fields.required {
                if map.get(*name).is_none_or(Value::is_null) {
                    wrong.push(Violation::new(
                        below(at, name),
                        format!("Required value: missing field(s): {name}"),
                    ));
                }
            }
            true
        }
        (Shape::Map(of), Value::Object(map)) => {
            for (name, value) in map {
                walk(of, value, &format!("{at}[{name}]"), unknown, wrong);
            }
            true
        }
        (Shape::List(of, _), Value::Array(items)) => {
            for (i, item) in items.iter_mut().enumerate() {
                walk(of, item, &format!("{at}[{i}]"), unknown, wrong);
            }
            true
        }
        (Shape::Text(_), Value::String(_)) | (Shape::Truth, Value::Bool(_)) => true,
        (Shape::Whole(format), Value::Number(number)) => {
            // Without a fraction 80.0 is whole: some YAML writers send it.
            #[allow(
                clippy::cast_possible_truncation,
                reason = "checked to be whole and small"
            )]
            let whole = number.as_i64().or_else(|| {
                let float = number.as_f64()?;
                (float.fract() == 0.0 && float.abs() < 1e15).then_some(float as i64)
            });
            match whole {
                Some(number) => {
                    *value = number.into();
                    *format != "int32" || i32::try_from(number).is_ok()
                }
                None => false,
            }
        }
        (Shape::NumberOrText, Value::String(_) | Value::Number(_)) | (Shape::Anything, _) => true,
        _ => false,
    };
    if !fits {
        let is = match &value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        wrong.push(Violation::new(
            at,
            format!("Invalid value: \"{is}\": must be {}", wanted(&schema.shape)),
        ));
    }
}

fn wanted(shape: &Shape) -> &'static str {
    match shape {
        Shape::Text(_) => "a string",
        Shape::Whole("int32") => "a whole number of 32 bits",
        Shape::Whole(_) => "a whole number",
        Shape::Truth => "true or false",
        Shape::NumberOrText => "a number or a string",
        Shape::Anything => "any value",
        Shape::Map(_) | Shape::Object(_) => "an object",
        Shape::List(..) => "an array",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::schema::serving;
    use serde_json::json;

    fn sent(value: Value) -> Body {
        Body {
            value,
            twice: vec!["kind".to_owned()],
        }
    }

    #[test]
    fn unknown_fields_are_dropped_told_or_refused() {
        let schema = serving::service();
        let value =
            json!({"spec": {"template": {"spec": {"containers": [{"imgae": "x"}]}}, "x": 1}});
        let (kept, warnings) = object(&schema, sent(value.clone()), Strictness::Warn).unwrap();
        assert_eq!(
            kept["spec"],
            json!({"template": {"spec": {"containers": [{}]}}})
        );
        assert_eq!(
            warnings.0,
            [
                "unknown field \"spec.template.spec.containers[0].imgae\"",
                "unknown field \"spec.x\"",
                "duplicate field \"kind\""
            ]
        );
        let error = object(&schema, sent(value.clone()), Strictness::Strict).unwrap_err();
        assert_eq!(error.code, 400);
        assert!(
            error
                .message
                .starts_with("strict decoding error: unknown field")
        );
        let (_, warnings) = object(&schema, sent(value), Strictness::Ignore).unwrap();
        assert_eq!(warnings, Warnings::default());
    }

    #[test]
    fn types_are_checked_and_all_named() {
        let value = json!({"metadata": {"labels": {"a": 1}}, "spec": {
            "template": {"spec": {"timeoutSeconds": "60", "containers": [{"image": ["x"]}]}},
            "traffic": {"percent": 100},
        }});
        let error = object(&serving::service(), sent(value), Strictness::Ignore).unwrap_err();
        let fields: Vec<&str> = error.causes.iter().map(|c| c.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "metadata.labels[a]",
                "spec.template.spec.containers[0].image",
                "spec.template.spec.timeoutSeconds",
                "spec.traffic"
            ]
        );
    }
}
