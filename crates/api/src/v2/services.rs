//! `google.cloud.run.v2.Services`.

use lauf_iam::Caller;
use lauf_model::{Code, Service, ServiceKey, Status, Violation};
use lauf_store::Version;
use lauf_wire::google::cloud::run::v2::services_server::Services;
use lauf_wire::google::cloud::run::v2::{
    CreateServiceRequest, DeleteServiceRequest, GetServiceRequest, ListServicesRequest,
    ListServicesResponse, Service as WireService, UpdateServiceRequest,
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
    Answer, Face, UPDATE_TRIES, answer, asked, expected, next, operation, page, policy, renamed,
    service,
};
use crate::services::Expected;

/// The fields of a service that only the platform writes: a mask cannot name them.
const OUTPUTS: [&str; 19] = [
    "uid",
    "generation",
    "create_time",
    "update_time",
    "delete_time",
    "expire_time",
    "creator",
    "last_modifier",
    "urls",
    "observed_generation",
    "terminal_condition",
    "conditions",
    "latest_ready_revision",
    "latest_created_revision",
    "traffic_statuses",
    "uri",
    "satisfies_pzs",
    "threat_detection_enabled",
    "reconciling",
];

#[async_trait]
impl Services for Face {
    async fn create_service(&self, request: Request<CreateServiceRequest>) -> Answer<Operation> {
        let (caller, sent) = asked(request)?;
        answer(self.create(&caller, sent).await)
    }

    async fn get_service(&self, request: Request<GetServiceRequest>) -> Answer<WireService> {
        let (_, sent) = asked(request)?;
        answer(self.get(&sent.name).await)
    }

    async fn list_services(
        &self,
        request: Request<ListServicesRequest>,
    ) -> Answer<ListServicesResponse> {
        let (_, sent) = asked(request)?;
        answer(self.services(sent).await)
    }

    async fn update_service(&self, request: Request<UpdateServiceRequest>) -> Answer<Operation> {
        let (caller, sent) = asked(request)?;
        answer(Box::pin(self.update(&caller, sent)).await)
    }

    async fn delete_service(&self, request: Request<DeleteServiceRequest>) -> Answer<Operation> {
        let (caller, sent) = asked(request)?;
        answer(self.delete(&caller, sent).await)
    }

    async fn get_iam_policy(&self, request: Request<GetIamPolicyRequest>) -> Answer<Policy> {
        let (_, sent) = asked(request)?;
        let key = At("resource").service(&self.api, &sent.resource).await;
        answer(policy::get(&self.api, key).await)
    }

    async fn set_iam_policy(&self, request: Request<SetIamPolicyRequest>) -> Answer<Policy> {
        let (_, sent) = asked(request)?;
        let key = At("resource").service(&self.api, &sent.resource).await;
        answer(policy::set(&self.api, key, &sent).await)
    }

    /// Of services that are still to be made too: gcloud asks, before it deploys a new one, whether it
    /// may open it to all.
    async fn test_iam_permissions(
        &self,
        request: Request<TestIamPermissionsRequest>,
    ) -> Answer<TestIamPermissionsResponse> {
        let (_, sent) = asked(request)?;
        let key = At("resource").service(&self.api, &sent.resource).await;
        answer(policy::test(key, &sent))
    }
}

impl Face {
    async fn create(
        &self,
        caller: &Caller,
        sent: CreateServiceRequest,
    ) -> Result<Operation, Status> {
        let place = At("parent").place(&self.api, &sent.parent).await?;
        let key = ServiceKey::beside(&place, sent.service_id);
        let mut found = Vec::new();
        if key.name.is_empty() {
            found.push(Violation::new(
                "metadata.name",
                "is empty; service_id says how the service is called.",
            ));
        }
        let wanted = sent.service.unwrap_or_default();
        let desired = service::read(&key.name, &wanted, None, &mut found);
        let made = self
            .api
            .create_service(caller, &key, desired, found, sent.validate_only)
            .await
            .map_err(|status| renamed(status, "service_id"))?;
        let made = operation::of(&made);
        Ok(operation::checked(made, sent.validate_only))
    }

    async fn get(&self, name: &str) -> Result<WireService, Status> {
        let key = At("name").service(&self.api, name).await?;
        Ok(service::write(&self.api.service(&key).await?.value))
    }

    async fn services(&self, sent: ListServicesRequest) -> Result<ListServicesResponse, Status> {
        let place = At("parent").places(&self.api, &sent.parent).await?;
        let page = page::<Service, _>(
            &self.api,
            &place,
            sent.page_size,
            &sent.page_token,
            |stored| {
                let shown = sent.show_deleted || stored.value.meta.deleted.is_none();
                shown.then(|| service::write(&stored.value))
            },
        )
        .await?;
        Ok(ListServicesResponse {
            next_page_token: next(&page),
            services: page.items,
            ..ListServicesResponse::default()
        })
    }

    async fn update(
        &self,
        caller: &Caller,
        request: UpdateServiceRequest,
    ) -> Result<Operation, Status> {
        let sent = request.service.unwrap_or_default();
        let key = At("service.name").service(&self.api, &sent.name).await?;
        let only_check = request.validate_only;
        let mask = request.update_mask.as_ref();
        let mut tries = 0;
        loop {
            tries += 1;
            let mut found = Vec::new();
            let old = match self.api.service(&key).await {
                Ok(old) => old.value,
                Err(status) if status.code == Code::NotFound && request.allow_missing => {
                    let desired = service::read(&key.name, &sent, None, &mut found);
                    let made = self
                        .api
                        .create_service(caller, &key, desired, found, only_check)
                        .await?;
                    return Ok(operation::checked(operation::of(&made), only_check));
                }
                Err(status) => return Err(status),
            };
            // What neither the mask nor v2 has words for is taken from the service as it was read
            // here, so nobody may change it meanwhile.
            let expected = if sent.etag.is_empty() {
                Expected {
                    version: Some(Version::ZERO),
                    generation: Some(old.meta.generation),
                }
            } else {
                expected(&sent.etag, &old.meta)?
            };
            let settable = |field: &str| !OUTPUTS.contains(&field);
            let whole = mask::update(mask, &sent, || service::write(&old), settable)?;
            let desired = service::read(&key.name, &whole, Some(&old), &mut found);
            let made = self
                .api
                .replace_service(caller, &key, desired, expected, found, only_check)
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

    async fn delete(
        &self,
        caller: &Caller,
        sent: DeleteServiceRequest,
    ) -> Result<Operation, Status> {
        let key = At("name").service(&self.api, &sent.name).await?;
        let meta = self.api.service(&key).await?.value.meta;
        let expected = expected(&sent.etag, &meta)?;
        let gone = self
            .api
            .delete_service(caller, &key, expected, sent.validate_only)
            .await?;
        let gone = operation::deleted(&gone);
        Ok(operation::checked(gone, sent.validate_only))
    }
}
