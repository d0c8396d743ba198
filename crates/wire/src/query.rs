//! Query parameters: those of every Google API (cloud.google.com/apis/docs/system-parameters), and the
//! fields of the request that neither path nor body have.

use lauf_model::{Status, Violation};
use percent_encoding::percent_decode_str;
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _, Value as Field,
};
use serde_json::{Map, Value};

use crate::json::{self, Style};

/// What a query says, but for the request's fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct System {
    pub(crate) style: Style,
    /// A stream as server-sent events rather than a JSON array.
    pub(crate) events: bool,
}

/// Parameters that concern nobody here: keys and quotas of Google's, and how clients name themselves.
const UNUSED: [&str; 12] = [
    "key",
    "access_token",
    "oauth_token",
    "quotaUser",
    "userProject",
    "apiVersion",
    "xgafv",
    "uploadType",
    "upload_protocol",
    ".xgafv",
    "uploadProtocol",
    "userIp",
];

/// The pairs of a query, decoded.
pub(crate) fn pairs(query: &str) -> Result<Vec<(String, String)>, Status> {
    let text = |text: &str| {
        let text = text.replace('+', " ");
        let decoded = percent_decode_str(&text).decode_utf8();
        decoded
            .map(std::borrow::Cow::into_owned)
            .map_err(|_| violation(&text, "is not UTF-8."))
    };
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((text(key)?, text(value)?))
        })
        .collect()
}

/// Takes the system's parameters out of the pairs.
pub(crate) fn system(pairs: &mut Vec<(String, String)>) -> Result<System, Status> {
    let mut system = System::default();
    let mut wrong = Vec::new();
    pairs.retain(|(key, value)| {
        let name = key.strip_prefix('$').unwrap_or(key);
        match (name, value.as_str()) {
            ("alt", "" | "json" | "media") => {}
            ("alt", "json;enum-encoding=int") => system.style.numbers = true,
            ("alt", "sse") => system.events = true,
            ("alt", other) => wrong.push(Violation::new(
                "alt",
                format!("'{other}' is not supported; it must be json, json;enum-encoding=int, media or sse."),
            )),
            ("prettyPrint", "true" | "1") => system.style.pretty = true,
            ("prettyPrint", _) => {}
            ("fields" | "callback", "") => {}
            ("fields", _) => wrong.push(Violation::new(
                "fields",
                "is not supported by this version of Lauf; leave it out to get all fields.",
            )),
            ("callback", _) => wrong.push(Violation::new("callback", "is not supported.")),
            (name, _) if UNUSED.contains(&name) => {}
            _ => return true,
        }
        false
    });
    if wrong.is_empty() {
        Ok(system)
    } else {
        Err(Status::invalid(wrong))
    }
}

/// Reads what is left of the pairs into a request.
pub(crate) fn read(
    of: &MessageDescriptor,
    pairs: &[(String, String)],
) -> Result<DynamicMessage, Status> {
    let mut tree = Map::new();
    let mut masks = Vec::new();
    let mut wrong = Vec::new();
    for (key, value) in pairs {
        let Some(path) = fields(of, key) else {
            wrong.push(Violation::new(key, "is not a parameter of this method."));
            continue;
        };
        let last = &path[path.len() - 1];
        if is_mask(last) {
            masks.push((path, value));
            continue;
        }
        match leaf(last, value) {
            Ok(value) => put(&mut tree, &path, value),
            Err(why) => wrong.push(Violation::new(key, format!("'{value}' {why}."))),
        }
    }
    if !wrong.is_empty() {
        return Err(Status::invalid(wrong));
    }
    let mut request = json::deserialize(of.clone(), Value::Object(tree))?;
    for (path, value) in masks {
        set_mask(&mut request, &path, value);
    }
    Ok(request)
}

/// Sets the field at a path to a text: what a variable of the HTTP path does.
pub(crate) fn set(request: &mut DynamicMessage, path: &str, value: &str) -> Result<(), Status> {
    let wrong = |why: &str| violation(path, why);
    let of = request.descriptor();
    let fields = fields(&of, path).ok_or_else(|| wrong("is not a field of the request."))?;
    let (last, before) = fields.split_last().ok_or_else(|| wrong("is empty."))?;
    let mut into = request;
    for field in before {
        into = into
            .get_field_mut(field)
            .as_message_mut()
            .ok_or_else(|| wrong("leads into what is no message."))?;
    }
    let of = into.descriptor();
    let mut tree = Map::new();
    let json = leaf(last, value).map_err(|why| wrong(&format!("'{value}' {why}.")))?;
    put(&mut tree, std::slice::from_ref(last), json);
    let read = json::deserialize(of, Value::Object(tree))?;
    into.set_field(last, read.get_field(last).into_owned());
    Ok(())
}

/// The fields on a path, by either of their names; `None` if there is no such path.
fn fields(of: &MessageDescriptor, path: &str) -> Option<Vec<FieldDescriptor>> {
    let mut of = Some(of.clone());
    path.split('.')
        .map(|name| {
            let inside = of.take()?;
            let field = field(&inside, name)?;
            if !field.is_list()
                && !field.is_map()
                && let Kind::Message(inner) = field.kind()
            {
                of = Some(inner);
            }
            Some(field)
        })
        .collect()
}

/// A path with the names of protobuf, if it leads to a field.
pub(crate) fn names(of: &MessageDescriptor, path: &str) -> Option<String> {
    let fields = fields(of, path)?;
    let names: Vec<&str> = fields.iter().map(FieldDescriptor::name).collect();
    Some(names.join("."))
}

/// A field by either of its names.
pub(crate) fn field(of: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    of.get_field_by_name(name)
        .or_else(|| of.get_field_by_json_name(name))
}

/// A parameter's text as the JSON that its field takes.
fn leaf(field: &FieldDescriptor, text: &str) -> Result<Value, &'static str> {
    if field.is_map() {
        return Err("cannot be a map; send it in the body");
    }
    let value = match field.kind() {
        Kind::Bool => boolean(text)?,
        Kind::Enum(_) => match text.parse::<i32>() {
            Ok(number) => number.into(),
            Err(_) => text.into(),
        },
        Kind::Message(of) => match of.full_name() {
            "google.protobuf.BoolValue" => boolean(text)?,
            name if name.starts_with("google.protobuf.") => text.into(),
            _ => return Err("is not a message; name its fields with dots"),
        },
        _ => text.into(),
    };
    Ok(value)
}

fn boolean(text: &str) -> Result<Value, &'static str> {
    match text {
        "true" | "True" | "1" | "" => Ok(true.into()),
        "false" | "False" | "0" => Ok(false.into()),
        _ => Err("is not allowed; it must be true or false"),
    }
}

fn put(tree: &mut Map<String, Value>, path: &[FieldDescriptor], value: Value) {
    let Some((field, rest)) = path.split_first() else {
        return;
    };
    let name = field.json_name().to_owned();
    if !rest.is_empty() {
        let inner = tree
            .entry(name)
            .or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(inner) = inner {
            put(inner, rest, value);
        }
    } else if field.is_list() {
        let list = tree.entry(name).or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(list) = list {
            list.push(value);
        }
    } else {
        tree.insert(name, value);
    }
}

fn is_mask(field: &FieldDescriptor) -> bool {
    let Kind::Message(of) = field.kind() else {
        return false;
    };
    !field.is_list() && of.full_name() == "google.protobuf.FieldMask"
}

/// Masks are read as they are: clients send either case, and keys of maps have none.
fn set_mask(request: &mut DynamicMessage, path: &[FieldDescriptor], text: &str) {
    let mut into = request;
    for field in path {
        let Field::Message(inner) = into.get_field_mut(field) else {
            return;
        };
        into = inner;
    }
    let paths = text.split(',').map(str::trim).filter(|p| !p.is_empty());
    let paths = paths.map(|p| Field::String(p.to_owned())).collect();
    into.set_field_by_name("paths", Field::List(paths));
}

fn violation(field: &str, why: &str) -> Status {
    Status::invalid(vec![Violation::new(field, why)])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_in(name: &str, query: &str) -> Result<(DynamicMessage, System), Status> {
        let of = crate::pool().get_message_by_name(name).unwrap();
        let mut pairs = pairs(query)?;
        let system = system(&mut pairs)?;
        Ok((read(&of, &pairs)?, system))
    }

    fn as_json(message: &DynamicMessage) -> String {
        String::from_utf8(json::write(message, Style::default()).unwrap()).unwrap()
    }

    #[test]
    fn parameters_become_fields() {
        let update = "google.cloud.run.v2.UpdateServiceRequest";
        let (request, system) = read_in(
            update,
            "updateMask=template.scaling.max_instance_count,labels.a%2Fb&allow_missing=True\
             &validateOnly=false&service.template.timeout=60s&%24alt=json%3Benum-encoding%3Dint\
             &service.ingress=INGRESS_TRAFFIC_ALL&key=x",
        )
        .unwrap();
        let typed: crate::google::cloud::run::v2::UpdateServiceRequest =
            request.transcode_to().unwrap();
        assert_eq!(
            typed.update_mask.unwrap().paths,
            ["template.scaling.max_instance_count", "labels.a/b"]
        );
        assert!(typed.allow_missing && !typed.validate_only);
        let service = typed.service.unwrap();
        assert_eq!(service.ingress, 1);
        assert_eq!(service.template.unwrap().timeout.unwrap().seconds, 60);
        assert!(system.style.numbers);
        let (policy, _) = read_in(
            "google.iam.v1.GetIamPolicyRequest",
            "options.requestedPolicyVersion=3",
        )
        .unwrap();
        assert_eq!(
            as_json(&policy),
            r#"{"options":{"requestedPolicyVersion":3}}"#
        );
        let (tested, _) = read_in(
            "google.iam.v1.TestIamPermissionsRequest",
            "permissions=a&permissions=b",
        )
        .unwrap();
        assert_eq!(as_json(&tested), r#"{"permissions":["a","b"]}"#);
    }

    #[test]
    fn what_is_no_parameter_is_named() {
        let list = "google.cloud.run.v2.ListServicesRequest";
        for (query, field) in [
            ("nonsense=1", "nonsense"),
            ("parent.x=1", "parent.x"),
            ("pageSize=x", "pageSize"),
            ("showDeleted=maybe", "showDeleted"),
            ("alt=xml", "alt"),
            ("fields=name", "fields"),
            ("pageSize=%ff", "%ff"),
        ] {
            let error = read_in(list, query).unwrap_err();
            assert_eq!(error.violations[0].field, field, "{error}");
        }
        let create = "google.cloud.run.v2.CreateServiceRequest";
        assert!(read_in(create, "service=x").is_err());
        assert!(read_in(create, "service.labels=x").is_err());
    }

    #[test]
    fn variables_of_the_path_become_fields() {
        let of = crate::pool().get_message_by_name("google.cloud.run.v2.UpdateServiceRequest");
        let mut request = DynamicMessage::new(of.unwrap());
        set(&mut request, "service.name", "projects/p").unwrap();
        assert_eq!(as_json(&request), r#"{"service":{"name":"projects/p"}}"#);
        assert!(set(&mut request, "service.nonsense", "x").is_err());
        assert_eq!(request.descriptor().name(), "UpdateServiceRequest");
    }

    proptest! {
        #[test]
        fn any_query_is_read_or_refused(
            query in "((pageSize|parent|service|\\$alt|updateMask|service\\.name|labels|x)?(=|&|\\.|%|\\+|é|1|true|%ff|,)?){0,12}",
        ) {
            let _ = read_in("google.cloud.run.v2.UpdateServiceRequest", &query);
            let _ = read_in("google.cloud.run.v2.ListServicesRequest", &query);
        }
    }
}
