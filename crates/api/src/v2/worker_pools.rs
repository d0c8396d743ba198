//! `google.cloud.run.v2.WorkerPools`.

use lauf_iam::Caller;
use lauf_model::{Code, Status, Violation, WorkerPool, WorkerPoolKey};
use lauf_store::Version;
use lauf_wire::google::cloud::run::v2::worker_pools_server::WorkerPools;
use lauf_wire::google::cloud::run::v2::{
    CreateWorkerPoolRequest, DeleteWorkerPoolRequest, GetWorkerPoolRequest, ListWorkerPoolsRequest,
    ListWorkerPoolsResponse, UpdateWorkerPoolRequest, WorkerPool as WirePool,
};
use lauf_wire::google::iam::v1::{
    GetIamPolicyRequest, Policy, SetIamPolicyRequest, TestIamPermissionsRequest,
    TestIamPermissionsResponse,
};
use lauf_wire::google::longrunning::Operation;
use lauf_wire::mask;
use tonic::{Request, async_trait};

use super::name::At;
use super::{
    Answer, Face, UPDATE_TRIES, answer, asked, expected, next, operation, page, policy, worker_pool,
};
use crate::services::{Expected, new_uid};

/// The fields of a worker pool that only the platform writes: a mask cannot name them.
const OUTPUTS: [&str; 17] = [
    "uid",
    "generation",
    "create_time",
    "update_time",
    "delete_time",
    "expire_time",
    "creator",
    "last_modifier",
    "observed_generation",
    "terminal_condition",
    "conditions",
    "latest_ready_revision",
    "latest_created_revision",
    "instance_split_statuses",
    "satisfies_pzs",
    "threat_detection_enabled",
    "reconciling",
];

#[async_trait]
impl WorkerPools for Face {
    async fn create_worker_pool(
        &self,
        request: Request<CreateWorkerPoolRequest>,
    ) -> Answer<Operation> {
        let (caller, sent) = asked(request)?;
        answer(self.create_pool(&caller, sent).await)
    }

    async fn get_worker_pool(&self, request: Request<GetWorkerPoolRequest>) -> Answer<WirePool> {
        let (_, sent) = asked(request)?;
        answer(self.pool(&sent.name).await)
    }

    async fn list_worker_pools(
        &self,
        request: Request<ListWorkerPoolsRequest>,
    ) -> Answer<ListWorkerPoolsResponse> {
        let (_, sent) = asked(request)?;
        answer(self.pools(sent).await)
    }

    async fn update_worker_pool(
        &self,
        request: Request<UpdateWorkerPoolRequest>,
    ) -> Answer<Operation> {
        let (caller, sent) = asked(request)?;
        answer(Box::pin(self.update_pool(&caller, sent)).await)
    }

    async fn delete_worker_pool(
        &self,
        request: Request<DeleteWorkerPoolRequest>,
    ) -> Answer<Operation> {
        let (caller, sent) = asked(request)?;
        answer(self.delete_pool(&caller, sent).await)
    }

    async fn get_iam_policy(&self, request: Request<GetIamPolicyRequest>) -> Answer<Policy> {
        let (_, sent) = asked(request)?;
        let key = At("resource").worker_pool(&self.api, &sent.resource).await;
        answer(policy::get(&self.api, key).await)
    }

    async fn set_iam_policy(&self, request: Request<SetIamPolicyRequest>) -> Answer<Policy> {
        let (_, sent) = asked(request)?;
        let key = At("resource").worker_pool(&self.api, &sent.resource).await;
        answer(policy::set(&self.api, key, &sent).await)
    }

    async fn test_iam_permissions(
        &self,
        request: Request<TestIamPermissionsRequest>,
    ) -> Answer<TestIamPermissionsResponse> {
        let (_, sent) = asked(request)?;
        let key = At("resource").worker_pool(&self.api, &sent.resource).await;
        answer(policy::test(key, &sent))
    }
}

impl Face {
    async fn create_pool(
        &self,
        caller: &Caller,
        sent: CreateWorkerPoolRequest,
    ) -> Result<Operation, Status> {
        let place = At("parent").place(&self.api, &sent.parent).await?;
        let key = WorkerPoolKey::beside(&place, sent.worker_pool_id);
        let mut found = Vec::new();
        if key.name.is_empty() {
            found.push(Violation::new(
                "metadata.name",
                "is empty; worker_pool_id says how the worker pool is called.",
            ));
        }
        let wanted = sent.worker_pool.unwrap_or_default();
        let desired = worker_pool::read(&key.name, &wanted, None, &mut found);
        let made = self
            .api
            .create_worker_pool(caller, &key, desired, found, sent.validate_only)
            .await
            .map_err(|status| super::renamed(status, "worker_pool_id"))?;
        Ok(operation::checked(operation::of(&made), sent.validate_only))
    }

    async fn pool(&self, name: &str) -> Result<WirePool, Status> {
        let key = At("name").worker_pool(&self.api, name).await?;
        Ok(worker_pool::write(&self.api.worker_pool(&key).await?.value))
    }

    async fn pools(&self, sent: ListWorkerPoolsRequest) -> Result<ListWorkerPoolsResponse, Status> {
        let place = At("parent").places(&self.api, &sent.parent).await?;
        let page = page::<WorkerPool, _>(
            &self.api,
            &place,
            sent.page_size,
            &sent.page_token,
            |stored| {
                let shown = sent.show_deleted || stored.value.meta.deleted.is_none();
                shown.then(|| worker_pool::write(&stored.value))
            },
        )
        .await?;
        Ok(ListWorkerPoolsResponse {
            next_page_token: next(&page),
            worker_pools: page.items,
        })
    }

    async fn update_pool(
        &self,
        caller: &Caller,
        request: UpdateWorkerPoolRequest,
    ) -> Result<Operation, Status> {
        let sent = request.worker_pool.unwrap_or_default();
        let key = At("worker_pool.name")
            .worker_pool(&self.api, &sent.name)
            .await?;
        let only_check = request.validate_only;
        let mask = request.update_mask.as_ref();
        let nonce = if request.force_new_revision {
            Some(new_uid()?)
        } else {
            None
        };
        let mut tries = 0;
        loop {
            tries += 1;
            let mut found = Vec::new();
            let old = match self.api.worker_pool(&key).await {
                Ok(old) => old.value,
                Err(status) if status.code == Code::NotFound && request.allow_missing => {
                    let desired = worker_pool::read(&key.name, &sent, None, &mut found);
                    let made = self
                        .api
                        .create_worker_pool(caller, &key, desired, found, only_check)
                        .await?;
                    return Ok(operation::checked(operation::of(&made), only_check));
                }
                Err(status) => return Err(status),
            };
            // What neither the mask nor v2 has words for is taken from the pool as it was read here.
            let expected = if sent.etag.is_empty() {
                Expected {
                    version: Some(Version::ZERO),
                    generation: Some(old.meta.generation),
                }
            } else {
                expected(&sent.etag, &old.meta)?
            };
            let settable = |field: &str| !OUTPUTS.contains(&field);
            let whole = mask::update(mask, &sent, || worker_pool::write(&old), settable)?;
            let mut desired = worker_pool::read(&key.name, &whole, Some(&old), &mut found);
            if let Some(nonce) = &nonce {
                worker_pool::force_new_revision(&mut desired, nonce);
            }
            let made = self
                .api
                .replace_worker_pool(caller, &key, desired, expected, found, only_check)
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

    async fn delete_pool(
        &self,
        caller: &Caller,
        sent: DeleteWorkerPoolRequest,
    ) -> Result<Operation, Status> {
        let key = At("name").worker_pool(&self.api, &sent.name).await?;
        let meta = self.api.worker_pool(&key).await?.value.meta;
        let expected = expected(&sent.etag, &meta)?;
        let gone = self
            .api
            .delete_worker_pool(caller, &key, expected, sent.validate_only)
            .await?;
        Ok(operation::checked(
            operation::deleted(&gone),
            sent.validate_only,
        ))
    }
}
