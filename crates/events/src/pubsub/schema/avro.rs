//! Avro: definitions, and messages in the JSON encoding, in which a union names its branch (Avro
//! specification, "JSON Encoding"). The binary encoding is next door, in `avro_binary`.

use apache_avro::Schema;
use apache_avro::schema::{NamesRef, ResolvedSchema, UnionSchema};
use serde_json::Value;

/// How deep a message may go: a schema may contain itself.
pub(super) const MAX_DEPTH: usize = 64;

pub(super) fn compile(definition: &str) -> Result<Schema, String> {
    let schema = Schema::parse_str(definition)
        .map_err(|error| format!("The Avro schema is not understood: {error}."))?;
    match schema {
        Schema::Record(_) => Ok(schema),
        _ => Err("The Avro schema must be a record at its top.".to_owned()),
    }
}

pub(super) fn check_json(schema: &Schema, data: &[u8]) -> Result<(), String> {
    let value: Value = serde_json::from_slice(data).map_err(|error| error.to_string())?;
    let resolved = ResolvedSchema::try_from(schema).map_err(|error| error.to_string())?;
    let walk = Walk {
        names: resolved.get_names(),
    };
    walk.value(schema, &value, "$", 0)
}

struct Walk<'a> {
    names: &'a NamesRef<'a>,
}

impl Walk<'_> {
    fn value(&self, schema: &Schema, value: &Value, at: &str, depth: usize) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err(format!("it is more than {MAX_DEPTH} levels deep"));
        }
        let is = |fits: bool, wanted: &str| {
            if fits {
                Ok(())
            } else {
                Err(format!("{at} is not {wanted}"))
            }
        };
        match schema {
            Schema::Null => is(value.is_null(), "null"),
            Schema::Boolean => is(value.is_boolean(), "a boolean"),
            Schema::Int | Schema::Date | Schema::TimeMillis => {
                let fits = value.as_i64().is_some_and(|n| i32::try_from(n).is_ok());
                is(fits, "an int")
            }
            Schema::Long
            | Schema::TimeMicros
            | Schema::TimestampMillis
            | Schema::TimestampMicros
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos => is(value.is_i64(), "a long"),
            Schema::Float | Schema::Double => is(value.is_number(), "a number"),
            Schema::String | Schema::Uuid => is(value.is_string(), "a string"),
            Schema::Bytes | Schema::BigDecimal => is(bytes_of(value).is_some(), "bytes"),
            Schema::Decimal(_) | Schema::Duration => is(bytes_of(value).is_some(), "bytes"),
            Schema::Fixed(fixed) => {
                let fits = bytes_of(value) == Some(fixed.size);
                is(fits, &format!("{} bytes", fixed.size))
            }
            Schema::Enum(symbols) => {
                let fits = value
                    .as_str()
                    .is_some_and(|text| symbols.symbols.iter().any(|symbol| symbol == text));
                is(fits, &format!("one of {}", symbols.symbols.join(", ")))
            }
            Schema::Array(array) => {
                let items = value
                    .as_array()
                    .ok_or_else(|| format!("{at} is not an array"))?;
                for (n, item) in items.iter().enumerate() {
                    self.value(&array.items, item, &format!("{at}[{n}]"), depth + 1)?;
                }
                Ok(())
            }
            Schema::Map(map) => {
                let items = value
                    .as_object()
                    .ok_or_else(|| format!("{at} is not a map"))?;
                for (key, item) in items {
                    self.value(&map.types, item, &format!("{at}.{key}"), depth + 1)?;
                }
                Ok(())
            }
            Schema::Record(record) => {
                let fields = value
                    .as_object()
                    .ok_or_else(|| format!("{at} is not a record"))?;
                for field in &record.fields {
                    match fields.get(&field.name) {
                        Some(value) => {
                            let at = format!("{at}.{}", field.name);
                            self.value(&field.schema, value, &at, depth + 1)?;
                        }
                        None => return Err(format!("{at}.{} is missing", field.name)),
                    }
                }
                match fields
                    .keys()
                    .find(|key| record.fields.iter().all(|field| field.name != **key))
                {
                    Some(key) => Err(format!("{at}.{key} is not in the schema")),
                    None => Ok(()),
                }
            }
            Schema::Union(union) => self.union(union, value, at, depth),
            Schema::Ref { name } => match self.names.get(name) {
                Some(schema) => self.value(schema, value, at, depth + 1),
                None => Err(format!("{name:?} is not in the schema")),
            },
        }
    }

    /// `null`, or an object whose one key names the branch.
    fn union(
        &self,
        union: &UnionSchema,
        value: &Value,
        at: &str,
        depth: usize,
    ) -> Result<(), String> {
        if value.is_null() {
            return if union.variants().contains(&Schema::Null) {
                Ok(())
            } else {
                Err(format!("{at} must not be null"))
            };
        }
        let only = value.as_object().filter(|object| object.len() == 1);
        let Some((name, inner)) = only.and_then(|object| object.iter().next()) else {
            return Err(format!(
                "{at} is a union and must be an object that names its branch, such as \
                 {{\"string\": ...}}"
            ));
        };
        let branch = union
            .variants()
            .iter()
            .find(|branch| is_called(branch, name));
        match branch {
            Some(branch) => self.value(branch, inner, &format!("{at}.{name}"), depth + 1),
            None => Err(format!("{at} has no branch '{name}'")),
        }
    }
}

fn is_called(schema: &Schema, name: &str) -> bool {
    let full = match schema {
        Schema::Ref { name } => Some(name),
        other => other.name(),
    };
    match full {
        Some(full) => full.fullname(None) == name,
        None => {
            let kind = match schema {
                Schema::Boolean => "boolean",
                Schema::Int | Schema::Date | Schema::TimeMillis => "int",
                Schema::Float => "float",
                Schema::Double => "double",
                Schema::String | Schema::Uuid => "string",
                Schema::Bytes | Schema::BigDecimal | Schema::Decimal(_) => "bytes",
                Schema::Array(_) => "array",
                Schema::Map(_) => "map",
                _ => "long",
            };
            kind == name
        }
    }
}

/// How many bytes a string stands for: each character is one.
fn bytes_of(value: &Value) -> Option<usize> {
    let text = value.as_str()?;
    text.chars()
        .all(|c| u32::from(c) < 256)
        .then(|| text.chars().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATE: &str = r#"{
        "type": "record", "name": "State", "namespace": "us",
        "fields": [
            {"name": "name", "type": "string"},
            {"name": "area", "type": ["null", "double"]},
            {"name": "size", "type": {"type": "enum", "name": "Size", "symbols": ["SMALL", "LARGE"]}},
            {"name": "near", "type": {"type": "array", "items": "State"}}
        ]
    }"#;

    #[test]
    fn json_is_held_against_the_schema() {
        let schema = compile(STATE).unwrap();
        let check = |text: &str| check_json(&schema, text.as_bytes());
        let good = r#"{"name":"Ohio","area":{"double":116.1},"size":"LARGE","near":[
            {"name":"Iowa","area":null,"size":"SMALL","near":[]}]}"#;
        assert_eq!(check(good), Ok(()));
        for (text, part) in [
            ("no json", "expected"),
            ("[]", "$ is not a record"),
            (
                r#"{"name":"Ohio","area":null,"size":"LARGE"}"#,
                "$.near is missing",
            ),
            (
                r#"{"name":1,"area":null,"size":"LARGE","near":[]}"#,
                "$.name is not a string",
            ),
            (
                r#"{"name":"","area":1.5,"size":"LARGE","near":[]}"#,
                "names its branch",
            ),
            (
                r#"{"name":"","area":{"int":1},"size":"LARGE","near":[]}"#,
                "no branch 'int'",
            ),
            (
                r#"{"name":"","area":null,"size":"HUGE","near":[]}"#,
                "SMALL, LARGE",
            ),
            (
                r#"{"name":"","area":null,"size":"LARGE","near":[{}]}"#,
                "$.near[0].name",
            ),
            (
                r#"{"name":"","area":null,"size":"LARGE","near":[],"x":1}"#,
                "$.x is not in",
            ),
        ] {
            let error = check(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_no_schema_is_refused() {
        assert!(compile("{}").is_err());
        assert!(compile("\"string\"").unwrap_err().contains("record"));
    }
}
