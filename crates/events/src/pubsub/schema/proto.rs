//! Protocol buffers: definitions, and messages in their two encodings.

use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};
use protox::{Compiler, Error};
use serde_json::Deserializer;

/// What the definition's file is called, in errors too.
const FILE: &str = "schema.proto";

/// Knows one file.
struct Only(String);

impl FileResolver for Only {
    fn open_file(&self, name: &str) -> Result<File, Error> {
        if name == FILE {
            File::from_source(FILE, &self.0)
        } else {
            Err(Error::file_not_found(name))
        }
    }
}

pub(super) fn compile(definition: &str) -> Result<MessageDescriptor, String> {
    let wrong = |error: &dyn std::fmt::Display| {
        format!("The protocol buffer schema is not understood: {error}.")
    };
    let mut resolver = ChainFileResolver::new();
    resolver.add(Only(definition.to_owned()));
    // The well-known types; nothing else can be imported.
    resolver.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.include_imports(true);
    compiler.open_file(FILE).map_err(|error| wrong(&error))?;
    let set = compiler.file_descriptor_set();
    let pool = DescriptorPool::from_file_descriptor_set(set).map_err(|error| wrong(&error))?;
    let file = pool
        .get_file_by_name(FILE)
        .ok_or_else(|| wrong(&"it is empty"))?;
    let mut messages = file.messages();
    match (messages.next(), messages.next()) {
        (Some(message), None) => Ok(message),
        (None, _) => Err(wrong(&"it defines no message")),
        (Some(_), Some(_)) => Err(wrong(
            &"it defines more than one message at its top; nest the others in one",
        )),
    }
}

pub(super) fn check_binary(message: &MessageDescriptor, data: &[u8]) -> Result<(), String> {
    let read = DynamicMessage::decode(message.clone(), data).map_err(|error| error.to_string())?;
    match read.unknown_fields().next() {
        Some(field) => Err(format!("field {} is not in the schema", field.number())),
        None => Ok(()),
    }
}

pub(super) fn check_json(message: &MessageDescriptor, data: &[u8]) -> Result<(), String> {
    let mut reader = Deserializer::from_slice(data);
    DynamicMessage::deserialize(message.clone(), &mut reader).map_err(|error| error.to_string())?;
    reader.end().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATE: &str = r#"
        syntax = "proto3";
        import "google/protobuf/timestamp.proto";
        message State {
            string name = 1;
            double area = 2;
            google.protobuf.Timestamp since = 3;
            message Inner { int32 n = 1; }
            repeated Inner inner = 4;
        }
    "#;

    #[test]
    fn messages_are_held_against_the_schema() {
        let message = compile(STATE).unwrap();
        let json = |text: &str| check_json(&message, text.as_bytes());
        let good = r#"{"name":"Ohio","area":1.5,"since":"1803-03-01T00:00:00Z","inner":[{"n":1}]}"#;
        assert_eq!(json(good), Ok(()));
        assert!(json(r#"{"name":1}"#).is_err());
        assert!(json(r#"{"nme":"x"}"#).is_err());
        assert!(json(r#"{"name":"x"} x"#).is_err());
        assert_eq!(check_binary(&message, &[0x0a, 2, b'h', b'i']), Ok(()));
        assert!(check_binary(&message, &[0x0a, 9, b'h']).is_err());
        assert!(
            check_binary(&message, &[0x78, 1])
                .unwrap_err()
                .contains("15")
        );
    }

    #[test]
    fn what_is_no_schema_is_refused() {
        for (text, part) in [
            ("message", "expected an identifier"),
            ("syntax = \"proto3\";", "no message"),
            (
                "syntax = \"proto3\"; message A {} message B {}",
                "more than one",
            ),
            (
                "syntax = \"proto3\"; import \"other.proto\"; message A {}",
                "other.proto",
            ),
        ] {
            let error = compile(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
