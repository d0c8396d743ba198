//! From what was asked to the service that is wanted: a function on the v1 object.

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};

use super::args::Change;
use crate::client::service::text;
use crate::client::traffic;

/// The label that makes each deploy a revision of its own, so that a tag which moved in the
/// registry is resolved anew. gcloud uses the same.
const NONCE: &str = "client.knative.dev/nonce";
const DESCRIPTION: &str = "run.googleapis.com/description";
const MIN: &str = "autoscaling.knative.dev/minScale";
const MAX: &str = "autoscaling.knative.dev/maxScale";
const BOOST: &str = "run.googleapis.com/startup-cpu-boost";
const AFFINITY: &str = "run.googleapis.com/sessionAffinity";
const SERVICE_MIN: &str = "run.googleapis.com/minScale";
const SERVICE_MAX: &str = "run.googleapis.com/maxScale";
const SCALING_MODE: &str = "run.googleapis.com/scalingMode";
const MANUAL_COUNT: &str = "run.googleapis.com/manualInstanceCount";
const CPU_TARGET: &str = "run.googleapis.com/scaling-cpu-target";
const CONCURRENCY_TARGET: &str = "run.googleapis.com/scaling-concurrency-target";

/// A service that does not exist yet.
///
/// # Errors
/// When the arguments need one that exists.
pub(super) fn created(name: &str, project: &str, change: &Change, nonce: &str) -> Result<Value> {
    if change.image.is_none() {
        bail!(
            "There is no service '{name}' yet, so it needs an image: lauf deploy {name} --image \
             IMAGE"
        );
    }
    if change.no_traffic {
        bail!(
            "--no-traffic needs a service that exists: the first revision of '{name}' is the only \
             one that could take the traffic."
        );
    }
    let mut service = json!({
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": project},
        "spec": {"template": {"spec": {"containers": [{}]}}, "traffic": []},
    });
    // As gcloud does it; the API itself has it off by default.
    let template = &mut service["spec"]["template"];
    set(&mut template["metadata"]["annotations"], BOOST, "true");
    apply(&mut service, name, change, nonce)?;
    Ok(service)
}

/// Changes a service as asked.
pub(super) fn apply(service: &mut Value, name: &str, change: &Change, nonce: &str) -> Result<()> {
    let generation = service["metadata"]["generation"].as_u64().unwrap_or(0);
    pairs_of(
        &mut service["metadata"]["labels"],
        &change.set_labels,
        &change.remove_labels,
    );
    if let Some(description) = &change.description {
        set(
            &mut service["metadata"]["annotations"],
            DESCRIPTION,
            description,
        );
    }
    scale(&mut service["metadata"]["annotations"], change);

    let template = &mut service["spec"]["template"];
    let metadata = &mut template["metadata"];
    // A revision's name belongs to the template it was given to.
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.remove("name");
    }
    pairs_of(
        &mut metadata["labels"],
        &change.set_labels,
        &change.remove_labels,
    );
    set(&mut metadata["labels"], NONCE, nonce);
    if let Some(tag) = &change.tag {
        // Only a revision whose name is known beforehand can be tagged in the same write.
        let revision = format!("{name}-{:05}-{}", generation + 1, &nonce[..3]);
        metadata["name"] = revision.clone().into();
        service["spec"]["traffic"] = tagged(service, change, tag, &revision)?;
    } else if change.no_traffic {
        service["spec"]["traffic"] = traffic::pinned(service)?;
    }
    let metadata = &mut service["spec"]["template"]["metadata"];
    for (key, count) in [(MIN, change.min_instances), (MAX, change.max_instances)] {
        if let Some(count) = count {
            set(&mut metadata["annotations"], key, &count.to_string());
        }
    }
    for (key, target) in [
        (CPU_TARGET, &change.cpu_target),
        (CONCURRENCY_TARGET, &change.concurrency_target),
    ] {
        match target.as_deref() {
            None => {}
            Some("default") => remove(&mut metadata["annotations"], key),
            Some(target) => set(&mut metadata["annotations"], key, target),
        }
    }

    for (switch, key) in [
        (change.cpu_boost, BOOST),
        (change.session_affinity, AFFINITY),
    ] {
        if let Some(on) = switch {
            set(&mut metadata["annotations"], key, &on.to_string());
        }
    }

    let spec = &mut service["spec"]["template"]["spec"];
    if let Some(value) = change.concurrency {
        spec["containerConcurrency"] = value.into();
    }
    if let Some(value) = change.timeout_seconds {
        spec["timeoutSeconds"] = value.into();
    }
    if let Some(value) = &change.service_account {
        spec["serviceAccountName"] = value.clone().into();
    }
    container(ingress_container(spec)?, change);
    Ok(())
}

fn tagged(service: &Value, change: &Change, tag: &str, revision: &str) -> Result<Value> {
    let mut targets = if change.no_traffic {
        traffic::pinned(service)?
    } else {
        service["spec"]["traffic"].clone()
    };
    if targets.as_array().is_none_or(Vec::is_empty) {
        targets = json!([{"latestRevision": true, "percent": 100}]);
    }
    traffic::remove_tag(&mut targets, tag);
    if let Some(targets) = targets.as_array_mut() {
        targets.push(json!({"revisionName": revision, "tag": tag}));
    }
    Ok(targets)
}

/// The container that requests go to: the one with a port, or the only one.
fn ingress_container(spec: &mut Value) -> Result<&mut Value> {
    let Some(containers) = spec["containers"].as_array_mut().filter(|c| !c.is_empty()) else {
        bail!("The service has no container to change.");
    };
    let at = containers
        .iter()
        .position(|c| c["ports"].as_array().is_some_and(|p| !p.is_empty()))
        .unwrap_or(0);
    Ok(&mut containers[at])
}

/// Changes a container as asked.
pub(crate) fn container(container: &mut Value, change: &Change) {
    if let Some(image) = &change.image {
        container["image"] = image.clone().into();
    }
    for (key, words) in [("command", &change.command), ("args", &change.args)] {
        if let Some(words) = words {
            container[key] = words.clone().into();
        }
    }
    if let Some(folder) = &change.working_dir {
        container["workingDir"] = folder.clone().into();
    }
    for (key, amount) in [("cpu", &change.cpu), ("memory", &change.memory)] {
        if let Some(amount) = amount {
            container["resources"]["limits"][key] = amount.clone().into();
        }
    }
    if change.port.is_some() || change.http2.is_some() {
        let old = container["ports"][0]["containerPort"].as_u64();
        let h2c = container["ports"][0]["name"] == "h2c";
        let port = change.port.map(u64::from).or(old).unwrap_or(8080);
        let name = if change.http2.unwrap_or(h2c) {
            "h2c"
        } else {
            "http1"
        };
        container["ports"] = json!([{"name": name, "containerPort": port}]);
        if change.port.is_some_and(|new| Some(u64::from(new)) != old) {
            follow(container, old, port);
        }
    }
    env(container, change);
}

/// A probe of the old port would ask nobody.
fn follow(container: &mut Value, old: Option<u64>, new: u64) {
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        for action in ["tcpSocket", "httpGet", "grpc"] {
            let port = container
                .get_mut(probe)
                .and_then(|p| p.get_mut(action))
                .and_then(|a| a.get_mut("port"));
            if let Some(port) = port
                && port.as_u64() == old
            {
                *port = new.into();
            }
        }
    }
}

fn env(container: &mut Value, change: &Change) {
    let mut env = if change.clear_env {
        Vec::new()
    } else {
        container["env"].as_array().cloned().unwrap_or_default()
    };
    let named = |var: &Value, name: &str| var["name"] == name;
    env.retain(|var| !change.remove_env.iter().any(|name| named(var, name)));
    for (name, value) in &change.set_env {
        let new = json!({"name": name, "value": value});
        match env.iter_mut().find(|var| named(var, name)) {
            Some(var) => *var = new,
            None => env.push(new),
        }
    }
    if env.is_empty() {
        if let Some(container) = container.as_object_mut() {
            container.remove("env");
        }
    } else {
        container["env"] = env.into();
    }
}

/// Changes labels as asked.
pub(crate) fn labels(labels: &mut Value, change: &Change) {
    pairs_of(labels, &change.set_labels, &change.remove_labels);
}

fn pairs_of(map: &mut Value, add: &[(String, String)], remove: &[String]) {
    if let Some(map) = map.as_object_mut() {
        for name in remove {
            map.remove(name);
        }
    }
    for (name, value) in add {
        set(map, name, value);
    }
}

fn set(map: &mut Value, key: &str, value: &str) {
    if !map.is_object() {
        *map = Value::Object(Map::new());
    }
    map[key] = value.into();
}

/// What the URL of the new revision's tag will be listed under, once it is there.
pub(super) fn tag_url<'a>(service: &'a Value, tag: &str) -> Option<&'a str> {
    let targets = service["status"]["traffic"].as_array()?;
    let target = targets.iter().find(|t| t["tag"] == tag)?;
    Some(text(target, "/url")).filter(|url| !url.is_empty())
}

/// The counts of the whole service.
fn scale(annotations: &mut Value, change: &Change) {
    let counts = [
        (SERVICE_MIN, change.service_min),
        (SERVICE_MAX, change.service_max),
    ];
    for (key, count) in counts {
        if let Some(count) = count {
            set(annotations, key, &count.to_string());
        }
    }
    match change.scaling {
        None => {}
        Some(None) => {
            remove(annotations, MANUAL_COUNT);
            remove(annotations, SCALING_MODE);
        }
        Some(Some(count)) => {
            set(annotations, SCALING_MODE, "manual");
            set(annotations, MANUAL_COUNT, &count.to_string());
        }
    }
}

fn remove(map: &mut Value, key: &str) {
    if let Some(map) = map.as_object_mut() {
        map.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE_VALUE: &str = "abcdefghij";

    fn existing() -> Value {
        json!({
            "apiVersion": "serving.knative.dev/v1", "kind": "Service",
            "metadata": {"name": "hello", "namespace": "demo", "generation": 4, "resourceVersion": "17",
                "labels": {"team": "a"}, "annotations": {"x/unknown": "kept"}},
            "spec": {
                "template": {
                    "metadata": {"name": "hello-00004-old", "annotations": {"run.googleapis.com/startup-cpu-boost": "True"}},
                    "spec": {"containerConcurrency": 80, "containers": [{
                        "image": "hello", "ports": [{"name": "http1", "containerPort": 8080}],
                        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                        "resources": {"limits": {"cpu": "1000m", "memory": "512Mi"}},
                        "startupProbe": {"tcpSocket": {"port": 8080}}}]}},
                "traffic": [{"latestRevision": true, "percent": 100}]},
            "status": {"latestReadyRevisionName": "hello-00004-old"},
        })
    }

    #[test]
    fn only_what_is_asked_changes() {
        let mut service = existing();
        let change = Change {
            memory: Some("1Gi".into()),
            set_env: vec![("B".into(), "3".into()), ("C".into(), "4".into())],
            remove_env: vec!["A".into()],
            ..Change::default()
        };
        apply(&mut service, "hello", &change, NONCE_VALUE).unwrap();
        let mut expected = existing();
        let template = &mut expected["spec"]["template"];
        template["metadata"].as_object_mut().unwrap().remove("name");
        template["metadata"]["labels"] = json!({NONCE: NONCE_VALUE});
        let container = &mut template["spec"]["containers"][0];
        container["resources"]["limits"]["memory"] = "1Gi".into();
        container["env"] = json!([{"name": "B", "value": "3"}, {"name": "C", "value": "4"}]);
        assert_eq!(service, expected);
    }

    #[test]
    fn the_boost_is_on_for_new_services_and_stays_as_it_is_for_others() {
        let boost =
            |service: &Value| service["spec"]["template"]["metadata"]["annotations"][BOOST].clone();
        let mut change = Change {
            image: Some("hello".into()),
            ..Change::default()
        };
        let new = created("x", "demo", &change, NONCE_VALUE).unwrap();
        assert_eq!(boost(&new), "true");
        change.cpu_boost = Some(false);
        let new = created("x", "demo", &change, NONCE_VALUE).unwrap();
        assert_eq!(boost(&new), "false");
        let mut old = existing();
        apply(&mut old, "hello", &Change::default(), NONCE_VALUE).unwrap();
        assert_eq!(boost(&old), "True");
    }

    #[test]
    fn a_tag_without_traffic_pins_what_serves_now() {
        let mut service = existing();
        let change = Change {
            image: Some("hello:v2".into()),
            no_traffic: true,
            tag: Some("green".into()),
            ..Change::default()
        };
        apply(&mut service, "hello", &change, NONCE_VALUE).unwrap();
        assert_eq!(
            service["spec"]["traffic"],
            json!([{"revisionName": "hello-00004-old", "percent": 100},
                {"revisionName": "hello-00005-abc", "tag": "green"}])
        );
        assert_eq!(
            service["spec"]["template"]["metadata"]["name"],
            "hello-00005-abc"
        );
    }

    #[test]
    fn a_new_service_needs_an_image_and_takes_its_traffic() {
        let none = Change::default();
        let error = created("x", "demo", &none, NONCE_VALUE).unwrap_err();
        assert!(error.to_string().contains("--image"));
        let change = Change {
            image: Some("hello".into()),
            port: Some(9000),
            http2: Some(true),
            min_instances: Some(1),
            ..Change::default()
        };
        let service = created("x", "demo", &change, NONCE_VALUE).unwrap();
        let template = &service["spec"]["template"];
        assert_eq!(
            template["spec"]["containers"],
            json!([{"image": "hello", "ports": [{"name": "h2c", "containerPort": 9000}]}])
        );
        assert_eq!(template["metadata"]["annotations"][MIN], "1");
        let refused = Change {
            no_traffic: true,
            ..change
        };
        assert!(created("x", "demo", &refused, NONCE_VALUE).is_err());
    }

    #[test]
    fn scaling_is_said_once_for_the_service_and_once_for_the_revision() {
        let mut service = existing();
        let manual = Change {
            service_max: Some(9),
            scaling: Some(Some(3)),
            cpu_target: Some("0.75".into()),
            ..Change::default()
        };
        apply(&mut service, "hello", &manual, NONCE_VALUE).unwrap();
        let notes = &service["metadata"]["annotations"];
        assert_eq!(notes[SERVICE_MAX], "9");
        assert_eq!(
            (&notes[SCALING_MODE], &notes[MANUAL_COUNT]),
            (&json!("manual"), &json!("3"))
        );
        let of_template = "/spec/template/metadata/annotations";
        assert_eq!(service.pointer(of_template).unwrap()[CPU_TARGET], "0.75");
        let automatic = Change {
            scaling: Some(None),
            cpu_target: Some("default".into()),
            ..Change::default()
        };
        apply(&mut service, "hello", &automatic, NONCE_VALUE).unwrap();
        assert!(
            service["metadata"]["annotations"]
                .get(MANUAL_COUNT)
                .is_none()
        );
        assert!(
            service
                .pointer(of_template)
                .unwrap()
                .get(CPU_TARGET)
                .is_none()
        );
    }

    #[test]
    fn probes_follow_the_port() {
        let mut service = existing();
        let change = Change {
            port: Some(9000),
            ..Change::default()
        };
        apply(&mut service, "hello", &change, NONCE_VALUE).unwrap();
        let container = &service["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["startupProbe"]["tcpSocket"]["port"], 9000);
        assert_eq!(
            container["ports"],
            json!([{"name": "http1", "containerPort": 9000}])
        );
    }
}
