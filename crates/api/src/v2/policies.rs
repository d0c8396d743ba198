//! IAM of jobs and worker pools. What else v2 has of them is still to come.

use lauf_model::{JobKey, Status, WorkerPoolKey};
use lauf_store::PolicyOwner;
use lauf_wire::google::cloud::run::v2::jobs_server::Jobs;
use lauf_wire::google::cloud::run::v2::worker_pools_server::WorkerPools;
use lauf_wire::google::iam::v1::{
    GetIamPolicyRequest, Policy, SetIamPolicyRequest, TestIamPermissionsRequest,
    TestIamPermissionsResponse,
};
use tonic::{Request, async_trait};

use super::name::At;
use super::{Answer, Face, answer, asked, policy};
use crate::iam;

#[async_trait]
impl Jobs for Face {
    async fn get_iam_policy(&self, request: Request<GetIamPolicyRequest>) -> Answer<Policy> {
        let (_, sent) = asked(request)?;
        answer(async { self.get_policy(&self.job(&sent.resource).await?).await }.await)
    }

    async fn set_iam_policy(&self, request: Request<SetIamPolicyRequest>) -> Answer<Policy> {
        let (_, sent) = asked(request)?;
        answer(
            async {
                self.put_policy(&self.job(&sent.resource).await?, &sent)
                    .await
            }
            .await,
        )
    }

    async fn test_iam_permissions(
        &self,
        request: Request<TestIamPermissionsRequest>,
    ) -> Answer<TestIamPermissionsResponse> {
        let (_, sent) = asked(request)?;
        answer(
            self.job(&sent.resource)
                .await
                .and_then(|_| permissions(&sent)),
        )
    }
}

#[async_trait]
impl WorkerPools for Face {
    async fn get_iam_policy(&self, request: Request<GetIamPolicyRequest>) -> Answer<Policy> {
        let (_, sent) = asked(request)?;
        answer(async { self.get_policy(&self.pool(&sent.resource).await?).await }.await)
    }

    async fn set_iam_policy(&self, request: Request<SetIamPolicyRequest>) -> Answer<Policy> {
        let (_, sent) = asked(request)?;
        answer(
            async {
                self.put_policy(&self.pool(&sent.resource).await?, &sent)
                    .await
            }
            .await,
        )
    }

    async fn test_iam_permissions(
        &self,
        request: Request<TestIamPermissionsRequest>,
    ) -> Answer<TestIamPermissionsResponse> {
        let (_, sent) = asked(request)?;
        answer(
            self.pool(&sent.resource)
                .await
                .and_then(|_| permissions(&sent)),
        )
    }
}

impl Face {
    async fn job(&self, resource: &str) -> Result<JobKey, Status> {
        At("resource").job(&self.api, resource).await
    }

    async fn pool(&self, resource: &str) -> Result<WorkerPoolKey, Status> {
        At("resource").worker_pool(&self.api, resource).await
    }

    async fn get_policy<K: PolicyOwner>(&self, key: &K) -> Result<Policy, Status> {
        let (policy, version) = iam::get_policy(&self.api, key).await?;
        Ok(policy::write(&policy, version))
    }

    async fn put_policy<K: PolicyOwner>(
        &self,
        key: &K,
        sent: &SetIamPolicyRequest,
    ) -> Result<Policy, Status> {
        let (wanted, expected) = policy::read(sent)?;
        let version = iam::set_policy(&self.api, key, &wanted, expected).await?;
        Ok(policy::write(&wanted, version))
    }
}

/// Of what is still to be made too: gcloud asks, before it deploys, whether it may set a policy.
fn permissions(sent: &TestIamPermissionsRequest) -> Result<TestIamPermissionsResponse, Status> {
    Ok(TestIamPermissionsResponse {
        permissions: iam::test_permissions(&sent.permissions)?,
    })
}
