//! OpenAPI 2 as protobuf (`openapi.v2.Document` of gnostic), the one form in which client-go reads
//! it. The numbers are those of that definition; what our documents do not have is left out.

use serde_json::{Map, Value};

/// A message being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut number: u64) {
        loop {
            let low = u8::try_from(number & 0x7f).unwrap_or_default();
            number >>= 7;
            if number == 0 {
                self.0.push(low);
                return;
            }
            self.0.push(low | 0x80);
        }
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, field: u64, value: &Value) {
        if let Some(text) = value.as_str().filter(|text| !text.is_empty()) {
            self.bytes(field, text.as_bytes());
        }
    }

    fn texts(&mut self, field: u64, value: &Value) {
        for text in value.as_array().into_iter().flatten() {
            self.bytes(field, text.as_str().unwrap_or_default().as_bytes());
        }
    }

    fn truth(&mut self, field: u64, value: &Value) {
        if value == &Value::Bool(true) {
            self.varint(field << 3);
            self.varint(1);
        }
    }

    fn message(&mut self, field: u64, message: Self) {
        self.bytes(field, &message.0);
    }

    /// A message of a map's pair: name and value.
    fn named(&mut self, field: u64, name: &str, value: Self) {
        let mut pair = Self::default();
        pair.bytes(1, name.as_bytes());
        pair.message(2, value);
        self.message(field, pair);
    }

    /// Fields beginning with `x-`, whose values are kept as YAML, which JSON is too.
    fn extensions(&mut self, field: u64, of: &Value) {
        for (name, value) in fields(of).filter(|(name, _)| name.starts_with("x-")) {
            let mut any = Self::default();
            any.bytes(2, value.to_string().as_bytes());
            self.named(field, name, any);
        }
    }
}

fn fields(of: &Value) -> impl Iterator<Item = (&String, &Value)> {
    of.as_object().into_iter().flat_map(Map::iter)
}

/// Writes a whole document.
pub(super) fn document(of: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, &of["swagger"]);
    let mut info = Message::default();
    info.text(1, &of["info"]["title"]);
    info.text(2, &of["info"]["version"]);
    out.message(2, info);
    let mut paths = Message::default();
    for (path, item) in fields(&of["paths"]) {
        paths.named(2, path, path_item(item));
    }
    out.message(8, paths);
    let mut definitions = Message::default();
    for (name, definition) in fields(&of["definitions"]) {
        definitions.named(1, name, schema(definition));
    }
    out.message(9, definitions);
    out.0
}

fn path_item(of: &Value) -> Message {
    let mut out = Message::default();
    for (field, method) in [
        (2, "get"),
        (3, "put"),
        (4, "post"),
        (5, "delete"),
        (8, "patch"),
    ] {
        if let Some(of) = of.get(method) {
            out.message(field, operation(of));
        }
    }
    out
}

fn operation(of: &Value) -> Message {
    let mut out = Message::default();
    out.text(5, &of["operationId"]);
    out.texts(7, &of["consumes"]);
    for of in of["parameters"].as_array().into_iter().flatten() {
        let mut item = Message::default();
        item.message(1, parameter(of));
        out.message(8, item);
    }
    let mut responses = Message::default();
    for (code, of) in fields(&of["responses"]) {
        let mut response = Message::default();
        response.text(1, &of["description"]);
        if let Some(of) = of.get("schema") {
            let mut item = Message::default();
            item.message(1, schema(of));
            response.message(2, item);
        }
        let mut value = Message::default();
        value.message(1, response);
        responses.named(1, code, value);
    }
    out.message(9, responses);
    out.extensions(13, of);
    out
}

fn parameter(of: &Value) -> Message {
    let mut out = Message::default();
    if of["in"] == "body" {
        let mut body = Message::default();
        body.text(2, &of["name"]);
        body.text(3, &of["in"]);
        body.truth(4, &of["required"]);
        body.message(5, schema(&of["schema"]));
        out.message(1, body);
        return out;
    }
    // Query and path differ in the place of what follows the name alone.
    let (which, kind) = if of["in"] == "query" { (3, 6) } else { (4, 5) };
    let mut own = Message::default();
    own.truth(1, &of["required"]);
    own.text(2, &of["in"]);
    own.text(4, &of["name"]);
    own.text(kind, &of["type"]);
    let mut not_body = Message::default();
    not_body.message(which, own);
    out.message(2, not_body);
    out
}

fn schema(of: &Value) -> Message {
    let mut out = Message::default();
    out.text(1, &of["$ref"]);
    out.text(2, &of["format"]);
    out.text(4, &of["description"]);
    out.texts(19, &of["required"]);
    if let Some(values) = of.get("additionalProperties") {
        let mut item = Message::default();
        item.message(1, schema(values));
        out.message(21, item);
    }
    if let Some(kind) = of["type"].as_str() {
        let mut item = Message::default();
        item.bytes(1, kind.as_bytes());
        out.message(22, item);
    }
    if let Some(elements) = of.get("items") {
        let mut item = Message::default();
        item.message(1, schema(elements));
        out.message(23, item);
    }
    if let Some(properties) = of.get("properties") {
        let mut all = Message::default();
        for (name, property) in fields(properties) {
            all.named(1, name, schema(property));
        }
        out.message(25, all);
    }
    out.extensions(31, of);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_wire_is_protobufs() {
        let bytes = document(&json!({
            "swagger": "2.0",
            "info": {"title": "T", "version": "1"},
            "paths": {},
            "definitions": {"a": {"type": "string"}},
        }));
        let wanted: &[u8] = b"\x0a\x032.0\x12\x06\x0a\x01T\x12\x011\x42\x00\
            \x4a\x12\x0a\x10\x0a\x01a\x12\x0b\xb2\x01\x08\x0a\x06string";
        assert_eq!(bytes, wanted);
        let mut long = Message::default();
        long.varint(300);
        assert_eq!(long.0, [0xac, 0x02]);
    }
}
