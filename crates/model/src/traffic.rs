//! Traffic: which revision gets which share of the requests.

use serde::{Deserialize, Serialize};

/// One target as the user asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TrafficTarget {
    /// The revision; `None` follows the latest ready one.
    #[serde(default)]
    pub revision: Option<String>,
    /// Share in percent; all targets together have 100.
    #[serde(default)]
    pub percent: u32,
    /// A name under which this target has a URL of its own.
    #[serde(default)]
    pub tag: Option<String>,
}

/// One target as it is served now.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TrafficStatus {
    /// The revision that serves it.
    pub revision: String,
    /// Whether it follows the latest ready revision.
    #[serde(default)]
    pub latest: bool,
    /// Share in percent.
    #[serde(default)]
    pub percent: u32,
    /// The tag, if it has one.
    #[serde(default)]
    pub tag: Option<String>,
    /// The tag's URL.
    #[serde(default)]
    pub url: Option<String>,
}

/// Resolves targets against the latest ready revision. A target that follows the latest while
/// there is none is left out.
#[must_use]
pub fn resolve(targets: &[TrafficTarget], latest_ready: Option<&str>) -> Vec<TrafficStatus> {
    let everything = [TrafficTarget {
        revision: None,
        percent: 100,
        tag: None,
    }];
    let targets = if targets.is_empty() {
        &everything[..]
    } else {
        targets
    };
    targets
        .iter()
        .filter_map(|t| {
            Some(TrafficStatus {
                revision: t.revision.as_deref().or(latest_ready)?.to_owned(),
                latest: t.revision.is_none(),
                percent: t.percent,
                tag: t.tag.clone(),
                url: None,
            })
        })
        .collect()
}
