//! What every stored resource has.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Place;

/// Identity and bookkeeping of a resource. The version (v1 `resourceVersion`, v2 `etag`) is the
/// store's and is not kept here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Project id.
    pub project: String,
    /// Region.
    pub region: String,
    /// Name within project, region and kind.
    pub name: String,
    /// Unique for ever, even when a name is used again.
    pub uid: String,
    /// Bumped at each change of the spec; conditions say which generation they are about.
    pub generation: i64,
    /// When it was created.
    pub created: Timestamp,
    /// When the spec last changed.
    pub updated: Timestamp,
    /// When deletion was asked for, while it is under way.
    #[serde(default)]
    pub deleted: Option<Timestamp>,
    /// Who created it.
    #[serde(default)]
    pub creator: String,
    /// Who changed it last.
    #[serde(default)]
    pub last_modifier: String,
    /// The client's name as it gave it (`gcloud`, `terraform`, ...).
    #[serde(default)]
    pub client: String,
    /// The client's version as it gave it.
    #[serde(default)]
    pub client_version: String,
    /// Labels as sent.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Annotations that no field of the model stands for, as sent.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// v1 annotations that a field of the model does stand for, in the spelling the client used
    /// (`"True"`, `"true"`). The v1 face gives a value back in this spelling while it still means
    /// what the field says.
    #[serde(default)]
    pub as_sent: BTreeMap<String, String>,
    /// What the Kubernetes face keeps for its clients; `None` for what none of them has written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<Box<Kubernetes>>,
}

/// What clients of Kubernetes' API said of a resource beyond what the model knows. Opaque to
/// everyone but the face that writes it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Kubernetes {
    /// The [`Meta::generation`] that `intent` describes. Of another generation it says nothing.
    pub generation: i64,
    /// What is wanted, without any default, in the client's own spelling: a JSON object.
    pub intent: String,
    /// Which manager said which field (Kubernetes, "Server-Side Apply"): a JSON array.
    pub managers: String,
}

impl Meta {
    /// That of something made now, in that place and of that name, of which nothing else is known.
    #[must_use]
    pub fn new(at: &impl Place, now: Timestamp) -> Self {
        Self {
            project: at.project().to_owned(),
            region: at.region().to_owned(),
            name: at.name().to_owned(),
            uid: String::new(),
            generation: 1,
            created: now,
            updated: now,
            deleted: None,
            creator: String::new(),
            last_modifier: String::new(),
            client: String::new(),
            client_version: String::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            as_sent: BTreeMap::new(),
            kubernetes: None,
        }
    }
}

impl Place for Meta {
    fn project(&self) -> &str {
        &self.project
    }
    fn region(&self) -> &str {
        &self.region
    }
    fn name(&self) -> &str {
        &self.name
    }
}

/// A unique identifier of 16 random bytes, as text (RFC 9562, version 4).
#[must_use]
pub fn uid(mut random: [u8; 16]) -> String {
    random[6] = random[6] & 0x0f | 0x40;
    random[8] = random[8] & 0x3f | 0x80;
    let mut text = String::with_capacity(36);
    for (i, byte) in random.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_say_that_they_are_random() {
        let uid = uid([0xff; 16]);
        assert_eq!(uid, "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
