//! `lauf describe`: one service on one screen.

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use super::http::Api;
use super::list::time;
use super::output::{Cell, Out, Tint};
use super::service::{self, Settled, text};
use super::traffic;

/// Arguments of `lauf describe`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  lauf describe hello\n  lauf describe hello --format yaml > hello.yaml"
)]
pub(crate) struct DescribeArgs {
    /// The service's name
    name: String,
}

/// Runs `lauf describe`.
pub(crate) async fn run(api: &Api, out: &Out, args: &DescribeArgs) -> Result<()> {
    let service = service::read(api, &args.name).await?;
    if out.structured(&service)? {
        return Ok(());
    }
    let state = match service::settled(&service) {
        Settled::Ready => Cell::tinted("ready", Tint::Good),
        Settled::Working => Cell::tinted("in progress", Tint::Warn),
        Settled::Failed(why) => Cell::tinted(format!("failed: {why}"), Tint::Bad),
    };
    let mut facts: Vec<(&str, Cell)> = vec![
        ("Service", text(&service, "/metadata/name").into()),
        ("State", state),
    ];
    facts.extend(
        self::facts(&service)
            .into_iter()
            .map(|(name, value)| (name, value.into())),
    );
    out.facts(&facts)?;
    let rows = traffic::rows(&service);
    if rows.is_empty() {
        return Ok(());
    }
    out.line("")?;
    out.table(&["TRAFFIC", "REVISION", "TAG", "URL"], &rows)
}

const LOCATION: &str = "cloud.googleapis.com/location";

/// What there is to say, in the order of importance; nothing that is not set.
fn facts(service: &Value) -> Vec<(&'static str, String)> {
    let spec = &service["spec"]["template"]["spec"];
    let container = &spec["containers"][0];
    let note = |object: &Value, key: &str| {
        object["metadata"]["annotations"][key]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let template = &service["spec"]["template"];
    let words = |key: &str| {
        let words = container[key].as_array();
        let words = words.into_iter().flatten().filter_map(Value::as_str);
        words.collect::<Vec<_>>().join(" ")
    };
    let scaling = |key: &str| note(template, &format!("autoscaling.knative.dev/{key}"));
    let protocol = if container["ports"][0]["name"] == "h2c" {
        " (HTTP/2)"
    } else {
        ""
    };
    let port = container["ports"][0]["containerPort"].as_u64();
    let instances = match (scaling("minScale").as_str(), scaling("maxScale").as_str()) {
        ("" | "0", "") => "from 0".to_owned(),
        ("", max) => format!("from 0 to {max}"),
        (min, "") => format!("from {min}"),
        (min, max) => format!("from {min} to {max}"),
    };
    let env: Vec<String> = container["env"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|var| format!("{}={}", text(var, "/name"), text(var, "/value")))
        .collect();
    let labels: Vec<String> = service["metadata"]["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| key.as_str() != LOCATION)
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    let number = |value: &Value, unit: &str| {
        value
            .as_u64()
            .map(|n| format!("{n}{unit}"))
            .unwrap_or_default()
    };
    let limits = &container["resources"]["limits"];
    let facts = [
        ("URL", text(service, "/status/url").to_owned()),
        (
            "Region",
            text(service, "/metadata/labels/cloud.googleapis.com~1location").to_owned(),
        ),
        (
            "Description",
            note(service, "run.googleapis.com/description"),
        ),
        ("Labels", labels.join(" ")),
        ("Image", text(container, "/image").to_owned()),
        ("Command", words("command")),
        ("Arguments", words("args")),
        ("Folder", text(container, "/workingDir").to_owned()),
        (
            "Port",
            port.map(|p| format!("{p}{protocol}")).unwrap_or_default(),
        ),
        ("CPU", text(limits, "/cpu").to_owned()),
        ("Memory", text(limits, "/memory").to_owned()),
        (
            "Concurrency",
            number(&spec["containerConcurrency"], " at once in an instance"),
        ),
        ("Timeout", number(&spec["timeoutSeconds"], " s")),
        ("Instances", instances),
        ("Account", text(spec, "/serviceAccountName").to_owned()),
        ("Environment", env.join(" ")),
        (
            "Created",
            time(text(service, "/metadata/creationTimestamp")),
        ),
        (
            "Changed by",
            note(service, "serving.knative.dev/lastModifier"),
        ),
    ];
    facts
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_set_is_said() {
        let service = serde_json::json!({"spec": {"template": {
            "metadata": {"annotations": {"autoscaling.knative.dev/maxScale": "3"}},
            "spec": {"containers": [{"image": "hello", "ports": [{"name": "h2c", "containerPort": 1}]}]}}}});
        assert_eq!(
            facts(&service),
            [
                ("Image", "hello".to_owned()),
                ("Port", "1 (HTTP/2)".to_owned()),
                ("Instances", "from 0 to 3".to_owned())
            ]
        );
    }
}
