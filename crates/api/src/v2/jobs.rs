//! `google.cloud.run.v2.Jobs`.

use lauf_iam::Caller;
use lauf_model::{Code, Job, JobKey, Status, Violation};
use lauf_store::Version;
use lauf_wire::google::cloud::run::v2::jobs_server::Jobs;
use lauf_wire::google::cloud::run::v2::{
    CreateJobRequest, DeleteJobRequest, GetJobRequest, Job as WireJob, ListJobsRequest,
    ListJobsResponse, RunJobRequest, UpdateJobRequest,
};
use lauf_wire::google::iam::v1::{
    GetIamPolicyRequest, Policy, SetIamPolicyRequest, TestIamPermissionsRequest,
    TestIamPermissionsResponse,
};
use lauf_wire::google::longrunning::Operation;
use tonic::{Request, async_trait};

use super::name::At;
use super::{
    Answer, Face, UPDATE_TRIES, answer, asked, expected, job, next, operation, page, policy,
};
use crate::services::Expected;

#[async_trait]
impl Jobs for Face {
    async fn create_job(&self, request: Request<CreateJobRequest>) -> Answer<Operation> {
        let (caller, sent) = asked(request)?;
        answer(self.create_job(&caller, sent).await)
    }

    async fn get_job(&self, request: Request<GetJobRequest>) -> Answer<WireJob> {
        let (_, sent) = asked(request)?;
        answer(self.job(&sent.name).await)
    }

    async fn list_jobs(&self, request: Request<ListJobsRequest>) -> Answer<ListJobsResponse> {
        let (_, sent) = asked(request)?;
        answer(self.jobs(sent).await)
    }

    async fn update_job(&self, request: Request<UpdateJobRequest>) -> Answer<Operation> {
        let (caller, sent) = asked(request)?;
        answer(Box::pin(self.update_job(&caller, sent)).await)
    }

    async fn delete_job(&self, request: Request<DeleteJobRequest>) -> Answer<Operation> {
        let (caller, sent) = asked(request)?;
        answer(self.delete_job(&caller, sent).await)
    }

    async fn run_job(&self, request: Request<RunJobRequest>) -> Answer<Operation> {
        let (caller, sent) = asked(request)?;
        answer(self.run_job(&caller, sent).await)
    }

    async fn get_iam_policy(&self, request: Request<GetIamPolicyRequest>) -> Answer<Policy> {
        let (_, sent) = asked(request)?;
        let key = At("resource").job(&self.api, &sent.resource).await;
        answer(policy::get(&self.api, key).await)
    }

    async fn set_iam_policy(&self, request: Request<SetIamPolicyRequest>) -> Answer<Policy> {
        let (_, sent) = asked(request)?;
        let key = At("resource").job(&self.api, &sent.resource).await;
        answer(policy::set(&self.api, key, &sent).await)
    }

    async fn test_iam_permissions(
        &self,
        request: Request<TestIamPermissionsRequest>,
    ) -> Answer<TestIamPermissionsResponse> {
        let (_, sent) = asked(request)?;
        let key = At("resource").job(&self.api, &sent.resource).await;
        answer(policy::test(key, &sent))
    }
}

impl Face {
    async fn create_job(
        &self,
        caller: &Caller,
        sent: CreateJobRequest,
    ) -> Result<Operation, Status> {
        let place = At("parent").place(&self.api, &sent.parent).await?;
        let key = JobKey::beside(&place, sent.job_id);
        let mut found = Vec::new();
        if key.name.is_empty() {
            found.push(Violation::new(
                "metadata.name",
                "is empty; job_id says how the job is called.",
            ));
        }
        let wanted = sent.job.unwrap_or_default();
        let desired = job::read(&key.name, &wanted, None, &mut found);
        let made = self
            .api
            .create_job(caller, &key, desired, found, sent.validate_only)
            .await
            .map_err(|status| super::renamed(status, "job_id"))?;
        Ok(operation::checked(operation::of(&made), sent.validate_only))
    }

    async fn job(&self, name: &str) -> Result<WireJob, Status> {
        let key = At("name").job(&self.api, name).await?;
        Ok(job::write(&self.api.job(&key).await?.value))
    }

    async fn jobs(&self, sent: ListJobsRequest) -> Result<ListJobsResponse, Status> {
        let place = At("parent").places(&self.api, &sent.parent).await?;
        let page = page::<Job, _>(
            &self.api,
            &place,
            sent.page_size,
            &sent.page_token,
            |stored| {
                let shown = sent.show_deleted || stored.value.meta.deleted.is_none();
                shown.then(|| job::write(&stored.value))
            },
        )
        .await?;
        Ok(ListJobsResponse {
            next_page_token: next(&page),
            jobs: page.items,
        })
    }

    /// Replaces all that clients may set: this request has no mask.
    async fn update_job(
        &self,
        caller: &Caller,
        request: UpdateJobRequest,
    ) -> Result<Operation, Status> {
        let sent = request.job.unwrap_or_default();
        let key = At("job.name").job(&self.api, &sent.name).await?;
        let only_check = request.validate_only;
        let mut tries = 0;
        loop {
            tries += 1;
            let mut found = Vec::new();
            let old = match self.api.job(&key).await {
                Ok(old) => old.value,
                Err(status) if status.code == Code::NotFound && request.allow_missing => {
                    let desired = job::read(&key.name, &sent, None, &mut found);
                    let made = self
                        .api
                        .create_job(caller, &key, desired, found, only_check)
                        .await?;
                    return Ok(operation::checked(operation::of(&made), only_check));
                }
                Err(status) => return Err(status),
            };
            // What v2 has no words for is taken from the job as it was read here.
            let expected = if sent.etag.is_empty() {
                Expected {
                    version: Some(Version::ZERO),
                    generation: Some(old.meta.generation),
                }
            } else {
                expected(&sent.etag, &old.meta)?
            };
            let desired = job::read(&key.name, &sent, Some(&old), &mut found);
            let made = self
                .api
                .replace_job(caller, &key, desired, expected, found, only_check)
                .await;
            match made {
                Err(status)
                    if status.code == Code::Aborted
                        && sent.etag.is_empty()
                        && tries < UPDATE_TRIES => {}
                made => return Ok(operation::checked(operation::of(&made?), only_check)),
            }
        }
    }

    async fn delete_job(
        &self,
        caller: &Caller,
        sent: DeleteJobRequest,
    ) -> Result<Operation, Status> {
        let key = At("name").job(&self.api, &sent.name).await?;
        let meta = self.api.job(&key).await?.value.meta;
        let expected = expected(&sent.etag, &meta)?;
        let gone = self
            .api
            .delete_job(caller, &key, expected, sent.validate_only)
            .await?;
        Ok(operation::checked(
            operation::deleted(&gone),
            sent.validate_only,
        ))
    }

    /// The operation ends when the execution does.
    async fn run_job(&self, caller: &Caller, sent: RunJobRequest) -> Result<Operation, Status> {
        let key = At("name").job(&self.api, &sent.name).await?;
        let mut found = Vec::new();
        let overrides = sent.overrides.unwrap_or_default();
        let overrides = job::overrides(&overrides, &mut found);
        let meta = self.api.job(&key).await?.value.meta;
        let expected = expected(&sent.etag, &meta)?;
        let made = self
            .api
            .run_job(
                caller,
                &key,
                &overrides,
                expected,
                found,
                sent.validate_only,
            )
            .await?;
        Ok(operation::checked(operation::of(&made), sent.validate_only))
    }
}
