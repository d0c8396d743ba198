//! `google.longrunning.Operations`.

use std::time::Duration;

use lauf_model::{Code, Execution, Job, Service, Status, Violation, WorkerPool};
use lauf_store::WatchQuery;
use lauf_wire::google::longrunning::operations_server::Operations;
use lauf_wire::google::longrunning::{
    DeleteOperationRequest, GetOperationRequest, ListOperationsRequest, ListOperationsResponse,
    Operation, WaitOperationRequest,
};
use tonic::{Request, async_trait};

use super::name::{At, Here};
use super::operation::Subject;
use super::{Answer, Face, answer, asked, operation, page_size};
use crate::eventarc;
use crate::page::Token;
use crate::services::Listing;

/// How long a wait lasts when the client does not say, and at most, in seconds.
const WAIT: i64 = 60;
const MAX_WAIT: i64 = 300;

/// What operations are listed of, in this order; the words stand in page tokens.
const KINDS: [&str; 4] = ["services", "jobs", "workerPools", "executions"];

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
        if let Some(id) = id.strip_prefix(eventarc::OPERATION) {
            return eventarc::operation(&self.api, name, id);
        }
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
        let limit = page_size(sent.page_size)?;
        let (mut kind, mut from) = match sent.page_token.split_once('.') {
            None if sent.page_token.is_empty() => (0, None),
            Some((kind, rest)) if KINDS.contains(&kind) => {
                let kind = KINDS.iter().position(|known| *known == kind);
                (kind.unwrap_or_default(), Token::decode(rest)?)
            }
            _ => return Err(Token::wrong()),
        };
        let mut operations = Vec::new();
        // One kind after the other, until the page is full.
        while kind < KINDS.len() && operations.len() < limit {
            let left = limit - operations.len();
            let page = match kind {
                0 => self.of::<Service>(&place, left, from.take()).await?,
                1 => self.of::<Job>(&place, left, from.take()).await?,
                2 => self.of::<WorkerPool>(&place, left, from.take()).await?,
                _ => self.of::<Execution>(&place, left, from.take()).await?,
            };
            operations.extend(page.items);
            from = page.next;
            if from.is_none() {
                kind += 1;
            }
        }
        let next = KINDS.get(kind).map(|kind| {
            let rest = from.as_ref().map(Token::encode).unwrap_or_default();
            format!("{kind}.{rest}")
        });
        Ok(ListOperationsResponse {
            next_page_token: next.unwrap_or_default(),
            operations,
            ..ListOperationsResponse::default()
        })
    }

    /// The operations of resources of one kind.
    async fn of<T: Subject>(
        &self,
        place: &Here,
        limit: usize,
        from: Option<Token>,
    ) -> Result<Listing<Operation>, Status> {
        let write = |stored| Some(operation::of(&stored));
        let Here { project, .. } = place;
        self.api
            .page::<T, _>(project, place.region(), limit, from, write)
            .await
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
