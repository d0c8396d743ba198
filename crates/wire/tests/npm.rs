//! What the build script recovers, held against Google's own definition: the description of Cloud Run's
//! protobuf files that npm's `@google-cloud/run` carries. Needs npm and its registry; says so where they
//! are not there.
//!
//! The two may be of different months, so what only one of them has is counted and not a failure.

use std::path::Path;
use std::process::Command;

use lauf_wire::{BINDINGS, Binding};
use prost_reflect::{Cardinality, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::Value;

const PACKAGE: &str = "@google-cloud/run";

/// `protos.json` of the package; `None` when it cannot be had.
fn google() -> Option<Value> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("npm");
    let file = dir.join("package/build/protos/protos.json");
    if !file.exists() {
        std::fs::create_dir_all(&dir).unwrap();
        let packed = Command::new("npm")
            .args(["pack", "--silent", PACKAGE])
            .current_dir(&dir)
            .output();
        let packed = match packed {
            Ok(packed) if packed.status.success() => packed.stdout,
            _ => {
                println!("SKIP descriptors: {PACKAGE} cannot be had from npm's registry");
                return None;
            }
        };
        let archive = String::from_utf8(packed).unwrap();
        let unpacked = Command::new("tar")
            .args(["xzf", archive.trim()])
            .current_dir(&dir)
            .status();
        assert!(unpacked.unwrap().success());
    }
    Some(serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap())
}

/// Google's description of what a full name says.
fn find<'a>(google: &'a Value, name: &str) -> Option<&'a Value> {
    name.split('.').try_fold(google, |at, part| {
        let inside = at["nested"].as_object()?;
        // Acronyms have lost their case on the way through Rust.
        let (_, found) = inside
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(part))?;
        Some(found)
    })
}

#[derive(Default)]
struct Counts {
    messages: usize,
    fields: usize,
    values: usize,
    only_ours: usize,
    only_theirs: usize,
}

fn type_of(field: &FieldDescriptor) -> String {
    let name = |kind: &Kind| match kind {
        Kind::Message(message) => message.name().to_ascii_lowercase(),
        Kind::Enum(of) => of.name().to_ascii_lowercase(),
        other => format!("{other:?}").to_ascii_lowercase(),
    };
    match field.kind() {
        Kind::Message(entry) if field.is_map() => name(&entry.map_entry_value_field().kind()),
        kind => name(&kind),
    }
}

fn check_message(ours: &MessageDescriptor, theirs: &Value, counts: &mut Counts) {
    counts.messages += 1;
    let all = theirs["fields"].as_object().unwrap();
    counts.only_theirs += all
        .keys()
        .filter(|k| ours.get_field_by_json_name(k).is_none())
        .count();
    for field in ours.fields() {
        let at = field.full_name();
        let Some(their) = all.get(field.json_name()) else {
            counts.only_ours += 1;
            continue;
        };
        counts.fields += 1;
        assert_eq!(their["id"], field.number(), "{at}");
        let kind = their["type"].as_str().unwrap();
        let kind = kind.rsplit('.').next().unwrap().to_ascii_lowercase();
        assert_eq!(type_of(&field), kind, "{at}");
        let is_map = their.get("keyType").is_some();
        assert_eq!(field.is_map(), is_map, "{at}");
        let repeated = their["rule"] == "repeated" || is_map;
        assert_eq!(
            field.cardinality() == Cardinality::Repeated,
            repeated,
            "{at}"
        );
        let optional = their["options"]["proto3_optional"] == true;
        assert_eq!(
            field.field_descriptor_proto().proto3_optional(),
            optional,
            "{at}"
        );
        let oneof = field.containing_oneof().filter(|o| !o.is_synthetic());
        let members = theirs["oneofs"].as_object().into_iter().flatten();
        let member = members.into_iter().find(|(name, of)| {
            let of = of["oneof"].as_array().unwrap();
            !name.starts_with('_') && of.iter().any(|m| m == field.json_name())
        });
        assert_eq!(oneof.is_some(), member.is_some(), "{at}");
    }
}

fn check_enum(ours: &EnumDescriptor, theirs: &Value, counts: &mut Counts) {
    let all = theirs["values"].as_object().unwrap();
    counts.only_theirs += all
        .keys()
        .filter(|k| ours.get_value_by_name(k).is_none())
        .count();
    for value in ours.values() {
        match all.get(value.name()) {
            Some(number) => {
                counts.values += 1;
                assert_eq!(*number, value.number(), "{}", value.full_name());
            }
            None => counts.only_ours += 1,
        }
    }
}

#[test]
fn descriptors_are_googles() {
    let Some(google) = google() else { return };
    let mut counts = Counts::default();
    for message in lauf_wire::pool().all_messages() {
        let name = message.full_name();
        if message.is_map_entry() || name.starts_with("google.protobuf.") {
            continue;
        }
        if let Some(theirs) = find(&google, name) {
            check_message(&message, theirs, &mut counts);
            // Only whole names are on the wire, inside an Any.
            let exact = name
                .split('.')
                .try_fold(&google, |at, part| at["nested"].get(part));
            let inside = [
                "Service",
                "Revision",
                "Job",
                "Execution",
                "Task",
                "WorkerPool",
            ];
            assert!(
                exact.is_some() || !inside.contains(&message.name()),
                "{name}"
            );
        }
    }
    for of in lauf_wire::pool().all_enums() {
        let known = of.full_name().starts_with("google.protobuf.");
        if let Some(theirs) = find(&google, of.full_name()).filter(|_| !known) {
            check_enum(&of, theirs, &mut counts);
        }
    }
    println!(
        "{} messages, {} fields and {} values of enums are the same; {} are ours alone, {} Google's",
        counts.messages, counts.fields, counts.values, counts.only_ours, counts.only_theirs
    );
    assert!(counts.messages > 50 && counts.fields > 250 && counts.values > 50);
}

#[test]
fn paths_are_googles() {
    let Some(google) = google() else { return };
    let mut checked = 0;
    for binding in BINDINGS
        .iter()
        .filter(|b| b.service.starts_with("google.cloud.run.v2."))
    {
        // Under v1 is what gcloud asks, which no file defines.
        if binding.path.starts_with("/v1/") {
            continue;
        }
        let service = find(&google, binding.service).unwrap();
        let rules = &service["methods"][binding.method]["parsedOptions"];
        let rule = rules
            .as_array()
            .unwrap()
            .iter()
            .find_map(|o| o.get("(google.api.http)"));
        let rule = rule.unwrap();
        let more = match &rule["additional_bindings"] {
            Value::Array(all) => all.clone(),
            Value::Null => Vec::new(),
            one => vec![one.clone()],
        };
        let same = |rule: &Value| is(binding, rule);
        assert!(same(rule) || more.iter().any(same), "{binding:?}: {rule}");
        checked += 1;
    }
    println!("{checked} paths are the same");
    assert!(checked > 10);
}

fn is(binding: &Binding, rule: &Value) -> bool {
    let verb = binding.verb.to_ascii_lowercase();
    let body = rule["body"].as_str().unwrap_or_default();
    rule[verb] == binding.path && body == binding.body
}
