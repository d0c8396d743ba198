//! Resource names (google.aip.dev/122): `projects/P/locations/L/services/S`.

use lauf_model::{
    ExecutionKey, JobKey, Place, RevisionKey, ServiceKey, Status, TaskKey, Violation,
    WorkerPoolKey, WorkerPoolRevisionKey,
};

use crate::api::Api;

/// All of a kind, in the parent of a list.
pub(crate) const ALL: &str = "-";

/// A project and a region, or all of its regions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Here {
    pub(crate) project: String,
    /// [`ALL`] where a list is of all regions.
    pub(crate) region: String,
}

impl Here {
    /// The one region; `None` for all of them.
    pub(crate) fn region(&self) -> Option<&str> {
        Some(self.region.as_str()).filter(|region| *region != ALL)
    }
}

impl Place for Here {
    fn project(&self) -> &str {
        &self.project
    }
    fn region(&self) -> &str {
        &self.region
    }
    fn name(&self) -> &str {
        ""
    }
}

/// What a name is of, below its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind<'a> {
    Service(&'a str),
    Revision(&'a str, &'a str),
    Job(&'a str),
    Execution(&'a str, &'a str),
    Task(&'a str, &'a str, &'a str),
    WorkerPool(&'a str),
    WorkerPoolRevision(&'a str, &'a str),
}

impl<'a> Kind<'a> {
    /// Reads what comes after `projects/P/locations/L/`.
    pub(crate) fn parse(path: &[&'a str]) -> Option<Self> {
        Some(match *path {
            ["services", service] => Self::Service(service),
            ["services", service, "revisions", revision] => Self::Revision(service, revision),
            ["jobs", job] => Self::Job(job),
            ["jobs", job, "executions", execution] => Self::Execution(job, execution),
            ["jobs", job, "executions", execution, "tasks", task] => {
                Self::Task(job, execution, task)
            }
            // v1 writes the collection without a capital.
            ["workerPools" | "workerpools", pool] => Self::WorkerPool(pool),
            ["workerPools", pool, "revisions", revision] => {
                Self::WorkerPoolRevision(pool, revision)
            }
            _ => return None,
        })
    }
}

/// A revision, of a service or of a worker pool.
pub(crate) enum AnyRevision {
    Service(RevisionKey),
    WorkerPool(WorkerPoolRevisionKey),
}

/// Which field of the request a name is in, for the errors.
#[derive(Clone, Copy)]
pub(crate) struct At(pub(crate) &'static str);

impl At {
    pub(crate) fn wrong(self, name: &str, form: &str) -> Status {
        Status::invalid(vec![Violation::new(
            self.0,
            format!("'{name}' is not a name such as projects/PROJECT/{form}."),
        )])
    }

    /// `projects/P`: the project's id.
    pub(crate) async fn project(self, api: &Api, name: &str) -> Result<String, Status> {
        match parts(name).as_slice() {
            ["projects", project] => Ok(api.project(project).await?.id),
            _ => Err(Status::invalid(vec![Violation::new(
                self.0,
                format!("'{name}' is not a name such as projects/PROJECT."),
            )])),
        }
    }

    /// The place that a name begins with; of all regions, `projects/P/locations/-`, where `all` says so.
    async fn here(self, api: &Api, project: &str, region: &str, all: bool) -> Result<Here, Status> {
        let region = if all && region == ALL {
            ALL
        } else {
            api.known_region(region)?
        };
        Ok(Here {
            region: region.to_owned(),
            project: api.project(project).await?.id,
        })
    }

    /// What a name is of and where it is, when `read` takes it.
    async fn of<'a, T>(
        self,
        api: &Api,
        name: &'a str,
        form: &str,
        read: impl FnOnce(Kind<'a>) -> Option<T>,
    ) -> Result<(Here, T), Status> {
        let parts = parts(name);
        let ["projects", project, "locations", region, path @ ..] = parts.as_slice() else {
            return Err(self.wrong(name, form));
        };
        let kind = Kind::parse(path).and_then(read);
        let kind = kind.ok_or_else(|| self.wrong(name, form))?;
        Ok((self.here(api, project, region, false).await?, kind))
    }

    /// `projects/P/locations/L`.
    pub(crate) async fn place(self, api: &Api, name: &str) -> Result<Here, Status> {
        match parts(name).as_slice() {
            ["projects", project, "locations", region] => {
                self.here(api, project, region, false).await
            }
            _ => Err(self.wrong(name, "locations/REGION")),
        }
    }

    /// The same, or of all regions.
    pub(crate) async fn places(self, api: &Api, name: &str) -> Result<Here, Status> {
        match parts(name).as_slice() {
            ["projects", project, "locations", region] => {
                self.here(api, project, region, true).await
            }
            _ => Err(self.wrong(name, "locations/REGION")),
        }
    }

    /// `projects/P/locations/L/services/S`.
    pub(crate) async fn service(self, api: &Api, name: &str) -> Result<ServiceKey, Status> {
        let form = "locations/REGION/services/SERVICE";
        let read = |kind| match kind {
            Kind::Service(service) => Some(service),
            _ => None,
        };
        let (here, service) = self.of(api, name, form, read).await?;
        Ok(ServiceKey::beside(&here, service))
    }

    /// `projects/P/locations/L/jobs/J`.
    pub(crate) async fn job(self, api: &Api, name: &str) -> Result<JobKey, Status> {
        let form = "locations/REGION/jobs/JOB";
        let read = |kind| match kind {
            Kind::Job(job) => Some(job),
            _ => None,
        };
        let (here, job) = self.of(api, name, form, read).await?;
        Ok(JobKey::beside(&here, job))
    }

    /// `projects/P/locations/L/jobs/J/executions/E`: the execution, and the job that it must be of.
    pub(crate) async fn execution<'a>(
        self,
        api: &Api,
        name: &'a str,
    ) -> Result<(ExecutionKey, &'a str), Status> {
        let form = "locations/REGION/jobs/JOB/executions/EXECUTION";
        let read = |kind| match kind {
            Kind::Execution(job, execution) => Some((job, execution)),
            _ => None,
        };
        let (here, (job, execution)) = self.of(api, name, form, read).await?;
        Ok((ExecutionKey::beside(&here, execution), job))
    }

    /// `projects/P/locations/L/jobs/J/executions/E/tasks/T`: the task, and the job and the execution that
    /// it must be of.
    pub(crate) async fn task<'a>(
        self,
        api: &Api,
        name: &'a str,
    ) -> Result<(TaskKey, &'a str, &'a str), Status> {
        let form = "locations/REGION/jobs/JOB/executions/EXECUTION/tasks/TASK";
        let read = |kind| match kind {
            Kind::Task(job, execution, task) => Some((job, execution, task)),
            _ => None,
        };
        let (here, (job, execution, task)) = self.of(api, name, form, read).await?;
        Ok((TaskKey::beside(&here, task), job, execution))
    }

    /// `projects/P/locations/L/workerPools/W`.
    pub(crate) async fn worker_pool(self, api: &Api, name: &str) -> Result<WorkerPoolKey, Status> {
        let form = "locations/REGION/workerPools/WORKER_POOL";
        let read = |kind| match kind {
            Kind::WorkerPool(pool) => Some(pool),
            _ => None,
        };
        let (here, pool) = self.of(api, name, form, read).await?;
        Ok(WorkerPoolKey::beside(&here, pool))
    }

    /// `projects/P/locations/L/services/S/revisions/R`, or the same of a worker pool.
    pub(crate) async fn revision(self, api: &Api, name: &str) -> Result<AnyRevision, Status> {
        let form = "locations/REGION/services/SERVICE/revisions/REVISION";
        let read = |kind| match kind {
            Kind::Revision(..) | Kind::WorkerPoolRevision(..) => Some(kind),
            _ => None,
        };
        let (here, kind) = self.of(api, name, form, read).await?;
        Ok(match kind {
            Kind::WorkerPoolRevision(pool, revision) => {
                AnyRevision::WorkerPool(WorkerPoolKey::beside(&here, pool).revision(revision))
            }
            Kind::Revision(service, revision) => {
                AnyRevision::Service(ServiceKey::beside(&here, service).revision(revision))
            }
            _ => return Err(self.wrong(name, form)),
        })
    }

    /// `projects/P/locations/L/operations/O`: the place and the operation's id.
    pub(crate) async fn operation<'a>(
        self,
        api: &Api,
        name: &'a str,
    ) -> Result<(Here, &'a str), Status> {
        match parts(name).as_slice() {
            ["projects", project, "locations", region, "operations", id] => {
                Ok((self.here(api, project, region, false).await?, *id))
            }
            _ => Err(self.wrong(name, "locations/REGION/operations/OPERATION")),
        }
    }

    /// The parent of a list that goes through several parents: the place, which may be all regions, and
    /// the rest of the name, in which any name may be [`ALL`].
    pub(crate) async fn parent<'a>(
        self,
        api: &Api,
        name: &'a str,
        form: &str,
    ) -> Result<(Here, Kind<'a>), Status> {
        let parts = parts(name);
        let ["projects", project, "locations", region, path @ ..] = parts.as_slice() else {
            return Err(self.wrong(name, form));
        };
        let kind = Kind::parse(path).ok_or_else(|| self.wrong(name, form))?;
        Ok((self.here(api, project, region, true).await?, kind))
    }
}

/// Whether a parent's name in a list lets through what is of `owner`.
pub(crate) fn lets_through(parent: &str, owner: &str) -> bool {
    parent == ALL || parent == owner
}

fn parts(name: &str) -> Vec<&str> {
    name.split('/').collect()
}
