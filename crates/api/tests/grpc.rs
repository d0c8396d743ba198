//! The v2 API over gRPC: the same handlers as over REST, so what is tested here is that they are reached
//! and that answers and errors leave as gRPC's clients want them.

mod support;

use std::collections::BTreeMap;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Request};
use lauf_wire::google::cloud::location::ListLocationsRequest;
use lauf_wire::google::cloud::location::locations_client::LocationsClient;
use lauf_wire::google::cloud::run::v2;
use lauf_wire::google::cloud::run::v2::revisions_client::RevisionsClient;
use lauf_wire::google::cloud::run::v2::services_client::ServicesClient;
use lauf_wire::google::iam::v1::{GetIamPolicyRequest, Policy, SetIamPolicyRequest};
use lauf_wire::google::longrunning::operation::Result as Outcome;
use lauf_wire::google::longrunning::operations_client::OperationsClient;
use lauf_wire::google::longrunning::{CancelOperationRequest, Operation, WaitOperationRequest};
use lauf_wire::google::rpc;
use lauf_wire::{FieldMask, status, unpack};
use support::Platform;
use tonic::Code;
use tonic::client::GrpcService;
use tower::ServiceExt as _;

const PARENT: &str = "projects/demo/locations/us-central1";

/// What a client sends its calls through: the API, with a host and a token.
fn channel(
    p: &Platform,
    host: &'static str,
    token: &str,
) -> impl GrpcService<tonic::body::Body, ResponseBody = Body, Error = tonic::Status, Future: Send>
+ Clone
+ use<> {
    let (router, token) = (p.router.clone(), format!("Bearer {token}"));
    tower::service_fn(move |mut request: Request<tonic::body::Body>| {
        let headers = request.headers_mut();
        headers.insert("host", HeaderValue::from_static(host));
        headers.insert("authorization", token.parse().unwrap());
        let answer = router.clone().oneshot(request.map(Body::new));
        async move { Ok(answer.await.unwrap_or_else(|never| match never {})) }
    })
}

macro_rules! client {
    ($kind:ident, $p:expr) => {
        $kind::new(channel($p, "127.0.0.1:8080", &$p.token.clone()))
    };
}

fn name() -> String {
    format!("{PARENT}/services/hello")
}

fn hello(image: &str) -> v2::Service {
    v2::Service {
        description: "says hello".to_owned(),
        labels: BTreeMap::from([("team".to_owned(), "a".to_owned())]),
        template: Some(v2::RevisionTemplate {
            containers: vec![v2::Container {
                image: image.to_owned(),
                ..Default::default()
            }],
            ..Default::default()
        }),
        ..Default::default()
    }
}

async fn create(p: &Platform) -> Operation {
    let request = v2::CreateServiceRequest {
        parent: PARENT.to_owned(),
        service_id: "hello".to_owned(),
        service: Some(hello("hello")),
        ..Default::default()
    };
    let made = client!(ServicesClient, p).create_service(request).await;
    made.unwrap().into_inner()
}

fn service(operation: &Operation) -> v2::Service {
    match &operation.result {
        Some(Outcome::Response(any)) => unpack(any).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_service_lives_from_create_to_delete() {
    let p = Platform::new().await;
    let mut services = client!(ServicesClient, &p);
    let made = create(&p).await;
    assert!(!made.done);
    let wait = WaitOperationRequest {
        name: made.name.clone(),
        ..Default::default()
    };
    let mut operations = client!(OperationsClient, &p);
    let (done, ()) = tokio::join!(operations.wait_operation(wait), p.reconcile());
    assert_eq!(service(done.unwrap().get_ref()).name, name());

    let get = v2::GetServiceRequest { name: name() };
    let got = services
        .get_service(get.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(got.labels["team"], "a");
    assert_eq!(got.generation, 1);

    // A mask in the words of protobuf; the rest of what is sent is not looked at.
    let request = v2::UpdateServiceRequest {
        service: Some(v2::Service {
            name: name(),
            description: "second".to_owned(),
            template: Some(v2::RevisionTemplate {
                max_instance_request_concurrency: 9,
                ..Default::default()
            }),
            ..Default::default()
        }),
        update_mask: Some(FieldMask {
            paths: vec![
                "description".to_owned(),
                "template.max_instance_request_concurrency".to_owned(),
            ],
        }),
        ..Default::default()
    };
    services.update_service(request).await.unwrap();
    p.reconcile().await;
    let now = services
        .get_service(get.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!((now.description.as_str(), now.generation), ("second", 2));
    let template = now.template.unwrap();
    assert_eq!(template.max_instance_request_concurrency, 9);
    assert_eq!(template.containers, got.template.unwrap().containers);

    let revisions = v2::ListRevisionsRequest {
        parent: name(),
        page_size: 1,
        ..Default::default()
    };
    let mut lists = client!(RevisionsClient, &p);
    let first = lists
        .list_revisions(revisions.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(first.revisions.len(), 1);
    let next = v2::ListRevisionsRequest {
        page_token: first.next_page_token,
        ..revisions
    };
    let second = lists.list_revisions(next).await.unwrap().into_inner();
    assert_eq!(second.revisions.len(), 1);
    assert_ne!(second.revisions[0].name, first.revisions[0].name);

    let request = v2::DeleteServiceRequest {
        name: name(),
        ..Default::default()
    };
    services.delete_service(request).await.unwrap();
    p.reconcile().await;
    let error = services.get_service(get).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    let details = status::from_grpc(&error).details;
    let info: rpc::ErrorInfo = unpack(&details[0]).unwrap();
    assert_eq!(info.domain, "run.googleapis.com");
}

#[tokio::test]
async fn what_is_wrong_is_in_the_details() {
    let p = Platform::new().await;
    let mut wrong = hello("hello");
    wrong.iap_enabled = true;
    let template = wrong.template.as_mut().unwrap();
    template.health_check_disabled = true;
    template.timeout = Some(lauf_wire::Duration {
        seconds: 1,
        nanos: 1,
    });
    template.containers[0].env = (0..300)
        .map(|i| v2::EnvVar {
            name: format!("{i}="),
            ..Default::default()
        })
        .collect();
    let request = v2::CreateServiceRequest {
        parent: PARENT.to_owned(),
        service_id: "hello".to_owned(),
        service: Some(wrong),
        ..Default::default()
    };
    let mut services = client!(ServicesClient, &p);
    let error = services.create_service(request).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    // As many as fit into what clients take for headers.
    let details = status::from_grpc(&error).details;
    let bad: rpc::BadRequest = unpack(&details[0]).unwrap();
    let fields: Vec<&str> = bad
        .field_violations
        .iter()
        .map(|v| v.field.as_str())
        .collect();
    assert_eq!(
        fields[..3],
        [
            "iap_enabled",
            "template.health_check_disabled",
            "template.timeout"
        ]
    );
    assert!(fields.len() < 300, "{}", fields.len());
    assert!(
        error.message().ends_with("(and more)"),
        "{}",
        error.message()
    );
}

#[tokio::test]
async fn a_policy_has_an_etag_of_bytes() {
    let p = Platform::new().await;
    create(&p).await;
    let mut services = client!(ServicesClient, &p);
    let get = GetIamPolicyRequest {
        resource: name(),
        ..Default::default()
    };
    let empty = services
        .get_iam_policy(get.clone())
        .await
        .unwrap()
        .into_inner();
    let set = SetIamPolicyRequest {
        resource: name(),
        policy: Some(empty),
        ..Default::default()
    };
    services.set_iam_policy(set.clone()).await.unwrap();
    let error = services.set_iam_policy(set.clone()).await.unwrap_err();
    assert_eq!(error.code(), Code::Aborted);
    let wrong = Policy {
        etag: Bytes::from_static(b"x"),
        ..Default::default()
    };
    let set = SetIamPolicyRequest {
        policy: Some(wrong),
        ..set
    };
    let error = services.set_iam_policy(set).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn strangers_and_what_is_not_served_get_errors_of_grpc() {
    let p = Platform::new().await;
    let get = v2::GetServiceRequest { name: name() };
    let mut stranger = ServicesClient::new(channel(&p, "127.0.0.1:8080", "wrong"));
    let error = stranger.get_service(get.clone()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unauthenticated);
    let mut elsewhere = ServicesClient::new(channel(&p, "translate.googleapis.com", &p.token));
    let error = elsewhere.get_service(get.clone()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented);
    assert!(error.message().contains("translate.googleapis.com"));
    let mut regional = ServicesClient::new(channel(&p, support::RUN, &p.token));
    let error = regional.get_service(get).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    let cancel = CancelOperationRequest {
        name: format!("{PARENT}/operations/x"),
    };
    let error = client!(OperationsClient, &p)
        .cancel_operation(cancel)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented);
    let wrong = v2::GetServiceRequest {
        name: "hello".to_owned(),
    };
    let error = client!(ServicesClient, &p)
        .get_service(wrong)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    let list = ListLocationsRequest {
        name: "projects/demo".to_owned(),
        ..Default::default()
    };
    let locations = client!(LocationsClient, &p)
        .list_locations(list)
        .await
        .unwrap();
    assert_eq!(locations.get_ref().locations.len(), 2);
}
