//! Names that identify things inside the house. The wire forms (`projects/P/locations/R/...`,
//! `namespaces/P/...`) are made from them at the edge.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A service: project id, region and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServiceKey {
    /// Project id (never the number).
    pub project: String,
    /// Region, such as `us-central1`.
    pub region: String,
    /// The service's name.
    pub name: String,
}

impl ServiceKey {
    /// `PROJECT/REGION`, the scope under which the store keeps a region's resources.
    #[must_use]
    pub fn scope(&self) -> String {
        format!("{}/{}", self.project, self.region)
    }

    /// The key of one of this service's revisions.
    #[must_use]
    pub fn revision(&self, revision: &str) -> RevisionKey {
        RevisionKey {
            service: self.clone(),
            revision: revision.to_owned(),
        }
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.project, self.region, self.name)
    }
}

/// A revision of a service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RevisionKey {
    /// Whose revision it is.
    pub service: ServiceKey,
    /// The revision's name, unique in its project and region.
    pub revision: String,
}

impl fmt::Display for RevisionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}/{}",
            self.service.project, self.service.region, self.revision
        )
    }
}

/// An instance: a container (later: containers) of one revision, from start to exit.
/// Lowercase letters and digits, unique for ever.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstanceId(pub String);

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
