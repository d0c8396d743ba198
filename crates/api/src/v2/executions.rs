//! `google.cloud.run.v2.Executions` and `google.cloud.run.v2.Tasks`.

use std::collections::BTreeMap;

use lauf_iam::Caller;
use lauf_model::{Execution, ExecutionKey, Status, Task, Violation};
use lauf_store::{Stored, Version};
use lauf_wire::google::cloud::run::v2::executions_server::Executions;
use lauf_wire::google::cloud::run::v2::tasks_server::Tasks;
use lauf_wire::google::cloud::run::v2::{
    CancelExecutionRequest, DeleteExecutionRequest, Execution as WireExecution,
    GetExecutionRequest, GetTaskRequest, ListExecutionsRequest, ListExecutionsResponse,
    ListTasksRequest, ListTasksResponse, Task as WireTask,
};
use lauf_wire::google::longrunning::Operation;
use tonic::{Request, async_trait};

use super::name::{ALL, At, Kind, lets_through};
use super::{Answer, Face, answer, asked, execution, next, operation, page_of};
use crate::services::Expected;

#[async_trait]
impl Executions for Face {
    async fn get_execution(&self, request: Request<GetExecutionRequest>) -> Answer<WireExecution> {
        let (_, sent) = asked(request)?;
        let found = self.execution(&sent.name).await;
        answer(found.map(|(_, found)| execution::write(&found.value, found.version)))
    }

    async fn list_executions(
        &self,
        request: Request<ListExecutionsRequest>,
    ) -> Answer<ListExecutionsResponse> {
        let (_, sent) = asked(request)?;
        answer(self.executions(sent).await)
    }

    async fn delete_execution(
        &self,
        request: Request<DeleteExecutionRequest>,
    ) -> Answer<Operation> {
        let (caller, sent) = asked(request)?;
        answer(self.delete_execution(&caller, sent).await)
    }

    async fn cancel_execution(
        &self,
        request: Request<CancelExecutionRequest>,
    ) -> Answer<Operation> {
        let (caller, sent) = asked(request)?;
        answer(self.cancel_execution(&caller, sent).await)
    }
}

#[async_trait]
impl Tasks for Face {
    async fn get_task(&self, request: Request<GetTaskRequest>) -> Answer<WireTask> {
        let (_, sent) = asked(request)?;
        answer(self.task(&sent.name).await)
    }

    async fn list_tasks(&self, request: Request<ListTasksRequest>) -> Answer<ListTasksResponse> {
        let (_, sent) = asked(request)?;
        answer(self.tasks(sent).await)
    }
}

impl Face {
    /// An execution, of the job that its name says.
    async fn execution(&self, name: &str) -> Result<(ExecutionKey, Stored<Execution>), Status> {
        let (key, job) = At("name").execution(&self.api, name).await?;
        let found = self.api.execution(&key).await?;
        if found.value.job == job {
            return Ok((key, found));
        }
        Err(Status::not_found(
            "Execution",
            format!("{job}/executions/{}", key.name),
        ))
    }

    /// Of one job, or of all of them, `jobs/-`.
    async fn executions(
        &self,
        sent: ListExecutionsRequest,
    ) -> Result<ListExecutionsResponse, Status> {
        let form = "locations/REGION/jobs/JOB";
        let parent = At("parent").parent(&self.api, &sent.parent, form).await?;
        let (place, Kind::Job(job)) = parent else {
            return Err(At("parent").wrong(&sent.parent, form));
        };
        // Names of executions begin with that of their job.
        let prefix = if job == ALL {
            String::new()
        } else {
            format!("{job}-")
        };
        let page = page_of::<Execution, _>(
            &self.api,
            &place,
            &prefix,
            sent.page_size,
            &sent.page_token,
            |stored| {
                let ours = lets_through(job, &stored.value.job);
                let shown = sent.show_deleted || stored.value.meta.deleted.is_none();
                (ours && shown).then(|| execution::write(&stored.value, stored.version))
            },
        )
        .await?;
        Ok(ListExecutionsResponse {
            next_page_token: next(&page),
            executions: page.items,
        })
    }

    async fn delete_execution(
        &self,
        caller: &Caller,
        sent: DeleteExecutionRequest,
    ) -> Result<Operation, Status> {
        let (key, _) = self.execution(&sent.name).await?;
        let expected = version(&sent.etag)?;
        let gone = self
            .api
            .delete_execution(caller, &key, expected, sent.validate_only)
            .await?;
        Ok(operation::checked(
            operation::deleted(&gone),
            sent.validate_only,
        ))
    }

    /// The operation ends when the execution has.
    async fn cancel_execution(
        &self,
        caller: &Caller,
        sent: CancelExecutionRequest,
    ) -> Result<Operation, Status> {
        let (key, _) = self.execution(&sent.name).await?;
        let expected = version(&sent.etag)?;
        let ending = self
            .api
            .cancel_execution(caller, &key, expected, sent.validate_only)
            .await?;
        Ok(operation::checked(
            operation::cancelled(&ending),
            sent.validate_only,
        ))
    }

    async fn task(&self, name: &str) -> Result<WireTask, Status> {
        let (key, job, execution) = At("name").task(&self.api, name).await?;
        let found = self.api.task(&key).await?;
        let task = &found.task.value;
        if task.job != job || task.execution != execution {
            let name = format!("{job}/executions/{execution}/tasks/{}", key.name);
            return Err(Status::not_found("Task", name));
        }
        Ok(execution::write_task(
            task,
            &found.execution.value,
            found.task.version,
        ))
    }

    /// Of one execution, or of all of them, with `-` for either name.
    async fn tasks(&self, sent: ListTasksRequest) -> Result<ListTasksResponse, Status> {
        let form = "locations/REGION/jobs/JOB/executions/EXECUTION";
        let parent = At("parent").parent(&self.api, &sent.parent, form).await?;
        let (place, Kind::Execution(job, of)) = parent else {
            return Err(At("parent").wrong(&sent.parent, form));
        };
        let prefix = match of {
            ALL => String::new(),
            of => ExecutionKey::beside(&place, of).task_prefix(),
        };
        let page = page_of::<Task, _>(
            &self.api,
            &place,
            &prefix,
            sent.page_size,
            &sent.page_token,
            |stored| {
                let task = &stored.value;
                let ours = lets_through(job, &task.job) && lets_through(of, &task.execution);
                ours.then_some(stored)
            },
        )
        .await?;
        let next_page_token = next(&page);
        // What a task runs stands in its execution.
        let mut executions: BTreeMap<ExecutionKey, Option<Execution>> = BTreeMap::new();
        let mut tasks = Vec::with_capacity(page.items.len());
        for stored in page.items {
            let key = stored.value.execution_key();
            if !executions.contains_key(&key) {
                let found = self.api.find::<Execution>(&key).await?;
                executions.insert(key.clone(), found.map(|found| found.value));
            }
            // One that is just being removed has no execution any more.
            if let Some(Some(of)) = executions.get(&key) {
                tasks.push(execution::write_task(&stored.value, of, stored.version));
            }
        }
        Ok(ListTasksResponse {
            next_page_token,
            tasks,
        })
    }
}

/// What a client expects that sends the etag of an execution; nothing if it is empty.
fn version(etag: &str) -> Result<Expected, Status> {
    if etag.is_empty() {
        return Ok(Expected::default());
    }
    let version: Option<Version> = crate::etag::version(etag);
    let version = version.ok_or_else(|| {
        Status::invalid(vec![Violation::new(
            "etag",
            format!("'{etag}' is not one that a read gave."),
        )])
    })?;
    Ok(Expected {
        version: Some(version),
        generation: None,
    })
}
