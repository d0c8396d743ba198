//! The list of revisions: those of services, then those of worker pools, as one.

use lauf_model::{Revision, Status, WorkerPoolRevision};
use lauf_store::{Stored, Version};

use super::run::worker_pool::{WORKER_POOL, write_revision};
use super::{Labels, as_list, list as list_one, listed_region, revision, selector, types};
use crate::api::{Api, Ask};
use crate::page::Token;
use crate::reply::{self, Reply};
use crate::services::Listing;

const KIND: &str = "RevisionList";

pub(super) async fn list(api: &Api, ask: &Ask, project: &str) -> Result<Reply, Status> {
    let selector = selector(ask)?;
    // What is asked for by its owner is of one kind.
    if selector.only(WORKER_POOL).is_some() {
        return list_one(api, ask, project, KIND, of_pool).await;
    }
    if selector.only(revision::SERVICE).is_some() {
        return list_one(api, ask, project, KIND, of_service).await;
    }
    let region = listed_region(api, ask)?;
    let region = region.as_deref();
    let limit = ask.count("limit")?;
    let from = Token::decode(ask.param("continue"))?;
    let services_are_over = from.as_ref().is_some_and(|token| token.second);
    let mut page = if services_are_over {
        Listing {
            items: Vec::new(),
            next: None,
            version: Version::ZERO,
        }
    } else {
        let from = from.clone();
        api.page(project, region, limit, from, |r: Stored<Revision>| {
            let (labels, item) = of_service(&r);
            selector.matches(&labels).then_some(item)
        })
        .await?
    };
    if page.next.is_some() {
        return reply::ok(&as_list(KIND, page));
    }
    let full = limit > 0 && page.items.len() == limit;
    // On a full page, one shows whether there is another page.
    let room = if full {
        1
    } else {
        limit - page.items.len().min(limit)
    };
    let from = from.filter(|token| token.second && !token.name.is_empty());
    let pools = api
        .page(
            project,
            region,
            room,
            from,
            |r: Stored<WorkerPoolRevision>| {
                let (labels, item) = of_pool(&r);
                selector.matches(&labels).then_some(item)
            },
        )
        .await?;
    page.version = page.version.max(pools.version);
    if !full {
        page.items.extend(pools.items);
        page.next = pools.next.map(|token| Token {
            second: true,
            ..token
        });
    } else if !pools.items.is_empty() {
        page.next = Some(Token {
            scope: String::new(),
            name: String::new(),
            second: true,
        });
    }
    reply::ok(&as_list(KIND, page))
}

fn of_service(stored: &Stored<Revision>) -> (Labels, types::Revision) {
    let written = revision::write(&stored.value, stored.version.get());
    (written.metadata.labels.clone(), written)
}

fn of_pool(stored: &Stored<WorkerPoolRevision>) -> (Labels, types::Revision) {
    let written = write_revision(&stored.value, stored.version.get());
    (written.metadata.labels.clone(), written)
}
