//! Errors of this face: Kubernetes' `Status` (API conventions, "Response Status Kind").

use http::{HeaderValue, StatusCode, header};
use lauf_model::{Code, Status, Violation};
use serde_json::{Value, json};

use super::kind::Names;
use crate::api::Ask;
use crate::reply::{self, Reply};

/// An answer that is not a success.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Failure {
    /// The HTTP status.
    pub(crate) code: u16,
    /// The word for programs (`metav1.StatusReason`).
    pub(crate) reason: &'static str,
    /// The sentence for people.
    pub(crate) message: String,
    /// Every single thing that is wrong.
    pub(crate) causes: Vec<Cause>,
    /// What it is about; in a box, because a `Result` is as large as its error.
    about: Option<Box<About>>,
    /// After how many seconds trying again makes sense.
    retry_after: Option<u32>,
}

/// What an error is about.
#[derive(Debug, Clone, PartialEq, Eq)]
struct About {
    group: &'static str,
    /// The kind or its plural: which of the two depends on the error.
    kind: &'static str,
    name: String,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cause {
    /// The word for programs (`metav1.CauseType`).
    pub(crate) reason: &'static str,
    /// What is wrong with it.
    pub(crate) message: String,
    /// The field's path; empty where it is about no field.
    pub(crate) field: String,
}

impl Failure {
    /// An error with a status, a word and a sentence.
    pub(crate) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            causes: Vec::new(),
            about: None,
            retry_after: None,
        }
    }

    /// A request that makes no sense.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// An object that is not there.
    pub(crate) fn not_found(names: &'static Names, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", names.resource());
        Self::new(404, "NotFound", message).of(names.group, names.plural, name)
    }

    /// A namespace that is not there; `hint` says which are.
    pub(crate) fn no_namespace(name: &str, hint: &str) -> Self {
        let message = format!("namespaces \"{name}\" not found: namespaces are projects. {hint}");
        Self::new(404, "NotFound", message).of("", "namespaces", name)
    }

    /// A path that leads nowhere.
    pub(crate) fn no_such_path(ask: &Ask) -> Self {
        Self::new(
            404,
            "NotFound",
            format!(
                "the server could not find the requested resource: /{}",
                ask.path.join("/")
            ),
        )
    }

    /// A method that a thing does not have.
    pub(crate) fn not_allowed(ask: &Ask, why: &str) -> Self {
        let message = format!("{} /{} {why}", ask.method, ask.path.join("/"));
        Self::new(405, "MethodNotAllowed", message)
    }

    /// An object that another has changed since it was read.
    pub(crate) fn conflict(names: &'static Names, name: &str, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{name}\": {why}",
            names.resource()
        );
        Self::new(409, "Conflict", message).of(names.group, names.plural, name)
    }

    /// A version that is no longer kept: list again.
    pub(crate) fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// Fields that are wrong, of an object.
    pub(crate) fn invalid(names: &'static Names, name: &str, found: &[Violation]) -> Self {
        let group = if names.group.is_empty() {
            String::new()
        } else {
            format!(".{}", names.group)
        };
        let list: Vec<String> = found
            .iter()
            .map(|v| format!("{}: {}", v.field, v.description))
            .collect();
        let all = match list.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let message = format!("{}{group} \"{name}\" is invalid: {all}", names.kind);
        Self {
            causes: causes(found),
            ..Self::new(422, "Invalid", message)
        }
        .of(names.group, names.kind, name)
    }

    /// Says what it is about, if it does not say so yet; and what is wrong with which field, in the
    /// words of an object that is not valid.
    pub(crate) fn about(self, names: &'static Names, name: &str) -> Self {
        if self.about.is_some() {
            return self;
        }
        if self.reason == "Invalid" && !self.causes.is_empty() {
            let found: Vec<Violation> = self
                .causes
                .iter()
                .map(|c| Violation::new(c.field.clone(), c.message.clone()))
                .collect();
            return Self {
                causes: self.causes,
                ..Self::invalid(names, name, &found)
            };
        }
        self.of(names.group, names.plural, name)
    }

    fn of(mut self, group: &'static str, kind: &'static str, name: &str) -> Self {
        self.about = Some(Box::new(About {
            group,
            kind,
            name: name.to_owned(),
        }));
        self
    }

    /// Says what is wrong, one by one.
    pub(crate) fn because(self, causes: Vec<Cause>) -> Self {
        Self { causes, ..self }
    }

    /// As the JSON object.
    pub(crate) fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        });
        let mut details = serde_json::Map::new();
        if let Some(about) = &self.about {
            for (field, text) in [
                ("name", about.name.as_str()),
                ("group", about.group),
                ("kind", about.kind),
            ] {
                if !text.is_empty() {
                    details.insert(field.to_owned(), text.into());
                }
            }
        }
        if !self.causes.is_empty() {
            let causes: Vec<Value> = self.causes.iter().map(Cause::write).collect();
            details.insert("causes".to_owned(), causes.into());
        }
        if let Some(seconds) = self.retry_after {
            details.insert("retryAfterSeconds".to_owned(), seconds.into());
        }
        if !details.is_empty() {
            status["details"] = Value::Object(details);
        }
        status
    }

    /// As the client gets it.
    pub(crate) fn reply(&self) -> Reply {
        let http = StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut reply = reply::raw(http, self.status().to_string().into_bytes());
        let headers = reply.headers_mut();
        if self.code == 401 {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"lauf\""),
            );
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        reply
    }
}

impl Cause {
    fn write(&self) -> Value {
        let mut cause = json!({"reason": self.reason, "message": self.message});
        if !self.field.is_empty() {
            cause["field"] = self.field.clone().into();
        }
        cause
    }
}

/// Violations as causes.
fn causes(found: &[Violation]) -> Vec<Cause> {
    found
        .iter()
        .map(|v| Cause {
            reason: "FieldValueInvalid",
            message: v.description.clone(),
            field: v.field.clone(),
        })
        .collect()
}

/// The house's codes in Kubernetes' words.
impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        Self::new(Code::from_http(failure.code), failure.message)
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let (code, reason, retry) = match status.code {
            Code::InvalidArgument | Code::OutOfRange if !status.violations.is_empty() => {
                (422, "Invalid", None)
            }
            Code::InvalidArgument | Code::OutOfRange => (400, "BadRequest", None),
            Code::Unauthenticated => (401, "Unauthorized", None),
            Code::PermissionDenied => (403, "Forbidden", None),
            Code::NotFound => (404, "NotFound", None),
            Code::Unimplemented => (405, "MethodNotAllowed", None),
            Code::AlreadyExists => (409, "AlreadyExists", None),
            Code::Aborted | Code::FailedPrecondition => (409, "Conflict", None),
            Code::ResourceExhausted => (429, "TooManyRequests", Some(1)),
            Code::Unavailable => (503, "ServiceUnavailable", Some(1)),
            Code::DeadlineExceeded => (504, "Timeout", Some(1)),
            Code::Cancelled | Code::Unknown | Code::Internal => (500, "InternalError", None),
        };
        Self {
            causes: causes(&status.violations),
            retry_after: retry,
            ..Self::new(code, reason, status.message)
        }
    }
}
