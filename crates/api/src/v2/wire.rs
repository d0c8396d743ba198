//! The JSON of protobuf messages (protobuf.dev/programming-guides/json), as far as serde does not
//! have it: enums by name and number, int64 as text, durations, fields under either of their names,
//! `null` for nothing, and field masks.

use lauf_model::{Status, Violation};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// The fields whose keys are the client's and not names of fields.
const MAPS: [&str; 4] = ["labels", "annotations", "limits", "baseImages"];

tokio::task_local! {
    /// Whether the answer to the request at hand has enums as numbers, as its client asks.
    pub(crate) static ENUMS_AS_NUMBERS: bool;
}

/// Makes an enum that is written by its name and read by name or number. The first is the default.
macro_rules! wire_enum {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal $number:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub(crate) enum $name { #[default] $($variant,)* }

        impl $name {
            const ALL: &'static [(Self, &'static str, i64)] =
                &[$((Self::$variant, $text, $number),)*];

            /// Its name on the wire.
            pub(crate) fn name(self) -> &'static str {
                Self::ALL.iter().find(|(v, _, _)| *v == self).map_or("", |(_, text, _)| text)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                let as_numbers = crate::v2::wire::ENUMS_AS_NUMBERS.try_with(|numbers| *numbers);
                if as_numbers.unwrap_or(false) {
                    let found = Self::ALL.iter().find(|(v, _, _)| v == self);
                    to.serialize_i64(found.map_or(0, |(_, _, number)| *number))
                } else {
                    to.serialize_str(self.name())
                }
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let value = serde_json::Value::deserialize(from)?;
                let same = |(_, text, number): &&(Self, &str, i64)| {
                    value.as_str() == Some(*text) || value.as_i64() == Some(*number)
                };
                Self::ALL.iter().find(same).map(|(v, _, _)| *v).ok_or_else(|| {
                    let names: Vec<&str> = Self::ALL.iter().map(|(_, text, _)| *text).collect();
                    serde::de::Error::custom(format!(
                        "{value} is not one of {}", names.join(", ")
                    ))
                })
            }
        }
    };
}
pub(crate) use wire_enum;

/// Whether a value is the default of its type, which is not written.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A field that only the server writes. What clients send in it is not looked at.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Output<T>(pub(crate) Option<T>);

impl<T> Default for Output<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> From<T> for Output<T> {
    fn from(value: T) -> Self {
        Self(Some(value))
    }
}

impl<T: Serialize> Serialize for Output<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(to)
    }
}

impl<'de, T> Deserialize<'de> for Output<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(from)?;
        Ok(Self(None))
    }
}

/// A duration of whole seconds, `"300s"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seconds(pub(crate) i64);

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format!("{}s", self.0))
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        seconds(&text).map(Self).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "'{text}' is not a whole number of seconds, such as 300s"
            ))
        })
    }
}

fn seconds(text: &str) -> Option<i64> {
    let number = text.strip_suffix('s')?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let none = fraction.len() <= 9 && fraction.bytes().all(|b| b == b'0');
    whole.parse().ok().filter(|_| none)
}

/// A field's JSON name, from either of its names.
pub(crate) fn camel(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut up = false;
    for c in name.chars() {
        if c == '_' {
            up = true;
        } else {
            out.push(if up { c.to_ascii_uppercase() } else { c });
            up = false;
        }
    }
    out
}

/// Brings a message into one form: JSON names, and nothing that is `null`.
pub(crate) fn normal(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut out = Map::new();
            for (name, value) in fields {
                if value.is_null() {
                    continue;
                }
                let name = camel(&name);
                let value = if MAPS.contains(&name.as_str()) {
                    value
                } else {
                    normal(value)
                };
                out.insert(name, value);
            }
            Value::Object(out)
        }
        Value::Array(items) => Value::Array(items.into_iter().map(normal).collect()),
        other => other,
    }
}

/// The paths of a field mask with JSON names; none when everything is to be replaced.
pub(crate) fn mask(text: &str) -> Vec<Vec<String>> {
    let paths = text.split(',').map(str::trim).filter(|p| !p.is_empty());
    let paths: Vec<Vec<String>> = paths
        .map(|path| {
            let mut in_map = false;
            path.split('.')
                .map(|segment| {
                    let name = if in_map {
                        segment.to_owned()
                    } else {
                        camel(segment)
                    };
                    in_map |= MAPS.contains(&name.as_str());
                    name
                })
                .collect()
        })
        .collect();
    if paths.iter().any(|path| path[0] == "*") {
        Vec::new()
    } else {
        paths
    }
}

/// Puts the fields that `mask` names from `sent` into `base`; those that `sent` lacks are reset.
///
/// # Errors
/// `INVALID_ARGUMENT` for a path that leads into a list or that no field has.
pub(crate) fn apply(
    mask: &[Vec<String>],
    sent: &Value,
    base: &mut Value,
    known: &[&str],
) -> Result<(), Status> {
    let mut found = Vec::new();
    for path in mask {
        if !known.contains(&path[0].as_str()) || put(path, Some(sent), base).is_none() {
            found.push(Violation::new(
                "updateMask",
                format!(
                    "'{}' is not a path of fields that can be updated.",
                    path.join(".")
                ),
            ));
        }
    }
    if found.is_empty() {
        Ok(())
    } else {
        Err(Status::invalid(found))
    }
}

fn put(path: &[String], sent: Option<&Value>, base: &mut Value) -> Option<()> {
    let (first, rest) = path.split_first()?;
    // An annotation's key may hold dots: below a map, the rest of the path is the key.
    let (name, rest) = match rest.first() {
        Some(_) if MAPS.contains(&first.as_str()) => {
            let below = sent.and_then(|s| s.get(first));
            let key = [rest.join(".")];
            let into = base.as_object_mut()?.entry(first.clone());
            return put(&key, below, into.or_insert_with(|| Map::new().into()));
        }
        _ => (first, rest),
    };
    let fields = base.as_object_mut()?;
    let value = sent.and_then(|s| s.get(name));
    if !rest.is_empty() {
        let into = fields.entry(name.clone());
        return put(rest, value, into.or_insert_with(|| Map::new().into()));
    }
    match value {
        Some(value) => fields.insert(name.clone(), value.clone()),
        None => fields.remove(name),
    };
    Some(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn durations_are_whole_seconds() {
        assert_eq!(seconds("300s"), Some(300));
        assert_eq!(seconds("300.000s"), Some(300));
        for wrong in ["300", "1.5s", "s", "1m", ""] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn both_names_of_a_field_are_read_and_keys_of_maps_are_kept() {
        let sent = json!({"client_version": "1", "labels": {"a_b": "c"}, "uri": null});
        assert_eq!(
            normal(sent),
            json!({"clientVersion": "1", "labels": {"a_b": "c"}})
        );
    }

    #[test]
    fn a_mask_sets_resets_and_refuses() {
        let mut base = json!({"description": "old", "labels": {"a": "1", "b.c/d": "2"},
            "template": {"timeout": "5s", "containers": [{}]}});
        let sent = json!({"labels": {"b.c/d": "3"}, "template": {"timeout": "6s"}});
        let paths = mask("description, labels.b.c/d,template.timeout");
        let known = ["description", "labels", "template"];
        apply(&paths, &sent, &mut base, &known).unwrap();
        assert_eq!(
            base,
            json!({"labels": {"a": "1", "b.c/d": "3"},
                "template": {"timeout": "6s", "containers": [{}]}})
        );
        for wrong in ["template.containers.image", "uid", "nonsense"] {
            assert!(apply(&mask(wrong), &sent, &mut base, &known).is_err());
        }
        assert!(mask("*").is_empty());
    }
}
