//! What services, jobs and worker pools have in common in v2: labels and annotations without the
//! system's, launch stages, execution environments, enums and counts.

use lauf_model::{Container, Probe, Violation};
use lauf_wire::google::api::LaunchStage;
use lauf_wire::google::cloud::run::v2::ExecutionEnvironment;

use crate::v1::types::Map;

pub(crate) const LAUNCH_STAGE: &str = "run.googleapis.com/launch-stage";
pub(crate) const EXECUTION: &str = "run.googleapis.com/execution-environment";
/// The keys of labels and annotations that are the system's: v2 neither shows nor takes them.
const SYSTEM: [&str; 4] = [
    "run.googleapis.com/",
    "cloud.googleapis.com/",
    "serving.knative.dev/",
    "autoscaling.knative.dev/",
];

fn is_system(key: &str) -> bool {
    SYSTEM.iter().any(|prefix| key.starts_with(prefix))
}

/// Refuses keys of the system's.
pub(crate) fn user_only(at: &str, sent: &Map, found: &mut Vec<Violation>) {
    for key in sent.keys().filter(|key| is_system(key)) {
        found.push(Violation::new(
            format!("{at}[{key}]"),
            "is a key of the system's, which v2 does not take; set the field that stands for it.",
        ));
    }
}

/// What users see of labels or annotations.
pub(crate) fn users(all: &Map) -> Map {
    let user = all.iter().filter(|(key, _)| !is_system(key));
    user.map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// Keeps what v2 has no words for: the system's keys, but for those that are fields of v2.
pub(crate) fn keep_system(old: &Map, new: &mut Map, fields: &[&str]) {
    for (key, value) in old {
        if is_system(key) && !fields.contains(&key.as_str()) {
            new.insert(key.clone(), value.clone());
        }
    }
}

/// Keeps what v2 has no words for in a container.
pub(crate) fn keep_container(was: &Container, now: &mut Container) {
    let threshold = |was: &Option<Probe>, now: &mut Option<Probe>| {
        if let (Some(was), Some(now)) = (was, now) {
            now.success_threshold = was.success_threshold;
        }
    };
    threshold(&was.startup_probe, &mut now.startup_probe);
    threshold(&was.liveness_probe, &mut now.liveness_probe);
    threshold(&was.readiness_probe, &mut now.readiness_probe);
}

/// An enum's value. One that is not known reads as unspecified, and is refused.
pub(crate) fn known<E: TryFrom<i32> + Default>(
    at: &str,
    value: i32,
    found: &mut Vec<Violation>,
) -> E {
    E::try_from(value).unwrap_or_else(|_| {
        found.push(Violation::new(
            at,
            format!("is {value}, which is none of its values."),
        ));
        E::default()
    })
}

/// The annotation that a launch stage is in v1. The spelling that was there stays while it means
/// the same.
pub(crate) fn stage_note(sent: LaunchStage, old: Option<&Map>) -> Option<(String, String)> {
    let was = old.and_then(|old| old.get(LAUNCH_STAGE));
    let text = match was {
        Some(text) if stage(Some(text)) == sent => text.clone(),
        _ => match sent {
            LaunchStage::Unspecified | LaunchStage::Ga => return None,
            other => other.as_str_name().to_owned(),
        },
    };
    Some((LAUNCH_STAGE.to_owned(), text))
}

/// The launch stage that an annotation says.
pub(crate) fn stage(note: Option<&String>) -> LaunchStage {
    let text = note.map(|text| text.to_ascii_uppercase());
    text.and_then(|text| LaunchStage::from_str_name(&text))
        .unwrap_or(LaunchStage::Ga)
}

/// The annotation that an execution environment is in v1. A word that v2 does not know reads as
/// unspecified, and stays when it comes back so.
pub(crate) fn environment_note(
    sent: ExecutionEnvironment,
    old: Option<&Map>,
) -> Option<(String, String)> {
    let was = old.and_then(|old| old.get(EXECUTION));
    let same = was.filter(|was| environment(Some(was)) == sent);
    let text = match (same, sent) {
        (Some(same), _) => same.clone(),
        (None, ExecutionEnvironment::Unspecified) => return None,
        (None, ExecutionEnvironment::Gen1) => "gen1".to_owned(),
        (None, ExecutionEnvironment::Gen2) => "gen2".to_owned(),
    };
    Some((EXECUTION.to_owned(), text))
}

/// The execution environment that an annotation says.
pub(crate) fn environment(note: Option<&String>) -> ExecutionEnvironment {
    match note.map(String::as_str) {
        Some("gen1") => ExecutionEnvironment::Gen1,
        Some("gen2") => ExecutionEnvironment::Gen2,
        _ => ExecutionEnvironment::Unspecified,
    }
}

/// A count as the text of an annotation.
pub(crate) fn counted(at: String, value: i32, found: &mut Vec<Violation>) -> Option<String> {
    if value < 0 {
        found.push(Violation::new(
            at,
            format!("is {value}; must be 0 or more."),
        ));
        return None;
    }
    Some(value.to_string())
}

/// A duration in whole seconds.
pub(crate) fn seconds(
    at: &str,
    sent: lauf_wire::Duration,
    found: &mut Vec<Violation>,
) -> Option<i64> {
    if sent.nanos != 0 {
        found.push(Violation::new(
            at,
            "is not a whole number of seconds, such as 300s.",
        ));
        return None;
    }
    Some(sent.seconds)
}
