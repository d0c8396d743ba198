//! Resource names (google.aip.dev/122): `projects/P/locations/L/services/S`.

use lauf_model::{JobKey, RevisionKey, ServiceKey, Status, Violation, WorkerPoolKey};

use crate::api::Api;

/// Every region, in the parent of a list.
pub(crate) const ALL: &str = "-";

/// Which field of the request a name is in, for the errors.
#[derive(Clone, Copy)]
pub(crate) struct At(pub(crate) &'static str);

impl At {
    fn wrong(self, name: &str, form: &str) -> Status {
        Status::invalid(vec![Violation::new(
            self.0,
            format!("'{name}' is not a name such as {form}."),
        )])
    }

    /// `projects/P`: the project's id.
    pub(crate) async fn project(self, api: &Api, name: &str) -> Result<String, Status> {
        match parts(name).as_slice() {
            ["projects", project] => Ok(api.project(project).await?.id),
            _ => Err(self.wrong(name, "projects/PROJECT")),
        }
    }

    /// `projects/P/locations/L`, as the key of a service without a name.
    pub(crate) async fn place(self, api: &Api, name: &str) -> Result<ServiceKey, Status> {
        match parts(name).as_slice() {
            ["projects", project, "locations", region] => {
                api.service_key(project, region, "").await
            }
            _ => Err(self.wrong(name, "projects/PROJECT/locations/REGION")),
        }
    }

    /// The same, or of all regions, `projects/P/locations/-`.
    pub(crate) async fn places(self, api: &Api, name: &str) -> Result<ServiceKey, Status> {
        match parts(name).as_slice() {
            ["projects", project, "locations", ALL] => Ok(ServiceKey {
                project: api.project(project).await?.id,
                region: ALL.to_owned(),
                name: String::new(),
            }),
            _ => self.place(api, name).await,
        }
    }

    /// `projects/P/locations/L/services/S`.
    pub(crate) async fn service(self, api: &Api, name: &str) -> Result<ServiceKey, Status> {
        match parts(name).as_slice() {
            [
                "projects",
                project,
                "locations",
                region,
                "services",
                service,
            ] => api.service_key(project, region, service).await,
            _ => Err(self.wrong(name, "projects/PROJECT/locations/REGION/services/SERVICE")),
        }
    }

    /// `projects/P/locations/L/jobs/J`.
    pub(crate) async fn job(self, api: &Api, name: &str) -> Result<JobKey, Status> {
        match parts(name).as_slice() {
            ["projects", project, "locations", region, "jobs", job] => {
                let place = api.service_key(project, region, "").await?;
                Ok(JobKey::beside(&place, *job))
            }
            _ => Err(self.wrong(name, "projects/PROJECT/locations/REGION/jobs/JOB")),
        }
    }

    /// `projects/P/locations/L/workerPools/W`; v1 writes the collection without a capital.
    pub(crate) async fn worker_pool(self, api: &Api, name: &str) -> Result<WorkerPoolKey, Status> {
        match parts(name).as_slice() {
            [
                "projects",
                project,
                "locations",
                region,
                "workerPools" | "workerpools",
                pool,
            ] => {
                let place = api.service_key(project, region, "").await?;
                Ok(WorkerPoolKey::beside(&place, *pool))
            }
            _ => Err(self.wrong(name, "projects/PROJECT/locations/REGION/workerPools/POOL")),
        }
    }

    /// The same, or all services of a place, `projects/P/locations/L/services/-`.
    pub(crate) async fn services(self, api: &Api, name: &str) -> Result<ServiceKey, Status> {
        match name.strip_suffix("/services/-") {
            Some(place) => Ok(ServiceKey {
                name: ALL.to_owned(),
                ..self.places(api, place).await?
            }),
            None => self.service(api, name).await,
        }
    }

    /// `projects/P/locations/L/services/S/revisions/R`.
    pub(crate) async fn revision(self, api: &Api, name: &str) -> Result<RevisionKey, Status> {
        match parts(name).as_slice() {
            [
                "projects",
                project,
                "locations",
                region,
                "services",
                service,
                "revisions",
                revision,
            ] => {
                let service = api.service_key(project, region, service).await?;
                Ok(service.revision(revision))
            }
            _ => Err(self.wrong(
                name,
                "projects/PROJECT/locations/REGION/services/SERVICE/revisions/REVISION",
            )),
        }
    }

    /// `projects/P/locations/L/operations/O`: the place and the operation's id.
    pub(crate) async fn operation<'a>(
        self,
        api: &Api,
        name: &'a str,
    ) -> Result<(ServiceKey, &'a str), Status> {
        match parts(name).as_slice() {
            ["projects", project, "locations", region, "operations", id] => {
                Ok((api.service_key(project, region, "").await?, *id))
            }
            _ => Err(self.wrong(
                name,
                "projects/PROJECT/locations/REGION/operations/OPERATION",
            )),
        }
    }
}

fn parts(name: &str) -> Vec<&str> {
    name.split('/').collect()
}
