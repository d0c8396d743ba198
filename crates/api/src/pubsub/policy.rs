//! `google.iam.v1.IAMPolicy`, for topics, subscriptions, snapshots and schemas. Policies are kept
//! beside what they are about; today the administrator alone is let in, who may do everything.

use lauf_events::pubsub::{SchemaName, SnapshotName, SubscriptionName, TopicName};
use lauf_model::{Policy, Status};
use lauf_store::{Key, Resource as _};
use lauf_wire::google::iam::v1::i_a_m_policy_server::IAMPolicy;
use lauf_wire::google::iam::v1::{
    GetIamPolicyRequest, Policy as WirePolicy, SetIamPolicyRequest, TestIamPermissionsRequest,
    TestIamPermissionsResponse,
};
use tonic::{Request, async_trait};

use super::{Answer, Face, answer, asked, wrong};
use crate::policy_at;

#[async_trait]
impl IAMPolicy for Face {
    async fn set_iam_policy(&self, request: Request<SetIamPolicyRequest>) -> Answer<WirePolicy> {
        let sent = asked(request)?;
        let set = async {
            let key = self.policy_key(&sent.resource).await?;
            policy_at::set(&self.api, key, &sent).await
        };
        answer(set.await)
    }

    async fn get_iam_policy(&self, request: Request<GetIamPolicyRequest>) -> Answer<WirePolicy> {
        let sent = asked(request)?;
        let found = async {
            let key = self.policy_key(&sent.resource).await?;
            policy_at::get(&self.api, &key).await
        };
        answer(found.await)
    }

    async fn test_iam_permissions(
        &self,
        request: Request<TestIamPermissionsRequest>,
    ) -> Answer<TestIamPermissionsResponse> {
        let sent = asked(request)?;
        let ours = sent
            .permissions
            .into_iter()
            .filter(|p| p.starts_with("pubsub."));
        answer(Ok(TestIamPermissionsResponse {
            permissions: ours.collect(),
        }))
    }
}

impl Face {
    /// Under which key the policy of a resource is kept that is there.
    async fn policy_key(&self, resource: &str) -> Result<Key, Status> {
        let mut words = resource.split('/');
        let (project, path) = match words.nth(2) {
            Some(TopicName::COLLECTION) => {
                let name = self.named("resource", resource, TopicName::parse).await?;
                let topic = self.pubsub.topic(&name)?;
                (name.project, format!("topics/{}", topic.uid))
            }
            Some(SubscriptionName::COLLECTION) => {
                let name = self
                    .named("resource", resource, SubscriptionName::parse)
                    .await?;
                let subscription = self.pubsub.subscription(&name)?;
                (name.project, format!("subscriptions/{}", subscription.uid))
            }
            Some(SnapshotName::COLLECTION) => {
                let name = self
                    .named("resource", resource, SnapshotName::parse)
                    .await?;
                let snapshot = self.pubsub.snapshot(&name)?;
                (name.project, format!("snapshots/{}", snapshot.uid))
            }
            Some(SchemaName::COLLECTION) => {
                let name = self.named("resource", resource, SchemaName::parse).await?;
                self.pubsub.schema(&name, None)?;
                (name.project, format!("schemas/{}", name.id))
            }
            _ => {
                return Err(wrong(
                    "resource",
                    format!("'{resource}' is no topic, subscription, snapshot or schema."),
                ));
            }
        };
        Ok(Key::new(Policy::KIND, project, format!("pubsub/{path}")))
    }
}
