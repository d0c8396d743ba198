//! Cloud Tasks' API: `google.cloud.tasks.v2`, over gRPC and REST. Wire forms become the types of
//! `lauf-events` and back; nothing is decided.

mod queue;
mod task;

use lauf_events::tasks::{Queue, QueueName, TaskName, Tasks};
use lauf_model::{Policy, Status};
use lauf_store::{Key, Resource as _};
use lauf_wire::google::cloud::tasks::v2 as wire;
use lauf_wire::google::cloud::tasks::v2::cloud_tasks_server::{CloudTasks, CloudTasksServer};
use lauf_wire::google::iam::v1 as iam;
use lauf_wire::mask;
use tonic::service::Routes;
use tonic::{Request, async_trait};

use crate::api::Api;
use crate::policy_at;
use crate::rpc::{self, Answer, asked, missing, size, wrong};

/// The API whose face this is.
pub(crate) const DOMAIN: &str = "cloudtasks.googleapis.com";

#[derive(Clone)]
struct Face {
    api: Api,
    tasks: Tasks,
}

/// Adds what answers Cloud Tasks' RPCs. The caller must be among a request's extensions.
pub(crate) fn add(routes: Routes, api: &Api) -> Routes {
    let face = Face {
        api: api.clone(),
        tasks: api.deps.tasks.clone(),
    };
    let most = api.config.max_body;
    routes.add_service(CloudTasksServer::new(face).max_decoding_message_size(most))
}

fn answer<T>(result: Result<T, Status>) -> Answer<T> {
    rpc::answer(DOMAIN, result)
}

fn queue_answer(result: Result<Queue, Status>) -> Answer<wire::Queue> {
    answer(result.map(|queue| queue::show(&queue)))
}

#[async_trait]
impl CloudTasks for Face {
    async fn list_queues(
        &self,
        request: Request<wire::ListQueuesRequest>,
    ) -> Answer<wire::ListQueuesResponse> {
        let sent = asked(request)?;
        let listed = async {
            if !sent.filter.is_empty() {
                return Err(rpc::unsupported("filter"));
            }
            let (project, location) = rpc::parent(&self.api, "parent", &sent.parent).await?;
            let size = size(sent.page_size)?;
            let page = self
                .tasks
                .list_queues(&project, &location, size, &sent.page_token);
            Ok(wire::ListQueuesResponse {
                queues: page.items.iter().map(queue::show).collect(),
                next_page_token: page.next,
            })
        };
        answer(listed.await)
    }

    async fn get_queue(&self, request: Request<wire::GetQueueRequest>) -> Answer<wire::Queue> {
        let sent = asked(request)?;
        let found = async {
            self.tasks
                .queue(&self.queue_name("name", &sent.name).await?)
        };
        queue_answer(found.await)
    }

    async fn create_queue(
        &self,
        request: Request<wire::CreateQueueRequest>,
    ) -> Answer<wire::Queue> {
        let sent = asked(request)?;
        let made = async {
            let parent = rpc::located(&self.api, "parent", &sent.parent).await?;
            let queue = sent.queue.ok_or_else(|| missing("queue"))?;
            let name = self.queue_name("queue.name", &queue.name).await?;
            rpc::below("queue.name", &name.to_string(), &parent)?;
            self.tasks.create_queue(queue::read(name, queue)?).await
        };
        queue_answer(made.await)
    }

    /// Makes the queue if there is none, as documented.
    async fn update_queue(
        &self,
        request: Request<wire::UpdateQueueRequest>,
    ) -> Answer<wire::Queue> {
        let sent = asked(request)?;
        let changed = async {
            let queue = sent.queue.ok_or_else(|| missing("queue"))?;
            let name = self.queue_name("queue.name", &queue.name).await?;
            if self.tasks.queue(&name).is_err() {
                return self.tasks.create_queue(queue::read(name, queue)?).await;
            }
            let change = |kept: &mut Queue| {
                let mask = sent.update_mask.as_ref();
                let whole = mask::update(mask, &queue, || queue::show(kept), queue::may_change)?;
                kept.limits = queue::read(kept.name.clone(), whole)?.limits;
                Ok(())
            };
            self.tasks.update_queue(&name, change).await
        };
        queue_answer(changed.await)
    }

    async fn delete_queue(&self, request: Request<wire::DeleteQueueRequest>) -> Answer<()> {
        let sent = asked(request)?;
        let gone = async {
            let name = self.queue_name("name", &sent.name).await?;
            self.tasks.delete_queue(&name).await
        };
        answer(gone.await)
    }

    async fn purge_queue(&self, request: Request<wire::PurgeQueueRequest>) -> Answer<wire::Queue> {
        let sent = asked(request)?;
        let purged = async {
            let name = self.queue_name("name", &sent.name).await?;
            self.tasks.purge(&name).await
        };
        queue_answer(purged.await)
    }

    async fn pause_queue(&self, request: Request<wire::PauseQueueRequest>) -> Answer<wire::Queue> {
        let sent = asked(request)?;
        queue_answer(self.set_paused(&sent.name, true).await)
    }

    async fn resume_queue(
        &self,
        request: Request<wire::ResumeQueueRequest>,
    ) -> Answer<wire::Queue> {
        let sent = asked(request)?;
        queue_answer(self.set_paused(&sent.name, false).await)
    }

    async fn get_iam_policy(
        &self,
        request: Request<iam::GetIamPolicyRequest>,
    ) -> Answer<iam::Policy> {
        let sent = asked(request)?;
        let found = async {
            let key = self.policy_key(&sent.resource).await?;
            policy_at::get(&self.api, &key).await
        };
        answer(found.await)
    }

    async fn set_iam_policy(
        &self,
        request: Request<iam::SetIamPolicyRequest>,
    ) -> Answer<iam::Policy> {
        let sent = asked(request)?;
        let set = async {
            let key = self.policy_key(&sent.resource).await?;
            policy_at::set(&self.api, key, &sent).await
        };
        answer(set.await)
    }

    async fn test_iam_permissions(
        &self,
        request: Request<iam::TestIamPermissionsRequest>,
    ) -> Answer<iam::TestIamPermissionsResponse> {
        let sent = asked(request)?;
        let ours = sent
            .permissions
            .into_iter()
            .filter(|p| p.starts_with("cloudtasks."));
        answer(Ok(iam::TestIamPermissionsResponse {
            permissions: ours.collect(),
        }))
    }

    async fn list_tasks(
        &self,
        request: Request<wire::ListTasksRequest>,
    ) -> Answer<wire::ListTasksResponse> {
        let sent = asked(request)?;
        let listed = async {
            let queue = self.queue_name("parent", &sent.parent).await?;
            let full = task::is_full(sent.response_view)?;
            let size = size(sent.page_size)?;
            let page = self.tasks.list(&queue, size, &sent.page_token).await?;
            Ok(wire::ListTasksResponse {
                tasks: page
                    .items
                    .iter()
                    .map(|task| task::show(&queue, task, full))
                    .collect(),
                next_page_token: page.next,
            })
        };
        answer(listed.await)
    }

    async fn get_task(&self, request: Request<wire::GetTaskRequest>) -> Answer<wire::Task> {
        let sent = asked(request)?;
        let found = async {
            let name = self.task_name("name", &sent.name).await?;
            let full = task::is_full(sent.response_view)?;
            let task = self.tasks.task(&name).await?;
            Ok(task::show(&name.queue, &task, full))
        };
        answer(found.await)
    }

    async fn create_task(&self, request: Request<wire::CreateTaskRequest>) -> Answer<wire::Task> {
        let sent = asked(request)?;
        let added = async {
            let queue = self.queue_name("parent", &sent.parent).await?;
            let full = task::is_full(sent.response_view)?;
            let task = sent.task.ok_or_else(|| missing("task"))?;
            let id = if task.name.is_empty() {
                String::new()
            } else {
                let name = self.task_name("task.name", &task.name).await?;
                if name.queue != queue {
                    let text = format!("'{}' is not below the parent, '{queue}'.", task.name);
                    return Err(wrong("task.name", text));
                }
                name.id
            };
            let added = self.tasks.add(&queue, task::read(id, task)?).await?;
            Ok(task::show(&queue, &added, full))
        };
        answer(added.await)
    }

    async fn delete_task(&self, request: Request<wire::DeleteTaskRequest>) -> Answer<()> {
        let sent = asked(request)?;
        let gone = async {
            let name = self.task_name("name", &sent.name).await?;
            self.tasks.delete(&name).await
        };
        answer(gone.await)
    }

    async fn run_task(&self, request: Request<wire::RunTaskRequest>) -> Answer<wire::Task> {
        let sent = asked(request)?;
        let run = async {
            let name = self.task_name("name", &sent.name).await?;
            let full = task::is_full(sent.response_view)?;
            let task = self.tasks.run(&name).await?;
            Ok(task::show(&name.queue, &task, full))
        };
        answer(run.await)
    }
}

impl Face {
    async fn queue_name(&self, field: &str, text: &str) -> Result<QueueName, Status> {
        QueueName::parse(field, &rpc::located(&self.api, field, text).await?)
    }

    async fn task_name(&self, field: &str, text: &str) -> Result<TaskName, Status> {
        TaskName::parse(field, &rpc::located(&self.api, field, text).await?)
    }

    async fn set_paused(&self, name: &str, paused: bool) -> Result<Queue, Status> {
        let name = self.queue_name("name", name).await?;
        self.tasks.set_paused(&name, paused).await
    }

    /// Under which key the policy of a queue is kept that is there.
    async fn policy_key(&self, resource: &str) -> Result<Key, Status> {
        let name = self.queue_name("resource", resource).await?;
        let queue = self.tasks.queue(&name)?;
        let path = format!("tasks/queues/{}", queue.uid);
        Ok(Key::new(Policy::KIND, name.project, path))
    }
}
