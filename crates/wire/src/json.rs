//! Messages from JSON and to JSON, with errors that name the field.

use lauf_model::{Code, Status, Violation};
use prost_reflect::{DynamicMessage, MessageDescriptor, SerializeOptions};
use serde::Deserializer;

/// How the client wants its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Style {
    /// Enums as numbers rather than names.
    pub(crate) numbers: bool,
    /// With line breaks, for people.
    pub(crate) pretty: bool,
}

/// Reads a message. The error names the field by the names that the client used.
pub(crate) fn read(of: MessageDescriptor, text: &[u8]) -> Result<DynamicMessage, Status> {
    // Only messages with a JSON form of their own (wrappers, timestamps) are anything else.
    if !of.full_name().starts_with("google.protobuf.") && !text.trim_ascii_start().starts_with(b"{")
    {
        return Err(payload("The body must be a JSON object."));
    }
    let mut reader = serde_json::Deserializer::from_slice(text);
    let message = deserialize(of, &mut reader)?;
    reader.end().map_err(|error| payload(&error))?;
    Ok(message)
}

/// Reads a message from JSON in any form that serde knows.
pub(crate) fn deserialize<'de, D>(of: MessageDescriptor, from: D) -> Result<DynamicMessage, Status>
where
    D: Deserializer<'de, Error = serde_json::Error>,
{
    let mut track = serde_path_to_error::Track::new();
    let from = serde_path_to_error::Deserializer::new(from, &mut track);
    DynamicMessage::deserialize(of, from).map_err(|error| {
        let at = track.path().to_string();
        let at = if at == "." { "" } else { at.as_str() };
        // What serde_json knows of the place is of no use next to the path.
        let text = error.to_string();
        let text = text.split(" at line ").next().unwrap_or(&text);
        // The path ends at the message; the field that it does not have is in the text alone.
        let unknown = text.strip_prefix("unrecognized field name '");
        let unknown = unknown.and_then(|rest| rest.strip_suffix('\''));
        let (path, text) = match unknown {
            Some(name) if at.is_empty() => (name.to_owned(), "is not a field of this message"),
            Some(name) => (format!("{at}.{name}"), "is not a field of this message"),
            None => (at.to_owned(), text),
        };
        if !error.is_data() || path.is_empty() || path.contains('?') {
            return payload(&error);
        }
        Status::invalid(vec![Violation::new(path, format!("{text}."))])
    })
}

fn payload(error: &(impl std::fmt::Display + ?Sized)) -> Status {
    let text = error.to_string();
    let text = text.trim_end_matches('.');
    Status::new(
        Code::InvalidArgument,
        format!("Invalid JSON payload received. {text}."),
    )
}

/// Writes a message.
pub(crate) fn write(message: &DynamicMessage, style: Style) -> Result<Vec<u8>, Status> {
    let options = SerializeOptions::new().use_enum_numbers(style.numbers);
    let mut out = Vec::with_capacity(512);
    let written = if style.pretty {
        message.serialize_with_options(&mut serde_json::Serializer::pretty(&mut out), &options)
    } else {
        message.serialize_with_options(&mut serde_json::Serializer::new(&mut out), &options)
    };
    written.map_err(|error| {
        Status::new(
            Code::Internal,
            format!("The answer cannot be written as JSON: {error}."),
        )
    })?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn service(text: &str) -> Result<DynamicMessage, Status> {
        let of = crate::pool().get_message_by_name("google.cloud.run.v2.Service");
        read(of.unwrap(), text.as_bytes())
    }

    fn again(text: &str, numbers: bool) -> String {
        let style = Style {
            numbers,
            pretty: false,
        };
        String::from_utf8(write(&service(text).unwrap(), style).unwrap()).unwrap()
    }

    #[test]
    fn both_names_both_forms_of_enums_and_numbers_as_text_are_read() {
        let text = r#"{"observed_generation":"7","ingress":1,"template":{"timeout":"1.500s",
            "max_instance_request_concurrency":"3"},"labels":{"a_b":"c"},"uri":null}"#;
        assert_eq!(
            again(text, false),
            r#"{"labels":{"a_b":"c"},"ingress":"INGRESS_TRAFFIC_ALL","template":{"timeout":"1.500s","maxInstanceRequestConcurrency":3},"observedGeneration":"7"}"#
        );
        assert!(again(text, true).contains(r#""ingress":1"#));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, field) in [
            (r#"{"nonsense":1}"#, Some("nonsense")),
            (r#"{"template":{"nonsense":1}}"#, Some("template.nonsense")),
            (
                r#"{"template":{"containers":[{},{"env":[{"name":5}]}]}}"#,
                Some("template.containers[1].env[0].name"),
            ),
            (r#"{"ingress":"NONSENSE"}"#, Some("ingress")),
            (r#"{"generation":"1.5"}"#, Some("generation")),
            (r#"{"template":{"timeout":"1m"}}"#, Some("template.timeout")),
            (r#"{"labels":[]}"#, Some("labels")),
            ("[]", None),
            ("5", None),
            ("", None),
            ("{", None),
            ("{} x", None),
        ] {
            let error = service(text).unwrap_err();
            assert_eq!(error.code, Code::InvalidArgument);
            let found = error.violations.first().map(|v| v.field.as_str());
            assert_eq!(found, field, "{text}: {error}");
        }
        let deep = format!("{}{}", "{\"template\":".repeat(10_000), "}".repeat(10_000));
        assert!(service(&deep).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,80}") {
            let _ = service(&text);
        }

        #[test]
        fn any_json_is_read_or_refused(
            text in "\\{(\"(name|labels|template|ingress|traffic|containers|timeout|scaling)\":(1|-1e9|\"x\"|null|true|\\[\\]|\\{\\}|\\[\\{\\}\\]|\\{\"a\":1\\})){1}\\}",
        ) {
            if let Ok(message) = service(&text) {
                let out = write(&message, Style::default()).unwrap();
                let again = service(std::str::from_utf8(&out).unwrap()).unwrap();
                prop_assert_eq!(write(&again, Style::default()), Ok(out));
            }
        }
    }
}
