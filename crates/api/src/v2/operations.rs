//! `google.longrunning.Operations`.

use std::time::Duration;

use lauf_model::{Code, Service, Status, Violation};
use lauf_store::WatchQuery;
use lauf_wire::google::longrunning::operations_server::Operations;
use lauf_wire::google::longrunning::{
    DeleteOperationRequest, GetOperationRequest, ListOperationsRequest, ListOperationsResponse,
    Operation, WaitOperationRequest,
};
use tonic::{Request, async_trait};

use super::name::At;
use super::{Answer, Face, answer, asked, next, operation, page};

/// How long a wait lasts when the client does not say, and at most, in seconds.
const WAIT: i64 = 60;
const MAX_WAIT: i64 = 300;

#[async_trait]
impl Operations for Face {
    async fn list_operations(
        &self,
        request: Request<ListOperationsRequest>,
    ) -> Answer<ListOperationsResponse> {
        let (_, sent) = asked(request)?;
        answer(self.operations(sent).await)
    }

    async fn get_operation(&self, request: Request<GetOperationRequest>) -> Answer<Operation> {
        let (_, sent) = asked(request)?;
        answer(self.operation(&sent.name).await)
    }

    /// Nothing is kept of an operation, so there is nothing to remove.
    async fn delete_operation(&self, request: Request<DeleteOperationRequest>) -> Answer<()> {
        let (_, sent) = asked(request)?;
        answer(self.operation(&sent.name).await.map(|_| ()))
    }

    async fn wait_operation(&self, request: Request<WaitOperationRequest>) -> Answer<Operation> {
        let (_, sent) = asked(request)?;
        answer(self.wait(sent).await)
    }
}

impl Face {
    async fn operation(&self, name: &str) -> Result<Operation, Status> {
        let (place, id) = At("name").operation(&self.api, name).await?;
        operation::get(&self.api, &place, id).await
    }

    async fn operations(
        &self,
        sent: ListOperationsRequest,
    ) -> Result<ListOperationsResponse, Status> {
        if !sent.filter.is_empty() {
            return Err(Status::invalid(vec![Violation::new(
                "filter",
                "is not supported by this version of Lauf; leave it out.",
            )]));
        }
        let place = At("name").places(&self.api, &sent.name).await?;
        let page = page::<Service, _>(
            &self.api,
            &place,
            sent.page_size,
            &sent.page_token,
            |stored| Some(operation::of_service(&stored.value)),
        )
        .await?;
        Ok(ListOperationsResponse {
            next_page_token: next(&page),
            operations: page.items,
            ..ListOperationsResponse::default()
        })
    }

    /// An operation when it is done, or as it is when the time is over.
    async fn wait(&self, sent: WaitOperationRequest) -> Result<Operation, Status> {
        let (place, id) = At("name").operation(&self.api, &sent.name).await?;
        let seconds = sent.timeout.map_or(WAIT, |timeout| timeout.seconds);
        let seconds = u64::try_from(seconds.min(MAX_WAIT)).map_err(|_| {
            Status::invalid(vec![Violation::new(
                "timeout",
                format!("is {seconds}s; must be 0s or more."),
            )])
        })?;
        let until = tokio::time::sleep(Duration::from_secs(seconds));
        tokio::pin!(until);
        let query = WatchQuery {
            kind: None,
            scope_prefix: format!("{}/{}", place.project, place.region),
        };
        let store = &self.api.deps.store;
        let mut changes = store.watch(query.clone(), store.version());
        loop {
            let operation = operation::get(&self.api, &place, id).await?;
            if operation.done {
                return Ok(operation);
            }
            tokio::select! {
                () = &mut until => return Ok(operation),
                change = changes.next() => match change {
                    Some(Ok(_)) => {}
                    // It was slow. What it missed is seen by the look that comes next.
                    Some(Err(_)) => changes = store.watch(query.clone(), store.version()),
                    None => return Err(Status::new(
                        Code::Unavailable,
                        "Lauf is about to end. Wait again when it is back.",
                    )),
                },
            }
        }
    }
}
