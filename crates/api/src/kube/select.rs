//! Which objects a list, a watch or a deletion is about: by labels and by fields.

use std::collections::BTreeMap;

use serde_json::Value;

use super::failure::Failure;
use crate::api::Ask;
use crate::selector::Selector;

/// Conditions on objects, all of which must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Select {
    labels: Selector,
    fields: Vec<Field>,
    all: bool,
}

/// A condition on a field.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Field {
    pointer: &'static str,
    value: String,
    equal: bool,
}

impl Select {
    /// Reads `labelSelector` and `fieldSelector`. `name` is that of the path, where it has one.
    pub(crate) fn of(ask: &Ask, name: &str) -> Result<Self, Failure> {
        let labels = ask.param("labelSelector");
        let mut fields = fields(ask.param("fieldSelector"))?;
        if !name.is_empty() {
            fields.push(Field {
                pointer: "/metadata/name",
                value: name.to_owned(),
                equal: true,
            });
        }
        Ok(Self {
            all: labels.trim().is_empty() && fields.is_empty(),
            labels: Selector::parse(labels).map_err(|status| {
                Failure::bad_request(format!("unable to parse requirement: {}", status.message))
            })?,
            fields,
        })
    }

    /// Whether everything is selected.
    pub(crate) fn is_everything(&self) -> bool {
        self.all
    }

    /// The one name that can be selected, if there is one.
    pub(crate) fn name(&self) -> Option<&str> {
        let one = |f: &&Field| f.equal && f.pointer == "/metadata/name";
        self.fields.iter().find(one).map(|f| f.value.as_str())
    }

    /// Whether an object is selected.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.all || self.fields_match(object) && self.labels_match(object)
    }

    fn fields_match(&self, object: &Value) -> bool {
        self.fields.iter().all(|field| {
            let value = object.pointer(field.pointer).and_then(Value::as_str);
            (value.unwrap_or_default() == field.value) == field.equal
        })
    }

    fn labels_match(&self, object: &Value) -> bool {
        let labels = object["metadata"]["labels"].as_object();
        let labels: BTreeMap<String, String> = labels
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect();
        self.labels.matches(&labels)
    }
}

/// Reads a field selector: `metadata.name=a,metadata.namespace!=b`.
fn fields(text: &str) -> Result<Vec<Field>, Failure> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (field, value, equal) = part
                .split_once("!=")
                .map(|(field, value)| (field, value, false))
                .or_else(|| part.split_once("==").map(|(f, v)| (f, v, true)))
                .or_else(|| part.split_once('=').map(|(f, v)| (f, v, true)))
                .ok_or_else(|| {
                    Failure::bad_request(format!(
                        "invalid field selector '{part}': write FIELD=VALUE or FIELD!=VALUE"
                    ))
                })?;
            let pointer = match field.trim() {
                "metadata.name" => "/metadata/name",
                "metadata.namespace" => "/metadata/namespace",
                other => {
                    return Err(Failure::bad_request(format!(
                        "field label not supported: {other}; there are metadata.name and \
                         metadata.namespace"
                    )));
                }
            };
            Ok(Field {
                pointer,
                value: value.trim().to_owned(),
                equal,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_name_and_namespace() {
        let found = fields("metadata.name=a, metadata.namespace!=b").unwrap();
        assert_eq!((found[0].value.as_str(), found[0].equal), ("a", true));
        assert_eq!((found[1].value.as_str(), found[1].equal), ("b", false));
        assert!(fields("").unwrap().is_empty());
        for wrong in ["spec.x=1", "metadata.name", "x"] {
            assert_eq!(fields(wrong).unwrap_err().code, 400, "{wrong}");
        }
    }
}
