//! What Knative Serving refuses, in its own words, so that people who know it find what they know
//! (Knative Serving API specification, v1). What Lauf itself limits is found by the model, as on
//! every other face.

use std::collections::BTreeMap;

use lauf_model::Violation;
use serde_json::Value;

const CONTAINERS: &str = "spec.template.spec.containers";

/// Adds what is wrong with a service.
pub(crate) fn check(intent: &Value, found: &mut Vec<Violation>) {
    let spec = &intent["spec"];
    traffic(&spec["traffic"], found);
    let template = &spec["template"];
    template_of(template, found);
    scale(&template["metadata"]["annotations"], found);
}

fn say(found: &mut Vec<Violation>, field: impl Into<String>, text: impl Into<String>) {
    found.push(Violation::new(field, text));
}

fn items(list: &Value) -> &[Value] {
    list.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn traffic(traffic: &Value, found: &mut Vec<Violation>) {
    let targets = items(traffic);
    let mut tags: BTreeMap<&str, usize> = BTreeMap::new();
    let mut sum = 0_i64;
    for (i, target) in targets.iter().enumerate() {
        let at = |field: &str| format!("spec.traffic[{i}].{field}");
        let revision = target["revisionName"].as_str().unwrap_or_default();
        if let Some(latest) = target["latestRevision"].as_bool()
            && latest != revision.is_empty()
        {
            say(
                found,
                at("latestRevision"),
                format!("may not set revisionName \"{revision}\" when latestRevision is {latest}"),
            );
        }
        for field in ["configurationName", "url"] {
            if !target[field].as_str().unwrap_or_default().is_empty() {
                say(
                    found,
                    at(field),
                    format!("must not set the field(s): {field}"),
                );
            }
        }
        let percent = target["percent"].as_i64().unwrap_or(0);
        if !(0..=100).contains(&percent) {
            say(
                found,
                at("percent"),
                format!("expected 0 <= {percent} <= 100"),
            );
        }
        sum = sum.saturating_add(percent);
        let tag = target["tag"].as_str().unwrap_or_default();
        if tag.is_empty() {
            continue;
        }
        if let Some(first) = tags.insert(tag, i) {
            say(
                found,
                at("tag"),
                format!("Multiple definitions for \"{tag}\", also spec.traffic[{first}].tag"),
            );
        }
    }
    if !targets.is_empty() && sum != 100 {
        say(
            found,
            "spec.traffic",
            format!("Traffic targets sum to {sum}, want 100"),
        );
    }
}

fn template_of(template: &Value, found: &mut Vec<Violation>) {
    let spec = &template["spec"];
    for (field, most) in [("containerConcurrency", 1000), ("timeoutSeconds", 3600)] {
        if let Some(value) = spec[field].as_i64()
            && !(0..=most).contains(&value)
        {
            say(
                found,
                format!("spec.template.spec.{field}"),
                format!("expected 0 <= {value} <= {most}"),
            );
        }
    }
    let containers = items(&spec["containers"]);
    if containers.is_empty() {
        say(found, CONTAINERS, "missing field(s): containers");
    }
    for (i, container) in containers.iter().enumerate() {
        let at = |field: &str| format!("{CONTAINERS}[{i}].{field}");
        if container["image"].as_str().unwrap_or_default().is_empty() {
            say(found, at("image"), "missing field(s): image");
        }
        let ports = items(&container["ports"]);
        if ports.len() > 1 {
            say(
                found,
                at("ports"),
                "more than one container port is set; at most one port may be, that on which it \
                 serves",
            );
        }
        for (p, port) in ports.iter().enumerate() {
            let name = port["name"].as_str().unwrap_or_default();
            if !matches!(name, "" | "http1" | "h2c") {
                say(
                    found,
                    at(&format!("ports[{p}].name")),
                    format!(
                        "Port name {name} is not allowed: name must be empty, or one of: http1, h2c"
                    ),
                );
            }
            let number = port["containerPort"].as_i64().unwrap_or(0);
            if !(0..=65_535).contains(&number) {
                say(
                    found,
                    at(&format!("ports[{p}].containerPort")),
                    format!("expected 0 <= {number} <= 65535"),
                );
            }
        }
    }
}

/// The bounds of the number of instances. Knative writes them in two ways, of which Lauf obeys the
/// older one, as Cloud Run does.
fn scale(notes: &Value, found: &mut Vec<Violation>) {
    let at = |key: &str| format!("spec.template.metadata.annotations[{key}]");
    let mut number = |key: &str| {
        let text = notes[key].as_str()?;
        let number = text.trim().parse::<i64>().ok();
        let number = number.filter(|n| (0..=i64::from(i32::MAX)).contains(n));
        if number.is_none() {
            found.push(Violation::new(
                at(key),
                format!("invalid value: {text}: must be a whole number, 0 or more"),
            ));
        }
        number
    };
    let min = number("autoscaling.knative.dev/minScale");
    let max = number("autoscaling.knative.dev/maxScale");
    if let (Some(min), Some(max)) = (min, max)
        && max != 0
        && max < min
    {
        say(
            found,
            at("autoscaling.knative.dev/maxScale"),
            format!("max-scale={max} is less than min-scale={min}"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(spec: Value) -> Vec<String> {
        let mut found = Vec::new();
        check(&json!({ "spec": spec }), &mut found);
        found
            .iter()
            .map(|v| format!("{}: {}", v.description, v.field))
            .collect()
    }

    #[test]
    fn in_knatives_words() {
        let fine = json!({
            "template": {
                "metadata": {"annotations": {"autoscaling.knative.dev/minScale": "1"}},
                "spec": {"containers": [{"image": "i", "ports": [{"containerPort": 80, "name": "h2c"}]}]},
            },
            "traffic": [{"latestRevision": true, "percent": 100, "tag": "t"}],
        });
        assert_eq!(said(fine), Vec::<String>::new());
        let wrong = json!({
            "template": {
                "metadata": {"annotations": {
                    "autoscaling.knative.dev/minScale": "5", "autoscaling.knative.dev/maxScale": "1",
                }},
                "spec": {"containerConcurrency": -1, "containers": [{"ports": [{"name": "http"}]}]},
            },
            "traffic": [
                {"latestRevision": true, "revisionName": "x", "percent": 50, "tag": "t"},
                {"revisionName": "y", "percent": 40, "tag": "t"},
            ],
        });
        assert_eq!(
            said(wrong),
            [
                "may not set revisionName \"x\" when latestRevision is true: \
                 spec.traffic[0].latestRevision",
                "Multiple definitions for \"t\", also spec.traffic[0].tag: spec.traffic[1].tag",
                "Traffic targets sum to 90, want 100: spec.traffic",
                "expected 0 <= -1 <= 1000: spec.template.spec.containerConcurrency",
                "missing field(s): image: spec.template.spec.containers[0].image",
                "Port name http is not allowed: name must be empty, or one of: http1, h2c: \
                 spec.template.spec.containers[0].ports[0].name",
                "max-scale=1 is less than min-scale=5: \
                 spec.template.metadata.annotations[autoscaling.knative.dev/maxScale]",
            ]
        );
    }
}
