//! Tasks of Cloud Tasks, both ways.

use std::time::Duration;

use jiff::Timestamp;
use lauf_events::Identity;
use lauf_events::tasks::{Attempt, HttpRequest, QueueName, Task};
use lauf_model::Status;
use lauf_wire::google::cloud::tasks::v2 as wire;
use lauf_wire::google::rpc;

use crate::outgoing;
use crate::rpc::{duration, missing, read_duration, read_time, time, unsupported, wrong};

/// How long an answer may take if nobody says.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(600);

/// Whether all of a task is wanted, and not only what is short.
pub(super) fn is_full(view: i32) -> Result<bool, Status> {
    match wire::task::View::try_from(view) {
        Ok(view) => Ok(view == wire::task::View::Full),
        Err(_) => Err(wrong("response_view", format!("{view} is no view."))),
    }
}

/// Reads a task whose id has been read; an empty one is chosen by the queue.
pub(super) fn read(id: String, sent: wire::Task) -> Result<Task, Status> {
    use wire::http_request::AuthorizationHeader::{OauthToken, OidcToken};
    let request = match sent.message_type {
        Some(wire::task::MessageType::HttpRequest(request)) => request,
        Some(wire::task::MessageType::AppEngineHttpRequest(_)) => {
            return Err(unsupported("task.app_engine_http_request"));
        }
        None => return Err(missing("task.http_request")),
    };
    let identity = request.authorization_header.map(|header| match header {
        OauthToken(token) => outgoing::oauth(token.service_account_email, token.scope),
        OidcToken(token) => {
            outgoing::oidc(token.service_account_email, token.audience, &request.url)
        }
    });
    let schedule = sent
        .schedule_time
        .map(|sent| read_time("task.schedule_time", &sent))
        .transpose()?;
    let deadline = sent
        .dispatch_deadline
        .map(|sent| read_duration("task.dispatch_deadline", &sent))
        .transpose()?;
    Ok(Task {
        id,
        request: HttpRequest {
            method: outgoing::read_method("task.http_request.http_method", request.http_method)?,
            uri: request.url,
            headers: request.headers,
            body: request.body,
            identity,
        },
        // The queue makes now of what is past.
        schedule: schedule.unwrap_or(Timestamp::MIN),
        created: Timestamp::UNIX_EPOCH,
        deadline: deadline.unwrap_or(DEFAULT_DEADLINE),
        dispatched: 0,
        answered: 0,
        first: None,
        last: None,
    })
}

pub(super) fn show(queue: &QueueName, task: &Task, full: bool) -> wire::Task {
    let number = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
    let request = &task.request;
    let view = if full {
        wire::task::View::Full
    } else {
        wire::task::View::Basic
    };
    wire::Task {
        name: format!("{queue}/tasks/{}", task.id),
        schedule_time: Some(time(task.schedule)),
        create_time: Some(time(task.created)),
        dispatch_deadline: Some(duration(task.deadline)),
        dispatch_count: number(task.dispatched),
        response_count: number(task.answered),
        // Of the first attempt only the time is told, as documented.
        first_attempt: task.first.as_ref().map(|first| wire::Attempt {
            dispatch_time: Some(time(first.dispatched)),
            ..wire::Attempt::default()
        }),
        last_attempt: task.last.as_ref().map(show_attempt),
        view: view.into(),
        message_type: Some(wire::task::MessageType::HttpRequest(wire::HttpRequest {
            url: request.uri.clone(),
            http_method: outgoing::show_method(&request.method),
            headers: request.headers.clone(),
            body: if full {
                request.body.clone()
            } else {
                Default::default()
            },
            authorization_header: request.identity.as_ref().map(show_identity),
        })),
    }
}

fn show_attempt(attempt: &Attempt) -> wire::Attempt {
    wire::Attempt {
        schedule_time: Some(time(attempt.scheduled)),
        dispatch_time: Some(time(attempt.dispatched)),
        response_time: Some(time(attempt.answered)),
        response_status: Some(rpc::Status {
            code: attempt.code,
            message: attempt.message.clone(),
            details: Vec::new(),
        }),
    }
}

fn show_identity(identity: &Identity) -> wire::http_request::AuthorizationHeader {
    use wire::http_request::AuthorizationHeader::{OauthToken, OidcToken};
    match identity.clone() {
        Identity::Oidc { email, audience } => OidcToken(wire::OidcToken {
            service_account_email: email,
            audience,
        }),
        Identity::OAuth { email, scope } => OauthToken(wire::OAuthToken {
            service_account_email: email,
            scope,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_read_as_the_same() {
        let request = wire::HttpRequest {
            url: "https://a.example/x".to_owned(),
            body: "hello".into(),
            ..wire::HttpRequest::default()
        };
        let sent = wire::Task {
            message_type: Some(wire::task::MessageType::HttpRequest(request)),
            ..wire::Task::default()
        };
        let mut task = read("t".to_owned(), sent).unwrap();
        assert_eq!(task.deadline, DEFAULT_DEADLINE);
        task.schedule = Timestamp::from_second(7).unwrap();
        let queue = QueueName::parse("", "projects/p/locations/l/queues/q").unwrap();
        let shown = show(&queue, &task, true);
        assert_eq!(shown.name, "projects/p/locations/l/queues/q/tasks/t");
        assert_eq!(read("t".to_owned(), shown).unwrap(), task);
        let Some(wire::task::MessageType::HttpRequest(basic)) =
            show(&queue, &task, false).message_type
        else {
            panic!("no request");
        };
        assert!(basic.body.is_empty());
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let engine = wire::task::MessageType::AppEngineHttpRequest(Default::default());
        let sent = wire::Task {
            message_type: Some(engine),
            ..wire::Task::default()
        };
        let error = read(String::new(), sent).unwrap_err();
        assert_eq!(error.violations[0].field, "task.app_engine_http_request");
        assert!(is_full(9).is_err());
    }
}
