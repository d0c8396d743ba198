//! Tasks, and what a queue's stream says of them.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use prost::Message as _;

use crate::call::Identity;

/// A task.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Its name within its queue.
    pub id: String,
    /// What is sent.
    pub request: HttpRequest,
    /// Not before this time.
    pub schedule: Timestamp,
    /// When it was added.
    pub created: Timestamp,
    /// How long an answer may take.
    pub deadline: Duration,
    /// How often it was sent.
    pub dispatched: u32,
    /// How often there was an answer.
    pub answered: u32,
    /// The first time it was sent.
    pub first: Option<Attempt>,
    /// The last time.
    pub last: Option<Attempt>,
}

/// What is sent.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpRequest {
    /// Where to.
    pub uri: String,
    /// `GET`, `POST`, ...
    pub method: String,
    /// Headers.
    pub headers: BTreeMap<String, String>,
    /// The body, where the method has one.
    pub body: Bytes,
    /// Who it comes from.
    pub identity: Option<Identity>,
}

/// One time that a task was sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// When it was to be sent.
    pub scheduled: Timestamp,
    /// When it was.
    pub dispatched: Timestamp,
    /// When the answer came, or the failure was noticed.
    pub answered: Timestamp,
    /// What came of it: a code of `google.rpc.Code`, 0 for success.
    pub code: i32,
    /// Why it failed.
    pub message: String,
}

/// A record of a queue's stream.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Entry {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4")]
    pub(super) kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Kind {
    /// A task was added; or is written again, with what happened to it, so that what came before can
    /// be given up.
    #[prost(message, boxed, tag = "1")]
    Added(Box<StoredTask>),
    /// A task was sent in vain.
    #[prost(message, tag = "2")]
    Failed(StoredFailure),
    /// A task is done, or was deleted.
    #[prost(message, tag = "3")]
    Done(StoredDone),
    /// All tasks that were there are deleted. Their names can be used again.
    #[prost(int64, tag = "4")]
    Purged(i64),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct StoredTask {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(string, tag = "2")]
    pub(super) uri: String,
    #[prost(string, tag = "3")]
    pub(super) method: String,
    #[prost(btree_map = "string, string", tag = "4")]
    pub(super) headers: BTreeMap<String, String>,
    #[prost(bytes = "bytes", tag = "5")]
    pub(super) body: Bytes,
    #[prost(message, optional, tag = "6")]
    pub(super) identity: Option<StoredIdentity>,
    /// Times in microseconds since 1970.
    #[prost(int64, tag = "7")]
    pub(super) schedule: i64,
    #[prost(int64, tag = "8")]
    pub(super) created: i64,
    #[prost(uint64, tag = "9")]
    pub(super) deadline_ms: u64,
    #[prost(message, optional, tag = "10")]
    pub(super) failed: Option<StoredFailure>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct StoredIdentity {
    /// Whether it is an access token; otherwise an identity token.
    #[prost(bool, tag = "1")]
    pub(super) access: bool,
    #[prost(string, tag = "2")]
    pub(super) email: String,
    /// The scope or the audience.
    #[prost(string, tag = "3")]
    pub(super) purpose: String,
}

/// How it went so far.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct StoredFailure {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(uint32, tag = "2")]
    pub(super) dispatched: u32,
    #[prost(uint32, tag = "3")]
    pub(super) answered: u32,
    /// When it is sent again.
    #[prost(int64, tag = "4")]
    pub(super) next: i64,
    #[prost(message, optional, tag = "5")]
    pub(super) first: Option<StoredAttempt>,
    #[prost(message, optional, tag = "6")]
    pub(super) last: Option<StoredAttempt>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct StoredAttempt {
    #[prost(int64, tag = "1")]
    pub(super) scheduled: i64,
    #[prost(int64, tag = "2")]
    pub(super) dispatched: i64,
    #[prost(int64, tag = "3")]
    pub(super) answered: i64,
    #[prost(int32, tag = "4")]
    pub(super) code: i32,
    #[prost(string, tag = "5")]
    pub(super) message: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct StoredDone {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(int64, tag = "2")]
    pub(super) at: i64,
}

impl Kind {
    pub(super) fn into_record(self) -> Bytes {
        Entry { kind: Some(self) }.encode_to_vec().into()
    }

    /// Reads a record. `None` for a kind that a later version has added.
    pub(super) fn from_record(record: Bytes) -> Result<Option<Self>, prost::DecodeError> {
        Ok(Entry::decode(record)?.kind)
    }
}

fn at(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or_default()
}

impl Task {
    pub(super) fn to_stored(&self) -> StoredTask {
        let request = &self.request;
        StoredTask {
            id: self.id.clone(),
            uri: request.uri.clone(),
            method: request.method.clone(),
            headers: request.headers.clone(),
            body: request.body.clone(),
            identity: request.identity.as_ref().map(|identity| match identity {
                Identity::Oidc { email, audience } => StoredIdentity {
                    access: false,
                    email: email.clone(),
                    purpose: audience.clone(),
                },
                Identity::OAuth { email, scope } => StoredIdentity {
                    access: true,
                    email: email.clone(),
                    purpose: scope.clone(),
                },
            }),
            schedule: self.schedule.as_microsecond(),
            created: self.created.as_microsecond(),
            deadline_ms: u64::try_from(self.deadline.as_millis()).unwrap_or(u64::MAX),
            failed: (self.dispatched > 0).then(|| self.to_failure()),
        }
    }

    pub(super) fn to_failure(&self) -> StoredFailure {
        StoredFailure {
            id: self.id.clone(),
            dispatched: self.dispatched,
            answered: self.answered,
            next: self.schedule.as_microsecond(),
            first: self.first.as_ref().map(Attempt::to_stored),
            last: self.last.as_ref().map(Attempt::to_stored),
        }
    }

    pub(super) fn from_stored(stored: StoredTask) -> Self {
        let mut task = Self {
            id: stored.id,
            request: HttpRequest {
                uri: stored.uri,
                method: stored.method,
                headers: stored.headers,
                body: stored.body,
                identity: stored.identity.map(|identity| {
                    let StoredIdentity {
                        access,
                        email,
                        purpose,
                    } = identity;
                    if access {
                        Identity::OAuth {
                            email,
                            scope: purpose,
                        }
                    } else {
                        Identity::Oidc {
                            email,
                            audience: purpose,
                        }
                    }
                }),
            },
            schedule: at(stored.schedule),
            created: at(stored.created),
            deadline: Duration::from_millis(stored.deadline_ms),
            dispatched: 0,
            answered: 0,
            first: None,
            last: None,
        };
        if let Some(failed) = stored.failed {
            task.apply(failed);
        }
        task
    }

    /// Takes over how it went so far.
    pub(super) fn apply(&mut self, failed: StoredFailure) {
        self.dispatched = failed.dispatched;
        self.answered = failed.answered;
        self.schedule = at(failed.next);
        self.first = failed.first.map(Attempt::from_stored);
        self.last = failed.last.map(Attempt::from_stored);
    }
}

impl Attempt {
    fn to_stored(&self) -> StoredAttempt {
        StoredAttempt {
            scheduled: self.scheduled.as_microsecond(),
            dispatched: self.dispatched.as_microsecond(),
            answered: self.answered.as_microsecond(),
            code: self.code,
            message: self.message.clone(),
        }
    }

    fn from_stored(stored: StoredAttempt) -> Self {
        Self {
            scheduled: at(stored.scheduled),
            dispatched: at(stored.dispatched),
            answered: at(stored.answered),
            code: stored.code,
            message: stored.message,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_comes_back_from_its_record() {
        let attempt = Attempt {
            scheduled: at(5),
            dispatched: at(6),
            answered: at(7),
            code: 14,
            message: "no".to_owned(),
        };
        let task = Task {
            id: "a".to_owned(),
            request: HttpRequest {
                uri: "http://x/".to_owned(),
                method: "POST".to_owned(),
                headers: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
                body: Bytes::from_static(b"body"),
                identity: Some(Identity::OAuth {
                    email: "e@x".to_owned(),
                    scope: "s".to_owned(),
                }),
            },
            schedule: at(1_000_000),
            created: at(3),
            deadline: Duration::from_secs(30),
            dispatched: 2,
            answered: 1,
            first: Some(attempt.clone()),
            last: Some(attempt),
        };
        let record = Kind::Added(Box::new(task.to_stored())).into_record();
        let Ok(Some(Kind::Added(stored))) = Kind::from_record(record) else {
            panic!("another record");
        };
        assert_eq!(Task::from_stored(*stored), task);
    }
}
