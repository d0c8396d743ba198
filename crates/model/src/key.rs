//! Names that identify things inside the house. The wire forms (`projects/P/locations/R/...`,
//! `namespaces/P/...`) are made from them at the edge.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What has a place in a project and region, and a name there that is unique among its kind.
pub trait Place {
    /// Project id (never the number).
    fn project(&self) -> &str;
    /// Region, such as `us-central1`.
    fn region(&self) -> &str;
    /// The name.
    fn name(&self) -> &str;
}

macro_rules! key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name {
            /// Project id (never the number).
            pub project: String,
            /// Region, such as `us-central1`.
            pub region: String,
            /// The name.
            pub name: String,
        }

        impl $name {
            /// What is called `name` in the same project and region as `place`.
            #[must_use]
            pub fn beside(place: &impl Place, name: impl Into<String>) -> Self {
                Self {
                    project: place.project().to_owned(),
                    region: place.region().to_owned(),
                    name: name.into(),
                }
            }

            /// `PROJECT/REGION`, the scope under which the store keeps a region's resources.
            #[must_use]
            pub fn scope(&self) -> String {
                format!("{}/{}", self.project, self.region)
            }
        }

        impl Place for $name {
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

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}/{}/{}", self.project, self.region, self.name)
            }
        }
    };
}

key!(
    /// A service.
    ServiceKey
);
key!(
    /// A job.
    JobKey
);
key!(
    /// An execution of a job. Its name is unique in its region, so that of the job is no part of it.
    ExecutionKey
);
key!(
    /// A task of an execution. Its name is that of the execution and its index.
    TaskKey
);
key!(
    /// A worker pool.
    WorkerPoolKey
);

impl ExecutionKey {
    /// The key of one of this execution's tasks.
    #[must_use]
    pub fn task(&self, index: u32) -> TaskKey {
        TaskKey::beside(self, format!("{}{index}", self.task_prefix()))
    }

    /// What the names of all this execution's tasks begin with.
    #[must_use]
    pub fn task_prefix(&self) -> String {
        format!("{}-task", self.name)
    }
}

impl WorkerPoolKey {
    /// The key of one of this pool's revisions.
    #[must_use]
    pub fn revision(&self, revision: &str) -> WorkerPoolRevisionKey {
        WorkerPoolRevisionKey {
            pool: self.clone(),
            revision: revision.to_owned(),
        }
    }
}

impl ServiceKey {
    /// The key of one of this service's revisions.
    #[must_use]
    pub fn revision(&self, revision: &str) -> RevisionKey {
        RevisionKey {
            service: self.clone(),
            revision: revision.to_owned(),
        }
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

/// A revision of a worker pool.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WorkerPoolRevisionKey {
    /// Whose revision it is.
    pub pool: WorkerPoolKey,
    /// The revision's name, unique in its project and region.
    pub revision: String,
}

impl fmt::Display for WorkerPoolRevisionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}/{}",
            self.pool.project, self.pool.region, self.revision
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
