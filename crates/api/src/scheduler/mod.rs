//! Cloud Scheduler's API: `google.cloud.scheduler.v1`, over gRPC and REST. Wire forms become the types of
//! `lauf-events` and back; nothing is decided.

mod job;

use lauf_events::scheduler::{Job, JobName, Scheduler};
use lauf_model::Status;
use lauf_wire::google::cloud::scheduler::v1 as wire;
use lauf_wire::google::cloud::scheduler::v1::cloud_scheduler_server::{
    CloudScheduler, CloudSchedulerServer,
};
use lauf_wire::mask;
use tonic::service::Routes;
use tonic::{Request, async_trait};

use crate::api::Api;
use crate::rpc::{self, Answer, asked, missing, size};

/// The API whose face this is.
pub(crate) const DOMAIN: &str = "cloudscheduler.googleapis.com";

#[derive(Clone)]
struct Face {
    api: Api,
    scheduler: Scheduler,
}

/// Adds what answers Cloud Scheduler's RPCs. The caller must be among a request's extensions.
pub(crate) fn add(routes: Routes, api: &Api) -> Routes {
    let face = Face {
        api: api.clone(),
        scheduler: api.deps.scheduler.clone(),
    };
    let most = api.config.max_body;
    routes.add_service(CloudSchedulerServer::new(face).max_decoding_message_size(most))
}

fn answer(result: Result<Job, Status>) -> Answer<wire::Job> {
    rpc::answer(DOMAIN, result.map(|job| job::show(&job)))
}

#[async_trait]
impl CloudScheduler for Face {
    async fn list_jobs(
        &self,
        request: Request<wire::ListJobsRequest>,
    ) -> Answer<wire::ListJobsResponse> {
        let sent = asked(request)?;
        let listed = async {
            let (project, location) = rpc::parent(&self.api, "parent", &sent.parent).await?;
            let size = size(sent.page_size)?;
            self.scheduler
                .list(&project, &location, size, &sent.page_token)
        };
        let listed = listed.await.map(|page| wire::ListJobsResponse {
            jobs: page.items.iter().map(job::show).collect(),
            next_page_token: page.next,
        });
        rpc::answer(DOMAIN, listed)
    }

    async fn get_job(&self, request: Request<wire::GetJobRequest>) -> Answer<wire::Job> {
        let sent = asked(request)?;
        let found = async { self.scheduler.get(&self.name("name", &sent.name).await?) };
        answer(found.await)
    }

    async fn create_job(&self, request: Request<wire::CreateJobRequest>) -> Answer<wire::Job> {
        let sent = asked(request)?;
        let made = async {
            let parent = rpc::located(&self.api, "parent", &sent.parent).await?;
            let mut job = sent.job.ok_or_else(|| missing("job"))?;
            if job.name.is_empty() {
                job.name = format!("{parent}/jobs/{}", job::new_id()?);
            }
            let name = self.name("job.name", &job.name).await?;
            rpc::below("job.name", &name.to_string(), &parent)?;
            self.with_project_ids(&mut job).await?;
            self.scheduler.create(job::read(name, job)?).await
        };
        answer(made.await)
    }

    async fn update_job(&self, request: Request<wire::UpdateJobRequest>) -> Answer<wire::Job> {
        let sent = asked(request)?;
        let changed = async {
            let mut job = sent.job.ok_or_else(|| missing("job"))?;
            let name = self.name("job.name", &job.name).await?;
            self.with_project_ids(&mut job).await?;
            let change = |kept: &mut Job| {
                let mask = sent.update_mask.as_ref();
                let whole = mask::update(mask, &job, || job::show(kept), job::may_change)?;
                let wanted = job::read(kept.name.clone(), whole)?;
                *kept = Job {
                    paused: kept.paused,
                    updated: kept.updated,
                    next: kept.next,
                    last: kept.last.take(),
                    again: kept.again,
                    ..wanted
                };
                Ok(())
            };
            self.scheduler.update(&name, change).await
        };
        answer(changed.await)
    }

    async fn delete_job(&self, request: Request<wire::DeleteJobRequest>) -> Answer<()> {
        let sent = asked(request)?;
        let gone = async {
            let name = self.name("name", &sent.name).await?;
            self.scheduler.delete(&name).await
        };
        rpc::answer(DOMAIN, gone.await)
    }

    async fn pause_job(&self, request: Request<wire::PauseJobRequest>) -> Answer<wire::Job> {
        let sent = asked(request)?;
        answer(self.set_paused(&sent.name, true).await)
    }

    async fn resume_job(&self, request: Request<wire::ResumeJobRequest>) -> Answer<wire::Job> {
        let sent = asked(request)?;
        answer(self.set_paused(&sent.name, false).await)
    }

    async fn run_job(&self, request: Request<wire::RunJobRequest>) -> Answer<wire::Job> {
        let sent = asked(request)?;
        let run = async {
            let name = self.name("name", &sent.name).await?;
            self.scheduler.run_now(&name).await
        };
        answer(run.await)
    }
}

impl Face {
    async fn name(&self, field: &str, text: &str) -> Result<JobName, Status> {
        JobName::parse(field, &rpc::located(&self.api, field, text).await?)
    }

    async fn set_paused(&self, name: &str, paused: bool) -> Result<Job, Status> {
        let name = self.name("name", name).await?;
        self.scheduler.set_paused(&name, paused).await
    }

    /// Says the project's id where the topic's name has its number.
    async fn with_project_ids(&self, job: &mut wire::Job) -> Result<(), Status> {
        let Some(wire::job::Target::PubsubTarget(target)) = &mut job.target else {
            return Ok(());
        };
        if let Some((project, topic)) = target
            .topic_name
            .strip_prefix("projects/")
            .and_then(|rest| rest.split_once('/'))
        {
            let project = self.api.project(project).await?.id;
            target.topic_name = format!("projects/{project}/{topic}");
        }
        Ok(())
    }
}
