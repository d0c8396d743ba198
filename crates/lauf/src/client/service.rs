//! A service as the v1 API tells it: reading what people ask about, and the calls that several
//! commands share.

use std::time::Duration;

use ::http::{Method, StatusCode};
use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::http::{Api, Face, refused_with};

/// How often a change is tried again when somebody else changed the service meanwhile.
const TRIES: usize = 5;

/// The path of the services of a project, with more behind it.
pub(crate) fn path<'a>(api: &'a Api, kind: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
    let mut path = vec![
        "apis",
        "serving.knative.dev",
        "v1",
        "namespaces",
        api.project.as_str(),
        kind,
    ];
    path.extend(rest);
    path
}

/// The service of that name.
///
/// # Errors
/// When there is none, with what there is.
pub(crate) async fn read(api: &Api, name: &str) -> Result<Value> {
    match find(api, name).await? {
        Some(service) => Ok(service),
        None => bail!(
            "There is no service '{name}' in project {} and region {}. `lauf list` shows those \
             there are.",
            api.project,
            api.region
        ),
    }
}

/// The service of that name, if there is one.
pub(crate) async fn find(api: &Api, name: &str) -> Result<Option<Value>> {
    check_name(name)?;
    api.find(Face::Run, &path(api, "services", &[name])).await
}

/// Reads a service, changes it and writes it back, again when it was changed meanwhile.
pub(crate) async fn update(
    api: &Api,
    name: &str,
    change: impl Fn(&mut Value) -> Result<()>,
) -> Result<Value> {
    for _ in 1..TRIES {
        let mut service = read(api, name).await?;
        change(&mut service)?;
        match put(api, name, &service).await {
            Err(error) if refused_with(&error, StatusCode::CONFLICT) => {}
            other => return other,
        }
    }
    let mut service = read(api, name).await?;
    change(&mut service)?;
    put(api, name, &service).await
}

/// Writes a service back. The status is the server's own business.
pub(crate) async fn put(api: &Api, name: &str, service: &Value) -> Result<Value> {
    let mut body = service.clone();
    if let Some(object) = body.as_object_mut() {
        object.remove("status");
    }
    let path = path(api, "services", &[name]);
    api.call(Method::PUT, Face::Run, &path, &[], Some(&body))
        .await
}

/// A name in a path must be one, or another path would be asked.
fn check_name(name: &str) -> Result<()> {
    let fine = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !fine {
        bail!(
            "'{name}' is not the name of a service: lower-case letters, digits and hyphens, \
             starting with a letter, at most 49."
        );
    }
    Ok(())
}

/// What the server has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Settled {
    /// It still works on the latest change.
    Working,
    /// The latest change is in effect.
    Ready,
    /// It cannot be brought about; the message says why.
    Failed(String),
}

/// Whether the latest change of a service is in effect.
pub(crate) fn settled(service: &Value) -> Settled {
    let observed = &service["status"]["observedGeneration"];
    if observed.is_null() || *observed != service["metadata"]["generation"] {
        return Settled::Working;
    }
    match condition(service, "Ready") {
        Some(ready) if ready["status"] == "True" => Settled::Ready,
        Some(ready) if ready["status"] == "False" => {
            let text = |key: &str| ready[key].as_str().filter(|t| !t.is_empty());
            let message = text("message").or_else(|| text("reason"));
            Settled::Failed(message.unwrap_or("the service is not ready").to_owned())
        }
        _ => Settled::Working,
    }
}

/// A condition of a service or revision.
pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"]
        .as_array()?
        .iter()
        .find(|c| c["type"] == kind)
}

/// A text somewhere in an object; empty when there is none.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// How long to wait before asking for the `round`th time: soon at first, then ever less often.
pub(crate) fn pause(round: u32) -> Duration {
    Duration::from_millis(40 * u64::from(round.clamp(1, 12)))
}

/// The policy of a service with everybody, or nobody but those named, as invoker. `None` when it
/// is so already.
pub(crate) fn with_all_users(policy: &Value, open: bool) -> Option<Value> {
    const ROLE: &str = "roles/run.invoker";
    let mut policy = policy.clone();
    let mut bindings = policy["bindings"].as_array().cloned().unwrap_or_default();
    let is_open = |b: &Value| {
        b["role"] == ROLE
            && b["members"]
                .as_array()
                .is_some_and(|m| m.iter().any(|m| m == "allUsers"))
    };
    if bindings.iter().any(is_open) == open {
        return None;
    }
    if open {
        match bindings.iter_mut().find(|b| b["role"] == ROLE) {
            Some(binding) => {
                if let Some(members) = binding["members"].as_array_mut() {
                    members.push("allUsers".into());
                }
            }
            None => bindings.push(json!({"role": ROLE, "members": ["allUsers"]})),
        }
    } else {
        for binding in &mut bindings {
            if binding["role"] == ROLE
                && let Some(members) = binding["members"].as_array_mut()
            {
                members.retain(|m| m != "allUsers");
            }
        }
        bindings.retain(|b| b["members"].as_array().is_some_and(|m| !m.is_empty()));
    }
    policy["bindings"] = bindings.into();
    Some(policy)
}

/// Lets everybody call a service, or nobody without a token.
pub(crate) async fn set_open(api: &Api, name: &str, open: bool) -> Result<()> {
    let verb = |verb: &str| format!("{name}:{verb}");
    let (get, set) = (verb("getIamPolicy"), verb("setIamPolicy"));
    let path = |last: &str| -> Vec<String> {
        let parts = [
            "v1",
            "projects",
            &api.project,
            "locations",
            &api.region,
            "services",
            last,
        ];
        parts.map(str::to_owned).into()
    };
    for _ in 0..TRIES {
        let read = path(&get);
        let read: Vec<&str> = read.iter().map(String::as_str).collect();
        let policy = api.get(Face::RunGlobal, &read, &[]).await?;
        let Some(policy) = with_all_users(&policy, open) else {
            return Ok(());
        };
        let write = path(&set);
        let write: Vec<&str> = write.iter().map(String::as_str).collect();
        let body = json!({ "policy": policy });
        let done = api.call(Method::POST, Face::RunGlobal, &write, &[], Some(&body));
        match done.await {
            Err(error) if refused_with(&error, StatusCode::CONFLICT) => {}
            other => return other.map(drop),
        }
    }
    bail!("The policy of '{name}' changes all the time. Try again.");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_opened_and_closed() {
        let empty = json!({"etag": "x"});
        let open = with_all_users(&empty, true).unwrap();
        assert_eq!(
            open,
            json!({"etag": "x", "bindings": [{"role": "roles/run.invoker", "members": ["allUsers"]}]})
        );
        assert_eq!(with_all_users(&open, true), None);
        let closed = with_all_users(&open, false).unwrap();
        assert_eq!(closed["bindings"], json!([]));
        assert_eq!(with_all_users(&closed, false), None);
    }

    #[test]
    fn a_service_has_settled_when_its_latest_change_was_seen() {
        let service = |generation, status: &str| {
            json!({"metadata": {"generation": generation}, "status": {"observedGeneration": 2,
                "conditions": [{"type": "Ready", "status": status, "message": "m"}]}})
        };
        assert_eq!(settled(&service(3, "True")), Settled::Working);
        assert_eq!(settled(&service(2, "True")), Settled::Ready);
        assert_eq!(settled(&service(2, "False")), Settled::Failed("m".into()));
        assert_eq!(settled(&service(2, "Unknown")), Settled::Working);
        assert_eq!(settled(&json!({"metadata": {}})), Settled::Working);
    }
}
