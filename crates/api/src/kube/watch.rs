//! Following what changes (API concepts, "Efficient detection of changes").
//!
//! The answer is a stream of events, one a line, made as it is read: a client that reads slowly
//! holds up nobody and nothing is gathered for it. It reads on from the store's history, and when
//! that no longer has its place it is told `410` and starts over with a list.

use std::collections::HashSet;
use std::convert::Infallible;
use std::pin::Pin;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Response, header};
use lauf_store::{Change, Event, Key, ListQuery, Store, Version, Watch, WatchError, WatchQuery};
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;

use super::accept::Accept;
use super::failure::Failure;
use super::kind::{Kind, Place};
use super::list;
use super::select::Select;
use crate::api::{Api, Ask};
use crate::failed;
use crate::reply::Reply;

/// How many may watch at a time.
pub(crate) const MOST: usize = 10_000;
/// How long a watch lasts that does not say.
const LONGEST: Duration = Duration::from_secs(60 * 60);
/// How often a client that wants bookmarks gets one, if there is a later version than it knows.
const BOOKMARKS: Duration = Duration::from_secs(60);
/// Objects of the initial list that are read at once.
const PAGE: usize = 100;

/// Whether a request for a list asks to follow it instead.
pub(crate) fn is_asked(ask: &Ask) -> bool {
    let asked = |(key, value): &(String, String)| {
        key == "watch" && matches!(value.as_str(), "" | "1" | "t" | "true" | "True" | "TRUE")
    };
    ask.query.iter().any(asked)
}

/// Answers with the changes of a kind in a place.
pub(crate) async fn answer(
    api: &Api,
    ask: &Ask,
    kind: &'static dyn Kind,
    place: &Place,
    name: &str,
    accept: &Accept,
) -> Result<Reply, Failure> {
    accept.json_only()?;
    let select = Select::of(ask, name)?;
    let from = list::version(ask.param("resourceVersion"))?;
    let initial = ask.param("sendInitialEvents") == "true";
    if !ask.param("sendInitialEvents").is_empty()
        && ask.param("resourceVersionMatch") != "NotOlderThan"
    {
        return Err(Failure::bad_request(
            "sendInitialEvents: resourceVersionMatch must be NotOlderThan with it",
        ));
    }
    let seconds = ask.count("timeoutSeconds")?;
    let lasts = match seconds {
        0 => LONGEST,
        seconds => Duration::from_secs(seconds as u64).min(LONGEST),
    };
    let permit = api.kube.watches.clone().try_acquire_owned().map_err(|_| {
        let message = format!("{MOST} watches are open already; try again later");
        Failure::from(lauf_model::Status::new(
            lauf_model::Code::ResourceExhausted,
            message,
        ))
    })?;
    let store = api.deps.store.clone();
    let query = WatchQuery {
        kind: Some(kind.stored()),
        scope_prefix: place.scope_prefix(kind),
    };
    let phase = if initial || from == Version::ZERO && ask.param("sendInitialEvents") != "false" {
        Phase::Initial {
            after: None,
            version: None,
            mark_end: initial,
        }
    } else {
        let mut watch = store.watch(query.clone(), from);
        // A place that is no longer kept is said by the answer itself rather than by an event.
        watch.begin().await.map_err(|error| failure(&error))?;
        Phase::Follow(Box::new(watch))
    };
    let known = (!select.is_everything()).then(HashSet::new);
    let mut watcher = Watcher {
        kind,
        place: place.clone(),
        accept: *accept,
        select,
        store,
        query,
        phase,
        known,
        from,
        learnt: from,
        told: from,
        first: true,
        bookmarks: ask.param("allowWatchBookmarks") == "true",
        bookmark: Box::pin(tokio::time::sleep(BOOKMARKS)),
        end: Box::pin(tokio::time::sleep(lasts)),
        _permit: permit,
    };
    if matches!(watcher.phase, Phase::Follow(_)) {
        watcher.learn(from).await?;
    }
    let lines = stream::unfold(watcher, |mut watcher| async move {
        let event = watcher.next().await?;
        let mut line = event.to_string();
        line.push('\n');
        Some((Ok::<_, Infallible>(Bytes::from(line)), watcher))
    });
    let mut reply = Response::new(Body::from_stream(lines));
    let headers = reply.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, private"),
    );
    Ok(reply)
}

enum Phase {
    /// What there is, page by page, from the first page's version on.
    Initial {
        after: Option<(String, String)>,
        version: Option<Version>,
        mark_end: bool,
    },
    /// The objects of one page.
    Page {
        objects: std::vec::IntoIter<Value>,
        then: Box<Phase>,
    },
    /// Everything there was has been told.
    Told { version: Version, mark_end: bool },
    /// What changes.
    Follow(Box<Watch>),
    /// A last event was told.
    Over,
}

struct Watcher {
    kind: &'static dyn Kind,
    place: Place,
    accept: Accept,
    select: Select,
    store: Store,
    query: WatchQuery,
    phase: Phase,
    /// The keys of the selected objects that the client knows of, where not all are selected: an
    /// object that is changed so that it is no longer selected is deleted for this client.
    known: Option<HashSet<Key>>,
    /// Where the client came from.
    from: Version,
    /// The version after which `known` is complete. Before it, an object may have gone that the
    /// client knows and that was no longer there to be learnt.
    learnt: Version,
    /// The last version the client was told.
    told: Version,
    first: bool,
    bookmarks: bool,
    bookmark: Pin<Box<Sleep>>,
    end: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

/// What woke a watcher.
enum Woken {
    Change(Option<Result<std::sync::Arc<Change>, WatchError>>),
    Bookmark,
    End,
}

impl Watcher {
    /// Finds out which selected objects a client knows that has listed them at a version.
    async fn learn(&mut self, at: Version) -> Result<(), Failure> {
        let Some(known) = &mut self.known else {
            return Ok(());
        };
        let mut walk = self.store.walk(ListQuery {
            scope: list::scope(self.kind, &self.place),
            ..ListQuery::all(self.kind.stored())
        });
        while let Some(object) = walk.next().await.map_err(|error| failed::read(&error))? {
            // Of what changed since then the client may know either; telling too much does no harm.
            let may_know = object.created <= at;
            if self.place.holds(self.kind, &object.key)
                && may_know
                && (object.version > at || self.select.matches(&self.kind.show(&object)?))
            {
                known.insert(object.key);
            }
        }
        self.learnt = self.store.version();
        Ok(())
    }

    /// The next event; `None` at the end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            match std::mem::replace(&mut self.phase, Phase::Over) {
                Phase::Over => return None,
                Phase::Initial {
                    after,
                    version,
                    mark_end,
                } => {
                    if let Err(failure) = self.page(after, version, mark_end).await {
                        return Some(error(&failure));
                    }
                }
                Phase::Told { version, mark_end } => {
                    let watch = self.store.watch(self.query.clone(), version);
                    self.phase = Phase::Follow(Box::new(watch));
                    self.told = version;
                    if mark_end {
                        return Some(self.bookmark_event(true));
                    }
                }
                Phase::Page { mut objects, then } => match objects.next() {
                    Some(object) => {
                        self.phase = Phase::Page { objects, then };
                        return Some(self.event("ADDED", object));
                    }
                    None => self.phase = *then,
                },
                Phase::Follow(mut watch) => {
                    let woken = tokio::select! {
                        biased;
                        () = &mut self.end => Woken::End,
                        change = watch.next() => Woken::Change(change),
                        () = &mut self.bookmark, if self.bookmarks => Woken::Bookmark,
                    };
                    let reached = watch.version();
                    match woken {
                        Woken::Change(None) => return None,
                        Woken::Change(Some(Err(why))) => return Some(error(&failure(&why))),
                        Woken::Change(Some(Ok(change))) => {
                            self.phase = Phase::Follow(watch);
                            match self.change(&change) {
                                Ok(None) => {}
                                Ok(Some(event)) => {
                                    self.told = change.version;
                                    return Some(event);
                                }
                                Err(failure) => {
                                    self.phase = Phase::Over;
                                    return Some(error(&failure));
                                }
                            }
                        }
                        Woken::Bookmark => {
                            self.phase = Phase::Follow(watch);
                            self.bookmark = Box::pin(tokio::time::sleep(BOOKMARKS));
                            if reached > self.told {
                                self.told = reached;
                                return Some(self.bookmark_event(false));
                            }
                        }
                        Woken::End => {
                            let last = self.bookmarks && reached > self.told;
                            self.told = reached;
                            return last.then(|| self.bookmark_event(false));
                        }
                    }
                }
            }
        }
    }

    /// Reads a page of what there is.
    async fn page(
        &mut self,
        after: Option<(String, String)>,
        version: Option<Version>,
        mark_end: bool,
    ) -> Result<(), Failure> {
        let page = self
            .store
            .list(&ListQuery {
                scope: list::scope(self.kind, &self.place),
                after,
                limit: PAGE,
                ..ListQuery::all(self.kind.stored())
            })
            .await
            .map_err(|error| failed::read(&error))?;
        let version = version.unwrap_or(page.version);
        let after = page.objects.last();
        let after = after.map(|o| (o.key.scope.clone(), o.key.name.clone()));
        let mut objects = Vec::new();
        for object in page.objects {
            if !self.place.holds(self.kind, &object.key) {
                continue;
            }
            let shown = self.kind.show(&object)?;
            if self.select.matches(&shown) {
                if let Some(known) = &mut self.known {
                    known.insert(object.key);
                }
                objects.push(shown);
            }
        }
        let then = if page.more && after.is_some() {
            Phase::Initial {
                after,
                version: Some(version),
                mark_end,
            }
        } else {
            Phase::Told { version, mark_end }
        };
        self.phase = if objects.is_empty() {
            then
        } else {
            Phase::Page {
                objects: objects.into_iter(),
                then: Box::new(then),
            }
        };
        Ok(())
    }

    /// What a change is for this client.
    fn change(&mut self, change: &Change) -> Result<Option<Value>, Failure> {
        if !self.place.holds(self.kind, &change.key) {
            return Ok(None);
        }
        let (object, gone) = match &change.event {
            Event::Put(object) => (object, false),
            Event::Deleted(object) => (object, true),
        };
        let mut shown = self.kind.show(object)?;
        if gone {
            shown["metadata"]["resourceVersion"] = change.version.to_string().into();
        }
        let selected = self.select.matches(&shown);
        let may_know = object.created <= self.from && change.version <= self.learnt;
        let word = match &mut self.known {
            None if gone => "DELETED",
            None if object.created == change.version => "ADDED",
            None => "MODIFIED",
            Some(known) if gone || !selected => {
                let was = known.remove(&change.key);
                if !was && !may_know {
                    return Ok(None);
                }
                "DELETED"
            }
            Some(known) => {
                let new = known.insert(change.key.clone());
                if new { "ADDED" } else { "MODIFIED" }
            }
        };
        Ok(Some(self.event(word, shown)))
    }

    fn event(&mut self, word: &str, object: Value) -> Value {
        let first = std::mem::replace(&mut self.first, false);
        json!({"type": word, "object": self.accept.event(self.kind, object, first)})
    }

    fn bookmark_event(&self, end_of_initial: bool) -> Value {
        let mut metadata = json!({
            "resourceVersion": self.told.to_string(),
            "creationTimestamp": null,
        });
        if end_of_initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        json!({"type": "BOOKMARK", "object": self.accept.bookmark(self.kind, metadata)})
    }
}

fn error(failure: &Failure) -> Value {
    json!({"type": "ERROR", "object": failure.status()})
}

/// Why a watch cannot go on, in Kubernetes' words.
fn failure(error: &WatchError) -> Failure {
    match error {
        WatchError::Compacted { from, oldest } => {
            Failure::expired(format!("too old resource version: {from} ({oldest})"))
        }
        WatchError::Ahead { from, current } => Failure::expired(format!(
            "resource version {from} is ahead of the store, which is at {current}: list again"
        )),
        WatchError::Read(error) => failed::read(error).into(),
    }
}
